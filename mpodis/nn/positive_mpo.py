"""Networks whose MPO has only positive entries, to compare with those of mixed signs.

The paper found operators "composed of positive-valued tensors" easier to disentangle (end of
Sec. IV.1 of arXiv 2509.06653v1), and does not say how such networks were trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpodis.data import Dataset
from mpodis.nn.compact_tnn import RECIPES, CompactTNN
from mpodis.nn.linear import torch_generator
from mpodis.nn.mpo_linear import MPOLinear
from mpodis.nn.training import Recipe, TrainingRecord, train_classifier

__all__ = ["keep_positive", "remove_positivity", "train_positive_tnn"]


class _Softplus(nn.Module):
    """Positive values log(1 + exp(x)) of unrestricted parameters x."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(x)

    def right_inverse(self, y: Tensor) -> Tensor:
        return y + torch.log(-torch.expm1(-y))


def keep_positive(layer: MPOLinear) -> MPOLinear:
    """Make every entry of the site tensors positive, and keep it so in training.

    The site tensors become the softplus of the trained parameters, and are initially the absolute
    values of what they were. `remove_positivity` removes this parametrization.

    Parameters
    ----------
    layer : MPOLinear
        Changed in place, and returned; nothing happens to one that is kept positive already.
    """
    for k, tensor in enumerate(layer.site_tensors):
        if parametrize.is_parametrized(layer.site_tensors, str(k)):
            continue
        with torch.no_grad():
            # softplus reaches 0 only at minus infinity
            tensor.abs_().clamp_(min=torch.finfo(tensor.dtype).tiny)
        parametrize.register_parametrization(layer.site_tensors, str(k), _Softplus())
    return layer


def remove_positivity(layer: MPOLinear) -> MPOLinear:
    """Make the site tensors plain parameters again, with their present values.

    Parameters
    ----------
    layer : MPOLinear
        Changed in place, and returned.
    """
    for k in range(len(layer.site_tensors)):
        if parametrize.is_parametrized(layer.site_tensors, str(k)):
            parametrize.remove_parametrizations(layer.site_tensors, str(k))
    return layer


def train_positive_tnn(
    data: Dataset, *, seed: int = 0, bond: int = 2, recipe: Recipe | None = None
) -> tuple[CompactTNN, TrainingRecord]:
    """`train_tnn` with site tensors that stay positive; the dense layer is not restricted.

    The initial weights are the absolute values of those of `train_tnn` for the same seed, and the
    order of the images is the same. Pixels are not negative either, so that the ReLU has no effect:
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
        In evaluation mode; its site tensors are plain parameters without a negative entry.
    record : TrainingRecord

    Raises
    ------
    ValueError
        If there is no recipe for the data set, or a setting is not positive.
    """
    recipe = recipe or RECIPES.get(data.name)
    if recipe is None:
        raise ValueError(f"there is no recipe for the data set {data.name!r}; give recipe=")
    generator = torch_generator(seed)  # of the weights first, then of the order of the images
    model = CompactTNN(inputs=data.features, bond=bond, classes=data.classes, seed=generator)
    keep_positive(model.mpo)
    model, record = train_classifier(model, data, **vars(recipe), seed=generator)
    remove_positivity(model.mpo)
    return model, replace(record, seed=seed)
