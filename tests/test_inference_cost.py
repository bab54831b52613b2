"""The cost of one inference, against circuits that are built and counted one by one."""

import csv
import io
import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Statevector
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import Optimize1qGatesDecomposition

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.quantum import (
    ENCODINGS,
    AmplitudeTree,
    BrickwallEncoding,
    Hypercube,
    Interference,
    MPSEncoding,
    StaircaseEncoding,
    Tomography,
    cost_table,
    count_circuits,
    count_shots,
    gate_cost,
    inference_cost,
    to_qiskit,
)
from mpodis.quantum.gate_costs import with_cost
from mpodis.quantum.state_preparation import find_encoding, with_reference
from reference import circuit_matrix, random_matrix

READOUTS = [
    pytest.param(readout, id=type(readout).__name__ + str(k))
    for k, readout in enumerate(
        [Interference(1000), Tomography(100), Tomography(100, sign_shots=0), Hypercube(50, 60)]
    )
]


def sides(p, q, *, group="SO", depth=2):
    def side(n, seed):
        ansatz = brickwall(n, depth, min(2, n), group=group) if n else Ansatz(0, (), group)
        return random_circuit(ansatz, seed=seed)

    shape = (2**p, 2**q)
    m = compress(random_matrix(shape), max_bond=2)
    return Factorization(side(p, 3), m.mpo, side(q, 4), shape)


@pytest.fixture(params=["logical", "line", "FakeMontrealV2"])
def backend(request):
    if request.param == "FakeMontrealV2":
        pytest.importorskip("qiskit_ibm_runtime")
    if request.param != "line":
        return request.param
    pairs = [(i, i + 1) for i in range(4)]
    return GenericBackendV2(5, ["rz", "sx", "x", "cx"], coupling_map=pairs, seed=0)


@pytest.mark.parametrize("readout", READOUTS)
def test_settings_and_shots_are_those_of_the_readout(readout):
    f = sides(3, 2)
    found = inference_cost(f, readout=readout, trials=1)
    for side, n in (("left", 3), ("right", 2)):
        rows = [row for row in found.rows if row.side == side]
        assert sum(row.circuits for row in rows) == count_circuits(readout, n)
        assert sum(row.shots for row in rows) == count_shots(readout, n)
        assert [row.n_qubits for row in rows if row.purpose in ("sign", "interference")] == (
            [] if getattr(readout, "sign_shots", 1) == 0 else [n + 1]
        )
    assert found.circuits == sum(count_circuits(readout, n) for n in (3, 2))
    assert found.shots == sum(count_shots(readout, n) for n in (3, 2))
    one, two = found.executed
    assert one == sum(row.executed_one_qubit for row in found.rows)
    assert two == sum(row.shots * row.two_qubit for row in found.rows)


def test_every_setting_counted_by_itself(backend):
    f = sides(3, 0)
    seed = 5
    found = inference_cost(
        f, readout=Tomography(10, sign_shots=0), backend=backend, trials=2, seed=seed
    )
    (row,) = found.rows
    whole = AmplitudeTree(3).circuit.compose(to_qiskit(f.left))
    number = int(np.random.default_rng(seed).integers(2**31))
    compiled, cost = with_cost(whole, backend=backend, trials=2, seed=number)
    names = ["u"] if backend == "logical" else ["rz", "sx", "x"]
    merge = PassManager([Optimize1qGatesDecomposition(basis=names)])
    layout = compiled.layout
    last = range(3) if layout is None else layout.final_index_layout(filter_ancillas=True)
    ones, depths = [], []
    for bases in itertools.product("ZXY", repeat=3):
        measured = compiled.copy()
        for qubit, basis in zip(reversed(last), bases, strict=True):
            if basis == "Y":
                measured.sdg(qubit)
            if basis != "Z":
                measured.h(qubit)
        measured = merge.run(measured)
        ones.append(sum(len(item.qubits) == 1 for item in measured.data))
        depths.append(measured.depth())
    assert row.one_qubit == pytest.approx(np.mean(ones))
    assert row.depth == max(depths)
    assert row.executed_one_qubit == 10 * sum(ones)
    assert (
        row.two_qubit
        == cost.two_qubit
        == gate_cost(whole, backend=backend, trials=2, seed=number).two_qubit
    )
    assert (
        row.encoding_two_qubit
        == gate_cost(AmplitudeTree(3).circuit, backend=backend, trials=2, seed=number).two_qubit
    )


