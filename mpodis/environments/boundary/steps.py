"""Plan of the boundary engine: which gates of the circuits act in one step, and on which sites.

Seen from the target, Q_L begins with its first layer and Q_R with its last. A *step* is one layer
of one side or of both, a *block* the sites of a step on which one gate acts. Gates are first moved
outward as far as their wires allow, then the layers of the two sides are paired so that there are
as few steps as possible: mirror circuits pair layer by layer, others with a shift or one at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import numpy as np
from autoray import do

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Array, Legs, wires

__all__ = ["Block", "PlacedGate", "Step", "plan_steps"]


@dataclass(frozen=True)
class PlacedGate:
    """A gate of a circuit: its number among the placements, its sites, and whether it is free."""

    number: int
    start: int
    stop: int
    free: bool

    @property
    def span(self) -> tuple[int, int]:
        """First site, and the one behind the last."""
        return self.start, self.stop


Layer: TypeAlias = Sequence[PlacedGate]


@dataclass(frozen=True)
class Block:
    """Sites start..stop-1 of a step with the gates on them; without gates, a single site.

    The product of a block's site tensors is an array (left bond, P, right bond) with P the legs
    i1 o1 i2 o2 ...; *grouped* it is (I, O, left bond, right bond) with I and O all inputs and all
    outputs.
    """

    start: int
    stop: int
    legs: Legs
    left: PlacedGate | None = None
    right: PlacedGate | None = None

    @property
    def idle(self) -> bool:
        """Whether no gate acts here."""
        return self.left is None and self.right is None

    @property
    def sites(self) -> range:
        return range(self.start, self.stop)

    def placed(self, side: str) -> PlacedGate | None:
        """The gate of a side, if there is one."""
        return self.left if side == "left" else self.right

    def is_free(self, side: str) -> bool:
        """Whether there is a free gate of a side."""
        gate = self.placed(side)
        return gate is not None and gate.free

    @cached_property
    def inputs(self) -> int:
        """Dimension of I."""
        return math.prod(i for i, _ in self.legs)

    @cached_property
    def outputs(self) -> int:
        """Dimension of O."""
        return math.prod(o for _, o in self.legs)

    @cached_property
    def size(self) -> int:
        """Dimension of P."""
        return self.inputs * self.outputs

    @property
    def to_site_order(self) -> np.ndarray:
        """Indices for `take`: from a matrix on (I O) to the same one on P."""
        return _indices(self.legs)[0]

    @property
    def to_gate_order(self) -> np.ndarray:
        """Indices for `take`: from a matrix on P to (r r', c' c), r being inputs and c outputs."""
        return _indices(self.legs)[1]

    @cached_property
    def _axes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Legs in the order of P and the axes that group them; grouped legs and the way back."""
        w = len(self.legs)
        legs = tuple(d for leg in self.legs for d in leg)
        group = (*range(1, 2 * w + 1, 2), *range(2, 2 * w + 1, 2), 0, 2 * w + 1)
        grouped_legs = (*(i for i, _ in self.legs), *(o for _, o in self.legs))
        ungroup = (2 * w, *(k + s * w for k in range(w) for s in (0, 1)), 2 * w + 1)
        return legs, group, grouped_legs, ungroup

    def group(self, x: Array) -> Array:
        """(a, P, b) -> (I, O, a, b)."""
        a, _, b = x.shape
        legs, axes, _, _ = self._axes
        return do("transpose", x.reshape((a, *legs, b)), axes).reshape(
            self.inputs, self.outputs, a, b
        )

    def ungroup(self, x: Array) -> Array:
        """(I, O, a, b) -> (a, P, b)."""
        a, b = x.shape[2:]
        _, _, legs, axes = self._axes
        return do("transpose", x.reshape((*legs, a, b)), axes).reshape(a, self.size, b)

    def merge(self, sites: Sequence[Array], before: Array | None = None) -> Array:
        """Product of the block's sites of an MPO, (a, P, b); `before` (a', a) comes first."""
        x = sites[self.start] if before is None else before
        a = x.shape[0]
        for k in range(self.start + (before is None), self.stop):
            x = x.reshape(-1, sites[k].shape[0]) @ sites[k].reshape(sites[k].shape[0], -1)
        return x.reshape(a, self.size, -1)


