"""An MPO in canonical form, and how a step of gates is absorbed into it.

Time-evolving block decimation in Hastings' form (arXiv 0903.3253): the sites B are isometric from
the right, the weights are the Schmidt values of every bond. Unitary gates on separate blocks leave
the bonds between the blocks as they are. So every block is truncated on its own, at its canonical
centre weights * B B, no decomposition leads from one block to the next, and blocks of one shape
are stacked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from autoray import do
from scipy.linalg import get_lapack_funcs

from mpodis.arguments import check_count, check_number
from mpodis.conventions import Array
from mpodis.environments.arrays import Backend
from mpodis.environments.boundary.steps import Block, Step
from mpodis.sites import schmidt_canonical

__all__ = ["METHODS", "Boundary", "Truncation", "canonical"]

METHODS = ("svd", "gram", "random")
OVERSAMPLING = 8
"""Columns of the sketch beyond those that are kept."""
NOISE = 0.1
"""Gaussian part of the sketch, relative to the part that is guessed."""
STACK = 2**16
"""Bytes of a stack of blocks beyond which numpy is as fast on single blocks."""
RESOLVED = 1e-10
"""Least cutoff by which bond dimensions are found."""
ROUNDING = 1e-14
"""Schmidt values below, relative to the largest, are rounding."""
TINY = 1e-30

_QR: dict[str, Any] = {
    kind: get_lapack_funcs(("geqrf", names), dtype=np.dtype(kind))
    for kind, names in (("f", "orgqr"), ("d", "orgqr"), ("F", "ungqr"), ("D", "ungqr"))
}
_CHOLESKY: dict[str, Any] = {kind: get_lapack_funcs("potrf", dtype=np.dtype(kind)) for kind in "dD"}


@dataclass(frozen=True, eq=False)
class Boundary:
    """exp(log) times the MPO of the sites.

    Attributes
    ----------
    sites : list of arrays (left bond, input, output, right bond)
        Isometric from the right, as far as truncation left them so.
    weights : list of arrays (bond,) or (bond, bond)
        Of the bond left of every site, and of the one right of the last: the Schmidt values,
        descending, or another root of the Gram matrix of the sites to the left. They weigh the
        truncation, up to a factor, and are not part of the MPO.
    log : float
    """

    sites: list[Array]
    weights: list[Array]
    log: float

    @property
    def bonds(self) -> tuple[int, ...]:
        """Bond dimensions between neighbouring sites."""
        return tuple(len(w) for w in self.weights[1:-1])


def canonical(tensors: Sequence[np.ndarray], cutoff: float) -> Boundary:
    """Site tensors in canonical form, without Schmidt values below `cutoff` times the largest."""
    sites, weights, log = schmidt_canonical(tensors, cutoff)
    return Boundary(sites, weights, log if log > -math.inf else 0.0)


@dataclass(eq=False)
class Truncation:
    """How bonds are truncated to `max_bond`.

    Attributes
    ----------
    max_bond : int
    cutoff : float
        Schmidt values below `cutoff` times the largest of their bond are dropped. Below
        `RESOLVED`, "random" drops them only where it decomposes a matrix in full.
    method : {"svd", "gram", "random"}
        Full decomposition, eigenvectors of the Gram matrix, or a randomised range finder. A matrix
        of no more than `max_bond` rows or columns always gets the full decomposition.
    backend : Backend
    discarded : float
        Sum of the squared Schmidt values that were dropped so far, relative to the norm of the
        MPOs: about their squared error. Only "svd" keeps account of it.
    is_full : bool
        Whether `max_bond` has ever dropped more than the cutoff would.

    Raises
    ------
    ValueError
        A `max_bond` below 1, a cutoff outside [0, 1), an unknown method.
    """

    max_bond: int
    cutoff: float
    method: str
    backend: Backend
    discarded: float = field(default=0.0, init=False)
    is_full: bool = field(default=False, init=False)
    _sketches: dict = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_count("max_bond", self.max_bond)
        check_number("cutoff", self.cutoff, 0, below=1)
        if self.method not in METHODS:
            raise ValueError(
                f"truncation={self.method!r} is not known; use one of {', '.join(METHODS)}"
            )

    @property
    def finds_bonds(self) -> bool:
        """Whether the cutoff, rather than `max_bond` alone, decides on bond dimensions."""
        return self.cutoff >= RESOLVED

    def absorb(
        self,
        boundary: Boundary,
        step: Step,
        blocks: Sequence[Array],
        bonds: Sequence[int] | None = None,
    ) -> Boundary:
        """The boundary after a step; `blocks` (a, P, b) are its blocks with the gates applied.

        `bonds` are its bond dimensions if they are known. It is then a smooth function of the
        gates, and no Schmidt values need to be found.
        """
        sites, weights = list(boundary.sites), list(boundary.weights)
        bounds = self._bounds(boundary, step) if bonds is None else [1, *bonds, 1]
        cutoff = self.cutoff if bonds is None else min(self.cutoff, ROUNDING)
        for k, w in enumerate(weights):
            if len(w) > bounds[k]:  # between blocks; sorted, so that the smallest are cut off
                weights[k] = w[: bounds[k]]
                if w.ndim == 1:
                    self.is_full |= self._count(w[None], cutoff) > self.max_bond
                    self.discarded += float((w[bounds[k] :] ** 2).sum())
        groups: dict[tuple, list] = {}
        for block, x in zip(step.blocks, blocks, strict=True):
            x = x[: bounds[block.start], :, : bounds[block.stop]]
            if len(block.legs) == 1:
                sites[block.start] = x.reshape(x.shape[0], *block.legs[0], -1)
                continue
            inner = (sites[k].shape[3] for k in block.sites[:-1])
            within = tuple(bounds[block.start + 1 : block.stop])
            key = (block.legs, x.shape, weights[block.start].ndim, *inner, within)
            groups.setdefault(key, []).append((block, x))
        for (*_, within), group in groups.items():
            size = 1 if cutoff >= RESOLVED else self._stack_size(group[0][1])
            for k in range(0, len(group), size):
                self._split(group[k : k + size], boundary, sites, weights, within, cutoff)
        return Boundary(sites, weights, boundary.log)

    def _bounds(self, boundary: Boundary, step: Step) -> list[int]:
        """The largest bond dimensions that the next boundary may have."""
        bounds = [self.max_bond] * len(boundary.weights)
        if self.finds_bonds:
            for block in step.blocks:
                w = boundary.weights[block.start]
                if w.ndim == 1:
                    bounds[block.start] = min(self.max_bond, self._count(w[None], self.cutoff))
        return bounds

    def _stack_size(self, x: Array) -> int:
        """Blocks per stack: all of them on a torch device, as many as fit the cache in numpy."""
        if self.backend.device is not None:
            return 2**31
        size = STACK // x.nbytes
        return size if size >= 4 else 1  # small stacks gain less than single blocks

    def _split(
        self,
        group: Sequence[tuple[Block, Array]],
        old: Boundary,
        sites: list[Array],
        weights: list[Array],
        bounds: Sequence[int],
        cutoff: float,
    ) -> None:
        """Decompose a stack of blocks of one shape into sites, from the right to the left."""
        first = group[0][0]
        blocks = [block for block, _ in group]
        n, a = len(group), group[0][1].shape[0]
        rest = _stack([x for _, x in group])  # (n, a, p1 p2 .., b)
        outer = _stack([weights[block.start] for block in blocks])
        basis = None  # of the bond right of site j: its old vectors in terms of the new ones
        for j in range(len(first.legs) - 1, 0, -1):
            i, o = first.legs[j]
            b = len(weights[first.start + j + 1])
            guess = self._guess([old.sites[block.start + j] for block in blocks], b, basis)
            rest = rest.reshape(n, -1, i * o * b)  # (n, a p1.., p b)
            bound = bounds[j - 1]
            near = cutoff < RESOLVED and self._near_cut(outer, rest, guess, bound)
            found = near or self._cut(outer, rest, guess, bound, cutoff)
            space, values, rest = found  # rest: (n, a p1.., r)
            basis = guess @ space if j > 1 and guess is not None else None
            right = dagger(space).reshape(n, -1, i, o, b)
            for m, block in enumerate(blocks):
                sites[block.start + j] = right[m]
                weights[block.start + j] = values[m]
        i, o = first.legs[0]
        rest = rest.reshape(n, a, i, o, -1)
        for m, block in enumerate(blocks):
            sites[block.start] = rest[m]

    def _cut(
        self, outer: Array, rest: Array, guess: Array | None, bound: int, cutoff: float
    ) -> tuple[Array, list, Array]:
        """`right_space` of outer @ rest, weights of norm 1, and rest @ space."""
        centre = _weighted(outer, rest).reshape(rest.shape)
        space, values = self.right_space(centre, guess, bound=bound, cutoff=cutoff)
        flat = values.reshape(len(values), -1)
        size = (abs(flat) ** 2).sum(-1) ** 0.5 + TINY  # truncation must not add up in scale
        return space, [w / s for w, s in zip(values, size, strict=True)], rest @ space

    def _near_cut(
        self, outer: Array, rest: Array, guess: Array | None, bound: int
    ) -> tuple[Array, Array, Array] | None:
        """`_cut` by a step of subspace iteration from the guess, for one numpy matrix.

        The vectors that are kept are not sorted, so that no eigenvectors are needed, and `outer`
        enters by its Gram matrix, which is smaller than the centre. None where that is singular,
        or where there is no guess, a stack of several matrices, or nothing to truncate.
        """
        if guess is None or min(rest.shape[1:]) <= bound or not _is_single(rest):
            return None
        outer, rest, near = outer[0], rest[0], guess[0, :bound]
        sketch = self._noise(rest[None], bound)[0].copy()
        sketch[: len(near)] += near
        image = (rest @ dagger(sketch)).reshape(len(outer), -1)
        image = dagger(outer) @ outer @ image if outer.ndim == 2 else (outer**2)[:, None] * image
        # transposed, so that the smaller matrix is conjugated and LAPACK needs no copy
        space = isometry(dagger(dagger(image.reshape(-1, bound)) @ rest)[None])
        cut = rest @ space[0]
        root = _root(_weighted(outer[None], cut).reshape(cut.shape))
        return None if root is None else (space, root[None], cut[None])

    def _guess(self, old: Sequence[Array], b: int, basis: Array | None) -> Array | None:
        """Right Schmidt vectors as they were before the step, (n, r, p b).

        They hardly turn where gates are near the identity, and the range finder starts from them.
        """
        if self.method != "random":
            return None
        if basis is None:  # the bond on the right may have been truncated
            site = _stack([x[..., :b] for x in old])
            return site.reshape(*site.shape[:2], -1)
        site = _stack(old)
        n, r = site.shape[:2]
        return (site.reshape(n, -1, site.shape[-1]) @ basis).reshape(n, r, -1)

    def right_space(
        self,
        centre: Array,
        guess: Array | None = None,
        *,
        bound: int | None = None,
        cutoff: float | None = None,
    ) -> tuple[Array, Array]:
        """Leading right space of a stack of matrices, and the weights of its vectors.

        Parameters
        ----------
        centre : array (n, rows, columns)
        guess : array (n, r, columns), optional
            Rows of norm 1 that the Schmidt vectors may be near to, the most important first.
        bound, cutoff : optional
            Which vectors are kept, by default `max_bond` and the cutoff of the truncation.

        Returns
        -------
        array (n, columns, kept), array (n, kept) or (n, kept, kept)
            Isometries; and the singular values, descending, or a root of the Gram matrix.
        """
        bound = self.max_bond if bound is None else bound
        cutoff = self.cutoff if cutoff is None else cutoff
        rows, columns = centre.shape[1:]
        if min(rows, columns) <= bound or self.method == "svd":
            _, values, vh = do("linalg.svd", centre)
            space = dagger(vh)
        elif self.method == "gram":
            space, values = _eigenvectors(centre)
        else:
            sketch = dagger(self._sketch(centre, guess, bound))
            basis = isometry(dagger(centre) @ (centre @ sketch))  # (n, columns, p)
            if cutoff >= RESOLVED:  # Gram matrices do not resolve small values
                _, values, vh = do("linalg.svd", centre @ basis)
                vectors = dagger(vh)
            else:
                vectors, values = _eigenvectors(centre @ basis)
            space = basis @ vectors[:, :, :bound]
        count = self._count(values, cutoff)
        keep = min(bound, count)
        self.is_full |= count > keep
        if self.method == "svd":
            squares = values**2
            self.discarded += float((squares[:, keep:].sum(-1) / (squares.sum(-1) + TINY)).sum())
        return space[:, :, :keep], values[:, :keep]

    def _count(self, values: Array, cutoff: float) -> int:
        """The largest number of values above a cutoff in a matrix of the stack."""
        return max(1, int((values > cutoff * values[:, :1]).sum(-1).max()))

    def _sketch(self, centre: Array, guess: Array | None, bound: int) -> Array:
        """Guess plus noise, then Gaussian rows, (n, p, columns); the same in every run."""
        p = min(bound + OVERSAMPLING, *centre.shape[1:])
        noise = self._noise(centre, p)
        if guess is None:
            return noise
        known = guess[:, :p]
        near, far = noise[:, : known.shape[1]], noise[:, known.shape[1] :]
        # the rows beyond the guess are orthogonal to it
        return do("concatenate", (known + near, far - (far @ dagger(known)) @ known), axis=1)

    def _noise(self, centre: Array, p: int) -> Array:
        """Gaussian rows, (1, p, columns)."""
        columns = centre.shape[2]
        key = (p, columns, is_complex(centre))
        if key not in self._sketches:
            rng = np.random.default_rng((p, columns))
            noise = NOISE * rng.normal(size=(1, p, columns)) / math.sqrt(columns)
            self._sketches[key] = self.backend.to_device(noise + 0j if key[2] else noise)
        return self._sketches[key]


def conj(x: Array) -> Array:
    """The conjugate as a copy; a real array unchanged."""
    kind = getattr(x.dtype, "kind", None)
    if kind is None:  # a torch tensor
        return x.conj().resolve_conj()
    return x.conj() if kind == "c" else x


def dagger(x: Array) -> Array:
    """The adjoint of every matrix of a stack."""
    return conj(x.swapaxes(-1, -2))


def is_complex(x: Array) -> bool:
    """Whether an array of numpy or torch is complex."""
    kind = getattr(x.dtype, "kind", None)
    return x.is_complex() if kind is None else kind == "c"


def isometry(x: Array) -> Array:
    """Orthonormal basis of the columns of a stack of tall matrices."""
    if not isinstance(x, np.ndarray) or len(x) > 1:
        return do("linalg.qr", x)[0]
    geqrf, orgqr = _QR[x.dtype.char]  # numpy's QR takes 1.5 times as long
    packed, tau, _, _ = geqrf(x[0])
    return orgqr(packed, tau, overwrite_a=1)[0][None]


def _is_single(x: Array) -> bool:
    """Whether a stack is one numpy matrix, for which LAPACK is called directly."""
    return isinstance(x, np.ndarray) and len(x) == 1


def _root(x: np.ndarray) -> np.ndarray | None:
    """A root of the Gram matrix of x, of norm 1; None where that is singular."""
    kind, x = x.dtype, x.astype(np.result_type(x, np.float64), copy=False)
    gram = dagger(x) @ x
    root, info = _CHOLESKY[gram.dtype.char](gram)  # upper: root^H root
    return None if info else (root / math.sqrt(gram.trace().real)).astype(kind)


def _weighted(weights: Array, x: Array) -> Array:
    """diag(weights) or weights @ a stack of (a, ...) matrices, as a stack of (a, -1) ones."""
    x = x.reshape(*weights.shape[:2], -1)
    return weights @ x if weights.ndim == 3 else weights[:, :, None] * x


def _eigenvectors(x: Array) -> tuple[Array, Array]:
    """Right singular vectors and values of a stack, descending, from the Gram matrices."""
    values, vectors = do("linalg.eigh", -(dagger(x) @ x))
    return vectors, abs(values) ** 0.5


def _stack(arrays: Sequence[Array]) -> Array:
    """Arrays along a new first axis."""
    return arrays[0][None] if len(arrays) == 1 else do("stack", arrays)
