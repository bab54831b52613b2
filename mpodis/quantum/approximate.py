"""What Qiskit's own approximation saves at a given overlap: the baseline of a resynthesis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from qiskit import transpile
from qiskit.quantum_info import Operator

from mpodis.circuit.circuit import Circuit
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.cost import HardwareCost, gate_cost

__all__ = ["Approximated", "qiskit_approximation"]

STEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)
"""1 - approximation_degree that is tried, in units of `tol`, the coarsest first."""


@dataclass(frozen=True)
class Approximated:
    """A circuit as Qiskit approximates it.

    Attributes
    ----------
    cost : HardwareCost
    overlap : float
        Re Tr(U^H V) / 2^n with the circuit's unitary.
    degree : float
        Qiskit's `approximation_degree`; 1 is exact.
    """

    cost: HardwareCost
    overlap: float
    degree: float


def qiskit_approximation(
    circuit: Circuit, *, tol: float = 1e-3, seed: int | np.random.Generator = 0
) -> Approximated:
    """The fewest CNOTs of Qiskit's level 3 whose approximation holds the overlap to `tol`.

    Qiskit weighs gate by gate what a CNOT is worth (`approximation_degree`); several degrees are
    tried, the exact transpilation among them, and the whole is measured.

    Parameters
    ----------
    circuit : Circuit
        Small enough for its dense matrix.
    tol : float
        1 - f that is allowed.
    seed : int or numpy Generator
        Of the transpiler.

    Raises
    ------
    ValueError
        If `tol` is no number from 0 up to 1.
    """
    if not (isinstance(tol, int | float) and 0.0 <= tol < 1.0):
        raise ValueError(f"tol={tol!r} must be a number from 0 up to, not including, 1")
    device, number = to_qiskit(circuit), int(np.random.default_rng(seed).integers(2**31))
    wanted, found = Operator(device).data, []
    for step in STEPS:
        degree = 1.0 - step * tol
        near = transpile(
            device,
            basis_gates=["u", "cx"],
            optimization_level=3,
            approximation_degree=degree,
            seed_transpiler=number,
        )
        # the qubits that the transpiler exchanged are put back
        value = np.vdot(wanted, Operator.from_circuit(near).data).real / len(wanted)
        if step == 0.0 or value >= 1.0 - tol:
            cost = gate_cost(near, optimization_level=0, trials=1)
            found.append(Approximated(cost, float(value), degree))
    return min(found, key=lambda one: (one.cost.two_qubit, -one.overlap))
