"""Overlaps, spectra, entropies and bounds, against dense matrices and known operators."""

import math

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import measures
from mpodis.conventions import split
from mpodis.measures import (
    Entanglement,
    bond_spectra,
    count_parameters,
    entanglement,
    log_norm,
    max_average_entropy,
    second_moment,
    singular_values,
    spectral_bound,
    tensor_entropies,
    von_neumann_bound,
)
from mpodis.mpo import compress, truncate
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors
from reference import (
    CASES,
    CNOT,
    dense_from_cores,
    embed,
    entropies,
    overlap,
    random_cores,
    random_matrix,
    random_member,
    spectra,
)

SWAP = np.eye(4)[[0, 2, 1, 3]]
LONG = ((2, 2),) * 400


def random_mpo(legs, bond, complex_=False, seed=0):
    return mpo_from_tensors(random_cores(legs, bond, complex_, seed))


def zero_mpo(n=3):
    return mpo_from_tensors([np.zeros((1, 2, 2, 1))] * n)


# --- norm and overlap


@pytest.mark.parametrize("case", CASES, ids=str)
def test_norm_and_overlap_are_those_of_the_dense_matrices(case):
    a = random_mpo(case.legs, 4, case.complex, 1)
    b = random_mpo(case.legs, 2, case.complex, 2)
    dense_a, dense_b = mpo_to_dense(a), mpo_to_dense(b)
    assert_allclose(log_norm(a), math.log(np.linalg.norm(dense_a)), atol=1e-12)
    assert_allclose(measures.overlap(a, b), overlap(dense_a, dense_b), atol=1e-12)
    assert_allclose(measures.overlap(b, a), measures.overlap(a, b), atol=1e-12)
    assert_allclose(measures.overlap(a, a), 1, atol=1e-12)


def test_the_overlap_has_a_dagger():
    # without it Tr(A A) = 0 for this A, and a phase would not matter
    a = np.kron([[0.0, 1], [0, 0]], np.eye(2))
    mpo, turned = compress(a).mpo, compress(1j * a).mpo
    assert_allclose(measures.overlap(mpo, mpo), 1, atol=1e-14)
    assert_allclose(measures.overlap(mpo, turned), 0, atol=1e-14)
    assert_allclose(measures.overlap(turned, turned), 1, atol=1e-14)
    assert_allclose(measures.overlap(mpo, compress(-3 * a).mpo), -1, atol=1e-14)


def test_a_real_and_a_complex_operator():
    a, b = random_matrix((16, 16)), random_matrix((16, 16), True, 1)
    for x, y in ((a, b), (b, a)):
        assert_allclose(
            measures.overlap(compress(x).mpo, compress(y).mpo), overlap(x, y), atol=1e-13
        )


def test_orthogonal_operators_do_not_overlap():
    x, z = np.array([[0.0, 1], [1, 0]]), np.diag([1.0, -1])
    a, b = (qtn.MPO_product_operator([op, op]) for op in (x, z))
    assert measures.overlap(a, b) == 0.0


def test_operators_with_different_legs_do_not_compare():
    a, b = random_mpo(((2, 2), (2, 1)), 2), random_mpo(((2, 1), (2, 2)), 2)
    with pytest.raises(ValueError, match=r"different legs, .*compress both with the same `legs`"):
        measures.overlap(a, b)


def test_zero_has_neither_overlap_nor_spectrum():
    some = random_mpo(((2, 2),) * 3, 2)
    for pair in ((zero_mpo(), some), (some, zero_mpo())):
        with pytest.raises(ValueError, match="overlap with an MPO that is zero everywhere"):
            measures.overlap(*pair)
    with pytest.raises(ValueError, match="zero everywhere has no entanglement spectrum"):
        bond_spectra(zero_mpo())
    assert log_norm(zero_mpo()) == -math.inf


@pytest.mark.parametrize("complex_", [False, True])
def test_400_sites_of_huge_norm(complex_):
    cores = [10 * core for core in random_cores(LONG, 5, complex_)]
    a, b = mpo_from_tensors(cores), mpo_from_tensors([core / 70 for core in cores])
    assert log_norm(a) > 1000
    assert_allclose(log_norm(a) - log_norm(b), 400 * math.log(70), rtol=1e-12)
    assert_allclose(measures.overlap(a, b), 1, atol=1e-10)
    other = mpo_from_tensors(random_cores(LONG, 5, complex_, 1))
    assert abs(measures.overlap(a, other)) < 1e-10
    found = entanglement(a)
    assert len(found.spectra) == 399
    assert all(np.isfinite(s).all() for s in found.spectra)
    assert (found.entropies <= math.log(5) + 1e-12).all()
    assert found.average <= found.maximum == pytest.approx(math.log(5))
    near = truncate(a, max_bond=4)
    assert_allclose(measures.overlap(a, near.mpo), math.sqrt(1 - near.relative_error**2), atol=1e-9)


