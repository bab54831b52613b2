"""Circuits.

`ansatz` holds the placements of gates, `circuit` their values, `spec` the notation of the paper's
tables, `routing` the SWAPs that bring wires together, `exchange` what quimb has of it, `drawing`
the pictures.
"""

from mpodis.circuit.ansatz import (
    Ansatz,
    Placement,
    brickwall,
    circuit_group,
    staircase,
    tie_gates,
)
from mpodis.circuit.circuit import (
    Circuit,
    apply_columns,
    apply_rows,
    circuit_from_gates,
    embed,
    identity_circuit,
    random_circuit,
    sandwich,
)
from mpodis.circuit.exchange import as_circuit, circuit_from_quimb, circuit_to_quimb
from mpodis.circuit.routing import Routed, routed, routed_circuit
from mpodis.circuit.spec import from_spec, pair_from_spec, segments_from_spec

__all__ = [
    "Ansatz",
    "Circuit",
    "Placement",
    "Routed",
    "apply_columns",
    "apply_rows",
    "as_circuit",
    "brickwall",
    "circuit_from_gates",
    "circuit_from_quimb",
    "circuit_group",
    "circuit_to_quimb",
    "embed",
    "from_spec",
    "identity_circuit",
    "pair_from_spec",
    "random_circuit",
    "routed",
    "routed_circuit",
    "sandwich",
    "segments_from_spec",
    "staircase",
    "tie_gates",
]
