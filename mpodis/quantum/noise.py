"""Circuits on noisy devices, simulated by density matrices and read with their sign."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from qiskit import QuantumCircuit
from qiskit.providers import BackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.noise import NoiseModel

from mpodis.progress import bar
from mpodis.quantum.cost import find_backend
from mpodis.quantum.prepare import BATCH, Preparer, interfering, qubits_of
from mpodis.quantum.readout import invert_counts, pauli_probabilities

__all__ = ["NoisyRunner"]


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
        for name, least in (("sign_shots", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"shots={self.shots} must be 1 or more, or None")
        _ = self._preparer

    @property
    def _preparer(self) -> Preparer:
        return Preparer(
            self.backend, self.encoding, self.layouts, self.optimization_level, self.seed
        )

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits of a vector: its tomography (one for a density matrix as it is) and its sign."""
        return (1 if self.shots is None else 3**n) + 1

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        """Shots of a vector."""
        return (0 if self.shots is None else 3**n * self.shots) + self.sign_shots

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        """Unit vectors (samples, 2^n) for real unit vectors (samples, 2^n).

        Raises
        ------
        ValueError
            For complex states or circuits, and devices that are too small or lack gates.
        """
        n = circuit.num_qubits
        signed, with_reference = interfering(circuit, states)
        simulator = AerSimulator(
            method="density_matrix",
            noise_model=_noise_of(find_backend(self.backend)),
            max_parallel_threads=self.threads,
            max_parallel_experiments=0,
        )
        found = np.empty_like(states)
        plain = self._preparer.batches(states, circuit)
        more = self._preparer.batches(with_reference, signed)
        with bar(total=len(states), desc="noisy device", enabled=progbar) as shown:
            for start in range(0, len(states), BATCH):
                # the ancilla makes the larger circuit: it is refused first, if it does not fit
                signs = simulator.run(
                    next(more), shots=self.sign_shots, seed_simulator=self.seed + start
                ).result()
                jobs = next(plain)
                for job in jobs:
                    job.save_density_matrix(qubits_of(job))
                answers = simulator.run(jobs).result()
                for i in range(len(jobs)):
                    rho = np.asarray(answers.data(i)["density_matrix"])
                    vector = self._leading(rho, start + i)
                    first, second = split_counts(signs.get_counts(i), n)
                    seen = (first - second) @ vector
                    found[start + i] = vector if seen >= 0 else -vector
                shown.update(len(jobs))
        return found

    def _leading(self, rho: np.ndarray, k: int) -> np.ndarray:
        if self.shots is not None:
            rng = np.random.default_rng([self.seed, k])
            table = pauli_probabilities(rho)
            rows = table.reshape(-1, len(rho)).clip(0)
            counts = rng.multinomial(self.shots, rows / rows.sum(1, keepdims=True))
            rho = invert_counts(counts.reshape(table.shape) / self.shots)
        return np.linalg.eigh(rho.real)[1][:, -1]


@lru_cache(maxsize=4)
def _noise_of(backend: BackendV2) -> NoiseModel:
    return NoiseModel.from_backend(backend)  # seconds for a device of 27 qubits


def split_counts(counts: dict[str, int], n: int) -> np.ndarray:
    """Counts (2, 2^n) by the ancilla, the last qubit, and the n others."""
    total = np.zeros((2, 2**n))
    for bits, count in counts.items():
        total[int(bits[0]), int(bits[1:], 2)] += count
    return total
