"""Riemannian L-BFGS over all gates and the core together.

A gate moves as g exp(X) with X skew-Hermitian. Directions are kept in the Lie algebra (the frame
that moves along with the gate), where parallel transport along one's own geodesic changes
nothing, so that the two-loop recursion is the flat one on a flat vector; the core's sites are
plain coordinates beside it. The line search is SciPy's strong Wolfe search on the geodesic.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.linalg.blas import daxpy
from scipy.optimize import line_search

from mpodis.circuit.ansatz import Ansatz
from mpodis.environments.protocol import Environments
from mpodis.gates import exponential, skew
from mpodis.objectives import Objective

__all__ = ["Lbfgs"]


class Lbfgs:
    """Minimises an objective over an engine's gates and core; every step lowers the loss.

    Parameters
    ----------
    objective, engine
        The engine's gates and core are the point, and are replaced.
    left, right : Ansatz
    memory : int
        Pairs of steps and gradient differences that are kept.
    free_core : bool
        Move the core too.
    """

    def __init__(
        self,
        objective: Objective,
        engine: Environments,
        left: Ansatz,
        right: Ansatz,
        *,
        memory: int = 40,
        free_core: bool = True,
    ) -> None:
        self.objective, self.engine = objective, engine
        self.memory, self.free_core = memory, free_core
        # tied gates are one
        self.slots = [
            (side, numbers)
            for side, ansatz in (("left", left), ("right", right))
            for numbers in ansatz.free
        ]
        self._groups: list[list[int]] = []  # slots of each size and kind
        self.forget()

    def run(self, iterations: int) -> float:
        """Do up to so many iterations; returns the loss. Fewer when no step lowers it."""
        if not self.slots and not self.free_core:
            return self.objective.loss(self.engine)
        point = self._point()
        loss, slope = self._evaluate(point)
        for _ in range(iterations):
            direction = self._direction(slope)
            descent = float(slope @ direction)
            if descent >= 0:
                self.forget()
                direction, descent = -slope, -float(slope @ slope)
            if descent == 0.0:
                break
            if not self.steps:
                # no curvature known yet: a step of modest length in every gate
                direction = direction * min(1.0, 0.1 / np.abs(direction).max())
            found = self._search(point, direction, slope, loss)
            if found is None:
                if not self.steps:
                    break
                self.forget()
                continue
            size, point, new_loss, new_slope = found
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
        self.remember([], [])

    def remember(self, steps: Sequence[np.ndarray], differences: Sequence[np.ndarray]) -> None:
        """Take these pairs as the memory."""
        self.steps, self.differences = list(steps), list(differences)
        self.curvatures = [x @ y for x, y in zip(steps, differences, strict=True)]

    def _search(self, point, direction, slope, loss):
        """A strong Wolfe step: (length, point, loss, gradient), or None."""
        seen = {}

        def at(length: float):
            if length not in seen:
                moved = self._retract(point, length * direction)
                seen[length] = (moved, *self._evaluate(moved))
            return seen[length]

        seen[0.0] = (point, loss, slope)
        with warnings.catch_warnings():
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
            # near the optimum rounding can hide the Wolfe conditions: take what is lower
            length = min(seen, key=lambda key: seen[key][1])
            if not seen[length][1] < loss:
                return None
        return (length, *at(float(length)))

    def _direction(self, slope):
        """-H slope by the two-loop recursion."""
        q, weights = -slope, []
        pairs = list(zip(self.steps, self.differences, self.curvatures, strict=True))
        for step, difference, curvature in reversed(pairs):
            weights.append(step.dot(q) / curvature)
            q = daxpy(difference, q, a=-weights[-1])
        if pairs:
            _, difference, curvature = pairs[-1]
            q *= curvature / difference.dot(difference)
        for (step, difference, curvature), weight in zip(pairs, reversed(weights), strict=True):
            q = daxpy(step, q, a=weight - difference.dot(q) / curvature)
        return q

    def _point(self) -> tuple[list, list]:
        """Gates in stacks, those of one size and kind together (a side may be real alone); core."""
        gates = [getattr(self.engine, side)[numbers[0]] for side, numbers in self.slots]
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
                side, numbers = self.slots[k]
                for j in numbers:
                    sides[side][j] = gate
        self.engine.set(core=core, **sides)

    def _evaluate(self, point: tuple[list, list]) -> tuple[float, np.ndarray]:
        """Loss and its gradient as a flat real vector."""
        self._move_to(point)
        loss, found = self.objective.gradient(self.engine)
        parts = []
        for group, stack in zip(self._groups, point[0], strict=True):
            environments = np.array([_sum(found, *self.slots[k]) for k in group])
            slopes = stack.conj().swapaxes(1, 2) @ environments
            parts.append(-skew(_like(slopes, stack)))
        if self.free_core:
            parts += [-site for site in found.core]
        return loss, _flatten(parts)

    def _retract(self, point: tuple[list, list], vector: np.ndarray) -> tuple[list, list]:
        stacks, core = point
        moved, at = [], 0
        for stack in stacks:
            generators, at = _take(vector, at, stack.shape, stack.dtype)
            moved.append(stack @ exponential(generators))
        if self.free_core:
            sites = []
            for site in core:
                change, at = _take(vector, at, site.shape, site.dtype)
                sites.append(site + change)
            core = sites
        return moved, core


def _sum(found, side: str, numbers: Sequence[int]):
    """Environment of one gate, or of several that are tied."""
    there = getattr(found, side)
    if len(numbers) == 1:
        return there[numbers[0]]
    return sum((there[j] for j in numbers[1:]), there[numbers[0]])


def _like(derivative, gate):
    """A real gate moves along the real part only."""
    return derivative if gate.dtype.kind == "c" else derivative.real


def _flatten(parts: Sequence) -> np.ndarray:
    """One real vector; complex parts by their real and imaginary parts."""
    flat = [np.ascontiguousarray(part).reshape(-1) for part in parts]
    return np.concatenate([x.view(float) if x.dtype.kind == "c" else x for x in flat])


def _take(vector, at: int, shape, dtype) -> tuple[np.ndarray, int]:
    count = int(np.prod(shape)) * (2 if np.dtype(dtype).kind == "c" else 1)
    part = vector[at : at + count]
    if np.dtype(dtype).kind == "c":
        part = part.view(complex)
    return part.reshape(shape), at + count
