"""A study under way: what is done, failed and left, and the medians so far, kept up to date.

Records are read once. The process that hands out the cases hears of each as it ends; another one
looks for files that are new.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpodis.files import is_locked
from mpodis.study.records import DamagedRecord, StudyDirectory
from mpodis.tables import number

__all__ = ["BestValue", "LiveStudy", "Series"]

QUANTITIES = 3
"""Numbers that are followed, the first that the function returns."""
LOWER = ("loss", "error", "infidelity", "seconds", "s_avg", "s_max", "entrop", "cnot", "parameters")
"""Parts of names of quantities of which less is better."""


@dataclass
class Series:
    """The cases that differ in x and in the seed only.

    Attributes
    ----------
    label : str
        The settings that they share.
    total, done, failed : int
    """

    label: str
    total: int = 0
    done: int = 0
    failed: int = 0
    _values: dict[str, dict[Any, list[float]]] = field(default_factory=dict)

    def add(self, x: Any, scalars: Mapping[str, Any]) -> None:
        self.done += 1
        for name, value in scalars.items():
            self._values.setdefault(name, {}).setdefault(x, []).append(value)

    def medians(self, quantity: str, order: Sequence[Any]) -> list[float]:
        """Over the seeds, for every x of an order; NaN where no case is done."""
        values = self._values.get(quantity, {})
        return [statistics.median(values[x]) if x in values else math.nan for x in order]


@dataclass(frozen=True)
class BestValue:
    """The best value of a quantity so far, and where it was found."""

    quantity: str
    value: float
    is_lowest: bool
    where: str

    def __str__(self) -> str:
        which = "lowest" if self.is_lowest else "highest"
        where = f" at {self.where}" if self.where else ""
        return f"{which} {self.quantity} {number(self.value, 6)}{where}"


class LiveStudy:
    """The state of the study in a directory.

    Attributes
    ----------
    directory : Path
    name, description : str
    total, done : int
    damaged : set of str
        Keys of records that are not what was written; these cases are left.
    failures : dict
        Of a case's key its settings, and the error in one line.
    x : str
        The coordinate of the series: the axis with most values that are numbers, else the seed.
    order : list
        Its values.
    series : dict
        Of the values of all other axes their `Series`.
    quantities : list of str
        Numbers that are followed.
    best : dict
        Of a quantity its `BestValue`.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no study in the directory.
    """

    def __init__(self, directory: str | os.PathLike) -> None:
        self._there = StudyDirectory(directory)
        described = self._there.read_study()
        self.directory = Path(directory)
        self.name: str = described["name"]
        self.description: str = described.get("description", "")
        self.workers = max(int(described["workers"]), 1)
        axes = described["axes"]
        self.x = _coordinate(axes)
        self.order: list[Any] = sorted(axes[self.x]) if self.x in axes else described["seeds"]
        self.total = len(described["cases"])
        self.done = 0
        self.damaged: set[str] = set()
        self.failures: dict[str, tuple[str, str]] = {}
        self.quantities: list[str] = []
        self.best: dict[str, BestValue] = {}
        self.series: dict[tuple, Series] = {}
        self._others = [name for name in axes if name != self.x]
        self._cases: dict[str, Mapping[str, Any]] = {c["key"]: c for c in described["cases"]}
        self._seconds: dict[tuple, list[float]] = {}
        self._left: dict[tuple, int] = {}
        self._seen: set[str] = set()
        for case in described["cases"]:
            self._of(case).total += 1
            point = _point(case)
            self._left[point] = self._left.get(point, 0) + 1

    def _of(self, case: Mapping[str, Any]) -> Series:
        key = tuple(case["settings"][name] for name in self._others)
        if key not in self.series:
            parts = zip(self._others, key, strict=True)
            label = ", ".join(f"{name.rpartition('.')[2]}={number(v)}" for name, v in parts)
            self.series[key] = Series(label)
        return self.series[key]

    # --- what has happened

    def add(self, key: str, scalars: Mapping[str, Any], seconds: float) -> None:
        """A case is done."""
        case = self._cases.get(key)
        if case is None or key in self._seen:
            return
        self._seen.add(key)
        self._forget_failure(key)  # it was tried again
        self.done += 1
        self._left[_point(case)] -= 1
        self._seconds.setdefault(_point(case), []).append(seconds)
        numbers = {name: float(v) for name, v in scalars.items() if _is_finite(v)}
        if not self.quantities:
            real = [name for name, value in scalars.items() if isinstance(value, float)]
            self.quantities = (real or list(numbers))[:QUANTITIES]
        followed = {name: numbers[name] for name in self.quantities if name in numbers}
        self._of(case).add(case["settings"].get(self.x, case["seed"]), followed)
        for name, value in followed.items():
            lowest = any(part in name for part in LOWER)
            best = self.best.get(name)
            if best is None or (value < best.value if lowest else value > best.value):
                self.best[name] = BestValue(name, value, lowest, _label(case))

    def fail(self, key: str, error: str) -> None:
        """A case has failed."""
        case = self._cases.get(key)
        if case is None or key in self._seen:
            return
        if key in self.failures:  # it was tried again
            self.failures[key] = (_label(case), error)
            return
        self.failures[key] = (_label(case), error)
        self._of(case).failed += 1
        self._left[_point(case)] -= 1

    def _forget_failure(self, key: str) -> None:
        if self.failures.pop(key, None) is not None:
            case = self._cases[key]
            self._of(case).failed -= 1
            self._left[_point(case)] += 1

    def refresh(self) -> None:
        """Read what is new in the directory; of arrays, only whether they are there and whole."""
        self.damaged.clear()
        for key in sorted((self._there.keys() & self._cases.keys()) - self._seen):
            try:
                self.add(key, *self._there.summary(key))
            except DamagedRecord:  # the next run of the study says so, and computes it again
                self.damaged.add(key)
                self._forget_failure(key)
        failed = self._there.failed_keys() - self.failures.keys() - self._seen - self.damaged
        for key in sorted(failed & self._cases.keys()):
            error = str(self._there.load_failure(key).get("error", ""))
            self.fail(key, (error.splitlines() or [""])[0])

    # --- how it stands

    @property
    def left(self) -> int:
        return self.total - self.done - len(self.failures)

    @property
    def is_running(self) -> bool:
        """Whether a process hands out the cases."""
        return is_locked(self.directory)

    @property
    def seconds_left(self) -> float:
        """About, from cases of the same settings, or from all that are done; NaN before that."""
        if not self.left:
            return 0.0
        if not self._seconds:
            return math.nan
        means = {point: statistics.fmean(seconds) for point, seconds in self._seconds.items()}
        every = statistics.fmean(means.values())
        work = sum(count * means.get(point, every) for point, count in self._left.items() if count)
        return work / min(self.workers, self.left)

    def line(self) -> str:
        """All of it in one line of text."""
        parts = [f"{self.name}: {self.done} of {self.total} done"]
        parts += [f"{len(self.failures)} failed"] if self.failures else []
        parts += [f"{self.left} left"] if self.left else []
        parts += [f"{len(self.damaged)} of these damaged"] if self.damaged else []
        if self.left and not math.isnan(self.seconds_left):
            parts.append(f"about {duration(self.seconds_left)}")
        parts += [str(self.best[name]) for name in self.quantities[:1] if name in self.best]
        return ", ".join(parts)

    def states(self) -> list[tuple[str, str]]:
        """Names and texts: done, failed, left, time left."""
        left = self.seconds_left
        text = "unknown" if math.isnan(left) else f"about {duration(left)}"
        return [
            ("done", f"{self.done:,} of {self.total:,}"),
            ("failed", f"{len(self.failures):,}"),
            ("left", f"{self.left:,}"),
            *([("of these, damaged", f"{len(self.damaged):,}")] if self.damaged else []),
            ("time left", text if self.left else "none"),
        ]


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def clock() -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S")


def _coordinate(axes: Mapping[str, Sequence[Any]]) -> str:
    lengths = {
        name: len(values)
        for name, values in axes.items()
        if len(values) > 1 and all(map(_is_finite, values))
    }
    return max(lengths, key=lambda name: lengths[name]) if lengths else "seed"


def _point(case: Mapping[str, Any]) -> tuple:
    """The settings of a case, without its seed."""
    return tuple(case["settings"].values())


def _label(case: Mapping[str, Any]) -> str:
    parts = [f"{name.rpartition('.')[2]}={number(v)}" for name, v in case["settings"].items()]
    return ", ".join([*parts, *([] if case["seed"] is None else [f"seed={case['seed']}"])])


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
