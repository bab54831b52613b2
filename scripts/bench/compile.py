#!/usr/bin/env python
"""Compilers of operators and states against each other: the same tasks, starts and CPU seconds.

    python scripts/bench/compile.py --out notebooks/records/compile.json --plot compile.png
    python scripts/bench/compile.py --quick
    python scripts/bench/compile.py --record notebooks/records/compile.json --plot compile.png

Peers are optional; one that is not installed is left out with a line. All of them beside mpodis:

    pip install "qiskit-addon-aqc-tensor[quimb-jax]" bqskit mps-to-circuit torch jax

Every run is a process of its own with one thread. It first solves a problem of 4 sites, so that
what is imported or compiled once is nobody's; then the clock runs, in CPU seconds, and the peer
hands over candidates as it finds them. What a candidate is worth is computed here, after the run
and in the same way for all: 1 - |Tr(U^H Q)| / 2^n of an operator, 1 - |<psi|Q|0>|^2 of a state,
1 - f of a product core between two circuits. In between two candidates the figure of mpodis is its
history; its last point is computed like the others' (`claimed` beside it). Clocks inside mpodis are
set to CPU seconds too, so `max_seconds` means the same on a busy machine. jax compiles within the
budget; `first` is the time of the first candidate.

AQC-Tensor follows its tutorial (ansatz from the start's connectivity, L-BFGS-B). QFactor has its
defaults, from the start and then from random gates; TNOptimizer has Cayley-parametrised gates on
the same brickwall, near the identity where there is no start, then from other guesses. Tolerances
of theirs are so low that the budget or a minimum stops them. Seeds other than 0 change couplings by
up to 10 %, and draw other operators, vectors and weights.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMBA"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import contextlib
import functools
import importlib.util
import json
import logging
import math
import multiprocessing
import resource
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import quimb.tensor as qtn
from compile_peers import (
    PEERS,
    Gates,
    Problem,
    Spent,
    Watch,
    between,
    brick,
    circuit,
    dense,
    fused,
    listed,
    transposed,
)
from scipy.stats import unitary_group

import mpodis
from mpodis.files import write_atomic
from mpodis.tables import Table

MARKS = (1.0, 5.0, 20.0)
"""CPU seconds at which losses are compared."""
LEVELS = (1e-3, 1e-5, 1e-7)
"""Losses whose times are compared."""
BUDGET = 20.0
POINTS = 24
"""Candidates of a run that are evaluated, at most."""
DENSE_STATE, DENSE_OPERATOR = 12, 10
"""Up to so many sites, evaluation is dense."""
PUBLISHED = {
    # 1 - f at 50 sites by layers, from the costs 1 - |f|^2 published for rqcopt-mpo
    "ising": {5: 0.0614, 7: 7.5e-4, 9: 3.2e-5, 11: 5.4e-6, 13: 6.9e-7},
    "xxz": {3: 8.4e-3, 5: 9.1e-5, 7: 1.5e-5, 9: 4.8e-6, 11: 2.6e-6, 13: 8.7e-7, 21: 6.4e-9},
}

# ------------------------------------------------------------------------------------- problems

ISING = {"ZZ": 1.0, "X": 0.75, "Z": 0.6}
TRANSVERSE = {"ZZ": 1.0, "X": 1.0}
HEISENBERG = {"XX": 1.0, "YY": 1.0, "ZZ": 1.0}
XXZ = {"XX": 1.0, "YY": 1.0, "ZZ": -0.5, "X": 0.75}
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Of the product formulas that are peers."""


def varied(model: dict, n: int, seed: int) -> dict:
    """Terms of the model itself for seed 0, else with couplings that are up to 10 % off."""
    rng = np.random.default_rng([seed, 19])
    off = [rng.uniform(0.9, 1.1) if seed else 1.0 for _ in model]
    couplings = {name: x * c for (name, x), c in zip(model.items(), off, strict=True)}
    return mpodis.pauli_chain(n, **couplings)


def formula(terms: dict, t: float, order: int, steps: int) -> Gates:
    return fused(listed(mpodis.trotter(terms, t, order, steps=steps)))


