"""Fewer CNOTs for a circuit, or for the circuits of a layer, at the same overlap.

A unitary U is an operator like any other: `prune` and the search over where gates stand take CNOTs
out of a circuit V while Re Tr(U^H V) / 2^n is held, the core being the identity. Of a layer only
its overlap with the operator is held, which leaves far more room: its core moves along.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization
from mpodis.mpo import Compressed, compress
from mpodis.optimise.result import Disentangled
from mpodis.resynthesis.count import cnot_count
from mpodis.resynthesis.narrow import narrowed
from mpodis.resynthesis.points import ParetoPoint, undominated
from mpodis.resynthesis.search import Search, check_count
from mpodis.resynthesis.task import Task
from mpodis.sites import bond_dimensions, mpo_from_tensors, site_tensors
from mpodis.synthesis import check_unitary
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Resynthesis", "resynthesise"]

log = logging.getLogger(__name__)

BEYOND = 0.1
"""What may stand between two circuits that hold the loss: this fraction more, or `tol` more."""
REFINE = 100
"""Sweeps for circuits that nearly hold the overlap."""
STEP = 2
"""CNOTs by which gates are put in beyond the fewest that hold."""
ROUNDING = 1e-12
SIDES = ("left", "right")

ADVICE = {
    "reduced": "fewer CNOTs hold the overlap",
    "unchanged": "no way with fewer CNOTs held the overlap; allow a larger tol=, or more orders=",
}


@dataclass(frozen=True, eq=False)
class Resynthesis(Tabular):
    """Result of `resynthesise`.

    Attributes
    ----------
    before, after : Circuit or Factorization
    cnots_before : int or None
        None where gates on three wires or more have no closed form.
    cnots : int
        Of `after`, see `cnot_count`; on a line, without SWAPs.
    overlap_before, overlap : float
        Of a circuit with the unitary (1 before); of a factorization with the operator.
    loss_before, loss : float
        1 - f, or the squared relative error of the activations.
    tol : float
    status : {"reduced", "unchanged"}
    points : tuple of ParetoPoint
        What was met on the way, undominated ones only; of a circuit with the identity as the core.
    seconds : float
    """

    before: Circuit | Factorization
    after: Circuit | Factorization
    cnots_before: int | None
    cnots: int
    overlap_before: float
    overlap: float
    loss_before: float
    loss: float
    tol: float
    status: str
    points: tuple[ParetoPoint, ...]
    seconds: float

    @property
    def circuit(self) -> Circuit:
        """`after`, where it is a circuit."""
        if not isinstance(self.after, Circuit):
            raise AttributeError("this is the resynthesis of a layer; use .factorization")
        return self.after

    @property
    def factorization(self) -> Factorization:
        """`after`, where it is a layer."""
        if not isinstance(self.after, Factorization):
            raise AttributeError("this is the resynthesis of a circuit; use .circuit")
        return self.after

    def to_dict(self) -> dict[str, object]:
        """Figures, ready for JSON."""
        names = ("cnots_before", "cnots", "overlap_before", "overlap", "loss_before", "loss")
        figures = {name: getattr(self, name) for name in (*names, "tol", "status", "seconds")}
        return figures | {"front": [[p.cnots, p.loss] for p in self.points]}

    def table(self) -> Table:
        rows = [
            ("CNOTs", self.cnots_before, self.cnots),
            ("overlap f", self.overlap_before, self.overlap),
            ("loss", self.loss_before, self.loss),
        ]
        what = "circuit" if isinstance(self.after, Circuit) else "layer"
        return Table(
            (f"{what}, tol {self.tol:g}", "before", "after"),
            rows,
            title="resynthesis",
            notes=(f"{self.status}: {ADVICE[self.status]}",),
        )


def resynthesise(
    given: Circuit | Factorization | Disentangled | np.ndarray,
    mpo: MatrixProductOperator | Compressed | None = None,
    *,
    tol: float = 1e-3,
    objective: str = "overlap",
    inputs=None,
    covariance=None,
    orders: int = 2,
    rounds: int = 4,
    trials: int = 6,
    sweeps: int = 8,
    seed: int | np.random.Generator = 0,
) -> Resynthesis:
    """The same circuit, or the same layer, with fewer CNOTs.

    Gates on two wires are replaced, one at a time, by one with a single CNOT or by a product of
    one-qubit gates, where that costs the least; neighbours are merged, everything is re-optimised
    by sweeps and L-BFGS, and a circuit is kept if the overlap holds. Gates that promise most are
    put in elsewhere, and so on in turns (`prune`, `pareto`). Gates stay on neighbouring wires.

    Parameters
    ----------
    given : Circuit, array (2^n, 2^n), Factorization or Disentangled
        Of a circuit or a unitary matrix, in row action, the unitary is held, sign and phase
        included. Gates on three and four wires are compiled first. Of a factorization the overlap
        with `mpo` is held and the core is updated.
    mpo : MatrixProductOperator or Compressed, optional
        The operator of a factorization.
    tol : float
        How much the loss may rise: 1 - f, or the squared relative error of the activations.
    objective, inputs, covariance
        Of a layer, as for `disentangle`.
    orders : int
        Searches that are tried, the first always taking out what costs the least, others drawing
        from what costs little; then one from the best of all of them.
    rounds : int
        The most times that each search goes down and up again.
    trials, sweeps : int
        As for `prune`.
    seed : int or numpy Generator

    Returns
    -------
    Resynthesis

    Raises
    ------
    ValueError
        Options out of range, a layer without its operator or a circuit with one, a matrix that is
        not unitary, gates on five wires or more, an operator beyond 10 qubits.
    """
    began = time.perf_counter()
    for name, value in (("orders", orders), ("rounds", rounds), ("trials", trials)):
        check_count(name, value, 1)
    check_count("sweeps", sweeps, 1)
    if not (isinstance(tol, int | float) and 0.0 <= tol < 1.0):
        raise ValueError(f"tol={tol!r} must be a number from 0 up to, not including, 1")
    if isinstance(seed, np.random.Generator):
        seed = int(seed.integers(2**63))
    given = given.factorization if isinstance(given, Disentangled) else given
    if isinstance(given, Factorization):
        if mpo is None:
            raise ValueError(
                "a layer is held at its overlap with an operator; give mpo=, or resynthesise "
                "its .left and .right, whose unitaries are then held"
            )
        task, start = _layer(given, mpo, objective, inputs, covariance, seed)
    else:
        if objective != "overlap" or any(x is not None for x in (mpo, inputs, covariance)):
            raise ValueError(
                "mpo=, objective=, inputs= and covariance= belong to a layer; a circuit is held at "
                "its own unitary: give a Factorization, or leave them out"
            )
        given = given if isinstance(given, Circuit) else _one_gate(given)
        task, start = _unitary(given, seed)
    first = task.point(start, "start")
    allowed = first.loss + tol + ROUNDING
    search = _searched(task, first, allowed, orders, rounds, trials=trials, sweeps=sweeps)
    best, cnots_before = _holding(search, allowed), _cnots(given)
    after = best.factorization if isinstance(given, Factorization) else best.factorization.left
    status = "reduced" if cnots_before is None or best.cnots < cnots_before else "unchanged"
    return Resynthesis(
        before=given,
        after=after,
        cnots_before=cnots_before,
        cnots=best.cnots,
        overlap_before=first.overlap,
        overlap=best.overlap,
        loss_before=first.loss,
        loss=best.loss,
        tol=float(tol),
        status=status,
        points=tuple(undominated(search.points)),
        seconds=time.perf_counter() - began,
    )


def _layer(given: Factorization, mpo, objective, inputs, covariance, seed) -> tuple:
    """The task of a layer, and its circuits with gates on two wires only."""
    task = Task.build(
        mpo,
        shape=given.shape,
        max_bond=max(bond_dimensions(site_tensors(given.core)), default=1),
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
        # a circuit that is not there is not begun: it would have to be run, too
        sides=tuple(side for side in SIDES if getattr(given, side).gates),
    )
    sides = {side: narrowed(getattr(given, side), seed=seed) for side in SIDES}
    return task, task.tidied(replace(given, **sides))


def _unitary(given: Circuit, seed: int) -> tuple:
    """The task of holding a circuit's unitary: the circuit on the left, the core the identity."""
    circuit = narrowed(given, seed=seed)
    size, group = 2**given.n, circuit.ansatz.group
    kind = np.complex128 if group == "U" else np.float64
    target = np.asarray(given.to_dense())
    task = Task.build(
        compress(target.astype(kind)).mpo,
        shape=(size, size),
        max_bond=1,
        objective="overlap",
        inputs=None,
        covariance=None,
        seed=seed,
        core="fixed",
        sides=("left",),
    )
    core = mpo_from_tensors([np.eye(2, dtype=kind).reshape(1, 2, 2, 1)] * given.n)
    nothing = Circuit(Ansatz(given.n, (), group), ())
    return task, task.tidied(Factorization(circuit, core, nothing, (size, size)))


