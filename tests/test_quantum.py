"""Circuits on Qiskit against dense matrices: order, sign, norms and execution."""

import sys
from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import transpile
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Statevector

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.factorization import Factorization
from mpodis.gates import random_gate
from mpodis.mpo import compress
from mpodis.quantum import (
    StatevectorRunner,
    amplitude_encoding,
    execute_layer,
    normalise,
    run_circuit,
    to_qiskit,
)

ANSATZE = {
    "1 wire": brickwall(1, 2, 1),
    "1b, 3 wires": brickwall(3, 1, 1, group="O"),
    "2b, 4 wires": brickwall(4, 3, group="SO"),
    "2b, 5 wires, shifted": brickwall(5, 3, parity=1, group="O"),
    "2b complex, 3 wires": brickwall(3, 4, group="U"),
    "3b, 4 wires": brickwall(4, 2, 3, group="O"),
    "3b staircase complex": staircase(5, 1, 3, group="U"),
    "4b, 5 wires": brickwall(5, 2, 4, group="SO"),
    "CNOT scaffold": from_spec("CNOT + 1b + 2*CNOT + 2b", 5, group="SO"),
    "CNOTs only": from_spec("3*CNOT", 4),
    "CNOT complex": from_spec("1b + CNOT + 3b", 3, group="U"),
}
CASES = [pytest.param(ansatz, id=name) for name, ansatz in ANSATZE.items()]


def dense(circuit):
    """Q in plain numpy: the product of gates padded by identities, gate 0 on the left."""
    factors = [np.eye(2**circuit.n)]
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        before, after = place.wires[0], circuit.n - 1 - place.wires[-1]
        factors.append(np.kron(np.kron(np.eye(2**before), gate), np.eye(2**after)))
    return reduce(np.matmul, factors)


def samples(rows, columns, *, seed=1):
    return np.random.default_rng(seed).normal(size=(rows, columns))


def factorization(inputs, outputs, *, group="SO", width=2, max_bond=2):
    m = compress(samples(inputs, outputs, seed=2), max_bond=max_bond)
    p, q = (inputs - 1).bit_length(), (outputs - 1).bit_length()

    def side(n, seed):
        ansatz = brickwall(n, 2, min(width, n), group=group) if n else Ansatz(0, (), group)
        return random_circuit(ansatz, seed=seed)

    return Factorization(side(p, 3), m.mpo, side(q, 4), (inputs, outputs))


# ---------------------------------------------------------------------------- conversion


@pytest.mark.parametrize("ansatz", CASES)
def test_device_applies_the_transpose(ansatz):
    circuit = random_circuit(ansatz, seed=5)
    device = to_qiskit(circuit)
    assert_allclose(Operator(device).data, dense(circuit).T, atol=1e-12)
    assert_allclose(Operator(device).data, circuit.to_dense().T, atol=1e-12)


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("ansatz", CASES)
def test_sign_and_phase_survive_the_transpiler(ansatz, level):
    circuit = random_circuit(ansatz, seed=6)
    device = transpile(
        to_qiskit(circuit),
        basis_gates=["u", "cx"],
        optimization_level=level,
        seed_transpiler=0,
    )
    assert set(device.count_ops()) <= {"u", "cx"}
    assert_allclose(Operator(device).data, dense(circuit).T, atol=1e-10)


def test_sign_survives_routing_to_a_line():
    line = GenericBackendV2(4, ["u", "cx"], coupling_map=[(0, 1), (1, 2), (2, 3)], seed=0)
    circuit = random_circuit(brickwall(4, 1, 4, group="O"), seed=1)
    device = transpile(to_qiskit(circuit), line, optimization_level=3, seed_transpiler=0)
    assert_allclose(Operator.from_circuit(device).data, dense(circuit).T, atol=1e-10)


@pytest.mark.parametrize("det", [1, -1])
def test_a_gate_over_all_of_six_qubits(det):
    g = random_gate(64, group="SO", rng=np.random.default_rng(0))
    g[0] *= det
    circuit = Circuit(brickwall(6, 1, 6, group="O"), (g,))
    assert_allclose(Operator(to_qiskit(circuit)).data, g.T, atol=1e-12)


def test_first_wire_controls_a_fixed_cnot():
    device = to_qiskit(identity_circuit(Ansatz(3, ((Placement((0, 1), "CNOT"),),))))
    assert dict(device.count_ops()) == {"cx": 1}
    # |100>, site 0 set, goes to |110>; |010> stays
    assert_array_equal(
        Statevector.from_label("100").evolve(device).probabilities_dict(), {"110": 1}
    )
    assert_array_equal(
        Statevector.from_label("010").evolve(device).probabilities_dict(), {"010": 1}
    )


