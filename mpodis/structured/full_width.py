"""The best found with gates as wide as the operator: a reference for narrower circuits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.conventions import padded_shape, wires
from mpodis.environments import DenseEnvironments
from mpodis.factorization import Factorization
from mpodis.fit import fit_core, mask_padding
from mpodis.gates import polar, polar_update
from mpodis.mpo import Compressed
from mpodis.objectives import ActivationsLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.sites import (
    left_canonical,
    legs_of,
    mpo_from_tensors,
    mpo_legs,
    site_tensors,
    spread_norm,
    tensors_to_dense,
)
from mpodis.structured.bounds import weighted_bound
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["FullWidth", "full_width"]


@dataclass(frozen=True, eq=False)
class FullWidth(Tabular):
    """The best found for circuits of one gate a side, as wide as the operator.

    Attributes
    ----------
    loss : float
        |C (M - A) S|^2 / |C M S|^2. A reference for narrower circuits, not a bound on them.
    bound : float
        `weighted_bound` of its core, which is below.
    start : str
        Where the search that found it began.
    factorization : Factorization
    """

    loss: float
    bound: float
    start: str
    factorization: Factorization

    def table(self) -> Table:
        rows = [
            ("loss, best found for full-width circuits", self.loss),
            ("loss, lower bound at its core", self.bound),
            ("relative error of the activations", math.sqrt(self.loss)),
            ("start", self.start),
        ]
        return Table(("full-width circuits", "value"), rows)


def full_width(
    target: MatrixProductOperator | Compressed,
    core: MatrixProductOperator | int,
    *,
    update: bool = True,
    covariance=None,
    sensitivity=None,
    shape: tuple[int, int] | None = None,
    group: str = "SO",
    n_init: int = 3,
    iterations: int = 300,
    seed: int | np.random.Generator = 0,
) -> FullWidth:
    """Look for the lowest loss of the activations with gates as wide as the operator.

    From singular vectors of core and operator that are aligned, which is the best there is
    without moments, from those of C^2 M S^2, from the identity and then from random gates:
    closed-form steps of what has them, then Riemannian L-BFGS over both gates (and the core).

    Parameters
    ----------
    target : MatrixProductOperator or Compressed
        The operator M on qubit legs.
    core : MatrixProductOperator or int
        M', or its bond dimension: it is then fitted to M without circuits.
    update : bool
        Optimise the core at its bond dimension too; otherwise only its norm.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `target` does not know it.
    group : {"SO", "O", "U"}
    n_init, iterations : int
        Starts that are tried, and the most L-BFGS iterations from each.
    seed : int or numpy Generator
        Of the random gates.
    """
    if n_init < 1:
        raise ValueError(f"n_init={n_init} must be 1 or more")
    if isinstance(target, Compressed):
        target, shape = target.mpo, shape or target.shape
    tensors, log_norm = left_canonical(site_tensors(target))
    legs = legs_of(tensors)
    shape = padded_shape(legs) if shape is None else shape
    metric = np.eye(shape[0]) if covariance is None else covariance
    felt = mask_padding(sensitivity, shape[1], legs)
    if isinstance(core, int | np.integer):
        core = fit_core(target, max_bond=int(core), metric=metric)
    if mpo_legs(core) != legs:
        raise ValueError(f"the core has legs {mpo_legs(core)}, the operator {legs}")
    objective = ActivationsLoss(spread_norm(tensors, 0.0), metric, felt)
    first = site_tensors(core)
    sides = [_one_gate(len(wires(legs, side)), group) for side in ("left", "right")]
    rng, found = np.random.default_rng(seed), []
    for number in range(n_init):
        name, gates = _start(number, objective, tensors_to_dense(first), sides, rng)
        engine = DenseEnvironments(objective.target, legs, *sides)
        engine.set(gates[0], first, gates[1])
        loss = _descend(objective, engine, sides, update, iterations)
        found.append((loss, name, list(engine.left), list(engine.core), list(engine.right)))
    loss, name, left, core, right = min(found, key=lambda one: one[0])
    core, log_size = left_canonical(core)
    core = mpo_from_tensors(spread_norm(core, log_size + log_norm))
    circuits = (Circuit(side, gates) for side, gates in zip(sides, (left, right), strict=True))
    left, right = circuits
    bound = weighted_bound(
        target, core, covariance=covariance, sensitivity=sensitivity, shape=shape
    )
    return FullWidth(loss, bound, name, Factorization(left, core, right, tuple(shape)))


def _descend(objective: ActivationsLoss, engine, sides, update: bool, iterations: int) -> float:
    """Rounds of closed forms and L-BFGS, the norm of a fixed core set anew in between."""
    updates = {
        side: partial(polar_update, group=ansatz.group)
        for side, ansatz in zip(("left", "right"), sides, strict=True)
    }
    engine.set(core=objective.scaled_core(engine))
    loss = objective.value(engine)
    for _ in range(10):
        before = loss
        objective.sweep(engine, updates, core=update)
        engine.set(core=objective.scaled_core(engine))
        Lbfgs(objective, engine, *sides, free_core=update).run(iterations)
        _realign(objective, engine, sides)
        loss = objective.value(engine)
        if before - loss < 1e-3 * before:
            break
    return loss


def _realign(objective: ActivationsLoss, engine, sides) -> None:
    """Align the singular vectors anew with those of a core that has changed, where it helps."""
    kept = (engine.left, engine.core, engine.right)
    loss = objective.value(engine)
    for number in (0, 1):
        core = tensors_to_dense(kept[1])
        left, right = _start(number, objective, core, sides, None)[1]
        engine.set(left, kept[1], right)
        engine.set(core=objective.scaled_core(engine))
        if objective.value(engine) < loss:
            kept, loss = (engine.left, engine.core, engine.right), objective.value(engine)
    engine.set(*kept)


def _one_gate(n: int, group: str) -> Ansatz:
    return Ansatz(n, ((Placement(tuple(range(n))),),) if n else (), group)


def _start(number: int, objective: ActivationsLoss, core, sides, rng) -> tuple[str, list]:
    """Name of a start, and the gates of both sides."""
    if number > 2:
        return f"random {number - 2}", [random_circuit(side, seed=rng).gates for side in sides]
    if number == 2:
        return "identity", [random_circuit(side, seed=rng, scale=0.0).gates for side in sides]
    name = "aligned" if number == 0 else "aligned with what is felt"
    u, _, vh = np.linalg.svd(objective.matrix if number == 0 else objective.target)
    u_core, _, vh_core = np.linalg.svd(core)
    left = _aligned(u, u_core, sides[0])
    right = [gate.conj().T for gate in _aligned(vh.conj().T, vh_core.conj().T, sides[1])]
    return name, [left, right]


def _aligned(of_target, of_core, side: Ansatz) -> list:
    """The gate of the group that takes a core's singular vectors to the target's, if there is one.

    A determinant of -1 is mended where the singular value is smallest.
    """
    if not side.n:
        return []
    if side.group == "U":
        return [(of_target @ of_core.conj().T).astype(complex)]
    of_target, of_core = of_target.real, of_core.real  # all of it, of a real operator
    if side.group == "SO" and np.linalg.det(of_target) * np.linalg.det(of_core) < 0:
        of_target = np.column_stack([of_target[:, :-1], -of_target[:, -1]])
    return [polar(of_target @ of_core.T, group=side.group)]
