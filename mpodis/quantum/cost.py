"""What a circuit costs on a device: gates and depth after transpilation.

Two reference devices: "logical" has any one-qubit gate (u), CNOT (cx) and all-to-all connections;
"FakeMontrealV2" is a snapshot of a 27-qubit IBM device with rz, sx, x, cx and sparse connections,
transpiled offline. Table 1 of arXiv 2509.06653v1 counts one gate, not a layer, on the same two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.providers import BackendV2
from qiskit.transpiler import TranspilerError

from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization
from mpodis.progress import track
from mpodis.quantum.convert import to_qiskit, unitary_gate
from mpodis.tables import Table, Tabular

__all__ = ["BACKENDS", "CostTable", "HardwareCost", "cost_table", "gate_cost"]

BACKENDS = ("logical", "FakeMontrealV2")

LOGICAL = ["u", "cx"]
"""Gates of the logical device."""


@dataclass(frozen=True)
class HardwareCost:
    """Gates of a transpiled circuit; prints as one line.

    Attributes
    ----------
    backend : str
        "logical", or the name of the device.
    optimization_level : int
        Qiskit's, 0 to 3.
    n_qubits : int
        Qubits of the circuit before it was routed.
    one_qubit, two_qubit : int
        Number of gates, the virtual rz included.
    depth, two_qubit_depth : int
        Longest chain of gates, and of two-qubit gates.
    gates : mapping
        Count of each gate by its Qiskit name.
    """

    backend: str
    optimization_level: int
    n_qubits: int
    one_qubit: int
    two_qubit: int
    depth: int
    two_qubit_depth: int
    gates: Mapping[str, int] = field(hash=False)

    def __str__(self) -> str:
        return (
            f"{self.backend}, level {self.optimization_level}, {self.n_qubits} qubits: "
            f"{self.one_qubit:,} one-qubit and {self.two_qubit:,} two-qubit gates, "
            f"depth {self.depth:,} ({self.two_qubit_depth:,} of two-qubit gates)"
        )

    def to_dict(self) -> dict[str, object]:
        """The attributes, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CostTable(Tabular):
    """Costs of the parts of a factorised layer; prints and shows itself as a table.

    Attributes
    ----------
    rows : tuple of (part, HardwareCost)
    """

    rows: tuple[tuple[str, HardwareCost], ...]

    def table(self) -> Table:
        columns = ("part", "backend", "level", "qubits", "1-qubit", "2-qubit", "depth", "2q depth")
        cells = [
            (
                part,
                cost.backend,
                cost.optimization_level,
                cost.n_qubits,
                cost.one_qubit,
                cost.two_qubit,
                cost.depth,
                cost.two_qubit_depth,
            )
            for part, cost in self.rows
        ]
        return Table(columns, cells, title="Gates after transpilation")

    def to_dict(self) -> dict[str, object]:
        """The rows as dictionaries, ready for JSON."""
        return {"rows": [{"part": part, **cost.to_dict()} for part, cost in self.rows]}


def gate_cost(
    circuit: Circuit | QuantumCircuit | np.ndarray,
    *,
    backend: str | BackendV2 = "logical",
    optimization_level: int | None = None,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
) -> HardwareCost:
    """Transpile and count gates.

    Parameters
    ----------
    circuit : Circuit, QuantumCircuit or array (2^w, 2^w)
        An array is one gate in row action, first wire most significant.
    backend : {"logical", "FakeMontrealV2"} or BackendV2
        The device; "FakeMontrealV2" needs the optional extra ``mpodis[hardware]``.
    optimization_level : {0, 1, 2, 3}, optional
        Qiskit's; by default 1 on the logical device and 3 elsewhere.
    trials : int
        Layout and routing are random: the best of so many seeds counts, by two-qubit gates,
        then by depth.
    seed : int or Generator
        Where the transpiler's seeds come from.

    Returns
    -------
    HardwareCost

    Raises
    ------
    ImportError
        If "FakeMontrealV2" is asked for without qiskit-ibm-runtime.
    ValueError
        If the backend is unknown, too small or lacks gates, an option is out of range, or a gate is
        not unitary.
    """
    return transpiled(
        circuit, backend=backend, optimization_level=optimization_level, trials=trials, seed=seed
    )[1]


def transpiled(
    circuit: Circuit | QuantumCircuit | np.ndarray,
    *,
    backend: str | BackendV2 = "logical",
    optimization_level: int | None = None,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
) -> tuple[QuantumCircuit, HardwareCost]:
    """The circuit that `gate_cost` counts, and its cost."""
    if trials < 1:
        raise ValueError(f"trials={trials} must be at least 1")
    if optimization_level not in (None, 0, 1, 2, 3):
        raise ValueError(f"optimization_level={optimization_level!r} must be 0, 1, 2 or 3")
    logical = backend == "logical"
    if optimization_level is None:
        optimization_level = 1 if logical else 3
    source = _as_qiskit(circuit)
    if logical:
        name, device, basis = "logical", None, LOGICAL
    else:
        device, basis = find_backend(backend), None
        name = backend if isinstance(backend, str) else backend.name
        if source.num_qubits > device.num_qubits:
            raise ValueError(
                f"the circuit has {source.num_qubits} qubits and {name} {device.num_qubits}; "
                'use backend="logical" or a larger device'
            )
    seeds = np.random.default_rng(seed).integers(2**31, size=trials).tolist()
    found = []
    for each in seeds:
        try:
            compiled = transpile(
                source,
                backend=device,
                basis_gates=basis,
                optimization_level=optimization_level,
                seed_transpiler=each,
            )
        except TranspilerError as error:
            raise ValueError(f"{name} cannot run the circuit: {error.message}") from error
        found.append((compiled, _count(compiled, name, optimization_level, source.num_qubits)))
    return min(found, key=lambda one: (one[1].two_qubit, one[1].depth))


