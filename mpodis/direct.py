"""`circuit_qr` and `circuit_svd`: W ~ Q R and W ~ U S V with circuits Q, U and V.

The paper (arXiv 2509.06653v1, end of Sec. IV before IV.1) would take Q, or U and V, from a
decomposition and look for circuits that are near them. Singular vectors are only defined up to
their order and signs (and rotations of equal singular values), and each choice is another target.
Here the classical part D (R or S) is instead the best one at the circuits of the moment, so that
the circuits are free to take whatever order and signs suit them.

For Y = Q_L^H W Q_R^H and a D that may be non-zero only where a mask says so, the best D is Y there
and 0 elsewhere. The overlap of W with Q_L D Q_R is then f = |D| / |W| and the relative error
sqrt(1 - f^2): a function of the gates alone, whose derivatives are those of Re Tr(W^H Q_L D Q_R) at
the D of the moment.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpodis.arguments import as_seed, check_count, check_number
from mpodis.arrays import rescaled, times_power_of_two
from mpodis.circuit import (
    Ansatz,
    Circuit,
    CircuitLike,
    as_ansatz,
    both_ansatze,
    random_circuit,
)
from mpodis.conventions import Legs, crop, pad, qubit_legs, split, wires
from mpodis.environments.protocol import DenseOperatorEnvironments, Gradient, Update
from mpodis.environments.registry import dense_engine
from mpodis.factorization import sandwich
from mpodis.mpo import check_matrix
from mpodis.optimise.descend import Budget, Descent
from mpodis.optimise.state import State
from mpodis.options import check_most_guesses
from mpodis.tables import Table, Tabular

__all__ = ["CircuitFactors", "circuit_qr", "circuit_svd"]

SCALE = 0.05
"""Size of the generators of the first guess near the identity; later guesses are further away."""


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
        Which initial guess won, and the sweeps it took, ten L-BFGS iterations counting as one.
    parameters : int
        Numbers that stay classical: the entries of D that are free.
    seconds : float
        Wall time.
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
            ("initial guess", self.init),
            ("sweeps", self.sweeps),
            ("seconds", self.seconds),
            ("status", self.status),
        ]
        return Table(("circuit factors", ""), rows)


def circuit_qr(
    matrix,
    circuit: CircuitLike,
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
    so that f is about .71 on average for a random square W at any Q.

    Parameters
    ----------
    matrix : array (inputs, outputs)
        W, in the row action, zero-padded to powers of two.
    circuit : Ansatz, Circuit, quimb Circuit, int or str
        Of the inputs: placements of the gates (of a circuit nothing else counts), the depth of a
        brickwall of 2-body gates, or a spec.
    group : {"SO", "O", "U"}
        Of the gates, where `circuit` is not an `Ansatz`, which says it.
    n_init, init_sweeps : int
        Of `n_init` initial guesses, every second one random, the best after `init_sweeps` sweeps
        is refined.
    max_sweeps, tol
        Stop after this many sweeps, or when ten lower 1 - f by less than `tol` of it.
    seed : int or numpy Generator

    Raises
    ------
    ValueError
        For what is not a matrix, a circuit that does not fit, or options out of range.
    """
    began = time.perf_counter()
    padded, shape, legs = _padded(matrix)
    n_left, n_right = (len(wires(legs, side)) for side in ("left", "right"))
    left = as_ansatz(circuit, n_left, group, "circuit")
    nothing = Ansatz(n_right, (), left.group)
    effort = _Effort(n_init, init_sweeps, max_sweeps, tol, as_seed(seed))
    mask = np.triu(np.ones(padded.shape, dtype=bool))
    return _factorized(padded, shape, legs, (left, nothing), mask, effort, began)


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
    began = time.perf_counter()
    padded, shape, legs = _padded(matrix)
    ansatze = both_ansatze(legs, left, right, group=group)
    effort = _Effort(n_init, init_sweeps, max_sweeps, tol, as_seed(seed))
    mask = np.eye(*padded.shape, dtype=bool)
    return _factorized(padded, shape, legs, ansatze, mask, effort, began)


@dataclass(frozen=True)
class _Effort:
    """How far the circuits are searched for, see `circuit_qr`."""

    n_init: int
    init_sweeps: int
    max_sweeps: int
    tol: float
    seed: int

    def __post_init__(self) -> None:
        for name in ("n_init", "init_sweeps", "max_sweeps"):
            check_count(name, getattr(self, name))
        check_number("tol", self.tol, 0)
        check_most_guesses(self.n_init)


