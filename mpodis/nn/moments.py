"""First and second moments of samples that are seen batch by batch, in full or of low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mpodis.tables import Table, Tabular

__all__ = ["LayerStatistics", "LowRankMoment", "Stream", "double"]

_ROWS = 8192  # samples at a time that are cast to double precision


@dataclass(frozen=True, eq=False)
class LowRankMoment:
    """A second moment as factor^H factor + diag(residual), which agrees on the diagonal.

    Attributes
    ----------
    factor : array (rank, features)
    residual : array (features,)
        What the factor leaves out of the diagonal; not negative.
    error : float
        The moment differs from this form by at most so much in the spectral norm.
    """

    factor: np.ndarray
    residual: np.ndarray
    error: float

    def to_dense(self) -> np.ndarray:
        """The form as a (features, features) array."""
        return self.factor.conj().T @ self.factor + np.diag(self.residual)

    @property
    def trace(self) -> float:
        """That of the moment itself."""
        return float(np.linalg.norm(self.factor) ** 2 + self.residual.sum())

    @property
    def square(self) -> float:
        """Squared Frobenius norm of the form."""
        gram = np.linalg.norm(self.factor @ self.factor.conj().T) ** 2
        cross = 2 * (np.abs(self.factor) ** 2).sum(axis=0) @ self.residual
        return float(gram + cross + self.residual @ self.residual)


@dataclass(frozen=True, eq=False)
class LayerStatistics(Tabular):
    """Moments of the inputs of a layer, and the Fisher information at its outputs.

    Attributes
    ----------
    count : int
        Samples seen.
    mean : array (features,)
    about_mean : array (features, features) or LowRankMoment
        Second moment about the mean, E[(x - mean)^H (x - mean)].
    sensitivity : array (outputs, outputs) or None
        E[g^H g] of the gradients of the log-likelihood, averaged over the samples.
    """

    count: int
    mean: np.ndarray
    about_mean: np.ndarray | LowRankMoment
    sensitivity: np.ndarray | None = None

    @property
    def centred(self) -> np.ndarray:
        """The second moment about the mean, (features, features): see `second_moment`."""
        moment = self.about_mean
        return moment.to_dense() if isinstance(moment, LowRankMoment) else moment

    @property
    def covariance(self) -> np.ndarray:
        """E[x^H x], (features, features): what `mpodis.disentangle` takes by this name."""
        return self.centred + np.outer(self.mean.conj(), self.mean)

    @property
    def low_rank(self) -> LowRankMoment | None:
        """E[x^H x] with the mean as one more row of the factor; None where it is held in full."""
        moment = self.about_mean
        if not isinstance(moment, LowRankMoment):
            return None
        factor = np.vstack([moment.factor, self.mean])
        return LowRankMoment(factor, moment.residual, moment.error)

    def table(self) -> Table:
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
                ("share left to the diagonal", left),
                ("error of the form, at most", low_rank.error),
            ]
        if self.sensitivity is not None:
            trace = np.trace(self.sensitivity).real
            square = np.linalg.norm(self.sensitivity) ** 2
            rows.append(("outputs", len(self.sensitivity)))
            rows.append(("effective rank of the sensitivity", trace**2 / square if square else 0.0))
        notes = ("the effective rank is (sum of eigenvalues)^2 / sum of their squares",)
        return Table(("layer inputs", "value"), rows, notes=notes)


class Stream:
    """Mean and second moment about it, updated by blocks of rows (Chan, Golub and LeVeque 1983).

    With a `rank` the rows seen so far are kept as a factor of twice that many rows, cut back after
    every block (Frequent Directions, arXiv 1501.01711, without its shrinkage). What a cut leaves
    out is a positive part of the moment, so that the sum of its largest eigenvalues bounds
    the spectral norm of all that is missing; so does its trace.
    """

    def __init__(self, name: str, rank: int | None = None) -> None:
        if rank is not None and rank < 1:
            raise ValueError(f"rank={rank} keeps nothing; give 1 or more, or None for all")
        self.name, self.rank = name, rank
        self.count, self.missing = 0, 0.0
        self.mean = self.scatter = self.factor = self.diagonal = None

    def add(self, x: Tensor) -> None:
        """Samples (n, features)."""
        step = _ROWS if self.rank is None else max(256, 2 * self.rank)
        for block in x.split(step):
            self._add(double(block))

    def _add(self, x: Tensor) -> None:
        n = len(x)
        if not n:
            return
        bad = int((~torch.isfinite(x)).sum())
        if bad:
            raise ValueError(f"{bad} inputs of the layer {self.name!r} are NaN or infinite")
        mean = x.mean(dim=0)
        if self.mean is None:
            self.mean = torch.zeros_like(mean)
            self.diagonal = self.scatter = 0.0
            self.factor = x[:0]
        total = self.count + n
        shift = mean - self.mean
        rows = torch.cat([x - mean, math.sqrt(self.count * n / total) * shift[None]])
        self.mean, self.count = self.mean + shift * (n / total), total
        if self.rank is None:
            self.scatter = self.scatter + rows.conj().T @ rows
        else:
            self.diagonal = self.diagonal + rows.abs().square().sum(dim=0)
            self._cut(torch.cat([self.factor, rows]), 2 * self.rank)

    def _cut(self, rows: Tensor, keep: int) -> None:
        """The factor of `keep` rows nearest to what these rows span."""
        values, vectors = torch.linalg.eigh(rows @ rows.conj().T)
        self.factor = vectors[:, -keep:].conj().T @ rows
        if len(values) > keep:
            self.missing += max(0.0, values[-keep - 1].item())

    def statistics(self, sensitivity: np.ndarray | None = None) -> LayerStatistics:
        if not self.count:
            raise ValueError(f"the layer {self.name!r} received no samples, only empty batches")
        mean = self.mean.cpu().numpy()
        if self.rank is None:
            moment = (self.scatter / self.count).cpu().numpy()
            return LayerStatistics(self.count, mean, moment, sensitivity)
        self._cut(self.factor, self.rank)
        left = self.diagonal - self.factor.abs().square().sum(dim=0)
        residual = (left / self.count).clamp(min=0).cpu().numpy()
        factor = (self.factor / math.sqrt(self.count)).cpu().numpy()
        error = min(self.missing / self.count, float(residual.sum()))
        return LayerStatistics(
            self.count, mean, LowRankMoment(factor, residual, error), sensitivity
        )


def double(x: Tensor) -> Tensor:
    """Detached, in float64 or complex128; on the CPU where the device has no such numbers."""
    x = x.detach()
    x = x.cpu() if x.device.type == "mps" else x
    return x.to(torch.complex128 if x.is_complex() else torch.float64)
