"""The closed network of target, circuits and core: which tensors there are, and their indices.

Index names of the circuits are those of `Circuit.tensor_network`, whose ends are ``k{i}`` (rows of
the target), ``in{i}`` and ``out{i}`` (rows and columns of the core) and ``b{i}`` (columns of the
target); bonds are ``t{k}`` and ``c{k}``, left of site k. The target stands there conjugated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import identity_circuit
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
    site : dict of Key to int
        Column at which a sweep over the sites takes a tensor in.
    place : dict of index name to (zone, time)
        Where an index lies on the ring target - left circuit - core - right circuit.
    on : dict of side to tuple of int
        Site of every wire of a circuit.
    """

    legs: Legs
    ansatz: dict[str, Ansatz]
    indices: dict[Key, tuple[str, ...]]
    site: dict[Key, int]
    place: dict[str, tuple[int, float]]
    on: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, legs: Legs, left: Ansatz, right: Ansatz) -> Network:
        indices: dict[Key, tuple[str, ...]] = {}
        site: dict[Key, int] = {}
        place: dict[str, tuple[int, float]] = {}
        on = {"left": wires(legs, "left"), "right": wires(legs, "right")}
        ends = {"left": ("k", "in"), "right": ("out", "b")}
        idle = 0
        for side, ansatz in (("left", left), ("right", right)):
            upper, lower = ([f"{name}{i}" for i in on[side]] for name in ends[side])
            network = identity_circuit(ansatz).tensor_network(side=side, upper=upper, lower=lower)
            layer_of = [t for t, layer in enumerate(ansatz.layers) for _ in layer]
            zone = 2 if side == "left" else 0
            emitted = dict.fromkeys(upper, -1.0)
            for j, (t, gate) in enumerate(zip(layer_of, ansatz.placements, strict=True)):
                names = network[f"GATE{j}"].inds
                indices[side, j] = names
                # absorbed where half of its wires have been passed: fewest legs stay open
                site[side, j] = on[side][gate.wires[(gate.width + 1) // 2 - 1]]
                rows, columns = names[: gate.width], names[gate.width :]
                for name in rows:
                    place[name] = (zone, (emitted[name] + t) / 2)
                emitted |= dict.fromkeys(columns, float(t))
            for name in lower:
                place[name] = (zone, (emitted.get(name, -1.0) + ansatz.depth) / 2)
            for tensor in network.select_tensors("IDLE") if "IDLE" in network.tags else ():
                indices["idle", idle] = tensor.inds
                site["idle", idle] = int(tensor.inds[0].removeprefix(ends[side][0]))
                for name in tensor.inds[:1]:
                    place[name] = (zone, -0.5)
                idle += 1
        n = len(legs)
        for k in range(n):
            up = f"in{k}" if k in on["left"] else f"k{k}"
            down = f"out{k}" if k in on["right"] else f"b{k}"
            # the outer bonds, of size 1, join the core and the target into a closed network
            bonds = [f"end{e}" if e in (0, n) else None for e in (k, k + 1)]
            indices["core", k] = (bonds[0] or f"c{k}", up, down, bonds[1] or f"c{k + 1}")
            indices["target", k] = (bonds[0] or f"t{k}", f"k{k}", f"b{k}", bonds[1] or f"t{k + 1}")
            site["core", k] = site["target", k] = k
            place |= {name: (1, 0.0) for name in indices["target", k] if name not in place}
            place |= {name: (3, 0.0) for name in indices["core", k] if name not in place}
        return cls(tuple(legs), {"left": left, "right": right}, indices, site, place, on)

    @property
    def free(self) -> list[Key]:
        """Gates that may change, the left circuit's first."""
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
