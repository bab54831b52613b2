"""What circuits cost on Qiskit: CNOTs, depths, devices, and tables of both sides."""

import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.providers.fake_provider import GenericBackendV2

from mpodis import cnot_count
from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.routing import routed_circuit
from mpodis.circuit.spec import from_spec
from mpodis.factorization import Factorization
from mpodis.gates import named_gate, random_gate
from mpodis.mpo import compress
from mpodis.quantum import (
    BACKENDS,
    CostTable,
    HardwareCost,
    backends,
    cost_table,
    gate_cost,
    to_qiskit,
)
from reference import random_matrix


def gate(width, group, *, det=None, seed=0):
    g = random_gate(2**width, group=group, rng=np.random.default_rng(seed))
    if det is not None and np.linalg.det(g) * det < 0:
        g[0] *= -1
    return g


def factorization(inputs, outputs, *, width=2):
    m = compress(random_matrix((inputs, outputs)), max_bond=2)
    p, q = (inputs - 1).bit_length(), (outputs - 1).bit_length()

    def side(n, seed):
        return random_circuit(brickwall(n, 2, min(width, n)) if n else Ansatz(0, ()), seed=seed)

    return Factorization(side(p, 3), m.mpo, side(q, 4), (inputs, outputs))


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


@pytest.mark.parametrize(("wires", "swaps"), [((0, 3), 4), ((2, 0), 2), ((1, 2), 0)])
def test_swaps_for_distant_wires_are_counted_on_a_line(wires, swaps):
    circuit = random_circuit(Ansatz(4, ((Placement(wires),),)), seed=0)
    assert gate_cost(circuit).two_qubit == 2
    routed = routed_circuit(circuit)
    assert cnot_count(routed) == 2 + 3 * swaps
    assert gate_cost(routed, optimization_level=0).two_qubit == 2 + 3 * swaps
    # Qiskit may choose other qubits of the device, so that the wires are neighbours
    line = GenericBackendV2(4, ["u", "cx"], coupling_map=[(i, i + 1) for i in range(3)], seed=0)
    fixed = backends.transpiled(
        to_qiskit(circuit), line, optimization_level=1, seed=0, layout=[0, 1, 2, 3]
    )
    assert 2 + 3 * swaps // 2 <= fixed.num_nonlocal_gates() <= 2 + 3 * swaps


@pytest.mark.parametrize(
    ("name", "cx"), [("CNOT", 1), ("CZ", 1), ("SWAP", 3), ("iSWAP", 2), ("ECR", 1)]
)
def test_a_registered_gate_costs_what_it_states(name, cx):
    circuit = identity_circuit(Ansatz(3, ((Placement((2, 0), name),),), "U"))
    # from level 2 on Qiskit renumbers qubits in place of a SWAP
    assert gate_cost(circuit, optimization_level=1).two_qubit == cx
    assert named_gate(name).n_cnots == cnot_count(circuit) == cx


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
    expected = [(p, b) for p in parts for b in BACKENDS]
    assert sorted((p, c.backend) for p, c in table.rows) == sorted(expected)
    by = {(part, found.backend): found for part, found in table.rows}
    for backend in BACKENDS:
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
    (cells,) = [cells for cells in table.table().rows if cells[:2] == ("left circuit", "logical")]
    left = by["left circuit", "logical"]
    assert cells[2:6] == (1, 3, left.one_qubit, left.two_qubit)


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
    left = random_circuit(brickwall(5, 3, parity=1, group="O"), seed=0)  # 2 gates in every layer
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
    monkeypatch.setattr(backends, "_fake_montreal", backends._fake_montreal.__wrapped__)
    with pytest.raises(ImportError, match=r'pip install "mpodis\[hardware\]"'):
        gate_cost(np.eye(2), backend="FakeMontrealV2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "FakeTokyo"}, "backend='FakeTokyo' is not known; use one of logical, Fake"),
        ({"trials": 0}, "trials=0 must be a whole number, 1 or more"),
        ({"optimization_level": 4}, "optimization_level=4 must be 0, 1, 2 or 3"),
    ],
)
def test_wrong_cost_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        gate_cost(np.eye(4), **options)


def test_a_factorization_is_not_one_circuit():
    with pytest.raises(TypeError, match=r"count its \.left or \.right, or both by cost_table"):
        gate_cost(factorization(4, 4))


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (4,), (1, 1)])
def test_a_matrix_that_is_no_gate_is_refused(shape):
    with pytest.raises(ValueError, match="the gate has shape .*; give a .* matrix, w >= 1"):
        gate_cost(np.ones(shape))
