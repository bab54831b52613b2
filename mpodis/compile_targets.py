"""Targets of the compiler: unitaries and states of any library as site tensors.

A target acts on kets, psi -> U psi; its site tensors (left bond, input, output, right bond) are
those of the row action, x @ U^T, which a `Circuit` has. A state is an MPO of a single row: inputs
have dimension 1. What has many sites is never made dense.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from mpodis.absorption import absorbed
from mpodis.arrays import as_numpy, is_tensor, rounding_of
from mpodis.circuit import Circuit, circuit_from_quimb
from mpodis.conventions import Legs, split, to_numpy
from mpodis.sites import is_mpo, left_canonical, legs_of, site_tensors, spread_norm
from mpodis.time_evolution import Evolution

__all__ = ["LARGEST", "Target", "state_target", "unitary_target"]

Target: TypeAlias = Any
"""A unitary or a state in the form in which users have it."""

UNITARY = 1e-6
"""Largest change of random rows by U U^H of a dense unitary, relative to their largest entry.

Of a type that rounds more, four times its rounding error.
"""
UNITARY_MPO = 1e-2
"""Largest change of the squared norm of product states by the MPO of a unitary.

An MPO that was truncated at some 1 - f changes norms by about sqrt(8 (1 - f)); this is 1e-5.
"""
PROBES = 8
"""Random rows by which a dense unitary is checked, and product states for an MPO."""
ROUNDING = 1e-14
"""Imaginary parts below, relative to the largest element, are rounding; so are singular values."""
LARGEST = 13
"""Most wires of a dense unitary."""


def unitary_target(target: Target) -> list[np.ndarray]:
    """Site tensors of a unitary in the row action, of the norm of a unitary.

    Parameters
    ----------
    target : array, MPO, circuit, or Evolution
        - A dense array (2^n, 2^n) on kets, n up to 13, of numpy, torch or jax, or Qiskit's
          ``Operator``.
        - An MPO of quimb whose upper legs are rows (outputs), or another operator network of
          quimb: any on up to 13 sites, else one whose tensors are each on one site of a line.
        - A circuit of quimb, Qiskit or mpodis; of the last, the matrix ``to_dense().T``.
        - An `Evolution`.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        Dimensions that are no powers of two, entries that are not finite, what is not unitary.
    """
    if isinstance(target, Evolution):
        return _real([_transposed(tensor) for tensor in site_tensors(target.mpo)])
    circuit = _as_circuit(target)
    if circuit is not None:
        if circuit.n == 0:
            raise ValueError("the circuit has no wires; there is nothing to compile")
        identity = [np.eye(2).reshape(1, 2, 2, 1)] * circuit.n
        return _real(_normalised(absorbed(identity, circuit), circuit.n * math.log(2) / 2))
    name = type(target).__name__
    if hasattr(target, "upper_ind") and hasattr(target, "lower_ind"):
        target = _dense_unless_chain(target)
    if hasattr(target, "upper_ind"):
        alone = is_mpo(target) and target.num_tensors == len(list(target.gen_sites_present()))
        tensors = site_tensors(target) if alone else _chain(target, operator=True)
        tensors = [_transposed(to_numpy(tensor)) for tensor in tensors]
        _check_tensors(tensors, (2, 2), f"the {name}")
        _check_norms(tensors)
        return _real(_normalised(tensors, len(tensors) * math.log(2) / 2))
    matrix = _array(target, "a unitary", "a quimb MPO, a circuit, or `evolution(terms, t)`")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"the target has shape {matrix.shape}; a unitary on qubits is 2^n x 2^n")
    n = _qubits(len(matrix))
    if n > LARGEST:
        raise ValueError(
            f"the dense target has {n} qubits, more than {LARGEST}; give it as a quimb MPO"
        )
    _check_unitary(matrix, max(UNITARY, 4 * rounding_of(target)))
    tensors = _site_tensors(_without_zero_imaginary(matrix.T), ((2, 2),) * n)
    return _normalised(tensors, n * math.log(2) / 2)


def state_target(target: Target) -> list[np.ndarray]:
    """Site tensors with legs (1, 2) of a state, of norm 1.

    Parameters
    ----------
    target : array, MPS or circuit
        - 2^n amplitudes, wire 0 most significant, of numpy, torch or jax, or Qiskit's
          ``Statevector``. They need not be normalised.
        - An MPS of quimb, or another state network of quimb, as for `unitary_target`.
        - A circuit of quimb, Qiskit or mpodis: its action on |0...0>.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        Numbers of amplitudes that are no powers of two, entries that are not finite, zero states.
    """
    circuit = _as_circuit(target, state=True)
    if circuit is not None:
        if circuit.n == 0:
            raise ValueError("the circuit has no wires; there is nothing to compile")
        zero = [np.array([1.0, 0.0]).reshape(1, 1, 2, 1)] * circuit.n
        return _real(_normalised(absorbed(zero, circuit), 0.0))
    psi = getattr(target, "psi", target)  # quimb's CircuitMPS
    if hasattr(psi, "site_ind"):
        psi = _dense_unless_chain(psi)
    if hasattr(psi, "site_ind"):
        tensors = [to_numpy(tensor) for tensor in _chain(psi, operator=False)]
        _check_tensors(tensors, (1, 2), f"the {type(target).__name__}")
        if left_canonical(tensors)[1] == -math.inf:
            raise ValueError("the state is zero everywhere; there is nothing to prepare")
        return _real(_normalised(tensors, 0.0))
    vector = _array(psi, "a state", "a quimb MPS, or a circuit")
    if vector.ndim == 2 and 1 in vector.shape:
        vector = vector.reshape(-1)
    if vector.ndim != 1:
        raise ValueError(f"the target has shape {vector.shape}; a state has 2^n amplitudes")
    n = _qubits(vector.size)
    if not vector.any():
        raise ValueError("the state is zero everywhere; there is nothing to prepare")
    vector = _without_zero_imaginary(vector)
    tensors = _site_tensors(vector.reshape(1, -1), ((1, 2),) * n)
    return _normalised(tensors, 0.0)


def _site_tensors(matrix: np.ndarray, legs: Legs) -> list[np.ndarray]:
    """Site tensors of a dense matrix to rounding, by TT-SVD without right singular vectors.

    `compress` computes these vectors, which take most of its time.
    """
    matrix = matrix / np.abs(matrix).max()
    rest, tensors = split(matrix / np.linalg.norm(matrix), legs).reshape(1, -1), []
    for i, o in legs[:-1]:
        a = len(rest)
        rest = rest.reshape(a * i * o, -1)
        wide = rest.shape[1] > rest.shape[0]
        lower = np.asarray(np.linalg.qr(rest.conj().T, mode="r")).conj().T if wide else rest
        u, s, _ = np.linalg.svd(lower, full_matrices=False)
        u = u[:, : max(1, int((s > ROUNDING * s[0]).sum()))]
        tensors.append(u.reshape(a, i, o, -1))
        rest = u.conj().T @ rest
    return [*tensors, rest.reshape(len(rest), *legs[-1], 1)]


def _as_circuit(target: Target, *, state: bool = False) -> Circuit | None:
    """The circuit of any library as ours; None for what is not a circuit."""
    if isinstance(target, Circuit):
        return target
    library = type(target).__module__.partition(".")[0]
    if library == "qiskit" and hasattr(target, "find_bit"):  # a QuantumCircuit
        from mpodis.quantum.convert import from_qiskit

        return from_qiskit(target)
    if hasattr(target, "apply_gate_raw"):  # quimb's Circuit
        psi = target.psi
        if state and hasattr(psi, "left_canonize"):  # CircuitMPS has the state itself
            return None
        if state:
            _check_start(target)
        return circuit_from_quimb(target)
    return None


def _check_start(circuit: Any) -> None:
    """A ValueError if a circuit of quimb does not begin with |0...0>."""
    begin = [tensor for tensor in circuit.psi if "PSI0" in tensor.tags]
    if len(begin) != circuit.N or any(
        tensor.ndim != 1 or not np.array_equal(to_numpy(tensor.data), [1, 0]) for tensor in begin
    ):
        raise ValueError(
            "the quimb Circuit begins with another state than |0...0>, or has contracted its "
            "gates; give its state as a MatrixProductState"
        )


def _dense_unless_chain(network: Any) -> Any:
    """The network where it is a chain of sites, else its array, if it is small enough.

    A chain has tensors on one site each, and bonds between neighbours; those of an MPO may be
    periodic.
    """
    sites = list(network.gen_sites_present())
    number = {network.site_tag(site): k for k, site in enumerate(sites)}
    on = {
        tid: [number[tag] for tag in t.tags if tag in number]
        for tid, t in network.tensor_map.items()
    }
    steps = {0, 1}
    if is_mpo(network):
        steps.add(len(sites) - 1)
    if all(len(found) == 1 for found in on.values()) and all(
        abs(on[a][0] - on[b][0]) in steps
        for tids in network.ind_map.values()
        for a, b in itertools.combinations(tids, 2)
    ):
        return network
    if len(sites) > LARGEST:
        raise ValueError(
            f"the {type(network).__name__} of {len(sites)} sites has tensors on several sites, or "
            "bonds between sites that are no neighbours on an open line; give the quimb Circuit "
            "itself, an MPO or an MPS"
        )
    return network.to_dense()


def _chain(network: Any, *, operator: bool) -> list[Any]:
    """Site tensors of a quimb network of one tensor or more on each site of a line."""
    sites = list(network.gen_sites_present())
    parts = []
    for site in sites:
        part = network.select(network.site_tag(site))
        parts.append(part.contract(output_inds=part.outer_inds()))
    bonds = [tuple(sorted(set(a.inds) & set(b.inds))) for a, b in itertools.pairwise(parts)]
    tensors = []
    for k, (site, part) in enumerate(zip(sites, parts, strict=True)):
        left, right = bonds[k - 1] if k else (), bonds[k] if k < len(sites) - 1 else ()
        legs = (
            (network.upper_ind(site), network.lower_ind(site))
            if operator
            else (network.site_ind(site),)
        )
        if {*left, *legs, *right} != set(part.inds):
            strange = sorted(set(part.inds) ^ {*left, *legs, *right})
            raise ValueError(
                f"site {site} of the {type(network).__name__} has the indices {strange}, which "
                "lead to no neighbour on an open line; give an MPO, an MPS, or a dense array"
            )
        data = part.transpose(*left, *legs, *right).data
        a, b = (math.prod(part.ind_size(ix) for ix in side) for side in (left, right))
        dims = [part.ind_size(ix) for ix in legs]
        tensors.append(data.reshape((a, *([] if operator else [1]), *dims, b)))
    factor = 10.0 ** (float(network.exponent) / len(sites))
    return [tensor * factor for tensor in tensors]


def _array(target: Target, what: str, others: str) -> np.ndarray:
    """A dense array in double precision."""
    plain = isinstance(target, list | tuple | np.ndarray) or is_tensor(target)
    if not plain and not hasattr(target, "__array__"):
        raise TypeError(f"{type(target).__name__} is not read as {what}: give an array, {others}")
    # Qiskit's last qubit, most significant, is our wire 0
    array = as_numpy(target if plain else np.asarray(target), what="target")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {array.size} entries of the target are NaN or infinite; replace them"
        )
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _qubits(size: int) -> int:
    """Number of qubits of a dimension."""
    n = size.bit_length() - 1
    if n < 1 or size != 2**n:
        raise ValueError(
            f"the target has dimension {size}, which is no power of two from 2 on; pad it, or "
            "`disentangle` it"
        )
    return n


def _transposed(tensor: Any) -> np.ndarray:
    """The site tensor of the transpose."""
    return to_numpy(tensor).transpose(0, 2, 1, 3)


def _without_zero_imaginary(array: np.ndarray) -> np.ndarray:
    """The real part alone, where the imaginary one is rounding."""
    zero = ROUNDING * float(np.abs(array).max(initial=0.0))
    return np.real(array).copy() if (np.abs(np.imag(array)) <= zero).all() else array


def _real(tensors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Double precision; real tensors where every imaginary part is zero."""
    tensors = [_without_zero_imaginary(np.asarray(tensor)) for tensor in tensors]
    kind = np.result_type(np.float64, *tensors)
    return [np.ascontiguousarray(tensor, dtype=kind) for tensor in tensors]


