"""What a middle of prescribed zeros captures of a matrix between two circuits.

For Y = Q_L^H W Q_R^H and a middle D that may be non-zero only where a mask says so, the best D is
Y there and 0 elsewhere, at which the overlap of W with Q_L D Q_R is f = |D| / |W| and the relative
error sqrt(1 - f^2). So D needs no search: f is a function of the gates alone, whose derivatives
are those of Re Tr(W^H Q_L D Q_R) at the D of the moment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mpodis.conventions import Legs, split
from mpodis.environments import DenseEnvironments
from mpodis.environments.protocol import Gradient, Update

__all__ = ["Captured", "exact_cores"]


class Captured:
    """1 - |D| / |W| as an objective of `Lbfgs`, and its sweeps.

    Parameters
    ----------
    matrix : array (rows, columns)
        W, of norm 1 and padded.
    legs : legs of W
    mask : bool array (rows, columns)
        Where the middle may differ from zero.
    """

    def __init__(self, matrix, legs: Legs, mask) -> None:
        self.target, self.legs, self.mask = matrix, legs, mask

    def middle(self, engine: DenseEnvironments) -> np.ndarray:
        """The best D, (rows, columns)."""
        return np.where(self.mask, engine.pulled(), 0.0)

    def loss(self, engine: DenseEnvironments) -> float:
        return 1.0 - float(np.linalg.norm(self.middle(engine)))

    def sweep(self, engine: DenseEnvironments, updates: Mapping[str, Update]) -> None:
        """Every gate once; the middle is renewed between the sides, so that f never falls."""
        for side, update in updates.items():
            self._renew(engine)
            engine.sweep({side: update})

    def gradient(self, engine: DenseEnvironments) -> tuple[float, Gradient]:
        """Loss, and minus its derivatives by the gates; the core's are of no use."""
        size = self._renew(engine)
        found = engine.gradient()
        sides = [[e if e is None else e / size for e in s] for s in (found.left, found.right)]
        return 1.0 - size, Gradient(size, *sides, found.core)

    def _renew(self, engine: DenseEnvironments) -> float:
        """Give the engine the best middle as its core; returns |D|."""
        middle = self.middle(engine)
        engine.set(core=exact_cores(middle, self.legs))
        return max(float(np.linalg.norm(middle)), math.ulp(0.0))


def exact_cores(matrix, legs: Legs) -> list:
    """A dense matrix (rows, columns) as cores without any SVD.

    The centre holds all entries, the other sites only pass their legs on, so that the shapes are
    those of the legs alone.
    """
    sizes = [i * o for i, o in legs]
    centre, cores = len(legs) // 2, []
    for k, (i, o) in enumerate(legs):
        before, after = math.prod(sizes[:k]), math.prod(sizes[k + 1 :])
        if k < centre:
            cores.append(np.eye(before * sizes[k]).reshape(before, i, o, -1))
        elif k == centre:
            cores.append(split(matrix, legs).reshape(before, i, o, after))
        else:
            cores.append(np.eye(sizes[k] * after).reshape(-1, i, o, after))
    return cores
