#!/usr/bin/env python
"""Compilers of operators and states against each other: the same tasks, starts and CPU seconds.

    python scripts/bench/compile.py --out notebooks/records/compile.json --plot compile.png
    python scripts/bench/compile.py --quick
    python scripts/bench/compile.py --record notebooks/records/compile.json --plot compile.png

Peers are optional; one that is not installed is left out with a line. All of them beside mpodis:

    pip install "qiskit-addon-aqc-tensor[quimb-jax]" bqskit mps-to-circuit torch jax

Every run is a process of its own with one thread. It first solves a problem of 4 sites, so that
what is imported or compiled once is nobody's; then the clock runs, in CPU seconds, and the peer
hands over candidates as it finds them. What a candidate is worth is computed here, after the run
and in the same way for all: 1 - |Tr(U^H Q)| / 2^n of an operator, 1 - |<psi|Q|0>|^2 of a state,
1 - f of a product core between two circuits. In between two candidates the figure of mpodis is its
history; its last point is computed like the others' (`claimed` beside it). Clocks inside mpodis are
set to CPU seconds too, so `max_seconds` means the same on a busy machine. jax compiles within the
budget; `first` is the time of the first candidate.

AQC-Tensor follows its tutorial (ansatz from the start's connectivity, L-BFGS-B). QFactor has its
defaults, from the start and then from random gates; TNOptimizer has Cayley-parametrised gates on
the same brickwall, near the identity where there is no start, then from other guesses. Tolerances
of theirs are so low that the budget or a minimum stops them. Seeds other than 0 change couplings by
up to 10 %, and draw other operators, vectors and weights.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL", "RAYON", "NUMBA"):  # one core, before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import argparse
import contextlib
import functools
import importlib.util
import json
import logging
import math
import multiprocessing
import resource
import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import quimb.tensor as qtn
from scipy.linalg import expm
from scipy.stats import unitary_group

import mpodis
from mpodis.files import write_atomic
from mpodis.tables import Table

Gates = list[tuple[tuple[int, ...], np.ndarray]]
"""Wires, the first most significant, and matrices on kets, in the order in which they act."""

MARKS = (1.0, 5.0, 20.0)
"""CPU seconds at which losses are compared."""
LEVELS = (1e-3, 1e-5, 1e-7)
"""Losses whose times are compared."""
BUDGET = 20.0
POINTS = 24
"""Candidates of a run that are evaluated, at most."""
DENSE_STATE, DENSE_OPERATOR = 12, 10
"""Up to so many sites, evaluation is dense."""
PUBLISHED = {
    # 1 - f at 50 sites by layers, from the costs 1 - |f|^2 published for rqcopt-mpo
    "ising": {5: 0.0614, 7: 7.5e-4, 9: 3.2e-5, 11: 5.4e-6, 13: 6.9e-7},
    "xxz": {3: 8.4e-3, 5: 9.1e-5, 7: 1.5e-5, 9: 4.8e-6, 11: 2.6e-6, 13: 8.7e-7, 21: 6.4e-9},
}

# ------------------------------------------------------------------------------------- problems

ISING = {"ZZ": 1.0, "X": 0.75, "Z": 0.6}
TRANSVERSE = {"ZZ": 1.0, "X": 1.0}
HEISENBERG = {"XX": 1.0, "YY": 1.0, "ZZ": 1.0}
XXZ = {"XX": 1.0, "YY": 1.0, "ZZ": -0.5, "X": 0.75}
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Of the product formulas that are peers."""


@dataclass
class Problem:
    """A target and what everybody begins with.

    `target` is a vector, a matrix, an MPS or an MPO (on kets) of quimb, or a real weight matrix
    (inputs, outputs) of the kind "core".
    """

    kind: str
    n: int
    target: Any
    depth: int = 0
    start: Gates | None = None
    core: str = "update"
    trotter: list[tuple[str, Gates]] = field(default_factory=list)


def varied(model: dict, n: int, seed: int) -> dict:
    """Terms of the model itself for seed 0, else with couplings that are up to 10 % off."""
    rng = np.random.default_rng([seed, 19])
    off = [rng.uniform(0.9, 1.1) if seed else 1.0 for _ in model]
    couplings = {name: x * c for (name, x), c in zip(model.items(), off, strict=True)}
    return mpodis.pauli_chain(n, **couplings)


def formula(terms: dict, t: float, order: int, steps: int) -> Gates:
    return fused(listed(mpodis.trotter(terms, t, order, steps=steps)))


def trotter_start(terms: dict, n: int, t: float, depth: int) -> Gates:
    """Order 2 in as many steps as the depth holds; a layer that is left over is the identity."""
    gates = listed(mpodis.trotter(terms, t, layers=depth - 1 + depth % 2))
    if depth % 2 == 0:
        gates += [((i, i + 1), np.eye(4)) for i in range(1, n - 1, 2)]
    return fused(gates)


def formulas(terms: dict, t: float, first: Gates, steps: Sequence[int]) -> list[tuple[str, Gates]]:
    return [(f"{k}", first + formula(terms, t, k, r)) for k in (2, 4) for r in steps]


def hamiltonian(terms: dict, n: int) -> np.ndarray:
    total = np.zeros((2**n, 2**n), complex)
    for wires, term in terms.items():
        total += np.kron(np.kron(np.eye(2 ** wires[0]), term), np.eye(2 ** (n - 1 - wires[-1])))
    return total


def apply(psi: qtn.MatrixProductState, gates: Gates, *, cutoff: float, max_bond: int | None = None):
    """The gates on an MPS in place; on one wire, or on neighbours."""
    info = {"cur_orthog": None}
    for wires, gate in gates:
        if len(wires) == 1:
            psi.gate_(gate, wires, contract=True)
            continue
        psi.gate_(
            gate,
            wires,
            contract="swap+split",
            info=info,
            max_bond=max_bond,
            cutoff=cutoff,
            cutoff_mode="rsum2",
        )
    return psi


