"""A circuit of few wires as an initial guess for many."""

from __future__ import annotations

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit

__all__ = ["tiled"]

PERIOD = 2
"""Wires after which a brickwall repeats."""


def tiled(circuit: Circuit, ansatz: Ansatz) -> Circuit:
    """The gates of a brickwall of few wires, repeated in the middle of one of as many layers.

    The ends of the wide circuit are those of the narrow one; between them its two middle wires
    repeat. So an optimised circuit for a part of a chain is one for the whole, where the chain is
    uniform.

    Parameters
    ----------
    circuit : Circuit
    ansatz : Ansatz
        With the same layers on more wires; the numbers of wires differ by an even number.

    Raises
    ------
    ValueError
        A placement of the ansatz that has no counterpart in the circuit.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> small = random_circuit(brickwall(4, 3), seed=0)
    >>> tiled(small, brickwall(10, 3)).n
    10
    """
    extra = ansatz.n - circuit.n
    if extra < 0 or extra % PERIOD or circuit.n < 2 * PERIOD:
        raise ValueError(
            f"a circuit of {circuit.n} wires does not repeat on {ansatz.n}; begin with at least "
            f"{2 * PERIOD} wires, and an even number less than there are"
        )
    known = {}
    numbers = iter(circuit.gates)
    for t, layer in enumerate(circuit.ansatz.layers):
        for place in layer:
            known[t, place.wires, place.fixed] = np.asarray(next(numbers))
    half = (circuit.n - PERIOD) // 2
    middle = half - half % PERIOD
    gates = []
    for t, layer in enumerate(ansatz.layers):
        for place in layer:
            first = place.wires[0]
            if first >= middle:  # as far from the middle, or from the end, as in the circuit
                first = max(middle + (first - middle) % PERIOD, first - extra)
            wires = tuple(wire - place.wires[0] + first for wire in place.wires)
            gate = known.get((t, wires, place.fixed))
            if gate is None:
                raise ValueError(
                    f"layer {t} of the circuit ({circuit.ansatz}) has no gate for wires "
                    f"{place.wires} of {ansatz}; give one of the same pattern and depth"
                )
            gates.append(gate)
    return Circuit(ansatz, tuple(gates))
