"""Orders and bases: exact identities, planted problems, and guarantees of the searches."""

import itertools
import math

import numpy as np
import pytest

import mpodis
from mpodis.arrays import times_power_of_two
from mpodis.conventions import qubit_legs
from mpodis.fit import fit_core, weighted_loss
from mpodis.measures import entanglement, second_moment
from mpodis.sites import mpo_to_dense
from mpodis.structured import (
    Reordering,
    absorb_mean_into_bias,
    head_rotation,
    pca_basis,
    site_order,
)
from reference import TOL, random_covariance, random_matrix, random_reordering, small_bond

EXACT = TOL["float64"]


def shuffled_sites(matrix, n, rows, columns):
    """The sites of a qubit operator in another order, by one transpose."""
    axes = [*rows, *(n + c for c in columns)]
    return matrix.reshape([2] * 2 * n).transpose(axes).reshape(matrix.shape)


# --- Reordering


@pytest.mark.parametrize("shape", [(6, 16), (1, 5), (48, 64)])
@pytest.mark.parametrize("complex", [False, True])
def test_a_reordering_round_trips_exactly(shape, complex):
    matrix, moved = random_matrix(shape, complex), random_reordering(shape)
    there = moved.apply(matrix)
    np.testing.assert_array_equal(there, matrix[moved.rows][:, moved.columns])
    np.testing.assert_array_equal(moved.undo(there), matrix)
    np.testing.assert_array_equal(moved.inverse.apply(there), matrix)
    np.testing.assert_array_equal(moved.apply(moved.undo(matrix)), matrix)


def test_a_smaller_matrix_is_padded_and_cropped_back():
    matrix, moved = random_matrix((5, 10)), random_reordering((8, 16))
    there = moved.apply(matrix)
    assert there.shape == (8, 16)
    np.testing.assert_array_equal(moved.undo(there, shape=(5, 10)), matrix)


def test_reorderings_compose():
    first, second = random_reordering((6, 9), 1), random_reordering((6, 9), 2)
    matrix = random_matrix((6, 9))
    np.testing.assert_array_equal(
        first.then(second).apply(matrix), second.apply(first.apply(matrix))
    )
    for nothing in (first.then(first.inverse), Reordering.identity((6, 9))):
        np.testing.assert_array_equal(nothing.apply(matrix), matrix)


def test_moments_are_reordered_with_the_neurons():
    moved, x = random_reordering((6, 9)), random_matrix((20, 6))
    w, a = random_matrix((6, 9), seed=1), random_matrix((6, 9), seed=2)
    g = random_matrix((20, 9), seed=3)
    np.testing.assert_allclose(
        moved.covariance(second_moment(x)), second_moment(x[:, moved.rows]), atol=EXACT
    )
    before = weighted_loss(w, a, second_moment(x), second_moment(g))
    metrics = moved.covariance(second_moment(x)), moved.sensitivity(second_moment(g))
    after = weighted_loss(moved.apply(w), moved.apply(a), *metrics)
    np.testing.assert_allclose(after, before, rtol=EXACT)


def test_a_reordering_cannot_be_changed_and_its_table_counts_what_moved():
    rows = np.array([1, 0])
    moved = Reordering(rows, [2, 0, 1])
    rows[0] = 0
    np.testing.assert_array_equal(moved.rows, [1, 0])
    with pytest.raises(ValueError, match="read-only"):
        moved.rows[0] = 0
    assert moved.table().rows == [("rows", 2, 2, "1 0"), ("columns", 3, 3, "2 0 1")]


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([0, 0], "each number must occur once"),
        ([1, 2], "not a permutation of 0, ..., 1"),
        ([0.0, 1.0], "list of integers"),
        ([[0, 1]], "list of integers"),
        ([], "list of integers"),
    ],
)
def test_only_permutations_are_taken(rows, text):
    with pytest.raises(ValueError, match=text):
        Reordering(rows, [0])


def test_shapes_that_do_not_fit_are_refused():
    moved = random_reordering((4, 4))
    with pytest.raises(ValueError, match=r"\(5, 4\) does not fit a reordering to \(4, 4\)"):
        moved.apply(np.ones((5, 4)))
    with pytest.raises(
        ValueError, match=r"shape \(3, 4\) cannot be a reordered one; .* takes, the shape \(4, 4\)"
    ):
        moved.undo(np.ones((3, 4)))
    with pytest.raises(ValueError, match="do not compose"):
        moved.then(random_reordering((4, 8)))


