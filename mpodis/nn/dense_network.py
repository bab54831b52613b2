"""Plain dense networks and their training."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import nn

from mpodis.data import Dataset
from mpodis.nn.linear import Seed, seed_number, seeded_linear, torch_generator
from mpodis.nn.training import Recipe, TrainingRecord, completed_recipe, train_classifier

__all__ = ["DENSE_RECIPES", "dense_network", "train_dense"]

DENSE_RECIPES = {
    ("digits", 64): Recipe(epochs=30, learning_rate=0.03, batch_size=64),
    ("mnist", 64): Recipe(epochs=20, learning_rate=0.03, batch_size=256),
    ("mnist", 784): Recipe(epochs=10, learning_rate=0.003, batch_size=256),
}
"""By the name of the data set and its number of features."""


def dense_network(sizes: Sequence[int], *, seed: Seed = 0) -> nn.Sequential:
    """Linear layers with biases, and a ReLU after each but the last.

    Parameters
    ----------
    sizes : sequence of int
        Number of features, widths of the hidden layers, number of classes.
    seed : int, numpy.random.Generator, torch.Generator or None
        Of the initial weights, which have the distribution of `torch.nn.Linear`.

    Returns
    -------
    torch.nn.Sequential
        Its linear layers have the names "0", "2", "4", ...

    Raises
    ------
    ValueError
        For fewer than two sizes, or a size below 1.

    Examples
    --------
    >>> [layer.out_features for layer in dense_network((64, 32, 10))[::2]]
    [32, 10]
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise ValueError(f"sizes={tuple(sizes)} must name features and classes, 1 or more each")
    generator, layers = torch_generator(seed), []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [seeded_linear(inputs, outputs, seed=generator), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train_dense(
    data: Dataset,
    *,
    hidden: Sequence[int] = (64,),
    seed: int | np.random.Generator = 0,
    epochs: int | None = None,
    learning_rate: float | None = None,
    batch_size: int | None = None,
    progbar: bool = False,
) -> tuple[nn.Sequential, TrainingRecord]:
    """Train a `dense_network` with the recipe of the data set and its number of features.

    Parameters
    ----------
    data : Dataset
    hidden : sequence of int
        Widths of the hidden layers.
    seed : int or numpy.random.Generator
        Of the initial weights and of the order of the images.
    epochs, learning_rate, batch_size : optional
        Instead of those of ``DENSE_RECIPES``, see `train_classifier`.
    progbar : bool
        Show a progress bar.

    Returns
    -------
    model : torch.nn.Sequential
        In evaluation mode.
    record : TrainingRecord

    Raises
    ------
    ValueError
        If a setting is missing or not positive.

    Notes
    -----
    The recipes were chosen by validation accuracy in percent, trained on
    ``data.validation_split(0.1, seed=0)``, mean over the training seeds 10 and 11 (digits: 10-15;
    one held-out image is 0.7 %).

    ============================================== =====
    8x8 MNIST, 64-64-10, 20 epochs at 0.003        94.4
    8x8 MNIST, 64-64-10, 20 epochs at 0.01         96.2
    8x8 MNIST, 64-64-10, 20 epochs at 0.03         97.1
    8x8 MNIST, 64-64-10, 20 epochs at 0.1          96.5
    MNIST, 784-256-64-10, 10 epochs at 0.001       97.0
    MNIST, 784-256-64-10, 10 epochs at 0.003       97.9
    MNIST, 784-256-64-10, 10 epochs at 0.01        98.0
    digits, 64-64-10, 30 epochs at 0.01            98.0
    digits, 64-64-10, 30 epochs at 0.03            98.5
    digits, 64-64-10, 30 epochs at 0.1             98.6
    ============================================== =====
    """
    recipe = completed_recipe(
        DENSE_RECIPES.get((data.name, data.features)),
        f"{data.name!r} with {data.features} features",
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
    )
    generator = torch_generator(seed)  # of the weights first, then of the order of the images
    model = dense_network((data.features, *hidden, data.classes), seed=generator)
    model, record = train_classifier(model, data, **vars(recipe), seed=generator, progbar=progbar)
    return model, replace(record, seed=seed_number(seed))
