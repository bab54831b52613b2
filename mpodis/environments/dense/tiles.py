"""Tiles of a circuit: gates of a light cone fused into one matrix, and what moving them costs.

A walk takes the gates of a side out of an operator one after the other, the outermost (nearest to
the target) first. Gates whose light cone fits on a few wires may be taken out together, as one
matrix: a product with a 16 x 16 matrix costs hardly more memory traffic than one with a 4 x 4
matrix, and holds five to ten gates. Everything here is plain planning; `dense` runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import NamedTuple

from mpodis.circuit.ansatz import Ansatz, Placement

__all__ = [
    "OTHER",
    "PANEL",
    "SLAB",
    "Link",
    "Side",
    "Tile",
    "piece_rows",
    "plan_sides",
    "plan_tiles",
    "row_length",
    "square_link",
    "uses_kron",
    "walk_seconds",
]

# One core of a 2019 server (AMD Zen 2, OpenBLAS); they decide between plans and make `estimate`,
# where only ratios and a factor of two matter.
FLOP = 1 / 28e9
"""Seconds per floating-point operation in a product with a small matrix (float64)."""
BYTE = 0.04e-9
"""Seconds per byte that a product reads or writes while it sits in cache."""
CALL = 2.5e-6
"""Seconds per call of numpy."""
BATCH = 0.2e-6
"""Seconds per matrix of a stack of small products."""
GATE = 25e-6
"""Seconds per gate of the update and of the small matrices inside a tile."""

UNTILED = 5
"""Largest number of wires that an automatic plan leaves untiled: there calls are what costs."""
WIDTHS = (3, 4, 5)
"""Widths of tiles that an automatic plan tries."""
TILTS = (0.0, 1.0, 3.0, -1.0, -3.0)
"""Gates that a tile may hold less in order to finish the wires of one end before the others."""

SLAB = 2**17
"""Entries of a piece of a matrix that a walk works on at once: two of them fit in cache."""
PANEL = 2**18
"""Entries of a panel of columns that go through a chain at once."""
OTHER = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Tile:
    """Gates taken out together.

    Attributes
    ----------
    first, width : int
        The wires that the gates span.
    gates : tuple of int
        Positions among the placements, in the order of the walk.
    """

    first: int
    width: int
    gates: tuple[int, ...]

    @property
    def size(self) -> int:
        return 2**self.width

    @property
    def span(self) -> tuple[int, int]:
        return self.first, self.first + self.width


class Link(NamedTuple):
    """(1 x matrix x 1) @ x, the matrix (rows, columns) between 1s of sizes before and after."""

    before: int
    rows: int
    columns: int
    after: int

    @property
    def inputs(self) -> int:
        return self.before * self.columns * self.after

    @property
    def outputs(self) -> int:
        return self.before * self.rows * self.after

    def seconds(self, width: int, panels: int = 1, scale: float = 1.0) -> float:
        """For x of so many columns, in panels; `scale` is 1 for float64, see `dense.estimate`."""
        flops = 2 * self.outputs * self.columns * width
        size = 8 * (self.inputs + self.outputs) * width
        return panels * (CALL + BATCH * self.before) + scale * (flops * FLOP + size * BYTE)


def square_link(tile: Tile, n: int) -> Link:
    """A tile's matrix on n wires."""
    return Link(2**tile.first, tile.size, tile.size, 2 ** (n - tile.first - tile.width))


def plan_tiles(
    places: Sequence[Placement], order: Sequence[int], n: int, tile: int | None
) -> list[Tile]:
    """Tiles that cover every gate once, in a topological order of the circuit.

    Parameters
    ----------
    places : sequence of Placement
    order : sequence of int
        Positions in the order of the walk, outermost gate first.
    n : int
        Number of wires.
    tile : int or None
        Wires of a tile (a wider gate is a tile of its own width); 0 takes gate by gate in the
        given order, None plans what costs least.
    """
    if tile is not None and tile < 0:
        raise ValueError(f"tile={tile} is no number of wires; use 0 for no tiles, None to plan")
    if tile == 0 or (tile is None and n <= UNTILED):
        return [Tile(places[j].wires[0], places[j].width, (j,)) for j in order]
    widths = WIDTHS if tile is None else (min(tile, n),)
    plans = [_greedy(places, order, n, width, tilt) for width in widths for tilt in TILTS]
    inward = list(order)[::-1]
    plans += [
        [replace(one, gates=one.gates[::-1]) for one in _greedy(places, inward, n, *plan)[::-1]]
        for plan in product(widths, TILTS)
    ]
    return min(plans, key=lambda tiles: plan_seconds(tiles, places, n))


def _greedy(places, order, n: int, width: int, tilt: float) -> list[Tile]:
    """Again and again the window that takes most gates; `tilt` prefers low (or high) wires."""
    windows = {(first, first + width) for first in range(n - width + 1)}
    spans = [(place.wires[0], place.wires[-1] + 1) for place in places]
    windows |= {(a, b) for a, b in spans if b - a > width}
    windows = sorted(windows)
    left, tiles = list(order), []
    while left:
        taken = max(
            (_reached(left, spans, window) for window in windows),
            key=lambda gates: (
                len(gates) - tilt * spans[gates[0]][0] / n if gates else -float("inf")
            ),
        )
        first = min(spans[j][0] for j in taken)
        last = max(spans[j][1] for j in taken)
        tiles.append(Tile(first, last - first, tuple(taken)))
        left = [j for j in left if j not in set(taken)]
    return tiles


