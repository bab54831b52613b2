"""Networks whose circuits and cores are trained by the loss (Sec. V): what Tables 3 and 5 share.

Every row of a table is trained on the same images by the same recipe. With ``validate=true`` a
tenth of the training images is held out in the place of the test images: settings are chosen
there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from mpodis.jobs.records import mean_spread, spread
from mpodis.measures import entanglement
from mpodis.nn import HybridLinear, MPOLinear, accuracy, train_classifier
from mpodis.nn.linear import torch_generator
from mpodis.nn.paper_networks import ARCHITECTURES
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import single_precision
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["Implicit", "experiment"]

SIZE = 28
"""Side of the images of MNIST."""
COUNTS = ["MPO", "gates", "BatchNorm", "dense", "all"]
PAPER = ["paper: all", "paper %"]


@dataclass(frozen=True)
class Implicit(Options):
    """Recipe of `train_classifier`, and which networks."""

    seeds: int = 5
    architecture: str | None = option(
        None, "By default the one named like the data.", choices=tuple(ARCHITECTURES)
    )
    rows: tuple[str, ...] = option((), "Rows of the architecture, by default all.")
    epochs: int = option(30, "Passes over the images.", least=1)
    learning_rate: float = option(0.04, "Of the first step.", positive=True)
    batch_size: int = option(250, "Images of a step.", least=1)
    gates: float | None = option(None, "Scale of the first generators; by default Haar-random.")
    mirrored: bool = option(False, "Train on the mirror images, too.")
    validate: bool = option(False, "Hold out a tenth of the training images and report on them.")
    device: str = option("cpu", "Or a CUDA device, on which one network is trained at a time.")


def study(name: str, options: Implicit) -> Study:
    architecture = options.data if options.architecture is None else options.architecture
    plan = ARCHITECTURES[architecture]
    for row in options.rows:
        plan.layer_specs(row)  # an error where it has none of this name
    cases = [{"architecture": architecture, "network": row} for row in options.rows or plan.rows]
    return on_networks(train_network, options, name=name, cases=cases)


def train_network(
    *,
    architecture: str,
    network: str,
    seed: int,
    data: str,
    data_dir: str | None,
    gates: float | None,
    mirrored: bool,
    validate: bool,
    device: str,
    epochs: int,
    learning_rate: float,
    batch_size: int,
) -> dict[str, Any]:
    """Train one network of a table; a row for each of its layers."""
    plan = ARCHITECTURES[architecture]
    images = single_precision(data, data_dir, size=SIZE, validate=validate, mirrored=mirrored)
    order = plan.pixels(images.image_shape)
    if (order != np.arange(len(order))).any():
        images = replace(images, x_train=images.x_train[:, order], x_test=images.x_test[:, order])
    generator = torch_generator(seed)
    model = plan.network(network, init_scale=gates, batch_size=batch_size, seed=generator)
    recipe = {"epochs": epochs, "learning_rate": learning_rate, "batch_size": batch_size}
    model, training = train_classifier(model.to(device), images, **recipe, seed=generator)
    entropies = [dict(zip(("s_avg", "s_max"), _entropies(x), strict=True)) for x in model.layers]
    return {
        **model.counts(),
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "train_accuracy": training.train_accuracy,
        "losses": ("epoch", training.losses),
        "images": images.note,
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        ROW: [{"layer": k, **values} for k, values in enumerate(entropies, start=1)],
    }


def _entropies(layer: Any) -> tuple[float, float]:
    """S_avg of the trained core in nats and the most that its bond dimensions allow.

    Means over the bonds above 1; NaN where there are none.
    """
    core = layer.core if isinstance(layer, HybridLinear) else layer
    if not isinstance(core, MPOLinear) or max(core.bonds, default=1) == 1:
        return math.nan, math.nan
    found = zip(entanglement(core.to_mpo()).entropies, core.bonds, strict=True)
    pairs = [(float(s), math.log(bond)) for s, bond in found if bond > 1]
    s_avg, s_max = np.mean(pairs, axis=0).tolist()
    return s_avg, s_max


def tables(frame: pd.DataFrame) -> list[Table]:
    plan, once = ARCHITECTURES[frame["architecture"].iloc[0]], frame.query("layer == 1")
    counts = once.pivot_table(COUNTS, "network", aggfunc="first", sort=False).filter(COUNTS)
    figures = ["accuracy", "train_accuracy"]
    scores = once.pivot_table(figures, "network", aggfunc=mean_spread, sort=False)
    paper = pd.DataFrame([plan.paper.get(row, (None, None)) for row in counts.index])
    paper = paper.set_axis(PAPER, axis=1).set_axis(counts.index).astype({PAPER[0]: "Int64"})
    plain = {bonds: row for row, (bonds, circuits) in plan.rows.items() if not circuits}
    by_seed = once.pivot_table("accuracy", "seed", "network", sort=False)
    pairs = {row: plain[bonds] for row, (bonds, circuits) in plan.rows.items() if circuits}
    pairs = {row: other for row, other in pairs.items() if {row, other} <= {*by_seed}}
    found = [
        Table.from_dataframe(
            counts.join(scores).join(paper),
            title="accuracy in percent, mean +- standard deviation (least to most) over seeds",
            notes=(
                frame["images"].iloc[0],
                "the paper's figures are of one run, or of the best of several; it does not say",
            ),
        )
    ]
    if "s_max" in frame:
        title = "entropy of the trained cores in nats, mean over bonds above 1 and seeds"
        index = ["network", "layer"]
        means = frame.pivot_table(["s_avg", "s_max"], index, aggfunc="mean", sort=False).dropna()
        means["ratio"] = means["s_avg"] / means["s_max"]
        found.append(Table.from_dataframe(means, title=title))
    if pairs:
        title = "gained by circuits around the same core, seed by seed, median (least to most)"
        gained = pd.DataFrame({row: by_seed[row] - by_seed[other] for row, other in pairs.items()})
        lower = (gained < 0).sum().map(lambda count: f"{count} of {len(gained)}")
        gains = pd.DataFrame({"accuracy": gained.apply(spread, digits=2), "lower": lower})
        found.append(Table.from_dataframe(gains.rename_axis("network"), title=title))
    return found


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    paper = ARCHITECTURES[frame["architecture"].iloc[0]].paper
    once = frame.query("layer == 1")
    for k, network in enumerate(once["network"].unique()):
        each = once.query("network == @network")
        values, count = each["accuracy"], each["all"]
        ax.plot(count, values, "o", color=f"C{k}", alpha=0.4, ms=4)
        ax.plot(count.iloc[0], values.mean(), "_", color=f"C{k}", ms=18, mew=2, label=network)
        if network in paper:
            ax.plot(*paper[network], "*", color=f"C{k}", ms=9)
    ax.set(xlabel="parameters", ylabel="accuracy (%)")
    ax.legend(fontsize="x-small")


def experiment(name: str, title: str, options: type[Implicit]) -> Experiment:
    """A table of trained networks."""
    return Experiment(
        name=name,
        title=title,
        options=options,
        study=partial(study, name),
        tabulate=tables,
        panels=(
            Panel(
                "accuracy",
                "Accuracy against parameters: points are seeds, bars their means, stars the paper.",
                draw,
            ),
        ),
        trains=False,
        size=SIZE,
    )
