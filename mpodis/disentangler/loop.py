"""The loop over starts and sweeps, as a state machine that can stop and go on anywhere.

Its whole state between two sweeps is arrays and a few numbers (`Loop.state`), and every sweep is
a function of that state alone. That is what makes a killed run end at the same gates.
"""

from __future__ import annotations

import math
import time
from functools import partial

import numpy as np

from mpodis.circuit import Circuit
from mpodis.conventions import crop, padded_shape, split
from mpodis.disentangler.objectives import Activations, Overlap
from mpodis.disentangler.polish import Lbfgs
from mpodis.disentangler.problem import Problem
from mpodis.disentangler.result import Disentangled, History
from mpodis.disentangler.settings import Settings
from mpodis.disentangler.starts import first_core, place_start
from mpodis.environments import ENGINES
from mpodis.environments.dense import LIMIT
from mpodis.factorization import Factorization, dense_overlap, sandwich
from mpodis.gates import polar
from mpodis.measures import (
    bond_spectra,
    entropy,
    singular_values,
    spectral_bound,
    tensor_entropies,
)
from mpodis.sites import cores_to_dense, left_canonical, mpo_from_cores, spread_norm

__all__ = ["Loop"]

ITERATIONS = 10
"""L-BFGS iterations that count as one sweep."""
WINDOW = 10
"""Sweeps over which convergence is judged."""
CRAWL = 0.05
"""A sweep that lowers the loss by less than this fraction hands over to L-BFGS."""
EXACT = 1e-13
"""A loss at rounding."""
MEASURED = 2**8
"""Dimension up to which bound and entropies are measured in every sweep."""
DECOMPOSED = 2**11
"""Dimension up to which the result has them; the SVDs take minutes above."""


