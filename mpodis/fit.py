"""The best core of a given bond dimension: variational (ALS) fits, plain and weighted.

Sequential truncation is only quasi-optimal; alternating least squares over the sites, each site
solved in closed form with the others held, finds site tensors that overlap better, most of all at
bond dimension 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from mpodis.conventions import Legs, check_legs, fuse, pad, padded_shape, split
from mpodis.mpo import check_matrix, compress, truncate
from mpodis.sites import (
    bond_dimensions,
    legs_of,
    mirrored,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    right_canonical,
    site_tensors,
    tensors_to_dense,
)

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

LARGEST_SITE = 1200
"""Unknowns of a site under a metric (left bond x input x right bond) that are solved for.

The equations take their square in memory and their cube in time.
"""

DESCENT = 30
"""Iterations of L-BFGS over all sites that stand in for a sweep above `LARGEST_SITE`."""

__all__ = [
    "als_core",
    "core_gradient",
    "embed_metric",
    "fit_core",
    "full_bonds",
    "inner",
    "mask_padding",
    "metric_root",
    "norm_gradient",
    "pad_bonds",
    "weighted_loss",
]


def fit_core(
    target,
    *,
    max_bond: int,
    legs: Legs | None = None,
    metric=None,
    init: MatrixProductOperator | None = None,
    max_sweeps: int = 200,
    tol: float = 1e-12,
) -> MatrixProductOperator:
    """The MPO of bond dimension `max_bond` nearest to a target, by ALS from its truncation.

    Parameters
    ----------
    target : MatrixProductOperator or dense (rows, columns) array
    legs : legs of a dense target; default that of an MPO target
    metric : array (inputs, inputs), optional
        Second moment of the inputs; the distance is then |C (target - core)| with C its square
        root, what the activations feel.
    init : MPO, optional
        Default: the better of the truncated target and, given a metric, its ALS fit without one.
    max_sweeps, tol
        Stop after so many sweeps, or when the squared distance falls by less than `tol` of |M|^2.
    """
    if max_bond < 1:
        raise ValueError(f"max_bond={max_bond} keeps nothing; use 1 or more")
    if hasattr(target, "upper_ind"):
        legs, dense = mpo_legs(target), mpo_to_dense(target)
    else:
        dense = check_matrix(target)
        if legs is None:
            raise ValueError("a dense target needs legs=; see `qubit_legs`")
        legs = check_legs(legs)
        dense = pad(dense, legs)
    metric = None if metric is None else embed_metric(metric, dense.shape[0])
    if init is None:
        init = truncate(compress(dense, legs=legs).mpo, max_bond=max_bond).mpo
        if metric is not None:
            options = {"max_bond": max_bond, "max_sweeps": max_sweeps, "tol": tol}
            plain = fit_core(dense, legs=legs, init=init, **options)
            init = min(
                init, plain, key=lambda core: weighted_loss(dense, mpo_to_dense(core), metric)
            )
    tensors = site_tensors(init)
    if legs_of(tensors) != legs:
        raise ValueError(f"init has legs {legs_of(tensors)}, the target {legs}")
    if max(bond_dimensions(tensors), default=1) > max_bond:
        raise ValueError(
            f"init has bond dimensions {bond_dimensions(tensors)}, above max_bond={max_bond}; "
            "`truncate` it first"
        )
    tensors = pad_bonds(tensors, max_bond)
    best = weighted_loss(dense, tensors_to_dense(tensors), metric)
    for _ in range(max_sweeps):
        swept = als_core(dense, tensors, metric=metric)
        loss, before = weighted_loss(dense, tensors_to_dense(swept), metric), best
        if loss < best:
            tensors, best = swept, loss
        if before - loss < tol:
            break
    return mpo_from_tensors(tensors)


def weighted_loss(target, dense, metric=None, sensitivity=None) -> float:
    """|C (M - A) S|^2 / |C M S|^2 with C^2 the metric and S^2 the sensitivity, where given."""
    off = target - dense
    return inner(off, off, metric, sensitivity) / inner(target, target, metric, sensitivity)


def inner(x, y, metric=None, sensitivity=None) -> float:
    """Re Tr(x^H C^2 y S^2)."""
    y = y if metric is None else metric @ y
    return float(np.vdot(x, y if sensitivity is None else y @ sensitivity).real)


def embed_metric(metric, rows: int, *, what: str = "covariance") -> np.ndarray:
    """The metric of zero-padded inputs, (rows, rows); what is padded has no activation.

    The same holds for outputs and their sensitivity; `what` is the word in the errors.
    """
    metric = np.asarray(metric)
    if metric.ndim != 2 or metric.shape[0] != metric.shape[1] or metric.shape[0] > rows:
        side = "inputs" if what == "covariance" else "outputs"
        raise ValueError(
            f"the {what} has shape {metric.shape}; the operator has {rows} (padded) {side}"
        )
    scale = np.abs(metric).max(initial=0.0)
    if not np.isfinite(scale) or scale == 0:
        raise ValueError(f"the {what} is zero everywhere, NaN or infinite")
    if np.abs(metric - metric.conj().T).max() > 1e-8 * scale:
        raise ValueError(f"the {what} is not Hermitian; give E[x^H x], see `second_moment`")
    lowest = np.linalg.eigvalsh(metric)[0]
    if lowest < -1e-8 * scale:
        raise ValueError(f"the {what} has a negative eigenvalue {lowest:.3g}")
    extra = rows - metric.shape[0]
    return np.pad((metric + metric.conj().T) / 2, ((0, extra), (0, extra)))


def metric_root(metric) -> np.ndarray:
    """C of a second moment C^2: its Hermitian root."""
    values, vectors = np.linalg.eigh(metric)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.conj().T


def mask_padding(sensitivity, outputs: int, legs: Legs):
    """The sensitivity, or, where outputs are padded and none is given, one for those that are not.

    Nobody sees the outputs that are cropped; their errors must not count.
    """
    if sensitivity is None and outputs < padded_shape(legs)[1]:
        return np.eye(outputs)
    return sensitivity


def full_bonds(legs: Legs, max_bond: int) -> list[int]:
    """Bond dimensions up to `max_bond` that an operator on these legs can use."""
    sizes = [i * o for i, o in legs]
    return [min(max_bond, math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]


def pad_bonds(tensors: Sequence, max_bond: int) -> list:
    """The same operator with bonds that can grow to `max_bond`: zeros that ALS can fill."""
    bonds = [1, *full_bonds(legs_of(tensors), max_bond), 1]
    padded = []
    for k, core in enumerate(tensors):
        a = max(bonds[k] - core.shape[0], 0)
        b = max(bonds[k + 1] - core.shape[3], 0)
        padded.append(np.pad(core, ((0, a), (0, 0), (0, 0), (0, b))))
    return padded


def als_core(target, tensors: Sequence, *, metric=None) -> list:
    """One ALS sweep left to right and back over the sites; never moves away from the target.

    Under a metric and with large bonds, L-BFGS over all sites at once takes its place: as many
    of its iterations as cost about as much.

    Parameters
    ----------
    target : array (rows, columns)
    tensors : list of arrays (left bond, input, output, right bond)
    metric : array (rows, rows), optional

    Returns
    -------
    list of arrays
        Cores of the same shape (bonds beyond `full_bonds` shrink), the first carrying the norm.
    """
    legs = legs_of(tensors)
    linear = target if metric is None else metric @ target
    if (
        metric is not None
        and max(a * i * b for a, i, _, b in map(np.shape, tensors)) > LARGEST_SITE
    ):
        return _descended(linear, metric, right_canonical(tensors))
    # a pass to the left is a pass to the right over the mirrored sites
    tensors = _als_pass(linear, legs, metric, right_canonical(tensors))
    if metric is not None:
        metric = _mirror_metric(metric, legs)
    linear = fuse(split(linear, legs).transpose(range(len(legs))[::-1]), legs[::-1])
    return mirrored(_als_pass(linear, legs[::-1], metric, right_canonical(mirrored(tensors))))


def core_gradient(pulled, tensors: Sequence) -> list:
    """Environment of every site of the core: dh/d conj(site) for h = Re Tr(pulled^H core)."""
    legs = legs_of(tensors)
    n = len(tensors)
    blocks = [np.ones((1, 1), dtype=pulled.dtype)]
    for core in tensors[:0:-1]:
        a, b = core.shape[0], core.shape[3]
        blocks.append((core.reshape(-1, b) @ blocks[-1]).reshape(a, -1))
    rest, gradients = split(pulled, legs).reshape(1, -1), []
    for k, core in enumerate(tensors):
        a, i, o, b = core.shape
        rest = rest.reshape(a * i * o, -1)
        gradients.append((rest @ blocks[n - 1 - k].conj().T).reshape(core.shape))
        rest = core.reshape(-1, b).conj().T @ rest
    return gradients


def norm_gradient(tensors: Sequence) -> list:
    """d|T|^2/2 / d conj(site) of every site, by transfer matrices."""
    right = [np.ones((1, 1))]
    for core in tensors[:0:-1]:
        a, b = core.shape[0], core.shape[3]
        half = (core.reshape(-1, b) @ right[-1]).reshape(a, -1)
        right.append(half @ core.conj().reshape(a, -1).T)
    left, gradients = np.ones((1, 1)), []
    for core, block in zip(tensors, reversed(right), strict=True):
        a, b = core.shape[0], core.shape[3]
        half = (left.T @ core.reshape(a, -1)).reshape(-1, b)  # (a* i o, b)
        gradients.append((half @ block).reshape(core.shape))
        left = half.T @ core.conj().reshape(-1, b)
    return gradients


def _descended(linear, metric, canonical: tuple[list, float]) -> list:
    """Lower |C (M - T)|^2 over all sites by L-BFGS; `linear` is metric @ M."""
    tensors, log_norm = canonical
    tensors = [np.asarray(core) for core in tensors]
    if log_norm > -math.inf:
        tensors[0] = tensors[0] * math.exp(log_norm)
    else:  # nothing has a slope where all is zero: isometries behind a first site of zeros have
        tensors[1:] = [
            np.eye(len(c), c[0].size, dtype=c.dtype).reshape(c.shape) for c in tensors[1:]
        ]
    kind = np.result_type(linear, *tensors)
    wide = np.complex128 if kind.kind == "c" else np.float64
    shapes = [core.shape for core in tensors]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def packed(parts) -> np.ndarray:
        return np.concatenate([np.ascontiguousarray(p, wide).reshape(-1) for p in parts])

    def unpacked(vector) -> list:
        parts = np.split(np.ascontiguousarray(vector).view(wide), ends)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def evaluate(vector):
        now = unpacked(vector)
        dense = tensors_to_dense(now)
        felt = metric @ dense
        value = np.vdot(dense, felt - 2 * linear).real
        slope = 2 * packed(core_gradient(felt - linear, now))
        return value / size, slope.view(np.float64) / size

    # in units of |C T|^2, so that the tolerances of scipy mean something
    dense = tensors_to_dense(tensors)
    size = np.vdot(dense, metric @ dense).real or np.linalg.norm(linear) or 1.0
    options = {"maxiter": DESCENT, "maxcor": DESCENT, "ftol": 0.0, "gtol": 1e-12}
    start = packed(tensors).view(np.float64)
    found = minimize(evaluate, start, jac=True, method="L-BFGS-B", options=options)
    best = unpacked(found.x) if found.fun <= evaluate(start)[0] else tensors
    return [core.astype(kind) for core in best]


def _mirror_metric(metric, legs: Legs):
    """The metric with its row sites in the opposite order, on both indices."""
    rows = [i for i, _ in legs]
    n = len(rows)
    order = [*range(n)[::-1], *range(n, 2 * n)[::-1]]
    return metric.reshape(rows * 2).transpose(order).reshape(metric.shape)


def _als_pass(linear, legs: Legs, metric, canonical: tuple[list, float]) -> list:
    """Solve the sites from the first to the last; `linear` is metric @ target.

    The site tensors come right-canonical. With L and R the orthonormal blocks left and right of a site,
    its best core is L^H T R^H; with a metric it solves K t = L^H (metric T) R^H instead, K the
    metric between the blocks.
    """
    tensors, log_norm = canonical
    n = len(tensors)
    tensors[0] = tensors[0] * (math.exp(log_norm) if log_norm > -math.inf else 0.0)
    blocks = [np.ones((1, 1), dtype=linear.dtype)]  # right of each site: (bond, rest)
    for core in tensors[:0:-1]:
        a, b = core.shape[0], core.shape[3]
        blocks.append((core.reshape(-1, b) @ blocks[-1]).reshape(a, -1))
    rest = split(linear, legs).reshape(1, -1)  # L^H linear, (bond, remaining sites)
    left = np.ones((1, 1, 1), dtype=linear.dtype)  # L as (rows, columns, bond)
    for k in range(n):
        right = blocks[n - 1 - k]
        a, i, o, b = tensors[k].shape
        rest = rest.reshape(a * i * o, -1)
        centre = (rest @ right.conj().T).reshape(a, i, o, b)
        if metric is not None:
            form = _metric_between(metric, left, right, legs, k)
            centre = _solve_site(form, centre, tensors[k])
        if k == n - 1:
            tensors[k] = centre
            break
        q, r = np.linalg.qr(centre.reshape(-1, b))
        tensors[k] = q.reshape(a, i, o, -1)
        tensors[k + 1] = np.tensordot(r, tensors[k + 1], 1)  # carries the norm along
        rest = q.conj().T @ rest
        if metric is not None:
            left = np.tensordot(left, tensors[k], 1).transpose(0, 2, 1, 3, 4)
            left = left.reshape(left.shape[0] * i, -1, left.shape[-1])
    return tensors


def _metric_between(metric, left, right, legs: Legs, k: int):
    """K[(a i b), (a' i' b')]: the metric seen by site k through its blocks."""
    i = legs[k][0]
    rows_r, columns_r = padded_shape(legs[k + 1 :])
    b = right.shape[0]
    right = _open_block(right, legs[k + 1 :]).reshape(b, rows_r, columns_r)
    gram_l = np.tensordot(left.conj(), left, ((1,), (1,)))  # (r, a, r', a')
    gram_r = np.tensordot(right.conj(), right, ((2,), (2,)))  # (b, s, b', s')
    rows_l = left.shape[0]
    form = metric.reshape(rows_l, i, rows_r, rows_l, i, rows_r)  # (r, i, s, r', i', s')
    form = np.tensordot(gram_l, form, ((0, 2), (0, 3)))  # (a, a', i, s, i', s')
    form = np.tensordot(form, gram_r, ((3, 5), (1, 3)))  # (a, a', i, i', b, b')
    size = left.shape[2] * i * b
    return form.transpose(0, 2, 4, 1, 3, 5).reshape(size, size)


def _open_block(block, legs: Legs):
    """(bond, fused sites) -> (bond, rows, columns)."""
    n = len(legs)
    block = block.reshape([-1] + [d for leg in legs for d in leg])
    order = [0] + [1 + 2 * s for s in range(n)] + [2 + 2 * s for s in range(n)]
    return block.transpose(order)


def _solve_site(form, linear, old):
    """Solve form @ t = linear for t (a, i, b) x o, staying near `old` where the form is flat.

    Directions that no activation reaches leave the form singular; a proximal term of relative
    size 1e-13 keeps what is there and never lets the distance grow.
    """
    a, i, o, b = old.shape
    trace = np.trace(form).real
    ridge = 1e-13 * (trace if trace > 0 else 1.0)
    rhs = linear.transpose(0, 1, 3, 2).reshape(-1, o)
    was = old.transpose(0, 1, 3, 2).reshape(-1, o)
    form = form + ridge * np.eye(len(form), dtype=form.dtype)
    new = np.linalg.solve(form, rhs + ridge * was)
    return new.reshape(a, i, b, o).transpose(0, 1, 3, 2)
