"""A run of several stages, one `Loop` each, behind the interface of a single one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mpodis.optimise.grow import Stage, advance, bound_gates, plan
from mpodis.optimise.loop import Loop
from mpodis.optimise.problem import Point, Problem
from mpodis.optimise.result import Disentangled, History
from mpodis.optimise.settings import Settings

__all__ = ["Chain"]

QUICK = {"tol": 1e-3, "init_sweeps": 20}
"""Settings of the stages between wide gates and the circuit: they only prepare the next."""
QUICK_SWEEPS = 20
GROWING = 5
"""A stage that only grows, and is not challenged, takes one sweep in so many of those at most."""
MOST_WIRES = 8
"""Of the operators whose circuits grow unless told otherwise."""


@dataclass(frozen=True)
class _Rival:
    """What a leap challenges: loss, gates, name of the start, and the leap's first stage."""

    loss: float
    point: Point
    name: int
    since: int


class Chain:
    """Runs a problem under its settings, stage by stage; see `Loop` for the interface.

    Every stage is a function of the one before, and the stages of a circuit are the first ones of
    any deeper circuit: what f it reaches, a deeper one of the same settings reaches too.
    """

    def __init__(self, problem: Problem, settings: Settings, *, executor=None) -> None:
        self.problem, self._executor = problem, executor
        # the whole circuit says which engine all stages have, and refuses what does not fit
        self._whole = Loop(problem, settings, executor=executor)
        self.settings = self._whole.settings
        if self.settings.init == "auto":
            self.settings = replace(self.settings, init=_automatic(problem, self.settings))
            self._whole.settings = self.settings
        grown = self.settings.init == "grown" and problem.initial is None
        self._stages = plan(problem.left, problem.right) if grown else [_single(problem)]
        self._number, self._done = 0, []
        self._winners: list[int] = []
        self._names = self.settings.n_init
        self._rival: _Rival | None = None
        self._open(None, range(self.settings.n_init), 0.0)

    @property
    def stage(self) -> Stage:
        return self._stages[self._number]

    def _open(self, point: Point | None, names, elapsed: float) -> None:
        """Make the loop of the present stage, which begins at a point or at its starts."""
        if len(self._stages) == 1:
            self._loop = self._whole
            return
        stage = self.stage
        problem = replace(self.problem, left=stage.left, right=stage.right, initial=point)
        self._loop = Loop(
            problem,
            self._settings(stage),
            numbers=names,
            elapsed=elapsed,
            stage=self._number,
            executor=self._executor,
        )

    def _settings(self, stage: Stage) -> Settings:
        """The run's, as a stage has them."""
        settings = self.settings
        afresh = stage.begins == "start" or stage.rivals
        count = settings.n_init if afresh else 1 + settings.n_perturbed
        options = {"init": "identity", "n_init": count}
        if stage.begins == "grow" and not stage.challenged:  # what is compared gets the same
            options["max_sweeps"] = math.ceil(settings.max_sweeps / GROWING)
        elif stage.begins in ("coarse", "compile") and not stage.decides:
            options |= QUICK
            if stage.begins == "compile":
                options |= {"n_init": 1, "max_sweeps": min(QUICK_SWEEPS, settings.max_sweeps)}
        return replace(settings, **options)

    @property
    def records(self) -> list[dict]:
        return [*self._done, *self._loop.records]

    @property
    def total(self) -> int:
        """Sweeps that the run takes at most."""
        several = len(self._stages) > 1
        each = [self._settings(stage) if several else self.settings for stage in self._stages]
        return sum(one.max_sweeps + (one.n_init - 1) * one.init_sweeps for one in each)

    @property
    def status(self) -> str | None:
        """How it ended; None while it goes on."""
        ended = self._loop.status
        enough = ended == "max_seconds" or (ended == "exact" and self._rival is None)
        return ended if enough or self._number + 1 == len(self._stages) else None

    def step(self) -> dict:
        """Do one sweep of whichever stage is next; returns its record."""
        if self._loop.status is not None:
            self._next()
        return self._loop.step()

    def _next(self) -> None:
        """Go on to the next stage."""
        before, (loss, point, name) = self.stage, self._standing()
        self._winners, self._done = self._lineage(name), self.records
        if self.stage.decides:
            self._rival = None
        self._number += 1
        count = self._settings(self.stage).n_init
        if self.stage.rivals:
            self._rival = _Rival(loss, point, name, self._number)
            names, point = self._named(count), None
        else:
            point = advance(before, self.stage, point, seed=[self.settings.seed, self._number])
            names = [name, *self._named(count - 1)]  # what goes on keeps its name
        self._open(point, names, self._loop.elapsed)

    def _named(self, count: int) -> list[int]:
        self._names += count
        return list(range(self._names - count, self._names))

    def _standing(self) -> tuple[float, Point, int]:
        """Loss, gates and start's name of the present stage, or of what it has not beaten."""
        loss = self._loop.loss()
        if self.stage.decides and self._rival.loss <= loss:
            return self._rival.loss, self._rival.point, self._rival.name
        return loss, self._loop.point(), self._loop.init

    def _lineage(self, name: int) -> list[int]:
        """The winner of every stage up to the present one."""
        winners, rival = [*self._winners, name], self._rival
        if rival is not None and name == rival.name:
            winners[rival.since :] = [name] * (len(winners) - rival.since)
        return winners

    def result(self) -> Disentangled:
        """The factorization where the chain stands, see `Loop.result`."""
        at, (_, point, name) = self.stage, self._standing()
        if self._rival is not None and not self.stage.decides:
            # stopped among wide gates: what they challenge is what there is
            at = self._stages[self._rival.since - 1]
            point, name = self._rival.point, self._rival.name
        self._whole.go_to(advance(at, _single(self.problem), point, seed=()))
        return replace(
            self._whole.result(),
            status=self.status or "max_sweeps",
            history=History(tuple(self.records)),
            winners=tuple(self._lineage(name)),
            init=name,
            seconds=self._loop.elapsed,
        )

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays and numbers from which `load` goes on exactly."""
        arrays, numbers = self._loop.state()
        if len(self._stages) > 1 and self._loop.problem.initial is not None:
            arrays |= self._loop.problem.initial.arrays("initial.")
        rival = None
        if self._rival is not None:
            arrays |= self._rival.point.arrays("rival.")
            rival = {key: getattr(self._rival, key) for key in ("loss", "name", "since")}
        chain = {
            "number": self._number,
            "winners": self._winners,
            "names": self._names,
            "present": list(self._loop.numbers),
            "rival": rival,
            "done": len(self._done),
        }
        total = len(self._done) + numbers["records"]
        return arrays, {"loop": numbers, "chain": chain, "records": total}

    def load(self, arrays: dict[str, np.ndarray], numbers: dict, records: list[dict]) -> None:
        """Take over a `state` and the history that belongs to it."""
        chain = numbers["chain"]
        self._number, self._winners = chain["number"], list(chain["winners"])
        self._names, self._rival = chain["names"], None
        if chain["rival"] is not None:
            self._rival = _Rival(point=Point.from_arrays("rival.", arrays), **chain["rival"])
        self._open(Point.from_arrays("initial.", arrays), chain["present"], 0.0)
        own = ("initial.", "rival.")
        kept = {name: array for name, array in arrays.items() if not name.startswith(own)}
        self._done = list(records[: chain["done"]])
        self._loop.load(kept, numbers["loop"], records[chain["done"] :])


def _automatic(problem: Problem, settings: Settings) -> str:
    """The start that is never worse for a deeper circuit, where that does not take too long."""
    wide = max(problem.left.n, problem.right.n) > MOST_WIRES
    if wide or settings.engine != "dense" or bound_gates(problem.left, problem.right):
        return "identity"
    return "grown"


def _single(problem: Problem) -> Stage:
    """The whole circuit at once."""
    return Stage(problem.left, problem.right, "start")
