"""Networks whose circuits are run by a given function, such as a quantum device, not by torch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.circuit.circuit import Circuit
from mpodis.nn.circuit_layer import CircuitLayer
from mpodis.nn.hybrid_linear import HybridLinear
from mpodis.nn.submodules import set_layer

__all__ = ["ExternalCircuitLinear", "with_external_circuits"]

Run = Callable[[Circuit, np.ndarray], np.ndarray]
"""From a circuit of n wires and rows (m, 2^n) to those rows times its matrix."""


class ExternalCircuitLinear(nn.Module):
    """A `HybridLinear` whose circuits are run by a function; it has no gradient.

    Parameters
    ----------
    layer : HybridLinear
        Its gates are read here, once.
    run : callable
        Takes a circuit of n wires and rows (m, 2^n), and returns the rows times its matrix.
    """

    def __init__(self, layer: HybridLinear, run: Run) -> None:
        super().__init__()
        self.layer, self.run = layer, run
        circuits = (*layer.circuits("left"), *layer.circuits("right"))
        self._circuits = {circuit: circuit.circuit() for circuit in circuits}

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., outputs) of a batch (..., inputs)."""
        y = self.layer.forward_with(x.reshape(-1, self.layer.inputs), self._run)
        return y.reshape(*x.shape[:-1], self.layer.outputs)

    def _run(self, circuit: CircuitLayer, rows: Tensor) -> Tensor:
        done = self.run(self._circuits[circuit], rows.contiguous().numpy())
        return torch.from_numpy(np.ascontiguousarray(done))


def with_external_circuits(model: nn.Module, run: Run) -> nn.Module:
    """A copy of a network in which `run` runs the circuits of every `HybridLinear`.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    run : callable
        Takes a circuit of n wires and rows (m, 2^n), and returns the rows times its matrix.

    Returns
    -------
    torch.nn.Module
        On the CPU, in double precision and evaluation mode.

    Raises
    ------
    ValueError
        If the model has no `HybridLinear` with circuits.

    Examples
    --------
    >>> layer = HybridLinear(((2, 2),) * 3, left="2b", right="2b", seed=0)
    >>> with_external_circuits(layer, Circuit.apply)(torch.ones(1, 8).double()).shape
    torch.Size([1, 8])
    """
    # a model that is itself a HybridLinear becomes a submodule, so that it can be replaced
    found = nn.Sequential(copy.deepcopy(model)).cpu().double().eval()
    for parameter in found.parameters():
        if parameter.is_complex():  # `double` does not change these
            parameter.data = parameter.data.to(torch.complex128)
    layers = {
        name: module
        for name, module in found.named_modules()
        if isinstance(module, HybridLinear) and len(module.left) + len(module.right)
    }
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no HybridLinear with circuits; make one with "
            "disentangle_module or HybridLinear.from_factorization"
        )
    for name, layer in layers.items():
        set_layer(found, name, ExternalCircuitLinear(layer, run))
    return found
