"""Circuits that grow: which ansätze a run goes through, and how one's gates begin the next.

A circuit grows from its outermost layers, and new ones begin as the identity, so that the overlap
never falls. In case it stays near where it was shallow there are rivals, and the better of the two
goes on growing. At 2, 4, 8, ... layers they begin afresh, from near the identity. From `LEAP`
layers on others begin with few gates of four wires and turn them into brickwalls of the circuit's
own gates, one layer after the other, everything else being optimised in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import Circuit, embed
from mpodis.optimise.problem import Point
from mpodis.synthesis import synthesise

__all__ = ["Stage", "advance", "bound_gates", "plan"]

LEAP = 16
"""Depth from which on, every `BLOCK` layers, a rival with wide gates is tried."""
BLOCK = 8
"""Layers into which one layer of wide gates is compiled."""
COARSE = 4
"""Wires of a wide gate."""


@dataclass(frozen=True)
class Stage:
    """Circuits of one part of a run, and where they begin.

    Attributes
    ----------
    left, right : Ansatz
    begins : {"start", "grow", "again", "coarse", "compile"}
        From the starts of the settings; from the gates of the stage before; as a rival of the
        stage before, from starts of its own ("coarse": with wide gates); or from the wide gates
        of the stage before, one layer of them compiled.
    side, layer : str, int
        What "compile" compiles: a layer of the stage before.
    decides : bool
        The rival is complete: the better of it and of what it challenges goes on.
    challenged : bool
        A rival comes next.
    """

    left: Ansatz
    right: Ansatz
    begins: str
    side: str = ""
    layer: int = -1
    decides: bool = False
    challenged: bool = False

    @property
    def depth(self) -> int:
        return max(self.left.depth, self.right.depth)

    @property
    def rivals(self) -> bool:
        """Whether it begins afresh, against the stage before."""
        return self.begins in ("again", "coarse")


def bound_gates(left: Ansatz, right: Ansatz) -> list[Placement]:
    """Gates that cannot begin as the identity, fixed or tied to others."""
    places = (*left.placements, *right.placements)
    return [place for place in places if place.fixed is not None or place.tie is not None]


def plan(left: Ansatz, right: Ansatz) -> list[Stage]:
    """Stages of growing circuits; the same for all depths as far as they go.

    Raises
    ------
    ValueError
        Fixed or tied gates, which cannot begin as the identity.
    """
    for place in bound_gates(left, right)[:1]:
        what = "tied gate" if place.fixed is None else f"fixed {place.fixed}"
        raise ValueError(
            f"init='grown' begins new layers as the identity, which the {what} on wires "
            f"{place.wires} cannot be; use init='identity'"
        )
    depth = max(left.depth, right.depth)
    stages = [Stage(*_part(left, right, 1), "start")]
    for k in range(2, depth + 1):
        part = _part(left, right, k)
        stages.append(Stage(*part, "grow"))
        if k & (k - 1) == 0:
            stages.append(Stage(*part, "again", decides=True))
        if k >= LEAP and k % BLOCK == 0 and _can_leap(*part, k):
            stages += _leap(*part)
    return [
        replace(stage, challenged=follows.rivals)
        for stage, follows in zip(stages, [*stages[1:], stages[0]], strict=True)
    ]


def _part(left: Ansatz, right: Ansatz, k: int) -> tuple[Ansatz, Ansatz]:
    """The k outermost layers of both sides."""
    first = replace(left, layers=left.layers[:k])
    return first, replace(right, layers=right.layers[max(0, right.depth - k) :])


def _can_leap(left: Ansatz, right: Ansatz, depth: int) -> bool:
    sides = (left, right)
    wide = all(side.depth == depth and side.n >= COARSE for side in sides)
    return wide and all(p.width <= 2 for side in sides for p in side.placements)


def _leap(left: Ansatz, right: Ansatz) -> list[Stage]:
    """A rival of two circuits: wide gates, compiled layer by layer, the outermost first."""
    count = left.depth // BLOCK
    wide = {
        "left": brickwall(left.n, count, COARSE, group=left.group).layers,
        "right": brickwall(right.n, count, COARSE, group=right.group).layers[::-1],
    }
    fine = {
        "left": [left.layers[k : k + BLOCK] for k in range(0, left.depth, BLOCK)],
        "right": [right.layers[k : k + BLOCK] for k in range(0, right.depth, BLOCK)],
    }
    now = {side: [(layer,) for layer in layers] for side, layers in wide.items()}

    def ansatze() -> list[Ansatz]:
        sides = (("left", left), ("right", right))
        return [replace(ansatz, layers=sum(now[side], ())) for side, ansatz in sides]

    stages = [Stage(*ansatze(), "coarse")]
    for k in range(count):
        for side, block in (("left", k), ("right", count - 1 - k)):
            at = sum(len(layers) for layers in now[side][:block])
            now[side][block] = fine[side][block]
            stages.append(Stage(*ansatze(), "compile", side, at))
    stages[-1] = replace(stages[-1], decides=True)
    return stages


def advance(before: Stage, stage: Stage, point: Point, *, seed: Sequence[int]) -> Point:
    """The point of one stage as the beginning of the next."""
    gates = {}
    for side in ("left", "right"):
        old, new = getattr(before, side), getattr(stage, side)
        circuit = Circuit(old, tuple(getattr(point, side)))
        if stage.begins == "compile" and side == stage.side:
            gates[side] = _compiled(circuit, new, stage.layer, seed)
        else:
            gates[side] = list(embed(circuit, new, outermost=side).gates)
    return Point(gates["left"], list(point.core), gates["right"])


def _compiled(circuit: Circuit, ansatz: Ansatz, layer: int, seed: Sequence[int]) -> list:
    """Gates of `ansatz`, in which `BLOCK` layers have taken the place of one of wide gates."""
    before = sum(len(places) for places in circuit.ansatz.layers[:layer])
    wide = circuit.ansatz.layers[layer]
    block = ansatz.layers[layer : layer + BLOCK]
    found = {}
    for k, place in enumerate(wide):
        inside = [
            (t, j)
            for t, places in enumerate(block)
            for j, small in enumerate(places)
            if set(small.wires) <= set(place.wires)
        ]
        moved = tuple(
            (Placement(tuple(w - place.wires[0] for w in block[t][j].wires)),) for t, j in inside
        )
        small = Ansatz(place.width, moved, ansatz.group)
        near = synthesise(
            circuit.gates[before + k], small, n_init=4, max_sweeps=60, seed=[*seed, k]
        )
        found.update(zip(inside, near.circuit.gates, strict=True))
    like = np.result_type(np.float64, *circuit.gates)
    fill = [
        found.get((t, j), np.eye(2**small.width, dtype=like))
        for t, places in enumerate(block)
        for j, small in enumerate(places)
    ]
    after = before + len(wide)
    return [*circuit.gates[:before], *fill, *circuit.gates[after:]]
