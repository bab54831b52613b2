"""CNOTs of disentangling circuits, by the transpiler and resynthesised by our own sweeps.

The MPO layer of every network is disentangled by brickwalls, on both sides and on the left alone.
Their CNOTs are counted as they are (Qiskit's level 3, which finds nothing in a brickwall of SO(4)
gates), as Qiskit approximates them, and after `resynthesise`: with every circuit held at its
unitary, and with the layer held at its overlap only. Q_R followed by Q_L, as between two layers
with nothing classical in between, is merged and compiled as one circuit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import Ansatz
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.jobs.records import spread
from mpodis.measures import von_neumann_bound
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import network
from mpodis.quantum import compile_jointly, gate_cost, qiskit_approximation
from mpodis.resynthesis import resynthesise
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

QISKIT, LAYER, FRONT = "Qiskit, level 3", "ours, the layer held", "ours, on the way"
HELD = "ours, every unitary held"
PAIR = "Q_R followed by Q_L"
JOINT = {
    "apart": "apart, Qiskit level 3",
    "merged": "merged, Qiskit level 3",
    "resynthesised apart": "apart, ours",
    "resynthesised": "merged, ours",
}


@dataclass(frozen=True)
class Resynthesised(Options):
    """The circuits, what overlaps may lose, and the effort of `resynthesise`."""

    depth: int = option(8, "Layers on each side.", least=1)
    tol: float = option(1e-3, "What overlaps may lose.", positive=True)
    orders: int = option(1, "Searches of `resynthesise`.", least=1)
    rounds: int = option(4, "Of each search.", least=1)
    trials: int = option(6, "Of each removal.", least=1)
    max_sweeps: int = option(200, "Sweeps of `disentangle`.", least=1)


def study(options: Resynthesised) -> Study:
    return on_networks(compiled, options, name="resynthesis", grid={"sides": ["both", "left"]})


def compiled(
    *, sides, seed, data, networks, depth, max_sweeps, tol, orders, rounds, trials
) -> dict[str, Any]:
    """CNOTs of the circuits of a layer by every way to compile them."""
    mpo = network(data, networks, seed).mpo.to_mpo()
    right = None if sides == "both" else Ansatz(mpo.L, (), "SO")
    given = disentangle(
        mpo, left=depth, right=right, init="grown", max_sweeps=max_sweeps, seed=seed
    ).factorization
    circuits = [c for c in (given.left, given.right) if c.gates]
    near = [qiskit_approximation(circuit, tol=tol, seed=seed) for circuit in circuits]
    same = {"tol": tol, "seed": seed, "n_searches": orders, "rounds": rounds}
    alone = [resynthesise(circuit, trials=trials, **same) for circuit in circuits]
    layer = resynthesise(given, mpo, trials=trials, **same)
    held = [one.circuit for one in alone]
    replaced = Factorization(held[0], given.core, held[1] if held[1:] else given.right, given.shape)
    rows = []

    def row(circuits, compiled, cnots, overlap=math.nan, unitaries=math.nan, seconds=math.nan):
        figures = {"overlap": overlap, "unitaries": unitaries, "search_seconds": seconds}
        rows.append({"circuits": circuits, "compiled": compiled, "cnots": cnots, **figures})

    row(sides, QISKIT, _level3(circuits, seed), layer.overlap_before)
    row(sides, f"{QISKIT}, approximated", sum(one.cost.two_qubit for one in near))
    least, seconds = min(one.overlap for one in alone), sum(one.seconds for one in alone)
    row(sides, HELD, _level3(held, seed), replaced.overlap(mpo), least, seconds)
    cnots = _level3([layer.factorization.left, layer.factorization.right], seed)
    row(sides, LAYER, cnots, layer.overlap, seconds=layer.seconds)
    for point in layer.points:
        row(sides, FRONT, point.cnots, 1.0 - point.loss)
    if sides == "both":
        joint = compile_jointly(given.right, given.left, candidates=trials, **same)
        least = {"resynthesised": joint.overlap}
        for way, text in JOINT.items():
            row(PAIR, text, joint.costs[way].two_qubit, unitaries=least.get(way, math.nan))
    return {"bound": von_neumann_bound(mpo, given.core), ROW: rows}


def _level3(circuits: Sequence, seed: int) -> int:
    return sum(gate_cost(c, optimization_level=3, seed=seed).two_qubit for c in circuits if c.gates)


def tables(frame: pd.DataFrame) -> list[Table]:
    ends = frame.query("compiled != @FRONT")
    digits = {"cnots": 0, "overlap": 4, "search_seconds": 0}
    shown = [
        ends.dropna(subset=column).pivot_table(
            column, ["circuits", "compiled"], aggfunc=partial(spread, digits=count), sort=False
        )
        for column, count in digits.items()
    ]
    return [
        Table.from_dataframe(
            shown[0].join(shown[1:]),
            title="CNOTs by compilation, median (least to most)",
            notes=(
                "the layer held: its overlap loses no more than tol, its core is updated",
                "every unitary held, approximated: that of each circuit loses no more than tol",
                f"{PAIR}: the product's unitary held to tol, apart to half of it each",
            ),
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    """Overlap against CNOTs on the way, what Qiskit counts and what holds marked."""
    both = frame.query("sides == 'both'")
    for k, seed in enumerate(both["seed"].unique()):
        each = both.query("seed == @seed").set_index("compiled")[["cnots", "overlap"]]
        ends = each.loc[[QISKIT, LAYER]]
        way = each.loc[[FRONT]].query("overlap > @ends.overlap.min() - 0.005").sort_values("cnots")
        ax.plot(way["cnots"], way["overlap"], "-", lw=1, color=f"C{k}", label=f"seed {seed}")
        for marker, (cnots, overlap) in zip("so", ends.to_numpy(), strict=True):
            ax.plot(cnots, overlap, marker, color=f"C{k}", ms=6)
    ax.plot([], [], "ks", label=QISKIT)
    ax.plot([], [], "ko", label=LAYER)
    ax.set(xlabel="CNOTs of both circuits", ylabel="overlap f")
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="resynthesis",
    title="CNOTs after resynthesis, and of merged neighbours",
    options=Resynthesised,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "overlap",
            "Overlap of the layer against CNOTs on the way from Qiskit's count to the fewest "
            "that hold it, both sides, one line a network.",
            draw,
        ),
    ),
)
