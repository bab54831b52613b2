"""What a disentangler makes small: one minus the overlap, or the error of the activations.

Both are functions of the dense-free linear form h = Re Tr(G^H Q_L M' Q_R) that an engine knows,
plus a quadratic term that only the activations have:

    overlap       1 - f,  f = Re Tr(M^H A) / (|M| |A|)               (Eq. 2 with its dagger)
    activations   |C (M - A)|^2 / |C M|^2,  C^2 = E[x^H x],          A = Q_L M' Q_R
                  optionally |C (M - A) S|^2 / |C M S|^2,  S^2 = E[g^H g]

|C Q_L M' Q_R| does not depend on Q_R, so Q_R keeps its closed-form polar step in both, with the
target M or C^2 M; so does Q_L for the overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from mpodis.environments.protocol import Environments, Gradient, Update, core_norm
from mpodis.fit import als_sweep, embed_metric, inner, norm_gradient
from mpodis.sites import left_canonical, spread_norm, tensors_to_dense

__all__ = ["Activations", "Objective", "Overlap"]


class Objective(Protocol):
    """A loss over gates and core, and the parts of it that have closed forms.

    Attributes
    ----------
    name : str
    target : array (rows, columns) or list of site tensors
        G of the engine's linear form.
    polar_sides : tuple of str
        Sides whose gates have a closed-form update from the linear form.
    """

    name: str
    target: object
    polar_sides: tuple[str, ...]

    def loss(self, engine: Environments) -> float: ...

    def gradient(self, engine: Environments) -> tuple[float, Gradient]:
        """Loss, and minus its derivatives: the environments along which it falls."""

    def sweep(self, engine: Environments, updates: Mapping[str, Update], *, core: bool) -> None:
        """All closed forms once: gates of the sides in `polar_sides`, and the core if wanted."""

    def best_core(self, engine: Environments) -> list:
        """The core after one ALS sweep at the present gates."""

    def scaled(self, engine: Environments) -> list:
        """The core, rescaled to its best norm."""


class Overlap:
    """1 - f for a target given by its site tensors, see the module."""

    name = "overlap"
    polar_sides = ("left", "right")

    def __init__(self, tensors: Sequence) -> None:
        tensors, _ = left_canonical(tensors)
        self.target = spread_norm(tensors, 0.0)

    def loss(self, engine: Environments) -> float:
        return 1.0 - engine.inner() / core_norm(engine.core)

    def sweep(self, engine: Environments, updates: Mapping[str, Update], *, core: bool) -> None:
        engine.sweep(updates, core=core)

    def gradient(self, engine: Environments) -> tuple[float, Gradient]:
        norms = norm_gradient(engine.core)
        square = np.vdot(engine.core[0], norms[0]).real
        found = engine.gradient(1.0 / math.sqrt(square))
        f = found.inner
        # d f = <E - (f / |T|) dT|T|, dT> / |T|
        core = [e - n * (f / square) for e, n in zip(found.core, norms, strict=True)]
        return 1.0 - f, replace(found, core=core)

    def best_core(self, engine: Environments) -> list:
        return engine.fitted_core()

    def scaled(self, engine: Environments) -> list:
        return _scale(engine.core, engine.inner() / core_norm(engine.core) ** 2)


class Activations:
    """|C (M - A) S|^2 / |C M S|^2 for second moments C^2 of inputs and S^2 of gradients.

    S, optional, weighs an error by how much the network's loss feels it: with the gradients g of
    the loss at the layer's outputs, S^2 = E[g^H g], the distance is the Kronecker-factored second
    order of the loss (K-FAC, arXiv 1503.05671). Then no gate and no site has a closed form.

    Needs the dense A, so only an engine that has it (`dense`).
    """

    name = "activations"

    def __init__(self, tensors: Sequence, covariance, sensitivity=None) -> None:
        matrix = tensors_to_dense(Overlap(tensors).target)
        metric = embed_metric(covariance, matrix.shape[0])
        if sensitivity is not None:
            sensitivity = embed_metric(sensitivity, matrix.shape[1], what="sensitivity")
            sensitivity = sensitivity / np.abs(sensitivity).max()
        square = inner(matrix, matrix, metric, sensitivity)
        if not square > 1e-28 * np.abs(metric).max():
            raise ValueError(
                "the layer answers none of the given inputs (C M = 0); check that the covariance "
                "belongs to this layer"
            )
        self.matrix, self.metric, self.sensitivity = matrix, metric / square, sensitivity
        self.polar_sides = ("right",) if sensitivity is None else ()
        self.target = self._weigh(matrix)

    def _weigh(self, x):
        x = self.metric @ x
        return x if self.sensitivity is None else x @ self.sensitivity

    def loss(self, engine: Environments) -> float:
        off = self.matrix - engine.dense()
        return float(np.vdot(off, self._weigh(off)).real)

    def gradient(self, engine: Environments) -> tuple[float, Gradient]:
        dense = engine.dense()
        off = self.matrix - dense
        pull = self._weigh(off)
        return float(np.vdot(off, pull).real), engine.gradient_towards(dense, 2 * pull)

    def sweep(self, engine: Environments, updates: Mapping[str, Update], *, core: bool) -> None:
        engine.sweep({side: updates[side] for side in self.polar_sides})
        if core:
            kept, loss = engine.core, self.loss(engine)
            engine.set(core=self.best_core(engine))
            if self.loss(engine) > loss:
                engine.set(core=kept)  # at convergence, by rounding

    def best_core(self, engine: Environments) -> list:
        if self.sensitivity is not None:
            return list(engine.core)
        pulled, metric = engine.pulled(self.matrix), engine.pulled_metric(self.metric)
        return als_sweep(pulled, engine.core, metric=metric)

    def scaled(self, engine: Environments) -> list:
        dense = engine.dense()
        square = float(np.vdot(dense, self._weigh(dense)).real)
        return _scale(engine.core, float(np.vdot(self.target, dense).real) / square)


def _scale(core: Sequence, factor: float) -> list:
    """A core times a factor and with its norm spread evenly; a negative one would hide a sign."""
    tensors, log_norm = left_canonical(core)
    return spread_norm(tensors, log_norm + math.log(factor)) if factor > 0 else list(core)
