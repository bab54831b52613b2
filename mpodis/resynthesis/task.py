"""An operator, and how its factorizations are measured and improved."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, padded_shape, wires
from mpodis.disentangling import disentangle
from mpodis.environments import DenseEnvironments
from mpodis.factorization import Factorization, dense_overlap
from mpodis.fit import embed_metric, inner, mask_padding, weighted_loss
from mpodis.measures import second_moment, singular_values, spectral_bound
from mpodis.mpo import Compressed
from mpodis.optimise.result import Disentangled
from mpodis.resynthesis.count import cnot_count
from mpodis.resynthesis.points import ParetoPoint
from mpodis.resynthesis.rewrite import simplified, tidied
from mpodis.sites import mpo_legs, mpo_to_dense, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Task"]

LIMIT = 2**10
"""Largest dimension of an operator: all gates are weighed through the dense matrix."""
OBJECTIVES = ("overlap", "activations")
QUICK = 4
"""Sweeps that tell which of several ways is worth going."""
ROUGH, FINE = 1e-3, 1e-4
"""Relative gain over ten sweeps at which circuits on the way, and those that stay, are done."""


@dataclass(frozen=True, eq=False)
class Task:
    """The operator, the objective, and the second moment of its inputs.

    Attributes
    ----------
    mpo : MatrixProductOperator
    shape : (inputs, outputs)
        Before zero padding.
    max_bond, seed : int
    objective : {"overlap", "activations"}
    covariance : array (inputs, inputs) or None
    core : {"update", "fixed"}
        Whether the core is improved and takes gates up that stand beside it, or stays.
    sides : tuple of {"left", "right"}
        Where gates may be put in.
    """

    mpo: MatrixProductOperator
    shape: tuple[int, int]
    max_bond: int
    objective: str
    covariance: np.ndarray | None
    seed: int
    core: str = "update"
    sides: tuple[str, ...] = ("left", "right")

    @classmethod
    def build(
        cls,
        mpo: MatrixProductOperator | Compressed,
        *,
        shape: tuple[int, int] | None,
        max_bond: int,
        objective: str,
        inputs,
        covariance,
        seed: int | np.random.Generator,
        core: str = "update",
        sides: tuple[str, ...] = ("left", "right"),
    ) -> Task:
        """Check what a user gives; what only the disentangler needs it checks itself."""
        if isinstance(mpo, Compressed):
            mpo, shape = mpo.mpo, shape or mpo.shape
        padded = padded_shape(mpo_legs(mpo))
        if max(padded) > LIMIT:
            raise ValueError(
                f"the operator spans {padded}, beyond {LIMIT}, up to which gates are weighed; "
                "`disentangle` takes larger ones"
            )
        if objective not in OBJECTIVES:
            raise ValueError(
                f"objective={objective!r} is not known; use one of {', '.join(OBJECTIVES)}"
            )
        if inputs is not None and covariance is not None:
            raise ValueError("give inputs= or covariance=, not both")
        if inputs is not None:
            covariance = second_moment(inputs)
        if objective == "activations" and covariance is None:
            raise ValueError(
                "objective='activations' needs to know the layer's inputs; give inputs= or "
                "covariance="
            )
        if isinstance(seed, np.random.Generator):
            seed = int(seed.integers(2**63))
        shape = padded if shape is None else (int(shape[0]), int(shape[1]))
        return cls(mpo, shape, max_bond, objective, covariance, seed, core, sides)

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
    def metrics(self) -> tuple:
        """Second moments of inputs and outputs that weigh the loss; None where none does."""
        if self.objective == "overlap":
            return None, None
        return self._moments

    @cached_property
    def _moments(self) -> tuple:
        """Of the padded inputs, and of those outputs that are not cropped."""
        rows, columns = self.target.shape
        mask = mask_padding(None, self.shape[1], self.legs)
        if mask is not None:
            mask = embed_metric(mask, columns, what="sensitivity")
        return embed_metric(self.covariance, rows), mask

    @cached_property
    def _values(self) -> np.ndarray:
        return singular_values(self.target)

    def loss(self, dense: np.ndarray) -> float:
        """The objective for a dense, padded approximation at its present norm."""
        if self.objective == "overlap":
            return 1.0 - dense_overlap(self.target, dense)
        return weighted_loss(self.target, dense, *self.metrics)

    def descent(self, dense: np.ndarray) -> np.ndarray:
        """Minus the derivative of the loss by the approximation, its norm held fixed."""
        if self.objective == "overlap":
            return self.target / (np.linalg.norm(self.target) * np.linalg.norm(dense))
        metric, sensitivity = self.metrics
        pull = metric @ (self.target - dense)
        pull = pull if sensitivity is None else pull @ sensitivity
        return 2.0 * pull / inner(self.target, self.target, metric, sensitivity)

    def environments(self, given: Factorization) -> tuple[list, list]:
        """Minus the derivatives of the loss by every gate, left and right, fixed ones too."""
        pull = self.descent(given.padded_to_dense())
        free = [_all_free(circuit.ansatz) for circuit in (given.left, given.right)]
        engine = DenseEnvironments(pull, self.legs, *free)
        engine.set(given.left.gates, site_tensors(given.core), given.right.gates)
        found = engine.gradient()
        # a real gate feels the real part only
        real = [circuit.ansatz.group != "U" for circuit in (given.left, given.right)]
        sides = zip((found.left, found.right), real, strict=True)
        return tuple([e.real if part else e for e in side] for side, part in sides)

    def point(self, given: Factorization, family: str) -> ParetoPoint:
        """Measure a factorization; its norm is taken as it is."""
        dense = given.padded_to_dense()
        error = math.nan
        if self.covariance is not None:
            error = math.sqrt(weighted_loss(self.target, dense, *self._moments))
        return ParetoPoint(
            cnots=cnot_count(given),
            family=family,
            loss=self.loss(dense),
            overlap=dense_overlap(self.target, dense),
            bound=spectral_bound(self._values, singular_values(site_tensors(given.core))),
            activation_error=error,
            factorization=given,
        )

    def tidied(self, given: Factorization) -> Factorization:
        """The same operator with fewer gates; a fixed core takes none of them up."""
        if self.core == "update":
            return tidied(given)
        return replace(given, left=simplified(given.left), right=simplified(given.right))

    def begin(
        self,
        left: Ansatz,
        right: Ansatz,
        family: str,
        *,
        n_init: int,
        sweeps: int,
        shallower: Factorization | None = None,
    ) -> ParetoPoint:
        """Circuits of given places, from near the identity; or from fewer layers, if better."""
        options = {"max_sweeps": sweeps, "tol": FINE}
        found = [self._disentangle(left, right, init="identity", n_init=n_init, **options)]
        if shallower is not None:
            found.append(self._disentangle(left, right, init=shallower, n_init=1, **options))
        return min((self.point(one, family) for one in found), key=lambda point: point.loss)

    def settle(
        self, given: Factorization, family: str, *, sweeps: int = QUICK, tol: float = ROUGH
    ) -> ParetoPoint:
        """Improve all gates and the core together, from where they stand."""
        quick = sweeps <= QUICK and self.objective == "overlap"
        found = self._disentangle(
            given.left.ansatz,
            given.right.ansatz,
            init=given,
            n_init=1,
            max_sweeps=sweeps,
            tol=tol,
            method="sweeps" if quick else "auto",
        )
        return self.point(found, family)

    def _disentangle(self, left: Ansatz, right: Ansatz, **options) -> Factorization:
        found: Disentangled = disentangle(
            self.mpo,
            left=left,
            right=right,
            max_bond=self.max_bond,
            core=self.core,
            objective=self.objective,
            covariance=self.covariance,
            engine="dense",
            shape=self.shape,
            seed=self.seed,
            **options,
        )
        return found.factorization


def _all_free(ansatz: Ansatz) -> Ansatz:
    layers = tuple(tuple(replace(p, fixed=None) for p in layer) for layer in ansatz.layers)
    return replace(ansatz, layers=layers)
