"""The operator, the circuits around it, and what is known of the layer's inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mpodis.arguments import as_shape
from mpodis.arrays import as_numpy
from mpodis.circuit import (
    Ansatz,
    Circuit,
    CircuitLike,
    Placement,
    both_ansatze,
    embed,
    from_quimb,
    identity_circuit,
)
from mpodis.conventions import Legs, padded_shape
from mpodis.factorization import Factorization
from mpodis.fit import embed_metric, pad_bonds
from mpodis.mpo import truncate
from mpodis.objectives import Objective
from mpodis.sites import bond_dimensions, left_canonical, legs_of, site_tensors, spread_norm

__all__ = ["Point", "Problem"]


@dataclass(frozen=True, eq=False)
class Point:
    """Gates of both circuits, and the site tensors of the core.

    An initial guess may leave the core empty: it is then fitted to the gates.
    """

    left: list
    core: list
    right: list

    @classmethod
    def of(cls, engine) -> Point:
        """Where an engine stands."""
        return cls(list(engine.left), list(engine.core), list(engine.right))


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be factorized, M ~ Q_L M' Q_R, and in which form.

    Attributes
    ----------
    tensors : tuple of arrays (left bond, input, output, right bond)
        Site tensors of M, double precision.
    left, right : Ansatz
    shape : (inputs, outputs)
        Before zero padding.
    covariance, sensitivity : array or None
        Second moments of the inputs (padded) and of the loss gradients at the outputs (padded).
    initial : Point or None
        The initial guess, where one is given.

    What follows from these, once and for all:

    legs : tuple of (input, output) dimensions
    unit : list of arrays
        Site tensors of M / |M|, the norm spread over the sites.
    log_norm : float
        log |M|
    size : int
        The larger dimension of the dense operator.
    """

    tensors: tuple
    left: Ansatz
    right: Ansatz
    shape: tuple[int, int]
    covariance: np.ndarray | None = None
    sensitivity: np.ndarray | None = None
    initial: Point | None = None
    legs: Legs = field(init=False)
    unit: list = field(init=False)
    log_norm: float = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        legs, (tensors, log_norm) = legs_of(self.tensors), left_canonical(self.tensors)
        found = {
            "legs": legs,
            "unit": spread_norm(tensors, 0.0),
            "log_norm": log_norm,
            "size": max(padded_shape(legs)),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def is_complex(self) -> bool:
        """Whether the operator or the gates of a side are complex."""
        groups = {self.left.group, self.right.group}
        return "U" in groups or any(x.dtype.kind == "c" for x in self.tensors)

    def ansatz(self, side: str) -> Ansatz:
        return self.left if side == "left" else self.right

    def changed(
        self,
        *,
        left: Ansatz | None = None,
        right: Ansatz | None = None,
        initial: Point | None = None,
    ) -> Problem:
        """A copy with other circuits or another initial guess.

        What is known of the operator is not computed again.
        """
        found = copy.copy(self)
        for name, value in (("left", left), ("right", right), ("initial", initial)):
            if value is not None:
                object.__setattr__(found, name, value)
        return found

    @classmethod
    def build(
        cls,
        tensors: Sequence,
        left: CircuitLike,
        right: CircuitLike = None,
        *,
        group: str = "SO",
        shape: Sequence[int] | None = None,
        objective: Objective | None = None,
        initial: Factorization | None = None,
        max_bond: int = 1,
    ) -> Problem:
        """Check what a user gives, and fill in what is left open.

        Parameters
        ----------
        tensors : site tensors of M
        left, right : see `disentangle`
        objective : Objective, optional
            Its second moments are stored with the problem.
        initial : Factorization, optional
            The initial guess; circuits given as `left` and `right` are one, too.
        max_bond : int
            Bond dimension of the core.
        """
        tensors = tuple(_double(tensor) for tensor in tensors)
        bad = sum(int((~np.isfinite(tensor)).sum()) for tensor in tensors)
        if bad:
            raise ValueError(f"{bad} entries of the MPO are NaN or infinite")
        legs = legs_of(tensors)
        padded = padded_shape(legs)
        shape = padded if shape is None else as_shape(shape)
        if min(shape) < 1 or shape[0] > padded[0] or shape[1] > padded[1]:
            raise ValueError(f"shape={shape} does not lie within the operator's {padded}")
        left_ansatz, right_ansatz = both_ansatze(legs, left, right, group=group)
        covariance = sensitivity = None
        if objective is not None:
            covariance, sensitivity = _moments(objective, shape)
        found = cls(tensors, left_ansatz, right_ansatz, shape, covariance, sensitivity)
        if not np.isfinite(found.log_norm):
            raise ValueError("the MPO is zero everywhere; there is nothing to disentangle")
        given = [
            circuit if isinstance(circuit, Circuit) else None
            for circuit in (from_quimb(left), from_quimb(right))
        ]
        if initial is not None:
            if any(given):
                raise ValueError("left= or right= is a circuit and init= is another initial guess")
            return found.changed(initial=_point(initial, found, max_bond))
        if any(given):
            return found.changed(initial=_circuits(given, found))
        return found


def _moments(objective: Objective, shape: tuple[int, int]) -> tuple:
    """Padded second moments of inputs and gradients, checked against the operator's shape."""
    covariance, sensitivity = objective.covariance, objective.sensitivity
    if covariance is not None:
        given = np.shape(covariance)
        if len(given) != 2 or given[0] != given[1]:
            raise ValueError(f"the covariance has shape {given}, the layer {shape[0]} inputs")
        if given[0] != shape[0]:
            raise ValueError(
                f"inputs= or covariance= has {given[0]} features, the layer {shape[0]} inputs"
            )
        covariance = embed_metric(covariance, shape[0])
    if sensitivity is not None:
        if covariance is None:
            raise ValueError("sensitivity= weighs the activations; give inputs= or covariance=")
        given = np.shape(sensitivity)
        if given != (shape[1],) * 2:
            raise ValueError(f"the sensitivity has shape {given}, the layer {shape[1]} outputs")
        sensitivity = embed_metric(sensitivity, shape[1], what="sensitivity")
    return covariance, sensitivity


def _point(given: Factorization, problem: Problem, max_bond: int) -> Point:
    """A factorization as an initial guess: layers and bonds that it lacks begin as trivial."""
    if given.legs != problem.legs:
        raise ValueError(f"init= has legs {given.legs}, the operator {problem.legs}")
    core = given.core
    if max(bond_dimensions(site_tensors(core)), default=1) > max_bond:
        core = truncate(core, max_bond=max_bond).mpo
    core = pad_bonds([_double(tensor) for tensor in site_tensors(core)], max_bond)
    sides = [_embedded(getattr(given, side), problem, side) for side in ("left", "right")]
    return Point(sides[0], core, sides[1])


def _circuits(given: Sequence[Circuit | None], problem: Problem) -> Point:
    """Circuits as an initial guess; a side that is not given begins as the identity."""
    sides = []
    for side, circuit in zip(("left", "right"), given, strict=True):
        circuit = identity_circuit(problem.ansatz(side)) if circuit is None else circuit
        sides.append(_embedded(circuit, problem, side))
    return Point(sides[0], [], sides[1])


def _embedded(circuit: Circuit, problem: Problem, side: str) -> list:
    """Gates of a circuit on the placements of a side's ansatz."""
    ansatz = problem.ansatz(side)
    gates = [_double(gate) for gate in embed(circuit, ansatz, outermost=side).gates]
    for place, gate in zip(ansatz.placements, gates, strict=True):
        _check_gate(place, gate, ansatz.group)
    for tie, numbers in ansatz.ties.items():
        first, *others = (gates[j] for j in numbers)
        if any(np.abs(gate - first).max() > 1e-12 for gate in others):
            raise ValueError(f"the initial guess has different gates on the {side} tied as {tie}")
    return gates


def _check_gate(place: Placement, gate: np.ndarray, group: str) -> None:
    if place.fixed is not None:
        return
    if group != "U" and gate.dtype.kind == "c":
        raise ValueError(
            f"the initial guess has a complex gate on wires {place.wires}; use group='U'"
        )
    if group == "SO" and np.linalg.det(gate) < 0:
        raise ValueError(
            f"the initial guess has a gate of determinant -1 on wires {place.wires}; use group='O'"
        )


def _double(array: Any) -> np.ndarray:
    """float64 or complex128, on the CPU; in C order, as a resumed run will read it."""
    array = as_numpy(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, order="C")
