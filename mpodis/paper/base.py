"""What an experiment is made of, and what several of them share."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from matplotlib.axes import Axes

from mpodis.data import load_data
from mpodis.jobs import Figure
from mpodis.jobs.records import too_few
from mpodis.options import ReproduceConfig as Options
from mpodis.tables import Table

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory

__all__ = ["Experiment", "Options", "Panel", "Piece"]

T = TypeVar("T", bound=Options)


@dataclass(frozen=True)
class Piece:
    """A piece of work that needs no other: ``work(**arguments)``, which gives a dict for JSON.

    `work` is a function of a module, since it may run in another process. `name` is that of a
    file, and the key of the result in the record.
    """

    name: str
    work: Callable[..., dict]
    arguments: dict


@dataclass(frozen=True)
class Panel:
    """One Axes of the experiment's figure."""

    name: str
    caption: str
    draw: Callable[[dict, Axes], Axes]


@dataclass(frozen=True)
class Experiment(Generic[T]):
    """A question, the work that answers it, and how the answer is shown: a `Job`.

    Attributes
    ----------
    name, title : str
    options : type
        `Options` or a subclass.
    pieces : callable
        From the options to the pieces of work.
    tables, finding, panels
        From the record, see `run_experiment`: tables, the figure's panels, and a paragraph that
        says what was found, every number in it taken from the record.
    trains : bool
        Compact TNNs of all seeds are trained first, see `network`.
    size : int, optional
        Side of the images of MNIST where an experiment trains networks of its own on the data
        of the options.
    """

    name: str
    title: str
    options: type[T]
    pieces: Callable[[T], Sequence[Piece]]
    tables: Callable[[dict], list[Table]]
    finding: Callable[[dict], str]
    panels: tuple[Panel, ...] = ()
    trains: bool = True
    size: int | None = None

    def prepare(self, options: T) -> None:
        """Read the data of the networks, to find what is wrong before anything is written."""
        if self.trains:
            load_data(options.data, data_dir=options.data_dir)

    def run(self, options: T, prepared: None, directory: JobDirectory, *, progbar: bool) -> dict:
        """See `run_experiment`."""
        from mpodis.paper.running import run_experiment  # takes torch, which showing does not

        return run_experiment(self, options, directory, progbar=progbar)

    def figures(self, results: dict, folder: Path) -> dict[str, Figure]:
        """The panels, each by itself."""
        return {p.name: Figure(partial(p.draw, results), p.caption) for p in self.panels}

    def verdict(self, results: dict) -> tuple[str, ...]:
        """The finding, and whether it stands on too few seeds."""
        return (results["finding"], *too_few(len(results["seeds"]), "seed", "--seeds"))

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
