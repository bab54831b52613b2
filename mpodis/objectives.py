"""What a search minimises: one minus the overlap, or the error of a layer's activations.

An objective is what a user names or builds (`Overlap()`, `Activations(inputs=x)`); for an operator
it makes a `Loss`, a function of the gates and the core that an engine holds. Every loss is made of
the linear form h = Re Tr(G^H Q_L M' Q_R) that an engine knows, and perhaps of a quadratic term:

    overlap       1 - f,  f = Re Tr(M^H A) / (|M| |A|)               (Eq. 2 with its dagger)
    activations   |C (M - A)|^2 / |C M|^2,  C^2 = E[x^H x],          A = Q_L M' Q_R
                  optionally |C (M - A) S|^2 / |C M S|^2,  S^2 = E[g^H g]

The equation numbers are those of arXiv 2509.06653v1. |C Q_L M' Q_R| does not depend on Q_R, so that
the gates of Q_R have a closed-form update under both, with the target M or C^2 M; those of Q_L have
one for the overlap only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, replace
from typing import Any, Protocol, TypeVar

import numpy as np

from mpodis.conventions import Legs
from mpodis.environments.protocol import (
    DenseOperatorEnvironments,
    Environments,
    Gradient,
    Update,
    core_norm,
)
from mpodis.fit import als_sweep, embed_metric, inner, mask_padding, norm_gradient
from mpodis.measures import covariance_of
from mpodis.sites import left_canonical, spread_norm, tensors_to_dense

__all__ = [
    "OBJECTIVES",
    "Activations",
    "ActivationsLoss",
    "Loss",
    "Objective",
    "Operator",
    "Overlap",
    "OverlapLoss",
    "make_objective",
    "register_objective",
]


EngineT = TypeVar("EngineT", bound=Environments, contravariant=True)
"""The engines that a loss works with: all, or those that hold the dense operator."""


class Operator(Protocol):
    """The operator that a loss is made for: a `mpodis.optimise.problem.Problem`.

    Attributes
    ----------
    unit : list of arrays (left bond, input, output, right bond)
        Site tensors of M / |M|.
    legs : tuple of (input, output) dimensions
    shape : (inputs, outputs)
        Before zero padding.
    covariance, sensitivity : array or None
        Padded second moments.
    is_complex : bool
    """

    @property
    def unit(self) -> list: ...

    @property
    def legs(self) -> Legs: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def covariance(self) -> np.ndarray | None: ...

    @property
    def sensitivity(self) -> np.ndarray | None: ...

    @property
    def is_complex(self) -> bool: ...


class Loss(Protocol[EngineT]):
    """A function of the gates and the core that an engine holds, and its closed-form updates.

    Attributes
    ----------
    target : array (rows, columns) or list of site tensors
        G of the engine's linear form.
    polar_sides : tuple of str
        Sides whose gates have a closed-form update, the polar factor of their environment.
    """

    @property
    def target(self) -> np.ndarray | list: ...

    @property
    def polar_sides(self) -> tuple[str, ...]: ...

    def value(self, engine: EngineT) -> float: ...

    def overlap(self, value: float) -> float | None:
        """The overlap f at a value of the loss, where the one says the other."""
        ...

    def gradient(self, engine: EngineT) -> tuple[float, Gradient]:
        """The loss, and minus its derivatives: the environments along which it falls."""
        ...

    def sweep(self, engine: EngineT, updates: Mapping[str, Update], *, core: bool) -> None:
        """Apply every closed-form update once: to the gates of `polar_sides`, and to the core."""
        ...

    def best_core(self, engine: EngineT) -> list:
        """The core after one ALS sweep at the present gates."""
        ...

    def scaled_core(self, engine: EngineT) -> list:
        """The core, rescaled to the norm that minimises the loss."""
        ...


class Objective(Protocol):
    """What to minimise, before an operator is known.

    Attributes
    ----------
    name : str
        By which options and stored runs call it, see `register_objective`.
    needs_dense : bool
        Whether its loss needs an engine that holds the dense operator (`Environments.holds_dense`).
    covariance, sensitivity : array or None
        Second moments of the layer's inputs and of the loss gradients at its outputs, where it has
        any; they are stored with the problem.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs_dense(self) -> bool: ...

    @property
    def covariance(self) -> np.ndarray | None: ...

    @property
    def sensitivity(self) -> np.ndarray | None: ...

    def loss(self, operator: Operator) -> Loss[Any]:
        """The loss for an operator."""
        ...


