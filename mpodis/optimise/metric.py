"""The Gauss-Newton metric of a circuit, in Pauli strings of bounded extent.

A gate moves as g exp(X) with X skew-Hermitian. To first order the circuit Q becomes Q (1 + O), with
O the sum of the generators X of all gates, each pulled through the gates that follow it. Where Q is
near its target U, the second derivative of 1 - Re Tr(U^H Q) / 2^n is therefore |O|^2 / 2^n, which
depends on the circuit alone: the metric G is a Gram matrix of local operators.

An operator is kept as its Pauli strings that fit into `BLOCKS` neighbouring pairs of wires. Gates
act on pairs; between layers of different parity the pairs shift by one wire, and strings that no
longer fit are dropped. So G is applied to a vector without being a matrix, in a time linear in the
numbers of wires and of layers. Circuits of few gates have it as a matrix, too, which is good for
many steps (`DecomposedMetric`).

For a circuit that prepares a state from |0...0>, O acts on that state, where several strings do the
same. This is the metric of the quantum natural gradient (arXiv 1909.02108).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from mpodis.circuit import Ansatz

__all__ = ["CircuitMetric", "DecomposedMetric", "Metric"]

BLOCKS = 3
"""Pairs of wires into which a Pauli string must fit."""
RATE = 2e10
"""Operations per second of small matrix products on one core."""
LARGEST = 2**25
"""Numbers that the operators of all generators may have, which G is made of as a matrix."""
CHUNK = 2**17
"""Numbers of the operators that are moved at once: what fits into a cache."""
LASTS = 50
"""Steps for which G as a matrix lasts."""
DRIFT = 0.3
"""Change of an entry of a gate that is far."""

_ONE = np.array([np.eye(2), [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
_TWO = np.array([np.kron(a, b) for a, b in itertools.product(_ONE, _ONE)])
_IS_REAL = np.array([(a == 2) != (b == 2) for a, b in itertools.product(range(4), repeat=2)])
"""Whether i P is real, for the strings P on two wires."""
_ACTS_ON = np.zeros((3, 16), dtype=bool)
_ACTS_ON[0, 4::4] = _ACTS_ON[1, 1:4] = _ACTS_ON[2, 1:] = True
"""The strings on the first wire of a pair alone, on the second alone, and all but the identity."""
_FLIPS = np.kron(*[np.array([[1, 0, 0, 1], [0, 1, -1j, 0]])] * 2)
"""What the strings on two wires make of the row vector of |00>."""


class CircuitMetric:
    """G of a circuit of gates on one wire or on two neighbouring ones.

    A vector has a row for every placement: 16 coefficients of its generator X along i P / 2, for
    the Pauli strings P on the pair of wires where it acts (i P / sqrt(2) if it acts on one of
    them). Global phases are left out, and so is what the group of the ansatz does not allow.

    Parameters
    ----------
    ansatz : Ansatz
    on_state : bool
        Whether the circuit acts on |0...0> alone.

    Raises
    ------
    ValueError
        The ansatz is not one that it `fits`.
    """

    memory = 10
    """Pairs of L-BFGS that are of use beside it: it changes from step to step."""

    def __init__(self, ansatz: Ansatz, *, on_state: bool = False) -> None:
        if not self.fits(ansatz):
            raise ValueError(
                "the metric needs gates on one or two neighbouring wires, without ties; got "
                f"{ansatz}"
            )
        self._on_state = on_state
        self._pairs = (ansatz.n + 1) // 2, ansatz.n // 2 + 1  # by the parity of their first wire
        self._extent = min(BLOCKS, max(self._pairs))
        self._layers = _layers(ansatz)
        self._usual = (0.3, 20) if on_state else (0.1, 60)
        # operators are compared where the fewest gates have spread them
        self._meeting = 0 if on_state else len(self._layers) // 2
        self._parity = self._layers[min(self._meeting, len(self._layers) - 1)].parity
        self._wires = np.zeros(len(ansatz.placements), dtype=int)
        for layer in self._layers:
            self._wires[layer.numbers] = layer.wires
        real = _IS_REAL | (ansatz.group == "U")
        free = np.array([place.fixed is None for place in ansatz.placements])
        self.free = _ACTS_ON[self._wires] & real & free[:, None]
        self._maps: list[np.ndarray] = []

    @property
    def seconds(self) -> float:
        """About how long `solve` takes on one core."""
        return self._usual[1] * 2 * len(self._layers) * self._move

    @property
    def seconds_of_matrix(self) -> float:
        """About how long `matrix` and its decomposition take on one core; infinite if too large."""
        count, numbers = int(self.free.sum()), self._pairs[self._parity] * self._row
        if count * numbers > LARGEST:
            return math.inf
        moved = 0  # pairs of wires
        for k, layer in enumerate(self._layers):
            steps = k - self._meeting + 1 if k >= self._meeting else self._meeting - 1 - k
            pairs = sum(min(j + 1, self._pairs[1]) for j in range(steps))
            moved += pairs * int(self.free[layer.numbers].sum())
        products = count**2 * numbers * (4 if self._on_state else 1)  # of complex numbers
        return moved * self._move / self._pairs[1] + (products + 3 * count**3) / RATE

    @property
    def _row(self) -> int:
        """Numbers for every pair of wires where the operators meet."""
        return (4 if self._on_state else 16) ** self._extent

    @property
    def _move(self) -> float:
        """Seconds that it takes to move an operator through a layer."""
        return self._pairs[1] * 16**self._extent * 32 * self._extent / RATE

    @staticmethod
    def fits(ansatz: Ansatz) -> bool:
        """Whether all gates are untied and act on one or two neighbouring wires."""
        places = ansatz.placements
        return (
            bool(places)
            and ansatz.is_local
            and all(place.width <= 2 and place.tie is None for place in places)
        )

    def set(self, gates: Sequence[np.ndarray]) -> None:
        """Take over the gates of all placements."""
        self._maps = []
        for layer in self._layers:
            both = np.tile(np.eye(4, dtype=complex), (self._pairs[layer.parity], 1, 1))
            for number, pair, wire in zip(layer.numbers, layer.pairs, layer.wires, strict=True):
                both[pair] = both[pair] @ _on_pair(np.asarray(gates[number]), wire)
            self._maps.append(_conjugation(both))

    @property
    def standing(self) -> dict[str, Any]:
        """All that the next steps depend on, see `restore`: the gates of the last `set` alone."""
        return {"age": 0, "decomposed": False, "origin": []}

    def restore(self, standing: dict[str, Any]) -> None:
        """Stand where another one stood."""

    def least_damping(self, loss: float) -> float:
        """What must be added to it at a loss; nothing, since it is not solved exactly."""
        return 0.0

    def vector(self, generators: Sequence[np.ndarray]) -> np.ndarray:
        """The vector of skew-Hermitian matrices, one for every placement."""
        pairs = np.array(
            [
                _on_pair(x, wire) / (1 if wire == 2 else 2**0.5)
                for x, wire in zip(generators, self._wires, strict=True)
            ]
        )
        found = np.einsum("kab,pba->kp", pairs, _TWO).imag / 2
        return found * self.free

    def generators(self, vector: np.ndarray) -> list[np.ndarray]:
        """The skew-Hermitian matrices of a vector."""
        pairs = 0.5j * np.einsum("kp,pab->kab", vector, _TWO)
        found = []
        for pair, wire in zip(pairs, self._wires, strict=True):
            if wire == 2:
                found.append(pair)
            else:  # x (x) 1 / sqrt(2) or 1 (x) x / sqrt(2)
                x = pair.reshape(2, 2, 2, 2)
                found.append(np.trace(x, axis1=1 - wire, axis2=3 - wire) / 2**0.5)
        return found

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """G times a vector."""
        strings = self._operator(vector)
        if self._on_state:
            strings = _of_flips(_flips(strings[None])[0])
        return self._overlaps(strings) * self.free

    def solve(
        self,
        vector: np.ndarray,
        damping: float,
        *,
        rtol: float | None = None,
        max_iterations: int | None = None,
    ) -> np.ndarray:
        """(G + damping)^-1 times a vector, by conjugate gradients.

        By default as precisely as pays: the gradients of a state cost less than those of a unitary.
        """
        rtol = self._usual[0] if rtol is None else rtol
        max_iterations = self._usual[1] if max_iterations is None else max_iterations
        rest = vector * self.free
        found, direction = np.zeros_like(rest), rest
        square = first = float(np.vdot(rest, rest))
        for _ in range(max_iterations):
            if square <= rtol**2 * first:
                break
            image = self(direction) + damping * direction
            length = square / float(np.vdot(direction, image))
            found, rest = found + length * direction, rest - length * image
            before, square = square, float(np.vdot(rest, rest))
            direction = rest + (square / before) * direction
        return found

    def matrix(self) -> np.ndarray:
        """G between the free entries of vectors."""
        numbers = np.zeros(self.free.shape, dtype=int)
        numbers[self.free] = np.arange(self.free.sum())
        pairs, dtype = self._pairs[self._parity], complex if self._on_state else float
        found = np.zeros((int(self.free.sum()), pairs, self._row), dtype)
        for k, layer in enumerate(self._layers):
            for gate, number in enumerate(layer.numbers):
                (which,) = np.nonzero(self.free[number])
                several = max(1, CHUNK // ((abs(k - self._meeting) + 1) * 16**self._extent))
                for first in range(0, len(which), several):
                    some = which[first : first + several]
                    strings, begin = self._generators(k, gate, some)
                    if self._on_state:  # the first wire that is flipped may lie further on
                        more = min(self._extent - 1, pairs - begin - strings.shape[1])
                        strings = np.pad(strings, ((0, 0), (0, more), *[(0, 0)] * self._extent))
                        strings = _flips(strings)
                    place = slice(begin, begin + strings.shape[1])
                    found[numbers[number, some], place] = strings.reshape(*strings.shape[:2], -1)
        found = found.reshape(len(found), -1)
        return np.real(found @ found.conj().T)

    # An operator is an array (.., pairs, 16, 16, ..) of the coefficients of its strings, by the
    # first pair of wires on which they are not the identity. There may be several.

    def _operator(self, vector: np.ndarray) -> np.ndarray:
        """O where the operators meet, in pairs of the parity `_parity`."""
        before, parity = self._zero(self._layers[0].parity), self._layers[0].parity
        for k in range(self._meeting):
            layer = self._layers[k]
            before = self._moved(self._shifted(before, parity, layer.parity)[0], k)
            layer.add(before, vector)
            parity = layer.parity
        found, _ = self._shifted(before, parity, self._parity)
        parity = self._layers[-1].parity
        after = self._zero(parity)
        for k in reversed(range(self._meeting, len(self._layers))):
            layer = self._layers[k]
            after, _ = self._shifted(after, parity, layer.parity)
            layer.add(after, vector)
            after, parity = self._moved(after, k, back=True), layer.parity
        return found + self._shifted(after, parity, self._parity)[0]

    def _generators(self, k: int, gate: int, which: np.ndarray) -> tuple[np.ndarray, int]:
        """The operators of single strings `which` of a gate of layer k, where the operators meet.

        Only pairs that they can have reached are kept; the number is that of the first one.
        """
        layer = self._layers[k]
        strings = np.zeros((len(which), 1, *(16,) * self._extent))
        local = strings.reshape(len(which), 16, -1)[..., 0]
        local[np.arange(len(which)), which] = layer.sizes[gate, 0]
        begin, parity = int(layer.pairs[gate]), layer.parity
        back = k >= self._meeting
        for j in range(k, self._meeting - 1, -1) if back else range(k + 1, self._meeting):
            other = self._layers[j].parity
            strings, begin = self._shifted(strings, parity, other, begin)
            strings, parity = self._moved(strings, j, begin, back=back), other
        return self._shifted(strings, parity, self._parity, begin)

    def _overlaps(self, strings: np.ndarray) -> np.ndarray:
        """The overlaps of an operator with the generators of all gates, as a vector."""
        found = np.zeros(self.free.shape)
        moving, parity = strings, self._parity
        for k in reversed(range(self._meeting)):
            layer = self._layers[k]
            moving, _ = self._shifted(moving, parity, layer.parity)
            layer.read(moving, found)
            moving, parity = self._moved(moving, k, back=True), layer.parity
        moving, parity = strings, self._parity
        for k in range(self._meeting, len(self._layers)):
            layer = self._layers[k]
            moving = self._moved(self._shifted(moving, parity, layer.parity)[0], k)
            layer.read(moving, found)
            parity = layer.parity
        return found

    def _zero(self, parity: int) -> np.ndarray:
        return np.zeros((self._pairs[parity], *(16,) * self._extent))

    def _moved(
        self, strings: np.ndarray, k: int, begin: int = 0, *, back: bool = False
    ) -> np.ndarray:
        """g^H O g for the gates g of layer k, or g O g^H; the first pair of O is `begin`."""
        maps = self._maps[k].swapaxes(1, 2) if back else self._maps[k]
        extent, shape = self._extent, strings.shape
        *several, count = shape[:-extent]
        maps = np.concatenate([maps, np.broadcast_to(np.eye(16), (extent - 1, 16, 16))])[begin:]
        for j in range(extent - 1):
            strings = maps[j : j + count, None] @ strings.reshape(*several, count, 16**j, 16, -1)
        last = maps[extent - 1 : extent - 1 + count].swapaxes(1, 2)
        return (strings.reshape(*several, count, -1, 16) @ last).reshape(shape)

    def _shifted(
        self, strings: np.ndarray, parity: int, other: int, begin: int = 0
    ) -> tuple[np.ndarray, int]:
        """The strings by pairs of another parity, without those that no longer fit.

        The first pair of the operator is `begin`; the number is the first one of what is returned.
        """
        if parity == other:
            return strings, begin
        *several, old = strings.shape[: -self._extent]
        # pair k of parity 0 is (2k, 2k + 1), that of parity 1 (2k - 1, 2k)
        first, second = (0, 1) if other else (-1, 0)
        start, stop = max(0, begin + first), min(self._pairs[other], begin + old + second)
        new = stop - start
        found = np.zeros((*several, new, *(16,) * self._extent))
        early = strings.reshape(*several, old, 4, -1, 4)
        late = strings.reshape(*several, old, 4, -1)
        here, there = _aligned(old, new, begin + first - start)
        found.reshape(*several, new, 4, 4, -1)[..., there, 0, 1:, :] = early[..., here, 1:, :, 0]
        here, there = _aligned(old, new, begin + second - start)
        found.reshape(*several, new, -1, 4)[..., there, :, 0] += late[..., here, 0, :]
        return found, start


class DecomposedMetric:
    """G as a matrix, decomposed, for many steps of gates that do not move far.

    While they move far it is solved as the `CircuitMetric` that it is made of, and then until the
    steps have taken twice the time that the decomposition takes, by estimate.

    Parameters
    ----------
    metric : CircuitMetric

    Attributes
    ----------
    origin : list of arrays
        The gates from which the distance is measured, at which G is decomposed if it is.
    age : int
        Steps since then.
    is_decomposed : bool
    """

    memory = 40
    """Pairs of L-BFGS that are of use beside it: as many as without a metric."""

    def __init__(self, metric: CircuitMetric) -> None:
        self._metric = metric
        self._settled = math.ceil(2 * metric.seconds_of_matrix / metric.seconds)
        self.vector, self.generators = metric.vector, metric.generators
        self.origin: list[np.ndarray] = []
        self.age, self.is_decomposed = 0, False

    def set(self, gates: Sequence[np.ndarray]) -> None:
        """Take over gates, but for G as a matrix, which stays for some steps."""
        self.age += 1
        if not self.origin or self._distance(gates) > DRIFT:
            self.origin, self.age, self.is_decomposed = list(gates), 0, False
        if self.age >= (LASTS if self.is_decomposed else self._settled):
            self.decompose(gates)
        elif not self.is_decomposed:
            self._metric.set(gates)

    @property
    def standing(self) -> dict[str, Any]:
        """All that the next steps depend on, see `restore`."""
        return {"age": self.age, "decomposed": self.is_decomposed, "origin": self.origin}

    def restore(self, standing: dict[str, Any]) -> None:
        """Stand where another one stood."""
        self.origin = list(standing["origin"])
        if standing["decomposed"]:
            self.decompose(self.origin)
        self.age = standing["age"]

    def least_damping(self, loss: float) -> float:
        """What must be added to it at a loss, for the curvature that it leaves out."""
        return math.sqrt(2 * max(loss, 0.0)) if self.is_decomposed else 0.0

    def _distance(self, gates: Sequence[np.ndarray]) -> float:
        return max(np.abs(x - y).max() for x, y in zip(gates, self.origin, strict=True))

    def decompose(self, gates: Sequence[np.ndarray]) -> None:
        """Take over gates, with G as a matrix."""
        self.origin, self.age, self.is_decomposed = list(gates), 0, True
        self._metric.set(gates)
        values, self._vectors = np.linalg.eigh(self._metric.matrix())
        self._values = values.clip(min=0)

    def solve(self, vector: np.ndarray, damping: float) -> np.ndarray:
        """(G + damping)^-1 times a vector."""
        if not self.is_decomposed:
            return self._metric.solve(vector, damping)
        free, found = self._metric.free, np.zeros_like(vector)
        along = self._vectors.T @ vector[free]
        found[free] = self._vectors @ (along / (self._values + damping))
        return found


Metric: TypeAlias = CircuitMetric | DecomposedMetric
"""Either of them: L-BFGS and its checkpoints need not know which."""


@dataclass(frozen=True, eq=False)
class _Layer:
    """Gates on pairs of one parity.

    Attributes
    ----------
    parity : {0, 1}
    numbers, pairs, wires : arrays of int
        Of every gate: its placement, its pair, and the wire of the pair (2: both).
    """

    parity: int
    numbers: np.ndarray
    pairs: np.ndarray
    wires: np.ndarray

    @property
    def sizes(self) -> np.ndarray:
        """Of the generators, as |.|^2 / 2^n."""
        return np.where(self.wires == 2, 0.5, 0.5**0.5)[:, None]

    def add(self, strings: np.ndarray, vector: np.ndarray) -> None:
        """Add the generators of the gates to an operator."""
        local = strings.reshape(len(strings), 16, -1)[:, :, 0]
        np.add.at(local, self.pairs, self.sizes * vector[self.numbers])

    def read(self, strings: np.ndarray, vector: np.ndarray) -> None:
        """Set the overlaps of the generators with an operator."""
        local = strings.reshape(len(strings), 16, -1)[:, :, 0]
        vector[self.numbers] = self.sizes * local[self.pairs]


def _layers(ansatz: Ansatz) -> list[_Layer]:
    """The layers of an ansatz, each in as many parts as it has parities."""
    found, first = [], 0
    for layer in ansatz.layers:
        wide = [place.wires[0] % 2 for place in layer if place.width == 2]
        usual = wide[0] if wide else 0
        parts: dict[int, list[tuple[int, int, int]]] = {}
        for number, place in enumerate(layer, first):
            start = place.wires[0]
            parity = start % 2 if place.width == 2 else usual
            wire = 2 if place.width == 2 else (start + parity) % 2
            parts.setdefault(parity, []).append((number, (start + parity) // 2, wire))
        found += [_Layer(parity, *np.array(part).T) for parity, part in parts.items()]
        first += len(layer)
    return found


def _on_pair(x: np.ndarray, wire: int) -> np.ndarray:
    """A matrix on one wire of a pair, or on both (2), as one on the pair."""
    if wire == 2:
        return x
    return np.kron(x, np.eye(2)) if wire == 0 else np.kron(np.eye(2), x)


def _aligned(count: int, others: int, ahead: int) -> tuple[slice, slice]:
    """Where pairs k and k + ahead exist both."""
    first, last = max(0, -ahead), min(count, others - ahead)
    return slice(first, last), slice(first + ahead, last + ahead)


def _flips(strings: np.ndarray) -> np.ndarray:
    """What operators make of |0...0>: patterns (.., pairs, 4, 4 ** (extent - 1)) of flipped wires.

    They are given by the first pair with a flip, without |0...0> itself.
    """
    several, pairs, *blocks = strings.shape
    found = strings.reshape(-1, *blocks)
    for _ in blocks:
        found = np.tensordot(found, _FLIPS, axes=(1, 1))  # the last axis is the new one
    found = found.reshape(several, pairs, 4, -1)
    for k in range(pairs):
        if k + 1 < pairs:
            found[:, k + 1].reshape(several, -1, 4)[:, :, 0] += found[:, k, 0]
        found[:, k, 0] = 0
    return found


def _of_flips(patterns: np.ndarray) -> np.ndarray:
    """The adjoint of `_flips`."""
    pairs = len(patterns)
    found = patterns.copy()
    for k in reversed(range(pairs - 1)):
        found[k, 0] = found[k + 1].reshape(-1, 4)[:, 0]
    blocks = found[0].size.bit_length() // 2
    found = found.reshape(pairs, *(4,) * blocks)
    for _ in range(blocks):
        found = np.tensordot(found, _FLIPS.conj(), axes=(1, 0))
    strings = np.real(found)
    strings[:, 0] = 0  # they are counted from a pair on which they are not the identity
    return strings


def _conjugation(gates: np.ndarray) -> np.ndarray:
    """Stacks of the orthogonal matrices Tr(P_a g^H P_b g) / 4."""
    moved = gates.conj().swapaxes(-1, -2)[:, None] @ _TWO @ gates[:, None]  # (pairs, b, 4, 4)
    flat = _TWO.swapaxes(1, 2).reshape(16, 16)
    return np.real(moved.reshape(len(gates), 16, 16) @ flat.T).swapaxes(1, 2) / 4
