"""Matrices that replace a layer's, and their errors; ranks and bonds for a number of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpodis.arguments import as_shape, check_count
from mpodis.arrays import times_power_of_two
from mpodis.conventions import Legs, check_legs, padded_shape
from mpodis.factorization import dense_overlap
from mpodis.fit import full_bonds, inner, metric_of
from mpodis.mpo import check_matrix
from mpodis.tables import Table, Tabular

__all__ = ["Approximation", "bond_for", "mpo_parameters", "rank_for", "zero_matrix"]


@dataclass(frozen=True, eq=False)
class Approximation(Tabular):
    """A matrix that replaces a layer's, with its size and its errors.

    Attributes
    ----------
    name : str
    matrix : array (inputs, outputs)
    parameters : int
    overlap : float
        Cosine between the approximation A and the target M; 0 where A is zero.
    relative_error : float
        |M - A| / |M|.
    activation_error : float
        |X M - X A| / |X M|; NaN without a covariance, or where X M = 0.
    """

    name: str
    matrix: np.ndarray
    parameters: int
    overlap: float
    relative_error: float
    activation_error: float

    @classmethod
    def of(
        cls,
        target: np.ndarray,
        matrix: np.ndarray,
        *,
        name: str,
        parameters: int,
        covariance: np.ndarray | None = None,
        exponent: int = 0,
    ) -> Approximation:
        """Measure how far a matrix is from its target, both given divided by 2^exponent."""
        return cls(
            name,
            times_power_of_two(matrix, exponent),
            parameters,
            overlap=dense_overlap(target, matrix) if matrix.any() else 0.0,
            relative_error=float(np.linalg.norm(target - matrix) / np.linalg.norm(target)),
            activation_error=_activation_error(target, matrix, covariance),
        )

    def table(self) -> Table:
        rows = [
            ("parameters", self.parameters),
            ("overlap f", self.overlap),
            ("relative error of the matrix", self.relative_error),
            ("relative error of the activations", self.activation_error),
        ]
        return Table((self.name, ""), rows)


def zero_matrix(matrix: np.ndarray) -> Approximation:
    """The layer replaced by zeros: what an approximation has to beat in the first place."""
    matrix = check_matrix(matrix)
    return Approximation("zero", np.zeros_like(matrix), 0, 0.0, 1.0, 1.0)


def rank_for(parameters: int, shape: tuple[int, int], *, below: bool = False) -> int:
    """The lowest rank whose two factors have at least so many parameters.

    With `below` the highest rank with at most so many, and a ValueError where there is none.

    >>> rank_for(129, (64, 64)), rank_for(129, (64, 64), below=True)
    (2, 1)
    """
    check_count("parameters", parameters, 0)
    shape = as_shape(shape)
    if not below:
        return min(max(1, math.ceil(parameters / sum(shape))), *shape)
    if parameters < sum(shape):
        raise ValueError(
            f"{parameters} parameters are too few for rank 1, which takes {sum(shape)}"
        )
    return min(parameters // sum(shape), *shape)


def bond_for(parameters: int, legs: Sequence[Sequence[int]], *, below: bool = False) -> int:
    """The lowest bond dimension whose MPO on these legs has at least so many parameters.

    It is never larger than an MPO on these legs can use. With `below` the highest with at most so
    many, and a ValueError where there is none.

    >>> bond_for(40, ((2, 2),) * 3), bond_for(40, ((2, 2),) * 3, below=True)
    (3, 2)
    """
    check_count("parameters", parameters, 0)
    checked, bond = check_legs(legs), 1
    largest = max(full_bonds(checked, math.prod(padded_shape(checked))), default=1)
    if below and parameters < mpo_parameters(checked, 1):
        raise ValueError(
            f"{parameters} parameters are too few for bond dimension 1, which takes "
            f"{mpo_parameters(checked, 1)}"
        )
    while bond < largest and mpo_parameters(checked, bond) < parameters:
        bond += 1
    return bond - 1 if below and mpo_parameters(checked, bond) > parameters else bond


def mpo_parameters(legs: Legs, max_bond: int) -> int:
    """Numbers stored in an MPO on these legs, its bonds no larger than they can be used."""
    bonds = [1, *full_bonds(legs, max_bond), 1]
    return sum(a * i * o * b for a, (i, o), b in zip(bonds, legs, bonds[1:], strict=False))


def _activation_error(
    target: np.ndarray, matrix: np.ndarray, covariance: np.ndarray | None
) -> float:
    if covariance is None:
        return math.nan
    covariance = metric_of(covariance, target)
    whole, off = inner(target, target, covariance), target - matrix
    if not whole > 1e-28 * np.abs(covariance).max() * np.linalg.norm(target) ** 2:
        return math.nan  # the layer maps all inputs to zero
    # an error of zero comes out as a rounding error of either sign
    return math.sqrt(max(0.0, inner(off, off, covariance)) / whole)
