"""Activations as quantum states: amplitude encoding, the norm kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import UnitaryGate

from mpodis.circuit.circuit import Circuit
from mpodis.quantum.convert import to_qiskit

__all__ = ["AmplitudeTree", "amplitude_encoding", "normalise", "preparation"]


def normalise(x) -> tuple[np.ndarray, np.ndarray]:
    """Split vectors into unit vectors and norms; a state carries no norm, so it stays classical.

    Parameters
    ----------
    x : array (samples, dimension)
        Real or complex. Zero vectors keep the norm 0 and the "state" 0.

    Returns
    -------
    states : array (samples, dimension)
        float64 or complex128.
    norms : array (samples,)
    """
    x = np.asarray(x)
    x = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
    # through the largest element, so that squares of tiny or huge activations stay in range
    scale = np.abs(x).max(axis=1, initial=0.0)
    safe = np.where(scale > 0, scale, 1.0)
    x = x / safe[:, None]
    norms = np.linalg.norm(x, axis=1)
    return x / np.where(norms > 0, norms, 1.0)[:, None], norms * scale


def amplitude_encoding(state) -> QuantumCircuit:
    """Circuit that prepares a normalised vector of length 2^n on n qubits (`initialize`).

    Site 0 is the most significant bit of the element's number and qubit n-1 is Qiskit's, so the
    vector needs no reordering.
    """
    n = len(state).bit_length() - 1
    circuit = QuantumCircuit(n)
    circuit.initialize(state, range(n))
    return circuit


def preparation(circuit: Circuit) -> QuantumCircuit:
    """`to_qiskit` for a circuit that begins with |0...0>: its first real 2-qubit gates take 1 CNOT.

    A gate on |00> prepares its first row, a 2 x 2 matrix of amplitudes U S V^T: a rotation by the
    two singular values, a CNOT, and U and V on a qubit each.
    """
    whole = to_qiskit(circuit)
    reduced = QuantumCircuit(circuit.n, global_phase=whole.global_phase)
    touched: set[int] = set()
    placed = zip(circuit.ansatz.placements, circuit.gates, whole.data, strict=True)
    for placement, gate, instruction in placed:
        wires = set(placement.wires)
        if placement.width != 2 or wires & touched or np.iscomplexobj(gate):
            reduced.append(instruction)
        else:
            target, control = instruction.qubits  # Qiskit's first is the least significant
            u, values, vt = np.linalg.svd(np.reshape(gate[0], (2, 2)))
            reduced.ry(2 * float(np.arctan2(values[1], values[0])), control)
            reduced.cx(control, target)
            reduced.append(UnitaryGate(u), [control])
            reduced.append(UnitaryGate(vt.T), [target])
        touched |= wires
    return reduced


@dataclass(frozen=True)
class AmplitudeTree:
    """Preparation of any real vector of 2^n amplitudes by one circuit with 2^n - 1 angles.

    Rotations RY that are controlled by all qubits above, as in arXiv quant-ph/0407010: 2^n - 2
    CNOTs. The circuit is transpiled once, for all inputs, and bound to each.

    Parameters
    ----------
    n : int
        Qubits, 1 or more.
    """

    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"n={self.n} must be 1 or more qubits")

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """With a `ParameterVector` of the angles, in the order of `angles`."""
        angles = ParameterVector("angle", 2**self.n - 1)
        circuit = QuantumCircuit(self.n)
        place = iter(angles)
        for k in range(self.n):
            target = self.n - 1 - k
            for j in range(2**k):
                circuit.ry(next(place), target)
                if k:  # the bit in which the Gray code changes controls
                    changed = _gray(j) ^ _gray((j + 1) % 2**k)
                    circuit.cx(target + changed.bit_length(), target)
        return circuit

    def angles(self, states) -> np.ndarray:
        """Angles (samples, 2^n - 1) that prepare real unit vectors (samples, 2^n), signs too."""
        states = np.asarray(states)
        if states.ndim != 2 or states.shape[1] != 2**self.n or np.iscomplexobj(states):
            raise ValueError(
                f"states of shape {states.shape} and type {states.dtype} must be real and "
                f"(samples, {2**self.n})"
            )
        norms, levels = states, []
        for _ in range(self.n):
            pairs = norms.reshape(len(states), -1, 2)
            # norms are positive, so that only the last level holds signs
            levels.insert(0, 2 * np.arctan2(pairs[..., 1], pairs[..., 0]))
            norms = np.hypot(pairs[..., 0], pairs[..., 1])
        found = [level @ _multiplexed(k).T for k, level in enumerate(levels)]
        return np.concatenate(found, axis=1)

    def bound(self, state) -> QuantumCircuit:
        """The circuit that prepares one vector."""
        return self.circuit.assign_parameters(self.angles(np.asarray(state)[None])[0])


def _gray(i: int) -> int:
    return i ^ (i >> 1)


def _multiplexed(k: int) -> np.ndarray:
    """From the angle of every value of k controls to those between CNOTs in Gray order."""
    size = 2**k
    parity = [
        [(value & _gray(place)).bit_count() % 2 for value in range(size)] for place in range(size)
    ]
    return (-1.0) ** np.array(parity) / size
