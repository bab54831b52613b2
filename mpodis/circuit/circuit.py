"""A circuit: an ansatz with the values of its gates.

Row action: ``x @ Q`` with Q = G_0 G_1 ... G_{K-1}, so a row vector meets gate 0 first. The
circuit of column vectors that a quantum device runs is Q^T.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from autoray import do

from mpodis.circuit.ansatz import Ansatz
from mpodis.gates import FIXED, polar, random_gate

if TYPE_CHECKING:
    from quimb.tensor import TensorNetwork

__all__ = ["Circuit", "apply_columns", "apply_rows", "embed", "identity_circuit", "random_circuit"]


def apply_rows(gate, x, first: int):
    """(1 x gate x 1) @ x for a gate whose first wire is `first`; x is (2^n, m)."""
    size = gate.shape[0]
    return (gate @ x.reshape(2**first, size, -1)).reshape(x.shape)


def apply_columns(x, gate, first: int):
    """x @ (1 x gate x 1) for a gate whose first wire is `first`; x is (m, 2^n)."""
    size = gate.shape[0]
    behind = x.shape[-1] // (2**first * size)
    if behind == 1:
        return (x.reshape(-1, size) @ gate).reshape(x.shape)
    if behind >= 64:
        return (gate.T @ x.reshape(-1, size, behind)).reshape(x.shape)
    # many tiny products are slower than a few tall ones on the transposed matrix
    return apply_rows(gate.T, x.T, first).T


@dataclass(frozen=True, eq=False)
class Circuit:
    """Gates on the places of an ansatz.

    Attributes
    ----------
    ansatz : Ansatz
    gates : tuple of arrays (2^w, 2^w)
        One per placement, in order; fixed ones included.
    """

    ansatz: Ansatz
    gates: tuple

    def __post_init__(self) -> None:
        places = self.ansatz.placements
        object.__setattr__(self, "gates", tuple(self.gates))
        if len(places) != len(self.gates):
            raise ValueError(f"{len(self.gates)} gates were given for {len(places)} placements")
        for j, (place, gate) in enumerate(zip(places, self.gates, strict=True)):
            if tuple(gate.shape) != (2**place.width,) * 2:
                raise ValueError(
                    f"gate {j} has shape {tuple(gate.shape)}, but sits on wires {place.wires}"
                )

    @property
    def n(self) -> int:
        """Number of wires."""
        return self.ansatz.n

    @property
    def is_complex(self) -> bool:
        return any("complex" in str(gate.dtype) for gate in self.gates)

    def apply(self, x):
        """x @ Q for x of shape (samples, 2^n)."""
        if x.shape[-1] != 2**self.n:
            raise ValueError(f"x has {x.shape[-1]} columns, but {self.n} wires carry {2**self.n}")
        for place, gate in zip(self.ansatz.placements, self.gates, strict=True):
            x = apply_columns(x, gate, place.wires[0])
        return x

    def to_dense(self):
        """Q, (2^n, 2^n)."""
        like = self.gates[0] if self.gates else np.empty(0)
        dtype = np.result_type(*[g.dtype for g in self.gates]) if self.gates else np.float64
        return self.apply(do("eye", 2**self.n, dtype=dtype, like=like))

    def adjoint(self) -> Circuit:
        """The circuit of Q^H: gates daggered, layers in the opposite order."""
        gates = iter(self.gates)
        layers = [[do("conj", next(gates)).T for _ in layer] for layer in self.ansatz.layers]
        flat = tuple(gate for layer in reversed(layers) for gate in layer)
        return Circuit(self.ansatz.reversed(), flat)

    def projected(self) -> Circuit:
        """Every free gate put back exactly onto its group (polar factor)."""
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
            Tags: the side, ``LAYER{t}``, ``GATE{j}`` and ``I{wire}``; a gate's indices are its
            rows, then its columns. A wire without gates is a delta tensor tagged ``IDLE``.
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
                tags = {side, f"LAYER{t}", f"GATE{j}", *(f"I{i}" for i in place.wires)}
                data = do("reshape", self.gates[j], (2,) * (2 * place.width))
                tensors.append(qtn.Tensor(data, (*rows, *columns), tags=tags))
                j += 1
        network = qtn.TensorNetwork(tensors)
        network.reindex_({last[i]: lower[i] for i in last})
        for i in set(range(self.n)) - set(last):
            idle = qtn.Tensor(np.eye(2), (upper[i], lower[i]), tags={side, "IDLE", f"I{i}"})
            network.add_tensor(idle)
        return network

    def draw(self, ax=None):
        """Draw the placements, see `Ansatz.draw`."""
        return self.ansatz.draw(ax)


def identity_circuit(ansatz: Ansatz) -> Circuit:
    """Every free gate the identity."""
    return _fill(ansatz, lambda width: np.eye(2**width))


def random_circuit(ansatz: Ansatz, *, seed=None, scale: float | None = None) -> Circuit:
    """Free gates Haar-random, or near the identity: exp of Gaussian generators of size `scale`."""
    rng = np.random.default_rng(seed)
    group = ansatz.group
    return _fill(ansatz, lambda w: random_gate(2**w, group=group, rng=rng, scale=scale))


def embed(circuit: Circuit, ansatz: Ansatz, *, outermost: str = "left") -> Circuit:
    """The same matrix as a circuit of a larger ansatz, all other free gates the identity.

    Every gate takes the first place of its wires that keeps the order, seen from the outside: from
    the first layer on for a left circuit, from the last one for a right circuit.

    Parameters
    ----------
    circuit : Circuit
    ansatz : Ansatz
    outermost : {"left", "right"}
        Where the search begins: at the first layer, or at the last.

    Raises
    ------
    ValueError
        If a gate finds no place, or the ansatz has fixed gates that are left over.
    """
    if outermost not in ("left", "right"):
        raise ValueError(f"outermost={outermost!r} is not known; use 'left' or 'right'")
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
        fits = (k for k in range(first, len(places)) if places[k][1] == place and not taken[k])
        k = next(fits, None)
        if k is None:
            raise ValueError(
                f"a gate on wires {place.wires} finds no place in {ansatz}; begin with fewer "
                "layers, or with the outermost layers of the same pattern"
            )
        gates[k], taken[k] = np.asarray(gate), True
        for wire in place.wires:
            busy[wire] = k + 1
    for (_, place), used in zip(places, taken, strict=True):
        if place.fixed is not None and not used:
            raise ValueError(f"the ansatz has a {place.fixed} on {place.wires} that is not there")
    return Circuit(ansatz, tuple(gates[::turn]))


def _fill(ansatz: Ansatz, make) -> Circuit:
    dtype = np.complex128 if ansatz.group == "U" else np.float64
    gates = [FIXED.get(place.fixed) for place in ansatz.placements]
    for numbers in ansatz.free:
        gate = make(ansatz.placements[numbers[0]].width)
        for j in numbers:
            gates[j] = gate
    return Circuit(ansatz, tuple(np.array(gate, dtype=dtype) for gate in gates))
