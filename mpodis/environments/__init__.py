"""Environments of every gate and of the core: four engines behind one small interface.

`base` says what an engine is, `choose` which one to take. `dense` and `boundary` stand alone;
`transverse` and `tree` walk over the closed `network` by `messages`.
"""

from mpodis.environments.boundary.engine import BoundaryEnvironments
from mpodis.environments.choose import (
    ENGINES,
    EngineOptions,
    Estimate,
    build_engine,
    choose,
    engine_estimates,
)
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.network.transverse import TransverseEnvironments
from mpodis.environments.network.tree import TreeEnvironments
from mpodis.environments.overlap import OverlapEstimate, to_mpo, true_overlap
from mpodis.environments.protocol import Environments, Gradient

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
    "OverlapEstimate",
    "build_engine",
    "choose",
    "engine_estimates",
    "to_mpo",
    "true_overlap",
]
