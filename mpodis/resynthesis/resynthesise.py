"""Fewer CNOTs for a circuit, or for the circuits of a layer, at nearly the same overlap.

A unitary U is an operator like any other: with the identity as a fixed core, the search over the
places of gates takes CNOTs out of a circuit V while Re Tr(U^H V) / 2^n is kept. Of a layer only the
overlap with its operator is kept, and the core is optimised, too, so that far more CNOTs go.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mpodis.arguments import as_seed, check_count, check_number, plain_numbers
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.routing import routed_circuit
from mpodis.factorization import Factorization
from mpodis.mpo import Operator, compress
from mpodis.objectives import Objective
from mpodis.optimise.result import Disentangled
from mpodis.options import LARGEST_ROUNDS
from mpodis.resynthesis.cnot_search import CnotSearch
from mpodis.resynthesis.front import ParetoPoint, undominated
from mpodis.resynthesis.rewriting import compile_wide_gates
from mpodis.resynthesis.task import Task, check_size
from mpodis.resynthesis.two_qubit_gates import cnot_count
from mpodis.sites import bond_dimensions, mpo_from_tensors, site_tensors
from mpodis.synthesis import check_unitary
from mpodis.tables import Table, Tabular

__all__ = ["Resynthesis", "resynthesise"]

log = logging.getLogger(__name__)

DETOUR = 0.1
"""The search may pass through losses this fraction above the limit, or `tol` above it."""
REFINE = 100
"""Sweeps for circuits whose loss is slightly above the limit."""
STEP = 2
"""CNOTs beyond the fewest that keep the loss, up to which gates are inserted."""
ROUNDING = 1e-12

ADVICE = {
    "reduced": "fewer CNOTs keep the overlap",
    "unchanged": "no circuit with fewer CNOTs kept the overlap; allow a larger tol=, or more "
    "n_searches=",
}


@dataclass(frozen=True, eq=False)
class Resynthesis(Tabular):
    """Result of `resynthesise`.

    Attributes
    ----------
    before, after : Circuit or Factorization
    cnots_before : int or None
        On a line of qubits: where gates act on wires that are not neighbours, of the routed
        circuits. None with gates on three wires or more, which have no closed form.
    cnots : int
        Of `after`, see `cnot_count`.
    overlap_before, overlap : float
        Of a circuit with the unitary (1 before); of a factorization with the operator.
    loss_before, loss : float
        1 - f, or the squared relative error of the activations.
    tol : float
    status : {"reduced", "unchanged"}
    points : tuple of ParetoPoint
        The undominated circuits among those found; of a circuit, with the identity as the core.
    seconds : float
        Wall time.
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
        figures: dict[str, object] = {
            name: getattr(self, name) for name in (*names, "tol", "status", "seconds")
        }
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


@plain_numbers
def resynthesise(
    given: Circuit | Factorization | Disentangled | np.ndarray,
    operator: Operator | None = None,
    *,
    tol: float = 1e-3,
    objective: str | Objective = "overlap",
    inputs: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    n_searches: int = 2,
    rounds: int = 4,
    trials: int = 6,
    sweeps: int = 8,
    seed: int | np.random.Generator = 0,
) -> Resynthesis:
    """A circuit, or a layer, with fewer CNOTs and nearly the same unitary or overlap.

    Gates on two wires are replaced, one at a time, by a gate with a single CNOT or by a product of
    one-qubit gates, where this increases the loss least. Neighbours are merged, all gates are
    re-optimised by sweeps and L-BFGS, and the circuit is kept if its loss is within `tol`. In turn,
    gates are inserted where they promise the largest gain (see `prune`, `pareto`). All gates of the
    result act on neighbouring wires.

    Parameters
    ----------
    given : Circuit, array (2^n, 2^n), Factorization or Disentangled
        Of a circuit or a unitary matrix, in row action, the unitary is kept, sign and phase
        included. Of a factorization the overlap with `operator` is kept, and the core is optimised.
        Gates on three and four wires are first compiled into gates on two, and gates on wires that
        are not neighbours are routed (`routed_circuit`).
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator, optional
        The operator of a factorization.
    tol : float
        How much the loss may rise: 1 - f, or the squared relative error of the activations.
    objective, inputs, covariance
        Of a layer, as for `disentangle`.
    n_searches : int
        Number of searches. The first always takes the removals with the smallest increase of the
        loss, the others draw among those with a small one; a last search begins from all they
        have found.
    rounds : int
        The most times that each search removes and inserts gates.
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

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit, resynthesise
    >>> circuit = random_circuit(brickwall(3, 4), seed=0, scale=0.01)
    >>> found = resynthesise(circuit, tol=0.1, n_searches=1)
    >>> found.cnots_before, found.cnots
    (8, 0)
    """
    began = time.perf_counter()
    for name, value in (("n_searches", n_searches), ("rounds", rounds), ("trials", trials)):
        check_count(name, value, 1, most=LARGEST_ROUNDS)
    check_count("sweeps", sweeps, 1)
    check_number("tol", tol, 0, below=1)
    seed = as_seed(seed)
    given = given.factorization if isinstance(given, Disentangled) else given
    if isinstance(given, Factorization):
        if operator is None:
            raise ValueError(
                "a layer keeps its overlap with an operator; give operator=, or resynthesise its "
                ".left and .right, which then keep their unitaries"
            )
        task, narrow = _layer(given, operator, objective, inputs, covariance, seed)
    else:
        if objective != "overlap" or any(x is not None for x in (operator, inputs, covariance)):
            raise ValueError(
                "operator=, objective=, inputs= and covariance= belong to a layer; a circuit keeps "
                "its own unitary: give a Factorization, or leave them out"
            )
        given = given if isinstance(given, Circuit) else _one_gate(given)
        task, narrow = _unitary(given, seed)
    first = task.point(narrow, "given")
    limit = first.loss + tol + ROUNDING
    search = _searched(task, first, limit, n_searches, rounds, trials=trials, sweeps=sweeps)
    best, cnots_before = _fewest(search, limit), _cnots(given, first)
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


