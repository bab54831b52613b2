"""Permute the hidden neurons of a network without changing what it computes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.nn.submodules import find_layer
from mpodis.structured.reordering import check_permutation

__all__ = ["absorb_permutation"]

# the same function of every feature, or, for dropout, the same distribution
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
# with parameters for every feature, which are permuted, too
FEATUREWISE = (nn.BatchNorm1d, nn.LayerNorm, nn.PReLU, nn.RMSNorm)


def absorb_permutation(
    model: nn.Module,
    first: str,
    second: str,
    permutation: Sequence[int] | np.ndarray,
    *,
    between: Sequence[str] | None = None,
) -> nn.Module:
    """A copy of a network with the neurons between two linear layers in another order.

    The outputs of `first` (weight rows and bias), the values that modules between have for every
    neuron (BatchNorm1d, LayerNorm, RMSNorm, PReLU) and the inputs of `second` are permuted, so
    that the network computes the same function, up to rounding. In the row action the matrix of
    `first` becomes ``W[:, permutation]``, that of `second` ``W[permutation]``.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    first, second : str
        Names of two `torch.nn.Linear`.
    permutation : array of int (neurons,)
        The new neuron j is the old ``permutation[j]``: the columns of a `Reordering`.
    between : sequence of str, optional
        Names of the modules between them. Default: those between the two in the
        `torch.nn.Sequential` that contains both. If the forward pass is your own code, name them,
        [] for none; functions in it (torch.relu) must be elementwise, which is not checked.

    Raises
    ------
    TypeError
        If a module between mixes neurons, or a layer is not a plain `torch.nn.Linear`.
    ValueError
        For names that do not exist, no common Sequential, sizes that do not fit, and parameters
        that are shared with other modules.

    Examples
    --------
    >>> from mpodis.nn import dense_network
    >>> model, x = dense_network((4, 3, 2), seed=0), torch.ones(1, 4)
    >>> torch.allclose(absorb_permutation(model, "0", "2", [2, 0, 1])(x), model(x))
    True
    """
    if first == second:
        raise ValueError(f"first and second are both {first!r}; name two layers")
    between = _between(model, first, second) if between is None else list(between)
    layers = {name: find_layer(model, name) for name in (first, *between, second)}
    neurons, inputs = _plain_linear(layers, first).out_features, _plain_linear(layers, second)
    if inputs.in_features != neurons:
        raise ValueError(
            f"{first!r} has {neurons} outputs, {second!r} {inputs.in_features} inputs; "
            "something between them changes the number of neurons"
        )
    order = check_permutation(permutation, what="permutation", size=neurons)
    for name in between:
        _check_between(name, layers[name], neurons)
    _check_untied(model, layers)
    changed = copy.deepcopy(model)
    layers = {name: changed.get_submodule(name) for name in layers}
    index = torch.as_tensor(np.array(order))
    with torch.no_grad():
        outputs = _plain_linear(layers, first)
        _permute(outputs.weight, index)
        if outputs.bias is not None:
            _permute(outputs.bias, index)
        for name in between:
            for tensor in (*layers[name].parameters(), *layers[name].buffers()):
                if tensor.shape == (neurons,):
                    _permute(tensor, index)
        _permute(_plain_linear(layers, second).weight, index, dim=1)
    return changed


def _plain_linear(layers: Mapping[str, nn.Module], name: str) -> nn.Linear:
    layer = layers[name]
    if type(layer) is not nn.Linear:
        raise TypeError(
            f"{name!r} is a {type(layer).__name__}; only a plain torch.nn.Linear has rows and "
            "columns to permute"
        )
    return layer


def _between(model: nn.Module, first: str, second: str) -> list[str]:
    """Names of the modules between two in the Sequential that contains both."""
    for name in (first, second):
        find_layer(model, name)
    (parent, _, a), (other, _, b) = first.rpartition("."), second.rpartition(".")
    holder = model.get_submodule(parent)
    if parent != other or not isinstance(holder, nn.Sequential):
        raise ValueError(
            f"{first!r} and {second!r} are not members of one torch.nn.Sequential; name the "
            "modules between them with between=[...], [] if there are only functions"
        )
    names = list(holder._modules)
    start, stop = names.index(a), names.index(b)
    if start > stop:
        raise ValueError(f"{second!r} comes before {first!r}; exchange them")
    prefix = f"{parent}." if parent else ""
    return [prefix + name for name in names[start + 1 : stop]]


def _check_between(name: str, module: nn.Module, neurons: int) -> None:
    """An error if a module does not act on every neuron separately."""
    if isinstance(module, FEATUREWISE):
        sizes = [
            tuple(getattr(module, "normalized_shape", ())),
            *(tuple(t.shape) for t in (*module.parameters(), *module.buffers())),
        ]
        if any(size not in ((), (1,), (neurons,)) for size in sizes):
            raise ValueError(
                f"{name!r}, a {type(module).__name__}, acts on features of shape "
                f"{next(s for s in sizes if s not in ((), (1,), (neurons,)))}, not on each of the "
                f"{neurons} neurons; give the names of two layers without it between them"
            )
    elif not isinstance(module, ELEMENTWISE):
        raise TypeError(
            f"{name!r} is a {type(module).__name__}, which is not known to act on every neuron "
            "separately; neurons before it cannot be permuted"
        )


def _check_untied(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """An error if other modules use parameters of these layers: they would be permuted, too."""
    names: dict[int, list[str]] = {}
    for kind in (model.named_parameters, model.named_buffers):
        for name, tensor in kind(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    for name, layer in layers.items():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if len(names[id(tensor)]) > 1:
                raise ValueError(
                    f"{name!r} shares a parameter: {', '.join(names[id(tensor)])} are the same "
                    "tensor; give each module its own copy first"
                )


def _permute(tensor: Tensor, index: Tensor, dim: int = 0) -> None:
    tensor.copy_(tensor.index_select(dim, index.to(tensor.device)))
