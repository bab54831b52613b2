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

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn
from torch.nn.functional import cross_entropy

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.data import Dataset
from mpodis.factorization import Factorization
from mpodis.jobs.records import mean_spread
from mpodis.mpo import truncate
from mpodis.nn import (
    CircuitLayer,
    HybridLinear,
    HybridNetwork,
    LayerSpec,
    Recipe,
    accuracy,
    disentangle_module,
    replace_layer,
    train_classifier,
)
from mpodis.nn.adam_steps import adam_steps
from mpodis.nn.linear import torch_generator
from mpodis.nn.training import completed_recipe
from mpodis.nn.triangular_gates import TriangularCircuitLayer
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks, search_of
from mpodis.paper.networks import network, single_precision
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

EXPONENTS = ("skew", "triangular")
DRAWS = {
    "skew, Haar": ("skew", 0.0),
    "triangular, normal 0.1": ("triangular", 0.1),
    "triangular, normal 0.5": ("triangular", 0.5),
    "triangular, normal 1": ("triangular", 1.0),
    "triangular, normal 2": ("triangular", 2.0),
    "triangular, uniform 0 to 1": ("triangular", None),
}
"""Exponent, and scale of the entries of t: ways to draw the gates, see `TriangularCircuitLayer`."""
STARTS = ("overlap", "activations", "identity", "random", "as trained")
"""The first two are explicit; the last is the network itself, trained on."""
SHOWN_LAYERS = ["first", "median", "last"]
"""Layers of gates whose gradients are shown."""
CUT = 4
"""Layers between two cuts."""
SEEN = 1000
"""Images at which gradients are taken."""
RECIPES = {"digits": Recipe(30, 0.02, 64), "mnist": Recipe(2, 0.02, 250)}
"""Of new networks, by data; see `train_depth` for how the learning rate was chosen."""


@dataclass(frozen=True)
class Trained(Options):
    """Which networks, and their recipes."""

    seeds: int = 5
    depths: tuple[int, ...] = option(
        (1, 2, 4, 8, 16, 32), "Layers of each circuit of a new network.", least=1
    )
    cut_depths: tuple[int, ...] = option(
        (8, 16), "Depths at which cut circuits are trained, too.", least=CUT + 1
    )
    start_depths: tuple[int, ...] = option(
        (4, 8), "Layers of each circuit put into a trained network.", least=1
    )
    epochs: int | None = option(None, "Of a new network; by default those of the data.", least=1)
    learning_rate: float | None = option(
        None, "Of a new network; by default that of the data.", positive=True
    )
    batch_size: int | None = option(None, "Of all trainings; by default that of the data.", least=1)
    scale: float = option(0.5, "Of the entries of t, see `TriangularCircuitLayer`.")
    checks: tuple[int, ...] = option(
        (10, 50, 200, 480), "Steps after which a network that is trained on is measured.", least=1
    )
    heal_rates: tuple[float, ...] = option(
        (0.01, 0.03),
        "Learning rates of a network that is trained on; they fall to 0 along a half cosine.",
        positive=True,
    )
    starts: int = option(2, "Near-identity starts of `disentangle`, for explicit ones.", least=1)
    max_sweeps: int = option(100, "Sweeps of `disentangle`, for explicit starts.", least=1)
    validate: bool = option(False, "Hold out a tenth of the training images and report on them.")


def study(options: Trained) -> Study:
    depths, cut = options.depths, options.cut_depths
    cases = [("draw", *pair) for pair in product(DRAWS, depths)]
    for exponent in EXPONENTS:
        cases += [("depth", exponent, depth) for depth in depths]
        cases += [("depth", f"{exponent}, cut", depth) for depth in cut]
    cases += [("start", *pair) for pair in product(STARTS[:-1], options.start_depths)]
    cases.append(("start", STARTS[-1], 0))
    given = {name: getattr(options, name) for name in ("epochs", "learning_rate", "batch_size")}
    recipe = completed_recipe(RECIPES.get(options.data), f"data={options.data!r}", **given)
    healing = {"rates": options.heal_rates, "checks": sorted(options.checks)}
    healing |= {"batch_size": recipe.batch_size}
    return on_networks(
        measured,
        options,
        name="trained",
        cases=[dict(zip(("question", "gates", "depth"), case, strict=True)) for case in cases],
        settings={
            "training": {"scale": options.scale, "recipe": vars(recipe)},
            "healing": healing | search_of(options),
        },
    )


