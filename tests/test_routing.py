"""Gates on any wires as gates on neighbouring ones, against dense algebra."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, earliest_layers
from mpodis.circuit.circuit import Circuit, circuit_from_gates, random_circuit
from mpodis.circuit.routing import permuted_gate, routed, routed_circuit
from reference import circuit_matrix, embed, random_matrix


def one_gate(wires, n=5, fixed=None):
    return Ansatz(n, ((Placement(wires, fixed),),), "U")


@pytest.mark.parametrize(
    ("wires", "fixed", "swaps"),
    [
        ((0, 2), None, 2),
        ((2, 0), None, 2),
        ((4, 0), None, 6),
        ((1, 0), None, 0),
        ((0, 3, 4), None, 4),
        ((4, 0, 3), None, 4),
        ((0, 1, 4), None, 4),
        ((0, 2, 4), None, 4),
        ((3, 1, 0, 2), None, 0),
        ((0, 2), "CNOT", 2),
        ((1, 0), "CNOT", 2),
        ((2, 0), "CNOT", 4),
        ((2, 0), "CZ", 2),
        ((3, 0), "iSWAP", 4),
        ((1, 0), "ECR", 2),
    ],
)
def test_a_gate_between_the_fewest_swaps(wires, fixed, swaps):
    circuit = random_circuit(one_gate(wires, fixed=fixed), seed=0)
    found = routed(circuit.ansatz)
    assert found.ansatz.is_local
    assert found.n_swaps == swaps
    assert [place.fixed for place in found.ansatz.placements].count("SWAP") == swaps
    local = routed_circuit(circuit)
    assert_allclose(circuit_matrix(local), circuit_matrix(circuit), atol=1e-13)
    (back,) = found.original(local.gates)
    assert_array_equal(back, circuit.gates[0])


def random_ansatz(n, layers, seed, group="SO"):
    """Layers of gates of one to three wires, in any order, some of them fixed."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(layers):
        wires, layer = [int(wire) for wire in rng.permutation(n)], []
        while wires:
            own = [wires.pop() for _ in range(min(len(wires), int(rng.integers(1, 4))))]
            fixed = "CNOT" if len(own) == 2 and rng.random() < 0.3 else None
            layer.append(Placement(tuple(own), fixed))
        found.append(tuple(layer))
    return Ansatz(n, tuple(found), group)


@pytest.mark.parametrize("seed", range(8))
def test_random_circuits_keep_their_matrix_and_their_gates(seed):
    circuit = random_circuit(random_ansatz(5, 4, seed, "SO" if seed % 2 else "U"), seed=seed)
    found = routed(circuit.ansatz)
    local = Circuit(found.ansatz, found.gates(circuit.gates))
    assert local.ansatz.is_local
    assert local.ansatz.group == circuit.ansatz.group
    assert_allclose(circuit_matrix(local), circuit_matrix(circuit), atol=1e-12)
    for gate, back in zip(circuit.gates, found.original(local.gates), strict=True):
        assert_array_equal(back, gate)


def test_swaps_that_undo_each_other_are_left_out():
    layers = ((Placement((0, 2)),), (Placement((2, 0)),), (Placement((3,)),), (Placement((0, 2)),))
    assert routed(Ansatz(4, layers)).n_swaps == 2
    assert str(Ansatz(4, layers)).endswith("(1 x 1b, 3 x 2b, 3 not on neighbours), SO")
    # a SWAP of the user's own stays
    own = Ansatz(3, ((Placement((0, 1), "SWAP"),), (Placement((0, 1), "SWAP"),)))
    assert routed(own).ansatz == own


def test_a_brickwall_is_routed_already():
    circuit = random_circuit(brickwall(5, 4, parity=1), seed=0)
    assert routed_circuit(circuit) is circuit
    found = routed(circuit.ansatz)
    assert found.ansatz == circuit.ansatz
    assert found.numbers == tuple(range(len(circuit.gates)))
    assert found.n_swaps == 0


def test_environments_are_mapped_back_as_gates_are():
    # Re Tr(E'^H g') = Re Tr(E^H g) for every gate g
    circuit = random_circuit(one_gate((4, 0, 2)), seed=0)
    found = routed(circuit.ansatz)
    moved = [random_matrix(gate.shape, True, 1) for gate in found.gates(circuit.gates)]
    (environment,) = found.original(moved)
    number = found.numbers[0]
    expected = np.vdot(moved[number], found.gates(circuit.gates)[number])
    assert_allclose(np.vdot(environment, circuit.gates[0]), expected, rtol=1e-12)
    assert found.original([None] * len(moved)) == [None]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_permuted_gate_acts_on_permuted_wires(order):
    gate = random_matrix((8, 8), seed=0)
    wires = (1, 3, 0)
    moved = permuted_gate(gate, order)
    assert_allclose(embed(moved, [wires[k] for k in order], 4), embed(gate, wires, 4))


def test_layers_are_as_early_as_the_order_allows():
    places = [Placement((0, 1)), Placement((2,)), Placement((1, 2)), Placement((3,))]
    assert earliest_layers(places) == [[0, 1, 3], [2]]
    gates = [random_matrix((2**place.width,) * 2, seed=k) for k, place in enumerate(places)]
    circuit = circuit_from_gates(4, list(zip(places, gates, strict=True)), "O")
    assert circuit.ansatz.depth == 2
    expected = np.eye(16)
    for place, gate in zip(places, gates, strict=True):
        expected = expected @ embed(gate, place.wires, 4)
    assert_allclose(circuit.to_dense(), expected, atol=1e-12)