def _layer(
    given: Factorization,
    operator: Operator,
    objective: str | Objective,
    inputs: np.ndarray | None,
    covariance: np.ndarray | None,
    seed: int,
) -> tuple[Task, Factorization]:
    """The task of a layer, and its circuits with gates on two neighbouring wires only."""
    circuits = {"left": given.left, "right": given.right}
    task = Task.build(
        operator,
        shape=given.shape,
        max_bond=max(bond_dimensions(site_tensors(given.core)), default=1),
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
        # a side without gates keeps none: its circuit would have to be executed, too
        sides=tuple(side for side, circuit in circuits.items() if circuit.gates),
    )
    left, right = (_on_neighbours(circuit, seed) for circuit in circuits.values())
    return task, task.simplified(replace(given, left=left, right=right))


def _on_neighbours(circuit: Circuit, seed: int) -> Circuit:
    """The same matrix by gates on one wire and on two neighbours."""
    return routed_circuit(compile_wide_gates(circuit, seed=seed))


def _unitary(given: Circuit, seed: int) -> tuple[Task, Factorization]:
    """The task of keeping a circuit's unitary: the circuit on the left, the core the identity."""
    size = 2**given.n
    check_size((size, size))
    circuit = _on_neighbours(given, seed)
    group = circuit.ansatz.group
    kind = np.complex128 if group == "U" else np.float64
    target = np.asarray(given.to_dense())
    task = Task.build(
        compress(target.astype(kind)).mpo,
        shape=(size, size),
        max_bond=1,
        seed=seed,
        core="fixed",
        sides=("left",),
    )
    core = mpo_from_tensors([np.eye(2, dtype=kind).reshape(1, 2, 2, 1)] * given.n)
    empty = Circuit(Ansatz(given.n, (), group), ())
    return task, task.simplified(Factorization(circuit, core, empty, (size, size)))


def _one_gate(matrix: np.ndarray) -> Circuit:
    """A unitary matrix as a circuit of one gate on all wires."""
    matrix, n = check_unitary(matrix, "matrix")
    group = "U" if matrix.dtype.kind == "c" else "SO" if np.linalg.det(matrix) > 0 else "O"
    return Circuit(Ansatz(n, ((Placement(tuple(range(n))),),), group), (matrix,))


def _cnots(given: Circuit | Factorization, first: ParetoPoint) -> int | None:
    """The CNOTs on a line: of gates on other wires those of their routed form."""
    circuits = (given.left, given.right) if isinstance(given, Factorization) else (given,)
    places = [place for circuit in circuits for place in circuit.ansatz.placements]
    if any(place.width > 2 for place in places):
        return None
    return cnot_count(given) if all(place.is_local for place in places) else first.cnots


def _searched(
    task: Task,
    first: ParetoPoint,
    limit: float,
    n_searches: int,
    rounds: int,
    *,
    trials: int,
    sweeps: int,
) -> CnotSearch:
    """The searches one after the other, and the one that begins from all they found."""
    new = partial(
        CnotSearch,
        task,
        trials=trials,
        sweeps=sweeps,
        max_loss=limit + max(limit - first.loss, DETOUR * limit),
    )
    found, search = [first], new([first])
    _remove_and_insert(search, limit, rounds)
    found += search.points
    for k in range(1, n_searches):
        search = new([first], rng=np.random.default_rng([task.seed, k]))
        _remove_and_insert(search, limit, rounds)
        found += search.points
    if n_searches > 1:
        search = new(found)
        _remove_and_insert(search, limit, rounds)
    return search


def _remove_and_insert(search: CnotSearch, limit: float, rounds: int) -> None:
    """Remove and insert gates, refine circuits just above the limit, while it helps."""
    refined: set[int] = set()
    for _ in range(rounds):
        before = _fewest(search, limit).cnots
        search.remove("pruned")
        search.insert("moved", max_cnots=_fewest(search, limit).cnots + STEP)
        for point in search.points:
            if point.cnots >= _fewest(search, limit).cnots:
                break
            if point.loss <= search.max_loss and id(point) not in refined:
                better = search.task.reoptimise(point.factorization, point.family, sweeps=REFINE)
                refined |= {id(point), id(better)}
                search.keep_if_better(better)
        now = _fewest(search, limit)
        log.debug("resynthesis: %d CNOTs, loss %.6f", now.cnots, now.loss)
        if now.cnots == before:
            break


def _fewest(search: CnotSearch, limit: float) -> ParetoPoint:
    """The point with the fewest CNOTs whose loss is within the limit."""
    return next(point for point in search.points if point.loss <= limit)
