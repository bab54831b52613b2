"""The site tensors of an MPO: plain arrays instead of a quimb object.

Inside the package an operator is a list of *site tensors*, one array (left bond, input, output,
right bond) per site, the outer bonds of size 1. `site_tensors` and `mpo_from_tensors` convert from
and to quimb's `MatrixProductOperator`, by index name and never by position. All functions keep the
backend, dtype and device of their arrays.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from autoray import do

from mpodis.arrays import (
    as_array,
    norm_parts,
    size_exponent,
    times_power_of_two,
)
from mpodis.conventions import Array, Legs, crop, fuse, padded_shape

if TYPE_CHECKING:
    import numpy as np
    from quimb.tensor import MatrixProductOperator

__all__ = [
    "bond_dimensions",
    "check_mpo",
    "direct_sum",
    "identity_tensors",
    "is_mpo",
    "left_canonical",
    "legs_of",
    "mirrored",
    "mpo_from_tensors",
    "mpo_legs",
    "mpo_to_dense",
    "right_canonical",
    "schmidt_canonical",
    "site_tensors",
    "spread_norm",
    "spread_power_of_two",
    "tensors_to_dense",
]


def is_mpo(value: object) -> TypeGuard[MatrixProductOperator]:
    """Whether a value is quimb's `MatrixProductOperator`; quimb is imported if it must be."""
    from quimb.tensor import MatrixProductOperator

    return isinstance(value, MatrixProductOperator)


def mpo_from_tensors(tensors: Sequence[Array]) -> MatrixProductOperator:
    """quimb's MPO from site tensors (left bond, input, output, right bond).

    Examples
    --------
    >>> import numpy as np
    >>> mpo = mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * 3)
    >>> mpo_to_dense(mpo).shape
    (8, 8)
    """
    from quimb.tensor import MatrixProductOperator

    arrays = list(tensors)
    first, last = arrays[0], arrays[-1]
    if len(arrays) == 1:
        return MatrixProductOperator([first.reshape(first.shape[1:3])], shape="lrud")
    arrays[0], arrays[-1] = first[0], last[..., 0]
    return MatrixProductOperator(arrays, shape="ludr")


def check_mpo(mpo: object) -> None:
    """A TypeError for what is no MPO of quimb."""
    if not is_mpo(mpo):
        raise TypeError(
            f"expected a quimb MatrixProductOperator, got {type(mpo).__name__}; "
            "turn a dense matrix into one with `compress`"
        )


def site_tensors(mpo: MatrixProductOperator) -> list[Array]:
    """Site tensors (left bond, input, output, right bond) of any quimb MPO.

    The MPO may have any order of legs, bonds that are missing or doubled, a periodic bond, a
    stripped exponent, and any sites and index names.

    Raises
    ------
    TypeError
        If the argument is not an MPO.
    ValueError
        If a site has several tensors, or an index that leads to no neighbour.
    """
    check_mpo(mpo)
    sites = list(mpo.gen_sites_present())
    n = len(sites)
    parts: list[Array] = []
    for site in sites:
        tensor = mpo[site]
        if isinstance(tensor, tuple):
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
        data = as_array(data, what=f"tensor of site {site}", gradients=True)
        size = [tensor.ind_size(ix) for ix in (*left, upper, lower, *right)]
        a = math.prod(size[: len(left)])
        tensors.append(do("reshape", data, (a, *size[len(left) : len(left) + 2], -1)))
    if ring:
        tensors = _open_ring(tensors, math.prod(parts[0].ind_size(ix) for ix in ring))
    if mpo.exponent:
        factor = 10.0 ** (float(mpo.exponent) / n)
        tensors = [tensor * factor for tensor in tensors]
    return tensors


def _open_ring(tensors: list[Array], d: int) -> list[Array]:
    """Carry a periodic bond of size d through every inner site: exact, bonds grow by d."""
    eye = do("eye", d, like=tensors[0])
    inner = []
    for tensor in tensors[1:-1]:
        a, i, o, b = tensor.shape
        wide = do("einsum", "aiob,rs->ariobs", tensor, eye)
        inner.append(wide.reshape(a * d, i, o, b * d))
    return [tensors[0], *inner, tensors[-1]]


