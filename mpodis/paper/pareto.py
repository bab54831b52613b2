"""Overlap against CNOTs: how few a given operator needs, and which kind of circuits needs least.

For the MPO layer of every network all families of `mpodis.pareto` are tried: brickwalls of SO(4)
gates (2 CNOTs each) and of O(4) gates (3 where the determinant is -1), CNOT scaffolds with
one-qubit gates between, CNOTs alone, brickwalls with gates taken out one by one, and the search
over where gates stand. Some circuits of every front are transpiled, to check the count.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from matplotlib.axes import Axes

from mpodis.factorization import Factorization
from mpodis.jobs.pareto_page import best_within
from mpodis.jobs.records import spread
from mpodis.measures import second_moment
from mpodis.nn import layer_inputs
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import dataset, network
from mpodis.plots import plot_pareto
from mpodis.quantum import BACKENDS, gate_cost
from mpodis.resynthesis import FAMILIES, ParetoFront, pareto
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]


@dataclass(frozen=True)
class Pareto(Options):
    """Effort of `mpodis.pareto`; `budgets` are the numbers of CNOTs that the table names."""

    objective: str = "overlap"
    core_bond: int = 1
    depths: tuple[int, ...] = (1, 2, 4, 8)
    families: tuple[str, ...] = FAMILIES
    starts: int = 4
    rounds: int = 2
    trials: int = 3
    max_sweeps: int = 100
    budgets: tuple[int, ...] = (4, 8, 12, 16, 20, 30, 40, 60, 80)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or min(self.budgets) < 0:
            raise ValueError(f"budgets={self.budgets} must be numbers of CNOTs, 0 or more")


EFFORT = ("objective", "depths", "families", "rounds", "trials", "max_sweeps")


def pieces(options: Pareto) -> list[Piece]:
    effort = {name: getattr(options, name) for name in EFFORT}
    effort |= {"max_bond": options.core_bond, "n_init": options.starts}
    effort = {k: list(v) if isinstance(v, tuple) else v for k, v in effort.items()}
    same = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    return [
        Piece(f"seed{seed}", _front, same | {"seed": seed, "effort": effort})
        for seed in options.range
    ]


def _front(*, data: str, data_dir: str | None, networks: str, seed: int, effort: dict) -> dict:
    model = network(data, networks, seed)
    inputs = layer_inputs(model, "mpo", dataset(data, data_dir).x_train)
    covariance = second_moment(inputs)
    found = pareto(model.mpo.to_mpo(), covariance=covariance, seed=seed, **effort)
    return {"seed": seed, **found.to_dict(), "transpiled": _transpiled(found, seed)}


def _transpiled(found: ParetoFront, seed: int) -> list[dict]:
    """CNOTs as counted and as transpiled, of the middle and the end of the front."""
    chosen = dict.fromkeys((found.front[len(found.front) // 2], found.front[-1]))
    rows = []
    for point in chosen:
        counts = {name: _cost(point.factorization, name, seed) for name in BACKENDS}
        rows.append({"cnots": point.cnots, **counts})
    return rows


def _cost(given: Factorization, backend: str, seed: int) -> int | None:
    """Two-qubit gates of both circuits; None where the backend is not installed."""
    try:
        return sum(
            gate_cost(side, backend=backend, seed=seed).two_qubit
            for side in (given.left, given.right)
        )
    except ImportError:
        return None


def _value(record: dict) -> tuple[str, str]:
    """Which figure the objective is about, and what it is called."""
    if record["options"]["objective"] == "overlap":
        return "overlap", "overlap f"
    return "activation_error", "relative error of the activations"


def _best(record: dict, cnots: int, family: str | None = None) -> list[float]:
    """The figure of every network with up to so many CNOTs, where the family has any."""
    value = _value(record)[0]
    found = (best_within(row["points"], cnots, value, family) for row in record["pieces"].values())
    return [x for x in found if x is not None]


def _shares(record: dict, family: str = "SO(4)") -> list[tuple[int, int]]:
    """CNOTs of every brickwall, and the fewest with which the front is as good."""
    pairs = []
    for row in record["pieces"].values():
        points = row["points"]
        front = [p for p in points if not p["dominated"]]
        for wall in (p for p in points if p["family"] == family and p["cnots"]):
            as_good = [p["cnots"] for p in front if p["loss"] <= wall["loss"]]
            pairs.append((wall["cnots"], min(as_good)))
    return pairs


def tables(record: dict) -> list[Table]:
    families = record["options"]["families"]
    rows = []
    for cnots in record["options"]["budgets"]:
        cells = [_best(record, cnots, family) for family in (None, *families)]
        rows.append((str(cnots), *(spread(x) if x else None for x in cells)))
    found = [
        Table(
            ("CNOTs", "front", *families),
            rows,
            title=f"{_value(record)[1]} with up to so many CNOTs, median (least to most)",
            notes=("SO(4) stands for brickwalls of free gates, 2 CNOTs each",),
        )
    ]
    by_wall: dict[int, list[int]] = {}
    for wall, front in _shares(record):
        by_wall.setdefault(wall, []).append(front)
    if by_wall:
        rows = [
            (str(wall), len(front), spread(front, 0), spread([x / wall for x in front], 2))
            for wall, front in sorted(by_wall.items())
        ]
        columns = ("CNOTs of the brickwall", "networks", "of the front", "share")
        title = "CNOTs for what an SO(4) brickwall reaches, median (least to most)"
        found.append(Table(columns, rows, title=title))
    rows = [
        (str(row["seed"]), one["cnots"], *(one[name] for name in BACKENDS))
        for row in record["pieces"].values()
        for one in row["transpiled"]
    ]
    title = "two-qubit gates as counted and after transpilation"
    return [*found, Table(("seed", "counted", *BACKENDS), rows, title=title)]


def _draw_one(record: dict, ax: Axes) -> Axes:
    row = next(iter(record["pieces"].values()))
    return plot_pareto(row["points"], value=_value(record)[0], ax=ax)


def _draw_all(record: dict, ax: Axes) -> Axes:
    rows = record["pieces"].values()
    most = max(p["cnots"] for row in rows for p in row["points"])
    for k, family in enumerate((*record["options"]["families"], None)):
        curve = [(n, _best(record, n, family)) for n in range(most + 1)]
        full = [(n, median(x)) for n, x in curve if len(x) == len(rows)]
        where, values = zip(*full, strict=True) if full else ((), ())
        colour, width = (f"C{k}", None) if family else ("k", 2)
        ax.step(where, values, where="post", label=family or "front", color=colour, lw=width)
    ax.set(xlabel="CNOTs of both circuits", ylabel=f"{_value(record)[1]}, median")
    ax.legend(fontsize="x-small")
    return ax


def finding(record: dict) -> str:
    budgets, families = record["options"]["budgets"], record["options"]["families"]
    name = _value(record)[1]
    cnots = budgets[len(budgets) // 2]
    parts = [
        f"{median(x):.3f} with {family}"
        for family in families
        if (x := _best(record, cnots, family))
    ]
    text = (
        f"Up to {cnots} CNOTs give a median {name} of {median(_best(record, cnots)):.3f} over "
        f"{len(record['seeds'])} networks when all kinds of circuits are tried; "
        f"of single kinds: {', '.join(parts)}."
    )
    pairs = _shares(record)
    if pairs:
        share = spread([front / wall for wall, front in pairs], 2)
        text += (
            f" What a brickwall of SO(4) gates reaches the front reaches with a share of {share} "
            "of its CNOTs, median (least to most) over all depths and networks."
        )
    walls = {family: _best(record, cnots, family) for family in ("SO(4)", "O(4)")}
    if all(walls.values()):
        pairs = list(zip(*walls.values(), strict=True))
        sign = 1 if _value(record)[0] == "overlap" else -1
        ahead = [sum(sign * (a - b) > 1e-3 for a, b in pairs)]
        ahead.append(sum(sign * (b - a) > 1e-3 for a, b in pairs))
        text += (
            f" At these CNOTs SO(4) is ahead of O(4) by more than .001 for {ahead[0]} and behind "
            f"for {ahead[1]} of {len(pairs)} networks."
        )
    return text + _checked(record)


def _checked(record: dict) -> str:
    """Whether transpilation agrees with the count."""
    rows = [one for row in record["pieces"].values() for one in row["transpiled"]]
    parts = []
    for name in BACKENDS:
        counts = [(one["cnots"], one[name]) for one in rows if one[name] is not None]
        if counts:
            same = sum(a == b for a, b in counts)
            parts.append(f"{same} of {len(counts)} circuits on {name}")
    return f" The count is that of the transpiler for {' and '.join(parts)}."


EXPERIMENT = Experiment(
    name="pareto",
    title="Fewest CNOTs: overlap against hardware CNOTs",
    options=Pareto,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel("front", "All circuits of the first network; those dominated are faint.", _draw_one),
        Panel("families", "Best of every family with so many CNOTs, median.", _draw_all),
    ),
)
