"""Tree engine: the closed network along cotengra's hyper-optimised contraction tree. Exact.

The cost grows with the tree width of the network and not with 2^l or 4^d: the engine for irregular
circuits and wide gates, and a check on the others. The tree is searched once for a geometry; a
whole sweep then costs a few contractions of the network (see `messages`). Where the messages do
not fit the memory, indices are sliced: every slice has its own, smaller messages, an environment
is the sum over slices, and slices can run in parallel, on any executor.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs
from mpodis.environments.network.geometry import Key, Network
from mpodis.environments.network.messages import Messages, message_indices
from mpodis.environments.network.walk import FLOOR, WalkEnvironments, walk_cost

__all__ = ["TreeEnvironments", "search_path"]

MEMORY = 2**31
"""Bytes that the messages of one slice may take, unless the caller says otherwise."""
MAX_SLICES = 2**12
TRIALS = 24
"""Batches of greedy trees."""
HOPELESS = 1e3
"""Seconds a walk beyond which no better search will help."""
SEARCHES = ("greedy", "hyper")


class TreeEnvironments(WalkEnvironments):
    """Environments along a searched contraction tree, see `walk.WalkEnvironments`.

    Parameters
    ----------
    target : list of site tensors or array (rows, columns)
    legs, left, right
    memory : int
        Bytes that messages may take; a network that needs more is sliced.
    executor : optional
        Anything with ``submit(function, *arguments)`` that returns a future: a pool of
        `concurrent.futures` or a Dask client. Slices run on it; by default one after the other.
    path : dict, optional
        A tree found earlier (the attribute `path` of another engine): nothing is searched.
    search, trials, seed
        How a tree is searched, see `search_path`.
    """

    parallel = False

    def __init__(
        self,
        target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        *,
        memory: int = MEMORY,
        executor=None,
        path: dict | None = None,
        search: str = "greedy",
        trials: int = TRIALS,
        seed: int = 0,
    ) -> None:
        super().__init__(target, legs, left, right)
        self.memory, self.executor = memory, executor
        self.plan, self._search = path, {"search": search, "trials": trials, "seed": seed}

    def _plan(self, sizes: Mapping[str, int]) -> tuple[Messages, list[Key]]:
        indices = list(self.network.indices.values())
        key = [[*names, *(sizes[i] for i in names)] for names in indices]
        if self.plan is None or self.plan["network"] != key:
            ssa_path = search_path(indices, sizes, **self._search)
            kinds = [x.dtype.itemsize for x in (*self._target, *self.left, *self.right, *self.core)]
            sliced = _slices(indices, sizes, ssa_path, self.memory // max(kinds))
            self.plan = {
                "network": key,
                "ssa_path": [list(pair) for pair in ssa_path],
                "sliced": sliced,
            }
        ssa_path = [tuple(pair) for pair in self.plan["ssa_path"]]
        sliced = tuple(self.plan["sliced"])
        walked = _walking_order(len(indices), ssa_path)
        keys = list(self.network.indices)
        free = set(self.network.free)
        order = [keys[leaf] for leaf in walked if keys[leaf] in free]
        order += [("core", k) for k in range(len(self.core))]
        if sliced:
            return SlicedMessages(indices, sizes, ssa_path, sliced, self.executor), order
        return Messages(indices, sizes, ssa_path), order


class SlicedMessages:
    """`Messages` with some indices held fixed, summed over their values.

    Nothing is kept between two environments: that is what saves the memory.
    """

    def __init__(self, indices, sizes, ssa_path, sliced: Sequence[str], executor) -> None:
        self._indices = tuple(tuple(names) for names in indices)
        self._sizes, self._path = tuple(sorted(sizes.items())), tuple(ssa_path)
        self._sliced, self._executor = tuple(sliced), executor
        self._arrays: list = [None] * len(indices)
        self._known: dict[int, tuple[np.ndarray, float]] = {}
        self.slices = list(itertools.product(*(range(sizes[i]) for i in sliced)))

    def set(self, leaf: int, array) -> None:
        self._arrays[leaf] = array
        self._known = {}

    def environment(self, leaf: int) -> tuple[np.ndarray, float]:
        if leaf not in self._known:
            self._known |= self._environments([leaf])
        return self._known[leaf]

    def prepare(self, leaves: Sequence[int]) -> None:
        """All of them at once, one pass over the slices."""
        self._known |= self._environments(leaves)

    def value(self, leaf: int) -> complex:
        array, _ = self.environment(leaf)
        return np.dot(array.reshape(-1), self._arrays[leaf].reshape(-1))

    def _environments(self, leaves: Sequence[int]) -> dict[int, tuple[np.ndarray, float]]:
        dims = dict(self._sizes)
        sums = {
            leaf: np.zeros([dims[i] for i in self._indices[leaf]], self._dtype()) for leaf in leaves
        }
        common = (self._indices, self._sizes, self._path, self._sliced)
        jobs = [
            (*common, values, self._slice(dict(zip(self._sliced, values, strict=True))), leaves)
            for values in self.slices
        ]
        if self._executor is None:
            parts = (contract_slice(*job) for job in jobs)
        else:
            futures = [self._executor.submit(contract_slice, *job) for job in jobs]
            parts = (future.result() for future in futures)
        for values, found in zip(self.slices, parts, strict=True):
            at = dict(zip(self._sliced, values, strict=True))
            for leaf, array in zip(leaves, found, strict=True):
                where = tuple(at.get(i, slice(None)) for i in self._indices[leaf])
                sums[leaf][where] += array.reshape(sums[leaf][where].shape)
        return {leaf: (array, 0.0) for leaf, array in sums.items()}

    def _dtype(self):
        return np.result_type(*self._arrays)

    def _slice(self, at: Mapping[str, int]) -> list:
        dims = dict(self._sizes)
        return [
            array.reshape([dims[i] for i in names])[tuple(at.get(i, slice(None)) for i in names)]
            for names, array in zip(self._indices, self._arrays, strict=True)
        ]


@lru_cache(maxsize=8)
def _slice_plan(indices, sizes, path, sliced) -> Messages:
    gone = set(sliced)
    return Messages([[i for i in names if i not in gone] for names in indices], dict(sizes), path)


def contract_slice(indices, sizes, path, sliced, values, arrays, leaves) -> list:
    """Environments of some leaves in one slice; a function that can be sent anywhere."""
    messages = _slice_plan(indices, sizes, path, sliced).copy()
    for leaf, array in enumerate(arrays):
        messages.set(leaf, array)
    found = []
    for leaf in leaves:
        array, log_scale = messages.environment(leaf)
        found.append(array * np.exp(log_scale))
    return found


def search_path(
    indices,
    sizes: Mapping[str, int],
    *,
    search: str = "greedy",
    trials: int = TRIALS,
    seed: int = 0,
) -> list[tuple[int, int]]:
    """A contraction tree of the closed network by cotengra, as an SSA path.

    The tree along which a walk costs least (see `walk.walk_cost`) is taken.

    Parameters
    ----------
    indices, sizes
        As for `Messages`.
    search : {"greedy", "hyper"}
        `trials` batches of randomised greedy trees (milliseconds each where cotengrust is
        installed), or these and cotengra's hyper-optimiser over kahypar's partitions (seconds).
        Both repeat with the seed. (Greedy trials inside the hyper-optimiser do not, whatever their
        seed, which is why they stand apart here.)
    """
    if search not in SEARCHES:
        raise ValueError(f"search={search!r} is not known; use one of {', '.join(SEARCHES)}")
    if len(indices) == 2:
        return [(0, 1)]
    return _searched(tuple(tuple(x) for x in indices), tuple(sizes.items()), search, trials, seed)


@lru_cache(maxsize=8)  # whoever chose the engine has just searched for the same network
def _searched(indices, sizes, search: str, trials: int, seed: int) -> list[tuple[int, int]]:
    import cotengra as ctg

    sizes = dict(sizes)
    names = {name: ctg.get_symbol(k) for k, name in enumerate(sizes)}
    inputs = [tuple(names[i] for i in x) for x in indices]
    dims = {names[i]: size for i, size in sizes.items()}
    optimizers = [
        ctg.RandomGreedyOptimizer(max_repeats=8, seed=seed + k, parallel=False)
        for k in range(trials)
    ]
    if search == "hyper":
        if not importlib.util.find_spec("kahypar"):
            raise ImportError("search='hyper' needs kahypar; pip install kahypar, or 'greedy'")
        optimizers.append(
            ctg.HyperOptimizer(
                methods=["kahypar"],
                minimize="combo",
                max_repeats=trials,
                parallel=False,
                optlib="random",
                seed=seed,
            )
        )
    paths = []
    with _seeded(seed):
        for optimizer in optimizers:
            tree = optimizer.search(inputs, (), dims)
            paths.append([tuple(pair) for pair in tree.get_ssa_path()])
    return min(paths, key=lambda path: path_cost(indices, sizes, path)[0])


def path_cost(indices, sizes: Mapping[str, int], path, itemsize: int = 8) -> tuple[float, float]:
    """`walk_cost` along a tree, without planning the contractions."""
    edges, flops = message_indices(indices, path, sizes)
    entries = sum(math.prod(sizes[i] for i in names) for names in edges)
    return walk_cost(len(path) - 1, flops, entries, itemsize)


@contextlib.contextmanager
def _seeded(seed: int):
    """Python's random state, which cotengra draws from, for a while; then as it was."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def estimate(
    network: Network, sizes: Mapping[str, int], itemsize: int, budget: float, seed: int
) -> tuple[float, float]:
    """Seconds for offering every gate its environment once, and bytes of the messages.

    Of the tree that the engine will find, unless a quick search says that it is hopeless. Slices
    are allowed for: each gate then takes a contraction of its own.
    """
    indices = list(network.indices.values())
    for trials in (2, TRIALS):
        path = search_path(indices, sizes, trials=trials, seed=seed)
        seconds, size = path_cost(indices, sizes, path, itemsize)
        if seconds > HOPELESS:
            break
    if size <= budget:
        return seconds, size
    try:
        sliced = _slices(indices, sizes, path, room(budget) // itemsize)
    except ValueError:
        return math.inf, size
    seconds, size = path_cost(indices, sizes | dict.fromkeys(sliced, 1), path, itemsize)
    count = math.prod(sizes[i] for i in sliced)
    return seconds * count * len(network.free), size


def room(budget: float) -> int:
    """Bytes of a budget that are left for messages."""
    return max(2**16, int(budget - FLOOR))


def _slices(indices, sizes, ssa_path, entries: int) -> list[str]:
    """Indices to hold fixed so that the messages of a slice have at most so many entries."""
    edges, _ = message_indices(indices, ssa_path, sizes)
    left, sliced = dict(sizes), []
    while True:
        weights: dict[str, int] = {}
        total = 0
        for names in edges:
            size = math.prod(left[i] for i in names)
            total += size
            for i in names:
                if left[i] > 1:
                    weights[i] = weights.get(i, 0) + size
        if 2 * total <= entries:  # both directions may be alive
            return sliced
        # the index that most of what is stored has in common
        sliced.append(max(weights, key=lambda i: (weights[i], i)))
        left[sliced[-1]] = 1
        if math.prod(sizes[i] for i in sliced) > MAX_SLICES:
            raise ValueError(
                f"contracting this network within {entries:.2g} numbers would take more than "
                f"{MAX_SLICES} slices; give memory= more bytes, use fewer layers, or "
                "engine='boundary'"
            )


def _walking_order(n: int, ssa_path: Sequence[tuple[int, int]]) -> list[int]:
    """Leaves in depth-first order: neighbours in the tree follow each other."""
    children = {n + step: pair for step, pair in enumerate(ssa_path)}
    stack, leaves = [n + len(ssa_path) - 1], []
    while stack:
        node = stack.pop()
        if node < n:
            leaves.append(node)
        else:
            stack += reversed(children[node])
    return leaves
