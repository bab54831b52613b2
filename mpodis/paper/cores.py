"""Bond dimension of the core: what it buys, and whether a detour over larger ones pays.

A larger core M' makes up for gates and costs classical parameters. For every depth, cores of
ascending bond dimension chi' from near-identity gates each ("scratch"), each from the result
before ("up"), and back again from the largest ("down"). What the way up and down reaches at the
least chi' is held against as many runs from scratch ("restarts"), and all against the MPO
truncated without any gates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis.disentangling import disentangle
from mpodis.measures import entanglement
from mpodis.mpo import Compressed, compress
from mpodis.optimise.result import Disentangled
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, how_many, on_networks, search_of
from mpodis.paper.layers import TrainedLayer, trained_layer
from mpodis.structured import truncated_mpo
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

LAYERS = {"tnn": "trained MPO", "compressed": "dense layer, compressed and healed"}
OBJECTIVES = {"overlap": "1 - f", "activations": "squared error of the activations"}
MARGIN = 0.01
"""By how much of it a loss must be lower to count as lower."""
ROUTES = ("scratch", "up", "down", "restarts")
CASE = ["layer", "objective", "core_bond", "depth"]
FIGURES = ["numbers", "cx", "overlap", "activations", "accuracy", "s_avg"]
COLUMNS = ("route", "core_bond", "numbers", "cx", "loss", *FIGURES[2:])


@dataclass(frozen=True)
class Cores(Options):
    """Bonds of the two operators and of their cores, which are below, and the effort of a run."""

    seeds: int = 3
    tnn_bond: int = option(4, "Bond of the trained MPO.", least=2)
    compress_bond: int = option(8, "Bond of the compressed layer.", least=2)
    core_bonds: tuple[int, ...] = option((1, 2, 4, 8), "Bonds of the cores.", least=1)
    depths: tuple[int, ...] = option((2, 4, 8), "Layers on each side.", least=1)
    objectives: tuple[str, ...] = option(
        tuple(OBJECTIVES), "What is minimised.", choices=tuple(OBJECTIVES)
    )
    starts: int = option(2, "Near-identity starts.", least=1)
    explore: int = option(10, "Sweeps of each start.", least=1)
    max_sweeps: int = option(40, "Sweeps of the best start.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        least, bonds = min(self.tnn_bond, self.compress_bond), list(self.core_bonds)
        if bonds != sorted(bonds) or bonds[0] >= least:
            raise ValueError(
                f"core_bonds={self.core_bonds} must ascend from below tnn_bond and compress_bond, "
                f"of which the lower is {least}"
            )


def study(options: Cores) -> Study:
    bonds = {"tnn": options.tnn_bond, "compressed": options.compress_bond}
    every = options.core_bonds
    cases = [
        {"layer": layer, "bond": bond, "core_bonds": [x for x in every if x < bond]}
        for layer, bond in bonds.items()
    ]
    return on_networks(
        routes,
        options,
        name="cores",
        cases=cases,
        grid={"objective": options.objectives, "depth": [0, *options.depths]},
        settings={"search": search_of(options)},
    )


def routes(
    *, layer, bond, core_bonds, objective, depth, seed, data, data_dir, networks, search
) -> dict[str, Any]:
    """All routes over the bond dimensions at one depth; at depth 0 the operator and truncations."""
    where = {"data": data, "data_dir": data_dir, "networks": networks}
    trained = trained_layer(layer, seed=seed, bond=bond, **where)
    operator, covariance = compress(trained.matrix), trained.covariance()
    if depth == 0:
        return {ROW: without_gates(trained, operator, core_bonds, objective)}
    same = {"left": depth, "objective": objective, "covariance": covariance, **search}

    def run(core_bond: int, start: str | Disentangled = "identity", stream: int = 0):
        return disentangle(
            operator, max_bond=core_bond, init=start, seed=seed + 1000 * stream, **same
        )

    scratch = {core_bond: run(core_bond) for core_bond in core_bonds}
    up = {core_bonds[0]: scratch[core_bonds[0]]}
    for before, core_bond in pairwise(core_bonds):
        up[core_bond] = run(core_bond, up[before])
    down = {core_bonds[-1]: up[core_bonds[-1]]}
    for before, core_bond in pairwise(core_bonds[::-1]):
        down[core_bond] = run(core_bond, down[before])
    # the way up and down is one run a bond dimension there, and one a bond dimension back
    again = [run(core_bonds[0], stream=k) for k in range(1, 2 * len(core_bonds) - 1)]
    restarts = {core_bonds[0]: min([scratch[core_bonds[0]], *again], key=lambda r: r.loss)}
    rows = []
    for route, results in zip(ROUTES, (scratch, up, down, restarts), strict=True):
        for core_bond, found in results.items():
            parts = found.factorization
            places = (*parts.left.ansatz.placements, *parts.right.ansatz.placements)
            numbers = sum(parts.parameter_counts().values())
            cx = 2 * sum(place.width == 2 for place in places)  # of a gate of SO(4)
            errors = (found.loss, found.overlap, found.activation_error)
            accuracy = trained.accuracy(parts.to_dense())
            s_avg = float(found.entropies_after.mean())
            rows.append((route, core_bond, numbers, cx, *errors, accuracy, s_avg))
    return {ROW: [dict(zip(COLUMNS, row, strict=True)) for row in rows]}


def without_gates(
    trained: TrainedLayer, operator: Compressed, core_bonds: list[int], objective: str
) -> list[dict[str, Any]]:
    """The operator, and its truncations."""
    accuracy, s_avg = trained.accuracy(trained.matrix), entanglement(operator.mpo).average
    chi = max(operator.bonds)
    rows: list[tuple] = [("operator", chi, operator.parameters, 0, 0.0, 1.0, 0.0, accuracy, s_avg)]
    weighted, covariance = objective == "activations", trained.covariance()
    for core_bond in core_bonds:
        cut = truncated_mpo(operator.mpo, core_bond, covariance=covariance, weighted=weighted)
        loss = cut.activation_error**2 if weighted else 1 - cut.overlap
        errors = (loss, cut.overlap, cut.activation_error, trained.accuracy(cut.matrix))
        rows.append(("truncated", core_bond, cut.parameters, 0, *errors, math.nan))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def best(frame: pd.DataFrame) -> pd.DataFrame:
    """Medians over the networks of each one's route of the lowest loss, one row a case."""
    least = frame.loc[frame.groupby([*CASE, "seed"], sort=False)["loss"].idxmin()]
    return least.groupby(CASE, sort=False)[FIGURES].median()


