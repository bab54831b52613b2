"""Neighbouring circuits as one: what stands with nothing classical between is compiled together.

Between the circuits of a layer stands its core, and between layers whatever the network does
there. Two circuits can be merged where that is nothing: Q_R of a layer and Q_L of the next one
without bias, activation or cropping between them, or Q_L and Q_R around a core that is a product
of orthogonal matrices, but for a factor. Of any other product core the orthogonal factors go into
the circuits, and what stays classical is a diagonal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
from qiskit import QuantumCircuit
from qiskit.providers import BackendV2

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import wires
from mpodis.factorization import Factorization
from mpodis.quantum.cost import HardwareCost, gate_cost, in_sequence
from mpodis.quantum.exchange import from_qiskit
from mpodis.resynthesis import Resynthesis, resynthesise
from mpodis.resynthesis.rewriting import simplified
from mpodis.sites import bond_dimensions, mpo_from_tensors, mpo_to_dense, site_tensors
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

    from mpodis.nn import HybridLinear

__all__ = ["Chain", "Joint", "absorb_core", "compile_jointly", "merge", "merge_layers"]

EQUAL = 1e-10
"""Relative difference of singular values that counts as rounding."""
GROUPS = ("SO", "O", "U")


def merge(*circuits: Circuit | QuantumCircuit) -> Circuit:
    """One circuit for several, a row vector meeting the first one first: Q = Q_1 Q_2 ...

    Gates that meet on the same wires become one. A Qiskit circuit is read by `from_qiskit`.

    Raises
    ------
    ValueError
        For no circuits, or for different numbers of wires.
    """
    if not circuits:
        raise ValueError("no circuits were given; merge needs one or more")
    read = [from_qiskit(c) if isinstance(c, QuantumCircuit) else c for c in circuits]
    sizes = [circuit.n for circuit in read]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"the circuits have {', '.join(map(str, sizes))} wires; only circuits on the same "
            "wires can be merged"
        )
    group = max((circuit.ansatz.group for circuit in read), key=GROUPS.index)
    layers = tuple(layer for circuit in read for layer in circuit.ansatz.layers)
    loose = tuple(tuple(replace(place, tie=None) for place in layer) for layer in layers)
    gates = tuple(gate for circuit in read for gate in circuit.gates)
    return simplified(Circuit(Ansatz(sizes[0], loose, group), gates))


def absorb_core(factorization: Factorization) -> Factorization:
    """The same operator with a core that is diagonal, and not negative, on every site.

    Every site of a product core is u s v with orthogonal (unitary) u and v, which go into the
    gates beside it, at no CNOT more: a reflection of one wire leaves the determinant of a gate on
    two as it is. Where no such gate is there to take it up, a circuit in SO becomes one in O.

    Parameters
    ----------
    factorization : Factorization
        With a core of bond dimension 1.

    Raises
    ------
    ValueError
        If the core has larger bonds.
    """
    cores = site_tensors(factorization.core)
    bonds = bond_dimensions(cores)
    if max(bonds, default=1) > 1:
        raise ValueError(
            f"the core has bond dimensions {' '.join(map(str, bonds))}; only a product can be "
            "absorbed: use max_bond=1, or keep the core classical"
        )
    parts = [_decomposed(core[0, :, :, 0]) for core in cores]
    group = "U" if any(np.iscomplexobj(core) for core in cores) else "SO"
    before = [parts[k][0] for k in wires(factorization.legs, "left")]
    behind = [parts[k][2] for k in wires(factorization.legs, "right")]
    left = merge(factorization.left, _singles(before, group))
    right = merge(_singles(behind, group), factorization.right)
    core = mpo_from_tensors([s[None, :, :, None] for _, s, _ in parts])
    return Factorization(_in_group(left), core, _in_group(right), factorization.shape)


def _in_group(circuit: Circuit) -> Circuit:
    """With a group that its gates are in."""
    free = [g for p, g in zip(circuit.ansatz.placements, circuit.gates, strict=True) if not p.fixed]
    if circuit.ansatz.group != "SO" or all(np.linalg.det(gate) > 0 for gate in free):
        return circuit
    return Circuit(replace(circuit.ansatz, group="O"), circuit.gates)


def _decomposed(site: np.ndarray) -> tuple:
    """u, s, v of a site; s is diagonal and not negative, but for what has no wire on either side.

    A multiple of an orthogonal matrix is u alone.
    """
    u, values, v = np.linalg.svd(site)
    if site.shape == (2, 2) and values[0] - values[1] <= EQUAL * values[0]:
        u, v = u @ v, np.eye(2, dtype=v.dtype)
    s = np.zeros(site.shape, dtype=site.dtype)
    np.fill_diagonal(s, values)
    # a leg of dimension 1 has no wire: its sign or phase goes to the other side
    if site.shape == (1, 1):
        return u, site, v
    if site.shape[1] == 1:
        u[:, 0] *= v[0, 0]
    elif site.shape[0] == 1:
        v[0] *= u[0, 0]
    return u, s, v


def _singles(gates: Sequence[np.ndarray], group: str) -> Circuit:
    layer = tuple(Placement((k,)) for k in range(len(gates)))
    return Circuit(Ansatz(len(gates), (layer,) if layer else (), group), tuple(gates))


@dataclass(frozen=True, eq=False)
class Chain(Tabular):
    """Circuits with cores between them: y = scale x Q_0 M_1 Q_1 M_2 ... Q_k.

    Attributes
    ----------
    circuits : tuple of Circuit
        One more than there are cores.
    cores : tuple of quimb.tensor.MatrixProductOperator
        What is left to do classically, with an encoding and a readout around each.
    scale : float
        Of the cores that were absorbed.
    shape : (inputs, outputs)
        Before zero padding.
    """

    circuits: tuple[Circuit, ...]
    cores: tuple[MatrixProductOperator, ...]
    scale: float
    shape: tuple[int, int]

    def apply(self, x) -> np.ndarray:
        """``y`` for x of shape (samples, inputs)."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.shape[0]:
            raise ValueError(f"x has shape {x.shape}, the chain takes {self.shape[0]} inputs")
        size = 2 ** self.circuits[0].n
        y = self.circuits[0].apply(np.pad(x, ((0, 0), (0, size - x.shape[1]))))
        for core, circuit in zip(self.cores, self.circuits[1:], strict=True):
            y = circuit.apply(y @ mpo_to_dense(core))
        return self.scale * y[:, : self.shape[1]]

    def to_dense(self) -> np.ndarray:
        """Dense (inputs, outputs) matrix."""
        return self.apply(np.eye(self.shape[0]))

    def table(self) -> Table:
        rows = []
        for k, circuit in enumerate(self.circuits):
            rows.append((f"circuit {k}", str(circuit.ansatz)))
            if k < len(self.cores):
                bonds = " ".join(map(str, bond_dimensions(site_tensors(self.cores[k]))))
                rows.append((f"core {k}", f"bonds {bonds or 'none'}"))
        return Table(("chain", ""), [*rows, ("scale", self.scale)])


