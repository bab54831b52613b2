"""M ~ Q_L M' Q_R: two circuits around a core of small bond dimension."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, sandwich
from mpodis.conventions import Legs, crop, padded_shape, wires
from mpodis.files import array_metadata, load_arrays, save_arrays
from mpodis.measures import count_parameters
from mpodis.sites import (
    bond_dimensions,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    site_tensors,
)
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator, TensorNetwork

__all__ = ["Factorization", "holds_factorization", "load_factorization"]

_FORMAT = "mpodis-factorization-1"


@dataclass(frozen=True, eq=False)
class Factorization(Tabular):
    """Q_L M' Q_R, hit by a row vector from left to right.

    Attributes
    ----------
    left, right : Circuit
        On the sites that have an input (left) or output (right) leg.
    core : quimb.tensor.MatrixProductOperator
        M'; its norm is that of the whole.
    shape : (inputs, outputs)
        Before zero padding.
    """

    left: Circuit
    core: MatrixProductOperator
    right: Circuit
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        legs = mpo_legs(self.core)
        for side, circuit in (("left", self.left), ("right", self.right)):
            n = len(wires(legs, side))
            if circuit.n != n:
                raise ValueError(
                    f"the {side} circuit has {circuit.n} wires, but the core {n} {side} legs"
                )

    @property
    def legs(self) -> Legs:
        return mpo_legs(self.core)

    def core_to_dense(self) -> np.ndarray:
        """Dense M', padded."""
        return mpo_to_dense(self.core)

    def padded_to_dense(self) -> np.ndarray:
        """Dense Q_L M' Q_R, padded to powers of two."""
        return sandwich(self.left, self.core_to_dense(), self.right)

    def to_dense(self) -> np.ndarray:
        """Dense (inputs, outputs) matrix, to be used as ``y = x @ matrix``."""
        return crop(self.padded_to_dense(), self.shape)

    def overlap(self, target: MatrixProductOperator) -> float:
        """f of Eq. 2 with an MPO on the same legs, through the dense matrix."""
        a, b = mpo_to_dense(target), self.padded_to_dense()
        if a.shape != b.shape:
            raise ValueError(f"the target spans {a.shape}, the factorization {b.shape}")
        return dense_overlap(a, b)

    def tensor_network(self) -> TensorNetwork:
        """The whole as a quimb network with outer indices ``k{i}`` and ``b{i}``.

        Tags: ``LEFT``, ``CORE``, ``RIGHT``, and those of `Circuit.tensor_network`.
        """
        core = mpo_from_tensors(site_tensors(self.core))  # whatever its index names were
        core.add_tag("CORE")
        n_l, n_r = wires(self.legs, "left"), wires(self.legs, "right")
        ins = {f"k{i}": f"cin{i}" for i in n_l}
        outs = {f"b{i}": f"cout{i}" for i in n_r}
        core.reindex_({**ins, **outs})
        left = self.left.tensor_network(side="LEFT", upper=list(ins), lower=list(ins.values()))
        right = self.right.tensor_network(side="RIGHT", upper=list(outs.values()), lower=list(outs))
        return left | core | right

    def parameter_counts(self) -> dict[str, int]:
        """Parameters of every part; the gates are the quantum resource, counted apart."""
        return {
            "core": count_parameters(self.core),
            "left gates": self.left.ansatz.n_parameters,
            "right gates": self.right.ansatz.n_parameters,
        }

    def table(self) -> Table:
        bonds = bond_dimensions(site_tensors(self.core))
        rows = [
            ("shape", f"{self.shape[0]} x {self.shape[1]}"),
            ("padded", "{} x {}".format(*padded_shape(self.legs))),
            ("left circuit", str(self.left.ansatz)),
            ("core bonds", " ".join(map(str, bonds)) or "none"),
            ("right circuit", str(self.right.ansatz)),
            *((f"parameters, {part}", count) for part, count in self.parameter_counts().items()),
        ]
        return Table(("factorization", ""), rows)

    def save(self, path: str | os.PathLike) -> None:
        """Write one safetensors file, atomically."""
        arrays = circuit_arrays("left", self.left) | circuit_arrays("right", self.right)
        arrays |= {f"core.{i}": core for i, core in enumerate(site_tensors(self.core))}
        header = {
            "format": _FORMAT,
            "shape": json.dumps(self.shape),
            "left": dump_ansatz(self.left.ansatz),
            "right": dump_ansatz(self.right.ansatz),
        }
        save_arrays(path, arrays, metadata=header)


def load_factorization(path: str | os.PathLike) -> Factorization:
    """Read what `Factorization.save` wrote.

    Raises
    ------
    ValueError
        If the file is truncated or holds something else.
    """
    arrays, header = load_arrays(path)
    if header.get("format") != _FORMAT:
        raise ValueError(f"{path} does not hold a factorization; it was not written by `save`")
    n_cores = sum(name.startswith("core.") for name in arrays)
    return Factorization(
        circuit_from_arrays("left", load_ansatz(header["left"]), arrays),
        mpo_from_tensors([arrays[f"core.{i}"] for i in range(n_cores)]),
        circuit_from_arrays("right", load_ansatz(header["right"]), arrays),
        tuple(json.loads(header["shape"])),
    )


def holds_factorization(path: str | os.PathLike) -> bool:
    """Whether a file was written by `Factorization.save`, by its header."""
    return array_metadata(path).get("format") == _FORMAT


def dense_overlap(a, b) -> float:
    """Re Tr(A^H B) / (|A| |B|) of dense matrices."""
    return float(np.vdot(a, b).real / (np.linalg.norm(a) * np.linalg.norm(b)))


def circuit_arrays(name: str, circuit: Circuit) -> dict[str, np.ndarray]:
    return {f"{name}.{j}": np.asarray(gate) for j, gate in enumerate(circuit.gates)}


def circuit_from_arrays(name: str, ansatz: Ansatz, arrays: dict) -> Circuit:
    return Circuit(ansatz, tuple(arrays[f"{name}.{j}"] for j in range(len(ansatz.placements))))


def dump_ansatz(ansatz: Ansatz) -> str:
    layers = [
        [[list(p.wires), p.fixed, *([p.tie] if p.tie else [])] for p in layer]
        for layer in ansatz.layers
    ]
    return json.dumps({"n": ansatz.n, "group": ansatz.group, "layers": layers})


def load_ansatz(text: str) -> Ansatz:
    value = json.loads(text)
    layers = tuple(
        tuple(Placement(tuple(wires), *rest) for wires, *rest in layer) for layer in value["layers"]
    )
    return Ansatz(value["n"], layers, value["group"])
