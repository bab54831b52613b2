"""One descent: sweeps of closed-form updates and L-BFGS alternately, from where a state stands."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
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

__all__ = ["Budget", "Updates", "descend"]

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
    crawl : float
        A sweep that lowers the loss by less than this fraction hands over to L-BFGS.
    alternate : bool
        Whether sweeps are tried again when L-BFGS has converged.
    exact, floor : float
        The loss cannot fall below `floor`; within `exact` of it the search ends.
    rounding : float
        A gain of no more than this ends the descent.
    """

    max_sweeps: int
    max_seconds: float | None = None
    tol: float = 1e-4
    init_sweeps: int | None = None
    window: int = 10
    crawl: float = 0.05
    alternate: bool = True
    exact: float = 1e-13
    floor: float = 0.0
    rounding: float = -math.inf

    def limit(self, state: State) -> str:
        """The limit that a descent has reached, or nothing."""
        if self.max_seconds is not None and state.seconds >= self.max_seconds:
            return "max_seconds"
        return "max_sweeps" if len(state.losses) > self.max_sweeps else ""

    def deadline(self, state: State) -> Deadline:
        """When a sweep of L-BFGS that takes long must end before its last iteration.

        Not at the limit itself: what takes a moment ends as it would have without one.
        """
        if self.max_seconds is None:
            return Deadline()
        return Deadline(max(self.max_seconds - state.seconds, 0.0) + GRACE * self.max_seconds + 0.5)

    def stalled(self, before: float, now: float) -> bool:
        """Whether the gain over a window of sweeps is too small to go on."""
        return before - now < self.tol * now


@dataclass(frozen=True, eq=False)
class Updates:
    """The two ways to lower a loss: sweeps of closed-form updates, and L-BFGS.

    Attributes
    ----------
    polar : mapping of side to Update
        The closed-form update of a gate, see `mpodis.gates.polar_update`.
    lbfgs : Lbfgs
    method : {"auto", "sweeps", "lbfgs"}
        Both alternately, or one of them alone.
    core : bool
        Whether the core is updated, too.
    """

    polar: Mapping[str, Update]
    lbfgs: Lbfgs
    method: str = "auto"
    core: bool = True

    @classmethod
    def build(
        cls,
        loss: Loss[Any],
        engine: Environments,
        left: Ansatz,
        right: Ansatz,
        *,
        method: str = "auto",
        core: bool = True,
        relaxation: float = 0.0,
    ) -> Updates:
        polar = {
            side: partial(polar_update, group=ansatz.group, relaxation=relaxation)
            for side, ansatz in (("left", left), ("right", right))
        }
        return cls(polar, Lbfgs(loss, engine, left, right, free_core=core), method, core)


def descend(
    loss: Loss[Any],
    engine: Environments,
    state: State,
    budget: Budget,
    updates: Updates,
    *,
    monitor: TruncationMonitor | None = None,
    measure: Callable[[State], dict] | None = None,
) -> Iterator[dict]:
    """Lower a loss from where a state stands; yields a record for every sweep.

    The engine must stand at the state's point. Between two records the state says everything that
    the next ones depend on, so that a descent can be stopped at any record and continued from a
    copy of the state with the same result. It ends when `state.status` says why.

    Parameters
    ----------
    loss, engine, state, budget, updates
    monitor : TruncationMonitor, optional
        Checks an engine that truncates. There is no L-BFGS then, which needs exact gradients.
    measure : callable, optional
        Makes the record from the state, whose last loss is that of the sweep.

    Yields
    ------
    dict
        What `measure` makes; by default the phase and the loss.
    """
    updates.lbfgs.remember(state.steps, state.differences)
    while not state.status:
        with single_threaded(monitor is not None and monitor.is_small(state)):
            began = time.perf_counter()
            value = _advance(loss, engine, state, updates, budget.deadline(state))
            state.seconds += time.perf_counter() - began
            began = time.perf_counter()
            state.losses.append(float(value))
            state.bonds.append(monitor.bond(state) if monitor else 0)
            record = measure(state) if measure else {"phase": state.phase, "loss": state.losses[-1]}
            state.records.append(record)
            state.seconds += time.perf_counter() - began
            began = time.perf_counter()
            if monitor is None:
                _decide(loss, engine, state, budget, updates)
            else:
                _decide_truncated(engine, state, budget, monitor, record)
            state.seconds += time.perf_counter() - began
            state.point = Point.of(engine)
            state.steps, state.differences = (
                list(updates.lbfgs.steps),
                list(updates.lbfgs.differences),
            )
        yield record


