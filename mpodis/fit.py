"""The best core of a given bond dimension: variational fits (ALS), plain and weighted.

Sequential truncation is only quasi-optimal. Alternating least squares over the sites, each site
solved in closed form with the others fixed, finds site tensors of larger overlap, above all at
bond dimension 1. A *metric* is the second moment E[x^H x] of the inputs: it weighs errors by what
they change in the activations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from autoray import astype, do, get_dtype_name
from scipy.optimize import minimize

from mpodis.arguments import check_count, check_number
from mpodis.arrays import as_numpy, rescaled, rounding_of
from mpodis.conventions import (
    COMPLEX,
    Array,
    Legs,
    as_like,
    check_legs,
    crop,
    fuse,
    pad,
    padded_shape,
    promoted,
    qubit_legs,
    split,
    to_numpy,
)
from mpodis.mpo import (
    Compressed,
    Operator,
    as_mpo,
    check_array,
    compress,
    mpo_or_matrix,
    truncate,
)
from mpodis.progress import Deadline, bar, within_limit
from mpodis.sites import (
    bond_dimensions,
    legs_of,
    mirrored,
    mpo_from_tensors,
    mpo_to_dense,
    right_canonical,
    site_tensors,
    spread_power_of_two,
    tensors_to_dense,
)

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

LARGEST_SITE = 1200
"""Unknowns of a site under a metric (left bond x input x right bond) up to which its equations
are solved: they take the square of it in memory and the cube in time."""

EXACT_TRUNCATION = 30
"""A truncation of the exact MPO takes up to so many times as long as one on the way to it."""

PADDING = 1e-6
"""Weights of this norm, relative to the matrix, are zero but for rounding: that of an MPO of single
precision, too."""

DESCENT = 30
"""Iterations of L-BFGS over all sites that replace a sweep above `LARGEST_SITE`."""

__all__ = [
    "als_sweep",
    "check_covers",
    "core_gradient",
    "embed_metric",
    "fit_core",
    "fit_tensors",
    "full_bonds",
    "inner",
    "mask_padding",
    "metric_of",
    "metric_root",
    "metrics_of",
    "norm_gradient",
    "pad_bonds",
    "weighted_loss",
]


@within_limit
def fit_core(
    operator: Operator,
    *,
    max_bond: int,
    legs: Legs | None = None,
    covariance: Array | None = None,
    init: Operator | None = None,
    max_sweeps: int = 200,
    tol: float = 1e-12,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> MatrixProductOperator:
    """The MPO of bond dimension `max_bond` nearest to an operator, by ALS from its truncation.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`. Its backend, dtype and device are those of the result; with a covariance of
        double precision the fit itself has it, too.
    max_bond : int
    legs : sequence of (input, output), optional
        Legs of a dense operator; by default qubits, see `qubit_legs`.
    covariance : array (inputs, inputs), optional
        Second moment C^2 of the inputs, see `second_moment`. The distance is then
        |C (M - core)|, the error of the activations. Of a padded operator it may leave out the
        inputs whose weights are zero.
    init : MPO, optional
        Initial guess. By default the truncated operator or, if that is nearer under the covariance,
        its ALS fit without one.
    max_sweeps, tol
        Stop after so many sweeps, or when the squared distance falls by less than `tol` of |M|^2.
    max_seconds : float, optional
        Stop after this time, in the midst of a sweep if need be; half of it goes to the fit without
        a covariance where an initial guess is to be found. A truncation before it is always made, a
        cheaper one where time is short.
    progbar : bool
        Show a bar with the squared distance.

    Raises
    ------
    ValueError
        A number out of its range, an initial guess of other legs or larger bond dimension, or a
        covariance that is not positive or leaves out inputs.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import overlap, truncate
    >>> matrix = np.random.default_rng(0).normal(size=(16, 16))
    >>> plain, fitted = truncate(matrix, max_bond=1), fit_core(matrix, max_bond=1)
    >>> overlap(matrix, fitted) > overlap(matrix, plain)
    True
    """
    deadline = Deadline(max_seconds)
    check_count("max_bond", max_bond)
    check_count("max_sweeps", max_sweeps, 0)
    check_number("tol", tol, 0)
    found = mpo_or_matrix(operator)
    if isinstance(found, Compressed):
        legs, dense, shape = found.legs, mpo_to_dense(found.mpo), found.shape
    else:
        dense = check_array(found)
        legs, shape = qubit_legs(*dense.shape) if legs is None else check_legs(legs), dense.shape
        dense = pad(dense, legs)
    dense, exponent = rescaled(dense)
    dtype, metric = get_dtype_name(dense), None
    if covariance is not None:
        moment = metric_of(covariance, crop(dense, shape), size=dense.shape[0])
        dense, metric = promoted([dense, as_like(moment, dense, dtype=str(moment.dtype))])
    if init is None:
        guess = _truncated(dense, legs, max_bond, deadline)
        if metric is not None:
            plain = fit_core(
                dense,
                max_bond=max_bond,
                legs=legs,
                init=guess,
                max_sweeps=max_sweeps,
                tol=tol,
                max_seconds=deadline.part(0.5).left,
                progbar=progbar,
            )
            guess = min(
                guess, plain, key=lambda core: weighted_loss(dense, mpo_to_dense(core), metric)
            )
        tensors = site_tensors(guess)
    else:
        tensors = spread_power_of_two(site_tensors(as_mpo(init)), -exponent)
    if legs_of(tensors) != legs:
        raise ValueError(f"init has legs {legs_of(tensors)}, the operator {legs}")
    if max(bond_dimensions(tensors), default=1) > max_bond:
        raise ValueError(
            f"init has bond dimensions {bond_dimensions(tensors)}, above max_bond={max_bond}; "
            "`truncate` it first"
        )
    with bar(total=max_sweeps, desc="ALS", enabled=progbar) as shown:
        tensors = fit_tensors(
            dense,
            tensors,
            max_bond=max_bond,
            metric=metric,
            max_sweeps=max_sweeps,
            tol=tol,
            deadline=deadline,
            report=lambda distance: shown.update(distance=distance),
        )
    if "complex" in get_dtype_name(tensors[0]):
        dtype = COMPLEX.get(dtype, dtype)
    tensors = spread_power_of_two([astype(site, dtype) for site in tensors], exponent)
    return mpo_from_tensors(tensors)


def fit_tensors(
    dense: Array,
    tensors: Sequence[Array],
    *,
    max_bond: int,
    metric: Array | None = None,
    max_sweeps: int = 200,
    tol: float = 1e-12,
    deadline: Deadline | None = None,
    report: Callable[[float], object] | None = None,
) -> list[Array]:
    """`fit_core` from an initial guess: site tensors nearest to a matrix (rows, columns), by ALS.

    The metric is one that `embed_metric` gives; `report` gets the squared distance of every sweep.
    """
    deadline = Deadline() if deadline is None else deadline
    *tensors, dense = promoted([*pad_bonds(tensors, max_bond), dense])
    whole = inner(dense, dense, metric)

    def distance(tensors: Sequence[Array]) -> float:
        off = dense - tensors_to_dense(tensors)
        return inner(off, off, metric) / whole

    best = distance(tensors)
    for _ in range(max_sweeps):
        if deadline.has_passed:
            break
        swept = als_sweep(dense, tensors, metric=metric, deadline=deadline)
        loss, before = distance(swept), best
        if loss < best:
            tensors, best = swept, loss
        if report is not None:
            report(best)
        if before - loss < tol:
            break
    return tensors


def _truncated(
    dense: Array, legs: Legs, max_bond: int, deadline: Deadline
) -> MatrixProductOperator:
    """The truncated operator; where time is short, truncated bond by bond on the way to its MPO."""
    if deadline.left is not None:
        began = deadline.fraction()
        found = compress(dense, legs=legs, max_bond=max_bond).mpo
        now = deadline.fraction()
        if now + EXACT_TRUNCATION * (now - began) > 1.0:
            return found
    return truncate(compress(dense, legs=legs).mpo, max_bond=max_bond).mpo


def weighted_loss(
    target: Array, dense: Array, metric: Array | None = None, sensitivity: Array | None = None
) -> float:
    """|C (M - A) S|^2 / |C M S|^2 with C^2 the metric and S^2 the sensitivity, by default 1."""
    off = target - dense
    return inner(off, off, metric, sensitivity) / inner(target, target, metric, sensitivity)


def inner(
    x: Array, y: Array, metric: Array | None = None, sensitivity: Array | None = None
) -> float:
    """Re Tr(x^H C^2 y S^2)."""
    y = y if metric is None else metric @ y
    y = y if sensitivity is None else y @ sensitivity
    if isinstance(x, np.ndarray):
        return float(np.vdot(x, y).real)
    return float(do("real", do("sum", do("conj", x) * y)))


def metric_of(
    metric: Array,
    matrix: Array,
    *,
    axis: int = 0,
    what: str = "covariance",
    size: int | None = None,
) -> np.ndarray:
    """`embed_metric` for the inputs (or outputs: axis 1) of a matrix (inputs, outputs).

    Parameters
    ----------
    size : int, optional
        Inputs (outputs) after zero padding; by default those of the matrix.

    Raises
    ------
    ValueError
        As of `embed_metric`, and if it leaves out inputs whose weights are not zero.
    """
    rows: int = matrix.shape[axis] if size is None else size
    found = embed_metric(metric, rows, what=what)
    check_covers(metric, matrix, axis=axis, what=what)
    return found


def metrics_of(
    matrix: Array, covariance: Array | None, sensitivity: Array | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`metric_of` for both second moments of a layer, where they are given."""
    return (
        None if covariance is None else metric_of(covariance, matrix),
        None if sensitivity is None else metric_of(sensitivity, matrix, axis=1, what="sensitivity"),
    )


def check_covers(metric: Array, matrix: Array, *, axis: int = 0, what: str = "covariance") -> None:
    """Raise a ValueError if a second moment leaves out inputs whose weights are not zero."""
    count, shape = matrix.shape[axis], np.shape(metric)
    given = shape[0] if shape else 0
    left_out = matrix[given:] if axis == 0 else matrix[:, given:]
    if _norm(left_out) > PADDING * _norm(matrix):
        side = ("inputs", "outputs")[axis]
        raise ValueError(
            f"the {what} has shape {shape}, but the matrix has {count} {side} whose "
            f"weights are not zero; give a {what} of all {count}, or the operator with its shape "
            "before padding (shape=, or a Compressed)"
        )


def _norm(array: Array) -> float:
    return math.sqrt(abs(inner(array, array)))


def embed_metric(metric: Array, rows: int, *, what: str = "covariance") -> np.ndarray:
    """The metric of zero-padded inputs, (rows, rows); padded inputs have no activation.

    The same holds for outputs and their sensitivity; `what` is the word in the errors. It is
    Hermitian within the rounding of the type in which it is given, and returned in double
    precision. A metric whose squares would over- or underflow is divided by a power of two: where
    it is used, only its relative size matters.

    Raises
    ------
    ValueError
        If the metric is not square, too large, zero, not finite, not Hermitian, or has a negative
        eigenvalue.
    """
    rounding = rounding_of(metric)
    metric = as_numpy(metric, what=what)
    metric = metric.astype(np.result_type(metric, np.float64), copy=False)
    if metric.ndim != 2 or metric.shape[0] != metric.shape[1] or metric.shape[0] > rows:
        side = "inputs" if what == "covariance" else "outputs"
        raise ValueError(
            f"the {what} has shape {metric.shape}; the operator has {rows} (padded) {side}"
        )
    if not np.isfinite(metric).all() or not metric.any():
        raise ValueError(f"the {what} is zero everywhere, NaN or infinite")
    metric, _ = rescaled(metric)
    scale, is_narrow = np.abs(metric).max(), rounding > 1e-12
    tolerance = 1e-8
    if is_narrow:  # entries are rounded, and so were the sums that they are
        tolerance = max(tolerance, min(0.1, 16 * rounding * math.sqrt(len(metric))))
    if np.abs(metric - metric.conj().T).max() > tolerance * scale:
        raise ValueError(f"the {what} is not Hermitian; give E[x^H x], see `second_moment`")
    metric = (metric + metric.conj().T) / 2
    lowest = np.linalg.eigvalsh(metric)[0]
    if lowest < -tolerance * scale:
        raise ValueError(f"the {what} has a negative eigenvalue {lowest:.3g}")
    if is_narrow and lowest < 0:
        values, vectors = np.linalg.eigh(metric)
        metric = (vectors * values.clip(min=0)) @ vectors.conj().T
    extra = rows - metric.shape[0]
    return np.pad(metric, ((0, extra), (0, extra)))


def metric_root(metric: np.ndarray) -> np.ndarray:
    """C of a second moment C^2: its Hermitian root."""
    values, vectors = np.linalg.eigh(metric)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.conj().T


def mask_padding(sensitivity: np.ndarray | None, outputs: int, legs: Legs) -> np.ndarray | None:
    """The sensitivity; if none is given and outputs are padded, that of the outputs that remain.

    Errors of padded outputs, which are cropped, must not count.
    """
    if sensitivity is None and outputs < padded_shape(legs)[1]:
        return np.eye(outputs)
    return sensitivity


def full_bonds(legs: Legs, max_bond: int) -> list[int]:
    """Bond dimensions up to `max_bond` that an operator on these legs can use."""
    sizes = [i * o for i, o in legs]
    left, right = (  # what the sites up to a bond, and those behind it, have room for
        list(itertools.accumulate(one, lambda a, b: min(max_bond, a * b)))
        for one in (sizes, sizes[::-1])
    )
    return [min(max_bond, a, b) for a, b in zip(left[:-1], right[-2::-1], strict=True)]


def pad_bonds(tensors: Sequence[Array], max_bond: int) -> list[Array]:
    """The same operator with bonds padded by zeros up to `max_bond`, which ALS can use."""
    bonds = [1, *full_bonds(legs_of(tensors), max_bond), 1]
    padded = []
    for k, site in enumerate(tensors):
        a = max(bonds[k] - site.shape[0], 0)
        b = max(bonds[k + 1] - site.shape[3], 0)
        padded.append(do("pad", site, ((0, a), (0, 0), (0, 0), (0, b))))
    return padded


def als_sweep(
    target: Array,
    tensors: Sequence[Array],
    *,
    metric: Array | None = None,
    deadline: Deadline | None = None,
) -> list[Array]:
    """One ALS sweep over the sites to the right and back; the distance never grows.

    Under a metric and with large bonds, L-BFGS over all sites at once replaces the sweep, with
    about as many iterations as cost the same; it computes with numpy.

    Parameters
    ----------
    target : array (rows, columns)
    tensors : list of arrays (left bond, input, output, right bond)
    metric : array (rows, rows), optional
    deadline : Deadline, optional
        The sweep ends early when it has passed.

    Returns
    -------
    list of arrays
        Site tensors of the same shape (bonds beyond `full_bonds` shrink), the first one with the
        norm unless the sweep ended early.
    """
    deadline = Deadline() if deadline is None else deadline
    legs = legs_of(tensors)
    linear = target if metric is None else metric @ target
    if metric is not None:
        largest = max(site.shape[0] * site.shape[1] * site.shape[3] for site in tensors)
        if largest > LARGEST_SITE:
            return _descended(linear, metric, *right_canonical(tensors), deadline)
    # a pass to the left is a pass to the right over the mirrored sites
    tensors = _als_pass(linear, legs, metric, *right_canonical(tensors), deadline)
    if deadline.has_passed:
        return tensors
    if metric is not None:
        metric = _mirror_metric(metric, legs)
    linear = fuse(do("transpose", split(linear, legs), range(len(legs))[::-1]), legs[::-1])
    back = right_canonical(mirrored(tensors))
    return mirrored(_als_pass(linear, legs[::-1], metric, *back, deadline))


def _right_blocks(tensors: Sequence[Array]) -> list[Array]:
    """Contracted sites right of the last one, of the last but one, ...: (bond, rest)."""
    blocks = [do("ones", (1, 1), like=tensors[0])]
    for site in tensors[:0:-1]:
        a, b = site.shape[0], site.shape[3]
        blocks.append((site.reshape(-1, b) @ blocks[-1]).reshape(a, -1))
    return blocks


def core_gradient(pulled: Array, tensors: Sequence[Array]) -> list[Array]:
    """Environment of every site of the core, for h = Re Tr(pulled^H core).

    `pulled` is a matrix (rows, columns), such as Q_L^H M Q_R^H.
    """
    legs = legs_of(tensors)
    n = len(tensors)
    blocks = _right_blocks(tensors)
    rest, gradients = split(pulled, legs).reshape(1, -1), []
    for k, site in enumerate(tensors):
        a, i, o, b = site.shape
        rest = rest.reshape(a * i * o, -1)
        gradients.append((rest @ blocks[n - 1 - k].conj().T).reshape(site.shape))
        rest = site.reshape(-1, b).conj().T @ rest
    return gradients


def norm_gradient(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """d|T|^2/2 / d conj(site) of every site, by transfer matrices."""
    right = [np.ones((1, 1))]
    for site in tensors[:0:-1]:
        a, b = site.shape[0], site.shape[3]
        half = (site.reshape(-1, b) @ right[-1]).reshape(a, -1)
        right.append(half @ site.conj().reshape(a, -1).T)
    left, gradients = np.ones((1, 1)), []
    for site, block in zip(tensors, reversed(right), strict=True):
        a, b = site.shape[0], site.shape[3]
        half = (left.T @ site.reshape(a, -1)).reshape(-1, b)  # (a* i o, b)
        gradients.append((half @ block).reshape(site.shape))
        left = half.T @ site.conj().reshape(-1, b)
    return gradients


def _descended(
    linear: Array, metric: Array, tensors: list[Array], log_norm: float, deadline: Deadline
) -> list[Array]:
    """Lower |C (M - T)|^2 over all sites by L-BFGS; `linear` is metric @ M.

    T is exp(log_norm) times the operator of the tensors, which are right-canonical.
    """
    like = linear
    linear, metric = to_numpy(linear), to_numpy(metric)
    tensors = [to_numpy(site) for site in tensors]
    if log_norm > -math.inf:
        tensors[0] = tensors[0] * math.exp(log_norm)
    else:  # zero has no slope; isometries behind a first site of zeros have one
        tensors[1:] = [
            np.eye(len(c), c[0].size, dtype=c.dtype).reshape(c.shape) for c in tensors[1:]
        ]
    kind = np.result_type(linear, *tensors)
    wide = np.complex128 if kind.kind == "c" else np.float64
    shapes = [site.shape for site in tensors]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def packed(parts: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.ascontiguousarray(p, wide).reshape(-1) for p in parts])

    def unpacked(vector: np.ndarray) -> list[np.ndarray]:
        parts = np.split(np.ascontiguousarray(vector).view(wide), ends)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        now = unpacked(vector)
        dense = tensors_to_dense(now)
        weighted = metric @ dense
        value = np.vdot(dense, weighted - 2 * linear).real
        slope = 2 * packed(core_gradient(weighted - linear, now))
        return value / size, slope.view(np.float64) / size

    # in units of |C T|^2, so that the tolerances of scipy mean something
    dense = tensors_to_dense(tensors)
    size = float(np.vdot(dense, metric @ dense).real) or float(np.linalg.norm(linear)) or 1.0
    options = {"maxiter": DESCENT, "maxcor": DESCENT, "ftol": 0.0, "gtol": 1e-12}
    initial = packed(tensors).view(np.float64)

    def check(vector: np.ndarray) -> None:
        if deadline.has_passed:
            raise StopIteration

    found = minimize(
        evaluate, initial, jac=True, method="L-BFGS-B", options=options, callback=check
    )
    best = unpacked(found.x) if found.fun <= evaluate(initial)[0] else tensors
    return [as_like(site.astype(kind), like) for site in best]


def _mirror_metric(metric: Array, legs: Legs) -> Array:
    """The metric with its row sites in the opposite order, on both indices."""
    rows = [i for i, _ in legs]
    n = len(rows)
    order = [*range(n)[::-1], *range(n, 2 * n)[::-1]]
    return do("transpose", metric.reshape(rows * 2), order).reshape(metric.shape)


def _als_pass(
    linear: Array,
    legs: Legs,
    metric: Array | None,
    tensors: list[Array],
    log_norm: float,
    deadline: Deadline,
) -> list[Array]:
    """Solve the sites from the first to the last; `linear` is metric @ target.

    The initial operator is exp(log_norm) times that of the tensors, which are right-canonical. With
    L and R the orthonormal blocks left and right of a site, its best tensor is L^H T R^H; with a
    metric it solves K t = L^H (metric T) R^H instead, K the metric between the blocks.
    """
    n = len(tensors)
    tensors[0] = tensors[0] * (math.exp(log_norm) if log_norm > -math.inf else 0.0)
    blocks = _right_blocks(tensors)
    rest = split(linear, legs).reshape(1, -1)  # L^H linear, (bond, remaining sites)
    left = do("ones", (1, 1, 1), like=linear)  # L as (rows, columns, bond)
    for k in range(n):
        if deadline.has_passed:
            break  # the operator is as good between two sites
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
        q, r = do("linalg.qr", centre.reshape(-1, b))
        tensors[k] = q.reshape(a, i, o, -1)
        beside = tensors[k + 1]  # gets the norm
        tensors[k + 1] = (r @ beside.reshape(b, -1)).reshape(-1, *beside.shape[1:])
        rest = q.conj().T @ rest
        if metric is not None:
            rows, columns, _ = left.shape
            left = left.reshape(-1, a) @ tensors[k].reshape(a, -1)
            left = do("transpose", left.reshape(rows, columns, i, o, -1), (0, 2, 1, 3, 4))
            left = left.reshape(rows * i, columns * o, -1)
    return tensors


def _metric_between(metric: Array, left: Array, right: Array, legs: Legs, k: int) -> Array:
    """K[(a i b), (a' i' b')]: the metric seen by site k through its blocks."""
    i = legs[k][0]
    rows_r, columns_r = padded_shape(legs[k + 1 :])
    b = right.shape[0]
    rows_l, columns_l, a = left.shape
    left = do("transpose", left, (0, 2, 1)).reshape(-1, columns_l)
    right = _open_block(right, legs[k + 1 :]).reshape(-1, columns_r)
    gram_l = (left.conj() @ left.T).reshape(rows_l, a, rows_l, a)  # (r, a, r', a')
    gram_r = (right.conj() @ right.T).reshape(b, rows_r, b, rows_r)  # (b, s, b', s')
    form = metric.reshape(rows_l, i, rows_r, rows_l, i, rows_r)  # (r, i, s, r', i', s')
    form = do("tensordot", gram_l, form, axes=((0, 2), (0, 3)))  # (a, a', i, s, i', s')
    form = do("tensordot", form, gram_r, axes=((3, 5), (1, 3)))  # (a, a', i, i', b, b')
    size = a * i * b
    return do("transpose", form, (0, 2, 4, 1, 3, 5)).reshape(size, size)


def _open_block(block: Array, legs: Legs) -> Array:
    """(bond, fused sites) -> (bond, rows, columns)."""
    n = len(legs)
    block = block.reshape([-1] + [d for leg in legs for d in leg])
    order = [0] + [1 + 2 * s for s in range(n)] + [2 + 2 * s for s in range(n)]
    return do("transpose", block, order)


def _solve_site(form: Array, linear: Array, old: Array) -> Array:
    """Solve form @ t = linear for t (a, i, b) x o, near `old` where the form is flat.

    Directions that no activation reaches make the form singular. A proximal term of relative size
    1e-13 keeps the old values there, and the distance does not grow by it.
    """
    a, i, o, b = old.shape
    trace = float(do("real", do("trace", form)))
    ridge = 1e-13 * (trace if trace > 0 else 1.0)
    rhs = do("transpose", linear, (0, 1, 3, 2)).reshape(-1, o)
    was = do("transpose", old, (0, 1, 3, 2)).reshape(-1, o)
    form = form + ridge * do("eye", form.shape[0], like=form)
    new = do("linalg.solve", form, rhs + ridge * was)
    return do("transpose", new.reshape(a, i, b, o), (0, 1, 3, 2))
