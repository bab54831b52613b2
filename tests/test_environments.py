"""All four engines against dense numpy: forms, environments, sweeps and fitted cores."""

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.ansatz import Ansatz, Placement, brickwall, from_spec, staircase
from mpodis.circuit import Circuit, random_circuit
from mpodis.conventions import padded_shape, qubit_legs
from mpodis.cores import als_core
from mpodis.environments import ENGINES
from mpodis.gates import polar
from mpodis.mpo import compress
from mpodis.sites import mpo_cores
from reference import (
    CASES,
    circuit_matrix,
    dense_from_cores,
    embed,
    overlap,
    problem,
    random_cores,
    random_matrix,
    random_member,
)

TOL = 1e-12
EXACT = 4096  # a bond dimension at which the boundary engine truncates nothing here


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


def _gate(*wires, fixed=None):
    return Placement(wires, fixed)


HOLES = Ansatz(4, ((_gate(1, 2),), (_gate(1), _gate(2, 3, fixed="CNOT"))), "SO")
# shape, left and right ansatz, bond of the core, complex target and core
EXTRA = {
    "idle wires": ((16, 16), HOLES, Ansatz(4, ((_gate(0),),), "O"), 2, False),
    "no gates": ((8, 8), Ansatz(3, ()), brickwall(3, 1), 1, False),
    "staircases": ((16, 16), staircase(4, 2), staircase(4, 1, 3), 3, False),
    "complex staircase": ((32, 32), staircase(5, 1, 3, group="U"), brickwall(5, 1), 2, True),
    "16x6": ((16, 6), brickwall(4, 2, group="O"), brickwall(3, 2, 3, group="O"), 3, False),
    "8x1": ((8, 1), brickwall(3, 2), Ansatz(0, ()), 3, False),
    "real gates, complex operator": ((8, 16), brickwall(3, 2), brickwall(4, 1), 2, True),
    "four-body": ((16, 16), brickwall(4, 1, 4, group="U"), from_spec("1b + CNOT", 4), 1, True),
}


@cache
def setup(name) -> Setup:
    if name in EXTRA:
        shape, left, right, bond, is_complex = EXTRA[name]
        legs = qubit_legs(*shape)
        return Setup(
            random_matrix(padded_shape(legs), is_complex, 5),
            legs,
            random_circuit(left, seed=6),
            random_cores(legs, bond, is_complex, 7),
            random_circuit(right, seed=8),
        )
    number = NAMES.index(name)
    case = CASES[number]
    target, left, cores, right = problem(case, bond=1 + number % 3)
    return Setup(target, case.legs, left, cores, right)


NAMES = [str(case) for case in CASES]
ALL = [*NAMES, *EXTRA]


def build(kind, target, legs, left, right):
    options = {"max_bond": EXACT} if kind == "boundary" else {}
    return ENGINES[kind](target, legs, left, right, **options)


@cache
def _engine(name, kind):
    s = setup(name)
    return build(kind, s.target, s.legs, s.left.ansatz, s.right.ansatz)


def engine_at(name, kind):
    """The engine of a setup, put at the setup's gates; it keeps its plans between the tests."""
    s = setup(name)
    engine = _engine(name, kind)
    engine.set(s.left.gates, s.cores, s.right.gates)
    return engine


class Twin:
    """h = Re Tr(G^H A) as a function of any one factor of A, in dense numpy."""

    def __init__(self, s: Setup, left=None, right=None):
        self.s = s
        self.slots, self.factors = [], []
        for j, gate in enumerate(s.left.gates if left is None else left):
            self._add(("left", j), gate, s.left.ansatz.placements[j], s.left.n)
        self.slots.append(("core", 0))
        self.factors.append(dense_from_cores(s.cores))
        for j, gate in enumerate(s.right.gates if right is None else right):
            self._add(("right", j), gate, s.right.ansatz.placements[j], s.right.n)

    def _add(self, slot, gate, place, n):
        self.slots.append(slot)
        self.factors.append(embed(gate, place.wires, n))

    def matrix(self):
        return reduce(np.matmul, self.factors)

    def form(self, slot, factor):
        """h with the embedded factor in a slot."""
        k = self.slots.index(slot)
        factors = [*self.factors[:k], factor, *self.factors[k + 1 :]]
        return float(np.vdot(self.s.target, reduce(np.matmul, factors)).real)


@cache
def twin(name):
    return Twin(setup(name))


def inner(a, b):
    """Re Tr(a^H b)."""
    return float(np.vdot(a, b).real)


def free(circuit):
    return [j for j, place in enumerate(circuit.ansatz.placements) if place.fixed is None]


every_engine = pytest.mark.parametrize("kind", ENGINES)
every_case = pytest.mark.parametrize("name", ALL)


