"""What a disentangler makes small: one minus the overlap, or the error of the activations.

Both are functions of the dense-free linear form h = Re Tr(G^H Q_L M' Q_R) that an engine knows,
plus a quadratic term that only the activations have:

    overlap       1 - f,  f = Re Tr(M^H A) / (|M| |A|)               (Eq. 2 with its dagger)
    activations   |C (M - A)|^2 / |C M|^2,  C^2 = E[x^H x],          A = Q_L M' Q_R

|C Q_L M' Q_R| does not depend on Q_R, so Q_R keeps its closed-form polar step in both, with the
target M or C^2 M; so does Q_L for the overlap.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from mpodis.cores import als_core, core_gradient, embed_metric
from mpodis.environments.base import Environments, Gradient
from mpodis.mpo import cores_to_dense, left_canonical

__all__ = ["Activations", "Objective", "Overlap"]


class Objective(Protocol):
    """A loss over gates and core, and the parts of it that have closed forms.

    Attributes
    ----------
    name : str
    linear : array (rows, columns)
        The target G of the engine's linear form.
    polar_sides : tuple of str
        Sides whose gates have a closed-form update from the linear form.
    """

    name: str
    linear: object
    polar_sides: tuple[str, ...]

    def loss(self, engine: Environments) -> float: ...

    def gradient(self, engine: Environments) -> tuple[float, Gradient, list]:
        """Loss, environments of the gates (along which it falls), the same for the core."""

    def best_core(self, engine: Environments) -> list:
        """The core after one sweep of closed-form updates at the present gates."""

    def scaled(self, engine: Environments) -> list:
        """The core, rescaled to the best norm."""


class Overlap:
    """1 - f for a target matrix, see the module."""

    name = "overlap"
    polar_sides = ("left", "right")

    def __init__(self, matrix) -> None:
        self.linear = matrix / np.linalg.norm(matrix)

    def loss(self, engine: Environments) -> float:
        return 1.0 - engine.inner() / _norm(engine.core)

    def gradient(self, engine: Environments) -> tuple[float, Gradient, list]:
        size = _norm(engine.core)
        found = engine.gradient()
        core = cores_to_dense(engine.core)
        f = float(np.vdot(found.pulled, core).real) / size
        # d f = <pulled - f core / |core|, d core> / |core|
        pulled = (found.pulled - core * (f / size)) / size
        gates = [[e if e is None else e / size for e in s] for s in (found.left, found.right)]
        return 1.0 - f, Gradient(*gates, pulled), core_gradient(pulled, engine.core)

    def best_core(self, engine: Environments) -> list:
        return als_core(engine.pulled(), engine.core)

    def scaled(self, engine: Environments) -> list:
        size = _norm(engine.core)
        factor = engine.inner() / size**2
        return [engine.core[0] * factor, *engine.core[1:]] if factor > 0 else engine.core


class Activations:
    """|C (M - A)|^2 / |C M|^2 for a target matrix and a second moment C^2, see the module.

    The gradient needs the dense A: only engines that have it (`dense`) can be used.
    """

    name = "activations"
    polar_sides = ("right",)

    def __init__(self, matrix, covariance) -> None:
        size = np.linalg.norm(matrix)
        metric = embed_metric(covariance, matrix.shape[0])
        matrix = matrix / size
        square = float(np.vdot(matrix, metric @ matrix).real)
        if not square > 0:
            raise ValueError(
                "the layer answers none of the given inputs (C M = 0); check that the covariance "
                "belongs to this layer"
            )
        self.matrix = matrix
        self.metric = metric / square
        self.linear = self.metric @ matrix

    def loss(self, engine: Environments) -> float:
        off = self.matrix - engine.dense()
        return float(np.vdot(off, self.metric @ off).real)

    def gradient(self, engine: Environments) -> tuple[float, Gradient, list]:
        dense = engine.dense()
        off = self.matrix - dense
        pull = self.metric @ off
        found = engine.gradient_of(dense, 2 * pull)
        return float(np.vdot(off, pull).real), found, core_gradient(found.pulled, engine.core)

    def best_core(self, engine: Environments) -> list:
        pulled, metric = engine.pulled(self.matrix), engine.pulled_metric(self.metric)
        return als_core(pulled, engine.core, metric=metric)

    def scaled(self, engine: Environments) -> list:
        dense = engine.dense()
        square = float(np.vdot(dense, self.metric @ dense).real)
        factor = float(np.vdot(self.linear, dense).real) / square if square > 0 else 0.0
        return [engine.core[0] * factor, *engine.core[1:]] if factor > 0 else engine.core


def _norm(core) -> float:
    return float(np.exp(left_canonical(core)[1]))
