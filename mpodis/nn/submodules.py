"""Find a layer of a model by its dotted name, or put another one in its place."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

__all__ = ["check_replaceable", "find_layer", "left_unchanged", "replace_layer", "set_layer"]

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=nn.Module)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name ("block.0.fc").

    Raises
    ------
    ValueError
        If the model has no submodule of that name; the message lists those it has.
    """
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not the name of a layer; give one, such as 'fc1'")
    layers = dict(model.named_modules(remove_duplicate=False))
    layers.pop("")
    if name not in layers:
        raise ValueError(
            f"{type(model).__name__} has no layer {name!r}; it has {', '.join(layers) or 'none'}"
        )
    return layers[name]


@torch.inference_mode(False)  # whose copies could not be trained
def replace_layer(model: Model, name: str, module: nn.Module) -> Model:
    """A deep copy of a model in which the submodule ``name`` is ``module``.

    A submodule that has several names is replaced under all of them. The copy of a
    `torch.nn.TransformerEncoderLayer` calls its new layers, and does not take the shortcut that
    reads their weights. Parameters that the old submodule shares with others (tied weights) stay
    with those; that the tie is gone is logged as a warning.

    Parameters
    ----------
    model : torch.nn.Module
        Left as it is.
    name : str
        Dotted name, e.g. "block.0.fc".
    module : torch.nn.Module
        Put in as it is, without a copy.

    Raises
    ------
    ValueError
        If the model has no submodule of that name; the message lists those it has.
    TypeError
        For the output projection of a `torch.nn.MultiheadAttention`, which is never called, and
        for layers of scripted modules.
    """
    check_replaceable(model, name)
    copied = copy.deepcopy(model)
    _tell_of_ties(copied, name)
    set_layer(copied, name, module)
    return copied


def check_replaceable(model: nn.Module, name: str) -> None:
    """An error for a name that the model does not have, or a layer that cannot be replaced."""
    layer = find_layer(model, name)
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"{name!r} is a layer of a scripted module, which takes no other modules; give the "
            "module that it was made of"
        )
    for parent in model.modules():
        if isinstance(parent, nn.MultiheadAttention) and parent.out_proj is layer:
            raise TypeError(
                f"{name!r} is the output projection of a torch.nn.MultiheadAttention, which reads "
                "its weight and never calls it; use an attention that calls its layers"
            )


def set_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the submodule of that name, under all the names it has."""
    old = find_layer(model, name)
    for parent in list(model.modules()):
        for child, layer in list(parent._modules.items()):
            if layer is old:
                setattr(parent, child, module)
                if isinstance(parent, nn.TransformerEncoderLayer):
                    parent.activation_relu_or_gelu = 0  # as of other functions: no shortcut
    for stack in model.modules():
        if isinstance(stack, nn.TransformerEncoder) and any(m is module for m in stack.modules()):
            stack.use_nested_tensor = False  # the shortcut of the stack


@contextmanager
def left_unchanged(model: nn.Module) -> Iterator[None]:
    """Run a model without a trace: its buffers (batch statistics) and torch's random state.

    The layers are called one by one: the shortcuts of torch's transformers are switched off. What
    is computed can be used with gradients, under `torch.inference_mode` too.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    weight = next(model.parameters(), torch.empty(0))
    devices = [weight.device] if weight.device.type == "cuda" else []
    shortcuts = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.random.fork_rng(devices), torch.inference_mode(False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcuts)
        with torch.no_grad():
            for module, name, buffer, before in buffers:
                if not torch.equal(buffer, before):  # NaN are written again, too
                    buffer.copy_(before)
                module._buffers[name] = buffer


def _tell_of_ties(model: nn.Module, name: str) -> None:
    """Log the parameters that a layer shares with others."""
    layer = find_layer(model, name)
    own = {id(p): n for n, p in layer.named_parameters()}
    inside = {id(m) for m in layer.modules()}
    for prefix, other in model.named_modules():
        for n, parameter in other.named_parameters(recurse=False):
            if id(other) not in inside and id(parameter) in own:
                log.warning(
                    "%r shares its %s with %r, which keeps it; the new layer has its own, and the "
                    "model %d more parameters than if it had been alone",
                    *(name, own[id(parameter)], f"{prefix}.{n}".lstrip("."), parameter.numel()),
                )
