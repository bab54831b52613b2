"""`MonarchLinear`: a Monarch matrix as a trained layer, a baseline for MPO and hybrid layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.conventions import check_legs, crop, pad, padded_shape
from mpodis.mpo import check_matrix
from mpodis.nn.linear import check_inputs, checked_bias
from mpodis.structured.monarch import FactorLayout, nearest_factors

__all__ = ["MonarchLinear"]


class MonarchLinear(nn.Module):
    """Linear layer whose weight is a Monarch matrix of two factors, both trained.

    Parameters
    ----------
    matrix : array (inputs, outputs)
        The initial weight is its nearest Monarch matrix (arXiv 2204.00595, one SVD per block).
    legs : two pairs of (input, output)
    rank, reverse
        See `mpodis.monarch`.
    bias : array (outputs,), optional
    dtype : torch.dtype

    Attributes
    ----------
    parameters_used : int
        Number of values that affect an output; those that only meet padding are stored, too.

    Raises
    ------
    ValueError
        If the legs are not two pairs, or do not fit the matrix or the bias.

    Examples
    --------
    >>> MonarchLinear(np.eye(6), ((2, 3), (3, 2)))(torch.ones(4, 6)).shape
    torch.Size([4, 6])
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        matrix: Tensor | np.ndarray,
        legs: Sequence[Sequence[int]],
        *,
        rank: int = 1,
        reverse: bool = False,
        bias: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        legs = check_legs(legs)
        if len(legs) != 2:
            raise ValueError(f"legs={legs} must be two pairs, one for each factor")
        matrix = check_matrix(matrix)
        self.inputs, self.outputs = matrix.shape
        layout = FactorLayout.build(legs, rank, reverse=reverse)
        self.parameters_used = layout.parameters(matrix.shape)
        factors = nearest_factors(layout, layout.reorder(pad(matrix, legs)))
        # axes (s, i, o, r) and (o, r, s, q): the second factor acts on the input's digit s
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
            nn.Parameter(checked_bias(bias, self.outputs, dtype)) if bias is not None else None
        )

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs), differentiable."""
        product = torch.einsum("sior,orsq->isoq", self.first, self.second).reshape(self._shape)
        ordered = product.index_select(0, self.rows).index_select(1, self.columns)
        return crop(ordered, (self.inputs, self.outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight + bias`` of a batch (..., inputs)."""
        check_inputs(x, self.inputs)
        y = x @ self.weight()
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, bias={self.bias is not None}"