# --- spectra and entropies


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spectra_and_entropies_are_those_of_the_dense_matrix(case):
    mpo = random_mpo(case.legs, 6, case.complex)
    dense = mpo_to_dense(mpo)
    found = entanglement(mpo)
    assert found.bonds == (6,) * (len(case.legs) - 1)
    for mine, theirs in zip(found.spectra, spectra(dense, case.legs), strict=True):
        k = min(len(mine), len(theirs))
        assert_allclose(mine[:k], theirs[:k], atol=1e-12)
        assert_allclose(np.concatenate([mine[k:], theirs[k:]]), 0, atol=1e-12)
        assert (np.diff(mine) <= 0).all()
        assert_allclose((mine**2).sum(), 1, atol=1e-13)
    expected = entropies(dense, case.legs)
    assert_allclose(found.entropies, expected, atol=1e-11)
    assert_allclose(tensor_entropies(split(dense, case.legs)), expected, atol=1e-12)
    assert_allclose(found.average, expected.mean() if len(expected) else 0, atol=1e-11)
    for mine, theirs in zip(bond_spectra(mpo), found.spectra, strict=True):
        assert_array_equal(mine, theirs)


@pytest.mark.parametrize("complex_", [False, True])
def test_a_dense_matrix_is_taken_on_qubit_legs(complex_):
    matrix = random_matrix((16, 16), complex_)
    found = entanglement(matrix)
    assert_allclose(found.entropies, entropies(matrix, ((2, 2),) * 4), atol=1e-12)
    assert found.bonds == (4, 16, 4)
    for mine, theirs in zip(bond_spectra(matrix), spectra(matrix, ((2, 2),) * 4), strict=True):
        assert_allclose(mine, theirs, atol=1e-12)


def test_a_product_has_no_entanglement():
    rng = np.random.default_rng(0)
    mpo = qtn.MPO_product_operator(list(rng.normal(size=(5, 2, 2))))
    found = entanglement(mpo)
    assert_allclose(found.entropies, 0, atol=1e-14)
    assert (found.entropies >= 0).all()
    assert found.maximum == 0
    # nor where its bonds are larger than they need to be
    assert_allclose(entanglement(mpo + mpo).entropies, 0, atol=1e-12)


def test_known_operators():
    log2 = math.log(2)
    assert_allclose(entanglement(np.eye(16)).entropies, 0, atol=1e-13)
    assert_allclose(entanglement(CNOT).entropies, [log2], atol=1e-13)
    assert_allclose(entanglement(SWAP).entropies, [2 * log2], atol=1e-13)
    # a SWAP across a cut adds 2 log 2, the largest a two-site gate can; a CNOT log 2
    far = embed(SWAP, (0, 3), 4)
    assert_allclose(entanglement(far).entropies, [2 * log2] * 3, atol=1e-12)
    chain = embed(CNOT, (0, 1), 4) @ embed(CNOT, (2, 3), 4)
    assert_allclose(entanglement(chain).entropies, [log2, 0, log2], atol=1e-12)


