"""At which depth a compiled circuit loses least on a device.

A deeper circuit is nearer to its target, and more of its gates go wrong. Fidelities are squared
moduli, |<psi|phi>|^2 of states and |Tr(U^H V)|^2 / 4^n of unitaries (process fidelity), which
agree with ``1 - infidelity`` of a `Compiled`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import UnitaryGate
from qiskit.providers import BackendV2
from qiskit.quantum_info import SuperOp, process_fidelity
from qiskit_aer import AerSimulator
from qiskit_aer.library import SaveDensityMatrix
from qiskit_aer.noise import NoiseModel

from mpodis.arguments import check_count, is_integer, random_generator
from mpodis.circuit.ansatz import Ansatz
from mpodis.compile_targets import Target, state_target, unitary_target
from mpodis.compiling import Compiled, compile_unitary
from mpodis.optimise.compile import CircuitTask
from mpodis.progress import Deadline, bar
from mpodis.quantum.backends import backend_name, check_size, noise_of, qubits_of, transpiled
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.gate_costs import HardwareCost, counted
from mpodis.quantum.state_preparation import prepare_from_zero
from mpodis.sites import legs_of, mpo_from_tensors, mpo_to_dense
from mpodis.tables import Table, Tabular
from mpodis.time_evolution import Evolution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["DepthChoice", "DepthRow", "as_run", "best_depth"]

SIMULATED = {"state": 10, "unitary": 8}
"""Most qubits whose density matrix is simulated."""
COMPILE_SHARE = 0.7
"""Part of the time of a depth in which its circuit is compiled."""
OTHER_TARGET = 1e-5
"""Difference of infidelities from which on a circuit is that of another target."""
COMPARED_BOND = 256
"""Bond dimension at which they are compared."""
OWN_SHARE = 0.6
"""Part of this in which it is compiled from the start that the compiler chooses."""


@dataclass(frozen=True, eq=False)
class DepthRow:
    """A compiled circuit on a device.

    Attributes
    ----------
    compiled : Compiled
    transpiled : QuantumCircuit
        What the device runs.
    cost : HardwareCost
        Its gates.
    approximation : float
        Fidelity of the circuit and its target.
    gates : float
        Product of the process fidelities of all gates: nearly the probability that none fails.
    device : float
        Fidelity of what the device does and of the circuit, simulated; NaN where it is not.
    total : float
        Fidelity of what the device does and of the target, simulated; NaN where it is not.
    total_error : float
        Standard error of `total`, from the sample of input states; 0 for states, NaN as `total`.
    """

    compiled: Compiled
    transpiled: QuantumCircuit
    cost: HardwareCost
    approximation: float
    gates: float
    device: float
    total: float
    total_error: float

    @property
    def depth(self) -> int:
        """Layers of the circuit."""
        return self.compiled.circuit.ansatz.depth

    @property
    def estimate(self) -> float:
        """``approximation * gates``, an estimate of `total`."""
        return self.approximation * self.gates

    def to_dict(self) -> dict[str, Any]:
        """All but the circuits, ready for JSON."""
        return {
            "depth": self.depth,
            "two_qubit": self.cost.two_qubit,
            "two_qubit_depth": self.cost.two_qubit_depth,
            "approximation": self.approximation,
            "gates": self.gates,
            "estimate": self.estimate,
            "device": self.device,
            "total": self.total,
            "total_error": self.total_error,
        }


@dataclass(frozen=True, eq=False)
class DepthChoice(Tabular):
    """Circuits of several depths on a device; prints and shows itself as a table.

    Attributes
    ----------
    backend : str
    rows : tuple of DepthRow
        By depth.
    is_complete : bool
        False if the time ran out, or the search was stopped, before the last depth.
    """

    backend: str
    rows: tuple[DepthRow, ...]
    is_complete: bool = True

    @property
    def is_simulated(self) -> bool:
        """Whether all rows are simulated; else estimates decide."""
        return not any(math.isnan(row.total) for row in self.rows)

    @property
    def best(self) -> DepthRow:
        """The row of the largest total fidelity, the shallowest of equal ones."""
        return max(self.rows, key=lambda row: row.total if self.is_simulated else row.estimate)

    @property
    def depth(self) -> int:
        """The depth at which the device loses least."""
        return self.best.depth

    def table(self) -> Table:
        columns = ("depth", "2-qubit", "2q depth", "approximation", "gates", "estimate")
        columns += ("device", "total", "error", "")
        rows = [(*row.to_dict().values(), "best" if row is self.best else "") for row in self.rows]
        notes = ["fidelities: estimate = approximation x gates; device and total are simulated"]
        if len(self.rows) > 1 and self.best is self.rows[-1]:
            notes.append("the deepest circuit is the best one: try deeper ones")
        if not self.is_complete:
            notes.append("stopped before the last depth")
        return Table(columns, rows, title=f"Depths on {self.backend}", notes=notes)

    def to_dict(self) -> dict[str, Any]:
        """The rows and the best depth, ready for JSON."""
        return {
            "backend": self.backend,
            "depth": self.depth,
            "is_complete": self.is_complete,
            "rows": [row.to_dict() for row in self.rows],
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw all fidelities against the depth, and mark the best depth."""
        from mpodis.plots import plot_depths

        return plot_depths([row.to_dict() for row in self.rows], best=self.depth, ax=ax)


