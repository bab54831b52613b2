"""Fig. 4 of arXiv 2509.06653v1: overlap, entropy and gates against the number of layers.

Two ways beside each other. "random" is the paper's: at each depth a new run from random gates,
the core fixed at the truncated MPO, plain sweeps. "ours" updates the core, and one run to the
deepest circuit gives every depth, since circuits grow from the outermost layer.

The paper finds, and does not explain, a dip in the overlap between five and ten layers. Deep
random circuits scramble the operator: the same sweeps on U M V, with Haar-random U and V, see its
singular values and nothing else of it. Where both give the same overlap, it depends on how many
parameters the circuits have; where the random start still sees the structure of M, few suffice.
The dip is the way from the one to the other. Gates are in SO(2^n); with O(2^n) it is there too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.gates import gate_parameters, random_gate
from mpodis.jobs.records import spread
from mpodis.mpo import compress, mpo_to_dense, truncate
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, finite, on_networks
from mpodis.paper.networks import network
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

TARGET = 0.94
"""Overlap up to which the paper counts gates."""
WAYS = ("random", "ours")
VARIANTS = {
    "random": {},
    "more sweeps": {},
    "core updated": {"core": "update"},
    "L-BFGS": {"method": "lbfgs", "tol": 1e-6},
    "near identity": {"init": "identity"},
    "scrambled": {},
}
"""The paper's way, and that with one thing changed; "scrambled" has U M V in the place of M."""
AGAINST_DEPTH = ("near identity", "scrambled")
"""Variants that are run at every depth, the others only where the dip is."""


