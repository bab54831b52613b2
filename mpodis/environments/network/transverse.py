"""Transverse engine: the network contracted sideways, site by site. Exact at any number of sites.

The boundary between two columns carries the bonds of target and core and the legs of the gates
that straddle it, chi chi' 4^d entries for two brickwalls of depth d. Its legs are kept in the order
of time around the ring target - left circuit - core - right circuit, so that the two legs of a
gate are neighbours and the gate acts in place, without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires
from mpodis.environments.network.engine import NetworkEnvironments, path_cost
from mpodis.environments.network.geometry import Key, Network, gate_column
from mpodis.environments.network.messages import MessagePassing
from mpodis.environments.protocol import EngineOptions, Estimate, ProblemSize, Target

__all__ = ["TransverseEnvironments", "column_path"]

FUSED_LEGS = 16
"""Largest dimension of the legs of gates that are fused: products of 16 x 16 run at speed."""
FUSING_BOUNDARY = 2**9
"""Boundaries below this size gain nothing from fused gates."""
IN_PLACE_SPEED = 1.6
"""How much faster gates act in place than tensors of any shape are contracted."""


class TransverseEnvironments(NetworkEnvironments):
    """Environments column by column, see `NetworkEnvironments`."""

    name = "transverse"
    parallel = True

    @classmethod
    def estimate(cls, problem: ProblemSize, options: EngineOptions) -> Estimate:
        """Where one boundary alone exceeds the memory: its bytes, and an infinite time."""
        limit = options.budget / problem.itemsize
        bonds = problem.target_bonds, problem.core_bonds
        least = largest_boundary(problem.legs, problem.left, problem.right, *bonds)
        if least > limit:  # seen without the network, which takes seconds for 10,000 gates
            return Estimate(cls.name, True, math.inf, problem.itemsize * least)
        network = Network.of(problem.legs, problem.left, problem.right)
        sizes = network.sizes(*bonds)
        units = column_path(network, sizes, limit=limit)
        if units is None:
            return Estimate(cls.name, True, math.inf, problem.itemsize * least)
        leaf = {key: k for k, key in enumerate(network.indices)}
        names, path = list(network.indices.values()), chain_path(units, leaf)
        seconds, size = path_cost(names, sizes, path, problem.itemsize, speed=IN_PLACE_SPEED)
        return Estimate(cls.name, True, seconds, size)

    @classmethod
    def build(
        cls, target: Target, legs: Legs, left: Ansatz, right: Ansatz, options: EngineOptions
    ) -> TransverseEnvironments:
        return cls(target, legs, left, right)

    def _plan_messages(self, sizes: Mapping[str, int]) -> tuple[MessagePassing, list[Key]]:
        units = column_path(self.network, sizes)
        assert units is not None  # there is no limit
        position = self.network.position
        messages = MessagePassing(
            list(self.network.indices.values()),
            sizes,
            chain_path(units, self._leaf),
            order=lambda indices: sorted(indices, key=lambda i: (position[i], i)),
        )
        free = {*self.network.free, *(key for key in self._leaf if key[0] == "core")}
        return messages, [key for unit in units for key in unit if key in free]


def column_path(
    network: Network, sizes: Mapping[str, int], *, limit: float = math.inf
) -> list[tuple[Key, ...]] | None:
    """Units (tensors that join the boundary as one) in order; None if a boundary exceeds `limit`.

    Within a column, what leaves the smallest boundary comes first.
    """
    columns: list[list[Key]] = [[] for _ in network.legs]
    for key, column in network.column.items():
        columns[column].append(key)
    open_legs: set[str] = set()
    size, units = 1, []
    for keys in columns:
        waiting = _fused(network, keys, fusing=size >= FUSING_BOUNDARY)
        legs = [_legs(network, unit) for unit in waiting]
        while waiting:
            after = [_joined(size, open_legs, own, sizes) for own in legs]
            best = min(range(len(waiting)), key=after.__getitem__)
            size = after[best]
            if size > limit:
                return None
            open_legs ^= legs.pop(best)
            units.append(waiting.pop(best))
    return units


def _fused(network: Network, keys: list[Key], *, fusing: bool) -> list[tuple[Key, ...]]:
    """Tensors of a column; with `fusing`, consecutive gates on the same wires are one."""
    units: list[tuple[Key, ...]] = []
    for key in keys:
        side = key[0]
        if fusing and side in ("left", "right") and units and units[-1][-1][0] == side:
            wires = [network.ansatz[side].placements[j].wires for _, j in (*units[-1], key)]
            legs = len(units[-1]) + 1
            if len(set(wires)) == 1 and 2 ** (legs * len(wires[0])) <= FUSED_LEGS:
                units[-1] = (*units[-1], key)
                continue
        units.append((key,))
    return units


def _legs(network: Network, unit: tuple[Key, ...]) -> set[str]:
    """Indices that stick out of a unit."""
    legs: set[str] = set()
    for key in unit:
        legs ^= set(network.indices[key])
    return legs


def _joined(size: int, open_legs: set[str], own: set[str], sizes: Mapping[str, int]) -> int:
    """Entries of a boundary of `size` entries after it is contracted with a unit."""
    for i in own:
        size = size // sizes[i] if i in open_legs else size * sizes[i]
    return size


def chain_path(units: list[tuple[Key, ...]], leaf: Mapping[Key, int]) -> list[tuple[int, int]]:
    """SSA path of a contraction from left to right: each unit first, then with the boundary."""
    path: list[tuple[int, int]] = []
    last = len(leaf)

    def join(a: int, b: int) -> int:
        path.append((a, b))
        return last + len(path) - 1

    boundary = None
    for unit in units:
        node = leaf[unit[0]]
        for key in unit[1:]:
            node = join(node, leaf[key])
        boundary = node if boundary is None else join(boundary, node)
    return path


def largest_boundary(
    legs: Legs, left: Ansatz, right: Ansatz, target_bonds: Sequence[int], core_bonds: Sequence[int]
) -> float:
    """Entries of the largest boundary between two columns, by counting the legs that cross it."""
    bits = [0.0] * max(1, len(legs) - 1)
    for bonds in (target_bonds, core_bonds):
        for k, bond in enumerate(bonds):
            bits[k] += math.log2(bond)
    for side, ansatz in (("left", left), ("right", right)):
        sites = wires(legs, side)
        last = list(sites)  # column of the tensor that a wire has reached
        for place in ansatz.placements:
            column = gate_column(place, sites)
            for wire in place.wires:
                for k in range(*sorted((last[wire], column))):
                    bits[k] += 1
                last[wire] = column
        for column, site in zip(last, sites, strict=True):
            for k in range(*sorted((column, site))):
                bits[k] += 1
    return 2.0 ** min(max(bits), 1000.0)
