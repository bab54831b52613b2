"""The compilers that `compile.py` compares on the same problems: mpodis and its peers."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import quimb.tensor as qtn
from scipy.linalg import expm

import mpodis

Gates = list[tuple[tuple[int, ...], np.ndarray]]
"""Wires, the first most significant, and matrices on kets, in the order in which they act."""


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
