#!/usr/bin/env python
"""Small versions of what a cluster would share, on 1, 2 and 3 Dask workers of this machine.

    python scripts/bench/cluster.py --out cluster.json

Three ways to share one search: initial guesses, blocks of layers of one gradient of the boundary
engine, and blocks of columns of one gradient of a dense matrix. Each is compared with one process.
CPU seconds are those of a task in its worker, bytes those of the arrays that go to a worker and
come back; wall time says nothing on a machine with fewer cores than workers. Scheduler and workers
listen on loopback.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # one core a worker, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from mpodis import Circuit, brickwall, compress, disentangle
from mpodis.circuit.circuit import apply_columns, random_circuit
from mpodis.environments import BoundaryEnvironments, DenseEnvironments
from mpodis.sites import mpo_from_tensors, site_tensors, tensors_to_dense
from mpodis.targets import random_mpo

WORKERS = (1, 2, 3)
STARTS = 6
LAYERS = {"n": 32, "depth": 24, "environment_bond": 32}
COLUMNS = {"n": 9, "depth": 6}


def nbytes(*things) -> int:
    """Of all arrays in lists of lists."""
    return sum(x.nbytes if hasattr(x, "nbytes") else nbytes(*x) for x in things)


def problem(n: int, depth: int):
    """Site tensors of a random MPO and of a product core, and circuits near the identity."""
    operator = random_mpo(n, 4, seed=0)
    core = site_tensors(compress(operator, max_bond=1).mpo)
    ansatz = brickwall(n, depth, fill=False)
    circuits = [
        random_circuit(places, seed=k, scale=0.05)
        for k, places in enumerate((ansatz, ansatz.reversed()))
    ]
    return site_tensors(operator), core, *circuits


class Shared:
    """Runs tasks on given workers and adds up what they take."""

    def __init__(self, client) -> None:
        self.client = client
        self.addresses = list(client.scheduler_info()["workers"])
        self.cpu = [0.0] * len(self.addresses)
        self.bytes = 0

    def submit(self, worker: int, task, *arguments):
        address = self.addresses[worker]
        return self.client.submit(_timed, task, *arguments, workers=[address], pure=False)

    def result(self, worker: int, future, *sent):
        """The result of a task, and its CPU seconds; `sent` are arrays that went to its worker."""
        found, seconds = future.result()
        self.cpu[worker] += seconds
        self.bytes += nbytes(*sent, found)
        return found, seconds

    def summary(self) -> dict:
        return {"workers": len(self.cpu), "cpu_seconds": self.cpu, "bytes": self.bytes}


def _timed(task, *arguments):
    start = time.process_time()
    found = task(*arguments)
    return found, time.process_time() - start


# --- initial guesses


def one_start(tensors, seed):
    """Overlap and gates of a short search from one initial guess."""
    run = disentangle(
        mpo_from_tensors(list(tensors)), depth=4, n_init=1, max_sweeps=10, method="sweeps",
        init="random", engine="boundary", environment_bond=16, seed=seed,
    )  # fmt: skip
    found = run.factorization
    return [np.array(run.overlap), *found.left.gates, *found.right.gates]


def starts(shared: Shared) -> dict:
    tensors, *_ = problem(12, 4)
    workers = [seed % len(shared.cpu) for seed in range(STARTS)]
    futures = [shared.submit(w, one_start, tensors, seed) for seed, w in enumerate(workers)]
    found = [
        shared.result(w, future, tensors)[0] for w, future in zip(workers, futures, strict=True)
    ]
    alone = [one_start(tensors, seed) for seed in range(STARTS)]
    return shared.summary() | {"difference": _difference(found, alone)}


# --- blocks of layers


def block(circuit: Circuit, first: int, last: int) -> Circuit:
    """Layers of a circuit as one."""
    layers = circuit.ansatz.layers
    skipped = sum(map(len, layers[:first]))
    ansatz = replace(circuit.ansatz, layers=layers[first:last])
    return Circuit(ansatz, circuit.gates[skipped : skipped + len(ansatz.placements)])


def blocks(left: Circuit, right: Circuit, count: int):
    """From the outermost layers to the core, so many blocks of both circuits."""
    ends = np.linspace(0, left.ansatz.depth, count + 1).astype(int)
    depth = left.ansatz.depth
    return [
        (block(left, a, b), block(right, depth - b, depth - a)) for a, b in itertools.pairwise(ends)
    ]


def pulled(target, core, left, right, bond):
    """The target on the inner side of a block of layers."""
    engine = _boundary(target, left, right, bond)
    engine.set(left.gates, core, right.gates)
    return engine.pulled_tensors(bond)


def pushed(core, left, right, bond):
    """The core on the outer side of a block of layers: pulled through the adjoint circuits."""
    return pulled(core, core, left.adjoint(), right.adjoint(), bond)


def block_gradient(target, core, left, right, bond):
    """Environments of the gates of a block, between the target and the core at its sides."""
    engine = _boundary(target, left, right, bond)
    engine.set(left.gates, core, right.gates)
    found = engine.gradient()
    return [*found.left], [*found.right]


def _boundary(target, left, right, bond):
    legs = ((2, 2),) * left.n
    return BoundaryEnvironments(list(target), legs, left.ansatz, right.ansatz, max_bond=bond)


def layers(shared: Shared) -> dict:
    bond = LAYERS["environment_bond"]
    target, core, left, right = problem(LAYERS["n"], LAYERS["depth"])
    parts = blocks(left, right, len(shared.cpu))
    last = len(parts) - 1
    targets, cores = [target], [core]
    chains = [0.0, 0.0]  # both go on at the same time, from the outside and from the core
    for w in range(last):
        task = shared.submit(w, pulled, targets[-1], core, *parts[w], bond)
        found, seconds = shared.result(w, task, targets[-1])
        targets.append(found)
        chains[0] += seconds
        task = shared.submit(last - w, pushed, cores[-1], *parts[last - w], bond)
        found, seconds = shared.result(last - w, task, cores[-1])
        cores.append(found)
        chains[1] += seconds
    ends = list(zip(targets, cores[::-1], strict=True))
    futures = [
        shared.submit(w, block_gradient, *end, *part, bond)
        for w, (end, part) in enumerate(zip(ends, parts, strict=True))
    ]
    own = [shared.result(w, future, *ends[w]) for w, future in enumerate(futures)]
    lefts = [e for (found, _), _ in own for e in found]
    rights = [e for (_, found), _ in own[::-1] for e in found]
    whole, alone = _timed(block_gradient, target, core, left, right, bond)
    return shared.summary() | {
        "difference": _difference([lefts, rights], whole),
        "alone_seconds": alone,
        "critical_seconds": max(chains) + max(seconds for _, seconds in own),
        "boundary_bytes": nbytes(*targets[1:2]),
    }


# --- blocks of columns


def column_environments(circuit: Circuit, a, g):
    """Environments of the gates of Q_L in Tr(G^T Q_L C), from columns of A = Q_L C and of G."""
    found = []
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        a = apply_columns(a.T, gate, place.wires).T  # the gate taken out: g^T A
        first, last = 2 ** place.wires[0], 2 ** (circuit.n - place.wires[-1] - 1)
        shape = (first, -1, last, a.shape[1])
        found.append(np.einsum("abcd,aecd->be", g.reshape(shape), a.reshape(shape), optimize=True))
        g = apply_columns(g.T, gate, place.wires).T
    return found


def columns(shared: Shared) -> dict:
    target, core, left, right = problem(COLUMNS["n"], COLUMNS["depth"])
    legs = ((2, 2),) * COLUMNS["n"]
    engine = DenseEnvironments(list(target), legs, left.ansatz, right.ansatz)
    engine.set(left.gates, core, right.gates)
    a, g = engine.dense(), tensors_to_dense(target)
    pieces = zip(*(np.array_split(x, len(shared.cpu), axis=1) for x in (a, g)), strict=True)
    pieces = [tuple(map(np.ascontiguousarray, piece)) for piece in pieces]
    futures = [shared.submit(w, column_environments, left, *p) for w, p in enumerate(pieces)]
    found = [shared.result(w, f, *pieces[w])[0] for w, f in enumerate(futures)]
    total = [sum(parts) for parts in zip(*found, strict=True)]
    return shared.summary() | {
        "difference": _difference(total, engine.gradient().left),
        "back_bytes": nbytes(*found),
    }


def _difference(found, expected) -> float:
    """Largest difference of any numbers, over the largest of them."""
    a, b = (np.concatenate([x.ravel() for x in _flat(y)]) for y in (found, expected))
    return float(abs(a - b).max() / abs(b).max())


def _flat(things):
    return [things] if hasattr(things, "ravel") else [y for x in things for y in _flat(x)]


def main() -> None:
    from distributed import Client, LocalCluster

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="JSON record to write")
    options = parser.parse_args()
    record: dict = {"command": "scripts/bench/cluster.py", "layers of": LAYERS}
    record["columns of"] = COLUMNS
    for part in (starts, layers, columns):
        record[part.__name__] = []
        for count in WORKERS:
            given = {"n_workers": count, "threads_per_worker": 1, "dashboard_address": None}
            with LocalCluster(host="127.0.0.1", **given) as cluster, Client(cluster) as client:
                client.wait_for_workers(count)
                part(Shared(client))  # imports and caches are not to be measured
                row = part(Shared(client))
            record[part.__name__].append(row)
            print(part.__name__, row, flush=True)
    if options.out:
        Path(options.out).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
