"""Circuits on Qiskit against dense matrices: order, sign, norms, execution and gate counts."""

import sys
from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit, transpile
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Statevector

from mpodis.ansatz import Ansatz, Placement, brickwall, from_spec, staircase
from mpodis.circuit import Circuit, identity_circuit, random_circuit
from mpodis.factorization import Factorization
from mpodis.gates import random_gate
from mpodis.mpo import compress
from mpodis.quantum import (
    CostTable,
    HardwareCost,
    StatevectorRunner,
    amplitude_encoding,
    cost,
    cost_table,
    gate_cost,
    hybrid_layer,
    normalise,
    run_circuit,
    to_qiskit,
)

ANSATZE = {
    "1 wire": brickwall(1, 2, 1),
    "1b, 3 wires": brickwall(3, 1, 1, group="O"),
    "2b, 4 wires": brickwall(4, 3, group="SO"),
    "2b, 5 wires, shifted": brickwall(5, 3, start=1, group="O"),
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


def gate(width, group, *, det=None, seed=0):
    g = random_gate(2**width, group=group, rng=np.random.default_rng(seed))
    if det is not None and np.linalg.det(g) * det < 0:
        g[0] *= -1
    return g


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
    assert_allclose(Operator(device).data, circuit.matrix().T, atol=1e-12)


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
    g = gate(6, "O", det=det)
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
    with pytest.raises(ValueError, match="gate 0 .* is placed as a fixed CNOT, but is another"):
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

    def run(self, circuit, states, *, progress=False):
        self.calls.append((circuit, states))
        return states


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
    simulate = sys.modules["mpodis.quantum.run"].AerSimulator.run

    def spy(self, circuits, **options):
        jobs.append([dict(circuit.count_ops()) for circuit in circuits])
        assert self.options.fusion_enable is False
        return simulate(self, circuits, **options)

    monkeypatch.setattr("mpodis.quantum.run.AerSimulator.run", spy)
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
    run_circuit(circuit, np.eye(4), runner=StatevectorRunner(batch_size=2), progress=True)
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


# ---------------------------------------------------------------------------- hybrid layer


@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize("shape", [(16, 16), (13, 6), (3, 20), (8, 1), (1, 5), (32, 2)])
def test_hybrid_layer_is_the_factorised_matrix(shape, group):
    f = factorization(*shape, group=group, width=3)
    x = samples(4, shape[0])
    x[2] = 0
    rows, columns = 2**f.left.n, 2**f.right.n
    w = dense(f.left) @ f.core_matrix() @ dense(f.right)
    assert w.shape == (rows, columns)
    y = hybrid_layer(f, x)
    assert y.shape == (4, shape[1])
    assert_allclose(y, x @ w[: shape[0], : shape[1]], atol=1e-11)
    assert_allclose(y, x @ f.matrix(), atol=1e-11)


def test_hybrid_layer_runs_left_then_right_on_the_given_runner():
    f = factorization(8, 4)
    runner = Recorder()
    x = samples(2, 8)
    assert_allclose(hybrid_layer(f, x, runner=runner), x @ f.core_matrix(), atol=1e-12)
    assert [circuit.num_qubits for circuit, _ in runner.calls] == [3, 2]


def test_hybrid_layer_names_its_inputs_in_an_error():
    with pytest.raises(ValueError, match=r"a layer with 6 inputs takes \(samples, 6\)"):
        hybrid_layer(factorization(6, 4), np.ones((2, 8)))


# ---------------------------------------------------------------------------- cost


@pytest.mark.parametrize(
    ("group", "det", "cx"),
    [("SO", 1, 2), ("O", -1, 3), ("U", None, 3)],
)
def test_cnots_of_a_two_qubit_gate(group, det, cx):
    for seed in range(3):
        assert gate_cost(gate(2, group, det=det, seed=seed)).two_qubit == cx


@pytest.mark.parametrize(("width", "cx"), [(3, 19), (4, 95), (5, 423), (6, 1783)])
def test_logical_cost_of_a_wide_gate(width, cx):
    found = gate_cost(gate(width, "SO"), trials=1)
    # Table 1 of arXiv 2509.06653v1 has 19, 100, 442 and 1868, from an older Qiskit
    assert_allclose(found.two_qubit, cx, rtol=0.1)
    assert found.gates == {"u": found.one_qubit, "cx": found.two_qubit}
    assert found.backend == "logical"
    assert found.optimization_level == 1
    assert found.n_qubits == width
    assert found.two_qubit <= found.two_qubit_depth * width / 2
    assert found.two_qubit_depth < found.depth


def test_free_gates_cost_nothing_when_they_are_the_identity():
    assert gate_cost(identity_circuit(brickwall(4, 2))).two_qubit == 0


def test_a_cnot_costs_one():
    found = gate_cost(identity_circuit(from_spec("CNOT", 4)))
    assert (found.one_qubit, found.two_qubit, found.depth) == (0, 2, 1)


def test_cost_is_that_of_the_circuit_however_it_is_given():
    circuit = random_circuit(brickwall(2, 1), seed=0)
    assert gate_cost(circuit) == gate_cost(to_qiskit(circuit)) == gate_cost(circuit.gates[0])
    assert gate_cost(circuit, seed=np.random.default_rng(0)) == gate_cost(circuit, seed=0)


def test_more_trials_never_cost_more():
    line = GenericBackendV2(5, ["u", "cx"], coupling_map=[(i, i + 1) for i in range(4)], seed=0)
    circuit = QuantumCircuit(5)
    for a in range(5):
        for b in range(a):
            circuit.cx(a, b)
            circuit.u(a, b, 1, b)
    costs = [gate_cost(circuit, backend=line, trials=n).two_qubit for n in (1, 2, 8)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] > 10  # routed
    assert gate_cost(circuit, backend=line, trials=1).backend == line.name


def test_a_line_of_qubits_runs_a_brickwall_without_swaps():
    line = GenericBackendV2(6, ["u", "cx"], coupling_map=[(i, i + 1) for i in range(5)], seed=0)
    circuit = random_circuit(brickwall(6, 4), seed=0)
    found = gate_cost(circuit, backend=line)
    assert found.optimization_level == 3
    assert found.two_qubit == gate_cost(circuit).two_qubit == 20


@pytest.fixture(scope="module")
def montreal():
    pytest.importorskip("qiskit_ibm_runtime")
    return "FakeMontrealV2"


def test_montreal_runs_a_brickwall_without_swaps(montreal):
    circuit = random_circuit(brickwall(6, 4), seed=4)
    found = gate_cost(circuit, backend=montreal)
    assert found.two_qubit == gate_cost(circuit).two_qubit == 20
    assert found.two_qubit_depth == 8
    assert set(found.gates) <= {"rz", "sx", "x", "cx"}


@pytest.mark.parametrize(("width", "cx"), [(3, 31), (4, 137)])
def test_montreal_cost_of_a_wide_gate(montreal, width, cx):
    found = gate_cost(gate(width, "SO"), backend=montreal)
    assert_allclose(found.two_qubit, cx, rtol=0.25)
    assert found.backend == "FakeMontrealV2"


def test_a_circuit_wider_than_the_device_is_refused(montreal):
    with pytest.raises(ValueError, match="has 28 qubits and FakeMontrealV2 27"):
        gate_cost(QuantumCircuit(28), backend=montreal)


def test_cost_table_of_both_sides(montreal):
    f = factorization(8, 3, width=3)
    table = cost_table(f, trials=1)
    assert isinstance(table, CostTable)
    parts = ["one 2-qubit gate", "one 3-qubit gate", "one layer"]
    parts += ["left circuit", "right circuit", "both sides"]
    expected = [(p, b) for p in parts for b in cost.BACKENDS]
    assert sorted((p, c.backend) for p, c in table.rows) == sorted(expected)
    by = {(part, found.backend): found for part, found in table.rows}
    for backend in cost.BACKENDS:
        left, right, both = (
            by[part, backend] for part in ("left circuit", "right circuit", "both sides")
        )
        assert left == gate_cost(f.left, backend=backend, trials=1)
        assert right == gate_cost(f.right, backend=backend, trials=1)
        assert both.two_qubit == left.two_qubit + right.two_qubit
        assert both.one_qubit == left.one_qubit + right.one_qubit
        assert both.depth == left.depth + right.depth
        assert sum(both.gates.values()) == both.one_qubit + both.two_qubit
        assert both.n_qubits == 3
    text = str(table)
    assert "both sides" in text
    assert "FakeMontrealV2" in text
    assert "<table>" in table._repr_html_()


def test_costs_as_plain_data():
    table = cost_table(factorization(4, 1), backends=["logical"])
    rows = table.to_dict()["rows"]
    assert [row["part"] for row in rows][-3:] == ["left circuit", "right circuit", "both sides"]
    assert rows[-1]["two_qubit"] == table.rows[-1][1].two_qubit
    assert rows[-2]["n_qubits"] == rows[-2]["depth"] == 0


def test_fixed_gates_have_no_row_of_their_own():
    f = factorization(4, 4)
    left = identity_circuit(from_spec("CNOT + 1b", 2))
    f = Factorization(left, f.core, left, f.shape)
    table = cost_table(f, backends=["logical"])
    parts = [part for part, _ in table.rows]
    assert parts == ["one 1-qubit gate", "one layer", "left circuit", "right circuit", "both sides"]
    assert [found.two_qubit for _, found in table.rows] == [0, 1, 1, 1, 2]


def test_one_layer_is_the_fullest():
    f = factorization(32, 4)
    left = random_circuit(brickwall(5, 3, start=1, group="O"), seed=0)  # 2 gates in every layer
    right = random_circuit(from_spec("CNOT + 1b", 2), seed=1)
    whole = dict(cost_table(Factorization(left, f.core, right, f.shape), backends=["logical"]).rows)
    first = Circuit(Ansatz(5, left.ansatz.layers[:1], "O"), left.gates[:3])
    assert whole["one layer"] == gate_cost(first)
    assert whole["one layer"].two_qubit < whole["left circuit"].two_qubit
    nothing = Circuit(Ansatz(5, ()), ())
    bare = Factorization(nothing, f.core, Circuit(Ansatz(2, ()), ()), f.shape)
    assert "one layer" not in dict(cost_table(bare, backends=["logical"]).rows)


def test_the_level_of_a_cost_table_is_chosen():
    rows = cost_table(factorization(8, 4), backends=["logical"], optimization_level=0).rows
    assert {found.optimization_level for _, found in rows} == {0}


def test_a_device_without_the_gates_is_refused():
    lacking = GenericBackendV2(3, ["rz", "x"], seed=0)
    with pytest.raises(ValueError, match="cannot run the circuit"):
        gate_cost(random_circuit(brickwall(3, 1), seed=0), backend=lacking)


def test_a_higher_level_finds_what_cancels():
    twice = identity_circuit(from_spec("CNOT", 2)).ansatz.layers * 2
    circuit = identity_circuit(Ansatz(2, twice))
    costs = [gate_cost(circuit, optimization_level=level) for level in (0, 3)]
    assert [found.two_qubit for found in costs] == [2, 0]
    assert [found.optimization_level for found in costs] == [0, 3]


def test_a_cost_prints_as_one_line():
    found = HardwareCost("logical", 1, 2, 6, 2, 5, 2, {"u": 6, "cx": 2})
    assert str(found) == (
        "logical, level 1, 2 qubits: 6 one-qubit and 2 two-qubit gates, "
        "depth 5 (2 of two-qubit gates)"
    )
    assert hash(found) == hash(HardwareCost("logical", 1, 2, 6, 2, 5, 2, {}))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "qiskit_ibm_runtime.fake_provider", None)
    monkeypatch.setattr(cost, "_fake_montreal", cost._fake_montreal.__wrapped__)
    with pytest.raises(ImportError, match=r"pip install mpodis\[hardware\]"):
        gate_cost(np.eye(2), backend="FakeMontrealV2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "FakeTokyo"}, "backend='FakeTokyo' is not known; use one of logical, Fake"),
        ({"trials": 0}, "trials=0 must be at least 1"),
        ({"optimization_level": 4}, "optimization_level=4 must be 0, 1, 2 or 3"),
    ],
)
def test_wrong_cost_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gate_cost(np.eye(4), **options)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (4,), (1, 1)])
def test_a_matrix_that_is_no_gate_is_refused(shape):
    with pytest.raises(ValueError, match="the gate has shape .*; give a .* matrix, w >= 1"):
        gate_cost(np.ones(shape))
