"""A circuit: an ansatz with the values of its gates.

Row action: ``x @ Q`` with Q = G_0 G_1 ... G_{K-1}, so gate 0 acts first. A quantum device acts on
column vectors and runs Q^T.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from autoray import do, get_common_dtype

from mpodis.arguments import check_number, random_generator
from mpodis.circuit.ansatz import Ansatz, Placement, check_ansatz, earliest_layers
from mpodis.conventions import Array, promoted, to_numpy
from mpodis.gates import GROUPS, find_gate, named_gate, polar, random_gate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from quimb.tensor import TensorNetwork

__all__ = [
    "Circuit",
    "apply_columns",
    "apply_rows",
    "circuit_from_gates",
    "embed",
    "identity_circuit",
    "random_circuit",
    "sandwich",
]


def apply_rows(gate: Array, x: Array, wires: Sequence[int]) -> Array:
    """G @ x for a gate on the given wires; x is (2^n, m)."""
    first, size = wires[0], gate.shape[0]
    if tuple(wires) == tuple(range(first, first + len(wires))):
        return (gate @ x.reshape(2**first, size, -1)).reshape(x.shape)
    # one axis for each wire of the gate, the others fused: (rest, wire, rest, wire, ..., rest m)
    order = sorted(wires)
    gaps = [b - a - 1 for a, b in itertools.pairwise([-1, *order])]
    tensor = x.reshape([d for gap in gaps for d in (2**gap, 2)] + [-1])
    own = [2 * order.index(wire) + 1 for wire in wires]
    axes = own + [k for k in range(2 * len(order) + 1) if k not in own]
    moved = do("transpose", tensor, axes)
    moved = (gate @ moved.reshape(size, -1)).reshape(moved.shape)
    back = sorted(range(len(axes)), key=axes.__getitem__)
    return do("transpose", moved, back).reshape(x.shape)


def apply_columns(x: Array, gate: Array, wires: Sequence[int]) -> Array:
    """x @ G for a gate on the given wires; x is (m, 2^n)."""
    first, size = wires[0], gate.shape[0]
    if tuple(wires) == tuple(range(first, first + len(wires))):
        behind = x.shape[-1] // (2**first * size)
        if behind == 1:
            return (x.reshape(-1, size) @ gate).reshape(x.shape)
        if behind >= 64:
            return (gate.T @ x.reshape(-1, size, behind)).reshape(x.shape)
    # many tiny products are slower than a few tall ones on the transposed matrix
    return apply_rows(gate.T, x.T, wires).T


@dataclass(frozen=True, eq=False)
class Circuit:
    """The gates of an ansatz.

    Attributes
    ----------
    ansatz : Ansatz
    gates : tuple of arrays (2^w, 2^w)
        One per placement, in order, fixed ones included; arrays of numpy, torch or jax, which
        `apply`, `to_dense`, `adjoint` and `projected` keep.

    Raises
    ------
    ValueError
        Another number of gates than of placements, or a gate of another shape.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> random_circuit(brickwall(4, 3), seed=0).to_dense().shape
    (16, 16)
    """

    ansatz: Ansatz
    gates: tuple[Array, ...]

    def __post_init__(self) -> None:
        places = self.ansatz.placements
        object.__setattr__(self, "gates", tuple(self.gates))
        if len(places) != len(self.gates):
            raise ValueError(f"{len(self.gates)} gates were given for {len(places)} placements")
        for j, (place, gate) in enumerate(zip(places, self.gates, strict=True)):
            if tuple(gate.shape) != (2**place.width,) * 2:
                raise ValueError(
                    f"gate {j} has shape {tuple(gate.shape)}, but acts on wires {place.wires}"
                )

    @property
    def n(self) -> int:
        """Number of wires."""
        return self.ansatz.n

    @property
    def is_complex(self) -> bool:
        return any("complex" in str(gate.dtype) for gate in self.gates)

    def apply(self, x: Array) -> Array:
        """x @ Q for x of shape (samples, 2^n)."""
        if x.shape[-1] != 2**self.n:
            raise ValueError(f"x has {x.shape[-1]} columns, but {self.n} wires carry {2**self.n}")
        x, *gates = promoted([x, *self.gates])
        for place, gate in zip(self.ansatz.placements, gates, strict=True):
            x = apply_columns(x, gate, place.wires)
        return x

    def to_dense(self) -> Array:
        """Q, (2^n, 2^n)."""
        if not self.gates:
            return np.eye(2**self.n)
        dtype = get_common_dtype(*self.gates)
        return self.apply(do("eye", 2**self.n, dtype=dtype, like=self.gates[0]))

    def adjoint(self) -> Circuit:
        """The circuit of Q^H: gates daggered, layers in the opposite order."""
        gates = iter(self.gates)
        layers = [[do("conj", next(gates)).T for _ in layer] for layer in self.ansatz.layers]
        flat = tuple(gate for layer in reversed(layers) for gate in layer)
        return Circuit(self.ansatz.reversed(), flat)

    def projected(self) -> Circuit:
        """The circuit with every free gate replaced by the nearest one of its group."""
        group = self.ansatz.group
        gates = tuple(
            gate if place.fixed else polar(gate, group=group)
            for place, gate in zip(self.ansatz.placements, self.gates, strict=True)
        )
        return Circuit(self.ansatz, gates)

    def tensor_network(
        self,
        *,
        side: str = "Q",
        upper: Sequence[str] | None = None,
        lower: Sequence[str] | None = None,
    ) -> TensorNetwork:
        """The circuit as a quimb network, one tensor per gate.

        Parameters
        ----------
        side : str
            Tag of every tensor, and prefix of the inner indices.
        upper, lower : sequences of n index names
            Row (input) and column (output) indices; default ``k{i}`` and ``b{i}``.

        Returns
        -------
        TensorNetwork
            Tags: the side, ``LAYER{t}``, ``GATE{j}``, ``I{wire}``, ``GROUP={group}``, the name of
            a fixed gate, and ``TIE={tie}``; a gate's indices are its rows, then its columns. A
            wire without gates is a delta tensor tagged ``IDLE``.
        """
        import quimb.tensor as qtn

        upper = [f"k{i}" for i in range(self.n)] if upper is None else list(upper)
        lower = [f"b{i}" for i in range(self.n)] if lower is None else list(lower)
        now, last = list(upper), {}
        tensors, j = [], 0
        for t, layer in enumerate(self.ansatz.layers):
            for place in layer:
                rows = [now[i] for i in place.wires]
                columns = [f"{side}{i},{t}" for i in place.wires]
                for i, name in zip(place.wires, columns, strict=True):
                    now[i] = last[i] = name
                tags = [side, f"LAYER{t}", f"GATE{j}", *(f"I{i}" for i in place.wires)]
                tags += [f"GROUP={self.ansatz.group}", *([place.fixed] if place.fixed else [])]
                tags += [f"TIE={place.tie}"] if place.tie else []
                data = do("reshape", self.gates[j], (2,) * (2 * place.width))
                tensors.append(qtn.Tensor(data, (*rows, *columns), tags=tags))
                j += 1
        network = qtn.TensorNetwork(tensors)
        network.reindex_({last[i]: lower[i] for i in last})
        eye: Array = do("eye", 2, like=self.gates[0]) if self.gates else np.eye(2)
        for i in set(range(self.n)) - set(last):
            idle = qtn.Tensor(eye, (upper[i], lower[i]), tags={side, "IDLE", f"I{i}"})
            network.add_tensor(idle)
        return network

    @classmethod
    def from_tensor_network(
        cls, network: TensorNetwork, *, side: str, upper: Sequence[str], lower: Sequence[str]
    ) -> Circuit:
        """The circuit of a network that `tensor_network` made, with the data it has now.

        A gate stays fixed if its matrix is still that of its name, and gates stay tied if they are
        still equal; others become free. The group is the one that the circuit had, or a larger one
        if the gates are complex ("U") or a determinant is negative ("O"). Layers without gates
        at the end are left out.

        Parameters
        ----------
        network : quimb.tensor.TensorNetwork
            May hold other tensors, too.
        side, upper, lower
            As in `tensor_network`.

        Raises
        ------
        ValueError
            If a gate is missing, has been split, or has other indices.
        """
        wire_of = {name: wire for names in (upper, lower) for wire, name in enumerate(names)}
        now = list(upper)
        tensors = [t for t in network if side in t.tags and "IDLE" not in t.tags]
        layers: list[list[Placement]] = []
        gates: list[Array] = []
        groups = {"SO"}
        for j in range(len(tensors)):
            own = [tensor for tensor in tensors if f"GATE{j}" in tensor.tags]
            if len(own) != 1:
                raise ValueError(
                    f"{len(own)} tensors are tagged {side} and GATE{j}, expected 1 (of "
                    f"{len(tensors)}); contract a gate that was split"
                )
            (tensor,) = own
            rows = [name for name in tensor.inds if name in now]
            wires = tuple(now.index(name) for name in rows)
            columns = {
                wire_of.get(name, _wire_in(name, side)): name
                for name in tensor.inds
                if name not in rows
            }
            if {*wires} != {*columns} or len(tensor.inds) != 2 * len(wires):
                raise ValueError(
                    f"GATE{j} of {side} has indices {tensor.inds}, but the wires {wires} should "
                    f"continue those of the gates before it, {now}"
                )
            data = tensor.transpose(*rows, *(columns[wire] for wire in wires)).data
            gates.append(do("reshape", data, (2 ** len(wires),) * 2))
            for wire in wires:
                now[wire] = columns[wire]
            fixed, tie, group, layer = _read_tags(tensor.tags, gates[-1])
            groups |= {group}
            layers += [[] for _ in range(layer + 1 - len(layers))]
            layers[layer].append(Placement(wires, fixed, tie))
        group = max(groups, key=GROUPS.index)
        ansatz = Ansatz(len(upper), tuple(map(tuple, layers)), group)
        return cls(_without_broken_ties(ansatz, gates), tuple(gates))

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw the placements, see `Ansatz.draw`."""
        return self.ansatz.draw(ax)

    def __repr__(self) -> str:
        return f"Circuit({self.ansatz})"

    def _repr_html_(self) -> str:
        return self.ansatz._repr_html_()


