"""Monarch matrices as trained layers, a baseline beside MPO and hybrid ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.conventions import check_legs, crop, pad, padded_shape
from mpodis.nn.layers import check_bias, check_inputs
from mpodis.structured.monarch import FactorLayout, nearest_factors

__all__ = ["MonarchLinear"]


class MonarchLinear(nn.Module):
    """Linear layer whose weight is a Monarch matrix of two factors, both trained.

    Parameters
    ----------
    matrix : array (inputs, outputs)
        Its nearest Monarch matrix (arXiv 2204.00595, one SVD a block) is the weight at the start:
        itself, where it is one.
    legs : two pairs of (input, output)
    rank, reverse
        See `mpodis.monarch`.
    bias : array (outputs,), optional
    dtype : torch.dtype

    Attributes
    ----------
    parameters_used : int
        Values between an input and an output that exist; padding is stored but never felt.
    """

    def __init__(
        self,
        matrix,
        legs: Sequence[Sequence[int]],
        *,
        rank: int = 1,
        reverse: bool = False,
        bias=None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        legs = check_legs(legs)
        if len(legs) != 2:
            raise ValueError(f"legs={legs} must be two pairs, one a factor")
        matrix = np.asarray(matrix)
        self.inputs, self.outputs = matrix.shape
        layout = FactorLayout.build(legs, rank, reverse=reverse)
        self.parameters_used = layout.parameters(matrix.shape)
        factors = nearest_factors(layout, layout.reorder(pad(matrix, legs)))
        # (s, i, o, r) and (o, r, s, q): the digit s is read by the second factor
        first = factors[0][0]
        second = factors[1][:, 0, :, :, 0]
        second = second.reshape(len(second), first.shape[3], -1, second.shape[2])
        self.first = nn.Parameter(torch.as_tensor(np.ascontiguousarray(first)).to(dtype))
        self.second = nn.Parameter(torch.as_tensor(np.ascontiguousarray(second)).to(dtype))
        rows, columns = (torch.from_numpy(np.argsort(order)) for order in layout.order)
        self.register_buffer("rows", rows, False)
        self.register_buffer("columns", columns, False)
        self._shape = padded_shape(legs)
        self.bias = (
            nn.Parameter(check_bias(bias, self.outputs, dtype)) if bias is not None else None
        )

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs), differentiable."""
        product = torch.einsum("sior,orsq->isoq", self.first, self.second).reshape(self._shape)
        ordered = product.index_select(0, self.rows).index_select(1, self.columns)
        return crop(ordered, (self.inputs, self.outputs))

    def forward(self, x: Tensor) -> Tensor:
        check_inputs(x, self.inputs)
        y = x @ self.weight()
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, bias={self.bias is not None}"