def mpo_legs(mpo: MatrixProductOperator) -> Legs:
    """(input, output) dimension of every site of an MPO."""
    check_mpo(mpo)
    return tuple(
        (mpo.ind_size(mpo.upper_ind(s)), mpo.ind_size(mpo.lower_ind(s)))
        for s in mpo.gen_sites_present()
    )


def legs_of(tensors: Sequence[Array]) -> Legs:
    """(input, output) dimension of every site tensor."""
    return tuple((int(c.shape[1]), int(c.shape[2])) for c in tensors)


def bond_dimensions(tensors: Sequence[Array]) -> tuple[int, ...]:
    """Bond dimensions between neighbouring sites, n - 1 of them."""
    return tuple(int(tensor.shape[3]) for tensor in tensors[:-1])


def identity_tensors(legs: Legs) -> list[np.ndarray]:
    """Site tensors of the identity, of norm 1; where a leg has dimension 1, of |0> or <0|."""
    import numpy as np

    return [np.eye(i, o).reshape(1, i, o, 1) / math.sqrt(min(i, o)) for i, o in legs]


def mpo_to_dense(mpo: MatrixProductOperator, *, shape: tuple[int, int] | None = None) -> Array:
    """Dense (rows, columns) matrix of an MPO, cropped to `shape` if it is given.

    Raises
    ------
    ValueError
        If the matrix has more than 2^28 entries, or fewer rows or columns than `shape`.
    OverflowError
        If an entry is too large for its type.
    """
    tensors, exponent = ordinary_size(site_tensors(mpo))
    return times_power_of_two(crop(tensors_to_dense(tensors), shape), exponent)


def ordinary_size(tensors: Sequence[Array]) -> tuple[Sequence[Array], int]:
    """Site tensors over powers of two and the exponent of their product.

    That is 0, unless sums in the contraction may be beyond the largest number, or below the
    smallest, where the entries of the operator are not.
    """
    import numpy as np

    if not all(isinstance(tensor, np.ndarray) for tensor in tensors):
        return tensors, 0
    exponents = [size_exponent(tensor) for tensor in tensors]
    limit = min(np.finfo(tensor.dtype).maxexp for tensor in tensors) // 2
    if abs(sum(exponents)) < limit:
        return tensors, 0
    found = [times_power_of_two(x, -k) for x, k in zip(tensors, exponents, strict=True)]
    return found, sum(exponents)


def tensors_to_dense(tensors: Sequence[Array]) -> Array:
    """Dense (rows, columns) matrix of site tensors, see `mpo_to_dense`."""
    legs = legs_of(tensors)
    rows, columns = padded_shape(legs)
    if rows * columns > 2**28:
        raise ValueError(
            f"the dense matrix of this MPO has {rows} x {columns} entries; "
            "use the measures that work on MPOs instead"
        )
    result = tensors[0].reshape(-1, tensors[0].shape[-1])  # (sites so far, bond)
    for tensor in tensors[1:]:
        result = (result @ tensor.reshape(tensor.shape[0], -1)).reshape(-1, tensor.shape[-1])
    return fuse(result, legs)


def left_canonical(
    tensors: Sequence[Array], *, stop: int | None = None
) -> tuple[list[Array], float]:
    """Site tensors that are isometric left of site `stop` (by default the last), and a log norm.

    The tensor at `stop` has norm 1, those right of it are as they were: the operator is
    exp(log norm) times the one that is returned. The log norm of zero is -inf.
    """
    tensors, log_norm = list(tensors), 0.0
    last = len(tensors) - 1 if stop is None else stop
    for i in range(last):
        a, j, k, b = tensors[i].shape
        q, r, size, exponent = _qr(tensors[i].reshape(-1, b))
        if size == 0.0:
            return tensors, -math.inf
        log_norm += math.log(size) + exponent * math.log(2)
        tensors[i] = q.reshape(a, j, k, -1)
        tensors[i + 1] = do("tensordot", r / size, tensors[i + 1], axes=1)
    size, exponent = norm_parts(tensors[last])
    if size == 0.0:
        return tensors, -math.inf
    tensors[last] = times_power_of_two(tensors[last], -exponent) / size
    return tensors, log_norm + (math.log(size) + exponent * math.log(2))


