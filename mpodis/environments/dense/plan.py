"""Plan of the dense engine: tiles of gates, the products in which they act, sizes of buffers.

A sweep takes the gates of a side out of an operator one after the other, the outermost (nearest to
the target) first. Gates whose light cone fits on a few wires may be taken out together, as one
matrix: a product with a 16 x 16 matrix costs hardly more memory traffic than one with a 4 x 4
matrix, and holds five to ten gates. Everything here follows from shapes alone; `products` computes.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise, product
from typing import NamedTuple, TypeAlias

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.environments.protocol import OTHER_SIDE

__all__ = [
    "PANEL",
    "SLAB",
    "Factor",
    "Group",
    "ProductPlan",
    "SidePlan",
    "Tile",
    "piece_rows",
    "plan_sides",
    "plan_tiles",
    "row_length",
    "tile_factor",
    "tile_sweep_seconds",
    "uses_kron",
]

# Measured on one core of a 2019 server (AMD Zen 2, OpenBLAS). They decide between plans and make
# the estimates, where only ratios and a factor of two matter.
FLOP = 1 / 28e9
"""Seconds per floating-point operation in a product with a small matrix (float64)."""
BYTE = 0.04e-9
"""Seconds per byte that a product reads or writes in the cache."""
CALL = 2.5e-6
"""Seconds per call of numpy."""
BATCH = 0.2e-6
"""Seconds per matrix of a stack of small products."""
GATE = 25e-6
"""Seconds per gate, for its update and the small matrices inside a tile."""

UNTILED = 5
"""Largest number of wires for which an automatic plan has no tiles: there calls are what costs."""
WIDTHS = (3, 4, 5)
"""Widths of tiles that an automatic plan tries."""
TILTS = (0.0, 1.0, 3.0, -1.0, -3.0)
"""Gates by which a tile may be smaller in order to finish the wires of one end first."""

SLAB = 2**17
"""Entries of a matrix on which a sweep works at once: two arrays of that size fit in the cache."""
PANEL = 2**18
"""Entries of the panel of columns that goes through all factors of a product at once."""
MIN_PANEL = 32
"""Fewest columns of a panel."""

Shape: TypeAlias = tuple[int, int, int, int]
"""(left bond, inputs, outputs, right bond) of a site of the core."""
Region: TypeAlias = tuple[int, int]
"""(first wire, number of wires)."""


class Tile(NamedTuple):
    """Gates that are taken out together.

    Attributes
    ----------
    first, width : int
        The wires on which the gates act.
    gates : tuple of int
        Numbers of the placements, in the order of the sweep.
    """

    first: int
    width: int
    gates: tuple[int, ...]


class Factor(NamedTuple):
    """(1_before x matrix x 1_after) @ x, with a matrix of shape (rows, columns)."""

    before: int
    rows: int
    columns: int
    after: int

    def seconds(self, width: int, panels: int = 1, scale: float = 1.0) -> float:
        """For x of `width` columns, in panels; `scale` is 1 for float64, see `sweep_cost`."""
        flops = 2 * self.before * self.rows * self.after * self.columns * width
        size = 8 * self.before * (self.columns + self.rows) * self.after * width
        return panels * (CALL + BATCH * self.before) + scale * (flops * FLOP + size * BYTE)


def tile_factor(tile: Tile, n: int) -> Factor:
    """A tile's matrix on n wires."""
    size = 2**tile.width
    return Factor(2**tile.first, size, size, 2 ** (n - tile.first - tile.width))


# --- tiles


class SidePlan(NamedTuple):
    """The plan of one circuit.

    Attributes
    ----------
    places : tuple of Placement
    n : int
        Number of wires.
    tiles : tuple of Tile
        In the order of the sweep.
    regions : tuple of (first wire, number of wires)
        Wires that are left at each step of the sweep, see `remaining_regions`.
    """

    places: tuple[Placement, ...]
    n: int
    tiles: tuple[Tile, ...]
    regions: tuple[Region, ...]


