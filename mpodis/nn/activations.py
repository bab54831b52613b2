"""What a layer of a network receives, and how much the network's loss depends on its outputs.

Second moments of a layer's inputs (the `covariance` of `mpodis.disentangle`) and the Fisher
information at its outputs (its `sensitivity`), accumulated in double precision with one batch of
samples in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.nn.linear import Seed, as_tensor, torch_generator
from mpodis.nn.moments import LayerStatistics, StreamedMoments, to_double
from mpodis.nn.submodules import find_layer

__all__ = ["collect_activations", "layer_inputs", "output_sensitivity"]

Inputs = Iterable[Any] | np.ndarray | Tensor
"""What a network is run on: one array or tensor (samples, ...), or an iterable of batches."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

_EVALUATION_BATCH = 10_000
"""Rows of one array that are run at a time."""


def collect_activations(
    model: nn.Module,
    name: str,
    inputs: Inputs,
    *,
    with_sensitivity: bool = False,
    draws: int | None = None,
    rank: int | None = None,
    seed: Seed = 0,
) -> LayerStatistics:
    """Moments of what the layer ``name`` receives, and the Fisher information at its outputs.

    Leading axes (batch, position, ...) are flattened into samples; all calls of a layer that is
    called several times contribute. The model is run once over the inputs, in the mode and in the
    dtype it is in, and its hooks are removed afterwards.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        Dotted name of a layer that acts on the last axis, or of a 1 x 1 convolution, which acts
        on the channels.
    inputs : array or tensor (samples, ...), or iterable of batches
        Inputs of the network. A batch is a tensor, a tuple or list whose first entry is one (labels
        are ignored), or a dict of keyword arguments. Floating-point inputs are cast to the model's
        dtype, and so are integers, unless the model has an embedding to look them up in.
    with_sensitivity : bool
        Also find E[g^H g] with g the gradients of log p at the layer's outputs, y drawn from the
        model's own predictions p = softmax(logits): the Fisher information with respect to the
        layer's outputs, which needs no labels (arXiv 1503.05671). The logits are what the model
        returns, its ``logits``, or the first entry of a tuple.
    draws : int, optional
        Estimate the Fisher information from this number of labels drawn for each prediction, with
        one backward pass each. The default is the exact sum over the classes, with one backward
        pass each, which needs logits (samples, classes).
    rank : int, optional
        For wide layers: store the second moment about the mean as `LowRankMoment` of this rank,
        without a (features, features) matrix.
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

    Examples
    --------
    >>> from mpodis.nn import dense_network
    >>> model = dense_network((4, 8, 3), seed=0)
    >>> collect_activations(model, "2", np.eye(4)).covariance.shape
    (8, 8)
    """
    layer = find_layer(model, name)
    if draws is not None and (not with_sensitivity or draws < 1):
        raise ValueError(
            f"draws={draws} must be 1 or more, and is used by with_sensitivity=True only"
        )
    moments = StreamedMoments(name, rank)
    fisher = _FisherInformation(layer, draws, seed) if with_sensitivity else None
    _run(model, name, inputs, moments.add, fisher)
    return moments.statistics(None if fisher is None else fisher.to_dense())


def layer_inputs(model: nn.Module, name: str, inputs: Inputs) -> np.ndarray:
    """All that the layer ``name`` receives, as (samples, features), float64.

    `collect_activations` explains the arguments and errors, and needs the memory of one batch only.
    """
    received: list[np.ndarray] = []
    _run(model, name, inputs, lambda x: received.append(to_double(x).cpu().numpy()))
    return np.concatenate(received)


def output_sensitivity(model: nn.Module, name: str, inputs: Inputs) -> np.ndarray:
    """The Fisher information at the outputs of a layer, E[g^H g], (outputs, outputs).

    The exact `sensitivity` of `collect_activations` alone; see there for the arguments and errors.
    """
    fisher = _FisherInformation(find_layer(model, name))
    _run(model, name, inputs, lambda x: None, fisher)
    return fisher.to_dense()


def _run(
    model: nn.Module,
    name: str,
    inputs: Inputs,
    receive: Callable[[Tensor], None],
    fisher: _FisherInformation | None = None,
) -> None:
    """Run the model; `receive` is given the layer's inputs (samples, features) of each call."""
    layer, calls = find_layer(model, name), 0
    _check_layer(layer, name)

    def before(_module: nn.Module, arguments: tuple, keywords: dict) -> None:
        nonlocal calls
        calls += 1
        x = arguments[0] if arguments else next(iter(keywords.values()))
        receive(_rows(_strided(x.detach(), layer), layer))

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True)]
    if fisher is not None:
        handles.append(layer.register_forward_hook(fisher.record_output))
    try:
        for arguments, keywords in _batches(model, inputs):
            with torch.set_grad_enabled(fisher is not None):
                output = model(*arguments, **keywords)
            if fisher is not None:
                fisher.add(output)
    finally:
        for handle in handles:
            handle.remove()
    if not calls:
        raise ValueError(
            f"the model does not call its layer {name!r} on these inputs; name a layer that it uses"
        )