def state(model: dict, n: int, t: float, depth: int, *, max_bond: int = 256, neel: bool = False):
    """A quench from |0...0> or the Neel state, with Trotter's circuit as the start."""

    def made(seed: int) -> Problem:
        terms = varied(model, n, seed)
        flip = np.array([[0, 1], [1, 0]])
        first: Gates = [((i,), flip) for i in range(1, n, 2)] if neel else []
        target = qtn.MPS_computational_state("0" * n, dtype=complex)
        gates = first + formula(terms, t, 4, 24 if n < 50 else 12)
        apply(target, gates, cutoff=1e-15, max_bond=max_bond)
        target.permute_arrays("lrp")
        target /= target.norm()
        start = fused(first + trotter_start(terms, n, t, depth))
        return Problem("state", n, target, depth, start, trotter=formulas(terms, t, first, STEPS))

    return made


def operator(model: dict, n: int, t: float, depth: int):
    """exp(-i t H), with Trotter's circuit as the start; of 50 sites as an `Evolution`."""

    def made(seed: int) -> Problem:
        terms = varied(model, n, seed)
        if n <= DENSE_OPERATOR:
            values, vectors = np.linalg.eigh(hamiltonian(terms, n))
            target = (vectors * np.exp(-1j * t * values)) @ vectors.conj().T
        else:
            target = mpodis.evolution(terms, t, error=1e-14 if n < 50 else 1e-11)
            target = target.mpo if n < 50 else target
        start = trotter_start(terms, n, t, depth) if n < 50 else None
        steps = STEPS if n < 50 else [(depth - 1) // 2]
        return Problem("operator", n, target, depth, start, trotter=formulas(terms, t, [], steps))

    return made


def planted(n: int, depth: int):
    """A brickwall of Haar-random U(4), without a start."""

    def made(seed: int) -> Problem:
        rng = np.random.default_rng([seed, n, depth])
        gates = [(wires, unitary_group.rvs(4, random_state=rng)) for wires in brick(n, depth)]
        return Problem("operator", n, dense(gates, n, np.eye(2**n)), depth)

    return made


def product_core(n: int, depth: int, source: str, core: str):
    """A real matrix, to be a product operator between two brickwalls of SO(4)."""

    def made(seed: int) -> Problem:
        if source == "random":
            matrix = np.random.default_rng([seed, n]).normal(size=(2**n, 2**n))
        else:
            matrix = trained_layer(2**n, seed)
        return Problem("core", n, matrix / np.linalg.norm(matrix), depth, core=core)

    return made


def real_vector(source: str):
    """A real vector of 64 numbers: a digit, or Gaussian."""

    def made(seed: int) -> Problem:
        if source == "random":
            vector = np.random.default_rng([seed, 64]).normal(size=64)
        else:
            from sklearn.datasets import load_digits

            vector = load_digits().data[seed * 101]
        return Problem("vector", 6, vector / np.linalg.norm(vector))

    return made


@functools.cache
def trained_layer(size: int, seed: int) -> np.ndarray:
    """The hidden square layer of a perceptron that was trained on digits."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    x, y = load_digits(return_X_y=True)
    net = MLPClassifier((size, size), max_iter=20, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that are not enough to converge
        net.fit(x / 16, y)
    return net.coefs_[1]


def near_identity(n: int, depth: int) -> Gates:
    """A brickwall of U(4), without a target to begin from."""
    rng = np.random.default_rng(0)
    gates = []
    for wires in brick(n, depth):
        x = (rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4))) / 40
        gates.append((wires, expm(x - x.conj().T)))
    return gates


def brick(n: int, depth: int) -> list[tuple[int, int]]:
    return [(i, i + 1) for t in range(depth) for i in range(t % 2, n - 1, 2)]


TASKS: dict[str, tuple[Callable[[int], Problem], float]] = {
    # name: problem of a seed, budget in CPU seconds
    "state ising 10": (state(ISING, 10, 1.0, 4), BUDGET),
    "state ising 20": (state(ISING, 20, 1.0, 4), BUDGET),
    "state heisenberg 10": (state(HEISENBERG, 10, 1.0, 6, neel=True), BUDGET),
    "state quench 50": (state(ISING, 50, 4.0, 16, max_bond=64), 3 * BUDGET),
    "operator planted 6/4": (planted(6, 4), BUDGET),
    "operator planted 6/6": (planted(6, 6), BUDGET),
    "operator planted 6/8": (planted(6, 8), BUDGET),
    "operator ising 6/4": (operator(ISING, 6, 1.0, 4), BUDGET),
    "operator ising 6/8": (operator(ISING, 6, 1.0, 8), BUDGET),
    "operator transverse 10/4": (operator(TRANSVERSE, 10, 0.5, 4), BUDGET),
    "operator transverse 10/8": (operator(TRANSVERSE, 10, 0.5, 8), BUDGET),
    "operator transverse 20/4": (operator(TRANSVERSE, 20, 0.5, 4), BUDGET),
    "operator transverse 20/8": (operator(TRANSVERSE, 20, 0.5, 8), BUDGET),
    "vector digits 64": (real_vector("digits"), BUDGET),
    "vector random 64": (real_vector("random"), BUDGET),
} | {
    f"core {source} {n}/{depth} {core}": (product_core(n, depth, source, core), BUDGET)
    for source in ("random", "trained")
    for n, depth in ((6, 4), (6, 8), (8, 4), (8, 8), (10, 8))
    for core in ("update", "fixed")
}
FIFTY = {
    f"published {name} 50/{depth}": (operator(model, 50, t, depth), 600.0 if depth < 21 else 1200.0)
    for name, model, t in (("ising", ISING, 2.0), ("xxz", XXZ, 0.25))
    for depth in PUBLISHED[name]
}
QUICK = ("state ising 10", "operator ising 6/4", "core random 6/4 update")


def small(problem: Problem) -> Problem:
    """The same kind of task on 4 sites, for what is imported and compiled once."""
    if problem.kind == "core":
        return product_core(4, 2, "random", problem.core)(0)
    if problem.kind == "vector":
        vector = np.arange(1.0, 17.0)
        return Problem("vector", 4, vector / np.linalg.norm(vector))
    if problem.kind == "state":
        return state(ISING, 4, 0.5, 3)(0)
    if problem.n <= DENSE_OPERATOR and problem.start is None:
        return planted(4, 2)(0)
    tiny = operator(ISING, 4, 0.5, 3)(0)
    if problem.n > DENSE_OPERATOR:
        tiny.target = mpodis.evolution(varied(ISING, 4, 0), 0.5).mpo
    return tiny


# --------------------------------------------------------------------------------- evaluation


def dense(gates: Gates, n: int, x: np.ndarray) -> np.ndarray:
    """The gates on the columns of x."""
    x = np.asarray(x, complex).reshape((2,) * n + (-1,))
    for wires, gate in gates:
        k = len(wires)
        x = np.tensordot(gate.reshape((2,) * (2 * k)), x, (range(k, 2 * k), wires))
        x = np.moveaxis(x, range(k), wires)
    return x.reshape(2**n, -1)


def fused(gates: Gates) -> Gates:
    """Gates on one wire or on the same two wires in a row, as one gate; on neighbours ascending."""
    done: list[list] = []
    last: dict[int, int] = {}
    waiting: dict[int, np.ndarray] = {}
    for wires, gate in gates:
        gate = np.asarray(gate, complex)
        if len(wires) == 1:
            (wire,) = wires
            if wire in last and len(done[last[wire]][0]) == 2:
                pair = done[last[wire]]
                one = np.kron(gate, np.eye(2)) if wire == pair[0][0] else np.kron(np.eye(2), gate)
                pair[1] = one @ pair[1]
            else:
                waiting[wire] = gate @ waiting.get(wire, np.eye(2))
            continue
        if len(wires) == 2 and wires[0] > wires[1]:
            gate = gate.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
            wires = wires[::-1]
        before = [waiting.pop(wire, np.eye(2)) for wire in wires]
        gate = gate @ functools.reduce(np.kron, before)
        k = last.get(wires[0], -1)
        if k >= 0 and all(last.get(w) == k for w in wires) and done[k][0] == tuple(wires):
            done[k][1] = gate @ done[k][1]
            continue
        done.append([tuple(wires), gate])
        last |= dict.fromkeys(wires, len(done) - 1)
    return [((wire,), gate) for wire, gate in waiting.items()] + [(w, g) for w, g in done]


def evaluate(problem: Problem, candidate: Any) -> float:
    """What everybody is judged by."""
    n, target = problem.n, problem.target
    if problem.kind == "core":
        return core_loss(problem, *candidate)
    gates = fused(candidate)
    if problem.kind == "operator":
        if n <= DENSE_OPERATOR:
            return 1 - abs(np.vdot(target, dense(gates, n, np.eye(2**n)))) / 2**n
        target = getattr(target, "mpo", target)
        overlap = mpodis.true_overlap(between(circuit(gates, n)), transposed(target), max_bond=128)
        return 1 - abs(overlap.value)
    if n <= DENSE_STATE:
        vector = target if problem.kind == "vector" else target.to_dense().ravel()
        return 1 - abs(np.vdot(vector, dense(gates, n, np.eye(2**n, 1)))) ** 2
    psi = apply(qtn.MPS_computational_state("0" * n, dtype=complex), gates, cutoff=1e-15)
    return 1 - abs(target.H @ psi) ** 2


def core_loss(problem: Problem, left: Gates, core: Sequence[np.ndarray], right: Gates) -> float:
    """1 - f with gates in the row action, x @ Q_L M' Q_R."""
    n = problem.n
    middle = functools.reduce(np.kron, core)
    rows = [(wires, gate.T) for wires, gate in left]
    columns = [(wires, gate.T) for wires, gate in right]
    q_left = dense(rows, n, np.eye(2**n)).T.real
    q_right = dense(columns, n, np.eye(2**n)).T.real
    return 1 - float(np.vdot(problem.target, q_left @ middle @ q_right) / np.linalg.norm(middle))


def cx_count(problem: Problem, candidate: Any) -> int | None:
    """CX of gates on two wires, by their Weyl coordinates."""
    if problem.kind == "core":
        candidate = [*candidate[0], *candidate[2]]
    return sum(mpodis.gate_cnots(gate) for wires, gate in fused(candidate) if len(wires) == 2)


# ------------------------------------------------------------------------------------- mpodis


def circuit(gates: Gates, n: int) -> mpodis.Circuit:
    """Gates on kets as a circuit of the row action, each in the first layer that is free."""
    layers: list[Gates] = []
    depths = [0] * n
    for wires, gate in gates:
        at = max(depths[wire] for wire in wires)
        if at == len(layers):
            layers.append([])
        layers[at].append((wires, np.asarray(gate, complex).T))
        for wire in wires:
            depths[wire] = at + 1
    places = tuple(tuple(mpodis.Placement(wires) for wires, _ in layer) for layer in layers)
    matrices = tuple(gate for layer in layers for _, gate in layer)
    return mpodis.Circuit(mpodis.Ansatz(n, places, "U"), matrices)


def listed(found: mpodis.Circuit) -> Gates:
    """Gates of the row action as gates on kets."""
    places = found.ansatz.placements
    return [(p.wires, np.asarray(g).T) for p, g in zip(places, found.gates, strict=True)]


def transposed(operator: qtn.MatrixProductOperator):
    """The MPO of U on kets in the row action, U^T."""
    operator = operator.copy()
    operator.permute_arrays("lrud")
    arrays = list(operator.arrays)
    arrays[0], arrays[-1] = arrays[0][None], arrays[-1][:, None]
    return mpodis.mpo_from_tensors([a.transpose(0, 3, 2, 1) for a in arrays])


def between(found: mpodis.Circuit) -> mpodis.Factorization:
    """The circuit with an identity core and nothing on the right."""
    n = found.n
    one = mpodis.mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * n)
    none = mpodis.Circuit(mpodis.Ansatz(n, (), "U"), ())
    return mpodis.Factorization(found, one, none, (2**n, 2**n))


