"""Bounds for all circuits, and full-width gates, whose loss comes closest to them."""

import math

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose

from mpodis import (
    Ansatz,
    Placement,
    brickwall,
    compress,
    disentangle,
    fit_core,
    from_spec,
    low_rank,
    mpo_from_tensors,
    mpo_to_dense,
    random_circuit,
    von_neumann_bound,
)
from mpodis.circuit.ansatz import circuit_group
from mpodis.structured import activation_loss_bound, full_width_gates
from mpodis.structured.achievable_loss import _product_limits
from reference import circuit_matrix, overlap, random_cores, random_matrix, random_member


def moment(features, *, power=1.0, is_complex=False, seed=7):
    """A second moment with eigenvalues that fall off as a power."""
    values = np.arange(1, features + 1) ** -(2.0 * power)
    q = random_member(features, "U" if is_complex else "O", seed)
    return (q * values) @ q.conj().T


def root(metric):
    values, vectors = np.linalg.eigh(metric)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.conj().T


def losses(matrix, core, covariance, sensitivity, group, count=60):
    """Of random circuits around a core at its best scale, and of aligned singular vectors."""
    rows, columns = core.shape
    c, s = root(covariance), root(sensitivity)
    inputs, outputs = matrix.shape

    def weighted(x):
        return c @ x[:inputs, :outputs] @ s

    found, goal = [], weighted(matrix)
    (u, _, vh), (u_t, _, vh_t) = np.linalg.svd(_padded(matrix, core.shape)), np.linalg.svd(core)
    pairs = [(u @ u_t.conj().T, vh_t.conj().T @ vh)] if group != "SO" else []
    for seed in range(count):
        pairs.append(
            (random_member(rows, group, (seed, 0)), random_member(columns, group, (seed, 1)))
        )
    for left, right in pairs:
        seen = weighted(left @ core @ right)
        scale = max(0.0, np.vdot(seen, goal).real / np.vdot(seen, seen).real)
        found.append(np.linalg.norm(goal - scale * seen) ** 2 / np.linalg.norm(goal) ** 2)
    return np.array(found)


def _padded(matrix, shape):
    return np.pad(matrix, [(0, n - d) for n, d in zip(shape, matrix.shape, strict=True)])


# --- determinants


@pytest.mark.parametrize("opposite", [False, True])
def test_the_bound_for_rotations_knows_determinants(opposite):
    a, b = random_matrix((4, 4), seed=1), random_matrix((4, 4), seed=2)
    if (np.linalg.det(a) * np.linalg.det(b) < 0) != opposite:
        b[0] *= -1
    free, bound = von_neumann_bound(a, b, group="O"), von_neumann_bound(a, b, group="SO")
    s, t = (np.linalg.svd(x, compute_uv=False) for x in (a, b))
    lost = 2 * s[-1] * t[-1] / (np.linalg.norm(s) * np.linalg.norm(t)) if opposite else 0.0
    assert_allclose(free - bound, lost, atol=1e-14)
    (u_a, _, vh_a), (u_b, _, vh_b) = np.linalg.svd(a), np.linalg.svd(b)
    reached = []
    for signs in np.ndindex(2, 2):  # one direction flipped, the cheapest, or none
        flips = [np.diag([1, 1, 1, 1 - 2 * sign]) for sign in signs]
        left, right = u_a @ flips[0] @ u_b.T, vh_b.T @ flips[1] @ vh_a
        if np.linalg.det(left) > 0 and np.linalg.det(right) > 0:
            reached.append(overlap(a, left @ b @ right))
    assert_allclose(max(reached), bound, atol=1e-13)  # it is reached
    for seed in range(100):
        left, right = (random_member(4, "SO", (seed, k)) for k in range(2))
        assert overlap(a, left @ b @ right) <= bound


def test_determinants_of_mpos():
    a, b = random_matrix((8, 8), seed=1), random_matrix((8, 8), seed=3)
    a[0] *= np.sign(np.linalg.det(a))
    b[0] *= -np.sign(np.linalg.det(b))
    expected = von_neumann_bound(a, b, group="SO")
    assert expected < von_neumann_bound(a, b)
    found = von_neumann_bound(compress(a).mpo, compress(b).mpo, group="SO")
    assert_allclose(found, expected, rtol=1e-10)
    # a product of several qubit sites has a positive determinant, whatever those of the sites
    flip = np.diag([1.0, -2.0])
    product = mpo_from_tensors([flip[None, :, :, None]] * 3)
    assert von_neumann_bound(a, product, group="SO") == von_neumann_bound(a, product)
    dense = mpo_to_dense(product)
    assert np.linalg.det(dense) > 0
    assert_allclose(
        von_neumann_bound(b, product, group="SO"), von_neumann_bound(b, dense, group="SO")
    )
    single = mpo_from_tensors([flip[None, :, :, None]])
    assert von_neumann_bound(np.eye(2), single, group="SO") < von_neumann_bound(np.eye(2), single)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (random_matrix((4, 4), True, 1), random_matrix((4, 4), True, 2)),
        (random_matrix((4, 2), False, 1), random_matrix((4, 2), False, 2)),
        (np.diag([1.0, 1, 1, 0]), np.diag([1.0, 1, 1, -1])),
        (qtn.MPO_identity(2), mpo_from_tensors(random_cores(((2, 2), (2, 2)), 1, True))),
    ],
)
def test_determinants_that_make_no_difference(a, b):
    assert von_neumann_bound(a, b, group="SO") == von_neumann_bound(a, b, group="O")


