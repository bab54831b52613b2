"""Boundary engine: target and core are pulled towards each other as MPOs of bounded bond dimension.

S_0 is the target G and S_{k+1} = step_k^H S_k; T_K is the core M' and T_k = step_k T_{k+1}, where a
step applies a layer of Q_L from the left and one of Q_R from the right (see `steps`). All are
truncated to `max_bond` (see `truncation`), and h = Re <S_k|T_k> for every k. The environments of
the gates of step k are contained in <S_k|step_k|T_{k+1}>, which is contracted from left to right;
gates of both sides on the same sites are updated in turns on their common environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mpodis.arguments import check_count
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Array, Legs, padded_shape
from mpodis.environments.arrays import Backend
from mpodis.environments.boundary.contraction import (
    BlockEnvironment,
    StepContraction,
    applied,
    inner_product,
    safe_exp,
)
from mpodis.environments.boundary.cost import sweep_cost
from mpodis.environments.boundary.fit import als_core_mpo, core_environments
from mpodis.environments.boundary.steps import Block, plan_steps
from mpodis.environments.boundary.truncation import Boundary, Truncation, canonical
from mpodis.environments.protocol import (
    OTHER_SIDE,
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
from mpodis.mpo import compress
from mpodis.sites import legs_of, site_tensors, spread_norm

__all__ = ["BoundaryEnvironments", "meet_in_the_middle", "middle_overlap"]


class BoundaryEnvironments(Engine):
    """Environments through truncated boundary MPOs, see `Environments`.

    Parameters
    ----------
    target : list of site tensors, or array (rows, columns)
    legs, left, right
    max_bond : int
        Bond dimension D to which boundaries are truncated.
    cutoff : float
        Schmidt values below `cutoff` times the largest of their bond are dropped.
    truncation : {"random", "gram", "svd"}
        Decomposition that truncates, the fastest first, see `Truncation`.
    device : str or None
        Torch device of the boundaries; None computes with numpy.
    dtype : {"float64", "float32"}
        Precision of the boundaries. Environments are given in double precision.
    inner : int
        How often two gates on the same sites are updated in turns.

    Raises
    ------
    ValueError
        An ansatz or a target that does not fit the legs, or an option out of its range.
    """

    name = "boundary"
    exact = False
    folds = True

    def __init__(
        self,
        target: Target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        *,
        max_bond: int = 32,
        cutoff: float = 1e-14,
        truncation: str = "random",
        device: str | None = None,
        dtype: str = "float64",
        inner: int = 4,
    ) -> None:
        check_sides(legs, left, right, local=True)
        check_count("inner", inner)
        self._backend = Backend(device, dtype)
        self._truncation = Truncation(max_bond, cutoff, truncation, self._backend)
        self._turns = inner
        self._steps = plan_steps(legs, left, right)
        self._step_of: dict[str, dict[int, int]] = {"left": {}, "right": {}}
        for k, step in enumerate(self._steps):
            for block in step.blocks:
                for side, step_of in self._step_of.items():
                    placed = block.placed(side)
                    if placed is not None:
                        step_of[placed.number] = k
        self._counts = {"left": len(left.placements), "right": len(right.placements)}
        self._target = canonical(_target_tensors(target, legs), cutoff)
        self._complex = self._target.sites[0].dtype.kind == "c"
        self.left, self.right, self.core = [], [], []
        # S_0 ... S_K and T_0 ... T_K, where they hold for the present gates and core
        self._pulled: list[Boundary | None] = [None] * (len(self._steps) + 1)
        self._pushed: list[Boundary | None] = [None] * (len(self._steps) + 1)
        self._pulled[0] = self._on_device(self._target)
        self._forget_bonds()

    @classmethod
    def estimate(cls, problem: ProblemSize, options: EngineOptions) -> Estimate:
        """Half of a sweep up and down, which gives every gate its environment once."""
        seconds, size = sweep_cost(
            problem.legs,
            problem.left,
            problem.right,
            target_bonds=problem.target_bonds,
            core_bonds=problem.core_bonds,
            max_bond=options.environment_bond,
            complex=problem.is_complex,
            dtype=options.dtype,
        )
        return Estimate(cls.name, False, seconds / 2, size)

    @classmethod
    def build(
        cls, target: Target, legs: Legs, left: Ansatz, right: Ansatz, options: EngineOptions
    ) -> BoundaryEnvironments:
        return cls(
            target,
            legs,
            left,
            right,
            max_bond=options.environment_bond,
            device=options.device,
            dtype=options.dtype,
        )

    @property
    def max_bond(self) -> int:
        return self._truncation.max_bond

    @property
    def cutoff(self) -> float:
        return self._truncation.cutoff

    @property
    def is_full(self) -> bool:
        found = (bonds for side in self._bonds.values() for bonds in side if bonds is not None)
        return any(bond >= self.max_bond for bonds in found for bond in bonds)

    def set_max_bond(self, max_bond: int) -> None:
        """Truncate to another bond dimension D; boundaries are built anew if it differs."""
        self._truncate(max_bond, self.cutoff)

    def set_cutoff(self, cutoff: float) -> None:
        """Drop other Schmidt values; bond dimensions are found anew at the next evaluation.

        From then on they stay, and the form is a smooth function of the gates, until cutoff or
        `max_bond` change or this is called again. On chains of 50 sites and 9 to 13 layers the
        gradient is off by .1 to .4 of the cutoff and f by 20 to 40 times its square, where the
        circuit is on both sides of the core.
        """
        self._truncate(self.max_bond, cutoff, anew=True)

    @property
    def plan(self) -> dict[str, Any] | None:  # type: ignore[override]  # follows the bonds
        """The bond dimensions that a cutoff has led to; None where it finds none."""
        if not self._truncation.finds_bonds:
            return None
        return {"max_bond": self.max_bond, "cutoff": self.cutoff, **self._bonds}

    @plan.setter
    def plan(self, plan: dict[str, Any] | None) -> None:  # type: ignore[override]
        if plan is not None:
            self._truncate(plan["max_bond"], plan["cutoff"], anew=True)
            self._bonds = {side: list(plan[side]) for side in self._bonds}

    def _truncate(self, max_bond: int, cutoff: float, *, anew: bool = False) -> None:
        """Another truncation, and boundaries that go with it."""
        old = self._truncation
        if anew or (max_bond, cutoff) != (old.max_bond, old.cutoff):
            self._truncation = Truncation(max_bond, cutoff, old.method, self._backend)
            self._forget(0, len(self._steps) - 1)
            self._forget_bonds()

    def _forget_bonds(self) -> None:
        """Bond dimensions of all boundaries are to be found."""
        unknown: list[Sequence[int] | None] = [None] * (len(self._steps) + 1)
        self._bonds = {"pulled": list(unknown), "pushed": list(unknown)}

    @property
    def _gates(self) -> dict[str, list[np.ndarray]]:
        return {"left": self.left, "right": self.right}

    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Take over gates and core; what is not given stays, and so do boundaries that hold."""
        first, last = len(self._steps), -1
        for side, gates in (("left", left), ("right", right)):
            if gates is None:
                continue
            old, new = self._gates[side], [np.asarray(gate) for gate in gates]
            if len(new) != self._counts[side]:
                raise ValueError(
                    f"{len(new)} gates were given for {self._counts[side]} placements ({side})"
                )
            for number, gate in enumerate(new):
                if not old or not np.array_equal(old[number], gate):
                    k = self._step_of[side][number]
                    first, last = min(first, k), max(last, k)
            setattr(self, side, new)
        if core is not None:
            self.core = [np.asarray(site) for site in core]
        self._forget(first, last)
        is_complex = any(
            array.dtype.kind == "c"
            for array in (*self._target.sites[:1], *self.left, *self.right, *self.core)
        )
        if is_complex != self._complex:
            self._complex = is_complex
            self._forget(0, len(self._steps) - 1)
            self._pulled[0] = self._on_device(self._target)
        if self.core and (core is not None or self._pushed[-1] is None):
            cutoff = self._truncation.cutoff
            self._pushed[:-1] = [None] * len(self._steps)
            self._pushed[-1] = self._on_device(canonical(self.core, cutoff))

    def inner(self) -> float:
        depth = len(self._steps)
        value, log = inner_product(self._pulled_to(depth), self._pushed_to(depth))
        return value.real * safe_exp(log)

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """A half sweep upward, from the core to the target, and one downward."""
        self.half_sweep("up", updates)
        self.half_sweep("down", updates)
        if core:
            accept_core(self)

    def half_sweep(self, direction: str, updates: Mapping[str, Update]) -> None:
        """Update every free gate of the sides in `updates`, step by step.

        "up" goes from the core to the target, "down" from the target to the core.
        """
        if direction not in ("up", "down"):
            raise ValueError(f"direction={direction!r} is not known; use 'up' or 'down'")

        def update(block: Block, environment: BlockEnvironment) -> None:
            self._update(block, environment, updates)

        self._sweep(direction, update, tuple(updates))

    def gradient(self, scale: float = 1.0) -> Gradient:
        found: dict[str, list[np.ndarray | None]] = {
            side: [None] * count for side, count in self._counts.items()
        }

        def keep(block: Block, environment: BlockEnvironment) -> None:
            for side, other in OTHER_SIDE.items():
                placed = block.placed(side)
                if placed is not None and placed.free:
                    gate = self._gate(block, other)
                    found[side][placed.number] = environment.environment(side, gate)

        self._sweep("up", keep, ("left", "right"), changes=False)
        core = core_environments(self._pulled_in_numpy(), self.core)
        return Gradient(self.inner(), found["left"], found["right"], core).times(scale)

    def fitted_core(self) -> list[np.ndarray]:
        return als_core_mpo(self._pulled_in_numpy(), self.core)

    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        """Site tensors of Q_L^H G Q_R^H at the bond dimension of this engine, whatever `max_bond`.

        The norm is spread over the sites.
        """
        sites, log = self._pulled_in_numpy()
        return spread_norm(sites, log)

    def _pulled_in_numpy(self) -> tuple[list[np.ndarray], float]:
        """Site tensors of S_K, and the log of a factor."""
        boundary = self._pulled_to(len(self._steps))
        return [self._backend.to_numpy(site) for site in boundary.sites], boundary.log

    def _update(
        self, block: Block, environment: BlockEnvironment, updates: Mapping[str, Update]
    ) -> None:
        """Update the gates of a block, in turns if both sides are to be updated."""
        now = {side: self._gate(block, side) for side in OTHER_SIDE}
        free = []
        for side, other in OTHER_SIDE.items():
            placed = block.placed(side)
            if side in updates and placed is not None and placed.free:
                free.append((side, other, updates[side], self._gates[side], placed.number))
        for _ in range(self._turns if len(free) == 2 else 1):
            for side, other, update, gates, number in free:
                found = environment.environment(side, now[other])
                now[side] = gates[number] = update(found, gates[number])

    def _gate(self, block: Block, side: str) -> np.ndarray | None:
        """The present gate of a side of a block, if there is one."""
        placed = block.placed(side)
        return None if placed is None else self._gates[side][placed.number]

    def _sweep(
        self,
        direction: str,
        visit: Callable[[Block, BlockEnvironment], None],
        sides: Sequence[str],
        *,
        changes: bool = True,
    ) -> None:
        """Visit the blocks with free gates of the sides, and move a boundary along.

        `changes` says whether visits may change gates.
        """
        if not any(step.is_free(sides) for step in self._steps):
            return
        up, depth = direction == "up", len(self._steps)
        reached = self._pushed if up else self._pulled
        moving = self._pushed_to(depth) if up else self._pulled_to(0)
        last = 0 if up else depth - 1
        for k in reversed(range(depth)) if up else range(depth):
            step = self._steps[k]
            if not step.is_free(sides):
                moving = self._absorbed(moving, k, up)
            else:
                fixed = self._pulled_to(k) if up else self._pushed_to(k + 1)
                beyond = self._pulled_to(k + 1) if up else self._pushed_to(k)
                if changes:  # beforehand, as an update may raise
                    self._forget(k, k)
                contraction = StepContraction(
                    step, fixed, moving, beyond, self._gates, self._backend, adjoint=not up
                )
                blocks = contraction.sweep(visit, sides)
                if k == last and not changes:
                    return  # nothing comes after
                moving = self._truncated(moving, k, up, blocks)
            if changes:
                reached[k if up else k + 1] = moving

    def _absorbed(self, boundary: Boundary, k: int, up: bool) -> Boundary:
        """A boundary after step k, or after its adjoint on the way down."""
        blocks = applied(boundary, self._steps[k], self._gates, self._backend, adjoint=not up)
        return self._truncated(boundary, k, up, blocks)

    def _truncated(self, boundary: Boundary, k: int, up: bool, blocks: Sequence[Array]) -> Boundary:
        """The same, for its blocks with the gates of step k applied."""
        known, place = (self._bonds["pushed"], k) if up else (self._bonds["pulled"], k + 1)
        step, truncation = self._steps[k], self._truncation
        if known[place] is None and truncation.finds_bonds:
            known[place] = truncation.absorb(boundary, step, blocks).bonds
        return truncation.absorb(boundary, step, blocks, known[place])

    def _pulled_to(self, k: int) -> Boundary:
        """S_k, built from the last one that holds."""
        known = k
        while (boundary := self._pulled[known]) is None:
            known -= 1
        for j in range(known, k):
            self._pulled[j + 1] = boundary = self._absorbed(boundary, j, up=False)
        return boundary

    def _pushed_to(self, k: int) -> Boundary:
        """T_k, built from the last one that holds."""
        known = k
        while (boundary := self._pushed[known]) is None:
            known += 1
        for j in reversed(range(k, known)):
            self._pushed[j] = boundary = self._absorbed(boundary, j, up=True)
        return boundary

    def _forget(self, first: int, last: int) -> None:
        """Drop the boundaries that depend on steps first..last."""
        self._pulled[first + 1 :] = [None] * (len(self._pulled) - first - 1)
        self._pushed[: last + 1] = [None] * (last + 1)

    def _on_device(self, boundary: Boundary) -> Boundary:
        """A boundary on the device where the engine computes."""
        kind = np.complex128 if self._complex else np.float64
        sites = [self._backend.to_device(site.astype(kind)) for site in boundary.sites]
        weights = [self._backend.to_device(w) for w in boundary.weights]
        return Boundary(sites, weights, boundary.log)