def ours(problem: Problem, watch: Watch) -> None:
    """The public calls, with their defaults."""
    if problem.kind == "core":
        found = watch.call(
            mpodis.disentangle,
            problem.target,
            depth=problem.depth,
            core=problem.core,
            max_seconds=watch.budget,
        )
        left, core, right = (getattr(found.factorization, x) for x in ("left", "core", "right"))
        sites = [a.reshape(2, 2) for a in mpodis.site_tensors(core)]
        rows = [[(w, g.T) for w, g in listed(side)] for side in (left, right)]
        return watch.history(found.history.records, (rows[0], sites, rows[1]))
    if problem.kind == "vector":
        for depth in range(1, 10):
            found = mpodis.compile_state(problem.target, depth=depth, group="SO")
            watch(listed(found.circuit))
        return None
    call = mpodis.compile_state if problem.kind == "state" else mpodis.compile_unitary
    options: dict[str, Any] = {"depth": problem.depth}
    if problem.start is not None:
        options = {"start": circuit(problem.start, problem.n)}
    found = watch.call(call, problem.target, max_seconds=watch.budget, **options)
    losses = [(r["seconds"], r["loss"]) for r in found.history.records]
    if problem.kind == "state":
        losses = [(seconds, 1 - (1 - loss) ** 2) for seconds, loss in losses]
    records = [{"seconds": seconds, "loss": loss} for seconds, loss in losses]
    return watch.history(records, listed(found.circuit))


