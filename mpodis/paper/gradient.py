"""Gradient descent on the overlap against the closed-form sweeps (Sec. IV.1 of arXiv 2509.06653v1).

The paper says of its sweeps that they "converged more rapidly and achieved higher overlaps than a
gradient-descent optimization of unitaries". Here all optimisers begin at the same gates and core
and get equally many evaluations: passes that give the environments of all gates and of the core.
A sweep is one such pass, which also updates the gates on its way. Gradient descent moves gates as
``base @ exp(skew)`` by torch's autograd, with the engine's environments as derivatives by the gate.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.environments import DenseEnvironments
from mpodis.environments.protocol import Gradient
from mpodis.gates import polar_update, skew
from mpodis.jobs.records import spread
from mpodis.objectives import OverlapLoss
from mpodis.optimise.descend import Budget
from mpodis.optimise.initial_guesses import first_core, place_initial_guess
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.optimise.problem import Problem
from mpodis.options import SearchOptions, option
from mpodis.paper.base import ROW, Experiment, Options, Panel, how_many, on_networks
from mpodis.paper.networks import network
from mpodis.sites import site_tensors
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

STARTS = ("random", "identity")
"""Of the gates; the first is the paper's, the last the package's, as with the rules of the core."""
CORES = ("fixed", "update")
METHODS = {
    "sweeps": "sweeps",
    "lbfgs": "L-BFGS",
    "auto": "sweeps, then L-BFGS",
    "adam": "Adam",
    "momentum": "gradient descent, momentum",
}
DESCENTS = ("adam", "momentum")
EITHER = "gradient descent"
"""The better of Adam and momentum."""
NEAR = 0.99
"""Of the best overlap that any optimiser found for a problem: what counts as having arrived."""
TIE = 1e-3
"""Overlaps that differ by less are equal."""
PROBLEM = ["start", "core", "depth"]


@dataclass(frozen=True)
class GradientOptions(Options):
    """How deep the circuits are, and what every run gets."""

    depths: tuple[int, ...] = option((2, 4, 8, 16), "Layers on each side.", least=1)
    evaluations: int = option(200, "Evaluations of every run.", least=1)
    adam: tuple[float, ...] = option((0.01, 0.03, 0.1), "Learning rates to try.", positive=True)
    momentum: tuple[float, ...] = option((0.3, 1.0), "Learning rates to try.", positive=True)


def study(options: GradientOptions) -> Study:
    grid = {"depth": options.depths, "start": STARTS, "core": CORES}
    return on_networks(race, options, name="gradient", grid=grid)


def race(
    *, depth, start, core, seed, data, networks, evaluations, adam, momentum
) -> dict[str, Any]:
    """All optimisers from one point."""
    tensors = site_tensors(network(data, networks, seed).mpo.to_mpo())
    problem = Problem.build(tensors, brickwall(len(tensors), depth))
    options = SearchOptions(init=start, core=core, seed=seed)
    first, races = first_core(problem, options), {}
    for name, optimise in optimisers(adam, momentum).items():
        races[name] = Race(problem, options, first, evaluations)
        races[name].run(optimise)
    best = max(1 - min(race.losses) for race in races.values())
    return {
        ROW: [
            {"method": method, "rate": rate, **row}
            for (method, rate), race in races.items()
            for row in summary(race, NEAR * best)
        ]
    }


class Spent(Exception):
    """All evaluations are used up."""


class Race(OverlapLoss):
    """The overlap and the point to begin at; notes what every evaluation gives, and when.

    Gates and core are the same whenever problem, options and first core are.
    """

    def __init__(
        self, problem: Problem, options: SearchOptions, core: list, evaluations: int
    ) -> None:
        super().__init__(problem.tensors)
        self.problem, self.evaluations = problem, evaluations
        self.free_core = options.core == "update"
        self.engine = DenseEnvironments(self.target, problem.legs, problem.left, problem.right)
        place_initial_guess(0, 0, self.engine, self, problem, options, around=None, core=core)
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def run(self, optimise: Callable[[Race], None]) -> None:
        """Optimise until that ends, or has taken all evaluations."""
        self.began = time.process_time()
        with suppress(Spent):
            optimise(self)

    def gradient(self, engine) -> tuple[float, Gradient]:
        loss, found = super().gradient(engine)
        self._note(loss)
        return loss, found

    def sweep(self, engine, updates, *, core: bool) -> None:
        super().sweep(engine, updates, core=core)
        self._note(self.value(engine))

    def _note(self, loss: float) -> None:
        self.losses.append(float(loss))
        self.seconds.append(time.process_time() - self.began)
        if len(self.losses) == self.evaluations:
            raise Spent


def sweeps(race: Race, *, until_slow: bool = False) -> None:
    """Polar updates gate by gate, and the best core; perhaps only until they crawl."""
    sides = {"left": race.problem.left, "right": race.problem.right}
    updates = {side: partial(polar_update, group=a.group) for side, a in sides.items()}
    before, loss = math.inf, race.value(race.engine)
    while not until_slow or before - loss >= Budget.handover * loss:
        before = loss
        race.sweep(race.engine, updates, core=race.free_core)
        loss = race.losses[-1]


def lbfgs(race: Race) -> None:
    left, right = race.problem.left, race.problem.right
    # an iteration takes an evaluation or more
    Lbfgs(race, race.engine, left, right, free_core=race.free_core).run(race.evaluations)


def auto(race: Race) -> None:
    """Hand over from sweeps to L-BFGS where ``disentangle(method="auto")`` does."""
    sweeps(race, until_slow=True)
    race.engine.set(core=race.scaled_core(race.engine))
    lbfgs(race)


def descent(race: Race, make: Callable) -> None:
    """Gradient descent over generators; `make` gives a torch optimiser of parameters."""
    engine = race.engine
    start, count = [*engine.left, *engine.right], len(engine.left)
    # gates of a size are exponentials of one stack
    stacks = [[k for k, gate in enumerate(start) if len(gate) == d] for d in (2, 4)]
    stacks = [stack for stack in stacks if stack]
    base = [torch.from_numpy(np.stack([start[k] for k in stack])) for stack in stacks]
    generators = [torch.zeros_like(b, requires_grad=True) for b in base]
    core = [torch.tensor(site, requires_grad=race.free_core) for site in engine.core]
    optimiser = make([*generators, *(core if race.free_core else [])])
    while True:
        optimiser.zero_grad()
        moved = [b @ torch.matrix_exp(skew(t)) for b, t in zip(base, generators, strict=True)]
        gates = list(start)
        for stack, of_stack in zip(stacks, moved, strict=True):
            for k, gate in zip(stack, of_stack.detach().numpy(), strict=True):
                gates[k] = gate
        engine.set(gates[:count], [site.detach().numpy() for site in core], gates[count:])
        _, found = race.gradient(engine)
        environments = [*found.left, *found.right]
        falls = [torch.from_numpy(np.stack([environments[k] for k in s])) for s in stacks]
        torch.autograd.backward(moved, [-fall for fall in falls])
        if race.free_core:
            for site, fall in zip(core, found.core, strict=True):
                site.grad = -torch.tensor(fall)
        optimiser.step()


def optimisers(
    adam: Sequence[float], momentum: Sequence[float]
) -> dict[tuple[str, float], Callable[[Race], None]]:
    """All runs by method and learning rate, 0 where there is none."""
    found: dict[tuple[str, float], Callable] = {
        (run.__name__, 0.0): run for run in (sweeps, lbfgs, auto)
    }
    for rate in adam:
        make = partial(torch.optim.Adam, lr=rate)
        found["adam", rate] = partial(descent, make=make)
    for rate in momentum:
        make = partial(torch.optim.SGD, lr=rate, momentum=0.9)
        found["momentum", rate] = partial(descent, make=make)
    return found


def marks(evaluations: int) -> list[int]:
    """Evaluations at which a run's overlap is kept, the last of them all."""
    return sorted({round(x) for x in np.geomspace(1, evaluations, 30)[1::4]})


