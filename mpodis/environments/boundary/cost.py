"""Time and memory of the boundary engine, predicted from its plan before anything is allocated.

The constants were measured on one core of an AMD EPYC with OpenBLAS. Elsewhere all times scale by
about the same factor, so that they still decide between engines.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import cache
from typing import TypeAlias

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs
from mpodis.environments.boundary.steps import Block, Step, plan_steps

__all__ = ["sweep_cost"]

GEMM = 30e9
"""Flops a second of matrix products in double precision; twice that in single."""
QR = 8e9
"""Flops a second of the QR decomposition of tall matrices."""
SVD = 2e-9
"""Seconds of a full SVD (m, n), divided by m n min(m, n)."""
COPY = 2e-9
"""Seconds for the elements of a block that are copied and scaled, all copies together."""
BLOCK = 60e-6
"""Seconds of overhead for a block without gates; twice that with gates."""
SPLIT = 60e-6
"""Seconds of overhead for every decomposition."""
UPDATE = 35e-6
"""Seconds for the update of a small gate, its environment included."""
TURNS = 4
"""Updates of a gate in turns with one of the other side, the default of the engine."""
COPIES = 8
"""Arrays of the size of the largest block that are held at once."""
SLACK = 1.3
"""Ratio of the memory that the allocator takes to what is asked for; a MiB of small objects is
added."""

Bonds: TypeAlias = tuple[int, ...]


def sweep_cost(
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    target_bonds: Sequence[int],
    core_bonds: Sequence[int],
    max_bond: int,
    complex: bool = False,
    dtype: str = "float64",
) -> tuple[float, float]:
    """Seconds of one sweep (up and down) on one core, and bytes beyond what the program has.

    Parameters
    ----------
    legs, left, right
    target_bonds, core_bonds : sequence of int
        Bond dimensions between the sites.
    max_bond : int
        D of the boundaries.
    complex : bool
    dtype : {"float64", "float32"}
    """
    steps = plan_steps(legs, left, right)
    first: dict[tuple, int] = {}
    kinds = [first.setdefault(_pattern(step), k) for k, step in enumerate(steps)]
    # layers repeat, and so do the bonds between them: each kind of step is counted once

    @cache
    def after(kind: int, bonds: Bonds) -> Bonds:
        return _bonds_after(steps[kind], bonds, max_bond)

    @cache
    def half(kind: int, fixed: Bonds, moving: Bonds, reached: Bonds) -> float:
        return _seconds(steps[kind], fixed, moving, reached, max_bond, speed)

    @cache
    def passing(kind: int, moving: Bonds, fixed: Bonds) -> int:
        return _passing(steps[kind], moving, fixed)

    @cache
    def size(bonds: Bonds) -> int:
        pairs = zip(legs, itertools.pairwise(bonds), strict=True)
        return sum(a * i * o * b for (i, o), (a, b) in pairs)

    pulled: list[Bonds] = [(1, *target_bonds, 1)]  # bonds of S_0, S_1, ...
    for kind in kinds:
        pulled.append(after(kind, pulled[-1]))
    pushed: list[Bonds] = [(1, *core_bonds, 1)]  # bonds of T_K, T_{K-1}, ..., then turned round
    for kind in reversed(kinds):
        pushed.append(after(kind, pushed[-1]))
    pushed.reverse()
    speed = (2 if dtype == "float32" else 1) / (4 if complex else 1)
    seconds, temporaries = 0.0, 0
    for k, kind in enumerate(kinds):
        seconds += half(kind, pulled[k], pushed[k + 1], pushed[k])
        seconds += half(kind, pushed[k + 1], pulled[k], pulled[k + 1])
        for moving, fixed in ((pushed[k + 1], pulled[k]), (pulled[k], pushed[k + 1])):
            temporaries = max(temporaries, passing(kind, moving, fixed))
    # numbers that are held at once: all boundaries, and the temporaries of the largest step
    above = itertools.accumulate(map(size, pulled))
    below = list(itertools.accumulate(map(size, reversed(pushed))))[::-1]
    entries = max(a + b for a, b in zip(above, below, strict=True)) + temporaries
    item = (16 if complex else 8) // (2 if dtype == "float32" else 1)
    return seconds, SLACK * item * entries + 2**20


def _pattern(step: Step) -> tuple:
    """What costs of a step depend on, beside the bonds."""
    return tuple(
        (b.start, b.stop, b.is_free("left"), b.is_free("right"), b.idle) for b in step.blocks
    )


def _bonds_after(step: Step, bonds: Bonds, max_bond: int) -> Bonds:
    """Bond dimensions after a step."""
    found = [min(b, max_bond) for b in bonds]
    for block in step.blocks:
        sizes = [i * o for i, o in block.legs]
        a, b = found[block.start], found[block.stop]
        for j in range(1, len(sizes)):
            most = min(a * math.prod(sizes[:j]), math.prod(sizes[j:]) * b, max_bond)
            found[block.start + j] = most
    return tuple(found)


def _seconds(
    step: Step, fixed: Bonds, moving: Bonds, reached: Bonds, max_bond: int, speed: float
) -> float:
    """One half sweep over a step: environments, updates, and the next boundary."""
    seconds, known = 0.0, {}  # most blocks of a long chain are alike
    for block in step.blocks:
        here = slice(block.start, block.stop + 1)
        free = block.idle, block.is_free("left"), block.is_free("right")
        key = block.legs, free, *(tuple(bonds[here]) for bonds in (fixed, moving, reached))
        if key not in known:
            known[key] = _block_seconds(block, fixed, moving, reached, max_bond, speed)
        seconds += known[key]
    return seconds


def _block_seconds(
    block: Block, fixed: Bonds, moving: Bonds, reached: Bonds, max_bond: int, speed: float
) -> float:
    """The share of one block in `_seconds`."""
    here = slice(block.start, block.stop + 1)
    sizes = [i * o for i, o in block.legs]
    v, f, r = moving[here], fixed[here], reached[here]
    a, b, s, t, whole = v[0], v[-1], f[0], f[-1], block.size
    flops = (
        _merging(sizes, v) + _merging(sizes, [s, *f[1:]]) * a / max(s, 1) + a * s * sizes[0] * f[1]
    )
    flops += sum(
        p * v[j] * (v[j + 1] * f[j + 1] + f[j] * f[j + 1]) for j, p in enumerate(sizes)
    )  # <F'|V> from the right
    flops += a * whole * b * t  # and from the left
    seconds = BLOCK
    if not block.idle:
        narrow = min(whole, block.inputs + block.outputs) if whole > 16 else whole
        flops += a * whole * b * (t + narrow) + whole**2 * a * t * (whole <= 256)
        seconds += BLOCK + COPY * a * whole * (b + t) + UPDATE * _updates(block)
    for j in range(len(sizes) - 1, 0, -1):
        rows, columns = a * math.prod(sizes[:j]), sizes[j] * r[j + 1]
        flops += rows * columns * r[j]
        seconds += SPLIT + _decomposition(rows, columns, max_bond, speed)
    return seconds + 2 * flops / (GEMM * speed)


def _merging(sizes: Sequence[int], bonds: Sequence[int]) -> int:
    """Multiplications for the product of the sites of a block."""
    return sum(
        bonds[0] * math.prod(sizes[:j]) * bonds[j] * sizes[j] * bonds[j + 1]
        for j in range(1, len(sizes))
    )


def _updates(block: Block) -> float:
    """Updates of a block, in units of that of a small gate."""
    free = [side for side in ("left", "right") if block.is_free(side)]
    turns = TURNS if len(free) == 2 else 1
    dims = {"left": block.inputs, "right": block.outputs}
    return turns * sum(1 + (dims[side] / 8) ** 3 for side in free)


def _decomposition(rows: int, columns: int, max_bond: int, speed: float) -> float:
    """Seconds for the truncation of a matrix."""
    small = min(rows, columns)
    if small <= max_bond:
        return SVD * rows * columns * small / min(speed, 1)
    products = 2 * 2 * rows * columns * max_bond
    return products / (GEMM * speed) + 4 * columns * max_bond**2 / (QR * speed)


def _passing(step: Step, moving: Bonds, fixed: Bonds) -> int:
    """Numbers that a half sweep over a step holds for a while."""
    blocks = [moving[x.start] * x.size * moving[x.stop] for x in step.blocks]
    largest = max(
        moving[x.start] * x.size * max(moving[x.stop], fixed[x.stop]) for x in step.blocks
    )
    return sum(blocks) + COPIES * largest
