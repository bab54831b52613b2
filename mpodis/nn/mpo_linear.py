"""`MPOLinear`: a trained linear layer whose weight is a matrix product operator.

It acts on rows, ``y = x @ W + bias`` with W of shape (inputs, outputs), on any leading axes of x.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.arguments import is_integer
from mpodis.arrays import as_numpy
from mpodis.conventions import Legs, check_legs, crop, padded_shape
from mpodis.nn.linear import (
    Seed,
    check_inputs,
    check_real_dtype,
    checked_bias,
    checked_shape,
    copied,
    torch_generator,
)
from mpodis.sites import mpo_from_tensors, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["MPOLinear"]

log = logging.getLogger(__name__)


class MPOLinear(nn.Module):
    """Linear layer with an MPO as its weight, all of whose site tensors are trained.

    Up to a few thousand inputs each call builds the dense weight and multiplies once, which is
    faster than contracting the batch with one site tensor after the other; for wider layers the
    batch is contracted site by site.

    Parameters
    ----------
    legs : sequence of (input, output)
        Dimensions of every site, e.g. ``((7, 4), (2, 2), (7, 4))``; site 0 is the most significant.
    bond : int or sequence of int
        Bond dimension, one for all or one for each of the ``len(legs) - 1`` bonds. A value above
        the largest rank that a bond can have is reduced to that rank, and this is logged.
    bias : bool
        Add a trained bias, initially zero.
    shape : (inputs, outputs), optional
        Size of x and y if smaller than what the legs span: x is padded with zeros and y cropped.
    dtype : torch.dtype
        A real floating type.
    seed : int, numpy.random.Generator, torch.Generator or None
        Of the initial site tensors: Gaussian, scaled by one common factor such that
        ``|W|^2 = outputs``. White inputs of unit variance then give outputs of unit variance on
        average.

    Attributes
    ----------
    site_tensors : torch.nn.ParameterList
        One tensor (left bond, input, output, right bond) per site, outer bonds of size 1.
    bias : torch.nn.Parameter (outputs,) or None

    Raises
    ------
    ValueError, TypeError
        If the legs are not pairs of positive integers, a bond dimension is below 1, the shape is
        larger than what the legs span, or the dtype is not a real floating type.

    Examples
    --------
    >>> layer = MPOLinear(((2, 2), (2, 2), (2, 1)), bond=2, seed=0)
    >>> layer(torch.ones(5, 8)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        legs: Sequence[Sequence[int]],
        bond: int | Sequence[int],
        *,
        bias: bool = False,
        shape: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        check_real_dtype(dtype)
        self.legs = check_legs(legs)
        self.inputs, self.outputs = checked_shape(shape, padded_shape(self.legs))
        self._padded_inputs = padded_shape(self.legs)[0]
        bonds = [1, *_reachable_bonds(self.legs, bond), 1]
        generator = torch_generator(seed)
        tensors = [
            torch.randn(left, i, o, right, dtype=torch.float64, generator=generator)
            for left, (i, o), right in zip(bonds[:-1], self.legs, bonds[1:], strict=True)
        ]
        weight = crop(_to_dense(tensors), (self.inputs, self.outputs))
        scale = (math.sqrt(self.outputs) / weight.norm().item()) ** (1 / len(tensors))
        self.set_site_tensors((scale * tensor).to(dtype) for tensor in tensors)
        self.bias = nn.Parameter(torch.zeros(self.outputs, dtype=dtype)) if bias else None
        self.register_load_state_dict_pre_hook(_rename_cores)

    @classmethod
    def from_mpo(
        cls,
        mpo: MatrixProductOperator,
        *,
        shape: tuple[int, int] | None = None,
        bias: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MPOLinear:
        """The layer whose weight is a given real MPO, with its bond dimensions.

        Parameters
        ----------
        mpo : quimb.tensor.MatrixProductOperator
        shape : (inputs, outputs), optional
            As in the class.
        bias : array (outputs,), optional
        dtype : torch.dtype
            A real floating type.

        Raises
        ------
        ValueError
            If the MPO is complex, or the shape or the bias does not fit it.
        """
        arrays = [as_numpy(tensor, what="MPO") for tensor in site_tensors(mpo)]
        layer = cls([array.shape[1:3] for array in arrays], 1, shape=shape, dtype=dtype, seed=0)
        layer.set_site_tensors(copied(array, dtype) for array in arrays)
        if bias is not None:
            layer.bias = nn.Parameter(checked_bias(bias, layer.outputs, dtype))
        return layer

    def set_site_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Put new parameters in the place of all site tensors."""
        self.site_tensors = nn.ParameterList([nn.Parameter(tensor) for tensor in tensors])

    @property
    def bonds(self) -> tuple[int, ...]:
        """Bond dimensions between neighbouring sites."""
        return tuple(tensor.shape[0] for tensor in self.site_tensors)[1:]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the site tensors; complex in the core of a complex `HybridLinear`."""
        return self.site_tensors[0].dtype

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs), differentiable."""
        return crop(_to_dense(list(self.site_tensors)), (self.inputs, self.outputs))

    def to_mpo(self) -> MatrixProductOperator:
        """quimb's MPO of the padded weight, numpy arrays of double precision, detached."""
        kind = torch.complex128 if self.dtype.is_complex else torch.float64
        return mpo_from_tensors(
            [tensor.detach().cpu().to(kind).numpy().copy() for tensor in self.site_tensors]
        )

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by their kind, for `parameter_table`."""
        bias = [] if self.bias is None else [self.bias]
        return {"MPO": list(self.site_tensors.parameters()), "dense": bias}

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight + bias`` of a batch (..., inputs)."""
        check_inputs(x, self.inputs)
        y = self.without_bias(x)
        return y if self.bias is None else y + self.bias

    def without_bias(self, x: Tensor) -> Tensor:
        """x @ W, by the dense weight or site by site, whichever costs less."""
        # a ParameterList is slow to read
        rows, tensors = x.numel() // self.inputs, list(self.site_tensors)
        if not site_by_site_is_cheaper(self.legs, [t.shape[0] for t in tensors[1:]], rows):
            return x @ crop(_to_dense(tensors), (self.inputs, self.outputs))
        flat = x.reshape(rows, self.inputs)
        padded = nn.functional.pad(flat, (0, self._padded_inputs - self.inputs))
        parts = [_site_by_site(tensors, part) for part in padded.split(_ROWS)]
        y = (parts[0] if len(parts) == 1 else torch.cat(parts))[:, : self.outputs]
        return y.reshape(*x.shape[:-1], self.outputs)

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, legs={self.legs}, "
            f"bonds={self.bonds}, bias={self.bias is not None}"
        )


