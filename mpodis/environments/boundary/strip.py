"""One step between two boundaries: the three-row network <F| step |V>, contracted sideways.

F stays and V moves on: the gates act on V, so that what the contraction makes of V's blocks is what
`Truncation.absorb` turns into the next boundary. Upward V is T_{k+1} and the step acts as it is;
downward V is S_k and its adjoint acts (F is then T_{k+1}).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from autoray import do

from mpodis.environments.arrays import Home
from mpodis.environments.boundary.layers import Block, Step
from mpodis.environments.boundary.truncation import Boundary, Truncation, conj, is_complex

__all__ = ["Pair", "Strip", "absorb", "exponential", "meet", "scaled"]

FUSED = 16
"""Block dimension up to which the gates of both sides act as one matrix."""
DENSE_PAIR = 256
"""Block dimension up to which the environment of a pair of gates is held as one matrix."""

SAFE = 1e16
"""Squared norms beyond this, or its inverse, are scaled away; single precision holds them."""
LARGEST = 700.0
"""Largest logarithm of a scale that a float can hold."""

Gates = Mapping[str, Sequence]
Visit = Callable[[Block, "Pair"], None]


def absorb(
    boundary: Boundary, step: Step, gates: Gates, truncation: Truncation, *, adjoint: bool
) -> Boundary:
    """A boundary after a step, or after its adjoint."""
    act = Action(gates, truncation.home, is_complex(boundary.sites[0]), adjoint)
    turned = [act(block, block.merge(boundary.sites)) for block in step.blocks]
    return truncation.absorb(boundary, step, turned)


@dataclass(frozen=True)
class Action:
    """What the gates of a block, or their adjoints, do to the block (a, P, b) of a boundary."""

    gates: Gates
    home: Home
    complex: bool
    adjoint: bool

    def __call__(self, block: Block, x):
        if block.idle:
            return x
        left, right = self.matrix(block, "left"), self.matrix(block, "right")
        if block.size <= FUSED:
            left = np.eye(block.inputs) if left is None else left
            right = np.eye(block.outputs) if right is None else right
            both = left[:, None, :, None] * right[:, None, :]  # (I, O, I', O')
            return self.put(both.take(block.together)) @ x
        x = block.fold(x)
        shape = x.shape
        if left is not None:
            x = self.put(left) @ x.reshape(shape[0], -1)
        if right is not None:
            x = self.put(right) @ x.reshape(shape[0], shape[1], -1)
        return block.unfold(x.reshape(shape))

    def matrix(self, block: Block, side: str) -> np.ndarray | None:
        """A = L T R: the inputs of T meet L, its outputs R^T; L^H and conj(R) for the adjoint."""
        slot = block.slot(side)
        if slot is None:
            return None
        gate = self.gates[side][slot.number]
        gate = gate if (side == "left") != self.adjoint else gate.T
        return gate.conj() if self.adjoint else gate

    def put(self, matrix):
        return self.home.put(matrix.astype(complex if self.complex else float))


class Strip:
    """<F| step |V> and the environments of the gates in it.

    Parameters
    ----------
    step : Step
    fixed, moving : Boundary
        F and V.
    beyond : Boundary
        F' with <F'| about <F| step, for the gates as they are before the sweep: it stands for the
        blocks that the sweep has not reached, and needs no gates.
    gates : {"left": gates, "right": gates}
        Read anew after every visit, so that a visit may change those of its block.
    home : Home
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
        home: Home,
        *,
        adjoint: bool,
    ) -> None:
        self._step, self._fixed, self._moving, self._beyond = step, fixed, moving, beyond
        self._home, self._adjoint = home, adjoint
        self._act = Action(gates, home, is_complex(moving.sites[0]), adjoint)

    def sweep(self, visit: Visit, sides: Sequence[str]) -> list:
        """Visit the blocks with free gates of the sides, from left to right.

        Returns
        -------
        list of arrays (a, P, b)
            The blocks of V with the newest gates applied.
        """
        bra = [conj(site) for site in self._fixed.sites]
        rights = self._rights()
        left, log, turned = _one(self._moving), 0.0, []
        for block in self._step.blocks:
            v, z = block.merge(self._moving.sites), block.merge(bra, left)  # (a, P, b), (a, P, t)
            if any(block.is_free(side) for side in sides):
                right, log_right = rights[block.stop]
                x = (v.reshape(-1, v.shape[2]) @ right).reshape(*v.shape[:2], -1)  # (a, P, t)
                visit(block, self._pair(block, z[:, :, : x.shape[2]], x, log + log_right))
            v = self._act(block, v)
            turned.append(v)
            left, size = scaled(v.reshape(-1, v.shape[2]).T @ z.reshape(-1, z.shape[2]))  # (b, t)
            log += size
        return turned

    def _rights(self) -> dict[int, tuple]:
        """<F'|V> right of every block, (b, t), by the site it begins at, and logs of factors."""
        right, log = _one(self._moving), self._beyond.log + self._moving.log
        rights = {}
        for block in reversed(self._step.blocks):
            rights[block.stop] = (right, log)
            for k in reversed(block.sites):
                v, f = self._moving.sites[k], conj(self._beyond.sites[k])
                x = (v.reshape(-1, v.shape[3]) @ right).reshape(v.shape[0], -1)  # (a, i o t)
                right = x @ f.reshape(f.shape[0], -1).T  # (a, s)
            right, size = scaled(right)
            log += size
        return rights

    def _pair(self, block: Block, z, x, log: float) -> Pair:
        if self._adjoint:
            z, x = conj(x), conj(z)
        return Pair(block, z, x, log, self._home)


