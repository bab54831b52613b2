"""Factorizations by their CNOTs and their loss: points, and the Pareto front that they make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isnan

import numpy as np

from mpodis.factorization import (
    Factorization,
    circuit_arrays,
    circuit_from_arrays,
    dump_ansatz,
    load_ansatz,
)
from mpodis.sites import mpo_from_tensors, site_tensors
from mpodis.tables import Table, Tabular

__all__ = [
    "ParetoFront",
    "ParetoPoint",
    "points_from_arrays",
    "points_to_arrays",
    "undominated",
]

FIGURES = ("cnots", "family", "loss", "overlap", "bound", "activation_error")


@dataclass(frozen=True, eq=False)
class ParetoPoint:
    """A factorization, its CNOTs and its errors.

    Attributes
    ----------
    cnots : int
        Of both circuits, see `cnot_count`.
    family : str
        How it was found.
    loss : float
        The objective: 1 - f, or the squared relative error of the activations.
    overlap, bound : float
        f, and the von Neumann bound for this core.
    activation_error : float
        |X M - X Q_L M' Q_R| / |X M|; NaN where the inputs are not known.
    factorization : Factorization
    """

    cnots: int
    family: str
    loss: float
    overlap: float
    bound: float
    activation_error: float
    factorization: Factorization

    def to_dict(self) -> dict[str, object]:
        """All but the factorization, ready for JSON."""
        return {name: getattr(self, name) for name in FIGURES}


@dataclass(frozen=True, eq=False)
class ParetoFront(Tabular):
    """Factorizations of one operator, compared by their CNOTs and their loss.

    Attributes
    ----------
    points : tuple of ParetoPoint
        All of them, the dominated ones included.
    objective : {"overlap", "activations"}
        What was optimised; its loss decides which of two points is better.
    """

    points: tuple[ParetoPoint, ...]
    objective: str

    @cached_property
    def front(self) -> tuple[ParetoPoint, ...]:
        """The points that no other one dominates, by their CNOTs."""
        return tuple(undominated(self.points))

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(point.family for point in self.points))

    def is_dominated(self, point: ParetoPoint) -> bool:
        """Whether another point has no more CNOTs and no larger loss."""
        return all(point is not one for one in self.front)

    def at(self, cnots: int, *, family: str | None = None) -> ParetoPoint | None:
        """The best point with at most so many CNOTs, of all or of one family; None if none has."""
        allowed = [p for p in self.points if p.cnots <= cnots and family in (None, p.family)]
        return min(allowed, key=lambda p: (p.loss, p.cnots), default=None)

    def to_dict(self) -> dict[str, object]:
        """Figures of all points, ready for JSON."""
        rows = [p.to_dict() | {"dominated": self.is_dominated(p)} for p in self.points]
        return {"objective": self.objective, "points": rows}

    def table(self) -> Table:
        with_inputs = not all(isnan(p.activation_error) for p in self.front)
        columns = [
            "CNOTs",
            "overlap f",
            "bound",
            *(["act. error"] if with_inputs else []),
            "family",
        ]
        rows = [
            (
                str(p.cnots),
                p.overlap,
                p.bound,
                *([p.activation_error] if with_inputs else []),
                p.family,
            )
            for p in self.front
        ]
        counts = (
            f"{name} {sum(p.family == name for p in self.front)} of "
            f"{sum(p.family == name for p in self.points)}"
            for name in self.families
        )
        return Table(
            columns, rows, title="Pareto front", notes=(f"on the front: {', '.join(counts)}",)
        )


def undominated(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """The points that no other one dominates in CNOTs and loss, by their CNOTs."""
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda p: (p.cnots, p.loss)):
        if not kept or point.loss < kept[-1].loss:
            kept.append(point)
    return kept


def points_to_arrays(points: Sequence[ParetoPoint]) -> tuple[dict[str, np.ndarray], list[dict]]:
    """Gates and cores of points as named arrays, and the rest of each point, ready for JSON."""
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for k, point in enumerate(points):
        given = point.factorization
        ansatze = {}
        for side, circuit in (("left", given.left), ("right", given.right)):
            arrays |= circuit_arrays(f"{k}.{side}", circuit)
            ansatze[side] = dump_ansatz(circuit.ansatz)
        arrays |= {f"{k}.core.{i}": tensor for i, tensor in enumerate(site_tensors(given.core))}
        rows.append(point.to_dict() | ansatze | {"shape": given.shape, "sites": len(given.legs)})
    return arrays, rows


def points_from_arrays(arrays: dict[str, np.ndarray], rows: Sequence[dict]) -> list[ParetoPoint]:
    """The points that `points_to_arrays` described."""
    points = []
    for k, row in enumerate(rows):
        left, right = (
            circuit_from_arrays(f"{k}.{side}", load_ansatz(row[side]), arrays)
            for side in ("left", "right")
        )
        core = mpo_from_tensors([arrays[f"{k}.core.{i}"] for i in range(row["sites"])])
        factorization = Factorization(left, core, right, (row["shape"][0], row["shape"][1]))
        figures = {name: row[name] for name in FIGURES}
        points.append(ParetoPoint(**figures, factorization=factorization))
    return points
