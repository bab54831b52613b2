"""Layers out of trained networks, of low bond and dense, and how well others do in their place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn

from mpodis.data import Dataset
from mpodis.measures import second_moment
from mpodis.mpo import compress
from mpodis.nn import (
    RECIPES,
    MPOLinear,
    accuracy,
    linear_from_matrix,
    replace_layer,
    train_classifier,
)
from mpodis.paper.networks import dataset, evaluated, submodule, tnn_from_weights
from mpodis.targets import kept, tnn_weights

__all__ = ["KINDS", "TrainedLayer", "trained_layer"]

KINDS = ("tnn", "dense", "compressed")

_images = lru_cache(maxsize=1)(dataset)  # a process asks for the same ones again and again


@dataclass(frozen=True, eq=False)
class TrainedLayer:
    """The first layer of a network in double precision, by its name, and the network's images."""

    model: nn.Module
    name: str
    images: Dataset

    @property
    def matrix(self) -> np.ndarray:
        """W, (inputs, outputs)."""
        layer = submodule(self.model, self.name)
        weight = layer.weight() if isinstance(layer, MPOLinear) else layer.weight.T
        return weight.detach().numpy()

    def covariance(self) -> np.ndarray:
        """Second moment of what the layer receives, the training images."""
        return second_moment(self.images.x_train)

    def accuracy(self, matrix) -> float:
        """Percent of the test images with another matrix in the layer's place, bias as it was."""
        bias = submodule(self.model, self.name).bias
        other = linear_from_matrix(matrix, bias=bias, dtype=torch.float64)
        swapped = replace_layer(self.model, self.name, other)
        return accuracy(swapped, self.images.x_test, self.images.y_test)


def trained_layer(
    kind: str, *, seed: int, bond: int, data: str, data_dir: str | None, networks: str
) -> TrainedLayer:
    """A layer by its kind; its network is trained by the recipe of the data, or found in a file.

    Of the kind "tnn" it is the MPO of a compact TNN, of the given bond dimension; "dense": the
    first layer of a dense network with one hidden layer, as wide as the input; "compressed": the
    latter compressed to an MPO and healed, that is trained on as long.
    """
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is not known; use one of {', '.join(KINDS)}")
    images = _images(data, data_dir)
    if kind == "tnn":
        arrays, _ = tnn_weights(images, networks, seed, bond=bond)
        return TrainedLayer(tnn_from_weights(arrays), "mpo", images)
    recipe: dict[str, Any] = vars(RECIPES[images.name]) | {"seed": seed}

    def trained(name: str, model: nn.Module) -> TrainedLayer:
        file = f"{name}-{data}-{seed}"
        arrays, _ = kept(networks, file, lambda: train_classifier(model, images, **recipe))
        return TrainedLayer(evaluated(model, arrays), "0", images)

    dense = trained("dense", _untrained(images.features, images.classes, seed))
    if kind == "dense":
        return dense
    model = dense.model.float()
    first = submodule(model, "0")
    mpo = compress(first.weight.detach().numpy().T, max_bond=bond).mpo
    layer = MPOLinear.from_mpo(mpo, bias=first.bias)
    return trained(f"healed{bond}", replace_layer(model, "0", layer))


def _untrained(n: int, classes: int, seed: int) -> nn.Module:
    """A dense network, its weights those of `nn.Linear` but of a generator of their own."""
    rng, size = np.random.default_rng(seed), n**-0.5
    hidden, head = (
        linear_from_matrix(rng.uniform(-size, size, (n, m)), bias=rng.uniform(-size, size, m))
        for m in (n, classes)
    )
    return nn.Sequential(hidden, nn.ReLU(), head)
