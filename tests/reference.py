"""Dense twins of the package in plain numpy, and the table of cases that the tests share.

Nothing here calls the package's numerics: operators are built entry by entry or by `numpy.kron`,
entropies by reshape and SVD, overlaps by the trace. Only "objects of the package", at the end,
knows the package: it lays out circuits with it and fills them with values that are drawn here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.spec import from_spec
from mpodis.measures import second_moment
from mpodis.structured import Reordering

TOL = {"float64": 1e-12, "complex128": 1e-12, "float32": 1e-5, "complex64": 1e-5}
"""Relative tolerance by dtype name, of what is exact but for rounding."""

CNOT = np.array([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


@dataclass(frozen=True)
class Case:
    """An operator and two circuits around it.

    `layers` names the layers of both circuits: a number for free gates that wide (narrower where
    the wires run out), "CNOT" for fixed ones. `start` is the parity of the first layer.
    """

    shape: tuple[int, int]
    group: str
    layers: tuple[int | str, ...]
    start: int = 0

    @property
    def complex(self) -> bool:
        return self.group == "U"

    @property
    def bits(self) -> tuple[int, int]:
        """Wires of the left and the right circuit."""
        p, q = (int(np.ceil(np.log2(d))) for d in self.shape)
        return p, q

    @property
    def legs(self) -> tuple[tuple[int, int], ...]:
        """Legs with the shorter side in the centre."""
        return centred_legs(*self.bits)

    def places(self, n: int) -> tuple[tuple[tuple[tuple[int, ...], str | None], ...], ...]:
        """(wires, name of a fixed gate or None) of every gate, layer by layer, on n wires."""
        parity, places = self.start, []
        for what in self.layers:
            width = 2 if what == "CNOT" else min(int(what), n)
            cuts = [0, *range(parity * (width // 2), n, width), n] if width else [0]
            cuts = sorted(set(cuts))
            pieces = [tuple(range(a, b)) for a, b in itertools.pairwise(cuts)]
            if what == "CNOT":
                layer = tuple((wires, "CNOT") for wires in pieces if len(wires) == 2)
            else:
                layer = tuple((wires, None) for wires in pieces)
            places.append(layer)
            parity = parity if what == 1 else 1 - parity
        return tuple(places)

    def __str__(self) -> str:
        layers = "+".join(str(what) for what in self.layers)
        return f"{self.shape[0]}x{self.shape[1]}-{self.group}-{layers}-{self.start}"


CASES = (
    Case((64, 64), "SO", (2, 2, 2)),
    Case((64, 64), "U", (3, 3), start=1),
    Case((64, 64), "SO", (1, "CNOT", 1, "CNOT", 2)),
    Case((64, 64), "O", (4, 4), start=1),
    Case((64, 10), "O", (2, 2, 2), start=1),
    Case((48, 64), "SO", (4, 2)),
    Case((48, 64), "U", ("CNOT", 2, "CNOT", 1)),
    Case((10, 64), "U", (2, 2)),
    Case((10, 64), "SO", (3, 3, 3)),
    Case((32, 32), "SO", (2, 2, 2), start=1),
    Case((8, 8), "U", (3,)),
    Case((1, 5), "SO", (2, 2)),
    Case((1, 5), "U", (1, "CNOT", 1)),
    Case((2, 2), "O", (1, 1)),
    Case((2, 2), "U", (1,)),
    Case((8, 1), "SO", (2, 2, 2)),
    Case((6, 16), "O", (2, "CNOT", 2)),
    Case((6, 16), "U", (3, 2), start=1),
)


def centred_legs(p, q):
    """Legs of an operator with p wires on the left and q on the right, the fewer in the centre."""
    n = max(p, q, 1)
    p0, q0 = (n - p) // 2, (n - q) // 2
    return tuple((2 if 0 <= i - p0 < p else 1, 2 if 0 <= i - q0 < q else 1) for i in range(n))


# --- random numbers


def random_matrix(shape, complex=False, seed=0):
    """Gaussian entries, variance 1 (real) or 2 (complex)."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=shape)
    return matrix + 1j * rng.normal(size=shape) if complex else matrix


