"""`pareto`: circuits of several families for one operator, and the front that they make."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from mpodis.arguments import check_count, plain_number, plain_numbers
from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.spec import from_spec
from mpodis.mpo import Operator
from mpodis.objectives import Objective
from mpodis.options import LARGEST_ROUNDS
from mpodis.progress import bar
from mpodis.resynthesis.cnot_search import CnotSearch
from mpodis.resynthesis.cnots_only import cnots_only
from mpodis.resynthesis.front import (
    ParetoFront,
    ParetoPoint,
    points_from_arrays,
    points_to_arrays,
)
from mpodis.resynthesis.task import Task
from mpodis.store import PieceStore, locked_pieces

__all__ = ["FAMILIES", "pareto"]

log = logging.getLogger(__name__)

FAMILIES = ("SO(4)", "O(4)", "scaffold", "CNOTs alone", "pruned", "searched")
"""Brickwalls of SO(4) and of O(4) gates; CNOTs with one-qubit gates between them, and without;
pruned SO(4) brickwalls; and the result of a search over the places of gates, from all others."""


@plain_numbers
def pareto(
    operator: Operator,
    *,
    max_bond: int = 1,
    objective: str | Objective = "overlap",
    inputs: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    families: str | Sequence[str] = FAMILIES,
    depths: Sequence[int] = (1, 2, 4, 8),
    max_cnots: int | None = None,
    n_init: int = 4,
    rounds: int = 2,
    trials: int = 3,
    sweeps: int = 8,
    beam: int = 4,
    max_sweeps: int = 100,
    shape: tuple[int, int] | None = None,
    seed: int | np.random.Generator = 0,
    run_dir: str | os.PathLike[str] | None = None,
    progbar: bool = False,
) -> ParetoFront:
    """The best overlap for every number of CNOTs: a Pareto front of circuits for one operator.

    All gates are real. A gate of SO(4) is two CNOTs with one-qubit rotations around them (the two
    SU(2) factors of SO(4) by Euler angles). Circuits of SO(4) gates are therefore circuits of CNOTs
    and rotations, and the search over the places of gates with one or two CNOTs is one over the
    places of CNOTs. Which of its wires controls a CNOT makes no difference between free gates in
    O(2), which contains the Hadamard gate; and reflections can be moved into the core.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        The operator, up to 10 qubits.
    max_bond, objective, inputs, covariance, shape, seed
        As for `disentangle`.
    families : str or sequence of str
        Of `FAMILIES`. "SO(4)", "O(4)": brickwalls of free gates of every depth in `depths`, with
        either parity. "scaffold": likewise, of CNOTs with one-qubit gates between them. "CNOTs
        alone": CNOTs with no gates between them, by a beam search over their places. "pruned":
        SO(4) brickwalls whose gates are taken out one by one. "searched": from all circuits found
        before, gates are put in and taken out by turns.
    depths : sequence of int
        Layers on either side; scaffolds have twice as many layers of CNOTs.
    max_cnots : int, optional
        The most CNOTs that are searched for; by default those of the deepest brickwall.
    n_init : int
        Initial guesses for every brickwall and scaffold.
    rounds : int
        How often gates are put in and taken out.
    trials, sweeps : int
        Neighbours of every circuit that are tried, and sweeps for the best of them, see `prune`.
    beam : int
        Beam width of the search for CNOTs with no gates between them.
    max_sweeps : int
        Of every brickwall and scaffold.
    run_dir : path, optional
        Directory for the results of each piece of work; the same call continues from there.
    progbar : bool

    Returns
    -------
    ParetoFront

    Raises
    ------
    ValueError
        Options that are not known or out of range, an operator beyond 10 qubits, a directory of
        another call, and whatever `disentangle` raises.
    BlockingIOError
        If another process works in `run_dir`.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import compress, pareto
    >>> operator = compress(np.random.default_rng(0).normal(size=(4, 4)))
    >>> front = pareto(operator, families="SO(4)", depths=(1,), max_sweeps=10)
    >>> [point.cnots for point in front.points]
    [4]
    """
    chosen = (families,) if isinstance(families, str) else tuple(families)
    unknown = [name for name in chosen if name not in FAMILIES]
    if unknown or not chosen:
        problem = f"family {unknown[0]!r} is not known" if unknown else "families is empty"
        raise ValueError(f"{problem}; use some of {', '.join(FAMILIES)}")
    depths = [plain_number(depth) for depth in depths]
    if not depths:
        raise ValueError("depths is empty; give at least one number of layers")
    for depth in depths:
        check_count("depth", depth, 1)
    if max_cnots is not None:
        check_count("max_cnots", max_cnots, 0)
    descents = {"n_init": n_init, "max_sweeps": max_sweeps}
    search = {"trials": trials, "sweeps": sweeps}
    check_count("rounds", rounds, 1, most=LARGEST_ROUNDS)
    for name, value in (descents | search | {"beam": beam}).items():
        check_count(name, value, 1)
    task = Task.build(
        operator,
        shape=shape,
        max_bond=max_bond,
        objective=objective,
        inputs=inputs,
        covariance=covariance,
        seed=seed,
    )
    if max_cnots is None:
        deepest = _both_sides(task, lambda n: brickwall(n, max(depths), min(2, n)))
        max_cnots = sum(2 for side in deepest for p in side.placements if p.width == 2)
    identity = {
        **descents,
        **search,
        "families": chosen,
        "depths": depths,
        "max_cnots": max_cnots,
        "rounds": rounds,
        "beam": beam,
        "shape": task.shape,
        "max_bond": max_bond,
        "objective": task.objective.name,
        "seed": task.seed,
        "operator": _digest(task.target),
        "covariance": _digest(task.objective.covariance),
        "sensitivity": _digest(task.objective.sensitivity),
    }

    # in this order: later pieces begin from what earlier ones have found
    pieces: dict[str, Piece] = {}
    for parity in (0, 1):
        if {"SO(4)", "pruned"} & set(chosen):  # brickwalls are what is pruned
            pieces[f"so4-{parity}"] = partial(
                _brickwalls, family="SO(4)", group="SO", parity=parity, depths=depths, **descents
            )
        if "O(4)" in chosen:
            pieces[f"o4-{parity}"] = partial(
                _brickwalls, family="O(4)", group="O", parity=parity, depths=depths, **descents
            )
        if "scaffold" in chosen:
            pieces[f"scaffold-{parity}"] = partial(
                _scaffolds, parity=parity, depths=depths, **descents
            )
    if "CNOTs alone" in chosen:
        pieces["cnots-alone"] = partial(_cnots_alone, max_cnots=max_cnots, beam=beam)
    if "pruned" in chosen:
        pieces["pruned"] = partial(_pruned, **search)
    if "searched" in chosen:
        searched = partial(_searched, max_cnots=max_cnots, **descents, **search)
        for k in range(1, rounds + 1):
            pieces[f"search-{k}-up"] = partial(searched, up=True)
            pieces[f"search-{k}-down"] = partial(searched, up=False)

    found = _Found()
    with (
        locked_pieces(run_dir, identity, kind="pareto") as store,
        bar(total=len(pieces), desc="pareto", enabled=progbar) as shown,
    ):
        for name, piece in pieces.items():
            _take(name, piece, task, found, store)
            shown.update(last=name)
    return ParetoFront(tuple(found.points), task.objective.name)


@dataclass
class _Found:
    """What the pieces so far have found.

    Attributes
    ----------
    points : list of ParetoPoint
        The best of every family for each number of CNOTs.
    tried : dict or None
        What the search has tried, see `CnotSearch`.
    """

    points: list[ParetoPoint] = field(default_factory=list)
    tried: dict[str, list] | None = None

    def add(self, points: Sequence[ParetoPoint]) -> None:
        best: dict[tuple[str, int], ParetoPoint] = {}
        for point in (*self.points, *points):
            known = best.setdefault((point.family, point.cnots), point)
            if point.loss < known.loss:
                best[point.family, point.cnots] = point
        self.points = list(best.values())


Piece = Callable[[Task, _Found], list[ParetoPoint]]
"""A piece of work; it notes in `_Found` what it has tried."""


def _take(name: str, piece: Piece, task: Task, found: _Found, store: PieceStore | None) -> None:
    """Add the points of a piece: from the store, or else by doing the work."""
    stored = None if store is None else store.load(name)
    if stored is not None:
        arrays, notes = stored
        points, found.tried = points_from_arrays(arrays, notes["points"]), notes["tried"]
    else:
        points = piece(task, found)
        if store is not None:
            arrays, rows = points_to_arrays(points)
            store.save(name, arrays, {"points": rows, "tried": found.tried})
    found.add(points)
    log.info("pareto: %s", name)


def _both_sides(task: Task, make: Callable[[int], Ansatz]) -> tuple[Ansatz, Ansatz]:
    """An ansatz for the left circuit and its mirror image; empty where a side has no wires."""
    left, right = (make(n) if n else Ansatz(0, ()) for n in task.wires)
    return left, right.reversed()


def _brickwalls(
    task: Task,
    found: _Found,
    *,
    family: str,
    group: str,
    parity: int,
    depths: Sequence[int],
    n_init: int,
    max_sweeps: int,
) -> list[ParetoPoint]:
    """Of all depths, the better one from the identity and from the shallower brickwall."""
    points: list[ParetoPoint] = []
    for depth in sorted(depths):

        def make(n: int, depth: int = depth) -> Ansatz:
            return brickwall(n, depth, min(2, n), parity=parity, group=group)

        shallower = points[-1].factorization if points else None
        left, right = _both_sides(task, make)
        points.append(
            task.optimise(
                left, right, family, n_init=n_init, max_sweeps=max_sweeps, shallower=shallower
            )
        )
    return points


def _scaffolds(
    task: Task,
    found: _Found,
    *,
    parity: int,
    depths: Sequence[int],
    n_init: int,
    max_sweeps: int,
) -> list[ParetoPoint]:
    """Of all depths, each by itself: CNOTs are not the identity at first."""
    points = []
    for depth in depths:

        def make(n: int, depth: int = depth) -> Ansatz:
            # one-qubit gates next to the core would be part of it
            spec = f"{2 * depth}*(1b + CNOT)" if n > 1 else "1b"
            return from_spec(spec, n, parity=parity)

        left, right = _both_sides(task, make)
        points.append(task.optimise(left, right, "scaffold", n_init=n_init, max_sweeps=max_sweeps))
    return points


def _cnots_alone(task: Task, found: _Found, *, max_cnots: int, beam: int) -> list[ParetoPoint]:
    return cnots_only(task, "CNOTs alone", max_cnots=max_cnots, beam=beam)


def _pruned(task: Task, found: _Found, *, trials: int, sweeps: int) -> list[ParetoPoint]:
    brickwalls = [p for p in found.points if p.family == "SO(4)"]
    search = CnotSearch(task, brickwalls, trials=trials, sweeps=sweeps)
    search.remove("pruned")
    return [p for p in search.points if p.family == "pruned"]


def _searched(
    task: Task,
    found: _Found,
    *,
    up: bool,
    max_cnots: int,
    n_init: int,
    max_sweeps: int,
    trials: int,
    sweeps: int,
) -> list[ParetoPoint]:
    # O(4) gates may need three CNOTs, and would stay in O(4)
    known = [p for p in found.points if p.family not in ("O(4)", "CNOTs alone")]
    known = [p for p in known if p.cnots <= max_cnots]
    if not any(p.cnots == 0 for p in known):
        left, right = _both_sides(task, lambda n: Ansatz(n, ()))
        known.append(task.optimise(left, right, "searched", n_init=n_init, max_sweeps=max_sweeps))
    search = CnotSearch(task, known, trials=trials, sweeps=sweeps, tried=found.tried)
    if up:
        search.insert("searched", max_cnots=max_cnots)
    else:
        search.remove("searched")
    found.tried = search.tried
    return [p for p in search.points if p.family == "searched"]


def _digest(array: np.ndarray | None) -> str | None:
    """Hash of an array, if there is one."""
    if array is None:
        return None
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
