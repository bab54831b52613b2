"""Where the gates of a circuit sit, apart from their values.

A circuit of n wires is a sequence of layers, a layer a set of placements that do not overlap.
In the row action ``x @ Q`` the first layer is hit first.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpodis.gates import FIXED, check_group, gate_parameters

__all__ = [
    "Ansatz",
    "Placement",
    "brickwall",
    "circuit_group",
    "from_spec",
    "pair_from_spec",
    "segments_from_spec",
    "staircase",
    "tie_gates",
]


@dataclass(frozen=True)
class Placement:
    """One gate's place: neighbouring wires, ascending, and the name of a gate that stays fixed.

    Attributes
    ----------
    wires : tuple of int
    fixed : str or None
        "CNOT" (control on the first wire) or None for a free gate.
    tie : str or None
        Free gates of a circuit with the same tie are one and the same gate, see `tie_gates`.
    """

    wires: tuple[int, ...]
    fixed: str | None = None
    tie: str | None = None

    def __post_init__(self) -> None:
        if not self.wires or self.wires != tuple(
            range(self.wires[0], self.wires[0] + len(self.wires))
        ):
            raise ValueError(f"wires={self.wires} are not neighbours in ascending order")
        if self.fixed is not None:
            if self.fixed not in FIXED:
                raise ValueError(f"fixed={self.fixed!r} is not known; use {', '.join(FIXED)}")
            if FIXED[self.fixed].shape[0] != 2**self.width:
                raise ValueError(f"a {self.fixed} does not fit on wires {self.wires}")
            if self.tie is not None:
                raise ValueError(f"the fixed {self.fixed} on wires {self.wires} cannot be tied")

    @property
    def width(self) -> int:
        return len(self.wires)


@dataclass(frozen=True)
class Ansatz:
    """Layers of placements on n wires, and the group of the free gates.

    Attributes
    ----------
    n : int
        Number of wires (qubits).
    layers : tuple of tuple of Placement
    group : {"SO", "O", "U"}
        Real with determinant +1, real orthogonal, or complex unitary.
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
        """Numbers of the placements of every free gate: one, or those of a tie."""
        ties = self.ties
        return [
            [j] if place.tie is None else ties[place.tie]
            for j, place in enumerate(self.placements)
            if place.fixed is None and (place.tie is None or ties[place.tie][0] == j)
        ]

    @property
    def placements(self) -> tuple[Placement, ...]:
        """All placements in the order in which a row vector meets them."""
        return tuple(p for layer in self.layers for p in layer)

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def n_parameters(self) -> int:
        """Real parameters of the free gates."""
        widths = (self.placements[numbers[0]].width for numbers in self.free)
        return sum(gate_parameters(width, self.group) for width in widths)

    def reversed(self) -> Ansatz:
        """Layers in the opposite order: the places of the adjoint circuit."""
        return Ansatz(self.n, self.layers[::-1], self.group)

    def __str__(self) -> str:
        widths = [p.fixed or f"{p.width}b" for p in self.placements]
        counts = ", ".join(f"{widths.count(w)} x {w}" for w in sorted(set(widths)))
        tied = f", {len(self.ties)} ties" if self.ties else ""
        return f"{self.n} wires, {self.depth} layers ({counts or 'no gates'}{tied}), {self.group}"

    def draw(self, ax=None):
        """Draw wires and gates, time from left to right; returns the Axes."""
        import matplotlib.pyplot as plt

        if ax is None:
            size = (1.2 + 0.55 * max(self.depth, 1), 0.8 + 0.42 * self.n)
            ax = plt.subplots(figsize=size, layout="constrained")[1]
        for wire in range(self.n):
            ax.plot([-0.6, self.depth - 0.4], [wire, wire], color="0.6", lw=1, zorder=0)
        colours = {1: "C2", 2: "C0", 3: "C1", 4: "C3", 5: "C4", 6: "C5"}
        for t, layer in enumerate(self.layers):
            for place in layer:
                top, bottom = place.wires[0], place.wires[-1]
                if place.fixed == "CNOT":
                    ax.plot([t, t], [top, bottom], color="k", lw=1.2)
                    ax.plot([t], [top], "ko", ms=4)
                    ax.plot([t], [bottom], "o", mfc="white", mec="k", ms=9)
                    ax.plot([t], [bottom], "k+", ms=8)
                else:
                    box = plt.Rectangle(
                        (t - 0.3, top - 0.3),
                        0.6,
                        bottom - top + 0.6,
                        facecolor=colours.get(place.width, "C6"),
                        edgecolor="k",
                        lw=0.8,
                    )
                    ax.add_patch(box)
        ax.set(xlim=(-0.8, self.depth - 0.2), ylim=(self.n - 0.4, -0.6), xlabel="layer")
        ax.set_xticks(range(self.depth))
        ax.set_yticks(range(self.n))
        ax.set_ylabel("wire")
        ax.spines[:].set_visible(False)
        return ax


