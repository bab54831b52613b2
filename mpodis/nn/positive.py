"""Networks whose MPO consists of positive tensors, to compare with those of mixed signs.

The paper found operators "composed of positive-valued tensors" easier to disentangle (end of
Sec. IV.1 of arXiv 2509.06653v1), and does not say how its networks were trained to have them.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpodis.data import Dataset
from mpodis.nn.layers import MPOLinear, torch_generator
from mpodis.nn.tnn import RECIPES, CompactTNN, Recipe
from mpodis.nn.training import TrainingRecord, train_classifier

__all__ = ["keep_positive", "remove_positivity", "train_positive_tnn"]


class _Softplus(nn.Module):
    """Positive values log(1 + exp(x)) of free parameters x."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x)

    def right_inverse(self, y: Tensor) -> Tensor:
        return y + torch.log(-torch.expm1(-y))


def keep_positive(layer: MPOLinear) -> MPOLinear:
    """Make every entry of the cores positive, and keep it so in training.

    The cores become the softplus of parameters that are trained; at first they are the absolute
    values of what they were. `remove_positivity` undoes the parametrisation.

    Parameters
    ----------
    layer : MPOLinear
        Changed in place, and returned. One that is kept positive already is left as it is.
    """
    for k, core in enumerate(layer.cores):
        if parametrize.is_parametrized(layer.cores, str(k)):
            continue
        with torch.no_grad():
            core.abs_().clamp_(min=torch.finfo(core.dtype).tiny)  # zero has no finite preimage
        parametrize.register_parametrization(layer.cores, str(k), _Softplus())
    return layer


def remove_positivity(layer: MPOLinear) -> MPOLinear:
    """Plain cores again, with the values that they have; changes the layer in place."""
    for k in range(len(layer.cores)):
        if parametrize.is_parametrized(layer.cores, str(k)):
            parametrize.remove_parametrizations(layer.cores, str(k))
    return layer


def train_positive_tnn(
    data: Dataset, *, seed: int = 0, bond: int = 2, recipe: Recipe | None = None
) -> tuple[CompactTNN, TrainingRecord]:
    """`train_tnn` with MPO cores that are positive throughout; the head is free.

    The weights begin at the absolute values of those of `train_tnn` for the same seed, and the
    images come in the same order. Pixels are not negative either, so that the ReLU cuts nothing:
    such a network is a linear classifier, and less accurate.

    Parameters
    ----------
    data : Dataset
    seed : int
        Of the initial weights and of the order of the images.
    bond : int
        Bond dimension of the MPO.
    recipe : Recipe, optional
        Default: that of the data set.

    Returns
    -------
    model : CompactTNN
        In evaluation mode, its cores plain parameters without a negative entry.
    record : TrainingRecord

    Raises
    ------
    ValueError
        If there is no recipe for the data set, or a setting makes no sense.
    """
    recipe = recipe or RECIPES.get(data.name)
    if recipe is None:
        raise ValueError(f"there is no recipe for the data set {data.name!r}; give recipe=")
    generator = torch_generator(seed)  # one stream, as in `train_tnn`
    model = CompactTNN(inputs=data.features, bond=bond, classes=data.classes, seed=generator)
    keep_positive(model.mpo)
    model, record = train_classifier(
        model,
        data,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        batch_size=recipe.batch_size,
        seed=generator,
    )
    remove_positivity(model.mpo)
    return model, replace(record, seed=seed)
