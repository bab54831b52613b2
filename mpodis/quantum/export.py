"""Circuits as files: OpenQASM 3 and QPY, the global phase kept, and back again.

Activations have a sign, so a circuit's global phase matters. Qiskit's OpenQASM 3 leaves it out;
here it is a ``gphase`` statement. Qiskit's U differs from the specification's by a phase, so gates
are written in rz, sx, x and cx, on which all agree. QPY keeps everything.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit, qasm3, qpy, transpile
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Statevector

from mpodis import __version__
from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization
from mpodis.files import check_empty, read_json, write_atomic, write_json
from mpodis.quantum.convert import from_qiskit, to_qiskit
from mpodis.tables import Table, Tabular

__all__ = [
    "ExportedCircuits",
    "export_circuits",
    "from_qasm3",
    "from_qpy",
    "load_circuits",
    "to_qasm3",
    "to_qpy",
]

BASIS = ("rz", "sx", "x", "cx")
"""Gates of the OpenQASM 3 files."""

INDEX = "circuits.json"
"""File beside the circuits of a folder, with their file names, checksums, qubits and phases."""

_FORMAT = "mpodis-circuits-1"
_SUFFIX = {"qasm3": ".qasm", "qpy": ".qpy"}
_CHECKED = 14  # largest number of qubits for which a file is compared with the circuit
_OLDEST_QPY = 13  # older versions may hold expressions in the serialisation of another library
_CONVENTION = (
    "Row vectors y = x @ Q become column vectors: the device applies the transpose of Q, "
    "global phase included. Wire k, from the most significant bit, is qubit n-1-k."
)


@dataclass(frozen=True)
class ExportedCircuits(Tabular):
    """The circuits that `export_circuits` has written; prints as a table.

    Attributes
    ----------
    folder : Path
    circuits : mapping
        By name ("left" and "right", or "circuit"), as in `INDEX`; the file of a side without
        qubits is None. "deviation" is |U x - V x| for a random unit vector x, the circuit's
        unitary U and the file's V, up to 14 qubits.
    """

    folder: Path
    circuits: Mapping[str, dict]

    def table(self) -> Table:
        names = ("file", "qubits", "one_qubit", "two_qubit", "wider", "depth")
        names += ("global_phase", "deviation")
        rows = [(name, *(found[key] for key in names)) for name, found in self.circuits.items()]
        notes = ["deviation: error of the file on a random unit vector, sign included"]
        if any(str(found["file"]).endswith(".qasm") for found in self.circuits.values()):
            notes.insert(0, "1q: rz, sx and x, where `gate_cost` counts u; 2q: cx")
        return Table(
            ("circuit", "file", "qubits", "1q", "2q", "wider", "depth", "phase", "deviation"),
            rows,
            title=f"written to {self.folder}",
            notes=notes,
        )


def to_qasm3(circuit: Circuit | QuantumCircuit) -> str:
    """OpenQASM 3 of a circuit, in rz, sx, x and cx, with all digits of every number.

    Parameters
    ----------
    circuit : Circuit or QuantumCircuit

    Returns
    -------
    str
        Its last statement is ``gphase(...)`` if the phase is not zero.

    Notes
    -----
    Qiskit replaces a 2-body gate by a simpler one whose fidelity differs by less than 1e-9, so
    elements of gates near the identity may be off by 1e-5. `export_circuits` measures by how much.

    Examples
    --------
    >>> from mpodis import from_spec, identity_circuit
    >>> print(to_qasm3(identity_circuit(from_spec("CNOT", 2))).splitlines()[-1])
    cx q[1], q[0];
    """
    device = _in_basis(circuit)
    text = qasm3.dumps(device, disable_constants=True)
    phase = _phase(device)
    if phase:
        text += f"gphase({phase!r});\n"
    return f"// {_CONVENTION}\n{text}"


def from_qasm3(text: str) -> Circuit:
    """The `Circuit` of an OpenQASM 3 program, see `from_qiskit`.

    Gates are Qiskit's: U, and gates defined by it, have Qiskit's phase, not the specification's.

    Raises
    ------
    ImportError
        Without qiskit-qasm3-import, which is in the extra ``mpodis[hardware]``.
    ValueError
        If the text is not OpenQASM 3, or has an instruction that is not a gate.
    """
    try:
        from openqasm3.parser import QASM3ParsingError
        from qiskit_qasm3_import import ConversionError
    except ImportError as error:
        raise ImportError(
            'reading OpenQASM 3 needs qiskit-qasm3-import: pip install "mpodis[hardware]"'
        ) from error
    try:
        device = qasm3.loads(text)
    except (QiskitError, QASM3ParsingError, ConversionError) as error:
        reason = " ".join(str(error).split()) or "its syntax is wrong"
        raise ValueError(f"the text is not OpenQASM 3 that Qiskit can read: {reason}") from None
    return from_qiskit(device)


def to_qpy(circuit: Circuit | QuantumCircuit) -> bytes:
    """QPY, Qiskit's format, of a circuit; its gates are kept as matrices."""
    stream = io.BytesIO()
    qpy.dump(_device(circuit), stream)
    return stream.getvalue()


