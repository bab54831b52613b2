"""Circuits trained inside a network: what the cases of `trained` measure."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.data import Dataset
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.measures import second_moment
from mpodis.mpo import truncate
from mpodis.nn import (
    CircuitLayer,
    HybridLinear,
    Recipe,
    accuracy,
    layer_inputs,
    replace_layer,
    train_classifier,
)
from mpodis.nn.adam_steps import adam_steps
from mpodis.nn.hybrid_network import HybridNetwork, LayerSpec
from mpodis.nn.linear import torch_generator
from mpodis.nn.triangular_gates import TriangularCircuitLayer

__all__ = ["CUT", "DRAWS", "RECIPES", "gradients_of_draw", "train_depth", "train_start"]

CUT = 4
"""Layers between two cuts."""
SEEN = 1000
"""Images at which gradients are taken."""
RECIPES = {"digits": Recipe(30, 0.02, 64), "mnist": Recipe(2, 0.02, 250)}
"""Of new networks, by data; see `train_depth` for how the learning rate was chosen."""
DRAWS = {
    "skew, Haar": ("skew", 0.0),
    "triangular, normal 0.1": ("triangular", 0.1),
    "triangular, normal 0.5": ("triangular", 0.5),
    "triangular, normal 1": ("triangular", 1.0),
    "triangular, normal 2": ("triangular", 2.0),
    "triangular, uniform 0 to 1": ("triangular", None),
}
"""Exponent, and scale of the entries of t: ways to draw the gates, see `TriangularCircuitLayer`."""


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


def _circuits(model: Any) -> list[CircuitLayer]:
    """The circuits of the first layer, left ones first."""
    layer = model.layers[0]
    return [*layer.left, *layer.right]


def layer_gradients(model: HybridNetwork, x, y) -> list[float]:
    """Norm of the loss's gradient by the generators of every layer of gates, as x meets them.

    In double precision and with the statistics of this batch; the model is left as it is.
    """
    probe = copy.deepcopy(model).double().train()
    loss = cross_entropy(probe(torch.as_tensor(x).double()), torch.as_tensor(y))
    loss.backward()
    found: list[float] = []
    for circuit in _circuits(probe):
        squares: dict[int, float] = {}  # by placement
        generators: Any = circuit.generators
        for width, parameter in generators.items():
            places = [j for j, p in enumerate(circuit.ansatz.placements) if p.width == int(width)]
            sums = parameter.grad.square().sum(1).tolist()
            squares |= dict(zip(places, sums, strict=True))
        first = 0
        for layer in circuit.ansatz.layers:
            found.append(math.sqrt(sum(squares[first + k] for k in range(len(layer)))))
            first += len(layer)
    return found


def shape_of(circuits: Sequence[CircuitLayer]) -> dict[str, float]:
    """How far 2-body gates are from orthogonal ones, and how ill-conditioned the circuits are.

    "distance" is the mean of |g^T g - 1| (Frobenius) over gates, "condition" the largest of the
    condition numbers of the circuits' matrices; above 1e15 it is not resolved.
    """
    distances, conditions = [], []
    for circuit in circuits:
        probe = copy.deepcopy(circuit).double()
        with torch.no_grad():
            gates = probe.stacks()[2]
            off = gates.mT @ gates - torch.eye(4, dtype=gates.dtype)
            distances += off.flatten(1).norm(dim=1).tolist()
            values = torch.linalg.svdvals(probe.to_dense())
        conditions.append(min(1e16, float(values[0] / values[-1].clamp_min(1e-300))))
    return {"distance": statistics.mean(distances), "condition": max(conditions)}


def at_start(model: HybridNetwork, images: Dataset) -> dict[str, float]:
    """Gradients of the layers of gates, see `layer_gradients`, and the shape of the circuits.

    Layers are those of both circuits as x meets them; the median one is the last before the core.
    """
    found = layer_gradients(model, images.x_train[:SEEN], images.y_train[:SEEN])
    ends = {"first": found[0], "median": found[len(found) // 2 - 1], "last": found[-1]}
    return ends | shape_of(_circuits(model))


def gradients_of_draw(images: Dataset, draw: str, depth: int, seed: int) -> list[dict[str, Any]]:
    """Before any training, for other ways to draw the gates than those trained."""
    exponent, scale = DRAWS[draw]
    model = new_network(exponent, depth, cut=False, scale=scale, batch=SEEN, seed=seed)
    return [at_start(model, images)]


def train_depth(
    images: Dataset, variant: str, depth: int, seed: int, *, scale: float, recipe: dict[str, Any]
) -> list[dict[str, Any]]:
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
    row, circuits = at_start(model, images), _circuits(model)
    model, training = train_classifier(model, images, **recipe, seed=generator)
    return [
        {
            **row,
            **{f"trained_{name}": value for name, value in shape_of(circuits).items()},
            "accuracy": accuracy(model, images.x_test, images.y_test),
            "first_loss": training.losses[0],
            "last_loss": training.losses[-1],
            "parameters": model.counts()["gates"],
        }
    ]


def beginning(start: str, model, images: Dataset, *, depth: int, seed: int, **effort):
    """The layer that is put in the place of the MPO, in double precision.

    Explicit starts are the solutions of `disentangle`. "identity" has gates at a distance of 0.05
    and the MPO cut to bond dimension 1, "random" Haar-random gates and a random core of the MPO's
    norm.
    """
    mpo = model.mpo.to_mpo()
    left = brickwall(mpo.L, depth)
    if start in ("overlap", "activations"):
        given = {"objective": start, "init": "identity", "seed": seed, **effort}
        if start == "activations":
            given["covariance"] = second_moment(layer_inputs(model, "mpo", images.x_train))
        found = disentangle(mpo, left=left, max_bond=1, **given).factorization
        return HybridLinear.from_factorization(found, dtype=torch.float64)
    if start == "identity":
        rng = np.random.default_rng(seed)
        sides = [random_circuit(w, seed=rng, scale=0.05) for w in (left, left.reversed())]
        shape = (model.mpo.inputs, model.mpo.outputs)
        found = Factorization(sides[0], truncate(mpo, max_bond=1).mpo, sides[1], shape)
        return HybridLinear.from_factorization(found, dtype=torch.float64)
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
    return layer


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
        layer = beginning(start, model, images, depth=depth, seed=seed, **effort)
        model = replace_layer(model, "mpo", layer)
    model = model.float()
    x, y = torch.as_tensor(images.x_train), torch.as_tensor(images.y_train)
    batches = _batches(len(x), batch_size, checks[-1], seed)
    rows = []
    for rate in rates:
        trained = copy.deepcopy(model)
        steps = adam_steps(trained, x, y, learning_rate=rate, count=checks[-1])
        for done, check in pairwise((0, 0, *checks)):
            if check:
                trained.train()
                steps.epoch(batches[done:check])
            score = accuracy(trained.eval(), images.x_test, images.y_test)
            rows.append({"rate": rate, "step": check, "accuracy": score})
    parameters = sum(p.numel() for p in model.parameters())
    return [row | {"parameters": parameters} for row in rows]


def _batches(count: int, size: int, steps: int, seed: int) -> list[torch.Tensor]:
    """The same ones for every start of a seed."""
    generator, found = torch_generator(seed), []
    while len(found) < steps:
        order = torch.randperm(count, generator=generator)
        found += order.tensor_split(math.ceil(count / size))
    return found[:steps]
