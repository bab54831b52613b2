"""Overlap against CNOTs: how few a given operator needs, and which kind of circuits needs least.

For the MPO layer of every network all families of `mpodis.pareto` are tried: brickwalls of SO(4)
gates (2 CNOTs each) and of O(4) gates (3 where the determinant is -1), CNOT scaffolds with
one-qubit gates between, CNOTs alone, brickwalls with gates taken out one by one, and the search
over where gates stand. Some circuits of every front are transpiled, to check the count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis.factorization import Factorization
from mpodis.jobs.records import spread
from mpodis.measures import second_moment
from mpodis.nn import layer_inputs
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, how_many, on_networks, search_of
from mpodis.paper.networks import dataset, network
from mpodis.plots import plot_pareto
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.resynthesis import FAMILIES, pareto
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

BUDGETS = (4, 8, 12, 16, 20, 30, 40, 60, 80)
"""Numbers of CNOTs that the table names."""


@dataclass(frozen=True)
class Pareto(Options):
    """What `mpodis.pareto` searches for, and its effort."""

    core_bond: int = option(1, "Bond of the core.", least=1)
    depths: tuple[int, ...] = option((1, 2, 4, 8), "Layers on each side.", least=1)
    families: tuple[str, ...] = option(FAMILIES, "Kinds of circuits.", choices=FAMILIES)
    starts: int = option(4, "Near-identity starts.", least=1)
    rounds: int = option(2, "Rounds of the search over places.", least=1)
    trials: int = option(3, "Removals tried at once.", least=1)
    max_sweeps: int = option(100, "Sweeps of every search.", least=1)


def study(options: Pareto) -> Study:
    names = ("depths", "families", "rounds", "trials")
    effort = {name: getattr(options, name) for name in names} | search_of(options)
    return on_networks(
        points,
        options,
        name="pareto",
        settings={"effort": effort | {"max_bond": options.core_bond}},
    )


def points(*, seed, data, data_dir, networks, effort) -> dict[str, Any]:
    """All circuits that were found; the middle and the end of the front are transpiled, too."""
    model = network(data, networks, seed)
    covariance = second_moment(layer_inputs(model, "mpo", dataset(data, data_dir).x_train))
    mpo = model.mpo.to_mpo()
    found = pareto(mpo, covariance=covariance, seed=seed, **effort)
    chosen = (found.front[len(found.front) // 2], found.front[-1])
    rows = []
    for point in found.points:
        is_chosen = any(point is one for one in chosen)
        counts = {
            backend: transpiled(point.factorization, backend, seed) if is_chosen else math.nan
            for backend in BACKENDS
        }
        rows.append(point.to_dict() | {"dominated": found.is_dominated(point)} | counts)
    return {ROW: rows}


def transpiled(given: Factorization, backend: str, seed: int) -> float:
    """Two-qubit gates of both circuits; NaN where the backend is not installed."""
    sides = (given.left, given.right)
    try:
        return sum(gate_cost(side, backend=backend, seed=seed).two_qubit for side in sides)
    except ImportError:
        return math.nan


def best(frame: pd.DataFrame, budgets: Iterable[int]) -> pd.DataFrame:
    """The circuit of least loss with up to so many CNOTs, of each network and family, and of all.

    The latter are of the family "front".
    """
    every = pd.concat([frame.assign(family="front"), frame]).sort_values("loss", kind="stable")
    return pd.concat(
        [
            every.query("cnots <= @budget").drop_duplicates(["seed", "family"]).assign(CNOTs=budget)
            for budget in budgets
        ]
    )


def shares(frame: pd.DataFrame) -> pd.DataFrame:
    """CNOTs of every SO(4) brickwall, and the fewest with which the front is as good."""
    walls = frame.query("family == 'SO(4)' and cnots > 0")[["seed", "cnots", "loss"]]
    front = frame.query("not dominated")[["seed", "cnots", "loss"]]
    pairs = walls.reset_index().merge(front, on="seed", suffixes=("_wall", ""))
    pairs = pairs.query("loss <= loss_wall").rename(columns={"cnots": "front"})
    found = pairs.pivot_table("front", ["cnots_wall", "index"], aggfunc="min").reset_index()
    return found.assign(share=found["front"] / found["cnots_wall"])


def tables(frame: pd.DataFrame) -> list[Table]:
    overlaps = best(frame, BUDGETS).pivot_table("overlap", "CNOTs", "family", spread)
    walls = shares(frame)
    fewest = walls.pivot_table("front", "cnots_wall", aggfunc=partial(spread, digits=0))
    share = walls.pivot_table("share", "cnots_wall", aggfunc=partial(spread, digits=2))
    ends = frame.dropna(subset="logical")
    names = [backend for backend in BACKENDS if backend in ends]
    same = ends[names].eq(ends["cnots"], axis="index")
    return [
        Table.from_dataframe(
            overlaps.filter(["front", *frame["family"].unique()]),
            title="overlap with up to so many CNOTs, median (least to most)",
            notes=("SO(4) stands for brickwalls of free gates, 2 CNOTs each",),
        ),
        Table.from_dataframe(
            fewest.join(share),
            title="CNOTs for what an SO(4) brickwall reaches, median (least to most)",
        ),
        Table.from_dataframe(
            same.apply(how_many).to_frame("circuits"),
            title="circuits of which as many two-qubit gates are counted after transpilation",
        ),
    ]


def draw_one(frame: pd.DataFrame, ax: Axes) -> None:
    first = frame.query("seed == seed.iloc[0]")
    plot_pareto(first.to_dict("records"), value="overlap", ax=ax)


def draw_all(frame: pd.DataFrame, ax: Axes) -> None:
    found = best(frame, range(max(frame["cnots"]) + 1))
    counts = found.pivot_table("overlap", "CNOTs", "family", "count")
    medians = found.pivot_table("overlap", "CNOTs", "family", "median")
    medians = medians.where(counts == frame["seed"].nunique())
    for k, family in enumerate((*frame["family"].unique(), "front")):
        color, lw = ("k", 2.0) if family == "front" else (f"C{k}", 1.5)
        curve = medians[family]
        ax.step(curve.index, curve, where="post", label=family, color=color, lw=lw)
    ax.set(xlabel="CNOTs of both circuits", ylabel="overlap f, median")
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="pareto",
    title="Fewest CNOTs: overlap against hardware CNOTs",
    options=Pareto,
    study=study,
    tabulate=tables,
    panels=(
        Panel("front", "All circuits of the first network; those dominated are faint.", draw_one),
        Panel("families", "Best of every family with so many CNOTs, median.", draw_all),
    ),
)
