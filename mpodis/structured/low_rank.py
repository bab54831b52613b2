"""What a disentangled layer has to beat: truncation, low rank, and nothing at all.

Each by both measures, the plain Frobenius distance and the distance of the activations, so that
a gain of the circuits is never one of the measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, check_legs, crop, padded_shape, wires
from mpodis.environments import DenseEnvironments
from mpodis.factorization import dense_overlap
from mpodis.fit import (
    embed_metric,
    fit_core,
    full_bonds,
    inner,
    mask_padding,
    metric_root,
)
from mpodis.measures import count_parameters
from mpodis.mpo import check_matrix
from mpodis.objectives import ActivationsLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.sites import (
    left_canonical,
    legs_of,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    site_tensors,
    spread_norm,
)

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Approximation", "bond_for", "low_rank", "rank_for", "truncation", "zero"]


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
        |X M - X A| / |X M|; NaN without a covariance, or where X M = 0.
    """

    name: str
    matrix: np.ndarray
    parameters: int
    overlap: float
    relative_error: float
    activation_error: float


def low_rank(
    matrix, rank: int, *, covariance=None, sensitivity=None, weighted: bool = True
) -> Approximation:
    """Best matrix of a given rank: SVD, or whitened SVD under second moments C^2 and S^2.

    |C (M - A) S| is smallest at A = M S V V^H S^+ with V the leading right singular vectors of
    C M S (Eckart and Young), which needs no inverse of C. With `weighted=False` the covariance
    is only used to measure the error of the plain SVD.
    """
    matrix = check_matrix(matrix)
    inputs, outputs = matrix.shape
    if not 1 <= rank <= min(inputs, outputs):
        raise ValueError(f"rank={rank} must lie between 1 and {min(inputs, outputs)}")
    seen, felt = matrix, np.eye(outputs)
    if weighted and covariance is not None:
        seen = metric_root(embed_metric(covariance, inputs)) @ seen
    if weighted and sensitivity is not None:
        felt = metric_root(embed_metric(sensitivity, outputs, what="sensitivity"))
    v = np.linalg.svd(seen @ felt)[2][:rank].conj().T
    found = matrix @ felt @ v @ v.conj().T @ np.linalg.pinv(felt, rcond=1e-8, hermitian=True)
    return describe(f"low rank {rank}", matrix, found, rank * (inputs + outputs), covariance)


def rank_for(parameters: int, shape: tuple[int, int], *, below: bool = False) -> int:
    """The lowest rank with at least so many parameters: the baseline gets the benefit.

    With `below` the highest rank with at most so many, and a ValueError where there is none.
    """
    if not below:
        return min(max(1, math.ceil(parameters / sum(shape))), *shape)
    if parameters < sum(shape):
        raise ValueError(f"{parameters} parameters do not pay for rank 1, which takes {sum(shape)}")
    return min(parameters // sum(shape), *shape)


def bond_for(parameters: int, legs: Sequence[Sequence[int]], *, below: bool = False) -> int:
    """The lowest bond dimension whose MPO on these legs has at least so many parameters.

    It ends where a larger one adds nothing. With `below` the highest with at most so many, and a
    ValueError where there is none.
    """
    legs, chi = check_legs(legs), 1
    largest = max(full_bonds(legs, math.prod(padded_shape(legs))), default=1)
    if below and parameters < mpo_parameters(legs, 1):
        raise ValueError(
            f"{parameters} parameters do not pay for bond dimension 1, which takes "
            f"{mpo_parameters(legs, 1)}"
        )
    while chi < largest and mpo_parameters(legs, chi) < parameters:
        chi += 1
    return chi - 1 if below and mpo_parameters(legs, chi) > parameters else chi


def mpo_parameters(legs: Legs, max_bond: int) -> int:
    """Numbers stored in an MPO on these legs, its bonds as large as they are of use."""
    bonds = [1, *full_bonds(legs, max_bond), 1]
    return sum(a * i * o * b for a, (i, o), b in zip(bonds, legs, bonds[1:], strict=False))


def truncation(
    mpo: MatrixProductOperator,
    max_bond: int,
    *,
    shape: tuple[int, int] | None = None,
    covariance=None,
    sensitivity=None,
    weighted: bool = True,
) -> Approximation:
    """The best MPO of a given bond dimension without circuits; see `low_rank`.

    By ALS; with a sensitivity, which leaves no closed form, by L-BFGS from the ALS optima of the
    plain and of the covariance-weighted distance, whichever ends lower.
    """
    if weighted and covariance is not None and shape is not None:
        sensitivity = mask_padding(sensitivity, shape[1], mpo_legs(mpo))
    core = fit_core(mpo, max_bond=max_bond, metric=covariance if weighted else None)
    if weighted and sensitivity is not None:
        plain = fit_core(mpo, max_bond=max_bond)
        core = _polished(mpo, (core, plain), covariance, sensitivity)
    target, matrix = (crop(mpo_to_dense(x), shape) for x in (mpo, core))
    name = f"truncated MPO, chi {max_bond}"
    return describe(name, target, matrix, count_parameters(core), covariance)


def _polished(mpo, starts, covariance, sensitivity) -> MatrixProductOperator:
    """The best core, from several starts, with no gates around it."""
    tensors, log_norm = left_canonical(site_tensors(mpo))
    legs = legs_of(tensors)
    covariance = np.eye(padded_shape(legs)[0]) if covariance is None else covariance
    objective = ActivationsLoss(spread_norm(tensors, 0.0), covariance, sensitivity)
    none = [Ansatz(len(wires(legs, side)), ()) for side in ("left", "right")]
    found = []
    for start in starts:
        engine = DenseEnvironments(objective.target, legs, *none)
        core, log_size = left_canonical(site_tensors(start))
        engine.set([], spread_norm(core, log_size - log_norm), [])
        loss = Lbfgs(objective, engine, *none).run(1000)
        core, log_size = left_canonical(engine.core)
        found.append((loss, spread_norm(core, log_size + log_norm)))
    return mpo_from_tensors(min(found, key=lambda pair: pair[0])[1])


def zero(matrix) -> Approximation:
    """No layer at all."""
    matrix = check_matrix(matrix)
    return Approximation("zero", np.zeros_like(matrix), 0, 0.0, 1.0, 1.0)


def describe(name: str, target, matrix, parameters: int, covariance=None) -> Approximation:
    """An `Approximation` with its errors worked out."""
    error = float(np.linalg.norm(target - matrix) / np.linalg.norm(target))
    overlap = dense_overlap(target, matrix) if matrix.any() else 0.0
    felt = _activation_error(target, matrix, covariance)
    return Approximation(name, matrix, parameters, overlap, error, felt)


def _activation_error(target, matrix, covariance) -> float:
    if covariance is None:
        return math.nan
    covariance = embed_metric(covariance, len(target))
    answer, off = inner(target, target, covariance), target - matrix
    if not answer > 1e-28 * np.abs(covariance).max() * np.linalg.norm(target) ** 2:
        return math.nan  # the layer answers none of the inputs
    # what the inputs do not feel is zero only to rounding, and as often below as above
    return math.sqrt(max(0.0, inner(off, off, covariance)) / answer)