def cost_table(
    factorization: Factorization,
    *,
    backends: Sequence[str | BackendV2] = BACKENDS,
    optimization_level: int | None = None,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> CostTable:
    """Costs of a layer's circuits: one gate of each width, one layer, each side, and both sides.

    The gate counted for a width is the first free one, left before right, as found: a general
    SO(4) gate needs 2 CNOTs, one of determinant -1 or complex 3, the identity none. "one layer" is
    the first of those with the most gates of two wires and more, left before right. The two sides
    run one after the other, with the classical core between them, so "both sides" adds counts and
    depths.

    Parameters
    ----------
    factorization : Factorization
    backends, optimization_level, trials, seed
        As in `gate_cost`; every part is counted on each backend.
    progress : bool
        Show a progress bar.
    """
    left, right = factorization.left, factorization.right
    parts = {f"one {w}-qubit gate": gate for w, gate in _one_gate_per_width(left, right).items()}
    if left.ansatz.depth + right.ansatz.depth:
        parts["one layer"] = _one_layer(left, right)
    parts |= {"left circuit": left, "right circuit": right}
    tasks = [(part, circuit, backend) for part, circuit in parts.items() for backend in backends]
    how = {"optimization_level": optimization_level, "trials": trials, "seed": seed}
    rows = [
        (part, gate_cost(circuit, backend=backend, **how))
        for part, circuit, backend in track(tasks, desc="transpiling", enabled=progbar)
    ]
    sides = [cost for part, cost in rows if part.endswith("circuit")]
    for first, second in zip(sides[: len(backends)], sides[len(backends) :], strict=True):
        rows.append(("both sides", in_sequence(first, second)))
    return CostTable(tuple(rows))


def _one_gate_per_width(*circuits: Circuit) -> dict[int, np.ndarray]:
    first: dict[int, np.ndarray] = {}
    for circuit in circuits:
        for placement, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
            if placement.fixed is None:
                first.setdefault(len(placement.wires), gate)
    return dict(sorted(first.items()))


def _one_layer(*circuits: Circuit) -> Circuit:
    layers = []
    for circuit in circuits:
        gates = iter(circuit.gates)
        for layer in circuit.ansatz.layers:
            ansatz = replace(circuit.ansatz, layers=(layer,))
            layers.append(Circuit(ansatz, tuple(next(gates) for _ in layer)))
    return max(layers, key=lambda one: sum(p.width > 1 for p in one.ansatz.placements))


def _as_qiskit(circuit: Circuit | QuantumCircuit | np.ndarray) -> QuantumCircuit:
    if isinstance(circuit, QuantumCircuit):
        return circuit
    if isinstance(circuit, Circuit):
        return to_qiskit(circuit)
    gate = unitary_gate(circuit)
    single = QuantumCircuit(gate.num_qubits)
    single.append(gate, range(gate.num_qubits))
    return single


def find_backend(backend: str | BackendV2) -> BackendV2:
    """A backend, or that of a name."""
    if isinstance(backend, BackendV2):
        return backend
    if backend != "FakeMontrealV2":
        raise ValueError(
            f"backend={backend!r} is not known; use one of {', '.join(BACKENDS)} "
            "or a Qiskit BackendV2 object"
        )
    return _fake_montreal()


@cache
def _fake_montreal() -> BackendV2:
    try:
        from qiskit_ibm_runtime.fake_provider import FakeMontrealV2
    except ImportError as error:
        raise ImportError(
            "FakeMontrealV2 needs qiskit-ibm-runtime: pip install mpodis[hardware], "
            'or count on backend="logical" only'
        ) from error
    return FakeMontrealV2()


def _count(circuit: QuantumCircuit, backend: str, level: int, n_qubits: int) -> HardwareCost:
    widths = [instruction.operation.num_qubits for instruction in circuit.data]
    return HardwareCost(
        backend=backend,
        optimization_level=level,
        n_qubits=n_qubits,
        one_qubit=widths.count(1),
        two_qubit=widths.count(2),
        depth=circuit.depth(),
        two_qubit_depth=circuit.depth(lambda instruction: instruction.operation.num_qubits == 2),
        gates=dict(circuit.count_ops()),
    )


def in_sequence(first: HardwareCost, second: HardwareCost) -> HardwareCost:
    """Cost of two circuits run one after the other on the same backend."""
    names = [*first.gates, *(name for name in second.gates if name not in first.gates)]
    return HardwareCost(
        backend=first.backend,
        optimization_level=first.optimization_level,
        n_qubits=max(first.n_qubits, second.n_qubits),
        one_qubit=first.one_qubit + second.one_qubit,
        two_qubit=first.two_qubit + second.two_qubit,
        depth=first.depth + second.depth,
        two_qubit_depth=first.two_qubit_depth + second.two_qubit_depth,
        gates={name: first.gates.get(name, 0) + second.gates.get(name, 0) for name in names},
    )
