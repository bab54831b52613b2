"""Dense engine: gates are pulled through the 2^l x 2^l operator. Exact, any depth.

A gate is orthogonal (or unitary), so a gate that was applied is un-applied instead of being cached.
With Y = A G^H the form is Re Tr(Y); going through the left gates in order, Y -> g^H Y takes a gate
out, a partial trace is its environment, and Y -> Y g passes it on to the other side. The right
gates are the left ones of the transposed network, A^T conj(G), whose gates are transposed.

Y is never made by a product of large matrices: the right circuit, the core and the left circuit
are applied to G^H by rows, a panel of columns at a time. Above 5 wires gates go in tiles, see
`plan`; `products` says how the products are laid out. Up to 6 wires, gradients and the operators
themselves are computed layer by layer instead, see `layers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mpodis.arguments import check_count
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Array, Legs, padded_shape
from mpodis.environments.dense.layers import WIDEST, LayeredCircuit, layered_entries
from mpodis.environments.dense.plan import (
    PANEL,
    SLAB,
    ProductPlan,
    plan_sides,
    tile_sweep_seconds,
)
from mpodis.environments.dense.products import (
    DenseBackend,
    PanelProduct,
    TileSweep,
    group_matrices,
    view,
)
from mpodis.environments.protocol import (
    OTHER_SIDE,
    SMALL_ARRAYS,
    DenseOperatorEnvironments,
    Engine,
    EngineOptions,
    Estimate,
    Gradient,
    ProblemSize,
    Target,
    Update,
    accept_core,
    check_sides,
)
from mpodis.fit import als_sweep, core_gradient, full_bonds
from mpodis.mpo import compress
from mpodis.sites import site_tensors, tensors_to_dense

__all__ = ["DenseEnvironments", "sweep_cost"]

SMALL = 2**6
"""Largest dimension for which a product of dense matrices beats applying the circuits."""
ALS_MATRICES = 4.5
"""Matrices of the operator's size that the dense ALS of the core holds, measured."""


