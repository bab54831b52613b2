"""Points of a front, and files of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mpodis.factorization import (
    Factorization,
    circuit_arrays,
    circuit_from_arrays,
    dump_ansatz,
    load_ansatz,
)
from mpodis.files import load_arrays, save_arrays
from mpodis.sites import mpo_from_tensors, site_tensors

__all__ = ["ParetoPoint", "load_points", "save_points", "undominated"]

FIGURES = ("cnots", "family", "loss", "overlap", "bound", "activation_error")


@dataclass(frozen=True, eq=False)
class ParetoPoint:
    """A factorization, what it costs and how good it is.

    Attributes
    ----------
    cnots : int
        Of both circuits, see `cnot_count`.
    family : str
        How it was found.
    loss : float
        The objective: 1 - f, or the squared relative error of the activations.
    overlap, bound : float
        f, and the von Neumann bound of this core.
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


def undominated(points: Iterable[ParetoPoint]) -> list[ParetoPoint]:
    """Those to which no other is preferable in CNOTs and loss, in the order of their CNOTs."""
    kept: list[ParetoPoint] = []
    for point in sorted(points, key=lambda p: (p.cnots, p.loss)):
        if not kept or point.loss < kept[-1].loss:
            kept.append(point)
    return kept


def save_points(path: str | os.PathLike, points: Sequence[ParetoPoint], **notes) -> None:
    """Write points, and notes for JSON beside them, as one safetensors file, atomically."""
    arrays, rows = {}, []
    for k, point in enumerate(points):
        given = point.factorization
        for side in ("left", "right"):
            arrays |= circuit_arrays(f"{k}.{side}", getattr(given, side))
        arrays |= {f"{k}.core.{i}": core for i, core in enumerate(site_tensors(given.core))}
        ansatze = {side: dump_ansatz(getattr(given, side).ansatz) for side in ("left", "right")}
        rows.append(point.to_dict() | ansatze | {"shape": given.shape})
    header = {"points": json.dumps(rows), "notes": json.dumps(notes)}
    save_arrays(path, arrays, metadata=header)


def load_points(path: str | os.PathLike) -> tuple[list[ParetoPoint], dict]:
    """Read what `save_points` wrote: points and notes."""
    arrays, header = load_arrays(path)
    points = []
    for k, row in enumerate(json.loads(header["points"])):
        sites = sum(name.startswith(f"{k}.core.") for name in arrays)
        left, right = (
            circuit_from_arrays(f"{k}.{side}", load_ansatz(row[side]), arrays)
            for side in ("left", "right")
        )
        core = mpo_from_tensors([arrays[f"{k}.core.{i}"] for i in range(sites)])
        factorization = Factorization(left, core, right, tuple(row["shape"]))
        points.append(ParetoPoint(*(row[name] for name in FIGURES), factorization))
    return points, json.loads(header["notes"])
