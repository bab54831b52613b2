"""What a run needs before its first sweep: an engine that fits, and second moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mpodis.conventions import padded_shape
from mpodis.environments import EngineOptions, choose
from mpodis.environments.dense.engine import LIMIT
from mpodis.fit import mask_padding
from mpodis.optimise.problem import Problem
from mpodis.optimise.settings import Settings
from mpodis.sites import bond_dimensions

__all__ = ["engine_options", "moments", "with_engine"]

PULLED = 2**11
"""Dimension of the operators whose entropies a start can look at."""


def with_engine(problem: Problem, settings: Settings, tensors: Sequence, executor=None) -> Settings:
    """Settings with an engine and a method that fit; refuses what does not."""
    if problem.left.ties or problem.right.ties:
        if settings.method == "sweeps":
            raise ValueError(
                "method='sweeps' has no closed form for tied gates, whose environments depend on "
                "each other; use method='auto'"
            )
        settings = replace(settings, method="lbfgs")
    if settings.init == "entropic" and max(padded_shape(problem.legs)) > PULLED:
        raise ValueError(
            f"init='entropic' needs the dense operator, and a dimension of "
            f"{max(padded_shape(problem.legs))} is beyond {PULLED}; use init='identity'"
        )
    if settings.objective == "activations":
        size = max(padded_shape(problem.legs))
        if size > LIMIT:
            raise ValueError(
                f"objective='activations' needs the dense operator, and a dimension of {size} "
                f"is beyond {LIMIT}; use objective='overlap'"
            )
        return replace(settings, engine="dense")
    estimate = choose(
        problem.legs,
        problem.left,
        problem.right,
        target_bonds=bond_dimensions(tensors),
        max_bond=settings.max_bond,
        complex=any(core.dtype.kind == "c" for core in tensors)
        or "U" in (problem.left.group, problem.right.group),
        options=engine_options(settings, executor),
        engine=settings.engine,
    )
    return replace(settings, engine=estimate.engine)


def engine_options(settings: Settings, executor=None) -> EngineOptions:
    return EngineOptions(
        environment_bond=settings.environment_bond[-1],  # where the schedule may end
        dtype=settings.dtype,
        device=settings.device,
        memory=settings.memory,
        seed=settings.seed,
        executor=executor,
    )


def moments(problem: Problem) -> tuple:
    """Second moments of the inputs and of the gradients at the outputs."""
    if problem.covariance is None:
        raise ValueError(
            "objective='activations' needs to know the layer's inputs; give inputs= (samples, "
            "features) or covariance=, their second moment"
        )
    sensitivity = mask_padding(problem.sensitivity, problem.shape[1], problem.legs)
    groups = {problem.left.group, problem.right.group}
    if "U" in groups or any(core.dtype.kind == "c" for core in problem.tensors):
        return problem.covariance, sensitivity
    # a real error feels only the real part, and the core shall stay real
    return problem.covariance.real, None if sensitivity is None else sensitivity.real
