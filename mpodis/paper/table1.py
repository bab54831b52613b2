"""Table 1 of arXiv 2509.06653v1: how far one layer of n-body gates on each side goes.

The paper keeps the core at the truncated MPO; here the same with the core updated in every sweep,
too, and gates of either determinant (O(2^n), as the paper has them) beside those of determinant 1,
of which one of two wires costs 2 CX instead of 3. Where n does not divide the sites, two
half-shifted layers are allowed, as one would never couple what is left over with the rest; where
it does, a layer may also be the shifted one, on either side. Gates as wide as the operator have an
optimum in closed form, which the search from near the identity comes close to but slowly: the
core's small singular values weigh so little.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz, brickwall, circuit_group
from mpodis.disentangling import disentangle
from mpodis.jobs.records import spread
from mpodis.measures import von_neumann_bound
from mpodis.mpo import truncate
from mpodis.options import option
from mpodis.paper.base import Experiment, Options, Panel, on_networks, search_of
from mpodis.paper.networks import network
from mpodis.structured import full_width_gates
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

PAPER = {2: 62, 3: 72, 4: 81, 5: 93, 6: 96}
"""Overlap in percent as published, one network."""
CORES = ("fixed", "update")
GROUPS = ("O", "SO")


@dataclass(frozen=True)
class Table1(Options):
    """Which gates, and how hard every layout is searched for."""

    widths: tuple[int, ...] = option((2, 3, 4, 5, 6), "Wires of the gates.", least=1)
    groups: tuple[str, ...] = option(GROUPS, "Groups of the gates.", registry="mpodis.gates:GROUPS")
    starts: int = option(4, "Near-identity starts.", least=1)
    max_sweeps: int = option(200, "Sweeps of the best start.", least=1)
    tol: float = option(1e-4, "Of `disentangle`.", positive=True)


def study(options: Table1) -> Study:
    return on_networks(
        best_layout,
        options,
        name="table1",
        settings={"search": search_of(options)},
        grid={"width": options.widths, "group": options.groups, "core": CORES},
    )


def best_layout(*, width, group, core, seed, data, networks, search) -> dict[str, Any]:
    """The best of several layouts; `plain` is the overlap of the paper's, which is the first."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    tried = {
        name: disentangle(mpo, left=left, right=right, init="grown", core=core, seed=seed, **search)
        for name, (left, right) in layouts(mpo.L, width, group).items()
    }
    plain = next(iter(tried.values())).overlap
    if width == mpo.L:  # gates that align the singular vectors of the operator with the core's
        first = truncate(mpo, max_bond=1).mpo
        aligned = full_width_gates(mpo, first, update=core == "update", group=group, n_init=1)
        start, search = aligned.factorization, search | {"n_init": 1}
        tried["closed form"] = disentangle(
            mpo, left=start.left.ansatz, core=core, seed=seed, init=start, **search
        )
    layout, best = max(tried.items(), key=lambda item: item[1].overlap)
    circuits = best.factorization.left.ansatz, best.factorization.right.ansatz
    return {
        "layers": circuits[0].depth,
        "layout": layout,
        "plain": plain,
        "overlap": best.overlap,
        "bound": von_neumann_bound(mpo, best.factorization.core, group=circuit_group(*circuits)),
        "s_avg": float(best.entropies_after.mean()),
    }


def layouts(n: int, width: int, group: str) -> dict[str, tuple[Ansatz, Ansatz]]:
    """Left and right circuits by name, the paper's layout first."""
    if n % width:
        both = brickwall(n, 2, width, group=group)
        return {"two layers": (both, both.reversed())}
    plain = brickwall(n, 1, width, group=group)
    shifted = brickwall(n, 1, width, parity=1, group=group)
    if width == n:
        return {"plain": (plain, plain)}
    return {
        "plain": (plain, plain),
        "shifted": (shifted, shifted),
        "left shifted": (shifted, plain),
        "right shifted": (plain, shifted),
    }


def percent(overlaps: pd.Series) -> str:
    return spread(list(100 * overlaps), 1)


def tables(frame: pd.DataFrame) -> list[Table]:
    last = {
        "largest gap": (100 * (frame["bound"] - frame["overlap"])).clip(lower=0),
        "paper %": [PAPER.get(width) for width in frame["width"]],
    }
    frame = frame.assign(gates=frame["width"].astype(str) + "-body", **last)
    case, names = ["gates", "group", "layers", "core"], ["plain", "overlap", "bound"]
    found = frame.pivot_table(names, case, aggfunc=percent, sort=False).filter(names)
    found.columns = ["plain %", "best %", "bound %"]
    return [
        Table.from_dataframe(
            found.join(frame.pivot_table(list(last), case, aggfunc="max", sort=False)),
            title="overlap with the product core, median (least to most)",
            notes=(
                "group: O, gates of determinant 1 and -1, as in the paper; SO, of determinant 1",
                "plain: the layout of the paper, from near the identity",
                "best: of all layouts and, for gates as wide as the operator, the closed form",
                "bound, largest gap: of the best; the largest of all networks, in points",
            ),
        )
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    groups = list(frame["group"].unique())
    kinds = list(product(CORES, groups))
    for k, (core, group) in enumerate(kinds):
        each = frame.query("core == @core and group == @group")
        where = each["width"] + 0.18 * (k - (len(kinds) - 1) / 2)
        color, label = f"C{CORES.index(core)}", f"core {core}, {group} gates"
        face = color if group == groups[0] else "none"
        ax.plot(where, 100 * each["bound"], "_", color=color, ms=9, alpha=0.35)
        ax.plot(where, 100 * each["overlap"], "o", c=color, mfc=face, alpha=0.8, label=label)
    widths = frame["width"].unique().tolist()
    ax.plot([], [], "k_", ms=9, alpha=0.35, label="bounds")
    ax.plot(widths, [PAPER.get(w, float("nan")) for w in widths], "k*", ms=9, label="paper")
    ax.set(xlabel="wires of a gate", ylabel="overlap f (%)", xticks=widths)
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="table1",
    title="Overlap by the width of the gates (Table 1)",
    options=Table1,
    study=study,
    tabulate=tables,
    panels=(Panel("overlap", "Overlap of every network beside its bound.", draw),),
)
