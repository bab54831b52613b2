"""Training a classifier reproducibly, and its accuracy."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.data import Dataset
from mpodis.nn.activations import like_model
from mpodis.nn.layers import Seed, torch_generator
from mpodis.nn.steps import steps_for
from mpodis.progress import bar

__all__ = [
    "TrainingRecord",
    "accuracy",
    "predict",
    "train_classifier",
]

_EVALUATION_BATCH = 10_000  # images at a time where no gradient is needed


@dataclass(frozen=True)
class TrainingRecord:
    """What happened in `train_classifier`, and with which settings.

    Attributes
    ----------
    losses : tuple of float
        Mean cross entropy (nats) of every epoch, taken while the weights move.
    train_accuracy : float
        Percent, of the trained model on the training images.
    epochs, learning_rate, batch_size, seed
        The settings; seed is None where a numpy Generator was given.
    threads : int
        Threads of torch; another number rounds differently, and so changes the last bits of a
        step and in the end the accuracy by some tenths of a percent.
    note : str
        The data trained on, `Dataset.note`.
    seconds : float
        Wall time.
    """

    losses: tuple[float, ...]
    train_accuracy: float
    epochs: int
    learning_rate: float
    batch_size: int
    seed: int | None
    threads: int
    note: str
    seconds: float


def train_classifier(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: Seed = 0,
    progbar: bool = False,
) -> tuple[nn.Module, TrainingRecord]:
    """Train on the training images with Adam, a cosine schedule and the cross entropy.

    The model is changed in place and left in evaluation mode, where its parameters are. The seed
    fixes the order of the images: the same seed, model and machine (with the same number of
    threads) give the same bits. The global generators are not used; a model with dropout would.

    Parameters
    ----------
    model : torch.nn.Module
        From (n, features) to (n, classes) logits.
    data : Dataset
        The test part is not looked at.
    epochs, batch_size : int
        Passes over the data, and images per step (batches are made equal to within one).
    learning_rate : float
        At the start; it falls to 0 along a half cosine, step by step.
    seed : int or numpy.random.Generator
    progress : bool
        Show a progress bar with the loss.

    Returns
    -------
    model : torch.nn.Module
        The one given.
    record : TrainingRecord

    Raises
    ------
    ValueError
        For settings that make no sense, or if the loss becomes infinite.
    """
    check_settings(learning_rate, epochs=epochs, batch_size=batch_size)
    start = time.perf_counter()
    generator = torch_generator(seed)
    x = like_model(model, data.x_train)
    y = torch.as_tensor(data.y_train, device=x.device)
    batches = math.ceil(len(x) / batch_size)
    steps = steps_for(model, x, y, learning_rate=learning_rate, count=epochs * batches)
    losses = []
    model.train()
    with bar(total=epochs, desc="training", enabled=progbar) as shown:
        for epoch in range(epochs):
            order = torch.randperm(len(x), generator=generator)
            losses.append(steps.epoch(list(order.tensor_split(batches))))
            check_loss(losses[-1], epoch, learning_rate)
            shown.update(loss=losses[-1])
    model.eval()
    return model, TrainingRecord(
        losses=tuple(losses),
        train_accuracy=accuracy(model, x, data.y_train),
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        seed=seed if isinstance(seed, int) else None,
        threads=torch.get_num_threads(),
        note=data.note,
        seconds=time.perf_counter() - start,
    )


@torch.no_grad()
def predict(model: nn.Module, x: np.ndarray | Tensor) -> np.ndarray:
    """Predicted class (int64) of every row of x, with the model in the mode it is in."""
    rows = like_model(model, x).split(_EVALUATION_BATCH)
    return np.concatenate([model(batch).argmax(1).cpu().numpy() for batch in rows])


def accuracy(model: nn.Module, x: np.ndarray | Tensor, y: np.ndarray) -> float:
    """Percentage of the rows of x (n, features) that are given their label y (n,)."""
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"{len(x)} images need as many labels, and at least one; got {len(y)}")
    return 100 * float(np.mean(predict(model, x) == np.asarray(y)))


def check_loss(loss: float, epoch: int, learning_rate: float) -> None:
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss is {loss} after epoch {epoch + 1}; lower learning_rate={learning_rate}"
        )


def check_settings(learning_rate: float, **counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name}={value!r} must be an integer of at least 1")
    if not 0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate={learning_rate!r} must be positive, e.g. 0.01")