# -------------------------------------------------------------------------------------- peers


class Spent(Exception):
    """The budget is used up."""


class Watch:
    """CPU seconds and candidates of a run; a call beyond the budget ends it."""

    def __init__(self, budget: float) -> None:
        self.budget, self.began = budget, time.process_time()
        self.seen: list[tuple[float, float | None, Any]] = []

    def __call__(self, candidate: Any, own: float | None = None) -> None:
        """Keep a candidate, or a function that makes it, with the peer's own figure."""
        now = time.process_time() - self.began
        self.seen.append((now, own, candidate))
        if now > self.budget:
            raise Spent

    def call(self, function: Callable, *args, **options) -> Any:
        """The result of a function whose history begins when it is called."""
        self.called = time.process_time() - self.began
        return function(*args, **options)

    def history(self, records: Sequence[dict], candidate: Any) -> None:
        """Losses of the records of that function, and the last candidate."""
        self.seen += [(self.called + r["seconds"], r["loss"], None) for r in records]
        self.seen.append((time.process_time() - self.began, None, candidate))


def qiskit_circuit(gates: Gates, n: int):
    """Wire k on Qiskit's qubit k."""
    from qiskit import QuantumCircuit

    made = QuantumCircuit(n)
    for wires, gate in gates:
        made.unitary(gate, list(wires[::-1]))
    return made


def from_qiskit(made) -> Gates:
    from qiskit.quantum_info import Operator

    return [
        (
            tuple(made.find_bit(q).index for q in reversed(step.qubits)),
            Operator(step.operation).data,
        )
        for step in made.data
    ]


def aqc(backend: str):
    """AQC-Tensor as in its tutorial; for vectors from deeper and deeper brickwalls."""

    def run(problem: Problem, watch: Watch) -> None:
        if problem.kind != "vector":
            return compiled(problem.n, problem.target, problem.start, watch, 0.0)
        target = qtn.MatrixProductState.from_dense(problem.target, [2] * problem.n)
        for depth in range(1, 9):
            compiled(problem.n, target, near_identity(problem.n, depth), watch, 2.2e-9)
        return None

    def compiled(n: int, psi, start: Gates, watch: Watch, ftol: float) -> None:
        from qiskit_addon_aqc_tensor import generate_ansatz_from_circuit
        from qiskit_addon_aqc_tensor.ansatz_generation import AnsatzBlock
        from qiskit_addon_aqc_tensor.objective import MaximizeStateFidelity
        from qiskit_addon_aqc_tensor.simulation.quimb import QuimbSimulator
        from scipy.optimize import minimize

        ansatz, x = generate_ansatz_from_circuit(
            qiskit_circuit(start, n), qubits_initially_zero=True
        )
        factory = functools.partial(qtn.CircuitMPS, cutoff=1e-12)
        simulator = QuimbSimulator(factory, autodiff_backend=backend)
        goal = MaximizeStateFidelity(qtn.CircuitMPS(n, psi0=psi), ansatz, simulator)

        def made(x: np.ndarray) -> Gates:
            return from_qiskit(ansatz.assign_parameters(x).decompose(AnsatzBlock))

        def seen(intermediate_result) -> None:
            x = intermediate_result.x.copy()
            watch(functools.partial(made, x), float(intermediate_result.fun))

        watch(functools.partial(made, np.array(x)))
        minimize(
            goal.loss_function,
            x,
            method="L-BFGS-B",
            jac=True,
            callback=seen,
            options={"maxiter": 100_000, "maxfun": 10**6, "ftol": ftol, "gtol": 1e-12},
        )

    return run


def layered(problem: Problem, watch: Watch) -> None:
    """mps-to-circuit: layer upon layer of Ran's algorithm."""
    from mps_to_circuit import mps_to_circuit

    class Seen(list):
        def append(self, made) -> None:
            watch(functools.partial(from_qiskit, made.copy()))

    target = problem.target
    if problem.kind == "vector":
        target = qtn.MatrixProductState.from_dense(target, [2] * problem.n)
    target.permute_arrays("lrp")
    mps_to_circuit(
        list(target.arrays),
        method="approximate",
        num_layers=40,
        history={"circuits": Seen()},
    )


def preparation(problem: Problem, watch: Watch) -> None:
    """Qiskit's StatePreparation (an isometry), transpiled to CX."""
    from qiskit import QuantumCircuit, transpile
    from qiskit.circuit.library import StatePreparation

    vector = problem.target if problem.kind == "vector" else problem.target.to_dense().ravel()
    made = QuantumCircuit(problem.n)
    made.append(StatePreparation(vector), list(range(problem.n))[::-1])
    made = transpile(made, basis_gates=["cx", "u"], optimization_level=3, seed_transpiler=0)
    watch(functools.partial(from_qiskit, made))


