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
from dataclasses import dataclass
from functools import cache, reduce
from itertools import pairwise

import numpy as np

from mpodis.circuit.ansatz import Placement

__all__ = ["WIDEST", "LayeredCircuit", "layered_entries"]

WIDEST = 3
"""Wires of the widest gate for which this pays."""
GROUPED = 4
"""Wires whose gates are multiplied with a matrix as one Kronecker product: fewer calls."""

Products = list[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""(a, b, out) of products that are done one after the other."""


class LayeredCircuit:
    """One side's circuit as layers of gates, the outermost (nearest to the target) first.

    All arrays that a product reads or writes stay where they are, so that the products are listed
    only once.

    Parameters
    ----------
    places : sequence of Placement
    n : int
        Number of wires.
    side : {"left", "right"}
    is_complex : bool
    """

    def __init__(self, places: Sequence[Placement], n: int, side: str, *, is_complex: bool) -> None:
        self._count, self._left = len(places), side == "left"
        kind = np.dtype(complex if is_complex else float)
        layers = _layers(places, n, range(self._count)[:: 1 if self._left else -1])
        alike: dict[tuple, list] = {}  # layers by the spans of their gates
        for layer in layers:
            alike.setdefault(tuple(layer), []).append(list(layer.values()))
        patterns = {
            spans: _Pattern(spans, list(zip(*numbers, strict=True)), places, kind)
            for spans, numbers in alike.items()
        }
        self._patterns = list(patterns.values())
        seen = dict.fromkeys(alike, -1)
        order = []  # of every layer: its pattern, and its number among those of the pattern
        for layer in layers:
            seen[tuple(layer)] += 1
            order.append((patterns[tuple(layer)], seen[tuple(layer)]))
        scratch = [np.empty(4**n, kind) for _ in range(2)]
        self._product, last = _circuit_products(order, np.eye(2**n, dtype=kind), scratch)
        last = last.reshape(2**n, 2**n)
        self._circuit = last if len(order) % 2 else last.T
        self._sweep = _sweep_products(order, scratch)
        self._first = order[0][0].operators[0] if order else np.empty(4**n, kind)
        bits = [bit for k in range(n) for bit in (k, n + k)]
        self._interleaved = np.arange(4**n).reshape((2,) * (2 * n)).transpose(bits).reshape(-1)

    def to_dense(self, gates: Sequence[np.ndarray]) -> np.ndarray:
        """Q, (2^n, 2^n), of gates in the order of the placements; `environments` follows it."""
        for pattern in self._patterns:
            pattern.load(gates, self._left)
        for a, b, out in self._product:
            a.dot(b, out)  # less overhead than matmul
        product = self._circuit if self._left else self._circuit.conj().T
        return product.copy()

    def environments(self, w: np.ndarray) -> list[np.ndarray | None]:
        """Of every gate, None for fixed ones; `w` (2^n, 2^n) is A G^H on the left, else G^H A."""
        np.take(w.astype(self._first.dtype, copy=False), self._interleaved, out=self._first)
        for a, b, out in self._sweep:
            a.dot(b, out)
        found: list[np.ndarray | None] = [None] * self._count
        for pattern in self._patterns:
            pattern.collect(found, self._left)
        return found


@dataclass(eq=False)
class _Pattern:
    """Layers whose gates are on the same wires.

    Attributes
    ----------
    spans : tuple of (first wire, width)
        From left to right; idle wires have spans of their own.
    numbers : list of tuple of int
        Of every span: the placements of its gates, layer by layer; -1 where the wire is idle.
    gates : list of arrays (layers, rows, columns)
        Of every span.
    both : list of arrays (layers, rows x rows, columns x columns)
        S of gates u: (rows and columns of w) @ S are those of u^H w u, bits side by side.
    slices, groups : list of (first span, end), list of (wires, matrices (layers, rows, columns))
        Kronecker products of neighbouring gates.
    operators : array (layers, 4^n)
        W in front of each layer.
    """

    spans: tuple[tuple[int, int], ...]
    numbers: list[tuple[int, ...]]
    places: Sequence[Placement]
    kind: np.dtype

    def __post_init__(self) -> None:
        kind, count = self.kind, len(self.numbers[0])
        self._free = [
            [(k, j) for k, j in enumerate(numbers) if j >= 0 and self.places[j].fixed is None]
            for numbers in self.numbers
        ]
        widths = [width for _, width in self.spans]
        self.gates = [np.tile(np.eye(2**width, dtype=kind), (count, 1, 1)) for width in widths]
        self.both = [np.tile(np.eye(4**width, dtype=kind), (count, 1, 1)) for width in widths]
        self.slices, begin = [], 0
        for k in range(1, len(widths) + 1):
            if k == len(widths) or sum(widths[begin : k + 1]) > GROUPED:
                self.slices.append((begin, k))
                begin = k
        sizes = [sum(widths[a:b]) for a, b in self.slices]
        self.groups = [(wires, np.empty((count, 2**wires, 2**wires), kind)) for wires in sizes]
        self.operators = np.empty((count, 4 ** sum(widths)), kind)

    def load(self, gates: Sequence[np.ndarray], left: bool) -> None:
        """Take over the gates of these layers, adjoint ones for a right circuit."""
        for k, numbers in enumerate(self.numbers):
            if max(numbers) < 0:
                continue  # idle wires keep their identity
            stack = np.array([gates[j] if j >= 0 else np.eye(2) for j in numbers])
            self.gates[k] = stack = stack if left else stack.conj().swapaxes(1, 2).copy()
            w = 2 * self.spans[k][1]
            row, column = stack.reshape(-1, *(2, 1) * w), stack.reshape(-1, *(1, 2) * w)
            np.multiply(row.conj(), column, out=self.both[k].reshape(-1, *(2,) * (2 * w)))
        for (a, b), (_, matrices) in zip(self.slices, self.groups, strict=True):
            matrices[...] = reduce(_kron, self.gates[a:b])

    def collect(self, found: list[np.ndarray | None], left: bool) -> None:
        """Environments of the free gates, from the traces of W over all other wires."""
        here, count = self.operators, len(self.operators)
        for k in range(len(self.spans))[::-1]:
            first, width = self.spans[k]
            here = here.reshape(count, 4**first, 4**width)
            if self._free[k]:
                traced = (_trace(first) @ here).reshape(count, *(2,) * (2 * width))
                bits = (*range(1, 2 * width, 2), *range(2, 2 * width + 1, 2))
                # (u E^H)^H
                pulled = traced.transpose(0, *bits).reshape(count, 2**width, -1)
                pulled, gates = pulled.conj().swapaxes(1, 2), self.gates[k]
                every = pulled @ gates if left else gates.conj().swapaxes(1, 2) @ pulled
                for layer, j in self._free[k]:
                    found[j] = every[layer]
            here = here @ _trace(width)


def layered_entries(places: Sequence[Placement], n: int) -> int:
    """Numbers that a `LayeredCircuit` holds, about."""
    return 4**n * (3 + len(_layers(places, n, range(len(places)))))


def _layers(
    places: Sequence[Placement], n: int, order: Sequence[int]
) -> list[dict[tuple[int, int], int]]:
    """Gates by their distance from the target: of every layer {(first wire, width): number}."""
    reached: list[int] = [0] * n
    layers: list[dict[tuple[int, int], int]] = []
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


def _kron(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kronecker products of two stacks."""
    product = a[:, :, None, :, None] * b[:, None, :, None, :]
    return product.reshape(len(a), a.shape[1] * b.shape[1], -1)


@cache
def _trace(wires: int) -> np.ndarray:
    """Vector whose product with the bits of so many wires, side by side, is the trace."""
    return reduce(np.kron, [np.array([1.0, 0.0, 0.0, 1.0])] * wires, np.ones(1))


def _circuit_products(
    order: Sequence[tuple[_Pattern, int]], here: np.ndarray, scratch: list[np.ndarray]
) -> tuple[Products, np.ndarray]:
    """Products that make Q^T from the identity, and the array where it ends.

    After an odd number of layers the columns come first.
    """
    products: Products = []
    for k, (pattern, layer) in enumerate(order):
        forward = k % 2 == 0
        for wires, matrices in pattern.groups[:: 1 if forward else -1]:
            m, matrix = 2**wires, matrices[layer]
            there = scratch[1] if here is scratch[0] else scratch[0]
            if forward:
                products.append((here.reshape(m, -1).T, matrix, there.reshape(-1, m)))
            else:
                products.append((matrix.T, here.reshape(-1, m).T, there.reshape(m, -1)))
            here = there
    return products, here


def _sweep_products(order: Sequence[tuple[_Pattern, int]], scratch: list[np.ndarray]) -> Products:
    """Products that make the W in front of every layer from that of the layer before."""
    products: Products = []
    for (pattern, layer), (coming, following) in pairwise(order):
        here = pattern.operators[layer]
        matrices = [both[layer] for both in pattern.both]
        for k, matrix in enumerate(matrices):
            last = k == len(matrices) - 1
            there = coming.operators[following] if last else scratch[k % 2]
            m = math.isqrt(matrix.size)
            products.append((here.reshape(m, -1).T, matrix, there.reshape(-1, m)))
            here = there
    return products