def _reached(left, spans, window) -> list[int]:
    """Gates inside the window that no gate outside stands before."""
    a, b = window
    free, taken = set(range(a, b)), []
    for j in left:
        wires = range(*spans[j])
        if free.issuperset(wires):
            taken.append(j)
        else:
            free.difference_update(wires)
            if not free:
                break
    return taken


def hulls(tiles: Sequence[Tile], places: Sequence[Placement], n: int) -> list[tuple[int, int]]:
    """(first wire, number of wires) that are left at each tile of a walk, all at the first one.

    Wires on which nothing is to come any more are traced out. The walk ends, and with it the list,
    with the last tile that has a free gate.
    """
    found = []
    low, high = n, 0
    for tile in reversed(tiles):
        if not found and all(places[j].fixed is not None for j in tile.gates):
            continue
        low, high = min(low, tile.first), max(high, tile.first + tile.width)
        found.append((low, high - low))
    return [(0, n), *found[-2::-1]] if found else []


def uses_kron(size: int, after: int) -> bool:
    """Whether x @ (1 x gate x 1_after) is faster with gate x 1_after as one matrix."""
    stacked = BATCH / (size * after) + 3 * size * FLOP
    return after == 1 or size * after * 2 * FLOP + 1e-9 < stacked + 0.6e-9


def columns_seconds(size: int, after: int, elements: int, scale: float = 1.0) -> float:
    """x @ (1 x gate x 1) on so many elements."""
    if uses_kron(size, after):
        return CALL + elements * (2 * size * after * FLOP + 1.5e-9) * scale
    return CALL + elements * (BATCH / (size * after) + (3 * size * FLOP + 0.5e-9) * scale)


def innermost(tiles: Sequence[Tile]) -> list[int]:
    """Positions of the tiles whose wires no later tile touches; they do not overlap."""
    found, low, high = [], [], []
    for k in range(len(tiles))[::-1]:
        a, b = tiles[k].span
        if all(b <= c or d <= a for c, d in zip(low, high, strict=True)):
            found.append(k)
        low.append(a)
        high.append(b)
    return found[::-1]


def plan_seconds(tiles, places, n: int, *, scale: float = 1.0) -> float:
    """Time that a plan costs: in the own walk, and applied while both sides' operators are made.

    There the innermost tiles go together with the core, and with those of the other side.
    """
    inner, total = set(innermost(tiles)), 0.0
    for k, tile in enumerate(tiles):
        total += (1 if k in inner else 2) * square_link(tile, n).seconds(2**n, scale=scale)
    return total + walk_seconds(tiles, places, n, scale=scale)


def walk_seconds(tiles, places, n: int, *, scale: float = 1.0) -> float:
    """Time of one walk, see `dense.Walk`."""
    remaining = hulls(tiles, places, n)
    total = GATE * sum(len(tile.gates) for tile in tiles)
    for k, ((start, wires), (nextstart, nextwires)) in enumerate(pairwise(remaining)):
        tile, coming = tiles[k], tiles[k + 1]
        after = 2 ** (start + wires - tile.first - tile.width)
        total += columns_seconds(tile.size, after, 4**wires, scale)
        link = square_link(Tile(coming.first - nextstart, coming.width, ()), nextwires)
        total += link.seconds(2**nextwires, scale=scale)
    return total


def row_length(panel: int, width: int) -> int:
    """Length of a row in the buffer of a panel.

    Rows whose distance is a power of two fall on the same few lines of the cache; one more column
    (of zeros) makes products up to 1.4 times faster.
    """
    return panel if panel == width else panel + 1


def piece_rows(now, later, coming: Tile, slab: int) -> tuple[int, int, int]:
    """Rows of z in a piece, and as (blocks before the coming tile's wires, wires behind them)."""
    trail, total, n = 2 ** (sum(now) - sum(later)), 2 ** now[1], 2 ** later[1]
    before, m = 2 ** (coming.first - later[0]), coming.size
    after = n // (before * m)
    rows = min(n, max(m, slab // (trail * total)))
    return rows, max(1, rows // (m * after)), min(after, rows // m)


@dataclass(frozen=True)
class Side:
    """The plan of one circuit: its tiles in the order of the walk."""

    places: tuple
    n: int
    tiles: list[Tile]
    turned: bool
    hulls: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hulls", hulls(self.tiles, self.places, self.n))

    @property
    def size(self) -> int:
        return 2**self.n

    def links(self, *, inward: bool = True) -> list:
        """The tiles in the order of the walk or the opposite one."""
        links = [square_link(tile, self.n) for tile in self.tiles]
        return links if inward else links[::-1]


def plan_sides(left: Ansatz, right: Ansatz, tile: int | None) -> dict[str, Side]:
    found = {}
    for side, ansatz in (("left", left), ("right", right)):
        places, n = ansatz.placements, ansatz.n
        order = range(len(places)) if side == "left" else range(len(places))[::-1]
        found[side] = Side(places, n, plan_tiles(places, order, n, tile), side == "right")
    return found
