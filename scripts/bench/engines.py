#!/usr/bin/env python
"""Environment engines against each other, on one core, as ratios within one run.

    python scripts/bench/engines.py --out notebooks/records/engines.json --plot engines.png
    python scripts/bench/engines.py --quick

Every figure is the time for giving every gate of both circuits its environment once and updating
it: a sweep of the dense engine, half a sweep of the transverse, the tree and the boundary engine.
`naive` is what one would write with quimb: the closed network without one gate, contracted gate
after gate along a path that was searched beforehand; where circuits have many gates it is measured
on some of them and scaled up. The problem is an MPO of bond dimension 4, Gaussian, and a product
core; gates are in SO(4), near the identity; the update is the polar one. Engines are timed in turn,
and the median over the rounds is taken.

`--prototypes DIR` times the prototypes in the same run too, where their files are at hand.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import json
import math
import platform
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import mpodis
from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import (
    BoundaryEnvironments,
    DenseEnvironments,
    EngineOptions,
    TransverseEnvironments,
    TreeEnvironments,
    choose,
)
from mpodis.factorization import Factorization
from mpodis.gates import polar
from mpodis.mpo import truncate
from mpodis.sites import (
    bond_dimensions,
    left_canonical,
    mpo_from_tensors,
    right_canonical,
    site_tensors,
    spread_norm,
)
from mpodis.targets import random_mpo

GRID = [(6, 8), (6, 32), (8, 8), (8, 32), (10, 8), (12, 2), (12, 4), (12, 8)]
QUICK = [(6, 8), (8, 8)]
BEYOND = [(24, 2), (24, 4), (32, 2), (32, 4), (32, 6), (32, 8)]
NAIVE_GATES = 8
"""Gates on which the naive contraction is measured."""


class Problem:
    """A random MPO, a product core and near-identity circuits on l qubits."""

    def __init__(self, n: int, depth: int, *, bond: int = 4, seed: int = 0) -> None:
        self.n, self.depth = n, depth
        self.legs = ((2, 2),) * n
        self.target = _unit(site_tensors(random_mpo(n, bond, seed=np.random.default_rng(seed))))
        self.core = _unit(site_tensors(truncate(mpo_from_tensors(self.target), max_bond=1).mpo))
        left = brickwall(n, depth, fill=False)
        self.circuits = [
            random_circuit(a, seed=seed + k, scale=0.05)
            for k, a in enumerate((left, left.reversed()))
        ]
        self.gates = sum(len(c.gates) for c in self.circuits)

    def engine(self, kind, **options):
        left, right = self.circuits
        engine = kind(list(self.target), self.legs, left.ansatz, right.ansatz, **options)
        engine.set(left.gates, self.core, right.gates)
        return engine


def _unit(tensors):
    tensors = right_canonical(left_canonical(tensors)[0])[0]
    return spread_norm(tensors, 0.0)


def update(environment, gate):
    return polar(environment, group="SO")


UPDATES = {"left": update, "right": update}


def sweeper(engine):
    """A function that offers every gate once, and the number by which its time is divided."""
    if isinstance(engine, BoundaryEnvironments):
        engine.sweep(UPDATES)
        turn = iter(["up", "down"] * 10**6)
        return lambda: engine.half_sweep(next(turn), UPDATES), 1
    engine.sweep(UPDATES)
    return lambda: engine.sweep(UPDATES), 1 if isinstance(engine, DenseEnvironments) else 2


class Naive:
    """quimb, one contraction a gate."""

    def __init__(self, problem: Problem) -> None:
        import cotengra as ctg

        left, right = problem.circuits
        network = Factorization(
            left, mpo_from_tensors(problem.core), right, (2**problem.n, 2**problem.n)
        ).tensor_network()
        self.network = mpo_from_tensors([c.conj() for c in problem.target]) | network
        self.search = ctg.ReusableRandomGreedyOptimizer(max_repeats=32, seed=0, parallel=False)
        rng = np.random.default_rng(0)
        chosen = rng.permutation(problem.gates)[:NAIVE_GATES]
        places = [
            (side, j) for side, c in (("LEFT", left), ("RIGHT", right)) for j in range(len(c.gates))
        ]
        self.tags = [(places[k][0], f"GATE{places[k][1]}") for k in chosen]
        self.factor = problem.gates / len(self.tags)
        self()  # searches the paths

    def __call__(self) -> None:
        for tags in self.tags:
            gate = self.network[tags]
            rest = self.network.copy(virtual=True)
            rest.delete(tags, which="all")
            out = rest.contract(output_inds=gate.inds, optimize=self.search)
            size = math.isqrt(math.prod(gate.shape))
            data = update(out.data.reshape(size, size), None)
            gate.modify(data=data.reshape(gate.shape))


def timed(runners: dict, *, seconds: float = 1.5) -> dict[str, float]:
    """Median seconds of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in runners}
    began = time.perf_counter()
    while (
        time.perf_counter() - began < seconds * len(runners) or len(next(iter(times.values()))) < 3
    ):
        for name, (run, factor) in runners.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * factor)
    return {name: statistics.median(t) for name, t in times.items()}


