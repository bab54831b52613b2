"""What the dense engine computes with: buffers, and plans of products that go through them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpodis.environments.dense.layered import WIDEST, LayeredCircuit
from mpodis.environments.dense.layout import Group, Layout
from mpodis.environments.dense.nest import Nest
from mpodis.environments.dense.pulling import Chain, Place, Walk

__all__ = ["SMALL", "Work", "group_matrices"]

SMALL = 2**6
"""Largest dimension for which a product of dense matrices beats applying the circuits."""


class Work:
    """Buffers, chains and walks for site tensors of given shapes, real or complex.

    Attributes
    ----------
    target : array (rows, columns)
        conj(G).
    layered : dict of LayeredCircuit
        Of both sides, where they are narrow enough for it.
    key : what it was made for
    """

    def __init__(self, sides, layout: Layout, place: Place, target, key) -> None:
        self.key, self.layout, self.place = key, layout, place
        self._sides = sides
        self.target = place.put_conjugate(target)
        largest = max(part.size for part in sides.values())
        self._matrix = place.empty(largest**2)
        self._scratch = [place.empty(layout.scratch) for _ in range(2)]
        traced = place.empty(layout.traced)
        # where one panel is all, the left side reads the transpose as it lies
        self._transposed = self.target.T
        if layout.scratch >= largest**2:
            self._transposed = place.put_conjugate(np.ascontiguousarray(target.T))
        self._chains: dict[str, Chain] = {}
        self.layered: dict[str, LayeredCircuit] = {}
        self.walks, self.nests = {}, {}
        for side, part in sides.items():
            free = [any(part.places[j].fixed is None for j in tile.gates) for tile in part.tiles]
            flats = (self._matrix, traced, self._scratch)
            self.walks[side] = Walk(place, part.tiles, part.hulls, free, *flats)
            is_complex = place.kind.kind == "c"
            self.nests[side] = [
                Nest(tile, part.places, is_complex) if len(tile.gates) > 1 else None
                for tile in part.tiles
            ]

    def plan_layers(self) -> None:
        """Circuits layer by layer, where they are narrow enough for it."""
        parts, is_complex = self._sides.values(), self.place.kind.kind == "c"
        width = max((place.width for part in parts for place in part.places), default=0)
        if self.place.as_it_is and width <= WIDEST and max(part.size for part in parts) <= SMALL:
            self.layered = {
                side: LayeredCircuit(part.places, part.n, side, is_complex=is_complex)
                for side, part in self._sides.items()
            }

    def source(self, side: str):
        """conj(G) with the side's rows as columns: what its chain starts from."""
        return self._transposed if side == "left" else self.target

    def matrix(self, shape):
        """The large buffer as a matrix; every walk goes over it."""
        return self._matrix[: math.prod(shape)].reshape(shape)

    def chain(self, name: str) -> Chain:
        """The chain that makes Y_1 of a side, A ("dense") or M' ("core")."""
        if name not in self._chains:
            width = self._sides["left" if name == "left" else "right"].size
            self._chains[name] = Chain(self.place, self.layout.links[name], width, self._scratch)
        return self._chains[name]

    def pull(self, side: str, matrices, source, out) -> None:
        """out <- the tiles of a side, one after the other, @ source."""
        links = self._sides[side].links()
        if not links:
            if source is not out:
                out[...] = source
            return
        name = f"pull {side} {source.shape[1]}"
        if name not in self._chains:
            self._chains[name] = Chain(self.place, links, source.shape[1], self._scratch)
        self._chains[name].run(matrices, source, out)


def group_matrices(
    tensors: Sequence, groups: Sequence[Group], side: str, place: Place, tiles: dict | None = None
) -> list:
    """Groups of sites as matrices (out, right bond) x (left bond, in) for `layout.core_links`.

    `tiles` are the matrices of inner tiles by (own, number).
    """
    found = []
    for start, end, firsts, inner in groups:
        group = tensors[start]
        for core in tensors[start + 1 : end]:
            a, i, o, b = group.shape
            _, k, p, c = core.shape
            group = (group.reshape(-1, b) @ core.reshape(b, -1)).reshape(a, i, o, k, p, c)
            group = group.transpose(0, 1, 3, 2, 4, 5).reshape(a, i * k, o * p, c)
        group = group.transpose((1, 3, 0, 2) if side == "left" else (2, 3, 0, 1))
        out, b, a, into = group.shape
        for tile in inner:
            matrix = tiles[tile.own, tile.number]
            before = 2 ** (tile.span[0] - firsts[not tile.own])
            if tile.own:
                group = matrix @ group.reshape(before, len(matrix), -1)
            else:
                group = matrix.T @ group.reshape(out * b * a * before, len(matrix), -1)
        found.append(place.put(group.reshape(out * b, a * into)))
    return found