class DenseEnvironments(DenseOperatorEnvironments, Engine):
    """Environments through the dense operator, see `DenseOperatorEnvironments`.

    Parameters
    ----------
    target : array (rows, columns) or list of site tensors
    legs, left, right
    tile : int or None
        Wires of a tile; 0 goes gate by gate (left gates in placement order, right ones in the
        reversed order), None does what is fastest.
    device : str or None
        Torch device of the large arrays; None computes with numpy.
    dtype : {"float64", "float32"}
        Precision of the large arrays. Environments are given in double precision.

    Raises
    ------
    ValueError
        An ansatz or a target that does not fit the legs, or an operator that is too large.
    """

    name = "dense"
    exact = True
    holds_dense = True
    parallel = True
    limit = 2**13

    def __init__(
        self,
        target: Target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        *,
        tile: int | None = None,
        device: str | None = None,
        dtype: str = "float64",
    ) -> None:
        check_sides(legs, left, right, local=True)
        if max(padded_shape(legs)) > self.limit:
            remedy = "use engine='boundary', or 'transverse' for shallow circuits"
            raise ValueError(f"{self._refusal(legs)}; {remedy}")
        matrix = target if isinstance(target, np.ndarray) else tensors_to_dense(target)
        if tuple(matrix.shape) != padded_shape(legs):
            raise ValueError(f"the target is {matrix.shape}, its legs span {padded_shape(legs)}")
        if tile is not None:
            check_count("tile", tile, 0)
        self._target, self._legs, self._tile = matrix, legs, tile
        self._ansatz = {"left": left, "right": right}
        self._device, self._dtype = device, dtype
        widest = max((p.width for a in (left, right) for p in a.placements), default=0)
        self._in_layers = (
            tile is None
            and device is None
            and dtype == "float64"
            and max(matrix.shape) <= SMALL
            and widest <= WIDEST
        )
        self.left, self.right, self.core = [], [], []
        self._key: tuple | None = None  # what backend and workspace were made for
        self._backend = DenseBackend(device, dtype, is_complex=False)
        self._layers: dict[str, LayeredCircuit] = {}
        self._work: _Workspace | None = None
        self._tile_matrices: dict[str, list | None] = dict.fromkeys(OTHER_SIDE)
        self._circuits: dict[str, np.ndarray | None] = dict.fromkeys(OTHER_SIDE)
        self._core_matrices: list | None = None
        self._form: float | None = None  # h, where it is known
        self._is_pulled = False  # whether the workspace's matrix holds conj(Q_L^H G Q_R^H)

    @classmethod
    def estimate(cls, problem: ProblemSize, options: EngineOptions) -> Estimate:
        """A sweep, and the dense ALS of the core, whose temporaries are in double precision."""
        legs, entries = problem.legs, math.prod(padded_shape(problem.legs))
        if max(padded_shape(legs)) > cls.limit:  # entries may be more than a float can count
            size = 2.0 ** min(math.log2(problem.itemsize) + math.log2(entries), 1000.0)
            return Estimate(cls.name, True, math.inf, size, cls._refusal(legs))
        seconds, size = sweep_cost(
            legs,
            problem.left,
            problem.right,
            core_bonds=problem.core_bonds,
            complex=problem.is_complex,
            dtype=options.dtype,
        )
        return Estimate(cls.name, True, seconds, size + ALS_MATRICES * problem.itemsize * entries)

    @classmethod
    def build(
        cls, target: Target, legs: Legs, left: Ansatz, right: Ansatz, options: EngineOptions
    ) -> DenseEnvironments:
        return cls(target, legs, left, right, device=options.device, dtype=options.dtype)

    @classmethod
    def _refusal(cls, legs: Legs) -> str:
        """Why an operator beyond the limit cannot be held dense."""
        dimensions = padded_shape(legs)
        shown = " x ".join(str(d) if d < 2**20 else f"2^{d.bit_length() - 1}" for d in dimensions)
        return f"the dense engine would hold {shown} matrices, beyond {cls.limit}"

    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        for side, gates in (("left", left), ("right", right)):
            if gates is not None:
                setattr(self, side, list(gates))
                self._tile_matrices[side] = self._circuits[side] = None
                self._is_pulled = False
        if core is not None:
            self.core, self._core_matrices = list(core), None
        self._form = None
        arrays = (self._target, *self.left, *self.core, *self.right)
        is_complex = any(array.dtype.kind == "c" for array in arrays)
        key = (is_complex, tuple(tensor.shape for tensor in self.core))
        if key != self._key:  # all plans depend on these
            self._key, self._work, self._layers = key, None, {}
            self._backend = DenseBackend(self._device, self._dtype, is_complex)
            self._core_matrices, self._is_pulled = None, False
            self._tile_matrices, self._circuits = (
                dict.fromkeys(OTHER_SIDE),
                dict.fromkeys(OTHER_SIDE),
            )

    def inner(self) -> float:
        if self._form is None:
            if self._in_layers and not self._is_pulled:
                self._form = float(np.vdot(self._target, self.dense()).real)
                return self._form
            work = self._workspace()
            if self._is_pulled:
                matrix, name = view(work.matrix, self._target.shape), "core"
                matrices = self._matrices_of_core()
            else:
                matrix, name = work.target, "dense"
                matrices = self._matrices_of_all()
            self._form = sum(
                float((matrix[:, columns] * panel).sum().real)
                for columns, panel in work.product(name).panels(matrices, None)
            )
        return self._form

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """The left side first; every free gate is updated once."""
        unknown = sorted(set(updates) - set(OTHER_SIDE))
        if unknown:
            raise ValueError(f"there is no side {unknown[0]!r}; a sweep knows 'left' and 'right'")
        for side in OTHER_SIDE:
            if side in updates:
                update = updates[side]
                self._sweep_side(side, lambda j, environment, gate, u=update: u(environment, gate))
        if core:
            accept_core(self)

    def gradient(self, scale: float = 1.0) -> Gradient:
        if self._in_layers:
            return self.gradient_towards(self.dense(), self._target * scale)
        return self._tiled_gradient(None, None).times(scale)

    def gradient_towards(self, dense: np.ndarray, target: np.ndarray) -> Gradient:
        if not self._in_layers:
            return self._tiled_gradient(target, dense)
        left, right, bra = self._circuit("left"), self._circuit("right"), target.conj().T
        return Gradient(
            float(np.vdot(target, dense).real),
            self._layers["left"].environments(dense @ bra),
            self._layers["right"].environments(bra @ dense),
            core_gradient(left.conj().T @ target @ right.conj().T, self.core),
        )

    def _tiled_gradient(self, target: np.ndarray | None, dense: np.ndarray | None) -> Gradient:
        """Sweeps that keep every gate; `target` None is that of the engine."""
        found = {side: [None] * len(getattr(self, side)) for side in OTHER_SIDE}
        for side, environments in found.items():

            def keep(
                j: int, environment: np.ndarray, gate: np.ndarray, environments: list = environments
            ) -> np.ndarray:
                environments[j] = environment
                return gate

            self._sweep_side(side, keep, target)
        if target is None or dense is None:
            inner = self.inner()
        else:
            inner = float(np.vdot(target, dense).real)
            self._form = None  # the sweeps have left that of the other target
        core = core_gradient(self.pulled(target), self.core)
        return Gradient(inner, found["left"], found["right"], core)

    def _circuit(self, side: str) -> np.ndarray:
        """Q_L or Q_R, made layer by layer."""
        found = self._circuits[side]
        if found is None:
            if side not in self._layers:
                ansatz, is_complex = self._ansatz[side], self._backend.kind.kind == "c"
                self._layers[side] = LayeredCircuit(
                    ansatz.placements, ansatz.n, side, is_complex=is_complex
                )
            found = self._circuits[side] = self._layers[side].to_dense(getattr(self, side))
        return found

    def fitted_core(self) -> list[np.ndarray]:
        work = self._workspace()
        matrix = view(work.matrix, self._target.shape)
        if not self._is_pulled:
            self._pull(work.target, matrix)
            self._is_pulled = True
        return als_sweep(self._backend.to_numpy(matrix).conj(), self.core)

    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        return site_tensors(compress(self.pulled(), legs=self._legs, max_bond=max_bond).mpo)

    def dense(self) -> np.ndarray:
        if self._in_layers:
            return self._circuit("left") @ tensors_to_dense(self.core) @ self._circuit("right")
        out = self._backend.empty(self._target.size).reshape(self._target.shape)
        self._workspace().product("dense").run(self._matrices_of_all(), None, out)
        return self._backend.to_numpy(out)

    def pulled(self, matrix: np.ndarray | None = None) -> np.ndarray:
        if self._in_layers:
            matrix = self._target if matrix is None else matrix
            left, right = self._circuit("left"), self._circuit("right")
            return left.conj().T @ matrix @ right.conj().T
        work, out = self._workspace(), self._backend.empty(self._target.size)
        out = out.reshape(self._target.shape)
        self._pull(work.target if matrix is None else self._backend.to_device(matrix.conj()), out)
        return self._backend.to_numpy(out).conj()

    def pulled_metric(self, metric: np.ndarray) -> np.ndarray:
        if self._in_layers:
            return self._circuit("left").conj().T @ metric @ self._circuit("left")
        out = self._backend.empty(metric.size).reshape(metric.shape)
        pull, source = self._workspace().pull, self._backend.to_device(metric)
        pull("left", self._matrices_of("left", lambda tile: tile.conj().T), source, out)
        pull("left", self._matrices_of("left", np.transpose), out.T, out.T)
        return self._backend.to_numpy(out)

    def _pull(self, source: Array, out: Array) -> None:
        """out <- conj(Q_L^H X Q_R^H), where the source is conj(X), (rows, columns)."""
        pull = self._workspace().pull
        pull("left", self._matrices_of("left", np.transpose), source, out)
        pull("right", self._matrices_of("right", np.transpose), out.T, out.T)

    def _sweep_side(
        self,
        side: str,
        renew: Callable[[int, np.ndarray, np.ndarray], np.ndarray],
        target: np.ndarray | None = None,
    ) -> None:
        """Take out, renew and pass on every free gate of a side, the outermost tile first.

        Parameters
        ----------
        side : {"left", "right"}
        renew : callable
            (placement, environment, gate) -> new gate.
        target : array (rows, columns), optional
            Another target.
        """
        work = self._workspace()
        if not work.sides[side].regions:
            return
        self._prepare(side, target)
        gates, matrices = getattr(self, side), self._matrices_of_tiles(side)
        # these depend on the gates; an update may raise
        self._tile_matrices[side] = self._circuits[side] = self._form = None
        # Re Tr(g y) = Re Tr(E^H g); in the transposed network the gates are transposed
        turn = np.transpose if side == "right" else np.asarray

        def renew_turned(j: int, traced: np.ndarray) -> np.ndarray:
            gates[j] = renew(j, turn(traced.conj().T), gates[j])
            return turn(gates[j])

        form = work.sweeps[side].run(matrices, [turn(gate) for gate in gates], renew_turned)
        self._tile_matrices[side], self._form = matrices, form

    def _prepare(self, side: str, target: np.ndarray | None) -> None:
        """Put Y_1, in which all tiles of a side stand but the first, into the work's matrix."""
        work, to_device, turned = self._workspace(), self._backend.to_device, side == "right"
        part, own = work.sides[side], self._matrices_of_tiles(side)
        y = view(work.matrix, (2**part.n, 2**part.n))
        self._is_pulled = False
        if target is None:
            source = work.target if turned else work.transposed
        else:
            source = to_device(target.conj())
            source = source if turned else source.T
        theirs = self._matrices_of_tiles(OTHER_SIDE[side])
        tiles = {(False, k): matrix.T for k, matrix in enumerate(theirs)}
        tiles |= {(True, k): matrix for k, matrix in enumerate(own)}
        before, after = work.plan.tiles[side]  # the others have gone into the core's matrices
        groups = work.plan.groups[side]
        matrices = [
            *(to_device(tiles[False, k]) for k in before),
            *group_matrices(self.core, groups, side, self._backend, tiles),
            *(to_device(tiles[True, k]) for k in after),
        ]
        work.product(side).run(matrices, source, y)

    def _matrices_of_tiles(self, side: str) -> list[np.ndarray]:
        """The matrix of every tile of a side, transposed on the right."""
        found = self._tile_matrices[side]
        if found is None:
            gates = [gate.T if side == "right" else gate for gate in getattr(self, side)]
            sweep = self._workspace().sweeps[side]
            found = self._tile_matrices[side] = [
                gates[tile.gates[0]] if inside is None else inside.run(gates)
                for tile, inside in zip(sweep.tiles, sweep.inside, strict=True)
            ]
        return found

    def _matrices_of(self, side: str, form: Callable) -> list[Array]:
        """The matrices of a side's tiles on the device, in some form."""
        return [self._backend.to_device(form(m)) for m in self._matrices_of_tiles(side)]

    def _matrices_of_core(self) -> list[Array]:
        if self._core_matrices is None:
            groups = self._workspace().plan.groups["core"]
            self._core_matrices = group_matrices(self.core, groups, "left", self._backend, {})
        return self._core_matrices

    def _matrices_of_all(self) -> list[Array]:
        """Of all factors of A, the last first."""
        return [
            *self._matrices_of("right", np.transpose),
            *self._matrices_of_core(),
            *self._matrices_of("left", np.asarray)[::-1],
        ]

    def _workspace(self) -> _Workspace:
        """Plans and buffers for the present bonds, made when they are first needed."""
        if self._work is None:
            ansatze = (self._ansatz["left"], self._ansatz["right"])
            shapes = [tensor.shape for tensor in self.core]
            self._work = _Workspace(self._target, ansatze, shapes, self._tile, self._backend)
        return self._work