def best_depth(
    target: Target,
    depths: Sequence[int | Compiled],
    *,
    backend: str | BackendV2 = "FakeMontrealV2",
    noise_model: NoiseModel | None = None,
    compiler: Callable[..., Compiled] = compile_unitary,
    pattern: Callable[[int], Ansatz] | None = None,
    qubits: Sequence[int] | None = None,
    samples: int = 8,
    optimization_level: int = 3,
    trials: int = 4,
    max_seconds: float | None = None,
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> DepthChoice:
    """The depth at which a circuit for a target loses least on a device, by a model of its noise.

    From shallow to deep a circuit is compiled, transpiled and simulated. It is compiled from the
    compiler's own start and from the shallower circuit, and the better one counts, so that the
    approximation never gets worse with the depth; for an `Evolution`, which has a good start, from
    the shallower circuit only if that was better.

    The estimate multiplies process fidelities of gates, at any size. The simulation by Aer's
    density matrix is of states of up to 10 qubits, and of unitaries of up to 8, whose process
    fidelity F follows from the mean (2^n F + 1) / (2^n + 1) over Haar-random inputs, the same at
    every depth, which are prepared and compared without errors. Errors of readout, crosstalk and
    idle qubits are left out.

    Parameters
    ----------
    target : array, MPO, MPS, circuit, or Evolution
        As for `compile_unitary`, or for `compile_state` if this is the compiler.
    depths : sequence of int or Compiled
        Numbers of layers, or circuits that were compiled for this target.
    backend : {"FakeMontrealV2", "logical"} or BackendV2
        The device; an ``AerSimulator`` with a noise model and a coupling map is one, too.
    noise_model : NoiseModel, optional
        By default that of the device.
    compiler : callable
        `compile_unitary` or `compile_state`; with options, ``functools.partial(compile_state,
        group="SO")``.
    pattern : callable, optional
        Makes the ansatz of a depth, for example with `coupling_brickwall`; by default it is the
        brickwall of the compiler.
    qubits : sequence of int, optional
        The device's qubit of every wire, as from `coupling_line`; by default Qiskit searches.
    samples : int
        Input states by which a unitary is compared, 2 or more; 0 leaves out all simulations.
    optimization_level, trials
        As in `gate_cost`, but of all trials the one of the best estimate counts.
    max_seconds : float, optional
        Stop after this time, with the depths that are done; a depth gets its share by its layers.
    seed : int or numpy Generator
    progbar : bool

    Returns
    -------
    DepthChoice

    Raises
    ------
    TypeError, ValueError
        As for `compile_unitary`; for no depths, circuits of another number of qubits or for
        another target, devices that are too small or whose model has no errors.

    Examples
    --------
    >>> import mpodis
    >>> from qiskit.providers.fake_provider import GenericBackendV2
    >>> device = GenericBackendV2(3, coupling_map=[[0, 1], [1, 2]], seed=0)
    >>> target = mpodis.evolution(mpodis.pauli_chain(3, ZZ=1.0, X=0.75), 0.5)
    >>> found = best_depth(target, [1, 3, 5], backend=device, samples=0)
    >>> found.rows[0].approximation < found.rows[1].approximation
    True
    """
    wanted, kind = _by_depth(depths, compiler)
    tensors = state_target(target) if kind == "state" else unitary_target(target)
    n = len(tensors)
    _check(wanted, n, qubits, samples, trials, pattern)
    check_size(n, backend)
    model = _model(backend, noise_model)
    rng = random_generator(seed)
    numbers = rng.integers(2**31, size=trials + 1).tolist()
    for one in wanted:
        if isinstance(one, Compiled):
            _check_target(one, tensors)
    device = _Device(
        backend=backend,
        model=model,
        fidelities=_gate_fidelities(model),
        layout=None if qubits is None else [int(qubit) for qubit in qubits][::-1],
        optimization_level=optimization_level,
        seeds=numbers[1:],
    )
    inputs = None
    if samples and n <= SIMULATED[kind]:
        dense = mpo_to_dense(mpo_from_tensors(tensors))
        inputs = _Inputs.of(dense, samples if kind == "unitary" else 0, rng)
    deadline = Deadline(max_seconds)
    layers = np.cumsum([one if isinstance(one, int) else 1 for one in wanted])
    rows: list[DepthRow] = []
    before = None
    with bar(total=len(wanted), desc="depths", enabled=progbar) as shown:
        for one, ends in zip(wanted, layers / layers[-1], strict=True):
            if rows and (deadline.has_passed or rows[-1].compiled.status == "interrupted"):
                break
            own = deadline.part(float(ends))
            if isinstance(one, int):
                options: dict[str, Any] = {"seed": numbers[0]}
                options |= {"depth": one} if pattern is None else {"ansatz": pattern(one)}
                one = _compiled(compiler, target, options, before, own.part(COMPILE_SHARE))
                before = one
            rows.append(device.row(one, inputs))
            shown.update(depth=rows[-1].depth, estimate=rows[-1].estimate)
    return DepthChoice(backend_name(backend), tuple(rows), len(rows) == len(wanted))


# --- what is asked for


def _by_depth(
    depths: Sequence[int | Compiled], compiler: Callable[..., Compiled]
) -> tuple[list[int | Compiled], str]:
    """The depths and circuits in order, and whether they are of a unitary or a state."""
    if not isinstance(depths, Sequence):
        raise TypeError(f"depths={depths!r} is no list; give several numbers of layers")
    found: list[int | Compiled] = []
    for one in dict.fromkeys(depths):
        if isinstance(one, Compiled):
            found.append(one)
        elif not is_integer(one) or one < 1:
            raise ValueError(
                f"depths has {one!r}; give numbers of layers, 1 or more, or compiled circuits"
            )
        else:
            found.append(int(one))
    if not found:
        raise ValueError("depths is empty; give numbers of layers, or compiled circuits")
    kinds = {one.kind for one in found if isinstance(one, Compiled)}
    if any(isinstance(one, int) for one in found):
        base = compiler
        while isinstance(base, functools.partial):
            base = base.func
        kinds.add("state" if getattr(base, "__name__", "") == "compile_state" else "unitary")
    if len(kinds) > 1:
        raise ValueError("some circuits are compiled for a unitary and some for a state")
    found.sort(key=lambda one: one if isinstance(one, int) else one.circuit.ansatz.depth)
    return found, kinds.pop()


def _check(
    wanted: Sequence[int | Compiled],
    n: int,
    qubits: Sequence[int] | None,
    samples: int,
    trials: int,
    pattern: Callable[[int], Ansatz] | None,
) -> None:
    """A ValueError for sizes that do not fit each other, and options out of range."""
    sizes = {one.circuit.n for one in wanted if isinstance(one, Compiled)}
    if pattern is not None:
        sizes |= {pattern(one).n for one in wanted if isinstance(one, int)}
    if sizes - {n}:
        raise ValueError(f"the target has {n} qubits, the circuits {sorted(sizes)}")
    if qubits is not None and (len(qubits) != n or len(set(qubits)) != n):
        raise ValueError(f"qubits={tuple(qubits)} must be {n} different qubits, one for each wire")
    check_count("samples", samples, 0)
    if samples == 1:
        raise ValueError(f"samples={samples} must be 2 or more, or 0 for no simulation")
    check_count("trials", trials)


def _check_target(compiled: Compiled, tensors: list[np.ndarray]) -> None:
    """A ValueError for a circuit that was compiled for another target, by its infidelity."""
    task = CircuitTask(tensors, legs_of(tensors), compiled.circuit.ansatz)
    found = task.true_loss(compiled.circuit.gates, COMPARED_BOND)
    error = OTHER_TARGET + 3 * (found.infidelity_error + compiled.infidelity_error)
    if abs(found.infidelity - compiled.infidelity) > error:
        raise ValueError(
            f"the circuit of {compiled.circuit.ansatz.depth} layers was compiled for another "
            f"target: its infidelity is {compiled.infidelity:.3g}, but {found.infidelity:.3g} with "
            "this one; give the target that it was compiled for, or the number of its layers"
        )


def _model(backend: str | BackendV2, noise_model: NoiseModel | None) -> NoiseModel:
    if noise_model is None:
        noise_model = NoiseModel() if backend == "logical" else noise_of(backend)
    if noise_model.is_ideal():
        raise ValueError(
            f"the noise model of {backend_name(backend)} has no errors, so that the deepest "
            "circuit is the best; give noise_model=, or another device"
        )
    return noise_model


def _compiled(
    compiler: Callable[..., Compiled],
    target: Target,
    options: dict[str, Any],
    before: Compiled | None,
    deadline: Deadline,
) -> Compiled:
    """The circuit of a depth, not worse than that of a smaller depth, `before`."""
    if before is None:
        return compiler(target, max_seconds=deadline.left, **options)
    found = compiler(target, max_seconds=deadline.part(OWN_SHARE).left, **options)
    enough = isinstance(target, Evolution) and found.loss <= before.loss
    if enough or found.status == "interrupted":
        return found
    deeper = compiler(target, start=before, max_seconds=deadline.left, **options)
    return min(found, deeper, key=lambda one: one.loss)


# --- what the device does


def as_run(compiled: Compiled) -> QuantumCircuit:
    """The circuit in Qiskit; that of a state only acts on |0...0>, which saves CNOTs."""
    circuit = compiled.circuit
    return prepare_from_zero(circuit) if compiled.kind == "state" else to_qiskit(circuit)


@dataclass(frozen=True)
class _Inputs:
    """States on which a circuit acts, and what the target makes of them.

    Attributes
    ----------
    states : array (samples, 2^n) or None
        None: a single one, |0...0>.
    wanted : array (samples, 2^n)
    """

    states: np.ndarray | None
    wanted: np.ndarray

    @classmethod
    def of(cls, dense: np.ndarray, samples: int, rng: np.random.Generator) -> _Inputs:
        """Haar-random states for the target (rows act), or |0...0> for samples = 0."""
        if not samples:
            return cls(None, dense / np.linalg.norm(dense))
        shape = (samples, len(dense))
        states = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        return cls(states, states @ dense)


@dataclass(frozen=True)
class _Device:
    """Where circuits run, with the errors of its gates."""

    backend: str | BackendV2
    model: NoiseModel
    fidelities: dict[tuple[str, tuple[int, ...] | None], float]
    layout: list[int] | None
    optimization_level: int
    seeds: list[int]

    def row(self, compiled: Compiled, inputs: _Inputs | None) -> DepthRow:
        circuit, source = compiled.circuit, as_run(compiled)
        tried = [
            transpiled(
                source,
                self.backend,
                optimization_level=self.optimization_level,
                seed=seed,
                layout=self.layout,
            )
            for seed in self.seeds
        ]
        gates, job = max(
            ((self.fidelity(one), one) for one in tried),
            key=lambda found: (found[0], -found[1].num_nonlocal_gates()),
        )
        found = (math.nan, math.nan, math.nan)
        if inputs is not None:
            n = circuit.n
            zero = np.eye(1, 2**n)
            own = circuit.apply(zero if inputs.states is None else inputs.states)
            rhos = self.simulated(job, n, inputs.states)
            device, total = (
                np.array([np.vdot(x, rho @ x).real for rho, x in zip(rhos, states, strict=True)])
                for states in (own, inputs.wanted)
            )
            if inputs.states is None:
                found = (float(device[0]), float(total[0]), 0.0)
            else:
                # the mean over all inputs is known without noise, where samples differ as with it
                near = np.abs((own.conj() * inputs.wanted).sum(1)) ** 2
                mean = (2**n * (1.0 - compiled.infidelity) + 1) / (2**n + 1)
                total = total + gates * (mean - near)
                found = (_process(device, 2**n)[0], *_process(total, 2**n))
        return DepthRow(
            compiled=compiled,
            transpiled=job,
            cost=counted(job, backend_name(self.backend), self.optimization_level, circuit.n),
            approximation=1.0 - compiled.infidelity,
            gates=gates,
            device=found[0],
            total=found[1],
            total_error=found[2],
        )

    def fidelity(self, circuit: QuantumCircuit) -> float:
        """Product of the process fidelities of the gates of a transpiled circuit."""
        found = 1.0
        for item in circuit.data:
            name = item.operation.name
            wires = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
            found *= self.fidelities.get((name, wires), self.fidelities.get((name, None), 1.0))
        return found

    def simulated(
        self, circuit: QuantumCircuit, n: int, states: np.ndarray | None
    ) -> list[np.ndarray]:
        """Density matrices (2^n, 2^n) after the gates, for every input state."""
        simulator = AerSimulator(
            method="density_matrix", noise_model=self.model, max_parallel_threads=1
        )
        before, behind = (qubits_of(circuit, n, final=final) for final in (False, True))
        jobs = []
        for state in [None] if states is None else states:
            job = QuantumCircuit(circuit.num_qubits)
            if state is not None:  # by one gate that no noise model knows
                job.append(UnitaryGate(_with_first_column(state)), before)
            job.compose(circuit, inplace=True)
            job.append(SaveDensityMatrix(n), behind)
            jobs.append(job)
        answers = simulator.run(jobs).result()
        return [np.asarray(answers.data(k)["density_matrix"]) for k in range(len(jobs))]


def _gate_fidelities(model: NoiseModel) -> dict[tuple[str, tuple[int, ...] | None], float]:
    """Process fidelity of every gate with an error; qubits None: on all that are not listed."""
    # Aer has no public way to read the errors of a model as channels
    errors = {(name, None): error for name, error in model._default_quantum_errors.items()}
    for name, local in model._local_quantum_errors.items():
        errors |= {(name, tuple(wires)): error for wires, error in local.items()}
    return {
        key: float(process_fidelity(SuperOp(error)))
        for key, error in errors.items()
        if key[0] not in ("measure", "reset")
    }


def _with_first_column(state: np.ndarray) -> np.ndarray:
    """A unitary that takes |0...0> to a state."""
    rest = np.eye(len(state), dtype=complex)[:, 1:]
    q, r = np.linalg.qr(np.column_stack([state, rest]))
    return q * np.where(np.arange(len(state)) == 0, r[0, 0], 1.0)


def _process(found: np.ndarray, dimension: int) -> tuple[float, float]:
    """Process fidelity from fidelities of Haar-random inputs, and its standard error."""
    d = dimension
    error = (d + 1) / d * found.std(ddof=1) / math.sqrt(len(found))
    return float(((d + 1) * found.mean() - 1) / d), float(error)
