"""What a disentangled layer has to beat: truncation, low rank, and nothing at all.

Each by both measures, the plain Frobenius distance and the distance of the activations, so that
a gain of the circuits is never one of the measure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.conventions import crop
from mpodis.cores import embed_metric, fit_core, weighted_loss
from mpodis.factorization import dense_overlap
from mpodis.measures import count_parameters
from mpodis.mpo import check_matrix, mpo_to_dense

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Approximation", "low_rank", "rank_for", "truncation", "zero"]


@dataclass(frozen=True, eq=False)
class Approximation:
    """A matrix that stands in for a layer's, with its errors.

    Attributes
    ----------
    name : str
    matrix : array (inputs, outputs)
    parameters : int
    overlap : float
        Cosine with the target; 0 for a zero matrix.
    relative_error : float
        |M - A| / |M|.
    activation_error : float
        |X M - X A| / |X M|; NaN without a covariance.
    """

    name: str
    matrix: np.ndarray
    parameters: int
    overlap: float
    relative_error: float
    activation_error: float


def low_rank(matrix, rank: int, *, covariance=None, weighted: bool = True) -> Approximation:
    """Best matrix of a given rank: SVD, or whitened SVD under a covariance C^2.

    With `weighted=False` the covariance is only used to measure the error of the plain SVD.

    |C (M - A)| is smallest at A = M V V^H with V the leading right singular vectors of C M, which
    needs no inverse of C.
    """
    matrix = check_matrix(matrix)
    inputs, outputs = matrix.shape
    if not 1 <= rank <= min(inputs, outputs):
        raise ValueError(f"rank={rank} must lie between 1 and {min(inputs, outputs)}")
    whiten = weighted and covariance is not None
    seen = _root(embed_metric(covariance, inputs)) @ matrix if whiten else matrix
    v = np.linalg.svd(seen)[2][:rank].conj().T
    return describe(
        f"low rank {rank}", matrix, matrix @ v @ v.conj().T, rank * (inputs + outputs), covariance
    )


def rank_for(parameters: int, shape: tuple[int, int]) -> int:
    """The lowest rank with at least so many parameters: the baseline gets the benefit."""
    return min(max(1, math.ceil(parameters / sum(shape))), *shape)


def truncation(
    mpo: MatrixProductOperator,
    max_bond: int,
    *,
    shape: tuple[int, int] | None = None,
    covariance=None,
    weighted: bool = True,
) -> Approximation:
    """The best MPO of a given bond dimension, by ALS, without circuits; see `low_rank`."""
    core = fit_core(mpo, max_bond=max_bond, metric=covariance if weighted else None)
    target, matrix = (crop(mpo_to_dense(x), shape) for x in (mpo, core))
    name = f"truncated MPO, chi {max_bond}"
    return describe(name, target, matrix, count_parameters(core), covariance)


def zero(matrix) -> Approximation:
    """No layer at all."""
    matrix = check_matrix(matrix)
    return Approximation("zero", np.zeros_like(matrix), 0, 0.0, 1.0, 1.0)


def describe(name: str, target, matrix, parameters: int, covariance=None) -> Approximation:
    """An `Approximation` with its errors worked out."""
    felt = math.nan if covariance is None else math.sqrt(weighted_loss(target, matrix, covariance))
    error = float(np.linalg.norm(target - matrix) / np.linalg.norm(target))
    return Approximation(name, matrix, parameters, dense_overlap(target, matrix), error, felt)


def _root(metric) -> np.ndarray:
    values, vectors = np.linalg.eigh(metric)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.conj().T