def measured(
    *, question, gates, depth, seed, data, data_dir, networks, validate, training, healing
) -> dict[str, Any]:
    """Gradients of gates that are drawn in some way, a training from new, or from a start."""
    images = single_precision(data, data_dir, validate=validate)
    if question == "draw":
        exponent, scale = DRAWS[gates]
        model = new_network(exponent, depth, cut=False, scale=scale, batch=SEEN, seed=seed)
        return {ROW: [at_start(model, images)]}
    if question == "depth":
        return {ROW: [train_depth(images, gates, depth, seed, **training)]}
    model = network(data, networks, seed)
    return {ROW: train_start(images, model, gates, depth, seed, **healing)}


# --- new networks


def new_network(
    exponent: str, depth: int, *, cut: bool, scale: float | None, batch: int, seed, sites: int = 6
) -> HybridNetwork:
    """2^sites -> 2^sites -> ReLU -> 10, `depth` layers of gates on each side of a product core."""
    lengths = [min(CUT, depth - k) for k in range(0, depth, CUT)] if cut else [depth]
    spec = " | ".join(f"{length}*2b" for length in lengths)
    specs = (LayerSpec(((2, 2),) * sites, 1, spec, spec), LayerSpec(((2**sites, 10),)))
    generator = torch_generator(seed)
    model = HybridNetwork(specs, batch_size=batch, seed=generator)
    if exponent == "triangular":
        layer: Any = model.layers[0]
        for side in (layer.left, layer.right):
            for k, circuit in enumerate(side):
                side[k] = TriangularCircuitLayer(circuit.ansatz, init_scale=scale, seed=generator)
    return model


def circuits_of(model: Any) -> list[CircuitLayer]:
    """The circuits of the first layer, left ones first."""
    return [*model.layers[0].left, *model.layers[0].right]


def layer_gradients(model: HybridNetwork, x, y) -> list[float]:
    """Norm of the loss's gradient by the generators of every layer of gates, as x meets them.

    In double precision and with the statistics of this batch; the model is left as it is.
    """
    probe = copy.deepcopy(model).double().train()
    cross_entropy(probe(torch.as_tensor(x).double()), torch.as_tensor(y)).backward()
    found = []
    for circuit in circuits_of(probe):
        generators: Any = circuit.generators
        squares = {  # of the gates of each width in their order
            int(width): iter(parameter.grad.square().sum(1).tolist())
            for width, parameter in generators.items()
        }
        for layer in circuit.ansatz.layers:
            found.append(math.sqrt(sum(next(squares[place.width]) for place in layer)))
    return found


@torch.no_grad()
def shape_of(circuits: Sequence[CircuitLayer]) -> dict[str, float]:
    """How far 2-body gates are from orthogonal ones, and how ill-conditioned the circuits are.

    "distance" is the mean of |g^T g - 1| (Frobenius) over gates, "condition" the largest of the
    condition numbers of the circuits' matrices; above 1e15 it is not resolved.
    """
    probes = [copy.deepcopy(circuit).double() for circuit in circuits]
    gates = torch.cat([probe.stacks()[2] for probe in probes])
    off = gates.mT @ gates - torch.eye(4, dtype=gates.dtype)
    values = [torch.linalg.svdvals(probe.to_dense()) for probe in probes]
    conditions = [float(s[0] / s[-1].clamp_min(1e-300)) for s in values]
    distance = off.flatten(1).norm(dim=1).mean().item()
    return {"distance": distance, "condition": min(1e16, max(conditions))}