def merge_layers(*layers: Factorization | HybridLinear) -> Chain:
    """Layers that follow one another directly, as few circuits as there can be.

    Q_R of a layer and Q_L of the next become one circuit. Product cores become diagonal, see
    `absorb_core`; one that is a multiple of an orthogonal product vanishes, and Q_L and Q_R of its
    layer become one, too.

    Parameters
    ----------
    *layers : Factorization or HybridLinear
        In the order in which x meets them; for example the modules of a `torch.nn.Sequential`. A
        bias of the last one is left to the caller.

    Raises
    ------
    TypeError
        For anything else between them, an activation function for instance: it is classical.
    ValueError
        For layers that do not fit, a bias or a cropped output before the next layer, and circuits
        that are cut.
    """
    read = [_factorization(layer, k, len(layers)) for k, layer in enumerate(layers)]
    if not read:
        raise ValueError("no layers were given; merge_layers needs one or more")
    for k, (one, other) in enumerate(itertools.pairwise(read)):
        if one.shape[1] != other.shape[0]:
            raise ValueError(
                f"layer {k} has {one.shape[1]} outputs and layer {k + 1} {other.shape[0]} inputs; "
                "layers that follow one another have as many"
            )
        if 2**one.right.n != one.shape[1] or 2**other.left.n != other.shape[0]:
            raise ValueError(
                f"the {one.shape[1]} outputs of layer {k} are fewer than the "
                f"{2 ** max(one.right.n, other.left.n)} of its wires: cropping them is no gate; "
                "merge layers of 2^n features, or run the circuits apart"
            )
    circuits, cores, scale = [read[0].left], [], 1.0
    for k, layer in enumerate(read):
        is_product = max(bond_dimensions(site_tensors(layer.core)), default=1) == 1
        right = layer.right
        if is_product:
            layer = absorb_core(replace(layer, left=circuits[-1]))
            circuits[-1], right = layer.left, layer.right
        factor = _multiple_of_one(layer.core) if is_product else None
        if factor is not None:
            scale *= factor
            circuits[-1] = _in_group(merge(circuits[-1], right))
        else:
            cores.append(layer.core)
            circuits.append(right)
        if k + 1 < len(read):
            circuits[-1] = merge(circuits[-1], read[k + 1].left)
    return Chain(tuple(circuits), tuple(cores), scale, (read[0].shape[0], read[-1].shape[1]))


