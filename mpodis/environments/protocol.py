"""What an environment engine offers to the sweeps.

An engine holds a target G and the parts of A = Q_L M' Q_R, and knows the linear form
h = Re Tr(G^H A). The environment of a gate g is E = dh/d conj(g), so that h = Re Tr(E^H g): the
array itself, element by element, not its transpose (arXiv 2509.06653v1, Eq. 3 with its dagger).
With G = M / (|M| |M'|) the form is the overlap f.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires
from mpodis.sites import left_canonical

__all__ = ["Environments", "Gradient", "Update", "accept_core", "check_sides", "core_norm"]

Update = Callable[[object, object], object]
"""(environment, gate) -> new gate."""


@dataclass(frozen=True)
class Gradient:
    """The form and the environments of all parts at one point.

    Attributes
    ----------
    inner : float
        h.
    left, right : list of arrays (2^w, 2^w)
        One per placement, None for fixed gates.
    core : list of arrays (left bond, input, output, right bond)
    """

    inner: float
    left: list
    right: list
    core: list

    def times(self, factor: float) -> Gradient:
        if factor == 1.0:
            return self
        parts = {
            name: [e if e is None else e * factor for e in getattr(self, name)]
            for name in ("left", "core", "right")
        }
        return replace(self, inner=self.inner * factor, **parts)


class Environments(Protocol):
    """Exact or controlled environments of a factorization against a target.

    Built from a target, the legs, and the left and right ansatz. Gates and core are numpy arrays,
    whatever an engine computes with.

    Attributes
    ----------
    exact : bool
        Whether form and environments are exact but for rounding.
    left, right : list of arrays
        Current gates, to be read; `set` and `sweep` replace them.
    core : list of arrays (left bond, input, output, right bond)
    """

    exact: bool
    left: list
    right: list
    core: list

    def set(
        self,
        left: Sequence | None = None,
        core: Sequence | None = None,
        right: Sequence | None = None,
    ) -> None:
        """Take over gates and core; what is not given stays."""

    def inner(self) -> float:
        """h = Re Tr(G^H Q_L M' Q_R)."""

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """Offer free gates of the sides named ("left", "right") the environment that the newest
        others make: each gate at least once, in the order that suits the engine. With `core`,
        give the core its best values too; the overlap h / |M'| does not drop by it.

        What a sweep does is a function of target, gates and core alone, so that a run that is
        resumed goes on as it would have.
        """

    def gradient(self, scale: float = 1.0) -> Gradient:
        """Environments of every part with nothing updated in between, of `scale` times h."""

    def fitted_core(self) -> list:
        """The core after one sweep of ALS towards Q_L^H G Q_R^H, the one nearest to it."""


class DenseOperatorEnvironments(Environments, Protocol):
    """Stub."""


def accept_core(engine: Environments) -> None:
    """Give an engine its fitted core, unless the overlap drops (at convergence, by rounding)."""
    kept, before = engine.core, engine.inner() / core_norm(engine.core)
    engine.set(core=engine.fitted_core())
    if not engine.inner() >= before * core_norm(engine.core):
        engine.set(core=kept)


def core_norm(core: Sequence) -> float:
    """|M'|, from its site tensors."""
    return math.exp(left_canonical(core)[1])


def check_sides(legs: Legs, left: Ansatz, right: Ansatz) -> None:
    for side, ansatz in (("left", left), ("right", right)):
        n = len(wires(legs, side))
        if ansatz.n != n:
            raise ValueError(f"the {side} ansatz has {ansatz.n} wires, the operator {n}")