@dataclass(frozen=True)
class Fig4(Options):
    """Widths of the gates, and how long either way takes; the dip is looked into at one width."""

    widths: tuple[int, ...] = option((2, 3, 4, 5, 6), "Wires of the gates.", least=2)
    deepest: tuple[int, ...] = (12, 8, 6, 3, 1)  # layers of our circuits of each width
    depths: tuple[int, ...] = option(
        (1, 2, 3, 4, 6, 8, 10, 12, 16, 24), "Layers from random gates.", least=1
    )
    sweeps: int = option(100, "Sweeps from random gates.", least=1)
    starts: int = option(4, "Our starts.", least=1)
    max_sweeps: int = option(100, "Sweeps of ours at most.", least=1)
    dip_width: int = 4
    dip_depth: int = 6
    dip_sweeps: int = option(1000, "Sweeps of 'more sweeps'.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.widths) != len(self.deepest):
            raise ValueError(
                f"deepest={self.deepest} must hold one number of layers for each of the "
                f"widths={self.widths}"
            )
        if self.dip_width not in self.widths or self.dip_depth not in self.depths:
            raise ValueError(
                f"dip_width={self.dip_width} and dip_depth={self.dip_depth} must be among the "
                f"widths={self.widths} and the depths={self.depths}"
            )


def study(options: Fig4) -> Study:
    runs = [("random", w, d, options.sweeps) for w, d in product(options.widths, options.depths)]
    for width, layers in zip(options.widths, options.deepest, strict=True):
        runs.append(("ours", width, layers, options.max_sweeps))
    for way in [name for name in VARIANTS if name != "random"]:
        sweeps = options.dip_sweeps if way == "more sweeps" else options.sweeps
        depths = options.depths if way in AGAINST_DEPTH else [options.dip_depth]
        runs += [(way, options.dip_width, depth, sweeps) for depth in depths]
    return on_networks(
        overlaps,
        options,
        name="fig4",
        cases=[dict(zip(("way", "width", "layers", "sweeps"), run, strict=True)) for run in runs],
    )


def overlaps(*, way, width, layers, sweeps, seed, data, networks, starts) -> dict[str, Any]:
    """One run: the paper's, a variant of it, or ours, whose stages are the shallower circuits."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    left = brickwall(mpo.L, layers, width)
    search: dict[str, Any] = {"max_sweeps": sweeps, "seed": seed}
    if way == "ours":
        found = disentangle(mpo, left=left, init="grown", n_init=starts, **search)
        return {ROW: [_row(mpo.L, width, d, stage) for d, stage in found.by_depth().items()]}
    if left.n_parameters >= 2 * gate_parameters(mpo.L, "SO"):
        return {}  # as many parameters as two gates on all wires, of which one is enough
    search |= {"core": "fixed", "init": "random", "n_init": 1, "method": "sweeps", "tol": 0.0}
    if way == "scrambled":
        core = truncate(mpo, max_bond=1).mpo
        mpo, search["init"] = _scrambled(mpo, seed), _random_gates(left, core, seed)
    found = disentangle(mpo, left=left, **(search | VARIANTS[way]))
    s_avg = float(found.entropies_after.mean())
    stage = {"overlap": found.overlap, "bound": found.bound, "s_avg": s_avg}
    return {ROW: [_row(mpo.L, width, layers, stage)]}


def _row(n: int, width: int, depth: int, stage: dict) -> dict[str, Any]:
    """What is reached at a depth, and the two-qubit gates of both circuits on each device."""
    widths = [p.width for p in brickwall(n, depth, width).placements if p.width > 1]
    gates = {device: 2 * sum(_cost(w, device) for w in widths) for device in BACKENDS}
    return {"depth": depth, **{c: stage[c] for c in ("overlap", "bound", "s_avg")}, **gates}


@lru_cache
def _cost(width: int, device: str) -> float:
    """Two-qubit gates of one general gate; NaN where the device is not installed."""
    gate = random_gate(2**width, group="SO", rng=np.random.default_rng(0))
    try:
        return gate_cost(gate, backend=device).two_qubit
    except ImportError:
        return math.nan


def _scrambled(mpo, seed: int):
    """U M V for Haar-random U and V: nothing is left of M but its singular values."""
    rng = np.random.default_rng([seed, 1])
    left, right = (random_gate(2**mpo.L, group="SO", rng=rng) for _ in range(2))
    return compress(left @ mpo_to_dense(mpo) @ right).mpo


def _random_gates(left: Ansatz, core, seed: int) -> Factorization:
    """Haar-random circuits around a core, which is that of M and not of U M V."""
    rng = np.random.default_rng([seed, 2])
    circuits = [random_circuit(ansatz, seed=rng) for ansatz in (left, left.reversed())]
    return Factorization(circuits[0], core, circuits[1], (2**left.n, 2**left.n))


def reached(frame: pd.DataFrame) -> pd.DataFrame:
    """Two-qubit gates of the shallowest circuits that reach the target, infinite where none do.

    One column a device, one row a way, width and network.
    """
    devices = [device for device in BACKENDS if device in frame]
    counts = frame[devices].where(frame["overlap"] >= TARGET, math.inf)
    run = frame[["way", "width", "seed"]]
    reached = run.join(counts).pivot_table(list(counts), list(run), aggfunc="min")
    return reached.query("way in @WAYS")


def _dip(frame: pd.DataFrame) -> pd.DataFrame:
    """All variants where each was run."""
    where = frame.query("way == 'core updated'")[["width", "depth"]].drop_duplicates()
    return frame.merge(where).query("way != 'ours'")


def tables(frame: pd.DataFrame) -> list[Table]:
    curve, columns = ["width", "way", "depth"], ["overlap", "bound", "s_avg"]
    medians = frame.pivot_table(columns, curve, aggfunc="median")
    falls = medians["overlap"].groupby(curve[:2]).cummax() - medians["overlap"]
    most = falls.to_frame("fall").reset_index().sort_values("fall", kind="stable")
    gates = reached(frame)
    counts = gates.pivot_table(list(gates), ["width", "way"], aggfunc="median")
    there = gates.pivot_table(list(gates), ["width", "way"], aggfunc=finite)
    dip = _dip(frame).pivot_table("overlap", ["width", "depth", "way", "sweeps"], aggfunc=spread)
    return [
        Table.from_dataframe(
            medians,
            title="medians by depth",
            notes=(
                "random: new random gates at each depth, core fixed; ours: core updated",
                "a gate as wide as the operator needs one layer: more of them are one gate again",
            ),
        ),
        Table.from_dataframe(
            most.pivot_table(["fall", "depth"], curve[:2], aggfunc="last"),
            title="how far the median overlap falls below that of a shallower circuit, and where",
        ),
        Table.from_dataframe(
            counts.replace(math.inf, math.nan).join(there.add_suffix(", networks")),
            title=f"two-qubit gates to an overlap of {TARGET:.0%}, median over all networks",
            notes=("both circuits; a dash where half of the networks do not get there",),
        ),
        Table.from_dataframe(
            dip,
            title="where random gates dip, median overlap (least to most)",
            notes=(
                "each is the paper's way (random) with one change; ten iterations of L-BFGS "
                "count as a sweep; scrambled: U M V with Haar-random U and V in the place of M",
            ),
        ),
    ]


def draw_depth(frame: pd.DataFrame, ax: Axes, *, column: str, label: str) -> None:
    for way, style in (("ours", "o-"), ("random", "o--")):
        medians = frame.query("way == @way").pivot_table(column, "depth", "width", "median")
        for k, width in enumerate(medians):
            name = f"{width}-body" if way == "ours" else None
            ax.plot(medians[width].dropna(), style, color=f"C{k}", ms=3, lw=1.3, label=name)
    ax.plot([], [], "k--", label="random gates, core fixed")
    ax.plot([], [], "k-", label="ours, core updated")
    ax.set(xlabel="layers a side", ylabel=label)
    ax.legend(fontsize="x-small", ncols=2)


def draw_gates(frame: pd.DataFrame, ax: Axes) -> None:
    medians = reached(frame).groupby(["way", "width"]).median().replace(math.inf, math.nan)
    for way, style in zip(WAYS, ("s--", "o-"), strict=True):
        labels = [f"{way}, {device}" for device in medians]
        ax.plot(medians.loc[way], style, label=labels)
    ax.set(yscale="log", xlabel="wires of a gate", ylabel=f"two-qubit gates to f = {TARGET:.0%}")
    ax.legend(fontsize="x-small")


def draw_dip(frame: pd.DataFrame, ax: Axes) -> None:
    width = _dip(frame)["width"].iloc[0]
    medians = frame.query("width == @width").pivot_table("overlap", "depth", "way", "median")
    styles = ("C1--", "C3s", "C4v", "C2^", "C0-", "k:")
    for way, style in zip(VARIANTS, styles, strict=True):
        ax.plot(medians[way].dropna(), style, ms=5, label=way)
    ax.set(xlabel=f"layers a side of {width}-body gates", ylabel="overlap f")
    ax.legend(fontsize="x-small", loc="lower right")


EXPERIMENT = Experiment(
    name="fig4",
    title="Overlap, entropy and gates against the number of layers (Fig. 4)",
    options=Fig4,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "overlap",
            "Overlap against depth, medians.",
            partial(draw_depth, column="overlap", label="overlap f"),
        ),
        Panel(
            "entropy",
            "Average bond entropy that the circuits leave, medians.",
            partial(draw_depth, column="s_avg", label=r"$S_{avg}$ (nats)"),
        ),
        Panel(
            "gates",
            "Two-qubit gates to the paper's overlap, medians; none where half do not get there.",
            draw_gates,
        ),
        Panel(
            "dip",
            "Why random gates dip: there they do no better than on an operator of which only the "
            "singular values are left.",
            draw_dip,
        ),
    ),
)
