"""What both network engines share: environments by messages along a contraction tree.

The tree of `transverse` goes column by column, that of `tree` was searched by cotengra. A sweep
visits the tensors in the order of the tree, see `messages`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.routing import routed
from mpodis.conventions import Legs
from mpodis.environments.boundary.engine import BoundaryEnvironments
from mpodis.environments.network.geometry import Key, Network
from mpodis.environments.network.messages import Messages, message_indices
from mpodis.environments.protocol import SMALL_ARRAYS, Engine, Gradient, Target, Update, check_sides
from mpodis.mpo import compress
from mpodis.sites import bond_dimensions, left_canonical, legs_of, right_canonical, site_tensors

__all__ = ["NetworkEnvironments", "path_cost"]

MESSAGE_SECONDS = 22e-6
"""Seconds that a message takes whatever its size, with its share of the updates of gates."""
FLOPS = 1.0e10
"""Floating-point operations per second in the shapes that occur, on one core; a multiply-add
counts as two."""
ENTRIES = 1.5e9
"""Entries read and written per second."""


def path_cost(
    indices: Sequence[Sequence[str]],
    sizes: Mapping[str, int],
    ssa_path: Sequence[tuple[int, int]],
    itemsize: int = 8,
    *,
    speed: float = 1.0,
) -> tuple[float, float]:
    """(seconds, bytes) of half a sweep, which gives every gate its environment once.

    Counted are two messages per inner node and one into each leaf; both directions are kept where
    all environments are asked for together. `speed` is how much faster the contractions are than
    those of tensors of any shape. Nothing is planned or allocated.
    """
    edges, flops = message_indices(indices, ssa_path, sizes)
    entries = sum(math.prod(sizes[i] for i in names) for names in edges)
    factor = (4.0 if itemsize == 16 else 1.0) / speed
    work = 2 * flops / FLOPS + 4 * entries / ENTRIES
    seconds = 2 * (len(ssa_path) - 1) * MESSAGE_SECONDS + factor * work
    return seconds, 2.0 * entries * itemsize + SMALL_ARRAYS


class NetworkEnvironments(Engine):
    """Exact environments by messages along a contraction tree, see `Environments`.

    A subclass says which tree (`_plan_messages`) and in which order its leaves are visited.

    Parameters
    ----------
    target : list of site tensors or array (rows, columns)
    legs, left, right

    Raises
    ------
    ValueError
        An ansatz or a target that does not fit the legs.
    """

    exact = True
    any_wires = True

    def __init__(self, target: Target, legs: Legs, left: Ansatz, right: Ansatz) -> None:
        check_sides(legs, left, right)
        if isinstance(target, np.ndarray):
            target = site_tensors(compress(target, legs=legs).mpo)
        if legs_of(target) != tuple(legs):
            raise ValueError(f"the target has legs {legs_of(target)}, expected {tuple(legs)}")
        self.network = Network.of(tuple(legs), left, right)
        self._target = [tensor.conj() for tensor in target]
        self.left, self.right, self.core = [], [], []
        self._leaf = {key: k for k, key in enumerate(self.network.indices)}
        self._shapes: tuple = ()
        self._messages: Messages  # planned by `set`, for the bonds of the core
        self._order: list[Key] = []

    def _plan_messages(self, sizes: Mapping[str, int]) -> tuple[Messages, list[Key]]:
        """Messages along the tree, and free gates and core sites in the order of a sweep."""
        raise NotImplementedError

    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        given = {"left": left, "core": core, "right": right}
        changed = []
        for part, arrays in given.items():
            if arrays is not None:
                old = getattr(self, part)
                setattr(self, part, list(arrays))
                same = len(old) == len(arrays)
                changed += [(part, j) for j, x in enumerate(arrays) if not (same and old[j] is x)]
        shapes = tuple(core.shape for core in self.core)
        if shapes != self._shapes:
            self._shapes = shapes
            sizes = self.network.sizes(bond_dimensions(self._target), bond_dimensions(self.core))
            self._messages, self._order = self._plan_messages(sizes)
            for key, array in self.network.constants().items():
                self._messages.set(self._leaf[key], array)
            for k, tensor in enumerate(self._target):
                self._messages.set(self._leaf["target", k], tensor)
            changed = [(part, j) for part in given for j in range(len(getattr(self, part)))]
        for key in changed:
            self._put(key, getattr(self, key[0])[key[1]])

    def inner(self) -> float:
        # at the tensor where the last sweep ended: its messages are known
        first = self._order[0] if self._order else ("core", 0)
        return float(np.real(self._messages.value(self._leaf[first])))

    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """Once through the tree and back: every gate is updated twice."""
        if core:
            self._centre_core()
        for there, order in ((True, self._order), (False, self._order[::-1])):
            for part, j in order:
                if part in updates:
                    self._put(
                        (part, j), updates[part](self._environment((part, j)), self._get(part, j))
                    )
                elif part == "core" and core:
                    self._fit_site(j, 1 if there else -1)

    def gradient(self, scale: float = 1.0) -> Gradient:
        leaves = [self._leaf[key] for key in self._order]
        self._messages.prepare(leaves)
        found = {key: self._environment(key) for key in self._order}
        left, right = (
            [found.get((side, j)) for j in range(len(getattr(self, side)))]
            for side in ("left", "right")
        )
        core = [found["core", k] for k in range(len(self.core))]
        return Gradient(self.inner(), left, right, core).times(scale)

    def fitted_core(self) -> list[np.ndarray]:
        """One ALS sweep: with all other sites isometric, the best site is its environment."""
        kept = list(self.core)
        self._centre_core()
        sites = [k for part, k in self._order if part == "core"]
        for k in sites:
            self._fit_site(k, 1)
        for k in reversed(sites):
            self._fit_site(k, -1)
        found = list(self.core)
        self.set(core=kept)
        return found

    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        target = [tensor.conj() for tensor in self._target]
        left, right = (routed(ansatz) for ansatz in self.network.ansatz.values())
        boundary = BoundaryEnvironments(
            target, self.network.legs, left.ansatz, right.ansatz, max_bond=max_bond
        )
        boundary.set(left.gates(self.left), self.core, right.gates(self.right))
        return boundary.pulled_tensors(max_bond)

    def _centre_core(self) -> None:
        """Make the sites right of the first isometric, unless they are; bonds become minimal."""
        tensors = [c.reshape(len(c), -1) for c in self.core[1:]]
        if all(
            len(c) <= c.shape[1] and np.allclose(c @ c.conj().T, np.eye(len(c)), atol=1e-13)
            for c in tensors
        ) and all(len(c) >= c.shape[3] / (c.shape[1] * c.shape[2]) for c in self.core):
            return
        tensors, log_left = left_canonical(self.core)
        tensors, log_right = right_canonical(tensors)
        tensors[0] = tensors[0] * np.exp(log_left + log_right)
        self.set(core=tensors)

    def _fit_site(self, k: int, step: int) -> None:
        """Give the centre site its best value and pass the centre on to the neighbour.

        Where that is zero, the site stays: a core of zeros has no overlap.
        """
        centre = self._environment(("core", k))
        if not centre.any():
            centre = self.core[k]
        if not 0 <= k + step < len(self.core):
            return self._put(("core", k), centre)
        a, i, o, b = centre.shape
        if step > 0:
            q, r = np.linalg.qr(centre.reshape(-1, b))
            site = q.reshape(a, i, o, -1)
            beside = np.tensordot(r, self.core[k + 1], 1)
        else:
            q, r = np.linalg.qr(centre.reshape(a, -1).conj().T)
            site = q.conj().T.reshape(-1, i, o, b)
            beside = np.tensordot(self.core[k - 1], r.conj().T, 1)
        self._put(("core", k), site)
        self._put(("core", k + step), beside)
        return None

    def _environment(self, key: Key) -> np.ndarray:
        """Environment of one tensor, in its shape."""
        raw, log_scale = self._messages.environment(self._leaf[key])
        shape = self._get(*key).shape
        raw = raw.reshape(shape)
        return (raw if log_scale == 0.0 else raw * np.exp(log_scale)).conj()

    def _get(self, part: str, j: int) -> np.ndarray:
        return getattr(self, part)[j]

    def _put(self, key: Key, array: np.ndarray) -> None:
        """Replace one tensor."""
        getattr(self, key[0])[key[1]] = array
        self._messages.set(self._leaf[key], array)
