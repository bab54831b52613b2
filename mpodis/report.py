"""A job's results as tables, figures and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from functools import partial
from pathlib import Path

from mpodis.files import write_atomic
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.pareto import pareto_tables
from mpodis.jobs.summaries import layer_tables, main_tables
from mpodis.options import to_mapping
from mpodis.paper import load_experiment
from mpodis.plots import (
    COLOURS,
    plot_accuracies,
    plot_costs,
    plot_depth,
    plot_entropies,
    plot_history,
    plot_pareto,
)
from mpodis.tables import Table

__all__ = ["figure_of", "render", "tables"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.85rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
th, td { padding: 0.18rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; width: calc(50% - 1.2rem); margin: 0.5rem 1rem 0.5rem 0;
         vertical-align: top; }
figure img { width: 100%; } figcaption { font-size: 0.8rem; color: #555; }
@media (max-width: 50rem) { figure { width: 100%; } }
.note { font-size: 0.8rem; color: #555; } pre { background: #f5f5f5; padding: 0.7rem; }
"""


def tables(results: dict) -> list[Table]:
    """The tables that `mpodis show` prints."""
    if results["job"] == "reproduce":
        return load_experiment(results["experiment"]).tables(results)
    if results["job"] == "pareto":
        return pareto_tables(results)
    return main_tables(results) if results["job"] == "run" else layer_tables(results)


def render(directory: str | os.PathLike) -> Path:
    """Write `report.html` and `figures/*.png` of a finished job; returns the page's path."""
    job, _, config = JobDirectory.open(directory)
    results = job.results()
    (job.path / "figures").mkdir(exist_ok=True)
    figures_of, intro_of = KINDS[results["job"]]
    figures = figures_of(results)
    blocks = []
    for name, (draw, caption) in figures.items():
        png = _draw(draw)
        write_atomic(job.path / "figures" / f"{name}.png", png)
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        blocks.append(
            f'<figure><img src="{source}" alt="{html.escape(name)}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    if results["job"] == "reproduce" and figures:
        write_atomic(job.path / "figures" / f"{results['experiment']}.png", figure_of(results))
    title, intro = intro_of(results)
    options = "\n".join(f"{key} = {value!r}" for key, value in to_mapping(config).items())
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{html.escape(title)}</h1>\n{intro}\n"
        + "\n".join(blocks)
        + "\n"
        + "\n".join(table._repr_html_() for table in tables(results))
        + f"\n<h2>Options</h2><pre>{html.escape(options)}</pre>\n</body></html>\n"
    )
    write_atomic(job.path / "report.html", page)
    return job.path / "report.html"


def figure_of(record: dict) -> bytes:
    """All panels of an experiment's record as one PNG, two in a row."""
    panels = load_experiment(record["experiment"]).panels
    return _draw(*[partial(panel.draw, record) for panel in panels])


