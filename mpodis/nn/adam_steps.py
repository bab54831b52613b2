"""Training steps of Adam: one by one, or captured once as a CUDA graph and replayed.

A step of a small tensor network is hundreds of kernels of some microseconds each. Launched one by
one they leave an accelerator idle; captured as a CUDA graph they take one launch, and several
networks can be trained side by side in threads, each on a stream of its own.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

__all__ = ["AdamSteps", "CudaGraphAdamSteps", "adam_steps"]

_EAGER_STEPS = 3
"""Steps with each batch size before one is captured: libraries initialise themselves in them."""

_CAPTURING = threading.Lock()


class AdamSteps:
    """Steps of Adam on the cross entropy; the learning rate follows a half cosine down to 0.

    Parameters
    ----------
    model : torch.nn.Module
        Trained in place.
    x, y : Tensor
        All images and labels, on the model's device.
    learning_rate : float
        Of the first step.
    count : int
        Number of steps after which the learning rate is 0.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, count: int
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self.total = x.new_zeros(())  # sum of the losses over the images of an epoch
        self._prepare(learning_rate, count)

    def _prepare(self, learning_rate: float, count: int) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)
        self.schedule = CosineAnnealingLR(self.optimizer, count)

    def _update(self, batch: Tensor) -> None:
        loss = cross_entropy(self.model(self.x[batch]), self.y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach() * len(batch)

    def epoch(self, batches: list[Tensor]) -> float:
        """One step for each batch of image numbers; returns the mean loss over the images."""
        self.total.zero_()
        for batch in batches:
            self._step(batch.to(self.x.device))
        return self.total.item() / sum(map(len, batches))

    def _step(self, batch: Tensor) -> None:
        self._update(batch)
        self.schedule.step()


class CudaGraphAdamSteps(AdamSteps):
    """The same on a CUDA device, captured as one graph for every batch size."""

    def _prepare(self, learning_rate: float, count: int) -> None:
        self._rate, self._count, self._done = learning_rate, count, 0
        rate = torch.tensor(learning_rate, device=self.x.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=rate, capturable=True, fused=True
        )
        self._stream = torch.cuda.Stream(self.x.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.x.device))
        self._taken: dict[int, int] = {}
        self._captured: dict[int, tuple[Tensor, torch.cuda.CUDAGraph]] = {}

    def epoch(self, batches: list[Tensor]) -> float:
        """One step for each batch of image numbers; returns the mean loss over the images."""
        with torch.cuda.stream(self._stream):
            order = torch.cat(batches).to(self.x.device)
            return super().epoch(list(order.split([len(batch) for batch in batches])))

    def _step(self, batch: Tensor) -> None:
        # torch's schedule would read the rate back, and wait for the device
        rate = self._rate / 2 * (1 + math.cos(math.pi * self._done / self._count))
        self.optimizer.param_groups[0]["lr"].fill_(rate)
        self._done += 1
        size = len(batch)
        if size not in self._captured:
            if self._taken.get(size, 0) < _EAGER_STEPS:
                self._taken[size] = self._taken.get(size, 0) + 1
                self._update(batch)
                return
            self._captured[size] = self._capture(batch.clone())
        numbers, graph = self._captured[size]
        numbers.copy_(batch)
        graph.replay()

    def _capture(self, numbers: Tensor) -> tuple[Tensor, torch.cuda.CUDAGraph]:
        """The graph of a step, and the tensor from which it reads the numbers of the images."""
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING:
            self._stream.synchronize()
            self.optimizer.zero_grad()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._update(numbers)
        return numbers, graph


def adam_steps(
    model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, count: int
) -> AdamSteps:
    """Steps captured as CUDA graphs if the images are on a CUDA device, else one by one.

    See `AdamSteps` for the parameters.
    """
    steps = CudaGraphAdamSteps if x.is_cuda else AdamSteps
    return steps(model, x, y, learning_rate=learning_rate, count=count)
