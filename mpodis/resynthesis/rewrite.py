"""The same operator with fewer gates: neighbours merged, layers packed, the core used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import wires
from mpodis.factorization import Factorization
from mpodis.resynthesis.nearest import kron, nearest_product
from mpodis.sites import mpo_from_tensors, site_tensors

__all__ = ["gates_of", "packed", "simplified", "tidied"]

CANCELS = 1e-12
"""Distance, element by element, at which gates count as having cancelled."""

Gates = Sequence[tuple[Placement, np.ndarray]]


def gates_of(circuit: Circuit) -> list[tuple[Placement, np.ndarray]]:
    """Places and values, in the order in which a row vector meets them; ties are loosened."""
    places = [Placement(place.wires, place.fixed) for place in circuit.ansatz.placements]
    return list(zip(places, circuit.gates, strict=True))


def packed(n: int, gates: Gates, group: str) -> Circuit:
    """A circuit from `gates_of` one, in as few layers as their order allows."""
    layers: list[list] = []
    free = [0] * n  # the first layer that is free on each wire
    for place, gate in gates:
        t = max(free[wire] for wire in place.wires)
        if t == len(layers):
            layers.append([])
        layers[t].append((place, gate))
        for wire in place.wires:
            free[wire] = t + 1
    ansatz = Ansatz(n, tuple(tuple(place for place, _ in layer) for layer in layers), group)
    return Circuit(ansatz, tuple(gate for layer in layers for _, gate in layer))


def tidied(given: Factorization) -> Factorization:
    """The same operator with `simplified` circuits; one-qubit gates beside the core go into it."""
    tensors, circuits = site_tensors(given.core), {}
    for side, turn in (("left", -1), ("right", 1)):
        circuit = simplified(getattr(given, side))
        sites, busy, kept = wires(given.legs, side), set(), []
        for place, gate in gates_of(circuit)[::turn]:  # from the core outwards
            if place.width == 1 and place.wires[0] not in busy:
                k = sites[place.wires[0]]
                move = "ji,aiob->ajob" if side == "left" else "oj,aiob->aijb"
                tensors[k] = np.einsum(move, gate, tensors[k])
            else:
                kept.append((place, gate))
                busy.update(place.wires)
        circuits[side] = packed(circuit.n, kept[::turn], circuit.ansatz.group)
    core = mpo_from_tensors(tensors)
    return Factorization(circuits["left"], core, circuits["right"], given.shape)


def simplified(circuit: Circuit) -> Circuit:
    """The same matrix with fewer gates, and never more CNOTs.

    A gate of one wire goes into a free neighbour. Gates that follow one another on the same wires
    become one, if their product is in the circuit's group: two CNOTs with one-qubit gates between
    them are one free gate of determinant +1. Where two gates on two wires cancel, but for one-qubit
    gates, those are left.
    """
    group, done = circuit.ansatz.group, []
    for place, gate in gates_of(circuit):
        if place.width == 1:
            _append_single(done, place, gate)
        else:
            _append_wider(done, place, gate, group)
    return packed(circuit.n, done, group)


def _append_single(done: list, place: Placement, gate: np.ndarray) -> None:
    k = _last(done, place.wires[0])
    if k is None or done[k][0].fixed is not None:
        done.append((place, gate))
    else:
        before = done[k][0]
        done[k] = (before, done[k][1] @ _widened(before, place, gate))


def _append_wider(done: list, place: Placement, gate: np.ndarray, group: str) -> None:
    singles = [k for k in (_last(done, wire) for wire in place.wires) if _width(done, k) == 1]
    between = np.eye(2**place.width)
    for k in singles:
        between = between @ _widened(place, *done[k])
    rest = [one for k, one in enumerate(done) if k not in singles]
    meets = {_last(rest, wire) for wire in place.wires}
    k = meets.pop()
    if not meets and k is not None and rest[k][0].wires == place.wires:
        whole = rest[k][1] @ between @ gate
        if group != "SO" or np.linalg.det(whole) > 0:
            product = _product(whole, group) if place.width == 2 else None
            if product is None:
                rest[k] = (Placement(place.wires), whole)
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


def _product(gate: np.ndarray, group: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Gates on single wires whose product the gate is, if it is one."""
    a, b = nearest_product(gate, group=group)
    return (a, b) if np.abs(kron(a, b) - gate).max() < CANCELS else None


def _last(done: Gates, wire: int) -> int | None:
    """Which gate is the last one on a wire."""
    found = (k for k in reversed(range(len(done))) if wire in done[k][0].wires)
    return next(found, None)


def _width(done: Gates, k: int | None) -> int:
    return 0 if k is None else done[k][0].width


def _widened(place: Placement, single: Placement, gate: np.ndarray) -> np.ndarray:
    """A gate of one wire as one on the wires of `place`."""
    before = single.wires[0] - place.wires[0]
    return np.kron(np.kron(np.eye(2**before), gate), np.eye(2 ** (place.width - 1 - before)))
