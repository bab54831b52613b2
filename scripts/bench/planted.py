#!/usr/bin/env python
"""Planted problems at scale: operators whose circuits are known to exist.

    python scripts/bench/planted.py --out notebooks/records/planted.json

M = Q_L (product operator) Q_R with Haar-random SO(4) gates in brickwalls of the hidden depth, at
its exact bond dimension, or truncated to chi = 4. `disentangle` gets the hidden depth and parity
and nothing else; starts are near the identity, the core is updated. For the truncated operator the
hidden factorization itself is no longer exact: its overlap is given beside what was found.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import json
import statistics
from pathlib import Path

import numpy as np

from mpodis import __version__, brickwall, disentangle, true_overlap, truncate
from mpodis.targets import planted_factorization, planted_mpo

CASES = (
    # sites, hidden depth, bond dimension that is kept, starts, sweeps of each while exploring
    (32, 2, None, 4, 20),
    (32, 2, 4, 4, 20),
    (16, 4, None, 8, 15),
)


def solve(n: int, depth: int, bond: int | None, n_init: int, init_sweeps: int, seed: int) -> dict:
    hidden, operator = (
        made(n, depth, seed=np.random.default_rng([seed, n, depth]))
        for made in (planted_factorization, planted_mpo)
    )
    target = operator if bond is None else truncate(operator, max_bond=bond).mpo
    found = disentangle(
        target,
        left=brickwall(n, depth, fill=False),
        method="sweeps",
        n_init=n_init,
        init_sweeps=init_sweeps,
        max_sweeps=100,
        tol=1e-3,
        seed=seed,
    )
    return {
        "seed": seed,
        "bond": max(target.bond_sizes()),
        "hidden overlap": true_overlap(hidden, target).value,
        "overlap": found.overlap,
        "engine": found.options.engine,
        "status": found.status,
        "sweeps": len(found.history),
        "init": found.init,
        "seconds": round(found.seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", help="JSON record to write")
    options = parser.parse_args()
    record = {
        "command": f"scripts/bench/planted.py --seeds {options.seeds}",
        "version": __version__,
        "cases": [],
    }
    for n, depth, bond, n_init, init_sweeps in CASES:
        runs = []
        for seed in range(options.seeds):
            runs.append(solve(n, depth, bond, n_init, init_sweeps, seed))
            print(n, depth, bond, runs[-1], flush=True)
        overlaps = [run["overlap"] for run in runs]
        record["cases"].append(
            {
                "sites": n,
                "hidden depth": depth,
                "max_bond": bond,
                "n_init": n_init,
                "init_sweeps": init_sweeps,
                "median overlap": statistics.median(overlaps),
                "runs": runs,
            }
        )
        print(f"l={n}, depth {depth}: median {statistics.median(overlaps):.5f}", flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
