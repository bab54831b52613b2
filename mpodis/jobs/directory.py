"""A job's directory: its options, the results of the stages that are done, and the final record."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mpodis import __version__
from mpodis.files import locked, read_json, write_json
from mpodis.options import Config

__all__ = ["JobDirectory", "check_new", "interrupts_raise"]

FORMAT = "mpodis-job-2"
EARLIER = "mpodis-run-1"
"""Format of version 0.1.0, whose options have other names."""


class JobDirectory:
    """Where a job writes; stages that are done are not done again.

    ::

        config.json     job, options, version
        stages/         one JSON file for every stage that is done
        results.json    everything the report shows; written when the job has ended
        report.html     the page
        lock            held by the process that does the job
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike, job: str, options: Config) -> JobDirectory:
        """A new directory for the job of a title; a ValueError if there is something in it."""
        path = Path(path)
        check_new(path)
        (path / "stages").mkdir(parents=True, exist_ok=True)
        record = {"format": FORMAT, "version": __version__, "job": job}
        write_json(path / "config.json", record | {"config": options.to_dict()})
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike) -> tuple[JobDirectory, str, dict]:
        """An existing directory, the title of its job and the options as they are stored.

        `mpodis.jobs.open_job` makes an object of the options.

        Raises
        ------
        FileNotFoundError
            If there is no config.json.
        ValueError
            If that is not one of a job, or of an earlier format.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no config.json")
        record = read_json(path / "config.json")
        found = record.get("format") if isinstance(record, dict) else None
        if found == EARLIER:
            raise ValueError(
                f"{path} was written by mpodis {record.get('version')}, whose options had other "
                "names; open it with that version, or run the job again"
            )
        if found != FORMAT:
            raise ValueError(f"{path} is not the directory of a job of this package")
        return cls(path), record["job"], record.get("config", {})

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes away while this one does the job, see `mpodis.files.locked`."""
        return locked(self.path)

    def reopen(self, options: Config) -> None:
        """Let a job of `disentangle` go on under other options: results and stages are dropped."""
        record = read_json(self.path / "config.json")
        write_json(self.path / "config.json", record | {"config": options.to_dict()})
        for file in (self.path / "results.json", *self.path.glob("stages/*.json")):
            file.unlink(missing_ok=True)

    def has_stage(self, name: str) -> bool:
        return self._stage_file(name).exists()

    def read_stage(self, name: str) -> dict:
        return read_json(self._stage_file(name))

    def _stage_file(self, name: str) -> Path:
        return self.path / "stages" / f"{name}.json"

    def stage(self, name: str, work: Callable[[], dict]) -> Any:
        """The result of a stage: read if it is on disk, else made by `work` and stored."""
        if self.has_stage(name):
            return self.read_stage(name)
        with interrupts_raise():
            value = work()
        write_json(self._stage_file(name), value)
        return json.loads(json.dumps(value))  # as a resumed job reads it

    def has_begun(self) -> bool:
        """Whether results are there that would be lost with the directory."""
        done = ("stages/*", "pieces/*.safetensors", "**/history.jsonl")
        return any(any(self.path.glob(pattern)) for pattern in done)

    def finish(self, results: dict) -> dict:
        """Store the results of the job, which has ended with this."""
        write_json(self.path / "results.json", results)
        return results

    @property
    def has_ended(self) -> bool:
        return (self.path / "results.json").is_file()

    def results(self) -> dict:
        """The results; a FileNotFoundError if the job has not ended."""
        if not self.has_ended:
            raise FileNotFoundError(
                f"the job in {self.path} has not ended; go on with `mpodis resume {self.path}`"
            )
        return read_json(self.path / "results.json")


def check_new(path: str | os.PathLike) -> None:
    """Raise a ValueError if there is something in the place of a new directory."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(
            f"{path} is not empty; choose another directory, or go on with `mpodis resume {path}`"
        )


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, which `disentangle` alone would answer with a result.

    The results of a job must not hold a search that was stopped; `mpodis resume` goes on with it.
    """
    before = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or before is not signal.default_int_handler:
        yield  # others handle Ctrl-C, or ignore it
        return
    signal.signal(signal.SIGINT, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise(number: int, frame: object) -> None:
    raise KeyboardInterrupt
