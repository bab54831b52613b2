"""What a study has found: tables, a pandas DataFrame, an xarray Dataset, files."""

from __future__ import annotations

import dataclasses
import logging
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpodis.files import write_atomic
from mpodis.study.measured import apart_from_settings
from mpodis.study.records import DamagedRecord, Record, StudyDirectory
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["StudyResults", "StudyStatus", "load_study"]

log = logging.getLogger(__name__)

COSTS = ("seconds", "cpu_seconds")
"""Measured of every case, beside what its function returns."""
SHOWN = 3
"""Quantities in a table where none are named."""


def load_study(directory: str | os.PathLike) -> StudyResults:
    """The results so far of the study in a directory, also while it runs.

    Raises
    ------
    FileNotFoundError, ValueError
        There is no study, or its format is not known.

    Examples
    --------
    >>> import tempfile
    >>> from mpodis import Study, disentangle, load_study
    >>> folder = tempfile.mkdtemp()
    >>> operator = {"kind": "random_mpo", "n": 3, "max_bond": 4}
    >>> study = Study(disentangle, settings={"operator": operator}, grid={"depth": [1, 2]})
    >>> table = study.run(folder, progbar=False)
    >>> load_study(folder).to_dataframe()["depth"].tolist()
    [1, 2]
    """
    StudyDirectory(directory).read_study()
    return StudyResults(directory)


@dataclass(frozen=True)
class StudyStatus(Tabular):
    """How far a study is.

    Attributes
    ----------
    name : str
    directory : Path
    total, done, failed : int
        Cases.
    damaged : int
        Records of cases that are not what was written. They are not done and not failed: the next
        run of the study computes them again. A bit that has changed in the numbers of an array is
        not among them; `records()`, and the next run, read the arrays and say so.
    is_running : bool
        Whether a process hands out cases now.
    seconds_left : float
        As `mpodis study watch` says it: from cases of the same settings, or from all that are done,
        and the number of workers. NaN before one is done.
    """

    name: str
    directory: Path
    total: int
    done: int
    failed: int
    damaged: int
    is_running: bool
    seconds_left: float

    @property
    def left(self) -> int:
        return self.total - self.done - self.failed

    def table(self) -> Table:
        rows: list[Sequence[object]] = [
            ("cases", self.total),
            ("done", self.done),
            ("failed", self.failed),
            ("left", self.left),
            *([("of these, damaged", self.damaged)] if self.damaged else []),
            ("running", "yes" if self.is_running else "no"),
            ("about, s left", self.seconds_left),
        ]
        return Table((f"study {self.name}", ""), rows, notes=(str(self.directory),))


