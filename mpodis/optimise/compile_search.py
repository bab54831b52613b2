"""The search for a circuit: initial guesses, and which of them is followed."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mpodis.circuit import (
    Ansatz,
    Circuit,
    CircuitLike,
    as_ansatz,
    brickwall,
    embed,
    from_quimb,
    random_circuit,
)
from mpodis.circuit.tiling import tiled
from mpodis.compile_targets import unitary_target
from mpodis.gates import random_gate
from mpodis.optimise.compile import ITERATIONS, CircuitDescent, CircuitTask
from mpodis.optimise.descend import Budget
from mpodis.optimise.grow import constrained_gates
from mpodis.optimise.initial_guesses import KICK_PATIENCE, kicked
from mpodis.optimise.state import State
from mpodis.sites import left_canonical, legs_of, spread_norm
from mpodis.time_evolution import evolution, trotter

__all__ = [
    "FEW",
    "GUESSES",
    "STARTS",
    "CompileSearch",
    "Guess",
    "Hamiltonian",
    "Journal",
    "odd",
]

FORMULA = "a fitted product formula"
"""Name of the initial guess for an `Evolution`."""
KICKED = "the best circuit, some gates turned at random"
"""Name of an initial guess that is a kick."""
FREE = 6
"""Layers from which on product formulas of other kinds are compared."""
UNIFORM = 1e-8
"""Largest difference of gates of a chain that counts as uniform."""
SHALLOW = 4
"""Layers from which on a circuit grows from one of half as many."""
GROWTH_SHARE = 0.3
"""Part of the time that is left which the circuit of half the layers takes."""
PART_TOL = 1e-2
"""`tol` of searches whose result is only a start, and of descents that compare guesses."""
PART = 12
"""Sites of the part of a uniform chain whose circuit is optimised first, and repeated."""
PART_SHARE = 0.4
"""Part of the time that this may take."""
EXPLORED = 5
"""Records after which initial guesses are compared; where sweeps alone follow a guess, its end."""
EXPLORING_SHARE = 0.5
"""Part of a limited time that the comparison of initial guesses may take."""
GUESSES = (16, 3)
"""Initial guesses by default: on few wires, and on more."""
LAST_SHARE = 0.05
"""Part of a limited time that is kept to measure the result."""
WINDOW = 6
"""Records over which a gain counts; of L-BFGS, each has five iterations."""
HANDOVER = {"unitary": 0.3, "state": 0.1}
"""A sweep that lowers the loss by less than this fraction hands over to L-BFGS.

