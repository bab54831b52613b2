"""Bond dimension of the core: what it buys, and whether a detour over larger ones pays.

A larger core M' makes up for gates and costs classical parameters. For every depth, cores of
ascending bond dimension chi' from near-identity gates each ("scratch"), each from the result
before ("up"), and back again from the largest ("down"). What the way up and down reaches at the
least chi' is held against as many runs from scratch ("restarts"), and all against the MPO
truncated without any gates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise, product
from statistics import median

from matplotlib.axes import Axes

from mpodis.disentangling import disentangle
from mpodis.measures import entanglement
from mpodis.mpo import compress
from mpodis.optimise.result import Disentangled
from mpodis.paper.base import Experiment, Options, Panel, Piece
from mpodis.paper.layers import TrainedLayer, trained_layer
from mpodis.structured import truncated_mpo
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

LAYERS = {"tnn": "trained MPO", "compressed": "dense layer, compressed and healed"}
OBJECTIVES = {"overlap": "1 - f", "activations": "squared error of the activations"}
MARGIN = 0.01
"""By how much of it a loss must be lower to count as lower."""
ROUTES = ("scratch", "up", "down", "restarts")


@dataclass(frozen=True)
class Cores(Options):
    """Bonds and depths, and how hard every run searches.

    Attributes
    ----------
    tnn_bond, compress_bond : int
        Bond dimensions of the two operators.
    core_bonds : tuple of int
        chi', ascending; of each operator those below its own.
    depths, objectives
    starts, explore, max_sweeps : int
        See `disentangle`.
    """

    seeds: int = 3
    tnn_bond: int = 4
    compress_bond: int = 8
    core_bonds: tuple[int, ...] = (1, 2, 4, 8)
    depths: tuple[int, ...] = (2, 4, 8)
    objectives: tuple[str, ...] = tuple(OBJECTIVES)
    starts: int = 2
    explore: int = 10
    max_sweeps: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.core_bonds) != sorted(set(self.core_bonds)):
            raise ValueError(f"core_bonds={self.core_bonds} must ascend; write for example 1,2,4")
        least = min(self.tnn_bond, self.compress_bond)
        if not self.core_bonds or self.core_bonds[0] >= least:
            raise ValueError(
                f"core_bonds={self.core_bonds} must begin below tnn_bond and compress_bond, "
                f"of which the lower is {least}"
            )
        for objective in self.objectives:
            if objective not in OBJECTIVES:
                raise ValueError(
                    f"objectives holds {objective!r}; use one of {', '.join(OBJECTIVES)}"
                )

    def bond(self, layer: str) -> int:
        """Of the layer's MPO."""
        return self.tnn_bond if layer == "tnn" else self.compress_bond


def pieces(options: Cores) -> list[Piece]:
    where = {"data": options.data, "data_dir": options.data_dir, "networks": options.networks}
    search = {name: getattr(options, name) for name in ("starts", "explore", "max_sweeps")}
    found = []
    for layer in LAYERS:
        bond = options.bond(layer)
        core_bonds = [core_bond for core_bond in options.core_bonds if core_bond < bond]
        for seed in options.range:
            same = {"layer": layer, "seed": seed, "bond": bond, "core_bonds": core_bonds, **where}
            found.append(Piece(f"{layer}-seed{seed}", _plain, same))
            for objective in options.objectives:
                for depth in options.depths:
                    name = f"{layer}-seed{seed}-{objective}-depth{depth}"
                    arguments = {**same, "objective": objective, "depth": depth, **search}
                    found.append(Piece(name, _routes, arguments))
    return found


def _plain(*, layer: str, seed: int, bond: int, core_bonds: list[int], **where) -> dict:
    """The operator, and its truncations without gates."""
    trained = trained_layer(layer, seed=seed, bond=bond, **where)
    whole, covariance = compress(trained.matrix), trained.covariance()
    rows = []
    for objective in OBJECTIVES:
        for core_bond in core_bonds:
            cut = truncated_mpo(
                whole.mpo, core_bond, covariance=covariance, weighted=objective == "activations"
            )
            rows.append(
                {
                    "objective": objective,
                    "core_bond": core_bond,
                    "numbers": cut.parameters,
                    "overlap": cut.overlap,
                    "activations": cut.activation_error,
                    "accuracy": trained.accuracy(cut.matrix),
                }
            )
    return {
        "layer": layer,
        "seed": seed,
        "bond": max(whole.bonds),
        "numbers": whole.parameters,
        "s_avg": entanglement(whole.mpo).average,
        "accuracy": trained.accuracy(trained.matrix),
        "rows": rows,
    }


def _routes(
    *,
    layer: str,
    seed: int,
    bond: int,
    core_bonds: list[int],
    objective: str,
    depth: int,
    starts: int,
    explore: int,
    max_sweeps: int,
    **where,
) -> dict:
    """All routes over the bond dimensions at one depth."""
    trained = trained_layer(layer, seed=seed, bond=bond, **where)
    operator, covariance = compress(trained.matrix), trained.covariance()

    def run(core_bond: int, start: str | Disentangled = "identity", stream: int = 0):
        return disentangle(
            operator,
            left=depth,
            max_bond=core_bond,
            objective=objective,
            covariance=covariance,
            init=start,
            n_init=starts,
            init_sweeps=explore,
            max_sweeps=max_sweeps,
            seed=seed + 1000 * stream,
        )

    scratch = {core_bond: run(core_bond) for core_bond in core_bonds}
    up = {core_bonds[0]: scratch[core_bonds[0]]}
    for before, core_bond in pairwise(core_bonds):
        up[core_bond] = run(core_bond, up[before])
    down = {core_bonds[-1]: up[core_bonds[-1]]}
    for before, core_bond in pairwise(core_bonds[::-1]):
        down[core_bond] = run(core_bond, down[before])
    # the way up and down is one run a bond dimension there, and one a bond dimension back
    again = [run(core_bonds[0], stream=k) for k in range(1, 2 * len(core_bonds) - 1)]
    restarts = {core_bonds[0]: min([scratch[core_bonds[0]], *again], key=lambda r: r.loss)}
    rows = [
        _row(found, trained, core_bond, route)
        for route, results in zip(ROUTES, (scratch, up, down, restarts), strict=True)
        for core_bond, found in results.items()
    ]
    return {"layer": layer, "seed": seed, "objective": objective, "depth": depth, "rows": rows}


def _row(found: Disentangled, trained: TrainedLayer, core_bond: int, route: str) -> dict:
    parts = found.factorization
    places = (*parts.left.ansatz.placements, *parts.right.ansatz.placements)
    return {
        "route": route,
        "core_bond": core_bond,
        "numbers": sum(parts.parameter_counts().values()),
        "cx": 2 * sum(place.width == 2 for place in places),  # of a gate of SO(4)
        "loss": found.loss,
        "overlap": found.overlap,
        "activations": found.activation_error,
        "accuracy": trained.accuracy(parts.to_dense()),
        "s_avg": float(found.entropies_after.mean()),
        "seconds": found.seconds,
    }


def _runs(record: dict, layer: str, objective: str, depth: int) -> list[list[dict]]:
    """Rows of every network."""
    case = (layer, objective, depth)
    return [
        piece["rows"]
        for piece in record["pieces"].values()
        if (piece["layer"], piece.get("objective"), piece.get("depth")) == case
    ]


def _each(record: dict, case: tuple, core_bond: int, route: str, column: str) -> list[float]:
    """A column of one route over the networks."""
    return [
        row[column]
        for rows in _runs(record, *case)
        for row in rows
        if (row["core_bond"], row["route"]) == (core_bond, route)
    ]


def _best(record: dict, case: tuple, core_bond: int, column: str) -> float:
    """Median over the networks at each one's route of the lowest loss."""
    return median(
        min((row for row in rows if row["core_bond"] == core_bond), key=lambda row: row["loss"])[
            column
        ]
        for rows in _runs(record, *case)
    )


def _operators(record: dict, layer: str) -> list[dict]:
    pieces = record["pieces"].values()
    return [piece for piece in pieces if piece["layer"] == layer and "bond" in piece]


def _plain_rows(record: dict, layer: str, objective: str, core_bond: int) -> list[dict]:
    """Truncations without gates, of every network."""
    return [
        row
        for piece in _operators(record, layer)
        for row in piece["rows"]
        if (row["objective"], row["core_bond"]) == (objective, core_bond)
    ]


def _core_bonds(record: dict, layer: str) -> list[int]:
    return sorted({row["core_bond"] for row in _operators(record, layer)[0]["rows"]})


def _cases(record: dict) -> list[tuple[str, str, int]]:
    """Layer, objective and depth."""
    options = record["options"]
    return list(product(LAYERS, options["objectives"], options["depths"]))


def _wins(losses: list[float], others: list[float]) -> int:
    return sum(a < (1 - MARGIN) * b for a, b in zip(losses, others, strict=True))


def tables(record: dict) -> list[Table]:
    options = record["options"]
    found = [
        _trade(record, layer, objective) for layer in LAYERS for objective in options["objectives"]
    ]
    rows = []
    for case in _cases(record):
        layer, objective, depth = case
        least = _core_bonds(record, layer)[0]
        losses = {route: _each(record, case, least, route, "loss") for route in ROUTES}
        down = losses["down"]
        rows.append(
            (
                LAYERS[layer],
                objective,
                depth,
                least,
                *(f"{median(losses[route]):.4f}" for route in ("scratch", "restarts", "down")),
                *(
                    f"{_wins(down, losses[route])} : {_wins(losses[route], down)}"
                    for route in ("scratch", "restarts")
                ),
            )
        )
    columns = ("layer", "objective", "depth", "chi'", "scratch", "restarts", "down")
    detour = Table(
        (*columns, "down : scratch", "down : restarts"),
        rows,
        title="the detour over larger cores: loss at the least chi', medians",
        notes=(
            f"loss: {'; '.join(f'{text} ({name})' for name, text in OBJECTIVES.items())}",
            "restarts: the best of as many runs from scratch as the way up and down takes",
            f"a : b, networks where a loss is lower by more than {MARGIN:.0%}, and the reverse",
        ),
    )
    return [*found, detour]


