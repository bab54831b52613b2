"""Environments of every gate and of the core: four engines behind one small interface.

`base` says what an engine is, `choose` which one to take. `dense` and `boundary` stand alone;
`transverse` and `tree` walk over the closed `network` by `messages`.
"""

from mpodis.environments.base import Environments, Gradient
from mpodis.environments.boundary import BoundaryEnvironments
from mpodis.environments.choose import (
    ENGINES,
    EngineOptions,
    Estimate,
    build_engine,
    choose,
    engine_estimates,
)
from mpodis.environments.dense import DenseEnvironments
from mpodis.environments.transverse import TransverseEnvironments
from mpodis.environments.tree import TreeEnvironments
from mpodis.environments.truth import Truth, to_mpo, true_overlap

__all__ = [
    "ENGINES",
    "BoundaryEnvironments",
    "DenseEnvironments",
    "EngineOptions",
    "Environments",
    "Estimate",
    "Gradient",
    "TransverseEnvironments",
    "TreeEnvironments",
    "Truth",
    "build_engine",
    "choose",
    "engine_estimates",
    "to_mpo",
    "true_overlap",
]
