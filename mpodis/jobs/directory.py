"""A job's directory: its options, the results of the stages that are done, and the final record."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpodis import __version__
from mpodis.files import array_metadata, check_format, locked, read_json, write_json
from mpodis.options import Config

if TYPE_CHECKING:
    from mpodis.factorization import Factorization

__all__ = ["JobDirectory", "check_new", "interrupts_raise"]

FORMAT = "mpodis-job-3"
READ = "mpodis-job-2"
"""Format of version 0.2.0: results are read, but what has not ended cannot be continued."""
EARLIER = "mpodis-run-1"
"""Format of version 0.1.0, whose options have other names."""
LIMITS = ("max_sweeps", "max_seconds")
"""Options that `reopen` may change."""


class JobDirectory:
    """Where a job writes; stages that are done are not done again.

    ::

        config.json     job, options, version
        stages/         one JSON file for every stage that is done, with the job and its options
        NAME/           of an experiment: its study, and that which trains its networks
        results.json    everything the report shows, and whose it is; written when the job has ended
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
        path.mkdir(parents=True, exist_ok=True)
        with locked(path):
            check_new(path)  # another process may have begun there since
            (path / "stages").mkdir(exist_ok=True)
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
            If that is not one of a job, is damaged, or of the format of another version.
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
        if found != READ or not cls(path).has_ended:
            check_format(path, found, FORMAT, what="the directory of a job of this package")
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

    def _run(self) -> dict[str, Any]:
        """What says of which run a file is: its job and options."""
        record = read_json(self.path / "config.json")
        return {"format": record["format"], "job": record["job"], "options": record["config"]}

    @property
    def identity(self) -> str:
        """Hash of the job and its options, without those that may change when it goes on."""
        run = self._run()
        run["options"] = {k: x for k, x in run["options"].items() if k not in LIMITS}
        return hashlib.sha256(json.dumps(run, sort_keys=True).encode()).hexdigest()

    def has_stage(self, name: str) -> bool:
        return self._stage_file(name).exists()

    def read_stage(self, name: str) -> dict:
        """The result of a stage that is done.

        Raises
        ------
        FileNotFoundError, ValueError
            If it is not done, or its file is damaged or belongs to another run; the error names
            what differs.
        """
        file, here = self._stage_file(name), self._run()
        stored = read_json(file)
        there = stored.get("run", {}) if isinstance(stored, dict) else {}
        a, b = (x | x.get("options", {}) for x in (there, here))
        differ = sorted(k for k in a.keys() | b.keys() if k != "options" and a.get(k) != b.get(k))
        if differ:
            raise ValueError(
                f"{file} belongs to another run than {self.path / 'config.json'} (its "
                f"{', '.join(differ)} {'differs' if len(differ) == 1 else 'differ'}); delete it, "
                "and it is done again"
            )
        return stored["value"]

    def save_factorization(self, file: Path, found: Factorization) -> None:
        """Write a factorization with the identity of this run."""
        found.save(file, metadata={"run": self.identity})

    def load_factorization(self, file: Path) -> Factorization:
        """Read a factorization of this run; a ValueError if it is damaged or of another run."""
        from mpodis.factorization import load_factorization  # takes quimb

        found = load_factorization(file)
        if array_metadata(file).get("run", self.identity) != self.identity:
            raise self._of_another_run(file)
        return found

    def _stage_file(self, name: str) -> Path:
        return self.path / "stages" / f"{name}.json"

    def stage(self, name: str, work: Callable[[], dict]) -> Any:
        """The result of a stage: read if it is on disk, else made by `work` and stored."""
        if self.has_stage(name):
            return self.read_stage(name)
        with interrupts_raise():
            value = work()
        write_json(self._stage_file(name), {"run": self._run(), "value": value})
        return json.loads(json.dumps(value))  # as a resumed job reads it

    def has_begun(self) -> bool:
        """Whether results are there that would be lost with the directory."""
        done = ("stages/*", "*/cases/*.json", "pieces/*.safetensors", "**/history.jsonl")
        return any(any(self.path.glob(pattern)) for pattern in done)

    def finish(self, results: dict) -> dict:
        """Store the results of the job, which has ended with this, and of which run they are."""
        write_json(self.path / "results.json", results | {"run": self.identity})
        return results

    @property
    def has_ended(self) -> bool:
        return (self.path / "results.json").is_file()

    def results(self) -> dict:
        """What `finish` was given.

        Raises
        ------
        FileNotFoundError, ValueError
            If the job has not ended, or its results are damaged or belong to another run.
        """
        file = self.path / "results.json"
        if not self.has_ended:
            raise FileNotFoundError(
                f"the job in {self.path} has not ended; go on with `mpodis resume {self.path}`"
            )
        results = read_json(file)
        if results.pop("run", self.identity) != self.identity:  # earlier versions did not say
            raise self._of_another_run(file)
        return results

    def _of_another_run(self, file: Path) -> ValueError:
        return ValueError(
            f"{file} belongs to another run than {self.path / 'config.json'}; delete it, and "
            f"make it again with `mpodis resume {self.path}`"
        )


def check_new(path: str | os.PathLike) -> None:
    """Raise a ValueError if there is something in the place of a new directory.

    Files of a process that was killed before it wrote config.json do not count.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"{path} is a file; choose another directory")
    if path.exists() and not all(map(_is_left_over, path.iterdir())):
        raise ValueError(
            f"{path} is not empty; choose another directory, or go on with `mpodis resume {path}`"
        )


def _is_left_over(entry: Path) -> bool:
    if entry.name == "stages":
        return entry.is_dir() and not any(entry.iterdir())
    return entry.name == "lock" or entry.suffix == ".part"


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, which `disentangle` alone would answer with a result.

    The results of a job must not hold a search that was stopped; `mpodis resume` goes on with it.
    A second Ctrl-C ends the process at once, and its workers with it; no file is left half written.
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt
