"""The order of indices (sites, legs, padding, bits) and the backends of arrays.

Only this module converts between orders, and between numpy and the caller's backend.

Row action everywhere, as Eq. 7 of arXiv 2509.06653v1: ``y = x @ W`` with W of shape (inputs,
outputs); ``torch.nn.Linear.weight`` is its transpose. Site 0 is the most significant bit of both
the row (input) and the column (output) number. In quimb's names the upper leg ``k{i}`` is the
input of site i and the lower leg ``b{i}`` its output.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from autoray import astype, do, get_common_dtype, get_dtype_name, infer_backend

from mpodis.arguments import as_shape

__all__ = [
    "COMPLEX",
    "Array",
    "Legs",
    "as_like",
    "check_legs",
    "crop",
    "fuse",
    "in_one_backend",
    "pad",
    "padded_shape",
    "promoted",
    "qargs",
    "qubit_legs",
    "split",
    "to_numpy",
    "wires",
]

Array: TypeAlias = Any
"""An array of numpy, torch, jax or another library that autoray knows."""

COMPLEX = {"float32": "complex64", "float64": "complex128"}
"""The complex dtype of each precision."""

Legs: TypeAlias = tuple[tuple[int, int], ...]
"""(input, output) dimension of every site."""


def qubit_legs(inputs: int, outputs: int, *, align: str = "centre") -> Legs:
    """Legs of a qubit MPO that holds an (inputs, outputs) matrix.

    Both dimensions are rounded up to powers of two, 2^p and 2^q, and spread over max(p, q) sites.
    The side with fewer qubits has legs of dimension 1 on the other sites, at both ends with
    `align` "centre", all before its qubits with "right", all behind them with "left".

    Examples
    --------
    >>> qubit_legs(64, 10)
    ((2, 1), (2, 2), (2, 2), (2, 2), (2, 2), (2, 1))
    """
    if inputs < 1 or outputs < 1:
        raise ValueError(f"a matrix of shape ({inputs}, {outputs}) is empty; give at least 1 x 1")
    p, q = ((dimension - 1).bit_length() for dimension in (inputs, outputs))
    n = max(p, q, 1)
    return tuple(zip(_spread(p, n, align), _spread(q, n, align), strict=True))


def _spread(bits: int, n: int, align: str) -> list[int]:
    """Dimensions of n legs of which `bits` are qubits."""
    before = {"left": 0, "centre": (n - bits) // 2, "right": n - bits}
    if align not in before:
        raise ValueError(f"align={align!r} is not known; use one of {', '.join(before)}")
    return [2 if before[align] <= i < before[align] + bits else 1 for i in range(n)]


def check_legs(legs: Sequence[Sequence[int]]) -> Legs:
    """Legs as a tuple of (input, output) pairs of positive integers, or a ValueError."""
    try:
        pairs = tuple((operator.index(i), operator.index(o)) for i, o in legs)
    except (TypeError, ValueError):
        raise ValueError(
            f"legs={legs!r} is not a sequence of (input, output) pairs; "
            "write e.g. ((2, 2), (2, 2)) for two qubit sites"
        ) from None
    if not pairs or min(min(pair) for pair in pairs) < 1:
        raise ValueError(f"legs={legs!r} must name at least one site, every dimension 1 or more")
    return pairs


def padded_shape(legs: Legs) -> tuple[int, int]:
    """(rows, columns) of the dense matrix that the legs span."""
    return math.prod(i for i, _ in legs), math.prod(o for _, o in legs)


def wires(legs: Legs, side: str) -> tuple[int, ...]:
    """Sites on which the circuit of a side ("left": inputs, "right": outputs) has a wire.

    Raises
    ------
    ValueError
        If a leg of that side is neither 1 nor 2: a circuit acts on qubits only.
    """
    dims = [leg[{"left": 0, "right": 1}[side]] for leg in legs]
    wrong = [d for d in dims if d not in (1, 2)]
    if wrong:
        raise ValueError(
            f"the {side} legs {tuple(dims)} hold a dimension {wrong[0]}; circuits act on qubits, "
            "so compress with the default (qubit) legs"
        )
    return tuple(i for i, d in enumerate(dims) if d == 2)


def pad(matrix: Array, legs: Legs) -> Array:
    """Zero-pad an (inputs, outputs) matrix to `padded_shape(legs)`, at the end of each axis."""
    rows, columns = padded_shape(legs)
    if matrix.shape[0] > rows or matrix.shape[1] > columns:
        raise ValueError(
            f"sites with legs {legs} span a {rows} x {columns} matrix, "
            f"too small for the shape {tuple(matrix.shape)}; the legs of a side must multiply "
            "to at least its dimension"
        )
    if matrix.shape == (rows, columns):
        return matrix
    return do("pad", matrix, ((0, rows - matrix.shape[0]), (0, columns - matrix.shape[1])))


def crop(matrix: Array, shape: tuple[int, int] | None) -> Array:
    """Undo `pad`: the leading block of the given (inputs, outputs) shape."""
    if shape is None:
        return matrix
    inputs, outputs = as_shape(shape)
    if inputs > matrix.shape[0] or outputs > matrix.shape[1]:
        raise ValueError(f"cannot crop a matrix of shape {tuple(matrix.shape)} to {tuple(shape)}")
    if (inputs, outputs) == tuple(matrix.shape):  # a slice would be one more step of a gradient
        return matrix
    return matrix[:inputs, :outputs]


def split(matrix: Array, legs: Legs) -> Array:
    """Dense (rows, columns) matrix -> tensor with one fused (input, output) index per site."""
    n = len(legs)
    tensor = matrix.reshape([i for i, _ in legs] + [o for _, o in legs])
    tensor = do("transpose", tensor, [k for s in range(n) for k in (s, n + s)])
    return tensor.reshape([i * o for i, o in legs])


def fuse(tensor: Array, legs: Legs) -> Array:
    """Inverse of `split`: tensor over sites -> dense (rows, columns) matrix."""
    n = len(legs)
    tensor = tensor.reshape([d for leg in legs for d in leg])
    tensor = do("transpose", tensor, [2 * s for s in range(n)] + [2 * s + 1 for s in range(n)])
    return tensor.reshape(padded_shape(legs))


def qargs(wires: Sequence[int], n: int) -> list[int]:
    """Qiskit's qubits of a gate on the given wires of an n-wire circuit.

    Qiskit is little-endian: wire k is qubit n-1-k, and the first wire of a gate, its most
    significant bit, comes last. Neither `reverse_bits()` nor the naive order does this.
    """
    return [n - 1 - k for k in reversed(wires)]


def to_numpy(array: Array) -> np.ndarray:
    """The array in numpy, on the CPU and without gradients."""
    if infer_backend(array) == "torch":
        array = array.resolve_conj().resolve_neg()
    return do("to_numpy", array)


def as_like(array: np.ndarray, other: Array, *, dtype: str | None = None) -> Array:
    """A numpy array in the backend and on the device of another one.

    Its dtype is the one given, or has the precision of the other array; complex stays complex.
    """
    if dtype is None:
        dtype = get_dtype_name(other)
        if array.dtype.kind == "c":
            dtype = COMPLEX.get(dtype, dtype)
    array = array.astype(dtype, copy=False)
    if infer_backend(other) == "torch":
        return do("asarray", array, like=other).to(other.device)
    return do("asarray", array, like=other)


def in_one_backend(arrays: Sequence[Array]) -> list[Array]:
    """The arrays as they are; in numpy where they come from several libraries."""
    if len({infer_backend(array) for array in arrays}) > 1:
        return [to_numpy(array) for array in arrays]
    return list(arrays)


def promoted(arrays: Sequence[Array]) -> list[Array]:
    """The arrays in one dtype, as numpy would promote them; torch multiplies no mixed ones."""
    names = {get_dtype_name(array) for array in arrays}
    if len(names) <= 1:
        return list(arrays)
    dtype = get_common_dtype(*arrays)
    return [astype(array, dtype) for array in arrays]
