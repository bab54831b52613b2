"""Dense engine: gates are pulled through the 2^l x 2^l operator. Exact, any depth.

A gate is orthogonal (or unitary), so what was applied is un-applied instead of being cached. With
Y = A G^H the form is Re Tr(Y); going through the left gates in order, Y -> g^H Y takes a gate out,
a partial trace is its environment, and Y -> Y g passes it on to the other side. The right gates
are the left ones of the transposed network, A^T conj(G), whose gates are transposed ("turned").

Y is never made by a product of large matrices: the right circuit, the core and the left circuit
are applied to G^H by rows, a panel of columns at a time. Above 6 wires gates go in tiles, see
`tiles`; how the products are laid out is in `pulling`. Gradients of up to 6 wires go layer by
layer instead, see `layered`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import apply_rows
from mpodis.conventions import Legs, padded_shape
from mpodis.environments.arrays import Home
from mpodis.environments.dense.layered import layered_entries
from mpodis.environments.dense.layout import Layout
from mpodis.environments.dense.pulling import Place, adjoint, conjugate
from mpodis.environments.dense.tiles import OTHER, PANEL, SLAB, plan_sides, walk_seconds
from mpodis.environments.dense.work import SMALL, Work, group_matrices
from mpodis.environments.protocol import Gradient, Update, accept_core, check_sides
from mpodis.fit import als_sweep, core_gradient, full_bonds
from mpodis.sites import tensors_to_dense

__all__ = ["DenseEnvironments", "estimate"]

LIMIT = 2**13
"""Largest dimension of an operator that is held dense."""
FLOOR = 2**23
"""Bytes of everything that is small."""


class DenseEnvironments:
    """Environments through the dense operator, see `base.Environments`.

    Parameters
    ----------
    target : array (rows, columns) or list of site tensors
    legs, left, right
    tile : int or None
        Wires of a tile; 0 goes gate by gate (left gates in placement order, right ones in the
        reversed order), None does what is fastest: gradients of up to 6 wires layer by layer.
    device, dtype
        Where the large arrays live and in which precision, see `arrays.Home`.
    """

    exact = True

    def __init__(
        self,
        target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        *,
        tile: int | None = None,
        device: str | None = None,
        dtype: str = "float64",
    ) -> None:
        check_sides(legs, left, right)
        rows, columns = padded_shape(legs)
        if max(rows, columns) > LIMIT:
            raise ValueError(
                f"the dense engine would hold {rows} x {columns} matrices, beyond {LIMIT}; "
                "use engine='boundary', or 'transverse' for shallow circuits"
            )
        target = tensors_to_dense(target) if isinstance(target, list) else target
        if tuple(target.shape) != (rows, columns):
            raise ValueError(f"the target is {target.shape}, its legs span {(rows, columns)}")
        self._target, self._legs, self._home = target, legs, Home(device, dtype)
        self._sides, self._tile = plan_sides(left, right, tile), tile
        self.left, self.right, self.core = [], [], []
        self._fused: dict[str, list | None] = dict.fromkeys(OTHER)
        self._circuits: dict[str, np.ndarray | None] = dict.fromkeys(OTHER)
        self._groups: list | None = None
        self._work: Work | None = None
        self._form: float | None = None  # what `inner` gives, where a sweep has found it
        self._checked = False  # whether the work fits what was set
        self._is_pulled = False  # whether the work's matrix holds conj(Q_L^H G Q_R^H)

    def set(
        self,
        left: Sequence | None = None,
        core: Sequence | None = None,
        right: Sequence | None = None,
    ) -> None:
        for side, gates in (("left", left), ("right", right)):
            if gates is not None:
                setattr(self, side, list(gates))
                self._fused[side] = self._circuits[side] = None
                self._is_pulled = False
        if core is not None:
            self.core, self._groups = list(core), None
        self._form, self._checked = None, False

    def inner(self) -> float:
        if self._form is None:
            work = self._ready()
            if work.layered and not self._is_pulled:
                self._form = float(np.vdot(self._target, self.dense()).real)
                return self._form
            if self._is_pulled:
                matrix, chain = work.matrix(self._target.shape), work.chain("core")
                matrices = self._core_matrices()
            else:
                matrix, chain = work.target, work.chain("dense")
                matrices = self._whole_matrices()
            self._form = sum(
                float((matrix[:, columns] * panel).sum().real)
                for columns, panel in chain.panels(matrices, None)
            )
        return self._form

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        unknown = sorted(set(updates) - set(OTHER))
        if unknown:
            raise ValueError(f"there is no side {unknown[0]!r}; a sweep knows 'left' and 'right'")
        for side in OTHER:
            if side in updates:
                update = updates[side]
                self._walk(side, lambda j, environment, gate, u=update: u(environment, gate))
        if core:
            accept_core(self)

    def gradient(self, scale: float = 1.0) -> Gradient:
        if self._ready().layered:
            return self._layered_gradient(self._target, self.dense(), scale)
        return self._gradient(None, None).times(scale)

    def gradient_towards(self, dense, target) -> Gradient:
        """`gradient` for another target; `dense` is A, which the caller has at hand."""
        if self._ready().layered:
            return self._layered_gradient(target, dense)
        return self._gradient(target, dense)

    def _gradient(self, target, dense) -> Gradient:
        found = {side: [None] * len(getattr(self, side)) for side in OTHER}
        for side, environments in found.items():

            def keep(j, environment, gate, environments=environments):
                environments[j] = environment
                return gate

            self._walk(side, keep, target, dense)
        if target is None:
            inner = self.inner()
        else:
            inner = float(np.vdot(target, dense).real)
            self._form = None  # the walks have left that of the other target
        core = core_gradient(self.pulled(target), self.core)
        return Gradient(inner, found["left"], found["right"], core)

    def _layered_gradient(self, target, dense, scale: float = 1.0) -> Gradient:
        target = target if scale == 1.0 else target * scale
        bra, layered = adjoint(target), self._ready().layered
        left, right = (self._circuit(side) for side in OTHER)
        return Gradient(
            float(np.vdot(target, dense).real),
            layered["left"].environments(dense @ bra),
            layered["right"].environments(bra @ dense),
            core_gradient(adjoint(left) @ target @ adjoint(right), self.core),
        )

    def _circuit(self, side: str):
        """Q_L or Q_R."""
        if self._circuits[side] is None:
            layered = self._ready().layered[side]
            layered.load(getattr(self, side))
            self._circuits[side] = layered.to_dense()
        return self._circuits[side]

    def fitted_core(self) -> list:
        work = self._ready()
        matrix = work.matrix(self._target.shape)
        if not self._is_pulled:
            self._pull(work.target, np.transpose, matrix)
            self._is_pulled = True
        return als_sweep(conjugate(work.place.get(matrix)), self.core)

    def dense(self):
        """A = Q_L M' Q_R, (rows, columns)."""
        work = self._ready()
        if work.layered:
            return self._circuit("left") @ tensors_to_dense(self.core) @ self._circuit("right")
        out = work.place.empty(self._target.size).reshape(self._target.shape)
        work.chain("dense").run(self._whole_matrices(), None, out)
        return work.place.get(out)

    def pulled(self, matrix=None):
        """Q_L^H X Q_R^H of the target, or of another matrix."""
        work = self._ready()
        if work.layered:
            matrix = self._target if matrix is None else matrix
            return adjoint(self._circuit("left")) @ matrix @ adjoint(self._circuit("right"))
        out = work.place.empty(self._target.size).reshape(self._target.shape)
        if matrix is None:
            self._pull(work.target, np.transpose, out)
            return conjugate(work.place.get(out))
        self._pull(work.place.put(matrix), adjoint, out)
        return work.place.get(out)

    def pulled_metric(self, metric):
        """Q_L^H X Q_L of a (rows, rows) matrix."""
        work = self._ready()
        if work.layered:
            return adjoint(self._circuit("left")) @ metric @ self._circuit("left")
        out = work.place.empty(metric.size).reshape(metric.shape)
        work.pull("left", self._matrices("left", adjoint), work.place.put(metric), out)
        work.pull("left", self._matrices("left", np.transpose), out.T, out.T)
        return work.place.get(out)

    def _pull(self, source, form: Callable, out) -> None:
        """out <- the circuits taken off a (rows, columns) matrix, their tiles in some form."""
        work = self._ready()
        work.pull("left", self._matrices("left", form), source, out)
        work.pull("right", self._matrices("right", form), out.T, out.T)

    def _walk(self, side: str, offer: Callable, target=None, dense=None) -> None:
        """Take out, offer and pass on every gate of a side, the outermost first.

        `offer` is (placement, environment, gate) -> new gate.
        """
        part, work = self._sides[side], self._ready()
        if not part.hulls:
            return
        self._load(side, target, dense)
        gates, fused = getattr(self, side), self._fuse(side)
        self._fused[side] = self._circuits[side] = self._form = None  # should an update raise
        # Re Tr(g y) = Re Tr(E^H g); turned, it is the transposed gate that stands there
        turn = np.transpose if part.turned else np.asarray
        environment_of = conjugate if part.turned else adjoint
        form = 0.0

        def renew(k: int, traced):
            nonlocal form
            tile, nest = part.tiles[k], work.nests[side][k]

            def renew_gate(position: int, traced):
                j = tile.gates[position]
                gates[j] = offer(j, environment_of(traced), gates[j])
                return turn(gates[j])

            if nest is None:
                new = renew_gate(0, traced)
            else:
                new = nest.run([turn(gates[j]) for j in tile.gates], fused[k], traced, renew_gate)
            form = (new.T * traced).sum().real
            return new

        work.walks[side].run(fused, renew)
        self._fused[side], self._form = fused, float(form)

    def _load(self, side: str, target, dense) -> None:
        """Put Y_1, in which all tiles of a side stand but the first, into the work's matrix."""
        work, part = self._ready(), self._sides[side]
        y = work.matrix((part.size, part.size))
        self._is_pulled = False
        if dense is not None and max(self._target.shape) <= SMALL:
            product = conjugate(target).T @ dense if part.turned else dense @ adjoint(target)
            first, wires = self._fuse(side)[0], range(*part.tiles[0].span)
            product = apply_rows(adjoint(first), product.T if part.turned else product, wires)
            y[...] = work.place.put(product)
            return
        source = work.source(side) if target is None else work.place.put_conjugate(target)
        if target is not None and side == "left":
            source = source.T
        work.chain(side).run(self._chain_matrices(side), source, y)

    def _fuse(self, side: str) -> list:
        """The matrix of every tile of a side, turned on the right."""
        if self._fused[side] is None:
            part, nests = self._sides[side], self._ready().nests[side]
            gates = [gate.T if part.turned else gate for gate in getattr(self, side)]
            self._fused[side] = [
                gates[tile.gates[0]] if nest is None else nest.fuse([gates[j] for j in tile.gates])
                for tile, nest in zip(part.tiles, nests, strict=True)
            ]
        return self._fused[side]

    def _matrices(self, side: str, form: Callable) -> list:
        put = self._ready().place.put
        return [put(form(matrix)) for matrix in self._fuse(side)]

    def _chain_matrices(self, side: str) -> list:
        """Of the other side's tiles, the core and the own tiles, for the chain that loads a side.

        Inner tiles have gone into the core's.
        """
        work = self._ready()
        theirs, own = self._fuse(OTHER[side]), self._fuse(side)
        tiles = {(False, k): matrix.T for k, matrix in enumerate(theirs)}
        tiles |= {(True, k): matrix for k, matrix in enumerate(own)}
        groups, (before, after) = work.layout.groups[side], work.layout.tiles[side]
        return [
            *(work.place.put(tiles[False, k]) for k in before),
            *group_matrices(self.core, groups, side, work.place, tiles),
            *(work.place.put(tiles[True, k]) for k in after),
        ]

    def _core_matrices(self) -> list:
        if self._groups is None:
            work = self._ready()
            groups = work.layout.groups["core"]
            self._groups = group_matrices(self.core, groups, "left", work.place)
        return self._groups

    def _whole_matrices(self) -> list:
        return [
            *self._matrices("right", np.transpose),
            *self._core_matrices(),
            *self._matrices("left", np.asarray)[::-1],
        ]

    def _ready(self) -> Work:
        """The buffers and plans, made anew for a core of other bonds or complex numbers."""
        if self._checked:
            return self._work
        arrays = (self._target, *self.left, *self.core, *self.right)
        is_complex = any(array.dtype.kind == "c" for array in arrays)
        shapes = tuple(core.shape for core in self.core)
        if self._work is None or self._work.key != (is_complex, shapes):
            self._work, self._groups, self._is_pulled = None, None, False
            self._fused, self._circuits = dict.fromkeys(OTHER), dict.fromkeys(OTHER)
            place = Place(self._home, is_complex)
            slabs = (place.slab, place.panel)
            layout = Layout(self._sides, shapes, *slabs, together=self._tile != 0)
            self._work = Work(self._sides, layout, place, self._target, (is_complex, shapes))
            if self._tile is None:
                self._work.plan_layers()
        self._checked = True
        return self._work