def test_gates_are_labelled_in_order():
    device = to_qiskit(identity_circuit(from_spec("1b + CNOT + 2b", 2)), label="left")
    labels = [instruction.operation.label for instruction in device.data]
    assert labels == ["left0", "left1", None, "left3"]


@pytest.mark.parametrize("group", ["O", "U"])
def test_rounded_gates_are_made_unitary_again(group):
    circuit = random_circuit(brickwall(3, 2, group=group), seed=0)
    low = np.complex64 if group == "U" else np.float32
    rounded = Circuit(circuit.ansatz, tuple(g.astype(low) for g in circuit.gates))
    unitary = Operator(to_qiskit(rounded)).data
    assert_allclose(unitary @ unitary.conj().T, np.eye(8), atol=1e-14)
    assert_allclose(unitary, dense(circuit).T, atol=1e-6)


def test_a_gate_that_is_not_unitary_is_refused():
    circuit = random_circuit(brickwall(4, 1), seed=0)
    with pytest.raises(ValueError, match=r"gate 1 on wires \(2, 3\) is 1.0e-01 from the nearest"):
        run_circuit(
            Circuit(circuit.ansatz, (circuit.gates[0], 1.1 * np.eye(4))),
            np.ones((1, 16)),
        )


def test_a_diverged_gate_is_refused():
    bad = np.eye(4)
    bad[0, 1] = np.nan
    with pytest.raises(ValueError, match=r"gate 0 on wires \(0, 1\) holds NaN"):
        to_qiskit(Circuit(brickwall(2, 1), (bad,)))


def test_a_fixed_cnot_that_holds_something_else_is_refused():
    with pytest.raises(ValueError, match="gate 0 .* is a fixed CNOT, but holds another"):
        to_qiskit(Circuit(from_spec("CNOT", 2), (np.eye(4),)))


# ---------------------------------------------------------------------------- encoding


def test_basis_states_keep_their_number():
    for k in range(8):
        state = Statevector(amplitude_encoding(np.eye(8)[k]).decompose())
        assert_allclose(state.data, np.eye(8)[k], atol=1e-12)


def test_any_complex_vector_is_encoded_with_its_phase():
    x = samples(1, 16) + 1j * samples(1, 16, seed=2)
    states, norms = normalise(x)
    assert_allclose(Statevector(amplitude_encoding(states[0])).data * norms[0], x[0], atol=1e-12)


def test_normalise_is_a_factorisation_at_any_scale():
    x = samples(4, 8) * np.array([[1e-200], [1], [1e200], [0]])
    states, norms = normalise(x)
    assert_allclose(states * norms[:, None], x, rtol=1e-14)
    assert_allclose(np.linalg.norm(states, axis=1), [1, 1, 1, 0], rtol=1e-14)
    assert_allclose(norms[1], np.linalg.norm(x[1]))
    assert norms[3] == 0
    assert normalise(x[1:2].astype(np.float32))[0].dtype == np.float64


# ---------------------------------------------------------------------------- execution


@pytest.mark.parametrize("ansatz", CASES)
@pytest.mark.parametrize("complex_x", [False, True])
def test_execution_is_the_row_action(ansatz, complex_x):
    circuit = random_circuit(ansatz, seed=7)
    x = 3.7 * samples(5, 2**circuit.n)
    if complex_x:
        x = x + 1j * samples(5, 2**circuit.n, seed=2)
    y = run_circuit(circuit, x)
    assert_allclose(y, x @ dense(circuit), atol=1e-12)
    assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1))
    assert np.iscomplexobj(y) == (complex_x or ansatz.group == "U")


def test_sign_and_scale_of_the_activations_are_kept():
    circuit = random_circuit(brickwall(3, 2, group="O"), seed=0)
    x = samples(1, 8)
    y = run_circuit(circuit, np.concatenate([x, -x, 1e-9 * x]))
    assert_allclose(y[1], -y[0], atol=1e-14)
    assert_allclose(y[2], 1e-9 * y[0], rtol=1e-12)


def test_float32_activations_and_gates():
    circuit = random_circuit(brickwall(3, 2), seed=0)
    rounded = Circuit(circuit.ansatz, tuple(g.astype(np.float32) for g in circuit.gates))
    x = samples(3, 8).astype(np.float32)
    y = run_circuit(rounded, x)
    assert y.dtype == np.float64
    assert_allclose(y, x @ dense(circuit), atol=1e-5)


class Recorder:
    """A runner that notes what it is asked to run and returns the states as they are."""

    def __init__(self):
        self.calls = []

    def run(self, circuit, states, *, progbar=False):
        self.calls.append((circuit, states))
        return states

    def n_circuits(self, n, *, is_complex=False):
        return 1

    def n_shots(self, n, *, is_complex=False):
        return 0


