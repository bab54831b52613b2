"""Networks of MPO layers and circuits with batch normalization and ReLU between (Figs. 5 and 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpodis.conventions import check_legs, padded_shape
from mpodis.nn.hybrid import HybridLinear
from mpodis.nn.layers import torch_generator
from mpodis.nn.swap import parameter_table

__all__ = ["HybridNetwork", "ShiftedNorm", "Stage"]


@dataclass(frozen=True)
class Stage:
    """A layer of a `HybridNetwork`, see `HybridLinear`.

    Attributes
    ----------
    legs : tuple of (input, output)
        One site alone is a dense layer.
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
        """Inputs and outputs."""
        return padded_shape(self.legs)


class ShiftedNorm(nn.BatchNorm1d):
    """Batch normalization with a trained shift and no trained scale: half the parameters."""

    def __init__(self, features: int) -> None:
        super().__init__(features, affine=False)
        self.shift = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.shift


NORMS = {"affine": nn.BatchNorm1d, "shift": ShiftedNorm}


class HybridNetwork(nn.Sequential):
    """Stages without bias; after each but the last a batch normalization and a ReLU.

    Parameters
    ----------
    stages : sequence of Stage
        What one gives has to be what the next one takes.
    norm : {"affine", "shift"}
        With scale and shift, as in the paper, or with a shift only.
    scale : float or None
        Of the gates' generators at the start; None: Haar-random gates.
    parity : {0, 1}
        Wire on which the first brick of a circuit begins.
    cut_norm : bool
        Batch normalization, without parameters, at the cuts of a spec.
    batch : int
        See `HybridLinear`.
    seed : int, numpy.random.Generator or torch.Generator

    Raises
    ------
    ValueError
        For stages that do not fit each other, and all that `HybridLinear` refuses.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        norm: str = "affine",
        scale: float | None = None,
        parity: int = 0,
        cut_norm: bool = True,
        batch: int = 256,
        seed=None,
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} is not known; use {', '.join(NORMS)}")
        if not stages:
            raise ValueError("a network needs one stage at least")
        generator = torch_generator(seed)
        self.stages = tuple(stages)
        for k, stage in enumerate(self.stages, 1):
            inputs, outputs = stage.shape
            if k > 1 and inputs != self.stages[k - 2].shape[1]:
                raise ValueError(
                    f"stage {k} takes {inputs} inputs, but stage {k - 1} gives "
                    f"{self.stages[k - 2].shape[1]} outputs; change the legs of one of them"
                )
            self.add_module(
                f"layer{k}",
                _layer(
                    stage, scale=scale, parity=parity, norm=cut_norm, batch=batch, seed=generator
                ),
            )
            if k < len(self.stages):
                self.add_module(f"norm{k}", NORMS[norm](outputs))
                self.add_module(f"relu{k}", nn.ReLU())

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The linear ones in their order, a `HybridLinear` or a `torch.nn.Linear`."""
        return tuple(self.get_submodule(f"layer{k + 1}") for k in range(len(self.stages)))

    def counts(self) -> dict[str, int]:
        """Parameters of MPO cores, gates, BatchNorm and dense layers, and of all together."""
        table = parameter_table(self)
        return dict(zip(table.columns[1:], table.rows[-1][1:], strict=True))


def _layer(stage: Stage, *, seed: torch.Generator, **options) -> nn.Module:
    if len(check_legs(stage.legs)) > 1:
        left, right = stage.left or None, stage.right or None
        return HybridLinear(stage.legs, stage.bond, left=left, right=right, seed=seed, **options)
    if stage.left or stage.right:
        raise ValueError(f"a stage of one site, {stage.legs}, has no wires for circuits")
    inputs, outputs = stage.shape
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    with torch.no_grad():  # nn.Linear itself would draw from the global generator
        layer.weight.uniform_(-(inputs**-0.5), inputs**-0.5, generator=seed)
    return layer