def _factorization(layer, k: int, count: int) -> Factorization:
    if isinstance(layer, Factorization):
        return layer
    if not hasattr(layer, "factorization"):
        raise TypeError(
            f"layer {k} is a {type(layer).__name__}, which is classical: no circuit goes through "
            "it; merge the layers before it and those behind it apart"
        )
    if k + 1 < count and getattr(layer, "bias", None) is not None:
        raise ValueError(
            f"layer {k} has a bias, which is added classically before the next layer; carry it "
            "behind that one as bias @ W, or run the circuits apart"
        )
    return layer.factorization()


def _multiple_of_one(core: MatrixProductOperator) -> float | None:
    """c where a diagonal product core is c times the identity."""
    sites = [site[0, :, :, 0] for site in site_tensors(core)]
    factor = 1.0
    for site in sites:
        if site.shape != (2, 2) or site[0, 0] - site[1, 1] > EQUAL * site[0, 0]:
            return None
        factor *= float(site[0, 0].real)
    return factor


@dataclass(frozen=True, eq=False)
class Joint(Tabular):
    """Result of `compile_jointly`: one circuit, and what merging saves.

    Attributes
    ----------
    merged : Circuit
        The product of the circuits, exactly.
    resynthesis : Resynthesis
        Of it; its `circuit` is the one to run.
    costs : dict of str to HardwareCost
        "apart": the sum of the circuits; "merged"; "resynthesised apart": the sum of every one
        resynthesised by itself, at its share of `tol`; "resynthesised".
    """

    merged: Circuit
    resynthesis: Resynthesis
    costs: dict[str, HardwareCost]

    @property
    def circuit(self) -> Circuit:
        """The merged circuit with the fewest two-qubit gates that holds its unitary to `tol`."""
        return self.resynthesis.circuit

    @property
    def overlap(self) -> float:
        """Re Tr(U^H V) / 2^n of `circuit` with the merged unitary."""
        return self.resynthesis.overlap

    @property
    def saved(self) -> int:
        """Two-qubit gates saved against the circuits apart."""
        return self.costs["apart"].two_qubit - self.costs["resynthesised"].two_qubit

    def to_dict(self) -> dict[str, object]:
        """Figures, ready for JSON."""
        costs = {name: cost.to_dict() for name, cost in self.costs.items()}
        return {"overlap": self.overlap, "tol": self.resynthesis.tol, "costs": costs}

    def table(self) -> Table:
        first = next(iter(self.costs.values()))
        rows = [
            (name, cost.two_qubit, cost.one_qubit, cost.two_qubit_depth)
            for name, cost in self.costs.items()
        ]
        return Table(
            ("circuits", "2-qubit", "1-qubit", "2q depth"),
            rows,
            title=f"{first.backend}, level {first.optimization_level}",
            notes=(
                f"{self.saved} two-qubit gates saved; the unitary is held to "
                f"1 - f = {1.0 - self.overlap:.2g} (tol {self.resynthesis.tol:g})",
            ),
        )


def compile_jointly(
    *circuits: Circuit | QuantumCircuit,
    tol: float = 1e-3,
    orders: int = 2,
    rounds: int = 4,
    ways: int = 6,
    backend: str | BackendV2 = "logical",
    trials: int = 4,
    seed: int | np.random.Generator = 0,
) -> Joint:
    """Merge circuits with nothing between them, resynthesise the whole, and count what is saved.

    Parameters
    ----------
    *circuits : Circuit or QuantumCircuit
        On the same wires, the first one is hit first by a row vector (for Qiskit circuits: runs
        first).
    tol : float
        1 - f up to which the unitary is held, see `resynthesise`.
    orders, rounds, ways : int
        Of `resynthesise`, whose `trials` are the ways.
    backend, trials : as for `gate_cost`
        Everything is counted there at Qiskit's level 3.
    seed : int or numpy Generator

    Raises
    ------
    ValueError
        As `merge`, `resynthesise` and `gate_cost`.
    """
    rng = np.random.default_rng(seed)
    merged = merge(*circuits)
    read = [from_qiskit(c) if isinstance(c, QuantumCircuit) else c for c in circuits]
    search = {"n_searches": orders, "rounds": rounds, "trials": ways}
    search["seed"] = int(rng.integers(2**31))
    whole = resynthesise(merged, tol=tol, **search)
    alone = [resynthesise(c, tol=tol / len(read), **search).circuit for c in read]
    count = {"backend": backend, "optimization_level": 3, "trials": trials}
    count["seed"] = int(rng.integers(2**31))

    def total(several: Sequence[Circuit | QuantumCircuit]) -> HardwareCost:
        return reduce(in_sequence, (gate_cost(circuit, **count) for circuit in several))

    costs = {
        "apart": total(circuits),
        "merged": total([merged]),
        "resynthesised apart": total(alone),
        "resynthesised": total([whole.circuit]),
    }
    return Joint(merged, whole, costs)
