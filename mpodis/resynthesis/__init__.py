"""Fewest CNOTs: counting, pruning, resynthesis, CNOT geometries, the front of overlap and CNOTs."""

from mpodis.resynthesis.count import cnot_count, gate_cnots
from mpodis.resynthesis.families import FAMILIES, pareto
from mpodis.resynthesis.front import ParetoFront
from mpodis.resynthesis.points import ParetoPoint
from mpodis.resynthesis.resynthesis import Resynthesis, resynthesise
from mpodis.resynthesis.search import prune

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
