"""What a layer of a network receives, and how much the network's loss depends on its outputs.

Second moments of a layer's inputs (the `covariance` of `mpodis.disentangle`) and the Fisher
information at its outputs (its `sensitivity`), accumulated in double precision with one batch of
samples in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.layers import check_pointwise
from mpodis.nn.hybrid_linear import HybridLinear
from mpodis.nn.linear import Seed, as_tensor, torch_generator
from mpodis.nn.moments import LayerStatistics, StreamedMoments, to_double
from mpodis.nn.submodules import find_layer, left_unchanged

__all__ = ["collect_activations", "layer_inputs", "output_sensitivity"]

Inputs = Iterable[Any] | np.ndarray | Tensor
"""What a network is run on: one array or tensor (samples, ...), or an iterable of batches."""

Rows = str | bool | Callable[[Any], Any] | None
"""Which positions of a batch count, see `collect_activations`."""

CONVOLUTIONS = nn.modules.conv._ConvNd
MASK = "attention_mask"

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
    rows: Rows = None,
    seed: Seed = 0,
) -> LayerStatistics:
    """Moments of what the layer ``name`` receives, and the Fisher information at its outputs.

    Leading axes (batch, position, ...) are flattened into samples; all calls of a layer that is
    called several times contribute. The model is run once over the inputs, in the mode and in the
    dtype it is in, and left as it was: hooks are removed, buffers such as the statistics of a batch
    normalization, and torch's random state, are restored.

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
    rows : str, callable or False, optional
        Which positions are samples. By default those of the batch's ``attention_mask``, if it is a
        dict that has one, so that padding does not count; or the name of another mask in it; or a
        function of the batch that returns a mask (samples, positions). False counts all of them.
    seed : int, Generator or None
        Of the labels that are drawn.

    Returns
    -------
    LayerStatistics

    Raises
    ------
    ValueError
        If there is no such layer, the model does not call it, a convolution is not 1 x 1, inputs
        are NaN or infinite, a mask does not fit what the layer receives, or the logits do not fit
        the options.

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
    _run(model, name, inputs, moments.add, fisher, rows)
    return moments.statistics(None if fisher is None else fisher.to_dense())


def layer_inputs(model: nn.Module, name: str, inputs: Inputs, *, rows: Rows = None) -> np.ndarray:
    """All that the layer ``name`` receives, as (samples, features), float64.

    `collect_activations` explains the arguments and errors, and needs the memory of one batch only.
    """
    received: list[np.ndarray] = []
    _run(model, name, inputs, lambda x: received.append(to_double(x).cpu().numpy()), None, rows)
    return np.concatenate(received)


def output_sensitivity(
    model: nn.Module, name: str, inputs: Inputs, *, rows: Rows = None
) -> np.ndarray:
    """The Fisher information at the outputs of a layer, E[g^H g], (outputs, outputs).

    The exact `sensitivity` of `collect_activations` alone; see there for the arguments and errors.
    """
    fisher = _FisherInformation(find_layer(model, name))
    _run(model, name, inputs, lambda x: None, fisher, rows)
    return fisher.to_dense()


