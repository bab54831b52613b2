"""A search: one problem under its options, from the choice of an engine to the result.

`Search` goes from stage to stage, a `StageRun` explores the initial guesses of one stage and
follows the best to its end.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property
from typing import Any

from mpodis.circuit import Circuit
from mpodis.environments import ENGINES, EngineOptions, build_engine, choose
from mpodis.environments.arrays import SMALL_BOND, single_threaded
from mpodis.environments.protocol import Environments
from mpodis.factorization import Factorization
from mpodis.objectives import Loss, Objective
from mpodis.optimise.descend import Budget, Descent
from mpodis.optimise.grow import (
    Stage,
    advance,
    begin_next,
    best_so_far,
    constrained_gates,
    plan,
    winners,
)
from mpodis.optimise.initial_guesses import (
    ENTROPIC,
    KICK_PATIENCE,
    first_core,
    place_initial_guess,
)
from mpodis.optimise.monitor import TruncationMonitor
from mpodis.optimise.problem import Problem
from mpodis.optimise.recorder import SVDS, Recorder
from mpodis.optimise.result import Disentangled, History
from mpodis.optimise.state import State
from mpodis.optimise.unitary import UnitaryLoss
from mpodis.options import SearchOptions
from mpodis.progress import Deadline
from mpodis.sites import (
    bond_dimensions,
    left_canonical,
    mpo_from_tensors,
    spread_norm,
)

__all__ = ["Search"]

PREPARATION = {"tol": 1e-3, "init_sweeps": 20}
"""Options of the stages between wide gates and the circuit, which only prepare the next stage."""
PREPARATION_SWEEPS = 20
GROWTH_SHARE = 5
"""A stage that only adds a layer gets `max_sweeps` divided by this, unless it is compared."""
GROWN_WIRES = 8
"""The most wires of circuits that grow unless the options say so."""
LAST_CHECK = 0.1
"""Part of a limited time that is kept to measure the overlap beside an engine that truncates."""
RESULT_SWEEPS = 5
"""Measuring a result without the dense operator takes about as long as so many sweeps."""
RESULT_SHARE = 0.5
"""Bound and entropies of a dense result are measured if they take at most this part of the time
that is left before the first sweep."""
WAIT_SECONDS = 0.02
"""Time between two looks at whether a task of an executor is done, or Ctrl-C was pressed."""
FIT_SHARE = 0.2
"""Part of what is left of a limited time that this fit may take."""


class Search:
    """One problem under its options: what does not change while its `State` does.

    Parameters
    ----------
    problem : Problem
    options : SearchOptions
    objective : Objective
    optimize : optional
        How the tree engine searches contraction paths, see `disentangle`.
    executor : optional
        Anything with ``submit``; initial guesses are explored on it in parallel.

    Attributes
    ----------
    options : SearchOptions
        As given, with what was chosen in place of "auto".
    estimate : Estimate
        Time and memory of the engine that was chosen.
    loss : Loss
    stages : list of Stage
        One, unless the circuits grow; with a time limit, kicks follow as long as they pay.
    stage_options : list of SearchOptions
        Of every stage.
    total : int
        The most records before kicks: sweeps, and one for every initial guess.
    interrupted : callable
        Whether Ctrl-C was pressed; the wait for an executor asks it. Between records it is up to
        the caller to stop.

    Raises
    ------
    ValueError
        For a problem that does not fit the options, the engine or the memory.
    """

    def __init__(
        self,
        problem: Problem,
        options: SearchOptions,
        objective: Objective,
        *,
        optimize: Any = None,
        executor: Executor | None = None,
    ) -> None:
        self.problem, self.objective, self.executor = problem, objective, executor
        self._engine_options = EngineOptions(
            environment_bond=options.environment_bond[-1],  # where the schedule may end
            dtype=options.dtype,
            device=options.device,
            memory=options.memory,
            optimize=options.optimize if optimize is None else optimize,
            seed=options.seed,
            executor=executor,
        )
        self.options = self._chosen(options)
        self.loss: Loss[Any] = objective.loss(problem)
        if options.core == "identity":
            if objective.name != "overlap":
                raise ValueError(
                    f"core='identity' goes with objective='overlap', not {objective.name!r}"
                )
            self.loss = UnitaryLoss(problem.unit)
        if self.options.method == "sweeps" and len(self.loss.polar_sides) < 2:
            raise ValueError(
                "method='sweeps' needs closed-form updates on both sides, which "
                f"objective={objective.name!r} does not have; use method='auto'"
            )
        if not ENGINES[self.options.engine].exact and self.loss.overlap(0.0) is None:
            raise ValueError(
                f"engine={self.options.engine!r} truncates, and its checks know the overlap only; "
                f"objective={objective.name!r} needs an exact engine, 'transverse' or 'tree'"
            )
        init = self.options.init if problem.initial is None else "given"
        self._whole = Stage(problem.left, problem.right, "guess")
        self.stages = [self._whole]
        if init in ("auto", "grown"):
            self.stages = plan(problem.left, problem.right, whole_first=init == "auto")
        self._planned = len(self.stages)
        self.stage_options = [self._options_of(stage) for stage in self.stages]
        self._records = [  # of each stage
            1 + one.max_sweeps + (one.n_init - 1) * (1 + min(one.init_sweeps, one.max_sweeps))
            for one in self.stage_options
        ]
        self.total = sum(self._records)
        self._recorder = Recorder(problem)
        self._run: StageRun | None = None
        self._deadline = Deadline(options.max_seconds)
        self._reserve: float | None = None
        self._measures_all = True
        self.interrupted: Callable[[], bool] = lambda: False

    def _chosen(self, options: SearchOptions) -> SearchOptions:
        """The options with an engine, a method and initial guesses that fit the problem."""
        problem, left, right = self.problem, self.problem.left, self.problem.right
        if left.ties or right.ties:
            if options.method == "sweeps":
                raise ValueError(
                    "method='sweeps' has no closed form for tied gates, whose environments depend "
                    "on each other; use method='auto'"
                )
            options = replace(options, method="lbfgs")
        if options.init == "entropic" and problem.size > ENTROPIC:
            raise ValueError(
                f"init='entropic' needs the dense operator, and a dimension of {problem.size} "
                f"is beyond {ENTROPIC}; use init='identity'"
            )
        engine = self._dense_engine(options) if self.objective.needs_dense else options.engine
        self.estimate = choose(
            problem.legs,
            left,
            right,
            target_bonds=bond_dimensions(problem.unit),
            max_bond=options.max_bond,
            complex=problem.is_complex,
            options=self._engine_options,
            engine=engine,
        )
        engine = self.estimate.engine
        if options.method == "lbfgs" and not ENGINES[engine].exact:
            raise ValueError(
                f"L-BFGS (and with it tied gates) needs exact gradients, and engine={engine!r} "
                "truncates; use method='auto', or engine='transverse' for shallow circuits"
            )
        options = replace(options, engine=engine)
        quick = ENGINES[engine].holds_dense and max(left.n, right.n) <= GROWN_WIRES
        if options.init == "auto" and (not quick or constrained_gates(left, right)):
            return replace(options, init="identity")
        return options

    def _dense_engine(self, options: SearchOptions) -> str:
        name, size = self.objective.name, self.problem.size
        able = {key: engine for key, engine in ENGINES.items() if engine.holds_dense}
        if options.engine not in ("auto", *able):
            raise ValueError(
                f"objective={name!r} needs the dense operator; engine={options.engine!r} "
                f"does not have it, use engine={next(iter(able))!r}"
            )
        engine = next(iter(able)) if options.engine == "auto" else options.engine
        limit = able[engine].limit
        if size > limit:
            raise ValueError(
                f"objective={name!r} needs the dense operator, and a dimension of {size} "
                f"is beyond {limit}; use objective='overlap'"
            )
        return engine

    def _options_of(self, stage: Stage) -> SearchOptions:
        """The options of one stage."""
        options = self.options
        if stage.begins == "kick":
            return replace(options, init="identity", n_init=1)
        if len(self.stages) == 1:
            return options
        afresh = stage.begins == "guess" or stage.afresh
        n_init = options.n_init if afresh else 1 + options.n_perturbed
        changed: dict[str, Any] = {"init": "identity", "n_init": n_init}
        if stage.begins == "grow" and not stage.challenged:  # what is compared gets the same
            changed["max_sweeps"] = math.ceil(options.max_sweeps / GROWTH_SHARE)
        elif stage.prepares:
            changed |= PREPARATION
            if stage.begins == "compile":
                sweeps = min(PREPARATION_SWEEPS, options.max_sweeps)
                changed |= {"n_init": 1, "max_sweeps": sweeps}
        return replace(options, **changed)

    @property
    def sweeps(self) -> float:
        """The most sweeps, those of shallower circuits counted by their share of the gates."""
        gates = _gates(self._whole)
        shares = [_gates(stage) / gates if gates else 1.0 for stage in self.stages]
        return sum(share * count for share, count in zip(shares, self._records, strict=True))

    def budget(self, options: SearchOptions, seconds: float) -> Budget:
        """The limits of a descent under the options of its stage, `seconds` after the beginning."""
        limit = options.max_seconds
        if limit is None:
            return Budget(options.max_sweeps, None, options.tol)
        if self._reserve is None:
            self._reserve = self._seconds_of_result(limit, seconds)
        ahead = 1
        if self.estimate.exact and not self._recorder.has_dense:
            ahead += RESULT_SWEEPS
        return Budget(options.max_sweeps, limit - self._reserve, options.tol, sweeps_ahead=ahead)

    def _seconds_of_result(self, limit: float, seconds: float) -> float:
        """Part of a limited time that is kept for the figures of the result.

        Where bound and entropies of a dense result would take too much of it they are left out.
        """
        if not self._recorder.has_dense:
            return 0.0 if self.estimate.exact else LAST_CHECK * limit
        needed = self._recorder.seconds_of_result()
        self._measures_all = needed <= RESULT_SHARE * max(0.0, limit - seconds)
        return needed if self._measures_all else needed / SVDS

    def begin(self) -> State:
        """The state of a search that has not begun."""
        n_init = self.options.n_init
        initial = self.problem.initial if len(self.stages) == 1 else None
        return State(names=list(range(n_init)), n_names=n_init, initial=initial)

    def reopen_if_limits_allow(self, state: State) -> None:
        """Let a search that had ended at a limit go on, if the limit is a larger one now."""
        self._append_kicks(state.stage)
        if state.ended in ("max_sweeps", "max_seconds") and state.status == state.ended:
            limit = self.budget(self.stage_options[state.stage], state.seconds).limit(state)
            if limit != state.ended:  # time is left again, perhaps without a sweep of this stage
                state.ended, state.status = "", limit
                state.refining = True

    def run(self, state: State) -> Iterator[dict]:
        """Search from where a state stands; yields the record of every sweep.

        The state may be stored after any record; `state.ended` says at the end why it ended.
        """
        if self.options.max_seconds is not None:
            self._deadline = Deadline(max(1e-9, self.options.max_seconds - state.seconds))
        self._append_kicks(state.stage)
        while not state.ended:
            began = time.perf_counter()
            self._run = run = StageRun(self, state.stage, state.seconds)
            state.seconds += time.perf_counter() - began
            if state.point is not None:
                run.return_to(state)
            yield from run.run(state)
            enough = state.status == "max_seconds"
            enough |= state.status == "exact" and not self.stages[state.stage].prepares
            if enough:
                state.ended = state.status
                return
            if state.stage + 1 >= self._planned and not self._kicks_pay(state):
                state.ended = self._status_of_best(state)
                return
            self._append_kicks(state.stage + 1)
            n_init = self.stage_options[state.stage + 1].n_init
            loss = self.loss.value(run.engine)
            begin_next(self.stages, state, loss, n_init=n_init, seed=self.options.seed)

    def _kicks_pay(self, state: State) -> bool:
        """Whether a kick follows the planned stages, or another kick follows this one.

        In a limited time, until the number of records has tripled (`KICK_PATIENCE`) since the last
        gain.
        """
        is_kick, before = state.stage >= self._planned, math.inf
        if is_kick and state.incumbent is not None:
            before = (1 - self.options.tol) * state.incumbent.best_loss
        if state.losses[-1] < before:
            state.gained = len(state.records)
        if not (self._whole.left.free or self._whole.right.free):
            return False  # nothing can be turned
        usual = ("converged", "max_sweeps") if is_kick else ("converged",)
        return (
            self.options.max_seconds is not None
            and state.status in usual
            and len(state.records) < KICK_PATIENCE * state.gained
        )

    def _status_of_best(self, state: State) -> str:
        """Why the descent to the best point ended: that of a kick that brought nothing says little.

        Kicks follow where a descent has converged, and after kicks that reached `max_sweeps`.
        """
        incumbent = state.incumbent if state.stage >= self._planned else None
        if incumbent is None or state.losses[-1] < incumbent.best_loss:
            return state.status
        return incumbent.status or "converged"

    def _append_kicks(self, number: int) -> None:
        """Append kicks to the planned stages until there is a stage of this number."""
        while len(self.stages) <= number:
            self.stages.append(Stage(self._whole.left, self._whole.right, "kick", decides=True))
            self.stage_options.append(self._options_of(self.stages[-1]))

    def engine(self, stage: Stage) -> Environments:
        """A new engine for the circuits of a stage."""
        return build_engine(
            self.options.engine,
            self.loss.target,
            self.problem.legs,
            stage.left,
            stage.right,
            options=self._engine_options,
        )

    @cached_property
    def first_core(self) -> list:
        return first_core(self.problem, self.options, self._deadline.part(FIT_SHARE))

    def result(self, state: State, status: str = "") -> Disentangled:
        """What the search has found where the state stands, its gates put exactly on their group.

        Parameters
        ----------
        status : str
            Of a search that has not ended.
        """
        if state.point is None:
            raise ValueError("the search has not made a record yet; there is no result to return")
        self._append_kicks(state.stage)
        stage, point, name = best_so_far(self.stages, state)
        point = advance(stage, self._whole, point, seed=())
        over = bool(state.ended) or status == "interrupted"
        run, whole = self._run, (self._whole.left, self._whole.right)
        if over and run is not None and (run.stage.left, run.stage.right) == whole:
            engine = run.engine
        else:
            if over:
                self._run = None  # two engines may not fit the memory
            engine = self.engine(self._whole)
            if state.plan is not None:
                engine.plan = state.plan
        if not engine.exact:
            monitor = TruncationMonitor(self.problem, self.options.environment_bond)
            engine.set_max_bond(monitor.bond(state))
        problem, bond = self.problem, engine.max_bond
        left, right = (
            Circuit(ansatz, tuple(gates)).projected()
            for ansatz, gates in ((problem.left, point.left), (problem.right, point.right))
        )
        with single_threaded(bond is not None and bond <= SMALL_BOND):
            engine.set(left.gates, point.core, right.gates)
            core = self.loss.scaled_core(engine)
            engine.set(core=core)
            figures = self._recorder.of_result(
                engine,
                core,
                2 * max(self.options.environment_bond),
                spectra=not over or self._measures_all,
            )
            loss = self.loss.value(engine)
        tensors, log_norm = left_canonical(core)
        tensors = spread_norm(tensors, log_norm + problem.log_norm)
        return Disentangled(
            factorization=Factorization(left, mpo_from_tensors(tensors), right, problem.shape),
            status=status or state.ended,
            history=History(tuple(state.records)),
            options=self.options,
            init=name,
            loss=loss,
            seconds=state.seconds,
            winners=tuple(winners(state, name)),
            **figures,
        )


class StageRun:
    """A stage of a search with its engine and what updates it."""

    def __init__(self, search: Search, number: int, seconds: float) -> None:
        self.stage = stage = search.stages[number]
        self._search, self._options = search, search.stage_options[number]
        self.engine = search.engine(stage)
        self._problem = search.problem.changed(left=stage.left, right=stage.right)
        self._monitor = None
        if not self.engine.exact:
            self._monitor = TruncationMonitor(self._problem, self._options.environment_bond)
        self._descent = Descent(
            search.loss,
            self.engine,
            stage.left,
            stage.right,
            method=self._options.method,
            core=self._options.core == "update",
            relaxation=self._options.relaxation,
            monitor=self._monitor,
            measure=self._measure,
        )
        self._budget = search.budget(self._options, seconds)

    def run(self, state: State) -> Iterator[dict]:
        """Explore the initial guesses and refine the best, from where the state stands."""
        count, executor = self._options.n_init, self._search.executor
        untouched = not (state.guess or state.phase or state.refining)
        if executor is not None and self.engine.parallel and count > 1 and untouched:
            yield from self._explore_in_parallel(state, executor)
        if not state.refining and count > 1:
            yield from self.explore(state, count)
            self._return_to_best(state)
        state.refining = True
        if not state.phase:
            self._place(state)
        yield from self._descent.run(state, self._budget)

    def explore(self, state: State, count: int) -> Iterator[dict]:
        """Follow initial guesses for some sweeps, from that of the state up to number `count`."""
        budget = replace(self._budget, init_sweeps=self._options.init_sweeps)
        return self._descent.explore(state, budget, self._place, count)

    def _measure(self, state: State) -> dict:
        state.plan = self.engine.plan
        bond = None if self._monitor is None else self._monitor.bond(state)
        record = self._search._recorder.of_sweep
        return record(self._search.loss, self.engine, state, self._problem, bond)

    def _place(self, state: State) -> None:
        began = time.perf_counter()
        limit = self._budget.max_seconds
        deadline = Deadline(None if limit is None else max(1e-9, limit - state.seconds))
        if self._monitor is not None:
            self._monitor.begin(state, self.engine)
        with single_threaded(self._monitor is not None and self._monitor.is_small(state)):
            place_initial_guess(
                state.guess,
                state.name,
                self.engine,
                self._search.loss,
                self._problem,
                self._options,
                around=state.initial,
                core=[] if state.initial and state.initial.core else self._search.first_core,
                deadline=deadline,
            )
        state.seconds += time.perf_counter() - began

    def return_to(self, state: State) -> None:
        """Put the engine where a state stands."""
        assert state.point is not None
        if state.plan is not None:
            self.engine.plan = state.plan
        if self._monitor is not None:
            self.engine.set_max_bond(self._monitor.bond(state))
        self.engine.set(state.point.left, state.point.core, state.point.right)

    def _return_to_best(self, state: State) -> None:
        """Go on with the best initial guess, a truncating engine at its first bond dimension."""
        ended = state.status
        assert state.best is not None
        state.continue_from(state.best)
        if self._monitor is not None:
            self._monitor.begin(state, self.engine)
        self.return_to(state)
        if ended in ("exact", "max_seconds"):
            state.status = ended
        elif state.status == "explored":
            state.status = ""
        state.refining = True

    def _explore_in_parallel(self, state: State, executor: Executor) -> Iterator[dict]:
        """Explore every initial guess on the executor; the state goes on with the best."""
        began, known = time.perf_counter(), len(state.records)
        search, tasks = self._search, []
        for guess in range(self._options.n_init):
            one = replace(state.descent(), guess=guess, initial=state.initial, stage=state.stage)
            work = (search.problem, search.options, search.objective, one)
            tasks.append(executor.submit(_explored, *work))
        found: State | None = None
        for task in tasks:
            answer = self._wait(task)
            if answer is None:
                break
            found = answer
            state.records += found.records
            if found.best is not None and found.best_loss < state.best_loss:
                state.best, state.best_loss = found.best, found.best_loss
            if found.status == "exact":
                break  # the others are left aside, as they would be one by one
        for task in tasks:
            task.cancel()
        state.seconds += time.perf_counter() - began
        if self._search.interrupted():
            if found is not None:  # a run that is resumed goes on with the next initial guess
                state.continue_from(found)
                yield from state.records[known:]
            return
        self._return_to_best(state)
        yield from state.records[known:]

    def _wait(self, task: Any) -> State | None:
        """What a task of an executor has found; None if Ctrl-C is pressed before."""
        while not self._search.interrupted():
            if task.done():
                return task.result()  # with a timeout, Dask breaks off what is on its way here
            time.sleep(WAIT_SECONDS)
        return None


def _explored(
    problem: Problem, options: SearchOptions, objective: Objective, state: State
) -> State:
    """A state whose initial guess was explored; to be run on an executor."""
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and multiprocessing.parent_process() is not None:
        # Ctrl-C reaches every process of a terminal; the one that waits decides
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    search = Search(problem, options, objective)
    with single_threaded(True):  # the others keep the other processors busy
        for _ in StageRun(search, state.stage, state.seconds).explore(state, state.guess + 1):
            pass
    return state


def _gates(stage: Stage) -> int:
    return len(stage.left.placements) + len(stage.right.placements)
