"""Where a run begins: circuits near the identity or random, and the core that fits them best."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import random_circuit
from mpodis.conventions import padded_shape
from mpodis.environments.protocol import Environments
from mpodis.fit import fit_core, pad_bonds
from mpodis.gates import random_gate
from mpodis.mpo import truncate
from mpodis.objectives import Objective
from mpodis.optimise.entropic import lower_entropies
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.settings import Settings
from mpodis.sites import legs_of, mpo_from_tensors, site_tensors, tensors_to_dense

__all__ = ["first_core", "place_start"]

FITTED = 2**11
"""Dimension up to which the first core is fitted through the dense matrix."""


def first_core(tensors: Sequence, settings: Settings) -> list:
    """Core for trivial circuits: the paper's truncation if it stays fixed, else its ALS fit."""
    mpo = mpo_from_tensors(list(tensors))
    core = truncate(mpo, max_bond=settings.max_bond).mpo
    if settings.core == "update" and max(padded_shape(legs_of(tensors))) <= FITTED:
        core = fit_core(mpo, max_bond=settings.max_bond, init=core)
    core = site_tensors(core)
    return pad_bonds(core, settings.max_bond) if settings.core == "update" else core


def place_start(
    number: int,
    stream: int,
    engine: Environments,
    objective: Objective,
    problem: Problem,
    first: Sequence | Point,
    settings: Settings,
) -> None:
    """Put the engine at start `number` of the multi-start.

    Every start has a random `stream` of its own, and does not depend on the others. Of near
    identity starts, the later ones reach further out: `scale` times 1, 2, 4, ... Around a point
    that is given, start 0 is the point itself and the others are near it in the same way.

    Parameters
    ----------
    first : list of site tensors, or Point
        The core to begin with, or gates and core.
    """
    rng = np.random.default_rng([settings.seed, stream])
    if isinstance(first, Point):
        kick = settings.init_scale * 2 ** (number - 1) if number else 0.0
        gates = [
            _near(getattr(first, side), getattr(problem, side), kick, rng)
            for side in ("left", "right")
        ]
        engine.set(gates[0], first.core, gates[1])
        engine.set(core=objective.scaled(engine))
        return
    scale = None if settings.init == "random" else settings.init_scale * 2**number
    sides = (problem.left, problem.right)
    left, right = (list(random_circuit(a, seed=rng, scale=scale).gates) for a in sides)
    if settings.init == "entropic":
        matrix = tensors_to_dense(problem.tensors)
        ansatze = {"left": problem.left, "right": problem.right}
        found = lower_entropies(matrix, problem.legs, ansatze, {"left": left, "right": right})
        left, right = found["left"], found["right"]
    dtype = np.result_type(*first, *left, *right)
    engine.set(left, [np.asarray(site, dtype=dtype) for site in first], right)
    if settings.core == "update" and settings.init in ("random", "entropic"):
        # a core made for trivial circuits says nothing about other ones
        engine.set(core=objective.best_core(engine))
    engine.set(core=objective.scaled(engine))


def _near(gates: Sequence, ansatz: Ansatz, scale: float, rng: np.random.Generator) -> list:
    """The gates, each free one moved by exp of a Gaussian generator of size `scale`."""
    if not scale:
        return list(gates)
    moved = list(gates)
    for numbers in ansatz.free:
        first = gates[numbers[0]]
        kick = random_gate(len(first), group=ansatz.group, rng=rng, scale=scale)
        for j in numbers:
            moved[j] = gates[j] @ kick
    return moved
