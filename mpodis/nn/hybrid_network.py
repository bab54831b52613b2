"""Networks of hybrid layers with batch normalization and ReLU between them (Figs. 5 and 6).

The figures are those of arXiv 2509.06653v1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpodis.conventions import check_legs, padded_shape
from mpodis.nn.hybrid_linear import HybridLinear
from mpodis.nn.linear import Seed, seeded_linear, torch_generator
from mpodis.nn.parameter_table import parameter_table

__all__ = ["HybridNetwork", "LayerSpec", "ShiftedBatchNorm"]


@dataclass(frozen=True)
class LayerSpec:
    """Shape and circuits of one linear layer of a `HybridNetwork`, see `HybridLinear`.

    Attributes
    ----------
    legs : tuple of (input, output)
        With a single site the layer is a dense `torch.nn.Linear`.
    bond : int or tuple of int
    left, right : str
        Specs of the circuits, empty for none.
    """

    legs: tuple[tuple[int, int], ...]
    bond: int | tuple[int, ...] = 1
    left: str = ""
    right: str = ""

    @property
    def shape(self) -> tuple[int, int]:
        """Number of inputs and outputs."""
        return padded_shape(self.legs)


class ShiftedBatchNorm(nn.BatchNorm1d):
    """Batch normalization with a trained shift and no trained scale: half the parameters."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, input: Tensor) -> Tensor:
        """Normalized and shifted batch (n, features)."""
        return super().forward(input) + self.shift


NORMS = {"affine": nn.BatchNorm1d, "shift": ShiftedBatchNorm}


class HybridNetwork(nn.Sequential):
    """Linear layers without bias, and a batch normalization and a ReLU after each but the last.

    Parameters
    ----------
    specs : sequence of LayerSpec
        Every layer must have as many inputs as the one before it has outputs.
    norm : {"affine", "shift"}
        Batch normalization with scale and shift, as in the paper, or with a shift only.
    init_scale : float or None
        Standard deviation of the gates' initial generators; None: Haar-random gates.
    parity : {0, 1}
        Wire on which the first gate of a circuit's brickwall begins.
    norm_in_circuits : bool
        Batch normalization, without parameters, before the activation functions within circuits
        (where a spec has a "|").
    batch_size : int
        Number of rows of x that the layers are planned for, see `HybridLinear`.
    seed : int, numpy.random.Generator, torch.Generator or None

    Raises
    ------
    ValueError
        For layers that do not fit each other, and where `HybridLinear` raises one.

    Examples
    --------
    >>> specs = LayerSpec(((2, 2),) * 3, left="2b"), LayerSpec(((8, 10),))
    >>> HybridNetwork(specs, seed=0)(torch.rand(5, 8)).shape
    torch.Size([5, 10])
    """

    def __init__(
        self,
        specs: Sequence[LayerSpec],
        *,
        norm: str = "affine",
        init_scale: float | None = None,
        parity: int = 0,
        norm_in_circuits: bool = True,
        batch_size: int = 256,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} is not known; use {', '.join(NORMS)}")
        if not specs:
            raise ValueError("a network needs one layer or more; specs is empty")
        generator = torch_generator(seed)
        self.specs = tuple(specs)
        for k, spec in enumerate(self.specs, 1):
            inputs, outputs = spec.shape
            if k > 1 and inputs != self.specs[k - 2].shape[1]:
                raise ValueError(
                    f"layer {k} has {inputs} inputs, but layer {k - 1} has "
                    f"{self.specs[k - 2].shape[1]} outputs; change the legs of one of them"
                )
            if len(check_legs(spec.legs)) > 1:
                layer: nn.Module = HybridLinear(
                    spec.legs,
                    spec.bond,
                    left=spec.left or None,
                    right=spec.right or None,
                    init_scale=init_scale,
                    parity=parity,
                    norm=norm_in_circuits,
                    batch_size=batch_size,
                    seed=generator,
                )
            elif spec.left or spec.right:
                raise ValueError(
                    f"a layer of one site, {spec.legs}, has no wires for circuits; leave them out"
                )
            else:
                layer = seeded_linear(inputs, outputs, bias=False, seed=generator)
            self.add_module(f"layer{k}", layer)
            if k < len(self.specs):
                self.add_module(f"norm{k}", NORMS[norm](outputs))
                self.add_module(f"relu{k}", nn.ReLU())

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The linear layers in their order, each a `HybridLinear` or a `torch.nn.Linear`."""
        return tuple(self.get_submodule(f"layer{k + 1}") for k in range(len(self.specs)))

    def counts(self) -> dict[str, int]:
        """Number of parameters by their kind, see `parameter_table`, and of "all" together."""
        table = parameter_table(self)
        total: Any = table.rows[-1]
        return dict(zip(table.columns[1:], total[1:], strict=True))