def estimate(
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    core_bonds: int | Sequence[int],
    complex: bool = False,
    dtype: str = "float64",
    tile: int | None = None,
) -> tuple[float, int]:
    """Seconds of a sweep of both sides with numpy, and bytes that the engine holds for it.

    The target counts. `fitted_core`, `gradient`, `dense` and `pulled` take more while they run: up
    to five matrices of the target's size.

    Parameters
    ----------
    legs, left, right, dtype, tile
        As for `DenseEnvironments`.
    core_bonds : int or sequence of int
        Bond dimension of the core, or those between its sites.
    complex : bool
        Whether target, gates or core are.
    """
    check_sides(legs, left, right)
    bonds = full_bonds(legs, core_bonds) if isinstance(core_bonds, int) else core_bonds
    bonds = [1, *bonds, 1]
    shapes = [(bonds[k], i, o, bonds[k + 1]) for k, (i, o) in enumerate(legs)]
    sides = plan_sides(left, right, tile)
    layout = Layout(sides, shapes, SLAB, PANEL, together=tile != 0)
    scale = (4.0 if complex else 1.0) * (0.5 if dtype == "float32" else 1.0)
    seconds = 0.0
    for side, part in sides.items():
        panels = part.size // layout.panels[side]
        chain = (link.seconds(part.size, panels, scale) for link in layout.links[side])
        seconds += sum(chain) + walk_seconds(part.tiles, part.places, part.n, scale=scale)
    given = 16 if complex else 8
    size = given // (2 if dtype == "float32" else 1)
    largest = max(part.size for part in sides.values())
    target = math.prod(padded_shape(legs))
    copies = (complex or dtype == "float32") + (layout.scratch >= largest**2)
    entries = copies * target + largest**2 + 2 * layout.scratch + layout.traced + layout.entries
    if tile is None and largest <= SMALL:
        entries += sum(layered_entries(part.places, part.n) for part in sides.values())
    return seconds, given * target + size * entries + FLOOR