def qfactor(problem: Problem, watch: Watch) -> None:
    """BQSKit's QFactor on the brickwall; its defaults, in pieces, then from random gates."""
    from bqskit.ir.circuit import Circuit
    from bqskit.ir.gates import VariableUnitaryGate
    from bqskit.ir.opt.instantiaters import QFactor
    from bqskit.qis.unitary import UnitaryMatrix

    made = Circuit(problem.n)
    places = brick(problem.n, problem.depth)
    for place in places:
        made.append_gate(VariableUnitaryGate(2), place)
    order = [(op.location[0], op.location[1]) for op in made]
    target = UnitaryMatrix(problem.target)
    rng = np.random.default_rng(0)

    def gates(x: np.ndarray) -> Gates:
        made.set_params(x)
        return [((op.location[0], op.location[1]), op.get_unitary().numpy) for op in made]

    x = rng.normal(size=32 * len(places))
    if problem.start is not None:
        waiting = list(problem.start)
        matrices = []
        for place in order:  # BQSKit iterates over cycles: the same order on every pair of wires
            k = next(k for k, (wires, _) in enumerate(waiting) if wires == place)
            matrices.append(waiting.pop(k)[1])
        x = np.concatenate([np.r_[m.real.ravel(), m.imag.ravel()] for m in matrices])
    while True:
        done, size, before = 0, 1, math.inf
        while True:
            # its default tolerances are applied below, over all pieces of a start
            step = QFactor(max_iters=size, min_iters=size, diff_tol_r=0.0, diff_tol_a=0.0)
            x = np.asarray(step.instantiate(made, target, x))
            done += size
            made.set_params(x)
            cost = 1 - abs(np.vdot(target.numpy, made.get_unitary().numpy)) / 2**problem.n
            watch(functools.partial(gates, x), cost)
            if (done >= 1000 and before - cost <= 1e-12 + 1e-6 * size * cost) or cost < 1e-14:
                break
            before, size = cost, min(2 * size, 200)
        if cost < 1e-14:
            return
        x = rng.normal(size=x.shape)


def cayley(gate: np.ndarray) -> np.ndarray:
    """X whose Cayley transform in quimb is the gate up to a phase."""
    phases = np.exp(2j * np.pi * np.arange(8) / 8)  # -1 must not be an eigenvalue
    phase = max(phases, key=lambda z: np.abs(np.linalg.eigvals(z * gate) + 1).min())
    one, gate = np.eye(len(gate)), phase * gate
    return (gate - one) @ np.linalg.inv(gate + one)


def tensors(places, matrices, into: list[str], name: str) -> tuple[list, list[str]]:
    """Gates as tensors with Cayley parameters; `into` are the indices that they act on."""
    wires, made = list(into), []
    for k, (place, matrix) in enumerate(zip(places, matrices, strict=True)):
        new = [f"{name}{k}_{j}" for j in range(2)]
        old = [wires[w] for w in place]
        tags = ["GATE", f"{name}{k}"]
        made.append(qtn.Tensor(matrix.reshape(2, 2, 2, 2), [*new, *old], tags, left_inds=new))
        for w, index in zip(place, new, strict=True):
            wires[w] = index
    return made, wires


def tn_optimizer(backend: str):
    """quimb's TNOptimizer on the same gates."""

    def run(problem: Problem, watch: Watch) -> None:
        if backend == "torch":
            import torch

            torch.set_num_threads(1)
        network, target, loss, read = closed_network(problem)
        free = ["GATE", "CORE"] if problem.core == "update" else ["GATE"]

        def isometric(tn):
            # the core of "core" problems has no left indices and stays as it is
            for tensor in tn.select_tensors("GATE"):
                tensor.isometrize_(method="cayley")
            return tn

        def seen(optimizer) -> None:
            x = optimizer.vectorizer.vector.copy()
            watch(functools.partial(read, x, optimizer), float(optimizer.loss))

        optimizer = qtn.TNOptimizer(
            network,
            loss_fn=loss,
            norm_fn=lambda tn: isometric(tn.copy()),
            loss_constants={"target": target},
            tags=free if problem.kind == "core" else ["GATE"],
            autodiff_backend=backend,
            progbar=False,
            callback=seen,
        )
        begin, rng = optimizer.vectorizer.vector.copy(), np.random.default_rng(1)
        optimizer.optimize(10**6, tol=1e-16)
        while problem.start is None:  # other initial guesses, as long as there is time
            optimizer.vectorizer.vector[:] = begin + rng.normal(size=begin.shape) / 10
            optimizer.optimize(10**6, tol=1e-16)

    return run


def searched():
    """A contraction path from cotengra's search, in this process alone, so that it counts."""
    import cotengra

    return cotengra.ReusableHyperOptimizer(parallel=False, max_repeats=32, max_time=1.0)


def closed_network(problem: Problem):
    """Parametrised gates, the target, the loss, and how a candidate is read off parameters."""
    n, rng = problem.n, np.random.default_rng(0)
    if problem.kind == "core":
        return core_network(problem, rng)
    if problem.start is None:
        start = near_identity(n, problem.depth)
    else:
        start = problem.start
    places = [wires for wires, _ in start]
    parameters = [cayley(np.asarray(gate, complex)) for _, gate in start]
    if problem.kind == "state":
        into = [f"z{k}" for k in range(n)]
    else:
        into = [f"b{k}" for k in range(n)]
    made, out = tensors(places, parameters, into, "G")
    network = qtn.TensorNetwork(made)
    network.reindex_({index: f"k{k}" for k, index in enumerate(out)})
    if problem.kind == "state":
        zeros = [qtn.Tensor(np.array([1.0 + 0j, 0]), [f"z{k}"]) for k in range(n)]
        target = problem.target.H | qtn.TensorNetwork(zeros)
        scale, power = 1.0, 2
    elif isinstance(problem.target, np.ndarray):
        legs = [f"k{k}" for k in range(n)] + [f"b{k}" for k in range(n)]
        array = problem.target.conj().reshape((2,) * (2 * n)) + 0j
        target = qtn.TensorNetwork([qtn.Tensor(array, legs)])
        scale, power = 2.0**n, 1
    else:
        target, scale, power = problem.target.H, 2.0**n, 1

    path = searched()

    def loss(tn, target):
        return 1 - (abs((tn | target).contract(all, optimize=path)) / scale) ** power

    def read(x: np.ndarray, optimizer) -> Gates:
        optimizer.vectorizer.vector[:] = x
        found = optimizer.get_tn_opt()
        return [(wires, found[f"G{k}"].data.reshape(4, 4)) for k, wires in enumerate(places)]

    return network, target, loss, read


