"""The circuit specs of the paper's tables, "1b + 3*(CNOT + 2b)", as ansätze."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

from mpodis.arguments import check_count, plain_numbers
from mpodis.circuit.ansatz import (
    LARGEST_CIRCUIT,
    Ansatz,
    brick_layer,
    check_depth,
    check_parity,
    check_width,
)
from mpodis.gates import find_gate, gate_names

__all__ = ["from_spec", "pair_from_spec", "segments_from_spec"]


@plain_numbers
def from_spec(
    spec: str,
    n: int,
    *,
    depth: int | None = None,
    parity: int = 0,
    group: str = "SO",
    fill: bool = True,
) -> Ansatz:
    """An ansatz from a line of text, in the notation of Tables 4 and 6 of arXiv 2509.06653v1.

    Layers are joined by "+", repeated by "5*" (or "5 x"), grouped by parentheses. A layer is
    "1b", "2b", ... (free gates on that many wires) or the name of a registered gate ("CNOT", "CZ",
    "SWAP", "iSWAP", "ECR", or one of `register_gate`), in a brickwall. Layers of gates on two
    wires and more alternate their parity; layers of one-wire gates leave it as it is.

    Parameters
    ----------
    spec : str
        With a `depth`, "all CNOTs" or one word alone is every layer, and "odd layers = CNOTs even
        layers = 2b" alternates.
    n : int
        Number of wires.
    depth : int, optional
        Number of layers, for a spec that does not say it.
    parity : {0, 1}
        Parity of the first layer, see `brickwall`.
    group : {"SO", "O", "U"}
        Of the free gates; complex gates such as iSWAP need "U".
    fill : bool
        As in `brickwall`; a layer of fixed gates is never filled.

    Raises
    ------
    ValueError
        A spec that cannot be read, an unknown gate, or one that does not fit.

    Examples
    --------
    >>> str(from_spec("1b + 2*(CZ + 2b)", 8))
    '8 wires, 5 layers (12 x 1b, 6 x 2b, 8 x CZ), SO'
    """
    check_count("n", n)
    check_parity(parity)
    words = _layer_words(spec, depth, n)
    layers = []
    for word in words:
        gate = find_gate(word)
        width = gate.width if gate else int(word[:-1])
        check_width(width, n)
        fixed = gate.name if gate else None
        layers.append(brick_layer(n, width, parity, fill=fill and not fixed, fixed=fixed))
        parity = parity if width == 1 else 1 - parity
    return Ansatz(n, tuple(layers), group)


def segments_from_spec(
    spec: str, n: int, *, parity: int = 0, group: str = "SO", fill: bool = True
) -> list[Ansatz]:
    """The parts of a spec that is cut by "|"; together they are the circuit of the whole spec.

    Examples
    --------
    >>> [part.depth for part in segments_from_spec("1b + CNOT + 1b + 5*CNOT | CNOT", 8)]
    [8, 1]
    """
    _check_text(spec)
    parts, depths = spec.split("|"), []
    for part in parts:
        try:
            depths.append(len(_layer_words(part, None, n)))
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
    """Left and right ansatz from "LEFT ; RIGHT", the form of Tables 4 and 6.

    Without a ";" both sides have the same spec. `depths` are the numbers of layers M and N of the
    tables, for specs that do not say them.

    Examples
    --------
    >>> left, right = pair_from_spec("CNOT ; CNOT + 2b", 8, 8)
    >>> left.depth, right.depth
    (1, 2)
    """
    _check_text(spec)
    sides = re.split(r";(?!\s*even\b)", spec, flags=re.IGNORECASE)  # "odd = 1b; even = CNOT"
    if len(sides) > 2:
        raise ValueError(f"spec {spec!r} has {len(sides)} sides; write 'LEFT ; RIGHT'")
    m, n = depths or (None, None)
    left = from_spec(sides[0], n_left, depth=m, group=group, fill=fill)
    return left, from_spec(sides[-1], n_right, depth=n, group=group, fill=fill)


_WORD = r"(\d+b|[A-Za-z]\w*?)s?"
_TOKEN = re.compile(rf"\s*(?:(\d+)\s*[*x×]|{_WORD}\b|([()+]))", re.IGNORECASE)


LONGEST_SPEC = 10_000
"""Characters of a spec."""

DEEPEST_SPEC = 100
"""Parentheses in one another."""


def _check_text(spec: str) -> None:
    if not isinstance(spec, str):
        raise TypeError(f"the circuit spec {spec!r} is not a text; write it as '1b + CNOT + 2b'")
    if len(spec) > LONGEST_SPEC:
        raise ValueError(
            f"the circuit spec {_short(spec)} has {len(spec):,} characters; write repeats as "
            "'5*CNOT'"
        )


def _short(spec: str) -> str:
    """A spec as an error quotes it."""
    return repr(spec if len(spec) <= 60 else f"{spec[:50]} ...")


def _layer_words(spec: str, depth: int | None, n: int) -> list[str]:
    """A word for every layer on n wires: "2b", or the name of a gate."""
    _check_text(spec)
    text = spec.strip()
    alternating = re.fullmatch(
        rf"odd(?: layers)?\s*=\s*{_WORD}[\s;,]*even(?: layers)?\s*=\s*{_WORD}", text, re.I
    )
    alike = re.fullmatch(rf"(?:all\s+){'?' if depth is not None else ''}{_WORD}", text, re.I)
    match = alternating or alike
    if match:
        if depth is None:
            raise ValueError(f"spec {spec!r} does not say how many layers; give depth=")
        check_depth(depth, n)
        words = match.groups()
        return [_canonical(words[t % len(words)], spec) for t in range(depth)]
    found, end = _parse_sum(text, 0, spec, max(1, LARGEST_CIRCUIT // max(n, 1)))
    if end != len(text):
        raise ValueError(_syntax(spec, text[end:]))
    if depth is not None and depth != len(found):
        raise ValueError(f"spec {spec!r} has {len(found)} layers, but depth={depth} was given")
    return found


def _canonical(word: str, spec: str) -> str:
    if word[0].isdigit():
        return f"{_number(word[:-1], spec)}b"
    gate = find_gate(word) or find_gate(f"{word}s")  # the "s" may be part of the name
    if gate is None:
        raise ValueError(
            f"gate {word!r} in the circuit spec {spec!r} is not known; use one of "
            f"{', '.join(gate_names())}, '1b', '2b', ..., or add yours with `register_gate`"
        )
    return gate.name


def _number(digits: str, spec: str) -> int:
    if len(digits) > 9:
        raise ValueError(f"{_short(digits)} in the circuit spec {_short(spec)} is too large")
    return int(digits)


def _parse_sum(text: str, at: int, spec: str, most: int, level: int = 0) -> tuple[list[str], int]:
    """sum := term ("+" term)* ; term := [count "*"] (word | "(" sum ")")

    There may be at most so many layers.
    """
    if level > DEEPEST_SPEC:
        raise ValueError(
            f"the circuit spec {_short(spec)} has more than {DEEPEST_SPEC} parentheses in one "
            "another; leave out those that group nothing"
        )
    words: list[str] = []
    while True:
        count = 1
        match = _TOKEN.match(text, at)
        if match and match[1]:
            count, at = _number(match[1], spec), match.end()
            if count == 0:
                raise ValueError(f"spec {spec!r} repeats a layer 0 times; leave it out instead")
            match = _TOKEN.match(text, at)
        if match and match[2]:
            term, at = [_canonical(match[2], spec)], match.end()
        elif match and match[3] == "(":
            term, at = _parse_sum(text, match.end(), spec, most, level + 1)
            close = _TOKEN.match(text, at)
            if not close or close[3] != ")":
                raise ValueError(_syntax(spec, text[at:] or "the end, a ) is missing"))
            at = close.end()
        else:
            raise ValueError(_syntax(spec, text[at:] or "the end"))
        if len(words) + len(term) * count > most:
            raise ValueError(
                f"the circuit spec {_short(spec)} has more than {most:,} layers, with more "
                f"than {LARGEST_CIRCUIT:,} gates; use fewer"
            )
        words += term * count
        match = _TOKEN.match(text, at)
        if not match or match[3] != "+":
            return words, at + len(text[at:]) - len(text[at:].lstrip())
        at = match.end()


def _syntax(spec: str, where: str) -> str:
    return (
        f"cannot read the circuit spec {_short(spec)} at {_short(where.strip())}; "
        "write layers as '1b + CNOT + 2b', repeats as '5*CNOT' or '3*(CNOT + 2b)'"
    )
