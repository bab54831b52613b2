"""Tables, figures and introduction of `mpodis pareto`."""

from __future__ import annotations

import html
from collections.abc import Sequence

from mpodis.jobs import Figure
from mpodis.plots import plot_pareto
from mpodis.tables import Table

__all__ = ["best_within", "figures", "introduction", "tables"]

STEPS = 8
"""Numbers of CNOTs at which the families are compared."""


def tables(results: dict) -> list[Table]:
    """The front, and the families beside it."""
    value = "overlap" if results["objective"] == "overlap" else "activation_error"
    front = sorted((p for p in results["points"] if not p["dominated"]), key=lambda p: p["cnots"])
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


def figures(results: dict) -> dict[str, Figure]:
    """The front, by the activations' error where that is the objective, and by the overlap."""
    values = {"overlap": "overlap f"}
    if results["objective"] == "activations":
        values = {"activation_error": "relative error of the activations"} | values
    return {
        name: Figure(
            lambda ax, name=name: plot_pareto(results["points"], value=name, ax=ax),
            f"{what.capitalize()} against CNOTs of both circuits; the line is the front, circuits "
            "that others dominate are faint.",
        )
        for name, what in values.items()
    }


def introduction(results: dict) -> tuple[str, str]:
    """Title, and a sentence about the matrix."""
    title = f"Fewest CNOTs for {results['name']}"
    return title, f"<p>{html.escape(results['note'])}. {html.escape(results['compression'])}</p>"
