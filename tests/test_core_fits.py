"""`fit_core`: singular metrics, initial guesses, options, and never worse than a truncation."""

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from core_problems import KINDS, QUBITS, WEIGHTS, random_metric
from mpodis.conventions import qubit_legs
from mpodis.fit import als_sweep, fit_core, pad_bonds
from mpodis.mpo import compress, truncate
from mpodis.sites import bond_dimensions, mpo_from_tensors, mpo_to_dense, site_tensors
from reference import CASES, overlap, pad, problem, random_cores, random_matrix, weighted_distance

# --- singular metrics


@KINDS
@pytest.mark.parametrize("rank", [1, 5])
def test_inputs_that_span_little(complex_, rank):
    target = random_matrix((16, 16), complex_)
    metric = random_metric(16, complex_, rank)
    init = truncate(compress(target).mpo, max_bond=2)
    before = weighted_distance(target, init.to_dense(), metric)
    found = mpo_to_dense(fit_core(target, legs=QUBITS, max_bond=2, covariance=metric))
    assert weighted_distance(target, found, metric) <= before
    # what no activation reaches stays of ordinary size
    assert np.linalg.norm(found) < 20 * np.linalg.norm(target)


def test_what_no_activation_reaches_stays_as_it_was():
    # only the rows whose first bit is 0 are ever seen
    target = random_matrix((8, 4))
    metric = np.kron(np.diag([1.0, 0.0]), random_metric(4))
    legs = ((2, 1), (2, 2), (2, 2))
    init = mpo_from_tensors(pad_bonds(random_cores(legs, 2, seed=4), 99))
    found = mpo_to_dense(fit_core(target, legs=legs, max_bond=99, covariance=metric, init=init))
    assert weighted_distance(target, found, metric) < 1e-12
    assert_allclose(found[:4], target[:4], atol=1e-4)
    assert np.isfinite(found).all()


@KINDS
def test_a_single_site_keeps_what_is_never_seen(complex_):
    target, old = random_matrix((4, 3), complex_), random_matrix((4, 3), complex_, 1)
    metric = pad(random_metric(2, complex_), 4, 4)
    found = als_sweep(target, [old.reshape(1, 4, 3, 1)], metric=metric)[0].reshape(4, 3)
    assert_allclose(found[:2], target[:2], atol=1e-9)
    assert_allclose(found[2:], old[2:], atol=1e-9)


def test_padded_inputs_are_never_felt():
    matrix, x = random_matrix((6, 8)), random_matrix((40, 6), seed=1)
    metric = x.T @ x / len(x)
    legs = qubit_legs(6, 8)
    found = fit_core(matrix, legs=legs, max_bond=3, covariance=metric)
    error = np.linalg.norm(x @ (matrix - mpo_to_dense(found, shape=(6, 8))))
    plain = truncate(compress(matrix).mpo, max_bond=3)
    before = np.linalg.norm(x @ (matrix - mpo_to_dense(plain.mpo, shape=(6, 8))))
    assert error <= before


# --- fit_core


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("bond", [1, 2, 3])
@WEIGHTS
def test_fit_core_is_never_worse_than_truncation(case, bond, weighted):
    target = problem(case)[0]
    metric = random_metric(len(target), case.complex) if weighted else None
    mpo = compress(target, legs=case.legs).mpo
    cut = truncate(mpo, max_bond=bond)
    found = fit_core(mpo, max_bond=bond, covariance=metric, max_sweeps=10)
    assert max(bond_dimensions(site_tensors(found)), default=1) <= bond
    dense = mpo_to_dense(found)
    reached = weighted_distance(target, dense, metric)
    assert reached <= weighted_distance(target, cut.to_dense(), metric) + 1e-12
    if metric is None:
        # the best multiple of a core has distance 1 - f^2, so the overlap is no worse either
        assert overlap(target, dense) >= overlap(target, cut.to_dense()) - 1e-12
        assert_allclose(reached, 1 - overlap(target, dense) ** 2, atol=1e-9)


def test_the_weighted_fit_takes_the_better_start():
    # the plain fit, closer without the weight, can be further away with it
    legs, options, better = QUBITS[:3], {"max_bond": 1, "max_sweeps": 5}, []
    for seed in range(10):
        target = random_matrix((8, 8), seed=seed)
        metric = random_metric(8, rank=2, seed=seed)
        cut = truncate(compress(target).mpo, max_bond=1).mpo
        plain = fit_core(target, legs=legs, **options)
        losses = [weighted_distance(target, mpo_to_dense(x), metric) for x in (cut, plain)]
        better.append(np.argmin(losses))
        init = (cut, plain)[better[-1]]
        expected = fit_core(target, legs=legs, covariance=metric, init=init, **options)
        found = fit_core(target, legs=legs, covariance=metric, **options)
        assert_allclose(mpo_to_dense(found), mpo_to_dense(expected), atol=1e-12)
        assert weighted_distance(target, mpo_to_dense(found), metric) <= min(losses) + 1e-12
    assert set(better) == {0, 1}


