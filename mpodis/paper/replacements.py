"""What can replace a dense layer at a number of parameters, every form by the same recipe.

Circuits around a core, the core alone, low rank and Monarch matrices are all fitted to the same
weighted distance |C (W - A) S|. What a network leaves free is free for all: the mean input goes
into the bias, and neurons may be reordered. Orders are searched in turn with the fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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
from mpodis.paper.networks import submodule
from mpodis.structured import (
    Approximation,
    Reordering,
    absorb_mean_into_bias,
    best_monarch,
    improve_permutation,
    low_rank,
    neuron_order,
)

__all__ = [
    "METHODS",
    "SO4",
    "Effort",
    "Layer",
    "Orders",
    "bricks",
    "circuits",
    "gate_count",
    "slot",
    "without_gates",
]

METHODS = CIRCUITS, MPO, RANK, MONARCH = ("circuits", "plain MPO", "low rank", "Monarch")

SO4 = 6
"""Numbers of a gate, the dimension of its group."""

LEAST_GAIN = 1e-3
"""An order that lowers the loss by a smaller fraction ends the search."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A matrix (inputs, outputs) and the second moments C^2 and S^2 that weigh its errors."""

    matrix: np.ndarray
    covariance: np.ndarray
    sensitivity: np.ndarray | None = None

    @property
    def moments(self) -> dict:
        return {"covariance": self.covariance, "sensitivity": self.sensitivity}

    def loss(self, other) -> float:
        """|C (W - A) S|^2 / |C W S|^2."""
        return weighted_loss(self.matrix, other, self.covariance, self.sensitivity)

    def nearest(self, found: Sequence[Approximation]) -> Approximation:
        """The one of the least loss."""
        return min(found, key=lambda one: self.loss(one.matrix))

    def padded(self) -> Layer:
        """With inputs that are always zero, up to a power of two: they may go anywhere."""
        extra = (0, padded_shape(qubit_legs(*self.matrix.shape))[0] - len(self.matrix))
        matrix = np.pad(self.matrix, (extra, (0, 0)))
        return Layer(matrix, np.pad(self.covariance, extra), self.sensitivity)

    def reordered(self, order: Reordering) -> Layer:
        weights = None if self.sensitivity is None else order.sensitivity(self.sensitivity)
        return Layer(order.apply(self.matrix), order.covariance(self.covariance), weights)


def slot(
    model: nn.Module, name: str, x, objective: str
) -> tuple[Layer, Callable[[np.ndarray], nn.Module]]:
    """A linear layer of a network, and the network as a function of the matrix that is there.

    Moments are those of the images x, the covariance about the mean, which goes into the bias;
    "sensitivity" also weighs errors by the gradients of the loss.
    """
    seen = collect_activations(model, name, x, with_sensitivity=objective == "sensitivity")
    linear = submodule(model, name)
    matrix, bias = (a.detach().numpy().T.copy() for a in (linear.weight, linear.bias))

    def filled(other: np.ndarray) -> nn.Module:
        own = absorb_mean_into_bias(matrix, other, seen.mean, bias)
        module = linear_from_matrix(other, bias=own, dtype=torch.float64)
        return replace_layer(model, name, module)

    return Layer(matrix, seen.centred, seen.sensitivity), filled


@dataclass(frozen=True)
class Effort:
    """How much a fit may cost: `starts` and `max_sweeps` are those of `disentangle`.

    Up to `rounds` orders are tried in turn with fits of `between` sweeps.
    """

    starts: int = 4
    max_sweeps: int = 60
    rounds: int = 6
    between: int = 12
    seed: int = 0


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
) -> Iterator[Approximation]:
    """Brickwalls of ascending depths around a core, each begun from the one before.

    Gates that are `mirrored`, see `tie_gates`, are stored once for their two places.
    """
    padded, shape = layer.padded(), layer.matrix.shape
    if orders is None:
        found = neuron_order(padded.matrix, max_bond=core_bond, seed=effort.seed, **padded.moments)
        orders = [Reordering.identity(padded.matrix.shape), found.reordering]
    begun: list[tuple[Disentangled | None, Reordering]] = [(None, order) for order in orders]
    for depth in depths:
        tried = [_in_turn(padded, core_bond, depth, *start, effort, mirrored) for start in begun]
        found, order = min(tried, key=lambda pair: pair[0].loss)
        begun = [(found, order)]
        core = found.factorization.parameter_counts()["core"]
        yield Approximation.of(
            layer.matrix,
            crop(order.undo(found.factorization.to_dense()), shape),
            name=f"chi {core_bond}, depth {depth}",
            parameters=core + SO4 * gate_count(shape, depth, mirrored),
        )


