"""Circuits for a given unitary: the same sweeps, with one circuit and the identity as the core."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpodis.arguments import check_count, check_number
from mpodis.circuit import Circuit, CircuitLike, as_ansatz
from mpodis.mpo import check_matrix
from mpodis.optimise.unitary import approximate_unitary
from mpodis.options import check_most_guesses
from mpodis.tables import Table, Tabular

__all__ = ["Synthesis", "check_unitary", "synthesise"]

ADVICE = {
    "exact": "the target is reproduced",
    "determinant": "the target's determinant is -1 and that of these circuits +1: no initial guess "
    "helps; gates as wide as the target with group='O' reach it",
    "converged": "no initial guess went further; more layers, or a larger n_init, may",
}


@dataclass(frozen=True, eq=False)
class Synthesis(Tabular):
    """Result of `synthesise`.

    Attributes
    ----------
    circuit : Circuit
    overlap : float
        f = Re Tr(W^H Q) / 2^n; 1 when Q is the target, sign and phase included.
    bound : float
        Upper bound on f: 1, or 1 - 2^(1-n) where the determinants differ.
    status : {"exact", "determinant", "converged"}
    n_init, sweeps : int
        Initial guesses and sweeps that were needed, ten L-BFGS iterations counting as a sweep.
    seconds : float
        Wall time.
    """

    circuit: Circuit
    overlap: float
    bound: float
    status: str
    n_init: int
    sweeps: int
    seconds: float

    def table(self) -> Table:
        rows = [
            ("circuit", str(self.circuit.ansatz)),
            ("overlap f", self.overlap),
            ("1 - f", 1.0 - self.overlap),
            ("bound", self.bound),
            ("n_init", self.n_init),
            ("sweeps", self.sweeps),
            ("seconds", self.seconds),
            ("status", self.status),
        ]
        return Table(("synthesis", ""), rows, notes=(ADVICE[self.status],))


def check_unitary(matrix, what: str) -> tuple[np.ndarray, int]:
    """The matrix as an array and the wires it acts on, or a ValueError that calls it `what`."""
    matrix = check_matrix(matrix)
    n = len(matrix).bit_length() - 1
    if n < 1 or matrix.shape != (2**n, 2**n):
        raise ValueError(
            f"the {what} has shape {matrix.shape}; circuits act on 2^n x 2^n with n of 1 or more"
        )
    off = np.abs(matrix @ matrix.conj().T - np.eye(2**n)).max()
    if off > 1e-6:
        raise ValueError(
            f"the {what} is not unitary: W W^H differs from 1 by {off:.3g}; `disentangle` it"
        )
    return matrix, n


def synthesise(
    target,
    circuit: CircuitLike,
    *,
    group: str = "SO",
    n_init: int = 20,
    max_sweeps: int = 400,
    tol: float = 1e-10,
    seed: int | Sequence[int] | np.random.Generator = 0,
) -> Synthesis:
    """The circuit of given places that is nearest to an orthogonal or unitary matrix.

    Sweeps of polar updates, handed over to Riemannian L-BFGS when they crawl, from the identity,
    from near it and from random gates, until one of them is exact.

    Parameters
    ----------
    target : array (2^n, 2^n) or Circuit
        W, in the row action.
    circuit : Ansatz, Circuit, quimb Circuit, int or str
        Placements of the gates (of a circuit nothing else counts), the depth of a brickwall of
        2-body gates, or a spec ("2b + CNOT").
    group : {"SO", "O", "U"}
        Of the gates, where `circuit` is not an `Ansatz`, which says it.
    n_init, max_sweeps : int
        The most initial guesses, and the most sweeps from each.
    tol : float
        1 - f at which the target counts as reproduced.
    seed : int, sequence of int, or numpy Generator

    Raises
    ------
    ValueError
        For a target that is not unitary, or a complex one with real gates.
    """
    began = time.perf_counter()
    if isinstance(target, Circuit):
        target = target.to_dense()
    target, n = check_unitary(target, "target")
    for name, value in (("n_init", n_init), ("max_sweeps", max_sweeps)):
        check_count(name, value)
    check_number("tol", tol, 0)
    check_most_guesses(n_init)
    ansatz = as_ansatz(circuit, n, group, "circuit")
    if ansatz.ties:
        raise ValueError("the gates are tied, which sweeps cannot keep; use an ansatz without ties")
    if ansatz.group != "U" and target.dtype.kind == "c":
        if np.abs(np.imag(target)).max() > 1e-12:
            raise ValueError("the target is complex; use group='U'")
        target = np.real(target)
    found = approximate_unitary(
        target, ansatz, n_init=n_init, max_sweeps=max_sweeps, tol=tol, seed=seed
    )
    if 1.0 - found.overlap <= tol:
        status = "exact"
    else:
        status = "converged" if found.bound == 1.0 else "determinant"
    seconds = time.perf_counter() - began
    return Synthesis(
        found.circuit, found.overlap, found.bound, status, found.n_init, found.sweeps, seconds
    )
