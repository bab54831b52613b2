"""How many CNOTs a gate or a circuit needs, in closed form.

For two qubits with any one-qubit gates around the CNOTs the answer depends on one 4 x 4 matrix:
gamma(U) = U (Y x Y) U^T (Y x Y) of U with determinant 1, whose eigenvalues one-qubit gates do not
change (Shende, Bullock, Markov, Phys. Rev. A 70, 012310 (2004), quant-ph/0308045v3).
"""

from __future__ import annotations

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization

__all__ = ["cnot_count", "gate_cnots"]

ROUNDING = 1e-7
"""Distance, element by element, at which a gate counts as one of a cheaper kind."""

_Y = np.array([[0, -1j], [1j, 0]])
_YY = np.kron(_Y, _Y).real


def gate_cnots(gate) -> int:
    """CNOTs that one gate on one or two wires needs, one-qubit gates being free.

    A product of one-qubit gates needs none, what is locally equivalent to a CNOT one, every other
    real gate of determinant +1 two, and a general gate, most real ones of determinant -1 and the
    SWAP among them, three.

    Parameters
    ----------
    gate : array (2, 2) or (4, 4)
        Orthogonal or unitary.

    Raises
    ------
    ValueError
        If the gate acts on three wires or more, or is not unitary.
    """
    gate = np.asarray(gate)
    if gate.shape == (2, 2):
        return 0
    if gate.shape != (4, 4):
        raise ValueError(
            f"a gate of shape {gate.shape} has no closed form; compile it with `synthesise` into "
            "gates on two wires, or transpile it (`mpodis.quantum.gate_cost`)"
        )
    off = np.abs(gate @ gate.conj().T - np.eye(4)).max()
    if not off < 1e-4:  # rounding of float32
        raise ValueError(f"the gate is not unitary: W W^H differs from 1 by {off:.3g}")
    gamma = gate @ _YY @ gate.T @ _YY / np.sqrt(complex(np.linalg.det(gate)))
    trace = np.trace(gamma)
    tol = max(ROUNDING, 10 * off)
    if np.abs(gamma - trace / 4 * np.eye(4)).max() < tol:
        # a multiple of 1: of +-1 for products, of +-i for what swaps the wires, too
        return 0 if abs(trace.imag) < tol else 3
    if abs(trace) < tol and np.abs(gamma @ gamma + np.eye(4)).max() < tol:
        return 1
    return 2 if abs(trace.imag) < tol else 3


def cnot_count(what: Circuit | Factorization) -> int:
    """CNOTs of a circuit, or of both circuits of a factorization, by the values of its gates.

    On a line of qubits no SWAPs are added, since all gates act on neighbours.
    """
    circuits = (what.left, what.right) if isinstance(what, Factorization) else (what,)
    return sum(gate_cnots(gate) for circuit in circuits for gate in circuit.gates)
