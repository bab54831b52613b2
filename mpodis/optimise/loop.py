"""The loop over starts and sweeps, as a state machine that can stop and go on anywhere.

Its whole state between two sweeps is arrays and a few numbers (`Loop.state`), and every sweep is
a function of that state alone. That is what makes a killed run end at the same gates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from mpodis.environments import build_engine
from mpodis.environments.arrays import SMALL_BOND, single_threaded
from mpodis.environments.overlap import estimate_form
from mpodis.environments.protocol import core_norm
from mpodis.factorization import Factorization
from mpodis.gates import polar_update
from mpodis.objectives import Activations, Overlap
from mpodis.optimise.initial import first_core, place_start
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.optimise.monitor import EVERY, Watch
from mpodis.optimise.prepare import engine_options, moments, with_engine
from mpodis.optimise.problem import Point, Problem, named_list
from mpodis.optimise.recorder import Figures
from mpodis.optimise.result import Disentangled, History
from mpodis.optimise.settings import Settings
from mpodis.sites import left_canonical, mpo_from_tensors, spread_norm

__all__ = ["Loop"]

ITERATIONS = 10
"""L-BFGS iterations that count as one sweep."""
WINDOW = 10
"""Sweeps over which convergence is judged."""
CRAWL = 0.05
"""A sweep that lowers the loss by less than this fraction hands over to L-BFGS."""
EXACT = 1e-13
"""A loss at rounding."""


class Loop:
    """Runs a problem under its settings, sweep by sweep.

    Parameters
    ----------
    problem, settings, executor
        As for `disentangle`.
    numbers : sequence of int, optional
        What the starts are called in the records; default 0, 1, ...
    elapsed, stage : float, int
        Seconds spent before, and the number of the stage, for the records.

    Attributes
    ----------
    settings : Settings
        As given, with the engine that was chosen in place of "auto".
    records : list of dict
        The history so far, see `History`.
    status : str or None
        How it ended; None while it goes on.
    elapsed : float
        Seconds spent so far.
    """

    def __init__(
        self,
        problem: Problem,
        settings: Settings,
        *,
        numbers: Sequence[int] | None = None,
        elapsed: float = 0.0,
        stage: int = 0,
        executor=None,
    ) -> None:
        self.numbers = tuple(range(settings.n_init)) if numbers is None else tuple(numbers)
        tensors, self._log_norm = left_canonical(problem.tensors)
        self._unit = spread_norm(tensors, 0.0)
        if settings.objective == "overlap" and problem.sensitivity is not None:
            raise ValueError("sensitivity= weighs the activations; use objective='activations'")
        self.problem, self.settings = problem, with_engine(problem, settings, self._unit, executor)
        self.objective = (
            Overlap(self._unit)
            if settings.objective == "overlap"
            else Activations(self._unit, *moments(problem))
        )
        self.engine = build_engine(
            self.settings.engine,
            self.objective.target,
            problem.legs,
            problem.left,
            problem.right,
            options=engine_options(self.settings, executor),
        )
        self.watch = None
        if self.settings.method == "lbfgs" and not self.engine.exact:
            raise ValueError(
                "L-BFGS (and with it tied gates) needs exact gradients, and engine='boundary' "
                "truncates; use method='auto', or engine='transverse' for shallow circuits"
            )
        if not self.engine.exact:
            self.watch = Watch(self._unit, problem, self.settings.environment_bond)
        self._figures = Figures(problem, self._unit)
        self._lbfgs = Lbfgs(
            self.objective,
            self.engine,
            problem.left,
            problem.right,
            free_core=settings.core == "update",
        )
        self._first = problem.initial or first_core(self._unit, settings)
        self.records: list[dict] = []
        self.status: str | None = None
        self._number, self._refining = 0, settings.n_init == 1
        self._phase, self.elapsed, self.stage = "", elapsed, stage
        self._best: dict | None = None
        self._best_point: dict[str, np.ndarray] = {}
        self._pool = executor if self.engine.parallel else None

    def step(self) -> dict:
        """Do one sweep, of whichever start is next; returns its record.

        With an executor, explore all starts at once; returns the last record.
        """
        if self._pool is not None and not (self._number or self._phase or self._refining):
            return self._explore()
        with single_threaded(self._small()):
            began = time.perf_counter()
            loss = self._advance()
            self.elapsed += time.perf_counter() - began
            record = self._measure(loss)
            self.records.append(record)
            self._decide(record)
        return record

    def _explore(self) -> dict:
        """Explore every start somewhere else, and go on with the best."""
        began = time.perf_counter()
        place = {"numbers": self.numbers, "elapsed": self.elapsed, "stage": self.stage}
        tasks = [
            self._pool.submit(explore, k, self.problem, self.settings, **place)
            for k in range(self.settings.n_init)
        ]
        for task in tasks:
            records, best, point, status = task.result()
            self.records += records
            if self._best is None or best["loss"] < self._best["loss"]:
                self._best, self._best_point = best, point
            if status == "exact":
                break  # the others are left aside, as they would be one by one
        self._refining = True
        self.elapsed += time.perf_counter() - began
        ended = self._return_to_best()
        self.status = None if ended == "explored" else ended
        return self.records[-1]

    def _small(self) -> bool:
        return self.watch is not None and self.watch.max_bond <= SMALL_BOND

    def _advance(self) -> float:
        if not self._phase:
            if self.watch is not None:
                self.watch.restart(self.engine)
            place_start(
                self._number,
                self.init,
                self.engine,
                self.objective,
                self.problem,
                self._first,
                self.settings,
            )
            self._lbfgs.forget()
            self._phase = "start"
            return self.objective.loss(self.engine)
        if self._phase == "start":
            # where one side has no closed form, sweeps alone would run into a corner
            whole = len(self.objective.polar_sides) == 2
            sweeps = self.settings.method == "sweeps" or (self.settings.method == "auto" and whole)
            self._phase = "sweep" if sweeps else "lbfgs"
        if self._phase == "lbfgs":
            return self._lbfgs.run(ITERATIONS)
        return self._sweep()

    def _sweep(self) -> float:
        """All closed forms: gates of both sides, and the core."""
        groups = {"left": self.problem.left.group, "right": self.problem.right.group}
        relaxation = self.settings.relaxation
        updates = {
            side: partial(polar_update, group=group, relaxation=relaxation)
            for side, group in groups.items()
        }
        self.objective.sweep(self.engine, updates, core=self.settings.core == "update")
        return self.objective.loss(self.engine)

    def _decide(self, record: dict) -> None:
        """What comes next: the same, L-BFGS, another start, or the end."""
        losses = [r["loss"] for r in self._mine()]
        sweeps, loss = len(losses) - 1, losses[-1]
        gain = losses[-2] - loss if sweeps else math.inf
        if loss <= EXACT:
            return self._end("exact")
        limit = self._at_limit()
        if self.watch is not None:
            return self._decide_watched(record, losses, limit)
        if limit == "max_seconds":
            return self._end(limit)
        if limit == "max_sweeps":
            return self._next(limit)
        slow = sweeps >= WINDOW and losses[-1 - WINDOW] - loss < self.settings.tol * losses[-1]
        if self._phase == "sweep" and self.settings.method == "auto":
            if slow and record["phase"] == "sweep" and self._was("lbfgs"):
                return self._next("converged")
            if gain < CRAWL * loss:
                self._phase = "lbfgs"
                self._lbfgs.forget()
                # one site may carry the whole norm; steps of equal length want it spread
                self.engine.set(core=self.objective.scaled(self.engine))
        elif slow:
            if self.settings.method != "auto":
                return self._next("converged")
            self._phase = "sweep"  # do the closed forms still find something?
        if not self._refining and sweeps >= self.settings.init_sweeps:
            self._next("explored")

    def _decide_watched(self, record: dict, losses: list[float], limit: str) -> None:
        """The same for an engine that truncates: checks first, and no L-BFGS."""
        sweeps = len(losses) - 1
        here = [
            r["loss"] for r in self._mine() if r["environment_bond"] == record["environment_bond"]
        ]
        slow = len(here) > WINDOW and here[-1 - WINDOW] - here[-1] < self.settings.tol * here[-1]
        follows = ""
        if slow or limit or sweeps % EVERY == 0:
            record["true_overlap"], follows = self.watch.check(self.engine, record["overlap"])
        if limit == "max_seconds":
            self._end(limit)
        elif limit or follows == "exhausted":
            self._next(limit or "truncated")
        elif slow and not follows and not self.watch.raise_bond(self.engine):
            self._next("converged")
        elif not self._refining and sweeps >= self.settings.init_sweeps:
            self._next("explored")

    def _at_limit(self) -> str:
        """The limit that the present start has reached, or nothing."""
        settings = self.settings
        if settings.max_seconds is not None and self.elapsed >= settings.max_seconds:
            return "max_seconds"
        done = len(self._mine()) - 1
        return "max_sweeps" if done >= settings.max_sweeps else ""

    @property
    def init(self) -> int:
        """What the present start is called."""
        return self.numbers[self._number]

    def _mine(self) -> list[dict]:
        """Records of the present start."""
        return [r for r in self.records if r["init"] == self.init]

    def _was(self, phase: str) -> bool:
        return any(r["phase"] == phase for r in self._mine())

    def _next(self, status: str) -> None:
        """End the present start; go on with the next one, with the best one, or not at all."""
        if self._refining:
            return self._end(status)
        self._keep_if_best(status)
        if self._number + 1 < self.settings.n_init:
            self._number, self._phase = self._number + 1, ""
            return None
        self._refining = True
        ended = self._return_to_best()
        return None if ended == "explored" else self._end(ended)

    def _keep_if_best(self, status: str) -> None:
        loss = self.records[-1]["loss"]
        if self.watch is not None and self.watch.good:
            loss = 1.0 - self.watch.truth
        if self._best is None or loss < self._best["loss"]:
            self._best = {
                "number": self._number,
                "loss": loss,
                "phase": self._phase,
                "status": status,
            }
            self._best_point = self._arrays()

    def _return_to_best(self) -> str:
        self._number, self._phase = self._best["number"], self._best["phase"]
        if self.watch is not None:
            self.watch.restart(self.engine)
        self._restore(self._best_point)
        return self._best["status"]

    def _end(self, status: str) -> None:
        if not self._refining:
            # stopped while exploring: an earlier start may be the better one
            self._keep_if_best(status)
            self._return_to_best()
        self.status = status

    def _measure(self, loss: float) -> dict:
        """The record of the sweep just done; figures that the size does not allow are NaN."""
        plain = self.settings.objective == "overlap"
        small = self._figures.small or not plain
        figures = self._figures.of_sweep(
            self.engine,
            self.objective.scaled(self.engine) if small else self.engine.core,
            overlap=1.0 - loss if plain else None,
        )
        exact = self.watch is None
        sides = (self.problem.left, self.problem.right)
        return {
            "stage": self.stage,
            "depth": max(side.depth for side in sides),
            "width": max((p.width for side in sides for p in side.placements), default=0),
            "init": self.init,
            "sweep": len(self._mine()),
            "phase": self._phase,
            "loss": float(loss),
            **figures,
            "true_overlap": figures["overlap"] if exact else math.nan,
            "environment_bond": math.nan if exact else self.watch.max_bond,
            "seconds": self.elapsed,
        }

    def result(self) -> Disentangled:
        """The factorization where the loop stands, its gates put exactly onto their group."""
        with single_threaded(self._small()):
            return self._result()

    def _result(self) -> Disentangled:
        circuits = [circuit.projected() for circuit in self._figures.circuits(self.engine)]
        self.engine.set(circuits[0].gates, self.engine.core, circuits[1].gates)
        core = self.objective.scaled(self.engine)
        self.engine.set(core=core)
        parts = (self.engine.left, core, self.engine.right)
        truth = estimate_form(
            self._unit,
            self.problem.legs,
            (self.problem.left, self.problem.right),
            parts,
            max_bond=2 * max(self.settings.environment_bond),
        )
        size = core_norm(core)
        overlap = truth.value / size
        measured = self._figures.of_result(self.engine, core, overlap)
        core = spread_norm(left_canonical(core)[0], left_canonical(core)[1] + self._log_norm)
        return Disentangled(
            factorization=Factorization(
                circuits[0], mpo_from_tensors(core), circuits[1], self.problem.shape
            ),
            status=self.status or "max_sweeps",
            history=History(tuple(self.records)),
            settings=self.settings,
            init=self.init,
            loss=self.objective.loss(self.engine),
            overlap=overlap,
            overlap_error=truth.error / size,
            seconds=self.elapsed,
            **measured,
        )

    def loss(self) -> float:
        """The objective where the loop stands."""
        return self.objective.loss(self.engine)

    def point(self) -> Point:
        """Gates and core where the loop stands."""
        engine = self.engine
        return Point(list(engine.left), list(engine.core), list(engine.right))

    def go_to(self, point: Point) -> None:
        """Put the loop at other gates and core."""
        self.engine.set(point.left, point.core, point.right)

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything that the next sweep depends on, as named arrays."""
        arrays = self.point().arrays("")
        for name in ("steps", "differences"):
            arrays |= {f"{name}.{k}": x for k, x in enumerate(getattr(self._lbfgs, name))}
        return {name: array.copy() for name, array in arrays.items()}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        self.go_to(Point.from_arrays("", arrays))
        pairs = (named_list(f"{name}.", arrays) for name in ("steps", "differences"))
        self._lbfgs.remember(*pairs)

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays and numbers from which `load` goes on exactly."""
        arrays = self._arrays() if self._phase else {}
        if self._best is not None:
            arrays |= {f"best.{name}": array for name, array in self._best_point.items()}
        watched = {}
        if self.watch is not None:
            good, watched = self.watch.state()
            arrays |= {f"good.{name}": array for name, array in good.items()}
        numbers = {
            "watch": watched,
            "path": self.engine.plan,  # searched again, it might be another
            "number": self._number,
            "refining": self._refining,
            "phase": self._phase,
            "elapsed": self.elapsed,
            "best": self._best,
            "status": self.status,
            "records": len(self.records),
        }
        return arrays, numbers

    def load(self, arrays: dict[str, np.ndarray], numbers: dict, records: list[dict]) -> None:
        """Take over a `state` and the history that belongs to it."""
        self._number, self._refining = numbers["number"], numbers["refining"]
        self._phase, self.elapsed = numbers["phase"], numbers["elapsed"]
        self._best, self.status, self.records = numbers["best"], numbers["status"], list(records)
        kept = {
            part: {k.removeprefix(part): v for k, v in arrays.items() if k.startswith(part)}
            for part in ("best.", "good.")
        }
        if kept["best."]:
            self._best_point = kept["best."]
        if numbers["path"] is not None:
            self.engine.plan = numbers["path"]
        if self.watch is not None and numbers["watch"]:
            self.watch.load(kept["good."], numbers["watch"], self.engine)
        if self._phase:
            self._restore({k: v for k, v in arrays.items() if not k.startswith(("best.", "good."))})
        if self.status in ("max_sweeps", "max_seconds") and not self._at_limit():
            self.status = None  # a limit that was raised since lets the run go on
            self._refining = True


def explore(number: int, problem: Problem, settings: Settings, **place) -> tuple:
    """One start, as far as it is explored: records, what is kept of it, and how it ended."""
    loop = Loop(problem, settings, **place)
    loop._number = number
    with single_threaded(True):  # the others are at work on the other cores
        while loop._number == number and not loop._refining and loop.status is None:
            loop.step()
    return loop.records, loop._best, loop._best_point, loop.status
