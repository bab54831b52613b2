"""Vectors through circuits on a device, or on any Qiskit backend, read from its counts alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from qiskit import QuantumCircuit
from qiskit.primitives import BackendSamplerV2, BaseSamplerV2
from qiskit.providers import BackendV2

from mpodis.progress import bar
from mpodis.quantum.cost import find_backend
from mpodis.quantum.prepare import BATCH, Preparer, interfering
from mpodis.quantum.readout import (
    BASES,
    Interference,
    Tomography,
    from_interference,
    invert_counts,
)

__all__ = ["DeviceRunner"]


@dataclass(frozen=True)
class DeviceRunner:
    """Real vectors through a circuit on a Qiskit backend, from shots and nothing else.

    Preparation, circuit and readout are transpiled for the device and run by a sampler: that of
    Qiskit for the backend, or one that is given, such as the ``SamplerV2`` of qiskit-ibm-runtime or
    of qiskit-aer.

    Parameters
    ----------
    backend : "FakeMontrealV2" or BackendV2
        What circuits are transpiled for.
    readout : Interference or Tomography
    sampler : BaseSamplerV2, optional
    encoding, layouts, optimization_level, seed
        As in `NoisyRunner`; by default two layers more, for vectors are read from the circuit with
        the ancilla, which is the larger one.
    """

    backend: str | BackendV2
    readout: Interference | Tomography = field(default_factory=Interference)
    sampler: BaseSamplerV2 | None = None
    encoding: int = 8
    layouts: int = 4
    optimization_level: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.readout, (Interference, Tomography)):
            raise ValueError(
                f"readout={self.readout!r} is not run on devices; use Interference or Tomography"
            )
        _ = self._preparer

    @property
    def _preparer(self) -> Preparer:
        return Preparer(
            self.backend, self.encoding, self.layouts, self.optimization_level, self.seed
        )

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits of a vector."""
        return self.readout.settings(n)

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        """Shots of a vector."""
        return self.readout.shots_of(n)

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        """Unit vectors (samples, 2^n) for real unit vectors (samples, 2^n).

        Raises
        ------
        ValueError
            For complex states or circuits, and devices that are too small or lack gates.
        """
        sampler = self.sampler
        if sampler is None:
            options = {"seed_simulator": self.seed}
            sampler = BackendSamplerV2(backend=find_backend(self.backend), options=options)
        readout, found = self.readout, np.empty_like(states)
        tomography = isinstance(readout, Tomography)
        shots = readout.sign_shots if tomography else readout.shots
        signed, with_reference = interfering(circuit, states)
        references = self._frequencies(sampler, with_reference, signed, shots) if shots else None
        settings = [
            self._frequencies(sampler, states, one, readout.shots)
            for one in (_measured(circuit) if tomography else ())
        ]
        with bar(total=len(states), desc="device", enabled=progbar) as shown:
            for start in range(0, len(states), BATCH):
                seen = None if references is None else next(references)
                if tomography:
                    part = self._leading([next(each) for each in settings])
                    if seen is not None:
                        halves = seen.reshape(len(seen), 2, -1)
                        negative = ((halves[:, 0] - halves[:, 1]) * part).sum(1) < 0
                        part[negative] *= -1
                else:
                    halves = seen.reshape(len(seen), 2, -1)
                    part = np.stack([from_interference(*each) for each in halves])
                found[start : start + BATCH] = part
                shown.update(len(part))
        return found

    def _frequencies(
        self, sampler: BaseSamplerV2, states: np.ndarray, rest: QuantumCircuit, shots: int
    ) -> Iterator[np.ndarray]:
        """Of the outcomes (samples, 2^n) of `rest` on each state, `BATCH` at a time."""
        size = 2**rest.num_qubits
        for jobs in self._preparer.batches(states, rest):
            answers = sampler.run(jobs, shots=shots).result()
            found = np.zeros((len(jobs), size))
            for row, answer in zip(found, answers, strict=True):
                for outcome, count in answer.data.meas.get_int_counts().items():
                    row[outcome] = count / shots
            yield found

    def _leading(self, settings: list[np.ndarray]) -> np.ndarray:
        """Vectors (samples, 2^n), up to their signs, from the frequencies of all settings."""
        n = settings[0].shape[1].bit_length() - 1
        tables = np.stack(settings, axis=1).reshape(-1, *(3,) * n, *(2,) * n)
        return np.stack([np.linalg.eigh(invert_counts(one).real)[1][:, -1] for one in tables])


def _measured(circuit: QuantumCircuit) -> Iterator[QuantumCircuit]:
    """The circuit in all 3^n settings, in the order of `invert_counts`."""
    n = circuit.num_qubits
    for bases in product(BASES, repeat=n):
        setting = circuit.copy()
        for site, basis in enumerate(bases):
            qubit = n - 1 - site
            if basis == "Y":
                setting.sdg(qubit)
            if basis != "Z":
                setting.h(qubit)
        setting.measure_all()
        yield setting
