"""Fewest CNOTs: counting them, pruning, CNOT geometries, and the front of overlap against CNOTs."""

from mpodis.cnots.count import cnot_count, gate_cnots
from mpodis.cnots.front import ParetoFront
from mpodis.cnots.points import ParetoPoint
from mpodis.cnots.run import FAMILIES, pareto
from mpodis.cnots.search import prune

__all__ = ["FAMILIES", "ParetoFront", "ParetoPoint", "cnot_count", "gate_cnots", "pareto", "prune"]