class StudyResults(Tabular):
    """Records of a study in its directory, as tables, arrays and figures; see `load_study`."""

    def __init__(self, directory: str | os.PathLike | None = None) -> None:
        self.directory = None if directory is None else Path(directory)
        self._read: dict[str, tuple[int, Record]] = {}  # by key, with the time of the file

    # --- records

    def _there(self) -> StudyDirectory:
        if self.directory is None:
            raise ValueError("the study has no records yet; run it: study.run(directory)")
        return StudyDirectory(self.directory)

    def described(self) -> dict[str, Any]:
        """What the directory says of the study: name, function, axes, cases."""
        return self._there().read_study()

    def records(self) -> list[Record]:
        """The records of all cases that are done, in the order of the cases.

        They have the settings that the study varies now. What a function returned under the name
        of one of these, of the seed or of a time has "_found" after its name. A damaged record is
        left out, with a warning that names its file.
        """
        directory, described = self._there(), self.described()
        there = directory.keys()
        found = []
        for case in described["cases"]:
            if case["key"] in there:
                try:
                    found.append(_named(self._record(directory, case["key"]), case["settings"]))
                except DamagedRecord as error:
                    log.warning("%s", error)
        return found

    def _record(self, directory: StudyDirectory, key: str, *, again: bool = False) -> Record:
        """A record, from memory where that has its file as it is now, unless it is read again.

        Raises
        ------
        DamagedRecord
            If one of its files is not what was written.
        """
        written = directory.written(key)
        if again or key not in self._read or self._read[key][0] != written:
            self._read[key] = (written, directory.load(key))
        return self._read[key][1]

    def failures(self) -> Table:
        """The cases that failed, with the error of each; tracebacks are in the directory."""
        directory = self._there()
        failed = directory.failed_keys()
        rows = []
        for case in self.described()["cases"]:
            if case["key"] in failed:
                settings = ", ".join(f"{k}={v}" for k, v in case["settings"].items())
                error = directory.load_failure(case["key"])["error"].splitlines()[0]
                rows.append((settings, case["seed"], error, f"failed/{case['key']}.json"))
        return Table(("case", "seed", "error", "traceback in"), rows, title="failed cases")

    def status(self) -> StudyStatus:
        """How many cases are done, failed and left, and about how long it takes.

        Arrays are not read: their files must be there and whole, see `StudyStatus.damaged`.
        """
        from mpodis.study.live import LiveStudy

        live = LiveStudy(self._there().path)
        is_running = live.is_running  # before the records, which may be newer
        live.refresh()
        return StudyStatus(
            live.name,
            live.directory,
            live.total,
            live.done,
            len(live.failures),
            len(live.damaged),
            is_running,
            live.seconds_left,
        )

    # --- tables

    def to_dataframe(self, *, along: str | None = None) -> pd.DataFrame:
        """One row a case that is done: settings, seed, scalars, seconds and CPU seconds.

        Parameters
        ----------
        along : str, optional
            Name of an axis of arrays in the records. There is one row for each of its points, with
            the arrays on this axis alone as further columns, and none for a case without it.
        """
        import pandas as pd

        return pd.DataFrame([row for record in self.records() for row in _rows(record, along)])

    def table(self, *quantities: str) -> Table:
        """Medians over the seeds, least and most in brackets, one row for all other settings.

        Parameters
        ----------
        *quantities : str
            Columns, by default the first numbers that the function returns, and the seconds.
        """
        described = self.described()
        frame = self.to_dataframe()
        names = list(described["axes"])
        shown = self._quantities(frame, names, quantities)
        rows = []
        if len(frame):
            groups: Any = [((), frame)]
            if names:
                groups = frame.groupby(names, sort=False, dropna=False)
            for values, group in groups:
                cells = [_spread(group[name].dropna().tolist()) for name in shown]
                rows.append((*values, len(group), *cells))
        status = self.status()
        notes = [
            *(("medians over the seeds (least to most)",) if len(described["seeds"]) > 1 else ()),
            *(
                (f"{status.failed} of {status.total} cases failed, see failures()",)
                if status.failed
                else ()
            ),
            *((f"{status.left} of {status.total} cases are left",) if status.left else ()),
        ]
        head = (*names, "cases", *shown)
        return Table(head, rows, title=f"study {described['name']}", notes=tuple(notes))

    def _quantities(
        self, frame: pd.DataFrame, axes: Iterable[str], given: Sequence[str]
    ) -> list[str]:
        taken = {*axes, "seed"}
        numeric = [n for n in frame.select_dtypes("number").columns if n not in taken]
        for name in given:
            if len(frame) and name not in frame.columns:
                raise ValueError(
                    f"the records have no number {name!r}; use one of {', '.join(numeric)}"
                )
        first = [name for name in numeric if name not in COSTS][:SHOWN]
        return list(given) or [*first, "seconds"]

    # --- arrays

    def to_xarray(self) -> xr.Dataset:
        """All records as one labelled Dataset.

        Settings of the grid and the seed are axes (listed cases are one axis "case", with their
        settings as coordinates along it); scalars are variables on these, arrays have their own
        axes besides. What is missing is NaN.

        Raises
        ------
        ImportError
            If xarray is not installed.
        """
        from mpodis.study.dataset import dataset

        return dataset(self.described(), self.records())

    def export(self, path: str | os.PathLike) -> Path:
        """Write all records to one file: .nc (netCDF 4), .parquet or .csv (without arrays).

        Raises
        ------
        ValueError
            If the name has another ending.
        ImportError
            If the library for it is not installed.
        """
        path = Path(path)
        writers = {".nc": _write_netcdf, ".parquet": _write_parquet, ".csv": _write_csv}
        if path.suffix not in writers:
            raise ValueError(f"{path} must end in {', '.join(writers)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        writers[path.suffix](self, path)
        return path

    # --- figures

    def plot(self, quantity: str | Sequence[str], *, x: str, **options: Any) -> Any:
        """Draw quantities against a coordinate, see `mpodis.study.plot_study`."""
        from mpodis.study.figures import plot_study

        return plot_study(self, quantity, x=x, **options)

    def fit(self, quantity: str, *, x: str, **options: Any) -> Table:
        """Fit a power law or an exponential, see `mpodis.study.fit_scaling`."""
        from mpodis.study.figures import fit_scaling

        return fit_scaling(self, quantity, x=x, **options)


def _named(record: Record, settings: Mapping[str, Any]) -> Record:
    """The record with these settings, and results under other names than they and the times."""
    taken = {**settings, "seed": record.seed, **{name: getattr(record, name) for name in COSTS}}
    scalars, arrays = apart_from_settings(record.scalars, record.arrays, taken)
    return dataclasses.replace(record, settings=dict(settings), scalars=scalars, arrays=arrays)


def _rows(record: Record, along: str | None) -> list[dict[str, Any]]:
    case = {
        **record.settings,
        **({} if record.seed is None else {"seed": record.seed}),
        **record.scalars,
        "seconds": record.seconds,
        "cpu_seconds": record.cpu_seconds,
    }
    if along is None:
        return [case]
    columns = {n: v.values.tolist() for n, v in record.arrays.items() if v.dims == (along,)}
    points = zip(*columns.values(), strict=True)
    return [{**case, **dict(zip(columns, point, strict=True))} for point in points]


def _spread(values: Sequence[float]) -> object:
    """Median, and least and most where they differ."""
    from mpodis.tables import number

    if not values:
        return None
    middle = statistics.median(values)
    if len(values) == 1 or min(values) == max(values):
        return middle
    return f"{number(middle, 3)} ({number(min(values), 3)} to {number(max(values), 3)})"


def _write_csv(results: StudyResults, path: Path) -> None:
    write_atomic(path, results.to_dataframe().to_csv(index=False))


def _write_parquet(results: StudyResults, path: Path) -> None:
    import io

    stream, frame = io.BytesIO(), results.to_dataframe()
    for name in frame.columns:
        values: list[Any] = frame[name].tolist()
        if any(isinstance(v, str) for v in values):  # as 4 and "none"; a column has one type
            frame[name] = [None if v is None or v != v else str(v) for v in values]
    frame.to_parquet(stream, index=False)
    write_atomic(path, stream.getvalue())


def _write_netcdf(results: StudyResults, path: Path) -> None:
    from mpodis.study.dataset import to_netcdf

    write_atomic(path, to_netcdf(results.to_xarray()))
