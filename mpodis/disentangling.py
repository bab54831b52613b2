"""`disentangle` and `resume`: the explicit algorithm as one call."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.factorization import Factorization
from mpodis.mpo import Compressed
from mpodis.optimise.chain import Chain
from mpodis.optimise.problem import Problem
from mpodis.optimise.result import ADVICE, Disentangled
from mpodis.optimise.settings import Settings
from mpodis.progress import bar
from mpodis.sites import site_tensors
from mpodis.store import RunDirectory

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["disentangle", "resume"]

log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 5.0
"""Time between two checkpoints of a run with a directory."""


def disentangle(
    mpo: MatrixProductOperator | Compressed,
    *,
    depth: int | None = None,
    left: Ansatz | int | str | None = None,
    right: Ansatz | int | str | None = None,
    max_bond: int = 1,
    objective: str = "overlap",
    inputs=None,
    covariance=None,
    sensitivity=None,
    core: str = "update",
    method: str = "auto",
    engine: str = "auto",
    environment_bond: int | Sequence[int] = (16, 32, 64),
    dtype: str = "float64",
    device: str | None = None,
    memory: float | None = None,
    executor=None,
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

    Parameters
    ----------
    mpo : MatrixProductOperator or Compressed
        The operator M on qubit legs.
    depth : int
        Layers of a brickwall of 2-body gates on either side; or give `left`.
    left, right : Ansatz, int or str
        Circuits: an `Ansatz`, the depth of a brickwall of 2-body gates, or a spec ("2b + CNOT").
        `right` is by default the mirror image of `left`.
    max_bond : int
        Bond dimension chi' of the core M'.
    objective : {"overlap", "activations"}
        Maximise f (Eq. 2), or minimise |X M - X Q_L M' Q_R| for the inputs X of the layer.
    inputs, covariance : array (samples, inputs) or array (inputs, inputs)
        X, or its second moment (`second_moment`); needed by "activations", and used by "overlap"
        to report the error of the activations.
    sensitivity : array (outputs, outputs), optional
        Second moment of the gradients of the network's loss at the layer's outputs (see
        `mpodis.nn.output_sensitivity`). "activations" then weighs errors by what the loss feels.
    core : {"update", "fixed"}
        Update the core in every sweep, or keep the truncated MPO as the paper does.
    method : {"auto", "sweeps", "lbfgs"}
        Closed-form sweeps until they crawl and then Riemannian L-BFGS over gates and core, or
        one of the two alone.
    engine : {"auto", "dense", "transverse", "tree", "boundary"}
        Who computes the environments: dense operators (up to 13 qubits, any depth); the network
        contracted site by site (any number of qubits, shallow circuits) or along a searched tree
        (irregular circuits); or boundary MPOs, truncated, for what is wide and deep. "auto" takes
        the cheapest exact one within the memory and a few seconds a sweep, else "boundary"; see
        `engine_estimates`. In a sweep all but "dense" offer each gate its environment twice.
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
        Anything with ``submit``, a pool of `concurrent.futures` or a Dask client. Starts are
        explored there side by side, of one thread each (dense and transverse engine), and the
        tree engine runs the slices of a network there that does not fit the memory in one piece.
    init : {"auto", "identity", "random", "entropic", "grown"}, Factorization or Disentangled
        Gates begin near the identity or Haar-random, or are turned first, from near the identity,
        to where they lower the entropies of the bonds (up to 11 qubits; see `lower_entropies`
        in `mpodis.optimise.entropic`). Or circuits grow, layer by layer from the
        outermost one, new ones beginning as the identity, so that a deeper circuit is never worse
        than a shallower one. At 2, 4, 8, ... layers what has grown is compared with circuits that
        begin afresh, and from 16 layers of 2-body gates on with some that begin with wide gates.
        "auto" grows circuits on up to 8 wires without fixed gates, if the engine is "dense", and
        begins near the identity else. Or the run goes on from gates that are given: of fewer
        layers, or with another bond dimension of the core, if need be.
    init_scale, n_init, init_sweeps : float, int, int
        The first start is at a distance of about `init_scale` from the identity (from what is given:
        0), later ones further out. Of `n_init` tried for `init_sweeps` sweeps the best is kept.
    n_perturbed : int
        Growing circuits also try so many starts at a distance around what was found before.
    relaxation : float
        Over-relaxation of the sweeps: how far a gate goes beyond its polar factor, as a fraction
        of the step to it (see `mpodis.gates.polar_update`); 0 is the plain update.
    max_sweeps, tol, max_seconds
        Stop after so many sweeps (ten L-BFGS iterations count as one; a layer that is added to
        circuits that grow gets a fifth of them), when ten sweeps lower the loss by less than the
        fraction `tol`, or after a time (which makes the result depend on the machine's speed).
    group : {"SO", "O", "U"}
        Group of the free gates, where `left` and `right` are not an `Ansatz` that says it.
    seed : int or numpy Generator
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `mpo` does not know it.
    run_dir : path, optional
        Directory for the problem, the checkpoint and the history. If it holds a checkpoint of
        the same call, the run goes on from there, also with another `max_sweeps` or
        `max_seconds`; see `resume`.
    progress : bool
        Show a bar with the overlap.

    Returns
    -------
    Disentangled

    Raises
    ------
    ValueError
        Options that are not known, circuits that do not fit the operator, legs that are no
        qubits, "activations" without inputs, an operator too large for the engine or the memory.
    """
    left = given_left(depth, left, right)
    if isinstance(seed, np.random.Generator):
        seed = int(seed.integers(2**63))
    settings = Settings(
        max_bond=max_bond,
        objective=objective,
        core=core,
        method=method,
        engine=engine,
        environment_bond=environment_bond,
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
        seed=seed,
    )
    if isinstance(mpo, Compressed):
        mpo, shape = mpo.mpo, shape or mpo.shape
    problem = Problem.build(
        site_tensors(mpo),
        left,
        right,
        group=group,
        shape=shape,
        inputs=inputs,
        covariance=covariance,
        sensitivity=sensitivity,
        initial=_given(init),
        max_bond=max_bond,
    )
    if run_dir is not None and engine == "auto":
        settings = replace(settings, engine=RunDirectory.engine_of(run_dir) or "auto")
    loop = Chain(problem, settings, executor=executor)  # what it refuses leaves no directory behind
    directory = None if run_dir is None else RunDirectory.open(run_dir, problem, loop.settings)
    return _run(loop, directory, progbar=progbar)


