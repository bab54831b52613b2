"""Circuits on noisy devices: transpiled once, simulated with the device's noise, read with sign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.providers import BackendV2
from qiskit.quantum_info import Statevector
from qiskit.transpiler import TranspilerError
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from mpodis.encodings import brickwall_encodings
from mpodis.progress import bar
from mpodis.quantum.cost import find_backend
from mpodis.quantum.encode import AmplitudeTree, preparation
from mpodis.quantum.readout import invert_counts, pauli_probabilities

__all__ = ["NoisyRunner"]

_BATCH = 50  # samples of one Aer job


@dataclass(frozen=True)
class NoisyRunner:
    """Real vectors through a circuit on a device with noise, simulated by density matrices.

    Vectors are prepared by `brickwall_encodings`: nearly, but with a third of the exact tree's
    gates, which on a noisy device is far nearer. Preparation and circuit are transpiled together;
    the layout of fewest two-qubit gates, of several seeds, is found once and kept. The vector
    read is the leading eigenvector of the real part of the density matrix. Its sign comes from a
    second circuit, the interference of `mpodis.quantum.readout` on one qubit more, sampled with
    the device's readout errors.

    Parameters
    ----------
    backend : "FakeMontrealV2" or BackendV2
        The former needs qiskit-ibm-runtime.
    shots : int or None
        In each of the 3^n settings of tomography, without readout errors; None: the density
        matrix as it is.
    sign_shots : int
        Of the interference.
    encoding : int
        Layers of bricks that prepare a vector; 0: the exact `AmplitudeTree`.
    layouts : int
        Seeds that are tried.
    optimization_level : int
        Qiskit's, 0 to 3.
    seed : int
    threads : int
        Of Aer; 0 is one per core.
    """

    backend: str | BackendV2 = "FakeMontrealV2"
    shots: int | None = None
    sign_shots: int = 2000
    encoding: int = 6
    layouts: int = 4
    optimization_level: int = 3
    seed: int = 0
    threads: int = 0

    def __post_init__(self) -> None:
        for name, least in (("sign_shots", 1), ("encoding", 0), ("layouts", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"shots={self.shots} must be 1 or more, or None")

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits of a vector: its tomography (one for a density matrix as it is) and its sign."""
        return (1 if self.shots is None else 3**n) + 1

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        """Shots of a vector."""
        return (0 if self.shots is None else 3**n * self.shots) + self.sign_shots

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progress: bool = False
    ) -> np.ndarray:
        """Unit vectors (samples, 2^n) for real unit vectors (samples, 2^n).

        Raises
        ------
        ValueError
            For complex states or circuits, and devices that are too small or lack gates.
        """
        if np.iscomplexobj(states):
            raise ValueError("the noisy runner prepares real vectors; use ShotRunner")
        n = circuit.num_qubits
        flat = np.full(2**n, 2.0 ** (-n / 2))
        back = Statevector(flat).evolve(circuit.inverse()).data
        if np.abs(back.imag).max() > 1e-9:
            raise ValueError("the noisy runner takes circuits of real gates")
        with_reference = np.hstack([np.tile(back.real, (len(states), 1)), states]) / 2**0.5

        signed = QuantumCircuit(n + 1)
        signed.compose(circuit, qubits=range(n), inplace=True)
        signed.h(n)
        signed.measure_all()
        simulator = AerSimulator(
            method="density_matrix",
            noise_model=NoiseModel.from_backend(find_backend(self.backend)),
            max_parallel_threads=self.threads,
            max_parallel_experiments=0,
        )
        found = np.empty_like(states)
        plain, more = self._batches(states, circuit), self._batches(with_reference, signed)
        with bar(total=len(states), desc="noisy device", enabled=progress) as shown:
            for start in range(0, len(states), _BATCH):
                jobs = next(plain)
                for job in jobs:
                    qubits = job.layout.final_index_layout(filter_ancillas=True)
                    job.save_density_matrix(qubits)
                answers = simulator.run(jobs).result()
                signs = simulator.run(
                    next(more), shots=self.sign_shots, seed_simulator=self.seed + start
                ).result()
                for i in range(len(jobs)):
                    rho = np.asarray(answers.data(i)["density_matrix"])
                    vector = self._leading(rho, start + i)
                    seen = _seen(signs.get_counts(i), n) @ vector
                    found[start + i] = vector if seen >= 0 else -vector
                shown.update(len(jobs))
        return found

    def transpiled(self, circuit: QuantumCircuit, layout: list[int] | None = None):
        """For the device, on these qubits, or by the seed that takes the fewest 2-qubit gates."""
        backend = find_backend(self.backend)
        if circuit.num_qubits > backend.num_qubits:
            raise ValueError(
                f"{circuit.num_qubits} qubits (with the ancilla of the sign) do not fit on "
                f"{backend.name}, which has {backend.num_qubits}"
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

    def _batches(self, states: np.ndarray, rest: QuantumCircuit) -> Iterator[list[QuantumCircuit]]:
        """Transpiled circuits that prepare each state and go on with `rest`."""
        n = rest.num_qubits
        batches = [states[k : k + _BATCH] for k in range(0, len(states), _BATCH)]
        if not self.encoding or n == 1:
            tree = AmplitudeTree(n)
            whole = self.transpiled(tree.circuit.compose(rest))
            for batch in batches:
                yield [whole.assign_parameters(angles) for angles in tree.angles(batch)]
            return
        layout = None
        for batch in batches:
            encodings = brickwall_encodings(batch, self.encoding, seed=self.seed)
            circuits = [preparation(one.circuit).compose(rest) for one in encodings]
            if layout is None:
                best = self.transpiled(circuits[0])
                layout = best.layout.initial_index_layout(filter_ancillas=True)
            yield [self.transpiled(circuit, layout) for circuit in circuits]

    def _leading(self, rho: np.ndarray, k: int) -> np.ndarray:
        if self.shots is not None:
            rng = np.random.default_rng([self.seed, k])
            table = pauli_probabilities(rho)
            rows = table.reshape(-1, len(rho)).clip(0)
            counts = rng.multinomial(self.shots, rows / rows.sum(1, keepdims=True))
            rho = invert_counts(counts.reshape(table.shape) / self.shots)
        return np.linalg.eigh(rho.real)[1][:, -1]


def _seen(counts: dict[str, int], n: int) -> np.ndarray:
    """The linear estimate of the vector, up to a positive factor."""
    total = np.zeros((2, 2**n))
    for bits, count in counts.items():
        total[int(bits[0]), int(bits[1:], 2)] += count
    return total[0] - total[1]
