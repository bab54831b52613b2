"""A job's directory: its config, the results of the stages that are done, and the final record."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from mpodis import __version__
from mpodis.files import read_json, write_json
from mpodis.options import LayerConfig, MainConfig, ParetoConfig, from_mapping, to_mapping

__all__ = ["REPRODUCE", "JobDirectory"]

FORMAT = "mpodis-run-1"
JOBS = {"run": MainConfig, "disentangle": LayerConfig, "pareto": ParetoConfig}
EXPERIMENTS = "mpodis.paper"
"""Module that knows the options of experiments; it stands above this one, and is asked by name."""
REPRODUCE = "reproduce "
"""Before the name of an experiment: the job that reproduces it."""


def _config_class(job) -> type | None:
    """Of the options of a job; None where there is no such job."""
    name = str(job).removeprefix(REPRODUCE)
    if name != job:
        experiments = importlib.import_module(EXPERIMENTS)
        if name in experiments.EXPERIMENTS:
            return experiments.load_experiment(name).options
    return JOBS.get(job)


class JobDirectory:
    """Where a job writes; stages that are done are not done again.

    config.json     job, resolved options, version
    stages/         one JSON per finished stage
    results.json    everything the report shows; written when the job has ended
    report.html     the page
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike, job: str, config) -> JobDirectory:
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(
                f"{path} is not empty; choose another directory, or go on with `mpodis resume`"
            )
        path.mkdir(parents=True, exist_ok=True)
        (path / "stages").mkdir(exist_ok=True)
        record = {"format": FORMAT, "version": __version__, "job": job}
        write_json(path / "config.json", record | {"config": to_mapping(config)})
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike) -> tuple[JobDirectory, str, object]:
        """An existing directory, its job and its config."""
        path = Path(path)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is no run directory: it has no config.json")
        record = read_json(path / "config.json")
        known = isinstance(record, dict) and record.get("format") == FORMAT
        kind = _config_class(record.get("job")) if known else None
        if kind is None:
            raise ValueError(f"{path} is not the directory of a job of this package")
        return cls(path), record["job"], from_mapping(kind, record["config"])

    def has_stage(self, name: str) -> bool:
        return self._stage_file(name).exists()

    def read_stage(self, name: str) -> dict:
        return read_json(self._stage_file(name))

    def _stage_file(self, name: str) -> Path:
        return self.path / "stages" / f"{name}.json"

    def stage(self, name: str, work: Callable[[], dict]) -> dict:
        """The result of a stage, worked out unless it is on disk."""
        if self.has_stage(name):
            return self.read_stage(name)
        value = work()
        write_json(self._stage_file(name), value)
        return json.loads(json.dumps(value))  # as a resumed job will see it

    def begun(self) -> bool:
        """Whether anything was worked out that would be lost with the directory."""
        done = ("stages/*", "pieces/*.safetensors")
        return any(any(self.path.glob(files)) for files in done) or any(
            self.path.rglob("history.jsonl")
        )

    def finish(self, results: dict) -> dict:
        write_json(self.path / "results.json", results)
        return results

    def results(self) -> dict:
        if not (self.path / "results.json").is_file():
            raise FileNotFoundError(
                f"the job in {self.path} has not ended; go on with `mpodis resume {self.path}`"
            )
        return read_json(self.path / "results.json")