def _wire_in(name: str, side: str) -> int | None:
    """The wire in the name of an index inside a circuit, "{side}{wire},{layer}"."""
    match = re.fullmatch(rf"{re.escape(side)}(\d+),\d+", name)
    return int(match[1]) if match else None


def _read_tags(tags: Iterable[str], matrix: Array) -> tuple[str | None, str | None, str, int]:
    """Name of a fixed gate, tie, least group and layer of a gate in a tensor network."""
    values = {key: value for key, _, value in (tag.partition("=") for tag in tags)}
    layer = next(int(tag[5:]) for tag in tags if re.fullmatch(r"LAYER\d+", tag))
    dense = to_numpy(matrix)
    named = (gate for gate in map(find_gate, tags) if gate is not None and gate.name in values)
    gate = next((g for g in named if g.matrix.shape == dense.shape), None)
    if gate is not None and np.allclose(dense, gate.matrix, rtol=0, atol=1e-6):
        return gate.name, None, "U" if gate.is_complex else values["GROUP"], layer
    group = values["GROUP"]
    if dense.dtype.kind == "c":
        group = "U"
    elif group == "SO" and np.linalg.det(dense) < 0:
        group = "O"
    return None, values.get("TIE"), group, layer


def _without_broken_ties(ansatz: Ansatz, gates: Sequence[Array]) -> Ansatz:
    """The ansatz without the ties whose gates differ."""
    broken = {
        tie
        for tie, numbers in ansatz.ties.items()
        if any(bool((gates[j] != gates[numbers[0]]).any()) for j in numbers)
    }
    layers = tuple(
        tuple(replace(place, tie=None) if place.tie in broken else place for place in layer)
        for layer in ansatz.layers
    )
    return replace(ansatz, layers=layers)


