"""Environments of all gates of a circuit on few wires, layer by layer instead of gate by gate.

Where matrices are small, calls cost more than arithmetic; whatever does not depend on the layer
before is done for all layers of one pattern at once. With W = A G^H the form is Re Tr(W); the
trace of W over all wires but those of an outermost gate u is u E^H, and W -> U^H W U takes a layer
U from the front to the back. Row and column bits of a wire lie side by side in W, so that this is
one product for every gate, with a 16 x 16 matrix for one on two wires; each product leaves its
wires last, and with them the next ones first.

The right gates are the left ones of the adjoint network: W = G^H A, and layers are adjoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from itertools import pairwise

import numpy as np

from mpodis.ansatz import Placement

__all__ = ["WIDEST", "LayeredCircuit", "layered_entries"]

WIDEST = 3
"""Wires of the widest gate for which this pays."""
THIN, THICK = 2, 4
"""Wires that one product takes where both indices of W move, and where one index does."""


class LayeredCircuit:
    """One side's circuit as matrices of layers, the outermost (nearest to the target) first.

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
        self._kind = np.dtype(complex if is_complex else float)
        alike: dict[tuple, list] = {}  # layers by the spans of their gates
        order = []
        for layer in _layers(places, n, range(len(places))[:: 1 if self._left else -1]):
            numbers = alike.setdefault(tuple(span for span, _ in layer), [])
            order.append((tuple(span for span, _ in layer), len(numbers)))
            numbers.append([j for _, j in layer])
        patterns = {spans: _Pattern(places, spans, numbers) for spans, numbers in alike.items()}
        order = [(patterns[spans], k) for spans, k in order]
        self._patterns = list(patterns.values())
        for pattern in self._patterns:
            pattern.operators = np.empty((len(pattern.numbers), 4**n), self._kind)
        scratch = [np.empty(4**n, self._kind) for _ in range(2)]
        self._identity = np.eye(2**n, dtype=self._kind)
        self._product = _product_steps(order, self._identity.reshape(-1), scratch)
        self._walk = _walk_steps(order, scratch)
        self._first = order[0][0].operators[0] if order else None
        bits = [bit for k in range(n) for bit in (k, n + k)]
        self._interleaved = np.arange(4**n).reshape((2,) * (2 * n)).transpose(bits).reshape(-1)

    def load(self, gates: Sequence) -> None:
        """Take over the gates, in the order of the placements."""
        for pattern in self._patterns:
            pattern.load(gates, self._left, self._kind)

    def matrix(self) -> np.ndarray:
        """Q, (2^n, 2^n)."""
        out, turned = self._identity, True
        for pattern, steps in self._product:
            out, turned = _run(pattern.thick, steps), not turned
        out = out.reshape(self._identity.shape)
        product = out.T if turned else out
        return np.array(product if self._left else product.conj().T)

    def environments(self, w) -> list:
        """Of every gate, None for fixed ones; `w` (2^n, 2^n) is A G^H on the left, else G^H A."""
        found: list = [None] * self.count
        if self._first is not None:
            np.take(np.asarray(w, self._kind).reshape(-1), self._interleaved, out=self._first)
        for pattern, steps in self._walk:
            _run(pattern.thin, steps)
        for pattern in self._patterns:
            pattern.collect(found, self._left)
        return found


def layered_entries(places: Sequence[Placement], n: int) -> int:
    """Numbers that a `LayeredCircuit` holds, about."""
    return 4**n * (3 + len(_layers(places, n, range(len(places)))))


