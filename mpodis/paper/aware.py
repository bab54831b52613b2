"""Accuracy without retraining under every objective, beside the baselines.

The MPO layer of a trained network is replaced by a product core between circuits of 2-body gates;
nothing is retrained, and moments are those of the training images only. "overlap" is the paper's
figure of merit, "activations" weighs errors by the inputs' second moment, "sensitivity" also by
the gradients of the loss, with the mean of the inputs in the bias. Truncation, low rank at equal
parameters and gates as wide as the operator are fitted under the same three.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from mpodis import structured
from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.jobs.layer_in_network import LayerInNetwork
from mpodis.jobs.records import spread
from mpodis.nn import CompactTNN
from mpodis.options import NETWORK_OBJECTIVES, option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.networks import dataset, network
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT", "ErrorsOfLayer"]

FLOOR = 0.02
"""Fewer points lost, or none, are drawn here on the logarithmic axis."""
FIGURES = ["overlap", "bound", "activation_error", "loss", "loss_bound", "relative_error"]
FIGURES += ["parameters", "gates"]


@dataclass(frozen=True)
class Aware(Options):
    """Depths in ascending order, and what each gets.

    Every depth begins from the one before and, beside it, afresh; the lower loss stays.
    """

    depths: tuple[int, ...] = option((4, 8, 16), "Layers on each side.", least=1)
    starts: int = option(3, "Near-identity starts.", least=1)
    max_sweeps: int = option(100, "Sweeps of the best start.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.depths) != sorted(self.depths):
            raise ValueError(f"depths={self.depths} must be ascending")


def study(options: Aware) -> Study:
    return on_networks(replaced, options, name="aware", grid={"objective": NETWORK_OBJECTIVES})


def replaced(
    *, objective, seed, data, data_dir, networks, depths, starts, max_sweeps
) -> dict[str, Any]:
    """All that takes the place of the layer of one network, under one objective."""
    layer = ErrorsOfLayer(network(data, networks, seed), dataset(data, data_dir), objective)
    circuits = layer.circuits(depths, starts, max_sweeps=max_sweeps, seed=seed)
    return {ROW: circuits + layer.baselines(depths, seed=seed)}


class ErrorsOfLayer:
    """The MPO layer of a network, and what is lost with others in its place, a row for each."""

    def __init__(self, model: CompactTNN, images: Any, objective: str) -> None:
        self.mpo, self.objective = model.mpo.to_mpo(), objective
        self.layer = LayerInNetwork(model, self.mpo, images)
        self.moments = self.layer.moments(objective)
        self.original = self.layer.score(model.mpo)

    def row(self, replacement: str, depth: int, matrix: Any, **figures: Any) -> dict[str, Any]:
        accuracy = self.layer.score_matrix(self.objective, matrix)
        error = self.layer.activation_error(self.objective, matrix)
        losses = {"lost": self.original - accuracy, "accuracy": accuracy, "activation_error": error}
        missing = dict.fromkeys((*FIGURES, "search_seconds"), math.nan)
        return {"replacement": replacement, "depth": depth, **missing, **losses, **figures}

    def circuits(self, depths, starts, **same) -> list[dict[str, Any]]:
        """Of every depth, from the shallower result or afresh, whichever ends lower."""
        plain = self.objective == "overlap"
        same |= {"objective": "overlap" if plain else "activations", **self.moments}
        rows, before = [], None
        for depth in depths:
            left = brickwall(self.mpo.L, depth)
            found = disentangle(self.mpo, left=left, init="identity", n_init=starts, **same)
            if before is not None:
                again = disentangle(self.mpo, left=left, init=before, n_init=1, **same)
                found = min(found, again, key=lambda run: run.loss)
            before, parts = found, found.factorization.parameter_counts()
            bound = structured.activation_loss_bound(
                self.mpo, found.factorization.core, **self.moments
            )
            figures = {k: getattr(found, k) for k in ("overlap", "bound", "relative_error", "loss")}
            figures |= {"loss_bound": math.nan if plain else bound, "parameters": parts["core"]}
            figures |= {"gates": parts["left gates"] + parts["right gates"]}
            matrix = found.factorization.to_dense()
            rows.append(
                self.row("circuits", depth, matrix, **figures, search_seconds=found.seconds)
            )
        return rows

    def baselines(self, depths, *, seed: int) -> list[dict[str, Any]]:
        """Nothing at all, no gates, ranks of as many parameters, and gates on all wires."""
        matrix = self.layer.matrix
        options: dict[str, Any] = self.moments | {"weighted": self.objective != "overlap"}
        found = [("nothing (W = 0)", 0, structured.zero_matrix(matrix))]
        found.append(("truncated", 0, structured.truncated_mpo(self.mpo, 1, **options)))
        for depth in depths:
            parameters = 4 * self.mpo.L + 2 * brickwall(self.mpo.L, depth).n_parameters
            rank = structured.rank_for(parameters, matrix.shape)
            found.append(
                ("low rank, as many numbers", depth, structured.low_rank(matrix, rank, **options))
            )
        rows = []
        for name, depth, one in found:
            figures = {k: getattr(one, k) for k in ("overlap", "relative_error", "parameters")}
            rows.append(self.row(name, depth, one.matrix, gates=0, **figures))
        moments = {} if self.objective == "overlap" else self.moments
        widest = structured.full_width_gates(self.mpo, 1, **moments, seed=seed)
        figures = {"overlap": widest.factorization.overlap(self.mpo)}
        figures |= {"loss": widest.loss, "loss_bound": widest.bound}
        matrix = widest.factorization.to_dense()
        return [*rows, self.row("gates on all wires", 0, matrix, **figures)]


def tables(frame: pd.DataFrame) -> list[Table]:
    index = ["replacement", "depth"]
    points = partial(spread, digits=2)
    lost = frame.pivot_table("lost", index, "objective", points, sort=False)
    medians = frame.pivot_table(FIGURES, [*index, "objective"], aggfunc="median", sort=False)
    title = "points of test accuracy lost, median (least to most)"
    return [
        Table.from_dataframe(lost, title=title),
        Table.from_dataframe(medians.filter(FIGURES), title="medians"),
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    found = frame.query("replacement == 'circuits'")
    for k, objective in enumerate(NETWORK_OBJECTIVES):
        curves = found.query("objective == @objective").pivot_table("lost", "depth", "seed")
        ax.plot(curves.clip(lower=FLOOR), color=f"C{k}", lw=0.5, alpha=0.5)
        middle = curves.clip(lower=FLOOR).median(axis=1)
        ax.plot(middle, "o-", color=f"C{k}", lw=2, label=objective)
    ax.set(xscale="log", yscale="log", xlabel="layers", ylabel="points of accuracy lost")
    depths = found["depth"].unique().tolist()
    ax.set_xticks(depths, depths)
    ax.minorticks_off()
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="aware",
    title="Accuracy without retraining, by objective",
    options=Aware,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "lost",
            f"Points of test accuracy lost; thin lines are networks (below {FLOOR:g} drawn at "
            f"{FLOOR:g}).",
            draw,
        ),
    ),
)