def tables(frame: pd.DataFrame) -> list[Table]:
    losses = frame.pivot_table("loss", CASE, "route", "median")
    whole = losses[["operator", "truncated", *ROUTES[:3]]].join(best(frame))
    least = frame.query("depth > 0 and core_bond == core_bond.min()")
    runs = least.pivot_table("loss", ["layer", "objective", "depth", "seed"], "route")
    pairs = [("down", "scratch"), ("scratch", "down"), ("down", "restarts"), ("restarts", "down")]
    lower = pd.DataFrame({f"{a} < {b}": runs[a] < (1 - MARGIN) * runs[b] for a, b in pairs})
    return [
        Table.from_dataframe(
            whole,
            title="loss of each route, and the figures of the best one, medians",
            notes=(
                "depth 0: the operator itself, and truncated without gates; up begins with "
                "scratch, down with up",
                "numbers: core and 6 a gate; activations: relative error; accuracy without "
                "retraining; S_avg in nats",
                f"loss: {'; '.join(f'{text} ({name})' for name, text in OBJECTIVES.items())}",
            ),
        ),
        Table.from_dataframe(
            lower.apply(how_many).to_frame("networks"),
            title="the detour over larger cores: where the loss at the least chi' is lower",
            notes=(
                "restarts: the best of as many runs from scratch as the way up and down takes",
                f"a < b: a is lower by more than {MARGIN:.0%}",
            ),
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes, *, column: str, label: str) -> None:
    first = frame.query("objective == objective.iloc[0] and route != 'operator'")
    found = best(first).reset_index()
    for layer, style in zip(LAYERS, ("o-", "s--"), strict=True):
        curves = found.query("layer == @layer").groupby("core_bond")
        for k, (core_bond, curve) in enumerate(curves):
            name = f"{LAYERS[layer].split(',')[0]}, chi' {core_bond}"
            ax.plot(curve[column], curve["overlap"], style, ms=4, color=f"C{k}", label=name)
    ax.set(xlabel=label, ylabel="overlap f")
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="cores",
    title="Bond dimension of the core",
    options=Cores,
    study=study,
    tabulate=tables,
    panels=tuple(
        Panel(
            column,
            f"Overlap against {label}, from truncation without gates on.",
            partial(draw, column=column, label=label),
        )
        for column, label in (("numbers", "parameters of core and gates"), ("cx", "CNOTs"))
    ),
)
