"""Boundary engine: target and core are pulled towards each other as MPOs of bounded bond dimension.

S_0 is the target G and S_{k+1} = step_k^H S_k; T_K is the core M' and T_k = step_k T_{k+1}, where a
step applies a layer of Q_L from the left and one of Q_R from the right (see `layers`). All are
truncated to `max_bond` (see `truncation`), and h = Re <S_k|T_k> for every k. The gates of step k
find their environments in <S_k|step_k|T_{k+1}>, which is contracted from left to right; gates of
both sides on the same sites are updated in turns on their common environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, padded_shape
from mpodis.environments.arrays import Home
from mpodis.environments.boundary.cost import estimate
from mpodis.environments.boundary.fit import als_core_mpo, core_environments
from mpodis.environments.boundary.layers import Block, plan_steps
from mpodis.environments.boundary.strip import Pair, Strip, absorb, exponential, meet
from mpodis.environments.boundary.truncation import Boundary, Truncation, canonical
from mpodis.environments.protocol import Gradient, Update, accept_core, check_sides
from mpodis.mpo import compress
from mpodis.sites import legs_of, site_tensors, spread_norm

__all__ = ["BoundaryEnvironments", "estimate", "middle_overlap", "middle_overlaps"]

OTHER = {"left": "right", "right": "left"}


class BoundaryEnvironments:
    """Environments through truncated boundaries, see `base.Environments`.

    Parameters
    ----------
    target : list of site tensors, or array (rows, columns)
    legs, left, right
    max_bond : int
        Bond dimension D at which boundaries are truncated.
    cutoff : float
        Schmidt values below `cutoff` times the largest of their bond are dropped.
    truncation : {"random", "gram", "svd"}
        Decomposition that truncates, the fastest first, see `truncation`.
    device : str or None
        Torch device of the boundaries; None computes with numpy.
    dtype : {"float64", "float32"}
        Precision of the boundaries. What is offered to updates is always double.
    inner : int
        How often two gates on the same sites are updated in turns.
    """

    exact = False

    holds_dense = False
    parallel = False
    limit = 2**13
    plan = None

    def pulled_tensors(self, max_bond):
        return self.pulled_cores()

    def __init__(
        self,
        target,
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
        check_sides(legs, left, right)
        if inner < 1:
            raise ValueError(f"inner={inner} updates nothing; use 1 or more")
        self._home = Home(device, dtype)
        self._truncation = Truncation(max_bond, cutoff, truncation, self._home)
        self._turns = inner
        self._steps = plan_steps(legs, left, right)
        self._step_of = {side: {} for side in ("left", "right")}
        for k, step in enumerate(self._steps):
            for block in step.blocks:
                for side, found in self._step_of.items():
                    if block.slot(side) is not None:
                        found[block.slot(side).number] = k
        self._counts = {"left": len(left.placements), "right": len(right.placements)}
        self._target = canonical(_cores(target, legs), cutoff)
        self._complex = self._target.sites[0].dtype.kind == "c"
        self._gates: dict[str, list] = {"left": [], "right": []}
        self.core: list = []
        # S_0 ... S_K and T_0 ... T_K, those that hold for the current gates and core
        self._pulled: list = [None] * (len(self._steps) + 1)
        self._pushed: list = [None] * (len(self._steps) + 1)
        self._pulled[0] = self._placed(self._target)

    @property
    def left(self) -> list:
        return self._gates["left"]

    @property
    def right(self) -> list:
        return self._gates["right"]

    @property
    def max_bond(self) -> int:
        return self._truncation.max_bond

    def set_max_bond(self, max_bond: int) -> None:
        """Another bond dimension D; boundaries are built anew where it differs."""
        old = self._truncation
        if max_bond != old.max_bond:
            self._truncation = Truncation(max_bond, old.cutoff, old.method, self._home)
            self._forget(0, len(self._steps) - 1)

    def set(
        self,
        left: Sequence | None = None,
        core: Sequence | None = None,
        right: Sequence | None = None,
    ) -> None:
        """Take over gates and core; what is not given stays, and so does what still holds."""
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
            self._gates[side] = new
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
            self._pulled[0] = self._placed(self._target)
        if self.core and (core is not None or self._pushed[-1] is None):
            cutoff = self._truncation.cutoff
            self._pushed[:-1] = [None] * len(self._steps)
            self._pushed[-1] = self._placed(canonical(self.core, cutoff))

    def inner(self) -> float:
        value, log = meet(self._pulled_to(len(self._steps)), self._pushed[-1])
        return value.real * exponential(log)

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """An upward half sweep, from the core to the target, and a downward one."""
        self.half_sweep("up", updates)
        self.half_sweep("down", updates)
        if core:
            accept_core(self)

    def half_sweep(self, direction: str, updates: Mapping[str, Update]) -> None:
        """Offer every free gate of the sides in `updates` its environment, step by step.

        "up" goes from the core to the target, "down" from the target to the core.
        """
        if direction not in ("up", "down"):
            raise ValueError(f"direction={direction!r} is not known; use 'up' or 'down'")

        def update(block: Block, pair: Pair) -> None:
            self._update(block, pair, updates)

        self._sweep(direction, update, tuple(updates))

    def gradient(self, scale: float = 1.0) -> Gradient:
        found = {side: [None] * count for side, count in self._counts.items()}

        def keep(block: Block, pair: Pair) -> None:
            for side, other in OTHER.items():
                if block.is_free(side):
                    environment = pair.environment(side, self._gate(block, other))
                    found[side][block.slot(side).number] = environment

        self._sweep("up", keep, ("left", "right"), changes=False)
        core = core_environments(self._on_host(), self.core)
        return Gradient(self.inner(), found["left"], found["right"], core).times(scale)

    def fitted_core(self) -> list:
        return als_core_mpo(self._on_host(), self.core)

    def pulled_cores(self) -> list:
        """Cores of Q_L^H G Q_R^H as far as it was not truncated, the norm spread over the sites."""
        sites, log = self._on_host()
        return spread_norm(sites, log)

    def _on_host(self) -> tuple[list, float]:
        boundary = self._pulled_to(len(self._steps))
        return [self._home.get(site) for site in boundary.sites], boundary.log

    def _update(self, block: Block, pair: Pair, updates: Mapping[str, Update]) -> None:
        """Update the gates of a block, in turns if both sides are to be."""
        sides = [side for side in OTHER if side in updates and block.is_free(side)]
        now = {side: self._gate(block, side) for side in OTHER}
        turn = [(s, OTHER[s], updates[s], self._gates[s], block.slot(s).number) for s in sides]
        for _ in range(self._turns if len(sides) == 2 else 1):
            for side, other, update, gates, number in turn:
                now[side] = gates[number] = update(pair.environment(side, now[other]), now[side])

    def _gate(self, block: Block, side: str):
        slot = block.slot(side)
        return None if slot is None else self._gates[side][slot.number]

    def _sweep(self, direction: str, visit, sides: Sequence[str], *, changes: bool = True) -> None:
        """Visit the blocks with free gates of the sides, and carry a boundary along."""
        if not any(step.is_free(sides) for step in self._steps):
            return
        up, depth = direction == "up", len(self._steps)
        if up:
            self._pulled_to(depth)
            moving, reached = self._pushed[depth], self._pushed
        else:
            self._pushed_to(0)
            moving, reached = self._pulled[0], self._pulled
        for k in reversed(range(depth)) if up else range(depth):
            step = self._steps[k]
            fixed = self._pulled[k] if up else self._pushed[k + 1]
            beyond = self._pulled[k + 1] if up else self._pushed[k]
            if not step.is_free(sides):
                moving = self._absorbed(moving, k, up)
            else:
                if changes:  # beforehand: an update may raise
                    self._forget(k, k)
                strip = Strip(step, fixed, moving, beyond, self._gates, self._home, adjoint=not up)
                turned = strip.sweep(visit, sides)
                moving = self._truncation.absorb(moving, step, turned)
            if changes:
                reached[k if up else k + 1] = moving

    def _absorbed(self, boundary: Boundary, k: int, up: bool) -> Boundary:
        return absorb(boundary, self._steps[k], self._gates, self._truncation, adjoint=not up)

    def _pulled_to(self, k: int) -> Boundary:
        """S_k, built from the last one that holds."""
        known = max(j for j in range(k + 1) if self._pulled[j] is not None)
        for j in range(known, k):
            self._pulled[j + 1] = self._absorbed(self._pulled[j], j, up=False)
        return self._pulled[k]

    def _pushed_to(self, k: int) -> Boundary:
        """T_k, built from the last one that holds."""
        known = min(j for j in range(k, len(self._pushed)) if self._pushed[j] is not None)
        for j in reversed(range(k, known)):
            self._pushed[j] = self._absorbed(self._pushed[j + 1], j, up=True)
        return self._pushed[k]

    def _forget(self, first: int, last: int) -> None:
        """Drop the boundaries that steps first..last are part of."""
        self._pulled[first + 1 :] = [None] * (len(self._pulled) - first - 1)
        self._pushed[: last + 1] = [None] * (last + 1)

    def _placed(self, boundary: Boundary) -> Boundary:
        """A boundary moved to where the engine computes."""
        cast = np.complex128 if self._complex else np.float64
        sites = [self._home.put(site.astype(cast)) for site in boundary.sites]
        return Boundary(sites, [self._home.put(w) for w in boundary.weights], boundary.log)


def middle_overlap(
    target,
    left: Sequence,
    core: Sequence,
    right: Sequence,
    legs: Legs,
    left_ansatz: Ansatz,
    right_ansatz: Ansatz,
    *,
    max_bond: int = 64,
    cutoff: float = 1e-14,
    truncation: str = "random",
) -> float:
    """h = Re Tr(G^H Q_L M' Q_R), target and core pulled towards each other by half the steps.

    In double precision, with no environments and no caches: each side is truncated as little as
    can be. `middle_overlaps` shows what truncation does.
    """
    home = Home()
    cut = Truncation(max_bond, cutoff, truncation, home)
    gates = {"left": [np.asarray(g) for g in left], "right": [np.asarray(g) for g in right]}
    tensors = (_cores(target, legs), [np.asarray(site) for site in core])
    kinds = [array.dtype for array in (*tensors[0], *gates["left"], *gates["right"], *tensors[1])]
    cast = np.result_type(*kinds, np.float64)
    bra, ket = (canonical([c.astype(cast) for c in x], cutoff) for x in tensors)
    steps = plan_steps(legs, left_ansatz, right_ansatz)
    half = len(steps) // 2
    for step in steps[:half]:
        bra = absorb(bra, step, gates, cut, adjoint=True)
    for step in reversed(steps[half:]):
        ket = absorb(ket, step, gates, cut, adjoint=False)
    value, log = meet(bra, ket)
    return value.real * exponential(log)


def middle_overlaps(*args, max_bond: int = 64, **options) -> tuple[float, float]:
    """`middle_overlap` at `max_bond` and at twice that: they differ by about the error."""
    first, second = (middle_overlap(*args, max_bond=d, **options) for d in (max_bond, 2 * max_bond))
    return first, second


def _cores(target, legs: Legs) -> list:
    """Cores of a target, with the legs given."""
    if not isinstance(target, list | tuple):
        shape, spanned = tuple(target.shape), padded_shape(legs)
        if shape != spanned:
            raise ValueError(f"the target is {shape}, its legs span {spanned}")
        target = site_tensors(compress(target, legs=legs).mpo)
    if legs_of(target) != tuple(legs):
        raise ValueError(f"the target has legs {legs_of(target)}, expected {tuple(legs)}")
    return [np.asarray(core) for core in target]
