"""What one inference costs on a device: encoding, circuit and readout, of both sides of a layer.

A layer runs as in `execute_layer`: Q_L on the device, the core classically, Q_R on the device.
Every setting of a `Readout` is a circuit of its own that ends in a change of basis, and the
interference that determines a sign takes one qubit more, with an encoding on that many qubits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.providers import BackendV2
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import Optimize1qGatesDecomposition

from mpodis.arguments import random_generator
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import Array
from mpodis.factorization import Factorization, check_factorization
from mpodis.progress import track
from mpodis.quantum.backends import LOGICAL, backend_name, find_backend, qubits_of
from mpodis.quantum.convert import composed, to_qiskit
from mpodis.quantum.gate_costs import HardwareCost, default_level, with_cost
from mpodis.quantum.readout import Measurement, Readout, find_readout
from mpodis.quantum.runners import BASIS_CHANGES
from mpodis.quantum.state_preparation import (
    Encoding,
    find_encoding,
    normalise,
    with_reference,
)
from mpodis.tables import Table, Tabular

__all__ = ["InferenceCost", "InferenceRow", "inference_cost"]


@dataclass(frozen=True)
class InferenceRow:
    """The circuits of one `Measurement` that one sample takes on one side.

    Attributes
    ----------
    side : {"left", "right"}
    purpose : str
        Of the measurement, for example "tomography", or "sign" for the interference that
        determines it.
    n_qubits : int
        The ancilla included, where there is one.
    fidelity : float
        Of the encoding; 1 where it is exact.
    circuits, shots : int
        Number of circuits, and of shots of all of them together.
    one_qubit : float
        Mean number of one-qubit gates of a circuit: they differ by their changes of basis.
    two_qubit, encoding_two_qubit : int
        Two-qubit gates of a circuit, and of its encoding alone.
    depth, two_qubit_depth : int
        Of the deepest circuit, measurements not counted.
    executed_one_qubit, executed_two_qubit : int
        Gates times shots, summed over the circuits.
    """

    side: str
    purpose: str
    n_qubits: int
    fidelity: float
    circuits: int
    shots: int
    one_qubit: float
    two_qubit: int
    encoding_two_qubit: int
    depth: int
    two_qubit_depth: int
    executed_one_qubit: int
    executed_two_qubit: int


@dataclass(frozen=True)
class InferenceCost(Tabular):
    """Cost of one inference; prints and shows itself as a table.

    Attributes
    ----------
    backend : str
    optimization_level : int
    encoding, readout : str
        As the objects print themselves.
    rows : tuple of InferenceRow
    """

    backend: str
    optimization_level: int
    encoding: str
    readout: str
    rows: tuple[InferenceRow, ...]

    @property
    def circuits(self) -> int:
        """Different circuits (settings) of both sides."""
        return sum(row.circuits for row in self.rows)

    @property
    def shots(self) -> int:
        """Shots of both sides."""
        return sum(row.shots for row in self.rows)

    @property
    def executed(self) -> tuple[int, int]:
        """One- and two-qubit gates that are executed, all shots together."""
        return (
            sum(row.executed_one_qubit for row in self.rows),
            sum(row.executed_two_qubit for row in self.rows),
        )

    def table(self) -> Table:
        columns = ("side", "purpose", "qubits", "fidelity", "circuits", "shots", "1q", "2q")
        columns += ("2q encoding", "depth", "2q depth", "1q executed", "2q executed")
        rows = [
            (
                row.side,
                row.purpose,
                row.n_qubits,
                row.fidelity,
                row.circuits,
                row.shots,
                row.one_qubit,
                row.two_qubit,
                row.encoding_two_qubit,
                row.depth,
                row.two_qubit_depth,
                row.executed_one_qubit,
                row.executed_two_qubit,
            )
            for row in self.rows
        ]
        total = ("both", "total", None, None, self.circuits, self.shots, *[None] * 5)
        return Table(
            columns,
            [*rows, (*total, *self.executed)],
            title=f"one inference on {self.backend}, level {self.optimization_level}: "
            f"{self.encoding}, {self.readout}",
            notes=(
                "1q, 2q, depth: of one circuit (1q the mean, depth the largest of all settings)",
                "executed: gates times shots",
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """The attributes and totals, ready for JSON."""
        one, two = self.executed
        return asdict(self) | {
            "circuits": self.circuits,
            "shots": self.shots,
            "executed_one_qubit": one,
            "executed_two_qubit": two,
        }


def inference_cost(
    factorization: Factorization,
    *,
    encoding: str | Encoding = "tree",
    readout: str | Readout = "interference",
    backend: str | BackendV2 = "logical",
    optimization_level: int | None = None,
    x: Array | None = None,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> InferenceCost:
    """Circuits, shots and gates that one sample takes through both sides of a layer.

    Parameters
    ----------
    factorization : Factorization
    encoding : Encoding, or the name of one
        How vectors are prepared; `ENCODINGS` has the names. All but `TreeEncoding`, which has one
        circuit for all real vectors, have a circuit of their own for every vector.
    readout : Readout, or the name of one
        `READOUTS` has the names, for the default number of shots.
    backend, optimization_level, trials, seed
        As in `gate_cost`.
    x : array (inputs,), optional
        The sample; default Gaussian. On the right the result of Q_L and the core is encoded.
    progbar : bool
        Show a progress bar.

    Returns
    -------
    InferenceCost

    Raises
    ------
    ValueError
        If an option is not known, x is not finite, has another shape or is zero (a zero vector is
        not run), an encoding or readout of real vectors meets complex ones, or the device is too
        small.

    Examples
    --------
    >>> import mpodis
    >>> mpo = mpodis.compress(np.eye(4), max_bond=2)
    >>> found = mpodis.disentangle(mpo, depth=1, max_sweeps=1)
    >>> cost = inference_cost(found.factorization, readout="tomography", trials=1)
    >>> cost.circuits, cost.shots
    (20, 22432)
    """
    encoding, readout = find_encoding(encoding), find_readout(readout)
    number = int(random_generator(seed).integers(2**31))
    tasks = [
        (side, circuit, vector, measurement)
        for side, circuit, vector in _sides(factorization, x, number)
        if circuit.n
        for measurement in readout.measurements(
            circuit.n, is_complex=circuit.is_complex or np.iscomplexobj(vector)
        )
    ]
    # a layer with one input and one output has nothing to run, and still a level
    level = default_level(backend) if optimization_level is None else optimization_level
    device = _Device(backend, level, trials, number)
    rows = [
        device.row(side, circuit, vector, measurement, encoding)
        for side, circuit, vector, measurement in track(tasks, desc="transpiling", enabled=progbar)
    ]
    return InferenceCost(backend_name(backend), level, repr(encoding), repr(readout), tuple(rows))


def _sides(
    factorization: Factorization, x: Array | None, seed: int
) -> Iterator[tuple[str, Circuit, np.ndarray]]:
    """Name, circuit and input unit vector of both sides."""
    check_factorization(factorization)
    inputs = factorization.shape[0]
    x = random_generator(seed).normal(size=inputs) if x is None else np.asarray(x)
    if x.shape != (inputs,) or not np.isfinite(x).all():
        raise ValueError(f"x of shape {x.shape} must be one finite sample of {inputs} inputs")
    padded = np.pad(x, (0, 2**factorization.left.n - inputs))[None]
    hidden = factorization.left.apply(padded) @ factorization.core_to_dense()
    for side, circuit, given in (
        ("left", factorization.left, padded),
        ("right", factorization.right, hidden),
    ):
        states, norms = normalise(given)
        if norms[0] == 0:
            raise ValueError(
                f"the input of the {side} circuit is a zero vector, which is not run; use another x"
            )
        yield side, circuit, states[0]


@dataclass(frozen=True)
class _Device:
    """Where circuits are counted, see `gate_cost`."""

    backend: str | BackendV2
    optimization_level: int
    trials: int
    seed: int

    def compiled(self, circuit: QuantumCircuit) -> tuple[QuantumCircuit, HardwareCost]:
        return with_cost(
            circuit,
            backend=self.backend,
            optimization_level=self.optimization_level,
            trials=self.trials,
            seed=self.seed,
        )

    def row(
        self,
        side: str,
        circuit: Circuit,
        vector: np.ndarray,
        measurement: Measurement,
        encoding: Encoding,
    ) -> InferenceRow:
        """Costs of one measurement of one vector after one circuit."""
        executed, states = to_qiskit(circuit), vector[None]
        if measurement.with_reference:
            executed, states = with_reference(executed, states)
        prepared = encoding.prepare(states)
        preparation, n = prepared.circuits[0], executed.num_qubits
        compiled, cost = self.compiled(composed(preparation, executed))
        added = _basis_changes(compiled, n, self.backend, merged=self.optimization_level > 0)
        levels = _levels(compiled, n)
        one_qubit = [
            cost.one_qubit + sum(added[k][basis] for k, basis in enumerate(bases))
            for bases in measurement.bases
        ]
        depth = max(
            levels[k] + added[k][basis]
            for bases in measurement.bases
            for k, basis in enumerate(bases)
        )
        circuits = len(measurement.bases)
        return InferenceRow(
            side=side,
            purpose=measurement.purpose,
            n_qubits=n,
            fidelity=float(prepared.fidelities[0]),
            circuits=circuits,
            shots=circuits * measurement.shots,
            one_qubit=sum(one_qubit) / circuits,
            two_qubit=cost.two_qubit,
            encoding_two_qubit=self.compiled(preparation)[1].two_qubit,
            depth=max(depth, cost.depth),
            two_qubit_depth=cost.two_qubit_depth,
            executed_one_qubit=sum(one_qubit) * measurement.shots,
            executed_two_qubit=cost.two_qubit * circuits * measurement.shots,
        )


def _basis_changes(
    compiled: QuantumCircuit, n: int, backend: str | BackendV2, *, merged: bool
) -> list[dict[str, int]]:
    """One-qubit gates that each change of basis adds to every qubit, the most significant first.

    They are merged with the one-qubit gates before them, unless nothing is optimised.
    """
    names = LOGICAL if backend == "logical" else find_backend(backend).operation_names
    merge = PassManager([Optimize1qGatesDecomposition(basis=list(names))])
    found = []
    for qubit in reversed(qubits_of(compiled, n)):
        tail = _tail(compiled, qubit) if merged else QuantumCircuit(1)
        counts = {}
        for basis, gates in BASIS_CHANGES.items():
            one = tail.copy()
            for gate in gates:
                one.append(gate, [0])
            counts[basis] = (merge.run(one).size() if gates else tail.size()) - tail.size()
        found.append(counts)
    return found


def _tail(compiled: QuantumCircuit, number: int) -> QuantumCircuit:
    """The one-qubit gates after a qubit's last other gate."""
    qubit, gates = compiled.qubits[number], []
    for item in reversed(compiled.data):
        if qubit in item.qubits:
            if len(item.qubits) > 1:
                break
            gates.append(item.operation)
    tail = QuantumCircuit(1)
    for gate in reversed(gates):
        tail.append(gate, [0])
    return tail


def _levels(compiled: QuantumCircuit, n: int) -> list[int]:
    """Longest chain of gates that ends on every qubit, the most significant first."""
    level = dict.fromkeys(compiled.qubits, 0)
    for item in compiled.data:
        reached = 1 + max(level[qubit] for qubit in item.qubits)
        level.update(dict.fromkeys(item.qubits, reached))
    return [level[compiled.qubits[qubit]] for qubit in reversed(qubits_of(compiled, n))]