def brickwall(
    n: int, depth: int, width: int = 2, *, parity: int = 0, group: str = "SO", fill: bool = True
) -> Ansatz:
    """Alternating layers of gates of `width`, every second one shifted by half a gate.

    Parameters
    ----------
    n : int
        Number of wires.
    depth : int
        Number of layers, 1 or more.
    width : int
        Wires of a gate, 1 to n.
    parity : {0, 1}
        Parity of the first layer: 1 starts with the shifted one.
    fill : bool
        Cover the wires that the bricks leave over with narrower gates. A width that does not
        divide n otherwise leaves wires idle, which costs more overlap than the wide gates gain.
    """
    _check_depth(depth)
    _check_width(width, n)
    _check_parity(parity)
    layers = tuple(_bricks(n, width, (parity + t) % 2, fill=fill) for t in range(depth))
    return Ansatz(n, layers, group)


def _bricks(n: int, width: int, parity: int, *, fill: bool = True, fixed=None):
    """One layer: bricks from 0, or shifted so that they straddle the other parity's seams."""
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
    """Group of the whole matrices Q of some ansätze: what the von Neumann bound may use.

    A gate on fewer wires than its circuit acts on an even number of copies, so that its
    determinant there is +1: with 3 wires or more all real circuits of 2-body gates are in SO.
    """
    if any(ansatz.group == "U" for ansatz in circuits):
        return "U"
    for ansatz in circuits:
        widest = [place for place in ansatz.placements if place.width == ansatz.n]
        flips = sum(
            np.linalg.det(FIXED[place.fixed]) < 0 for place in widest if place.fixed is not None
        )
        free = any(place.fixed is None for place in widest)
        if flips % 2 or (ansatz.group == "O" and free):
            return "O"
    return "SO"


def staircase(n: int, depth: int, width: int = 2, *, group: str = "SO") -> Ansatz:
    """`depth` staircases: gates of `width` on wires 0.., 1.., 2.., one after the other."""
    _check_depth(depth)
    _check_width(width, n)
    steps = tuple((Placement(tuple(range(a, a + width))),) for a in range(n - width + 1))
    return Ansatz(n, steps * depth, group)


def tie_gates(ansatz: Ansatz, *, by: str = "layer") -> Ansatz:
    """The ansatz with gates that share their values, fixed ones left aside.

    Parameters
    ----------
    ansatz : Ansatz
    by : {"layer", "parity", "mirror"}
        All gates of a width in a layer are one gate; or all of those in every other layer, so that
        the circuit is translation invariant in time, too; or the first and the last of a layer are
        one, the second and the last but one, and so on, the middle one stays alone.
    """
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
    return place if place.fixed else replace(place, tie=f"{name}:{place.width}b")


def _mirrored(t: int, layer: Sequence[Placement]) -> Iterator[Placement]:
    alike = [(place.fixed, place.width) for place in layer]
    for k, place in enumerate(layer):
        same = [j for j, one in enumerate(alike) if one == alike[k]]
        pair = sorted((same.index(k), len(same) - 1 - same.index(k)))
        yield place if pair[0] == pair[1] else _tied(f"{t}.{pair[0]}", place)


def from_spec(
    spec: str,
    n: int,
    *,
    depth: int | None = None,
    parity: int = 0,
    group: str = "SO",
    fill: bool = True,
) -> Ansatz:
    """Ansatz from the words of the paper's Tables 4 and 6.

    Layers are joined by "+", repeated by "5*" (or "5 x"), grouped by parentheses. A layer is
    "CNOT" (fixed, in a brickwall) or "1b", "2b", ... (free gates on that many wires). Layers of
    two wires and more alternate their parity; layers of single wires leave it as it is. Given a
    `depth`, "all CNOTs" or one word alone is every layer, and "odd layers = CNOTs even layers =
    2b" is understood too. `fill` is that of `brickwall`; a layer of fixed CNOTs is never filled.

    >>> from_spec("1b + CNOT + 1b + 5*CNOT", 8).depth
    8
    """
    _check_parity(parity)
    names = _layer_names(spec, depth)
    layers = []
    for name in names:
        if name == "CNOT":
            _check_width(2, n)
            layers.append(_bricks(n, 2, parity, fill=False, fixed="CNOT"))
        else:
            width = int(name[:-1])
            _check_width(width, n)
            layers.append(_bricks(n, width, parity, fill=fill))
        parity = parity if name == "1b" else 1 - parity
    return Ansatz(n, tuple(layers), group)


