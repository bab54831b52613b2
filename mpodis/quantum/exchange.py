"""Circuits of Qiskit and quimb as a `Circuit`, and a `Circuit` as quimb's.

Both libraries act on columns, ours on rows: every matrix is transposed on the way. Qiskit counts
qubits from the least significant bit, quimb, as we do, from the most significant one.
"""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ControlFlowOp, Instruction
from qiskit.exceptions import QiskitError
from qiskit.quantum_info import Operator

from mpodis.circuit.ansatz import Placement
from mpodis.circuit.circuit import Circuit, circuit_from_gates
from mpodis.gates import FIXED
from mpodis.quantum.convert import UNITARITY

if TYPE_CHECKING:
    import quimb.tensor as qtn

__all__ = ["from_qiskit", "from_quimb", "to_quimb"]

_WIDEST = 6  # an instruction on more qubits is taken apart by its definition
_ROUNDING = 1e-14  # an imaginary part that is none
_SWAP = np.eye(4)[[0, 2, 1, 3]]

Step = tuple[np.ndarray, tuple[int, ...], bool]
"""Matrix of the column action, its wires, most significant first, and whether it is a CNOT."""


def from_qiskit(circuit: QuantumCircuit) -> Circuit:
    """The `Circuit` whose `to_qiskit` does the same, sign and phase included.

    ``from_qiskit(d).to_dense()`` is ``Operator(d).data.T``. Every instruction becomes a free gate,
    a ``cx`` between neighbouring wires, control first, a fixed CNOT; barriers are left out. Gates
    on wires that are no neighbours stand between SWAPs. The global phase goes into the first free
    gate. Where all gates are real, so is the circuit: in SO if no determinant is negative, else
    in O.

    Parameters
    ----------
    circuit : QuantumCircuit
        Without parameters that are not bound, measurements and control flow.

    Raises
    ------
    ValueError
        If the circuit holds one of those, was routed to a device, or holds an instruction that is
        no unitary matrix.
    """
    if circuit.num_parameters:
        names = ", ".join(sorted(p.name for p in circuit.parameters)[:3])
        raise ValueError(
            f"the circuit has {circuit.num_parameters} parameters that are not bound ({names}, "
            "...); call assign_parameters first"
        )
    here = list(range(circuit.num_qubits))
    if circuit.layout is not None and not (
        circuit.layout.initial_index_layout() == circuit.layout.final_index_layout() == here
    ):
        raise ValueError(
            "the circuit was routed to a device, its qubits have changed places; give the circuit "
            "before that, or one transpiled to basis_gates alone at level 0 or 1"
        )
    return _assembled(circuit.num_qubits, _qiskit_steps(circuit), circuit.global_phase)


def _qiskit_steps(circuit: QuantumCircuit) -> Iterator[Step]:
    n = circuit.num_qubits
    place = {qubit: k for k, qubit in enumerate(circuit.qubits)}
    for i, item in enumerate(circuit.data):
        operation = item.operation
        if operation.name == "barrier":
            continue
        qubits = [place[qubit] for qubit in item.qubits]
        # the first qubit of Qiskit's matrices is the least significant one
        wires = tuple(n - 1 - qubit for qubit in reversed(qubits))
        wide = len(wires) > _WIDEST and operation.name != "unitary"
        definition = getattr(operation, "definition", None) if wide else None
        if operation.name == "cx":
            yield np.asarray(FIXED["CNOT"]), wires[::-1], True
        elif definition is not None:
            yield np.array([[cmath.exp(1j * float(definition.global_phase))]]), (), False
            for matrix, inner, is_cnot in _qiskit_steps(definition):
                yield matrix, tuple(wires[k] for k in inner), is_cnot
        else:
            yield _qiskit_matrix(operation, f"instruction {i} ({operation.name})"), wires, False


def _qiskit_matrix(operation: Instruction, name: str) -> np.ndarray:
    if operation.name in ("measure", "reset") or isinstance(operation, ControlFlowOp):
        raise ValueError(
            f"{name} is no gate; take measurements off with remove_final_measurements, and give a "
            "circuit of gates alone"
        )
    try:
        return Operator(operation).data
    except QiskitError as error:
        raise ValueError(f"{name} has no unitary matrix: {error.message}") from None