@lru_cache(maxsize=64)
def _indices(legs: Legs) -> tuple[np.ndarray, np.ndarray]:
    """`Block.to_site_order` and `Block.to_gate_order` of all blocks with these legs."""
    w, dims = len(legs), [d for leg in legs for d in leg]
    i, o = (math.prod(leg[k] for leg in legs) for k in (0, 1))
    at = np.arange(i * o).reshape(dims).transpose(*range(0, 2 * w, 2), *range(1, 2 * w, 2))
    at = at.reshape(-1)  # of (I O), its place in P
    back = np.argsort(at)
    to_site_order = back[:, None] * (i * o) + back
    at = at.reshape(i, o)
    to_gate_order = at[:, None, None, :] * (i * o) + at[None, :, :, None]  # (r, r', c', c)
    return to_site_order, to_gate_order.reshape(i * i, o * o)


@dataclass(frozen=True)
class Step:
    """Blocks that cover all sites from left to right."""

    blocks: tuple[Block, ...]

    def is_free(self, sides: Iterable[str]) -> bool:
        """Whether a gate of one of the sides is free."""
        return any(block.is_free(side) for block in self.blocks for side in sides)


def plan_steps(legs: Legs, left: Ansatz, right: Ansatz) -> tuple[Step, ...]:
    """Steps from the target inward to the core."""
    layers = {side: _layers(legs, side, a) for side, a in (("left", left), ("right", right))}
    return tuple(_step(legs, *pair) for pair in _pairs(layers["left"], layers["right"]))


def _layers(legs: Legs, side: str, ansatz: Ansatz) -> list[list[PlacedGate]]:
    """Gates of a side by their distance from the target, as near to it as they can be."""
    sites = wires(legs, side)
    numbered = list(enumerate(ansatz.placements))
    reached: list[int] = [0] * ansatz.n
    layers: list[list[PlacedGate]] = []
    for number, place in numbered if side == "left" else reversed(numbered):
        level = max(reached[w] for w in place.wires)
        for w in place.wires:
            reached[w] = level + 1
        if level == len(layers):
            layers.append([])
        start, stop = sites[place.wires[0]], sites[place.wires[-1]] + 1
        layers[level].append(PlacedGate(number, start, stop, place.fixed is None))
    return layers


def _pairs(left: Sequence[Layer], right: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """The fewest steps through the layers of both sides; two layers that fit can be one step."""
    p, q = len(left), len(right)
    rest = [[0] * (q + 1) for _ in range(p + 1)]  # steps that remain from (i, j) on
    # layers repeat: each pair of patterns is compared once
    patterns = [[tuple(gate.span for gate in layer) for layer in side] for side in (left, right)]
    known = {pair: _fit(*pair) for pair in set(itertools.product(*map(set, patterns)))}
    fits = [[known[a, b] for b in patterns[1]] for a in patterns[0]]
    for i in range(p, -1, -1):
        for j in range(q, -1, -1):
            if i < p and j < q:
                alone = min(rest[i + 1][j], rest[i][j + 1])
                rest[i][j] = 1 + (min(rest[i + 1][j + 1], alone) if fits[i][j] else alone)
            else:
                rest[i][j] = p - i + q - j
    i, j = 0, 0
    pairs: list[tuple[Layer, Layer]] = []
    while i < p or j < q:
        if i < p and j < q and fits[i][j] and rest[i][j] == 1 + rest[i + 1][j + 1]:
            pairs.append((left[i], right[j]))
            i, j = i + 1, j + 1
        elif i < p and rest[i][j] == 1 + rest[i + 1][j]:
            pairs.append((left[i], ()))
            i += 1
        else:
            pairs.append(((), right[j]))
            j += 1
    return pairs


def _fit(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> bool:
    """Whether any two gates of two layers have all sites in common or none, by their spans."""
    spans = sorted({*left, *right})
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def _step(legs: Legs, left: Layer, right: Layer) -> Step:
    """The step of a layer of either side; sites without gates are blocks of their own."""
    at = {"left": {g.span: g for g in left}, "right": {g.span: g for g in right}}
    blocks, here = [], 0
    for start, stop in sorted({*at["left"], *at["right"]}):
        blocks += [Block(k, k + 1, legs[k : k + 1]) for k in range(here, start)]
        gates = (at[side].get((start, stop)) for side in ("left", "right"))
        blocks.append(Block(start, stop, legs[start:stop], *gates))
        here = stop
    blocks += [Block(k, k + 1, legs[k : k + 1]) for k in range(here, len(legs))]
    return Step(tuple(blocks))
