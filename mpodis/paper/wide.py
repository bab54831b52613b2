"""The wide network of `dense`: 784-256-64-10 on whole images, both hidden layers replaced in turn.

A share of the hidden weights is kept: circuits and MPOs have at most that many parameters, low rank
and Monarch matrices at least. The second layer is fitted to what it receives from the first one
replaced. Where few parameters are left, what one layer gets is missing in the other: there every
method tries the same splits, circuits and MPOs search longer for an order, circuits try several
depths around the largest core and the next smaller one, and the network that is best on training
images counts. Healing is one epoch in which the replaced matrices stay and all else, the biases and
the last layer, is trained: the same numbers for every method.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import nn

from mpodis.conventions import qubit_legs
from mpodis.data import Dataset
from mpodis.jobs.records import spread
from mpodis.nn import DENSE_RECIPES, accuracy, train_classifier
from mpodis.paper.base import ROW, on_networks
from mpodis.paper.networks import dataset, submodule, trained_dense
from mpodis.paper.replacements import (
    METHODS,
    SO4,
    Dense,
    Effort,
    Layer,
    Replacement,
    Slot,
    circuits,
    gate_count,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.structured import Reordering, bond_for, mpo_parameters, rank_for
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["draw", "draw_leads", "grid", "heal", "study", "tables"]

HIDDEN = (256, 64)
PLACES = ("0", "2")
CIRCUITS, MPO, *_ = METHODS
FEW = 1 / 16
"""Below this share splits and depths are tried."""
SPLITS = (0.92, 0.8, 0.68)
"""Parts of few parameters that the first layer gets, at most or, of other methods, at least."""
DEPTHS, DEEP = (0, 2, 4, 8, 12), (4, 8)
"""Layers of the circuits below this share and from it on; what it does not pay for is left out."""
MONARCHS = {"n_init": 1, "iterations": 500}
"""Of `best_monarch`: like the circuits' sweeps, a quarter of what the small network gets."""
SCORES = ("accuracy", "healed")


