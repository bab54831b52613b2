"""Circuits trained inside a network (Sec. V): how deep, with which exponent, and from where.

Two questions. "depth": a network 64 -> 64 -> ReLU -> 10 whose first layer is a product core
between circuits of 2-body gates, with batch normalization before the ReLU, is trained by one
recipe with gates ``base @ exp(A)``, A antisymmetric ("skew"), and with the paper's exp(t), t
lower triangular ("triangular"), at several depths, whole and with a batch normalization and a
ReLU after every `CUT` layers ("cut"). The gradient of the loss before training is measured layer
by layer, also for other ways to draw t. "start": the MPO layer of a trained compact TNN is
replaced by a product core and circuits that begin in one of several ways, and the whole network
is trained for the same number of steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.jobs.records import mean_spread
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks
from mpodis.paper.inside import (
    CUT,
    DRAWS,
    RECIPES,
    gradients_of_draw,
    train_depth,
    train_start,
)
from mpodis.paper.networks import network, single_precision
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

EXPONENTS = ("skew", "triangular")
STARTS = ("overlap", "activations", "identity", "random", "as trained")
"""The first two are explicit; the last is the network itself, trained on."""
PLACES = ["first", "median", "last"]
"""Layers of gates."""


@dataclass(frozen=True)
class Trained(Options):
    """Which networks, and their recipes.

    Attributes
    ----------
    depths : tuple of int
        Layers of each circuit of a new network, ascending.
    cut_depths : tuple of int
        Those of them at which cut circuits are trained, too.
    start_depths : tuple of int
        Layers of each circuit put into a trained network.
    epochs, learning_rate, batch_size : optional
        Of `train_classifier`; None: those of `RECIPES`. A network that is trained on takes
        batches of this size, too.
    scale : float
        Of the entries of t, see `TriangularCircuitLayer`.
    checks : tuple of int
        Numbers of steps after which the accuracy of a network that is trained on is measured.
    heal_rates : tuple of float
        Its learning rates at the start, one training each; they fall to 0 at the last check along
        a half cosine.
    starts, max_sweeps : int
        Of `disentangle`, for explicit starts.
    validate : bool
        Hold out a tenth of the training images (split seed 0) and report on them. (The networks
        that are trained on have seen them.)
    """

    seeds: int = 5
    depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    cut_depths: tuple[int, ...] = (8, 16)
    start_depths: tuple[int, ...] = (4, 8)
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    scale: float = 0.5
    checks: tuple[int, ...] = (10, 50, 200, 480)
    heal_rates: tuple[float, ...] = (0.01, 0.03)
    starts: int = 2
    max_sweeps: int = 100
    validate: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depths", "start_depths", "checks"):
            given = getattr(self, name)
            if not given or min(given) < 1 or list(given) != sorted(set(given)):
                raise ValueError(f"{name}={given} must be ascending, from 1 on")
        if any(depth <= CUT or depth not in self.depths for depth in self.cut_depths):
            raise ValueError(f"cut_depths={self.cut_depths} must be of {self.depths}, above {CUT}")
        if self.data not in RECIPES:
            raise ValueError(f"data={self.data!r} has no recipe; use one of {', '.join(RECIPES)}")

    @property
    def recipe(self) -> dict:
        """Of `train_classifier`."""
        given = {k: getattr(self, k) for k in ("epochs", "learning_rate", "batch_size")}
        default = vars(RECIPES[self.data])
        return {k: default[k] if value is None else value for k, value in given.items()}


def study(options: Trained) -> Study:
    depths, cut = options.depths, options.cut_depths
    cases = [("draw", draw, depth) for draw in DRAWS for depth in depths]
    for exponent in EXPONENTS:
        cases += [("depth", exponent, depth) for depth in depths]
        cases += [("depth", f"{exponent}, cut", depth) for depth in cut]
    cases += [("start", *pair) for pair in product(STARTS[:-1], options.start_depths)]
    cases.append(("start", STARTS[-1], 0))
    recipe = options.recipe
    healing = {"rates": options.heal_rates, "checks": options.checks}
    healing |= {"batch_size": recipe["batch_size"]}
    healing |= {"n_init": options.starts, "max_sweeps": options.max_sweeps}
    training = {"scale": options.scale, "recipe": recipe}
    return on_networks(
        measured,
        options,
        name="trained",
        cases=[dict(zip(("question", "gates", "depth"), case, strict=True)) for case in cases],
        settings={"validate": options.validate, "training": training, "healing": healing},
    )


def measured(
    *, question, gates, depth, seed, data, data_dir, networks, validate, training, healing
) -> dict[str, Any]:
    """Gradients of gates that are drawn in some way, a training from new, or from a start."""
    images = single_precision(data, data_dir, validate=validate)
    if question == "draw":
        return {ROW: gradients_of_draw(images, gates, depth, seed)}
    if question == "depth":
        return {ROW: train_depth(images, gates, depth, seed, **training)}
    model = network(data, networks, seed)
    return {ROW: train_start(images, model, gates, depth, seed, **healing)}


def mean_log(values: pd.Series) -> float:
    """Geometric mean; 0 where one of them is."""
    return float(np.exp(np.log(values).mean())) if values.min() > 0 else 0.0


def gained(frame: pd.DataFrame) -> pd.DataFrame:
    """What is left of gradients, drawn in each way, from the least depth to the greatest."""
    draws = frame.query("question == 'draw'")
    means = draws.pivot_table(PLACES, ["gates", "depth"], aggfunc=mean_log, sort=False)
    ends = means.filter(PLACES).groupby("gates", sort=False)
    return ends.last().div(ends.first())


def tables(frame: pd.DataFrame) -> list[Table]:
    case, trained = ["gates", "depth"], frame.query("question == 'depth'")
    draws = frame.query("question == 'draw'").query("depth == depth.min() or depth == depth.max()")
    norms: dict[Any, Any] = dict.fromkeys([*PLACES, "condition"], mean_log)
    gates = norms | {"trained_condition": mean_log}
    gates |= {"distance": "mean", "trained_distance": "mean"}
    losses = partial(mean_spread, digits=3)
    scores: dict[Any, Any] = {"parameters": "first", "accuracy": mean_spread}
    scores |= {"first_loss": losses, "last_loss": losses}
    by_seed = trained.pivot_table("accuracy", ["depth", "seed"], "gates")
    cuts = {
        e: by_seed[f"{e}, cut"] - by_seed[e] for e in EXPONENTS if f"{e}, cut" in by_seed.columns
    }
    by_depth = pd.DataFrame(cuts).dropna().groupby("depth")
    starts = frame.query("question == 'start'").astype({"step": int})

    def table(rows: pd.DataFrame, how: dict[Any, Any], title: str, *notes: str) -> Table:
        found = rows.pivot_table(list(how), case, aggfunc=how, sort=False).filter(how)
        return Table.from_dataframe(found, title=title, notes=notes)

    return [
        table(
            trained,
            gates,
            "gradients at the start, and how orthogonal the gates are",
            "norm of the loss's gradient by the generators of a layer of gates; geometric mean "
            "over seeds. median: the last layer before the core",
            "distance: mean |g^T g - 1| of 2-body gates; condition: of a circuit's matrix, the "
            "larger side, geometric mean; not resolved above 1e15",
        ),
        table(draws, norms, "the same by how the gates are drawn, at the least and most layers"),
        Table.from_dataframe(
            gained(frame), title="what is left of gradients from the least to the most layers"
        ),
        table(trained, scores, "accuracy (%), mean +- standard deviation (least to most)"),
        Table.from_dataframe(
            by_depth.agg(["mean", lambda x: f"{(x > 0).sum()} of {len(x)}"]).rename(
                columns={"<lambda_0>": "better"}
            ),
            title=f"points that cuts after every {CUT} layers bring",
        ),
        Table.from_dataframe(
            starts.pivot_table(
                "accuracy", [*case, "rate", "parameters"], "step", mean_spread, sort=False
            ),
            title="accuracy (%) against steps, mean +- standard deviation (least to most)",
            notes=("the whole network is trained, its parameters are counted",),
        ),
    ]


def draw_depths(frame: pd.DataFrame, ax: Axes, *, column: str, middle: Any, **labels) -> None:
    found = frame.query("question == 'depth'")
    for variant in found["gates"].unique():
        exponent, _, cut = variant.partition(", ")
        curve = found.query("gates == @variant").groupby("depth")[column]
        colour, style = f"C{EXPONENTS.index(exponent)}", "s--" if cut else "o-"
        ax.plot(curve.agg(middle), style, color=colour, ms=4, label=variant)
        ends = curve.agg(["min", "max"])
        ax.fill_between(ends.index, ends["min"], ends["max"], color=colour, alpha=0.12, lw=0)
    depths = sorted(found["depth"].unique().tolist())
    ax.set_xscale("log", base=2)
    ax.set_xticks(depths, depths)
    ax.set(xlabel="layers on each side", **labels)
    ax.legend(fontsize="small")


def draw_starts(frame: pd.DataFrame, ax: Axes) -> None:
    found = frame.query("question == 'start'")
    shown = found.query("depth in (0, depth.max())")
    curves = 100 - shown.pivot_table("accuracy", "step", ["gates", "rate"], "mean", sort=False)
    rates = found["rate"].unique().tolist()
    for (k, start), (rate, line) in product(
        enumerate(STARTS), zip(rates, ("-", "--", ":", "-."), strict=False)
    ):
        label = start if rate == rates[0] else None
        ax.plot(curves[start, rate], marker=".", ls=line, color=f"C{k}", label=label)
    checks = curves.index.tolist()
    ax.set_xscale("symlog", linthresh=checks[1])
    ax.set_xticks(checks, checks)
    ax.set_yscale("log")
    ax.set_yticks([5, 10, 20, 50, 90], ["5", "10", "20", "50", "90"])
    ax.minorticks_off()
    ax.set(xlabel="steps of training", ylabel="error (%)")
    rates_text = f"{found['depth'].max()} layers a side; rates {', '.join(map(str, rates))}"
    ax.set_title(f"{rates_text} (solid, dashed)", fontsize="small")
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="trained",
    title="Circuits trained inside a network: depth, exponent and start",
    options=Trained,
    study=study,
    tabulate=tables,
    panels=(
        Panel(
            "gradients",
            "Gradient of the loss by the generators of the first layer of gates, before training: "
            "geometric mean and range of the seeds.",
            partial(
                draw_depths,
                column="first",
                middle=mean_log,
                yscale="log",
                ylabel="gradient of the first layer of gates",
            ),
        ),
        Panel(
            "depth",
            "Accuracy after training, mean and range over seeds.",
            partial(draw_depths, column="accuracy", middle="mean", ylabel="accuracy (%)"),
        ),
        Panel(
            "starts",
            "Error of a trained network with its MPO layer replaced, against steps of training.",
            draw_starts,
        ),
    ),
)
