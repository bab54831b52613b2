"""Sums of circuits around cores, Eq. 1 of arXiv 2509.06653v1 with more than one term."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpodis.advice import without_remarks
from mpodis.arguments import as_seed, check_count
from mpodis.arrays import rescaled
from mpodis.circuit import Ansatz
from mpodis.conventions import crop, pad, padded_shape
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization, dense_overlap
from mpodis.fit import metric_of, weighted_loss
from mpodis.measures import covariance_of
from mpodis.mpo import Operator, as_compressed, compress
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors, spread_power_of_two
from mpodis.tables import Table, Tabular

__all__ = ["KrausEnsemble", "kraus_ensemble"]

log = logging.getLogger(__name__)

DENSE = 2**11
"""Dimension up to which the residual of a sum is made as a dense matrix."""


@dataclass(frozen=True, eq=False)
class KrausEnsemble(Tabular):
    """Result of `kraus_ensemble`: M ~ sum over k of Q_L^k M'_k Q_R^k.

    Attributes
    ----------
    terms : tuple of Factorization
    first : tuple of float
        Loss after each term was added, before the terms were fitted again in turn.
    losses : tuple of float
        Loss after every round of fitting, the last one that of the ensemble:
        |C (M - A)|^2 / |C M|^2, C the root of the covariance under "activations", else 1.
    overlap : float
        f of M with the sum.
    """

    terms: tuple[Factorization, ...]
    first: tuple[float, ...]
    losses: tuple[float, ...]
    overlap: float

    @property
    def loss(self) -> float:
        return self.losses[-1] if self.losses else self.first[-1]

    def to_dense(self) -> np.ndarray:
        """Dense (inputs, outputs) matrix of the sum."""
        return np.sum([term.to_dense() for term in self.terms], axis=0)

    def table(self) -> Table:
        rows, before = [], 1.0
        for k, (term, loss) in enumerate(zip(self.terms, self.first, strict=True)):
            left, right = (side.ansatz.n_cnots for side in (term.left, term.right))
            count = None if left is None or right is None else left + right
            gain = (before - loss) / count if count else None
            parameters = sum(term.parameter_counts().values())
            rows.append((str(k + 1), loss, before - loss, parameters, count, gain))
            before = loss
        rows.append(("together", self.loss, before - self.loss, None, None, None))
        head = ("term", "loss", "gain", "parameters", "CX", "gain per CX")
        return Table(head, rows, notes=(f"overlap of the sum {self.overlap:.6f}",))


def kraus_ensemble(
    operator: Operator,
    *,
    terms: int = 2,
    rounds: int = 5,
    objective: str = "overlap",
    inputs: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
    **options: Any,
) -> KrausEnsemble:
    """Fit a sum of factorizations to an operator, Eq. 1 of arXiv 2509.06653v1 with k > 1.

    Each term is fitted to what the others leave: first sequentially, then in `rounds` rounds over
    all terms, each from where it stands and for up to `init_sweeps` sweeps. No step raises the
    loss, since the loss of a term is that of the sum.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`, of up to 11 qubits; an MPO must have qubit legs.
    terms, rounds : int
        Number of terms, k of Eq. 1, and of rounds over all of them.
    objective, inputs, covariance, shape, seed
        As for `disentangle`.
    **options
        Every other option of `disentangle` but `sensitivity` and `run_dir`, for each term; `init`
        is "identity" and `max_sweeps` 100 unless given.

    Raises
    ------
    ValueError
        Fewer than one term, an operator too large, and what `disentangle` refuses.
    TypeError
        An option that `disentangle` does not have.

    Examples
    --------
    >>> import mpodis, numpy as np
    >>> matrix = np.random.default_rng(0).normal(size=(8, 8))
    >>> len(mpodis.kraus_ensemble(matrix, depth=1, rounds=1, max_sweeps=5).terms)
    2
    """
    for name, value, least in (("terms", terms, 1), ("rounds", rounds, 0)):
        check_count(name, value, least)
    known = inspect.signature(disentangle).parameters
    unknown = sorted(set(options) - set(known) | set(options) & {"sensitivity", "run_dir"})
    if unknown:
        raise TypeError(
            f"kraus_ensemble() got an unexpected option {unknown[0]!r}; it takes those of "
            "`disentangle` but sensitivity and run_dir"
        )
    if objective not in ("overlap", "activations"):
        raise ValueError(
            f"objective={objective!r} is not known to sums; use 'overlap' or 'activations'"
        )
    given = [options.get(side) for side in ("left", "right")]
    described = all(isinstance(side, Ansatz | int | str | None) for side in given)
    options = {"init": "identity" if described else "auto", "max_sweeps": 100} | options
    init_sweeps = options.get("init_sweeps", known["init_sweeps"].default)
    tol = options.get("tol", known["tol"].default)
    first_seed = as_seed(seed)
    compressed = as_compressed(operator, shape=shape)
    legs, whole_shape = compressed.legs, compressed.shape
    if max(padded_shape(legs)) > DENSE:
        raise ValueError(
            f"the operator spans {padded_shape(legs)}; sums are fitted up to {DENSE}, beyond use "
            "one term (`disentangle`)"
        )
    whole, exponent = rescaled(mpo_to_dense(compressed.mpo))
    covariance = covariance_of(inputs, covariance)
    metric = None
    if objective == "activations" and covariance is not None:
        metric = metric_of(covariance, crop(whole, whole_shape))

    def fit(
        others: Sequence[np.ndarray], number: int, again: Factorization | None
    ) -> Factorization:
        rest = whole - sum(pad(a, legs) for a in others)
        changed = options
        if again is not None:
            changed = options | {"init": again, "n_init": 1, "max_sweeps": init_sweeps}
            # a circuit that was given is the initial guess of the first fits only
            changed |= {"depth": None, "left": again.left.ansatz, "right": again.right.ansatz}
        with without_remarks():  # of the fit of one term to what the others leave
            found = disentangle(
                compress(rest, legs=legs).mpo,
                objective=objective,
                covariance=covariance,
                shape=whole_shape,
                seed=first_seed + number,
                **changed,
            )
        if found.status == "interrupted":
            raise KeyboardInterrupt
        return found.factorization

    def loss(parts: Sequence[np.ndarray]) -> float:
        return weighted_loss(crop(whole, whole_shape), sum(parts), metric)

    found: list[Factorization] = []
    parts: list[np.ndarray] = []
    first, losses = [], []
    for k in range(terms):
        found.append(fit(parts, k, None))
        parts.append(found[-1].to_dense())
        first.append(loss(parts))
        if first[-1] < 1e-13:
            break  # nothing is left for further terms
    for number in range(rounds if len(found) > 1 else 0):
        for k in range(len(found)):
            others = [*parts[:k], *parts[k + 1 :]]
            new = fit(others, k, found[k])
            trial = [*parts[:k], new.to_dense(), *parts[k + 1 :]]
            if loss(trial) <= loss(parts):  # at convergence rounding may go either way
                found[k], parts = new, trial
        losses.append(loss(parts))
        log.info("kraus round %d: loss %.6f", number + 1, losses[-1])
        before = losses[-2] if number else first[-1]
        if before - losses[-1] < tol * before:
            break
    f = dense_overlap(crop(whole, whole_shape), sum(parts))
    if exponent:
        cores = (spread_power_of_two(site_tensors(one.core), exponent) for one in found)
        found = [
            replace(one, core=mpo_from_tensors(core))
            for one, core in zip(found, cores, strict=True)
        ]
    return KrausEnsemble(tuple(found), tuple(first), tuple(losses), f)
