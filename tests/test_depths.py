"""The best depth on a device: fidelities against channels by Aer's superoperators."""

from functools import cache, partial

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import DensityMatrix, Operator, SuperOp, process_fidelity
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel, amplitude_damping_error, depolarizing_error

from mpodis import (
    brickwall,
    compile_state,
    compile_unitary,
    coupling_brickwall,
    evolution,
    pauli_chain,
    random_circuit,
)
from mpodis.quantum import best_depth, to_qiskit

N = 3
TARGET = evolution(pauli_chain(N, ZZ=1.0, X=0.75, Z=0.6), 1.5)
U = TARGET.mpo.to_dense()
LINE = GenericBackendV2(5, coupling_map=[[k, k + 1] for k in range(4)], seed=0)


def noise(p):
    model = NoiseModel(basis_gates=["u", "cx"])
    model.add_all_qubit_quantum_error(depolarizing_error(p, 2), "cx")
    model.add_quantum_error(amplitude_damping_error(p / 4), "u", [1])
    return model


@cache
def circuits(kind):
    if kind == "unitary":
        return tuple(compile_unitary(TARGET, depth=depth) for depth in (1, 2, 3, 5))
    return tuple(compile_state(U[:, 0], depth=depth, n_init=1) for depth in (1, 2))


def superoperator(circuit, model):
    job = circuit.copy()
    job.save_superop()
    return SuperOp(
        AerSimulator(method="superop", noise_model=model).run(job).result().data()["superop"]
    )


def test_a_unitary_by_samples_is_its_process_fidelity():
    model = noise(0.02)
    found = best_depth(
        TARGET, circuits("unitary"), backend="logical", noise_model=model, samples=60
    )
    for row in found.rows:
        channel = superoperator(row.transpiled, model)
        total = process_fidelity(channel, Operator(U))
        assert abs(row.total - total) < 4 * row.total_error < 0.02
        own = process_fidelity(channel, Operator(to_qiskit(row.compiled.circuit)))
        assert_allclose(row.device, own, atol=0.01)
        assert_allclose(row.approximation, 1 - row.compiled.infidelity)
        assert_allclose(row.estimate, total, atol=0.02)
    assert found.depth == max(found.rows, key=lambda row: row.total).depth


def test_a_state_is_its_fidelity_to_all_digits():
    model = noise(0.02)
    found = best_depth(U[:, 0], circuits("state"), backend="logical", noise_model=model)
    for row in found.rows:
        rho = DensityMatrix.from_label("0" * N).evolve(superoperator(row.transpiled, model)).data
        assert_allclose(row.total, (U[:, 0].conj() @ rho @ U[:, 0]).real, rtol=1e-10)
        assert row.total_error == 0.0
    assert found.rows[0].cost.two_qubit == 1  # a gate on |00>


def test_gates_multiply():
    model = NoiseModel(basis_gates=["u", "cx"])
    model.add_all_qubit_quantum_error(depolarizing_error(0.02, 2), "cx")
    found = best_depth(TARGET, circuits("unitary"), backend="logical", noise_model=model, samples=0)
    counts = np.array([row.cost.two_qubit for row in found.rows])
    assert_allclose([row.gates for row in found.rows], (1 - 0.02 * 15 / 16) ** counts)
    assert not found.is_simulated


@pytest.mark.parametrize("kind", ["unitary", "state"])
def test_almost_without_noise_the_device_does_what_was_compiled(kind):
    model = NoiseModel(basis_gates=["cx", "rz", "sx", "x"])
    model.add_all_qubit_quantum_error(depolarizing_error(1e-9, 2), "cx")
    target = TARGET if kind == "unitary" else U[:, 0]
    for qubits in (None, (3, 2, 1), (0, 4, 2)):  # the last one takes SWAPs
        found = best_depth(
            target, circuits(kind)[:2], backend=LINE, noise_model=model, qubits=qubits, samples=3
        )
        for row in found.rows:
            assert_allclose(row.total, row.approximation, atol=1e-6)
            assert_allclose(row.device, 1, atol=1e-6)


