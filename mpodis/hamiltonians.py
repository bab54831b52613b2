"""Hamiltonians of neighbouring sites: their terms, in whatever form they are given.

Matrices act on kets, as in quimb and Qiskit, with wire 0 the most significant bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from mpodis.arguments import is_integer, plain_numbers
from mpodis.circuit.ansatz import LARGEST_CIRCUIT
from mpodis.conventions import to_numpy

__all__ = ["Terms", "as_terms", "bond_terms", "pauli_chain"]

Terms: TypeAlias = Any
"""A Hamiltonian as users give it, see `mpodis.evolution`."""

PAULI = {
    "I": np.eye(2, dtype=complex),
    "X": np.array([[0, 1], [1, 0]], dtype=complex),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1.0 + 0j, -1]),
}
HERMITIAN = 1e-10
"""Largest |h - h^H| that counts as rounding, relative to |h|."""


@plain_numbers
def pauli_chain(n: int, **couplings: float | Sequence[float]) -> dict[tuple[int, ...], np.ndarray]:
    """Terms of an open chain in Pauli matrices (not spin operators).

    Parameters
    ----------
    n : int
        Number of sites.
    **couplings : float or sequence of float
        By name: one Pauli matrix (``X=0.75``) on every site, two (``ZZ=1.0``, ``XY=0.1``) on
        every pair of neighbours, the first on the left site. A sequence has one number for every
        site (n) or pair (n - 1).

    Returns
    -------
    dict
        From wires (i,) to 2 x 2 and (i, i + 1) to 4 x 4 matrices, see `evolution`.

    Raises
    ------
    ValueError
        Names that are not Pauli matrices, sequences of another length, numbers that are not real
        and finite.

    Examples
    --------
    >>> terms = pauli_chain(50, ZZ=1.0, X=0.75, Z=0.6)  # H = sum ZZ + .75 X + .6 Z
    >>> len(terms), terms[0,].real
    (99, array([[ 0.6 ,  0.75],
           [ 0.75, -0.6 ]]))
    """
    if not is_integer(n) or n < 1:
        raise ValueError(f"n={n!r} must be a number of sites, 1 or more")
    if n > LARGEST_CIRCUIT:
        raise ValueError(f"n={n:,} is more than {LARGEST_CIRCUIT:,} sites; use fewer")
    terms: dict[tuple[int, ...], np.ndarray] = {}
    for name, coupling in couplings.items():
        if len(name) not in (1, 2) or not set(name) <= set("XYZ"):
            raise ValueError(
                f"{name} is not one Pauli matrix or two on neighbouring sites; "
                "write e.g. ZZ=1.0, XY=0.1 or X=0.75"
            )
        places = n + 1 - len(name)
        values = np.asarray(coupling)
        if values.ndim == 0:
            values = np.full(places, values)
        if values.shape != (places,):
            raise ValueError(
                f"{name} has shape {values.shape}; give one number, or {places} of them for a "
                f"chain of {n} sites"
            )
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise ValueError(f"{name}={coupling!r} must be real and finite")
        matrix = PAULI[name[0]] if len(name) == 1 else np.kron(PAULI[name[0]], PAULI[name[1]])
        for i, value in enumerate(values):
            wires = tuple(range(i, i + len(name)))
            terms[wires] = terms.get(wires, 0) + float(value) * matrix
    return dict(sorted(terms.items()))


def as_terms(terms: Terms, n: int | None = None) -> tuple[dict[tuple[int, ...], np.ndarray], int]:
    """Terms of any form as a mapping from ascending wires, and the number of sites.

    Raises
    ------
    TypeError
        If it is not a Hamiltonian.
    ValueError
        Terms on other than one or two neighbouring sites, of another shape, not Hermitian, not
        finite, or outside the n sites.
    """
    found: dict[tuple[int, ...], np.ndarray] = {}
    sites = 0
    for wires, matrix in _listed(terms):
        wires, matrix = _checked(wires, matrix)
        sites = max(sites, wires[-1] + 1)
        found[wires] = found.get(wires, 0) + matrix
    known = getattr(terms, "num_qubits", None) or getattr(terms, "L", None) or sites
    if n is not None and (not is_integer(n) or n < 1):
        raise ValueError(f"n={n!r} must be a number of sites, 1 or more")
    if n is None and not known:
        raise ValueError("there are no terms and so no sites; give n=")
    n = int(known if n is None else n)
    if n < known:
        raise ValueError(f"the terms act on {known} sites, more than n={n}")
    return dict(sorted(found.items())), n


def _listed(terms: Terms) -> list[tuple[Any, Any]]:
    """Pairs of wires and matrices; the libraries are recognised by what their objects have."""
    if isinstance(terms, Mapping):
        return list(terms.items())
    if hasattr(terms, "to_list") and hasattr(terms, "paulis"):  # Qiskit's SparsePauliOp
        return [_of_label(label, coefficient) for label, coefficient in terms.to_list()]
    if isinstance(getattr(terms, "terms", None), Mapping):  # quimb's LocalHam1D
        return list(terms.terms.items())
    raise TypeError(
        f"{type(terms).__name__} is not read as a Hamiltonian: give a mapping such as "
        "{(0,): X, (0, 1): ZZ}, `pauli_chain(n, ZZ=1.0, X=0.5)`, quimb's LocalHam1D or Qiskit's "
        "SparsePauliOp"
    )


def _of_label(label: str, coefficient: complex) -> tuple[tuple[int, ...], np.ndarray]:
    """A Pauli string of Qiskit, whose first letter is on the last qubit, which is our wire 0."""
    wires = [k for k, letter in enumerate(label) if letter != "I"] or [0]
    if len(wires) > 2 or wires[-1] - wires[0] > 1:
        raise ValueError(
            f"the term {label} of the SparsePauliOp does not act on one or two neighbouring "
            "sites; reorder the qubits, or give exp(-i t H) of few sites as a matrix"
        )
    matrix = np.array([[coefficient]])
    for wire in wires:
        matrix = np.kron(matrix, PAULI[label[wire]])
    return tuple(wires), matrix


def _checked(wires: Any, matrix: Any) -> tuple[tuple[int, ...], np.ndarray]:
    """Ascending wires of a term and its matrix, complex128."""
    given = wires
    wires = (wires,) if isinstance(wires, int | np.integer) else wires
    if not isinstance(wires, tuple) or not all(
        isinstance(wire, int | np.integer) and wire >= 0 for wire in wires
    ):
        raise ValueError(f"a term is on {given!r}; name its wires as (i,) or (i, i + 1)")
    wires = tuple(int(wire) for wire in wires)
    if len(wires) not in (1, 2) or (len(wires) == 2 and abs(wires[0] - wires[1]) != 1):
        raise ValueError(
            f"the term on wires {wires} does not act on one or two neighbouring sites of an open "
            "chain; reorder the sites, or give exp(-i t H) of few sites as a matrix"
        )
    array = np.asarray(to_numpy(matrix) if hasattr(matrix, "shape") else matrix)
    size = 2 ** len(wires)
    if array.shape != (size, size) or array.dtype.kind not in "biufc":
        raise ValueError(
            f"the term on wires {wires} has shape {array.shape}; give a {size} x {size} matrix"
        )
    array = array.astype(complex)
    if not np.isfinite(array).all():
        raise ValueError(f"the term on wires {wires} has NaN or infinite entries; replace them")
    off = np.linalg.norm(array - array.conj().T)
    if off > HERMITIAN * np.linalg.norm(array):
        raise ValueError(
            f"the term on wires {wires} is not Hermitian: |h - h^H| is {off:.3g}; give (h + h^H)/2"
        )
    if wires[0] > wires[-1]:
        array = array.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
        wires = wires[::-1]
    return wires, (array + array.conj().T) / 2


def bond_terms(terms: Mapping[tuple[int, ...], np.ndarray], n: int) -> list[np.ndarray]:
    """Terms of every bond; a field is shared by the two bonds of its site, equally."""
    eye = np.eye(2)
    bonds = [np.zeros((4, 4), complex) + terms.get((i, i + 1), 0) for i in range(n - 1)]
    for i in range(n):
        matrix = terms.get((i,))
        if matrix is None:
            continue
        share = 1.0 if i in (0, n - 1) else 0.5
        if i > 0:
            bonds[i - 1] += share * np.kron(eye, matrix)
        if i < n - 1:
            bonds[i] += share * np.kron(matrix, eye)
    return bonds
