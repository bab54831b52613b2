"""Dense <-> MPO, canonical form and truncation, against dense matrices and quimb's own."""

import math

import numpy as np
import pytest
import quimb.tensor as qtn
import torch
from numpy.testing import assert_allclose, assert_array_equal, assert_array_less

from mpodis.conventions import to_numpy
from mpodis.disentangling import disentangle
from mpodis.mpo import Compressed, canonical_form, compress, truncate
from mpodis.sites import (
    left_canonical,
    mirrored,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    right_canonical,
    site_tensors,
)
from reference import (
    CASES,
    TOL,
    dense_from_cores,
    pad,
    random_cores,
    random_matrix,
    relative_error,
    spectra,
)

SHAPES = sorted({case.shape for case in CASES})
ALIGNS = ("left", "centre", "right")
DIGITS = ((7, 4), (2, 2), (7, 4))  # 98 x 32, a classical factorisation


def random_mpo(legs, bond, complex_=False, seed=0):
    return mpo_from_tensors(random_cores(legs, bond, complex_, seed))


def max_bonds(legs):
    sizes = [i * o for i, o in legs]
    return [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, len(sizes))]


# --- dense -> MPO -> dense


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("shape", SHAPES)
def test_compress_without_truncation_is_exact(shape, align, complex_):
    matrix = random_matrix(shape, complex_)
    found = compress(matrix, align=align)
    assert_allclose(found.to_dense(), matrix, rtol=0, atol=1e-12)
    assert found.to_dense().dtype == matrix.dtype
    assert found.shape == shape
    assert found.relative_error < 1e-13
    assert_array_less(np.array(found.bonds) - 1, max_bonds(found.legs))
    # the padding is zero, and the cores say the same as the MPO
    cores = site_tensors(found.mpo)
    padded = pad(matrix, *mpo_to_dense(found.mpo).shape)
    assert_allclose(dense_from_cores(cores), padded, rtol=0, atol=1e-12)
    assert found.parameters == sum(core.size for core in cores)


def test_a_large_matrix_is_exact():
    matrix = random_matrix((384, 1536))
    found = compress(matrix)
    assert found.legs == ((1, 2), *[(2, 2)] * 9, (1, 2))
    assert_allclose(found.to_dense(), matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("legs", [DIGITS, ((98, 32),), ((2, 32), (49, 1)), ((10, 8), (10, 4))])
def test_any_factorisation_is_exact(legs, complex_):
    matrix = random_matrix((98, 32), complex_)
    found = compress(matrix, legs=[list(leg) for leg in legs])
    assert found.legs == mpo_legs(found.mpo) == legs
    assert_allclose(found.to_dense(), matrix, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", TOL)
def test_the_dtype_stays(dtype):
    matrix = random_matrix((16, 12), "complex" in dtype).astype(dtype)
    for mpo in (compress(matrix).mpo, truncate(compress(matrix).mpo, max_bond=8).mpo):
        assert {core.dtype for core in site_tensors(mpo)} == {np.dtype(dtype)}
        assert mpo_to_dense(mpo).dtype == dtype
    assert_allclose(compress(matrix).to_dense(), matrix, atol=20 * TOL[dtype])


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 2], [3, 4]],
        np.arange(1, 13, dtype=np.uint8).reshape(3, 4),
        np.eye(4, dtype=bool),
        random_matrix((4, 6)).astype(np.float16),
        torch.arange(12).reshape(3, 4),
        torch.full((4, 4), 0.5, dtype=torch.bfloat16),
        torch.eye(4, dtype=torch.float64, requires_grad=True),
        torch.tensor([[1 + 2j, 3j], [4, 5]]).mH,
        random_matrix((6, 4)).T,
    ],
    ids=lambda m: f"{type(m).__name__}-{getattr(m, 'dtype', 'list')}",
)
def test_numbers_of_any_kind_are_accepted(matrix):
    found = compress(matrix).to_dense()
    assert type(found) is (torch.Tensor if isinstance(matrix, torch.Tensor) else np.ndarray)
    found = to_numpy(found)
    assert found.dtype.kind in "fc"
    plain = matrix.detach().resolve_conj() if isinstance(matrix, torch.Tensor) else matrix
    plain = np.array(plain if isinstance(plain, list) else plain.tolist())
    assert_allclose(found, plain, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_size_does_not_matter(size):
    matrix = size * random_matrix((16, 16))
    found = compress(matrix, max_bond=8)
    reference = compress(matrix / size, max_bond=8)
    assert_allclose(found.relative_error, reference.relative_error, rtol=1e-12)
    assert_allclose(found.to_dense() / size, reference.to_dense(), rtol=1e-9)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (random_matrix((3, 4, 5)), r"array of shape \(3, 4, 5\); reshape it to two dimensions"),
        (np.ones(4), r"expected a matrix \(inputs, outputs\)"),
        (np.ones((0, 4)), r"the matrix of shape \(0, 4\) is empty"),
        (np.zeros((2, 4)), r"the matrix of shape \(2, 4\) is zero everywhere"),
        (np.array([[1, np.nan], [np.inf, 0]]), "2 of 4 entries of the matrix are NaN or infinite"),
        (np.array([["a"]]), "expected numbers, got an array of dtype <U1"),
        (np.array([[None]]), "expected numbers, got an array of dtype object"),
    ],
)
def test_what_is_not_a_matrix(matrix, message):
    with pytest.raises((TypeError, ValueError), match=message):
        compress(matrix)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bond": 0}, "max_bond=0 must be a whole number, 1 or more"),
        ({"cutoff": 1.0}, r"cutoff=1.0 must be a number from 0 on, below 1"),
        ({"cutoff": -1e-3}, r"cutoff=-0.001 must be a number from 0 on, below 1"),
        ({"rel_error": 1.5}, r"rel_error=1.5 must be a number from 0 on, below 1"),
    ],
)
def test_options_out_of_range(options, message):
    matrix = random_matrix((4, 4))
    for function, argument in ((compress, matrix), (truncate, compress(matrix).mpo)):
        with pytest.raises(ValueError, match=message):
            function(argument, **options)


