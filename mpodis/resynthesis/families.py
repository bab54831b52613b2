"""`pareto`: all families of circuits for one operator, and what a search makes of them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.spec import from_spec
from mpodis.factorization import Factorization
from mpodis.files import read_json, write_json
from mpodis.mpo import Compressed
from mpodis.progress import bar
from mpodis.resynthesis.alone import cnots_alone
from mpodis.resynthesis.front import ParetoFront
from mpodis.resynthesis.points import ParetoPoint, load_points, save_points
from mpodis.resynthesis.search import Search, check_count
from mpodis.resynthesis.task import Task

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["FAMILIES", "pareto"]

log = logging.getLogger(__name__)

FAMILIES = ("SO(4)", "O(4)", "scaffold", "CNOTs alone", "pruned", "searched")
"""Brickwalls of SO(4) and of O(4) gates; CNOTs with one-qubit gates between, and without; SO(4)
brickwalls pruned; and the search from all of them over where gates stand."""

FORMAT = "mpodis-pareto-1"


def pareto(
    mpo: MatrixProductOperator | Compressed,
    *,
    max_bond: int = 1,
    objective: str = "overlap",
    inputs=None,
    covariance=None,
    families: Sequence[str] = FAMILIES,
    depths: Sequence[int] = (1, 2, 4, 8),
    max_cnots: int | None = None,
    n_init: int = 4,
    rounds: int = 2,
    trials: int = 3,
    sweeps: int = 8,
    beam: int = 4,
    max_sweeps: int = 100,
    shape: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
    run_dir: str | os.PathLike | None = None,
    progbar: bool = False,
) -> ParetoFront:
    """The best overlap for every number of CNOTs: a Pareto front of circuits for one operator.

    All gates are real. A gate of SO(4) is two CNOTs with one-qubit gates around them, and these
    are rotations of one angle (the two SU(2) factors of SO(4) by Euler angles); so circuits of
    SO(4) gates are circuits of CNOTs and rotations, and the search over where gates of one or two
    CNOTs stand is one over CNOT geometries. Which wire controls a CNOT makes no difference between
    free gates in O(2), to which Hadamard gates belong, and reflections can be moved into the core.

    Parameters
    ----------
    mpo : MatrixProductOperator or Compressed
        The operator, up to 10 qubits.
    max_bond, objective, inputs, covariance, shape, seed
        As for `disentangle`.
    families : sequence of str
        Of `FAMILIES`: brickwalls of free gates ("SO(4)", "O(4)") and of CNOTs with one-qubit gates
        between them ("scaffold"), each of `depths` and both parities; "CNOTs alone", a beam search
        over where they stand; "pruned", the SO(4) brickwalls with gates taken out, one by one; and
        "searched", where gates are put in and taken out by turns, from all circuits before.
    depths : sequence of int
        Layers a side; scaffolds have twice as many.
    max_cnots : int, optional
        No more are searched for; by default those of the deepest brickwall.
    starts : int
        Of every brickwall and scaffold.
    rounds : int
        Of putting gates in and taking them out.
    trials, sweeps : int
        Ways tried from every point, and sweeps for the best of them, see `prune`.
    beam : int
        Of the search for CNOTs alone.
    max_sweeps : int
        Of every brickwall and scaffold.
    run_dir : path, optional
        Directory for what is done, piece by piece; the same call goes on from there.
    progress : bool

    Returns
    -------
    ParetoFront

    Raises
    ------
    ValueError
        Options that are not known or out of range, an operator too large, a directory of another
        call, and what `disentangle` refuses.
    """
    if isinstance(families, str):
        families = (families,)
    effort = _Effort(
        tuple(families), tuple(depths), max_cnots, n_init, rounds, trials, sweeps, beam, max_sweeps
    )
    task = Task.build(
        mpo,
        shape=shape,
        max_bond=max_bond,
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
    )
    run = _Run(task, effort)
    pieces = run.pieces()
    folder = None if run_dir is None else _opened(Path(run_dir), task, effort)
    with bar(total=len(pieces), desc="pareto", enabled=progbar) as shown:
        for name, work in pieces.items():
            run.take(name, work, folder)
            shown.update(last=name)
    return ParetoFront(tuple(run.points), objective)


@dataclass(frozen=True)
class _Effort:
    """What is tried, see `pareto`."""

    families: tuple[str, ...]
    depths: tuple[int, ...]
    max_cnots: int | None
    n_init: int
    rounds: int
    trials: int
    sweeps: int
    beam: int
    max_sweeps: int

    def __post_init__(self) -> None:
        wrong = [name for name in self.families if name not in FAMILIES]
        if wrong or not self.families:
            what = f"family {wrong[0]!r} is not known" if wrong else "families is empty"
            raise ValueError(f"{what}; use some of {', '.join(FAMILIES)}")
        if not self.depths:
            raise ValueError("depths is empty; give at least one number of layers")
        for depth in self.depths:
            check_count("depth", depth, 1)
        if self.max_cnots is not None:
            check_count("max_cnots", self.max_cnots, 0)
        for name in ("n_init", "rounds", "trials", "sweeps", "beam", "max_sweeps"):
            check_count(name, getattr(self, name), 1)


class _Run:
    """The pieces of work, and the points that they have found.

    Attributes
    ----------
    points : list of ParetoPoint
        The best of every family for each number of CNOTs.
    tried : dict or None
        What the search has tried, see `Search`.
    """

    def __init__(self, task: Task, effort: _Effort) -> None:
        self.task, self.effort = task, effort
        self.points: list[ParetoPoint] = []
        self.tried: dict | None = None
        self.most = effort.max_cnots
        if self.most is None:
            deepest = self._pair(lambda n: brickwall(n, max(effort.depths), min(2, n)))
            self.most = sum(2 for side in deepest for p in side.placements if p.width == 2)

    def pieces(self) -> dict[str, Callable[[], list[ParetoPoint]]]:
        """What is to be done, in this order, by the name of its file."""
        families, found = self.effort.families, {}
        for parity in (0, 1):
            # what is pruned must be there
            if {"SO(4)", "pruned"} & set(families):
                found[f"so4-{parity}"] = partial(self._brickwalls, "SO(4)", "SO", parity)
            if "O(4)" in families:
                found[f"o4-{parity}"] = partial(self._brickwalls, "O(4)", "O", parity)
            if "scaffold" in families:
                found[f"scaffold-{parity}"] = partial(self._scaffolds, "scaffold", parity)
        if "CNOTs alone" in families:
            found["alone"] = partial(self._alone, "CNOTs alone")
        if "pruned" in families:
            found["pruned"] = partial(self._prune, "pruned")
        if "searched" in families:
            for k in range(1, self.effort.rounds + 1):
                found[f"search-{k}-up"] = partial(self._search, "searched", up=True)
                found[f"search-{k}-down"] = partial(self._search, "searched", up=False)
        return found

    def take(self, name: str, work: Callable, folder: Path | None) -> None:
        """Do a piece, or take it over from its file."""
        file = None if folder is None else folder / f"{name}.safetensors"
        if file is not None and file.exists():
            new, notes = load_points(file)
            self.tried = notes["tried"]
        else:
            new = work()
            if file is not None:
                save_points(file, new, tried=self.tried)
        best: dict[tuple, ParetoPoint] = {}
        for point in (*self.points, *new):
            known = best.setdefault((point.family, point.cnots), point)
            if point.loss < known.loss:
                best[point.family, point.cnots] = point
        self.points = list(best.values())
        log.info("pareto: %s", name)

    def _pair(self, make: Callable[[int], Ansatz]) -> tuple[Ansatz, Ansatz]:
        """One side and its mirror image; none where a side has no wires."""
        left, right = (make(n) if n else Ansatz(0, ()) for n in self.task.wires)
        return left, right.reversed()

    def _begin(
        self, make: Callable[[int], Ansatz], family: str, shallower: Factorization | None = None
    ) -> ParetoPoint:
        effort = {"n_init": self.effort.n_init, "sweeps": self.effort.max_sweeps}
        return self.task.begin(*self._pair(make), family, shallower=shallower, **effort)

    def _brickwalls(self, family: str, group: str, parity: int) -> list[ParetoPoint]:
        """Of all depths, from the identity and from the shallower one, whichever is better."""
        points: list[ParetoPoint] = []
        for depth in sorted(self.effort.depths):

            def make(n: int, depth: int = depth) -> Ansatz:
                return brickwall(n, depth, min(2, n), parity=parity, group=group)

            shallower = points[-1].factorization if points else None
            points.append(self._begin(make, family, shallower))
        return points

    def _scaffolds(self, family: str, parity: int) -> list[ParetoPoint]:
        """CNOTs cannot begin as the identity: each depth by itself."""
        points = []
        for depth in self.effort.depths:

            def make(n: int, depth: int = depth) -> Ansatz:
                # one-qubit gates next to the core would be part of it
                spec = f"{2 * depth}*(1b + CNOT)" if n > 1 else "1b"
                return from_spec(spec, n, parity=parity)

            points.append(self._begin(make, family))
        return points

    def _alone(self, family: str) -> list[ParetoPoint]:
        return cnots_alone(self.task, family, most=self.most, beam=self.effort.beam)

    def _prune(self, family: str) -> list[ParetoPoint]:
        search = Search(
            self.task,
            [p for p in self.points if p.family == "SO(4)"],
            trials=self.effort.trials,
            sweeps=self.effort.sweeps,
        )
        search.descend(family)
        return [p for p in search.points if p.family == family]

    def _search(self, family: str, *, up: bool) -> list[ParetoPoint]:
        # O(4) gates may cost three CNOTs, and would stay in O(4)
        known = [p for p in self.points if p.family not in ("O(4)", "CNOTs alone")]
        known = [p for p in known if p.cnots <= self.most]
        if not any(p.cnots == 0 for p in known):
            known.append(self._begin(lambda n: Ansatz(n, ()), family))
        search = Search(
            self.task,
            known,
            trials=self.effort.trials,
            sweeps=self.effort.sweeps,
            tried=self.tried,
        )
        if up:
            search.ascend(family, most=self.most)
        else:
            search.descend(family)
        self.tried = search.tried
        return [p for p in search.points if p.family == family]


def _opened(folder: Path, task: Task, effort: _Effort) -> Path:
    """The directory of this call, new or of a call before."""
    digest = hashlib.sha256(np.ascontiguousarray(task.target).tobytes())
    if task.covariance is not None:
        digest.update(np.ascontiguousarray(task.covariance).tobytes())
    config = {
        "format": FORMAT,
        "effort": asdict(effort),
        "shape": task.shape,
        "max_bond": task.max_bond,
        "objective": task.objective,
        "seed": task.seed,
        "fingerprint": digest.hexdigest(),
    }
    config = json.loads(json.dumps(config))
    file = folder / "pareto.json"
    if file.exists():
        there = read_json(file)
        changed = [key for key in config if there.get(key) != config[key]]
        if changed:
            raise ValueError(
                f"{folder} holds another run (its {', '.join(changed)} differ); choose another "
                "run_dir, or delete this one"
            )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_json(file, config)
    return folder
