"""Experiments that consist of pieces of work and records by their names, not of studies yet."""

from __future__ import annotations

import html
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import joblib
import torch
from matplotlib.axes import Axes

from mpodis.advice import without_remarks
from mpodis.data import load_data
from mpodis.environments.arrays import single_threaded
from mpodis.jobs import Figure
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.records import too_few
from mpodis.options import ReproduceConfig as Options
from mpodis.paper.networks import train
from mpodis.paper.running import PLACES, command_line, described, versions
from mpodis.progress import bar
from mpodis.tables import Table

__all__ = ["Experiment", "Options", "Panel", "Piece", "command_line", "run_experiment"]

log = logging.getLogger(__name__)

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
        from mpodis.paper.by_pieces import run_experiment  # takes torch, which showing does not

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


def run_experiment(
    experiment: Experiment, options: Options, directory: JobDirectory, *, progbar: bool = False
) -> dict:
    """Do the pieces that are not done yet; returns (and stores) the record.

    The record holds the command, data, seeds, versions, options and, under "pieces", every
    result by name. Pieces are functions of their arguments alone, so neither the number of
    workers nor an interruption changes the result.
    """
    if options.networks is None:
        options = replace(options, networks=str((directory.path / "networks").resolve()))
    trained = {}
    if experiment.trains:
        trained = _work(training_pieces(options), "training", options, directory, progbar)
    pieces = experiment.pieces(options)
    done = _work(pieces, experiment.name, options, directory, progbar)
    record = {
        "job": "reproduce",
        "experiment": experiment.name,
        "title": experiment.title,
        "command": command_line(experiment.name, options),
        "data": described(experiment, options),
        "seeds": list(options.range),
        "options": {k: v for k, v in options.to_dict().items() if k not in PLACES},
        "versions": versions(),
        "seconds": sum(stage["seconds"] for stage in (*trained.values(), *done.values())),
        "pieces": {name: stage["result"] for name, stage in done.items()},
    }
    record["finding"] = experiment.finding(record)
    return directory.finish(record)


def training_pieces(options: Options) -> list[Piece]:
    """One piece a seed, which trains its network unless the folder has it."""
    same = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    return [Piece(f"network-{seed}", train, {"seed": seed, **same}) for seed in options.range]


def _work(
    pieces: Sequence[Piece], what: str, options: Options, directory: JobDirectory, progbar: bool
) -> dict[str, dict]:
    """Results of all pieces by name, in their order, from disk where they are there."""
    names = [piece.name for piece in pieces]
    if len(set(names)) < len(names):
        raise ValueError(f"two pieces of {what} have one name among {', '.join(names)}")
    done = {name: directory.read_stage(name) for name in names if directory.has_stage(name)}
    left = [piece for piece in pieces if piece.name not in done]
    with bar(total=len(pieces), desc=what, enabled=progbar) as shown:
        shown.update(len(done))
        for name, stage in _results(left, options, directory):
            done[name] = stage
            shown.update(last=name)
            log.info("%s: %s in %.1f s", what, name, stage["seconds"])
    return {name: done[name] for name in names}


def _results(
    pieces: Sequence[Piece], options: Options, directory: JobDirectory
) -> Iterator[tuple[str, dict]]:
    """Names and results as they come, from processes, or from threads that share a device."""
    if options.workers == 1:
        for piece in pieces:
            yield _stored(directory, piece.name, piece.work, piece.arguments)
        return
    shared = getattr(options, "device", "cpu") != "cpu"
    one_thread = {} if shared else {"inner_max_num_threads": 1}
    backend = "threading" if shared else "loky"
    # threads share these settings: what one of them restores would be changed under the others
    around = _one_thread() if shared else nullcontext()
    with around, joblib.parallel_config(backend, n_jobs=options.workers, **one_thread):
        calls = (joblib.delayed(_stored)(directory, p.name, p.work, p.arguments) for p in pieces)
        # one at a time is handed out, so that an interruption loses no more than it must
        one_by_one: dict[str, Any] = {"pre_dispatch": "n_jobs", "batch_size": 1}
        results: Any = joblib.Parallel(return_as="generator_unordered", **one_by_one)(calls)
        yield from results


def _stored(
    directory: JobDirectory, name: str, work: Callable[..., dict], arguments: dict
) -> tuple[str, dict]:
    """Do a piece and store it where it was done: one that fails beside it takes nothing along."""

    def timed() -> dict:
        began = time.perf_counter()
        with _one_thread(), without_remarks():
            result = work(**arguments)
        return {"seconds": time.perf_counter() - began, "result": result}

    return name, directory.stage(name, timed)


@contextmanager
def _one_thread():
    """More threads round differently, so that a seed would not say everything."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with single_threaded(True):
            yield
    finally:
        torch.set_num_threads(before)
