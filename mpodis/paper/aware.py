"""What the objective is worth: accuracy with the layer replaced and nothing retrained.

Compact TNNs, product core, 2-body gates; moments from the training images only. "overlap" is the
paper's figure of merit, "activations" weighs errors by the inputs' second moment, "sensitivity"
also by the gradients of the loss, with the mean of the inputs in the bias. Truncation, low rank at
equal parameters and gates as wide as the operator get the same three recipes.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.jobs.layer_in_network import LayerInNetwork
from mpodis.jobs.records import spread
from mpodis.optimise.result import Disentangled
from mpodis.options import NETWORK_OBJECTIVES
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.networks import dataset, network
from mpodis.structured import (
    activation_loss_bound,
    full_width_gates,
    low_rank,
    rank_for,
    truncated_mpo,
    zero_matrix,
)
from mpodis.tables import Table

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["EXPERIMENT", "by_depth"]


@dataclass(frozen=True)
class Aware(Options):
    """Depths in ascending order, and what each gets.

    Attributes
    ----------
    depths : tuple of int
        Each begins from the one before and, beside it, afresh; the lower loss stays.
    starts, max_sweeps : int
        Of `disentangle`.
    """

    depths: tuple[int, ...] = (4, 8, 16)
    starts: int = 3
    max_sweeps: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.depths or list(self.depths) != sorted(set(self.depths)) or self.depths[0] < 1:
            raise ValueError(f"depths={self.depths} must be ascending, from 1 on")


def pieces(options: Aware) -> list[Piece]:
    given = {k: getattr(options, k) for k in ("data", "data_dir", "networks")}
    given |= {"depths": list(options.depths)}
    found = []
    for seed in options.range:
        for objective in NETWORK_OBJECTIVES:
            ours = {"seed": seed, "objective": objective}
            effort = {"starts": options.starts, "max_sweeps": options.max_sweeps}
            found.append(Piece(f"seed{seed}-{objective}", by_depth, given | ours | effort))
            found.append(Piece(f"seed{seed}-{objective}-baselines", _baselines, given | ours))
    return found


def _layer(
    data: str, data_dir: str | None, networks: str, seed: int
) -> tuple[LayerInNetwork, MatrixProductOperator]:
    model = network(data, networks, seed)
    mpo = model.mpo.to_mpo()
    return LayerInNetwork(model, mpo, dataset(data, data_dir)), mpo


def _row(layer: LayerInNetwork, objective: str, name: str, matrix, **figures) -> dict:
    accuracy = layer.score_matrix(objective, matrix)
    return {
        "name": name,
        "lost": layer.score(layer.model.mpo) - accuracy,
        "accuracy": accuracy,
        "activation_error": layer.activation_error(objective, matrix),
        **figures,
    }


def by_depth(*, data, data_dir, networks, seed, objective, depths, starts, max_sweeps) -> dict:
    """The layer of a trained network replaced by circuits of every depth, a row for each."""
    layer, mpo = _layer(data, data_dir, networks, seed)
    moments = layer.moments(objective)
    same = {"objective": "overlap" if objective == "overlap" else "activations", **moments}
    same |= {"max_sweeps": max_sweeps, "seed": seed}
    rows, before = [], None
    for depth in depths:
        left = brickwall(mpo.L, depth)
        found = _either(mpo, left, before, starts, same)
        before, parts = found, found.factorization.parameter_counts()
        bound = activation_loss_bound(mpo, found.factorization.core, **moments)
        rows.append(
            _row(
                layer,
                objective,
                f"depth {depth}",
                found.factorization.to_dense(),
                overlap=found.overlap,
                bound=found.bound,
                relative_error=found.relative_error,
                loss=found.loss,
                loss_bound=None if objective == "overlap" else bound,
                parameters=parts["core"],
                gates=parts["left gates"] + parts["right gates"],
                seconds=found.seconds,
            )
        )
    return {"seed": seed, "objective": objective, "rows": rows}


def _either(mpo, left, before: Disentangled | None, starts: int, same: dict) -> Disentangled:
    """From the shallower result, or afresh: whichever ends lower."""
    found = [disentangle(mpo, left=left, init="identity", n_init=starts, **same)]
    if before is not None:
        found.append(disentangle(mpo, left=left, init=before, n_init=1, **same))
    return min(found, key=lambda one: one.loss)


def _baselines(*, data, data_dir, networks, seed, objective, depths) -> dict:
    layer, mpo = _layer(data, data_dir, networks, seed)
    options = layer.moments(objective) | {"weighted": objective != "overlap"}
    found = [
        ("nothing (W = 0)", zero_matrix(layer.matrix)),
        ("truncated", truncated_mpo(mpo, 1, **options)),
    ]
    for depth in depths:
        parameters = 4 * mpo.L + 2 * brickwall(mpo.L, depth).n_parameters
        rank = rank_for(parameters, layer.matrix.shape)
        found.append((f"low rank, as depth {depth}", low_rank(layer.matrix, rank, **options)))
    rows = [
        _row(
            layer,
            objective,
            name,
            one.matrix,
            overlap=one.overlap,
            relative_error=one.relative_error,
            parameters=one.parameters,
            gates=0,
        )
        for name, one in found
    ]
    moments = {} if objective == "overlap" else layer.moments(objective)
    widest = full_width_gates(mpo, 1, **moments, seed=seed)
    matrix = widest.factorization.to_dense()
    rows.append(
        _row(
            layer,
            objective,
            "gates on all wires",
            matrix,
            overlap=widest.factorization.overlap(mpo),
            loss=widest.loss,
            loss_bound=widest.bound,
        )
    )
    return {"seed": seed, "objective": objective, "rows": rows}


def _values(record: dict, objective: str, name: str, column: str) -> list[float]:
    return [
        row[column]
        for piece in record["pieces"].values()
        for row in piece["rows"]
        if (piece["objective"], row["name"]) == (objective, name) and row.get(column) is not None
    ]


def _names(record: dict) -> list[str]:
    return list(dict.fromkeys(r["name"] for p in record["pieces"].values() for r in p["rows"]))


def _cell(values: list[float], digits: int = 2) -> str | None:
    return spread(values, digits) if values else None


def tables(record: dict) -> list[Table]:
    names = _names(record)
    lost = [
        (name, *(_cell(_values(record, o, name, "lost")) for o in NETWORK_OBJECTIVES))
        for name in names
    ]
    rows = []
    for objective in NETWORK_OBJECTIVES:
        for name in names:
            cells = {
                column: _values(record, objective, name, column)
                for column in (
                    *("overlap", "bound", "activation_error", "loss", "loss_bound"),
                    *("relative_error", "parameters", "gates"),
                )
            }
            middle = {column: median(v) if v else None for column, v in cells.items()}
            rows.append((name, objective, *middle.values()))
    return [
        Table(
            ("in place of the layer", *NETWORK_OBJECTIVES),
            lost,
            title="points of test accuracy lost, median (least to most)",
        ),
        Table(
            (
                *("in place of the layer", "objective", "overlap", "bound", "act. error", "loss"),
                *("bound of it", "rel. error", "parameters", "gate par."),
            ),
            rows,
            title="medians",
        ),
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    depths = record["options"]["depths"]
    for k, objective in enumerate(NETWORK_OBJECTIVES):
        by_seed: dict[int, list[float]] = {}
        for piece in record["pieces"].values():
            if piece["objective"] == objective and piece["rows"][0]["name"].startswith("depth"):
                by_seed[piece["seed"]] = [max(row["lost"], 0.02) for row in piece["rows"]]
        for values in by_seed.values():
            ax.plot(depths, values, color=f"C{k}", lw=0.5, alpha=0.5)
        middle = [median(v) for v in zip(*by_seed.values(), strict=True)]
        ax.plot(depths, middle, "o-", color=f"C{k}", lw=2, label=objective)
    ax.set(xscale="log", yscale="log", xlabel="layers", ylabel="points of accuracy lost")
    ax.set_xticks(depths, depths)
    ax.minorticks_off()
    ax.legend(fontsize="small")
    return ax


def finding(record: dict) -> str:
    sentences = []
    for depth in record["options"]["depths"]:
        losses = {
            o: median(_values(record, o, f"depth {depth}", "lost")) for o in NETWORK_OBJECTIVES
        }
        each = ", ".join(f"{lost:.2f} under {o}" for o, lost in losses.items())
        rank = median(_values(record, "sensitivity", f"low rank, as depth {depth}", "lost"))
        sentences.append(
            f"at depth {depth} {each} (low rank with as many parameters, under sensitivity: "
            f"{rank:.1f})"
        )
    overlaps = {
        o: median(_values(record, o, f"depth {record['options']['depths'][-1]}", "overlap"))
        for o in NETWORK_OBJECTIVES
    }
    return (
        f"Points of test accuracy lost without retraining, medians over {len(record['seeds'])} "
        f"networks: {'; '.join(sentences)}. The overlap of the deepest circuits is "
        + ", ".join(f"{f:.3f} under {o}" for o, f in overlaps.items())
        + "."
    )


EXPERIMENT = Experiment(
    name="aware",
    title="Accuracy without retraining, by objective",
    options=Aware,
    pieces=pieces,
    tables=tables,
    finding=finding,
    panels=(
        Panel(
            "lost",
            "Points of test accuracy lost; thin lines are networks (below .02 drawn at .02).",
            _draw,
        ),
    ),
)
