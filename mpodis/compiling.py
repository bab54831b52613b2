"""`compile_unitary`, `compile_state`: the shallow circuit nearest to an operator or a state."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.arguments import as_seed, check_count, is_number, plain_numbers
from mpodis.circuit import (
    Ansatz,
    Circuit,
    CircuitLike,
    as_circuit,
    circuit_group,
    circuit_to_quimb,
    from_quimb,
)
from mpodis.compile_runs import CompileProblem, CompileRun, is_compile_run
from mpodis.compile_targets import LARGEST, Target, state_target, unitary_target
from mpodis.disentangling import load_disentangled
from mpodis.environments.arrays import single_threaded
from mpodis.factorization import dump_ansatz
from mpodis.files import locked
from mpodis.gates import check_group
from mpodis.objectives import Objective
from mpodis.optimise.compile import OFF, CircuitTask, turned
from mpodis.optimise.compile_search import (
    FEW,
    GUESSES,
    STARTS,
    CompileSearch,
    Guess,
    Hamiltonian,
    Journal,
    odd,
)
from mpodis.optimise.result import Disentangled, History
from mpodis.options import check_most_guesses
from mpodis.progress import bar, interrupts
from mpodis.sites import left_canonical, legs_of, spread_norm, tensors_to_dense
from mpodis.tables import Table, Tabular
from mpodis.time_evolution import Evolution, trotter

if TYPE_CHECKING:
    import quimb.tensor as qtn
    from matplotlib.axes import Axes
    from qiskit import QuantumCircuit

__all__ = ["Compiled", "compile_state", "compile_unitary", "load_run"]

ADVICE = {
    "exact": "the goal is reached",
    "converged": "the loss has stopped falling; more layers, another seed=, or a larger n_init= "
    "may lower it",
    "max_iterations": "still falling when max_iterations was reached; raise it, or go on with "
    "start=<this result>",
    "max_seconds": "max_seconds was reached, and the loss may still fall; raise it, or go on with "
    "start=<this result>",
    "interrupted": "stopped by the user; start=<this result> goes on",
    "unfinished": "the run has not ended; call it again with the same run_dir= to go on",
}
GOALS = (1e-13, 1e-8)
"""Of states by default: of few qubits, and of more than a dense unitary may have."""
DENSE = 8
"""Wires up to which determinants are compared."""


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
        "max_seconds" or "interrupted"; "unfinished" if it is a run directory's that goes on.
    start : str
        The initial guess that won.
    engine : str
        That of its last step.
    history : History
    trotter_loss : float
        1 - |c| of the second-order Trotter circuit with no more layers, for an `Evolution` as the
        target; else NaN.
    trotter_layers : int or None
        About how many layers a Trotter circuit of second order needs for the same loss.
    seconds : float
        Wall time, that of interrupted calls included.
    remarks : tuple of str
        What keeps the loss up and what to do about it, in sentences: a determinant that the gates
        cannot have, a `max_bond` that is too small.
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
        """CNOTs (or CZ, or ECR) that its gates need; None where only a compiler can tell.

        A circuit for a state acts on |0...0>, where its first gates need one CNOT or none.
        """
        from mpodis.resynthesis import cnot_count

        if any(place.width > 2 for place in self.circuit.ansatz.placements):
            return None
        return cnot_count(self.circuit, on_zero=self.kind == "state")

    @property
    def cnot_depth(self) -> int | None:
        """The longest chain of these CNOTs."""
        from mpodis.resynthesis import cnot_depth

        on_zero = self.kind == "state"
        return None if self.n_cnots is None else cnot_depth(self.circuit, on_zero=on_zero)

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
                    f"1 - |c| of Trotter, order 2, {odd(self.circuit.ansatz.depth)} layers",
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


@plain_numbers
def compile_unitary(
    target: Target,
    *,
    depth: int | None = None,
    ansatz: CircuitLike = None,
    start: Any = "auto",
    group: str | None = None,
    n_init: int | None = None,
    goal: float = 1e-13,
    tol: float = 1e-2,
    max_iterations: int = 2000,
    max_seconds: float | None = None,
    max_bond: int = 128,
    engine: str = "auto",
    seed: int | np.random.Generator = 0,
    run_dir: str | os.PathLike | None = None,
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
    group : {"SO", "O", "U"}, optional
        Of the gates; by default that of the `ansatz`, else that of the circuit `start`, else "U".
        The gates of a start must be in it.
    n_init : int, optional
        Initial guesses of which the best is refined, where there is a choice: by default 16 on up
        to 8 wires, and 3 on more. Where the layout is free, a quarter as many are tried beside
        them with the first layer shifted by one wire.
    goal : float
        1 - |c| at which the circuit is good enough.
    tol : float
        Stop when thirty iterations lower the loss by less than this fraction.
    max_iterations, max_seconds
        Stop after this many iterations of L-BFGS (and sweeps) from one initial guess, or after a
        time. With a time limit, a search on up to 8 wires that converges early goes on from its
        best circuit with a tenth, a quarter or all of the gates turned at random, until the number
        of sweeps has tripled since the last gain; and initial guesses are compared for at most
        half of the time.
    max_bond : int
        Cap on the bond dimension of the boundaries, which is smaller while the loss permits.
    engine : {"auto", "dense", "boundary"}
        What computes environments, see `disentangle`; "auto" takes the quicker one, and for L-BFGS
        the transverse engine where its gradients are the quickest.
    seed : int or numpy Generator
    run_dir : path, optional
        Directory for the target, the history and checkpoints. If it holds a run of the same call,
        perhaps with another `max_seconds`, that goes on where it was stopped or killed. Unless a
        time limit has cut a step short, it ends, bit by bit, as if it had been left alone; see
        `load_run`.
    progbar : bool

    Returns
    -------
    Compiled

    Raises
    ------
    TypeError, ValueError
        What is not a unitary or not a circuit, sizes that do not fit, complex targets for real
        gates, an ansatz or a start that is not in the `group`, no engine that fits the memory, a
        directory with another run.
    BlockingIOError
        Another process is working in `run_dir`.

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
        run_dir=run_dir,
        progbar=progbar,
    )


@plain_numbers
def compile_state(
    target: Target,
    *,
    depth: int | None = None,
    ansatz: CircuitLike = None,
    start: Any = "auto",
    group: str | None = None,
    n_init: int | None = None,
    goal: float | None = None,
    tol: float = 1e-2,
    max_iterations: int = 2000,
    max_seconds: float | None = None,
    max_bond: int = 128,
    engine: str = "auto",
    seed: int | np.random.Generator = 0,
    run_dir: str | os.PathLike | None = None,
    progbar: bool = False,
) -> Compiled:
    """The circuit of a given depth that prepares a state from |0...0>.

    Parameters
    ----------
    target : array (2^n,), MPS or circuit
        psi: amplitudes, also Qiskit's ``Statevector``; an MPS of quimb; or a circuit of quimb,
        Qiskit or mpodis, which acts on |0...0>. It is normalised.
    goal : float, optional
        1 - |c| at which the circuit is good enough: by default 1e-13, and for more than 13 qubits
        1e-8, below which the loss falls slowly.
    depth, ansatz, start, group, n_init, tol, max_iterations, max_seconds, max_bond, engine, seed, \