class Loop:
    """Runs a problem under its settings, sweep by sweep.

    Attributes
    ----------
    records : list of dict
        The history so far, see `History`.
    status : str or None
        How it ended; None while it goes on.
    """

    def __init__(self, problem: Problem, settings: Settings) -> None:
        self.problem, self.settings = problem, settings
        cores, self._log_norm = left_canonical(problem.cores)
        self._unit = spread_norm(cores, 0.0)
        if settings.objective == "overlap" and problem.sensitivity is not None:
            raise ValueError("sensitivity= weighs the activations; use objective='activations'")
        self.objective = (
            Overlap(self._unit)
            if settings.objective == "overlap"
            else Activations(self._unit, *self._moments())
        )
        engine = ENGINES[settings.engine]
        self.engine = engine(self.objective.target, problem.legs, problem.left, problem.right)
        self._dense = max(padded_shape(problem.legs)) <= LIMIT
        self._small = max(padded_shape(problem.legs)) <= MEASURED
        self._matrix = cores_to_dense(self._unit) if self._dense else None
        self._values = singular_values(self._matrix) if self._small else None
        self._answers = self._answer(self._matrix)
        if problem.covariance is not None:
            rounding = 1e-14 * math.sqrt(np.abs(problem.covariance).max())
            self._answers = self._answers if self._answers > rounding else math.nan
        self._lbfgs = Lbfgs(
            self.objective,
            self.engine,
            problem.left,
            problem.right,
            free_core=settings.core == "update",
        )
        self._first = first_core(self._unit, settings)
        self.records: list[dict] = []
        self.status: str | None = None
        self._number, self._refining = 0, settings.starts == 1
        self._phase, self._elapsed = "", 0.0
        self._best: dict | None = None
        self._best_point: dict[str, np.ndarray] = {}

    def _moments(self) -> tuple:
        """Second moments of the inputs and of the gradients at the outputs."""
        if self.problem.covariance is None:
            raise ValueError(
                "objective='activations' needs to know the layer's inputs; give inputs= (samples, "
                "features) or covariance=, their second moment"
            )
        sensitivity = self.problem.sensitivity
        if sensitivity is None and self.problem.shape[1] < padded_shape(self.problem.legs)[1]:
            sensitivity = np.eye(self.problem.shape[1])  # nobody sees the outputs that are cropped
        groups = {self.problem.left.group, self.problem.right.group}
        if "U" in groups or any(core.dtype.kind == "c" for core in self.problem.cores):
            return self.problem.covariance, sensitivity
        # a real error feels only the real part, and the core shall stay real
        return self.problem.covariance.real, None if sensitivity is None else sensitivity.real

    def step(self) -> dict:
        """Do one sweep, of whichever start is next; returns its record."""
        began = time.perf_counter()
        loss = self._advance()
        self._elapsed += time.perf_counter() - began
        record = self._measure(loss)
        self.records.append(record)
        self._decide(record)
        return record

    def _advance(self) -> float:
        if not self._phase:
            place_start(
                self._number,
                self.engine,
                self.objective,
                self.problem.left,
                self.problem.right,
                self._first,
                self.settings,
            )
            self._lbfgs.forget()
            self._phase = "start"
            return self.objective.loss(self.engine)
        if self._phase == "start":
            # where one side has no closed form, sweeps alone would run into a corner
            whole = len(self.objective.polar_sides) == 2
            sweeps = self.settings.method == "sweeps" or (self.settings.method == "auto" and whole)
            self._phase = "sweep" if sweeps else "lbfgs"
        if self._phase == "lbfgs":
            return self._lbfgs.run(ITERATIONS)
        return self._sweep()

    def _sweep(self) -> float:
        """All closed forms once: gates of both sides, then the core."""
        groups = {"left": self.problem.left.group, "right": self.problem.right.group}
        for side in self.objective.polar_sides:
            self.engine.sweep(side, partial(_polar_update, group=groups[side]))
        if self.settings.core == "update":
            kept, loss = self.engine.core, self.objective.loss(self.engine)
            self.engine.core = self.objective.best_core(self.engine)
            if self.objective.loss(self.engine) > loss:
                self.engine.core = kept  # at convergence, by rounding
        self.engine.core = self.objective.scaled(self.engine)
        return self.objective.loss(self.engine)

    def _decide(self, record: dict) -> None:
        """What comes next: the same, L-BFGS, another start, or the end."""
        losses = [r["loss"] for r in self.records if r["start"] == self._number]
        sweeps, loss = len(losses) - 1, losses[-1]
        gain = losses[-2] - loss if sweeps else math.inf
        if loss <= EXACT:
            return self._end("exact")
        limit = self._at_limit()
        if limit == "max_seconds":
            return self._end(limit)
        if limit == "max_sweeps":
            return self._next(limit)
        slow = sweeps >= WINDOW and losses[-1 - WINDOW] - loss < self.settings.tol * losses[-1]
        if self._phase == "sweep" and self.settings.method == "auto":
            if slow and record["phase"] == "sweep" and self._was("lbfgs"):
                return self._next("converged")
            if gain < CRAWL * loss:
                self._phase = "lbfgs"
                self._lbfgs.forget()
        elif slow:
            if self.settings.method != "auto":
                return self._next("converged")
            self._phase = "sweep"  # do the closed forms still find something?
        if not self._refining and sweeps >= self.settings.explore:
            self._next("explored")

    def _at_limit(self) -> str:
        """The limit that the present start has reached, or nothing."""
        settings = self.settings
        if settings.max_seconds is not None and self._elapsed >= settings.max_seconds:
            return "max_seconds"
        done = sum(r["start"] == self._number for r in self.records) - 1
        return "max_sweeps" if done >= settings.max_sweeps else ""

    def _was(self, phase: str) -> bool:
        mine = [r for r in self.records if r["start"] == self._number]
        return any(r["phase"] == phase for r in mine)

    def _next(self, status: str) -> None:
        """End the present start; go on with the next one, with the best one, or not at all."""
        if self._refining:
            return self._end(status)
        self._keep_if_best(status)
        if self._number + 1 < self.settings.starts:
            self._number, self._phase = self._number + 1, ""
            return None
        self._refining = True
        ended = self._return_to_best()
        return None if ended == "explored" else self._end(ended)

    def _keep_if_best(self, status: str) -> None:
        loss = self.records[-1]["loss"]
        if self._best is None or loss < self._best["loss"]:
            self._best = {
                "number": self._number,
                "loss": loss,
                "phase": self._phase,
                "status": status,
            }
            self._best_point = self._point()

    def _return_to_best(self) -> str:
        self._number, self._phase = self._best["number"], self._best["phase"]
        self._restore(self._best_point)
        return self._best["status"]

    def _end(self, status: str) -> None:
        if not self._refining:
            # stopped while exploring: an earlier start may be the better one
            self._keep_if_best(status)
            self._return_to_best()
        self.status = status

    def _measure(self, loss: float) -> dict:
        """The record of the sweep just done; figures that the size does not allow are NaN."""
        bound = s_avg = overlap = felt = math.nan
        if self.settings.objective == "overlap":
            overlap = 1.0 - loss
        if self._small:
            bound = spectral_bound(self._values, singular_values(self.engine.core))
            s_avg = self._entropies_left().mean() if len(self.problem.legs) > 1 else 0.0
        if self._dense and (self.settings.objective == "activations" or self._small):
            dense = self._dense_product(self.objective.scaled(self.engine))
            overlap = dense_overlap(self._matrix, dense)
            felt = self._felt(dense)
        return {
            "start": self._number,
            "sweep": sum(r["start"] == self._number for r in self.records),
            "phase": self._phase,
            "loss": float(loss),
            "overlap": float(overlap),
            "bound": float(bound),
            "s_avg": float(s_avg),
            "activations": felt,
            "seconds": self._elapsed,
        }

    def _answer(self, matrix) -> float:
        """|X matrix|, the matrix cropped as the layer uses it; NaN where X is not known."""
        if self.problem.covariance is None or matrix is None:
            return math.nan
        x = crop(matrix, self.problem.shape)
        return math.sqrt(max(0.0, float(np.vdot(x, self.problem.covariance @ x).real)))

    def _felt(self, dense) -> float:
        """Relative error of the activations; NaN where the layer answers none of the inputs."""
        return self._answer(self._matrix - dense) / self._answers

    def _entropies_left(self) -> np.ndarray:
        """S_k of Q_L^H M Q_R^H, the entanglement that the circuits leave."""
        left, right = (circuit.adjoint() for circuit in self._circuits())
        return tensor_entropies(split(sandwich(left, self._matrix, right), self.problem.legs))

    def _dense_product(self, core):
        left, right = self._circuits()
        return sandwich(left, cores_to_dense(core), right)

    def _circuits(self) -> tuple[Circuit, Circuit]:
        return (
            Circuit(self.problem.left, tuple(self.engine.left)),
            Circuit(self.problem.right, tuple(self.engine.right)),
        )

    def result(self) -> Disentangled:
        """The factorization where the loop stands, its gates put exactly onto their group."""
        circuits = [circuit.projected() for circuit in self._circuits()]
        self.engine.set(circuits[0].gates, self.engine.core, circuits[1].gates)
        core = self.objective.scaled(self.engine)
        self.engine.core = core
        overlap = 1.0 - Overlap(self._unit).loss(self._plain_engine())
        bound = felt = error = math.nan
        spectra = bond_spectra(mpo_from_cores(self._unit))
        before = np.array([entropy(spectrum) for spectrum in spectra])
        after = np.full(len(spectra), math.nan)
        if max(padded_shape(self.problem.legs)) <= DECOMPOSED:
            bound = spectral_bound(singular_values(self._matrix), singular_values(core))
            after = self._entropies_left()
        if self._dense:
            dense = self._dense_product(core)
            felt = self._felt(dense)
            target, cropped = (crop(x, self.problem.shape) for x in (self._matrix, dense))
            error = float(np.linalg.norm(target - cropped) / np.linalg.norm(target))
        core = spread_norm(left_canonical(core)[0], left_canonical(core)[1] + self._log_norm)
        return Disentangled(
            Factorization(circuits[0], mpo_from_cores(core), circuits[1], self.problem.shape),
            self.status or "max_sweeps",
            History(tuple(self.records)),
            self.settings,
            self._number,
            self.objective.loss(self.engine),
            overlap,
            bound,
            error,
            felt,
            before,
            after,
            self._elapsed,
        )

    def _plain_engine(self):
        """An engine whose linear form is that of the overlap, at the present point."""
        if self.settings.objective == "overlap":
            return self.engine
        engine = ENGINES[self.settings.engine](
            self._unit, self.problem.legs, self.problem.left, self.problem.right
        )
        engine.set(self.engine.left, self.engine.core, self.engine.right)
        return engine

    def _point(self) -> dict[str, np.ndarray]:
        """Everything that the next sweep depends on, as named arrays."""
        parts = {
            "left": self.engine.left,
            "core": self.engine.core,
            "right": self.engine.right,
            "steps": self._lbfgs.steps,
            "differences": self._lbfgs.differences,
        }
        return {f"{name}.{k}": x.copy() for name, xs in parts.items() for k, x in enumerate(xs)}

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        def part(name: str) -> list:
            count = sum(key.startswith(f"{name}.") for key in arrays)
            return [arrays[f"{name}.{k}"] for k in range(count)]

        self.engine.set(part("left"), part("core"), part("right"))
        self._lbfgs.steps, self._lbfgs.differences = part("steps"), part("differences")

    def state(self) -> tuple[dict[str, np.ndarray], dict]:
        """Arrays and numbers from which `load` goes on exactly."""
        arrays = self._point() if self._phase else {}
        if self._best is not None:
            arrays |= {f"best.{name}": array for name, array in self._best_point.items()}
        numbers = {
            "number": self._number,
            "refining": self._refining,
            "phase": self._phase,
            "elapsed": self._elapsed,
            "best": self._best,
            "status": self.status,
            "records": len(self.records),
        }
        return arrays, numbers

    def load(self, arrays: dict[str, np.ndarray], numbers: dict, records: list[dict]) -> None:
        """Take over a `state` and the history that belongs to it."""
        self._number, self._refining = numbers["number"], numbers["refining"]
        self._phase, self._elapsed = numbers["phase"], numbers["elapsed"]
        self._best, self.status, self.records = numbers["best"], numbers["status"], list(records)
        kept = {k.removeprefix("best."): v for k, v in arrays.items() if k.startswith("best.")}
        if kept:
            self._best_point = kept
        if self._phase:
            self._restore({k: v for k, v in arrays.items() if not k.startswith("best.")})
        if self.status in ("max_sweeps", "max_seconds") and not self._at_limit():
            self.status = None  # a limit that was raised since lets the run go on
            self._refining = True


def _polar_update(environment, gate, *, group: str):
    # a real gate feels only the real part of a complex environment
    return polar(environment if gate.dtype.kind == "c" else environment.real, group=group)
