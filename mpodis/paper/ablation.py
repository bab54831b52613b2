"""Which idea brings which gain: the paper's recipe, and ours put on top of it one by one.

2-body gates and a product core throughout. The ladder begins with random gates, the truncated
core and plain sweeps; every step adds one idea and keeps the others. The last one, circuits that
grow, is a single run whose stages give every depth. Variants change one thing at its end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.jobs.records import spread
from mpodis.paper.base import Experiment, Options, Panel, Piece
from mpodis.paper.networks import network
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
GROWTH: dict[str, Any] = {"init": "grown"}
VARIANTS: dict[str, dict[str, Any]] = {
    "over-relaxed sweeps": _PAPER | {"core": "update", "init": "identity", "relaxation": 0.5},
    "four entropic starts": {"init": "entropic"},
    "sixteen starts": {"init": "identity", "n_init": 16},
    "O(4) gates, four starts": {"init": "identity", "group": "O"},
}
CNOTS = 2
"""Of a gate in SO(4), at most; one of determinant -1 takes 3."""


@dataclass(frozen=True)
class Ablation(Options):
    """Depths of the ladder, and the last depth of the circuits that grow."""

    depths: tuple[int, ...] = (4, 8, 16)
    deepest: int = 32
    variants: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.depths or min(self.depths) < 1 or self.deepest < max(self.depths):
            raise ValueError(f"depths={self.depths} must lie between 1 and deepest={self.deepest}")


def pieces(options: Ablation) -> list[Piece]:
    same = {"data": options.data, "networks": options.networks}
    found = [
        Piece(f"seed{seed}-grown", _grown, same | {"seed": seed, "depth": options.deepest})
        for seed in options.range
    ]
    rows = LADDER | (VARIANTS if options.variants else {})
    for number, (idea, settings) in enumerate(rows.items()):
        for depth in options.depths:
            found += [
                Piece(
                    f"seed{seed}-idea{number}-depth{depth}",
                    _one,
                    same | {"seed": seed, "depth": depth, "idea": idea, "settings": settings},
                )
                for seed in options.range
            ]
    return found


def _one(*, data: str, networks: str, seed: int, depth: int, idea: str, settings: dict) -> dict:
    mpo = network(data, networks, seed).mpo.to_mpo()
    options = dict(settings)
    left = brickwall(mpo.L, depth, group=options.pop("group", "SO"))
    began = time.process_time()
    found = disentangle(mpo, left=left, seed=seed, **options)
    spent = time.process_time() - began
    row = {"overlap": found.overlap, "bound": found.bound, "seconds": spent}
    return {"seed": seed, "idea": idea, "depths": {depth: row}}


def _grown(*, data: str, networks: str, seed: int, depth: int) -> dict:
    mpo = network(data, networks, seed).mpo.to_mpo()
    began = time.process_time()
    found = disentangle(mpo, left=brickwall(mpo.L, depth), seed=seed, **GROWTH)
    # of the processor: others may be at work on the machine
    share = (time.process_time() - began) / found.seconds
    best = {
        at: {name: row[name] for name in ("overlap", "bound")} | {"seconds": row["seconds"] * share}
        for at, row in found.by_depth().items()
    }
    return {"seed": seed, "idea": GROWN, "depths": best}


def _column(record: dict, idea: str, depth: int, name: str) -> list[float]:
    rows = [row["depths"] for row in record["pieces"].values() if row["idea"] == idea]
    return [row[str(depth)][name] for row in rows if str(depth) in row]


def _ideas(record: dict) -> list[str]:
    there = {row["idea"] for row in record["pieces"].values()}
    return [idea for idea in (*LADDER, GROWN, *VARIANTS) if idea in there]


def _depths(record: dict) -> list[int]:
    return sorted(
        {*record["options"]["depths"], record["options"]["deepest"]}
        | {d for d in (24,) if d < record["options"]["deepest"]}
    )


def tables(record: dict) -> list[Table]:
    depths = _depths(record)
    rows = []
    for idea in _ideas(record):
        cells = [_column(record, idea, depth, "overlap") for depth in depths]
        rows.append((idea, *(spread(cell) if cell else None for cell in cells)))
    seconds = []
    for idea in _ideas(record):
        cells = [_column(record, idea, depth, "seconds") for depth in depths]
        seconds.append((idea, *(median(cell) if cell else None for cell in cells)))
    bounds = [_column(record, GROWN, depth, "bound") for depth in depths]
    rows.append(("bound of the grown ones", *map(spread, bounds)))
    names = [f"depth {d}" for d in depths]
    return [
        Table(("idea", *names), rows, title="overlap f, median (least to most)"),
        Table(
            ("idea", *names),
            seconds,
            title="seconds of one core, median",
            notes=("grown: from depth 1 to this one",),
        ),
    ]


def _draw_ladder(record: dict, ax: Axes) -> Axes:
    ideas = _ideas(record)
    for k, depth in enumerate(record["options"]["depths"]):
        values = [1 - median(_column(record, idea, depth, "overlap")) for idea in ideas]
        ax.plot(values, range(len(ideas)), "o-", color=f"C{k}", label=f"depth {depth}")
    ax.set(xscale="log", xlabel="1 - f (median)", yticks=range(len(ideas)))
    ax.set_yticklabels(ideas, fontsize="small")
    ax.invert_yaxis()
    ax.legend(fontsize="small")
    return ax


def _draw_growth(record: dict, ax: Axes) -> Axes:
    rows = [row for row in record["pieces"].values() if row["idea"] == GROWN]
    for row in rows:
        depths = sorted(map(int, row["depths"]))
        values = [1 - row["depths"][str(d)]["overlap"] for d in depths]
        ax.plot(depths, values, ".-", lw=0.8, label=f"seed {row['seed']}")
    ax.set(yscale="log", xlabel="layers", ylabel="1 - f, grown")
    ax.legend(fontsize="xx-small", ncols=2)
    return ax


def finding(record: dict) -> str:
    depth = record["options"]["depths"][-1]
    ideas = [idea for idea in _ideas(record) if idea not in VARIANTS]
    levels = [median(_column(record, idea, depth, "overlap")) for idea in ideas]
    steps = "; ".join(f"{idea} {f:.3f}" for idea, f in zip(ideas, levels, strict=True))
    gains = {b: y - x for b, x, y in zip(ideas[1:], levels, levels[1:], strict=False)}
    most = max(gains, key=lambda idea: gains[idea])
    deep = _column(record, GROWN, record["options"]["deepest"], "overlap")
    falls = sum(
        row["depths"][str(d + 1)]["overlap"] < row["depths"][str(d)]["overlap"] - 1e-9
        for row in record["pieces"].values()
        if row["idea"] == GROWN
        for d in range(1, record["options"]["deepest"])
        if str(d + 1) in row["depths"]
    )
    return (
        f"Median overlap at depth {depth}, one idea after the other: {steps}. The largest single "
        f"gain is that of '{most}' (+{gains[most]:.3f}). Circuits that grow reach "
        f"{median(deep):.4f} at depth {record['options']['deepest']}, and their overlap fell "
        f"from one depth to the next {falls} times over all networks."
    )


EXPERIMENT = Experiment(
    name="ablation",
    title="Which idea brings which gain",
    options=Ablation,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel("ideas", "What is missing to f = 1, one idea after the other.", _draw_ladder),
        Panel("growth", "Circuits that grow, every network.", _draw_growth),
    ),
)
