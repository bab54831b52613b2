"""Layers executed on a quantum device, or on Aer in its place.

`run_circuit` does what is classical (checks, norms, zero vectors); a `Runner` turns normalised
states into output amplitudes and is what changes with shots, noise and readout.
"""

from __future__ import annotations

import logging
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from qiskit import QuantumCircuit
from qiskit_aer import AerSimulator

from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization
from mpodis.progress import bar
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.encode import amplitude_encoding, normalise
from mpodis.quantum.readout import Readout

__all__ = ["Runner", "ShotRunner", "StatevectorRunner", "hybrid_layer", "run_circuit"]

log = logging.getLogger(__name__)

_BATCH = 500  # circuits of one Aer job: enough to hide its overhead
_AMPLITUDES = 2**22  # of one Aer job: 64 MiB


class Runner(Protocol):
    """Something that runs one circuit on many input states."""

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        """Output amplitudes (samples, 2^n) for normalised input amplitudes (samples, 2^n)."""
        ...

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        """Circuits that are run for one vector of n qubits."""
        ...

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        """Shots that one vector takes; 0 where nothing is sampled."""
        ...


@dataclass(frozen=True)
class StatevectorRunner:
    """Aer's statevector simulator, read exactly: no shots, no noise, no readout.

    Every sample is one circuit: amplitude encoding, each gate by itself (no fusion), and the
    final state in double precision.

    Parameters
    ----------
    batch_size : int, optional
        Circuits in one Aer job; by default up to 500, fewer from 14 qubits on.
    threads : int
        Threads for a job; 0 is one per core. Use 1 in a process pool.
    """

    batch_size: int | None = None
    threads: int = 0

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 1:
            raise ValueError(f"batch_size={self.batch_size} must be at least 1")
        if self.threads < 0:
            raise ValueError(f"threads={self.threads} must be 0 (one per core) or more")

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        return 1

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
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
        gates.save_statevector()
        result = np.empty((samples, dimension), dtype=np.complex128)
        with bar(total=samples, desc="Aer statevector", enabled=progbar) as shown:
            for start in range(0, samples, batch):
                jobs = []
                for state in states[start : start + batch]:
                    job = amplitude_encoding(state)
                    job.compose(gates, inplace=True, copy=False)
                    jobs.append(job)
                answer = simulator.run(jobs).result()
                for i in range(len(jobs)):
                    result[start + i] = answer.data(i)["statevector"]
                shown.update(len(jobs))
        return result


@dataclass(frozen=True)
class ShotRunner:
    """A noiseless device with a finite number of shots, read as on a real one.

    Final states come from Aer's statevector simulator, and counts are drawn from their law, which
    is that of Aer's own sampling.

    Parameters
    ----------
    readout : Readout
        `Tomography`, `Interference` or `Hypercube`.
    seed : int
        A sample's counts depend on it and on the sample alone, not on what else is run.
    threads : int
        See `StatevectorRunner`.
    """

    readout: Readout
    seed: int = 0
    threads: int = 0

    def settings(self, n: int, *, is_complex: bool = False) -> int:
        return self.readout.settings(n, is_complex=is_complex)

    def shots_of(self, n: int, *, is_complex: bool = False) -> int:
        return self.readout.shots_of(n, is_complex=is_complex)

    def run(
        self, circuit: QuantumCircuit, states: np.ndarray, *, progbar: bool = False
    ) -> np.ndarray:
        exact = StatevectorRunner(threads=self.threads)
        final = exact.run(circuit, states, progbar=progbar)
        read = np.empty_like(final)
        with bar(total=len(final), desc="readout", enabled=progbar) as shown:
            for k, state in enumerate(states):
                number = zlib.crc32(np.ascontiguousarray(state).tobytes())
                rng = np.random.default_rng([self.seed, number])
                one = final[k : k + 1]
                is_real = np.abs(one.imag).max() < 1e-9  # up to the rounding of the simulation
                read[k] = self.readout.read(one.real if is_real else one, rng)[0]
                shown.update()
        return read


