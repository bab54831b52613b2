"""Circuits that were hidden in an operator, or make up a unitary, and are to be found again.

M = Q_L (product operator) Q_R with Haar-random gates has the known answer f = 1: what is missing
from it is the optimiser's, not the circuits'. The circuits that search have the hidden ones' places
and no more. A unitary with a hidden brickwall is the same with one circuit and no core.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.disentangling import disentangle
from mpodis.gates import check_group
from mpodis.jobs.records import spread
from mpodis.measures import entanglement
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.synthesis import synthesise
from mpodis.tables import Table
from mpodis.targets import planted_mpo

__all__ = ["EXPERIMENT"]

FOUND = 1e-6
"""1 - f below which the answer is the hidden one."""
NEAR = 1e-2
ROUNDING = 1e-16
"""Where the figure shows what is exact."""
KINDS = {
    "product": "product core",
    "reflected": "real, determinant -1",
    "SO": "real unitary",
    "O": "real unitary, O(4) gates",
    "U": "complex unitary",
}


@dataclass(frozen=True)
class Planted(Options):
    """What is hidden, as sites x layers, and how it is looked for.

    Attributes
    ----------
    products : tuple of str
        Product operators between two circuits.
    unitaries : tuple of str
        Single circuits, with gates of each group in `groups`.
    starts, max_sweeps : int
        Of `disentangle`: near-identity starts, and the most sweeps of the best one.
    """

    products: tuple[str, ...] = ("6x2", "8x2", "10x2", "8x4", "6x6")
    unitaries: tuple[str, ...] = ("6x4", "8x4")
    groups: tuple[str, ...] = ("SO", "U")
    starts: int = 8
    max_sweeps: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        for group in self.groups:
            check_group(group)
        for name in ("products", "unitaries"):
            for case in getattr(self, name):
                if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", case):
                    raise ValueError(f"{name} holds {case!r}; write SITESxLAYERS, for example 8x4")


def pieces(options: Planted) -> list[Piece]:
    found = []
    for case in options.products:
        sites, layers = map(int, case.split("x"))
        for seed in options.range:
            arguments = {"sites": sites, "layers": layers, "seed": seed}
            arguments |= {"starts": options.starts, "max_sweeps": options.max_sweeps}
            found.append(Piece(f"product-{case}-seed{seed}", _product, arguments))
    for case in options.unitaries:
        sites, layers = map(int, case.split("x"))
        for group in options.groups:
            for seed in options.range:
                arguments = {"sites": sites, "layers": layers, "group": group, "seed": seed}
                found.append(Piece(f"unitary-{case}-{group}-seed{seed}", _unitary, arguments))
                if group == "SO":
                    arguments = arguments | {"reflected": True}
                    found.append(Piece(f"reflected-{case}-seed{seed}", _unitary, arguments))
    return found


def _product(*, sites: int, layers: int, seed: int, starts: int, max_sweeps: int) -> dict:
    target = planted_mpo(sites, layers, seed=np.random.default_rng([seed, sites, layers]))
    began = time.process_time()  # others may be at work on the machine
    found = disentangle(
        target,
        left=brickwall(sites, layers, fill=False),
        init="identity",
        n_init=starts,
        max_sweeps=max_sweeps,
        seed=seed,
    )
    return {
        "what": "product",
        "case": f"{sites}x{layers}",
        "group": "SO",
        "seed": seed,
        "gap": 1.0 - found.overlap,
        "bound": 1.0,
        "seconds": time.process_time() - began,
        "status": found.status,
        "engine": found.options.engine,
        "sweeps": len(found.history),
        "bond": max(target.bond_sizes()),
        "s_avg": entanglement(target).average,
    }


def _unitary(*, sites: int, layers: int, group: str, seed: int, reflected: bool = False) -> dict:
    ansatz = brickwall(sites, layers, fill=False, group=group)
    rng = np.random.default_rng([seed, sites, layers])
    target = random_circuit(ansatz, seed=rng).to_dense()
    if reflected:
        target[0] *= -1
    hidden = entanglement(target)
    began = time.process_time()
    found = synthesise(target, ansatz, seed=seed)
    return {
        "what": "reflected" if reflected else "unitary",
        "case": f"{sites}x{layers}",
        "group": group,
        "seed": seed,
        "gap": 1.0 - found.overlap,
        "bound": found.bound,
        "seconds": time.process_time() - began,
        "status": found.status,
        "engine": "dense",
        "sweeps": found.sweeps,
        "starts": found.n_init,
        "bond": max(hidden.bonds, default=1),
        "s_avg": hidden.average,
    }


def _cases(record: dict) -> dict[str, list[dict]]:
    """Rows of every kind of problem, by what it is called."""
    cases: dict[str, list[dict]] = {}
    for row in record["pieces"].values():
        sites, layers = row["case"].split("x")
        kind = KINDS.get(row["what"]) or KINDS[row["group"]]
        cases.setdefault(f"{kind}, {sites} sites, {layers} layers", []).append(row)
    return cases


def _missing(row: dict) -> float:
    """From what f can be, which is less than 1 for a target of determinant -1."""
    return row["gap"] - (1 - row["bound"])


def _found(rows: list[dict]) -> int:
    """Targets that are reached; one of determinant -1 must also be said to be so."""
    return sum(
        _missing(row) < FOUND and (row["what"] != "reflected" or row["status"] == "determinant")
        for row in rows
    )


def _near(rows: list[dict]) -> int:
    return sum(_missing(row) < NEAR for row in rows)


def tables(record: dict) -> list[Table]:
    rows = []
    for name, found in _cases(record).items():
        seconds = [row["seconds"] for row in found]
        rows.append(
            (
                name,
                max(row["bond"] for row in found),
                spread([row["s_avg"] for row in found], 2),
                f"{_found(found)} of {len(found)}",
                f"{_near(found)} of {len(found)}",
                f"{max(map(_missing, found)):.1e}",
                spread(seconds, 1),
                "/".join(sorted({row["engine"] for row in found})),
            )
        )
    columns = ("hidden", "bond", "S_avg", "found", "near", "worst", "seconds", "engine")
    notes = (
        f"found: 1 - f < {FOUND:g}; near: below {NEAR:g}; worst: the largest; of determinant -1: "
        "from the most that circuits of determinant +1 reach, and the status says so",
        "seconds: of one processor core, all starts together",
    )
    return [Table(columns, rows, title="hidden circuits, median (least to most)", notes=notes)]


def _panel(value: Callable[[dict], float], label: str) -> Callable[[dict, Axes], Axes]:
    def draw(record: dict, ax: Axes) -> Axes:
        cases = _cases(record)
        for k, rows in enumerate(cases.values()):
            where = k + np.linspace(-0.2, 0.2, len(rows))
            ax.plot([value(row) for row in rows], where, "o", ms=4, alpha=0.8, color=f"C{k}")
        ax.set(xscale="log", xlabel=label, ylim=(len(cases) - 0.5, -0.5))
        ax.set_yticks(range(len(cases)), list(cases), fontsize="small")
        return ax

    return draw


def finding(record: dict) -> str:
    parts = []
    for name, rows in _cases(record).items():
        seconds, count, near = [row["seconds"] for row in rows], _found(rows), _near(rows)
        verb = "recognised" if rows[0]["what"] == "reflected" else "found"
        more = f", f above {1 - NEAR:g} in {near}" if near > count else ""
        parts.append(
            f"{name}: {count} of {len(rows)} {verb}{more}, "
            f"in {median(seconds):.1f} s (at most {max(seconds):.1f})"
        )
    return (
        f"Hidden circuits found again to 1 - f < {FOUND:g}, with {record['options']['starts']} "
        f"starts for a product core; seconds of a processor core. {'; '.join(parts)}."
    )


EXPERIMENT = Experiment(
    name="planted",
    title="Circuits hidden in operators and unitaries",
    options=Planted,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "gap",
            "What is missing from the most that f can be, one point a seed.",
            _panel(lambda row: max(_missing(row), ROUNDING), "what is missing from f"),
        ),
        Panel(
            "seconds",
            "Seconds of a processor core, one point a seed.",
            _panel(lambda row: row["seconds"], "seconds"),
        ),
    ),
    trains=False,
)
