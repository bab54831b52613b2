"""All four engines against dense numpy: forms, environments, sweeps and fitted cores."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.conventions import qubit_legs
from mpodis.environments import ENGINES, has_dense_operator
from mpodis.fit import als_sweep
from mpodis.gates import polar
from mpodis.mpo import compress
from mpodis.sites import site_tensors
from reference import (
    ALL,
    Setup,
    Twin,
    dense_from_cores,
    embed,
    free,
    inner,
    overlap,
    random_cores,
    random_matrix,
    random_member,
    setup,
    twin,
)

TOL = 1e-12
EXACT = {"boundary": {"max_bond": 4096}}  # truncates nothing here


def build(s: Setup, kind):
    return s.engine(ENGINES[kind], **EXACT.get(kind, {}))


@cache
def _engine(name, kind):
    return build(setup(name), kind)


def engine_at(name, kind):
    """The engine of a setup, put at the setup's gates; it keeps its plans between the tests."""
    s, engine = setup(name), _engine(name, kind)
    engine.set(s.left.gates, s.cores, s.right.gates)
    return engine


def assert_all_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert_array_equal(a, b)


every_engine = pytest.mark.parametrize("kind", ENGINES)
every_case = pytest.mark.parametrize("name", ALL)


@every_engine
@every_case
def test_inner_is_the_form_of_the_dense_product(name, kind):
    s = setup(name)
    found = engine_at(name, kind).inner()
    assert_allclose(found, twin(name).form(), rtol=0, atol=TOL * s.scale)


