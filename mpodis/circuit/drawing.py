"""Drawings of circuits with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from mpodis.gates import named_gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_layers"]

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
    for t, parts in enumerate(columns):
        for k, part in enumerate(parts):
            x = t + (k + 0.5) / len(parts) - 0.5
            for wires, name in part:
                _draw_gate(ax, wires, name, x, 0.3 / len(parts))
    ax.set(xlim=(-0.8, len(layers) - 0.2), ylim=(n - 0.4, -0.6), xlabel="layer")
    ax.set_xticks(range(len(layers)))
    ax.set_yticks(range(n))
    ax.set_ylabel("wire")
    ax.spines[:].set_visible(False)
    return ax


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
