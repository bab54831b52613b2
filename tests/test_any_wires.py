"""Gates on any wires, on every engine, against dense algebra in plain numpy."""

import logging

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    brickwall,
    circuit_qr,
    compress,
    disentangle,
    engine_estimates,
    synthesise,
    to_mpo,
    true_overlap,
)
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import (
    ENGINES,
    BoundaryEnvironments,
    DenseEnvironments,
    EngineOptions,
    build_engine,
)
from mpodis.environments.routed import RoutedEnvironments
from mpodis.factorization import Factorization
from mpodis.gates import polar_update
from mpodis.sites import mpo_from_tensors
from reference import (
    Setup,
    Twin,
    dense_from_cores,
    embed,
    free,
    inner,
    overlap,
    random_cores,
    random_matrix,
)

TOL = 1e-10


def at(*wires, fixed=None):
    return Placement(wires, fixed)


APART = (
    (at(0, 2), at(1, 3)),
    (at(0, 1), at(2, 3)),
    (at(2, 0), at(3, 1, fixed="CNOT")),
    (at(0, 3, 1),),
    (at(0, 2, fixed="CZ"),),
)
CASES = {
    "real": (Ansatz(4, APART, "SO"), brickwall(4, 2)),
    "complex": (Ansatz(4, APART, "U"), Ansatz(4, (APART[2], APART[0]), "U")),
    "fewer outputs": (Ansatz(4, APART, "O"), Ansatz(3, ((at(2, 0), at(1)), (at(0, 2),)), "O")),
}
LEGS = {4: ((2, 2),) * 4, 3: ((2, 1), (2, 2), (2, 2), (2, 2))}
every_engine = pytest.mark.parametrize("name", ENGINES)
every_case = pytest.mark.parametrize("case", CASES)


def setup_of(case):
    left, right = CASES[case]
    is_complex = left.group == "U"
    legs = LEGS[right.n]
    return Setup(
        random_matrix((16, 2**right.n), is_complex, 1),
        legs,
        random_circuit(left, seed=2),
        random_cores(legs, 2, is_complex, 3),
        random_circuit(right, seed=4),
    )


def engine_at(name, s):
    options = EngineOptions(environment_bond=64)
    engine = build_engine(name, s.target, s.legs, s.left.ansatz, s.right.ansatz, options=options)
    engine.set(s.left.gates, s.cores, s.right.gates)
    return engine


@every_engine
@every_case
def test_form_and_environments_are_those_of_the_dense_product(name, case):
    s = setup_of(case)
    engine, dense = engine_at(name, s), Twin(s)
    assert isinstance(engine, RoutedEnvironments) == (not ENGINES[name].any_wires)
    assert (engine.name, engine.exact) == (name, ENGINES[name].exact)
    assert_allclose(engine.inner(), dense.form(), rtol=0, atol=TOL * s.scale)
    found = engine.gradient(0.5)
    assert_allclose(found.inner, dense.form() / 2, rtol=0, atol=TOL * s.scale)
    rng = np.random.default_rng(0)
    for side, circuit in (("left", s.left), ("right", s.right)):
        environments = getattr(found, side)
        assert [j for j, e in enumerate(environments) if e is not None] == free(circuit)
        for gate, again in zip(circuit.gates, getattr(engine, side), strict=True):
            assert_array_equal(again, gate)
        for j in free(circuit):
            shape, wires = circuit.gates[j].shape, circuit.ansatz.placements[j].wires
            x = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            expected = dense.form((side, j), embed(x, wires, circuit.n)) / 2
            size = TOL * s.scale * np.linalg.norm(x)
            assert_allclose(inner(environments[j], x), expected, rtol=0, atol=size)
    for k, site in enumerate(s.cores):
        x = rng.normal(size=site.shape)
        core = dense_from_cores([*s.cores[:k], x, *s.cores[k + 1 :]])
        size = TOL * np.linalg.norm(s.target) * np.linalg.norm(core)
        expected = dense.form(("core", 0), core) / 2
        assert_allclose(inner(found.core[k], x), expected, rtol=0, atol=size)


@every_engine
@every_case
def test_sweeps_update_gates_and_core_and_never_lower_the_overlap(name, case):
    s = setup_of(case)
    engine = engine_at(name, s)

    def update(environment, gate):
        return polar_update(environment, gate, group="U" if gate.dtype.kind == "c" else "O")

    before = engine.inner() / np.linalg.norm(dense_from_cores(s.cores))
    for core in (False, True):
        engine.sweep({"left": update, "right": update}, core=core)
        after = engine.inner() / np.linalg.norm(dense_from_cores(engine.core))
        assert after > before
        before = after
    dense = Twin(s, engine)  # of the gates that the engine shows
    assert_allclose(engine.inner(), dense.form(), rtol=0, atol=TOL * s.scale)
    for side, circuit in (("left", s.left), ("right", s.right)):
        for j, (old, new) in enumerate(zip(circuit.gates, getattr(engine, side), strict=True)):
            assert np.array_equal(old, new) == (j not in free(circuit))
            assert_allclose(new.conj().T @ new, np.eye(len(new)), atol=1e-12)


