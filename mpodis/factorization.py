"""M ~ Q_L M' Q_R: a core of small bond dimension between two circuits."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from autoray import do

from mpodis.arrays import rescaled, times_power_of_two
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, sandwich
from mpodis.conventions import (
    Array,
    Legs,
    crop,
    in_one_backend,
    padded_shape,
    promoted,
    to_numpy,
    wires,
)
from mpodis.files import array_metadata, check_format, load_arrays, save_arrays
from mpodis.measures import count_parameters
from mpodis.mpo import Operator, as_mpo
from mpodis.sites import (
    bond_dimensions,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    ordinary_size,
    site_tensors,
    spread_norm,
    tensors_to_dense,
)
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from quimb.tensor import MatrixProductOperator, TensorNetwork

__all__ = ["Factorization", "check_factorization", "holds_factorization", "load_factorization"]

_FORMAT = "mpodis-factorization-1"


@dataclass(frozen=True, eq=False)
class Factorization(Tabular):
    """The operator Q_L M' Q_R; a row vector is multiplied from left to right.

    Attributes
    ----------
    left, right : Circuit
        On the sites that have an input (left) or output (right) leg.
    core : quimb.tensor.MatrixProductOperator
        M'; its norm is that of the whole operator.
    shape : (inputs, outputs)
        Of the operator before zero padding.

    Raises
    ------
    ValueError
        If a circuit does not have as many wires as the core has legs on its side.
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
        """(input, output) dimension of every site."""
        return mpo_legs(self.core)

    def core_to_dense(self) -> Array:
        """Dense M', padded."""
        return mpo_to_dense(self.core)

    def padded_to_dense(self) -> Array:
        """Dense Q_L M' Q_R, padded to powers of two."""
        tensors, exponent = ordinary_size(site_tensors(self.core))
        dense = sandwich(self.left, tensors_to_dense(tensors), self.right)
        return times_power_of_two(dense, exponent)

    def to_dense(self) -> Array:
        """Dense (inputs, outputs) matrix, to be used as ``y = x @ matrix``."""
        return crop(self.padded_to_dense(), self.shape)

    def to_numpy(self) -> Factorization:
        """The same factorization with numpy arrays."""
        left, right = (
            Circuit(circuit.ansatz, tuple(to_numpy(gate) for gate in circuit.gates))
            for circuit in (self.left, self.right)
        )
        core = mpo_from_tensors([to_numpy(site) for site in site_tensors(self.core)])
        return Factorization(left, core, right, self.shape)

    def overlap(self, target: Operator) -> float:
        """f of Eq. 2 with an operator (see `as_mpo`) on the same legs, through the dense matrix.

        Raises
        ------
        ValueError
            If the target has another size.
        """
        a, b = mpo_to_dense(as_mpo(target)), self.padded_to_dense()
        if a.shape != b.shape:
            raise ValueError(f"the target spans {a.shape}, the factorization {b.shape}")
        return dense_overlap(a, b)

    def draw(self, ax: Axes | None = None) -> Axes:
        """Draw Q_L, the core and Q_R from left to right, the core's bonds by their dimension.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Default: a new figure.

        Returns
        -------
        matplotlib Axes
        """
        from mpodis.circuit.drawing import draw_factorization

        left, right = (
            (wires(self.legs, side), circuit.ansatz.layers)
            for side, circuit in (("left", self.left), ("right", self.right))
        )
        return draw_factorization(left, bond_dimensions(site_tensors(self.core)), right, ax)

    def tensor_network(self) -> TensorNetwork:
        """The operator as a quimb network with outer indices ``k{i}`` and ``b{i}``.

        Tags: ``LEFT``, ``CORE``, ``RIGHT``, those of `Circuit.tensor_network`, and ``I{site}`` on
        the core. `from_tensor_network` reads it back.
        """
        core = mpo_from_tensors(site_tensors(self.core))  # with quimb's own index names
        core.add_tag("CORE")
        n_l, n_r = wires(self.legs, "left"), wires(self.legs, "right")
        ins = {f"k{i}": f"cin{i}" for i in n_l}
        outs = {f"b{i}": f"cout{i}" for i in n_r}
        core.reindex_({**ins, **outs})
        left = self.left.tensor_network(side="LEFT", upper=list(ins), lower=list(ins.values()))
        right = self.right.tensor_network(side="RIGHT", upper=list(outs.values()), lower=list(outs))
        return left | core | right

    @classmethod
    def from_tensor_network(
        cls, network: TensorNetwork, shape: tuple[int, int] | None = None
    ) -> Factorization:
        """The factorization of a network that `tensor_network` made, with the data it has now.

        quimb may have optimised or replaced the data; only tags and index names are read. See
        `Circuit.from_tensor_network` for what becomes of fixed gates and groups.

        Parameters
        ----------
        network : quimb.tensor.TensorNetwork
        shape : (inputs, outputs), optional
            Before zero padding; by default all rows and columns.

        Raises
        ------
        ValueError
            If a tensor is missing, has been split, or has other indices.

        Examples
        --------
        >>> import numpy as np
        >>> from mpodis import brickwall, compress, random_circuit
        >>> circuit = random_circuit(brickwall(3, 2), seed=0)
        >>> whole = Factorization(circuit, compress(np.eye(8)).mpo, circuit, (8, 8))
        >>> back = Factorization.from_tensor_network(whole.tensor_network())
        >>> bool(np.abs(back.to_dense() - whole.to_dense()).max() < 1e-14)
        True
        """
        sites = _core_tensors(network)
        core = mpo_from_tensors(sites)
        legs = mpo_legs(core)
        names = {
            "left": [(f"k{i}", f"cin{i}") for i in wires(legs, "left")],
            "right": [(f"cout{i}", f"b{i}") for i in wires(legs, "right")],
        }
        left, right = (
            Circuit.from_tensor_network(
                network,
                side=side.upper(),
                upper=[upper for upper, _ in pairs],
                lower=[lower for _, lower in pairs],
            )
            for side, pairs in names.items()
        )
        return cls(left, core, right, padded_shape(legs) if shape is None else shape)

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of the core and of the gates of either circuit."""
        return {
            "core": count_parameters(self.core),
            "left gates": self.left.ansatz.n_parameters,
            "right gates": self.right.ansatz.n_parameters,
        }

    def table(self) -> Table:
        """Sizes, circuits, bond dimensions and parameters."""
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

    def save(self, path: str | os.PathLike, *, metadata: Mapping[str, str] | None = None) -> None:
        """Write one safetensors file with checksums, atomically.

        Parameters
        ----------
        path : path
        metadata : mapping of str to str, optional
            Further entries of the header, for example of which run it is, which
            `mpodis.files.array_metadata` reads.
        """
        arrays = circuit_arrays("left", self.left) | circuit_arrays("right", self.right)
        arrays |= {f"core.{i}": to_numpy(site) for i, site in enumerate(site_tensors(self.core))}
        header = {
            **(metadata or {}),
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
        If the file is damaged, of a newer version, or holds something else.
    """
    arrays, header = load_arrays(path)
    check_format(
        path, header.get("format"), _FORMAT, what="a factorization; it was not written by `save`"
    )
    n_sites = sum(name.startswith("core.") for name in arrays)
    rows, columns = json.loads(header["shape"])
    return Factorization(
        circuit_from_arrays("left", load_ansatz(header["left"]), arrays),
        mpo_from_tensors([arrays[f"core.{i}"] for i in range(n_sites)]),
        circuit_from_arrays("right", load_ansatz(header["right"]), arrays),
        (rows, columns),
    )


