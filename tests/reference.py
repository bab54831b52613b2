"""Dense twins of the package in plain numpy, and the table of cases that the tests share.

Nothing here calls the package's numerics: operators are built entry by entry or by `numpy.kron`,
entropies by reshape and SVD, overlaps by the trace. Only `build_circuit` and `problem` make
objects of the package, from places and values that are drawn here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

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
        p, q = self.bits
        n = max(p, q, 1)
        before_p, before_q = (n - p) // 2, (n - q) // 2
        return tuple(
            (2 if 0 <= i - before_p < p else 1, 2 if 0 <= i - before_q < q else 1) for i in range(n)
        )

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
    for row in range(2**n):
        bits = [row >> (n - 1 - k) & 1 for k in range(n)]
        inner_row = _number([bits[k] for k in wires])
        for inner_column in range(2 ** len(wires)):
            column = list(bits)
            for position, k in enumerate(wires):
                column[k] = inner_column >> (len(wires) - 1 - position) & 1
            full[row, _number(column)] = gate[inner_row, inner_column]
    return full


def _number(bits):
    return int("".join(map(str, bits)) or "0", 2)


def circuit_matrix(circuit):
    """G_0 G_1 ... of a circuit, each gate embedded."""
    matrix = np.eye(2**circuit.n)
    for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
        matrix = matrix @ embed(np.asarray(gate), place.wires, circuit.n)
    return matrix


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


def build_circuit(case: Case, side: str, seed: int = 0):
    """A circuit of the package with random gates on the places of a case, "left" or "right"."""
    from mpodis.ansatz import Ansatz, Placement
    from mpodis.circuit import Circuit

    n = case.bits[0 if side == "left" else 1]
    places = case.places(n)
    dtype = complex if case.complex else float
    gates = [
        (CNOT if fixed else random_member(2 ** len(wires), case.group, (seed, t, *wires)))
        for t, layer in enumerate(places)
        for wires, fixed in layer
    ]
    layers = tuple(tuple(Placement(wires, fixed) for wires, fixed in layer) for layer in places)
    return Circuit(Ansatz(n, layers, case.group), tuple(g.astype(dtype) for g in gates))


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
