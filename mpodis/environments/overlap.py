"""True overlap and true loss of a factorization at any size, with an estimate of their errors."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.arguments import check_count, check_positive
from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.routing import routed, routed_circuit
from mpodis.conventions import Legs, padded_shape, to_numpy
from mpodis.environments.arrays import SMALL_BOND, Backend, single_threaded
from mpodis.environments.boundary.contraction import inner_product
from mpodis.environments.boundary.engine import (
    BoundaryEnvironments,
    meet_in_the_middle,
    middle_overlap,
)
from mpodis.environments.boundary.truncation import Boundary, Truncation
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.network.geometry import Network
from mpodis.environments.network.transverse import TransverseEnvironments, column_path
from mpodis.environments.protocol import core_norm
from mpodis.factorization import Factorization, check_factorization
from mpodis.mpo import Operator, as_mpo
from mpodis.sites import (
    bond_dimensions,
    direct_sum,
    left_canonical,
    mpo_from_tensors,
    site_tensors,
    spread_norm,
)

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = [
    "LossEstimate",
    "OverlapEstimate",
    "estimate_form",
    "estimate_loss",
    "to_mpo",
    "true_loss",
    "true_overlap",
]

DENSE_DIMENSION = 2**9
"""Dimension up to which a dense product is the quickest exact way."""
TRANSVERSE_ENTRIES = 2**22
"""Entries that the largest boundary of a transverse contraction may have."""
LEAST_CUTOFF = 1e-14
"""Schmidt values below are rounding."""
ROUNDING = 1e-14
"""Relative error of an MPO by rounding, after hundreds of gates."""


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
    target, inner, factorization = _comparable(factorization, operator, max_bond)
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


@dataclass(frozen=True)
class LossEstimate:
    """How far a factorization A is from its target M, without a difference of numbers near 1.

    With c = Tr(M^H A) / (|M| |A|), f = Re c.

    Attributes
    ----------
    loss : float
        1 - f, half the squared distance of M / |M| and A / |A|.
    up_to_phase : float
        1 - |c|, the loss of the best global phase.
    phase : float
        arg c in radians.
    truncation : float
        Norm of what was cut off from M / |M| and A / |A|, rounding included.
    max_bond : int
        Largest bond dimension of the two MPOs that were compared.

    Examples
    --------
    >>> found = LossEstimate(3e-9, 2e-9, 4.5e-5, 1e-14, 8)
    >>> f"{found.infidelity:.2e} {found.error:.0e} {found.distance:.2e}"
    '4.00e-09 8e-19 7.75e-05'
    """

    loss: float
    up_to_phase: float
    phase: float
    truncation: float
    max_bond: int

    @property
    def error(self) -> float:
        """Estimated error of `loss`."""
        return self._error(self.loss)

    @property
    def infidelity(self) -> float:
        """1 - |c|^2."""
        return self.up_to_phase * (2 - self.up_to_phase)

    @property
    def infidelity_error(self) -> float:
        """Estimated error of `infidelity`."""
        return 2 * self._error(self.up_to_phase)

    @property
    def distance(self) -> float:
        """Frobenius norm of M / |M| - A / |A|."""
        return math.sqrt(2 * self.loss)

    def _error(self, loss: float) -> float:
        """Of half the square of a distance that is wrong by `truncation`."""
        return self.truncation * (math.sqrt(2 * loss) + self.truncation / 2)


def true_loss(
    factorization: Factorization, operator: Operator, *, max_bond: int = 256, rtol: float = 1e-3
) -> LossEstimate:
    """1 - f of a factorization A with an operator M, precise where f is close to 1.

    Target and core are pulled towards each other and meet in the middle of the circuits, where
    the one MPO is subtracted from the other: 1 - f = |M / |M| - A / |A||^2 / 2. Schmidt values are
    kept down to where they no longer matter, so that `max_bond` is an upper limit.

    Parameters
    ----------
    factorization : Factorization
        A = Q_L M' Q_R, of numpy, torch or jax; computed with numpy in double precision.
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`, on the same legs.
    max_bond : int
        Largest bond dimension to which the MPOs are truncated.
    rtol : float
        Relative error of `loss` and `infidelity` at which to stop, as far as `max_bond` and
        rounding allow.

    Returns
    -------
    LossEstimate
        Also 1 - |c| and 1 - |c|^2 for circuits whose global phase is free.

    Raises
    ------
    ValueError
        The operator and the factorization have different legs, `max_bond` is below 1, or `rtol`
        is not positive.

    Examples
    --------
    >>> import numpy as np, mpodis
    >>> w = np.random.default_rng(0).normal(size=(16, 16))
    >>> found = mpodis.disentangle(w, depth=2, max_sweeps=3)
    >>> loss = true_loss(found.factorization, w).loss
    >>> abs(loss - (1 - true_overlap(found.factorization, w).value)) < 1e-12
    True
    """
    check_positive("rtol", rtol)
    target, core, factorization = _comparable(factorization, operator, max_bond)
    left, right = factorization.left, factorization.right
    return estimate_loss(
        target,
        factorization.legs,
        (left.ansatz, right.ansatz),
        (left.gates, core, right.gates),
        max_bond=max_bond,
        rtol=rtol,
    )


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
    check_factorization(factorization)
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


def _comparable(
    factorization: Factorization, operator: Operator, max_bond: int
) -> tuple[list[np.ndarray], list[np.ndarray], Factorization]:
    """Target and core as site tensors of norm 1, and the factorization in numpy; checked."""
    check_count("max_bond", max_bond)
    check_factorization(factorization)
    factorization = factorization.to_numpy()
    tensors = [to_numpy(tensor) for tensor in site_tensors(as_mpo(operator))]
    if tuple(c.shape[1:3] for c in tensors) != factorization.legs:
        raise ValueError(
            f"the target has legs {tuple(c.shape[1:3] for c in tensors)}, the factorization "
            f"{factorization.legs}"
        )
    target, core = (
        spread_norm(left_canonical(x)[0], 0.0) for x in (tensors, site_tensors(factorization.core))
    )
    return target, core, factorization


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


def estimate_loss(
    target: Sequence[np.ndarray],
    legs: Legs,
    ansatze: tuple[Ansatz, Ansatz],
    parts: tuple[Sequence[np.ndarray], Sequence[np.ndarray], Sequence[np.ndarray]],
    *,
    max_bond: int = 256,
    rtol: float = 1e-3,
) -> LossEstimate:
    """`true_loss` for parts (left gates, core, right gates); target and core of any norm."""
    left, core, right = parts
    routes = [routed(ansatz) for ansatz in ansatze]
    local = routes[0].ansatz, routes[1].ansatz
    routed_parts = routes[0].gates(left), core, routes[1].gates(right)
    cutoff = 1e-6
    with single_threaded(max_bond <= SMALL_BOND):
        while True:
            truncation = Truncation(max_bond, cutoff, "svd", Backend())
            pulled, pushed = meet_in_the_middle(list(target), routed_parts, legs, local, truncation)
            found = _difference(pulled, pushed, math.sqrt(truncation.discarded) + ROUNDING)
            if (
                found.infidelity_error <= rtol * found.infidelity
                or truncation.is_full
                or cutoff == LEAST_CUTOFF
            ):
                return found
            wanted = rtol * math.sqrt(found.infidelity) / 4  # of `truncation`, with some room
            cutoff *= min(0.1, wanted / found.truncation)
            cutoff = max(cutoff, LEAST_CUTOFF)


def _difference(pulled: Boundary, pushed: Boundary, truncation: float) -> LossEstimate:
    """The loss of two MPOs S and T, from the norm of S / |S| - exp(-i phase) T / |T|."""
    bond = max((1, *pulled.bonds, *pushed.bonds))
    overlap, _ = inner_product(pulled, pushed)
    (s, log_s), (t, log_t) = (left_canonical(x.sites) for x in (pulled, pushed))
    if overlap == 0 or -math.inf in (log_s, log_t):
        return LossEstimate(1.0, 1.0, 0.0, truncation, bond)
    if s[0].dtype.kind == "c":
        phase, turn = cmath.phase(overlap), (overlap / abs(overlap)).conjugate()
    else:
        phase, turn = (math.pi, -1.0) if overlap.real < 0 else (0.0, 1.0)
    t[0] = -turn * t[0]
    up_to_phase = math.exp(left_canonical(direct_sum(s, t))[1]) ** 2 / 2
    # 1 - |c| cos(phase)
    loss = up_to_phase * math.cos(phase) + 2 * math.sin(phase / 2) ** 2
    return LossEstimate(loss, up_to_phase, phase, truncation, bond)
