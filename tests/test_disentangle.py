"""The explicit algorithm as one call: monotone, on the group, exact where the answer is known."""

import random
from functools import cache, reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.measures import second_moment, von_neumann_bound
from mpodis.mpo import compress, truncate
from mpodis.sites import mpo_to_dense, site_tensors
from reference import (
    circuit_matrix,
    dense_from_cores,
    entropies,
    overlap,
    pad,
    random_matrix,
    relative_error,
)
from runs import arrays

QUICK = {"n_init": 1, "max_sweeps": 6}
GROUPS = ("SO", "O", "U")


@cache
def operator(*shape, is_complex=False, seed=0):
    return compress(random_matrix(shape, is_complex, seed))


def planted(n, group, seed):
    """Q_L (product operator) Q_R, one layer of gates a side, and what of it is hidden."""
    ansatz = brickwall(n, 1, group=group)
    left, right = (random_circuit(ansatz, seed=(seed, k)) for k in (0, 1))
    sites = [random_matrix((2, 2), group == "U", (seed, 2, k)) for k in range(n)]
    return compress(circuit_matrix(left) @ reduce(np.kron, sites) @ circuit_matrix(right))


def free_gates(result):
    for circuit in (result.factorization.left, result.factorization.right):
        for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
            if place.fixed is None:
                yield circuit.ansatz.group, gate


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(arrays(a), arrays(b), strict=True))


def same_history(a, b):
    """Up to the clock."""
    names = [name for name in a.history.records[0] if name != "seconds"]
    columns = ((a.history.column(name), b.history.column(name)) for name in names)
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in columns)


# --- what every run keeps


@pytest.mark.parametrize("start", ["identity", "random"])
@pytest.mark.parametrize("core", ["update", "fixed"])
@pytest.mark.parametrize("group", GROUPS)
def test_sweeps_never_lower_the_overlap(group, core, start):
    mpo = operator(16, 8, is_complex=group == "U")
    options = {"n_init": 2, "init_sweeps": 4, "max_sweeps": 10, "max_bond": 2, "init_scale": 0.2}
    result = disentangle(
        mpo, depth=2, group=group, core=core, init=start, method="sweeps", **options
    )
    for number in range(2):
        f = result.history.column("overlap", init=number)
        assert len(f) >= 5
        assert min(np.diff(f)) >= -1e-12
        assert np.all(f <= result.history.column("bound", init=number) + 1e-12)
    assert set(result.history.column("phase")) == {"init", "sweep"}
    if core == "fixed":
        fixed = truncate(mpo.mpo, max_bond=2).mpo
        kept = result.factorization.core_to_dense()
        assert_allclose(overlap(dense_from_cores(site_tensors(fixed)), kept), 1, atol=1e-12)


@pytest.mark.no_cover  # many searches; the same lines as below
@pytest.mark.parametrize("objective", ["overlap", "activations"])
@pytest.mark.parametrize("method", ["auto", "lbfgs"])
@pytest.mark.parametrize("core", ["update", "fixed"])
@pytest.mark.parametrize("group", GROUPS)
def test_the_loss_never_rises(group, core, method, objective):
    is_complex = group == "U"
    x = random_matrix((30, 8), is_complex, 3) / np.arange(1, 9)
    result = disentangle(
        operator(8, 4, is_complex=is_complex),
        depth=1,
        group=group,
        core=core,
        method=method,
        objective=objective,
        inputs=x,
        **{**QUICK, "max_sweeps": 14},
    )
    losses = result.history.column("loss")
    assert max(np.diff(losses)) <= 1e-12
    assert losses[-1] < losses[0]
    assert result.loss <= losses[-1] + 1e-12


@pytest.mark.parametrize("method", ["auto", "sweeps", "lbfgs"])
@pytest.mark.parametrize("group", GROUPS)
def test_gates_end_on_their_group(group, method):
    is_complex = group == "U"
    result = disentangle(
        operator(8, 8, is_complex=is_complex), depth=2, group=group, method=method, **QUICK
    )
    for kind, gate in free_gates(result):
        assert kind == group
        assert (gate.dtype.kind == "c") == is_complex
        assert_allclose(gate.conj().T @ gate, np.eye(len(gate)), rtol=0, atol=1e-12)
        if group == "SO":
            assert_allclose(np.linalg.det(gate), 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(10, 64), (64, 10), (16, 16), (6, 3), (8, 1), (1, 8), (2, 2)])
