"""What one inference costs on a device: encoding, circuit and readout, of both sides of a layer.

A layer runs as `hybrid_layer` runs it: Q_L on the device, the core classically, Q_R on the device.
What a readout measures, and on which circuits, is written in `mpodis.quantum.readout`: each of its
settings is a circuit of its own that ends in a change of basis, and the interference that fixes a
sign takes one qubit more, an encoding on that many qubits included.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit.library import StatePreparation
from qiskit.providers import BackendV2
from qiskit.transpiler import PassManager
from qiskit.transpiler.passes import Optimize1qGatesDecomposition

from mpodis.circuit.circuit import Circuit
from mpodis.encodings import brickwall_encodings, layered_encoding, mps_encoding
from mpodis.factorization import Factorization
from mpodis.progress import track
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.cost import LOGICAL, find_backend, transpiled
from mpodis.quantum.encode import AmplitudeTree, normalise, preparation
from mpodis.quantum.readout import Hypercube, Interference, Readout, Tomography
from mpodis.tables import Table, Tabular

__all__ = ["InferenceCost", "InferenceRow", "inference_cost"]

ENCODINGS = ("tree", "preparation", "mps", "layers", "bricks")

_BEFORE = {"Z": (), "X": ("h",), "Y": ("sdg", "h")}
"""Gates before a measurement in a basis, as in `readout.BASES`."""


@dataclass(frozen=True)
class InferenceRow:
    """Circuits of one kind that one sample takes on one side.

    Attributes
    ----------
    side : {"left", "right"}
    purpose : str
        "interference", "tomography", "hypercube", or "sign", the interference that fixes it.
    n_qubits : int
        With the ancilla, where there is one.
    fidelity : float
        Of the encoding: 1 but for truncated ones.
    circuits, shots : int
        Settings, and shots of all of them together.
    one_qubit : float
        Mean number of one-qubit gates of a circuit: settings differ by their changes of basis.
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
    """Cost of one inference; prints and shows itself as a table, `to_csv` writes it.

    Attributes
    ----------
    backend : str
    optimization_level : int
    encoding, readout : str
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

    def to_dict(self) -> dict[str, object]:
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
    encoding: str = "tree",
    readout: Readout | None = None,
    backend: str | BackendV2 = "logical",
    optimization_level: int | None = None,
    x=None,
    max_bond: int = 2,
    layers: int = 4,
    trials: int = 4,
    seed: int | np.random.Generator = 0,
    progbar: bool = False,
) -> InferenceCost:
    """Circuits, shots and gates that one sample takes through both sides of a layer.

    Parameters
    ----------
    factorization : Factorization
    encoding : {"tree", "preparation", "mps", "layers", "bricks"}
        `AmplitudeTree`, one parameterised circuit for all real vectors; Qiskit's
        `StatePreparation`, complex ones too; `mps_encoding` at `max_bond`; `layered_encoding` of
        so many `layers`; or `brickwall_encodings` of real vectors, as `NoisyRunner` and
        `DeviceRunner` use them. All but the tree are circuits of the vector that is encoded.
    readout : Readout, optional
        `Interference`, `Tomography` or `Hypercube`; default ``Interference(10_000)``.
    backend, optimization_level, trials, seed
        As in `gate_cost`.
    x : array (inputs,), optional
        The sample; default Gaussian. What is encoded on the right is what it becomes there.
    max_bond, layers : int
        Of the encodings of these names.
    progress : bool
        Show a progress bar.

    Returns
    -------
    InferenceCost

    Raises
    ------
    ValueError
        If an option is not known, x is not finite, of another shape or zero (it is not run), a
        real encoding or readout meets complex vectors, or the device is too small.
    TypeError
        If the readout is another one.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding={encoding!r} is not known; use one of {', '.join(ENCODINGS)}")
    readout = Interference() if readout is None else readout
    seed = int(np.random.default_rng(seed).integers(2**31))
    how = {"backend": backend, "optimization_level": optimization_level}
    how |= {"trials": trials, "seed": seed}
    tasks = [
        (side, circuit, vector, job)
        for side, circuit, vector in _sides(factorization, x, seed)
        if circuit.n
        for job in _measured(readout, circuit.n, circuit.is_complex or np.iscomplexobj(vector))
    ]
    rows = []
    # a layer of one number on either side has nothing to run, and still a level
    level = (1 if backend == "logical" else 3) if optimization_level is None else optimization_level
    name = backend if isinstance(backend, str) else backend.name
    for side, circuit, vector, job in track(tasks, desc="transpiling", enabled=progbar):
        if job.ancilla:
            vector = _with_reference(circuit, vector)
        prepared, fidelity = _encoded(encoding, vector, max_bond, layers)
        rows.append(_row(side, circuit, prepared, fidelity, job, how))
    return InferenceCost(
        name, level, _described(encoding, max_bond, layers), repr(readout), tuple(rows)
    )


@dataclass(frozen=True)
class _Job:
    """Settings of one kind: a basis for every qubit, the most significant first, and shots."""

    purpose: str
    bases: Sequence[str]
    shots: int  # of each setting
    ancilla: bool = False


def _measured(readout: Readout, n: int, is_complex: bool) -> list[_Job]:
    """What a readout measures of a vector on n qubits."""
    if not isinstance(readout, Interference | Tomography | Hypercube):
        raise TypeError(
            f"the circuits of {type(readout).__name__} are not known; use Interference, "
            "Tomography or Hypercube"
        )
    readout.settings(n, is_complex=is_complex)  # raises where it reads no complex vectors
    if isinstance(readout, Interference):
        return [_interference("interference", readout.shots, n, is_complex)]
    if isinstance(readout, Tomography):
        bases = ["".join(each) for each in itertools.product(_BEFORE, repeat=n)]
        jobs = [_Job("tomography", bases, readout.shots)]
    else:
        turned = ["Z" * k + "X" + "Z" * (n - 1 - k) for k in range(n)]
        jobs = [_Job("hypercube", ["Z" * n, *turned], readout.shots)]
    if readout.sign_shots:
        jobs.append(_interference("sign", readout.sign_shots, n, is_complex))
    return jobs