def _run(
    model: nn.Module,
    name: str,
    inputs: Inputs,
    receive: Callable[[Tensor], None],
    fisher: _FisherInformation | None = None,
    rows: Rows = None,
) -> None:
    """Run the model; `receive` is given the layer's inputs (samples, features) of each call."""
    layer, calls = find_layer(model, name), 0
    mask: Tensor | None = None
    if isinstance(layer, CONVOLUTIONS):
        check_pointwise(layer, f"the layer {name!r}")

    def before(_module: nn.Module, arguments: tuple, keywords: dict) -> None:
        nonlocal calls
        calls += 1
        x = arguments[0] if arguments else next(iter(keywords.values()))
        x = _strided(x.detach(), layer)
        leading = x.movedim(_channels(layer), -1).shape[:-1]
        receive(_kept(_rows(x, layer), leading, mask))

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True)]
    if fisher is not None:
        handles.append(layer.register_forward_hook(fisher.record_output))
    try:
        with left_unchanged(model), torch.set_grad_enabled(fisher is not None):
            for batch in _batches(model, inputs, rows):
                mask = batch.mask
                output = model(*batch.arguments, **batch.keywords)
                if fisher is not None:
                    fisher.add(output, mask)
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

    def add(self, output: Any, mask: Tensor | None = None) -> None:
        """The backward passes of one batch, from the model's output."""
        if not self.outputs:
            return
        log_p = torch.log_softmax(logits_of(output), dim=-1)
        if log_p.shape[-1] < 2:
            raise ValueError(
                f"the model's logits have shape {tuple(log_p.shape)}; a Fisher information needs "
                "two classes or more in the last axis"
            )
        if self.draws is None:
            self._add_all_classes(log_p, mask)
        else:
            self._add_drawn_labels(log_p, self.draws, mask)
        self.count += sum(len(self._samples(y, mask)) for y in self.outputs)
        self.outputs.clear()

    def _add_all_classes(self, log_p: Tensor, mask: Tensor | None) -> None:
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
                weights = p[:, c].reshape(-1, *[1] * (g.ndim - 1))
                self._add(self._samples(weights * g, mask), self._samples(g, mask))

    def _add_drawn_labels(self, log_p: Tensor, draws: int, mask: Tensor | None) -> None:
        """An estimate from labels drawn for all predictions of the batch."""
        flat = log_p.reshape(-1, log_p.shape[-1])
        if log_p.ndim > 2:  # predictions of padding are nobody's
            flat = _kept(flat, log_p.shape[:-1], mask)
        p = to_double(flat).exp().cpu()
        labels = p.multinomial(draws, replacement=True, generator=self.generator)
        for label in labels.to(flat.device).T:
            for g in self._gradients(flat.gather(1, label[:, None]).sum()):
                samples = self._samples(g, mask)
                self._add(samples / draws, samples)

    def _add(self, a: Tensor, b: Tensor) -> None:
        term = a.conj().T @ b
        self.total = term if self.total is None else self.total + term

    def _samples(self, y: Tensor, mask: Tensor | None) -> Tensor:
        """(samples, features) of outputs or of their gradients, without padding."""
        leading = y.movedim(_channels(self.layer), -1).shape[:-1]
        return _kept(_rows(y, self.layer), leading, mask)

    def _gradients(self, value: Tensor) -> list[Tensor]:
        """Gradients of a sum over samples by the layer's outputs."""
        found = torch.autograd.grad(
            value, self.outputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [to_double(g) for g in found]

    def to_dense(self) -> np.ndarray:
        """The mean over the samples, (outputs, outputs)."""
        assert self.total is not None  # `_run` raises where the layer is not called
        return (self.total / self.count).cpu().numpy()


class _Batch(NamedTuple):
    """What the model is called with, and which of its positions count."""

    arguments: tuple
    keywords: dict
    mask: Tensor | None


def _batches(model: nn.Module, inputs: Inputs, rows: Rows) -> Iterator[_Batch]:
    """Positional and keyword arguments of the model, batch by batch, and masks."""
    if isinstance(inputs, np.ndarray | Tensor):
        inputs = _batch(inputs).split(_EVALUATION_BATCH)
    called = f"inputs are a {type(inputs).__name__}; give an array (samples, ...), or batches"
    if isinstance(inputs, str | bytes | Mapping):
        raise TypeError(called)
    try:
        batches = iter(inputs)
    except TypeError:
        raise TypeError(called) from None
    empty = True
    for batch in batches:
        empty = False
        first = batch[0] if isinstance(batch, tuple | list) else batch
        yield _Batch(*arguments_of(model, first), _mask(model, batch, rows))
    if empty:
        raise ValueError("the inputs have no batches; an iterator can be used only once")


def arguments_of(model: nn.Module, x: Any) -> tuple[tuple, dict]:
    """Positional and keyword arguments for a batch without labels, on the model's device."""
    looks_up = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in model.modules())
    if not isinstance(x, Mapping):
        return (like_model(model, x, keep=looks_up),), {}
    found = {}
    for key, value in x.items():
        if not isinstance(value, str | None):  # such as a flag that a tokenizer adds
            is_mask = "mask" in key or getattr(value, "dtype", None) in (bool, torch.bool)
            found[key] = like_model(model, value, keep=looks_up or is_mask)
    return (), found


