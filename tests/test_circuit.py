"""Circuits against embedded gates: matrix, action, adjoint, network, and how they are made."""

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, tie_gates
from mpodis.circuit.circuit import (
    Circuit,
    apply_columns,
    apply_rows,
    identity_circuit,
    random_circuit,
)
from mpodis.circuit.circuit import (
    embed as embed_circuit,
)
from mpodis.circuit.spec import from_spec
from mpodis.gates import GROUPS
from reference import CASES, CNOT, build_circuit, circuit_matrix, embed, random_matrix

SIDES = ("left", "right")
IDLE = from_spec("CNOT + 3b", 5, fill=False)  # wire 4 has no gate
APART = Ansatz(
    4,
    (
        (Placement((0, 2)), Placement((3, 1))),
        (Placement((2, 0), "CNOT"),),
        (Placement((0, 1)), Placement((3, 2), "ECR")),
        (Placement((3, 0, 1)),),
    ),
    "U",
)


def contracted(network, n, upper="k{}", lower="b{}"):
    """Dense matrix of a network of 2 n legs, rows first."""
    if n == 0:
        return np.ones((1, 1))
    rows, columns = ([name.format(i) for i in range(n)] for name in (upper, lower))
    return network.to_dense(rows, columns)


# --- single gates


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(
    "wires",
    [(0,), (3,), (0, 1), (1, 2), (2, 3), (0, 1, 2, 3), (0, 2), (2, 0), (3, 1), (0, 3), (3, 0, 2)],
)
def test_a_gate_on_rows_and_columns(wires, complex_):
    gate = random_matrix((2 ** len(wires),) * 2, complex_, 1)
    full = embed(gate, wires, 4)
    x = random_matrix((16, 3), complex_, 2)
    assert_allclose(apply_rows(gate, x, wires), full @ x, atol=1e-13)
    assert_allclose(apply_columns(x.T, gate, wires), x.T @ full, atol=1e-13)


# --- the matrix and what follows from it


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_matrix_is_the_product_of_the_embedded_gates(case, side):
    circuit = build_circuit(case, side, 1)
    found, expected = circuit.to_dense(), circuit_matrix(circuit)
    assert_allclose(found, expected, atol=1e-12)
    size = 2**circuit.n
    assert found.shape == (size, size)
    assert_allclose(found.conj().T @ found, np.eye(size), atol=1e-12)
    assert circuit.is_complex == (case.complex and bool(circuit.gates))
    if case.group == "SO" and "CNOT" not in case.layers:
        assert_allclose(np.linalg.det(found), 1, atol=1e-11)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_apply_is_x_at_q(case, side):
    circuit = build_circuit(case, side, 2)
    x = random_matrix((5, 2**circuit.n), case.complex)
    before = x.copy()
    assert_allclose(circuit.apply(x), x @ circuit_matrix(circuit), atol=1e-12)
    assert_allclose(circuit.apply(x[0]), x[0] @ circuit_matrix(circuit), atol=1e-12)
    assert_array_equal(x, before)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_adjoint_undoes_the_circuit(case, side):
    circuit = build_circuit(case, side, 3)
    back = circuit.adjoint()
    assert_allclose(back.to_dense(), circuit.to_dense().conj().T, atol=1e-12)
    x = random_matrix((2, 2**circuit.n), case.complex)
    assert_allclose(back.apply(circuit.apply(x)), x, atol=1e-12)
    assert back.ansatz.group == case.group
    again = back.adjoint()
    assert again.ansatz == circuit.ansatz
    for a, b in zip(again.gates, circuit.gates, strict=True):
        assert_array_equal(a, b)


def test_a_row_vector_meets_the_first_layer_first():
    # X on wire 0, then a CNOT from wire 0 to wire 1: |00> -> |10> -> |11>
    flip = np.array([[0.0, 1.0], [1.0, 0.0]])
    ansatz = Ansatz(2, ((Placement((0,)),), (Placement((0, 1), "CNOT"),)), "O")
    circuit = Circuit(ansatz, (flip, CNOT))
    assert_array_equal(circuit.apply(np.eye(4)[0]), np.eye(4)[3])
    assert_array_equal(circuit.adjoint().apply(np.eye(4)[3]), np.eye(4)[0])


