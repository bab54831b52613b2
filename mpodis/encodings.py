"""Circuits that prepare a given vector from |0...0>: exact for matrix product states, or layered.

A vector of 2^n amplitudes is the first row of Q, ``e_0 @ Q``. Layers of two-qubit gates follow
arXiv 1908.07958 (S.-J. Ran): each is the exact circuit of the best matrix product state of bond
dimension 2 for what the layers before it leave. Sweeps over all gates then go on, for a vector is
an operator with one side: the disentangler is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mpodis.ansatz import Ansatz, staircase
from mpodis.circuit import Circuit
from mpodis.cnots import cnot_count
from mpodis.disentangler import disentangle
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.sites import mpo_from_cores

__all__ = ["Encoding", "layered_encoding", "mps_encoding"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """A circuit that prepares a vector, nearly.

    Attributes
    ----------
    circuit : Circuit
        Its `prepared` row is the first of its matrix.
    fidelity : float
        |<vector, prepared>|^2 of unit vectors.
    """

    circuit: Circuit
    fidelity: float

    @property
    def prepared(self) -> np.ndarray:
        """The unit vector (2^n,) that comes out."""
        return self.circuit.apply(np.eye(1, 2**self.circuit.n))[0]

    @property
    def cnots(self) -> int:
        """CNOTs of its two-qubit gates; 2 for one of SO(4), at most 3."""
        return cnot_count(self.circuit)


def mps_encoding(vector, max_bond: int = 2) -> Encoding:
    """The vector's matrix product state of a bond dimension, prepared exactly by a staircase.

    Parameters
    ----------
    vector : array (2^n,)
        Real or complex, of any norm but 0.
    max_bond : int
        A power of two, 2^m: gates act on m + 1 qubits, and from n - 1 on there is one gate.

    Raises
    ------
    ValueError
        For a vector of another length, a zero one, or another bond dimension.
    """
    state, n = _checked(vector)
    m = max_bond.bit_length() - 1
    if max_bond < 1 or max_bond != 2**m:
        raise ValueError(
            f"max_bond={max_bond} is not a power of two; use 2^m for gates on m + 1 qubits"
        )
    width = min(m + 1, n)
    sites = _matrix_product_state(state, 2 ** (width - 1))
    gates = []
    for k in range(n - width + 1):
        rows = sites[k]
        if k == n - width:  # the last gate holds all sites that are left
            for site in sites[k + 1 :]:
                rows = np.tensordot(rows, site, 1)
            rows = rows.reshape(rows.shape[0], -1)
        else:
            rows = np.pad(rows, ((0, 0), (0, 0), (0, 2 ** (width - 1) - rows.shape[2])))
            rows = rows.reshape(rows.shape[0], -1)
        gates.append(_completed(rows))
    group = "U" if np.iscomplexobj(state) else "SO"
    return _encoding(Circuit(staircase(n, 1, width, group=group), tuple(gates)), state)


def layered_encoding(
    vector, layers: int, *, max_sweeps: int = 0, seed: int | np.random.Generator = 0
) -> Encoding:
    """Staircases of two-qubit gates, each from the bond-2 state of what is left, then refined.

    Parameters
    ----------
    vector : array (2^n,), n > 1
    layers : int
    max_sweeps : int
        Of `disentangle` over all gates, from there; 0: none. The fidelity never falls.
    seed
        Of `disentangle`.
    """
    state, n = _checked(vector)
    if n < 2:
        raise ValueError("a vector of 2 amplitudes needs no layers; use mps_encoding")
    if layers < 1:
        raise ValueError(f"layers={layers} must be 1 or more")
    rest, found = state, []
    for _ in range(layers):
        found.insert(0, mps_encoding(rest, 2).circuit)
        rest = found[0].adjoint().apply(rest[None])[0]
    ansatz = Ansatz(n, sum((c.ansatz.layers for c in found), ()), found[0].ansatz.group)
    whole = _encoding(Circuit(ansatz, sum((c.gates for c in found), ())), state)
    if not max_sweeps:
        return whole
    zero = [np.eye(1, 2).reshape(1, 1, 2, 1)] * n
    nothing = Circuit(Ansatz(0, (), ansatz.group), ())
    start = Factorization(nothing, mpo_from_cores(zero), whole.circuit, (1, 2**n))
    refined = disentangle(
        compress(state[None], legs=((1, 2),) * n).mpo,
        left=nothing.ansatz,
        right=ansatz,
        group=ansatz.group,
        core="fixed",
        start=start,
        max_sweeps=max_sweeps,
        seed=seed,
    )
    better = _encoding(refined.factorization.right, state)
    return max(whole, better, key=lambda one: one.fidelity)


def _checked(vector) -> tuple[np.ndarray, int]:
    """The unit vector and its number of qubits."""
    state = np.asarray(vector)
    if state.ndim != 1 or len(state) < 2 or len(state) & (len(state) - 1):
        raise ValueError(
            f"a vector of shape {state.shape} is not of 2^n amplitudes; pad it with zeros"
        )
    state = state.astype(np.complex128 if np.iscomplexobj(state) else np.float64)
    norm = np.linalg.norm(state)
    if not (norm > 0 and math.isfinite(norm)):
        raise ValueError(f"the norm of the vector is {norm}; it must be positive and finite")
    return state / norm, len(state).bit_length() - 1


def _encoding(circuit: Circuit, state: np.ndarray) -> Encoding:
    done = Encoding(circuit, 0.0)
    return replace(done, fidelity=float(abs(np.vdot(state, done.prepared)) ** 2))


def _matrix_product_state(state: np.ndarray, bond: int) -> list[np.ndarray]:
    """Right-canonical sites (left, 2, right), truncated one SVD after the other, of norm 1."""
    sites, rest = [], state.reshape(-1, 1)
    while rest.shape[0] > 2:
        right = rest.shape[1]
        u, values, vh = np.linalg.svd(rest.reshape(-1, 2 * right), full_matrices=False)
        kept = min(bond, max(1, int((values > 1e-14).sum())))
        sites.insert(0, vh[:kept].reshape(kept, 2, right))
        rest = u[:, :kept] * values[:kept]
    return [(rest / np.linalg.norm(rest)).reshape(1, 2, -1), *sites]


def _completed(rows: np.ndarray) -> np.ndarray:
    """A gate that takes |l, 0> to the row l; the rest completes it, with det = 1 if real."""
    count, size = rows.shape
    fixed = 2 * np.arange(count)  # the last qubit of the gate is fresh
    gate = np.empty((size, size), rows.dtype)
    gate[fixed] = rows
    others = np.setdiff1d(np.arange(size), fixed)
    gate[others] = np.linalg.svd(rows, full_matrices=True)[2][count:]
    if not np.iscomplexobj(gate) and len(others) and np.linalg.det(gate) < 0:
        gate[others[-1]] *= -1
    return gate
