"""What several jobs record of a run, ready for JSON, and the tables made of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpodis.jobs import Figure
from mpodis.tables import Table

if TYPE_CHECKING:
    from mpodis.factorization import Factorization
    from mpodis.optimise.result import Disentangled
    from mpodis.structured import Approximation

__all__ = [
    "FEWEST",
    "approximation_row",
    "baseline_row",
    "circuit_figure",
    "comparison",
    "costs",
    "gates_table",
    "listed",
    "mean",
    "mean_spread",
    "spread",
    "too_few",
    "trajectory",
]

FEWEST = 3
"""Cases from which on something is concluded from them."""
DRAWN = 2000
"""Most gates of circuits that are drawn; a browser is slow with more."""
COLUMN, NARROWEST, WHOLE = 0.45, 0.13, 10.8
"""Inches of a layer in a drawing, of the narrowest, and of a drawing that a page shows whole."""
ROUTED = 16
"""Most wires of circuits that are transpiled for a device."""
HISTORY = (
    "sweep",
    "phase",
    "loss",
    "overlap",
    "true_overlap",
    "environment_bond",
    "bound",
    "s_avg",
    "activations",
    "seconds",
)
"""Columns of the history that are recorded."""
HEADINGS = {
    "layer": "layer",
    "objective": "objective",
    "accuracy": "accuracy %",
    "change": "change",
    "overlap": "overlap",
    "bound": "bound",
    "relative_error": "rel. error",
    "activation_error": "act. error",
    "s_avg": "S_avg",
    "parameters": "parameters",
    "gates": "gate par.",
}
"""Columns of a comparison with the baselines, by their keys in the records."""


def trajectory(found: Disentangled) -> dict:
    """Entropies that are left, and the history from the initial guess that ended best."""
    history = {name: found.path(name).tolist() for name in HISTORY}
    history["sweep"] = list(range(len(history["loss"])))
    return {"entropies": found.entropies_after.tolist(), "history": history}


def approximation_row(found: Approximation) -> dict:
    """Errors and parameters of a baseline."""
    return {
        "name": found.name,
        "overlap": found.overlap,
        "relative_error": found.relative_error,
        "activation_error": found.activation_error,
        "parameters": found.parameters,
    }


def costs(factorization: Factorization, seed: int) -> dict:
    """Gates of one gate, each side and both, logical and, where it is installed, FakeMontreal.

    Circuits of more than `ROUTED` wires are not placed on the device, which takes minutes.
    """
    from mpodis.quantum import cost_table  # printing records takes no qiskit

    if max(factorization.left.n, factorization.right.n) > ROUTED:
        table = cost_table(factorization, backends=("logical",), seed=seed)
        note = f"circuits of more than {ROUTED} wires are counted without a device"
        return table.to_dict() | {"note": note}
    try:
        return cost_table(factorization, seed=seed).to_dict()
    except ImportError as missing:
        table = cost_table(factorization, backends=("logical",), seed=seed)
        return table.to_dict() | {"note": str(missing)}


def gates_table(found: dict, what: str) -> Table:
    """The table of `costs`."""
    names = ("part", "backend", "optimization_level", "one_qubit", "two_qubit", "depth")
    return Table(
        ("part", "backend", "level", "1-qubit", "2-qubit", "depth"),
        [tuple(row[name] for name in names) for row in found["rows"]],
        title=f"gates after transpilation: {what}",
        notes=(found["note"],) if "note" in found else (),
    )


def comparison(rows: Sequence[Mapping], title: str, *, without: Sequence[str] = ()) -> Table:
    """Layers beside each other, one a row, with all columns of `HEADINGS` but some."""
    keys = [key for key in HEADINGS if key not in without]
    cells = [
        tuple(row.get(key, "-" if key == "objective" else None) for key in keys) for row in rows
    ]
    return Table([HEADINGS[key] for key in keys], cells, title=title)


def baseline_row(row: dict) -> dict:
    """The record of a baseline as a row of `comparison`."""
    parameters = row["parameters"] + row.get("bias", 0)
    return row | {"layer": row["name"], "parameters": parameters, "gates": 0}


def mean(values: Sequence[float]) -> float:
    """Mean over the bonds; a single site has none."""
    return float(np.mean(values)) if values else 0.0


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (least to most), for tables and paragraphs."""
    middle, least, most = (
        f"{x:z.{digits}f}" for x in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"


def mean_spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean +- standard deviation (least to most)."""
    numbers = [statistics.mean(values), min(values), max(values)]
    mean, least, most = (f"{x:.{digits}f}" for x in numbers)
    if len(values) == 1:
        return mean
    return f"{mean} +- {statistics.stdev(values):.{digits}f} ({least} to {most})"


def listed(parts: Sequence[str]) -> str:
    """A, B and C."""
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last


def too_few(count: int, what: str, flag: str) -> tuple[str, ...]:
    """A caveat for fewer than `FEWEST` cases, where `what` names one of them; else nothing."""
    if count >= FEWEST:
        return ()
    said = f"One {what} is" if count == 1 else f"{count} {what}s are"
    return (f"{said} too few to conclude anything from; use {flag} {FEWEST} or more.",)


def circuit_figure(file: Path, caption: str) -> dict[str, Figure]:
    """The figure of the factorization in a file; none if that is gone, or too large to draw."""
    from mpodis.factorization import holds_factorization, load_factorization  # takes quimb

    if not holds_factorization(file):
        return {}
    found = load_factorization(file)
    sides = (found.left.ansatz, found.right.ansatz)
    if not 0 < sum(len(side.placements) for side in sides) <= DRAWN:
        return {}
    columns, wires = 1.8 + sum(side.depth for side in sides), 1.0 + max(side.n for side in sides)
    scale = min(COLUMN, max(NARROWEST, WHOLE / columns))
    size = (scale * columns, scale * wires)  # no margins at equal scales
    return {"circuits": Figure(found.draw, caption, size)}
