"""`FactorizedLinear`: an explicit solution Q_L M' Q_R as a linear layer without parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.conventions import Array
from mpodis.nn.linear import check_inputs, check_real_dtype, checked_bias, copied

if TYPE_CHECKING:
    from mpodis.factorization import Factorization

__all__ = ["FactorizedLinear"]


class FactorizedLinear(nn.Module):
    """Frozen linear layer ``y = ((x @ Q_L) @ M') @ Q_R (+ bias)``, multiplied in this order.

    The layer holds buffers and no parameters. The parts of a complex factorization are stored in
    real arithmetic, real and imaginary parts side by side: the product of the complex matrices is
    kept, except for the imaginary part of y, which must be negligible.

    Parameters
    ----------
    factorization : Factorization
    bias : array (outputs,), optional
    dtype : torch.dtype
        A real floating type.

    Attributes
    ----------
    left, core, right : Tensor
        Dense matrices, without the rows of Q_L and the columns of Q_R that stand for padding.

    Raises
    ------
    ValueError
        If the matrix of the factorization has an imaginary part above rounding errors, or the bias
        does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import mpodis
    >>> found = mpodis.disentangle(mpodis.compress(np.eye(4)).mpo, depth=1)
    >>> FactorizedLinear(found.factorization)(torch.ones(3, 4)).shape
    torch.Size([3, 4])
    """

    left: Tensor
    core: Tensor
    right: Tensor
    bias: Tensor | None

    def __init__(
        self,
        factorization: Factorization,
        *,
        bias: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        check_real_dtype(dtype)
        self.inputs, self.outputs = factorization.shape
        # Zero-padding x and cropping y is the same as cropping the rows of Q_L, columns of Q_R.
        left = factorization.left.to_dense()[: self.inputs]
        core = factorization.core_to_dense()
        right = factorization.right.to_dense()[:, : self.outputs]
        if any(np.iscomplexobj(part) for part in (left, core, right)):
            left, core, right = _in_real_arithmetic(left, core, right)
        for name, part in (("left", left), ("core", core), ("right", right)):
            self.register_buffer(name, copied(part, dtype))
        bias = None if bias is None else checked_bias(bias, self.outputs, dtype)
        self.register_buffer("bias", bias)

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs)."""
        return self.left @ self.core @ self.right

    def forward(self, x: Tensor) -> Tensor:
        """``x @ weight + bias`` of a batch (..., inputs)."""
        check_inputs(x, self.inputs)
        y = ((x @ self.left) @ self.core) @ self.right
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, bias={self.bias is not None}"


def _in_real_arithmetic(left: Array, core: Array, right: Array) -> tuple[Array, Array, Array]:
    """Real matrices of twice the inner sizes whose product is Re(left @ core @ right)."""
    matrix = left @ core @ right
    imaginary, norm = np.linalg.norm(matrix.imag), np.linalg.norm(matrix)
    if imaginary > 1e-6 * norm:
        raise ValueError(
            f"the matrix of the factorization is not real (imaginary part {imaginary / norm:.1e} "
            "of its norm), and a real layer cannot hold it; disentangle with group='SO' or 'O'"
        )
    left = np.hstack([left.real, left.imag])
    core = np.block([[core.real, core.imag], [-core.imag, core.real]])
    return left, core, np.vstack([right.real, -right.imag])
