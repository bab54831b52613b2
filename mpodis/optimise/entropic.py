"""A first guess that looks at entanglement alone: gates that lower the entropies bond by bond.

Before any core is thought of, each gate is turned towards the smallest second Renyi entropy of the
bonds it crosses, -log Tr rho^2, by the iterated polar update of Hauschild et al.
(arXiv 1711.01288, Sec. III). Layers are taken from the outermost inwards, left and right gates in
turn. The purity is convex in the gate, so that no update lowers it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires
from mpodis.gates import polar_update

__all__ = ["lower_entropies"]

ROUNDS = 20
"""Times that every gate of a layer, and that of the other side, is offered its update."""


def lower_entropies(
    matrix: np.ndarray,
    legs: Legs,
    ansatze: dict[str, Ansatz],
    gates: dict[str, Sequence[np.ndarray]],
    *,
    rounds: int = ROUNDS,
) -> dict[str, list[np.ndarray]]:
    """Gates of both sides that leave little entanglement in Q_L^H M Q_R^H.

    Parameters
    ----------
    matrix : array (rows, columns)
        M, padded to its legs.
    ansatze, gates : dict of "left" and "right"
        Circuits, and the gates to begin with. Fixed and tied gates stay as they are.
    """
    pulled = _Pulled(matrix, legs)
    found = {side: list(gates[side]) for side in gates}
    for layer in range(max(ansatz.depth for ansatz in ansatze.values())):
        places = [
            (side, j) for side, ansatz in ansatze.items() for j in _numbers(ansatz, side, layer)
        ]
        for side, j in places:
            pulled.apply(side, ansatze[side].placements[j].wires, found[side][j])
        # neighbours first, whichever side they are on: they feel each other
        places.sort(key=lambda at: ansatze[at[0]].placements[at[1]].wires)
        for _ in range(rounds):
            for side, j in places:
                place = ansatze[side].placements[j]
                if place.fixed is not None or place.tie is not None or place.width == 1:
                    continue
                found[side][j] = pulled.turn(side, place.wires, ansatze[side].group, found[side][j])
    return found


def _numbers(ansatz: Ansatz, side: str, layer: int) -> range:
    """Placements of the layer that is so many layers away from the operator's legs."""
    layers = ansatz.layers if side == "left" else ansatz.layers[::-1]
    if layer >= len(layers):
        return range(0)
    before = sum(map(len, layers[:layer]))
    first = before if side == "left" else len(ansatz.placements) - before - len(layers[layer])
    return range(first, first + len(layers[layer]))


class _Pulled:
    """Q_L^H M Q_R^H with the gates so far, as a tensor of all row legs and then all column legs."""

    def __init__(self, matrix: np.ndarray, legs: Legs) -> None:
        self.n = len(legs)
        shape = [leg[0] for leg in legs] + [leg[1] for leg in legs]
        self.tensor = (matrix / np.linalg.norm(matrix)).reshape(shape)
        self._wires = {side: wires(legs, side) for side in ("left", "right")}

    def _axes(self, side: str, at: Sequence[int]) -> tuple[int, ...]:
        sites = [self._wires[side][w] for w in at]
        return tuple(sites if side == "left" else [self.n + site for site in sites])

    def apply(self, side: str, at: Sequence[int], gate: np.ndarray) -> None:
        """g^H on rows, or on columns: what is left once the gate is taken out."""
        self._act(self._axes(side, at), gate.conj().T if side == "left" else gate.conj())

    def turn(self, side: str, at: Sequence[int], group: str, gate: np.ndarray) -> np.ndarray:
        """The gate after one update, which is taken out in place of the old one."""
        axes = self._axes(side, at)
        slope = self._rows(self._slope(side, at), axes, len(gate))
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

    def _slope(self, side: str, at: Sequence[int]) -> np.ndarray:
        """Derivative (but for a factor of 4) of the purities of the bonds that the gate crosses."""
        sites = [self._wires[side][w] for w in at]
        order = [axis for site in range(self.n) for axis in (site, self.n + site)]
        by_site = self.tensor.transpose(order)
        total = np.zeros_like(by_site)
        for bond in range(sites[0] + 1, sites[-1] + 1):
            x = by_site.reshape(math.prod(by_site.shape[: 2 * bond]), -1)
            tall = x.shape[0] > x.shape[1]
            cubed = x @ (x.conj().T @ x) if tall else (x @ x.conj().T) @ x
            total += cubed.reshape(by_site.shape)
        return total.transpose(np.argsort(order))
