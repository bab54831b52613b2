"""Table 1 of arXiv 2509.06653v1, its cost columns: what an n-body gate costs with today's Qiskit.

The paper counts one gate, not a layer, on two devices and does not say of which kind the gate is
nor at which optimisation level it was compiled. Here are random gates of every kind at every
level, and brickwalls of 2-body gates on a real device, on which a layer of gates needs no SWAPs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, median

import numpy as np
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.gates import random_gate
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

PAPER = {
    "logical": {2: (8, 3), 3: (32, 19), 4: (164, 100), 5: (693, 442), 6: (2893, 1868)},
    "FakeMontrealV2": {
        2: (32, 3),
        3: (174, 44),
        4: (1062, 249),
        5: (4481, 1125),
        6: (18481, 4799),
    },
}
"""One- and two-qubit gates of one gate, as published."""

KINDS = {"SO": "real, det +1", "O": "real, det -1", "U": "complex"}
LEVELS = (0, 1, 2, 3)
MARKERS = {"SO": "o", "O": "s", "U": "^"}


@dataclass(frozen=True)
class Table1Costs(Options):
    """What is compiled.

    Attributes
    ----------
    widths : tuple of int
        Wires of a gate.
    kinds : tuple of str
        Of "SO", "O" (here of determinant -1) and "U".
    wires : int
        Of the brickwalls of 2-body gates.
    depths : tuple of int
        Their layers.
    """

    workers: int = 1
    widths: tuple[int, ...] = (2, 3, 4, 5, 6)
    kinds: tuple[str, ...] = ("SO", "O", "U")
    wires: int = 6
    depths: tuple[int, ...] = (1, 2, 4, 8, 16)

    def __post_init__(self) -> None:
        super().__post_init__()
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"kind {kind!r} is not known; use {', '.join(KINDS)}")
        for name in ("widths", "depths"):
            if min(getattr(self, name), default=0) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must name numbers of 1 or more")


def _pieces(options: Table1Costs) -> list[Piece]:
    gates = [
        Piece(
            f"{width}body-{kind}-seed{seed}",
            _one_gate,
            {"width": width, "kind": kind, "seed": seed},
        )
        for width in options.widths
        for kind in options.kinds
        for seed in options.range
    ]
    walls = [
        Piece(
            f"depth{depth}-{kind}-seed{seed}",
            _brickwall,
            {"wires": options.wires, "depth": depth, "kind": kind, "seed": seed},
        )
        for depth in options.depths
        for kind in options.kinds
        for seed in options.range
    ]
    return gates + walls


def _one_gate(*, width: int, kind: str, seed: int) -> dict:
    gate = _gate(width, kind, np.random.default_rng([seed, width]))
    return {"what": "gate", "width": width, "kind": kind, "costs": _costs(gate, seed)}


def _brickwall(*, wires: int, depth: int, kind: str, seed: int) -> dict:
    rng = np.random.default_rng([seed, wires, depth])
    ansatz = brickwall(wires, depth, group=kind)
    gates = tuple(_gate(place.width, kind, rng) for place in ansatz.placements)
    pairs = sum(place.width == 2 for place in ansatz.placements)
    costs = _costs(Circuit(ansatz, gates), seed)
    return {"what": "brickwall", "depth": depth, "kind": kind, "gates": pairs, "costs": costs}


def _gate(width: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A Haar-random gate; one of "O" has determinant -1."""
    gate = random_gate(2**width, group="SO" if kind == "O" else kind, rng=rng)
    if kind == "O":
        gate[0] *= -1
    return gate


def _costs(what: np.ndarray | Circuit, seed: int) -> dict[str, list[dict]]:
    """Counts by backend, one for every level; one run of the compiler each."""
    return {
        backend: [
            {
                "one_qubit": found.one_qubit,
                "two_qubit": found.two_qubit,
                "depth": found.depth,
            }
            for found in (
                gate_cost(what, backend=backend, optimization_level=level, trials=1, seed=seed)
                for level in LEVELS
            )
        ]
        for backend in BACKENDS
    }


def _of(record: dict, what: str, **where) -> list[dict]:
    rows = (row for row in record["pieces"].values() if row["what"] == what)
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


def _counts(rows: list[dict], backend: str, level: int, column: str) -> list[int]:
    return [row["costs"][backend][level][column] for row in rows]


def _spread(values: list[int]) -> str:
    """Median, and (least to most) where they differ."""
    middle = f"{median(values):,.10g}"
    if min(values) == max(values):
        return middle
    return f"{middle} ({min(values):,} to {max(values):,})"