def run_circuit(
    circuit: Circuit, x, *, runner: Runner | None = None, progbar: bool = False
) -> np.ndarray:
    """``y = x @ Q``, one execution per sample.

    Exact with the default runner: equal to ``circuit.apply(x)`` up to rounding.

    Parameters
    ----------
    circuit : Circuit
        Q, of n wires.
    x : array (samples, 2^n)
        Real or complex activations. Norms are taken out before and restored after the run;
        zero vectors are not run and give zeros.
    runner : Runner, optional
        `StatevectorRunner` by default.
    progress : bool
        Show a progress bar.

    Returns
    -------
    array (samples, 2^n)
        float64 where Q and x are real, else complex128.

    Raises
    ------
    ValueError
        If x has another shape or is not finite, or a gate is not unitary.
    """
    x = _activations(x, 2**circuit.n, f"a circuit on {circuit.n} wires")
    runner = StatevectorRunner() if runner is None else runner
    states, norms = normalise(x)
    device = to_qiskit(circuit)
    y = np.zeros(x.shape, dtype=np.complex128)
    if circuit.n == 0:  # a side without qubits: Q = 1
        y[:] = x
    elif (run := norms > 0).any():
        _announce(runner, circuit.n, int(run.sum()), circuit.is_complex or np.iscomplexobj(x))
        y[run] = runner.run(device, states[run], progbar=progbar) * norms[run, None]
    return y if circuit.is_complex or np.iscomplexobj(x) else y.real


def hybrid_layer(
    factorization: Factorization,
    x,
    *,
    runner: Runner | None = None,
    progbar: bool = False,
) -> np.ndarray:
    """A factorised layer without its bias, circuits on the device and the core classical.

    ``y = x @ Q_L @ M' @ Q_R`` (Eqs. 1 and 7 of arXiv 2509.06653v1): x is zero-padded, Q_L runs on
    the device, the norm is restored, M' is applied, Q_R runs on the device, and the padding is
    cropped.

    Parameters
    ----------
    factorization : Factorization
        Of an (inputs, outputs) matrix.
    x : array (samples, inputs)
        Activations before the layer.
    runner : Runner, optional
        `StatevectorRunner` by default, which makes the result exact.
    progress : bool
        Show a progress bar for each of the two circuits.

    Returns
    -------
    array (samples, outputs)

    Raises
    ------
    ValueError
        If x has another shape or is not finite, or a gate is not unitary.
    """
    inputs, outputs = factorization.shape
    x = _activations(x, inputs, f"a layer with {inputs} inputs")
    padded = np.pad(x, ((0, 0), (0, 2**factorization.left.n - inputs)))
    encoded = run_circuit(factorization.left, padded, runner=runner, progbar=progbar)
    hidden = encoded @ factorization.core_to_dense()
    decoded = run_circuit(factorization.right, hidden, runner=runner, progbar=progbar)
    return decoded[:, :outputs]


def _announce(runner: Runner, n: int, vectors: int, is_complex: bool) -> None:
    """What is about to be run: on a device this is the bill."""
    if log.isEnabledFor(logging.INFO) and hasattr(runner, "settings"):
        circuits = runner.settings(n, is_complex=is_complex)
        shots = runner.shots_of(n, is_complex=is_complex)
        log.info(
            "%s: %d vectors of %d qubits take %d circuits and %d shots",
            *(type(runner).__name__, vectors, n, vectors * circuits, vectors * shots),
        )


def _activations(x, dimension: int, what: str) -> np.ndarray:
    """x as a finite float or complex array (samples, dimension), or a ValueError."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != dimension:
        raise ValueError(
            f"x has shape {x.shape}, but {what} takes (samples, {dimension}); "
            "put one sample in each row"
        )
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise ValueError(
            f"x holds NaN or infinite values, first in row {int(bad.argmax())}; "
            "check the layers before this one"
        )
    return x
