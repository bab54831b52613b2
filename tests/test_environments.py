"""Environment engines against dense numpy: forms, environments, sweeps and fitted cores."""

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.ansatz import Ansatz, Placement, brickwall, from_spec, staircase
from mpodis.circuit import Circuit, identity_circuit, random_circuit
from mpodis.conventions import padded_shape, qubit_legs
from mpodis.environments import ENGINES, DenseEnvironments, TreeEnvironments
from mpodis.environments import dense as dense_module
from mpodis.environments import tree as tree_module
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
# path searches take time: the tree engine leaves the largest networks to the dense one
SMALL = [str(c) for c in CASES if max(c.bits) < 6 or len(c.layers) == 1 or c.shape == (10, 64)]
BOTH = [*SMALL, *EXTRA]


@cache
def _engine(name, kind):
    s = setup(name)
    return ENGINES[kind](s.target, s.legs, s.left.ansatz, s.right.ansatz)


def engine_at(name, kind):
    """The engine of a setup, put at the setup's gates; it keeps its paths between the tests."""
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


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", BOTH)
def test_inner_is_the_form_of_the_dense_product(name, kind):
    s = setup(name)
    h = inner(s.target, twin(name).matrix())
    assert_allclose(engine_at(name, kind).inner(), h, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("name", BOTH)
def test_pulled_takes_both_circuits_off_the_target(name, kind):
    s = setup(name)
    left, right = circuit_matrix(s.left), circuit_matrix(s.right)
    expected = left.conj().T @ s.target @ right.conj().T
    pulled = engine_at(name, kind).pulled()
    assert_allclose(pulled, expected, rtol=0, atol=TOL * np.linalg.norm(s.target))


@pytest.mark.parametrize("name", ALL)
def test_environments_are_the_derivatives_of_the_form(name):
    s, dense = setup(name), twin(name)
    found = engine_at(name, "dense").gradient()
    h = inner(s.target, dense.matrix())
    assert_allclose(found.inner, h, rtol=0, atol=TOL * s.scale)
    rng = np.random.default_rng(0)
    for side, circuit in (("left", s.left), ("right", s.right)):
        environments = getattr(found, side)
        assert [j for j, e in enumerate(environments) if e is not None] == free(circuit)
        for j in free(circuit):
            # the form is linear in a gate: Re Tr(E^H x) is its value with x in the gate's place
            shape, wires = circuit.gates[j].shape, circuit.ansatz.placements[j].wires
            move = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            for x in (circuit.gates[j], move):
                expected = dense.form((side, j), embed(x, wires, circuit.n))
                size = TOL * s.scale * max(1, np.linalg.norm(x))
                assert_allclose(inner(environments[j], x), expected, rtol=0, atol=size)
    for k, site in enumerate(s.cores):
        move = rng.normal(size=site.shape) + 1j * rng.normal(size=site.shape)
        for x in (site, move):
            cores = [*s.cores[:k], x, *s.cores[k + 1 :]]
            core = dense_from_cores(cores)
            size = TOL * np.linalg.norm(s.target) * np.linalg.norm(core)
            assert_allclose(
                inner(found.core[k], x), dense.form(("core", 0), core), rtol=0, atol=size
            )


@pytest.mark.parametrize("name", BOTH)
def test_dense_and_tree_agree_on_every_environment(name):
    s = setup(name)
    dense, tree = (engine_at(name, kind).gradient() for kind in ("dense", "tree"))
    assert_allclose(tree.inner, dense.inner, rtol=0, atol=TOL * s.scale)
    for part in ("left", "right", "core"):
        pairs = zip(getattr(dense, part), getattr(tree, part), strict=True)
        for a, b in pairs:
            assert (a is None) == (b is None)
            if a is not None:
                assert_allclose(b, a, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_sweep_offers_each_gate_the_newest_others(name, side):
    s = setup(name)
    circuit = getattr(s, side)
    order = free(circuit) if side == "left" else free(circuit)[::-1]
    new = [random_member(g.shape[0], "SO", (9, j)) for j, g in enumerate(circuit.gates)]
    offered = {}
    for kind in ENGINES:
        engine = engine_at(name, kind)
        seen, queue = [], iter(order)

        def update(environment, gate, seen=seen, queue=queue):
            j = next(queue)
            assert_array_equal(gate, circuit.gates[j])  # outermost first
            seen.append((environment, gate, new[j]))
            return new[j]

        engine.sweep(side, update)
        assert len(seen) == len(order)
        offered[kind] = seen
        # h after one update is h before the next: every environment knows the newest gates
        h = inner(s.target, twin(name).matrix())
        for environment, old, put in seen:
            assert_allclose(inner(environment, old), h, rtol=0, atol=TOL * s.scale)
            h = inner(environment, put)
        for j in order:
            assert_array_equal(getattr(engine, side)[j], new[j])
        assert_allclose(engine.inner(), h, rtol=0, atol=TOL * s.scale)
        gates = {side: getattr(engine, side)}
        after = inner(s.target, Twin(s, **gates).matrix())
        assert_allclose(h, after, rtol=0, atol=TOL * s.scale)
    for (a, _, _), (b, _, _) in zip(offered["dense"], offered["tree"], strict=True):
        assert_allclose(b, a, rtol=0, atol=TOL * s.scale)


@pytest.mark.parametrize("name", ALL)
def test_polar_sweeps_never_lower_the_form(name):
    s = setup(name)
    engine = engine_at(name, "dense")
    before = engine.inner()
    for side, circuit in (("left", s.left), ("right", s.right)):
        # Haar-random gates of a real group may not be in SO; O holds them all
        group = "U" if circuit.is_complex else "O"

        def update(environment, gate, group=group):
            return polar(environment if group == "U" else environment.real, group=group)

        engine.sweep(side, update)
        after = engine.inner()
        assert after >= before - TOL * s.scale
        before = after


@pytest.mark.parametrize("name", BOTH)
def test_both_engines_fit_the_same_core_and_never_lower_the_overlap(name):
    s = setup(name)
    pulled = engine_at(name, "dense").pulled()
    fits = {}
    for kind in ENGINES:
        engine = engine_at(name, kind)
        core = engine.fitted_core()
        for kept, given in zip(engine.core, s.cores, strict=True):
            assert_array_equal(kept, given)
        fits[kind] = dense_from_cores(core)
        assert fits[kind].shape == s.target.shape
        assert [c.shape[1:3] for c in core] == [c.shape[1:3] for c in s.cores]
    assert_allclose(fits["tree"], fits["dense"], rtol=0, atol=1e-10 * np.linalg.norm(pulled))
    before = overlap(pulled, dense_from_cores(s.cores))
    assert overlap(pulled, fits["dense"]) >= before - TOL
    # the best core given all sites but one: what is missing is orthogonal to it
    off = pulled - fits["dense"]
    assert_allclose(inner(fits["dense"], off), 0, rtol=0, atol=1e-10 * np.linalg.norm(pulled) ** 2)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("group", ["SO", "U"])
def test_a_core_that_is_large_enough_is_fitted_exactly(kind, group):
    legs = qubit_legs(8, 4)
    target = random_matrix((8, 4), group == "U", 1)
    left, right = (random_circuit(brickwall(n, 2, group=group), seed=n) for n in (3, 2))
    engine = ENGINES[kind](target, legs, left.ansatz, right.ansatz)
    engine.set(left.gates, random_cores(legs, 4, group == "U", 2), right.gates)
    expected = circuit_matrix(left).conj().T @ target @ circuit_matrix(right).conj().T
    assert_allclose(dense_from_cores(engine.fitted_core()), expected, atol=1e-11)


def test_dense_engine_pulls_other_matrices_and_metrics():
    name = "complex staircase"
    s = setup(name)
    engine = engine_at(name, "dense")
    left, right = circuit_matrix(s.left), circuit_matrix(s.right)
    other = random_matrix(s.target.shape, True, 3)
    assert_allclose(engine.pulled(other), left.conj().T @ other @ right.conj().T, atol=1e-12)
    metric = other @ other.conj().T
    expected = left.conj().T @ metric @ left
    assert_allclose(engine.pulled_metric(metric), expected, atol=1e-11)
    assert_allclose(engine.dense(), twin(name).matrix(), rtol=0, atol=TOL * s.scale)


def test_dense_gradient_towards_another_target_is_that_of_its_own_engine():
    s = setup("staircases")
    engine = engine_at("staircases", "dense")
    other = random_matrix(s.target.shape, False, 4)
    found = engine.gradient_towards(engine.dense(), other)
    own = DenseEnvironments(other, s.legs, s.left.ansatz, s.right.ansatz)
    own.set(s.left.gates, s.cores, s.right.gates)
    expected = own.gradient()
    assert found.inner == expected.inner
    for part in ("left", "right", "core"):
        for a, b in zip(getattr(found, part), getattr(expected, part), strict=True):
            assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ENGINES)
def test_a_target_may_be_dense_or_cores(kind):
    s = setup("16x6")
    engines = [
        ENGINES[kind](target, s.legs, s.left.ansatz, s.right.ansatz)
        for target in (s.target, mpo_cores(compress(s.target, legs=s.legs).mpo))
    ]
    values = []
    for engine in engines:
        engine.set(s.left.gates, s.cores, s.right.gates)
        values.append(engine.inner())
    assert_allclose(*values, rtol=0, atol=TOL * s.scale)


def test_tree_engine_searches_each_path_once(monkeypatch):
    s = setup("8x1")
    searched = []
    search = TreeEnvironments._search

    def counting(self, *args):
        searched.append(args)
        return search(self, *args)

    monkeypatch.setattr(TreeEnvironments, "_search", counting)
    tree = TreeEnvironments(s.target, s.legs, s.left.ansatz, s.right.ansatz)
    tree.set(s.left.gates, s.cores, s.right.gates)
    tree.sweep("left", lambda environment, gate: gate)
    assert len(searched) == len(free(s.left))
    tree.sweep("left", lambda environment, gate: gate)
    assert len(searched) == len(free(s.left))
    # another bond dimension is another network
    tree.set(s.left.gates, random_cores(s.legs, 2, False, 1), s.right.gates)
    first = tree.inner()
    dense = engine_at("8x1", "dense")
    dense.set(s.left.gates, random_cores(s.legs, 2, False, 1), s.right.gates)
    assert_allclose(first, dense.inner(), atol=1e-12)
    assert len(searched) == len(free(s.left)) + 1


def test_tree_engine_reaches_many_sites():
    n = 20
    legs = ((2, 2),) * n
    target, core = random_cores(legs, 3, seed=1), random_cores(legs, 2, seed=2)
    ansatz = brickwall(n, 1)
    left, right = (random_circuit(ansatz, seed=s) for s in (3, 4))
    tree = TreeEnvironments([c / 3 for c in target], legs, ansatz, ansatz)
    tree.set(left.gates, [c / 3 for c in core], right.gates)
    # one layer of bricks acts on pairs of sites: a product of transfer matrices of pairs
    block = np.ones((1, 1))
    for k in range(0, n, 2):
        g, t = (
            np.einsum("aiob,bjpc->aijopc", x[k] / 3, x[k + 1] / 3).reshape(
                x[k].shape[0], 4, 4, x[k + 1].shape[3]
            )
            for x in (target, core)
        )
        t = np.einsum("ij,ajkb,kl->ailb", left.gates[k // 2], t, right.gates[k // 2])
        block = np.einsum("xy,xiou,yiov->uv", block, g, t)
    h = float(block[0, 0])
    assert_allclose(tree.inner(), h, rtol=1e-11)
    environment = []
    tree.sweep("left", lambda e, gate: environment.append(inner(e, gate)) or gate)
    assert_allclose(environment, np.full(n // 2, h), rtol=1e-11)


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_an_ansatz_of_the_wrong_size_is_refused(kind, side):
    legs = qubit_legs(8, 4)
    ansatze = {"left": brickwall(3, 1), "right": brickwall(2, 1)} | {side: brickwall(4, 1)}
    n = {"left": 3, "right": 2}[side]
    with pytest.raises(ValueError, match=f"^the {side} ansatz has 4 wires, the operator {n}$"):
        ENGINES[kind](np.ones((8, 4)), legs, **ansatze)


@pytest.mark.parametrize("kind", ENGINES)
def test_legs_that_are_no_qubits_are_refused(kind):
    with pytest.raises(ValueError, match="circuits act on qubits, so compress with the default"):
        ENGINES[kind](np.ones((6, 4)), ((3, 2), (2, 2)), brickwall(2, 1), brickwall(2, 1))


def test_dense_engine_refuses_what_it_cannot_hold(monkeypatch):
    wide = brickwall(14, 1)
    with pytest.raises(ValueError, match="16384 x 16384 matrices, beyond 8192; use engine='tree'"):
        DenseEnvironments([], ((2, 2),) * 14, wide, wide)
    with pytest.raises(ValueError, match=r"^the target is \(4, 8\), its legs span \(8, 4\)$"):
        DenseEnvironments(np.ones((4, 8)), qubit_legs(8, 4), brickwall(3, 1), brickwall(2, 1))
    monkeypatch.setattr(dense_module, "LIMIT", 4)
    with pytest.raises(ValueError, match="8 x 4 matrices, beyond 4"):
        DenseEnvironments(np.ones((8, 4)), qubit_legs(8, 4), brickwall(3, 1), brickwall(2, 1))


def test_tree_engine_refuses_what_it_cannot_contract(monkeypatch):
    legs = ((2, 2),) * 4
    ansatz = brickwall(4, 2)
    cores = random_cores(legs, 2, seed=1)
    with pytest.raises(ValueError, match=r"^the target has legs .* expected"):
        TreeEnvironments(cores[:3], legs, ansatz, ansatz)
    monkeypatch.setattr(tree_module, "LIMIT", 2**3)
    tree = TreeEnvironments(cores, legs, ansatz, ansatz)
    circuit = identity_circuit(ansatz)
    tree.set(circuit.gates, cores, circuit.gates)
    with pytest.raises(ValueError, match="beyond 8; use fewer layers or sites, or engine='dense'"):
        tree.inner()
