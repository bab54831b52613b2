"""Circuits with the fewest CNOTs: counting, pruning, resynthesis, Pareto fronts.

`two_qubit_gates` counts and finds gates with fewer CNOTs, `rewriting` merges and compiles gates,
`task` measures and optimises, `cnot_search` takes CNOTs out and puts them in elsewhere.
"""

from mpodis.resynthesis.cnot_search import prune
from mpodis.resynthesis.front import ParetoFront, ParetoPoint
from mpodis.resynthesis.pareto import FAMILIES, pareto
from mpodis.resynthesis.resynthesise import Resynthesis, resynthesise
from mpodis.resynthesis.two_qubit_gates import cnot_count, cnot_depth, gate_cnots

__all__ = [
    "FAMILIES",
    "ParetoFront",
    "ParetoPoint",
    "Resynthesis",
    "cnot_count",
    "cnot_depth",
    "gate_cnots",
    "pareto",
    "prune",
    "resynthesise",
]