def summary(race: Race, near: float) -> list[dict[str, float]]:
    """The best overlap so far of a run at every mark; with the last one the figures of the run.

    "arrived" and "search_seconds" say when it came near, NaN where it did not.
    """
    overlap = np.maximum.accumulate(1 - np.array(race.losses))
    there = int(np.argmax(overlap >= near)) if overlap[-1] >= near else None
    ends = {
        "early": float(overlap[min(max(1, race.evaluations // 10), len(overlap)) - 1]),
        "arrived": math.nan if there is None else there + 1.0,
        "search_seconds": math.nan if there is None else race.seconds[there],
        "ms_each": 1e3 * race.seconds[-1] / len(overlap),
    }
    nothing = dict.fromkeys(ends, math.nan)
    rows = [
        # a run that ended early stays where it was
        {"at": at, "overlap": float(overlap[min(at, len(overlap)) - 1]), **nothing}
        for at in marks(race.evaluations)
    ]
    rows[-1] |= ends
    return rows


def chosen(frame: pd.DataFrame) -> pd.DataFrame:
    """The ends of all runs at the learning rate that has the highest median overlap.

    Those of the better of Adam and momentum are there again as the method `EITHER`.
    """
    ends = frame.query("at == at.max()").fillna({"arrived": math.inf, "search_seconds": math.inf})
    run = [*PROBLEM, "method", "rate"]
    medians = ends.pivot_table("overlap", run, aggfunc="median", sort=False).reset_index()
    ranked = medians.sort_values("overlap", ascending=False, kind="stable")
    rates = ranked.drop_duplicates([*PROBLEM, "method"])
    descents = rates.query("method in @DESCENTS").drop_duplicates(PROBLEM)
    either = ends.merge(descents[run]).assign(method=EITHER)
    return pd.concat([ends.merge(rates[run]), either])


def duels(runs: pd.DataFrame) -> pd.DataFrame:
    """In which problems sweeps are ahead of gradient descent early, arrive sooner, end higher."""
    columns = ["overlap", "early", "arrived"]
    each = runs.pivot_table(columns, [*PROBLEM, "seed"], "method", sort=False)
    sweeps, descent = (each.xs(method, axis="columns", level=1) for method in ("sweeps", EITHER))
    lead = sweeps["overlap"] - descent["overlap"]
    return pd.DataFrame(
        {
            "ahead early": sweeps["early"] > descent["early"],
            "sooner there": sweeps["arrived"] < descent["arrived"],
            "higher": lead > TIE,
            "lower": lead < -TIE,
        }
    )


def tables(frame: pd.DataFrame) -> list[Table]:
    runs = chosen(frame)
    columns = ["rate", "early", "arrived", "search_seconds", "ms_each"]
    axes = {"index": [*PROBLEM, "method"], "sort": False}
    medians = runs.pivot_table(columns, aggfunc="median", **axes).replace(math.inf, math.nan)
    ends = runs.pivot_table("overlap", aggfunc=spread, **axes)
    counts = duels(runs).groupby(["start", "core"], sort=False).agg(how_many)
    return [
        Table.from_dataframe(
            ends.join(medians).query("method != @EITHER").rename(METHODS),
            title=f"overlap after {frame['at'].max()} evaluations, median (least to most)",
            notes=(
                "rate: the one with the highest median overlap of those tried; the others' "
                "evaluations are not counted",
                "early: median overlap after a tenth of the evaluations",
                f"arrived: at {NEAR:.0%} of the best overlap of all optimisers; evaluations "
                "and processor seconds until then, median, a dash where most seeds do not arrive",
            ),
        ),
        Table.from_dataframe(
            counts,
            title="sweeps against gradient descent, in how many problems (depths, networks)",
            notes=(
                "gradient descent: the better of Adam and momentum",
                f"sooner there: at what counts as arrived; within {TIE:g} neither is higher",
            ),
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes, *, start: str, core: str) -> None:
    """Median curves of the depth in the middle."""
    depths = frame["depth"].unique()
    depth = depths[len(depths) // 2]
    runs = chosen(frame)[["method", "rate", "seed", *PROBLEM]]
    shown = frame.query("depth == @depth and start == @start and core == @core").merge(runs)
    medians = shown.pivot_table("overlap", "at", "method", "median")
    ax.plot(medians[list(METHODS)], ".-", label=list(METHODS.values()))
    ax.set(xscale="log", xlabel="evaluations", ylabel=f"overlap f, depth {depth}")
    ax.set_title(f"start: {start}; core: {core}", fontsize="medium")
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="gradient",
    title="Gradient descent on the overlap against sweeps (Sec. IV.1)",
    options=GradientOptions,
    study=study,
    tabulate=tables,
    panels=tuple(
        Panel(name, "Best overlap so far, medians.", partial(draw, start=start, core=core))
        for name, (start, core) in (
            ("paper", ("random", "fixed")),
            ("ours", ("identity", "update")),
        )
    ),
)
