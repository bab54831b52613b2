"""Table 5 of arXiv 2509.06653v1: implicit disentanglers on CIFAR-10, circuits as in Table 6."""

from __future__ import annotations

from dataclasses import dataclass

from mpodis.paper.implicit import Implicit, experiment

__all__ = ["EXPERIMENT"]


@dataclass(frozen=True)
class Table5(Implicit):
    """The recipe that was best on held-out images, see `Implicit`."""

    seeds: int = 3
    epochs: int = 20
    learning_rate: float = 0.02
    gates: float | None = 0.1
    mirrored: bool = True


EXPERIMENT = experiment("table5", "Circuits trained inside a network: CIFAR-10 (Table 5)", Table5)
