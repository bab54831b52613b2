"""On which wires the gates of a circuit act, apart from their values.

A circuit of n wires is a sequence of layers, a layer a set of placements that do not overlap.
In the row action ``x @ Q`` the first layer acts first. A pattern is any function that returns an
`Ansatz`, such as `brickwall` and `staircase`; there is no list of them to be added to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from mpodis.arguments import is_integer, plain_numbers
from mpodis.gates import check_group, gate_parameters, named_gate
from mpodis.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Ansatz",
    "Placement",
    "brickwall",
    "circuit_group",
    "earliest_layers",
    "staircase",
    "tie_gates",
]

FREE_CNOTS = {"SO": 2, "O": 3, "U": 3}
"""CNOTs that any gate on two wires needs, by its group (quant-ph/0308045v3)."""
DRAWN_GATES = 150
"""Gates up to which Jupyter shows a drawing of a circuit."""


@dataclass(frozen=True)
class Placement:
    """The wires that one gate acts on, and its name if it stays fixed.

    Attributes
    ----------
    wires : tuple of int
        Different wires in any order; the first one is the most significant bit of the gate.
    fixed : str or None
        Name of a registered gate ("CNOT": control on the first wire), see
        `mpodis.register_gate`; None for a free gate.
    tie : str or None
        Free gates of a circuit with the same tie are one and the same gate, see `tie_gates`.

    Raises
    ------
    ValueError
        Wires that are repeated or negative, or a fixed gate that is unknown, of another number of
        wires, or tied.
    """

    wires: tuple[int, ...]
    fixed: str | None = None
    tie: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "wires", tuple(int(wire) for wire in self.wires))
        if not self.wires or len(set(self.wires)) != len(self.wires) or min(self.wires) < 0:
            raise ValueError(
                f"wires={self.wires} must be one or more different numbers, 0 or larger"
            )
        if self.fixed is not None:
            gate = named_gate(self.fixed)
            if gate.width != self.width:
                raise ValueError(
                    f"a {self.fixed} acts on {gate.width} wires and does not fit on {self.wires}"
                )
            if self.tie is not None:
                raise ValueError(f"the fixed {self.fixed} on wires {self.wires} cannot be tied")

    @property
    def width(self) -> int:
        """Number of wires."""
        return len(self.wires)

    @property
    def is_local(self) -> bool:
        """Whether the wires are neighbours in ascending order."""
        return self.wires == tuple(range(self.wires[0], self.wires[0] + self.width))


LARGEST_CIRCUIT = 100_000
"""Gates of a circuit that a depth or a spec describes; they take a second to lay out."""

LARGEST_WIDTH = 13
"""Wires of a gate that they describe: its matrix has half a GiB."""


@dataclass(frozen=True)
class Ansatz:
    """Layers of placements on n wires, and the group of the free gates.

    Attributes
    ----------
    n : int
        Number of wires (qubits).
    layers : tuple of tuple of Placement
    group : {"SO", "O", "U"}
        Free gates are real with determinant +1, real orthogonal, or complex unitary.

    Raises
    ------
    ValueError
        Layers whose gates overlap or leave the wires, complex fixed gates in a real circuit, or
        tied gates of different numbers of wires.

    Examples
    --------
    >>> layers = ((Placement((0, 1)), Placement((2, 3), "CZ")), (Placement((3, 0)),))
    >>> print(Ansatz(4, layers))
    4 wires, 2 layers (2 x 2b, 1 x CZ, 1 not on neighbours), SO
    """

    n: int
    layers: tuple[tuple[Placement, ...], ...]
    group: str = "SO"

    def __post_init__(self) -> None:
        check_group(self.group)
        for t, layer in enumerate(self.layers):
            used = [wire for placement in layer for wire in placement.wires]
            if len(set(used)) != len(used):
                raise ValueError(f"gates of layer {t} overlap on wires {sorted(used)}")
            if used and not 0 <= min(used) <= max(used) < self.n:
                raise ValueError(
                    f"layer {t} uses wires up to {max(used)}, but the circuit has {self.n} wires"
                )
        for place in self.placements:
            if place.fixed and self.group != "U" and named_gate(place.fixed).is_complex:
                raise ValueError(
                    f"{place.fixed} on wires {place.wires} is complex, but the circuit is real "
                    f"(group={self.group!r}); use group='U'"
                )
        for tie, numbers in self.ties.items():
            widths = sorted({self.placements[j].width for j in numbers})
            if len(widths) > 1:
                raise ValueError(f"gates tied as {tie!r} have widths {widths}")

    @property
    def ties(self) -> dict[str, list[int]]:
        """Numbers of the placements of every tie."""
        found: dict[str, list[int]] = {}
        for j, place in enumerate(self.placements):
            if place.tie is not None:
                found.setdefault(place.tie, []).append(j)
        return found

    @property
    def free(self) -> list[list[int]]:
        """Numbers of the placements of every free gate: one, or all of a tie."""
        ties = self.ties
        return [
            [j] if place.tie is None else ties[place.tie]
            for j, place in enumerate(self.placements)
            if place.fixed is None and (place.tie is None or ties[place.tie][0] == j)
        ]

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """All placements in the order in which they act on a row vector."""
        return tuple(p for layer in self.layers for p in layer)

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.layers)

    @cached_property
    def is_local(self) -> bool:
        """Whether every gate acts on neighbouring wires in ascending order."""
        return all(place.is_local for place in self.placements)

    @property
    def n_parameters(self) -> int:
        """Number of real parameters of the free gates."""
        widths = (self.placements[numbers[0]].width for numbers in self.free)
        return sum(gate_parameters(width, self.group) for width in widths)

    @property
    def n_cnots(self) -> int | None:
        """CNOTs that any gates on these placements need; None where only a compiler can tell."""
        free = {1: 0, 2: FREE_CNOTS[self.group]}
        counts = [
            named_gate(place.fixed).n_cnots if place.fixed else free.get(place.width)
            for place in self.placements
        ]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def reversed(self) -> Ansatz:
        """The ansatz of the adjoint circuit: layers in the opposite order."""
        return Ansatz(self.n, self.layers[::-1], self.group)

    def __repr__(self) -> str:
        return f"Ansatz({self})"

    @property
    def _gates(self) -> str:
        """How many gates of each width or name there are."""
        widths = [p.fixed or f"{p.width}b" for p in self.placements]
        return ", ".join(f"{widths.count(w)} x {w}" for w in sorted(set(widths))) or "no gates"

    def _repr_html_(self) -> str:
        from mpodis.circuit.drawing import svg_of_layers

        rows = [
            ("wires", self.n),
            ("layers", self.depth),
            ("gates", self._gates),
            ("CNOTs, at most", self.n_cnots),
            ("parameters", self.n_parameters),
            ("group", self.group),
        ]
        drawing = ""
        if self.placements and len(self.placements) <= DRAWN_GATES:
            drawing = svg_of_layers(self.n, self._placed)
        return Table(("circuit", ""), rows)._repr_html_() + drawing

    @property
    def _placed(self) -> list[list[tuple[tuple[int, ...], str | None]]]:
        """Wires and name of the gates of every layer, for drawings."""
        return [[(place.wires, place.fixed) for place in layer] for layer in self.layers]

    def __str__(self) -> str:
        tied = f", {len(self.ties)} ties" if self.ties else ""
        apart = sum(not place.is_local for place in self.placements)
        tied += f", {apart} not on neighbours" if apart else ""
        return f"{self.n} wires, {self.depth} layers ({self._gates}{tied}), {self.group}"

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw wires and gates, layer by layer from left to right.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.

        Returns
        -------
        matplotlib Axes
        """
        from mpodis.circuit.drawing import draw_layers

        return draw_layers(self.n, self._placed, ax)