# --- site_order


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_exact_order_is_the_best_of_all(together, weighted):
    n = 4 if together else 3
    matrix = random_matrix((2**n, 2**n), seed=5)
    covariance = random_covariance(2**n) if weighted else None
    root = np.eye(2**n)
    if weighted:
        values, vectors = np.linalg.eigh(covariance)
        root = (vectors * np.sqrt(values)) @ vectors.T
    found = site_order(matrix, together=together, covariance=covariance)
    orders = list(itertools.permutations(range(n)))
    states = [(r, r) for r in orders] if together else itertools.product(orders, orders)
    sums = [entanglement(shuffled_sites(root @ matrix, n, *s)).entropies.sum() for s in states]
    assert found.status == "exact"
    np.testing.assert_allclose(found.after, min(sums), rtol=1e-10)
    np.testing.assert_allclose(found.before, sums[0], rtol=1e-10)


@pytest.mark.parametrize("together", [True, False])
def test_shuffled_sites_are_recovered(together):
    n, rng = 6, np.random.default_rng(3)
    planted = small_bond(qubit_legs(64, 64), 2, seed=1)
    rows = rng.permutation(n)
    columns = rows if together else rng.permutation(n)
    shuffled = shuffled_sites(planted, n, rows, columns)
    found = site_order(shuffled, together=together)
    back = entanglement(found.reordering.apply(shuffled))
    native = entanglement(planted).entropies.sum()
    assert found.before > 1.5 * native
    assert found.after < native + 1e-9
    np.testing.assert_allclose(back.entropies.sum(), found.after, rtol=1e-9)


@pytest.mark.parametrize("measure", ["discarded", "loss"])
def test_shuffled_sites_are_recovered_to_their_bond(measure):
    n = 5
    planted = small_bond(qubit_legs(32, 32), 2, seed=2)
    order = [3, 0, 4, 1, 2]
    shuffled = shuffled_sites(planted, n, order, order)
    found = site_order(shuffled, measure=measure, max_bond=2)
    assert found.before > 0.05
    assert found.after < 1e-9
    core = fit_core(found.reordering.apply(shuffled), max_bond=2, legs=found.legs)
    assert weighted_loss(found.reordering.apply(shuffled), mpo_to_dense(core)) < 1e-9


def test_annealing_recovers_more_sites():
    n, rng = 8, np.random.default_rng(0)
    planted = small_bond(qubit_legs(2**n, 2**n), 1, seed=3)
    rows, columns = rng.permutation(n), rng.permutation(n)
    shuffled = shuffled_sites(planted, n, rows, columns)
    found = site_order(shuffled, together=False, restarts=0, steps=60)
    assert found.status == "search"
    assert found.before > 1
    assert found.after < 0.5 * found.before


def test_legs_of_a_rectangular_operator_move_with_its_sites():
    matrix = random_matrix((60, 10))
    found = site_order(matrix, together=False)
    assert found.reordering.shape == (64, 16)
    there = found.reordering.apply(matrix)
    sums = entanglement(mpodis.compress(there, legs=found.legs).mpo).entropies.sum()
    np.testing.assert_allclose(sums, found.after, rtol=1e-9)
    np.testing.assert_array_equal(found.reordering.undo(there, shape=(60, 10)), matrix)


def test_any_factorisation_and_an_mpo_are_taken():
    matrix = random_matrix((24, 6))
    legs = ((4, 1), (2, 3), (3, 2))
    dense = site_order(matrix, legs=legs)
    mpo = site_order(mpodis.compress(matrix, legs=legs).mpo)
    assert sorted(dense.legs) == sorted(legs)
    assert dense.sites == mpo.sites
    order = dense.sites[0]
    old = matrix.reshape(4, 2, 3, 6).transpose(*order, 3).reshape(24, 6)
    np.testing.assert_array_equal(dense.reordering.apply(matrix), old[:, dense.reordering.columns])


