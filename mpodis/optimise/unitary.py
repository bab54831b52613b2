"""The circuit nearest to a unitary: the operator is the target, the core the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpodis.arguments import random_generator
from mpodis.circuit import Ansatz, Circuit, circuit_group, random_circuit
from mpodis.environments.protocol import Environments
from mpodis.environments.registry import dense_engine
from mpodis.mpo import compress
from mpodis.objectives import OverlapLoss
from mpodis.optimise.descend import Budget, Descent
from mpodis.optimise.state import State
from mpodis.sites import site_tensors

__all__ = ["UnitaryFit", "approximate_unitary"]

NEAR = 1e-3
"""1 - f below which an initial guess is followed until it is exact."""
STALLED, STALLED_NEAR = 1e-3, 1e-6
"""Relative gains over `Budget.window` sweeps that end a descent, far from and near the target."""


@dataclass(frozen=True)
class UnitaryBudget(Budget):
    """Descents that end early, unless they come near the target."""

    def stalled(self, before: float, now: float) -> bool:
        return before - now < (STALLED if now > NEAR else STALLED_NEAR) * before


class UnitaryLoss(OverlapLoss):
    """1 - f where the core stays the identity."""

    def scaled_core(self, engine: Environments) -> list:
        return list(engine.core)


@dataclass(frozen=True, eq=False)
class UnitaryFit:
    """The circuit that `approximate_unitary` has found.

    Attributes
    ----------
    circuit : Circuit
    overlap, bound : float
        f = Re Tr(W^H Q) / 2^n, and the most that circuits of this determinant can reach.
    n_init, sweeps : int
        Initial guesses and sweeps that it took, ten L-BFGS iterations counting as a sweep.
    """

    circuit: Circuit
    overlap: float
    bound: float
    n_init: int
    sweeps: int


def approximate_unitary(
    target: np.ndarray,
    ansatz: Ansatz,
    *,
    n_init: int,
    max_sweeps: int,
    tol: float = 1e-10,
    seed: int | Sequence[int] | np.random.Generator = 0,
) -> UnitaryFit:
    """Maximise f = Re Tr(W^H Q) / 2^n from one initial guess after the other, until one is exact.

    Parameters
    ----------
    target : array (2^n, 2^n)
        W, real unless the group of the ansatz is "U".
    ansatz : Ansatz
    n_init, max_sweeps : int
        The most initial guesses, and the most sweeps from each.
    tol : float
        1 - f at which the target counts as reproduced.
    seed : int, sequence of int, or numpy Generator
    """
    n, nothing = ansatz.n, Ansatz(ansatz.n, (), ansatz.group)
    dtype = np.complex128 if ansatz.group == "U" else np.float64
    core = [np.eye(2, dtype=dtype).reshape(1, 2, 2, 1)] * n
    loss = UnitaryLoss(site_tensors(compress(target.astype(dtype)).mpo))
    engine = dense_engine(loss.target, ((2, 2),) * n, ansatz, nothing)
    descent = Descent(loss, engine, ansatz, nothing, core=False)
    bound = 1.0
    if circuit_group(ansatz) == "SO" and np.linalg.det(np.real(target)) < 0:
        bound = 1.0 - 2.0 / 2**n
    budget = UnitaryBudget(
        max_sweeps,
        window=20,
        handover=0.02 / 0.98,  # 2 % of the loss before the sweep
        alternate=False,
        exact=0.1 * tol,
        floor=1.0 - bound,
        rounding=1e-16,
    )
    rng = random_generator(seed)

    def place(state: State) -> None:
        circuit = random_circuit(ansatz, seed=rng, scale=_scale(state.guess))
        engine.set(circuit.gates, core, [])

    def enough(state: State) -> bool:
        margin = max(tol, NEAR) if bound < 1.0 else tol
        return state.best_loss <= 1.0 - bound + margin

    state = State(names=list(range(n_init)))
    for _ in descent.explore(state, budget, place, n_init, enough=enough):
        pass
    assert state.best is not None
    assert state.best.point is not None
    circuit = Circuit(ansatz, tuple(state.best.point.left)).projected()
    overlap = float(np.vdot(target, circuit.to_dense()).real) / 2**n
    tried = state.guess + 1
    return UnitaryFit(circuit, overlap, bound, tried, len(state.records) - tried)


def _scale(guess: int) -> float | None:
    """Size of the generators of an initial guess: small, larger, and every third one random."""
    return None if guess % 3 == 2 else (0.01, 0.3)[guess % 3]