def sandwich(left: Circuit, middle: Array, right: Circuit) -> Array:
    """Q_L @ middle @ Q_R, gate by gate."""
    middle, *gates = promoted([middle, *left.gates, *right.gates])
    n = len(left.gates)
    for place, gate in reversed(list(zip(left.ansatz.placements, gates[:n], strict=True))):
        middle = apply_rows(gate, middle, place.wires)
    for place, gate in zip(right.ansatz.placements, gates[n:], strict=True):
        middle = apply_columns(middle, gate, place.wires)
    return middle


def circuit_from_gates(
    n: int, gates: Sequence[tuple[Placement, Array]], group: str = "SO"
) -> Circuit:
    """A circuit of gates given one after the other, in as few layers as their order allows."""
    layers = earliest_layers([place for place, _ in gates])
    places = tuple(tuple(gates[k][0] for k in layer) for layer in layers)
    return Circuit(Ansatz(n, places, group), tuple(gates[k][1] for layer in layers for k in layer))


def identity_circuit(ansatz: Ansatz) -> Circuit:
    """The circuit whose free gates are all the identity."""
    check_ansatz(ansatz)
    return _filled(ansatz, lambda width: np.eye(2**width))


def random_circuit(
    ansatz: Ansatz, *, seed: int | np.random.Generator | None = None, scale: float | None = None
) -> Circuit:
    """A circuit of random free gates.

    Parameters
    ----------
    ansatz : Ansatz
    seed : int, numpy.random.Generator or None
    scale : float, optional
        Gates near the identity: exponentials of Gaussian generators of this standard deviation.
        Default: Haar-random gates.
    """
    check_ansatz(ansatz)
    rng = random_generator(seed)
    if scale is not None:
        check_number("scale", scale, 0)
    group = ansatz.group
    return _filled(ansatz, lambda w: random_gate(2**w, group=group, rng=rng, scale=scale))


