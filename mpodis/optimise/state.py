"""Where a search stands, as one object that can be stored and taken up again."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from mpodis.optimise.problem import Point

__all__ = ["State"]


@dataclass(eq=False)
class State:
    """Everything that the next record of a search depends on; a checkpoint is a `State`.

    A search descends from an initial guess, restarts from other ones, and may grow the circuits in
    stages. Each of these has its own part of the state.

    Attributes
    ----------
    point : Point or None
        Gates and core; None before an initial guess was placed.
    steps, differences : lists of arrays
        Pairs of L-BFGS: steps and differences of gradients.
    phase : {"", "init", "sweep", "lbfgs"}
        What made the last record: nothing yet, the initial guess, or an update of either kind.
    losses : list of float
        Loss of every record of this descent, the initial guess first.
    bonds : list of int
        Bond dimension D of a truncating engine at each of them.
    used_lbfgs : bool
        Whether this descent has handed over to L-BFGS before.
    status : str
        Why this descent ended; empty while it goes on.
    bond_level : int
        Position in the schedule of bond dimensions.
    checked, checked_overlap : Point or None, float
        The last point that an independent check confirmed, and its true overlap.
    guess : int
        Number of the initial guess among those of the stage.
    refining : bool
        All initial guesses of the stage were tried; the best is carried on.
    best, best_loss : State or None, float
        The best descent of the stage so far.
    stage : int
        Number of the stage among those of circuits that grow.
    names : list of int
        What the records call the initial guesses of the stage.
    n_names : int
        How many initial guesses were named so far.
    initial : Point or None
        Where the stage began.
    winners : list of int
        Name of the initial guess that won each stage before.
    incumbent, incumbent_stage : State or None, int
        What the present stages, which began afresh, have to beat, and the first of them. It may
        have an incumbent itself, which is to be beaten later.
    gained : int
        Number of records at the last gain: at the end of the stages, or after the last kick that
        lowered the loss by more than the fraction `tol`.
    ended : str
        Why the whole search ended; empty while it goes on.
    seconds : float
        Spent so far.
    plan : dict or None
        The engine's plan (a contraction path), which another search might find differently.
    records : list of dict
        The history. It is stored apart.
    """

    point: Point | None = None
    steps: list = field(default_factory=list)
    differences: list = field(default_factory=list)
    phase: str = ""
    losses: list = field(default_factory=list)
    bonds: list = field(default_factory=list)
    used_lbfgs: bool = False
    status: str = ""
    bond_level: int = 0
    checked: Point | None = None
    checked_overlap: float = 0.0
    guess: int = 0
    refining: bool = False
    best: State | None = None
    best_loss: float = math.inf
    stage: int = 0
    names: list = field(default_factory=list)
    n_names: int = 0
    initial: Point | None = None
    winners: list = field(default_factory=list)
    incumbent: State | None = None
    incumbent_stage: int = 0
    gained: int = 0
    ended: str = ""
    seconds: float = 0.0
    plan: dict | None = None
    records: list = field(default_factory=list)

    @property
    def name(self) -> int:
        """What the records call the present initial guess."""
        return self.names[self.guess]

    def descent(self) -> State:
        """A copy of the descent alone, without what belongs to restarts and stages."""
        return replace(
            self,
            steps=list(self.steps),
            differences=list(self.differences),
            losses=list(self.losses),
            bonds=list(self.bonds),
            names=list(self.names),
            winners=[],
            best=None,
            incumbent=None,
            initial=None,
            records=[],
        )

    def begin(self, guess: int) -> None:
        """Forget the present descent; the next one is that of another initial guess."""
        self.continue_from(replace(State(), guess=guess))

    def continue_from(self, other: State) -> None:
        """Continue the descent of another state."""
        for name in _DESCENT:
            value = getattr(other, name)
            setattr(self, name, list(value) if isinstance(value, list) else value)

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict]:
        """The state without its history, as named arrays and as numbers for JSON."""
        arrays: dict[str, np.ndarray] = {}
        numbers: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name == "records":
                numbers[one.name] = len(value)
            elif isinstance(value, State):
                inner, numbers[one.name] = value.to_arrays()
                arrays |= {f"{one.name}/{name}": array for name, array in inner.items()}
            elif isinstance(value, Point):
                for part in _PARTS:
                    arrays |= _named(f"{one.name}.{part}", getattr(value, part))
                numbers[one.name] = {part: len(getattr(value, part)) for part in _PARTS}
            elif one.name in ("steps", "differences"):
                arrays |= _named(one.name, value)
                numbers[one.name] = len(value)
            elif one.name in _SERIES:
                if value:
                    arrays[one.name] = np.array(value[-KEPT:], dtype=_SERIES[one.name][0])
                numbers[one.name] = len(value)
            else:
                numbers[one.name] = value
        return arrays, numbers

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], numbers: dict, records: list) -> State:
        """The state that `to_arrays` described, with its history."""
        values: dict[str, Any] = dict(numbers) | {"records": list(records)}
        for name in ("best", "incumbent"):
            if values[name] is not None:
                own = {k[len(name) + 1 :]: x for k, x in arrays.items() if k.startswith(f"{name}/")}
                values[name] = cls.from_arrays(own, values[name], [])
        for name in ("point", "checked", "initial"):
            if values[name] is not None:
                counts = values[name]
                parts = [_listed(f"{name}.{part}", arrays, counts[part]) for part in _PARTS]
                values[name] = Point(*parts)
        for name in ("steps", "differences"):
            values[name] = _listed(name, arrays, values[name])
        for name, (_, forgotten) in _SERIES.items():
            kept = arrays[name].tolist() if values[name] else []
            values[name] = [forgotten] * (values[name] - len(kept)) + kept
        return cls(**values)


_SERIES = {"losses": (np.float64, math.nan), "bonds": (np.int64, -1)}
"""Numbers of every record: their type, and what stands for those that a checkpoint leaves out."""
KEPT = 64
"""How many of them it has, the last ones; a search looks back upon fewer (`Budget.window`), and a
checkpoint after thousands of records takes no longer than the first."""
_PARTS = ("left", "core", "right")
_DESCENT = (
    "point",
    "steps",
    "differences",
    "phase",
    "losses",
    "bonds",
    "used_lbfgs",
    "status",
    "bond_level",
    "checked",
    "checked_overlap",
    "guess",
)
"""The fields that belong to one descent."""


def _named(prefix: str, arrays: list) -> dict[str, np.ndarray]:
    return {f"{prefix}.{k}": array for k, array in enumerate(arrays)}


def _listed(prefix: str, arrays: dict[str, np.ndarray], count: int) -> list:
    return [arrays[f"{prefix}.{k}"] for k in range(count)]
