"""Gates exp(t) with a lower-triangular t, as Sec. V of arXiv 2509.06653v1 writes them.

The paper calls them orthogonal; they are not, since t is not antisymmetric. With nothing on the
diagonal, which is what footnote 4 needs for a determinant of 1, t is nilpotent and exp(t) is lower
triangular with ones on its diagonal: orthogonal only where t = 0. `TrainedCircuit` has the
antisymmetric exponent instead; this class is here to compare the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit
from mpodis.nn.circuits import TrainedCircuit
from mpodis.nn.layers import torch_generator

__all__ = ["TriangularCircuit", "triangular_exponentials"]


def triangular_exponentials(numbers: Tensor) -> Tensor:
    """exp(t) of a stack of strictly lower-triangular matrices.

    Parameters
    ----------
    numbers : Tensor (m, d (d - 1) / 2)
        Entries below the diagonal, row by row.

    Returns
    -------
    Tensor (m, d, d)
    """
    d = 1
    while d * (d - 1) // 2 < numbers.shape[-1]:
        d += 1
    row, column = torch.tril_indices(d, d, -1)
    t = numbers.new_zeros(*numbers.shape[:-1], d, d)
    t[..., row, column] = numbers
    one = torch.eye(d, dtype=numbers.dtype, device=numbers.device)
    found = one
    for k in range(d - 1, 0, -1):  # t^d = 0: the series ends
        found = one + t @ found / k
    return found


class TriangularCircuit(TrainedCircuit):
    """A circuit whose gates are exp(t) with t strictly lower triangular and real.

    Parameters
    ----------
    ansatz : Ansatz
        Of the group "SO", for its placements; the gates are not in it.
    scale : float or None
        Standard deviation of the entries of t at the start, which are normal; None: they are
        uniform between 0 and 1. The paper says "randomly initialized" and not how. With
        0.5 = 1 / sqrt(4) a row of a gate on two wires has a norm of order 1 beside its diagonal.
    dtype, seed
        See `TrainedCircuit`.

    Raises
    ------
    ValueError
        For other groups than "SO", and a scale below 0.
    """

    def __init__(
        self,
        ansatz: Ansatz,
        *,
        scale: float | None = 0.5,
        dtype: torch.dtype = torch.float32,
        seed=None,
    ) -> None:
        if ansatz.group != "SO" or (scale is not None and scale < 0):
            raise ValueError(
                f"group={ansatz.group!r} must be 'SO' (as many numbers as t has entries) and "
                f"scale={scale} at least 0, or None"
            )
        generator = torch_generator(seed)
        super().__init__(ansatz, scale=scale or 0.0, dtype=dtype, seed=generator)
        if scale is None:
            with torch.no_grad():
                for t in self.generators.values():
                    t.uniform_(generator=generator)

    def stacks(self) -> dict[int, Tensor]:
        """The gates (count, d, d) by width, in the order of `Ansatz.free`."""
        return {width: triangular_exponentials(t) for width, t in self._numbers().items()}

    def circuit(self) -> Circuit:
        """Refused: a `Circuit` has orthogonal gates."""
        raise TypeError("gates exp(t) with a triangular t are not orthogonal, and so no Circuit")
