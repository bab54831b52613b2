"""Activations as quantum states: how a vector is prepared on a device, its norm kept classically.

An `Encoding` makes circuits that prepare vectors from |0...0>, exactly or approximately. An
encoding of one's own is a class with the members of `Encoding`, registered with
`register_encoding`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Protocol, TypeVar

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.library import StatePreparation, UnitaryGate
from qiskit.quantum_info import Statevector

from mpodis.arguments import check_count
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import Array
from mpodis.encodings import (
    EncodedVector,
    brickwall_encodings,
    layered_encoding,
    mps_encoding,
)
from mpodis.quantum.convert import to_qiskit
from mpodis.resynthesis.two_qubit_gates import product_gate

__all__ = [
    "ENCODINGS",
    "AmplitudeTree",
    "BrickwallEncoding",
    "Encoding",
    "MPSEncoding",
    "PreparedStates",
    "QiskitEncoding",
    "StaircaseEncoding",
    "TreeEncoding",
    "amplitude_encoding",
    "find_encoding",
    "normalise",
    "prepare_from_zero",
    "register_encoding",
    "with_reference",
]


def normalise(x: Array) -> tuple[np.ndarray, np.ndarray]:
    """Split vectors into unit vectors and norms; a state has no norm, so the norm stays classical.

    Parameters
    ----------
    x : array (samples, dimension)
        Real or complex. A zero vector has the norm 0 and the "state" 0.

    Returns
    -------
    states : array (samples, dimension)
        float64 or complex128.
    norms : array (samples,)

    Examples
    --------
    >>> normalise([[3.0, 4.0], [0.0, 0.0]])
    (array([[0.6, 0.8],
           [0. , 0. ]]), array([5., 0.]))
    """
    x = np.asarray(x)
    x = x.astype(np.complex128 if np.iscomplexobj(x) else np.float64)
    # dividing by the largest element first keeps squares of tiny or huge activations in range
    scale = np.abs(x).max(axis=1, initial=0.0)
    safe = np.where(scale > 0, scale, 1.0)
    x = x / safe[:, None]
    norms = np.linalg.norm(x, axis=1)
    return x / np.where(norms > 0, norms, 1.0)[:, None], norms * scale


def amplitude_encoding(state: np.ndarray) -> QuantumCircuit:
    """Circuit that initialises n qubits in a unit vector (2^n,), for simulators.

    Site 0 is the most significant bit of an amplitude's number and qubit n-1 is Qiskit's, so the
    vector needs no reordering.

    Examples
    --------
    >>> amplitude_encoding(np.array([0.6, 0.8])).count_ops()["initialize"]
    1
    """
    n = len(state).bit_length() - 1
    circuit = QuantumCircuit(n)
    circuit.initialize(state.tolist(), range(n))
    return circuit


def prepare_from_zero(circuit: Circuit) -> QuantumCircuit:
    """`to_qiskit` for a circuit that acts on |0...0>: its first 2-qubit gates take 1 CNOT, or none.

    A gate on two qubits that are in a product state prepares a 2 x 2 matrix of amplitudes U S V^T:
    a rotation by the two singular values, a CNOT, and U and V on one qubit each.
    """
    n, whole = circuit.n, to_qiskit(circuit)
    reduced = QuantumCircuit(n, global_phase=whole.global_phase)
    states = {wire: np.array([1.0, 0.0]) for wire in range(n)}  # of wires not entangled yet
    placed = zip(circuit.ansatz.placements, circuit.gates, whole.data, strict=True)
    for placement, gate, instruction in placed:
        wires = placement.wires
        before = {wire: states[wire] for wire in wires if wire in states}
        pair = product_gate(states, wires, gate)
        if pair is None:
            for wire, state in before.items():
                _prepare_qubit(reduced, n - 1 - wire, state)
            reduced.append(instruction)
        elif wires[0] not in states:
            control, target = (n - 1 - wire for wire in wires)
            u, values, vt = np.linalg.svd(pair)
            reduced.ry(2 * float(np.arctan2(values[1], values[0])), control)
            reduced.cx(control, target)
            reduced.append(UnitaryGate(u), [control])
            reduced.append(UnitaryGate(vt.T), [target])
    for wire, state in states.items():
        _prepare_qubit(reduced, n - 1 - wire, state)
    return reduced


def _prepare_qubit(circuit: QuantumCircuit, qubit: int, state: np.ndarray) -> None:
    """Append a gate that takes |0> to a state, unless it is |0>."""
    a, b = state
    if a != 1.0:
        gate = np.array([[a, -np.conj(b)], [b, np.conj(a)]])
        circuit.append(UnitaryGate(gate), [qubit])


def with_reference(
    circuit: QuantumCircuit, states: np.ndarray
) -> tuple[QuantumCircuit, np.ndarray]:
    """What is run, and on which states, so that the outputs interfere with the reference r.

    The circuit Q is put on n + 1 qubits; the last one, the ancilla, is the most significant. It
    takes |0> Q^-1 r + |1> x to |0> r + |1> y, up to 1 / sqrt(2). All amplitudes of r are equal.

    Returns
    -------
    circuit : QuantumCircuit
        On n + 1 qubits.
    states : array (samples, 2^(n+1))
        Real if the states are, and the circuit's gates.
    """
    n = circuit.num_qubits
    reference = np.full(2**n, 2.0 ** (-n / 2))
    back = np.asarray(Statevector(reference).evolve(circuit.inverse()).data)
    if np.abs(np.imag(back)).max() <= 1e-9:  # rounding
        back = np.real(back)
    extended = QuantumCircuit(n + 1)
    extended.compose(circuit, qubits=range(n), inplace=True)
    return extended, np.hstack([np.tile(back, (len(states), 1)), states]) / 2**0.5


@dataclass(frozen=True)
class AmplitudeTree:
    """Preparation of any real vector of 2^n amplitudes by one circuit with 2^n - 1 angles.

    Rotations RY controlled by all more significant qubits, as in arXiv quant-ph/0407010: 2^n - 2
    CNOTs. The circuit is transpiled once and bound to the angles of each vector.

    Parameters
    ----------
    n : int
        Number of qubits, at least 1.
    """

    n: int

    def __post_init__(self) -> None:
        check_count("n", self.n)

    @cached_property
    def circuit(self) -> QuantumCircuit:
        """The circuit, with a `ParameterVector` of the angles in the order of `angles`."""
        angles = ParameterVector("angle", 2**self.n - 1)
        circuit = QuantumCircuit(self.n)
        remaining = iter(angles)
        for k in range(self.n):
            target = self.n - 1 - k
            for j in range(2**k):
                circuit.ry(next(remaining), target)
                if k:  # the control is the bit that changes in the Gray code
                    changed = _gray(j) ^ _gray((j + 1) % 2**k)
                    circuit.cx(target + changed.bit_length(), target)
        return circuit

    def angles(self, states: Array) -> np.ndarray:
        """Angles (samples, 2^n - 1) that prepare real unit vectors (samples, 2^n), signs included.

        Raises
        ------
        ValueError
            For complex vectors, or vectors of another length.
        """
        states = np.asarray(states)
        if states.ndim != 2 or states.shape[1] != 2**self.n or np.iscomplexobj(states):
            raise ValueError(
                f"states of shape {states.shape} and type {states.dtype} must be real and "
                f"(samples, {2**self.n})"
            )
        norms, levels = states, []
        for _ in range(self.n):
            pairs = norms.reshape(len(states), -1, 2)
            # norms are not negative, so only the last level holds signs
            levels.insert(0, 2 * np.arctan2(pairs[..., 1], pairs[..., 0]))
            norms = np.hypot(pairs[..., 0], pairs[..., 1])
        found = [level @ _uniformly_controlled(k).T for k, level in enumerate(levels)]
        return np.concatenate(found, axis=1)

    def bound(self, state: Array) -> QuantumCircuit:
        """The circuit that prepares one real unit vector (2^n,)."""
        return self.circuit.assign_parameters(self.angles(np.asarray(state)[None])[0])


def _gray(i: int) -> int:
    return i ^ (i >> 1)


def _uniformly_controlled(k: int) -> np.ndarray:
    """From the angle of each value of k controls to the angles between CNOTs in Gray order."""
    size = 2**k
    parity = [
        [(value & _gray(place)).bit_count() % 2 for value in range(size)] for place in range(size)
    ]
    return (-1.0) ** np.array(parity) / size


@dataclass(frozen=True, eq=False)
class PreparedStates:
    """Circuits that prepare several states of the same number of qubits.

    Attributes
    ----------
    circuits : tuple of QuantumCircuit
        One for each state; or, where `parameters` are given, a single one for all.
    fidelities : array (samples,)
        |<state, prepared>|^2.
    parameters : array (samples, k), optional
        Values of the k parameters of the single circuit, for each state.
    """

    circuits: tuple[QuantumCircuit, ...]
    fidelities: np.ndarray
    parameters: np.ndarray | None = None


class Encoding(Protocol):
    """A way to prepare vectors as quantum states.

    Attributes
    ----------
    name : str
        By which `inference_cost` and other functions find the encoding. They call the class
        without arguments.
    """

    name: ClassVar[str]

    def prepare(self, states: np.ndarray) -> PreparedStates:
        """Circuits that prepare unit vectors (samples, 2^n) from |0...0>, n at least 1.

        Raises
        ------
        ValueError
            If the vectors are complex and the encoding is for real ones.
        """
        ...


ENCODINGS: dict[str, Callable[..., Encoding]] = {}
"""Encodings by name."""

_Class = TypeVar("_Class", bound=type[Encoding])


def register_encoding(cls: _Class) -> _Class:
    """Make an encoding known by its `name`; usable as a decorator of the class."""
    ENCODINGS[cls.name] = cls
    return cls


def find_encoding(encoding: str | Encoding) -> Encoding:
    """An encoding, or the registered one of a name.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    if not isinstance(encoding, str):
        return encoding
    if encoding not in ENCODINGS:
        raise ValueError(
            f"encoding={encoding!r} is not known; use one of {', '.join(ENCODINGS)}, or add yours "
            "with register_encoding"
        )
    return ENCODINGS[encoding]()


