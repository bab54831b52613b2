"""Figures of runs and results; every function draws on the given Axes and returns it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from matplotlib.axes import Axes

__all__ = [
    "plot_accuracies",
    "plot_compiled",
    "plot_costs",
    "plot_depth",
    "plot_depths",
    "plot_entropies",
    "plot_history",
    "plot_pareto",
]

COLOURS = {"overlap": "C0", "activations": "C1", "sensitivity": "C2"}
LEAST_LOSS = 1e-16
"""Smaller losses, which are rounding, are drawn here."""
MOST_TICKS = 12
"""Of more bonds than these not every one has its number."""
LABELS = {
    "overlap": "overlap f",
    "s_avg": r"$S_{avg}$ (nats)",
    "entangling_gates": "entangling gates",
    "activations": "relative error of the activations",
    "activation_error": "relative error of the activations",
}


@runtime_checkable
class Entangled(Protocol):
    """What is drawn of an `Entanglement`, which draws itself and is defined above this module."""

    @property
    def entropies(self) -> np.ndarray: ...

    @property
    def bonds(self) -> tuple[int, ...]: ...


@runtime_checkable
class Run(Protocol):
    """What is drawn of a `Disentangled`, which draws itself, too."""

    @property
    def factorization(self) -> Any: ...

    @property
    def entropies_before(self) -> np.ndarray: ...

    @property
    def entropies_after(self) -> np.ndarray: ...

    @property
    def activation_error(self) -> float: ...

    def path(self, name: str) -> np.ndarray: ...

    def by_depth(self) -> dict[int, dict]: ...


@runtime_checkable
class CompiledResult(Protocol):
    """What is drawn of a `Compiled`, which draws itself, too."""

    @property
    def circuit(self) -> Any: ...

    @property
    def history(self) -> Any: ...

    @property
    def loss(self) -> float: ...

    @property
    def trotter_loss(self) -> float: ...

    @property
    def seconds(self) -> float: ...


def _axes(ax: Axes | None, size: tuple[float, float] = (5.2, 3.4)) -> Axes:
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(figsize=size, layout="constrained")[1]
    return ax


def plot_entropies(
    *operators: Entangled | Run | Mapping[str, Entangled | Run | Sequence[float]],
    maximum: Sequence[float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Bond entanglement entropy S_k (nats, Eq. 5) of several operators, bond by bond.

    Parameters
    ----------
    *operators : Entanglement, Disentangled, or mapping of label to these or to S_k
        A result of `disentangle` stands for two curves, before and after; the curve before is left
        out where it has been drawn already.
    maximum : log chi_k of every bond, optional
        Drawn as a step line (Eq. 6). By default that of the operator, where one `Entanglement` is
        given and no result.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import disentangle, entanglement
    >>> matrix = np.random.default_rng(0).normal(size=(8, 8))
    >>> run = disentangle(matrix, depth=2, max_sweeps=5)
    >>> ax = plot_entropies(entanglement(matrix), run)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['M', 'after the circuits']
    """
    ax = _axes(ax)
    given = _labelled(operators, lambda x: "after the circuits" if isinstance(x, Run) else "M")
    if maximum is None and len(given) == 1 and isinstance(given[0][1], Entangled):
        maximum = [math.log(chi) for chi in given[0][1].bonds]
    curves = _entropy_curves(given)
    for k, (label, values) in enumerate(curves):
        style: dict[str, Any] = {"color": "k", "lw": 2} if k == 0 else {}
        ax.plot(_bonds(values), values, marker="o", ms=4, label=label, **style)
    if maximum is not None:
        where = _bonds(maximum)
        ax.step(where, maximum, where="mid", color="0.5", ls=":", label=r"$\log\chi_k$ of M")
    ax.set(xlabel="bond k", ylabel="$S_k$ (nats)", ylim=(0, None))
    bonds = _bonds(max((values for _, values in curves), key=len))
    ax.set_xticks(bonds[:: math.ceil(max(1, len(bonds)) / MOST_TICKS)])
    ax.legend(fontsize="small")
    return ax