def embed(circuit: Circuit, ansatz: Ansatz, *, outermost: str = "left") -> Circuit:
    """The same matrix as a circuit of a larger ansatz, all other free gates the identity.

    Every gate goes to the first placement on its wires that keeps the order of the gates, counted
    from the first layer for a left circuit and from the last one for a right circuit. Where there
    is none, it becomes a part of the first free gate on these wires and others.

    Parameters
    ----------
    circuit : Circuit
    ansatz : Ansatz
    outermost : {"left", "right"}
        Where the search begins: at the first layer, or at the last.

    Raises
    ------
    ValueError
        If the ansatz has no placement for a gate, or fixed gates that the circuit does not have.
    """
    if outermost not in ("left", "right"):
        raise ValueError(f"outermost={outermost!r} is not known; use 'left' or 'right'")
    check_ansatz(ansatz)
    if not isinstance(circuit, Circuit):
        raise TypeError(f"expected a Circuit, got {type(circuit).__name__}")
    if circuit.n != ansatz.n:
        raise ValueError(f"the circuit has {circuit.n} wires, the ansatz {ansatz.n}")
    turn = -1 if outermost == "right" else 1
    places = list(enumerate(ansatz.placements))[::turn]
    dtype = np.result_type(np.float64, *circuit.gates)
    gates = [np.eye(2**place.width, dtype=dtype) for _, place in places]
    taken = [False] * len(places)
    busy = [0] * ansatz.n  # the first position at which a wire may still be used
    own = list(zip(circuit.ansatz.placements, circuit.gates, strict=True))[::turn]
    for place, gate in own:
        first = max(busy[wire] for wire in place.wires)
        rest = [k for k in range(first, len(places)) if not taken[k]]
        k = next((k for k in rest if places[k][1] == place), None)
        is_part = k is None
        if k is None:
            k = next((k for k in rest if _holds(places[k][1], place)), None)
        if k is None:
            raise ValueError(
                f"the ansatz ({ansatz}) has no placement for a gate on wires {place.wires}; begin "
                "with fewer layers, or with the outermost layers of the same pattern"
            )
        within = tuple(places[k][1].wires.index(wire) for wire in place.wires)
        gate = np.asarray(gate)  # it follows the parts that the placement has already
        gates[k] = (
            apply_columns(gates[k], gate, within)
            if turn > 0
            else apply_rows(gate, gates[k], within)
        )
        taken[k] = not is_part
        for wire in place.wires:
            busy[wire] = k if is_part else k + 1
    for (_, place), used in zip(places, taken, strict=True):
        if place.fixed is not None and not used:
            raise ValueError(
                f"the ansatz has a {place.fixed} on wires {place.wires} that the circuit does not "
                "have; leave it out of the ansatz"
            )
    return Circuit(ansatz, tuple(gates[::turn]))


def _holds(place: Placement, inner: Placement) -> bool:
    """Whether the gate of a placement may have another gate as a part."""
    return place.fixed is None and place.tie is None and {*inner.wires} < {*place.wires}


def _filled(ansatz: Ansatz, make: Callable[[int], np.ndarray]) -> Circuit:
    """Fixed gates by their names, free ones from a function of their number of wires."""
    dtype = np.complex128 if ansatz.group == "U" else np.float64
    gates = [named_gate(place.fixed).matrix if place.fixed else None for place in ansatz.placements]
    for numbers in ansatz.free:
        gate = make(ansatz.placements[numbers[0]].width)
        for j in numbers:
            gates[j] = gate
    return Circuit(ansatz, tuple(np.array(gate, dtype=dtype) for gate in gates))