def test_an_unknown_group_is_refused():
    with pytest.raises(ValueError, match="group='SU' is not known; use one of SO, O, U"):
        von_neumann_bound(np.eye(2), np.eye(2), group="SU")


@pytest.mark.parametrize(
    ("circuits", "group"),
    [
        ((brickwall(3, 4, group="O"),), "SO"),
        ((brickwall(2, 4, group="O"),), "O"),
        ((brickwall(2, 4, group="SO"), brickwall(5, 1, group="O")), "SO"),
        ((brickwall(2, 1, group="SO"), brickwall(3, 1, 3, group="O")), "O"),
        ((brickwall(4, 1), brickwall(4, 1, group="U")), "U"),
        ((from_spec("1b + CNOT + 2b", 2),), "O"),
        ((from_spec("CNOT + 2*1b + CNOT", 2),), "SO"),
        ((from_spec("CNOT + 1b", 4, group="O"),), "SO"),
        ((Ansatz(0, (), "O"),), "SO"),
        ((Ansatz(1, ((Placement((0,)),),), "O"),), "O"),
    ],
)
def test_the_group_of_whole_circuits(circuits, group):
    assert circuit_group(*circuits) == group
    if group == "SO":
        for ansatz in circuits:
            for seed in range(5):
                matrix = circuit_matrix(random_circuit(ansatz, seed=seed))
                assert np.linalg.det(matrix) == pytest.approx(1)


# --- the weighted bound


@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 16), (1, 4)])
def test_without_moments_it_is_the_von_neumann_bound(shape):
    matrix = random_matrix(shape)
    core = fit_core(compress(matrix).mpo, max_bond=1)
    exact = von_neumann_bound(compress(matrix).mpo, core)
    assert_allclose(activation_loss_bound(matrix, core), 1 - exact**2, rtol=1e-5, atol=1e-9)
    assert_allclose(
        activation_loss_bound(compress(matrix), 3 * mpo_to_dense(core)),
        1 - exact**2,
        rtol=1e-5,
        atol=1e-9,
    )


@pytest.mark.parametrize("group", ["O", "SO", "U"])
@pytest.mark.parametrize("shape", [(8, 8), (7, 4), (4, 8)])
@pytest.mark.parametrize("power", [0.1, 0.5, 2.0])
def test_no_circuits_get_below_the_bound_of_the_activations(group, shape, power):
    is_complex = group == "U"
    matrix = random_matrix(shape, is_complex, 1) / (1 + np.arange(shape[1])) ** 2
    core = mpo_to_dense(fit_core(compress(matrix).mpo, max_bond=1))
    c = moment(shape[0], power=power, is_complex=is_complex)
    s = moment(shape[1], power=power / 2, is_complex=is_complex)
    for covariance, sensitivity in ((c, None), (None, s), (c, s)):
        bound = activation_loss_bound(matrix, core, covariance=covariance, sensitivity=sensitivity)
        few = activation_loss_bound(
            matrix, core, covariance=covariance, sensitivity=sensitivity, levels=3
        )
        weights = [
            np.eye(n) if given is None else given
            for n, given in zip(shape, (covariance, sensitivity), strict=True)
        ]
        reached = losses(matrix, core, *weights, group)
        assert 0 <= few <= bound + 1e-9
        assert bound <= reached.min()
        if power == 0.1:
            assert bound > 5e-4


def test_a_singular_core_meets_eckart_and_young():
    """With a core of rank r the bound is at least that of the best matrix of rank r."""
    matrix, c, s = random_matrix((8, 8)), moment(8), moment(8, seed=3)
    core = low_rank(random_matrix((8, 8), seed=5), 2).matrix
    values = np.linalg.svd(root(c) @ matrix @ root(s), compute_uv=False)
    best = (values[2:] ** 2).sum() / (values**2).sum()
    bound = activation_loss_bound(matrix, core, covariance=c, sensitivity=s)
    assert bound >= best * (1 - 1e-5)
    assert_allclose(
        activation_loss_bound(matrix, [3.0, 1.0], covariance=c),
        activation_loss_bound(matrix, [1.0, 3.0], covariance=c),
    )


def test_horns_inequalities_hold():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(5, 5)) * rng.random(5) ** 4, rng.normal(size=(5, 3))
        s, t, found = (np.linalg.svd(m, compute_uv=False) for m in (x, y, x @ y))
        assert (found <= _product_limits(s, t, 3, np.min, 0) + 1e-12).all()
        assert (found >= _product_limits(s, t, 3, np.max, 4) - 1e-12).all()