class Pair:
    """What surrounds the gates of a block: all of the network but them.

    Parameters
    ----------
    block : Block
    bra, ket : arrays (a, P, t)
        Their contraction over both bonds is K with h = Re sum K[r c, r' c'] L[r, r'] R[c', c].
    log : float
        Log of a factor.
    home : Home
    """

    def __init__(self, block: Block, bra, ket, log: float, home: Home) -> None:
        self._block, self._home = block, home
        self._scale = exponential(max(log, -LARGEST))  # where floats end, directions remain
        self._bra, self._ket, self._dense = bra, ket, None
        if block.size <= DENSE_PAIR:
            k = (bra @ ket.swapaxes(1, 2)).sum(0) if block.size <= FUSED else _over_bonds(bra, ket)
            dense = home.get(k).take(block.apart) * self._scale  # (r r', c' c)
            self._dense = {"left": dense, "right": dense.T}

    def environment(self, side: str, other) -> np.ndarray:
        """E of the gate of a side, given the gate of the other (None: there is none)."""
        if self._dense is None:
            return self._contract(side, other).conj()
        if other is None:
            other = np.eye(self._block.outputs if side == "left" else self._block.inputs)
        size = self._block.inputs if side == "left" else self._block.outputs
        found = self._dense[side].dot(other.reshape(-1)).reshape(size, size)
        return found.conj() if found.dtype.kind == "c" else found

    def _contract(self, side: str, other) -> np.ndarray:
        """K would be too large: the other gate is applied before the bonds are summed over."""
        bra, ket = self._block.fold(self._bra), self._block.fold(self._ket)  # (I, O, a, t)
        if other is not None:
            kind = complex if is_complex(bra) else float
            other = self._home.put(np.array(other.T, dtype=kind))
        if side == "left":
            if other is not None:  # R^T on c'
                ket = other @ ket.reshape(*ket.shape[:2], -1)
        else:
            if other is not None:  # L^T on r
                bra = (other @ bra.reshape(bra.shape[0], -1)).reshape(bra.shape)
            bra, ket = ket.swapaxes(0, 1), bra.swapaxes(0, 1)
        n = bra.shape[0]
        return self._home.get(bra.reshape(n, -1) @ ket.reshape(n, -1).T) * self._scale


def meet(bra: Boundary, ket: Boundary) -> tuple[complex, float]:
    """<bra|ket> of two boundaries, as (value, log of a factor)."""
    left, log = _one(ket), bra.log + ket.log
    for f, v in zip(bra.sites, ket.sites, strict=True):
        z = left @ conj(f).reshape(f.shape[0], -1)  # (a, i o t)
        left, size = scaled(v.reshape(-1, v.shape[3]).T @ z.reshape(-1, f.shape[3]))  # (b, t)
        log += size
    return complex(left[0, 0]), log


def scaled(x) -> tuple:
    """An array whose norm is neither huge nor tiny, and the log of what was taken out."""
    flat = x.reshape(-1)
    square = abs(complex(do("vdot", flat, flat)))
    if 1 / SAFE < square < SAFE or square == 0:
        return x, 0.0
    return x / square**0.5, math.log(square) / 2


def exponential(log: float) -> float:
    """exp, or an OverflowError that says what to do."""
    if log > LARGEST:
        raise OverflowError(
            f"target and core have the scale exp({log:.0f}); divide them by their norms first"
        )
    return math.exp(log)


def _one(boundary: Boundary):
    """The (1, 1) array that closes a boundary at either end."""
    return do("ones_like", boundary.sites[0][:1, 0, 0, :1])


def _over_bonds(bra, ket):
    """(a, P, t) and (a, P', t) -> (P, P')."""
    bra, ket = (x.swapaxes(0, 1).reshape(x.shape[1], -1) for x in (bra, ket))
    return bra @ ket.T
