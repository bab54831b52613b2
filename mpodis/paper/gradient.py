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
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np
import torch
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.environments import DenseEnvironments
from mpodis.environments.protocol import Gradient
from mpodis.gates import polar_update, skew
from mpodis.jobs.records import FEWEST, spread
from mpodis.objectives import OverlapLoss
from mpodis.optimise.descend import Budget
from mpodis.optimise.initial import first_core, place_initial_guess
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.optimise.problem import Problem
from mpodis.options import SearchOptions
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import network
from mpodis.sites import site_tensors
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

CELLS = (("random", "fixed"), ("random", "update"), ("identity", "fixed"), ("identity", "update"))
"""Start of the gates and rule for the core; the first is the paper's, the last the package's."""
METHODS = {
    "sweeps": "sweeps",
    "lbfgs": "L-BFGS",
    "auto": "sweeps, then L-BFGS",
    "adam": "Adam",
    "momentum": "gradient descent, momentum",
}
DESCENTS = ("adam", "momentum")
COLUMNS = ("", "optimiser", "rate", "early f", "overlap")
COLUMNS += ("arrived", "evaluations", "seconds", "ms each")
NEAR = 0.99
"""Of the best overlap that any optimiser found for a problem: what counts as having arrived."""
TIE = 1e-3
"""Overlaps that differ by less are equal."""