def core_network(problem: Problem, rng):
    """Brickwalls of SO(4) around a product core, the right one in the opposite order of layers."""
    n, depth = problem.n, problem.depth
    ansatz = mpodis.brickwall(n, depth, fill=False)
    sides = {"L": ansatz, "R": ansatz.reversed()}
    places = {name: [p.wires for p in side.placements] for name, side in sides.items()}
    near = {name: list(rng.normal(size=(len(p), 4, 4)) / 40) for name, p in places.items()}
    # a gate's tensor is (new, old) on the indices of columns, G^T of the row action
    left, middle = tensors(places["L"], near["L"], [f"b{k}" for k in range(n)], "L")
    start = mpodis.truncate(mpodis.as_mpo(problem.target), max_bond=1).mpo
    sites = [a.reshape(2, 2) for a in mpodis.site_tensors(start)]
    inner = [f"m{k}" for k in range(n)]
    core = [qtn.Tensor(a, [middle[k], inner[k]], ["CORE", f"C{k}"]) for k, a in enumerate(sites)]
    right, out = tensors(places["R"], near["R"], inner, "R")
    network = qtn.TensorNetwork([*left, *core, *right])
    network.reindex_({index: f"k{k}" for k, index in enumerate(out)})
    legs = [f"b{k}" for k in range(n)] + [f"k{k}" for k in range(n)]
    target = qtn.TensorNetwork([qtn.Tensor(problem.target.reshape((2,) * (2 * n)), legs)])

    path = searched()

    def loss(tn, target):
        value = (tn | target).contract(all, optimize=path)
        for k in range(n):
            value = value / tn[f"C{k}"].norm()
        return 1 - value

    def read(x: np.ndarray, optimizer):
        optimizer.vectorizer.vector[:] = x
        found = optimizer.get_tn_opt()
        rows = {
            name: [(w, found[f"{name}{k}"].data.reshape(4, 4).T) for k, w in enumerate(wires)]
            for name, wires in places.items()
        }
        return rows["L"], [found[f"C{k}"].data for k in range(n)], rows["R"]

    return network, target, loss, read


def trotter(order: str):
    """A product formula with more and more steps, which costs no time."""

    def run(problem: Problem, watch: Watch) -> None:
        for which, gates in problem.trotter:
            if which == order:
                watch(gates)

    return run


PEERS: dict[str, tuple[Callable, str, tuple[str, ...], int]] = {
    # name: function, package, kinds of problems, most sites
    "mpodis": (ours, "mpodis", ("state", "operator", "vector", "core"), 10**6),
    "AQC-Tensor explicit": (aqc("explicit"), "qiskit_addon_aqc_tensor", ("state", "vector"), 50),
    "AQC-Tensor jax": (aqc("jax"), "qiskit_addon_aqc_tensor", ("state",), 50),
    "mps-to-circuit": (layered, "mps_to_circuit", ("state", "vector"), 50),
    "StatePreparation": (preparation, "qiskit", ("state", "vector"), 10),
    "QFactor": (qfactor, "bqskit", ("operator",), 10),
    "TNOptimizer torch": (tn_optimizer("torch"), "torch", ("state", "operator", "core"), 20),
    "TNOptimizer jax": (tn_optimizer("jax"), "jax", ("state", "operator", "core"), 20),
    "Trotter 2": (trotter("2"), "quimb", ("state", "operator"), 10**6),
    "Trotter 4": (trotter("4"), "quimb", ("state", "operator"), 10**6),
}


# --------------------------------------------------------------------------------------- runs


def work(connection, peer: str, problem: Problem, budget: float) -> None:
    """A run, in a process of its own."""
    time.perf_counter = time.monotonic = time.process_time  # `max_seconds` counts CPU seconds
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    function = PEERS[peer][0]
    try:
        with contextlib.suppress(Spent):
            function(small(problem), Watch(1.0))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        watch = Watch(budget)
        with contextlib.suppress(Spent):
            function(problem, watch)
        seconds = time.process_time() - watch.began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        points = judged(problem, watch.seen)
        row = {
            "points": points,
            "seconds": round(seconds, 3),
            "first": round(watch.seen[0][0], 4),
            "memory MB": round((peak - before) / 1024, 1),
            "peak MB": round(peak / 1024, 1),
        }
        own = [own for _, own, candidate in watch.seen if candidate is None]
        if own:
            row["claimed"] = own[-1]
    except Exception:
        row = {"failed": traceback.format_exc(limit=-2)}
    connection.send(row)


def chosen(seen: list[tuple[float, float | None, Any]]) -> list[int]:
    """Which candidates are evaluated: the best, by the peer's own figure, at times and levels."""
    times, figures = zip(*((t, own) for t, own, _ in seen), strict=True)
    if len(seen) <= POINTS or None in figures[:-1]:
        return list(range(len(seen)))
    figures = [math.inf if own is None else own for own in figures]
    kept = {0, len(seen) - 1, int(np.argmin(figures))}
    for limit in [*MARKS, *np.geomspace(max(times[0], 1e-3), times[-1], POINTS)]:
        before = [k for k, t in enumerate(times) if t <= limit]
        kept |= {min(before, key=figures.__getitem__)} if before else set()
    for level in LEVELS:
        good = [k for k, own in enumerate(figures) if own <= level]
        kept |= set(good[:1])
    return sorted(kept)


def judged(problem: Problem, seen: list[tuple[float, float | None, Any]]) -> list[list]:
    """Seconds, loss and CX of the candidates that are evaluated."""
    kept = [seen[k] for k in chosen(seen)]
    points = []
    for seconds, own, candidate in kept:
        if candidate is None:
            points.append([seconds, own, None])
            continue
        candidate = candidate() if callable(candidate) else candidate
        points.append([seconds, evaluate(problem, candidate), cx_count(problem, candidate)])
    return [[float(f"{s:.5g}"), float(f"{loss:.6g}"), cx] for s, loss, cx in points]


