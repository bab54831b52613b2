"""Tables, figures and introduction of `mpodis disentangle`."""

from __future__ import annotations

import html
import math
from dataclasses import replace

from mpodis.jobs import Figure
from mpodis.jobs.records import baseline_row, comparison, gates_table, mean
from mpodis.plots import plot_costs, plot_entropies, plot_history
from mpodis.tables import Table

__all__ = ["figures", "introduction", "tables"]


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
    table = comparison(rows, results["compression"], without=("accuracy", "change"))
    notes = [f"{run['objective']}: {said}" for run in runs for said in run.get("remarks", ())]
    return [replace(table, notes=notes), *gates]


def figures(results: dict) -> dict[str, Figure]:
    """Entropies if they are known, the history, and gates."""
    runs = results["runs"]
    entropies = {"M": results["mpo"]["entropies"]}
    entropies |= {row["objective"]: row["entropies"] for row in runs}
    maximum = [math.log(chi) for chi in results["mpo"]["bonds"]]
    found = {}
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


def introduction(results: dict) -> tuple[str, str]:
    """Title, and a sentence about the matrix."""
    title = f"Disentangling {results['name']}"
    return title, f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