@every_engine
@every_case
def test_environments_are_the_derivatives_of_the_form(name, kind):
    s, dense = setup(name), twin(name)
    engine = engine_at(name, kind)
    found, half = engine.gradient(), engine.gradient(0.5)
    assert_allclose(found.inner, dense.form(), rtol=0, atol=TOL * s.scale)
    assert_allclose(half.inner, found.inner / 2, rtol=0, atol=TOL * s.scale)
    for part in ("left", "core", "right"):
        for a, b in zip(getattr(found, part), getattr(half, part), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert_allclose(b, a / 2, rtol=0, atol=TOL * np.linalg.norm(s.target))
    for part, given in (("left", s.left.gates), ("core", s.cores), ("right", s.right.gates)):
        assert_all_equal(getattr(engine, part), given)
    rng = np.random.default_rng(0)
    for side, circuit in (("left", s.left), ("right", s.right)):
        environments = getattr(found, side)
        assert [j for j, e in enumerate(environments) if e is not None] == free(circuit)
        for j in free(circuit):
            # the form is linear in a gate: Re Tr(E^H x) is its value with x in the gate's place
            shape, wires = circuit.gates[j].shape, circuit.ansatz.placements[j].wires
            assert environments[j].shape == shape
            x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            expected = dense.form((side, j), embed(x, wires, circuit.n))
            size = TOL * s.scale * np.linalg.norm(x)
            assert_allclose(inner(environments[j], x), expected, rtol=0, atol=size)
    for k, site in enumerate(s.cores):
        x = rng.normal(size=site.shape) + 1j * rng.normal(size=site.shape)
        core = dense_from_cores([*s.cores[:k], x, *s.cores[k + 1 :]])
        size = TOL * np.linalg.norm(s.target) * np.linalg.norm(core)
        assert found.core[k].shape == site.shape
        assert_allclose(inner(found.core[k], x), dense.form(("core", 0), core), rtol=0, atol=size)


@every_engine
@every_case
@pytest.mark.parametrize("sides", [("left",), ("right",), ("left", "right")], ids="+".join)
def test_a_sweep_offers_each_gate_the_newest_others(name, kind, sides):
    s = setup(name)
    engine = engine_at(name, kind)
    # h after one update is h before the next: every environment knows the newest gates
    seen, h = [], [twin(name).form()]

    def update(environment, gate):
        assert environment.dtype in (np.float64, np.complex128)
        assert_allclose(inner(environment, gate), h[-1], rtol=0, atol=TOL * s.scale)
        put = random_member(gate.shape[0], "SO", (9, len(seen))).astype(gate.dtype)
        seen.append((gate, put))
        h.append(inner(environment, put))
        return put

    engine.sweep(dict.fromkeys(sides, update))
    first = {id(gate) for gate, _ in seen}
    put = {id(gate) for _, gate in seen}
    for side, circuit in (("left", s.left), ("right", s.right)):
        for j, gate in enumerate(circuit.gates):
            offered = side in sides and j in free(circuit)
            assert (id(gate) in first) == offered
            assert (id(getattr(engine, side)[j]) in put) == offered
    assert_all_equal(engine.core, s.cores)
    assert_allclose(engine.inner(), h[-1], rtol=0, atol=TOL * s.scale)
    assert_allclose(h[-1], Twin(s, engine).form(), rtol=0, atol=TOL * s.scale)


@every_engine
@every_case
def test_polar_sweeps_with_and_without_the_core_never_lower_the_overlap(name, kind):
    s = setup(name)
    engine = engine_at(name, kind)
    # Haar-random gates of a real group may not be in SO; O holds them all
    updates = {
        side: lambda e, g, group="U" if circuit.is_complex else "O": polar(
            e if group == "U" else e.real, group=group
        )
        for side, circuit in (("left", s.left), ("right", s.right))
    }
    before = twin(name).form() / np.linalg.norm(dense_from_cores(s.cores))
    for core in (False, True, True):
        engine.sweep(updates, core=core)
        after = engine.inner() / np.linalg.norm(dense_from_cores(engine.core))
        assert after >= before - TOL * np.linalg.norm(s.target)
        before = after
    assert_allclose(engine.inner(), Twin(s, engine).form(), rtol=0, atol=TOL * s.scale)


@every_engine
@every_case
def test_every_engine_fits_the_core_of_the_dense_als(name, kind):
    s = setup(name)
    engine, pulled = engine_at(name, kind), s.pulled
    fitted = dense_from_cores(engine.fitted_core())
    assert_all_equal(engine.core, s.cores)
    expected = dense_from_cores(als_sweep(pulled, s.cores))
    assert_allclose(fitted, expected, rtol=0, atol=1e-10 * np.linalg.norm(pulled))
    assert overlap(pulled, fitted) >= overlap(pulled, dense_from_cores(s.cores)) - TOL


@every_engine
@every_case
def test_pulled_tensors_are_those_of_the_dense_pulled_matrix(name, kind):
    s = setup(name)
    engine, size = engine_at(name, kind), TOL * np.linalg.norm(s.pulled)
    found = engine.pulled_tensors(4096)
    assert tuple(c.shape[1:3] for c in found) == tuple(s.legs)
    assert_allclose(dense_from_cores(found), s.pulled, rtol=0, atol=10 * size)
    if engine.exact:
        cut = engine.pulled_tensors(2)
        assert max(c.shape[3] for c in cut) <= 2
        # what is kept of an operator is never larger than it, and points along it
        product = inner(dense_from_cores(cut), s.pulled)
        assert 0 < product <= np.linalg.norm(s.pulled) ** 2 + size


@every_engine
def test_engines_say_what_they_can_do(kind):
    engine = engine_at("16x6", kind)
    assert engine.name == kind
    assert engine.exact == (kind != "boundary")
    assert engine.holds_dense == has_dense_operator(engine) == (kind == "dense")
    assert engine.parallel == (kind in ("dense", "transverse"))
    assert (engine.plan is not None) == (kind == "tree")
    if engine.exact:
        assert engine.max_bond is None
        message = f"engine '{kind}' is exact and cannot be truncated to max_bond=8; use engine='b"
        with pytest.raises(ValueError, match=message):
            engine.set_max_bond(8)
    else:
        assert build(setup("16x6"), kind).max_bond == 4096


@every_engine
@pytest.mark.parametrize("group", ["SO", "U"])
def test_a_core_that_is_large_enough_is_fitted_exactly(kind, group):
    legs = qubit_legs(8, 4)
    target = random_matrix((8, 4), group == "U", 1)
    left, right = (random_circuit(brickwall(n, 2, group=group), seed=n) for n in (3, 2))
    s = Setup(target, legs, left, random_cores(legs, 4, group == "U", 2), right)
    assert_allclose(dense_from_cores(build(s, kind).fitted_core()), s.pulled, atol=1e-11)


@every_engine
@pytest.mark.parametrize("name", ["64x10-O-2+2+2-1", "complex staircase", "idle wires"])
def test_what_is_not_given_stays(name, kind):
    s = setup(name)
    engine = engine_at(name, kind)
    cores = random_cores(s.legs, 2, s.cores[0].dtype.kind == "c", 8)
    gates = [random_member(g.shape[0], "SO", (4, j)) for j, g in enumerate(s.right.gates)]
    for part, new in (("core", cores), ("right", gates)):
        engine.sweep({})
        engine.set(**{part: new})
        assert engine.inner() == pytest.approx(Twin(s, engine).form(), abs=TOL * s.scale)
    assert all(a is b for a, b in zip(engine.core, cores, strict=True))


@every_engine
def test_a_sweep_is_a_function_of_gates_and_core_alone(kind):
    """What makes a run that is resumed go on as it would have, bit by bit."""
    name = "64x64-U-3+3-1"
    s = setup(name)
    updates = dict.fromkeys(("left", "right"), lambda e, g: polar(e, group="U"))
    going_on, again = build(s, kind), build(s, kind)
    for _ in range(3):
        going_on.sweep(updates, core=True)
        copies = [
            [x.copy() for x in part] for part in (going_on.left, going_on.core, going_on.right)
        ]
    going_on.sweep(updates, core=True)
    again.set(*copies)
    again.sweep(updates, core=True)
    for part in ("left", "core", "right"):
        assert_all_equal(getattr(going_on, part), getattr(again, part))


@every_engine
def test_a_target_may_be_dense_or_cores(kind):
    s = setup("16x6")
    cores = replace(s, target=site_tensors(compress(s.target, legs=s.legs).mpo))
    for engine in (engine_at("16x6", kind), build(cores, kind)):
        assert_allclose(engine.inner(), twin("16x6").form(), rtol=0, atol=TOL * s.scale)


@every_engine
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_ansatz_of_the_wrong_size_is_refused(kind, side):
    legs = qubit_legs(8, 4)
    ansatze = {"left": brickwall(3, 1), "right": brickwall(2, 1)} | {side: brickwall(4, 1)}
    n = {"left": 3, "right": 2}[side]
    with pytest.raises(ValueError, match=f"^the {side} ansatz has 4 wires, the operator {n}$"):
        ENGINES[kind](np.ones((8, 4)), legs, **ansatze)


@every_engine
def test_legs_that_are_no_qubits_are_refused(kind):
    with pytest.raises(ValueError, match="circuits act on qubits, so compress with the default"):
        ENGINES[kind](np.ones((6, 4)), ((3, 2), (2, 2)), brickwall(2, 1), brickwall(2, 1))


@pytest.mark.parametrize("kind", ["transverse", "tree", "boundary"])
def test_a_target_on_other_legs_is_refused(kind):
    cores = random_cores(((2, 2),) * 4, 2, seed=1)
    with pytest.raises(ValueError, match=r"^the target has legs .* expected"):
        ENGINES[kind](cores[:3], ((2, 2),) * 4, brickwall(4, 2), brickwall(4, 2))
