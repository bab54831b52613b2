"""The circuits of both sides of an operator, from what a user gives."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mpodis.arguments import is_integer
from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.exchange import as_circuit
from mpodis.circuit.spec import from_spec
from mpodis.conventions import Legs, wires

__all__ = ["CircuitLike", "as_ansatz", "both_ansatze", "from_quimb", "sides_of_depth"]

CircuitLike: TypeAlias = Any
"""Describes a circuit: an `Ansatz`, a `Circuit`, quimb's `Circuit`, a depth or a spec."""


def sides_of_depth(
    depth: int | None, left: CircuitLike, right: CircuitLike
) -> tuple[CircuitLike, CircuitLike]:
    """The circuits that `depth`, or `left` and `right`, describe."""
    if depth is None:
        if left is None:
            raise TypeError("give depth=, the number of layers on either side, or left=")
        return left, right
    if left is not None or right is not None:
        raise TypeError(
            "depth= describes both circuits; leave it out where left= or right= is given"
        )
    if not is_integer(depth):
        raise TypeError(f"depth={depth!r} must be a number of layers")
    return int(depth), None


def both_ansatze(
    legs: Legs, left: CircuitLike, right: CircuitLike = None, *, group: str = "SO"
) -> tuple[Ansatz, Ansatz]:
    """The placements of both circuits; `right` is by default the mirror image of `left`.

    Raises
    ------
    TypeError, ValueError
        What is not a circuit, does not fit the wires of its side, or cannot be mirrored onto them.
    """
    n_left, n_right = len(wires(legs, "left")), len(wires(legs, "right"))
    left = from_quimb(left)
    first = as_ansatz(left, n_left, group, "left")
    if right is not None:
        return first, as_ansatz(right, n_right, group, "right")
    if isinstance(left, Ansatz | Circuit) and n_left != n_right:
        raise ValueError(
            f"the left ansatz has {n_left} wires and cannot be mirrored onto {n_right}; "
            "give right= too"
        )
    return first, as_ansatz(left, n_right, group, "right").reversed()


def as_ansatz(value: CircuitLike, n: int, group: str, name: str) -> Ansatz:
    """The placements of a circuit: those that are given, or a brickwall of a depth or a spec.

    Errors say which argument of the caller it is by its `name`.
    """
    value = from_quimb(value)
    if isinstance(value, Circuit):
        value = value.ansatz
    if isinstance(value, Ansatz):
        if value.n != n:
            raise ValueError(f"{name}= has {value.n} wires, the operator {n}")
        return value
    if not (isinstance(value, str) or is_integer(value)):
        raise TypeError(
            f"{name}={value!r} is not a circuit; give an Ansatz, a Circuit, a depth, or a spec "
            "like '2b + CNOT'"
        )
    if n == 0:
        return Ansatz(0, (), group)
    if isinstance(value, str):
        return from_spec(value, n, group=group)
    return brickwall(n, int(value), min(2, n), group=group)


def from_quimb(value: CircuitLike) -> CircuitLike:
    """quimb's circuit as one of ours; anything else as it is."""
    ours = isinstance(value, Ansatz | Circuit | str | int | np.integer | float | list | None)
    return value if ours else as_circuit(value)
