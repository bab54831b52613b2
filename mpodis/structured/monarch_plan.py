"""Block-diagonal factors: their shapes, their product, and the product nearest to a matrix.

Inputs and outputs are numbered by digits, one pair (m_j, n_j) a leg, as the sites of an MPO.
Factor j turns its input digit into its output digit, by a matrix of its own for every value of
the other digits: of the outputs before it and of the inputs after it. Its values are an array

    (p, s, a, o, r):  p = n_1 ... n_{j-1}, s = m_{j+1} ... m_k, a = r_{j-1} m_j, o = n_j, r = r_j

with bonds r_j between neighbouring factors, 1 at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mpodis.conventions import Legs, padded_shape

__all__ = ["Plan", "backward", "forward", "product_of", "project", "tails"]


@dataclass(frozen=True)
class Plan:
    """Legs in the order in which the factors are hit, and the bonds between the factors.

    Attributes
    ----------
    legs : tuple of (input, output)
    bonds : tuple of int
        r_0 = 1, r_1, ..., r_k = 1.
    reverse : bool
        False where the matrix numbers its digits the other way round.
    """

    legs: Legs
    bonds: tuple[int, ...]
    reverse: bool

    @classmethod
    def build(cls, legs: Legs, rank: int, *, reverse: bool) -> Plan:
        """For the legs of the matrix; bonds beyond what is exact are cut back."""
        legs = legs if reverse else legs[::-1]
        bonds = [1]
        for j, (i, _) in enumerate(legs[:-1]):
            rest = math.prod(o for _, o in legs[j + 1 :])
            bonds.append(min(rank, bonds[-1] * i, rest))
        return cls(legs, (*bonds, 1), reverse)

    def shape(self, j: int) -> tuple[int, int, int, int, int]:
        """(p, s, a, o, r) of factor j."""
        before = math.prod(o for _, o in self.legs[:j])
        after = math.prod(i for i, _ in self.legs[j + 1 :])
        i, o = self.legs[j]
        return before, after, self.bonds[j] * i, o, self.bonds[j + 1]

    @cached_property
    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the matrix at every place of the reordered one."""
        found = []
        for size in zip(*self.legs, strict=True):
            numbers = np.arange(math.prod(size))
            if not self.reverse:
                numbers = numbers.reshape(size[::-1]).T.reshape(-1)
            found.append(numbers)
        return found[0], found[1]

    def parameters(self, shape: tuple[int, int]) -> int:
        """Values that lie between an input and an output within the shape before padding."""
        rows, columns = self.order
        total = 0
        for j, (i, _) in enumerate(self.legs):
            p, s, _, o, r = self.shape(j)
            used_rows = (rows.reshape(-1, i * s).min(axis=0) < shape[0]).sum()
            used_columns = (columns.reshape(p * o, -1).min(axis=1) < shape[1]).sum()
            total += int(self.bonds[j] * used_rows * used_columns * r)
        return total

    def reorder(self, matrix):
        """The padded matrix with the digits in the order of the factors."""
        return matrix[np.ix_(*self.order)]

    def restore(self, matrix):
        """Undo `reorder`."""
        result = np.empty_like(matrix)
        result[np.ix_(*self.order)] = matrix
        return result


def project(plan: Plan, target) -> list:
    """Factors whose product is near a reordered matrix: an SVD of every block, digit by digit.

    For two factors it is the nearest product (Theorem 1 of arXiv 2204.00595), for more it is
    exact where the matrix is such a product.
    """
    factors, rest = [], target
    for j in range(len(plan.legs) - 1):
        p, s, a, o, r = plan.shape(j)
        blocks = rest.reshape(p, a, s, o, -1).transpose(0, 2, 3, 1, 4)  # p s o a q
        u, values, vh = np.linalg.svd(blocks, full_matrices=False)
        root = np.sqrt(values[..., :r])
        factors.append((u[..., :r] * root[..., None, :]).transpose(0, 1, 3, 2, 4))  # p s a o r
        rest = (root[..., None] * vh[..., :r, :]).transpose(0, 2, 3, 1, 4)  # p o r s q
    return [*factors, rest.reshape(plan.shape(len(plan.legs) - 1))]


def tails(plan: Plan, factors: Sequence) -> list:
    """Product of the factors after each one, (p, o, r, s, q), and last of all factors."""
    p, s, a, o, r = plan.shape(len(factors) - 1)
    rest = np.broadcast_to(np.eye(1), (p, o, r, s, 1))
    found = [rest]
    for j in range(len(factors) - 1, -1, -1):
        p, s, a, o, r = plan.shape(j)
        # p s (o a r) @ p s (o r q)
        left = factors[j].transpose(0, 1, 3, 2, 4)
        rest = left @ rest.transpose(0, 3, 1, 2, 4)  # p s o a q
        rest = rest.transpose(0, 3, 1, 2, 4)  # p a s o q
        if j:
            before, _, _, out, bond = plan.shape(j - 1)
            rest = rest.reshape(before, out, bond, a // bond * s, -1)
        found.append(rest)
    return found[-2::-1] + found[-1:]


def product_of(plan: Plan, factors: Sequence):
    """The product of all factors, a reordered (rows, columns) matrix."""
    return tails(plan, factors)[-1].reshape(padded_shape(plan.legs))


def forward(plan: Plan, factors: Sequence, left, j: int):
    """The product before factor j + 1 from that before factor j, (u, t, p, r).

    u are the input digits that were read, t = (i, s) those that are left.
    """
    p, s, a, o, r = plan.shape(j)
    u, bond = left.shape[0], left.shape[3]
    left = left.reshape(u, a // bond, s, p, 1, bond).transpose(1, 2, 3, 0, 4, 5)  # i s p u . b
    factor = factors[j].reshape(p, s, bond, a // bond, o * r).transpose(3, 1, 0, 2, 4)  # i s p b or
    grown = left.reshape(a // bond, s, p, u, bond) @ factor  # i s p u (o r)
    grown = grown.reshape(a // bond, s, p, u, o, r).transpose(3, 0, 1, 2, 4, 5)
    return grown.reshape(u * (a // bond), s, p * o, r)


def backward(plan: Plan, factors: Sequence, after: Sequence, gradient) -> list:
    """dh / d conj(factor) of every factor for h = Re Tr(gradient^H product).

    `after` are the `tails` of the factors.
    """
    found = []
    for j, factor in enumerate(factors):
        p, s, a, o, _ = plan.shape(j)
        gradient = gradient.reshape(p, a, s, o, -1).transpose(0, 2, 3, 1, 4)  # p s o a q
        rest = after[j].transpose(0, 3, 1, 4, 2).conj()  # p s o q r
        found.append((gradient @ rest).transpose(0, 1, 3, 2, 4))
        gradient = factor.transpose(0, 1, 3, 4, 2).conj() @ gradient  # p s o r q
        gradient = gradient.transpose(0, 2, 3, 1, 4)  # p o r s q
    return found
