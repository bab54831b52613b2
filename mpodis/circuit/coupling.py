"""Brickwalls of a device: layers of gates on its connected qubits.

A coupling map says which qubits share a two-qubit gate. Its edges are coloured so that no two of
a colour meet, and each colour is a layer: two on a line (the ordinary brickwall), three on
heavy-hex, four on a square grid.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mpodis.arguments import plain_numbers
from mpodis.circuit.ansatz import Ansatz, Placement, check_depth

__all__ = ["coupling_brickwall", "coupling_line"]

Edge: TypeAlias = tuple[int, int]
Graph: TypeAlias = Mapping[int, set[int]]
"""The neighbours of every qubit."""

STEPS = (4, 10)
"""Steps of a search for a line from one qubit, per qubit of the line: at first, then once more."""
BLOCKS = 3
"""Compact parts of a map in which a line is searched first."""


@plain_numbers
def coupling_brickwall(
    coupling_map: Any, depth: int, *, qubits: int | Sequence[int] | None = None, group: str = "SO"
) -> Ansatz:
    """Layers of 2-body gates on connected qubits of a device, one colour of edges after another.

    On lines, heavy-hex and square grids, as on every map without odd cycles, there are as many
    colours as the most connected qubit has neighbours: after so many layers each pair has met once.

    Parameters
    ----------
    coupling_map : CouplingMap, BackendV2, networkx graph or sequence of pairs
        Of Qiskit the map or the device. The direction of a pair does not matter.
    depth : int
        Number of layers, 1 or more.
    qubits : int or sequence of int, optional
        The device's qubits: wire k is ``qubits[k]``. A number n stands for
        ``coupling_line(coupling_map, n)``, with all connections among these. Default: all qubits,
        in their order.
    group : {"SO", "O", "U"}
        Of the gates.

    Returns
    -------
    Ansatz
        Wires without any gate, as there are with fewer layers than colours, get one of their own.
        Wires of a gate need not be neighbours: the engine "dense" takes them as they are, all
        others by SWAPs, whose bond dimensions grow with the distance on the line of wires.

    Raises
    ------
    TypeError, ValueError
        For what is not a map of numbered qubits, and for qubits that are unknown, repeated, or not
        connected with each other.

    Examples
    --------
    >>> grid = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
    >>> print(coupling_brickwall(grid, 3, group="U"))
    6 wires, 3 layers (7 x 2b, 3 not on neighbours), U
    """
    check_depth(depth)
    graph = _graph(coupling_map)
    if qubits is None:
        chosen = tuple(range(max(graph) + 1))
    elif isinstance(qubits, int | np.integer):
        chosen = _line(graph, qubits)
    else:
        chosen = tuple(int(qubit) for qubit in qubits)
    if not chosen:
        raise ValueError("qubits=() are none; name them, give their number, or leave it out")
    strange = sorted(set(chosen) - set(graph))
    if strange or len(set(chosen)) != len(chosen):
        raise ValueError(
            f"qubits={chosen} must be different qubits that are connected"
            + (f"; {strange} are not on the map, or alone there" if strange else "")
        )
    if len(chosen) == 1:
        raise ValueError(
            f"qubits={chosen} is a single qubit, without a connection; give two or more, or use "
            "brickwall(1, depth, width=1)"
        )
    inside = _within(graph, chosen)
    apart = sorted(set(chosen) - set(_distances(inside, chosen[0])))
    if apart:
        raise ValueError(
            f"qubits {apart} are not connected with qubit {chosen[0]} by those chosen; choose "
            "others, or give their number"
        )
    wire = {qubit: k for k, qubit in enumerate(chosen)}
    pairs = [(wire[a], wire[b]) for a, b in _edges(inside)]
    colours = _colours(sorted((min(pair), max(pair)) for pair in pairs))
    layers: list[list[tuple[int, ...]]] = [[*colours[t % len(colours)]] for t in range(depth)]
    idle = set(range(len(chosen))) - {wire for layer in layers for edge in layer for wire in edge}
    layers[0] = sorted([*layers[0], *((wire,) for wire in idle)])
    return Ansatz(
        len(chosen), tuple(tuple(Placement(wires) for wires in layer) for layer in layers), group
    )


@plain_numbers
def coupling_line(coupling_map: Any, n: int) -> tuple[int, ...]:
    """Qubits of a device each of which is connected with the next one.

    On such a line an ordinary `brickwall` runs as it is, without SWAPs: wire k on the k-th qubit.
    Where there is a choice, the qubits lie close together and have many further connections.

    Parameters
    ----------
    coupling_map : CouplingMap, BackendV2, networkx graph or sequence of pairs
    n : int
        Number of qubits, 2 or more.

    Raises
    ------
    TypeError
        For what is not a map of numbered qubits.
    ValueError
        If no line of so many qubits is found.

    Examples
    --------
    >>> grid = [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)]
    >>> coupling_line(grid, 6)
    (0, 3, 4, 1, 2, 5)
    """
    return _line(_graph(coupling_map), n)


# --- coupling maps


def _graph(coupling_map: Any) -> dict[int, set[int]]:
    """The neighbours of every qubit of a coupling map of any library."""
    known = coupling_map
    if hasattr(known, "coupling_map"):  # a device
        known = known.coupling_map
        if known is None:
            raise ValueError("the device connects all its qubits, so `brickwall` runs there")
    if hasattr(known, "get_edges"):  # Qiskit's CouplingMap
        known = known.get_edges()
    known = getattr(known, "edges", known)  # networkx
    graph: dict[int, set[int]] = {}
    try:
        for pair in known:
            a, b = _pair(pair)
            if a == b:
                raise ValueError(f"the coupling map connects qubit {a} with itself")
            graph.setdefault(a, set()).add(b)
            graph.setdefault(b, set()).add(a)
    except TypeError as error:
        raise TypeError(
            f"{type(coupling_map).__name__} is not read as a coupling map ({error}): give a "
            "CouplingMap, a BackendV2, a graph or a list of pairs, of qubits numbered from 0 on"
        ) from error
    if not graph:
        raise ValueError("the coupling map connects no qubits")
    return graph


def _pair(pair: Any) -> Edge:
    qubits = tuple(_number(qubit) for qubit in pair)
    if len(qubits) != 2:
        raise TypeError(f"{qubits} are {len(qubits)} qubits, not 2")
    return qubits[0], qubits[1]


def _number(qubit: Any) -> int:
    number = qubit.__index__() if hasattr(qubit, "__index__") else -1
    if number < 0:
        raise TypeError(f"qubit {qubit!r} has no number")
    return number


def _within(graph: Graph, qubits: Collection[int]) -> dict[int, set[int]]:
    """The part of a graph on some of its qubits."""
    chosen = set(qubits)
    return {qubit: graph[qubit] & chosen for qubit in qubits}


def _edges(graph: Graph) -> Iterator[Edge]:
    return ((a, b) for a, near in graph.items() for b in near if a < b)


def _distances(graph: Graph, start: int) -> dict[int, int]:
    """Steps from a qubit to all those that can be reached."""
    found, border = {start: 0}, [start]
    for steps in itertools.count(1):
        border = sorted({b for a in border for b in graph[a]} - set(found))
        if not border:
            return found
        found |= dict.fromkeys(border, steps)
    raise AssertionError


# --- colours


def _colours(edges: Sequence[Edge]) -> list[list[Edge]]:
    """Edges in classes that do not meet, the largest class first; as few as König's theorem says.

    An edge takes a colour that is free at both ends. If there is none, with a free at one end and
    b at the other, colours a and b are exchanged along the path from the second end on; only
    an odd cycle brings this path back to the first end, and costs a colour more.
    """
    n_colours = 0
    at: dict[int, dict[int, int]] = {}  # wire -> colour -> the wire at the other end
    for u, v in edges:
        here, there = at.setdefault(u, {}), at.setdefault(v, {})
        both = set(range(n_colours)) - set(here) - set(there)
        if not both:
            a = min(set(range(n_colours + 1)) - set(here))
            b = min(set(range(n_colours + 1)) - set(there))
            path, colour = [v], a
            while colour in at[path[-1]]:
                path.append(at[path[-1]][colour])
                colour = a + b - colour
            if n_colours in (a, b) or path[-1] == u:
                both = {n_colours}
                n_colours += 1
            else:
                _exchange(at, path, a, b)
                both = {a}
        colour = min(both)
        here[colour], there[colour] = v, u
    classes = [
        sorted((u, near[c]) for u, near in at.items() if c in near and u < near[c])
        for c in range(n_colours)
    ]
    return sorted(classes, key=lambda one: (-len(one), one))


def _exchange(at: dict[int, dict[int, int]], path: Sequence[int], a: int, b: int) -> None:
    """Exchange colours a and b on the edges of a path, the first of which has colour a."""
    for wire in path:
        near = at[wire]
        swapped = {b: near.pop(a, None), a: near.pop(b, None)}
        near.update({colour: other for colour, other in swapped.items() if other is not None})


# --- lines


def _line(graph: Graph, n: Any) -> tuple[int, ...]:
    if isinstance(n, bool) or not hasattr(n, "__index__") or not 2 <= int(n) <= len(graph):
        raise ValueError(
            f"a line of {n!r} qubits is not possible: it has 2 or more, and the map {len(graph)}"
        )
    n = int(n)
    for inside, steps in [
        *((block, STEPS[0]) for block in _blocks(graph, n)),
        *((graph, steps) for steps in STEPS),
    ]:
        for start in sorted(inside, key=lambda qubit: (len(inside[qubit]), qubit)):
            path = _path(inside, start, n, steps * n)
            if path is not None:
                return tuple(path)
    raise ValueError(
        f"no line of {n} qubits was found; take fewer, or give qubits of your choice to "
        "`coupling_brickwall`"
    )


def _blocks(graph: Graph, n: int) -> Sequence[Graph]:
    """Parts of n qubits with the most connections, more than a line, that a line may fill."""
    far = {start: _distances(graph, start) for start in graph}
    parts = {tuple(sorted(_block(graph, far, start, n))) for start in graph}
    blocks = {part: _within(graph, part) for part in parts if len(part) == n}
    counts = {part: len(list(_edges(block))) for part, block in blocks.items()}
    most = max(counts.values(), default=0)
    return [
        blocks[part]
        for part in sorted(blocks)
        if counts[part] == most > n - 1
        and sum(len(near) == 1 for near in blocks[part].values()) <= 2
    ][:BLOCKS]


def _block(graph: Graph, far: Mapping[int, Mapping[int, int]], start: int, n: int) -> set[int]:
    """Up to n qubits around one, each with as many connections to those before as there can be."""
    chosen = {start}
    total = {qubit: far[start][qubit] for qubit in far[start]}  # of the steps to all chosen
    border = set(graph[start])
    while len(chosen) < n and border:
        newest = min(border, key=lambda q: (-len(chosen & graph[q]), total[q], q))
        chosen.add(newest)
        border = (border | graph[newest]) - chosen
        total = {qubit: steps + far[newest][qubit] for qubit, steps in total.items()}
    return chosen


def _path(graph: Graph, start: int, n: int, steps: int) -> list[int] | None:
    """A simple path of n qubits from one on; None if some steps of the search do not find it.

    Depth first, to the qubit with the fewest ways on (Warnsdorff's rule), and never to where
    fewer qubits are left than are needed.
    """
    path = [start]
    ways = [_ways(graph, path, n)]
    for _ in range(steps):
        if len(path) == n:
            return path
        following = next(ways[-1], None)
        if following is not None:
            path.append(following)
            ways.append(_ways(graph, path, n))
        elif len(path) > 1:
            path.pop()
            ways.pop()
        else:
            break
    return None


def _ways(graph: Graph, path: Sequence[int], n: int) -> Iterator[int]:
    """The qubits to which a path can go on, the most promising first."""
    free = _within(graph, set(graph) - set(path))
    near = sorted(graph[path[-1]] & set(free), key=lambda qubit: (len(free[qubit]), qubit))
    return (qubit for qubit in near if len(path) + len(_distances(free, qubit)) >= n)
