"""Gates on two wires: how many CNOTs they need, and the nearest ones that need fewer.

With any one-qubit gates around the CNOTs, the number of CNOTs depends on the eigenvalues of
gamma(U) = U (Y x Y) U^T (Y x Y), of U with determinant 1, which one-qubit gates do not change
(Shende, Bullock, Markov, Phys. Rev. A 70, 012310 (2004), quant-ph/0308045v3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.arguments import random_generator
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.exchange import as_circuit
from mpodis.factorization import Factorization
from mpodis.gates import named_gate, polar, random_gate

__all__ = [
    "cnot_count",
    "cnot_counts",
    "cnot_depth",
    "gate_cnots",
    "kron",
    "nearest_one_cnot",
    "nearest_product",
    "product_gate",
]

ROUNDING = 1e-7
"""Distance, element by element, at which a gate counts as one that needs fewer CNOTs."""
N_INIT = 8
"""Initial guesses for a gate with one CNOT."""
ROUNDS = 12
"""Alternating updates of the one-qubit gates."""

_Y = np.array([[0, -1j], [1j, 0]])
_YY = np.kron(_Y, _Y).real


# --- how many CNOTs


def gate_cnots(gate: np.ndarray) -> int:
    """CNOTs that a gate on one or two wires needs, one-qubit gates being free.

    A product of one-qubit gates needs none, a gate that is locally equivalent to a CNOT one, every
    other real gate of determinant +1 two, and a general gate three. Most real gates of determinant
    -1 need three, the SWAP among them.

    Parameters
    ----------
    gate : array (2, 2) or (4, 4)
        Orthogonal or unitary.

    Raises
    ------
    ValueError
        If the gate acts on three wires or more, or is not unitary.

    Examples
    --------
    >>> gate_cnots(np.eye(4)[[0, 2, 1, 3]])
    3
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
        # a multiple of 1: +-1 for products, and +-i for the SWAP times a product
        return 0 if abs(trace.imag) < tol else 3
    if abs(trace) < tol and np.abs(gamma @ gamma + np.eye(4)).max() < tol:
        return 1
    return 2 if abs(trace.imag) < tol else 3


def cnot_counts(circuit: Circuit, *, on_zero: bool = False) -> list[int]:
    """CNOTs of every gate of a circuit: as registered for a fixed one, else `gate_cnots`.

    With `on_zero` those of a circuit that acts on |0...0> alone: a gate on two wires that are not
    entangled yet takes one, which prepares any state of two qubits, or none if that is a product.
    """
    counts = []
    states = {wire: np.array([1.0, 0.0]) for wire in range(circuit.n if on_zero else 0)}
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        pair = product_gate(states, place.wires, gate)
        if pair is not None:
            counts.append(int(place.width == 2 and np.linalg.matrix_rank(pair, tol=ROUNDING) > 1))
            continue
        known = None if place.fixed is None else named_gate(place.fixed).n_cnots
        counts.append(gate_cnots(gate) if known is None else known)
    return counts


def product_gate(
    states: dict[int, np.ndarray], wires: Sequence[int], gate: np.ndarray
) -> np.ndarray | None:
    """The amplitudes after a gate on one or two wires that are in a product state.

    Parameters
    ----------
    states : dict
        Amplitudes (2,) of wires that are not entangled; those that the gate entangles are removed.

    Returns
    -------
    array (2,) or (2, 2), or None
        None if a wire is entangled, or there are more than two.
    """
    if len(wires) > 2 or any(wire not in states for wire in wires):
        for wire in wires:
            states.pop(wire, None)
        return None
    if len(wires) == 1:
        states[wires[0]] = states[wires[0]] @ gate
        return states[wires[0]]
    pair = (np.kron(states[wires[0]], states[wires[1]]) @ gate).reshape(2, 2)
    u, values, vh = np.linalg.svd(pair)
    if values[1] > ROUNDING:
        for wire in wires:
            del states[wire]
    else:
        states[wires[0]], states[wires[1]] = u[:, 0], vh[0]
    return pair


def cnot_count(what: Circuit | Factorization, *, on_zero: bool = False) -> int:
    """CNOTs of a circuit, or of both circuits of a factorization.

    With `on_zero`, those of a circuit that acts on |0...0> alone: its first gates need fewer.

    On a line of qubits, gates on wires that are not neighbours need SWAPs in addition; count
    `routed_circuit(circuit)` there.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> cnot_count(random_circuit(brickwall(4, 2, fill=False), seed=0))
    6
    """
    circuits = (what.left, what.right) if isinstance(what, Factorization) else (as_circuit(what),)
    return sum(sum(cnot_counts(circuit, on_zero=on_zero)) for circuit in circuits)