@plain_numbers
def brickwall(
    n: int, depth: int, width: int = 2, *, parity: int = 0, group: str = "SO", fill: bool = True
) -> Ansatz:
    """Layers of gates on `width` neighbouring wires, every second one shifted by half a gate.

    Parameters
    ----------
    n : int
        Number of wires.
    depth : int
        Number of layers, 1 or more.
    width : int
        Number of wires of a gate, 1 to n.
    parity : {0, 1}
        Parity of the first layer; 1 is the shifted one.
    group : {"SO", "O", "U"}
        Of the gates.
    fill : bool
        Put narrower gates on the wires that are left over at the ends of a layer. Otherwise a
        width that does not divide n leaves wires without a gate, which costs more overlap than
        wide gates gain.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Examples
    --------
    >>> [[place.wires for place in layer] for layer in brickwall(4, 2).layers]
    [[(0, 1), (2, 3)], [(0,), (1, 2), (3,)]]
    """
    check_width(width, n)
    check_depth(depth, n, width)
    check_parity(parity)
    layers = tuple(brick_layer(n, width, (parity + t) % 2, fill=fill) for t in range(depth))
    return Ansatz(n, layers, group)


def brick_layer(
    n: int, width: int, parity: int, *, fill: bool = True, fixed: str | None = None
) -> tuple[Placement, ...]:
    """One layer of a brickwall: gates from wire 0 on, or shifted so that they join those."""
    shift = width // 2
    if n - shift < width:  # half a gate does not fit: shift by the remainder instead
        shift = n % width
    edges = list(range(shift * parity, n - width + 1, width))
    layer = [Placement(tuple(range(a, a + width)), fixed) for a in edges]
    if fill:
        before, after = edges[0], n - edges[-1] - width
        if before:
            layer.insert(0, Placement(tuple(range(before))))
        if after:
            layer.append(Placement(tuple(range(n - after, n))))
    return tuple(layer)


