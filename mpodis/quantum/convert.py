"""A `Circuit` as a Qiskit circuit, and back.

Qiskit acts on columns, a `Circuit` on rows: every matrix is transposed on the way. Qiskit counts
qubits from the least significant bit, a `Circuit` counts wires from the most significant one: wire
k is qubit n-1-k. Only this module translates gates; `mpodis.circuit_to_quimb` does it for quimb.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ControlFlowOp, Instruction
from qiskit.circuit import Gate as QiskitGate
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Operator

from mpodis.circuit.circuit import Circuit
from mpodis.circuit.exchange import UNITARITY, Step, as_circuit, assembled
from mpodis.conventions import Array, qargs
from mpodis.gates import Gate, gate_names, named_gate, polar

__all__ = [
    "composed",
    "from_qiskit",
    "to_qiskit",
    "unitary_gate",
    "unitary_matrix",
]

_WIDEST = 6  # an instruction on more qubits is decomposed by its definition


def to_qiskit(circuit: Circuit, *, label: str = "g") -> QuantumCircuit:
    """The circuit that a device runs: column vectors, Qiskit's bit order.

    A layer applies ``y = x @ Q`` (Eq. 7 of arXiv 2509.06653v1), so a device that holds x as a
    state applies Q^T. As ``Q = G_0 G_1 ...``, the gates keep their order and each is transposed
    (not conjugated). Hence ``Operator(to_qiskit(c)).data`` is ``c.to_dense().T``, sign and phase
    included.

    Parameters
    ----------
    circuit : Circuit
        Fixed gates become the gate of Qiskit's library that they name, the first wire being its
        first argument; all others become `UnitaryGate`, on neighbouring qubits or not.
    label : str
        Free gate i of the circuit is labelled ``f"{label}{i}"``, a fixed one without a Qiskit name
        by its own name.

    Raises
    ------
    ValueError
        If a gate is further than `UNITARITY` from orthogonal or unitary, or not finite, or a
        fixed gate holds another matrix. Smaller errors, such as those of float32 gates, are
        removed by the polar factor.

    Examples
    --------
    >>> from mpodis import from_spec, identity_circuit
    >>> dict(to_qiskit(identity_circuit(from_spec("CNOT + 2b", 2))).count_ops())
    {'cx': 1, 'unitary': 1}
    """
    circuit = as_circuit(circuit)
    n = circuit.n
    device = QuantumCircuit(n)
    placed = zip(circuit.ansatz.placements, circuit.gates, strict=True)
    for i, (placement, matrix) in enumerate(placed):
        name = f"gate {i} on wires {placement.wires}"
        qubits = qargs(placement.wires, n)
        if placement.fixed is None:
            device.append(unitary_gate(matrix, name=name, label=f"{label}{i}"), qubits)
            continue
        gate = named_gate(placement.fixed)
        if not np.allclose(np.asarray(matrix), gate.matrix, rtol=0, atol=UNITARITY):
            raise ValueError(f"{name} is a fixed {gate.name}, but holds another matrix")
        if gate.qiskit_name is None:
            device.append(unitary_gate(gate.matrix, label=gate.name), qubits)
        else:
            device.append(_library_gate(gate), qubits[::-1])
    return device


@lru_cache(maxsize=64)
def _library_gate(gate: Gate) -> QiskitGate:
    """Qiskit's gate of the name that a fixed gate states, once its matrix has been compared."""
    found = get_standard_gate_name_mapping().get(gate.qiskit_name)
    if not isinstance(found, QiskitGate) or found.params or found.num_qubits != gate.width:
        raise ValueError(
            f"Qiskit's library has no gate {gate.qiskit_name!r} on {gate.width} qubits without "
            f"parameters, as which {gate.name} is registered; leave qiskit_name out"
        )
    # the first argument of Qiskit's gate is the least significant bit of its matrix, not the most
    matrix = Operator(found).reverse_qargs().data
    if not np.allclose(matrix, gate.matrix.T, rtol=0, atol=UNITARITY):
        raise ValueError(
            f"{gate.name} is registered as Qiskit's {gate.qiskit_name!r}, which has another "
            "matrix; give the transpose of Qiskit's, first wire most significant, or leave "
            "qiskit_name out"
        )
    return found


def unitary_gate(gate: Array, *, name: str = "the gate", label: str | None = None) -> UnitaryGate:
    """Transpose of a row-action gate as a `UnitaryGate`, orthogonal to double precision.

    Parameters
    ----------
    gate : array (2^w, 2^w)
        Real or complex, of any precision; its first wire is the most significant bit.
    name : str
        What to call it in an error.

    Raises
    ------
    ValueError
        If the matrix has another shape, is not finite or is not unitary.
    """
    gate = np.asarray(gate)
    if gate.ndim != 2 or gate.shape[0] != gate.shape[1] or not _is_power_of_two(gate.shape[0]):
        raise ValueError(f"{name} has shape {gate.shape}; give a (2^w, 2^w) matrix, w >= 1")
    gate = gate.astype(np.complex128 if np.iscomplexobj(gate) else np.float64)
    if not np.isfinite(gate).all():
        raise ValueError(f"{name} holds NaN or infinite values; its optimisation has diverged")
    nearest = polar(gate, group="O")
    error = float(np.abs(gate - nearest).max())
    if error > UNITARITY:
        raise ValueError(
            f"{name} is {error:.1e} from the nearest unitary matrix, more than {UNITARITY:.0e}: "
            "a device cannot run it; project it with mpodis.gates.polar if that is what you mean"
        )
    return UnitaryGate(nearest.T, label=label)


