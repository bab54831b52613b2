"""Fewer CNOTs at the same unitary, or at the same overlap of a layer: against dense algebra."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from mpodis import (
    Ansatz,
    Circuit,
    Factorization,
    Placement,
    brickwall,
    circuit_group,
    cnot_count,
    compress,
    disentangle,
    embed,
    from_spec,
    mpo_from_tensors,
    random_circuit,
    resynthesise,
    to_mpo,
)
from mpodis.gates import named_gate
from mpodis.quantum import from_qiskit, gate_cost
from mpodis.resynthesis.cnot_search import CnotSearch, insertions, removals
from mpodis.resynthesis.resynthesise import _unitary
from mpodis.resynthesis.rewriting import _fewest_layers, compile_wide_gates
from reference import circuit_matrix, overlap, random_matrix, random_member

QUICK = {"n_searches": 1, "rounds": 1, "trials": 2}


def wide(width, group, seed, det=None):
    gate = random_member(2**width, group, seed)
    if det is not None and np.linalg.det(gate) * det < 0:
        gate[0] *= -1
    return Circuit(Ansatz(width, ((Placement(tuple(range(width))),),), group), (gate,))


def fidelity(a, b):
    """Re Tr(A^H B) / 2^n of circuits, densely."""
    a, b = circuit_matrix(a), circuit_matrix(b)
    return np.vdot(a, b).real / len(a)


# ------------------------------------------------------------------------ wide gates compiled


@pytest.mark.no_cover  # long; the next test has the same lines
@pytest.mark.parametrize(
    ("group", "det", "own", "cnots"),
    [("SO", 1, "SO", 14), ("O", 1, "O", 14), ("O", -1, "U", 21), ("U", None, "U", 21)],
)
def test_a_gate_on_three_wires_becomes_gates_on_two(group, det, own, cnots):
    gate = wide(3, group, 3, det)
    found = compile_wide_gates(gate, seed=1)
    assert {p.width for p in found.ansatz.placements} <= {1, 2}
    assert found.ansatz.group == own
    assert cnot_count(found) <= cnots
    assert_allclose(fidelity(gate, found), 1.0, atol=1e-8)
    assert gate_cost(gate, optimization_level=3, trials=1).two_qubit > cnots - 3


def test_compiling_keeps_narrow_gates_and_the_order():
    layers = (
        (Placement((0, 1)), Placement((2, 3, 4))),
        (Placement((1, 2), "CNOT"), Placement((3,))),
        (Placement((0, 1, 2)),),
    )
    circuit = random_circuit(Ansatz(5, layers, "SO"), seed=4)
    found = compile_wide_gates(circuit, seed=0)
    assert_allclose(circuit_matrix(found), circuit_matrix(circuit), atol=1e-3)
    assert_allclose(fidelity(circuit, found), 1.0, atol=1e-8)
    assert [p.fixed for p in found.ansatz.placements].count("CNOT") == 1
    assert found.ansatz.group == "SO"
    same = compile_wide_gates(random_circuit(brickwall(4, 2), seed=1))
    assert_allclose(
        circuit_matrix(same), circuit_matrix(random_circuit(brickwall(4, 2), seed=1)), atol=0
    )


@pytest.mark.parametrize(("width", "group"), [(3, "SO"), (4, "SO"), (3, "U"), (4, "U")])
def test_the_fewest_layers_have_as_many_angles_as_the_gate_and_one_less_has_not(width, group):
    """Rank of the Jacobian of a brickwall's matrix by its gates, at a random point."""
    depth = _fewest_layers(width, group)
    size = 2**width
    needed = size * (size - 1) // 2 if group == "SO" else size**2 - 1
    assert _rank(width, depth, group) == needed
    assert _rank(width, depth - 1, group) < needed


def _rank(width, depth, group):
    circuit = random_circuit(brickwall(width, depth, group=group, fill=False), seed=0)
    matrix, after = circuit_matrix(circuit), np.eye(2**width)
    rows = []
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        ahead, behind = place.wires[0], width - 1 - place.wires[-1]
        lift = lambda x, a=ahead, b=behind: np.kron(np.kron(np.eye(2**a), x), np.eye(2**b))  # noqa: E731
        after = after @ lift(gate)
        for generator in _generators(len(gate), group):
            # d(A g exp(X) B) = A g X B = (A g) X (A g)^H M
            change = after @ lift(generator) @ after.conj().T @ matrix
            rows.append(np.concatenate([change.real.ravel(), change.imag.ravel()]))
    return np.linalg.matrix_rank(np.array(rows), tol=1e-9)


