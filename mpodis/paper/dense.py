"""Dense networks: accuracy against parameters with hidden layers replaced, nothing retrained.

Circuits around a core stand beside a plain MPO, low rank and Monarch matrices. All are fitted to
the same distance, weighted by moments of the training images, and all leave the mean input to the
bias. Gates of SO(4) are counted at six numbers, their dimension, of which four are independent
where others follow: a rotation of a single wire behind a gate may as well be part of the next.

The small network is 64-64-10 on 8x8 images, its first layer replaced, and what is shown is chosen
by the distance alone. Neurons stay in the order given, or their order is searched in turn with the
fits; gates stand at one place each, or at two and are stored once.

The wide network is 784-256-64-10 on whole images, both hidden layers replaced in turn. A share of
the hidden weights is kept: circuits have at most that many parameters, the others at least. Where
few parameters are left, what one layer gets is missing in the other: there every method tries the
same splits, MPOs have at most so many parameters, too, circuits and MPOs search longer for an
order, circuits try several depths around the largest core and the next smaller one, and the
network that is best on training images counts. Healing is one epoch in which the replaced matrices
stay and all else, the biases and the last layer, is trained: the same numbers for every method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import nn

from mpodis.conventions import qubit_legs
from mpodis.data import Dataset
from mpodis.jobs.records import spread
from mpodis.nn import DENSE_RECIPES, accuracy, train_classifier
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import HIDDEN_LAYERS, HIDDEN_WIDTHS, dataset, submodule, trained_dense
from mpodis.paper.replacements import (
    METHODS,
    SO4,
    Effort,
    Layer,
    Orders,
    circuits,
    gate_count,
    slot,
    without_gates,
)
from mpodis.structured import Approximation, Reordering, bond_for, mpo_parameters, rank_for
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

CIRCUITS, MPO, RANK, MONARCH = METHODS
MIRRORED, INDEPENDENT = "circuits, mirrored gates", "circuits, four numbers a gate"
CIRCUITS_GIVEN, MPO_GIVEN = "circuits, order given", "MPO, order given"
BUDGETS = (100, 150, 200, 250, 300, 400, 550, 800, 1100, 1500, 2000, 3000)
"""Parameters at which methods are compared for the small network."""
SMALL = {
    "order given": (CIRCUITS_GIVEN, MPO_GIVEN, RANK, MONARCH),
    "order searched": METHODS,
    "mirrored gates": (MIRRORED, MPO, RANK, MONARCH),
    "four numbers a gate": (INDEPENDENT, MPO, RANK, MONARCH),
}
WIDE = {"as fitted": METHODS, "healed": tuple(f"{method}, healed" for method in METHODS)}
"""What is compared of each network: circuits, with the others."""
SMALL_SHARE = 1 / 16
"""Share of the weights of the wide network below which splits and depths are tried."""
SPLITS = (0.92, 0.8, 0.68)
"""Parts of a small share that the first layer gets, at most or, of other methods, at least."""
DEPTHS, SMALL_SHARE_DEPTHS = (4, 8), (0, 2, 4, 8, 12)
"""Layers of the circuits, of a small share others; what the share does not pay for is left out."""
MONARCHS = {"n_init": 1, "max_iterations": 500, "turns": 1}
"""Like the circuits' sweeps, a quarter of what the small network gets."""