def given_left(depth, left, right):
    """What `depth` or `left` says of the left circuit."""
    if depth is None and left is None:
        raise TypeError("give depth=, the number of layers on either side, or left=")
    if depth is None:
        return left
    if left is not None or right is not None:
        raise TypeError(
            "depth= describes both circuits; leave it out where left= or right= is given"
        )
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer):
        raise TypeError(f"depth={depth!r} must be a number of layers")
    return int(depth)


def _given(init) -> Factorization | None:
    """The factorization to begin with, where it is one."""
    if isinstance(init, Disentangled):
        init = init.factorization
    if isinstance(init, Factorization):
        return init
    if init == "given" or not isinstance(init, str):
        raise TypeError(
            f"init={init!r} is no initial guess; give a name, a Factorization or a result to go on from"
        )
    return None


def resume(run_dir: str | os.PathLike, *, executor=None, progbar: bool = False) -> Disentangled:
    """Go on with a run that was interrupted, or give the result of one that had ended.

    The gates are, bit by bit, those that the run would have had if left alone.
    """
    directory, problem, settings = RunDirectory.read(run_dir)
    return _run(Chain(problem, settings, executor=executor), directory, progbar=progbar)


def _run(loop: Chain, directory: RunDirectory | None, *, progbar: bool) -> Disentangled:
    settings = loop.settings
    if directory is not None:
        directory.restore(loop)
    saved = time.monotonic()
    with bar(
        total=loop.total, desc=f"disentangle ({settings.objective})", enabled=progbar
    ) as shown:
        shown.done = len(loop.records)
        while loop.status is None:
            record = loop.step()
            names = ["overlap", "bound", "activations"]
            if settings.engine == "boundary":
                names += ["true_overlap", "environment_bond"]
            figures = {name: record[name] for name in names}
            shown.update(
                len(loop.records) - shown.done,
                **{name: x for name, x in figures.items() if not math.isnan(x)},
            )
            if directory is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                directory.save(loop)
                saved = time.monotonic()
    if directory is not None:
        directory.save(loop)
    result = loop.result()
    log.debug("disentangled: f %.6f, %s (%s)", result.overlap, loop.status, ADVICE[loop.status])
    return result