def _mask(model: nn.Module, batch: Any, rows: Rows) -> Tensor | None:
    """Which positions of a batch count, or None for all."""
    if rows is False:
        return None
    if callable(rows):
        found = rows(batch)
    else:
        key = rows if isinstance(rows, str) else MASK
        found = batch.get(key) if isinstance(batch, Mapping) else None
        if found is None:
            if isinstance(rows, str):
                raise ValueError(f"a batch has no mask rows={rows!r}; give a function of the batch")
            return None
        if isinstance(rows, str) and rows.endswith("padding_mask"):
            raise ValueError(
                f"rows={rows!r} says what is padding, and not what counts; give "
                f"rows=lambda batch: batch[{rows!r}] == 0"
            )
    mask = _batch(found)
    if bool(torch.isnan(mask).any()):
        raise ValueError("a mask has values that are not a number; give 1 for what counts, else 0")
    if not bool((mask >= 0).all()):
        raise ValueError(
            "a mask has values below 0, as one that is added to scores; give rows=, a function of "
            "the batch that is true for what counts, or rows=False to count all"
        )
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    return (mask != 0).to(device)


def _kept(rows: Tensor, leading: Sequence[int], mask: Tensor | None) -> Tensor:
    """The rows of what counts; they are the positions `leading` of a layer's input."""
    if mask is None:
        return rows
    leading, shape = tuple(leading), tuple(mask.shape)
    if leading == shape[::-1] and leading != shape:  # positions before samples
        mask = mask.permute(*reversed(range(mask.ndim)))
    elif len(leading) == 1 and leading[0] == shape[0] != mask.numel():
        return rows  # one for each sample, after its positions were pooled
    if mask.numel() != len(rows):
        raise ValueError(
            f"a mask of shape {shape} does not say which of the layer's inputs {leading} are "
            "padding; give rows=, a function of the batch, or rows=False to count all"
        )
    return rows[mask.reshape(-1)]


def like_model(model: nn.Module, x: Any, *, keep: bool = False) -> Tensor:
    """x on the device and in the dtype of the model's weights; `keep` does not cast integers."""
    weight = _first_weight(model)
    x = _batch(x)
    kept = x.is_complex() or (keep and not x.is_floating_point())
    return x.to(device=weight.device, dtype=x.dtype if kept else weight.dtype)


def _first_weight(model: nn.Module) -> Tensor:
    """A weight in the model's dtype; gates are in single precision, whatever the rest is in."""
    gates = (m for m in model.modules() if isinstance(m, HybridLinear))
    apart = {id(w) for m in gates for w in (*m.parameters(), *m.buffers())}
    weights = [w for w in (*model.parameters(), *model.buffers()) if w.is_floating_point()]
    first = next((w for w in weights if id(w) not in apart), None)
    return first if first is not None else next(iter(weights), torch.empty(0))


def _batch(x: Any) -> Tensor:
    """Samples as a tensor; integers, which may be tokens, stay integers."""
    if isinstance(x, Tensor) and not (x.is_floating_point() or x.is_complex()):
        return x.detach()
    plain = as_tensor(x, what="batch")
    kind = None if isinstance(x, Tensor) else np.asarray(x).dtype.kind
    if kind is None or kind not in "biu":
        return plain
    return torch.tensor(np.asarray(x, dtype=bool if kind == "b" else np.int64))


def logits_of(output: Any) -> Tensor:
    """What a model returns, or the logits in it."""
    if isinstance(output, Mapping):
        output = output["logits"]
    output = getattr(output, "logits", output)
    return output[0] if isinstance(output, tuple | list) else output


def _strided(x: Tensor, layer: nn.Module) -> Tensor:
    """The pixels that a convolution uses."""
    if isinstance(layer, CONVOLUTIONS):
        x = x[(..., *(slice(None, None, step) for step in layer.stride))]
    return x


def _channels(layer: nn.Module) -> int:
    """The axis of a layer's features."""
    return -1 - len(layer.kernel_size) if isinstance(layer, CONVOLUTIONS) else -1


def _rows(x: Tensor, layer: nn.Module) -> Tensor:
    """(samples, features) of a layer's input or output; channels are a convolution's features."""
    x = x.movedim(_channels(layer), -1)
    return x.reshape(-1, x.shape[-1])
