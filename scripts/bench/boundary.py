#!/usr/bin/env python
"""The boundary engine on the circuits of an evolution operator: time and error of a gradient.

    python scripts/bench/boundary.py --out boundary.json
    python scripts/bench/boundary.py --parts gradients --layers 9 --iterations 20

Ising chain H = sum ZZ + .75 X + .6 Z, exp(-i t H) at t = 2, brickwalls of U(4) gates, on one core.
Gradients are those of f in the Lie algebra of the gates, their errors Frobenius norms over all
gates, against a larger D; at Trotter's start and after iterations of L-BFGS. `two sides` says
whether the circuit stands on both sides of its identity core. A state is the same evolution of
|0...0>.

Half sweeps are compared with LAPACK's QR (geqrf and orgqr or ungqr) of the blocks (a P, b) on which
gates act, which bringing the MPO into canonical form block by block would take.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
from engines import UPDATES, Problem
from scipy.linalg import get_lapack_funcs

import mpodis
from mpodis.environments import BoundaryEnvironments, EngineOptions, build_engine
from mpodis.gates import skew
from mpodis.objectives import OverlapLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.sites import left_canonical, site_tensors, spread_norm

TERMS = {"ZZ": 1.0, "X": 0.75, "Z": 0.6}
TIME = 2.0
REFERENCE = 96
"""D against which errors are measured."""
PARTS = ("half sweeps", "states", "gradients")
POINTS = [(24, 0.0), (32, 0.0), (48, 0.0), (64, 0.0)]
POINTS += [(64, cutoff) for cutoff in (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)]
"""(D, cutoff); 0 for none."""


def cpu(function, *, repeats: int = 3):
    """The result, and the median CPU seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        result = function()
        seconds.append(time.process_time() - start)
    return result, statistics.median(seconds)


class Compilation:
    """The evolution operator of n sites, Trotter's circuit, and an identity core."""

    def __init__(self, n: int, layers: int) -> None:
        terms = mpodis.pauli_chain(n, **TERMS)
        whole = mpodis.evolution(terms, TIME)
        self.n, self.bonds = n, whole.bonds
        # the circuit is a row action: its matrix is the transposed operator
        tensors = [c.swapaxes(1, 2) for c in site_tensors(whole.mpo)]
        self.target = spread_norm(left_canonical(tensors)[0], 0.0)
        self.start = mpodis.trotter(terms, TIME, layers=layers)
        self.core = [np.eye(2, dtype=complex).reshape(1, 2, 2, 1) / 2**0.5] * n
        self.none = mpodis.Ansatz(n, (), "U")

    def engine(self, gates, *, both: bool = True, max_bond: int = REFERENCE, cutoff: float = 0.0):
        options = EngineOptions(environment_bond=max_bond, identity_core=both)
        engine = build_engine(
            "boundary", self.target, ((2, 2),) * self.n, self.start.ansatz, self.none,
            options=options,
        )  # fmt: skip
        if cutoff:
            engine.set_cutoff(cutoff)
        engine.set(gates, self.core, [])
        return engine

    def optimised(self, iterations: int, *, max_bond: int = 48):
        engine = self.engine(self.start.gates, max_bond=max_bond)
        loss = OverlapLoss(self.target)
        Lbfgs(loss, engine, self.start.ansatz, self.none, free_core=False).run(iterations)
        return engine.left


def gradient(engine) -> tuple[np.ndarray, float, float]:
    """Gradient in the Lie algebra, loss, and CPU seconds without what an engine keeps."""
    gates = list(engine.left)
    first = [np.array(g) for g in gates]
    first[0], first[-1] = -first[0], -first[-1]  # other gates at both ends: nothing holds

    def run():
        engine.set(first)
        engine.set(gates)
        return engine.gradient()

    run()  # finds bond dimensions
    found, seconds = cpu(run)
    pairs = zip(gates, found.left, strict=True)
    vector = np.concatenate([skew(g.conj().T @ e).ravel() for g, e in pairs])
    return vector, 1 - found.inner, seconds


