#!/usr/bin/env python
"""What the boundary engine does at size: accuracy, monotone truth, wide and deep runs.

    python scripts/bench/large.py --out notebooks/records/large.json

Operators are MPOs with Gaussian entries, circuits 2-body brickwalls near the identity, core a
product, on one core of this machine. Environment errors are |E - E_exact| / |E_exact| over all
gates, against the transverse engine, at circuits that were optimised before.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
from engines import UPDATES, Problem

from mpodis import __version__, disentangle, mpo_from_tensors
from mpodis.circuit.ansatz import brickwall
from mpodis.environments import BoundaryEnvironments, TransverseEnvironments
from mpodis.environments.overlap import estimate_form
from mpodis.environments.protocol import core_norm


def environment_errors() -> list[dict]:
    rows = []
    for n, depth in ((32, 6), (24, 8)):
        problem = Problem(n, depth)
        engine = problem.engine(BoundaryEnvironments, max_bond=32)
        for _ in range(10):
            engine.sweep(UPDATES, core=True)
        left, right = (c.ansatz for c in problem.circuits)
        exact = TransverseEnvironments(list(problem.target), problem.legs, left, right)
        exact.set(engine.left, engine.core, engine.right)
        expected = exact.gradient()
        for bond in (8, 16, 32, 64):
            engine.set_max_bond(bond)
            found = engine.gradient()
            pairs = [
                (a, b)
                for side in ("left", "right")
                for a, b in zip(getattr(found, side), getattr(expected, side), strict=True)
                if a is not None
            ]
            off, size = (
                np.sqrt(sum(np.linalg.norm(x) ** 2 for x in part))
                for part in ([a - b for a, b in pairs], [b for _, b in pairs])
            )
            rows.append({"l": n, "d": depth, "D": bond, "error": float(off / size)})
            print(rows[-1], flush=True)
    return rows


def monotone() -> list[dict]:
    """True overlap after each of 50 half sweeps, at a fixed bond dimension."""
    rows = []
    for n, bond, depth, large in (
        (20, 4, 4, 16),
        (20, 4, 16, 16),
        (32, 4, 8, 16),
        (32, 4, 16, 16),
        (20, 8, 8, 32),
        (32, 8, 16, 32),
        (20, 8, 8, 16),
        (32, 8, 16, 16),
    ):
        problem = Problem(n, depth, bond=bond, seed=1)
        engine = problem.engine(BoundaryEnvironments, max_bond=large)
        ansatze = tuple(c.ansatz for c in problem.circuits)
        truths = []
        for k in range(50):
            engine.half_sweep("down" if k % 2 else "up", UPDATES)
            parts = (engine.left, engine.core, engine.right)
            found = estimate_form(problem.target, problem.legs, ansatze, parts, max_bond=2 * large)
            truths.append(found.value / core_norm(engine.core))
        rows.append(
            {
                "l": n,
                "chi": bond,
                "d": depth,
                "D": large,
                "method": found.method,
                "first": truths[0],
                "last": truths[-1],
                "largest fall": float(max(0.0, -np.diff(truths).min())),
            }
        )
        print(rows[-1], flush=True)
    return rows


def runs() -> list[dict]:
    """Whole runs by `disentangle`, with its checks and schedule."""
    rows = []
    cases = [
        # sites, bond, depth, sweeps, schedule
        (48, 4, 64, 10, 16),
        (100, 4, 16, 5, 16),
        (24, 8, 8, 25, (16, 32, 64)),
        (32, 8, 16, 25, (16, 32, 64)),
    ]
    for n, bond, depth, sweeps, schedule in cases:
        problem = Problem(n, depth, bond=bond, seed=1)
        began = time.perf_counter()
        found = disentangle(
            mpo_from_tensors(problem.target),
            left=brickwall(n, depth, fill=False),
            engine="boundary",
            environment_bond=schedule,
            n_init=1,
            max_sweeps=sweeps,
        )
        truth = found.history.column("true_overlap")
        truth = truth[np.isfinite(truth)]
        rows.append(
            {
                "l": n,
                "chi": bond,
                "d": depth,
                "schedule": schedule,
                "sweeps": sweeps,
                "true overlaps": truth.tolist(),
                "bonds": sorted({int(b) for b in found.history.column("environment_bond")}),
                "overlap": found.overlap,
                "overlap error": found.overlap_error,
                "seconds": time.perf_counter() - began,
                "status": found.status,
                "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON record to write")
    options = parser.parse_args()
    record = {
        "command": "scripts/bench/large.py",
        "version": __version__,
        "runs": runs(),
        "environment errors": environment_errors(),
        "monotone": monotone(),
    }
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
