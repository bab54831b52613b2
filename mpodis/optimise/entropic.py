"""Initial gates that lower the entanglement entropies of the operator, bond by bond.

Without regard to a core, each gate is turned towards the smallest second Renyi entropy,
-log Tr rho^2, of the bonds it crosses, by the iterated polar update of Hauschild et al.
(arXiv 1711.01288, Sec. III). Layers are taken from the outermost inwards, left and right gates in
turn. The purity Tr rho^2 is convex in the gate, so that no update lowers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires
from mpodis.gates import polar_update
from mpodis.progress import Deadline

__all__ = ["lower_entropies"]

ROUNDS = 20
"""How often every gate of a layer, on either side, is updated."""


def lower_entropies(
    matrix: np.ndarray,
    legs: Legs,
    ansatze: dict[str, Ansatz],
    gates: dict[str, Sequence[np.ndarray]],
    *,
    rounds: int = ROUNDS,
    deadline: Deadline | None = None,
) -> dict[str, list[np.ndarray]]:
    """Gates of both sides that leave little entanglement in Q_L^H M Q_R^H.

    Parameters
    ----------
    matrix : array (rows, columns)
        M, padded to its legs.
    ansatze, gates : dict of "left" and "right"
        Circuits, and the gates to begin with. Fixed and tied gates stay as they are.
    rounds : int
        How often every gate of a layer is updated.
    deadline : Deadline, optional
        When it has passed, the gates are returned as they are after the last update.

    Returns
    -------
    dict of "left" and "right"
        Lists of gates.
    """
    deadline = Deadline() if deadline is None else deadline
    pulled = _PulledOperator(matrix, legs)
    found = {side: list(gates[side]) for side in gates}
    for layer in range(max(ansatz.depth for ansatz in ansatze.values())):
        places = [
            (side, j) for side, ansatz in ansatze.items() for j in _numbers(ansatz, side, layer)
        ]
        for side, j in places:
            pulled.apply(side, ansatze[side].placements[j].wires, found[side][j])
        # gates on neighbouring wires one after the other, whichever side they are on
        places.sort(key=lambda at: ansatze[at[0]].placements[at[1]].wires)
        for _ in range(rounds):
            for side, j in places:
                place = ansatze[side].placements[j]
                if place.fixed is not None or place.tie is not None or place.width == 1:
                    continue
                if deadline.has_passed:
                    return found
                found[side][j] = pulled.update(
                    side, place.wires, ansatze[side].group, found[side][j]
                )
    return found


def _numbers(ansatz: Ansatz, side: str, layer: int) -> range:
    """Numbers of the placements in the layer at this distance from the operator's legs."""
    layers = ansatz.layers if side == "left" else ansatz.layers[::-1]
    if layer >= len(layers):
        return range(0)
    before = sum(map(len, layers[:layer]))
    first = before if side == "left" else len(ansatz.placements) - before - len(layers[layer])
    return range(first, first + len(layers[layer]))


class _PulledOperator:
    """Q_L^H M Q_R^H with the gates so far: a tensor of all row legs, then all column legs."""

    def __init__(self, matrix: np.ndarray, legs: Legs) -> None:
        self.n = len(legs)
        shape = [leg[0] for leg in legs] + [leg[1] for leg in legs]
        self.tensor = (matrix / np.linalg.norm(matrix)).reshape(shape)
        self._wires = {side: wires(legs, side) for side in ("left", "right")}

    def _axes(self, side: str, at: Sequence[int]) -> tuple[int, ...]:
        sites = [self._wires[side][w] for w in at]
        return tuple(sites if side == "left" else [self.n + site for site in sites])

    def apply(self, side: str, at: Sequence[int], gate: np.ndarray) -> None:
        """Remove a gate: apply its adjoint to the rows, or to the columns."""
        self._act(self._axes(side, at), gate.conj().T if side == "left" else gate.conj())

    def update(self, side: str, at: Sequence[int], group: str, gate: np.ndarray) -> np.ndarray:
        """Update a gate that was removed; returns it, and removes the new one instead."""
        axes = self._axes(side, at)
        slope = self._rows(self._purity_gradient(side, at), axes, len(gate))
        step = slope @ self._rows(self.tensor, axes, len(gate)).conj().T
        best = polar_update(step, gate, group=group)
        self._act(axes, best)
        return gate @ best.conj().T if side == "left" else best.conj() @ gate

    @staticmethod
    def _rows(tensor: np.ndarray, axes: Sequence[int], size: int) -> np.ndarray:
        return np.moveaxis(tensor, axes, range(len(axes))).reshape(size, -1)

    def _act(self, axes: Sequence[int], matrix: np.ndarray) -> None:
        moved = np.moveaxis(self.tensor, axes, range(len(axes)))
        turned = matrix @ moved.reshape(len(matrix), -1)
        self.tensor = np.moveaxis(turned.reshape(moved.shape), range(len(axes)), axes)

    def _purity_gradient(self, side: str, at: Sequence[int]) -> np.ndarray:
        """A quarter of the derivative of the purities of the bonds that the gate crosses."""
        sites = [self._wires[side][w] for w in at]
        order = [axis for site in range(self.n) for axis in (site, self.n + site)]
        by_site = self.tensor.transpose(order)
        total = np.zeros_like(by_site)
        for bond in range(min(sites) + 1, max(sites) + 1):
            x = by_site.reshape(math.prod(by_site.shape[: 2 * bond]), -1)
            tall = x.shape[0] > x.shape[1]
            cubed = x @ (x.conj().T @ x) if tall else (x @ x.conj().T) @ x
            total += cubed.reshape(by_site.shape)
        return total.transpose(np.argsort(order))
