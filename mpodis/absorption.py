"""An MPO into which gates are absorbed one after the other, with the weight that this discards.

Time-evolving block decimation in Hastings' form (arXiv 0903.3253): the site tensors are isometric
from the right, and the Schmidt values of every bond are known. Unitary gates leave the bonds
outside their wires as they are, so that every gate is truncated at its own canonical centre. The
boundary engine (`mpodis.environments.boundary.truncation`) has the same step for stacks of blocks
and fixed bonds, by quicker decompositions; here every bond has the dimension that its discarded
weight asks for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.linalg

from mpodis.circuit import Circuit, routed_circuit
from mpodis.conventions import to_numpy
from mpodis.sites import direct_sum, left_canonical, schmidt_canonical

__all__ = ["AbsorbingMPO", "absorbed", "canonical_mpo", "distance"]

ROUNDING = 1e-15
"""Schmidt values below this part of the largest one are noise."""


class AbsorbingMPO:
    """An MPO of norm 1 that absorbs gates.

    Attributes
    ----------
    sites : list of arrays (left bond, input, output, right bond)
        Isometric from the right, as far as truncation left them so.
    weights : list of arrays
        Schmidt values of the bond left of every site and of the one right of the last, of norm 1.
    lost : float
        Weight that was discarded since it was last set to zero, relative to the norm.
    is_full : bool
        Whether `max_bond` has ever discarded more than the weight that was allowed. The weights of
        other bonds are wrong by as much then: `canonical_mpo` makes them exact again.

    Parameters
    ----------
    sites, weights
        In canonical form, see `canonical_mpo`.
    max_bond : int, optional
        The most Schmidt values that are kept on a bond.
    """

    def __init__(
        self,
        sites: Sequence[np.ndarray],
        weights: Sequence[np.ndarray],
        *,
        max_bond: int | None = None,
    ) -> None:
        self.sites, self.weights, self.max_bond = list(sites), list(weights), max_bond
        self.lost, self.is_full = 0.0, False

    def absorb(
        self,
        start: int,
        *,
        left: np.ndarray | None = None,
        right: np.ndarray | None = None,
        weight: float = 0.0,
    ) -> None:
        """left @ MPO @ right for gates on the wires from `start` on.

        Parameters
        ----------
        start : int
            First wire of the gates.
        left, right : arrays (2^w, 2^w), optional
            Unitary gates on inputs and on outputs, of the same number of wires.
        weight : float
            The most weight that each bond inside may lose.
        """
        gate = left if right is None else right
        if gate is None:
            return
        w = len(gate).bit_length() - 1
        wires = range(start, start + w)
        block = self.sites[start]
        for k in wires[1:]:
            block = np.tensordot(block, self.sites[k], axes=1)  # (a, i1, o1, i2, o2, .., b)
        if left is not None:
            axes = [1 + 2 * k for k in range(w)]
            block = _applied(block, left.T, axes)
        if right is not None:
            axes = [2 + 2 * k for k in range(w)]
            block = _applied(block, right, axes)
        rest, outer, b = block, self.weights[start], block.shape[-1]
        for k in wires[:0:-1]:
            _, i, o, _ = self.sites[k].shape
            rest = rest.reshape(-1, i * o * b)
            centre = (outer[:, None] * rest.reshape(len(outer), -1)).reshape(rest.shape)
            values, space = _right_space(centre)
            keep = self._kept(values, weight)
            self.weights[k] = values[:keep] / np.linalg.norm(values[:keep])
            self.sites[k] = space[:keep].reshape(keep, i, o, b)
            rest, b = rest @ space[:keep].conj().T, keep
        _, i, o, _ = self.sites[start].shape
        self.sites[start] = rest.reshape(len(outer), i, o, b)

    def _kept(self, values: np.ndarray, weight: float) -> int:
        """How many Schmidt values to keep; what is lost is counted."""
        tails = np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0)  # weight from each index on
        total = tails[0]
        keep = int((tails > weight * total).sum())
        keep = max(1, min(keep, int((values > ROUNDING * values[0]).sum())))
        if self.max_bond is not None and keep > self.max_bond:
            keep, self.is_full = self.max_bond, True
        self.lost += float(tails[keep] / total)
        return keep


def _applied(block: np.ndarray, gate: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The block with a gate, from its rows to its columns, on some of its axes."""
    w = len(axes)
    moved = np.tensordot(block, gate.reshape((2,) * (2 * w)), axes=(axes, range(w)))
    return np.moveaxis(moved, range(-w, 0), axes)


def _right_space(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values, descending, and right singular vectors as rows."""
    try:
        _, values, vectors = np.linalg.svd(x, full_matrices=False)
    except np.linalg.LinAlgError:  # the slower driver converges where this one does not
        _, values, vectors = scipy.linalg.svd(x, full_matrices=False, lapack_driver="gesvd")
    return values, vectors


def canonical_mpo(tensors: Sequence[np.ndarray], *, max_bond: int | None = None) -> AbsorbingMPO:
    """Site tensors, divided by their norm, in the form that absorbs gates; nothing is truncated."""
    sites, weights, _ = schmidt_canonical(tensors)
    return AbsorbingMPO(sites, weights, max_bond=max_bond)


def absorbed(
    tensors: Sequence[np.ndarray], circuit: Circuit, *, weight: float = 1e-28
) -> list[np.ndarray]:
    """Site tensors of MPO @ Q, without the norm of the MPO, for the circuit Q.

    Parameters
    ----------
    tensors : list of arrays (left bond, input, output, right bond)
        Every output has dimension 2.
    circuit : Circuit
        Gates on any wires; those on wires apart are moved together by SWAPs.
    weight : float
        The most weight that a bond may lose by a gate, relative to the norm.
    """
    circuit = routed_circuit(circuit)
    mpo = canonical_mpo(tensors)
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        mpo.absorb(place.wires[0], right=to_numpy(gate), weight=weight)
    return mpo.sites


def distance(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    """|A - B| (Frobenius) of two MPOs, from their difference: precise however near they are."""
    return math.exp(left_canonical(direct_sum(first, [-second[0], *second[1:]]))[1])
