"""The result: points of several families, and the front that they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from mpodis.resynthesis.points import ParetoPoint, undominated
from mpodis.tables import Table, Tabular

__all__ = ["ParetoFront"]


@dataclass(frozen=True, eq=False)
class ParetoFront(Tabular):
    """Factorizations of one operator by what they cost and how good they are.

    Attributes
    ----------
    points : tuple of ParetoPoint
        All, the dominated ones too.
    objective : {"overlap", "activations"}
        What they were made for, and by which one point is better than another.
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
        """The best point with up to so many CNOTs, of all or of one family; None without any."""
        fitting = [p for p in self.points if p.cnots <= cnots and family in (None, p.family)]
        return min(fitting, key=lambda p: (p.loss, p.cnots), default=None)

    def to_dict(self) -> dict[str, object]:
        """Figures of all points, ready for JSON."""
        rows = [p.to_dict() | {"dominated": self.is_dominated(p)} for p in self.points]
        return {"objective": self.objective, "points": rows}

    def table(self) -> Table:
        felt = self.objective == "activations"
        columns = ["CNOTs", "overlap f", "bound", *(["act. error"] if felt else []), "family"]
        rows = [
            (
                str(p.cnots),
                p.overlap,
                p.bound,
                *([p.activation_error] if felt else []),
                p.family,
            )
            for p in self.front
        ]
        counts = {name: sum(p.family == name for p in self.points) for name in self.families}
        kept = {name: sum(p.family == name for p in self.front) for name in self.families}
        parts = (f"{name} {kept[name]} of {counts[name]}" for name in counts)
        return Table(
            columns, rows, title="Pareto front", notes=(f"on the front: {', '.join(parts)}",)
        )
