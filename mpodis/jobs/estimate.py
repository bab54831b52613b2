"""`mpodis estimate FILE`: which engines fit, and how long `mpodis disentangle` takes at most."""

from __future__ import annotations

from dataclasses import replace

from mpodis.advice import seconds_of_sweep
from mpodis.environments import engine_estimates
from mpodis.jobs.disentangle import read_operator, searches
from mpodis.optimise.search import Search
from mpodis.options import DisentangleConfig, is_whole
from mpodis.tables import Table

__all__ = ["estimate"]

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
    prepared = read_operator(options)
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
    seconds = seconds_of_sweep(search)
    longest = seconds * search.sweeps
    if options.max_seconds is not None:
        longest = min(longest, options.max_seconds)
    return (chosen.objective, chosen.engine, chosen.init, search.total, seconds, longest)
