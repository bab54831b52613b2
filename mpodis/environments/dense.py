"""Dense engine: gates are pulled through the 2^l x 2^l operator. Exact, any depth.

A gate is orthogonal (or unitary), so what was applied is un-applied instead of being cached:
with Y = A G^H the form is Re Tr(Y); going through the left gates in order, Y -> g^H Y takes the
gate out, a partial trace is its environment, and Y -> Y g passes it on to the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.ansatz import Ansatz
from mpodis.circuit import apply_columns, apply_rows
from mpodis.conventions import Legs, padded_shape
from mpodis.cores import als_core, core_gradient
from mpodis.environments.base import Gradient, Update, check_sides
from mpodis.sites import cores_to_dense

__all__ = ["DenseEnvironments"]

LIMIT = 2**13
"""Largest dimension of an operator that is held dense."""


class DenseEnvironments:
    """Environments through the dense operator, see `base.Environments`.

    Parameters
    ----------
    target : array (rows, columns) or list of cores
    legs, left, right
    """

    def __init__(self, target, legs: Legs, left: Ansatz, right: Ansatz) -> None:
        check_sides(legs, left, right)
        rows, columns = padded_shape(legs)
        if max(rows, columns) > LIMIT:
            raise ValueError(
                f"the dense engine would hold {rows} x {columns} matrices, beyond {LIMIT}; "
                "use engine='tree' for shallow circuits"
            )
        self.target = cores_to_dense(target) if isinstance(target, list) else target
        if tuple(self.target.shape) != (rows, columns):
            raise ValueError(f"the target is {self.target.shape}, its legs span {(rows, columns)}")
        self._left, self._right = left.placements, right.placements
        self.left, self.right, self.core = [], [], []

    def set(self, left: Sequence, core: Sequence, right: Sequence) -> None:
        self.left, self.core, self.right = list(left), list(core), list(right)

    def inner(self) -> float:
        return float(np.vdot(self.target, self.dense()).real)

    def dense(self):
        """A = Q_L M' Q_R, (rows, columns)."""
        middle = cores_to_dense(self.core)
        for place, gate in zip(reversed(self._left), reversed(self.left), strict=True):
            middle = apply_rows(gate, middle, place.wires[0])
        for place, gate in zip(self._right, self.right, strict=True):
            middle = apply_columns(middle, gate, place.wires[0])
        return middle

    def pulled(self, matrix=None):
        """Q_L^H X Q_R^H of the target, or of another matrix."""
        matrix = self.target if matrix is None else matrix
        for place, gate in zip(self._left, self.left, strict=True):
            matrix = apply_rows(gate.conj().T, matrix, place.wires[0])
        for place, gate in zip(reversed(self._right), reversed(self.right), strict=True):
            matrix = apply_columns(matrix, gate.conj().T, place.wires[0])
        return matrix

    def pulled_metric(self, metric):
        """Q_L^H X Q_L of a Hermitian (rows, rows) matrix."""
        for _ in range(2):
            for place, gate in zip(self._left, self.left, strict=True):
                metric = apply_rows(gate.conj().T, metric, place.wires[0])
            metric = metric.conj().T
        return metric

    def fitted_core(self) -> list:
        return als_core(self.pulled(), self.core)

    def sweep(self, side: str, update: Update) -> None:
        self._walk(side, self.dense(), self.target, update)

    def gradient(self) -> Gradient:
        return self.gradient_towards(self.dense(), self.target)

    def gradient_towards(self, dense, target) -> Gradient:
        """`gradient` for another target; `dense` is A, which the caller has at hand."""
        found = {}
        for side, gates in (("left", self.left), ("right", self.right)):
            found[side] = environments = [None] * len(gates)

            def keep(environment, gate, j, environments=environments):
                environments[j] = environment
                return gate

            self._walk(side, dense, target, keep, numbered=True)
        inner = float(np.vdot(target, dense).real)
        core = core_gradient(self.pulled(target), self.core)
        return Gradient(inner, found["left"], found["right"], core)

    def _walk(self, side: str, dense, target, update, *, numbered: bool = False) -> None:
        """Take out, update and pass on every gate of a side, the outermost first."""
        if side == "left":
            order, gates, places = range(len(self.left)), self.left, self._left
            y = dense @ target.conj().T
        else:
            # the same walk on the transposed network, whose first gate is the last one here
            order, gates, places = reversed(range(len(self.right))), self.right, self._right
            y = (target.conj().T @ dense).T
        turn = (lambda x: x) if side == "left" else (lambda x: x.T)
        for j in order:
            place, gate = places[j], turn(gates[j])
            first = place.wires[0]
            y = apply_rows(gate.conj().T, y, first)
            if place.fixed is None:
                environment = turn(partial_trace(y, first, gate.shape[0]))
                gates[j] = update(environment, gates[j], *([j] if numbered else []))
                gate = turn(gates[j])
            y = apply_columns(y, gate, first)


def partial_trace(y, first: int, size: int):
    """E with Re Tr((1 x g x 1) y) = Re Tr(E^H g): y^H traced over the other wires."""
    before = 2**first
    after = y.shape[0] // (before * size)
    return np.einsum("aibajb->ji", y.reshape(before, size, after, before, size, after)).conj()
