"""Trained networks, kept in a folder so that every experiment asks about the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from mpodis.data import Dataset, load_data
from mpodis.files import load_arrays
from mpodis.nn import CompactTNN, dense_network
from mpodis.targets import dense_weights, tnn_weights

__all__ = [
    "HIDDEN_LAYERS",
    "HIDDEN_WIDTHS",
    "TNN_BOND",
    "dataset",
    "evaluated",
    "network",
    "single_precision",
    "submodule",
    "tnn_from_weights",
    "train",
    "trained_dense",
]

M = TypeVar("M", bound=nn.Module)

TNN_BOND = 2
"""Of the networks that every experiment trains first."""
HIDDEN_WIDTHS, HIDDEN_LAYERS = (256, 64), ("0", "2")
"""Of the dense networks on whole images: the widths of the hidden layers, and their names."""


def dataset(data: str, data_dir: str | None, *, size: int = 8) -> Dataset:
    """Data by name; only MNIST comes in sizes."""
    return load_data(data, size=size if data == "mnist" else None, data_dir=data_dir)


@cache
def single_precision(
    data: str,
    data_dir: str | None,
    *,
    size: int = 8,
    validate: bool = False,
    mirrored: bool = False,
) -> Dataset:
    """Images to train on, read once by a process.

    With `validate` a tenth of the training images is the test part (split seed 0), with `mirrored`
    the mirror images are trained on, too.
    """
    images = dataset(data, data_dir, size=size)
    images = images.validation_split(0.1, seed=0) if validate else images
    images = images.mirrored() if mirrored else images
    parts = {name: getattr(images, name) for name in ("x_train", "x_test")}
    return replace(images, **{k: x.astype(np.float32, copy=False) for k, x in parts.items()})


def network_file(networks: str, data: str, seed: int) -> Path:
    return Path(networks) / f"tnn{TNN_BOND}-{data}-{seed}.safetensors"


def train(*, seed: int, data: str, data_dir: str | None, networks: str) -> dict:
    """Train the network of a seed unless the folder has it; how its training went."""
    return tnn_weights(dataset(data, data_dir), networks, seed, bond=TNN_BOND)[1]


def network(data: str, networks: str, seed: int) -> CompactTNN:
    """A trained network, in double precision and evaluation mode."""
    return tnn_from_weights(load_arrays(network_file(networks, data, seed))[0])


def tnn_from_weights(arrays: Mapping[str, np.ndarray]) -> CompactTNN:
    """The network of a state dict, in double precision and evaluation mode."""
    classes, features = np.shape(arrays["head.weight"])
    bond = np.shape(arrays["mpo.site_tensors.0"])[-1]
    return evaluated(CompactTNN(inputs=features, bond=bond, classes=classes, seed=0), arrays)


def trained_dense(
    images: Dataset, networks: str, seed: int, *, hidden: Sequence[int]
) -> nn.Sequential:
    """A dense network, kept in the folder, see `evaluated`."""
    arrays, _ = dense_weights(images, networks, seed, hidden=hidden)
    return evaluated(dense_network((images.features, *hidden, images.classes)), arrays)


def evaluated(model: M, arrays: Mapping[str, np.ndarray]) -> M:
    """With the weights of a state dict, in double precision and evaluation mode."""
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.double().eval()


def submodule(model: nn.Module, name: str) -> Any:
    """A module of a network by its name; which class it has the caller knows."""
    return model.get_submodule(name)
