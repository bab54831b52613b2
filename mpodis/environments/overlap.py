"""The true overlap of a factorization at any size, with an estimate of its error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.routing import routed, routed_circuit
from mpodis.conventions import Legs, padded_shape, to_numpy
from mpodis.environments.arrays import SMALL_BOND, single_threaded
from mpodis.environments.boundary.engine import BoundaryEnvironments, middle_overlap
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.network.geometry import Network
from mpodis.environments.network.transverse import TransverseEnvironments, column_path
from mpodis.environments.protocol import core_norm
from mpodis.factorization import Factorization
from mpodis.mpo import Operator, as_mpo
from mpodis.sites import (
    bond_dimensions,
    left_canonical,
    mpo_from_tensors,
    site_tensors,
    spread_norm,
)

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["OverlapEstimate", "estimate_form", "to_mpo", "true_overlap"]

DENSE_DIMENSION = 2**9
"""Dimension up to which a dense product is the quickest exact way."""
TRANSVERSE_ENTRIES = 2**22
"""Entries that the largest boundary of a transverse contraction may have."""


@dataclass(frozen=True)
class OverlapEstimate:
    """An overlap measured independently of the engine that optimised it.

    Attributes
    ----------
    value : float
    error : float
        |value at D - value at D / 2| where the contraction was truncated, 0 where it was exact.
    method : {"dense", "transverse", "boundary"}
    max_bond : int or None
        D of a truncated contraction, None of an exact one.
    """

    value: float
    error: float
    method: str
    max_bond: int | None = None


def true_overlap(
    factorization: Factorization, operator: Operator, *, max_bond: int = 64
) -> OverlapEstimate:
    """f = Re Tr(M^H A) / (|M| |A|) of a factorization A with an operator M, at any size.

    Exact where a dense product or a transverse contraction is cheap. Otherwise target and core are
    pulled towards each other and meet in the middle of the circuits, as MPOs of bond dimension
    `max_bond`, and again at half of it for an estimate of the error.

    Parameters
    ----------
    factorization : Factorization
        A = Q_L M' Q_R, of numpy, torch or jax; computed with numpy.
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`, on the same legs.
    max_bond : int
        Bond dimension of a truncated contraction.

    Returns
    -------
    OverlapEstimate

    Raises
    ------
    ValueError
        The operator and the factorization have different legs, or `max_bond` is below 1.

    Examples
    --------
    >>> import numpy as np, mpodis
    >>> w = np.random.default_rng(0).normal(size=(16, 16))
    >>> found = mpodis.disentangle(w, depth=2, max_sweeps=3)
    >>> estimate = true_overlap(found.factorization, w)
    >>> estimate.method, estimate.error
    ('dense', 0.0)
    """
    if max_bond < 1:
        raise ValueError(f"max_bond={max_bond} keeps nothing; use 1 or more")
    factorization = factorization.to_numpy()
    tensors = [to_numpy(tensor) for tensor in site_tensors(as_mpo(operator))]
    if tuple(c.shape[1:3] for c in tensors) != factorization.legs:
        raise ValueError(
            f"the target has legs {tuple(c.shape[1:3] for c in tensors)}, the factorization "
            f"{factorization.legs}"
        )
    target, inner = (
        spread_norm(left_canonical(x)[0], 0.0) for x in (tensors, site_tensors(factorization.core))
    )
    left, right = factorization.left, factorization.right
    found = estimate_form(
        target,
        factorization.legs,
        (left.ansatz, right.ansatz),
        (left.gates, inner, right.gates),
        max_bond=max_bond,
    )
    size = core_norm(inner)
    return OverlapEstimate(found.value / size, found.error / size, found.method, found.max_bond)


def to_mpo(
    factorization: Factorization, *, max_bond: int = 256, cutoff: float = 1e-12
) -> MatrixProductOperator:
    """Q_L M' Q_R as an MPO, at any size: the core is pushed outward layer by layer.

    Parameters
    ----------
    factorization : Factorization
    max_bond : int
        Bond dimension to which it is truncated.
    cutoff : float
        Schmidt values below `cutoff` times the largest of their bond are dropped.

    Raises
    ------
    TypeError, ValueError
        Not a Factorization, or a `max_bond` below 1.

    Examples
    --------
    >>> import numpy as np, mpodis
    >>> w = np.random.default_rng(0).normal(size=(16, 16))
    >>> found = mpodis.disentangle(w, depth=2, max_sweeps=3)
    >>> mpo = to_mpo(found.factorization)
    >>> np.allclose(mpo.to_dense(), found.factorization.to_dense())
    True
    """
    if not isinstance(factorization, Factorization):
        raise TypeError(f"expected a Factorization, got {type(factorization).__name__}")
    factorization = factorization.to_numpy()
    core, log_norm = left_canonical(site_tensors(factorization.core))
    core = spread_norm(core, 0.0)
    # pulling through the adjoint circuits is pushing through these
    left, right = (
        routed_circuit(circuit).adjoint() for circuit in (factorization.left, factorization.right)
    )
    engine = BoundaryEnvironments(
        core,
        factorization.legs,
        left.ansatz,
        right.ansatz,
        max_bond=max_bond,
        cutoff=cutoff,
        truncation="svd",
    )
    engine.set(left.gates, core, right.gates)
    tensors, log_size = left_canonical(engine.pulled_tensors(max_bond))
    return mpo_from_tensors(spread_norm(tensors, log_size + log_norm))


def estimate_form(
    target: list[np.ndarray],
    legs: Legs,
    ansatze: tuple[Ansatz, Ansatz],
    parts: tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]],
    *,
    max_bond: int,
) -> OverlapEstimate:
    """h = Re Tr(G^H Q_L M' Q_R) for parts (left gates, core, right gates), see `true_overlap`."""
    left, core, right = parts
    routes = [routed(ansatz) for ansatz in ansatze]
    local = routes[0].ansatz, routes[1].ansatz
    routed_parts = routes[0].gates(left), core, routes[1].gates(right)
    if max(padded_shape(legs)) <= DENSE_DIMENSION:
        engine = DenseEnvironments(target, legs, *local)
        engine.set(*routed_parts)
        return OverlapEstimate(engine.inner(), 0.0, "dense")
    network = Network.of(legs, *ansatze)
    sizes = network.sizes(bond_dimensions(target), bond_dimensions(core))
    if column_path(network, sizes, limit=TRANSVERSE_ENTRIES) is not None:
        engine = TransverseEnvironments(target, legs, *ansatze)
        engine.set(left, core, right)
        return OverlapEstimate(engine.inner(), 0.0, "transverse")
    half = max(1, max_bond // 2)
    with single_threaded(max_bond <= SMALL_BOND):
        rough, fine = (
            middle_overlap(target, *routed_parts, legs, *local, max_bond=bond)
            for bond in (half, 2 * half)
        )
    return OverlapEstimate(fine, abs(fine - rough), "boundary", 2 * half)
