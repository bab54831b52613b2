"""The boundary engine where nothing is truncated: half sweeps, the middle, plans, errors.

What it shares with the other engines is in test_environments.py, what truncation does in
test_boundary_truncation.py.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, brickwall, staircase
from mpodis.conventions import qubit_legs
from mpodis.environments.boundary.cost import sweep_cost
from mpodis.environments.boundary.engine import BoundaryEnvironments, middle_overlap
from mpodis.environments.boundary.steps import plan_steps
from mpodis.environments.boundary.truncation import METHODS
from mpodis.fit import als_sweep, core_gradient
from mpodis.gates import polar
from reference import ALL, Twin, dense_from_cores, free, inner, random_member, setup, twin

TOL = 1e-10
EXACT = 4096
"""A bond dimension that truncates none of the cases."""

# all groups, fixed and wide gates, steps of one side and of both, sides without gates or wires
SOME = (
    "64x64-U-3+3-1",
    "48x64-U-CNOT+2+CNOT+1-0",
    "64x10-O-2+2+2-1",
    "1x5-U-1+CNOT+1-0",
    "idle wires",
    "no gates at all",
    "complex staircase",
    "16x6",
    "8x1",
    "real gates, complex operator",
    "gates over a missing leg",
    "wide pair",
    "mirror",
)


def engine_of(name, **options):
    return setup(name).engine(BoundaryEnvironments, **({"max_bond": EXACT} | options))


# --- against dense twins


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("name", SOME)
def test_a_half_sweep_offers_each_gate_the_newest_others(name, direction):
    s, engine = setup(name), engine_of(name, inner=2)
    trail = []

    def update(environment, gate):
        new = random_member(gate.shape[0], "SO", (9, len(trail)))
        trail.append((inner(environment, gate), inner(environment, new)))
        return new

    engine.half_sweep(direction, {"left": update, "right": update})
    count = len(free(s.left)) + len(free(s.right))
    assert count <= len(trail) <= 2 * count
    # h after one update is h before the next: every environment knows the newest gates
    h = twin(name).form()
    for before, after in trail:
        assert_allclose(before, h, rtol=0, atol=TOL * s.scale)
        h = after
    assert_allclose(engine.inner(), h, rtol=0, atol=TOL * s.scale)
    assert_allclose(Twin(s, engine).form(), h, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ["staircases", "mirror", "complex staircase"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_gates_of_a_side_that_is_not_named_stay(name, side):
    s, engine = setup(name), engine_of(name, inner=3)
    seen = []
    engine.sweep({side: lambda environment, gate: seen.append(gate) or -gate})
    assert len(seen) == 2 * len(free(getattr(s, side)))  # alone, a gate has no turns to take
    other = {"left": "right", "right": "left"}[side]
    for a, b in zip(getattr(engine, other), getattr(s, other).gates, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("name", SOME)
def test_what_is_left_once_the_circuits_are_off_is_the_dense_pulled_matrix(name):
    s, engine = setup(name), engine_of(name)
    size = TOL * np.linalg.norm(s.pulled)
    assert_allclose(dense_from_cores(engine.pulled_tensors(EXACT)), s.pulled, rtol=0, atol=size)
    # site by site, in the gauge of the dense fit
    found, expected = engine.fitted_core(), als_sweep(s.pulled, s.cores)
    assert [c.shape for c in found] == [c.shape for c in expected]
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=0, atol=size)
    for a, b in zip(engine.gradient().core, core_gradient(s.pulled, s.cores), strict=True):
        assert_allclose(a, b, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ALL)
def test_the_halves_meet_in_the_middle(name):
    s = setup(name)
    gates = (s.left.gates, s.cores, s.right.gates)
    ansatze = (s.left.ansatz, s.right.ansatz)
    h = middle_overlap(s.target, *gates, s.legs, *ansatze, max_bond=EXACT)
    assert_allclose(h, twin(name).form(), rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ["16x6", "mirror", "wide pair", "complex staircase", SOME[1]])
def test_torch_and_numpy_agree(name):
    s = setup(name)
    numpy, torch = (engine_of(name, device=device, inner=2) for device in (None, "cpu"))
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


def test_cases_are_not_truncated_below_max_bond():
    values = [engine_of("mirror", truncation=method).inner() for method in METHODS]
    size = TOL * setup("mirror").scale
    assert_allclose(values, twin("mirror").form(), rtol=0, atol=size)


def test_gates_may_become_complex():
    s, engine = setup("mirror"), engine_of("mirror")
    engine.set(left=[1j * gate for gate in s.left.gates])
    assert_allclose(engine.inner(), Twin(s, engine).form(), rtol=0, atol=TOL * s.scale)
    engine.set(s.left.gates)
    assert_allclose(engine.inner(), twin("mirror").form(), rtol=0, atol=TOL * s.scale)


def test_a_core_of_zeros_has_no_overlap():
    s, engine = setup("mirror"), engine_of("mirror")
    engine.set(core=[0 * c for c in s.cores])
    assert engine.inner() == 0
    assert not any(e.any() for e in engine.gradient().left)


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
            block.placed(side).number
            for step in steps
            for block in step.blocks
            if block.placed(side)
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


# --- estimate


def test_estimates_grow_as_the_work_does():
    def of(n, depth, bond, **options):
        ansatz = brickwall(n, depth)
        bonds = {"target_bonds": [4] * (n - 1), "core_bonds": [1] * (n - 1)}
        legs = ((2, 2),) * n
        return sweep_cost(legs, ansatz, ansatz.reversed(), max_bond=bond, **bonds, **options)

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
    found = sweep_cost(s.legs, s.left.ansatz, s.right.ansatz, max_bond=16, **bonds)
    assert all(np.isfinite(found))
    assert min(found) >= 0


# --- errors


def test_what_makes_no_sense_is_refused():
    s = setup("mirror")
    for options, text in (
        ({"truncation": "exact"}, "truncation='exact' is not known; use one of svd, gram, random"),
        ({"max_bond": 0}, "max_bond=0 must be a whole number"),
        ({"cutoff": 1.0}, r"cutoff=1.0 must be a number from 0 on, below 1"),
        ({"inner": 0}, "inner=0 must be a whole number"),
        ({"dtype": "float16"}, "dtype='float16' is not known"),
    ):
        with pytest.raises(ValueError, match=text):
            engine_of("mirror", **options)
    engine = engine_of("mirror")
    with pytest.raises(ValueError, match="max_bond=-1 must be a whole number"):
        engine.set_max_bond(-1)
    with pytest.raises(ValueError, match="direction='left' is not known; use 'up' or 'down'"):
        engine.half_sweep("left", {})
    with pytest.raises(ValueError, match=r"^1 gates were given for 14 placements \(left\)$"):
        engine.set(left=s.left.gates[:1])
    with pytest.raises(ValueError, match=r"^the target is \(4, 8\), its legs span \(64, 64\)$"):
        BoundaryEnvironments(np.ones((4, 8)), s.legs, s.left.ansatz, s.right.ansatz)
