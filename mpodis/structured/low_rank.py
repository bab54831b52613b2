"""The best matrix of a given rank, by the plain or by a weighted distance."""

from __future__ import annotations

import numpy as np

from mpodis.arguments import check_count
from mpodis.arrays import rescaled
from mpodis.fit import metric_of, metric_root
from mpodis.mpo import check_matrix
from mpodis.structured.approximation import Approximation

__all__ = ["low_rank"]


def low_rank(
    matrix: np.ndarray,
    rank: int,
    *,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    weighted: bool = True,
) -> Approximation:
    """The best matrix of a given rank: SVD, or whitened SVD under second moments C^2 and S^2.

    |C (M - A) S| is smallest at A = M S V V^H S^+ with V the leading right singular vectors of
    C M S (Eckart and Young), which needs no inverse of C.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    rank : int
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2.
    weighted : bool
        False: take the plain SVD, and use the covariance only to measure its error.

    Examples
    --------
    >>> low_rank(np.diag([2.0, 1.0]), 1).matrix
    array([[2., 0.],
           [0., 0.]])
    """
    matrix, exponent = rescaled(check_matrix(matrix))
    inputs, outputs = matrix.shape
    check_count("rank", rank, most=min(inputs, outputs))
    whitened, root = matrix, np.eye(outputs)
    if weighted and covariance is not None:
        whitened = metric_root(metric_of(covariance, matrix)) @ whitened
    if weighted and sensitivity is not None:
        root = metric_root(metric_of(sensitivity, matrix, axis=1, what="sensitivity"))
    v = np.linalg.svd(whitened @ root)[2][:rank].conj().T
    found = matrix @ root @ v @ v.conj().T @ np.linalg.pinv(root, rcond=1e-8, hermitian=True)
    return Approximation.of(
        matrix,
        found,
        name=f"low rank {rank}",
        parameters=rank * (inputs + outputs),
        covariance=covariance,
        exponent=exponent,
    )
