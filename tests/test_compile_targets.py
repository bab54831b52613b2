"""Targets of every library: the same site tensors, in the row action."""

import numpy as np
import pytest
import quimb.tensor as qtn
import torch
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator, Statevector

from mpodis.circuit import Ansatz, Circuit, Placement, brickwall, circuit_to_quimb, random_circuit
from mpodis.compile_targets import state_target, unitary_target
from mpodis.hamiltonians import pauli_chain
from mpodis.quantum import to_qiskit
from mpodis.sites import tensors_to_dense as dense
from mpodis.time_evolution import evolution, trotter
from reference import circuit_matrix

HIDDEN = random_circuit(brickwall(5, 4, group="U"), seed=1)
APART = random_circuit(
    Ansatz(5, ((Placement((0, 3)), Placement((2, 1), "CNOT")), (Placement((1, 2, 4)),)), "SO"),
    seed=2,
)
U = circuit_matrix(HIDDEN).T  # on kets
PSI = U[:, 0]


def mps_circuit():
    found = qtn.CircuitMPS(5)
    for place, gate in zip(HIDDEN.ansatz.placements, HIDDEN.gates, strict=True):
        found.apply_gate_raw(gate.T, place.wires)
    return found


def split_gates(network, apart):
    """A network of HIDDEN every tensor of which is on one site, also with gates on sites apart."""
    apply = getattr(network, "gate_upper_", network.gate_)
    for place, gate in zip(HIDDEN.ansatz.placements, HIDDEN.gates, strict=True):
        apply(gate.T, place.wires, contract=place.width == 1 or "split-gate")
    for _ in range(2 * apart):  # the second one undoes the first
        apply(np.eye(4)[[0, 1, 3, 2]], (0, 3), contract="split-gate")
    return network


UNITARIES = {
    "array": lambda: U,
    "lists": lambda: U.tolist(),
    "torch": lambda: torch.tensor(U, requires_grad=True),
    "Circuit": lambda: HIDDEN,
    "quimb MPO": lambda: qtn.MatrixProductOperator.from_dense(U, dims=2),
    "quimb product": lambda: qtn.MatrixProductOperator.from_dense(U @ U, dims=2).apply(
        qtn.MatrixProductOperator.from_dense(U.conj().T, dims=2), compress=False
    ),
    "quimb Circuit": lambda: circuit_to_quimb(HIDDEN),
    "quimb uni": lambda: circuit_to_quimb(HIDDEN).get_uni(),
    "quimb split gates": lambda: split_gates(qtn.MPO_identity(5), apart=False),
    "quimb gates apart": lambda: split_gates(qtn.MPO_identity(5), apart=True),
    "Qiskit circuit": lambda: to_qiskit(HIDDEN),
    "Qiskit Operator": lambda: Operator(to_qiskit(HIDDEN)),
}
STATES = {
    "array": lambda: 3 * PSI,
    "column": lambda: PSI[:, None],
    "torch": lambda: torch.tensor(PSI),
    "Circuit": lambda: HIDDEN,
    "quimb MPS": lambda: qtn.MatrixProductState.from_dense(2 * PSI),
    "quimb Circuit": lambda: circuit_to_quimb(HIDDEN),
    "quimb CircuitMPS": mps_circuit,
    "quimb psi": lambda: circuit_to_quimb(HIDDEN).psi,
    "quimb split gates": lambda: split_gates(qtn.MPS_computational_state("00000"), apart=False),
    "quimb gates apart": lambda: split_gates(qtn.MPS_computational_state("00000"), apart=True),
    "Qiskit circuit": lambda: to_qiskit(HIDDEN),
    "Qiskit Statevector": lambda: Statevector(to_qiskit(HIDDEN)),
}


@pytest.mark.no_cover  # long; searches with the same lines are traced
@pytest.mark.parametrize("form", UNITARIES)
def test_a_unitary_acts_on_kets(form):
    tensors = unitary_target(UNITARIES[form]())
    assert all(x.shape[1:3] == (2, 2) and x.dtype == np.complex128 for x in tensors)
    assert_allclose(dense(tensors), U.T, atol=1e-12)


@pytest.mark.parametrize("form", STATES)
def test_a_state_is_one_row_of_norm_one(form):
    tensors = state_target(STATES[form]())
    assert all(x.shape[1:3] == (1, 2) and x.dtype == np.complex128 for x in tensors)
    assert_allclose(dense(tensors), PSI[None], atol=1e-12)


def test_wide_gates_and_gates_on_wires_apart_stay_real():
    tensors = unitary_target(APART)
    assert all(x.dtype == np.float64 for x in tensors)
    assert_allclose(dense(tensors), circuit_matrix(APART), atol=1e-13)
    assert_allclose(dense(unitary_target(to_qiskit(APART))), circuit_matrix(APART), atol=1e-13)
    tensors = state_target(circuit_matrix(APART)[0].astype(complex))
    assert all(x.dtype == np.float64 for x in tensors)


def test_the_bit_order_of_qiskit():
    bell = QuantumCircuit(3)
    bell.h(2)  # our wire 0
    bell.cx(2, 1)
    expected = np.zeros(8)
    expected[[0b000, 0b110]] = 2**-0.5
    assert_allclose(dense(state_target(bell))[0], expected, atol=1e-15)


