"""Whether a torch module is a matrix, y = x W + b, and which: the only place that says so.

A module is read by its weight where its class computes nothing else: `torch.nn.Linear` and 1 x 1
convolutions, transposed ones too, and subclasses without a forward of their own. Any other module
with a matrix as its weight (a `Conv1D` of GPT-2, which has the axes (inputs, outputs); a layer with
adapters) is first run on a few inputs, as a copy, and read only if it gives x W + b; else it is
refused, since what would take its place would be another function.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mpodis.arrays import as_array, rounding_of

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LayerMatrix", "check_pointwise", "is_module", "read_layer"]

PROBES = 8
"""Inputs on which a module of an unknown class is compared with its matrix."""


@dataclass(frozen=True, eq=False)
class LayerMatrix:
    """The matrix of a layer, y = x @ matrix + bias, on the last axis or a convolution's channels.

    Attributes
    ----------
    matrix : Tensor (inputs, outputs)
    bias : Tensor (outputs,) or None
    stride : tuple of int or None
        Of the spatial axes, if the layer is a convolution.
    dtype : torch.dtype
        In which the layer computes; the two tensors have single precision at least.
    """

    matrix: Tensor
    bias: Tensor | None
    stride: tuple[int, ...] | None
    dtype: Any


def is_module(value: object) -> bool:
    """Whether a value is a module of torch."""
    return any(c.__module__ == "torch.nn.modules.module" for c in type(value).__mro__)


def read_layer(layer: nn.Module, name: str = "") -> LayerMatrix | None:
    """The matrix of a layer, or None for a module that has none.

    Parameters
    ----------
    layer : torch.nn.Module
        Left as it is, its statistics and torch's random state included.
    name : str
        What the errors call it, by default its class.

    Raises
    ------
    TypeError
        If the layer is a linear one that is more, or something else, than its matrix: with hooks,
        adapters, quantised codes, or a weight that is not there yet.
    ValueError
        For convolutions that mix pixels.
    """
    import torch
    from torch import nn
    from torch.nn.parameter import is_lazy

    kind = type(layer).__name__
    called = f"{name!r}, a {kind}," if name else kind
    convolution = isinstance(layer, nn.modules.conv._ConvNd)
    if convolution and name:
        called = repr(name)
    parametrised = nn.utils.parametrize.is_parametrized(layer)
    if parametrised:
        layer = copy.deepcopy(layer).eval()  # in training a spectral norm is updated when read
    weight = getattr(layer, "weight", None)
    if weight is not None and is_lazy(weight):
        raise TypeError(f"{called} has no weight before it has been called once")
    linear = isinstance(layer, nn.Linear) or hasattr(layer, "in_features")
    if not isinstance(weight, torch.Tensor):
        if linear and callable(weight):
            raise TypeError(f"{called} keeps its weight quantised; give the layer before that")
        return None
    if not convolution and (weight.ndim != 2 or isinstance(layer, nn.Embedding | nn.EmbeddingBag)):
        if linear:  # a number of codes in one byte, as of 4 bits
            raise TypeError(f"{called} has a weight of shape {tuple(weight.shape)}, not a matrix")
        return None
    if not (weight.is_floating_point() or weight.is_complex()) or weight.itemsize < 2:
        raise TypeError(
            f"{called} holds codes of {weight.dtype} and not its weight; dequantise it first"
        )
    hooks = [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()]
    if hooks:
        raise TypeError(
            f"{called} has the hook {_name_of(hooks[0])}, which may change its weight or its "
            "outputs, and which a matrix has not; remove it first (of old weight norms by "
            "torch.nn.utils.remove_weight_norm, which keeps the weight)"
        )
    matrix, stride = _by_class(layer, called)
    bias = getattr(layer, "bias", None)
    bias = None if bias is None else as_array(bias, what=f"bias of {called}")
    dtype = weight.dtype
    if matrix is not None:
        return LayerMatrix(as_array(matrix, what=f"weight of {called}"), bias, stride, dtype)
    return LayerMatrix(_by_outputs(layer, called, bias), bias, None, dtype)


def _by_class(layer: Any, called: str) -> tuple[Tensor | None, tuple[int, ...] | None]:
    """The matrix, and a convolution's stride, where the class says what the layer computes."""
    from torch import nn

    plain = "forward" not in vars(layer) and type(layer).__call__ is nn.Module.__call__
    own = type(layer).forward if plain else None
    if own is nn.Linear.forward:
        return layer.weight.T, None
    if not isinstance(layer, nn.modules.conv._ConvNd):
        return None, None
    if own not in _convolution_forwards():
        raise TypeError(
            f"{called} is a convolution with a forward of its own; put a torch.nn.Conv2d or its "
            "like in its place"
        )
    check_pointwise(layer, called)
    flat = layer.weight.flatten(1)
    return (flat, layer.stride) if layer.transposed else (flat.T, layer.stride)


def check_pointwise(layer: Any, called: str) -> None:
    """A ValueError for a convolution that mixes pixels or groups of channels."""
    pointwise = set(layer.kernel_size) == {1} and layer.groups == 1
    padded = not isinstance(layer.padding, str) and any(layer.padding)
    spread = layer.transposed and (set(layer.stride) != {1} or any(layer.output_padding))
    if not pointwise or padded or spread:
        raise ValueError(
            f"{called} is a convolution with kernel {layer.kernel_size}, groups {layer.groups}, "
            f"stride {layer.stride} and padding {layer.padding}; only 1 x 1 convolutions without "
            "padding and groups, transposed ones without a stride, are matrices"
        )


def _convolution_forwards() -> set[Any]:
    from torch import nn

    plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    return {kind.forward for kind in (*plain, *transposed)}


def _by_outputs(layer: Any, called: str, bias: Tensor | None) -> Tensor:
    """The weight in the order in which the layer's outputs are x W + b."""
    import torch

    weight = as_array(layer.weight, what=f"weight of {called}")
    last = "its weight has another shape"
    for matrix in (weight.T, weight) if weight.shape[0] != weight.shape[1] else (weight, weight.T):
        device, dtype = weight.device, layer.weight.dtype
        # of several sizes: what clips or saturates is not linear at all of them
        spread = 64.0 if dtype.itemsize < 4 else 1024.0
        sizes = spread ** (torch.arange(PROBES, device="cpu") % 3 - 1)
        random = torch.Generator().manual_seed(0)
        x = torch.randn(PROBES, len(matrix), generator=random, device="cpu") * sizes[:, None]
        x = x.to(device, dtype)
        try:
            with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
                found = copy.deepcopy(layer).eval()(x)
        except Exception as error:  # code of any kind
            last = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            continue
        expected = x.to(matrix.dtype) @ matrix
        expected = expected if bias is None else expected + bias
        if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
            last = "its outputs have another shape"
            continue
        size = x.abs().to(matrix.dtype) @ matrix.abs() + (0 if bias is None else bias.abs())
        off = (found.to(expected.dtype) - expected).abs() / (8 * rounding_of(layer.weight))
        if bool((off <= size).all()):
            return matrix
        last = "they differ"
    raise TypeError(
        f"{called} does not compute x @ weight.T + bias ({last}); merge its adapters into the "
        "weight, or put a torch.nn.Linear that computes the same in its place"
    )


def _name_of(hook: Any) -> str:
    return getattr(hook, "__qualname__", type(hook).__name__)
