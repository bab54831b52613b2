"""Circuits to and from Qiskit, on the matrix with its sign."""

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator

from export_cases import CASES, awkward, flipped, places
from mpodis import gates
from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.gates import Gate, gate_names, named_gate, register_gate
from mpodis.quantum import from_qiskit, to_qiskit
from reference import CNOT, circuit_matrix, embed

H = np.array([[1, 1], [1, -1]]) / 2**0.5

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


def test_a_cx_is_a_fixed_cnot_between_any_wires():
    device = QuantumCircuit(3)
    device.cx(2, 1)  # wires 0, 1
    device.cx(0, 1)  # wires 2, 1
    device.cx(2, 0)  # wires 0, 2
    back = from_qiskit(device)
    wires = ((0, 1), (2, 1), (0, 2))
    assert back.ansatz.placements == tuple(Placement(pair, "CNOT") for pair in wires)
    expected = np.kron(CNOT, np.eye(2)) @ embed(CNOT, (2, 1), 3) @ embed(CNOT, (0, 2), 3)
    assert_array_equal(back.to_dense(), expected)
    assert back.ansatz.group == "SO"


@pytest.fixture
def own_gates():
    """Gates of a user: with a name in Qiskit, and without one."""
    swap = named_gate("SWAP").matrix
    known = [
        Gate(
            "CHADAMARD",
            np.kron(np.diag([1.0, 0]), np.eye(2)) + np.kron(np.diag([0, 1]), H),
            1,
            "ch",
        ),
        Gate("TOFFOLI", np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]], 6, "ccx"),
        Gate("FSWAP", swap @ np.diag([1.0, 1, 1, -1]), 2),
        Gate("TGATE", np.diag([1, np.exp(0.25j * np.pi)]), 0, "t"),
    ]
    names = gate_names()
    for gate in known:
        register_gate(gate)
    yield known
    for name in set(gate_names()) - set(names):
        del gates._REGISTRY[name]


def test_every_registered_gate_keeps_its_name(own_gates):
    for name in gate_names():
        gate = named_gate(name)
        for wires in itertools.permutations(range(4), gate.width):
            circuit = random_circuit(Ansatz(4, ((Placement(wires, name),),), "U"), seed=0)
            device = to_qiskit(circuit)
            assert dict(device.count_ops()) == {gate.qiskit_name or "unitary": 1}
            assert_allclose(Operator(device).data, circuit_matrix(circuit).T, atol=1e-14)
            back = from_qiskit(device)
            assert [place.fixed for place in back.ansatz.placements] == [name]
            assert_allclose(back.to_dense(), circuit_matrix(circuit), atol=1e-14)


def test_a_wrong_qiskit_name_is_refused(own_gates):
    for qiskit_name, message in (
        ("nonsense", "Qiskit's library has no gate 'nonsense' on 2 qubits"),
        ("rzz", "no gate 'rzz' on 2 qubits without parameters"),
        ("cx", "registered as Qiskit's 'cx', which has another matrix"),
    ):
        gates._REGISTRY.pop("WRONG", None)
        register_gate(Gate("WRONG", np.diag([1.0, -1, 1, 1]), 1, qiskit_name))
        with pytest.raises(ValueError, match=message):
            to_qiskit(identity_circuit(from_spec("WRONG", 2)))


@pytest.mark.parametrize("group", ["O", "U"])
def test_two_gates_on_distant_wires_stay_two_gates(group):
    layers = ((Placement((0, 3)),), (Placement((4, 1, 2)), Placement((3, 0), "CNOT")))
    circuit = random_circuit(Ansatz(5, layers, group), seed=0)
    back = from_qiskit(to_qiskit(circuit))
    assert_allclose(back.to_dense(), circuit_matrix(circuit), atol=1e-13)
    # a free gate absorbs the order of its wires
    wanted = (Placement((0, 3)), Placement((1, 2, 4)), Placement((3, 0), "CNOT"))
    assert back.ansatz.placements == wanted
    assert [len(one.qubits) for one in to_qiskit(circuit).data] == [2, 3, 2]
    assert dict(to_qiskit(circuit).count_ops()) == {"unitary": 2, "cx": 1}


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
        (_measured, r"instruction 1 \(measure\) is not a gate; .* remove_final_measurements"),
        (_open, r"1 unbound parameters \(angle, .* call assign_parameters"),
        (_prepared, r"instruction 0 \(initialize\) has no unitary matrix"),
        (_branching, r"instruction 0 \(if_else\) is not a gate"),
        (lambda device: device.reset(1), r"instruction 0 \(reset\) is not a gate"),
    ],
)
def test_instructions_that_are_not_gates_are_refused(change, message):
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