def _in_turn(
    layer: Layer,
    core_bond: int,
    depth: int,
    start: Disentangled | None,
    order: Reordering,
    effort: Effort,
    mirrored: bool,
) -> tuple[Disentangled, Reordering]:
    """Fit and order in turn; the fit goes on from `start` where there is one."""
    legs = qubit_legs(*layer.matrix.shape)
    left, right = (bricks(len(wires(legs, side)), depth, mirrored) for side in ("left", "right"))

    def fitted(init: str | Disentangled, starts: int, max_sweeps: int) -> Disentangled:
        now = layer.reordered(order)
        return disentangle(
            compress(now.matrix),
            left=left,
            right=right.reversed(),
            max_bond=core_bond,
            objective="activations",
            init=init,
            n_init=starts,
            init_sweeps=effort.between,
            max_sweeps=max_sweeps,
            seed=effort.seed,
            **now.moments,
        )

    several = start is None and depth > 0
    found = fitted(start or "identity", effort.starts if several else 1, effort.between)
    for _ in range(effort.rounds):
        now, fixed = layer.reordered(order), found.factorization.to_dense()
        step = improve_permutation(now.matrix, fixed, **now.moments)
        if now.reordered(step).loss(fixed) > (1 - LEAST_GAIN) * now.loss(fixed):
            break
        order = order.then(step)
        found = fitted(found, 1, effort.between)
    return fitted(found, 1, effort.max_sweeps), order


def without_gates(
    layer: Layer,
    method: str,
    size: int,
    effort: Effort,
    orders: Orders = None,
    *,
    turns: int = 2,
    **monarch: int,
) -> Approximation:
    """The core alone, of a bond dimension; a rank; or a Monarch matrix of so many parameters.

    The latter is fitted with the options of `best_monarch`, in the order given and in `turns` - 1
    that come of the fits.
    """
    if method == RANK:  # whitened; the order of neurons changes nothing
        return low_rank(layer.matrix, size, **layer.moments)
    if method == MPO:
        (found,) = circuits(layer, size, [0], effort, orders)
        return replace(found, name=f"chi {size}")
    order, tried = Reordering.identity(layer.matrix.shape), []
    for _ in range(turns):
        now = layer.reordered(order)
        found = best_monarch(now.matrix, size, seed=effort.seed, **monarch, **now.moments)
        tried.append(replace(found, matrix=order.undo(found.matrix)))
        order = order.then(improve_permutation(now.matrix, found.matrix, **now.moments))
    return layer.nearest(tried)


def gate_count(shape: tuple[int, int], depth: int, mirrored: bool = False) -> int:
    """Different gates of the circuits of a depth on both sides of a matrix of a shape."""
    legs = qubit_legs(*shape)
    sides = (bricks(len(wires(legs, side)), depth, mirrored) for side in ("left", "right"))
    return sum(len(side.free) for side in sides)


def bricks(n: int, depth: int, mirrored: bool = False) -> Ansatz:
    """2-body gates on n wires, none where there is but one."""
    # a wire that a layer leaves over needs no gate there: its rotation goes into a neighbour
    wall = brickwall(n, depth, fill=False) if depth and n > 1 else Ansatz(n, ())
    return tie_gates(wall, by="mirror") if mirrored else wall
