"""Circuits that prepare a given vector from |0...0>: exact for matrix product states, or layered.

The vector that a circuit Q prepares is its first row, ``e_0 @ Q``. Layers of two-qubit gates follow
arXiv 1908.07958 (S.-J. Ran): each layer is the exact circuit of the best matrix product state of
bond dimension 2 for the state that the other layers leave. Sweeps over all gates improve them: a
vector is an operator with only one side, so `disentangle` applies.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mpodis.advice import without_remarks
from mpodis.arguments import check_count, check_number, plain_numbers, random_generator
from mpodis.arrays import as_numpy, rescaled
from mpodis.circuit.ansatz import Ansatz, brickwall, check_depth, staircase
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import Array
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.gates import polar
from mpodis.mpo import compress
from mpodis.resynthesis import cnot_count
from mpodis.sites import mpo_from_tensors

__all__ = [
    "EncodedVector",
    "EncodedVectors",
    "brickwall_encodings",
    "layered_encoding",
    "mps_encoding",
]


@dataclass(frozen=True, eq=False)
class EncodedVector:
    """A circuit that prepares a vector, in general approximately.

    Attributes
    ----------
    circuit : Circuit
    fidelity : float
        |<vector, prepared>|^2 of unit vectors.
    """

    circuit: Circuit
    fidelity: float

    @property
    def prepared(self) -> np.ndarray:
        """The unit vector (2^n,) that the circuit prepares: the first row of its matrix."""
        return self.circuit.apply(np.eye(1, 2**self.circuit.n))[0]

    @property
    def cnots(self) -> int:
        """CNOTs of its two-qubit gates; 2 for one of SO(4), at most 3.

        Raises
        ------
        ValueError
            For gates on three or more qubits, which `mps_encoding` has from bond dimension 4 on;
            count the compiled circuit, see `mpodis.quantum.gate_cost`.
        """
        return cnot_count(self.circuit)


@plain_numbers
def mps_encoding(vector: Array, max_bond: int = 2) -> EncodedVector:
    """The vector truncated to a matrix product state, which a staircase prepares exactly.

    Parameters
    ----------
    vector : array (2^n,)
        Real or complex, of any norm but 0.
    max_bond : int
        A power of two, 2^m: gates act on m + 1 qubits; for m >= n - 1 there is one gate.

    Raises
    ------
    ValueError
        If the vector is zero, not finite or has another length, or for another bond dimension.

    Examples
    --------
    >>> ghz = mps_encoding([1, 0, 0, 0, 0, 0, 0, 1], max_bond=2)
    >>> round(ghz.fidelity, 6)
    1.0
    """
    state, n = _checked(vector)
    m = max_bond.bit_length() - 1 if isinstance(max_bond, int) else 0
    if isinstance(max_bond, bool) or max_bond != 2**m:
        raise ValueError(
            f"max_bond={max_bond} is not a power of two; use 2^m for gates on m + 1 qubits"
        )
    width = min(m + 1, n)
    sites = _matrix_product_state(state, 2 ** (width - 1))
    gates = []
    for k in range(n - width + 1):
        rows = sites[k]
        if k == n - width:  # the last gate prepares all remaining sites
            for site in sites[k + 1 :]:
                rows = np.tensordot(rows, site, 1)
            rows = rows.reshape(rows.shape[0], -1)
        else:
            rows = np.pad(rows, ((0, 0), (0, 0), (0, 2 ** (width - 1) - rows.shape[2])))
            rows = rows.reshape(rows.shape[0], -1)
        gates.append(_completed(rows))
    group = "U" if np.iscomplexobj(state) else "SO"
    return _encoded(Circuit(staircase(n, 1, width, group=group), tuple(gates)), state)


@plain_numbers
def layered_encoding(
    vector: Array, layers: int, *, max_sweeps: int = 0, seed: int | np.random.Generator = 0
) -> EncodedVector:
    """Staircases of two-qubit gates, one for each layer, optionally improved by sweeps.

    Parameters
    ----------
    vector : array (2^n,), n > 1
        Real or complex, of any norm but 0.
    layers : int
        Number of staircases; each is the `mps_encoding` of bond dimension 2 of the state that the
        other ones leave.
    max_sweeps : int
        Sweeps of `disentangle` over all gates afterwards; the fidelity never decreases.
    seed : int or numpy Generator
        Of `disentangle`.

    Raises
    ------
    ValueError
        If the vector is zero, not finite, of length 2 or of another length, or without layers.
    """
    state, n = _checked(vector)
    if n < 2:
        raise ValueError("a vector of 2 amplitudes needs no layers; use mps_encoding")
    check_depth(layers, n, name="layers")
    check_count("max_sweeps", max_sweeps, 0)
    random_generator(seed)
    rest, found = state, []
    for _ in range(layers):
        found.insert(0, mps_encoding(rest, 2).circuit)
        rest = found[0].adjoint().apply(rest[None])[0]
    ansatz = Ansatz(n, sum((c.ansatz.layers for c in found), ()), found[0].ansatz.group)
    whole = _encoded(Circuit(ansatz, sum((c.gates for c in found), ())), state)
    if not max_sweeps:
        return whole
    zero = [np.eye(1, 2).reshape(1, 1, 2, 1)] * n
    nothing = Circuit(Ansatz(0, (), ansatz.group), ())
    init = Factorization(nothing, mpo_from_tensors(zero), whole.circuit, (1, 2**n))
    with without_remarks():
        refined = disentangle(
            compress(state[None], legs=((1, 2),) * n).mpo,
            left=nothing.ansatz,
            right=ansatz,
            group=ansatz.group,
            core="fixed",
            init=init,
            max_sweeps=max_sweeps,
            seed=seed,
        )
    if refined.status == "interrupted":
        raise KeyboardInterrupt  # a shorter search must not pass for one that has ended
    better = _encoded(refined.factorization.right, state)
    return max(whole, better, key=lambda one: one.fidelity)


@dataclass(frozen=True, eq=False)
class EncodedVectors:
    """Circuits of one ansatz that prepare many vectors; a sequence of `EncodedVector`.

    Attributes
    ----------
    ansatz : Ansatz
    gates : tuple of array (samples, 4, 4)
        One for each placement.
    fidelities : array (samples,)
        |<vector, prepared>|^2 of unit vectors.
    """

    ansatz: Ansatz
    gates: tuple[np.ndarray, ...]
    fidelities: np.ndarray

    def __len__(self) -> int:
        return len(self.fidelities)

    def __getitem__(self, k: int) -> EncodedVector:
        gates = tuple(gate[k] for gate in self.gates)
        return EncodedVector(Circuit(self.ansatz, gates), float(self.fidelities[k]))

    def __iter__(self) -> Iterator[EncodedVector]:
        return (self[k] for k in range(len(self)))


@plain_numbers
def brickwall_encodings(
    vectors: Array,
    layers: int,
    *,
    parity: int = 0,
    max_sweeps: int = 200,
    tol: float = 1e-7,
    seed: int | np.random.Generator = 0,
) -> EncodedVectors:
    """Brickwalls of SO(4) gates that prepare real vectors, by sweeps over all vectors at once.

    Each gate in turn becomes the polar factor of its environment (Eq. 4 of arXiv 2509.06653v1), so
    no fidelity ever decreases. Gates act on neighbours: a device with a line of qubits needs no
    SWAPs, and a generic vector of n qubits about 2^n / 2 CNOTs.

    Parameters
    ----------
    vectors : array (samples, 2^n), n > 1
        Real, of any norm but 0.
    layers : int
    parity : {0, 1}
        First wire of the first gate of the first layer.
    max_sweeps : int
        Largest number of sweeps, each over all gates back and forth.
    tol : float
        A vector whose fidelity a sweep improves by less is finished.
    seed : int or numpy Generator
        Of the initial gates, the same for all vectors.

    Raises
    ------
    ValueError
        For vectors that are complex, zero, not finite or of another length.

    Examples
    --------
    >>> vectors = np.random.default_rng(0).normal(size=(3, 8))
    >>> found = brickwall_encodings(vectors, layers=4)
    >>> bool((found.fidelities > 0.99).all())
    True
    """
    vectors = as_numpy(vectors, what="array of vectors")
    if vectors.ndim != 2 or not len(vectors) or vectors.shape[1] < 4 or np.iscomplexobj(vectors):
        raise ValueError(
            f"vectors of shape {vectors.shape} and type {vectors.dtype} must be real and "
            "(samples, 2^n) with n > 1; use mps_encoding for others"
        )
    check_depth(layers, name="layers")
    if parity not in (0, 1):
        raise ValueError(f"parity={parity} must be 0 or 1")
    check_count("max_sweeps", max_sweeps, 0)
    check_number("tol", tol, 0)
    states = np.stack([_checked(vector)[0] for vector in vectors])
    n = states.shape[1].bit_length() - 1
    ansatz = brickwall(n, layers, parity=parity, fill=False)
    gates, amplitudes = _swept(states, ansatz, max_sweeps, tol, random_generator(seed))
    return EncodedVectors(ansatz, gates, amplitudes**2)


def _swept(
    states: np.ndarray,
    ansatz: Ansatz,
    max_sweeps: int,
    tol: float,
    rng: np.random.Generator,
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Gates (samples, 4, 4) of every placement, and overlaps (samples,) with the states.

    The result of a sample does not depend on the others: all have the same initial gates, and each
    is finished by itself.
    """
    wires = [place.wires[0] for place in ansatz.placements]
    near = polar(np.eye(4) + 0.3 * rng.normal(size=(len(wires), 4, 4)), group="SO")
    found = [np.tile(gate, (len(states), 1, 1)) for gate in near]
    overlaps = (_forward(found, wires, np.eye(1, states.shape[1]))[-1] * states).sum(1)
    active = np.arange(len(states))  # numbers of the samples that are not finished
    gates = [gate.copy() for gate in found]
    for _ in range(max_sweeps):
        overlap = _sweep(states[active], gates, wires)
        # a state of the wrong sign has the same fidelity, but not the same effect in a network
        improved = (overlap**2 - overlaps[active] ** 2 >= tol) | (overlap < 0)
        overlaps[active] = overlap
        for every, some in zip(found, gates, strict=True):
            every[active] = some
        active, gates = active[improved], [gate[improved] for gate in gates]
        if not len(active):
            break
    return tuple(found), overlaps


