"""The engines by name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TypeVar

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.routing import routed
from mpodis.conventions import Legs
from mpodis.environments.boundary.engine import BoundaryEnvironments
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.folded import FoldedEnvironments, can_fold, folded
from mpodis.environments.network.transverse import TransverseEnvironments
from mpodis.environments.network.tree import TreeEnvironments
from mpodis.environments.protocol import (
    DenseOperatorEnvironments,
    Engine,
    EngineOptions,
    Environments,
    ProblemSize,
    Target,
    has_dense_operator,
)
from mpodis.environments.routed import RoutedEnvironments

__all__ = [
    "ENGINES",
    "as_built",
    "build_engine",
    "dense_engine",
    "engine_named",
    "register_engine",
]

E = TypeVar("E", bound=Engine)

ENGINES: dict[str, type[Engine]] = {}
"""Engine classes by name, in the order in which ``engine="auto"`` asks for their estimates."""


def register_engine(engine: type[E]) -> type[E]:
    """Add an engine class under its `name`; also a class decorator.

    From then on ``engine="auto"`` compares it with the others and ``engine=name`` takes it.

    Parameters
    ----------
    engine : class that implements `Engine`

    Raises
    ------
    ValueError
        Another engine has this name, or the name is "auto".

    Examples
    --------
    >>> @register_engine
    ... class Mine(Engine):
    ...     name = "mine"
    ...     exact = True
    >>> ENGINES.pop("mine").__name__
    'Mine'
    """
    if engine.name == "auto" or ENGINES.get(engine.name, engine) is not engine:
        raise ValueError(f"the engine name {engine.name!r} is taken; choose another one")
    ENGINES[engine.name] = engine
    return engine


def engine_named(engine: str) -> type[Engine]:
    """The class of an engine, or a ValueError with the names that are known."""
    if engine not in ENGINES:
        raise ValueError(f"engine={engine!r} is not known; use one of {', '.join(ENGINES)}")
    return ENGINES[engine]


register_engine(DenseEnvironments)
register_engine(TransverseEnvironments)
register_engine(TreeEnvironments)
register_engine(BoundaryEnvironments)


def build_engine(
    engine: str,
    target: Target,
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    options: EngineOptions,
) -> Environments:
    """An engine by its name, with the options that concern it.

    Gates on wires that are not neighbours are kept where the engine can, else they are routed by
    SWAPs.
    """
    kind = engine_named(engine)
    if kind.folds and options.identity_core and can_fold(legs, left, right):
        plain = replace(options, identity_core=False)
        whole = partial(build_engine, engine, target, legs, left, right, options=plain)
        halves = build_engine(engine, target, legs, *folded(left, right), options=plain)
        return FoldedEnvironments(halves, left, right, whole)
    if kind.any_wires or (left.is_local and right.is_local):
        return kind.build(target, legs, left, right, options)
    return RoutedEnvironments.around(kind, target, legs, left, right, options)


def as_built(kind: type[Engine], problem: ProblemSize, options: EngineOptions) -> ProblemSize:
    """The problem as `build_engine` gives it to an engine class, for its estimate."""
    left, right = problem.left, problem.right
    if kind.folds and options.identity_core and can_fold(problem.legs, left, right):
        left, right = folded(left, right)
        bonds = (1,) * len(problem.core_bonds)
        problem = replace(problem, left=left, right=right, core_bonds=bonds)
    if kind.any_wires or (left.is_local and right.is_local):
        return problem
    return replace(problem, left=routed(left).ansatz, right=routed(right).ansatz)


def dense_engine(
    target: Target, legs: Legs, left: Ansatz, right: Ansatz
) -> DenseOperatorEnvironments:
    """The dense engine with its default options; distant gates get SWAPs, as in `build_engine`."""
    engine = build_engine("dense", target, legs, left, right, options=EngineOptions())
    assert has_dense_operator(engine)
    return engine