Of states it takes up to ten iterations of L-BFGS to gain what a sweep does.
"""
FEW = 8
"""Wires up to which many guesses are tried, also far from the identity: a sweep takes 2 ms."""
STARTS = ("auto", "identity", "random", "trotter")
"""Initial guesses by name."""
MOVED = 0.02
"""Distance of the second guess from a circuit that is given with fewer layers."""
SCALES = (0.05, 0.15, 0.3, None)
"""Sizes of the generators of initial guesses, in turn; None: random gates."""


@dataclass(frozen=True, eq=False)
class Hamiltonian:
    """Of a target exp(-i t H): the terms, the time, and the error of the target, as 1 - f."""

    terms: Mapping[tuple[int, ...], np.ndarray]
    t: float
    error: float


@dataclass(eq=False)
class Guess:
    """An initial guess; `grows` says that a shallower circuit is to be tried first."""

    name: str
    circuit: Circuit
    grows: bool = False


@dataclass(frozen=True, eq=False)
class Best:
    """The best circuit of a search.

    Attributes
    ----------
    start : str
        The initial guess that led to it.
    circuit : Circuit
    loss : float
        As the search saw it; infinite before it was computed.
    engine : str
    is_full : bool
        Whether the engine has truncated to its `max_bond`.
    """

    start: str
    circuit: Circuit
    loss: float = math.inf
    engine: str = ""
    is_full: bool = False


@dataclass(eq=False)
class Stretch:
    """A part of a descent: all that the search needs in order to go on behind it.

    Attributes
    ----------
    records : list of dict
        What it has added to the history.
    best : Best or None
        The best circuit of these records, where it is better than all before.
    state : State or None
        After the last record; None if there is none.
    settings : dict
        Of the descent, see `CircuitDescent.settings`.
    """

    records: list[dict] = field(default_factory=list)
    best: Best | None = None
    state: State | None = None
    settings: dict[str, Any] = field(default_factory=dict)


class Journal:
    """Where a search keeps its stretches, which it makes in the same order whenever it is repeated.

    This one keeps nothing but the time, which includes that of a run that is repeated.
    """

    def __init__(self, began: float | None = None) -> None:
        self.began = time.perf_counter() if began is None else began

    @property
    def seconds(self) -> float:
        """Since the search began."""
        return time.perf_counter() - self.began

    def catch_up(self, seconds: float) -> None:
        """Let at least so much time have passed."""
        self.began = min(self.began, time.perf_counter() - seconds)

    def begin(self) -> Stretch:
        """The next stretch, as far as it was made before."""
        return Stretch()

    @property
    def has_more(self) -> bool:
        """Whether the stretch after the last one was made before."""
        return False

    def note(self, stretch: Stretch) -> None:
        """Keep the last stretch, if it is time to."""

    def save(self, stretch: Stretch) -> None:
        """Keep the last stretch."""


@dataclass(eq=False)
class _Run:
    """A descent from an initial guess; its engine is built when it is needed."""

    guess: Guess
    state: State = field(default_factory=lambda: State(names=[0]))
    settings: dict[str, Any] = field(default_factory=dict)
    descent: CircuitDescent | None = None

    @property
    def compares(self) -> bool:
        """Whether it only tells how good the guess is."""
        return self.settings.get("compares", False) if not self.descent else self.descent.compares

    def refined(self) -> _Run:
        """The run itself, or one that begins where a run that only compares has ended."""
        point = self.state.point
        if not self.compares or point is None:
            return self
        gates = tuple(point.left or point.right)
        return _Run(Guess(self.guess.name, Circuit(self.guess.circuit.ansatz, gates)))


@dataclass(eq=False)
class CompileSearch:
    """A search from several initial guesses; the best circuit is at hand at any time.

    Parameters
    ----------
    unit : list of arrays (left bond, input, output, right bond)
        The target in the row action, of norm 1.
    hamiltonian : Hamiltonian or None
        Where the target is its evolution operator.
    n_init, goal, tol, max_iterations, max_seconds, max_bond, engine, seed
        See `mpodis.compile_unitary`.
    journal : Journal
    """

    unit: list[np.ndarray]
    hamiltonian: Hamiltonian | None
    n_init: int
    goal: float
    tol: float
    max_iterations: int
    max_seconds: float | None
    max_bond: int
    engine: str
    seed: int
    journal: Journal = field(default_factory=Journal)
    records: list[dict] = field(default_factory=list)
    best: Best | None = None
    status: str = ""

    @property
    def n(self) -> int:
        return len(self.unit)

    @property
    def loss(self) -> float:
        """The loss of the best circuit."""
        return math.inf if self.best is None else self.best.loss

    @property
    def seconds(self) -> float:
        return self.journal.seconds

    # --- initial guesses

    def guesses(
        self, start: str | Circuit, depth: int | None, ansatz: CircuitLike, group: str | None
    ) -> list[Guess]:
        """The initial guesses that `start` describes, on the placements that are wanted."""
        given = None if isinstance(start, str) else start
        wanted = self._ansatz(depth, ansatz, given, group)
        if wanted.group != "U" and any(np.iscomplexobj(x) for x in self.unit):
            raise ValueError(
                f"the target is complex and the gates are real (group={wanted.group!r}); use "
                "group='U', in the ansatz or the start if one is given"
            )
        if given is not None:
            found = [Guess("the circuit given", _on(given, wanted))]
            if wanted.depth > given.ansatz.depth and not wanted.ties:
                # gates that are the identity may stand at a saddle point
                found.append(self._moved(found[0].circuit))
            return found
        if start == "trotter" or (start == "auto" and self.hamiltonian is not None):
            if self.hamiltonian is None:
                raise ValueError(
                    "start='trotter' needs the Hamiltonian; give what `mpodis.evolution` returns "
                    "as the target, or a circuit of `mpodis.trotter` as the start"
                )
            found = self._formulas(self.hamiltonian, wanted)
            if found:
                return found
            if start == "trotter":
                raise ValueError(
                    f"a product formula is a brickwall of 2-body gates in group 'U', not {wanted}; "
                    "use start='identity'"
                )
        rng = np.random.default_rng(self.seed)
        if start == "identity":
            return [self._random(wanted, SCALES[0], rng)]
        if start == "random":
            return [self._random(wanted, None, rng) for _ in range(self.n_init)]
        grows = wanted.depth >= SHALLOW and not constrained_gates(wanted, wanted)
        scales = SCALES if self.n <= FEW else SCALES[:1]  # of many wires, random gates lead nowhere
        found = [
            self._random(wanted, scales[k % len(scales)], rng, grows=grows)
            for k in range(self.n_init)
        ]
        if ansatz is None and self.n > 2:  # the layout is ours to choose
            other = brickwall(self.n, wanted.depth, parity=1, group=wanted.group)
            found += [
                self._random(other, scales[k % len(scales)], rng, ", the first layer shifted")
                for k in range(math.ceil(self.n_init / 4))
            ]
        return found

    def _ansatz(
        self, depth: int | None, ansatz: CircuitLike, given: Circuit | None, group: str | None
    ) -> Ansatz:
        parity = 0 if given is None else _parity(given.ansatz)
        named = from_quimb(ansatz)
        if isinstance(named, Circuit):
            named = named.ansatz
        if isinstance(named, Ansatz) and group not in (None, named.group):
            raise ValueError(
                f"group={group!r} was given for an ansatz in group {named.group!r}; leave out "
                "group=, or give dataclasses.replace(ansatz, group=...)"
            )
        if depth is None and ansatz is None:
            assert given is not None
            if given.n == self.n:
                return replace(given.ansatz, group=group or given.ansatz.group)
            depth = given.ansatz.depth
        if group is None:
            group = "U" if given is None else given.ansatz.group
        if depth is not None:
            return brickwall(self.n, depth, min(2, self.n), parity=parity, group=group)
        return as_ansatz(named, self.n, group, "ansatz")

    def _formulas(self, target: Hamiltonian, ansatz: Ansatz) -> list[Guess]:
        """Product formulas on the placements of an ansatz; none if it is no such brickwall.

        The gates of formulas that are nearer to the target do not always end lower.
        """
        terms, t, depth = target.terms, target.t, ansatz.depth
        formula = trotter(terms, t, "fitted", layers=depth, n=self.n)
        if formula.ansatz != ansatz:
            return []
        found = [Guess(FORMULA, formula)]
        if depth >= FREE:
            second = trotter(terms, t, 2, layers=odd(depth), n=self.n)
            found.append(Guess("the formula of second order", embed(second, ansatz)))
            fewer = trotter(terms, t, "fitted", layers=depth - 2, n=self.n)
            found.append(Guess(f"{FORMULA} of {depth - 2} layers", embed(fewer, ansatz)))
        return found

    def _moved(self, circuit: Circuit) -> Guess:
        """The circuit given with all free gates moved a little."""
        rng, ansatz = np.random.default_rng(self.seed), circuit.ansatz
        gates = [
            gate
            if place.fixed
            else gate @ random_gate(len(gate), group=ansatz.group, rng=rng, scale=MOVED)
            for place, gate in zip(ansatz.placements, circuit.gates, strict=True)
        ]
        return Guess("the circuit given, moved a little", Circuit(ansatz, tuple(gates)))

    def _random(
        self,
        ansatz: Ansatz,
        scale: float | None,
        rng: np.random.Generator,
        more: str = "",
        *,
        grows: bool = False,
    ) -> Guess:
        name = "random gates" if scale is None else f"near the identity ({scale})"
        return Guess(name + more, random_circuit(ansatz, seed=rng, scale=scale), grows)

    # --- the search

    def run(self, guesses: Sequence[Guess]) -> Generator[dict]:
        """Search from the guesses; yields a record for every sweep."""
        yield from self._searched(guesses)
        yield from self._kicked()

    def _searched(self, guesses: Sequence[Guess]) -> Generator[dict]:
        guesses = list(guesses)
        if guesses[0].name == FORMULA:
            yield from self._repeated(guesses)
        yield from self._refined(guesses)
        if guesses[0].grows and self.status == "converged":
            yield from self._grown(guesses[0].circuit.ansatz)

    def _refined(self, guesses: Sequence[Guess]) -> Iterator[dict]:
        """Follow every guess for some time, and the best to the end."""
        runs, deadline = [], math.inf
        if self.max_seconds is not None:
            began = self.seconds
            deadline = began + EXPLORING_SHARE * (self.max_seconds - began)
        for guess in guesses:
            run = _Run(guess)
            yield from self._followed(run, deadline if len(guesses) > 1 else None)
            runs.append((run.state.losses[-1], len(runs), run))
            if self.status:
                return
        runs.sort(key=lambda run: run[:2])
        ended = runs[0][2].state.status
        going = [run for _, _, run in runs if not run.state.status]
        if going:  # the best, or the best that may still overtake it
            best = going[0].refined()
            yield from self._followed(best)
            ended = best.state.status
        self.status = self.status or ended

    def _descent(self, run: _Run, *, exploring: bool = False) -> CircuitDescent:
        """The descent of a run, which stands where its state does."""
        if run.descent is None:
            task = CircuitTask(self.unit, legs_of(self.unit), run.guess.circuit.ansatz)
            run.descent = CircuitDescent(task, self.engine, self.max_bond)
            if run.state.point is None:
                loss = run.descent.place(run.guess.circuit.gates)
                has_no_sweeps = bool(task.ansatz.ties)  # tied gates have no closed form
                if run.descent.is_near(loss) or has_no_sweeps:
                    run.descent.method = "lbfgs"
                elif exploring and self.n <= FEW:
                    run.descent.compare()
            else:
                run.descent.restore(run.state, run.settings)
        return run.descent

    def _followed(self, run: _Run, deadline: float | None = None) -> Iterator[dict]:
        """Descend to the end; or, given a deadline, only as far as guesses are compared."""
        ansatz = run.guess.circuit.ansatz
        stretch = self.journal.begin()
        if stretch.state is not None:
            run.state, run.settings, run.descent = stretch.state, stretch.settings, None
            if stretch.best is not None and stretch.best.loss < self.loss:
                self.best = stretch.best
            for record in list(stretch.records):
                self.records.append(record)
                yield record
            # there may be time again, unless the search has gone on without this one
            if run.state.status == "max_seconds" and not self.journal.has_more:
                run.state.status = ""
        state, known = run.state, len(stretch.records)
        try:
            for record in [] if state.status else self._descend(run, deadline):
                descent = self._descent(run)
                if record["loss"] < self.loss:
                    circuit = Circuit(ansatz, tuple(descent.gates))
                    name, full = descent.engine.name, descent.is_full
                    self.best = Best(run.guess.name, circuit, record["loss"], name, full)
                    stretch.best = self.best
                stretch.records.append(self._noted(record, run.guess))
                stretch.state, stretch.settings = state, descent.settings
                self.journal.note(stretch)
                yield stretch.records[-1]
            if deadline is not None and state.status == "max_seconds" and self._left > 0:
                state.status = "explored"
        finally:
            if len(stretch.records) > known:
                self.journal.save(stretch)
        compared = run.compares and state.status in ("converged", "max_sweeps")
        if state.status == "explored" or compared:
            state.status = ""
        elif state.status in ("exact", "max_seconds"):
            self.status = state.status
        elif state.status == "max_sweeps":
            state.status = "max_iterations"

    @property
    def _left(self) -> float:
        """Seconds that are left for the search, without those that measure the result."""
        if self.max_seconds is None:
            return math.inf
        return (1 - LAST_SHARE) * self.max_seconds - self.seconds

    def _descend(self, run: _Run, deadline: float | None) -> Iterator[dict]:
        """The records of a descent to the end, or as far as guesses are compared."""
        exploring, limit = deadline is not None, None
        descent = self._descent(run, exploring=exploring)
        if self.max_seconds is not None:
            left = max(self._left, 1e-3)  # one step, where the time is up already
            if deadline is not None:
                left = min(left, max(deadline - self.seconds, 0.0))
            limit = left + run.state.seconds
        budget = Budget(
            math.ceil(self.max_iterations / ITERATIONS),
            limit,
            PART_TOL if run.compares else self.tol,
            init_sweeps=EXPLORED if exploring and not run.compares else None,
            window=WINDOW,
            handover=HANDOVER["state" if descent.task.on_state else "unitary"],
            alternate=False,
            exact=self.goal,
        )
        return descent.run(run.state, budget)

    def _noted(self, record: dict, guess: Guess) -> dict:
        """The record in the history."""
        found = {
            "start": guess.name,
            "sites": self.n,
            "depth": guess.circuit.ansatz.depth,
            "phase": record["phase"],
            "loss": record["loss"],
            "best": self.loss,
            "seconds": self.seconds,
        }
        self.records.append(found)
        return found

    def _sub_search(self, share: float, **changes: Any) -> CompileSearch:
        """A search for a smaller problem, with a share of the time that is left."""
        limit = self.max_seconds
        if limit is not None:
            limit = self.seconds + share * (limit - self.seconds)
        changes = {"max_seconds": limit, "tol": max(self.tol, PART_TOL)} | changes
        fresh = {"records": [], "best": None, "status": ""}
        return replace(self, **fresh, **changes)

    def _repeated(self, guesses: list[Guess]) -> Iterator[dict]:
        """Optimise the circuit of a part of a uniform chain, and repeat it."""
        assert self.hamiltonian is not None
        whole, n = guesses[0].circuit, PART + self.n % 2
        terms, t = self.hamiltonian.terms, self.hamiltonian.t
        inside = {wires: matrix for wires, matrix in terms.items() if wires[-1] < n}
        if self.n <= n + 2 or not inside:
            return
        small = trotter(inside, t, "fitted", layers=whole.ansatz.depth, n=n)
        again = tiled(small, whole.ansatz)
        if any(
            np.abs(x - y).max() > UNIFORM for x, y in zip(again.gates, whole.gates, strict=True)
        ):
            return  # the chain is not uniform
        error = min(max(self.hamiltonian.error, 1e-20), 0.5)
        part = evolution(inside, t, error=error, n=n)
        unit = spread_norm(left_canonical(unitary_target(part))[0], 0.0)
        small_problem = Hamiltonian(part.terms, t, part.error)
        search = self._sub_search(PART_SHARE, unit=unit, hamiltonian=small_problem)
        name = f"the circuit of {n} sites, repeated"
        for record in search._searched(search._formulas(small_problem, small.ansatz)):
            self.records.append(record)
            assert search.best is not None
            # what there is if the search is interrupted here
            circuit = tiled(search.best.circuit, whole.ansatz)
            self.best = Best(name, circuit, engine=search.best.engine)
            yield record
        assert self.best is not None
        guesses[:] = [Guess(name, self.best.circuit)]

    def _grown(self, whole: Ansatz) -> Iterator[dict]:
        """Go on from a circuit of half the layers, if that is better than what was found."""
        half = Ansatz(whole.n, whole.layers[: whole.depth // 2], whole.group)
        rng = np.random.default_rng([self.seed, half.depth])
        search = self._sub_search(GROWTH_SHARE)
        begin = self._random(half, SCALES[0], rng, grows=half.depth >= SHALLOW)
        for record in search._searched([begin]):
            self.records.append(record)
            yield record
        if search.best is not None and search.loss < self.loss:
            name = f"the circuit of {half.depth} layers"
            self.status = ""
            yield from self._refined([Guess(name, embed(search.best.circuit, whole))])

    def _kicked(self) -> Iterator[dict]:
        """In a limited time, descend from kicks of the best circuit on few wires.

        It ends when the number of records has tripled (`KICK_PATIENCE`) since the last gain. Kicks
        that a run directory holds are taken in any case, so that a run that goes on without a limit
        keeps what they have found.
        """
        gained, number = len(self.records), 0
        while (
            (self.max_seconds is not None or self.journal.has_more)
            and self.n <= FEW
            and self.status == "converged"
            and len(self.records) < KICK_PATIENCE * gained
        ):
            assert self.best is not None
            if not self.best.circuit.ansatz.free:
                return  # nothing can be turned
            before, ansatz = self.loss, self.best.circuit.ansatz
            rng = np.random.default_rng([self.seed, gained, number])
            gates = kicked(self.best.circuit.gates, ansatz, number, rng)
            run = _Run(Guess(KICKED, Circuit(ansatz, tuple(gates))))
            self.status = ""
            yield from self._followed(run)
            # a kick that has brought nothing says nothing of the best circuit
            self.status = self.status or (run.state.status if self.loss < before else "converged")
            number += 1
            if self.loss < (1 - self.tol) * before:
                gained = len(self.records)


def odd(depth: int) -> int:
    """The most layers that a second-order formula has within a depth."""
    return depth - 1 + depth % 2


def _parity(ansatz: Ansatz) -> int:
    """Parity of the first layer of a brickwall; 0 for other circuits."""
    n, depth = ansatz.n, ansatz.depth
    if not n or not depth:
        return 0
    shifted = brickwall(n, depth, min(2, n), parity=1)
    return int(ansatz.layers == shifted.layers != brickwall(n, depth, min(2, n)).layers)


def _on(circuit: Circuit, ansatz: Ansatz) -> Circuit:
    """A circuit on the placements of an ansatz of as many or more layers, or wires."""
    if circuit.ansatz == ansatz:
        return circuit
    _check_group(circuit, ansatz.group)
    if circuit.n > ansatz.n:
        raise ValueError(
            f"the start has {circuit.n} wires, more than the target ({ansatz.n}); only a circuit "
            "of as many wires, or of fewer, can be a start"
        )
    if circuit.n < ansatz.n:
        if circuit.ansatz.depth != ansatz.depth:
            raise ValueError(
                f"the start has {circuit.n} wires and {circuit.ansatz.depth} layers, the ansatz "
                f"{ansatz.n} and {ansatz.depth}; repeat it with its own number of layers first, "
                "and begin a deeper circuit from that"
            )
        return tiled(circuit, ansatz)
    try:
        return embed(circuit, ansatz)
    except ValueError as error:
        if circuit.ansatz.depth <= ansatz.depth:
            raise
        raise ValueError(
            f"the start has {circuit.ansatz.depth} layers, the ansatz only {ansatz.depth}, and "
            f"does not fit; use depth={circuit.ansatz.depth} or more, or leave out depth= and "
            "ansatz="
        ) from error


def _check_group(circuit: Circuit, group: str) -> None:
    """A ValueError if gates of a start are not in the group that is wanted."""
    free = [
        np.asarray(gate)
        for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True)
        if place.fixed is None
    ]
    if group != "U" and any(np.iscomplexobj(gate) for gate in free):
        raise ValueError(
            f"the start has complex gates, which are not in group={group!r}; use group='U'"
        )
    if group == "SO" and any(np.linalg.det(gate) < 0 for gate in free):
        raise ValueError(
            "the start has gates of determinant -1, which are not in group='SO'; use group='O'"
        )
