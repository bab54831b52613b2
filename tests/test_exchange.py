"""Circuits to and from quimb, on the matrix with its sign."""

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from export_cases import ANSATZE, CASES, flipped, places
from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.exchange import as_circuit, circuit_from_quimb, circuit_to_quimb
from reference import circuit_matrix, random_member


@pytest.mark.parametrize("ansatz", CASES)
def test_quimb_has_the_transpose_and_gives_it_back(ansatz):
    circuit = flipped(ansatz)
    theirs = circuit_to_quimb(circuit)
    matrix = circuit_matrix(circuit)
    if ansatz is not ANSATZE["idle wires"]:  # quimb leaves them out
        assert_allclose(theirs.uni.to_dense(), matrix.T, atol=1e-13)
    assert_allclose(theirs.to_dense().ravel(), matrix[0], atol=1e-13)
    back = circuit_from_quimb(theirs)
    assert_allclose(back.to_dense(), matrix, atol=1e-13)
    assert back.is_complex == (ansatz.group == "U")
    assert places(back) == places(circuit)


def test_gates_on_any_wires_stay_where_they_are():
    theirs = qtn.Circuit(5)
    theirs.ry(0.4, 1)
    theirs.cx(4, 0)
    theirs.apply_gate_raw(random_member(4, "SO", seed=0), (3, 0))
    theirs.ry(0.2, 2)  # quimb's matrix leaves out wires without gates
    back = circuit_from_quimb(theirs)
    assert back.ansatz.layers == (
        (Placement((4, 0), "CNOT"), Placement((1,)), Placement((2,))),
        (Placement((0, 3)),),
    )
    assert_allclose(back.to_dense().T, theirs.uni.to_dense(), atol=1e-14)
    again = circuit_from_quimb(circuit_to_quimb(back))
    assert again.ansatz == back.ansatz
    assert_allclose(again.to_dense(), back.to_dense(), atol=1e-15)


def test_named_parametrised_and_controlled_gates():
    theirs = qtn.Circuit(4)
    theirs.h(2)
    theirs.ry(0.3, 1, parametrize=True)
    theirs.u3(0.1, 0.2, 0.3, 3)
    theirs.cnot(3, 0)
    theirs.cx(1, 2)
    theirs.cz(3, 1)
    theirs.iswap(0, 3)
    theirs.swap(0, 2)
    theirs.iden(1)
    theirs.rzz(0.4, 3, 1)
    theirs.apply_gate("RX", params=(0.7,), qubits=[1], controls=[3, 0])
    theirs.apply_gate_raw(random_member(8, "U", seed=1), (2, 0, 3))
    back = circuit_from_quimb(theirs)
    assert_allclose(back.to_dense().T, theirs.uni.to_dense(), atol=1e-12)
    fixed = {(place.fixed, place.wires) for place in back.ansatz.placements if place.fixed}
    assert fixed == {
        ("CNOT", (3, 0)),
        ("CNOT", (1, 2)),
        ("CZ", (1, 3)),
        ("iSWAP", (0, 3)),
        ("SWAP", (0, 2)),
    }


def test_a_fixed_gate_without_a_name_in_quimb_goes_by_its_matrix():
    circuit = identity_circuit(Ansatz(3, ((Placement((2, 0), "ECR"), Placement((1,))),), "U"))
    theirs = circuit_to_quimb(circuit)
    assert_allclose(theirs.uni.to_dense(), circuit_matrix(circuit).T, atol=1e-14)


def test_a_real_circuit_is_in_so_unless_a_determinant_is_negative():
    for group in ("SO", "O"):
        circuit = flipped(brickwall(3, 2, group=group))
        assert circuit_from_quimb(circuit_to_quimb(circuit)).ansatz.group == group


def test_gates_that_are_not_unitary_and_circuits_without_wires():
    theirs = qtn.Circuit(2)
    theirs.apply_gate_raw(2 * np.eye(4), (0, 1))
    with pytest.raises(ValueError, match=r"gate 0 on wires \(0, 1\) is not unitary .* 3.0e\+00"):
        circuit_from_quimb(theirs)
    with pytest.raises(ValueError, match="a circuit without wires has no form in quimb"):
        circuit_to_quimb(identity_circuit(Ansatz(0, ())))


def test_circuits_of_mpodis_and_quimb_are_circuits():
    circuit = random_circuit(brickwall(3, 2), seed=0)
    assert as_circuit(circuit) is circuit
    found = as_circuit(circuit_to_quimb(circuit))
    assert isinstance(found, Circuit)
    assert_array_equal(found.to_dense(), circuit.to_dense())
    with pytest.raises(TypeError, match="expected a Circuit of mpodis or quimb, got list"):
        as_circuit([circuit])