def measure(task: str, peer: str, seed: int, problem: Problem, budget: float) -> dict:
    """One peer on one problem."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(there, peer, problem, budget))
    process.start()
    there.close()
    limit = 30 * budget + 600  # of a machine that others use too
    try:
        row = here.recv() if here.poll(limit) else {"failed": f"no answer in {limit:.0f} s"}
    except EOFError:
        row = {"failed": "the process died"}
    process.kill()
    process.join()
    return {"task": task, "peer": peer, "seed": seed, "budget": budget, **row}


# ------------------------------------------------------------------------------------ results


def loss_at(row: dict, seconds: float) -> float:
    """The best so far; infinite if the run was stopped before."""
    if row["seconds"] >= row["budget"] and row["budget"] < seconds:
        return math.inf
    return min((p[1] for p in row["points"] if p[0] <= seconds), default=math.inf)


def time_to(row: dict, level: float) -> float:
    return min((p[0] for p in row["points"] if p[1] <= level), default=math.inf)


def cx_to(row: dict, level: float) -> float:
    """Fewest CX of a candidate that is as good; a history has those of its last point.

    Level 0 is that of the best candidate.
    """
    level = level or min(p[1] for p in row["points"])
    last = row["points"][-1][2]
    counts = [last if p[2] is None else p[2] for p in row["points"] if p[1] <= level]
    return min(counts, default=math.inf)


def grouped(rows: list[dict]) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        found.setdefault((row["task"], row["peer"]), []).append(row)
    return found


def middle(rows: list[dict], figure: Callable[[dict], float]) -> float | None:
    """Median over seeds; a run that failed never arrives."""
    value = statistics.median([figure(r) if "points" in r else math.inf for r in rows])
    return None if math.isinf(value) else value


def short(value: float | None) -> str:
    if value is None:
        return "-"
    return "0" if abs(value) < 1e-15 else f"{value:.1e}" if value < 0.01 else f"{value:.3g}"


def tables(record: dict) -> list[Table]:
    groups = grouped(record["runs"])
    searches = {k: v for k, v in groups.items() if not k[0].startswith(("vector", "published"))}
    vectors = {k: v for k, v in groups.items() if k[0].startswith("vector")}
    marks = [s for s in MARKS if s <= max(r["budget"] for r in record["runs"])]
    figures = {f"s to {x:g}": functools.partial(time_to, level=x) for x in LEVELS}
    figures |= {f"at {s:g} s": functools.partial(loss_at, seconds=s) for s in marks}
    figures |= {"first": lambda r: r["first"]}
    counts = {"CX": functools.partial(cx_to, level=0)}
    counts |= {f"to {x:g}": functools.partial(cx_to, level=x) for x in LEVELS}
    memory = {"MB": lambda r: r["memory MB"]}
    fidelities = {f"CX at F {1 - x:g}": functools.partial(cx_to, level=x) for x in (0.05, 0.01)}
    times = {f"s to {1 - x:g}": functools.partial(time_to, level=x) for x in (0.05, 0.01)}
    notes = (
        "CPU seconds of one thread; loss is 1 - |f| of operators and cores, 1 - F of states",
        "CX: of the best candidate, and the fewest of one that is as good as a level",
        "first: seconds to the first candidate; MB: peak memory above what a task of 4 sites takes",
    )
    compared = {k: v for k, v in searches.items() if not k[1].startswith(("Trotter", "StateP"))}
    behind = where_behind(compared, {k: v for k, v in figures.items() if k != "first"})
    behind += where_behind(vectors, fidelities)
    title = "{}, medians over seeds"
    made = [
        medians(searches, figures | counts | memory, title.format("operators and states"), notes),
        medians(vectors, fidelities | times | memory, title.format("real vectors of 64 numbers")),
        Table(
            ("task", "Trotter", "published", "mpodis", "ratio", "s to published", "s", "MB"),
            literature(groups),
            title="50 sites, 1 - |f| of U(4) brickwalls",
        ),
        Table(
            ("task", "figure", "mpodis", "best peer", "which"),
            behind,
            title="where a peer is ahead of mpodis",
        ),
    ]
    return [one for one in made if one.rows]


def medians(groups: dict, figures: dict[str, Callable], title: str, notes=()) -> Table:
    """A row for every task and peer; what is written down and not searched takes no time."""
    rows = []
    for (task, peer), runs in groups.items():
        cells = [
            None
            if peer.startswith("Trotter") and "CX" not in name and name[:5] != "to 1e"
            else middle(runs, figure)
            for name, figure in figures.items()
        ]
        rows.append((task, peer, *map(short, cells), len(runs)))
    return Table(("task", "peer", *figures, "seeds"), rows, title=title, notes=notes)


def where_behind(groups: dict, figures: dict[str, Callable]) -> list[tuple]:
    """Tasks and figures, the less the better, of which a peer's median is below ours."""
    rows = []
    for task in dict.fromkeys(task for task, peer in groups if peer == "mpodis"):
        for name, figure in figures.items():
            found = {p: middle(runs, figure) for (t, p), runs in groups.items() if t == task}
            mine = found.pop("mpodis")
            found = {peer: value for peer, value in found.items() if value is not None}
            if not found:
                continue
            peer = min(found, key=found.__getitem__)
            if mine is None or found[peer] < 0.99 * mine - 1e-12:
                rows.append((task, name, short(mine), short(found[peer]), peer))
    return rows


def literature(groups: dict[tuple[str, str], list[dict]]) -> list[tuple]:
    """Rows of the published values at 50 sites, ours and Trotter's of the same depth."""
    rows = []
    for (task, peer), runs in groups.items():
        if peer != "mpodis" or not task.startswith("published") or "points" not in runs[0]:
            continue
        model, size = task.split()[1:]
        value = PUBLISHED[model][int(size.split("/")[1])]
        found = {"mpodis": runs[0], "Trotter 2": groups.get((task, "Trotter 2"), [{}])[0]}
        best = {
            name: min(p[1] for p in run["points"]) for name, run in found.items() if "points" in run
        }
        reached = time_to(runs[0], value)
        rows.append(
            (
                task.removeprefix("published "),
                short(best.get("Trotter 2")),
                short(value),
                short(best["mpodis"]),
                f"{value / best['mpodis']:.2f}",
                short(None if math.isinf(reached) else reached),
                short(runs[0]["seconds"]),
                short(runs[0]["memory MB"]),
            )
        )
    return rows