@every_engine
@every_case
def test_inner_is_the_form_of_the_dense_product(name, kind):
    s = setup(name)
    h = inner(s.target, twin(name).matrix())
    assert_allclose(engine_at(name, kind).inner(), h, rtol=0, atol=TOL * s.scale)


@every_engine
@every_case
def test_environments_are_the_derivatives_of_the_form(name, kind):
    s, dense = setup(name), twin(name)
    found = engine_at(name, kind).gradient()
    h = inner(s.target, dense.matrix())
    assert_allclose(found.inner, h, rtol=0, atol=TOL * s.scale)
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
    seen, h = [], [inner(s.target, twin(name).matrix())]

    def update(environment, gate):
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
    for kept, given in zip(engine.core, s.cores, strict=True):
        assert_array_equal(kept, given)
    assert_allclose(engine.inner(), h[-1], rtol=0, atol=TOL * s.scale)
    after = inner(s.target, Twin(s, left=engine.left, right=engine.right).matrix())
    assert_allclose(h[-1], after, rtol=0, atol=TOL * s.scale)


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
    before = inner(s.target, twin(name).matrix()) / np.linalg.norm(dense_from_cores(s.cores))
    for core in (False, True, True):
        engine.sweep(updates, core=core)
        after = engine.inner() / np.linalg.norm(dense_from_cores(engine.core))
        assert after >= before - TOL * np.linalg.norm(s.target)
        before = after
    now = Setup(s.target, s.legs, s.left, engine.core, s.right)
    dense = inner(s.target, Twin(now, left=engine.left, right=engine.right).matrix())
    assert_allclose(engine.inner(), dense, rtol=0, atol=TOL * s.scale)


@every_engine
@every_case
def test_every_engine_fits_the_core_of_the_dense_als(name, kind):
    s = setup(name)
    left, right = circuit_matrix(s.left), circuit_matrix(s.right)
    pulled = left.conj().T @ s.target @ right.conj().T
    engine = engine_at(name, kind)
    fitted = dense_from_cores(engine.fitted_core())
    for kept, given in zip(engine.core, s.cores, strict=True):
        assert_array_equal(kept, given)
    expected = dense_from_cores(als_core(pulled, s.cores))
    assert_allclose(fitted, expected, rtol=0, atol=1e-10 * np.linalg.norm(pulled))
    assert overlap(pulled, fitted) >= overlap(pulled, dense_from_cores(s.cores)) - TOL


@every_engine
@pytest.mark.parametrize("group", ["SO", "U"])
def test_a_core_that_is_large_enough_is_fitted_exactly(kind, group):
    legs = qubit_legs(8, 4)
    target = random_matrix((8, 4), group == "U", 1)
    left, right = (random_circuit(brickwall(n, 2, group=group), seed=n) for n in (3, 2))
    engine = build(kind, target, legs, left.ansatz, right.ansatz)
    engine.set(left.gates, random_cores(legs, 4, group == "U", 2), right.gates)
    expected = circuit_matrix(left).conj().T @ target @ circuit_matrix(right).conj().T
    assert_allclose(dense_from_cores(engine.fitted_core()), expected, atol=1e-11)


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
        expected = build(kind, s.target, s.legs, s.left.ansatz, s.right.ansatz)
        expected.set(engine.left, engine.core, engine.right)
        assert engine.inner() == pytest.approx(expected.inner(), abs=TOL * s.scale)
    assert all(a is b for a, b in zip(engine.core, cores, strict=True))


@every_engine
def test_a_sweep_is_a_function_of_gates_and_core_alone(kind):
    """What makes a run that is resumed go on as it would have, bit by bit."""
    name = "64x64-U-3+3-1"
    s = setup(name)
    updates = dict.fromkeys(("left", "right"), lambda e, g: polar(e, group="U"))
    going_on, again = (build(kind, s.target, s.legs, s.left.ansatz, s.right.ansatz) for _ in "ab")
    going_on.set(s.left.gates, s.cores, s.right.gates)
    for _ in range(3):
        going_on.sweep(updates, core=True)
        copies = [
            [x.copy() for x in part] for part in (going_on.left, going_on.core, going_on.right)
        ]
    going_on.sweep(updates, core=True)
    again.set(*copies)
    again.sweep(updates, core=True)
    for part in ("left", "core", "right"):
        for a, b in zip(getattr(going_on, part), getattr(again, part), strict=True):
            assert_array_equal(a, b)


@every_engine
def test_a_target_may_be_dense_or_cores(kind):
    s = setup("16x6")
    engines = [
        build(kind, target, s.legs, s.left.ansatz, s.right.ansatz)
        for target in (s.target, mpo_cores(compress(s.target, legs=s.legs).mpo))
    ]
    values = []
    for engine in engines:
        engine.set(s.left.gates, s.cores, s.right.gates)
        values.append(engine.inner())
    assert_allclose(*values, rtol=0, atol=TOL * s.scale)


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