def segments_from_spec(
    spec: str, n: int, *, parity: int = 0, group: str = "SO", fill: bool = True
) -> list[Ansatz]:
    """Sub-circuits of a spec that is cut by "|", of the same placements as without the cuts.

    >>> [part.depth for part in segments_from_spec("1b + CNOT + 1b + 5*CNOT | CNOT", 8)]
    [8, 1]
    """
    parts, depths = spec.split("|"), []
    for part in parts:
        try:
            depths.append(len(_layer_names(part, None)))
        except ValueError as error:
            if len(parts) == 1:
                raise
            raise ValueError(f"part {len(depths) + 1} of {spec!r}: {error}") from None
    whole = from_spec(" + ".join(parts), n, parity=parity, group=group, fill=fill)
    ends = [0, *itertools.accumulate(depths)]
    return [replace(whole, layers=whole.layers[a:b]) for a, b in itertools.pairwise(ends)]


def pair_from_spec(
    spec: str,
    n_left: int,
    n_right: int,
    *,
    depths: tuple[int, int] | None = None,
    group: str = "SO",
    fill: bool = True,
) -> tuple[Ansatz, Ansatz]:
    """Left and right ansatz from "LEFT ; RIGHT", the form of Tables 4 and 6; one side serves both.

    `depths` are the tables' M and N, for specs that do not say how many layers.

    >>> left, right = pair_from_spec("CNOT ; CNOT + 2b", 8, 8)
    >>> left.depth, right.depth
    (1, 2)
    """
    sides = re.split(r";(?!\s*even\b)", spec, flags=re.IGNORECASE)  # "odd = 1b; even = CNOT"
    if len(sides) > 2:
        raise ValueError(f"spec {spec!r} has {len(sides)} sides; write 'LEFT ; RIGHT'")
    m, n = depths or (None, None)
    left = from_spec(sides[0], n_left, depth=m, group=group, fill=fill)
    return left, from_spec(sides[-1], n_right, depth=n, group=group, fill=fill)


_TOKEN = re.compile(r"\s*(?:(\d+)\s*[*x×]|(CNOT|\d+b)s?|([()+]))", re.IGNORECASE)
_LAYER = r"(CNOT|\d+b)s?"


def _layer_names(spec: str, depth: int | None) -> list[str]:
    text = spec.strip()
    odd_even = re.fullmatch(
        rf"odd(?: layers)?\s*=\s*{_LAYER}[\s;,]*even(?: layers)?\s*=\s*{_LAYER}", text, re.I
    )
    every = re.fullmatch(rf"(all\s+)?{_LAYER}", text, re.IGNORECASE)
    if odd_even or (every and (every[1] or depth is not None)):
        if depth is None:
            raise ValueError(f"spec {spec!r} does not say how many layers; give depth=")
        _check_depth(depth)
        words = odd_even.groups() if odd_even else (every[2],)
        return [_canonical(words[t % len(words)]) for t in range(depth)]
    names, end = _parse_sum(text, 0, spec)
    if end != len(text):
        raise ValueError(_syntax(spec, text[end:]))
    if depth is not None and depth != len(names):
        raise ValueError(f"spec {spec!r} has {len(names)} layers, but depth={depth} was given")
    return names


def _canonical(word: str) -> str:
    return "CNOT" if word.upper().startswith("CNOT") else str(int(word[:-1])) + "b"


def _parse_sum(text: str, at: int, spec: str) -> tuple[list[str], int]:
    """sum := term ("+" term)* ; term := [count "*"] (name | "(" sum ")")"""
    names: list[str] = []
    while True:
        count = 1
        match = _TOKEN.match(text, at)
        if match and match[1]:
            count, at = int(match[1]), match.end()
            if count == 0:
                raise ValueError(f"spec {spec!r} repeats a layer 0 times; leave it out instead")
            match = _TOKEN.match(text, at)
        if match and match[2]:
            term, at = [_canonical(match[2])], match.end()
        elif match and match[3] == "(":
            term, at = _parse_sum(text, match.end(), spec)
            close = _TOKEN.match(text, at)
            if not close or close[3] != ")":
                raise ValueError(_syntax(spec, text[at:] or "the end, a ) is missing"))
            at = close.end()
        else:
            raise ValueError(_syntax(spec, text[at:] or "the end"))
        names += term * count
        match = _TOKEN.match(text, at)
        if not match or match[3] != "+":
            return names, at + len(text[at:]) - len(text[at:].lstrip())
        at = match.end()


def _syntax(spec: str, where: str) -> str:
    return (
        f"cannot read the circuit spec {spec!r} at {where.strip()!r}; "
        "write layers as '1b + CNOT + 2b', repeats as '5*CNOT' or '3*(CNOT + 2b)'"
    )


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise ValueError(f"depth={depth} must be 1 or more layers")


def _check_parity(parity: int) -> None:
    if parity not in (0, 1):
        raise ValueError(f"parity={parity} must be 0 or 1, that of the first layer")


def _check_width(width: int, n: int) -> None:
    if not 1 <= width <= n:
        raise ValueError(
            f"a gate of {width} wires does not fit an operator of {n}; use widths from 1 to {n}"
        )
