"""The dense engine: tiles, buffers, devices and precisions against dense numpy.

What it shares with the other engines is in test_environments.py.
"""

import itertools
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import identity_circuit, random_circuit
from mpodis.conventions import qubit_legs
from mpodis.environments.dense import engine as dense_module
from mpodis.environments.dense import plan as plan_module
from mpodis.environments.dense import products
from mpodis.environments.dense.engine import DenseEnvironments, sweep_cost
from mpodis.environments.dense.plan import innermost, plan_tiles, remaining_regions
from mpodis.environments.dense.products import GateSweep
from mpodis.gates import polar
from reference import (
    ALL,
    LARGE,
    TOL,
    Twin,
    circuit_matrix,
    dense_from_cores,
    embed,
    free,
    inner,
    random_cores,
    random_matrix,
    random_member,
    setup,
    twin,
)

# all groups, fixed and wide gates, either side the larger, sides without gates or wires; 5 to 7
# wires have several tiles
SOME = (
    "64x64-U-3+3-1",
    "48x64-U-CNOT+2+CNOT+1-0",
    "10x64-SO-3+3+3-0",
    "1x5-U-1+CNOT+1-0",
    "idle wires",
    "no gates at all",
    "fixed gates",
    "complex staircase",
    "16x6",
    "8x1",
    "mixed",
    *LARGE,
)
OPTIONS = {
    "auto": {},
    **{f"tile {k}": {"tile": k} for k in (0, 2, 3, 4, 5)},
    "torch": {"tile": 3, "device": "cpu"},
    "torch untiled": {"device": "cpu"},
    "float32": {"tile": 4, "dtype": "float32"},
    "torch float32": {"tile": 4, "device": "cpu", "dtype": "float32"},
}
FEW = {name: OPTIONS[name] for name in ("auto", "tile 3", "torch", "float32")}


@pytest.fixture
def pieces(monkeypatch):
    """Panels of few columns and pieces of few rows, as large matrices have them."""
    monkeypatch.setattr(products, "SLAB", 64)
    monkeypatch.setattr(products, "PANEL", 16)
    monkeypatch.setattr(plan_module, "MIN_PANEL", 4)


def tolerance(options):
    return TOL[options.get("dtype", "float64")]


def close(found, expected, size):
    assert_allclose(found, expected, rtol=0, atol=size)


def engine_of(name, options):
    return setup(name).engine(DenseEnvironments, **options)


# --- forms, environments and sweeps


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("name", SOME)
def test_a_sweep_offers_each_gate_the_environment_of_the_newest_others(name, options):
    check_sweep(name, options)


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("tile", [0, 3, 4])
@pytest.mark.parametrize("name", ["staircases", "16x6", "mixed", "64x64-U-3+3-1", *LARGE])
def test_panels_and_pieces_change_nothing(name, tile):
    check_sweep(name, {"tile": tile})
    check_matrices(name, {"tile": tile})
    check_gradient(name, {"tile": tile})


def check_sweep(name, options):
    s, engine = setup(name), engine_of(name, options)
    size = 10 * tolerance(options) * s.scale
    h = twin(name).form()
    close(engine.inner(), h, size)
    for side, circuit in (("left", s.left), ("right", s.right)):
        seen = []

        def update(environment, gate, circuit=circuit, seen=seen):
            nonlocal h
            assert environment.dtype in (np.float64, np.complex128)
            close(inner(environment, gate), h, size)
            new = random_member(len(gate), circuit.ansatz.group, (9, len(seen)))
            seen.append((gate, new))
            h = inner(environment, new)
            return new

        engine.sweep({side: update})
        # every free gate once
        assert len(seen) == len(free(circuit))
        for j in free(circuit):
            (new,) = [new for old, new in seen if old is circuit.gates[j]]
            assert getattr(engine, side)[j] is new
        close(engine.inner(), h, size)
        engine.set(left=engine.left)  # what the sweep has found is forgotten
        close(engine.inner(), h, size)
    close(h, Twin(s, engine).form(), size)


@pytest.mark.parametrize("options", FEW.values(), ids=FEW)
@pytest.mark.parametrize("name", SOME)
def test_gradients_are_the_derivatives_of_the_form(name, options):
    check_gradient(name, options)


