"""What a result of `disentangle` is not good for, in plain sentences, and what to do about it.

Circuits that converge may still be useless: they may entangle the operator further, be worse than a
zero matrix, or be beaten by a matrix of low rank with as few parameters. Each of these is compared
in the measure that was optimised.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from mpodis.conventions import crop
from mpodis.environments import ENGINES
from mpodis.factorization import dense_overlap, sandwich
from mpodis.fit import embed_metric, fit_tensors, inner, metric_root, weighted_loss
from mpodis.measures import tensors_overlap
from mpodis.mpo import truncate_tensors
from mpodis.objectives import Activations, Objective, Overlap
from mpodis.optimise.initial_guesses import ENTROPIC
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import Disentangled
from mpodis.sites import bond_dimensions, site_tensors, tensors_to_dense
from mpodis.structured.approximation import bond_for, mpo_parameters, rank_for
from mpodis.tables import number

if TYPE_CHECKING:
    from mpodis.optimise.search import Search

__all__ = ["expectations", "log_remarks", "remarks", "without_remarks"]

log = logging.getLogger(__name__)

RISE = 0.01
"""S_avg has risen if it is higher by more than this, in nats."""
LITTLE = 0.9
"""Relative error above which a result is hardly better than zero."""
CLEARLY = 0.98
"""Something else is better if its error is at most this fraction of that of the circuits."""
HALF = 0.5
"""A core that is kept is named where it makes this part of the error, whatever the circuits."""
SMALL = 1e-3
"""Relative error of a result below which nothing is said of what else might be better."""
DECOMPOSED = 2**10
"""Dimension up to which low rank is compared: its error takes one SVD, well under a second."""
FITTED = 2**8
"""Dimension up to which an MPO is fitted for comparison."""
FIT_SWEEPS = 5

EXACT_COST, TRUNCATED_COST = (4.0, 30.0), (0.2, 2.0)
"""The least and the most by which the time of a sweep exceeds the engine's estimate.