run_dir, progbar
        As for `compile_unitary`.

    Returns
    -------
    Compiled

    Raises
    ------
    TypeError, ValueError, BlockingIOError
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
        run_dir=run_dir,
        progbar=progbar,
    )


def _compile(
    kind: str,
    target: Target,
    *,
    depth: int | None,
    ansatz: CircuitLike,
    start: Any,
    group: str | None,
    max_seconds: float | None,
    progbar: bool,
    run_dir: str | os.PathLike | None,
    **options: Any,
) -> Compiled:
    journal = Journal()
    start = _as_start(start)
    options["seed"] = as_seed(options["seed"])
    _check(depth=depth, ansatz=ansatz, start=start, max_seconds=max_seconds, **options)
    if group is not None:
        check_group(group)
    # matrices are small, and more threads only take turns
    with interrupts() as interrupted, single_threaded(True):
        tensors = unitary_target(target) if kind == "unitary" else state_target(target)
        problem = CompileProblem(
            spread_norm(left_canonical(tensors)[0], 0.0),
            Hamiltonian(target.terms, target.t, target.error)
            if isinstance(target, Evolution)
            else None,
            start,
        )
        if options["goal"] is None:
            options["goal"] = GOALS[len(tensors) > LARGEST]
        if options["n_init"] is None:
            options["n_init"] = GUESSES[len(tensors) > FEW]
        for name in ("goal", "tol"):  # 0 and 0.0 are one option to a run that is stored
            options[name] = float(options[name])
        wanted = (depth, ansatz, group)
        search = _search(problem, journal, max_seconds, options)
        guesses = search.guesses(problem.start, *wanted)
        if run_dir is None:
            return _searched(kind, search, guesses, None, interrupted, progbar=progbar)
        # everything has been checked before a directory is made
        Path(run_dir).mkdir(parents=True, exist_ok=True)
        with locked(run_dir):
            identity = _identity(problem, *wanted, options)
            run = CompileRun(Path(run_dir), identity, kind=f"compile_{kind}", began=journal.began)
            stored = run.problem(problem)
            ended = _stored(run, max_seconds)
            if ended is not None:
                return ended
            search = _search(stored, run, max_seconds, options)
            guesses = search.guesses(stored.start, *wanted)
            return _searched(kind, search, guesses, run, interrupted, progbar=progbar)