def _labelled(given: Sequence[Any], label: Callable[[Any], str]) -> list[tuple[str, Any]]:
    """Pairs of label and value: those of mappings, and a name with a number for other values."""
    pairs: list[tuple[str, Any]] = []
    alone = [label(value) for value in given if not isinstance(value, Mapping)]
    counts: dict[str, int] = {}
    for value in given:
        if isinstance(value, Mapping):
            pairs += value.items()
            continue
        name = label(value)
        counts[name] = counts.get(name, 0) + 1
        several = alone.count(name) > 1
        pairs.append((f"{name} {counts[name]}".strip() if several else name, value))
    if not pairs:
        raise ValueError("there is nothing to draw; give at least one result")
    return pairs


def _entropy_curves(given: Sequence[tuple[str, Any]]) -> list[tuple[str, np.ndarray]]:
    """S_k under labels, of a result before and after the circuits; no curve before it twice."""
    before = [np.asarray(value.entropies_before) for _, value in given if isinstance(value, Run)]
    shared = all(_close(values, before[0]) for values in before)
    curves: list[tuple[str, np.ndarray]] = []
    for label, value in given:
        if not isinstance(value, Run):
            values = value.entropies if isinstance(value, Entangled) else value
            curves.append((label, np.asarray(values)))
            continue
        first = np.asarray(value.entropies_before)
        if not any(_close(first, values) for _, values in curves):
            curves.append(("M" if shared else f"{label}, before", first))
        curves.append((label if shared else f"{label}, after", np.asarray(value.entropies_after)))
    return curves


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two curves look the same."""
    return a.shape == b.shape and np.allclose(a, b, atol=1e-5)


def _bonds(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Numbers of the bonds that have these values, from 1 on."""
    return np.arange(1, len(values) + 1)


def plot_history(
    *runs: Run | Mapping[str, Run | Mapping[str, Sequence[float]]],
    column: str = "overlap",
    ax: Axes | None = None,
) -> Axes:
    """A column of the history sweep by sweep, the overlap f beside its von Neumann bound.

    Ten L-BFGS steps are one sweep. Where a single result has several stages, a thin line marks
    where each begins: with more layers, or afresh.

    Parameters
    ----------
    *runs : Disentangled, or mapping of label to these or to columns
        A result stands for its run from the best initial guess; columns are "sweep", `column`
        and, beside the overlap, "bound", see `mpodis.History`.
    column : str
        Column to draw, e.g. "overlap", "s_avg", "activations" or "loss".
    """
    from matplotlib.ticker import MaxNLocator

    ax = _axes(ax)
    with_bound = False
    given = _labelled(runs, lambda _: "run" if len(runs) > 1 else "")
    for label, history in given:
        names = (column, "bound") if column == "overlap" else (column,)
        if isinstance(history, Mapping):
            columns, sweeps = history, history["sweep"]
        else:
            columns = {name: history.path(name) for name in names}
            sweeps = range(len(columns[column]))
        text = label or LABELS.get(column, column)
        (line,) = ax.plot(sweeps, columns[column], label=text)
        if column == "overlap" and not np.isnan(columns["bound"]).all():
            ax.plot(sweeps, columns["bound"], ls=":", color=line.get_color(), lw=1)
            with_bound = True
    if with_bound:
        ax.plot([], [], ls=":", color="0.4", label="von Neumann bound")
    if len(given) == 1 and isinstance(given[0][1], Run):
        begun = np.flatnonzero(np.diff(given[0][1].path("stage"))) + 1
        for k, sweep in enumerate(begun):
            style: dict[str, Any] = {"lw": 0.7, "color": "0.8", "zorder": 0}
            ax.axvline(float(sweep), label=None if k else "next stage", **style)
    ax.set(xlabel="sweep", ylabel=LABELS.get(column, column))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize="small")
    return ax


