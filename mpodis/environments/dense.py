"""Dense engine: gates are pulled through the 2^l x 2^l operator. Exact, any depth.

A gate is orthogonal (or unitary), so what was applied is un-applied instead of being cached:
with Y = A G^H the form is Re Tr(Y), and going through the left gates in order, Y -> g^H Y takes
the gate out, its partial trace is the environment, and Y -> Y g passes it on to the other side.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.ansatz import Ansatz
from mpodis.circuit import apply_columns, apply_rows
from mpodis.conventions import Legs, padded_shape, wires
from mpodis.environments.base import Gradient, Update
from mpodis.mpo import cores_to_dense

__all__ = ["DenseEnvironments"]


class DenseEnvironments:
    """Environments through the dense operator, see `base.Environments`."""

    def __init__(self, target, legs: Legs, left: Ansatz, right: Ansatz) -> None:
        if tuple(target.shape) != padded_shape(legs):
            raise ValueError(f"the target has shape {target.shape}, the legs {padded_shape(legs)}")
        for side, ansatz in (("left", left), ("right", right)):
            if ansatz.n != len(wires(legs, side)):
                raise ValueError(
                    f"the {side} ansatz has {ansatz.n} wires, the operator {len(wires(legs, side))}"
                )
        self.target, self.legs = target, legs
        self._left, self._right = left.placements, right.placements
        self.left, self.right, self.core = [], [], []

    def set(self, left: Sequence, core: Sequence, right: Sequence) -> None:
        self.left, self.core, self.right = list(left), list(core), list(right)

    def inner(self) -> float:
        return float(np.vdot(self.target, self.dense()).real)

    def dense(self):
        """A = Q_L M' Q_R."""
        middle = cores_to_dense(self.core)
        for place, gate in zip(reversed(self._left), reversed(self.left), strict=True):
            middle = apply_rows(gate, middle, place.wires[0])
        for place, gate in zip(self._right, self.right, strict=True):
            middle = apply_columns(middle, gate, place.wires[0])
        return middle

    def pulled(self, target=None):
        target = self.target if target is None else target
        for place, gate in zip(self._left, self.left, strict=True):
            target = apply_rows(gate.conj().T, target, place.wires[0])
        for place, gate in zip(reversed(self._right), reversed(self.right), strict=True):
            target = apply_columns(target, gate.conj().T, place.wires[0])
        return target

    def pulled_metric(self, metric):
        """Q_L^H metric Q_L for a Hermitian (rows, rows) metric."""
        for _ in range(2):
            for place, gate in zip(self._left, self.left, strict=True):
                metric = apply_rows(gate.conj().T, metric, place.wires[0])
            metric = metric.conj().T
        return metric

    def sweep(self, side: str, update: Update) -> None:
        self._pass(side, self.dense(), self.target, update)

    def gradient(self) -> Gradient:
        return self.gradient_of(self.dense(), self.target)

    def gradient_of(self, dense, target) -> Gradient:
        """The gradient for another target, given the dense A."""
        found: dict[str, list] = {"left": [], "right": []}
        for side, environments in found.items():

            def keep(environment, gate, environments=environments):
                environments.append(environment)
                return gate

            self._pass(side, dense, target, keep, fixed_too=True)
        return Gradient(found["left"], found["right"][::-1], self.pulled(target))

    def _pass(self, side: str, dense, target, update: Update, *, fixed_too: bool = False) -> None:
        """Take out, update and pass on every gate of a side, outermost first."""
        if side == "left":
            order, gates, places = range(len(self.left)), self.left, self._left
            y = dense @ target.conj().T
        else:
            # the same walk on the transposed network, where the last gate comes first
            order, gates, places = reversed(range(len(self.right))), self.right, self._right
            y = (target.conj().T @ dense).T
        for j in order:
            place, gate = places[j], gates[j] if side == "left" else gates[j].T
            first = place.wires[0]
            y = apply_rows(gate.conj().T, y, first)
            if place.fixed is None:
                environment = partial_trace(y, first, gate.shape[0])
                if side == "left":
                    gates[j] = gate = update(environment, gate)
                else:
                    gates[j] = update(environment.T, gates[j])
                    gate = gates[j].T
            elif fixed_too:
                update(None, gates[j])
            y = apply_columns(y, gate, first)


def partial_trace(y, first: int, size: int):
    """E with Re Tr((1 x g x 1) y) = Re Tr(E^H g): y^H traced over the other wires."""
    before = 2**first
    after = y.shape[0] // (before * size)
    return np.einsum("aibajb->ji", y.reshape(before, size, after, before, size, after)).conj()
