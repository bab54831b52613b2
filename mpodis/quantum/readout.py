"""Readouts: which circuits are measured to learn a state, and how the vector follows from counts.

A measured state is known up to a global phase, but activations have a sign. Every readout here
takes the sign (or the phase) from a measured interference with a known reference state r, all of
whose amplitudes are 2^(-n/2). The state (|0> r + |1> y) / sqrt(2) needs no controlled circuit: it
is what Q makes of |0> Q^-1 r + |1> x, which is prepared in place of x on one qubit more. That
qubit, the ancilla, is then measured in the basis X (Y for imaginary parts).

A readout states its measurements once. How they are carried out is up to the caller: `ShotRunner`
samples their outcomes from the exact state, `DeviceRunner` builds their circuits, and
`inference_cost` counts them. A readout of one's own is a class with the members of `Readout`,
registered with `register_readout`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree

from mpodis.arguments import check_count, random_generator

__all__ = [
    "READOUTS",
    "Hypercube",
    "Interference",
    "Measurement",
    "Readout",
    "Tomography",
    "count_circuits",
    "count_shots",
    "find_readout",
    "invert_counts",
    "register_readout",
    "sample_readout",
]

_H = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
BASES = {"Z": np.eye(2), "X": _H, "Y": _H @ np.diag([1, -1j])}
"""The matrix that is applied before a measurement in the computational basis."""


@dataclass(frozen=True)
class Measurement:
    """Circuits that differ only in the bases in which their qubits are measured.

    Attributes
    ----------
    purpose : str
        What they are for, as a word for tables.
    bases : tuple of str
        One string for each circuit: "X", "Y" or "Z" for every qubit, the most significant first.
    shots : int
        Of each circuit.
    with_reference : bool
        Whether the state that is measured is (|0> r + |1> y) / sqrt(2) rather than y. The ancilla
        is its most significant qubit.
    """

    purpose: str
    bases: tuple[str, ...]
    shots: int
    with_reference: bool = False


class Readout(Protocol):
    """A way to estimate the amplitudes of a state from counts.

    Attributes
    ----------
    name : str
        By which `evaluate` and other functions find the readout. They call the class with
        ``shots`` as the only argument, or none.
    """

    name: ClassVar[str]

    def measurements(self, n: int, *, is_complex: bool = False) -> tuple[Measurement, ...]:
        """What is measured to read one vector of 2^n amplitudes.

        Raises
        ------
        ValueError
            If the vector is complex and the readout is for real ones.
        """
        ...

    def estimate(
        self, frequencies: Sequence[np.ndarray], *, is_complex: bool = False
    ) -> np.ndarray:
        """The unit vector (2^n,), with its sign or phase, from the outcomes of all measurements.

        Parameters
        ----------
        frequencies : sequence of array (circuits, outcomes)
            Counts divided by shots, for each of `measurements`. An outcome is the number whose
            most significant bit is the most significant qubit.
        is_complex : bool
            Whether the vector is complex; the estimate of a real one is real.
        """
        ...


READOUTS: dict[str, Callable[..., Readout]] = {}
"""Readouts by name."""

_Class = TypeVar("_Class", bound=type[Readout])


def register_readout(cls: _Class) -> _Class:
    """Make a readout known by its `name`; usable as a decorator of the class.

    Examples
    --------
    >>> @register_readout
    ... class FewShots(Interference):
    ...     name = "few shots"
    >>> READOUTS["few shots"](shots=10).measurements(2)[0].shots
    10
    """
    READOUTS[cls.name] = cls
    return cls


def find_readout(readout: str | Readout, *, shots: int | None = None) -> Readout:
    """A readout, or the registered one of a name.

    Parameters
    ----------
    readout : str or Readout
    shots : int, optional
        Of a readout that is named; by default its own.

    Raises
    ------
    ValueError
        If the name is not known, or a readout that is given would get other shots.
    """
    if not isinstance(readout, str):
        if shots is not None:
            raise ValueError(
                f"{readout} has its own shots; shots={shots} is for a readout that is named"
            )
        return readout
    if readout not in READOUTS:
        raise ValueError(
            f"readout={readout!r} is not known; use one of {', '.join(READOUTS)}, or add yours "
            "with register_readout"
        )
    return READOUTS[readout]() if shots is None else READOUTS[readout](shots=shots)


@register_readout
@dataclass(frozen=True)
class Interference:
    """One circuit (two for complex vectors): outcomes |r + y|^2 / 4 and |r - y|^2 / 4.

    As all amplitudes of r are equal, every amplitude of y is estimated by itself, by maximum
    likelihood in closed form: the root of a cubic. The expected error 1 - |<y, estimate>|^2 is
    (2^n - 1) / (2 shots) where all amplitudes are well away from +-2^(-n/2). This is half the
    error of the unbiased linear estimate, which is used for complex vectors.

    Attributes
    ----------
    shots : int
        In all circuits together.
    """

    name: ClassVar[str] = "interference"
    shots: int = 10_000

    def __post_init__(self) -> None:
        check_count("shots", self.shots)

    def measurements(self, n: int, *, is_complex: bool = False) -> tuple[Measurement, ...]:
        return (_interference(self.name, n, self.shots, is_complex),)

    def estimate(
        self, frequencies: Sequence[np.ndarray], *, is_complex: bool = False
    ) -> np.ndarray:
        (outcomes,) = frequencies
        if is_complex:
            return _normalised(linear_estimate(outcomes, is_complex=True))
        first, second = np.split(outcomes[0], 2)
        return _normalised(_most_likely(first, second))


@register_readout
@dataclass(frozen=True)
class Tomography:
    """All 3^n settings of Pauli bases, linear inversion, and the leading eigenvector.

    Attributes
    ----------
    shots : int
        In each of the settings.
    sign_shots : int
        Of the interference that determines the sign or the phase; 0 leaves it to chance.
    """

    name: ClassVar[str] = "tomography"
    shots: int = 1024
    sign_shots: int = 2000

    def __post_init__(self) -> None:
        check_count("shots", self.shots)
        check_count("sign_shots", self.sign_shots, 0)

    def measurements(self, n: int, *, is_complex: bool = False) -> tuple[Measurement, ...]:
        settings = tuple("".join(setting) for setting in itertools.product(BASES, repeat=n))
        main = Measurement(self.name, settings, self.shots)
        return (main, *_sign_measurement(n, self.sign_shots, is_complex))

    def estimate(
        self, frequencies: Sequence[np.ndarray], *, is_complex: bool = False
    ) -> np.ndarray:
        outcomes, *sign = frequencies
        n = _qubits(outcomes)
        rho = invert_counts(outcomes.reshape((3,) * n + (2,) * n))
        return _with_phase(leading_eigenvector(rho, is_complex=is_complex), sign, is_complex)


@register_readout
@dataclass(frozen=True)
class Hypercube:
    """n + 2 circuits for a real vector: magnitudes, products of neighbours, and the overall sign.

    With a Hadamard gate on one qubit the outcomes hold y_i y_j for every pair of amplitudes whose
    numbers differ in the bit of that qubit. The pairs are the edges of a hypercube; the largest
    products form a spanning tree of it, which carries the relative signs.

    Attributes
    ----------
    shots : int
        In each of the first n + 1 circuits.
    sign_shots : int
        Of the interference that determines the overall sign; 0 leaves it to chance.
    """

    name: ClassVar[str] = "hypercube"
    shots: int = 2000
    sign_shots: int = 2000

    def __post_init__(self) -> None:
        check_count("shots", self.shots)
        check_count("sign_shots", self.sign_shots, 0)

    def measurements(self, n: int, *, is_complex: bool = False) -> tuple[Measurement, ...]:
        if is_complex:
            raise ValueError("the hypercube reads real vectors; use Tomography or Interference")
        rotated = ("Z" * k + "X" + "Z" * (n - 1 - k) for k in range(n))
        main = Measurement(self.name, ("Z" * n, *rotated), self.shots)
        return (main, *_sign_measurement(n, self.sign_shots, is_complex))

    def estimate(
        self, frequencies: Sequence[np.ndarray], *, is_complex: bool = False
    ) -> np.ndarray:
        outcomes, *sign = frequencies
        n = _qubits(outcomes)
        magnitudes = np.sqrt(outcomes[0])
        pairs, products = [], []
        for k, rotated in enumerate(outcomes[1:]):
            number = np.arange(2**n).reshape(2**k, 2, -1)
            pairs.append(np.stack([number[:, 0].ravel(), number[:, 1].ravel()]))
            plus, minus = np.moveaxis(rotated.reshape(2**k, 2, -1), 1, 0)
            products.append((plus - minus).ravel() / 2)
        root = int(magnitudes.argmax())
        signs = _tree_signs(np.hstack(pairs), np.concatenate(products), root, 2**n)
        return _with_phase(_normalised(magnitudes * signs), sign, is_complex)


def count_circuits(readout: Readout, n: int, *, is_complex: bool = False) -> int:
    """Number of circuits that a readout measures for one vector of n qubits."""
    return sum(len(one.bases) for one in readout.measurements(n, is_complex=is_complex))


def count_shots(readout: Readout, n: int, *, is_complex: bool = False) -> int:
    """Number of shots that a readout takes for one vector of n qubits."""
    return sum(len(one.bases) * one.shots for one in readout.measurements(n, is_complex=is_complex))


def sample_readout(
    readout: Readout, states: np.ndarray, seed: int | np.random.Generator = 0
) -> np.ndarray:
    """Read states on a noiseless device: outcomes are sampled from their exact probabilities.

    Parameters
    ----------
    readout : Readout
    states : array (samples, 2^n)
        Unit vectors.
    seed : int or numpy Generator

    Returns
    -------
    array (samples, 2^n)
        Estimated unit vectors, real for real states.

    Examples
    --------
    >>> state = np.array([[0.6, -0.8]])
    >>> sample_readout(Interference(1_000_000), state, seed=0).round(2)
    array([[ 0.6, -0.8]])
    """
    rng, is_complex = random_generator(seed), np.iscomplexobj(states)
    measurements = readout.measurements(_qubits(states), is_complex=is_complex)
    found = np.empty_like(states)
    for k, state in enumerate(states):
        frequencies = [
            rng.multinomial(one.shots, outcome_probabilities(one, state)) / one.shots
            for one in measurements
        ]
        found[k] = readout.estimate(frequencies, is_complex=is_complex)
    return found


def outcome_probabilities(measurement: Measurement, state: np.ndarray) -> np.ndarray:
    """Exact probabilities (circuits, outcomes) of a measurement of the state y, (2^n,)."""
    if measurement.with_reference:
        reference = np.full(len(state), len(state) ** -0.5)
        state = np.concatenate([reference, state]) / 2**0.5
    levels, rows = _shared_suffixes(measurement.bases)
    amplitudes = state[None]
    for k, (parents, matrices) in enumerate(levels):
        # (suffix, bits before the qubit, its bit, bits after it)
        amplitudes = amplitudes[parents].reshape(len(parents), -1, 2, 2**k)
        if matrices is not None:
            amplitudes = matrices @ amplitudes
    amplitudes = amplitudes.reshape(len(amplitudes), -1)[rows]
    probabilities = np.real(amplitudes) ** 2
    if np.iscomplexobj(amplitudes):
        probabilities += np.imag(amplitudes) ** 2
    return probabilities / probabilities.sum(axis=1, keepdims=True)


@lru_cache(maxsize=32)
def _shared_suffixes(
    bases: tuple[str, ...],
) -> tuple[list[tuple[np.ndarray, np.ndarray | None]], np.ndarray]:
    """How to rotate a state into many bases, qubit by qubit, sharing the work of equal suffixes.

    Returns
    -------
    levels : list of (parents, matrices)
        For every qubit, the last one first, the suffixes that begin there: which one of the level
        before each extends, and the matrices (suffixes, 1, 2, 2) of its first basis; None if
        all are Z.
    rows : array of int
        The suffix of the last level that is each of the bases.
    """
    levels, known = [], {"": 0}
    for k in reversed(range(len(bases[0]))):
        suffixes = list(dict.fromkeys(setting[k:] for setting in bases))
        names = {one[0] for one in suffixes}
        matrices = np.stack([BASES[one[0]] for one in suffixes])[:, None]
        if "Y" not in names:  # real states stay real
            matrices = np.real(matrices)
        parents = np.array([known[one[1:]] for one in suffixes])
        levels.append((parents, matrices if names != {"Z"} else None))
        known = {one: i for i, one in enumerate(suffixes)}
    return levels, np.array([known[setting] for setting in bases])


def pauli_probabilities(rho: np.ndarray) -> np.ndarray:
    """Outcomes of all settings of a tomography of a density matrix (2^n, 2^n).

    Returns
    -------
    array (3,)*n + (2,)*n
        Bases of each qubit in the order of `BASES`, then its outcomes; qubit 0 is the most
        significant.
    """
    n = _qubits(rho)
    bases = np.stack(list(BASES.values()))
    effects = bases[..., :, None] * bases[..., None, :].conj()
    tensor = rho.reshape((2,) * (2 * n))
    for k in range(n):  # contracts row and column of the first remaining qubit
        tensor = np.tensordot(tensor, effects, axes=((0, n - k), (2, 3)))
    return np.real(tensor).transpose([*range(0, 2 * n, 2), *range(1, 2 * n, 2)])


def invert_counts(frequencies: np.ndarray) -> np.ndarray:
    """Density matrix (2^n, 2^n) by linear inversion of tomography.

    Parameters
    ----------
    frequencies : array (3,)*n + (2,)*n
        Of the outcomes of every setting, bases of a qubit in the order Z, X, Y, qubit 0 the most
        significant.

    Returns
    -------
    array
        Hermitian and of trace 1, the least-squares solution over all settings. Noise can make it
        slightly indefinite.

    Examples
    --------
    A qubit in the state |0>, measured in Z, X and Y:

    >>> invert_counts(np.array([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])).real.round(6) + 0.0
    array([[1., 0.],
           [0., 0.]])
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