def test_nothing_is_merged_where_nothing_is_optimised():
    f = sides(2, 0)
    merged, plain = (
        inference_cost(f, readout=Interference(10), optimization_level=k).rows[0] for k in (1, 0)
    )
    assert plain.one_qubit >= merged.one_qubit
    whole = AmplitudeTree(3).circuit.compose(to_qiskit(f.left), qubits=range(2))
    assert plain.one_qubit == gate_cost(whole, optimization_level=0).one_qubit + 1  # H


@pytest.mark.parametrize("group", ["O", "U"])
@pytest.mark.parametrize("name", ENCODINGS)
def test_what_is_counted_prepares_the_vectors(name, group):
    encoding = MPSEncoding(4) if name == "mps" else find_encoding(name)
    if name in ("tree", "brickwall") and group == "U":
        with pytest.raises(ValueError, match=f"the {name} encoding prepares real vectors"):
            encoding.prepare(np.ones((1, 8)) * 1j)
        return
    circuit = random_circuit(brickwall(3, 2, group=group), seed=1)
    vectors = random_matrix((2, 8), group == "U")
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    extended, both = with_reference(to_qiskit(circuit), vectors)
    assert np.iscomplexobj(both) == (group == "U")
    prepared = encoding.prepare(both)
    circuits = prepared.circuits
    if prepared.parameters is not None:
        circuits = [circuits[0].assign_parameters(one) for one in prepared.parameters]
    assert len(circuits) == len(prepared.fidelities) == 2
    for vector, first, fidelity in zip(vectors, circuits, prepared.fidelities, strict=True):
        expected = np.concatenate([np.full(8, 8**-0.5), vector @ circuit_matrix(circuit)])
        seen = abs(np.vdot(expected / 2**0.5, Statevector(first.compose(extended)).data)) ** 2
        assert seen == pytest.approx(fidelity, abs=1e-12)
        if name in ("tree", "qiskit", "mps"):  # bond 4 is exact on 4 qubits
            assert fidelity == pytest.approx(1)


@pytest.mark.parametrize("name", ENCODINGS)
def test_one_qubit_is_prepared_exactly(name):
    prepared = find_encoding(name).prepare(np.array([[0.6, -0.8]]))
    circuit = prepared.circuits[0]
    if prepared.parameters is not None:
        circuit = circuit.assign_parameters(prepared.parameters[0])
    assert_allclose(Statevector(circuit).data, [0.6, -0.8], atol=1e-12)
    assert prepared.fidelities == pytest.approx(1)


def test_the_tree_costs_what_it_says():
    f = sides(4, 3)
    identity = Factorization(
        identity_circuit(f.left.ansatz), f.core, identity_circuit(f.right.ansatz), f.shape
    )
    rows = inference_cost(identity, readout=Hypercube()).rows
    counts = {(row.side, row.purpose): (row.two_qubit, row.encoding_two_qubit) for row in rows}
    assert counts == {
        ("left", "hypercube"): (14, 14),
        ("left", "sign"): (30, 30),
        ("right", "hypercube"): (6, 6),
        ("right", "sign"): (14, 14),
    }


def test_truncated_encodings_cost_less_and_say_how_good_they_are():
    f = sides(5, 5)
    fits = [inference_cost(f, encoding=StaircaseEncoding(k), trials=1) for k in (1, 3)]
    exact = inference_cost(f, encoding=MPSEncoding(16), trials=1)
    for few, more, all_of_it in zip(fits[0].rows, fits[1].rows, exact.rows, strict=True):
        assert few.fidelity < more.fidelity < all_of_it.fidelity == pytest.approx(1)
        assert few.two_qubit < more.two_qubit < all_of_it.two_qubit
        assert few.encoding_two_qubit == 10  # five SO(4) gates on six qubits
    assert fits[1].encoding == "StaircaseEncoding(layers=3)"