class MaskedLoss:
    """1 - |D| / |W| for the D that a mask lets through, a `Loss` of the gates alone.

    Parameters
    ----------
    matrix : array (rows, columns)
        W, of norm 1 and padded.
    legs : legs of W
    mask : bool array (rows, columns)
        Where D may differ from zero.
    """

    polar_sides = ("left", "right")

    def __init__(self, matrix: np.ndarray, legs: Legs, mask: np.ndarray) -> None:
        self.target, self.legs, self.mask = matrix, legs, mask

    def middle(self, engine: DenseOperatorEnvironments) -> np.ndarray:
        """The best D, (rows, columns)."""
        return np.where(self.mask, engine.pulled(), 0.0)

    def value(self, engine: DenseOperatorEnvironments) -> float:
        return 1.0 - float(np.linalg.norm(self.middle(engine)))

    def overlap(self, value: float) -> float:
        return 1.0 - value

    def sweep(
        self, engine: DenseOperatorEnvironments, updates: Mapping[str, Update], *, core: bool
    ) -> None:
        """Every gate once; D is renewed between the sides, so that f never falls."""
        for side in self.polar_sides:
            if getattr(engine, side):
                self._renew(engine)
                engine.sweep({side: updates[side]})

    def gradient(self, engine: DenseOperatorEnvironments) -> tuple[float, Gradient]:
        size = self._renew(engine)
        found = engine.gradient()
        left, right = (
            [e if e is None else e / size for e in side] for side in (found.left, found.right)
        )
        return 1.0 - size, Gradient(size, left, right, found.core)

    def best_core(self, engine: DenseOperatorEnvironments) -> list:
        return dense_site_tensors(self.middle(engine), self.legs)

    def scaled_core(self, engine: DenseOperatorEnvironments) -> list:
        return list(engine.core)

    def _renew(self, engine: DenseOperatorEnvironments) -> float:
        """Give the engine the best D as its core; returns |D|."""
        middle = self.middle(engine)
        engine.set(core=dense_site_tensors(middle, self.legs))
        return max(float(np.linalg.norm(middle)), math.ulp(0.0))


def dense_site_tensors(matrix: np.ndarray, legs: Legs) -> list:
    """A dense matrix (rows, columns) as site tensors, without any SVD.

    The middle site holds all entries, the others only pass their legs on, so that the shapes are
    those of the legs alone.
    """
    sizes = [i * o for i, o in legs]
    centre, tensors = len(legs) // 2, []
    for k, (i, o) in enumerate(legs):
        before, after = math.prod(sizes[:k]), math.prod(sizes[k + 1 :])
        if k < centre:
            tensors.append(np.eye(before * sizes[k]).reshape(before, i, o, -1))
        elif k == centre:
            tensors.append(split(matrix, legs).reshape(before, i, o, after))
        else:
            tensors.append(np.eye(sizes[k] * after).reshape(-1, i, o, after))
    return tensors


def _padded(matrix) -> tuple[np.ndarray, tuple[int, int], Legs]:
    """The matrix in double precision, zero-padded; its shape before that; its legs."""
    matrix = check_matrix(matrix)
    legs = qubit_legs(*matrix.shape)
    return pad(matrix.astype(np.result_type(matrix, np.float64)), legs), matrix.shape, legs


def _factorized(
    padded: np.ndarray,
    shape: tuple[int, int],
    legs: Legs,
    ansatze: tuple[Ansatz, Ansatz],
    mask: np.ndarray,
    effort: _Effort,
    began: float,
) -> CircuitFactors:
    padded, exponent = rescaled(padded)
    norm = float(np.linalg.norm(padded))
    loss = MaskedLoss(padded / norm, legs, mask)
    engine = dense_engine(loss.target, legs, *ansatze)
    tied = any(ansatz.ties for ansatz in ansatze)
    method = "lbfgs" if tied else "auto"
    descent = Descent(loss, engine, *ansatze, method=method, core=False)
    budget = Budget(
        effort.max_sweeps,
        tol=effort.tol,
        handover=0.05 / 0.95,  # 5 % of the loss before the sweep
        alternate=False,
    )
    exploring = replace(budget, init_sweeps=effort.init_sweeps)

    def place(state: State) -> None:
        rng = np.random.default_rng([effort.seed, state.guess])
        scale = None if state.guess % 2 else SCALE * 2 ** (state.guess // 2)
        left, right = (random_circuit(a, seed=rng, scale=scale).gates for a in ansatze)
        engine.set(left, dense_site_tensors(padded, legs), right)

    state = State(names=list(range(effort.n_init)))
    for _ in descent.explore(state, exploring, place, effort.n_init):
        pass
    best = state.best
    assert best is not None
    assert best.point is not None
    engine.set(left=best.point.left, right=best.point.right)
    if best.status == "explored":
        # a fresh descent, so that it begins with sweeps again
        best.status, best.phase = "", "init"
        best.steps, best.differences = [], []
        for _ in descent.run(best, budget):
            pass
    left, right = (
        Circuit(ansatz, tuple(gates)).projected()
        for ansatz, gates in zip(ansatze, (engine.left, engine.right), strict=True)
    )
    engine.set(left=left.gates, right=right.gates)
    middle = loss.middle(engine)
    return CircuitFactors(
        left=left,
        middle=times_power_of_two(norm * middle, exponent),
        right=right,
        shape=shape,
        overlap=float(np.linalg.norm(middle)),
        status=best.status,
        init=best.guess,
        sweeps=len(best.losses) - 1,
        parameters=int(mask.sum()),
        seconds=time.perf_counter() - began,
    )
