"""The closed network of target, circuits and core: which tensors there are, and their indices.

Index names of the circuits are those of `Circuit.tensor_network`, whose ends are ``k{i}`` (rows of
the target), ``in{i}`` and ``out{i}`` (rows and columns of the core) and ``b{i}`` (columns of the
target); bonds are ``t{k}`` and ``c{k}``, left of site k. The target stands there conjugated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.conventions import Legs, wires

__all__ = ["Key", "Network"]

Key = tuple[str, int]
"""("left" | "right", placement), ("core" | "target", site) or ("idle", number)."""


@dataclass(frozen=True)
class Network:
    """Indices of every tensor of the closed network; the values live elsewhere.

    Attributes
    ----------
    legs : Legs
    ansatz : dict of side to Ansatz
    indices : dict of Key to tuple of index names
        Gates by rows, then columns; core and target by left bond, input, output, right bond.
    column : dict of Key to int
        Site at which a contraction from left to right takes a tensor in.
    position : dict of index name to (zone, time)
        Where an index lies on the ring target - left circuit - core - right circuit.
    sites : dict of side to tuple of int
        Site of every wire of a circuit.
    """

    legs: Legs
    ansatz: dict[str, Ansatz]
    indices: dict[Key, tuple[str, ...]]
    column: dict[Key, int]
    position: dict[str, tuple[int, float]]
    sites: dict[str, tuple[int, ...]]

    @classmethod
    @lru_cache(maxsize=8)  # estimates and the engine that is chosen share one
    def of(cls, legs: Legs, left: Ansatz, right: Ansatz) -> Network:
        indices: dict[Key, tuple[str, ...]] = {}
        column: dict[Key, int] = {}
        position: dict[str, tuple[int, float]] = {}
        sites = {"left": wires(legs, "left"), "right": wires(legs, "right")}
        ends = {"left": ("k", "in"), "right": ("out", "b")}
        idle = 0
        for side, ansatz in (("left", left), ("right", right)):
            upper, lower = ([f"{name}{i}" for i in sites[side]] for name in ends[side])
            layer_of = [t for t, layer in enumerate(ansatz.layers) for _ in layer]
            zone = 2 if side == "left" else 0
            emitted = dict.fromkeys(upper, -1.0)
            named = gate_indices(ansatz, side, upper, lower)
            for j, (t, gate, names) in enumerate(
                zip(layer_of, ansatz.placements, named, strict=True)
            ):
                indices[side, j] = names
                column[side, j] = gate_column(gate, sites[side])
                rows, columns = names[: gate.width], names[gate.width :]
                for name in rows:
                    position[name] = (zone, (emitted[name] + t) / 2)
                emitted |= dict.fromkeys(columns, float(t))
            for name in lower:
                position[name] = (zone, (emitted.get(name, -1.0) + ansatz.depth) / 2)
            used = {wire for place in ansatz.placements for wire in place.wires}
            for wire in set(range(ansatz.n)) - used:  # stored plans rely on this order
                indices["idle", idle] = (upper[wire], lower[wire])
                column["idle", idle] = sites[side][wire]
                position[upper[wire]] = (zone, -0.5)
                idle += 1
        n = len(legs)
        for k in range(n):
            up = f"in{k}" if k in sites["left"] else f"k{k}"
            down = f"out{k}" if k in sites["right"] else f"b{k}"
            # the outer bonds, of size 1, join the core and the target into a closed network
            bonds = [f"end{e}" if e in (0, n) else None for e in (k, k + 1)]
            indices["core", k] = (bonds[0] or f"c{k}", up, down, bonds[1] or f"c{k + 1}")
            indices["target", k] = (bonds[0] or f"t{k}", f"k{k}", f"b{k}", bonds[1] or f"t{k + 1}")
            column["core", k] = column["target", k] = k
            position |= {name: (1, 0.0) for name in indices["target", k] if name not in position}
            position |= {name: (3, 0.0) for name in indices["core", k] if name not in position}
        return cls(tuple(legs), {"left": left, "right": right}, indices, column, position, sites)

    @property
    def free(self) -> list[Key]:
        """The free gates, those of the left circuit first."""
        return [
            (side, j)
            for side, ansatz in self.ansatz.items()
            for j, gate in enumerate(ansatz.placements)
            if gate.fixed is None
        ]

    def sizes(self, target_bonds: Sequence[int], core_bonds: Sequence[int]) -> dict[str, int]:
        """Dimension of every index, for bonds between neighbouring sites."""
        sizes = dict.fromkeys((i for names in self.indices.values() for i in names), 2)
        for part, bonds in (("target", target_bonds), ("core", core_bonds)):
            around = [1, *bonds, 1]
            for k, (i, o) in enumerate(self.legs):
                names = self.indices[part, k]
                sizes |= dict(zip(names, (around[k], i, o, around[k + 1]), strict=True))
        return sizes

    def constants(self) -> dict[Key, np.ndarray]:
        """Values of the tensors that never change but the target: idle wires."""
        return {key: np.eye(2) for key in self.indices if key[0] == "idle"}


def gate_indices(
    ansatz: Ansatz, side: str, upper: Sequence[str], lower: Sequence[str]
) -> list[tuple[str, ...]]:
    """Indices of every gate, rows and then columns, as `Circuit.tensor_network` names them."""
    last = {wire: t for t, layer in enumerate(ansatz.layers) for g in layer for wire in g.wires}
    now, found = list(upper), []
    for t, layer in enumerate(ansatz.layers):
        for place in layer:
            rows = [now[wire] for wire in place.wires]
            for wire in place.wires:
                now[wire] = lower[wire] if last[wire] == t else f"{side}{wire},{t}"
            found.append((*rows, *(now[wire] for wire in place.wires)))
    return found


def gate_column(place: Placement, sites: Sequence[int]) -> int:
    """Where a gate is absorbed: half of its wires have been passed, and fewest legs are open."""
    return sites[sorted(place.wires)[(place.width + 1) // 2 - 1]]
