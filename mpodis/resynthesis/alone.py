"""Circuits of CNOTs alone: which of them, and where, with no gate between them.

CNOTs permute the basis states, so that the operator in the middle, Q_L^T M Q_R^T, is M with its
rows and columns permuted, and only the core is fitted. The search puts one CNOT after the other
beside the core, in either direction, and keeps the best few of all circuits of as many CNOTs;
circuits that permute alike are one. (arXiv 2509.06653v1, Sec. VI, asks how far this goes.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mpodis.circuit.ansatz import Placement
from mpodis.factorization import Factorization, dense_overlap
from mpodis.fit import fit_core, weighted_loss
from mpodis.gates import FIXED
from mpodis.resynthesis.points import ParetoPoint
from mpodis.resynthesis.rewrite import packed
from mpodis.resynthesis.task import Task
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors

__all__ = ["cnots_alone"]

FORWARD, BACKWARD = (0, 1, 3, 2), (0, 3, 2, 1)
"""Which basis state a CNOT sends each of the four to, its control on the first wire or second."""
ROUGH, FINE = 3, 50
"""ALS sweeps of a core, to choose and for what is chosen."""
PATIENCE = 8
"""So many CNOTs more without any gain end the search."""


@dataclass(frozen=True, eq=False)
class _State:
    """CNOTs of both sides, from the outermost one inwards, and the permutations they make.

    A CNOT is (wire, direction); row x of the operator comes from row `rows[x]`.
    """

    left: tuple
    right: tuple
    rows: np.ndarray
    columns: np.ndarray
    loss: float = np.inf
    core: object = None

    @property
    def key(self) -> bytes:
        return self.rows.tobytes() + b"|" + self.columns.tobytes()


def cnots_alone(task: Task, family: str, *, most: int, beam: int) -> list[ParetoPoint]:
    """The best circuit found for each number of CNOTs up to `most`.

    Parameters
    ----------
    task : Task
    family : str
        What the points are called.
    most : int
    beam : int
        Circuits of each number of CNOTs from which the search goes on.
    """
    rows, columns = task.target.shape
    first = _State((), (), np.arange(rows), np.arange(columns))
    states, seen, points = [_fitted(task, first, FINE)], {first.key}, []
    while states:
        points.append(task.point(_factorization(task, states[0]), family))
        best = min(points, key=lambda point: point.loss)
        if points[-1].cnots in (most, best.cnots + PATIENCE):
            break
        new = {}
        for state in states:
            new |= {child.key: child for child in _children(task, state) if child.key not in seen}
        seen |= set(new)
        rough = sorted((_fitted(task, s, ROUGH) for s in new.values()), key=lambda s: s.loss)
        states = sorted((_fitted(task, s, FINE) for s in rough[:beam]), key=lambda s: s.loss)
    return points


def _children(task: Task, state: _State) -> Iterator[_State]:
    for side, n in zip(("left", "right"), task.wires, strict=True):
        for wire in range(n - 1):
            for direction in (FORWARD, BACKWARD):
                given = {"left": state.left, "right": state.right}
                given[side] = (*given[side], (wire, direction))
                order = {"left": state.rows, "right": state.columns}
                order[side] = order[side][_permutation(n, wire, direction)]
                yield _State(given["left"], given["right"], order["left"], order["right"])


def _permutation(n: int, wire: int, direction: tuple) -> np.ndarray:
    """What a CNOT on two neighbouring wires does to 2^n basis states; its own inverse."""
    states = np.arange(2**n).reshape(2**wire, 4, -1)
    return states[:, list(direction)].ravel()


def _fitted(task: Task, state: _State, sweeps: int) -> _State:
    """With the best core for the permuted operator."""
    middle = task.target[np.ix_(state.rows, state.columns)]
    metric, sensitivity = task.metrics
    if metric is not None:
        metric = metric[np.ix_(state.rows, state.rows)]
    if sensitivity is not None:
        sensitivity = sensitivity[np.ix_(state.columns, state.columns)]
    core = fit_core(
        middle,
        max_bond=task.max_bond,
        legs=task.legs,
        metric=metric,
        init=state.core,
        max_sweeps=sweeps,
        tol=1e-9,
    )
    dense = mpo_to_dense(core)
    if metric is None:
        loss = 1.0 - dense_overlap(middle, dense)
    else:
        loss = weighted_loss(middle, dense, metric, sensitivity)
    return _State(state.left, state.right, state.rows, state.columns, loss, core)


def _factorization(task: Task, state: _State) -> Factorization:
    """The circuits as gates; Q_L ends, and Q_R begins, at the core."""
    n_left, n_right = task.wires
    left = [_gate(*cnot) for cnot in state.left]
    right = [_gate(*cnot) for cnot in reversed(state.right)]
    core = mpo_from_tensors(site_tensors(state.core))
    return Factorization(packed(n_left, left, "O"), core, packed(n_right, right, "O"), task.shape)


def _gate(wire: int, direction: tuple) -> tuple[Placement, np.ndarray]:
    """A CNOT; one that is controlled by its second wire has no name, and is a gate by value."""
    fixed = "CNOT" if direction == FORWARD else None
    gate = FIXED["CNOT"] if fixed else np.eye(4)[list(direction)]
    return Placement((wire, wire + 1), fixed), gate
