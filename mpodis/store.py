"""Runs as directories that survive being killed at any moment.

A search of `disentangle` (`RunStore`):

    config.json              options and what the problem was; written last when a run begins
    problem.safetensors      operator, second moments, initial guess
    history.jsonl            one record a line
    checkpoint.safetensors   the search's State; checkpoint.previous.safetensors the one before
    lock                     held by the process that searches, and named in it

Every file is replaced atomically, except for the history, which is appended to before the
checkpoint that counts its lines; surplus lines of a killed run are cut off when it goes on. All
have checksums, and a checkpoint says of which run it is: problem, circuits, settings and format.

A computation of many pieces, as `pareto` and the execution of a network (`PieceStore`):

    config.json              the kind of computation and its identity: all that results depend on
    NAME.safetensors         one piece: its arrays, and its notes as JSON in the header

A piece is written when it is finished. A computation that is called again with the same identity
loads the pieces that are there and computes the others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.factorization import dump_ansatz, load_ansatz
from mpodis.files import (
    append_lines,
    array_metadata,
    check_format,
    load_arrays,
    locked,
    read_json,
    read_lines,
    remove_parts,
    save_arrays,
    write_atomic,
    write_json,
)
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.state import State
from mpodis.options import SearchOptions

__all__ = ["PieceStore", "RunStore", "SearchProgress", "locked_pieces"]

log = logging.getLogger(__name__)

FAMILY = "mpodis-disentangle-"
FORMAT = f"{FAMILY}3"
"""Format 2 has no checksums, and an `init` of another meaning."""
CURRENT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
LIMITS = ("max_sweeps", "max_seconds")
"""Options that may change when a run goes on."""
MACHINE = ("device", "memory")
"""Options that say where it runs, which what it has found does not depend on."""
PARTS = ("left", "core", "right")


@dataclass(frozen=True)
class SearchProgress:
    """How far a search is, as its files tell.

    Attributes
    ----------
    records : list of dict
        The history so far, see `mpodis.History`.
    ended : str
        Why it ended; empty while it has not.
    n_init : int
        How many initial guesses it tries.
    """

    records: list[dict]
    ended: str
    n_init: int

    @classmethod
    def read(cls, path: str | os.PathLike) -> SearchProgress | None:
        """The progress of the search in a directory; None if there is none.

        Raises
        ------
        ValueError
            If its format is of another version, or a file is damaged.
        """
        path = Path(path)
        if not (path / "config.json").is_file():
            return None
        config = read_json(path / "config.json")
        if not isinstance(config, dict) or not str(config.get("format")).startswith(FAMILY):
            return None
        config = _read_config(path)
        store, n_init = RunStore(path, config), config["options"]["n_init"]
        # the one before while a checkpoint is being replaced
        for file in (path / CURRENT, path / PREVIOUS):
            header = array_metadata(file)
            if header:
                state, records = store.described(header)
                return cls(records, state["ended"], n_init)
        return cls([], "", n_init)

    @property
    def best(self) -> dict | None:
        """The record of least loss."""
        return min(self.records, key=lambda record: record["loss"], default=None)


class RunStore:
    """Where one call of `disentangle` keeps its state.

    Parameters
    ----------
    path : Path
    config : dict
        What its config.json holds.
    """

    def __init__(self, path: Path, config: dict) -> None:
        self.path, self._config = path, config
        self._identity = _identity(config)
        # the first line of the history says of which run it is
        self._begin = hashlib.sha256(_canonical(self._identity).encode()).hexdigest()
        self._written, self._last = 0, self._begin  # lines on disk, checksum of the last

    @classmethod
    def engine_of(cls, path: str | os.PathLike) -> str | None:
        """The engine that the run in a directory was begun with, if there is one."""
        file = Path(path) / "config.json"
        options = read_json(file).get("options") if file.exists() else None
        return options.get("engine") if isinstance(options, dict) else None

    @classmethod
    def open(cls, path: str | os.PathLike, problem: Problem, options: SearchOptions) -> RunStore:
        """Begin a run in a new directory, or go on with the same run.

        Raises
        ------
        ValueError
            The directory holds another run, or a checkpoint without its config.json.
        """
        path = Path(path)
        found = cls.find(path, problem, options)
        config = _described(problem, options)
        if found is not None:
            if found._config != config:  # other limits
                write_json(path / "config.json", config)
            return cls(path, config)
        stale = [file.name for file in path.glob("checkpoint*.safetensors")]
        if stale:
            raise ValueError(
                f"{path} has a {stale[0]} but no config.json to identify it; choose another "
                "run_dir, or delete this one"
            )
        path.mkdir(parents=True, exist_ok=True)
        save_arrays(path / "problem.safetensors", _arrays(problem))
        write_json(path / "config.json", config)
        return cls(path, config)

    @classmethod
    def find(
        cls, path: str | os.PathLike, problem: Problem, options: SearchOptions
    ) -> RunStore | None:
        """The run of a directory, perhaps with other limits, if there is one; nothing is written.

        Raises
        ------
        ValueError
            It is another run; the error names what differs.
        """
        path = Path(path)
        if not (path / "config.json").exists():
            return None
        there, config = _read_config(path), _described(problem, options)
        changed = _changed(there, config, but=LIMITS)
        if changed:
            raise ValueError(
                f"{path} holds another run (its {', '.join(changed)} "
                f"{'differs' if len(changed) == 1 else 'differ'}); choose another run_dir, or "
                "delete this one"
            )
        return cls(path, there)

    @classmethod
    def read(cls, path: str | os.PathLike) -> tuple[RunStore, Problem, SearchOptions]:
        """The run of a directory, with its problem and options.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no run, its format is of another version, or its files are damaged or do not
            belong together.
        """
        path = Path(path)
        config = _read_config(path)
        arrays, _ = load_arrays(path / "problem.safetensors")
        initial = None
        if config["initial"] is not None:
            parts = (
                [arrays[f"{part}.{k}"] for k in range(config["initial"][part])] for part in PARTS
            )
            initial = Point(*parts)
        problem = Problem(
            tuple(arrays[f"target.{k}"] for k in range(config["sites"])),
            load_ansatz(config["left"]),
            load_ansatz(config["right"]),
            tuple(config["shape"]),
            arrays.get("covariance"),
            arrays.get("sensitivity"),
            initial,
        )
        if _fingerprint(problem) != config["fingerprint"]:
            raise ValueError(f"the arrays of {path} do not belong to its config.json")
        return cls(path, config), problem, SearchOptions.from_dict(config["options"])

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes away while this one searches, see `mpodis.files.locked`."""
        return locked(self.path)

    def has_limits(self, options: SearchOptions) -> bool:
        """Whether the limits of the options are those that are stored."""
        given = options.to_dict()
        return all(self._config["options"][name] == given[name] for name in LIMITS)

    def save_limits(self, options: SearchOptions) -> None:
        """Store the limits of options that are else those of the run."""
        if not self.has_limits(options):
            self._config = self._config | {"options": options.to_dict()}
            write_json(self.path / "config.json", self._config)

    def save(self, state: State) -> None:
        """Write a checkpoint between two records."""
        arrays, numbers = state.to_arrays()
        new = state.records[self._written :]
        self._last = append_lines(self.path / "history.jsonl", new, self._last)
        self._written = len(state.records)
        current = self.path / CURRENT
        if current.exists():
            os.replace(current, self.path / PREVIOUS)
        header = {"run": self._identity, "state": numbers, "history": self._last}
        save_arrays(current, arrays, metadata={key: json.dumps(x) for key, x in header.items()})

    def load(self, *, strict: bool = False) -> State | None:
        """The state of the last checkpoint that is not damaged, if any. Nothing is written.

        Parameters
        ----------
        strict : bool
            Whether a damaged checkpoint is an error, also where there is one before it.

        Raises
        ------
        ValueError
            If a checkpoint belongs to another run; the error names what differs.
        """
        for file in (self.path / CURRENT, self.path / PREVIOUS):
            if not file.exists():
                continue
            try:
                arrays, header = load_arrays(file)
                run = json.loads(header["run"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._damaged(file, error, strict)
                continue
            self._refuse_other(file, run)
            try:
                numbers, records = self.described(header)
                state = State.from_arrays(arrays, numbers, records)
            except (OSError, ValueError, KeyError, TypeError) as error:
                self._damaged(file, error, strict)
                continue
            self._written, self._last = len(records), json.loads(header["history"])
            return state
        return None

    def _damaged(self, file: Path, error: Exception, strict: bool) -> None:
        """Say that a checkpoint cannot be used."""
        if strict:
            raise ValueError(
                f"{file} cannot be used: {error}. `resume` goes on from the checkpoint before it"
            ) from None
        log.warning("cannot use %s (%s); going on from an earlier state", file, error)

    def _refuse_other(self, file: Path, run: dict) -> None:
        """Raise a ValueError if a checkpoint is of another run."""
        changed = _changed(run, self._identity, but=())
        if changed:
            raise ValueError(
                f"{file} belongs to another run than {self.path / 'config.json'} (its "
                f"{', '.join(changed)} {'differs' if len(changed) == 1 else 'differ'}): files were "
                "copied, or settings edited; put them back, or begin in another directory"
            )

    def described(self, header: dict[str, str]) -> tuple[dict, list[dict]]:
        """The numbers of a checkpoint's state, and the records that it counts."""
        if not {"state", "history"} <= header.keys():
            raise ValueError("it is not a checkpoint of this version")
        numbers = json.loads(header["state"])
        # later lines may be half written, or are cut off
        file = self.path / "history.jsonl"
        records, last = read_lines(file, numbers["records"], self._begin)
        if last != json.loads(header["history"]):
            raise ValueError(f"{file} is not the one that it was written with")
        return numbers, records

    def history(self) -> list[dict]:
        """All records that were written; an error as of `mpodis.files.read_lines`."""
        return read_lines(self.path / "history.jsonl", None, self._begin)[0]

    def cut_history(self, state: State) -> None:
        """Drop the records after the state's: they will be made, and written, again."""
        count, file = len(state.records), self.path / "history.jsonl"
        lines = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        if not file.exists() or len(lines) > count:
            write_atomic(file, b"".join(lines[:count]))
        if not count:
            self._written, self._last = 0, self._begin


def _read_config(path: Path) -> dict:
    """The config.json of a run; errors as of `RunStore.read`."""
    file = path / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not a run: it has no config.json")
    config = read_json(file)
    found = config.get("format") if isinstance(config, dict) else None
    check_format(path, found, FORMAT, what="a run of `disentangle`")
    return config


def _identity(config: dict) -> dict:
    """What says of which run a checkpoint is, short enough to stand in each of them."""
    circuits = _canonical([config["left"], config["right"], config["shape"], config["initial"]])
    return {
        "format": config["format"],
        "fingerprint": config["fingerprint"],
        "circuits": hashlib.sha256(circuits.encode()).hexdigest(),
        "options": {k: x for k, x in config["options"].items() if k not in (*LIMITS, *MACHINE)},
    }


def _changed(there: dict, here: dict, *, but: tuple[str, ...]) -> list[str]:
    """What differs between two descriptions of a run, options by their own names."""
    names = {key for key in there.keys() | here.keys() if there.get(key) != here.get(key)}
    if "options" in names:
        names.remove("options")
        a, b = (x.get("options") or {} for x in (there, here))
        names |= {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}
    return sorted(names.difference(but))


def _described(problem: Problem, options: SearchOptions) -> dict:
    initial = problem.initial
    return {
        "format": FORMAT,
        "options": options.to_dict(),
        "left": dump_ansatz(problem.left),
        "right": dump_ansatz(problem.right),
        "shape": list(problem.shape),
        "sites": len(problem.tensors),
        "initial": None if initial is None else {p: len(getattr(initial, p)) for p in PARTS},
        "fingerprint": _fingerprint(problem),
    }


def _arrays(problem: Problem) -> dict[str, np.ndarray]:
    """The numbers that define the problem, by name."""
    arrays = {f"target.{k}": tensor for k, tensor in enumerate(problem.tensors)}
    moments = {"covariance": problem.covariance, "sensitivity": problem.sensitivity}
    arrays |= {name: array for name, array in moments.items() if array is not None}
    if problem.initial is not None:
        for part in PARTS:
            arrays |= {f"{part}.{k}": x for k, x in enumerate(getattr(problem.initial, part))}
    return arrays


def _fingerprint(problem: Problem) -> str:
    """Hash of the numbers that define the problem."""
    digest = hashlib.sha256()
    for array in _arrays(problem).values():
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class PieceStore:
    """The finished pieces of one computation.

    Parameters
    ----------
    path : Path
        A directory, created where there is none.
    identity : dict
        Everything that the results depend on, as JSON: options, and hashes of arrays.
    kind : str
        The name of the computation, for example "pareto".

    Raises
    ------
    ValueError
        If the path is a file, or a directory that holds another computation; the error names
        what differs.

    Examples
    --------
    >>> import tempfile
    >>> store = PieceStore(Path(tempfile.mkdtemp()), {"seed": 3}, kind="example")
    >>> store.save("first", {"x": np.arange(3.0)}, {"loss": 0.25})
    >>> store.load("first")
    ({'x': array([0., 1., 2.])}, {'loss': 0.25})
    """

    def __init__(self, path: Path, identity: dict[str, Any], *, kind: str) -> None:
        self.path = path
        # as it will be read back: tuples are lists in JSON
        wanted = json.loads(json.dumps({"kind": kind, "identity": identity}))
        self._fingerprint = hashlib.sha256(_canonical(wanted).encode()).hexdigest()
        if path.is_file():
            raise ValueError(f"{path} is a file, but results are kept in a directory; give another")
        config = path / "config.json"
        remove_parts(path)
        if config.exists():
            self._compare(read_json(config), wanted)
            return
        orphans = sorted(file.name for file in path.glob("*.safetensors"))
        if orphans:
            raise ValueError(
                f"{path} has a {orphans[0]} but no config.json that says what it belongs to; "
                "choose another directory, or delete this one"
            )
        path.mkdir(parents=True, exist_ok=True)
        write_json(config, wanted)

    def _compare(self, found: Any, wanted: dict[str, Any]) -> None:
        """Raise a ValueError unless the directory holds the computation that is wanted."""
        if not isinstance(found, dict) or found.get("kind") != wanted["kind"]:
            kind = found.get("kind") if isinstance(found, dict) else None
            raise ValueError(
                f"{self.path} holds {f'a run of {kind}' if kind else 'a run of another kind'}, "
                f"not of {wanted['kind']}; choose another directory"
            )
        there, here = found["identity"], wanted["identity"]
        differ = [
            name
            for name in sorted(there.keys() | here.keys())
            if name not in there
            or name not in here
            or _canonical(there[name]) != _canonical(here[name])
        ]
        if differ:
            raise ValueError(
                f"{self.path} holds another run of {wanted['kind']}: {', '.join(differ)} "
                f"{'differs' if len(differ) == 1 else 'differ'}; choose another directory, or "
                "delete this one"
            )

    def __contains__(self, name: str) -> bool:
        """Whether the piece is finished."""
        return self._file(name).is_file()

    def load(self, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Arrays and notes of a piece, or None if it is not finished.

        Raises
        ------
        ValueError
            If its file is damaged, or belongs to another computation.
        """
        file = self._file(name)
        if not file.is_file():
            return None
        arrays, header = load_arrays(file)
        if header.get("run") != self._fingerprint:
            raise ValueError(
                f"{file} does not belong to this run; delete it, and it is computed again"
            )
        return arrays, json.loads(header["notes"])

    def save(self, name: str, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
        """Write a finished piece, in place of an older one of its name."""
        header = {"run": self._fingerprint, "notes": json.dumps(notes)}
        save_arrays(self._file(name), arrays, metadata=header)

    def _file(self, name: str) -> Path:
        if not name or name.startswith(".") or Path(name).name != name:
            raise ValueError(f"the name of a piece, {name!r}, must be a plain file name")
        return self.path / f"{name}.safetensors"


@contextmanager
def locked_pieces(
    path: str | os.PathLike | None, identity: dict[str, Any], *, kind: str
) -> Iterator[PieceStore | None]:
    """A `PieceStore` in which no other process works meanwhile; None without a directory.

    A directory in which nothing can be written is read without a lock.

    Raises
    ------
    BlockingIOError
        If another process works there.
    ValueError
        As of `PieceStore`.
    """
    if path is None:
        yield None
        return
    path = Path(path)
    if not path.is_file():  # which the store refuses
        path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            if path.is_dir():
                stack.enter_context(locked(path))
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
        yield PieceStore(path, identity, kind=kind)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
