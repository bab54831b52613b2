"""Arrays as users give them: cast and checked here, once, for every function.

Beyond this module arrays are plain: floating-point numbers of single or double precision in native
byte order and C order, without masks, gradients, lazy conjugations or subclasses. Their backend
(numpy, torch, jax) and device stay as they are unless a function wants numpy.

It is also the place for numbers of any size. Squares of 1e200 overflow, those of 1e-200 vanish. An
array is then worked on as array / 2^k, which is exact: what is computed has the bits that it has
for an array of ordinary size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from autoray import astype, do, get_dtype_name, infer_backend

from mpodis.conventions import Array, to_numpy

__all__ = [
    "as_array",
    "as_numpy",
    "check_finite",
    "is_tensor",
    "norm_parts",
    "rescaled",
    "rounding_of",
    "size_exponent",
    "times_power_of_two",
]

COMPUTED = ("float32", "float64", "complex64", "complex128")
"""The types that linear algebra has in every backend."""

SAFE = {"float32": 20, "complex64": 20}
"""Binary exponent up to which an entry, or its inverse, may be raised to the fourth power."""

DOUBLE_SAFE = 30
"""That of double precision."""


def as_array(value: Any, *, what: str = "array", gradients: bool = False) -> Array:
    """A plain array of float32, float64, complex64 or complex128, in the backend it came in.

    Integers, booleans and `numpy.longdouble` become double precision, narrower floats (float16,
    bfloat16, 8 bits) single. Lists and data frames become numpy arrays.

    Parameters
    ----------
    value : array, tensor, nested list
    what : str
        What the errors call it.
    gradients : bool
        Whether a tensor that requires gradients is still followed afterwards.

    Raises
    ------
    TypeError
        For masked, sparse, nested or quantised arrays that have no plain form, and for what is not
        made of numbers.
    ValueError
        If numbers are too large for double precision.
    """
    backend = infer_backend(value)
    if is_tensor(value):
        value = _plain_tensor(value, what, gradients)
    elif isinstance(value, np.ndarray) or backend in ("numpy", "builtins", "pandas"):
        return _plain_numpy(value, what)
    elif not hasattr(value, "__array__"):
        raise TypeError(f"the {what} is a {type(value).__name__}; give a dense array")
    name = get_dtype_name(value)
    if name in COMPUTED:
        return value
    if name == "bool" or "int" in name:
        return astype(value, "float64")
    if name.startswith(("float", "bfloat")):
        return astype(value, "float32")
    raise TypeError(_not_numbers(name, what))


def is_tensor(value: object) -> bool:
    """Whether a value is a tensor of torch, or of a subclass that is defined elsewhere."""
    return any(c.__module__ == "torch" and c.__name__ == "Tensor" for c in type(value).__mro__)


def as_numpy(value: Any, *, what: str = "array") -> np.ndarray:
    """`as_array` in numpy, on the CPU."""
    return to_numpy(as_array(value, what=what))


def _plain_numpy(value: Any, what: str) -> np.ndarray:
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"the {what} is a masked array, and masked entries have no value; give "
            "array.filled(0), or leave them out"
        )
    try:
        array = np.asarray(value)
    except ValueError:
        raise ValueError(f"the {what} is not rectangular; give rows of one length") from None
    dtype, name = array.dtype, array.dtype.name
    if dtype.kind in "biu":
        wanted = "float64"
    elif dtype.kind == "f":
        wanted = "float32" if dtype.itemsize <= 4 else "float64"
    elif dtype.kind == "c":
        wanted = "complex64" if dtype.itemsize <= 8 else "complex128"
    elif name.startswith(("bfloat16", "float8")):  # of the package ml_dtypes, which jax uses
        wanted = "float32"
    else:
        raise TypeError(_not_numbers(dtype, what))
    with np.errstate(over="ignore"):
        plain = np.asarray(array, dtype=wanted, order="C")
    if any(stride < 0 for stride in plain.strides):  # of an axis of length 1
        plain = plain.copy()
    if dtype.itemsize > plain.dtype.itemsize and dtype.kind in "fc":
        lost = int((np.isinf(plain) & np.isfinite(array)).sum())
        if lost:
            raise ValueError(
                f"{lost} entries of the {what} are beyond double precision; divide it by its norm"
            )
    return plain


def _not_numbers(dtype: object, what: str) -> str:
    return f"expected numbers, got an array of dtype {dtype} as the {what}"


def _plain_tensor(value: Any, what: str, gradients: bool) -> Any:
    """A strided tensor of torch's own class."""
    import torch

    if value.is_meta:
        raise TypeError(f"the {what} is on the meta device and has no entries; load them first")
    if value.is_quantized:
        value = value.dequantize()
    if value.is_nested or value.layout is not torch.strided:
        raise TypeError(
            f"the {what} is a tensor of layout {value.layout}, not a dense one; give .to_dense()"
        )
    ordinary: Any = torch.Tensor
    if type(value).__torch_dispatch__ is not ordinary.__torch_dispatch__:
        raise TypeError(
            f"the {what} is a {type(value).__name__}, whose entries only its own class knows; "
            "give an ordinary tensor, such as .dequantize() or .full_tensor()"
        )
    with torch._C.DisableTorchFunctionSubclass():  # a subclass would come back
        value = value if gradients else value.detach()
        value = value.as_subclass(torch.Tensor).resolve_conj().resolve_neg()
    if value.is_inference() and not torch.is_inference_mode_enabled():
        value = value.clone()  # autograd does not take such tensors
    if value.dtype is torch.complex32:
        return value.to(torch.complex64)
    if value.is_floating_point() and value.itemsize < 4:
        return value.float()
    return value