def _advance(
    loss: Loss[Any],
    engine: Environments,
    state: State,
    updates: Updates,
    deadline: Deadline,
) -> float:
    """The next sweep; returns the loss."""
    if not state.phase:
        state.phase = "init"
        return loss.value(engine)
    if state.phase == "init":
        # where one side has no closed form, sweeps alone would get stuck
        both = len(loss.polar_sides) == 2
        sweeps = updates.method == "sweeps" or (updates.method == "auto" and both)
        state.phase = "sweep" if sweeps else "lbfgs"
        state.used_lbfgs = not sweeps
    if state.phase == "lbfgs":
        return updates.lbfgs.run(ITERATIONS, deadline=deadline)
    loss.sweep(engine, updates.polar, core=updates.core)
    return loss.value(engine)


def _decide(
    loss: Loss[Any], engine: Environments, state: State, budget: Budget, updates: Updates
) -> None:
    """What follows a sweep: the same again, the other way of updating, or the end."""
    losses, sweeps = state.losses, len(state.losses) - 1
    now = losses[-1] - budget.floor
    gain = losses[-2] - losses[-1] if sweeps else math.inf
    limit = budget.limit(state)
    if now <= budget.exact:
        state.status = "exact"
    elif limit:
        state.status = limit
    elif gain <= budget.rounding:
        state.status = "converged"
    else:
        before = losses[-1 - budget.window] - budget.floor if sweeps >= budget.window else math.inf
        stalled = budget.stalled(before, now)
        mixed = updates.method == "auto"
        if state.phase == "sweep" and mixed:
            if stalled and (state.used_lbfgs or not budget.alternate):
                state.status = "converged"
            elif gain < budget.crawl * now:
                state.phase, state.used_lbfgs = "lbfgs", True
                updates.lbfgs.forget()
                # one site may carry the whole norm; steps of equal length want it spread
                engine.set(core=loss.scaled_core(engine))
        elif stalled and not (mixed and budget.alternate):
            state.status = "converged"
        elif stalled:
            state.phase = "sweep"  # the closed-form updates may still find something
    _mark_explored(state, budget)


def _decide_truncated(
    engine: Environments,
    state: State,
    budget: Budget,
    monitor: TruncationMonitor,
    record: dict,
) -> None:
    """The same for an engine that truncates: independent checks first, and no L-BFGS."""
    if state.losses[-1] <= budget.exact:
        state.status = "exact"
        return
    bond = state.bonds[-1]
    here = [loss for loss, at in zip(state.losses, state.bonds, strict=True) if at == bond]
    stalled = len(here) > budget.window and budget.stalled(here[-1 - budget.window], here[-1])
    limit = budget.limit(state)
    verdict = ""
    if stalled or limit or (len(state.losses) - 1) % monitor.every == 0:
        record["true_overlap"], verdict = monitor.check(state, engine, record["overlap"])
    if limit:
        state.status = limit
    elif verdict == "exhausted":
        state.status = "truncated"
    elif stalled and not verdict and not monitor.raise_bond(state, engine):
        state.status = "converged"
    _mark_explored(state, budget)


def _mark_explored(state: State, budget: Budget) -> None:
    sweeps = len(state.losses) - 1
    if not state.status and budget.init_sweeps is not None and sweeps >= budget.init_sweeps:
        state.status = "explored"
