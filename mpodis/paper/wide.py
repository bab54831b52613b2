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
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from torch import nn

from mpodis.conventions import qubit_legs
from mpodis.data import Dataset
from mpodis.jobs.records import spread
from mpodis.nn import DENSE_RECIPES, accuracy, train_classifier
from mpodis.paper.by_pieces import Options, Piece
from mpodis.paper.networks import dataset, submodule, trained_dense
from mpodis.paper.replacements import (
    METHODS,
    SO4,
    Effort,
    Layer,
    Replacement,
    Slot,
    circuits,
    gate_count,
    leads,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.structured import Reordering, bond_for, mpo_parameters, rank_for
from mpodis.tables import Table

__all__ = ["draw", "draw_leads", "finding", "grid", "heal", "pieces", "tables"]

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


def pieces(
    options: Options,
    *,
    objectives: Sequence[str],
    shares: Sequence[float],
    max_sweeps: int,
    rounds: int,
) -> list[Piece]:
    same = {k: getattr(options, k) for k in ("data", "data_dir", "networks")}
    quick = {
        "starts": 1,
        "max_sweeps": max(1, max_sweeps // 4),
        "rounds": rounds // 3,
    }
    patient = {
        "starts": 1,
        "max_sweeps": max(1, max_sweeps * 2 // 5),
        "rounds": rounds * 6,
        "between": 1,
    }
    return [
        Piece(
            f"wide-{objective}-{method.replace(' ', '-')}-{share:.4f}-seed{seed}",
            _replaced,
            {
                **same,
                "seed": seed,
                "objective": objective,
                "method": method,
                "share": share,
                "effort": patient if share < FEW else quick,
            },
        )
        for objective in objectives
        for method in METHODS
        for share in shares
        for seed in options.range
        if method != MPO or share >= FEW  # below they come with the circuits
    ]


def _replaced(*, data, data_dir, networks, seed, objective, method, share, effort) -> dict:
    size = 28 if data == "mnist" else 8
    images = dataset(data, data_dir, size=size)
    original = trained_dense(images, networks, seed, hidden=HIDDEN)
    fill = Fill(images, original, objective, Effort(**effort, seed=seed))
    piece = {
        "seed": seed,
        "objective": objective,
        "method": method,
        "share": share,
        "data": images.note,
        "dense": fill.dense,
        "original": accuracy(original, images.x_test, images.y_test),
    }
    if method == CIRCUITS and share < FEW:
        alone, found = fill.best(share)
        return piece | _scores(found, images, seed) | {"alone": _scores(alone, images, seed)}
    return piece | _scores(fill.with_share(method, share), images, seed)


def _scores(pair: Pair, images: Dataset, seed: int) -> dict:
    healed = heal(pair.model, images, seed)
    return {
        "names": [one.name for one in pair.found],
        "parameters": pair.parameters,
        "losses": [one.loss for one in pair.found],
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


def _rows(record: dict) -> Iterator[dict]:
    """The pieces, and the MPOs that came with circuits."""
    for piece in record["pieces"].values():
        yield piece
        if "alone" in piece:
            yield piece | piece["alone"] | {"method": MPO}


def compared(record: dict, objective: str, score: str) -> dict[float, dict[str, list[float]]]:
    """Score by share and method, seed by seed."""
    found = {share: {method: [] for method in METHODS} for share in record["options"]["shares"]}
    for piece in _rows(record):
        if piece["objective"] == objective:
            found[piece["share"]][piece["method"]].append(piece[score])
    return found


def _cases(record: dict) -> Iterator[tuple[str, str, str]]:
    """Objective, score, and both in words."""
    for objective in record["options"]["objectives"]:
        for score in SCORES:
            yield objective, score, objective if score == "accuracy" else f"{objective}, healed"


def _fraction(share: float) -> str:
    return str(Fraction(share).limit_denominator(1000))


def tables(record: dict) -> list[Table]:
    first = next(iter(record["pieces"].values()))
    original = {p["seed"]: p["original"] for p in record["pieces"].values()}
    found = []
    for objective, score, words in _cases(record):
        rows = [
            (
                _fraction(share),
                int(share * first["dense"]),
                *(spread(columns[method], 1) for method in METHODS),
                spread(leads(columns), 1),
            )
            for share, columns in compared(record, objective, score).items()
        ]
        found.append(
            Table(
                ("share", "parameters", *METHODS, "lead"),
                rows,
                title=f"test accuracy %, {words}: median (least to most)",
                notes=(
                    "circuits: at most so many parameters; others: at least, but for the MPO "
                    f"below {_fraction(FEW)}",
                    f"unreplaced: {spread(list(original.values()), 1)} %",
                    first["data"],
                ),
            )
        )
    return [*found, _fits(record)]


def _fits(record: dict) -> Table:
    """What stood in for the layers."""
    rows = [
        (
            *(piece[key] for key in ("objective", "method")),
            _fraction(piece["share"]),
            piece["seed"],
            "at most" if _is_capped(piece) else "at least",
            "; ".join(piece["names"]),
            piece["parameters"],
            *piece["losses"],
        )
        for piece in _rows(record)
    ]
    columns = ("objective", "method", "share", "seed", "size", "layers", "parameters")
    return Table((*columns, "loss 1", "loss 2"), rows, title="what stood in")


def _is_capped(piece: dict) -> bool:
    return piece["method"] == CIRCUITS or (piece["method"] == MPO and piece["share"] < FEW)


def finding(record: dict) -> str:
    sentences = []
    for objective, score, words in _cases(record):
        found = compared(record, objective, score)
        middle = {share: median(leads(columns)) for share, columns in found.items()}
        each = ", ".join(f"{lead:+.1f} at {_fraction(share)}" for share, lead in middle.items())
        sentences.append(f"under {words}: {each}")
    return (
        "Points by which circuits are ahead of the best other method (medians over "
        f"{len(record['seeds'])} networks) at a share of the hidden weights, "
        + "; ".join(sentences)
        + "."
    )


def draw(record: dict, ax: Axes) -> Axes:
    objective = record["options"]["objectives"][-1]
    for score, style in zip(SCORES, ("-", "--"), strict=True):
        found = compared(record, objective, score)
        for k, method in enumerate(METHODS):
            middle = [median(columns[method]) for columns in found.values()]
            label = method if score == "accuracy" else f"{method}, healed"
            ax.plot(list(found), middle, "o", ls=style, color=f"C{k}", ms=4, label=label)
    ax.set(xlabel="share of the hidden weights", ylabel=f"test accuracy (%), {objective}")
    return _by_share(record, ax)


def draw_leads(record: dict, ax: Axes) -> Axes:
    for objective, score, words in _cases(record):
        found = compared(record, objective, score)
        ax.plot(list(found), [median(leads(c)) for c in found.values()], "o-", label=words)
    ax.axhline(0, color="0.5", lw=1)
    ax.set(xlabel="share of the hidden weights", ylabel="lead over the best other (points)")
    return _by_share(record, ax)


def _by_share(record: dict, ax: Axes) -> Axes:
    shares = record["options"]["shares"]
    ax.set_xscale("log")
    ax.set_xticks(shares, [_fraction(share) for share in shares])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return ax