def _sweep(states: np.ndarray, gates: list[np.ndarray], wires: list[int]) -> np.ndarray:
    """Update all gates in place, from the last to the first and back; returns the overlaps."""
    samples = len(states)

    def updated(j: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Update gate j between the state before it and the target after it."""
        before, after = (
            v.reshape(len(v), 2 ** wires[j], 4, -1).swapaxes(1, 2).reshape(len(v), 4, -1)
            for v in (before, after)
        )
        environment = before @ after.swapaxes(1, 2)
        gates[j] = polar(environment, group="SO")
        return (environment * gates[j]).sum((1, 2))

    zero = np.eye(1, states.shape[1])
    before, after = _forward(gates, wires, zero), [states]
    for j in reversed(range(len(gates))):
        updated(j, before[j], after[-1])
        after.append(_applied(after[-1], gates[j], wires[j]))
    here, overlap = np.repeat(zero, samples, 0), np.ones(samples)
    for j, rest in enumerate(after[-2::-1]):
        overlap = updated(j, here, rest)
        here = _applied(here, gates[j].swapaxes(1, 2), wires[j])
    return overlap


def _forward(gates: list[np.ndarray], wires: list[int], zero: np.ndarray) -> list[np.ndarray]:
    """|0...0>, and the states after each of the gates."""
    found = [zero]
    for gate, k in zip(gates, wires, strict=True):
        found.append(_applied(found[-1], gate.swapaxes(1, 2), k))
    return found


def _applied(vectors: np.ndarray, gates: np.ndarray, k: int) -> np.ndarray:
    """Gates (samples, 4, 4) on wires k and k + 1 of the vectors (samples, 2^n), as columns."""
    grouped = vectors.reshape(len(vectors), 2**k, 4, -1)
    return (gates[:, None] @ grouped).reshape(len(gates), -1)


def _checked(vector: Array) -> tuple[np.ndarray, int]:
    """The unit vector and its number of qubits, or a ValueError."""
    state = as_numpy(vector, what="vector")
    if state.ndim != 1 or len(state) < 2 or len(state) & (len(state) - 1):
        raise ValueError(
            f"a vector of shape {state.shape} does not have 2^n amplitudes; pad it with zeros"
        )
    state = state.astype(np.complex128 if np.iscomplexobj(state) else np.float64)
    state, _ = rescaled(state)
    norm = np.linalg.norm(state)
    if not (norm > 0 and math.isfinite(norm)):
        raise ValueError(f"the norm of the vector is {norm}; it must be positive and finite")
    return state / norm, len(state).bit_length() - 1


def _encoded(circuit: Circuit, state: np.ndarray) -> EncodedVector:
    """With the fidelity to the state."""
    found = EncodedVector(circuit, 0.0)
    return replace(found, fidelity=float(abs(np.vdot(state, found.prepared)) ** 2))


def _matrix_product_state(state: np.ndarray, bond: int) -> list[np.ndarray]:
    """Right-canonical site tensors (left, 2, right), truncated by successive SVDs, of norm 1."""
    sites, rest = [], state.reshape(-1, 1)
    while rest.shape[0] > 2:
        right = rest.shape[1]
        u, values, vh = np.linalg.svd(rest.reshape(-1, 2 * right), full_matrices=False)
        kept = min(bond, max(1, int((values > 1e-14).sum())))
        sites.insert(0, vh[:kept].reshape(kept, 2, right))
        rest = u[:, :kept] * values[:kept]
    return [(rest / np.linalg.norm(rest)).reshape(1, 2, -1), *sites]


def _completed(rows: np.ndarray) -> np.ndarray:
    """A gate that maps |l, 0> to row l, completed to a unitary, with determinant 1 if real."""
    count, size = rows.shape
    fixed = 2 * np.arange(count)  # the last qubit of the gate is fresh
    gate = np.empty((size, size), rows.dtype)
    gate[fixed] = rows
    others = np.setdiff1d(np.arange(size), fixed)
    gate[others] = np.linalg.svd(rows, full_matrices=True)[2][count:]
    if not np.iscomplexobj(gate) and len(others) and np.linalg.det(gate) < 0:
        gate[others[-1]] *= -1
    return gate
