"""Both objectives against their definitions in dense numpy, and the properties of their parts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.environments import ENGINES, DenseEnvironments, TreeEnvironments
from mpodis.gates import exponential, polar, skew
from mpodis.measures import second_moment
from mpodis.mpo import compress
from mpodis.objectives import ActivationsLoss, OverlapLoss
from mpodis.sites import site_tensors
from reference import (
    CASES,
    circuit_matrix,
    dense_from_cores,
    finite_difference,
    overlap,
    pad,
    problem,
    random_matrix,
    weighted_distance,
)

NAMES = ("overlap", "activations", "sensitivity")
# the largest circuits are left to tests/test_environments.py
SOME = [case for case in CASES if max(case.bits) < 6 or len(case.layers) < 3]
WHITE = [case for case in SOME if case.shape[0] == 2 ** case.bits[0]]
TINY = [case for case in SOME if case.shape in ((8, 8), (8, 1), (6, 16))]


def samples(case, seed=11):
    """Inputs (samples, features) with very unequal directions."""
    x = random_matrix((3 * case.shape[0] + 5, case.shape[0]), case.complex, seed)
    return x * 2.0 ** -np.arange(case.shape[0]).clip(max=6)


def operator(case, seed=1):
    """The unpadded matrix of a case, and its cores."""
    matrix = random_matrix(case.shape, case.complex, seed)
    return matrix, site_tensors(compress(matrix, legs=case.legs).mpo)


def slopes(case, seed=13):
    """Gradients (samples, outputs) at the outputs."""
    g = random_matrix((2 * case.shape[1] + 3, case.shape[1]), case.complex, seed)
    return g * 2.0 ** -np.arange(case.shape[1])[::-1].clip(max=4)


def at_point(name, case, *, bond=2, engine="dense", seed=0, covariance=None):
    """(objective, engine at random gates and core, dense product of what it holds)."""
    _, left, core, right = problem(case, bond=bond, seed=seed)
    cores = operator(case)[1]
    if covariance is None:
        covariance = second_moment(samples(case))
    sensitivity = second_moment(slopes(case)) if name == "sensitivity" else None
    objective = (
        OverlapLoss(cores) if name == "overlap" else ActivationsLoss(cores, covariance, sensitivity)
    )
    found = ENGINES[engine](objective.target, case.legs, left.ansatz, right.ansatz)
    found.set(left.gates, core, right.gates)
    return objective, found, circuit_matrix(left) @ dense_from_cores(core) @ circuit_matrix(right)


def padded_target(case):
    matrix = operator(case)[0]
    return pad(matrix, 2 ** case.bits[0], 2 ** case.bits[1])


ids = {"argvalues": SOME, "ids": str}


@pytest.mark.parametrize("case", **ids)
def test_overlap_loss_is_one_minus_f(case):
    objective, engine, product = at_point("overlap", case)
    expected = 1 - overlap(padded_target(case), product)
    assert_allclose(objective.value(engine), expected, atol=1e-12)
    assert_allclose(objective.gradient(engine)[0], expected, atol=1e-12)


@pytest.mark.parametrize("case", **ids)
def test_activations_loss_is_the_relative_error_of_explicit_samples(case):
    x = samples(case)
    _, cores = operator(case)
    scale = np.linalg.norm(padded_target(case))
    objective, engine, product = at_point("activations", case)
    # zero-padded inputs never reach the padded rows; padded outputs count here
    padded_x = pad(x, len(x), 2 ** case.bits[0])
    m = padded_target(case) / scale
    expected = np.linalg.norm(padded_x @ (m - product)) ** 2 / np.linalg.norm(padded_x @ m) ** 2
    assert_allclose(objective.value(engine), expected, rtol=1e-10)
    assert_allclose(objective.gradient(engine)[0], expected, rtol=1e-10)
    metric = np.zeros((len(m), len(m)), dtype=x.dtype)
    metric[: case.shape[0], : case.shape[0]] = second_moment(x)
    assert_allclose(expected, weighted_distance(m, product, metric), rtol=1e-10)
    # the scale of the operator drops out
    other = ActivationsLoss([10 * c for c in cores], second_moment(x))
    assert_allclose(other.value(engine), objective.value(engine), rtol=1e-10)


@pytest.mark.parametrize("case", WHITE, ids=str)
def test_white_inputs_make_it_the_distance_of_the_operators(case):
    objective, engine, product = at_point("activations", case, covariance=np.eye(case.shape[0]))
    target = padded_target(case)
    target = target / np.linalg.norm(target)
    assert_allclose(objective.value(engine), np.linalg.norm(target - product) ** 2, rtol=1e-10)
    f = overlap(target, product)
    if f > 0:
        engine.set(core=objective.scaled_core(engine))
        assert_allclose(objective.value(engine), 1 - f**2, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", **ids)
def test_gradients_by_finite_differences(name, case):
    objective, engine, _ = at_point(name, case)
    left, core, right = list(engine.left), list(engine.core), list(engine.right)
    _, found = objective.gradient(engine)
    rng = np.random.default_rng(5)

    def like(x):
        return rng.normal(size=x.shape) + (1j * rng.normal(size=x.shape) if case.complex else 0)

    moves = {part: [like(x) for x in getattr(engine, part)] for part in ("left", "core", "right")}

    def turned(gates, generators, environments, t):
        free = [e is not None for e in environments]
        parts = zip(gates, generators, free, strict=True)
        return [g @ exponential(t * skew(x)) if move else g for g, x, move in parts]

    def loss(t):
        engine.set(
            turned(left, moves["left"], found.left, t),
            [x + t * dx for x, dx in zip(core, moves["core"], strict=True)],
            turned(right, moves["right"], found.right, t),
        )
        return objective.value(engine)

    # the environments point to where the loss falls
    slope = 0.0
    for gates, side in ((left, "left"), (right, "right")):
        for g, x, e in zip(gates, moves[side], getattr(found, side), strict=True):
            slope -= 0.0 if e is None else np.vdot(e, g @ skew(x)).real
    for dx, e in zip(moves["core"], found.core, strict=True):
        slope -= np.vdot(e, dx).real
    assert_allclose(finite_difference(loss, 0.0, 1.0, 1e-5), slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("number", "case"), list(enumerate(SOME)), ids=str)
def test_closed_forms_never_raise_the_loss(name, number, case):
    objective, engine, _ = at_point(name, case, bond=1 + number % 3, seed=1)
    group = {"SO": "O"}.get(case.group, case.group)  # a Haar gate of O may have det -1

    def update(environment, gate):
        return polar(environment, group=group)

    losses = [objective.value(engine)]
    for side in objective.polar_sides:
        engine.sweep({side: update})
        losses.append(objective.value(engine))
    engine.set(core=objective.best_core(engine))
    losses.append(objective.value(engine))
    engine.set(core=objective.scaled_core(engine))
    losses.append(objective.value(engine))
    for core in (False, True):
        objective.sweep(engine, dict.fromkeys(("left", "right"), update), core=core)
        losses.append(objective.value(engine))
    assert max(np.diff(losses)) <= 1e-11 * max(1, losses[0])


def test_where_there_are_closed_forms():
    sides = [at_point(name, SOME[4])[0].polar_sides for name in NAMES]
    assert sides == [("left", "right"), ("right",), ()]
    # no site has one either where the outputs are weighed
    objective, engine, _ = at_point("sensitivity", SOME[4])
    for a, b in zip(objective.best_core(engine), engine.core, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("case", **ids)
def test_sensitivity_is_the_error_that_explicit_gradients_feel(case):
    x, g = samples(case), slopes(case)
    objective, engine, product = at_point("sensitivity", case)
    x, g = pad(x, len(x), len(product)), pad(g, len(g), product.shape[1])
    m = padded_target(case)
    m = m / np.linalg.norm(m)
    off, whole = (np.linalg.norm(x @ d @ g.conj().T) ** 2 for d in (m - product, m))
    assert_allclose(objective.value(engine), off / whole, rtol=1e-10)
    assert_allclose(objective.gradient(engine)[0], off / whole, rtol=1e-10)
    # its scale drops out
    cores, covariance = operator(case)[1], second_moment(x[:, : case.shape[0]])
    other = ActivationsLoss(cores, covariance, 7 * second_moment(g[:, : case.shape[1]]))
    assert_allclose(other.value(engine), off / whole, rtol=1e-10)
    if 2 ** case.bits[1] == case.shape[1]:
        white = ActivationsLoss(cores, covariance, np.eye(case.shape[1]))
        plain = ActivationsLoss(cores, covariance)
        assert_allclose(white.value(engine), plain.value(engine), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", **ids)
def test_scaling_finds_the_best_norm_of_the_core(name, case):
    objective, engine, product = at_point(name, case, seed=2)
    target = padded_target(case)
    target = target / np.linalg.norm(target)
    metric = np.eye(len(target)) if name == "overlap" else objective.metric
    weight = objective.sensitivity if name == "sensitivity" else np.eye(target.shape[1])
    toward = np.vdot(metric @ target @ weight, product).real
    scaled = objective.scaled_core(engine)
    if toward <= 0:  # no positive factor brings it nearer
        for a, b in zip(scaled, engine.core, strict=True):
            assert_array_equal(a, b)
        return
    engine.set(core=scaled)
    product = engine.dense()
    # the missing part is orthogonal to what is there
    missing = metric @ (target - product) @ weight
    assert_allclose(np.vdot(product, missing).real, 0, atol=1e-12)
    norms = [np.linalg.norm(c) for c in scaled]
    assert max(norms) < 1e3 * min(norms)


def test_an_opposite_core_is_not_scaled():
    objective, engine, _ = at_point("overlap", SOME[4])
    engine.set(core=objective.scaled_core(engine))
    sign = np.sign(engine.inner())
    for flip in (sign, -sign):
        engine.set(core=[flip * engine.core[0], *engine.core[1:]])
        f = engine.inner()
        scaled = objective.scaled_core(engine)
        same = all(a is b for a, b in zip(scaled, engine.core, strict=True))
        assert same == (f < 0)
        engine.set(core=[flip * engine.core[0], *engine.core[1:]])


@pytest.mark.parametrize("bond", [1, 2])
@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_tree_engine_knows_the_overlap_too(case, bond):
    dense, tree = (at_point("overlap", case, bond=bond, engine=e) for e in ("dense", "tree"))
    assert isinstance(dense[1], DenseEnvironments)
    assert isinstance(tree[1], TreeEnvironments)
    losses, gradients = zip(*(o.gradient(e) for o, e, _ in (dense, tree)), strict=True)
    assert_allclose(*losses, atol=1e-12)
    for part in ("left", "core", "right"):
        for a, b in zip(getattr(gradients[0], part), getattr(gradients[1], part), strict=True):
            if a is not None:
                assert_allclose(b, a, atol=1e-12)
    found = [dense_from_cores(o.scaled_core(e)) for o, e, _ in (dense, tree)]
    assert_allclose(*found, atol=1e-12)


def test_a_layer_that_answers_no_input_is_refused():
    matrix = random_matrix((8, 8), seed=1)
    matrix[0] = 0
    covariance = np.zeros((8, 8))
    covariance[0, 0] = 3.0
    with pytest.raises(ValueError, match=r"annihilates the given inputs \(C M = 0\); check"):
        ActivationsLoss(site_tensors(compress(matrix).mpo), covariance)


@pytest.mark.parametrize(
    ("covariance", "text"),
    [
        (np.eye(9), r"the covariance has shape \(9, 9\); the operator has 8 \(padded\) inputs"),
        (np.ones((4, 5)), r"the covariance has shape \(4, 5\)"),
        (np.zeros((8, 8)), "zero everywhere, NaN or infinite"),
        (np.full((8, 8), np.nan), "zero everywhere, NaN or infinite"),
        (np.triu(np.ones((8, 8))), r"not Hermitian; give E\[x\^H x\], see `second_moment`"),
        (np.diag([1.0, -1, 0, 0, 0, 0, 0, 0]), "a negative eigenvalue -1"),
    ],
)
def test_what_is_no_second_moment_is_refused(covariance, text):
    with pytest.raises(ValueError, match=text):
        ActivationsLoss(site_tensors(compress(np.eye(8)).mpo), covariance)