def check_gradient(name, options):
    s, dense = setup(name), twin(name)
    found, size = engine_of(name, options).gradient(), 10 * tolerance(options) * s.scale
    close(found.inner, dense.form(), size)
    rng = np.random.default_rng(0)
    for side, circuit in (("left", s.left), ("right", s.right)):
        environments = getattr(found, side)
        assert [j for j, e in enumerate(environments) if e is not None] == free(circuit)
        for j in free(circuit):
            shape, wires = circuit.gates[j].shape, circuit.ansatz.placements[j].wires
            move = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            expected = dense.form((side, j), embed(move, wires, circuit.n))
            close(inner(environments[j], move), expected, size * np.linalg.norm(move))
    for site, environment in zip(s.cores, found.core, strict=True):
        close(inner(environment, site), found.inner, size)


@pytest.mark.parametrize("options", FEW.values(), ids=FEW)
@pytest.mark.parametrize("name", [*ALL, *LARGE])
def test_matrices_are_those_of_dense_numpy(name, options):
    check_matrices(name, options)


def check_matrices(name, options):
    s, engine, tol = setup(name), engine_of(name, options), 10 * tolerance(options)
    matrix, left, expected = twin(name).matrix, circuit_matrix(s.left), s.pulled
    close(engine.dense(), matrix, tol * np.linalg.norm(matrix))
    size = tol * np.linalg.norm(s.target)
    close(engine.pulled(), expected, size)
    close(engine.pulled(s.target), expected, size)
    metric = s.target @ s.target.conj().T
    close(engine.pulled_metric(metric), left.conj().T @ metric @ left, size**2 / tol)
    engine.fitted_core()
    # the form of another core, from the target that was pulled for the fit
    others = random_cores(s.legs, s.cores[0].shape[3], s.is_complex, 11)
    engine.set(core=others)
    h = inner(expected, dense_from_cores(others))
    close(engine.inner(), h, size * np.linalg.norm(dense_from_cores(others)))


