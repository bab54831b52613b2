"""Product formulas: Trotter circuits, and evolution operators as MPOs.

Everything here acts on kets, as in quimb and Qiskit: psi -> exp(-i t H) psi, with wire 0 the most
significant bit. A circuit C of `trotter` has ``C.to_dense() == U.T`` in the row action, so that
`mpodis.quantum.to_qiskit` and `mpodis.circuit_to_quimb` of it implement U.
"""

from __future__ import annotations

import logging
import math
import numbers
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.optimize

from mpodis.absorption import canonical_mpo, distance
from mpodis.arguments import check_count, is_number, plain_numbers
from mpodis.circuit import Circuit, brickwall
from mpodis.circuit.ansatz import check_depth
from mpodis.hamiltonians import Terms, as_terms, bond_terms
from mpodis.mpo import truncate
from mpodis.sites import bond_dimensions, mpo_from_tensors, site_tensors, spread_norm
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Evolution", "evolution", "trotter"]

log = logging.getLogger(__name__)

WINDOW = 5
"""Sites on which the parts of a fitted formula are found."""
RANDOM_STARTS = 12
"""Random formulas from which the search for a fitted one begins."""
MOST_STEPS = 10_000
"""Steps of a product formula, of ten layers each, up to which `evolution` goes."""
STALLED = 32
"""Steps from which on their number follows from one of them if the distance has not halved."""
NOISE = 1e-12
"""Distance of two evolutions that is rounding."""


@dataclass(frozen=True, eq=False)
class _Exponentials:
    """exp(-i x h) of every bond, from one diagonalisation.

    Attributes
    ----------
    n : int
    spectra : list of (eigenvalues, eigenvectors)
        Of every bond; of the one site of a chain without bonds.
    """

    n: int
    spectra: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, terms: Mapping[tuple[int, ...], np.ndarray], n: int) -> _Exponentials:
        pieces = bond_terms(terms, n) if n > 1 else [terms.get((0,), np.zeros((2, 2), complex))]
        return cls(n, [np.linalg.eigh(piece) for piece in pieces])

    def layer(self, parity: int, x: float) -> dict[int, np.ndarray]:
        """First wires and gates, on kets, of the bonds of a parity."""
        found = {}
        for i in range(parity, max(self.n - 1, 1), 2):
            values, vectors = self.spectra[i]
            found[i] = (vectors * np.exp(-1j * x * values)) @ vectors.conj().T
        return found


# A product formula is the tuple of the parts of t that its layers have: the bonds (0, 1), (2, 3) ..
# in the first layer, (1, 2), (3, 4) .. in the second, and so on.
_S = 1 / (4 - 4 ** (1 / 3))  # M. Suzuki, Phys. Lett. A 146, 319 (1990), Eq. 16
_BLANES_MOAN_HALF = (
    *(0.0792036964311957, 0.209515106613362, 0.353172906049774),
    *(-0.143851773179818, -0.0420650803577195, 0.434336666566456),
)
_STEPS: dict[int, tuple[float, ...]] = {
    1: (1.0, 1.0),
    2: (0.5, 1.0, 0.5),
    4: (
        *(_S / 2, _S, _S, _S, (1 - 3 * _S) / 2, 1 - 4 * _S),
        *((1 - 3 * _S) / 2, _S, _S, _S, _S / 2),
    ),
}
"""One step of the formula of every order."""
BLANES_MOAN = (*_BLANES_MOAN_HALF, 1 - 2 * sum(_BLANES_MOAN_HALF[::2]), *_BLANES_MOAN_HALF[::-1])
"""Fourth order with six stages and the smallest known error for its number of layers.

S. Blanes and P. C. Moan, J. Comput. Appl. Math. 142, 313 (2002), Table 2; compared with others in
arXiv 2211.02691.
"""


def repeated(step: Sequence[float], steps: int) -> tuple[float, ...]:
    """A formula of several equal steps; neighbouring layers on the same bonds are one."""
    parts = [part / steps for part in step]
    if len(parts) % 2 == 0:
        return tuple(parts * steps)
    found = parts[:]
    for _ in range(steps - 1):
        found[-1] += parts[0]
        found += parts[1:]
    return tuple(found)


