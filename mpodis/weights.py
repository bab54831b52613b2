"""Read one weight matrix out of a user's file. Nothing here can run code from the file."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Weight", "load_weight"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix in the row action (inputs, outputs), and where it came from."""

    matrix: np.ndarray
    name: str
    note: str


def load_weight(
    path: str | os.PathLike, *, layer: str | None = None, transpose: bool | None = None
) -> Weight:
    """One matrix (inputs, outputs) of a .npy, .npz, .safetensors or PyTorch state-dict file.

    Parameters
    ----------
    path : path
        State dicts are read weights-only; pickled objects are refused.
    layer : str, optional
        Name of the array; "fc1" finds "fc1.weight". Not needed where there is one matrix only.
    transpose : bool, optional
        Whether the file holds (outputs, inputs), as `torch.nn.Linear.weight` does. Default: yes
        for .safetensors, .pt, .pth and .bin, no for NumPy files.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file, a suffix that is not known, a truncated file or one with pickled objects,
        an unknown layer.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path.name}: files of type {path.suffix!r} are not read; use one of "
            f"{', '.join(SUFFIXES)}"
        )
    numpy_file = path.suffix in (".npy", ".npz")
    arrays = _numpy_arrays(path) if numpy_file else _tensors(path)
    name = _choose(arrays, layer, path)
    matrix = _as_array(arrays[name])
    turn = not numpy_file if transpose is None else transpose
    note = f"{path.name}: {name}, stored as {'(outputs, inputs)' if turn else '(inputs, outputs)'}"
    if matrix.ndim == 2 and turn:
        matrix = matrix.T
    return Weight(np.ascontiguousarray(matrix), name, note)


def _numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here, since np.load leaves the file of a truncated archive open
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.stem: loaded}
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # what a parser meets in damaged bytes is not limited to a few
        raise ValueError(_broken(path, error)) from None
    # members of an archive that are not in NumPy's format come as bytes
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _tensors(path: Path) -> dict:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            with warnings.catch_warnings():  # of torch's, on what is refused anyway
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise ValueError(_broken(path, error)) from None
    if isinstance(found, torch.Tensor):
        return {path.stem: found}
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state dict of tensors")
    return dict(_flat(found))


def _flat(found: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """The tensors of a state dict; those of dicts inside it, as of a checkpoint, as "model.fc1"."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif hasattr(value, "detach"):
            yield f"{prefix}{key}", value


def _as_array(array) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach()
    # numpy has neither bfloat16 nor floats of 8 bits
    narrow = array.is_floating_point() and array.itemsize < 4
    return (array.float() if narrow else array).numpy()


def _choose(arrays: dict, layer: str | None, path: Path) -> str:
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    listed = ", ".join(f"{n} {'x'.join(map(str, arrays[n].shape))}" for n in matrices) or "none"
    if layer is None:
        if len(arrays) == 1:
            return next(iter(arrays))
        if not matrices:
            raise ValueError(f"{path.name} holds no matrix")
        if len(matrices) > 1:
            raise ValueError(
                f"{path.name} has {len(matrices)} matrices; choose one with --layer: {listed}"
            )
        return matrices[0]
    for name in (layer, f"{layer}.weight"):
        if name in arrays:
            return name
    raise ValueError(f"{path.name} has no layer {layer!r}; its matrices are: {listed}")


def _broken(path: Path, error: Exception) -> str:
    # the libraries' further sentences tell how to load pickles after all
    reason = re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__
    return (
        f"{path} cannot be read ({reason[:160]}); it may be truncated, or hold pickled objects, "
        "which are never loaded"
    )
