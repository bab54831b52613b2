"""Drawings of circuits and factorizations with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from mpodis.gates import named_gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mpodis.circuit.ansatz import Placement

__all__ = ["draw_factorization", "draw_layers", "svg_of_layers"]

Placed: TypeAlias = tuple[tuple[int, ...], str | None]
"""Wires of a gate, and its name if it is fixed."""

COLOURS = {1: "C2", 2: "C0", 3: "C1", 4: "C3", 5: "C4"}
WIDER = "C5"
"""Colours of free gates by their number of wires."""

SYMBOLS = {
    "control": ({"marker": "o", "ms": 4, "mfc": "k", "mec": "k"},),
    "target": (
        {"marker": "o", "ms": 9, "mfc": "white", "mec": "k"},
        {"marker": "+", "ms": 8, "mec": "k"},
    ),
    "swap": ({"marker": "x", "ms": 7, "mec": "k"},),
}
"""Markers, one above the other, of the symbols of a `Gate`."""

HEX = {
    "C0": "#1f77b4",
    "C1": "#ff7f0e",
    "C2": "#2ca02c",
    "C3": "#d62728",
    "C4": "#9467bd",
    "C5": "#8c564b",
}
"""These colours in an SVG."""
STEP, ROW = 24, 18
"""Pixels from layer to layer and from wire to wire of an SVG."""

CORE = "0.25"
"""Colour of the tensors of a core."""


def draw_layers(n: int, layers: Sequence[Sequence[Placed]], ax: Axes | None = None) -> Axes:
    """Draw n wires and the gates on them, layer by layer from left to right.

    Gates of a layer that would cross are drawn beside each other; a gate that skips wires has dots
    on its own.
    """
    import matplotlib.pyplot as plt

    columns = [_columns(layer) for layer in layers]
    if ax is None:
        size = (1.2 + 0.55 * max(sum(map(len, columns)), 1), 0.8 + 0.42 * n)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    for wire in range(n):
        ax.plot([-0.6, len(layers) - 0.4], [wire, wire], color="0.6", lw=1, zorder=0)
    _draw_columns(ax, columns)
    ax.set(xlim=(-0.8, len(layers) - 0.2), ylim=(n - 0.4, -0.6), xlabel="layer")
    ax.set_xticks(range(len(layers)))
    ax.set_yticks(range(n))
    ax.set_ylabel("wire")
    ax.spines[:].set_visible(False)
    return ax


def draw_factorization(
    left: tuple[Sequence[int], Sequence[Sequence[Placement]]],
    bonds: Sequence[int],
    right: tuple[Sequence[int], Sequence[Sequence[Placement]]],
    ax: Axes | None = None,
) -> Axes:
    """Draw Q_L, the core M' and Q_R of a row vector's way from left to right.

    Parameters
    ----------
    left, right : (sites, layers)
        The site of each wire of a circuit, and its layers of placements.
    bonds : sequence of int
        Bond dimensions between the sites of the core; bonds of dimension 1 are not drawn.
    """
    import matplotlib.pyplot as plt
    from matplotlib.patches import Circle

    n = len(bonds) + 1
    columns = [
        [_columns([(tuple(sites[w] for w in p.wires), p.fixed) for p in layer]) for layer in layers]
        for sites, layers in (left, right)
    ]
    centre = float(len(columns[0]))
    end = centre + len(columns[1])
    if ax is None:
        size = (1.6 + 0.55 * (end + 1), 0.9 + 0.42 * n)
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    for sites, (begin, stop) in ((left[0], (-0.8, centre)), (right[0], (centre, end + 0.8))):
        for site in sites:
            ax.plot([begin, stop], [site, site], color="0.6", lw=1, zorder=0)
    _draw_columns(ax, columns[0])
    _draw_columns(ax, columns[1], centre + 1)
    for site, bond in enumerate(bonds):
        if bond > 1:
            ax.plot(
                [centre] * 2, [site, site + 1], color=CORE, lw=1.5 + bond.bit_length(), zorder=0
            )
    for site in range(n):
        ax.add_patch(Circle((centre, site), 0.28, facecolor=CORE, edgecolor="k", lw=0.8))
    names = ((centre - 1) / 2, "$Q_L$"), (centre, "$M$′"), ((centre + 1 + end) / 2, "$Q_R$")
    for (x, name), drawn in zip(names, (columns[0], True, columns[1]), strict=True):
        if drawn:
            ax.text(x, -0.75, name, ha="center", va="bottom")
    ax.set(xlim=(-0.9, end + 0.9), ylim=(n - 0.4, -1.4), aspect="equal")
    ax.set_axis_off()
    return ax


def svg_of_layers(n: int, layers: Sequence[Sequence[Placed]]) -> str:
    """The drawing of `draw_layers` as a small SVG, without axes, for notebooks."""
    width, height = STEP * (len(layers) + 1), ROW * n
    wires = "".join(f"M0 {_pixel(wire)}h{width}" for wire in range(n))
    boxes: dict[str, str] = {}
    lines, marks = "", ""
    for t, layer in enumerate(layers):
        parts = _columns(layer)
        for k, part in enumerate(parts):
            x = round(STEP * (t + 0.5 + (k + 0.5) / len(parts)), 1)
            half = round(0.3 * STEP / len(parts), 1)
            for where, name in part:
                top, bottom = _pixel(min(where)), _pixel(max(where))
                gate = named_gate(name) if name else None
                if gate is not None and gate.symbols:
                    lines += f"M{x:g} {top}V{bottom}"
                    pairs = zip(where, gate.symbols, strict=True)
                    marks += "".join(_svg_symbol(x, _pixel(wire), kind) for wire, kind in pairs)
                    continue
                colour = "#ccc" if gate is not None else HEX[COLOURS.get(len(where), WIDER)]
                box = f"M{x - half:g} {top - 6}h{2 * half:g}V{bottom + 6}h{-2 * half:g}z"
                boxes[colour] = boxes.get(colour, "") + box
                if bottom - top >= ROW * len(where):  # it skips wires
                    marks += "".join(_svg_symbol(x, _pixel(wire), "control") for wire in where)
    filled = "".join(f'<path d="{path}" fill="{c}" stroke="none"/>' for c, path in boxes.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" fill="none" '
        f'stroke="currentColor"><path d="{wires}" stroke="#999"/>{filled}'
        f'<path d="{lines}"/>{marks}</svg>'
    )


def _pixel(wire: int) -> int:
    """Vertical position of a wire in an SVG."""
    return ROW * wire + ROW // 2


def _svg_symbol(x: float, y: int, kind: str) -> str:
    """A dot, a circle with a plus, or a cross."""
    if kind == "control":
        return f'<circle cx="{x:g}" cy="{y}" r="2.5" fill="currentColor"/>'
    if kind == "target":
        return f'<circle cx="{x:g}" cy="{y}" r="5"/><path d="M{x - 5:g} {y}h10M{x:g} {y - 5}v10"/>'
    return f'<path d="M{x - 4:g} {y - 4}l8 8m-8 0l8-8"/>'


def _draw_columns(ax: Axes, columns: Sequence[list[list[Placed]]], begin: float = 0.0) -> None:
    """Draw layers of gates, one at each whole number from `begin` on."""
    for t, parts in enumerate(columns):
        for k, part in enumerate(parts):
            x = begin + t + (k + 0.5) / len(parts) - 0.5
            for wires, name in part:
                _draw_gate(ax, wires, name, x, 0.3 / len(parts))


def _columns(layer: Sequence[Placed]) -> list[list[Placed]]:
    """The gates of a layer in groups within which no two spans overlap; one for local gates."""
    columns: list[list[Placed]] = []
    for wires, name in layer:
        free = (
            column
            for column in columns
            if all(max(wires) < min(other) or max(other) < min(wires) for other, _ in column)
        )
        column = next(free, None)
        if column is None:
            columns.append([(wires, name)])
        else:
            column.append((wires, name))
    return columns or [[]]


def _draw_gate(ax: Axes, wires: tuple[int, ...], name: str | None, x: float, half: float) -> None:
    from matplotlib.patches import Rectangle

    top, bottom = min(wires), max(wires)
    gate = named_gate(name) if name else None
    if gate is not None and gate.symbols:
        ax.plot([x, x], [top, bottom], color="k", lw=1.2)
        for wire, symbol in zip(wires, gate.symbols, strict=True):
            for style in SYMBOLS[symbol]:
                ax.plot([x], [wire], ls="", **style)
        return
    colour = COLOURS.get(len(wires), WIDER) if gate is None else "0.9"
    corner, size = (x - half, top - 0.3), (2 * half, bottom - top + 0.6)
    ax.add_patch(Rectangle(corner, *size, facecolor=colour, edgecolor="k", lw=0.8))
    if gate is not None:
        ax.text(x, (top + bottom) / 2, gate.name, rotation=90, ha="center", va="center", size=7)
    if bottom - top >= len(wires):  # it skips wires
        ax.plot([x] * len(wires), wires, "k.", ms=5)
