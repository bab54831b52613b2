"""Tables, figures and verdict of `mpodis disentangle`."""

from __future__ import annotations

import html
import math
from pathlib import Path

from mpodis.advice import LITTLE
from mpodis.jobs import Figure
from mpodis.jobs.records import (
    baseline_row,
    circuit_figure,
    comparison,
    gates_table,
    mean,
)
from mpodis.optimise.result import ADVICE
from mpodis.plots import plot_costs, plot_entropies, plot_history
from mpodis.tables import Table, number

__all__ = ["figures", "introduction", "tables", "verdict"]

EXACT = 1e-6
"""Relative error below which truncation is not better."""
KEPT = 0.98
"""Fraction of S_avg above which it has not fallen."""
HALF = 0.5
"""Relative error up to which, with nothing against it, a search is said to have worked."""


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
            "Entropy per bond, of M and after the circuits of each objective.",
        )
    bounds = " and its bound" if any(not math.isnan(row["bound"]) for row in runs) else ""
    found["history"] = Figure(
        lambda ax: plot_history({row["objective"]: row["history"] for row in runs}, ax=ax),
        f"Overlap{bounds} by sweep, from the initial guess that ended best.",
    )
    found["costs"] = Figure(
        lambda ax: plot_costs(runs[-1]["costs"]["rows"], ax=ax),
        f"Gates after transpilation ({runs[-1]['objective']}).",
    )
    return found


def verdict(results: dict) -> tuple[str, ...]:
    """Whether each objective worked, with overlap, bound and S_avg, and then the caveats."""
    before = mean(results["mpo"]["entropies"])
    first, against = [], []
    for row in results["runs"]:
        objective, remarks = row["objective"], row["remarks"]
        gains = _gains_nothing(row, results["baselines"])
        half_lost = row[_measure(objective)[0]] > HALF
        how = "worked in part" if remarks or half_lost else "worked"
        if gains or _fails(row, before):
            how = "did not work"
        first.append(f"Disentangling by {objective} {how}: {_reached(row, before)}.")
        if row["status"] not in ("exact", "converged"):
            remarks = [f"The search did not converge: {ADVICE[row['status']]}.", *remarks]
        against += [f"{objective.capitalize()}: {sentence}" for sentence in (*gains, *remarks)]
    return (" ".join(first), *against)


def _reached(row: dict, before: float) -> str:
    """What the objective is about, overlap, bound, entropies and two-qubit gates."""
    after = mean(row["entropies"])
    known = not math.isnan(row["bound"])
    bound = f" (at most {number(row['bound'], 3)} with this core)" if known else ""
    parts = [f"overlap {number(row['overlap'], 3)}{bound}"]
    if row["objective"] == "activations":
        parts.insert(0, f"relative error of the activations {row['activation_error']:.3f}")
    if row["entropies"] and not math.isnan(after):
        parts.append(f"S_avg from {before:.2f} to {after:.2f} nats")
    gates = [
        cost["two_qubit"]
        for cost in row["costs"]["rows"]
        if (cost["part"], cost["backend"]) == ("both sides", "logical")
    ]
    return ", ".join([*parts, *(f"{count:,} two-qubit gates" for count in gates)])


def _measure(objective: str) -> tuple[str, str]:
    """Which error an objective is about: its key in the records, and its name."""
    if objective == "overlap":
        return "relative_error", "relative error of the operator"
    return "activation_error", "relative error of the activations"


def _fails(row: dict, before: float) -> bool:
    """Whether little of the layer is left, or, by overlap, S_avg does not fall."""
    entangled = row["objective"] == "overlap" and mean(row["entropies"]) > KEPT * before > 0
    return entangled or row[_measure(row["objective"])[0]] > LITTLE


def _gains_nothing(row: dict, baselines: list[dict]) -> list[str]:
    """A sentence, if truncation without circuits is as good."""
    (cut,) = (
        other
        for other in baselines
        if other["objective"] == row["objective"] and other["name"].startswith("truncated MPO")
    )
    key, name = _measure(row["objective"])
    if not (cut[key] <= row[key] and row[key] > EXACT):  # NaN included
        return []
    return [
        f"The gates gain nothing: without any the {name} is {number(cut[key], 3)} ({cut['name']}), "
        f"with them {number(row[key], 3)}."
    ]


def introduction(results: dict) -> tuple[str, str]:
    """Title, and a sentence about the matrix."""
    title = f"Disentangling {results['name']}"
    return title, f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
