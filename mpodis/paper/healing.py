"""Trained dense networks: compressed, healed, disentangled to half the bond dimension, healed.

The hidden layers of 784-256-64-10 become MPOs of a share of their weights, the network is trained
on for some epochs, then circuits of 2-body gates take half of the bond dimension, and it is
trained again. Beside it stand networks of as many parameters or more that are trained for as long:
an MPO without circuits on the same way, low rank (whitened SVD) and Monarch layers, both of which
begin at their final size. All fits minimise the error of the layer's outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import nn

from mpodis import structured
from mpodis.conventions import Legs, qubit_legs, wires
from mpodis.data import Dataset
from mpodis.fit import fit_core, weighted_loss
from mpodis.jobs.records import mean_spread
from mpodis.nn import (
    MPOLinear,
    accuracy,
    collect_activations,
    compress_module,
    disentangle_module,
    linear_from_matrix,
    replace_layer,
    train_classifier,
)
from mpodis.nn.monarch_linear import MonarchLinear
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import (
    HIDDEN_LAYERS,
    HIDDEN_WIDTHS,
    single_precision,
    submodule,
    trained_dense,
)
from mpodis.paper.replacements import SO4, bricks, gate_count
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

SEEN = 10_000
"""Training images whose activations the fits are weighted by."""
TOL = 1e-4
"""Of the fits of cores, which are trained on anyway."""


@dataclass(frozen=True)
class Healing(Options):
    """What is kept, and how long it is trained."""

    seeds: int = 5
    share: float = option(0.25, "Of the weights that the first MPOs keep.", positive=True)
    depth: int = option(2, "Layers on each side.", least=1)
    epochs: int = option(4, "Of each of the two trainings.", least=1)
    learning_rate: float = option(0.001, "Of the trainings.", positive=True)
    batch_size: int = option(256, "Of the trainings.", least=1)
    max_sweeps: int = option(6, "Of `disentangle`.", least=1)


def study(options: Healing) -> Study:
    names = ("epochs", "learning_rate", "batch_size")
    return on_networks(
        accuracies,
        options,
        name="healing",
        grid={"way": list(WAYS)},
        settings={"recipe": {name: getattr(options, name) for name in names}},
    )


@dataclass(frozen=True)
class Setting:
    """A trained network, its images, and how to train on."""

    images: Dataset
    model: nn.Module
    recipe: dict[str, Any]
    seed: int

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the layers that are replaced."""
        weights = {name: submodule(self.model, name).weight for name in HIDDEN_LAYERS}
        return {name: (weight.shape[1], weight.shape[0]) for name, weight in weights.items()}

    def padded(self) -> Setting:
        """The same on images with an empty frame, so that rows and columns are qubits."""
        shape = self.images.image_shape
        sides = tuple(1 << (side - 1).bit_length() for side in shape)
        spare = [wide - side for wide, side in zip(sides, shape, strict=True)]
        frame = [(0, 0), *((pixels // 2, pixels - pixels // 2) for pixels in spare)]

        def framed(rows: np.ndarray) -> np.ndarray:
            return np.pad(rows.reshape(-1, *shape), frame).reshape(len(rows), -1)

        parts = {name: framed(getattr(self.images, name)) for name in ("x_train", "x_test")}
        images = replace(self.images, image_shape=sides, **parts)
        first = submodule(self.model, HIDDEN_LAYERS[0])
        wide = linear_from_matrix(framed(first.weight.detach().numpy()).T, bias=first.bias)
        return replace(self, images=images, model=replace_layer(self.model, HIDDEN_LAYERS[0], wide))

    def score(self, model: nn.Module) -> float:
        return accuracy(model.eval(), self.images.x_test, self.images.y_test)

    def row(self, method: str, model: nn.Module, turns: tuple[int, ...]) -> dict[str, Any]:
        """Accuracy as it is, and trained on in turns, which changes the model."""
        before, parameters = self.score(model), _layers(model)
        for turn in turns:
            seed = 2 * self.seed + turn
            model, _ = train_classifier(model, self.images, seed=seed, **self.recipe)
        healed = self.score(model)
        return {"method": method, "parameters": parameters, "before": before, "healed": healed}

    def moment(self, model: nn.Module, name: str) -> np.ndarray:
        return collect_activations(model, name, self.images.x_train[:SEEN]).covariance


def sizes_of(shapes: dict, share: float, depth: int) -> dict[str, tuple[Legs, int, int]]:
    """Legs of every layer, the bond that its share pays for, and parameters at half of it."""
    found = {}
    for name, shape in shapes.items():
        legs = qubit_legs(*shape)
        bond = structured.bond_for(int(share * shape[0] * shape[1]), legs, below=True)
        half = structured.mpo_parameters(legs, max(1, bond // 2)) + SO4 * gate_count(shape, depth)
        found[name] = (legs, bond, half)
    return found


def accuracies(
    *, way, seed, data, data_dir, networks, share, depth, max_sweeps, recipe
) -> dict[str, Any]:
    """A network with its hidden layers replaced in one way, as fitted and healed."""
    images = single_precision(data, data_dir, size=28)
    model = trained_dense(images, networks, seed, hidden=HIDDEN_WIDTHS).float()
    setting = Setting(images, model, recipe, seed)
    sizes = sizes_of(setting.shapes, share, depth)
    found = {"original": setting.score(model)}
    found |= {"dense": sum(rows * columns for rows, columns in setting.shapes.values())}
    search = {"depth": depth, "max_sweeps": max_sweeps} if way == "mpo" else {}
    return {**found, ROW: WAYS[way](setting, sizes, **search)}


def by_mpos(setting: Setting, sizes: dict, *, depth: int, max_sweeps: int) -> list[dict]:
    """MPOs, healed; from there on with circuits, and without."""
    setting = setting.padded()
    seen = setting.images.x_train[:SEEN]
    first = compress_module(
        setting.model, {name: bond for name, (_, bond, _) in sizes.items()}, inputs=seen, tol=TOL
    )
    rows = [setting.row("compressed", first, (0,))]  # heals it in place
    hybrid = plain = first
    for name, (legs, bond, count) in sizes.items():
        hybrid, _ = disentangle_module(
            hybrid,
            name,
            inputs=seen,
            left=bricks(len(wires(legs, "left")), depth),
            right=bricks(len(wires(legs, "right")), depth).reversed(),
            max_bond=max(1, bond // 2),
            init="identity",
            max_sweeps=max_sweeps,
            seed=setting.seed,
        )
        own, covariance = submodule(plain, name), setting.moment(plain, name)
        bond = structured.bond_for(count, legs)
        core = fit_core(own, max_bond=bond, covariance=covariance, tol=TOL)
        layer = MPOLinear.from_mpo(core, shape=(own.inputs, own.outputs), bias=own.bias.detach())
        plain = replace_layer(plain, name, layer)
    rows.append(setting.row("circuits", hybrid, (1,)))
    return [*rows, setting.row("plain MPO", plain, (1,))]


def in_turn(method: str, make: Callable, setting: Setting, sizes: dict) -> list[dict]:
    """Layers of at least as many parameters as the circuits and their cores have."""
    model = setting.model
    for name, (_, _, count) in sizes.items():
        layer = submodule(model, name)
        matrix = layer.weight.detach().double().numpy().T
        found = make(matrix, count, setting.moment(model, name), layer.bias.detach())
        model = replace_layer(model, name, found)
    return [setting.row(method, model, (0, 1))]


def low_rank(matrix: np.ndarray, count: int, metric: np.ndarray, bias: Any) -> nn.Module:
    rank = structured.rank_for(count, matrix.shape)
    found = structured.low_rank(matrix, rank, covariance=metric)
    left, values, right = np.linalg.svd(found.matrix, full_matrices=False)
    root = np.sqrt(values[:rank])
    first = linear_from_matrix(left[:, :rank] * root)
    return nn.Sequential(first, linear_from_matrix(root[:, None] * right[:rank], bias=bias))


def monarch(matrix: np.ndarray, count: int, metric: np.ndarray, bias: Any) -> nn.Module:
    """The size of least loss after one SVD a block, fitted, of those that cost enough."""
    able = structured.monarch_sizes(matrix.shape, factors=2, parameters=count)
    limit = 1.1 * min(size.parameters for size in able)
    losses, every = [], []
    for size in [size for size in able if size.parameters <= limit]:
        every.append({"legs": size.legs, "rank": size.rank, "reverse": size.reverse})
        found = structured.monarch(matrix, **every[-1]).matrix
        losses.append(weighted_loss(matrix, found, metric))
    options = every[int(np.argmin(losses))]
    effort = {"n_init": 1, "max_sweeps": 2, "max_iterations": 200}
    fitted = structured.monarch(matrix, covariance=metric, **effort, **options)
    return MonarchLinear(fitted.matrix, bias=bias, **options)


WAYS = {
    "mpo": by_mpos,
    "low rank": partial(in_turn, "low rank", low_rank),
    "Monarch": partial(in_turn, "Monarch", monarch),
}


def _layers(model: nn.Module) -> int:
    """Parameters of the replaced layers without their biases."""
    total = 0
    for name in HIDDEN_LAYERS:
        layer = submodule(model, name)
        if isinstance(layer, MonarchLinear):
            total += layer.parameters_used
        else:
            parts = layer.named_parameters()
            total += sum(p.numel() for key, p in parts if not key.endswith("bias"))
    return total


def tables(frame: pd.DataFrame) -> list[Table]:
    lost = frame[["before", "healed"]].rsub(frame["original"], axis=0)
    found = frame.assign(**{"as fitted": lost["before"], "healed": lost["healed"]})
    how: dict[Any, Any] = {"parameters": "first", "as fitted": mean_spread, "healed": mean_spread}
    points = found.pivot_table(list(how), "method", aggfunc=how, sort=False).filter(how)
    dense = frame.query("method == method.iloc[0]")
    return [
        Table.from_dataframe(
            points,
            title="points of accuracy lost, mean +- standard deviation (least to most)",
            notes=(
                "compressed: MPOs, healed; circuits and plain MPO: fitted to them, healed for as "
                "long; low rank and Monarch: fitted to the dense layers, healed for twice as long",
            ),
        ),
        Table.from_dataframe(
            dense.pivot_table("original", "dense", aggfunc=mean_spread),
            title="the dense networks: weights, accuracy (%)",
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    found = frame.groupby("method", sort=False)
    for k, (_, each) in enumerate(found):
        for when, shift, fill in (("before", -0.12, "none"), ("healed", 0.12, f"C{k}")):
            lost = each["original"] - each[when]
            label = None if k else {"before": "as fitted", "healed": "healed"}[when]
            style = {"color": f"C{k}", "mfc": fill, "ms": 5, "alpha": 0.7, "label": label}
            ax.plot([k + shift] * len(lost), lost, "o", **style)
    ax.set_yscale("symlog", linthresh=1)
    for target, style in ((0.5, ":"), (1.0, "--")):
        ax.axhline(target, color="0.6", lw=1, ls=style)
    names = [f"{method}\n{count:,}" for method, count in found["parameters"].first().items()]
    ax.set_xticks(range(len(names)), names, fontsize="small")
    ax.set(ylabel="points of accuracy lost")
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="healing",
    title="Dense networks compressed, disentangled and trained on",
    options=Healing,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "lost",
            "Accuracy lost by every network as fitted (open) and healed; lines at .5 and 1 point.",
            draw,
        ),
    ),
    trains=False,
    size=28,
)
