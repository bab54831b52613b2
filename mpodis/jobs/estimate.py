"""`mpodis estimate FILE`: which engines fit, and how long `mpodis disentangle` takes at most."""

from __future__ import annotations

import time
from dataclasses import replace
from statistics import median

from mpodis.environments import ENGINES, engine_estimates
from mpodis.jobs.disentangle import load_operator, searches
from mpodis.optimise.search import Search
from mpodis.options import DisentangleConfig, is_whole
from mpodis.tables import Table

__all__ = ["estimate"]

TRIAL_SECONDS = 3.0
"""A trial is stopped at the first record after this time."""
TRIAL_RECORDS = 3
DEEPEST = 512
"""Layers up to which an estimate takes seconds: circuits that grow have a stage for each."""


def estimate(options: DisentangleConfig) -> list[Table]:
    """What each engine would take, and what the searches of the options take on this machine.

    Sweeps and L-BFGS iterations of the whole circuits are timed, from gates near the identity.

    Raises
    ------
    FileNotFoundError, ValueError
        As `mpodis.jobs.disentangle.prepare`, and circuits of more than 512 layers.
    """
    for name in ("depth", "left", "right"):
        depth = getattr(options, name)
        if depth is not None and is_whole(str(depth)) and int(depth) > DEEPEST:
            raise ValueError(
                f"{name}={depth} is more than the {DEEPEST} layers that can be estimated; estimate "
                "fewer, the time of a sweep grows in proportion to them or faster"
            )
    prepared = load_operator(options)
    found = searches(options, prepared)
    problem = found[0].problem
    engines = engine_estimates(
        prepared.compressed.mpo,
        left=problem.left,
        right=problem.right,
        max_bond=options.max_bond,
        environment_bond=options.environment_bond[-1],
        memory=options.memory,
    )
    rows = [_row(search, options) for search in found]
    columns = ("objective", "engine", "init", "sweeps, at most", "s a sweep", "s, all sweeps")
    notes = [
        "A sweep is timed here; ten L-BFGS iterations count as one, and the longer of the two is "
        "taken. Searches end earlier when they converge, or by --max-seconds.",
        "Reading the file, measuring the result, counting gates and the report come on top.",
    ]
    if options.n_jobs > 1:
        notes.append(f"Initial guesses in {options.n_jobs} processes take less.")
    return [
        replace(engines, title="engines (of a model, not measured)"),
        Table(columns, rows, title="mpodis disentangle, measured on this machine", notes=notes),
    ]


def _row(search: Search, options: DisentangleConfig) -> tuple[object, ...]:
    chosen = search.options
    seconds = max(_seconds_of_sweep(search, method) for method in _methods(search))
    longest = seconds * search.sweeps
    if options.max_seconds is not None:
        longest = min(longest, options.max_seconds)
    return (chosen.objective, chosen.engine, chosen.init, search.total, seconds, longest)


def _methods(search: Search) -> list[str]:
    """The methods that the search may use."""
    able = {
        "sweeps": len(search.loss.polar_sides) == 2,
        "lbfgs": ENGINES[search.options.engine].exact,
    }
    wanted = (search.options.method,) if search.options.method != "auto" else tuple(able)
    return [method for method in wanted if able[method]] or list(wanted)


def _seconds_of_sweep(search: Search, method: str) -> float:
    """The median time of a record of a short search of the whole circuits by one method."""
    options = replace(
        search.options,
        init="identity",
        n_init=1,
        method=method,
        max_sweeps=TRIAL_RECORDS,
        tol=0.0,
        environment_bond=search.options.environment_bond[-1:],  # the slowest of a schedule
    )
    trial = Search(search.problem, options, search.objective)
    began = last = time.perf_counter()
    taken = []
    for _ in trial.run(trial.begin()):
        now = time.perf_counter()
        taken.append(now - last)
        last = now
        if now - began > TRIAL_SECONDS and len(taken) > 1:
            break
    return median(taken[1:] or taken)  # the first record builds the engine