def test_legs_and_alignments_that_do_not_fit():
    with pytest.raises(ValueError, match="span a 4 x 2 matrix, too small for the shape"):
        compress(random_matrix((4, 4)), legs=((2, 2), (2, 1)))
    with pytest.raises(ValueError, match="align='top' is not known"):
        compress(random_matrix((4, 4)), align="top")


# --- torch layers


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_transposed(bias):
    with torch.random.fork_rng():
        layer = torch.nn.Linear(12, 5, bias=bias)
    found = compress(layer)
    assert found.shape == (12, 5)
    assert_allclose(found.to_dense(), layer.weight.detach().numpy().T, atol=1e-6)
    x = torch.linspace(-1, 1, 24).reshape(2, 12)
    y = x.numpy() @ found.to_dense() + (layer.bias.detach().numpy() if bias else 0)
    assert_allclose(y, layer(x).detach().numpy(), atol=1e-5)


def test_options_are_those_of_its_matrix():
    with torch.random.fork_rng():
        layer = torch.nn.Linear(98, 32, dtype=torch.float64)
    matrix = layer.weight.detach().numpy().T
    for options in (
        {"legs": DIGITS, "max_bond": 3},
        {"align": "left", "rel_error": 0.3},
        {"cutoff": 0.2},
    ):
        found, expected = compress(layer, **options), compress(matrix, **options)
        assert found.legs == expected.legs
        assert_array_equal(found.to_dense(), expected.to_dense())


# --- how much is kept


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("max_bond", [1, 2, 5])
def test_max_bond_is_obeyed_and_the_error_is_the_measured_one(case, max_bond):
    matrix = random_matrix(case.shape, case.complex)
    found = compress(matrix, max_bond=max_bond)
    assert max(found.bonds, default=1) <= max_bond
    assert_allclose(found.relative_error, relative_error(matrix, found.to_dense()), atol=1e-13)


@pytest.mark.parametrize("rel_error", [0.0, 0.01, 0.2, 0.7])
@pytest.mark.parametrize("function", ["compress", "truncate"])
def test_rel_error_is_obeyed_and_used(function, rel_error):
    matrix = random_matrix((64, 48))
    if function == "compress":
        found = compress(matrix, rel_error=rel_error)
    else:
        found = truncate(compress(matrix).mpo, rel_error=rel_error)
    measured = relative_error(matrix, mpo_to_dense(found.mpo, shape=(64, 48)))
    assert measured <= rel_error + 1e-14
    if rel_error > 0.1:
        assert measured > rel_error / 3
        assert sum(found.bonds) < sum(compress(matrix).bonds)


def test_rel_error_and_max_bond_together_give_the_smaller():
    matrix = random_matrix((64, 64))
    both = compress(matrix, rel_error=1e-3, max_bond=4)
    assert_array_equal(both.to_dense(), compress(matrix, max_bond=4).to_dense())
    loose = compress(matrix, rel_error=0.9, max_bond=40)
    assert_array_equal(loose.to_dense(), compress(matrix, rel_error=0.9).to_dense())