@dataclass(frozen=True, eq=False)
class Overlap:
    """Maximise f = Re Tr(M^H A) / (|M| |A|), Eq. 2 of arXiv 2509.06653v1 with its dagger.

    Parameters
    ----------
    inputs, covariance : array (samples, inputs) or (inputs, inputs), optional
        Inputs of the layer or their second moment; only to report the error of the activations.

    Examples
    --------
    >>> Overlap().name
    'overlap'
    """

    inputs: InitVar[np.ndarray | None] = None
    covariance: np.ndarray | None = None
    name = "overlap"
    needs_dense = False
    sensitivity = None

    def __post_init__(self, inputs: np.ndarray | None) -> None:
        object.__setattr__(self, "covariance", covariance_of(inputs, self.covariance))

    def loss(self, operator: Operator) -> OverlapLoss:
        return OverlapLoss(operator.unit)


@dataclass(frozen=True, eq=False)
class Activations:
    """Minimise |X M - X A| / |X M| for the inputs X of the layer.

    Parameters
    ----------
    inputs, covariance : array (samples, inputs) or (inputs, inputs)
        X, or its second moment E[x^H x] (`second_moment`); one of the two.
    sensitivity : array (outputs, outputs), optional
        Second moment of the gradients of the network's loss at the layer's outputs
        (`mpodis.nn.output_sensitivity`). The error is then weighted by what the network's loss
        notices of it: the Kronecker-factored second order of that loss (K-FAC, arXiv 1503.05671).

    Examples
    --------
    >>> Activations(covariance=np.eye(4)).needs_dense
    True
    """

    inputs: InitVar[np.ndarray | None] = None
    covariance: np.ndarray | None = None
    sensitivity: np.ndarray | None = None
    name = "activations"
    needs_dense = True

    def __post_init__(self, inputs: np.ndarray | None) -> None:
        object.__setattr__(self, "covariance", covariance_of(inputs, self.covariance))

    def loss(self, operator: Operator) -> ActivationsLoss:
        covariance = operator.covariance
        if covariance is None:
            raise ValueError(
                "objective='activations' needs to know the layer's inputs; give inputs= (samples, "
                "features) or covariance=, their second moment"
            )
        # the outputs that are cropped are used by nobody: their errors must not count
        sensitivity = mask_padding(operator.sensitivity, operator.shape[1], operator.legs)
        if not operator.is_complex:
            # only the real part of a second moment matters to a real error
            covariance = np.real(covariance)
            sensitivity = None if sensitivity is None else np.real(sensitivity)
        return ActivationsLoss(operator.unit, covariance, sensitivity)


OBJECTIVES: dict[str, type] = {Overlap.name: Overlap, Activations.name: Activations}
"""The objectives that can be named, and that a stored run can be resumed with."""


def register_objective(kind: type) -> type:
    """Let `objective=kind.name` stand for ``kind()``, in `disentangle` and when a run is resumed.

    Where `inputs=`, `covariance=` or `sensitivity=` shall be given beside the name, the constructor
    must take ``covariance=`` and ``sensitivity=``.
    """
    OBJECTIVES[kind.name] = kind
    return kind


def make_objective(given: str | Objective, *, covariance=None, sensitivity=None) -> Objective:
    """The objective of a name, or the object itself.

    Raises
    ------
    ValueError
        A name that is not registered, or a sensitivity for an objective that has no use for it.
    """
    if not isinstance(given, str):
        if not isinstance(getattr(given, "name", None), str):
            raise TypeError(
                f"objective={given!r} is no objective; give one of {', '.join(OBJECTIVES)}, or an "
                "object such as Activations(inputs=...)"
            )
        if covariance is not None or sensitivity is not None:
            raise ValueError(
                f"objective={given.name!r} was given as an object; give it the second moments, "
                "and leave out inputs=, covariance= and sensitivity="
            )
        return given
    if given not in OBJECTIVES:
        hint = "; sensitivity= weighs the activations" if given == "sensitivity" else ""
        raise ValueError(
            f"objective={given!r} is not known; use one of {', '.join(OBJECTIVES)}{hint}"
        )
    moments = {"covariance": covariance, "sensitivity": sensitivity}
    moments = {name: array for name, array in moments.items() if array is not None}
    if "sensitivity" in moments and given == Overlap.name:
        raise ValueError("sensitivity= weighs the activations; use objective='activations'")
    return OBJECTIVES[given](**moments)


