"""What replaces a layer: its independent numbers, orders, and every form at its own loss."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import low_rank
from mpodis.circuit.ansatz import brickwall, tie_gates
from mpodis.circuit.circuit import Circuit, random_circuit
from mpodis.conventions import qubit_legs
from mpodis.data import load_data
from mpodis.factorization import Factorization
from mpodis.fit import weighted_loss
from mpodis.nn import accuracy, dense_network
from mpodis.paper.replacements import (
    Effort,
    Layer,
    circuits,
    gate_count,
    slot,
    without_gates,
)
from mpodis.sites import mpo_from_tensors
from mpodis.structured import improve_permutation, mpo_parameters
from reference import (
    centred_legs,
    random_cores,
    random_covariance,
    random_matrix,
    random_reordering,
    small_bond,
)

QUICK = Effort(starts=1, max_sweeps=5, rounds=1, between=1)


@pytest.mark.parametrize(("mirrored", "gates", "numbers"), [(False, 10, 40), (True, 6, 28)])
def test_four_numbers_of_a_free_gate_are_independent_and_more_of_a_mirrored_one(
    mirrored, gates, numbers
):
    """So many directions does the operator move in when all gates of SO(4) and the core move."""
    walls = (brickwall(4, 3, fill=False), brickwall(4, 3, fill=False).reversed())
    if mirrored:
        walls = (tie_gates(wall, by="mirror") for wall in walls)
    left, right = (random_circuit(wall, seed=k) for k, wall in enumerate(walls))
    cores = random_cores(centred_legs(4, 4), 1)
    given = Factorization(left, mpo_from_tensors(cores), right, (16, 16))
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
    """Its loss, from dense matrices."""
    assert one.matrix.shape == layer.matrix.shape
    loss = layer.loss(one.matrix)
    metrics = (layer.covariance, layer.sensitivity)
    assert_allclose(loss, weighted_loss(layer.matrix, one.matrix, *metrics), rtol=1e-9)
    assert 0 < loss < 1
    return loss


def test_deeper_circuits_are_never_worse_and_cost_what_they_say(layer):
    found = list(circuits(layer, 1, (2, 3), QUICK))
    for depth, one in zip((2, 3), found, strict=True):
        assert one.parameters == 6 * gate_count((16, 8), depth) + 3 * 4 + 2
        assert one.name == f"chi 1, depth {depth}"
    first, second = (check(layer, one) for one in found)
    assert second <= first + 1e-12
    assert layer.nearest(found) is found[1]


def test_mirrored_gates_are_counted_once(layer):
    found = list(circuits(layer, 1, (2, 3), QUICK, mirrored=True))
    # inputs: 2, 1 and 2 gates in layers, of which 1, 1 and 1 differ; outputs: 1, 1 and 1
    assert [one.parameters for one in found] == [6 * gates + 3 * 4 + 2 for gates in (4, 6)]
    first, second = (check(layer, one) for one in found)
    assert second <= first + 1e-12
    assert gate_count((64, 64), 5, mirrored=True) == 2 * (2 + 1 + 2 + 1 + 2)
    assert gate_count((64, 64), 5) == 2 * (3 + 2 + 3 + 2 + 3)


def test_the_core_alone_is_a_circuit_of_no_layers(layer):
    plain = without_gates(layer, "plain MPO", 2, QUICK)
    assert plain.name == "chi 2"
    assert plain.parameters == mpo_parameters(qubit_legs(16, 8), 2)
    around = next(circuits(layer, 2, (2,), QUICK))
    assert check(layer, around) < check(layer, plain)


def test_what_is_given_as_order_is_where_the_search_begins(layer):
    """A product that is shuffled is found from its own order."""
    order = random_reordering((16, 8))
    product = small_bond(qubit_legs(16, 8), 1)
    hidden = Layer(order.undo(product), np.eye(16))
    found = without_gates(hidden, "plain MPO", 1, QUICK, [order])
    assert hidden.loss(found.matrix) < 1e-10


def test_low_rank_is_that_of_the_package(layer):
    found = without_gates(layer, "low rank", 2, QUICK)
    check(layer, found)
    expected = low_rank(layer.matrix, 2, covariance=layer.covariance, sensitivity=layer.sensitivity)
    assert_allclose(found.matrix, expected.matrix)
    assert found.parameters == 2 * 24


def test_more_orders_of_a_monarch_matrix_are_never_worse(layer):
    few = {"fits": 1, "n_init": 1, "max_sweeps": 2, "max_iterations": 9}
    alone, several = (
        without_gates(layer, "Monarch", 60, QUICK, turns=turns, **few) for turns in (1, 3)
    )
    assert min(alone.parameters, several.parameters) >= 60
    assert check(layer, several) < check(layer, alone)


def test_inputs_that_are_padded_go_anywhere():
    small = Layer(random_matrix((12, 8)), random_covariance(12))
    found = next(circuits(small, 1, (2,), QUICK))
    check(small, found)
    assert small.padded().matrix.shape == (16, 8)
    assert_allclose(small.padded().loss(np.zeros((16, 8))), 1)


@pytest.mark.parametrize("objective", ["activations", "sensitivity"])
def test_a_layer_answers_the_mean_image_as_before(objective):
    images = load_data("digits")
    model = dense_network((64, 8, 10), seed=0).double()
    layer, filled = slot(model, "0", images.x_train, objective)
    assert (layer.sensitivity is None) == (objective == "activations")
    assert_allclose(layer.matrix, model[0].weight.detach().numpy().T)
    mean = images.x_train.mean(axis=0)
    expected = mean @ layer.matrix + model[0].bias.detach().numpy()
    bias = filled(np.zeros((64, 8)))[0].bias
    assert_allclose(bias.detach().numpy(), expected, rtol=1e-9)
    same = filled(layer.matrix)
    assert accuracy(same, images.x_test, images.y_test) == accuracy(
        model, images.x_test, images.y_test
    )
