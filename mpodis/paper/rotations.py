"""Circuits of SO(4) gates as CNOTs and rotations of single wires: four numbers a gate, not six.

SO(4) is made of two SU(2) that commute. Each has Euler angles around an axis that acts on one
wire alone, so that a gate is

    (R(b1) x R(a1)) CNOT (R(a2) x R(b2)) CNOT (R(b3) x R(a3)),  R(t) = [[cos t, -sin t],
                                                                        [sin t,  cos t]]

and its last two rotations go on into the next gate on their wires, or at the end into the core.
"""

from __future__ import annotations

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import wires
from mpodis.factorization import Factorization
from mpodis.gates import named_gate
from mpodis.sites import mpo_from_tensors, site_tensors

__all__ = ["as_rotations", "gate_angles"]

_ONE, _J, _X, _Z = (
    np.eye(2),
    *map(np.array, ([[0.0, -1], [1, 0]], [[0.0, 1], [1, 0]], np.diag([1.0, -1]))),
)


def _quaternions(first, second) -> np.ndarray:
    return np.stack([np.eye(4), first, second, first @ second])


_UNITS = (
    _quaternions(np.kron(_ONE, _J), np.kron(_J, _X)),
    _quaternions(np.kron(_J, _ONE), np.kron(_Z, _J)),
)
"""Units of the two algebras of quaternions whose products make all real 4 x 4 matrices."""


def as_rotations(given: Factorization) -> Factorization:
    """The same operator, its gates as in the module's formula.

    Raises
    ------
    ValueError
        Gates on three wires or more, of determinant -1, or complex ones.
    """
    cores = site_tensors(given.core)
    left, rest = _rewritten(given.left)
    for site, gate in zip(wires(given.legs, "left"), rest, strict=True):
        cores[site] = np.einsum("ji,aiob->ajob", gate, cores[site])
    right, rest = _rewritten(given.right.adjoint())
    for site, gate in zip(wires(given.legs, "right"), rest, strict=True):
        cores[site] = np.einsum("jo,aiob->aijb", gate, cores[site])
    return Factorization(left, mpo_from_tensors(cores), right.adjoint(), given.shape)


def gate_angles(gate) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """(a1, a2, a3) and (b1, b2, b3) of a gate in SO(4)."""
    products = np.einsum("iab,jbc->ijac", *_UNITS)
    u, s, vh = np.linalg.svd(np.einsum("ijab,ab->ij", products, gate) / 4)
    if np.iscomplexobj(gate) or abs(s[0] - 1) > 1e-6:
        raise ValueError("a gate is not in SO(4); disentangle with group='SO'")
    return _euler(u[:, 0]), _euler(vh[0])


def _euler(q) -> tuple[float, float, float]:
    """Angles t with the quaternion exp(t1 i) exp(t2 j) exp(t3 i)."""
    total, difference = np.arctan2(q[1], q[0]), np.arctan2(q[3], q[2])
    middle = np.arctan2(np.hypot(q[2], q[3]), np.hypot(q[0], q[1]))
    return (total + difference) / 2, middle, (total - difference) / 2


def _rewritten(circuit: Circuit) -> tuple[Circuit, list[np.ndarray]]:
    """CNOTs and rotations, and the rotation that is left on every wire behind them."""
    left_over = [np.eye(2)] * circuit.n
    layers, values, gates = [], [], iter(circuit.gates)
    for layer in circuit.ansatz.layers:
        pairs, outer, inner = [], [], []
        for place, gate in zip(layer, gates, strict=False):  # gates go on in the next layer
            if place.width == 1:
                left_over[place.wires[0]] = left_over[place.wires[0]] @ gate
                continue
            if place.width > 2:
                raise ValueError(f"a gate on wires {place.wires} is no gate of SO(4)")
            (a1, a2, a3), (b1, b2, b3) = gate_angles(gate)
            first, second = place.wires
            pairs.append(place.wires)
            outer += [left_over[first] @ _rotation(b1), left_over[second] @ _rotation(a1)]
            inner += [_rotation(a2), _rotation(b2)]
            left_over[first], left_over[second] = _rotation(b3), _rotation(a3)
        singles = tuple(Placement((wire,)) for pair in pairs for wire in pair)
        cnots = tuple(Placement(pair, "CNOT") for pair in pairs)
        layers += [singles, cnots, singles, cnots]
        matrices = [named_gate("CNOT").matrix] * len(pairs)
        values += [*outer, *matrices, *inner, *matrices]
    return Circuit(Ansatz(circuit.n, tuple(layers)), tuple(values)), left_over


def _rotation(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]])