def _rename_cores(layer: MPOLinear, weights: dict[str, Any], prefix: str, *_: Any) -> None:
    """Read weights stored by mpodis 0.1, which called the site tensors "cores"."""
    for k in range(len(layer.legs)):
        if (old := f"{prefix}cores.{k}") in weights:
            weights[f"{prefix}site_tensors.{k}"] = weights.pop(old)


def _to_dense(tensors: list[Tensor]) -> Tensor:
    """Dense (rows, columns) matrix of an MPO, contracted from both ends towards the middle.

    Only one large product is left. The number of operations matters, since autograd records each:
    axes are permuted once per half, and `torch.mm` costs less per call than `torch.matmul`.
    """
    half = (len(tensors) + 1) // 2
    left, i, o = _half_to_dense(tensors[:half])
    if half == len(tensors):
        return left.reshape(i, o)
    right, j, p = _half_to_dense(tensors[half:])
    whole = torch.mm(left.reshape(i * o, -1), right.reshape(-1, j * p))
    return whole.view(i, o, j, p).transpose(1, 2).reshape(i * j, o * p)


def _half_to_dense(tensors: list[Tensor]) -> tuple[Tensor, int, int]:
    """Neighbouring site tensors as one, and its numbers of rows and columns.

    The axes are (left bond, inputs ..., outputs ..., right bond).
    """
    whole = tensors[0]
    for tensor in tensors[1:]:
        m = tensor.shape[0]
        whole = torch.mm(whole.reshape(-1, m), tensor.reshape(m, -1))
    legs = [size for tensor in tensors for size in tensor.shape[1:3]]
    rows, columns = range(1, len(legs), 2), range(2, len(legs) + 1, 2)
    shape = tensors[0].shape[0], *legs, tensors[-1].shape[3]
    ordered = whole.reshape(shape).permute(0, *rows, *columns, len(legs) + 1)
    return ordered, math.prod(legs[::2]), math.prod(legs[1::2])


