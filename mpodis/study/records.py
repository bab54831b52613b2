"""The directory of a study: one record a case, and what failed.

::

    study.json            what is computed, and the content of the files that are read
    cases/KEY.json        settings, seed, scalars, and the hash of the arrays' file
    cases/KEY.safetensors arrays of the case, where it has any
    failed/KEY.json       settings, and the traceback
    networks/             trained for targets, each once
    runs/KEY/             of a case under way that can go on where it was killed
    index.html            the page that is rewritten as cases finish
    lock                  held by the process that hands out the cases

A record is written by the process that computed it: first the arrays, then the JSON, each
atomically. A case is done when its JSON is there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.files import array_metadata, load_arrays, read_json, save_arrays, write_json
from mpodis.study.measured import Variable

__all__ = ["DamagedRecord", "Record", "StorageError", "StudyDirectory"]

FORMAT = "mpodis-study-1"
PARTS = ("study.json", "cases", "failed", "networks", "runs", "figures", "index.html", "lock")
"""What may lie in the directory of a study."""


class DamagedRecord(ValueError):
    """A file of a record is not what was written."""


class StorageError(OSError):
    """What was computed cannot be stored, as on a full disk."""


@dataclass(frozen=True, eq=False)
class Record:
    """What one case gave.

    Attributes
    ----------
    key : str
    settings : dict
        As the case had them, by names with dots.
    seed : int or None
    scalars : dict
        Numbers, texts and truth values that the function returned.
    arrays : dict of Variable
    seconds, cpu_seconds : float
        Wall and CPU time of the call.
    where : dict
        Host and code, and when it was finished.
    """

    key: str
    settings: dict[str, Any]
    seed: int | None
    scalars: dict[str, Any]
    arrays: dict[str, Variable]
    seconds: float
    cpu_seconds: float
    where: dict[str, Any]


class StudyDirectory:
    """Reads and writes the files of a study."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)

    # --- the study

    @property
    def exists(self) -> bool:
        return (self.path / "study.json").is_file()

    def read_study(self) -> dict[str, Any]:
        """What `write_study` wrote.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no study, or its format is not known.
        """
        if not self.exists:
            raise FileNotFoundError(f"{self.path} is no directory of a study: no study.json")
        try:
            found = read_json(self.path / "study.json")
        except ValueError as error:
            raise ValueError(
                f"{error}; if it is removed, the next run of the study writes it again and keeps "
                "the records"
            ) from None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            there = found.get("format") if isinstance(found, dict) else None
            raise ValueError(
                f"{self.path / 'study.json'} has the format {there!r}, this version reads {FORMAT}"
            )
        return found

    def write_study(self, described: Mapping[str, Any]) -> None:
        """Make the directory, and say what is in it."""
        with self._writing():
            for folder in ("cases", "failed"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
            write_json(self.path / "study.json", {"format": FORMAT, **described})

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Failures to write say where, and on which machine."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(
                f"{platform.node()} cannot write to {self.path}: {reason}"
            ) from error

    # --- records

    def keys(self) -> set[str]:
        """Of the cases that are done."""
        return _stems(self.path / "cases")

    def failed_keys(self) -> set[str]:
        return _stems(self.path / "failed")

    @property
    def networks(self) -> Path:
        """Where networks are kept that targets are layers of."""
        return self.path / "networks"

    def has(self, key: str, *, failed: bool = False) -> bool:
        """Whether a case is done, or has failed."""
        return (self.path / ("failed" if failed else "cases") / f"{key}.json").is_file()

    def run_dir(self, key: str) -> Path:
        """Where a case keeps what it needs to go on."""
        return self.path / "runs" / key

    def save(self, record: Record) -> None:
        """Write a record; a failure of the same case before is forgotten.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        with self._writing():
            file = self.path / "cases" / f"{record.key}.json"
            digest = ""
            if record.arrays:
                arrays = {name: _stored(variable) for name, variable in record.arrays.items()}
                save_arrays(file.with_suffix(".safetensors"), arrays, metadata={"key": record.key})
                digest = _sha256(file.with_suffix(".safetensors"))
            write_json(
                file,
                {
                    "format": FORMAT,
                    "key": record.key,
                    "settings": record.settings,
                    "seed": record.seed,
                    "scalars": record.scalars,
                    "arrays": {
                        name: {
                            "dims": list(v.dims),
                            **({"attributes": v.attributes} if v.attributes else {}),
                            **({"labels": _labels(v)} if _is_text(v) else {}),
                        }
                        for name, v in record.arrays.items()
                    },
                    "arrays_sha256": digest,
                    "seconds": record.seconds,
                    "cpu_seconds": record.cpu_seconds,
                    "where": record.where,
                },
            )
            (self.path / "failed" / file.name).unlink(missing_ok=True)

    def written(self, key: str) -> int:
        """When a record was written, in nanoseconds; 0 where there is none."""
        try:
            return os.stat(self.path / "cases" / f"{key}.json").st_mtime_ns
        except FileNotFoundError:
            return 0

    def load(self, key: str) -> Record:
        """The record of a case.

        Raises
        ------
        DamagedRecord
            If one of its files is not what was written; the error names it.
        """
        with self._reading(key) as file:
            found = _content(file, key)
            arrays = (
                self._arrays(file.with_suffix(".safetensors"), found) if found["arrays"] else {}
            )
            return Record(
                key,
                found["settings"],
                found["seed"],
                found["scalars"],
                arrays,
                found["seconds"],
                found["cpu_seconds"],
                found["where"],
            )

    def summary(self, key: str) -> tuple[dict[str, Any], float]:
        """Scalars and wall time of a case, without reading its arrays.

        Their file must be there, be of this case and have the length that it says; a bit that has
        changed in the numbers is seen by `load` only.

        Raises
        ------
        DamagedRecord
            If one of its files is not what was written; the error names it.
        """
        with self._reading(key) as file:
            found = _content(file, key)
            arrays = file.with_suffix(".safetensors")
            if found["arrays"] and array_metadata(arrays).get("key") != key:
                raise ValueError(f"{arrays} is gone, or of another case")
            return dict(found["scalars"]), float(found["seconds"])

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        """Raise whatever is wrong with a record as a DamagedRecord that names its file."""
        file = self.path / "cases" / f"{key}.json"
        try:
            yield file
        except DamagedRecord:
            raise
        except IsADirectoryError:
            raise DamagedRecord(_not_a_file(file)) from None
        except (ValueError, KeyError, TypeError, AttributeError, FileNotFoundError) as error:
            raise DamagedRecord(
                f"{file} is damaged ({error}); the next run of the study computes it again"
            ) from None

    def _arrays(self, file: Path, found: Mapping[str, Any]) -> dict[str, Variable]:
        if not file.is_file() or _sha256(file) != found["arrays_sha256"]:
            raise DamagedRecord(
                f"{file} is damaged or gone (its content does not have the hash in the record); "
                "the next run of the study computes it again"
            )
        arrays, _ = load_arrays(file)
        return {
            name: Variable(
                tuple(of["dims"]),
                np.array(of["labels"])[arrays[name]] if "labels" in of else arrays[name],
                of.get("attributes", {}),
            )
            for name, of in found["arrays"].items()
        }

    def remove(self, key: str) -> None:
        """Drop a record, its JSON first.

        Raises
        ------
        StorageError
            If a directory lies in its place.
        """
        for suffix in (".json", ".safetensors"):
            file = self.path / "cases" / f"{key}{suffix}"
            if file.is_dir():
                raise StorageError(_not_a_file(file))
            file.unlink(missing_ok=True)

    def save_failure(self, key: str, failure: Mapping[str, Any]) -> None:
        with self._writing():
            content = {"format": FORMAT, "key": key, **failure}
            write_json(self.path / "failed" / f"{key}.json", content)

    def load_failure(self, key: str) -> dict[str, Any]:
        file = self.path / "failed" / f"{key}.json"
        try:
            found = read_json(file)
            if not isinstance(found, dict) or not isinstance(found.get("error"), str):
                raise ValueError("it has no error")
            return found
        except (ValueError, IsADirectoryError) as error:
            return {"key": key, "error": f"{file} is damaged ({error})", "traceback": ""}


def _content(file: Path, key: str) -> dict[str, Any]:
    """The JSON of a record, checked to be of this case."""
    found = read_json(file)
    if found["format"] != FORMAT or found["key"] != key:
        raise ValueError(f"it is the record of {found['key']}, {found['format']}")
    return found


def _not_a_file(file: Path) -> str:
    return f"{file} is a directory, where a file of a record belongs; move it away"


def _is_text(variable: Variable) -> bool:
    return variable.values.dtype.kind == "U"


def _labels(variable: Variable) -> list[str]:
    """The texts of an array, each once."""
    return np.unique(variable.values).tolist()


def _stored(variable: Variable) -> np.ndarray:
    """The array as safetensors can hold it: texts as their places among the labels."""
    if not _is_text(variable):
        return variable.values
    return np.unique(variable.values, return_inverse=True)[1].reshape(variable.values.shape)


def _stems(folder: Path) -> set[str]:
    """Names of the JSON files in a folder that are whole."""
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return set()
    return {name[:-5] for name in entries if name.endswith(".json") and not name.startswith(".")}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