def plot_depth(
    runs: Run | Iterable[Run] | Mapping[str, Any],
    *,
    column: str = "overlap",
    ylabel: str | None = None,
    reference: tuple[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A figure against the number of disentangling layers a side, as the paper's Fig. 4.

    Parameters
    ----------
    runs : Disentangled, sequence of these, or mapping of label to either or to (depths, values)
        Results of several depths are a curve, also in a mapping of depths to them. So is one result
        whose circuits have grown, with a value for each depth that they had
        (`Disentangled.by_depth`).
    column : {"overlap", "s_avg", "activations", "loss"}
        What is drawn of results: f, S_avg after the circuits, the relative error of the
        activations, or the objective.
    ylabel : str, optional
        By default the name of the column.
    reference : (label, value), optional
        A horizontal line. By default the S_avg of M, where S_avg is drawn of results.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import disentangle
    >>> matrix = np.random.default_rng(0).normal(size=(8, 8))
    >>> runs = [disentangle(matrix, depth=depth, max_sweeps=5) for depth in (1, 2)]
    >>> ax = plot_depth(runs, column="s_avg")
    >>> [int(depth) for depth in ax.get_xticks()]
    [1, 2]
    """
    ax = _axes(ax)
    if isinstance(runs, Mapping):
        given = dict(runs)
        if all(isinstance(key, int) and isinstance(run, Run) for key, run in given.items()):
            given = {"": list(given.values())}
    else:
        given = {"": [runs] if isinstance(runs, Run) else list(runs)}
    if not given or any(isinstance(value, Sequence) and not len(value) for value in given.values()):
        raise ValueError("there is nothing to draw; give at least one result")
    curves, before = {}, set()
    for label, value in given.items():
        if isinstance(value, Run):
            value = [value]
        if len(value) and all(isinstance(run, Run) for run in value):
            before |= {round(float(np.mean(run.entropies_before)), 9) for run in value}
            value = _depth_curve(value, column)
        curves[label] = value
    if reference is None and column == "s_avg" and len(before) == 1:
        reference = ("M", before.pop())
    ylabel = LABELS.get(column, column) if ylabel is None else ylabel
    for k, (label, (depths, values)) in enumerate(curves.items()):
        colour = COLOURS.get(label, f"C{len(COLOURS) + k}" if label else "C0")
        ax.plot(depths, values, marker="o", label=label or ylabel, color=colour)
    if reference is not None:
        ax.axhline(reference[1], color="k", ls="--", lw=1, label=reference[0])
    ax.set(xlabel="layers a side", ylabel=ylabel)
    ax.set_xticks(sorted({d for depths, _ in curves.values() for d in depths}))
    ax.legend(fontsize="small")
    return ax


def _depth_curve(runs: Sequence[Run], column: str) -> tuple[list[int], list[float]]:
    """Depths, ascending, and a column of the results; of one that has grown, at every depth."""
    _final(runs[0], column)  # raises for a column that is not known
    if len(runs) == 1 and len(records := runs[0].by_depth()) > 1:
        return list(records), [record[column] for record in records.values()]
    found = sorted(
        (max(run.factorization.left.ansatz.depth, run.factorization.right.ansatz.depth), k)
        for k, run in enumerate(runs)
    )
    return [depth for depth, _ in found], [_final(runs[k], column) for _, k in found]


def _final(run: Run, column: str) -> float:
    """What a result reached."""
    match column:
        case "s_avg":
            return float(np.mean(run.entropies_after))
        case "activations":
            return run.activation_error
        case "overlap" | "loss":
            return getattr(run, column)
    raise ValueError(f"column={column!r} is not known; use overlap, s_avg, activations or loss")


def plot_compiled(found: CompiledResult, *, ax: Axes | None = None) -> Axes:
    """The loss 1 - |c| of a compiled circuit against the time, and Trotter's as a line.

    Dots are the losses of all initial guesses and lines the best of them so far, a colour for every
    number of sites and of layers: circuits of a part of the chain, or of fewer layers, come first.
    The cross is the loss that was measured at the end.

    Parameters
    ----------
    found : Compiled

    Examples
    --------
    >>> from mpodis import compile_unitary, evolution, pauli_chain
    >>> found = compile_unitary(evolution(pauli_chain(4, ZZ=1.0, X=0.75), 0.5), depth=3)
    >>> ax = plot_compiled(found)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['4 sites, 3 layers', 'measured at the end', 'Trotter, order 2']
    """
    ax = _axes(ax)
    pieces: dict[str, list[Mapping[str, float]]] = {}
    for record in found.history.records:
        label = f"{record['sites']} sites, {record['depth']} layers"
        pieces.setdefault(label, []).append(record)
    for k, (label, records) in enumerate(pieces.items()):
        seconds = [record["seconds"] for record in records]
        losses = np.maximum([record["loss"] for record in records], LEAST_LOSS)
        best = np.minimum.accumulate(losses)
        ax.semilogy(seconds, losses, ".", ms=3, color=f"C{k}", alpha=0.4)
        ax.step(seconds, best, where="post", color=f"C{k}", label=label)
    measured = max(found.loss, LEAST_LOSS)
    ax.plot([found.seconds], [measured], "kx", label="measured at the end")
    if not math.isnan(found.trotter_loss):
        ax.axhline(found.trotter_loss, color="0.4", ls="--", lw=1, label="Trotter, order 2")
    ax.set(xlabel="seconds", ylabel="1 - |c|")
    ax.legend(fontsize="small")
    return ax


def plot_accuracies(
    rows: Sequence[tuple[str, str, float]],
    *,
    reference: tuple[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Accuracies (%) as horizontal bars, in groups; every bar names its number and objective.

    Parameters
    ----------
    rows : sequence of (label, objective, accuracy)
        Bars of a label stand together. An objective "-" is not written.
    reference : (label, accuracy), optional
        Of the untouched network.
    """
    groups: dict[str, list[tuple[str, float]]] = {}
    for label, objective, accuracy in rows:
        groups.setdefault(label, []).append((objective, accuracy))
    ax = _axes(ax, (6.4, 0.9 + 0.26 * (len(rows) + len(groups) / 2)))
    place, middles = 0.0, []
    for bars in groups.values():
        middles.append(place + (len(bars) - 1) / 2)
        for objective, accuracy in bars:
            # pale, so that black letters can be read on every colour
            ax.barh(place, accuracy, 0.9, color=COLOURS.get(objective, "0.7"), alpha=0.55)
            name = f"{accuracy:.1f}" if objective == "-" else f"{accuracy:.1f}  {objective}"
            ax.text(1, place, name, va="center", fontsize="small")
            place += 1
        place += 0.5
    if reference is not None:
        ax.axvline(reference[1], color="k", ls="--", lw=1)
        name = f"{reference[0]} {reference[1]:.1f}"
        ax.annotate(name, (reference[1], 1), xycoords=("data", "axes fraction"), xytext=(0, 3),
                    textcoords="offset points", ha="right", fontsize="small")  # fmt: skip
    ax.set_yticks(middles, list(groups))
    ax.set(xlabel="test accuracy (%)", xlim=(0, 100), ylim=(place - 0.5, -1))
    return ax


def plot_costs(rows: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """One- and two-qubit gates of the parts of a factorization, per device.

    Parameters
    ----------
    rows : sequence of mappings
        With "part", "backend", "one_qubit" and "two_qubit", see `HardwareCost`.
    """
    if not rows:
        raise ValueError("there is nothing to draw; give at least one row")
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
    ax.set_xticks(range(len(parts)), parts, rotation=20, ha="right")
    ax.set_yscale("symlog", linthresh=1)  # logarithmic, with a place for parts without gates
    most = max((max(row["one_qubit"], row["two_qubit"]) for row in rows), default=1)
    ax.set(ylabel="gates", ylim=(0, 3 * max(most, 1)))  # room for the numbers on the bars
    ax.legend(fontsize="x-small")
    return ax


def plot_depths(
    rows: Sequence[Mapping[str, Any]], *, best: int | None = None, ax: Axes | None = None
) -> Axes:
    """Fidelities of compiled circuits on a device against their depth.

    Parameters
    ----------
    rows : sequence of mappings
        With "depth", "approximation", "gates", "estimate", "total" and "total_error", see
        `DepthRow.to_dict` of `mpodis.quantum`. Bars are two standard errors up and down.
    best : int, optional
        Depth that is marked.
    """
    if not rows:
        raise ValueError("there is nothing to draw; give at least one row")
    ax = _axes(ax)
    depths = [row["depth"] for row in rows]
    for key, label, style in (
        ("approximation", "approximation", "C0o-"),
        ("gates", "no gate fails", "C1s-"),
        ("estimate", "estimate: their product", "k--"),
    ):
        ax.plot(depths, [row[key] for row in rows], style, ms=4, lw=1.2, label=label)
    simulated = [row for row in rows if not math.isnan(row["total"])]
    if simulated:
        ax.errorbar(
            [row["depth"] for row in simulated],
            [row["total"] for row in simulated],
            [2 * row["total_error"] for row in simulated],
            fmt="k^-",
            ms=4,
            lw=1.2,
            capsize=2,
            label="total, simulated",
        )
    if best is not None:
        ax.axvline(best, color="0.7", lw=6, alpha=0.4, zorder=0, label=f"best: {best} layers")
    ax.set(xlabel="layers", ylabel="fidelity", ylim=(0, 1.03))
    ax.set_xticks(depths)
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
    ax.set(xlabel="CNOTs of both circuits", ylabel=LABELS.get(value, value))
    ax.legend(fontsize="x-small")
    return ax
