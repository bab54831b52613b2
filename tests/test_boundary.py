"""Boundary engine against dense numpy where nothing is truncated, and its own identities beyond."""

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.ansatz import Ansatz, Placement, brickwall, from_spec, staircase
from mpodis.circuit import Circuit, identity_circuit, random_circuit
from mpodis.conventions import padded_shape, qubit_legs
from mpodis.cores import als_core, core_gradient
from mpodis.environments.arrays import Home
from mpodis.environments.boundary import (
    BoundaryEnvironments,
    estimate,
    middle_overlap,
    middle_overlaps,
)
from mpodis.environments.layers import plan_steps
from mpodis.environments.truncation import METHODS, Truncation, canonical
from mpodis.gates import polar
from mpodis.mpo import compress, truncate
from mpodis.sites import left_canonical, mpo_cores, mpo_from_cores, spread_norm
from reference import (
    CASES,
    circuit_matrix,
    dense_from_cores,
    embed,
    problem,
    random_cores,
    random_matrix,
    random_member,
)

TOL = 1e-10
EXACT = 4096
"""A bond dimension that truncates none of the cases."""


@dataclass(frozen=True, eq=False)
class Setup:
    target: np.ndarray
    legs: tuple
    left: Circuit
    cores: list
    right: Circuit

    @property
    def scale(self):
        """Size of the numbers, against which rounding is measured."""
        return np.linalg.norm(self.target) * np.linalg.norm(dense_from_cores(self.cores))

    def engine(self, **options):
        options = {"max_bond": EXACT, "inner": 1} | options
        engine = BoundaryEnvironments(
            self.target, self.legs, self.left.ansatz, self.right.ansatz, **options
        )
        engine.set(self.left.gates, self.cores, self.right.gates)
        return engine

    def pulled(self):
        left, right = circuit_matrix(self.left), circuit_matrix(self.right)
        return left.conj().T @ self.target @ right.conj().T


def _gate(*wires, fixed=None):
    return Placement(wires, fixed)


HOLES = Ansatz(4, ((_gate(1, 2),), (_gate(1), _gate(2, 3, fixed="CNOT"))), "SO")
GAP = ((2, 2), (2, 1), (2, 2), (1, 2))
# legs or shape, left and right ansatz, bond of the core, complex target and core
EXTRA = {
    "idle wires": ((16, 16), HOLES, Ansatz(4, ((_gate(0),),), "O"), 2, False),
    "no gates": ((8, 8), Ansatz(3, ()), brickwall(3, 1), 1, False),
    "no gates at all": ((8, 8), Ansatz(3, ()), Ansatz(3, ()), 2, False),
    "staircases": ((16, 16), staircase(4, 2), staircase(4, 1, 3), 3, False),
    "complex staircase": ((32, 32), staircase(5, 1, 3, group="U"), brickwall(5, 1), 2, True),
    "16x6": ((16, 6), brickwall(4, 2, group="O"), brickwall(3, 2, 3, group="O"), 3, False),
    "8x1": ((8, 1), brickwall(3, 2), Ansatz(0, ()), 3, False),
    "real gates, complex operator": ((8, 16), brickwall(3, 2), brickwall(4, 1), 2, True),
    "four-body": ((16, 16), brickwall(4, 1, 4, group="U"), from_spec("1b + CNOT", 4), 1, True),
    "gates over a missing leg": (GAP, brickwall(3, 2), brickwall(3, 2, start=1), 2, False),
    "wide pair": ((32, 32), brickwall(5, 1, 5), brickwall(5, 1, 5), 2, False),
    "mirror": ((64, 64), brickwall(6, 4), brickwall(6, 4).reversed(), 2, False),
}
NAMES = [str(case) for case in CASES]
ALL = [*NAMES, *EXTRA]


