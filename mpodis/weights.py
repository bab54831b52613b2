"""Read one weight matrix out of a user's file. Nothing here can run code from the file."""

from __future__ import annotations

import os
import zipfile
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
    matrix = arrays[name]
    turn = not numpy_file if transpose is None else transpose
    note = f"{path.name}: {name}, stored as {'(outputs, inputs)' if turn else '(inputs, outputs)'}"
    if matrix.ndim == 2 and turn:
        matrix = matrix.T
    return Weight(np.ascontiguousarray(matrix), name, note)


def _numpy_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {path.stem: loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(_broken(path, error)) from None


def _tensors(path: Path) -> dict[str, np.ndarray]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ValueError(_broken(path, error)) from None
    except Exception as error:  # the unpickler's own error class is not public
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ValueError(_broken(path, error)) from None
    if isinstance(found, torch.Tensor):
        found = {path.stem: found}
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not a state dict of tensors")
    tensors = {str(k): v.detach() for k, v in found.items() if isinstance(v, torch.Tensor)}
    # numpy has no bfloat16
    return {k: (v.float() if v.dtype == torch.bfloat16 else v).numpy() for k, v in tensors.items()}


def _choose(arrays: dict[str, np.ndarray], layer: str | None, path: Path) -> str:
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    listed = ", ".join(f"{n} {'x'.join(map(str, arrays[n].shape))}" for n in matrices) or "none"
    if layer is None:
        if len(arrays) == 1:
            return next(iter(arrays))
        if len(matrices) != 1:
            raise ValueError(
                f"{path.name} has {len(matrices)} matrices; choose one with --layer: {listed}"
            )
        return matrices[0]
    for name in (layer, f"{layer}.weight"):
        if name in arrays:
            return name
    raise ValueError(f"{path.name} has no layer {layer!r}; its matrices are: {listed}")


def _broken(path: Path, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"{path} cannot be read ({reason[:160]}); it may be truncated, or hold pickled objects, "
        "which are never loaded"
    )
