"""Dense networks: accuracy against parameters with hidden layers replaced, nothing retrained.

Circuits around a core stand beside a plain MPO, low rank and Monarch matrices. All are fitted to
the same distance, weighted by moments of the training images, all leave the mean input to the
bias, and all are chosen by that distance alone. There are two recipes, the same for all: neurons
stay in the order given, or their order is searched in turn with the fits. Gates of SO(4) are
counted at six numbers, their dimension, of which four are independent where others follow; so
circuits are shown, too, at the four angles that they need as CNOTs and rotations, and with gates
that stand at two places each and are stored once.

The small network is 64-64-10 on 8x8 images, its first layer replaced; the wide one, 784-256-64-10,
is the subject of `wide`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.jobs.records import spread
from mpodis.nn import accuracy
from mpodis.paper import wide
from mpodis.paper.base import ROW, Experiment, Panel, on_networks
from mpodis.paper.networks import dataset, trained_dense
from mpodis.paper.replacements import (
    METHODS,
    Dense,
    Effort,
    Replacement,
    Slot,
    circuits,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.structured import Reordering
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

OURS, *OTHERS = METHODS
MPO, RANK, MONARCH = OTHERS
MIRRORED = "circuits, mirrored gates"
OURS_GIVEN, MPO_GIVEN = "circuits, order given", "MPO, order given"
KINDS = (MIRRORED, OURS, OURS_GIVEN)
"""Forms of circuits, the most economical ones first."""
BUDGETS = (100, 150, 200, 250, 300, 400, 550, 800, 1100, 1500, 2000, 3000)
"""Parameters at which methods are compared."""


@dataclass(frozen=True)
class Case:
    """What is compared with what.

    Attributes
    ----------
    ours : str
    others : tuple of str
    count : {"parameters", "thrifty"}
        How the parameters of our circuits are counted, see `Replacement`.
    """

    ours: str
    others: tuple[str, ...]
    count: str = "parameters"


CASES = {
    "order given": Case(OURS_GIVEN, (MPO_GIVEN, RANK, MONARCH)),
    "order searched": Case(OURS, (MPO, RANK, MONARCH)),
    "order searched, mirrored gates": Case(MIRRORED, (MPO, RANK, MONARCH)),
    "order searched, four angles a gate": Case(OURS, (MPO, RANK, MONARCH), "thrifty"),
}
"""Six numbers a gate unless said."""


def study(options: Dense) -> Study:
    if options.network == "wide":
        return wide.study(options)
    sizes: dict[str, Any] = dict(zip(KINDS, (options.mirrored, *[options.depths] * 2), strict=True))
    others = (options.bonds, options.ranks, options.monarchs, options.bonds)
    sizes |= dict(zip((*OTHERS, MPO_GIVEN), others, strict=True))
    cases = [
        {"objective": objective, "method": method, "core_bond": bond}
        for objective in options.objectives
        for method in sizes
        for bond in (options.cores if method in KINDS else (0,))
    ]
    effort = {name: getattr(options, name) for name in ("starts", "max_sweeps", "rounds")}
    settings = {"sizes": sizes, "effort": effort}
    return on_networks(accuracies, options, name="dense", cases=cases, settings=settings)


def accuracies(
    *, objective, method, core_bond, seed, data, data_dir, networks, sizes, effort
) -> dict[str, Any]:
    """The layer of one network replaced by one method, a row for each size."""
    images = dataset(data, data_dir)
    model = trained_dense(images, networks, seed, hidden=(images.features,))
    place = Slot.of(model, "0", images.x_train, objective)

    def score(network) -> float:
        return accuracy(network, images.x_test, images.y_test)

    given = [core_bond, *sizes[method]] if method in KINDS else sizes[method]
    found = _fits(place, method, given, Effort(**effort, seed=seed))
    return {
        "original": score(model),
        "nothing": score(place.filled(np.zeros_like(place.layer.matrix))),
        ROW: [
            {
                # networks may prefer Monarch matrices of different digits: the place tells them
                "size": f"size {k}" if method == MONARCH else one.name,
                "parameters": one.parameters,
                "thrifty": one.independent,
                "loss": one.loss,
                "accuracy": score(place.filled(one.matrix)),
            }
            for k, one in enumerate(found, start=1)
        ],
    }


def _fits(place: Slot, method: str, sizes: Sequence[int], effort: Effort) -> Iterator[Replacement]:
    layer = place.layer
    orders = None
    if method in (OURS_GIVEN, MPO_GIVEN):
        effort = replace(effort, rounds=0)
        orders = [Reordering.identity(layer.padded().matrix.shape)]
    if method in KINDS:
        bond, *depths = sizes
        yield from circuits(layer, bond, depths, effort, orders, mirrored=method == MIRRORED)
        return
    fits = {
        MPO: lambda size: plain_mpo(layer, size, effort),
        MPO_GIVEN: lambda size: plain_mpo(layer, size, effort, orders),
        RANK: lambda size: rank_matrix(layer, size),
        MONARCH: lambda size: monarch_matrix(layer, size, effort),
    }
    for size in sizes:
        yield fits[method](size)


def front(rows: pd.DataFrame, count: str = "parameters") -> pd.DataFrame:
    """Ascending in parameters, those left out that a cheaper one undercuts in loss."""
    rows = rows.sort_values([count, "loss"])
    cheaper = rows["loss"].cummin().shift(fill_value=np.inf)
    return rows.assign(cheaper=cheaper).query("loss < cheaper")


def at_most(rows: pd.DataFrame, budgets: Sequence[int], count: str = "parameters") -> np.ndarray:
    """Accuracy of the best of a front that each budget pays for; NaN where it pays for none."""
    place = np.searchsorted(rows[count], budgets, side="right") - 1
    return np.where(place < 0, np.nan, rows["accuracy"].to_numpy()[place])


def between(rows: pd.DataFrame, budgets: Sequence[int]) -> np.ndarray:
    """Accuracy at each budget, between two sizes along the logarithm of the parameters.

    Before the first size it is that of the first, behind the last that of the last.
    """
    return np.interp(np.log(budgets), np.log(rows["parameters"]), rows["accuracy"])


def compared(frame: pd.DataFrame, objective: str, case: Case) -> dict[str, pd.DataFrame]:
    """Accuracy by method, and "lead" over the best other: budgets that pay for circuits x seeds."""
    found = {}
    for method in (case.ours, *case.others):
        rows = frame.query("objective == @objective and method == @method")
        curves = {
            seed: at_most(front(each, case.count), BUDGETS, case.count)
            if method == case.ours
            else between(front(each), BUDGETS)
            for seed, each in rows.groupby("seed")
        }
        found[method] = pd.DataFrame(curves, index=pd.Index(BUDGETS, name="parameters"))
    paid = found[case.ours].notna().all(axis=1)
    best = np.max([found[method] for method in case.others], axis=0)
    found["lead"] = found[case.ours] - best
    return {method: values.loc[paid] for method, values in found.items()}


def tables(frame: pd.DataFrame) -> list[Table]:
    if "share" in frame:
        return wide.tables(frame)
    points, found = partial(spread, digits=1), []
    for objective, (name, case) in itertools.product(frame["objective"].unique(), CASES.items()):
        values = compared(frame, objective, case)
        table = pd.DataFrame({k: v.apply(points, axis=1) for k, v in values.items()})
        found.append(
            Table.from_dataframe(
                table,
                title=f"test accuracy %, {objective}, {name}: median (least to most)",
                notes=(
                    "circuits: the best they reach within the parameters; others: between their "
                    "two nearest sizes, or the first one",
                    "lead: over the best of the others, network by network; Monarch matrices try "
                    "two orders, low rank knows none",
                ),
            )
        )
    how: dict[Any, Any] = dict.fromkeys(("parameters", "thrifty", "loss"), "median")
    how |= {"accuracy": points}
    index = ["objective", "method", "size"]
    every = frame.pivot_table(list(how), index, aggfunc=how, sort=False).filter(how)
    once = frame.drop_duplicates(["objective", "seed"])
    whole = once.pivot_table(["original", "nothing"], "objective", aggfunc=points, sort=False)
    return [
        *found,
        Table.from_dataframe(every, title="all points, medians over the networks"),
        Table.from_dataframe(whole, title="accuracy % of the networks, and with W = 0"),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    if "share" in frame:
        return wide.draw(frame, ax)
    objective = frame["objective"].iloc[-1]
    steps: dict[str, Any] = {"drawstyle": "steps-post"}
    for k, method in enumerate((*KINDS, *OTHERS, MPO_GIVEN)):
        rows = frame.query("objective == @objective and method == @method")
        fronts = [front(each) for _, each in rows.groupby("seed")]
        for each in fronts:
            ax.plot(each["parameters"], each["accuracy"], color=f"C{k}", lw=0.6, alpha=0.4, **steps)
        budgets = sorted(rows["parameters"].unique().tolist())
        # NaN, which is not drawn, where not all networks have one of this size
        middle = np.median([at_most(each, budgets) for each in fronts], axis=0)
        ax.plot(budgets, middle, color=f"C{k}", lw=2, label=method, **steps)
    ax.set(xscale="log", xlabel="parameters", ylabel=f"test accuracy (%), {objective}")
    ax.legend(fontsize="small")


def draw_leads(frame: pd.DataFrame, ax: Axes) -> None:
    if "share" in frame:
        return wide.draw_leads(frame, ax)
    styles = zip(frame["objective"].unique(), ("-", "--"), strict=False)
    for (objective, style), (k, name) in itertools.product(styles, enumerate(CASES)):
        middle = compared(frame, objective, CASES[name])["lead"].median(axis=1)
        ax.plot(middle, "o", ls=style, color=f"C{k}", label=f"{objective}, {name}")
    ax.axhline(0, color="0.5", lw=1)
    ax.set(xscale="log", xlabel="parameters", ylabel="lead over the best other (points)")
    ax.set_xticks(BUDGETS[1::2], [f"{budget:,}" for budget in BUDGETS[1::2]])
    ax.minorticks_off()
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="dense",
    title="Dense networks: accuracy against parameters",
    options=Dense,
    study=study,
    tabulate=tables,
    panels=(
        Panel("accuracy", "Accuracy with what the parameters buy; thin lines are networks.", draw),
        Panel("lead", "Median lead of circuits over the best other method.", draw_leads),
    ),
    trains=False,
)
