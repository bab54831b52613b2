"""Independent checks of an engine that truncates, and its schedule of bond dimensions.

A boundary engine computes environments at a bond dimension D and believes its own overlap. Every
few sweeps the overlap is therefore measured by other means (`estimate_form`: exactly where that is
cheap, else by contracting from both ends at 2D). Where the true overlap has dropped, the search
returns to the last confirmed gates and raises D; where the engine's own figure is off, it raises D.
"""

from __future__ import annotations

from collections.abc import Sequence

from mpodis.environments.arrays import SMALL_BOND
from mpodis.environments.overlap import estimate_form
from mpodis.environments.protocol import Environments, core_norm
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.state import State
from mpodis.sites import bond_dimensions

__all__ = ["TruncationMonitor"]

EVERY = 5
"""Sweeps between two checks."""
DROP = 1e-4
"""A true overlap that is lower than the last confirmed one by more than this is a drop."""
DEVIATION = 2e-3
"""Relative error of the engine's own overlap above which its bond dimension is too small."""
MARGIN = 3
"""A schedule begins where D is at least this many times the bond dimension of the operator: below,
sweeps were seen to lose overlap (5e-4 at D = 2 chi), from there on not."""


class TruncationMonitor:
    """Checks one engine; what it knows of a descent is kept in the descent's `State`.

    Parameters
    ----------
    problem : Problem
    schedule : sequence of int
        Bond dimensions D, ascending.
    """

    every = EVERY

    def __init__(self, problem: Problem, schedule: Sequence[int]) -> None:
        self._problem, self._schedule = problem, tuple(schedule)
        needed = MARGIN * max(bond_dimensions(problem.unit), default=1)
        enough = [k for k, bond in enumerate(self._schedule) if bond >= needed]
        self._first = enough[0] if enough else len(self._schedule) - 1

    def bond(self, state: State) -> int:
        """The present bond dimension D."""
        return self._schedule[state.bond_level]

    def is_small(self, state: State) -> bool:
        """Whether more than one thread would only slow the engine down."""
        return self.bond(state) <= SMALL_BOND

    def begin(self, state: State, engine: Environments) -> None:
        """Start a descent at the smallest bond dimension that suffices."""
        state.bond_level, state.checked = self._first, None
        engine.set_max_bond(self.bond(state))

    def check(self, state: State, engine: Environments, overlap: float) -> tuple[float, str]:
        """The true overlap, and what was done about it.

        Returns
        -------
        float, {"", "raised", "reverted", "exhausted"}
            "reverted": the last confirmed point is back, at a larger D; "exhausted": it is back,
            and there is no larger D.
        """
        problem = self._problem
        found = estimate_form(
            problem.unit,
            problem.legs,
            (problem.left, problem.right),
            (engine.left, engine.core, engine.right),
            max_bond=2 * self.bond(state),
        )
        true = found.value / core_norm(engine.core)
        if state.checked is not None and true < state.checked_overlap - DROP:
            engine.set(state.checked.left, state.checked.core, state.checked.right)
            return true, "reverted" if self.raise_bond(state, engine) else "exhausted"
        state.checked, state.checked_overlap = Point.of(engine), true
        if abs(overlap - true) > DEVIATION * abs(true) and self.raise_bond(state, engine):
            return true, "raised"
        return true, ""

    def raise_bond(self, state: State, engine: Environments) -> bool:
        """Go on to the next bond dimension of the schedule, if there is one."""
        if state.bond_level + 1 >= len(self._schedule):
            return False
        state.bond_level += 1
        engine.set_max_bond(self.bond(state))
        return True