def _search(
    problem: CompileProblem,
    journal: Journal,
    max_seconds: float | None,
    options: dict[str, Any],
) -> CompileSearch:
    return CompileSearch(
        unit=problem.unit,
        hamiltonian=problem.hamiltonian,
        journal=journal,
        max_seconds=max_seconds,
        **options,
    )


def _searched(
    kind: str,
    search: CompileSearch,
    guesses: Sequence[Guess],
    run: CompileRun | None,
    interrupted: Callable[[], bool],
    *,
    progbar: bool,
) -> Compiled:
    """Search, keep what is found, and measure it."""
    with (
        bar(total=None, desc=f"compile a {kind}", enabled=progbar) as shown,
        closing(search.run(guesses)) as records,
    ):
        for record in records:
            shown.update(1, loss=record["loss"], best=search.loss)
            if run is not None:
                run.show(search)
            if interrupted():
                search.status = "interrupted"
                break
    found = _measured(kind, search)
    if run is not None:
        run.save_progress(search)
        if found.status != "interrupted":
            run.save_result(found.circuit, _notes(found))
    return found


def _identity(
    problem: CompileProblem,
    depth: int | None,
    ansatz: CircuitLike,
    group: str | None,
    options: dict[str, Any],
) -> dict[str, Any]:
    """All that a result depends on beside the numbers of the problem, as JSON."""
    given = from_quimb(ansatz)
    given = given.ansatz if isinstance(given, Circuit) else given
    return {
        "depth": None if depth is None else int(depth),
        "ansatz": dump_ansatz(given) if isinstance(given, Ansatz) else given,
        "start": problem.start if isinstance(problem.start, str) else "a circuit",
        "group": group,
        **{name: x.item() if isinstance(x, np.generic) else x for name, x in options.items()},
    }


_FIGURES = (
    *("kind", "loss", "infidelity", "loss_error", "infidelity_error", "status", "start", "engine"),
    *("trotter_loss", "trotter_layers", "seconds"),
)


def _notes(found: Compiled) -> dict[str, Any]:
    """All of a result but its circuit, as JSON."""
    notes = {name: getattr(found, name) for name in _FIGURES}
    return notes | {"records": list(found.history.records), "remarks": list(found.remarks)}


def _stored(run: CompileRun, max_seconds: float | None = 0.0) -> Compiled | None:
    """The result in a run directory; None if there is none, or the time allows to go on."""
    result = run.result()
    if result is None:
        return None
    circuit, notes = result
    records, remarks = notes.pop("records"), notes.pop("remarks")
    stopped = notes["status"] == "max_seconds"
    if stopped and (max_seconds is None or max_seconds > notes["seconds"]):
        return None
    history = History(tuple(records))
    return Compiled(circuit=circuit, history=history, remarks=tuple(remarks), **notes)


