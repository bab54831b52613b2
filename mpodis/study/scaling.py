"""What the shipped studies of `scripts/studies` compute of operators and circuits.

Each function calls one function of the package, with the coordinates of the figures as arguments.
"""

from __future__ import annotations

from typing import Any

from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.measures import entanglement
from mpodis.mpo import Operator, as_compressed, as_mpo
from mpodis.optimise.result import Disentangled
from mpodis.sites import site_tensors

__all__ = ["disentangle_brickwalls", "operator_entropies"]


def disentangle_brickwalls(
    *,
    operator: Operator,
    depth: int = 4,
    width: int = 2,
    max_bond: int = 1,
    n_init: int = 1,
    max_sweeps: int = 60,
    seed: int = 0,
) -> Disentangled:
    """`mpodis.disentangle` with brickwalls of gates on `width` wires on both sides.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
    depth, width : int
        Of both circuits, see `brickwall`.
    max_bond, n_init, max_sweeps, seed
        See `mpodis.disentangle`; gates begin near the identity.

    Raises
    ------
    ValueError
        A depth or a width that the operator does not allow, and see `mpodis.disentangle`.

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis.study.scaling import disentangle_brickwalls
    >>> found = disentangle_brickwalls(operator=np.eye(8), depth=1, width=3)
    >>> round(found.overlap, 6), found.factorization.left.ansatz.placements[0].width
    (1.0, 3)
    """
    n = len(site_tensors(as_mpo(operator)))
    return disentangle(
        operator,
        left=brickwall(n, depth, width),
        max_bond=max_bond,
        init="identity",
        n_init=n_init,
        max_sweeps=max_sweeps,
        seed=seed,
    )


def operator_entropies(*, operator: Operator, n: int, family: str = "") -> dict[str, Any]:
    """Entropies (nats) of an operator, under a name and a number of qubits for figures.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
    n : int
        Qubits that it is to have.
    family : str
        What it is called in figures.

    Returns
    -------
    dict
        "s_avg", "s_max", "largest_bond", and "truncation_error", relative to the norm and 0 of an
        operator that was not truncated.

    Raises
    ------
    ValueError
        If the operator has another number of sites.

    Examples
    --------
    >>> from mpodis.study.scaling import operator_entropies
    >>> from mpodis.targets import random_mpo
    >>> found = operator_entropies(operator=random_mpo(6, 4), n=6)
    >>> found["largest_bond"], 0 < found["s_avg"] < found["s_max"] < 1.3863
    (4, True)
    """
    given = as_compressed(operator)
    sites = len(site_tensors(given.mpo))
    if sites != n:
        raise ValueError(f"the operator {family} has {sites} qubits, not n={n}")
    found = entanglement(given)
    return {
        "s_avg": found.average,
        "s_max": found.maximum,
        "largest_bond": max(found.bonds, default=1),
        "truncation_error": given.relative_error,
    }
