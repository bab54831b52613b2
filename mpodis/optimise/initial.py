"""Initial guesses: circuits near the identity or random, and the core that fits them best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mpodis.circuit import Ansatz, random_circuit
from mpodis.environments.protocol import Environments
from mpodis.fit import fit_core, pad_bonds
from mpodis.gates import random_gate
from mpodis.mpo import truncate
from mpodis.objectives import Loss
from mpodis.optimise.entropic import lower_entropies
from mpodis.optimise.problem import Point, Problem
from mpodis.options import SearchOptions
from mpodis.progress import Deadline
from mpodis.sites import identity_tensors, mpo_from_tensors, site_tensors, tensors_to_dense

__all__ = ["first_core", "place_initial_guess"]

FITTED = 2**11
"""Dimension up to which the first core is fitted through the dense matrix."""
FIT_SHARE = 0.2
"""Part of a limited time that this fit may take."""
ENTROPIC_SHARE = 0.5
"""Part of the time left that lowering the entropies of one initial guess may take."""


def first_core(problem: Problem, options: SearchOptions) -> list:
    """The core for trivial circuits: the truncated operator, its ALS fit, or the identity."""
    if options.core == "identity":
        return identity_tensors(problem.legs)
    mpo = mpo_from_tensors(problem.unit)
    core = truncate(mpo, max_bond=options.max_bond).mpo
    if options.core == "update" and problem.size <= FITTED:
        limit = None if options.max_seconds is None else FIT_SHARE * options.max_seconds
        core = fit_core(mpo, max_bond=options.max_bond, init=core, max_seconds=limit)
    tensors = site_tensors(core)
    return pad_bonds(tensors, options.max_bond) if options.core == "update" else tensors


def place_initial_guess(
    guess: int,
    name: int,
    engine: Environments,
    loss: Loss[Any],
    problem: Problem,
    options: SearchOptions,
    *,
    around: Point | None,
    core: Sequence,
    deadline: Deadline | None = None,
) -> None:
    """Put the engine at an initial guess.

    Each has a random stream of its own, by its `name`, and does not depend on the others. Later
    guesses near the identity are further away from it: `init_scale` times 1, 2, 4, ... Around a
    point that is given, guess 0 is the point itself and the others lie around it in the same way.

    Parameters
    ----------
    guess : int
        Number of the initial guess in its stage.
    name : int
        Of the whole search.
    around : Point, optional
        The point that is given.
    core : sequence of arrays
        The core to begin with, see `first_core`.
    deadline : Deadline, optional
        Of the search; `lower_entropies` ends where half of the time left has gone by.
    """
    deadline = Deadline() if deadline is None else deadline
    rng = np.random.default_rng([options.seed, name])
    ansatze = (problem.left, problem.right)
    fitted = options.core == "update" and options.init in ("random", "entropic")
    if around is not None:
        scale = options.init_scale * 2 ** (guess - 1) if guess else 0.0
        left, right = (
            _perturbed(gates, ansatz, scale, rng)
            for gates, ansatz in zip((around.left, around.right), ansatze, strict=True)
        )
        fitted = not around.core and options.core == "update"
        core = around.core or core
    else:
        scale = None if options.init == "random" else options.init_scale * 2**guess
        left, right = (list(random_circuit(a, seed=rng, scale=scale).gates) for a in ansatze)
        if options.init == "entropic":
            matrix, sides = tensors_to_dense(problem.tensors), ("left", "right")
            found = lower_entropies(
                matrix,
                problem.legs,
                dict(zip(sides, ansatze, strict=True)),
                {"left": left, "right": right},
                deadline=deadline.part(ENTROPIC_SHARE),
            )
            left, right = found["left"], found["right"]
    dtype = np.result_type(*core, *left, *right, *problem.tensors)
    engine.set(left, [np.asarray(tensor, dtype=dtype) for tensor in core], right)
    if fitted:
        # a core made for trivial circuits is a poor guess for others
        engine.set(core=loss.best_core(engine))
    engine.set(core=loss.scaled_core(engine))


def _perturbed(gates: Sequence, ansatz: Ansatz, scale: float, rng: np.random.Generator) -> list:
    """The gates, each free one moved by exp of a Gaussian generator of size `scale`."""
    moved = list(gates)
    if not scale:
        return moved
    for numbers in ansatz.free:
        first = gates[numbers[0]]
        step = random_gate(len(first), group=ansatz.group, rng=rng, scale=scale)
        for j in numbers:
            moved[j] = gates[j] @ step
    return moved
