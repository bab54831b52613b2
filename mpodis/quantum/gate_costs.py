"""What a circuit costs on a device: gates and depth after transpilation.

Table 1 of arXiv 2509.06653v1 counts one gate, not a layer, on the two reference devices of
`mpodis.quantum.backends`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from qiskit import QuantumCircuit
from qiskit.providers import BackendV2

from mpodis.arguments import check_count, random_generator
from mpodis.circuit.circuit import Circuit
from mpodis.factorization import Factorization, check_factorization
from mpodis.progress import track
from mpodis.quantum.backends import BACKENDS, backend_name, transpiled
from mpodis.quantum.convert import to_qiskit, unitary_gate
from mpodis.tables import Table, Tabular

__all__ = [
    "CostTable",
    "HardwareCost",
    "cost_table",
    "counted",
    "default_level",
    "gate_cost",
    "in_sequence",
    "with_cost",
]


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
        Numbers of gates, the virtual rz included.
    depth, two_qubit_depth : int
        Longest chain of gates, and of two-qubit gates.
    gates : mapping
        Number of each gate by its Qiskit name.
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
    """Transpile and count gates, those of SWAPs that the device's connections need included.

    On the logical device, which connects all qubits, gates on distant wires need no SWAPs; for a
    line of qubits count ``routed_circuit(circuit)`` there, or give a backend that is one.

    Parameters
    ----------
    circuit : Circuit, QuantumCircuit or array (2^w, 2^w)
        An array is one gate in row action, its first wire the most significant.
    backend : {"logical", "FakeMontrealV2"} or BackendV2
        The device; "FakeMontrealV2" needs the optional extra ``mpodis[hardware]``.
    optimization_level : {0, 1, 2, 3}, optional
        Qiskit's; by default 1 on the logical device and 3 elsewhere.
    trials : int
        Layout and routing are random: of so many seeds the best one counts, by two-qubit gates,
        then by depth.
    seed : int or numpy Generator
        From which the transpiler's seeds are drawn.

    Returns
    -------
    HardwareCost

    Raises
    ------
    ImportError
        If "FakeMontrealV2" is wanted without qiskit-ibm-runtime.
    ValueError
        If the backend is unknown, too small or lacks gates, an option is out of range, or a gate is
        not unitary.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> gate_cost(random_circuit(brickwall(2, 1), seed=0)).two_qubit
    2
    """
    return with_cost(
        circuit, backend=backend, optimization_level=optimization_level, trials=trials, seed=seed
    )[1]


def with_cost(
    circuit: Circuit | QuantumCircuit | np.ndarray,
    *,
    backend: str | BackendV2 = "logical",
    optimization_level: int | None = None,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
) -> tuple[QuantumCircuit, HardwareCost]:
    """The transpiled circuit that `gate_cost` counts, and its cost."""
    check_count("trials", trials)
    if optimization_level not in (None, 0, 1, 2, 3):
        raise ValueError(f"optimization_level={optimization_level!r} must be 0, 1, 2 or 3")
    level = default_level(backend) if optimization_level is None else optimization_level
    source = _as_qiskit(circuit)
    name = backend_name(backend)
    found = []
    for each in random_generator(seed).integers(2**31, size=trials).tolist():
        compiled = transpiled(source, backend, optimization_level=level, seed=each)
        found.append((compiled, counted(compiled, name, level, source.num_qubits)))
    return min(found, key=lambda one: (one[1].two_qubit, one[1].depth))


def default_level(backend: str | BackendV2) -> int:
    """Qiskit's optimization level for a backend, unless one is given."""
    return 1 if backend == "logical" else 3


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

    The gate counted for a width is the first free one of the left circuit, else of the right one:
    a general SO(4) gate needs 2 CNOTs, one of determinant -1 or a complex one 3, the identity
    none. "one layer" is the first of the layers with the most gates on two and more wires. The two
    sides run one after the other, with the classical core between them, so "both sides" adds
    counts and depths.

    Parameters
    ----------
    factorization : Factorization
    backends, optimization_level, trials, seed
        As in `gate_cost`; every part is counted on each backend.
    progbar : bool
        Show a progress bar.

    Examples
    --------
    >>> import mpodis
    >>> mpo = mpodis.compress(np.eye(4), max_bond=2)
    >>> found = mpodis.disentangle(mpo, depth=1, max_sweeps=1)
    >>> costs = cost_table(found.factorization, backends=["logical"])
    >>> [part for part, _ in costs.rows][-3:]
    ['left circuit', 'right circuit', 'both sides']
    """
    check_factorization(factorization)
    left, right = factorization.left, factorization.right
    parts: dict[str, Circuit | np.ndarray] = {
        f"one {w}-qubit gate": gate for w, gate in _one_gate_per_width(left, right).items()
    }
    if left.ansatz.depth + right.ansatz.depth:
        parts["one layer"] = _one_layer(left, right)
    parts |= {"left circuit": left, "right circuit": right}
    tasks = [(part, circuit, backend) for part, circuit in parts.items() for backend in backends]
    rows = []
    for part, circuit, backend in track(tasks, desc="transpiling", enabled=progbar):
        cost = gate_cost(
            circuit,
            backend=backend,
            optimization_level=optimization_level,
            trials=trials,
            seed=seed,
        )
        rows.append((part, cost))
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
    if isinstance(circuit, Factorization):
        raise TypeError(
            "a Factorization has two circuits: count its .left or .right, or both by cost_table"
        )
    gate = unitary_gate(circuit)
    single = QuantumCircuit(gate.num_qubits)
    single.append(gate, range(gate.num_qubits))
    return single


def counted(circuit: QuantumCircuit, backend: str, level: int, n_qubits: int) -> HardwareCost:
    """The cost of a circuit as it is, which had `n_qubits` before it was transpiled."""
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
