"""Circuits that follow one another directly are merged, and compiled together.

The circuits of a layer have its core between them, and those of two layers whatever the network
does there. Two circuits can be merged if that is nothing: Q_R of a layer and Q_L of the next one
without a bias, activation or cropping between them, or Q_L and Q_R around a core that is a
multiple of a product of orthogonal matrices. From any other product core the circuits absorb the
orthogonal factors, and a diagonal stays classical.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit import QuantumCircuit, transpile
from qiskit.providers import BackendV2

from mpodis.arguments import check_number, plain_numbers, random_generator
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit
from mpodis.conventions import Array, wires
from mpodis.factorization import Factorization, check_factorization
from mpodis.gates import GROUPS
from mpodis.quantum.backends import LOGICAL
from mpodis.quantum.convert import from_qiskit, to_qiskit, unitary_matrix
from mpodis.quantum.gate_costs import HardwareCost, gate_cost, in_sequence
from mpodis.resynthesis import Resynthesis, resynthesise
from mpodis.resynthesis.rewriting import simplified
from mpodis.sites import bond_dimensions, mpo_from_tensors, mpo_to_dense, site_tensors
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

    from mpodis.nn import HybridLinear

__all__ = [
    "JointCompilation",
    "MergedLayers",
    "QiskitApproximation",
    "absorb_core",
    "compile_jointly",
    "merge",
    "merge_layers",
    "qiskit_approximation",
]

EQUAL = 1e-10
"""Relative difference of singular values that counts as rounding."""


def merge(*circuits: Circuit | QuantumCircuit) -> Circuit:
    """One circuit for several, the first one acting first on a row vector: Q = Q_1 Q_2 ...

    Gates that meet on the same wires become one. A Qiskit circuit is converted by `from_qiskit`.

    Raises
    ------
    ValueError
        Without circuits, or for different numbers of wires.

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> circuit = random_circuit(brickwall(2, 1), seed=0)
    >>> print(merge(circuit, circuit).ansatz)
    2 wires, 1 layers (1 x 2b), SO
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
    """The same operator with a core that is diagonal and non-negative on every site.

    Every site of a product core is u s v with orthogonal (unitary) u and v, which the gates beside
    it absorb without more CNOTs: a reflection of one wire does not change the determinant of a
    gate on two. Where there is no such gate, a circuit in SO becomes one in O.

    Parameters
    ----------
    factorization : Factorization
        With a core of bond dimension 1.

    Raises
    ------
    ValueError
        If the core has larger bonds.
    """
    check_factorization(factorization)
    tensors = site_tensors(factorization.core)
    bonds = bond_dimensions(tensors)
    if max(bonds, default=1) > 1:
        raise ValueError(
            f"the core has bond dimensions {' '.join(map(str, bonds))}, but only a product can be "
            "absorbed; use max_bond=1, or keep the core classical"
        )
    parts = [_decomposed(tensor[0, :, :, 0]) for tensor in tensors]
    group = "U" if any(np.iscomplexobj(tensor) for tensor in tensors) else "SO"
    u_factors = [parts[k][0] for k in wires(factorization.legs, "left")]
    v_factors = [parts[k][2] for k in wires(factorization.legs, "right")]
    left = merge(factorization.left, _singles(u_factors, group))
    right = merge(_singles(v_factors, group), factorization.right)
    core = mpo_from_tensors([s[None, :, :, None] for _, s, _ in parts])
    return Factorization(_in_group(left), core, _in_group(right), factorization.shape)


def _in_group(circuit: Circuit) -> Circuit:
    """The circuit in O instead of SO, if one of its gates has a negative determinant."""
    free = [g for p, g in zip(circuit.ansatz.placements, circuit.gates, strict=True) if not p.fixed]
    if circuit.ansatz.group != "SO" or all(np.linalg.det(gate) > 0 for gate in free):
        return circuit
    return Circuit(replace(circuit.ansatz, group="O"), circuit.gates)