@pytest.mark.parametrize("name", ["staircases", "complex staircase", "mixed", "deep", "wide"])
def test_gradient_towards_another_target_is_that_of_its_own_engine(name):
    s, engine = setup(name), engine_of(name, {})
    before = engine.inner()
    other = random_matrix(s.target.shape, s.is_complex, 4)
    found = engine.gradient_towards(engine.dense(), other)
    expected = replace(s, target=other).engine(DenseEnvironments).gradient()
    close(found.inner, expected.inner, 1e-11 * s.scale)
    for part in ("left", "right", "core"):
        for a, b in zip(getattr(found, part), getattr(expected, part), strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                close(a, b, 1e-11 * s.scale)
    close(engine.inner(), before, 1e-11 * s.scale)


@pytest.mark.parametrize("name", SOME)
def test_polar_sweeps_in_tiles_never_lower_the_form(name):
    s, engine = setup(name), engine_of(name, {"tile": 3})

    def polar_of(circuit):
        # Haar-random gates of a real group may not be in SO; O holds them all
        group = "U" if circuit.is_complex else "O"
        return lambda e, gate: polar(e if group == "U" else e.real, group=group)

    before = engine.inner()
    for _ in range(2):
        engine.sweep({"left": polar_of(s.left), "right": polar_of(s.right)})
        assert engine.inner() >= before - 1e-11 * s.scale
        before = engine.inner()


def test_untiled_sweeps_go_from_the_outermost_gate_inward():
    s = setup("staircases")
    seen = []

    def update(environment, gate):
        seen.append(gate)
        return gate

    engine_of("staircases", {}).sweep({"right": update, "left": update})
    order = [*s.left.gates, *s.right.gates[::-1]]
    assert len(seen) == len(order)
    assert all(a is b for a, b in zip(seen, order, strict=True))


def test_cores_of_other_bonds_and_complex_gates_are_taken_over():
    s, engine = setup("staircases"), engine_of("staircases", {"tile": 3})
    engine.inner()
    for bond, is_complex in ((1, False), (4, True), (2, False)):
        cores = random_cores(s.legs, bond, is_complex, bond)
        engine.set(core=cores)
        h = Twin(replace(s, cores=cores)).form()
        close(engine.inner(), h, 1e-11 * s.scale)
        engine.sweep({"left": lambda e, gate: gate})
        close(engine.inner(), h, 1e-11 * s.scale)


def test_an_update_that_raises_leaves_a_usable_engine():
    s, engine, count = setup("deep"), engine_of("deep", {}), itertools.count()

    def update(environment, gate):
        if next(count) == 5:
            raise KeyboardInterrupt
        return polar(environment)

    with pytest.raises(KeyboardInterrupt):
        engine.sweep({"left": update})
    close(engine.inner(), Twin(s, engine).form(), 1e-11 * s.scale)


def test_gradients_of_few_wires_plan_no_tiles(monkeypatch):
    monkeypatch.setattr(dense_module, "plan_sides", None)
    s, engine = setup("mirror"), engine_of("mirror", {})
    engine.gradient()
    engine.gradient_towards(engine.dense(), s.target)
    engine.pulled_metric(s.target @ s.target.T)
    close(engine.inner(), twin("mirror").form(), 1e-11 * s.scale)
    with pytest.raises(TypeError, match="not callable"):
        engine.sweep({"left": lambda e, gate: gate})


def test_a_sweep_allocates_nothing_large():
    n = 9
    legs = ((2, 2),) * n
    ansatz = brickwall(n, 4)
    circuit = identity_circuit(ansatz)
    engine = DenseEnvironments(random_matrix((2**n, 2**n)), legs, ansatz, ansatz)
    engine.set(circuit.gates, random_cores(legs, 2), circuit.gates)
    updates = dict.fromkeys(("left", "right"), lambda e, gate: polar(e))
    engine.sweep(updates)
    tracemalloc.start()
    engine.sweep(updates)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4**n * 8 / 8


# --- plans


@st.composite
def ansatze(draw):
    n = draw(st.integers(1, 9))
    layers = []
    for _ in range(draw(st.integers(0, 6))):
        layer, wire = [], draw(st.integers(0, 2))
        while wire < n:
            width = min(draw(st.integers(1, 4)), n - wire)
            fixed = "CNOT" if width == 2 and draw(st.booleans()) else None
            layer.append(Placement(tuple(range(wire, wire + width)), fixed))
            wire += width + draw(st.integers(0, 2))
        layers.append(tuple(layer))
    return Ansatz(n, tuple(layers))


@given(ansatze(), st.sampled_from([None, 0, 1, 2, 3, 4, 5]), st.booleans())
def test_plans_cover_every_gate_once_in_topological_order(ansatz, tile, inward):
    places = ansatz.placements
    order = range(len(places)) if inward else range(len(places))[::-1]
    plan = plan_tiles(places, order, ansatz.n, tile)
    walk = [j for t in plan for j in t.gates]
    assert sorted(walk) == list(range(len(places)))
    # on every wire the gates keep their order
    for wire in range(ansatz.n):
        expected = [j for j in order if wire in places[j].wires]
        assert [j for j in walk if wire in places[j].wires] == expected
    for t in plan:
        used = {wire for j in t.gates for wire in places[j].wires}
        assert (min(used), max(used)) == (t.first, t.first + t.width - 1)
        if tile:
            assert t.width <= max(tile, *(place.width for place in places))
        if tile == 0:
            assert len(t.gates) == 1
    for k, t in enumerate(plan):
        later = {wire for one in plan[k + 1 :] for wire in range(one.first, one.first + one.width)}
        assert (k in innermost(plan)) == later.isdisjoint(range(t.first, t.first + t.width))
    left = remaining_regions(plan, places, ansatz.n)
    is_free = [any(places[j].fixed is None for j in t.gates) for t in plan]
    assert len(left) == max((k + 1 for k, f in enumerate(is_free) if f), default=0)
    for k, (first, wires) in enumerate(left):
        for t in plan[k : len(left)]:
            assert first <= t.first
            assert t.first + t.width <= first + wires


def test_plans_of_large_circuits_hold_many_gates_to_a_tile():
    ansatz = brickwall(12, 8)
    places = ansatz.placements
    plan = plan_tiles(places, range(len(places)), 12, None)
    assert len(plan) < len(places) / 3
    assert plan == plan_tiles(places, range(len(places)), 12, None)


# --- estimates


def test_estimates_grow_with_size_depth_and_bond():
    def seconds(n, depth, bond=1, **options):
        ansatz = brickwall(n, depth)
        return sweep_cost(((2, 2),) * n, ansatz, ansatz, core_bonds=bond, **options)

    base = seconds(9, 4)
    assert seconds(10, 4)[0] > 2 * base[0]
    assert seconds(10, 4)[1] > 2 * (base[1] - dense_module.SMALL_ARRAYS)
    assert seconds(9, 8)[0] > 1.5 * base[0]
    assert seconds(9, 4, bond=8)[0] > base[0]
    assert seconds(9, 4, bond=(1,) * 8) == base
    assert seconds(9, 4, complex=True) > base
    assert seconds(9, 4, dtype="float32") < base
    assert seconds(9, 4, tile=0)[0] > base[0]


MEASURE = """
from pathlib import Path
import numpy as np
from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import identity_circuit
from mpodis.fit import full_bonds
from mpodis.environments.dense.engine import DenseEnvironments, sweep_cost
n, bond, is_complex, dtype, tile = {arguments}
legs = ((2, 2),) * n
ansatz = brickwall(n, 3)
bonds = [1, *full_bonds(legs, bond), 1]
core = [np.ones((bonds[k], 2, 2, bonds[k + 1])) for k in range(n)]
gates = identity_circuit(ansatz).gates
warm = np.ones((256, 256)) @ np.ones((256, 256))
def peak():
    # ru_maxrss would start at the peak of the process that has forked this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
before = peak()
target = np.ones((2**n, 2**n), dtype=complex if is_complex else float)
engine = DenseEnvironments(target, legs, ansatz, ansatz, tile=tile, dtype=dtype)
engine.set(gates, core, gates)
for _ in range(2):
    engine.sweep(dict.fromkeys(("left", "right"), lambda e, gate: gate))
    engine.inner()
used = peak() - before
_, expected = sweep_cost(
    legs, ansatz, ansatz, core_bonds=bond, complex=is_complex, dtype=dtype, tile=tile
)
print(used / expected)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's VmHWM")
@pytest.mark.parametrize(
    "arguments",
    [
        (10, 1, False, "float64", None),
        (10, 8, False, "float64", 0),
        (10, 4, True, "float64", None),
        (10, 8, True, "float32", None),
        (11, 4, False, "float32", None),
        (12, 4, False, "float64", None),
    ],
    ids=str,
)
def test_memory_is_what_was_estimated(arguments):
    code = MEASURE.format(arguments=arguments)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.5 < float(run.stdout) < 1.5


# --- errors


def test_what_cannot_be_held_is_refused(monkeypatch):
    wide = brickwall(14, 1)
    message = (
        "^the dense engine would hold 16384 x 16384 matrices, beyond 8192; "
        "use engine='boundary', or 'transverse' for shallow circuits$"
    )
    with pytest.raises(ValueError, match=message):
        DenseEnvironments([], ((2, 2),) * 14, wide, wide)
    monkeypatch.setattr(DenseEnvironments, "limit", 4)
    with pytest.raises(ValueError, match="8 x 4 matrices, beyond 4"):
        DenseEnvironments(np.ones((8, 4)), qubit_legs(8, 4), brickwall(3, 1), brickwall(2, 1))


def test_a_target_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"^the target is \(4, 8\), its legs span \(8, 4\)$"):
        DenseEnvironments(np.ones((4, 8)), qubit_legs(8, 4), brickwall(3, 1), brickwall(2, 1))


def test_unknown_sides_and_tiles_are_refused():
    with pytest.raises(ValueError, match="^there is no side 'middle'; a sweep knows 'left' and"):
        engine_of("16x6", {}).sweep({"middle": lambda e, gate: gate})
    with pytest.raises(ValueError, match="^tile=-1 must be a whole number, 0 or more"):
        engine_of("16x6", {"tile": -1})


def test_a_complex_gate_for_a_real_engine_is_refused():
    engine = engine_of("staircases", {})
    with pytest.raises(TypeError, match="Cannot cast"):
        engine.sweep({"left": lambda e, gate: gate + 0j})


def test_embedding_a_tile_by_hand_gives_its_gates_product():
    ansatz = staircase(5, 1)
    circuit = random_circuit(ansatz, seed=1)
    plan = plan_tiles(ansatz.placements, range(len(circuit.gates)), 5, 3)
    matrix = np.eye(32)
    for tile in plan:
        assert len(tile.gates) > 1
        sweep = GateSweep(tile, ansatz.placements, is_complex=False)
        fused = sweep.run(list(circuit.gates))
        matrix = matrix @ embed(fused, tuple(range(tile.first, tile.first + tile.width)), 5)
    assert_allclose(matrix, circuit_matrix(circuit), atol=1e-12)