class OverlapLoss:
    """1 - f for a target that is given by its site tensors."""

    polar_sides = ("left", "right")

    def __init__(self, tensors: Sequence) -> None:
        tensors, _ = left_canonical(tensors)
        self.target = spread_norm(tensors, 0.0)

    def value(self, engine: Environments) -> float:
        return 1.0 - engine.inner() / core_norm(engine.core)

    def overlap(self, value: float) -> float:
        return 1.0 - value

    def sweep(self, engine: Environments, updates: Mapping[str, Update], *, core: bool) -> None:
        engine.sweep(updates, core=core)

    def gradient(self, engine: Environments) -> tuple[float, Gradient]:
        norms = norm_gradient(engine.core)
        square = np.vdot(engine.core[0], norms[0]).real
        found = engine.gradient(1.0 / math.sqrt(square))
        f = found.inner
        # with T = M': d f = Re <E - (f / |T|) d|T| / dT, dT> / |T|
        core = [e - n * (f / square) for e, n in zip(found.core, norms, strict=True)]
        return 1.0 - f, replace(found, core=core)

    def best_core(self, engine: Environments) -> list:
        return engine.fitted_core()

    def scaled_core(self, engine: Environments) -> list:
        return _scaled(engine.core, engine.inner() / core_norm(engine.core) ** 2)


class ActivationsLoss:
    """|C (M - A) S|^2 / |C M S|^2 for second moments C^2 of the inputs and S^2 of the gradients.

    Without S it is |C (M - A)|^2 / |C M|^2; with S no gate has a closed-form update, and the core
    is left to L-BFGS.

    Parameters
    ----------
    tensors : list of arrays
        Site tensors of M.
    covariance, sensitivity : array (inputs, inputs), and (outputs, outputs) or None
        C^2 and S^2, before or after zero padding.
    """

    def __init__(self, tensors: Sequence, covariance, sensitivity=None) -> None:
        matrix = tensors_to_dense(OverlapLoss(tensors).target)
        metric = embed_metric(covariance, matrix.shape[0])
        if sensitivity is not None:
            sensitivity = embed_metric(sensitivity, matrix.shape[1], what="sensitivity")
            sensitivity = sensitivity / np.abs(sensitivity).max()
        square = inner(matrix, matrix, metric, sensitivity)
        if not square > 1e-28 * np.abs(metric).max():
            raise ValueError(
                "the operator annihilates the given inputs (C M = 0); check that the covariance "
                "belongs to this layer"
            )
        self.matrix, self.metric, self.sensitivity = matrix, metric / square, sensitivity
        self.polar_sides = ("right",) if sensitivity is None else ()
        self.target = self._weighted(matrix)

    def _weighted(self, x):
        """C^2 x S^2."""
        x = self.metric @ x
        return x if self.sensitivity is None else x @ self.sensitivity

    def value(self, engine: DenseOperatorEnvironments) -> float:
        error = self.matrix - engine.dense()
        return float(np.vdot(error, self._weighted(error)).real)

    def overlap(self, value: float) -> None:
        return None

    def gradient(self, engine: DenseOperatorEnvironments) -> tuple[float, Gradient]:
        dense = engine.dense()
        error = self.matrix - dense
        weighted = self._weighted(error)
        value = float(np.vdot(error, weighted).real)
        return value, engine.gradient_towards(dense, 2 * weighted)

    def sweep(
        self, engine: DenseOperatorEnvironments, updates: Mapping[str, Update], *, core: bool
    ) -> None:
        engine.sweep({side: updates[side] for side in self.polar_sides})
        if core:
            kept, before = engine.core, self.value(engine)
            engine.set(core=self.best_core(engine))
            if self.value(engine) > before:
                engine.set(core=kept)  # at convergence, by rounding

    def best_core(self, engine: DenseOperatorEnvironments) -> list:
        if self.sensitivity is not None:
            return list(engine.core)
        pulled, metric = engine.pulled(self.matrix), engine.pulled_metric(self.metric)
        return als_sweep(pulled, engine.core, metric=metric)

    def scaled_core(self, engine: DenseOperatorEnvironments) -> list:
        dense = engine.dense()
        square = float(np.vdot(dense, self._weighted(dense)).real)
        return _scaled(engine.core, float(np.vdot(self.target, dense).real) / square)


def _scaled(core: Sequence, factor: float) -> list:
    """A core times a factor, its norm spread over the sites; a negative factor leaves it alone."""
    tensors, log_norm = left_canonical(core)
    return spread_norm(tensors, log_norm + math.log(factor)) if factor > 0 else list(core)
