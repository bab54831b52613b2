"""Devices: Qiskit's backends by name, and circuits transpiled for them.

Two reference devices have names. "logical" has any one-qubit gate (u), CNOT (cx) and all-to-all
connections; "FakeMontrealV2" is a snapshot of a 27-qubit IBM device with rz, sx, x, cx and sparse
connections, which is transpiled for offline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.providers import BackendV2
from qiskit.transpiler import TranspilerError
from qiskit_aer.noise import NoiseModel

from mpodis.arguments import check_count
from mpodis.quantum.convert import composed
from mpodis.quantum.state_preparation import Encoding, PreparedStates

__all__ = [
    "BACKENDS",
    "BATCH",
    "LOGICAL",
    "DeviceTranspiler",
    "backend_name",
    "check_size",
    "find_backend",
    "noise_of",
    "qubits_of",
    "transpiled",
]

BACKENDS = ("logical", "FakeMontrealV2")
"""Names of the reference devices."""

LOGICAL = ("u", "cx")
"""Gates of the logical device."""

BATCH = 50
"""Vectors whose circuits are sent to a device in one job."""


def find_backend(backend: str | BackendV2) -> BackendV2:
    """The backend itself, or the backend of a name other than "logical".

    Raises
    ------
    ImportError
        For "FakeMontrealV2" without qiskit-ibm-runtime.
    ValueError
        For an unknown name.
    """
    if isinstance(backend, BackendV2):
        return backend
    if backend != "FakeMontrealV2":
        raise ValueError(
            f"backend={backend!r} is not known; use one of {', '.join(BACKENDS)} "
            "or a Qiskit BackendV2 object"
        )
    return _fake_montreal()


def backend_name(backend: str | BackendV2) -> str:
    """The name of a backend."""
    return backend if isinstance(backend, str) else backend.name or type(backend).__name__


def check_size(n: int, backend: str | BackendV2) -> None:
    """Raise a ValueError if a device has fewer than n qubits."""
    if backend == "logical":
        return
    available = find_backend(backend).num_qubits  # None for a simulator without a limit
    if available is not None and n > available:
        raise ValueError(
            f"the circuit has {n} qubits and {backend_name(backend)} {available}; use a larger "
            "device"
        )


@cache
def _fake_montreal() -> BackendV2:
    try:
        from qiskit_ibm_runtime.fake_provider import FakeMontrealV2
    except ImportError as error:
        raise ImportError(
            'FakeMontrealV2 needs qiskit-ibm-runtime: pip install "mpodis[hardware]", '
            'or count on backend="logical" only'
        ) from error
    return FakeMontrealV2()


def noise_of(backend: str | BackendV2) -> NoiseModel:
    """The noise model with which a simulator was made, or that of a device's properties.

    Raises
    ------
    ImportError, ValueError
        As `find_backend`.
    """
    device = find_backend(backend)
    given = getattr(device.options, "noise_model", None)
    return _noise_of_device(device) if given is None else given


@lru_cache(maxsize=4)
def _noise_of_device(backend: BackendV2) -> NoiseModel:
    return NoiseModel.from_backend(backend)  # takes seconds for a device of 27 qubits


def transpiled(
    circuit: QuantumCircuit,
    backend: str | BackendV2,
    *,
    optimization_level: int,
    seed: int,
    layout: list[int] | None = None,
) -> QuantumCircuit:
    """One circuit transpiled for one device.

    Parameters
    ----------
    circuit : QuantumCircuit
    backend : {"logical", "FakeMontrealV2"} or BackendV2
    optimization_level : {0, 1, 2, 3}
        Qiskit's.
    seed : int
        Of layout and routing.
    layout : list of int, optional
        The device's qubits on which the circuit's are placed; otherwise Qiskit searches for them.

    Raises
    ------
    ImportError
        As `find_backend`.
    ValueError
        If the backend is not known, is too small, or lacks gates.
    """
    device = None if backend == "logical" else find_backend(backend)
    check_size(circuit.num_qubits, backend)
    try:
        return transpile(
            circuit,
            backend=device,
            basis_gates=list(LOGICAL) if device is None else None,
            initial_layout=layout,
            optimization_level=optimization_level,
            seed_transpiler=seed,
        )
    except TranspilerError as error:
        name = backend_name(backend)
        raise ValueError(f"{name} cannot run the circuit: {error.message}") from error


def qubits_of(circuit: QuantumCircuit, n: int, *, final: bool = True) -> list[int]:
    """The device's qubits that hold the first n of a transpiled circuit, after or before its gates.

    Parameters
    ----------
    circuit : QuantumCircuit
        As transpiled.
    n : int
        Qubits of the circuit before it was transpiled.
    final : bool
        After all gates; False: before.
    """
    layout = circuit.layout
    if layout is None:  # transpiled for all-to-all connections: nothing has moved
        return list(range(n))
    if final:
        return layout.final_index_layout(filter_ancillas=True)
    return layout.initial_index_layout(filter_ancillas=True)


@dataclass(frozen=True)
class DeviceTranspiler:
    """Transpiles circuits, together with the preparation of their inputs, for a device.

    Parameters
    ----------
    backend : str or BackendV2
    encoding : Encoding
        Prepares the inputs.
    trials : int
        Number of seeds that are tried for the layout, once; the fewest two-qubit gates win.
    optimization_level : {0, 1, 2, 3}
        Qiskit's.
    seed : int
        The first of the seeds.
    """

    backend: str | BackendV2
    encoding: Encoding
    trials: int
    optimization_level: int
    seed: int

    def __post_init__(self) -> None:
        check_count("trials", self.trials)

    def transpiled(
        self, circuit: QuantumCircuit, layout: list[int] | None = None
    ) -> QuantumCircuit:
        """The circuit on the given qubits, or on those that need the fewest two-qubit gates.

        Raises
        ------
        ValueError
            As the function `transpiled`.
        """
        tried = [
            transpiled(
                circuit,
                self.backend,
                optimization_level=self.optimization_level,
                seed=self.seed + k,
                layout=layout,
            )
            for k in range(self.trials if layout is None else 1)
        ]
        return min(tried, key=lambda one: one.num_nonlocal_gates())

    def batches(
        self, states: np.ndarray, circuits: Sequence[QuantumCircuit]
    ) -> Iterator[Iterator[list[QuantumCircuit]]]:
        """Every circuit after the preparation of every state, `BATCH` states at a time.

        Yields
        ------
        iterator of list of QuantumCircuit
            For every one of `circuits`, one transpiled circuit for each state of the batch.
        """
        n = states.shape[1].bit_length() - 1
        unbound: dict[int, QuantumCircuit] = {}  # transpiled once, its parameters still free
        layouts: dict[int, list[int]] = {}

        def after(prepared: PreparedStates, k: int) -> list[QuantumCircuit]:
            wholes = [composed(first, circuits[k]) for first in prepared.circuits]
            if prepared.parameters is not None:
                if k not in unbound:
                    unbound[k] = self.transpiled(wholes[0])
                return [unbound[k].assign_parameters(one) for one in prepared.parameters]
            if k not in layouts:
                layouts[k] = qubits_of(self.transpiled(wholes[0]), n, final=False)
            return [self.transpiled(whole, layouts[k]) for whole in wholes]

        for begin in range(0, len(states), BATCH):
            prepared = self.encoding.prepare(states[begin : begin + BATCH])
            yield map(partial(after, prepared), range(len(circuits)))
