"""One step between two boundary MPOs: the network <F| step |V>, contracted from left to right.

F stays and V moves on: the gates act on V, and `Truncation.absorb` makes the next boundary of the
blocks of V on which they have acted. Upward V is T_{k+1} and the step acts as it is; downward V is
S_k and its adjoint acts (F is then T_{k+1}).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from autoray import do

from mpodis.conventions import Array
from mpodis.environments.arrays import Backend
from mpodis.environments.boundary.steps import Block, Step
from mpodis.environments.boundary.truncation import Boundary, conj, is_complex

__all__ = [
    "BlockEnvironment",
    "StepContraction",
    "applied",
    "inner_product",
    "safe_exp",
    "with_safe_norm",
]

FUSED_SIZE = 16
"""Block dimension up to which the gates of both sides act as one matrix."""
DENSE_SIZE = 256
"""Block dimension up to which the environment of a pair of gates is held as one matrix."""

SAFE = 1e16
"""Arrays whose squared norm is beyond this, or below its inverse, are rescaled; single precision
holds what lies between."""
LARGEST = 700.0
"""Largest logarithm of a scale that a float can hold."""

Gates: TypeAlias = Mapping[str, Sequence[np.ndarray]]
Visit: TypeAlias = Callable[[Block, "BlockEnvironment"], None]


def applied(
    boundary: Boundary, step: Step, gates: Gates, backend: Backend, *, adjoint: bool
) -> list[Array]:
    """The blocks (a, P, b) of a boundary after the gates of a step, or after their adjoints."""
    act = Action(gates, backend, is_complex(boundary.sites[0]), adjoint)
    return [act(block, block.merge(boundary.sites)) for block in step.blocks]


@dataclass(frozen=True)
class Action:
    """What the gates of a block, or their adjoints, do to the block (a, P, b) of a boundary."""

    gates: Gates
    backend: Backend
    complex: bool
    adjoint: bool

    def __call__(self, block: Block, x: Array) -> Array:
        if block.idle:
            return x
        left, right = self.matrix(block, "left"), self.matrix(block, "right")
        if block.size <= FUSED_SIZE:
            left = np.eye(block.inputs) if left is None else left
            right = np.eye(block.outputs) if right is None else right
            both = left[:, None, :, None] * right[:, None, :]  # (I, O, I', O')
            return self.put(both.take(block.to_site_order)) @ x
        x = block.group(x)
        shape = x.shape
        if left is not None:
            x = self.put(left) @ x.reshape(shape[0], -1)
        if right is not None:
            x = self.put(right) @ x.reshape(shape[0], shape[1], -1)
        return block.ungroup(x.reshape(shape))

    def matrix(self, block: Block, side: str) -> np.ndarray | None:
        """What acts on V: L on inputs and R^T on outputs, or L^H and conj(R)."""
        placed = block.placed(side)
        if placed is None:
            return None
        gate = self.gates[side][placed.number]
        gate = gate if (side == "left") != self.adjoint else gate.T
        return gate.conj() if self.adjoint else gate

    def put(self, matrix: np.ndarray) -> Array:
        """A small matrix on the device, real or complex as the boundaries are."""
        return self.backend.to_device(matrix.astype(complex if self.complex else float))


class StepContraction:
    """<F| step |V> and the environments of the gates in it.

    Parameters
    ----------
    step : Step
    fixed, moving : Boundary
        F and V.
    beyond : Boundary
        F' with <F'| about equal to <F| step, for the gates as they are before the sweep. It stands
        for the blocks that the sweep has not reached yet.
    gates : {"left": gates, "right": gates}
        Read anew after every visit, so that a visit may change those of its block.
    backend : Backend
    adjoint : bool
        Whether the adjoint of the step acts on V: F is then T_{k+1} and V is S_k.
    """

    def __init__(
        self,
        step: Step,
        fixed: Boundary,
        moving: Boundary,
        beyond: Boundary,
        gates: Gates,
        backend: Backend,
        *,
        adjoint: bool,
    ) -> None:
        self._step, self._fixed, self._moving, self._beyond = step, fixed, moving, beyond
        self._backend, self._adjoint = backend, adjoint
        self._act = Action(gates, backend, is_complex(moving.sites[0]), adjoint)

    def sweep(self, visit: Visit, sides: Sequence[str]) -> list[Array]:
        """Visit the blocks with free gates of the sides, from left to right.

        Returns
        -------
        list of arrays (a, P, b)
            The blocks of V with the newest gates applied.
        """
        bra = [conj(site) for site in self._fixed.sites]
        rights = self._rights()
        left, log, blocks = _one(self._moving), 0.0, []
        for block in self._step.blocks:
            v, z = block.merge(self._moving.sites), block.merge(bra, left)  # (a, P, b), (a, P, t)
            if any(block.is_free(side) for side in sides):
                right, log_right = rights[block.stop]
                x = (v.reshape(-1, v.shape[2]) @ right).reshape(*v.shape[:2], -1)  # (a, P, t)
                bra_block = z[:, :, : x.shape[2]]
                pair = (conj(x), conj(bra_block)) if self._adjoint else (bra_block, x)
                visit(block, BlockEnvironment(block, *pair, log + log_right, self._backend))
            v = self._act(block, v)
            blocks.append(v)
            left = v.reshape(-1, v.shape[2]).T @ z.reshape(-1, z.shape[2])  # (b, t)
            left, size = with_safe_norm(left)
            log += size
        return blocks

    def _rights(self) -> dict[int, tuple[Array, float]]:
        """<F'|V> right of every block, (b, t), and the log of a factor, by the first site there."""
        right, log = _one(self._moving), self._beyond.log + self._moving.log
        rights = {}
        for block in reversed(self._step.blocks):
            rights[block.stop] = (right, log)
            for k in reversed(block.sites):
                v, f = self._moving.sites[k], conj(self._beyond.sites[k])
                x = (v.reshape(-1, v.shape[3]) @ right).reshape(v.shape[0], -1)  # (a, i o t)
                right = x @ f.reshape(f.shape[0], -1).T  # (a, s)
            right, size = with_safe_norm(right)
            log += size
        return rights