def test_the_bound_is_zero_or_one_at_the_extremes():
    matrix = random_matrix((8, 8))
    assert activation_loss_bound(matrix, matrix, covariance=moment(8)) == 0
    assert activation_loss_bound(matrix, np.zeros((8, 8))) == 1
    assert activation_loss_bound(matrix, np.zeros(3)) == 1


@pytest.mark.parametrize("outputs", [6, 8])
def test_the_bound_of_a_run_with_circuits(outputs):
    rng = np.random.default_rng(0)
    layer = compress(rng.normal(size=(8, outputs)))
    x = rng.normal(size=(40, 8)) * np.linspace(1, 2, 8)
    result = disentangle(
        layer, depth=2, objective="activations", inputs=x, n_init=1, init_sweeps=1, max_sweeps=20
    )
    bound = activation_loss_bound(layer, result.factorization.core, covariance=x.T @ x)
    off = x @ (layer.to_dense() - result.factorization.to_dense())
    assert 0 <= bound <= (np.linalg.norm(off) / np.linalg.norm(x @ layer.to_dense())) ** 2
    if outputs == 8:  # cropped outputs may lower the bound to zero
        assert bound > 1e-3


@pytest.mark.parametrize(
    ("core", "options", "message"),
    [
        (np.ones((4, 4)), {}, r"core spans \(4, 4\), too small for a matrix of shape \(8, 4\)"),
        (np.ones(5), {}, r"5 singular values are too many for a \(8, 4\) operator"),
        (np.ones(4), {"levels": 0}, "levels=0 must be a whole number, 1 or more"),
        (np.ones(4), {"covariance": np.eye(9)}, r"covariance has shape \(9, 9\); the operator has"),
        (np.ones(4), {"covariance": np.diag([0.0] * 7 + [1])}, "maps all given inputs to zero"),
    ],
)
def test_errors_of_the_bound(core, options, message):
    matrix = random_matrix((8, 4))
    matrix[-1] = 0
    with pytest.raises(ValueError, match=message):
        activation_loss_bound(matrix, core, **options)


# --- full width


@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 4), (4, 1), (6, 3)])
def test_without_moments_full_width_gates_reach_the_bound(group, shape):
    layer = compress(random_matrix(shape, group == "U"))
    core = fit_core(layer.mpo, max_bond=1)
    found = full_width_gates(layer, core, update=False, group=group, n_init=1, max_iterations=20)
    exact = von_neumann_bound(layer.mpo, core, group=group)
    if shape == (6, 3):  # what the circuits do to the padding does not count
        assert found.loss < 1 - exact**2
    else:
        assert_allclose(found.loss, 1 - exact**2, atol=1e-9)
    assert found.bound <= found.loss + 1e-9
    assert found.init == "aligned"
    off = layer.to_dense() - found.factorization.to_dense()
    norm = np.linalg.norm(layer.to_dense())
    assert_allclose(np.linalg.norm(off) ** 2 / norm**2, found.loss, atol=1e-9)


@pytest.mark.parametrize("sensitive", [False, True])
@pytest.mark.parametrize("update", [False, True])
def test_full_width_gates_beat_narrow_ones(update, sensitive):
    rng = np.random.default_rng(0)
    shape, x = (8, 6), rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8))
    layer, covariance = compress(rng.normal(size=shape)), x.T @ x
    options = {"covariance": covariance}
    if sensitive:
        options["sensitivity"] = moment(6, power=0.5)
    narrow = disentangle(
        layer,
        depth=1,
        objective="activations",
        core="update" if update else "fixed",
        n_init=1,
        init_sweeps=1,
        max_sweeps=10,
        **options,
    )
    core = 1 if update else narrow.factorization.core
    found = full_width_gates(layer, core, update=update, n_init=4, max_iterations=6, **options)
    s = root(options.get("sensitivity", np.eye(6)))

    def loss(matrix):
        goal = x @ layer.to_dense() @ s
        return np.linalg.norm(goal - x @ matrix @ s) ** 2 / np.linalg.norm(goal) ** 2

    assert found.bound <= found.loss < loss(narrow.factorization.to_dense())
    assert_allclose(loss(found.factorization.to_dense()), found.loss, rtol=1e-7)
    names = ("aligned", "aligned, weighted", "identity", "random 1")
    assert found.init in names


def test_the_table_of_full_width_gates_holds_loss_and_bound():
    layer = compress(random_matrix((4, 4)))
    found = full_width_gates(layer.mpo, 1, n_init=1, max_iterations=3)
    values = [value for _, value in found.table().rows]
    assert values == [found.loss, found.bound, math.sqrt(found.loss), "aligned"]


def test_errors_of_full_width_gates():
    layer = compress(random_matrix((4, 4)))
    with pytest.raises(ValueError, match="n_init=0 must be a whole number, 1 or more"):
        full_width_gates(layer, 1, n_init=0)
    with pytest.raises(ValueError, match=r"the core has legs \(\(2, 2\),\), the operator"):
        full_width_gates(layer, compress(np.eye(2)).mpo)
    with pytest.raises(ValueError, match="max_bond=0 must be a whole number"):
        full_width_gates(layer, 0)
