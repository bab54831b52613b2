#!/usr/bin/env python
"""Our tomography beside StateTomography of qiskit-experiments: the same matrix, sooner.

    python scripts/bench/tomography.py --out notebooks/records/tomography.json

Both begin with a real random vector that Aer prepares and end with a density matrix by linear
inversion. Theirs is an experiment: 3^n circuits, transpiled, sampled by Aer one by one, and
fitted. Ours is `ShotRunner(Tomography(...))`: one simulation, all settings drawn from its final
state; what is timed goes on to the vector and its sign. The counts of every experiment of theirs
are inverted by us, too: the largest difference of an element, and the times of both fits. A round
measures both ways in turn; ratios are of a round.

Then the infidelity 1 - <y, read>^2 of our readouts against shots, mean over random vectors, and
its slope in the logarithms of both.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import qiskit
import qiskit_aer
from qiskit import QuantumCircuit, transpile
from qiskit_aer import AerSimulator

from mpodis import __version__
from mpodis.files import write_json
from mpodis.quantum import (
    Hypercube,
    Interference,
    Readout,
    ShotRunner,
    Tomography,
    amplitude_encoding,
    count_shots,
    invert_counts,
    sample_readout,
)
from mpodis.tables import Table

TOLERANCE = 1e-8
"""Of an element of the density matrix, on the same counts."""

READOUTS: dict[str, Callable[[int, int], Readout]] = {
    # so many shots in all, on n qubits, sign included
    "tomography": lambda n, shots: Tomography(round((shots - shots // 10) / 3**n), shots // 10),
    "hypercube": lambda n, shots: Hypercube((shots - shots // 10) // (n + 1), shots // 10),
    "interference": lambda n, shots: Interference(shots),
}


def vectors(count: int, n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(count, 2**n))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def timed(function: Callable, times: int = 1) -> tuple[float, object]:
    """Seconds of a call, median of some, and the last result."""
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), result


def reference(state: np.ndarray, shots: int, seed: int) -> dict:
    """The experiment of qiskit-experiments: seconds of both parts, counts and density matrix."""
    from qiskit_experiments.library import StateTomography

    backend = AerSimulator(seed_simulator=seed, max_parallel_threads=1)

    def measured():
        experiment = StateTomography(amplitude_encoding(state))
        # the estimate itself, not its nearest positive matrix: that hides differences
        options = {"fitter": "linear_inversion", "rescale_positive": False, "rescale_trace": False}
        experiment.analysis.set_options(**options)
        data = experiment.run(backend, shots=shots, analysis=None, seed_simulator=seed)
        return experiment, data.block_for_results()

    run, (experiment, data) = timed(measured)
    fit, fitted = timed(lambda: experiment.analysis.run(data).block_for_results())
    rho = fitted.analysis_results("state", dataframe=True).value.iloc[0]
    compiled = transpile(experiment.circuits(), backend, seed_transpiler=seed)
    alone, _ = timed(lambda: backend.run(compiled, shots=shots).result())
    return {
        "run": run,
        "alone": alone,
        "fit": fit,
        "rho": np.asarray(rho.data),
        "counts": table(data.data(), state),
    }


def table(data: list[dict], state: np.ndarray) -> np.ndarray:
    """Their counts as (3,)*n + (2,)*n: settings and outcomes, most significant qubit first."""
    n = len(state).bit_length() - 1
    counts = np.zeros((*(3,) * n, 2**n))
    for one in data:
        setting = one["metadata"]["m_idx"][::-1]  # theirs begin with Qiskit's qubit 0
        for bits, count in one["counts"].items():
            counts[(*setting, int(bits, 2))] += count
    return counts.reshape((3,) * n + (2,) * n)


def compared(n: int, shots: int, rounds: int) -> dict:
    """Times of both ways, round by round, and how far the matrices are from each other."""
    found = []
    for seed in range(rounds):
        (state,) = vectors(1, n, np.random.default_rng([seed, n]))
        theirs = reference(state, shots, seed)
        frequencies = theirs["counts"] / shots
        assert (theirs["counts"].sum(tuple(range(n, 2 * n))) == shots).all()
        invert, rho = timed(lambda f=frequencies: invert_counts(f), 5)
        runner = ShotRunner(Tomography(shots), seed=seed, threads=1)
        ours, _ = timed(lambda r=runner, s=state: r.run(QuantumCircuit(n), s[None]), 5)
        row = {
            "theirs, run": theirs["run"],
            "theirs, fit": theirs["fit"],
            "Aer alone": theirs["alone"],
            "ours": ours,
            "ours, fit": invert,
            "ratio": (theirs["run"] + theirs["fit"]) / ours,
            "ratio of the fits": theirs["fit"] / invert,
            "difference": float(np.abs(rho - theirs["rho"]).max()),
        }
        print(n, {name: float(f"{value:.3g}") for name, value in row.items()}, flush=True)
        found.append(row)
    return {"qubits": n, "settings": 3**n, "shots": shots, "rounds": found}


def infidelities(n: int, samples: int) -> dict:
    """Mean infidelity of every readout against the shots in all, and its slope."""
    states = vectors(samples, n, np.random.default_rng([7, n]))
    totals = [3**n * each for each in (64, 256, 1024, 4096, 16_384)]
    found = {}
    for name, made in READOUTS.items():
        shots, means = [], []
        for total in totals:
            readout = made(n, total)
            read = sample_readout(readout, states, np.random.default_rng([total, n]))
            shots.append(count_shots(readout, n))
            means.append(float(np.mean(1 - (read * states).sum(1) ** 2)))
        slope = float(np.polyfit(np.log(shots), np.log(means), 1)[0])
        found[name] = {"shots": shots, "infidelity": means, "slope": slope}
    return {"qubits": n, "samples": samples, "readouts": found}


def tables(record: dict) -> list[Table]:
    def middle(row: dict, key: str) -> float:
        return statistics.median(one[key] for one in row["rounds"])

    times = [
        (
            row["qubits"],
            row["settings"],
            1e3 * middle(row, "theirs, run"),
            1e3 * middle(row, "theirs, fit"),
            1e3 * middle(row, "Aer alone"),
            1e3 * middle(row, "ours"),
            1e3 * middle(row, "ours, fit"),
            f"{middle(row, 'ratio'):,.0f}",
            f"{min(r['ratio'] for r in row['rounds']):,.0f}",
            f"{max(one['difference'] for one in row['rounds']):.0e}",
        )
        for row in record["times"]
    ]
    columns = ("qubits", "settings", "theirs, run", "theirs, fit", "Aer alone")
    columns += ("ours", "ours, fit")
    falls = [
        (
            row["qubits"],
            name,
            *(f"{value:.1e}" for value in found["infidelity"]),
            f"{found['slope']:.3f}",
        )
        for row in record["infidelities"]
        for name, found in row["readouts"].items()
    ]
    return [
        Table(
            (*columns, "ratio", "least", "difference"),
            times,
            title="ms from a vector to its density matrix, median of the rounds",
            notes=(
                "difference: of an element of the two matrices on the same counts, the largest",
            ),
        ),
        Table(
            ("qubits", "readout", *(f"{k} x 3^n" for k in (64, 256, 1024, 4096, 16_384)), "slope"),
            falls,
            title="mean infidelity against shots in all",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", default="2,3,4,5,6")
    parser.add_argument("--shots", type=int, default=1024, help="in each setting")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=100, help="vectors of a mean infidelity")
    parser.add_argument("--out", type=Path, help="JSON record to write")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", module="qiskit_experiments")
    import qiskit_experiments

    sizes = [int(word) for word in options.qubits.split(",")]
    compared(2, options.shots, 1)  # what is loaded and compiled once belongs to nobody
    record = {
        "command": f"scripts/bench/tomography.py --qubits {options.qubits} --shots {options.shots}"
        f" --rounds {options.rounds} --samples {options.samples}",
        "version": __version__,
        "qiskit": qiskit.__version__,
        "qiskit-aer": qiskit_aer.__version__,
        "qiskit-experiments": qiskit_experiments.__version__,
        "times": [compared(n, options.shots, options.rounds) for n in sizes],
        "infidelities": [infidelities(n, options.samples) for n in sizes],
    }
    for one in tables(record):
        print(one, end="\n\n")
    if options.out:
        write_json(options.out, record)
    worst = max(r["difference"] for row in record["times"] for r in row["rounds"])
    if worst > TOLERANCE:
        raise SystemExit(f"the matrices differ by {worst:.1e} on the same counts")


if __name__ == "__main__":
    main()
