"""Environments of all tensors of a closed network, by messages along one contraction tree.

A contraction tree without its root is a tree whose leaves are the tensors and whose inner nodes
have three neighbours. Every edge cuts the network in two; the message u -> v is the contraction
of the part on u's side, so that the message into a leaf is the environment of its tensor. A
message follows from the two others that arrive at its node and is kept until a tensor behind it
changes. Walking over the leaves in the order of the tree, each update redoes what lies between
one leaf and the next: a whole sweep, with the newest values everywhere, costs two or three
contractions of the network, whatever the number of tensors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mpodis.environments.network.pairwise import plan_pair

__all__ = ["MessagePassing", "Messages", "message_indices"]

SAFE = 1e100
"""Messages whose norm leaves [1/SAFE, SAFE] are rescaled."""


class Messages(Protocol):
    """Environments of the tensors ("leaves") of a closed network."""

    def set(self, leaf: int, array: np.ndarray) -> None:
        """Give a tensor its value."""
        ...

    def environment(self, leaf: int) -> tuple[np.ndarray, float]:
        """Contraction of all other tensors, over the tensor's indices: (array, log of a factor)."""
        ...

    def prepare(self, leaves: Sequence[int]) -> None:
        """Compute several environments together, where that saves time."""

    def value(self, leaf: int) -> complex:
        """The whole network, closed at a tensor."""
        ...


class MessagePassing(Messages):
    """Messages along a contraction tree of a closed network of at least three tensors.

    Parameters
    ----------
    indices : sequence of tuples of index names
        Of every tensor; each index is on exactly two.
    sizes : mapping
        Dimension of every index.
    ssa_path : sequence of pairs
        Contraction tree in static single assignment form: tensors are 0..n-1, step i makes n + i.
    order : function, optional
        (indices) -> sequence: the order of the indices on an inner edge; by default, the
        order in which the contraction makes them.
    """

    def __init__(
        self,
        indices: Sequence[Sequence[str]],
        sizes: Mapping[str, int],
        ssa_path: Sequence[tuple[int, int]],
        *,
        order: Callable[[list[str]], Sequence[str]] | None = None,
    ) -> None:
        n = len(indices)
        self._arrays: list[Any] = [None] * n
        self._cache: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
        self._around, legs = _unrooted(indices, ssa_path, order)
        self._plans = {}
        for u in range(n, n + len(ssa_path) - 1):
            around = self._around[u]
            for v in around:
                a, b = (w for w in around if w != v)
                contract = plan_pair(legs[u, a], legs[u, b], legs[u, v], sizes)
                self._plans[u, v] = (a, b, contract)

    def copy(self) -> MessagePassing:
        """The same plan without any values."""
        other = copy.copy(self)
        other._arrays, other._cache = [None] * len(self._arrays), {}
        return other

    def set(self, leaf: int, array: np.ndarray) -> None:
        """Give a tensor its value, and forget every message that depends on it."""
        self._arrays[leaf] = array
        stack = [(leaf, self._around[leaf][0])]
        while stack:
            u, v = stack.pop()
            self._cache.pop((u, v), None)
            if v >= len(self._arrays):  # messages that were made of this one
                stack += [(v, w) for w in self._around[v] if w != u and (v, w) in self._cache]

    def environment(self, leaf: int) -> tuple[np.ndarray, float]:
        return self._message(self._around[leaf][0], leaf)

    def value(self, leaf: int) -> complex:
        array, log_scale = self.environment(leaf)
        return np.dot(array.reshape(-1), self._arrays[leaf].reshape(-1)) * math.exp(log_scale)

    def _message(self, u: int, v: int) -> tuple[np.ndarray, float]:
        """The message u -> v, and the log of a factor."""
        n = len(self._arrays)
        stack = [(u, v)]
        while stack:  # no recursion: chains are longer than Python's stack
            edge = stack[-1]
            if edge in self._cache:
                stack.pop()
                continue
            if edge[0] < n:
                self._cache[edge] = (self._arrays[edge[0]], 0.0)
                continue
            a, b, contract = self._plans[edge]
            ready = True
            for w in (a, b):
                if (w, edge[0]) not in self._cache:
                    stack.append((w, edge[0]))
                    ready = False
            if ready:
                (x, log_x), (y, log_y) = self._cache[a, edge[0]], self._cache[b, edge[0]]
                self._cache[edge] = _safe(contract(x, y), log_x + log_y)
                stack.pop()
        return self._cache[u, v]


def message_indices(
    indices: Sequence[Sequence[str]],
    ssa_path: Sequence[tuple[int, int]],
    sizes: Mapping[str, int],
) -> tuple[list[tuple[str, ...]], int]:
    """Indices of the message on every edge of a tree, and flops of one message per inner node."""
    around, legs = _unrooted(indices, ssa_path, None)
    flops = sum(_flops([legs[u, w] for w in around[u]], sizes) for u in around if u >= len(indices))
    return [x for (u, v), x in legs.items() if u < v], flops


def _safe(array: np.ndarray, log_scale: float) -> tuple[np.ndarray, float]:
    """A message, rescaled where its norm is huge or tiny."""
    flat = array.reshape(-1)
    square = abs(np.vdot(flat, flat))
    if SAFE**-2 < square < SAFE**2 or square == 0.0:
        return array, log_scale
    largest = float(np.abs(flat).max())
    return (array / largest, log_scale + math.log(largest)) if largest > 0 else (array, log_scale)


def _unrooted(
    indices: Sequence[Sequence[str]],
    ssa_path: Sequence[tuple[int, int]],
    order: Callable[[list[str]], Sequence[str]] | None,
) -> tuple[dict[int, list[int]], dict[tuple[int, int], tuple[str, ...]]]:
    """Neighbours of every node, and the index order on every edge (both directions alike)."""
    n = len(indices)
    order_of: dict[int, tuple[str, ...]] = {u: tuple(x) for u, x in enumerate(indices)}
    around: dict[int, list[int]] = {u: [] for u in range(n + len(ssa_path) - 1)}
    legs = {}
    for step, (a, b) in enumerate(ssa_path[:-1]):
        u = n + step
        in_a, in_b = set(order_of[a]), set(order_of[b])
        free = [i for i in order_of[a] if i not in in_b] + [i for i in order_of[b] if i not in in_a]
        order_of[u] = tuple(order(free) if order else free)
        for w in (a, b):
            around[u].append(w)
            around[w].append(u)
            legs[u, w] = legs[w, u] = order_of[w]
    a, b = ssa_path[-1]  # the root is no node: its children are neighbours
    around[a].append(b)
    around[b].append(a)
    legs[a, b] = legs[b, a] = order_of[a] if a < n else order_of[b] if b < n else order_of[a]
    return around, legs


def _flops(legs: Sequence[Sequence[str]], sizes: Mapping[str, int]) -> int:
    """Of the contraction at a node whose edges have these indices."""
    return 2 * math.prod(sizes[i] for i in {i for x in legs for i in x})
