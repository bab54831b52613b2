"""Orders of neurons: planted ones are recovered, and no search increases the loss."""

import numpy as np
import pytest

from mpodis.conventions import qubit_legs
from mpodis.fit import weighted_loss
from mpodis.sites import mpo_to_dense
from mpodis.structured import neuron_order, site_order
from mpodis.structured.neuron_order import recursive_bisection
from reference import TOL, random_covariance, random_matrix, random_reordering, small_bond

EXACT = TOL["float64"]


def test_shuffled_neurons_of_a_product_are_recovered():
    planted = small_bond(qubit_legs(16, 16), 1, seed=4)
    shuffled = random_reordering((16, 16)).apply(planted)
    columns = neuron_order(shuffled, max_bond=1, restarts=30)
    assert columns.before > 0.5
    assert columns.after < 1e-10
    there = columns.reordering.apply(shuffled)
    assert weighted_loss(there, mpo_to_dense(columns.core)) < 1e-10


def test_shuffled_blocks_are_recovered():
    blocks = np.kron(np.eye(8), np.ones((8, 8))) + 0.05 * random_matrix((64, 64))
    shuffled = random_reordering((64, 64)).apply(blocks)
    found = neuron_order(shuffled, max_bond=2)
    assert found.before > 0.5
    assert found.after < 0.05


@pytest.mark.parametrize(
    ("rows", "columns", "covariance", "sensitivity"),
    [
        (True, True, False, False),
        (True, True, True, False),
        (False, True, True, True),
        (True, False, False, True),
    ],
)
@pytest.mark.parametrize("complex", [False, True])
def test_a_search_is_never_worse_and_its_core_has_its_loss(
    rows, columns, covariance, sensitivity, complex
):
    matrix = random_matrix((20, 12), complex)
    metrics = {
        "covariance": random_covariance(20, complex) if covariance else None,
        "sensitivity": random_covariance(12, complex, seed=2) if sensitivity else None,
    }
    found = neuron_order(matrix, max_bond=2, rows=rows, columns=columns, restarts=1, **metrics)
    moved = found.reordering
    assert found.after <= found.before
    assert found.status == "search"
    if not rows:
        np.testing.assert_array_equal(moved.rows, np.arange(20))
    if not columns:
        np.testing.assert_array_equal(moved.columns, np.arange(12))

    def pad(x, shape):
        return np.pad(x, [(0, b - a) for a, b in zip(x.shape, shape, strict=True)])

    padded = {
        "metric": pad(moved.covariance(metrics["covariance"]), (32, 32)) if covariance else None,
        "sensitivity": (
            pad(moved.sensitivity(metrics["sensitivity"]), (16, 16)) if sensitivity else None
        ),
    }
    target = pad(moved.apply(matrix), (32, 16))
    loss = weighted_loss(target, mpo_to_dense(found.core), *padded.values())
    np.testing.assert_allclose(loss, found.after, rtol=1e-9)


def test_an_exact_order_is_kept():
    found = neuron_order(small_bond(qubit_legs(8, 8), 1), max_bond=1)
    assert found.before < 1e-20
    assert found.after <= found.before


def test_padding_may_be_reordered():
    matrix = random_matrix((12, 5))
    fixed = neuron_order(matrix, max_bond=2, restarts=8)
    assert fixed.reordering.shape == (12, 5)
    free = neuron_order(np.pad(matrix, ((0, 4), (0, 3))), max_bond=2, restarts=8)
    assert free.reordering.shape == (16, 8)
    assert free.after < free.before


def test_recursive_bisection_puts_similar_vectors_together():
    levels = np.array([0.0, 1, 10, 11, 100, 101, 110, 111])
    order = np.random.default_rng(0).permutation(8)
    found = order[recursive_bisection(levels[order, None], (2, 2, 2))]
    assert {frozenset(pair) for pair in found.reshape(4, 2).tolist()} == {
        frozenset(pair) for pair in ((0, 1), (2, 3), (4, 5), (6, 7))
    }
    alike = recursive_bisection(np.zeros((5, 2)), (2, 4))
    np.testing.assert_array_equal(np.sort(alike), np.arange(5))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"rows": False, "columns": False}, "leave nothing to permute"),
        ({"max_bond": 0}, "max_bond=0 must be a whole number"),
        ({"rounds": 0}, "rounds=0 must be a whole number, 1 or more"),
        ({"legs": ((2, 2),)}, "too small"),
        ({"covariance": np.eye(9)}, "the covariance has shape"),
        ({"sensitivity": -np.eye(8)}, "the sensitivity has a negative eigenvalue"),
    ],
)
def test_errors_of_neuron_order(options, text):
    with pytest.raises(ValueError, match=text):
        neuron_order(random_matrix((8, 8)), **({"max_bond": 2} | options))


def test_inputs_that_are_all_mapped_to_zero_are_refused():
    matrix, covariance = np.diag([1.0, 0, 0, 0]), np.diag([0.0, 1, 1, 1])
    with pytest.raises(ValueError, match="maps all inputs to outputs of no weight"):
        neuron_order(matrix, max_bond=1, covariance=covariance)
    with pytest.raises(ValueError, match="maps all given inputs to zero"):
        site_order(matrix, covariance=covariance)


@pytest.mark.no_cover  # two searches; the test above is traced
@pytest.mark.parametrize(
    "search",
    [
        lambda m, seed: neuron_order(m, max_bond=2, seed=seed),
        lambda m, seed: site_order(m, measure="loss", max_bond=2, together=False, seed=seed),
    ],
)
def test_the_same_seed_gives_the_same_order(search):
    matrix = random_matrix((8, 8))
    a, b, c = (search(matrix, seed) for seed in (3, 3, np.random.default_rng(3)))
    for other in (b, c):
        np.testing.assert_array_equal(a.reordering.rows, other.reordering.rows)
        np.testing.assert_array_equal(a.reordering.columns, other.reordering.columns)
        assert a.after == other.after
    assert dict(a.table().rows)["after"] == a.after