def test_the_loss_is_that_of_the_core():
    matrix, covariance = random_matrix((8, 8)), random_covariance(8)
    found = site_order(matrix, measure="loss", max_bond=2, covariance=covariance)
    moved = found.reordering
    loss = weighted_loss(
        moved.apply(matrix), mpo_to_dense(found.core), moved.covariance(covariance)
    )
    np.testing.assert_allclose(loss, found.after, rtol=1e-10)
    assert found.after <= found.before
    assert found.evaluations > 0


def test_one_site_has_one_order():
    found = site_order(random_matrix((2, 2)))
    assert found.after == found.before == 0
    assert found.sites == ((0,), (0,))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"measure": "area"}, "use one of entropy, discarded, loss"),
        ({"measure": "loss"}, "need a bond dimension"),
        ({"max_bond": 2}, "'entropy' takes none"),
        ({"measure": "loss", "max_bond": 0}, "max_bond=0 must be a whole number"),
        ({"steps": -1}, "steps=-1 must be a whole number, 0 or more"),
        ({"legs": ((2, 2),)}, "too small"),
        ({"covariance": np.eye(9)}, "the covariance has shape"),
    ],
)
def test_errors_of_site_order(options, text):
    with pytest.raises(ValueError, match=text):
        site_order(random_matrix((8, 8)), **options)


def test_legs_together_with_an_mpo_are_refused():
    with pytest.raises(ValueError, match="leave legs= out"):
        site_order(mpodis.compress(random_matrix((4, 4))).mpo, legs=((4, 4),))


# --- bases


@pytest.mark.parametrize("complex", [False, True])
def test_the_pca_basis_diagonalises_and_changes_nothing(complex):
    x, w = random_matrix((50, 6), complex), random_matrix((6, 9), complex, seed=1)
    r = pca_basis(second_moment(x))
    np.testing.assert_allclose(r.conj().T @ r, np.eye(6), atol=EXACT)
    np.testing.assert_allclose((x @ r) @ (r.conj().T @ w), x @ w, atol=50 * EXACT)
    # C = E[x^H x] of new inputs
    rotated = second_moment(x @ r)
    np.testing.assert_allclose(rotated, np.diag(rotated.diagonal()), atol=1e-12)
    np.testing.assert_allclose(rotated, r.conj().T @ second_moment(x) @ r, atol=1e-12)
    assert (np.diff(rotated.diagonal().real) <= 1e-12).all()


@pytest.mark.parametrize("kind", ["balanced", "orthogonal"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_head_rotation_does_not_change_the_scores(kind, weighted):
    heads, dim, n = 3, 4, 16
    wq, wk = random_matrix((n, heads * dim), seed=1), random_matrix((n, heads * dim), seed=2)
    bq, bk = random_matrix((2, heads * dim), seed=3)
    covariance = random_covariance(n) if weighted else None
    found = head_rotation(wq, wk, heads=heads, covariance=covariance, kind=kind)
    x = random_matrix((7, n), seed=4)
    q, k = x @ wq + bq, x @ wk + bk
    new_q = x @ found.rotate_query(wq) + found.rotate_query(bq)
    new_k = x @ found.rotate_key(wk) + found.rotate_key(bk)
    for h in range(heads):
        head = slice(h * dim, (h + 1) * dim)
        np.testing.assert_allclose(
            new_q[:, head] @ new_k[:, head].T, q[:, head] @ k[:, head].T, atol=1e-11
        )
        np.testing.assert_allclose(
            found.rotate_query(wq)[:, head] @ found.rotate_key(wk)[:, head].T,
            wq[:, head] @ wk[:, head].T,
            atol=1e-11,
        )
        metric = np.eye(n) if covariance is None else covariance
        forms = [
            a[:, head].T @ metric @ a[:, head]
            for a in (found.rotate_query(wq), found.rotate_key(wk))
        ]
        if kind == "balanced":
            for form in forms:
                np.testing.assert_allclose(form, np.diag(found.values[h]), atol=1e-10)
        else:
            total = sum(forms)
            np.testing.assert_allclose(total, np.diag(total.diagonal()), atol=1e-10)
            np.testing.assert_allclose(found.query[h].T @ found.query[h], np.eye(dim), atol=EXACT)
    largest = [row[2] for row in found.table().rows]
    np.testing.assert_allclose(largest, found.values[:, 0])


@pytest.mark.parametrize("kind", ["balanced", "orthogonal"])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (600, 601), (-600, -640), (980, -980), (-900, 951)])
def test_head_rotations_of_numbers_of_any_size(kind, a, b):
    wq, wk = random_matrix((8, 6), seed=1), random_matrix((8, 6), seed=2)
    plain = head_rotation(wq, wk, heads=2)
    found = head_rotation(wq * 2.0**a, wk * 2.0**b, heads=2, kind=kind)
    assert bool(found.exponent) == (abs(a + b) > 900)
    values = [times_power_of_two(found.values, found.exponent - a - b), plain.values]
    np.testing.assert_allclose(*values, rtol=1e-12)
    query, key = found.rotate_query(wq * 2.0**a), found.rotate_key(wk * 2.0**b)
    for head in (slice(0, 3), slice(3, 6)):
        scores = query[:, head] * 2.0**-a @ (key[:, head] * 2.0**-b).T
        np.testing.assert_allclose(scores, wq[:, head] @ wk[:, head].T, rtol=1e-11, atol=1e-12)
    if kind == "balanced":  # both of one size
        largest = [math.log2(np.abs(x).max()) for x in (query, key)]
        assert abs(largest[0] - largest[1]) < 3
    assert ("2^" in str(found)) == bool(found.exponent)