@lru_cache(maxsize=32)
def plan_sides(left: Ansatz, right: Ansatz, tile: int | None) -> dict[str, SidePlan]:
    """Plans of both circuits by side; `tile` as for `plan_tiles`."""
    found = {}
    for side, ansatz in (("left", left), ("right", right)):
        places, n = ansatz.placements, ansatz.n
        order = range(len(places)) if side == "left" else range(len(places))[::-1]
        tiles = plan_tiles(places, order, n, tile)
        found[side] = SidePlan(places, n, tiles, remaining_regions(tiles, places, n))
    return found


def plan_tiles(
    places: Sequence[Placement], order: Sequence[int], n: int, tile: int | None
) -> tuple[Tile, ...]:
    """Tiles that cover every gate once, in a topological order of the circuit.

    Parameters
    ----------
    places : sequence of Placement
    order : sequence of int
        Numbers of the placements in the order of the sweep, outermost gate first.
    n : int
        Number of wires.
    tile : int or None
        Wires of a tile (a wider gate is a tile of its own width); 0 takes gate by gate in the
        given order, None plans what costs least.
    """
    if tile == 0 or (tile is None and n <= UNTILED):
        return tuple(Tile(places[j].wires[0], places[j].width, (j,)) for j in order)
    widths = WIDTHS if tile is None else (min(tile, n),)
    plans = [_greedy_tiles(places, order, n, width, tilt) for width in widths for tilt in TILTS]
    inward = list(order)[::-1]
    plans += [
        [t._replace(gates=t.gates[::-1]) for t in _greedy_tiles(places, inward, n, *plan)[::-1]]
        for plan in product(widths, TILTS)
    ]

    def seconds(tiles: Sequence[Tile]) -> float:
        """In the own sweep, and applied while the operators of both sides are made.

        There the innermost tiles go together with the core, and with those of the other side.
        """
        inner, total = set(innermost(tiles)), 0.0
        for k, one in enumerate(tiles):
            total += (1 if k in inner else 2) * tile_factor(one, n).seconds(2**n)
        regions = remaining_regions(tiles, places, n)
        return total + tile_sweep_seconds(tiles, regions)

    return tuple(min(plans, key=seconds))


def _greedy_tiles(
    places: Sequence[Placement], order: Sequence[int], n: int, width: int, tilt: float
) -> list[Tile]:
    """Repeatedly the window that takes most gates; `tilt` prefers low (or high) wires."""
    spans = [(place.wires[0], place.wires[-1] + 1) for place in places]
    windows = {(first, first + width) for first in range(n - width + 1)}
    windows |= {(a, b) for a, b in spans if b - a > width}
    windows = sorted(windows)
    left, tiles = list(order), []
    while left:
        best, most = [], -float("inf")
        for a, b in windows:
            # gates inside the window that no gate outside stands before
            free, taken = set(range(a, b)), []
            for j in left:
                wires = range(*spans[j])
                if free.issuperset(wires):
                    taken.append(j)
                else:
                    free.difference_update(wires)
                    if not free:
                        break
            if taken and len(taken) - tilt * spans[taken[0]][0] / n > most:
                best, most = taken, len(taken) - tilt * spans[taken[0]][0] / n
        first = min(spans[j][0] for j in best)
        last = max(spans[j][1] for j in best)
        tiles.append(Tile(first, last - first, tuple(best)))
        left = [j for j in left if j not in set(best)]
    return tiles


def remaining_regions(
    tiles: Sequence[Tile], places: Sequence[Placement], n: int
) -> tuple[Region, ...]:
    """(first wire, number of wires) of the operator at each tile of a sweep, all at the first one.

    Wires on which no later tile acts are traced out. The sweep ends, and with it the list, at the
    last tile that has a free gate.
    """
    found = []
    low, high = n, 0
    for tile in reversed(tiles):
        if not found and all(places[j].fixed is not None for j in tile.gates):
            continue
        low, high = min(low, tile.first), max(high, tile.first + tile.width)
        found.append((low, high - low))
    return ((0, n), *found[-2::-1]) if found else ()


def innermost(tiles: Sequence[Tile]) -> list[int]:
    """Numbers of the tiles on whose wires no later tile acts; they do not overlap."""
    found: list[int] = []
    behind: list[Tile] = []
    for k in range(len(tiles))[::-1]:
        a, b = tiles[k].first, tiles[k].first + tiles[k].width
        if all(b <= t.first or t.first + t.width <= a for t in behind):
            found.append(k)
        behind.append(tiles[k])
    return found[::-1]


