"""Evolution operators of long chains as circuits: 1 - f beside published optima and Trotter.

H = sum J ZZ + g X + h Z and its XXZ kin with open ends, U(4) brickwalls, one call of
`mpodis.compile_unitary` a cell. The published figures are those of rqcopt-mpo (arXiv 2501.08872),
in 1 - f. Cells are added to the record as they end, and not run again.

    python scripts/bench/chains.py                        # all cells of 50 sites
    python scripts/bench/chains.py --cells xxz/100/9
    python scripts/bench/chains.py --grid --max-seconds 120 --out notebooks/records/grid.json

The last line is the transverse-field Ising model, sum ZZ + g X, at 10 and 20 sites. The clocks of
mpodis count CPU seconds here, so that a limit means the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import mpodis
from mpodis.files import write_atomic

MODELS: dict[str, tuple[dict[str, float], float]] = {
    "ising": ({"ZZ": 1.0, "X": 0.75, "Z": 0.6}, 2.0),
    "xxz": ({"XX": 1.0, "YY": 1.0, "ZZ": -0.5, "X": 0.75}, 0.25),
}
PUBLISHED = {
    "ising": {5: 0.0614, 7: 7.5e-4, 9: 3.2e-5, 11: 5.4e-6, 13: 6.9e-7},
    "xxz": {3: 8.4e-3, 5: 9.1e-5, 7: 1.5e-5, 9: 4.8e-6, 11: 2.6e-6, 13: 8.7e-7, 21: 6.4e-9},
}
ERROR = 1e-3
"""Error of the target, relative to the published figure."""
GRID = {
    f"transverse-{g}-{t}": ({"ZZ": 1.0, "X": g}, t) for t in (0.5, 1.0) for g in (0.5, 1.0, 1.5)
}
"""Transverse-field Ising models, by field and time."""
GOAL = 1e-10
"""Loss at which a cell of the grid ends."""
GRID_CELLS = [f"{model}/{n}/{k}" for n in (10, 20) for model in GRID for k in (4, 8, 16, 24)]


def cell(model: str, n: int, layers: int, max_seconds: float) -> dict:
    """One circuit, compiled and measured."""
    couplings, t = (MODELS | GRID)[model]
    published = PUBLISHED.get(model, {}).get(layers)
    error = max(1e-13, ERROR * min(published or 1e-10, 1e-7))
    began = time.process_time()
    target = mpodis.evolution(mpodis.pauli_chain(n, **couplings), t, error=error)
    built = time.process_time()
    goal = {"goal": GOAL} if model in GRID else {}
    found = mpodis.compile_unitary(target, depth=layers, max_seconds=max_seconds, **goal)
    return {
        "model": model,
        "n": n,
        "layers": layers,
        "published": published if n == 50 else None,
        "loss": found.loss,
        "loss_error": found.loss_error,
        "trotter_loss": found.trotter_loss,
        "target_error": target.error,
        "target_bond": max(target.bonds),
        "status": found.status,
        "start": found.start,
        "cpu_seconds_target": round(built - began, 1),
        "cpu_seconds": round(time.process_time() - built, 1),
        "version": mpodis.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="notebooks/records/chains.json")
    parser.add_argument(
        "--max-seconds", type=float, default=1200.0, help="of every cell, in CPU seconds"
    )
    parser.add_argument("--grid", action="store_true", help="the transverse-field Ising model")
    parser.add_argument("--cells", nargs="*", help="model/sites/layers")
    given = parser.parse_args()
    time.perf_counter = time.monotonic = time.process_time
    usual = [f"{model}/50/{layers}" for model, row in PUBLISHED.items() for layers in row]
    usual = GRID_CELLS if given.grid else usual
    path = Path(given.out)
    record = json.loads(path.read_text()) if path.exists() else {"cells": {}}
    for name in given.cells or usual:
        if name not in record["cells"]:
            model, n, layers = name.split("/")
            record["cells"][name] = cell(model, int(n), int(layers), given.max_seconds)
            write_atomic(path, (json.dumps(record, indent=1) + "\n").encode())
    columns = ("cell", "published", "1 - f", "error", "Trotter", "CPU s")
    rows = [
        (name, c["published"], c["loss"], c["loss_error"], c["trotter_loss"], c["cpu_seconds"])
        for name, c in record["cells"].items()
    ]
    print(mpodis.Table(columns, rows))


if __name__ == "__main__":
    main()