@dataclass(frozen=True)
class Dense(Options):
    """What replaces the layers of which network, and the effort of each fit."""

    seeds: int = 5
    network: str = option("small", "Which of the two networks.", choices=("small", "wide"))
    objectives: tuple[str, ...] = option(
        ("activations", "sensitivity"),
        "The distance: of the activations, or weighted by the gradients of the loss.",
        choices=("activations", "sensitivity"),
    )
    cores: tuple[int, ...] = option((1, 2, 3, 4, 8, 12), "Bond dimensions of cores.", least=1)
    depths: tuple[int, ...] = option((2, 4, 5, 7, 9, 12, 16, 24), "Layers of free gates.", least=1)
    mirrored: tuple[int, ...] = option(
        (3, 4, 6, 9, 12, 16, 20, 26, 36), "Layers of gates that stand at two places.", least=1
    )
    bonds: tuple[int, ...] = option(
        (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16), "Bond dimensions of plain MPOs.", least=1
    )
    ranks: tuple[int, ...] = option(tuple(range(1, 24)), "Ranks.", least=1)
    monarchs: tuple[int, ...] = option(
        (256, 384, 512, 768, 1024, 1536, 2048), "Least parameters of Monarch matrices.", least=1
    )
    starts: int = option(4, "Starts of a fit; of the wide network one.", least=1)
    max_sweeps: int = option(60, "Sweeps; of the wide network a quarter, or two fifths.", least=1)
    rounds: int = option(6, "Orders that are tried; of the wide network a third, or six times.")
    shares: tuple[float, ...] = option(
        (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4), "Of the wide network's weights.", positive=True
    )