def random_member(dimension, group, seed=0):
    """A Haar-like random member of SO(n), O(n) or U(n)."""
    q, r = np.linalg.qr(random_matrix((dimension, dimension), group == "U", seed))
    q = q * (np.diagonal(r) / np.abs(np.diagonal(r)))
    if group == "SO" and np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def random_cores(legs, bond, complex=False, seed=0):
    """Cores (left bond, input, output, right bond) with Gaussian entries."""
    rng = np.random.default_rng(seed)
    bonds = [1, *[bond] * (len(legs) - 1), 1]
    shapes = [(bonds[k], i, o, bonds[k + 1]) for k, (i, o) in enumerate(legs)]
    if complex:
        return [rng.normal(size=s) + 1j * rng.normal(size=s) for s in shapes]
    return [rng.normal(size=s) for s in shapes]


# --- dense twins


def dense_from_cores(cores):
    """The (rows, columns) matrix of cores, site 0 the most significant digit."""
    matrix = np.ones((1, 1, 1))
    for core in cores:
        _, inputs, outputs, right = core.shape
        rows, columns, _ = matrix.shape
        dtype = np.result_type(matrix, core)
        grown = np.zeros((rows * inputs, columns * outputs, right), dtype=dtype)
        for i in range(inputs):
            for o in range(outputs):
                grown[i::inputs, o::outputs] = matrix @ core[:, i, o]
        matrix = grown
    return matrix[..., 0]


def pad(matrix, rows, columns):
    """Zeros below and to the right."""
    padded = np.zeros((rows, columns), dtype=matrix.dtype)
    padded[: matrix.shape[0], : matrix.shape[1]] = matrix
    return padded


def embed(gate, wires, n):
    """A gate on some wires of n as a (2^n, 2^n) matrix, entry by entry; any order of wires."""
    full = np.zeros((2**n, 2**n), dtype=gate.dtype)
    rows = np.arange(2**n)
    shifts = [n - 1 - k for k in wires]
    inner_rows, others = 0, rows
    for shift in shifts:
        inner_rows = 2 * inner_rows + (rows >> shift & 1)
        others = others & ~(1 << shift)
    for inner_column, bits in enumerate(itertools.product((0, 1), repeat=len(shifts))):
        columns = others + sum(bit << shift for bit, shift in zip(bits, shifts, strict=True))
        full[rows, columns] = gate[inner_rows, inner_column]
    return full


def circuit_matrix(circuit):
    """G_0 G_1 ... of a circuit, each gate embedded."""
    matrix = np.eye(2**circuit.n)
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        matrix = matrix @ embed(np.asarray(gate), place.wires, circuit.n)
    return matrix


def inner(a, b):
    """Re Tr(A^H B)."""
    return float(np.vdot(a, b).real)


def overlap(a, b):
    """Re Tr(A^H B) / (|A| |B|)."""
    norms = np.sqrt((np.abs(a) ** 2).sum() * (np.abs(b) ** 2).sum())
    return float(np.trace(a.conj().T @ b).real / norms)


def relative_error(a, b):
    """|A - B| / |A| (Frobenius)."""
    return float(np.sqrt((np.abs(a - b) ** 2).sum() / (np.abs(a) ** 2).sum()))