def _interference(purpose: str, shots: int, n: int, is_complex: bool) -> _Job:
    ancilla = ("X", "Y") if is_complex else ("X",)
    return _Job(purpose, [a + "Z" * n for a in ancilla], max(shots // len(ancilla), 1), True)


def _sides(factorization: Factorization, x, seed: int):
    """(name, circuit, unit vector that it is given) of both sides."""
    inputs = factorization.shape[0]
    x = np.random.default_rng(seed).normal(size=inputs) if x is None else np.asarray(x)
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
            raise ValueError(f"the {side} circuit is given a zero vector, which is not run")
        yield side, circuit, states[0]


def _with_reference(circuit: Circuit, vector: np.ndarray) -> np.ndarray:
    """(|0> Q^-1 r + |1> x) / sqrt(2), r flat; the circuit makes it (|0> r + |1> y) / sqrt(2)."""
    flat = np.full((1, 2**circuit.n), 2.0 ** (-circuit.n / 2))
    return np.concatenate([circuit.adjoint().apply(flat)[0], vector]) / 2**0.5


def _encoded(encoding: str, vector: np.ndarray, max_bond: int, layers: int):
    """A circuit that prepares the vector (once bound, if it is the tree), and its fidelity."""
    n = len(vector).bit_length() - 1
    if encoding in ("tree", "bricks") and np.iscomplexobj(vector):
        raise ValueError(
            f"the {encoding} prepare{'s' * (encoding == 'tree')} real vectors; "
            "use encoding='preparation', 'mps' or 'layers'"
        )
    if encoding == "tree":
        return AmplitudeTree(n).circuit, 1.0
    if encoding == "preparation":
        circuit = QuantumCircuit(n)
        circuit.append(StatePreparation(vector), range(n))
        return circuit, 1.0
    if encoding == "bricks" and n > 1:
        found = brickwall_encodings(vector[None], layers)[0]
        return preparation(found.circuit), found.fidelity
    if encoding == "mps" or n == 1:
        found = mps_encoding(vector, max_bond)
    else:
        found = layered_encoding(vector, layers)
    return to_qiskit(found.circuit), found.fidelity


def _described(encoding: str, max_bond: int, layers: int) -> str:
    words = {
        "mps": f"mps of bond {max_bond}",
        "layers": f"{layers} layers",
        "bricks": f"{layers} layers of bricks",
    }
    return words.get(encoding, encoding)


def _row(
    side: str,
    circuit: Circuit,
    prepared: QuantumCircuit,
    fidelity: float,
    job: _Job,
    how: dict,
) -> InferenceRow:
    n = prepared.num_qubits
    whole = prepared.compose(to_qiskit(circuit), qubits=range(circuit.n))
    compiled, cost = transpiled(whole, **how)
    added = _basis_changes(compiled, n, how["backend"], merged=cost.optimization_level > 0)
    levels = _levels(compiled, n)
    one_qubit = [
        cost.one_qubit + sum(added[k][basis] for k, basis in enumerate(bases))
        for bases in job.bases
    ]
    depth = max(levels[k] + added[k][basis] for bases in job.bases for k, basis in enumerate(bases))
    settings = len(job.bases)
    return InferenceRow(
        side=side,
        purpose=job.purpose,
        n_qubits=n,
        fidelity=fidelity,
        circuits=settings,
        shots=settings * job.shots,
        one_qubit=sum(one_qubit) / settings,
        two_qubit=cost.two_qubit,
        encoding_two_qubit=transpiled(prepared, **how)[1].two_qubit,
        depth=max(depth, cost.depth),
        two_qubit_depth=cost.two_qubit_depth,
        executed_one_qubit=sum(one_qubit) * job.shots,
        executed_two_qubit=cost.two_qubit * settings * job.shots,
    )


def _places(compiled: QuantumCircuit, n: int) -> list[int]:
    """Where the qubits end up, the most significant first."""
    layout = compiled.layout
    last = range(n) if layout is None else layout.final_index_layout(filter_ancillas=True)
    return [last[k] for k in reversed(range(n))]


def _basis_changes(
    compiled: QuantumCircuit, n: int, backend: str | BackendV2, *, merged: bool
) -> list[dict[str, int]]:
    """One-qubit gates that a change of basis adds to every qubit, the most significant first.

    Merged with the one-qubit gates before it, unless nothing is optimised.
    """
    if backend == "logical":
        merge = PassManager([Optimize1qGatesDecomposition(basis=LOGICAL)])
    else:
        names = find_backend(backend).operation_names
        merge = PassManager([Optimize1qGatesDecomposition(basis=list(names))])
    found = []
    for place in _places(compiled, n):
        tail = _tail(compiled, place) if merged else QuantumCircuit(1)
        counts = {}
        for basis, gates in _BEFORE.items():
            one = tail.copy()
            for gate in gates:
                getattr(one, gate)(0)
            counts[basis] = (merge.run(one).size() if gates else tail.size()) - tail.size()
        found.append(counts)
    return found


def _tail(compiled: QuantumCircuit, place: int) -> QuantumCircuit:
    """The one-qubit gates after a qubit's last other gate."""
    qubit, gates = compiled.qubits[place], []
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
    return [level[compiled.qubits[place]] for place in _places(compiled, n)]
