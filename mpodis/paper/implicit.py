"""Networks whose circuits and cores are trained by the loss (Sec. V): what Tables 3 and 5 share.

Every row of a table is trained on the same images by the same recipe. With ``validate=true`` a
tenth of the training images is held out in the place of the test images: settings are chosen
there.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from matplotlib.axes import Axes

from mpodis.data import Dataset
from mpodis.measures import entanglement
from mpodis.nn import HybridLinear, MPOLinear, accuracy, train_classifier
from mpodis.nn.linear import torch_generator
from mpodis.nn.paper_networks import ARCHITECTURES, Architecture
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import dataset
from mpodis.tables import Table

__all__ = ["Implicit", "experiment", "mean_spread"]

SIZE = 28
"""Side of the images of MNIST."""


@dataclass(frozen=True)
class Implicit(Options):
    """Recipe of `train_classifier`, and which networks.

    Attributes
    ----------
    architecture : str, optional
        Of `mpodis.nn.paper_networks.ARCHITECTURES`; by default the one named like the data.
    rows : tuple of str
        Rows of the architecture; none: all.
    gates : float, optional
        Scale of the generators at the start; None: Haar-random gates.
    mirrored : bool
        Train on the mirror images, too.
    validate : bool
        Hold out a tenth of the training images (split seed 0) and report on them.
    device : str
        "cpu", or a CUDA device, on which the `workers` are threads.
    """

    seeds: int = 5
    architecture: str | None = None
    rows: tuple[str, ...] = ()
    epochs: int = 30
    learning_rate: float = 0.04
    batch_size: int = 250
    gates: float | None = None
    mirrored: bool = False
    validate: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name not in ARCHITECTURES:
            raise ValueError(
                f"architecture {self.name!r} is not known; use one of {', '.join(ARCHITECTURES)}"
            )
        for row in self.rows:
            ARCHITECTURES[self.name].layer_specs(row)

    @property
    def name(self) -> str:
        """Of the architecture."""
        return self.data if self.architecture is None else self.architecture

    @property
    def chosen(self) -> tuple[str, ...]:
        """Rows that are trained."""
        return self.rows or tuple(ARCHITECTURES[self.name].rows)


def _pieces(options: Implicit) -> list[Piece]:
    given = ("data", "data_dir", "epochs", "learning_rate", "batch_size", "gates")
    same = {k: getattr(options, k) for k in (*given, "mirrored", "validate", "device")}
    return [
        Piece(
            f"{row.replace(' ', '-')}-seed{seed}",
            train_row,
            {"architecture": options.name, "row": row, "seed": seed, **same},
        )
        for seed in options.range
        for row in options.chosen
    ]


@cache
def _images(data: str, data_dir: str | None, mirrored: bool, validate: bool) -> Dataset:
    """In single precision, read once by all threads of a process."""
    images = dataset(data, data_dir, size=SIZE)
    images = images.validation_split(0.1, seed=0) if validate else images
    images = images.mirrored() if mirrored else images
    return replace(
        images,
        x_train=images.x_train.astype(np.float32, copy=False),
        x_test=images.x_test.astype(np.float32, copy=False),
    )


def train_row(
    *,
    data: str,
    data_dir: str | None,
    architecture: str,
    row: str,
    seed: int,
    gates: float | None,
    mirrored: bool,
    validate: bool,
    device: str,
    **recipe,
) -> dict:
    """Train one network of a table and say what came out."""
    plan: Architecture = ARCHITECTURES[architecture]
    images = _images(data, data_dir, mirrored, validate)
    order = plan.pixels(images.image_shape)
    if (order != np.arange(len(order))).any():
        images = replace(images, x_train=images.x_train[:, order], x_test=images.x_test[:, order])
    generator = torch_generator(seed)
    model = plan.network(row, init_scale=gates, batch_size=recipe["batch_size"], seed=generator)
    model, training = train_classifier(model.to(device), images, **recipe, seed=generator)
    return {
        "row": row,
        "seed": seed,
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "train_accuracy": training.train_accuracy,
        "losses": [round(loss, 5) for loss in training.losses],
        "counts": model.counts(),
        "entropies": [_entropies(layer) for layer in model.layers],
        "images": images.note,
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
    }


def _entropies(layer) -> list[tuple[float, float]]:
    """S_k of the trained core in nats and the most that its bond dimension allows."""
    core = layer.core if isinstance(layer, HybridLinear) else layer
    if not isinstance(core, MPOLinear):
        return []
    found = entanglement(core.to_mpo()).entropies
    return [(float(s), math.log(bond)) for s, bond in zip(found, core.bonds, strict=True)]


def mean_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean +- standard deviation (least to most)."""
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return (
        f"{mean} +- {statistics.stdev(values):.{digits}f} "
        f"({min(values):.{digits}f} to {max(values):.{digits}f})"
    )


