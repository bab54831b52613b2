"""Find a layer of a model by its dotted name, or put another one in its place."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

__all__ = ["find_layer", "replace_layer"]

Model = TypeVar("Model", bound=nn.Module)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that dotted name ("block.0.fc").

    Raises
    ------
    ValueError
        If the model has no submodule of that name; the message lists those it has.
    """
    layers = dict(model.named_modules())
    layers.pop("")
    if name not in layers:
        raise ValueError(
            f"{type(model).__name__} has no layer {name!r}; it has {', '.join(layers) or 'none'}"
        )
    return layers[name]


def replace_layer(model: Model, name: str, module: nn.Module) -> Model:
    """A deep copy of a model in which the submodule ``name`` is ``module``.

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
    """
    find_layer(model, name)
    copied = copy.deepcopy(model)
    set_layer(copied, name, module)
    return copied


def set_layer(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of the submodule of that name."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
