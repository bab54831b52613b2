"""The same circuits with fewer or narrower gates: merged, absorbed into the core, compiled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.circuit.ansatz import Placement, brickwall
from mpodis.circuit.circuit import Circuit, circuit_from_gates
from mpodis.conventions import wires
from mpodis.factorization import Factorization
from mpodis.resynthesis.two_qubit_gates import kron, nearest_product
from mpodis.sites import mpo_from_tensors, site_tensors
from mpodis.synthesis import synthesise

__all__ = [
    "PlacedGate",
    "absorb_into_core",
    "compile_wide_gates",
    "placed_gates",
    "simplified",
]

CANCELS = 1e-12
"""Distance, element by element, at which a gate counts as a product of one-qubit gates."""
WIDEST = 4
"""Wires of the widest gate that is compiled; one on five wires has 500 angles and takes minutes."""
EXACT = 1e-9
"""1 - f at which a gate counts as compiled."""
MORE = 3
"""Depths that are tried, from the fewest layers with enough angles on."""
N_INIT = 4
"""Initial guesses for each of them."""

PlacedGate = tuple[Placement, np.ndarray]


def placed_gates(circuit: Circuit) -> list[PlacedGate]:
    """Placements and gates in the order in which a row vector meets them, without ties."""
    places = [Placement(place.wires, place.fixed) for place in circuit.ansatz.placements]
    return list(zip(places, circuit.gates, strict=True))


# --- fewer gates


def absorb_into_core(given: Factorization) -> Factorization:
    """The same operator with `simplified` circuits and no one-qubit gates next to the core."""
    tensors, circuits = site_tensors(given.core), {}
    for side, step in (("left", -1), ("right", 1)):
        circuit = simplified(getattr(given, side))
        sites, busy, kept = wires(given.legs, side), set(), []
        for place, gate in placed_gates(circuit)[::step]:  # from the core outwards
            if place.width == 1 and place.wires[0] not in busy:
                k = sites[place.wires[0]]
                # left: gate (j, i) on the input i; right: gate (o, j) on the output o
                contraction = "ji,aiob->ajob" if side == "left" else "oj,aiob->aijb"
                tensors[k] = np.einsum(contraction, gate, tensors[k])
            else:
                kept.append((place, gate))
                busy.update(place.wires)
        circuits[side] = circuit_from_gates(circuit.n, kept[::step], circuit.ansatz.group)
    core = mpo_from_tensors(tensors)
    return Factorization(circuits["left"], core, circuits["right"], given.shape)


def simplified(circuit: Circuit) -> Circuit:
    """The same matrix with fewer gates, and never with more CNOTs.

    A one-qubit gate is multiplied into the free gate before or after it. Gates that follow one
    another on the same wires become one if their product is in the circuit's group: two CNOTs with
    one-qubit gates between them are one free gate of determinant +1. Where the product of two
    gates on two wires is one of one-qubit gates, these replace it.

    Examples
    --------
    >>> from mpodis import from_spec, random_circuit
    >>> print(simplified(random_circuit(from_spec("CNOT + 1b + CNOT", 2), seed=0)).ansatz)
    2 wires, 1 layers (1 x 2b), SO
    """
    group: str = circuit.ansatz.group
    done: list[PlacedGate] = []
    for place, gate in placed_gates(circuit):
        if place.width == 1:
            _append_single(done, place, gate)
        else:
            _append_wider(done, place, gate, group)
    return circuit_from_gates(circuit.n, done, group)


def _append_single(done: list[PlacedGate], place: Placement, gate: np.ndarray) -> None:
    """Multiply a one-qubit gate into the last gate on its wire, or append it."""
    k = _last(done, place.wires[0])
    if k is None or done[k][0].fixed is not None:
        done.append((place, gate))
    else:
        before = done[k][0]
        done[k] = (before, done[k][1] @ _widened(before, place, gate))


def _append_wider(done: list[PlacedGate], place: Placement, gate: np.ndarray, group: str) -> None:
    """Merge a gate with the last one on the same wires and the one-qubit gates between them."""
    last = [_last(done, wire) for wire in place.wires]
    singles = [k for k in last if k is not None and done[k][0].width == 1]
    between = np.eye(2**place.width)
    for k in singles:
        between = between @ _widened(place, *done[k])
    rest = [one for k, one in enumerate(done) if k not in singles]
    before = {_last(rest, wire) for wire in place.wires}
    k = before.pop()
    if not before and k is not None and rest[k][0].wires == place.wires:
        merged = rest[k][1] @ between @ gate
        if group != "SO" or np.linalg.det(merged) > 0:
            product = _as_product(merged, group) if place.width == 2 else None
            if product is None:
                rest[k] = (Placement(place.wires), merged)
                done[:] = rest
            else:
                done[:] = rest[:k] + rest[k + 1 :]
                for wire, single in zip(place.wires, product, strict=True):
                    _append_single(done, Placement((wire,)), single)
            return
    if place.fixed is None:
        done[:] = [*rest, (place, between @ gate)]
    else:
        done.append((place, gate))


def _as_product(gate: np.ndarray, group: str) -> tuple[np.ndarray, np.ndarray] | None:
    """One-qubit gates whose product the gate is, if there are any."""
    a, b = nearest_product(gate, group=group)
    return (a, b) if np.abs(kron(a, b) - gate).max() < CANCELS else None


def _last(done: Sequence[PlacedGate], wire: int) -> int | None:
    """Number of the last gate on a wire."""
    found = (k for k in reversed(range(len(done))) if wire in done[k][0].wires)
    return next(found, None)


def _widened(place: Placement, single: Placement, gate: np.ndarray) -> np.ndarray:
    """A one-qubit gate as a gate on the wires of `place`."""
    before = place.wires.index(single.wires[0])
    return np.kron(np.kron(np.eye(2**before), gate), np.eye(2 ** (place.width - 1 - before)))


# --- narrower gates


def compile_wide_gates(circuit: Circuit, *, seed: int = 0) -> Circuit:
    """The same matrix with gates on one and two wires only.

    A wider gate becomes the shallowest brickwall that reproduces it to 1 - f <= 1e-9. Real gates
    on two of three or more wires have determinant +1 there, so that a gate of determinant -1
    becomes complex gates, and the circuit one of the group "U".

    Parameters
    ----------
    circuit : Circuit
        Gates on up to `WIDEST` wires; narrower ones stay as they are.
    seed : int

    Raises
    ------
    ValueError
        For a wider gate, or one that no initial guess compiles.
    """
    group: str = circuit.ansatz.group
    gates: list[PlacedGate] = []
    for j, (place, gate) in enumerate(placed_gates(circuit)):
        if place.width <= 2:
            gates.append((place, gate))
            continue
        if place.width > WIDEST:
            raise ValueError(
                f"gate {j} on wires {place.wires} has {place.width} wires; gates on up to {WIDEST} "
                "are compiled into gates on two, `synthesise` a wider one into layers of your own"
            )
        own = "SO" if group != "U" and np.linalg.det(gate) > 0 else "U"
        name = f"gate {j} on wires {place.wires}"
        compiled = _compiled(np.asarray(gate), place.width, own, (seed, j), name)
        group = "U" if own == "U" else group
        for inner, value in placed_gates(compiled):
            gates.append((Placement(tuple(place.wires[k] for k in inner.wires)), value))
    if group == "U":
        gates = [(p, g if p.fixed else np.asarray(g, dtype=np.complex128)) for p, g in gates]
    return circuit_from_gates(circuit.n, gates, group)


def _compiled(
    gate: np.ndarray, width: int, group: str, seed: tuple[int, int], name: str
) -> Circuit:
    """The shallowest brickwall that is the gate."""
    best = 0.0
    first = _fewest_layers(width, group)
    for depth in range(first, first + MORE):
        found = synthesise(gate, brickwall(width, depth, group=group), n_init=N_INIT, seed=seed)
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
