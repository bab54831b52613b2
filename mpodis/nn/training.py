"""Train a classifier reproducibly, train on ("heal") a changed network, and measure accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from mpodis.arguments import check_count, check_positive
from mpodis.data import Dataset
from mpodis.nn.activations import arguments_of, like_model, logits_of
from mpodis.nn.adam_steps import adam_steps
from mpodis.nn.linear import Seed, seed_number, torch_generator
from mpodis.nn.submodules import left_unchanged
from mpodis.progress import bar

__all__ = [
    "Recipe",
    "TrainingRecord",
    "accuracy",
    "heal",
    "predict",
    "train_classifier",
]

Model = TypeVar("Model", bound=nn.Module)

_EVALUATION_BATCH = 10_000
"""Images that are run at a time where no gradient is needed."""


@dataclass(frozen=True)
class Recipe:
    """Settings of `train_classifier` for one kind of network on one data set."""

    epochs: int
    learning_rate: float
    batch_size: int


def completed_recipe(recipe: Recipe | None, subject: str, **given: Any) -> Recipe:
    """The recipe, with the given settings that are not None in the place of its own.

    Raises
    ------
    ValueError
        If there is no recipe for the subject and a setting is None; the message names all of them.
    """
    settings: dict[str, Any] = {
        name: getattr(recipe, name, None) if value is None else value
        for name, value in given.items()
    }
    missing = [name for name, value in settings.items() if value is None]
    if missing:
        raise ValueError(f"there is no recipe for {subject}; give {', '.join(missing)}")
    return Recipe(**settings)


@dataclass(frozen=True)
class TrainingRecord:
    """Settings and course of `train_classifier`.

    Attributes
    ----------
    losses : tuple of float
        Mean cross entropy (nats) over every epoch, during which the weights change.
    train_accuracy : float
        Percent, of the trained model on the training images.
    epochs, learning_rate, batch_size, seed
        The settings; seed is None where a numpy Generator was given.
    threads : int
        Threads of torch. Another number rounds differently: the last bits of each step change, and
        in the end the accuracy by some tenths of a percent.
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
    model: Model,
    data: Dataset,
    *,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    seed: Seed = 0,
    progbar: bool = False,
) -> tuple[Model, TrainingRecord]:
    """Train on the training images with Adam, a cosine schedule and the cross entropy.

    The model is changed in place, on its own device, and left in evaluation mode. The seed
    determines the order of the images: the same seed, model and machine (with the same number of
    threads) give the same bits. No global generator is used, unless by the model (dropout).

    Parameters
    ----------
    model : torch.nn.Module
        From (n, features) to (n, classes) logits.
    data : Dataset
        The test part is not used.
    epochs, batch_size : int
        Passes over the data, and images per step (batches differ by at most one image).
    learning_rate : float
        Of the first step; it falls to 0 along a half cosine, step by step.
    seed : int, numpy.random.Generator or torch.Generator
    progbar : bool
        Show a progress bar with the loss.

    Returns
    -------
    model : torch.nn.Module
        The model given.
    record : TrainingRecord

    Raises
    ------
    ValueError
        For settings that are not positive, or if the loss becomes infinite.

    Examples
    --------
    >>> from mpodis.data import load_data
    >>> from mpodis.nn import dense_network
    >>> model, record = train_classifier(
    ...     dense_network((64, 10), seed=0),
    ...     load_data("digits"),
    ...     epochs=1,
    ...     learning_rate=0.03,
    ...     batch_size=64,
    ... )
    >>> len(record.losses)
    1
    """
    check_settings(learning_rate, epochs=epochs, batch_size=batch_size)
    began = time.perf_counter()
    generator = torch_generator(seed)
    x = like_model(model, data.x_train)
    y = torch.as_tensor(data.y_train, device=x.device)
    batches = math.ceil(len(x) / batch_size)
    steps = adam_steps(model, x, y, learning_rate=learning_rate, count=epochs * batches)
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
        seed=seed_number(seed),
        threads=torch.get_num_threads(),
        note=data.note,
        seconds=time.perf_counter() - began,
    )


@torch.no_grad()
def predict(model: nn.Module, x: np.ndarray | Tensor) -> np.ndarray:
    """Predicted class (int64) of every row of x (n, features).

    The model is run in the mode in which it is, and its batch statistics are left as they were.
    """
    rows = like_model(model, x).split(_EVALUATION_BATCH)
    with left_unchanged(model):
        return np.concatenate([model(batch).argmax(1).cpu().numpy() for batch in rows])