def distance(record: dict, backend: str, kind: str, level: int, column: str | None = None) -> float:
    """Mean |log(ours / paper)| over the widths, medians of ours, of one column or of both."""
    columns = ("one_qubit", "two_qubit")
    gaps = []
    for width in record["options"]["widths"]:
        if width in PAPER[backend]:
            rows = _of(record, "gate", width=width, kind=kind)
            for name, paper in zip(columns, PAPER[backend][width], strict=True):
                if column in (None, name):
                    ours = median(_counts(rows, backend, level, name))
                    gaps.append(abs(math.log(max(ours, 1) / paper)))
    return mean(gaps) if gaps else math.nan


def nearest(record: dict, backend: str, column: str | None = None) -> tuple[str, int, float]:
    """The kind and level whose counts are closest to the paper's, and how far they are."""
    tried = [
        (distance(record, backend, kind, level, column), level, kind)
        for kind in record["options"]["kinds"]
        for level in LEVELS
    ]
    gap, level, kind = min(tried)
    return kind, level, gap


def _tables(record: dict) -> list[Table]:
    options = record["options"]
    found = []
    for backend in BACKENDS:
        rows = []
        for width in options["widths"]:
            for kind in options["kinds"]:
                pieces = _of(record, "gate", width=width, kind=kind)
                cells = [
                    " / ".join(
                        _spread(_counts(pieces, backend, level, column))
                        for column in ("one_qubit", "two_qubit")
                    )
                    for level in LEVELS
                ]
                paper = PAPER[backend].get(width)
                shown = None if paper is None else f"{paper[0]:,} / {paper[1]:,}"
                rows.append((f"{width}-body", KINDS[kind], *cells, shown))
        found.append(
            Table(
                ("gates", "kind", *(f"level {level}" for level in LEVELS), "paper"),
                rows,
                title=f"one gate on {backend}: one- / two-qubit gates, median (least to most)",
            )
        )
    rows = []
    for depth in options["depths"]:
        for kind in options["kinds"]:
            pieces = _of(record, "brickwall", depth=depth, kind=kind)
            logical = _counts(pieces, "logical", 1, "two_qubit")
            gates = pieces[0]["gates"]
            cells = [_spread(_counts(pieces, BACKENDS[1], level, "two_qubit")) for level in LEVELS]
            rows.append((depth, KINDS[kind], gates, _spread(logical), *cells))
    title = f"brickwalls of 2-body gates on {options['wires']} wires: two-qubit gates"
    names = (f"{BACKENDS[1]}, level {level}" for level in LEVELS)
    found.append(
        Table(
            ("layers", "kind", "gates", "logical, level 1", *names),
            rows,
            title=title,
            notes=("what a device takes beyond the logical count are SWAPs, of three each",),
        )
    )
    return found


def _draw_gates(record: dict, ax: Axes) -> Axes:
    widths = record["options"]["widths"]
    for b, (backend, level) in enumerate((("logical", 1), (BACKENDS[1], 3), (BACKENDS[1], 0))):
        for k, kind in enumerate(record["options"]["kinds"]):
            values = [
                median(
                    _counts(_of(record, "gate", width=w, kind=kind), backend, level, "two_qubit")
                )
                for w in widths
            ]
            where = [w + 0.1 * (k - 1) for w in widths]
            label = f"{backend}, level {level}" if k == 0 else None
            ax.plot(where, values, MARKERS[kind], color=f"C{b}", ms=5, alpha=0.8, label=label)
    for kind in record["options"]["kinds"]:
        ax.plot([], [], MARKERS[kind], color="0.4", ms=5, label=KINDS[kind])
    for backend, marker in zip(BACKENDS, ("_", "x"), strict=True):
        known = [w for w in widths if w in PAPER[backend]]
        counts = [PAPER[backend][w][1] for w in known]
        ax.plot(known, counts, "k", ls="", marker=marker, ms=12, label=f"paper, {backend}")
    ax.set(yscale="log", xlabel="wires of a gate", ylabel="two-qubit gates", xticks=widths)
    ax.legend(fontsize="x-small")
    return ax


