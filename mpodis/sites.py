"""The sites of an MPO as plain arrays, and what is done to them one after the other.

Inside the package an operator is a list of *site tensors*, one array (left bond, input, output, right
bond) per site, the outer bonds of size 1: `site_tensors` and `mpo_from_tensors` convert from and to
quimb's `MatrixProductOperator`, by index name and never by position.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from autoray import do

from mpodis.conventions import Legs, crop, fuse, padded_shape

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = [
    "bond_dimensions",
    "legs_of",
    "tensors_to_dense",
    "contract_tensors",
    "left_canonical",
    "mirrored",
    "site_tensors",
    "mpo_from_tensors",
    "mpo_legs",
    "mpo_to_dense",
    "right_canonical",
    "spread_norm",
]


def mpo_from_tensors(tensors: Sequence) -> MatrixProductOperator:
    """quimb's MPO from arrays (left bond, input, output, right bond)."""
    from quimb.tensor import MatrixProductOperator

    arrays = list(tensors)
    first, last = arrays[0], arrays[-1]
    if len(arrays) == 1:
        return MatrixProductOperator([first.reshape(first.shape[1:3])], shape="lrud")
    arrays[0], arrays[-1] = first[0], last[..., 0]
    return MatrixProductOperator(arrays, shape="ludr")


def site_tensors(mpo: MatrixProductOperator) -> list:
    """Arrays (left bond, input, output, right bond) of any quimb MPO.

    Accepted as they are: any leg order, bonds that are missing or doubled, a periodic bond, a
    stripped exponent, any sites and index names.
    """
    from quimb.tensor import MatrixProductOperator

    if not isinstance(mpo, MatrixProductOperator):
        raise TypeError(
            f"expected a quimb MatrixProductOperator, got {type(mpo).__name__}; "
            "turn a dense matrix into one with `compress`"
        )
    sites = list(mpo.gen_sites_present())
    n = len(sites)
    parts = []
    for site in sites:
        tensor = mpo[site]
        if not hasattr(tensor, "inds"):
            raise ValueError(f"site {site} of the MPO holds several tensors; contract them first")
        parts.append(tensor)
    bonds = [tuple(sorted(set(a.inds) & set(b.inds))) for a, b in itertools.pairwise(parts)]
    ring = tuple(sorted(set(parts[0].inds) & set(parts[-1].inds))) if n > 2 else ()
    tensors = []
    for k, (site, tensor) in enumerate(zip(sites, parts, strict=True)):
        left = (bonds[k - 1] if k else ()) + (ring if k == n - 1 else ())
        right = (bonds[k] if k < n - 1 else ()) + (ring if k == 0 else ())
        upper, lower = mpo.upper_ind(site), mpo.lower_ind(site)
        known = {*left, *right, upper, lower}
        if known != set(tensor.inds):
            strange = sorted(set(tensor.inds) ^ known)
            raise ValueError(
                f"site {site} of the MPO has indices {tensor.inds}; {strange} is neither its "
                f"input {upper!r}, its output {lower!r} nor a bond to a neighbour"
            )
        data = tensor.transpose(*left, upper, lower, *right).data
        size = [tensor.ind_size(ix) for ix in (*left, upper, lower, *right)]
        a = math.prod(size[: len(left)])
        tensors.append(do("reshape", data, (a, *size[len(left) : len(left) + 2], -1)))
    if ring:
        tensors = _open_ring(tensors, math.prod(parts[0].ind_size(ix) for ix in ring))
    exponent = getattr(mpo, "exponent", 0.0)
    if exponent:
        factor = 10.0 ** (exponent / n)
        tensors = [tensor * factor for tensor in tensors]
    return tensors


def _open_ring(tensors: list, d: int) -> list:
    """Carry a periodic bond of size d through every inner site: exact, bonds grow by d."""
    eye = np.eye(d, dtype=tensors[0].dtype)
    inner = []
    for tensor in tensors[1:-1]:
        a, i, o, b = tensor.shape
        wide = np.einsum("aiob,rs->ariobs", tensor, eye)
        inner.append(wide.reshape(a * d, i, o, b * d))
    return [tensors[0], *inner, tensors[-1]]


def mpo_legs(mpo: MatrixProductOperator) -> Legs:
    return tuple(
        (mpo.ind_size(mpo.upper_ind(s)), mpo.ind_size(mpo.lower_ind(s)))
        for s in mpo.gen_sites_present()
    )


def legs_of(tensors: Sequence) -> Legs:
    return tuple((int(c.shape[1]), int(c.shape[2])) for c in tensors)


def bond_dimensions(tensors: Sequence) -> tuple[int, ...]:
    """Bond dimensions between neighbouring sites, n - 1 of them."""
    return tuple(int(tensor.shape[3]) for tensor in tensors[:-1])


def mpo_to_dense(mpo: MatrixProductOperator, *, shape: tuple[int, int] | None = None):
    """Dense (rows, columns) matrix of an MPO, cropped to `shape` where given."""
    return crop(tensors_to_dense(site_tensors(mpo)), shape)


def tensors_to_dense(tensors: Sequence):
    legs = legs_of(tensors)
    rows, columns = padded_shape(legs)
    if rows * columns > 2**28:
        raise ValueError(
            f"the dense matrix of this MPO has {rows} x {columns} entries; "
            "use the measures that work on MPOs instead"
        )
    return fuse(contract_tensors(tensors), legs)


def contract_tensors(tensors: Sequence):
    """Tensor with one fused (input, output) index per site, see `conventions.split`."""
    result = tensors[0].reshape(-1, tensors[0].shape[-1])
    for tensor in tensors[1:]:
        result = (result @ tensor.reshape(tensor.shape[0], -1)).reshape(-1, tensor.shape[-1])
    return result.reshape([i * o for i, o in legs_of(tensors)])


def left_canonical(tensors: Sequence, *, stop: int | None = None) -> tuple[list, float]:
    """Cores isometric left of `stop` (default: the last), of unit norm there, and log norm.

    The rest of the operator, from `stop` on, is not touched but for its scale: the operator is
    exp(log norm) times what is returned.
    """
    tensors, log_norm = list(tensors), 0.0
    last = len(tensors) - 1 if stop is None else stop
    for i in range(last):
        a, j, k, b = tensors[i].shape
        q, r = do("linalg.qr", tensors[i].reshape(-1, b))
        size = float(do("linalg.norm", r))
        if size == 0.0:
            return tensors, -math.inf
        log_norm += math.log(size)
        tensors[i] = q.reshape(a, j, k, -1)
        tensors[i + 1] = do("tensordot", r / size, tensors[i + 1], axes=1)
    size = float(do("linalg.norm", tensors[last]))
    if size == 0.0:
        return tensors, -math.inf
    tensors[last] = tensors[last] / size
    return tensors, log_norm + math.log(size)


def right_canonical(tensors: Sequence, *, stop: int = 0) -> tuple[list, float]:
    """Mirror image of `left_canonical`: site tensors isometric right of `stop`."""
    flipped, log_norm = left_canonical(mirrored(tensors), stop=len(tensors) - 1 - stop)
    return mirrored(flipped), log_norm


def mirrored(tensors: Sequence) -> list:
    """Sites in the opposite order."""
    return [do("transpose", tensor, (3, 1, 2, 0)) for tensor in reversed(tensors)]


def spread_norm(tensors: Sequence, log_norm: float) -> list:
    """Multiply by exp(log_norm), an equal share on every site: no overflow at 400 sites."""
    factor = math.exp(log_norm / len(tensors))
    return [tensor * factor for tensor in tensors]
