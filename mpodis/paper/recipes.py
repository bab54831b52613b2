"""How accuracy without retraining depends on how the network was trained.

Compact TNNs of three training recipes; in each the MPO layer is replaced as in `mpodis.paper.aware`
by a product core between circuits of 2-body gates, and nothing is retrained. Beside the points of
test accuracy lost stands S_avg of the layer, the mean of its bond entropies (nats).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from scipy.stats import rankdata, spearmanr
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from mpodis.data import Dataset
from mpodis.files import save_arrays
from mpodis.jobs.records import spread
from mpodis.measures import entanglement
from mpodis.nn import CompactTNN, accuracy, train_tnn
from mpodis.nn.linear import torch_generator
from mpodis.nn.training import check_loss
from mpodis.options import NETWORK_OBJECTIVES
from mpodis.paper.aware import Aware, by_depth
from mpodis.paper.by_pieces import Experiment, Panel, Piece
from mpodis.paper.implicit import mean_spread
from mpodis.paper.networks import dataset, network, network_file
from mpodis.tables import Table

__all__ = ["EXPERIMENT", "TRAINING"]

RESAMPLES = 2000
"""Bootstrap samples behind the interval of a rank correlation."""
FLOOR = 0.05
"""Fewer points lost, or none, are drawn here on the logarithmic axis."""


@dataclass(frozen=True)
class Recipes(Aware):
    """Options of `Aware`, for networks of every recipe in `TRAINING`.

    Attributes
    ----------
    objectives : tuple of str
        Of `NETWORK_OBJECTIVES`.
    """

    objectives: tuple[str, ...] = ("activations", "sensitivity")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in MOMENTUM_RATES:
            known = ", ".join(MOMENTUM_RATES)
            raise ValueError(f"data={self.data!r} has no recipes; use one of {known}")
        if not self.objectives or not set(self.objectives) <= set(NETWORK_OBJECTIVES):
            known = ", ".join(NETWORK_OBJECTIVES)
            raise ValueError(f"objectives={self.objectives} must be some of {known}")


def _train_default(data: Dataset, seed: int) -> CompactTNN:
    return train_tnn(data, seed=seed)[0]


def _train_long(data: Dataset, seed: int) -> CompactTNN:
    return train_tnn(data, seed=seed, epochs=20, learning_rate=0.1)[0]


def _train_momentum(data: Dataset, seed: int) -> CompactTNN:
    """Stochastic gradient descent from near the identity; see `TRAINING`."""
    epochs, batch_size, noise = 10, 128, 0.1
    learning_rate = MOMENTUM_RATES[data.name]
    generator = torch_generator(seed)
    model = CompactTNN(inputs=data.features, classes=data.classes, seed=generator)
    with torch.no_grad():
        for tensor in model.mpo.site_tensors:
            tensor.normal_(0, noise, generator=generator)
            tensor[0, :, :, 0] += torch.eye(2)
    x = torch.as_tensor(data.x_train, dtype=torch.float32)
    y = torch.as_tensor(data.y_train)
    batches = math.ceil(len(x) / batch_size)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = CosineAnnealingLR(optimizer, epochs * batches)
    for epoch in range(epochs):
        loss = torch.tensor(0.0)
        for rows in torch.randperm(len(x), generator=generator).tensor_split(batches):
            optimizer.zero_grad()
            loss = cross_entropy(model(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            schedule.step()
        check_loss(loss.item(), epoch, learning_rate)
    return model.eval()


MOMENTUM_RATES = {"digits": 0.02, "mnist": 0.1}
"""First learning rate of "momentum". That of MNIST is the best of 0.02, 0.05 and 0.1 on images
held out of its training set, `validation_split(0.1, seed=0)`, seeds 10 and 11: 90.9, 93.3 and
94.1 %."""
TRAINING = {
    "default": (_train_default, "Adam, as `mpodis run` trains"),
    "long": (_train_long, "Adam, 20 epochs from a learning rate of 0.1"),
    "momentum": (
        _train_momentum,
        "SGD with Nesterov momentum 0.9, weight decay 5e-4 and batches of 128, 10 epochs; the MPO "
        "begins as the identity plus noise of 0.1",
    ),
}
"""What trains a network from data and seed, and in words."""


def pieces(options: Recipes) -> list[Piece]:
    given = {k: getattr(options, k) for k in ("data", "data_dir", "starts", "max_sweeps")}
    given |= {"networks": options.networks, "depths": list(options.depths)}
    return [
        Piece(
            f"{recipe}-seed{seed}-{objective}",
            _replaced,
            {"recipe": recipe, "seed": seed, "objective": objective, **given},
        )
        for objective in options.objectives
        for seed in options.range
        for recipe in TRAINING
    ]


def _replaced(*, recipe, networks, data, data_dir, seed, **search) -> dict:
    folder, images = str(Path(networks) / recipe), dataset(data, data_dir)
    file = network_file(folder, data, seed)
    if not file.exists():
        model = TRAINING[recipe][0](images, seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(file, {name: t.numpy() for name, t in model.state_dict().items()})
    model = network(data, folder, seed)
    found = by_depth(networks=folder, data=data, data_dir=data_dir, seed=seed, **search)
    return {
        "recipe": recipe,
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "s_avg": entanglement(model.mpo.to_mpo()).average,
        **found,
    }


def _networks(record: dict, recipe: str) -> list[dict]:
    """One piece of every network: what does not depend on the objective."""
    first = record["options"]["objectives"][0]
    return _chosen(record, recipe, first)


def _chosen(record: dict, recipe: str, objective: str) -> list[dict]:
    found = record["pieces"].values()
    return [p for p in found if (p["recipe"], p["objective"]) == (recipe, objective)]


def _lost(record: dict, recipe: str, objective: str, depth: int) -> list[tuple[float, float]]:
    """S_avg and points lost, network by network."""
    name = f"depth {depth}"
    return [
        (piece["s_avg"], row["lost"])
        for piece in _chosen(record, recipe, objective)
        for row in piece["rows"]
        if row["name"] == name
    ]


def _cases(record: dict) -> list[tuple[str, int]]:
    options = record["options"]
    return [(o, d) for o in options["objectives"] for d in options["depths"]]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Spearman's coefficient and the ends of its 95 % interval (percentile bootstrap).

    NaN for fewer than three pairs, and where all are equal in one of the two.
    """
    points = np.asarray(pairs)
    rng = np.random.default_rng(0)
    samples = points[rng.integers(len(points), size=(RESAMPLES, len(points)))]
    ranks = rankdata(samples, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        ranks /= np.linalg.norm(ranks, axis=1, keepdims=True)
    found = np.prod(ranks, axis=2).sum(axis=1)
    whole: Any = spearmanr(points) if len(points) > 2 and np.ptp(points, axis=0).all() else None
    if whole is None:
        return math.nan, math.nan, math.nan
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(whole.statistic), float(low), float(high)


def _correlation(pairs: Sequence[tuple[float, float]]) -> str:
    value, low, high = rank_correlation(pairs)
    return "-" if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def tables(record: dict) -> list[Table]:
    networks = []
    for recipe in TRAINING:
        found = _networks(record, recipe)
        scores, entropies = ([p[key] for p in found] for key in ("accuracy", "s_avg"))
        networks.append((recipe, mean_spread(scores), spread(entropies, 2)))
    rows, correlations = [], []
    for objective, depth in _cases(record):
        lost = [_lost(record, recipe, objective, depth) for recipe in TRAINING]
        together = [pair for pairs in lost for pair in pairs]
        cells = [spread([value for _, value in pairs], 1) for pairs in (*lost, together)]
        rows.append((objective, depth, *cells))
        correlations.append((objective, depth, *map(_correlation, (*lost, together))))
    return [
        Table(
            ("recipe", "test accuracy %", "S_avg"),
            networks,
            title="networks: accuracy, mean +- standard deviation, and S_avg of the layer (nats), "
            "median (least to most)",
            notes=tuple(f"{recipe}: {words}" for recipe, (_, words) in TRAINING.items()),
        ),
        Table(
            ("objective", "depth", *TRAINING, "all"),
            rows,
            title="points of test accuracy lost without retraining, median (least to most)",
        ),
        Table(
            ("objective", "depth", *TRAINING, "all"),
            correlations,
            title="rank correlation of points lost with S_avg (95 % interval)",
            notes=(f"intervals: percentiles of {RESAMPLES} bootstrap samples of the networks",),
        ),
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    objective, depths = record["options"]["objectives"][0], record["options"]["depths"]
    for marker, depth in zip("os^vDP", depths, strict=False):
        for k, recipe in enumerate(TRAINING):
            pairs = np.asarray(_lost(record, recipe, objective, depth))
            label = recipe if depth == depths[0] else None
            shown = np.maximum(pairs[:, 1], FLOOR)
            ax.plot(pairs[:, 0], shown, marker, color=f"C{k}", ms=5, alpha=0.8, label=label)
        ax.plot([], [], marker, color="0.3", ms=5, label=f"depth {depth}")
    ax.set(yscale="log", xlabel="S_avg of the layer (nats)", ylabel="points of accuracy lost")
    ax.set_title(f"under {objective}", fontsize="small")
    ax.legend(fontsize="x-small")
    return ax


def finding(record: dict) -> str:
    objectives, depths = record["options"]["objectives"], record["options"]["depths"]
    entropies = ", ".join(
        f"{spread([p['s_avg'] for p in _networks(record, recipe)], 2)} ({recipe})"
        for recipe in TRAINING
    )
    count = sum(len(_networks(record, recipe)) for recipe in TRAINING)
    sentences = []
    for objective in objectives:
        at_depths = []
        for depth in depths:
            lost = [_lost(record, recipe, objective, depth) for recipe in TRAINING]
            middle = " / ".join(f"{median(value for _, value in pairs):.1f}" for pairs in lost)
            together = [pair for pairs in lost for pair in pairs]
            at_depths.append(
                f"at depth {depth} {middle}, over all {spread([v for _, v in together], 1)}, rank "
                f"correlation with S_avg {_correlation(together)}"
            )
        sentences.append(f"under {objective} " + "; ".join(at_depths))
    return (
        f"S_avg of the layer in {count} networks of {len(TRAINING)} training recipes is, median "
        f"(least to most), {entropies}. Points of test accuracy lost without retraining, medians "
        f"of {' / '.join(TRAINING)}: {'. '.join(s[0].upper() + s[1:] for s in sentences)}."
    )


EXPERIMENT = Experiment(
    name="recipes",
    title="Accuracy without retraining, by training recipe",
    options=Recipes,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "lost",
            "Points of test accuracy lost under the first objective against S_avg; colours are "
            f"recipes, markers depths (below {FLOOR:g} drawn at {FLOOR:g}).",
            _draw,
        ),
    ),
    trains=False,
    size=8,
)