@pytest.mark.parametrize("objective", ["overlap", "activations"])
def test_the_figures_are_those_of_the_factorization(shape, objective):
    mpo = operator(*shape)
    x = random_matrix((40, shape[0]), seed=4) / np.arange(1, shape[0] + 1)
    result = disentangle(mpo, depth=1, objective=objective, inputs=x, **QUICK)
    f = result.factorization
    assert f.shape == shape
    assert f.legs == mpo.legs
    w = random_matrix(shape)
    padded = pad(w, *f.padded_to_dense().shape)
    assert_allclose(result.overlap, overlap(padded, f.padded_to_dense()), atol=1e-12)
    assert_allclose(result.relative_error, relative_error(w, f.to_dense()), atol=1e-12)
    assert_allclose(result.activation_error, relative_error(x @ w, x @ f.to_dense()), atol=1e-10)
    assert_allclose(result.bound, von_neumann_bound(padded, f.core_to_dense()), atol=1e-10)
    assert_allclose(result.entropies_before, entropies(padded, mpo.legs), atol=1e-9)
    left, right = circuit_matrix(f.left), circuit_matrix(f.right)
    pulled = left.conj().T @ padded @ right.conj().T
    assert_allclose(result.entropies_after, entropies(pulled, mpo.legs), atol=1e-9)
    if objective == "overlap":
        assert_allclose(result.loss, 1 - result.overlap, atol=1e-12)
    else:  # also where outputs are padded: nobody sees what is cropped
        assert_allclose(result.loss, result.activation_error**2, atol=1e-12)
    last = result.history.records[-1]
    assert_allclose(last["overlap"], result.overlap, atol=1e-12)
    assert_allclose(last["bound"], result.bound, atol=1e-10)
    assert_allclose(last["activations"], result.activation_error, atol=1e-10)
    assert_allclose(last["s_avg"], result.entropies_after.mean() if len(mpo.legs) > 1 else 0.0,
                    atol=1e-10)  # fmt: skip


def test_the_core_carries_the_norm_of_the_operator():
    big = compress(1e6 * random_matrix((16, 16)))
    result = disentangle(big, depth=1, max_bond=3, **QUICK)
    w, found = big.to_dense(), result.factorization.to_dense()
    assert_allclose(np.vdot(found, w - found), 0, atol=1e-9 * np.linalg.norm(w) ** 2)
    small = disentangle(operator(16, 16), depth=1, max_bond=3, **QUICK)
    assert_allclose(result.overlap, small.overlap, atol=1e-9)


def test_the_better_of_what_explores_is_refined():
    result = disentangle(
        operator(16, 16), depth=2, n_init=3, init_sweeps=2, max_sweeps=5, tol=0.0, method="sweeps",
        init="random",
    )  # fmt: skip
    columns = [result.history.column("loss", init=k) for k in range(3)]
    explored = [losses[2] for losses in columns]
    assert result.init == np.argmin(explored)
    assert [len(losses) for losses in columns] == [6 if k == result.init else 3 for k in range(3)]
    assert_array_equal(result.history.column("sweep", init=result.init), np.arange(6))
    n_init = result.history.column("init")
    assert_array_equal(n_init, [0] * 3 + [1] * 3 + [2] * 3 + [result.init] * 3)
    assert min(np.diff(columns[result.init])) <= 0
    assert_allclose(result.loss, columns[result.init][-1], atol=1e-12)


# --- known answers


@pytest.mark.no_cover  # long; the same lines as above
@pytest.mark.parametrize(("group", "n"), [("SO", 3), ("SO", 4), ("U", 3)])
def test_gates_as_wide_as_the_operator_reach_the_bound(n, group):
    w = random_matrix((2**n, 2**n), group == "U", n)
    mpo = compress(w)
    core = truncate(mpo.mpo, max_bond=2).mpo
    if np.linalg.det(w @ dense_from_cores(site_tensors(core))).real < 0:
        w[[0, 1]] = w[[1, 0]]  # the best gates of a real group have determinant -1 otherwise
        mpo = compress(w)
    wide = brickwall(n, 1, n, group=group)
    options = {"left": wide, "max_bond": 2, "n_init": 1}
    fixed = disentangle(mpo, core="fixed", method="lbfgs", max_sweeps=60, tol=0, **options)
    assert_allclose(fixed.overlap, fixed.bound, rtol=0, atol=1e-8)
    free = disentangle(mpo, **options)
    assert_allclose(free.overlap, free.bound, rtol=0, atol=1e-4)
    assert free.overlap > fixed.overlap


@pytest.mark.no_cover  # long; the same lines as above
@pytest.mark.parametrize("group", GROUPS)
def test_a_core_that_is_large_enough_makes_it_exact(group):
    # the singular values are those of a product operator, so wide gates leave chi' = 1
    values = reduce(np.kron, [[3, 1], [2, 1], [1.5, 1]])
    u, v = (random_circuit(brickwall(3, 1, 3, group=group), seed=k).to_dense() for k in (1, 2))
    result = disentangle(compress((u * values) @ v), left=brickwall(3, 1, 3, group=group))
    assert_allclose(result.overlap, 1, rtol=0, atol=1e-8)
    full = disentangle(operator(8, 8), depth=1, max_bond=4, group=group)
    assert full.status == "exact"
    assert_allclose(full.factorization.to_dense(), operator(8, 8).to_dense(), atol=1e-5)


