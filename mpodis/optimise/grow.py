"""Circuits that grow: the stages of a search, and how one stage's gates begin the next.

A circuit grows from its outermost layers, and new layers begin as the identity, so that the overlap
never falls. Since it may stay near the optimum of the shallower circuit, it is compared with
circuits that begin afresh, and the better of the two grows on. At 2, 4, 8, ... layers these begin
near the identity. From `COARSE_DEPTH` layers on others begin with few gates of four wires, which
are turned into brickwalls of the circuit's own gates, one layer after the other, with everything
else optimised in between.

Circuits of the whole depth may come before all that, from two sets of initial guesses, since their
minima differ. Growing ones then have to beat them at the end, and a search that is stopped early
returns them: a few layers are worth much less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mpodis.circuit import Ansatz, Circuit, Placement, brickwall, embed
from mpodis.optimise.initial_guesses import kicked
from mpodis.optimise.problem import Point
from mpodis.optimise.state import State
from mpodis.optimise.unitary import approximate_unitary

__all__ = ["Stage", "advance", "begin_next", "constrained_gates", "plan", "best_so_far", "winners"]

Layers: TypeAlias = tuple[tuple[Placement, ...], ...]

COARSE_DEPTH = 16
"""Depth from which on, every `BLOCK` layers, circuits that begin with wide gates are tried."""
BLOCK = 8
"""Layers into which one layer of wide gates is compiled."""
COARSE = 4
"""Wires of a wide gate."""


@dataclass(frozen=True)
class Stage:
    """Circuits of one part of a search, and where they begin.

    Attributes
    ----------
    left, right : Ansatz
    begins : {"guess", "grow", "restart", "coarse", "compile", "kick"}
        From the initial guesses of the options; from the gates of the stage before, new layers the
        identity; afresh, to be compared with the stage before ("coarse": with wide gates); from the
        wide gates of the stage before, one layer of them compiled into narrow ones; or from the
        best gates so far, some or all of them turned far, to be compared with the best.
    side, layer : str, int
        The layer of the stage before that "compile" compiles.
    decides : bool
        Whether the circuits that began afresh are complete after this stage: the better of them and
        the incumbent grows on.
    challenged : bool
        Whether the next stage begins afresh, or circuits of the whole depth are compared with it.
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
    def afresh(self) -> bool:
        """Whether it begins without the gates of the stage before, or far from them."""
        return self.begins in ("restart", "coarse", "kick")

    @property
    def prepares(self) -> bool:
        """Whether its gates are wider than those of the circuits that are searched."""
        return self.begins in ("coarse", "compile") and not self.decides


def constrained_gates(left: Ansatz, right: Ansatz) -> list[Placement]:
    """Gates that cannot begin as the identity: fixed ones, and those tied to others."""
    places = (*left.placements, *right.placements)
    return [place for place in places if place.fixed is not None or place.tie is not None]


def plan(left: Ansatz, right: Ansatz, *, whole_first: bool = False) -> list[Stage]:
    """Stages of growing circuits; the same for all depths as far as they go.

    Parameters
    ----------
    left, right : Ansatz
    whole_first : bool
        Whether circuits of the whole depth come first, which the growing ones have to beat at the
        end: a search that is stopped early has more from them than from a few layers.

    Raises
    ------
    ValueError
        Fixed or tied gates, which cannot begin as the identity.
    """
    for place in constrained_gates(left, right)[:1]:
        what = "tied gate" if place.fixed is None else f"fixed {place.fixed}"
        raise ValueError(
            f"init='grown' begins new layers as the identity, which the {what} on wires "
            f"{place.wires} cannot be; use init='identity'"
        )
    depth = max(left.depth, right.depth)
    whole_first &= depth > 1
    stages = []
    if whole_first:
        stages += [Stage(left, right, "guess"), Stage(left, right, "restart", decides=True)]
    stages.append(Stage(*_part(left, right, 1), "restart" if whole_first else "guess"))
    for k in range(2, depth + 1):
        part = _part(left, right, k)
        stages.append(Stage(*part, "grow"))
        if k & (k - 1) == 0 and not (whole_first and k == depth):
            stages.append(Stage(*part, "restart", decides=True))
        if k >= COARSE_DEPTH and k % BLOCK == 0 and _can_begin_coarse(*part, k):
            stages += _coarse_stages(*part)
    compared = [*(stage.afresh for stage in stages[1:]), whole_first]
    return [replace(stage, challenged=one) for stage, one in zip(stages, compared, strict=True)]


def _part(left: Ansatz, right: Ansatz, k: int) -> tuple[Ansatz, Ansatz]:
    """The k outermost layers of both sides."""
    first = replace(left, layers=left.layers[:k])
    return first, replace(right, layers=right.layers[max(0, right.depth - k) :])


