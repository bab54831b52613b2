"""Keeps a truncating engine honest: independent checks, a schedule of bond dimensions, reverts.

A boundary engine computes environments at a bond dimension D and takes its own overlap for true.
Every few sweeps the overlap is therefore measured by other means (`estimate_form`: exactly where that
is cheap, else met in the middle at 2D). Where the truth has dropped, the last good gates come back
and D goes up; where the engine's figure is off, D goes up too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpodis.environments import Environments
from mpodis.environments.overlap import estimate_form
from mpodis.environments.protocol import core_norm
from mpodis.optimise.problem import Problem
from mpodis.sites import bond_dimensions

__all__ = ["Watch"]

EVERY = 5
"""Sweeps between two checks."""
DROP = 1e-4
"""A true overlap that is lower than the last good one by more than this is a drop."""
OFF = 2e-3
"""Relative error of the engine's own overlap above which its bond dimension is too small."""
ROOM = 3
"""A schedule begins where D is at least so many times the bond dimension of the operator: below,
sweeps were seen to lose overlap (5e-4 at D = 2 chi), from there on not."""

PARTS = ("left", "core", "right")


class Watch:
    """Checks one engine over the sweeps of one start after the other.

    Attributes
    ----------
    level : int
        Place in the schedule of bond dimensions.
    truth : float
        True overlap of the last good point; NaN before the first check.
    """

    def __init__(self, unit: list, problem: Problem, schedule: Sequence[int]) -> None:
        self._unit, self._problem, self._schedule = unit, problem, tuple(schedule)
        needed = ROOM * max(bond_dimensions(unit), default=1)
        enough = [k for k, bond in enumerate(self._schedule) if bond >= needed]
        self._first = enough[0] if enough else len(self._schedule) - 1
        self.level, self.truth = self._first, math.nan
        self.good: dict[str, np.ndarray] = {}

    @property
    def max_bond(self) -> int:
        return self._schedule[self.level]

    def restart(self, engine: Environments) -> None:
        """Begin with a new start, at the smallest bond dimension that serves."""
        self.level, self.truth, self.good = self._first, math.nan, {}
        engine.set_max_bond(self.max_bond)

    def check(self, engine: Environments, overlap: float) -> tuple[float, str]:
        """The true overlap, and what follows: "", "raised", "reverted" or "exhausted".

        "exhausted" is a drop at the largest bond dimension; the last good gates are back then too.
        """
        found = estimate_form(
            self._unit,
            self._problem.legs,
            (self._problem.left, self._problem.right),
            (engine.left, engine.core, engine.right),
            max_bond=2 * self.max_bond,
        )
        truth = found.value / core_norm(engine.core)
        if self.good and truth < self.truth - DROP:
            self._return(engine)
            return truth, "reverted" if self.raise_bond(engine) else "exhausted"
        self.truth = truth
        self.good = {
            f"{part}.{k}": x for part in PARTS for k, x in enumerate(getattr(engine, part))
        }
        if abs(overlap - truth) > OFF * abs(truth) and self.raise_bond(engine):
            return truth, "raised"
        return truth, ""

    def raise_bond(self, engine: Environments) -> bool:
        """Go on to the next bond dimension of the schedule, if there is one."""
        if self.level + 1 >= len(self._schedule):
            return False
        self.level += 1
        engine.set_max_bond(self.max_bond)
        return True

    def _return(self, engine: Environments) -> None:
        parts = {
            part: [x for name, x in self.good.items() if name.startswith(f"{part}.")]
            for part in PARTS
        }
        engine.set(**parts)

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        return dict(self.good), {"level": self.level, "truth": self.truth}

    def load(self, arrays: dict[str, np.ndarray], numbers: dict, engine: Environments) -> None:
        """Take over a `state`; the order of the names is that of the parts."""
        self.level, self.truth = numbers["level"], numbers["truth"]
        order = sorted(arrays, key=lambda name: (name.split(".")[0], int(name.split(".")[1])))
        self.good = {name: arrays[name] for name in order}
        engine.set_max_bond(self.max_bond)
