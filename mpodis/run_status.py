"""How far a run is, from the files in its directory: for `mpodis show`, `watch` and `resume`."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mpodis.compile_runs import CompileRun, is_compile_run
from mpodis.compiling import load_run
from mpodis.files import array_metadata, is_locked, load_arrays, read_json
from mpodis.jobs.directory import JobDirectory
from mpodis.resynthesis.front import ParetoFront, ParetoPoint, points_from_arrays
from mpodis.store import SearchProgress
from mpodis.study.live import LiveStudy
from mpodis.tables import Table, number

__all__ = ["RunStatus"]

PIECES = "pieces"
"""Folder of the pieces of `mpodis pareto` in its run directory."""


@dataclass(frozen=True)
class RunStatus:
    """A run directory of a command, or of `disentangle` or a computation of pieces in Python.

    Attributes
    ----------
    path : Path
    kind : {"job", "search", "compile", "pieces"}
        Of a command; of one call of `disentangle` with a `run_dir`, or of `compile_unitary` or
        `compile_state`; of one call of another function that stores finished pieces, as `pareto`
        does.
    """

    path: Path
    kind: str

    @classmethod
    def of(cls, path: str | os.PathLike) -> RunStatus:
        """The run in a directory.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is none, or it has an earlier format.
        """
        path = Path(path)
        file = path / "config.json"
        config = read_json(file) if file.is_file() else {}
        if SearchProgress.read(path) is not None:
            return cls(path, "search")
        if isinstance(config, dict) and {"kind", "identity"} <= set(config):
            return cls(path, "compile" if is_compile_run(path) else "pieces")
        JobDirectory.open(path)  # says what is wrong with anything else
        return cls(path, "job")

    @property
    def has_ended(self) -> bool:
        if self.kind == "job":
            return JobDirectory(self.path).has_ended
        if self.kind == "compile":
            return CompileRun.of(self.path).has_ended
        found = SearchProgress.read(self.path)
        return found is not None and bool(found.ended)

    @property
    def is_running(self) -> bool:
        """Whether a process works on it."""
        return is_locked(self.path)

    @cached_property
    def searches(self) -> dict[str, SearchProgress]:
        """The searches of the run that have begun, by their folders."""
        files = [self.path / "config.json"]
        if self.kind == "job":
            files = sorted(self.path.rglob("config.json"))
        found = {file.parent: SearchProgress.read(file.parent) for file in files}
        return {_name(path, self.path): one for path, one in found.items() if one is not None}

    @cached_property
    def pieces(self) -> dict[str, str]:
        """Stages and pieces that are done, by their names, each with what it found."""
        folder = self.path if self.kind == "pieces" else self.path / PIECES
        files = [*self.path.glob("stages/*.json"), *folder.glob("*.safetensors")]
        if self.kind in ("search", "compile"):
            return {}
        done = sorted(files, key=lambda file: (file.stat().st_mtime, file.name))
        return {file.stem: _found(file) for file in done}

    @cached_property
    def studies(self) -> dict[str, str]:
        """How many cases of the studies of an experiment are done, by the names of the studies."""
        found = {}
        for file in sorted(self.path.glob("*/study.json"), key=lambda file: file.stat().st_ctime):
            study = LiveStudy(file.parent)
            study.refresh()
            text = f"{study.done} of {study.total} cases are done"
            for what, cases in (("failed", study.failures), ("damaged", study.damaged)):
                text += f", {len(cases)} {what}" if cases else ""
            found[file.parent.name] = text
        return found

    def lines(self) -> dict[str, str]:
        """One line of text for every search, stage and piece, in the order of their work."""
        if self.kind == "compile":
            return {"compile": _compile_line(CompileRun.of(self.path))}
        lines = {name: f"{name} done{found}" for name, found in self.pieces.items()}
        lines |= {name: _line(name, one) for name, one in self.searches.items()}
        return lines | {name: f"{name}: {text}" for name, text in self.studies.items()}

    def tables(self) -> list[Table]:
        """The results so far."""
        if self.kind in ("search", "compile"):
            return [load_run(self.path).table()]
        found = []
        if self.searches:
            found.append(_searches_table(self.searches))
        front = self._front()
        if front is not None:
            found.append(front.table())
        elif self.pieces or self.studies:
            rows = [(name, text.strip(", ")) for name, text in self.pieces.items()]
            rows += self.studies.items()
            found.append(Table(("done", ""), rows))
        return found

    def _front(self) -> ParetoFront | None:
        """The front of the points that `pareto` has found so far."""
        folder = self.path if self.kind == "pieces" else self.path / PIECES
        file = folder / "config.json"
        config = read_json(file) if file.is_file() else {}
        if config.get("kind") != "pareto":
            return None
        best: dict[tuple[str, int], ParetoPoint] = {}
        for piece in sorted(folder.glob("*.safetensors")):
            arrays, header = load_arrays(piece)
            for point in points_from_arrays(arrays, json.loads(header["notes"])["points"]):
                known = best.setdefault((point.family, point.cnots), point)
                if point.loss < known.loss:
                    best[point.family, point.cnots] = point
        return ParetoFront(tuple(best.values()), config["identity"]["objective"]) if best else None


def _name(folder: Path, run: Path) -> str:
    return "disentangle" if folder == run else str(folder.relative_to(run))


def _found(file: Path) -> str:
    """What a finished stage or piece says of itself, as the end of a line."""
    if file.suffix == ".json":
        value = read_json(file).get("value")
        seconds = value.get("seconds") if isinstance(value, dict) else None
        return f" in {seconds:.1f} s" if isinstance(seconds, int | float) else ""
    notes = json.loads(array_metadata(file).get("notes", "{}"))
    points = notes.get("points") or []
    if not points:
        return ""
    return f", overlap up to {number(max(point['overlap'] for point in points))}"


def _compile_line(run: CompileRun) -> str:
    found = run.progress()
    if found is None:
        return f"{run.kind}: no record yet"
    best, records, seconds = found
    return (
        f"{run.kind}: {len(records)} records, {best.circuit.ansatz.depth} layers, 1 - |c| "
        f"{number(best.loss)}, begun from {best.start}, {seconds:.0f} s"
    )


def _line(name: str, found: SearchProgress) -> str:
    if not found.records or found.best is None:
        return f"{name}: no record yet"
    last = found.records[-1]
    state = f", {found.ended}" if found.ended else ""
    start = (
        f", initial guess {last['init'] + 1} of {found.n_init}"
        if last["init"] < found.n_init
        else ""
    )
    error = last["activations"]
    errors = "" if math.isnan(error) else f", act. error {error:.4f}"
    return (
        f"{name}: {len(found.records)} records, {last['depth']} layers{start}, overlap "
        f"{number(last['overlap'], 6)} (best so far {number(found.best['overlap'], 6)}){errors}, "
        f"{last['seconds']:.0f} s{state}"
    )


def _searches_table(searches: dict[str, SearchProgress]) -> Table:
    rows = []
    for name, found in searches.items():
        best, last = found.best or {}, (found.records or [{}])[-1]
        columns = ("depth", "overlap", "bound", "activations", "s_avg")
        figures = [best.get(column) for column in columns]
        status = found.ended or "unfinished"
        rows.append((name, status, len(found.records), *figures, last.get("seconds")))
    columns = ("search", "status", "records", "layers", "overlap", "bound", "act. error", "S_avg")
    return Table((*columns, "seconds"), rows, title="best so far")
