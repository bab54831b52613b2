"""What is reported of a run: the record of every sweep, and the result."""

from __future__ import annotations

import math

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.conventions import crop, padded_shape, split
from mpodis.environments import Environments, has_dense_operator
from mpodis.environments.protocol import core_norm
from mpodis.factorization import dense_overlap, sandwich
from mpodis.measures import (
    bond_spectra,
    entropy,
    singular_values,
    spectral_bound,
    tensor_entropies,
)
from mpodis.optimise.problem import Problem
from mpodis.sites import mpo_from_tensors, tensors_to_dense

__all__ = ["Figures"]

MEASURED = 2**8
"""Dimension up to which bound and entropies are measured in every sweep."""
DECOMPOSED = 2**11
"""Dimension up to which the result has them from dense matrices; the SVDs take minutes above."""
SPECTRA_BOND = 64
"""Bond dimension at which the entropies of larger results are taken from the boundary MPO."""


class Figures:
    """Measures gates and core against the operator.

    Parameters
    ----------
    problem : Problem
    unit : list of site tensors
        The operator, of norm 1.
    """

    def __init__(self, problem: Problem, unit: list) -> None:
        self.problem, self.unit = problem, unit
        size = max(padded_shape(problem.legs))
        self.dense, self.small = size <= DECOMPOSED, size <= MEASURED
        self.matrix = tensors_to_dense(unit) if self.dense else None
        self._values = singular_values(self.matrix) if self.small else None
        self._answers = self._answer(self.matrix)
        if problem.covariance is not None:
            rounding = 1e-14 * math.sqrt(np.abs(problem.covariance).max())
            self._answers = self._answers if self._answers > rounding else math.nan

    def of_sweep(self, engine: Environments, core, *, overlap: float | None) -> dict:
        """Bound, entropies and errors; what the size does not allow is NaN.

        `overlap` is given where the objective knows it; `core` is the engine's at its best norm.
        """
        bound = s_avg = felt = math.nan
        if self.small:
            bound = spectral_bound(self._values, singular_values(engine.core))
            s_avg = self.entropies_left(engine).mean() if len(self.problem.legs) > 1 else 0.0
        if self.dense and (overlap is None or (self.small and not math.isnan(self._answers))):
            product = self.product(engine, core)
            overlap = dense_overlap(self.matrix, product)
            felt = self.felt(product)
        return {
            "overlap": math.nan if overlap is None else float(overlap),
            "bound": float(bound),
            "s_avg": float(s_avg),
            "activations": felt,
        }

    def of_result(self, engine: Environments, core, overlap: float) -> dict:
        """Fields of the `Disentangled` that are measured at the end."""
        spectra = bond_spectra(mpo_from_tensors(self.unit))
        bound = felt = error = math.nan
        if self.dense:
            bound = spectral_bound(singular_values(self.matrix), singular_values(core))
            after = self.entropies_left(engine)
            product = self.product(engine, core)
            felt = self.felt(product)
            target, cropped = (crop(x, self.problem.shape) for x in (self.matrix, product))
            error = float(np.linalg.norm(target - cropped) / np.linalg.norm(target))
        else:
            after = self._entropies_of_boundary(engine)
            if self.problem.shape == padded_shape(self.problem.legs):
                # gates keep norms, so that the distance follows from the overlap
                size = core_norm(core)
                error = math.sqrt(max(0.0, 1.0 - 2.0 * overlap * size + size * size))
        return {
            "bound": bound,
            "relative_error": error,
            "activation_error": felt,
            "entropies_before": np.array([entropy(spectrum) for spectrum in spectra]),
            "entropies_after": after,
        }

    def _entropies_of_boundary(self, engine: Environments) -> np.ndarray:
        """S_k of Q_L^H M Q_R^H as an MPO, truncated to `SPECTRA_BOND`."""
        spectra = bond_spectra(mpo_from_tensors(engine.pulled_tensors(SPECTRA_BOND)))
        return np.array([entropy(spectrum) for spectrum in spectra])

    def _answer(self, matrix) -> float:
        """|X matrix|, the matrix cropped as the layer uses it; NaN where X is not known."""
        if self.problem.covariance is None or matrix is None:
            return math.nan
        x = crop(matrix, self.problem.shape)
        return math.sqrt(max(0.0, float(np.vdot(x, self.problem.covariance @ x).real)))

    def felt(self, product) -> float:
        """Relative error of the activations; NaN where the layer answers none of the inputs."""
        return self._answer(self.matrix - product) / self._answers

    def entropies_left(self, engine: Environments) -> np.ndarray:
        """S_k of Q_L^H M Q_R^H, the entanglement that the circuits leave."""
        if has_dense_operator(engine):
            pulled = engine.pulled(self.matrix)
        else:
            left, right = (circuit.adjoint() for circuit in self.circuits(engine))
            pulled = sandwich(left, self.matrix, right)
        return tensor_entropies(split(pulled, self.problem.legs))

    def product(self, engine: Environments, core):
        """Dense Q_L M' Q_R."""
        left, right = self.circuits(engine)
        return sandwich(left, tensors_to_dense(core), right)

    def circuits(self, engine: Environments) -> tuple[Circuit, Circuit]:
        return (
            Circuit(self.problem.left, tuple(engine.left)),
            Circuit(self.problem.right, tuple(engine.right)),
        )
