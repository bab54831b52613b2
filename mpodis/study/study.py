"""`Study`: a function over a grid of settings and seeds, each case computed once."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mpodis.arguments import check_count, check_positive, is_integer
from mpodis.files import locked, write_atomic
from mpodis.options import suggestion
from mpodis.progress import Bar, bar
from mpodis.study import running
from mpodis.study.cases import (
    Case,
    Labelled,
    check_size,
    code_of,
    expand,
    label_of,
    name_of,
    parameters_of,
)
from mpodis.study.live import LiveStudy
from mpodis.study.records import PARTS, DamagedRecord, StorageError, StudyDirectory
from mpodis.study.results import StudyResults
from mpodis.study.toml import check_figures, check_tables, read, write
from mpodis.tables import Table

__all__ = ["FUNCTIONS", "Study"]

log = logging.getLogger(__name__)

FUNCTIONS = {
    "compile_state": "mpodis.compiling:compile_state",
    "compile_unitary": "mpodis.compiling:compile_unitary",
    "compress": "mpodis.mpo:compress",
    "disentangle": "mpodis.disentangling:disentangle",
    "entanglement": "mpodis.measures:entanglement",
    "evaluate": "mpodis.study.functions:evaluate",
    "run": "mpodis.study.functions:run",
    "train": "mpodis.study.functions:train",
}
"""Functions that a study file may name without their module."""

PAGE_SECONDS = 2.0
"""The page is rewritten no more often than this."""


class Study(StudyResults):
    """A function over a grid of settings and seeds.

    Every combination of the listed cases, the values of the grid and the seeds is a case: one call
    of the function, whose result is one record in the study's directory. A record is kept under a
    hash of the settings, the content of the inputs, the seed and the code, so that what exists is
    never computed again, and a further seed or value computes only itself.

    Parameters
    ----------
    function : callable or str
        Takes keyword arguments and returns a result of this package or a dict of numbers, texts and
        arrays (``(dims, values)`` with named axes, as xarray takes them). By name: one of
        `FUNCTIONS`, or "module:name" of any other that can be imported.
    grid : mapping of name to values, optional
        Settings that are varied, in every combination. ``"operator.n"`` is an entry of the setting
        "operator". Values that are arrays, MPOs or layers may be a mapping of label to value.
    settings : mapping, optional
        Settings that are the same in all cases. A mapping with an entry "kind" is a target that
        each case makes with its seed, see `mpodis.targets`.
    cases : sequence of mappings, optional
        Settings that belong together, instead of or beside the grid; all set the same names.
    seeds : int or sequence of int
        So many seeds from 0 on, or these. The function gets ``seed=``, as do the targets.
    name : str, optional
        By default that of the function.
    code : str, optional
        What stands for the code that the results depend on; records of other code are not taken
        for these. By default the version of mpodis and, of a function that is not part of it, a
        hash of its source.
    description : str, optional
        A sentence for readers, as on the page of the study.
    minutes : float, optional
        About how long it takes on two cores, for readers.
    figures, tables : sequence of mappings, optional
        What `mpodis study run` makes at the end: arguments of `plot` by their names, and perhaps a
        "name"; and "quantities", a list for `table`.
    neutral : sequence of str
        Settings that results do not depend on, as the folder of a cache: no part of a key.

    Raises
    ------
    ValueError
        If the function takes no setting of a name (the error says the nearest one), a value is
        given twice, or there are seeds and nothing that takes them.
    TypeError
        If a setting has a type of which a record cannot say what it was.

    Examples
    --------
    >>> import tempfile
    >>> from mpodis import Study, disentangle
    >>> study = Study(
    ...     disentangle,
    ...     settings={"operator": {"kind": "random_mpo", "n": 4, "max_bond": 4}},
    ...     grid={"depth": [1, 2]},
    ...     seeds=2,
    ... )
    >>> table = study.run(tempfile.mkdtemp(), progbar=False)
    >>> table.columns
    ('depth', 'cases', 'overlap', 's_avg', 'loss', 'seconds')
    >>> study.to_dataframe().groupby("depth")["overlap"].median().is_monotonic_increasing
    True
    """

    def __init__(
        self,
        function: Callable[..., Any] | str,
        *,
        grid: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        cases: Sequence[Mapping[str, Any]] = (),
        seeds: int | Sequence[int] = 1,
        name: str | None = None,
        code: str | None = None,
        description: str = "",
        minutes: float | None = None,
        figures: Sequence[Mapping[str, Any]] = (),
        tables: Sequence[Mapping[str, Any]] = (),
        neutral: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.function = find_function(function) if isinstance(function, str) else function
        if not callable(self.function) or not hasattr(self.function, "__qualname__"):
            raise TypeError(
                f"function={function!r} has no name, by which records are told apart; give a "
                "function, with arguments that are fixed as settings="
            )
        for what, given in (
            *(("settings", settings or {}), ("grid", grid or {})),
            *((f"cases[{k}]", case) for k, case in enumerate(cases)),
        ):
            if not isinstance(given, Mapping):
                raise TypeError(f"{what}={given!r} must be a mapping of names to values")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name={name!r} must be a text")
        self.settings = dict(settings or {})
        self.grid = {key: _values(key, given) for key, given in (grid or {}).items()}
        self.listed = [dict(case) for case in cases]
        self.seeds = _seeds(seeds)
        self.name = name or getattr(self.function, "__name__", "study")
        self.code = code_of(self.function) if code is None else code
        check_positive("minutes", minutes, or_none=True)
        self.description, self.minutes = description, minutes
        self.figures, self.tables = check_figures(figures), check_tables(tables)
        self.neutral = tuple(neutral)
        self.cases: list[Case] = expand(
            self.function,
            settings=self.settings,
            grid=self.grid,
            cases=self.listed,
            seeds=self.seeds,
            code=self.code,
            neutral=self.neutral,
        )

    def extended(
        self, *, seeds: int | Sequence[int] | None = None, grid: Mapping[str, Any] | None = None
    ) -> Study:
        """The same study with other seeds, or with other values or further axes of the grid.

        Run in the same directory it computes what is not there.
        """
        return Study(
            self.function,
            grid={**self.grid, **(grid or {})},
            settings=self.settings,
            cases=self.listed,
            seeds=self.seeds if seeds is None else seeds,
            name=self.name,
            code=self.code,
            description=self.description,
            minutes=self.minutes,
            figures=self.figures,
            tables=self.tables,
            neutral=self.neutral,
        )

    @classmethod
    def from_toml(cls, path: str | os.PathLike) -> Study:
        """The study that a TOML file describes, see `to_toml`.

        The keys are the arguments of `Study`, "run" is its function, and the `path` of a target is
        relative to the file.

        Raises
        ------
        FileNotFoundError, ValueError
            There is no such file, or it says what a study does not take; the error names the
            nearest key.
        """
        function, given = read(path)
        return cls(function, **given)

    def to_toml(self, path: str | os.PathLike | None = None) -> str:
        """The study as TOML, which `from_toml` reads; also written to a file, if one is named.

        Raises
        ------
        ValueError
            If a setting is something that a file cannot hold, as an array or an MPO.

        Examples
        --------
        >>> from mpodis import Study, disentangle
        >>> operator = {"kind": "random_mpo", "n": 8, "max_bond": 4}
        >>> study = Study(disentangle, settings={"operator": operator}, grid={"depth": [2, 4]})
        >>> print(study.to_toml(), end="")
        run = "disentangle"
        name = "disentangle"
        seeds = 1
        <BLANKLINE>
        [settings]
        operator = { kind = "random_mpo", n = 8, max_bond = 4 }
        <BLANKLINE>
        [grid]
        depth = [2, 4]
        """
        name = name_of(self.function)
        short = next((short for short, place in FUNCTIONS.items() if place == name), name)
        from_zero = self.seeds == list(range(len(self.seeds)))
        text = write(
            {
                "run": short,
                "name": self.name,
                "description": self.description,
                "minutes": self.minutes,
                "seeds": len(self.seeds) if from_zero else self.seeds,
                "code": None if self.code == code_of(self.function) else self.code,
                "neutral": self.neutral,
                "settings": self.settings,
                "grid": self.grid,
                "cases": self.listed,
                "figures": self.figures,
                "tables": self.tables,
            },
            path,
        )
        if path is not None:
            write_atomic(path, text)
        return text

    def run(
        self,
        directory: str | os.PathLike,
        *,
        n_jobs: int = 1,
        threads: int = 1,
        client: Any = None,
        retry: bool = False,
        recompute: bool = False,
        resumable: bool = False,
        progbar: bool = True,
    ) -> Table:
        """Compute the cases that have no record yet; returns the table of all.

        Ctrl-C ends the workers at once; what is stored stays, and the same call goes on. A case
        that fails is listed (`failures`) and stops nothing.

        Parameters
        ----------
        directory : path
            New, or that of this study, perhaps with fewer values or seeds.
        n_jobs : int
            Processes on this machine (joblib's loky), -1 for one a core; 1 computes in this
            process.
        threads : int
            Of the numerical libraries in every process. More of them change last bits.
        client : distributed.Client, optional
            Computes the cases on a Dask cluster instead. Its workers must see the directory under
            the same path.
        retry : bool
            Compute cases again that failed.
        recompute : bool
            Allow inputs, or the code, to be other than those of records in the directory; these
            cases are computed again.
        resumable : bool
            Give each case a ``run_dir=``, so that one that is killed goes on where it was; for
            functions that take one, as `disentangle`.
        progbar : bool
            Show progress and the time left.

        Raises
        ------
        ValueError
            The directory holds another study, a file that it reads has changed, or the code has.
        BlockingIOError
            Another process computes this study.
        OSError
            The records cannot be written, as on a full disk, or the scheduler of the cluster is
            lost; what was stored before is kept.
        """
        workers = _workers(n_jobs, threads)
        parameters = parameters_of(self.function)
        if resumable and parameters is not None and "run_dir" not in parameters:
            raise ValueError(f"resumable=True, but {name_of(self.function)} takes no run_dir=")
        there = StudyDirectory(directory)
        self._check_there(there, recompute)
        there.path.mkdir(parents=True, exist_ok=True)
        with locked(there.path, watch="mpodis study watch"), running.interruptible():
            self._check_there(there, recompute)  # another process may have begun one
            there.write_study(self._described(workers if client is None else _cluster(client)))
            self.directory = there.path
            left, done = self._sorted_out(there, retry)
            task = running.Task(
                self.function,
                str(there.path.resolve()),
                self.code,
                parameters is None or "seed" in parameters,
                threads,
                resumable,
            )
            if client is not None:
                outcomes = running.on_dask(task, left, client)
            elif workers == 1:
                outcomes = running.here(task, left)
            else:
                outcomes = running.in_processes(task, left, min(workers, max(len(left), 1)))
            try:
                self._follow(outcomes, done, len(left), progbar)
            except (StorageError, running.SchedulerLost) as error:
                count = len(there.keys() & {case.key for case in self.cases})
                raise type(error)(
                    f"{error}; {count} of {len(self.cases)} cases are stored, the same call "
                    "computes the others"
                ) from error
        return self.table()

    def _follow(
        self,
        outcomes: Generator[running.Outcome],
        done: Sequence[running.Outcome],
        left: int,
        progbar: bool,
    ) -> None:
        """Show and log what comes back, and rewrite the page."""
        assert self.directory is not None
        live = LiveStudy(self.directory)
        for outcome in done:
            live.add(outcome.key, outcome.scalars, outcome.seconds)
        live.refresh()  # failures of earlier runs
        _write_page(live, is_running=left > 0)  # to be opened before the first case has ended
        failures, written = 0, time.monotonic()
        shown = bar(total=live.total, desc=self.name, enabled=progbar, done=live.total - left)
        try:
            # workers are ended before the page is written
            with shown as progress, contextlib.closing(outcomes):
                for outcome in outcomes:
                    failures += bool(outcome.error)
                    self._note(progress, outcome, failures)
                    if outcome.error:
                        live.fail(outcome.key, outcome.error)
                    else:
                        live.add(outcome.key, outcome.scalars, outcome.seconds)
                    if time.monotonic() - written > PAGE_SECONDS:
                        _write_page(live, is_running=True)
                        written = time.monotonic()
        finally:
            _write_page(live, is_running=False)

    def _note(self, shown: Bar, outcome: running.Outcome, failures: int) -> None:
        if outcome.error:
            log.warning("%s: a case failed: %s", self.name, outcome.error)
        first = next(
            ((name, value) for name, value in outcome.scalars.items() if isinstance(value, float)),
            None,
        )
        figures: dict[str, Any] = {} if first is None else {first[0]: first[1]}
        if failures:
            figures["failed"] = str(failures)
        shown.update(1, **figures)

    def _sorted_out(
        self, there: StudyDirectory, retry: bool
    ) -> tuple[list[Case], list[running.Outcome]]:
        """The cases that are to be computed, and what those gave that are done."""
        there_are, failed = there.keys(), there.failed_keys()
        left, done = [], []
        for case in self.cases:
            if case.key in there_are:
                try:
                    record = self._record(there, case.key, again=True)
                    done.append(running.Outcome(case.key, record.seconds, record.scalars))
                    continue
                except DamagedRecord as error:
                    log.warning("%s", error)
                    there.remove(case.key)
            elif case.key in failed and not retry:
                continue
            left.append(case)
        return left, done

    def _check_there(self, there: StudyDirectory, recompute: bool) -> None:
        """That the directory is new, or that of this study."""
        if there.exists:
            self._check_same(there.read_study(), there, recompute)
        elif there.path.exists() and not there.path.is_dir():
            raise ValueError(f"{there.path} is a file; give a directory")
        elif there.path.exists() and any(f.name not in PARTS for f in there.path.iterdir()):
            raise ValueError(
                f"{there.path} is not empty and holds no study; give another directory"
            )

    def _check_same(self, found: Mapping[str, Any], there: StudyDirectory, recompute: bool) -> None:
        if found["function"] != name_of(self.function):
            raise ValueError(
                f"{there.path} holds a study of {found['function']}, not of "
                f"{name_of(self.function)}; give another directory"
            )
        if recompute or not there.keys():
            return
        if found["code"] != self.code:
            raise ValueError(
                f"the records in {there.path} were made by other code ({found['code']}; now "
                f"{self.code}); recompute=True computes them again, another directory keeps them"
            )
        for path, digest in self._inputs().items():
            if found["inputs"].get(path, digest) != digest:
                raise ValueError(
                    f"{path} has changed under the records in {there.path}; restore it, or compute "
                    "them again with recompute=True, or give another directory"
                )

    def _inputs(self) -> dict[str, str]:
        return {path: digest for case in self.cases for path, digest in case.inputs.items()}

    def _described(self, workers: int) -> dict[str, Any]:
        names = dict.fromkeys(name for case in self.listed for name in case)
        axes = {
            **{n: list(dict.fromkeys(label_of(c[n]) for c in self.listed)) for n in names},
            **{n: [label_of(value) for value in values] for n, values in self.grid.items()},
        }
        return {
            "name": self.name,
            "function": name_of(self.function),
            "code": self.code,
            "settings": ", ".join(f"{n}={label_of(v)}" for n, v in self.settings.items()),
            "axes": axes,
            "listed": list(names),
            "seeds": list(dict.fromkeys(case.seed for case in self.cases)),
            "workers": workers,
            "description": self.description,
            "figures": self.figures,
            "tables": self.tables,
            "inputs": self._inputs(),
            "cases": [
                {"key": case.key, "settings": case.settings, "seed": case.seed}
                for case in self.cases
            ],
        }

    def __str__(self) -> str:
        if self.directory is None:
            return (
                f"study {self.name} of {name_of(self.function)}: {len(self.cases)} cases, not run"
            )
        return str(self.status())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{self}</p>" if self.directory is None else self.status()._repr_html_()


def _write_page(live: LiveStudy, *, is_running: bool) -> None:
    from mpodis.study.page import write_page

    try:
        write_page(live, is_running=is_running)
    except OSError as error:  # records matter, and theirs are raised
        log.warning("the page of the study could not be written: %s", error)


def find_function(name: str) -> Callable[..., Any]:
    """A function by its name in `FUNCTIONS`, or as "module:name".

    Raises
    ------
    ValueError
        If there is none.
    """
    place = FUNCTIONS.get(name, name)
    module, colon, attribute = place.partition(":")
    if not colon:
        raise ValueError(
            f"there is no function {name!r}; {suggestion(name, FUNCTIONS)}, or name any other as "
            "module:name"
        )
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"there is no function {name!r}: {error}") from None
    except Exception as error:  # of the user's module, while it is imported
        raise ValueError(
            f"{module!r} of the function {name!r} cannot be imported: {type(error).__name__}: "
            f"{error}"
        ) from error
    if not callable(found):
        raise ValueError(f"{name!r} is no function")
    return found


def _values(name: str, given: Any) -> list[Any]:
    """Values of an axis; those of a mapping keep their labels."""
    if isinstance(given, Mapping):
        return [Labelled(str(label), value) for label, value in given.items()]
    if isinstance(given, str) or not isinstance(given, Sequence | range):
        if isinstance(given, np.ndarray) and given.ndim == 1:
            return given.tolist()
        raise ValueError(
            f"the grid has {name}={label_of(given)!r}, which is not several values; write it as a "
            "list, or among the settings"
        )
    check_size(len(given))
    return list(given)


def _seeds(given: int | Sequence[int]) -> list[int]:
    if is_integer(given):
        if int(given) < 1:
            raise ValueError(
                f"seeds={given!r} must be a number of seeds, 1 or more, or a list of them"
            )
        check_size(int(given))
        return list(range(int(given)))
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise ValueError(f"seeds={given!r} must be a number of seeds, 1 or more, or a list of them")
    found = list(given)
    if (
        not found
        or not all(is_integer(seed) and 0 <= seed < 2**63 for seed in found)
        or len(set(found)) < len(found)
    ):
        raise ValueError(f"seeds={given!r} must be different whole numbers, 0 or more")
    return [int(seed) for seed in found]


def _workers(n_jobs: int, threads: int) -> int:
    """How many processes; with their threads no more than there are cores."""
    import joblib

    cores = joblib.cpu_count()
    check_count("threads", threads, most=1024)
    if isinstance(n_jobs, bool) or not isinstance(n_jobs, int) or n_jobs == 0 or n_jobs < -1:
        raise ValueError(f"n_jobs={n_jobs!r} must be a number of processes, or -1 for all cores")
    if n_jobs == -1:
        return max(1, cores // threads)
    if n_jobs > 1 and n_jobs * threads > cores:
        raise ValueError(
            f"n_jobs={n_jobs} processes of threads={threads} are more than the {cores} cores here; "
            "use n_jobs=-1"
        )
    return n_jobs


def _cluster(client: Any) -> int:
    """Threads of all workers of a Dask client."""
    return max(1, sum(client.nthreads().values()))