@cache
def setup(name) -> Setup:
    if name in NAMES:
        number = NAMES.index(name)
        target, left, cores, right = problem(CASES[number], bond=1 + number % 3)
        return Setup(target, CASES[number].legs, left, cores, right)
    shape, left, right, bond, is_complex = EXTRA[name]
    legs = shape if shape is GAP else qubit_legs(*shape)
    return Setup(
        random_matrix(padded_shape(legs), is_complex, 5),
        legs,
        random_circuit(left, seed=6),
        random_cores(legs, bond, is_complex, 7),
        random_circuit(right, seed=8),
    )


class Twin:
    """h = Re Tr(G^H A) as a function of any one gate, in dense numpy."""

    def __init__(self, s: Setup, engine=None):
        self.target, self.slots, self.factors = s.target, [], []
        for side, circuit in (("left", s.left), ("right", s.right)):
            if side == "right":
                self.slots.append(("core", 0))
                self.factors.append(dense_from_cores(s.cores))
            gates = circuit.gates if engine is None else getattr(engine, side)
            places = circuit.ansatz.placements
            for j, (gate, place) in enumerate(zip(gates, places, strict=True)):
                self.slots.append((side, j))
                self.factors.append(embed(gate, place.wires, circuit.n))

    def form(self, slot=None, factor=None):
        factors = list(self.factors)
        if slot is not None:
            factors[self.slots.index(slot)] = factor
        return inner(self.target, reduce(np.matmul, factors))


def inner(a, b):
    """Re Tr(a^H b)."""
    return float(np.vdot(a, b).real)


def free(circuit):
    return [j for j, place in enumerate(circuit.ansatz.placements) if place.fixed is None]


SO = functools.partial(polar, group="SO")


def climb(environment, gate):
    return SO(environment)


def stay(environment, gate):
    return gate


def chain(n, depth, *, bond=4, seed=0, scale=0.05, **options):
    """An engine at a near-identity start on many sites, its target and its circuits."""
    legs = ((2, 2),) * n
    target = spread_norm(left_canonical(random_cores(legs, bond, seed=(seed, 1)))[0], 0.0)
    core = mpo_cores(truncate(mpo_from_cores(target), max_bond=1).mpo)
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


# --- nothing truncated: dense twins


@pytest.mark.parametrize("name", ALL)
def test_inner_is_the_form_of_the_dense_product(name):
    s = setup(name)
    assert_allclose(s.engine().inner(), Twin(s).form(), rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ALL)