def plot(record: dict, path: Path) -> None:
    """Loss against CPU seconds, a panel for every task."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = {
        key: runs
        for key, runs in grouped(record["runs"]).items()
        if not key[0].startswith(("vector", "published"))
    }
    tasks = list(dict.fromkeys(task for task, _ in groups))
    peers = [peer for peer in PEERS if any(p == peer for _, p in groups)]
    peers = [peer for peer in peers if not peer.startswith(("Trotter", "StateP"))]
    columns = min(5, len(tasks))
    lines = math.ceil(len(tasks) / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3 * columns, 2.5 * lines), layout="constrained", squeeze=False
    )
    grid = np.geomspace(0.01, max(r["budget"] for runs in groups.values() for r in runs), 60)
    for ax, task in zip(axes.flat, tasks, strict=False):
        for k, peer in enumerate(peers):
            if (task, peer) not in groups:
                continue
            runs = groups[task, peer]
            losses = [middle(runs, functools.partial(loss_at, seconds=s)) for s in grid]
            curve = [(s, max(x, 1e-15)) for s, x in zip(grid, losses, strict=True) if x is not None]
            if curve:
                style = {"lw": 2.2, "zorder": 3} if peer == "mpodis" else {"lw": 1.1}
                ax.semilogx(*zip(*curve, strict=True), color=f"C{k}", **style)
        if not task.startswith("core"):
            ax.set_yscale("log")
        ax.set_title(task, fontsize=8)
        ax.tick_params(labelsize=7, which="both")
        ax.grid(alpha=0.3)
    for ax in axes.flat[len(tasks) :]:
        ax.set_axis_off()
    for ax in axes[-1]:
        ax.set_xlabel("CPU seconds", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("loss", fontsize=8)
    handles = [plt.Line2D([], [], color=f"C{k}", label=peer) for k, peer in enumerate(peers)]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, dpi=75)


def versions() -> dict[str, str]:
    names = ("numpy", "quimb", "qiskit", "qiskit-addon-aqc-tensor", "bqskit", "mps-to-circuit")
    found = {"mpodis": mpodis.__version__}
    for name in (*names, "torch", "jax"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three small tasks, 3 s, one seed")
    parser.add_argument("--published", action="store_true", help="the 50 sites of the literature")
    parser.add_argument("--tasks", help="only those with one of these words, by commas")
    parser.add_argument("--peers", help="only those whose names begin so, by commas")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--budget", type=float, help="other CPU seconds of every run")
    parser.add_argument("--out", type=Path, help="JSON record; runs that it has are not repeated")
    parser.add_argument("--redo", action="store_true", help="repeat them all the same")
    parser.add_argument("--plot", type=Path, help="figure to write")
    parser.add_argument("--record", type=Path, help="print and draw an earlier record")
    options = parser.parse_args()
    if options.record:
        record = json.loads(options.record.read_text())
    else:
        record = measured(options)
    for one in tables(record):
        print(one, end="\n\n")
    if options.plot:
        plot(record, options.plot)


def measured(options: argparse.Namespace) -> dict:
    """All runs that are asked for, and those of the record."""
    tasks = dict(FIFTY if options.published else TASKS)
    if options.quick:
        tasks = {task: (tasks[task][0], 3.0) for task in QUICK}
    if options.tasks:
        words = options.tasks.split(",")
        tasks = {task: x for task, x in tasks.items() if any(word in task for word in words)}
    if options.budget:
        tasks = {task: (make, options.budget) for task, (make, _) in tasks.items()}
    peers = dict(PEERS)
    if options.peers:
        peers = {p: x for p, x in peers.items() if p.startswith(tuple(options.peers.split(",")))}
    for peer, (_, module, _, _) in list(peers.items()):
        if importlib.util.find_spec(module) is None:
            print(f"{peer} is left out: {module} is not installed", flush=True)
            del peers[peer]
    seeds = [int(word) for word in options.seeds.split(",")]
    seeds = [0] if options.quick or options.published else seeds
    record = {
        "command": "scripts/bench/compile.py" + (" --quick" if options.quick else ""),
        "versions": versions(),
        "runs": [],
    }
    if options.out and options.out.exists():
        record["runs"] = json.loads(options.out.read_text())["runs"]
    if options.redo:
        kept = (r for r in record["runs"] if r["task"] not in tasks or r["peer"] not in peers)
        record["runs"] = list(kept)
    record["runs"] = [r for r in record["runs"] if "points" in r]
    done = {(r["task"], r["peer"], r["seed"]) for r in record["runs"]}
    for seed in seeds:
        for task, (make, budget) in tasks.items():
            problem = None
            for peer, (_, _, kinds, sites) in peers.items():
                if (task, peer, seed) in done:
                    continue
                problem = make(seed) if problem is None else problem
                if problem.kind not in kinds or problem.n > sites:
                    continue
                if peer.startswith("Trotter") and not problem.trotter:
                    continue  # no evolution
                row = measure(task, peer, seed, problem, budget)
                record["runs"].append(row)
                say(row)
                if options.out:
                    save(options.out, record)
    return record


def save(path: Path, record: dict) -> None:
    """The record as JSON, a line for every run."""
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in record["runs"])
    head = json.dumps({key: value for key, value in record.items() if key != "runs"}, indent=1)
    write_atomic(path, head[:-2] + ',\n "runs": [\n' + lines + "\n]}\n")


def say(row: dict) -> None:
    head = f"{row['task']}, {row['peer']}, seed {row['seed']}: "
    if "failed" in row:
        print(head + row["failed"].strip().splitlines()[-1], flush=True)
        return
    to = ", ".join(f"{x:g} in {short(time_to(row, x))}" for x in LEVELS)
    at = ", ".join(short(loss_at(row, s)) for s in MARKS)
    print(f"{head}{to} s; {at} at 1, 5, 20 s; CX {cx_to(row, 0)}", flush=True)


if __name__ == "__main__":
    main()
