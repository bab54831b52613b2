"""Run directories of `compile_unitary` and `compile_state`, as pieces of a `PieceStore`.

    config.json                 which of the two it is, and all options but the time limit
    problem.safetensors         target, Hamiltonian and start
    stretch-0000.safetensors    a part of a descent: its records, its best circuit, its last state
    progress.safetensors        the best circuit and the history so far
    result.safetensors          the result, once there is one

A search that is repeated makes the same stretches. So a run that was killed is called again, takes
those that are there, goes on behind the last record of the last one, and ends, bit by bit, with the
result that it would have had.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.absorption import distance
from mpodis.circuit import Circuit
from mpodis.factorization import dump_ansatz, load_ansatz
from mpodis.files import read_json
from mpodis.optimise.compile_search import (
    Best,
    CompileSearch,
    Hamiltonian,
    Journal,
    Stretch,
)
from mpodis.optimise.state import State
from mpodis.sites import legs_of
from mpodis.store import PieceStore

__all__ = ["CompileProblem", "CompileRun", "is_compile_run"]

CHECKPOINT_SECONDS = 5.0
"""Time between two checkpoints."""
KINDS = ("compile_unitary", "compile_state")
SAME = 1e-9
"""Distance up to which a target, or a start, is the one that is stored but for rounding."""


@dataclass(frozen=True, eq=False)
class CompileProblem:
    """What a run was begun with.

    Attributes
    ----------
    unit : list of arrays (left bond, input, output, right bond)
        The target, of norm 1.
    hamiltonian : Hamiltonian or None
    start : Circuit or str
    """

    unit: list[np.ndarray]
    hamiltonian: Hamiltonian | None
    start: Circuit | str

    def is_same(self, other: CompileProblem) -> bool:
        """Whether target and start are those of another problem but for rounding."""
        if legs_of(self.unit) != legs_of(other.unit) or distance(self.unit, other.unit) > SAME:
            return False
        a, b = self.start, other.start
        if isinstance(a, str) or isinstance(b, str):
            return a == b
        return a.ansatz == b.ansatz and all(
            np.allclose(x, y, rtol=0, atol=SAME) for x, y in zip(a.gates, b.gates, strict=True)
        )


def is_compile_run(path: str | os.PathLike) -> bool:
    """Whether a directory holds a run of the compiler."""
    file = Path(path) / "config.json"
    config = read_json(file) if file.is_file() else None
    return isinstance(config, dict) and config.get("kind") in KINDS


class CompileRun(Journal):
    """The run in a directory.

    Parameters
    ----------
    path : Path
    identity : dict
        All options that the result depends on, as JSON.
    kind : {"compile_unitary", "compile_state"}
    began : float, optional
        By `time.perf_counter`; by default now.

    Raises
    ------
    ValueError
        The directory holds another run.
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], *, kind: str, began: float | None = None
    ) -> None:
        super().__init__(began)
        self.kind, self.identity = kind, identity
        self._store = PieceStore(path, identity, kind=kind)
        self._count = -1
        self._saved = self._shown = time.monotonic()

    @classmethod
    def of(cls, path: Path) -> CompileRun:
        """The run that a directory holds, see `is_compile_run`."""
        config = read_json(path / "config.json")
        return cls(path, config["identity"], kind=config["kind"])

    # --- pieces of any run

    def problem(self, given: CompileProblem) -> CompileProblem:
        """The problem as it is stored; stored now where it is not.

        Raises
        ------
        ValueError
            It is another one than is given.
        """
        stored = self.stored_problem()
        if stored is None:
            h, start = given.hamiltonian, given.start
            arrays = _numbered("target", given.unit)
            notes: dict[str, Any] = {"sites": len(given.unit), "start": start, "terms": None}
            if h is not None:
                arrays |= _numbered("term", list(h.terms.values()))
                notes |= {"terms": [list(wires) for wires in h.terms], "t": h.t, "error": h.error}
            if isinstance(start, Circuit):
                arrays |= _numbered("start", start.gates)
                notes["start"] = {"ansatz": dump_ansatz(start.ansatz)}
            self._store.save("problem", arrays, notes)
            return given
        if not stored.is_same(given):
            raise ValueError(
                f"{self._store.path} holds a run with another target or start; choose another "
                "directory, or delete this one"
            )
        return stored

    def stored_problem(self) -> CompileProblem | None:
        """The problem that is stored, if there is one."""
        found = self._store.load("problem")
        if found is None:
            return None
        arrays, notes = found
        hamiltonian = None
        if notes["terms"] is not None:
            terms = {tuple(wires): arrays[f"term.{k}"] for k, wires in enumerate(notes["terms"])}
            hamiltonian = Hamiltonian(terms, notes["t"], notes["error"])
        start = notes["start"]
        if isinstance(start, dict):
            start = _circuit(start["ansatz"], "start", arrays)
        unit = [arrays[f"target.{k}"] for k in range(notes["sites"])]
        return CompileProblem(unit, hamiltonian, start)

    def save_result(self, circuit: Circuit, notes: dict[str, Any]) -> None:
        """Keep the result: its circuit, and everything else as JSON."""
        notes = {"ansatz": dump_ansatz(circuit.ansatz), **notes}
        self._store.save("result", _numbered("gate", circuit.gates), notes)

    @property
    def has_ended(self) -> bool:
        """Whether there is a result; one that a time limit has ended may go on."""
        return "result" in self._store

    def result(self) -> tuple[Circuit, dict[str, Any]] | None:
        """What `save_result` was given."""
        found = self._store.load("result")
        if found is None:
            return None
        arrays, notes = found
        return _circuit(notes.pop("ansatz"), "gate", arrays), notes

    # --- the search

    def show(self, search: CompileSearch) -> None:
        """Keep the best circuit and the history of a search, if it is time to."""
        if search.best is not None and time.monotonic() - self._shown >= CHECKPOINT_SECONDS:
            self.save_progress(search)

    def save_progress(self, search: CompileSearch) -> None:
        """Keep the best circuit and the history of a search."""
        assert search.best is not None
        arrays, notes = _best_pieces(search.best)
        notes |= {"records": search.records, "seconds": search.seconds}
        self._store.save("progress", arrays, notes)
        self._shown = time.monotonic()

    def progress(self) -> tuple[Best, list[dict], float] | None:
        """The best circuit, the history, and the seconds that were last kept."""
        found = self._store.load("progress")
        if found is None:
            return None
        arrays, notes = found
        best = _best(notes, arrays)
        assert best is not None
        return best, notes["records"], notes["seconds"]

    def begin(self) -> Stretch:
        self._count += 1
        found = self._store.load(self._name)
        if found is None:
            return Stretch()
        arrays, notes = found
        own = {name[6:]: x for name, x in arrays.items() if name.startswith("state/")}
        state = State.from_arrays(own, notes["state"], notes["state_records"])
        self.catch_up(notes["records"][-1]["seconds"])
        settings = notes["settings"]
        settings["origin"] = [arrays[f"origin.{k}"] for k in range(settings["origin"])]
        return Stretch(notes["records"], _best(notes, arrays), state, settings)

    def note(self, stretch: Stretch) -> None:
        if time.monotonic() - self._saved >= CHECKPOINT_SECONDS:
            self.save(stretch)

    def save(self, stretch: Stretch) -> None:
        assert stretch.state is not None
        arrays, notes = _best_pieces(stretch.best)
        own, numbers = stretch.state.to_arrays()
        origin = stretch.settings["origin"]
        arrays |= {f"state/{name}": x for name, x in own.items()} | _numbered("origin", origin)
        notes |= {
            "records": stretch.records,
            "settings": {**stretch.settings, "origin": len(origin)},
            "state": numbers,
            "state_records": stretch.state.records,
        }
        self._store.save(self._name, arrays, notes)
        self._saved = time.monotonic()

    @property
    def has_more(self) -> bool:
        return self._name_of(self._count + 1) in self._store

    @property
    def _name(self) -> str:
        return self._name_of(self._count)

    @staticmethod
    def _name_of(count: int) -> str:
        return f"stretch-{count:04d}"


def _numbered(name: str, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{name}.{k}": np.asarray(array) for k, array in enumerate(arrays)}


def _circuit(ansatz: str, name: str, arrays: dict[str, np.ndarray]) -> Circuit:
    known = load_ansatz(ansatz)
    return Circuit(known, tuple(arrays[f"{name}.{k}"] for k in range(len(known.placements))))


def _best_pieces(best: Best | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if best is None:
        return {}, {"best": None}
    values = {name: getattr(best, name) for name in ("start", "loss", "engine", "is_full")}
    notes = {"best": {"ansatz": dump_ansatz(best.circuit.ansatz), **values}}
    return _numbered("best", best.circuit.gates), notes


def _best(notes: dict[str, Any], arrays: dict[str, np.ndarray]) -> Best | None:
    if notes["best"] is None:
        return None
    values = dict(notes["best"])
    circuit = _circuit(values.pop("ansatz"), "best", arrays)
    return Best(circuit=circuit, **values)