def rounding_of(value: Any) -> float:
    """The rounding error of a number near 1 in the type of an array as it was given."""
    name = get_dtype_name(value) if hasattr(value, "dtype") else "float64"
    narrow = {"float16": 2.0**-10, "complex32": 2.0**-10, "bfloat16": 2.0**-7}
    if name in narrow or name.startswith("float8"):
        return narrow.get(name, 2.0**-3)
    return 2.0**-23 if name in ("float32", "complex64") else 2.0**-52


def check_finite(array: Array, *, what: str, remedy: str) -> None:
    """A ValueError that counts the entries that are NaN or infinite."""
    size = math.prod(array.shape)
    bad = size - int(do("sum", do("isfinite", array)))
    if bad:
        raise ValueError(f"{bad} of {size} entries of the {what} are NaN or infinite; {remedy}")


# --- numbers of any size


def size_exponent(array: Array) -> int:
    """k with 2^(k-1) <= max |entry| < 2^k; 0 for zeros, no entries, NaN and infinities."""
    if not math.prod(array.shape):
        return 0
    # the absolute value of a complex number near the largest one overflows
    is_complex = "complex" in get_dtype_name(array)
    parts = (do("real", array), do("imag", array)) if is_complex else (array,)
    largest = max(float(do("max", do("abs", part))) for part in parts)
    return math.frexp(largest)[1]


def rescaled(array: Array) -> tuple[Array, int]:
    """array / 2^k and k, which is 0 unless powers of entries would overflow or vanish."""
    exponent = size_exponent(array)
    if abs(exponent) <= SAFE.get(get_dtype_name(array), DOUBLE_SAFE):
        return array, 0
    return times_power_of_two(array, -exponent), exponent


def times_power_of_two(array: Array, exponent: int) -> Array:
    """array * 2^exponent, exact.

    Raises
    ------
    OverflowError
        If an entry is too large for its type.
    """
    if not exponent:
        return array
    step = 100 if get_dtype_name(array) in SAFE else 1000
    left, found = exponent, array
    while left:
        part = max(-step, min(step, left))
        with np.errstate(over="ignore", under="ignore"):
            found = found * 2.0**part
        left -= part
    if exponent > 0 and not bool(do("all", do("isfinite", found))):
        raise OverflowError(
            f"entries of the result are too large for {get_dtype_name(array)}; divide the operator "
            "by its norm first"
        )
    return found


def norm_parts(array: Array) -> tuple[float, int]:
    """(m, k) with the Frobenius norm m 2^k, and m = 0 for zeros; no square overflows.

    k is 0 where the norm in the array's own type is far from over- and underflow.
    """
    with np.errstate(over="ignore", under="ignore"):
        size = float(do("linalg.norm", array))
    limit = 2.0**40 if get_dtype_name(array) in SAFE else 2.0**400
    if 1 / limit < size < limit:
        return size, 0
    exponent = size_exponent(array)
    return float(do("linalg.norm", times_power_of_two(array, -exponent))), exponent
