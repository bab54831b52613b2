"""Running an experiment: its pieces in processes, each stored when done, and the record of all."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace

import joblib
import torch

from mpodis import __version__
from mpodis.advice import without_remarks
from mpodis.environments.arrays import single_threaded
from mpodis.jobs.directory import JobDirectory
from mpodis.paper.base import Experiment, Options, Piece
from mpodis.paper.networks import dataset, training_pieces
from mpodis.progress import bar
from mpodis.workers import parallel

__all__ = ["command_line", "run_experiment"]

log = logging.getLogger(__name__)

LIBRARIES = ("numpy", "scipy", "quimb", "cotengra", "torch", "qiskit")
PLACES = {"data_dir": "DIR", "networks": None}
"""Options that say where something lies: no part of a record."""


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
        "data": _described(experiment, options),
        "seeds": list(options.range),
        "options": {k: v for k, v in options.to_dict().items() if k not in PLACES},
        "versions": versions(),
        "seconds": sum(stage["seconds"] for stage in (*trained.values(), *done.values())),
        "pieces": {name: stage["result"] for name, stage in done.items()},
    }
    record["finding"] = experiment.finding(record)
    return directory.finish(record)


def versions() -> dict[str, str]:
    """Of what computed."""
    found = {"mpodis": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):  # not all are needed everywhere
            found[name] = importlib.metadata.version(name)
    return found


def command_line(name: str, options: Options) -> str:
    """What to type to repeat this; places are left to the reader."""
    words, given = ["mpodis", "reproduce", name], options.to_dict()
    common, default = Options().to_dict(), type(options)().to_dict()
    for key, value in given.items():
        if key in PLACES or value == default[key]:
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text.lower() if value is None or isinstance(value, bool) else text
        if key in common:
            words += [f"--{key.replace('_', '-')}", text]
        else:
            words += ["--set", f"{key}={text}"]
    if options.data_dir is not None:
        words += ["--data-dir", PLACES["data_dir"]]
    return shlex.join(words)


def _described(experiment: Experiment, options: Options) -> dict | None:
    if not experiment.trains and experiment.size is None:
        return None
    data = dataset(options.data, options.data_dir, size=experiment.size or 8)
    return {"name": data.name, "note": data.note}


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
    # threads share these settings: what one of them restores would be changed under the others
    around = _one_thread() if shared else nullcontext()
    with around, parallel(options.workers, share_memory=shared) as run:
        yield from run(
            joblib.delayed(_stored)(directory, p.name, p.work, p.arguments) for p in pieces
        )


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
