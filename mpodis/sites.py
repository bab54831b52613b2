"""The sites of an MPO as plain arrays, and what is done to them one after the other.

Inside the package an operator is a list of *cores*, one array (left bond, input, output, right
bond) per site, the outer bonds of size 1: `mpo_cores` and `mpo_from_cores` convert from and to
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
    "core_legs",
    "cores_to_dense",
    "cores_to_tensor",
    "left_canonical",
    "mirrored",
    "mpo_cores",
    "mpo_from_cores",
    "mpo_legs",
    "mpo_to_dense",
    "right_canonical",
    "spread_norm",
]


def mpo_from_cores(cores: Sequence) -> MatrixProductOperator:
    """quimb's MPO from arrays (left bond, input, output, right bond)."""
    from quimb.tensor import MatrixProductOperator

    arrays = list(cores)
    first, last = arrays[0], arrays[-1]
    if len(arrays) == 1:
        return MatrixProductOperator([first.reshape(first.shape[1:3])], shape="lrud")
    arrays[0], arrays[-1] = first[0], last[..., 0]
    return MatrixProductOperator(arrays, shape="ludr")


def mpo_cores(mpo: MatrixProductOperator) -> list:
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
    tensors = []
    for site in sites:
        tensor = mpo[site]
        if not hasattr(tensor, "inds"):
            raise ValueError(f"site {site} of the MPO holds several tensors; contract them first")
        tensors.append(tensor)
    bonds = [tuple(sorted(set(a.inds) & set(b.inds))) for a, b in itertools.pairwise(tensors)]
    ring = tuple(sorted(set(tensors[0].inds) & set(tensors[-1].inds))) if n > 2 else ()
    cores = []
    for k, (site, tensor) in enumerate(zip(sites, tensors, strict=True)):
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
        cores.append(do("reshape", data, (a, *size[len(left) : len(left) + 2], -1)))
    if ring:
        cores = _open_ring(cores, math.prod(tensors[0].ind_size(ix) for ix in ring))
    exponent = getattr(mpo, "exponent", 0.0)
    if exponent:
        factor = 10.0 ** (exponent / n)
        cores = [core * factor for core in cores]
    return cores


def _open_ring(cores: list, d: int) -> list:
    """Carry a periodic bond of size d through every inner site: exact, bonds grow by d."""
    eye = np.eye(d, dtype=cores[0].dtype)
    inner = []
    for core in cores[1:-1]:
        a, i, o, b = core.shape
        wide = np.einsum("aiob,rs->ariobs", core, eye)
        inner.append(wide.reshape(a * d, i, o, b * d))
    return [cores[0], *inner, cores[-1]]


def mpo_legs(mpo: MatrixProductOperator) -> Legs:
    return tuple(
        (mpo.ind_size(mpo.upper_ind(s)), mpo.ind_size(mpo.lower_ind(s)))
        for s in mpo.gen_sites_present()
    )


def core_legs(cores: Sequence) -> Legs:
    return tuple((int(c.shape[1]), int(c.shape[2])) for c in cores)


def bond_dimensions(cores: Sequence) -> tuple[int, ...]:
    """Bond dimensions between neighbouring sites, n - 1 of them."""
    return tuple(int(core.shape[3]) for core in cores[:-1])


def mpo_to_dense(mpo: MatrixProductOperator, *, shape: tuple[int, int] | None = None):
    """Dense (rows, columns) matrix of an MPO, cropped to `shape` where given."""
    return crop(cores_to_dense(mpo_cores(mpo)), shape)


def cores_to_dense(cores: Sequence):
    legs = core_legs(cores)
    rows, columns = padded_shape(legs)
    if rows * columns > 2**28:
        raise ValueError(
            f"the dense matrix of this MPO has {rows} x {columns} entries; "
            "use the measures that work on MPOs instead"
        )
    return fuse(cores_to_tensor(cores), legs)


def cores_to_tensor(cores: Sequence):
    """Tensor with one fused (input, output) index per site, see `conventions.split`."""
    result = cores[0].reshape(-1, cores[0].shape[-1])
    for core in cores[1:]:
        result = (result @ core.reshape(core.shape[0], -1)).reshape(-1, core.shape[-1])
    return result.reshape([i * o for i, o in core_legs(cores)])


def left_canonical(cores: Sequence, *, stop: int | None = None) -> tuple[list, float]:
    """Cores isometric left of `stop` (default: the last), of unit norm there, and log norm.

    The rest of the operator, from `stop` on, is not touched but for its scale: the operator is
    exp(log norm) times what is returned.
    """
    cores, log_norm = list(cores), 0.0
    last = len(cores) - 1 if stop is None else stop
    for i in range(last):
        a, j, k, b = cores[i].shape
        q, r = do("linalg.qr", cores[i].reshape(-1, b))
        size = float(do("linalg.norm", r))
        if size == 0.0:
            return cores, -math.inf
        log_norm += math.log(size)
        cores[i] = q.reshape(a, j, k, -1)
        cores[i + 1] = do("tensordot", r / size, cores[i + 1], axes=1)
    size = float(do("linalg.norm", cores[last]))
    if size == 0.0:
        return cores, -math.inf
    cores[last] = cores[last] / size
    return cores, log_norm + math.log(size)


def right_canonical(cores: Sequence, *, stop: int = 0) -> tuple[list, float]:
    """Mirror image of `left_canonical`: cores isometric right of `stop`."""
    flipped, log_norm = left_canonical(mirrored(cores), stop=len(cores) - 1 - stop)
    return mirrored(flipped), log_norm


def mirrored(cores: Sequence) -> list:
    """Sites in the opposite order."""
    return [do("transpose", core, (3, 1, 2, 0)) for core in reversed(cores)]


def spread_norm(cores: Sequence, log_norm: float) -> list:
    """Multiply by exp(log_norm), an equal share on every site: no overflow at 400 sites."""
    factor = math.exp(log_norm / len(cores))
    return [core * factor for core in cores]
