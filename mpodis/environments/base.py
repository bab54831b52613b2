"""What an environment engine offers to the sweeps, and what all engines share.

An engine holds a target G and the parts of A = Q_L M' Q_R, and knows the linear form
h = Re Tr(G^H A). The environment of a gate g is E = dh/d conj(g), taken so that h = Re Tr(E^H g):
the array itself, element by element, not its transpose (arXiv 2509.06653v1, Eq. 3 with its
dagger). With G = M / (|M| |M'|) the form is the overlap f.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mpodis.ansatz import Ansatz
from mpodis.conventions import Legs

__all__ = ["Environments", "Gradient", "Update"]

Update = Callable[[object, object], object]
"""(environment, gate) -> new gate."""


@dataclass(frozen=True)
class Gradient:
    """Environments of all parts at once, at the same point.

    Attributes
    ----------
    left, right : list of arrays (2^w, 2^w)
        One per placement, None for fixed gates.
    pulled : array (rows, columns)
        Q_L^H G Q_R^H, the environment of the core as a dense matrix.
    """

    left: list
    right: list
    pulled: object


class Environments(Protocol):
    """Exact or controlled environments of a factorization against a target.

    Attributes
    ----------
    left, right : list of arrays
        Current gates; `sweep` replaces them.
    core : list of arrays (left bond, input, output, right bond)
    """

    left: list
    right: list
    core: list

    def __init__(
        self, target, legs: Legs, left: Ansatz, right: Ansatz
    ) -> None: ...

    def set(self, left: Sequence, core: Sequence, right: Sequence) -> None:
        """Take over gates and core."""

    def inner(self) -> float:
        """h = Re Tr(G^H Q_L M' Q_R)."""

    def sweep(self, side: str, update: Update) -> None:
        """Offer each free gate of a side, once, the environment that the newest others make."""

    def gradient(self) -> Gradient:
        """Environments of every part with nothing updated in between."""

    def pulled(self):
        """Q_L^H G Q_R^H as a dense (rows, columns) matrix."""
