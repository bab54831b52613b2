"""Circuits that the tests of export share."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.quantum_info import random_unitary

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.circuit.spec import from_spec

ANSATZE = {
    "2 wires": brickwall(2, 1, group="O"),
    "1b, 3 wires": brickwall(3, 1, 1, group="O"),
    "2b, 5 wires, shifted": brickwall(5, 3, parity=1, group="O"),
    "2b complex, 4 wires": brickwall(4, 3, group="U"),
    "3b, 4 wires": brickwall(4, 2, 3, group="O"),
    "3b staircase complex": staircase(5, 1, 3, group="U"),
    "4b, 7 wires": brickwall(7, 2, 4, group="O"),
    "5b, 7 wires": brickwall(7, 2, 5, group="SO"),
    "5b complex, 5 wires": brickwall(5, 1, 5, group="U"),
    "6b, 6 wires": brickwall(6, 1, 6, group="O"),
    "CNOT scaffold": from_spec("CNOT + 1b + 2*CNOT + 2b", 5, group="O"),
    "CNOTs only": from_spec("3*CNOT", 4),
    "CNOT complex": from_spec("1b + CNOT + 3b", 3, group="U"),
    "idle wires": Ansatz(4, ((Placement((1, 2)),),), "O"),
}
CASES = [pytest.param(ansatz, id=name) for name, ansatz in ANSATZE.items()]


def flipped(ansatz, seed=3):
    """Random gates, those of O(n) with determinant -1."""
    circuit = random_circuit(ansatz, seed=seed)
    if ansatz.group != "O":
        return circuit
    gates = []
    for place, gate in zip(ansatz.placements, circuit.gates, strict=True):
        turn = place.fixed is None and np.linalg.det(gate) > 0
        gates.append(np.vstack([-gate[:1], gate[1:]]) if turn else gate)
    return Circuit(ansatz, tuple(gates))


def places(circuit):
    """Gates in the order in which each wire meets them; layers may be packed more closely."""
    of = circuit.ansatz.placements
    return [[place for place in of if wire in place.wires] for wire in range(circuit.n)]


def awkward():
    """Instructions of every kind, on qubits in every order, under a global phase."""
    device = QuantumCircuit(8, global_phase=0.7)
    device.h(3)
    device.ccx(6, 1, 4)
    device.barrier()
    device.cx(0, 7)
    device.cx(5, 4)
    device.cx(4, 5)
    device.append(random_unitary(8, seed=0), [2, 7, 0])
    device.mcx([0, 1, 2, 3, 4, 5], 6)
    inner = QuantumCircuit(7, name="inner", global_phase=-0.4)
    inner.cx(1, 0)
    inner.cry(0.3, 0, 6)
    device.append(inner.to_gate(), [7, 1, 2, 0, 3, 5, 4])
    device.rzz(0.2, 1, 5)
    return device