@pytest.mark.parametrize("function", [compress, truncate])
def test_cutoff_is_relative_to_the_largest_of_a_bond(function):
    # 4 sites in two pairs, with singular values 1, .1, .01, ... between the pairs
    u, _ = np.linalg.qr(random_matrix((16, 16), seed=1))
    v, _ = np.linalg.qr(random_matrix((16, 16), seed=2))
    tensor = (u * 10.0 ** -np.arange(16)) @ v
    legs = ((4, 4), (4, 4))
    matrix = tensor.reshape(4, 4, 4, 4).transpose(0, 2, 1, 3).reshape(16, 16)
    for cutoff, expected in ((0.5, 1), (0.05, 2), (5e-5, 5), (1e-14, 14), (0, 16)):
        operator = matrix if function is compress else compress(matrix, legs=legs, cutoff=0).mpo
        options = {"legs": legs} if function is compress else {}
        assert abs(function(operator, cutoff=cutoff, **options).bonds[0] - expected) <= (
            1 if cutoff == 1e-14 else 0
        )


@pytest.mark.parametrize("function", [compress, truncate])
def test_a_flat_spectrum_is_kept_whole(function):
    swap = np.eye(16).reshape(4, 4, 16).transpose(1, 0, 2).reshape(16, 16)  # 16 equal values
    legs = ((4, 4), (4, 4))
    if function is compress:
        assert compress(swap, legs=legs, cutoff=0.9).bonds == (16,)
    else:
        assert truncate(compress(swap, legs=legs).mpo, cutoff=0.9).bonds == (16,)


def test_the_exact_rank_is_found():
    legs = ((2, 2),) * 6
    matrix = dense_from_cores(random_cores(legs, 3))
    assert compress(matrix).bonds == (3,) * 5
    grown = mpo_from_tensors(random_cores(legs, 3)) + mpo_from_tensors(random_cores(legs, 3))
    assert truncate(grown).bonds == (3,) * 5


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_bond_keeps_what_svd_keeps(case):
    # with a single cut TT-SVD is optimal: the error is the tail of the singular values
    legs = case.legs
    if len(legs) == 1:
        legs = (*legs, (1, 1))
    half = len(legs) // 2
    two = tuple(
        tuple(math.prod(leg[side] for leg in part) for side in (0, 1))
        for part in (legs[:half], legs[half:])
    )
    matrix = random_matrix(case.shape, case.complex)
    values = spectra(pad(matrix, *(math.prod(leg[s] for leg in two) for s in (0, 1))), two)[0]
    for keep in (1, 2):
        found = compress(matrix, legs=two, max_bond=keep)
        # padding is outside the error, so it may be smaller than the tail
        assert found.relative_error <= np.sqrt((values[keep:] ** 2).sum()) + 1e-12


# --- truncate


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("max_bond", [1, 3])
def test_the_error_of_truncate_is_exact(case, max_bond):
    mpo = random_mpo(case.legs, 6, case.complex)
    found = truncate(mpo, max_bond=max_bond)
    before, after = mpo_to_dense(mpo), found.to_dense()
    assert max(found.bonds, default=1) <= max_bond
    assert_allclose(found.relative_error, relative_error(before, after), atol=1e-7)
    # discarded^2 + kept^2 = 1, and the residue is orthogonal to what is kept
    kept = np.linalg.norm(after) / np.linalg.norm(before)
    assert_allclose(found.relative_error**2 + kept**2, 1, atol=1e-12)
    assert abs(np.vdot(before - after, after)) < 1e-12 * np.vdot(before, before).real


@pytest.mark.parametrize("case", CASES, ids=str)
def test_truncate_to_the_full_bond_changes_nothing(case):
    mpo = random_mpo(case.legs, 7, case.complex)
    found = truncate(mpo, cutoff=0)
    assert found.relative_error == 0
    assert found.legs == case.legs
    assert relative_error(mpo_to_dense(mpo), found.to_dense()) < 1e-13


def test_truncate_of_zero():
    with pytest.raises(ValueError, match="the MPO is zero everywhere; nothing to truncate"):
        truncate(mpo_from_tensors([np.zeros((1, 2, 2, 1))] * 3))


def test_400_sites_of_huge_norm_truncate():
    cores = [10 * core for core in random_cores(((2, 2),) * 400, 5)]
    found = truncate(mpo_from_tensors(cores), max_bond=4)
    assert max(found.bonds) == 4
    assert 0 < found.relative_error < 1  # at smaller bonds it rounds to 1
    # the untouched norm comes back as the norm of what is kept and the error
    size = left_canonical(cores)[1]
    kept = left_canonical(site_tensors(found.mpo))[1]
    assert_allclose(np.exp(2 * (kept - size)) + found.relative_error**2, 1, rtol=1e-9)


# --- canonical form


