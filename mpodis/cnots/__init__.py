"""Fewest CNOTs: counting, pruning, resynthesis, CNOT geometries, the front of overlap and CNOTs."""

from mpodis.cnots.count import cnot_count, gate_cnots
from mpodis.cnots.front import ParetoFront
from mpodis.cnots.points import ParetoPoint
from mpodis.cnots.resynthesis import Resynthesis, resynthesise
from mpodis.cnots.run import FAMILIES, pareto
from mpodis.cnots.search import prune

__all__ = [
    "FAMILIES",
    "ParetoFront",
    "ParetoPoint",
    "Resynthesis",
    "cnot_count",
    "gate_cnots",
    "pareto",
    "prune",
    "resynthesise",
]
