"""What an experiment is made of: a study, and the tables and figures of its rows."""

from __future__ import annotations

import html
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pandas as pd
from matplotlib.axes import Axes

from mpodis.data import load_data
from mpodis.jobs import Figure
from mpodis.jobs.records import too_few
from mpodis.options import ReproduceConfig as Options
from mpodis.study import Study
from mpodis.tables import Table

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory

__all__ = [
    "FOLDERS",
    "ROW",
    "Experiment",
    "Options",
    "Panel",
    "draw_points",
    "finite",
    "how_many",
    "on_networks",
    "search_of",
]

T = TypeVar("T", bound=Options)

FOLDERS = ("data_dir", "networks")
"""Options that name folders: no part of a key or a record."""
ROW = "row"
"""Axis of the records of functions that return several rows."""


@dataclass(frozen=True)
class Panel:
    """One Axes of the experiment's figure."""

    name: str
    caption: str
    draw: Callable[[pd.DataFrame, Axes], object]


@dataclass(frozen=True)
class Experiment(Generic[T]):
    """A question, the study that answers it, and how the answer is shown: a `Job`.

    Attributes
    ----------
    name, title : str
    options : type
        `Options` or a subclass.
    study : callable
        From the options to the study. Its function returns a flat dict, or ``{ROW: rows}`` with a
        list of them where one computation gives several.
    tabulate, panels
        Tables and the panels of the figure, from a DataFrame with a row for each row of the
        records: the settings that are varied, the seed, and what the function returned.
    trains : bool
        Compact TNNs of all seeds are trained first, see `network`.
    size : int, optional
        Side of the images of MNIST where an experiment trains networks of its own on the data
        of the options.
    """

    name: str
    title: str
    options: type[T]
    study: Callable[[T], Study]
    tabulate: Callable[[pd.DataFrame], list[Table]]
    panels: tuple[Panel, ...] = ()
    trains: bool = True
    size: int | None = None

    def prepare(self, options: T) -> None:
        """Find what is wrong with the options or the data before anything is written."""
        self.study(options)
        if self.trains:
            load_data(options.data, data_dir=options.data_dir)

    def run(self, options: T, prepared: None, directory: JobDirectory, *, progbar: bool) -> dict:
        """See `run_experiment`."""
        from mpodis.paper.running import run_experiment  # takes torch, which showing does not

        return run_experiment(self, options, directory, progbar=progbar)

    def tables(self, results: dict) -> list[Table]:
        """The tables of a record."""
        return self.tabulate(pd.DataFrame(results["rows"]))

    def figures(self, results: dict, folder: Path) -> dict[str, Figure]:
        """The panels, each by itself."""
        frame = pd.DataFrame(results["rows"])
        return {p.name: Figure(partial(p.draw, frame), p.caption) for p in self.panels}

    def verdict(self, results: dict) -> tuple[str, ...]:
        """How much was computed, and whether it is too little to conclude from."""
        seeds, rows = len(results["seeds"]), len(results["rows"])
        done = f"{rows:,} results of {seeds} seed{'s' if seeds > 1 else ''}."
        return (done, *too_few(seeds, "seed", "--seeds"))

    def introduction(self, results: dict) -> tuple[str, str]:
        """Title, and the command that repeats it."""
        data = results["data"]["note"] if results["data"] else "none"
        seeds = results["seeds"]
        lines = (
            f"Command: {results['command']}",
            f"Data: {data}; seeds {seeds[0]} to {seeds[-1]}."
            if len(seeds) > 1
            else f"Data: {data}; seed {seeds[0]}.",
        )
        return results["title"], "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def on_networks(function: Callable[..., Any], options: Options, **of_study: Any) -> Study:
    """A study over the seeds of the options.

    Options that the function takes by name are settings, but for those that the cases or the grid
    vary; the rest is that of `Study`.
    """
    takes = inspect.signature(function).parameters
    given = {f.name: getattr(options, f.name) for f in fields(options) if f.name in takes}
    of_run = ("seed", "seeds", "n_jobs")
    varied = (*of_run, *of_study.get("grid", ()), *next(iter(of_study.get("cases", ())), ()))
    settings = {name: value for name, value in given.items() if name not in varied}
    settings |= of_study.pop("settings", {})
    return Study(
        function, settings=settings, seeds=list(options.range), neutral=FOLDERS, **of_study
    )


def search_of(options: Options) -> dict[str, Any]:
    """How hard to search, by the names of `disentangle`."""
    names = {"starts": "n_init", "explore": "init_sweeps", "max_sweeps": "max_sweeps", "tol": "tol"}
    return {name: getattr(options, own) for own, name in names.items() if hasattr(options, own)}


def how_many(true: pd.Series) -> str:
    """How many of the values are true, for tables."""
    return f"{true.sum()} of {len(true)}"


def finite(counts: pd.Series) -> str:
    """How many of the numbers are finite, for tables."""
    return how_many(counts < math.inf)


def draw_points(ax: Axes, frame: pd.DataFrame, value: str, name: str) -> None:
    """A row of points for every name, from the top in order of appearance."""
    groups = frame.groupby(name, sort=False)[value]
    for k, (_, values) in enumerate(groups):
        ax.plot(values, [k] * len(values), "o", color=f"C{k % 10}", alpha=0.6)
    ax.set_yticks(range(groups.ngroups), frame[name].unique().tolist(), fontsize="small")
    ax.invert_yaxis()
