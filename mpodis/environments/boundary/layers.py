"""Plan of the boundary engine: which gates of the circuits act in one step, and on which sites.

Seen from the target, Q_L begins with its first layer and Q_R with its last. A *step* is one layer
of either side or of both, a *block* the sites of a step that a gate holds together. Gates are first
moved outward as far as their wires allow, then the layers of the two sides are paired so that the
steps are as few as can be: mirror circuits pair layer by layer, others with a shift or one at a
time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from autoray import do

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires

__all__ = ["Block", "Slot", "Step", "plan_steps"]


@dataclass(frozen=True)
class Slot:
    """A gate of a circuit: its number among the placements, its sites, and whether it is free."""

    number: int
    start: int
    stop: int
    free: bool

    @property
    def span(self) -> tuple[int, int]:
        return self.start, self.stop


@dataclass(frozen=True)
class Block:
    """Sites start..stop-1 of a step with the gates on them; without gates, a single site.

    Multiplied up from the sites of an MPO a block is (left bond, P, right bond) with P the legs
    i1 o1 i2 o2 ...; *folded* it is (I, O, left bond, right bond) with I and O all inputs and all
    outputs.
    """

    start: int
    stop: int
    legs: Legs
    left: Slot | None = None
    right: Slot | None = None

    @property
    def idle(self) -> bool:
        return self.left is None and self.right is None

    @property
    def sites(self) -> range:
        return range(self.start, self.stop)

    def slot(self, side: str) -> Slot | None:
        return self.left if side == "left" else self.right

    def is_free(self, side: str) -> bool:
        slot = self.slot(side)
        return slot is not None and slot.free

    @cached_property
    def inputs(self) -> int:
        return math.prod(i for i, _ in self.legs)

    @cached_property
    def outputs(self) -> int:
        return math.prod(o for _, o in self.legs)

    @cached_property
    def size(self) -> int:
        return self.inputs * self.outputs

    @property
    def together(self) -> np.ndarray:
        """Where a matrix on P finds its entries in one on (I O), for `take`."""
        return _indices(self.legs)[0]

    @property
    def apart(self) -> np.ndarray:
        """Where (r r', c' c), of inputs r, r' and outputs c, c', finds its entries on P."""
        return _indices(self.legs)[1]

    @cached_property
    def _dims(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the legs as they come in P, and those of all inputs, then all outputs."""
        together = tuple(d for leg in self.legs for d in leg)
        return together, (*(i for i, _ in self.legs), *(o for _, o in self.legs))

    @cached_property
    def _axes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Axes of `fold` and `unfold`."""
        w = len(self.legs)
        fold = (*range(1, 2 * w + 1, 2), *range(2, 2 * w + 1, 2), 0, 2 * w + 1)
        unfold = (2 * w, *(k + s * w for k in range(w) for s in (0, 1)), 2 * w + 1)
        return fold, unfold

    def fold(self, x):
        a, _, b = x.shape
        x = do("transpose", x.reshape((a, *self._dims[0], b)), self._axes[0])
        return x.reshape(self.inputs, self.outputs, a, b)

    def unfold(self, x):
        a, b = x.shape[2:]
        x = do("transpose", x.reshape((*self._dims[1], a, b)), self._axes[1])
        return x.reshape(a, self.size, b)

    def merge(self, sites: Sequence, before=None):
        """Sites of an MPO multiplied up, (a, P, b); `before` (a', a) is put to their left."""
        x = sites[self.start] if before is None else before
        a = x.shape[0]
        for k in range(self.start + (before is None), self.stop):
            x = x.reshape(-1, sites[k].shape[0]) @ sites[k].reshape(sites[k].shape[0], -1)
        return x.reshape(a, self.size, -1)


@lru_cache(maxsize=64)
def _indices(legs: Legs) -> tuple[np.ndarray, np.ndarray]:
    """`Block.together` and `Block.apart`, the same for all blocks with these legs."""
    w, dims = len(legs), [d for leg in legs for d in leg]
    i, o = (math.prod(leg[k] for leg in legs) for k in (0, 1))
    at = np.arange(i * o).reshape(dims).transpose(*range(0, 2 * w, 2), *range(1, 2 * w, 2))
    at = at.reshape(-1)  # of (I O), its place in P
    back = np.argsort(at)
    together = back[:, None] * (i * o) + back
    at = at.reshape(i, o)
    apart = at[:, None, None, :] * (i * o) + at[None, :, :, None]  # (r, r', c', c)
    return together, apart.reshape(i * i, o * o)


@dataclass(frozen=True)
class Step:
    """Blocks that cover all sites from left to right."""

    blocks: tuple[Block, ...]

    def is_free(self, sides) -> bool:
        """Whether a gate of one of the sides is free."""
        return any(block.is_free(side) for block in self.blocks for side in sides)


def plan_steps(legs: Legs, left: Ansatz, right: Ansatz) -> tuple[Step, ...]:
    """Steps from the target inward to the core."""
    layers = {side: _layers(legs, side, a) for side, a in (("left", left), ("right", right))}
    return tuple(_step(legs, *pair) for pair in _pairs(layers["left"], layers["right"]))


def _layers(legs: Legs, side: str, ansatz: Ansatz) -> list[list[Slot]]:
    """Gates of a side by their distance from the target, as near to it as they can be."""
    sites = wires(legs, side)
    numbered = list(enumerate(ansatz.placements))
    reached, layers = [0] * ansatz.n, []
    for number, place in numbered if side == "left" else reversed(numbered):
        level = max(reached[w] for w in place.wires)
        for w in place.wires:
            reached[w] = level + 1
        if level == len(layers):
            layers.append([])
        start, stop = sites[place.wires[0]], sites[place.wires[-1]] + 1
        layers[level].append(Slot(number, start, stop, place.fixed is None))
    return layers


def _pairs(left: Sequence, right: Sequence) -> list[tuple[Sequence, Sequence]]:
    """The shortest way through both sequences of layers, two at a time where they fit together."""
    p, q = len(left), len(right)
    rest = [[0] * (q + 1) for _ in range(p + 1)]  # steps that remain from (i, j) on
    fits = [[_fit(a, b) for b in right] for a in left]
    for i in range(p, -1, -1):
        for j in range(q, -1, -1):
            if i < p and j < q:
                alone = min(rest[i + 1][j], rest[i][j + 1])
                rest[i][j] = 1 + (min(rest[i + 1][j + 1], alone) if fits[i][j] else alone)
            else:
                rest[i][j] = p - i + q - j
    i, j, pairs = 0, 0, []
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


def _fit(left: Sequence[Slot], right: Sequence[Slot]) -> bool:
    """Whether gates of two layers sit on the same sites or apart from each other."""
    spans = sorted({slot.span for slot in (*left, *right)})
    return all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


def _step(legs: Legs, left: Sequence[Slot], right: Sequence[Slot]) -> Step:
    at = {"left": {s.span: s for s in left}, "right": {s.span: s for s in right}}
    blocks, here = [], 0
    for start, stop in sorted({*at["left"], *at["right"]}):
        blocks += [Block(k, k + 1, legs[k : k + 1]) for k in range(here, start)]
        gates = (at[side].get((start, stop)) for side in ("left", "right"))
        blocks.append(Block(start, stop, legs[start:stop], *gates))
        here = stop
    blocks += [Block(k, k + 1, legs[k : k + 1]) for k in range(here, len(legs))]
    return Step(tuple(blocks))
