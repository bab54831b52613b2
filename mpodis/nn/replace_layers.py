"""From a trained network to one of MPO layers, and from there to one of hybrid layers."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.arguments import check_count, check_number
from mpodis.conventions import to_numpy
from mpodis.disentangling import disentangle
from mpodis.fit import fit_core
from mpodis.layers import LayerMatrix, read_layer
from mpodis.mpo import compress
from mpodis.nn.activations import Inputs, collect_activations
from mpodis.nn.hybrid_linear import HybridLinear
from mpodis.nn.mpo_linear import MPOLinear
from mpodis.nn.submodules import check_replaceable, find_layer, replace_layer
from mpodis.optimise.result import Disentangled

__all__ = ["PointwiseConv", "compress_module", "disentangle_module"]


class PointwiseConv(nn.Module):
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
        """The convolution of a batch (n, channels, ...)."""
        x = x[(..., *(slice(None, None, step) for step in self.stride))]
        return self.layer(x.movedim(-1 - len(self.stride), -1)).movedim(-1, -1 - len(self.stride))

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


@torch.inference_mode(False)  # whose parameters could not be trained
def compress_module(
    model: nn.Module,
    layers: Mapping[str, int | Mapping[str, Any]],
    *,
    inputs: Inputs | None = None,
    tol: float = 1e-6,
) -> nn.Module:
    """A copy of a network in which the weights of some layers are MPOs of small bond dimension.

    New layers are on the device, in the dtype and in the mode of the old ones. The model itself is
    left as it is, its batch statistics and torch's random state included.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    layers : mapping of names to bond dimensions or options
        Dotted names of layers that multiply by a matrix: `torch.nn.Linear`, 1 x 1 convolutions,
        and other classes if on a few inputs they compute what their weight says. Options are those
        of `mpodis.compress`: ``legs, max_bond, rel_error, cutoff, align``.
    inputs : array or tensor (samples, ...), or iterable of batches, optional
        Inputs of the network, see `collect_activations`: each MPO is then the one with the least
        error of the layer's outputs, in a network whose earlier layers (in the order named) have
        been replaced. Without them, it is the one with the least error of the matrix.
    tol : float
        Relative gain at which this fit stops, see `mpodis.fit_core`. For large layers that are
        healed afterwards, 1e-4 is faster and good enough.

    Raises
    ------
    ValueError, TypeError
        For names that the network does not have, and layers that are not a matrix, or more: with
        hooks, adapters that are not merged, or quantised weights. What is replaced in a network,
        and what that means for tied weights, says `replace_layer`.

    Examples
    --------
    >>> from mpodis.nn import dense_network
    >>> model = dense_network((16, 8, 4), seed=0)
    >>> compress_module(model, {"0": 2, "2": {"max_bond": 1}})[0].bonds
    (2, 2, 2)
    """
    if not isinstance(layers, Mapping):
        raise TypeError(
            f"layers={layers!r} must give bond dimensions by names, such as {{'fc1': 4}}"
        )
    check_number("tol", tol, 0)
    for name, given in layers.items():  # all of them before any work
        check_replaceable(model, name)
        if not isinstance(given, Mapping):
            check_count(f"max_bond of {name!r}", given)
        if _matrix(find_layer(model, name), name).dtype.is_complex:
            raise ValueError(f"{name!r} is complex, and the layers of MPOs are real")
    for name, given in layers.items():
        layer = find_layer(model, name)
        read = _matrix(layer, name)
        matrix = to_numpy(read.matrix).astype(np.float64)
        options: dict[str, Any] = (
            dict(given) if isinstance(given, Mapping) else {"max_bond": int(given)}
        )
        found = compress(matrix, **options)
        mpo = found.mpo
        if inputs is not None and mpo.L > 1:
            bond = max(mpo.bond_sizes())
            covariance = collect_activations(model, name, inputs).covariance
            exact = compress(matrix, legs=found.legs)
            mpo = fit_core(exact, max_bond=bond, covariance=covariance, tol=tol)
        compressed = MPOLinear.from_mpo(mpo, shape=found.shape, bias=read.bias, dtype=read.dtype)
        new = compressed if read.stride is None else PointwiseConv(compressed, read.stride)
        model = replace_layer(model, name, _placed(new, layer))
    return model if layers else copy.deepcopy(model)


@torch.inference_mode(False)
def disentangle_module(
    model: nn.Module,
    name: str,
    *,
    inputs: Inputs | None = None,
    with_sensitivity: bool = False,
    batch_size: int = 256,
    plan: str | None = None,
    optimize: Any = None,
    **options: Any,
) -> tuple[nn.Module, Disentangled]:
    """A copy in which a layer is a `HybridLinear`, initially the explicit solution.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    name : str
        Of an `MPOLinear` or of the layer by which `compress_module` replaced a convolution; or of a
        `torch.nn.Linear` or 1 x 1 convolution, which first becomes an MPO that is not truncated.
    inputs : array or tensor (samples, ...), or iterable of batches, optional
        Inputs of the network, see `collect_activations`: the distance that is minimised is then
        that of the layer's activations.
    with_sensitivity : bool
        Also weight errors of the outputs by the Fisher information there.
    batch_size, plan, optimize
        See `HybridLinear`.
    **options
        Of `mpodis.disentangle`: ``left``, ``max_bond``, ``seed``, ...

    Returns
    -------
    model : torch.nn.Module
    found : Disentangled
        The explicit solution; until it is trained, the new layer computes its factorization.

    Raises
    ------
    ValueError, TypeError
        If the network has no such layer, or the layer has no weight matrix.

    Examples
    --------
    >>> from mpodis.nn import dense_network
    >>> model = dense_network((16, 16, 4), seed=0)
    >>> hybrid, found = disentangle_module(model, "0", depth=2, max_bond=1, seed=0)
    >>> hybrid[0].core.bonds
    (1, 1, 1)
    """
    check_replaceable(model, name)
    layer = find_layer(model, name)
    if not isinstance(layer.layer if isinstance(layer, PointwiseConv) else layer, MPOLinear):
        model = compress_module(model, {name: {}})  # exact, or an error: not a matrix
        layer = find_layer(model, name)
    pointwise = isinstance(layer, PointwiseConv)
    linear = cast("MPOLinear", layer.layer if pointwise else layer)
    if inputs is not None:
        # the inner layer of a convolution receives its inputs with the channels on the last axis
        inner = f"{name}.layer" if pointwise else name
        seen = collect_activations(model, inner, inputs, with_sensitivity=with_sensitivity)
        moments = {"covariance": seen.covariance, "sensitivity": seen.sensitivity}
        options = {"objective": "activations", **moments} | options
    found = disentangle(linear.to_mpo(), shape=(linear.inputs, linear.outputs), **options)
    # gates are computed in single precision, in networks of half precision too
    half = linear.dtype in (torch.float16, torch.bfloat16)
    hybrid = HybridLinear.from_factorization(
        found.factorization,
        bias=None if linear.bias is None else linear.bias.detach(),
        dtype=torch.float32 if half else linear.dtype,
        batch_size=batch_size,
        plan=plan,
        optimize=optimize,
    )
    module = PointwiseConv(hybrid, layer.stride) if pointwise else hybrid
    return replace_layer(model, name, _placed(module, layer)), found


def _matrix(layer: nn.Module, name: str) -> LayerMatrix:
    """The matrix of a layer, or an error that says why it has none."""
    found = read_layer(layer, name)
    if found is None:
        raise TypeError(
            f"{name!r} is a {type(layer).__name__}; give a torch.nn.Linear or a 1 x 1 convolution"
        )
    return found


def _placed(new: nn.Module, old: nn.Module) -> nn.Module:
    """The new layer on the device and in the mode of the old one."""
    stored = itertools.chain(old.parameters(), old.buffers())
    return new.to(next(stored).device).train(old.training)
