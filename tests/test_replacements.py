"""What replaces a layer: rotations, orders, and every form at its own loss."""

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import count_parameters, low_rank
from mpodis.circuit.ansatz import Ansatz, brickwall, tie_gates
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.conventions import qubit_legs
from mpodis.data import load_data
from mpodis.factorization import Factorization
from mpodis.fit import weighted_loss
from mpodis.gates import named_gate, random_gate
from mpodis.nn import accuracy, dense_network
from mpodis.paper import replacements
from mpodis.paper.replacements import (
    Effort,
    Layer,
    Slot,
    circuits,
    gate_count,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.paper.rotations import as_rotations, gate_angles
from mpodis.sites import mpo_from_tensors
from mpodis.structured import improve_permutation, mpo_parameters
from reference import (
    centred_legs,
    random_cores,
    random_covariance,
    random_matrix,
    random_member,
    random_reordering,
    small_bond,
)

QUICK = Effort(starts=1, max_sweeps=5, rounds=1)


def rotation(angle):
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def from_angles(a, b):
    """The formula of the module."""
    cnot = named_gate("CNOT").matrix
    outer, middle, inner = (
        np.kron(rotation(s), rotation(t)) for s, t in ((b[0], a[0]), (a[1], b[1]), (b[2], a[2]))
    )
    return outer @ cnot @ middle @ cnot @ inner


SPECIAL = {
    "identity": np.eye(4),
    "minus one": -np.eye(4),
    "product": np.kron(rotation(0.3), rotation(-1.2)),
    "SWAP and a sign": np.diag([1.0, 1, 1, -1])[[0, 2, 1, 3]],
    "two CNOTs": named_gate("CNOT").matrix @ named_gate("CNOT").matrix[::-1, ::-1],
}


@pytest.mark.parametrize("seed", range(6))
def test_every_gate_of_so4_has_its_angles(seed):
    gate = random_member(4, "SO", seed)
    assert_allclose(from_angles(*gate_angles(gate)), gate, atol=1e-13)


@pytest.mark.parametrize("gate", SPECIAL.values(), ids=SPECIAL)
def test_special_gates_have_angles_too(gate):
    assert_allclose(from_angles(*gate_angles(gate)), gate, atol=1e-13)


def factorization(n_left, n_right, depth, *, bond=2, fill=True, group="SO"):
    sides = [brickwall(n_left, depth, group=group, fill=fill)]
    sides.append(brickwall(n_right, depth, group=group, fill=fill).reversed())
    left, right = (random_circuit(side, seed=k) for k, side in enumerate(sides))
    core = mpo_from_tensors(random_cores(centred_legs(n_left, n_right), bond))
    return Factorization(left, core, right, (2**n_left, 2**n_right))


@pytest.mark.parametrize(
    ("left", "right", "depth", "fill"),
    [(4, 4, 3, False), (4, 4, 3, True), (5, 3, 4, True), (2, 4, 2, False), (3, 3, 0, True)],
)
def test_rotations_are_the_same_operator_at_four_numbers_a_gate(left, right, depth, fill):
    if depth:
        given = factorization(left, right, depth, fill=fill)
    else:
        given = factorization(left, right, 1)
        none = Circuit(Ansatz(3, ()), ())
        given = Factorization(none, given.core, none, given.shape)
    found = as_rotations(given)
    assert_allclose(found.to_dense(), given.to_dense(), atol=1e-12)
    pairs = sum(
        place.width == 2 for side in (given.left, given.right) for place in side.ansatz.placements
    )
    counts = found.parameter_counts()
    assert counts["left gates"] + counts["right gates"] == 4 * pairs
    assert counts["core"] == count_parameters(given.core)
    places = [*found.left.ansatz.placements, *found.right.ansatz.placements]
    assert all(place.fixed == "CNOT" for place in places if place.width == 2)
    assert sum(place.width == 2 for place in places) == 2 * pairs
    if not fill and left == right:
        assert pairs == gate_count(given.shape, depth)


@pytest.mark.parametrize(("mirrored", "gates", "numbers"), [(False, 10, 40), (True, 6, 28)])
def test_four_numbers_of_a_free_gate_are_independent_and_more_of_a_mirrored_one(
    mirrored, gates, numbers
):
    """So many directions does the operator move in when all gates of SO(4) and the core move."""
    given = factorization(4, 4, 3, bond=1, fill=False)
    if mirrored:
        walls = (tie_gates(c.ansatz, by="mirror") for c in (given.left, given.right))
        left, right = (random_circuit(wall, seed=k) for k, wall in enumerate(walls))
        given = Factorization(left, given.core, right, given.shape)
    assert len(given.left.ansatz.free) + len(given.right.ansatz.free) == gates
    tangents = []
    for side in ("left", "right"):
        circuit = getattr(given, side)
        loose = brickwall(4, 3, fill=False)  # places of a tied gate move one by one
        loose = loose if side == "left" else loose.reversed()
        for places in circuit.ansatz.free:
            for p, q in zip(*np.triu_indices(4, 1), strict=True):
                skew = np.zeros((4, 4))
                skew[p, q], skew[q, p] = 1, -1
                tangent = 0
                for j in places:
                    moved = list(circuit.gates)
                    moved[j] = moved[j] @ skew
                    parts = {"left": given.left, "right": given.right}
                    parts[side] = Circuit(loose, tuple(moved))
                    parts = (parts["left"], given.core, parts["right"], given.shape)
                    tangent = tangent + Factorization(*parts).to_dense().ravel()
                tangents.append(tangent)
    cores = random_cores(centred_legs(4, 4), 1)
    for k, core in enumerate(cores):
        for place in np.ndindex(core.shape):
            unit = np.zeros(core.shape)
            unit[place] = 1
            moved = mpo_from_tensors([*cores[:k], unit, *cores[k + 1 :]])
            tangents.append(
                Factorization(given.left, moved, given.right, given.shape).to_dense().ravel()
            )
    values = np.linalg.svd(np.array(tangents), compute_uv=False)
    # of the gates, and 16 numbers of the core less its 3 scales
    assert (values > 1e-9 * values[0]).sum() == numbers + 16 - 3


@pytest.mark.parametrize(
    ("circuit", "message"),
    [
        (random_circuit(brickwall(3, 1, 3), seed=0), r"a gate on wires \(0, 1, 2\) is no gate of"),
        (Circuit(brickwall(2, 1, group="O"), (np.diag([1.0, 1, 1, -1]),)), "not in SO"),
        (
            Circuit(
                brickwall(2, 1, group="U"),
                (random_gate(4, group="U", rng=np.random.default_rng(0)),),
            ),
            "not in SO",
        ),
    ],
)
def test_gates_that_have_no_angles(circuit, message):
    core = mpo_from_tensors(random_cores(centred_legs(circuit.n, circuit.n), 1))
    none = Circuit(Ansatz(circuit.n, ()), ())
    with pytest.raises(ValueError, match=message):
        as_rotations(Factorization(circuit, core, none, (2**circuit.n,) * 2))


# --- orders


@pytest.mark.parametrize("weighted", [False, True])
def test_a_nearer_order_is_never_farther_and_finds_a_shuffle(weighted):
    matrix = random_matrix((12, 10))
    moments = {}
    if weighted:
        moments = {
            "covariance": random_covariance(12),
            "sensitivity": random_covariance(10, seed=2),
        }
    fixed = random_reordering((12, 10)).apply(matrix)
    step = improve_permutation(matrix, fixed, **moments)
    metrics = (moments.get("covariance"), moments.get("sensitivity"))
    before = Layer(
        matrix, *(np.eye(n) if m is None else m for n, m in zip((12, 10), metrics, strict=True))
    )
    assert before.reordered(step).loss(fixed) < before.loss(fixed)
    columns = random_reordering((12, 10), seed=3).columns
    only = improve_permutation(matrix, matrix[:, columns], rows=False, **moments)
    assert_allclose(only.rows, np.arange(12))
    if not weighted:
        assert_allclose(only.apply(matrix), matrix[:, columns])


def test_orders_need_matrices_of_one_shape():
    with pytest.raises(ValueError, match=r"shape \(4, 4\) and an approximation of shape \(4, 2\)"):
        improve_permutation(random_matrix((4, 4)), random_matrix((4, 2)))


# --- stand-ins


@pytest.fixture(scope="module")
def layer():
    return Layer(random_matrix((16, 8)), random_covariance(16), random_covariance(8, seed=2))


def check(layer, one):
    assert one.matrix.shape == layer.matrix.shape
    metrics = (layer.covariance, layer.sensitivity)
    assert_allclose(one.loss, weighted_loss(layer.matrix, one.matrix, *metrics), rtol=1e-9)
    assert 0 < one.loss < 1


def test_deeper_circuits_are_never_worse_and_cost_what_they_say(layer):
    found = list(circuits(layer, 1, (2, 3), QUICK))
    for depth, one in zip((2, 3), found, strict=True):
        check(layer, one)
        gates, core = gate_count((16, 8), depth), 3 * 4 + 2
        assert (one.parameters, one.independent) == (6 * gates + core, 4 * gates + core)
        assert one.name == f"chi 1, depth {depth}"
    assert found[1].loss <= found[0].loss + 1e-12


def test_mirrored_gates_are_counted_once(layer):
    found = list(circuits(layer, 1, (2, 3), QUICK, mirrored=True))
    # inputs: 2, 1 and 2 gates in layers, of which 1, 1 and 1 differ; outputs: 1, 1 and 1
    for gates, one in zip((4, 6), found, strict=True):
        check(layer, one)
        assert one.parameters == one.independent == 6 * gates + 3 * 4 + 2
    assert found[1].loss <= found[0].loss + 1e-12
    assert gate_count((64, 64), 5, mirrored=True) == 2 * (2 + 1 + 2 + 1 + 2)
    assert gate_count((64, 64), 5) == 2 * (3 + 2 + 3 + 2 + 3)


def test_the_core_alone_is_a_circuit_of_no_layers(layer):
    plain = plain_mpo(layer, 2, QUICK)
    check(layer, plain)
    assert (plain.independent, plain.name) == (plain.parameters, "chi 2")
    assert plain.parameters == mpo_parameters(qubit_legs(16, 8), 2)
    around = next(circuits(layer, 2, (2,), QUICK))
    assert around.loss < plain.loss


def test_what_is_given_as_order_is_where_the_search_begins(layer):
    """A product that is shuffled is found from its own order."""
    order = random_reordering((16, 8))
    product = small_bond(qubit_legs(16, 8), 1)
    hidden = Layer(order.undo(product), np.eye(16))
    assert plain_mpo(hidden, 1, QUICK, [order]).loss < 1e-10


def test_low_rank_is_that_of_the_package(layer):
    found = rank_matrix(layer, 2)
    check(layer, found)
    expected = low_rank(layer.matrix, 2, covariance=layer.covariance, sensitivity=layer.sensitivity)
    assert_allclose(found.matrix, expected.matrix)
    assert found.parameters == 2 * 24


def test_more_orders_of_a_monarch_matrix_are_never_worse(layer, monkeypatch):
    quick = functools.partial(
        replacements.best_monarch, fits=1, n_init=1, max_sweeps=2, iterations=9
    )
    monkeypatch.setattr(replacements, "best_monarch", quick)
    alone, several = (monarch_matrix(layer, 60, QUICK, orders=k) for k in (1, 3))
    for one in (alone, several):
        check(layer, one)
        assert one.parameters >= 60
    assert several.loss < alone.loss


def test_inputs_that_are_padded_go_anywhere():
    small = Layer(random_matrix((12, 8)), random_covariance(12))
    found = next(circuits(small, 1, (2,), QUICK))
    check(small, found)
    assert small.padded().matrix.shape == (16, 8)
    assert_allclose(small.padded().loss(np.zeros((16, 8))), 1)


@pytest.mark.parametrize("objective", ["activations", "sensitivity"])
def test_a_place_answers_the_mean_image_as_before(objective):
    images = load_data("digits")
    model = dense_network((64, 8, 10), seed=0).double()
    place = Slot.of(model, "0", images.x_train, objective)
    assert (place.layer.sensitivity is None) == (objective == "activations")
    assert_allclose(place.layer.matrix, model[0].weight.detach().numpy().T)
    filled = place.filled(np.zeros((64, 8)))
    mean = images.x_train.mean(axis=0)
    expected = mean @ place.layer.matrix + place.bias
    assert_allclose(filled[0].bias.detach().numpy(), expected, rtol=1e-9)
    same = place.filled(place.layer.matrix)
    assert accuracy(same, images.x_test, images.y_test) == accuracy(
        model, images.x_test, images.y_test
    )