def _is_power_of_two(dimension: int) -> bool:
    return dimension >= 2 and math.log2(dimension).is_integer()


def composed(first: QuantumCircuit, second: QuantumCircuit) -> QuantumCircuit:
    """The first Qiskit circuit and then the second one, on the same qubits."""
    found = first.compose(second)
    assert found is not None  # it is None only with inplace=True
    return found


def unitary_matrix(circuit: QuantumCircuit | Instruction) -> np.ndarray:
    """Qiskit's matrix of a circuit or of one instruction; qubits that routing moved are moved back.

    Raises
    ------
    QiskitError
        If there is none.
    """
    if isinstance(circuit, QuantumCircuit):
        return np.asarray(Operator.from_circuit(circuit).data)
    return np.asarray(Operator(circuit).data)


def from_qiskit(circuit: QuantumCircuit) -> Circuit:
    """The `Circuit` whose `to_qiskit` does the same, sign and phase included.

    ``from_qiskit(d).to_dense()`` is ``Operator(d).data.T``. An instruction with the Qiskit name of
    a registered gate becomes this fixed gate, every other one a free gate; barriers are left out.
    Gates stay on the wires that they have, neighbours or not. The global phase goes into the first
    free gate. If all gates are real, the circuit is real: in SO if no determinant is negative,
    else in O.

    Parameters
    ----------
    circuit : QuantumCircuit
        Without unbound parameters, measurements and control flow.

    Raises
    ------
    ValueError
        If the circuit has one of those, was routed to a device, or has an instruction without a
        unitary matrix.

    Examples
    --------
    >>> device = QuantumCircuit(3)
    >>> _ = device.ry(0.3, 0), device.cx(2, 0)
    >>> from_qiskit(device).ansatz.placements
    (Placement(wires=(2,), fixed=None, tie=None), Placement(wires=(0, 2), fixed='CNOT', tie=None))
    """
    if circuit.num_parameters:
        names = ", ".join(sorted(p.name for p in circuit.parameters)[:3])
        raise ValueError(
            f"the circuit has {circuit.num_parameters} unbound parameters ({names}, ...); call "
            "assign_parameters first"
        )
    here = list(range(circuit.num_qubits))
    if circuit.layout is not None and not (
        circuit.layout.initial_index_layout() == circuit.layout.final_index_layout() == here
    ):
        raise ValueError(
            "the circuit was routed to a device, which has moved its qubits; give the circuit "
            "before that, or one transpiled to basis_gates alone at level 0 or 1"
        )
    return assembled(circuit.num_qubits, _steps(circuit), float(circuit.global_phase))


def _steps(circuit: QuantumCircuit) -> Iterator[Step]:
    """The gates of a Qiskit circuit in their order."""
    n = circuit.num_qubits
    gates = [named_gate(name) for name in gate_names()]
    fixed = {gate.qiskit_name: gate for gate in gates if gate.qiskit_name is not None}
    number = {qubit: k for k, qubit in enumerate(circuit.qubits)}
    for i, item in enumerate(circuit.data):
        operation = item.operation
        if operation.name == "barrier":
            continue
        qubits = [number[qubit] for qubit in item.qubits]
        # the first qubit of Qiskit's matrices is the least significant one
        wires = tuple(n - 1 - qubit for qubit in reversed(qubits))
        wide = len(wires) > _WIDEST and operation.name != "unitary"
        definition = getattr(operation, "definition", None) if wide else None
        if (gate := fixed.get(operation.name)) is not None:
            yield gate.matrix.T, wires[::-1], gate.name
        elif definition is not None:
            yield np.array([[cmath.exp(1j * float(definition.global_phase))]]), (), None
            for matrix, inner, name in _steps(definition):
                yield matrix, tuple(wires[k] for k in inner), name
        else:
            matrix = _matrix(operation, f"instruction {i} ({operation.name})")
            label = getattr(operation, "label", None)
            known = next((gate for gate in gates if gate.name == label), None)
            same = known is not None and np.array_equal(known.matrix.T, matrix)
            yield matrix, wires, label if same else None


def _matrix(operation: Instruction, name: str) -> np.ndarray:
    if operation.name in ("measure", "reset") or isinstance(operation, ControlFlowOp):
        raise ValueError(
            f"{name} is not a gate; remove measurements with remove_final_measurements, and give "
            "a circuit of gates alone"
        )
    try:
        return unitary_matrix(operation)
    except QiskitError as error:
        raise ValueError(f"{name} has no unitary matrix: {error.message}") from None