def gradients(n: int, layers: int, iterations: int) -> list[dict]:
    problem, rows = Compilation(n, layers), []
    for place in ("start", "optimised"):
        gates = problem.start.gates if place == "start" else problem.optimised(iterations)
        exact, loss, _ = gradient(problem.engine(gates))
        size = float(np.linalg.norm(exact))
        for both in (True, False):
            for bond, cutoff in POINTS:
                engine = problem.engine(gates, both=both, max_bond=bond, cutoff=cutoff)
                found, value, seconds = gradient(engine)
                rows.append(
                    {
                        "l": n,
                        "layers": layers,
                        "point": place,
                        "loss": loss,
                        "two sides": both,
                        "D": bond,
                        "cutoff": cutoff,
                        "loss error": abs(value - loss),
                        "gradient": size,
                        "gradient error": float(np.linalg.norm(found - exact)),
                        "seconds": seconds,
                    }
                )
                say(rows[-1])
    return rows


def states(n: int = 50, layers: int = 7, chi: int = 64) -> list[dict]:
    """A state of bond dimension chi, prepared from |0...0>."""
    terms, rows = mpodis.pauli_chain(n, **TERMS), []
    long, short = (mpodis.trotter(terms, 2 * TIME, layers=k) for k in (81, layers))
    none = mpodis.Circuit(mpodis.Ansatz(0, (), "U"), ())
    zero = [np.eye(1, 2).reshape(1, 1, 2, 1) + 0j] * n
    core = mpodis.mpo_from_tensors(zero)
    psi = mpodis.to_mpo(mpodis.Factorization(none, core, long, (1, 2**n)), max_bond=chi)
    for bond in (32, 64):
        engine = BoundaryEnvironments(
            site_tensors(psi), ((1, 2),) * n, none.ansatz, short.ansatz, max_bond=bond
        )
        first = [-g for g in short.gates]

        def run(engine=engine, first=first):
            engine.set([], zero, first)
            engine.set([], zero, short.gates)
            return engine.gradient().inner

        value, seconds = cpu(run)
        rows.append({"l": n, "layers": layers, "D": bond, "overlap": value, "seconds": seconds})
        say(rows[-1])
    return rows


def half_sweeps() -> list[dict]:
    """A half sweep of 32 sites and 16 layers on both sides, and QR of its blocks, in turn."""
    rows = []
    for bond in (64, 128):
        problem = Problem(32, 16)
        engine = problem.engine(BoundaryEnvironments, max_bond=bond)
        engine.half_sweep("up", UPDATES)
        shapes = [
            (boundary.weights[block.start].shape[0] * block.size,
             boundary.weights[block.stop].shape[0])
            for step, boundary in zip(engine._steps, engine._pushed[1:], strict=True)
            for block in step.blocks
            if not block.idle
        ]  # fmt: skip
        blocks = {shape: np.random.default_rng(0).normal(size=shape) for shape in set(shapes)}
        geqrf, orgqr = get_lapack_funcs(("geqrf", "orgqr"), dtype=np.float64)

        def factorise(shapes=shapes, blocks=blocks, geqrf=geqrf, orgqr=orgqr):
            for shape in shapes:
                packed, tau, _, _ = geqrf(blocks[shape])
                orgqr(packed[:, : min(shape)], tau, overwrite_a=1)

        ratios = []
        for direction in ("up", "down") * 3:
            _, qr = cpu(factorise, repeats=1)
            _, seconds = cpu(lambda d=direction, e=engine: e.half_sweep(d, UPDATES), repeats=1)
            ratios.append(seconds / qr)
        row = {"D": bond, "seconds": seconds, "as QR of the blocks": statistics.median(ratios)}
        rows.append(row)
        say(row)
    return rows


def say(row: dict) -> None:
    print(
        ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=50)
    parser.add_argument("--layers", type=int, nargs="*", default=[9, 13])
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--out", help="JSON record to write")
    options = parser.parse_args()
    record = {"command": "scripts/bench/boundary.py", "version": mpodis.__version__}
    if "half sweeps" in options.parts:
        record["half sweeps"] = half_sweeps()
    if "states" in options.parts:
        record["states"] = states()
    if "gradients" in options.parts:
        cells = [gradients(options.sites, d, options.iterations) for d in options.layers]
        record["gradients"] = [row for cell in cells for row in cell]
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
