"""Tables, figures and verdict of `mpodis run`."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from mpodis.advice import RISE
from mpodis.jobs import Figure
from mpodis.jobs.records import (
    baseline_row,
    circuit_figure,
    comparison,
    gates_table,
    listed,
    mean,
    spread,
    too_few,
)
from mpodis.plots import (
    COLOURS,
    plot_accuracies,
    plot_costs,
    plot_depth,
    plot_entropies,
    plot_history,
)
from mpodis.tables import Table

__all__ = ["figures", "introduction", "tables", "verdict"]


def tables(results: dict) -> list[Table]:
    """Accuracies, medians over the networks, execution, gates."""
    networks = results["networks"]
    first = networks[0]
    found = [_accuracy_table(first)]
    if len(networks) > 1:
        found.append(_median_table(networks))
    if any(network["execution"]["images"] for network in networks):
        found.append(_execution_table(networks))
    return [*found, gates_table(first["costs"], f"the deepest circuits, seed {first['seed']}")]


def _accuracy_table(network: dict) -> Table:
    """One network: ours beside the baselines."""
    base, mpo = network["accuracy"]["original"], network["mpo"]
    original = {
        "layer": "original MPO",
        "accuracy": base,
        "overlap": 1.0,
        "activation_error": 0.0,
        "s_avg": mean(mpo["entropies"]),
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
        for row in [original, whole, *ours, *map(baseline_row, network["baselines"])]
    ]
    title = f"network of seed {network['seed']}, no retraining"
    return comparison(rows, title, without=("relative_error",))


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
    before, spread = statistics.mean(accuracies), statistics.stdev(accuracies)
    return Table(
        ("layer", "objective", "points lost, median", "least", "most", "overlap, median"),
        rows,
        title=f"{len(networks)} networks, seeds {networks[0]['seed']}-{networks[-1]['seed']}, "
        f"test accuracy {before:.2f} +- {spread:.2f} % before",
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


def figures(results: dict, folder: Path) -> dict[str, Figure]:
    """Of the first network: accuracy, circuits, curves against depth, entropies, history, gates."""
    network = results["networks"][0]
    base, rows = network["accuracy"]["original"], network["rows"]
    objectives = list(dict.fromkeys(row["objective"] for row in rows))
    seed = f"Network of seed {network['seed']}."

    def curve(column: str) -> dict[str, tuple[list, list]]:
        """Depths and values of a column, by objective."""
        return {
            objective: (
                [r["depth"] for r in rows if r["objective"] == objective],
                [r[column] for r in rows if r["objective"] == objective],
            )
            for objective in objectives
        }

    def overlaps(ax: Axes) -> None:
        plot_depth(curve("overlap"), ylabel="overlap f", ax=ax)
        for objective, (depths, values) in curve("bound").items():
            ax.plot(depths, values, ls=":", color=COLOURS[objective])
        ax.plot([], [], ls=":", color="0.4", label="von Neumann bound")
        ax.legend(fontsize="small")

    deepest = _deepest(network)
    runs = {f"depth {deepest}, {o}": network["runs"][f"depth{deepest}-{o}"] for o in objectives}
    before = network["mpo"]["entropies"]
    entropies = {"M": before} | {name: found["entropies"] for name, found in runs.items()}
    histories = {name: found["history"] for name, found in runs.items()}
    accuracies = [(_name(r), r["objective"], r["accuracy"]) for r in (*rows, *network["baselines"])]
    maximum = [math.log(chi) for chi in network["mpo"]["bonds"]]
    size = (5.2, 1.0 + 0.21 * len(accuracies))
    circuits = circuit_figure(
        folder / f"seed{network['seed']}" / f"depth{deepest}-{objectives[0]}.safetensors",
        "What stands for the layer: Q_L, the core M' and Q_R at the largest depth, a row of "
        "inputs coming from the left. Boxes are gates; they act on the same wires under every "
        "objective.",
    )
    return circuits | {
        "accuracy": Figure(
            lambda ax: plot_accuracies(accuracies, reference=("original", base), ax=ax),
            f"Test accuracy with the MPO layer replaced, no retraining. {seed}",
            size,
        ),
        "overlap": Figure(
            overlaps, f"Overlap against depth (Fig. 4, top left), with its bound. {seed}"
        ),
        "entropy-depth": Figure(
            lambda ax: plot_depth(
                curve("s_avg"), ylabel=r"$S_{avg}$ (nats)", reference=("M", mean(before)), ax=ax
            ),
            "Average bond entropy of the disentangled operator (Fig. 4, top right). The "
            "activations objective does not need to lower it: it disentangles what inputs see.",
        ),
        "entropy": Figure(
            lambda ax: plot_entropies(entropies, maximum=maximum, ax=ax),
            "Entropy per bond, before and after, deepest circuits.",
        ),
        "history": Figure(
            lambda ax: plot_history(histories, ax=ax),
            "Overlap against its bound by sweep, from the initial guess that ended best.",
        ),
        "costs": Figure(
            lambda ax: plot_costs(network["costs"]["rows"], ax=ax),
            "Gates of the deepest circuits after transpilation.",
        ),
    }


def verdict(results: dict) -> tuple[str, ...]:
    """Points of accuracy lost at the largest depth beside low rank of as many parameters."""
    networks = results["networks"]
    deepest = _deepest(networks[0])
    ours: dict[str, list[dict]] = {}
    for network in networks:
        for row in network["rows"]:
            if row["depth"] == deepest:
                ours.setdefault(row["objective"], []).append(row)
    ranks = {
        objective: [_low_rank(network, objective) for network in networks] for objective in ours
    }
    bases = [network["accuracy"]["original"] for network in networks]

    def lost(rows: Sequence[dict]) -> list[float]:
        return [base - row["accuracy"] for base, row in zip(bases, rows, strict=True)]

    parts = [f"{spread(lost(rows), 2)} under {objective}" for objective, rows in ours.items()]
    others = [spread(lost(ranks[objective]), 2) for objective in ours]
    notes = ""
    if len(networks) > 1:
        notes = f" Medians of {len(networks)} networks (least to most)."
    if any(x < 0 for rows in ours.values() for x in lost(rows)):
        notes += " A negative number is a gain."
    first = next(iter(ours))
    low, used = ranks[first][0]["parameters"], ours[first][0]["core"] + ours[first][0]["gates"]
    found = [
        f"Points of test accuracy lost with circuits of depth {deepest} in place of the layer, "
        f"from {spread(bases, 2)} %: {listed(parts)}.{notes}",
        f"With a matrix of low rank of at least as many parameters ({low:,}; circuits and core "
        f"{used:,}): {listed(others)}.",
    ]
    few = too_few(len(networks), "network", "--repeats")
    found += few
    if not few:
        each = []
        for objective, rows in ours.items():
            pairs = zip(lost(rows), lost(ranks[objective]), strict=True)
            ahead = sum(a < b for a, b in pairs)
            each.append(f"in {ahead} of {len(networks)} networks under {objective}")
        found.append(f"Circuits lose fewer points than low rank {listed(each)}.")
    layer = networks[0]["mpo"]["parameters"]
    if layer < used:
        found.append(
            f"The layer itself is an MPO of {layer:,} parameters: circuits make it one that a "
            "quantum computer executes, not a smaller one."
        )
    return (*found, *_warnings(networks, ours))


def _seeds(networks: Sequence[dict]) -> str:
    seeds = [str(network["seed"]) for network in networks]
    return (
        f"Network of seed {seeds[0]}" if len(seeds) == 1 else f"Networks of seeds {listed(seeds)}"
    )


def _deepest(network: dict) -> int:
    return max(row["depth"] for row in network["rows"])


def _low_rank(network: dict, objective: str) -> dict:
    """The record of low rank under an objective."""
    (found,) = (
        row
        for row in network["baselines"]
        if row["objective"] == objective and row["name"].startswith("low rank")
    )
    return found


def _warnings(networks: Sequence[dict], ours: dict[str, list[dict]]) -> list[str]:
    """Where entropies rise, or a zero matrix is nearer to the layer."""
    found = []
    for objective, rows in ours.items():
        before = [mean(network["mpo"]["entropies"]) for network in networks]
        after = [row["s_avg"] for row in rows]
        risen = sum(b > a + RISE for a, b in zip(before, after, strict=True))
        if risen:
            found.append(
                f"Under {objective} S_avg rises in {risen} of {len(rows)} networks, from "
                f"{spread(before, 2)} to {spread(after, 2)} nats."
            )
        for key, what in (("relative_error", "operator"), ("activation_error", "activations")):
            errors = [row[key] for row in rows]
            worse = sum(error > 1 for error in errors)
            if worse:
                found.append(
                    f"Under {objective} the relative error of the {what} is above 1, that of a "
                    f"zero matrix, in {worse} of {len(rows)} networks: {spread(errors, 2)}."
                )
    return found


def introduction(results: dict) -> tuple[str, str]:
    """Title, what was trained, and what the objectives mean."""
    network = results["networks"][0]
    execution = network["execution"]
    title = f"Disentangling the MPO layer of a compact TNN ({results['data']['name']})"
    text = (
        f"<p>Data: {html.escape(results['data']['note'])}. Training settings: "
        f"{network['training']['epochs']} epochs, learning rate "
        f"{network['training']['learning_rate']}, batches of {network['training']['batch_size']}."
        f" {_seeds(results['networks'])}.</p>"
        "<p>M is the trained layer; Q_L M' Q_R replaces it without retraining. "
        "<i>overlap</i> maximises Re Tr(M^H A)/(|M||A|) (Eq. 2 of arXiv 2509.06653v1); "
        "<i>activations</i> minimises |X M - X A| for the training images X; <i>sensitivity</i> "
        "weighs this error by the gradients of the network's loss and lets a bias carry the mean "
        "of the inputs, for every method alike.</p>"
    )
    if execution["images"]:
        text += (
            f"<p>Executed exactly on Aer, both circuits of the deepest factorization classify "
            f"{execution['images']:,} test images with {execution['differences']} differences "
            f"from the same layer in the network, in {execution['seconds']:.1f} s.</p>"
        )
    return title, text
