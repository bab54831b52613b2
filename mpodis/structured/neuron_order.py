"""Search over the order of single rows and columns: inputs, outputs, hidden neurons.

With the core fixed, what a permutation is worth has closed forms: of the side without a metric
the best permutation is a linear assignment, of the other every swap of two has a known gain. So a
core and an order are improved in turn, ALS sweep and permutation, and no step moves away from
the target. It ends in a minimum near its start; the starts are the order given and recursive
bisections, and shuffles of the best so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from mpodis.conventions import Legs, check_legs, crop, pad, padded_shape, qubit_legs
from mpodis.fit import (
    als_core,
    embed_metric,
    fit_core,
    inner,
    metric_root,
    pad_bonds,
    weighted_loss,
)
from mpodis.mpo import check_matrix, compress
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors, tensors_to_dense
from mpodis.structured.reordering import Ordered, Reordering

__all__ = ["bisection", "improve_permutation", "neuron_order"]


def neuron_order(
    matrix,
    *,
    max_bond: int,
    rows: bool = True,
    columns: bool = True,
    covariance=None,
    sensitivity=None,
    legs: Sequence[Sequence[int]] | None = None,
    restarts: int = 4,
    rounds: int = 60,
    seed: int | np.random.Generator = 0,
) -> Ordered:
    """The order of rows and columns in which the best core of a given bond loses least.

    Zero padding stays at the end, so that what is permuted is neurons only and the layers around
    can absorb it (`mpodis.nn.absorb_permutation`). Where nobody else needs the order, pad
    matrix and covariance first: the search may then spread the padding.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    max_bond : int
        Bond dimension of the core.
    rows, columns : bool
        Which side may be reordered; the columns are the hidden neurons of a first layer.
    covariance : array (inputs, inputs), optional
        E[x^H x]; the loss is that of the activations, |C (M - core)|^2 / |C M|^2.
    sensitivity : array (outputs, outputs), optional
        E[g^H g]; the loss is |C (M - core) S|^2 / |C M S|^2. It weighs the permutations; the
        site tensors are fitted without it.
    legs : sequence of (input, output) dimensions, optional
        Default: qubits, see `qubit_legs`.
    restarts : int
        Shuffles of a part of the best order, each followed by a descent.
    rounds : int
        Most pairs of an ALS sweep and a permutation in each descent.
    seed : int or numpy.random.Generator

    Returns
    -------
    Ordered
        Its `core` has the loss `after`; `before` is that of `fit_core` in the order given.

    Raises
    ------
    ValueError
        Nothing to permute, a `max_bond` below 1, metrics or legs that do not fit.
    """
    if not (rows or columns):
        raise ValueError("rows=False and columns=False leave nothing to permute; allow one of them")
    if max_bond < 1:
        raise ValueError(f"max_bond={max_bond} keeps nothing; use 1 or more")
    if restarts < 0 or rounds < 1:
        raise ValueError(f"restarts={restarts} must be 0 or more and rounds={rounds} 1 or more")
    matrix = check_matrix(matrix)
    n, m = matrix.shape
    legs = qubit_legs(n, m) if legs is None else check_legs(legs)
    pad(matrix, legs)  # legs that are too small raise here
    if covariance is not None:
        covariance = embed_metric(covariance, n)
    if sensitivity is not None:
        sensitivity = embed_metric(sensitivity, m, what="sensitivity")
    native = _Placed(np.arange(n), np.arange(m), matrix, covariance, sensitivity)
    size = inner(matrix, matrix, covariance, sensitivity)
    if not size > 0:
        raise ValueError("no activation feels this matrix (C M S = 0); check both metrics")
    search = _Search(legs, max_bond, rows, columns, rounds)
    rng = np.random.default_rng(seed)
    starts = [native, *search.bisections(native)]
    found = [search.descend(start) for start in starts]
    best = min(found, key=lambda pair: pair[1])
    for k in range(restarts):
        kicked = search.kicked(best[0], 0.5 ** (1 + k % 3), rng)
        best = min(best, search.descend(kicked), key=lambda pair: pair[1])
    before, core = search.fit(native)
    after, fitted = search.fit(best[0], best[2])
    status = "search"
    if before <= after:
        best, after, fitted, status = (native, before), before, core, "unchanged"
    given = [name for name, x in (("C", covariance), ("S", sensitivity)) if x is not None]
    weighed = f", weighted by {' and '.join(given)}" if given else ""
    return Ordered(
        Reordering(best[0].rows, best[0].columns),
        legs,
        f"loss at bond {max_bond}{weighed}",
        before,
        after,
        search.sweeps,
        status,
        core=fitted,
    )


def improve_permutation(
    matrix,
    approximation,
    *,
    rows: bool = True,
    columns: bool = True,
    covariance=None,
    sensitivity=None,
) -> Reordering:
    """An order of rows and columns that brings a matrix nearer to one that stays as it is.

    The step that `neuron_order` takes between two fits of its core, for fits of any other form. It
    never makes |C (M - A) S| larger.

    Parameters
    ----------
    matrix, approximation : array (inputs, outputs)
    rows, columns, covariance, sensitivity
        As for `neuron_order`.
    """
    matrix, approximation = check_matrix(matrix), check_matrix(approximation)
    if matrix.shape != approximation.shape:
        raise ValueError(
            f"a matrix of shape {matrix.shape} and an approximation of shape "
            f"{approximation.shape} cannot be compared"
        )
    n, m = matrix.shape
    if covariance is not None:
        covariance = embed_metric(covariance, n)
    if sensitivity is not None:
        sensitivity = embed_metric(sensitivity, m, what="sensitivity")
    native = _Placed(np.arange(n), np.arange(m), matrix, covariance, sensitivity)
    found = _nearer_placed(native, approximation, rows=rows, columns=columns)
    return Reordering(found.rows, found.columns)


@dataclass(frozen=True, eq=False)
class _Placed:
    """Matrix and metrics in some order, and that order: old numbers of the rows and columns."""

    rows: np.ndarray
    columns: np.ndarray
    matrix: np.ndarray
    covariance: np.ndarray | None
    sensitivity: np.ndarray | None

    def permuted(self, rows=None, columns=None) -> _Placed:
        placed = self
        if rows is not None:
            metric = placed.covariance
            placed = replace(
                placed,
                rows=placed.rows[rows],
                matrix=placed.matrix[rows],
                covariance=None if metric is None else metric[np.ix_(rows, rows)],
            )
        if columns is not None:
            placed = placed.transposed().permuted(rows=columns).transposed()
        return placed

    def transposed(self) -> _Placed:
        """Rows and columns change roles; M^H, so that complex metrics stay on their side."""
        return _Placed(
            self.columns, self.rows, self.matrix.conj().T, self.sensitivity, self.covariance
        )


class _Search:
    """Descents from given orders, all with the same legs, bond and sides."""

    def __init__(self, legs: Legs, max_bond: int, rows: bool, columns: bool, rounds: int) -> None:
        self.legs, self.max_bond, self.rounds = legs, max_bond, rounds
        self.rows, self.columns = rows, columns
        self.sweeps = 0

    def fit(self, placed: _Placed, start: Sequence | None = None):
        """(loss, core) by `fit_core`."""
        padded, metric = self._padded(placed)
        start = None if start is None else mpo_from_tensors(start)
        core = fit_core(
            padded,
            max_bond=self.max_bond,
            legs=self.legs,
            metric=metric,
            init=start,
            max_sweeps=30 if max(padded.shape) > 256 else 200,
            tol=1e-6,
        )
        return self._loss(placed, padded, mpo_to_dense(core)), core

    def descend(self, placed: _Placed) -> tuple[_Placed, float, list]:
        """(order, loss, site tensors) after ALS sweeps and permutations in turn, while they help."""
        padded, metric = self._padded(placed)
        start = compress(padded, legs=self.legs, max_bond=self.max_bond).mpo
        tensors = pad_bonds(site_tensors(start), self.max_bond)
        best = (placed, self._loss(placed, padded, tensors_to_dense(tensors)), tensors)
        for _ in range(self.rounds):
            tensors = als_core(padded, tensors, metric=metric)
            self.sweeps += 1
            dense = tensors_to_dense(tensors)
            fixed = crop(dense, placed.matrix.shape)
            placed = _nearer_placed(placed, fixed, rows=self.rows, columns=self.columns)
            padded, metric = self._padded(placed)
            loss, before = self._loss(placed, padded, dense), best[1]
            if loss < before:
                best = (placed, loss, tensors)
            if before - loss < 1e-4 * before:
                break
        return best

    def bisections(self, placed: _Placed) -> list[_Placed]:
        """Orders by recursive bisection of the rows and columns of C M S."""
        weighted = placed.matrix
        if placed.covariance is not None:
            weighted = metric_root(placed.covariance) @ weighted
        if placed.sensitivity is not None:
            weighted = weighted @ metric_root(placed.sensitivity)
        inputs, outputs = zip(*self.legs, strict=True)
        result = []
        for centred in (True, False):
            rows = bisection(weighted, inputs, centred=centred) if self.rows else None
            columns = bisection(weighted.T, outputs, centred=centred) if self.columns else None
            result.append(placed.permuted(rows, columns))
        return result

    def kicked(self, placed: _Placed, share: float, rng: np.random.Generator) -> _Placed:
        """A share of the rows and columns shuffled among themselves."""
        orders = []
        for allowed, size in zip((self.rows, self.columns), placed.matrix.shape, strict=True):
            order = np.arange(size)
            chosen = rng.permutation(size)[: math.ceil(share * size)]
            order[chosen] = rng.permutation(chosen)
            orders.append(order if allowed else None)
        return placed.permuted(*orders)

    def _padded(self, placed: _Placed):
        padded = pad(placed.matrix, self.legs)
        extra = len(padded) - len(placed.matrix)
        metric = placed.covariance
        return padded, None if metric is None else np.pad(metric, (0, extra))

    def _loss(self, placed: _Placed, padded, dense) -> float:
        metrics = [
            None if metric is None else np.pad(metric, (0, size - len(metric)))
            for metric, size in zip(
                (placed.covariance, placed.sensitivity), padded_shape(self.legs), strict=True
            )
        ]
        return weighted_loss(padded, dense, *metrics)


def bisection(vectors, dims: Sequence[int], *, centred: bool = True) -> np.ndarray:
    """An order of vectors by recursive bisection along their leading direction.

    At every level a block is sorted along its first principal component and cut where the next
    leg cuts, so that a leading leg separates what differs most and the last one tells apart the
    most alike. The directions of one level point the same way, which lines blocks up.

    Parameters
    ----------
    vectors : array (n, features)
    dims : dimensions of the legs, most significant first; their product is at least n
    centred : bool
        Take the mean of a block off before its direction is determined.

    Returns
    -------
    array of int (n,)
    """
    vectors = np.asarray(vectors)
    dims = [d for d in dims if d > 1]
    order = np.arange(len(vectors))
    blocks, size = [order], math.prod(dims)
    for d in dims:
        size //= d
        reference, following = None, []
        for block in blocks:
            inside = vectors[block]
            if len(block) > 1:
                direction = _leading(inside - inside.mean(axis=0) if centred else inside)
                if reference is not None and np.vdot(reference, direction).real < 0:
                    direction = -direction
                reference = direction if reference is None else reference
                block = block[np.argsort((inside @ direction.conj()).real, kind="stable")]
            following += [block[k : k + size] for k in range(0, len(block), size)]
        blocks = following
    return np.concatenate(blocks)


def _leading(vectors) -> np.ndarray:
    """First right singular vector (its conjugate transpose), largest entry positive."""
    if len(vectors) < vectors.shape[1]:
        _, u = np.linalg.eigh(vectors @ vectors.conj().T)
        direction = u[:, -1].conj() @ vectors
        direction = direction / max(np.linalg.norm(direction), 1e-300)
    else:
        _, v = np.linalg.eigh(vectors.T @ vectors.conj())
        direction = v[:, -1]
    return -direction if direction[np.abs(direction).argmax()].real < 0 else direction


def _nearer_placed(placed: _Placed, dense, *, rows: bool, columns: bool) -> _Placed:
    """Bring the allowed sides nearer to a fixed (inputs, outputs) matrix."""
    if columns:
        moved = placed.transposed()
        placed = moved.permuted(rows=_nearer(moved, dense.conj().T)).transposed()
    if rows:
        placed = placed.permuted(rows=_nearer(placed, dense))
    return placed


def _nearer(placed: _Placed, dense) -> np.ndarray:
    """A permutation p of the rows for which |C_p (M_p - dense) S| is not larger than before."""
    if placed.covariance is None:
        felt = dense if placed.sensitivity is None else dense @ placed.sensitivity
        gain = (felt.conj() @ placed.matrix.T).real  # (position, row)
        return linear_sum_assignment(gain, maximize=True)[1]
    return _swaps(placed, dense)


def _swaps(placed: _Placed, dense, *, passes: int = 4) -> np.ndarray:
    """Batches of disjoint swaps of rows, each batch checked to lower the loss.

    In the frame of the rows a swap exchanges two rows b of the dense matrix, and the loss
    changes by -2 Re u^T C (M - B) S d^H + (u^T C u) (d S d^H), u = e_i - e_j, d = b_j - b_i.
    """
    matrix, c, s = placed.matrix, placed.covariance, placed.sensitivity
    at = np.arange(len(matrix))  # position of every row
    norms = c.diagonal().real
    feel = norms[:, None] + norms - 2 * c.real
    loss = inner(matrix - dense, matrix - dense, c, s)
    for _ in range(passes):
        b = dense[at]
        right = b if s is None else b @ s
        pull = (c @ (matrix - b) @ right.conj().T).real
        gram = (b @ right.conj().T).real
        own, sizes = pull.diagonal(), gram.diagonal()
        rise = feel * (sizes[:, None] + sizes - 2 * gram)
        rise -= 2 * (pull + pull.T - own[:, None] - own)
        pairs = _disjoint(rise, 1e-12 * abs(loss))
        while pairs:
            tried = at.copy()
            i, j = np.array(pairs).T
            tried[i], tried[j] = at[j], at[i]
            off = matrix - dense[tried]
            lower = inner(off, off, c, s)
            if lower < loss:
                break
            pairs = pairs[: len(pairs) // 2]  # together they may hurt; the best alone cannot
        else:
            break
        at, loss = tried, lower
    return np.argsort(at)


def _disjoint(rise, least: float) -> list[tuple[int, int]]:
    """Pairs that lower the loss by more than `least`, best first, none twice in a pair."""
    upper = np.triu(rise, 1)
    i, j = np.nonzero(upper < -least)
    free, pairs = np.ones(len(rise), dtype=bool), []
    for k in np.argsort(upper[i, j], kind="stable"):
        a, b = int(i[k]), int(j[k])
        if free[a] and free[b]:
            free[a] = free[b] = False
            pairs.append((a, b))
    return pairs
