"""Reading vectors, sign and all, from counts: tomography, interference, hypercube.

A state is measured up to a phase, and activations are real: every readout here fixes the sign
(the phase) by a measured interference with a known reference. To have (|0> r + |1> y) / sqrt(2)
without a controlled circuit, |0> Q^-1 r + |1> x is encoded in the place of x, with one qubit more,
and Q acts on the others; the ancilla is then measured in the basis |0> +- |1>.

The law of the counts is that of a noiseless device, sampled from the final state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

__all__ = ["Hypercube", "Interference", "Readout", "Tomography", "invert_counts"]

_H = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
BASES = {"Z": np.eye(2), "X": _H, "Y": _H @ np.diag([1, -1j])}
"""What is applied before a measurement in the computational basis."""


class Readout(Protocol):
    """A way to estimate the amplitudes of final states."""

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits that are measured for one vector of n qubits."""
        ...

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        """Shots that one vector takes."""
        ...

    def read(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Unit vectors (samples, 2^n) from counts on the states (samples, 2^n); real from real."""
        ...


@dataclass(frozen=True)
class Interference:
    """One setting (two for complex vectors), absolute sign: counts of |r + y|^2 and |r - y|^2.

    With a flat reference r every component is estimated alone, by maximum likelihood in closed
    form: the roots of a cubic. Its error, (2^n - 1) / (2 shots) in 1 - |<y, estimate>|^2 where all
    components are clear of +-r, is half that of the unbiased linear estimate, which complex
    vectors get.

    Attributes
    ----------
    shots : int
        In all settings together.
    """

    shots: int = 10_000

    def __post_init__(self) -> None:
        _check_shots(self.shots)

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        return 2 if is_complex else 1

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        return self.shots

    def read(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        found = [self._vector(state, rng) for state in states]
        return np.reshape(found, states.shape)

    def _vector(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if np.iscomplexobj(state):
            return _unit(linear_interference(state, self.shots, rng)[0], state)
        return from_interference(*_interfered(state, self.shots, rng))


@dataclass(frozen=True)
class Tomography:
    """All 3^n settings of Pauli bases, linear inversion, the leading eigenvector, and its sign.

    Attributes
    ----------
    shots : int
        In each of the settings.
    sign_shots : int
        Of the interference that fixes the sign or the phase; 0: the sign is left to chance.
    """

    shots: int = 1024
    sign_shots: int = 2000

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        _check_shots(self.sign_shots, least=0)

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        return 3**n + (Interference().settings(n, is_complex=is_complex) if self.sign_shots else 0)

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        return 3**n * self.shots + self.sign_shots

    def read(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        found = np.empty_like(states)
        for state, out in zip(states, found, strict=True):
            probabilities = pauli_probabilities(state)
            counts = _drawn(probabilities.reshape(-1, state.size), self.shots, rng)
            rho = invert_counts(counts.reshape(probabilities.shape) / self.shots)
            # a real vector: what is imaginary can only be noise
            leading = np.linalg.eigh(rho if np.iscomplexobj(state) else rho.real)[1][:, -1]
            out[:] = _with_sign(leading, state, self.sign_shots, rng)
        return found


@dataclass(frozen=True)
class Hypercube:
    """n + 2 settings for a real vector: |y|, the products of neighbours, and the sign of all.

    With a Hadamard gate on one qubit the counts hold y_i y_j for every pair of components that
    differ in its bit alone. The largest products, a spanning tree of the hypercube, carry the
    relative signs.

    Attributes
    ----------
    shots : int
        In each of the n + 1 settings.
    sign_shots : int
        Of the interference that fixes the sign; 0: it is left to chance.
    """

    shots: int = 2000
    sign_shots: int = 2000

    def __post_init__(self) -> None:
        _check_shots(self.shots)
        _check_shots(self.sign_shots, least=0)

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        _only_real(is_complex)
        return n + 1 + (self.sign_shots > 0)

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        _only_real(is_complex)
        return (n + 1) * self.shots + self.sign_shots

    def read(self, states: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        _only_real(np.iscomplexobj(states))
        found = [self._vector(state, rng) for state in states]
        return np.reshape(found, states.shape)

    def _vector(self, state: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        n = len(state).bit_length() - 1
        size = np.sqrt(_drawn(state**2, self.shots, rng) / self.shots)
        pairs, products = [], []
        for k in range(n):
            turned = _on_qubit(_H, state, k)
            counts = _drawn(turned**2, self.shots, rng).reshape(2**k, 2, -1)
            number = np.arange(2**n).reshape(2**k, 2, -1)
            pairs.append(np.stack([number[:, 0].ravel(), number[:, 1].ravel()]))
            products.append((counts[:, 0] - counts[:, 1]).ravel() / (2 * self.shots))
        signs = _tree_signs(np.hstack(pairs), np.concatenate(products), int(size.argmax()), 2**n)
        return _with_sign(_unit(size * signs, state), state, self.sign_shots, rng)


def pauli_probabilities(state: np.ndarray) -> np.ndarray:
    """(3,)*n + (2,)*n: outcomes of every setting, bases in the order of `BASES`.

    Of a state (2^n,) or of a density matrix (2^n, 2^n).
    """
    n = len(state).bit_length() - 1
    bases = np.stack(list(BASES.values()))
    order = [*range(0, 2 * n, 2), *range(1, 2 * n, 2)]
    if state.ndim == 2:
        effects = bases[..., :, None] * bases[..., None, :].conj()
        tensor = state.reshape((2,) * (2 * n))
        for k in range(n):  # row and column of the first qubit that is left
            tensor = np.tensordot(tensor, effects, axes=((0, n - k), (2, 3)))
        return tensor.real.transpose(order)
    tensor = state.reshape((2,) * n).astype(np.complex128)
    for _ in range(n):  # the first axis is used up, its basis and outcome come last
        tensor = np.tensordot(tensor, bases, axes=((0,), (2,)))
    return (np.abs(tensor) ** 2).transpose(order)


def invert_counts(frequencies: np.ndarray) -> np.ndarray:
    """Density matrix (2^n, 2^n) by linear inversion of tomography.

    Parameters
    ----------
    frequencies : array (3,)*n + (2,)*n
        Of the outcomes of every setting, bases of a qubit in the order of `BASES` (Z, X, Y),
        qubit 0 the most significant.

    Returns
    -------
    array
        Hermitian, of trace 1, positive only up to noise: least squares over all settings.
    """
    n = frequencies.ndim // 2
    dual = np.stack(
        [
            np.stack([np.outer(v.conj(), v) - np.eye(2) / 3 for v in basis])
            for basis in BASES.values()
        ]
    )
    order = [axis for k in range(n) for axis in (k, n + k)]
    tensor = frequencies.transpose(order)
    for _ in range(n):
        tensor = np.tensordot(tensor, dual, axes=((0, 1), (0, 1)))
    rows = [*range(0, 2 * n, 2), *range(1, 2 * n, 2)]
    return tensor.transpose(rows).reshape(2**n, 2**n)


def linear_interference(
    state: np.ndarray, shots: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased estimate of every component from interference with a flat reference.

    Returns
    -------
    estimate : array (2^n,)
        Complex for a complex state, whose imaginary part takes half of the shots.
    variance : array (2^n,)
        Of every component as measured (of both parts together).
    """
    if np.iscomplexobj(state):
        halves = [
            _in_phase(part, max(shots // 2, 1), rng, rest)
            for part, rest in ((state.real, state.imag), (state.imag, state.real))
        ]
        (real, v_real), (imaginary, v_imaginary) = halves
        return real + 1j * imaginary, v_real + v_imaginary
    return _in_phase(state, shots, rng)


def _in_phase(part, shots: int, rng, rest=0.0) -> tuple:
    """The part of y that is in phase with the reference, and its variance."""
    flat = len(part) ** -0.5
    first, second = _interfered(part, shots, rng, rest)
    estimate = (first - second) / flat
    return estimate, ((first + second) / flat**2 - estimate**2) / shots


def _interfered(part, shots: int, rng, rest=0.0) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies of |r + y|^2 / 4 and |r - y|^2 / 4, r flat; `rest` is out of phase with it."""
    flat = len(part) ** -0.5
    both = np.concatenate([(flat + part) ** 2 + rest**2, (flat - part) ** 2 + rest**2])
    return tuple(np.split(_drawn(both, shots, rng) / shots, 2))


def from_interference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The unit vector (2^n,) that is likeliest, with its sign, of outcomes r + y and r - y.

    Parameters
    ----------
    first, second : array (2^n,)
        Frequencies with the ancilla in |0> and in |1>; r is flat.
    """
    return _unit(_likeliest(first, second, len(first) ** -0.5), first)


def _likeliest(first, second, flat: float) -> np.ndarray:
    """argmax of f0 log (r + y)^2 + f1 log (r - y)^2 - y^2 / 2, component by component.

    The last term is the Lagrange multiplier of the norm at its true value. The slope vanishes at
    y^3 - y (r^2 + 2 (f0 + f1)) + 2 r (f0 - f1) = 0, which has three real roots: one on either
    side of +-r and one between.
    """
    p = flat**2 + 2 * (first + second)
    q = 2 * flat * (first - second)
    angle = np.arccos(np.clip(-1.5 * q / p * np.sqrt(3 / p), -1, 1))
    k = np.arange(3)[:, None]
    roots = 2 * np.sqrt(p / 3) * np.cos((angle - 2 * np.pi * k) / 3)
    tiny = np.finfo(float).tiny
    value = (
        first * np.log((flat + roots) ** 2 + tiny)
        + second * np.log((flat - roots) ** 2 + tiny)
        - roots**2 / 2
    )
    return np.take_along_axis(roots, value.argmax(0)[None], 0)[0]


def _with_sign(vector, state, shots: int, rng: np.random.Generator) -> np.ndarray:
    """The vector with the phase of the state, as an interference of so many shots has it."""
    if not shots:
        return vector
    seen = np.vdot(vector, linear_interference(state, shots, rng)[0])
    if not np.iscomplexobj(state):
        return vector if seen.real >= 0 else -vector
    return vector * (seen / abs(seen) if seen else 1.0)


def _tree_signs(pairs: np.ndarray, products: np.ndarray, root: int, size: int) -> np.ndarray:
    """Signs along the spanning tree of the largest |products|; the root's is +1."""
    # the tree is of least weight, and a weight of 0 would be no edge
    weight = 2 * np.abs(products).max(initial=1e-300) - np.abs(products)
    tree = minimum_spanning_tree(csr_array((weight, pairs), shape=(size, size)))
    order, before = breadth_first_order(tree, root, directed=False)
    sign_of = {tuple(pair): np.sign(v) or 1.0 for pair, v in zip(pairs.T, products, strict=True)}
    signs = np.ones(size)
    for node in order[1:]:
        ends = sorted((int(node), int(before[node])))
        signs[node] = signs[before[node]] * sign_of[tuple(ends)]
    return signs


def _on_qubit(gate, state, k: int) -> np.ndarray:
    grouped = state.reshape(2**k, 2, -1)
    return np.einsum("ij,ajb->aib", gate, grouped).reshape(state.shape)


def _drawn(probabilities: np.ndarray, shots: int, rng: np.random.Generator) -> np.ndarray:
    """Counts of settings (..., outcomes), so many shots in each."""
    rows = probabilities.clip(0)
    return rng.multinomial(shots, rows / rows.sum(-1, keepdims=True))


def _unit(vector, like) -> np.ndarray:
    norm = np.linalg.norm(vector)
    if norm == 0:  # no count told anything
        vector, norm = np.ones_like(like), len(like) ** 0.5
    return vector / norm


def _check_shots(shots: int, *, least: int = 1) -> None:
    if isinstance(shots, bool) or not isinstance(shots, (int, np.integer)) or shots < least:
        raise ValueError(f"shots={shots!r} must be an integer of at least {least}")


def _only_real(is_complex: bool) -> None:
    if is_complex:
        raise ValueError("the hypercube reads real vectors; use Tomography or Interference")