def test_no_gates_do_nothing():
    circuit = Circuit(Ansatz(3, ()), ())
    assert_array_equal(circuit.to_dense(), np.eye(8))
    assert not circuit.is_complex
    assert_array_equal(Circuit(Ansatz(0, ()), ()).to_dense(), np.eye(1))


def test_a_mixture_of_dtypes_takes_the_widest():
    ansatz = brickwall(2, 2, 1)
    real, small = np.eye(2), np.eye(2, dtype=np.complex64)
    assert Circuit(ansatz, (real, real, small, real)).to_dense().dtype == np.complex128
    assert Circuit(ansatz, (small,) * 4).to_dense().dtype == np.complex64


def test_float32_stays():
    circuit = random_circuit(brickwall(4, 2), seed=0)
    small = Circuit(circuit.ansatz, [gate.astype(np.float32) for gate in circuit.gates])
    assert small.to_dense().dtype == np.float32
    assert_allclose(small.to_dense(), circuit.to_dense(), atol=1e-6)


def test_gates_on_any_wires_in_any_order():
    circuit = random_circuit(APART, seed=0)
    expected = circuit_matrix(circuit)
    x = random_matrix((3, 16), True)
    assert_allclose(circuit.to_dense(), expected, atol=1e-13)
    assert_allclose(circuit.apply(x), x @ expected, atol=1e-13)
    assert_allclose(circuit.adjoint().to_dense(), expected.conj().T, atol=1e-13)
    assert_allclose(contracted(circuit.tensor_network(), 4), expected, atol=1e-13)
    larger = Ansatz(4, (*APART.layers, (Placement((1, 3)),)), "U")
    assert_allclose(embed_circuit(circuit, larger).to_dense(), expected, atol=1e-13)


# --- validation


def test_every_placement_has_a_gate():
    with pytest.raises(ValueError, match="3 gates were given for 2 placements"):
        Circuit(brickwall(4, 1), (np.eye(4),) * 3)


def test_a_gate_fits_its_wires():
    with pytest.raises(ValueError, match=r"gate 1 has shape \(2, 2\), but acts on wires \(2, 3\)"):
        Circuit(brickwall(4, 1), (np.eye(4), np.eye(2)))


def test_x_has_one_column_per_state():
    with pytest.raises(ValueError, match="x has 6 columns, but 3 wires carry 8"):
        identity_circuit(brickwall(3, 1)).apply(np.ones((2, 6)))


# --- making circuits


@pytest.mark.parametrize("group", GROUPS)
def test_the_identity_but_for_fixed_gates(group):
    circuit = identity_circuit(from_spec("1b + 3b + 2b", 5, group=group))
    assert circuit.is_complex == (group == "U")
    assert_array_equal(circuit.to_dense(), np.eye(32))
    scaffold = identity_circuit(from_spec("1b + CNOT + 2b", 5, group=group))
    expected = embed(CNOT, (0, 1), 5) @ embed(CNOT, (2, 3), 5)
    assert_array_equal(scaffold.to_dense(), expected)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("scale", [None, 0.01])
def test_random_gates_are_in_the_group_and_fixed_ones_stay(group, scale):
    circuit = random_circuit(from_spec("1b + CNOT + 3b", 5, group=group), seed=0, scale=scale)
    assert circuit.is_complex == (group == "U")
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        assert_allclose(gate.conj().T @ gate, np.eye(2**place.width), atol=1e-13)
        if place.fixed:
            assert_array_equal(gate, CNOT)
        elif scale is not None:
            assert 0 < np.linalg.norm(gate - np.eye(2**place.width)) < 0.2
        elif group == "SO":
            assert_allclose(np.linalg.det(gate), 1, atol=1e-13)