def from_qpy(data: bytes) -> Circuit:
    """The `Circuit` of a QPY file with one circuit, see `from_qiskit`.

    QPY is not a pickle: it holds names and numbers. Files of old versions, which can call the
    reader of another library, are refused. A damaged file may still exhaust the memory in Qiskit;
    `load_circuits` compares checksums before it reads files.

    Raises
    ------
    ValueError
        If the bytes are not QPY, of an old version, or hold another number of circuits.
    """
    if data[:6] != b"QISKIT" or len(data) < 19:
        raise ValueError("these bytes are not QPY: they do not begin with its header")
    if data[6] < _OLDEST_QPY or data[18:19] == b"e":
        raise ValueError(
            f"QPY of version {data[6]} is refused; write it again with Qiskit 1.3 or newer"
        )
    try:
        found = qpy.load(io.BytesIO(data))
    except (QiskitError, ValueError, TypeError, KeyError, LookupError, EOFError) as error:
        reason = (str(error).strip("'\" \n") or "it is truncated").splitlines()[0]
        raise ValueError(f"these bytes are not a whole QPY file ({reason})") from None
    if len(found) != 1:
        raise ValueError(f"the QPY holds {len(found)} circuits; give one")
    return from_qiskit(found[0])


def export_circuits(
    source: Circuit | QuantumCircuit | Factorization,
    folder: str | os.PathLike,
    *,
    format: str = "qasm3",
) -> ExportedCircuits:
    """Write circuits into a folder, and `INDEX` beside them.

    Parameters
    ----------
    source : Circuit, QuantumCircuit or Factorization
        Of a factorization both sides are written, ``left`` and ``right``, but not its classical
        core (`Factorization.save` keeps it).
    folder : path
        Created if it does not exist; must be empty.
    format : {"qasm3", "qpy"}
        OpenQASM 3 in one- and two-qubit gates, or QPY with the gates as matrices.

    Returns
    -------
    ExportedCircuits

    Raises
    ------
    ValueError
        If the format is not known, the folder is not empty, a gate is not unitary, or `from_qiskit`
        cannot convert a Qiskit circuit.
    """
    if format not in _SUFFIX:
        raise ValueError(f"format={format!r} is not known; use one of {', '.join(_SUFFIX)}")
    folder = Path(folder)
    check_empty(folder)
    if isinstance(source, Factorization):
        circuits, shape = {"left": source.left, "right": source.right}, list(source.shape)
    else:
        circuits, shape = {"circuit": source}, None
    # circuits are converted before anything is written, in case one of them is refused
    meant = {
        name: from_qiskit(circuit) if isinstance(circuit, QuantumCircuit) else circuit
        for name, circuit in circuits.items()
    }
    contents = {name: _content(circuit, format) for name, circuit in circuits.items()}
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (device, data) in contents.items():
        file = name + _SUFFIX[format] if device.num_qubits else None
        if file:
            write_atomic(folder / file, data)
        widths = [len(item.qubits) for item in device.data]
        found[name] = {
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest() if file else None,
            "qubits": device.num_qubits,
            "global_phase": _phase(device),
            "one_qubit": widths.count(1),
            "two_qubit": widths.count(2),
            "wider": sum(width > 2 for width in widths),
            "depth": device.depth(),
            "deviation": _deviation(meant[name], device),
        }
    index = {"format": _FORMAT, "version": __version__, "files": format, "shape": shape}
    write_json(folder / INDEX, index | {"convention": _CONVENTION, "circuits": found})
    return ExportedCircuits(folder, found)


def load_circuits(folder: str | os.PathLike) -> dict[str, Circuit]:
    """Circuits by name of a folder that `export_circuits` wrote.

    Raises
    ------
    FileNotFoundError
        If the folder has no `INDEX`, or a file of it is missing.
    ValueError
        If a file has changed since it was written.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        below = [
            str(file.parent) for depth in ("*", "*/*") for file in folder.glob(f"{depth}/{INDEX}")
        ]
        hint = f"; give one of {', '.join(sorted(below))}" if below else ""
        raise FileNotFoundError(f"there is no file {folder / INDEX}{hint}")
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        raise ValueError(
            f"{folder / INDEX} was not written by export_circuits; give a folder that was"
        )
    found = {}
    for name, entry in index["circuits"].items():
        if entry["file"] is None:
            found[name] = from_qiskit(QuantumCircuit(0))
            continue
        file = folder / Path(entry["file"]).name
        if not file.is_file():
            raise FileNotFoundError(f"{file}, which {INDEX} lists, is missing; export it again")
        data = file.read_bytes()
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise ValueError(
                f"{file} has changed since it was written: its checksum is not the one in {INDEX}; "
                "export it again"
            )
        found[name] = from_qpy(data) if index["files"] == "qpy" else from_qasm3(data.decode())
    return found


def _content(circuit: Circuit | QuantumCircuit, format: str) -> tuple[QuantumCircuit, bytes]:
    """The circuit as it is written, and the content of its file."""
    if format == "qpy":
        return _device(circuit), to_qpy(circuit)
    device = _in_basis(circuit)
    return device, to_qasm3(device).encode()


def _deviation(circuit: Circuit, device: QuantumCircuit) -> float | None:
    """Error of `device` on a random unit vector, or None for too many qubits to simulate."""
    n = device.num_qubits
    if n > _CHECKED:
        return None
    x = np.random.default_rng(0).normal(size=(2, 2**n))
    x = (x[0] + 1j * x[1]) / np.linalg.norm(x)
    seen = np.asarray(Statevector(x).evolve(device).data)
    return float(np.linalg.norm(seen - circuit.apply(x[None])[0]))


def _device(circuit: Circuit | QuantumCircuit) -> QuantumCircuit:
    return circuit if isinstance(circuit, QuantumCircuit) else to_qiskit(circuit)


def _in_basis(circuit: Circuit | QuantumCircuit) -> QuantumCircuit:
    # above level 1 a permutation of the qubits may be left to the layout
    device = _device(circuit)
    return transpile(device, basis_gates=list(BASIS), optimization_level=1, seed_transpiler=0)


def _phase(device: QuantumCircuit) -> float:
    return math.remainder(float(device.global_phase), 2 * math.pi)
