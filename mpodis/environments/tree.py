"""Tree engine: the closed quimb network with a hole, contracted along a searched path. Exact.

For every hole the path is searched once per geometry (seeded, so that a resumed run repeats it)
and kept as a cotengra expression; afterwards only arrays change. The cost grows with the tree
width of the network and not with 2^l: it is the reference for irregular circuits, wide gates and
shallow circuits on many sites.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mpodis.ansatz import Ansatz
from mpodis.circuit import Circuit, identity_circuit
from mpodis.conventions import Legs, padded_shape, wires
from mpodis.environments.base import Gradient, Update, check_sides
from mpodis.mpo import compress
from mpodis.sites import core_legs, mpo_cores, right_canonical

__all__ = ["TreeEnvironments"]

LIMIT = 2**28
"""Largest intermediate tensor (entries) that a path may have."""

Key = tuple[str, int]


class TreeEnvironments:
    """Environments by contraction of the whole network, see `base.Environments`.

    Parameters
    ----------
    target : array (rows, columns) or list of cores
    legs, left, right
    seed : int
        Seed of the path searches.
    """

    def __init__(self, target, legs: Legs, left: Ansatz, right: Ansatz, *, seed: int = 0) -> None:
        check_sides(legs, left, right)
        if not isinstance(target, list):
            target = mpo_cores(compress(target, legs=legs).mpo)
        if core_legs(target) != tuple(legs):
            raise ValueError(f"the target has legs {core_legs(target)}, expected {tuple(legs)}")
        self.legs, self.seed = tuple(legs), seed
        self._ansatz = {"left": left, "right": right}
        self._closing = [core.conj() for core in target]
        self.left, self.right, self.core = [], [], []
        self._indices, self._constant = self._names()
        self._shapes: tuple = ()
        self._expressions: dict = {}

    def set(self, left: Sequence, core: Sequence, right: Sequence) -> None:
        self.left, self.core, self.right = list(left), list(core), list(right)

    def inner(self) -> float:
        return float(np.real(self._contract(())))

    def pulled(self):
        """Q_L^H G Q_R^H, (rows, columns)."""
        sites = range(len(self.legs))
        ends = [[self._indices["core", k][leg] for k in sites] for leg in (1, 2)]
        holes = tuple(("core", k) for k in sites)
        return self._contract(holes, (*ends[0], *ends[1])).conj().reshape(padded_shape(self.legs))

    def sweep(self, side: str, update: Update) -> None:
        gates, places = getattr(self, side), self._ansatz[side].placements
        # outermost first on both sides, as in the dense engine
        for j in range(len(gates)) if side == "left" else reversed(range(len(gates))):
            if places[j].fixed is None:
                gates[j] = update(self._environment(side, j), gates[j])

    def gradient(self) -> Gradient:
        left, right = (
            [
                self._environment(side, j) if place.fixed is None else None
                for j, place in enumerate(self._ansatz[side].placements)
            ]
            for side in ("left", "right")
        )
        core = [self._environment("core", k) for k in range(len(self.core))]
        return Gradient(self.inner(), left, right, core)

    def fitted_core(self) -> list:
        """ALS: where all other sites are isometric, a site's best value is its environment."""
        kept, n = self.core, len(self.core)
        self.core = right_canonical(self.core)[0]
        for k in range(n):
            self.core[k] = self._environment("core", k)
            if k < n - 1:
                a, i, o, b = self.core[k].shape
                q, r = np.linalg.qr(self.core[k].reshape(-1, b))
                self.core[k] = q.reshape(a, i, o, -1)
                self.core[k + 1] = np.tensordot(r, self.core[k + 1], 1)
        for k in range(n - 1, 0, -1):
            a, i, o, b = self.core[k].shape
            q = np.linalg.qr(self.core[k].reshape(a, -1).conj().T)[0]
            self.core[k] = q.conj().T.reshape(-1, i, o, b)
            self.core[k - 1] = self._environment("core", k - 1)
        found, self.core = self.core, kept
        return found

    def _environment(self, part: str, j: int):
        raw = self._contract(((part, j),), self._indices[part, j]).conj()
        return raw.reshape(getattr(self, part)[j].shape)

    def _contract(self, holes: tuple[Key, ...], output: tuple[str, ...] = ()):
        """The network without the tensors `holes`, over the indices `output`."""
        keys = [key for key in self._indices if key not in holes]
        arrays = [self._array(key) for key in keys] + [data for _, data in self._constant]
        shapes = tuple(core.shape for core in self.core)
        if shapes != self._shapes:
            self._shapes, self._expressions = shapes, {}
        if holes not in self._expressions:
            inputs = [self._indices[key] for key in keys] + [inds for inds, _ in self._constant]
            self._expressions[holes] = self._search(inputs, output, [a.shape for a in arrays])
        return np.asarray(self._expressions[holes](*arrays))

    def _array(self, key: Key):
        part, j = key
        if part == "target":
            return self._closing[j]
        array = getattr(self, part)[j]
        return array if part == "core" else array.reshape((2,) * len(self._indices[key]))

    def _search(self, inputs, output, shapes):
        import cotengra as ctg

        search = ctg.RandomGreedyOptimizer(max_repeats=32, seed=self.seed, parallel=False)
        tree = ctg.array_contract_tree(inputs, output, shapes=shapes, optimize=search)
        if tree.max_size() > LIMIT:
            raise ValueError(
                f"contracting this network needs a tensor of {tree.max_size():.2g} entries, beyond "
                f"{LIMIT:.2g}; use fewer layers or sites, or engine='dense' up to 13 qubits"
            )
        path = tree.get_path()
        return ctg.array_contract_expression(inputs, output, shapes=shapes, optimize=path)

    def _names(self) -> tuple[dict[Key, tuple[str, ...]], list]:
        """Indices of every tensor, the circuits' from quimb; idle wires are constant."""
        on_left, on_right = wires(self.legs, "left"), wires(self.legs, "right")
        ends = {
            "left": ([f"k{i}" for i in on_left], [f"in{i}" for i in on_left]),
            "right": ([f"out{i}" for i in on_right], [f"b{i}" for i in on_right]),
        }
        names: dict[Key, tuple[str, ...]] = {}
        constant = []
        for side, (upper, lower) in ends.items():
            circuit: Circuit = identity_circuit(self._ansatz[side])
            network = circuit.tensor_network(side=side, upper=upper, lower=lower)
            for j in range(len(circuit.gates)):
                names[side, j] = network[f"GATE{j}"].inds
            idle = network.select_tensors("IDLE") if "IDLE" in network.tags else ()
            constant += [(tensor.inds, tensor.data) for tensor in idle]
        n = len(self.legs)
        for k in range(n):
            up = f"in{k}" if k in on_left else f"k{k}"
            down = f"out{k}" if k in on_right else f"b{k}"
            # the outer bonds, of size 1, join the core and the target into a closed network
            bonds = [f"end{e}" if e in (0, n) else None for e in (k, k + 1)]
            names["core", k] = (bonds[0] or f"c{k}", up, down, bonds[1] or f"c{k + 1}")
            names["target", k] = (bonds[0] or f"t{k}", f"k{k}", f"b{k}", bonds[1] or f"t{k + 1}")
        return names, constant
