"""Networks in which something else than torch runs the circuits."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.circuit.circuit import Circuit
from mpodis.nn.circuits import TrainedCircuit
from mpodis.nn.hybrid import HybridLinear

__all__ = ["ExecutedLayer", "executed_model"]

Run = Callable[[Circuit, np.ndarray], np.ndarray]


class ExecutedLayer(nn.Module):
    """A `HybridLinear` whose sub-circuits are run by a function; it has no gradient.

    Parameters
    ----------
    layer : HybridLinear
    run : callable
        From a circuit of n wires and rows (m, 2^n) to those rows times its matrix.
    """

    def __init__(self, layer: HybridLinear, run: Run) -> None:
        super().__init__()
        self.layer, self.run = layer, run
        # gates are read once: the layer is not trained from here on
        self._circuits = {one: one.circuit() for one in (*layer.left, *layer.right)}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        y = self.layer.executed(x.reshape(-1, self.layer.inputs), self._run)
        return y.reshape(*x.shape[:-1], self.layer.outputs)

    def _run(self, trained: TrainedCircuit, rows: Tensor) -> Tensor:
        done = self.run(self._circuits[trained], rows.contiguous().numpy())
        return torch.from_numpy(np.ascontiguousarray(done))


def executed_model(model: nn.Module, run: Run) -> nn.Module:
    """A copy in double precision, to evaluate, with all circuits of its layers run by `run`.

    Raises
    ------
    ValueError
        If the model has no `HybridLinear` with circuits.
    """
    # a network that is one such layer is put into another, so that it can be replaced
    found = nn.Sequential(copy.deepcopy(model)).cpu().double().eval()
    for parameter in found.parameters():  # those that `double` leaves alone
        if parameter.is_complex():
            parameter.data = parameter.data.to(torch.complex128)
    names = [
        name
        for name, module in found.named_modules()
        if isinstance(module, HybridLinear) and len(module.left) + len(module.right)
    ]
    if not names:
        raise ValueError(
            f"{type(model).__name__} has no HybridLinear with circuits; make one with "
            "disentangle_module or HybridLinear.from_factorization"
        )
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(found.get_submodule(parent), child, ExecutedLayer(found.get_submodule(name), run))
    return found
