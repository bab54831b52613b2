"""Low rank, plain MPOs and zero: each is the best of its kind by its own distance."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import compress, low_rank, mpo_to_dense, second_moment, truncated_mpo
from mpodis.conventions import qubit_legs
from mpodis.structured import Approximation, bond_for, mpo_parameters, rank_for, zero_matrix
from reference import overlap, random_matrix, relative_error, weighted_distance

SHAPES = ((8, 6), (6, 8), (5, 5), (1, 4), (4, 1))


def samples(features, *, rank=None, is_complex=False, seed=7, count=40):
    """Inputs (samples, features), of lower rank where asked for, and their second moment."""
    scale = np.arange(1, features + 1)
    x = random_matrix((count, features), is_complex, seed) / scale
    if rank is not None:
        mix = random_matrix((features, features), is_complex, seed + 1)
        x = x[:, :rank] @ mix[:rank]
    return x, x.conj().T @ x / count


def tail(matrix, rank):
    """The smallest distance to a matrix of a rank, by Eckart and Young."""
    return np.sqrt((np.linalg.svd(matrix, compute_uv=False)[rank:] ** 2).sum())


# --- low rank


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_plain_low_rank_is_the_svd(shape, is_complex):
    m = random_matrix(shape, is_complex)
    u, s, vh = np.linalg.svd(m, full_matrices=False)
    for rank in range(1, len(s) + 1):
        found = low_rank(m, rank)
        assert_allclose(found.matrix, (u[:, :rank] * s[:rank]) @ vh[:rank], atol=1e-12)
        norm = np.linalg.norm(m)
        assert_allclose(found.relative_error * norm, tail(m, rank), atol=1e-12 * norm)
        assert_allclose(found.overlap, overlap(m, found.matrix), atol=1e-12)
        # overlap^2 + error^2 = 1 for a projection
        assert_allclose(found.overlap**2 + found.relative_error**2, 1, atol=1e-12)
        assert math.isnan(found.activation_error)
        assert found.parameters == rank * sum(shape)
        assert found.name == f"low rank {rank}"


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_weighted_low_rank_is_the_best_for_its_samples(rank, is_complex):
    m = random_matrix((8, 6), is_complex)
    x, covariance = samples(8, is_complex=is_complex)
    found = low_rank(m, rank, covariance=covariance)
    assert np.linalg.matrix_rank(found.matrix) == rank
    error = np.linalg.norm(x @ m - x @ found.matrix)
    assert_allclose(error, tail(x @ m, rank), rtol=1e-10)
    assert_allclose(found.activation_error, error / np.linalg.norm(x @ m), rtol=1e-10)
    others = [low_rank(m, rank).matrix]
    for seed in range(20):
        q = np.linalg.qr(random_matrix((6, rank), is_complex, seed))[0]
        others.append(m @ q @ q.conj().T)
        q = np.linalg.qr(random_matrix((8, rank), is_complex, seed))[0]
        others.append(q @ q.conj().T @ m)
    assert error < min(np.linalg.norm(x @ m - x @ other) for other in others)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("known", [("g",), ("x", "g")])
@pytest.mark.parametrize("rank_of_g", [5, 3])
def test_sensitivity_weighs_the_outputs(known, is_complex, rank_of_g):
    m = random_matrix((8, 5), is_complex)
    x, covariance = samples(8, is_complex=is_complex)
    g, sensitivity = samples(5, rank=rank_of_g, is_complex=is_complex, seed=3)
    x, covariance = (x, covariance) if "x" in known else (np.eye(8), None)
    found = low_rank(m, 2, covariance=covariance, sensitivity=sensitivity)
    assert np.linalg.matrix_rank(found.matrix, tol=1e-6) == 2

    def weighted_error(matrix):
        return np.linalg.norm(x @ (m - matrix) @ g.conj().T)

    assert_allclose(weighted_error(found.matrix), tail(x @ m @ g.conj().T, 2), rtol=1e-9)
    for other in (low_rank(m, 2), low_rank(m, 2, covariance=covariance)):
        assert weighted_error(found.matrix) < weighted_error(other.matrix)


def test_unweighted_low_rank_only_measures_the_activations():
    m = random_matrix((8, 6))
    x, covariance = samples(8)
    moments = {"covariance": covariance, "sensitivity": samples(6, seed=2)[1]}
    found, plain = low_rank(m, 2, weighted=False, **moments), low_rank(m, 2)
    assert_array_equal(found.matrix, plain.matrix)
    assert_allclose(found.activation_error, relative_error(x @ m, x @ found.matrix), rtol=1e-10)


def test_each_distance_prefers_its_own_low_rank():
    m = random_matrix((8, 6))
    _, covariance = samples(8)
    for rank in (1, 3, 5):
        plain = low_rank(m, rank, covariance=covariance, weighted=False)
        weighted = low_rank(m, rank, covariance=covariance)
        assert weighted.activation_error < plain.activation_error
        assert weighted.relative_error > plain.relative_error


@pytest.mark.parametrize("seed", range(6))
def test_low_rank_is_exact_for_inputs_of_low_rank(seed):
    """With a covariance of rank 3 the error is zero, and not the root of -1e-17."""
    m = random_matrix((8, 6), seed=seed)
    x, covariance = samples(8, rank=3, seed=seed)
    found = low_rank(m, 3, covariance=covariance)
    assert_allclose(x @ found.matrix, x @ m, atol=1e-10)
    assert 0 <= found.activation_error < 1e-7
    assert found.relative_error > 0.1


@pytest.mark.parametrize("weighted", [False, True])
def test_without_any_activations_their_error_is_nan(weighted):
    m = random_matrix((4, 4))
    m[0] = 0
    covariance = np.diag([2.0, 0, 0, 0])
    found = low_rank(m, 1, covariance=covariance, weighted=weighted)
    assert math.isnan(found.activation_error)


def test_the_overlap_of_a_matrix_of_zeros_is_zero():
    m = np.diag([0.0, 1, 0, 0])
    found = low_rank(m, 1, covariance=np.diag([1.0, 0, 0, 0]))  # C M = 0
    assert not found.matrix.any()
    assert (found.overlap, found.relative_error) == (0, 1)


@pytest.mark.parametrize(
    ("rank", "message"), [(0, "1 or more"), (-1, "1 or more"), (5, "4 or less")]
)
def test_a_rank_out_of_range_is_refused(rank, message):
    with pytest.raises(ValueError, match=f"rank={rank} must be .*{message}"):
        low_rank(random_matrix((4, 6)), rank)


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ({"covariance": np.eye(5)}, r"covariance has shape \(5, 5\); the operator has 4"),
        ({"covariance": np.triu(np.ones((4, 4)))}, "covariance is not Hermitian"),
        ({"covariance": -np.eye(4)}, "covariance has a negative eigenvalue -1"),
        ({"covariance": np.zeros((4, 4))}, "covariance is zero everywhere"),
        ({"sensitivity": np.eye(7)}, r"sensitivity has shape \(7, 7\); the operator has 6"),
    ],
)
def test_moments_that_do_not_fit_are_refused(moments, message):
    with pytest.raises(ValueError, match=message):
        low_rank(random_matrix((4, 6)), 2, **moments)


@pytest.mark.parametrize("bad", [np.ones(4), np.full((4, 4), np.nan), np.zeros((4, 4))])
def test_what_is_no_matrix_is_refused(bad):
    for baseline in (lambda m: low_rank(m, 1), zero_matrix):
        with pytest.raises(ValueError, match="matri"):
            baseline(bad)


def test_the_lowest_rank_with_as_many_parameters():
    assert rank_for(1, (64, 64)) == 1
    assert rank_for(128, (64, 64)) == 1
    assert rank_for(129, (64, 64)) == 2
    assert rank_for(10**6, (64, 10)) == 10
    for parameters in range(1, 200):
        rank = rank_for(parameters, (12, 30))
        assert rank * 42 >= parameters
        assert (rank - 1) * 42 < parameters


def test_the_highest_rank_within_a_number_of_parameters():
    for parameters in range(42, 700):
        rank = rank_for(parameters, (12, 30), below=True)
        assert rank * 42 <= parameters
        assert rank == 12 or (rank + 1) * 42 > parameters
    with pytest.raises(ValueError, match="41 parameters are too few for rank 1, which takes 42"):
        rank_for(41, (12, 30), below=True)


@pytest.mark.parametrize(
    "legs", [qubit_legs(16, 64), qubit_legs(8, 8), ((3, 4), (2, 2)), ((4, 2),)]
)
def test_the_bond_dimension_for_a_number_of_parameters(legs):
    counts = [mpo_parameters(legs, chi) for chi in range(1, 40)]
    largest = max(counts)
    for parameters in range(1, largest + 20, 7):
        above = bond_for(parameters, legs)
        assert mpo_parameters(legs, above) >= min(parameters, largest)
        assert above == 1 or mpo_parameters(legs, above - 1) < parameters
        if parameters >= counts[0]:
            below = bond_for(parameters, legs, below=True)
            assert mpo_parameters(legs, below) <= parameters
            assert parameters >= largest or mpo_parameters(legs, below + 1) > parameters
    with pytest.raises(ValueError, match=f"0 parameters .* dimension 1, which takes {counts[0]}"):
        bond_for(0, legs, below=True)


def test_parameters_of_an_mpo_are_those_of_a_full_one():
    layer = compress(random_matrix((16, 8)))
    assert mpo_parameters(layer.legs, max(layer.bonds)) == layer.parameters


# --- MPOs without circuits


@pytest.mark.parametrize("shape", [(16, 8), (10, 12)])
@pytest.mark.parametrize("max_bond", [1, 2])
def test_each_distance_prefers_its_own_mpo(shape, max_bond):
    layer = compress(random_matrix(shape))
    x, covariance = samples(shape[0])
    options = {"shape": shape, "covariance": covariance}
    weighted = truncated_mpo(layer.mpo, max_bond, **options)
    plain = truncated_mpo(layer.mpo, max_bond, **options, weighted=False)
    assert weighted.activation_error < plain.activation_error
    assert weighted.relative_error > plain.relative_error
    for found in (weighted, plain):
        m = layer.to_dense()
        assert found.matrix.shape == shape
        assert found.name == f"truncated MPO, chi {max_bond}"
        assert found.parameters < layer.parameters
        assert_allclose(found.relative_error, relative_error(m, found.matrix), rtol=1e-10)
        error = relative_error(x @ m, x @ found.matrix)
        assert_allclose(found.activation_error, error, rtol=1e-9)
    assert math.isnan(truncated_mpo(layer.mpo, max_bond).activation_error)


def test_the_best_mpo_beats_successive_svds():
    layer = compress(random_matrix((16, 16)))
    for max_bond in (1, 2, 3):
        cut = compress(random_matrix((16, 16)), max_bond=max_bond)
        assert truncated_mpo(layer.mpo, max_bond).relative_error <= cut.relative_error + 1e-12


def test_an_mpo_of_full_bond_is_exact():
    layer = compress(random_matrix((8, 8)))
    found = truncated_mpo(layer.mpo, max(layer.bonds), covariance=samples(8)[1])
    assert_allclose(found.matrix, mpo_to_dense(layer.mpo), atol=1e-10)
    assert found.parameters == layer.parameters
    assert found.overlap == pytest.approx(1)
    assert found.activation_error < 1e-7


@pytest.mark.parametrize("shape", [(8, 8), (6, 4)])
def test_an_mpo_fitted_to_a_sensitivity_has_the_lowest_loss(shape):
    layer = compress(random_matrix(shape))
    x, covariance = samples(shape[0])
    g, sensitivity = samples(shape[1], seed=3)
    options = {"shape": shape, "covariance": covariance}

    def weighted_error(found):
        return weighted_distance(layer.to_dense() @ g.T, found.matrix @ g.T, covariance)

    best = truncated_mpo(layer.mpo, 1, sensitivity=sensitivity, **options)
    others = [truncated_mpo(layer.mpo, 1, weighted=weighted, **options) for weighted in (0, 1)]
    assert weighted_error(best) < min(weighted_error(other) for other in others)
    unweighted = truncated_mpo(layer.mpo, 1, sensitivity=sensitivity, weighted=False, **options)
    assert_array_equal(unweighted.matrix, others[0].matrix)
    assert_allclose(
        best.activation_error,
        relative_error(x @ layer.to_dense(), x @ best.matrix),
        rtol=1e-9,
    )


def test_bond_dimension_zero_is_refused():
    with pytest.raises(ValueError, match="max_bond=0 must be a whole number"):
        truncated_mpo(compress(random_matrix((4, 4))).mpo, 0)


# --- an approximation


def test_the_table_of_an_approximation_holds_its_size_and_errors():
    m = random_matrix((8, 6))
    x, covariance = samples(8)
    a = random_matrix((8, 6), seed=5)
    found = Approximation.of(m, a, name="other", parameters=7, covariance=covariance)
    table = found.table()
    assert table.columns[0] == "other"
    expected = [7, overlap(m, a), relative_error(m, a), relative_error(x @ m, x @ a)]
    assert_allclose([value for _, value in table.rows], expected, rtol=1e-10)


# --- the zero matrix


def test_the_zero_matrix_has_all_errors_one():
    m = random_matrix((4, 3))
    found = zero_matrix(m)
    assert_array_equal(found.matrix, np.zeros((4, 3)))
    assert (found.name, found.parameters, found.overlap) == ("zero", 0, 0)
    x, _ = samples(4)
    assert found.relative_error == relative_error(m, found.matrix) == 1
    assert found.activation_error == pytest.approx(relative_error(x @ m, x @ found.matrix))


@pytest.mark.parametrize("max_bond", [1, 2, 3])
def test_errors_of_cropped_outputs_do_not_count(max_bond):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 16)) * np.linspace(0.1, 2, 16)
    compressed = compress(rng.normal(size=(16, 5)))
    options = {"covariance": second_moment(x)}
    free = truncated_mpo(compressed.mpo, max_bond, shape=compressed.shape, **options)
    held = truncated_mpo(compressed.mpo, max_bond, **options)
    held = np.linalg.norm(x @ (compressed.to_dense() - held.matrix[:, :5]))
    assert free.activation_error * np.linalg.norm(x @ compressed.to_dense()) < held
