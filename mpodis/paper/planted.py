"""Circuits that were hidden in an operator, or make up a unitary, and are to be found again.

M = Q_L (product operator) Q_R with Haar-random gates has the known answer f = 1: what is missing
from it is the optimiser's, not the circuits'. The circuits that search have the hidden ones' places
and no more. A unitary with a hidden brickwall is the same with one circuit and no core.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.jobs.records import spread
from mpodis.measures import entanglement
from mpodis.options import option
from mpodis.paper.base import (
    Experiment,
    Options,
    Panel,
    draw_points,
    how_many,
    on_networks,
    search_of,
)
from mpodis.study import Study
from mpodis.synthesis import synthesise
from mpodis.tables import Table
from mpodis.targets import planted_mpo

__all__ = ["EXPERIMENT"]

FOUND = 1e-6
"""1 - f below which the answer is the hidden one."""
ROUNDING = 1e-16
"""Where the figure shows what is exact."""
CASE = ["hidden", "group", "sites", "layers"]


@dataclass(frozen=True)
class Planted(Options):
    """What is hidden, as sites x layers, and how it is looked for.

    Products are product operators between two circuits, unitaries single circuits.
    """

    products: tuple[str, ...] = ("6x2", "8x2", "10x2", "8x4", "6x6")
    unitaries: tuple[str, ...] = ("6x4", "8x4")
    groups: tuple[str, ...] = option(("SO", "U"), "Of unitaries.", registry="mpodis.gates:GROUPS")
    starts: int = option(8, "Near-identity starts.", least=1)
    max_sweeps: int = option(400, "Sweeps of the best start.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("products", "unitaries"):
            for case in getattr(self, name):
                if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", case):
                    raise ValueError(f"{name} holds {case!r}; write SITESxLAYERS, for example 8x4")


def study(options: Planted) -> Study:
    kinds = [("unitary", group) for group in options.groups]
    if "SO" in options.groups:
        kinds.append(("reflected", "SO"))
    hidden = [("product core", "SO", case) for case in options.products]
    hidden += [(*kind, case) for case in options.unitaries for kind in kinds]
    return on_networks(
        search,
        options,
        name="planted",
        cases=[
            dict(zip(CASE, (*kind, *map(int, size.split("x"))), strict=True))
            for *kind, size in hidden
        ],
        settings={"effort": search_of(options)},
    )


def search(
    *, hidden: str, group: str, sites: int, layers: int, seed: int, effort: dict[str, Any]
) -> dict[str, Any]:
    """Hide circuits and look for them; a reflected unitary has determinant -1."""
    ansatz = brickwall(sites, layers, fill=False, group=group)
    rng = np.random.default_rng([seed, sites, layers])
    if hidden == "product core":
        target = planted_mpo(sites, layers, seed=rng)
    else:
        target = random_circuit(ansatz, seed=rng).to_dense()
        if hidden == "reflected":
            target[0] *= -1
    there = entanglement(target)
    began = time.process_time()  # others may be at work on the machine
    if hidden == "product core":
        found = disentangle(target, left=ansatz, init="identity", seed=seed, **effort)
        bound, engine = 1.0, found.options.engine
    else:
        found = synthesise(target, ansatz, seed=seed)
        bound, engine = found.bound, "dense"
    return {
        "gap": 1.0 - found.overlap,
        "bound": bound,
        "search_seconds": time.process_time() - began,
        "status": found.status,
        "engine": engine,
        "bond": max(there.bonds, default=1),
        "s_avg": there.average,
    }


def judged(frame: pd.DataFrame) -> pd.DataFrame:
    """With what is missing from the most that f can be, less than 1 at determinant -1, and whether
    the answer is found; one of determinant -1 must also be said to be so."""
    missing = frame["gap"] - (1 - frame["bound"])
    said = (frame["hidden"] != "reflected") | (frame["status"] == "determinant")
    return frame.assign(missing=missing, found=(missing < FOUND) & said)


def tables(frame: pd.DataFrame) -> list[Table]:
    columns: dict[Any, Any] = {
        "bond": "max",
        "s_avg": partial(spread, digits=2),
        "found": how_many,
        "missing": "max",
        "search_seconds": partial(spread, digits=1),
        "engine": "first",
    }
    notes = (
        f"found: 1 - f < {FOUND:g}; missing: the most; of determinant -1 (reflected): from the "
        "most that circuits of determinant +1 reach, and the status says so",
        "seconds: of one processor core, all starts together",
    )
    rows = judged(frame)
    cases = rows.pivot_table(list(columns), CASE, aggfunc=columns, sort=False).filter(columns)
    total = rows.pivot_table("found", "hidden", aggfunc=how_many, sort=False)
    return [
        Table.from_dataframe(cases, title="hidden circuits, median (least to most)", notes=notes),
        Table.from_dataframe(total, title="all sizes and groups together"),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    found = judged(frame)
    missing = found["missing"].clip(lower=ROUNDING)
    names = ["{}, {}, {} sites, {} layers".format(*case) for case in found[CASE].to_numpy()]
    draw_points(ax, found.assign(missing=missing, case=names), "missing", "case")
    ax.set(xscale="log", xlabel="what is missing from f")


EXPERIMENT = Experiment(
    name="planted",
    title="Circuits hidden in operators and unitaries",
    options=Planted,
    study=study,
    tabulate=tables,
    panels=(Panel("gap", "What is missing from the most that f can be, one point a seed.", draw),),
    trains=False,
)
