#!/usr/bin/env python
"""What a start is worth: overlap against depth on trained layers, growing and not.

    python scripts/bench/starts.py --data mnist --data-dir DIR --out notebooks/records/starts.json

The MPO layers of compact TNNs (bond dimension 2, the recipe of the data set), 2-body SO(4) gates,
product core updated, overlap maximised. "identity": the default four starts at each depth, up to
200 sweeps. "grown": one run to the deepest circuit, up to 40 sweeps a stage, whose stages give
every depth on the way. Both from the training images' network alone; nothing is chosen on a test.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core a worker, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import statistics
import sys
from pathlib import Path

import joblib
import torch

from mpodis import __version__, disentangle
from mpodis.data import load_data
from mpodis.files import write_json
from mpodis.nn import train_tnn
from mpodis.tables import Table


def of_network(data: str, data_dir: str | None, seed: int, depths: list[int]) -> dict:
    """Overlap, bound and seconds by start and depth."""
    torch.set_num_threads(1)
    mpo = train_tnn(load_data(data, data_dir=data_dir), seed=seed)[0].double().mpo.to_mpo()
    found = {"seed": seed, "identity": {}, "grown": {}}
    for depth in depths:
        alone = disentangle(mpo, left=depth, start="identity")
        found["identity"][depth] = [alone.overlap, alone.bound, alone.seconds]
    grown = disentangle(mpo, left=depths[-1], start="grown", max_sweeps=40)
    columns = [grown.path(name) for name in ("depth", "overlap", "bound", "seconds")]
    for depth, *figures in zip(*columns, strict=True):
        if depth in depths:
            found["grown"][int(depth)] = [float(x) for x in figures]  # the last record stays
    print(f"network {seed}: grown, f {grown.overlap:.4f}", file=sys.stderr, flush=True)
    return found


def table(networks: list[dict], depths: list[int]) -> Table:
    rows = []
    for depth in depths:
        for start in ("identity", "grown"):
            f, bound, seconds = zip(*(n[start][depth] for n in networks), strict=True)
            median = statistics.median
            rows.append((start, depth, median(f), min(f), max(f), median(bound), median(seconds)))
    return Table(("start", "depth", "median f", "least", "most", "bound", "seconds"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=10, help="networks, from seed 0 on")
    parser.add_argument("--depths", default="8,16")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    depths = sorted(int(depth) for depth in options.depths.split(","))
    networks = joblib.Parallel(options.workers)(
        joblib.delayed(of_network)(options.data, options.data_dir, seed, depths)
        for seed in range(options.seeds)
    )
    print(table(networks, depths))
    if options.out:
        command = ["scripts/bench/starts.py", "--data", options.data, "--depths", options.depths]
        command += ["--seeds", str(options.seeds)]
        record = {"command": " ".join(command), "version": __version__, "networks": networks}
        write_json(options.out, record | {"torch": torch.__version__})


if __name__ == "__main__":
    main()
