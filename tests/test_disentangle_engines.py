"""Runs on engines other than the dense one: choice, schedules, checks against the truth."""

import importlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit import Ansatz, Circuit, circuit_from_quimb
from mpodis.disentangling import disentangle, resume
from mpodis.environments import ENGINES
from mpodis.factorization import Factorization
from mpodis.files import read_json
from mpodis.mpo import compress
from mpodis.optimise import recorder
from mpodis.options import SearchOptions
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors
from mpodis.store import RunStore
from reference import overlap, random_cores, random_matrix
from searching import Stepper, build

choose_module = importlib.import_module("mpodis.environments.choose")  # the name is a function's
truth_module = importlib.import_module("mpodis.environments.overlap")


@cache
def operator(*shape, is_complex=False, seed=0):
    return compress(random_matrix(shape, is_complex, seed))


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "dense"])
@pytest.mark.parametrize("core", ["fixed", "update"])
@pytest.mark.parametrize("group", ["SO", "U"])
def test_every_engine_climbs_and_tells_the_truth(group, core, engine):
    mpo = operator(8, 4, is_complex=group == "U")
    options = {"core": core, "max_bond": 2, "n_init": 2, "init_sweeps": 3, "max_sweeps": 6}
    options |= {"environment_bond": 64, "method": "sweeps"}
    result = disentangle(mpo, depth=2, group=group, engine=engine, **options)
    assert result.options.engine == engine
    assert_allclose(
        result.overlap, overlap(mpo.to_dense(), result.factorization.to_dense()), atol=1e-11
    )
    assert result.overlap_error == 0.0
    for start in range(2):
        assert min(np.diff(result.history.column("overlap", init=start))) > -1e-11
    last = result.history.records[-1]
    assert_allclose(last["overlap"], result.overlap, atol=1e-10)
    assert_allclose(last["true_overlap"], result.overlap, atol=1e-10)
    assert np.isnan(last["environment_bond"]) == (engine != "boundary")


def test_the_engine_is_chosen_and_stays_with_the_run(tmp_path, monkeypatch):
    mpo = mpo_from_tensors(random_cores(((2, 2),) * 14, 2, seed=1))
    options = {"left": 1, "n_init": 1, "max_sweeps": 2, "run_dir": tmp_path / "run"}
    first = disentangle(mpo, **options)
    assert first.options.engine == "transverse"
    assert read_json(tmp_path / "run" / "config.json")["options"]["engine"] == "transverse"
    # on a machine that would choose another one, the run goes on with its own
    monkeypatch.setattr(choose_module, "EXACT_SECONDS", 0.0)
    again = disentangle(mpo, **options | {"max_sweeps": 3})
    assert again.options.engine == "transverse"
    assert len(again.history) == 4
    elsewhere = disentangle(mpo, **options | {"run_dir": None})
    assert elsewhere.options.engine == "boundary"


def test_many_sites_are_within_reach_of_shallow_circuits():
    mpo = mpo_from_tensors(random_cores(((2, 2),) * 20, 2, seed=1))
    options = {"core": "fixed", "n_init": 1, "max_sweeps": 1}
    result = disentangle(mpo, depth=1, **options)
    f = result.history.column("overlap")
    assert f[1] > f[0] > 0
    assert_allclose(result.overlap, f[1], atol=1e-12)
    assert np.isnan([result.bound, result.history.column("bound")[0]]).all()
    # gates keep norms: the distance follows from the overlap
    assert_allclose(result.relative_error, np.sqrt(1 - result.overlap**2), atol=1e-9)
    assert len(result.entropies_after) == 19
    assert min(result.entropies_after) >= 0
    assert "-" in str(result)
    with pytest.raises(ValueError, match="'transverse' would take .* and 10 MiB are allowed"):
        disentangle(mpo, depth=14, engine="transverse", memory=10 * 2**20, **options)


# --- the boundary engine: checks, schedule, reverts


def deep(n=9, depth=4, bond=3):
    """An operator and options for a run on the boundary engine."""
    mpo = mpo_from_tensors(random_cores(((2, 2),) * n, bond, seed=2))
    return mpo, {"left": depth, "engine": "boundary", "n_init": 1, "seed": 1}