def middle_overlap(
    target: Target,
    left: Sequence[np.ndarray],
    core: Sequence[np.ndarray],
    right: Sequence[np.ndarray],
    legs: Legs,
    left_ansatz: Ansatz,
    right_ansatz: Ansatz,
    *,
    max_bond: int = 64,
    cutoff: float = 1e-14,
    truncation: str = "random",
) -> float:
    """h = Re Tr(G^H Q_L M' Q_R), target and core pulled towards each other by half the steps.

    In double precision, without environments: each side is truncated as little as possible. The
    result at twice the bond dimension differs by about the error.
    """
    truncated = Truncation(max_bond, cutoff, truncation, Backend())
    parts, ansatze = (left, core, right), (left_ansatz, right_ansatz)
    value, log = inner_product(*meet_in_the_middle(target, parts, legs, ansatze, truncated))
    return value.real * safe_exp(log)


def meet_in_the_middle(
    target: Target,
    parts: tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]],
    legs: Legs,
    ansatze: tuple[Ansatz, Ansatz],
    truncation: Truncation,
) -> tuple[Boundary, Boundary]:
    """S_k and T_k after half the steps, for parts (left gates, core, right gates)."""
    left, core, right = parts
    gates = {"left": [np.asarray(g) for g in left], "right": [np.asarray(g) for g in right]}
    tensors = (_target_tensors(target, legs), [np.asarray(site) for site in core])
    kinds = [array.dtype for array in (*tensors[0], *gates["left"], *gates["right"], *tensors[1])]
    kind = np.result_type(*kinds, np.float64)
    cutoff = min(truncation.cutoff, 1e-14)  # of what comes later, `truncation` keeps account
    pulled, pushed = (canonical([c.astype(kind) for c in x], cutoff) for x in tensors)
    steps = plan_steps(legs, *ansatze)
    half = len(steps) // 2
    for step in steps[:half]:
        blocks = applied(pulled, step, gates, truncation.backend, adjoint=True)
        pulled = truncation.absorb(pulled, step, blocks)
    for step in reversed(steps[half:]):
        blocks = applied(pushed, step, gates, truncation.backend, adjoint=False)
        pushed = truncation.absorb(pushed, step, blocks)
    return pulled, pushed


def _target_tensors(target: Target, legs: Legs) -> list[np.ndarray]:
    """Site tensors of a target, which must have the legs given."""
    if isinstance(target, np.ndarray):
        shape, spanned = tuple(target.shape), padded_shape(legs)
        if shape != spanned:
            raise ValueError(f"the target is {shape}, its legs span {spanned}")
        target = site_tensors(compress(target, legs=legs).mpo)
    if legs_of(target) != tuple(legs):
        raise ValueError(f"the target has legs {legs_of(target)}, expected {tuple(legs)}")
    return [np.asarray(tensor) for tensor in target]
