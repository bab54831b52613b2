"""Contraction of two tensors with the index orders planned beforehand.

Every index belongs to exactly two of the three tensors of a contraction: indices of both inputs
are summed over, the others are those of the output. A plan is a function of two arrays; it looks
nothing up and copies as little as the orders allow.

In a contraction from site to site the boundaries are large and the tensors that join them are
small (a gate, a site). Two patterns therefore have code of their own, for the large tensors X and
Y on both sides of a small Z:

    inside   X [pre, K, post]   Y [pre, N, post]   Z [K, N]: a gate acts in place
    ends     X [K1, mid, K2]    Y [N1, mid, N2]    Z [K1, K2, N1, N2]: a site of core or target
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

__all__ = ["plan_pair"]

Indices: TypeAlias = Sequence[str]
Plan: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
SMALL_BATCH = 8
"""Below this many columns a batch of matrix products is slower than one Kronecker product."""
KRON = 64
"""Largest dimension of such a Kronecker product with an identity."""


def plan_pair(a: Indices, b: Indices, out: Indices, sizes: Mapping[str, int]) -> Plan:
    """A function (array over a, array over b) -> C-contiguous array over `out`.

    Arrays are taken in any shape that holds their indices in the order given.
    """
    size_a, size_b, size_out = (_size(x, sizes) for x in (a, b, out))
    if size_out <= min(size_a, size_b):
        close = _plan_close(a, b, out, sizes)
        return close or _plan_general(a, b, out, sizes)
    if size_a >= size_b:
        return _plan_apply(a, b, out, sizes) or _plan_general(a, b, out, sizes)
    apply = _plan_apply(b, a, out, sizes)
    return (lambda x, y: apply(y, x)) if apply else _plan_general(a, b, out, sizes)


def _size(indices: Indices, sizes: Mapping[str, int]) -> int:
    """Entries of a tensor over these indices."""
    return math.prod(sizes[i] for i in indices)


def _inside(x: Indices, y: Indices) -> tuple[Indices, Indices, Indices, Indices] | None:
    """(pre, K, N, post) if x = pre K post and y = pre N post with nothing else in common."""
    common = set(x) & set(y)
    p = 0
    while p < min(len(x), len(y)) and x[p] == y[p]:
        p += 1
    q = 0
    while q < min(len(x), len(y)) - p and x[-1 - q] == y[-1 - q]:
        q += 1
    if p + q < len(common):
        return None
    return x[:p], x[p : len(x) - q], y[p : len(y) - q], x[len(x) - q :]


def _ends(x: Indices, y: Indices) -> tuple[Indices, Indices, Indices, Indices, Indices] | None:
    """(K1, K2, N1, N2, mid) if x = K1 mid K2 and y = N1 mid N2 with nothing else in common."""
    common = set(x) & set(y)
    if not common:
        return None
    at = [min(k for k, i in enumerate(z) if i in common) for z in (x, y)]
    mids = [z[k : k + len(common)] for z, k in zip((x, y), at, strict=True)]
    if set(mids[0]) != common or list(mids[0]) != list(mids[1]):
        return None
    stop = [k + len(common) for k in at]
    return x[: at[0]], x[stop[0] :], y[: at[1]], y[stop[1] :], mids[0]


def _plan_apply(
    big: Indices, small: Indices, out: Indices, sizes: Mapping[str, int]
) -> Plan | None:
    """Large times small: the small tensor replaces K by N in the order of the large one."""
    found = _inside(big, out)
    if found:
        pre, k, n, post = found
        turn = plan_transpose(small, [*n, *k], sizes)
        p, s, size_k, size_n = (_size(x, sizes) for x in (pre, post, k, n))
        shape = (size_n, size_k)
        if s == 1:
            return lambda x, z: x.reshape(p, size_k) @ turn(z).reshape(shape).T
        if s < SMALL_BATCH and size_k * s <= KRON:
            eye = np.eye(s)
            wide = size_k * s
            return lambda x, z: x.reshape(p, wide) @ np.kron(turn(z).reshape(shape), eye).T
        return lambda x, z: turn(z).reshape(shape) @ x.reshape(p, size_k, s)
    found = _ends(big, out)
    if found:
        k1, k2, n1, n2, mid = found
        turn = plan_transpose(small, [*n1, *k1, *k2, *n2], sizes)
        f, e, g, h, m = (_size(x, sizes) for x in (n1, k1, k2, n2, mid))
        if f * e > 16:  # many small products would take longer than a transposition
            return None
        if e == 1:
            return lambda x, z: x.reshape(m, g) @ turn(z).reshape(f, g, h)
        return lambda x, z: (x.reshape(e, m, g) @ turn(z).reshape(f, e, g, h)).sum(1)
    return None


def _plan_close(x: Indices, y: Indices, out: Indices, sizes: Mapping[str, int]) -> Plan | None:
    """Two large tensors with a small result."""
    found = _inside(x, y)
    if found:
        pre, k, n, post = found
        turn = plan_transpose([*k, *n], out, sizes)
        p, s, size_k, size_n = (_size(i, sizes) for i in (pre, post, k, n))
        if s == 1:
            return lambda a, b: turn(a.reshape(p, size_k).T @ b.reshape(p, size_n))
        if p == 1:
            return lambda a, b: turn(a.reshape(size_k, s) @ b.reshape(size_n, s).T)
        if s < SMALL_BATCH and max(size_k, size_n) * s <= KRON:
            # the diagonal blocks of one product
            def blocks(a: np.ndarray, b: np.ndarray) -> np.ndarray:
                full = a.reshape(p, size_k * s).T @ b.reshape(p, size_n * s)
                return turn(np.einsum("ksns->kn", full.reshape(size_k, s, size_n, s)))

            return blocks
        return lambda a, b: turn(
            (a.reshape(p, size_k, s) @ b.reshape(p, size_n, s).transpose(0, 2, 1)).sum(0)
        )
    found = _ends(x, y)
    if found:
        k1, k2, n1, n2, mid = found
        turn = plan_transpose([*n1, *k1, *k2, *n2], out, sizes)
        e, g, f, h, m = (_size(i, sizes) for i in (k1, k2, n1, n2, mid))
        if f * e > 16:
            return None
        return lambda a, b: turn(
            a.reshape(e, m, g).transpose(0, 2, 1) @ b.reshape(f, 1, m, h)  # (n1, k1, k2, n2)
        )
    return None


def _plan_general(a: Indices, b: Indices, out: Indices, sizes: Mapping[str, int]) -> Plan:
    """Transpose both to matrices, multiply, transpose back."""
    shared = [i for i in a if i in set(b)]
    free_a = [i for i in a if i not in set(shared)]
    free_b = [i for i in b if i not in set(shared)]
    turn_a = plan_transpose(a, free_a + shared, sizes)
    turn_b = plan_transpose(b, shared + free_b, sizes)
    turn_out = plan_transpose(free_a + free_b, out, sizes)
    k, m, n = (_size(i, sizes) for i in (shared, free_a, free_b))
    return lambda x, y: turn_out(turn_a(x).reshape(m, k) @ turn_b(y).reshape(k, n))


def plan_transpose(
    given: Indices, wanted: Indices, sizes: Mapping[str, int]
) -> Callable[[np.ndarray], np.ndarray]:
    """A function that brings an array from one index order into another.

    Neighbours that stay neighbours move as one axis, so that a tensor of twenty qubits is copied
    as a matrix or a stack of matrices.
    """
    given, wanted = list(given), list(wanted)
    if given == wanted:
        return lambda x: x
    runs: list[list[str]] = []
    for index in wanted:
        if runs and given.index(index) == given.index(runs[-1][-1]) + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    order = sorted(range(len(runs)), key=lambda r: given.index(runs[r][0]))
    shape = tuple(_size(runs[r], sizes) for r in order)
    axes = tuple(order.index(r) for r in range(len(runs)))
    return lambda x: np.ascontiguousarray(x.reshape(shape).transpose(axes))