Most sweeps are ten iterations of L-BFGS. An engine that truncates is estimated at its largest bond
dimension and begins at a smaller one.
"""
TRIED = 0.01
"""Estimate of the engine, in seconds, up to which sweeps are timed before a search."""
TRIAL_RECORDS, TRIAL_SECONDS = 3, 3.0
"""A trial has so many sweeps, or stops at the first one after so many seconds."""

POINTER = "The printed result and its remarks say what to do."
"""Logged after the beginnings of the remarks, which the printed result shows."""

_logged: ContextVar[bool] = ContextVar("remarks_are_logged", default=True)


@contextmanager
def without_remarks() -> Iterator[None]:
    """Do not log remarks and estimates of the searches inside, steps of a larger computation."""
    token = _logged.set(False)
    try:
        yield
    finally:
        _logged.reset(token)


def log_remarks(found: Disentangled) -> None:
    """Warn that a result has remarks: their beginnings, and all of them where the log is followed.

    Who prints the result would otherwise read them twice.
    """
    if not found.remarks or not _logged.get():
        return
    if log.isEnabledFor(logging.INFO):
        log.warning("%s", "\n".join(found.remarks))
    else:
        beginnings = [remark.partition(":")[0] for remark in found.remarks]
        log.warning("%s", ". ".join([*beginnings, POINTER]))


# --- at the start


def expectations(search: Search) -> tuple[str, ...]:
    """What truncation alone would lose, and about how long the search may take.

    Nothing of searches that are steps of a larger computation.
    """
    if not _logged.get():
        return ()
    problem, said = search.problem, []
    if problem.initial is None:
        core = search.first_core
        known = [f"overlap {number(tensors_overlap(problem.unit, core), 3)}"]
        if problem.covariance is not None and problem.size <= DECOMPOSED:
            known.append(
                f"relative error of the activations {number(_activation_error(problem, core), 3)}"
            )
        said.append(
            f"truncation alone, to bond dimension {search.options.max_bond}: {', '.join(known)}"
        )
    limit = search.options.max_seconds
    if limit is not None:
        said.append(
            f"it ends after max_seconds={limit:g} at the latest; at most {search.total:,} sweeps, "
            "and then the best circuits with some gates turned, as long as that pays"
        )
        return tuple(said)
    most = f"at most {search.total:,} sweeps"
    if search.estimate.seconds <= TRIED:
        seconds = seconds_of_sweep(search)
        said.append(
            f"{most}, about {_time(seconds * search.sweeps)} at {_time(seconds)} a sweep "
            "of all gates; less where it converges before"
        )
    else:
        cost = EXACT_COST if search.estimate.exact else TRUNCATED_COST
        low, high = (search.estimate.seconds * search.sweeps * factor for factor in cost)
        said.append(
            f"{most}, {_time(low)} to {_time(high)} by the engine's estimate; less where it "
            "converges before"
        )
    return tuple(said)


def seconds_of_sweep(search: Search) -> float:
    """How long a sweep of the whole circuits takes here, by the slower of the ways to update.

    Some sweeps are timed, from gates near the identity.
    """
    able = {
        "sweeps": len(search.loss.polar_sides) == 2,
        "lbfgs": ENGINES[search.options.engine].exact,
    }
    wanted = (search.options.method,) if search.options.method != "auto" else tuple(able)
    methods = [method for method in wanted if able[method]] or wanted
    return max(_seconds_of_trial(search, method) for method in methods)


def _seconds_of_trial(search: Search, method: str) -> float:
    """The median time of a record of a short search of the whole circuits by one method."""
    options = replace(
        search.options,
        init="identity",
        n_init=1,
        method=method,
        max_sweeps=TRIAL_RECORDS,
        max_seconds=None,
        tol=0.0,
        environment_bond=search.options.environment_bond[-1:],  # the slowest of a schedule
    )
    trial = type(search)(search.problem, options, search.objective)
    trial.interrupted = search.interrupted
    began = last = time.perf_counter()
    taken = []
    for _ in trial.run(trial.begin()):
        now = time.perf_counter()
        taken.append(now - last)
        last = now
        if search.interrupted() or (now - began > TRIAL_SECONDS and len(taken) > 1):
            break
    return median(taken[1:] or taken)  # the first record builds the engine


def _activation_error(problem: Problem, core: Sequence[np.ndarray]) -> float:
    """Relative error of the activations with a core in place of the operator, at its best norm."""
    target, found = (crop(tensors_to_dense(x), problem.shape) for x in (problem.unit, core))
    whole, size = (inner(x, x, problem.covariance) for x in (target, found))
    if not whole * size > 0:
        return 1.0
    return _error_at_overlap(inner(target, found, problem.covariance) / math.sqrt(whole * size))


def _time(seconds: float) -> str:
    """A time to one or two digits, as a person says it."""
    if seconds < 0.1:
        return f"{1000 * seconds:.2g} ms"
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 1.5 * size:
            return (
                f"{seconds / size:.2g} {unit}"
                if seconds < 10 * size
                else f"{seconds / size:,.0f} {unit}"
            )
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


# --- at the end


def remarks(problem: Problem, objective: Objective, found: Disentangled) -> tuple[str, ...]:
    """What does not work in a result, one sentence or two each.

    Parameters
    ----------
    problem : Problem
    objective : Objective
        What was minimised. Alternatives are compared for `Overlap` and `Activations` only.
    found : Disentangled
        Its own remarks are not read.

    Returns
    -------
    tuple of str
        Empty where nothing is wrong. The part of each before its first colon names what is wrong.
    """
    if _is_cut_short(problem, found):
        return (_of_time(problem, found),)
    said = [
        _of_entropies(problem, objective, found),
        _of_the_operator(found),
        _of_activations(found, objective),
        _of_core(problem, objective, found),
        _of_little(problem, objective, found),
        _of_alternatives(problem, objective, found),
    ]
    return tuple(sentence for sentence in said if sentence)


def _is_cut_short(problem: Problem, found: Disentangled) -> bool:
    """Whether there was no time for the figures that need decompositions of the operator."""
    return len(problem.legs) > 1 and bool(np.isnan(found.entropies_before).all())


def _of_time(problem: Problem, found: Disentangled) -> str:
    rows, columns = problem.shape
    return (
        f"max_seconds={found.options.max_seconds:g} is too short for a {rows:,} x {columns:,} "
        "operator: after reading it no time was left for bound and entropies, nor for a comparison "
        "with low rank. Raise it; init=<this result> goes on with what "
        "was found."
    )


def _of_entropies(problem: Problem, objective: Objective, found: Disentangled) -> str:
    before, after = found.entropies_before, found.entropies_after
    if not before.size or not np.isfinite([*before, *after]).all():
        return ""
    low, high = float(before.mean()), float(after.mean())
    if high - low <= RISE:
        return ""
    said = f"The circuits entangle the operator: S_avg rises from {low:.2f} to {high:.2f} nats"
    if isinstance(objective, Activations):
        return (
            f"{said}. The objective is the error of the activations, which ignores entanglement; "
            "objective='overlap' or init='entropic' lowers S_avg."
        )
    if problem.size > ENTROPIC:
        return f"{said}. Use more layers (depth=), a larger max_bond, or more sweeps (max_sweeps)."
    return (
        f"{said}. Use more layers (depth=), a larger max_bond, or init='entropic', or order the "
        "neurons first (mpodis.neuron_order)."
    )


def _of_the_operator(found: Disentangled) -> str:
    if not found.relative_error > 1.0:
        return ""
    said = (
        f"As an operator a zero matrix is better: the relative error is {found.relative_error:.2f},"
        " that of zero is 1."
    )
    if not found.activation_error <= LITTLE:
        return f"{said} Use more layers (depth=) or a larger max_bond."
    return (
        f"{said} Only for inputs like those that were given does it come near the layer (relative "
        f"error {found.activation_error:.2f} of their activations); if it must hold for others, "
        "use objective='overlap', or give more of them."
    )


def _of_activations(found: Disentangled, objective: Objective) -> str:
    if not found.activation_error > 1.0:
        return ""
    remedy = "objective='activations'"
    if isinstance(objective, Activations):
        remedy = "more layers (depth=) or a larger max_bond"
    return (
        f"For the given inputs a zero matrix is better: the relative error of the activations is "
        f"{found.activation_error:.2f}, that of zero is 1. Use {remedy}."
    )


def _of_core(problem: Problem, objective: Objective, found: Disentangled) -> str:
    """Whether a core that is not updated is what keeps the overlap down."""
    kept = found.options.core
    if kept == "update" or not isinstance(objective, Overlap) or min(problem.shape) == 1:
        return ""
    error = _error_at_overlap(found.overlap)
    if error < SMALL:
        return ""
    said = []
    if _error_at_overlap(found.bound) >= HALF * error:  # not where the bound is unknown, NaN
        said.append(f"no circuits around it have more than {number(found.bound, 3)}")
    if problem.size <= FITTED:
        fitted = _overlap_of_fitted_core(problem, found)
        if _error_at_overlap(fitted) <= CLEARLY * error:
            said.append(f"one fitted to these circuits has f = {number(fitted, 3)} at least")
    if not said:
        return ""
    return (
        f"The core, which core={kept!r} keeps, limits the overlap, f = {number(found.overlap, 3)}: "
        f"{', and '.join(said)}. Use core='update'."
    )


def _error_at_overlap(overlap: float) -> float:
    """Relative error of an operator of overlap f, with the best norm of its core."""
    return math.sqrt(max(0.0, 1.0 - overlap**2))


def _overlap_of_fitted_core(problem: Problem, found: Disentangled) -> float:
    """f with the gates that were found and a core that is fitted to them."""
    parts = found.factorization
    pulled = sandwich(parts.left.adjoint(), tensors_to_dense(problem.unit), parts.right.adjoint())
    core = site_tensors(parts.core)
    bond = max(bond_dimensions(core), default=1)
    fitted = fit_tensors(pulled, core, max_bond=bond, max_sweeps=FIT_SWEEPS)
    return dense_overlap(pulled, tensors_to_dense(fitted))


def _of_little(problem: Problem, objective: Objective, found: Disentangled) -> str:
    """Whether the measure that was optimised is hardly better than that of a zero matrix."""
    measured = _optimised(problem, objective, found)
    if measured is None or not measured[1] > LITTLE:
        return ""
    what, error = measured
    wants = "use more layers (depth=) or a larger max_bond"
    if isinstance(objective, Overlap):
        wants += "; for a layer whose inputs are known, objective='activations' asks for less"
    return (
        f"Little of the layer is left: the relative error of {what} is {error:.2f}, that of a zero "
        f"matrix is 1. {wants[0].upper()}{wants[1:]}."
    )


def _optimised(
    problem: Problem, objective: Objective, found: Disentangled
) -> tuple[str, float] | None:
    """What was optimised, and its relative error; None for an objective that is not known here.

    With the best norm of the core the squared error of an operator of overlap f is 1 - f^2.
    """
    if isinstance(objective, Overlap):
        error = _error_at_overlap(found.overlap)
        cropped = found.relative_error  # without the errors in the zero padding
        return "the operator", error if math.isnan(cropped) else min(error, cropped)
    if not isinstance(objective, Activations):
        return None
    what = "the activations"
    if problem.sensitivity is not None:
        what += ", weighted by the sensitivity,"
    return what, math.sqrt(max(0.0, found.loss))


# --- alternatives of at most as many parameters


def _low_rank_error(problem: Problem, rank: int, *, weighted: bool) -> float:
    """The lowest error of a matrix of a rank (Eckart and Young); see `_mpo_error`."""
    matrix = crop(tensors_to_dense(problem.unit), problem.shape)
    if weighted and problem.sensitivity is not None:
        matrix = matrix @ metric_root(problem.sensitivity)
    if weighted and problem.covariance is not None:
        gram = matrix.conj().T @ (problem.covariance @ matrix)
        weights = np.linalg.eigvalsh(gram).clip(min=0)
    else:
        weights = np.linalg.svd(matrix, compute_uv=False)[::-1] ** 2
    return math.sqrt(weights[: max(0, len(weights) - rank)].sum() / weights.sum())


def _mpo_error(problem: Problem, bond: int, *, weighted: bool) -> float:
    """Error of an MPO of a bond dimension without circuits, fitted under the covariance.

    The error is |C (M - A) S| / |C M S| if it is weighted, else |M - A| / |M|.
    """
    covariance = problem.covariance if weighted else None
    core, error = truncate_tensors(problem.unit, max_bond=bond)
    if problem.size > FITTED:  # for the overlap only, see `_of_alternatives`
        return error
    dense = tensors_to_dense(problem.unit)
    metric = None if covariance is None else embed_metric(covariance, len(dense))
    core = fit_tensors(dense, core, max_bond=bond, metric=metric, max_sweeps=FIT_SWEEPS)
    if covariance is None:
        return _error_at_overlap(tensors_overlap(problem.unit, core))
    a, b = (crop(tensors_to_dense(x), problem.shape) for x in (problem.unit, core))
    return math.sqrt(max(0.0, weighted_loss(a, b, covariance, problem.sensitivity)))


def _of_alternatives(problem: Problem, objective: Objective, found: Disentangled) -> str:
    """Whether low rank or a plain MPO of at most as many parameters has a lower error."""
    measured = _optimised(problem, objective, found)
    if measured is None or problem.size > DECOMPOSED:
        return ""
    if min(problem.shape) == 1:
        return ""  # a state, which nobody replaces by a smaller layer
    what, error = measured
    if error < SMALL:
        return ""
    weighted = isinstance(objective, Activations)
    parameters = sum(found.factorization.parameter_counts().values())
    if parameters >= math.prod(problem.shape):
        return (
            f"Circuits and core have {parameters:,} parameters, the matrix has "
            f"{math.prod(problem.shape):,}: this does not make the layer smaller."
        )
    others = []
    if parameters >= sum(problem.shape):
        rank = rank_for(parameters, problem.shape, below=True)
        low = f"a matrix of rank {rank} ({rank * sum(problem.shape):,} parameters)"
        others.append((_low_rank_error(problem, rank, weighted=weighted), low, "mpodis.low_rank"))
    can_fit = isinstance(objective, Overlap) or problem.size <= FITTED
    if can_fit and parameters >= mpo_parameters(problem.legs, 1):
        bond = bond_for(parameters, problem.legs, below=True)
        # at its own bond dimension the MPO is the operator that was given
        if bond < max(bond_dimensions(problem.unit), default=1):
            count = mpo_parameters(problem.legs, bond)
            plain = f"an MPO of bond dimension {bond} without circuits ({count:,})"
            error_of_mpo = _mpo_error(problem, bond, weighted=weighted)
            others.append((error_of_mpo, plain, "mpodis.truncated_mpo"))
    better = [(e, name, by) for e, name, by in others if e <= CLEARLY * error]
    if not better:
        return ""
    least, name, by = min(better)
    return (
        f"With no more parameters than these {parameters:,}, {name} is better: its relative error "
        f"of {what} is {least:.3f}, that of the circuits {error:.3f}. As a smaller layer, use "
        f"{by} instead; for circuits, {_what_helps(objective, found, least)}."
    )


def _what_helps(objective: Objective, found: Disentangled, error: float) -> str:
    """Which of depth and core holds the circuits back, as far as the bound says it."""
    order = "order the neurons first (mpodis.neuron_order)"
    if isinstance(objective, Overlap) and found.bound**2 < 1.0 - error**2:
        way = "raise max_bond" if found.options.core == "update" else "use core='update'"
        return f"{way} (no depth does better with this core), or {order}"
    return f"use more layers (depth=), a larger max_bond, or {order}"
