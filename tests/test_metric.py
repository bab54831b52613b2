"""The Gauss-Newton metric of a circuit against dense Jacobians."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mpodis.optimise.metric as module
from mpodis import brickwall, from_spec, random_circuit, staircase, tie_gates
from mpodis.circuit import Ansatz, Circuit, Placement
from mpodis.optimise.metric import CircuitMetric, DecomposedMetric
from reference import circuit_matrix


def at(*wires):
    return Placement(wires)


ANSATZE = {
    "brickwall": brickwall(4, 3, group="U"),
    "odd brickwall": brickwall(5, 4, group="U"),
    "shifted": brickwall(5, 3, parity=1, group="U"),
    "one layer": brickwall(3, 1, group="U"),
    "two wires": brickwall(2, 3, group="U"),
    "one wire": Ansatz(1, ((at(0),), (at(0),)), "U"),
    "staircase": staircase(4, 2, group="U"),
    "gates of one wire": Ansatz(4, ((at(0), at(1, 2)), (at(2, 3), at(1))) * 2, "U"),
    "both parities in a layer": Ansatz(5, ((at(0, 1), at(3, 4)), (at(1, 2), at(3))) * 2, "U"),
    "SO": brickwall(4, 3),
    "O": brickwall(5, 3, group="O"),
    "CNOTs": from_spec("2b + CNOT", 4),
    "complex CNOTs": from_spec("2b + CNOT + 2b", 5, group="U"),
}
every_ansatz = pytest.mark.parametrize("ansatz", ANSATZE.values(), ids=ANSATZE)
both_kinds = pytest.mark.parametrize("on_state", [False, True], ids=["unitary", "state"])


def at_circuit(ansatz, on_state):
    """A random circuit, and the metric at its gates."""
    circuit = random_circuit(ansatz, seed=1, scale=0.4)
    metric = CircuitMetric(ansatz, on_state=on_state)
    metric.set(circuit.gates)
    return circuit, metric


def directions(metric, circuit):
    """The vectors along a single string of a single gate, zero where the gate has no such."""
    count = len(circuit.gates)
    units = np.eye(16 * count).reshape(-1, count, 16)
    return np.array([metric.vector(metric.generators(unit)) for unit in units])


def matrix(metric, circuit):
    """G by its columns."""
    return np.array([metric(unit).ravel() for unit in directions(metric, circuit)]).T


def jacobian(metric, circuit, on_state):
    """How the circuit moves along every direction, (directions, entries).

    Of a state without the part along the state itself, which is its phase.
    """
    layers = (tuple(at(*place.wires) for place in layer) for layer in circuit.ansatz.layers)
    free = Ansatz(circuit.n, tuple(layers), "U")
    whole, rows = circuit_matrix(circuit), []
    for j, unit in enumerate(directions(metric, circuit)):
        gates = [np.asarray(gate, complex) for gate in circuit.gates]
        gates[j // 16] = gates[j // 16] @ metric.generators(unit)[j // 16]
        change = circuit_matrix(Circuit(free, tuple(gates)))
        if on_state:
            rows.append(change[0] - whole[0] * np.vdot(whole[0], change[0]))
        else:
            rows.append(change.ravel() / 2 ** (circuit.n / 2))
    return np.array(rows)


@every_ansatz
@both_kinds
def test_it_is_the_gram_matrix_of_the_jacobian(ansatz, on_state, monkeypatch):
    monkeypatch.setattr(module, "BLOCKS", 4)
    circuit, metric = at_circuit(ansatz, on_state)
    changes = jacobian(metric, circuit, on_state)
    assert_allclose(matrix(metric, circuit), (changes.conj() @ changes.T).real, atol=1e-13)


@both_kinds
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_without_long_strings_it_is_a_gram_matrix_still(blocks, on_state, monkeypatch):
    monkeypatch.setattr(module, "BLOCKS", blocks)
    circuit, metric = at_circuit(brickwall(7, 4, group="U"), on_state)
    found = matrix(metric, circuit)
    assert_allclose(found, found.T, atol=1e-13)
    assert np.linalg.eigvalsh(found)[0] > -1e-13


@every_ansatz
def test_vectors_are_generators(ansatz):
    circuit, metric = at_circuit(ansatz, False)
    units = directions(metric, circuit)
    phases = len(ansatz.free) if ansatz.group == "U" else 0
    assert np.linalg.matrix_rank(units.reshape(len(units), -1)) == ansatz.n_parameters - phases
    vector = np.random.default_rng(0).normal(size=len(units)) @ units.reshape(len(units), -1)
    vector = vector.reshape(-1, 16)
    generators = metric.generators(vector)
    for x, gate, place in zip(generators, circuit.gates, ansatz.placements, strict=True):
        assert x.shape == gate.shape
        assert_allclose(x, -x.conj().T, atol=1e-15)
        assert_allclose(np.trace(x), 0, atol=1e-15)
        if ansatz.group != "U":
            assert_allclose(x.imag, 0, atol=1e-15)
        if place.fixed:
            assert not x.any()
    # an isometry
    assert_allclose(metric.vector(generators), vector, atol=1e-15)
    assert_allclose(sum(np.linalg.norm(x) ** 2 for x in generators), np.sum(vector**2))


@both_kinds
@pytest.mark.parametrize("name", ["brickwall", "SO", "CNOTs"])
def test_it_is_solved(name, on_state):
    circuit, metric = at_circuit(ANSATZE[name], on_state)
    vector = np.random.default_rng(0).normal(size=(len(circuit.gates), 16))
    vector = metric.vector(metric.generators(vector))
    found = metric.solve(vector, 1e-2, rtol=1e-12, max_iterations=2000)
    assert_allclose(metric(found) + 1e-2 * found, vector, atol=1e-10)
    rough = metric.solve(vector, 1e-2)
    assert np.vdot(rough, vector) > 0  # a step along it goes down
    assert np.linalg.norm(metric(rough) + 1e-2 * rough - vector) < np.linalg.norm(vector)


@every_ansatz
@both_kinds
def test_as_a_matrix_it_is_the_same_and_is_solved_exactly(ansatz, on_state, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2**13)  # several chunks
    circuit, metric = at_circuit(ansatz, on_state)
    units = directions(metric, circuit).reshape(-1, 16 * len(circuit.gates))
    free = metric.free.ravel()
    assert_allclose(metric.matrix(), matrix(metric, circuit)[np.ix_(free, free)], atol=1e-13)
    decomposed = DecomposedMetric(metric)
    decomposed.decompose(circuit.gates)
    vector = (np.random.default_rng(0).normal(size=len(units)) @ units).reshape(-1, 16)
    found = decomposed.solve(vector, 1e-3)
    assert_allclose(metric(found) + 1e-3 * found, vector, atol=1e-11)


def test_a_matrix_lasts_while_gates_stay_near_and_stands_again_where_it_stood():
    circuit, metric = at_circuit(ANSATZE["brickwall"], False)
    decomposed = DecomposedMetric(metric)
    assert metric.seconds_of_matrix < 1.0
    assert CircuitMetric(brickwall(50, 8, group="U")).seconds_of_matrix == np.inf
    near = random_circuit(circuit.ansatz, seed=2, scale=1e-3).gates
    near = [gate @ step for gate, step in zip(circuit.gates, near, strict=True)]
    for _ in range(decomposed._settled + 1):
        assert not decomposed.is_decomposed
        decomposed.set(circuit.gates)
    assert decomposed.is_decomposed
    vector = metric.vector([0.1j * (gate + gate.conj().T) for gate in circuit.gates])
    before = decomposed.solve(vector, 1e-2)
    for _ in range(module.LASTS - 1):
        decomposed.set(near)
        assert_array_equal(decomposed.solve(vector, 1e-2), before)
    again = DecomposedMetric(CircuitMetric(circuit.ansatz))
    again.restore(decomposed.standing)
    assert_array_equal(again.solve(vector, 1e-2), before)
    for one in (decomposed, again):
        one.set(near)  # too old
        assert one.origin[0] is near[0]
    assert_array_equal(again.solve(vector, 1e-2), decomposed.solve(vector, 1e-2))
    far = random_circuit(circuit.ansatz, seed=3).gates
    decomposed.set(far)
    assert not decomposed.is_decomposed
    assert_array_equal(decomposed.solve(vector, 1e-2), metric.solve(vector, 1e-2))


@pytest.mark.parametrize(
    "ansatz",
    [
        brickwall(5, 2, 3),
        tie_gates(brickwall(4, 3)),
        Ansatz(4, ((at(0, 2),),)),
        Ansatz(4, ((at(1, 0),),)),
        Ansatz(4, ()),
    ],
    ids=["wide", "tied", "apart", "upside down", "empty"],
)
def test_what_it_does_not_fit_is_refused(ansatz):
    assert not CircuitMetric.fits(ansatz)
    with pytest.raises(ValueError, match="needs gates on one or two neighbouring wires, without"):
        CircuitMetric(ansatz)
