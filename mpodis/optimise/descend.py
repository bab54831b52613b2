"""A descent by closed-form sweeps and L-BFGS in turn, and descents from several initial guesses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from mpodis.circuit import Ansatz
from mpodis.environments.arrays import single_threaded
from mpodis.environments.protocol import Environments, Update
from mpodis.gates import polar_update
from mpodis.objectives import Loss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.optimise.monitor import TruncationMonitor
from mpodis.optimise.problem import Point
from mpodis.optimise.state import State
from mpodis.progress import Deadline

__all__ = ["Budget", "Descent"]

ITERATIONS = 10
"""L-BFGS iterations that count as one sweep."""
GRACE = 0.03
"""Fraction of the time allowed by which a sweep of L-BFGS may exceed it."""


@dataclass(frozen=True)
class Budget:
    """How far a descent goes.

    Attributes
    ----------
    max_sweeps : int
    max_seconds : float or None
        Of the whole search (`State.seconds`).
    tol : float
        It has converged when `window` sweeps lower the loss by less than this fraction.
    init_sweeps : int or None
        Sweeps after which an initial guess counts as explored; None: it is followed to the end.
    window : int
    handover : float
        A sweep that lowers the loss by less than this fraction hands over to L-BFGS.
    alternate : bool
        Whether sweeps are tried again when L-BFGS has converged.
    exact, floor : float
        The loss cannot fall below `floor`; within `exact` of it the search ends.
    rounding : float
        A gain of no more than this ends the descent.
    sweeps_ahead : float
        A sweep is begun only if so many of the length of the last one still fit: the sweep itself,
        and what it takes to measure the result. 0: only the time that is over counts.
    """

    max_sweeps: int
    max_seconds: float | None = None
    tol: float = 1e-4
    init_sweeps: int | None = None
    window: int = 10
    handover: float = 0.05
    alternate: bool = True
    exact: float = 1e-13
    floor: float = 0.0
    rounding: float = -math.inf
    sweeps_ahead: float = 0.0

    def limit(self, state: State, sweep: float = 0.0) -> str:
        """The limit that a descent has reached, or nothing; the last sweep took `sweep` seconds."""
        if self.max_seconds is not None:
            left, grace = self.max_seconds - state.seconds, GRACE * self.max_seconds
            ahead = self.sweeps_ahead
            if state.phase == "lbfgs" and ahead:  # which can end after any iteration
                ahead -= 1 - 1 / ITERATIONS
            if left <= 0 or left + grace < ahead * sweep:
                return "max_seconds"
        return "max_sweeps" if len(state.losses) > self.max_sweeps else ""

    def deadline(self, state: State, sweep: float = 0.0) -> Deadline:
        """When a sweep of L-BFGS that takes long must end before its last iteration.

        Not at the limit itself: a sweep that is nearly done is finished.
        """
        if self.max_seconds is None:
            return Deadline()
        left = self.max_seconds - state.seconds - max(0.0, self.sweeps_ahead - 1) * sweep
        return Deadline(max(left, 0.0) + GRACE * self.max_seconds)

    def stalled(self, before: float, now: float) -> bool:
        """Whether the gain over a window of sweeps is too small to go on."""
        return before - now < self.tol * now


class Descent:
    """Lowers a loss of an engine's gates and core, by closed-form sweeps and L-BFGS.

    Parameters
    ----------
    loss : Loss
    engine : Environments
    left, right : Ansatz
    method : {"auto", "sweeps", "lbfgs"}
        Both ways alternately, or one of them alone.
    core : bool
        Whether the core is updated, too.
    relaxation : float
        Of the sweeps, see `mpodis.gates.polar_update`.
    monitor : TruncationMonitor, optional
        Checks an engine that truncates. There is no L-BFGS then, which needs exact gradients.
    measure : callable, optional
        Makes the record of a sweep from the state, whose last loss is that of the sweep; by
        default the record is the phase and the loss.
    """

    iterations = ITERATIONS
    stops_at_goal = False
    """Whether L-BFGS stops at the iteration that comes within `Budget.exact`."""

    def __init__(
        self,
        loss: Loss[Any],
        engine: Environments,
        left: Ansatz,
        right: Ansatz,
        *,
        method: str = "auto",
        core: bool = True,
        relaxation: float = 0.0,
        monitor: TruncationMonitor | None = None,
        measure: Callable[[State], dict] | None = None,
    ) -> None:
        self.loss, self.engine, self.monitor = loss, engine, monitor
        self.method, self._core, self._measure = method, core, measure
        self._lbfgs = Lbfgs(loss, engine, left, right, free_core=core)
        self._sweep = 0.0  # seconds of the last one
        self._polar: dict[str, Update] = {
            side: partial(polar_update, group=ansatz.group, relaxation=relaxation)
            for side, ansatz in (("left", left), ("right", right))
        }

    def run(self, state: State, budget: Budget) -> Iterator[dict]:
        """Descend from where a state stands; yields a record for every sweep.

        The engine must stand at the state's point. Between two records the state says everything
        that the next ones depend on, so that a descent can be stopped at any record and continued
        from a copy of the state with the same result. It ends when `state.status` says why.
        """
        monitor, lbfgs = self.monitor, self._lbfgs
        lbfgs.remember(state.steps, state.differences)
        while not state.status:
            with single_threaded(monitor is not None and monitor.is_small(state)):
                began = time.perf_counter()
                value = self._advance(state, budget)
                advanced = time.perf_counter()
                state.seconds += advanced - began
                state.losses.append(float(value))
                state.bonds.append(monitor.bond(state) if monitor else 0)
                record = {"phase": state.phase, "loss": state.losses[-1]}
                if self._measure is not None:
                    record = self._measure(state)
                state.records.append(record)
                measured = time.perf_counter()
                state.seconds += measured - advanced
                self._sweep = measured - began
                if monitor is None:
                    self._decide(state, budget)
                else:
                    self._decide_truncated(state, budget, monitor, record)
                sweeps, most = len(state.losses) - 1, budget.init_sweeps
                if not state.status and most is not None and sweeps >= most:
                    state.status = "explored"
                state.seconds += time.perf_counter() - measured
                state.point = Point.of(self.engine)  # a subclass may have changed the engine
                state.steps, state.differences = list(lbfgs.steps), list(lbfgs.differences)
            yield record

    def explore(
        self,
        state: State,
        budget: Budget,
        place: Callable[[State], None],
        count: int,
        *,
        enough: Callable[[State], bool] = lambda state: state.status in ("exact", "max_seconds"),
    ) -> Iterator[dict]:
        """Descend from one initial guess after the other; `state.best` is the best descent.

        Parameters
        ----------
        state : State
        budget : Budget
            Of every descent.
        place : callable
            Puts the state (and the engine) at the initial guess `state.guess`.
        count : int
            Number of initial guesses.
        enough : callable
            Whether the descent that has just ended makes further initial guesses needless.
        """
        while True:
            if not state.phase:
                place(state)
            yield from self.run(state, budget)
            loss = 1.0 - state.checked_overlap if state.checked is not None else state.losses[-1]
            if loss < state.best_loss or state.best is None:
                state.best, state.best_loss = state.descent(), loss
            if enough(state) or state.guess + 1 == count:
                return
            state.begin(state.guess + 1)

    def _advance(self, state: State, budget: Budget) -> float:
        """The next sweep; returns the loss."""
        if not state.phase:
            state.phase = "init"
            return self.loss.value(self.engine)
        if state.phase == "init":
            # where one side has no closed form, sweeps alone would get stuck
            both = len(self.loss.polar_sides) == 2
            sweeps = self.method == "sweeps" or (self.method == "auto" and both)
            state.phase = "sweep" if sweeps else "lbfgs"
            state.used_lbfgs = not sweeps
        if state.phase == "lbfgs":
            goal = budget.floor + budget.exact if self.stops_at_goal else -math.inf
            deadline = budget.deadline(state, self._sweep)
            return self._lbfgs.run(self.iterations, deadline=deadline, goal=goal)
        self.loss.sweep(self.engine, self._polar, core=self._core)
        return self.loss.value(self.engine)

    def _decide(self, state: State, budget: Budget) -> None:
        """What follows a sweep: the same again, the other way of updating, or the end."""
        losses, sweeps = state.losses, len(state.losses) - 1
        now = losses[-1] - budget.floor
        gain = losses[-2] - losses[-1] if sweeps else math.inf
        limit = budget.limit(state, self._sweep)
        if now <= budget.exact:
            state.status = "exact"
        elif limit:
            state.status = limit
        elif gain <= budget.rounding:
            state.status = "converged"
        else:
            before = math.inf
            if sweeps >= budget.window:
                before = losses[-1 - budget.window] - budget.floor
            stalled = budget.stalled(before, now)
            mixed = self.method == "auto"
            if state.phase == "sweep" and mixed:
                if stalled and (state.used_lbfgs or not budget.alternate):
                    state.status = "converged"
                elif gain < budget.handover * now:
                    state.phase, state.used_lbfgs = "lbfgs", True
                    self._lbfgs.forget()
                    # one site may carry the whole norm; steps of equal length want it spread
                    self.engine.set(core=self.loss.scaled_core(self.engine))
            elif stalled and not (mixed and budget.alternate):
                state.status = "converged"
            elif stalled:
                state.phase = "sweep"  # the closed-form updates may still find something

    def _decide_truncated(
        self, state: State, budget: Budget, monitor: TruncationMonitor, record: dict
    ) -> None:
        """The same for an engine that truncates: independent checks first, and no L-BFGS."""
        if state.losses[-1] <= budget.exact:
            state.status = "exact"
            return
        bond = state.bonds[-1]
        pairs = zip(reversed(state.losses), reversed(state.bonds), strict=True)
        here = list(islice((loss for loss, at in pairs if at == bond), budget.window + 1))
        stalled = len(here) > budget.window and budget.stalled(here[-1], here[0])
        limit = budget.limit(state, self._sweep)
        verdict = ""
        if stalled or limit or (len(state.losses) - 1) % monitor.every == 0:
            overlap = record["overlap"]
            record["true_overlap"], verdict = monitor.check(state, self.engine, overlap)
        if limit:
            state.status = limit
        elif verdict == "exhausted":
            state.status = "truncated"
        elif stalled and not verdict and not monitor.raise_bond(state, self.engine):
            state.status = "converged"