def grid(points, prototypes, *, naive_limit: int = 12) -> list[dict]:
    """All engines that can, point by point."""
    rows = []
    for n, depth in points:
        problem = Problem(n, depth)
        chosen = choose(
            problem.legs,
            *(c.ansatz for c in problem.circuits),
            target_bonds=bond_dimensions(problem.target),
            max_bond=1,
            complex=False,
            options=EngineOptions(),
        ).engine
        kinds = {"boundary D=32": (BoundaryEnvironments, {"max_bond": 32})}
        if n <= 12:
            kinds["dense"] = (DenseEnvironments, {})
            kinds["dense, untiled"] = (DenseEnvironments, {"tile": 0})
        if depth <= 8:
            kinds["transverse"] = (TransverseEnvironments, {})
        if chosen == "tree" or (n <= 12 and depth <= 8):
            kinds["tree"] = (TreeEnvironments, {})
        runners = {}
        for name, (kind, options) in kinds.items():
            run, divisor = sweeper(problem.engine(kind, **options))
            runners[name] = (run, 1 / divisor)
        if n <= naive_limit:
            naive = Naive(problem)
            runners["naive quimb"] = (naive, naive.factor)
        if prototypes is not None:
            runners |= prototypes.runners(problem)
        row = {
            "l": n,
            "d": depth,
            "chosen": chosen,
            "gates": problem.gates,
            "seconds": timed(runners),
        }
        rows.append(row)
        say(row)
    return rows


def say(row: dict) -> None:
    times = ", ".join(f"{k} {v * 1e3:.3g}" for k, v in row["seconds"].items())
    chosen = f" (chosen: {row['chosen']})" if "chosen" in row else ""
    print(f"l={row['l']} d={row['d']}{chosen}: {times} ms", flush=True)


def on_gpu() -> list[dict]:
    """Dense at 12 and 13 qubits and boundary at D >= 256: CUDA against this machine's CPU."""
    import torch

    if not torch.cuda.is_available():
        print("no CUDA device: the torch path is tested on the CPU only", flush=True)
        return []
    device = torch.cuda.get_device_name()
    rows = []
    cases = [(12, 8, DenseEnvironments, {}), (13, 8, DenseEnvironments, {})]
    cases += [(32, 16, BoundaryEnvironments, {"max_bond": bond}) for bond in (256, 512)]
    for n, depth, kind, options in cases:
        problem = Problem(n, depth)
        seconds = {}
        for name in (None, "cuda"):
            run, divisor = sweeper(problem.engine(kind, device=name, **options))
            start = time.perf_counter()
            run()
            seconds[name or "cpu"] = (time.perf_counter() - start) / divisor
        rows.append(
            {
                "l": n,
                "d": depth,
                "engine": kind.__name__,
                "device": device,
                "options": options,
                "seconds": seconds,
            }
        )
        say(rows[-1])
    return rows


class Prototypes:
    """The throw-away code that these engines are to beat, from its own folder."""

    def __init__(self, folder: Path) -> None:
        sys.path.insert(0, str(folder))
        import approx
        import common
        import exact
        import transverse

        self.approx, self.common, self.exact = approx, common, exact
        self.transverse = transverse

    def runners(self, problem: Problem) -> dict:
        n, depth = problem.n, problem.depth
        layers = self.common.brick(n, depth)
        left, right = problem.circuits
        values = iter(left.gates)
        L = [[next(values) for _ in layer] for layer in layers]
        values = iter(right.gates)
        P = [[next(values).T for _ in layer] for layer in layers[::-1]][::-1]
        copy = lambda gates: [list(layer) for layer in gates]  # noqa: E731
        found = {}
        if n <= 12:
            dense = self.common.to_dense(problem.target)
            if n <= 8:
                a = (copy(L), copy(P))
                found["prototype dense"] = (
                    lambda: self.exact.full_sweep_tr(dense, problem.core, layers, *a, 2),
                    1,
                )
            tiles = self.exact.make_tiles(layers, n, 2, 4 if n <= 8 else 5)
            b = (copy(L), copy(P))
            found["prototype tiled"] = (
                lambda: self.exact.full_sweep_tiled(dense, problem.core, tiles, *b, 2),
                1,
            )
        if depth <= 8:
            engine = self.transverse.Trans(problem.target, problem.core, layers, copy(L), copy(P))
            found["prototype transverse"] = (engine.sweep, 1)
        engine = self.approx.Engine(problem.target, problem.core, layers, copy(L), copy(P), 32)
        turn = iter([engine.down, engine.up] * 10**6)
        found["prototype boundary D=32"] = (lambda: next(turn)(inner=4), 1)
        return found