def _qr(matrix: Array) -> tuple[Array, Array, float, int]:
    """Q, R / 2^k, the norm of R / 2^k, and k, which is 0 unless that norm would not be a number."""
    q, r = do("linalg.qr", matrix)
    size, exponent = norm_parts(r)
    if exponent or not 0.0 < size < math.inf:
        exponent = size_exponent(matrix)
        q, r = do("linalg.qr", times_power_of_two(matrix, -exponent))
        size = float(do("linalg.norm", r))
    return q, r, size, exponent


def right_canonical(tensors: Sequence[Array], *, stop: int = 0) -> tuple[list[Array], float]:
    """Site tensors that are isometric right of site `stop`, see `left_canonical`."""
    flipped, log_norm = left_canonical(mirrored(tensors), stop=len(tensors) - 1 - stop)
    return mirrored(flipped), log_norm


def schmidt_canonical(
    tensors: Sequence[np.ndarray], cutoff: float = 0.0
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Site tensors that are isometric from the right, Schmidt values of every bond, and a log norm.

    Parameters
    ----------
    tensors : list of arrays (left bond, input, output, right bond)
        Of numpy.
    cutoff : float
        Schmidt values below `cutoff` times the largest of their bond are dropped.

    Returns
    -------
    list of arrays, list of arrays, float
        The Schmidt values, descending and of norm 1, are those of the bond left of every site and
        of the one right of the last. The operator is exp(log norm) times that of the sites; that
        of zero is -inf.
    """
    import numpy as np

    sites, log_norm = left_canonical(tensors)
    weights = [np.ones(1)] * (len(sites) + 1)
    if log_norm == -math.inf:
        return [0 * site[:1, ..., :1] for site in sites], weights, log_norm
    for k in range(len(sites) - 1, 0, -1):
        a, i, o, b = sites[k].shape
        u, s, vh = np.linalg.svd(sites[k].reshape(a, -1), full_matrices=False)
        keep = max(1, int((s > cutoff * s[0]).sum()))
        weights[k] = s[:keep] / np.linalg.norm(s[:keep])
        sites[k] = vh[:keep].reshape(keep, i, o, b)
        before = sites[k - 1]
        carried = before.reshape(-1, a) @ (u[:, :keep] * s[:keep])
        sites[k - 1] = carried.reshape(*before.shape[:3], keep)
    return sites, weights, log_norm


def direct_sum(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Site tensors of the sum of two operators, of numpy."""
    import numpy as np

    found = []
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        left, right = k > 0, k < len(a) - 1  # where bonds are stacked
        shape = (x.shape[0] + left * y.shape[0], *x.shape[1:3], x.shape[3] + right * y.shape[3])
        site = np.zeros(shape, np.result_type(x, y))
        site[: x.shape[0], ..., : x.shape[3]] += x
        site[left * x.shape[0] :, ..., right * x.shape[3] :] += y
        found.append(site)
    return found


def mirrored(tensors: Sequence[Array]) -> list[Array]:
    """The sites in the opposite order."""
    return [do("transpose", tensor, (3, 1, 2, 0)) for tensor in reversed(tensors)]


def spread_norm(tensors: Sequence[Array], log_norm: float) -> list[Array]:
    """exp(log_norm) times the operator, an equal factor on every site: no overflow at 400 sites."""
    share, exponent = log_norm / len(tensors), 0
    if 700 < abs(share) < math.inf:  # near the largest and the smallest number
        exponent = round(share / math.log(2))
        share -= exponent * math.log(2)
    factor = math.exp(share)
    return [times_power_of_two(tensor * factor, exponent) for tensor in tensors]


def spread_power_of_two(tensors: Sequence[Array], exponent: int) -> list[Array]:
    """2^exponent times the operator, exact, in shares that are powers of two."""
    if not exponent:
        return list(tensors)
    share, more = divmod(exponent, len(tensors))
    return [times_power_of_two(tensor, share + (k < more)) for k, tensor in enumerate(tensors)]
