"""An engine around another one, which it gives other circuits than it was asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from mpodis.environments.protocol import Environments

__all__ = ["WrappedEnvironments"]


class WrappedEnvironments(Environments):
    """Environments by an engine inside: what does not depend on the circuits is that engine's.

    Parameters
    ----------
    engine : Environments
    """

    def __init__(self, engine: Environments) -> None:
        self.engine = engine
        # the class inside decides what this one can do
        self.name = engine.name  # type: ignore[misc]
        self.exact = engine.exact  # type: ignore[misc]
        self.parallel = engine.parallel  # type: ignore[misc]

    @property
    def core(self) -> list[np.ndarray]:  # type: ignore[override]  # follows the engine inside
        return self.engine.core

    @property
    def plan(self) -> dict[str, Any] | None:  # type: ignore[override]
        return self.engine.plan

    @plan.setter
    def plan(self, plan: dict[str, Any] | None) -> None:  # type: ignore[override]
        self.engine.plan = plan

    @property
    def max_bond(self) -> int | None:
        return self.engine.max_bond

    def set_max_bond(self, max_bond: int) -> None:
        self.engine.set_max_bond(max_bond)

    @property
    def cutoff(self) -> float | None:
        return self.engine.cutoff

    def set_cutoff(self, cutoff: float) -> None:
        self.engine.set_cutoff(cutoff)

    @property
    def is_full(self) -> bool:
        return self.engine.is_full

    def inner(self) -> float:
        return self.engine.inner()
