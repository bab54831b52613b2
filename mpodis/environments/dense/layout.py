"""How the dense engine's products are laid out: chains through circuits and core, and buffers."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from mpodis.environments.dense.tiles import (
    OTHER,
    Link,
    Side,
    Tile,
    innermost,
    piece_rows,
    row_length,
    square_link,
)

__all__ = ["Layout"]

MIN_PANEL = 32
"""Fewest columns of a panel."""


def core_links(shapes: Sequence[tuple[int, int, int, int]]) -> list[Link]:
    """Links that apply groups of sites to a vector, the bond carried along.

    `shapes` are (left bond, outputs of the product, its inputs, right bond) of every group.
    """
    links, before = [], 1
    after = 1
    for _, _, columns, _ in shapes:
        after *= columns
    for left, rows, columns, right in shapes:
        after //= columns
        links.append(Link(before, rows * right, left * columns, after))
        before *= rows
    return links


@dataclass(frozen=True)
class Inner:
    """A tile next to the core.

    Attributes
    ----------
    own : bool
        Of the side whose chain it is, on the core's outputs; else of the other side.
    number : int
    span : tuple of int
        Its wires, from the first to behind the last.
    seconds : float
        What its own product in a chain takes.
    """

    own: bool
    number: int
    span: tuple[int, int]
    seconds: float


class Group(NamedTuple):
    """Sites of a core that are one matrix, and the inner tiles that are multiplied into it.

    Attributes
    ----------
    start, end : int
        Sites.
    wires : tuple of (int, int)
        First wires of the sites among those of the outputs, and of the inputs of the product.
    inner : tuple of Inner
    """

    start: int
    end: int
    wires: tuple[int, int]
    inner: tuple[Inner, ...]


def core_groups(
    shapes: Sequence[tuple[int, int, int, int]], width: int, inner: Sequence[Inner] = ()
) -> list[Group]:
    """Groups of a core's sites that apply fastest, with inner tiles, to so many columns.

    Few sites to a group save operations, many save calls; all in one group is the dense matrix.
    A tile on the wires of a group costs nothing.
    """
    sizes = [[shape[k] for shape in shapes] for k in (1, 2)]
    rows, columns = (list(accumulate(size, operator.mul, initial=1)) for size in sizes)
    best: list[tuple[float, list[Group]]] = [(0.0, [])]
    for end in range(1, len(shapes) + 1):
        options = []
        for start in range(end):
            left, right = shapes[start][0], shapes[end - 1][3]
            r, c = rows[end] // rows[start], columns[end] // columns[start]
            link = Link(rows[start], r * right, left * c, columns[-1] // columns[end])
            spans = [(size[start].bit_length(), size[end].bit_length()) for size in (columns, rows)]
            inside = tuple(
                tile
                for tile in inner
                if spans[tile.own][0] <= tile.span[0] + 1 and tile.span[1] + 1 <= spans[tile.own][1]
            )
            seconds, before = best[start]
            seconds += link.seconds(width) - sum(tile.seconds for tile in inside)
            group = Group(start, end, (spans[1][0] - 1, spans[0][0] - 1), inside)
            options.append((seconds, [*before, group]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def panel_width(peak: int, width: int, entries: int) -> int:
    """Columns of a panel whose largest state has so many rows, a power of two up to `width`."""
    return min(width, max(MIN_PANEL, 2 ** ((entries // peak).bit_length() - 1)))


def walk_sizes(tiles: Sequence[Tile], wires, slab: int) -> tuple[int, int]:
    """Entries that a walk needs in each scratch array and for what is left after tracing."""
    scratch, traced = 1, 0
    for k, (now, later) in enumerate(pairwise(wires)):
        rows, _, _ = piece_rows(now, later, tiles[k + 1], slab)
        trail = 2 ** (sum(now) - sum(later))
        scratch = max(scratch, rows * trail * 2 ** now[1])
        if later != now and not traced:
            traced = 4 ** later[1]
    return scratch, traced


class Layout:
    """Chains of products and sizes of buffers, from shapes alone.

    Parameters
    ----------
    sides : dict of Side
    shapes : sequence of (left bond, input, output, right bond)
    slab, panel : int
        Entries that a walk, and a chain, works on at once.
    together : bool
        Multiply tiles next to the core into it.

    Attributes
    ----------
    links : dict of list of Link
        Of the chain that loads the matrix of a side ("left", "right"), and of those that make M'
        ("core") and A ("dense").
    groups : dict of list of Group
        Of the chain of each side; of the other two chains under "core".
    tiles : dict of (list of int, list of int)
        Tiles of the other side, and of the own one, that have links of their own in a side's
        chain, in its order.
    """

    def __init__(
        self, sides: dict[str, Side], shapes, slab: int, panel: int, *, together: bool
    ) -> None:
        self.links, self.groups, self.tiles, self.panels = {}, {}, {}, {}
        self.scratch = self.traced = self.entries = 0
        for side, part in sides.items():
            other = sides[OTHER[side]]
            turned = shapes if side == "left" else [(a, o, i, b) for a, i, o, b in shapes]
            # the first tile of a walk is not in its chain
            inner = _inner(other, part.size, own=False)
            inner += [t for t in _inner(part, part.size, own=True) if t.number > 0]
            self.groups[side] = core_groups(turned, part.size, inner if together else ())
            absorbed = {(t.own, t.number) for group in self.groups[side] for t in group.inner}
            theirs = [k for k in range(len(other.tiles)) if (False, k) not in absorbed]
            own = [k for k in range(1, len(part.tiles)) if (True, k) not in absorbed][::-1]
            self.tiles[side] = theirs, own
            self.links[side] = [
                *(square_link(other.tiles[k], other.n) for k in theirs),
                *self._core_links(turned, self.groups[side]),
                *(square_link(part.tiles[k], part.n) for k in own),
            ]
            peak = max(max(link.inputs, link.outputs) for link in self.links[side])
            if side == "left":
                self.groups["core"] = core_groups(shapes, part.size)
                self.links["core"] = self._core_links(shapes, self.groups["core"])
                whole = [*other.links(), *self.links["core"], *part.links(inward=False)]
                self.links["dense"] = whole
                peak = max(peak, *(max(link.inputs, link.outputs) for link in whole))
            self.panels[side] = panel_width(peak, part.size, panel)
            columns = row_length(self.panels[side], part.size)
            scratch, traced = walk_sizes(part.tiles, part.hulls, min(slab, 4**part.n))
            self.scratch = max(self.scratch, peak * columns, scratch)
            self.traced = max(self.traced, traced)

    def _core_links(self, shapes, groups: Sequence[Group]) -> list[Link]:
        grouped = []
        for group in groups:
            sites = shapes[group.start : group.end]
            rows, columns = (math.prod(shape[k] for shape in sites) for k in (1, 2))
            grouped.append((sites[0][0], rows, columns, sites[-1][3]))
        self.entries += sum(math.prod(shape) for shape in grouped)
        return core_links(grouped)


def _inner(part: Side, width: int, *, own: bool) -> list[Inner]:
    links = part.links()
    return [
        Inner(own, k, part.tiles[k].span, links[k].seconds(width)) for k in innermost(part.tiles)
    ]