def uses_kron(size: int, after: int) -> bool:
    """Whether x @ (1 x gate x 1_after) is faster with gate x 1_after as one matrix."""
    stacked = BATCH / (size * after) + 3 * size * FLOP
    return after == 1 or size * after * 2 * FLOP + 1e-9 < stacked + 0.6e-9


def tile_sweep_seconds(
    tiles: Sequence[Tile], regions: Sequence[Region], *, scale: float = 1.0
) -> float:
    """Time of a sweep over tiles, see `products.TileSweep`."""
    total = GATE * sum(len(tile.gates) for tile in tiles)
    for k, ((first, n), (next_first, next_n)) in enumerate(pairwise(regions)):
        tile, coming = tiles[k], tiles[k + 1]
        size, after = 2**tile.width, 2 ** (first + n - tile.first - tile.width)
        if uses_kron(size, after):
            total += CALL + 4**n * (2 * size * after * FLOP + 1.5e-9) * scale
        else:
            total += CALL + 4**n * (BATCH / (size * after) + (3 * size * FLOP + 0.5e-9) * scale)
        factor = tile_factor(coming._replace(first=coming.first - next_first), next_n)
        total += factor.seconds(2**next_n, scale=scale)
    return total


# --- products and buffers


class Inner(NamedTuple):
    """A tile next to the core, which may be multiplied into it.

    Attributes
    ----------
    own : bool
        Of the side that is to be swept, on the core's outputs; else of the other side.
    number : int
    tile : Tile
    seconds : float
        What its own factor takes in a product.
    """

    own: bool
    number: int
    tile: Tile
    seconds: float


