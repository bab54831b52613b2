"""The best MPO of a given bond dimension with no circuits around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpodis.arguments import as_shape
from mpodis.arrays import rescaled, times_power_of_two
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import crop, padded_shape, qubit_legs, to_numpy, wires
from mpodis.environments import DenseEnvironments
from mpodis.fit import check_covers, fit_core, mask_padding
from mpodis.measures import count_parameters
from mpodis.mpo import Compressed, Operator, as_mpo, check_array, mpo_or_matrix
from mpodis.objectives import ActivationsLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.progress import Deadline, within_limit
from mpodis.sites import (
    left_canonical,
    legs_of,
    mpo_from_tensors,
    mpo_to_dense,
    site_tensors,
    spread_norm,
)
from mpodis.structured.approximation import Approximation

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["truncated_mpo"]

ITERATIONS = 1000
"""The most L-BFGS iterations of a core under a sensitivity."""
PREPARING = 3.0
"""How many times as long L-BFGS takes at least as the exact MPO; what does not fit is not begun."""


@within_limit
def truncated_mpo(
    operator: Operator,
    max_bond: int,
    *,
    shape: tuple[int, int] | None = None,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    weighted: bool = True,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> Approximation:
    """The best MPO of a given bond dimension, by the plain or by a weighted distance.

    By ALS. A sensitivity leaves no closed form: L-BFGS then goes on from the ALS optima of the
    plain and of the covariance-weighted distance, and the lower end is taken.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        See `as_mpo`.
    max_bond : int
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `operator` is an MPO that does not know it.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        Second moments C^2 and S^2 of the distance |C (M - A) S|.
    weighted : bool
        False: fit by |M - A|, and use the covariance only to measure the error.
    max_seconds, progbar
        As for `mpodis.fit_core`; with a sensitivity half of the time goes to the fits without it.
    """
    deadline = Deadline(max_seconds)
    target = mpo_or_matrix(operator)
    if isinstance(target, Compressed):
        legs, given = target.legs, target.shape
    else:  # a fit to the matrix takes less time than its exact MPO
        target = check_array(target)
        given = (int(target.shape[0]), int(target.shape[1]))
        legs = qubit_legs(*given)
    shape = given if shape is None else as_shape(shape)
    if any(asked > there for asked, there in zip(shape, given, strict=True)):
        raise ValueError(f"shape={tuple(shape)} is larger than the operator, which is {given}")
    if isinstance(target, Compressed):
        target = replace(target, shape=shape)
    dense = mpo_to_dense(target.mpo) if isinstance(target, Compressed) else target
    dense, exponent = rescaled(crop(to_numpy(dense), shape))
    if covariance is not None:
        check_covers(covariance, dense)
    if sensitivity is not None:
        check_covers(sensitivity, dense, axis=1, what="sensitivity")
    if weighted and covariance is not None:
        sensitivity = mask_padding(sensitivity, shape[1], legs)
    with_gradients = weighted and sensitivity is not None
    core = fit_core(
        target,
        max_bond=max_bond,
        covariance=covariance if weighted else None,
        max_seconds=deadline.part(1 / 3 if with_gradients else 1.0).left,
        progbar=progbar,
    )
    if weighted and sensitivity is not None:
        plain = fit_core(
            target, max_bond=max_bond, max_seconds=deadline.part(0.5).left, progbar=progbar
        )
        guesses = (core, plain)
        core = _fitted_to_sensitivity(target, guesses, covariance, sensitivity, deadline)
    return Approximation.of(
        dense,
        times_power_of_two(to_numpy(mpo_to_dense(core, shape=shape)), -exponent),
        name=f"truncated MPO, chi {max_bond}",
        parameters=count_parameters(core),
        covariance=covariance,
        exponent=exponent,
    )


def _fitted_to_sensitivity(
    target: Operator,
    guesses: Sequence[MatrixProductOperator],
    covariance: np.ndarray | None,
    sensitivity: np.ndarray,
    deadline: Deadline,
) -> MatrixProductOperator:
    """The best core that L-BFGS finds from several initial guesses, with no gates around it.

    The first guess where there is no time for it.
    """
    began = deadline.fraction()
    tensors, log_norm = left_canonical(site_tensors(as_mpo(target)))
    now = deadline.fraction()
    if now + PREPARING * (now - began) > 1.0:
        return guesses[0]
    legs = legs_of(tensors)
    covariance = np.eye(padded_shape(legs)[0]) if covariance is None else covariance
    loss = ActivationsLoss(spread_norm(tensors, 0.0), covariance, sensitivity)
    left, right = (Ansatz(len(wires(legs, side)), ()) for side in ("left", "right"))
    found = []
    for number, guess in enumerate(guesses):
        share = deadline.part(1.0 if number else (1.0 + deadline.fraction()) / 2)
        engine = DenseEnvironments(loss.target, legs, left, right)
        core, log_size = left_canonical(site_tensors(guess))
        engine.set([], spread_norm(core, log_size - log_norm), [])
        value = Lbfgs(loss, engine, left, right).run(ITERATIONS, deadline=share)
        core, log_size = left_canonical(engine.core)
        found.append((value, spread_norm(core, log_size + log_norm)))
    return mpo_from_tensors(min(found, key=lambda pair: pair[0])[1])