@register_encoding
@dataclass(frozen=True)
class TreeEncoding:
    """Any real vector, exactly, by `AmplitudeTree`: one circuit for all vectors."""

    name: ClassVar[str] = "tree"

    def prepare(self, states: np.ndarray) -> PreparedStates:
        _check_real(states, self.name)
        tree = AmplitudeTree(_qubits(states))
        return PreparedStates((tree.circuit,), np.ones(len(states)), tree.angles(states))


@register_encoding
@dataclass(frozen=True)
class QiskitEncoding:
    """Any vector, exactly, by Qiskit's `StatePreparation`."""

    name: ClassVar[str] = "qiskit"

    def prepare(self, states: np.ndarray) -> PreparedStates:
        n = _qubits(states)
        circuits = []
        for state in states:
            circuit = QuantumCircuit(n)
            circuit.append(StatePreparation(state.tolist()), range(n))
            circuits.append(circuit)
        return PreparedStates(tuple(circuits), np.ones(len(states)))


@register_encoding
@dataclass(frozen=True)
class MPSEncoding:
    """Any vector, truncated to a matrix product state of a bond dimension, by `mps_encoding`."""

    name: ClassVar[str] = "mps"
    max_bond: int = 2

    def prepare(self, states: np.ndarray) -> PreparedStates:
        return _prepared([mps_encoding(state, self.max_bond) for state in states], to_qiskit)