def test_a_schedule_of_bond_dimensions_is_followed_and_the_truth_checked():
    mpo, options = deep(bond=2)
    schedule = (2, 6, 8, 64)
    result = disentangle(mpo, environment_bond=schedule, max_sweeps=40, tol=0.1, **options)
    bonds = result.history.column("environment_bond")
    assert min(np.diff(bonds)) >= 0
    assert bonds[0] == 6  # three times the operator's own bond dimension
    assert bonds[-1] > 6  # there nothing more was gained
    truth = result.history.column("true_overlap")
    assert np.isfinite(truth[::5]).all()
    assert np.isnan(truth[1:5]).all()
    dense = overlap(mpo_to_dense(mpo), result.factorization.padded_to_dense())
    assert_allclose(result.overlap, dense, atol=1e-9)


def test_a_drop_of_the_truth_brings_the_last_good_gates_back(monkeypatch):
    mpo, _ = deep()
    bonds = {"engine": "boundary", "environment_bond": (16, 32)}
    run = Stepper(build(mpo, 4), SearchOptions(**bonds, n_init=1, max_sweeps=40, seed=1))
    state, loss = run.state, run.search.loss
    while sum(np.isfinite(r["true_overlap"]) for r in state.records) < 3:
        run.step()
    good, best = state.checked_overlap, [g.copy() for g in state.point.left]
    for level in (1, 1):
        sweep = loss.sweep
        monkeypatch.setattr(
            loss,
            "sweep",
            lambda engine, updates, core: engine.set(
                left=[np.roll(np.eye(len(g)), 1, 0) for g in engine.left]
            ),
        )
        while not np.isfinite(run.step()["true_overlap"]):
            pass
        monkeypatch.setattr(loss, "sweep", sweep)
        assert state.checked_overlap == good
        for a, b in zip(state.point.left, best, strict=True):
            assert_array_equal(a, b)
        assert state.bond_level == level
    result = run.finish()
    assert result.status == "truncated"
    assert_allclose(result.overlap, good, atol=1e-10)
    assert "raise environment_bond" in str(result)


@pytest.mark.parametrize("limit", [{"max_sweeps": 7}, {"max_seconds": 1e-9}])
def test_a_run_that_is_stopped_has_been_checked(limit):
    mpo, options = deep()
    found = disentangle(mpo, environment_bond=(16, 32), **{"max_sweeps": 30, **options, **limit})
    assert found.status in limit
    assert np.isfinite(found.history.records[-1]["true_overlap"])


def test_methods_that_need_exact_gradients_refuse_the_boundary_engine():
    mpo, options = deep()
    with pytest.raises(ValueError, match="needs exact gradients, and engine='bound"):
        disentangle(mpo, method="lbfgs", **options)


def test_single_precision_sweeps_end_at_double_precision_figures():
    mpo, options = deep()
    options |= {"environment_bond": 64, "max_sweeps": 6}
    double, single = (disentangle(mpo, dtype=d, **options) for d in ("float64", "float32"))
    assert_allclose(single.overlap, double.overlap, atol=1e-3)
    dense = overlap(mpo_to_dense(mpo), single.factorization.padded_to_dense())
    assert_allclose(single.overlap, dense, atol=1e-11)
    assert all(gate.dtype == np.float64 for gate in single.factorization.left.gates)


def test_a_network_that_does_not_fit_is_sliced_and_its_slices_sent_to_an_executor():
    mpo = operator(64, 64)
    options = {"left": 3, "engine": "tree", "n_init": 1, "max_sweeps": 1, "method": "sweeps"}
    whole = disentangle(mpo, **options)
    sent = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function, *arguments):
            sent.append(arguments)
            return super().submit(function, *arguments)

    with Counting(2) as executor:
        sliced = disentangle(mpo, memory=8.1 * 2**20, executor=executor, **options)
    assert sent
    assert_allclose(sliced.overlap, whole.overlap, rtol=0.1)  # another order of the gates
    dense = overlap(mpo.to_dense(), sliced.factorization.to_dense())
    assert_allclose(sliced.overlap, dense, atol=1e-11)


def test_the_error_of_the_overlap_does_not_depend_on_the_norm_of_the_operator(monkeypatch):
    monkeypatch.setattr(truth_module, "TRANSVERSE_ENTRIES", 0)
    monkeypatch.setattr(truth_module, "DENSE_DIMENSION", 0)
    monkeypatch.setattr(recorder, "DECOMPOSED", 0)
    mpo, options = deep(bond=3)
    cores = [10.0 * c for c in site_tensors(mpo)]
    found = [
        disentangle(m, environment_bond=4, max_sweeps=2, **options)
        for m in (mpo, mpo_from_tensors(cores))
    ]
    assert found[0].overlap_error > 1e-6
    assert_allclose(found[1].overlap_error, found[0].overlap_error, rtol=1e-3)
    dense = overlap(mpo_to_dense(mpo), found[0].factorization.padded_to_dense())
    assert abs(found[0].overlap - dense) < 10 * found[0].overlap_error


