"""Activations as quantum states: amplitude encoding, the norm kept aside."""

from __future__ import annotations

import numpy as np
from qiskit import QuantumCircuit

__all__ = ["amplitude_encoding", "normalise"]


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
