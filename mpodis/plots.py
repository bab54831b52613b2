"""Figures of runs and results; every function draws on the given Axes and returns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

if TYPE_CHECKING:
    from mpodis.optimise.result import Disentangled

__all__ = [
    "plot_accuracies",
    "plot_costs",
    "plot_depth",
    "plot_entropies",
    "plot_history",
    "plot_pareto",
]

COLOURS = {"overlap": "C0", "activations": "C1", "sensitivity": "C2"}
_LABELS = {
    "overlap": "overlap f",
    "s_avg": r"$S_{avg}$ (nats)",
    "activations": "relative error of the activations",
    "activation_error": "relative error of the activations",
}


def _axes(ax: Axes | None, size: tuple[float, float] = (5.2, 3.4)) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    return ax


def plot_entropies(
    entropies: Mapping[str, Sequence[float]],
    *,
    maximum: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Bond entanglement entropy S_k (nats, Eq. 5) of several operators, bond by bond.

    Parameters
    ----------
    entropies : mapping of label to S_k
    maximum : log chi_k of every bond, optional
        Drawn as a step line (Eq. 6).
    """
    ax = _axes(ax)
    for k, (label, values) in enumerate(entropies.items()):
        style: dict[str, Any] = {"color": "k", "lw": 2} if k == 0 else {}
        ax.plot(_bonds(values), values, marker="o", ms=4, label=label, **style)
    if maximum is not None:
        where = _bonds(maximum)
        ax.step(where, maximum, where="mid", color="0.5", ls=":", label=r"$\log\chi_k$ of M")
    ax.set(xlabel="bond k", ylabel="$S_k$ (nats)", ylim=(0, None))
    ax.set_xticks(_bonds(max(entropies.values(), key=len)))
    ax.legend(fontsize="small")
    return ax


def _bonds(values: Sequence[float]) -> np.ndarray:
    """Numbers of the bonds that have these values, from 1 on."""
    return np.arange(1, len(values) + 1)


def plot_history(
    histories: Mapping[str, Disentangled | Mapping[str, Sequence[float]]],
    *,
    column: str = "overlap",
    ax: Axes | None = None,
) -> Axes:
    """A column of the history sweep by sweep, the overlap f beside its von Neumann bound.

    Ten L-BFGS steps are one sweep.

    Parameters
    ----------
    histories : mapping of label to results or columns
        A result stands for its run from the best initial guess; columns are "sweep", `column`
        and, beside the overlap, "bound", see `mpodis.History`.
    column : str
        Column to draw, e.g. "overlap", "s_avg", "activations" or "loss".
    """
    ax = _axes(ax)
    bound = column == "overlap"
    for label, history in histories.items():
        names = (column, "bound") if bound else (column,)
        if isinstance(history, Mapping):
            columns, sweeps = history, history["sweep"]
        else:
            columns = {name: history.path(name) for name in names}
            sweeps = range(len(columns[column]))
        (line,) = ax.plot(sweeps, columns[column], label=label)
        if bound:
            ax.plot(sweeps, columns["bound"], ls=":", color=line.get_color(), lw=1)
    if bound:
        ax.plot([], [], ls=":", color="0.4", label="von Neumann bound")
    ax.set(xlabel="sweep", ylabel=_LABELS.get(column, column))
    ax.legend(fontsize="small")
    return ax