def holds_factorization(path: str | os.PathLike) -> bool:
    """Whether a file was written by `Factorization.save`, by its header."""
    family, _, _ = _FORMAT.rpartition("-")  # also of a version that cannot be read
    return array_metadata(path).get("format", "").startswith(f"{family}-")


def _core_tensors(network: TensorNetwork) -> list[Array]:
    """Site tensors of the core of `Factorization.tensor_network`."""
    tensors = [tensor for tensor in network if "CORE" in tensor.tags]
    sites: list[Array] = []
    found = {f"I{k}": [t for t in tensors if f"I{k}" in t.tags] for k in range(len(tensors))}
    for tag, own in found.items():
        if len(own) != 1:
            raise ValueError(
                f"{len(own)} of {len(tensors)} tensors tagged CORE are tagged {tag}; give a "
                "network of `Factorization.tensor_network`, with one tensor for each site"
            )
    chain = [own[0] for own in found.values()]
    for k, tensor in enumerate(chain):
        upper, lower = (
            core if core in tensor.inds else outer
            for core, outer in ((f"cin{k}", f"k{k}"), (f"cout{k}", f"b{k}"))
        )
        left = [ix for ix in tensor.inds if k and ix in chain[k - 1].inds]
        right = [ix for ix in tensor.inds if k + 1 < len(chain) and ix in chain[k + 1].inds]
        if {*left, upper, lower, *right} != set(tensor.inds):
            raise ValueError(
                f"site {k} of the core has indices {tensor.inds}; expected {upper}, {lower} and "
                "bonds to its neighbours"
            )
        i, o = tensor.ind_size(upper), tensor.ind_size(lower)
        a = math.prod(tensor.ind_size(ix) for ix in left)
        data = tensor.transpose(*left, upper, lower, *right).data
        sites.append(do("reshape", data, (a, i, o, -1)))
    if not sites:
        raise ValueError(
            "no tensor of the network is tagged CORE; give a network of "
            "`Factorization.tensor_network`"
        )
    return spread_norm(sites, float(network.exponent) * math.log(10)) if network.exponent else sites


