"""Products of small matrices with large ones, laid out once and run many times.

A `PanelProduct` applies many small matrices to an operator, a `TileSweep` takes one tile after the
other out of it, a `GateSweep` one gate after the other out of the traced operator of a tile.
Everything that depends on shapes alone (views, stacks, pieces that fit in the cache) is laid out
at construction; to run one is a loop of products with `out=` into buffers that stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from autoray import do

from mpodis.circuit.ansatz import Placement
from mpodis.conventions import Array
from mpodis.environments.arrays import Backend
from mpodis.environments.dense.plan import (
    PANEL,
    SLAB,
    Factor,
    Group,
    Region,
    SidePlan,
    Tile,
    piece_rows,
    row_length,
    uses_kron,
)

__all__ = [
    "DenseBackend",
    "GateSweep",
    "PanelProduct",
    "TileSweep",
    "group_matrices",
    "view",
]

Renew: TypeAlias = Callable[[int, np.ndarray], np.ndarray]
"""(placement, operator whose trace with the gate is the form) -> new gate."""

STRIP = 8
"""Columns that are transposed at once: numbers in a line of the cache."""


class DenseBackend(Backend):
    """A backend whose arrays are all real or all complex, and how they are multiplied.

    Parameters
    ----------
    device, dtype
        As for `Backend`.
    is_complex : bool
    """

    def __init__(self, device: str | None, dtype: str, is_complex: bool) -> None:
        super().__init__(device, dtype)
        self.is_torch = device is not None
        self.kind = np.dtype(complex if is_complex else float)
        self.is_plain = not self.is_torch and dtype == "float64"  # arrays need no conversion
        self._zero = self.to_device(np.zeros(1, dtype=self.kind))
        self.matmul = _torch_matmul if self.is_torch else np.matmul
        # sum over the last two of four axes; numpy's own `sum` goes through Python
        self.sum_last = _torch_sum if self.is_torch else partial(np.add.reduce, axis=(2, 3))
        # pieces that fit in the cache are for processors only
        self.slab = 2**62 if self.is_torch else SLAB
        self.panel = PANEL if device in (None, "cpu") else 2**62

    def product(self, out: Array) -> Callable[[Array, Array, Array], object]:
        """(a, b, out): the product into an array like `out`."""
        plain = not self.is_torch and out.ndim == 2 and _is_contiguous(out)
        return np.dot if plain else self.matmul  # dot has less overhead

    def empty(self, size: int) -> Array:
        """A flat array on the device, not filled."""
        if self.is_torch:
            return self._zero.new_empty(size)
        return np.empty(size, dtype=self._zero.dtype)

    def to_device(self, array: np.ndarray) -> Array:
        """A numpy matrix on the device; a TypeError where a complex one would lose a part."""
        if array.dtype != self.kind:
            array = array.astype(self.kind, casting="same_kind")
        return array if self.is_plain else super().to_device(array)

    def to_numpy(self, array: Array) -> np.ndarray:
        return array if self.is_plain else super().to_numpy(array)


def _torch_sum(x: Array) -> Array:
    return x.sum((2, 3))


def _torch_matmul(a: Array, b: Array, out: Array) -> Array:
    if a.ndim == b.ndim == 2:
        return do("mm", a, b, out=out)
    # an expanded batch is read in place, where torch.matmul would copy
    if a.ndim == 2:
        a = a.expand(b.shape[0], -1, -1)
    if b.ndim == 2:
        b = b.expand(a.shape[0], -1, -1)
    return do("bmm", a, b, out=out)


class PanelProduct:
    """Factors that are applied to the columns of an operator one after the other.

    Columns do not mix, so a panel of them goes through all factors while it sits in the cache.

    Parameters
    ----------
    backend : DenseBackend
    factors : sequence of Factor
        One or more.
    width : int
        Columns of the operator, a power of two.
    scratch : pair of flat arrays
    """

    def __init__(
        self,
        backend: DenseBackend,
        factors: Sequence[Factor],
        width: int,
        scratch: Sequence[Array],
    ) -> None:
        self.backend, self.width = backend, width
        peak = max(f.before * max(f.rows, f.columns) * f.after for f in factors)
        self.panel = min(width, 2 ** ((len(scratch[0]) // peak).bit_length() - 1))
        if self.panel < width and peak * row_length(self.panel, width) > len(scratch[0]):
            self.panel //= 2
        length = row_length(self.panel, width)
        self._views = []
        for k, f in enumerate(factors):
            x = view(scratch[k % 2], (f.before, f.columns, f.after * length))
            y = view(scratch[1 - k % 2], (f.before, f.rows, f.after * length))
            self._views.append((x[0], y[0]) if f.before == 1 else (x, y))
        self._products = [backend.product(y) for _, y in self._views]
        self._rows = self._views[0][0].reshape(-1, length)
        self._start = self._rows[:, : self.panel]
        self._end = self._views[-1][1].reshape(-1, length)[:, : self.panel]

    def run(self, matrices: Sequence[Array], source: Array | None, out: Array) -> None:
        """out <- product @ source; both (rows, columns), `source` None for the identity.

        They may be one array.
        """
        if self.panel < self.width or len(self._views) == 1:
            for columns, panel in self.panels(matrices, source):
                _copy(out[:, columns], panel)
            return
        views = list(self._views)
        if source is not None and _is_contiguous(source):
            views[0] = (source.reshape(views[0][0].shape), views[0][1])
        else:
            self._fill(source, 0)
        if _is_contiguous(out):
            views[-1] = (views[-1][0], out.reshape(views[-1][1].shape))
        for product, matrix, (x, y) in zip(self._products, matrices, views, strict=True):
            product(matrix, x, y)
        if not _is_contiguous(out):
            _copy(out, self._end)

    def panels(
        self, matrices: Sequence[Array], source: Array | None
    ) -> Iterator[tuple[slice, Array]]:
        """(columns, their product) panel by panel; a panel is overwritten by the next."""
        for first in range(0, self.width, self.panel):
            self._fill(source, first)
            self._rows[:, self.panel :] = 0
            for product, matrix, (x, y) in zip(self._products, matrices, self._views, strict=True):
                product(matrix, x, y)
            yield slice(first, first + self.panel), self._end

    def _fill(self, source: Array | None, first: int) -> None:
        """Copy a panel of the source, or of the identity, into the buffer."""
        if source is None:
            self._start[...] = 0
            self._start[first : first + self.panel] = self.backend.to_device(np.eye(self.panel))
        else:
            _copy(self._start, source[:, first : first + self.panel])


def _copy(out: Array, x: Array) -> None:
    """out <- x; where one of them is transposed in strips, for the sake of the cache."""
    if isinstance(x, np.ndarray) and (
        x.strides[0] < x.strides[1] or out.strides[0] < out.strides[1]
    ):
        for first in range(0, x.shape[1], STRIP):
            out[:, first : first + STRIP] = x[:, first : first + STRIP]
    else:
        out[...] = x


class RightFactor:
    """How x @ (1 x u x 1_behind) is computed for small matrices u of one size.

    Either as one product with u x 1_behind, or as a stack of products u^T @ x.

    Attributes
    ----------
    unit : tuple of int
        Trailing shape of x.
    """

    def __init__(self, size: int, behind: int) -> None:
        self._size, self._behind, self._kron = size, behind, uses_kron(size, behind)
        self.unit = (size * behind,) if self._kron else (size, behind)
        self._known: dict[np.dtype, tuple[np.ndarray, np.ndarray]] = {}

    def matrix(self, u: np.ndarray) -> np.ndarray:
        """What x is multiplied with; the same array at every call."""
        if self._behind == 1:
            return u
        if not self._kron:
            return u.T
        if u.dtype not in self._known:
            size, behind = self._size, self._behind
            full = np.zeros((size, behind, size, behind), u.dtype)
            # only the diagonal blocks are ever written
            self._known[u.dtype] = full.reshape(size * behind, -1), np.einsum("aibi->abi", full)
        whole, blocks = self._known[u.dtype]
        blocks[...] = u[:, :, None]
        return whole

    def multiply(self, product: Callable, x: Array, matrix: Array, out: Array) -> None:
        """out <- x @ (1 x u x 1_behind), with the `matrix` of u; both (..., *unit)."""
        if self._kron:
            product(x, matrix, out)
        else:
            product(matrix, x, out)


class _Piece(NamedTuple):
    """Rows of z <- left @ tr(y @ right) that are computed while they sit in the cache.

    Attributes
    ----------
    inputs : list of (array, list of arrays)
        Parts of y, and the views of `passed` that add up to their trace; none without a trace.
    passed, summed, total, out : arrays
        y @ right, its trace in two shapes, and z.
    columns, rows : callable
        Products into `passed` and into `out`.
    """

    inputs: list[tuple[Array, list[Array]]]
    passed: Array
    summed: Array
    total: Array
    out: Array
    columns: Callable
    rows: Callable


class _TileStep(NamedTuple):
    """One tile of a sweep.

    Attributes
    ----------
    free : bool
        Whether the tile is to be renewed.
    traced : array (rows, columns, a, b)
        Its sum over the last two is the operator traced over all wires but the tile's.
    right : RightFactor or None
        None at the last tile, behind which nothing is passed on.
    pieces : list of _Piece
    """

    free: bool
    traced: Array
    right: RightFactor | None
    pieces: list[_Piece]


class TileSweep:
    """Tile after tile is taken out of an operator, renewed, and passed on to the other side.

    At tile k the matrix is Y_k = U_{k+1} ... U_K X U_1 ... U_{k-1}, the form Re Tr(U_k Y_k). The
    trace over all wires but the tile's is what an update needs, and U_{k+1}^H Y_k U_k comes next.
    Wires on which no later tile acts are traced out.

    Parameters
    ----------
    backend : DenseBackend
    side : SidePlan
    matrix, traced : flat arrays
        Where the operator comes in, and where its traces go.
    scratch : pair of flat arrays

    Attributes
    ----------
    tiles : sequence of Tile
    inside : list of GateSweep or None
        Sweeps over the gates of the tiles; None for a tile of one gate.
    """

    def __init__(
        self,
        backend: DenseBackend,
        side: SidePlan,
        matrix: Array,
        traced: Array,
        scratch: Sequence[Array],
    ) -> None:
        self._backend, self._scratch, self._steps = backend, scratch, []
        tiles, regions, places = side.tiles, side.regions, side.places
        is_complex = backend.kind.kind == "c"
        self.tiles, self.inside = (
            tiles,
            [
                GateSweep(tile, places, is_complex) if len(tile.gates) > 1 else None
                for tile in tiles
            ],
        )
        free = [any(places[j].fixed is None for j in tile.gates) for tile in tiles]
        here, there = matrix, traced
        for k, (first, n) in enumerate(regions):
            tile = tiles[k]
            y = view(here, (2**n, 2**n))
            trace = _trace_view(y, tile.first - first, tile.width, n)
            if k == len(regions) - 1:
                self._steps.append(_TileStep(free[k], trace, None, []))
                break
            right = RightFactor(2**tile.width, 2 ** (first + n - tile.first - tile.width))
            if regions[k + 1] == regions[k]:
                z = y
            else:
                z, here, there = view(there, (2 ** regions[k + 1][1],) * 2), there, here
            pieces = self._pieces(y, regions[k], z, regions[k + 1], tiles[k + 1], right)
            self._steps.append(_TileStep(free[k], trace, right, pieces))

    def _pieces(
        self, y: Array, now: Region, z: Array, later: Region, coming: Tile, right: RightFactor
    ) -> list[_Piece]:
        """z <- left @ tr(y @ right), in pieces of rows that the coming tile does not mix.

        The trace is over the wires of y that z does not have: `lead` values of those before,
        `trail` of those behind.
        """
        lead, trail = 2 ** (later[0] - now[0]), 2 ** (sum(now) - sum(later))
        total, n = y.shape[0], z.shape[0]
        before, m = 2 ** (coming.first - later[0]), 2**coming.width
        after = n // (before * m)
        source = y.reshape(lead, before, m, after * trail * total)
        target = z.reshape(before, m, after * n)
        _, some, few = piece_rows(now, later, coming, self._backend.slab)
        pieces = []
        for i in range(0, before, some):
            for a in range(0, after, few):
                columns = slice(a * trail * total, (a + few) * trail * total)
                blocks = [block[i : i + some, :, columns] for block in source]
                # rows as a stack of units, without a copy: one after the other, or strided
                inputs = [
                    block.reshape(-1, *right.unit)
                    if _is_contiguous(block)
                    else block.reshape(m, -1, *right.unit)
                    for block in blocks
                ]
                out = target[i : i + some, :, a * n : (a + few) * n]
                passed = view(self._scratch[0], inputs[0].shape)
                if lead == trail == 1:
                    summed = passed.reshape(out.shape)
                    parts = [[]]
                else:
                    summed = view(self._scratch[1], out.shape)
                    split = passed.reshape(-1, trail, lead, n, trail)
                    parts = [[split[:, e, d, :, e] for e in range(trail)] for d in range(lead)]
                total_view = summed.reshape(-1, n)
                if len(out) == 1:
                    summed, out = summed[0], out[0]
                products = self._backend.product(passed), self._backend.product(out)
                jobs = list(zip(inputs, parts, strict=True))
                pieces.append(_Piece(jobs, passed, summed, total_view, out, *products))
        return pieces

    def run(self, matrices: list, gates: list, renew: Renew) -> float:
        """Renew all free gates.

        Parameters
        ----------
        matrices : list of arrays
            The matrices of all tiles; those of free tiles are replaced.
        gates : list of arrays
            All gates; free ones are replaced.
        renew : callable
            (placement, operator whose trace with the gate is the form) -> new gate.

        Returns
        -------
        float
            The form after the last update.
        """
        to_device, to_numpy = self._backend.to_device, self._backend.to_numpy
        form = 0.0
        for k, (free, view, right, pieces) in enumerate(self._steps):
            if free:
                traced, inside = to_numpy(self._backend.sum_last(view)), self.inside[k]
                if inside is None:
                    matrices[k] = renew(self.tiles[k].gates[0], traced)
                else:
                    matrices[k] = inside.run(gates, matrices[k].dot(traced), renew)
                form = float((matrices[k].T * traced).sum().real)
            if right is None:
                break
            right_matrix = to_device(right.matrix(matrices[k]))
            left_matrix = to_device(matrices[k + 1].conj().T)
            for inputs, passed, summed, total, out, columns, rows in pieces:
                fresh = True
                for x, parts in inputs:
                    right.multiply(columns, x, right_matrix, passed)
                    for part in parts:
                        if fresh:
                            total[...] = part
                        else:
                            total += part
                        fresh = False
                rows(left_matrix, summed, out)
        return form


class _GateStep(NamedTuple):
    """One gate inside a tile.

    Attributes
    ----------
    take_out : (product, x, out) or None
        Multiplies rows by the adjoint of the present gate; None where no gate from here on is
        free.
    traced : array (rows, columns, a, b) or None
        Its sum over the last two is the operator whose trace with a free gate is the form.
    right : RightFactor
    pass_on : (product, x, out)
        Multiplies columns by the new gate.
    """

    take_out: tuple[Callable, np.ndarray, np.ndarray] | None
    traced: np.ndarray | None
    right: RightFactor
    pass_on: tuple[Callable, np.ndarray, np.ndarray]


class GateSweep:
    """Gate after gate is taken out of the traced operator of a tile, a small numpy matrix.

    The operator lies above the product of the gates that were passed on, which starts as the
    identity: what multiplies columns multiplies those of both.

    Parameters
    ----------
    tile : Tile
        Of two gates or more.
    places : sequence of Placement
    is_complex : bool
    """

    def __init__(self, tile: Tile, places: Sequence[Placement], is_complex: bool) -> None:
        backend, size = DenseBackend(None, "float64", is_complex), 2**tile.width
        self._one, self._size = np.eye(size, dtype=backend.kind), size
        self._both, self._passed = (backend.empty(2 * size**2).reshape(-1, size) for _ in range(2))
        free = [places[j].fixed is None for j in tile.gates]
        self._gates, self._steps = tile.gates, []
        for k, j in enumerate(tile.gates):
            first, width = places[j].wires[0] - tile.first, places[j].width
            take_out = traced = None
            if any(free[k:]):
                shape = (2**first, 2**width, -1) if first else (2**width, -1)
                x, out = (array[:size].reshape(shape) for array in (self._passed, self._both))
                take_out = (backend.product(out), x, out)
            if free[k]:
                traced = _trace_view(self._both[:size], first, width, tile.width)
            right = RightFactor(2**width, 2 ** (tile.width - first - width))
            x, out = (array.reshape(-1, *right.unit) for array in (self._both, self._passed))
            self._steps.append(_GateStep(take_out, traced, right, (backend.product(out), x, out)))

    def run(
        self,
        gates: list,
        traced: np.ndarray | None = None,
        renew: Renew | None = None,
    ) -> np.ndarray:
        """The product of the tile's gates, the first on the left; before, they may be renewed.

        Parameters
        ----------
        gates : list of arrays
            All gates of the circuit; those of the tile are renewed in place.
        traced : array, optional
            The tile's matrix times its traced operator.
        renew : callable, optional
            As for `TileSweep.run`.
        """
        both, passed, size = self._both, self._passed, self._size
        if traced is None:
            both[:size] = 0
        else:
            passed[:size] = traced
        passed[size:] = self._one
        for j, step in zip(self._gates, self._steps, strict=True):
            if renew is not None and step.take_out is not None:
                product, x, out = step.take_out
                product(gates[j].conj().T, x, out)
            both[size:] = passed[size:]
            if renew is not None and step.traced is not None:
                gates[j] = renew(j, np.add.reduce(step.traced, axis=(2, 3)))
            product, x, out = step.pass_on
            step.right.multiply(product, x, step.right.matrix(gates[j]), out)
        return passed[size:].copy()


def group_matrices(
    tensors: Sequence[np.ndarray],
    groups: Sequence[Group],
    side: str,
    backend: DenseBackend,
    tiles: Mapping[tuple[bool, int], np.ndarray],
) -> list[Array]:
    """Groups of core sites as matrices (out, right bond) x (left bond, in), see `core_factors`.

    `tiles` are the matrices of inner tiles by (own, number).
    """
    found = []
    for start, end, firsts, inner in groups:
        group = tensors[start]
        for tensor in tensors[start + 1 : end]:
            a, i, o, b = group.shape
            _, k, p, c = tensor.shape
            group = (group.reshape(-1, b) @ tensor.reshape(b, -1)).reshape(a, i, o, k, p, c)
            group = group.transpose(0, 1, 3, 2, 4, 5).reshape(a, i * k, o * p, c)
        group = group.transpose((1, 3, 0, 2) if side == "left" else (2, 3, 0, 1))
        out, b, a, into = group.shape
        for one in inner:
            matrix = tiles[one.own, one.number]
            before = 2 ** (one.tile.first - firsts[not one.own])
            if one.own:
                group = matrix @ group.reshape(before, len(matrix), -1)
            else:
                group = matrix.T @ group.reshape(out * b * a * before, len(matrix), -1)
        found.append(backend.to_device(group.reshape(out * b, a * into)))
    return found


def _trace_view(y: Array, before: int, width: int, n: int) -> Array:
    """View (m, m, a, b) of y whose sum over the last two is the trace over the other wires."""
    a, m, b = 2**before, 2**width, 2 ** (n - before - width)
    return y.reshape(a, m, b, a, m, b).diagonal(0, 0, 3).diagonal(0, 1, 3)


def view(flat: Array, shape: Sequence[int]) -> Array:
    """The beginning of a flat array in some shape."""
    return flat[: math.prod(shape)].reshape(shape)


def _is_contiguous(x: Array) -> bool:
    """Whether the entries lie one after the other."""
    return x.flags.c_contiguous if isinstance(x, np.ndarray) else x.is_contiguous()
