"""Which engine: time and memory of each for a problem, and the cheapest that fits.

The cheapest exact engine within the budgets of memory and time is taken, and the cheapest one that
truncates where there is none. A problem that no engine can hold is refused before anything large
is allocated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

from mpodis.arguments import check_count
from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.sides import CircuitLike, both_ansatze, sides_of_depth
from mpodis.conventions import Legs
from mpodis.environments.protocol import EngineOptions, Estimate, ProblemSize, check_sides
from mpodis.environments.registry import ENGINES, as_built, engine_named
from mpodis.fit import full_bonds
from mpodis.mpo import Operator, as_mpo
from mpodis.sites import bond_dimensions, legs_of, site_tensors
from mpodis.tables import Table

__all__ = ["choose", "engine_estimates"]

log = logging.getLogger(__name__)

EXACT_SECONDS = 3.0
"""Seconds in which an exact engine must update every gate once; else one that truncates is used."""


def engine_estimates(
    operator: Operator,
    *,
    depth: int | None = None,
    left: CircuitLike = None,
    right: CircuitLike = None,
    group: str = "SO",
    max_bond: int = 1,
    environment_bond: int = 32,
    memory: float | None = None,
) -> Table:
    """A table of what each engine would take, from which `disentangle(engine="auto")` would pick.

    `disentangle` asks with the last `environment_bond` of its schedule. The tree engine is left out
    where searching its contraction path cannot pay.

    Parameters
    ----------
    operator, depth, left, right, group
        The operator and the circuits, as for `disentangle`.
    max_bond : int
        Bond dimension chi' of the core.
    environment_bond : int
        Bond dimension D of the boundary engine.
    memory : float, optional
        Bytes that an engine may take; by default most of what is available.

    Raises
    ------
    TypeError, ValueError
        Not an operator or not a circuit, an ansatz of another size, a bond dimension below 1, or a
        memory that is not positive.

    Examples
    --------
    >>> import numpy as np, mpodis
    >>> table = engine_estimates(np.eye(16), depth=2)
    >>> [row[0] for row in table.rows]
    ['dense', 'transverse', 'boundary']
    """
    given = sides_of_depth(depth, left, right)
    tensors = site_tensors(as_mpo(operator))
    legs = legs_of(tensors)
    ansatze = both_ansatze(legs, *given, group=group)
    check_count("max_bond", max_bond)
    options = EngineOptions(environment_bond=environment_bond, memory=memory)
    is_complex = any("complex" in str(tensor.dtype) for tensor in tensors)
    is_complex |= any(ansatz.group == "U" for ansatz in ansatze)
    problem = ProblemSize(
        legs, *ansatze, bond_dimensions(tensors), tuple(full_bonds(legs, max_bond)), is_complex
    )
    found = list(_estimates(problem, options))
    rows = [
        (
            e.engine,
            "exact" if e.exact else f"D = {environment_bond}",
            e.seconds,
            f"{e.bytes / 2**20:.3g}",
            "no" if e.refused else "yes",
        )
        for e in found
    ]
    columns = ("engine", "", "seconds, every gate once", "MiB", "can be used")
    return Table(columns, rows, notes=[e.refused for e in found if e.refused])


def choose(
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    target_bonds: Sequence[int],
    max_bond: int,
    complex: bool,
    options: EngineOptions,
    engine: str = "auto",
) -> Estimate:
    """The engine to take: the cheapest exact one within the budgets, else one that truncates.

    Parameters
    ----------
    legs, left, right
        Legs of the operator, and the circuits.
    target_bonds : sequence of int
        Bond dimensions between the sites of the operator.
    max_bond : int
        Bond dimension chi' of the core.
    complex : bool
        Whether target, gates or core are complex.
    options : EngineOptions
    engine : str
        "auto", or the name of an engine, which is then only checked.

    Raises
    ------
    ValueError
        No engine fits into the memory, or not the one that was named.
    """
    check_sides(legs, left, right)
    core_bonds = tuple(full_bonds(legs, max_bond))
    problem = ProblemSize(tuple(legs), left, right, tuple(target_bonds), core_bonds, complex)
    if engine != "auto":
        kind = engine_named(engine)
        found = _checked(kind.estimate(as_built(kind, problem, options), options), options)
        if found.refused:
            raise ValueError(f"{found.refused}; engine='auto' takes one that fits")
        return found
    every = _estimates(problem, options)
    usable = [e for e in every if not e.refused]
    if not usable:
        reasons = "; ".join(e.refused for e in every)
        raise ValueError(
            f"no engine fits this problem: {reasons}. Use fewer layers or smaller bond "
            "dimensions, or give memory= more bytes"
        )
    quick = [e for e in usable if e.exact and e.seconds <= EXACT_SECONDS]
    best = min(quick or [e for e in usable if not e.exact] or usable, key=lambda e: e.seconds)
    others = ", ".join(
        f"{e.engine} {'does not fit' if e.refused else f'{e.seconds:.2g} s'}"
        for e in every
        if e is not best
    )
    log.info(
        "engine %s: %s, about %.2g s for every gate once and %.0f MiB (%s)",
        best.engine,
        "exact" if best.exact else f"truncated to {options.environment_bond}",
        best.seconds,
        best.bytes / 2**20,
        others,
    )
    return best


def _estimates(problem: ProblemSize, options: EngineOptions) -> list[Estimate]:
    """What every engine would take that is worth asking."""
    found: list[Estimate] = []
    for engine in ENGINES.values():
        exact = (e.seconds for e in found if e.exact and not e.refused)
        built = as_built(engine, problem, options)
        if engine.is_worth_estimating(built, min(exact, default=math.inf)):
            found.append(_checked(engine.estimate(built, options), options))
    return found


def _checked(estimate: Estimate, options: EngineOptions) -> Estimate:
    """The estimate, refused where it exceeds the memory."""
    if estimate.refused or estimate.bytes <= options.budget:
        return estimate
    return replace(
        estimate,
        refused=f"engine {estimate.engine!r} would take {_human(estimate.bytes)} of memory, and "
        f"{_human(options.budget)} are allowed",
    )


def _human(size: float) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**29 else f"{size / 2**20:.3g} MiB"
