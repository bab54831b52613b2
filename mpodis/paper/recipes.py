"""How accuracy without retraining depends on how the network was trained.

Compact TNNs of three training recipes; in each the MPO layer is replaced as in `mpodis.paper.aware`
by a product core between circuits of 2-body gates, and nothing is retrained. Beside the points of
test accuracy lost stands S_avg of the layer, the mean of its bond entropies (nats).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from scipy.stats import rankdata, spearmanr
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from mpodis.data import Dataset
from mpodis.files import save_arrays
from mpodis.jobs.records import mean_spread, spread
from mpodis.measures import entanglement
from mpodis.nn import CompactTNN, train_tnn
from mpodis.nn.linear import torch_generator
from mpodis.nn.training import check_loss
from mpodis.options import NETWORK_OBJECTIVES, option
from mpodis.paper.aware import FLOOR, Aware, ErrorsOfLayer
from mpodis.paper.base import ROW, Experiment, Panel, on_networks
from mpodis.paper.networks import dataset, network, network_file
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT", "TRAINING"]

RESAMPLES = 2000
"""Bootstrap samples behind the interval of a rank correlation."""


@dataclass(frozen=True)
class Recipes(Aware):
    """Options of `Aware`, for networks of every recipe in `TRAINING`."""

    objectives: tuple[str, ...] = option(
        ("activations", "sensitivity"), "What is minimised.", choices=NETWORK_OBJECTIVES
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data not in MOMENTUM_RATES:
            known = ", ".join(MOMENTUM_RATES)
            raise ValueError(f"data={self.data!r} has no recipes; use one of {known}")


def _train_momentum(data: Dataset, *, seed: int) -> tuple[CompactTNN, None]:
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
    return model.eval(), None


MOMENTUM_RATES = {"digits": 0.02, "mnist": 0.1}
"""First learning rate of "momentum". That of MNIST is the best of 0.02, 0.05 and 0.1 on images
held out of its training set, `validation_split(0.1, seed=0)`, seeds 10 and 11: 90.9, 93.3 and
94.1 %."""
TRAINING = {
    "default": (train_tnn, "Adam, as `mpodis run` trains"),
    "long": (
        partial(train_tnn, epochs=20, learning_rate=0.1),
        "Adam, 20 epochs from a learning rate of 0.1",
    ),
    "momentum": (
        _train_momentum,
        "SGD with Nesterov momentum 0.9, weight decay 5e-4 and batches of 128, 10 epochs; the MPO "
        "begins as the identity plus noise of 0.1",
    ),
}
"""What trains a network (first of what is returned) from data and seed, and in words."""


def study(options: Recipes) -> Study:
    grid = {"objective": options.objectives, "recipe": list(TRAINING)}
    return on_networks(losses, options, name="recipes", grid=grid)


def losses(
    *, objective, recipe, seed, data, data_dir, networks, depths, starts, max_sweeps
) -> dict[str, Any]:
    """What is lost at each depth by a network of a recipe, which is trained unless it is there."""
    folder, images = str(Path(networks) / recipe), dataset(data, data_dir)
    file = network_file(folder, data, seed)
    if not file.exists():
        model, _ = TRAINING[recipe][0](images, seed=seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_arrays(file, {name: t.numpy() for name, t in model.state_dict().items()})
    model = network(data, folder, seed)
    layer = ErrorsOfLayer(model, images, objective)
    own = {"original": layer.original, "s_avg": entanglement(layer.mpo).average}
    rows = layer.circuits(depths, starts, max_sweeps=max_sweeps, seed=seed)
    return {**own, ROW: [{k: v for k, v in row.items() if k != "replacement"} for row in rows]}


def rank_correlation(lost: pd.Series) -> tuple[float, float, float]:
    """Spearman's coefficient of a series with its index, and the ends of its 95 % interval.

    The interval is a percentile bootstrap. NaN for fewer than three pairs, and where all are equal
    in one of the two.
    """
    points = np.stack([lost.index.to_numpy(), lost.to_numpy()], axis=1)
    if len(points) < 3 or not np.ptp(points, axis=0).all():
        return math.nan, math.nan, math.nan
    rng = np.random.default_rng(0)
    samples = points[rng.integers(len(points), size=(RESAMPLES, len(points)))]
    ranks = rankdata(samples, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        ranks /= np.linalg.norm(ranks, axis=1, keepdims=True)
    low, high = np.nanpercentile(np.prod(ranks, axis=2).sum(axis=1), [2.5, 97.5])
    whole: Any = spearmanr(points)
    return float(whole.statistic), float(low), float(high)


def correlation(lost: pd.Series) -> str:
    value, low, high = rank_correlation(lost)
    return "-" if math.isnan(value) else f"{value:.2f} ({low:.2f} to {high:.2f})"


def tables(frame: pd.DataFrame) -> list[Table]:
    once = frame.query("objective == objective.iloc[0] and depth == depth.iloc[0]")
    shown: dict[Any, Any] = {"original": mean_spread, "s_avg": spread}
    networks = once.pivot_table(list(shown), "recipe", aggfunc=shown, sort=False)
    every = pd.concat([frame, frame.assign(recipe="all")]).set_index("s_avg")
    by_case = partial(every.pivot_table, "lost", ["objective", "depth"], "recipe", sort=False)
    return [
        Table.from_dataframe(
            networks,
            title="networks: accuracy, mean +- standard deviation, and S_avg of the layer (nats), "
            "median (least to most)",
            notes=tuple(f"{recipe}: {words}" for recipe, (_, words) in TRAINING.items()),
        ),
        Table.from_dataframe(
            by_case(aggfunc=spread),
            title="points of test accuracy lost without retraining, median (least to most)",
        ),
        Table.from_dataframe(
            by_case(aggfunc=correlation),
            title="rank correlation of points lost with S_avg (95 % interval)",
            notes=(f"intervals: percentiles of {RESAMPLES} bootstrap samples of the networks",),
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    found = frame.query("objective == objective.iloc[0]")
    by_case = found.assign(lost=found["lost"].clip(lower=FLOOR)).groupby(["depth", "recipe"])
    for marker, depth in zip("os^vDP", found["depth"].unique(), strict=False):
        for k, recipe in enumerate(TRAINING):
            points = by_case.get_group((depth, recipe))
            label = f"{recipe}, depth {depth}"
            ax.plot(points["s_avg"], points["lost"], marker, color=f"C{k}", ms=5, label=label)
    ax.set(yscale="log", xlabel="S_avg of the layer (nats)", ylabel="points of accuracy lost")
    ax.legend(fontsize="xx-small")


EXPERIMENT = Experiment(
    name="recipes",
    title="Accuracy without retraining, by training recipe",
    options=Recipes,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "lost",
            "Points of test accuracy lost under the first objective against S_avg; colours are "
            f"recipes, markers depths (below {FLOOR:g} drawn at {FLOOR:g}).",
            draw,
        ),
    ),
    trains=False,
    size=8,
)
