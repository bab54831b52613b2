"""Reorder the hidden neurons of a network without changing what it computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.nn.layers import find_layer
from mpodis.structured.reordering import check_permutation

__all__ = ["absorb_permutation"]

# act on every feature alike; dropout counts, its mask is drawn for every feature alike
ELEMENTWISE = (
    nn.AlphaDropout,
    nn.CELU,
    nn.Dropout,
    nn.ELU,
    nn.GELU,
    nn.Hardshrink,
    nn.Hardsigmoid,
    nn.Hardswish,
    nn.Hardtanh,
    nn.Identity,
    nn.LeakyReLU,
    nn.LogSigmoid,
    nn.Mish,
    nn.ReLU,
    nn.ReLU6,
    nn.SELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Softplus,
    nn.Softshrink,
    nn.Softsign,
    nn.Tanh,
    nn.Tanhshrink,
    nn.Threshold,
)
# keep numbers for every feature, which move along
FEATUREWISE = (nn.BatchNorm1d, nn.LayerNorm, nn.PReLU, nn.RMSNorm)


def absorb_permutation(
    model: nn.Module,
    first: str,
    second: str,
    permutation,
    *,
    between: Sequence[str] | None = None,
) -> nn.Module:
    """A copy of a network with the neurons between two linear layers in another order.

    The outputs of `first` (weight rows and bias), the numbers that modules between keep for every
    neuron (BatchNorm1d, LayerNorm, RMSNorm, PReLU) and the inputs of `second` are permuted, so
    that the network computes the same function, to rounding. Row action: the matrix of `first`
    becomes ``W[:, permutation]``, that of `second` ``W[permutation]``.

    Parameters
    ----------
    model : torch.nn.Module
    first, second : str
        Names of two `torch.nn.Linear`.
    permutation : array of int (neurons,)
        The new neuron j is the old ``permutation[j]``: the columns of a `Reordering`.
    between : sequence of str, optional
        Names of the modules between. Default: what stands between the two in the
        `torch.nn.Sequential` that holds both. Where the forward pass is your own code, name them,
        [] for none; functions there (torch.relu) must be elementwise, nothing can check that.

    Returns
    -------
    torch.nn.Module
        The model given is left as it is.

    Raises
    ------
    TypeError
        A module between that mixes neurons, or layers that are no plain `torch.nn.Linear`.
    ValueError
        Names that do not exist, no common Sequential, sizes that do not fit, tied parameters.
    """
    if first == second:
        raise ValueError(f"first and second are both {first!r}; name two layers")
    between = _between(model, first, second) if between is None else list(between)
    layers = {name: find_layer(model, name) for name in (first, *between, second)}
    for name in (first, second):
        if type(layers[name]) is not nn.Linear:
            raise TypeError(
                f"{name!r} is a {type(layers[name]).__name__}; only a plain torch.nn.Linear "
                "has rows and columns to permute"
            )
    neurons = layers[first].out_features
    if layers[second].in_features != neurons:
        raise ValueError(
            f"{first!r} has {neurons} outputs, {second!r} {layers[second].in_features} inputs; "
            "something between them changes the number of neurons"
        )
    order = check_permutation(permutation, what="permutation", size=neurons)
    for name in between:
        _check_between(name, layers[name], neurons)
    _check_untied(model, layers)
    changed = copy.deepcopy(model)
    index = torch.as_tensor(np.array(order))
    with torch.no_grad():
        target = changed.get_submodule(first)
        _permute(target.weight, index)
        if target.bias is not None:
            _permute(target.bias, index)
        for name in between:
            module = changed.get_submodule(name)
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.shape == (neurons,):
                    _permute(tensor, index)
        _permute(changed.get_submodule(second).weight, index, dim=1)
    return changed


def _between(model: nn.Module, first: str, second: str) -> list[str]:
    for name in (first, second):
        find_layer(model, name)
    (parent, _, a), (other, _, b) = first.rpartition("."), second.rpartition(".")
    holder = model.get_submodule(parent)
    if parent != other or not isinstance(holder, nn.Sequential):
        raise ValueError(
            f"{first!r} and {second!r} do not stand in one torch.nn.Sequential; "
            "name what is between them with between=[...], [] for nothing but functions"
        )
    names = list(holder._modules)
    start, stop = names.index(a), names.index(b)
    if start > stop:
        raise ValueError(f"{second!r} comes before {first!r}; exchange them")
    prefix = f"{parent}." if parent else ""
    return [prefix + name for name in names[start + 1 : stop]]


def _check_between(name: str, module: nn.Module, neurons: int) -> None:
    if isinstance(module, FEATUREWISE):
        sizes = [
            tuple(getattr(module, "normalized_shape", ())),
            *(tuple(t.shape) for t in (*module.parameters(), *module.buffers())),
        ]
        if any(size not in ((), (1,), (neurons,)) for size in sizes):
            raise ValueError(
                f"{name!r}, a {type(module).__name__}, acts on features of shape "
                f"{next(s for s in sizes if s not in ((), (1,), (neurons,)))}, not on the "
                f"{neurons} neurons alone"
            )
    elif not isinstance(module, ELEMENTWISE):
        raise TypeError(
            f"{name!r} is a {type(module).__name__}, which is not known to act on every neuron "
            "alone; the order of the neurons cannot pass through it"
        )


def _check_untied(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """No parameter of these layers may serve elsewhere too: there it would be permuted as well."""
    names: dict[int, list[str]] = {}
    for kind in (model.named_parameters, model.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    for name, layer in layers.items():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if len(names[id(tensor)]) > 1:
                raise ValueError(
                    f"{name!r} shares a parameter: {', '.join(names[id(tensor)])} are one; "
                    "untie them first"
                )


def _permute(tensor: Tensor, index: Tensor, dim: int = 0) -> None:
    tensor.copy_(tensor.index_select(dim, index.to(tensor.device)))