@dataclass(frozen=True)
class GradientOptions(Options):
    """Depths, evaluations of every run, and learning rates that are tried."""

    depths: tuple[int, ...] = (2, 4, 8, 16)
    evaluations: int = 200
    adam: tuple[float, ...] = (0.01, 0.03, 0.1)
    momentum: tuple[float, ...] = (0.3, 1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.evaluations < 1:
            raise ValueError(f"evaluations={self.evaluations} must be 1 or more")
        for name in DESCENTS:
            rates = getattr(self, name)
            if not rates or min(rates) <= 0:
                raise ValueError(f"{name}={rates} must be learning rates above 0, at least one")


def pieces(options: GradientOptions) -> list[Piece]:
    same = {"data": options.data, "networks": options.networks, "evaluations": options.evaluations}
    rates = {name: list(getattr(options, name)) for name in DESCENTS}
    return [
        Piece(
            f"seed{seed}-depth{depth}-{start}-{core}",
            _compare,
            {"seed": seed, "depth": depth, "start": start, "core": core, **same, **rates},
        )
        for depth in options.depths
        for start, core in CELLS
        for seed in options.range
    ]


class Metered(OverlapLoss):
    """The overlap, with the loss and the processor time of every evaluation noted."""

    def __init__(self, tensors: Sequence) -> None:
        super().__init__(tensors)
        self.losses: list[float] = []
        self.times: list[float] = []

    def gradient(self, engine) -> tuple[float, Gradient]:
        loss, found = super().gradient(engine)
        self._note(loss)
        return loss, found

    def sweep(self, engine, updates, *, core: bool) -> None:
        super().sweep(engine, updates, core=core)
        self._note(self.value(engine))

    def _note(self, loss: float) -> None:
        self.losses.append(float(loss))
        self.times.append(time.process_time())


@dataclass(frozen=True)
class Race:
    """Where an optimiser begins, when it began, and how far it may go."""

    problem: Problem
    objective: Metered
    engine: DenseEnvironments
    free_core: bool
    evaluations: int
    began: float

    @classmethod
    def at_start(
        cls, problem: Problem, options: SearchOptions, core: list, evaluations: int
    ) -> Race:
        """The same gates and core whenever problem, options and first core are the same."""
        objective, free = Metered(problem.tensors), options.core == "update"
        engine = DenseEnvironments(objective.target, problem.legs, problem.left, problem.right)
        place_initial_guess(0, 0, engine, objective, problem, options, around=None, core=core)
        return cls(problem, objective, engine, free, evaluations, time.process_time())

    def left(self) -> int:
        """Evaluations that are left."""
        return self.evaluations - len(self.objective.losses)


def sweeps(race: Race, *, until_slow: bool = False) -> None:
    """Polar updates gate by gate, and the best core; perhaps only until they crawl."""
    sides = {"left": race.problem.left, "right": race.problem.right}
    updates = {side: partial(polar_update, group=a.group) for side, a in sides.items()}
    loss = race.objective.value(race.engine)
    while race.left() > 0:
        before = loss
        race.objective.sweep(race.engine, updates, core=race.free_core)
        loss = race.objective.losses[-1]
        if until_slow and before - loss < Budget.crawl * loss:
            return


def lbfgs(race: Race) -> None:
    problem, free = race.problem, race.free_core
    # an iteration takes an evaluation or more; what goes beyond the limit is cut off later
    Lbfgs(race.objective, race.engine, problem.left, problem.right, free_core=free).run(race.left())


def auto(race: Race) -> None:
    """Hand over from sweeps to L-BFGS where ``disentangle(method="auto")`` does."""
    sweeps(race, until_slow=True)
    race.engine.set(core=race.objective.scaled_core(race.engine))
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
    while race.left() > 0:
        optimiser.zero_grad()
        moved = [b @ torch.matrix_exp(skew(t)) for b, t in zip(base, generators, strict=True)]
        gates = list(start)
        for stack, of_stack in zip(stacks, moved, strict=True):
            for k, gate in zip(stack, of_stack.detach().numpy(), strict=True):
                gates[k] = gate
        engine.set(gates[:count], [site.detach().numpy() for site in core], gates[count:])
        _, found = race.objective.gradient(engine)
        environments = [*found.left, *found.right]
        falls = [torch.from_numpy(np.stack([environments[k] for k in s])) for s in stacks]
        torch.autograd.backward(moved, [-fall for fall in falls])
        if race.free_core:
            for site, fall in zip(core, found.core, strict=True):
                site.grad = -torch.tensor(fall)
        optimiser.step()


def optimisers(adam: list[float], momentum: list[float]) -> dict[str, Callable[[Race], None]]:
    """All runs by name; a learning rate is part of it."""
    found = {"sweeps": sweeps, "lbfgs": lbfgs, "auto": auto}
    for rate in adam:
        found[f"adam {rate:g}"] = partial(descent, make=partial(torch.optim.Adam, lr=rate))
    for rate in momentum:
        make = partial(torch.optim.SGD, lr=rate, momentum=0.9)
        found[f"momentum {rate:g}"] = partial(descent, make=make)
    return found


def grid(evaluations: int) -> list[int]:
    """Evaluations at which a run's overlap is kept."""
    return sorted({round(x) for x in np.geomspace(1, evaluations, 30)})


def _early(evaluations: int) -> int:
    return max(1, evaluations // 10)


def _compare(
    *,
    data: str,
    networks: str,
    seed: int,
    depth: int,
    start: str,
    core: str,
    evaluations: int,
    adam: list[float],
    momentum: list[float],
) -> dict:
    tensors = site_tensors(network(data, networks, seed).mpo.to_mpo())
    problem = Problem.build(tensors, brickwall(len(tensors), depth))
    options = SearchOptions(init=start, core=core, seed=seed)
    first, races = first_core(problem, options), {}
    for name, optimise in optimisers(adam, momentum).items():
        races[name] = Race.at_start(problem, options, first, evaluations)
        optimise(races[name])
    best = max(1 - min(race.objective.losses[:evaluations]) for race in races.values())
    return {
        "seed": seed,
        "depth": depth,
        "start": start,
        "core": core,
        "best": best,
        "runs": {name: _summary(race, NEAR * best) for name, race in races.items()},
    }


def _summary(race: Race, near: float) -> dict:
    """The best overlap so far of a run, thinned, and when it came near; None where it did not."""
    overlap = np.maximum.accumulate(1 - np.array(race.objective.losses[: race.evaluations]))
    seconds = [at - race.began for at in race.objective.times[: race.evaluations]]
    there = int(np.argmax(overlap >= near)) if overlap[-1] >= near else None
    # a run that ended early stays where it was
    early, *kept = (
        min(k, len(overlap)) - 1 for k in (_early(race.evaluations), *grid(race.evaluations))
    )
    return {
        "overlap": float(overlap[-1]),
        "early": float(overlap[early]),
        "evaluations": None if there is None else there + 1,
        "seconds": None if there is None else seconds[there],
        "each": seconds[-1] / len(overlap),
        "curve": [round(float(overlap[k]), 6) for k in kept],
    }


def _runs(record: dict, cell: tuple[str, str], depth: int, name: str) -> list[dict]:
    """A run of every seed."""
    rows = record["pieces"].values()
    return [r["runs"][name] for r in rows if (r["start"], r["core"], r["depth"]) == (*cell, depth)]


def chosen(record: dict, cell: tuple[str, str], depth: int, method: str) -> str:
    """Name of a method's runs; of the learning rate with the highest median of the overlaps."""
    if method not in DESCENTS:
        return method
    names = [f"{method} {rate:g}" for rate in record["options"][method]]
    return max(names, key=lambda n: median(r["overlap"] for r in _runs(record, cell, depth, n)))


def _best_descent(record: dict, cell: tuple[str, str], depth: int) -> str:
    """The better of Adam and momentum, by the same measure."""
    names = [chosen(record, cell, depth, method) for method in DESCENTS]
    return max(names, key=lambda n: median(r["overlap"] for r in _runs(record, cell, depth, n)))


def _middle(values: list) -> float:
    """Median where None is later than everything; infinite if most are."""
    return median(math.inf if x is None else x for x in values)


def _named(cell: tuple[str, str]) -> str:
    start, core = cell
    gates = "random gates" if start == "random" else "gates near the identity"
    return f"{gates}, core {'fixed' if core == 'fixed' else 'updated'}"


def tables(record: dict) -> list[Table]:
    return [_table(record, cell) for cell in CELLS]


def _table(record: dict, cell: tuple[str, str]) -> Table:
    rows = []
    for depth in record["options"]["depths"]:
        for method, label in METHODS.items():
            name = chosen(record, cell, depth, method)
            runs = _runs(record, cell, depth, name)
            evaluations = [run["evaluations"] for run in runs]
            middle, seconds = _middle(evaluations), _middle([run["seconds"] for run in runs])
            rows.append(
                (
                    f"depth {depth}",
                    label,
                    name.partition(" ")[2] or None,
                    median(run["early"] for run in runs),
                    spread([run["overlap"] for run in runs]),
                    f"{sum(x is not None for x in evaluations)} of {len(runs)}",
                    middle if middle < math.inf else None,
                    seconds if seconds < math.inf else None,
                    1e3 * median(run["each"] for run in runs),
                )
            )
    return Table(
        COLUMNS,
        rows,
        title=f"From {_named(cell)}, {record['options']['evaluations']} evaluations",
        notes=(
            f"early f: after {_early(record['options']['evaluations'])} evaluations, median",
            f"arrived: at {100 * NEAR:.0f} % of the best overlap of all optimisers; evaluations "
            "and processor seconds until then, median, a dash where most seeds do not arrive",
            "rate: the learning rate with the highest median overlap, of those tried; the others' "
            "evaluations are not counted",
        ),
    )


def _draw_curves(record: dict, ax: Axes, *, cell: tuple[str, str]) -> Axes:
    """Of the depth in the middle."""
    depths = record["options"]["depths"]
    depth = depths[len(depths) // 2]
    at = grid(record["options"]["evaluations"])
    for k, (method, label) in enumerate(METHODS.items()):
        runs = _runs(record, cell, depth, chosen(record, cell, depth, method))
        curves = np.array([run["curve"] for run in runs])
        ax.plot(at, np.median(curves, axis=0), color=f"C{k}", label=label)
        ax.fill_between(at, *np.quantile(curves, (0.25, 0.75), axis=0), color=f"C{k}", alpha=0.1)
    ax.set(xscale="log", xlabel="evaluations", ylabel=f"overlap f, depth {depth}")
    ax.set_title(_named(cell), fontsize="medium")
    ax.legend(fontsize="small")
    return ax


def _draw_ends(record: dict, ax: Axes, *, cell: tuple[str, str]) -> Axes:
    depths = record["options"]["depths"]
    for k, (method, label) in enumerate(METHODS.items()):
        for j, depth in enumerate(depths):
            runs = _runs(record, cell, depth, chosen(record, cell, depth, method))
            values = [run["overlap"] for run in runs]
            x = j + 0.14 * (k - 2)
            ax.plot([x] * len(values), values, ".", color=f"C{k}", alpha=0.4)
            shown = label if j == 0 else None
            ax.plot(x, median(values), "_", ms=11, mew=2, color=f"C{k}", label=shown)
    ax.set(xlabel="layers", ylabel="overlap f", xticks=range(len(depths)), xticklabels=depths)
    ax.set_title(_named(cell), fontsize="medium")
    ax.legend(fontsize="small")
    return ax


def _duel(record: dict, cell: tuple[str, str], rival: Callable[[int], str]) -> dict[str, int]:
    """In how many problems sweeps are ahead early, arrive sooner, and end higher, lower or even."""
    count: dict[str, int] = {}
    count.update(dict.fromkeys(("ahead early", "sooner there", "higher", "lower", "even"), 0))
    for depth in record["options"]["depths"]:
        ours = _runs(record, cell, depth, "sweeps")
        for mine, other in zip(ours, _runs(record, cell, depth, rival(depth)), strict=True):
            lead = mine["overlap"] - other["overlap"]
            count["even" if abs(lead) <= TIE else "higher" if lead > 0 else "lower"] += 1
            count["ahead early"] += mine["early"] > other["early"]
            sooner = _middle([mine["evaluations"]]) < _middle([other["evaluations"]])
            count["sooner there"] += sooner
    return count


def _part(record: dict, cell: tuple[str, str]) -> str:
    """What was found in one cell."""
    names = {
        "sweeps": lambda depth: "sweeps",
        "gradient descent": partial(_best_descent, record, cell),
        "L-BFGS": lambda depth: "lbfgs",
    }
    ends = []
    for label, name in names.items():
        runs = [_runs(record, cell, depth, name(depth)) for depth in record["options"]["depths"]]
        overlaps = (f"{median(run['overlap'] for run in of_depth):.3f}" for of_depth in runs)
        ends.append(f"{label} {', '.join(overlaps)}")
    duels = []
    for label in ("gradient descent", "L-BFGS"):
        duel = _duel(record, cell, names[label])
        duels.append(f"against {label} " + ", ".join(f"{n} {what}" for what, n in duel.items()))
    return f"From {_named(cell)}: {'; '.join(ends)}; sweeps {', and '.join(duels)}."


def finding(record: dict) -> str:
    options, paper = record["options"], CELLS[0]
    duel = _duel(record, paper, partial(_best_descent, record, paper))
    total = len(options["depths"]) * len(record["seeds"])
    conclusion = "" if len(record["seeds"]) < FEWEST else _conclusion(duel, total)
    return (
        f"Median overlap at depth {', '.join(map(str, options['depths']))} after "
        f"{options['evaluations']} evaluations, {len(record['seeds'])} networks; gradient descent "
        "is the better of Adam and momentum at the learning rate that ends highest, the search for "
        f"which is not counted; {total} problems; early is after {_early(options['evaluations'])} "
        f"evaluations, there is at {100 * NEAR:.0f} % of the best. "
        f"{' '.join(_part(record, cell) for cell in CELLS)}{conclusion}"
    )


def _conclusion(duel: dict, total: int) -> str:
    """What the paper says of its setting, by the count of problems."""
    faster = "holds early on" if duel["ahead early"] > total / 2 else "does not hold"
    if duel["sooner there"] > total / 2:
        faster = "holds to the end"
    higher = "holds" if duel["higher"] > total / 2 else "does not hold"
    return (
        f" In the paper's setting ({_named(CELLS[0])}), that sweeps converge faster than gradient "
        f"descent {faster}, and that they end higher {higher}."
    )


EXPERIMENT = Experiment(
    name="gradient",
    title="Gradient descent on the overlap against sweeps (Sec. IV.1)",
    options=GradientOptions,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=tuple(
        Panel(name, f"{caption}; {_named(cell)}.", partial(draw, cell=cell))
        for name, caption, draw in (
            ("evaluations", "Best overlap so far, median and quartiles", _draw_curves),
            ("depth", "Overlap of every network at the end, and the median", _draw_ends),
        )
        for name, cell in ((f"{name}-paper", CELLS[0]), (f"{name}-ours", CELLS[-1]))
    ),
)