def trotter_start(terms: dict, n: int, t: float, depth: int) -> Gates:
    """Order 2 in as many steps as the depth holds; a layer that is left over is the identity."""
    gates = listed(mpodis.trotter(terms, t, layers=depth - 1 + depth % 2))
    if depth % 2 == 0:
        gates += [((i, i + 1), np.eye(4)) for i in range(1, n - 1, 2)]
    return fused(gates)


def formulas(terms: dict, t: float, first: Gates, steps: Sequence[int]) -> list[tuple[str, Gates]]:
    return [(f"{k}", first + formula(terms, t, k, r)) for k in (2, 4) for r in steps]


def hamiltonian(terms: dict, n: int) -> np.ndarray:
    total = np.zeros((2**n, 2**n), complex)
    for wires, term in terms.items():
        total += np.kron(np.kron(np.eye(2 ** wires[0]), term), np.eye(2 ** (n - 1 - wires[-1])))
    return total


def apply(psi: qtn.MatrixProductState, gates: Gates, *, cutoff: float, max_bond: int | None = None):
    """The gates on an MPS in place; on one wire, or on neighbours."""
    info = {"cur_orthog": None}
    for wires, gate in gates:
        if len(wires) == 1:
            psi.gate_(gate, wires, contract=True)
            continue
        psi.gate_(
            gate,
            wires,
            contract="swap+split",
            info=info,
            max_bond=max_bond,
            cutoff=cutoff,
            cutoff_mode="rsum2",
        )
    return psi


def state(model: dict, n: int, t: float, depth: int, *, max_bond: int = 256, neel: bool = False):
    """A quench from |0...0> or the Neel state, with Trotter's circuit as the start."""

    def made(seed: int) -> Problem:
        terms = varied(model, n, seed)
        flip = np.array([[0, 1], [1, 0]])
        first: Gates = [((i,), flip) for i in range(1, n, 2)] if neel else []
        target = qtn.MPS_computational_state("0" * n, dtype=complex)
        gates = first + formula(terms, t, 4, 24 if n < 50 else 12)
        apply(target, gates, cutoff=1e-15, max_bond=max_bond)
        target.permute_arrays("lrp")
        target /= target.norm()
        start = fused(first + trotter_start(terms, n, t, depth))
        return Problem("state", n, target, depth, start, trotter=formulas(terms, t, first, STEPS))

    return made


