"""A `Circuit` as quimb's, and back.

quimb acts on columns, a `Circuit` on rows: every matrix is transposed on the way. Both count wires
from the most significant bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.gates import gate_names, named_gate
from mpodis.quantum.convert import Step, assembled

if TYPE_CHECKING:
    import quimb.tensor as qtn

__all__ = ["from_quimb", "to_quimb"]


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
        raise ValueError("a circuit without wires has no form in quimb, whose circuits have qubits")
    dtype = "complex128" if circuit.is_complex else "float64"
    found = qtn.Circuit(circuit.n, psi0_dtype=dtype, gate_opts={"contract": False})
    gates = iter(circuit.gates)
    for t, layer in enumerate(circuit.ansatz.layers):
        for place in layer:
            matrix = np.asarray(next(gates))
            name = named_gate(place.fixed).quimb_name if place.fixed else None
            if name is not None:
                found.apply_gate(name, *place.wires, gate_round=t)
            else:
                found.apply_gate_raw(matrix.T.copy(), place.wires, gate_round=t)
    return found


def from_quimb(circuit: qtn.Circuit) -> Circuit:
    """The `Circuit` of the gates of quimb's, whatever state they are applied to.

    ``from_quimb(q).to_dense()`` is ``q.uni.to_dense().T``. As in `from_qiskit`, gates with the
    quimb name of a registered gate become fixed.

    Raises
    ------
    ValueError
        If a gate is not unitary.
    """
    return assembled(int(circuit.N or 0), _steps(circuit), 0.0)


def _steps(circuit: qtn.Circuit) -> Iterator[Step]:
    from quimb.tensor.array_ops import PArray

    gates = [named_gate(name) for name in gate_names()]
    fixed = {gate.quimb_name: gate for gate in gates if gate.quimb_name is not None}
    for gate in circuit.gates:
        label = {"CX": "CNOT"}.get(gate.label, gate.label)
        if label in fixed and not gate.controls:
            yield fixed[label].matrix.T, tuple(gate.qubits), fixed[label].name
            continue
        array = gate.array
        array = np.asarray(array.data if isinstance(array, PArray) else array)
        controls, qubits = tuple(gate.controls or ()), tuple(gate.qubits)
        size = 2 ** len(qubits)
        matrix = np.eye(2 ** len(controls) * size, dtype=np.result_type(array, np.float64))
        matrix[-size:, -size:] = array.reshape(size, size)
        yield matrix, controls + qubits, None