class _FisherInformation:
    """Sum of g^H g over batches; a forward hook records the outputs of the layer."""

    def __init__(self, layer: nn.Module, draws: int | None = None, seed: Seed = 0) -> None:
        self.layer, self.draws = layer, draws
        self.generator = torch_generator(seed)
        self.outputs: list[Tensor] = []
        self.total: Tensor | None = None
        self.count = 0

    def record_output(self, _module: nn.Module, _arguments: Any, output: Any) -> Tensor:
        """A forward hook."""
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        self.outputs.append(output)
        return output.clone()  # later layers may change it in place

    def add(self, output: Any) -> None:
        """The backward passes of one batch, from the model's output."""
        if not self.outputs:
            return
        log_p = torch.log_softmax(_logits(output), dim=-1)
        if log_p.shape[-1] < 2:
            raise ValueError(
                f"the model's logits have shape {tuple(log_p.shape)}; a Fisher information needs "
                "two classes or more in the last axis"
            )
        if self.draws is None:
            self._add_all_classes(log_p)
        else:
            self._add_drawn_labels(log_p, self.draws)
        self.count += sum(len(_rows(y, self.layer)) for y in self.outputs)
        self.outputs.clear()

    def _add_all_classes(self, log_p: Tensor) -> None:
        """The exact expectation over the labels."""
        if log_p.ndim != 2 or any(len(y) != len(log_p) for y in self.outputs):
            raise ValueError(
                f"the exact Fisher information needs logits (samples, classes) and outputs of as "
                f"many samples, not {tuple(log_p.shape)} and {tuple(self.outputs[0].shape)}; "
                "give draws=, e.g. 8"
            )
        p = to_double(log_p).exp()
        for c in range(log_p.shape[1]):
            for g in self._gradients(log_p[:, c].sum()):
                weights = p[:, c].repeat_interleave(len(g) // len(p))
                self._add((weights[:, None] * g).conj().T @ g)

    def _add_drawn_labels(self, log_p: Tensor, draws: int) -> None:
        """An estimate from labels drawn for all predictions of the batch."""
        flat = log_p.reshape(-1, log_p.shape[-1])
        p = to_double(flat).exp().cpu()
        labels = p.multinomial(draws, replacement=True, generator=self.generator)
        for label in labels.to(flat.device).T:
            for g in self._gradients(flat.gather(1, label[:, None]).sum()):
                self._add(g.conj().T @ g / draws)

    def _add(self, term: Tensor) -> None:
        self.total = term if self.total is None else self.total + term

    def _gradients(self, value: Tensor) -> list[Tensor]:
        """Gradients (samples, features) of a sum over samples by the layer's outputs."""
        found = torch.autograd.grad(
            value, self.outputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [to_double(_rows(g, self.layer)) for g in found]

    def to_dense(self) -> np.ndarray:
        """The mean over the samples, (outputs, outputs)."""
        assert self.total is not None  # `_run` raises where the layer is not called
        return (self.total / self.count).cpu().numpy()


def _batches(model: nn.Module, inputs: Inputs) -> Iterator[tuple[tuple, dict]]:
    """Positional and keyword arguments of the model, batch by batch."""
    if isinstance(inputs, np.ndarray | Tensor):
        inputs = _batch(inputs).split(_EVALUATION_BATCH)
    looks_up = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules())
    empty = True
    for batch in inputs:
        empty = False
        if isinstance(batch, Mapping):
            keywords = {key: like_model(model, x, keep=looks_up) for key, x in batch.items()}
            yield (), keywords
        else:
            first = batch[0] if isinstance(batch, tuple | list) else batch
            yield (like_model(model, first, keep=looks_up),), {}
    if empty:
        raise ValueError("the inputs have no batches; an iterator can be used only once")


def like_model(model: nn.Module, x: Any, *, keep: bool = False) -> Tensor:
    """x on the device and in the dtype of the model's weights; `keep` does not cast integers."""
    weights = [*model.parameters(), *model.buffers()]
    weight = next((w for w in weights if w.is_floating_point()), torch.empty(0))
    x = _batch(x)
    kept = x.is_complex() or (keep and not x.is_floating_point())
    return x.to(device=weight.device, dtype=x.dtype if kept else weight.dtype)


def _batch(x: Any) -> Tensor:
    """Samples as a tensor; integers, which may be tokens, stay integers."""
    if isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex()):
        return x.detach()
    plain = as_tensor(x, what="batch")
    kind = None if isinstance(x, Tensor) else np.asarray(x).dtype.kind
    if kind is None or kind not in "biu":
        return plain
    return torch.tensor(np.asarray(x, dtype=bool if kind == "b" else np.int64))


def _logits(output: Any) -> Tensor:
    """What a model returns, or the logits in it."""
    if isinstance(output, Mapping):
        output = output["logits"]
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple | list) else output


def _check_layer(layer: nn.Module, name: str) -> None:
    if not isinstance(layer, CONVOLUTIONS):
        return
    padded = any(layer.padding) if isinstance(layer.padding, tuple) else False
    if any(size != 1 for size in layer.kernel_size) or layer.groups != 1 or padded:
        raise ValueError(
            f"the layer {name!r} is a convolution with kernel {tuple(layer.kernel_size)}, "
            f"{layer.groups} groups and padding {layer.padding}; only a 1 x 1 convolution of one "
            "group without padding is a linear layer on its channels"
        )


def _strided(x: Tensor, layer: nn.Module) -> Tensor:
    """The pixels that a convolution uses."""
    if isinstance(layer, CONVOLUTIONS):
        x = x[(..., *(slice(None, None, step) for step in layer.stride))]
    return x


def _rows(x: Tensor, layer: nn.Module) -> Tensor:
    """(samples, features) of a layer's input or output; channels are a convolution's features."""
    if isinstance(layer, CONVOLUTIONS):
        x = x.movedim(-1 - len(layer.kernel_size), -1)
    return x.reshape(-1, x.shape[-1])
