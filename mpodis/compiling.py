"""`compile_unitary` and `compile_state`: the shallow circuit nearest to an operator or a state."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.circuit import (
    Ansatz,
    Circuit,
    CircuitLike,
    as_ansatz,
    as_circuit,
    brickwall,
    circuit_group,
    circuit_to_quimb,
    embed,
    random_circuit,
)
from mpodis.circuit.tiling import tiled
from mpodis.compile_targets import Target, state_target, unitary_target
from mpodis.environments.arrays import single_threaded
from mpodis.gates import check_group, random_gate
from mpodis.hamiltonians import Evolution, evolution, trotter
from mpodis.optimise.compile import ITERATIONS, CircuitDescent, CircuitTask, turned
from mpodis.optimise.descend import Budget
from mpodis.optimise.grow import constrained_gates
from mpodis.optimise.problem import as_seed
from mpodis.optimise.result import History
from mpodis.optimise.state import State
from mpodis.progress import bar, interrupts
from mpodis.sites import left_canonical, legs_of, spread_norm, tensors_to_dense
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    import quimb.tensor as qtn
    from matplotlib.axes import Axes
    from qiskit import QuantumCircuit

__all__ = ["Compiled", "compile_state", "compile_unitary"]

ADVICE = {
    "exact": "the goal is reached",
    "converged": "the loss has stopped falling; more layers, another seed=, or a larger n_init= "
    "may lower it",
    "max_iterations": "still falling when max_iterations was reached; raise it, or go on with "
    "start=<this result>",
    "max_seconds": "still falling when max_seconds was reached; raise it, or start=<this result>",
    "interrupted": "stopped by the user; start=<this result> goes on",
}
FORMULA = "a fitted product formula"
"""Name of the initial guess for an `Evolution`."""
FREE = 6
"""Layers from which on product formulas of other kinds are compared."""
UNIFORM = 1e-8
"""Largest difference of gates of a chain that counts as uniform."""
SHALLOW = 4
"""Layers from which on a circuit grows from one of half as many."""
GROWTH_SHARE = 0.3
"""Part of the time that is left which the circuit of half the layers takes."""
PART_TOL = 1e-2
"""`tol` of searches whose result is only a start."""
PART = 12
"""Sites of the part of a uniform chain whose circuit is optimised first, and repeated."""
PART_SHARE = 0.4
"""Part of the time that this may take."""
EXPLORED = 5
"""Records after which initial guesses are compared."""
LAST_SHARE = 0.05
"""Part of a limited time that is kept to measure the result."""
WINDOW = 6
"""Records over which a gain counts; of L-BFGS, each has five iterations."""
CRAWL = 0.3
"""A sweep that lowers the loss by less than this fraction hands over to L-BFGS."""
NEAR = 0.1
"""Loss of an initial guess below which L-BFGS begins without sweeps."""
FEW = 8
"""Wires up to which guesses far from the identity are tried."""
STARTS = ("auto", "identity", "random", "trotter")
"""Initial guesses by name."""
MOVED = 0.02
"""Distance of the second guess from a circuit that is given with fewer layers."""
SCALES = (0.05, 0.3, None)
"""Sizes of the generators of initial guesses, in turn; None: random gates."""


@dataclass(frozen=True, eq=False)
class Compiled(Tabular):
    """Result of `compile_unitary` and `compile_state`.

    With c = Tr(U^H Q) / 2^n of a unitary, <psi|Q|0...0> of a state.

    Attributes
    ----------
    circuit : Circuit
        Its gates are exactly unitary; its global phase is the target's. In the row action, so that
        ``circuit.to_dense().T`` acts on kets.
    kind : {"unitary", "state"}
    loss : float
        1 - |c|, which is 1 - f as the phases agree.
    infidelity : float
        1 - |c|^2.
    loss_error, infidelity_error : float
        Estimated errors of both: what the measurement has cut off.
    status : str
        Why the search ended: "exact" (the goal is reached), "converged", "max_iterations",
        "max_seconds" or "interrupted".
    start : str
        The initial guess that won.
    engine : str
    history : History
    trotter_loss : float
        1 - |c| of the second-order Trotter circuit with no more layers, for an `Evolution` as the
        target; else NaN.
    trotter_layers : int or None
        About how many layers a Trotter circuit of second order needs for the same loss.
    seconds : float
    remarks : tuple of str
        What keeps the loss up and what to do about it, in sentences: a determinant that the gates
        cannot have.
    """

    circuit: Circuit
    kind: str
    loss: float
    infidelity: float
    loss_error: float
    infidelity_error: float
    status: str
    start: str
    engine: str
    history: History
    trotter_loss: float
    trotter_layers: int | None
    seconds: float
    remarks: tuple[str, ...] = ()

    @property
    def overlap(self) -> float:
        """|c|"""
        return 1.0 - self.loss

    @property
    def n_cnots(self) -> int | None:
        """CNOTs (or CZ, or ECR) that its gates need; None where only a compiler can tell."""
        from mpodis.resynthesis import cnot_count

        if any(place.width > 2 for place in self.circuit.ansatz.placements):
            return None
        return cnot_count(self.circuit)

    @property
    def cnot_depth(self) -> int | None:
        """The longest chain of these CNOTs."""
        from mpodis.resynthesis import cnot_depth

        return None if self.n_cnots is None else cnot_depth(self.circuit)

    def gate_cost(self, backend: Any = "logical", **options: Any) -> Any:
        """Gates (CX, CZ, ECR, ...) and depth on a device, see `mpodis.quantum.gate_cost`.

        A circuit for a state is counted as it acts on |0...0>, where first gates need fewer CNOTs.
        """
        from mpodis.quantum.depths import as_run
        from mpodis.quantum.gate_costs import gate_cost

        return gate_cost(as_run(self), backend=backend, **options)

    def to_qiskit(self) -> QuantumCircuit:
        """The circuit in Qiskit, wire 0 its last qubit: the ``Operator`` is near the target."""
        from mpodis.quantum import to_qiskit

        return to_qiskit(self.circuit)

    def to_quimb(self) -> qtn.Circuit:
        """The circuit in quimb; ``to_quimb().uni.to_dense()`` is near the target."""
        return circuit_to_quimb(self.circuit)

    def export(self, folder: str | os.PathLike, **options: Any) -> Any:
        """Write the circuit to files, see `mpodis.quantum.export_circuits`."""
        from mpodis.quantum import export_circuits

        return export_circuits(self.circuit, folder, **options)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the loss against the time, and Trotter's as a line."""
        from mpodis.plots import plot_compiled

        return plot_compiled(self, ax=ax)

    def table(self) -> Table:
        rows: list[Sequence[object]] = [
            ("target", self.kind),
            ("circuit", str(self.circuit.ansatz)),
            ("1 - |c|", self.loss),
            ("1 - |c|^2", self.infidelity),
            ("error of 1 - |c|^2", self.infidelity_error),
            ("CNOTs", self.n_cnots),
            ("depth in CNOTs", self.cnot_depth),
        ]
        if not math.isnan(self.trotter_loss):
            rows += [
                (
                    f"1 - |c| of Trotter, order 2, {_odd(self.circuit.ansatz.depth)} layers",
                    self.trotter_loss,
                ),
                ("layers that Trotter needs, about", self.trotter_layers),
            ]
        rows += [
            ("begun from", self.start),
            ("engine", self.engine),
            ("seconds", self.seconds),
            ("status", self.status),
        ]
        return Table(("compiled", ""), rows, notes=(ADVICE[self.status], *self.remarks))