def operator(model: dict, n: int, t: float, depth: int):
    """exp(-i t H), with Trotter's circuit as the start; of 50 sites as an `Evolution`."""

    def made(seed: int) -> Problem:
        terms = varied(model, n, seed)
        if n <= DENSE_OPERATOR:
            values, vectors = np.linalg.eigh(hamiltonian(terms, n))
            target = (vectors * np.exp(-1j * t * values)) @ vectors.conj().T
        else:
            target = mpodis.evolution(terms, t, error=1e-14 if n < 50 else 1e-11)
            target = target.mpo if n < 50 else target
        start = trotter_start(terms, n, t, depth) if n < 50 else None
        steps = STEPS if n < 50 else [(depth - 1) // 2]
        return Problem("operator", n, target, depth, start, trotter=formulas(terms, t, [], steps))

    return made


def planted(n: int, depth: int):
    """A brickwall of Haar-random U(4), without a start."""

    def made(seed: int) -> Problem:
        rng = np.random.default_rng([seed, n, depth])
        gates = [(wires, unitary_group.rvs(4, random_state=rng)) for wires in brick(n, depth)]
        return Problem("operator", n, dense(gates, n, np.eye(2**n)), depth)

    return made


def product_core(n: int, depth: int, source: str, core: str):
    """A real matrix, to be a product operator between two brickwalls of SO(4)."""

    def made(seed: int) -> Problem:
        if source == "random":
            matrix = np.random.default_rng([seed, n]).normal(size=(2**n, 2**n))
        else:
            matrix = trained_layer(2**n, seed)
        return Problem("core", n, matrix / np.linalg.norm(matrix), depth, core=core)

    return made


def real_vector(source: str):
    """A real vector of 64 numbers: a digit, or Gaussian."""

    def made(seed: int) -> Problem:
        if source == "random":
            vector = np.random.default_rng([seed, 64]).normal(size=64)
        else:
            from sklearn.datasets import load_digits

            vector = load_digits().data[seed * 101]
        return Problem("vector", 6, vector / np.linalg.norm(vector))

    return made


@functools.cache
def trained_layer(size: int, seed: int) -> np.ndarray:
    """The hidden square layer of a perceptron that was trained on digits."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    net = MLPClassifier((size, size), max_iter=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that are not enough to converge
        net.fit(x / 16, y)
    return net.coefs_[1]


TASKS: dict[str, tuple[Callable[[int], Problem], float]] = {
    # name: problem of a seed, budget in CPU seconds
    "state ising 10": (state(ISING, 10, 1.0, 4), BUDGET),
    "state ising 20": (state(ISING, 20, 1.0, 4), BUDGET),
    "state heisenberg 10": (state(HEISENBERG, 10, 1.0, 6, neel=True), BUDGET),
    "state quench 50": (state(ISING, 50, 4.0, 16, max_bond=64), 3 * BUDGET),
    "operator planted 6/4": (planted(6, 4), BUDGET),
    "operator planted 6/6": (planted(6, 6), BUDGET),
    "operator planted 6/8": (planted(6, 8), BUDGET),
    "operator ising 6/4": (operator(ISING, 6, 1.0, 4), BUDGET),
    "operator ising 6/8": (operator(ISING, 6, 1.0, 8), BUDGET),
    "operator transverse 10/4": (operator(TRANSVERSE, 10, 0.5, 4), BUDGET),
    "operator transverse 10/8": (operator(TRANSVERSE, 10, 0.5, 8), BUDGET),
    "operator transverse 20/4": (operator(TRANSVERSE, 20, 0.5, 4), BUDGET),
    "operator transverse 20/8": (operator(TRANSVERSE, 20, 0.5, 8), BUDGET),
    "vector digits 64": (real_vector("digits"), BUDGET),
    "vector random 64": (real_vector("random"), BUDGET),
} | {
    f"core {source} {n}/{depth} {core}": (product_core(n, depth, source, core), BUDGET)
    for source in ("random", "trained")
    for n, depth in ((6, 4), (6, 8), (8, 4), (8, 8), (10, 8))
    for core in ("update", "fixed")
}
FIFTY = {
    f"published {name} 50/{depth}": (operator(model, 50, t, depth), 600.0 if depth < 21 else 1200.0)
    for name, model, t in (("ising", ISING, 2.0), ("xxz", XXZ, 0.25))
    for depth in PUBLISHED[name]
}
QUICK = ("state ising 10", "operator ising 6/4", "core random 6/4 update")


def small(problem: Problem) -> Problem:
    """The same kind of task on 4 sites, for what is imported and compiled once."""
    if problem.kind == "core":
        return product_core(4, 2, "random", problem.core)(0)
    if problem.kind == "vector":
        vector = np.arange(1.0, 17.0)
        return Problem("vector", 4, vector / np.linalg.norm(vector))
    if problem.kind == "state":
        return state(ISING, 4, 0.5, 3)(0)
    if problem.n <= DENSE_OPERATOR and problem.start is None:
        return planted(4, 2)(0)
    tiny = operator(ISING, 4, 0.5, 3)(0)
    if problem.n > DENSE_OPERATOR:
        tiny.target = mpodis.evolution(varied(ISING, 4, 0), 0.5).mpo
    return tiny


# --------------------------------------------------------------------------------- evaluation


def evaluate(problem: Problem, candidate: Any) -> float:
    """What everybody is judged by."""
    n, target = problem.n, problem.target
    if problem.kind == "core":
        return core_loss(problem, *candidate)
    gates = fused(candidate)
    if problem.kind == "operator":
        if n <= DENSE_OPERATOR:
            return 1 - abs(np.vdot(target, dense(gates, n, np.eye(2**n)))) / 2**n
        target = getattr(target, "mpo", target)
        overlap = mpodis.true_overlap(between(circuit(gates, n)), transposed(target), max_bond=128)
        return 1 - abs(overlap.value)
    if n <= DENSE_STATE:
        vector = target if problem.kind == "vector" else target.to_dense().ravel()
        return 1 - abs(np.vdot(vector, dense(gates, n, np.eye(2**n, 1)))) ** 2
    psi = apply(qtn.MPS_computational_state("0" * n, dtype=complex), gates, cutoff=1e-15)
    return 1 - abs(target.H @ psi) ** 2


def core_loss(problem: Problem, left: Gates, core: Sequence[np.ndarray], right: Gates) -> float:
    """1 - f with gates in the row action, x @ Q_L M' Q_R."""
    n = problem.n
    middle = functools.reduce(np.kron, core)
    rows = [(wires, gate.T) for wires, gate in left]
    columns = [(wires, gate.T) for wires, gate in right]
    q_left = dense(rows, n, np.eye(2**n)).T.real
    q_right = dense(columns, n, np.eye(2**n)).T.real
    return 1 - float(np.vdot(problem.target, q_left @ middle @ q_right) / np.linalg.norm(middle))


def cx_count(problem: Problem, candidate: Any) -> int | None:
    """CX of gates on two wires, by their Weyl coordinates."""
    if problem.kind == "core":
        candidate = [*candidate[0], *candidate[2]]
    return sum(mpodis.gate_cnots(gate) for wires, gate in fused(candidate) if len(wires) == 2)


# --------------------------------------------------------------------------------------- runs


def work(connection, peer: str, problem: Problem, budget: float) -> None:
    """A run, in a process of its own."""
    time.perf_counter = time.monotonic = time.process_time  # `max_seconds` counts CPU seconds
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    function = PEERS[peer][0]
    try:
        with contextlib.suppress(Spent):
            function(small(problem), Watch(1.0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watch = Watch(budget)
        with contextlib.suppress(Spent):
            function(problem, watch)
        seconds = time.process_time() - watch.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        points = judged(problem, watch.seen)
        row = {
            "points": points,
            "seconds": round(seconds, 3),
            "first": round(watch.seen[0][0], 4),
            "memory MB": round((peak - before) / 1024, 1),
            "peak MB": round(peak / 1024, 1),
        }
        own = [own for _, own, candidate in watch.seen if candidate is None]
        if own:
            row["claimed"] = own[-1]
    except Exception:
        row = {"failed": traceback.format_exc(limit=-2)}
    connection.send(row)


def chosen(seen: list[tuple[float, float | None, Any]]) -> list[int]:
    """Which candidates are evaluated: the best, by the peer's own figure, at times and levels."""
    times, figures = zip(*((t, own) for t, own, _ in seen), strict=True)
    if len(seen) <= POINTS or None in figures[:-1]:
        return list(range(len(seen)))
    figures = [math.inf if own is None else own for own in figures]
    kept = {0, len(seen) - 1, int(np.argmin(figures))}
    for limit in [*MARKS, *np.geomspace(max(times[0], 1e-3), times[-1], POINTS)]:
        before = [k for k, t in enumerate(times) if t <= limit]
        kept |= {min(before, key=figures.__getitem__)} if before else set()
    for level in LEVELS:
        good = [k for k, own in enumerate(figures) if own <= level]
        kept |= set(good[:1])
    return sorted(kept)


def judged(problem: Problem, seen: list[tuple[float, float | None, Any]]) -> list[list]:
    """Seconds, loss and CX of the candidates that are evaluated."""
    kept = [seen[k] for k in chosen(seen)]
    points = []
    for seconds, own, candidate in kept:
        if candidate is None:
            points.append([seconds, own, None])
            continue
        candidate = candidate() if callable(candidate) else candidate
        points.append([seconds, evaluate(problem, candidate), cx_count(problem, candidate)])
    return [[float(f"{s:.5g}"), float(f"{loss:.6g}"), cx] for s, loss, cx in points]


def measure(task: str, peer: str, seed: int, problem: Problem, budget: float) -> dict:
    """One peer on one problem."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(there, peer, problem, budget))
    process.start()
    there.close()
    limit = 30 * budget + 600  # of a machine that others use too
    try:
        row = here.recv() if here.poll(limit) else {"failed": f"no answer in {limit:.0f} s"}
    except EOFError:
        row = {"failed": "the process died"}
    process.kill()
    process.join()
    return {"task": task, "peer": peer, "seed": seed, "budget": budget, **row}


# ------------------------------------------------------------------------------------ results


def loss_at(row: dict, seconds: float) -> float:
    """The best so far; infinite if the run was stopped before."""
    if row["seconds"] >= row["budget"] and row["budget"] < seconds:
        return math.inf
    return min((p[1] for p in row["points"] if p[0] <= seconds), default=math.inf)


def time_to(row: dict, level: float) -> float:
    return min((p[0] for p in row["points"] if p[1] <= level), default=math.inf)


def cx_to(row: dict, level: float) -> float:
    """Fewest CX of a candidate that is as good; a history has those of its last point.

    Level 0 is that of the best candidate.
    """
    level = level or min(p[1] for p in row["points"])
    last = row["points"][-1][2]
    counts = [last if p[2] is None else p[2] for p in row["points"] if p[1] <= level]
    return min(counts, default=math.inf)


def grouped(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["task"], row["peer"]), []).append(row)
    return found


def middle(rows: list[dict], figure: Callable[[dict], float]) -> float | None:
    """Median over seeds; a run that failed never arrives."""
    value = statistics.median([figure(r) if "points" in r else math.inf for r in rows])
    return None if math.isinf(value) else value


def short(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if abs(value) < 1e-15 else f"{value:.1e}" if value < 0.01 else f"{value:.3g}"


def tables(record: dict) -> list[Table]:
    groups = grouped(record["runs"])
    searches = {k: v for k, v in groups.items() if not k[0].startswith(("vector", "published"))}
    vectors = {k: v for k, v in groups.items() if k[0].startswith("vector")}
    marks = [s for s in MARKS if s <= max(r["budget"] for r in record["runs"])]
    figures = {f"s to {x:g}": functools.partial(time_to, level=x) for x in LEVELS}
    figures |= {f"at {s:g} s": functools.partial(loss_at, seconds=s) for s in marks}
    figures |= {"first": lambda r: r["first"]}
    counts = {"CX": functools.partial(cx_to, level=0)}
    counts |= {f"to {x:g}": functools.partial(cx_to, level=x) for x in LEVELS}
    memory = {"MB": lambda r: r["memory MB"]}
    fidelities = {f"CX at F {1 - x:g}": functools.partial(cx_to, level=x) for x in (0.05, 0.01)}
    times = {f"s to {1 - x:g}": functools.partial(time_to, level=x) for x in (0.05, 0.01)}
    notes = (
        "CPU seconds of one thread; loss is 1 - |f| of operators and cores, 1 - F of states",
        "CX: of the best candidate, and the fewest of one that is as good as a level",
        "first: seconds to the first candidate; MB: peak memory above what a task of 4 sites takes",
    )
    compared = {k: v for k, v in searches.items() if not k[1].startswith(("Trotter", "StateP"))}
    behind = where_behind(compared, {k: v for k, v in figures.items() if k != "first"})
    behind += where_behind(vectors, fidelities)
    title = "{}, medians over seeds"
    made = [
        medians(searches, figures | counts | memory, title.format("operators and states"), notes),
        medians(vectors, fidelities | times | memory, title.format("real vectors of 64 numbers")),
        Table(
            ("task", "Trotter", "published", "mpodis", "ratio", "s to published", "s", "MB"),
            literature(groups),
            title="50 sites, 1 - |f| of U(4) brickwalls",
        ),
        Table(
            ("task", "figure", "mpodis", "best peer", "which"),
            behind,
            title="where a peer is ahead of mpodis",
        ),
    ]
    return [one for one in made if one.rows]


def medians(groups: dict, figures: dict[str, Callable], title: str, notes=()) -> Table:
    """A row for every task and peer; what is written down and not searched takes no time."""
    rows = []
    for (task, peer), runs in groups.items():
        cells = [
            None
            if peer.startswith("Trotter") and "CX" not in name and name[:5] != "to 1e"
            else middle(runs, figure)
            for name, figure in figures.items()
        ]
        rows.append((task, peer, *map(short, cells), len(runs)))
    return Table(("task", "peer", *figures, "seeds"), rows, title=title, notes=notes)


def where_behind(groups: dict, figures: dict[str, Callable]) -> list[tuple]:
    """Tasks and figures, the less the better, of which a peer's median is below ours."""
    rows = []
    for task in dict.fromkeys(task for task, peer in groups if peer == "mpodis"):
        for name, figure in figures.items():
            found = {p: middle(runs, figure) for (t, p), runs in groups.items() if t == task}
            mine = found.pop("mpodis")
            found = {peer: value for peer, value in found.items() if value is not None}
            if not found:
                continue
            peer = min(found, key=found.__getitem__)
            if mine is None or found[peer] < 0.99 * mine - 1e-12:
                rows.append((task, name, short(mine), short(found[peer]), peer))
    return rows


def literature(groups: dict[tuple[str, str], list[dict]]) -> list[tuple]:
    """Rows of the published values at 50 sites, ours and Trotter's of the same depth."""
    rows = []
    for (task, peer), runs in groups.items():
        if peer != "mpodis" or not task.startswith("published") or "points" not in runs[0]:
            continue
        model, size = task.split()[1:]
        value = PUBLISHED[model][int(size.split("/")[1])]
        found = {"mpodis": runs[0], "Trotter 2": groups.get((task, "Trotter 2"), [{}])[0]}
        best = {
            name: min(p[1] for p in run["points"]) for name, run in found.items() if "points" in run
        }
        reached = time_to(runs[0], value)
        rows.append(
            (
                task.removeprefix("published "),
                short(best.get("Trotter 2")),
                short(value),
                short(best["mpodis"]),
                f"{value / best['mpodis']:.2f}",
                short(None if math.isinf(reached) else reached),
                short(runs[0]["seconds"]),
                short(runs[0]["memory MB"]),
            )
        )
    return rows


def plot(record: dict, path: Path) -> None:
    """Loss against CPU seconds, a panel for every task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {
        key: runs
        for key, runs in grouped(record["runs"]).items()
        if not key[0].startswith(("vector", "published"))
    }
    tasks = list(dict.fromkeys(task for task, _ in groups))
    peers = [peer for peer in PEERS if any(p == peer for _, p in groups)]
    peers = [peer for peer in peers if not peer.startswith(("Trotter", "StateP"))]
    columns = min(5, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3 * columns, 2.5 * lines), layout="constrained", squeeze=False
    )
    grid = np.geomspace(0.01, max(r["budget"] for runs in groups.values() for r in runs), 60)
    for ax, task in zip(axes.flat, tasks, strict=False):
        for k, peer in enumerate(peers):
            if (task, peer) not in groups:
                continue
            runs = groups[task, peer]
            losses = [middle(runs, functools.partial(loss_at, seconds=s)) for s in grid]
            curve = [(s, max(x, 1e-15)) for s, x in zip(grid, losses, strict=True) if x is not None]
            if curve:
                style = {"lw": 2.2, "zorder": 3} if peer == "mpodis" else {"lw": 1.1}
                ax.semilogx(*zip(*curve, strict=True), color=f"C{k}", **style)
        if not task.startswith("core"):
            ax.set_yscale("log")
        ax.set_title(task, fontsize=8)
        ax.tick_params(labelsize=7, which="both")
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("CPU seconds", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("loss", fontsize=8)
    handles = [plt.Line2D([], [], color=f"C{k}", label=peer) for k, peer in enumerate(peers)]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=75)


def versions() -> dict[str, str]:
    names = ("numpy", "quimb", "qiskit", "qiskit-addon-aqc-tensor", "bqskit", "mps-to-circuit")
    found = {"mpodis": mpodis.__version__}
    for name in (*names, "torch", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three small tasks, 3 s, one seed")
    parser.add_argument("--published", action="store_true", help="the 50 sites of the literature")
    parser.add_argument("--tasks", help="only those with one of these words, by commas")
    parser.add_argument("--peers", help="only those whose names begin so, by commas")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--budget", type=float, help="other CPU seconds of every run")
    parser.add_argument("--out", type=Path, help="JSON record; runs that it has are not repeated")
    parser.add_argument("--redo", action="store_true", help="repeat them all the same")
    parser.add_argument("--plot", type=Path, help="figure to write")
    parser.add_argument("--record", type=Path, help="print and draw an earlier record")
    options = parser.parse_args()
    if options.record:
        record = json.loads(options.record.read_text())
    else:
        record = measured(options)
    for one in tables(record):
        print(one, end="\n\n")
    if options.plot:
        plot(record, options.plot)


def measured(options: argparse.Namespace) -> dict:
    """All runs that are asked for, and those of the record."""
    tasks = dict(FIFTY if options.published else TASKS)
    if options.quick:
        tasks = {task: (tasks[task][0], 3.0) for task in QUICK}
    if options.tasks:
        words = options.tasks.split(",")
        tasks = {task: x for task, x in tasks.items() if any(word in task for word in words)}
    if options.budget:
        tasks = {task: (make, options.budget) for task, (make, _) in tasks.items()}
    peers = dict(PEERS)
    if options.peers:
        peers = {p: x for p, x in peers.items() if p.startswith(tuple(options.peers.split(",")))}
    for peer, (_, module, _, _) in list(peers.items()):
        if importlib.util.find_spec(module) is None:
            print(f"{peer} is left out: {module} is not installed", flush=True)
            del peers[peer]
    seeds = [int(word) for word in options.seeds.split(",")]
    seeds = [0] if options.quick or options.published else seeds
    record = {
        "command": "scripts/bench/compile.py" + (" --quick" if options.quick else ""),
        "versions": versions(),
        "runs": [],
    }
    if options.out and options.out.exists():
        record["runs"] = json.loads(options.out.read_text())["runs"]
    if options.redo:
        kept = (r for r in record["runs"] if r["task"] not in tasks or r["peer"] not in peers)
        record["runs"] = list(kept)
    record["runs"] = [r for r in record["runs"] if "points" in r]
    done = {(r["task"], r["peer"], r["seed"]) for r in record["runs"]}
    for seed in seeds:
        for task, (make, budget) in tasks.items():
            problem = None
            for peer, (_, _, kinds, sites) in peers.items():
                if (task, peer, seed) in done:
                    continue
                problem = make(seed) if problem is None else problem
                if problem.kind not in kinds or problem.n > sites:
                    continue
                if peer.startswith("Trotter") and not problem.trotter:
                    continue  # no evolution
                row = measure(task, peer, seed, problem, budget)
                record["runs"].append(row)
                say(row)
                if options.out:
                    save(options.out, record)
    return record


def save(path: Path, record: dict) -> None:
    """The record as JSON, a line for every run."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in record["runs"])
    head = json.dumps({key: value for key, value in record.items() if key != "runs"}, indent=1)
    write_atomic(path, head[:-2] + ',\n "runs": [\n' + lines + "\n]}\n")


def say(row: dict) -> None:
    head = f"{row['task']}, {row['peer']}, seed {row['seed']}: "
    if "failed" in row:
        print(head + row["failed"].strip().splitlines()[-1], flush=True)
        return
    to = ", ".join(f"{x:g} in {short(time_to(row, x))}" for x in LEVELS)
    at = ", ".join(short(loss_at(row, s)) for s in MARKS)
    print(f"{head}{to} s; {at} at 1, 5, 20 s; CX {cx_to(row, 0)}", flush=True)


if __name__ == "__main__":
    main()