def test_seeds():
    ansatz = brickwall(4, 2)
    one, same = (random_circuit(ansatz, seed=7) for _ in range(2))
    assert_array_equal(one.to_dense(), same.to_dense())
    rng = np.random.default_rng(7)
    first, second = (random_circuit(ansatz, seed=rng) for _ in range(2))
    assert_array_equal(first.to_dense(), one.to_dense())
    assert np.abs(second.to_dense() - first.to_dense()).max() > 0.1
    assert np.abs(random_circuit(ansatz).to_dense() - one.to_dense()).max() > 0.1


def test_a_made_circuit_has_gates_of_its_own():
    circuit = identity_circuit(from_spec("CNOT + 1b", 2))
    circuit.gates[0][0, 0] = 5
    assert_array_equal(identity_circuit(from_spec("CNOT", 2)).gates[0], CNOT)


@pytest.mark.parametrize("group", GROUPS)
def test_projected_puts_free_gates_back_onto_the_group(group):
    circuit = random_circuit(from_spec("CNOT + 2b", 4, group=group), seed=0)
    fixed = [place.fixed is not None for place in circuit.ansatz.placements]
    noisy = [
        gate if stays else gate + 1e-9 * random_matrix(gate.shape, group == "U")
        for gate, stays in zip(circuit.gates, fixed, strict=True)
    ]
    back = Circuit(circuit.ansatz, noisy).projected()
    assert back.ansatz == circuit.ansatz
    assert_allclose(back.to_dense(), circuit.to_dense(), atol=1e-7)
    for gate, stays in zip(back.gates, fixed, strict=True):
        assert_allclose(gate.conj().T @ gate, np.eye(len(gate)), atol=1e-14)
        if stays:
            assert_array_equal(gate, CNOT)


# --- quimb network


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_contracts_to_the_matrix(case, side):
    circuit = build_circuit(case, side, 4)
    network = circuit.tensor_network()
    assert isinstance(network, qtn.TensorNetwork)
    assert_allclose(contracted(network, circuit.n), circuit.to_dense(), atol=1e-12)
    assert len(network.tensors) == len(circuit.gates)  # no wire of a case is idle


def test_the_network_carries_its_tags():
    circuit = random_circuit(IDLE, seed=0)
    network = circuit.tensor_network(side="LEFT")
    assert all("LEFT" in tensor.tags for tensor in network)
    places = [(t, place) for t, layer in enumerate(IDLE.layers) for place in layer]
    for j, (t, place) in enumerate(places):
        tensor = network[f"GATE{j}"]
        wires = {f"I{i}" for i in place.wires}
        names = {place.fixed} if place.fixed else set()
        expected = {"LEFT", f"LAYER{t}", f"GATE{j}", "GROUP=SO", *wires, *names}
        assert set(tensor.tags) == expected
        rows = 2**place.width
        assert_array_equal(tensor.data.reshape(rows, rows), circuit.gates[j])


TIED = tie_gates(from_spec("2b + CNOT + 2b", 5))
NETWORKS = {"any wires": APART, "idle": IDLE, "tied": TIED, "none": Ansatz(2, ())}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_the_circuit_back(name):
    circuit = random_circuit(NETWORKS[name], seed=0)
    n = circuit.n
    ends = {"upper": [f"in{i}" for i in range(n)], "lower": [f"out{i}" for i in range(n)]}
    network = circuit.tensor_network(side="A", **ends)
    other = random_circuit(brickwall(n, 2), seed=1)
    network |= other.tensor_network(side="B", upper=ends["lower"])  # left aside
    back = Circuit.from_tensor_network(network, side="A", **ends)
    assert back.ansatz == circuit.ansatz
    for gate, again in zip(circuit.gates, back.gates, strict=True):
        assert_array_equal(gate, again)


def read_back(circuit, change):
    """The circuit of a network after `change(network)`."""
    network = circuit.tensor_network()
    change(network)
    ends = {
        "upper": [f"k{i}" for i in range(circuit.n)],
        "lower": [f"b{i}" for i in range(circuit.n)],
    }
    return Circuit.from_tensor_network(network, side="Q", **ends)


def put(number, matrix):
    def change(network):
        tensor = network[f"GATE{number}"]
        tensor.modify(data=matrix.reshape((2,) * tensor.ndim))

    return change