def load_run(
    run_dir: str | os.PathLike, *, objective: Objective | None = None
) -> Disentangled | Compiled:
    """The result of a run that goes on, was stopped or has ended; nothing is searched or written.

    The status of a run that has not ended is "unfinished".

    Parameters
    ----------
    run_dir : path
        As for `disentangle`, `compile_unitary` and `compile_state`.
    objective : Objective, optional
        As for `resume`.

    Returns
    -------
    Disentangled or Compiled

    Raises
    ------
    FileNotFoundError, ValueError
        There is no run, it has not written a checkpoint yet, or its last one is damaged.
    """
    path = Path(run_dir)
    if not is_compile_run(path):
        return load_disentangled(path, objective=objective)
    run = CompileRun.of(path)
    ended = _stored(run)
    if ended is not None:
        return ended
    problem, progress = run.stored_problem(), run.progress()
    if problem is None or progress is None:
        raise ValueError(f"{path} has no checkpoint yet; read it again later, or go on with it")
    best, records, seconds = progress
    names = ("n_init", "goal", "tol", "max_iterations", "max_bond", "engine", "seed")
    options = {name: run.identity[name] for name in names}
    with single_threaded(True):
        search = _search(problem, Journal(), None, options)
        search.best, search.records, search.status = best, records, "unfinished"
        found = _measured(run.kind.removeprefix("compile_"), search)
    return replace(found, seconds=seconds)


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
    seed: int,
    **counts: Any,
) -> None:
    """A TypeError or a ValueError for options that no target has, before the target is read."""
    if depth is not None and ansatz is not None:
        raise TypeError("depth= describes a brickwall; leave it out where ansatz= is given")
    if depth is None and ansatz is None and isinstance(start, str):
        raise TypeError("give depth=, the number of layers, or ansatz=, or a circuit start=")
    for name, value in counts.items():
        if (name, value) != ("n_init", None):
            check_count(name, value)
    check_most_guesses(counts.get("n_init") or 1)
    if depth is not None:
        check_count("depth", depth)
    goal = GOALS[0] if goal is None else goal
    for name, value in (("goal", goal), ("tol", tol)):
        if not (is_number(value) and 0 <= value < 1):
            raise ValueError(f"{name}={value!r} must be a number from 0 on, below 1")
    if max_seconds is not None and not (is_number(max_seconds) and max_seconds > 0):
        raise ValueError(f"max_seconds={max_seconds!r} must be a positive number, or None")
    if engine not in ("auto", "dense", "boundary"):
        raise ValueError(f"engine={engine!r} is not known here; use 'auto', 'dense' or 'boundary'")


def _measured(kind: str, search: CompileSearch) -> Compiled:
    """The best circuit of a search so far, measured."""
    best, hamiltonian = search.best, search.hamiltonian
    assert best is not None
    circuit = best.circuit.projected()
    task = CircuitTask(search.unit, legs_of(search.unit), circuit.ansatz)
    found = task.true_loss(circuit.gates, 2 * search.max_bond)
    gates = turned(circuit.ansatz, circuit.gates, -found.phase)
    circuit = Circuit(circuit.ansatz, tuple(gates))
    trotter_loss, trotter_layers = math.nan, None
    if hamiltonian is not None and circuit.ansatz.depth >= 3:
        layers = odd(circuit.ansatz.depth)
        formula = trotter(hamiltonian.terms, hamiltonian.t, 2, layers=layers, n=search.n)
        task = CircuitTask(search.unit, legs_of(search.unit), formula.ansatz)
        trotter_loss = task.true_loss(formula.gates, search.max_bond).up_to_phase
        # its loss falls as the fourth power of the number of steps
        ratio = (trotter_loss / max(found.up_to_phase, 1e-15)) ** 0.25
        trotter_layers = 2 * math.ceil((layers - 1) / 2 * ratio) + 1
    loss, loss_error = found.up_to_phase, found.infidelity_error / 2
    remarks = [_of_determinant(search, circuit.ansatz)]
    if (
        best.is_full
        and loss > 2 * search.goal
        and max(abs(loss - best.loss), loss_error) > OFF * loss
    ):
        remarks.append(
            f"max_bond={search.max_bond} truncates what the search computes: it saw 1 - |c| = "
            f"{best.loss:.3g}, measured are {loss:.3g} +- {loss_error:.1g}; raise max_bond="
        )
    return Compiled(
        circuit=circuit,
        kind=kind,
        loss=loss,
        infidelity=found.infidelity,
        loss_error=loss_error,
        infidelity_error=found.infidelity_error,
        status=search.status or "converged",
        start=best.start,
        engine=best.engine,
        history=History(tuple(search.records)),
        trotter_loss=trotter_loss,
        trotter_layers=trotter_layers,
        seconds=search.seconds,
        remarks=tuple(filter(None, remarks)),
    )


def _of_determinant(search: CompileSearch, ansatz: Ansatz) -> str:
    """That the determinant of a real target is not that of the circuits, if so."""
    if search.n > DENSE or legs_of(search.unit)[0][0] == 1 or circuit_group(ansatz) != "SO":
        return ""
    if np.linalg.slogdet(tensors_to_dense(search.unit))[0] > 0:
        return ""
    group = "O" if any(place.width == search.n for place in ansatz.placements) else "U"
    return (
        f"the target has determinant -1, circuits in {ansatz.group} on these wires +1: "
        f"1 - |c| is {2 / 2**search.n:.3g} or more; use group={group!r}"
    )
