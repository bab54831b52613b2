"""`disentangle` and `resume`: M ~ Q_L M' Q_R as one call."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpodis import advice
from mpodis.arguments import as_seed
from mpodis.circuit import CircuitLike, sides_of_depth
from mpodis.factorization import Factorization
from mpodis.files import locked
from mpodis.measures import covariance_of
from mpodis.mpo import Operator, as_compressed
from mpodis.objectives import OBJECTIVES, Objective, make_objective
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import ADVICE, Disentangled
from mpodis.optimise.search import Search
from mpodis.optimise.state import State
from mpodis.options import SearchOptions
from mpodis.progress import bar, interrupts, within_limit
from mpodis.sites import site_tensors
from mpodis.store import RunStore

__all__ = ["disentangle", "load_disentangled", "resume"]

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 5.0
"""Time between two checkpoints of a run with a directory."""
UNLIMITED = 2.0**60
"""Bytes of memory, where the engine that was chosen before is to be built in any case."""


@within_limit
def disentangle(
    operator: Operator,
    *,
    depth: int | None = None,
    left: CircuitLike = None,
    right: CircuitLike = None,
    max_bond: int = 1,
    objective: str | Objective = "overlap",
    inputs: np.ndarray | None = None,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    core: str = "update",
    method: str = "auto",
    engine: str = "auto",
    optimize: Any = None,
    environment_bond: int | Sequence[int] = (16, 32, 64),
    dtype: str = "float64",
    device: str | None = None,
    memory: float | None = None,
    executor: Executor | None = None,
    init: str | Factorization | Disentangled = "auto",
    init_scale: float = 0.05,
    n_init: int = 4,
    init_sweeps: int = 20,
    n_perturbed: int = 0,
    relaxation: float = 0.0,
    max_sweeps: int = 200,
    tol: float = 1e-4,
    max_seconds: float | None = None,
    group: str = "SO",
    seed: int | np.random.Generator = 0,
    shape: tuple[int, int] | None = None,
    run_dir: str | os.PathLike | None = None,
    progbar: bool = False,
) -> Disentangled:
    """Find circuits and a core with M ~ Q_L M' Q_R (Sec. IV of arXiv 2509.06653v1).

    Ctrl-C ends the search at the next record and returns the best result so far, with the status
    "interrupted"; a second Ctrl-C raises `KeyboardInterrupt`.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`; an MPO must have qubit legs.
    depth : int
        Layers of a brickwall of 2-body gates on either side; instead of `left` and `right`.
    left, right : Ansatz, Circuit, quimb Circuit, int or str
        Circuits: an `Ansatz`, the depth of a brickwall of 2-body gates, or a spec ("2b + CNOT").
        A circuit is also the initial guess. `right` is by default the mirror image of `left`,
        with gates that begin as the identity.
    max_bond : int
        Bond dimension chi' of the core M'.
    objective : {"overlap", "activations"} or Objective
        Maximise f (Eq. 2), or minimise |X M - X Q_L M' Q_R| for the inputs X of the layer; by name
        or as an object (`mpodis.Overlap`, `mpodis.Activations`, or one of your own).
    inputs, covariance : array (samples, inputs) or array (inputs, inputs)
        X, or its second moment (`second_moment`), for an objective that is given by name:
        "activations" needs it, "overlap" reports the error of the activations.
    sensitivity : array (outputs, outputs), optional
        Second moment of the gradients of the network's loss at the layer's outputs, see
        `mpodis.Activations`.
    core : {"update", "fixed", "identity"}
        Update the core in every sweep, or keep the truncated MPO as the paper does. Or it is the
        identity and stays so (|0> and <0| where a leg has dimension 1), for operators that are near
        a unitary; a single circuit is found by `compile_unitary`.
    method : {"auto", "sweeps", "lbfgs"}
        Closed-form sweeps until they gain little and then Riemannian L-BFGS over gates and core, or
        one of the two alone.
    engine : str
        What computes the environments: "dense" (the operator as a matrix, up to 13 qubits, any
        depth); "transverse" (the network contracted site by site: any number of qubits, shallow
        circuits); "tree" (the network contracted along a searched path: irregular circuits);
        "boundary" (truncated boundary MPOs, for what is wide and deep). "auto" takes the cheapest
        exact one within the memory and a few seconds a sweep, else "boundary"; see
        `engine_estimates`. In a sweep the dense engine updates each gate once, the network engines
        twice, the boundary engine two to eight times.
    optimize : optional
        How the tree engine finds its contraction path: "greedy" or "hyper" (cotengra's
        HyperOptimizer, over kahypar's partitions where it is installed), a cotengra optimizer, a
        path or a ContractionTree.
    environment_bond : int or ascending sequence of int
        Bond dimension D of the boundary engine, or a schedule: it begins with the first that is
        three times the bond dimension of the operator (where none is, with the last), and goes on
        to the next when an independent check disagrees, or nothing more is gained.
    dtype : {"float64", "float32"}
        Precision of the dense and the boundary engine's large arrays. Overlaps are reported in
        double precision in any case.
    device : str, optional
        Torch device for these arrays ("cuda", "cpu"); by default numpy computes.
    memory : float, optional
        Bytes that an engine may take; by default most of what is available.
    executor : optional
        Anything with ``submit``, a pool of `concurrent.futures` or a Dask client. Initial guesses
        are explored there in parallel, one thread each (dense and transverse engine), and the
        tree engine runs the slices of a network there that does not fit the memory in one piece.
    init : {"auto", "identity", "random", "entropic", "grown"}, Factorization or Disentangled
        Gates begin near the identity or Haar-random, or are turned first, from near the identity,
        to where they lower the entropies of the bonds (up to 11 qubits; see `lower_entropies`
        in `mpodis.optimise.entropic`). Or circuits grow, layer by layer from the outermost one, new
        layers beginning as the identity, so that a deeper circuit is never worse than a shallower
        one; at 2, 4, 8, ... layers they are compared with circuits that begin afresh, and from 16
        layers of 2-body gates on with some that begin with wide gates. "auto" begins near the
        identity; on up to 8 wires without fixed gates, if the engine is "dense", circuits then grow
        as well and the better of the two are kept, so that the search has a good answer early and
        never a worse one than circuits that grow. Or the search goes on from gates that are given:
        of fewer layers, or with another bond dimension of the core, if need be.
    init_scale, n_init, init_sweeps : float, int, int
        The first initial guess is at a distance of about `init_scale` from the identity (from gates
        that are given: 0), later ones further away. Of `n_init` initial guesses, each followed for
        `init_sweeps` sweeps, the best is refined.
    n_perturbed : int
        Number of further initial guesses of growing circuits, around what was found before.
    relaxation : float
        Over-relaxation of the sweeps: how far a gate goes beyond its polar factor, as a fraction
        of the step to it (see `mpodis.gates.polar_update`); 0 is the plain update.
    max_sweeps, tol, max_seconds
        Stop after this many sweeps (ten L-BFGS iterations count as one; a layer that is added to
        circuits that grow gets a fifth of them), when ten sweeps lower the loss by less than the
        fraction `tol`, or after a time (which makes the result depend on the machine's speed).
        A search with a time limit that converges early goes on from the best circuits with a tenth,
        a quarter or all of the gates turned at random, until the number of sweeps has tripled since
        the last gain.
        The time counts from the call and is kept within a tenth: a sweep that would not fit is not
        begun, and bound and entropies of a dense operator are left out (NaN) where they would take
        most of it. Reading a matrix, choosing an engine and the first core cannot be cut short:
        together 2.5 s of one core for 1,024 x 1,024, 9 s for 1,536 x 1,536.
        Where that is more than the limit, the result and a line in the log say so. The first call
        of a process also loads quimb, which takes a second or two.
    group : {"SO", "O", "U"}
        Group of the free gates, where `left` and `right` are not an `Ansatz` that says it.
    seed : int or numpy Generator
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `operator` is an MPO that does not know it.
    run_dir : path, optional
        Directory for the problem, the checkpoint and the history. If it holds a checkpoint of
        the same call, the run goes on from there, also with another `max_sweeps` or
        `max_seconds`; see `resume` and `load_run`.
    progbar : bool
        Show what truncation alone would lose and about how long the search may take, and then a
        bar with stage, initial guess, overlap, and the best so far.

    Returns
    -------
    Disentangled

    Raises
    ------
    ValueError
        Options that are not known, circuits that do not fit the operator, legs that are not
        qubits, "activations" without inputs, an operator too large for the engine or the memory.
    BlockingIOError
        Another process is working in `run_dir`.

    Examples
    --------
    >>> import mpodis, numpy as np
    >>> matrix = np.random.default_rng(0).normal(size=(8, 6))
    >>> run = mpodis.disentangle(matrix, depth=2, max_sweeps=20)
    >>> run.overlap > 0.5, run.factorization.to_dense().shape
    (True, (8, 6))
    """
    began = time.perf_counter()
    covariance = covariance_of(inputs, covariance)
    goal = make_objective(objective, covariance=covariance, sensitivity=sensitivity)
    options = SearchOptions(
        max_bond=max_bond,
        objective=goal.name,
        core=core,
        method=method,
        engine=engine,
        optimize=optimize if isinstance(optimize, str) else None,
        environment_bond=environment_bond,  # type: ignore[arg-type]  # made a tuple there
        dtype=dtype,
        device=device,
        memory=memory,
        init=init if isinstance(init, str) else "given",
        init_scale=init_scale,
        n_init=n_init,
        n_perturbed=n_perturbed,
        relaxation=relaxation,
        init_sweeps=init_sweeps,
        max_sweeps=max_sweeps,
        tol=tol,
        max_seconds=max_seconds,
        seed=as_seed(seed),
    )
    sides = sides_of_depth(depth, left, right)
    given = as_compressed(operator)
    problem = Problem.build(
        site_tensors(given.mpo),
        *sides,
        group=group,
        shape=given.shape if shape is None else shape,
        objective=goal,
        initial=_given(init),
        max_bond=max_bond,
    )
    if run_dir is not None and engine == "auto":
        options = replace(options, engine=RunStore.engine_of(run_dir) or "auto")
    if problem.initial is not None and options.init != "given":
        if init != "auto":
            raise ValueError(
                f"init={init!r} and a circuit in left= or right= are two initial guesses; give "
                "its ansatz (circuit.ansatz), or leave out init="
            )
        options = replace(options, init="given")
    # everything is checked here, before a directory is made
    search = Search(problem, options, goal, optimize=optimize, executor=executor)
    if run_dir is None:
        return _run(search, None, progbar=progbar, began=began)
    found = RunStore.find(run_dir, problem, search.options)
    ended = None if found is None else _ended(search, found)
    if ended is not None:
        return _run(search, None, ended, progbar=progbar, began=began)
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    with locked(run_dir):  # another process may have begun a run since
        store = RunStore.open(run_dir, problem, search.options)
        return _run(search, store, progbar=progbar, began=began)


def _ended(search: Search, store: RunStore) -> State | None:
    """The state of a run that has ended within these limits, of which nothing is to be written."""
    if not store.has_limits(search.options):
        return None
    try:
        state = store.load(strict=True)
    except ValueError:
        return None
    if state is not None:
        search.reopen_if_limits_allow(state)
    return state if state is not None and state.ended else None


def _given(init: str | Factorization | Disentangled) -> Factorization | None:
    """The factorization to begin with, where it is one."""
    if isinstance(init, Disentangled):
        init = init.factorization
    if isinstance(init, Factorization):
        return init
    if init == "given" or not isinstance(init, str):
        raise TypeError(
            f"init={init!r} is not an initial guess; give a name, a Factorization, or a result "
            "to go on from"
        )
    return None


def resume(
    run_dir: str | os.PathLike,
    *,
    max_sweeps: int | None = None,
    max_seconds: float | None = None,
    objective: Objective | None = None,
    optimize: Any = None,
    executor: Executor | None = None,
    progbar: bool = False,
) -> Disentangled:
    """Go on with a run that was interrupted, or give the result of one that had ended.

    The gates of a run that was interrupted are, bit by bit, those that it would have had if left
    alone. A run that `max_seconds` stopped among its initial guesses goes on with the best of them.

    Parameters
    ----------
    run_dir : path
        As for `disentangle`.
    max_sweeps, max_seconds : optional
        Other limits; a run that had ended at its limit goes on.
    objective : Objective, optional
        The object that the run was begun with, where a name does not stand for it.
    optimize, executor, progbar
        As for `disentangle`; an `optimize` that is an object is not stored and must be given again.
    """
    began = time.perf_counter()
    store, problem, options = RunStore.read(run_dir)
    limits = {"max_sweeps": max_sweeps, "max_seconds": max_seconds}
    options = replace(options, **{k: x for k, x in limits.items() if x is not None})
    search = Search(
        problem, options, _stored(options, objective), optimize=optimize, executor=executor
    )
    ended = _ended(search, store)
    if ended is not None:
        return _run(search, None, ended, progbar=progbar, began=began)
    with store.lock():
        store.save_limits(options)
        return _run(search, store, progbar=progbar, began=began)


def _stored(options: SearchOptions, given: Objective | None) -> Objective:
    """The objective of a stored run."""
    if given is None:
        return make_objective(options.objective)
    if given.name != options.objective:
        raise ValueError(
            f"objective={given.name!r} was given, the run has the objective {options.objective!r}"
        )
    return given


def load_disentangled(
    run_dir: str | os.PathLike, *, objective: Objective | None = None
) -> Disentangled:
    """`mpodis.load_run` for a run of `disentangle`."""
    store, problem, options = RunStore.read(run_dir)
    state = store.load(strict=True)
    if state is None:
        raise ValueError(f"{run_dir} has no checkpoint yet; read it again later, or `resume` it")
    # neither the device nor the memory that the run needs must be here
    search = Search(
        problem, replace(options, device=None, memory=UNLIMITED), _stored(options, objective)
    )
    result = search.result(state, status="" if state.ended else "unfinished")
    said = advice.remarks(problem, search.objective, result)
    return replace(result, options=options, remarks=said)


def _run(
    search: Search,
    store: RunStore | None,
    state: State | None = None,
    *,
    progbar: bool,
    began: float,
) -> Disentangled:
    """The result of a search, from where a state stands, the store's, or from its beginning."""
    state = search.begin() if state is None else state
    if store is not None:
        state = store.load() or state
        search.reopen_if_limits_allow(state)
        store.cut_history(state)
    saved, stopped = time.monotonic(), False
    title = f"disentangle ({search.options.objective})"
    with (
        bar(total=search.total, desc=title, enabled=progbar, done=len(state.records)) as shown,
        interrupts() as interrupted,
    ):
        search.interrupted = interrupted
        logged = log.isEnabledFor(logging.INFO)
        if state.point is None and (logged or progbar):
            for sentence in advice.expectations(search):
                log.info("%s", sentence)
                if not logged:
                    shown.note(sentence)
        if not state.ended:
            state.seconds += time.perf_counter() - began
        best = _Best()
        for record in search.run(state):
            if progbar:
                new = len(state.records) - shown.done
                shown.update(new, **_shown(record, search, state, best))
            if store is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                store.save(state)
                saved = time.monotonic()
            if interrupted():
                stopped = True
                break
    if store is not None:
        store.save(state)
    status = "interrupted" if stopped and not state.ended else state.ended
    result = search.result(state, status=status)
    result = replace(result, remarks=advice.remarks(search.problem, search.objective, result))
    if status == "interrupted":
        named = OBJECTIVES.get(search.objective.name) is type(search.objective)
        objective = "" if named else ", objective=<the same object>"
        way = "init=<this result>"
        if store is not None:
            way = f"mpodis.resume({str(store.path)!r}{objective})"
        log.warning("interrupted at f = %.6f; go on with %s", result.overlap, way)
    log.debug("disentangled: f %.6f, %s (%s)", result.overlap, status, ADVICE[status])
    advice.log_remarks(result)
    return result


@dataclass
class _Best:
    """The best figure that a bar has shown."""

    loss: float = math.inf
    figure: float = math.nan

    def of(self, record: dict, figure: float) -> float:
        if record["loss"] < self.loss:
            self.loss, self.figure = record["loss"], figure
        return self.figure


def _shown(record: dict, search: Search, state: State, best: _Best) -> dict[str, float | str]:
    """What the progress bar shows of a record: its figures, and where the search is.

    A narrow terminal has room for the first of them only.
    """
    names = ["overlap", "bound", "activations"]
    if not math.isnan(record["environment_bond"]):
        names += ["true_overlap", "environment_bond"]
    figures = {name: record[name] for name in names if not math.isnan(record[name])}
    shown: dict[str, float | str] = {}
    # of the overlap the highest, of the error of the activations the lowest: both by the loss
    measure = "activations" if search.loss.overlap(0.0) is None else "overlap"
    if measure in figures:
        shown |= {"best": best.of(record, figures[measure]), measure: figures.pop(measure)}
    if len(search.stages) > 1:
        shown |= {"stage": f"{record['stage'] + 1} of {len(search.stages)}"}
        shown |= {"depth": f"{record['depth']}"}
    count = search.stage_options[record["stage"]].n_init
    if count > 1 and record["stage"] == state.stage and record["init"] in state.names:
        number = state.names.index(record["init"]) + 1
        shown["initial guess"] = f"{number} of {count}" + (", refined" if state.refining else "")
    return shown | figures