def assert_isometric(cores, centre):
    for k, core in enumerate(cores):
        a, i, o, b = core.shape
        if k < centre:
            rows = core.reshape(a * i * o, b)
            assert_allclose(rows.conj().T @ rows, np.eye(b), atol=1e-12)
        elif k > centre:
            columns = core.reshape(a, i * o * b)
            assert_allclose(columns @ columns.conj().T, np.eye(a), atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_canonical_form_is_isometric_around_every_centre(case):
    mpo = random_mpo(case.legs, 4, case.complex)
    dense, n = mpo_to_dense(mpo), len(case.legs)
    for centre in range(-n, n):
        found = canonical_form(mpo, centre=centre)
        cores = site_tensors(found)
        assert_isometric(cores, centre % n)
        assert_allclose(dense_from_cores(cores), dense, rtol=0, atol=1e-12 * np.linalg.norm(dense))
        assert_allclose(np.linalg.norm(cores[centre]), np.linalg.norm(dense), rtol=1e-12)


@pytest.mark.parametrize("centre", [3, -4])
def test_a_centre_that_is_no_site(centre):
    with pytest.raises(ValueError, match=f"centre={centre} is not one of the 3 sites"):
        canonical_form(random_mpo(((2, 2),) * 3, 2), centre=centre)


def test_canonical_form_of_zero_is_zero():
    found = canonical_form(mpo_from_tensors([np.zeros((1, 2, 2, 1))] * 3), centre=1)
    assert_array_equal(mpo_to_dense(found), np.zeros((8, 8)))


@pytest.mark.parametrize("size", [1e100, 1e-100])
def test_a_norm_that_is_no_number_is_refused(size):
    cores = [size * core for core in random_cores(((2, 2),) * 10, 2)]
    with pytest.raises(OverflowError, match=r"norm of this MPO is exp\(-?2\d\d\d\); divide it by"):
        canonical_form(mpo_from_tensors(cores))


@pytest.mark.parametrize("stop", [0, 2, None])
def test_left_and_right_canonical_are_mirror_images(stop):
    cores = random_cores(((2, 2), (2, 1), (1, 2), (2, 2)), 3, True)
    left, log_left = left_canonical(cores, stop=stop)
    right, log_right = right_canonical(mirrored(cores), stop=0 if stop is None else 3 - stop)
    assert_allclose(log_left, log_right)
    for a, b in zip(left, mirrored(right), strict=True):
        assert_allclose(a, b)
    dense = dense_from_cores(cores)
    assert_allclose(math.exp(log_left) * dense_from_cores(left), dense, atol=1e-12 * 100)


@pytest.mark.parametrize("zero", [0, 1, 2])
def test_zero_has_a_norm_of_zero(zero):
    cores = random_cores(((2, 2),) * 3, 2)
    cores[zero] = np.zeros_like(cores[zero])
    for function in (left_canonical, right_canonical):
        assert function(cores)[1] == -math.inf


# --- what is shown


def test_compressed_prints_itself():
    found = compress(random_matrix((60, 10)), max_bond=3)
    lines = [" ".join(line.split()) for line in str(found).splitlines()]
    for line in (
        "matrix 60 x 10",
        "zero padding to 64 x 16",
        "sites 6",
        "bond dimensions 2 3 3 3 2",
        f"parameters {found.parameters}",
        "parameters, dense 600",
        f"relative error {found.relative_error:.4g}",
    ):
        assert line in lines
    assert "<td>60 x 10</td>" in found._repr_html_()
    whole = str(compress(random_matrix((8, 8)))).splitlines()
    assert any(line.split() == ["zero", "padding", "none"] for line in whole)


def test_a_long_mpo_prints_in_one_screen():
    found = truncate(qtn.MPO_rand(40, 3, seed=1))
    lines = str(found).splitlines()
    assert any(line.endswith("2^40 x 2^40") for line in lines)
    assert any(line.endswith("up to 3") for line in lines)
    assert any(line.endswith("2^80") for line in lines)
    assert max(map(len, lines)) < 60


def test_compressed_is_what_it_says():
    mpo = random_mpo(((2, 2),) * 3, 2)
    found = Compressed(mpo, (8, 8), 0.25)
    assert found.bonds == (2, 2)
    assert found.parameters == 8 + 16 + 8
    assert_array_equal(found.to_dense(), mpo_to_dense(mpo))


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_extreme_scales_are_spread_over_the_sites(scale):
    matrix = scale * random_matrix((16, 16))
    compressed = compress(matrix)
    assert_allclose(compressed.to_dense() / scale, matrix / scale, atol=1e-12)
    found = disentangle(compressed, depth=1, n_init=1, max_sweeps=2)
    assert_allclose(
        np.linalg.norm(found.factorization.to_dense() / scale),
        found.overlap * np.linalg.norm(matrix / scale),
    )