def _can_begin_coarse(left: Ansatz, right: Ansatz, depth: int) -> bool:
    sides = (left, right)
    wide = all(side.depth == depth and side.n >= COARSE and side.is_local for side in sides)
    return wide and all(p.width <= 2 for side in sides for p in side.placements)


def _coarse_stages(left: Ansatz, right: Ansatz) -> list[Stage]:
    """Stages of circuits that begin with wide gates, compiled layer by layer from the outside."""
    count = left.depth // BLOCK
    wide = {
        "left": brickwall(left.n, count, COARSE, group=left.group).layers,
        "right": brickwall(right.n, count, COARSE, group=right.group).layers[::-1],
    }
    fine = {
        "left": [left.layers[k : k + BLOCK] for k in range(0, left.depth, BLOCK)],
        "right": [right.layers[k : k + BLOCK] for k in range(0, right.depth, BLOCK)],
    }
    now: dict[str, list[Layers]] = {
        side: [(layer,) for layer in layers] for side, layers in wide.items()
    }

    def stage(begins: str, side: str = "", layer: int = -1) -> Stage:
        layers = {name: sum(blocks, ()) for name, blocks in now.items()}
        return Stage(
            replace(left, layers=layers["left"]),
            replace(right, layers=layers["right"]),
            begins,
            side,
            layer,
        )

    stages = [stage("coarse")]
    for k in range(count):
        for side, block in (("left", k), ("right", count - 1 - k)):
            at = sum(len(layers) for layers in now[side][:block])
            now[side][block] = fine[side][block]
            stages.append(stage("compile", side, at))
    stages[-1] = replace(stages[-1], decides=True)
    return stages


def advance(before: Stage, stage: Stage, point: Point, *, seed: Sequence[int]) -> Point:
    """The initial guess of a stage, from the point that the stage before has reached."""
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
        near = approximate_unitary(
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


def begin_next(
    stages: Sequence[Stage], state: State, loss: float, *, n_init: int, seed: int
) -> None:
    """Put a state that has ended its stage, at a loss, at the beginning of the next one.

    Parameters
    ----------
    stages : sequence of Stage
    state : State
    loss : float
    n_init : int
        Number of initial guesses of the next stage.
    seed : int
    """
    before, incumbent = stages[state.stage], state.incumbent
    assert state.point is not None
    best = State(point=state.point, names=[state.name], best_loss=loss, status=state.status)
    decides = before.decides or stages[state.stage + 1].begins == "kick"
    if decides and incumbent is not None and incumbent.best_loss <= loss:
        best = replace(incumbent, incumbent=None, incumbent_stage=0)
    assert best.point is not None
    state.winners = winners(state, best.name)
    if decides and incumbent is not None:
        state.incumbent, state.incumbent_stage = incumbent.incumbent, incumbent.incumbent_stage
    state.stage += 1
    stage = stages[state.stage]
    if stage.afresh:
        outer = {"incumbent": state.incumbent, "incumbent_stage": state.incumbent_stage}
        state.incumbent, state.incumbent_stage = replace(best, **outer), state.stage
        state.initial, names = None, []
        if stage.begins == "kick":
            rng = np.random.default_rng([seed, state.n_names])
            point = best.point
            left = kicked(point.left, stage.left, state.stage, rng)
            right = kicked(point.right, stage.right, state.stage, rng)
            state.initial = Point(left, point.core, right)
    else:
        state.initial = advance(before, stage, best.point, seed=[seed, state.stage])
        names = [best.name]  # what is continued keeps its name
    new = n_init - len(names)
    state.names = [*names, *range(state.n_names, state.n_names + new)]
    state.n_names += new
    state.refining, state.best, state.best_loss = False, None, math.inf
    state.begin(0)


def best_so_far(stages: Sequence[Stage], state: State) -> tuple[Stage, Point, int]:
    """The stage, point and name of what a search would return where it stands."""
    found: list[tuple[float, Stage, State]] = []
    holder = state
    while (incumbent := holder.incumbent) is not None:
        found.append((incumbent.best_loss, stages[holder.incumbent_stage - 1], incumbent))
        holder = incumbent
    stage = stages[state.stage]
    if not (found and stage.prepares):
        loss, best = state.losses[-1], state
        if not state.refining and state.best is not None and state.best_loss <= loss:
            loss, best = state.best_loss, state.best
        found.append((loss, stage, best))
    _, stage, best = min(found, key=lambda one: one[0])  # the first of equal ones
    assert best.point is not None
    return stage, best.point, best.name


def winners(state: State, name: int) -> list[int]:
    """Name of the initial guess that won each stage up to the present one."""
    found, holder = [*state.winners, name], state
    while (incumbent := holder.incumbent) is not None:
        if incumbent.name == name:
            found[holder.incumbent_stage :] = [name] * (len(found) - holder.incumbent_stage)
        holder = incumbent
    return found