def at_start(model: HybridNetwork, images: Dataset) -> dict[str, float]:
    """Gradients of the layers of gates, see `layer_gradients`, and the shape of the circuits.

    Layers are those of both circuits as x meets them; the median one is the last before the core.
    """
    found = layer_gradients(model, images.x_train[:SEEN], images.y_train[:SEEN])
    ends = (found[0], found[len(found) // 2 - 1], found[-1])
    return dict(zip(SHOWN_LAYERS, ends, strict=True)) | shape_of(circuits_of(model))


def train_depth(
    images: Dataset, variant: str, depth: int, seed: int, *, scale: float, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Train one new network and say what came out.

    Notes
    -----
    Accuracy in percent on held-out MNIST images decided the learning rate (two epochs, batches of
    250, seed 10 alone, layers a side):

    ===================  =====  =====  =====  =====
    learning rate        0.005  0.01   0.02   0.04
    ===================  =====  =====  =====  =====
    skew, 8              89.38  91.27  92.30  92.58
    skew, 8, cut         87.98  89.35  90.05  91.27
    triangular, 8        80.20  83.75  87.37  88.20
    triangular, 32       67.58  78.25  82.00  73.32
    triangular, 16, cut  54.25  55.48  64.80  58.70
    mean                 75.88  79.62  83.30  80.81
    ===================  =====  =====  =====  =====
    """
    exponent, _, cut = variant.partition(", ")
    generator, batch = torch_generator(seed), recipe["batch_size"]
    model = new_network(exponent, depth, cut=bool(cut), scale=scale, batch=batch, seed=generator)
    row = at_start(model, images)
    model, training = train_classifier(model, images, **recipe, seed=generator)
    return {
        **row,
        **{f"trained_{name}": value for name, value in shape_of(circuits_of(model)).items()},
        "accuracy": accuracy(model, images.x_test, images.y_test),
        "first_loss": training.losses[0],
        "last_loss": training.losses[-1],
        "parameters": model.counts()["gates"],
    }


# --- trained networks


def started(
    start: str, model: Any, images: Dataset, *, depth: int, seed: int, **effort: Any
) -> nn.Module:
    """The network in double precision with circuits in the place of its MPO.

    Explicit starts are the solutions of `disentangle`. "identity" has gates at a distance of 0.05
    and the MPO cut to bond dimension 1, "random" Haar-random gates and a random core of the MPO's
    norm.
    """
    mpo = model.mpo.to_mpo()
    left = brickwall(mpo.L, depth)
    if start in ("overlap", "activations"):
        inputs = images.x_train if start == "activations" else None
        search: dict[str, Any] = {"left": left, "max_bond": 1, "init": "identity", **effort}
        return disentangle_module(model, "mpo", inputs=inputs, seed=seed, **search)[0]
    if start == "identity":
        rng = np.random.default_rng(seed)
        sides = [random_circuit(wall, seed=rng, scale=0.05) for wall in (left, left.reversed())]
        shape = (model.mpo.inputs, model.mpo.outputs)
        whole = Factorization(sides[0], truncate(mpo, max_bond=1).mpo, sides[1], shape)
        layer = HybridLinear.from_factorization(whole, dtype=torch.float64)
        return replace_layer(model, "mpo", layer)
    layer = HybridLinear(
        model.mpo.legs,
        left=left,
        right=left.reversed(),
        init_scale=None,
        dtype=torch.float64,
        seed=torch_generator(seed),
    )
    with torch.no_grad():
        layer.core.site_tensors[0] *= model.mpo.weight().norm() / layer.core.weight().norm()
    return replace_layer(model, "mpo", layer)


def train_start(
    images: Dataset,
    model: nn.Module,
    start: str,
    depth: int,
    seed: int,
    *,
    checks: Sequence[int],
    rates: Sequence[float],
    batch_size: int,
    **effort: Any,
) -> list[dict[str, Any]]:
    """Put a layer into a trained network, train on, and measure on the way.

    Notes
    -----
    On held-out images of MNIST (which the networks had been trained on; network of seed 5, four
    layers a side, 480 steps) the learning rate 0.03 ended above 0.01 from each start that was
    tried: 92.13 and 92.58 % (activations), 89.83 and 91.92 (identity), 86.37 and 88.75 (random).
    It also throws a good start back at first, so both are recorded.
    """
    if start != "as trained":
        model = started(start, model, images, depth=depth, seed=seed, **effort)
    model = model.float()
    parameters = sum(p.numel() for p in model.parameters())
    x, y = torch.as_tensor(images.x_train), torch.as_tensor(images.y_train)
    generator, batches = torch_generator(seed), []
    while len(batches) < checks[-1]:  # the same ones from every start
        order = torch.randperm(len(x), generator=generator)
        batches += order.tensor_split(math.ceil(len(x) / batch_size))
    rows = []
    for rate in rates:
        trained = copy.deepcopy(model)
        steps = adam_steps(trained, x, y, learning_rate=rate, count=checks[-1])
        for done, check in pairwise((0, 0, *checks)):
            if check:
                trained.train()
                steps.epoch(batches[done:check])
            score = accuracy(trained.eval(), images.x_test, images.y_test)
            row = {"rate": rate, "step": check, "accuracy": score, "parameters": parameters}
            rows.append(row)
    return rows


# --- tables and figure


def mean_log(values: pd.Series) -> float:
    """Geometric mean; 0 where one of them is."""
    return float(np.exp(np.log(values).mean())) if values.min() > 0 else 0.0


def gained(frame: pd.DataFrame) -> pd.DataFrame:
    """What is left of gradients, drawn in each way, from the least depth to the greatest."""
    draws = frame.query("question == 'draw'")
    means = draws.pivot_table(SHOWN_LAYERS, ["gates", "depth"], aggfunc=mean_log, sort=False)
    ends = means.filter(SHOWN_LAYERS).groupby("gates", sort=False)
    return ends.last().div(ends.first())


def tables(frame: pd.DataFrame) -> list[Table]:
    case, trained = ["gates", "depth"], frame.query("question == 'depth'")
    how: dict[Any, Any] = {"parameters": "first", "accuracy": mean_spread}
    how |= dict.fromkeys([*SHOWN_LAYERS, "condition", "trained_condition"], mean_log)
    how |= {"distance": "mean", "trained_distance": "mean"}
    by_seed = trained.pivot_table("accuracy", ["depth", "seed"], "gates")
    exponents = [e for e in EXPONENTS if f"{e}, cut" in by_seed]
    cuts = pd.DataFrame({e: by_seed[f"{e}, cut"] - by_seed[e] for e in exponents}).dropna()
    starts = frame.query("question == 'start'").astype({"step": int})
    curves = [*case, "rate", "parameters"]
    return [
        Table.from_dataframe(
            trained.pivot_table(list(how), case, aggfunc=how, sort=False).filter(how),
            title="accuracy (%), mean +- standard deviation (least to most), and what is trained",
            notes=(
                "first, median, last: norm of the loss's gradient at the start by the generators "
                "of a layer of gates, geometric mean; median: the last layer before the core",
                "condition: of a circuit's matrix, the larger side, geometric mean, not resolved "
                "above 1e15; distance: mean |g^T g - 1| of 2-body gates",
            ),
        ),
        Table.from_dataframe(
            gained(frame), title="what is left of gradients from the least to the most layers"
        ),
        Table.from_dataframe(
            cuts.pivot_table(exponents, "depth"),
            title=f"points that cuts after every {CUT} layers bring",
        ),
        Table.from_dataframe(
            starts.pivot_table("accuracy", curves, "step", mean_spread, sort=False),
            title="accuracy (%) against steps, mean +- standard deviation (least to most)",
            notes=("the whole network is trained, its parameters are counted",),
        ),
    ]


def draw_depths(frame: pd.DataFrame, ax: Axes, *, column: str, label: str) -> None:
    found = frame.query("question == 'depth'")
    norms = column in SHOWN_LAYERS
    for variant in found["gates"].unique():
        exponent, _, cut = variant.partition(", ")
        curve = found.query("gates == @variant").groupby("depth")[column]
        colour, style = f"C{EXPONENTS.index(exponent)}", "s--" if cut else "o-"
        middle = curve.agg(mean_log if norms else "mean")
        ax.plot(middle, style, color=colour, ms=4, label=variant)
        ends = curve.agg(["min", "max"])
        ax.fill_between(ends.index, ends["min"], ends["max"], color=colour, alpha=0.12, lw=0)
    ax.set_xscale("log", base=2)
    ax.set(xlabel="layers on each side", ylabel=label, yscale="log" if norms else "linear")
    ax.legend(fontsize="small")


def draw_starts(frame: pd.DataFrame, ax: Axes) -> None:
    found = frame.query("question == 'start'").query("depth in (0, depth.max())")
    curves = 100 - found.pivot_table("accuracy", "step", ["rate", "gates"], "mean", sort=False)
    rates = found["rate"].unique().tolist()
    for rate, line in zip(rates, ("-", "--", ":", "-."), strict=False):
        for k, (start, curve) in enumerate(curves[rate].items()):
            label = start if rate == rates[0] else None
            ax.plot(curve, marker=".", ls=line, color=f"C{k}", label=label)
    checks = curves.index.astype(int)
    ax.set_xscale("symlog", linthresh=checks[1])
    ax.set_xticks(checks, checks)
    ax.set_yscale("log")
    ax.set_yticks([5, 10, 20, 50, 90], ["5", "10", "20", "50", "90"])
    ax.minorticks_off()
    ax.set(xlabel="steps of training", ylabel="error (%)")
    title = f"{found['depth'].max()} layers a side; rates {', '.join(map(str, rates))}"
    ax.legend(title=title, fontsize="x-small", title_fontsize="x-small")


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
            partial(draw_depths, column="first", label="gradient of the first layer of gates"),
        ),
        Panel(
            "depth",
            "Accuracy after training, mean and range over seeds.",
            partial(draw_depths, column="accuracy", label="accuracy (%)"),
        ),
        Panel(
            "starts",
            "Error of a trained network with its MPO layer replaced, against steps of training.",
            draw_starts,
        ),
    ),
)
