"""Environments of every gate and of the core: engines that implement one protocol.

`protocol` says what an engine offers, `registry` which engines there are, `choose` which of them
a problem gets. `dense` holds whole operators; `network` contracts the closed tensor network, site
by site (`transverse`) or along a searched tree (`tree`); `boundary` pulls MPOs through the
circuits and truncates them. `routed` brings gates on wires that are not neighbours to engines that
keep neighbours only, `folded` a circuit around an identity core to engines that gain by having it
on both sides; `arrays` holds devices and threads. `overlap` measures a result independently
of the engine that found it.
"""

from mpodis.environments.boundary.engine import BoundaryEnvironments
from mpodis.environments.choose import choose, engine_estimates
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.network.transverse import TransverseEnvironments
from mpodis.environments.network.tree import TreeEnvironments
from mpodis.environments.overlap import (
    LossEstimate,
    OverlapEstimate,
    to_mpo,
    true_loss,
    true_overlap,
)
from mpodis.environments.protocol import (
    DenseOperatorEnvironments,
    Engine,
    EngineOptions,
    Environments,
    Estimate,
    Gradient,
    ProblemSize,
    has_dense_operator,
)
from mpodis.environments.registry import ENGINES, build_engine, register_engine

__all__ = [
    "ENGINES",
    "BoundaryEnvironments",
    "DenseEnvironments",
    "DenseOperatorEnvironments",
    "Engine",
    "EngineOptions",
    "Environments",
    "Estimate",
    "Gradient",
    "LossEstimate",
    "OverlapEstimate",
    "ProblemSize",
    "TransverseEnvironments",
    "TreeEnvironments",
    "build_engine",
    "choose",
    "engine_estimates",
    "has_dense_operator",
    "register_engine",
    "to_mpo",
    "true_loss",
    "true_overlap",
]
