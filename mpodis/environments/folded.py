"""A circuit on one side of an identity core, for an engine that takes circuits on both.

Where the core is the identity, A = L_1 L_2 ... L_d is a product of layers, and the core may stand
between any two of them. In the middle it leaves half as many steps to an engine that pulls target
and core through the layers of both sides at once, and what it truncates is less entangled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs
from mpodis.environments.protocol import Environments, Gradient, Update
from mpodis.environments.wrapped import WrappedEnvironments

__all__ = ["FoldedEnvironments", "can_fold", "folded"]


class FoldedEnvironments(WrappedEnvironments):
    """Environments of one circuit, by an engine in which its second half is the right circuit.

    The core is a multiple of the identity on every site and stays one. Of its environments,
    `Gradient.core` has the parts along it.

    Parameters
    ----------
    engine : Environments
        Built for the ansatze that `folded` gives.
    left, right : Ansatz
        One of them has no gates.
    unfolded : function () -> Environments
        Builds an engine for `left` and `right`; it is asked for the core and the pulled target.
    """

    def __init__(
        self,
        engine: Environments,
        left: Ansatz,
        right: Ansatz,
        unfolded: Callable[[], Environments],
    ) -> None:
        super().__init__(engine)
        self._unfolded = unfolded
        self._side = "left" if left.placements else "right"
        self._middle = len(folded(left, right)[0].placements)

    @property
    def left(self) -> list[np.ndarray]:  # type: ignore[override]  # follows the engine inside
        return self._of("left", self.engine)

    @property
    def right(self) -> list[np.ndarray]:  # type: ignore[override]
        return self._of("right", self.engine)

    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Take over gates and core, which must be a multiple of the identity."""
        given = {"left": left, "right": right}
        gates, others = given.pop(self._side), *given.values()
        if others:
            raise ValueError(f"{len(others)} gates were given for a circuit without gates")
        if core is not None and core is not self.engine.core:
            for k, site in enumerate(core):
                if not _is_identity(np.asarray(site)):
                    raise ValueError(
                        f"site {k} of the core is no multiple of the identity; build the engine "
                        "without identity_core"
                    )
        halves = (None, None)
        if gates is not None:
            halves = list(gates[: self._middle]), list(gates[self._middle :])
        self.engine.set(halves[0], core, halves[1])

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        if core:
            raise ValueError("the core stays the identity; build the engine without identity_core")
        if self._side in updates:
            self.engine.sweep(dict.fromkeys(("left", "right"), updates[self._side]))

    def gradient(self, scale: float = 1.0) -> Gradient:
        found = self.engine.gradient(scale)
        left, right = self._of("left", found), self._of("right", found)
        core = [site * (found.inner / np.linalg.norm(site) ** 2) for site in self.core]
        return replace(found, left=left, right=right, core=core)

    def fitted_core(self) -> list[np.ndarray]:
        return self._whole().fitted_core()

    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        return self._whole().pulled_tensors(max_bond)

    def _of(self, side: str, halves: Environments | Gradient) -> list:
        """What both halves of the circuit have on a side."""
        return [*halves.left, *halves.right] if side == self._side else []

    def _whole(self) -> Environments:
        """An engine with the whole circuit on its side."""
        engine = self._unfolded()
        if not engine.exact and self.max_bond is not None:
            engine.set_max_bond(self.max_bond)
        engine.set(self.left, self.core, self.right)
        return engine


def folded(left: Ansatz, right: Ansatz) -> tuple[Ansatz, Ansatz]:
    """The layers of the only circuit, half on each side of the core."""
    whole = left if left.placements else right
    middle = (whole.depth + 1) // 2
    return replace(whole, layers=whole.layers[:middle]), replace(
        whole, layers=whole.layers[middle:]
    )


def can_fold(legs: Legs, left: Ansatz, right: Ansatz) -> bool:
    """Whether there is one circuit only, which may stand on either side of an identity core."""
    square = all(i == o for i, o in legs)
    return square and bool(left.placements) != bool(right.placements)


def _is_identity(site: np.ndarray) -> bool:
    """Whether a site tensor is a multiple of the identity."""
    if site.shape[0] != 1 or site.shape[3] != 1:
        return False
    matrix = site[0, ..., 0]
    return bool(np.allclose(matrix, matrix[0, 0] * np.eye(len(matrix)), rtol=0, atol=1e-13))
