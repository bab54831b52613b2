"""Gates exp(t) with a lower-triangular t, as Sec. V of arXiv 2509.06653v1 writes them.

The paper calls them orthogonal, but t is not antisymmetric. With a zero diagonal, as footnote 4
needs for a determinant of 1, t is nilpotent and exp(t) is lower triangular with ones on its
diagonal: orthogonal only for t = 0. `CircuitLayer` uses an antisymmetric exponent instead; this
module exists to compare the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit
from mpodis.nn.circuit_layer import CircuitLayer
from mpodis.nn.linear import Seed, torch_generator

__all__ = ["TriangularCircuitLayer", "triangular_exponentials"]


def triangular_exponentials(entries: Tensor) -> Tensor:
    """exp(t) of a stack of strictly lower-triangular d x d matrices t.

    Parameters
    ----------
    entries : Tensor (m, d (d - 1) / 2)
        Entries below the diagonal, row by row.

    Returns
    -------
    Tensor (m, d, d)
    """
    d = 1
    while d * (d - 1) // 2 < entries.shape[-1]:
        d += 1
    row, column = torch.tril_indices(d, d, -1)
    t = entries.new_zeros(*entries.shape[:-1], d, d)
    t[..., row, column] = entries
    one = torch.eye(d, dtype=entries.dtype, device=entries.device)
    found = one
    for k in range(d - 1, 0, -1):  # the series ends, since t^d = 0
        found = one + t @ found / k
    return found


class TriangularCircuitLayer(CircuitLayer):
    """A circuit whose free gates are exp(t) with t strictly lower triangular and real.

    Parameters
    ----------
    ansatz : Ansatz
        Of the group "SO", which has as many parameters as t has entries; the gates themselves are
        not in it.
    init_scale : float or None
        Standard deviation of the initial entries of t, which are normal; None: uniform between 0
        and 1. The paper says "randomly initialized" and not how. With 0.5 = 1 / sqrt(4) the
        entries beside the diagonal of a two-wire gate have a norm of order 1 in each row.
    dtype, seed
        See `CircuitLayer`.

    Raises
    ------
    ValueError
        For groups other than "SO", and for a negative `init_scale`.
    """

    def __init__(
        self,
        ansatz: Ansatz,
        *,
        init_scale: float | None = 0.5,
        dtype: torch.dtype = torch.float32,
        seed: Seed = None,
    ) -> None:
        if ansatz.group != "SO" or (init_scale is not None and init_scale < 0):
            raise ValueError(
                f"group={ansatz.group!r} must be 'SO' (as many parameters as t has entries) and "
                f"init_scale={init_scale} at least 0, or None"
            )
        generator = torch_generator(seed)
        super().__init__(ansatz, init_scale=init_scale or 0.0, dtype=dtype, seed=generator)
        if init_scale is None:
            with torch.no_grad():
                for entries in self.generator_entries().values():
                    entries.uniform_(generator=generator)

    def stacks(self) -> dict[int, Tensor]:
        """The free gates by width, each stack (gates, d, d) in the order of `Ansatz.free`."""
        return {
            width: triangular_exponentials(entries)
            for width, entries in self.generator_entries().items()
        }

    def circuit(self) -> Circuit:
        """Not available, since a `Circuit` has orthogonal gates: raises a TypeError."""
        raise TypeError(
            "gates exp(t) with a triangular t are not orthogonal, so that they do not form a "
            "Circuit; use to_dense() for the matrix"
        )
