"""Read one weight matrix from a user's file, without running any code from it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["Weight", "load_weight"]

SUFFIXES = (".npy", ".npz", ".safetensors", ".pt", ".pth", ".bin")


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix and its origin.

    Attributes
    ----------
    matrix : array (inputs, outputs)
        In the row action ``x @ matrix``.
    name : str
        Of the array in the file.
    note : str
        File, name, and the order in which the file has the axes.
    """

    matrix: np.ndarray
    name: str
    note: str


def load_weight(
    path: str | os.PathLike, *, layer: str | None = None, transpose: bool | None = None
) -> Weight:
    """Read one matrix from a .npy, .npz, .safetensors or PyTorch state-dict file.

    Parameters
    ----------
    path : path
        A state dict is read in torch's weights-only mode, without unpickling other objects.
    layer : str, optional
        Name of the array; "fc1" also finds "fc1.weight". Not needed if the file has one matrix.
    transpose : bool, optional
        Whether the file has the axes (outputs, inputs), as `torch.nn.Linear.weight` does. Default:
        yes for .safetensors, .pt, .pth and .bin, no for NumPy files.

    Returns
    -------
    Weight
        An array that the `layer` names is returned with any number of axes.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For an unknown suffix, a truncated file or one with pickled objects, an unknown layer, and
        several matrices of which none is named.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "fc.npy"
    >>> np.save(file, np.ones((3, 2)))
    >>> load_weight(file).note
    'fc.npy: fc, stored as (inputs, outputs)'
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path")
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{path.name}: files of type {path.suffix!r} are not read; use one of "
            f"{', '.join(SUFFIXES)}"
        )
    numpy_file = path.suffix in (".npy", ".npz")
    arrays = _numpy_arrays(path) if numpy_file else _tensors(path)
    name = _choose(arrays, layer, path)
    matrix = _as_array(arrays[name])
    transpose = not numpy_file if transpose is None else transpose
    axes = "(outputs, inputs)" if transpose else "(inputs, outputs)"
    note = f"{path.name}: {name}, stored as {axes}"
    if matrix.ndim == 2 and transpose:
        matrix = matrix.T
    return Weight(np.ascontiguousarray(matrix), name, note)


def _numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        # opened here, since np.load does not close a truncated archive
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {path.stem: loaded}
            with loaded:
                arrays = {name: loaded[name] for name in loaded.files}
    except Exception as error:  # a parser can raise anything on damaged bytes
        raise ValueError(_unreadable(path, error)) from None
    # members of an archive that are not in NumPy's format are returned as bytes
    return {name: array for name, array in arrays.items() if isinstance(array, np.ndarray)}


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            with warnings.catch_warnings():  # torch warns about files that raise an error below
                warnings.simplefilter("ignore")
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # as above
        raise ValueError(_unreadable(path, error)) from None
    if isinstance(found, torch.Tensor):
        return {path.stem: found}
    if not isinstance(found, dict):
        raise ValueError(
            f"{path} holds a {type(found).__name__}, not a state dict of tensors; save "
            "model.state_dict()"
        )
    return dict(_flat(found))


def _flat(found: dict, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state dict; names of nested dicts are joined by dots."""
    import torch

    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value


def _as_array(array: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(array, np.ndarray):
        return array
    array = array.detach()
    # numpy has neither bfloat16 nor 8-bit floats
    narrow = array.is_floating_point() and array.itemsize < 4
    return (array.float() if narrow else array).numpy()


def _choose(arrays: Mapping[str, np.ndarray | torch.Tensor], layer: str | None, path: Path) -> str:
    """Name of the layer's array, or of the only matrix."""
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    listed = ", ".join(f"{n} {'x'.join(map(str, arrays[n].shape))}" for n in matrices) or "none"
    if layer is None:
        if len(arrays) == 1:
            return next(iter(arrays))
        if not matrices:
            raise ValueError(f"{path.name} holds no matrix; name an array with --layer")
        if len(matrices) > 1:
            raise ValueError(
                f"{path.name} has {len(matrices)} matrices; choose one with --layer: {listed}"
            )
        return matrices[0]
    for name in (layer, f"{layer}.weight"):
        if name in arrays:
            return name
    raise ValueError(f"{path.name} has no layer {layer!r}; its matrices are: {listed}")


def _unreadable(path: Path, error: Exception) -> str:
    # only the first sentence: the libraries' further ones advise to load pickles after all
    reason = re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__
    return (
        f"{path} cannot be read ({reason[:160]}); it may be truncated, or hold pickled objects, "
        "which are never loaded: save plain arrays or a state dict"
    )
