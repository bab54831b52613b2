"""Vectors read from counts: unbiased, of the right sign, and as good as they should be."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit
from qiskit.quantum_info import Statevector

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.quantum import (
    Hypercube,
    Interference,
    Measurement,
    ShotRunner,
    Tomography,
    count_circuits,
    count_shots,
    invert_counts,
    run_circuit,
    sample_readout,
)
from mpodis.quantum.readout import (
    BASES,
    find_readout,
    linear_estimate,
    outcome_probabilities,
    pauli_probabilities,
)

READOUTS = [Interference(4000), Tomography(200), Hypercube(2000)]
every_readout = pytest.mark.parametrize("readout", READOUTS, ids=lambda r: type(r).__name__)


def vectors(count, n, complex_=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2**n))
    if complex_:
        x = x + 1j * rng.normal(size=x.shape)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def infidelity(readout, states, seed=0):
    found = sample_readout(readout, states, seed)
    return 1 - np.abs((found.conj() * states).sum(1)) ** 2


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_tomography_of_exact_frequencies_is_the_state(n, complex_):
    (state,) = vectors(1, n, complex_)
    rho = np.outer(state, state.conj())
    table = outcome_probabilities(Tomography().measurements(n)[0], state)
    assert_allclose(invert_counts(table.reshape((3,) * n + (2,) * n)), rho, atol=1e-14)
    assert_allclose(pauli_probabilities(rho).reshape(table.shape), table, atol=1e-14)


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("complex_", [False, True])
def test_the_probabilities_are_those_of_qiskit(complex_, with_reference):
    (state,) = vectors(1, 2, complex_)
    n, whole = 2, state
    if with_reference:
        n, whole = 3, np.concatenate([np.full(4, 0.5), state]) / 2**0.5
    bases = tuple("".join(one) for one in itertools.product("YZX", repeat=n))[::-2]
    found = outcome_probabilities(Measurement("test", bases, 1, with_reference), state)
    assert len(found) == len(bases)
    for setting, probabilities in zip(bases, found, strict=True):
        circuit = QuantumCircuit(n)
        for wire, basis in enumerate(setting):
            if basis == "Y":
                circuit.sdg(n - 1 - wire)
            if basis != "Z":
                circuit.h(n - 1 - wire)
        expected = Statevector(whole).evolve(circuit).probabilities()
        assert_allclose(probabilities, expected, atol=1e-14)
    assert list(BASES) == ["Z", "X", "Y"]


def test_the_inversion_is_the_least_squares_solution():
    paulis = np.array([[[1, 0], [0, -1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]]])  # Z, X, Y
    effects = {
        (a, b, i, j): np.kron(
            *((np.eye(2) + s * p) / 2 for s, p in ((1 - 2 * i, x), (1 - 2 * j, y)))
        )
        for (a, x), (b, y) in itertools.product(enumerate(paulis), repeat=2)
        for i, j in itertools.product(range(2), repeat=2)
    }
    (state,) = vectors(1, 2, complex_=True)
    probabilities = outcome_probabilities(Tomography().measurements(2)[0], state)
    counts = np.random.default_rng(1).multinomial(500, probabilities).reshape(3, 3, 2, 2)
    rows = [effect.conj().reshape(-1) for effect in effects.values()]  # Tr(effect rho)
    seen = [counts[key] / 500 for key in effects]
    found = np.linalg.lstsq(np.array(rows), np.array(seen), rcond=None)[0].reshape(4, 4)
    assert_allclose(invert_counts(counts / 500), found, atol=1e-12)


@every_readout
def test_the_vector_comes_back_with_its_sign(readout):
    states = vectors(5, 3)
    found = sample_readout(readout, states, 0)
    assert found.dtype == np.float64
    assert_allclose(np.linalg.norm(found, axis=1), 1)
    assert ((found * states).sum(1) > 0.97).all()


@pytest.mark.parametrize("readout", READOUTS[:2], ids=lambda r: type(r).__name__)
def test_complex_vectors_come_back_with_their_phase(readout):
    states = vectors(5, 2, complex_=True)
    found = sample_readout(readout, states, 0)
    assert ((found.conj() * states).sum(1).real > 0.97).all()


def test_the_sign_is_right_a_thousand_times():
    states = vectors(1000, 6)
    found = sample_readout(Interference(2000), states, 0)
    assert ((found * states).sum(1) > 0).all()


def test_interference_is_as_good_as_the_bound():
    """(2^n - 1) / (2 shots) is what the Fisher information of real amplitudes allows for."""
    states = vectors(200, 4)
    for shots in (5_000, 50_000):
        assert_allclose(infidelity(Interference(shots), states).mean(), 15 / 2 / shots, rtol=0.2)


@every_readout
def test_the_infidelity_falls_as_one_over_the_shots(readout):
    states = vectors(40, 3)
    shots = np.array([500, 2_000, 8_000, 32_000])
    means = [infidelity(type(readout)(int(s)), states).mean() for s in shots]
    slope = np.polyfit(np.log(shots), np.log(means), 1)[0]
    assert -1.2 < slope < -0.8


@pytest.mark.parametrize("complex_", [False, True])
def test_the_linear_estimate_has_no_bias_and_the_variance_of_counts(complex_):
    (state,) = vectors(1, 3, complex_)
    (one,) = Interference(400).measurements(3, is_complex=complex_)
    p = outcome_probabilities(one, state)
    assert_allclose(linear_estimate(p, is_complex=complex_), state, atol=1e-14)
    rng = np.random.default_rng(0)
    found = np.array(
        [
            linear_estimate(rng.multinomial(one.shots, p) / one.shots, is_complex=complex_)
            for _ in range(2000)
        ]
    )
    assert_allclose(found.mean(0), state, atol=5 * found.std(0).max() / 2000**0.5)
    # of (n0 - n1) / shots, times 2^(n/2); real and imaginary parts have shots of their own
    halves = p.reshape(len(p), 2, 8)
    total, difference = halves.sum(1), halves[:, 0] - halves[:, 1]
    variance = 8 * (total - difference**2).sum(0) / one.shots
    assert_allclose(found.var(0), variance, rtol=0.2)


@every_readout
@pytest.mark.parametrize("state", [np.eye(8)[3], -np.eye(8)[0], np.full(8, -(8**-0.5))])
def test_zeros_and_vectors_equal_to_the_reference(readout, state):
    found = sample_readout(readout, state[None], 0)[0]
    assert found @ state > 0.98


def test_without_interference_the_sign_is_left_to_chance():
    states = vectors(60, 2)
    for readout in (Tomography(300, sign_shots=0), Hypercube(2000, sign_shots=0)):
        found = sample_readout(readout, states, 0)
        signs = np.sign((found * states).sum(1))
        assert (np.abs((found * states).sum(1)) > 0.9).mean() > 0.9
        assert 0.1 < (signs > 0).mean() < 0.9


def test_settings_and_shots_are_stated():
    assert count_circuits(Interference(100), 6) == 1
    assert count_circuits(Interference(100), 6, is_complex=True) == 2
    assert count_shots(Interference(100), 6, is_complex=True) == 100
    assert count_circuits(Tomography(1024, sign_shots=0), 6) == 729
    assert count_circuits(Tomography(1024), 6) == 730
    assert count_shots(Tomography(1024, sign_shots=5), 6) == 729 * 1024 + 5
    assert count_circuits(Hypercube(50), 6) == 8
    assert count_shots(Hypercube(50, sign_shots=7), 6) == 7 * 50 + 7


def test_a_readout_is_found_by_its_name():
    assert find_readout("tomography", shots=7) == Tomography(7)
    assert find_readout("hypercube") == Hypercube()
    assert find_readout(Interference(3)) == Interference(3)
    with pytest.raises(ValueError, match="readout='guess' is not known; use one of interference"):
        find_readout("guess")
    with pytest.raises(ValueError, match="readout='guess' is not known"):
        ShotRunner("guess")
    assert ShotRunner("hypercube").n_circuits(6) == 8
    with pytest.raises(ValueError, match=r"Interference.* has its own shots; shots=4"):
        find_readout(Interference(3), shots=4)


@every_readout
def test_a_layer_is_read_sample_by_sample(readout):
    circuit = random_circuit(brickwall(3, 2), seed=0)
    x = 3 * np.random.default_rng(1).normal(size=(4, 8))
    x[2] = 0
    runner = ShotRunner(readout, seed=5, threads=1)
    y = run_circuit(circuit, x, runner=runner)
    exact = circuit.apply(x)
    assert_array_equal(y[2], 0)
    for found, wanted in zip(y[[0, 1, 3]], exact[[0, 1, 3]], strict=True):
        assert_allclose(np.linalg.norm(found), np.linalg.norm(wanted))
        assert found @ wanted > 0.95 * (wanted @ wanted)
    # neither the order of the samples nor their number changes a reading
    assert_array_equal(run_circuit(circuit, x[::-1], runner=runner), y[::-1])
    other = run_circuit(circuit, x, runner=ShotRunner(readout, seed=6, threads=1))
    assert (other[0] != y[0]).any()


@pytest.mark.parametrize("shots", [0, -1, 2.5, True])
def test_shots_that_make_no_sense(shots):
    for kind in (Interference, Tomography, Hypercube):
        with pytest.raises(ValueError, match="shots="):
            kind(shots)


def test_the_hypercube_refuses_complex_vectors():
    with pytest.raises(ValueError, match="use Tomography or Interference"):
        sample_readout(Hypercube(), vectors(1, 2, complex_=True), 0)
