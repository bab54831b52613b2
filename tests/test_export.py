"""Circuits in and out: Qiskit, quimb, OpenQASM 3 and QPY, on the matrix with its sign."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import Operator, random_unitary

from mpodis.ansatz import Ansatz, Placement, brickwall, from_spec, staircase
from mpodis.circuit import Circuit, identity_circuit, random_circuit
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.quantum import (
    export_circuits,
    from_qasm3,
    from_qiskit,
    from_qpy,
    from_quimb,
    load_circuits,
    to_qasm3,
    to_qiskit,
    to_qpy,
    to_quimb,
)
from reference import CNOT, circuit_matrix, embed, random_matrix, random_member

ANSATZE = {
    "2 wires": brickwall(2, 1, group="O"),
    "1b, 3 wires": brickwall(3, 1, 1, group="O"),
    "2b, 5 wires, shifted": brickwall(5, 3, start=1, group="O"),
    "2b complex, 4 wires": brickwall(4, 3, group="U"),
    "3b, 4 wires": brickwall(4, 2, 3, group="O"),
    "3b staircase complex": staircase(5, 1, 3, group="U"),
    "4b, 7 wires": brickwall(7, 2, 4, group="O"),
    "5b, 8 wires": brickwall(8, 2, 5, group="SO"),
    "5b complex, 5 wires": brickwall(5, 1, 5, group="U"),
    "6b, 6 wires": brickwall(6, 1, 6, group="O"),
    "CNOT scaffold": from_spec("CNOT + 1b + 2*CNOT + 2b", 5, group="O"),
    "CNOTs only": from_spec("3*CNOT", 4),
    "CNOT complex": from_spec("1b + CNOT + 3b", 3, group="U"),
    "idle wires": Ansatz(4, ((Placement((1, 2)),),), "O"),
}
CASES = [pytest.param(ansatz, id=name) for name, ansatz in ANSATZE.items()]


def flipped(ansatz, seed=3):
    """Random gates, those of O(n) with determinant -1."""
    circuit = random_circuit(ansatz, seed=seed)
    if ansatz.group != "O":
        return circuit
    gates = []
    for place, gate in zip(ansatz.placements, circuit.gates, strict=True):
        turn = place.fixed is None and np.linalg.det(gate) > 0
        gates.append(np.vstack([-gate[:1], gate[1:]]) if turn else gate)
    return Circuit(ansatz, tuple(gates))


def factorization(left, right, shape=(8, 4)):
    m = compress(random_matrix(shape), max_bond=2)
    return Factorization(left, m.mpo, right, shape)


def two_sides():
    return factorization(
        flipped(brickwall(3, 3, group="O")), random_circuit(from_spec("CNOT + 2b", 2), seed=4)
    )


def program_matrix(text):
    """Matrix of an OpenQASM 3 program in rz, sx, x, cx and gphase, by the specification."""
    number = r"(-?[\d.]+(?:[eE][-+]?\d+)?)"
    body = [line for line in text.splitlines() if line and not line.startswith("//")]
    assert body[:2] == ["OPENQASM 3.0;", 'include "stdgates.inc";']
    n = int(re.fullmatch(r"qubit\[(\d+)\] q;", body[2])[1])
    matrix = np.eye(2**n, dtype=complex)
    for line in body[3:]:
        if found := re.fullmatch(rf"gphase\({number}\);", line):
            matrix = np.exp(1j * float(found[1])) * matrix
            continue
        name, angle, qubits = re.fullmatch(rf"(\w+)(?:\({number}\))? (.*);", line).groups()
        wires = [n - 1 - int(k) for k in re.findall(r"q\[(\d+)\]", qubits)]
        if name == "rz":
            half = float(angle) / 2
            gate = np.diag([np.exp(-1j * half), np.exp(1j * half)])
        else:
            sx = np.array([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2
            gate = {"sx": sx, "x": np.eye(2)[::-1], "cx": CNOT}[name]
        matrix = embed(gate, wires, n) @ matrix
    return matrix


def places(circuit):
    """Gates in the order in which each wire meets them; layers may be packed more closely."""
    of = circuit.ansatz.placements
    return [[place for place in of if wire in place.wires] for wire in range(circuit.n)]


# ---------------------------------------------------------------------------- Qiskit


@pytest.mark.parametrize("ansatz", CASES)
def test_from_qiskit_undoes_to_qiskit(ansatz):
    circuit = flipped(ansatz)
    back = from_qiskit(to_qiskit(circuit))
    assert_allclose(back.matrix(), circuit_matrix(circuit), atol=1e-13)
    assert back.is_complex == (ansatz.group == "U")
    assert places(back) == places(circuit)


@pytest.mark.parametrize("ansatz", CASES)
def test_a_compiled_circuit_has_the_same_matrix(ansatz):
    circuit = flipped(ansatz)
    device = transpile(to_qiskit(circuit), basis_gates=["u", "cx"], optimization_level=1)
    back = from_qiskit(device)
    assert_allclose(back.matrix(), circuit_matrix(circuit), atol=1e-10)
    assert {place.width for place in back.ansatz.placements} <= {1, 2}


def awkward():
    """Instructions of every kind, on qubits in every order, under a global phase."""
    device = QuantumCircuit(8, global_phase=0.7)
    device.h(3)
    device.ccx(6, 1, 4)
    device.barrier()
    device.cx(0, 7)
    device.cx(5, 4)
    device.cx(4, 5)
    device.append(random_unitary(8, seed=0), [2, 7, 0])
    device.mcx([0, 1, 2, 3, 4, 5], 6)
    inner = QuantumCircuit(7, name="inner", global_phase=-0.4)
    inner.cx(1, 0)
    inner.cry(0.3, 0, 6)
    device.append(inner.to_gate(), [7, 1, 2, 0, 3, 5, 4])
    device.rzz(0.2, 1, 5)
    return device


def test_any_circuit_of_gates():
    device = awkward()
    back = from_qiskit(device)
    assert_allclose(back.matrix(), Operator(device).data.T, atol=1e-13)
    assert_allclose(Operator(to_qiskit(back)).data, Operator(device).data, atol=1e-13)
    assert back.ansatz.group == "U"


def test_a_cx_from_wire_to_next_is_fixed_and_others_are_not():
    device = QuantumCircuit(3)
    device.cx(2, 1)  # wires 0, 1
    device.cx(0, 1)  # wires 2, 1
    device.cx(2, 0)  # wires 0, 2
    back = from_qiskit(device)
    assert [place.fixed for place in back.ansatz.placements] == ["CNOT", None, None, None, None]
    expected = CNOT
    expected = np.kron(CNOT, np.eye(2)) @ embed(CNOT, (2, 1), 3) @ embed(CNOT, (0, 2), 3)
    assert_array_equal(back.matrix(), expected)
    assert back.ansatz.group == "O"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("spec", ["2*CNOT", "1b + CNOT", "2b"])
def test_a_sign_stays_real(spec, sign):
    circuit = random_circuit(from_spec(spec, 3), seed=0)
    device = to_qiskit(circuit)
    device.global_phase = math.pi if sign < 0 else 0
    back = from_qiskit(device)
    assert_allclose(back.matrix(), sign * circuit.matrix(), atol=1e-15)
    assert not back.is_complex
    assert back.ansatz.group == "SO"


def test_a_circuit_without_qubits():
    assert from_qiskit(QuantumCircuit(0)).n == 0
    with pytest.raises(ValueError, match=r"without qubits cannot hold the global phase 1\.0"):
        from_qiskit(QuantumCircuit(0, global_phase=1.0))


def _measured(device):
    device.measure_all()


def _open(device):
    device.rx(Parameter("angle"), 0)


def _prepared(device):
    device.initialize([1, 0, 0, 0])


def _branching(device):
    device.add_bits(QuantumCircuit(0, 1).clbits)
    with device.if_test((device.clbits[0], 1)):
        device.x(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_measured, r"instruction 1 \(measure\) is no gate; .* remove_final_measurements"),
        (_open, r"1 parameters that are not bound \(angle, .* call assign_parameters"),
        (_prepared, r"instruction 0 \(initialize\) has no unitary matrix"),
        (_branching, r"instruction 0 \(if_else\) is no gate"),
        (lambda device: device.reset(1), r"instruction 0 \(reset\) is no gate"),
    ],
)
def test_what_is_no_gate_is_refused(change, message):
    device = QuantumCircuit(2)
    change(device)
    with pytest.raises(ValueError, match=message):
        from_qiskit(device)


def test_a_routed_circuit_is_refused():
    device = to_qiskit(flipped(brickwall(3, 1, 3, group="O")))
    line = [[0, 1], [1, 0], [1, 2], [2, 1]]
    routed = transpile(device, basis_gates=["u", "cx"], coupling_map=line, initial_layout=[2, 0, 1])
    with pytest.raises(ValueError, match="routed to a device"):
        from_qiskit(routed)


# ---------------------------------------------------------------------------- quimb


@pytest.mark.parametrize("ansatz", CASES)
def test_quimb_has_the_transpose_and_gives_it_back(ansatz):
    circuit = flipped(ansatz)
    network = to_quimb(circuit)
    matrix = circuit_matrix(circuit)
    if ansatz is not ANSATZE["idle wires"]:  # quimb leaves them out
        assert_allclose(network.uni.to_dense(), matrix.T, atol=1e-13)
    assert_allclose(network.to_dense().ravel(), matrix[0], atol=1e-13)
    back = from_quimb(network)
    assert_allclose(back.matrix(), matrix, atol=1e-13)
    assert back.is_complex == (ansatz.group == "U")
    assert places(back) == places(circuit)


def test_quimb_and_qiskit_simulate_the_same_state():
    circuit = flipped(brickwall(4, 3, 3, group="O"))
    amplitudes = Operator(to_qiskit(circuit)).data[:, 0]
    assert_allclose(to_quimb(circuit).to_dense().ravel(), amplitudes, atol=1e-13)


def test_named_parametrised_and_controlled_gates_of_quimb():
    network = qtn.Circuit(4)
    network.h(2)
    network.ry(0.3, 1, parametrize=True)
    network.u3(0.1, 0.2, 0.3, 3)
    network.cnot(3, 0)
    network.cx(1, 2)
    network.swap(0, 2)
    network.iden(1)
    network.rzz(0.4, 3, 1)
    network.apply_gate("RX", params=(0.7,), qubits=[1], controls=[3, 0])
    network.apply_gate_raw(random_member(8, "U", seed=1), (2, 0, 3))
    back = from_quimb(network)
    assert_allclose(back.matrix().T, network.uni.to_dense(), atol=1e-12)
    assert "CNOT" in [place.fixed for place in back.ansatz.placements]


def test_quimb_gates_that_are_not_unitary_are_refused():
    network = qtn.Circuit(2)
    network.apply_gate_raw(2 * np.eye(4), (0, 1))
    with pytest.raises(ValueError, match=r"gate 0 on wires \(0, 1\) is not unitary .* 3.0e\+00"):
        from_quimb(network)
    with pytest.raises(ValueError, match="without wires"):
        to_quimb(identity_circuit(Ansatz(0, ())))


# ---------------------------------------------------------------------------- OpenQASM 3, QPY


@pytest.mark.parametrize("ansatz", CASES)
def test_openqasm_keeps_matrix_and_sign(ansatz):
    circuit = flipped(ansatz)
    text = to_qasm3(circuit)
    if circuit.n <= 5:  # by the specification, without Qiskit
        assert_allclose(program_matrix(text), circuit_matrix(circuit).T, atol=1e-10)
    pytest.importorskip("qiskit_qasm3_import")
    assert_allclose(from_qasm3(text).matrix(), circuit_matrix(circuit), atol=1e-10)


def test_the_phase_is_a_statement_and_matters():
    circuit = flipped(brickwall(3, 1, 3, group="O"))
    text = to_qasm3(circuit)
    without = "\n".join(line for line in text.splitlines() if not line.startswith("gphase"))
    assert without.count("\n") == text.count("\n") - 2
    off = program_matrix(without) - circuit_matrix(circuit).T
    assert np.abs(off).max() > 0.1


def test_angles_are_written_in_full():
    # Qiskit's own writer rounds what is within 1e-9 of a fraction of pi
    device = QuantumCircuit(1)
    device.rz(math.pi / 2 + 3e-10, 0)
    assert_allclose(program_matrix(to_qasm3(device)), Operator(device).data, rtol=0, atol=1e-15)


def test_what_the_synthesis_leaves_out_is_said(tmp_path):
    circuit = random_circuit(brickwall(3, 2), seed=0, scale=1e-6)
    done = export_circuits(circuit, tmp_path / "out")
    text = (done.folder / "circuit.qasm").read_text()
    error = np.linalg.norm(program_matrix(text) - circuit_matrix(circuit).T, 2)
    assert 1e-8 < done.circuits["circuit"]["deviation"] <= error < 1e-4
    exact = export_circuits(circuit, tmp_path / "whole", format="qpy")
    assert exact.circuits["circuit"]["deviation"] < 1e-14


@pytest.mark.parametrize("ansatz", CASES)
def test_qpy_keeps_every_gate(ansatz):
    circuit = flipped(ansatz)
    back = from_qpy(to_qpy(circuit))
    assert_allclose(back.matrix(), circuit_matrix(circuit), atol=1e-13)
    assert places(back) == places(from_qiskit(to_qiskit(circuit)))
    assert back.is_complex == (ansatz.group == "U")


def test_qpy_keeps_the_phase():
    device = awkward()
    assert_allclose(from_qpy(to_qpy(device)).matrix(), Operator(device).data.T, atol=1e-13)


def test_what_is_no_qpy_is_refused():
    data = to_qpy(identity_circuit(brickwall(2, 1)))
    with pytest.raises(ValueError, match="are no QPY"):
        from_qpy(b"\x80\x04" + data)
    with pytest.raises(ValueError, match="QPY of version 10 is not read"):
        from_qpy(data[:6] + b"\x0a" + data[7:])
    with pytest.raises(ValueError, match="is not read"):  # expressions of another library
        from_qpy(data[:18] + b"e" + data[19:])
    with pytest.raises(ValueError, match="no whole QPY"):
        from_qpy(data[:60])


def test_reading_qpy_loads_no_pickle():
    data = to_qpy(flipped(brickwall(3, 1, group="O")))
    code = (
        "import pickle, _pickle, sys, io\n"
        "from mpodis.quantum import from_qpy\n"
        "data = sys.stdin.buffer.read()\n"
        "def no(*a, **k): raise SystemExit('a pickle was read')\n"
        "pickle.load = pickle.loads = pickle.Unpickler = no\n"
        "_pickle.load = _pickle.loads = _pickle.Unpickler = no\n"
        "print(from_qpy(data).n)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=data, capture_output=True, check=False
    )
    assert done.stdout.split() == [b"3"], done.stderr


def test_what_is_no_openqasm_is_refused(monkeypatch):
    pytest.importorskip("qiskit_qasm3_import")
    for text in ("no program", 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nfoo q[0];\n'):
        with pytest.raises(ValueError, match="no OpenQASM 3 that Qiskit can read"):
            from_qasm3(text)
    monkeypatch.setitem(sys.modules, "qiskit_qasm3_import", None)
    with pytest.raises(ImportError, match=r"pip install mpodis\[hardware\]"):
        from_qasm3("OPENQASM 3.0;\n")


# ---------------------------------------------------------------------------- folders


@pytest.mark.parametrize("format", ["qasm3", "qpy"])
def test_both_sides_come_back_from_a_folder(tmp_path, format):
    if format == "qasm3":
        pytest.importorskip("qiskit_qasm3_import")
    f = two_sides()
    done = export_circuits(f, tmp_path / "deep" / "out", format=format)
    back = load_circuits(done.folder)
    assert list(back) == ["left", "right"]
    for name in back:
        expected = circuit_matrix(getattr(f, name))
        assert_allclose(back[name].matrix(), expected, atol=1e-10)
    assert "left" in str(done)
    assert "<table>" in done._repr_html_()
    assert done.circuits["left"]["qubits"] == 3
    index = json.loads((done.folder / "circuits.json").read_text())
    assert index["circuits"] == done.circuits
    assert index["shape"] == [8, 4]


def test_the_phase_lies_beside_the_program(tmp_path):
    circuit = flipped(brickwall(3, 2, 3, group="O"))
    done = export_circuits(circuit, tmp_path / "out")
    phase = done.circuits["circuit"]["global_phase"]
    text = (done.folder / "circuit.qasm").read_text()
    without = "\n".join(line for line in text.splitlines() if not line.startswith("gphase"))
    assert_allclose(
        np.exp(1j * phase) * program_matrix(without), circuit_matrix(circuit).T, atol=1e-10
    )
    assert done.circuits["circuit"]["two_qubit"] == len(re.findall("^cx", text, re.M))


@pytest.mark.parametrize("format", ["qasm3", "qpy"])
def test_a_circuit_of_qiskit_as_it_is(tmp_path, format):
    device = awkward()
    done = export_circuits(device, tmp_path / "out", format=format)
    assert done.circuits["circuit"]["deviation"] < 1e-10
    if format == "qpy":
        back = load_circuits(done.folder)["circuit"]
        assert_allclose(back.matrix(), Operator(device).data.T, atol=1e-13)
    device.measure_all()
    with pytest.raises(ValueError, match="remove_final_measurements"):
        export_circuits(device, tmp_path / "measured", format=format)
    assert not (tmp_path / "measured").exists()


def test_gates_of_single_precision(tmp_path):
    circuit = flipped(brickwall(3, 2, group="O"))
    rounded = Circuit(circuit.ansatz, tuple(g.astype(np.float32) for g in circuit.gates))
    done = export_circuits(rounded, tmp_path / "out", format="qpy")
    back = load_circuits(done.folder)["circuit"].matrix()
    assert_allclose(back @ back.T, np.eye(8), atol=1e-14)
    assert_allclose(back, circuit_matrix(circuit), atol=1e-6)
    assert_allclose(to_quimb(rounded).uni.to_dense(), circuit_matrix(circuit).T, atol=1e-6)


def test_a_side_without_qubits_has_no_file(tmp_path):
    f = factorization(random_circuit(brickwall(3, 1), seed=0), Circuit(Ansatz(0, ()), ()), (8, 1))
    done = export_circuits(f, tmp_path / "out", format="qpy")
    assert sorted(path.name for path in done.folder.iterdir()) == ["circuits.json", "left.qpy"]
    assert load_circuits(done.folder)["right"].n == 0


def test_nothing_is_written_where_something_is_wrong(tmp_path):
    bad = Circuit(brickwall(2, 1), (1.1 * np.eye(4),))
    f = factorization(random_circuit(brickwall(3, 1), seed=0), bad)
    with pytest.raises(ValueError, match="from the nearest unitary"):
        export_circuits(f, tmp_path / "out")
    with pytest.raises(ValueError, match="format='svg' is not known; use one of qasm3, qpy"):
        export_circuits(two_sides(), tmp_path / "out", format="svg")
    assert not (tmp_path / "out").exists()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty; choose another folder"):
        export_circuits(two_sides(), tmp_path)


@pytest.mark.parametrize("format", ["qasm3", "qpy"])
def test_files_that_have_changed_are_not_read(tmp_path, format):
    done = export_circuits(two_sides(), tmp_path / "out", format=format)
    file = done.folder / done.circuits["right"]["file"]
    whole = file.read_bytes()
    for damaged in (whole[:-20], whole[:-1] + b" ", b""):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"right\..* is not what was written"):
            load_circuits(done.folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"right\..*is missing"):
        load_circuits(done.folder)
    (done.folder / "circuits.json").write_text("{}")
    with pytest.raises(ValueError, match="was not written by export_circuits"):
        load_circuits(done.folder)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_circuits(tmp_path / "elsewhere")
