"""What `disentangle` returns: the factorization, why the search ended, and its history."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.factorization import Factorization
from mpodis.options import SearchOptions
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ADVICE", "Disentangled", "History"]

SUMMARY_ROWS = 12
"""Rows of a history that is printed."""

ADVICE = {
    "exact": "the target is reproduced to rounding",
    "converged": "the loss has stopped falling; more gates or a larger max_bond may lower it",
    "truncated": "the truncated environments no longer improve the overlap; raise environment_bond",
    "max_sweeps": "still falling when max_sweeps was reached; raise it to go on",
    "max_seconds": "max_seconds was reached, and the loss may still fall; raise it to go on",
    "interrupted": "stopped by the user; resume(run_dir), or init=<this result>, goes on",
    "unfinished": "read from a run that has not ended; resume(run_dir) goes on",
}


@dataclass(frozen=True)
class History(Tabular):
    """One record per sweep, as dictionaries, as columns and as a table.

    It prints itself as a summary, a row for every initial guess of every stage; `to_csv` and
    `to_dataframe` have all records.

    A record holds: stage (of circuits that grow, else 0), depth and width (of its deepest circuit
    and its widest gate), init (number of the initial guess), sweep (of this guess and stage), phase
    ("init", "sweep" or "lbfgs", ten iterations a record), loss, overlap, bound, s_avg (of
    Q_L^H M Q_R^H, nats), activations (relative error, NaN without a covariance), true_overlap (NaN
    in sweeps of a truncating engine between two checks), environment_bond (of such an engine, else
    NaN), seconds. What a size does not allow (bound and s_avg of more than 8 qubits) is NaN.

    A record of `compile_unitary` and `compile_state` holds: start (the initial guess), sites and
    depth (of the part that is searched), phase, loss, best (the least loss of this part so far),
    seconds.
    """

    records: tuple[dict, ...]

    def __len__(self) -> int:
        return len(self.records)

    def table(self) -> Table:
        """A row for every record."""
        columns = tuple(self.records[0]) if self.records else ()
        return Table(columns, [tuple(record.values()) for record in self.records])

    def summary(self) -> Table:
        """A row for every initial guess of every stage: where it ended; the latest twelve."""
        last: dict[tuple, dict] = {}
        counts: dict[tuple, int] = {}
        for record in self.records:
            parts = ("stage", "init", "start", "sites", "depth")  # of a compiled circuit the latter
            key = tuple(record.get(part) for part in parts)
            last[key] = record
            counts[key] = counts.get(key, 0) + 1
        names = ("loss", "overlap", "bound", "s_avg", "activations")
        shown = [
            name for name in names if any(name in r and r[name] == r[name] for r in last.values())
        ]
        rows = [
            (str(record["depth"]), _guess_of(record), counts[key], *(record[n] for n in shown))
            for key, record in last.items()
        ]
        title = f"history, {len(self)} records"
        left_out = len(rows) - SUMMARY_ROWS
        notes = (f"{left_out} earlier rows are left out",) if left_out > 0 else ()
        head = ("depth", "initial guess", "records", *shown)
        return Table(head, rows[-SUMMARY_ROWS:], title=title, notes=notes)

    def __str__(self) -> str:
        return str(self.summary())

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    def column(self, name: str, *, init: int | None = None) -> np.ndarray:
        """Values of a column, of all initial guesses or of one."""
        if self.records and name not in self.records[0]:
            raise KeyError(f"no column {name!r}; there are {', '.join(self.records[0])}")
        return np.array([r[name] for r in self.records if init is None or r["init"] == init])


def _guess_of(record: dict) -> object:
    """The initial guess of a record: its number from 1 on, or its name."""
    return record["init"] + 1 if "init" in record else record["start"]


@dataclass(frozen=True, eq=False)
class Disentangled(Tabular):
    """Result of `disentangle`.

    Attributes
    ----------
    factorization : Factorization
    status : str
        Why the search ended: "exact", "converged", "truncated", "max_sweeps", "max_seconds",
        "interrupted" (by Ctrl-C) or "unfinished" (as `load_run` found it).
    history : History
    options : SearchOptions
    init : int
        Number of the initial guess that won.
    loss : float
        The final value of the objective: 1 - f, or the squared relative error of the activations
        (weighted by the sensitivity where one was given).
    overlap, bound : float
        f of the target with Q_L M' Q_R, and the von Neumann bound for this core (NaN above 11
        qubits).
    overlap_error : float
        How far the overlap may be off: 0 where it was computed exactly, else the difference
        between two truncations, see `true_overlap`.
    relative_error : float
        |M - Q_L M' Q_R| / |M|; NaN above 11 qubits where the matrix was padded.
    activation_error : float
        |X M - X Q_L M' Q_R| / |X M|; NaN without inputs.
    entropies_before, entropies_after : arrays
        S_k of M and of Q_L^H M Q_R^H, what the circuits leave (nats); the latter from a
        truncated MPO above 11 qubits. They and the bound are NaN where `max_seconds` was too short.
    seconds : float
        Wall time of the search, that of interrupted calls included.
    winners : tuple of int
        Number of the initial guess that won each stage.
    remarks : tuple of str
        What does not work and what to do about it, in sentences: circuits that raise S_avg, a
        result that is worse than a zero matrix, or than another form with as few parameters.
    """

    factorization: Factorization
    status: str
    history: History
    options: SearchOptions
    init: int
    loss: float
    overlap: float
    overlap_error: float
    bound: float
    relative_error: float
    activation_error: float
    entropies_before: np.ndarray
    entropies_after: np.ndarray
    seconds: float
    winners: tuple[int, ...] = ()
    remarks: tuple[str, ...] = ()

    def path(self, name: str) -> np.ndarray:
        """A column of the history along what was kept, stage after stage."""
        if self.history.records and name not in self.history.records[0]:
            return self.history.column(name)  # which says what there is
        kept = self.winners or (self.init,)
        return np.array([r[name] for r in self.history.records if r["init"] == kept[r["stage"]]])

    def by_depth(self) -> dict[int, dict]:
        """The record of least loss for every depth that circuits had while they grew, ascending.

        Stages whose gates were wider than those of the result do not count.
        """
        kept = self.winners or (self.init,)
        sides = (self.factorization.left, self.factorization.right)
        width = max((p.width for side in sides for p in side.ansatz.placements), default=0)
        found: dict[int, dict] = {}
        for record in self.history.records:
            if record["init"] != kept[record["stage"]] or record["width"] > width:
                continue
            best = found.setdefault(record["depth"], record)
            if record["loss"] < best["loss"]:
                found[record["depth"]] = record
        return dict(sorted(found.items()))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw what the search minimised, sweep by sweep: the overlap beside its bound, or the
        error of the activations; see `mpodis.plots.plot_history`.

        Entropies before and after are drawn by `mpodis.plots.plot_entropies`.
        """
        from mpodis.plots import plot_history

        column = "activations" if self.options.objective == "activations" else "overlap"
        return plot_history(self, column=column, ax=ax)

    @property
    def converged(self) -> bool:
        return self.status in ("exact", "converged")

    def _searched(self) -> tuple[str, object]:
        """The stages of circuits that have grown, else which initial guess is the best."""
        if len(self.winners) > 1:
            return "stages", len(self.winners)
        return "initial guess", f"{self.init + 1} of {1 + max(self.history.column('init'))}"

    def table(self) -> Table:
        parts = self.factorization.parameter_counts()
        rows: list[Sequence[object]] = [
            ("objective", self.options.objective),
            ("engine", self.options.engine),
            ("overlap f", self.overlap),
            *([("overlap f, error", self.overlap_error)] if self.overlap_error else []),
            ("von Neumann bound", self.bound),
            ("relative error of the operator", self.relative_error),
            ("relative error of the activations", self.activation_error),
            ("S_avg before (nats)", _mean(self.entropies_before)),
            ("S_avg after (nats)", _mean(self.entropies_after)),
            *((f"parameters, {part}", count) for part, count in parts.items()),
            self._searched(),
            ("sweeps", sum(self.path("phase") != "init")),
            ("seconds", self.seconds),
            ("status", self.status),
        ]
        return Table(("disentangled", ""), rows, notes=(ADVICE[self.status], *self.remarks))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else (0.0 if values.ndim else math.nan)