class _Workspace:
    """Plans and buffers for a core of given shapes and numbers that are real or complex.

    Attributes
    ----------
    sides : dict of SidePlan
    plan : ProductPlan
    target, transposed : arrays
        conj(G), and its transpose, from which the products of the two sides start.
    matrix : flat array
        Every sweep works in it.
    sweeps : dict of TileSweep
    """

    def __init__(
        self,
        target: np.ndarray,
        ansatze: tuple[Ansatz, Ansatz],
        shapes: Sequence[tuple[int, int, int, int]],
        tile: int | None,
        backend: DenseBackend,
    ) -> None:
        self.backend, self.sides = backend, plan_sides(*ansatze, tile)
        self.plan = ProductPlan(self.sides, shapes, backend.slab, backend.panel, absorb=tile != 0)
        self.target = backend.to_device(target.conj())
        self.transposed = self.target.T
        self.matrix = backend.empty(max(target.shape) ** 2)
        self._scratch = [backend.empty(self.plan.scratch) for _ in range(2)]
        buffers = (self.matrix, backend.empty(self.plan.traced), self._scratch)
        if self.plan.scratch >= len(self.matrix):  # one panel is all, and is read where it lies
            self.transposed = backend.to_device(np.ascontiguousarray(target.T).conj())
        self.sweeps = {
            name: TileSweep(backend, side, *buffers) for name, side in self.sides.items()
        }
        self._products: dict[str | tuple[str, int], PanelProduct] = {}

    def product(self, name: str) -> PanelProduct:
        """The product that makes Y_1 of a side ("left", "right"), A ("dense") or M' ("core")."""
        if name not in self._products:
            width = 2 ** self.sides["left" if name == "left" else "right"].n
            factors = self.plan.factors[name]
            self._products[name] = PanelProduct(self.backend, factors, width, self._scratch)
        return self._products[name]

    def pull(self, side: str, matrices: Sequence[Array], source: Array, out: Array) -> None:
        """out <- the tiles of a side, one after the other, @ source."""
        factors, width = self.plan.tile_factors[side], source.shape[1]
        if not factors:
            if source is not out:
                out[...] = source
            return
        if (side, width) not in self._products:
            product = PanelProduct(self.backend, factors, width, self._scratch)
            self._products[side, width] = product
        self._products[side, width].run(matrices, source, out)


def sweep_cost(
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    core_bonds: int | Sequence[int],
    complex: bool = False,
    dtype: str = "float64",
    tile: int | None = None,
) -> tuple[float, float]:
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
    plan = ProductPlan(sides, shapes, SLAB, PANEL, absorb=tile != 0)
    scale = (4.0 if complex else 1.0) * (0.5 if dtype == "float32" else 1.0)
    seconds = 0.0
    for name, side in sides.items():
        width = 2**side.n
        panels = width // plan.panels[name]
        seconds += sum(factor.seconds(width, panels, scale) for factor in plan.factors[name])
        seconds += tile_sweep_seconds(side.tiles, side.regions, scale=scale)
    given = 16 if complex else 8
    size = given // (2 if dtype == "float32" else 1)
    target, largest = math.prod(padded_shape(legs)), max(padded_shape(legs))
    copies = (complex or dtype == "float32") + (plan.scratch >= largest**2)
    entries = copies * target + largest**2 + 2 * plan.scratch + plan.traced + plan.entries
    if tile is None and largest <= SMALL:
        entries += sum(layered_entries(side.places, side.n) for side in sides.values())
    return seconds, given * target + size * entries + SMALL_ARRAYS
