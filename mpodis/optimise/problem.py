"""The operator, the circuits around it and what its inputs look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import embed
from mpodis.circuit.spec import from_spec
from mpodis.conventions import Legs, padded_shape, wires
from mpodis.factorization import Factorization
from mpodis.fit import embed_metric, pad_bonds
from mpodis.measures import second_moment
from mpodis.mpo import truncate
from mpodis.sites import bond_dimensions, left_canonical, legs_of, site_tensors

__all__ = ["Point", "Problem", "as_ansatz", "named_list"]


@dataclass(frozen=True, eq=False)
class Point:
    """Gates of both sides and the core's sites: where a run stands, or begins."""

    left: list
    core: list
    right: list

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Its arrays by name, for a file."""
        parts = (("left", self.left), ("core", self.core), ("right", self.right))
        return {f"{prefix}{name}.{k}": x for name, xs in parts for k, x in enumerate(xs)}

    @classmethod
    def from_arrays(cls, prefix: str, arrays: dict) -> Point | None:
        """What `arrays` named, if it is there."""

        parts = [named_list(f"{prefix}{name}.", arrays) for name in ("left", "core", "right")]
        return cls(*parts) if parts[1] else None


def named_list(prefix: str, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays called prefix0, prefix1, ..."""
    return [arrays[f"{prefix}{k}"] for k in range(sum(name.startswith(prefix) for name in arrays))]


@dataclass(frozen=True, eq=False)
class Problem:
    """M as its site tensors, the two ansätze, the shape before padding, and second moments.

    `covariance` is that of the inputs, `sensitivity` that of the gradients at the outputs;
    `initial` are the gates and the core to begin with, where they are given.
    """

    tensors: tuple
    left: Ansatz
    right: Ansatz
    shape: tuple[int, int]
    covariance: np.ndarray | None
    sensitivity: np.ndarray | None = None
    initial: Point | None = None

    @property
    def legs(self) -> Legs:
        return legs_of(self.tensors)

    @classmethod
    def build(
        cls,
        tensors: Sequence,
        left,
        right,
        *,
        group: str,
        shape: tuple[int, int] | None,
        inputs,
        covariance,
        sensitivity=None,
        initial: Factorization | None = None,
        max_bond: int = 1,
    ) -> Problem:
        """Check what a user gives and fill in what is left open."""
        tensors = tuple(_double(core) for core in tensors)
        bad = sum(int((~np.isfinite(core)).sum()) for core in tensors)
        if bad:
            raise ValueError(f"{bad} entries of the MPO are NaN or infinite")
        if not np.isfinite(left_canonical(tensors)[1]):
            raise ValueError("the MPO is zero everywhere; there is nothing to disentangle")
        legs = legs_of(tensors)
        padded = padded_shape(legs)
        shape = padded if shape is None else tuple(int(d) for d in shape)
        if len(shape) != 2 or min(shape) < 1 or shape[0] > padded[0] or shape[1] > padded[1]:
            raise ValueError(f"shape={shape} does not lie within the operator's {padded}")
        n_left, n_right = len(wires(legs, "left")), len(wires(legs, "right"))
        left_ansatz = as_ansatz(left, n_left, group, "left")
        if right is None:
            mirror = left if not isinstance(left, Ansatz) or n_left == n_right else None
            if mirror is None:
                raise ValueError(
                    f"the left ansatz has {n_left} wires and cannot be mirrored onto {n_right}; "
                    "give right= too"
                )
            right_ansatz = as_ansatz(mirror, n_right, group, "right").reversed()
        else:
            right_ansatz = as_ansatz(right, n_right, group, "right")
        if inputs is not None and covariance is not None:
            raise ValueError("give inputs= or covariance=, not both")
        if inputs is not None:
            covariance = second_moment(inputs)
        if covariance is not None:
            covariance = _double(np.asarray(covariance))
            if covariance.shape != (shape[0],) * 2:
                raise ValueError(
                    f"the inputs have {covariance.shape[-1] if covariance.ndim else 0} features, "
                    f"the layer {shape[0]} inputs"
                )
            covariance = embed_metric(covariance, shape[0])
        if sensitivity is not None:
            if covariance is None:
                raise ValueError("sensitivity= weighs the activations; give inputs= or covariance=")
            sensitivity = _double(sensitivity)
            if sensitivity.shape != (shape[1],) * 2:
                raise ValueError(
                    f"the sensitivity has shape {sensitivity.shape}, the layer {shape[1]} outputs"
                )
            sensitivity = embed_metric(sensitivity, shape[1], what="sensitivity")
        found = cls(tensors, left_ansatz, right_ansatz, shape, covariance, sensitivity)
        if initial is None:
            return found
        return replace(found, initial=_point(initial, found, max_bond))


def _point(given: Factorization, problem: Problem, max_bond: int) -> Point:
    """A factorization as a point of the problem: more layers and bonds than it has are trivial."""
    if given.legs != problem.legs:
        raise ValueError(f"init= has legs {given.legs}, the operator {problem.legs}")
    core = given.core
    if max(bond_dimensions(site_tensors(core)), default=1) > max_bond:
        core = truncate(core, max_bond=max_bond).mpo
    core = pad_bonds([_double(site) for site in site_tensors(core)], max_bond)
    gates = {}
    for side in ("left", "right"):
        ansatz = getattr(problem, side)
        circuit = embed(getattr(given, side), ansatz, outermost=side)
        gates[side] = [_double(gate) for gate in circuit.gates]
        for place, gate in zip(ansatz.placements, gates[side], strict=True):
            _check_gate(place, gate, ansatz.group)
        for tie, numbers in ansatz.ties.items():
            first, *others = (gates[side][j] for j in numbers)
            if any(np.abs(gate - first).max() > 1e-12 for gate in others):
                raise ValueError(f"init= has different gates on the {side} that are tied as {tie}")
    return Point(gates["left"], core, gates["right"])


def _check_gate(place: Placement, gate: np.ndarray, group: str) -> None:
    if place.fixed is not None:
        return
    if group != "U" and gate.dtype.kind == "c":
        raise ValueError(f"init= has a complex gate on wires {place.wires}; use group='U'")
    if group == "SO" and np.linalg.det(gate) < 0:
        raise ValueError(
            f"init= has a gate of determinant -1 on wires {place.wires}; use group='O'"
        )


def _double(array) -> np.ndarray:
    """float64 or complex128, on the CPU; in C order, as a resumed run will read it."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, order="C")


def as_ansatz(value, n: int, group: str, side: str) -> Ansatz:
    """An ansatz that is given, or the brickwall of a depth, or that of a spec."""
    if isinstance(value, Ansatz):
        if value.n != n:
            raise ValueError(f"the {side} ansatz has {value.n} wires, the operator {n}")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise TypeError(
            f"{side}={value!r} is no circuit; give an Ansatz, a depth, or a spec like '2b + CNOT'"
        )
    if n == 0:
        return Ansatz(0, (), group)
    if isinstance(value, str):
        return from_spec(value, n, group=group)
    return brickwall(n, int(value), min(2, n), group=group)