@register_encoding
@dataclass(frozen=True)
class StaircaseEncoding:
    """Any vector, approximately, by the two-qubit gates of `layered_encoding`."""

    name: ClassVar[str] = "staircases"
    layers: int = 4

    def prepare(self, states: np.ndarray) -> PreparedStates:
        if _qubits(states) == 1:  # one gate is exact
            return MPSEncoding().prepare(states)
        return _prepared([layered_encoding(state, self.layers) for state in states], to_qiskit)


@register_encoding
@dataclass(frozen=True)
class BrickwallEncoding:
    """Real vectors, approximately, by the two-qubit gates of `brickwall_encodings`.

    About a third of the CNOTs of `TreeEncoding`, and no SWAPs on a line of qubits.
    """

    name: ClassVar[str] = "brickwall"
    layers: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("layers", self.layers)

    def prepare(self, states: np.ndarray) -> PreparedStates:
        _check_real(states, self.name)
        if _qubits(states) == 1:  # one rotation is exact
            return TreeEncoding().prepare(states)
        found = brickwall_encodings(states, self.layers, seed=self.seed)
        return _prepared(list(found), prepare_from_zero)


def _prepared(
    encoded: list[EncodedVector], convert: Callable[[Circuit], QuantumCircuit]
) -> PreparedStates:
    circuits = tuple(convert(one.circuit) for one in encoded)
    return PreparedStates(circuits, np.array([one.fidelity for one in encoded]))


def _qubits(states: np.ndarray) -> int:
    return states.shape[-1].bit_length() - 1


def _check_real(states: np.ndarray, name: str) -> None:
    if np.iscomplexobj(states):
        raise ValueError(
            f"the {name} encoding prepares real vectors; use the encoding 'qiskit', 'mps' or "
            "'staircases' for complex ones"
        )