def _one_gate(matrix) -> Circuit:
    """A unitary matrix as a circuit of one gate on all wires."""
    matrix, n = check_unitary(matrix, "matrix")
    group = "U" if matrix.dtype.kind == "c" else "SO" if np.linalg.det(matrix) > 0 else "O"
    return Circuit(Ansatz(n, ((Placement(tuple(range(n))),),), group), (matrix,))


def _cnots(given: Circuit | Factorization) -> int | None:
    circuits = (given.left, given.right) if isinstance(given, Factorization) else (given,)
    widest = max((p.width for circuit in circuits for p in circuit.ansatz.placements), default=0)
    return cnot_count(given) if widest <= 2 else None


def _searched(
    task: Task, first: ParetoPoint, allowed: float, orders: int, rounds: int, **effort
) -> Search:
    """The searches one after the other, and the one that begins with all they found."""
    effort["ceiling"] = allowed + max(allowed - first.loss, BEYOND * allowed)
    found = [first]
    for k in range(orders):
        rng = np.random.default_rng([task.seed, k]) if k else None
        search = Search(task, [first], rng=rng, **effort)
        _take_turns(search, allowed, rounds)
        found += search.points
    if orders > 1:
        search = Search(task, found, **effort)
        _take_turns(search, allowed, rounds)
    return search


def _take_turns(search: Search, allowed: float, rounds: int) -> None:
    """Down, up, and what nearly holds refined, until nothing is gained."""
    refined: set[int] = set()
    for _ in range(rounds):
        before = _holding(search, allowed).cnots
        search.descend("pruned")
        search.ascend("moved", most=_holding(search, allowed).cnots + STEP)
        for point in search.points:
            if point.cnots >= _holding(search, allowed).cnots:
                break
            if point.loss <= search.ceiling and id(point) not in refined:
                better = search.task.settle(point.factorization, point.family, sweeps=REFINE)
                refined |= {id(point), id(better)}
                search.offer(better)
        now = _holding(search, allowed)
        log.debug("resynthesis: %d CNOTs, loss %.6f", now.cnots, now.loss)
        if now.cnots == before:
            break


def _holding(search: Search, allowed: float) -> ParetoPoint:
    """The fewest CNOTs that hold the loss."""
    return next(point for point in search.points if point.loss <= allowed)