def compile_unitary(
    target: Target,
    *,
    depth: int | None = None,
    ansatz: CircuitLike = None,
    start: Any = "auto",
    group: str = "U",
    n_init: int = 3,
    goal: float = 1e-13,
    tol: float = 1e-2,
    max_iterations: int = 2000,
    max_seconds: float | None = None,
    max_bond: int = 128,
    engine: str = "auto",
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> Compiled:
    """The circuit of a given depth that is nearest to a unitary, dense or of 100 sites.

    Riemannian L-BFGS over all gates, from the Gauss-Newton metric of the circuit, on exact or on
    truncated environments. Ctrl-C returns the best circuit so far.

    Parameters
    ----------
    target : array (2^n, 2^n), MPO, circuit, or Evolution
        U, which acts on kets, psi -> U psi: a dense array or Qiskit's ``Operator``; an MPO of quimb
        whose upper legs are rows; a circuit of quimb, Qiskit or mpodis; or what `evolution` makes,
        which also says where to start.
    depth : int
        Layers of a brickwall of 2-body gates, if there is no `ansatz`.
    ansatz : Ansatz, Circuit, quimb Circuit or str
        Placements of the gates, as in `disentangle`.
    start : str, Circuit, Compiled, quimb or Qiskit circuit
        "identity" (near it), "random", "trotter" (a product formula with as many layers, fitted to
        the Hamiltonian of an `Evolution`), or a circuit: its own layers are kept where neither
        `depth` nor `ansatz` is given; it may have fewer layers, which are completed by the
        identity, or fewer wires, whose middle is repeated. "auto" is "trotter" for an `Evolution`
        (a part of a long uniform chain is optimised first, and repeated), and otherwise several
        guesses near the identity and random ones, also with the other parity of the first layer,
        and circuits that grow from shallower ones.
    group : {"SO", "O", "U"}
        Of the gates, where `ansatz` or the layers of `start` do not say it.
    n_init : int
        Initial guesses of which the best is refined, where there is a choice.
    goal : float
        1 - |c| at which the circuit is good enough.
    tol : float
        Stop when thirty iterations lower the loss by less than this fraction.
    max_iterations, max_seconds
        Stop after this many iterations of L-BFGS (and sweeps) from one initial guess, or after a
        time.
    max_bond : int
        Cap on the bond dimension of the boundaries, which is smaller while the loss permits.
    engine : {"auto", "dense", "boundary"}
        What computes environments, see `disentangle`; "auto" takes the quicker one.
    seed : int or numpy Generator
    progbar : bool

    Returns
    -------
    Compiled

    Raises
    ------
    TypeError, ValueError
        What is not a unitary or not a circuit, sizes that do not fit, complex targets for real
        gates, no engine that fits the memory.

    Examples
    --------
    >>> import mpodis
    >>> target = mpodis.evolution(mpodis.pauli_chain(6, ZZ=1.0, X=0.75), 0.5)
    >>> found = mpodis.compile_unitary(target, depth=3)
    >>> found.loss < 1e-5 < found.trotter_loss
    True
    """
    return _compile(
        "unitary",
        target,
        depth=depth,
        ansatz=ansatz,
        start=start,
        group=group,
        n_init=n_init,
        goal=goal,
        tol=tol,
        max_iterations=max_iterations,
        max_seconds=max_seconds,
        max_bond=max_bond,
        engine=engine,
        seed=seed,
        progbar=progbar,
    )


def compile_state(
    target: Target,
    *,
    depth: int | None = None,
    ansatz: CircuitLike = None,
    start: Any = "auto",
    group: str = "U",
    n_init: int = 3,
    goal: float = 1e-13,
    tol: float = 1e-2,
    max_iterations: int = 2000,
    max_seconds: float | None = None,
    max_bond: int = 128,
    engine: str = "auto",
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> Compiled:
    """The circuit of a given depth that prepares a state from |0...0>.

    Parameters
    ----------
    target : array (2^n,), MPS or circuit
        psi: amplitudes, also Qiskit's ``Statevector``; an MPS of quimb; or a circuit of quimb,
        Qiskit or mpodis, which acts on |0...0>. It is normalised.
    depth, ansatz, start, group, n_init, goal, tol, max_iterations, max_seconds, max_bond, engine, \
seed, progbar
        As for `compile_unitary`.

    Returns
    -------
    Compiled

    Raises
    ------
    TypeError, ValueError
        As for `compile_unitary`.

    Examples
    --------
    >>> import mpodis, numpy as np
    >>> psi = np.cos(np.arange(16.0))
    >>> found = mpodis.compile_state(psi, depth=4, group="SO")
    >>> f"{abs(found.circuit.to_dense()[0] @ psi) / np.linalg.norm(psi):.6f}"
    '1.000000'
    """
    return _compile(
        "state",
        target,
        depth=depth,
        ansatz=ansatz,
        start=start,
        group=group,
        n_init=n_init,
        goal=goal,
        tol=tol,
        max_iterations=max_iterations,
        max_seconds=max_seconds,
        max_bond=max_bond,
        engine=engine,
        seed=seed,
        progbar=progbar,
    )


def _compile(
    kind: str,
    target: Target,
    *,
    depth: int | None,
    ansatz: CircuitLike,
    start: Any,
    group: str,
    max_seconds: float | None,
    progbar: bool,
    seed: int | np.random.Generator,
    **options: Any,
) -> Compiled:
    began = time.perf_counter()
    start = _as_start(start)
    _check(depth=depth, ansatz=ansatz, start=start, max_seconds=max_seconds, **options)
    check_group(group)
    # matrices are small, and more threads only take turns
    with interrupts() as interrupted, single_threaded(True):
        tensors = unitary_target(target) if kind == "unitary" else state_target(target)
        search = _Search(
            unit=spread_norm(left_canonical(tensors)[0], 0.0),
            target=target if isinstance(target, Evolution) else None,
            max_seconds=max_seconds,
            seed=as_seed(seed),
            began=began,
            **options,
        )
        guesses = search.guesses(start, depth, ansatz, group)
        with bar(total=None, desc=f"compile a {kind}", enabled=progbar) as shown:
            for record in search.run(guesses):
                shown.update(1, loss=record["loss"], best=search.loss)
                if interrupted():
                    search.status = "interrupted"
                    break
        return search.result(kind)


def _as_start(start: Any) -> Any:
    """The name of initial guesses, or a circuit."""
    if isinstance(start, Compiled):
        return start.circuit
    if isinstance(start, str):
        if start not in STARTS:
            raise ValueError(
                f"start={start!r} is not known; use {', '.join(map(repr, STARTS))}, or a circuit"
            )
        return start
    if type(start).__module__.partition(".")[0] == "qiskit":
        from mpodis.quantum import from_qiskit

        return from_qiskit(start)
    try:
        return as_circuit(start)
    except TypeError:
        raise TypeError(
            f"start={type(start).__name__} is not a circuit of mpodis, quimb or Qiskit, nor one of "
            f"{', '.join(map(repr, STARTS))}"
        ) from None


def _check(
    *,
    depth: Any,
    ansatz: CircuitLike,
    start: str | Circuit,
    goal: Any,
    tol: Any,
    max_seconds: Any,
    engine: Any,
    **counts: Any,
) -> None:
    """A TypeError or a ValueError for options that no target has, before the target is read."""
    if depth is not None and ansatz is not None:
        raise TypeError("depth= describes a brickwall; leave it out where ansatz= is given")
    if depth is None and ansatz is None and isinstance(start, str):
        raise TypeError("give depth=, the number of layers, or ansatz=, or a circuit start=")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")
    if depth is not None and (
        isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1
    ):
        raise ValueError(f"depth={depth!r} must be a whole number of layers, 1 or more")
    for name, value in (("goal", goal), ("tol", tol)):
        if not (isinstance(value, int | float) and 0 <= value < 1):
            raise ValueError(f"{name}={value!r} must be a number from 0 on, below 1")
    if max_seconds is not None and not (
        isinstance(max_seconds, int | float) and 0 < max_seconds < math.inf
    ):
        raise ValueError(f"max_seconds={max_seconds!r} must be a positive number, or None")
    if engine not in ("auto", "dense", "boundary"):
        raise ValueError(f"engine={engine!r} is not known here; use 'auto', 'dense' or 'boundary'")


@dataclass(eq=False)
class _Guess:
    """An initial guess; `grows` says that a shallower circuit is to be tried first."""

    name: str
    circuit: Circuit
    grows: bool = False


@dataclass(eq=False)
class _Search:
    """A search from several initial guesses; the best circuit is at hand at any time."""

    unit: list[np.ndarray]
    target: Evolution | None
    n_init: int
    goal: float
    tol: float
    max_iterations: int
    max_seconds: float | None
    max_bond: int
    engine: str
    seed: int
    began: float
    records: list[dict] = field(default_factory=list)
    best: _Guess | None = None
    loss: float = math.inf
    status: str = ""
    engine_name: str = ""

    @property
    def n(self) -> int:
        return len(self.unit)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began

    # --- initial guesses

    def guesses(
        self, start: Any, depth: int | None, ansatz: CircuitLike, group: str
    ) -> list[_Guess]:
        """The initial guesses that `start` describes, on the placements that are wanted."""
        given = None if isinstance(start, str) else start
        wanted = self._ansatz(depth, ansatz, given, group)
        if wanted.group != "U" and any(np.iscomplexobj(x) for x in self.unit):
            raise ValueError(
                f"the target is complex and the gates are real (group={wanted.group!r}); use "
                "group='U', in the ansatz or the start if one is given"
            )
        if given is not None:
            found = [_Guess("the circuit given", _on(given, wanted))]
            if wanted.depth > given.ansatz.depth and not wanted.ties:
                # gates that are the identity may stand at a saddle point
                found.append(self._moved(found[0].circuit))
            return found
        if start == "trotter" or (start == "auto" and self.target is not None):
            if self.target is None:
                raise ValueError(
                    "start='trotter' needs the Hamiltonian; give what `mpodis.evolution` returns "
                    "as the target, or a circuit of `mpodis.trotter` as the start"
                )
            found = self._formulas(self.target, wanted)
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
            found += [self._random(other, SCALES[0], rng, ", the first layer shifted")]
        return found

    def _ansatz(
        self, depth: int | None, ansatz: CircuitLike, given: Circuit | None, group: str
    ) -> Ansatz:
        parity = 0 if given is None else _parity(given.ansatz)
        if depth is None and ansatz is None:
            assert given is not None
            if given.n == self.n:
                return given.ansatz
            depth, group = given.ansatz.depth, given.ansatz.group
        if depth is not None:
            return brickwall(self.n, int(depth), min(2, self.n), parity=parity, group=group)
        return as_ansatz(ansatz, self.n, group, "given")

    def _formulas(self, target: Evolution, ansatz: Ansatz) -> list[_Guess]:
        """Product formulas on the placements of an ansatz; none if it is no such brickwall.

        The gates of formulas that are nearer to the target do not always end lower.
        """
        terms, t, depth = target.terms, target.t, ansatz.depth
        formula = trotter(terms, t, "fitted", layers=depth, n=self.n)
        if formula.ansatz != ansatz:
            return []
        found = [_Guess(FORMULA, formula)]
        if depth >= FREE:
            second = trotter(terms, t, 2, layers=_odd(depth), n=self.n)
            found.append(_Guess("the formula of second order", embed(second, ansatz)))
            fewer = trotter(terms, t, "fitted", layers=depth - 2, n=self.n)
            found.append(_Guess(f"{FORMULA} of {depth - 2} layers", embed(fewer, ansatz)))
        return found

    def _moved(self, circuit: Circuit) -> _Guess:
        """The circuit given with all free gates moved a little."""
        rng, ansatz = np.random.default_rng(self.seed), circuit.ansatz
        gates = [
            gate
            if place.fixed
            else gate @ random_gate(len(gate), group=ansatz.group, rng=rng, scale=MOVED)
            for place, gate in zip(ansatz.placements, circuit.gates, strict=True)
        ]
        return _Guess("the circuit given, moved a little", Circuit(ansatz, tuple(gates)))

    def _random(
        self,
        ansatz: Ansatz,
        scale: float | None,
        rng: np.random.Generator,
        more: str = "",
        *,
        grows: bool = False,
    ) -> _Guess:
        name = "random gates" if scale is None else f"near the identity ({scale})"
        return _Guess(name + more, random_circuit(ansatz, seed=rng, scale=scale), grows)

    # --- the search

    def run(self, guesses: Sequence[_Guess]) -> Iterator[dict]:
        """Search from the guesses; yields a record for every sweep."""
        guesses = list(guesses)
        if guesses[0].name == FORMULA:
            yield from self._repeated(guesses)
        yield from self._refined(guesses)
        if guesses[0].grows and self.status == "converged":
            yield from self._grown(guesses[0].circuit.ansatz)

    def _refined(self, guesses: Sequence[_Guess]) -> Iterator[dict]:
        """Follow every guess for some time, and the best to the end."""
        runs = []
        for guess in guesses:
            run = self._descent(guess)
            yield from self._followed(*run, guess, EXPLORED if len(guesses) > 1 else None)
            runs.append((run[1].losses[-1], len(runs), run, guess))
            if self.status:
                return
        runs.sort(key=lambda run: run[:2])
        going = [run for run in runs if not run[2][1].status]
        ended = runs[0][2][1].status
        if going:  # the best, or the best that may still overtake it
            _, _, (descent, state), guess = going[0]
            yield from self._followed(descent, state, guess, None)
            ended = state.status
        self.status = self.status or ended

    def _descent(self, guess: _Guess) -> tuple[CircuitDescent, State]:
        task = CircuitTask(self.unit, legs_of(self.unit), guess.circuit.ansatz)
        engine = task.engine(self.engine, self.max_bond)
        descent = CircuitDescent(task, engine)
        loss = descent.place(guess.circuit.gates)
        # gates that are tied have no closed form
        descent.method = "lbfgs" if loss < NEAR or task.ansatz.ties else "auto"
        return descent, State(names=[0])

    def _followed(
        self, descent: CircuitDescent, state: State, guess: _Guess, sweeps: int | None
    ) -> Iterator[dict]:
        """Descend for some sweeps, or to the end."""
        left = None
        if self.max_seconds is not None:
            left = (1 - LAST_SHARE) * self.max_seconds - self.seconds
            left = max(left, 1e-3) + state.seconds  # one step, where the time is up already
        budget = Budget(
            math.ceil(self.max_iterations / ITERATIONS),
            left,
            self.tol,
            init_sweeps=sweeps,
            window=WINDOW,
            crawl=CRAWL,
            alternate=False,
            exact=self.goal,
        )
        for record in descent.run(state, budget):
            if record["loss"] < self.loss:
                circuit = Circuit(guess.circuit.ansatz, tuple(descent.gates))
                self.loss, self.best = record["loss"], _Guess(guess.name, circuit)
                self.engine_name = descent.engine.name
            yield self._noted(record, guess)
        if state.status == "explored":
            state.status = ""
        elif state.status in ("exact", "max_seconds"):
            self.status = state.status
        elif state.status == "max_sweeps":
            state.status = "max_iterations"

    def _noted(self, record: dict, guess: _Guess) -> dict:
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

    def _sub_search(self, share: float, **changes: Any) -> _Search:
        """A search for a smaller problem, with a share of the time that is left."""
        limit = self.max_seconds
        if limit is not None:
            limit = self.seconds + share * (limit - self.seconds)
        changes = {"max_seconds": limit, "tol": max(self.tol, PART_TOL)} | changes
        fresh = {"records": [], "best": None, "loss": math.inf, "status": ""}
        return replace(self, **fresh, **changes)

    def _repeated(self, guesses: list[_Guess]) -> Iterator[dict]:
        """Optimise the circuit of a part of a uniform chain, and repeat it."""
        assert self.target is not None
        whole, n = guesses[0].circuit, PART + self.n % 2
        terms, t = self.target.terms, self.target.t
        inside = {wires: matrix for wires, matrix in terms.items() if wires[-1] < n}
        if self.n <= n + 2 or not inside:
            return
        small = trotter(inside, t, "fitted", layers=whole.ansatz.depth, n=n)
        again = tiled(small, whole.ansatz)
        if any(
            np.abs(x - y).max() > UNIFORM for x, y in zip(again.gates, whole.gates, strict=True)
        ):
            return  # the chain is not uniform
        error = min(max(self.target.error, 1e-20), 0.5)
        part = evolution(inside, t, error=error, n=n)
        tensors = unitary_target(part)
        search = self._sub_search(
            PART_SHARE, unit=spread_norm(left_canonical(tensors)[0], 0.0), target=part
        )
        name = f"the circuit of {n} sites, repeated"
        for record in search.run(search._formulas(part, small.ansatz)):
            self.records.append(record)
            assert search.best is not None
            # what there is if the search is interrupted here
            self.best = _Guess(name, tiled(search.best.circuit, whole.ansatz))
            self.engine_name = search.engine_name
            yield record
        assert self.best is not None
        guesses[:] = [self.best]

    def _grown(self, whole: Ansatz) -> Iterator[dict]:
        """Go on from a circuit of half the layers, if that is better than what was found."""
        half = Ansatz(whole.n, whole.layers[: whole.depth // 2], whole.group)
        rng = np.random.default_rng([self.seed, half.depth])
        search = self._sub_search(GROWTH_SHARE)
        for record in search.run([self._random(half, SCALES[0], rng, grows=half.depth >= SHALLOW)]):
            self.records.append(record)
            yield record
        if search.best is not None and search.loss < self.loss:
            name = f"the circuit of {half.depth} layers"
            self.status = ""
            yield from self._refined([_Guess(name, embed(search.best.circuit, whole))])

    # --- the result

    def result(self, kind: str) -> Compiled:
        """The best circuit so far, measured."""
        assert self.best is not None
        circuit = self.best.circuit.projected()
        task = CircuitTask(self.unit, legs_of(self.unit), circuit.ansatz)
        found = task.true_loss(circuit.gates, 2 * self.max_bond)
        gates = turned(circuit.ansatz, circuit.gates, -found.phase)
        circuit = Circuit(circuit.ansatz, tuple(gates))
        trotter_loss, trotter_layers = math.nan, None
        if self.target is not None and circuit.ansatz.depth >= 3:
            layers = _odd(circuit.ansatz.depth)
            formula = trotter(self.target.terms, self.target.t, 2, layers=layers, n=self.n)
            task = CircuitTask(self.unit, legs_of(self.unit), formula.ansatz)
            trotter_loss = task.true_loss(formula.gates, self.max_bond).up_to_phase
            # its loss falls as the fourth power of the number of steps
            ratio = (trotter_loss / max(found.up_to_phase, 1e-15)) ** 0.25
            trotter_layers = 2 * math.ceil((layers - 1) / 2 * ratio) + 1
        return Compiled(
            circuit=circuit,
            kind=kind,
            loss=found.up_to_phase,
            infidelity=found.infidelity,
            loss_error=found.infidelity_error / 2,
            infidelity_error=found.infidelity_error,
            status=self.status or "converged",
            start=self.best.name,
            engine=self.engine_name,
            history=History(tuple(self.records)),
            trotter_loss=trotter_loss,
            trotter_layers=trotter_layers,
            seconds=self.seconds,
            remarks=self._remarks(circuit.ansatz),
        )

    def _remarks(self, ansatz: Ansatz) -> tuple[str, ...]:
        """That the determinant of a real target is not that of the circuits."""
        if self.n > FEW or legs_of(self.unit)[0][0] == 1 or circuit_group(ansatz) != "SO":
            return ()
        if np.linalg.slogdet(tensors_to_dense(self.unit))[0] > 0:
            return ()
        group = "O" if any(place.width == self.n for place in ansatz.placements) else "U"
        return (
            f"the target has determinant -1, circuits in {ansatz.group} on these wires +1: "
            f"1 - |c| is {2 / 2**self.n:.3g} or more; use group={group!r}",
        )


def _odd(depth: int) -> int:
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
    if ansatz.group != "U" and any(np.iscomplexobj(gate) for gate in circuit.gates):
        raise ValueError(
            f"the start has complex gates, which are not in group={ansatz.group!r}; use group='U'"
        )
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
    return embed(circuit, ansatz)
