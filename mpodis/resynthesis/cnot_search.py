"""Better circuits for every number of CNOTs, from those known for more and for fewer of them.

`removals` and `insertions` are the steps from one circuit to its neighbours, `CnotSearch` takes
them, and `prune` is a search that only removes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from mpodis.arguments import check_count
from mpodis.circuit.ansatz import Placement
from mpodis.circuit.circuit import Circuit, circuit_from_gates
from mpodis.circuit.routing import routed_circuit
from mpodis.factorization import Factorization
from mpodis.gates import named_gate, polar
from mpodis.mpo import Operator
from mpodis.objectives import Objective
from mpodis.optimise.result import Disentangled
from mpodis.resynthesis.front import ParetoFront, ParetoPoint
from mpodis.resynthesis.rewriting import PlacedGate, placed_gates
from mpodis.resynthesis.task import Task
from mpodis.resynthesis.two_qubit_gates import (
    cnot_count,
    cnot_counts,
    kron,
    nearest_one_cnot,
    nearest_product,
)
from mpodis.sites import bond_dimensions, site_tensors

__all__ = ["CnotSearch", "insertions", "prune", "removals"]

log = logging.getLogger(__name__)

SIDES = ("left", "right")
CLOSER_LOOK = 3
"""The loss is computed of this many times as many removals as are asked for."""
WORSE = 1.5
"""A circuit is given up when its loss is so many times that known for as many CNOTs."""
SAME = 1e-3
"""Relative gain of the loss below which a circuit is not tried again."""


# --- neighbours with fewer CNOTs


def removals(
    task: Task, point: ParetoPoint, *, most: int, rng: np.random.Generator | None = None
) -> list[Factorization]:
    """Neighbours with fewer CNOTs: one gate replaced by a product, or by one with a single CNOT.

    The replacement is the best gate for the environment of the gate, in which the overlap is
    linear; under the activations also the gate nearest to the one that is replaced.

    Parameters
    ----------
    task : Task
    point : ParetoPoint
    most : int
        The number that is returned: those with the smallest increase of the loss for each CNOT
        saved, before anything is re-optimised.
    rng : numpy Generator, optional
        Draw them from the `CLOSER_LOOK` times as many with the smallest increase.
    """
    given, found = point.factorization, []
    for loss, saved, side, j, gates in _replacements(task, given):
        found.append(((loss - point.loss) / saved, side, j, gates))
    ranked = []
    for _, side, j, gates in sorted(found, key=lambda one: one[0])[: CLOSER_LOOK * most]:
        replaced = _with_gates(given, side, j, gates, instead=1)
        increase = task.loss.value(replaced.padded_to_dense()) - point.loss
        shorter = task.simplified(replaced)  # gates that have become neighbours are merged
        ranked.append((increase / (point.cnots - cnot_count(shorter)), shorter))
    best = [shorter for _, shorter in sorted(ranked, key=lambda one: one[0])]
    if rng is None or len(best) <= most:
        return best[:most]
    return [best[k] for k in sorted(rng.choice(len(best), most, replace=False))]


def _replacements(
    task: Task, given: Factorization
) -> Iterator[tuple[float, int, str, int, list[PlacedGate]]]:
    """Loss, CNOTs saved, side and number of a gate, and the gates that replace it."""
    loss = task.loss.value(given.padded_to_dense())
    for side, environments in zip(SIDES, task.environments(given), strict=True):
        circuit: Circuit = getattr(given, side)
        costs = cnot_counts(circuit)
        pairs = [(j, p) for j, p in enumerate(circuit.ansatz.placements) if costs[j]]
        if not pairs:
            continue
        group = circuit.ansatz.group
        for goals in [environments] if task.loss.is_linear else [environments, circuit.gates]:
            stack = np.stack([goals[j] for j, _ in pairs])
            products = nearest_product(stack, group=group)
            before, after = nearest_one_cnot(stack, group=group, seed=task.seed)
            for k, (j, place) in enumerate(pairs):
                options = [(0, _singles(place, products, k))]
                if costs[j] > 1:
                    cnot = (Placement(place.wires, "CNOT"), named_gate("CNOT").matrix)
                    chain = [*_singles(place, before, k), cnot, *_singles(place, after, k)]
                    options.append((1, chain))
                for cnots, gates in options:
                    if task.loss.is_linear:
                        change = _product(gates) - circuit.gates[j]
                        new = loss - np.vdot(environments[j], change).real
                    else:
                        replaced = _with_gates(given, side, j, gates, instead=1)
                        new = task.loss.value(replaced.padded_to_dense())
                    yield float(new), costs[j] - cnots, side, j, gates


def _singles(place: Placement, gates: tuple[np.ndarray, np.ndarray], k: int) -> list[PlacedGate]:
    """One-qubit gates, number k of each stack, on the two wires of a placement."""
    return [(Placement((w,)), g[k]) for w, g in zip(place.wires, gates, strict=True)]


def _product(gates: Sequence[PlacedGate]) -> np.ndarray:
    """The matrix of two one-qubit gates, or of two, a CNOT and two more."""
    values = [gate for _, gate in gates]
    first = kron(values[0], values[1])
    return first if len(values) == 2 else first @ values[2] @ kron(values[3], values[4])


# --- neighbours with one more gate


def insertions(task: Task, point: ParetoPoint, *, most: int) -> list[Factorization]:
    """Neighbours with one more gate on two wires, which is the identity at first.

    The `most` places are returned whose environments E promise the largest gain: that of the polar
    factor of E over the identity.
    """
    given = point.factorization
    padded, holes = given, {}
    for side in SIDES:
        circuit, holes[side] = _with_identities(getattr(given, side))
        padded = _with_circuit(padded, side, circuit)
    gains = []
    for side, environments in zip(SIDES, task.environments(padded), strict=True):
        if side not in task.sides:
            continue
        group = getattr(given, side).ansatz.group
        for k, (j, place) in holes[side].items():
            e = environments[k]
            gain = np.vdot(e, polar(e, group=group)).real - np.trace(e).real
            gains.append((gain, side, j, place))
    found: dict[tuple, Factorization] = {}
    for _, side, j, place in sorted(gains, key=lambda one: one[0], reverse=True):
        longer = task.simplified(_with_gates(given, side, j, [(place, np.eye(4))], instead=0))
        if _n_pairs(longer) > _n_pairs(given):  # not merged into a neighbour
            found.setdefault((longer.left.ansatz, longer.right.ansatz), longer)
        if len(found) == most:
            break
    return list(found.values())


def _with_identities(circuit: Circuit) -> tuple[Circuit, dict[int, tuple[int, Placement]]]:
    """The circuit with identities on all neighbours around every layer.

    Of each identity, by its number, the second value says before which gate of the circuit it
    stands, and on which wires.
    """
    own = placed_gates(circuit)
    gates: list[PlacedGate] = []
    holes: dict[int, tuple[int, Placement]] = {}
    j, firsts = 0, [*range(0, circuit.n - 1, 2), *range(1, circuit.n - 1, 2)]
    for layer in (*circuit.ansatz.layers, ()):
        for wire in firsts:
            place = Placement((wire, wire + 1))
            holes[len(gates)] = (j, place)
            gates.append((place, np.eye(4)))
        gates += own[j : j + len(layer)]
        j += len(layer)
    ansatz = replace(circuit.ansatz, layers=tuple((place,) for place, _ in gates))
    return Circuit(ansatz, tuple(gate for _, gate in gates)), holes


def _n_pairs(given: Factorization) -> int:
    """Number of gates on two wires."""
    places = (*given.left.ansatz.placements, *given.right.ansatz.placements)
    return sum(place.width == 2 for place in places)


def _with_gates(
    given: Factorization, side: str, j: int, gates: Sequence[PlacedGate], *, instead: int
) -> Factorization:
    """The factorization with `gates` at position j of a side, instead of so many."""
    circuit: Circuit = getattr(given, side)
    own = placed_gates(circuit)
    changed = [*own[:j], *gates, *own[j + instead :]]
    group = circuit.ansatz.group
    return _with_circuit(given, side, circuit_from_gates(circuit.n, changed, group))


def _with_circuit(given: Factorization, side: str, circuit: Circuit) -> Factorization:
    return replace(given, left=circuit) if side == "left" else replace(given, right=circuit)


# --- the search


class CnotSearch:
    """The best point for each number of CNOTs, improved from more and from fewer CNOTs.

    `remove` replaces gates of every point by cheaper ones, one at a time, and `insert` adds one;
    the result is re-optimised and kept if it is better than the point known for as many CNOTs. No
    step is taken from a point that another one dominates.

    Parameters
    ----------
    task : Task
    points : iterable of ParetoPoint
        Points that are known.
    trials : int
        Neighbours of each point that are tried.
    sweeps : int
        For the best of them for each number of CNOTs.
    tried : dict, optional
        The attribute of an earlier search that is continued.
    max_loss : float
        No step is taken from a point with a larger loss.
    rng : numpy Generator, optional
        Draws among the removals with the smallest increase of the loss; by default those with the
        very smallest are tried.

    Attributes
    ----------
    best : dict of CNOTs to ParetoPoint
    tried : dict of "removals" and "insertions" to lists of (CNOTs, loss)
        Points from which steps were taken.
    """

    def __init__(
        self,
        task: Task,
        points: Iterable[ParetoPoint],
        *,
        trials: int,
        sweeps: int,
        tried: dict[str, list] | None = None,
        max_loss: float = np.inf,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.task, self.trials, self.sweeps = task, trials, sweeps
        self.max_loss, self.rng = max_loss, rng
        self.best: dict[int, ParetoPoint] = {}
        for point in points:
            self.keep_if_better(point)
        self.tried: dict[str, list] = {"removals": [], "insertions": []} if tried is None else tried

    @property
    def points(self) -> list[ParetoPoint]:
        """The best points, by their CNOTs."""
        return [self.best[cnots] for cnots in sorted(self.best)]

    def keep_if_better(self, point: ParetoPoint) -> None:
        """Keep a point if no better one is known for as many CNOTs."""
        known = self.best.get(point.cnots)
        if known is None or point.loss < known.loss:
            self.best[point.cnots] = point

    def remove(self, family: str, *, min_cnots: int = 0) -> None:
        """Take CNOTs out of every point, from the one with the most down to `min_cnots`."""
        for cnots in range(max(self.best), min_cnots, -1):
            if self._is_open(cnots, "removals"):
                neighbours = partial(removals, rng=self.rng)
                self._try(self.best[cnots], neighbours, family, min_cnots=min_cnots)

    def insert(self, family: str, *, max_cnots: int) -> None:
        """Add a gate to every point, from the one with the fewest CNOTs up to `max_cnots`."""
        for cnots in range(min(self.best), max_cnots):
            if self._is_open(cnots, "insertions"):
                self._try(self.best[cnots], insertions, family, max_cnots=max_cnots)

    def _is_open(self, cnots: int, kind: str) -> bool:
        """Whether steps of a kind should be taken from the point; notes that they are."""
        point = self.best.get(cnots)
        if point is None or point.loss > self.max_loss:
            return False
        if any(q.cnots < cnots and q.loss <= point.loss for q in self.best.values()):
            return False
        before = [loss for n, loss in self.tried[kind] if n == cnots]
        if before and point.loss > (1.0 - SAME) * min(before):
            return False
        self.tried[kind].append((cnots, point.loss))
        return True

    def _try(
        self,
        point: ParetoPoint,
        neighbours: Callable[..., list[Factorization]],
        family: str,
        *,
        min_cnots: int = 0,
        max_cnots: float = np.inf,
    ) -> None:
        """Re-optimise the neighbours of a point, the best for each number of CNOTs at length."""
        first: dict[int, ParetoPoint] = {}
        for given in neighbours(self.task, point, most=self.trials):
            found = self.task.reoptimise(given, family)
            known = first.get(found.cnots)
            if min_cnots <= found.cnots <= max_cnots and (known is None or found.loss < known.loss):
                first[found.cnots] = found
        for cnots, found in first.items():
            known = self.best.get(cnots)
            if known is not None and found.loss > WORSE * known.loss:
                continue
            better = self.task.reoptimise(found.factorization, family, sweeps=self.sweeps)
            self.keep_if_better(better)  # gates in O or U may need other CNOTs than before
            log.debug("%s: %d CNOTs, loss %.6f", family, better.cnots, better.loss)


def prune(
    operator: Operator,
    factorization: Factorization | Disentangled,
    *,
    shallower: Sequence[Factorization | Disentangled] = (),
    min_cnots: int = 0,
    objective: str | Objective = "overlap",
    inputs: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    max_bond: int | None = None,
    trials: int = 3,
    sweeps: int = 8,
    shape: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
) -> ParetoFront:
    """Take the CNOTs out of a factorization, one or two at a time, and re-optimise the rest.

    The gate on two wires whose replacement increases the loss least for each CNOT saved is
    replaced by a product of one-qubit gates, or by a gate with a single CNOT; gates that have
    become neighbours on the same wires are merged; then all gates and the core are optimised
    together. One-qubit gates cost nothing and stay.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        The operator, up to 10 qubits.
    factorization : Factorization or Disentangled
        Of this operator, with gates on one and two wires. Gates on wires that are not neighbours
        are routed first (`routed_circuit`); the CNOTs of the SWAPs count.
    shallower : sequence of the same
        Factorizations with fewer CNOTs. If one of them is better than the pruned one with as many
        CNOTs, it is pruned from there on.
    min_cnots : int
        CNOTs at which the search ends.
    objective, inputs, covariance, shape, seed
        As for `disentangle`.
    max_bond : int, optional
        Bond dimension of the core; by default that of the factorization.
    trials : int
        Replacements that are tried from every circuit.
    sweeps : int
        Sweeps, or ten L-BFGS iterations each, for the best of them.

    Returns
    -------
    ParetoFront
        The best circuit for every number of CNOTs that was found, the given ones included.

    Raises
    ------
    ValueError
        Options out of range, gates on three wires or more, an operator beyond 10 qubits, and
        whatever `disentangle` raises.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import compress, disentangle, prune
    >>> operator = compress(np.random.default_rng(0).normal(size=(8, 8)))
    >>> found = disentangle(operator, depth=1, max_sweeps=5)
    >>> prune(operator, found, trials=1, sweeps=1).front[0].cnots
    0
    """
    counts = (("min_cnots", min_cnots, 0), ("trials", trials, 1), ("sweeps", sweeps, 1))
    for name, value, low in counts:
        check_count(name, value, low)
    first, *others = (_routed(_factorization(one)) for one in (factorization, *shallower))
    if max_bond is None:
        max_bond = max(bond_dimensions(site_tensors(first.core)), default=1)
    task = Task.build(
        operator,
        shape=shape or first.shape,
        max_bond=max_bond,
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
    )
    points = [task.point(first, "given"), *(task.point(one, "shallower") for one in others)]
    search = CnotSearch(task, points, trials=trials, sweeps=sweeps)
    search.remove("pruned", min_cnots=min_cnots)
    return ParetoFront(tuple(search.points), task.objective.name)


def _factorization(given: Factorization | Disentangled) -> Factorization:
    given = given.factorization if isinstance(given, Disentangled) else given
    if not isinstance(given, Factorization):
        raise TypeError(f"{type(given).__name__} is no factorization; give one of `disentangle`")
    return given


def _routed(given: Factorization) -> Factorization:
    """The same operator with gates on neighbouring wires, at most two each."""
    for circuit in (given.left, given.right):
        for place in circuit.ansatz.placements:
            if place.width > 2:
                raise ValueError(
                    f"a gate on wires {place.wires} has {place.width} wires, but only gates on one "
                    "and two are pruned; compile it with `synthesise`, or use `resynthesise`"
                )
    return replace(given, left=routed_circuit(given.left), right=routed_circuit(given.right))
