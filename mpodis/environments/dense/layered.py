"""Environments of all gates of a circuit on few wires, layer by layer instead of gate by gate.

Where matrices are small, calls cost more than arithmetic; whatever does not depend on the layer
before is done for all layers at once. With W = A G^H the form is Re Tr(W); the trace of W over all
wires but those of an outermost gate u is u E^H, and W -> U^H W U takes a layer U from the front to
the back. Row and column bits of a wire lie side by side in W, so that this is one product for
every gate, with a 16 x 16 matrix for one on two wires; each product leaves its wires last, and
with them the next ones first.

The right gates are the left ones of the adjoint network: W = G^H A, and gates are adjoint.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, reduce
from itertools import pairwise

import numpy as np

from mpodis.circuit.ansatz import Placement

__all__ = ["WIDEST", "LayeredCircuit", "layered_entries"]

WIDEST = 3
"""Wires of the widest gate for which this pays."""
THICK = 4
"""Wires that one product of a layer with a matrix takes; together they cost fewer calls."""


class LayeredCircuit:
    """One side's circuit as layers of gates, the outermost (nearest to the target) first.

    All arrays that a product reads or writes stay where they are, so that the products are listed
    once and for all.

    Parameters
    ----------
    places : sequence of Placement
    n : int
        Number of wires.
    side : {"left", "right"}
    is_complex : bool
    """

    def __init__(self, places: Sequence[Placement], n: int, side: str, *, is_complex: bool) -> None:
        self.n, self.count, self._left = n, len(places), side == "left"
        kind = np.dtype(complex if is_complex else float)
        self._stacks = _stacks(places, kind)
        layers = _layers(places, n, range(self.count)[:: 1 if self._left else -1])
        alike: dict[tuple, list] = {}  # layers by the spans of their gates
        for layer in layers:
            alike.setdefault(tuple(layer), []).append(list(layer.values()))
        patterns = {s: _Pattern(places, s, j, self._stacks) for s, j in alike.items()}
        self._patterns = list(patterns.values())
        seen = dict.fromkeys(alike, -1)
        order = []  # of every layer: its pattern, and where it stands among those of the pattern
        for layer in layers:
            seen[tuple(layer)] += 1
            order.append((patterns[tuple(layer)], seen[tuple(layer)]))
        scratch = [np.empty(4**n, kind) for _ in range(2)]
        self._product, last = _product_steps(order, np.eye(2**n, dtype=kind), scratch)
        last = last.reshape(2**n, 2**n)
        self._circuit = last if len(order) % 2 else last.T
        self._walk = _walk_steps(order, scratch)
        self._first = order[0][0].operators[0] if order else np.empty(4**n, kind)
        bits = [bit for k in range(n) for bit in (k, n + k)]
        self._interleaved = np.arange(4**n).reshape((2,) * (2 * n)).transpose(bits).reshape(-1)

    def load(self, gates: Sequence) -> None:
        """Take over the gates, in the order of the placements."""
        for stack in self._stacks.values():
            stack.load(gates, self._left)
        for pattern in self._patterns:
            pattern.load()

    def to_dense(self) -> np.ndarray:
        """Q, (2^n, 2^n)."""
        _run(self._product)
        product = self._circuit if self._left else self._circuit.conj().T
        return product.copy()

    def environments(self, w) -> list:
        """Of every gate, None for fixed ones; `w` (2^n, 2^n) is A G^H on the left, else G^H A."""
        np.take(w.astype(self._first.dtype, copy=False), self._interleaved, out=self._first)
        _run(self._walk)
        found: list = [None] * self.count
        for pattern in self._patterns:
            pattern.collect(found, self._left)
        return found


class _Stack:
    """All gates of one width.

    Attributes
    ----------
    row : dict of int
        Where a placement's gate stands; -1 is an idle wire.
    gates : array (gates, rows, columns)
    both : array (gates, rows x rows, columns x columns)
        S of gates u: (rows and columns of w) @ S are those of u^H w u, bits side by side.
    """

    def __init__(self, numbers: Sequence[int], width: int, kind) -> None:
        self.row = {j: k for k, j in enumerate([*numbers, -1])}
        self._numbers, count = list(numbers), len(self.row)
        self.gates = np.tile(np.eye(2**width, dtype=kind), (count, 1, 1))
        self.both = np.empty((count, 4**width, 4**width), kind)
        self._factors = [(count, *pair * (2 * width)) for pair in ((2, 1), (1, 2))]
        self._product = self.both.reshape((count, *(2,) * (4 * width)))

    def load(self, gates: Sequence, left: bool) -> None:
        if self._numbers:
            stack = np.array([gates[j] for j in self._numbers])
            self.gates[:-1] = stack if left else stack.conj().swapaxes(1, 2)
        row, column = (self.gates.reshape(shape) for shape in self._factors)
        np.multiply(row.conj(), column, out=self._product)


class _Pattern:
    """Layers whose gates stand on the same wires.

    Attributes
    ----------
    spans : tuple of (first wire, width)
        From left to right; idle wires have spans of their own.
    groups : list of (number of wires, matrices (layers, rows, columns))
        Kronecker products of neighbouring gates.
    operators : array (layers, 4^n)
        W in front of each layer.
    """

    def __init__(self, places, spans, numbers, stacks: dict[int, _Stack]) -> None:
        self.spans, self._numbers = spans, list(zip(*numbers, strict=True))
        self._stacks = [stacks[width] for _, width in spans]
        self._rows = [
            np.array([stack.row[j] for j in js])
            for stack, js in zip(self._stacks, self._numbers, strict=True)
        ]
        self._free = [
            [(k, j) for k, j in enumerate(js) if j >= 0 and places[j].fixed is None]
            for js in self._numbers
        ]
        kind, count = self._stacks[0].gates.dtype, len(numbers)
        self._slices = _grouped(spans, THICK)
        self.groups = []
        for a, b in self._slices:
            wires = sum(width for _, width in spans[a:b])
            self.groups.append((wires, np.empty((count, 2**wires, 2**wires), kind)))
        self.operators = np.empty((count, 4 ** sum(width for _, width in spans)), kind)

    def both(self, layer: int) -> list[np.ndarray]:
        """What the gates of a layer do to W, from left to right."""
        pairs = zip(self._stacks, self._rows, strict=True)
        return [stack.both[rows[layer]] for stack, rows in pairs]

    def load(self) -> None:
        self._gates = [
            stack.gates[rows] for stack, rows in zip(self._stacks, self._rows, strict=True)
        ]
        for (a, b), (_, matrices) in zip(self._slices, self.groups, strict=True):
            matrices[...] = reduce(_kron, self._gates[a:b])

    def collect(self, found: list, left: bool) -> None:
        """Environments of the free gates, by the traces of W over all other wires."""
        here, count = self.operators, len(self.operators)
        for k in range(len(self.spans))[::-1]:
            first, width = self.spans[k]
            here = here.reshape(count, 4**first, 4**width)
            if self._free[k]:
                traced = (_trace(first) @ here).reshape(count, *(2,) * (2 * width))
                bits = (*range(1, 2 * width, 2), *range(2, 2 * width + 1, 2))
                # (u E^H)^H
                pulled = traced.transpose(0, *bits).reshape(count, 2**width, -1)
                pulled, gates = pulled.conj().swapaxes(1, 2), self._gates[k]
                every = pulled @ gates if left else gates.conj().swapaxes(1, 2) @ pulled
                for layer, j in self._free[k]:
                    found[j] = every[layer]
            here = here @ _trace(width)


def layered_entries(places: Sequence[Placement], n: int) -> int:
    """Numbers that a `LayeredCircuit` holds, about."""
    return 4**n * (3 + len(_layers(places, n, range(len(places)))))


def _stacks(places, kind) -> dict[int, _Stack]:
    """By width; 1 is always there, for wires that are idle."""
    widths = sorted({1, *(place.width for place in places)})
    return {
        width: _Stack([j for j, place in enumerate(places) if place.width == width], width, kind)
        for width in widths
    }


def _layers(places, n: int, order) -> list[dict[tuple[int, int], int]]:
    """Gates by their distance from the target: of every layer {(first wire, width): number}."""
    reached, layers = [0] * n, []
    for j in order:
        wires = places[j].wires
        level = max(reached[w] for w in wires)
        for w in wires:
            reached[w] = level + 1
        if level == len(layers):
            layers.append({})
        layers[level][wires[0], len(wires)] = j
    for layer in layers:
        busy = {w for first, width in layer for w in range(first, first + width)}
        layer.update({(w, 1): -1 for w in range(n) if w not in busy})
    return [dict(sorted(layer.items())) for layer in layers]


def _grouped(spans, limit: int) -> list[tuple[int, int]]:
    """Slices of neighbouring spans of up to so many wires together."""
    found, begin = [], 0
    for k in range(1, len(spans) + 1):
        if k == len(spans) or sum(width for _, width in spans[begin : k + 1]) > limit:
            found.append((begin, k))
            begin = k
    return found


def _kron(a, b):
    """Kronecker products of two stacks."""
    product = a[:, :, None, :, None] * b[:, None, :, None, :]
    return product.reshape(len(a), a.shape[1] * b.shape[1], -1)


@cache
def _trace(wires: int) -> np.ndarray:
    """Vector whose product with the bits of so many wires, side by side, is the trace."""
    return reduce(np.kron, [np.array([1.0, 0.0, 0.0, 1.0])] * wires, np.ones(1))


def _run(steps) -> None:
    for a, b, out in steps:
        a.dot(b, out)  # less to do around it than matmul


def _product_steps(order, here, scratch) -> tuple[list, np.ndarray]:
    """Q^T layer by layer, after an odd number of layers its columns first; and where it ends."""
    steps = []
    for k, (pattern, layer) in enumerate(order):
        forward = k % 2 == 0
        for wires, matrices in pattern.groups[:: 1 if forward else -1]:
            m, matrix = 2**wires, matrices[layer]
            there = scratch[1] if here is scratch[0] else scratch[0]
            if forward:
                steps.append((here.reshape(m, -1).T, matrix, there.reshape(-1, m)))
            else:
                steps.append((matrix.T, here.reshape(-1, m).T, there.reshape(m, -1)))
            here = there
    return steps, here


def _walk_steps(order, scratch) -> list:
    """From the W of every layer to that of the next."""
    steps = []
    for (pattern, layer), (coming, following) in pairwise(order):
        here, matrices = pattern.operators[layer], pattern.both(layer)
        for k, matrix in enumerate(matrices):
            last = k == len(matrices) - 1
            there = coming.operators[following] if last else scratch[k % 2]
            m = math.isqrt(matrix.size)
            steps.append((here.reshape(m, -1).T, matrix, there.reshape(-1, m)))
            here = there
    return steps
