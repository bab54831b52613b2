"""A run as a directory that survives being killed at any moment.

    config.json              settings and what the problem was; written last when a run begins
    problem.safetensors      target, inputs' second moment
    history.jsonl            one record a line
    checkpoint.safetensors   the loop's state; checkpoint.previous.safetensors the one before

Every file is replaced atomically, except for the history, which is appended to before the
checkpoint that counts its lines; surplus lines of a killed run are cut off when it goes on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path

import numpy as np

from mpodis.factorization import dump_ansatz, load_ansatz
from mpodis.files import load_arrays, read_json, save_arrays, write_atomic, write_json
from mpodis.optimise.chain import Chain
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.settings import Settings

__all__ = ["RunDirectory"]

log = logging.getLogger(__name__)

_FORMAT = "mpodis-disentangle-1"

LIMITS = ("max_sweeps", "max_seconds")
"""Settings that may change when a run goes on."""


class RunDirectory:
    """Where one call of `disentangle` keeps its state."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def engine_of(cls, path: str | os.PathLike) -> str | None:
        """The engine that the run in a directory was begun with, if there is one."""
        file = Path(path) / "config.json"
        settings = read_json(file).get("settings") if file.exists() else None
        return settings.get("engine") if isinstance(settings, dict) else None

    @classmethod
    def open(cls, path: str | os.PathLike, problem: Problem, settings: Settings) -> RunDirectory:
        """Begin a run in a new directory, or go on with the same one."""
        path = Path(path)
        config = _describe(problem, settings)
        if (path / "config.json").exists():
            there = read_json(path / "config.json")
            if isinstance(there.get("settings"), dict):
                # a run may go on with other limits
                limits = {name: config["settings"][name] for name in LIMITS}
                there["settings"] |= limits
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
                f"{path} has a {stale[0]} but no config.json to say whose it is; choose another "
                "run_dir, or delete this one"
            )
        path.mkdir(parents=True, exist_ok=True)
        arrays = {f"target.{k}": core for k, core in enumerate(problem.tensors)}
        arrays |= _moments(problem)
        save_arrays(path / "problem.safetensors", arrays)
        write_json(path / "config.json", config)
        return cls(path)

    @classmethod
    def read(cls, path: str | os.PathLike) -> tuple[RunDirectory, Problem, Settings]:
        """The run of a directory, with its problem and settings."""
        path = Path(path)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(f"{path} is no run: it has no config.json")
        config = read_json(path / "config.json")
        if config.get("format") != _FORMAT:
            raise ValueError(f"{path} is not a run of `disentangle`")
        arrays, _ = load_arrays(path / "problem.safetensors")
        tensors = tuple(arrays[f"target.{k}"] for k in range(config["sites"]))
        problem = Problem(
            tensors,
            load_ansatz(config["left"]),
            load_ansatz(config["right"]),
            tuple(config["shape"]),
            arrays.get("covariance"),
            arrays.get("sensitivity"),
            Point.from_arrays("initial.", arrays),
        )
        if _fingerprint(problem) != config["fingerprint"]:
            raise ValueError(f"the arrays of {path} do not belong to its config.json")
        return cls(path), problem, Settings.from_dict(config["settings"])

    def save(self, loop: Chain) -> None:
        """Checkpoint between two sweeps."""
        arrays, numbers = loop.state()
        self._append(loop.records)
        current = self.path / "checkpoint.safetensors"
        if current.exists():
            os.replace(current, self.path / "checkpoint.previous.safetensors")
        save_arrays(current, arrays, metadata={"state": json.dumps(numbers)})

    def _append(self, records: list[dict]) -> None:
        file = self.path / "history.jsonl"
        written = len(file.read_text().splitlines()) if file.exists() else 0
        with file.open("a") as stream:
            stream.writelines(json.dumps(record) + "\n" for record in records[written:])
            stream.flush()
            os.fsync(stream.fileno())

    def restore(self, loop: Chain) -> None:
        """Put a loop where the last readable checkpoint left it, if there is one."""
        for name in ("checkpoint.safetensors", "checkpoint.previous.safetensors"):
            file = self.path / name
            if not file.exists():
                continue
            try:
                arrays, header = load_arrays(file)
                numbers = json.loads(header["state"])
                records = self._history(numbers["records"])
            except (OSError, ValueError, KeyError) as error:
                log.warning("cannot use %s (%s); going on from an earlier state", file, error)
                continue
            loop.load(arrays, numbers, records)
            break
        # what was written after that checkpoint will be done, and written, again
        lines = "".join(json.dumps(record) + "\n" for record in loop.records)
        write_atomic(self.path / "history.jsonl", lines)

    def _history(self, count: int) -> list[dict]:
        lines = (self.path / "history.jsonl").read_text().splitlines()
        if len(lines) < count:
            raise ValueError(f"history.jsonl has {len(lines)} lines, but {count} were written")
        return [json.loads(line) for line in lines[:count]]


def _describe(problem: Problem, settings: Settings) -> dict:
    return {
        "format": _FORMAT,
        "settings": settings.to_dict(),
        "left": dump_ansatz(problem.left),
        "right": dump_ansatz(problem.right),
        "shape": list(problem.shape),
        "sites": len(problem.tensors),
        "fingerprint": _fingerprint(problem),
    }


def _moments(problem: Problem) -> dict[str, np.ndarray]:
    found = {"covariance": problem.covariance, "sensitivity": problem.sensitivity}
    initial = {} if problem.initial is None else problem.initial.arrays("initial.")
    return {name: array for name, array in found.items() if array is not None} | initial


def _fingerprint(problem: Problem) -> str:
    """Hash of the numbers that define the problem."""
    digest = hashlib.sha256()
    for array in (*problem.tensors, *_moments(problem).values()):
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
