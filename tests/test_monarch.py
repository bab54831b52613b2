"""Monarch matrices: entry by entry, the closed form, and fits that never end above it."""

import importlib
import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import best_monarch, monarch, monarch_sizes
from mpodis.conventions import pad
from mpodis.structured.monarch import (
    FactorLayout,
    WeightedDistance,
    factor_gradients,
    fit_factors,
    nearest_factors,
    product_matrix,
    sweep_factors,
    trailing_products,
)
from reference import random_matrix, relative_error, weighted_distance

CASES = (
    (((2, 3), (4, 5)), 1),
    (((4, 3), (3, 2)), 2),
    (((2, 3), (4, 2), (3, 2)), 2),
    (((2, 2),) * 4, 1),
)
every_case = pytest.mark.parametrize(("legs", "rank"), CASES)
both_orders = pytest.mark.parametrize("reverse", [False, True])
both_numbers = pytest.mark.parametrize("is_complex", [False, True])


def random_factors(layout, is_complex=False, seed=0):
    return [random_matrix(layout.shape(j), is_complex, (seed, j)) for j in range(len(layout.legs))]


def entries(layout, factors):
    """The product entry by entry: a sum over the bonds for every pair of digits, reordered."""
    ins, outs = ([leg[k] for leg in layout.legs] for k in range(2))
    result = np.zeros((math.prod(ins), math.prod(outs)), dtype=factors[0].dtype)
    for row, i in enumerate(np.ndindex(*ins)):
        for column, o in enumerate(np.ndindex(*outs)):
            vector = np.ones((1,))
            for j, factor in enumerate(factors):
                p = int(np.ravel_multi_index(o[:j], outs[:j])) if j else 0
                rest = ins[j + 1 :]
                s = int(np.ravel_multi_index(i[j + 1 :], rest)) if rest else 0
                block = factor[p, s].reshape(layout.bonds[j], ins[j], outs[j], layout.bonds[j + 1])
                vector = vector @ block[:, i[j], o[j]]
            result[row, column] = vector[0]
    return result


def moments(shape, *, is_complex=False, seed=3, decay=1.0):
    """Samples and their second moments on both sides."""
    found = []
    for k, size in enumerate(shape):
        x = random_matrix((3 * size, size), is_complex, (seed, k)) / np.arange(1, size + 1) ** decay
        found += [x, x.conj().T @ x]
    return found


def relative_loss(x, g, target, matrix):
    off, whole = x @ (target - matrix) @ g.conj().T, x @ target @ g.conj().T
    return (np.linalg.norm(off) / np.linalg.norm(whole)) ** 2


# --- factors and their product


@both_numbers
@every_case
def test_the_product_entry_by_entry(legs, rank, is_complex):
    layout = FactorLayout.build(legs, rank, reverse=True)
    factors = random_factors(layout, is_complex)
    assert_allclose(product_matrix(layout, factors), entries(layout, factors), atol=1e-12)


def test_two_factors_are_monarch_matrices():
    """M[l j, k i] = L[j, l, k] R[k, j, i] as the paper writes them, for column vectors."""
    layout = FactorLayout.build(((3, 3), (3, 3)), 1, reverse=False)
    r, left = (f.reshape(3, 3, 3) for f in random_factors(layout))
    found = layout.restore(
        product_matrix(layout, [r.reshape(1, 3, 3, 3, 1), left.reshape(3, 1, 3, 3, 1)])
    )
    # r is [k, i, j], left [j, k, l]; rows of `found` are inputs (k, i), columns outputs (l, j)
    assert_allclose(found, np.einsum("kij,jkl->kilj", r, left).reshape(9, 9))
    permutation = np.eye(9)[np.arange(9).reshape(3, 3).T.reshape(-1)]
    blocks = [np.zeros((9, 9)) for _ in range(2)]
    for b in range(3):
        blocks[0][3 * b : 3 * b + 3, 3 * b : 3 * b + 3] = r[b]
        blocks[1][3 * b : 3 * b + 3, 3 * b : 3 * b + 3] = left[b]
    product = blocks[0] @ permutation @ blocks[1] @ permutation
    assert_allclose(found, product, atol=1e-13)


@both_numbers
@both_orders
@every_case
def test_reordering_is_undone(legs, rank, is_complex, reverse):
    layout = FactorLayout.build(legs, rank, reverse=reverse)
    shape = [math.prod(leg[k] for leg in legs) for k in range(2)]
    matrix = random_matrix(shape, is_complex)
    assert_array_equal(layout.restore(layout.reorder(matrix)), matrix)
    if reverse:
        assert_array_equal(layout.reorder(matrix), matrix)


