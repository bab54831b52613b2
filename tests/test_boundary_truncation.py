"""The boundary engine where it truncates: accuracy, precision, many sites, what it keeps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import identity_circuit, random_circuit
from mpodis.environments.arrays import Backend
from mpodis.environments.boundary.engine import (
    BoundaryEnvironments,
    middle_overlap,
)
from mpodis.environments.boundary.truncation import METHODS, Truncation, canonical
from mpodis.gates import polar
from mpodis.mpo import truncate
from mpodis.sites import left_canonical, mpo_from_tensors, site_tensors, spread_norm
from reference import dense_from_cores, inner, random_cores

EXACT = 4096
"""A bond dimension that truncates nothing at 10 sites."""


def climb(environment, gate):
    return polar(environment, group="SO")


def stay(environment, gate):
    return gate


def chain(n, depth, *, bond=4, seed=0, scale=0.05, **options):
    """An engine at a near-identity start on many sites, its target and its circuits."""
    legs = ((2, 2),) * n
    target = spread_norm(left_canonical(random_cores(legs, bond, seed=(seed, 1)))[0], 0.0)
    core = site_tensors(truncate(mpo_from_tensors(target), max_bond=1).mpo)
    ansatz = brickwall(n, depth)
    left = random_circuit(ansatz, seed=seed, scale=scale)
    right = random_circuit(ansatz.reversed(), seed=seed + 100, scale=scale)
    engine = BoundaryEnvironments(target, legs, left.ansatz, right.ansatz, **options)
    engine.set(left.gates, core, right.gates)
    return engine, target, left, right


def assert_same_gates(a, b):
    for side in ("left", "right"):
        for x, y in zip(getattr(a, side), getattr(b, side), strict=True):
            assert_array_equal(x, y)


# --- the decomposition


def test_canonical_form_holds_the_schmidt_values():
    cores = random_cores(((2, 2), (2, 1), (1, 2), (2, 2)), 3, True, 1)
    boundary = canonical(cores, 1e-14)
    sites = [boundary.sites[0] * np.exp(boundary.log), *boundary.sites[1:]]
    matrix = dense_from_cores(cores)
    assert_allclose(dense_from_cores(sites), matrix, atol=1e-12)
    for site in boundary.sites[1:]:
        x = site.reshape(site.shape[0], -1)
        assert_allclose(x @ x.conj().T, np.eye(len(x)), atol=1e-13)
    first_cut = matrix.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
    values = np.linalg.svd(first_cut, compute_uv=False)
    values = values[: len(boundary.weights[1])] / np.linalg.norm(values)
    assert_allclose(boundary.weights[1], values, atol=1e-13)


@pytest.mark.parametrize("method", METHODS)
def test_truncation_keeps_the_best_vectors(method):
    rng = np.random.default_rng(0)
    for shape in ((40, 30), (30, 40)):
        u, _, vh = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        values = 0.7 ** np.arange(30)
        centre = ((u * values) @ vh)[None]
        cut = Truncation(10, 1e-14, method, Backend())
        space, found = cut.right_space(centre)
        space = space[0]
        assert space.shape == (shape[1], 10)
        assert_allclose(space.T @ space, np.eye(10), atol=1e-13)
        lost = np.linalg.norm(centre[0] - centre[0] @ space @ space.T)
        best = np.linalg.norm(values[10:])
        assert lost <= best * (1.05 if method == "random" else 1 + 1e-9)
        assert_allclose(found[0], values[:10], rtol=0.05 if method == "random" else 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_guess_does_not_hide_what_it_misses(method):
    # the guess is orthogonal to all that counts
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    values = 0.8 ** np.arange(64)
    centre = (np.linalg.qr(rng.normal(size=(64, 64)))[0] * values) @ q.T
    cut = Truncation(16, 1e-14, method, Backend())
    space, _ = cut.right_space(centre[None], q.T[None, 40:56])
    lost = np.linalg.norm(centre - centre @ space[0] @ space[0].T)
    assert lost <= 1.2 * np.linalg.norm(values[16:])


@pytest.mark.parametrize("method", METHODS)
def test_truncation_agrees_between_numpy_and_torch(method):
    engine, *_ = chain(10, 4, max_bond=8, truncation=method, device="cpu")
    reference, *_ = chain(10, 4, max_bond=8, truncation=method)
    # the signs of Schmidt vectors differ, and the sketch starts from these
    assert_allclose(engine.inner(), reference.inner(), rtol=1e-3 if method == "random" else 1e-9)


# --- environments and sweeps


def test_bonds_never_exceed_max_bond_and_errors_fall_with_it():
    exact, *_ = chain(10, 4, max_bond=EXACT)
    h = exact.inner()
    for method in METHODS:
        errors = []
        for bond in (4, 8, 16):
            engine, *_ = chain(10, 4, max_bond=bond, truncation=method)
            errors.append(abs(engine.inner() - h) / abs(h))
            bonds = [c.shape[3] for c in engine.pulled_tensors(EXACT)]
            assert max(bonds) <= bond
        assert errors[0] < 0.2
        assert errors[2] < 2e-3


def test_a_target_beyond_max_bond_is_truncated_on_ungated_bonds_too():
    legs = ((2, 2),) * 8
    target = random_cores(legs, 2, seed=3)
    wide = [np.pad(c, ((0, c.shape[0] > 1), (0, 0), (0, 0), (0, c.shape[3] > 1))) for c in target]
    rng = np.random.default_rng(0)
    wide = [c + 1e-6 * rng.normal(size=c.shape) for c in wide]
    ansatz = Ansatz(8, ((Placement((0, 1)),), (Placement((3, 4)),)))
    circuit = identity_circuit(ansatz)
    core = random_cores(legs, 1, seed=4)
    values = []
    for cores, bond in ((wide, EXACT), (wide, 2)):
        engine = BoundaryEnvironments(cores, legs, ansatz, ansatz, max_bond=bond)
        engine.set(circuit.gates, core, circuit.gates)
        values.append(engine.inner())
        assert max(c.shape[3] for c in engine.pulled_tensors(EXACT)) == min(bond, 3)
        seen = []
        engine.sweep({"left": lambda e, g, seen=seen: seen.append(inner(e, g)) or g})
        assert_allclose(seen, values[0], rtol=1e-3)
    assert_allclose(values[1], values[0], rtol=1e-3)


def test_environments_converge_with_max_bond():
    exact, *_ = chain(10, 4, max_bond=EXACT, scale=0.1)
    expected = exact.gradient()
    size = np.sqrt(sum((e**2).sum() for e in (*expected.left, *expected.right)))
    errors = []
    for bond in (8, 16, 32):
        engine, *_ = chain(10, 4, max_bond=bond, scale=0.1)
        found = engine.gradient()
        pairs = zip((*found.left, *found.right), (*expected.left, *expected.right), strict=True)
        errors.append(np.sqrt(sum(((a - b) ** 2).sum() for a, b in pairs)) / size)
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 1e-3


def test_twice_the_bond_dimension_tells_the_error_of_the_middle():
    engine, target, left, right = chain(10, 4, max_bond=EXACT, scale=0.1)
    gates = (engine.left, engine.core, engine.right)
    where = (((2, 2),) * 10, left.ansatz, right.ansatz)
    h = engine.inner()
    small, large = (middle_overlap(target, *gates, *where, max_bond=d) for d in (8, 16))
    assert abs(large - h) < abs(small - h)
    assert 0.5 < abs(small - large) / abs(small - h) < 2


def test_idle_layers_of_identities_keep_the_core_small():
    ansatz = brickwall(8, 4)
    circuit = identity_circuit(ansatz)
    legs = ((2, 2),) * 8
    core = random_cores(legs, 1, seed=2)
    engine = BoundaryEnvironments(random_cores(legs, 2, seed=1), legs, ansatz, ansatz)
    engine.set(circuit.gates, core, circuit.gates)
    engine.half_sweep("up", {"left": stay})
    assert all(boundary.bonds == (1,) * 7 for boundary in engine._pushed)
    engine.half_sweep("down", {"left": stay})
    assert all(boundary.bonds == (2,) * 7 for boundary in engine._pulled)


def test_polar_sweeps_climb():
    engine, target, left, right = chain(12, 6, max_bond=16)
    exact, *_ = chain(12, 6, max_bond=256)
    updates = {"left": climb, "right": climb}
    last = engine.inner()
    for _ in range(4):
        for direction in ("up", "down"):
            engine.half_sweep(direction, updates)
            h = middle_overlap(
                target, engine.left, engine.core, engine.right, ((2, 2),) * 12,
                left.ansatz, right.ansatz, max_bond=64,
            )  # fmt: skip
            assert h > last
            last = h
    exact.set(engine.left, engine.core, engine.right)
    assert_allclose(last, exact.inner(), rtol=1e-4)
    assert_allclose(engine.inner(), last, rtol=3e-2)


def test_the_core_is_given_its_best_values_on_request():
    engine, *_ = chain(12, 4, max_bond=32)
    updates = {"left": climb, "right": climb}
    engine.sweep(updates)
    plain = engine.inner() / np.linalg.norm(dense_from_cores(engine.core))
    other, *_ = chain(12, 4, max_bond=32)
    other.sweep(updates, core=True)
    assert_same_gates(engine, other)
    assert other.inner() / np.linalg.norm(dense_from_cores(other.core)) > 1.02 * plain


def test_single_precision_is_close():
    double, *_ = chain(12, 4, max_bond=16)
    single, *_ = chain(12, 4, max_bond=16, dtype="float32")
    updates = {"left": climb, "right": climb}
    for engine in (double, single):
        engine.sweep(updates)
        assert all(gate.dtype == np.float64 for gate in engine.left)
    assert_allclose(single.inner(), double.inner(), rtol=2e-3)
    a, b = single.gradient(), double.gradient()
    assert all(e.dtype == np.float64 for e in (*a.left, *a.right, *a.core))
    size = np.linalg.norm(b.left[0])
    assert_allclose(a.left[0], b.left[0], rtol=0, atol=1e-2 * size)


@pytest.mark.parametrize("factor", [0.01, 100.0])
def test_many_sites_of_any_scale_neither_overflow_nor_vanish(factor):
    n = 240
    legs = ((2, 2),) * n
    unit = spread_norm(left_canonical(random_cores(legs, 2, seed=1))[0], 0.0)
    target, core = [factor * c for c in unit], [c / factor for c in unit]
    ansatz = brickwall(n, 2)
    left = random_circuit(ansatz, seed=1, scale=0.01)
    for dtype in ("float64", "float32"):
        engine = BoundaryEnvironments(
            target, legs, ansatz, ansatz.reversed(), max_bond=8, dtype=dtype
        )
        engine.set(left.gates, core, left.adjoint().gates)
        h = engine.inner()
        assert np.isfinite(h)
        assert h > 0
        found = engine.gradient()
        forms = [inner(e, g) for e, g in zip(found.left, engine.left, strict=True)]
        assert_allclose(forms, h, rtol=0.1)
        forms = [inner(e, c) for e, c in zip(found.core, core, strict=True)]
        assert_allclose(forms, h, rtol=1e-3)
        fitted = engine.fitted_core()
        assert all(np.isfinite(c).all() for c in fitted)


def test_a_form_beyond_all_floats_says_so():
    n = 200
    legs = ((2, 2),) * n
    target = [100 * c for c in random_cores(legs, 2, seed=1)]
    ansatz = brickwall(n, 1)
    circuit = identity_circuit(ansatz)
    engine = BoundaryEnvironments(target, legs, ansatz, ansatz, max_bond=4)
    engine.set(circuit.gates, target, circuit.gates)
    with pytest.raises(OverflowError, match=r"the scale exp\(\d+\); divide them by their norms"):
        engine.inner()


# --- bond dimensions by a cutoff


def test_a_cutoff_leaves_every_bond_what_it_needs():
    exact, *_ = chain(10, 4, max_bond=EXACT, scale=0.1)
    h, widest, errors = exact.inner(), [], []
    for cutoff in (1e-1, 1e-2, 1e-3):
        engine, *_ = chain(10, 4, max_bond=48, scale=0.1)
        engine.set_cutoff(cutoff)
        engine.inner()
        bonds = [boundary.bonds for boundary in engine._pulled[1:]]
        widest.append(max(map(max, bonds)))
        assert bonds == [tuple(found) for found in engine.plan["pulled"][1:]]
        errors.append(abs(engine.inner() - h) / abs(h))
        for boundary in engine._pulled[2:]:  # the last values that were kept lie at the cutoff
            for w in boundary.weights[1:-1]:
                values = np.linalg.svd(w, compute_uv=False) if w.ndim == 2 else w
                assert len(values) == 1 or values[-1] > 0.3 * cutoff * values[0]
    assert widest[0] < widest[1] < widest[2] <= 48
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


def test_bond_dimensions_stay_until_the_cutoff_is_set_again():
    engine, _, left, _ = chain(10, 4, max_bond=32, scale=0.1)
    engine.set_cutoff(1e-3)
    engine.gradient()
    plan = engine.plan
    other = random_circuit(left.ansatz, seed=5, scale=0.5)
    engine.set(left=other.gates)
    engine.sweep({"left": climb, "right": climb})
    assert engine.plan == plan
    engine.set_cutoff(1e-3)
    engine.gradient()
    assert engine.plan != plan


@pytest.mark.parametrize("truncation", METHODS)
def test_the_plan_makes_another_engine_compute_the_same(truncation):
    updates = {"left": climb, "right": climb}
    engine, *_ = chain(10, 4, max_bond=24, scale=0.1, truncation=truncation)
    assert engine.plan is None
    engine.set_cutoff(1e-3)
    engine.gradient()
    engine.sweep(updates)
    other, *_ = chain(10, 4, max_bond=8, scale=0.3, truncation=truncation)
    other.plan = json.loads(json.dumps(engine.plan))
    other.set(engine.left, engine.core, engine.right)
    assert (other.max_bond, other.cutoff) == (24, 1e-3)
    assert other.inner() == engine.inner()
    for one in (engine, other):
        one.sweep(updates)
    assert_same_gates(engine, other)


def test_the_form_is_smooth_where_the_cutoff_has_found_bonds():
    engine, _, left, _ = chain(10, 4, max_bond=32, scale=0.1)
    engine.set_cutoff(1e-3)
    start, slope = list(engine.left), engine.gradient()
    other = random_circuit(left.ansatz, seed=5, scale=1.0).gates
    turns = [0.5 * (g - g.T) for g in other]
    values = []
    for step in (-1e-4, 1e-4):
        engine.set(
            left=[g @ (np.eye(len(g)) + step * x) for g, x in zip(start, turns, strict=True)]
        )
        values.append(engine.inner())
    expected = sum(inner(e, g @ x) for e, g, x in zip(slope.left, start, turns, strict=True))
    assert_allclose((values[1] - values[0]) / 2e-4, expected, rtol=0.1)


# --- caches


@pytest.mark.parametrize("truncation", METHODS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_to_set_and_sweep_repeats_to_go_on_bit_by_bit(truncation, dtype):
    options = {"max_bond": 12, "truncation": truncation, "dtype": dtype, "inner": 2}
    going, *_ = chain(11, 5, **options)
    updates = {"left": climb, "right": climb}
    for number in range(3):
        going.sweep(updates, core=number != 1)
        fresh, *_ = chain(11, 5, **options)
        fresh.set(going.left, going.core, going.right)
        assert fresh.inner() == going.inner()
        for a, b in zip(fresh.pulled_tensors(EXACT), going.pulled_tensors(EXACT), strict=True):
            assert_array_equal(a, b)
        fresh.sweep(updates, core=True)
        again, *_ = chain(11, 5, **options)
        again.set(going.left, going.core, going.right)
        again.gradient()  # leaves no trace
        again.inner()
        again.sweep(updates, core=True)
        assert_same_gates(fresh, again)
        probe = going.left, going.core, going.right
        going.sweep(updates, core=True)
        assert_same_gates(fresh, going)
        for a, b in zip(fresh.core, going.core, strict=True):
            assert_array_equal(a, b)
        going.set(*probe)


def test_boundaries_that_hold_are_kept():
    engine, *_ = chain(8, 4, max_bond=16)
    engine.sweep({"left": climb})
    kept = list(engine._pulled)
    assert all(boundary is not None for boundary in kept)
    engine.set(core=engine.fitted_core())
    engine.set(engine.left, None, engine.right)
    assert all(a is b for a, b in zip(engine._pulled, kept, strict=True))
    # the last gate of the left circuit is part of the last step
    gates = list(engine.left)
    gates[-1] = -gates[-1]
    h = engine.inner()
    engine.set(left=gates)
    assert all(a is b for a, b in zip(engine._pulled[:-1], kept, strict=False))
    assert engine._pulled[-1] is None
    assert_allclose(engine.inner(), -h, rtol=1e-12)
    engine.set_max_bond(16)
    assert engine._pulled[-1] is not None
    engine.set_max_bond(8)
    assert engine.max_bond == 8
    assert [boundary is None for boundary in engine._pulled] == [False] + [True] * 4


# --- estimate


PROGRAM = """
import resource, time
import numpy as np
from mpodis.environments.boundary.cost import sweep_cost
from test_boundary_truncation import chain, climb
n, depth, bond = 24, 10, 48
warm, *_ = chain(8, 4, max_bond=16)
warm.sweep({"left": climb, "right": climb})
engine, target, left, right = chain(n, depth, max_bond=bond)
# imports have had their own peak: what comes now must go beyond it
ballast = np.ones(128 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
engine.sweep({"left": climb, "right": climb})
seconds = time.perf_counter() - start
engine.gradient()
engine.fitted_core()
size = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
bonds = [4] * (n - 1), [1] * (n - 1)
expected = sweep_cost(
    ((2, 2),) * n, left.ansatz, right.ansatz,
    target_bonds=bonds[0], core_bonds=bonds[1], max_bond=bond,
)
print(seconds / expected[0], size / expected[1])
"""


def test_time_and_memory_are_as_estimated():
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **threads, "PYTHONPATH": path},
    )
    seconds, size = map(float, done.stdout.split())
    assert 1 / 1.5 < size < 1.5
    assert 0.1 < seconds < 10  # a factor of 2 on a quiet machine; this one may be busy