def leading_eigenvector(rho: np.ndarray, *, is_complex: bool = False) -> np.ndarray:
    """Eigenvector of the largest eigenvalue of a density matrix, up to its sign or phase.

    That of a real vector is taken from the real part: the imaginary part can only be noise.
    """
    return np.linalg.eigh(rho if is_complex else np.real(rho))[1][:, -1]


def linear_estimate(outcomes: np.ndarray, *, is_complex: bool = False) -> np.ndarray:
    """Unbiased estimate (2^n,) of a vector from its interference with the reference.

    Parameters
    ----------
    outcomes : array (circuits, 2^(n+1))
        Frequencies with the ancilla in the basis X and, for a complex vector, Y.
    """
    halves = outcomes.reshape(len(outcomes), 2, -1)
    parts = (halves[:, 0] - halves[:, 1]) * halves.shape[-1] ** 0.5
    return parts[0] + 1j * parts[1] if is_complex else parts[0]


def _interference(purpose: str, n: int, shots: int, is_complex: bool) -> Measurement:
    """Interference with the reference; `shots` of all its circuits together."""
    ancilla = ("X", "Y") if is_complex else ("X",)
    bases = tuple(basis + "Z" * n for basis in ancilla)
    return Measurement(purpose, bases, max(shots // len(bases), 1), with_reference=True)


def _sign_measurement(n: int, shots: int, is_complex: bool) -> tuple[Measurement, ...]:
    return (_interference("sign", n, shots, is_complex),) if shots else ()


def _with_phase(
    vector: np.ndarray, interference: Sequence[np.ndarray], is_complex: bool
) -> np.ndarray:
    """The vector with the sign or the phase that an interference shows, if one was measured."""
    if not interference:
        return vector
    seen = np.vdot(vector, linear_estimate(interference[0], is_complex=is_complex))
    if not is_complex:
        return vector if seen >= 0 else -vector
    return vector * (seen / abs(seen)) if seen else vector


def _most_likely(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Amplitudes y that maximise f0 log (r + y)^2 + f1 log (r - y)^2 - y^2 / 2, one by one.

    `first` and `second` are the frequencies f0 and f1 with the ancilla in |0> and |1>. The last
    term carries the Lagrange multiplier of the norm, at its true value. The derivative vanishes
    at y^3 - y (r^2 + 2 (f0 + f1)) + 2 r (f0 - f1) = 0, which has three real roots: one on either
    side of +-r and one between.
    """
    r = len(first) ** -0.5
    p = r**2 + 2 * (first + second)
    q = 2 * r * (first - second)
    angle = np.arccos(np.clip(-1.5 * q / p * np.sqrt(3 / p), -1, 1))
    k = np.arange(3)[:, None]
    roots = 2 * np.sqrt(p / 3) * np.cos((angle - 2 * np.pi * k) / 3)
    tiny = np.finfo(float).tiny
    likelihood = (
        first * np.log((r + roots) ** 2 + tiny)
        + second * np.log((r - roots) ** 2 + tiny)
        - roots**2 / 2
    )
    return np.take_along_axis(roots, likelihood.argmax(0)[None], 0)[0]


def _tree_signs(pairs: np.ndarray, products: np.ndarray, root: int, size: int) -> np.ndarray:
    """Signs along the spanning tree of the largest |products|; the sign of the root is +1.

    `pairs` (2, edges) are the nodes that the edges connect, `products` (edges,) their values.
    """
    # the tree has the least total weight, and an edge of weight 0 would be left out
    weight = 2 * np.abs(products).max(initial=1e-300) - np.abs(products)
    nodes = pairs.astype(np.int32)  # the only indices that csgraph takes before SciPy 1.17.1
    tree = minimum_spanning_tree(csr_array((weight, nodes), shape=(size, size)))
    order, before = breadth_first_order(tree, root, directed=False)
    sign_of = {tuple(pair): np.sign(v) or 1.0 for pair, v in zip(pairs.T, products, strict=True)}
    signs = np.ones(size)
    for node in order[1:]:
        ends = sorted((int(node), int(before[node])))
        signs[node] = signs[before[node]] * sign_of[tuple(ends)]
    return signs


def _qubits(array: np.ndarray) -> int:
    """n of an array whose last axis has length 2^n."""
    return array.shape[-1].bit_length() - 1


def _normalised(vector: np.ndarray) -> np.ndarray:
    """The unit vector; a constant one where no counts were informative."""
    norm = np.linalg.norm(vector)
    if norm == 0:
        return np.full_like(vector, len(vector) ** -0.5)
    return vector / norm