class _Pattern:
    """Layers whose gates stand on the same wires.

    Attributes
    ----------
    spans : tuple of (first wire, width)
        From left to right; idle wires have spans of their own.
    numbers : list of list of int
        Placements of every layer, -1 for idle wires.
    thick, thin : list of arrays (layers, rows, columns)
        Matrices of neighbouring spans, and what they do to both indices of W.
    operators : array (layers, 4^n)
        W in front of each layer.
    """

    def __init__(self, places, spans, numbers) -> None:
        self.spans, self.numbers = spans, numbers
        self.groups = {limit: _grouped(spans, limit) for limit in (THIN, THICK)}
        self.thick: list = []
        self.thin: list = []
        self._columns = [
            [layer[k] for layer in numbers]
            if any(j >= 0 and places[j].fixed is None for j in (layer[k] for layer in numbers))
            else None
            for k in range(len(spans))
        ]
        self._is_free = [place.fixed is None for place in places]

    def load(self, gates, left: bool, kind) -> None:
        self._gates = []
        for k, (_, width) in enumerate(self.spans):
            idle = np.eye(2**width)
            stack = np.array(
                [gates[layer[k]] if layer[k] >= 0 else idle for layer in self.numbers], kind
            )
            self._gates.append(stack if left else stack.conj().swapaxes(1, 2))
        self.thick = [reduce(_kron, self._gates[a:b]) for a, b in self.groups[THICK]]
        thin = [reduce(_kron, self._gates[a:b]) for a, b in self.groups[THIN]]
        self.thin = [_both(matrices) for matrices in thin]

    def collect(self, found: list, left: bool) -> None:
        """Environments of the free gates, by the traces of W over all other wires."""
        here, count = self.operators, len(self.numbers)
        for k in range(len(self.spans))[::-1]:
            first, width = self.spans[k]
            here = here.reshape(count, 4**first, 4**width)
            if self._columns[k] is not None:
                traced = (_trace(first) @ here).reshape(count, *(2,) * (2 * width))
                rows, columns = range(1, 2 * width, 2), range(2, 2 * width + 1, 2)
                traced = traced.transpose(0, *rows, *columns).reshape(count, 2**width, -1)
                pulled = traced.conj().swapaxes(1, 2)
                gates = self._gates[k]
                if left:
                    environments = pulled @ gates
                else:
                    environments = gates.conj().swapaxes(1, 2) @ pulled
                for j, environment in zip(self._columns[k], environments, strict=True):
                    if j >= 0 and self._is_free[j]:
                        found[j] = environment
            here = here @ _trace(width)


def _layers(places, n: int, order) -> list[list[tuple[tuple[int, int], int]]]:
    """Gates by their distance from the target: of every layer ((first wire, width), number)."""
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
    return [sorted(layer.items()) for layer in layers]


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


def _both(u):
    """S of a stack of u: (rows and columns of w) @ S are those of u^H w u, bits side by side."""
    wires = u.shape[1].bit_length() - 1
    row, column = (len(u), *(2, 1) * (2 * wires)), (len(u), *(1, 2) * (2 * wires))
    return (u.conj().reshape(row) * u.reshape(column)).reshape(len(u), 4**wires, -1)


@cache
def _trace(wires: int) -> np.ndarray:
    """Vector whose product with the bits of so many wires, side by side, is the trace."""
    return reduce(np.kron, [np.array([1.0, 0.0, 0.0, 1.0])] * wires, np.ones(1))


def _run(stacks, steps):
    """Products that move one group of wires after the other; returns where the last one went."""
    out = None
    for group, layer, forward, x, out in steps:
        matrix = stacks[group][layer]
        if forward:
            np.matmul(x, matrix, out=out)
        else:
            np.matmul(matrix.T, x, out=out)
    return out


def _product_steps(order, start, scratch) -> list:
    """Q^T layer by layer; after every second layer its columns come first."""
    found, here = [], start
    for k, (pattern, layer) in enumerate(order):
        groups, steps = pattern.groups[THICK], []
        forward = k % 2 == 0
        for g in range(len(groups))[:: 1 if forward else -1]:
            a, b = groups[g]
            m = 2 ** sum(width for _, width in pattern.spans[a:b])
            there = scratch[1] if here is scratch[0] else scratch[0]
            if forward:
                steps.append((g, layer, True, here.reshape(m, -1).T, there.reshape(-1, m)))
            else:
                steps.append((g, layer, False, here.reshape(-1, m).T, there.reshape(m, -1)))
            here = there
        found.append((pattern, steps))
    return found


def _walk_steps(order, scratch) -> list:
    """From the W of every layer to that of the next."""
    found = []
    for (pattern, layer), (coming, following) in pairwise(order):
        groups, steps = pattern.groups[THIN], []
        here = pattern.operators[layer]
        for g, (a, b) in enumerate(groups):
            m = 4 ** sum(width for _, width in pattern.spans[a:b])
            last = g == len(groups) - 1
            there = coming.operators[following] if last else scratch[g % 2]
            steps.append((g, layer, True, here.reshape(m, -1).T, there.reshape(-1, m)))
            here = there
        found.append((pattern, steps))
    return found
