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
from statistics import mean
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from mpodis.conventions import Legs, qubit_legs, wires
from mpodis.data import Dataset
from mpodis.fit import fit_core, weighted_loss
from mpodis.nn import (
    MPOLinear,
    accuracy,
    collect_activations,
    compress_module,
    disentangle_module,
    replace_layer,
    train_classifier,
)
from mpodis.nn.monarch_linear import MonarchLinear
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.implicit import mean_spread
from mpodis.paper.networks import dataset, submodule, trained_dense
from mpodis.paper.replacements import SO4, bricks, gate_count
from mpodis.structured import (
    bond_for,
    low_rank,
    monarch,
    monarch_sizes,
    mpo_parameters,
    rank_for,
)
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

HIDDEN = (256, 64)
PLACES = ("0", "2")
SEEN = 10_000
"""Training images whose activations the fits are weighted by."""
TOL = 1e-4
"""Of the fits of cores, which are trained on anyway."""


@dataclass(frozen=True)
class Healing(Options):
    """What is kept, and how long it is trained.

    Attributes
    ----------
    share : float
        Of the weights of the hidden layers that the first MPOs keep, at most.
    depth : int
        Layers of 2-body gates on each side.
    epochs : int
        Of each of the two trainings.
    learning_rate, batch_size
        See `train_classifier`.
    max_sweeps : int
        Of `disentangle`.
    validate : bool
        Hold out a tenth of the training images (split seed 0) and report on them; the dense
        network has seen them.
    """

    seeds: int = 5
    share: float = 0.25
    depth: int = 2
    epochs: int = 4
    learning_rate: float = 0.001
    batch_size: int = 256
    max_sweeps: int = 6
    validate: bool = False


def _pieces(options: Healing) -> list[Piece]:
    names = ("data", "data_dir", "networks", "share", "depth", "epochs", "learning_rate")
    same = {k: getattr(options, k) for k in (*names, "batch_size", "max_sweeps", "validate")}
    return [
        Piece(f"{name}-seed{seed}", work, {"seed": seed, **same})
        for seed in options.range
        for name, work in (("mpo", _mpo), ("low-rank", _low_rank), ("monarch", _monarch))
    ]


