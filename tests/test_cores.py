"""ALS cores against closed forms and direct least squares; gradients by finite differences."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mpodis.fit as cores_module
from core_problems import KINDS, ODD, QUBITS, WEIGHTS, random_metric, root, setting
from mpodis.fit import (
    als_sweep,
    core_gradient,
    embed_metric,
    fit_core,
    full_bonds,
    norm_gradient,
    pad_bonds,
    weighted_loss,
)
from mpodis.mpo import truncate
from mpodis.sites import bond_dimensions, mpo_from_tensors, mpo_to_dense, site_tensors
from reference import (
    dense_from_cores,
    finite_difference,
    pad,
    random_cores,
    random_matrix,
    weighted_distance,
)


def best_site(target, cores, metric, k):
    """Dense operator with the best site k, the others held: least squares over its entries."""
    columns = []
    for entry in np.eye(cores[k].size):
        trial = [*cores[:k], entry.reshape(cores[k].shape), *cores[k + 1 :]]
        columns.append(dense_from_cores(trial))
    weight = np.eye(len(target)) if metric is None else root(metric)
    design = np.stack([(weight @ column).ravel() for column in columns], axis=1)
    values = np.linalg.lstsq(design, (weight @ target).ravel(), rcond=None)[0]
    return sum(v * column for v, column in zip(values, columns, strict=True))


def loss_of(target, cores, metric):
    return weighted_distance(target, dense_from_cores(cores), metric)


# --- the loss and its metric


@KINDS
def test_the_loss_is_the_weighted_distance(complex_):
    target, cores, metric = setting(QUBITS, complex_, True)
    dense = dense_from_cores(cores)
    for c in (None, metric):
        assert_allclose(weighted_loss(target, dense, c), weighted_distance(target, dense, c))
        assert weighted_loss(target, target, c) == 0
    weight = root(metric)
    weighted = np.linalg.norm(weight @ (target - dense)) / np.linalg.norm(weight @ target)
    assert_allclose(weighted_loss(target, dense, metric), weighted**2, rtol=1e-12)


@KINDS
def test_the_metric_of_padded_inputs_is_padded_with_zeros(complex_):
    metric = random_metric(6, complex_)
    found = embed_metric(metric, 8)
    assert_allclose(found, pad(metric, 8, 8), atol=1e-16)
    assert_array_equal(found, found.conj().T)
    assert_array_equal(embed_metric([[2, 0], [0, 1]], 2), [[2, 0], [0, 1]])


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (np.eye(9), r"covariance has shape \(9, 9\); the operator has 8 \(padded\) inputs"),
        (np.ones((8, 7)), r"covariance has shape \(8, 7\)"),
        (np.ones(8), r"covariance has shape \(8,\)"),
        (np.zeros((8, 8)), "covariance is zero everywhere, NaN or infinite"),
        (np.zeros((0, 0)), "covariance is zero everywhere, NaN or infinite"),
        (np.full((8, 8), np.nan), "covariance is zero everywhere, NaN or infinite"),
        (np.diag([1.0, np.inf]), "covariance is zero everywhere, NaN or infinite"),
        (np.triu(np.ones((8, 8))), r"covariance is not Hermitian; give E\[x\^H x\]"),
        (1j * np.ones((8, 8)), "covariance is not Hermitian"),
        (np.diag([1.0, -0.5]), "covariance has a negative eigenvalue -0.5"),
    ],
)
def test_what_is_not_a_covariance(metric, message):
    with pytest.raises(ValueError, match=message):
        embed_metric(metric, 8)
    with pytest.raises(ValueError, match=message):
        fit_core(random_matrix((8, 8)), legs=QUBITS[:3], max_bond=1, covariance=metric)


# --- bonds


def test_bonds_that_an_operator_can_use():
    assert full_bonds(QUBITS, 99) == [4, 16, 4]
    assert full_bonds(QUBITS, 3) == [3, 3, 3]
    assert full_bonds(ODD, 99) == [2, 12, 6]
    assert full_bonds(((2, 2),), 5) == []


@pytest.mark.parametrize("legs", [QUBITS, ODD, ((2, 2),)], ids=str)
def test_padded_bonds_do_not_change_the_operator(legs):
    cores = random_cores(legs, 2, True)
    padded = pad_bonds(cores, 5)
    assert bond_dimensions(padded) == tuple(full_bonds(legs, 5))
    assert_allclose(dense_from_cores(padded), dense_from_cores(cores), atol=1e-12)
    for a, b in zip(cores, pad_bonds(cores, 1), strict=True):  # never smaller
        assert_array_equal(a, b)


# --- ALS


@pytest.fixture
def descending(monkeypatch):
    """Every site counts as too large to be solved for under a metric."""
    monkeypatch.setattr(cores_module, "LARGEST_SITE", 0)


@KINDS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),)], ids=str)
def test_large_sites_descend_to_what_the_solved_ones_reach(legs, complex_, monkeypatch):
    target, _, metric = setting(legs, complex_, True)
    solved = fit_core(target, legs=legs, max_bond=2, covariance=metric)
    monkeypatch.setattr(cores_module, "LARGEST_SITE", 0)
    found = fit_core(target, legs=legs, max_bond=2, covariance=metric)
    losses = [weighted_loss(target, mpo_to_dense(core), metric) for core in (solved, found)]
    assert_allclose(losses[1], losses[0], rtol=1e-5, atol=1e-9)


@KINDS
def test_a_descent_never_moves_away_and_begins_anywhere(complex_, descending):
    target, cores, metric = setting(QUBITS, complex_, True)
    zeros = [np.zeros_like(core) for core in cores]
    grown = pad_bonds(site_tensors(truncate(mpo_from_tensors(cores), max_bond=1).mpo), 2)
    for init in (cores, zeros, grown):
        init = pad_bonds(init, 2)
        swept = als_sweep(target, init, metric=metric)
        assert [c.shape for c in swept] == [c.shape for c in init]
        assert loss_of(target, swept, metric) < loss_of(target, init, metric)
    rank_one = fit_core(target, legs=QUBITS, max_bond=1, covariance=metric)
    assert loss_of(target, swept, metric) < loss_of(target, site_tensors(rank_one), metric)


def test_a_descent_keeps_single_precision(descending):
    target, cores, metric = setting(QUBITS, False, True)
    target, metric = target.astype(np.float32), metric.astype(np.float32)
    swept = als_sweep(target, [core.astype(np.float32) for core in cores], metric=metric)
    assert {core.dtype for core in swept} == {np.dtype(np.float32)}


@KINDS
@WEIGHTS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),), ((4, 2), (2, 3))], ids=str)
def test_als_never_moves_away(legs, weighted, complex_):
    target, cores, metric = setting(legs, complex_, weighted)
    cores = pad_bonds(cores, 2)
    losses = [loss_of(target, cores, metric)]
    for _ in range(8):
        before = [core.copy() for core in cores]
        swept = als_sweep(target, cores, metric=metric)
        for a, b in zip(cores, before, strict=True):
            assert_array_equal(a, b)
        cores = swept
        assert [c.shape for c in cores] == [c.shape for c in before]
        losses.append(loss_of(target, cores, metric))
    assert (np.diff(losses) <= 1e-12).all()
    assert losses[1] < losses[0]


@KINDS
@WEIGHTS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),), ((4, 2), (2, 3))], ids=str)
def test_the_last_site_is_solved_by_least_squares(legs, weighted, complex_):
    target, cores, metric = setting(legs, complex_, weighted)
    cores = als_sweep(target, pad_bonds(cores, 2), metric=metric)
    best = best_site(target, cores, metric, 0)  # the sweep ends where it began
    assert_allclose(dense_from_cores(cores), best, atol=1e-7)
    expected = weighted_distance(target, best, metric)
    assert_allclose(loss_of(target, cores, metric), expected, atol=1e-11)


@KINDS
@WEIGHTS
def test_at_a_fixed_point_no_site_can_do_better(weighted, complex_):
    target, _, metric = setting(((2, 2),) * 3, complex_, weighted)
    found = fit_core(
        target, legs=((2, 2),) * 3, max_bond=2, covariance=metric, max_sweeps=3000, tol=1e-15
    )
    cores = site_tensors(found)
    reached = loss_of(target, cores, metric)
    for k in range(3):
        best = weighted_distance(target, best_site(target, cores, metric, k), metric)
        assert_allclose(reached, best, atol=1e-8)


@KINDS
@WEIGHTS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),), ((4, 2), (2, 3))], ids=str)
def test_with_full_bonds_the_fit_is_exact(legs, weighted, complex_):
    target, _, metric = setting(legs, complex_, weighted)
    found = fit_core(target, legs=legs, max_bond=99, covariance=metric)
    assert_allclose(mpo_to_dense(found), target, atol=1e-9)
    # from anywhere, not only from the target's own cores
    cores = pad_bonds(random_cores(legs, 1, complex_, 9), 99)
    for _ in range(3):
        cores = als_sweep(target, cores, metric=metric)
    assert loss_of(target, cores, metric) < 1e-12


def test_als_starts_from_zero_too():
    target = random_matrix((8, 8))
    cores = pad_bonds([np.zeros((1, 2, 2, 1))] * 3, 2)
    for metric in (None, random_metric(8)):
        found = als_sweep(target, cores, metric=metric)
        assert all(np.isfinite(core).all() for core in found)
        assert loss_of(target, found, metric) <= 1 + 1e-12


@KINDS
@WEIGHTS
def test_the_first_core_carries_the_norm(weighted, complex_):
    target, cores, metric = setting(QUBITS, complex_, weighted)
    found = als_sweep(target, cores, metric=metric)
    assert_allclose(np.linalg.norm(found[0]), np.linalg.norm(dense_from_cores(found)), rtol=1e-12)
    for core in found[1:]:
        columns = core.reshape(core.shape[0], -1)
        assert_allclose(columns @ columns.conj().T, np.eye(len(columns)), atol=1e-12)


def test_bonds_that_are_larger_than_they_can_be_shrink():
    target, cores, _ = setting(QUBITS, False, False, bond=20)
    found = als_sweep(target, cores)
    assert bond_dimensions(found) == tuple(full_bonds(QUBITS, 20))
    assert_allclose(dense_from_cores(found), target, atol=1e-10)


# --- closed forms


@KINDS
@pytest.mark.parametrize("bond", [1, 2, 3])
def test_two_sites_have_the_truncated_svd_as_their_optimum(complex_, bond):
    legs = ((2, 4), (4, 2))
    target = random_matrix((8, 8), complex_)
    tensor = target.reshape(2, 4, 4, 2).transpose(0, 2, 1, 3).reshape(8, 8)
    values = np.linalg.svd(tensor, compute_uv=False)
    found = fit_core(target, legs=legs, max_bond=bond)
    expected = (values[bond:] ** 2).sum() / (values**2).sum()
    assert_allclose(weighted_distance(target, mpo_to_dense(found)), expected, rtol=1e-9)


@KINDS
@pytest.mark.parametrize("bond", [1, 2, 3])
def test_weighted_low_rank_has_a_closed_form(complex_, bond):
    # all inputs on one site, all outputs on the other: |C (W - A B)| is an SVD of C W
    target, metric = random_matrix((6, 5), complex_), random_metric(6, complex_)
    found = fit_core(
        target, legs=((6, 1), (1, 5)), max_bond=bond, covariance=metric, max_sweeps=2000, tol=1e-15
    )
    values = np.linalg.svd(root(metric) @ target, compute_uv=False)
    expected = (values[bond:] ** 2).sum() / (values**2).sum()
    reached = weighted_distance(target, mpo_to_dense(found), metric)
    assert_allclose(reached, expected, rtol=1e-6)


@KINDS
def test_a_weight_on_one_site_has_a_closed_form(complex_):
    legs = ((2, 4), (4, 2))
    target, local = random_matrix((8, 8), complex_), random_metric(2, complex_)
    metric = np.kron(local, np.eye(4))
    found = fit_core(target, legs=legs, max_bond=2, covariance=metric, max_sweeps=2000, tol=1e-15)
    seen = np.kron(root(local), np.eye(4)) @ target
    values = np.linalg.svd(
        seen.reshape(2, 4, 4, 2).transpose(0, 2, 1, 3).reshape(8, 8), compute_uv=False
    )
    expected = (values[2:] ** 2).sum() / (values**2).sum()
    reached = weighted_distance(target, mpo_to_dense(found), metric)
    assert_allclose(reached, expected, rtol=1e-6)


@KINDS
def test_a_flat_metric_changes_nothing(complex_):
    target = random_matrix((16, 16), complex_)
    plain = fit_core(target, legs=QUBITS, max_bond=2)
    flat = fit_core(target, legs=QUBITS, max_bond=2, covariance=3 * np.eye(16))
    assert_allclose(
        weighted_distance(target, mpo_to_dense(flat)),
        weighted_distance(target, mpo_to_dense(plain)),
        atol=1e-7,
    )


# --- gradients


@KINDS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),)], ids=str)
def test_the_gradient_of_the_overlap(legs, complex_):
    pulled, cores, _ = setting(legs, complex_, False, bond=3)
    gradients = core_gradient(pulled, cores)
    for k, gradient in enumerate(gradients):
        assert gradient.shape == cores[k].shape
        direction = random_matrix(cores[k].shape, complex_, 7)

        def value(site, k=k):
            dense = dense_from_cores([*cores[:k], site, *cores[k + 1 :]])
            return np.vdot(pulled, dense).real

        expected = finite_difference(value, cores[k], direction)
        assert_allclose(np.vdot(gradient, direction).real, expected, rtol=1e-7)
        # linear in every site: the value itself is the product with the site
        assert_allclose(np.vdot(gradient, cores[k]).real, value(cores[k]), rtol=1e-12)


@KINDS
@pytest.mark.parametrize("legs", [QUBITS, ODD, ((4, 3),)], ids=str)
def test_the_gradient_of_the_norm(legs, complex_):
    cores = random_cores(legs, 3, complex_)
    gradients = norm_gradient(cores)
    for k, gradient in enumerate(gradients):
        assert gradient.shape == cores[k].shape
        direction = random_matrix(cores[k].shape, complex_, 7)

        def value(site, k=k):
            dense = dense_from_cores([*cores[:k], site, *cores[k + 1 :]])
            return np.vdot(dense, dense).real / 2

        expected = finite_difference(value, cores[k], direction)
        assert_allclose(np.vdot(gradient, direction).real, expected, rtol=1e-7)
        assert_allclose(np.vdot(gradient, cores[k]).real, 2 * value(cores[k]), rtol=1e-12)


@KINDS
def test_the_gradients_of_a_fit_cancel(complex_):
    # d|M - A|^2/2 = norm gradient - environment = 0 at a fixed point of plain ALS
    target = random_matrix((8, 8), complex_)
    legs = ((2, 2),) * 3
    found = site_tensors(fit_core(target, legs=legs, max_bond=2, max_sweeps=3000, tol=1e-16))
    pairs = zip(core_gradient(target, found), norm_gradient(found), strict=True)
    for environment, gradient in pairs:
        assert_allclose(environment, gradient, atol=1e-5)
