"""Which idea brings which gain: the paper's recipe, and ours put on top of it one by one.

2-body gates and a product core throughout. The ladder begins with random gates, the truncated
core and plain sweeps; every step adds one idea and keeps the others. The last one, circuits that
grow, is a single run whose stages give every depth. Variants change one thing at its end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.jobs.records import spread
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks, search_of
from mpodis.paper.networks import network
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

_PAPER: dict[str, Any] = {"init": "random", "n_init": 1, "core": "fixed", "method": "sweeps"}
LADDER: dict[str, dict[str, Any]] = {
    "random gates, core fixed, sweeps": _PAPER,
    "+ core updated": _PAPER | {"core": "update"},
    "+ near the identity": _PAPER | {"core": "update", "init": "identity"},
    "+ L-BFGS": {"init": "identity", "n_init": 1},
    "+ four starts": {"init": "identity"},
}
"""Settings by idea; what is not named is the default of `disentangle`."""
GROWN = "+ grown"
VARIANTS: dict[str, dict[str, Any]] = {
    "over-relaxed sweeps": _PAPER | {"core": "update", "init": "identity", "relaxation": 0.5},
    "four entropic starts": {"init": "entropic"},
    "sixteen starts": {"init": "identity", "n_init": 16},
    "O(4) gates, four starts": {"init": "identity", "group": "O"},
}
IDEAS = LADDER | {GROWN: {"init": "grown"}} | VARIANTS


@dataclass(frozen=True)
class Ablation(Options):
    """Depths of the ladder, and the last depth of the circuits that grow."""

    depths: tuple[int, ...] = option((4, 8, 16), "Layers on each side.", least=1)
    deepest: int = option(32, "Layers to grow to.", least=1)
    variants: bool = True
    explore: int = option(20, "Sweeps of each start.", least=1)
    max_sweeps: int = option(200, "Sweeps of the best start.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.deepest < max(self.depths):
            raise ValueError(f"depths={self.depths} must end at deepest={self.deepest} or before")


def study(options: Ablation) -> Study:
    ideas = [idea for idea in IDEAS if options.variants or idea not in VARIANTS]
    return on_networks(
        overlaps,
        options,
        name="ablation",
        settings={"search": search_of(options)},
        cases=[
            {"idea": idea, "layers": layers}
            for idea in ideas
            for layers in ([options.deepest] if idea == GROWN else options.depths)
        ],
    )


def overlaps(
    *, idea: str, layers: int, seed: int, data: str, networks: str, search: dict[str, Any]
) -> dict[str, Any]:
    """One run; of circuits that grow every depth up to the last, of others the last alone."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    settings = dict(IDEAS[idea])
    left = brickwall(mpo.L, layers, group=settings.pop("group", "SO"))
    began = time.process_time()
    found = disentangle(mpo, left=left, seed=seed, **settings, **search)
    # of the processor: others may be at work on the machine
    share = (time.process_time() - began) / found.seconds
    last = {"overlap": found.overlap, "bound": found.bound, "seconds": found.seconds}
    stages = found.by_depth() if idea == GROWN else {layers: last}
    return {
        ROW: [
            {
                "depth": depth,
                "overlap": stage["overlap"],
                "bound": stage["bound"],
                "search_seconds": stage["seconds"] * share,
            }
            for depth, stage in stages.items()
        ]
    }


def _depths(frame: pd.DataFrame) -> list[int]:
    """Of the ladder."""
    return frame.query("idea != @GROWN")["depth"].unique().tolist()


def tables(frame: pd.DataFrame) -> list[Table]:
    shown = [*_depths(frame), 24, frame["depth"].max()]
    shown = frame.query("depth in @shown")
    axes = {"index": "idea", "columns": "depth", "sort": False}
    overlaps = shown.pivot_table("overlap", aggfunc=spread, **axes)
    grown = frame.query("idea == @GROWN")
    falls = (grown.groupby("seed")["overlap"].diff() < -1e-9).sum()
    columns = ["overlap", "bound", "search_seconds"]
    return [
        Table.from_dataframe(overlaps, title="overlap f by depth, median (least to most)"),
        Table.from_dataframe(
            grown.pivot_table(columns, "depth", aggfunc=spread),
            title="circuits that grow, median (least to most)",
            notes=(
                "seconds: of one core, from depth 1 on",
                f"the overlap fell {falls} times from one depth to the next",
            ),
        ),
    ]


def draw_ladder(frame: pd.DataFrame, ax: Axes) -> None:
    medians = frame.pivot_table("overlap", "idea", "depth", "median", sort=False)
    for depth in _depths(frame):
        ax.plot(1 - medians[depth], range(len(medians)), "o-", label=f"depth {depth}")
    ax.set(xscale="log", xlabel="1 - f (median)", yticks=range(len(medians)))
    ax.set_yticklabels(medians.index, fontsize="small")
    ax.invert_yaxis()
    ax.legend(fontsize="small")


def draw_growth(frame: pd.DataFrame, ax: Axes) -> None:
    curves = frame.query("idea == @GROWN").pivot_table("overlap", "depth", "seed")
    ax.plot(curves.index, 1 - curves, ".-", lw=0.8, label=[f"seed {s}" for s in curves])
    ax.set(yscale="log", xlabel="layers", ylabel="1 - f, grown")
    ax.legend(fontsize="xx-small", ncols=2)


EXPERIMENT = Experiment(
    name="ablation",
    title="Which idea brings which gain",
    options=Ablation,
    study=study,
    tabulate=tables,
    panels=(
        Panel("ideas", "What is missing to f = 1, one idea after the other.", draw_ladder),
        Panel("growth", "Circuits that grow, every network.", draw_growth),
    ),
)
