"""The circuit nearest to a unitary, or to a state, from a given circuit on.

The target is an MPO, one circuit stands on one side of it, and the core is the identity (of a
state: the row vector of |0...0>) and stays so. The loss is 1 - |c| with c = Tr(U^H Q) / 2^n, or
<psi|Q|0>: it does not depend on the global phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpodis.circuit import Ansatz
from mpodis.conventions import Legs
from mpodis.environments.overlap import LossEstimate, estimate_loss
from mpodis.environments.protocol import EngineOptions, Environments, Gradient, ProblemSize
from mpodis.environments.registry import ENGINES, as_built, build_engine
from mpodis.optimise.descend import Budget, Descent
from mpodis.optimise.lbfgs import MEMORY
from mpodis.optimise.metric import CircuitMetric, DecomposedMetric, Metric
from mpodis.optimise.state import State
from mpodis.optimise.unitary import UnitaryLoss
from mpodis.sites import bond_dimensions, identity_tensors

__all__ = ["CircuitDescent", "CircuitTask", "PhaseFreeLoss", "turned"]

ITERATIONS = 5
"""L-BFGS iterations of one record."""
CUTOFF = 1e-3
"""Schmidt values that are dropped, relative to the square root of the loss."""
TIGHTER = 0.1
"""By what cutoffs shrink where the loss turns out to be wrong."""
PAYS = 8.0
"""Steps are taken from the metric from the beginning where one costs at most so many gradients."""
WORTH = 25
"""The metric is decomposed, for many steps, if that takes as long as so many steps at most."""
SLOW = 0.4
"""Otherwise plain L-BFGS comes first, until a record lowers the loss by less than this fraction."""
NEAR = 0.1
"""Loss of a unitary below which sweeps hand over to L-BFGS, also where guesses are compared."""
FAR = 1e-2
"""Loss of a state above which plain L-BFGS finds the same minima as from the metric, and sooner."""
LAST_GAIN = 0.1
"""Part of `Budget.tol` that the last ten iterations alone must gain."""
LEAST = 1e-3
"""The smallest cutoffs, relative to the usual ones."""
OFF = 0.02
"""Relative error of the loss above which cutoffs shrink."""


class PhaseFreeLoss(UnitaryLoss):
    """1 - |c| for a core of norm 1 that stays as it is."""

    def value(self, engine: Environments) -> float:
        """1 - |Re c|: the phase is that of the last gradient step, or of the last sweep."""
        return 1.0 - abs(engine.inner())

    def gradient(self, engine: Environments) -> tuple[float, Gradient]:
        found = engine.gradient()
        side, gates = (found.left, engine.left) if engine.left else (found.right, engine.right)
        k = next(k for k, environment in enumerate(side) if environment is not None)
        c = np.vdot(side[k], gates[k])
        size = abs(c)
        if size > 0:
            along = [e if e is None else e * (c / size) for e in side]
            name = "left" if engine.left else "right"
            found = replace(found, inner=size, **{name: along})
        return 1.0 - float(size), found


def turned(ansatz: Ansatz, gates: Sequence[np.ndarray], phase: float) -> list[np.ndarray]:
    """The gates of a circuit times exp(i phase); times 1 or -1 if they are real."""
    found = [np.asarray(gate) for gate in gates]
    if ansatz.group == "U":
        numbers = next(iter(ansatz.free), [])
        turn = np.exp(1j * phase / max(1, len(numbers)))
    else:
        numbers = next((tied for tied in ansatz.free if len(tied) % 2), [])
        turn = -1.0 if math.cos(phase) < 0 else 1.0
    for k in numbers:
        found[k] = found[k] * turn
    return found


@dataclass(frozen=True, eq=False)
class CircuitTask:
    """A target, and the circuit that is to be found.

    Attributes
    ----------
    tensors : list of arrays (left bond, input, output, right bond)
        The target in the row action, of norm 1.
    legs : tuple of (input, output)
        (2, 2) at every site of a unitary, (1, 2) of a state.
    ansatz : Ansatz
    """

    tensors: list[np.ndarray]
    legs: Legs
    ansatz: Ansatz

    @property
    def on_state(self) -> bool:
        return self.legs[0][0] == 1

    @property
    def sides(self) -> tuple[Ansatz, Ansatz]:
        """Left and right ansatz; a state has its circuit on the right."""
        if self.on_state:
            return Ansatz(0, (), self.ansatz.group), self.ansatz
        return self.ansatz, Ansatz(self.ansatz.n, (), self.ansatz.group)

    def parts(self, gates: Sequence[np.ndarray]) -> tuple[list, list, list]:
        """Left gates, core and right gates, of one dtype."""
        dtype = np.result_type(np.float64, *gates, *self.tensors)
        found = [np.asarray(gate, dtype=dtype) for gate in gates]
        core = [site.astype(dtype) for site in identity_tensors(self.legs)]
        return ([], core, found) if self.on_state else (found, core, [])

    def engine(self, name: str, max_bond: int) -> Environments:
        """The engine of a name."""
        options = EngineOptions(environment_bond=max_bond, identity_core=not self.on_state)
        return build_engine(name, self.tensors, self.legs, *self.sides, options=options)

    def quickest(self, max_bond: int) -> tuple[str, str]:
        """The engine for sweeps and the engine for gradients that are the quickest by estimate.

        The transverse engine gives gradients only: its sweeps, site after site, end in higher
        minima than those of the others.
        """
        options, seconds = self._near(max_bond), {}
        for name in ("dense", "boundary", "transverse"):
            one = ENGINES[name].estimate(self._problem(name, options), options)
            if not one.refused and one.bytes <= options.budget:
                seconds[name] = one.seconds
        sweeping = [name for name in seconds if name != "transverse"]
        if not sweeping:
            raise ValueError("no engine fits the memory; use fewer layers, or a smaller max_bond")
        return min(sweeping, key=seconds.__getitem__), min(seconds, key=seconds.__getitem__)

    @property
    def _size(self) -> ProblemSize:
        bonds, core_bonds = bond_dimensions(self.tensors), (1,) * (len(self.legs) - 1)
        is_complex = self.ansatz.group == "U"
        return ProblemSize(self.legs, *self.sides, bonds, core_bonds, is_complex)

    def _near(self, max_bond: int) -> EngineOptions:
        """Options whose bond dimension is near that of the target, as cutoffs keep it."""
        largest = max(bond_dimensions(self.tensors), default=1)
        return EngineOptions(
            environment_bond=min(max_bond, largest), identity_core=not self.on_state
        )

    def _problem(self, engine: str, options: EngineOptions) -> ProblemSize:
        """The problem as an engine of this name sees it."""
        kind = ENGINES[engine]
        return as_built(kind, self._size, options)

    def seconds(self, engine: str, max_bond: int) -> float:
        """About how long a gradient takes."""
        options = self._near(max_bond)
        return ENGINES[engine].estimate(self._problem(engine, options), options).seconds

    def true_loss(self, gates: Sequence[np.ndarray], max_bond: int) -> LossEstimate:
        """The loss at any size, precise where it is small."""
        return estimate_loss(
            self.tensors,
            self.legs,
            self.sides,
            self.parts(gates),
            max_bond=max_bond,
            rtol=1e-2,
        )


class CircuitDescent(Descent):
    """Lowers the loss of a circuit on any engine, one that truncates included.

    A boundary engine drops Schmidt values in proportion to the square root of the loss, which the
    descent keeps small enough: at its end an independent measurement decides.

    Parameters
    ----------
    task : CircuitTask
    engine : str
        Name of the engine, or "auto" for the quickest one in sweeps, and in L-BFGS.
    max_bond : int
        Of engines that truncate.

    Attributes
    ----------
    is_full : bool
        Whether `max_bond` has truncated the boundaries of the last record.
    compares : bool
        Whether it only tells how good an initial guess is, see `compare`.
    """

    iterations = ITERATIONS
    stops_at_goal = True

    def __init__(self, task: CircuitTask, engine: str, max_bond: int) -> None:
        sweeping, self._for_gradients = (
            task.quickest(max_bond) if engine == "auto" else (engine, engine)
        )
        loss, first = PhaseFreeLoss(task.tensors), task.engine(sweeping, max_bond)
        super().__init__(loss, first, *task.sides, core=False)
        self.task, self._max_bond = task, max_bond
        self._metric: Metric | None = None
        self._is_cheap = False
        if CircuitMetric.fits(task.ansatz):
            metric = CircuitMetric(task.ansatz, on_state=task.on_state)
            is_worth_it = metric.seconds_of_matrix < WORTH * metric.seconds
            self._metric = DecomposedMetric(metric) if is_worth_it else metric
            self._is_cheap = metric.seconds < PAYS * task.seconds(sweeping, max_bond)
            if self._is_cheap and not task.on_state:
                self._use_metric()
        self._share, self._reached = CUTOFF, math.inf
        self.is_full = self.compares = False

    def compare(self) -> None:
        """Only tell how good the initial guess is, by sweeps, and near a unitary by plain L-BFGS.

        On few wires the metric takes up to seventeen times as long as a gradient.
        """
        self.method, self.compares = "sweeps", True
        self._metric = self._lbfgs.metric = None
        self._lbfgs.memory = MEMORY

    def _use_metric(self) -> None:
        assert self._metric is not None
        self._lbfgs.metric, self._lbfgs.damping = self._metric, math.inf
        self._lbfgs.memory = self._metric.memory

    def _go_on_with(self, name: str) -> None:
        """Let another engine go on where this one stands."""
        if name != self.engine.name:
            before, engine = self.engine, self.task.engine(name, self._max_bond)
            engine.set(before.left, before.core, before.right)
            self.engine = self._lbfgs.engine = engine

    def place(self, gates: Sequence[np.ndarray]) -> float:
        """Put the engine at the gates of a circuit, of the best global phase; returns the loss."""
        self._reached = math.inf
        self._follow(1.0)
        self.engine.set(*self.task.parts(self._turned(gates)))
        loss = self.loss.value(self.engine)
        self._follow(loss)
        return loss

    def _turned(self, gates: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The gates with a global phase that makes c real, where the group has such."""
        ansatz, parts = self.task.ansatz, []
        if ansatz.group != "U":
            return list(gates)
        for phase in (0.0, -math.pi / 2):  # the real part of -i c is Im c
            self.engine.set(*self.task.parts(turned(ansatz, gates, phase)))
            parts.append(self.engine.inner())
        return turned(ansatz, gates, -math.atan2(parts[1], parts[0]))

    @property
    def settings(self) -> dict[str, Any]:
        """What the next record depends on beside the state: JSON, and the arrays "origin"."""
        return {
            **(self._metric.standing if self._metric else {"origin": []}),
            "engine": self.engine.name,
            "method": self.method,
            "compares": self.compares,
            "metric": self._lbfgs.metric is not None,
            "damping": self._lbfgs.damping,
            "share": self._share,
            "reached": self._reached,
            "plan": self.engine.plan,
        }

    def restore(self, state: State, settings: dict[str, Any]) -> None:
        """Stand where a state does, with the settings that belong to it."""
        assert state.point is not None
        self._go_on_with(settings["engine"])
        if settings["compares"]:
            self.compare()
        self.method = settings["method"]
        if settings["metric"]:
            self._use_metric()
        if self._metric is not None:
            self._metric.restore(settings)
        self._lbfgs.damping = settings["damping"]
        self._share, self._reached = settings["share"], settings["reached"]
        self.engine.plan = settings["plan"]
        self.engine.set(state.point.left, state.point.core, state.point.right)

    def is_near(self, loss: float) -> bool:
        """Whether a descent from a loss often ends at the target, if that is a unitary."""
        return loss < NEAR and not self.task.on_state

    @property
    def gates(self) -> list[np.ndarray]:
        return list(self.engine.left or self.engine.right)

    def _follow(self, loss: float) -> None:
        """Bond dimensions and cutoffs that suit the present gates, whose loss is given."""
        if not self.engine.exact:
            self._reached = min(self._reached, max(loss, 1e-14))
            self.engine.set_cutoff(max(1e-10, self._share * math.sqrt(self._reached)))

    def _advance(self, state: State, budget: Budget) -> float:
        if state.phase == "lbfgs" or (state.phase == "init" and self.method == "lbfgs"):
            self._go_on_with(self._for_gradients)
        loss = super()._advance(state, budget)
        self.is_full = self.engine.is_full  # forgotten with the bonds
        self._follow(loss)
        return loss

    def _decide(self, state: State, budget: Budget) -> None:
        if self.method == "sweeps" and self.is_near(state.losses[-1]):
            self.method = "auto"
        super()._decide(state, budget)
        if self._needs_metric(state):
            self._use_metric()
            state.status = ""
            return
        if not state.status and state.phase == "lbfgs" and len(state.losses) > 3:
            before, now = state.losses[-3], state.losses[-1]
            if before - now < LAST_GAIN * budget.tol * now:
                state.status = "converged"
        ended = state.status in ("converged", "exact")
        if ended and self._is_off(state.losses[-1], budget.exact):
            self._share *= TIGHTER
            self._reached = math.inf
            self._follow(state.losses[-1])
            state.status = ""

    def _needs_metric(self, state: State) -> bool:
        """Whether L-BFGS, plain so far, goes on from the metric."""
        far = self.task.on_state and state.losses[-1] > FAR
        if self._metric is None or self._lbfgs.metric is not None or far:
            return False
        if state.phase != "lbfgs" or state.status not in ("", "converged"):
            return False
        slow = state.status or state.losses[-2] - state.losses[-1] < SLOW * state.losses[-2]
        return bool(self._is_cheap or (slow and state.records[-1]["phase"] == "lbfgs"))

    def _is_off(self, loss: float, goal: float) -> bool:
        """Whether the boundaries are cut so much that the loss is wrong, and can be cut less."""
        engine = self.engine
        if engine.exact or self._share <= LEAST * CUTOFF:
            return False
        true = self.task.true_loss(self.gates, 2 * self._max_bond).up_to_phase
        return true > 2 * goal and abs(true - loss) > OFF * true
