"""First and second moments of samples that come batch by batch, in full or of low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mpodis.arguments import check_count
from mpodis.tables import Table, Tabular

__all__ = ["LayerStatistics", "LowRankMoment", "StreamedMoments"]

_ROWS = 8192
"""Samples that are cast to double precision at a time."""


@dataclass(frozen=True, eq=False)
class LowRankMoment:
    """A second moment approximated by factor^H factor + diag(residual), exact on the diagonal.

    Attributes
    ----------
    factor : array (rank, features)
    residual : array (features,)
        What the factor leaves out of the diagonal; not negative.
    error : float
        Upper bound of the spectral norm of the difference from the moment itself.
    """

    factor: np.ndarray
    residual: np.ndarray
    error: float

    def to_dense(self) -> np.ndarray:
        """The approximation as a (features, features) array."""
        return self.factor.conj().T @ self.factor + np.diag(self.residual)

    @property
    def trace(self) -> float:
        """Trace of the moment itself."""
        return float(np.linalg.norm(self.factor) ** 2 + self.residual.sum())

    @property
    def square(self) -> float:
        """Squared Frobenius norm of the approximation."""
        gram = np.linalg.norm(self.factor @ self.factor.conj().T) ** 2
        cross = 2 * (np.abs(self.factor) ** 2).sum(axis=0) @ self.residual
        return float(gram + cross + self.residual @ self.residual)


@dataclass(frozen=True, eq=False)
class LayerStatistics(Tabular):
    """Moments of the inputs of a layer, and the Fisher information at its outputs.

    Attributes
    ----------
    count : int
        Number of samples.
    mean : array (features,)
    about_mean : array (features, features) or LowRankMoment
        Second moment about the mean, E[(x - mean)^H (x - mean)].
    sensitivity : array (outputs, outputs) or None
        E[g^H g] of the gradients g of the log-likelihood by the layer's outputs: their Fisher
        information, averaged over the samples.
    """

    count: int
    mean: np.ndarray
    about_mean: np.ndarray | LowRankMoment
    sensitivity: np.ndarray | None = None

    @property
    def centred(self) -> np.ndarray:
        """The second moment about the mean as (features, features), see `mpodis.second_moment`."""
        moment = self.about_mean
        return moment.to_dense() if isinstance(moment, LowRankMoment) else moment

    @property
    def covariance(self) -> np.ndarray:
        """E[x^H x], (features, features), as `mpodis.disentangle` takes it."""
        return self.centred + np.outer(self.mean.conj(), self.mean)

    @property
    def low_rank(self) -> LowRankMoment | None:
        """E[x^H x] with the mean as one more row of the factor; None without a `rank`."""
        moment = self.about_mean
        if not isinstance(moment, LowRankMoment):
            return None
        factor = np.vstack([moment.factor, self.mean])
        return LowRankMoment(factor, moment.residual, moment.error)

    def table(self) -> Table:
        """Size, mean, effective rank and condition of the second moment."""
        low_rank, condition = self.low_rank, None
        if low_rank is None:
            values = np.linalg.eigvalsh(self.covariance)
            trace, square = values.sum(), values @ values
            lowest = values[0] if values[0] > 1e-15 * values[-1] else 0.0
            condition = float(values[-1] / lowest) if lowest else math.inf
        else:
            trace, square = low_rank.trace, low_rank.square
        mean = float(np.linalg.norm(self.mean) ** 2 / trace) if trace else 0.0
        rows = [
            ("features", len(self.mean)),
            ("samples", self.count),
            ("share of the mean", mean),
            ("effective rank", float(trace**2 / square) if square else 0.0),
            ("condition number", condition),
        ]
        if low_rank is not None:
            left = float(low_rank.residual.sum() / trace) if trace else 0.0
            rows += [
                ("rank of the factor", len(low_rank.factor)),
                ("share in the residual", left),
                ("error, at most", low_rank.error),
            ]
        if self.sensitivity is not None:
            trace = np.trace(self.sensitivity).real
            square = np.linalg.norm(self.sensitivity) ** 2
            rows.append(("outputs", len(self.sensitivity)))
            rows.append(("effective rank of the sensitivity", trace**2 / square if square else 0.0))
        notes = ("the effective rank is (sum of eigenvalues)^2 / sum of their squares",)
        return Table(("layer inputs", "value"), rows, notes=notes)


class StreamedMoments:
    """Mean and second moment about it, updated by blocks of rows (Chan, Golub and LeVeque 1983).

    With a `rank` the rows seen so far are represented by a factor of twice that many rows, reduced
    after every block (Frequent Directions, arXiv 1501.01711, without its shrinkage). What a
    reduction leaves out is positive semidefinite, so that the sum of the largest eigenvalues left
    out bounds the spectral norm of all that is missing; its trace is another bound.

    Parameters
    ----------
    name : str
        Of the layer, for error messages.
    rank : int, optional
        Default: the full second moment.

    Raises
    ------
    ValueError
        If the rank is below 1.
    """

    def __init__(self, name: str, rank: int | None = None) -> None:
        if rank is not None:
            check_count("rank", rank)
        self.name, self.rank = name, rank
        self.count, self.missing = 0, 0.0
        self.mean: Tensor | None = None

    def add(self, x: Tensor) -> None:
        """Add samples (n, features).

        Raises
        ------
        ValueError
            If entries are NaN or infinite.
        """
        step = _ROWS if self.rank is None else max(256, 2 * self.rank)
        for block in x.split(step):
            if len(block):
                self._add(to_double(block))

    def _add(self, x: Tensor) -> None:
        n = len(x)
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise ValueError(f"{bad} inputs of the layer {self.name!r} are NaN or infinite")
        mean = x.mean(dim=0)
        if self.mean is None:
            self.mean = torch.zeros_like(mean)
            self.scatter = x.new_zeros(()) if self.rank else torch.outer(self.mean, self.mean)
            self.diagonal, self.factor = self.mean.real, x[:0]
        total = self.count + n
        shift = mean - self.mean
        rows = torch.cat([x - mean, math.sqrt(self.count * n / total) * shift[None]])
        self.mean, self.count = self.mean + shift * (n / total), total
        if self.rank is None:
            self.scatter = self.scatter + rows.conj().T @ rows
        else:
            self.diagonal = self.diagonal + rows.abs().square().sum(dim=0)
            self._reduce(torch.cat([self.factor, rows]), 2 * self.rank)

    def _reduce(self, rows: Tensor, keep: int) -> None:
        """Set the factor to `keep` rows, those with the nearest second moment to that of `rows`."""
        values, vectors = torch.linalg.eigh(rows @ rows.conj().T)
        self.factor = vectors[:, -keep:].conj().T @ rows
        if len(values) > keep:
            self.missing += max(0.0, values[-keep - 1].item())

    def statistics(self, sensitivity: np.ndarray | None = None) -> LayerStatistics:
        """The moments of all samples added so far.

        Raises
        ------
        ValueError
            If there are none.
        """
        if self.mean is None:
            raise ValueError(
                f"the layer {self.name!r} received no samples, only empty batches; check the inputs"
            )
        mean = self.mean.cpu().numpy()
        if self.rank is None:
            moment = (self.scatter / self.count).cpu().numpy()
            return LayerStatistics(self.count, mean, moment, sensitivity)
        self._reduce(self.factor, self.rank)
        left = self.diagonal - self.factor.abs().square().sum(dim=0)
        residual = (left / self.count).clamp(min=0).cpu().numpy()
        factor = (self.factor / math.sqrt(self.count)).cpu().numpy()
        error = min(self.missing / self.count, float(residual.sum()))
        moment = LowRankMoment(factor, residual, error)
        return LayerStatistics(self.count, mean, moment, sensitivity)


def to_double(x: Tensor) -> Tensor:
    """Detached, in float64 or complex128; on the CPU where the device has no such numbers."""
    x = x.detach()
    x = x.cpu() if x.device.type == "mps" else x
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
