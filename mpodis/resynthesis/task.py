"""An operator, the objective for its factorizations, and their optimisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mpodis.advice import without_remarks
from mpodis.arguments import as_seed, as_shape
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, crop, padded_shape, wires
from mpodis.disentangling import disentangle
from mpodis.environments import DenseEnvironments
from mpodis.factorization import Factorization, dense_overlap
from mpodis.fit import inner, mask_padding, metric_of, weighted_loss
from mpodis.measures import covariance_of, singular_values, spectral_bound
from mpodis.mpo import Operator, as_compressed
from mpodis.objectives import Objective, make_objective
from mpodis.optimise.result import Disentangled
from mpodis.resynthesis.front import ParetoPoint
from mpodis.resynthesis.rewriting import absorb_into_core, simplified
from mpodis.resynthesis.two_qubit_gates import cnot_count
from mpodis.sites import mpo_legs, mpo_to_dense, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["DenseLoss", "Task", "check_size"]

LIMIT = 2**10
"""Largest dimension of an operator: gates are compared through the dense matrix."""
FEW_SWEEPS = 4
"""Sweeps that tell which of several circuits is worth more sweeps."""
ROUGH, FINE = 1e-3, 1e-4
"""Relative gain over ten sweeps at which intermediate circuits, and final ones, are converged."""


class DenseLoss(Protocol):
    """The loss of a dense approximation A of a dense operator M, both padded.

    Attributes
    ----------
    target : array (rows, columns)
        M.
    metric : array (rows, rows) or None
        Second moment of the inputs by which the core is fitted.
    is_linear : bool
        Whether the loss is linear in each gate, which then has a closed-form update.
    """

    @property
    def target(self) -> np.ndarray: ...

    @property
    def metric(self) -> np.ndarray | None: ...

    @property
    def is_linear(self) -> bool: ...

    def value(self, dense: np.ndarray) -> float:
        """The loss, at the norm that the approximation has."""
        ...

    def descent(self, dense: np.ndarray) -> np.ndarray:
        """Minus the derivative by conj(A), at fixed norm of A."""
        ...

    def permuted(self, rows: np.ndarray, columns: np.ndarray) -> DenseLoss:
        """The loss for the operator with rows and columns in another order."""
        ...


@dataclass(frozen=True, eq=False)
class DenseOverlapLoss:
    """1 - f, f = Re Tr(M^H A) / (|M| |A|)."""

    target: np.ndarray
    metric: None = None
    is_linear: bool = True

    def value(self, dense: np.ndarray) -> float:
        return 1.0 - dense_overlap(self.target, dense)

    def descent(self, dense: np.ndarray) -> np.ndarray:
        return self.target / (np.linalg.norm(self.target) * np.linalg.norm(dense))

    def permuted(self, rows: np.ndarray, columns: np.ndarray) -> DenseOverlapLoss:
        return DenseOverlapLoss(self.target[np.ix_(rows, columns)])


@dataclass(frozen=True, eq=False)
class DenseActivationsLoss:
    """|C (M - A) S|^2 / |C M S|^2; without a sensitivity S leaves out the padded outputs."""

    target: np.ndarray
    metric: np.ndarray
    sensitivity: np.ndarray | None
    is_linear: bool = False

    def value(self, dense: np.ndarray) -> float:
        return weighted_loss(self.target, dense, self.metric, self.sensitivity)

    def descent(self, dense: np.ndarray) -> np.ndarray:
        error = self.metric @ (self.target - dense)
        error = error if self.sensitivity is None else error @ self.sensitivity
        return 2.0 * error / inner(self.target, self.target, self.metric, self.sensitivity)

    def permuted(self, rows: np.ndarray, columns: np.ndarray) -> DenseActivationsLoss:
        return DenseActivationsLoss(
            self.target[np.ix_(rows, columns)],
            self.metric[np.ix_(rows, rows)],
            None if self.sensitivity is None else self.sensitivity[np.ix_(columns, columns)],
        )


@dataclass(frozen=True, eq=False)
class Task:
    """The operator, the objective, and how circuits are optimised.

    Attributes
    ----------
    mpo : MatrixProductOperator
    shape : (inputs, outputs)
        Before zero padding.
    max_bond, seed : int
    objective : Objective
    core : {"update", "fixed"}
        Whether the core is optimised and absorbs one-qubit gates next to it.
    sides : tuple of {"left", "right"}
        Circuits in which gates may be inserted.
    """

    mpo: MatrixProductOperator
    shape: tuple[int, int]
    max_bond: int
    objective: Objective
    seed: int
    core: str = "update"
    sides: tuple[str, ...] = ("left", "right")

    @classmethod
    def build(
        cls,
        mpo: Operator,
        *,
        max_bond: int,
        shape: tuple[int, int] | None = None,
        objective: str | Objective = "overlap",
        inputs: np.ndarray | None = None,
        covariance: np.ndarray | None = None,
        seed: int | np.random.Generator = 0,
        core: str = "update",
        sides: tuple[str, ...] = ("left", "right"),
    ) -> Task:
        """Check a user's arguments; those of `disentangle` alone are checked there."""
        given = as_compressed(mpo, shape=shape)
        mpo, shape = given.mpo, given.shape
        padded = padded_shape(mpo_legs(mpo))
        check_size(padded)
        made = make_objective(objective, covariance=covariance_of(inputs, covariance))
        if made.name not in LOSSES:
            raise ValueError(
                f"objective={made.name!r} has no loss of a dense matrix; use one of "
                f"{', '.join(LOSSES)}"
            )
        shape = as_shape(shape)
        task = cls(mpo, shape, max_bond, made, as_seed(seed), core, sides)
        _ = task.loss  # an objective without its inputs is refused here
        return task

    @cached_property
    def legs(self) -> Legs:
        return mpo_legs(self.mpo)

    @property
    def wires(self) -> tuple[int, int]:
        """Number of wires of the left and of the right circuit."""
        return len(wires(self.legs, "left")), len(wires(self.legs, "right"))

    @cached_property
    def target(self) -> np.ndarray:
        """The dense operator, padded."""
        return mpo_to_dense(self.mpo)

    @cached_property
    def loss(self) -> DenseLoss:
        """The objective as a function of a dense, padded approximation."""
        return LOSSES[self.objective.name](self)

    def activations_loss(self, sensitivity: np.ndarray | None = None) -> DenseActivationsLoss:
        """The squared relative error of the activations, weighted by a sensitivity if given."""
        if self.objective.covariance is None:
            raise ValueError(
                "objective='activations' needs to know the layer's inputs; give inputs= or "
                "covariance="
            )
        matrix, (rows, columns) = crop(self.target, self.shape), self.target.shape
        sensitivity = mask_padding(sensitivity, self.shape[1], self.legs)
        if sensitivity is not None:
            sensitivity = metric_of(sensitivity, matrix, axis=1, what="sensitivity", size=columns)
        metric = metric_of(self.objective.covariance, matrix, size=rows)
        return DenseActivationsLoss(self.target, metric, sensitivity)

    @cached_property
    def _activations_loss(self) -> DenseActivationsLoss:
        return self.activations_loss()

    @cached_property
    def _singular_values(self) -> np.ndarray:
        return singular_values(self.target)

    def environments(self, given: Factorization) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Minus the derivatives of the loss by every gate, left and right, fixed ones included."""
        slope = self.loss.descent(given.padded_to_dense())
        left, right = (_all_free(circuit.ansatz) for circuit in (given.left, given.right))
        engine = DenseEnvironments(slope, self.legs, left, right)
        engine.set(given.left.gates, site_tensors(given.core), given.right.gates)
        found = engine.gradient()
        # only the real part matters to a real gate
        return (
            [e if left.group == "U" else np.real(e) for e in found.left],
            [e if right.group == "U" else np.real(e) for e in found.right],
        )

    def point(self, given: Factorization, family: str) -> ParetoPoint:
        """Measure a factorization, at the norm that it has."""
        if given.legs != self.legs:
            raise ValueError(f"the operator has legs {self.legs}, the factorization {given.legs}")
        dense = given.padded_to_dense()
        error = math.nan
        if self.objective.covariance is not None:
            error = math.sqrt(self._activations_loss.value(dense))
        return ParetoPoint(
            cnots=cnot_count(given),
            family=family,
            loss=self.loss.value(dense),
            overlap=dense_overlap(self.target, dense),
            bound=spectral_bound(self._singular_values, singular_values(site_tensors(given.core))),
            activation_error=error,
            factorization=given,
        )

    def simplified(self, given: Factorization) -> Factorization:
        """The same operator with fewer gates; a core that is optimised absorbs the nearest ones."""
        if self.core == "update":
            return absorb_into_core(given)
        return replace(given, left=simplified(given.left), right=simplified(given.right))

    def optimise(
        self,
        left: Ansatz,
        right: Ansatz,
        family: str,
        *,
        n_init: int,
        max_sweeps: int,
        shallower: Factorization | None = None,
    ) -> ParetoPoint:
        """The best point of an ansatz from near the identity, or from a shallower factorization."""
        found = [
            self._disentangle(
                left, right, init="identity", n_init=n_init, max_sweeps=max_sweeps, tol=FINE
            )
        ]
        if shallower is not None:
            found.append(
                self._disentangle(
                    left, right, init=shallower, n_init=1, max_sweeps=max_sweeps, tol=FINE
                )
            )
        return min((self.point(one, family) for one in found), key=lambda point: point.loss)

    def reoptimise(
        self, given: Factorization, family: str, *, sweeps: int = FEW_SWEEPS, tol: float = ROUGH
    ) -> ParetoPoint:
        """The point that is reached from the gates and the core of a factorization."""
        # a few sweeps suffice where every gate has a closed form
        closed_form = sweeps <= FEW_SWEEPS and self.loss.is_linear
        found = self._disentangle(
            given.left.ansatz,
            given.right.ansatz,
            init=given,
            n_init=1,
            max_sweeps=sweeps,
            tol=tol,
            method="sweeps" if closed_form else "auto",
        )
        return self.point(found, family)

    def _disentangle(self, left: Ansatz, right: Ansatz, **options: Any) -> Factorization:
        with without_remarks():
            found: Disentangled = disentangle(
                self.mpo,
                left=left,
                right=right,
                max_bond=self.max_bond,
                core=self.core,
                objective=self.objective,
                engine="dense",
                shape=self.shape,
                seed=self.seed,
                **options,
            )
        if found.status == "interrupted":
            raise KeyboardInterrupt
        return found.factorization


LOSSES: dict[str, Callable[[Task], DenseLoss]] = {
    "overlap": lambda task: DenseOverlapLoss(task.target),
    "activations": lambda task: task.activations_loss(task.objective.sensitivity),
}
"""The loss of a dense matrix for each objective that has one, by its name."""


def check_size(padded: tuple[int, int]) -> None:
    """Raise a ValueError if an operator is too large for its dense matrix."""
    if max(padded) > LIMIT:
        raise ValueError(
            f"the operator spans {padded}, but gates are compared through dense matrices of up to "
            f"{LIMIT} rows; `disentangle` takes larger operators"
        )


def _all_free(ansatz: Ansatz) -> Ansatz:
    layers = tuple(tuple(replace(p, fixed=None) for p in layer) for layer in ansatz.layers)
    return replace(ansatz, layers=layers)
