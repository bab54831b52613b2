"""One step in the space of circuits: a gate made cheaper, or a gate put in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mpodis.circuit.ansatz import Placement
from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization
from mpodis.gates import FIXED, polar
from mpodis.resynthesis.count import cnot_count, gate_cnots
from mpodis.resynthesis.nearest import kron, nearest_one_cnot, nearest_product
from mpodis.resynthesis.points import ParetoPoint
from mpodis.resynthesis.rewrite import Gates, gates_of, packed
from mpodis.resynthesis.task import Task

__all__ = ["insertions", "removals"]

SIDES = ("left", "right")
SPARE = 3
"""Times as many removals are looked at closely as are asked for."""


def removals(
    task: Task, now: ParetoPoint, *, most: int, rng: np.random.Generator | None = None
) -> list[Factorization]:
    """Cheaper neighbours: one gate replaced by a product, or by one with a single CNOT.

    The `most` are returned whose loss, before anything else has moved, rises the least for a CNOT
    saved. What takes a gate's place is the best for its environment, in which the overlap is
    linear; under the activations also what is nearest to the gate. With `rng` they are drawn from
    the gentlest `SPARE` times as many.
    """
    found = []
    for loss, saved, side, j, gates in _replacements(task, now.factorization):
        found.append(((loss - now.loss) / saved, side, j, gates))
    closer = []
    for _, side, j, gates in sorted(found, key=lambda one: one[0])[: SPARE * most]:
        spliced = _spliced(now.factorization, side, j, gates, instead=1)
        loss = task.loss(spliced.padded_to_dense())
        shorter = task.tidied(spliced)  # neighbours of what is gone may have become one
        closer.append(((loss - now.loss) / (now.cnots - cnot_count(shorter)), shorter))
    ranked = [shorter for _, shorter in sorted(closer, key=lambda one: one[0])]
    if rng is None or len(ranked) <= most:
        return ranked[:most]
    return [ranked[k] for k in sorted(rng.choice(len(ranked), most, replace=False))]


def _replacements(task: Task, given: Factorization) -> Iterator[tuple[float, int, str, int, Gates]]:
    """Loss, CNOTs saved, side and number of a gate, and what stands in its place."""
    linear = task.objective == "overlap"
    loss = task.loss(given.padded_to_dense())
    for side, environments in zip(SIDES, task.environments(given), strict=True):
        circuit = getattr(given, side)
        costs = [gate_cnots(gate) for gate in circuit.gates]
        pairs = [(j, p) for j, p in enumerate(circuit.ansatz.placements) if costs[j]]
        if not pairs:
            continue
        group = circuit.ansatz.group
        for towards in [environments] if linear else [environments, circuit.gates]:
            stack = np.stack([towards[j] for j, _ in pairs])
            products = nearest_product(stack, group=group)
            before, after = nearest_one_cnot(stack, group=group, seed=task.seed)
            for k, (j, place) in enumerate(pairs):
                options = [(0, _singles(place, products, k))]
                if costs[j] > 1:
                    cnot = (Placement(place.wires, "CNOT"), FIXED["CNOT"])
                    chain = [*_singles(place, before, k), cnot, *_singles(place, after, k)]
                    options.append((1, chain))
                for left_over, gates in options:
                    if linear:
                        change = _product(gates) - circuit.gates[j]
                        new = loss - np.vdot(environments[j], change).real
                    else:
                        new = task.loss(
                            _spliced(given, side, j, gates, instead=1).padded_to_dense()
                        )
                    yield new, costs[j] - left_over, side, j, gates


def _singles(place: Placement, gates, k: int) -> Gates:
    return [(Placement((w,)), g[k]) for w, g in zip(place.wires, gates, strict=True)]


def _product(gates: Gates) -> np.ndarray:
    """Of two gates on single wires, or of two, a CNOT and two more."""
    values = [gate for _, gate in gates]
    first = kron(*values[:2])
    return first if len(values) == 2 else first @ values[2] @ kron(*values[3:])


def insertions(task: Task, now: ParetoPoint, *, most: int) -> list[Factorization]:
    """Neighbours with one more gate on two wires, which begins as the identity.

    Of all places the `most` are returned whose environment promises most: its polar factor
    against the identity.
    """
    given = now.factorization
    padded, holes = given, {}
    for side in SIDES:
        circuit, holes[side] = _with_holes(getattr(given, side))
        padded = _with(padded, side, circuit)
    promises = []
    for side, environments in zip(SIDES, task.environments(padded), strict=True):
        if side not in task.sides:
            continue
        group = getattr(given, side).ansatz.group
        for k, (j, place) in holes[side].items():
            e = environments[k]
            gain = np.vdot(e, polar(e, group=group)).real - np.trace(e).real
            promises.append((gain, side, j, place))
    found: dict[tuple, Factorization] = {}
    for _, side, j, place in sorted(promises, key=lambda one: one[0], reverse=True):
        longer = task.tidied(_spliced(given, side, j, [(place, np.eye(4))], instead=0))
        if _pairs(longer) > _pairs(given):  # not merged into a neighbour
            found.setdefault((longer.left.ansatz, longer.right.ansatz), longer)
        if len(found) == most:
            break
    return list(found.values())


def _with_holes(circuit: Circuit) -> tuple[Circuit, dict[int, tuple[int, Placement]]]:
    """Identities on all pairs of wires around every layer, and before which gate each stands."""
    own, gates, holes, j = gates_of(circuit), [], {}, 0
    pairs = [*range(0, circuit.n - 1, 2), *range(1, circuit.n - 1, 2)]
    for layer in (*circuit.ansatz.layers, ()):
        for wire in pairs:
            place = Placement((wire, wire + 1))
            holes[len(gates)] = (j, place)
            gates.append((place, np.eye(4)))
        gates += own[j : j + len(layer)]
        j += len(layer)
    ansatz = replace(circuit.ansatz, layers=tuple((place,) for place, _ in gates))
    return Circuit(ansatz, tuple(gate for _, gate in gates)), holes


def _pairs(given: Factorization) -> int:
    """Gates on two wires."""
    return sum(p.width == 2 for side in SIDES for p in getattr(given, side).ansatz.placements)


def _spliced(
    given: Factorization, side: str, j: int, gates: Gates, *, instead: int
) -> Factorization:
    """The factorization with `gates` at position j of a side, in place of so many."""
    circuit = getattr(given, side)
    own = gates_of(circuit)
    whole = [*own[:j], *gates, *own[j + instead :]]
    return _with(given, side, packed(circuit.n, whole, circuit.ansatz.group))


def _with(given: Factorization, side: str, circuit: Circuit) -> Factorization:
    sides = {"left": given.left, "right": given.right} | {side: circuit}
    return Factorization(sides["left"], given.core, sides["right"], given.shape)
