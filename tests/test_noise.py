"""Noisy devices: near the exact vector where the noise is small, with its sign, or an error."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Statevector

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.quantum import BrickwallEncoding, NoisyRunner, TreeEncoding, run_circuit, to_qiskit
from mpodis.quantum.readout import Tomography, outcome_probabilities, pauli_probabilities

DEVICE = GenericBackendV2(4, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=0)
CIRCUIT = random_circuit(brickwall(2, 2), seed=0)


def runner(**options):
    return NoisyRunner(**{"backend": DEVICE, "trials": 1, "threads": 1} | options)


def test_the_vector_and_its_sign_survive_the_noise():
    x = np.random.default_rng(0).normal(size=(6, 4))
    x[4] = 0
    exact = CIRCUIT.apply(x)
    bricks = BrickwallEncoding(2)
    for shots, encoding in ((None, TreeEncoding()), (None, bricks), (2000, bricks)):
        found = run_circuit(CIRCUIT, x, runner=runner(shots=shots, encoding=encoding))
        assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(x, axis=1), atol=1e-12)
        assert ((found * exact).sum(1) >= 0.97 * (exact**2).sum(1)).all()
    assert_array_equal(run_circuit(CIRCUIT, x, runner=runner(shots=2000, encoding=bricks)), found)


def test_bricks_are_nearer_than_the_exact_tree_and_keep_their_qubits():
    circuit = to_qiskit(random_circuit(brickwall(3, 2), seed=2))
    states = np.random.default_rng(3).normal(size=(4, 8))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    exact = np.stack([Statevector(state).evolve(circuit).data.real for state in states])
    tree, bricks = (
        (runner(encoding=encoding).run(circuit, states) * exact).sum(1) ** 2
        for encoding in (TreeEncoding(), BrickwallEncoding(4))
    )
    assert (bricks > tree).mean() > 0.5
    ((jobs,),) = runner(encoding=BrickwallEncoding(4))._transpiler.batches(states, [circuit])
    places = {tuple(job.layout.initial_index_layout(filter_ancillas=True)) for job in jobs}
    assert len(places) == 1
    assert max(job.num_nonlocal_gates() for job in jobs) <= 4 * 2 + 2 * 2


def test_fewer_two_qubit_gates_with_more_seeds():
    circuit = to_qiskit(random_circuit(brickwall(4, 4), seed=1)).compose(QuantumCircuit(4))
    counts = [runner(trials=k)._transpiler.transpiled(circuit).num_nonlocal_gates() for k in (1, 3)]
    assert counts[1] <= counts[0]


def test_a_density_matrix_has_the_probabilities_of_its_states():
    rng = np.random.default_rng(0)
    states = rng.normal(size=(3, 8)) + 1j * rng.normal(size=(3, 8))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    weights = np.array([0.5, 0.3, 0.2])
    rho = np.einsum("k,ki,kj->ij", weights, states, states.conj())
    (tomography,) = Tomography(sign_shots=0).measurements(3)
    mixed = sum(
        w * outcome_probabilities(tomography, s) for w, s in zip(weights, states, strict=True)
    )
    assert_allclose(pauli_probabilities(rho).reshape(27, 8), mixed, atol=1e-14)


def test_what_cannot_run():
    states = np.eye(16)[:1]
    wide = to_qiskit(random_circuit(brickwall(4, 1), seed=0))
    with pytest.raises(ValueError, match=r"circuit has 5 qubits and .* 4; use a larger"):
        runner().run(wide, states)
    small = to_qiskit(CIRCUIT)
    with pytest.raises(ValueError, match="prepare real vectors"):
        runner().run(small, np.eye(4)[:1] + 0j)
    complex_gates = to_qiskit(random_circuit(brickwall(2, 1, group="U"), seed=0))
    with pytest.raises(ValueError, match="real gates"):
        runner().run(complex_gates, np.eye(4)[:1])
    bare = GenericBackendV2(4, basis_gates=["id", "x", "cx"], seed=0)
    with pytest.raises(ValueError, match="cannot run the circuit"):
        runner(backend=bare).run(small, np.eye(4)[:1])


@pytest.mark.parametrize(
    "options",
    [{"shots": 0}, {"sign_shots": 0}, {"trials": 0}, {"threads": -1}],
)
def test_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        NoisyRunner(**options)
