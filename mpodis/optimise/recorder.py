"""What is measured of a search: the record of every sweep, and the figures of the result."""

from __future__ import annotations

import math
import time
from functools import cached_property
from typing import Any

import numpy as np

from mpodis.circuit import Circuit
from mpodis.conventions import crop, padded_shape, split
from mpodis.environments.overlap import estimate_form
from mpodis.environments.protocol import Environments, core_norm, has_dense_operator
from mpodis.factorization import dense_overlap, sandwich
from mpodis.measures import (
    entropy,
    singular_values,
    spectral_bound,
    tensor_entropies,
    tensor_spectra,
)
from mpodis.objectives import Loss
from mpodis.optimise.problem import Problem
from mpodis.optimise.state import State
from mpodis.sites import bond_dimensions, tensors_to_dense

__all__ = ["Recorder"]

MEASURED = 2**8
"""Dimension up to which bound and entropies are measured in every sweep."""
DECOMPOSED = 2**11
"""Dimension up to which the result has them from dense matrices; the SVDs take minutes above."""
SMALLER, SVDS, FIT_SVDS = 4, 6, 15
"""Measuring a result takes as long as so many SVDs, and the MPO that is fitted for comparison with
circuits for activations as so many more; one SVD is timed at a smaller dimension."""
SPECTRA_BOND = 64
"""Bond dimension at which the entropies of larger results are taken from a truncated MPO."""