def _decomposed(site: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """u, s, v of a site; s is diagonal and non-negative, except for a site without wires.

    A multiple of an orthogonal matrix is absorbed by u alone.
    """
    u, values, v = np.linalg.svd(site)
    if site.shape == (2, 2) and values[0] - values[1] <= EQUAL * values[0]:
        u, v = u @ v, np.eye(2, dtype=v.dtype)
    s = np.zeros(site.shape, dtype=site.dtype)
    np.fill_diagonal(s, values)
    # a leg of dimension 1 has no wire: the other side absorbs its sign or phase
    if site.shape == (1, 1):
        return u, site, v
    if site.shape[1] == 1:
        u[:, 0] *= v[0, 0]
    elif site.shape[0] == 1:
        v[0] *= u[0, 0]
    return u, s, v


def _singles(gates: Sequence[np.ndarray], group: str) -> Circuit:
    """A layer of one-qubit gates, one on every wire."""
    layer = tuple(Placement((k,)) for k in range(len(gates)))
    return Circuit(Ansatz(len(gates), (layer,) if layer else (), group), tuple(gates))


@dataclass(frozen=True, eq=False)
class MergedLayers(Tabular):
    """Circuits with cores between them: y = scale x Q_0 M_1 Q_1 M_2 ... Q_k.

    Attributes
    ----------
    circuits : tuple of Circuit
        One more than there are cores.
    cores : tuple of quimb.tensor.MatrixProductOperator
        These stay classical, each between a readout and an encoding.
    scale : float
        Product of the factors of the cores that the circuits have absorbed.
    shape : (inputs, outputs)
        Before zero padding.
    """

    circuits: tuple[Circuit, ...]
    cores: tuple[MatrixProductOperator, ...]
    scale: float
    shape: tuple[int, int]

    def apply(self, x: Array) -> np.ndarray:
        """``y`` for x of shape (samples, inputs)."""
        x = np.asarray(x)
        if x.ndim != 2 or x.shape[1] != self.shape[0]:
            raise ValueError(
                f"x has shape {x.shape}, but the layers take (samples, {self.shape[0]})"
            )
        size = 2 ** self.circuits[0].n
        y = self.circuits[0].apply(np.pad(x, ((0, 0), (0, size - x.shape[1]))))
        for core, circuit in zip(self.cores, self.circuits[1:], strict=True):
            y = circuit.apply(y @ mpo_to_dense(core))
        return self.scale * y[:, : self.shape[1]]

    def to_dense(self) -> np.ndarray:
        """Dense (inputs, outputs) matrix."""
        return self.apply(np.eye(self.shape[0]))

    def table(self) -> Table:
        rows: list[tuple[str, object]] = []
        for k, circuit in enumerate(self.circuits):
            rows.append((f"circuit {k}", str(circuit.ansatz)))
            if k < len(self.cores):
                bonds = " ".join(map(str, bond_dimensions(site_tensors(self.cores[k]))))
                rows.append((f"core {k}", f"bonds {bonds or 'none'}"))
        return Table(("part", ""), [*rows, ("scale", self.scale)])


def merge_layers(*layers: Factorization | HybridLinear) -> MergedLayers:
    """Layers that follow one another directly, with as few circuits as possible.

    Q_R of a layer and Q_L of the next become one circuit. Product cores become diagonal, see
    `absorb_core`. A core that is a multiple of an orthogonal product is absorbed completely, and
    Q_L and Q_R of its layer become one circuit, too.

    Parameters
    ----------
    *layers : Factorization or HybridLinear
        In the order in which they act on x; for example the modules of a `torch.nn.Sequential`.
        The bias of the last one is left to the caller.

    Raises
    ------
    TypeError
        For anything else, for example an activation function between them.
    ValueError
        For layers whose sizes do not match, a bias or a cropped output before the next layer, and
        circuits that are cut by an activation function.
    """
    read = [_factorization(layer, k, len(layers)) for k, layer in enumerate(layers)]
    if not read:
        raise ValueError("no layers were given; merge_layers needs one or more")
    for k, (one, other) in enumerate(itertools.pairwise(read)):
        if one.shape[1] != other.shape[0]:
            raise ValueError(
                f"layer {k} has {one.shape[1]} outputs and layer {k + 1} {other.shape[0]} inputs; "
                "give layers whose sizes match"
            )
        if 2**one.right.n != one.shape[1] or 2**other.left.n != other.shape[0]:
            raise ValueError(
                f"the {one.shape[1]} outputs of layer {k} are fewer than the "
                f"{2 ** max(one.right.n, other.left.n)} of its wires: cropping them is not "
                "a gate; merge layers of 2^n features, or run the circuits separately"
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
    return MergedLayers(tuple(circuits), tuple(cores), scale, (read[0].shape[0], read[-1].shape[1]))


def _factorization(layer: Factorization | HybridLinear, k: int, count: int) -> Factorization:
    """The factorization of layer k of so many."""
    if isinstance(layer, Factorization):
        return layer
    from mpodis.nn import HybridLinear  # loads torch here and not before

    if not isinstance(layer, HybridLinear):
        raise TypeError(
            f"layer {k} is a {type(layer).__name__}, which is classical and cannot be merged; "
            "merge the layers before it and those after it separately"
        )
    if k + 1 < count and layer.bias is not None:
        raise ValueError(
            f"layer {k} has a bias, which is added classically before the next layer; add it "
            "after that one as bias @ W, or run the circuits separately"
        )
    return layer.factorization()


def _multiple_of_one(core: MatrixProductOperator) -> float | None:
    """c if a diagonal product core is c times the identity, else None."""
    sites = [site[0, :, :, 0] for site in site_tensors(core)]
    factor = 1.0
    for site in sites:
        if site.shape != (2, 2) or site[0, 0] - site[1, 1] > EQUAL * site[0, 0]:
            return None
        factor *= float(site[0, 0].real)
    return factor


@dataclass(frozen=True, eq=False)
class JointCompilation(Tabular):
    """Result of `compile_jointly`: one circuit, and the gates that merging saves.

    Attributes
    ----------
    merged : Circuit
        The exact product of the circuits.
    resynthesis : Resynthesis
        Of the product; its `circuit` is the one to run.
    costs : dict of str to HardwareCost
        "apart": the sum of the circuits; "merged"; "resynthesised apart": the sum of the circuits,
        each resynthesised by itself with an equal share of `tol`; "resynthesised".
    """

    merged: Circuit
    resynthesis: Resynthesis
    costs: dict[str, HardwareCost]

    @property
    def circuit(self) -> Circuit:
        """The circuit with the fewest two-qubit gates that has the merged unitary up to `tol`."""
        return self.resynthesis.circuit

    @property
    def overlap(self) -> float:
        """Re Tr(U^H V) / 2^n of `circuit` with the merged unitary."""
        return self.resynthesis.overlap

    @property
    def saved(self) -> int:
        """Two-qubit gates that are saved compared with the separate circuits."""
        return self.costs["apart"].two_qubit - self.costs["resynthesised"].two_qubit

    def to_dict(self) -> dict[str, Any]:
        """Numbers, ready for JSON."""
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
                f"{self.saved} two-qubit gates saved, at 1 - f = {1.0 - self.overlap:.2g} "
                f"(tol {self.resynthesis.tol:g})",
            ),
        )