def study(options: Dense) -> Study:
    if options.network == "small":
        free, tied = sorted(options.depths), sorted(options.mirrored)
        sizes = {MIRRORED: tied, CIRCUITS: free, CIRCUITS_GIVEN: free, MPO: options.bonds}
        sizes |= {RANK: options.ranks, MONARCH: options.monarchs, MPO_GIVEN: options.bonds}
        cases = [
            {"objective": objective, "method": method, "core_bond": bond}
            for objective, method in product(options.objectives, sizes)
            for bond in (options.cores if method.startswith(CIRCUITS) else (0,))
        ]
        effort = {name: getattr(options, name) for name in ("starts", "max_sweeps", "rounds")}
        effort |= {"between": max(1, options.max_sweeps // 5)}
        settings = {"sizes": sizes, "effort": effort}
        return on_networks(one_layer, options, name="dense", cases=cases, settings=settings)
    cases = [
        {"objective": objective, "fitted": method, "share": share}
        for objective, method, share in product(options.objectives, METHODS, options.shares)
        if method != MPO or share >= SMALL_SHARE  # below they come with the circuits
    ]
    return on_networks(both_layers, options, name="dense", cases=cases)


# --- the small network


def one_layer(
    *, objective, method, core_bond, seed, data, data_dir, networks, sizes, effort
) -> dict[str, Any]:
    """The layer of one network replaced by one method, a row for each size."""
    images = dataset(data, data_dir)
    model = trained_dense(images, networks, seed, hidden=(images.features,))
    layer, filled = slot(model, "0", images.x_train, objective)
    score = partial(accuracy, x=images.x_test, y=images.y_test)
    found = fits(layer, method, core_bond, sizes[method], Effort(**effort, seed=seed))
    rows = []
    for k, (size, one) in enumerate(zip(sizes[method], found, strict=True), start=1):
        free = method in (CIRCUITS, CIRCUITS_GIVEN)
        dependent = 2 * gate_count(layer.matrix.shape, size) if free else 0
        row = {
            # networks may prefer Monarch matrices of different digits: the place tells them
            "size": f"size {k}" if method == MONARCH else one.name,
            "parameters": one.parameters,
            "independent": one.parameters - dependent,
            "loss": layer.loss(one.matrix),
            "accuracy": score(filled(one.matrix)),
        }
        rows.append(row)
    nothing = score(filled(np.zeros_like(layer.matrix)))
    return {"original": score(model), "nothing": nothing, ROW: rows}


def fits(
    layer: Layer, method: str, core_bond: int, sizes: Sequence[int], effort: Effort
) -> Iterator[Approximation]:
    """What one method makes of a layer at every size."""
    orders = None
    if method in (CIRCUITS_GIVEN, MPO_GIVEN):
        effort = replace(effort, rounds=0)
        orders = [Reordering.identity(layer.padded().matrix.shape)]
    if method.startswith(CIRCUITS):
        return circuits(layer, core_bond, sizes, effort, orders, mirrored=method == MIRRORED)
    form = MPO if method == MPO_GIVEN else method
    return (without_gates(layer, form, size, effort, orders) for size in sizes)


# --- the wide network

Fit = Callable[..., Iterable[Approximation]]
"""From a layer, orders to begin with, and the parameters that were spent before."""


@dataclass(frozen=True)
class Network:
    """A network, what replaces the first of its layers or both, and the losses there."""

    model: nn.Module
    found: tuple[Approximation, ...] = ()
    losses: tuple[float, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(one.parameters for one in self.found)


@dataclass(frozen=True)
class LayerReplacement:
    """Replaces both hidden layers of a network."""

    images: Dataset
    model: nn.Module
    objective: str
    effort: Effort

    def replaced(self, *fits: Fit, begun: Network | None = None) -> Iterator[Network]:
        """The layers replaced in all ways of a fit for each, the second for what it receives."""
        network = begun or Network(self.model)
        if not fits:
            yield network
            return
        number = len(network.found)
        layer, filled = slot(
            network.model, HIDDEN_LAYERS[number], self.images.x_train, self.objective
        )
        # the order of pixels is free; rows and columns as bits of their own suit an MPO
        orders = None if number else [grid(self.images.image_shape, HIDDEN_WIDTHS[0])]
        for one in fits[0](layer, orders, network.parameters):
            found, losses = (*network.found, one), (*network.losses, layer.loss(one.matrix))
            yield from self.replaced(*fits[1:], begun=Network(filled(one.matrix), found, losses))

    def by_method(self, method: str, budgets: Sequence[int]) -> Network:
        """Both layers by one method, each with a budget."""
        (found,) = self.replaced(
            *(
                partial(fit_at_budget, method=method, budget=each, effort=self.effort)
                for each in budgets
            )
        )
        return found

    def best(self, budget: int) -> tuple[Network, Network]:
        """The MPOs and the circuits that are best on training images and together keep the budget.

        The split is found by the MPOs; circuits then try theirs at that split, or stay without.
        """
        core = partial(fits_below_budget, depths=[0], bonds=1, effort=self.effort)
        hybrids = partial(fits_below_budget, depths=SMALL_SHARE_DEPTHS, bonds=2, effort=self.effort)
        alone = {
            limit: network
            for limit in self.limits(budget)
            for network in self.replaced(partial(core, budget=limit), partial(core, budget=budget))
        }
        if not alone:
            raise ValueError(f"{budget} parameters do not pay for MPOs of both layers; raise share")
        limit = max(alone, key=lambda limit: self.score(alone[limit]))
        tried = (
            self.replaced(partial(first, budget=limit), partial(hybrids, budget=budget))
            for first in (core, hybrids)
        )
        return alone[limit], max([alone[limit], *chain.from_iterable(tried)], key=self.score)

    def limits(self, budget: int) -> list[int]:
        return [int(split * budget) for split in SPLITS]

    def score(self, network: Network) -> float:
        return accuracy(network.model, self.images.x_train, self.images.y_train)


def both_layers(
    *, objective, fitted, share, seed, data, data_dir, networks, max_sweeps, rounds
) -> dict[str, Any]:
    """Both layers of one network replaced; a row for the circuits, and one for MPOs beside them."""
    images = dataset(data, data_dir, size=28)
    model = trained_dense(images, networks, seed, hidden=HIDDEN_WIDTHS)
    if share < SMALL_SHARE:
        effort = Effort(1, max(1, max_sweeps * 2 // 5), rounds * 6, between=1, seed=seed)
    else:
        sweeps = max(1, max_sweeps // 4)
        effort = Effort(1, sweeps, rounds // 3, between=max(1, sweeps // 5), seed=seed)
    replacement = LayerReplacement(images, model, objective, effort)
    sizes = [submodule(model, name).weight.numel() for name in HIDDEN_LAYERS]
    budget = int(share * sum(sizes))
    if share >= SMALL_SHARE:
        found = {fitted: replacement.by_method(fitted, [int(share * size) for size in sizes])}
    elif fitted == CIRCUITS:
        alone, best = replacement.best(budget)
        found = {CIRCUITS: best, MPO: alone}
    else:
        splits = [(limit, budget - limit) for limit in replacement.limits(budget)]
        tried = [replacement.by_method(fitted, split) for split in splits]
        found = {fitted: max(tried, key=replacement.score)}
    score = partial(accuracy, x=images.x_test, y=images.y_test)
    rows = [
        {
            "method": method,
            "layers": "; ".join(one.name for one in network.found),
            "parameters": network.parameters,
            **{f"loss_{k}": loss for k, loss in enumerate(network.losses, start=1)},
            "accuracy": score(network.model),
            "healed": score(heal(network.model, images, seed)),
        }
        for method, network in found.items()
    ]
    return {"dense": sum(sizes), "original": score(model), ROW: rows}


def fit_at_budget(
    layer: Layer, orders: Orders, spent: int, *, method: str, budget: int, effort: Effort
) -> list[Approximation]:
    """Circuits of at most so many parameters, or another form of at least so many."""
    shape = layer.matrix.shape
    legs = qubit_legs(*shape)
    if method != CIRCUITS:
        sizes = {MPO: partial(bond_for, legs=legs), RANK: partial(rank_for, shape=shape)}
        size = sizes.get(method, int)(budget)
        return [without_gates(layer, method, size, effort, orders, **MONARCHS)]
    found: list[Approximation] = []
    for depth in DEPTHS:
        rest = budget - SO4 * gate_count(shape, depth)
        if rest >= mpo_parameters(legs, 1):
            found += circuits(layer, bond_for(rest, legs, below=True), [depth], effort, orders)
    if not found:
        raise ValueError(f"{budget} parameters do not pay for any circuit; raise the share")
    return [layer.nearest(found)]


def fits_below_budget(
    layer: Layer,
    orders: Orders,
    spent: int,
    *,
    budget: int,
    depths: Sequence[int],
    bonds: int,
    effort: Effort,
) -> Iterator[Approximation]:
    """The best depth around the largest core that the budget pays for, and `bonds` - 1 smaller."""
    shape, rest = layer.matrix.shape, budget - spent
    legs = qubit_legs(*shape)
    if rest < mpo_parameters(legs, 1):
        return
    largest = bond_for(rest, legs, below=True)
    for bond in range(largest, max(0, largest - bonds), -1):
        left = rest - mpo_parameters(legs, bond)
        paid = [depth for depth in depths if SO4 * gate_count(shape, depth) <= left]
        # each depth begins at the one before, and all at the order of the core alone
        yield layer.nearest(list(circuits(layer, bond, paid, effort, orders)))


def grid(image_shape: Sequence[int], outputs: int) -> Reordering:
    """Pixels as rows and columns of the next larger sides that are powers of two.

    What these add takes the inputs behind the pixels, see `Layer.padded`.
    """
    height, width = image_shape
    order = np.full([1 << (side - 1).bit_length() for side in image_shape], -1)
    order[:height, :width] = np.arange(height * width).reshape(height, width)
    order[order < 0] = np.arange(height * width, order.size)
    return Reordering(order.ravel(), np.arange(outputs))


def heal(model: nn.Module, images: Dataset, seed: int) -> nn.Module:
    """A copy, trained for an epoch with the replaced matrices as they are."""
    healed = copy.deepcopy(model).float()
    for name in HIDDEN_LAYERS:
        submodule(healed, name).weight.requires_grad_(False)
    recipe: dict[str, Any] = vars(DENSE_RECIPES[images.name, images.features]) | {"epochs": 1}
    return train_classifier(healed, images, **recipe, seed=seed)[0]


# --- tables and figure


def front(rows: pd.DataFrame, count: str) -> pd.DataFrame:
    """Ascending in parameters, those left out that a cheaper one undercuts in loss."""
    rows = rows.sort_values([count, "loss"])
    cheaper = rows["loss"].cummin().shift(fill_value=np.inf)
    return rows.assign(cheaper=cheaper).query("loss < cheaper")


def accuracy_at_budgets(rows: pd.DataFrame, method: str) -> pd.Series:
    """Accuracy of one network at each of the budgets.

    That of the best circuits that a budget pays for, NaN where it pays for none. Of others that
    between two sizes, along the logarithm of the parameters; before the first size it is that of
    the first.
    """
    count = "independent" if method == INDEPENDENT else "parameters"
    rows = front(rows, count)
    if method.startswith(CIRCUITS):
        place = np.searchsorted(rows[count], BUDGETS, side="right") - 1
        values = np.where(place < 0, np.nan, rows["accuracy"].to_numpy()[place])
    else:
        values = np.interp(np.log(BUDGETS), np.log(rows[count]), rows["accuracy"])
    return pd.Series(values, BUDGETS)


def curves(frame: pd.DataFrame, objective: str) -> pd.DataFrame:
    """Accuracy of every method, by parameters and seed."""
    rows = frame.query("objective == @objective")
    if "share" in frame:
        rows = rows.assign(budget=(rows["share"] * rows["dense"]).astype(int))
        found = rows.pivot_table(["accuracy", "healed"], ["budget", "seed"], "method")
        values = found["accuracy"].join(found["healed"].add_suffix(", healed"))
        return values.rename_axis(["parameters", "seed"])
    found = {}
    for method in dict.fromkeys(chain.from_iterable(SMALL.values())):
        own = CIRCUITS if method == INDEPENDENT else method
        networks = rows.query(f"method == {own!r}").groupby("seed")
        found[method] = pd.concat(
            {seed: accuracy_at_budgets(each, method) for seed, each in networks}
        )
    values = pd.DataFrame(found).rename_axis(["seed", "parameters"])
    return values.swaplevel()


def compared(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """What is compared in words, the circuits first, and their "lead" over the best other."""
    cases = WIDE if "share" in frame else SMALL
    for objective in frame["objective"].unique():
        every = curves(frame, objective)
        for name, (ours, *others) in cases.items():
            values = every.filter([ours, *others])
            values["lead"] = values[ours] - values.filter(others).max(axis=1)
            values["paid"] = values[ours].notna().groupby("parameters").transform("all")
            yield f"{objective}, {name}", values.query("paid").drop(columns="paid")


def tables(frame: pd.DataFrame) -> list[Table]:
    points = partial(spread, digits=1)
    found = [
        Table.from_dataframe(
            values.groupby("parameters").agg(points),
            title=f"test accuracy %, {words}: median (least to most)",
            notes=(
                "circuits: at most so many parameters; others: between their two nearest sizes, "
                "or of the wide network the next larger one (the MPO of few parameters: smaller)",
                "lead: over the best of the others, network by network",
            ),
        )
        for words, values in compared(frame)
    ]
    if "share" in frame:
        shown = ["method", "share", "seed", "layers", "parameters", "loss_1", "loss_2"]
        fits = frame[["objective", *shown]].set_index("objective")
        found.append(Table.from_dataframe(fits, title="what stood in"))
    whole = frame.drop_duplicates("seed").filter(["original", "nothing"]).agg(points)
    title = "accuracy % of the networks, and with W = 0"
    return [*found, Table.from_dataframe(whole.to_frame("accuracy"), title=title)]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    objective = frame["objective"].iloc[-1]
    for k, (method, values) in enumerate(curves(frame, objective).items()):
        networks = values.unstack("seed")
        ax.plot(networks, color=f"C{k}", lw=0.5, alpha=0.4)
        middle = networks.median(axis=1, skipna=False)
        ax.plot(middle, "o-", color=f"C{k}", ms=4, lw=2, label=method)
    _finish(frame, ax, f"test accuracy (%), {objective}")


def draw_leads(frame: pd.DataFrame, ax: Axes) -> None:
    for words, values in compared(frame):
        ax.plot(values["lead"].groupby("parameters").median(), "o-", label=words)
    ax.axhline(0, color="0.5", lw=1)
    _finish(frame, ax, "lead over the best other (points)")


def _finish(frame: pd.DataFrame, ax: Axes, label: str) -> None:
    ticks = curves(frame, frame["objective"].iloc[0]).index.unique("parameters")[::2]
    ax.set(xscale="log", xlabel="parameters", ylabel=label)
    ax.set_xticks(ticks, [f"{budget:,}" for budget in ticks])
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