def by_row(record: dict) -> dict[str, list[dict]]:
    """Pieces of every row, in the order of the seeds."""
    found: dict[str, list[dict]] = {}
    for piece in record["pieces"].values():
        found.setdefault(piece["row"], []).append(piece)
    return found


def _architecture(record: dict) -> Architecture:
    options = record["options"]
    return ARCHITECTURES[options.get("architecture") or options["data"]]


def _tables(record: dict) -> list[Table]:
    paper, rows = _architecture(record).paper, []
    for row, pieces in by_row(record).items():
        counts = pieces[0]["counts"]
        published = paper.get(row, (None, None))
        rows.append(
            (
                row,
                counts["MPO"],
                counts["gates"],
                counts["BatchNorm"],
                counts["dense"],
                counts["all"],
                mean_spread([p["accuracy"] for p in pieces]),
                mean_spread([p["train_accuracy"] for p in pieces]),
                *published,
            )
        )
    part = "held-out training images" if record["options"].get("validate") else "test images"
    columns = ("network", "MPO", "gates", "BatchNorm", "dense", "all")
    return [
        Table(
            (*columns, "accuracy %", "on training images %", "paper: all", "paper %"),
            rows,
            title=f"accuracy on {part}, mean +- standard deviation (least to most) over seeds",
            notes=(
                f"{next(iter(record['pieces'].values()))['images']}",
                "the paper's figures are of one run, or of the best of several; it does not say",
            ),
        ),
        _entropy_table(record),
    ]


def _entropy_table(record: dict) -> Table:
    rows = []
    for row, pieces in by_row(record).items():
        for k in range(len(pieces[0]["entropies"])):
            pairs = [pair for p in pieces for pair in p["entropies"][k] if pair[1] > 0]
            if pairs:
                mean, most = (statistics.mean(column) for column in zip(*pairs, strict=True))
                rows.append((row, k + 1, f"{mean:.3f}", f"{most:.3f}", f"{mean / most:.2f}"))
    return Table(
        ("network", "layer", "S_avg", "S_max", "ratio"),
        rows,
        title="entropy of the trained cores in nats, mean over bonds above 1 and seeds",
    )


def _draw(record: dict, ax: Axes) -> Axes:
    paper = _architecture(record).paper
    for k, (row, pieces) in enumerate(by_row(record).items()):
        count = pieces[0]["counts"]["all"]
        values = [p["accuracy"] for p in pieces]
        ax.plot([count] * len(values), values, "o", color=f"C{k}", alpha=0.4, ms=4)
        ax.plot(count, statistics.mean(values), "_", color=f"C{k}", ms=18, mew=2, label=row)
        if row in paper and not record["options"].get("validate"):
            ax.plot(*paper[row], "*", color=f"C{k}", ms=9)
    part = "held-out" if record["options"].get("validate") else "test"
    ax.set(xlabel="parameters", ylabel=f"{part} accuracy (%)")
    ax.legend(fontsize="x-small")
    return ax


def _finding(record: dict) -> str:
    parts = []
    for row, pieces in by_row(record).items():
        values = [p["accuracy"] for p in pieces]
        parts.append(f"{row} ({pieces[0]['counts']['all']}) {mean_spread(values)}")
    o = record["options"]
    part = "held-out training" if o.get("validate") else "test"
    return (
        f"Accuracy in percent on {part} images, mean +- standard deviation (least to most) over "
        f"{len(record['seeds'])} seeds, parameters in brackets: {'; '.join(parts)}."
    )


def experiment(name: str, title: str, options: type[Implicit]) -> Experiment:
    """A table of trained networks."""
    return Experiment(
        name=name,
        title=title,
        options=options,
        pieces=_pieces,
        tables=_tables,
        finding=_finding,
        panels=(
            Panel(
                "accuracy",
                "Accuracy against parameters: points are seeds, bars their means, stars the paper.",
                _draw,
            ),
        ),
        trains=False,
        size=SIZE,
    )
