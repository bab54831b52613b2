"""Circuits as OpenQASM 3, QPY and folders, on the matrix with its sign."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from export_cases import CASES, awkward, flipped, places
from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.exchange import circuit_to_quimb
from mpodis.circuit.spec import from_spec
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.quantum import (
    export_circuits,
    from_qasm3,
    from_qiskit,
    from_qpy,
    load_circuits,
    to_qasm3,
    to_qiskit,
    to_qpy,
)
from reference import CNOT, circuit_matrix, embed, random_matrix


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


# ---------------------------------------------------------------------------- OpenQASM 3, QPY


@pytest.mark.no_cover  # Qiskit's slow parser; folders below are traced
@pytest.mark.parametrize("ansatz", CASES)
def test_openqasm_keeps_matrix_and_sign(ansatz):
    circuit = flipped(ansatz)
    text = to_qasm3(circuit)
    long = len(text) > 100_000  # those take Qiskit's parser half a minute
    if circuit.n <= 5 or long:  # by the specification, without Qiskit
        assert_allclose(program_matrix(text), circuit_matrix(circuit).T, atol=1e-10)
    if not long:
        pytest.importorskip("qiskit_qasm3_import")
        assert_allclose(from_qasm3(text).to_dense(), circuit_matrix(circuit), atol=1e-10)


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
    assert_allclose(back.to_dense(), circuit_matrix(circuit), atol=1e-13)
    assert places(back) == places(from_qiskit(to_qiskit(circuit)))
    assert back.is_complex == (ansatz.group == "U")


def test_qpy_keeps_the_phase():
    device = awkward()
    assert_allclose(from_qpy(to_qpy(device)).to_dense(), Operator(device).data.T, atol=1e-13)


def test_bytes_that_are_not_qpy_are_refused():
    data = to_qpy(identity_circuit(brickwall(2, 1)))
    with pytest.raises(ValueError, match="are not QPY"):
        from_qpy(b"\x80\x04" + data)
    with pytest.raises(ValueError, match="QPY of version 10 is refused"):
        from_qpy(data[:6] + b"\x0a" + data[7:])
    with pytest.raises(ValueError, match="is refused"):  # expressions of another library
        from_qpy(data[:18] + b"e" + data[19:])
    with pytest.raises(ValueError, match="not a whole QPY"):
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


def test_text_that_is_not_openqasm_is_refused(monkeypatch):
    pytest.importorskip("qiskit_qasm3_import")
    for text in ("no program", 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nfoo q[0];\n'):
        with pytest.raises(ValueError, match="not OpenQASM 3 that Qiskit can read"):
            from_qasm3(text)
    monkeypatch.setitem(sys.modules, "qiskit_qasm3_import", None)
    with pytest.raises(ImportError, match=r'pip install "mpodis\[hardware\]"'):
        from_qasm3("OPENQASM 3.0;\n")


# ---------------------------------------------------------------------------- folders


@pytest.mark.parametrize("format", ["qasm3", "qpy"])
def test_both_sides_come_back_from_a_folder(tmp_path, format):
    if format == "qasm3":
        pytest.importorskip("qiskit_qasm3_import")
    f = two_sides()
    done = export_circuits(f, tmp_path / "deep" / "out", format=format)
    assert ("2q: cx" in str(done)) == (format == "qasm3")
    with pytest.raises(FileNotFoundError, match=r"circuits.json; give one of .*deep.out$"):
        load_circuits(tmp_path)
    back = load_circuits(done.folder)
    assert list(back) == ["left", "right"]
    for name in back:
        expected = circuit_matrix(getattr(f, name))
        assert_allclose(back[name].to_dense(), expected, atol=1e-10)
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
        assert_allclose(back.to_dense(), Operator(device).data.T, atol=1e-13)
    device.measure_all()
    with pytest.raises(ValueError, match="remove_final_measurements"):
        export_circuits(device, tmp_path / "measured", format=format)
    assert not (tmp_path / "measured").exists()


def test_gates_of_single_precision(tmp_path):
    circuit = flipped(brickwall(3, 2, group="O"))
    rounded = Circuit(circuit.ansatz, tuple(g.astype(np.float32) for g in circuit.gates))
    done = export_circuits(rounded, tmp_path / "out", format="qpy")
    back = load_circuits(done.folder)["circuit"].to_dense()
    assert_allclose(back @ back.T, np.eye(8), atol=1e-14)
    assert_allclose(back, circuit_matrix(circuit), atol=1e-6)
    assert_allclose(circuit_to_quimb(rounded).uni.to_dense(), circuit_matrix(circuit).T, atol=1e-6)


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
        with pytest.raises(ValueError, match=r"right\..* has changed since it was written"):
            load_circuits(done.folder)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"right\..*is missing"):
        load_circuits(done.folder)
    (done.folder / "circuits.json").write_text("{}")
    with pytest.raises(ValueError, match="was not written by export_circuits"):
        load_circuits(done.folder)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_circuits(tmp_path / "elsewhere")
