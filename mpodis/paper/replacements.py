"""What can replace a dense layer at a number of parameters, every form by the same recipe.

Circuits around a core, the core alone, low rank and Monarch matrices are all fitted to the same
weighted distance |C (W - A) S|. What a network leaves free is free for all: the mean input goes
into the bias, and neurons may be reordered. Orders are searched in turn with the fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from mpodis.circuit.ansatz import Ansatz, brickwall, tie_gates
from mpodis.conventions import crop, padded_shape, qubit_legs, wires
from mpodis.disentangling import disentangle
from mpodis.fit import weighted_loss
from mpodis.mpo import compress
from mpodis.nn import collect_activations, linear_from_matrix, replace_layer
from mpodis.optimise.result import Disentangled
from mpodis.paper.base import Options
from mpodis.paper.networks import submodule
from mpodis.paper.rotations import as_rotations
from mpodis.structured import (
    Reordering,
    absorb_mean_into_bias,
    best_monarch,
    improve_permutation,
    low_rank,
    neuron_order,
)

__all__ = [
    "ANGLES",
    "METHODS",
    "SO4",
    "Dense",
    "Effort",
    "Layer",
    "Slot",
    "Replacement",
    "bricks",
    "circuits",
    "gate_count",
    "monarch_matrix",
    "plain_mpo",
    "rank_matrix",
]

OBJECTIVES = ("activations", "sensitivity")

METHODS = ("circuits", "plain MPO", "low rank", "Monarch")
"""Ours, and the others."""

SO4, ANGLES = 6, 4
"""Numbers of a gate: the dimension of its group, and what a circuit needs of it."""

LEAST_GAIN = 1e-3
"""An order that lowers the loss by a smaller fraction ends the search."""


@dataclass(frozen=True)
class Dense(Options):
    """Options of `dense`: what replaces the layers, and the effort of each fit.

    Attributes
    ----------
    network : {"small", "wide"}
    objectives : tuple of str
        "activations": the distance of the activations; "sensitivity": weighted by the
        gradients of the loss.
    cores, depths, mirrored : tuple of int
        Bond dimensions of cores, and ascending depths of the circuits around each: of those whose
        gates are all free, and of those whose gates stand at two places.
    bonds, ranks, monarchs : tuple of int
        Bond dimensions of plain MPOs, ranks, and least parameters of Monarch matrices.
    starts, max_sweeps, rounds : int
        See `Effort`; for the wide network a quarter of the sweeps and a third of the rounds.
    shares : tuple of float
        Of the wide network's hidden weights that are kept.
    """

    seeds: int = 5
    network: str = "small"
    objectives: tuple[str, ...] = OBJECTIVES
    cores: tuple[int, ...] = (1, 2, 3, 4, 8, 12)
    depths: tuple[int, ...] = (2, 4, 5, 7, 9, 12, 16, 24)
    mirrored: tuple[int, ...] = (3, 4, 6, 9, 12, 16, 20, 26, 36)
    bonds: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
    ranks: tuple[int, ...] = tuple(range(1, 24))
    monarchs: tuple[int, ...] = (256, 384, 512, 768, 1024, 1536, 2048)
    starts: int = 4
    max_sweeps: int = 60
    rounds: int = 6
    shares: tuple[float, ...] = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network not in ("small", "wide"):
            raise ValueError(f"network={self.network!r} is not known; use small or wide")
        wrong = [name for name in self.objectives if name not in OBJECTIVES]
        if wrong or not self.objectives:
            raise ValueError(f"objectives={self.objectives} must be among {', '.join(OBJECTIVES)}")
        for name in ("depths", "mirrored"):
            depths = getattr(self, name)
            if not depths or list(depths) != sorted(set(depths)) or depths[0] < 1:
                raise ValueError(f"{name}={depths} must be ascending, from 1 on")


@dataclass(frozen=True, eq=False)
class Layer:
    """A matrix (inputs, outputs) and the second moments C^2 and S^2 that weigh its errors."""

    matrix: np.ndarray
    covariance: np.ndarray
    sensitivity: np.ndarray | None = None

    def loss(self, other) -> float:
        """|C (W - A) S|^2 / |C W S|^2."""
        return weighted_loss(self.matrix, other, self.covariance, self.sensitivity)

    @property
    def moments(self) -> dict:
        return {"covariance": self.covariance, "sensitivity": self.sensitivity}

    def padded(self) -> Layer:
        """With inputs that are always zero, up to a power of two: they may go anywhere."""
        extra = (0, padded_shape(qubit_legs(*self.matrix.shape))[0] - len(self.matrix))
        matrix = np.pad(self.matrix, (extra, (0, 0)))
        return Layer(matrix, np.pad(self.covariance, extra), self.sensitivity)

    def reordered(self, order: Reordering) -> Layer:
        weights = None if self.sensitivity is None else order.sensitivity(self.sensitivity)
        return Layer(order.apply(self.matrix), order.covariance(self.covariance), weights)


@dataclass(frozen=True, eq=False)
class Slot:
    """A linear layer in its network, to be replaced.

    Attributes
    ----------
    model : torch.nn.Module
    name : str
        Of the layer.
    layer : Layer
        Its covariance is taken about the mean, which the bias carries.
    mean : array (inputs,)
    bias : array (outputs,)
    """

    model: nn.Module
    name: str
    layer: Layer
    mean: np.ndarray
    bias: np.ndarray

    @classmethod
    def of(cls, model: nn.Module, name: str, x, objective: str) -> Slot:
        """From the images x; "sensitivity" also weighs by the gradients of the loss."""
        seen = collect_activations(model, name, x, with_sensitivity=objective == "sensitivity")
        linear = submodule(model, name)
        matrix, bias = (a.detach().numpy().T.copy() for a in (linear.weight, linear.bias))
        return cls(model, name, Layer(matrix, seen.centred, seen.sensitivity), seen.mean, bias)

    def filled(self, matrix) -> nn.Module:
        """The network with another matrix here, and the bias that goes with it."""
        bias = absorb_mean_into_bias(self.layer.matrix, matrix, self.mean, self.bias)
        module = linear_from_matrix(matrix, bias=bias, dtype=torch.float64)
        return replace_layer(self.model, self.name, module)


@dataclass(frozen=True, eq=False)
class Replacement:
    """A matrix that replaces a layer's, its parameters and its loss.

    Attributes
    ----------
    name : str
    matrix : array (inputs, outputs)
    parameters : int
        All numbers that are stored, six for a gate of SO(4), its dimension.
    independent : int
        The same with gates as CNOTs and rotations, four angles each, see `as_rotations`.
    loss : float
        `Layer.loss`.
    """

    name: str
    matrix: np.ndarray
    parameters: int
    independent: int
    loss: float


@dataclass(frozen=True)
class Effort:
    """How much a fit may cost.

    Attributes
    ----------
    starts, max_sweeps : int
        Of `disentangle`; the last fit of a form takes up to `max_sweeps`.
    rounds : int
        Orders that are tried in turn with the fits, at most.
    between : int, optional
        Sweeps of a fit between two orders; by default a fifth of `max_sweeps`.
    seed : int
    """

    starts: int = 4
    max_sweeps: int = 60
    rounds: int = 6
    between: int | None = None
    seed: int = 0

    @property
    def short(self) -> int:
        return max(1, self.max_sweeps // 5) if self.between is None else self.between


Orders = Sequence[Reordering] | None
"""Where a search begins; None: the order given, and that of `neuron_order`."""


def circuits(
    layer: Layer,
    core_bond: int,
    depths: Sequence[int],
    effort: Effort,
    orders: Orders = None,
    *,
    mirrored: bool = False,
) -> Iterator[Replacement]:
    """Brickwalls of ascending depths around a core, each begun from the one before.

    The matrix is that of the CNOTs and rotations. Gates that are `mirrored`, see `tie_gates`, are
    stored once for their two places; they are counted at six numbers, as they have to remain equal
    where the rotations of free ones merge with their neighbours'.
    """
    padded = layer.padded()
    orders = _orders(padded, core_bond, effort) if orders is None else orders
    begun = [(None, order) for order in orders]
    for depth in depths:
        tried = [
            _in_turn(padded, core_bond, depth, order, found, effort, mirrored)
            for found, order in begun
        ]
        found, order = min(tried, key=lambda pair: pair[0].loss)
        begun = [(found, order)]
        rotations = as_rotations(found.factorization)
        matrix = crop(order.undo(rotations.to_dense()), layer.matrix.shape)
        core = rotations.parameter_counts()["core"]
        gates = gate_count(layer.matrix.shape, depth, mirrored=mirrored)
        six, four = gates * SO4, gates * (SO4 if mirrored else ANGLES)
        name = f"chi {core_bond}, depth {depth}"
        yield Replacement(name, matrix, core + six, core + four, layer.loss(matrix))


def plain_mpo(layer: Layer, bond: int, effort: Effort, orders: Orders = None) -> Replacement:
    """The core alone."""
    padded = layer.padded()
    orders = _orders(padded, bond, effort) if orders is None else orders
    tried = [_in_turn(padded, bond, 0, order, None, effort) for order in orders]
    best, order = min(tried, key=lambda pair: pair[0].loss)
    matrix = crop(order.undo(best.factorization.to_dense()), layer.matrix.shape)
    parameters = best.factorization.parameter_counts()["core"]
    return Replacement(f"chi {bond}", matrix, parameters, parameters, layer.loss(matrix))


def rank_matrix(layer: Layer, rank: int) -> Replacement:
    """Whitened SVD; the order of neurons changes nothing."""
    found = low_rank(layer.matrix, rank, **layer.moments)
    count, loss = found.parameters, layer.loss(found.matrix)
    return Replacement(found.name, found.matrix, count, count, loss)


def monarch_matrix(
    layer: Layer, parameters: int, effort: Effort, *, orders: int = 2, **options
) -> Replacement:
    """The best of `best_monarch` in the order given, and in `orders` - 1 that come of the fits."""
    order, tried = Reordering.identity(layer.matrix.shape), []
    for _ in range(orders):
        now = layer.reordered(order)
        found = best_monarch(now.matrix, parameters, seed=effort.seed, **options, **now.moments)
        matrix, count = order.undo(found.matrix), found.parameters
        tried.append(Replacement(found.name, matrix, count, count, layer.loss(matrix)))
        order = order.then(improve_permutation(now.matrix, found.matrix, **now.moments))
    return min(tried, key=lambda one: one.loss)


def gate_count(shape: tuple[int, int], depth: int, *, mirrored: bool = False) -> int:
    """Different gates of the circuits of a depth on both sides of a matrix of a shape."""
    legs = qubit_legs(*shape)
    sides = (bricks(len(wires(legs, side)), depth, mirrored) for side in ("left", "right"))
    return sum(len(side.free) for side in sides)


def _orders(layer: Layer, bond: int, effort: Effort) -> list[Reordering]:
    found = neuron_order(layer.matrix, max_bond=bond, seed=effort.seed, **layer.moments)
    return [Reordering.identity(layer.matrix.shape), found.reordering]


def _in_turn(
    layer: Layer,
    core_bond: int,
    depth: int,
    order: Reordering,
    start: Disentangled | None,
    effort: Effort,
    mirrored: bool = False,
) -> tuple[Disentangled, Reordering]:
    """Fit and order in turn; the fit goes on from `start` where there is one."""
    legs = qubit_legs(*layer.matrix.shape)
    left, right = (bricks(len(wires(legs, side)), depth, mirrored) for side in ("left", "right"))

    def fitted(start, starts: int, max_sweeps: int) -> Disentangled:
        now = layer.reordered(order)
        return disentangle(
            compress(now.matrix),
            left=left,
            right=right.reversed(),
            max_bond=core_bond,
            objective="activations",
            init=start,
            n_init=starts,
            init_sweeps=effort.short,
            max_sweeps=max_sweeps,
            seed=effort.seed,
            **now.moments,
        )

    several = start is None and depth > 0
    begin = "identity" if start is None else start
    found = fitted(begin, effort.starts if several else 1, effort.short)
    for _ in range(effort.rounds):
        now, fixed = layer.reordered(order), found.factorization.to_dense()
        step = improve_permutation(now.matrix, fixed, **now.moments)
        if now.reordered(step).loss(fixed) > (1 - LEAST_GAIN) * now.loss(fixed):
            break
        order = order.then(step)
        found = fitted(found, 1, effort.short)
    return fitted(found, 1, effort.max_sweeps), order


def bricks(n: int, depth: int, mirrored: bool = False) -> Ansatz:
    """2-body gates on n wires, none where there is but one."""
    # a wire that a layer leaves over needs no gate there: its rotation goes into a neighbour
    wall = brickwall(n, depth, fill=False) if depth and n > 1 else Ansatz(n, ())
    return tie_gates(wall, by="mirror") if mirrored else wall
