"""Circuits.

`ansatz` holds the placements of gates, `circuit` their values, `spec` the notation of the paper's
tables, `coupling` the brickwalls of devices, `sides` the circuits of an operator, `routing` the
SWAPs that bring wires together, `exchange` what quimb has of it, `drawing` the pictures.
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
from mpodis.circuit.coupling import coupling_brickwall, coupling_line
from mpodis.circuit.exchange import as_circuit, circuit_from_quimb, circuit_to_quimb
from mpodis.circuit.routing import Routed, routed, routed_circuit
from mpodis.circuit.sides import (
    CircuitLike,
    as_ansatz,
    both_ansatze,
    from_quimb,
    sides_of_depth,
)
from mpodis.circuit.spec import from_spec, pair_from_spec, segments_from_spec

__all__ = [
    "Ansatz",
    "Circuit",
    "CircuitLike",
    "Placement",
    "Routed",
    "apply_columns",
    "apply_rows",
    "as_ansatz",
    "as_circuit",
    "both_ansatze",
    "brickwall",
    "circuit_from_gates",
    "circuit_from_quimb",
    "circuit_group",
    "circuit_to_quimb",
    "coupling_brickwall",
    "coupling_line",
    "embed",
    "from_quimb",
    "from_spec",
    "identity_circuit",
    "pair_from_spec",
    "random_circuit",
    "routed",
    "routed_circuit",
    "sandwich",
    "segments_from_spec",
    "sides_of_depth",
    "staircase",
    "tie_gates",
]
