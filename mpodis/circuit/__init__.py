"""Circuits: where gates stand (`ansatz`), and what they are (`circuit`)."""

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
    embed,
    identity_circuit,
    random_circuit,
)
from mpodis.circuit.spec import from_spec, pair_from_spec, segments_from_spec

__all__ = [
    "Ansatz",
    "Circuit",
    "Placement",
    "apply_columns",
    "apply_rows",
    "brickwall",
    "circuit_group",
    "embed",
    "from_spec",
    "identity_circuit",
    "pair_from_spec",
    "random_circuit",
    "segments_from_spec",
    "staircase",
    "tie_gates",
]
