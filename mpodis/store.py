"""Runs as directories that survive being killed at any moment.

A search of `disentangle` (`RunStore`):

    config.json              options and what the problem was; written last when a run begins
    problem.safetensors      operator, second moments, initial guess
    history.jsonl            one record a line
    checkpoint.safetensors   the search's State; checkpoint.previous.safetensors the one before
    lock                     held by the process that searches

Every file is replaced atomically, except for the history, which is appended to before the
checkpoint that counts its lines; surplus lines of a killed run are cut off when it goes on.

A computation of many pieces, as `pareto` and the execution of a network (`PieceStore`):

    config.json              the kind of computation and its identity: all that results depend on
    NAME.safetensors         one piece: its arrays, and its notes as JSON in the header

A piece is written when it is finished. A computation that is called again with the same identity
loads the pieces that are there and computes the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.factorization import dump_ansatz, load_ansatz
from mpodis.files import (
    array_metadata,
    load_arrays,
    locked,
    read_json,
    save_arrays,
    write_atomic,
    write_json,
)
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.state import State
from mpodis.options import SearchOptions

__all__ = ["PieceStore", "RunStore", "SearchProgress"]

log = logging.getLogger(__name__)

FORMAT = "mpodis-disentangle-2"
OLD_FORMATS = ("mpodis-disentangle-1",)
LIMITS = ("max_sweeps", "max_seconds")
"""Options that may change when a run goes on."""
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
        """The progress of the search in a directory; None if there is none."""
        path = Path(path)
        if not (path / "config.json").is_file():
            return None
        config = read_json(path / "config.json")
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            return None
        header = array_metadata(path / "checkpoint.safetensors") or array_metadata(
            path / "checkpoint.previous.safetensors"  # while a checkpoint is being replaced
        )
        state = json.loads(header["state"]) if "state" in header else {"ended": "", "records": 0}
        file = path / "history.jsonl"
        # only lines that a checkpoint counts: later ones may be half written, or cut off
        lines = file.read_text().splitlines()[: state["records"]] if file.exists() else []
        return cls(
            [json.loads(line) for line in lines], state["ended"], config["options"]["n_init"]
        )

    @property
    def best(self) -> dict | None:
        """The record of least loss."""
        return min(self.records, key=lambda record: record["loss"], default=None)


class RunStore:
    """Where one call of `disentangle` keeps its state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._written: int | None = None  # lines of the history that are on disk

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
        config = _described(problem, options)
        if (path / "config.json").exists():
            there = read_json(path / "config.json")
            _refuse_earlier(path, there)
            if isinstance(there.get("options"), dict):
                limits = {name: config["options"][name] for name in LIMITS}
                there["options"] |= limits
            changed = sorted(key for key in config if there.get(key) != config[key])
            if changed:
                raise ValueError(
                    f"{path} holds another run (its {', '.join(changed)} differ); choose another "
                    "run_dir, or delete this one"
                )
            write_json(path / "config.json", config)
            return cls(path)
        stale = [file.name for file in path.glob("checkpoint*.safetensors")]
        if stale:
            raise ValueError(
                f"{path} has a {stale[0]} but no config.json to identify it; choose another "
                "run_dir, or delete this one"
            )
        path.mkdir(parents=True, exist_ok=True)
        save_arrays(path / "problem.safetensors", _arrays(problem))
        write_json(path / "config.json", config)
        return cls(path)

    @classmethod
    def read(cls, path: str | os.PathLike) -> tuple[RunStore, Problem, SearchOptions]:
        """The run of a directory, with its problem and options.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no run, its format is an earlier one, or its files do not belong together.
        """
        path = Path(path)
        cls(path)._check_there()
        config = read_json(path / "config.json")
        _refuse_earlier(path, config)
        if config.get("format") != FORMAT:
            raise ValueError(f"{path} is not a run of `disentangle`")
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
        return cls(path), problem, SearchOptions.from_dict(config["options"])

    def lock(self) -> AbstractContextManager[None]:
        """Keep other processes away while this one searches, see `mpodis.files.locked`.

        Raises
        ------
        FileNotFoundError
            There is no run.
        """
        self._check_there()
        return locked(self.path)

    def _check_there(self) -> None:
        if not (self.path / "config.json").is_file():
            raise FileNotFoundError(f"{self.path} is not a run: it has no config.json")

    def save_limits(self, options: SearchOptions, **limits: float | None) -> SearchOptions:
        """Store other limits; returns the options with them. Those that are None stay."""
        given = {name: value for name, value in limits.items() if value is not None}
        if not given:
            return options
        options = replace(options, **given)
        config = read_json(self.path / "config.json") | {"options": options.to_dict()}
        write_json(self.path / "config.json", config)
        return options

    def save(self, state: State) -> None:
        """Write a checkpoint between two records."""
        arrays, numbers = state.to_arrays()
        self._append(state.records)
        current = self.path / "checkpoint.safetensors"
        if current.exists():
            os.replace(current, self.path / "checkpoint.previous.safetensors")
        save_arrays(current, arrays, metadata={"state": json.dumps(numbers)})

    def _append(self, records: list[dict]) -> None:
        file = self.path / "history.jsonl"
        if self._written is None:
            self._written = len(file.read_text().splitlines()) if file.exists() else 0
        with file.open("a") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records[self._written :])
            stream.flush()
            os.fsync(stream.fileno())
        self._written = len(records)

    def load(self) -> State | None:
        """The state of the last readable checkpoint, if there is one. Nothing is written."""
        for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
            file = self.path / name
            if not file.exists():
                continue
            try:
                arrays, header = load_arrays(file)
                numbers = json.loads(header["state"])
                return State.from_arrays(arrays, numbers, self._history(numbers["records"]))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("cannot use %s (%s); going on from an earlier state", file, error)
        return None

    def cut_history(self, state: State) -> None:
        """Drop the records after the state's: they will be made, and written, again."""
        lines = "".join(json.dumps(record) + "\n" for record in state.records)
        write_atomic(self.path / "history.jsonl", lines)
        self._written = len(state.records)

    def _history(self, count: int) -> list[dict]:
        lines = (self.path / "history.jsonl").read_text().splitlines()
        if len(lines) < count:
            raise ValueError(f"history.jsonl has {len(lines)} lines, but {count} were written")
        return [json.loads(line) for line in lines[:count]]


def _refuse_earlier(path: Path, config: dict) -> None:
    if config.get("format") in OLD_FORMATS:
        raise ValueError(
            f"{path} has an earlier file format, which cannot be continued; use the version of "
            "mpodis that wrote it, or run it again in another directory"
        )


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


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