def test_an_evolution_and_its_mpo_are_the_same_target():
    terms = pauli_chain(6, ZZ=1.0, XY=0.4, Y=0.3)
    found = evolution(terms, 0.5, error=1e-10)
    ours = dense(unitary_target(found))
    assert_allclose(ours.T, found.mpo.to_dense(), atol=1e-12)
    assert_allclose(dense(unitary_target(found.mpo)), ours, atol=1e-12)
    circuit = trotter(terms, 0.5, 4, steps=3)
    assert np.linalg.norm(circuit.to_dense() - ours) ** 2 / 2**7 < 1e-6


@pytest.mark.parametrize("n", [50, 100])
def test_long_chains_never_become_dense(n):
    rng = np.random.default_rng(0)
    circuit = random_circuit(brickwall(n, 3, group="U"), seed=1)
    tensors = unitary_target(circuit)
    assert max(x.shape[0] for x in tensors) <= 16
    other = unitary_target(circuit_to_quimb(circuit))
    assert_allclose(_overlap(tensors, other) / 2.0**n, 1, atol=1e-12)
    psi = qtn.MPS_rand_state(n, 8, dtype=complex, seed=int(rng.integers(100)))
    tensors = state_target(psi * 7.0)
    assert_allclose(_overlap(tensors, tensors), 1)
    assert_allclose(_overlap(tensors, state_target(psi)), 1)


def _overlap(a, b):
    env = np.ones((1, 1))
    for x, y in zip(a, b, strict=True):
        env = np.einsum("ab,aioc,biod->cd", env, x.conj(), y, optimize=True)
    return env[0, 0]


def test_a_truncated_unitary_gets_its_norm_back():
    mpo = evolution(pauli_chain(16, ZZ=1.0, X=0.75), 0.5, error=1e-10).mpo
    shrunk = mpo * (1 - 1e-4)
    tensors = unitary_target(shrunk)
    assert_allclose(_overlap(tensors, tensors) / 2**16, 1)


NAN = U.copy()
NAN[1, 2] = np.nan


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (2 * U, ValueError, "not unitary: U U.H differs from 1 by 3; `disentangle` is for"),
        (np.diag([1.0] * 31 + [0.5]), ValueError, "U U.H differs from 1 by 0.75;"),
        (1e200 * U, ValueError, "not unitary: U U.H overflows"),
        (NAN, ValueError, "1 of 1024 entries of the target are NaN or infinite; replace them"),
        (np.eye(6), ValueError, "dimension 6, which is no power of two from 2 on"),
        (np.eye(1), ValueError, "dimension 1, which is no power of two"),
        (np.ones((2, 4)), ValueError, r"shape \(2, 4\); a unitary on qubits is 2\^n x 2\^n"),
        (qtn.MPO_identity(20) * 1.1, ValueError, "changes the squared norm .* by up to 0.21; norm"),
        (qtn.MPO_rand(20, 4, seed=0), ValueError, "not unitary: .*`disentangle` it"),
        (qtn.MPO_identity(3, phys_dim=3), ValueError, "site 0 of the MatrixProductOperator has di"),
        (
            qtn.MatrixProductOperator([np.full((2, 2), np.inf)], shape="lrud"),
            ValueError,
            "entries of the Matrix.* are NaN or infinite",
        ),
        (torch.nn.Linear(4, 4), TypeError, "Linear is not read as a unitary: give an array, a qu"),
        (Circuit(Ansatz(0, (), "U"), ()), ValueError, "the circuit has no wires"),
        (np.array([["a"]]), TypeError, "expected numbers, got an array of dtype"),
    ],
)
def test_what_is_no_unitary_is_refused(target, error, text):
    with pytest.raises(error, match=text):
        unitary_target(target)


def test_a_periodic_state_of_few_sites_is_read():
    psi = qtn.MPS_rand_state(6, 2, cyclic=True, seed=0)
    expected = psi.to_dense().ravel()
    assert_allclose(dense(state_target(psi))[0], expected / np.linalg.norm(expected), atol=1e-14)


def begun_elsewhere(psi0):
    found = qtn.Circuit(2, psi0=psi0)
    found.h(0)
    return found


def test_a_quimb_circuit_may_begin_with_an_mps():
    tensors = state_target(begun_elsewhere(qtn.MPS_computational_state("10")))
    assert_allclose(dense(tensors)[0], [0.5**0.5, 0, -(0.5**0.5), 0], atol=1e-15)


@pytest.mark.parametrize(
    ("target", "error", "text"),
    [
        (np.zeros(8), ValueError, "zero everywhere; there is nothing to prepare"),
        (
            qtn.MatrixProductState([np.zeros((2, 2)), np.zeros((2, 2))]),
            ValueError,
            "zero everywhere",
        ),
        (np.ones(6), ValueError, "dimension 6, which is no power of two"),
        (np.ones((4, 4)), ValueError, r"shape \(4, 4\); a state has 2\^n amplitudes"),
        (PSI * np.nan, ValueError, "32 of 32 entries of the target are NaN"),
        (qtn.MPS_rand_state(4, 2, phys_dim=3, seed=0), ValueError, "dimension 3, but circuits act"),
        (
            qtn.MPS_rand_state(14, 2, cyclic=True, seed=0),
            ValueError,
            "of 14 sites has .*bonds between sites that are no neighbours on an open line",
        ),
        (
            begun_elsewhere(begun_elsewhere(None).psi),
            ValueError,
            "begins with another state than .*MatrixProductState",
        ),
        ("psi", TypeError, "str is not read as a state: give an array, a quimb MPS"),
    ],
)
def test_what_is_no_state_is_refused(target, error, text):
    with pytest.raises(error, match=text):
        state_target(target)
