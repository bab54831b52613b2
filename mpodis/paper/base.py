"""What an experiment is made of, and what several of them share."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from mpodis.tables import Table

__all__ = ["Experiment", "Options", "Panel", "Piece", "spread"]


@dataclass(frozen=True)
class Options:
    """Options that all experiments have; each adds its own in a subclass.

    Attributes
    ----------
    data, data_dir : str
        See `load_data`.
    networks : str, optional
        Folder in which trained networks are kept and found again; default: in the run directory.
    seed, seeds : int
        The first seed, and how many consecutive ones there are.
    workers : int
        Processes, of one thread each.
    """

    data: str = "digits"
    data_dir: str | None = None
    networks: str | None = None
    seed: int = 0
    seeds: int = 10
    workers: int = 2

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("seeds", 1), ("workers", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)} must be {least} or more")

    @property
    def range(self) -> range:
        """The seeds."""
        return range(self.seed, self.seed + self.seeds)


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
class Experiment:
    """A question, the work that answers it, and how the answer is shown.

    Attributes
    ----------
    name, title : str
    options : type
        `Options` or a subclass.
    pieces : callable
        From the options to the pieces of work.
    tables, panels, finding
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
    options: type
    pieces: Callable[[Options], Sequence[Piece]]
    tables: Callable[[dict], list[Table]]
    finding: Callable[[dict], str]
    panels: tuple[Panel, ...] = ()
    trains: bool = True
    size: int | None = None


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median (least to most), for tables and paragraphs."""
    middle, least, most = (
        f"{x:.{digits}f}" for x in (statistics.median(values), min(values), max(values))
    )
    return middle if len(values) == 1 else f"{middle} ({least} to {most})"