class BlockEnvironment:
    """Common environment of the gates of a block: the network without them.

    Parameters
    ----------
    block : Block
    bra, ket : arrays (a, P, t)
        Their contraction over both bonds is K with h = Re sum K[r c, r' c'] L[r, r'] R[c', c].
    log : float
        Log of a factor.
    backend : Backend
    """

    def __init__(self, block: Block, bra: Array, ket: Array, log: float, backend: Backend) -> None:
        self._block, self._backend = block, backend
        self._scale = safe_exp(max(log, -LARGEST))  # beyond the range of floats, keep directions
        self._bra, self._ket, self._dense = bra, ket, None
        if block.size <= DENSE_SIZE:
            k = (
                (bra @ ket.swapaxes(1, 2)).sum(0)
                if block.size <= FUSED_SIZE
                else _over_bonds(bra, ket)
            )
            dense = backend.to_numpy(k).take(block.to_gate_order) * self._scale  # (r r', c' c)
            self._dense = {"left": dense, "right": dense.T}

    def environment(self, side: str, other: np.ndarray | None) -> np.ndarray:
        """E of the gate of a side, for the gate of the other side, or None where there is none."""
        if self._dense is None:
            return self._contract(side, other).conj()
        if other is None:
            other = np.eye(self._block.outputs if side == "left" else self._block.inputs)
        size = self._block.inputs if side == "left" else self._block.outputs
        found = self._dense[side].dot(other.reshape(-1)).reshape(size, size)
        return found.conj() if found.dtype.kind == "c" else found

    def _contract(self, side: str, other: np.ndarray | None) -> np.ndarray:
        """conj(E) without K, which would be too large: the other gate is applied first."""
        bra, ket = self._block.group(self._bra), self._block.group(self._ket)  # (I, O, a, t)
        if other is not None:
            kind = complex if is_complex(bra) else float
            other = self._backend.to_device(np.array(other.T, dtype=kind))
        if side == "left":
            if other is not None:  # R^T on c'
                ket = other @ ket.reshape(*ket.shape[:2], -1)
        else:
            if other is not None:  # L^T on r
                bra = (other @ bra.reshape(bra.shape[0], -1)).reshape(bra.shape)
            bra, ket = ket.swapaxes(0, 1), bra.swapaxes(0, 1)
        n = bra.shape[0]
        return self._backend.to_numpy(bra.reshape(n, -1) @ ket.reshape(n, -1).T) * self._scale


def inner_product(bra: Boundary, ket: Boundary) -> tuple[complex, float]:
    """<bra|ket> of two boundaries, as (value, log of a factor)."""
    left, log = _one(ket), bra.log + ket.log
    for f, v in zip(bra.sites, ket.sites, strict=True):
        z = left @ conj(f).reshape(f.shape[0], -1)  # (a, i o t)
        left = v.reshape(-1, v.shape[3]).T @ z.reshape(-1, f.shape[3])  # (b, t)
        left, size = with_safe_norm(left)
        log += size
    return complex(left[0, 0]), log


def with_safe_norm(x: Array) -> tuple[Array, float]:
    """An array whose norm is neither huge nor tiny, and the log of what was taken out."""
    flat = x.reshape(-1)
    square = abs(complex(do("vdot", flat, flat)))
    if 1 / SAFE < square < SAFE or square == 0:
        return x, 0.0
    return x / square**0.5, math.log(square) / 2


def safe_exp(log: float) -> float:
    """exp, or an OverflowError with the remedy."""
    if log > LARGEST:
        raise OverflowError(
            f"target and core have the scale exp({log:.0f}); divide them by their norms first"
        )
    return math.exp(log)


def _one(boundary: Boundary) -> Array:
    """The (1, 1) array of a 1 that closes a boundary at either end."""
    return do("ones_like", boundary.sites[0][:1, 0, 0, :1])


def _over_bonds(bra: Array, ket: Array) -> Array:
    """(a, P, t) and (a, P', t) -> (P, P')."""
    bra, ket = (x.swapaxes(0, 1).reshape(x.shape[1], -1) for x in (bra, ket))
    return bra @ ket.T
