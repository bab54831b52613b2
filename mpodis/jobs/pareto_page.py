"""Tables, figures and verdict of `mpodis pareto`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from mpodis.jobs import Figure
from mpodis.jobs.records import circuit_figure, listed
from mpodis.plots import plot_pareto
from mpodis.tables import Table, number

__all__ = ["best_within", "figures", "introduction", "tables", "verdict"]

STEPS = 8
"""Numbers of CNOTs at which the families are compared."""
OVERLAPS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
ERRORS = (0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Overlaps, or errors of the activations, for which the verdict says the CNOTs."""
QUOTED = 3
"""How many of them, the best that are reached."""
BRICKWALL = "SO(4)"
"""Family with which the front is compared: brickwalls of free gates."""


def tables(results: dict) -> list[Table]:
    """The front, and the families beside it."""
    value = "overlap" if results["objective"] == "overlap" else "activation_error"
    front = _front(results)
    columns = ("cnots", "overlap", "bound", "activation_error", "family")
    rows = [(str(p["cnots"]), *(p[name] for name in columns[1:])) for p in front]
    most = front[-1]["cnots"]
    budgets = sorted({round(most * k / STEPS) for k in range(STEPS + 1)})
    return [
        Table(
            ("CNOTs", "overlap", "bound", "act. error", "family"),
            rows,
            title=f"Pareto front of {results['name']}",
            notes=(results["compression"],),
        ),
        _families(results["points"], value, budgets),
    ]


def _families(points: Sequence[dict], value: str, budgets: Sequence[int]) -> Table:
    names = list(dict.fromkeys(p["family"] for p in points))
    rows = [
        (str(n), *(best_within(points, n, value, name) for name in (None, *names))) for n in budgets
    ]
    what = "overlap" if value == "overlap" else "relative error of the activations"
    return Table(("CNOTs", "front", *names), rows, title=f"best {what} with up to so many CNOTs")


def best_within(
    points: Sequence[dict], cnots: int, value: str, family: str | None = None
) -> float | None:
    """The column `value` of the point of least loss with up to so many CNOTs.

    Of one family if it is named, else of all; None where there is no such point.
    """
    fitting = [p for p in points if p["cnots"] <= cnots and family in (None, p["family"])]
    best = min(fitting, key=lambda p: p["loss"], default=None)
    return None if best is None else best[value]


def figures(results: dict, folder: Path) -> dict[str, Figure]:
    """The front, by the objective and by the overlap, and the circuits of its best point."""
    values = {"overlap": "overlap f"}
    if results["objective"] == "activations":
        values = {"activation_error": "relative error of the activations"} | values
    fronts = {
        name: Figure(
            lambda ax, name=name: plot_pareto(results["points"], value=name, ax=ax),
            f"{what.capitalize()} against CNOTs of both circuits; the line is the front, circuits "
            "that others dominate are faint.",
        )
        for name, what in values.items()
    }
    best = min(_front(results), key=lambda p: p["loss"])
    return fronts | circuit_figure(
        folder / "front" / f"{best['cnots']}.safetensors",
        f"The best point of the front, {best['cnots']} CNOTs ({best['family']}): Q_L, the core M' "
        "and Q_R, a row of inputs coming from the left.",
    )


def _front(results: dict) -> list[dict]:
    """The points that no other dominates, by CNOTs."""
    return sorted((p for p in results["points"] if not p["dominated"]), key=lambda p: p["cnots"])


def verdict(results: dict) -> tuple[str, ...]:
    """The CNOTs of some overlaps, the best overlap, and the CNOTs of brickwalls for the same."""
    if results["objective"] == "overlap":
        key, what, possible = "overlap", "an overlap", OVERLAPS
    else:
        key, what, possible = "activation_error", "a relative error of the activations", ERRORS
    front = _front(results)
    best = min(front, key=lambda p: p["loss"])
    end = f"the best that was found is {number(best[key], 3)} with {best['cnots']:,} CNOTs"
    levels = [level for level in possible if _cnots(front, key, level) is not None][-QUOTED:]
    if not levels:
        return (f"No circuits that were tried reach {what} of {possible[0]:g}; {end}.",)
    takes = listed([f"{_cnots(front, key, level):,} for {level:g}" for level in levels])
    found = [f"CNOTs for {what}: {takes}; {end}."]
    walls = [p for p in results["points"] if p["family"] == BRICKWALL]
    if walls:
        counts = [_cnots(walls, key, level) for level in levels]
        each = ["more than were tried" if count is None else f"{count:,}" for count in counts]
        found.append(f"Brickwalls of free two-qubit gates take {listed(each)}.")
    return tuple(found)


def _cnots(points: Sequence[dict], key: str, level: float) -> int | None:
    """The fewest CNOTs of points as good as a level; None where there are none."""
    sign = 1 if key == "overlap" else -1
    return min((p["cnots"] for p in points if sign * p[key] >= sign * level), default=None)


def introduction(results: dict) -> tuple[str, str]:
    """Title, and a sentence about the matrix."""
    title = f"Fewest CNOTs for {results['name']}"
    return title, f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
