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

from mpodis.circuit.ansatz import Ansatz, brickwall, staircase
from mpodis.circuit.circuit import Circuit
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.gates import polar
from mpodis.mpo import compress
from mpodis.resynthesis import cnot_count
from mpodis.sites import mpo_from_tensors

__all__ = ["Encoding", "Encodings", "brickwall_encodings", "layered_encoding", "mps_encoding"]


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
        """CNOTs of its two-qubit gates; 2 for one of SO(4), at most 3.

        Raises
        ------
        ValueError
            For gates on three qubits or more, as of `mps_encoding` from bond dimension 4 on: there
            the count is the compiler's, see `mpodis.quantum.gate_cost`.
        """
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
    start = Factorization(nothing, mpo_from_tensors(zero), whole.circuit, (1, 2**n))
    refined = disentangle(
        compress(state[None], legs=((1, 2),) * n).mpo,
        left=nothing.ansatz,
        right=ansatz,
        group=ansatz.group,
        core="fixed",
        init=start,
        max_sweeps=max_sweeps,
        seed=seed,
    )
    better = _encoding(refined.factorization.right, state)
    return max(whole, better, key=lambda one: one.fidelity)


@dataclass(frozen=True, eq=False)
class Encodings:
    """Circuits of one ansatz that prepare many vectors, nearly; a sequence of `Encoding`.

    Attributes
    ----------
    ansatz : Ansatz
    gates : tuple of array (samples, 4, 4)
        Of every placement.
    fidelities : array (samples,)
    """

    ansatz: Ansatz
    gates: tuple[np.ndarray, ...]
    fidelities: np.ndarray

    def __len__(self) -> int:
        return len(self.fidelities)

    def __getitem__(self, k: int) -> Encoding:
        gates = tuple(gate[k] for gate in self.gates)
        return Encoding(Circuit(self.ansatz, gates), float(self.fidelities[k]))


def brickwall_encodings(
    vectors,
    layers: int,
    *,
    parity: int = 0,
    max_sweeps: int = 200,
    tol: float = 1e-7,
    seed: int | np.random.Generator = 0,
) -> Encodings:
    """Layers of SO(4) bricks that prepare real vectors, by sweeps over all of them at once.

    Every gate in turn is the polar factor of its environment (Eq. 4 of arXiv 2509.06653v1), so
    that no fidelity ever falls. Bricks sit on neighbours: a device with a line of qubits needs no
    SWAPs, and a generic vector of n qubits about 2^n / 2 CNOTs.

    Parameters
    ----------
    vectors : array (samples, 2^n), n > 1
        Real, of any norm but 0.
    layers : int
    parity : {0, 1}
        Wire of the first brick of the first layer.
    max_sweeps : int
        Forth and back; fewer where no fidelity gains `tol` any more.
    tol : float
    seed
        Of the first gates.

    Raises
    ------
    ValueError
        For vectors that are complex, zero, not finite or of another length.
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] < 4 or np.iscomplexobj(vectors):
        raise ValueError(
            f"vectors of shape {vectors.shape} and type {vectors.dtype} must be real and "
            "(samples, 2^n) with n > 1; use mps_encoding for others"
        )
    if layers < 1:
        raise ValueError(f"layers={layers} must be 1 or more")
    if parity not in (0, 1):
        raise ValueError(f"parity={parity} must be 0 or 1")
    states = np.stack([_checked(vector)[0] for vector in vectors])
    n = states.shape[1].bit_length() - 1
    ansatz = brickwall(n, layers, parity=parity, fill=False)
    gates, amplitudes = _swept(states, ansatz, max_sweeps, tol, np.random.default_rng(seed))
    return Encodings(ansatz, gates, amplitudes**2)


def _swept(states, ansatz: Ansatz, max_sweeps: int, tol: float, rng) -> tuple:
    """Gates of all samples, and what they have in common with the states.

    A sample's do not depend on the others: all begin alike, and each ends for itself.
    """
    wires = [place.wires[0] for place in ansatz.placements]
    near = polar(np.eye(4) + 0.3 * rng.normal(size=(len(wires), 4, 4)), group="SO")
    kept = [np.tile(gate, (len(states), 1, 1)) for gate in near]
    values = _forward(kept, wires, np.eye(1, states.shape[1]))[-1] * states
    values = values.sum(1)
    going = np.arange(len(states))
    gates = [gate.copy() for gate in kept]
    for _ in range(max_sweeps):
        value = _sweep(states[going], gates, wires)
        # a state and its negative are as far from the start, but not one for the rest of a network
        gains = (value**2 - values[going] ** 2 >= tol) | (value < 0)
        values[going] = value
        for every, some in zip(kept, gates, strict=True):
            every[going] = some
        going, gates = going[gains], [gate[gains] for gate in gates]
        if not len(going):
            break
    return tuple(kept), values


def _sweep(states, gates: list[np.ndarray], wires: list[int]) -> np.ndarray:
    """Update gates in place, the last first and back again; what is reached."""
    samples = len(states)

    def updated(j, before, behind):
        before, behind = (
            v.reshape(len(v), 2 ** wires[j], 4, -1).swapaxes(1, 2).reshape(len(v), 4, -1)
            for v in (before, behind)
        )
        environment = before @ behind.swapaxes(1, 2)
        gates[j] = polar(environment, group="SO")
        return (environment * gates[j]).sum((1, 2))

    zero = np.eye(1, states.shape[1])
    before, behind = _forward(gates, wires, zero), [states]
    for j in reversed(range(len(gates))):
        updated(j, before[j], behind[-1])
        behind.append(_applied(behind[-1], gates[j], wires[j]))
    here, value = np.repeat(zero, samples, 0), np.ones(samples)
    for j, rest in enumerate(behind[-2::-1]):
        value = updated(j, here, rest)
        here = _applied(here, gates[j].swapaxes(1, 2), wires[j])
    return value


def _forward(gates, wires: list[int], zero: np.ndarray) -> list[np.ndarray]:
    """|0...0>, and what is left of it behind every gate."""
    found = [zero]
    for gate, k in zip(gates, wires, strict=True):
        found.append(_applied(found[-1], gate.swapaxes(1, 2), k))
    return found


def _applied(vectors, gates, k: int) -> np.ndarray:
    grouped = vectors.reshape(len(vectors), 2**k, 4, -1)
    return (gates[:, None] @ grouped).reshape(len(gates), -1)


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