def to_quimb(circuit: Circuit) -> qtn.Circuit:
    """The circuit that quimb simulates: column vectors, qubit k on wire k.

    ``to_quimb(c).uni.to_dense()`` is ``c.to_dense().T``, and ``to_quimb(c).psi`` the first row of
    ``c.to_dense()``. Layers are quimb's rounds; its `uni` leaves out wires without gates.

    Raises
    ------
    ValueError
        If the circuit has no wires.
    """
    import quimb.tensor as qtn

    if circuit.n == 0:
        raise ValueError("a circuit without wires is none in quimb; it is the number 1")
    dtype = "complex128" if circuit.is_complex else "float64"
    found = qtn.Circuit(circuit.n, psi0_dtype=dtype, gate_opts={"contract": False})
    gates = iter(circuit.gates)
    for t, layer in enumerate(circuit.ansatz.layers):
        for place in layer:
            gate = np.asarray(next(gates))
            if place.fixed == "CNOT":
                found.apply_gate("CNOT", *place.wires, gate_round=t)
            else:
                found.apply_gate_raw(gate.T.copy(), place.wires, gate_round=t)
    return found


def from_quimb(circuit: qtn.Circuit) -> Circuit:
    """The `Circuit` of the gates of quimb's, whatever state they are applied to.

    ``from_quimb(q).to_dense()`` is ``q.uni.to_dense().T``. See `from_qiskit` for what becomes of
    CNOTs, of gates on wires that are no neighbours, and of real gates.

    Raises
    ------
    ValueError
        If a gate is not unitary.
    """
    return _assembled(circuit.N, _quimb_steps(circuit), 0.0)


def _quimb_steps(circuit: qtn.Circuit) -> Iterator[Step]:
    from quimb.tensor.array_ops import PArray

    for gate in circuit.gates:
        if gate.label in ("CX", "CNOT") and not gate.controls:
            yield np.asarray(FIXED["CNOT"]), tuple(gate.qubits), True
            continue
        array = gate.array
        array = np.asarray(array.data if isinstance(array, PArray) else array)
        controls, qubits = tuple(gate.controls or ()), tuple(gate.qubits)
        size = 2 ** len(qubits)
        matrix = np.eye(2 ** len(controls) * size, dtype=np.result_type(array, np.float64))
        matrix[-size:, -size:] = array.reshape(size, size)
        yield matrix, controls + qubits, False


def _assembled(n: int, steps: Iterable[Step], phase: float) -> Circuit:
    """Gates of the column action, one after the other, as a `Circuit` of the row action."""
    factor = cmath.exp(1j * float(phase))
    placed: list[tuple[Placement, np.ndarray]] = []
    for i, (matrix, wires, is_cnot) in enumerate(steps):
        if not wires:  # an instruction that is a phase
            factor *= complex(matrix.item())
        elif is_cnot and wires[1] == wires[0] + 1:
            placed.append((Placement(wires, "CNOT"), np.array(matrix)))
        else:
            placed += _neighbours(_unitary(matrix, f"gate {i} on wires {wires}").T, wires)
    if abs(factor - 1) > _ROUNDING:
        free = next((i for i, (place, _) in enumerate(placed) if place.fixed is None), None)
        if free is None and not n:
            raise ValueError(f"a circuit without qubits cannot hold the global phase {phase}")
        if free is None:
            free = len(placed)
            placed.append((Placement((0,)), np.eye(2)))
        place, gate = placed[free]
        placed[free] = place, factor * gate
    is_real = all(np.abs(gate.imag).max() <= _ROUNDING for _, gate in placed)
    if is_real:
        placed = [(place, np.ascontiguousarray(gate.real)) for place, gate in placed]
    flips = is_real and any(np.linalg.det(g) < 0 for place, g in placed if place.fixed is None)
    group = ("O" if flips else "SO") if is_real else "U"
    dtype = np.float64 if is_real else np.complex128
    return circuit_from_gates(n, [(place, gate.astype(dtype)) for place, gate in placed], group)


def _unitary(matrix: np.ndarray, name: str) -> np.ndarray:
    error = float(np.abs(matrix @ matrix.conj().T - np.eye(len(matrix))).max())
    if not error <= UNITARITY:  # NaN, too
        raise ValueError(
            f"{name} is not unitary (M M^H is off by {error:.1e}); only circuits of unitary "
            "gates can be read"
        )
    return matrix


def _neighbours(gate: np.ndarray, wires: tuple[int, ...]) -> list[tuple[Placement, np.ndarray]]:
    """The gate on neighbouring wires in ascending order, between the SWAPs that this takes."""
    w = len(wires)
    order = [int(k) for k in np.argsort(wires)]
    tensor = gate.reshape((2,) * (2 * w)).transpose(order + [w + k for k in order])
    first = min(wires)
    swaps = [
        (Placement((at - 1, at)), _SWAP)
        for j, wire in enumerate(sorted(wires))
        for at in range(wire, first + j, -1)
    ]
    block = Placement(tuple(range(first, first + w)))
    return [*swaps, (block, tensor.reshape(gate.shape)), *reversed(swaps)]
