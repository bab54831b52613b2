"""Circuits on a line: gates on any wires as gates on neighbouring ones between SWAPs.

Engines that keep only neighbouring wires, and devices with a line of qubits, need this form. A
free gate absorbs the order of its wires; a fixed gate keeps its matrix, and SWAPs order its wires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from autoray import do, get_dtype_name

from mpodis.circuit.ansatz import Ansatz, Placement, earliest_layers
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import Array
from mpodis.gates import named_gate

__all__ = ["Routed", "permuted_gate", "routed", "routed_circuit"]

SWAP = "SWAP"


@dataclass(frozen=True)
class Routed:
    """An ansatz with neighbouring wires in ascending order, and where the gates of another went.

    Attributes
    ----------
    ansatz : Ansatz
        Gates and SWAPs. Ties are left out, unless nothing is routed.
    numbers : tuple of int
        Placement of the routed ansatz that holds each gate of the original one.
    orders : tuple of tuple of int
        Order of each original gate's wires in which the routed gate has them: position k is wire
        ``orders[j][k]`` of gate j.
    """

    ansatz: Ansatz
    numbers: tuple[int, ...]
    orders: tuple[tuple[int, ...], ...]

    @property
    def n_swaps(self) -> int:
        """Number of SWAPs that routing has added."""
        return len(self.ansatz.placements) - len(self.numbers)

    def __str__(self) -> str:
        return f"{self.ansatz}, {self.n_swaps} SWAPs added"

    def gates(self, gates: Sequence[Array]) -> list[Array]:
        """Gates of the routed ansatz from those of the original one."""
        found: list[Array] = [None] * len(self.ansatz.placements)
        for gate, number, order in zip(gates, self.numbers, self.orders, strict=True):
            found[number] = permuted_gate(gate, order)
        if self.n_swaps:
            like = gates[0]
            swap = do("eye", 4, dtype=get_dtype_name(like), like=like)
            swap = swap[named_gate(SWAP).permutation]
            found = [swap if gate is None else gate for gate in found]
        return found

    def original(self, gates: Sequence[Array | None]) -> list[Array]:
        """Gates, or their environments, of the original ansatz from those of the routed one.

        None, the environment of a fixed gate, stays None.
        """
        return [
            None if gates[number] is None else permuted_gate(gates[number], _inverse(order))
            for number, order in zip(self.numbers, self.orders, strict=True)
        ]


def routed(ansatz: Ansatz) -> Routed:
    """The ansatz with every gate on neighbouring wires in ascending order.

    SWAPs bring the wires of a gate together before it and back behind it, as few as possible; two
    that meet with no gate between them are left out.

    Examples
    --------
    >>> from mpodis.circuit.ansatz import Ansatz, Placement, earliest_layers
    >>> found = routed(Ansatz(4, ((Placement((0, 2)), Placement((3, 1))),)))
    >>> print(found)
    4 wires, 6 layers (2 x 2b, 4 x SWAP), SO, 4 SWAPs added
    """
    if ansatz.is_local:
        same = tuple(tuple(range(place.width)) for place in ansatz.placements)
        return Routed(ansatz, tuple(range(len(same))), same)
    placed: list[tuple[Placement, int | None]] = []
    orders: list[tuple[int, ...]] = []
    for j, place in enumerate(ansatz.placements):
        order = tuple(range(place.width))
        if place.fixed is None or _is_symmetric(place.fixed):
            order = tuple(int(k) for k in np.argsort(place.wires))
        orders.append(order)
        first, pairs = _gathered([place.wires[k] for k in order])
        for pair in pairs:
            _add_swap(placed, pair)
        wires = tuple(range(first, first + place.width))
        placed.append((Placement(wires, place.fixed), j))
        for pair in reversed(pairs):
            _add_swap(placed, pair)
    layers = earliest_layers([place for place, _ in placed])
    flat = [placed[k][1] for layer in layers for k in layer]
    places = tuple(tuple(placed[k][0] for k in layer) for layer in layers)
    numbers = tuple(flat.index(j) for j in range(len(orders)))
    return Routed(Ansatz(ansatz.n, places, ansatz.group), numbers, tuple(orders))


def routed_circuit(circuit: Circuit) -> Circuit:
    """The same matrix by gates on neighbouring wires in ascending order; itself if it has these."""
    if circuit.ansatz.is_local:
        return circuit
    found = routed(circuit.ansatz)
    return Circuit(found.ansatz, tuple(found.gates(circuit.gates)))


def permuted_gate(gate: Array, order: Sequence[int]) -> Array:
    """The gate with its wires in another order: position k is its wire ``order[k]``."""
    w = len(order)
    if list(order) == list(range(w)):
        return gate
    axes = [*order, *(w + k for k in order)]
    return do("transpose", gate.reshape((2,) * (2 * w)), axes).reshape(gate.shape)


def _inverse(order: Sequence[int]) -> list[int]:
    return [int(k) for k in np.argsort(order)]


def _is_symmetric(name: str) -> bool:
    """Whether the order of its wires makes no difference to a fixed gate."""
    gate = named_gate(name)
    turns = [(*range(k), k + 1, k, *range(k + 2, gate.width)) for k in range(gate.width - 1)]
    return all(np.array_equal(permuted_gate(gate.matrix, turn), gate.matrix) for turn in turns)


def _gathered(wires: Sequence[int]) -> tuple[int, list[tuple[int, int]]]:
    """First wire of the block in which the wires meet in this order, and the SWAPs to get there."""
    low, high = min(wires), max(wires)
    options = ((first, _swaps(wires, first)) for first in range(low, high - len(wires) + 2))
    return min(options, key=lambda option: len(option[1]))


def _swaps(wires: Sequence[int], first: int) -> list[tuple[int, int]]:
    """SWAPs of neighbours after which the wires stand in their order from `first` on."""
    low, high = min(wires), max(wires)
    others = [wire for wire in range(low, high + 1) if wire not in wires]
    goal = [*others[: first - low], *wires, *others[first - low :]]
    rank = {wire: k for k, wire in enumerate(goal)}
    return list(_sorting([rank[wire] for wire in range(low, high + 1)], low))


def _sorting(ranks: list[int], low: int) -> Iterator[tuple[int, int]]:
    """Exchanges of neighbours that sort the ranks: as many as there are inversions, the fewest."""
    for end in range(len(ranks) - 1, 0, -1):
        for k in range(end):
            if ranks[k] > ranks[k + 1]:
                ranks[k], ranks[k + 1] = ranks[k + 1], ranks[k]
                yield low + k, low + k + 1


def _add_swap(placed: list[tuple[Placement, int | None]], pair: tuple[int, int]) -> None:
    """Append a SWAP, or take out the one that it undoes."""
    swap = (Placement(pair, SWAP), None)
    touching = (k for k in reversed(range(len(placed))) if {*pair} & {*placed[k][0].wires})
    last = next(touching, None)
    if last is not None and placed[last] == swap:
        del placed[last]
    else:
        placed.append(swap)
