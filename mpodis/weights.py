"""Operators in a user's files: weight matrices, MPOs and MPS; no code in them is ever run."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.conventions import padded_shape, to_numpy
from mpodis.files import array_metadata, check_format, load_arrays, save_arrays
from mpodis.mpo import Compressed, as_compressed
from mpodis.sites import legs_of, mpo_from_tensors, site_tensors

if TYPE_CHECKING:
    import torch
    from quimb.tensor import MatrixProductState

    from mpodis.mpo import Operator

__all__ = ["Weight", "holds_mpo", "load_mpo", "load_weight", "save_mpo"]

MPO_FORMAT = "mpodis-mpo-1"
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
            raise ValueError(f"{path.name} holds no matrix; name an array with layer=")
        if len(matrices) > 1:
            raise ValueError(
                f"{path.name} has {len(matrices)} matrices; choose one with layer=, of {listed}"
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


# --- tensor networks


def save_mpo(
    operator: Operator | MatrixProductState,
    path: str | os.PathLike,
    *,
    shape: tuple[int, int] | None = None,
) -> None:
    """Write an MPO or an MPS as one safetensors file, atomically.

    Parameters
    ----------
    operator : MatrixProductOperator, MatrixProductState or what `as_mpo` takes
        An MPS is stored as the operator of one column whose sites have legs (2, 1).
    path : path
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where the operator does not know it.

    Raises
    ------
    TypeError, ValueError
        As `as_mpo`, or if the shape does not lie within the operator, or an entry is NaN or
        infinite.

    Examples
    --------
    >>> import tempfile, quimb.tensor as qtn
    >>> file = Path(tempfile.mkdtemp()) / "ising.safetensors"
    >>> save_mpo(qtn.MPO_ham_ising(24), file)
    >>> load_mpo(file).bonds[:3]
    (3, 3, 3)
    """
    stored = as_compressed(_as_operator(operator), shape=shape)
    tensors = [to_numpy(tensor) for tensor in site_tensors(stored.mpo)]
    padded = padded_shape(legs_of(tensors))
    shape = (int(stored.shape[0]), int(stored.shape[1]))
    if not (1 <= shape[0] <= padded[0] and 1 <= shape[1] <= padded[1]):
        raise ValueError(f"shape={shape} does not lie within the operator's {padded}")
    if not all(np.isfinite(tensor).all() for tensor in tensors):
        raise ValueError("entries of the MPO are NaN or infinite")
    header = {
        "format": MPO_FORMAT,
        "shape": json.dumps(shape),
        "relative_error": json.dumps(float(stored.relative_error)),
    }
    save_arrays(path, {f"site.{k}": x for k, x in enumerate(tensors)}, metadata=header)


def load_mpo(path: str | os.PathLike) -> Compressed:
    """Read what `save_mpo` wrote: the MPO (``.mpo``), and its shape before zero padding.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is truncated or holds something else.
    """
    arrays, header = load_arrays(path)
    check_format(
        path, header.get("format"), MPO_FORMAT, what="an MPO; it was not written by `save_mpo`"
    )
    rows, columns = json.loads(header["shape"])
    tensors = [arrays[f"site.{k}"] for k in range(len(arrays))]
    error = json.loads(header["relative_error"])
    return Compressed(mpo_from_tensors(tensors), (rows, columns), error)


def holds_mpo(path: str | os.PathLike) -> bool:
    """Whether a file was written by `save_mpo`, by its header."""
    family, _, _ = MPO_FORMAT.rpartition("-")  # also of a version that cannot be read
    return array_metadata(path).get("format", "").startswith(f"{family}-")


def _as_operator(operator: Operator | MatrixProductState) -> Operator:
    """An MPS as the MPO with an output leg of dimension 1 on every site; the rest as it is."""
    from quimb.tensor import MatrixProductOperator, MatrixProductState

    if not isinstance(operator, MatrixProductState):
        return operator
    copy = operator.copy()
    for site in copy.gen_sites_present():
        tensor: Any = copy[site]
        tensor.new_ind(f"_output{site}", size=1)
    return copy.view_as_(
        MatrixProductOperator,
        cyclic=copy.cyclic,
        L=copy.L,
        site_tag_id=copy.site_tag_id,
        upper_ind_id=copy.site_ind_id,
        lower_ind_id="_output{}",
    )