@plain_numbers
def trotter(
    terms: Terms,
    t: float,
    order: int | str = 2,
    *,
    layers: int | None = None,
    steps: int | None = None,
    n: int | None = None,
) -> Circuit:
    """The Trotter circuit of exp(-i t H) for a Hamiltonian of neighbouring sites.

    Its ansatz is ``brickwall(n, layers, group="U")``: gates on (0, 1), (2, 3) .. in the first
    layer. The field of a site is shared by its two bonds, equally. r steps have 2 r layers in
    order 1, 2 r + 1 in order 2 and 10 r + 1 in order 4, as neighbouring layers on the same bonds
    are one. "fitted" has any number of layers: the part of t of every layer minimises 1 - f on the
    five sites in the middle. The search begins with the formulas of fixed order that have no more
    layers, and from 6 layers on with random ones, the same in every call.

    Parameters
    ----------
    terms : mapping, LocalHam1D or SparsePauliOp
        See `evolution`.
    t : float
        Time, in units of one over those of the terms.
    order : {1, 2, 4, "fitted"}
        1: one layer after the other. 2: the symmetric (Strang) formula. 4: Suzuki's.
    layers, steps : int
        Give one of them; "fitted" takes layers.
    n : int, optional
        Number of sites, where the last ones have no terms.

    Returns
    -------
    Circuit
        C in the row action: ``C.to_dense().T`` acts on kets and is near exp(-i t H).

    Raises
    ------
    ValueError
        A number of layers that the formula cannot have, a circuit of more than 100,000 gates, and
        see `evolution`.

    Examples
    --------
    >>> from mpodis import pauli_chain
    >>> print(trotter(pauli_chain(6, ZZ=1.0, X=0.75), 2.0, layers=5).ansatz)
    6 wires, 5 layers (4 x 1b, 13 x 2b), U
    """
    found, n = as_terms(terms, n)
    t = _time(t)
    if order == "fitted":
        if layers is None or steps is not None:
            raise TypeError("order='fitted' takes layers=, not steps=")
        check_count("layers", layers)
        check_depth(layers, n, 2, name="layers")
        return formula_circuit(found, t, _fitted_parts(found, t, layers, n), n)
    if order not in _STEPS:
        raise ValueError(f"order={order!r} is not known; use 1, 2, 4 or 'fitted'")
    if (layers is None) == (steps is None):
        raise TypeError("give either layers= or steps=")
    extra = len(_STEPS[order]) % 2
    per_step = len(_STEPS[order]) - extra
    if layers is not None:
        check_count("layers", layers)
        steps, rest = divmod(layers - extra, per_step)
        if rest or not steps:
            fits = [per_step * r + extra for r in sorted({max(1, steps), steps + 1})]
            raise ValueError(
                f"layers={layers} is no number of layers of order {order}, which has {per_step} "
                f"per step{' and one more' if extra else ''}; "
                f"use {' or '.join(map(str, fits))}, or order='fitted'"
            )
    assert steps is not None
    check_count("steps", steps)
    check_depth(per_step * steps + extra, n, 2, name="the number of layers")
    return formula_circuit(found, t, repeated(_STEPS[order], steps), n)


def formula_circuit(
    terms: Mapping[tuple[int, ...], np.ndarray], t: float, parts: Sequence[float], n: int
) -> Circuit:
    """The brickwall whose layer k is exp(-i parts[k] t H_k), H_k the bonds of its parity."""
    exponentials = _Exponentials.of(terms, n)
    ansatz = brickwall(n, len(parts), min(2, n), group="U")
    gates = []
    for k, (layer, part) in enumerate(zip(ansatz.layers, parts, strict=True)):
        found = exponentials.layer(k % 2, part * t)
        for place in layer:
            gate = found.get(place.wires[0])
            if gate is None or len(gate) != 2**place.width:
                gate = np.eye(2**place.width, dtype=complex)
            gates.append(gate.T.copy())
    return Circuit(ansatz, tuple(gates))