@both_numbers
@every_case
def test_factor_gradients_are_the_derivatives(legs, rank, is_complex):
    layout = FactorLayout.build(legs, rank, reverse=True)
    factors, moved = (random_factors(layout, is_complex, seed) for seed in (0, 1))
    gradient = random_matrix(product_matrix(layout, factors).shape, is_complex, 2)
    found = factor_gradients(layout, factors, trailing_products(layout, factors), gradient)
    for j, (factor, step, one) in enumerate(zip(factors, moved, found, strict=True)):
        changed = [*factors[:j], factor + step, *factors[j + 1 :]]  # linear in every factor
        rise = product_matrix(layout, changed) - product_matrix(layout, factors)
        assert_allclose(np.vdot(gradient, rise).real, np.vdot(one, step).real, rtol=1e-9)


# --- the closed form


@both_numbers
@both_orders
@every_case
def test_an_exact_product_is_recovered(legs, rank, reverse, is_complex):
    layout = FactorLayout.build(legs, rank, reverse=reverse)
    matrix = layout.restore(product_matrix(layout, random_factors(layout, is_complex)))
    found = monarch(matrix, legs, rank=rank, reverse=reverse, max_iterations=0, n_init=1)
    assert_allclose(found.matrix, matrix, atol=1e-10 * np.abs(matrix).max())
    assert found.overlap == pytest.approx(1)
    assert found.parameters == layout.parameters(matrix.shape)
    assert found.name == f"Monarch {' '.join(f'{i}x{o}' for i, o in legs)}, rank {rank}" + (
        ", reversed" if reverse else ""
    )


@both_numbers
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_two_factors_are_an_svd_of_every_block(rank, is_complex):
    matrix = random_matrix((12, 15), is_complex)
    found = monarch(matrix, ((3, 5), (4, 3)), rank=rank)
    blocks = matrix.reshape(3, 4, 5, 3).transpose(0, 3, 1, 2)  # (i1, o2): i2 x o1
    values = np.linalg.svd(blocks, compute_uv=False)
    tail = np.sqrt((values[..., rank:] ** 2).sum())
    assert_allclose(found.relative_error * np.linalg.norm(matrix), tail, atol=1e-12)
    assert_allclose(found.relative_error**2 + found.overlap**2, 1, atol=1e-12)
    assert math.isnan(found.activation_error)


def test_a_rank_beyond_the_exact_one_is_lowered():
    matrix = random_matrix((8, 8))
    found = monarch(matrix, ((2, 4), (4, 2)), rank=100)
    assert_allclose(found.matrix, matrix, atol=1e-12)
    assert found.parameters == monarch(matrix, ((2, 4), (4, 2)), rank=4).parameters


def test_the_fourier_transform_is_a_monarch_matrix():
    """With the digits of outputs or inputs exchanged; bit by bit it is a butterfly."""
    n = 16
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n)
    options = {"n_init": 1, "max_sweeps": 0, "max_iterations": 0}
    for legs in (((4, 4),) * 2, ((2, 2),) * 4):
        exchanged = np.arange(n).reshape([i for i, _ in legs]).T.reshape(-1)
        by_outputs = monarch(fourier[:, exchanged], legs, reverse=True, **options)
        assert by_outputs.relative_error < 1e-12
        assert monarch(fourier[exchanged], legs, **options).relative_error < 1e-12
        assert monarch(fourier, legs, **options).relative_error > 0.4


def test_padding_does_not_count():
    matrix = random_matrix((7, 10))
    found = monarch(matrix)  # 3 x 3 and 4 x 3
    assert found.matrix.shape == (7, 10)
    assert found.name == "Monarch 3x4 3x3, rank 1"
    padded = pad(matrix, ((3, 4), (3, 3)))
    exact = monarch(padded, ((3, 4), (3, 3)))
    assert_allclose(found.matrix, exact.matrix[:7, :10], atol=1e-12)
    assert found.parameters < exact.parameters
    used = 0  # values between an input and an output that exist
    for i1, i2, o2 in itertools.product(range(3), range(3), range(3)):
        used += 3 * i1 + i2 < 7 and o2 < 10
    for i1, o1, o2 in itertools.product(range(3), range(4), range(3)):
        used += 3 * i1 < 7 and 3 * o1 + o2 < 10
    assert found.parameters == used


# --- fits


