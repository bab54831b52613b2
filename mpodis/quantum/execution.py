"""Circuits and layers executed vector by vector, on a device or on a simulator in its place."""

from __future__ import annotations

import logging

import numpy as np

from mpodis.circuit.circuit import Circuit
from mpodis.circuit.exchange import as_circuit
from mpodis.conventions import Array
from mpodis.factorization import Factorization, check_factorization
from mpodis.quantum.convert import to_qiskit
from mpodis.quantum.runners import Runner, StatevectorRunner
from mpodis.quantum.state_preparation import normalise

__all__ = ["execute_layer", "run_circuit"]

log = logging.getLogger(__name__)


def run_circuit(
    circuit: Circuit, x: Array, *, runner: Runner | None = None, progbar: bool = False
) -> np.ndarray:
    """``y = x @ Q``, executed once for each sample.

    With the default runner it equals ``circuit.apply(x)`` up to rounding.

    Parameters
    ----------
    circuit : Circuit
        Q, of n wires.
    x : array (samples, 2^n)
        Real or complex activations. States are normalised; the norms are multiplied back
        afterwards. Zero vectors are not run and give zeros.
    runner : Runner, optional
        `StatevectorRunner` by default.
    progbar : bool
        Show a progress bar.

    Returns
    -------
    array (samples, 2^n)
        float64 where Q and x are real, else complex128.

    Raises
    ------
    ValueError
        If x has another shape or is not finite, or a gate is not unitary.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> circuit = random_circuit(brickwall(2, 1), seed=0)
    >>> x = np.array([[1.0, 2.0, 0.0, -1.0]])
    >>> np.allclose(run_circuit(circuit, x), circuit.apply(x))
    True
    """
    circuit = as_circuit(circuit)
    x = _activations(x, 2**circuit.n, f"a circuit on {circuit.n} wires")
    runner = StatevectorRunner() if runner is None else runner
    states, norms = normalise(x)
    device = to_qiskit(circuit)
    y = np.zeros(x.shape, dtype=np.complex128)
    if circuit.n == 0:  # a side without qubits: Q = 1
        y[:] = x
    elif (run := norms > 0).any():
        _log_cost(runner, circuit.n, int(run.sum()), circuit.is_complex or np.iscomplexobj(x))
        y[run] = runner.run(device, states[run], progbar=progbar) * norms[run, None]
    return y if circuit.is_complex or np.iscomplexobj(x) else y.real


def execute_layer(
    factorization: Factorization,
    x: Array,
    *,
    runner: Runner | None = None,
    progbar: bool = False,
) -> np.ndarray:
    """Execute a factorised layer without its bias: circuits on a device, the core classically.

    ``y = x @ Q_L @ M' @ Q_R`` (Eqs. 1 and 7 of arXiv 2509.06653v1): x is zero-padded, Q_L runs on
    the device, the norm is restored, M' is applied, Q_R runs on the device, and the padding is
    cropped.

    Parameters
    ----------
    factorization : Factorization
        Of an (inputs, outputs) matrix.
    x : array (samples, inputs)
        Activations before the layer.
    runner : Runner, optional
        `StatevectorRunner` by default, which makes the result exact.
    progbar : bool
        Show a progress bar for each of the two circuits.

    Returns
    -------
    array (samples, outputs)

    Raises
    ------
    ValueError
        If x has another shape or is not finite, or a gate is not unitary.
    """
    check_factorization(factorization)
    inputs, outputs = factorization.shape
    x = _activations(x, inputs, f"a layer with {inputs} inputs")
    padded = np.pad(x, ((0, 0), (0, 2**factorization.left.n - inputs)))
    encoded = run_circuit(factorization.left, padded, runner=runner, progbar=progbar)
    hidden = encoded @ factorization.core_to_dense()
    decoded = run_circuit(factorization.right, hidden, runner=runner, progbar=progbar)
    return decoded[:, :outputs]


def _log_cost(runner: Runner, n: int, vectors: int, is_complex: bool) -> None:
    """Log the circuits and shots before they are run: on a device these are charged for."""
    circuits = runner.n_circuits(n, is_complex=is_complex)
    shots = runner.n_shots(n, is_complex=is_complex)
    log.info(
        "%s: %d vectors of %d qubits take %d circuits and %d shots",
        *(type(runner).__name__, vectors, n, vectors * circuits, vectors * shots),
    )


def _activations(x: Array, dimension: int, what: str) -> np.ndarray:
    """x as a finite float or complex array (samples, dimension), or a ValueError."""
    x = np.asarray(x)
    if x.ndim != 2 or x.shape[1] != dimension:
        raise ValueError(
            f"x has shape {x.shape}, but {what} takes (samples, {dimension}); "
            "put one sample in each row"
        )
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise ValueError(
            f"x holds NaN or infinite values, first in row {int(bad.argmax())}; "
            "check the layers before this one"
        )
    return x
