"""Gates on three and four wires as gates on two, exactly: what a resynthesis begins with."""

from __future__ import annotations

import numpy as np

from mpodis.circuit.ansatz import Placement, brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.resynthesis.rewrite import gates_of, packed
from mpodis.synthesis import synthesise

__all__ = ["WIDEST", "narrowed"]

WIDEST = 4
"""Wires of the widest gate that is compiled: five take 500 angles and minutes."""
EXACT = 1e-9
"""1 - f at which a gate counts as compiled."""
MORE = 3
"""Depths that are tried, from the fewest layers with enough angles on."""
STARTS = 4


def narrowed(circuit: Circuit, *, seed: int = 0) -> Circuit:
    """The same matrix with gates on one and two wires only.

    A wider gate becomes the shallowest brickwall that reproduces it to 1 - f <= 1e-9. Gates on two
    of three or more wires have determinant +1 if they are real: a gate of determinant -1 becomes
    complex ones, and the circuit one of the group "U".

    Parameters
    ----------
    circuit : Circuit
        Gates on up to `WIDEST` wires; fixed ones stay.
    seed : int

    Raises
    ------
    ValueError
        For a wider gate, or one that no start compiles.
    """
    group, gates = circuit.ansatz.group, []
    for j, (place, gate) in enumerate(gates_of(circuit)):
        if place.width <= 2:
            gates.append((place, gate))
            continue
        if place.width > WIDEST:
            raise ValueError(
                f"gate {j} on wires {place.wires} has {place.width} wires; gates on up to {WIDEST} "
                "are compiled into gates on two, `synthesise` a wider one into layers of your own"
            )
        own = "SO" if group != "U" and np.linalg.det(gate) > 0 else "U"
        small = _compiled(np.asarray(gate), place.width, own, (seed, j), f"gate {j} on {place}")
        group = "U" if own == "U" else group
        for inner, value in gates_of(small):
            gates.append((Placement(tuple(place.wires[0] + w for w in inner.wires)), value))
    if group == "U":
        gates = [(place, np.asarray(g, dtype=np.complex128)) for place, g in gates]
        gates = [(p, g.real if p.fixed else g) for p, g in gates]
    return packed(circuit.n, gates, group)


def _compiled(gate: np.ndarray, width: int, group: str, seed: tuple, name: str) -> Circuit:
    best = 0.0
    first = _fewest_layers(width, group)
    for depth in range(first, first + MORE):
        found = synthesise(gate, brickwall(width, depth, group=group), n_init=STARTS, seed=seed)
        best = max(best, found.overlap)
        if 1.0 - found.overlap <= EXACT:
            return found.circuit
    raise ValueError(
        f"{name} could not be compiled into gates on two wires: overlap {best:.6f} with "
        f"{first + MORE - 1} layers; try another seed=, or `synthesise` it with more layers"
    )


def _fewest_layers(width: int, group: str) -> int:
    """Layers of a brickwall that has as many independent angles as the gate."""
    dimension = 2**width
    # a pair of neighbouring gates shares one rotation (real: 1 angle, complex: 3) on each wire
    needed = dimension * (dimension - 1) // 2 if group != "U" else dimension**2 - 1
    each, single = (4, 1) if group != "U" else (9, 3)
    layers = gates = 0
    while each * gates + single * width < needed:
        gates += (width - layers % 2) // 2
        layers += 1
    return layers
