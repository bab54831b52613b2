"""Steps of an optimiser: one by one, or recorded once and replayed on an accelerator.

A step of a small tensor network is hundreds of kernels of microseconds. Launched one by one they
leave an accelerator idle; recorded as a CUDA graph they take one launch, and several networks can
be trained side by side in threads, each on a stream of its own.
"""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

__all__ = ["CapturedSteps", "Steps", "steps_for"]

_EAGER = 3
"""Steps of a batch size that are taken before one is recorded: libraries set themselves up."""

_RECORDING = threading.Lock()


class Steps:
    """Adam with a half cosine on the cross entropy, batch by batch.

    Parameters
    ----------
    model : torch.nn.Module
    x, y : Tensor
        All images and labels, where the model is.
    learning_rate : float
        At the start; it falls to 0 in `count` steps.
    """

    def __init__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, learning_rate: float, count: int
    ) -> None:
        self.model, self.x, self.y = model, x, y
        self.total = x.new_zeros(())  # of the losses, over images
        self._begin(learning_rate, count)

    def _begin(self, learning_rate: float, count: int) -> None:
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=learning_rate)
        self.schedule = CosineAnnealingLR(self.optimizer, count)

    def _update(self, batch: Tensor) -> None:
        loss = cross_entropy(self.model(self.x[batch]), self.y[batch])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach() * len(batch)

    def epoch(self, batches: list[Tensor]) -> float:
        """Mean loss of an epoch whose batches have these numbers of images."""
        self.total.zero_()
        for batch in batches:
            self._step(batch.to(self.x.device))
        return self.total.item() / sum(map(len, batches))

    def _step(self, batch: Tensor) -> None:
        self._update(batch)
        self.schedule.step()


class CapturedSteps(Steps):
    """The same on a CUDA device, recorded for every size of a batch."""

    def _begin(self, learning_rate: float, count: int) -> None:
        self._rate, self._count, self._done = learning_rate, count, 0
        rate = torch.tensor(learning_rate, device=self.x.device)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=rate, capturable=True, fused=True
        )
        self._stream = torch.cuda.Stream(self.x.device)
        self._stream.wait_stream(torch.cuda.current_stream(self.x.device))
        self._taken: dict[int, int] = {}
        self._recorded: dict[int, tuple[Tensor, torch.cuda.CUDAGraph]] = {}

    def epoch(self, batches: list[Tensor]) -> float:
        with torch.cuda.stream(self._stream):
            order = torch.cat(batches).to(self.x.device)
            return super().epoch(list(order.split([len(batch) for batch in batches])))

    def _step(self, batch: Tensor) -> None:
        # torch's schedule would read the rate back, and wait for the device to do so
        rate = self._rate / 2 * (1 + math.cos(math.pi * self._done / self._count))
        self.optimizer.param_groups[0]["lr"].fill_(rate)
        self._done += 1
        size = len(batch)
        if size not in self._recorded:
            if self._taken.get(size, 0) < _EAGER:
                self._taken[size] = self._taken.get(size, 0) + 1
                self._update(batch)
                return
            self._recorded[size] = self._record(batch.clone())
        numbers, graph = self._recorded[size]
        numbers.copy_(batch)
        graph.replay()

    def _record(self, numbers: Tensor) -> tuple[Tensor, torch.cuda.CUDAGraph]:
        graph = torch.cuda.CUDAGraph()
        with _RECORDING:
            self._stream.synchronize()
            self.optimizer.zero_grad()
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._update(numbers)
        return numbers, graph


def steps_for(model: nn.Module, x: Tensor, y: Tensor, **settings) -> Steps:
    """Steps as they suit the device of the images."""
    return (CapturedSteps if x.is_cuda else Steps)(model, x, y, **settings)
