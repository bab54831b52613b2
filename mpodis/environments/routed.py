"""Engines of neighbouring wires, for circuits whose gates act on any wires."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.routing import Routed, routed
from mpodis.conventions import Legs
from mpodis.environments.protocol import (
    DenseOperatorEnvironments,
    Engine,
    EngineOptions,
    Environments,
    Gradient,
    Target,
    Update,
    has_dense_operator,
)
from mpodis.environments.wrapped import WrappedEnvironments

__all__ = ["RoutedEnvironments"]

log = logging.getLogger(__name__)


class RoutedEnvironments(WrappedEnvironments, DenseOperatorEnvironments):  # type: ignore[override]
    """Environments of circuits on any wires, by an engine for neighbouring ones.

    The engine inside holds the circuits with SWAPs (`mpodis.circuit.routed`); gates on their way
    to it, and environments on their way back, get the order of wires that they have there. Updates
    must commute with an exchange of a gate's wires, as the polar factor does: the engine inside
    offers them gates in its own order of wires.

    Parameters
    ----------
    engine : Environments
        Built for the routed ansatze.
    left, right : Routed
    """

    def __init__(self, engine: Environments, left: Routed, right: Routed) -> None:
        super().__init__(engine)
        self._routes = {"left": left, "right": right}
        self.holds_dense = engine.holds_dense  # type: ignore[misc]

    @classmethod
    def around(
        cls,
        kind: type[Engine],
        target: Target,
        legs: Legs,
        left: Ansatz,
        right: Ansatz,
        options: EngineOptions,
    ) -> RoutedEnvironments:
        """The engine of a class, built for the routed ansatze."""
        routes = routed(left), routed(right)
        swaps = sum(route.n_swaps for route in routes)
        log.info("engine %s: gates on wires apart take %d SWAPs", kind.name, swaps)
        engine = kind.build(target, legs, routes[0].ansatz, routes[1].ansatz, options)
        return cls(engine, *routes)

    @property
    def n_swaps(self) -> int:
        """SWAPs that the engine inside applies beside the gates, in both circuits."""
        return sum(route.n_swaps for route in self._routes.values())

    @property
    def left(self) -> list[np.ndarray]:  # type: ignore[override]  # follows the engine inside
        return self._routes["left"].original(self.engine.left)

    @property
    def right(self) -> list[np.ndarray]:  # type: ignore[override]
        return self._routes["right"].original(self.engine.right)

    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.engine.set(
            None if left is None else self._routes["left"].gates(left),
            core,
            None if right is None else self._routes["right"].gates(right),
        )

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        self.engine.sweep(updates, core=core)

    def gradient(self, scale: float = 1.0) -> Gradient:
        return self._original(self.engine.gradient(scale))

    def fitted_core(self) -> list[np.ndarray]:
        return self.engine.fitted_core()

    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        return self.engine.pulled_tensors(max_bond)

    def dense(self) -> np.ndarray:
        return self._dense_engine.dense()

    def pulled(self, matrix: np.ndarray | None = None) -> np.ndarray:
        return self._dense_engine.pulled(matrix)

    def pulled_metric(self, metric: np.ndarray) -> np.ndarray:
        return self._dense_engine.pulled_metric(metric)

    def gradient_towards(self, dense: np.ndarray, target: np.ndarray) -> Gradient:
        return self._original(self._dense_engine.gradient_towards(dense, target))

    @property
    def _dense_engine(self) -> DenseOperatorEnvironments:
        if not has_dense_operator(self.engine):
            raise TypeError(f"engine {self.engine.name!r} does not work with dense operators")
        return self.engine

    def _original(self, gradient: Gradient) -> Gradient:
        """The gradient with respect to the gates of the original ansatze."""
        left, right = (
            self._routes[side].original(getattr(gradient, side)) for side in ("left", "right")
        )
        return replace(gradient, left=left, right=right)