def table(rows: list[dict]) -> str:
    """Ratios in words and numbers, from one run."""
    lines = []
    for row in rows:
        times = row["seconds"]
        chosen = {"boundary": "boundary D=32"}.get(row["chosen"], row["chosen"])
        ratios = [f"{name} {t / times[chosen]:.3g}" for name, t in times.items() if name != chosen]
        lines.append(
            f"| {row['l']} | {row['d']} | {chosen} | {times[chosen] * 1e3:.3g} "
            f"| {', '.join(ratios)} |"
        )
    head = ["| l | d | chosen | ms | others, as multiples of it |", "|---|---|---|---|---|"]
    return "\n".join(head + lines)


def plot(record: dict, path: str) -> None:
    """Log-log: engines over sites and over depth."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure, axes = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    names = sorted({name for row in record["grid"] for name in row["seconds"]})
    ours = [name for name in names if "prototype" not in name and "naive" not in name]
    for name in names:
        if name in ours:
            style = {"color": f"C{ours.index(name)}", "marker": "o", "ms": 4}
        elif name == "naive quimb":
            style = {"color": "k", "ls": "--", "marker": "s", "ms": 4}
        else:
            mine = name.removeprefix("prototype ").replace("tiled", "dense")
            colour = f"C{ours.index(mine)}" if mine in ours else "0.6"
            style = {"color": colour, "ls": ":", "lw": 1}
        for ax, axis, other, value in ((axes[0], "l", "d", 8), (axes[1], "d", "l", 12)):
            points = sorted(
                (row[axis], row["seconds"][name])
                for row in record["grid"]
                if row[other] == value and name in row["seconds"]
            )
            if len(points) > 1:
                label = name if ax is axes[0] else None
                ax.loglog(*zip(*points, strict=True), label=label, **style)
    axes[0].set(xlabel="sites l", ylabel="seconds, every gate once", title="depth 8")
    axes[1].set(xlabel="depth d", title="12 sites")
    for ax, ticks in zip(axes, ((6, 8, 10, 12, 24, 32), (2, 4, 8)), strict=True):
        ax.grid(alpha=0.3, which="both")
        ax.set_xticks(ticks)
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few small points only")
    parser.add_argument("--prototypes", type=Path, help="folder of the prototypes")
    parser.add_argument("--out", help="JSON record to write")
    parser.add_argument("--plot", help="figure to write")
    parser.add_argument("--record", help="draw an earlier record, measure nothing")
    options = parser.parse_args()
    if options.record:
        record = json.loads(Path(options.record).read_text())
        print(table(record["grid"]))
        return plot(record, options.plot) if options.plot else None
    prototypes = Prototypes(options.prototypes) if options.prototypes else None
    rows = grid(QUICK if options.quick else GRID, prototypes)
    if not options.quick:
        rows += grid(BEYOND, prototypes, naive_limit=0)
    record = {
        "command": "scripts/bench/engines.py"
        + (" --quick" if options.quick else "")
        + (" --prototypes DIR" if prototypes else ""),
        "machine": {"processor": platform.processor() or platform.machine(), "cores used": 1},
        "versions": {"mpodis": mpodis.__version__, "numpy": np.__version__},
        "grid": rows,
        "gpu": [] if options.quick else on_gpu(),
    }
    if options.out and Path(options.out).exists() and not record["gpu"]:
        # rows of another machine, with its name, stay
        record["gpu"] = json.loads(Path(options.out).read_text())["gpu"]
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows))
    if options.plot:
        plot(record, options.plot)
    return None


if __name__ == "__main__":
    main()