def _trade(record: dict, layer: str, objective: str) -> Table:
    rows = []
    for core_bond in _core_bonds(record, layer):
        plain = _plain_rows(record, layer, objective, core_bond)
        columns = ("overlap", "activations", "accuracy")
        values = {column: median(row[column] for row in plain) for column in columns}
        loss = 1 - values["overlap"] if objective == "overlap" else values["activations"] ** 2
        rows.append(
            (
                core_bond,
                0,
                plain[0]["numbers"],
                0,
                f"{loss:.4f}",
                None,
                None,
                *(f"{values[x]:.3f}" for x in columns[:2]),
                f"{values['accuracy']:.1f}",
                None,
            )
        )
        for depth in record["options"]["depths"]:
            case = (layer, objective, depth)
            losses = (_each(record, case, core_bond, route, "loss") for route in ROUTES[:3])
            best = {x: _best(record, case, core_bond, x) for x in (*columns, "s_avg")}
            rows.append(
                (
                    core_bond,
                    depth,
                    *(_each(record, case, core_bond, "scratch", x)[0] for x in ("numbers", "cx")),
                    *(f"{median(each):.4f}" for each in losses),
                    *(f"{best[x]:.3f}" for x in columns[:2]),
                    f"{best['accuracy']:.1f}",
                    f"{best['s_avg']:.3f}",
                )
            )
    whole = _operators(record, layer)
    middle = {x: median(piece[x] for piece in whole) for x in ("numbers", "s_avg", "accuracy")}
    return Table(
        ("chi'", "depth", "numbers", "CX", *ROUTES[:3], "f", "activations", "accuracy", "S_avg"),
        rows,
        title=f"{LAYERS[layer]}, chi {max(piece['bond'] for piece in whole)}, "
        f"objective {objective}: loss of each route, and the best one's figures, medians",
        notes=(
            f"the operator: {middle['numbers']:.0f} numbers, S_avg {middle['s_avg']:.3f}, accuracy "
            f"{middle['accuracy']:.1f}; depth 0: truncated, without gates; up begins with scratch, "
            "down with up",
            "numbers: core and 6 a gate; activations: relative error; accuracy without retraining",
        ),
    )


def _curves(column: str, label: str) -> Callable[[dict, Axes], Axes]:
    def draw(record: dict, ax: Axes) -> Axes:
        for layer, style in zip(LAYERS, ("o-", "s--"), strict=True):
            for k, core_bond in enumerate(_core_bonds(record, layer)):
                plain = _plain_rows(record, layer, "overlap", core_bond)
                points = [
                    (
                        plain[0]["numbers"] if column == "numbers" else 0,
                        median(row["overlap"] for row in plain),
                    )
                ]
                for case in _cases(record):
                    if case[:2] == (layer, record["options"]["objectives"][0]):
                        across = _each(record, case, core_bond, "scratch", column)[0]
                        points.append((across, _best(record, case, core_bond, "overlap")))
                name = f"{LAYERS[layer].split(',')[0]}, chi' {core_bond}"
                ax.plot(*zip(*points, strict=True), style, ms=4, color=f"C{k}", label=name)
        ax.set(xlabel=label, ylabel="overlap f")
        ax.legend(fontsize="x-small")
        return ax

    return draw


def finding(record: dict) -> str:
    parts = []
    for layer in LAYERS:
        for objective in record["options"]["objectives"]:
            depth = record["options"]["depths"][-1]
            each = []
            for core_bond in _core_bonds(record, layer):
                case = (layer, objective, depth)
                f, correct = (_best(record, case, core_bond, x) for x in ("overlap", "accuracy"))
                numbers = _each(record, case, core_bond, "scratch", "numbers")[0]
                each.append(f"chi' {core_bond} {f:.3f}, {correct:.1f} % ({numbers} numbers)")
            parts.append(f"{LAYERS[layer]}, {objective}, depth {depth}: {'; '.join(each)}")
    wins = {"scratch": [0, 0], "restarts": [0, 0]}
    total = 0
    for case in _cases(record):
        least = _core_bonds(record, case[0])[0]
        down = _each(record, case, least, "down", "loss")
        total += len(down)
        for route, count in wins.items():
            other = _each(record, case, least, route, "loss")
            count[0] += _wins(down, other)
            count[1] += _wins(other, down)
    (once, lost_once), (often, lost_often) = wins.values()
    return (
        f"Overlap and accuracy without retraining, medians of {len(record['seeds'])} networks. "
        f"{'. '.join(parts)}. Coming back down to the least chi' ends lower by more than "
        f"{MARGIN:.0%} than one run straight to it in {once} of {total} cases and higher in "
        f"{lost_once}; than as many runs from scratch in {often}, and higher in {lost_often}."
    )


EXPERIMENT = Experiment(
    name="cores",
    title="Bond dimension of the core",
    options=Cores,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "numbers",
            "Overlap against parameters (core and gates), from truncation without gates on.",
            _curves("numbers", "parameters of core and gates"),
        ),
        Panel("cx", "The same against CNOTs.", _curves("cx", "CNOTs of the circuits")),
    ),
)
