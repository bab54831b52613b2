"""Initial guesses: circuits near the identity, random, around given ones, or kicked from the best.

The core of a guess is the one that fits its circuits best, as far as there is time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mpodis.circuit import Ansatz, random_circuit
from mpodis.environments.protocol import Environments
from mpodis.fit import fit_tensors, pad_bonds
from mpodis.gates import random_gate
from mpodis.mpo import truncate_tensors
from mpodis.objectives import Loss
from mpodis.optimise.entropic import lower_entropies
from mpodis.optimise.problem import Point, Problem
from mpodis.options import SearchOptions
from mpodis.progress import Deadline
from mpodis.sites import identity_tensors, tensors_to_dense

__all__ = [
    "ENTROPIC",
    "KICK_PATIENCE",
    "KICK_SHARES",
    "first_core",
    "kicked",
    "perturbed",
    "place_initial_guess",
]

ENTROPIC = 2**11
"""Largest dimension of an operator whose entropies an initial guess can lower."""
ENTROPIC_SHARE = 0.5
"""Part of the time left that lowering the entropies of one initial guess may take."""
FITTED = 2**11
"""Dimension up to which the first core is fitted through the dense matrix."""
KICK_SIZE = 1.0
"""Size of the generators that turn the gates of a kick."""
KICK_SHARES = (0.1, 0.25, 1.0)
"""Parts of the gates that one kick after the other turns, again and again."""
KICK_PATIENCE = 3
"""Kicks end when the number of records has grown by this factor since the last gain."""


def first_core(problem: Problem, options: SearchOptions, deadline: Deadline | None = None) -> list:
    """The core for trivial circuits: the truncated operator, its ALS fit, or the identity."""
    if options.core == "identity":
        return identity_tensors(problem.legs)
    core, _ = truncate_tensors(problem.unit, max_bond=options.max_bond)
    if options.core != "update":
        return core
    if problem.size <= FITTED:
        dense = tensors_to_dense(problem.unit)
        core = fit_tensors(dense, core, max_bond=options.max_bond, deadline=deadline)
    return pad_bonds(core, options.max_bond)


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
            perturbed(gates, ansatz, scale, rng)
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


# --- gates that are moved


def perturbed(gates: Sequence, ansatz: Ansatz, scale: float, rng: np.random.Generator) -> list:
    """The gates, each free one moved by exp of a Gaussian generator of size `scale`."""
    return _moved(gates, ansatz.free if scale else [], ansatz.group, scale, rng)


def kicked(gates: Sequence, ansatz: Ansatz, number: int, rng: np.random.Generator) -> list:
    """A kick of the gates: some or all of the free ones, by `number`, turned far at random.

    A descent from there may end in another minimum, which may be lower.
    """
    count = math.ceil(KICK_SHARES[number % len(KICK_SHARES)] * len(ansatz.free))
    chosen = rng.choice(len(ansatz.free), count, replace=False)
    return _moved(gates, [ansatz.free[k] for k in chosen], ansatz.group, KICK_SIZE, rng)


def _moved(
    gates: Sequence,
    free: Sequence[Sequence[int]],
    group: str,
    scale: float,
    rng: np.random.Generator,
) -> list:
    moved = list(gates)
    for numbers in free:
        step = random_gate(len(gates[numbers[0]]), group=group, rng=rng, scale=scale)
        for j in numbers:
            moved[j] = gates[j] @ step
    return moved
