"""Jobs of the command line: `mpodis run`, `disentangle`, `pareto` and `reproduce NAME`.

A job is what `Job` says: options, a check of the input, the work, and how its results are shown.
Each of `mpodis.jobs` consists of two modules, one for the work and one for its page. A new job is
two such modules, a dataclass of options in `mpodis.options` and a line in `JOBS`; its command and
its flags follow from that. An experiment of `mpodis.paper` is a job of its own.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mpodis.options import Config, DisentangleConfig, ParetoConfig, RunConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mpodis.jobs.directory import JobDirectory
    from mpodis.tables import Table

__all__ = ["JOBS", "REPRODUCE", "Figure", "Job", "ModuleJob", "load_job", "open_job"]


@dataclass(frozen=True)
class Figure:
    """A figure of a report.

    Attributes
    ----------
    draw : callable
        Draws it on an Axes.
    caption : str
    size : (float, float)
        Width and height in inches. Figures that are wider than the default have the whole width
        of the page.
    """

    draw: Callable[[Axes], object]
    caption: str
    size: tuple[float, float] = (5.2, 3.4)


class Job(Protocol):
    """What the command line and the report ask of a job.

    Attributes
    ----------
    options : type
        Dataclass of its options.
    """

    @property
    def options(self) -> type[Config]: ...

    def prepare(self, options: Any) -> Any:
        """Read and check the input before anything is written; gives what `run` needs of it."""

    def run(self, options: Any, prepared: Any, directory: JobDirectory, *, progbar: bool) -> dict:
        """Do what is left of the work, store the results in the directory and return them."""
        ...

    def tables(self, results: dict) -> list[Table]:
        """The results as tables."""
        ...

    def figures(self, results: dict, folder: Path) -> dict[str, Figure]:
        """The results, and the circuits in the job's directory, as figures by their file names."""
        ...

    def verdict(self, results: dict) -> tuple[str, ...]:
        """What was reached, in one sentence or two, and then the caveats."""
        ...

    def introduction(self, results: dict) -> tuple[str, str]:
        """Title of the page, and a text in HTML that stands below the verdict."""
        ...


@dataclass(frozen=True)
class ModuleJob:
    """A job made of functions of two modules, imported when they are needed.

    Attributes
    ----------
    options : type
    work : str
        Module with `prepare` and `run`.
    page : str
        Module with `tables`, `figures`, `verdict` and `introduction`.
    """

    options: type[Config]
    work: str
    page: str

    def prepare(self, options: Any) -> Any:
        return importlib.import_module(self.work).prepare(options)

    def run(self, options: Any, prepared: Any, directory: JobDirectory, *, progbar: bool) -> dict:
        module = importlib.import_module(self.work)
        return module.run(options, prepared, directory, progbar=progbar)

    def tables(self, results: dict) -> list[Table]:
        return importlib.import_module(self.page).tables(results)

    def figures(self, results: dict, folder: Path) -> dict[str, Figure]:
        return importlib.import_module(self.page).figures(results, folder)

    def verdict(self, results: dict) -> tuple[str, ...]:
        return importlib.import_module(self.page).verdict(results)

    def introduction(self, results: dict) -> tuple[str, str]:
        return importlib.import_module(self.page).introduction(results)


JOBS: dict[str, ModuleJob] = {
    "run": ModuleJob(RunConfig, "mpodis.jobs.run", "mpodis.jobs.run_page"),
    "disentangle": ModuleJob(
        DisentangleConfig, "mpodis.jobs.disentangle", "mpodis.jobs.disentangle_page"
    ),
    "pareto": ModuleJob(ParetoConfig, "mpodis.jobs.pareto", "mpodis.jobs.pareto_page"),
}
"""Jobs by the names of their commands."""

REPRODUCE = "reproduce "
"""Stands before the name of an experiment in the title of the job that reproduces it."""
EXPERIMENTS = "mpodis.paper"
"""Module of the experiments; it stands above this one, and is imported by name."""


def load_job(title: str) -> Job:
    """The job of a title: a name in `JOBS`, or "reproduce NAME".

    Raises
    ------
    ValueError
        If there is no such job.
    """
    if title.startswith(REPRODUCE):
        return importlib.import_module(EXPERIMENTS).load_experiment(title.removeprefix(REPRODUCE))
    if title not in JOBS:
        raise ValueError(f"job {title!r} is not known; use one of {', '.join(JOBS)}")
    return JOBS[title]


def open_job(path: str | os.PathLike) -> tuple[JobDirectory, str, Config]:
    """An existing directory, the title of its job and the job's options.

    Raises
    ------
    FileNotFoundError, ValueError
        See `JobDirectory.open`.
    """
    from mpodis.jobs.directory import JobDirectory  # takes numpy, which `mpodis --help` does not

    directory, title, stored = JobDirectory.open(path)
    return directory, title, load_job(title).options.from_dict(stored)