@pytest.mark.no_cover  # long; the same lines as above
@pytest.mark.parametrize("seed", range(1, 6))
def test_planted_orthogonal_circuits_are_found(seed):
    result = disentangle(planted(6, "SO", seed), depth=1)
    assert 1 - result.overlap < 1e-6
    assert result.entropies_after.mean() < 0.01 < result.entropies_before.mean()


@pytest.mark.no_cover  # long; the same lines as above
@pytest.mark.parametrize("seed", [1, 2])
def test_planted_unitary_circuits_are_found(seed):
    result = disentangle(planted(6, "U", seed), depth=1, group="U")
    assert 1 - result.overlap < 1e-6


@pytest.mark.no_cover  # long; the same lines as above
def test_what_the_inputs_see_can_be_kept_where_the_operator_cannot():
    w = random_matrix((16, 16), seed=6)
    basis = np.linalg.qr(random_matrix((16, 2), seed=7))[0]
    x = random_matrix((200, 2), seed=8) @ basis.T + 1e-4 * random_matrix((200, 16), seed=9)
    options = {"left": 2, "max_bond": 2, "inputs": x, "n_init": 1, "max_sweeps": 10}
    plain = disentangle(compress(w), **options)
    aware = disentangle(compress(w), objective="activations", **options)
    assert aware.activation_error < 0.01 * plain.activation_error
    assert aware.overlap < plain.overlap
    # the second moment is all that counts
    covariance = {"covariance": second_moment(x)}
    del options["inputs"]
    again = disentangle(compress(w), objective="activations", **options, **covariance)
    assert same(again, aware)


def test_errors_can_be_weighed_by_what_the_loss_feels():
    x, g = random_matrix((40, 8), seed=1), random_matrix((50, 4), seed=2) * [1, 1, 0.1, 0.1]
    options = {"left": 2, "objective": "activations", "inputs": x, "n_init": 1, "max_sweeps": 15}
    options["init"] = "identity"
    w = operator(8, 4).to_dense()
    weighted = {}
    for name, sensitivity in (("plain", None), ("weighed", second_moment(g))):
        result = disentangle(operator(8, 4), sensitivity=sensitivity, **options)
        off = w - result.factorization.to_dense()
        weighted[name] = np.linalg.norm(x @ off @ g.T) ** 2 / np.linalg.norm(x @ w @ g.T) ** 2
        assert max(np.diff(result.history.column("loss"))) <= 1e-12
    assert_allclose(result.loss, weighted["weighed"], rtol=1e-8)
    assert weighted["weighed"] < weighted["plain"]


def test_weighed_errors_converge_without_closed_forms():
    sensitivity = second_moment(random_matrix((50, 4), seed=2))
    options = {"left": 1, "covariance": np.eye(4), "tol": 1e-2, "n_init": 2, "init_sweeps": 3}
    result = disentangle(
        operator(4, 4), objective="activations", sensitivity=sensitivity, core="fixed", **options
    )
    assert result.status in ("converged", "exact")


# --- seeds


@pytest.mark.no_cover  # nine runs; the same lines as above
def test_the_seed_decides_and_nothing_else():
    def run(seed):
        return disentangle(
            operator(8, 8), depth=2, seed=seed, n_init=2, init_sweeps=1, max_sweeps=2
        )

    state = random.getstate()
    one = run(5)
    again = run(5)
    assert same(one, again)
    assert same_history(one, again)
    assert not same(one, run(6))
    assert not same_history(one, run(6))
    assert same(run(np.random.default_rng(5)), run(np.random.default_rng(5)))
    assert not same(run(np.random.default_rng(5)), run(np.random.default_rng(6)))
    drawn = run(np.random.default_rng(5))
    assert same(run(drawn.options.seed), drawn)
    assert same(run(np.int64(5)), one)
    assert random.getstate() == state


def test_starts_do_not_depend_on_their_number():
    few, many = (
        disentangle(operator(8, 8), depth=2, n_init=k, init_sweeps=2, max_sweeps=2) for k in (2, 3)
    )
    for number in range(2):
        assert_array_equal(
            few.history.column("loss", init=number), many.history.column("loss", init=number)
        )


@pytest.mark.parametrize("engine", ["dense", "boundary"])
def test_an_identity_core_stays_the_identity(engine):
    left = random_circuit(brickwall(4, 2), seed=0)
    right = random_circuit(brickwall(4, 2), seed=1)
    target = left.to_dense() @ right.to_dense()
    run = disentangle(
        target,
        left=left.ansatz,
        right=right.ansatz,
        core="identity",
        engine=engine,
        init="identity",
        max_sweeps=60,
        seed=3,
    )
    core = mpo_to_dense(run.factorization.core)
    assert_allclose(core, np.eye(16), atol=1e-10)
    product = run.factorization.to_dense()
    assert_allclose(product @ product.T, np.eye(16), atol=1e-10)
    assert_allclose(run.overlap, np.vdot(target, product) / 16, atol=1e-9)
    assert run.overlap > 0.9
