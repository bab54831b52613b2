"""What an environment engine offers to the sweeps.

An engine holds a target G and the parts of A = Q_L M' Q_R, and knows the linear form
h = Re Tr(G^H A). The environment of a gate g is E = dh/d conj(g), so that h = Re Tr(E^H g): the
array itself, element by element, not its transpose (arXiv 2509.06653v1, Eq. 3 with its dagger).
With G = M / (|M| |M'|) the form is the overlap f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpodis.ansatz import Ansatz
from mpodis.conventions import Legs, wires

__all__ = ["Environments", "Gradient", "Update", "check_sides"]

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


class Environments(Protocol):
    """Exact or controlled environments of a factorization against a target.

    Built from a target, the legs, and the left and right ansatz.

    Attributes
    ----------
    left, right : list of arrays
        Current gates; `sweep` replaces them.
    core : list of arrays (left bond, input, output, right bond)
    """

    left: list
    right: list
    core: list

    def set(self, left: Sequence, core: Sequence, right: Sequence) -> None:
        """Take over gates and core."""

    def inner(self) -> float:
        """h = Re Tr(G^H Q_L M' Q_R)."""

    def sweep(self, side: str, update: Update) -> None:
        """Offer each free gate of a side, once, the environment that the newest others make."""

    def gradient(self) -> Gradient:
        """Environments of every part with nothing updated in between."""

    def fitted_core(self) -> list:
        """The core after one sweep of ALS towards Q_L^H G Q_R^H, the one nearest to it."""

    def pulled(self):
        """Q_L^H G Q_R^H as a dense (rows, columns) matrix."""


def check_sides(legs: Legs, left: Ansatz, right: Ansatz) -> None:
    for side, ansatz in (("left", left), ("right", right)):
        n = len(wires(legs, side))
        if ansatz.n != n:
            raise ValueError(f"the {side} ansatz has {ansatz.n} wires, the operator {n}")
