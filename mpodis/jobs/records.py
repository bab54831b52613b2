"""What both jobs record of a run, ready for JSON, and the table of its gates."""

from __future__ import annotations

from mpodis.factorization import Factorization
from mpodis.optimise.result import Disentangled
from mpodis.tables import Table

__all__ = ["costs", "gates_table", "trajectory"]

COLUMNS = (
    "sweep",
    "phase",
    "loss",
    "overlap",
    "true_overlap",
    "environment_bond",
    "bound",
    "s_avg",
    "activations",
    "seconds",
)


def trajectory(found: Disentangled) -> dict:
    """Entropies that are left, and the history of the start that won."""
    history = {name: found.path(name).tolist() for name in COLUMNS}
    history["sweep"] = list(range(len(history["loss"])))
    return {"entropies": found.entropies_after.tolist(), "history": history}


def costs(factorization: Factorization, seed: int) -> dict:
    """Gates of one gate, each side and both, logical and, where it is installed, FakeMontreal."""
    from mpodis.quantum import cost_table  # to print records takes no qiskit

    try:
        return cost_table(factorization, seed=seed).to_dict()
    except ImportError as missing:
        table = cost_table(factorization, backends=("logical",), seed=seed)
        return table.to_dict() | {"note": str(missing)}


def gates_table(found: dict, what: str) -> Table:
    """The table of `costs`."""
    names = ("part", "backend", "optimization_level", "one_qubit", "two_qubit", "depth")
    return Table(
        ("part", "backend", "level", "1-qubit", "2-qubit", "depth"),
        [tuple(row[name] for name in names) for row in found["rows"]],
        title=f"gates after transpilation: {what}",
        notes=(found["note"],) if "note" in found else (),
    )