def _draw(*panels) -> bytes:
    import matplotlib

    # a page must not open windows, whatever the user's backend is
    with matplotlib.rc_context({"savefig.dpi": 130}):
        from matplotlib.figure import Figure

        columns = min(2, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(6.0 * columns, 3.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for draw, ax in zip(panels, axes, strict=False):
            draw(ax)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()


def _experiment_figures(record: dict) -> dict:
    panels = load_experiment(record["experiment"]).panels
    return {p.name: (partial(p.draw, record), p.caption) for p in panels}


def _experiment_intro(record: dict) -> tuple[str, str]:
    data = record["data"]["note"] if record["data"] else "none"
    lines = (
        record["finding"],
        f"Command: {record['command']}",
        f"Data: {data}; seeds {record['seeds'][0]} to {record['seeds'][-1]}.",
    )
    return record["title"], "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _main_figures(results: dict) -> dict:
    network = results["networks"][0]
    base, rows = network["accuracy"]["original"], network["rows"]
    objectives = list(dict.fromkeys(row["objective"] for row in rows))
    depths = sorted({row["depth"] for row in rows})
    seed = f"Network of seed {network['seed']}."

    def curve(column: str) -> dict:
        return {
            objective: (
                [r["depth"] for r in rows if r["objective"] == objective],
                [r[column] for r in rows if r["objective"] == objective],
            )
            for objective in objectives
        }

    def overlaps(ax):
        plot_depth(curve("overlap"), ylabel="overlap f", ax=ax)
        for objective, (where, values) in curve("bound").items():
            ax.plot(where, values, ls=":", color=COLOURS[objective])
        ax.plot([], [], ls=":", color="0.4", label="von Neumann bound")
        ax.legend(fontsize="small")

    before = network["mpo"]["entropies"]
    left = {"M": before} | {
        f"depth {d}, {o}": network["runs"][f"depth{d}-{o}"]["entropies"]
        for d in depths[-1:]
        for o in objectives
    }
    histories = {
        f"depth {d}, {o}": network["runs"][f"depth{d}-{o}"]["history"]
        for d in depths[-1:]
        for o in objectives
    }
    accuracies = [
        (f"disentangled, depth {r['depth']}", r["objective"], r["accuracy"]) for r in rows
    ] + [(r["name"], r["objective"], r["accuracy"]) for r in network["baselines"]]
    logs = [math.log(chi) for chi in network["mpo"]["bonds"]]
    mean = sum(before) / max(len(before), 1)
    return {
        "accuracy": (
            lambda ax: plot_accuracies(accuracies, reference=("original", base), ax=ax),
            f"Test accuracy with the MPO layer replaced, no retraining. {seed}",
        ),
        "overlap": (overlaps, f"Overlap against depth (Fig. 4, top left), with its bound. {seed}"),
        "entropy-depth": (
            lambda ax: plot_depth(
                curve("s_avg"), ylabel=r"$S_{avg}$ (nats)", reference=("M", mean), ax=ax
            ),
            "Average bond entropy of the disentangled operator (Fig. 4, top right). The "
            "activations objective does not need to lower it: it disentangles what inputs see.",
        ),
        "entropy": (
            lambda ax: plot_entropies(left, maximum=logs, ax=ax),
            "Entropy per bond, before and after, deepest circuits.",
        ),
        "history": (
            lambda ax: plot_history(histories, ax=ax),
            "Overlap against its bound by sweep, winning start.",
        ),
        "costs": (
            lambda ax: plot_costs(network["costs"]["rows"], ax=ax),
            "Gates of the deepest circuits after transpilation.",
        ),
    }


def _main_intro(results: dict) -> tuple[str, str]:
    network = results["networks"][0]
    execution = network["execution"]
    title = f"Disentangling the MPO layer of a compact TNN ({results['data']['name']})"
    text = (
        f"<p>Data: {html.escape(results['data']['note'])}. Training settings: "
        f"{network['training']['epochs']} epochs, learning rate "
        f"{network['training']['learning_rate']}, batches of {network['training']['batch_size']}."
        f" Networks: seeds {', '.join(str(n['seed']) for n in results['networks'])}.</p>"
        "<p>M is the trained layer; Q_L M' Q_R replaces it without retraining. "
        "<i>overlap</i> maximises Re Tr(M^H A)/(|M||A|) (Eq. 2 of arXiv 2509.06653v1); "
        "<i>activations</i> minimises |X M - X A| for the training images X; <i>sensitivity</i> "
        "weighs this error by the gradients of the network's loss and lets a bias carry the mean "
        "of the inputs, for every method alike. A large loss of accuracy under the overlap is "
        "what the method gives, and is shown as it is.</p>"
    )
    if execution["images"]:
        text += (
            f"<p>Executed exactly on Aer, both circuits of the deepest factorization classify "
            f"{execution['images']:,} test images with {execution['differences']} differences "
            f"from the same layer in the network, in {execution['seconds']:.1f} s.</p>"
        )
    return title, text


def _layer_figures(results: dict) -> dict:
    runs = results["runs"]
    left = {"M": results["mpo"]["entropies"]}
    left |= {row["objective"]: row["entropies"] for row in runs}
    logs = [math.log(chi) for chi in results["mpo"]["bonds"]]
    figures = {}
    if results["mpo"]["entropies"] and not math.isnan(results["runs"][0]["entropies"][0]):
        figures["entropy"] = (
            lambda ax: plot_entropies(left, maximum=logs, ax=ax),
            "Entropy per bond, before and after.",
        )
    figures["history"] = (
        lambda ax: plot_history({row["objective"]: row["history"] for row in runs}, ax=ax),
        "Overlap against its bound by sweep, winning start.",
    )
    figures["costs"] = (
        lambda ax: plot_costs(runs[-1]["costs"]["rows"], ax=ax),
        f"Gates after transpilation ({runs[-1]['objective']}).",
    )
    return figures


def _layer_intro(results: dict) -> tuple[str, str]:
    title = f"Disentangling {results['name']}"
    text = f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
    return title, text


def _pareto_figures(results: dict) -> dict:
    points = results["points"]
    values = {"overlap": "overlap f"}
    if results["objective"] == "activations":
        values = {"activation_error": "relative error of the activations"} | values
    return {
        name: (
            lambda ax, name=name: plot_pareto(points, value=name, ax=ax),
            f"{what.capitalize()} against CNOTs of both circuits; the line is the front, circuits "
            "that others dominate are faint.",
        )
        for name, what in values.items()
    }


def _pareto_intro(results: dict) -> tuple[str, str]:
    title = f"Fewest CNOTs for {results['name']}"
    text = f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
    return title, text


KINDS = {
    "run": (_main_figures, _main_intro),
    "disentangle": (_layer_figures, _layer_intro),
    "pareto": (_pareto_figures, _pareto_intro),
    "reproduce": (_experiment_figures, _experiment_intro),
}
"""Figures and introduction of the page of each job."""