def test_the_noisier_the_shallower():
    best = [
        best_depth(
            TARGET, circuits("unitary"), backend="logical", noise_model=noise(p), samples=2
        ).depth
        for p in (1e-3, 0.3)
    ]
    assert best[0] > best[1]


def test_depths_are_compiled_from_shallow_to_deep_and_never_get_worse():
    target = random_circuit(brickwall(N, 4, group="SO"), seed=3)
    found = best_depth(
        target,
        [3, 1, 2],
        backend=LINE,
        compiler=partial(compile_unitary, group="SO", n_init=1, tol=0.1),
        samples=0,
    )
    assert [row.depth for row in found.rows] == [1, 2, 3]
    assert (np.diff([row.compiled.loss for row in found.rows]) <= 1e-12).all()
    assert {row.compiled.circuit.ansatz.group for row in found.rows} == {"SO"}
    shifted = random_circuit(brickwall(4, 2, parity=1, group="U"), seed=0, scale=0.5)
    found = best_depth(shifted, [1, 2], backend=LINE, samples=0)
    assert found.best.approximation > 0.999  # the shallower circuit alone ends elsewhere
    ring = [(0, 1), (1, 2), (0, 2)]
    found = best_depth(
        TARGET,
        [3],
        backend=LINE,
        pattern=lambda depth: coupling_brickwall(ring, depth, group="U"),
        samples=0,
    )
    assert [p.wires for p in found.best.compiled.circuit.ansatz.placements if p.width == 2] == [
        (0, 1), (0, 2), (1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["unitary", "state"])
def test_a_circuit_for_another_target_is_refused(kind):
    other = evolution(pauli_chain(N, ZZ=1.0, X=0.75, Z=0.6), 1.4).mpo.to_dense()
    for found in circuits(kind)[1:]:
        with pytest.raises(ValueError, match="was compiled for another target: its infidelity is"):
            best_depth(other if kind == "unitary" else other[:, 0], [found], backend=LINE)
    phase = np.exp(1j) * (U if kind == "unitary" else U[:, 0])  # is none of the target's
    best_depth(phase, circuits(kind)[:1], backend=LINE, samples=0)


def test_out_of_time_the_shallow_ones_are_there():
    found = best_depth(TARGET, [1, 2, 3], backend=LINE, max_seconds=1e-3, samples=2)
    assert len(found.rows) == 1
    assert not found.is_complete
    assert "stopped before the last depth" in str(found)


def test_table_and_figure():
    found = best_depth(TARGET, circuits("unitary"), backend=LINE, samples=2)
    assert str(found).count("best\n") == 1
    assert [row["depth"] for row in found.to_dict()["rows"]] == [1, 2, 3, 5]
    ax = found.plot()
    lines = [*ax.lines[:3], ax.containers[0].lines[0]]
    for key, line in zip(("approximation", "gates", "estimate", "total"), lines, strict=True):
        assert_allclose(line.get_ydata(orig=False), [getattr(row, key) for row in found.rows])
    assert f"best: {found.depth} layers" in [text.get_text() for text in ax.get_legend().texts]


@pytest.mark.parametrize(
    ("depths", "options", "text"),
    [
        ([], {}, "depths is empty"),
        ([0], {}, "depths has 0"),
        ([1], {"backend": "logical"}, "the noise model of logical has no errors"),
        ([1], {"samples": 1}, "samples=1 must be 2 or more, or 0"),
        ([1], {"trials": 0}, "trials=0"),
        ([1], {"qubits": (0, 1)}, "must be 3 different qubits"),
        ([1], {"pattern": lambda depth: brickwall(4, depth)}, r"3 qubits, the circuits \[4\]"),
        ([1], {"backend": GenericBackendV2(2, seed=0)}, "the circuit has 3 qubits"),
        ([1, *circuits("state")], {}, "some circuits are compiled for a unitary and some"),
    ],
)
def test_refusals(depths, options, text):
    with pytest.raises(ValueError, match=text):
        best_depth(TARGET, depths, **{"backend": LINE} | options)