def _generators(size, group):
    for i in range(size):
        for j in range(i):
            x = np.zeros((size, size))
            x[i, j], x[j, i] = 1, -1
            yield x
            if group == "U":
                yield 1j * np.abs(x)
    if group == "U":
        for i in range(size - 1):
            yield np.diag(1j * (np.arange(size) == i) - 1j * (np.arange(size) == i + 1))


def test_gates_that_are_too_wide_are_refused():
    with pytest.raises(ValueError, match=r"gate 0 on wires \(0, 1, 2, 3, 4\) has 5 wires"):
        resynthesise(wide(5, "SO", 0))


# ------------------------------------------------------------------------------- unitaries


@pytest.mark.no_cover  # long; smaller circuits are traced
@pytest.mark.parametrize("group", ["SO", "O", "U"])
def test_gates_that_cancel_are_removed(group):
    """A brickwall of two layers, written as one of six with rotations that cancel."""
    short = random_circuit(brickwall(4, 2, group=group, fill=False), seed=5)
    gates, layers = [], []
    rng = np.random.default_rng(3)
    for layer in short.ansatz.layers:
        for place in layer:
            twist = random_member(4, "SO" if group == "O" else group, int(rng.integers(99)))
            j = sum(map(len, layers))
            middle = Placement((1, 2))
            layers += [(place,), (middle,), (middle,)]
            gates += [short.gates[len(gates) // 3], twist, twist.conj().T]
            assert j == len(gates) - 3
    long = Circuit(Ansatz(4, tuple(layers), group), tuple(gates))
    assert_allclose(circuit_matrix(long), circuit_matrix(short), atol=1e-12)
    found = resynthesise(long, tol=1e-9, **QUICK)
    assert found.cnots_before == cnot_count(long)
    assert found.cnots == cnot_count(found.circuit) <= cnot_count(short)
    assert found.status == "reduced"
    assert_allclose(circuit_matrix(found.circuit), circuit_matrix(short), atol=1e-4)
    assert gate_cost(found.circuit, optimization_level=1, trials=1).two_qubit <= found.cnots


@pytest.mark.no_cover  # long; smaller circuits are traced
@pytest.mark.parametrize("tol", [1e-6, 1e-3, 1e-2])
def test_weak_gates_are_removed_within_the_tolerance(tol):
    """Gates near the identity, as grown circuits have them: Qiskit leaves all of them."""
    circuit = random_circuit(brickwall(4, 6), seed=2, scale=0.08)
    found = resynthesise(circuit, tol=tol, **QUICK)
    assert_allclose(found.overlap, fidelity(circuit, found.circuit), atol=1e-12)
    assert found.overlap >= 1 - tol - 1e-11
    assert found.overlap_before == pytest.approx(1, abs=1e-12)
    qiskit = gate_cost(circuit, optimization_level=3, trials=1).two_qubit
    ours = gate_cost(found.circuit, optimization_level=1, trials=1).two_qubit
    assert ours <= found.cnots <= cnot_count(circuit) == qiskit
    if tol >= 1e-3:
        assert found.cnots < qiskit
    losses = [p.loss for p in found.points]
    assert losses == sorted(losses, reverse=True)


@pytest.mark.no_cover  # four of the searches that are traced elsewhere
def test_a_larger_tolerance_never_costs_more():
    circuit = random_circuit(brickwall(3, 4), seed=7, scale=0.15)
    counts = [resynthesise(circuit, tol=t, **QUICK).cnots for t in (0.0, 1e-3, 1e-1, 0.99)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == cnot_count(circuit)
    assert counts[-1] == 0


def test_a_random_brickwall_is_unchanged():
    """Its angles are independent: fewer CNOTs have fewer of them."""
    circuit = random_circuit(brickwall(4, 3, fill=False), seed=1)
    found = resynthesise(circuit, tol=1e-6, **QUICK)
    assert found.status == "unchanged"
    assert found.cnots == cnot_count(circuit)
    assert_allclose(circuit_matrix(found.circuit), circuit_matrix(circuit), atol=1e-9)
    assert any("larger tol=" in note for note in found.table().notes)


def test_a_matrix_is_a_gate_on_all_wires():
    target = random_member(8, "SO", 11)
    found = resynthesise(target, tol=1e-8, **QUICK)
    assert found.cnots_before is None
    assert found.cnots <= 14
    assert_allclose(circuit_matrix(found.circuit), target, atol=1e-3)
    two = random_member(4, "O", 0)
    two[0] *= -np.sign(np.linalg.det(two))
    assert resynthesise(two, **QUICK).cnots_before == 3


def test_a_circuit_of_qiskit_is_read_first():
    qiskit = QuantumCircuit(4, global_phase=0.3)
    for k in range(3):
        qiskit.rx(0.4 + k, k)
        qiskit.cx(k + 1, k)
        qiskit.rz(0.02, k)
        qiskit.cx(k + 1, k)
    qiskit.cx(0, 3)
    qiskit.cx(0, 3)
    given = from_qiskit(qiskit)
    found = resynthesise(given, tol=1e-3, **QUICK)
    # Tr of matrices transposed on both sides is the same
    value = np.vdot(Operator(qiskit).data.T, circuit_matrix(found.circuit)).real / 16
    assert value >= 1 - 1e-3 - 1e-10
    assert found.cnots < gate_cost(qiskit, optimization_level=3, trials=1).two_qubit


@pytest.mark.no_cover  # many searches; their lines are those of CNOTs
@pytest.mark.parametrize(
    ("name", "group"),
    [("CZ", "SO"), ("SWAP", "O"), ("CZ", "U"), ("SWAP", "U"), ("iSWAP", "U"), ("ECR", "U")],
)
def test_registered_gates_are_replaced_where_they_do_little(name, group):
    """A gate and its inverse with a weak gate on one of the wires between them."""
    gate = named_gate(name).matrix
    own_inverse = np.allclose(gate @ gate, np.eye(4))
    layers = (
        (Placement((0, 1), name),),
        (Placement((1, 2)),),
        (Placement((0, 1), name if own_inverse else None),),
        (Placement((1, 2), name),),
    )
    weak = random_circuit(Ansatz(2, ((Placement((0, 1)),),), group), seed=3, scale=0.01).gates[0]
    circuit = Circuit(Ansatz(3, layers, group), (gate, weak, gate.conj().T, gate))
    found = resynthesise(circuit, tol=1e-2, **QUICK)
    assert found.cnots_before == cnot_count(circuit)
    assert found.cnots <= named_gate(name).n_cnots
    assert fidelity(circuit, found.circuit) >= 1 - 1e-2 - 1e-11


@pytest.mark.parametrize("group", ["SO", "U"])
def test_gates_on_any_wires_are_routed_first(group):
    places = (Placement((0, 2)), Placement((3, 1), "CNOT"), Placement((2, 1, 3)), Placement((3, 0)))
    circuit = random_circuit(Ansatz(4, tuple((p,) for p in places), group), seed=1)
    narrow = Ansatz(4, tuple((p,) for p in (*places[:2], places[3])), group)
    narrow = random_circuit(narrow, seed=1)
    for given in (narrow, *([circuit] if group == "SO" else [])):
        found = resynthesise(given, tol=1e-6, n_searches=1, rounds=1, trials=1)
        assert all(p.is_local and p.width <= 2 for p in found.circuit.ansatz.placements)
        assert fidelity(given, found.circuit) >= 1 - 1e-6 - 1e-8
        if found.cnots_before is not None:
            assert cnot_count(given) < found.cnots <= found.cnots_before


def test_a_fixed_core_stays_the_identity():
    circuit = random_circuit(from_spec("2b + CNOT + 1b", 3), seed=2)
    task, first = _unitary(circuit, 0)
    point = task.point(first, "given")
    assert point.overlap == pytest.approx(1, abs=1e-12)
    for shorter in removals(task, point, most=3) + insertions(task, point, most=3):
        settled = task.reoptimise(shorter, "x", sweeps=8).factorization
        core = settled.core_to_dense()
        assert_allclose(core, core[0, 0] * np.eye(8), atol=1e-12)
        assert not settled.right.gates
        assert_allclose(
            task.loss.value(settled.padded_to_dense()),
            1 - fidelity(circuit, settled.left),
            atol=1e-12,
        )


@pytest.mark.parametrize("n", [1, 2])
def test_one_wire_or_two(n):
    circuit = random_circuit(brickwall(n, 2, min(n, 2)), seed=0)
    found = resynthesise(circuit, **QUICK)
    assert found.cnots == (0 if n == 1 else 2)
    assert found.overlap >= 1 - 1e-3


# ---------------------------------------------------------------------------------- layers


@pytest.fixture(scope="module")
def layer():
    """A product between weak circuits, by circuits of a layer more than it was made with."""
    rng = np.random.default_rng(2)
    core = mpo_from_tensors([rng.normal(size=(1, 2, 2, 1)) for _ in range(3)])
    ansatz = brickwall(3, 3, fill=False)
    left, right = (random_circuit(a, seed=rng, scale=0.4) for a in (ansatz, ansatz.reversed()))
    operator = to_mpo(Factorization(left, core, right, (8, 8)))
    return operator, disentangle(operator, depth=4, max_sweeps=30, init="identity", seed=0)


def test_a_layer_keeps_its_overlap_with_fewer_cnots_than_qiskit(layer):
    operator, given = layer
    found = resynthesise(given, operator, tol=1e-3, **QUICK)
    before = given.factorization
    target = before.overlap(operator)
    assert_allclose(found.overlap_before, target, atol=1e-12)
    assert_allclose(found.overlap, found.factorization.overlap(operator), atol=1e-12)
    assert found.overlap >= target - 1e-3 - 1e-11
    qiskit, ours = (
        sum(gate_cost(c, optimization_level=level, trials=1).two_qubit for c in (f.left, f.right))
        for f, level in ((before, 3), (found.factorization, 1))
    )
    assert ours <= found.cnots == cnot_count(found.factorization) < qiskit == found.cnots_before


@pytest.mark.no_cover  # three searches; the test above is traced
def test_a_layer_loses_more_cnots_than_its_circuits(layer):
    operator, given = layer
    whole = resynthesise(given, operator, tol=1e-2, **QUICK)
    sides = (given.factorization.left, given.factorization.right)
    alone = sum(resynthesise(side, tol=1e-2, **QUICK).cnots for side in sides)
    assert whole.cnots < alone


def test_a_side_without_gates_gets_none(layer):
    operator, _ = layer
    nothing = Ansatz(3, (), "SO")
    given = disentangle(operator, left=3, right=nothing, max_sweeps=20, init="identity")
    found = resynthesise(given, operator, tol=3e-2, **QUICK)
    assert not found.factorization.right.gates
    assert found.overlap >= given.overlap - 3e-2 - 1e-11
    assert found.cnots < found.cnots_before


@pytest.mark.no_cover  # long; the layer above is traced
def test_a_planted_layer_loses_its_trivial_gates():
    """Circuits of two layers, embedded in four: the two that are trivial go, at overlap 1."""
    rng = np.random.default_rng(2)
    core = mpo_from_tensors([rng.normal(size=(1, 2, 2, 1)) for _ in range(4)])
    ansatz = brickwall(4, 2, fill=False)
    left, right = (random_circuit(a, seed=rng) for a in (ansatz, ansatz.reversed()))
    hidden = Factorization(left, core, right, (16, 16))
    longer = brickwall(4, 4, fill=False)
    given = Factorization(
        embed(left, longer),
        core,
        embed(right, longer.reversed(), outermost="right"),
        (16, 16),
    )
    found = resynthesise(given, to_mpo(hidden), tol=1e-6, **QUICK)
    assert found.cnots <= cnot_count(hidden)
    assert_allclose(overlap(hidden.to_dense(), found.factorization.to_dense()), 1, atol=2e-6)


def test_the_error_of_the_activations_is_kept():
    target = random_matrix((8, 8), seed=1)
    inputs = random_matrix((50, 8), seed=2) @ np.diag(np.arange(1.0, 9.0))
    mpo = compress(target)
    options = {"objective": "activations", "inputs": inputs}
    given = disentangle(mpo, depth=2, max_sweeps=15, init="identity", n_init=1, **options)
    found = resynthesise(given, mpo, tol=0.1, **options, **QUICK)

    def error(factorization):
        miss = inputs @ (target - factorization.to_dense())
        return (np.linalg.norm(miss) / np.linalg.norm(inputs @ target)) ** 2

    assert_allclose(found.loss, error(found.factorization), rtol=1e-8)
    assert found.loss <= error(given.factorization) + 0.1 + 1e-10
    assert found.cnots < found.cnots_before


# --------------------------------------------------------------------------------- searching


def test_no_step_is_taken_from_points_above_the_largest_loss():
    circuit = random_circuit(brickwall(4, 4), seed=0, scale=0.1)
    task, first = _unitary(circuit, 0)
    search = CnotSearch(task, [task.point(first, "given")], trials=1, sweeps=4, max_loss=1e-3)
    search.remove("pruned")
    expanded = {cnots for cnots, _ in search.tried["removals"]}
    above = {p.cnots for p in search.points if p.loss > 1e-3}
    assert above
    assert not expanded & above
    assert expanded


def test_removals_can_be_drawn():
    circuit = random_circuit(brickwall(4, 4), seed=0, scale=0.1)
    task, first = _unitary(circuit, 0)
    point = task.point(first, "given")
    drawn = removals(task, point, most=2, rng=np.random.default_rng(1))
    plain = removals(task, point, most=6)
    matrices = [one.padded_to_dense() for one in plain]
    for one in drawn:
        assert any(np.allclose(one.padded_to_dense(), m) for m in matrices)
    assert len(drawn) == 2
    again = removals(task, point, most=2, rng=np.random.default_rng(1))
    for a, b in zip(drawn, again, strict=True):
        assert_array_equal(a.padded_to_dense(), b.padded_to_dense())


@pytest.mark.no_cover  # two searches; their lines are traced elsewhere
def test_the_same_seed_gives_the_same_gates():
    circuit = random_circuit(brickwall(3, 3), seed=3, scale=0.2)
    options = {"tol": 1e-2, "n_searches": 2, "rounds": 1, "trials": 1, "seed": 4}
    a, b = (resynthesise(circuit, **options) for _ in range(2))
    for x, y in zip(a.circuit.gates, b.circuit.gates, strict=True):
        assert_array_equal(x, y)
    assert circuit_group(a.circuit.ansatz) == "SO"


def test_a_result_as_table_and_json(layer):
    operator, given = layer
    found = resynthesise(given, operator, tol=1e-3, **QUICK)
    assert dict(zip(("name", "before", "after"), found.table().rows[0], strict=True)) == {
        "name": "CNOTs",
        "before": found.cnots_before,
        "after": found.cnots,
    }
    figures = found.to_dict()
    assert figures["cnots"] == found.cnots
    assert min(n for n, _ in figures["front"]) <= found.cnots
    with pytest.raises(AttributeError, match=r"of a layer; use \.factorization"):
        _ = found.circuit
    circuit = resynthesise(random_circuit(brickwall(2, 1), seed=0), n_searches=1)
    with pytest.raises(AttributeError, match=r"of a circuit; use \.circuit"):
        _ = circuit.factorization


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_searches": 0}, "n_searches=0 must be a whole number, 1 or more"),
        ({"rounds": True}, "rounds=True must be a whole number"),
        ({"trials": 0}, "trials=0 must be"),
        ({"sweeps": 0}, "sweeps=0 must be"),
        ({"tol": -1e-3}, "tol=-0.001 must be a number from 0"),
        ({"tol": float("nan")}, "tol=nan must be a number"),
        ({"tol": 1.0}, "tol=1.0 must be"),
        ({"objective": "activations"}, "belong to a layer; a circuit keeps its own unitary"),
        ({"covariance": np.eye(4)}, "covariance= belong to a layer"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        resynthesise(random_circuit(brickwall(2, 1), seed=0), **options)


def test_inputs_that_are_refused(layer):
    with pytest.raises(ValueError, match="give operator=, or resynthesise its .left and .right"):
        resynthesise(layer[1])
    with pytest.raises(ValueError, match="not unitary: W W.H differs from 1 by 3; `disentangle`"):
        resynthesise(2 * np.eye(4))
    with pytest.raises(ValueError, match=r"shape \(3, 3\); circuits act on"):
        resynthesise(np.eye(3))
    with pytest.raises(ValueError, match="up to 1024 rows"):
        resynthesise(random_circuit(brickwall(11, 1), seed=0))
