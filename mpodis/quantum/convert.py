"""From a `Circuit` in row action to a Qiskit circuit in column action."""

from __future__ import annotations

import math

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate

from mpodis.circuit.circuit import Circuit
from mpodis.conventions import qargs
from mpodis.gates import FIXED, polar

__all__ = ["UNITARITY", "to_qiskit", "unitary_gate"]

UNITARITY = 1e-4
"""Largest element-wise distance from a unitary matrix that counts as rounding (of float32)."""


def to_qiskit(circuit: Circuit, *, label: str = "g") -> QuantumCircuit:
    """The circuit a device runs: column vectors, Qiskit's bit order.

    A layer applies ``y = x @ Q`` (Eq. 7 of arXiv 2509.06653v1), so a device that holds x as a
    state applies Q^T. As ``Q = G_0 G_1 ...``, the gates keep their order and each is transposed
    (not conjugated). Wire k is qubit n-1-k, hence ``Operator(to_qiskit(c)).data`` is
    ``c.to_dense().T``, sign and phase included.

    Parameters
    ----------
    circuit : Circuit
        Free gates become `UnitaryGate`, fixed CNOTs become `cx` with the first wire as control.
    label : str
        Gate i of the circuit is labelled ``f"{label}{i}"``.

    Raises
    ------
    ValueError
        If a gate is further than `UNITARITY` from orthogonal or unitary, or not finite, or a
        fixed CNOT holds another matrix. Smaller errors, such as those of float32 gates, are
        removed by the polar factor.
    """
    n = circuit.n
    device = QuantumCircuit(n)
    placed = zip(circuit.ansatz.placements, circuit.gates, strict=True)
    for i, (placement, gate) in enumerate(placed):
        qubits = qargs(placement.wires, n)
        name = f"gate {i} on wires {placement.wires}"
        if placement.fixed == "CNOT":
            if not np.array_equal(gate, FIXED["CNOT"]):
                raise ValueError(f"{name} is placed as a fixed CNOT, but is another matrix")
            target, control = qubits
            device.cx(control, target)
        else:
            device.append(unitary_gate(gate, name=name, label=f"{label}{i}"), qubits)
    return device


def unitary_gate(gate, *, name: str = "the gate", label: str | None = None) -> UnitaryGate:
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
