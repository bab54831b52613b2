"""The wide network of `dense`: 784-256-64-10 on whole images, both hidden layers replaced in turn.

Each layer keeps a share of its weights: circuits at most that, the others at least. At small shares
the next size of an MPO is far off, so that it is fitted at most and at least as large, and compared
where the circuits' parameters lie between the two. Circuits have as many layers as pay, which may
be none: then the core alone is left. The second layer is fitted to what it receives from the first
one replaced. Healing is one epoch in which the
replaced matrices stay and all else, the biases and the last layer, is trained: the same numbers
for every method.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from torch import nn

from mpodis.baselines import bond_for, mpo_parameters, rank_for
from mpodis.conventions import qubit_legs
from mpodis.data import Dataset
from mpodis.experiments.reproduce.base import Piece, spread
from mpodis.experiments.reproduce.networks import dataset, trained_dense
from mpodis.experiments.standins import (
    METHODS,
    SO4,
    Effort,
    Layer,
    Place,
    StandIn,
    circuits,
    gate_count,
    leads,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.nn import DENSE_RECIPES, accuracy, train_classifier
from mpodis.order import Reordering
from mpodis.tables import Table

if TYPE_CHECKING:
    from mpodis.experiments.reproduce.dense import Dense

__all__ = ["draw", "draw_leads", "finding", "grid", "heal", "pieces", "tables"]

HIDDEN = (256, 64)
PLACES = ("0", "2")
FEW = 1 / 16
"""Below this share few parameters pay for few layers, and an MPO's next size is far off."""
SHALLOW, DEEP = (0, 1, 2, 4), (4, 8)
"""Layers of the circuits below this share and from it on; what it does not pay for is left out."""
MONARCHS = {"starts": 1, "iterations": 500}
"""Of `best_monarch`: like the circuits' sweeps, a quarter of what the small network gets."""
SCORES = ("accuracy", "healed")


def pieces(options: Dense) -> list[Piece]:
    same = {k: getattr(options, k) for k in ("data", "data_dir", "networks")}
    effort = {
        "starts": 1,
        "max_sweeps": max(1, options.max_sweeps // 4),
        "rounds": options.rounds // 3,
    }
    return [
        Piece(
            f"wide-{objective}-{method.replace(' ', '-')}-{share:.4f}{'-below' * below}-seed{seed}",
            _replaced,
            {
                **same,
                "seed": seed,
                "objective": objective,
                "method": method,
                "share": share,
                "below": below,
                "effort": effort,
            },
        )
        for objective in options.objectives
        for method in METHODS
        for share in options.shares
        for below in ((False, True) if method == METHODS[1] and share < FEW else (False,))
        for seed in options.range
    ]


def _replaced(*, data, data_dir, networks, seed, objective, method, share, below, effort) -> dict:
    size = 28 if data == "mnist" else 8
    images = dataset(data, data_dir, size=size)
    original = model = trained_dense(images, networks, seed, hidden=HIDDEN)
    found = []
    for name in PLACES:
        place = Place.of(model, name, images.x_train, objective)
        # the order of pixels is free; rows and columns as bits of their own suit an MPO
        orders = [grid(images.image_shape, HIDDEN[0])] if name == PLACES[0] else None
        found.append(_fit(place.layer, method, share, below, Effort(**effort, seed=seed), orders))
        model = place.filled(found[-1].matrix)
    return {
        "seed": seed,
        "objective": objective,
        "method": method,
        "share": share,
        "below": below,
        "data": images.note,
        "names": [one.name for one in found],
        "parameters": sum(one.parameters for one in found),
        "dense": sum(original.get_submodule(name).weight.numel() for name in PLACES),
        "losses": [one.loss for one in found],
        "original": accuracy(original, images.x_test, images.y_test),
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "healed": accuracy(heal(model, images, seed), images.x_test, images.y_test),
    }


def _fit(layer: Layer, method: str, share: float, below: bool, effort: Effort, orders) -> StandIn:
    """What a share of the weights buys; with `below`, an MPO is at most that large too."""
    shape = layer.matrix.shape
    legs, budget = qubit_legs(*shape), int(share * layer.matrix.size)
    if method == "circuits":
        found = []
        for depth in SHALLOW if share < FEW else DEEP:
            rest = budget - SO4 * gate_count(shape, depth)
            if rest >= mpo_parameters(legs, 1):
                bond = bond_for(rest, legs, below=True)
                found += circuits(layer, bond, [depth], effort, orders)
        if not found:
            raise ValueError(f"share={share} does not pay for any circuit; raise it")
        return min(found, key=lambda one: one.loss)
    if method == "plain MPO":
        return plain_mpo(layer, bond_for(budget, legs, below=below), effort, orders)
    if method == "low rank":
        return rank_matrix(layer, rank_for(budget, shape))
    return monarch_matrix(layer, budget, effort, orders=1, **MONARCHS)


def grid(image_shape: tuple[int, int], outputs: int) -> Reordering:
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


def compared(record: dict, objective: str, score: str) -> dict[float, dict[str, list[float]]]:
    """Score by share and method, seed by seed, the others' at the parameters of the circuits.

    Between two sizes it is taken along the logarithm of the parameters.
    """
    found = {share: {method: [] for method in METHODS} for share in record["options"]["shares"]}
    sizes: dict[tuple, list[tuple[int, float]]] = {}
    for piece in record["pieces"].values():
        if piece["objective"] == objective:
            key = piece["share"], piece["seed"], piece["method"]
            sizes.setdefault(key, []).append((piece["parameters"], piece[score]))
    for (share, seed, method), points in sizes.items():
        ((ours, _),) = sizes[share, seed, METHODS[0]]
        counts, values = zip(*sorted(points), strict=True)
        found[share][method].append(float(np.interp(np.log(ours), np.log(counts), values)))
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
                    "circuits: at most so many parameters; others: at least, or between two sizes "
                    f"at the parameters of the circuits (MPO below {_fraction(FEW)})",
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
            "at most" if piece["below"] or piece["method"] == METHODS[0] else "at least",
            "; ".join(piece["names"]),
            piece["parameters"],
            *piece["losses"],
        )
        for piece in record["pieces"].values()
    ]
    columns = ("objective", "method", "share", "seed", "size", "layers", "parameters")
    return Table((*columns, "loss 1", "loss 2"), rows, title="what stood in")


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