_ROWS = 128
"""Rows that are contracted with the sites together: with more, the cache is too small."""

_SMALL_PRODUCT_COST = 20
"""Cost of one operation in a small product, in operations of one large product (measured)."""


def site_by_site_is_cheaper(legs: Sequence[Sequence[int]], bonds: Sequence[int], rows: int) -> bool:
    """Whether a batch is better contracted site by site than multiplied by the dense weight."""
    inputs = outputs = done = 1
    for i, o in legs:
        inputs, outputs = inputs * i, outputs * o
    ends = [1, *bonds, 1]
    left, small = inputs, 0
    for (i, o), a, b in zip(legs, ends[:-1], ends[1:], strict=True):
        left //= i
        small += rows * done * left * a * i * o * b
        done *= o
    return _SMALL_PRODUCT_COST * small < (rows + max(ends)) * inputs * outputs


def _site_by_site(tensors: list[Tensor], x: Tensor) -> Tensor:
    """x (rows, inputs) contracted with one site tensor after the other, one product each.

    Axes between two sites are (bond, inputs still to come, rows, outputs so far): a site takes its
    input from the front and appends its output at the back.
    """
    z, others, outputs = x.T, x.shape[0] * x.shape[1], 1  # sizes in full, for a batch without rows
    for tensor in tensors:
        a, i, o, b = tensor.shape
        matrix = tensor.permute(2, 3, 0, 1).reshape(o * b, a * i)
        others = others // i
        z = (matrix @ z.reshape(a * i, others)).reshape(o, b * others).T
        others, outputs = others * o, outputs * o
    return z.reshape(x.shape[0], outputs)


def _reachable_bonds(legs: Legs, bond: int | Sequence[int]) -> list[int]:
    """One bond dimension per bond, at most the largest rank the bond can have."""
    n = len(legs) - 1
    bonds = list(bond) if isinstance(bond, Sequence) else [bond] * n
    if len(bonds) != n or not all(map(is_integer, bonds)) or min(bonds, default=1) < 1:
        raise ValueError(
            f"bond={bond!r} must be a whole number, 1 or more, or {n} of them for {n + 1} sites"
        )
    sizes = [i * o for i, o in legs]
    exact = [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, n + 1)]
    clipped = [min(int(b), e) for b, e in zip(bonds, exact, strict=True)]
    if clipped != bonds:
        # one integer means "up to the largest rank", which legs of dimension 1 may lower
        full = [max(i, o) ** 2 for i, o in legs]
        usual = [min(math.prod(full[:k]), math.prod(full[k:])) for k in range(1, n + 1)]
        lowered = any(e < min(b, u) for b, e, u in zip(bonds, exact, usual, strict=True))
        expected = not isinstance(bond, Sequence) and not lowered
        log.log(
            logging.INFO if expected else logging.WARNING,
            "bond dimensions %s cannot be reached on legs %s and are clipped to %s",
            *(bonds, legs, clipped),
        )
    return clipped