def test_the_maximally_entangled_operator_reaches_the_maximum():
    # SWAPs of the two halves: every cut carries all that its bond dimension allows
    n = 4
    matrix = np.eye(2**n)
    for k in range(n // 2):
        matrix = matrix @ embed(SWAP, (k, n - 1 - k), n)
    found = entanglement(matrix)
    assert found.bonds == (4, 16, 4)
    assert_allclose(found.entropies, np.log(found.bonds), atol=1e-12)
    assert_allclose(found.average, found.maximum, atol=1e-12)


def test_the_largest_average_entropy():
    assert_allclose(max_average_entropy((2, 4, 2)), 4 * math.log(2) / 3)
    assert max_average_entropy(()) == 0
    assert max_average_entropy([1, 1]) == 0


def test_a_single_site_has_no_bond():
    found = entanglement(np.array([[1.0, 2], [3, 4]]))
    assert (found.spectra, found.bonds) == ((), ())
    assert (found.average, found.maximum) == (0.0, 0.0)
    assert str(found).splitlines()[-1].split() == ["average", "-", "-", "0", "0", "-"]


def test_entanglement_prints_itself():
    found = Entanglement((np.array([1.0]), np.sqrt([0.75, 0.25])), (1, 2))
    lines = [line.split() for line in str(found).splitlines()]
    assert lines[0] == ["entanglement"]
    assert lines[3] == ["1", "1", "1", "0", "0", "1"]
    assert lines[4] == ["2", "2", "2", "0.5623", "0.6931", "0.75"]
    assert lines[5] == ["average", "-", "-", "0.2812", "0.3466", "-"]


# --- the von Neumann bound


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 16)])
def test_no_circuits_pass_the_von_neumann_bound(shape, complex_):
    a, b = random_matrix(shape, complex_, 1), random_matrix(shape, complex_, 2)
    bound = von_neumann_bound(a, b)
    assert bound < 1
    group = "U" if complex_ else "O"
    reached = []
    for seed in range(200):
        left = random_member(shape[0], group, (seed, 0))
        right = random_member(shape[1], group, (seed, 1))
        reached.append(overlap(a, left @ b @ right))
    assert max(np.abs(reached)) <= bound


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 16)])
def test_aligned_singular_vectors_reach_the_von_neumann_bound(shape, complex_):
    a, b = random_matrix(shape, complex_, 1), random_matrix(shape, complex_, 2)
    (u_a, _, vh_a), (u_b, _, vh_b) = np.linalg.svd(a), np.linalg.svd(b)
    left, right = u_a @ u_b.conj().T, vh_b.conj().T @ vh_a
    assert_allclose(overlap(a, left @ b @ right), von_neumann_bound(a, b), atol=1e-13)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bound_of_mpos_is_that_of_their_matrices(case):
    a = random_mpo(case.legs, 4, case.complex, 1)
    for bond in (1, 3):  # a product takes a path of its own
        b = random_mpo(case.legs, bond, case.complex, 2)
        values = np.linalg.svd(mpo_to_dense(b), compute_uv=False)
        assert_allclose(singular_values(site_tensors(b)), values, atol=1e-11 * values[0])
        s = np.linalg.svd(mpo_to_dense(a), compute_uv=False)
        expected = (s @ values) / (np.linalg.norm(s) * np.linalg.norm(values))
        assert_allclose(von_neumann_bound(a, b), expected, rtol=1e-11)
        assert_allclose(von_neumann_bound(mpo_to_dense(a), b), expected, rtol=1e-11)


def test_spectra_of_different_length():
    assert_allclose(spectral_bound(np.array([2.0, 1.0]), np.array([3.0])), 2 / math.sqrt(5))


def test_a_bound_that_is_out_of_reach():
    mpo = qtn.MPO_identity(14)
    with pytest.raises(ValueError, match="all singular values of a 16384 x 16384 operator"):
        von_neumann_bound(mpo, mpo)


# --- second moment and counts


@pytest.mark.parametrize("complex_", [False, True])
def test_the_second_moment_is_what_activations_feel(complex_):
    x, w = random_matrix((50, 6), complex_, 1), random_matrix((6, 4), complex_, 2)
    moment = second_moment(x)
    assert_allclose(moment, moment.conj().T, atol=1e-14)
    felt = np.trace(w.conj().T @ moment @ w).real
    assert_allclose(felt, (np.abs(x @ w) ** 2).sum() / len(x), rtol=1e-12)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("int64", "float64"), ("float32", "float64"), ("complex64", "complex128")],
)
def test_the_second_moment_is_double_precision(dtype, expected):
    moment = second_moment(np.full((3, 2), 3, dtype=dtype))
    assert moment.dtype == expected
    assert_allclose(moment, 9)


@pytest.mark.parametrize("complex_", [False, True])
def test_the_centred_moment_is_what_is_left_when_the_bias_takes_the_mean(complex_):
    x, m, a = (random_matrix(s, complex_, k) for k, s in enumerate([(50, 6), (6, 4), (6, 4)]))
    x = x + 3
    before = x.copy()
    moment = second_moment(x, centred=True)
    assert_array_equal(x, before)
    bias = x.mean(axis=0) @ (m - a)
    error = (np.abs(x @ m - (x @ a + bias)) ** 2).sum() / len(x)
    assert_allclose(np.trace((m - a).conj().T @ moment @ (m - a)).real, error, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (0, 4), (2, 2, 2)])
def test_inputs_must_be_samples(shape):
    with pytest.raises(ValueError, match=r"inputs must be \(samples, features\), got an array of"):
        second_moment(np.ones(shape))


def test_inputs_must_be_finite():
    with pytest.raises(ValueError, match="2 of 4 entries of the inputs are NaN or infinite"):
        second_moment([[1.0, np.nan], [np.inf, 0]])


@pytest.mark.parametrize("cyclic", [False, True])
def test_parameters_are_the_numbers_stored(cyclic):
    mpo = qtn.MPO_rand(4, 3, seed=1, cyclic=cyclic)
    assert count_parameters(mpo) == sum(tensor.size for tensor in mpo)
    assert count_parameters(compress(np.eye(16)).mpo) == 16


def test_dense_from_cores_agrees_with_the_package():
    # the twin these tests lean on, against a third opinion
    mpo = qtn.MPO_rand(4, 3, seed=1)
    assert_allclose(dense_from_cores(site_tensors(mpo)), mpo.to_dense(), atol=1e-14)
