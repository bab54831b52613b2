"""Transverse engine: the network contracted sideways, site by site. Exact at any number of sites.

The boundary between two columns carries the bonds of target and core and the legs of the gates
that straddle it, chi chi' 4^d entries for two brickwalls of depth d. Its legs are kept in the order
of time around the ring target - left circuit - core - right circuit, so that the two legs of a
gate are neighbours and the gate acts in place, without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from mpodis.environments.network.geometry import Key, Network
from mpodis.environments.network.messages import Messages
from mpodis.environments.network.walk import WalkEnvironments, walk_cost

__all__ = ["TransverseEnvironments", "column_path"]

FUSED = 16
"""Legs that gates fused into one may have, as a dimension: products of 16 x 16 run at speed."""
WORTH = 2**9
"""Boundaries below this size gain nothing from fused gates."""


IN_PLACE = 1.6
"""How much faster gates act in place than tensors of any shape are contracted."""


class TransverseEnvironments(WalkEnvironments):
    """Environments column by column, see `walk.WalkEnvironments`."""

    def _plan(self, sizes: Mapping[str, int]) -> tuple[Messages, list[Key]]:
        units = column_path(self.network, sizes)
        path = chain_path(units, self._leaf)
        place = self.network.place
        messages = Messages(
            list(self.network.indices.values()),
            sizes,
            path,
            order=lambda indices: sorted(indices, key=lambda i: (place[i], i)),
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
    for key, site in network.site.items():
        columns[site].append(key)
    open_legs: set[str] = set()
    units = []
    for keys in columns:
        waiting = _fused(network, keys, worth=_size(open_legs, sizes) >= WORTH)
        legs = [_legs(network, unit) for unit in waiting]
        while waiting:
            after = [_size(open_legs ^ own, sizes) for own in legs]
            best = min(range(len(waiting)), key=after.__getitem__)
            if after[best] > limit:
                return None
            open_legs ^= legs.pop(best)
            units.append(waiting.pop(best))
    return units


def _fused(network: Network, keys: list[Key], *, worth: bool) -> list[tuple[Key, ...]]:
    """The tensors of a column, gates that follow each other on the same wires in groups."""
    units: list[tuple[Key, ...]] = []
    for key in keys:
        side = key[0]
        if worth and side in ("left", "right") and units and units[-1][-1][0] == side:
            wires = [network.ansatz[side].placements[j].wires for _, j in (*units[-1], key)]
            legs = len(units[-1]) + 1
            if len(set(wires)) == 1 and 2 ** (legs * len(wires[0])) <= FUSED:
                units[-1] = (*units[-1], key)
                continue
        units.append((key,))
    return units


def _legs(network: Network, unit: tuple[Key, ...]) -> set[str]:
    legs: set[str] = set()
    for key in unit:
        legs ^= set(network.indices[key])
    return legs


def _size(indices: set[str], sizes: Mapping[str, int]) -> int:
    return math.prod(sizes[i] for i in indices)


def chain_path(units: list[tuple[Key, ...]], leaf: Mapping[Key, int]) -> list[tuple[int, int]]:
    """The tree of a chain: units made first, each then joined to the boundary."""
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


def estimate(
    network: Network, sizes: Mapping[str, int], itemsize: int, memory: float
) -> tuple[float, float]:
    """Seconds for offering every gate its environment once, and bytes of the messages.

    Where a boundary alone exceeds the memory, the largest boundary and an infinite time.
    """
    units = column_path(network, sizes, limit=memory / itemsize)
    if units is None:
        return math.inf, itemsize * largest_boundary(network, sizes)
    leaf = {key: k for k, key in enumerate(network.indices)}
    messages = Messages(
        list(network.indices.values()), sizes, chain_path(units, leaf), order=sorted
    )
    return walk_cost(messages.nodes, messages.flops, messages.entries, itemsize, speed=IN_PLACE)


def largest_boundary(network: Network, sizes: Mapping[str, int]) -> float:
    """Entries of the largest boundary between two columns, by counting the legs of the gates."""
    bits = [0.0] * max(1, len(network.legs) - 1)
    for part in ("target", "core"):
        for k in range(len(network.legs) - 1):
            bits[k] += math.log2(sizes[network.indices[part, k][3]])
    for side, j in network.free:
        on = network.on[side]
        gate = [on[w] for w in network.ansatz[side].placements[j].wires]
        for k in range(gate[0], gate[-1]):
            before = sum(site <= k for site in gate)
            bits[k] += 2 * min(before, len(gate) - before)
    return 2.0 ** min(max(bits), 1000.0)