@pytest.mark.parametrize(
    ("matrix", "group"),
    [(np.diag([1.0, 1, -1, -1]), "SO"), (np.diag([1.0, 1, 1, -1]), "O"), (np.eye(4) * 1j, "U")],
)
def test_the_group_grows_with_what_the_data_have_become(matrix, group):
    circuit = random_circuit(from_spec("2b + CNOT", 4), seed=0)
    back = read_back(circuit, put(1, matrix))
    assert back.ansatz.group == group
    assert_array_equal(back.gates[1], matrix)
    assert [place.fixed for place in back.ansatz.placements] == [None, None, "CNOT"]


def test_a_fixed_or_tied_gate_that_was_changed_is_free():
    circuit = random_circuit(TIED, seed=0)
    fixed = [j for j, place in enumerate(TIED.placements) if place.fixed]
    changed = read_back(circuit, put(fixed[0], np.eye(4))).ansatz
    assert [j for j, place in enumerate(changed.placements) if place.fixed] == fixed[1:]
    assert changed.ties == TIED.ties
    loosened = read_back(circuit, put(0, np.eye(4))).ansatz
    assert [*loosened.ties] == [tie for tie in TIED.ties if tie != TIED.placements[0].tie]


def test_indices_in_another_order_are_the_same_gate():
    circuit = random_circuit(APART, seed=0)

    def turn(network):
        for tensor in network:
            tensor.transpose_(*reversed(tensor.inds))

    back = read_back(circuit, turn)
    assert_allclose(back.to_dense(), circuit.to_dense(), atol=1e-14)


def test_networks_that_hold_no_circuit():
    circuit = random_circuit(brickwall(3, 2), seed=0)
    with pytest.raises(ValueError, match="0 tensors are tagged Q and GATE1, expected 1"):
        read_back(circuit, lambda network: network.delete("GATE1"))
    with pytest.raises(ValueError, match="GATE0 of Q has indices .* should continue"):
        read_back(circuit, lambda network: network.reindex_({"k0": "z"}))


def test_a_wire_without_gates_is_a_delta():
    circuit = random_circuit(IDLE, seed=0)
    network = circuit.tensor_network()
    idle = network["IDLE"]
    assert set(idle.tags) == {"Q", "IDLE", "I4"}
    assert idle.inds == ("k4", "b4")
    assert_allclose(contracted(network, 5), circuit.to_dense(), atol=1e-13)


def test_indices_by_name():
    circuit = random_circuit(IDLE, seed=0)
    network = circuit.tensor_network(
        upper=[f"in{i}" for i in range(5)], lower=[f"out{i}" for i in range(5)]
    )
    assert set(network.outer_inds()) == {f"{name}{i}" for name in ("in", "out") for i in range(5)}
    assert_allclose(contracted(network, 5, "in{}", "out{}"), circuit.to_dense(), atol=1e-13)


def test_circuits_chain_as_networks():
    # the lower indices of the first are the upper ones of the second
    a, b = (random_circuit(brickwall(3, 2, parity=s), seed=s) for s in (0, 1))
    middle = [f"m{i}" for i in range(3)]
    network = a.tensor_network(side="A", lower=middle) | b.tensor_network(side="B", upper=middle)
    assert_allclose(contracted(network, 3), a.to_dense() @ b.to_dense(), atol=1e-13)


def test_gates_in_front_of_many_wires():
    x, gate = random_matrix((3, 2**8), seed=0), random_matrix((4, 4), seed=1)
    assert_allclose(apply_columns(x, gate, (0, 1)), x @ np.kron(gate, np.eye(2**6)), atol=1e-13)


def test_the_adjoint_has_the_reversed_ansatz():
    circuit = random_circuit(from_spec("2b + 1b + CNOT + 3b", 5), seed=0)
    assert circuit.adjoint().ansatz == circuit.ansatz.reversed()
    back = circuit.adjoint().adjoint()
    assert back.ansatz == circuit.ansatz
    for gate, again in zip(circuit.gates, back.gates, strict=True):
        assert_array_equal(gate, again)