@both_numbers
@both_orders
@pytest.mark.parametrize("sensitive", [False, True])
@every_case
def test_als_never_increases_the_distance(legs, rank, reverse, is_complex, sensitive):
    layout = FactorLayout.build(legs, rank, reverse=reverse)
    shape = tuple(math.prod(leg[k] for leg in legs) - (1 - k) for k in range(2))
    x, c, g, s = moments(shape, is_complex=is_complex)
    matrix = random_matrix(shape, is_complex)
    distance = WeightedDistance(
        layout, layout.reorder(pad(matrix, legs)), shape, c, s if sensitive else None
    )
    factors = random_factors(layout, is_complex)
    losses = [distance.loss(factors)]
    for _ in range(4):
        factors = sweep_factors(distance, factors)
        losses.append(distance.loss(factors))
    assert (np.diff(losses) <= 1e-12).all()
    assert losses[1] < 0.9
    found = layout.restore(product_matrix(layout, factors))[: shape[0], : shape[1]]
    g = g if sensitive else np.eye(shape[1])
    assert_allclose(losses[-1], relative_loss(x, g, matrix, found), rtol=1e-6)


@every_case
def test_a_solved_factor_is_stationary(legs, rank):
    layout = FactorLayout.build(legs, rank, reverse=True)
    factors = random_factors(layout)
    shape = product_matrix(layout, factors).shape
    _, c, _, s = moments(shape, decay=0.3)
    for sensitivity in (None, s):
        distance = WeightedDistance(layout, random_matrix(shape), shape, c, sensitivity)
        swept = sweep_factors(distance, factors)
        after = trailing_products(layout, swept)
        gradient = factor_gradients(
            layout, swept, after, distance.loss_and_gradient(after[-1].reshape(shape))[1]
        )
        scale = np.linalg.norm(gradient[0])
        assert np.linalg.norm(gradient[-1]) < 1e-6 * scale + 1e-13  # the last that was solved


@both_numbers
@pytest.mark.parametrize("sensitive", [False, True])
@pytest.mark.parametrize("legs", [((4, 3), (4, 2)), ((2, 2), (3, 2), (2, 2))])
def test_weighted_fits_beat_the_closed_form(legs, sensitive, is_complex):
    shape = tuple(math.prod(leg[k] for leg in legs) for k in range(2))
    x, c, g, s = moments(shape, is_complex=is_complex)
    g, s = (g, s) if sensitive else (np.eye(shape[1]), None)
    matrix = random_matrix(shape, is_complex)
    plain = monarch(matrix, legs, covariance=c, sensitivity=s, weighted=False, n_init=1)
    best = monarch(matrix, legs, covariance=c, sensitivity=s, n_init=2, max_iterations=50)
    one = monarch(matrix, legs, covariance=c, sensitivity=s, n_init=1, max_iterations=50)
    assert (
        relative_loss(x, g, matrix, best.matrix) <= relative_loss(x, g, matrix, one.matrix) + 1e-12
    )
    assert relative_loss(x, g, matrix, one.matrix) < 0.9 * relative_loss(x, g, matrix, plain.matrix)
    assert plain.relative_error < best.relative_error
    assert best.parameters == plain.parameters
    assert_allclose(best.activation_error, relative_error(x @ matrix, x @ best.matrix), rtol=1e-9)


def test_a_fit_of_more_factors_never_ends_above_the_svds():
    matrix, legs = random_matrix((8, 8)), ((2, 2),) * 3
    first = monarch(matrix, legs, n_init=1, max_sweeps=0, max_iterations=0)
    layout = FactorLayout.build(legs, 1, reverse=False)
    svds = layout.restore(product_matrix(layout, nearest_factors(layout, layout.reorder(matrix))))
    assert_allclose(first.matrix, svds, atol=1e-12)
    assert monarch(matrix, legs, n_init=1).relative_error < first.relative_error - 1e-3


def test_the_fit_is_exact_for_inputs_of_low_rank():
    x = random_matrix((20, 3)) @ random_matrix((3, 16), seed=1)
    matrix = random_matrix((16, 9))
    found = monarch(matrix, ((4, 3), (4, 3)), rank=2, covariance=x.T @ x, n_init=1)
    assert found.activation_error < 1e-4
    assert found.relative_error > 0.1


def test_without_als_lbfgs_fits_alone(monkeypatch):
    matrix = random_matrix((9, 9))
    _, c, _, _ = moments((9, 9))
    expected = monarch(matrix, covariance=c, n_init=1).activation_error
    module = importlib.import_module("mpodis.structured.monarch")  # the name is a function, too
    monkeypatch.setattr(module, "LARGEST_SYSTEM", 10)
    monkeypatch.setattr(module, "sweep_factors", None)
    found = monarch(matrix, covariance=c, n_init=1).activation_error
    assert_allclose(found, expected, rtol=0.1)