@every_engine
def test_what_an_engine_pulls_out_of_the_circuits(name):
    s = setup_of("complex")
    engine = engine_at(name, s)
    pulled = dense_from_cores(engine.pulled_tensors(64))
    assert_allclose(pulled, s.pulled, atol=1e-10 * np.linalg.norm(s.pulled))
    fitted = dense_from_cores(engine.fitted_core())
    assert overlap(s.pulled, fitted) >= overlap(s.pulled, dense_from_cores(s.cores)) - TOL


def test_an_engine_of_dense_operators_stays_one():
    s = setup_of("real")
    engine = engine_at("dense", s)
    size = np.linalg.norm(s.target)
    assert engine.holds_dense
    assert_allclose(engine.pulled(), s.pulled, atol=1e-12 * size)
    assert_allclose(engine.dense(), Twin(s).matrix, atol=1e-12 * s.scale)
    other = Setup(random_matrix((16, 16), seed=9), s.legs, s.left, s.cores, s.right)
    found = engine.gradient_towards(engine.dense(), other.target)
    for a, b in zip(found.left, engine_at("dense", other).gradient().left, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert_allclose(a, b, atol=1e-10 * s.scale)
    boundary = engine_at("boundary", s)
    with pytest.raises(TypeError, match="engine 'boundary' does not work with dense operators"):
        boundary.dense()
    boundary.set_max_bond(8)
    assert boundary.max_bond == 8


@pytest.mark.parametrize("kind", [DenseEnvironments, BoundaryEnvironments])
def test_engines_of_neighbouring_wires_say_so(kind):
    s = setup_of("real")
    with pytest.raises(ValueError, match=r"the left ansatz .* has gates on .*use `build_engine`"):
        kind(s.target, s.legs, s.left.ansatz, s.right.ansatz)


RUNS = [*((engine, "overlap") for engine in (*ENGINES, "auto")), ("dense", "activations")]


@pytest.mark.parametrize(("engine", "objective"), RUNS)
def test_disentangle_finds_a_hidden_circuit_on_every_engine(engine, objective, caplog):
    layers = ((at(0, 2), at(1, 3)), (at(3, 0), at(1, 2)))
    left = Ansatz(4, layers)
    hidden = random_circuit(left, seed=0)
    matrix = hidden.to_dense() @ dense_from_cores(random_cores(((2, 2),) * 4, 1, seed=1))
    inputs = random_matrix((200, 16), seed=5) if objective == "activations" else None
    with caplog.at_level(logging.INFO, logger="mpodis"):
        found = disentangle(
            compress(matrix),
            left=left,
            right=Ansatz(4, ()),
            objective=objective,
            inputs=inputs,
            engine=engine,
            n_init=4,
            max_sweeps=200,
            seed=0,
        )
    assert found.factorization.left.ansatz == left
    assert overlap(matrix, found.factorization.to_dense()) > 1 - 1e-4
    if engine in ("dense", "boundary"):  # back and forth, but for two pairs that cancel
        assert "take 6 SWAPs" in caplog.text


def test_synthesis_and_circuit_qr_take_gates_on_any_wires():
    ansatz = Ansatz(4, ((at(0, 2), at(3, 1)), (at(0, 1, fixed="CNOT"), at(3, 2))))
    hidden = random_circuit(ansatz, seed=0).to_dense()
    found = synthesise(hidden, ansatz, seed=0)
    assert found.circuit.ansatz == ansatz
    assert overlap(hidden, found.circuit.to_dense()) > 1 - 1e-8
    triangle = np.triu(random_matrix((16, 16), seed=1))
    factors = circuit_qr(hidden @ triangle, ansatz, n_init=8, tol=1e-8, seed=0)
    assert factors.left.ansatz == ansatz
    assert_allclose(factors.to_dense(), hidden @ triangle, atol=1e-2 * np.linalg.norm(triangle))


def test_estimates_count_the_swaps_and_the_true_overlap_is_exact():
    left, right = CASES["real"]
    mpo = compress(random_matrix((16, 16))).mpo
    apart = engine_estimates(mpo, left=left, right=right)
    assert {row[0] for row in apart.rows} >= {"dense", "transverse", "boundary"}
    circuits = random_circuit(left, seed=0), random_circuit(right, seed=1)
    core = mpo_from_tensors(random_cores(((2, 2),) * 4, 2))
    whole = Factorization(circuits[0], core, circuits[1], (16, 16))
    expected = overlap(mpo.to_dense(), whole.to_dense())
    assert_allclose(true_overlap(whole, mpo).value, expected, atol=1e-12)
    assert_allclose(to_mpo(whole).to_dense(), whole.to_dense(), atol=1e-10)


def test_the_true_overlap_of_many_wires_takes_the_circuits_as_they_are():
    n = 10
    layers = (
        tuple(at(k + 2, k) for k in (0, 1, 4, 5)),
        tuple(at(k + 1, k) for k in range(0, n, 2)),
    )
    circuit = random_circuit(Ansatz(n, layers), seed=0)
    core = mpo_from_tensors(random_cores(((2, 2),) * n, 1))
    whole = Factorization(circuit, core, circuit, (2**n, 2**n))
    found = true_overlap(whole, to_mpo(whole))
    assert found.method == "transverse"
    assert_allclose(found.value, 1, atol=1e-8)
