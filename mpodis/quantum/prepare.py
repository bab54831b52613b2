"""Circuits for a device: vectors prepared, a circuit behind them, transpiled to its qubits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.providers import BackendV2
from qiskit.quantum_info import Statevector
from qiskit.transpiler import TranspilerError

from mpodis.encodings import brickwall_encodings
from mpodis.quantum.cost import find_backend
from mpodis.quantum.encode import AmplitudeTree, preparation

__all__ = ["BATCH", "Preparer", "interfering"]

BATCH = 50
"""Samples of one job."""


@dataclass(frozen=True)
class Preparer:
    """How vectors and circuits come onto a device.

    Parameters
    ----------
    backend : str or BackendV2
    encoding : int
        Layers of bricks that prepare a vector, see `brickwall_encodings`; 0: `AmplitudeTree`.
    layouts : int
        Seeds of the layout that are tried, once.
    optimization_level : int
        Qiskit's, 0 to 3.
    seed : int
    """

    backend: str | BackendV2
    encoding: int
    layouts: int
    optimization_level: int
    seed: int

    def __post_init__(self) -> None:
        for name, least in (("encoding", 0), ("layouts", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")

    def transpiled(self, circuit: QuantumCircuit, layout: list[int] | None = None):
        """For the device, on these qubits, or by the seed that takes the fewest 2-qubit gates.

        Raises
        ------
        ValueError
            For devices that are too small or lack gates.
        """
        backend = find_backend(self.backend)
        available = backend.num_qubits  # None: as many as wanted
        if available is not None and circuit.num_qubits > available:
            raise ValueError(
                f"{circuit.num_qubits} qubits (with the ancilla of the sign) do not fit on "
                f"{backend.name}, which has {available}"
            )
        try:
            tried = [
                transpile(
                    circuit,
                    backend,
                    initial_layout=layout,
                    optimization_level=self.optimization_level,
                    seed_transpiler=self.seed + k,
                )
                for k in range(self.layouts if layout is None else 1)
            ]
        except TranspilerError as error:
            raise ValueError(f"{backend.name} cannot run the circuit: {error.message}") from error
        return min(tried, key=lambda one: one.num_nonlocal_gates())

    def batches(self, states: np.ndarray, rest: QuantumCircuit) -> Iterator[list[QuantumCircuit]]:
        """Transpiled circuits that prepare each state and go on with `rest`, `BATCH` at a time."""
        n = rest.num_qubits
        parts = [states[k : k + BATCH] for k in range(0, len(states), BATCH)]
        if not self.encoding or n == 1:
            tree = AmplitudeTree(n)
            whole = self.transpiled(tree.circuit.compose(rest))
            for part in parts:
                yield [whole.assign_parameters(angles) for angles in tree.angles(part)]
            return
        layout = None
        for part in parts:
            encodings = brickwall_encodings(part, self.encoding, seed=self.seed)
            circuits = [preparation(one.circuit).compose(rest) for one in encodings]
            if layout is None:
                layout = qubits_of(self.transpiled(circuits[0]), final=False)
            yield [self.transpiled(circuit, layout) for circuit in circuits]


def qubits_of(transpiled: QuantumCircuit, *, final: bool = True) -> list[int]:
    """The device's qubits that hold the circuit's, behind or before all gates."""
    layout = transpiled.layout
    if layout is None:  # a simulator that takes circuits as they are
        return list(range(transpiled.num_qubits))
    if final:
        return layout.final_index_layout(filter_ancillas=True)
    return layout.initial_index_layout(filter_ancillas=True)


def interfering(circuit: QuantumCircuit, states: np.ndarray) -> tuple[QuantumCircuit, np.ndarray]:
    """What is run, and on which states, so that the outputs interfere with a flat reference.

    |0> Q^-1 r + |1> x is prepared on one qubit more, which is measured behind a Hadamard gate.

    Raises
    ------
    ValueError
        For complex states or circuits.
    """
    n = circuit.num_qubits
    back = Statevector(np.full(2**n, 2.0 ** (-n / 2))).evolve(circuit.inverse()).data
    if np.iscomplexobj(states) or np.abs(back.imag).max() > 1e-9:
        raise ValueError(
            "devices prepare real vectors, for circuits of real gates; use ShotRunner for others"
        )
    both = np.hstack([np.tile(back.real, (len(states), 1)), states]) / 2**0.5
    rest = QuantumCircuit(n + 1)
    rest.compose(circuit, qubits=range(n), inplace=True)
    rest.h(n)
    rest.measure_all()
    return rest, both