class _Splitting:
    """The distance of a product formula from exp(-i t H) on few sites, for least squares.

    Parameters
    ----------
    terms : dict
    t : float
    n : int
        Number of sites; arrays are (2^n, 2^n).
    """

    def __init__(self, terms: Mapping[tuple[int, ...], np.ndarray], t: float, n: int) -> None:
        bonds, size = bond_terms(terms, n), 2**n
        halves = [np.zeros((size, size), complex) for _ in range(2)]
        for i, bond in enumerate(bonds):
            rest = np.eye(2 ** (n - 2 - i))
            halves[i % 2] += np.kron(np.kron(np.eye(2**i), bond), rest)
        values, vectors = np.linalg.eigh(halves[0] + halves[1])
        self.exact = (vectors * np.exp(-1j * t * values)) @ vectors.conj().T
        spectra = [np.linalg.eigh(half) for half in halves]
        self.angles = [t * values for values, _ in spectra]
        self.bases = [vectors for _, vectors in spectra]
        # from the eigenbasis of one half into that of the other
        self.turns = [self.bases[1 - p].conj().T @ self.bases[p] for p in (0, 1)]
        self.scale = 1 / math.sqrt(2 * size)  # squares sum to 1 - f

    def _after(self, parts: np.ndarray) -> list[np.ndarray]:
        """The product of the first layers up to each, in the eigenbasis of its half."""
        x, found = self.bases[0].conj().T, []
        for k, part in enumerate(parts):
            x = np.exp(-1j * part * self.angles[k % 2])[:, None] * x
            found.append(x)
            x = self.turns[k % 2] @ x
        return found

    def residuals(self, parts: np.ndarray) -> np.ndarray:
        """Real numbers whose squares sum to 1 - f."""
        product = self.bases[(len(parts) - 1) % 2] @ self._after(parts)[-1]
        return self._flat(product - self.exact)

    def jacobian(self, parts: np.ndarray) -> np.ndarray:
        """Derivatives of the residuals by the parts, (residuals, layers)."""
        after, columns = self._after(parts), []
        rest = self.bases[(len(parts) - 1) % 2]  # the layers from each on
        for k in range(len(parts) - 1, -1, -1):
            angles = self.angles[k % 2]
            columns.append(self._flat((rest * (-1j * angles)) @ after[k]))
            rest = rest * np.exp(-1j * parts[k] * angles)
            rest = rest @ self.turns[(k - 1) % 2]
        return np.stack(columns[::-1], axis=1)

    def _flat(self, x: np.ndarray) -> np.ndarray:
        return self.scale * np.concatenate([np.real(x).reshape(-1), np.imag(x).reshape(-1)])


