"""Dense linear layers, and what all linear layers of this folder share: seeds and checks."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.arguments import check_count, is_integer, plain_number, random_generator
from mpodis.arrays import as_array
from mpodis.conventions import to_numpy

__all__ = ["Seed", "linear_from_matrix", "seed_number", "seeded_linear", "torch_generator"]

Seed = int | np.random.Generator | torch.Generator | None


def torch_generator(seed: Seed = None) -> torch.Generator:
    """The torch generator that a seed stands for.

    Parameters
    ----------
    seed : int, numpy.random.Generator, torch.Generator or None
        A torch generator is returned as it is, a numpy generator gives the seed by its next draw,
        and None takes fresh entropy.
    """
    seed = plain_number(seed)
    if isinstance(seed, torch.Generator):
        return seed
    if not is_integer(seed):
        seed = int(random_generator(seed).integers(2**63))
    check_count("seed", seed, 0, most=2**64 - 1)
    return torch.Generator().manual_seed(seed)


def seed_number(seed: Seed) -> int | None:
    """The seed as a record keeps it: the number, or None for a generator or fresh entropy."""
    return int(seed) if is_integer(seed) else None


def uninitialized_linear(
    inputs: int, outputs: int, *, bias: bool, dtype: torch.dtype = torch.float32
) -> nn.Linear:
    """`torch.nn.Linear` with undefined values: its own draws would use torch's global generator."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias, dtype=dtype)
    return cast("nn.Linear", layer)  # skip_init is annotated to return a Module


def seeded_linear(inputs: int, outputs: int, *, bias: bool = True, seed: Seed) -> nn.Linear:
    """`torch.nn.Linear` with the distribution of its usual initial values, drawn from a seed.

    Parameters
    ----------
    inputs, outputs : int
    bias : bool
    seed : int, numpy.random.Generator, torch.Generator or None
    """
    generator = torch_generator(seed)
    layer = uninitialized_linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def linear_from_matrix(
    matrix: Tensor | np.ndarray,
    *,
    bias: Tensor | np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Linear:
    """`torch.nn.Linear` that computes ``x @ matrix + bias``; its ``weight`` is the transpose.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    bias : array (outputs,), optional
    dtype : torch.dtype
        A real floating type.

    Raises
    ------
    ValueError, TypeError
        If the array is not a real matrix, the bias does not fit it, or the dtype is not a real
        floating type.

    Examples
    --------
    >>> import numpy as np
    >>> linear_from_matrix(np.ones((3, 2)))(torch.ones(1, 3)).tolist()
    [[3.0, 3.0]]
    """
    check_real_dtype(dtype)
    matrix = as_tensor(matrix, what="matrix")
    if matrix.ndim != 2:
        raise ValueError(
            f"an array of shape {tuple(matrix.shape)} is not a weight; give a matrix "
            "(inputs, outputs)"
        )
    inputs, outputs = matrix.shape
    layer = uninitialized_linear(inputs, outputs, bias=bias is not None, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(copied(matrix, dtype).T)
        if bias is not None:
            layer.bias.copy_(checked_bias(bias, outputs, dtype))
    return layer


def as_tensor(value: Any, *, what: str = "array") -> Tensor:
    """A plain tensor of single or double precision, see `arrays.as_array`; it may share memory."""
    array = as_array(value, what=what)
    if isinstance(array, Tensor):
        return array
    array = to_numpy(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def copied(array: Tensor | np.ndarray, dtype: torch.dtype) -> Tensor:
    """A detached copy in the given dtype; a complex array is not cast to a real dtype."""
    array = as_tensor(array)
    if array.is_complex() and not dtype.is_complex:
        raise ValueError(f"an array of {array.dtype} does not fit a real layer; take its real part")
    return array.detach().to(dtype, copy=True)


def checked_bias(bias: Tensor | np.ndarray, outputs: int, dtype: torch.dtype) -> Tensor:
    """A copy of a bias (outputs,)."""
    bias = as_tensor(bias, what="bias")
    if tuple(bias.shape) != (outputs,):
        raise ValueError(f"bias of shape {tuple(bias.shape)} does not fit {outputs} outputs")
    return copied(bias, dtype)


def checked_shape(shape: tuple[int, int] | None, padded: tuple[int, int]) -> tuple[int, int]:
    """The (inputs, outputs) of a layer whose legs span `padded`; None stands for all of it."""
    if shape is None:
        return padded
    if len(shape) != 2 or not all(1 <= s <= p for s, p in zip(shape, padded, strict=True)):
        raise ValueError(
            f"shape={shape} does not fit into the {padded} that the legs span; "
            "the legs of a side must multiply to at least its size"
        )
    return shape[0], shape[1]


def check_real_dtype(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype} is not a real floating type; use torch.float32 or float64")


def check_inputs(x: Tensor, inputs: int) -> None:
    if not isinstance(x, Tensor) or not (x.is_floating_point() or x.is_complex()):
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x is of {kind}; give a tensor of floating-point numbers")
    if not x.ndim or x.shape[-1] != inputs:
        raise ValueError(
            f"x of shape {tuple(x.shape)} must have {inputs} features in its last axis"
        )
