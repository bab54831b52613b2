"""From a trained network to one of MPO and hybrid layers, and back to its accuracy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from mpodis.disentangling import disentangle
from mpodis.fit import fit_core
from mpodis.mpo import compress
from mpodis.nn.activations import collect_activations
from mpodis.nn.circuits import TrainedCircuit
from mpodis.nn.hybrid import HybridLinear
from mpodis.nn.layers import MPOLinear, find_layer, replace_layer
from mpodis.nn.training import check_loss, check_settings
from mpodis.optimise.result import Disentangled
from mpodis.progress import bar
from mpodis.tables import Table

__all__ = ["Pointwise", "compress_module", "disentangle_module", "heal", "parameter_table"]

KINDS = ("MPO", "gates", "BatchNorm", "dense", "other")


class Pointwise(nn.Module):
    """A 1 x 1 convolution by a layer on the channels: (n, channels, ...) to (n, channels', ...).

    Parameters
    ----------
    layer : torch.nn.Module
        From (..., inputs) to (..., outputs).
    stride : tuple of int
        Of the spatial axes.
    """

    def __init__(self, layer: nn.Module, stride: tuple[int, ...] = (1, 1)) -> None:
        super().__init__()
        self.layer, self.stride = layer, tuple(stride)

    def forward(self, x: Tensor) -> Tensor:
        x = x[(..., *(slice(None, None, step) for step in self.stride))]
        return self.layer(x.movedim(-1 - len(self.stride), -1)).movedim(-1, -1 - len(self.stride))

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


def compress_module(
    model: nn.Module, layers: Mapping[str, int | Mapping], *, loader=None, tol: float = 1e-6
) -> nn.Module:
    """A copy of a network in which the weights of some layers are MPOs of small bond dimension.

    Parameters
    ----------
    model : torch.nn.Module
    layers : mapping of names to bond dimensions or options
        Dotted names of `torch.nn.Linear` layers and 1 x 1 convolutions; options are those of
        `mpodis.compress`: ``legs, max_bond, rel_error, cutoff, align``.
    loader : iterable of batches, or one array or tensor, optional
        What the network sees, see `collect_activations`: each MPO is then the one with the least
        error of the layer's outputs, in a network whose earlier layers (in the order named) have
        been replaced; without it, of the matrix.
    tol : float
        Of this fit, see `mpodis.fit_core`; where healing follows, a large layer is done sooner
        with 1e-4.

    Raises
    ------
    ValueError, TypeError
        For names that are not there, and layers that hold no matrix.
    """
    for name, options in layers.items():
        layer = find_layer(model, name)
        matrix, bias = _matrix(layer, name)
        given = dict(options) if isinstance(options, Mapping) else {"max_bond": int(options)}
        found = compress(matrix, **given)
        mpo = found.mpo
        if loader is not None and mpo.L > 1:
            bond = max(mpo.bond_sizes())
            seen = collect_activations(model, name, loader)
            whole = compress(matrix, legs=found.legs)
            mpo = fit_core(whole.mpo, max_bond=bond, metric=seen.covariance, tol=tol)
        dtype = layer.weight.dtype
        own = MPOLinear.from_mpo(mpo, shape=matrix.shape, bias=bias, dtype=dtype)
        model = replace_layer(model, name, _around(layer, own))
    return model if layers else copy.deepcopy(model)


def disentangle_module(
    model: nn.Module,
    name: str,
    *,
    loader=None,
    sensitivity: bool = False,
    batch: int = 256,
    plan: str | None = None,
    **options,
) -> tuple[nn.Module, Disentangled]:
    """A copy in which an MPO layer is a `HybridLinear` that begins as the explicit solution.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        Of an `MPOLinear`, or of what `compress_module` put in the place of a convolution.
    loader : iterable of batches, or one array or tensor, optional
        What the network sees; the distance is then that of the layer's activations.
    sensitivity : bool
        Also weigh the outputs by what the loss feels of them.
    batch, plan
        See `HybridLinear`.
    **options
        Of `mpodis.disentangle`: ``left``, ``max_bond``, ``seed``, ...

    Returns
    -------
    model : torch.nn.Module
    found : Disentangled
        Its factorization computes the same as the layer, before the first step of training.
    """
    layer = find_layer(model, name)
    own = layer.layer if isinstance(layer, Pointwise) else layer
    if not isinstance(own, MPOLinear):
        raise TypeError(
            f"{name!r} is a {type(own).__name__}, not an MPOLinear; use compress_module first"
        )
    if loader is not None:
        inner = f"{name}.layer" if isinstance(layer, Pointwise) else name  # behind the moved axis
        seen = collect_activations(model, inner, loader, sensitivity=sensitivity)
        moments = {"covariance": seen.covariance, "sensitivity": seen.sensitivity}
        options = {"objective": "activations", **moments} | options
    found = disentangle(own.to_mpo(), shape=(own.inputs, own.outputs), **options)
    hybrid = HybridLinear.from_factorization(
        found.factorization,
        bias=None if own.bias is None else own.bias.detach(),
        dtype=own.cores[0].dtype,
        batch=batch,
        plan=plan,
    )
    module = Pointwise(hybrid, layer.stride) if isinstance(layer, Pointwise) else hybrid
    return replace_layer(model, name, module), found


def heal(
    model: nn.Module,
    loader: Iterable,
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    progbar: bool = False,
) -> list[float]:
    """Train a network in place for a few passes, with Adam and a half cosine; returns the losses.

    Parameters
    ----------
    model : torch.nn.Module
        All its parameters are trained; it is left in evaluation mode.
    loader : iterable of (inputs, targets)
        Gone through once an epoch; its order is its own.
    loss : callable
        Of outputs and targets.
    epochs : int
    learning_rate : float
        At the start; it falls to 0.
    progress : bool
        Show a progress bar with the loss.

    Raises
    ------
    ValueError
        For settings that make no sense, an empty loader, or a loss that becomes infinite.
    """
    check_settings(learning_rate, epochs=epochs)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    device = next(model.parameters()).device
    losses: list[float] = []
    batches = len(loader) if hasattr(loader, "__len__") else None
    # a loader of unknown length is slowed down from epoch to epoch
    schedule = CosineAnnealingLR(optimizer, max(1, epochs * (batches or 1)))
    model.train()
    with bar(total=epochs, desc="healing", enabled=progbar) as shown:
        for epoch in range(epochs):
            total, count = 0.0, 0
            for x, y in loader:
                value = loss(model(x.to(device)), y.to(device))
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                if batches:
                    schedule.step()
                total, count = total + value.item() * len(x), count + len(x)
            if not count:
                raise ValueError("the loader has no batches; an iterator is used up after one pass")
            if not batches:
                schedule.step()
            losses.append(total / count)
            check_loss(losses[-1], epoch, learning_rate)
            shown.update(loss=losses[-1])
    model.eval()
    return losses


def parameter_table(model: nn.Module) -> Table:
    """Parameters layer by layer: MPO cores, gates, BatchNorm, dense weights, all else, apart.

    Biases count as "dense". Every parameter counts once, however often its module is used.
    """
    rows: list[tuple] = []
    seen: set[int] = set()

    def counted(parameters) -> int:
        fresh = [p for p in parameters if id(p) not in seen]
        seen.update(map(id, fresh))
        return sum(p.numel() for p in fresh)

    def add(name: str, **counts: int) -> None:
        if any(counts.values()):
            rows.append((name or "(model)", *(counts.get(kind, 0) for kind in KINDS)))

    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if module in inside:
            continue
        if isinstance(module, (HybridLinear, MPOLinear)):
            core = module.core if isinstance(module, HybridLinear) else module
            gates = [
                p
                for part in module.modules()
                if isinstance(part, TrainedCircuit)
                for p in part.parameters()
            ]
            bias = [] if module.bias is None else [module.bias]
            add(name, MPO=counted(core.cores), gates=counted(gates), dense=counted(bias))
            inside |= set(module.modules())
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            add(name, BatchNorm=counted(module.parameters(recurse=False)))
        else:
            own = list(module.parameters(recurse=False))
            dense = isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
            add(name, **{"dense" if dense else "other": counted(own)})
    total = [sum(row[k] for row in rows) for k in range(1, len(KINDS) + 1)]
    rows = [(name, *counts, sum(counts)) for name, *counts in [*rows, ("all", *total)]]
    return Table(("layer", *KINDS, "all"), rows, title="parameters")


def _matrix(layer: nn.Module, name: str) -> tuple[np.ndarray, Tensor | None]:
    """(inputs, outputs) and the bias of a linear layer or a 1 x 1 convolution."""
    if isinstance(layer, nn.Linear):
        weight = layer.weight
    elif isinstance(layer, nn.modules.conv._ConvNd):
        pointwise = set(layer.kernel_size) == {1} and layer.groups == 1
        padded = not isinstance(layer.padding, str) and any(layer.padding)
        if not pointwise or padded:
            raise ValueError(
                f"{name!r} is a convolution with kernel {layer.kernel_size}, groups "
                f"{layer.groups} and padding {layer.padding}; only 1 x 1 ones without padding and "
                "groups are matrices"
            )
        weight = layer.weight.flatten(1)
    else:
        raise TypeError(
            f"{name!r} is a {type(layer).__name__}; give a torch.nn.Linear or a 1 x 1 convolution"
        )
    bias = None if layer.bias is None else layer.bias.detach()
    return weight.detach().cpu().double().numpy().T.copy(), bias


def _around(layer: nn.Module, own: nn.Module) -> nn.Module:
    convolution = isinstance(layer, nn.modules.conv._ConvNd)
    return Pointwise(own, layer.stride) if convolution else own
