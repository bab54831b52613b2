"""Seconds and memory of the environment engines, measured, and the largest problem that fits."""

from __future__ import annotations

import itertools
import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import BoundaryEnvironments, Environments
from mpodis.environments.protocol import EngineOptions, ProblemSize, Update
from mpodis.environments.registry import engine_named
from mpodis.fit import full_bonds
from mpodis.gates import polar
from mpodis.mpo import compress
from mpodis.sites import bond_dimensions, site_tensors
from mpodis.targets import random_mpo

__all__ = ["engine_cost", "largest_problem"]

AXES = ("n", "depth", "n and depth", "environment_bond")
NEAR_IDENTITY = 0.05
"""Distance of the gates from the identity, as in the first initial guess of a search."""
GIB = 2.0**30


def engine_cost(
    *,
    engine: str = "boundary",
    n: int = 12,
    depth: int = 8,
    environment_bond: int | None = None,
    operator_bond: int = 4,
    repeats: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """What it takes an engine to give every gate its environment once, and to update it.

    The operator is a random MPO, the core a product, and the circuits are brickwalls of gates in
    SO(4) near the identity on both sides; the update is the polar one.

    Parameters
    ----------
    engine : str
        See `mpodis.disentangle`.
    n, depth : int
        Qubits and layers of each circuit.
    environment_bond : int, optional
        Bond dimension D of the boundary engine, which needs one; exact engines take none.
    operator_bond : int
        Bond dimension of the operator.
    repeats : int
        Of the measurement of time, of which the median is taken.
    seed : int
        Of operator and gates.

    Returns
    -------
    dict
        "pass_seconds", CPU time of giving every gate its environment once; "passes", how often a
        sweep of a search does that: once with the dense engine, there and back with the others;
        "first_seconds", of the first time, in which boundaries are built and contraction paths
        searched, with memory being traced; "bytes", the most memory that Python and numpy held at
        any moment since the engine was built, without the work space inside LAPACK;
        "estimated_seconds" and "estimated_bytes", by which ``engine="auto"`` chooses; and "gates".

    Raises
    ------
    ValueError
        If there is no such engine, or D does not belong to it.

    Examples
    --------
    >>> from mpodis.study.costs import engine_cost
    >>> found = engine_cost(engine="dense", n=4, depth=2, repeats=1)
    >>> found["gates"], found["pass_seconds"] > 0, found["bytes"] > 2 * 8 * 16**2
    (6, True, True)
    """
    kind = engine_named(engine)
    if kind.exact != (environment_bond is None):
        raise ValueError(
            f"environment_bond={environment_bond}: engine {engine!r} is "
            + ("exact and takes none" if kind.exact else "truncated to one; give a number")
        )
    options = EngineOptions()
    if environment_bond is not None:
        options = EngineOptions(environment_bond=environment_bond)
    operator = random_mpo(n, operator_bond, seed=seed)
    target, legs = site_tensors(operator), ((2, 2),) * n
    core = site_tensors(compress(operator, max_bond=1).mpo)
    ansatz = brickwall(n, depth, fill=False)
    left, right = (
        random_circuit(places, seed=2 * seed + k, scale=NEAR_IDENTITY)
        for k, places in enumerate((ansatz, ansatz.reversed()))
    )
    size = ProblemSize(
        legs,
        left.ansatz,
        right.ansatz,
        tuple(bond_dimensions(target)),
        tuple(full_bonds(legs, 1)),
        False,
    )
    estimate = kind.estimate(size, options)
    began = time.process_time()
    tracemalloc.start()
    try:
        built = kind.build(target, legs, left.ansatz, right.ansatz, options)
        built.set(left.gates, core, right.gates)
        sweep, share, passes = _sweep_of(built)
        sweep()
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    first = time.process_time() - began
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        sweep()
        seconds.append(share * (time.process_time() - began))
    return {
        "pass_seconds": statistics.median(seconds),
        "passes": passes,
        "first_seconds": first,
        "bytes": held,
        "estimated_seconds": estimate.seconds,
        "estimated_bytes": estimate.bytes,
        "gates": len(left.gates) + len(right.gates),
    }


def _sweep_of(engine: Environments) -> tuple[Callable[[], None], float, int]:
    """What is timed of an engine, to measure one pass, an update of every gate.

    Returns
    -------
    sweep : callable
        Updates every gate at least once.
    share : float
        Part of its time that is one pass.
    passes : int
        Passes of a whole sweep of the engine.
    """
    updates: dict[str, Update] = {"left": _polar_update, "right": _polar_update}
    if isinstance(engine, BoundaryEnvironments):
        directions = itertools.cycle(["up", "down"])
        return lambda: engine.half_sweep(next(directions), updates), 1.0, 2
    passes = 1 if engine.holds_dense else 2
    return lambda: engine.sweep(updates), 1 / passes, passes


def _polar_update(environment: Any, _: Any) -> Any:
    return polar(environment, group="SO")


def largest_problem(
    *,
    engine: str = "boundary",
    axis: str = "environment_bond",
    n: int = 32,
    depth: int = 16,
    environment_bond: int | None = None,
    step: int = 0,
    sweeps: int = 200,
    hours: float = 1.0,
    gib: float = 20.0,
    longest: float = 25.0,
    seed: int = 0,
) -> dict[str, Any]:
    """The largest problem along an axis whose search fits a time and a memory, found by running it.

    From the one that is given on, the axis is doubled, and every problem is run: every gate gets
    its environment twice, once to measure memory and once for the time, see `engine_cost`. It ends
    with a problem that does not fit, or where running the next one, by the ratio of the last two,
    would take more than `longest`.

    Parameters
    ----------
    engine, n, depth, environment_bond, seed
        The smallest problem, see `engine_cost`.
    axis : {"n", "depth", "n and depth", "environment_bond"}
    step : int
        Added to the axis instead of doubling it, for costs that are exponential in it.
    sweeps : int
        Of a search.
    hours, gib : float
        What a search may take, on one core.
    longest : float
        CPU seconds that running one problem may take; its memory may be half of `gib`.

    Returns
    -------
    dict
        "largest_n", "largest_depth", "largest_environment_bond" (0 for exact engines),
        "sweep_seconds" and "bytes" of the largest that fits and was run, "search_seconds" of its
        search; "next_seconds", "next_bytes" of the next one, and whether it was run ("next_run");
        arrays over the problems that were run: "sizes", "all_seconds", "all_bytes".

    Raises
    ------
    ValueError
        If the axis is not known, or the smallest problem does not fit.

    Examples
    --------
    >>> from mpodis.study.costs import largest_problem
    >>> found = largest_problem(
    ...     axis="environment_bond", n=4, depth=2, environment_bond=1, longest=0.01, hours=1.0
    ... )
    >>> found["largest_n"], found["largest_environment_bond"] >= 1
    (4, True)
    """
    if axis not in AXES:
        raise ValueError(f"axis={axis!r} is not known; use one of {', '.join(AXES)}")
    allowed = hours * 3600 / sweeps
    problem: dict[str, Any] = {"n": n, "depth": depth, "environment_bond": environment_bond}
    runs: list[_Run] = []
    while True:
        found = engine_cost(engine=engine, **problem, repeats=1, seed=seed)
        once, held = found["pass_seconds"], found["bytes"]
        seconds = found["passes"] * once
        runs.append(_Run(problem, seconds, held, found["first_seconds"] + once))
        after = _Run({}, math.nan, math.nan, math.nan)
        if seconds > allowed or held > gib * GIB:
            break
        problem = _next(problem, axis, step)
        if 2 ** problem["n"] > engine_named(engine).limit:
            break  # the engine refuses
        after = _Run(problem, *map(_predicted, list(zip(*runs, strict=True))[1:]))
        if after.whole > longest or after.bytes > gib * GIB / 2:
            break
    fits = [run for run in runs if run.seconds <= allowed and run.bytes <= gib * GIB]
    if not fits:
        raise ValueError(
            f"n={n}, depth={depth}, D={environment_bond} takes {runs[0].seconds:.3g} s and "
            f"{runs[0].bytes / GIB:.3g} GiB and does not fit; begin with a smaller problem"
        )
    largest, beyond = fits[-1], runs[len(fits) :]
    after = beyond[0] if beyond else after
    name = axis.partition(" ")[0]
    return {
        "largest_n": largest.problem["n"],
        "largest_depth": largest.problem["depth"],
        "largest_environment_bond": largest.problem["environment_bond"] or 0,
        "sweep_seconds": largest.seconds,
        "bytes": largest.bytes,
        "search_seconds": sweeps * largest.seconds,
        "next_seconds": after.seconds,
        "next_bytes": after.bytes,
        "next_run": bool(beyond),
        "sizes": ("run", [run.problem[name] for run in runs]),
        "all_seconds": ("run", [run.seconds for run in runs]),
        "all_bytes": ("run", [run.bytes for run in runs]),
    }


class _Run(NamedTuple):
    """A problem that was run, or is predicted: CPU seconds of a sweep, and of measuring it."""

    problem: dict[str, Any]
    seconds: float
    bytes: float
    whole: float


def _next(problem: dict[str, Any], axis: str, step: int) -> dict[str, Any]:
    """The next larger problem."""
    return problem | {
        name: problem[name] + step if step else 2 * problem[name] for name in axis.split(" and ")
    }


def _predicted(values: Sequence[float]) -> float:
    """The next of a sequence: its last ratio once more, and two at first."""
    ratio = values[-1] / values[-2] if len(values) > 1 else 2.0
    return values[-1] * max(ratio, 1.0)