def test_bricks_cost_two_cnots_each_and_one_on_zeros():
    f = sides(4, 4)
    found = inference_cost(f, encoding=BrickwallEncoding(6), trials=1)
    for row in found.rows:  # five qubits with the ancilla: two bricks a layer
        assert row.encoding_two_qubit == 2 * 1 + 10 * 2
        assert row.fidelity > 0.95


def test_complex_vectors_take_two_settings_of_interference():
    f = sides(2, 2, group="U")
    found = inference_cost(f, encoding="qiskit", readout=Interference(1000))
    assert [(row.circuits, row.shots) for row in found.rows] == [(2, 1000), (2, 1000)]
    with pytest.raises(ValueError, match="use the encoding 'qiskit', 'mps' or 'staircases'"):
        inference_cost(f)
    with pytest.raises(ValueError, match="the hypercube reads real vectors"):
        inference_cost(f, encoding="mps", readout=Hypercube())


def test_a_side_without_qubits_costs_nothing():
    f = sides(3, 0)
    assert {row.side for row in inference_cost(f).rows} == {"left"}
    nothing = Circuit(Ansatz(0, ()), ())
    trivial = Factorization(nothing, compress(np.ones((1, 1))).mpo, nothing, (1, 1))
    found = inference_cost(trivial)
    assert (found.rows, found.shots, found.executed) == ((), 0, (0, 0))


def test_tables_csv_and_plain_data(tmp_path):
    found = inference_cost(sides(2, 1), trials=1)
    rows = list(csv.DictReader(io.StringIO(found.to_csv(tmp_path / "cost.csv"))))
    assert [row["side"] for row in rows] == ["left", "right", "both"]
    assert int(rows[-1]["shots"]) == found.shots == 20_000
    assert int(rows[-1]["2q executed"]) == found.to_dict()["executed_two_qubit"]
    assert found.to_dict()["rows"][0]["side"] == "left"
    table = cost_table(sides(2, 1), backends=["logical"], trials=1)
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["part"] for row in rows][-1] == "both sides"
    assert int(rows[-1]["2-qubit"]) == table.rows[-1][1].two_qubit


def test_a_seed_says_everything():
    f = sides(3, 3)
    first, second = (inference_cost(f, encoding="mps", seed=3) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"encoding": "angle"}, ValueError, "encoding='angle' is not known; use one of tree, qisk"),
        ({"readout": "guess"}, ValueError, "readout='guess' is not known"),
        ({"x": np.ones(3)}, ValueError, r"x of shape \(3,\) must be one finite sample of 4"),
        ({"x": np.full(4, np.nan)}, ValueError, "must be one finite sample of 4"),
        ({"x": np.zeros(4)}, ValueError, "the input of the left circuit is a zero vector"),
        ({"backend": "FakeTokyo"}, ValueError, "backend='FakeTokyo' is not known"),
        ({"optimization_level": 4}, ValueError, "optimization_level=4 must be 0, 1, 2 or 3"),
        ({"encoding": MPSEncoding(3)}, ValueError, "max_bond=3 is not a power of two"),
        ({"encoding": StaircaseEncoding(0)}, ValueError, "layers=0 must be 1 or more"),
    ],
)
def test_wrong_input_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        inference_cost(sides(2, 2), **options)


def test_a_device_that_is_too_small_or_lacks_gates():
    small = GenericBackendV2(2, ["rz", "sx", "x", "cx"], seed=0)
    with pytest.raises(ValueError, match="the circuit has 3 qubits and .* 2"):
        inference_cost(sides(2, 2), backend=small)
    lacking = GenericBackendV2(5, ["rz", "x"], seed=0)
    with pytest.raises(ValueError, match="cannot run the circuit"):
        inference_cost(sides(2, 2), backend=lacking)