def accuracy(model: nn.Module, x: np.ndarray | Tensor, y: np.ndarray) -> float:
    """Percentage of the rows of x (n, features) whose predicted class is their label y (n,).

    Raises
    ------
    ValueError
        If there are no images, or not as many labels.
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(
            f"{len(x)} images need as many labels, and there must be one or more; got {len(y)}"
        )
    return 100 * float(np.mean(predict(model, x) == np.asarray(y)))


def check_loss(loss: float, epoch: int, learning_rate: float) -> None:
    """A ValueError if training diverges."""
    if not math.isfinite(loss):
        raise ValueError(
            f"the loss is {loss} after epoch {epoch + 1}; lower learning_rate={learning_rate}"
        )


def check_settings(learning_rate: float, **counts: int) -> None:
    """Raise a ValueError unless the learning rate and the counts are positive."""
    for name, value in counts.items():
        check_count(name, value)
    check_positive("learning_rate", learning_rate)


def heal(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    progbar: bool = False,
) -> list[float]:
    """Train on a network whose layers were replaced, in place, with Adam and a half cosine.

    Parameters
    ----------
    model : torch.nn.Module
        All its parameters are trained, on their device and in their dtype (with copies in single
        precision where that is half); it is left in evaluation mode.
    loader : iterable of batches
        As of a `torch.utils.data.DataLoader`; iterated over once an epoch, in its own order. A
        batch is (inputs, targets), where the inputs may be a dict of keyword arguments, or one dict
        (such as a `BatchEncoding` of transformers) with the targets as its "labels". Inputs are
        cast to the model's dtype, see `collect_activations`.
    loss : callable
        Of outputs and targets. Of a model that returns a structure, the outputs are its ``logits``.
        With labels for every position the default counts those that are not -100.
    epochs : int
    learning_rate : float
        Of the first step; it falls to 0.
    progbar : bool
        Show a progress bar with the loss.

    Returns
    -------
    list of float
        Mean loss over every epoch.

    Raises
    ------
    ValueError
        For settings that are not positive, an empty loader, batches without targets, a model whose
        parameters cannot be trained, or a loss that becomes infinite.
    """
    check_settings(learning_rate, epochs=epochs)
    frozen = [name for name, p in model.named_parameters() if p.is_inference()]
    if frozen:
        raise ValueError(
            f"parameters such as {frozen[0]!r} were made under torch.inference_mode and cannot be "
            "trained; copy the model outside of it (copy.deepcopy)"
        )
    wide = _wide_copies(model)
    trained = [wide.get(parameter, parameter) for parameter in model.parameters()]
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            "the model has no parameters that require gradients; give some requires_grad_(True)"
        )
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    losses: list[float] = []
    batches = len(loader) if isinstance(loader, Sized) else None
    # with a loader of unknown length the learning rate falls from epoch to epoch
    schedule = CosineAnnealingLR(optimizer, max(1, epochs * (batches or 1)))
    model.train()
    with bar(total=epochs, desc="healing", enabled=progbar) as shown:
        for epoch in range(epochs):
            total, count = 0.0, 0
            for batch in loader:
                arguments, keywords, y = _with_targets(model, batch)
                if not len(y):
                    continue  # the mean of nothing is no loss
                value = loss(*_comparable(model(*arguments, **keywords), y, loss))
                if not isinstance(value, Tensor) or value.numel() != 1:
                    shown = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
                    raise TypeError(f"loss= has returned {shown}; it must return one number")
                model.zero_grad()
                value.backward()
                for parameter, copied in wide.items():
                    copied.grad = None if parameter.grad is None else parameter.grad.float()
                optimizer.step()
                with torch.no_grad():
                    for parameter, copied in wide.items():
                        parameter.copy_(copied)
                if batches:
                    schedule.step()
                total, count = total + value.item() * len(y), count + len(y)
            if not count:
                raise ValueError(
                    "the loader has no batches; give one that can be iterated over every epoch"
                )
            if not batches:
                schedule.step()
            losses.append(total / count)
            check_loss(losses[-1], epoch, learning_rate)
            shown.update(loss=losses[-1])
    model.eval()
    return losses


def _wide_copies(model: nn.Module) -> dict[nn.Parameter, Tensor]:
    """Parameters of half precision, and the copies in single precision that Adam works on.

    Squares of their gradients, and Adam's small constant, are zero in float16.
    """
    narrow = (torch.float16, torch.bfloat16)
    return {
        parameter: parameter.detach().float().requires_grad_(parameter.requires_grad)
        for parameter in model.parameters()
        if parameter.dtype in narrow
    }


def _with_targets(model: nn.Module, batch: Any) -> tuple[tuple, dict, Tensor]:
    """Arguments of the model and targets of a batch, on the model's device."""
    if isinstance(batch, Mapping):
        x = {key: value for key, value in batch.items() if key != "labels"}
        y = batch.get("labels")
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        x, y = batch
    else:
        x = y = None
    if y is None:
        raise ValueError(
            f"a batch is a {type(batch).__name__} without targets; give (inputs, targets), or a "
            'dict with the targets as its "labels"'
        )
    weight = next(model.parameters())
    y = torch.as_tensor(y, device=weight.device)
    y = y.to(weight.dtype) if y.is_floating_point() else y
    return *arguments_of(model, x), y


def _comparable(output: Any, y: Tensor, loss: Callable) -> tuple[Tensor, Tensor]:
    """Outputs and targets as a loss takes them: of the default, one position after another."""
    logits = output if isinstance(output, Tensor) else logits_of(output)
    by_position = loss is cross_entropy and logits.ndim > 2 and y.shape == logits.shape[:-1]
    if by_position and y.shape != logits[:, 0].shape:
        return logits.flatten(0, -2), y.flatten()
    return logits, y
