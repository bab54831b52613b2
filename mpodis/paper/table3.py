"""Table 3 of arXiv 2509.06653v1: implicit disentanglers on MNIST, circuits as in Table 4."""

from __future__ import annotations

from mpodis.paper.implicit import Implicit, experiment

__all__ = ["EXPERIMENT"]

EXPERIMENT = experiment("table3", "Circuits trained inside a network: MNIST (Table 3)", Implicit)
