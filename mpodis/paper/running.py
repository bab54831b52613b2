"""Running an experiment: its networks, its study, and the record of all rows."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import shlex
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import joblib

from mpodis import __version__
from mpodis.paper.base import FOLDERS, ROW, Experiment, Options, on_networks
from mpodis.paper.networks import dataset, train
from mpodis.study import Study

if TYPE_CHECKING:
    from mpodis.jobs.directory import JobDirectory

__all__ = ["command_line", "described", "run_experiment", "versions"]

LIBRARIES = ("numpy", "scipy", "quimb", "cotengra", "torch", "qiskit")
COSTS = ("seconds", "cpu_seconds")
"""Of a case, which may have several rows."""


def run_experiment(
    experiment: Experiment, options: Options, directory: JobDirectory, *, progbar: bool = False
) -> dict:
    """Compute the cases that are not done yet; returns (and stores) the record.

    The record holds the command, data, seeds, versions, options and, under "rows", every result
    with its settings and its seed. Cases are functions of their settings alone, so neither the
    number of processes nor an interruption changes the result.

    Raises
    ------
    ValueError
        If a case has failed; the others are computed and stored.
    """
    if options.networks is None:
        options = replace(options, networks=str((directory.path / "networks").resolve()))
    seconds = 0.0
    if experiment.trains:
        seconds += _computed(on_networks(train, options), options, directory, progbar)
    study = experiment.study(options)
    seconds += _computed(study, options, directory, progbar)
    several = any(ROW in found.dims for r in study.records() for found in r.arrays.values())
    frame = study.to_dataframe(along=ROW if several else None).drop(columns=list(COSTS))
    return directory.finish(
        {
            "job": "reproduce",
            "experiment": experiment.name,
            "title": experiment.title,
            "command": command_line(experiment.name, options),
            "data": described(experiment, options),
            "seeds": list(options.range),
            "options": {k: v for k, v in options.to_dict().items() if k not in FOLDERS},
            "versions": versions(),
            "seconds": seconds,
            "rows": [_present(row) for row in frame.astype(object).to_dict("records")],
        }
    )


def _computed(study: Study, options: Options, directory: JobDirectory, progbar: bool) -> float:
    """Run a study in its folder of the run directory; the seconds of all cases together."""
    folder = directory.path / study.name
    n_jobs = min(options.n_jobs, joblib.cpu_count())
    if getattr(options, "device", "cpu") != "cpu":
        n_jobs = 1  # one process has the device
    study.run(folder, n_jobs=n_jobs, retry=True, progbar=progbar)
    failures = study.failures().rows
    if failures:
        settings, seed, error, file = failures[0]
        raise ValueError(
            f"{len(failures)} of {len(study.cases)} cases failed, the first of them ({settings}, "
            f"seed {seed}) with: {error}; its traceback is in {folder / str(file)}"
        )
    return sum(record.seconds for record in study.records())


def _present(row: dict[Any, Any]) -> dict[Any, Any]:
    """A row without what it does not have."""
    missing = (v is None or (isinstance(v, float) and math.isnan(v)) for v in row.values())
    return {k: v for (k, v), gone in zip(row.items(), missing, strict=True) if not gone}


def versions() -> dict[str, str]:
    """Of what computed."""
    found = {"mpodis": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):  # not all are needed everywhere
            found[name] = importlib.metadata.version(name)
    return found


def command_line(name: str, options: Options) -> str:
    """What to type to repeat this; folders are left to the reader."""
    words, given = ["mpodis", "reproduce", name], options.to_dict()
    common, default = Options().to_dict(), type(options)().to_dict()
    for key, value in given.items():
        if key in FOLDERS or value == default[key]:
            continue
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        text = text.lower() if value is None or isinstance(value, bool) else text
        if key in common:
            words += [f"--{key.replace('_', '-')}", text]
        else:
            words += ["--set", f"{key}={text}"]
    if options.data_dir is not None:
        words += ["--data-dir", "DIR"]
    return shlex.join(words)


def described(experiment: Any, options: Options) -> dict | None:
    """Name and note of the data, None where there are none."""
    if not experiment.trains and experiment.size is None:
        return None
    data = dataset(options.data, options.data_dir, size=experiment.size or 8)
    return {"name": data.name, "note": data.note}
