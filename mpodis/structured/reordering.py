"""Permutations of rows and columns, and the result of a search for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mpodis.arrays import as_numpy
from mpodis.conventions import Legs, crop
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["FoundOrder", "Reordering", "check_permutation"]


@dataclass(frozen=True, eq=False)
class Reordering(Tabular):
    """A permutation of the rows and one of the columns of a matrix.

    Attributes
    ----------
    rows : array of int (inputs,)
        The new row i is the old row ``rows[i]``; inputs are reordered as ``x[..., rows]``.
    columns : array of int (outputs,)
        The new column j is the old column ``columns[j]``; outputs and bias are reordered alike.

    Raises
    ------
    ValueError
        If one of them is not a permutation of 0, ..., n - 1.

    Examples
    --------
    >>> swapped = Reordering([1, 0], [0, 1])
    >>> swapped.apply([[1, 2], [3, 4]])
    array([[3., 4.],
           [1., 2.]])
    """

    rows: np.ndarray
    columns: np.ndarray

    def __post_init__(self) -> None:
        for name in ("rows", "columns"):
            object.__setattr__(self, name, check_permutation(getattr(self, name), what=name))

    @classmethod
    def identity(cls, shape: tuple[int, int]) -> Reordering:
        """The reordering that changes nothing in a matrix of that shape."""
        return cls(*map(np.arange, shape))

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    @property
    def inverse(self) -> Reordering:
        return Reordering(np.argsort(self.rows), np.argsort(self.columns))

    def then(self, other: Reordering) -> Reordering:
        """This reordering, followed by another one."""
        if self.shape != other.shape:
            raise ValueError(f"reorderings of shapes {self.shape} and {other.shape} do not compose")
        return Reordering(self.rows[other.rows], self.columns[other.columns])

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        """The reordered matrix; a smaller one is first padded with zeros at its end."""
        return self._pad(as_numpy(matrix, what="matrix"), self.shape)[
            np.ix_(self.rows, self.columns)
        ]

    def undo(self, matrix: np.ndarray, *, shape: tuple[int, int] | None = None) -> np.ndarray:
        """The matrix in its old order, cropped to `shape` where `apply` had padded it."""
        matrix = as_numpy(matrix, what="matrix")
        if matrix.shape != self.shape:
            raise ValueError(
                f"a matrix of shape {matrix.shape} cannot be a reordered one; `apply` returns, "
                f"and `undo` takes, the shape {self.shape}"
            )
        return crop(self.inverse.apply(matrix), shape)

    def covariance(self, metric: np.ndarray) -> np.ndarray:
        """E[x^H x] of the reordered inputs, (inputs, inputs)."""
        n = self.shape[0]
        return self._pad(as_numpy(metric, what="covariance"), (n, n))[np.ix_(self.rows, self.rows)]

    def sensitivity(self, metric: np.ndarray) -> np.ndarray:
        """E[g^H g] of the reordered outputs, (outputs, outputs)."""
        n = self.shape[1]
        return self._pad(as_numpy(metric, what="sensitivity"), (n, n))[
            np.ix_(self.columns, self.columns)
        ]

    @staticmethod
    def _pad(matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The matrix padded to a shape, or a ValueError if it is larger."""
        if matrix.ndim != 2 or matrix.shape[0] > shape[0] or matrix.shape[1] > shape[1]:
            raise ValueError(
                f"an array of shape {matrix.shape} does not fit a reordering to {shape}"
            )
        extra = [(0, full - size) for full, size in zip(shape, matrix.shape, strict=True)]
        return np.pad(matrix, extra)

    def table(self) -> Table:
        rows = []
        for side, order in (("rows", self.rows), ("columns", self.columns)):
            first = " ".join(map(str, order[:8])) + (" ..." if len(order) > 8 else "")
            moved = int((order != np.arange(len(order))).sum())
            rows.append((side, len(order), moved, first))
        return Table(("side", "size", "moved", "old number of the first"), rows, "reordering")


@dataclass(frozen=True, eq=False)
class FoundOrder(Tabular):
    """The order that a search found, and the measure before and after.

    Attributes
    ----------
    reordering : Reordering
    legs : (input, output) dimension of every site of the reordered operator
    measure : str
        What was minimised.
    before, after : float
        The measure in the order given, and in the one found; `after` is never larger.
    evaluations : int
        Number of spectra or fits that were computed.
    status : {"exact", "search", "unchanged"}
        Whether `after` is the minimum, the lowest value that was found, or `before`.
    sites : pair of tuples of int, optional
        Old site of every new row leg and of every new column leg; None if single rows and columns
        were reordered.
    core : MatrixProductOperator, optional
        The core of the reordered matrix whose loss is `after`, if the measure is a loss.
    """

    reordering: Reordering
    legs: Legs
    measure: str
    before: float
    after: float
    evaluations: int
    status: str
    sites: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    core: MatrixProductOperator | None = None

    def table(self) -> Table:
        rows = [
            ("measure", self.measure),
            ("before", float(self.before)),
            ("after", float(self.after)),
            ("status", self.status),
            ("evaluations", self.evaluations),
        ]
        if self.sites is not None:
            for side, sites in zip(("row", "column"), self.sites, strict=True):
                rows.append((f"old site of the {side} legs", " ".join(map(str, sites))))
        else:
            for side, order in (
                ("rows", self.reordering.rows),
                ("columns", self.reordering.columns),
            ):
                rows.append((f"{side} moved", int((order != np.arange(len(order))).sum())))
        return Table(("order", ""), rows)


def check_permutation(order: ArrayLike, *, what: str, size: int | None = None) -> np.ndarray:
    """A read-only copy as integers, or a ValueError unless it permutes 0, ..., size - 1."""
    array = np.asarray(order)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError(
            f"{what} must be a list of integers, got an array of shape {array.shape} "
            f"and dtype {array.dtype}"
        )
    size = len(array) if size is None else size
    if len(array) != size or not np.array_equal(np.sort(array), np.arange(size)):
        raise ValueError(
            f"{what} of length {len(array)} is not a permutation of 0, ..., {size - 1}; "
            "each number must occur once"
        )
    array = array.astype(np.intp)
    array.setflags(write=False)
    return array
