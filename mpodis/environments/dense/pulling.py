"""Moving small matrices through large ones: chains of products, and walks that take tiles out.

Everything that depends on shapes alone (views, stacks, pieces that fit in cache) is laid out when
a `Chain` or a `Walk` is made; running one is a loop of products with `out=` into buffers that stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from autoray import do

from mpodis.environments.arrays import Home
from mpodis.environments.dense.tiles import (
    PANEL,
    SLAB,
    Link,
    Tile,
    piece_rows,
    row_length,
    uses_kron,
)

__all__ = ["Chain", "Place", "Walk", "adjoint", "conjugate", "diagonal", "right_form"]

STRIP = 8
"""Columns that are transposed at once: numbers in a line of the cache."""


def conjugate(x):
    """conj(x), without a copy where x is real."""
    return x.conj() if x.dtype.kind == "c" else x


def adjoint(x):
    return conjugate(x).T


class Place:
    """Where large arrays live, and how they are multiplied there.

    Parameters
    ----------
    home : Home
    is_complex : bool
    """

    def __init__(self, home: Home, is_complex: bool) -> None:
        self.home, self.is_torch = home, home.device is not None
        self.kind = np.dtype(complex if is_complex else float)
        self._zero = home.put(np.zeros(1, dtype=self.kind))
        self.as_it_is = not self.is_torch and home.dtype == "float64"
        self.matmul = _torch_matmul if self.is_torch else np.matmul
        # numpy's own `sum` goes through Python
        self.sum_of = _torch_sum if self.is_torch else partial(np.add.reduce, axis=(2, 3))
        # pieces that fit in cache are for processors only
        self.slab = 2**62 if self.is_torch else SLAB
        self.panel = PANEL if home.device in (None, "cpu") else 2**62

    def product(self, out) -> Callable:
        """(a, b, out): the product into such an array."""
        plain = not self.is_torch and out.ndim == 2 and _runs(out)
        return np.dot if plain else self.matmul  # dot has less to do around it

    def empty(self, size: int):
        if self.is_torch:
            return self._zero.new_empty(size)
        return np.empty(size, dtype=self._zero.dtype)

    def put(self, matrix):
        """A numpy matrix in the kind of numbers that is used here."""
        if matrix.dtype != self.kind:  # of a complex one that would lose a part: TypeError
            matrix = matrix.astype(self.kind, casting="same_kind")
        return matrix if self.as_it_is else self.home.put(matrix)

    def put_conjugate(self, matrix):
        if self.kind.kind != "c":
            return self.put(matrix)
        if self.is_torch:
            return self.put(matrix).conj_physical()
        return np.conjugate(matrix, dtype=self._zero.dtype, casting="same_kind")

    def get(self, matrix) -> np.ndarray:
        return matrix if self.as_it_is else self.home.get(matrix)


def _torch_sum(x):
    return x.sum((2, 3))


def _torch_matmul(a, b, out):
    if a.ndim == b.ndim == 2:
        return do("mm", a, b, out=out)
    # an expanded batch is read in place, where torch.matmul would copy
    if a.ndim == 2:
        a = a.expand(b.shape[0], -1, -1)
    if b.ndim == 2:
        b = b.expand(a.shape[0], -1, -1)
    return do("bmm", a, b, out=out)


class Chain:
    """Matrices applied to the columns of an operator one after the other, panel by panel.

    Columns do not mix, so a panel of them goes through all products while it sits in cache.

    Parameters
    ----------
    links : sequence of Link
        One or more.
    width : int
        Columns of the operator, a power of two.
    scratch : pair of flat arrays
    """

    def __init__(self, place: Place, links: Sequence[Link], width: int, scratch) -> None:
        self.place, self.width = place, width
        self.inputs, self.outputs = links[0].inputs, links[-1].outputs
        peak = max(max(link.inputs, link.outputs) for link in links)
        self.panel = min(width, 2 ** ((len(scratch[0]) // peak).bit_length() - 1))
        if self.panel < width and peak * row_length(self.panel, width) > len(scratch[0]):
            self.panel //= 2
        length = row_length(self.panel, width)
        self._views = []
        for k, link in enumerate(links):
            x = _as(scratch[k % 2], (link.before, link.columns, link.after * length))
            y = _as(scratch[1 - k % 2], (link.before, link.rows, link.after * length))
            self._views.append((x[0], y[0]) if link.before == 1 else (x, y))
        self._products = [place.product(y) for _, y in self._views]
        self._whole_start = self._views[0][0].reshape(self.inputs, length)
        self._start = self._whole_start[:, : self.panel]
        self._end = self._views[-1][1].reshape(self.outputs, length)[:, : self.panel]

    def run(self, matrices: Sequence, source, out) -> None:
        """out <- product @ source; both (rows, columns), `source` None for the identity.

        They may be one array.
        """
        if self.panel < self.width or len(self._views) == 1:
            for columns, panel in self.panels(matrices, source):
                _copy(out[:, columns], panel)
            return
        views = list(self._views)
        if source is None:
            self._set_identity(0)
        elif _runs(source):
            views[0] = (source.reshape(views[0][0].shape), views[0][1])
        else:
            _copy(self._start, source)
        if _runs(out):
            views[-1] = (views[-1][0], out.reshape(views[-1][1].shape))
        self._multiply(matrices, views)
        if not _runs(out):
            _copy(out, self._end)

    def panels(self, matrices: Sequence, source) -> Iterator:
        """(slice of columns, their product) one after the other; a panel is good until the next."""
        for first in range(0, self.width, self.panel):
            columns = slice(first, first + self.panel)
            if source is None:
                self._set_identity(first)
            else:
                _copy(self._start, source[:, columns])
            self._whole_start[:, self.panel :] = 0
            self._multiply(matrices, self._views)
            yield columns, self._end

    def _set_identity(self, first: int) -> None:
        self._start[...] = 0
        self._start[first : first + self.panel] = self.place.put(np.eye(self.panel))

    def _multiply(self, matrices, views) -> None:
        for product, matrix, (x, y) in zip(self._products, matrices, views, strict=True):
            product(matrix, x, y)


def _copy(out, x) -> None:
    """out <- x, where one of them is transposed in strips, for the sake of the cache again."""
    if isinstance(x, np.ndarray) and (
        x.strides[0] < x.strides[1] or out.strides[0] < out.strides[1]
    ):
        for first in range(0, x.shape[1], STRIP):
            out[:, first : first + STRIP] = x[:, first : first + STRIP]
    else:
        out[...] = x


class Walk:
    """Tile after tile is taken out of an operator, renewed and passed on to the other side.

    At tile k the matrix is Y_k = U_{k+1} ... U_K X U_1 ... U_{k-1}, the form Re Tr(U_k Y_k): the
    trace over all wires but the tile's is what an update needs, and U_{k+1}^H Y_k U_k comes next.
    Wires that no later tile touches are traced out.

    Parameters
    ----------
    tiles : sequence of Tile
    wires : list of (first wire, number of wires)
        What is left at each step, see `tiles.hulls`; its length is the number of steps.
    free : sequence of bool
        Whether a tile is to be renewed.
    matrix, traced : flat arrays
        Where the operator comes in, and where what is left after tracing goes.
    scratch : pair of flat arrays
    """

    def __init__(self, place, tiles, wires, free, matrix, traced, scratch) -> None:
        self.place, self.steps = place, []
        here, there = matrix, traced
        for k, (first, n) in enumerate(wires):
            y = _as(here, (2**n, 2**n))
            trace = diagonal(y, tiles[k].first - first, tiles[k].width, n)
            if k == len(wires) - 1:
                self.steps.append((free[k], trace, None, None))
                break
            after = 2 ** (first + n - tiles[k].first - tiles[k].width)
            if wires[k + 1] == wires[k]:
                z = y
            else:
                z, here, there = _as(there, (2 ** wires[k + 1][1],) * 2), there, here
            pieces = _pieces(place, y, wires[k], z, wires[k + 1], tiles[k], tiles[k + 1], scratch)
            self.steps.append((free[k], trace, right_form(tiles[k].size, after), pieces))

    def run(self, fused: list, renew: Callable) -> None:
        """Go through the tiles.

        Parameters
        ----------
        fused : list of arrays
            The matrices of all tiles; those of free tiles are replaced.
        renew : callable
            (k, traced Y_k) -> new matrix of tile k.
        """
        put, get, sum_of = self.place.put, self.place.get, self.place.sum_of
        for k, (free, trace, right_form, pieces) in enumerate(self.steps):
            if free:
                fused[k] = renew(k, get(sum_of(trace)))
            if pieces is None:
                return
            right, left = put(right_form(fused[k])), put(adjoint(fused[k + 1]))
            for piece in pieces:
                piece(right, left)


def _pieces(place, y, wires, z, later, tile: Tile, coming: Tile, scratch) -> list[Callable]:
    """z <- left @ tr(y @ right), in pieces of rows that the coming tile does not mix.

    The trace is over the wires of y that z has no more: `lead` values of those before, `trail`
    of those behind. Pieces that are small enough go through all three while they sit in cache.
    """
    lead, trail = 2 ** (later[0] - wires[0]), 2 ** (sum(wires) - sum(later))
    total, n = y.shape[0], z.shape[0]
    before, m = 2 ** (coming.first - later[0]), coming.size
    after = n // (before * m)
    behind = 2 ** (sum(wires) - tile.first - tile.width)
    kron = uses_kron(tile.size, behind)
    unit = (tile.size * behind,) if kron else (tile.size, behind)
    source = y.reshape(lead, before, m, after * trail * total)
    target = z.reshape(before, m, after * n)
    _, some, few = piece_rows(wires, later, coming, place.slab)
    pieces = []
    for i in range(0, before, some):
        for a in range(0, after, few):
            inputs = [
                _stack(block[i : i + some, :, a * trail * total : (a + few) * trail * total], unit)
                for block in source
            ]
            out = target[i : i + some, :, a * n : (a + few) * n]
            pieces.append(_piece(place, inputs, out, (trail, lead, n), kron, scratch))
    return pieces


def _piece(place, inputs, out, shape, kron: bool, scratch) -> Callable:
    """One piece: columns, trace, rows; see `_pieces`."""
    trail, lead, n = shape
    passed = _as(scratch[0], inputs[0].shape)
    if lead == trail == 1:
        summed = passed.reshape(out.shape)
        jobs = [(inputs[0], None)]
    else:
        summed = _as(scratch[1], out.shape)
        blocks = passed.reshape(-1, trail, lead, n, trail)
        parts = ([blocks[:, e, d, :, e] for e in range(trail)] for d in range(lead))
        jobs = list(zip(inputs, parts, strict=True))
    total = summed.reshape(-1, n)
    if len(out) == 1:
        summed, out = summed[0], out[0]
    columns, rows = place.product(passed), place.product(out)

    def piece(right, left):
        for number, (x, parts) in enumerate(jobs):
            if kron:
                columns(x, right, passed)
            else:
                columns(right, x, passed)
            if parts is not None:
                _add(parts, total, fresh=number == 0)
        rows(left, summed, out)

    return piece


def _add(parts, total, *, fresh: bool) -> None:
    """total <- total + sum of parts, or the sum alone."""
    for number, part in enumerate(parts):
        if fresh and number == 0:
            total[...] = part
        else:
            total += part


def _stack(block, unit):
    """Rows of a matrix as a stack of units, without a copy: one before the other, or strided."""
    if _runs(block):
        return block.reshape(-1, *unit)
    return block.reshape(block.shape[1], -1, *unit)


def right_form(size: int, behind: int) -> Callable:
    """What `_piece` multiplies with in order to apply x @ (1 x u x 1)."""
    if behind == 1:
        return lambda u: u
    if not uses_kron(size, behind):
        return lambda u: u.T
    known: dict = {}

    def kron(u):
        if u.dtype not in known:
            full = np.zeros((size, behind, size, behind), u.dtype)
            # the same matrix each time; only its diagonal blocks are written
            known[u.dtype] = full.reshape(size * behind, -1), np.einsum("aibi->abi", full)
        whole, blocks = known[u.dtype]
        blocks[...] = u[:, :, None]
        return whole

    return kron


def diagonal(y, before: int, width: int, n: int):
    """View (m, m, a, b) of y whose sum over the last two is the trace over the other wires."""
    a, m, b = 2**before, 2**width, 2 ** (n - before - width)
    return y.reshape(a, m, b, a, m, b).diagonal(0, 0, 3).diagonal(0, 1, 3)


def _as(flat, shape):
    return flat[: int(np.prod(shape))].reshape(shape)


def _runs(x) -> bool:
    """Whether the entries lie one after the other."""
    return x.flags.c_contiguous if isinstance(x, np.ndarray) else x.is_contiguous()
