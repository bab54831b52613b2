"""Circuits of CNOTs only, with no free gates between them.

CNOTs permute the basis states, so that the operator between the circuits, Q_L^T M Q_R^T, is M with
its rows and columns permuted, and only the core has to be fitted. The search adds one CNOT after
the other next to the core, in either direction, and goes on from the best few circuits with as
many CNOTs; of circuits with the same permutations only one is kept. (Sec. VI of arXiv
2509.06653v1 asks how far such circuits go.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Placement
from mpodis.circuit.circuit import circuit_from_gates
from mpodis.factorization import Factorization
from mpodis.fit import fit_core
from mpodis.gates import named_gate
from mpodis.resynthesis.front import ParetoPoint
from mpodis.resynthesis.task import Task
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["cnots_only"]

FORWARD, BACKWARD = (0, 1, 3, 2), (0, 3, 2, 1)
"""Where a CNOT sends the four basis states, its control on the first wire or on the second."""
ROUGH, FINE = 3, 50
"""ALS sweeps of a core, to compare circuits and for those that are kept."""
CNOTS_WITHOUT_GAIN = 8
"""The search ends when so many more CNOTs have brought no gain."""

Cnot = tuple[int, tuple[int, ...]]
"""First wire, and direction."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    """CNOTs of both sides, from the outermost one inwards, and the permutations they make.

    Row x of the permuted operator is row `rows[x]` of the operator; columns likewise.
    """

    left: tuple[Cnot, ...]
    right: tuple[Cnot, ...]
    rows: np.ndarray
    columns: np.ndarray
    loss: float = np.inf
    core: MatrixProductOperator | None = None

    @property
    def key(self) -> bytes:
        return self.rows.tobytes() + b"|" + self.columns.tobytes()


def cnots_only(task: Task, family: str, *, max_cnots: int, beam: int) -> list[ParetoPoint]:
    """The best circuit found for each number of CNOTs.

    Parameters
    ----------
    task : Task
    family : str
        Name of the points.
    max_cnots : int
    beam : int
        Circuits of each number of CNOTs from which the search goes on.
    """
    rows, columns = task.target.shape
    first = _Candidate((), (), np.arange(rows), np.arange(columns))
    candidates, seen, points = [_fitted(task, first, FINE)], {first.key}, []
    while candidates:
        points.append(task.point(_factorization(task, candidates[0]), family))
        best = min(points, key=lambda point: point.loss)
        if points[-1].cnots in (max_cnots, best.cnots + CNOTS_WITHOUT_GAIN):
            break
        new = {}
        for candidate in candidates:
            children = _children(task, candidate)
            new |= {child.key: child for child in children if child.key not in seen}
        seen |= set(new)
        rough = sorted((_fitted(task, c, ROUGH) for c in new.values()), key=lambda c: c.loss)
        candidates = sorted((_fitted(task, c, FINE) for c in rough[:beam]), key=lambda c: c.loss)
    return points


def _children(task: Task, given: _Candidate) -> Iterator[_Candidate]:
    """All circuits with one more CNOT next to the core."""
    n_left, n_right = task.wires
    for cnot, permutation in _cnots(n_left):
        yield replace(given, left=(*given.left, cnot), rows=given.rows[permutation])
    for cnot, permutation in _cnots(n_right):
        yield replace(given, right=(*given.right, cnot), columns=given.columns[permutation])


def _cnots(n: int) -> Iterator[tuple[Cnot, np.ndarray]]:
    """The CNOTs on neighbouring wires, and what each does to 2^n basis states; its own inverse."""
    for wire in range(n - 1):
        states = np.arange(2**n).reshape(2**wire, 4, -1)
        for direction in (FORWARD, BACKWARD):
            yield (wire, direction), states[:, list(direction)].ravel()


def _fitted(task: Task, given: _Candidate, sweeps: int) -> _Candidate:
    """The circuits with the best core for the permuted operator."""
    loss = task.loss.permuted(given.rows, given.columns)
    core = fit_core(
        loss.target,
        max_bond=task.max_bond,
        legs=task.legs,
        covariance=loss.metric,
        init=given.core,
        max_sweeps=sweeps,
        tol=1e-9,
    )
    return replace(given, loss=loss.value(mpo_to_dense(core)), core=core)


def _factorization(task: Task, given: _Candidate) -> Factorization:
    """The circuits as gates; Q_L ends, and Q_R begins, at the core."""
    assert given.core is not None  # it was fitted
    n_left, n_right = task.wires
    left = circuit_from_gates(n_left, [_gate(*cnot) for cnot in given.left], "O")
    right = circuit_from_gates(n_right, [_gate(*cnot) for cnot in reversed(given.right)], "O")
    return Factorization(left, mpo_from_tensors(site_tensors(given.core)), right, task.shape)


def _gate(wire: int, direction: tuple[int, ...]) -> tuple[Placement, np.ndarray]:
    """A CNOT; one that is controlled by its second wire is a free gate of this value."""
    if direction == FORWARD:
        return Placement((wire, wire + 1), "CNOT"), named_gate("CNOT").matrix
    return Placement((wire, wire + 1)), np.eye(4)[list(direction)]
