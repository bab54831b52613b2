"""Search over the order of the sites.

Most measures are sums over the bonds, and what a bond costs depends only on which legs stand left
of it. So the cost of a set of legs is worked out once, and the best order is a shortest path that
adds leg after leg: 2^n sets, or binomial(2n, n) where rows and columns move independently,
instead of n! or (n!)^2 orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpodis.conventions import Legs, check_legs, pad, qubit_legs
from mpodis.fit import embed_metric, fit_core, metric_root, weighted_loss
from mpodis.mpo import check_matrix
from mpodis.sites import mpo_legs, mpo_to_dense
from mpodis.structured.reordering import Ordered, Reordering

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["site_order"]

State = tuple[tuple[int, ...], tuple[int, ...]]
"""Old site of every row leg, and of every column leg."""

MEASURES = ("entropy", "discarded", "loss")
EXACT_TOGETHER, EXACT_APART = 8, 7  # most sites of an exact search: some seconds


def site_order(
    operator,
    *,
    legs: Sequence[Sequence[int]] | None = None,
    measure: str = "entropy",
    max_bond: int | None = None,
    covariance=None,
    together: bool = True,
    restarts: int = 2,
    steps: int = 200,
    seed: int | np.random.Generator = 0,
) -> Ordered:
    """The order of the sites with the least entanglement.

    Exact for the sums over bonds up to 8 sites that move together, 7 where rows and columns move
    independently; simulated annealing and pairwise swaps above, and for the loss.

    Parameters
    ----------
    operator : MatrixProductOperator or array (rows, columns)
        It is made dense. A matrix that its legs do not fill is padded with zeros, and so is
        the reordering found.
    legs : sequence of (input, output) dimensions, optional
        Of a dense operator; default: qubits, see `qubit_legs`.
    measure : {"entropy", "discarded", "loss"}
        "entropy": the sum of S_k over the bonds, nats. "discarded": the sum over the bonds of the
        weight beyond `max_bond` singular values, a bound on the squared relative error of a
        truncation. "loss": |C (M - core)|^2 / |C M|^2 of the core that `fit_core` finds in at most
        60 sweeps; a fit for every order tried, so minutes at 6 sites and bond 8.
    max_bond : int
        Bond dimension of the last two measures.
    covariance : array (inputs, inputs), optional
        Weigh by the activations: entropy and discarded weight of C M with C^2 the covariance,
        a stand-in for the loss, which is weighted as such.
    together : bool
        Move sites as a whole. Otherwise rows and columns are ordered independently, which a layer
        allows whose inputs and outputs have nothing to do with each other.
    restarts, steps : int
        Of an annealing: starts from a random order beside the one from the order given, and
        moves tried from each (at most 20 with the loss).
    seed : int or numpy.random.Generator

    Returns
    -------
    Ordered
        Its `sites` are the legs' old sites, its `legs` those of the reordered matrix.

    Raises
    ------
    ValueError
        An unknown measure, a missing or idle `max_bond`, legs that do not fit.
    """
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is not known; use one of {', '.join(MEASURES)}")
    if (measure == "entropy") != (max_bond is None):
        raise ValueError(
            f"max_bond={max_bond} with measure={measure!r}: 'discarded' and 'loss' need a bond "
            "dimension, 'entropy' takes none"
        )
    if max_bond is not None and max_bond < 1:
        raise ValueError(f"max_bond={max_bond} keeps nothing; use 1 or more")
    if restarts < 0 or steps < 0:
        raise ValueError(f"restarts={restarts} and steps={steps} must not be negative")
    matrix, legs = _dense(operator, legs)
    metric = None if covariance is None else embed_metric(covariance, len(matrix))
    rng = np.random.default_rng(seed)
    native = (tuple(range(len(legs))),) * 2
    cuts = _Cuts(_weighted(matrix, metric), legs, max_bond)
    search = {"together": together, "rng": rng, "restarts": restarts, "steps": steps}
    best, status = _order_by_cuts(cuts, native, **search)
    cost: Callable[[State], float] = cuts.total
    evaluations, core = len(cuts.known), None
    if measure == "loss":
        fits = _Fits(matrix, legs, metric, max_bond)
        cost, status = fits.loss, "search"
        starts = [native, best]
        if not together:
            starts.append(_order_by_cuts(cuts, native, **(search | {"together": True}))[0])
        best = _anneal(cost, starts, **(search | {"steps": min(steps, 20)}))
        evaluations += len(fits.known)
    if cost(native) <= cost(best):
        best, status = native, status if status == "exact" else "unchanged"
    if measure == "loss":
        core = fits.fit(best)[1]
    dims = tuple(zip(*legs, strict=True))
    return Ordered(
        Reordering(*(_numbers(d, order) for d, order in zip(dims, best, strict=True))),
        _moved(legs, best),
        measure if covariance is None else f"{measure}, weighted",
        cost(native),
        cost(best),
        evaluations,
        status,
        best,
        core,
    )


def _dense(operator, legs) -> tuple[np.ndarray, Legs]:
    if hasattr(operator, "upper_ind"):
        if legs is not None:
            raise ValueError("an MPO has its own legs; leave legs= out")
        return check_matrix(mpo_to_dense(operator)), mpo_legs(operator)
    matrix = check_matrix(operator)
    legs = qubit_legs(*matrix.shape) if legs is None else check_legs(legs)
    return pad(matrix, legs), legs


def _weighted(matrix, metric) -> np.ndarray:
    if metric is None:
        return matrix
    weighted = metric_root(metric) @ matrix
    if not weighted.any():
        raise ValueError(
            "the layer answers none of the given inputs (C M = 0); check that the covariance "
            "belongs to this layer"
        )
    return weighted


def _numbers(dims: Sequence[int], order: Sequence[int]) -> np.ndarray:
    """Old number of every new row (or column) when its legs are reordered."""
    return np.arange(math.prod(dims)).reshape(dims).transpose(order).ravel()


def _moved(legs: Legs, state: State) -> Legs:
    return tuple((legs[r][0], legs[c][1]) for r, c in zip(*state, strict=True))


class _Cuts:
    """Cost of the bond right of a set of row legs and a set of column legs, worked out once.

    Sets are bit masks; a set and its complement share their bond.
    """

    def __init__(self, matrix, legs: Legs, max_bond: int | None) -> None:
        self.n, self.max_bond = len(legs), max_bond
        self.dims = [i for i, _ in legs] + [o for _, o in legs]
        self.tensor = (matrix / np.linalg.norm(matrix)).reshape(self.dims)
        self.known: dict[tuple[int, int], float] = {}

    def __call__(self, rows: int, columns: int) -> float:
        full = (1 << self.n) - 1
        key = min((rows, columns), (full ^ rows, full ^ columns))
        if key not in self.known:
            self.known[key] = self._cost(*key)
        return self.known[key]

    def total(self, state: State) -> float:
        """Sum over the bonds."""
        rows = columns = 0
        result = 0.0
        for r, c in list(zip(*state, strict=True))[:-1]:
            rows, columns = rows | 1 << r, columns | 1 << c
            result += self(rows, columns)
        return result

    def _cost(self, rows: int, columns: int) -> float:
        inside = [k for k in range(self.n) if rows >> k & 1]
        inside += [self.n + k for k in range(self.n) if columns >> k & 1]
        outside = [k for k in range(2 * self.n) if k not in inside]
        size = math.prod(self.dims[k] for k in inside)
        block = self.tensor.transpose(inside + outside).reshape(size, -1)
        if block.shape[0] > block.shape[1]:
            block = block.T
        weights = np.linalg.eigvalsh(block @ block.conj().T)[::-1]
        if self.max_bond is not None:
            return float(weights[self.max_bond :].clip(min=0).sum())
        weights = weights[weights > 1e-15]
        return float(-(weights * np.log(weights)).sum())


class _Fits:
    """The best core of every order and its loss, worked out once."""

    def __init__(self, matrix, legs: Legs, metric, max_bond: int) -> None:
        self.matrix, self.legs, self.metric, self.max_bond = matrix, legs, metric, max_bond
        self.dims = tuple(zip(*legs, strict=True))
        self.known: dict[State, tuple[float, MatrixProductOperator]] = {}

    def _reordered(self, state: State):
        numbers = (_numbers(d, order) for d, order in zip(self.dims, state, strict=True))
        moved = Reordering(*numbers)
        metric = None if self.metric is None else moved.covariance(self.metric)
        return moved.apply(self.matrix), metric

    def fit(self, state: State) -> tuple[float, MatrixProductOperator]:
        if state not in self.known:
            matrix, metric = self._reordered(state)
            options = {"max_bond": self.max_bond, "max_sweeps": 60, "tol": 1e-8}
            core = fit_core(matrix, legs=_moved(self.legs, state), metric=metric, **options)
            self.known[state] = weighted_loss(matrix, mpo_to_dense(core), metric), core
        return self.known[state]

    def loss(self, state: State) -> float:
        return self.fit(state)[0]


def _order_by_cuts(cuts: _Cuts, native: State, *, together: bool, **search) -> tuple[State, str]:
    n = cuts.n
    if n <= (EXACT_TOGETHER if together else EXACT_APART):
        return _shortest_path(cuts, together), "exact"
    return _anneal(cuts.total, [native], together=together, **search), "search"


def _shortest_path(cuts: _Cuts, together: bool) -> State:
    """The order of least total cost, by dynamic programming over the sets left of a bond."""
    n = cuts.n
    level: dict[tuple[int, int], tuple[float, State]] = {(0, 0): (0.0, ((), ()))}
    for size in range(1, n + 1):
        following: dict[tuple[int, int], tuple[float, State]] = {}
        for (rows, columns), (cost, (r, c)) in level.items():
            for i, j in itertools.product(range(n), repeat=2):
                if (together and i != j) or rows >> i & 1 or columns >> j & 1:
                    continue
                key = rows | 1 << i, columns | 1 << j
                # the step costs what its target costs, so the cheapest way there is kept
                if key not in following or cost < following[key][0]:
                    following[key] = cost, ((*r, i), (*c, j))
        if size < n:
            following = {k: (cost + cuts(*k), order) for k, (cost, order) in following.items()}
        level = following
    ((_, best),) = level.values()
    return best


def _anneal(
    cost: Callable[[State], float],
    starts: Sequence[State],
    *,
    together: bool,
    rng: np.random.Generator,
    restarts: int,
    steps: int,
) -> State:
    """Simulated annealing from every start and some random ones, then swaps while they help."""
    n = len(starts[0][0])
    if n < 2:
        return starts[0]
    starts = list(starts)
    for _ in range(restarts):
        rows, columns = (tuple(rng.permutation(n).tolist()) for _ in range(2))
        starts.append((rows, rows) if together else (rows, columns))
    best = min(starts, key=cost)
    for start in starts:
        state, hot = start, 0.1 * cost(start)
        for step in range(steps):
            temperature = hot * 0.01 ** (step / steps)
            # mostly neighbours: their swap changes one bond
            i = int(rng.integers(n - 1))
            j = i + 1 if rng.random() < 0.7 else int(rng.integers(n))
            tried = _swapped(state, i, j, "both" if together else _SIDES[rng.integers(3)])
            rise = cost(tried) - cost(state)
            if rise <= 0 or rng.random() < math.exp(-rise / max(temperature, 1e-300)):
                state = tried
            if cost(state) < cost(best):
                best = state
    return _descend(cost, best, together)


def _descend(cost: Callable[[State], float], state: State, together: bool) -> State:
    n = len(state[0])
    improved = True
    while improved:
        improved = False
        for i, j in itertools.combinations(range(n), 2):
            for side in ("both",) if together else _SIDES:
                tried = _swapped(state, i, j, side)
                if cost(tried) < cost(state):
                    state, improved = tried, True
    return state


_SIDES = ("both", "rows", "columns")


def _swapped(state: State, i: int, j: int, side: str) -> State:
    result = []
    for name, order in zip(("rows", "columns"), state, strict=True):
        order = list(order)
        if side in ("both", name):
            order[i], order[j] = order[j], order[i]
        result.append(tuple(order))
    return result[0], result[1]