def spectra(matrix, legs):
    """Normalised singular values of every cut between the sites of a (rows, columns) matrix."""
    rows, columns = [i for i, _ in legs], [o for _, o in legs]
    found = []
    for k in range(1, len(legs)):
        r, c = int(np.prod(rows[:k])), int(np.prod(columns[:k]))
        blocks = matrix.reshape(r, matrix.shape[0] // r, c, matrix.shape[1] // c)
        cut = np.einsum("rRcC->rcRC", blocks).reshape(r * c, -1)
        values = np.linalg.svd(cut, compute_uv=False)
        found.append(values / np.sqrt((values**2).sum()))
    return found


def entropies(matrix, legs):
    """Entanglement entropies (nats) of every cut."""
    result = []
    for values in spectra(matrix, legs):
        p = values[values > 0] ** 2
        result.append(-(p * np.log(p)).sum())
    return np.array(result)


def weighted_distance(target, matrix, metric=None):
    """Tr(D^H C D) / Tr(T^H C T) with D the difference and C the metric."""
    metric = np.eye(len(target)) if metric is None else metric
    d = target - matrix
    weight = np.trace(target.conj().T @ metric @ target).real
    return float(np.trace(d.conj().T @ metric @ d).real / weight)


def finite_difference(function, x, direction, step=1e-6):
    """Central difference of a real function along a direction, (f(x+hd) - f(x-hd)) / 2h."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


# --- objects of the package


def _filled(ansatz: Ansatz, seed: int) -> Circuit:
    """A circuit with random gates."""
    dtype = complex if ansatz.group == "U" else float
    gates = []
    for t, layer in enumerate(ansatz.layers):
        for wires, fixed in ((place.wires, place.fixed) for place in layer):
            one = CNOT if fixed else random_member(2 ** len(wires), ansatz.group, (seed, t, *wires))
            gates.append(one.astype(dtype))
    return Circuit(ansatz, tuple(gates))


def build_circuit(case: Case, side: str, seed: int = 0) -> Circuit:
    """A circuit with random gates on the places of a case, "left" or "right"."""
    n = case.bits[0 if side == "left" else 1]
    layers = tuple(tuple(itertools.starmap(Placement, layer)) for layer in case.places(n))
    return _filled(Ansatz(n, layers, case.group), seed)


def problem(case: Case, *, bond: int = 2, seed: int = 0):
    """(target, left circuit, cores of bond dimension `bond`, right circuit) of a case.

    The target is a padded dense matrix, zero outside the case's shape.
    """
    rows, columns = 2 ** case.bits[0], 2 ** case.bits[1]
    target = pad(random_matrix(case.shape, case.complex, (seed, 1)), rows, columns)
    cores = random_cores(case.legs, bond, case.complex, (seed, 2))
    return (
        target,
        build_circuit(case, "left", 3 + 10 * seed),
        cores,
        build_circuit(case, "right", 4 + 10 * seed),
    )


def free(circuit: Circuit) -> list[int]:
    """Numbers of the gates that are no fixed ones."""
    return [j for j, place in enumerate(circuit.ansatz.placements) if place.fixed is None]


@dataclass(frozen=True, eq=False)
class Setup:
    """What an engine of environments is given."""

    target: np.ndarray
    legs: tuple[tuple[int, int], ...]
    left: Circuit
    cores: list
    right: Circuit

    @property
    def scale(self) -> float:
        """Size of the numbers, against which rounding is measured."""
        return np.linalg.norm(self.target) * np.linalg.norm(dense_from_cores(self.cores))

    @property
    def is_complex(self) -> bool:
        arrays = (self.target, *self.left.gates, *self.cores, *self.right.gates)
        return any(array.dtype.kind == "c" for array in arrays)

    @cached_property
    def pulled(self) -> np.ndarray:
        """Q_L^H G Q_R^H."""
        left, right = circuit_matrix(self.left), circuit_matrix(self.right)
        return left.conj().T @ self.target @ right.conj().T

    def engine(self, kind, **options):
        """An engine of a class, put at the gates and the core."""
        engine = kind(self.target, self.legs, self.left.ansatz, self.right.ansatz, **options)
        engine.set(self.left.gates, self.cores, self.right.gates)
        return engine


def _at(*wires, fixed=None):
    return Placement(wires, fixed)


HOLES = Ansatz(4, ((_at(1, 2),), (_at(1), _at(2, 3, fixed="CNOT"))), "SO")
FIXED = Ansatz(3, ((_at(0, 1, fixed="CNOT"),), (_at(1, 2, fixed="CNOT"),)))
MIXED = Ansatz(
    6,
    (
        (_at(0), _at(1, 2, 3, 4), _at(5)),
        (_at(0, 1, fixed="CNOT"), _at(4, 5)),
        (_at(2, 3),),
        (_at(1, 2), _at(3, 4, fixed="CNOT")),
        (_at(0, 1, fixed="CNOT"),),
    ),
    "U",
)
GAP = ((2, 2), (2, 1), (2, 2), (1, 2))
# left and right ansatz, bond of the core, complex target and core, legs if not the centred ones
EXTRA = {
    "idle wires": (HOLES, Ansatz(4, ((_at(0),),), "O"), 2, False),
    "no gates": (Ansatz(3, ()), brickwall(3, 1), 1, False),
    "no gates at all": (Ansatz(3, ()), Ansatz(1, ()), 2, False),
    "fixed gates": (FIXED, brickwall(3, 2), 2, False),
    "staircases": (staircase(4, 2), staircase(4, 1, 3), 3, False),
    "complex staircase": (staircase(5, 1, 3, group="U"), brickwall(5, 1), 2, True),
    "16x6": (brickwall(4, 2, group="O"), brickwall(3, 2, 3, group="O"), 3, False),
    "8x1": (brickwall(3, 2), Ansatz(0, ()), 3, False),
    "real gates, complex operator": (brickwall(3, 2), brickwall(4, 1), 2, True),
    "four-body": (brickwall(4, 1, 4, group="U"), from_spec("1b + CNOT", 4), 1, True),
    "gates over a missing leg": (brickwall(3, 2), brickwall(3, 2, parity=1), 2, False, GAP),
    "wide pair": (brickwall(5, 1, 5), brickwall(5, 1, 5), 2, False),
    "mirror": (brickwall(6, 4), brickwall(6, 4).reversed(), 2, False),
    "mixed": (MIXED, staircase(5, 2), 3, True),
}
LARGE = {
    "deep": (brickwall(7, 6, fill=False), brickwall(7, 5, parity=1), 4, False),
    "wide": (brickwall(3, 3), brickwall(7, 4, 3), 2, False),
}
"""Of many tiles; only the dense engine is quick there."""
NAMES = [str(case) for case in CASES]
ALL = [*NAMES, *EXTRA]


@cache
def setup(name: str) -> Setup:
    """A case, or an entry of `EXTRA` or `LARGE`."""
    if name in NAMES:
        number = NAMES.index(name)
        target, left, cores, right = problem(CASES[number], bond=1 + number % 3)
        return Setup(target, CASES[number].legs, left, cores, right)
    left, right, bond, is_complex, *legs = (EXTRA | LARGE)[name]
    (legs,) = legs or [centred_legs(left.n, right.n)]
    target = random_matrix((2**left.n, 2**right.n), is_complex, 5)
    cores = random_cores(legs, bond, is_complex, 7)
    return Setup(target, legs, _filled(left, 6), cores, _filled(right, 8))


class Twin:
    """h = Re Tr(G^H A) as a function of any one factor of A; gates and core may be an engine's."""

    def __init__(self, s: Setup, engine=None) -> None:
        self.target, self.slots, self.factors = s.target, [], []
        core = s.cores if engine is None else engine.core
        for side, circuit in (("left", s.left), ("right", s.right)):
            if side == "right":
                self.slots.append(("core", 0))
                self.factors.append(dense_from_cores(core))
            gates = circuit.gates if engine is None else getattr(engine, side)
            places = circuit.ansatz.placements
            for j, (gate, place) in enumerate(zip(gates, places, strict=True)):
                self.slots.append((side, j))
                self.factors.append(embed(gate, place.wires, circuit.n))

    @cached_property
    def _before(self) -> list:
        """Products of the first 0, 1, 2 ... factors."""
        eye = np.eye(len(self.target))
        return list(itertools.accumulate(self.factors, np.matmul, initial=eye))

    @cached_property
    def _after(self) -> list:
        """Products of the factors from 0, 1, 2 ... on."""
        eye = np.eye(self.target.shape[1])
        turned = itertools.accumulate(reversed(self.factors), lambda x, f: f @ x, initial=eye)
        return list(turned)[::-1]

    @property
    def matrix(self) -> np.ndarray:
        """A."""
        return self._before[-1]

    def form(self, slot=None, factor=None) -> float:
        """h, with another embedded factor in a slot if one is named."""
        if slot is None:
            return inner(self.target, self.matrix)
        k = self.slots.index(slot)
        return inner(self.target, self._before[k] @ factor @ self._after[k + 1])


@cache
def twin(name: str) -> Twin:
    return Twin(setup(name))


def random_reordering(shape, seed=0):
    rng = np.random.default_rng(seed)
    return Reordering(*(rng.permutation(size) for size in shape))


def random_covariance(size, complex=False, seed=1):
    """Far from white: as of activations with one strong direction."""
    x = random_matrix((3 * size, size), complex, seed)
    return second_moment(x @ np.diag(1 / np.arange(1, size + 1)) + 0.3)


def small_bond(legs, bond, seed=0):
    """Dense matrix of a random MPO."""
    rng = np.random.default_rng(seed)
    bonds = [1, *[bond] * (len(legs) - 1), 1]
    pairs = zip(legs, itertools.pairwise(bonds), strict=True)
    return dense_from_cores([rng.normal(size=(a, i, o, b)) for (i, o), (a, b) in pairs])
