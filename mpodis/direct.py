"""`circuit_qr` and `circuit_svd`: a dense matrix as circuits and what stays classical.

The paper (arXiv 2509.06653v1, end of Sec. IV before IV.1) would take Q, or U and V, from a
decomposition and look for circuits that are near them. Singular vectors are only defined up to
their order and signs (and rotations of equal singular values), and each choice is another target.
Here the classical part is instead the best one at the circuits of the moment (see `captured`), so
that the circuits are free to take whatever order and signs suit them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mpodis.captured import Captured, exact_cores
from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.conventions import crop, pad, qubit_legs, wires
from mpodis.environments import DenseEnvironments
from mpodis.factorization import sandwich
from mpodis.gates import polar_update
from mpodis.mpo import check_matrix
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.optimise.problem import as_ansatz
from mpodis.tables import Table, Tabular

__all__ = ["CircuitFactors", "circuit_qr", "circuit_svd"]

CRAWL = 0.05
"""A sweep that lowers the loss by less than this fraction hands over to L-BFGS."""
WINDOW = 10
"""Sweeps over which convergence is judged."""
ITERATIONS = 10
"""L-BFGS iterations that count as one sweep."""
EXACT = 1e-13
"""A loss at rounding."""
SCALE = 0.05
"""Size of the generators of the first start near the identity; later ones reach further out."""


@dataclass(frozen=True, eq=False)
class CircuitFactors(Tabular):
    """W ~ Q_L D Q_R with D upper triangular (and no Q_R), or diagonal.

    Attributes
    ----------
    left, right : Circuit
        The right one of a QR has no gates.
    middle : array (padded rows, padded columns)
        D, zero where its kind says so.
    shape : (inputs, outputs)
        Before zero padding.
    overlap : float
        f = |D| / |W|, the cosine of the angle between W and Q_L D Q_R.
    status : {"exact", "converged", "max_sweeps"}
    init, sweeps : int
        Which start won, and the sweeps it took, ten L-BFGS iterations counting as one.
    parameters : int
        Numbers that stay classical: the entries of D that are free.
    seconds : float
    """

    left: Circuit
    middle: np.ndarray
    right: Circuit
    shape: tuple[int, int]
    overlap: float
    status: str
    init: int
    sweeps: int
    parameters: int
    seconds: float

    @property
    def relative_error(self) -> float:
        """|W - Q_L D Q_R| / |W| = sqrt(1 - f^2), since D is a projection."""
        return math.sqrt(max(0.0, 1.0 - self.overlap**2))

    def to_dense(self) -> np.ndarray:
        """Dense (inputs, outputs) matrix."""
        return crop(sandwich(self.left, self.middle, self.right), self.shape)

    def table(self) -> Table:
        rows: list[Sequence[object]] = [
            ("left circuit", str(self.left.ansatz)),
            ("right circuit", str(self.right.ansatz)),
            ("parameters, classical", self.parameters),
            ("overlap f", self.overlap),
            ("relative error", self.relative_error),
            ("init", self.init),
            ("sweeps", self.sweeps),
            ("seconds", self.seconds),
            ("status", self.status),
        ]
        return Table(("circuit factors", ""), rows)


def circuit_qr(
    matrix,
    circuit: Ansatz | int | str,
    *,
    group: str = "SO",
    n_init: int = 4,
    init_sweeps: int = 20,
    max_sweeps: int = 200,
    tol: float = 1e-4,
    seed: int | np.random.Generator = 0,
) -> CircuitFactors:
    """W ~ Q R with a circuit Q and an upper triangular R that stays classical.

    The better the circuit, the less of Q^H W lies below the diagonal. R holds half of W's numbers,
    and so captures about f = .71 of any W at any Q.

    Parameters
    ----------
    matrix : array (inputs, outputs)
        W, in the row action, zero-padded to powers of two.
    circuit : Ansatz, int or str
        Of the inputs: places of the gates, the depth of a brickwall of 2-body gates, or a spec.
    group : {"SO", "O", "U"}
        Of the gates, where `circuit` is no `Ansatz` that says it.
    n_init, init_sweeps : int
        Of so many starts, every second one random, the best after `init_sweeps` sweeps is kept.
    max_sweeps, tol
        Stop after so many sweeps of a start, or when ten lower 1 - f by less than `tol` of it.
    seed : int or numpy Generator

    Raises
    ------
    ValueError
        For what is no matrix, a circuit that does not fit, or options that make no sense.
    """
    given = _Given(matrix)
    left = as_ansatz(circuit, given.wires("left"), group, "left")
    none = Ansatz(given.wires("right"), (), left.group)
    search = _Search(given, left, none, np.triu(np.ones(given.padded.shape, dtype=bool)))
    return search.run(n_init, init_sweeps, max_sweeps, tol, seed)


def circuit_svd(
    matrix,
    left: Ansatz | int | str,
    right: Ansatz | int | str | None = None,
    *,
    group: str = "SO",
    n_init: int = 4,
    init_sweeps: int = 20,
    max_sweeps: int = 200,
    tol: float = 1e-4,
    seed: int | np.random.Generator = 0,
) -> CircuitFactors:
    """W ~ U S V with circuits U and V and a real or complex diagonal S that stays classical.

    S is the diagonal of U^H W V^H, in any order and of any sign, so that neither U nor V has to be
    a particular matrix of singular vectors.

    Parameters
    ----------
    matrix : array (inputs, outputs)
        W, in the row action, zero-padded to powers of two.
    left, right : Ansatz, int or str
        Circuits for U and V; `right` is by default the mirror image of `left`.
    group, n_init, init_sweeps, max_sweeps, tol, seed
        See `circuit_qr`, also for what is raised.
    """
    given = _Given(matrix)
    n_left, n_right = given.wires("left"), given.wires("right")
    u = as_ansatz(left, n_left, group, "left")
    if right is not None:
        v = as_ansatz(right, n_right, group, "right")
    elif isinstance(left, Ansatz) and n_left != n_right:
        raise ValueError(
            f"the left ansatz has {n_left} wires and cannot be mirrored onto {n_right}; "
            "give right= too"
        )
    else:
        v = as_ansatz(left, n_right, group, "right").reversed()
    search = _Search(given, u, v, np.eye(*given.padded.shape, dtype=bool))
    return search.run(n_init, init_sweeps, max_sweeps, tol, seed)


class _Given:
    """A matrix, checked and padded."""

    def __init__(self, matrix) -> None:
        matrix = check_matrix(matrix)
        self.shape, self.legs = tuple(matrix.shape), qubit_legs(*matrix.shape)
        self.padded = pad(matrix.astype(np.result_type(matrix, np.float64)), self.legs)

    def wires(self, side: str) -> int:
        return len(wires(self.legs, side))


class _Search:
    """One matrix, its circuits and an engine, used by all starts."""

    def __init__(self, given: _Given, left: Ansatz, right: Ansatz, mask) -> None:
        self.given, self.ansatze = given, {"left": left, "right": right}
        self.norm = float(np.linalg.norm(given.padded))
        self.objective = Captured(given.padded / self.norm, given.legs, mask)
        self.engine = DenseEnvironments(self.objective.target, given.legs, left, right)
        self.polish = Lbfgs(self.objective, self.engine, left, right, free_core=False)
        self.updates = {
            side: partial(polar_update, group=ansatz.group)
            for side, ansatz in self.ansatze.items()
            if ansatz.placements
        }

    def run(
        self, n_init: int, init_sweeps: int, max_sweeps: int, tol: float, seed
    ) -> CircuitFactors:
        began = time.perf_counter()
        counts = {"n_init": n_init, "init_sweeps": init_sweeps, "max_sweeps": max_sweeps}
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        best: tuple = ()
        for number in range(n_init):
            self._begin(number, seed)
            losses = [self.objective.loss(self.engine)]
            status = self._descend(losses, min(init_sweeps, max_sweeps), tol)
            if not best or losses[-1] < best[0][-1]:
                best = losses, status, number, self._gates()
            if status == "exact":
                break
        losses, status, number, gates = best
        self.engine.set(left=gates["left"], right=gates["right"])
        if status == "max_sweeps":
            status = self._descend(losses, max_sweeps + 1 - len(losses), tol)
        return self._result(status, number, len(losses) - 1, time.perf_counter() - began)

    def _begin(self, number: int, seed: int) -> None:
        """Gates of a start, which does not depend on the others."""
        rng = np.random.default_rng([seed, number])
        scale = None if number % 2 else SCALE * 2 ** (number // 2)
        gates = {
            side: random_circuit(ansatz, seed=rng, scale=scale).gates
            for side, ansatz in self.ansatze.items()
        }
        self.engine.set(
            gates["left"], exact_cores(self.given.padded, self.given.legs), gates["right"]
        )

    def _gates(self) -> dict[str, list]:
        return {side: list(getattr(self.engine, side)) for side in self.ansatze}

    def _descend(self, losses: list[float], most: int, tol: float) -> str:
        """Sweeps, handed over to L-BFGS when they crawl; returns how it ended."""
        sweeping = not any(ansatz.ties for ansatz in self.ansatze.values())
        self.polish.forget()
        for _ in range(most):
            if sweeping:
                self.objective.sweep(self.engine, self.updates)
                losses.append(self.objective.loss(self.engine))
            else:
                losses.append(self.polish.run(ITERATIONS))
            if losses[-1] <= EXACT:
                return "exact"
            if len(losses) > WINDOW and losses[-1 - WINDOW] - losses[-1] < tol * losses[-1]:
                return "converged"
            sweeping = sweeping and losses[-2] - losses[-1] > CRAWL * losses[-2]
        return "max_sweeps"

    def _result(self, status: str, number: int, sweeps: int, seconds: float) -> CircuitFactors:
        left, right = (
            Circuit(ansatz, tuple(getattr(self.engine, side))).projected()
            for side, ansatz in self.ansatze.items()
        )
        self.engine.set(left=left.gates, right=right.gates)
        middle = self.objective.middle(self.engine)
        return CircuitFactors(
            left=left,
            middle=self.norm * middle,
            right=right,
            shape=self.given.shape,
            overlap=float(np.linalg.norm(middle)),
            status=status,
            init=number,
            sweeps=sweeps,
            parameters=int(self.objective.mask.sum()),
            seconds=seconds,
        )
