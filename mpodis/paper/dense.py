"""Dense networks: accuracy against parameters with hidden layers replaced, nothing retrained.

Circuits around a core stand beside a plain MPO, low rank and Monarch matrices. All are fitted to
the same distance, weighted by moments of the training images, all leave the mean input to the
bias, and all are chosen by that distance alone. There are two recipes, the same for all: neurons
stay in the order given, or their order is searched in turn with the fits. Gates of SO(4) are
counted at six numbers, their dimension, of which four are independent where others follow; so
circuits are shown, too, at the four angles that they need as CNOTs and rotations, and with gates
that stand at two places each and are stored once.

The small network is 64-64-10 on 8x8 images, its first layer replaced; the wide one, 784-256-64-10,
is the subject of `wide`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
from matplotlib.axes import Axes

from mpodis.jobs.records import spread
from mpodis.nn import accuracy
from mpodis.paper import wide
from mpodis.paper.by_pieces import Experiment, Panel, Piece
from mpodis.paper.networks import dataset, trained_dense
from mpodis.paper.replacements import (
    METHODS,
    Dense,
    Effort,
    Replacement,
    Slot,
    circuits,
    leads,
    monarch_matrix,
    plain_mpo,
    rank_matrix,
)
from mpodis.structured import Reordering
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

OURS, *OTHERS = METHODS
MPO, RANK, MONARCH = OTHERS
MIRRORED = "circuits, mirrored gates"
OURS_GIVEN, MPO_GIVEN = "circuits, order given", "MPO, order given"
KINDS = (MIRRORED, OURS, OURS_GIVEN)
"""Forms of circuits, the most economical ones first."""
BUDGETS = (100, 150, 200, 250, 300, 400, 550, 800, 1100, 1500, 2000, 3000)
"""Parameters at which methods are compared."""


@dataclass(frozen=True)
class Case:
    """What is compared with what.

    Attributes
    ----------
    ours : str
    others : tuple of str
    count : {"parameters", "thrifty"}
        How the parameters of our circuits are counted, see `Replacement`.
    """

    ours: str
    others: tuple[str, ...]
    count: str = "parameters"


CASES = {
    "order given": Case(OURS_GIVEN, (MPO_GIVEN, RANK, MONARCH)),
    "order searched": Case(OURS, (MPO, RANK, MONARCH)),
    "order searched, mirrored gates": Case(MIRRORED, (MPO, RANK, MONARCH)),
    "order searched, four angles a gate": Case(OURS, (MPO, RANK, MONARCH), "thrifty"),
}
"""Six numbers a gate unless said."""
FEW, MANY = (250, 550), 1100
"""The range that the comparison is about, and the end of that in which few is few."""


def pieces(options: Dense) -> list[Piece]:
    if options.network == "wide":
        return wide.pieces(
            options,
            objectives=options.objectives,
            shares=options.shares,
            max_sweeps=options.max_sweeps,
            rounds=options.rounds,
        )
    same = {k: getattr(options, k) for k in ("data", "data_dir", "networks")}
    effort = {k: getattr(options, k) for k in ("starts", "max_sweeps", "rounds")}
    ours = [
        (
            kind,
            f"{label}chi{bond}",
            [bond, *(options.mirrored if kind == MIRRORED else options.depths)],
        )
        for kind, label in zip(KINDS, ("mirrored-", "", "given-"), strict=True)
        for bond in options.cores
    ]
    sizes = (options.bonds, options.ranks, options.monarchs, options.bonds)
    others = [
        (name, name.replace(",", "").replace(" ", "-"), list(which))
        for name, which in zip((*OTHERS, MPO_GIVEN), sizes, strict=True)
    ]
    # seeds vary fastest, so that no two workers begin by training the same network
    return [
        Piece(
            f"{objective}-{label}-seed{seed}",
            _rows,
            {
                **same,
                "seed": seed,
                "objective": objective,
                "method": method,
                "sizes": sizes,
                "effort": effort,
            },
        )
        for objective in options.objectives
        for method, label, sizes in (*ours, *others)
        for seed in options.range
    ]


def _rows(*, data, data_dir, networks, seed, objective, method, sizes, effort) -> dict:
    images = dataset(data, data_dir)
    model = trained_dense(images, networks, seed, hidden=(images.features,))
    place = Slot.of(model, "0", images.x_train, objective)

    def score(network) -> float:
        return accuracy(network, images.x_test, images.y_test)

    rows = [
        {
            "name": found.name,
            "parameters": found.parameters,
            "thrifty": found.independent,
            "loss": found.loss,
            "accuracy": score(place.filled(found.matrix)),
        }
        for found in _fits(place, method, sizes, Effort(**effort, seed=seed))
    ]
    nothing = score(place.filled(np.zeros_like(place.layer.matrix)))
    return {
        "seed": seed,
        "objective": objective,
        "method": method,
        "data": images.note,
        "original": score(model),
        "nothing": nothing,
        "rows": rows,
    }


def _fits(place: Slot, method: str, sizes: Sequence[int], effort: Effort) -> Iterator[Replacement]:
    layer = place.layer
    orders = None
    if method in (OURS_GIVEN, MPO_GIVEN):
        effort = replace(effort, rounds=0)
        orders = [Reordering.identity(layer.padded().matrix.shape)]
    if method in KINDS:
        bond, *depths = sizes
        yield from circuits(layer, bond, depths, effort, orders, mirrored=method == MIRRORED)
        return
    fits = {
        MPO: lambda size: plain_mpo(layer, size, effort),
        MPO_GIVEN: lambda size: plain_mpo(layer, size, effort, orders),
        RANK: lambda size: rank_matrix(layer, size),
        MONARCH: lambda size: monarch_matrix(layer, size, effort),
    }
    for size in sizes:
        yield fits[method](size)


def front(
    record: dict, objective: str, method: str, seed: int, count: str = "parameters"
) -> list[dict]:
    """Rows in ascending parameters, those left out that a cheaper one undercuts in loss."""
    rows = [
        row
        for piece in record["pieces"].values()
        if (piece["objective"], piece["method"], piece["seed"]) == (objective, method, seed)
        for row in piece["rows"]
    ]
    kept: list[dict] = []
    for row in sorted(rows, key=lambda row: (row[count], row["loss"])):
        if not kept or row["loss"] < kept[-1]["loss"]:
            kept.append(row)
    return kept


def at_most(rows: Sequence[dict], budget: int, count: str = "parameters") -> dict | None:
    """The best that the budget pays for."""
    able = [row for row in rows if row[count] <= budget]
    return able[-1] if able else None


def between(rows: Sequence[dict], budget: int) -> float:
    """Accuracy at a budget, between two sizes along the logarithm of the parameters.

    Before the first size it is that of the first, behind the last that of the last.
    """
    sizes, scores = ([row[name] for row in rows] for name in ("parameters", "accuracy"))
    return float(np.interp(np.log(budget), np.log(sizes), scores))


def compared(record: dict, objective: str, case: Case) -> dict[int, dict[str, list[float]]]:
    """Accuracy by budget and method, seed by seed, for the budgets that pay for circuits."""
    found = {}
    for budget in BUDGETS:
        ours = [
            at_most(front(record, objective, case.ours, seed, case.count), budget, case.count)
            for seed in record["seeds"]
        ]
        paid = [row["accuracy"] for row in ours if row is not None]
        if len(paid) < len(ours):
            continue
        columns = {case.ours: paid}
        for method in case.others:
            columns[method] = [
                between(front(record, objective, method, seed), budget) for seed in record["seeds"]
            ]
        found[budget] = columns
    return found


def tables(record: dict) -> list[Table]:
    if record["options"]["network"] == "wide":
        return wide.tables(record)
    found = []
    for objective, name in itertools.product(record["options"]["objectives"], CASES):
        case = CASES[name]
        rows = [
            (
                budget,
                *(spread(column, 1) for column in columns.values()),
                spread(leads(columns), 1),
            )
            for budget, columns in compared(record, objective, case).items()
        ]
        found.append(
            Table(
                ("parameters", case.ours, *case.others, "lead"),
                rows,
                title=f"test accuracy %, {objective}, {name}: median (least to most)",
                notes=(
                    "circuits: the best they reach within the parameters; others: between their "
                    "two nearest sizes, or the first one",
                    "lead: over the best of the others, network by network; Monarch matrices try "
                    "two orders, low rank knows none",
                    _unreplaced(record),
                    next(iter(record["pieces"].values()))["data"],
                ),
            )
        )
    return [*found, _points(record)]


def _unreplaced(record: dict) -> str:
    original, nothing = (
        {(p["seed"], p["objective"]): p[key] for p in record["pieces"].values()}.values()
        for key in ("original", "nothing")
    )
    return (
        f"unreplaced: {spread(list(original), 1)} %; W = 0, the bias corrected: "
        f"{spread(list(nothing), 1)} %"
    )


def _points(record: dict) -> Table:
    """Every point of every method, medians over the networks."""
    rows: dict[tuple, list[dict]] = {}
    for piece in record["pieces"].values():
        for k, row in enumerate(piece["rows"]):
            # networks may prefer Monarch matrices of different digits: the place tells them apart
            name = f"size {k + 1}" if piece["method"] == "Monarch" else row["name"]
            rows.setdefault((piece["objective"], piece["method"], name), []).append(row)
    cells = [
        (
            *key,
            *(median(row[column] for row in found) for column in ("parameters", "thrifty", "loss")),
            spread([row["accuracy"] for row in found], 1),
        )
        for key, found in rows.items()
    ]
    return Table(
        ("objective", "method", "size", "parameters", "thrifty", "loss", "accuracy %"),
        cells,
        title="all points, medians over the networks",
    )


def finding(record: dict) -> str:
    if record["options"]["network"] == "wide":
        return wide.finding(record)
    return " ".join(
        _sentences(f"{objective}, {name}", CASES[name], compared(record, objective, CASES[name]))
        for objective, name in itertools.product(record["options"]["objectives"], CASES)
    )


def _sentences(words: str, case: Case, columns: dict) -> str:
    middle = {budget: median(leads(found)) for budget, found in columns.items()}
    if not middle:
        return f"Under {words}, no circuits are as small as the budgets compared."
    few = [lead for budget, lead in middle.items() if FEW[0] <= budget <= FEW[1]]
    parts = []
    if few:
        parts.append(
            f"between {FEW[0]} and {FEW[1]} parameters the lead of circuits over the best other "
            f"is {min(few):+.1f} to {max(few):+.1f} points"
        )
    up_to = [(lead, budget) for budget, lead in middle.items() if budget <= MANY]
    if up_to:
        least, budget = min(up_to)
        parts.append(f"the smallest up to {MANY} is {least:+.1f}, at {budget}")
    for method in case.others:
        ahead = [
            budget
            for budget, found in columns.items()
            if median(found[method]) > median(found[case.ours])
        ]
        where = f"ahead at {_listed(ahead)}" if ahead else f"behind at all {len(columns)} budgets"
        parts.append(f"{method} is {where}")
    return f"Under {words} (medians over the networks): " + "; ".join(parts) + "."


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))


def _draw(record: dict, ax: Axes) -> Axes:
    if record["options"]["network"] == "wide":
        return wide.draw(record, ax)
    objective = record["options"]["objectives"][-1]
    for k, method in enumerate((*KINDS, *OTHERS, MPO_GIVEN)):
        fronts = [front(record, objective, method, seed) for seed in record["seeds"]]
        for rows in fronts:
            points = zip(*((row["parameters"], row["accuracy"]) for row in rows), strict=True)
            ax.plot(*points, color=f"C{k}", lw=0.6, alpha=0.4, drawstyle="steps-post")
        # what all networks have at a number of parameters
        budgets = sorted({row["parameters"] for rows in fronts for row in rows})
        budgets = [b for b in budgets if all(at_most(rows, b) for rows in fronts)]
        best = [[row for rows in fronts if (row := at_most(rows, b))] for b in budgets]
        curves = [median(row["accuracy"] for row in found) for found in best]
        ax.plot(budgets, curves, color=f"C{k}", lw=2, label=method, drawstyle="steps-post")
    ax.set(xscale="log", xlabel="parameters", ylabel=f"test accuracy (%), {objective}")
    ax.legend(fontsize="small")
    return ax


def _draw_leads(record: dict, ax: Axes) -> Axes:
    if record["options"]["network"] == "wide":
        return wide.draw_leads(record, ax)
    for k, name in enumerate(CASES):
        for objective, style in zip(record["options"]["objectives"], ("-", "--"), strict=False):
            columns = compared(record, objective, CASES[name])
            middle = [median(leads(found)) for found in columns.values()]
            label = f"{objective}, {name}"
            ax.plot(list(columns), middle, "o", ls=style, color=f"C{k}", label=label)
    ax.axhline(0, color="0.5", lw=1)
    ax.set(xscale="log", xlabel="parameters", ylabel="lead over the best other (points)")
    ax.set_xticks(BUDGETS[1::2], [f"{budget:,}" for budget in BUDGETS[1::2]])
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return ax


EXPERIMENT = Experiment(
    name="dense",
    title="Dense networks: accuracy against parameters",
    options=Dense,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel("accuracy", "Accuracy with what the parameters buy; thin lines are networks.", _draw),
        Panel("lead", "Median lead of circuits over the best other method.", _draw_leads),
    ),
    trains=False,
)
