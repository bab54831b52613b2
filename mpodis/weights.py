"""Operators in a user's files: weight matrices, MPOs and MPS; no code in them is ever run."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mpodis.arrays import as_numpy
from mpodis.conventions import padded_shape, to_numpy
from mpodis.environments.arrays import available_memory
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
        For an unknown suffix, a truncated file or one with pickled objects, an unknown layer,
        several matrices of which none is named, one that does not fit into memory, and the codes of
        a quantised weight beside their scales.

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
    with _opened(path) as arrays:
        name = _choose({name: shape for name, (shape, _) in arrays.items()}, layer, path)
        shape, read = arrays[name]
        _check_size(path, name, shape)
        try:
            given = read()
        except Exception as error:  # a parser can raise anything on damaged bytes
            raise ValueError(_unreadable(path, error)) from None
        _check_codes(path, name, given, list(arrays))
        matrix = as_numpy(given, what=f"array {name} of {path.name}")
    transpose = not numpy_file if transpose is None else transpose
    axes = "(outputs, inputs)" if transpose else "(inputs, outputs)"
    note = f"{path.name}: {name}, stored as {axes}"
    if matrix.ndim == 2 and transpose:
        matrix = matrix.T
    return Weight(np.ascontiguousarray(matrix), name, note)


Arrays: TypeAlias = dict[str, tuple[tuple[int, ...], Callable[[], Any]]]
"""Shape of every array of a file, and a function that reads it: only what is asked for is read."""


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Arrays]:
    """What is in a file."""
    with contextlib.ExitStack() as stack:
        try:
            if path.suffix == ".npy":
                found = _npy(path, stack)
            elif path.suffix == ".npz":
                found = _npz(path, stack)
            elif path.suffix == ".safetensors":
                found = _safetensors(path, stack)
            else:
                found = _state_dict(path)
        except _NoTensors as error:
            raise ValueError(str(error)) from None
        except Exception as error:  # as above
            raise ValueError(_unreadable(path, error)) from None
        yield found


class _NoTensors(ValueError):
    """A file that can be read, and holds something else."""


def _npy(path: Path, stack: contextlib.ExitStack) -> Arrays:
    file = stack.enter_context(path.open("rb"))
    shape, size = _header(file)
    if file.tell() + size > path.stat().st_size:  # before numpy makes room for it
        raise ValueError(f"its header says {size:,} bytes of numbers, which are not there")
    file.seek(0)
    return {path.stem: (shape, lambda: np.load(file, allow_pickle=False))}


def _npz(path: Path, stack: contextlib.ExitStack) -> Arrays:
    archive = stack.enter_context(zipfile.ZipFile(path))
    found: Arrays = {}
    for member in archive.infolist():
        if not member.filename.endswith(".npy"):
            continue  # not an array
        with archive.open(member) as file:
            shape, size = _header(file)
        if size > member.file_size:
            raise ValueError(f"the header of {member.filename} says more numbers than it holds")
        name = member.filename.removesuffix(".npy")
        found[name] = shape, functools.partial(_member, archive, member)
    return found


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # to the end, where the checksum is compared
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], int]:
    """Shape of an array in NumPy's format, and the bytes of its numbers."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"version {version} of NumPy's format")
    shape, _, dtype = read[version](file)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects")
    return shape, math.prod(shape) * dtype.itemsize


def _safetensors(path: Path, stack: contextlib.ExitStack) -> Arrays:
    from safetensors import safe_open

    file: Any = stack.enter_context(safe_open(path, framework="pt"))
    return {
        name: (tuple(file.get_slice(name).get_shape()), functools.partial(file.get_tensor, name))
        for name in file.keys()  # noqa: SIM118
    }


def _state_dict(path: Path) -> Arrays:
    import torch

    with warnings.catch_warnings():  # torch warns about files that raise an error below
        warnings.simplefilter("ignore")
        # mapped, so that only the array that is chosen is read; older files cannot be
        mapped = zipfile.is_zipfile(path)
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if isinstance(found, torch.Tensor):
        found = {path.stem: found}
    if not isinstance(found, dict):
        raise _NoTensors(
            f"{path} holds a {type(found).__name__}, not a state dict of tensors; save "
            "model.state_dict()"
        )
    return {name: (tuple(x.shape), functools.partial(_itself, x)) for name, x in _flat(found)}


def _itself(x: Any) -> Any:
    return x


def _flat(found: dict, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a state dict; names of nested dicts are joined by dots."""
    import torch

    for key, value in found.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value


def _check_size(path: Path, name: str, shape: tuple[int, ...]) -> None:
    """A ValueError for an array that the memory does not hold in double precision."""
    size, available = 8 * math.prod(shape), available_memory()
    if size > available:
        raise ValueError(
            f"{name} of {path.name} has the shape {shape}, {size / 2**30:.3g} GiB in double "
            f"precision, and {available / 2**30:.3g} GiB of memory are available"
        )


def _check_codes(path: Path, name: str, array: Any, names: list[str]) -> None:
    """A ValueError for the codes of a quantised weight, which scales turn into numbers."""
    dtype = str(array.dtype)
    narrow = "int" in dtype or "float8" in dtype or "float4" in dtype
    prefix = name.rpartition(".")[0]
    scales = [
        other
        for other in names
        if other != name
        and other.startswith(prefix)
        and any(word in other.lower() for word in ("scale", "zero", "absmax", "scb", "quant"))
    ]
    if narrow and scales:
        raise ValueError(
            f"{name} of {path.name} holds codes of {dtype}, which {scales[0]} scales; save the "
            "weight itself (dequantised)"
        )


def _choose(shapes: Mapping[str, tuple[int, ...]], layer: str | None, path: Path) -> str:
    """Name of the layer's array, or of the only matrix."""
    matrices = [name for name, shape in shapes.items() if len(shape) == 2]
    listed = ", ".join(f"{n} {'x'.join(map(str, shapes[n]))}" for n in matrices[:20]) or "none"
    listed += f", and {len(matrices) - 20} more" * (len(matrices) > 20)
    if layer is None:
        if len(shapes) == 1:
            return next(iter(shapes))
        if not matrices:
            raise ValueError(f"{path.name} holds no matrix; name an array with layer=")
        if len(matrices) > 1:
            raise ValueError(
                f"{path.name} has {len(matrices)} matrices; choose one with layer=, of {listed}"
            )
        return matrices[0]
    for name in (layer, f"{layer}.weight"):
        if name in shapes:
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
    try:
        rows, columns = json.loads(header["shape"])
        tensors = [arrays[f"site.{k}"] for k in range(len(arrays))]
        error = float(json.loads(header["relative_error"]))
        return Compressed(mpo_from_tensors(tensors), (int(rows), int(columns)), error)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as reason:
        raise ValueError(
            f"{path} holds a damaged MPO ({type(reason).__name__}: {reason})"
        ) from None


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