def cnot_depth(circuit: Circuit, *, on_zero: bool = False) -> int:
    """The longest chain of CNOTs that follow each other: two-qubit depth where all wires connect.

    With `on_zero`, that of a circuit that acts on |0...0> alone.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> cnot_depth(random_circuit(brickwall(4, 2, fill=False), seed=0))
    4
    """
    circuit = as_circuit(circuit)
    ends = [0] * circuit.n
    counts = cnot_counts(circuit, on_zero=on_zero)
    for place, count in zip(circuit.ansatz.placements, counts, strict=True):
        if place.width > 1:
            end = count + max(ends[wire] for wire in place.wires)
            for wire in place.wires:
                ends[wire] = end
    return max(ends, default=0)


# --- the nearest gates with fewer


def nearest_product(environment: np.ndarray, *, group: str = "SO") -> tuple[np.ndarray, np.ndarray]:
    """One-qubit gates a, b that maximise Re Tr(E^H (a x b)), by alternating polar factors.

    Parameters
    ----------
    environment : array (..., 4, 4)
        E; a gate g in its place gives the product nearest to g. Of a stack, each by itself.
    group : {"SO", "O", "U"}

    Returns
    -------
    a, b : arrays (..., 2, 2)
    """
    # without constraints the best a x b is the first term of the operator Schmidt decomposition
    parts = _split(environment)
    u = np.linalg.svd(parts.reshape(*parts.shape[:-4], 4, 4))[0][..., :, 0]
    a = polar(u.reshape(*u.shape[:-1], 2, 2), group=group)
    b = polar(_second(parts, a), group=group)
    for _ in range(ROUNDS - 1):
        a = polar(_first(parts, b), group=group)
        b = polar(_second(parts, a), group=group)
    return polar(_first(parts, b), group=group), b


def nearest_one_cnot(
    environment: np.ndarray, *, group: str = "SO", seed: int | np.random.Generator = 0
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Gates with one CNOT, (a x b) CNOT (c x d), that maximise Re Tr(E^H g).

    The four one-qubit gates are updated in turn, from several initial guesses; for each matrix of
    a stack the best result is taken.

    Parameters
    ----------
    environment : array (..., 4, 4)
    group : {"SO", "O", "U"}
        Of the one-qubit gates.
    seed : int or numpy Generator
        Of the initial guesses.

    Returns
    -------
    (a, b), (c, d) : pairs of arrays (..., 2, 2)
        The gates before the CNOT and those after it.
    """
    rng = random_generator(seed)
    cnot, shape = named_gate("CNOT").matrix, (N_INIT, *environment.shape[:-2], 2, 2)
    draws = [[random_gate(2, group=group, rng=rng) for _ in range(4)] for _ in range(N_INIT)]
    a, b, c, d = (
        np.broadcast_to(np.stack(gates).reshape(N_INIT, *(1,) * (len(shape) - 3), 2, 2), shape)
        for gates in zip(*draws, strict=True)
    )
    for _ in range(ROUNDS):
        # Re Tr(E^H p C q) = Re Tr((E q^H C)^H p) = Re Tr((C p^H E)^H q), as C = C^H
        parts = _split(environment @ _dagger(kron(c, d)) @ cnot)
        a = polar(_first(parts, b), group=group)
        b = polar(_second(parts, a), group=group)
        parts = _split(cnot @ _dagger(kron(a, b)) @ environment)
        c = polar(_first(parts, d), group=group)
        d = polar(_second(parts, c), group=group)
    found = kron(a, b) @ cnot @ kron(c, d)
    values = np.real(np.einsum("...ij,...ij->...", environment.conj(), found))
    best = np.argmax(values, axis=0)[None, ..., None, None]
    a, b, c, d = (np.take_along_axis(gates, best, axis=0)[0] for gates in (a, b, c, d))
    return (a, b), (c, d)


def kron(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a x b of stacks of 2 x 2 matrices."""
    product = np.einsum("...ij,...kl->...ikjl", a, b)
    return product.reshape(*product.shape[:-4], 4, 4)


def _split(environment: np.ndarray) -> np.ndarray:
    """(..., 4, 4) -> (..., i, j, k, l) with rows (i, k) and columns (j, l)."""
    return np.swapaxes(environment.reshape(*environment.shape[:-2], 2, 2, 2, 2), -3, -2)


def _first(parts: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Environment of a in a x b."""
    return np.einsum("...kl,...ijkl->...ij", b.conj(), parts)


def _second(parts: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Environment of b in a x b."""
    return np.einsum("...ij,...ijkl->...kl", a.conj(), parts)


def _dagger(x: np.ndarray) -> np.ndarray:
    return np.swapaxes(x.conj(), -1, -2)
