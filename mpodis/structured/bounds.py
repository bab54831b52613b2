"""What no circuits around a core can reach, from the core's singular values alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from mpodis.conventions import crop, padded_shape, qubit_legs
from mpodis.fit import embed_metric
from mpodis.mpo import Compressed, check_matrix
from mpodis.sites import mpo_to_dense

__all__ = ["weighted_bound"]


def weighted_bound(
    target,
    core,
    *,
    covariance=None,
    sensitivity=None,
    shape: tuple[int, int] | None = None,
    levels: int = 48,
) -> float:
    """A loss of the activations that no circuits around a core, rescaled at will, get below.

    Of min over Q_L, Q_R and a of |C (M - a Q_L T Q_R) S|^2 / |C M S|^2 it is the larger of two
    lower bounds, both functions of a and of the singular values t of the core T alone:

    - With P_k the projector onto the k leading eigenvectors of C^2, C^2 is the sum over k of
      (c_k^2 - c_{k+1}^2) P_k, and likewise S^2. The distance is then a sum of plain ones,
      |P_k (M - A) R_l|^2; those are at least the distance of singular values (Mirsky), and the
      values of P_k A R_l interlace with a t.
    - |C M S - C A S| by Mirsky, with the values of the product C A S between those that Horn's
      inequalities leave: sigma_{i+j-1}(XY) <= sigma_i(X) sigma_j(Y) and the reverse for the
      smallest.

    Without moments and padding the first is 1 minus the squared von Neumann bound, which is
    reached. The more the moments decay, the less is left of both. The bound is 0, and says
    nothing, where the values of every part of M fit between those that the core leaves open.

    Parameters
    ----------
    target : MatrixProductOperator, Compressed or array (rows, columns)
        M.
    core : MatrixProductOperator, array (rows, columns), or array of singular values
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2; by default all inputs and outputs count alike. What is padded never counts.
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `target` does not know it.
    levels : int
        Projectors a side at most; from fewer, C^2 and S^2 are replaced by smaller ones, and the
        bound is lower.

    Returns
    -------
    float
        Between 0 and 1.
    """
    if levels < 1:
        raise ValueError(f"levels={levels} must be 1 or more")
    matrix = _matrix(target, shape)
    values, size = _spectrum(core, matrix.shape)
    if not values[0] > 0:
        return 1.0
    metric = np.eye(matrix.shape[0]) if covariance is None else covariance
    felt = np.eye(matrix.shape[1]) if sensitivity is None else sensitivity
    c, u = _descending(embed_metric(metric, matrix.shape[0]))
    s, v = _descending(embed_metric(felt, matrix.shape[1], what="sensitivity"))
    turned = u.conj().T @ matrix @ v
    whole = np.sqrt(c)[:, None] * turned * np.sqrt(s)
    square = float(np.linalg.norm(whole) ** 2)
    if not square > 1e-28 * c[0] * s[0] * np.linalg.norm(matrix) ** 2:
        raise ValueError("the layer answers none of the given inputs (C M S = 0)")
    values = np.concatenate([values, np.zeros(max(size) + max(matrix.shape))])
    boxes = [_projected(turned, values, size, c, s, levels), _multiplied(whole, values, size, c, s)]
    value = _lowest(boxes) / square
    # rounded down: the minimum over a is found by a search
    return float(np.clip(value * (1 - 1e-6) - 1e-12, 0.0, 1.0))


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Weighted distances of values from intervals [a low, a high]."""

    weights: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def at(self, a: float) -> float:
        off = np.maximum(self.values - a * self.high, 0) + np.maximum(a * self.low - self.values, 0)
        return float(self.weights @ off**2)


def _projected(turned, t, size, c, s, levels: int) -> _Boxes:
    """Singular values of the leading blocks of M in the eigenbases, and how t interlaces."""
    parts = []
    for k, weight_k in _steps(c, levels):
        for m, weight_m in _steps(s, levels):
            values = np.linalg.svd(turned[:k, :m], compute_uv=False)
            missing = size[0] - k + size[1] - m
            n = len(values)
            weights = np.full(n, weight_k * weight_m)
            parts.append((weights, values, t[missing : missing + n], t[:n]))
    return _Boxes(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _steps(values, levels: int):
    """(k, height) of step functions over 1..k that add up to at most the descending values."""
    ends = np.unique(np.geomspace(1, len(values), levels).round().astype(int))
    if len(values) <= levels:
        ends = np.arange(1, len(values) + 1)
    heights = values[ends - 1] - np.append(values[ends[1:] - 1], 0.0)
    return [(k, h) for k, h in zip(ends, heights, strict=True) if h > 1e-15 * values[0]]


def _multiplied(whole, t, size, c, s) -> _Boxes:
    """Singular values of C M S, and the intervals that those of C A S lie in."""
    values = np.linalg.svd(whole, compute_uv=False)
    # on padded inputs and outputs C and S are zero
    c, s = (np.pad(np.sqrt(x), (0, n - len(x))) for x, n in zip((c, s), size, strict=True))
    n = min(size)
    high = _products(_products(c, t[:n], n, np.min, 0), s, n, np.min, 0)
    low = _products(c, t[:n], n, np.max, size[0] - 1)
    low = _products(low, s, n, np.max, size[1] - 1)
    return _Boxes(np.ones(len(values)), values, low[: len(values)], high[: len(values)])


def _products(x, y, count: int, choose, shift: int) -> np.ndarray:
    """choose over i + j = k + shift of x_i y_j, for k from 0."""
    found = np.zeros(count)
    for k in range(count):
        total = k + shift
        i = np.arange(max(0, total - len(y) + 1), min(len(x), total + 1))
        found[k] = choose(x[i] * y[total - i]) if len(i) else 0.0
    return found


def _lowest(boxes: Sequence[_Boxes]) -> float:
    """min over a > 0 of the largest; every one is convex in a."""
    turns = []
    for box in boxes:
        seen = (box.high > 0) & (box.values > 0)
        turns.append(box.values[seen] / box.high[seen])
    turns = np.log(np.concatenate(turns))
    found = minimize_scalar(
        lambda x: max(box.at(math.exp(x)) for box in boxes),
        bounds=(turns.min() - 1e-3, turns.max() + 1e-3),
        method="bounded",
        options={"xatol": 1e-10, "maxiter": 500},
    )
    return float(found.fun)


def _matrix(target, shape) -> np.ndarray:
    """M, (inputs, outputs), without padding."""
    if isinstance(target, Compressed):
        target, shape = target.mpo, shape or target.shape
    if hasattr(target, "upper_ind"):
        return crop(mpo_to_dense(target), shape)
    return crop(check_matrix(target), shape)


def _spectrum(core, shape) -> tuple[np.ndarray, tuple[int, int]]:
    """Descending singular values of a core, and the (padded) size of the operator."""
    if hasattr(core, "upper_ind"):
        core = mpo_to_dense(core)
    core = np.asarray(core)
    if core.ndim == 1:
        size = padded_shape(qubit_legs(*shape))
        core = np.sort(np.abs(core))[::-1]
        if len(core) > min(size):
            raise ValueError(f"{len(core)} singular values are too many for a {size} operator")
    else:
        size, core = core.shape, np.linalg.svd(core, compute_uv=False)
    if any(n < d for n, d in zip(size, shape, strict=True)):
        raise ValueError(f"the core spans {tuple(size)}, too small for a matrix of shape {shape}")
    return core, tuple(size)


def _descending(metric) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(metric)
    return values[::-1].clip(min=0), vectors[:, ::-1]
