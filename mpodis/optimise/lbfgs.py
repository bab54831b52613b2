"""Riemannian L-BFGS over all gates and the core together.

A gate moves as g exp(X) with X skew-Hermitian. Directions are kept in the Lie algebra: vectors are
transported by left translation, an isometry, so that their coordinates stay. The two-loop recursion
is therefore the flat one, on one real vector; the core's site tensors are plain coordinates in it.
The line search is SciPy's strong Wolfe search along the geodesic.

Where the Gauss-Newton metric of the circuit is known (`CircuitMetric`), the recursion starts from
its damped inverse instead of a multiple of the identity. Steps are then those of Levenberg and
Marquardt, which the pairs correct for what the metric leaves out. That is of the size of the
distance to the target, sqrt(2 loss): a metric that is solved exactly is damped as much at least.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from typing import Any

import numpy as np
from scipy.linalg import get_blas_funcs
from scipy.optimize import line_search

from mpodis.circuit import Ansatz
from mpodis.environments.protocol import Environments
from mpodis.gates import exponential, skew
from mpodis.objectives import Loss
from mpodis.optimise.metric import Metric
from mpodis.progress import Deadline

__all__ = ["MEMORY", "Lbfgs"]

MEMORY = 40
"""Pairs that are kept."""
LARGEST_DAMPING = 1.0
"""With this damping a step is about one along the gradient."""

_axpy: Any = get_blas_funcs("axpy", dtype=np.float64)
"""y + a x in place of y, with less overhead than array expressions."""


class _OutOfTime(Exception):
    """Ends a line search at the deadline."""


class Lbfgs:
    """Minimises a loss over an engine's gates and core; every step lowers the loss.

    Parameters
    ----------
    loss : Loss
    engine : Environments
        Its gates and core are the variables.
    left, right : Ansatz
    memory : int
        Pairs of steps and gradient differences that are kept.
    free_core : bool
        Whether the core moves, too.
    metric : Metric, optional
        Of the left circuit, or of the right one where the left has no gates. The core stays then.

    Attributes
    ----------
    steps, differences : lists of arrays
        The pairs.
    damping : float
        What is added to the metric: it falls while full steps succeed.
    """

    def __init__(
        self,
        loss: Loss[Any],
        engine: Environments,
        left: Ansatz,
        right: Ansatz,
        *,
        memory: int = MEMORY,
        free_core: bool = True,
        metric: Metric | None = None,
    ) -> None:
        self.loss, self.engine = loss, engine
        self.memory, self.free_core = memory, free_core
        self.metric: Metric | None = metric
        self.damping = math.inf
        # gates that are tied are one variable
        self._variables = [
            (side, numbers)
            for side, ansatz in (("left", left), ("right", right))
            for numbers in ansatz.free
        ]
        self._groups: list[list[int]] = []  # variables of each size and kind
        self.forget()

    def run(
        self, iterations: int, *, deadline: Deadline | None = None, goal: float = -math.inf
    ) -> float:
        """Run at most `iterations` iterations, fewer where no step helps; returns the loss.

        After the first one it ends early when the deadline has passed, or the goal is reached. A
        line search that the deadline finds under way ends at the lowest point seen, if it is lower.
        """
        if not self._variables and not self.free_core:
            return self.loss.value(self.engine)
        point = self._point()
        loss, slope = self._evaluate(point)
        self.damping = min(self.damping, max(loss, 0.0))
        for number in range(iterations):
            if number and (loss <= goal or (deadline is not None and deadline.has_passed)):
                break
            if self.metric is not None:
                self._move_to(point)
                self.metric.set(self.engine.left or self.engine.right)
                self.damping = max(self.damping, self.metric.least_damping(loss))
            direction = self._direction(slope)
            descent = float(slope @ direction)
            if descent >= 0:
                self.forget()
                direction, descent = -slope, -float(slope @ slope)
            if descent == 0.0:
                break
            if not self.steps and self.metric is None:
                # no curvature known yet: a step of modest length in every gate
                direction = direction * min(1.0, 0.1 / np.abs(direction).max())
            found = self._search(point, direction, slope, loss, deadline)
            if found is None:
                if not self.steps and (self.metric is None or self.damping >= LARGEST_DAMPING):
                    break
                self.forget()
                self.damping *= 10
                continue
            size, point, new_loss, new_slope = found
            if size < 0.5:
                self.damping = min(2 * self.damping, LARGEST_DAMPING)
            elif size == 1.0:
                self.damping /= 2
            step, difference = size * direction, new_slope - slope
            curvature = step @ difference
            if curvature > 1e-14 * np.sqrt((step @ step) * (difference @ difference)):
                self.steps.append(step)
                self.differences.append(difference)
                self.curvatures.append(curvature)
                for kept in (self.steps, self.differences, self.curvatures):
                    del kept[: -self.memory]
            loss, slope = new_loss, new_slope
        self._move_to(point)
        return loss

    def forget(self) -> None:
        """Drop all pairs."""
        self.remember([], [])

    def remember(self, steps: Sequence[np.ndarray], differences: Sequence[np.ndarray]) -> None:
        """Set the pairs."""
        self.steps, self.differences = list(steps), list(differences)
        self.curvatures = [x @ y for x, y in zip(steps, differences, strict=True)]

    def _search(
        self,
        point: tuple[list, list],
        direction: np.ndarray,
        slope: np.ndarray,
        loss: float,
        deadline: Deadline | None = None,
    ) -> tuple | None:
        """A strong Wolfe step: (length, point, loss, gradient), or None."""
        seen: dict[float, tuple] = {}

        def at(length: float) -> tuple:
            if length not in seen:
                if deadline is not None and deadline.has_passed and lowest() > 0.0:
                    raise _OutOfTime
                moved = self._retract(point, length * direction)
                seen[length] = (moved, *self._evaluate(moved))
            return seen[length]

        def lowest() -> float:
            return min(seen, key=lambda key: seen[key][1])

        seen[0.0] = (point, loss, slope)
        length = None
        with warnings.catch_warnings(), suppress(_OutOfTime):
            warnings.simplefilter("ignore")  # it warns where it returns None, too
            length = line_search(
                lambda a: at(float(a[0]))[1],
                lambda a: np.array([at(float(a[0]))[2] @ direction]),
                np.zeros(1),
                np.ones(1),
                gfk=np.array([float(slope @ direction)]),
                old_fval=loss,
                maxiter=20,
            )[0]
        if length is None:
            # near the optimum rounding can hide the Wolfe conditions, or time is over: take the
            # lowest point seen
            length = lowest()
            if not seen[length][1] < loss:
                return None
        return (length, *at(float(length)))

    def _direction(self, slope: np.ndarray) -> np.ndarray:
        """-H slope by the two-loop recursion."""
        q, weights = -slope, []
        pairs = list(zip(self.steps, self.differences, self.curvatures, strict=True))
        for step, difference, curvature in reversed(pairs):
            weights.append(step.dot(q) / curvature)
            q = _axpy(difference, q, a=-weights[-1])
        if self.metric is not None:
            q = self._over_metric(q)
        elif pairs:
            _, difference, curvature = pairs[-1]
            q *= curvature / difference.dot(difference)
        for (step, difference, curvature), weight in zip(pairs, reversed(weights), strict=True):
            q = _axpy(step, q, a=weight - difference.dot(q) / curvature)
        return q

    def _over_metric(self, vector: np.ndarray) -> np.ndarray:
        """(G + damping)^-1 times a vector."""
        assert self.metric is not None
        metric, free = self.metric, [numbers[0] for _, numbers in self._variables]
        order = [free[k] for group in self._groups for k in group]
        gates = self.engine.left or self.engine.right
        generators = [np.zeros_like(gate) for gate in gates]
        stacks = _unpacked(vector, self._point()[0])
        for number, generator in zip(order, (x for stack in stacks for x in stack), strict=True):
            generators[number] = generator
        found = metric.generators(metric.solve(metric.vector(generators), self.damping))
        like = [gates[number] for number in order]
        return _packed(
            [
                found[number] if gate.dtype.kind == "c" else np.real(found[number])
                for number, gate in zip(order, like, strict=True)
            ]
        )

    def _point(self) -> tuple[list, list]:
        """The free gates as stacks of one size and dtype each, and the core."""
        gates = [getattr(self.engine, side)[numbers[0]] for side, numbers in self._variables]
        kinds = [(gate.shape[0], gate.dtype.kind) for gate in gates]
        self._groups = [
            [k for k, kind in enumerate(kinds) if kind == one] for one in sorted(set(kinds))
        ]
        return [np.array([gates[k] for k in group]) for group in self._groups], self.engine.core

    def _move_to(self, point: tuple[list, list]) -> None:
        stacks, core = point
        sides = {"left": list(self.engine.left), "right": list(self.engine.right)}
        for group, stack in zip(self._groups, stacks, strict=True):
            for k, gate in zip(group, stack, strict=True):
                side, numbers = self._variables[k]
                for j in numbers:
                    sides[side][j] = gate
        self.engine.set(core=core, **sides)

    def _evaluate(self, point: tuple[list, list]) -> tuple[float, np.ndarray]:
        """Loss and its gradient as a flat real vector."""
        self._move_to(point)
        loss, found = self.loss.gradient(self.engine)
        parts = []
        for group, stack in zip(self._groups, point[0], strict=True):
            environments = []
            for k in group:
                side, numbers = self._variables[k]
                environments.append(reduce(np.add, [getattr(found, side)[j] for j in numbers]))
            slopes = stack.conj().swapaxes(1, 2) @ np.array(environments)
            # only the real part of a derivative moves a real gate
            parts.append(-skew(slopes if stack.dtype.kind == "c" else slopes.real))
        if self.free_core:
            parts += [-site for site in found.core]
        return loss, _packed(parts)

    def _retract(self, point: tuple[list, list], vector: np.ndarray) -> tuple[list, list]:
        stacks, core = point
        changes = _unpacked(vector, [*stacks, *core] if self.free_core else stacks)
        generators, changes = changes[: len(stacks)], changes[len(stacks) :]
        moved = [
            x @ exponential(generator) for x, generator in zip(stacks, generators, strict=True)
        ]
        if self.free_core:
            core = [site + change for site, change in zip(core, changes, strict=True)]
        return moved, core


def _packed(parts: Sequence) -> np.ndarray:
    """One real vector, in which complex numbers are pairs."""
    flat = [np.ascontiguousarray(part).reshape(-1) for part in parts]
    return np.concatenate([x.view(float) if x.dtype.kind == "c" else x for x in flat])


def _unpacked(vector: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The arrays that `_packed` has made one vector, of the shapes and kinds of others."""
    found, at = [], 0
    for array in like:
        is_complex = array.dtype.kind == "c"
        count = array.size * (2 if is_complex else 1)
        part = vector[at : at + count]
        found.append((part.view(complex) if is_complex else part).reshape(array.shape))
        at += count
    return found
