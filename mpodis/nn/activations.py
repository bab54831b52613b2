"""What a layer of a network sees, and how much the network feels what it answers.

Second moments of a layer's inputs (the `covariance` of `mpodis.disentangle`) and the Fisher
information at its outputs (its `sensitivity`), batch by batch in double precision: no more than
one batch of samples is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.nn.layers import Seed, find_layer, torch_generator
from mpodis.nn.moments import LayerStatistics, Stream, double

__all__ = ["collect_activations", "layer_inputs", "output_sensitivity"]

_EVALUATION_BATCH = 10_000  # rows at a time of what comes as one array


def collect_activations(
    model: nn.Module,
    name: str,
    loader: Iterable | np.ndarray | Tensor,
    *,
    sensitivity: bool = False,
    draws: int | None = None,
    rank: int | None = None,
    seed: Seed = 0,
) -> LayerStatistics:
    """Mean and second moment of what the layer ``name`` receives, and what its outputs matter.

    Leading axes (batch, position, ...) are flattened into samples; a layer that is called several
    times contributes all calls. The model is run in the mode and in the dtype it is in, once over
    the loader, and keeps none of the hooks.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        Dotted name of a layer that acts on the last axis, or of a 1 x 1 convolution, which acts
        on the channels.
    loader : iterable of batches, or one array or tensor
        A batch is a tensor, a tuple or list that begins with one (labels are not looked at), or
        a dict of keyword arguments. Floating-point inputs are cast to the model's dtype, and so
        are integers, unless the model has an embedding to look them up in.
    sensitivity : bool
        Also find E[g^H g] with g the gradients of log p at the layer's outputs, y drawn from the
        model's own predictions p = softmax(logits): the Fisher information seen from the layer,
        which needs no labels (arXiv 1503.05671). The logits are what the model
        returns, its ``logits``, or the first of a tuple.
    draws : int, optional
        Estimate the Fisher information by so many labels a prediction, one backward pass each.
        By default it is the exact sum over the classes, a backward pass each, which needs logits
        (samples, classes).
    rank : int, optional
        For wide layers: keep the second moment about the mean as `LowRankMoment`, without ever
        making a (features, features) matrix.
    seed : int, Generator or None
        Of the labels that are drawn.

    Returns
    -------
    LayerStatistics

    Raises
    ------
    ValueError
        If there is no such layer, the model does not call it, a convolution is not 1 x 1, inputs
        are NaN or infinite, or the logits do not fit the options.
    """
    layer = find_layer(model, name)
    if draws is not None and (not sensitivity or draws < 1):
        raise ValueError(f"draws={draws} must be at least 1, and goes with sensitivity=True")
    stream = Stream(name, rank)
    fisher = _Fisher(layer, draws, seed) if sensitivity else None
    _run(model, name, loader, stream.add, fisher)
    return stream.statistics(None if fisher is None else fisher.to_dense())


def layer_inputs(model: nn.Module, name: str, loader: Iterable | np.ndarray | Tensor) -> np.ndarray:
    """What the layer ``name`` receives, all of it, as (samples, features), float64.

    See `collect_activations`, which holds one batch at a time, for the arguments and errors.
    """
    seen: list[np.ndarray] = []
    _run(model, name, loader, lambda x: seen.append(double(x).cpu().numpy()))
    return np.concatenate(seen)


def output_sensitivity(
    model: nn.Module, name: str, loader: Iterable | np.ndarray | Tensor
) -> np.ndarray:
    """How much the log-likelihood feels the outputs of a layer: E[g^H g], (outputs, outputs).

    The exact `sensitivity` of `collect_activations` alone.
    """
    fisher = _Fisher(find_layer(model, name))
    _run(model, name, loader, lambda x: None, fisher)
    return fisher.to_dense()


def _run(
    model: nn.Module,
    name: str,
    loader,
    see: Callable[[Tensor], None],
    fisher: _Fisher | None = None,
) -> None:
    """Show `see` all inputs (samples, features) of a layer, and `fisher` what the model makes."""
    layer, calls = find_layer(model, name), 0
    _check_layer(layer, name)

    def before(_module: nn.Module, arguments: tuple, keywords: dict) -> None:
        nonlocal calls
        calls += 1
        x = arguments[0] if arguments else next(iter(keywords.values()))
        see(_rows(_strided(x.detach(), layer), layer))

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True)]
    if fisher is not None:
        handles.append(layer.register_forward_hook(lambda _m, _a, output: fisher.tap(output)))
    try:
        for arguments, keywords in _batches(model, loader):
            with torch.set_grad_enabled(fisher is not None):
                output = model(*arguments, **keywords)
            if fisher is not None:
                fisher.add(output)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError(f"the model does not call its layer {name!r} on these inputs")


class _Fisher:
    """Sum of g^H g over batches; the outputs of the layer are tapped in every forward pass."""

    def __init__(self, layer: nn.Module, draws: int | None = None, seed: Seed = 0) -> None:
        self.layer, self.draws = layer, draws
        self.generator = torch_generator(seed)
        self.tapped: list[Tensor] = []
        self.total, self.count = 0.0, 0

    def tap(self, output: Tensor) -> Tensor:
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.tapped.append(output)
        return output.clone()  # what follows may change it in place

    def add(self, output) -> None:
        """The backward passes of one batch."""
        if not self.tapped:
            return
        logs = torch.log_softmax(_logits(output), dim=-1)
        if logs.shape[-1] < 2:
            raise ValueError(
                f"the model's logits have shape {tuple(logs.shape)}; a Fisher information needs "
                "two classes or more in the last axis"
            )
        if self.draws is None:
            self._sum(logs)
        else:
            self._draw(logs)
        self.count += sum(len(_rows(y, self.layer)) for y in self.tapped)
        self.tapped.clear()

    def _sum(self, logs: Tensor) -> None:
        """Over all classes, each by its probability."""
        if logs.ndim != 2 or any(len(y) != len(logs) for y in self.tapped):
            raise ValueError(
                f"the exact Fisher information needs logits (samples, classes) and outputs of as "
                f"many samples, not {tuple(logs.shape)} and {tuple(self.tapped[0].shape)}; "
                "give draws=, e.g. 8"
            )
        chances = double(logs).exp()
        for c in range(logs.shape[1]):
            for g in self._gradients(logs[:, c].sum()):
                p = chances[:, c].repeat_interleave(len(g) // len(chances))
                self.total = self.total + (p[:, None] * g).conj().T @ g

    def _draw(self, logs: Tensor) -> None:
        """Over labels that are drawn for all predictions at once."""
        flat = logs.reshape(-1, logs.shape[-1])
        chances = double(flat).exp().cpu()
        labels = chances.multinomial(self.draws, replacement=True, generator=self.generator)
        for label in labels.to(flat.device).T:
            for g in self._gradients(flat.gather(1, label[:, None]).sum()):
                self.total = self.total + g.conj().T @ g / self.draws

    def _gradients(self, value: Tensor) -> list[Tensor]:
        found = torch.autograd.grad(
            value, self.tapped, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [double(_rows(g, self.layer)) for g in found]

    def to_dense(self) -> np.ndarray:
        return (self.total / self.count).cpu().numpy()


def _batches(model: nn.Module, loader) -> Iterator[tuple[tuple, dict]]:
    """Positional and keyword arguments of the model, batch by batch."""
    if isinstance(loader, np.ndarray | Tensor):
        loader = torch.as_tensor(loader).split(_EVALUATION_BATCH)
    looks_up = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules())
    empty = True
    for batch in loader:
        empty = False
        if isinstance(batch, Mapping):
            yield (), {key: like_model(model, x, keep=looks_up) for key, x in batch.items()}
        else:
            first = batch[0] if isinstance(batch, tuple | list) else batch
            yield (like_model(model, first, keep=looks_up),), {}
    if empty:
        raise ValueError("the loader gives no batches; a generator can be gone through only once")


def like_model(model: nn.Module, x, *, keep: bool = False) -> Tensor:
    """x on the device and in the dtype of the model's weights; `keep` leaves integers alone."""
    weights = [*model.parameters(), *model.buffers()]
    weight = next((w for w in weights if w.is_floating_point()), torch.empty(0))
    x = torch.as_tensor(x)
    kept = x.is_complex() or (keep and not x.is_floating_point())
    return x.to(device=weight.device, dtype=x.dtype if kept else weight.dtype)


def _logits(output) -> Tensor:
    """What a model returns, or the logits in it."""
    if isinstance(output, Mapping):
        output = output["logits"]
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple | list) else output


def _check_layer(layer: nn.Module, name: str) -> None:
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return
    plain = not any(layer.padding) if isinstance(layer.padding, tuple) else True
    if any(size != 1 for size in layer.kernel_size) or layer.groups != 1 or not plain:
        raise ValueError(
            f"the layer {name!r} is a convolution with kernel {tuple(layer.kernel_size)}, "
            f"{layer.groups} groups and padding {layer.padding}; only a 1 x 1 convolution of one "
            "group without padding is a linear layer on its channels"
        )


def _strided(x: Tensor, layer: nn.Module) -> Tensor:
    """The pixels that a convolution looks at."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        x = x[(..., *(slice(None, None, step) for step in layer.stride))]
    return x


def _rows(x: Tensor, layer: nn.Module) -> Tensor:
    """(samples, features) of a layer's input or output; channels are a convolution's features."""
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        x = x.movedim(-1 - len(layer.kernel_size), -1)
    return x.reshape(-1, x.shape[-1])
