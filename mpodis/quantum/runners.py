"""Runners: what executes a circuit on many vectors, exactly, with sampled counts, or on a device.

`run_circuit` and `execute_layer` do what is classical (checks, norms, zero vectors) and leave the
rest to a `Runner`. A runner of one's own is any object with its methods.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Protocol

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import Gate
from qiskit.circuit.library import HGate, SdgGate
from qiskit.primitives import BackendSamplerV2, BaseSamplerV2
from qiskit.providers import BackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveDensityMatrix, SaveStatevector

from mpodis.arguments import check_count
from mpodis.progress import bar
from mpodis.quantum.backends import (
    BATCH,
    DeviceTranspiler,
    backend_name,
    check_size,
    find_backend,
    noise_of,
    qubits_of,
)
from mpodis.quantum.readout import (
    Interference,
    Measurement,
    Readout,
    count_circuits,
    count_shots,
    find_readout,
    invert_counts,
    leading_eigenvector,
    linear_estimate,
    pauli_probabilities,
    sample_readout,
)
from mpodis.quantum.state_preparation import (
    BrickwallEncoding,
    Encoding,
    amplitude_encoding,
    find_encoding,
    with_reference,
)

__all__ = [
    "BASIS_CHANGES",
    "DeviceRunner",
    "NoisyRunner",
    "Runner",
    "ShotRunner",
    "StatevectorRunner",
]

_BATCH = 500  # circuits in one Aer job: enough to hide its overhead
_AMPLITUDES = 2**22  # in one Aer job: 64 MiB

BASIS_CHANGES: dict[str, tuple[Gate, ...]] = {"Z": (), "X": (HGate(),), "Y": (SdgGate(), HGate())}
"""Gates before a measurement in each of the bases of a `Measurement`."""


class Runner(Protocol):
    """Something that executes one circuit on many input states.

    `evaluate` recognises an interrupted evaluation by the runner's ``repr``, which should state
    everything that results depend on.
    """

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        """Output amplitudes (samples, 2^n) for normalised input amplitudes (samples, 2^n)."""
        ...

    def n_circuits(self, n: int, *, is_complex: bool = False) -> int:
        """Number of circuits that are run for one vector of n qubits."""
        ...

    def n_shots(self, n: int, *, is_complex: bool = False) -> int:
        """Number of shots for one vector of n qubits; 0 where nothing is sampled."""
        ...


@dataclass(frozen=True)
class StatevectorRunner:
    """Aer's statevector simulator, read exactly: no shots, no noise, no readout.

    Every vector is one circuit: amplitude encoding, each gate by itself (no fusion), and the
    final state in double precision.

    Parameters
    ----------
    batch_size : int, optional
        Circuits in one Aer job; by default up to 500, fewer from 14 qubits on.
    threads : int
        Of one job; 0 is one per core. Use 1 in a process pool.
    """

    batch_size: int | None = field(default=None, repr=False)
    threads: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        if self.batch_size is not None:
            check_count("batch_size", self.batch_size)
        check_count("threads", self.threads, 0)

    def n_circuits(self, n: int, *, is_complex: bool = False) -> int:
        return 1

    def n_shots(self, n: int, *, is_complex: bool = False) -> int:
        return 0

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        samples, dimension = states.shape
        batch = self.batch_size or max(1, min(_BATCH, _AMPLITUDES // dimension))
        simulator = AerSimulator(
            method="statevector",
            fusion_enable=False,
            max_parallel_threads=self.threads,
            max_parallel_experiments=0,
        )
        gates = circuit.copy()
        gates.append(SaveStatevector(gates.num_qubits), gates.qubits)
        result = np.empty((samples, dimension), dtype=np.complex128)
        with bar(total=samples, desc="Aer statevector", enabled=progbar) as shown:
            for begin in range(0, samples, batch):
                jobs = []
                for state in states[begin : begin + batch]:
                    job = amplitude_encoding(state)
                    job.compose(gates, inplace=True, copy=False)
                    jobs.append(job)
                answer = simulator.run(jobs).result()
                for i in range(len(jobs)):
                    result[begin + i] = answer.data(i)["statevector"]
                shown.update(len(jobs))
        return result


@dataclass(frozen=True)
class ShotRunner:
    """A noiseless device with a finite number of shots.

    Final states come from Aer's statevector simulator; counts are sampled from their outcome
    probabilities, which is what Aer's own sampling does.

    Parameters
    ----------
    readout : Readout, or the name of one
        `Tomography`, `Interference`, `Hypercube` or one of your own.
    seed : int
        The counts of a vector depend on the seed and on this vector alone.
    threads : int
        See `StatevectorRunner`.
    """

    readout: str | Readout
    seed: int = 0
    threads: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        find_readout(self.readout)  # raises for an unknown name

    def n_circuits(self, n: int, *, is_complex: bool = False) -> int:
        return count_circuits(find_readout(self.readout), n, is_complex=is_complex)

    def n_shots(self, n: int, *, is_complex: bool = False) -> int:
        return count_shots(find_readout(self.readout), n, is_complex=is_complex)

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        readout = find_readout(self.readout)
        exact = StatevectorRunner(threads=self.threads)
        final = exact.run(circuit, states, progbar=progbar)
        read = np.empty_like(final)
        with bar(total=len(final), desc="readout", enabled=progbar) as shown:
            for k, state in enumerate(states):
                number = zlib.crc32(np.ascontiguousarray(state).tobytes())
                rng = np.random.default_rng([self.seed, number])
                one = final[k : k + 1]
                if np.abs(np.imag(one)).max() < 1e-9:  # rounding of the simulation
                    one = np.real(one)
                read[k] = sample_readout(readout, one, rng)[0]
                shown.update()
        return read


@dataclass(frozen=True, repr=False)
class _OnBackend:
    """A runner that transpiles for a backend; its repr shows the backend by name."""

    backend: str | BackendV2
    _: KW_ONLY
    encoding: str | Encoding
    trials: int = 4
    optimization_level: int = 3
    seed: int = 0

    @property
    def _transpiler(self) -> DeviceTranspiler:
        return DeviceTranspiler(
            self.backend,
            find_encoding(self.encoding),
            self.trials,
            self.optimization_level,
            self.seed,
        )

    def __repr__(self) -> str:
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.repr}
        values["backend"] = backend_name(self.backend)
        listed = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({listed})"


@dataclass(frozen=True, repr=False)
class DeviceRunner(_OnBackend):
    """Real vectors through a circuit on a Qiskit backend, from nothing but its counts.

    Preparation, circuit and readout are transpiled for the device and run by a sampler: Qiskit's
    for the backend by default, or for example the ``SamplerV2`` of qiskit-ibm-runtime or of
    qiskit-aer.

    Parameters
    ----------
    backend : "FakeMontrealV2" or BackendV2
        The device for which circuits are transpiled.
    readout : Readout, or the name of one
    sampler : BaseSamplerV2, optional
    encoding : Encoding, or the name of one
        How vectors are prepared. The default has two layers more than that of `NoisyRunner`,
        since a vector is read from the larger circuit, which has the ancilla.
    trials, optimization_level, seed
        See `DeviceTranspiler`.
    """

    backend: str | BackendV2
    readout: str | Readout = field(default_factory=Interference)
    sampler: BaseSamplerV2 | None = field(default=None, repr=False)
    encoding: str | Encoding = field(default_factory=lambda: BrickwallEncoding(8), kw_only=True)

    def __post_init__(self) -> None:
        find_readout(self.readout)  # raises for an unknown name
        _ = self._transpiler  # checks the options

    def n_circuits(self, n: int, *, is_complex: bool = False) -> int:
        return count_circuits(find_readout(self.readout), n, is_complex=is_complex)

    def n_shots(self, n: int, *, is_complex: bool = False) -> int:
        return count_shots(find_readout(self.readout), n, is_complex=is_complex)

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
        n = circuit.num_qubits
        referenced = _real_with_reference(circuit, states)
        readout = find_readout(self.readout)
        measurements = readout.measurements(n)
        check_size(n + any(one.with_reference for one in measurements), self.backend)
        batches = [
            self._frequencies(
                sampler, one, *(referenced if one.with_reference else (circuit, states))
            )
            for one in measurements
        ]
        found = np.empty_like(states)
        with bar(total=len(states), desc="device", enabled=progbar) as shown:
            for begin, batch in zip(
                range(0, len(states), BATCH), zip(*batches, strict=True), strict=True
            ):
                size = len(batch[0])
                for i in range(size):
                    found[begin + i] = readout.estimate([seen[i] for seen in batch])
                shown.update(size)
        return found

    def _frequencies(
        self,
        sampler: BaseSamplerV2,
        measurement: Measurement,
        circuit: QuantumCircuit,
        states: np.ndarray,
    ) -> Iterator[np.ndarray]:
        """Frequencies (samples, circuits, outcomes) of a measurement, `BATCH` samples at a time."""
        measured = _measured(circuit, measurement)
        for batch in self._transpiler.batches(states, measured):
            found = []
            for jobs in batch:
                answers = sampler.run(jobs, shots=measurement.shots).result()
                found.append(np.zeros((len(jobs), states.shape[1])))
                for i in range(len(jobs)):
                    for outcome, count in answers[i].data["meas"].get_int_counts().items():
                        found[-1][i, outcome] = count / measurement.shots
            yield np.stack(found, axis=1)


@dataclass(frozen=True, repr=False)
class NoisyRunner(_OnBackend):
    """Real vectors through a circuit on a noisy device, simulated by density matrices.

    Vectors are prepared approximately by default, with a third of the gates of the exact
    `TreeEncoding`, which on a noisy device is much more accurate. The vector that is read is the
    leading eigenvector of the real part of the density matrix. Its sign comes from a second
    circuit, the `Interference` on one qubit more, sampled with the device's readout errors.

    Parameters
    ----------
    backend : "FakeMontrealV2" or BackendV2
        The former needs qiskit-ibm-runtime.
    shots : int or None
        In each of the 3^n settings of tomography, without readout errors; None: the exact density
        matrix.
    sign_shots : int
        Of the interference.
    encoding : Encoding, or the name of one
        How vectors are prepared.
    trials, optimization_level, seed
        See `DeviceTranspiler`.
    threads : int
        Of Aer; 0 is one per core.
    """

    backend: str | BackendV2 = "FakeMontrealV2"
    shots: int | None = None
    sign_shots: int = 2000
    encoding: str | Encoding = field(default_factory=BrickwallEncoding, kw_only=True)
    threads: int = field(default=0, repr=False)

    def __post_init__(self) -> None:
        for name, least in (("sign_shots", 1), ("threads", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")
        if self.shots is not None and self.shots < 1:
            raise ValueError(f"shots={self.shots} must be 1 or more, or None")
        _ = self._transpiler  # checks the other options

    def n_circuits(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits of the tomography (one for an exact density matrix) and of the sign."""
        return (1 if self.shots is None else 3**n) + 1

    def n_shots(self, n: int, *, is_complex: bool = False) -> int:
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
        referenced, with_ancilla = _real_with_reference(circuit, states)
        check_size(n + 1, self.backend)
        (sign,) = Interference(self.sign_shots).measurements(n)
        simulator = AerSimulator(
            method="density_matrix",
            noise_model=noise_of(self.backend),
            max_parallel_threads=self.threads,
            max_parallel_experiments=0,
        )
        found = np.empty_like(states)
        interfering = self._transpiler.batches(with_ancilla, _measured(referenced, sign))
        plain = self._transpiler.batches(states, [circuit])
        with bar(total=len(states), desc="noisy device", enabled=progbar) as shown:
            for begin, (sign_jobs,), (jobs,) in zip(
                range(0, len(states), BATCH), interfering, plain, strict=True
            ):
                signs = simulator.run(
                    sign_jobs, shots=self.sign_shots, seed_simulator=self.seed + begin
                ).result()
                for job in jobs:
                    job.append(SaveDensityMatrix(n), qubits_of(job, n))
                answers = simulator.run(jobs).result()
                for i in range(len(jobs)):
                    rho = np.asarray(answers.data(i)["density_matrix"])
                    vector = self._leading(rho, begin + i)
                    outcomes = np.zeros((1, 2 ** (n + 1)))
                    for bits, count in signs.get_counts(i).items():
                        outcomes[0, int(bits, 2)] = count
                    seen = linear_estimate(outcomes) @ vector
                    found[begin + i] = vector if seen >= 0 else -vector
                shown.update(len(jobs))
        return found

    def _leading(self, rho: np.ndarray, k: int) -> np.ndarray:
        """The vector of a density matrix up to its sign, from sampled counts if wanted."""
        if self.shots is not None:
            rng = np.random.default_rng([self.seed, k])
            table = pauli_probabilities(rho)
            rows = table.reshape(-1, len(rho)).clip(0)
            counts = rng.multinomial(self.shots, rows / rows.sum(1, keepdims=True))
            rho = invert_counts(counts.reshape(table.shape) / self.shots)
        return leading_eigenvector(rho)


def _real_with_reference(
    circuit: QuantumCircuit, states: np.ndarray
) -> tuple[QuantumCircuit, np.ndarray]:
    """`with_reference`, for real states and circuits."""
    extended, both = with_reference(circuit, states)
    if np.iscomplexobj(both):
        raise ValueError(
            "devices prepare real vectors, for circuits of real gates; use ShotRunner for others"
        )
    return extended, both


def _measured(circuit: QuantumCircuit, measurement: Measurement) -> list[QuantumCircuit]:
    """The circuit, measured in each of the bases."""
    n = circuit.num_qubits
    found = []
    for bases in measurement.bases:
        setting = circuit.copy()
        for site, basis in enumerate(bases):
            for gate in BASIS_CHANGES[basis]:
                setting.append(gate, [n - 1 - site])
        setting.measure_all()
        found.append(setting)
    return found