def _normalised(tensors: Sequence[np.ndarray], log_norm: float) -> list[np.ndarray]:
    """The tensors with the norm exp(log_norm), spread over all sites."""
    return spread_norm(tensors, log_norm - left_canonical(tensors)[1])


def _check_tensors(tensors: Sequence[np.ndarray], leg: tuple[int, int], what: str) -> None:
    wrong = [k for k, found in enumerate(legs_of(tensors)) if found != leg]
    if wrong:
        raise ValueError(
            f"site {wrong[0]} of {what} has dimension {tensors[wrong[0]].shape[2]}, but circuits "
            "act on qubits, of dimension 2"
        )
    bad = sum(int((~np.isfinite(tensor)).sum()) for tensor in tensors)
    if bad:
        raise ValueError(f"{bad} entries of {what} are NaN or infinite; replace them")


def _check_unitary(matrix: np.ndarray, tol: float) -> None:
    """A ValueError unless U U^H is 1 to `tol`, by probes; by all elements where these differ."""
    rows = np.random.default_rng(0).normal(size=(PROBES, len(matrix)))
    with np.errstate(over="ignore", invalid="ignore"):  # then NaN, which is no unitary's
        if np.abs(rows @ matrix @ matrix.conj().T - rows).max() <= tol * np.abs(rows).max():
            return
        off = np.abs(matrix @ matrix.conj().T - np.eye(len(matrix))).max()
    if off <= tol:
        return
    size = f"differs from 1 by {off:.3g}" if np.isfinite(off) else "overflows"
    raise ValueError(
        f"the target is not unitary: U U^H {size}; `disentangle` is for general operators"
    )


def _check_norms(tensors: Sequence[np.ndarray]) -> None:
    """A ValueError unless the MPO keeps the norm of random product states."""
    rng = np.random.default_rng(0)
    off = 0.0
    for _ in range(PROBES):
        env = np.ones((1, 1))
        log = 0.0
        for tensor in tensors:
            x = rng.normal(size=2) + 1j * rng.normal(size=2)
            row = np.tensordot(tensor, x / np.linalg.norm(x), axes=(1, 0))  # (a, o, b)
            half = np.tensordot(env, row, axes=(0, 0))  # (a*, o, b)
            env = np.tensordot(half, row.conj(), axes=((0, 1), (0, 1)))  # (b, b*)
            size = float(np.abs(env).max())
            if size == 0.0:
                log = -math.inf
                break
            env, log = env / size, log + math.log(size)
        log += math.log(abs(env[0, 0].real)) if log > -math.inf else 0.0
        off = max(off, abs(math.expm1(min(log, 700.0))))
    if off > UNITARY_MPO:
        raise ValueError(
            f"the target is not unitary: it changes the squared norm of product states by up to "
            f"{off:.3g}; normalise it if it is a multiple of a unitary, or `disentangle` it"
        )