def compile_jointly(
    *circuits: Circuit | QuantumCircuit,
    tol: float = 1e-3,
    n_searches: int = 2,
    rounds: int = 4,
    candidates: int = 6,
    backend: str | BackendV2 = "logical",
    trials: int = 4,
    seed: int | np.random.Generator = 0,
) -> JointCompilation:
    """Merge circuits with nothing between them, resynthesise the whole, and count what is saved.

    Parameters
    ----------
    *circuits : Circuit or QuantumCircuit
        On the same wires; the first one acts first.
    tol : float
        Largest 1 - f with the merged unitary, see `resynthesise`.
    n_searches, rounds, candidates : int
        Of `resynthesise`, where `candidates` is called `trials`.
    backend, trials : as for `gate_cost`
        Everything is counted there at Qiskit's level 3.
    seed : int or numpy Generator

    Raises
    ------
    ValueError
        As `merge`, `resynthesise` and `gate_cost`.
    """
    rng = random_generator(seed)
    merged = merge(*circuits)
    read = [from_qiskit(c) if isinstance(c, QuantumCircuit) else c for c in circuits]
    search = partial(
        resynthesise,
        n_searches=n_searches,
        rounds=rounds,
        trials=candidates,
        seed=int(rng.integers(2**31)),
    )
    whole = search(merged, tol=tol)
    alone = [search(circuit, tol=tol / len(read)).circuit for circuit in read]
    count = partial(
        gate_cost,
        backend=backend,
        optimization_level=3,
        trials=trials,
        seed=int(rng.integers(2**31)),
    )

    def total(several: Sequence[Circuit | QuantumCircuit]) -> HardwareCost:
        return reduce(in_sequence, (count(circuit) for circuit in several))

    costs = {
        "apart": total(circuits),
        "merged": total([merged]),
        "resynthesised apart": total(alone),
        "resynthesised": total([whole.circuit]),
    }
    return JointCompilation(merged, whole, costs)


STEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.0)
"""1 - approximation_degree that `qiskit_approximation` tries, in units of `tol`."""


@dataclass(frozen=True)
class QiskitApproximation:
    """A circuit as Qiskit approximates it.

    Attributes
    ----------
    cost : HardwareCost
    overlap : float
        Re Tr(U^H V) / 2^n with the circuit's unitary.
    degree : float
        Qiskit's `approximation_degree`; 1 is exact.
    """

    cost: HardwareCost
    overlap: float
    degree: float


@plain_numbers
def qiskit_approximation(
    circuit: Circuit, *, tol: float = 1e-3, seed: int | np.random.Generator = 0
) -> QiskitApproximation:
    """The fewest CNOTs by Qiskit's own approximation at an overlap: the baseline of a resynthesis.

    Qiskit weighs gate by gate what a CNOT is worth (`approximation_degree`). Several degrees are
    tried at level 3, the exact transpilation among them, and the overlap of the whole circuit is
    measured.

    Parameters
    ----------
    circuit : Circuit
        Small enough for its dense matrix.
    tol : float
        Largest 1 - f.
    seed : int or numpy Generator
        Of the transpiler.

    Raises
    ------
    ValueError
        If `tol` is not a number in [0, 1).

    Examples
    --------
    >>> from mpodis import brickwall, random_circuit
    >>> qiskit_approximation(random_circuit(brickwall(2, 1), seed=0)).cost.two_qubit
    2
    """
    check_number("tol", tol, 0, below=1)
    device, number = to_qiskit(circuit), int(random_generator(seed).integers(2**31))
    wanted, found = unitary_matrix(device), []
    for step in STEPS:
        degree = 1.0 - step * tol
        near = transpile(
            device,
            basis_gates=list(LOGICAL),
            optimization_level=3,
            approximation_degree=degree,
            seed_transpiler=number,
        )
        value = np.vdot(wanted, unitary_matrix(near)).real / len(wanted)
        if step == 0.0 or value >= 1.0 - tol:
            cost = gate_cost(near, optimization_level=0, trials=1)
            found.append(QiskitApproximation(cost, float(value), degree))
    return min(found, key=lambda one: (one.cost.two_qubit, -one.overlap))
