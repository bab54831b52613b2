"""Trained networks, kept in a folder so that every experiment asks about the same ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mpodis.data import Dataset, load_data
from mpodis.files import load_arrays, save_arrays
from mpodis.nn import CompactTNN, dense_network, train_dense, train_tnn
from mpodis.paper.base import Options, Piece

__all__ = ["dataset", "network", "submodule", "trained_dense", "training_pieces"]


def training_pieces(options: Options) -> list[Piece]:
    """One piece a seed, which trains its network unless the folder has it."""
    same = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    return [Piece(f"network-{seed}", _train, {"seed": seed, **same}) for seed in options.range]


def dataset(data: str, data_dir: str | None, *, size: int = 8) -> Dataset:
    """Data by name; only MNIST comes in sizes."""
    return load_data(data, size=size if data == "mnist" else None, data_dir=data_dir)


def network_file(networks: str, data: str, seed: int) -> Path:
    return Path(networks) / f"tnn-{data}-{seed}.safetensors"


def _train(*, seed: int, data: str, data_dir: str | None, networks: str) -> dict:
    file = network_file(networks, data, seed)
    if file.exists():
        return json.loads(load_arrays(file)[1]["training"])
    model, record = train_tnn(dataset(data, data_dir), seed=seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    save_arrays(file, arrays, metadata={"training": json.dumps(asdict(record))})
    return asdict(record)


def network(data: str, networks: str, seed: int) -> CompactTNN:
    """A trained network, in double precision and evaluation mode."""
    arrays, _ = load_arrays(network_file(networks, data, seed))
    classes, features = np.shape(arrays["head.weight"])
    (first,) = (a for name, a in arrays.items() if name.startswith("mpo.") and name.endswith(".0"))
    bond = first.shape[-1]
    model = CompactTNN(inputs=features, bond=bond, classes=classes, seed=seed)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.double().eval()


def trained_dense(
    images: Dataset, networks: str, seed: int, *, hidden: Sequence[int]
) -> nn.Sequential:
    """A dense network from the folder, where it is put if need be; double precision, to evaluate.

    Two processes that want the same one at the same time both train it, to the same weights.
    """
    sizes = (images.features, *hidden, images.classes)
    file = Path(networks) / f"{'-'.join(map(str, sizes))}-{images.name}-{seed}.safetensors"
    if not file.exists():
        model, record = train_dense(images, hidden=hidden, seed=seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
        save_arrays(file, arrays, metadata={"training": json.dumps(asdict(record))})
    model = dense_network(sizes)
    arrays, _ = load_arrays(file)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    return model.double().eval()


def submodule(model: nn.Module, name: str) -> Any:
    """A module of a network by its name; which class it has the caller knows."""
    return model.get_submodule(name)