def plot_depth(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    ylabel: str,
    reference: tuple[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A figure against the number of disentangling layers a side, as the paper's Fig. 4.

    Parameters
    ----------
    curves : mapping of label to (depths, values)
    reference : (label, value), optional
        A horizontal line.
    """
    ax = _axes(ax)
    for k, (label, (depths, values)) in enumerate(curves.items()):
        colour = COLOURS.get(label, f"C{len(COLOURS) + k}")
        ax.plot(depths, values, marker="o", label=label, color=colour)
    if reference is not None:
        ax.axhline(reference[1], color="k", ls="--", lw=1, label=reference[0])
    ax.set(xlabel="layers a side", ylabel=ylabel)
    ax.set_xticks(sorted({d for depths, _ in curves.values() for d in depths}))
    ax.legend(fontsize="small")
    return ax


def plot_accuracies(
    rows: Sequence[tuple[str, str, float]],
    *,
    reference: tuple[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracies (%) as horizontal bars, coloured by objective.

    Parameters
    ----------
    rows : sequence of (label, objective, accuracy)
    reference : (label, accuracy), optional
        Of the untouched network.
    """
    ax = _axes(ax, (6.4, 0.9 + 0.28 * len(rows)))
    places = np.arange(len(rows))[::-1]
    ax.barh(places, [r[2] for r in rows], color=[COLOURS.get(r[1], "0.7") for r in rows])
    for place, (_, _, value) in zip(places, rows, strict=True):
        # inside the bar where it is long enough, so that the reference line crosses no number
        inside = value > 20
        ax.text(
            value - 1 if inside else value + 1,
            place,
            f"{value:.1f}",
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "k",
            fontsize="small",
        )
    if reference is not None:
        ax.axvline(reference[1], color="k", ls="--", lw=1, label=reference[0])
    for objective, colour in COLOURS.items():
        if any(r[1] == objective for r in rows):
            ax.barh([0], [0], color=colour, label=objective)
    ax.set_yticks(places, [r[0] for r in rows])
    ax.set(xlabel="test accuracy (%)", xlim=(0, 103))
    ax.legend(fontsize="small", loc="lower center", bbox_to_anchor=(0.35, 1.0), ncols=4)
    return ax


def plot_costs(rows: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """One- and two-qubit gates of the parts of a factorization, per device.

    Parameters
    ----------
    rows : sequence of mappings
        With "part", "backend", "one_qubit" and "two_qubit", see `HardwareCost`.
    """
    ax = _axes(ax, (6.4, 3.4))
    parts = list(dict.fromkeys(row["part"] for row in rows))
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    width = 0.8 / (2 * len(backends))
    for b, backend in enumerate(backends):
        for q, kind in enumerate(("two_qubit", "one_qubit")):
            found = {r["part"]: r[kind] for r in rows if r["backend"] == backend}
            offset = (2 * b + q - len(backends) + 0.5) * width
            label = f"{backend}, {'two' if q == 0 else 'one'}-qubit"
            bars = ax.bar(
                np.arange(len(parts)) + offset,
                [found.get(part, 0) for part in parts],
                width,
                color=f"C{b}",
                alpha=1 if q == 0 else 0.45,
                label=label,
            )
            ax.bar_label(bars, fontsize="xx-small")
    ax.set_xticks(range(len(parts)), parts, rotation=12)
    ax.set_yscale("symlog", linthresh=1)  # logarithmic, with a place for parts without gates
    most = max((max(row["one_qubit"], row["two_qubit"]) for row in rows), default=1)
    ax.set(ylabel="gates", ylim=(0, 3 * max(most, 1)))  # room for the numbers on the bars
    ax.legend(fontsize="x-small")
    return ax


def plot_pareto(
    points: Sequence[Mapping[str, Any]], *, value: str = "overlap", ax: Axes | None = None
) -> Axes:
    """A figure of merit against CNOTs, a colour for each family, the front as a step line.

    Parameters
    ----------
    points : sequence of mappings
        With "cnots", "family", "dominated", `value` and, for the overlap, "bound": see
        `ParetoFront.to_dict`. Those that are dominated are drawn faintly.
    value : str
        "overlap" or "activation_error".
    """
    ax = _axes(ax, (6.4, 3.8))
    front = sorted((p for p in points if not p["dominated"]), key=lambda p: p["cnots"])
    cnots = [p["cnots"] for p in front]
    ax.step(cnots, [p[value] for p in front], where="post", color="k", lw=1, label="front")
    if value == "overlap":
        bounds = [p["bound"] for p in front]
        ax.plot(cnots, bounds, ls=":", color="0.4", lw=1, label="von Neumann bound")
    for k, family in enumerate(dict.fromkeys(p["family"] for p in points)):
        for dominated, alpha in ((True, 0.25), (False, 0.9)):
            rows = [p for p in points if (p["family"], p["dominated"]) == (family, dominated)]
            where, heights = [p["cnots"] for p in rows], [p[value] for p in rows]
            ax.plot(where, heights, "o", ms=4, mew=0, color=f"C{k}", alpha=alpha)
        ax.plot([], [], "o", ms=4, mew=0, color=f"C{k}", label=family)
    ax.set(xlabel="CNOTs of both circuits", ylabel=_LABELS.get(value, value))
    ax.legend(fontsize="x-small")
    return ax