def test_zero_vectors_are_not_run():
    circuit = identity_circuit(brickwall(2, 1))
    x = np.array([[0, 0, 0, 0], [0, 3, 0, 4], [0, 0, 0, 0.0]])
    runner = Recorder()
    assert_allclose(run_circuit(circuit, x, runner=runner), x)
    ((_, states),) = runner.calls
    assert_allclose(states, [[0, 0.6, 0, 0.8]])
    assert_array_equal(run_circuit(circuit, 0 * x), 0 * x)
    assert_array_equal(run_circuit(circuit, 0 * x, runner=runner), 0 * x)
    assert len(runner.calls) == 1
    assert run_circuit(circuit, np.empty((0, 4))).shape == (0, 4)


def test_a_side_without_qubits_passes_its_input_on():
    x = samples(3, 1)
    runner = Recorder()
    assert_array_equal(run_circuit(identity_circuit(Ansatz(0, ())), x, runner=runner), x)
    assert not runner.calls


def test_every_gate_of_every_sample_is_simulated(monkeypatch):
    jobs = []
    simulate = sys.modules["mpodis.quantum.runners"].AerSimulator.run

    def spy(self, circuits, **options):
        jobs.append([dict(circuit.count_ops()) for circuit in circuits])
        assert self.options.fusion_enable is False
        return simulate(self, circuits, **options)

    monkeypatch.setattr("mpodis.quantum.runners.AerSimulator.run", spy)
    circuit = random_circuit(from_spec("2b + CNOT", 4), seed=0)
    runner = StatevectorRunner(batch_size=3, threads=1)
    x = samples(7, 16)
    assert_allclose(run_circuit(circuit, x, runner=runner), x @ dense(circuit), atol=1e-12)
    assert [len(job) for job in jobs] == [3, 3, 1]
    every = {"initialize": 1, "unitary": 2, "cx": 1, "save_statevector": 1}
    assert all(counts == every for job in jobs for counts in job)


def test_the_given_circuit_is_not_changed():
    device = to_qiskit(identity_circuit(brickwall(2, 1)))
    StatevectorRunner().run(device, np.eye(4))
    assert dict(device.count_ops()) == {"unitary": 1}


def test_progress_is_shown_on_demand(capsys, monkeypatch):
    monkeypatch.setattr("mpodis.progress.time.monotonic", iter(range(0, 10_000, 100)).__next__)
    circuit = identity_circuit(brickwall(2, 1))
    run_circuit(circuit, np.eye(4), runner=StatevectorRunner(batch_size=2), progbar=True)
    assert "Aer statevector: 2/4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((2, 3)), r"x has shape \(2, 3\), but a circuit on 2 wires takes \(samples, 4\)"),
        (np.ones(4), r"x has shape \(4,\), .* put one sample in each row"),
        (np.array([[1, 0, 0, 0], [0, np.nan, 0, 0]]), "NaN or infinite values, first in row 1"),
        (np.full((1, 4), np.inf), "first in row 0"),
    ],
)
def test_wrong_activations_are_refused(x, message):
    with pytest.raises(ValueError, match=message):
        run_circuit(identity_circuit(brickwall(2, 1)), x)


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"threads": -1}])
def test_wrong_runner_options_are_refused(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name}={value} must be"):
        StatevectorRunner(**option)


# ---------------------------------------------------------------------------- executed layer


@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize("shape", [(16, 16), (13, 6), (3, 20), (8, 1), (1, 5), (32, 2)])
def test_an_executed_layer_is_the_factorised_matrix(shape, group):
    f = factorization(*shape, group=group, width=3)
    x = samples(4, shape[0])
    x[2] = 0
    rows, columns = 2**f.left.n, 2**f.right.n
    w = dense(f.left) @ f.core_to_dense() @ dense(f.right)
    assert w.shape == (rows, columns)
    y = execute_layer(f, x)
    assert y.shape == (4, shape[1])
    assert_allclose(y, x @ w[: shape[0], : shape[1]], atol=1e-11)
    assert_allclose(y, x @ f.to_dense(), atol=1e-11)


def test_an_executed_layer_runs_left_then_right_on_the_given_runner():
    f = factorization(8, 4)
    runner = Recorder()
    x = samples(2, 8)
    assert_allclose(execute_layer(f, x, runner=runner), x @ f.core_to_dense(), atol=1e-12)
    assert [circuit.num_qubits for circuit, _ in runner.calls] == [3, 2]


def test_an_executed_layer_names_its_inputs_in_an_error():
    with pytest.raises(ValueError, match=r"a layer with 6 inputs takes \(samples, 6\)"):
        execute_layer(factorization(6, 4), np.ones((2, 8)))
