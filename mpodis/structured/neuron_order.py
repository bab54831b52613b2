"""Search over the order of single rows and columns: inputs, outputs, hidden neurons.

With the core held, the change of the loss under a permutation has a closed form: on a side without
a second moment the best permutation solves a linear assignment problem, on the other the change
is known for every swap of two. So ALS sweeps of the core and permutations alternate, and none of
them increases the distance to the target. This descends to a local minimum; it is run from the
order given, from recursive bisections, and from partial shuffles of the best order so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import linear_sum_assignment

from mpodis.arguments import check_count, random_generator
from mpodis.arrays import rescaled, times_power_of_two
from mpodis.conventions import Legs, check_legs, crop, pad, padded_shape, qubit_legs
from mpodis.fit import (
    als_sweep,
    fit_core,
    inner,
    metric_root,
    metrics_of,
    pad_bonds,
    weighted_loss,
)
from mpodis.mpo import check_matrix, compress
from mpodis.progress import Deadline, bar, within_limit
from mpodis.sites import (
    mpo_from_tensors,
    mpo_to_dense,
    site_tensors,
    spread_power_of_two,
    tensors_to_dense,
)
from mpodis.structured.reordering import FoundOrder, Reordering

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["improve_permutation", "neuron_order", "recursive_bisection"]


@within_limit
def neuron_order(
    matrix: np.ndarray,
    *,
    max_bond: int,
    rows: bool = True,
    columns: bool = True,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    legs: Sequence[Sequence[int]] | None = None,
    restarts: int = 4,
    rounds: int = 60,
    seed: int | np.random.Generator = 0,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> FoundOrder:
    """Search for the order of rows and columns with the lowest loss at a given bond dimension.

    Zero padding stays at the end, so that only neurons are permuted and the neighbouring layers
    can absorb the permutation (`mpodis.nn.absorb_permutation`). If they need not, pad matrix and
    covariance first: the search may then move the padding, too.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    max_bond : int
        Bond dimension of the core.
    rows, columns : bool
        Whether they may be reordered; the columns are the hidden neurons of a first layer.
    covariance : array (inputs, inputs), optional
        E[x^H x]; the loss is that of the activations, |C (M - core)|^2 / |C M|^2.
    sensitivity : array (outputs, outputs), optional
        E[g^H g]; the loss is |C (M - core) S|^2 / |C M S|^2. Permutations are chosen with it,
        but the core is fitted without it.
    legs : sequence of (input, output) dimensions, optional
        Default: qubits, see `qubit_legs`.
    restarts : int
        Partial shuffles of the best order so far, each followed by a descent.
    rounds : int
        The most pairs of an ALS sweep and a permutation in each descent.
    seed : int or numpy.random.Generator
    max_seconds : float, optional
        Stop after this time; the result then depends on the machine. A fifth of it goes to the fit
        in the order given and, if that is enough for one, what is left after 80 % to the last fit.
        One truncation is always made, which takes a few seconds at a dimension of 2,048.
    progbar : bool
        Show a bar with the descents and the lowest loss.

    Returns
    -------
    FoundOrder
        Its `core` has the loss `after`; `before` is the loss of `fit_core` in the order given.

    Raises
    ------
    ValueError
        Nothing to permute, a `max_bond` below 1, moments or legs that do not fit, C M S = 0.

    Examples
    --------
    >>> import numpy as np
    >>> blocks = np.kron(np.eye(2), np.ones((2, 2)))
    >>> found = neuron_order(blocks[[0, 2, 1, 3]], max_bond=1)
    >>> found.before > 0.4, found.after < 1e-10
    (True, True)
    """
    deadline = Deadline(max_seconds)
    if not (rows or columns):
        raise ValueError("rows=False and columns=False leave nothing to permute; allow one of them")
    check_count("max_bond", max_bond)
    check_count("restarts", restarts, 0)
    check_count("rounds", rounds)
    matrix, exponent = rescaled(check_matrix(matrix))
    n, m = matrix.shape
    checked = qubit_legs(n, m) if legs is None else check_legs(legs)
    pad(matrix, checked)  # legs that are too small raise here
    given = _Layer.build(matrix, covariance, sensitivity)
    if not inner(matrix, matrix, given.covariance, given.sensitivity) > 0:
        raise ValueError(
            "the matrix maps all inputs to outputs of no weight (C M S = 0); check that covariance "
            "and sensitivity belong to this layer"
        )
    search = _Search(checked, max_bond, rows, columns, rounds)
    rng = random_generator(seed)
    # where time is short one truncation is the initial guess of both
    tensors = None if max_seconds is None else search.truncated(given)
    at = deadline.fraction()
    before, core = search.fit(given, tensors, deadline=deadline.part(0.2))
    one_fit = deadline.fraction() - at
    descents = deadline.part(0.8)
    with bar(total=3 + restarts, desc="orders", enabled=progbar) as shown:
        best, loss, tensors = search.descend(given, descents, tensors)
        shown.update(loss=loss)
        for layer in search.bisections(given, descents):
            if descents.has_passed:
                break
            best, loss, tensors = min(
                (best, loss, tensors), search.descend(layer, descents), key=lambda one: one[1]
            )
            shown.update(loss=loss)
        for k in range(restarts):
            shuffled = search.shuffled(best, 0.5 ** (1 + k % 3), rng)
            if descents.has_passed:
                break
            best, loss, tensors = min(
                (best, loss, tensors), search.descend(shuffled, descents), key=lambda one: one[1]
            )
            shown.update(loss=loss)
    if deadline.fraction() + one_fit > 1.0:  # no time for another fit
        after, fitted = loss, mpo_from_tensors(tensors)
    else:
        after, fitted = search.fit(best, tensors, deadline=deadline.part(0.95))
    status = "search"
    if before <= after:
        best, after, fitted, status = given, before, core, "unchanged"
    moments = [name for name, x in (("C", covariance), ("S", sensitivity)) if x is not None]
    weighted = f", weighted by {' and '.join(moments)}" if moments else ""
    return FoundOrder(
        Reordering(best.rows, best.columns),
        checked,
        f"loss at bond {max_bond}{weighted}",
        before,
        after,
        search.sweeps,
        status,
        core=mpo_from_tensors(spread_power_of_two(site_tensors(fitted), exponent)),
    )


def improve_permutation(
    matrix: np.ndarray,
    approximation: np.ndarray,
    *,
    rows: bool = True,
    columns: bool = True,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
) -> Reordering:
    """An order of rows and columns that brings a matrix nearer to a given approximation.

    This is the step that `neuron_order` takes between two fits of its core, for approximations of
    any other form. It never increases |C (M - A) S|.

    Parameters
    ----------
    matrix, approximation : array (inputs, outputs)
    rows, columns, covariance, sensitivity
        As for `neuron_order`.

    Returns
    -------
    Reordering

    Examples
    --------
    >>> import numpy as np
    >>> reordering = improve_permutation(np.eye(2), np.eye(2)[::-1], columns=False)
    >>> reordering.rows
    array([1, 0])
    """
    matrix, approximation = check_matrix(matrix), check_matrix(approximation)
    if matrix.shape != approximation.shape:
        raise ValueError(
            f"a matrix of shape {matrix.shape} and an approximation of shape "
            f"{approximation.shape} cannot be compared"
        )
    matrix, exponent = rescaled(matrix)
    approximation = times_power_of_two(approximation, -exponent)
    given = _Layer.build(matrix, covariance, sensitivity)
    found = _nearer(given, approximation, rows=rows, columns=columns)
    return Reordering(found.rows, found.columns)


@dataclass(frozen=True, eq=False)
class _Layer:
    """A reordered matrix with its second moments, and the old numbers of its rows and columns."""

    rows: np.ndarray
    columns: np.ndarray
    matrix: np.ndarray
    covariance: np.ndarray | None
    sensitivity: np.ndarray | None

    @classmethod
    def build(
        cls, matrix: np.ndarray, covariance: np.ndarray | None, sensitivity: np.ndarray | None
    ) -> _Layer:
        """In the order given; the moments are checked."""
        n, m = matrix.shape
        moments = metrics_of(matrix, covariance, sensitivity)
        return cls(np.arange(n), np.arange(m), matrix, *moments)

    def permuted(self, rows: np.ndarray | None = None, columns: np.ndarray | None = None) -> _Layer:
        layer = self
        if rows is not None:
            metric = layer.covariance
            layer = replace(
                layer,
                rows=layer.rows[rows],
                matrix=layer.matrix[rows],
                covariance=None if metric is None else metric[np.ix_(rows, rows)],
            )
        if columns is not None:
            layer = layer.transposed().permuted(rows=columns).transposed()
        return layer

    def transposed(self) -> _Layer:
        """Rows and columns exchanged, with M^H, so that complex moments stay on their side."""
        return _Layer(
            self.columns, self.rows, self.matrix.conj().T, self.sensitivity, self.covariance
        )


class _Search:
    """Descents from given orders, all with the same legs, bond dimension and sides."""

    def __init__(self, legs: Legs, max_bond: int, rows: bool, columns: bool, rounds: int) -> None:
        self.legs, self.max_bond, self.rounds = legs, max_bond, rounds
        self.rows, self.columns = rows, columns
        self.sweeps = 0

    def fit(
        self,
        layer: _Layer,
        tensors: Sequence[np.ndarray] | None = None,
        *,
        deadline: Deadline,
    ) -> tuple[float, MatrixProductOperator]:
        """(loss, core) by `fit_core`, from the site tensors given."""
        padded, metric = self._padded(layer)
        core = fit_core(
            padded,
            max_bond=self.max_bond,
            legs=self.legs,
            covariance=metric,
            init=None if tensors is None else mpo_from_tensors(tensors),
            max_sweeps=30 if max(padded.shape) > 256 else 200,
            tol=1e-6,
            max_seconds=deadline.left,
        )
        return self._loss(layer, padded, mpo_to_dense(core)), core

    def truncated(self, layer: _Layer) -> list[np.ndarray]:
        """Site tensors of the truncated matrix."""
        padded = pad(layer.matrix, self.legs)
        found = compress(padded, legs=self.legs, max_bond=self.max_bond).mpo
        return pad_bonds(site_tensors(found), self.max_bond)

    def descend(
        self,
        layer: _Layer,
        deadline: Deadline,
        tensors: list[np.ndarray] | None = None,
    ) -> tuple[_Layer, float, list[np.ndarray]]:
        """(layer, loss, site tensors) after alternating ALS sweeps and permutations."""
        padded, metric = self._padded(layer)
        tensors = self.truncated(layer) if tensors is None else tensors
        best = (layer, self._loss(layer, padded, tensors_to_dense(tensors)), tensors)
        for _ in range(self.rounds):
            if deadline.has_passed:
                break
            tensors = als_sweep(padded, tensors, metric=metric, deadline=deadline)
            self.sweeps += 1
            dense = tensors_to_dense(tensors)
            core = crop(dense, layer.matrix.shape)
            layer = _nearer(layer, core, rows=self.rows, columns=self.columns, deadline=deadline)
            padded, metric = self._padded(layer)
            loss, before = self._loss(layer, padded, dense), best[1]
            if loss < before:
                best = (layer, loss, tensors)
            if before - loss < 1e-4 * before:
                break
        return best

    def bisections(self, layer: _Layer, deadline: Deadline) -> Iterator[_Layer]:
        """Orders by recursive bisection of the rows and columns of C M S, while there is time."""
        if deadline.has_passed:
            return
        weighted = layer.matrix
        if layer.covariance is not None:
            weighted = metric_root(layer.covariance) @ weighted
        if layer.sensitivity is not None:
            weighted = weighted @ metric_root(layer.sensitivity)
        inputs, outputs = zip(*self.legs, strict=True)
        for centred in (True, False):
            if deadline.has_passed:
                return
            rows = columns = None
            if self.rows:
                rows = recursive_bisection(weighted, inputs, centred=centred)
            if self.columns and not deadline.has_passed:
                columns = recursive_bisection(weighted.T, outputs, centred=centred)
            yield layer.permuted(rows, columns)

    def shuffled(self, layer: _Layer, share: float, rng: np.random.Generator) -> _Layer:
        """A share of the rows and columns shuffled among themselves."""
        orders = []
        for allowed, size in zip((self.rows, self.columns), layer.matrix.shape, strict=True):
            order = np.arange(size)
            chosen = rng.permutation(size)[: math.ceil(share * size)]
            order[chosen] = rng.permutation(chosen)
            orders.append(order if allowed else None)
        return layer.permuted(*orders)

    def _padded(self, layer: _Layer) -> tuple[np.ndarray, np.ndarray | None]:
        """Matrix and covariance, padded."""
        padded = pad(layer.matrix, self.legs)
        extra = len(padded) - len(layer.matrix)
        metric = layer.covariance
        return padded, None if metric is None else np.pad(metric, (0, extra))

    def _loss(self, layer: _Layer, padded: np.ndarray, dense: np.ndarray) -> float:
        metrics = [
            None if metric is None else np.pad(metric, (0, size - len(metric)))
            for metric, size in zip(
                (layer.covariance, layer.sensitivity), padded_shape(self.legs), strict=True
            )
        ]
        return weighted_loss(padded, dense, *metrics)


def recursive_bisection(
    vectors: np.ndarray, dims: Sequence[int], *, centred: bool = True
) -> np.ndarray:
    """An order of vectors by recursive bisection along their first principal component.

    At every level a block is sorted along its first principal component and cut into as many
    blocks as the next leg has values. The first leg then separates the vectors that differ most,
    the last one those that differ least. All components of a level point the same way, so that
    corresponding vectors of the blocks come in the same order.

    Parameters
    ----------
    vectors : array (n, features)
    dims : sequence of int
        Dimensions of the legs, most significant first; their product is at least n.
    centred : bool
        Subtract the mean of a block before its component is computed.

    Returns
    -------
    array of int (n,)
    """
    dims = [d for d in dims if d > 1]
    order = np.arange(len(vectors))
    blocks, size = [order], math.prod(dims)
    for d in dims:
        size //= d
        reference, following = None, []
        for block in blocks:
            inside = vectors[block]
            if len(block) > 1:
                direction = _principal(inside - inside.mean(axis=0) if centred else inside)
                if reference is not None and np.vdot(reference, direction).real < 0:
                    direction = -direction
                reference = direction if reference is None else reference
                block = block[np.argsort(np.real(inside @ direction.conj()), kind="stable")]
            following += [block[k : k + size] for k in range(0, len(block), size)]
        blocks = following
    return np.concatenate(blocks)


def _principal(vectors: np.ndarray) -> np.ndarray:
    """First right singular vector (its conjugate transpose), largest entry positive."""
    if len(vectors) < vectors.shape[1]:
        _, u = np.linalg.eigh(vectors @ vectors.conj().T)
        direction = u[:, -1].conj() @ vectors
        direction = direction / max(np.linalg.norm(direction), 1e-300)
    else:
        _, v = np.linalg.eigh(vectors.T @ vectors.conj())
        direction = v[:, -1]
    return -direction if direction[np.abs(direction).argmax()].real < 0 else direction


def _nearer(
    layer: _Layer,
    dense: np.ndarray,
    *,
    rows: bool,
    columns: bool,
    deadline: Deadline | None = None,
) -> _Layer:
    """The layer with rows and columns permuted, as allowed, to be nearer to a dense matrix."""
    deadline = Deadline() if deadline is None else deadline
    if columns and not deadline.has_passed:
        transposed = layer.transposed()
        order = _best_rows(transposed, dense.conj().T, deadline)
        layer = transposed.permuted(rows=order).transposed()
    if rows and not deadline.has_passed:
        layer = layer.permuted(rows=_best_rows(layer, dense, deadline))
    return layer


def _best_rows(layer: _Layer, dense: np.ndarray, deadline: Deadline) -> np.ndarray:
    """A permutation p of the rows for which |C_p (M_p - dense) S| is not larger than before."""
    if layer.covariance is None:
        weighted = dense if layer.sensitivity is None else dense @ layer.sensitivity
        gain: np.ndarray = np.real(weighted.conj() @ layer.matrix.T)  # (position, row)
        return linear_sum_assignment(gain, maximize=True)[1]
    return _swaps(layer.matrix, dense, layer.covariance, layer.sensitivity, deadline)


def _swaps(
    matrix: np.ndarray,
    dense: np.ndarray,
    c: np.ndarray,
    s: np.ndarray | None,
    deadline: Deadline,
    *,
    passes: int = 4,
) -> np.ndarray:
    """Batches of disjoint swaps of rows, each batch checked to lower the loss.

    Seen from the rows, a swap exchanges two rows b of the dense matrix, and the loss changes by
    -2 Re u^T C (M - B) S d^H + (u^T C u) (d S d^H), u = e_i - e_j, d = b_j - b_i.
    """
    at = np.arange(len(matrix))  # position of every row
    norms = np.real(c.diagonal())
    weights = norms[:, None] + norms - 2 * np.real(c)  # u^T C u
    loss = inner(matrix - dense, matrix - dense, c, s)
    for _ in range(passes):
        if deadline.has_passed:
            break
        b = dense[at]
        right = b if s is None else b @ s
        linear = np.real(c @ (matrix - b) @ right.conj().T)
        gram = np.real(b @ right.conj().T)
        own, sizes = linear.diagonal(), gram.diagonal()
        change = weights * (sizes[:, None] + sizes - 2 * gram)
        change -= 2 * (linear + linear.T - own[:, None] - own)
        pairs = _disjoint(change, 1e-12 * abs(loss))
        tried, lower = at, loss
        while pairs:
            tried = at.copy()
            i, j = np.array(pairs).T
            tried[i], tried[j] = at[j], at[i]
            off = matrix - dense[tried]
            lower = inner(off, off, c, s)
            if lower < loss:
                break
            # the changes do not add up: together they may raise the loss, the best one cannot
            pairs = pairs[: len(pairs) // 2]
        else:
            break
        at, loss = tried, lower
    return np.argsort(at)


def _disjoint(change: np.ndarray, least: float) -> list[tuple[int, int]]:
    """Disjoint pairs whose swap lowers the loss by more than `least`, best first."""
    upper = np.triu(change, 1)
    i, j = np.nonzero(upper < -least)
    free, pairs = np.ones(len(change), dtype=bool), []
    for k in np.argsort(upper[i, j], kind="stable"):
        a, b = int(i[k]), int(j[k])
        if free[a] and free[b]:
            free[a] = free[b] = False
            pairs.append((a, b))
    return pairs