def _draw_ratio(backend: str):
    def draw(record: dict, ax: Axes) -> Axes:
        kind, _, _ = nearest(record, backend)
        widths = [w for w in record["options"]["widths"] if w in PAPER[backend]]
        for level in LEVELS:
            for c, (column, style) in enumerate((("one_qubit", "--"), ("two_qubit", "-"))):
                ratios = [
                    median(_counts(_of(record, "gate", width=w, kind=kind), backend, level, column))
                    / PAPER[backend][w][c]
                    for w in widths
                ]
                label = f"level {level}" if c else None
                ax.plot(widths, ratios, style, marker="o", ms=4, color=f"C{level}", label=label)
        for style, what in (("--", "one-qubit"), ("-", "two-qubit")):
            ax.plot([], [], style, color="0.4", label=what)
        ax.axhline(1, color="k", lw=1)
        ax.set(xlabel="wires of a gate", ylabel="gates, ours / paper", xticks=widths)
        ax.set_ylim(0, None)
        ax.set_title(f"{backend}, {KINDS[kind]}", fontsize="medium")
        ax.legend(fontsize="x-small")
        return ax

    return draw


def _draw_walls(record: dict, ax: Axes) -> Axes:
    depths = record["options"]["depths"]
    for k, kind in enumerate(record["options"]["kinds"]):
        for level, style in ((3, "-"), (0, ":")):
            values = [
                median(
                    _counts(
                        _of(record, "brickwall", depth=d, kind=kind),
                        BACKENDS[1],
                        level,
                        "two_qubit",
                    )
                )
                for d in depths
            ]
            label = f"{KINDS[kind]}, FakeMontrealV2 level {level}"
            ax.plot(depths, values, style, marker=MARKERS[kind], ms=4, color=f"C{k}", label=label)
        logical = [
            median(_counts(_of(record, "brickwall", depth=d, kind=kind), "logical", 1, "two_qubit"))
            for d in depths
        ]
        label = "logical" if k == 0 else None
        ax.plot(depths, logical, "k", ls="", marker="+", ms=11, label=label)
    ax.set(xlabel="layers", ylabel="two-qubit gates", xticks=depths)
    ax.legend(fontsize="x-small")
    return ax


def _finding(record: dict) -> str:
    options, device = record["options"], BACKENDS[1]
    parts = []
    for backend in BACKENDS:
        kind, level, gap = nearest(record, backend)
        two = distance(record, backend, kind, level, "two_qubit")
        others = [
            f"{math.exp(distance(record, backend, kind, k)):.2f} at level {k}"
            for k in LEVELS
            if k != level
        ]
        parts.append(
            f"on {backend} {KINDS[kind]} gates at level {level}, off by a factor of "
            f"{math.exp(gap):.2f} on average (two-qubit gates {math.exp(two):.2f}), and "
            f"{', '.join(others)}"
        )
    cnots = {
        kind: {
            row["costs"]["logical"][1]["two_qubit"] / row["gates"]
            for row in _of(record, "brickwall", kind=kind)
        }
        for kind in options["kinds"]
    }
    each = [
        f"{', '.join(f'{value:g}' for value in sorted(values))} ({KINDS[kind]})"
        for kind, values in cnots.items()
    ]
    walls = _of(record, "brickwall")
    routed = {
        level: sum(
            row["costs"][device][level]["two_qubit"] > row["costs"]["logical"][1]["two_qubit"]
            for row in walls
        )
        for level in LEVELS
    }
    free = [str(level) for level in LEVELS if routed[level] == 0]
    swaps = ", ".join(f"{count} at level {level}" for level, count in routed.items() if count)
    return (
        f"The counts nearest to the paper's are: {'; '.join(parts)}. A 2-body gate of a brickwall "
        f"takes so many CNOTs: {'; '.join(each)}. Of {len(walls)} brickwalls on {options['wires']} "
        f"wires, up to {max(options['depths'])} layers deep, none takes SWAPs on {device} at the "
        f"levels {', '.join(free) or '(none)'}; {swaps or 'none'} do. Medians over "
        f"{len(record['seeds'])} seeds of gate and compiler, one run of the compiler each."
    )


EXPERIMENT = Experiment(
    name="table1-costs",
    title="Gates after compilation, by the width and kind of a gate (Table 1)",
    options=Table1Costs,
    pieces=_pieces,
    tables=_tables,
    finding=_finding,
    panels=(
        Panel("gates", "Two-qubit gates of one gate, medians.", _draw_gates),
        Panel("walls", "Two-qubit gates of brickwalls on six wires, medians.", _draw_walls),
        Panel("logical", "Logical counts against the paper's.", _draw_ratio("logical")),
        Panel("device", "Counts on the device against the paper's.", _draw_ratio(BACKENDS[1])),
    ),
    trains=False,
)
