"""Counting CNOTs and the nearest cheaper gates: against Qiskit, closed forms and grids."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.circuit.library import CXGate
from qiskit.synthesis import TwoQubitBasisDecomposer

from mpodis import (
    Factorization,
    cnot_count,
    from_spec,
    gate_cnots,
    mpo_from_tensors,
    random_circuit,
)
from mpodis.gates import Gate, named_gate, register_gate
from mpodis.quantum import gate_cost
from mpodis.resynthesis.two_qubit_gates import (
    cnot_counts,
    kron,
    nearest_one_cnot,
    nearest_product,
)
from reference import CNOT, random_cores, random_matrix, random_member

SWAP = np.eye(4)[[0, 2, 1, 3]]
TURN = np.array([[0.0, 1.0], [-1.0, 0.0]])


def locals_of(group, seed):
    return np.kron(random_member(2, group, (seed, 0)), random_member(2, group, (seed, 1)))


def chain(cnots, group, seed):
    """A gate with so many CNOTs and one-qubit gates around them."""
    gate = locals_of(group, (seed, 9))
    for k in range(cnots):
        gate = gate @ CNOT @ locals_of(group, (seed, k))
    return gate


# --- how many CNOTs


KINDS = {
    **{
        f"{cnots} CNOTs, {group}": chain(cnots, group, 3)
        for cnots in range(4)
        for group in ("SO", "O", "U")
    },
    **{f"general {group}": random_member(4, group, 5) for group in ("SO", "U")},
    "determinant -1": random_member(4, "SO", 6) @ np.diag([1, 1, 1, -1]),
    "SWAP": SWAP @ locals_of("SO", 1),
    "iSWAP": SWAP @ np.diag([1, 1j, 1j, 1]),
    "CZ": np.diag([1, 1, 1, -1]).astype(float),
    "identity with a phase": np.exp(0.3j) * np.eye(4),
    "float32": random_member(4, "SO", 7).astype(np.float32),
}


@pytest.mark.parametrize("name", KINDS)
def test_cnots_of_a_gate_are_those_of_qiskit(name):
    gate = KINDS[name]
    found = TwoQubitBasisDecomposer(CXGate()).num_basis_gates(gate.astype(complex))
    assert gate_cnots(gate) == found


@pytest.mark.parametrize("name", ["CNOT", "CZ", "SWAP", "iSWAP", "ECR"])
def test_registered_gates_know_their_cnots(name):
    gate = named_gate(name)
    found = TwoQubitBasisDecomposer(CXGate()).num_basis_gates(gate.matrix.astype(complex))
    assert gate.n_cnots == gate_cnots(gate.matrix) == found


def test_a_gate_of_the_users_own_counts_as_registered():
    toffoli = np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]]
    register_gate(Gate("CountedToffoli", toffoli, n_cnots=6))
    ansatz = from_spec("CountedToffoli + 2b + CZ", 4, fill=False)
    circuit = random_circuit(ansatz, seed=0)
    assert cnot_counts(circuit) == [
        {"CountedToffoli": 6, None: 2, "CZ": 1}[place.fixed] for place in ansatz.placements
    ]
    register_gate(Gate("UncountedToffoli", toffoli))
    with pytest.raises(ValueError, match=r"shape \(8, 8\) has no closed form"):
        cnot_count(random_circuit(from_spec("UncountedToffoli", 4), seed=0))


def test_gates_of_determinant_one_need_two_cnots_and_others_three():
    for seed in range(20):
        gate = random_member(4, "SO", (seed, 3))
        assert gate_cnots(gate) == 2
        assert gate_cnots(gate @ np.diag([1, 1, 1, -1])) == 3


def test_the_count_of_a_line_is_that_of_the_transpiler():
    # gates of all kinds, in an order in which none could be merged
    ansatz = from_spec("2b + 1b + CNOT + 1b + 2b", 4)
    circuit = random_circuit(ansatz, seed=1)
    count = 2 * 2 + 1 + 2 * 2
    assert cnot_count(circuit) == count
    assert gate_cost(circuit).two_qubit == count
    line = gate_cost(circuit, backend="FakeMontrealV2", trials=1)
    assert line.two_qubit == count  # no SWAPs
    core = mpo_from_tensors(random_cores(((2, 2),) * 4, 2))
    assert cnot_count(Factorization(circuit, core, circuit, (16, 16))) == 2 * count


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        (np.eye(8), r"shape \(8, 8\) has no closed form; compile it with `synthesise`"),
        (np.ones((4, 4)), "not unitary: W W.H differs from 1 by 4"),
        (np.full((4, 4), np.nan), "not unitary"),
    ],
)
def test_gates_that_cannot_be_counted(gate, message):
    with pytest.raises(ValueError, match=message):
        gate_cnots(gate)


# --- nearest gates


def rotations(steps):
    """A grid over SO(2) x SO(2)."""
    angles = 2 * np.pi * np.arange(steps) / steps
    single = [np.cos(t) * np.eye(2) + np.sin(t) * TURN for t in angles]
    return np.stack([np.kron(a, b) for a, b in itertools.product(single, repeat=2)])


def test_the_nearest_product_of_rotations_is_a_singular_value():
    e = random_matrix((30, 4, 4))
    a, b = nearest_product(e)
    values = np.einsum("nij,nij->n", e, kron(a, b))
    # with a = x1 + yJ the value is bilinear in two unit vectors
    basis = (np.eye(2), TURN)
    forms = np.array([[[np.sum(x * np.kron(p, q)) for q in basis] for p in basis] for x in e])
    assert_allclose(values, np.linalg.svd(forms)[1][:, 0], atol=1e-4)
    assert_allclose(np.linalg.det(a), 1)


@pytest.mark.parametrize("group", ["SO", "O", "U"])
def test_products_and_gates_with_one_cnot_are_found(group):
    single = np.stack([locals_of(group, seed) for seed in range(5)])
    assert_allclose(kron(*nearest_product(single, group=group)), single, atol=1e-7)
    one = np.stack([chain(1, group, seed) for seed in range(8)])
    before, after = nearest_one_cnot(one, group=group)
    found = kron(*before) @ CNOT @ kron(*after)
    values = np.einsum("nij,nij->n", one.conj(), found).real / 4
    assert values.max() <= 1 + 1e-12
    assert np.median(values) > 1 - 1e-6
    assert {gate_cnots(gate) for gate in found} == {1}


def test_one_cnot_beats_every_gate_of_a_grid():
    e = random_matrix((6, 4, 4), seed=2)
    before, after = nearest_one_cnot(e)
    values = np.einsum("nij,nij->n", e, kron(*before) @ CNOT @ kron(*after))
    grid = rotations(12)
    gates = (grid[:, None] @ CNOT @ grid[None]).reshape(-1, 16)
    assert (values >= (e.reshape(-1, 16) @ gates.T).max(axis=1)).all()
    assert_array_equal(nearest_one_cnot(e)[0][0], before[0])  # the seed says everything