def circuit_group(*circuits: Ansatz) -> str:
    """The group that contains the matrices Q of all circuits of these ansätze.

    A real gate on fewer wires than its circuit is repeated an even number of times in Q, where
    its determinant is therefore +1: with 3 wires or more all real circuits of two-wire gates are
    in SO. `von_neumann_bound` is tighter for SO.

    Examples
    --------
    >>> circuit_group(brickwall(3, 2, group="O")), circuit_group(brickwall(2, 1, group="O"))
    ('SO', 'O')
    """
    if any(ansatz.group == "U" for ansatz in circuits):
        return "U"
    for ansatz in circuits:
        widest = [place for place in ansatz.placements if place.width == ansatz.n]
        flips = sum(
            np.linalg.det(named_gate(place.fixed).matrix) < 0 for place in widest if place.fixed
        )
        free = any(place.fixed is None for place in widest)
        if flips % 2 or (ansatz.group == "O" and free):
            return "O"
    return "SO"


@plain_numbers
def staircase(n: int, depth: int, width: int = 2, *, group: str = "SO") -> Ansatz:
    """Gates of `width` on wires from 0, from 1, from 2 ... on, in this order, `depth` times."""
    check_width(width, n)
    check_depth(depth, n)
    steps = tuple((Placement(tuple(range(a, a + width))),) for a in range(n - width + 1))
    return Ansatz(n, steps * depth, group)


def earliest_layers(placements: Sequence[Placement]) -> list[list[int]]:
    """Numbers of the placements in as few layers as their order allows, by wire within each."""
    layers: list[list[int]] = []
    next_layer: dict[int, int] = {}  # the first one that is free on each wire
    for k, place in enumerate(placements):
        t = max(next_layer.get(wire, 0) for wire in place.wires)
        if t == len(layers):
            layers.append([])
        layers[t].append(k)
        next_layer |= dict.fromkeys(place.wires, t + 1)
    return [sorted(layer, key=lambda k: min(placements[k].wires)) for layer in layers]


def tie_gates(ansatz: Ansatz, *, by: str = "layer") -> Ansatz:
    """The ansatz with free gates that share their values.

    Parameters
    ----------
    ansatz : Ansatz
    by : {"layer", "parity", "mirror"}
        "layer": all gates of the same width in a layer are one gate. "parity": also all of those
        in every second layer. "mirror": the first and the last gate of a layer are one, the
        second and the last but one, and so on.

    Examples
    --------
    >>> tie_gates(brickwall(6, 4)).n_parameters  # 6 for the pairs of a layer, 1 for its ends
    26
    """
    check_ansatz(ansatz)
    if by not in ("layer", "parity", "mirror"):
        raise ValueError(f"by={by!r} is not known; use 'layer', 'parity' or 'mirror'")
    layers = tuple(
        tuple(_mirrored(t, layer))
        if by == "mirror"
        else tuple(_tied(f"{t % 2 if by == 'parity' else t}", place) for place in layer)
        for t, layer in enumerate(ansatz.layers)
    )
    return replace(ansatz, layers=layers)


def _tied(name: str, place: Placement) -> Placement:
    """The placement with a tie for its width, unless it is fixed."""
    return place if place.fixed else replace(place, tie=f"{name}:{place.width}b")


def _mirrored(t: int, layer: Sequence[Placement]) -> Iterator[Placement]:
    """Layer t with the first and the last gate of every width tied, the second and so on."""
    alike = [(place.fixed, place.width) for place in layer]
    for k, place in enumerate(layer):
        same = [j for j, one in enumerate(alike) if one == alike[k]]
        pair = sorted((same.index(k), len(same) - 1 - same.index(k)))
        yield place if pair[0] == pair[1] else _tied(f"{t}.{pair[0]}", place)


def check_ansatz(ansatz: object) -> None:
    """A TypeError for what is no ansatz."""
    if not isinstance(ansatz, Ansatz):
        raise TypeError(
            f"expected an Ansatz, got {type(ansatz).__name__}; make one with `brickwall`, "
            "`staircase` or `from_spec`"
        )


def check_depth(depth: int, n: int = 1, width: int = 1, *, name: str = "depth") -> None:
    """An error if there are no layers, or more gates than anything can be done with."""
    if not is_integer(depth):
        raise TypeError(f"{name}={depth!r} must be a number of layers")
    if depth < 1:
        raise ValueError(f"{name}={depth} must be 1 or more layers")
    if depth * max(1, n // max(width, 1)) > LARGEST_CIRCUIT:
        raise ValueError(
            f"{name}={depth:,} on {n:,} wires makes a circuit of more than {LARGEST_CIRCUIT:,} "
            "gates; use fewer layers"
        )


def check_parity(parity: int) -> None:
    """A ValueError if the parity is neither 0 nor 1."""
    if parity not in (0, 1):
        raise ValueError(f"parity={parity} must be 0 or 1, that of the first layer")


def check_width(width: int, n: int) -> None:
    """A ValueError if a gate of `width` wires does not fit on n wires, or in memory."""
    for name, value in (("n", n), ("width", width)):
        if not is_integer(value):
            raise ValueError(f"{name}={value!r} must be a whole number of wires")
    if 1 <= width <= n and width > LARGEST_WIDTH:
        raise ValueError(
            f"a gate on {width} wires has 4^{width} entries; use at most {LARGEST_WIDTH} wires"
        )
    if not 1 <= width <= n:
        raise ValueError(
            f"a gate on {width} wires does not fit a circuit of {n}; use widths from 1 to {n}"
        )