def test_heads_without_a_balanced_basis():
    wq, wk = random_matrix((8, 4)), random_matrix((8, 4), seed=1)
    wq[:, 3] = wq[:, 2]
    with pytest.raises(ValueError, match="queries of head 1 span fewer than 2 .*kind='orthogonal'"):
        head_rotation(wq, wk, heads=2)
    found = head_rotation(wq, wk, heads=2, kind="orthogonal")
    np.testing.assert_allclose(
        found.rotate_query(wq)[:, 2:] @ found.rotate_key(wk)[:, 2:].T,
        wq[:, 2:] @ wk[:, 2:].T,
        atol=EXACT,
    )
    wide = head_rotation(random_matrix((3, 4)), random_matrix((3, 4)), heads=1, kind="orthogonal")
    assert wide.values.shape == (1, 4)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"heads": 3}, "do not hold 3 heads"),
        ({"heads": 0}, "heads=0 must be a whole number, 1 or more"),
        ({"kind": "loud"}, "use 'balanced' or 'orthogonal'"),
        ({"covariance": np.eye(3)}, "the covariance has 3 inputs, wq 8"),
        ({"wq": np.ones((8, 4)) * 1j}, "not bilinear"),
    ],
)
def test_errors_of_head_rotation(change, text):
    options = {"wq": random_matrix((8, 4)), "wk": random_matrix((8, 4)), "heads": 2} | change
    with pytest.raises(ValueError, match=text):
        head_rotation(**options)


def test_a_weight_that_is_not_transposed_is_noticed():
    found = head_rotation(random_matrix((8, 4)), random_matrix((8, 4), seed=1), heads=2)
    with pytest.raises(ValueError, match="transpose them"):
        found.rotate_query(random_matrix((4, 8)))


def test_the_bias_absorbs_the_mean():
    x, w = random_matrix((30, 6)) + 2, random_matrix((6, 4), seed=1)
    a, b = random_matrix((6, 4), seed=2), random_matrix((1, 4), seed=3)[0]
    bias = absorb_mean_into_bias(w, a, x.mean(axis=0), b)
    np.testing.assert_allclose((x @ a + bias).mean(axis=0), (x @ w + b).mean(axis=0), rtol=1e-11)
    # what is left of the error is what the centred inputs feel
    off = x @ (w - a) + b - bias
    centred = second_moment(x, centred=True)
    left = np.vdot(w - a, centred @ (w - a))
    np.testing.assert_allclose((off**2).sum() / 30, left, rtol=1e-11)
    np.testing.assert_array_equal(absorb_mean_into_bias(w, w, x[0]), np.zeros(4))
    with pytest.raises(ValueError, match=r"mean \(4,\)"):
        absorb_mean_into_bias(w, a, b, b)
