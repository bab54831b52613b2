"""Tables, figures and verdict of `mpodis disentangle`."""

from __future__ import annotations

import html
import math
from pathlib import Path

from mpodis.jobs import Figure
from mpodis.jobs.records import (
    baseline_row,
    circuit_figure,
    comparison,
    gates_table,
    mean,
    rises,
)
from mpodis.plots import plot_costs, plot_entropies, plot_history
from mpodis.tables import Table

__all__ = ["figures", "introduction", "tables", "verdict"]

EXACT = 1e-6
"""Relative error below which nothing else is better."""
KEPT = 0.98
"""Fraction of S_avg above which it has not fallen."""
LITTLE = 0.9
"""Relative error above which little of the layer is left; that of a zero matrix is 1."""


def tables(results: dict) -> list[Table]:
    """Errors beside those of the baselines, and gates."""
    mpo, runs = results["mpo"], results["runs"]
    original = {
        "layer": f"MPO, chi {max(mpo['bonds'], default=1)}",
        "overlap": 1.0,
        "relative_error": 0.0,
        "s_avg": mean(mpo["entropies"]),
        "parameters": mpo["parameters"],
        "gates": 0,
    }
    ours = [
        run
        | {
            "layer": "disentangled",
            "s_avg": mean(run["entropies"]),
            "parameters": run["core_parameters"],
        }
        for run in runs
    ]
    rows = [original, *ours, *map(baseline_row, results["baselines"])]
    gates = [gates_table(run["costs"], run["objective"]) for run in runs]
    return [comparison(rows, results["compression"], without=("accuracy", "change")), *gates]


def figures(results: dict, folder: Path) -> dict[str, Figure]:
    """Circuits, entropies if they are known, the history, and gates."""
    runs = results["runs"]
    found = circuit_figure(
        folder / f"{runs[0]['objective']}.safetensors",
        "What stands for the matrix: Q_L, the core M' and Q_R, a row of inputs coming from the "
        "left. Boxes are gates; they act on the same wires under every objective.",
    )
    entropies = {"M": results["mpo"]["entropies"]}
    entropies |= {row["objective"]: row["entropies"] for row in runs}
    maximum = [math.log(chi) for chi in results["mpo"]["bonds"]]
    # there are no bonds on a single site, and no entropies of operators too large to be dense
    if results["mpo"]["entropies"] and not math.isnan(runs[0]["entropies"][0]):
        found["entropy"] = Figure(
            lambda ax: plot_entropies(entropies, maximum=maximum, ax=ax),
            "Entropy per bond, before and after.",
        )
    found["history"] = Figure(
        lambda ax: plot_history({row["objective"]: row["history"] for row in runs}, ax=ax),
        "Overlap against its bound by sweep, from the initial guess that ended best.",
    )
    found["costs"] = Figure(
        lambda ax: plot_costs(runs[-1]["costs"]["rows"], ax=ax),
        f"Gates after transpilation ({runs[-1]['objective']}).",
    )
    return found


def verdict(results: dict) -> tuple[str, ...]:
    """By every objective whether it worked, with overlap, bound and S_avg; what is against it."""
    before = mean(results["mpo"]["entropies"])
    first, against = [], []
    for row in results["runs"]:
        objective = row["objective"]
        failures = _failures(row, before)
        failures += _against_truncation(row, results["baselines"])
        drawbacks = _drawbacks(row, before) + _against_low_rank(row, results["baselines"])
        how = "did not work" if failures else "worked in part" if drawbacks else "worked"
        first.append(f"Disentangling by {objective} {how}: {_reached(row, before)}.")
        against += [f"{objective.capitalize()}: {text}." for text in (*failures, *drawbacks)]
    return (" ".join(first), *against)


def _reached(row: dict, before: float) -> str:
    """Overlap, bound, entropies and CNOTs."""
    after = mean(row["entropies"])
    bound = "" if math.isnan(row["bound"]) else f" (at most {row['bound']:.3f} with this core)"
    parts = [f"overlap {row['overlap']:.3f}{bound}"]
    if row["objective"] == "activations":
        parts.insert(0, f"relative error of the activations {row['activation_error']:.3f}")
    if row["entropies"] and not math.isnan(after):
        parts.append(f"S_avg from {before:.2f} to {after:.2f} nats")
    cnots = [
        cost["two_qubit"]
        for cost in row["costs"]["rows"]
        if (cost["part"], cost["backend"]) == ("both sides", "logical")
    ]
    return ", ".join([*parts, *(f"{count:,} two-qubit gates" for count in cnots)])


def _measure(objective: str) -> tuple[str, str]:
    """Which error an objective is about: its key in the records, and its name."""
    if objective == "overlap":
        return "relative_error", "relative error of the operator"
    return "activation_error", "relative error of the activations"


def _failures(row: dict, before: float) -> list[str]:
    """That the circuits do not disentangle, or that little of the layer is left."""
    key, name = _measure(row["objective"])
    after, found = mean(row["entropies"]), []
    if row["objective"] == "overlap" and before > 0 and after > KEPT * before:
        how = "rises" if rises(before, after) else "does not fall"
        found.append(f"S_avg {how}, from {before:.2f} to {after:.2f} nats")
    if row[key] > LITTLE:
        found.append(f"the {name} is {row[key]:.2f}, that of a zero matrix is 1")
    return found


def _drawbacks(row: dict, before: float) -> list[str]:
    """The same of what the activations objective does not count."""
    after, found = mean(row["entropies"]), []
    if row["objective"] == "overlap":
        return found
    if rises(before, after):
        found.append(
            f"S_avg rises from {before:.2f} to {after:.2f} nats, which this objective does not "
            "count"
        )
    if row["relative_error"] > 1:
        found.append(
            f"the relative error of the operator is {row['relative_error']:.2f}, that of a zero "
            "matrix is 1; only for inputs like those that were given is it near the layer"
        )
    return found


def _baseline(row: dict, baselines: list[dict], name: str) -> tuple[float, dict]:
    """The error of a baseline in the measure of a row's objective, and its record."""
    (found,) = (
        other
        for other in baselines
        if other["objective"] == row["objective"] and other["name"].startswith(name)
    )
    return found[_measure(row["objective"])[0]], found


def _against_truncation(row: dict, baselines: list[dict]) -> list[str]:
    """That the gates gain nothing."""
    error, other = _baseline(row, baselines, "truncated MPO")
    key, name = _measure(row["objective"])
    if not (error <= row[key] and row[key] > EXACT):  # NaN included
        return []
    return [
        f"the gates gain nothing: without any the {name} is {error:.3f} ({other['name']}), with "
        f"them {row[key]:.3f}"
    ]


def _against_low_rank(row: dict, baselines: list[dict]) -> list[str]:
    """That a smaller layer is had without circuits."""
    error, other = _baseline(row, baselines, "low rank")
    key, name = _measure(row["objective"])
    parameters = row["gates"] + row["core_parameters"]
    if not (error <= row[key] and row[key] > EXACT):  # NaN included
        return []
    return [
        f"{other['name']} is better as a smaller layer: {name} {error:.3f} with "
        f"{other['parameters']:,} parameters, against {row[key]:.3f} with {parameters:,}"
    ]


def introduction(results: dict) -> tuple[str, str]:
    """Title, and a sentence about the matrix."""
    title = f"Disentangling {results['name']}"
    return title, f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
