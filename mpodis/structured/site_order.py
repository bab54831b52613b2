"""Search over the order of the sites.

Most measures are sums over the bonds, and the term of a bond depends only on the set of legs left
of it. So the cost of each set is computed once, and the best order is a shortest path that adds
one leg after the other: 2^n sets, or binomial(2n, n) where rows and columns are ordered
independently, instead of n! or (n!)^2 orders.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mpodis.arguments import check_count, random_generator
from mpodis.arrays import rescaled
from mpodis.conventions import Legs, check_legs, crop, pad, qubit_legs
from mpodis.fit import fit_core, metric_of, metric_root, weighted_loss
from mpodis.mpo import Compressed, Operator, check_matrix, mpo_or_matrix
from mpodis.progress import Bar, Deadline, bar, within_limit
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors, spread_power_of_two
from mpodis.structured.reordering import FoundOrder, Reordering

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["site_order"]

Orders = tuple[tuple[int, ...], tuple[int, ...]]
"""Old site of every row leg, and of every column leg."""

MEASURES = ("entropy", "discarded", "loss")
EXACT_TOGETHER, EXACT_APART = 8, 7
"""The most sites of an exact search, which then takes a few seconds."""
SLOW_STEPS = 20
"""The most moves of an annealing by the loss, each of which is a fit."""
FIT_SHARE = 0.2
"""Part of a limited time that one fit may take."""


@within_limit
def site_order(
    operator: Operator,
    *,
    legs: Sequence[Sequence[int]] | None = None,
    measure: str = "entropy",
    max_bond: int | None = None,
    covariance: np.ndarray | None = None,
    together: bool = True,
    restarts: int = 2,
    steps: int = 200,
    seed: int | np.random.Generator = 0,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> FoundOrder:
    """The order of the sites with the least entanglement.

    Exact for the sums over bonds up to 8 sites, or 7 where rows and columns are ordered
    independently; by simulated annealing and pairwise swaps for more sites and for the loss.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        An MPO is contracted to a matrix. A matrix smaller than its legs span is padded with zeros;
        the reordering found is then one of the padded matrix.
    legs : sequence of (input, output) dimensions, optional
        Of a matrix; default: qubits, see `qubit_legs`.
    measure : {"entropy", "discarded", "loss"}
        "entropy": the sum of S_k over the bonds, nats. "discarded": the sum over the bonds of the
        weight beyond `max_bond` singular values, a bound on the squared relative error of a
        truncation. "loss": |C (M - core)|^2 / |C M|^2 of the core that `fit_core` finds in at most
        60 sweeps; this is a fit for every order tried, so minutes at 6 sites and bond 8.
    max_bond : int
        Bond dimension of the last two measures.
    covariance : array (inputs, inputs), optional
        C^2. Entropy and discarded weight are then those of C M, which approximates the effect on
        the loss of the activations.
    together : bool
        Reorder sites as a whole. Otherwise rows and columns are ordered independently, which is
        possible for a layer whose inputs and outputs are unrelated.
    restarts, steps : int
        Of the annealing: runs from a random order in addition to that from the order given, and
        the number of moves tried in each (at most 20 for the loss).
    seed : int or numpy.random.Generator
    max_seconds : float, optional
        Stop after this time; the result then depends on the machine, and is the order given where
        not even the exact search ends. The measure of the order given is always computed; the loss
        of 1,024 x 1,024 takes 1 s of one core.
    progbar : bool
        Show a bar with the orders that were tried, and the lowest measure.

    Returns
    -------
    FoundOrder
        Its `sites` are the legs' old sites, its `legs` those of the reordered matrix.

    Raises
    ------
    ValueError
        An unknown measure, a `max_bond` that is missing or not used, legs that do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> pair = np.eye(4).reshape(16, 1) @ np.ones((1, 16))  # sites 0 and 2, 1 and 3 are entangled
    >>> found = site_order(pair)
    >>> found.sites[0]
    (0, 2, 1, 3)
    """
    deadline = Deadline(max_seconds)
    if measure not in MEASURES:
        raise ValueError(f"measure={measure!r} is not known; use one of {', '.join(MEASURES)}")
    if (measure == "entropy") != (max_bond is None):
        raise ValueError(
            f"max_bond={max_bond} with measure={measure!r}: 'discarded' and 'loss' need a bond "
            "dimension, 'entropy' takes none"
        )
    if max_bond is not None:
        check_count("max_bond", max_bond)
    for name, value in (("restarts", restarts), ("steps", steps)):
        check_count(name, value, 0)
    matrix, checked, shape = _dense(operator, legs)
    matrix, exponent = rescaled(matrix)
    metric = None
    if covariance is not None:
        metric = metric_of(covariance, crop(matrix, shape), size=len(matrix))
    native = (tuple(range(len(checked))), tuple(range(len(checked))))
    cuts = _Cuts(_weighted(matrix, metric), checked, max_bond)
    with bar(total=None, desc=f"orders ({measure})", enabled=progbar) as shown:
        rng = random_generator(seed)
        spectra = deadline if measure != "loss" else deadline.part(0.3)
        search = _Annealing(together, rng, restarts, steps, spectra, shown)
        best, status = search.order_by_cuts(cuts, native)
        if measure == "loss":
            assert max_bond is not None  # checked above
            fits = _Fits(matrix, checked, metric, max_bond, deadline)
            guesses = [native, best]
            if not together:
                guesses.append(replace(search, together=True).order_by_cuts(cuts, native)[0])
            search = replace(search, steps=min(steps, SLOW_STEPS), deadline=deadline)
            best = search.run(fits.loss, guesses)
            before, after, status = fits.loss(native), fits.loss(best), "search"
            evaluations = len(cuts.known) + len(fits.known)
        else:
            fits = None
            evaluations = len(cuts.known)
            before, after = cuts.total(native), cuts.total(best)
    if before <= after:
        best, after, status = native, before, status if status == "exact" else "unchanged"
    return FoundOrder(
        _reordering(checked, best),
        _moved(checked, best),
        measure if covariance is None else f"{measure}, weighted",
        before,
        after,
        evaluations,
        status,
        best,
        None if fits is None else _core(fits.fit(best)[1], exponent),
    )


def _dense(
    operator: Operator, legs: Sequence[Sequence[int]] | None
) -> tuple[np.ndarray, Legs, tuple[int, int]]:
    """The padded matrix, its legs, and the shape before padding."""
    found = mpo_or_matrix(operator)
    if isinstance(found, Compressed):
        if legs is not None:
            raise ValueError("an MPO has its own legs; leave legs= out")
        return check_matrix(mpo_to_dense(found.mpo)), found.legs, found.shape
    matrix = check_matrix(found)
    checked = qubit_legs(*matrix.shape) if legs is None else check_legs(legs)
    return pad(matrix, checked), checked, matrix.shape


def _core(core: MatrixProductOperator, exponent: int) -> MatrixProductOperator:
    """2^exponent times a core."""
    return mpo_from_tensors(spread_power_of_two(site_tensors(core), exponent))


def _weighted(matrix: np.ndarray, metric: np.ndarray | None) -> np.ndarray:
    """C M."""
    if metric is None:
        return matrix
    weighted = metric_root(metric) @ matrix
    if not weighted.any():
        raise ValueError(
            "the matrix maps all given inputs to zero (C M = 0); check that the covariance "
            "belongs to this layer"
        )
    return weighted


def _reordering(legs: Legs, orders: Orders) -> Reordering:
    """The permutation of rows and columns when the legs are reordered."""
    numbers = []
    for dims, order in zip(zip(*legs, strict=True), orders, strict=True):
        numbers.append(np.arange(math.prod(dims)).reshape(dims).transpose(order).ravel())
    return Reordering(numbers[0], numbers[1])


def _moved(legs: Legs, orders: Orders) -> Legs:
    return tuple((legs[r][0], legs[c][1]) for r, c in zip(*orders, strict=True))


class _Cuts:
    """Cost of the bond right of a set of row legs and a set of column legs, computed once.

    Sets are bit masks; a set and its complement have the same cost.
    """

    def __init__(self, matrix: np.ndarray, legs: Legs, max_bond: int | None) -> None:
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

    def total(self, orders: Orders) -> float:
        """The sum over the bonds of an order."""
        rows = columns = 0
        result = 0.0
        for r, c in list(zip(*orders, strict=True))[:-1]:
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
    """The best core of every order and its loss, computed once."""

    def __init__(
        self,
        matrix: np.ndarray,
        legs: Legs,
        metric: np.ndarray | None,
        max_bond: int,
        deadline: Deadline,
    ) -> None:
        self.deadline = deadline
        self.matrix, self.legs, self.metric, self.max_bond = matrix, legs, metric, max_bond
        self.known: dict[Orders, tuple[float, MatrixProductOperator]] = {}

    def fit(self, orders: Orders) -> tuple[float, MatrixProductOperator]:
        """(loss, core) of an order."""
        if orders not in self.known:
            moved = _reordering(self.legs, orders)
            matrix = moved.apply(self.matrix)
            metric = None if self.metric is None else moved.covariance(self.metric)
            core = fit_core(
                matrix,
                max_bond=self.max_bond,
                legs=_moved(self.legs, orders),
                covariance=metric,
                max_sweeps=60,
                tol=1e-8,
                # no more than a share, so that there are others to compare with
                max_seconds=self.deadline.part(self.deadline.fraction() + FIT_SHARE).left,
            )
            self.known[orders] = weighted_loss(matrix, mpo_to_dense(core), metric), core
        return self.known[orders]

    def loss(self, orders: Orders) -> float:
        return self.fit(orders)[0]


def _shortest_path(cuts: _Cuts, together: bool, deadline: Deadline) -> Orders | None:
    """The order of least total cost, by dynamic programming over the sets left of a bond.

    None where the time is over before.
    """
    n = cuts.n
    level: dict[tuple[int, int], tuple[float, Orders]] = {(0, 0): (0.0, ((), ()))}
    for size in range(1, n + 1):
        following: dict[tuple[int, int], tuple[float, Orders]] = {}
        for (rows, columns), (cost, (r, c)) in level.items():
            for i, j in itertools.product(range(n), repeat=2):
                if (together and i != j) or rows >> i & 1 or columns >> j & 1:
                    continue
                key = rows | 1 << i, columns | 1 << j
                # the step costs what its target costs, so the cheapest way there is kept
                if key not in following or cost < following[key][0]:
                    following[key] = cost, ((*r, i), (*c, j))
        if size < n:
            for key, (cost, order) in following.items():
                if deadline.has_passed:
                    return None
                following[key] = cost + cuts(*key), order
        level = following
    ((_, best),) = level.values()
    return best


@dataclass(frozen=True)
class _Annealing:
    """Search for an order by simulated annealing, followed by swaps while they help.

    Attributes
    ----------
    together : bool
    rng : numpy.random.Generator
    restarts, steps : int
        See `site_order`.
    deadline : Deadline
    shown : Bar
    """

    together: bool
    rng: np.random.Generator
    restarts: int
    steps: int
    deadline: Deadline
    shown: Bar

    def order_by_cuts(self, cuts: _Cuts, native: Orders) -> tuple[Orders, str]:
        """The order of least total cost and its status; exact for few sites."""
        if cuts.n <= (EXACT_TOGETHER if self.together else EXACT_APART):
            found = _shortest_path(cuts, self.together, self.deadline)
            return (native, "search") if found is None else (found, "exact")
        return self.run(cuts.total, [native]), "search"

    def run(self, cost: Callable[[Orders], float], guesses: Sequence[Orders]) -> Orders:
        """The best order found from the initial guesses and from random orders."""
        n = len(guesses[0][0])
        if n < 2:
            return guesses[0]
        guesses = list(guesses)
        for _ in range(self.restarts):
            rows, columns = (tuple(self.rng.permutation(n).tolist()) for _ in range(2))
            guesses.append((rows, rows) if self.together else (rows, columns))
        best, known = guesses[0], cost(guesses[0])
        for guess in guesses[1:]:
            if self.deadline.has_passed:
                return best
            if cost(guess) < known:
                best, known = guess, cost(guess)
        for guess in guesses:
            orders, hot = guess, 0.1 * cost(guess)
            for step in range(self.steps):
                if self.deadline.has_passed:
                    return best
                temperature = hot * 0.01 ** (step / self.steps)
                # mostly neighbours: their swap changes one bond
                i = int(self.rng.integers(n - 1))
                j = i + 1 if self.rng.random() < 0.7 else int(self.rng.integers(n))
                side = "both" if self.together else _SIDES[self.rng.integers(3)]
                tried = _swapped(orders, i, j, side)
                rise = cost(tried) - cost(orders)
                if rise <= 0 or self.rng.random() < math.exp(-rise / max(temperature, 1e-300)):
                    orders = tried
                if cost(orders) < cost(best):
                    best = orders
                self.shown.update(best=cost(best))
        return self._descended(cost, best)

    def _descended(self, cost: Callable[[Orders], float], orders: Orders) -> Orders:
        """Swap pairs of legs until no swap lowers the cost."""
        n = len(orders[0])
        improved = True
        while improved:
            improved = False
            for i, j in itertools.combinations(range(n), 2):
                for side in ("both",) if self.together else _SIDES:
                    if self.deadline.has_passed:
                        return orders
                    tried = _swapped(orders, i, j, side)
                    if cost(tried) < cost(orders):
                        orders, improved = tried, True
                    self.shown.update(best=cost(orders))
        return orders


_SIDES = ("both", "rows", "columns")


def _swapped(orders: Orders, i: int, j: int, side: str) -> Orders:
    """An order with two legs of a side, or of both, exchanged."""
    result = []
    for name, order in zip(("rows", "columns"), orders, strict=True):
        order = list(order)
        if side in ("both", name):
            order[i], order[j] = order[j], order[i]
        result.append(tuple(order))
    return result[0], result[1]
