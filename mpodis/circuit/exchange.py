"""A `Circuit` as quimb's, and back; a `Circuit` from matrices of any other library.

Other libraries act on columns, a `Circuit` on rows: every matrix is transposed on the way. quimb
counts wires from the most significant bit, as a `Circuit` does.
"""

from __future__ import annotations

import cmath
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mpodis.circuit.ansatz import Placement
from mpodis.circuit.circuit import Circuit, circuit_from_gates
from mpodis.circuit.routing import permuted_gate
from mpodis.gates import gate_names, named_gate

if TYPE_CHECKING:
    import quimb.tensor as qtn

__all__ = [
    "UNITARITY",
    "Step",
    "as_circuit",
    "assembled",
    "circuit_from_quimb",
    "circuit_to_quimb",
]

UNITARITY = 1e-4
"""Largest element-wise distance from a unitary matrix that counts as rounding (of float32)."""

_ROUNDING = 1e-14  # an imaginary part that is zero

Step: TypeAlias = tuple[np.ndarray, tuple[int, ...], str | None]
"""Matrix of the column action, its wires, most significant first, and the name of a fixed gate."""


def circuit_to_quimb(circuit: Circuit) -> qtn.Circuit:
    """The circuit that quimb simulates: column vectors, qubit k on wire k.

    ``circuit_to_quimb(c).uni.to_dense()`` is ``c.to_dense().T``, and ``circuit_to_quimb(c).psi``
    the first row of ``c.to_dense()``. Layers are quimb's rounds; its `uni` leaves out wires
    without gates.

    Raises
    ------
    ValueError
        If the circuit has no wires.
    """
    import quimb.tensor as qtn

    circuit = as_circuit(circuit)
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


def circuit_from_quimb(circuit: qtn.Circuit) -> Circuit:
    """The `Circuit` of the gates of quimb's, whatever state they are applied to.

    ``circuit_from_quimb(q).to_dense()`` is ``q.uni.to_dense().T``. Gates that have the quimb name
    of a registered gate ("CNOT", "CX", "CZ", "SWAP", "ISWAP") become fixed, all others free gates
    of their matrix, each on the wires that it has. If all are real, so is the circuit: in SO if no
    free gate has a negative determinant, else in O.

    Raises
    ------
    ValueError
        If a gate is not unitary, or the circuit a ``CircuitPermMPS``.

    Examples
    --------
    >>> import quimb.tensor as qtn
    >>> theirs = qtn.Circuit(3)
    >>> theirs.ry(0.3, 0)
    >>> theirs.cx(2, 0)
    >>> print(circuit_from_quimb(theirs).ansatz)
    3 wires, 2 layers (1 x 1b, 1 x CNOT, 1 not on neighbours), SO
    """
    if type(circuit).__name__ == "CircuitPermMPS":
        raise ValueError(
            "a CircuitPermMPS holds its gates where it has moved its qubits; build the circuit as "
            "quimb's Circuit or CircuitMPS"
        )
    return assembled(int(circuit.N or 0), _steps(circuit))


def as_circuit(value: Circuit | qtn.Circuit) -> Circuit:
    """The `Circuit` itself, or that of quimb's `Circuit`.

    Raises
    ------
    TypeError
        If the value is neither.
    """
    if isinstance(value, Circuit):
        return value
    import quimb.tensor as qtn

    if isinstance(value, qtn.Circuit):
        return circuit_from_quimb(value)
    raise TypeError(
        f"expected a Circuit of mpodis or quimb, got {type(value).__name__}; read one of Qiskit "
        "with `mpodis.quantum.from_qiskit`"
    )


def _steps(circuit: qtn.Circuit) -> Iterator[Step]:
    """The gates of a quimb circuit in their order."""
    from quimb.tensor.array_ops import PArray

    gates = [named_gate(name) for name in gate_names()]
    fixed = {gate.quimb_name: gate for gate in gates if gate.quimb_name is not None}
    for gate in circuit.gates:
        label = {"CX": "CNOT"}.get(gate.label, gate.label)  # quimb's two names of one gate
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


def assembled(n: int, steps: Iterable[Step], phase: float = 0.0) -> Circuit:
    """A `Circuit` of gates that are given one after the other, in the column action.

    Parameters
    ----------
    n : int
        Number of wires.
    steps : iterable of Step
        A step without wires is a global phase.
    phase : float
        Another global phase (radians); phases go into the first free gate.

    Raises
    ------
    ValueError
        If a gate is not unitary, or a circuit without qubits has a phase.
    """
    factor = cmath.exp(1j * phase)
    placed: list[tuple[Placement, np.ndarray]] = []
    for i, (matrix, wires, fixed) in enumerate(steps):
        if not wires:
            factor *= complex(matrix.item())
            continue
        gate = matrix.T if fixed else _unitary(matrix, f"gate {i} on wires {wires}").T
        order = [int(k) for k in np.argsort(wires)]
        ordered = permuted_gate(gate, order)
        # a free gate absorbs the order of its wires, and CZ and SWAP do not depend on it
        if fixed is None or np.array_equal(ordered, gate):
            gate, wires = ordered, tuple(wires[k] for k in order)
        placed.append((Placement(wires, fixed), gate))
    if abs(factor - 1) > _ROUNDING:
        free = next((i for i, (place, _) in enumerate(placed) if place.fixed is None), None)
        if free is None and not n:
            raise ValueError(f"a circuit without qubits cannot hold the global phase {phase}")
        if free is None:
            free = len(placed)
            placed.append((Placement((0,)), np.eye(2)))
        place, gate = placed[free]
        placed[free] = place, factor * gate
    is_real = all(np.abs(np.imag(gate)).max() <= _ROUNDING for _, gate in placed)
    if is_real:
        placed = [(place, np.ascontiguousarray(np.real(gate))) for place, gate in placed]
    flips = is_real and any(np.linalg.det(g) < 0 for place, g in placed if place.fixed is None)
    group = ("O" if flips else "SO") if is_real else "U"
    dtype = np.float64 if is_real else np.complex128
    return circuit_from_gates(n, [(place, gate.astype(dtype)) for place, gate in placed], group)


def _unitary(matrix: np.ndarray, name: str) -> np.ndarray:
    """The matrix, or a ValueError if it is not unitary."""
    error = float(np.abs(matrix @ matrix.conj().T - np.eye(len(matrix))).max())
    if not error <= UNITARITY:  # NaN, too
        raise ValueError(
            f"{name} is not unitary (M M^H is off by {error:.1e}); only circuits of unitary "
            "gates can be read"
        )
    return matrix