@dataclass(frozen=True)
class _Setting:
    """A trained network, its images, and how to train on."""

    images: Dataset
    model: nn.Module
    recipe: dict
    seed: int

    @classmethod
    def of(cls, data, data_dir, networks, seed, validate, **recipe) -> _Setting:
        images = dataset(data, data_dir, size=28)
        model = trained_dense(images, networks, seed, hidden=HIDDEN).float()
        images = images.validation_split(0.1, seed=0) if validate else images
        images = replace(images, **{k: getattr(images, k).astype(np.float32) for k in _PARTS})
        return cls(images, model, recipe, seed)

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of the layers that are replaced."""
        weights = {name: submodule(self.model, name).weight for name in PLACES}
        return {name: (weight.shape[1], weight.shape[0]) for name, weight in weights.items()}

    def padded(self) -> _Setting:
        """The same on images with an empty frame, so that rows and columns are qubits."""
        height, width = self.images.image_shape
        sides = [1 << (side - 1).bit_length() for side in (height, width)]
        place = np.arange(sides[0] * sides[1]).reshape(sides)
        top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
        place = place[top : top + height, left : left + width].reshape(-1)

        def framed(rows: np.ndarray) -> np.ndarray:
            wide = np.zeros((len(rows), sides[0] * sides[1]), rows.dtype)
            wide[:, place] = rows
            return wide

        images = replace(
            self.images,
            image_shape=tuple(sides),
            **{k: framed(getattr(self.images, k)) for k in _PARTS},
        )
        first = submodule(self.model, PLACES[0])
        wide: Any = nn.utils.skip_init(nn.Linear, sides[0] * sides[1], first.out_features)
        with torch.no_grad():
            wide.weight.copy_(torch.from_numpy(framed(first.weight.numpy(force=True))))
            wide.bias.copy_(first.bias)
        return replace(self, images=images, model=replace_layer(self.model, PLACES[0], wide))

    def score(self, model: nn.Module) -> float:
        return accuracy(model.eval(), self.images.x_test, self.images.y_test)

    def healed(self, model: nn.Module, turn: int) -> nn.Module:
        model, _ = train_classifier(model, self.images, seed=2 * self.seed + turn, **self.recipe)
        return model

    def moment(self, model: nn.Module, name: str) -> np.ndarray:
        return collect_activations(model, name, self.images.x_train[:SEEN]).covariance


_PARTS = ("x_train", "x_test")


def _sizes(shapes: dict, share: float, depth: int) -> dict[str, tuple[Legs, int, int]]:
    """Legs of every layer, the bond that its share pays for, and parameters at half of it."""
    found = {}
    for name, shape in shapes.items():
        legs = qubit_legs(*shape)
        bond = bond_for(int(share * shape[0] * shape[1]), legs, below=True)
        half = mpo_parameters(legs, max(1, bond // 2)) + SO4 * gate_count(shape, depth)
        found[name] = (legs, bond, half)
    return found


def _prepared(given: dict) -> tuple[_Setting, dict]:
    share, depth = given.pop("share"), given.pop("depth")
    given.pop("max_sweeps")
    setting = _Setting.of(**given)
    return setting, _sizes(setting.shapes, share, depth)


def _mpo(**given) -> dict:
    """MPOs, healed; from there on with circuits, and without."""
    depth, max_sweeps, seed = given["depth"], given["max_sweeps"], given["seed"]
    setting, sizes = _prepared(dict(given))
    original, shapes = setting.score(setting.model), setting.shapes
    setting = setting.padded()
    seen = setting.images.x_train[:SEEN]
    first = compress_module(
        setting.model, {name: bond for name, (_, bond, _) in sizes.items()}, inputs=seen, tol=TOL
    )
    result = {"seed": seed, "original": original, "images": setting.images.note}
    result["dense"] = sum(rows * columns for rows, columns in shapes.values())
    result["compressed"] = _measured(setting, first, _layers(first), lambda m: setting.healed(m, 0))

    hybrid = first
    for name, (legs, bond, _) in sizes.items():
        hybrid, _ = disentangle_module(
            hybrid,
            name,
            inputs=seen,
            left=bricks(len(wires(legs, "left")), depth),
            right=bricks(len(wires(legs, "right")), depth).reversed(),
            max_bond=max(1, bond // 2),
            init="identity",
            max_sweeps=max_sweeps,
            seed=seed,
        )
    plain = first
    for name, (legs, _, count) in sizes.items():
        own = submodule(plain, name)
        bond = bond_for(count, legs)
        metric = setting.moment(plain, name)
        core = fit_core(own.to_mpo(), max_bond=bond, metric=metric, tol=TOL)
        layer = MPOLinear.from_mpo(core, shape=(own.inputs, own.outputs), bias=own.bias.detach())
        plain = replace_layer(plain, name, layer)
    for key, model in (("circuits", hybrid), ("plain MPO", plain)):
        result[key] = _measured(setting, model, _layers(model), lambda m: setting.healed(m, 1))
    return result


def _low_rank(**given) -> dict:
    setting, sizes = _prepared(dict(given))
    model = setting.model
    for name, (_, _, count) in sizes.items():
        layer = submodule(model, name)
        matrix = layer.weight.detach().double().numpy().T
        rank = rank_for(count, matrix.shape)
        found = low_rank(matrix, rank, covariance=setting.moment(model, name))
        left, values, right = np.linalg.svd(found.matrix, full_matrices=False)
        root = np.sqrt(values[:rank])
        pair = [left[:, :rank] * root, root[:, None] * right[:rank]]
        model = replace_layer(model, name, _factors(pair, layer.bias))
    return _alone("low rank", setting, model)


def _factors(pair: list[np.ndarray], bias: torch.Tensor) -> nn.Sequential:
    parts = []
    for matrix, own in zip(pair, (None, bias), strict=True):
        part: Any = nn.utils.skip_init(nn.Linear, *matrix.shape, bias=own is not None)
        with torch.no_grad():
            part.weight.copy_(torch.from_numpy(matrix.T.copy()))
            if own is not None:
                part.bias.copy_(own)
        parts.append(part)
    return nn.Sequential(*parts)


def _monarch(**given) -> dict:
    """The size of least loss after one SVD a block, fitted, of those that cost enough."""
    setting, sizes = _prepared(dict(given))
    model = setting.model
    for name, (_, _, count) in sizes.items():
        layer = submodule(model, name)
        matrix = layer.weight.detach().double().numpy().T
        metric = setting.moment(model, name)
        able = monarch_sizes(matrix.shape, factors=2, parameters=count)
        limit = 1.1 * min(size.parameters for size in able)
        tried = []
        for size in (size for size in able if size.parameters <= limit):
            options = {"rank": size.rank, "reverse": size.reverse}
            found = monarch(matrix, size.legs, **options).matrix
            tried.append((weighted_loss(matrix, found, metric), size))
        size = min(tried, key=lambda pair: pair[0])[1]
        options = {"rank": size.rank, "reverse": size.reverse}
        fitted = monarch(
            matrix, size.legs, covariance=metric, n_init=1, max_sweeps=2, iterations=200, **options
        )
        own = MonarchLinear(fitted.matrix, size.legs, bias=layer.bias.detach(), **options)
        model = replace_layer(model, name, own)
    return _alone("Monarch", setting, model)


def _alone(name: str, setting: _Setting, model: nn.Module) -> dict:
    """Trained for as long as what is compressed and then disentangled, in two turns, too."""

    def healed(model: nn.Module) -> nn.Module:
        return setting.healed(setting.healed(model, 0), 1)

    result = {"seed": setting.seed, "original": setting.score(setting.model)}
    return result | {
        "images": setting.images.note,
        name: _measured(setting, model, _layers(model), healed),
    }


def _layers(model: nn.Module) -> int:
    """Parameters of the replaced layers without their biases."""
    total = 0
    for name in PLACES:
        layer = submodule(model, name)
        if isinstance(layer, MonarchLinear):
            total += layer.parameters_used
        else:
            parts = layer.named_parameters()
            total += sum(p.numel() for key, p in parts if key.split(".")[-1] != "bias")
    return total


def _measured(
    setting: _Setting, model: nn.Module, count: int, heal: Callable[[nn.Module], nn.Module]
) -> dict:
    before = setting.score(model)
    return {"parameters": count, "before": before, "healed": setting.score(heal(model))}


METHODS = ("compressed", "circuits", "plain MPO", "low rank", "Monarch")


def lost(record: dict, method: str, when: str) -> list[float]:
    """Points of accuracy below the dense network, seed by seed."""
    return [
        piece["original"] - piece[method][when]
        for piece in record["pieces"].values()
        if method in piece
    ]


def _counts(record: dict, method: str) -> int:
    return next(p[method]["parameters"] for p in record["pieces"].values() if method in p)


def _tables(record: dict) -> list[Table]:
    originals = {p["seed"]: p["original"] for p in record["pieces"].values()}
    dense = next(p["dense"] for p in record["pieces"].values() if "dense" in p)
    rows = [
        (
            method,
            _counts(record, method),
            mean_spread(lost(record, method, "before")),
            mean_spread(lost(record, method, "healed")),
        )
        for method in METHODS
    ]
    options = record["options"]
    part = "held-out" if options.get("validate") else "test"
    return [
        Table(
            ("hidden layers as", "parameters", "lost", "lost after healing"),
            rows,
            title=f"points of {part} accuracy lost, mean +- standard deviation (least to most)",
            notes=(
                f"dense: {mean_spread(list(originals.values()))} %, {dense:,} weights in the "
                "hidden layers",
                "compressed: MPOs, healed for "
                f"{options['epochs']} epochs; circuits and plain MPO: fitted to them, healed for "
                "as many; low rank and Monarch: fitted to the dense layers, healed for twice as "
                "many",
                next(iter(record["pieces"].values()))["images"],
            ),
        )
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    for k, method in enumerate(METHODS):
        for when, fill in (("before", "none"), ("healed", f"C{k}")):
            values = lost(record, method, when)
            where = np.full(len(values), k) + (0.12 if when == "healed" else -0.12)
            label = None if k else {"before": "as fitted", "healed": "healed"}[when]
            ax.plot(where, values, "o", color=f"C{k}", mfc=fill, ms=5, alpha=0.7, label=label)
    ax.set_yscale("symlog", linthresh=1)
    for target, style in ((0.5, ":"), (1.0, "--")):
        ax.axhline(target, color="0.6", lw=1, ls=style)
    names = [f"{method}\n{_counts(record, method):,}" for method in METHODS]
    ax.set_xticks(range(len(METHODS)), names, fontsize="small")
    ax.set(ylabel="points of accuracy lost")
    ax.legend(fontsize="small")
    return ax


def _finding(record: dict) -> str:
    parts = []
    for method in METHODS:
        before, healed = (lost(record, method, when) for when in ("before", "healed"))
        count = f"{_counts(record, method):,} parameters"
        parts.append(f"{method} ({count}) {mean(before):.2f}, healed {mean_spread(healed)}")
    return (
        f"Points of accuracy lost, means over {len(record['seeds'])} networks, as fitted and "
        f"healed: {'; '.join(parts)}."
    )


EXPERIMENT = Experiment(
    name="healing",
    title="Dense networks compressed, disentangled and trained on",
    options=Healing,
    pieces=_pieces,
    tables=_tables,
    finding=_finding,
    panels=(
        Panel(
            "lost",
            "Accuracy lost by every network as fitted (open) and healed; lines at .5 and 1 point.",
            _draw,
        ),
    ),
    trains=False,
    size=28,
)
