"""Table 1 of arXiv 2509.06653v1, its cost columns: what an n-body gate costs with today's Qiskit.

The paper counts one gate, not a layer, on two devices and does not say of which kind the gate is
nor at which optimisation level it was compiled. Here are random gates of every kind at every
level, and brickwalls of 2-body gates on a real device, on which a layer of gates needs no SWAPs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.gates import random_gate
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, how_many, on_networks
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

COUNTS = ["one_qubit", "two_qubit"]
DEVICE = BACKENDS[1]
PAPER = pd.DataFrame(
    {
        "one_qubit": [8, 32, 164, 693, 2893, 32, 174, 1062, 4481, 18481],
        "two_qubit": [3, 19, 100, 442, 1868, 3, 44, 249, 1125, 4799],
    },
    pd.MultiIndex.from_product([BACKENDS, range(2, 7)], names=["backend", "width"]),
)
"""Gates of one gate, as published."""
KINDS = {"SO": "real, det +1", "O": "real, det -1", "U": "complex"}
LEVELS = (0, 1, 2, 3)
MARKERS = {"SO": "o", "O": "s", "U": "^"}


@dataclass(frozen=True)
class Table1Costs(Options):
    """Single gates, and brickwalls of 2-body gates."""

    n_jobs: int = 1
    widths: tuple[int, ...] = option((2, 3, 4, 5, 6), "Wires of a single gate.", least=1)
    kinds: tuple[str, ...] = option(tuple(KINDS), "Kinds of gates.", choices=tuple(KINDS))
    wires: int = option(6, "Wires of the brickwalls.", least=2)
    depths: tuple[int, ...] = option((1, 2, 4, 8, 16), "Layers of the brickwalls.", least=1)


def study(options: Table1Costs) -> Study:
    cases = [{"width": width, "layers": 0} for width in options.widths]
    cases += [{"width": 2, "layers": depth} for depth in options.depths]
    return on_networks(
        costs, options, name="table1-costs", cases=cases, grid={"kind": options.kinds}
    )


def costs(*, width: int, layers: int, kind: str, wires: int, seed: int) -> dict[str, Any]:
    """Counts on every device and level, one run of the compiler each; 0 layers are one gate."""
    if layers:
        rng = np.random.default_rng([seed, wires, layers])
        ansatz = brickwall(wires, layers, group=kind)
        gates = tuple(gate_of(place.width, kind, rng) for place in ansatz.placements)
        compiled: Any = Circuit(ansatz, gates)
        pairs = sum(place.width == 2 for place in ansatz.placements)
    else:
        compiled, pairs = gate_of(width, kind, np.random.default_rng([seed, width])), 1
    rows = []
    for backend, level in product(BACKENDS, LEVELS):
        cost = gate_cost(compiled, backend=backend, optimization_level=level, trials=1, seed=seed)
        counts = {name: getattr(cost, name) for name in (*COUNTS, "depth")}
        rows.append({"backend": backend, "level": level, "gates": pairs, **counts})
    return {ROW: rows}


def gate_of(width: int, kind: str, rng: np.random.Generator) -> np.ndarray:
    """A Haar-random gate; one of "O" has determinant -1."""
    gate = random_gate(2**width, group="SO" if kind == "O" else kind, rng=rng)
    if kind == "O":
        gate[0] *= -1
    return gate


def spread(values: Sequence[int]) -> str:
    """Median, and (least to most) where they differ."""
    middle = f"{median(values):,.10g}"
    if min(values) == max(values):
        return middle
    return f"{middle} ({min(values):,} to {max(values):,})"


def ratios(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians of one gate over the counts of the paper."""
    keys = {"left_on": ["backend", "width"], "right_index": True}
    one = frame.query("layers == 0").merge(PAPER, suffixes=("", "_paper"), **keys)
    shares = {name: one[name] / one[f"{name}_paper"] for name in COUNTS}
    case = ["backend", "kind", "width", "level"]
    return one.assign(**shares).pivot_table(COUNTS, case, aggfunc="median", sort=False)


def distances(frame: pd.DataFrame) -> pd.DataFrame:
    """Factor between our counts and the paper's: means of the logarithms over widths and counts."""
    logs = ratios(frame).map(math.log).abs().mean(axis="columns").to_frame("log")
    return logs.pivot_table("log", ["backend", "kind"], "level", sort=False).map(math.exp)


def tables(frame: pd.DataFrame) -> list[Table]:
    one, walls = frame.query("layers == 0"), frame.query("layers > 0")
    cells = one.pivot_table(COUNTS, ["width", "kind", "backend"], "level", spread, sort=False)
    cells = (cells["one_qubit"] + " / " + cells["two_qubit"]).add_prefix("level ").reset_index()
    texts = PAPER.map("{:,}".format)
    paper = (texts["one_qubit"] + " / " + texts["two_qubit"]).to_frame("paper")
    cells = cells.join(paper, on=["backend", "width"])
    shown = walls.query("backend == @DEVICE or level == 1")
    wall, device = ["layers", "kind", "gates"], ["backend", "level"]
    counts = walls.pivot_table("two_qubit", [*wall, "seed"], device)
    routed = counts[DEVICE].gt(counts["logical"][1], axis="index")
    return [
        Table.from_dataframe(
            cells.assign(width=cells["width"].map("{}-body".format)).set_index("width"),
            title="one gate: one- / two-qubit gates, median (least to most)",
            notes=tuple(f"{kind}: {words}" for kind, words in KINDS.items()),
        ),
        Table.from_dataframe(
            distances(frame).rename(KINDS).add_prefix("level "),
            title="factor between our counts and the paper's, mean over widths",
        ),
        Table.from_dataframe(
            ratios(frame).pivot_table(COUNTS, ["backend", "kind", "width"], "level", sort=False),
            title="our counts over the paper's",
        ),
        Table.from_dataframe(
            shown.pivot_table("two_qubit", wall, device, spread, sort=False).rename(KINDS),
            title="brickwalls of 2-body gates: two-qubit gates by device and level",
            notes=("what a device takes beyond the logical count are SWAPs, of three each",),
        ),
        Table.from_dataframe(
            routed.apply(how_many).to_frame("brickwalls with SWAPs"), title=f"on {DEVICE}"
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    """Medians by device and level (colour) and by kind (marker)."""
    kinds = ["backend", "level", "kind"]
    medians = frame.query("layers == 0").pivot_table("two_qubit", "width", kinds, "median")
    for k, (backend, level) in enumerate((("logical", 1), (DEVICE, 3), (DEVICE, 0))):
        for kind, curve in medians[backend, level].items():
            label = f"{backend}, level {level}, {KINDS[str(kind)]}"
            ax.plot(curve, MARKERS[str(kind)], color=f"C{k}", ms=5, alpha=0.8, label=label)
    for backend, marker in zip(BACKENDS, "_x", strict=True):
        ax.plot(PAPER["two_qubit"][backend], f"k{marker}", ms=12, label=f"paper, {backend}")
    ax.set(yscale="log", xlabel="wires of a gate", ylabel="two-qubit gates", xticks=medians.index)
    ax.legend(fontsize="xx-small")


EXPERIMENT = Experiment(
    name="table1-costs",
    title="Gates after compilation, by the width and kind of a gate (Table 1)",
    options=Table1Costs,
    study=study,
    tabulate=tables,
    panels=(Panel("gates", "Two-qubit gates of one gate, medians.", draw),),
    trains=False,
)