def check_factorization(given: object) -> None:
    """A TypeError for what is no factorization."""
    if not isinstance(given, Factorization):
        raise TypeError(
            f"expected a Factorization, got {type(given).__name__}; a run of `disentangle` has it "
            "as its .factorization"
        )


def dense_overlap(a: Array, b: Array) -> float:
    """Re Tr(A^H B) / (|A| |B|) of dense matrices."""
    a, b = (rescaled(x)[0] for x in in_one_backend([a, b]))
    if isinstance(a, np.ndarray):
        return float(np.vdot(a, b).real / (np.linalg.norm(a) * np.linalg.norm(b)))
    a, b = promoted([a, b])
    norms = float(do("linalg.norm", a)) * float(do("linalg.norm", b))
    return float(do("real", do("sum", do("conj", a) * b))) / norms


def circuit_arrays(name: str, circuit: Circuit) -> dict[str, np.ndarray]:
    """The gates under names for a file."""
    return {f"{name}.{j}": to_numpy(gate) for j, gate in enumerate(circuit.gates)}


def circuit_from_arrays(name: str, ansatz: Ansatz, arrays: Mapping[str, np.ndarray]) -> Circuit:
    """The circuit whose gates `circuit_arrays` has named."""
    return Circuit(ansatz, tuple(arrays[f"{name}.{j}"] for j in range(len(ansatz.placements))))


def dump_ansatz(ansatz: Ansatz) -> str:
    """The ansatz as JSON."""
    layers = [
        [[list(p.wires), p.fixed, *([p.tie] if p.tie else [])] for p in layer]
        for layer in ansatz.layers
    ]
    return json.dumps({"n": ansatz.n, "group": ansatz.group, "layers": layers})


def load_ansatz(text: str) -> Ansatz:
    """The ansatz of `dump_ansatz`; fixed gates of one's own must be registered."""
    value = json.loads(text)
    layers = tuple(
        tuple(Placement(tuple(wires), *rest) for wires, *rest in layer) for layer in value["layers"]
    )
    return Ansatz(value["n"], layers, value["group"])