def test_a_variational_core_beats_truncation_by_far_at_bond_one():
    gains = []
    for seed in range(10):
        target = random_matrix((32, 32), seed=seed)
        mpo = compress(target).mpo
        cut, fit = truncate(mpo, max_bond=1).mpo, fit_core(mpo, max_bond=1)
        gains.append(overlap(target, mpo_to_dense(fit)) / overlap(target, mpo_to_dense(cut)))
    assert min(gains) >= 1
    assert np.median(gains) > 1.1


@KINDS
def test_a_target_that_fits_comes_back(complex_):
    target = mpo_from_tensors(random_cores(QUBITS, 2, complex_))
    found = fit_core(target, max_bond=2)
    expected = mpo_to_dense(target)
    assert_allclose(mpo_to_dense(found), expected, atol=1e-10 * np.linalg.norm(expected))


def test_an_mpo_and_its_matrix_have_the_same_fit():
    mpo = qtn.MPO_rand(4, 6, seed=1)
    a = fit_core(mpo, max_bond=2)
    b = fit_core(mpo_to_dense(mpo), legs=[[2, 2]] * 4, max_bond=2)
    assert_allclose(mpo_to_dense(a), mpo_to_dense(b), atol=1e-9)


def test_a_start_is_taken_as_it_is():
    target = random_matrix((16, 16))
    init = mpo_from_tensors(random_cores(QUBITS, 1, seed=3))
    still = fit_core(target, legs=QUBITS, max_bond=2, init=init, max_sweeps=0)
    assert_allclose(mpo_to_dense(still), mpo_to_dense(init), atol=1e-13)
    assert bond_dimensions(site_tensors(still)) == (2, 2, 2)
    losses = [
        weighted_distance(
            target,
            mpo_to_dense(fit_core(target, legs=QUBITS, max_bond=2, init=init, max_sweeps=n, tol=0)),
        )
        for n in (0, 1, 2, 10)
    ]
    assert (np.diff(losses) < 0).all()


def test_a_sweep_that_makes_it_worse_is_not_taken(monkeypatch):
    # as rounding can, where the metric is ill-conditioned
    target = random_matrix((16, 16))
    best = fit_core(target, legs=QUBITS, max_bond=2)
    monkeypatch.setattr(
        "mpodis.fit.als_sweep", lambda target, cores, **_: [2 * cores[0], *cores[1:]]
    )
    found = fit_core(target, legs=QUBITS, max_bond=2, init=best)
    assert_allclose(mpo_to_dense(found), mpo_to_dense(best), atol=1e-13)


def test_tol_stops_early():
    target = random_matrix((16, 16))
    options = {"legs": QUBITS, "max_bond": 1}
    one = fit_core(target, **options, max_sweeps=1)
    loose = fit_core(target, **options, tol=1.0)
    assert_array_equal(mpo_to_dense(loose), mpo_to_dense(one))


def test_float32_stays():
    target = random_matrix((16, 16)).astype(np.float32)
    found = fit_core(target, legs=QUBITS, max_bond=2)
    assert mpo_to_dense(found).dtype == np.float32
    fine = fit_core(target.astype(float), legs=QUBITS, max_bond=2)
    assert_allclose(
        weighted_distance(target, mpo_to_dense(found)),
        weighted_distance(target, mpo_to_dense(fine)),
        atol=1e-3,
    )


def test_a_complex_metric_makes_the_core_complex():
    target, metric = random_matrix((8, 8)), random_metric(8, True)
    found = mpo_to_dense(fit_core(target, legs=QUBITS[:3], max_bond=2, covariance=metric))
    assert np.iscomplexobj(found)
    real = mpo_to_dense(fit_core(target, legs=QUBITS[:3], max_bond=2))
    assert weighted_distance(target, found, metric) < weighted_distance(target, real, metric)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_bond": 0, "legs": QUBITS}, "max_bond=0 must be a whole number, 1 or more"),
        ({"max_bond": 1, "legs": ((2, 2), (2, 2))}, "span a 4 x 4 matrix, too small"),
        ({"max_bond": 1, "legs": [2, 2]}, "is not a sequence of"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        fit_core(random_matrix((16, 16)), **options)


def test_initial_guesses_that_do_not_fit():
    target = random_matrix((16, 16))
    other = mpo_from_tensors(random_cores(((4, 4), (4, 4)), 1))
    with pytest.raises(ValueError, match=r"init has legs \(\(4, 4\), \(4, 4\)\), the operator"):
        fit_core(target, legs=QUBITS, max_bond=2, init=other)
    large = mpo_from_tensors(random_cores(QUBITS, 3))
    with pytest.raises(ValueError, match=r"init has bond dimensions \(3, 3, 3\), above max_bond=2"):
        fit_core(target, legs=QUBITS, max_bond=2, init=large)
