"""Tree engine: the closed network along a contraction tree that cotengra has found. Exact.

The cost grows with the tree width of the network and not with 2^l or 4^d: the engine for irregular
circuits and wide gates, and a check on the others. The tree is searched once per geometry; a
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
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs
from mpodis.environments.network.engine import NetworkEnvironments, path_cost
from mpodis.environments.network.geometry import Key, Network
from mpodis.environments.network.messages import MessagePassing, Messages, message_indices
from mpodis.environments.protocol import SMALL_ARRAYS, EngineOptions, Estimate, ProblemSize, Target

__all__ = ["TreeEnvironments", "search_path"]

SSAPath: TypeAlias = "Sequence[tuple[int, int]]"
"""Pairs of tensors in static single assignment form: tensors are 0..n-1, step i makes n + i."""

MEMORY = 2**31
"""Bytes that the messages of one slice may take, unless the caller says otherwise."""
MAX_SLICES = 2**12
TRIALS = 24
"""Batches of greedy trees."""
HOPELESS = 1e3
"""Seconds per half sweep beyond which no longer search will help."""
WORTH_SEARCHING = 5e-3
"""An automatic choice searches for a tree where no other exact engine is faster than so many
seconds."""
MOST_TENSORS = 1500
"""Gates and sites beyond which an automatic choice does not search: it takes long and finds
nothing that fits."""
SEARCH_SECONDS = 2e-3
"""Seconds of a search per tensor; in an estimate they are spread over `SWEEPS` sweeps."""
SWEEPS = 200


class TreeEnvironments(NetworkEnvironments):
    """Environments along a searched contraction tree, see `NetworkEnvironments`.

    Parameters
    ----------
    target : list of site tensors or array (rows, columns)
    legs, left, right
    memory : int
        Bytes that messages may take; a network that needs more is sliced.
    executor : optional
        Anything with ``submit(function, *arguments)`` that returns a future: a pool of
        `concurrent.futures` or a Dask client. Slices run on it; by default one after the other.
    plan : dict, optional
        A tree found earlier (the attribute `plan` of another engine): nothing is searched.
    optimize, trials, seed
        How a tree is searched, see `search_path`.
    """

    name = "tree"

    def __init__(
        self,
        target: Target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        *,
        memory: int = MEMORY,
        executor: Any = None,
        plan: dict[str, Any] | None = None,
        optimize: Any = None,
        trials: int = TRIALS,
        seed: int = 0,
    ) -> None:
        super().__init__(target, legs, left, right)
        self.memory, self.executor = memory, executor
        self.plan, self._search = plan, {"optimize": optimize, "trials": trials, "seed": seed}

    @classmethod
    def estimate(cls, problem: ProblemSize, options: EngineOptions) -> Estimate:
        """Along the tree that the engine will find, unless a short search says it is hopeless.

        Slices are allowed for: each gate then takes a contraction of its own.
        """
        network = Network.of(problem.legs, problem.left, problem.right)
        sizes = network.sizes(problem.target_bonds, problem.core_bonds)
        indices, itemsize = list(network.indices.values()), problem.itemsize
        seconds, size, path = math.inf, 0.0, ()
        searches = [options.optimize] if options.optimize else [None, None]
        for optimize, trials in zip(searches, (2, TRIALS)[-len(searches) :], strict=True):
            path = search_path(indices, sizes, optimize=optimize, trials=trials, seed=options.seed)
            seconds, size = path_cost(indices, sizes, path, itemsize)
            if seconds > HOPELESS:
                break
        if size > options.budget:
            try:
                sliced = _slices(indices, sizes, path, _message_bytes(options) // itemsize)
            except ValueError:
                return Estimate(cls.name, True, math.inf, size)
            seconds, size = path_cost(indices, sizes | dict.fromkeys(sliced, 1), path, itemsize)
            seconds *= math.prod(sizes[i] for i in sliced) * len(network.free)
        return Estimate(cls.name, True, seconds + SEARCH_SECONDS * len(indices) / SWEEPS, size)

    @classmethod
    def is_worth_estimating(cls, problem: ProblemSize, quickest: float) -> bool:
        gates = len(problem.left.placements) + len(problem.right.placements)
        small = 2 * len(problem.legs) + gates <= MOST_TENSORS
        return small and quickest > WORTH_SEARCHING

    @classmethod
    def build(
        cls, target: Target, legs: Legs, left: Ansatz, right: Ansatz, options: EngineOptions
    ) -> TreeEnvironments:
        return cls(
            target,
            legs,
            left,
            right,
            memory=_message_bytes(options),
            executor=options.executor,
            optimize=options.optimize,
            seed=options.seed,
        )

    def _plan_messages(self, sizes: Mapping[str, int]) -> tuple[Messages, list[Key]]:
        indices = list(self.network.indices.values())
        shapes = [[*names, *(sizes[i] for i in names)] for names in indices]
        plan = self.plan
        if plan is None or plan["network"] != shapes:
            path = search_path(indices, sizes, **self._search)
            kinds = [x.dtype.itemsize for x in (*self._target, *self.left, *self.right, *self.core)]
            plan = self.plan = {
                "network": shapes,
                "ssa_path": [list(pair) for pair in path],
                "sliced": _slices(indices, sizes, path, self.memory // max(kinds)),
            }
        path = [(a, b) for a, b in plan["ssa_path"]]
        keys, free = list(self.network.indices), set(self.network.free)
        order = [keys[leaf] for leaf in _depth_first(len(indices), path) if keys[leaf] in free]
        order += [("core", k) for k in range(len(self.core))]
        if plan["sliced"]:
            return SlicedMessages(indices, sizes, path, plan["sliced"], self.executor), order
        return MessagePassing(indices, sizes, path), order


class SlicedMessages(Messages):
    """`MessagePassing` with some indices held fixed, summed over their values.

    Nothing is kept between two environments, which is what saves the memory.
    """

    def __init__(
        self,
        indices: Sequence[Sequence[str]],
        sizes: Mapping[str, int],
        path: SSAPath,
        sliced: Sequence[str],
        executor: Any,
    ) -> None:
        self._indices = tuple(tuple(names) for names in indices)
        self._sizes, self._path = tuple(sorted(sizes.items())), tuple(path)
        self._sliced, self._executor = tuple(sliced), executor
        self._arrays: list = [None] * len(indices)
        self._known: dict[int, tuple[np.ndarray, float]] = {}
        self.slices = list(itertools.product(*(range(sizes[i]) for i in sliced)))

    def set(self, leaf: int, array: np.ndarray) -> None:
        self._arrays[leaf] = array
        self._known = {}

    def environment(self, leaf: int) -> tuple[np.ndarray, float]:
        if leaf not in self._known:
            self._known |= self._environments([leaf])
        return self._known[leaf]

    def prepare(self, leaves: Sequence[int]) -> None:
        """In one pass over the slices."""
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

    def _dtype(self) -> np.dtype:
        return np.result_type(*self._arrays)

    def _slice(self, at: Mapping[str, int]) -> list[np.ndarray]:
        """All tensors at fixed values of the sliced indices."""
        dims = dict(self._sizes)
        return [
            array.reshape([dims[i] for i in names])[tuple(at.get(i, slice(None)) for i in names)]
            for names, array in zip(self._indices, self._arrays, strict=True)
        ]


@lru_cache(maxsize=8)
def _slice_plan(
    indices: tuple, sizes: tuple, path: tuple, sliced: tuple[str, ...]
) -> MessagePassing:
    """Messages of a network without the indices that are held fixed."""
    kept = [tuple(i for i in names if i not in sliced) for names in indices]
    return MessagePassing(kept, dict(sizes), path)


def contract_slice(
    indices: tuple,
    sizes: tuple,
    path: tuple,
    sliced: tuple[str, ...],
    values: tuple[int, ...],
    arrays: list[np.ndarray],
    leaves: Sequence[int],
) -> list[np.ndarray]:
    """Environments of some tensors in one slice; a function that can be sent anywhere."""
    messages = _slice_plan(indices, sizes, path, sliced).copy()
    for leaf, array in enumerate(arrays):
        messages.set(leaf, array)
    found = []
    for leaf in leaves:
        array, log_scale = messages.environment(leaf)
        found.append(array * np.exp(log_scale))
    return found


def search_path(
    indices: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    *,
    optimize: Any = None,
    trials: int = TRIALS,
    seed: int = 0,
) -> SSAPath:
    """A contraction tree of the closed network, found by cotengra, as an SSA path.

    Parameters
    ----------
    indices, sizes
        As for `MessagePassing`.
    optimize : optional
        None or "greedy": `trials` batches of randomised greedy trees (milliseconds each where
        cotengrust is installed), of which the one is taken whose half sweep costs least.
        "hyper": these, and cotengra's `HyperOptimizer` over kahypar's partitions, or over its own
        label propagation where kahypar is not installed (seconds to minutes).
        Or whatever cotengra takes as `optimize`: the name of a preset, an optimizer, a path (pairs
        of positions in a list from which two tensors are taken and to which their product is
        appended, as cotengra and opt_einsum write them) or a `ContractionTree`. Tensors are
        numbered as in `Network.indices`.
    trials, seed : int
        "greedy" and "hyper" over kahypar repeat with the seed. (Greedy trials inside the
        hyper-optimiser do not, whatever their seed; that is why they are run apart.)

    Raises
    ------
    ValueError
        A preset that cotengra does not know, or a path or tree of another network.
    """
    if len(indices) == 2:
        return [(0, 1)]
    if isinstance(optimize, list | tuple):
        optimize = tuple(tuple(step) for step in optimize)
        _check_tensor_count(1 + sum(len(step) - 1 for step in optimize), len(indices))
    names = tuple(tuple(x) for x in indices)
    return _searched(names, tuple(sizes.items()), optimize, trials, seed)


@lru_cache(maxsize=8)  # estimate and engine search the same network
def _searched(indices: tuple, sizes: tuple, optimize: Any, trials: int, seed: int) -> SSAPath:
    import cotengra as ctg

    symbols = {name: ctg.get_symbol(k) for k, (name, _) in enumerate(sizes)}
    inputs = [tuple(symbols[i] for i in x) for x in indices]
    dims = {symbols[i]: size for i, size in sizes}
    with _seeded(seed):
        if optimize not in (None, "greedy", "hyper"):
            try:
                chosen: Any = optimize  # its type stubs know names only
                tree: Any = ctg.array_contract_tree(inputs, (), dims, optimize=chosen)
                path = [(a, b) for a, b in tree.get_ssa_path()]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(
                    f"optimize={optimize!r} is no contraction of these {len(inputs)} tensors "
                    f"({error!r}); use 'greedy', 'hyper', or what cotengra takes"
                ) from None
            _check_tensor_count(len(path) + 1, len(inputs))
            return path
        serial: dict[str, Any] = {"parallel": False}  # cotengra's annotation knows strings only
        optimizers: list[Any] = [
            ctg.RandomGreedyOptimizer(max_repeats=8, seed=seed + k, **serial) for k in range(trials)
        ]
        if optimize == "hyper":
            optimizers.append(
                ctg.HyperOptimizer(
                    methods=["kahypar" if importlib.util.find_spec("kahypar") else "labels"],
                    minimize="combo",
                    max_repeats=trials,
                    **serial,
                    optlib="random",
                    seed=seed,
                )
            )
        paths = [
            [(a, b) for a, b in optimizer.search(inputs, (), dims).get_ssa_path()]
            for optimizer in optimizers
        ]
    return min(paths, key=lambda path: path_cost(indices, dict(sizes), path)[0])


def _check_tensor_count(contracted: int, tensors: int) -> None:
    """Raise a ValueError for a path or tree of another number of tensors."""
    if contracted != tensors:
        raise ValueError(
            f"optimize= contracts {contracted} tensors, the network has {tensors}; search the "
            "path for this network, or use 'greedy' or 'hyper'"
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed Python's global random state, from which cotengra draws, and restore it at the end."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _message_bytes(options: EngineOptions) -> int:
    """Bytes of the budget that are left for messages."""
    return max(2**16, int(options.budget - SMALL_ARRAYS))


def _slices(
    indices: Sequence[Sequence[str]], sizes: Mapping[str, int], path: SSAPath, entries: int
) -> list[str]:
    """Indices to hold fixed so that the messages of a slice have at most so many entries."""
    edges, _ = message_indices(indices, path, sizes)
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
        if 2 * total <= entries:  # messages of both directions may be held
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


def _depth_first(n: int, path: SSAPath) -> list[int]:
    """Leaves in depth-first order: neighbours in the tree follow each other."""
    children = {n + step: pair for step, pair in enumerate(path)}
    stack, leaves = [n + len(path) - 1], []
    while stack:
        node = stack.pop()
        if node < n:
            leaves.append(node)
        else:
            stack += reversed(children[node])
    return leaves
