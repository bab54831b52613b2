"""The same circuits with fewer gates: merged, and absorbed into the core."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    Ansatz,
    Factorization,
    Placement,
    cnot_count,
    compress,
    from_spec,
    mpo_from_tensors,
    random_circuit,
    synthesise,
)
from mpodis.circuit.circuit import circuit_from_gates
from mpodis.resynthesis.rewriting import absorb_into_core, placed_gates, simplified
from reference import CNOT, circuit_matrix, random_cores, random_member


def _factorization(left, right, bond=2, legs=None):
    legs = legs or ((2, 2),) * left.n
    core = mpo_from_tensors(random_cores(legs, bond))
    return Factorization(left, core, right, (2**left.n, 2**right.n))


SPECS = ("2b + 2b + 1b + 2b", "CNOT + 1b + CNOT + CNOT", "1b + 1b + 2b + CNOT + 1b + 2b + 1b")


@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize("spec", SPECS)
def test_simplifying_keeps_the_matrix_and_costs_no_cnots(spec, group):
    for n in (2, 3, 5):
        circuit = random_circuit(from_spec(spec, n, group=group), seed=n)
        found = simplified(circuit)
        assert_allclose(circuit_matrix(found), circuit_matrix(circuit), atol=1e-12)
        assert cnot_count(found) <= cnot_count(circuit)
        assert len(found.gates) <= len(circuit.gates)
        assert found.ansatz.group == group
        if group == "SO":
            free = [gate for place, gate in placed_gates(found) if place.fixed is None]
            assert_allclose([np.linalg.det(gate) for gate in free], 1)
        assert_array_equal([p for p, _ in placed_gates(simplified(found))], found.ansatz.placements)


def pair(fixed=None):
    return Placement((0, 1), fixed)


def test_two_cnots_with_rotations_between_are_a_gate_of_determinant_one():
    circuit = random_circuit(from_spec("CNOT + 1b + CNOT", 2), seed=0)
    (place,) = simplified(circuit).ansatz.placements
    assert place == pair()
    three = circuit_from_gates(2, [*placed_gates(circuit), (pair("CNOT"), CNOT)], "SO")
    assert [p.fixed for p in simplified(three).ansatz.placements] == [None, "CNOT"]
    in_o = circuit_from_gates(2, placed_gates(three), "O")
    assert [p.fixed for p in simplified(in_o).ansatz.placements] == [None]


def test_two_cnots_and_rotations_make_every_gate_of_determinant_one():
    # hence a search over places of SO(4) gates is one over places of CNOTs
    ansatz = Ansatz(2, from_spec("1b + CNOT + 1b + CNOT + 1b", 2).layers)
    for seed in range(3):
        target = random_member(4, "SO", seed)
        assert synthesise(target, ansatz, seed=seed).overlap > 1 - 1e-9


def test_direction_of_a_cnot_and_reflections_make_no_difference():
    hadamard = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
    turned = np.kron(hadamard, hadamard) @ CNOT @ np.kron(hadamard, hadamard)
    assert_allclose(turned, np.eye(4)[[0, 3, 2, 1]], atol=1e-12)
    z, one = np.diag([1.0, -1.0]), np.eye(2)
    # a reflection is a rotation and Z, and Z passes every CNOT on its way to the core
    assert_allclose(np.kron(z, one) @ CNOT, CNOT @ np.kron(z, one))
    assert_allclose(np.kron(one, z) @ CNOT, CNOT @ np.kron(z, z))


def test_a_circuit_of_gates_has_the_fewest_layers_and_keeps_their_order():
    gates = placed_gates(random_circuit(from_spec("2b + 2b", 4), seed=0))
    circuit = circuit_from_gates(4, gates, "SO")
    assert circuit.ansatz.depth == 2
    product = np.eye(16)
    for one in gates:
        product = product @ circuit_matrix(circuit_from_gates(4, [one], "SO"))
    assert_allclose(circuit_matrix(circuit), product, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 8), (16, 4), (2, 8)])
def test_the_core_absorbs_the_rotations_next_to_it(shape):
    p, q = (size.bit_length() - 1 for size in shape)
    left = random_circuit(from_spec("1b + CNOT + 1b" if p > 1 else "1b", p), seed=1)
    right = random_circuit(from_spec("1b + CNOT + 1b" if q > 1 else "1b", q), seed=2)
    legs = compress(np.ones(shape)).mpo
    legs = tuple(
        (legs.ind_size(legs.upper_ind(k)), legs.ind_size(legs.lower_ind(k))) for k in range(legs.L)
    )
    given = _factorization(left, right, legs=legs)
    found = absorb_into_core(given)
    assert_allclose(found.padded_to_dense(), given.padded_to_dense(), atol=1e-12)
    assert found.left.ansatz.placements[-1:] != [Placement((p - 1,))]
    inner = [*placed_gates(found.left)[-1:], *placed_gates(found.right)[:1]]
    assert all(place.width == 2 for place, _ in inner)
