"""Environments of every gate and of the core, behind one small interface, see `base`."""

from mpodis.environments.base import Environments, Gradient
from mpodis.environments.dense import DenseEnvironments
from mpodis.environments.tree import TreeEnvironments

ENGINES = {"dense": DenseEnvironments, "tree": TreeEnvironments}

__all__ = ["ENGINES", "DenseEnvironments", "Environments", "Gradient", "TreeEnvironments"]
