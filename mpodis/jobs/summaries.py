"""The tables that the jobs print and the report shows, from their results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from mpodis.jobs.records import gates_table
from mpodis.tables import Table

__all__ = ["layer_tables", "main_tables"]

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
MAIN = [key for key in HEADINGS if key != "relative_error"]
LAYER = [key for key in HEADINGS if key not in ("accuracy", "change")]


def main_tables(results: dict) -> list[Table]:
    """Of `mpodis run`: accuracies, medians over the networks, execution, gates."""
    networks = results["networks"]
    first = networks[0]
    tables = [_accuracy_table(first)]
    if len(networks) > 1:
        tables.append(_median_table(networks))
    if any(network["execution"]["images"] for network in networks):
        tables.append(_execution_table(networks))
    return [*tables, gates_table(first["costs"], f"the deepest circuits, seed {first['seed']}")]


def layer_tables(results: dict) -> list[Table]:
    """Of `mpodis disentangle`: errors beside the baselines, gates."""
    mpo, runs = results["mpo"], results["runs"]
    whole = {
        "layer": f"MPO, chi {max(mpo['bonds'], default=1)}",
        "overlap": 1.0,
        "relative_error": 0.0,
        "s_avg": _mean(mpo["entropies"]),
        "parameters": mpo["parameters"],
        "gates": 0,
    }
    ours = [
        run
        | {
            "layer": "disentangled",
            "s_avg": _mean(run["entropies"]),
            "parameters": run["core_parameters"],
        }
        for run in runs
    ]
    rows = [whole, *ours, *map(_baseline, results["baselines"])]
    gates = [gates_table(run["costs"], run["objective"]) for run in runs]
    return [_table(LAYER, rows, results["compression"]), *gates]


def _table(keys: Sequence[str], rows: Sequence[Mapping], title: str) -> Table:
    """One row a mapping; what it lacks is a dash."""
    cells = [
        tuple(row.get(key, "-" if key == "objective" else None) for key in keys) for row in rows
    ]
    return Table([HEADINGS[key] for key in keys], cells, title=title)


def _baseline(row: dict) -> dict:
    parameters = row["parameters"] + row.get("bias", 0)
    return row | {"layer": row["name"], "parameters": parameters, "gates": 0}


def _accuracy_table(network: dict) -> Table:
    """One network: ours beside the baselines."""
    base, mpo = network["accuracy"]["original"], network["mpo"]
    original = {
        "layer": "original MPO",
        "accuracy": base,
        "overlap": 1.0,
        "activation_error": 0.0,
        "s_avg": _mean(mpo["entropies"]),
        "parameters": mpo["parameters"],
        "gates": 0,
    }
    whole = {"layer": "Q_L M' Q_R, whole core", "accuracy": network["accuracy"]["untruncated"]}
    ours = [
        row | {"layer": _name(row), "parameters": row["core"] + row["bias"]}
        for row in network["rows"]
    ]
    rows = [
        row | {"accuracy": f"{row['accuracy']:.2f}", "change": f"{row['accuracy'] - base:+.2f}"}
        for row in [original, whole, *ours, *map(_baseline, network["baselines"])]
    ]
    return _table(MAIN, rows, f"network of seed {network['seed']}, no retraining")


def _name(row: dict) -> str:
    return f"disentangled, depth {row['depth']}" if "depth" in row else row["name"]


def _median_table(networks: Sequence[dict]) -> Table:
    """Points of accuracy lost over several networks."""
    lost: dict[tuple[str, str], list[float]] = {}
    overlaps: dict[tuple[str, str], list[float]] = {}
    accuracies = [network["accuracy"]["original"] for network in networks]
    for network, base in zip(networks, accuracies, strict=True):
        for row in [*network["rows"], *network["baselines"]]:
            key = (_name(row), row["objective"])
            lost.setdefault(key, []).append(base - row["accuracy"])
            overlaps.setdefault(key, []).append(row["overlap"])
    rows = [
        (
            *key,
            *(f"{figure(values):.2f}" for figure in (statistics.median, min, max)),
            statistics.median(overlaps[key]),
        )
        for key, values in lost.items()
    ]
    mean, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    return Table(
        ("layer", "objective", "points lost, median", "least", "most", "overlap, median"),
        rows,
        title=f"{len(networks)} networks, seeds {networks[0]['seed']}-{networks[-1]['seed']}, "
        f"test accuracy {mean:.2f} +- {spread:.2f} % before",
    )


def _execution_table(networks: Sequence[dict]) -> Table:
    runs = [(str(n["seed"]), n["execution"]) for n in networks if n["execution"]["images"]]
    return Table(
        ("seed", "images", "in the network %", "on Aer %", "differences", "deviation", "seconds"),
        [
            (
                seed,
                run["images"],
                f"{run['accuracy_classical']:.2f}",
                f"{run['accuracy_aer']:.2f}",
                run["differences"],
                run["largest_deviation"],
                run["seconds"],
            )
            for seed, run in runs
        ],
        title="deepest circuits executed exactly (Aer statevector), core and rest classical",
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0  # a single site has no bonds
