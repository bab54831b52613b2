"""Better circuits for every number of CNOTs, from what is known for more and for fewer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mpodis.factorization import Factorization
from mpodis.mpo import Compressed
from mpodis.optimise.result import Disentangled
from mpodis.resynthesis.front import ParetoFront
from mpodis.resynthesis.moves import insertions, removals
from mpodis.resynthesis.points import ParetoPoint
from mpodis.resynthesis.task import Task
from mpodis.sites import bond_dimensions, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Search", "prune"]

log = logging.getLogger(__name__)

HOPELESS = 1.5
"""A loss so many times that of what is known for as many CNOTs is not followed up."""
SAME = 1e-3
"""A relative gain of the loss that opens no new ways."""


class Search:
    """The best point for each number of CNOTs, improved from above and from below.

    `descend` makes gates of every point cheaper, one at a time, and `ascend` puts one in; what
    comes out is settled and kept if it is better than what there was for as many CNOTs. A point
    that another one dominates leads nowhere and is left alone.

    Parameters
    ----------
    task : Task
    points : iterable of ParetoPoint
        To begin with.
    trials : int
        Ways that are tried from each point.
    sweeps : int
        For the best of them for each number of CNOTs.
    tried : dict, optional
        What an earlier search has tried: the attribute, to go on from.
    ceiling : float
        A loss from which on a point leads nowhere.
    rng : numpy Generator, optional
        Draws the removals that are tried among the gentlest; by default the gentlest are.

    Attributes
    ----------
    best : dict of CNOTs to ParetoPoint
    tried : dict of "removals" and "insertions" to lists of (CNOTs, loss)
    """

    def __init__(
        self,
        task: Task,
        points: Iterable[ParetoPoint],
        *,
        trials: int,
        sweeps: int,
        tried: dict | None = None,
        ceiling: float = np.inf,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.task, self.trials, self.sweeps = task, trials, sweeps
        self.ceiling, self.rng = ceiling, rng
        self.best: dict[int, ParetoPoint] = {}
        for point in points:
            self.offer(point)
        self.tried = {"removals": [], "insertions": []} if tried is None else tried

    @property
    def points(self) -> list[ParetoPoint]:
        return [self.best[cnots] for cnots in sorted(self.best)]

    def offer(self, point: ParetoPoint) -> None:
        """Keep the better for as many CNOTs."""
        known = self.best.get(point.cnots)
        if known is None or point.loss < known.loss:
            self.best[point.cnots] = point

    def descend(self, family: str, *, least: int = 0) -> None:
        """From the most CNOTs down to `least`."""
        for cnots in range(max(self.best), least, -1):
            if self._is_open(cnots, "removals"):
                moves = partial(removals, rng=self.rng)
                self._expand(self.best[cnots], moves, family, least=least)

    def ascend(self, family: str, *, most: int) -> None:
        """From the fewest CNOTs up to `most`."""
        for cnots in range(min(self.best), most):
            if self._is_open(cnots, "insertions"):
                self._expand(self.best[cnots], insertions, family, most=most)

    def _is_open(self, cnots: int, way: str) -> bool:
        point = self.best.get(cnots)
        if point is None or point.loss > self.ceiling:
            return False
        if any(q.cnots < cnots and q.loss <= point.loss for q in self.best.values()):
            return False
        before = [loss for n, loss in self.tried[way] if n == cnots]
        if before and point.loss > (1.0 - SAME) * min(before):
            return False
        self.tried[way].append((cnots, point.loss))
        return True

    def _expand(
        self,
        now: ParetoPoint,
        moves: Callable,
        family: str,
        *,
        least: int = 0,
        most: float = np.inf,
    ) -> None:
        first: dict[int, ParetoPoint] = {}
        for given in moves(self.task, now, most=self.trials):
            point = self.task.settle(given, family)
            known = first.get(point.cnots)
            if least <= point.cnots <= most and (known is None or point.loss < known.loss):
                first[point.cnots] = point
        for cnots, point in first.items():
            known = self.best.get(cnots)
            if known is not None and point.loss > HOPELESS * known.loss:
                continue
            better = self.task.settle(point.factorization, family, sweeps=self.sweeps)
            self.offer(better)  # its gates in O or U may need other CNOTs than before
            log.debug("%s: %d CNOTs, loss %.6f", family, better.cnots, better.loss)


def prune(
    mpo: MatrixProductOperator | Compressed,
    start: Factorization | Disentangled,
    *,
    rivals: Sequence[Factorization | Disentangled] = (),
    least: int = 0,
    objective: str = "overlap",
    inputs=None,
    covariance=None,
    max_bond: int | None = None,
    trials: int = 3,
    sweeps: int = 8,
    shape: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
) -> ParetoFront:
    """Take the CNOTs out of a factorization, one or two at a time, the rest being re-optimised.

    A gate on two wires is replaced by the product of one-qubit gates, or by the gate of a single
    CNOT, that costs the least of the objective for a CNOT saved; gates that have become
    neighbours on the same wires are merged; then all gates and the core are optimised together.
    One-qubit gates cost nothing and stay.

    Parameters
    ----------
    mpo : MatrixProductOperator or Compressed
        The operator, up to 10 qubits.
    start : Factorization or Disentangled
        Of this operator, with gates on one and two wires.
    rivals : sequence of the same
        Shallower circuits that are known. Where one of them is better than the pruned circuit at
        as many CNOTs, pruning goes on from it.
    least : int
        CNOTs at which it ends.
    objective, inputs, covariance, shape, seed
        As for `disentangle`.
    max_bond : int, optional
        Bond dimension of the core; by default that of `start`.
    trials : int
        Ways to save CNOTs that are tried from every circuit.
    sweeps : int
        Sweeps, or ten L-BFGS iterations each, of the best of them.

    Returns
    -------
    ParetoFront
        For every number of CNOTs that was met the best circuit, `start` and `rivals` included.

    Raises
    ------
    ValueError
        Options out of range, gates on three wires or more, an operator too large, and what
        `disentangle` refuses.
    """
    for name, value, low in (("least", least, 0), ("trials", trials, 1), ("sweeps", sweeps, 1)):
        check_count(name, value, low)
    start, *rivals = (_factorization(one) for one in (start, *rivals))
    if max_bond is None:
        max_bond = max(bond_dimensions(site_tensors(start.core)), default=1)
    task = Task.build(
        mpo,
        shape=shape or start.shape,
        max_bond=max_bond,
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
    )
    points = [task.point(start, "start"), *(task.point(one, "rival") for one in rivals)]
    search = Search(task, points, trials=trials, sweeps=sweeps)
    search.descend("pruned", least=least)
    return ParetoFront(tuple(search.points), objective)


def check_count(name: str, value, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < low:
        raise ValueError(f"{name}={value!r} must be a whole number, {low} or more")


def _factorization(given: Factorization | Disentangled) -> Factorization:
    given = given.factorization if isinstance(given, Disentangled) else given
    if not isinstance(given, Factorization):
        raise TypeError(f"{type(given).__name__} is no factorization; give one of `disentangle`")
    return given