class Group(NamedTuple):
    """Sites of a core that make one matrix, and the inner tiles that are multiplied into it.

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


def core_groups(shapes: Sequence[Shape], width: int, inner: Sequence[Inner] = ()) -> list[Group]:
    """Groups of a core's sites that apply fastest, with inner tiles, to so many columns.

    Few sites per group save operations, many save calls; all in one group is the dense matrix.
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
            factor = Factor(rows[start], r * right, left * c, columns[-1] // columns[end])
            spans = [(size[start].bit_length(), size[end].bit_length()) for size in (columns, rows)]
            inside = tuple(
                one
                for one in inner
                if spans[one.own][0] <= one.tile.first + 1
                and one.tile.first + one.tile.width + 1 <= spans[one.own][1]
            )
            seconds, before = best[start]
            seconds += factor.seconds(width) - sum(one.seconds for one in inside)
            group = Group(start, end, (spans[1][0] - 1, spans[0][0] - 1), inside)
            options.append((seconds, [*before, group]))
        best.append(min(options, key=lambda option: option[0]))
    return best[-1][1]


def core_factors(shapes: Sequence[Shape], groups: Sequence[Group]) -> list[Factor]:
    """Factors that apply the groups of a core to a vector, the bond carried along."""
    found, before, after = [], 1, 1
    for _, _, columns, _ in shapes:
        after *= columns
    for group in groups:
        rows = columns = 1
        for shape in shapes[group.start : group.end]:
            rows, columns = rows * shape[1], columns * shape[2]
        after //= columns
        left, right = shapes[group.start][0], shapes[group.end - 1][3]
        found.append(Factor(before, rows * right, left * columns, after))
        before *= rows
    return found


def row_length(panel: int, width: int) -> int:
    """Length of a row in the buffer of a panel.

    Rows whose distance is a power of two share a few lines of the cache; one more column (of
    zeros) makes products up to 1.4 times faster.
    """
    return panel if panel == width else panel + 1


def piece_rows(now: Region, later: Region, coming: Tile, slab: int) -> tuple[int, int, int]:
    """Rows of z in a piece, and as (blocks before the coming tile's wires, wires behind them)."""
    trail, total, n = 2 ** (sum(now) - sum(later)), 2 ** now[1], 2 ** later[1]
    before, m = 2 ** (coming.first - later[0]), 2**coming.width
    after = n // (before * m)
    rows = min(n, max(m, slab // (trail * total)))
    return rows, max(1, rows // (m * after)), min(after, rows // m)


class ProductPlan:
    """Factors of all products of the dense engine, and sizes of the buffers they need.

    Parameters
    ----------
    sides : dict of SidePlan
    shapes : sequence of (left bond, input, output, right bond)
    slab, panel : int
        Entries on which a sweep, and a product, works at once.
    absorb : bool
        Multiply tiles next to the core into it.

    Attributes
    ----------
    factors : dict of list of Factor
        Of the product that prepares the sweep of a side ("left", "right"), and of those that make
        M' ("core") and A ("dense").
    groups : dict of list of Group
        Of the product of each side; of the other two products under "core".
    tiles : dict of (list of int, list of int)
        Tiles of the other side, and of the own one, that have factors of their own in a side's
        product, in its order.
    tile_factors : dict of list of Factor
        Of the tiles of a side alone, in the order of the sweep.
    panels : dict of int
        Columns of a panel in the product of each side.
    scratch, traced, entries : int
        Entries of a scratch array, of what a sweep leaves after the first trace, and of the
        matrices of the core.
    """

    def __init__(
        self,
        sides: Mapping[str, SidePlan],
        shapes: Sequence[Shape],
        slab: int,
        panel: int,
        *,
        absorb: bool,
    ) -> None:
        self.factors: dict[str, list[Factor]] = {}
        self.groups: dict[str, list[Group]] = {}
        self.tiles: dict[str, tuple[list[int], list[int]]] = {}
        self.panels: dict[str, int] = {}
        self.scratch = self.traced = self.entries = 0
        self.tile_factors = {
            name: [tile_factor(tile, side.n) for tile in side.tiles] for name, side in sides.items()
        }
        tile_factors = self.tile_factors
        for name, side in sides.items():
            other, width = OTHER_SIDE[name], 2**side.n
            turned = shapes if name == "left" else [(a, o, i, b) for a, i, o, b in shapes]
            inner = [
                Inner(own, k, sides[which].tiles[k], tile_factors[which][k].seconds(width))
                for own, which in ((False, other), (True, name))
                for k in innermost(sides[which].tiles)
                if k > 0 or not own  # the first tile of a sweep is not in its product
            ]
            groups = core_groups(turned, width, inner if absorb else ())
            absorbed = {(one.own, one.number) for group in groups for one in group.inner}
            theirs = [k for k in range(len(sides[other].tiles)) if (False, k) not in absorbed]
            own = [k for k in range(1, len(side.tiles)) if (True, k) not in absorbed][::-1]
            middle = core_factors(turned, groups)
            self.groups[name], self.tiles[name] = groups, (theirs, own)
            self.factors[name] = [
                *(tile_factors[other][k] for k in theirs),
                *middle,
                *(tile_factors[name][k] for k in own),
            ]
            factors = list(self.factors[name])
            if name == "left":
                self.groups["core"] = core_groups(shapes, width)
                self.factors["core"] = core_factors(shapes, self.groups["core"])
                self.factors["dense"] = [
                    *tile_factors[other],
                    *self.factors["core"],
                    *tile_factors[name][::-1],
                ]
                factors += self.factors["dense"]
                middle = [*middle, *self.factors["core"]]
            self.entries += sum(f.rows * f.columns for f in middle)
            peak = max(f.before * max(f.rows, f.columns) * f.after for f in factors)
            fitting = 2 ** ((panel // peak).bit_length() - 1)  # columns that fit the panel
            self.panels[name] = min(width, max(MIN_PANEL, fitting))
            self.scratch = max(self.scratch, peak * row_length(self.panels[name], width), 1)
            first_trace = True
            for k, (now, later) in enumerate(pairwise(side.regions)):
                rows, _, _ = piece_rows(now, later, side.tiles[k + 1], min(slab, 4**side.n))
                trail = 2 ** (sum(now) - sum(later))
                self.scratch = max(self.scratch, rows * trail * 2 ** now[1])
                if later != now and first_trace:
                    self.traced, first_trace = max(self.traced, 4 ** later[1]), False