def test_a_fit_that_converges_stops():
    layout = FactorLayout.build(((2, 2), (2, 2)), 2, reverse=True)
    matrix = random_matrix((4, 4))
    distance = WeightedDistance(layout, matrix, (4, 4))
    loss, factors = fit_factors(distance, nearest_factors(layout, matrix), 100, 10)
    assert loss < 1e-25
    assert_allclose(product_matrix(layout, factors), matrix, atol=1e-12)
    assert_allclose(
        distance.loss_and_gradient(matrix * 2)[0], weighted_distance(matrix, matrix * 2)
    )


# --- sizes


def test_sizes_are_what_monarch_stores():
    for shape, factors in (((8, 8), 2), ((6, 4), 2), ((8, 4), 3)):
        sizes = monarch_sizes(shape, factors=factors, ranks=(1, 2))
        assert sizes
        assert [one.parameters for one in sizes] == sorted(one.parameters for one in sizes)
        matrix = random_matrix(shape)
        for size in sizes[:: max(1, len(sizes) // 8)]:
            options = {"n_init": 1, "max_sweeps": 0, "max_iterations": 0}
            found = monarch(matrix, size.legs, rank=size.rank, reverse=size.reverse, **options)
            assert found.parameters == size.parameters <= matrix.size
    standard = [one for one in monarch_sizes((64, 64)) if one.legs == ((8, 8), (8, 8))]
    assert [one.parameters for one in standard] == [2 * 64 * 8] * 2
    assert not [one for one in monarch_sizes((8, 4)) if one.legs[0] in ((8, 1), (1, 4))]
    butterfly = [one for one in monarch_sizes((16, 16), factors=4) if one.legs == ((2, 2),) * 4]
    assert [one.parameters for one in butterfly] == [4 * 16 * 2] * 2
    assert any(one.legs == ((28, 2), (28, 5)) for one in monarch_sizes((784, 10)))


@pytest.mark.parametrize("parameters", [1, 30, 60])
def test_sizes_have_at_least_the_parameters_asked_for(parameters):
    sizes = monarch_sizes((8, 8), parameters=parameters)
    for size in sizes:
        assert parameters <= size.parameters <= 64
        if size.rank > 1:
            lower = FactorLayout.build(size.legs, size.rank - 1, reverse=size.reverse)
            assert lower.parameters((8, 8)) < parameters
    assert len({(one.legs, one.reverse) for one in sizes}) == len(sizes)


def test_the_best_size_for_a_number_of_parameters():
    layout = FactorLayout.build(((4, 2), (2, 4)), 1, reverse=True)
    matrix = layout.restore(product_matrix(layout, random_factors(layout)))
    found = best_monarch(matrix, layout.parameters((8, 8)))
    assert found.relative_error < 1e-12
    assert found.name == "Monarch 4x2 2x4, rank 1, reversed"
    _, c, _, _ = moments((8, 8))
    matrix = random_matrix((8, 8))
    weighted = best_monarch(matrix, 32, covariance=c, fits=2, factors=(2, 3), max_iterations=100)
    assert 32 <= weighted.parameters <= 1.1 * 32
    others = [
        monarch(matrix, one.legs, rank=one.rank, reverse=one.reverse, covariance=c, weighted=False)
        for one in monarch_sizes((8, 8), parameters=32)
        if one.parameters <= weighted.parameters
    ]
    assert len(others) > 1
    assert weighted.activation_error < min(other.activation_error for other in others)
    with pytest.raises(ValueError, match=r"shape \(8, 8\) has between 65 and 64 parameters; lower"):
        best_monarch(matrix, 65)


# --- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank=0 must be a whole number, 1 or more"),
        ({"n_init": 0}, "n_init=0 must be a whole number, 1 or more"),
        ({"legs": ((2, 2), (2, 2))}, "span a 4 x 4 matrix, too small for the shape"),
        ({"legs": (2, 2)}, "not a sequence of"),
        ({"covariance": np.eye(7)}, r"covariance has shape \(7, 7\); the operator has 6"),
        ({"sensitivity": np.zeros((6, 6))}, "sensitivity is zero everywhere"),
        ({"covariance": np.diag([1.0, 0, 0, 0, 0, 0])}, "maps all given inputs to zero"),
    ],
)
def test_errors_of_monarch(options, message):
    matrix = random_matrix((6, 6))
    matrix[0] = 0
    with pytest.raises(ValueError, match=message):
        monarch(matrix, **options)


def test_one_factor_is_refused():
    with pytest.raises(ValueError, match="factors=1 must be a whole number, 2 or more"):
        monarch_sizes((8, 8), factors=1)