@pytest.mark.parametrize("bonds", [(4, 9, 9, 8, 9, 9, 4), (4, 5, 9, 5, 9, 7, 3)])
def test_bonds_of_the_operator_may_be_unequal_and_beyond_that_of_the_boundaries(bonds):
    rng = np.random.default_rng(0)
    sizes = [1, *bonds, 1]
    mpo = mpo_from_tensors([rng.normal(size=(sizes[k], 2, 2, sizes[k + 1])) for k in range(8)])
    options = {"left": 3, "engine": "boundary", "n_init": 1, "max_sweeps": 3}
    found = disentangle(mpo, environment_bond=6, **options)
    dense = overlap(mpo_to_dense(mpo), found.factorization.padded_to_dense())
    assert_allclose(found.overlap, dense, atol=1e-10)
    assert found.overlap > found.history.column("true_overlap")[0] > 0


@pytest.mark.no_cover  # paths are searched, by cotengra
@pytest.mark.parametrize("optimize", ["greedy", "hyper", "optimizer", "path"])
def test_the_contraction_path_is_the_users_choice(optimize, tmp_path):
    import cotengra as ctg
    from cotengra.pathfinders.path_basic import ssa_to_linear

    mpo = operator_of(6)
    options = {"depth": 1, "engine": "tree", "n_init": 1, "max_sweeps": 3, "init": "identity"}
    plain = disentangle(mpo, **options)
    given = optimize
    if optimize == "optimizer":
        given = ctg.RandomGreedyOptimizer(max_repeats=4, seed=3, parallel=False)
    if optimize == "path":
        disentangle(mpo, **options, run_dir=tmp_path / "plain")
        path = RunStore.read(tmp_path / "plain")[0].load().plan["ssa_path"]
        given = ssa_to_linear(path, len(path) + 1)
    found = disentangle(mpo, **options, optimize=given, run_dir=tmp_path / "run")
    # gates are visited along the tree: the same beginning, and about as good an end
    f = [run.history.column("overlap") for run in (found, plain)]
    assert_allclose(f[0][0], f[1][0], atol=1e-10)
    assert_allclose(f[0][-1], f[1][-1], atol=2e-2)
    assert found.options.optimize == (optimize if isinstance(given, str) else None)
    # the path is stored, so that a resumed run repeats it whatever found it
    assert RunStore.read(tmp_path / "run")[0].load().plan["ssa_path"]
    assert_array_equal(
        resume(tmp_path / "run").factorization.to_dense(), found.factorization.to_dense()
    )


def operator_of(n):
    rng = np.random.default_rng(n)
    sizes = [1, *[3] * (n - 1), 1]
    return mpo_from_tensors([rng.normal(size=(sizes[k], 2, 2, sizes[k + 1])) for k in range(n)])


@pytest.mark.parametrize("engine", ["dense", "transverse", "tree", "boundary"])
def test_circuits_of_quimb_are_places_and_initial_guess(engine):
    circuit = qtn.Circuit(4)
    for q in range(4):
        circuit.ry(0.3 + q, q)
    circuit.cx(0, 1)
    circuit.cx(3, 1)  # not neighbours
    circuit.rxx(0.7, 2, 3)
    left = circuit_from_quimb(circuit)
    core = mpo_from_tensors([np.diag([1.0, 0.3 * k]).reshape(1, 2, 2, 1) for k in range(1, 5)])
    nothing = Circuit(Ansatz(4, (), left.ansatz.group), ())
    hidden = Factorization(left, core, nothing, (16, 16))
    mpo = compress(hidden.to_dense()).mpo
    options = {"n_init": 1, "max_sweeps": 2, "engine": engine, "environment_bond": 16}
    found = disentangle(mpo, left=circuit, right=nothing, **options)
    assert len(found.factorization.left.gates) == len(left.gates)
    # it begins where the circuit is: the core is all there is to find
    assert_allclose(found.history.column("overlap")[0], 1.0, atol=1e-6)
    with pytest.raises(ValueError, match="init= is another initial guess"):
        disentangle(mpo, left=circuit, init=hidden, **options)