def test_environments_are_the_derivatives_of_the_form(name):
    s, dense = setup(name), Twin(setup(name))
    engine = s.engine()
    found = engine.gradient()
    h = dense.form()
    assert_allclose(found.inner, h, rtol=0, atol=TOL * s.scale)
    rng = np.random.default_rng(0)
    for side, circuit in (("left", s.left), ("right", s.right)):
        environments = getattr(found, side)
        assert [j for j, e in enumerate(environments) if e is not None] == free(circuit)
        for j in free(circuit):
            # the form is linear in a gate: Re Tr(E^H x) is its value with x in the gate's place
            shape, wires = circuit.gates[j].shape, circuit.ansatz.placements[j].wires
            move = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            if not np.iscomplexobj(environments[j]):
                move = move.real
            for x in (circuit.gates[j], move):
                expected = dense.form((side, j), embed(x, wires, circuit.n))
                size = TOL * s.scale * max(1, np.linalg.norm(x))
                assert_allclose(inner(environments[j], x), expected, rtol=0, atol=size)
    for a, b in zip(found.core, core_gradient(s.pulled(), s.cores), strict=True):
        assert_allclose(a, b, rtol=0, atol=TOL * s.scale)
    assert_same_gates(engine, s.engine())


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", ALL)
def test_a_half_sweep_offers_each_gate_the_newest_others(name, direction):
    s = setup(name)
    engine = s.engine(inner=2)
    trail = []

    def update(environment, gate):
        new = random_member(gate.shape[0], "SO", (9, len(trail)))
        trail.append((inner(environment, gate), inner(environment, new)))
        return new

    engine.half_sweep(direction, {"left": update, "right": update})
    count = len(free(s.left)) + len(free(s.right))
    assert count <= len(trail) <= 2 * count
    # h after one update is h before the next: every environment knows the newest gates
    h = Twin(s).form()
    for before, after in trail:
        assert_allclose(before, h, rtol=0, atol=TOL * s.scale)
        h = after
    assert_allclose(engine.inner(), h, rtol=0, atol=TOL * s.scale)
    assert_allclose(Twin(s, engine).form(), h, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ["staircases", "mirror", "complex staircase"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gates_of_a_side_that_is_not_named_stay(name, side):
    s = setup(name)
    engine = s.engine(inner=3)
    seen = []
    engine.sweep({side: lambda environment, gate: seen.append(gate) or -gate})
    assert len(seen) == 2 * len(free(getattr(s, side)))  # alone, a gate has no turns to take
    other = {"left": "right", "right": "left"}[side]
    for a, b in zip(getattr(engine, other), getattr(s, other).gates, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("name", ALL)
def test_fitted_core_is_that_of_the_dense_pulled_matrix(name):
    s = setup(name)
    engine = s.engine()
    pulled = s.pulled()
    expected = als_core(pulled, s.cores)
    found = engine.fitted_core()
    assert [c.shape for c in found] == [c.shape for c in expected]
    size = TOL * np.linalg.norm(pulled)
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=0, atol=size)
    assert_allclose(dense_from_cores(engine.pulled_cores()), pulled, rtol=0, atol=size)
    for kept, given in zip(engine.core, s.cores, strict=True):
        assert_array_equal(kept, given)


@pytest.mark.parametrize("name", ALL)
def test_the_halves_meet_in_the_middle(name):
    s = setup(name)
    gates = (s.left.gates, s.cores, s.right.gates)
    ansatze = (s.left.ansatz, s.right.ansatz)
    h = middle_overlap(s.target, *gates, s.legs, *ansatze, max_bond=EXACT)
    assert_allclose(h, Twin(s).form(), rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ["16x6", "mirror", "wide pair", "complex staircase", NAMES[6]])
def test_torch_and_numpy_agree(name):
    s = setup(name)
    numpy, torch = (s.engine(device=device, inner=2) for device in (None, "cpu"))
    group = "U" if s.left.is_complex else "O"

    def update(environment, gate):
        return polar(environment if group == "U" else environment.real, group=group)

    for engine in (numpy, torch):
        engine.sweep({"left": update, "right": update}, core=True)
    assert_allclose(torch.inner(), numpy.inner(), rtol=0, atol=TOL * s.scale)
    for part in ("left", "right", "core"):
        pairs = zip(getattr(torch.gradient(), part), getattr(numpy.gradient(), part), strict=True)
        for a, b in pairs:
            if a is not None:
                assert isinstance(a, np.ndarray)
                assert_allclose(a, b, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_truncation_agrees_between_numpy_and_torch(method, device):
    engine, *_ = chain(10, 4, max_bond=8, truncation=method, device=device)
    reference, *_ = chain(10, 4, max_bond=8, truncation=method)
    # the signs of Schmidt vectors differ, and the sketch starts from these
    assert_allclose(engine.inner(), reference.inner(), rtol=1e-3 if method == "random" else 1e-9)


# --- truncated


def test_cases_are_not_truncated_below_max_bond():
    s = setup("mirror")
    values = [s.engine(truncation=method).inner() for method in METHODS]
    assert_allclose(values, Twin(s).form(), rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("method", METHODS)
def test_truncation_keeps_the_best_vectors(method):
    rng = np.random.default_rng(0)
    for shape in ((40, 30), (30, 40)):
        u, _, vh = np.linalg.svd(rng.normal(size=shape), full_matrices=False)
        values = 0.7 ** np.arange(30)
        centre = ((u * values) @ vh)[None]
        cut = Truncation(10, 1e-14, method, Home())
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
    cut = Truncation(16, 1e-14, method, Home())
    space, _ = cut.right_space(centre[None], q.T[None, 40:56])
    lost = np.linalg.norm(centre - centre @ space[0] @ space[0].T)
    assert lost <= 1.2 * np.linalg.norm(values[16:])


def test_bonds_never_exceed_max_bond_and_errors_fall_with_it():
    exact, *_ = chain(10, 4, max_bond=EXACT)
    h = exact.inner()
    for method in METHODS:
        errors = []
        for bond in (4, 8, 16):
            engine, *_ = chain(10, 4, max_bond=bond, truncation=method)
            errors.append(abs(engine.inner() - h) / abs(h))
            bonds = [c.shape[3] for c in engine.pulled_cores()]
            assert max(bonds) <= bond
        assert errors[0] < 0.2
        assert errors[2] < 2e-3


def test_a_target_beyond_max_bond_is_truncated_on_ungated_bonds_too():
    legs = ((2, 2),) * 8
    target = random_cores(legs, 2, seed=3)
    wide = [np.pad(c, ((0, c.shape[0] > 1), (0, 0), (0, 0), (0, c.shape[3] > 1))) for c in target]
    rng = np.random.default_rng(0)
    wide = [c + 1e-6 * rng.normal(size=c.shape) for c in wide]
    ansatz = Ansatz(8, ((_gate(0, 1),), (_gate(3, 4),)))
    circuit = identity_circuit(ansatz)
    core = random_cores(legs, 1, seed=4)
    values = []
    for cores, bond in ((wide, EXACT), (wide, 2)):
        engine = BoundaryEnvironments(cores, legs, ansatz, ansatz, max_bond=bond)
        engine.set(circuit.gates, core, circuit.gates)
        values.append(engine.inner())
        assert max(c.shape[3] for c in engine.pulled_cores()) == min(bond, 3)
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
    small, large = middle_overlaps(target, *gates, *where, max_bond=8)
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


def test_a_core_of_zeros_has_no_overlap():
    s = setup("mirror")
    engine = s.engine()
    engine.set(core=[0 * c for c in s.cores])
    assert engine.inner() == 0
    assert not any(e.any() for e in engine.gradient().left)


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
        for a, b in zip(fresh.pulled_cores(), going.pulled_cores(), strict=True):
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


def test_gates_may_become_complex():
    s = setup("mirror")
    engine = s.engine()
    engine.set(left=[1j * gate for gate in s.left.gates])
    assert_allclose(engine.inner(), Twin(s, engine).form(), rtol=0, atol=TOL * s.scale)
    engine.set(s.left.gates)
    assert_allclose(engine.inner(), Twin(s).form(), rtol=0, atol=TOL * s.scale)


# --- plan


@pytest.mark.parametrize(
    ("legs", "left", "right", "depth"),
    [
        (qubit_legs(64, 64), brickwall(6, 4), brickwall(6, 4).reversed(), 4),
        (qubit_legs(64, 64), brickwall(6, 4), brickwall(6, 4), 5),  # pairs with a shift
        (qubit_legs(64, 64), brickwall(6, 4), brickwall(6, 1), 4),
        (qubit_legs(64, 64), brickwall(6, 2), brickwall(6, 3, 3), 5),
        (qubit_legs(64, 10), brickwall(6, 2), brickwall(4, 2), 3),
        (qubit_legs(64, 64), staircase(6, 2), Ansatz(6, ()), 7),  # the second follows the first
        (qubit_legs(8, 8), Ansatz(3, ()), Ansatz(3, ()), 0),
        (qubit_legs(8, 1), brickwall(3, 2), Ansatz(0, ()), 2),
    ],
)
def test_steps_are_few_and_hold_every_gate_once_in_order(legs, left, right, depth):
    steps = plan_steps(legs, left, right)
    assert len(steps) == depth
    for side, ansatz in (("left", left), ("right", right)):
        found = [
            block.slot(side).number for step in steps for block in step.blocks if block.slot(side)
        ]
        assert sorted(found) == list(range(len(ansatz.placements)))
        order = found if side == "left" else found[::-1]
        last = [-1] * ansatz.n  # on every wire, gates come in the circuit's order
        for number in order:
            for wire in ansatz.placements[number].wires:
                assert last[wire] < number
                last[wire] = number
    for step in steps:
        ends = [0, *(block.stop for block in step.blocks)]
        assert [block.start for block in step.blocks] == ends[:-1]
        assert ends[-1] == len(legs)
        assert all(len(block.legs) == 1 for block in step.blocks if block.idle)


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


# --- estimate


def test_estimates_grow_as_the_work_does():
    def of(n, depth, bond, **options):
        ansatz = brickwall(n, depth)
        bonds = {"target_bonds": [4] * (n - 1), "core_bonds": [1] * (n - 1)}
        legs = ((2, 2),) * n
        return estimate(legs, ansatz, ansatz.reversed(), max_bond=bond, **bonds, **options)

    seconds, size = of(32, 16, 32)
    for more in ((64, 16, 32), (32, 32, 32)):
        found = of(*more)
        assert 1.8 < found[0] / seconds < 2.3
        assert 1.8 < found[1] / size < 2.3
    assert 2 < of(32, 16, 64)[0] / seconds < 5
    assert 3 < of(32, 16, 64)[1] / size < 4.5
    assert of(32, 16, 64, dtype="float32")[0] < of(32, 16, 64)[0]
    assert_allclose(of(32, 16, 64, dtype="float32")[1], of(32, 16, 64)[1] / 2, rtol=0.05)
    assert_allclose(of(32, 16, 64, complex=True)[1], of(32, 16, 64)[1] * 2, rtol=0.05)
    assert of(32, 16, 64, complex=True)[0] > 2 * of(32, 16, 64)[0]
    assert of(6, 2, 64)[0] < 0.05


@pytest.mark.parametrize("name", ALL)
def test_every_plan_has_an_estimate(name):
    s = setup(name)
    bonds = {"target_bonds": [4] * (len(s.legs) - 1), "core_bonds": [1] * (len(s.legs) - 1)}
    found = estimate(s.legs, s.left.ansatz, s.right.ansatz, max_bond=16, **bonds)
    assert all(np.isfinite(found))
    assert min(found) >= 0


PROGRAM = """
import resource, time
import numpy as np
from test_boundary import chain, climb, estimate
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
expected = estimate(
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


# --- errors


def test_what_makes_no_sense_is_refused():
    s = setup("mirror")
    for options, text in (
        ({"truncation": "exact"}, "truncation='exact' is not known; use one of svd, gram, random"),
        ({"max_bond": 0}, "max_bond=0 keeps nothing"),
        ({"cutoff": 1.0}, r"cutoff=1.0 must lie in \[0, 1\)"),
        ({"inner": 0}, "inner=0 updates nothing"),
        ({"dtype": "float16"}, "dtype='float16' is not known"),
    ):
        with pytest.raises(ValueError, match=text):
            s.engine(**options)
    engine = s.engine()
    with pytest.raises(ValueError, match="max_bond=-1 keeps nothing"):
        engine.set_max_bond(-1)
    with pytest.raises(ValueError, match="direction='left' is not known; use 'up' or 'down'"):
        engine.half_sweep("left", {})
    with pytest.raises(ValueError, match=r"^1 gates were given for 14 placements \(left\)$"):
        engine.set(left=s.left.gates[:1])
    with pytest.raises(ValueError, match=r"^the target is \(4, 8\), its legs span \(64, 64\)$"):
        BoundaryEnvironments(np.ones((4, 8)), s.legs, s.left.ansatz, s.right.ansatz)
    cores = mpo_cores(compress(s.target, legs=s.legs).mpo)
    with pytest.raises(ValueError, match=r"^the target has legs .* expected"):
        BoundaryEnvironments(cores[:3], s.legs, s.left.ansatz, s.right.ansatz)
    with pytest.raises(ValueError, match="the left ansatz has 5 wires, the operator 6"):
        BoundaryEnvironments(cores, s.legs, brickwall(5, 1), s.right.ansatz)