class Recorder:
    """Measures gates and core against the operator.

    Parameters
    ----------
    problem : Problem
        Its circuits may be replaced by those of a stage, see `of_sweep`.

    Attributes
    ----------
    has_dense : bool
        Whether the operator is small enough to be measured as a matrix.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self.has_dense, self._is_small = problem.size <= DECOMPOSED, problem.size <= MEASURED
        self._matrix = tensors_to_dense(problem.unit) if self.has_dense else np.empty(0)
        self._size = self._activations(self._matrix)
        if problem.covariance is not None and self.has_dense:
            zero = 1e-14 * math.sqrt(np.abs(problem.covariance).max())
            self._size = self._size if self._size > zero else math.nan

    @cached_property
    def _values(self) -> np.ndarray:
        return singular_values(self._matrix)

    def of_sweep(
        self,
        loss: Loss[Any],
        engine: Environments,
        state: State,
        problem: Problem,
        bond: int | None,
    ) -> dict:
        """The record of the sweep just done; figures that the size does not allow are NaN.

        Parameters
        ----------
        problem : Problem
            With the circuits of the present stage.
        bond : int or None
            Bond dimension D of an engine that truncates.
        """
        value, sides = state.losses[-1], (problem.left, problem.right)
        overlap = loss.overlap(value)
        bound = s_avg = error = math.nan
        if self._is_small:
            bound = spectral_bound(self._values, singular_values(engine.core))
            if len(problem.legs) > 1:
                s_avg = float(self._entropies(engine, problem).mean())
            else:
                s_avg = 0.0
        if self.has_dense and (overlap is None or (self._is_small and not math.isnan(self._size))):
            product = self._product(engine, loss.scaled_core(engine), problem)
            overlap = dense_overlap(self._matrix, product)
            error = self._activations(self._matrix - product) / self._size
        overlap = math.nan if overlap is None else float(overlap)
        return {
            "stage": state.stage,
            "depth": max(side.depth for side in sides),
            "width": max((p.width for side in sides for p in side.placements), default=0),
            "init": state.name,
            "sweep": len(state.losses) - 1,
            "phase": state.phase,
            "loss": value,
            "overlap": overlap,
            "bound": float(bound),
            "s_avg": s_avg,
            "activations": error,
            "true_overlap": overlap if bond is None else math.nan,
            "environment_bond": math.nan if bond is None else bond,
            "seconds": state.seconds,
        }

    def of_result(
        self, engine: Environments, core: list, max_bond: int, *, spectra: bool = True
    ) -> dict:
        """The fields of a `Disentangled` that are measured at the end.

        Parameters
        ----------
        max_bond : int
            Bond dimension at which the overlap is estimated where it cannot be computed.
        spectra : bool
            False leaves out bound and entropies of an operator that is measured as a matrix (NaN),
            which take longer than all the rest.
        """
        problem = self._problem
        unknown = np.full(len(problem.legs) - 1, math.nan)
        error, activations, bound, overlap_error = math.nan, math.nan, math.nan, 0.0
        if self.has_dense:
            product = self._product(engine, core, problem)
            overlap = dense_overlap(self._matrix, product)
            after = unknown
            if spectra:
                bound = spectral_bound(self._values, singular_values(core))
                after = self._entropies(engine, problem)
            activations = self._activations(self._matrix - product) / self._size
            target, cropped = (crop(x, problem.shape) for x in (self._matrix, product))
            error = float(np.linalg.norm(target - cropped) / np.linalg.norm(target))
        else:
            sides = (problem.left, problem.right)
            factors = (engine.left, core, engine.right)
            found = estimate_form(problem.unit, problem.legs, sides, factors, max_bond=max_bond)
            size = core_norm(core)
            overlap, overlap_error = found.value / size, found.error / size
            pulled = tensor_spectra(engine.pulled_tensors(SPECTRA_BOND))
            after = np.array([entropy(spectrum) for spectrum in pulled])
            if problem.shape == padded_shape(problem.legs):
                # gates keep norms, so that the distance follows from the overlap
                error = math.sqrt(max(0.0, 1.0 - 2.0 * overlap * size + size * size))
        if self.has_dense and not spectra:
            before = unknown
        elif self.has_dense and 2 * max(bond_dimensions(problem.unit), default=1) >= problem.size:
            before = tensor_entropies(split(self._matrix, problem.legs))
        else:
            before = np.array([entropy(spectrum) for spectrum in tensor_spectra(problem.unit)])
        return {
            "overlap": overlap,
            "overlap_error": overlap_error,
            "bound": bound,
            "relative_error": error,
            "activation_error": activations,
            "entropies_before": before,
            "entropies_after": after,
        }

    def seconds_of_result(self) -> float:
        """About how long `of_result` takes on this machine now, where that is more than a moment.

        It is proportional to the cube of the dimension: a smaller SVD is timed.
        """
        if self._problem.size < MEASURED or not self.has_dense:
            return 0.0
        small = np.random.default_rng(0).normal(size=(self._problem.size // SMALLER,) * 2)
        began = time.perf_counter()
        np.linalg.svd(small, compute_uv=False)
        count = SVDS
        if self._problem.covariance is not None and self._problem.size == MEASURED:
            count += FIT_SVDS
        return count * SMALLER**3 * (time.perf_counter() - began)

    def _activations(self, matrix: np.ndarray) -> float:
        """|X matrix|, the matrix cropped as the layer uses it; NaN without X or a dense matrix."""
        if self._problem.covariance is None or not self.has_dense:
            return math.nan
        x = crop(matrix, self._problem.shape)
        return math.sqrt(max(0.0, float(np.vdot(x, self._problem.covariance @ x).real)))

    def _entropies(self, engine: Environments, problem: Problem) -> np.ndarray:
        """S_k of Q_L^H M Q_R^H (nats): the entanglement that the circuits leave."""
        if has_dense_operator(engine):
            pulled = engine.pulled(self._matrix)
        else:
            left = Circuit(problem.left, tuple(engine.left)).adjoint()
            right = Circuit(problem.right, tuple(engine.right)).adjoint()
            pulled = sandwich(left, self._matrix, right)
        return tensor_entropies(split(pulled, problem.legs))

    def _product(self, engine: Environments, core: list, problem: Problem) -> np.ndarray:
        """Dense Q_L M' Q_R."""
        left = Circuit(problem.left, tuple(engine.left))
        return sandwich(left, tensors_to_dense(core), Circuit(problem.right, tuple(engine.right)))
