"""Circuits to and from Qiskit and quimb, on the matrix with its sign."""

import math

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator

from export_cases import ANSATZE, CASES, awkward, flipped, places
from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.quantum import from_qiskit, from_quimb, to_qiskit, to_quimb
from reference import CNOT, circuit_matrix, embed, random_member

# ---------------------------------------------------------------------------- Qiskit


@pytest.mark.parametrize("ansatz", CASES)
def test_from_qiskit_undoes_to_qiskit(ansatz):
    circuit = flipped(ansatz)
    back = from_qiskit(to_qiskit(circuit))
    assert_allclose(back.to_dense(), circuit_matrix(circuit), atol=1e-13)
    assert back.is_complex == (ansatz.group == "U")
    assert places(back) == places(circuit)


@pytest.mark.parametrize("ansatz", CASES)
def test_a_compiled_circuit_has_the_same_matrix(ansatz):
    circuit = flipped(ansatz)
    device = transpile(to_qiskit(circuit), basis_gates=["u", "cx"], optimization_level=1)
    back = from_qiskit(device)
    assert_allclose(back.to_dense(), circuit_matrix(circuit), atol=1e-10)
    assert {place.width for place in back.ansatz.placements} <= {1, 2}


def test_any_circuit_of_gates():
    device = awkward()
    back = from_qiskit(device)
    assert_allclose(back.to_dense(), Operator(device).data.T, atol=1e-13)
    assert_allclose(Operator(to_qiskit(back)).data, Operator(device).data, atol=1e-13)
    assert back.ansatz.group == "U"


def test_a_cx_from_wire_to_next_is_fixed_and_others_are_not():
    device = QuantumCircuit(3)
    device.cx(2, 1)  # wires 0, 1
    device.cx(0, 1)  # wires 2, 1
    device.cx(2, 0)  # wires 0, 2
    back = from_qiskit(device)
    assert [place.fixed for place in back.ansatz.placements] == ["CNOT", None, None, None, None]
    expected = CNOT
    expected = np.kron(CNOT, np.eye(2)) @ embed(CNOT, (2, 1), 3) @ embed(CNOT, (0, 2), 3)
    assert_array_equal(back.to_dense(), expected)
    assert back.ansatz.group == "O"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("spec", ["2*CNOT", "1b + CNOT", "2b"])
def test_a_sign_stays_real(spec, sign):
    circuit = random_circuit(from_spec(spec, 3), seed=0)
    device = to_qiskit(circuit)
    device.global_phase = math.pi if sign < 0 else 0
    back = from_qiskit(device)
    assert_allclose(back.to_dense(), sign * circuit.to_dense(), atol=1e-15)
    assert not back.is_complex
    assert back.ansatz.group == "SO"


def test_a_circuit_without_qubits():
    assert from_qiskit(QuantumCircuit(0)).n == 0
    with pytest.raises(ValueError, match=r"without qubits cannot hold the global phase 1\.0"):
        from_qiskit(QuantumCircuit(0, global_phase=1.0))


def _measured(device):
    device.measure_all()


def _open(device):
    device.rx(Parameter("angle"), 0)


def _prepared(device):
    device.initialize([1, 0, 0, 0])


def _branching(device):
    device.add_bits(QuantumCircuit(0, 1).clbits)
    with device.if_test((device.clbits[0], 1)):
        device.x(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_measured, r"instruction 1 \(measure\) is no gate; .* remove_final_measurements"),
        (_open, r"1 parameters that are not bound \(angle, .* call assign_parameters"),
        (_prepared, r"instruction 0 \(initialize\) has no unitary matrix"),
        (_branching, r"instruction 0 \(if_else\) is no gate"),
        (lambda device: device.reset(1), r"instruction 0 \(reset\) is no gate"),
    ],
)
def test_what_is_no_gate_is_refused(change, message):
    device = QuantumCircuit(2)
    change(device)
    with pytest.raises(ValueError, match=message):
        from_qiskit(device)


def test_a_routed_circuit_is_refused():
    device = to_qiskit(flipped(brickwall(3, 1, 3, group="O")))
    line = [[0, 1], [1, 0], [1, 2], [2, 1]]
    routed = transpile(device, basis_gates=["u", "cx"], coupling_map=line, initial_layout=[2, 0, 1])
    with pytest.raises(ValueError, match="routed to a device"):
        from_qiskit(routed)


# ---------------------------------------------------------------------------- quimb


@pytest.mark.parametrize("ansatz", CASES)
def test_quimb_has_the_transpose_and_gives_it_back(ansatz):
    circuit = flipped(ansatz)
    network = to_quimb(circuit)
    matrix = circuit_matrix(circuit)
    if ansatz is not ANSATZE["idle wires"]:  # quimb leaves them out
        assert_allclose(network.uni.to_dense(), matrix.T, atol=1e-13)
    assert_allclose(network.to_dense().ravel(), matrix[0], atol=1e-13)
    back = from_quimb(network)
    assert_allclose(back.to_dense(), matrix, atol=1e-13)
    assert back.is_complex == (ansatz.group == "U")
    assert places(back) == places(circuit)


def test_quimb_and_qiskit_simulate_the_same_state():
    circuit = flipped(brickwall(4, 3, 3, group="O"))
    amplitudes = Operator(to_qiskit(circuit)).data[:, 0]
    assert_allclose(to_quimb(circuit).to_dense().ravel(), amplitudes, atol=1e-13)


def test_named_parametrised_and_controlled_gates_of_quimb():
    network = qtn.Circuit(4)
    network.h(2)
    network.ry(0.3, 1, parametrize=True)
    network.u3(0.1, 0.2, 0.3, 3)
    network.cnot(3, 0)
    network.cx(1, 2)
    network.swap(0, 2)
    network.iden(1)
    network.rzz(0.4, 3, 1)
    network.apply_gate("RX", params=(0.7,), qubits=[1], controls=[3, 0])
    network.apply_gate_raw(random_member(8, "U", seed=1), (2, 0, 3))
    back = from_quimb(network)
    assert_allclose(back.to_dense().T, network.uni.to_dense(), atol=1e-12)
    assert "CNOT" in [place.fixed for place in back.ansatz.placements]


def test_quimb_gates_that_are_not_unitary_are_refused():
    network = qtn.Circuit(2)
    network.apply_gate_raw(2 * np.eye(4), (0, 1))
    with pytest.raises(ValueError, match=r"gate 0 on wires \(0, 1\) is not unitary .* 3.0e\+00"):
        from_quimb(network)
    with pytest.raises(ValueError, match="without wires"):
        to_quimb(identity_circuit(Ansatz(0, ())))