def study(options: Dense) -> Study:
    sweeps, rounds = options.max_sweeps, options.rounds
    quick = {"starts": 1, "max_sweeps": max(1, sweeps // 4), "rounds": rounds // 3}
    patient = {"starts": 1, "max_sweeps": max(1, sweeps * 2 // 5), "rounds": rounds * 6}
    return on_networks(
        accuracies,
        options,
        name="dense",
        cases=[
            {"objective": objective, "fitted": method, "share": share}
            for objective in options.objectives
            for method in METHODS
            for share in options.shares
            if method != MPO or share >= FEW  # below they come with the circuits
        ],
        settings={"quick": quick, "patient": patient | {"between": 1}},
    )


def accuracies(
    *, objective, fitted, share, seed, data, data_dir, networks, quick, patient
) -> dict[str, Any]:
    """Both layers of one network replaced; a row for the circuits, and one for MPOs beside them."""
    images = dataset(data, data_dir, size=28)
    original = trained_dense(images, networks, seed, hidden=HIDDEN)
    effort = Effort(**(patient if share < FEW else quick), seed=seed)
    fill = Fill(images, original, objective, effort)
    if fitted == CIRCUITS and share < FEW:
        alone, found = fill.best(share)
        pairs = {CIRCUITS: found, MPO: alone}
    else:
        pairs = {fitted: fill.with_share(fitted, share)}
    return {
        "dense": fill.dense,
        "original": accuracy(original, images.x_test, images.y_test),
        ROW: [{"method": method, **_scores(pair, images, seed)} for method, pair in pairs.items()],
    }


def _scores(pair: Pair, images: Dataset, seed: int) -> dict[str, Any]:
    healed = heal(pair.model, images, seed)
    return {
        "layers": "; ".join(one.name for one in pair.found),
        "parameters": pair.parameters,
        **{f"loss_{k}": one.loss for k, one in enumerate(pair.found, start=1)},
        "accuracy": accuracy(pair.model, images.x_test, images.y_test),
        "healed": accuracy(healed, images.x_test, images.y_test),
    }


@dataclass(frozen=True)
class Pair:
    """What replaces both layers, and the network with it."""

    found: list[Replacement]
    model: nn.Module

    @property
    def parameters(self) -> int:
        return sum(one.parameters for one in self.found)


@dataclass(frozen=True)
class Fill:
    """Puts what methods make of them in the places of both layers."""

    images: Dataset
    original: nn.Module
    objective: str
    effort: Effort

    @property
    def dense(self) -> int:
        return sum(submodule(self.original, name).weight.numel() for name in PLACES)

    def with_share(self, method: str, share: float) -> Pair:
        """Every layer keeps the share of its own weights, or the common budget is split best."""
        if share >= FEW:
            sizes = [submodule(self.original, name).weight.numel() for name in PLACES]
            return self._each(method, [int(share * size) for size in sizes])
        budget = int(share * self.dense)
        tried = [self._each(method, [one, budget - one]) for one in self._limits(budget)]
        return max(tried, key=self._score)

    def _each(self, method: str, budgets: Sequence[int]) -> Pair:
        pair = Pair([], self.original)
        for number, budget in enumerate(budgets):
            place, orders = self._place(pair, number)
            one = _fit(place.layer, method, budget, self.effort, orders)
            pair = Pair([*pair.found, one], place.filled(one.matrix))
        return pair

    def best(self, share: float) -> tuple[Pair, Pair]:
        """The MPOs and the circuits that are best on training images and together keep the share.

        The split is found by the MPOs; circuits then try theirs at that split, or stay without.
        """
        budget, nothing = int(share * self.dense), Pair([], self.original)
        begun = {limit: self._alone(nothing, limit) for limit in self._limits(budget)}
        alone = {limit: self._alone(pair, budget) for limit, pair in begun.items()}
        alone = {limit: pair for limit, pair in alone.items() if pair is not None}
        if not alone:
            raise ValueError(f"share={share} does not pay for an MPO of either layer; raise it")
        limit = max(alone, key=lambda limit: self._score(alone[limit]))
        firsts = [begun[limit], *self._around(nothing, limit)]
        tried = [alone[limit], *(pair for one in firsts for pair in self._around(one, budget))]
        return alone[limit], max(tried, key=self._score)

    def _limits(self, budget: int) -> list[int]:
        return [int(split * budget) for split in SPLITS]

    def _score(self, pair: Pair) -> float:
        return accuracy(pair.model, self.images.x_train, self.images.y_train)

    def _alone(self, pair: Pair | None, budget: int) -> Pair | None:
        """The next layer replaced by an MPO, all within the budget; None where it is too small."""
        return None if pair is None else next(self._chains(pair, budget, [0]), None)

    def _around(self, pair: Pair, budget: int) -> Iterator[Pair]:
        """The next layer replaced by circuits around each of two cores."""
        return self._chains(pair, budget, DEPTHS)

    def _chains(self, pair: Pair, budget: int, depths: Sequence[int]) -> Iterator[Pair]:
        """The best depth around the largest core that the budget pays for, and the next smaller."""
        place, orders = self._place(pair, len(pair.found))
        shape, rest = place.layer.matrix.shape, budget - pair.parameters
        legs = qubit_legs(*shape)
        if rest < mpo_parameters(legs, 1):
            return
        largest = bond_for(rest, legs, below=True)
        for bond in range(largest, max(0, largest - 2), -1):
            left = rest - mpo_parameters(legs, bond)
            paid = [depth for depth in depths if SO4 * gate_count(shape, depth) <= left]
            # each depth begins at the one before, and all at the order of the core alone
            found = circuits(place.layer, bond, paid, self.effort, orders)
            one = min(found, key=lambda one: one.loss)
            yield Pair([*pair.found, one], place.filled(one.matrix))

    def _place(self, pair: Pair, number: int) -> tuple[Slot, list[Reordering] | None]:
        place = Slot.of(pair.model, PLACES[number], self.images.x_train, self.objective)
        # the order of pixels is free; rows and columns as bits of their own suit an MPO
        return place, None if number else [grid(self.images.image_shape, HIDDEN[0])]


def _fit(layer: Layer, method: str, budget: int, effort: Effort, orders) -> Replacement:
    """What so many parameters buy: circuits of at most as many, the others of at least as many."""
    shape = layer.matrix.shape
    if method == CIRCUITS:
        found = list(_each_depth(layer, budget, effort, orders))
        if not found:
            raise ValueError(f"{budget} parameters do not pay for any circuit; raise the share")
        return min(found, key=lambda one: one.loss)
    if method == MPO:
        return plain_mpo(layer, bond_for(budget, qubit_legs(*shape)), effort, orders)
    if method == "low rank":
        return rank_matrix(layer, rank_for(budget, shape))
    return monarch_matrix(layer, budget, effort, orders=1, **MONARCHS)


def _each_depth(layer: Layer, budget: int, effort: Effort, orders) -> Iterator[Replacement]:
    """Of every depth the largest core that the parameters pay for, where they pay for one."""
    shape = layer.matrix.shape
    legs = qubit_legs(*shape)
    for depth in DEEP:
        rest = budget - SO4 * gate_count(shape, depth)
        if rest >= mpo_parameters(legs, 1):
            yield from circuits(layer, bond_for(rest, legs, below=True), [depth], effort, orders)


def grid(image_shape: Sequence[int], outputs: int) -> Reordering:
    """Pixels as rows and columns of the next larger sides that are powers of two.

    What these add takes the inputs behind the pixels, see `Layer.padded`.
    """
    height, width = image_shape
    rows, columns = (1 << (side - 1).bit_length() for side in image_shape)
    spare = iter(range(height * width, rows * columns))
    order = [
        y * width + x if y < height and x < width else next(spare)
        for y in range(rows)
        for x in range(columns)
    ]
    return Reordering(np.array(order), np.arange(outputs))


def heal(model: nn.Module, images: Dataset, seed: int) -> nn.Module:
    """A copy, trained for an epoch with the replaced matrices as they are."""
    healed = copy.deepcopy(model).float()
    for name in PLACES:
        healed.get_submodule(name).weight.requires_grad_(False)
    recipe = DENSE_RECIPES[images.name, images.features]
    healed, _ = train_classifier(
        healed,
        images,
        epochs=1,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        seed=seed,
    )
    return healed


def compared(frame: pd.DataFrame, objective: str, score: str) -> pd.DataFrame:
    """Score of the methods, and "lead" of circuits over the best other, by share and seed."""
    rows = frame.query("objective == @objective")
    found = rows.pivot_table(score, ["share", "seed"], "method").filter(METHODS)
    ours, *others = METHODS
    return found.assign(lead=found[ours] - found.filter(others).max(axis=1))


def _scored(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Objective and score in words, and the comparison."""
    for objective in frame["objective"].unique():
        for score in SCORES:
            words = objective if score == "accuracy" else f"{objective}, healed"
            yield words, compared(frame, objective, score)


def _fraction(share: float) -> str:
    return str(Fraction(share).limit_denominator(1000))


def tables(frame: pd.DataFrame) -> list[Table]:
    budget = {share: int(share * frame["dense"].iloc[0]) for share in frame["share"].unique()}
    found = []
    for words, values in _scored(frame):
        table = values.groupby("share").agg(partial(spread, digits=1))
        table.insert(0, "parameters", table.index.map(budget))
        found.append(
            Table.from_dataframe(
                table.rename(index=_fraction),
                title=f"test accuracy %, {words}: median (least to most)",
                notes=(
                    "circuits: at most so many parameters; others: at least, but for the MPO "
                    f"below {_fraction(FEW)}",
                ),
            )
        )
    shown = ["objective", "method", "share", "seed", "layers", "parameters", "loss_1", "loss_2"]
    fits = frame.filter(shown).assign(share=frame["share"].map(_fraction))
    once = frame.drop_duplicates(["objective", "seed"])
    whole = once.pivot_table("original", "objective", aggfunc=partial(spread, digits=1))
    return [
        *found,
        Table.from_dataframe(fits.set_index("objective"), title="what stood in"),
        Table.from_dataframe(whole, title="accuracy % of the networks"),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    objective = frame["objective"].iloc[-1]
    for score, style in zip(SCORES, ("-", "--"), strict=True):
        middle = compared(frame, objective, score).groupby("share").median()
        for k, method in enumerate(METHODS):
            label = method if score == "accuracy" else f"{method}, healed"
            ax.plot(middle[method], "o", ls=style, color=f"C{k}", ms=4, label=label)
    _by_share(frame, ax, f"test accuracy (%), {objective}")


def draw_leads(frame: pd.DataFrame, ax: Axes) -> None:
    for words, values in _scored(frame):
        ax.plot(values.groupby("share")["lead"].median(), "o-", label=words)
    ax.axhline(0, color="0.5", lw=1)
    _by_share(frame, ax, "lead over the best other (points)")


def _by_share(frame: pd.DataFrame, ax: Axes, label: str) -> None:
    shares = frame["share"].unique().tolist()
    ax.set(xscale="log", xlabel="share of the hidden weights", ylabel=label)
    ax.set_xticks(shares, [_fraction(share) for share in shares])
    ax.minorticks_off()
    ax.legend(fontsize="small")