def _fitted_parts(
    terms: Mapping[tuple[int, ...], np.ndarray], t: float, layers: int, n: int
) -> tuple[float, ...]:
    """The parts of t of a number of layers that minimise 1 - f in the middle of the chain."""
    if n <= 2:
        return (1.0, *[0.0] * (layers - 1))
    first = max(0, (n - WINDOW) // 2)
    first -= first % 2  # the first layer is on the same bonds
    inside = {
        tuple(wire - first for wire in wires): matrix
        for wires, matrix in terms.items()
        if first <= wires[0] and wires[-1] < first + WINDOW
    }
    problem = _Splitting(inside, t, min(n, WINDOW))
    starts = []
    for step in (*_STEPS.values(), BLANES_MOAN):
        extra = len(step) % 2
        steps = (layers - extra) // (len(step) - extra)
        known = repeated(step, steps) if steps else (1.0,)
        starts.append(np.array([*known, *[0.0] * (layers - len(known))]))
    if layers >= 6:  # below, they find nothing else
        rng = np.random.default_rng(layers)
        for k in range(RANDOM_STARTS):
            start = 2 / layers + 0.25 * rng.normal(size=layers)
            starts.append((start + start[::-1]) / 2 if k % 2 else start)
    best, least = starts[0], math.inf
    for start in starts:
        found = scipy.optimize.least_squares(
            problem.residuals,
            start,
            problem.jacobian,  # type: ignore[arg-type]  # scipy's hints know names only
            method="lm",
            max_nfev=60,
            ftol=1e-6,
        )
        if found.cost < least:
            best, least = found.x, found.cost
    return tuple(float(part) for part in best)


def _time(t: Any) -> float:
    if not is_number(t):
        raise ValueError(f"t={t!r} must be a real and finite time")
    return float(t)


@dataclass(frozen=True, eq=False)
class Evolution(Tabular):
    """exp(-i t H) as an MPO, made by `evolution`.

    Attributes
    ----------
    mpo : quimb.tensor.MatrixProductOperator
        U on kets: ``mpo.to_dense()`` is near exp(-i t H). Its norm is that of a unitary.
    terms : dict
        The Hamiltonian, from wires (i,) and (i, i + 1) to Hermitian matrices.
    t : float
    n : int
        Number of sites.
    error : float
        Estimate of 1 - f with f = Re Tr(exp(-i t H)^H U) / 2^n, half the squared relative
        distance, 2 at most. An upper bound as far as the product formula is in its asymptotic
        regime.
    formula_error, truncation_error : float
        What 1 - f would be with an error of the product formula, or of truncation, alone. The
        distances add up: sqrt(error) = sqrt(formula_error) + sqrt(truncation_error), up to 2.
    steps, layers : int
        Steps of the formula, of fourth order, and its layers of gates.
    seconds : float
        Wall time.
    """

    mpo: MatrixProductOperator
    terms: dict[tuple[int, ...], np.ndarray]
    t: float
    n: int
    error: float
    formula_error: float
    truncation_error: float
    steps: int
    layers: int
    seconds: float

    @property
    def bonds(self) -> tuple[int, ...]:
        """Bond dimensions between neighbouring sites."""
        return bond_dimensions(site_tensors(self.mpo))

    def table(self) -> Table:
        """Sizes, errors and the product formula."""
        rows = [
            ("sites", self.n),
            ("t", self.t),
            ("1 - f, estimate", self.error),
            ("of the product formula", self.formula_error),
            ("of truncation", self.truncation_error),
            ("largest bond dimension", max(self.bonds, default=1)),
            ("product formula", f"order 4, {self.steps} steps, {self.layers} layers"),
            ("seconds", self.seconds),
        ]
        return Table(("evolution operator", ""), rows)


_FORMULA, _LAYERS, _LAST = 0.5, 0.2, 0.3
"""Parts of the distance that the formula, truncation along the way, and the last one may cause."""


@plain_numbers
def evolution(
    terms: Terms,
    t: float,
    *,
    error: float = 1e-10,
    max_bond: int | None = None,
    n: int | None = None,
) -> Evolution:
    """The evolution operator exp(-i t H) of a Hamiltonian of neighbouring sites as an MPO.

    A product formula of fourth order is absorbed from its middle layer outwards, on both sides of
    the MPO at once, and every bond is truncated by its discarded weight. The number of steps
    follows from evolutions over half the time with several numbers of steps, as the distance at
    most doubles over the whole time. The distances by truncation are added up, layer by layer.

    Parameters
    ----------
    terms : mapping, LocalHam1D or SparsePauliOp
        A mapping from wires (i,) to 2 x 2 and (i, i + 1) to 4 x 4 Hermitian matrices, wire i most
        significant, such as `pauli_chain` makes; quimb's ``LocalHam1D``; or Qiskit's
        ``SparsePauliOp``, whose qubit k is wire n - 1 - k.
    t : float
        Time, in units of one over those of the terms.
    error : float
        Largest 1 - f with f = Re Tr(exp(-i t H)^H U) / 2^n: half the squared distance, relative
        to the norm. Between 1e-20 and 1.
    max_bond : int, optional
        Largest bond dimension. Where it stops the error from being reached, a warning says so.
    n : int, optional
        Number of sites, where the last ones have no terms.

    Returns
    -------
    Evolution

    Raises
    ------
    TypeError
        If the terms are not a Hamiltonian.
    ValueError
        A term that reaches further than a neighbour, is not Hermitian or has another shape; a
        number out of its range.

    Examples
    --------
    >>> from mpodis import pauli_chain
    >>> found = evolution(pauli_chain(8, ZZ=1.0, X=0.75), 0.5, error=1e-8)
    >>> max(found.bonds), found.error < 1e-8
    (6, True)
    """
    began = time.perf_counter()
    checked, n = as_terms(terms, n)
    t = _time(t)
    if not isinstance(error, numbers.Real) or not 1e-20 <= error < 1:
        raise ValueError(f"error={error!r} must lie between 1e-20 and 1, in units of 1 - f")
    if max_bond is not None:
        check_count("max_bond", max_bond)
    goal = math.sqrt(2 * error)
    # what the last truncation takes away need not be taken away before
    working = None if max_bond is None else max_bond + max(8, max_bond // 2)
    task = _Task(_Exponentials.of(checked, n), goal * _LAYERS, working)
    steps, formula = task.steps(t, goal * _FORMULA)
    tensors, lost = task.evolved(t, steps)
    whole = mpo_from_tensors(tensors)
    cut = truncate(whole, rel_error=min(goal * _LAST, 0.5), max_bond=max_bond)
    truncation = lost + _after_projection(cut.relative_error**2)
    reached = _loss(formula + truncation)
    unit = site_tensors(cut.mpo)
    norm = math.sqrt(1 - cut.relative_error**2)
    unit = spread_norm(unit, n / 2 * math.log(2) - math.log(norm))
    found = Evolution(
        mpo_from_tensors(unit),
        checked,
        t,
        n,
        reached,
        _loss(formula),
        _loss(truncation),
        steps,
        len(repeated(BLANES_MOAN, steps)),
        time.perf_counter() - began,
    )
    if reached > error:
        warnings.warn(
            f"max_bond={max_bond} stops the error at {reached:.2g}, above error={error:.2g}; "
            "allow a larger bond or error, or a shorter time",
            stacklevel=2,
        )
    return found


def _check_steps(steps: int, t: float) -> None:
    """A ValueError for an evolution that takes longer than anybody waits."""
    if steps > MOST_STEPS:
        raise ValueError(
            f"t={t:g} takes more than {MOST_STEPS:,} steps of the product formula for these terms; "
            "evolve over a shorter time"
        )


def _loss(distance: float) -> float:
    """1 - f of two unitaries of a relative distance; more than 2 is not possible."""
    return min(distance, 2.0) ** 2 / 2


def _after_projection(lost: float) -> float:
    """Distance of a unit vector from its projection, made a unit vector, which loses a weight."""
    return 2 * math.sin(math.asin(math.sqrt(min(lost, 1.0))) / 2)


@dataclass
class _Task:
    """An evolution operator at several numbers of steps.

    Attributes
    ----------
    exponentials : _Exponentials
    truncation : float
        The distance that all truncations of one evolution together may cause.
    max_bond : int, optional
    is_full : bool
        Whether `max_bond` has truncated any of the evolutions more than that.
    """

    exponentials: _Exponentials
    truncation: float
    max_bond: int | None
    is_full: bool = False
    _known: dict[tuple[float, int], tuple[list[np.ndarray], float]] = field(default_factory=dict)

    def evolved(self, t: float, steps: int) -> tuple[list[np.ndarray], float]:
        """Site tensors of norm 1 of the formula, and the distance by truncation, a bound."""
        if (t, steps) not in self._known:
            self._known[t, steps] = self._evolved(t, steps)
        return self._known[t, steps]

    def _evolved(self, t: float, steps: int) -> tuple[list[np.ndarray], float]:
        n = self.exponentials.n
        parts = repeated(BLANES_MOAN, steps)
        middle = len(parts) // 2
        identity = [np.eye(2, dtype=complex).reshape(1, 2, 2, 1)] * n
        mpo = canonical_mpo(identity, max_bond=self.max_bond)
        per_layer = self.truncation / (middle + 1)
        lost = 0.0
        for k in range(middle, -1, -1):  # the formula is symmetric
            if mpo.is_full:  # what follows is a bound for exact Schmidt values alone
                self.is_full = True
                mpo = canonical_mpo(mpo.sites, max_bond=self.max_bond)
            gates = self.exponentials.layer(k % 2, parts[k] * t)
            for i, gate in gates.items():
                right = None if k == middle else gate
                mpo.absorb(i, left=gate, right=right, weight=per_layer**2 / len(gates))
            # orthogonal within a layer, but not from layer to layer
            lost += _after_projection(mpo.lost)
            mpo.lost = 0.0
        self.is_full |= mpo.is_full
        log.debug("evolution to t=%g, %d steps: bond %d", t, steps, max(map(len, mpo.weights)))
        return mpo.sites, lost

    def steps(self, t: float, goal: float) -> tuple[int, float]:
        """The least number of steps whose error stays below a distance, and that error."""
        r, before = 1, math.inf
        while True:
            near = distance(self.evolved(t / 2, r)[0], self.evolved(t / 2, 2 * r)[0])
            error = 2 * near / (2**4 - 1)  # of 4 r steps over the whole time
            needed = 4 * r * (error / goal) ** 0.25
            if self.is_full or (near > before / 2 and near >= goal and r >= STALLED):
                return self._steps_by_one(t, goal)  # truncation decides, or steps are too long
            if near < max(0.1, goal) and needed <= 8 * r:  # the order is known to hold from r on
                break
            r, before = 2 * r, near
            _check_steps(r, t)
        steps = max(2 * r, math.ceil(1.01 * needed))
        _check_steps(steps, t)
        return steps, error * (4 * r / steps) ** 4

    def _steps_by_one(self, t: float, goal: float) -> tuple[int, float]:
        """The same from a single step, which is hardly entangled: errors at most add up."""
        largest = max(np.abs(values).max() for values, _ in self.exponentials.spectra)
        r = max(1, math.ceil(abs(t) * largest))  # beyond, a step is in no asymptotic regime
        while True:
            _check_steps(r, t)
            one = _Task(self.exponentials, 0.01 * goal / r, None)
            near = distance(one.evolved(t / r, 1)[0], one.evolved(t / r, 2)[0])
            error = r * near * 2**4 / (2**4 - 1)
            steps = max(r, math.ceil(1.01 * r * (error / goal) ** 0.25))
            if steps <= 4 * r or near < NOISE:
                _check_steps(steps, t)
                return steps, error * (r / steps) ** 4
            r = 2 * r
