"""What users call an operator as an MPO; canonical form; truncation with its exact error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from autoray import do

from mpodis.arguments import as_shape, check_count, check_number, is_integer
from mpodis.arrays import as_array, check_finite, rescaled, times_power_of_two
from mpodis.conventions import (
    Array,
    Legs,
    check_legs,
    crop,
    pad,
    padded_shape,
    qubit_legs,
    split,
    to_numpy,
)
from mpodis.layers import is_module, read_layer
from mpodis.sites import (
    bond_dimensions,
    is_mpo,
    left_canonical,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    right_canonical,
    site_tensors,
    spread_norm,
    spread_power_of_two,
    tensors_to_dense,
)
from mpodis.tables import Table, Tabular, number

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = [
    "Compressed",
    "Operator",
    "as_compressed",
    "as_mpo",
    "canonical_form",
    "compress",
    "truncate",
]

Operator: TypeAlias = Any
"""A linear map that users give in the form in which they have it, see `as_mpo`."""

ROUNDING = 45
"""Relative singular values of so many machine epsilons are noise (1e-14 in double precision)."""


@dataclass(frozen=True, eq=False)
class Compressed(Tabular):
    """An MPO and its distance from the operator that it approximates.

    Attributes
    ----------
    mpo : quimb.tensor.MatrixProductOperator
    shape : (inputs, outputs)
        Of the matrix before zero padding.
    relative_error : float
        |W - MPO| / |W| (Frobenius), exact. For an MPO that was truncated from another one it is
        the square root of the discarded weights, which add up because the projections are nested.
    """

    mpo: MatrixProductOperator
    shape: tuple[int, int]
    relative_error: float

    @property
    def legs(self) -> Legs:
        """(input, output) dimension of every site."""
        return mpo_legs(self.mpo)

    @property
    def bonds(self) -> tuple[int, ...]:
        """Bond dimensions between neighbouring sites."""
        return bond_dimensions(site_tensors(self.mpo))

    @property
    def parameters(self) -> int:
        """Numbers stored in the site tensors."""
        return sum(math.prod(tensor.shape) for tensor in site_tensors(self.mpo))

    def to_dense(self) -> Array:
        """Dense (inputs, outputs) matrix, without the padding."""
        return mpo_to_dense(self.mpo, shape=self.shape)

    def table(self) -> Table:
        """Sizes, bond dimensions, parameters and error."""
        padded = padded_shape(self.legs)
        padding = "none" if padded == self.shape else f"to {_size(*padded)}"
        bonds = self.bonds
        shown = " ".join(map(str, bonds)) if len(bonds) <= 16 else f"up to {max(bonds)}"
        return Table(
            ("compressed", ""),
            [
                ("matrix", _size(*self.shape)),
                ("zero padding", padding),
                ("sites", len(self.legs)),
                ("bond dimensions", shown),
                ("parameters", self.parameters),
                ("parameters, dense", _short(self.shape[0] * self.shape[1])),
                ("relative error", float(self.relative_error)),
            ],
        )


def as_mpo(operator: Operator) -> MatrixProductOperator:
    """A linear map as quimb's MPO, in whatever form it is given.

    What is no MPO becomes one on qubit legs, zero-padded to powers of two and not truncated, as
    `compress` makes it. `entanglement`, `disentangle`, `overlap`, `truncate`, the bounds and other
    functions that take an operator take the same forms.

    Parameters
    ----------
    operator : array, torch layer, Compressed or MatrixProductOperator
        - A dense matrix (inputs, outputs) of numpy, torch or jax, whose backend, dtype and device
          the MPO keeps (half precision becomes single), or anything with a method `to_dense` that
          returns one, such as a `Factorization`.
        - A layer that multiplies by a matrix: `torch.nn.Linear`, whose (outputs, inputs) is
          transposed, a 1 x 1 convolution, or a layer of `mpodis.nn`; an `MPOLinear` keeps its legs.
          The weight is copied to numpy, the bias is not part of the operator.
        - A `Compressed` or an MPO, which is returned as it is.

    Raises
    ------
    TypeError
        For anything else, such as a whole network.
    ValueError
        Not a matrix, NaN or infinite entries, or all zeros.

    Examples
    --------
    >>> import numpy as np
    >>> as_mpo(np.eye(8)).bond_sizes()
    [1, 1]
    """
    return as_compressed(operator).mpo


def as_compressed(operator: Operator, *, shape: tuple[int, int] | None = None) -> Compressed:
    """`as_mpo` together with the shape before zero padding, or with the one that is given."""
    found = mpo_or_matrix(operator)
    if not isinstance(found, Compressed):
        found = compress(found)
    return found if shape is None else replace(found, shape=as_shape(shape))


def mpo_or_matrix(operator: Operator) -> Compressed | Array:
    """A `Compressed` where the operator is an MPO, else its matrix (inputs, outputs), unchecked."""
    if isinstance(operator, Compressed):
        return operator
    if isinstance(operator, list | tuple) or hasattr(operator, "__array__"):
        return operator
    if is_mpo(operator):
        return Compressed(_plain_mpo(operator), padded_shape(mpo_legs(operator)), 0.0)
    if hasattr(operator, "to_mpo"):  # an MPOLinear
        return Compressed(operator.to_mpo(), (operator.inputs, operator.outputs), 0.0)
    weight = getattr(operator, "weight", None)
    if callable(weight) and hasattr(operator, "inputs"):  # another layer of mpodis.nn
        return check_matrix(weight())
    if is_module(operator):
        try:
            found = read_layer(operator)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{type(operator).__name__} is not read as an operator: {error}"
            ) from None
        if found is not None:
            return to_numpy(found.matrix)
    if hasattr(operator, "to_dense") and not hasattr(operator, "tensor_map"):  # quimb's networks
        return operator.to_dense()
    hint = ""
    if hasattr(operator, "coefs_"):
        hint = "; of this network give a matrix, such as coefs_[0]"
    elif callable(getattr(operator, "children", None)):
        hint = "; of a network give one layer, such as model.fc1 or model[0]"
    raise TypeError(
        f"{type(operator).__name__} is not read as an operator: give a matrix (inputs, outputs), a "
        f"torch.nn.Linear, a quimb MatrixProductOperator or a Compressed{hint}"
    )


def _plain_mpo(mpo: MatrixProductOperator) -> MatrixProductOperator:
    """The MPO itself, or a copy whose arrays are plain where its own are not."""
    arrays = [tensor.data for tensor in mpo.tensors]
    plain = [as_array(array, what="MPO") for array in arrays]
    same = all(
        type(a) is type(b) and a.dtype == b.dtype and not getattr(a, "requires_grad", False)
        for a, b in zip(arrays, plain, strict=True)
    )
    if same:
        return mpo
    copied = mpo.copy()
    for tensor, array in zip(copied.tensors, plain, strict=True):
        tensor.modify(data=array)
    return copied


def compress(
    operator: Operator,
    *,
    legs: Sequence[Sequence[int]] | None = None,
    max_bond: int | None = None,
    cutoff: float | None = None,
    rel_error: float | None = None,
    align: str = "centre",
) -> Compressed:
    """Turn a dense (inputs, outputs) matrix or a layer into an MPO by TT-SVD.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        Real or complex, see `as_mpo`. What is an MPO already is truncated, see `truncate`, unless
        `legs` are given.
    legs : sequence of (input, output) dimensions, optional
        One pair per site, e.g. ((7, 4), (2, 2), (7, 4)). Default: qubits, see `qubit_legs`.
    max_bond : int, optional
        Largest bond dimension to keep.
    cutoff : float, optional
        Singular values below `cutoff` times the largest of their bond are dropped. By default
        that is the rounding of the dtype, 1e-14 in double precision.
    rel_error : float, optional
        Largest |W - MPO| / |W| that truncation may cause.
    align : {"centre", "left", "right"}
        On which sites the side with fewer qubits has them, see `qubit_legs`.

    Returns
    -------
    Compressed

    Raises
    ------
    TypeError
        If it is none of these forms.
    ValueError
        Not a matrix, NaN or infinite entries, all zeros, legs that are too small, or a
        `max_bond` below 1.

    Examples
    --------
    >>> import numpy as np
    >>> compress(np.outer(np.arange(1.0, 9), np.ones(8))).bonds
    (2, 2)
    """
    found = mpo_or_matrix(operator)
    if isinstance(found, Compressed) and legs is None:
        if align != "centre":
            raise ValueError(f"align={align!r}: an MPO keeps its legs; give legs= to change them")
        return truncate(found, max_bond=max_bond, cutoff=cutoff, rel_error=rel_error)
    matrix = check_array(found)
    shape = (int(matrix.shape[0]), int(matrix.shape[1]))
    sites = qubit_legs(*shape, align=align) if legs is None else check_legs(legs)
    scaled, exponent = rescaled(matrix)
    largest = float(do("max", do("abs", scaled)))
    scale = largest * float(do("linalg.norm", scaled / largest))
    unit = scaled / scale
    tensors = _tt_svd(split(pad(unit, sites), sites), sites, _Cut(max_bond, cutoff, rel_error))
    # measured, not added up: cropping removes what the truncation left in the padding
    error = float(do("linalg.norm", unit - crop(tensors_to_dense(tensors), shape)))
    # the power of two is exact: what follows has the bits that it has for an ordinary norm
    tensors = spread_power_of_two(spread_norm(tensors, math.log(scale)), exponent)
    return Compressed(mpo_from_tensors(tensors), shape, error)


def truncate(
    operator: Operator,
    *,
    max_bond: int | None = None,
    cutoff: float | None = None,
    rel_error: float | None = None,
) -> Compressed:
    """An MPO of smaller bond dimension, by SVDs at the canonical centre, and its exact error.

    The paper's M' (Sec. IV.1) is `truncate(mpo, max_bond=1)`. It is only quasi-optimal; see
    `mpodis.fit_core` for the variational one.

    Parameters
    ----------
    operator : MatrixProductOperator, Compressed, array or torch layer
        See `as_mpo`. The error is that of its MPO, padding included.
    max_bond, cutoff, rel_error
        As for `compress`.

    Raises
    ------
    ValueError
        If the MPO is zero everywhere, or a parameter is out of range.
    """
    given = as_compressed(operator)
    tensors, error = truncate_tensors(
        site_tensors(given.mpo), max_bond=max_bond, cutoff=cutoff, rel_error=rel_error
    )
    return Compressed(mpo_from_tensors(tensors), given.shape, error)


def truncate_tensors(
    tensors: Sequence[Array],
    *,
    max_bond: int | None = None,
    cutoff: float | None = None,
    rel_error: float | None = None,
) -> tuple[list[Array], float]:
    """`truncate` of an operator given by its site tensors: theirs, and the relative error."""
    tensors, log_norm = left_canonical(tensors)
    if log_norm == -math.inf:
        raise ValueError("the MPO is zero everywhere; nothing to truncate")
    cut = _Cut(max_bond, cutoff, rel_error)
    discarded = 0.0
    for i in range(len(tensors) - 1, 0, -1):
        left, *legs, right = tensors[i].shape
        u, s, vh = do("linalg.svd", tensors[i].reshape(left, -1))
        keep, lost = cut(s, discarded, i)
        discarded += lost
        tensors[i] = vh[:keep].reshape(keep, *legs, right)
        tensors[i - 1] = do("tensordot", tensors[i - 1], u[:, :keep] * s[:keep], axes=1)
    return spread_norm(tensors, log_norm), math.sqrt(discarded)


def canonical_form(operator: Operator, *, centre: int = 0) -> MatrixProductOperator:
    """The operator, see `as_mpo`, with site tensors that are isometric around site `centre`.

    Raises
    ------
    ValueError
        If there is no such site.
    OverflowError
        If the norm, which the tensor at the centre gets, is not a floating-point number.
    """
    tensors = site_tensors(as_mpo(operator))
    if not (is_integer(centre) and -len(tensors) <= centre < len(tensors)):
        raise ValueError(f"centre={centre!r} is not one of the {len(tensors)} sites")
    centre %= len(tensors)
    # canonising outwards-in leaves each half isometric towards the centre
    tensors, log_left = left_canonical(tensors, stop=centre)
    tensors, log_right = right_canonical(tensors, stop=centre)
    log_norm = log_left + log_right
    exponent = 0 if abs(log_norm) < 700 or log_norm == -math.inf else round(log_norm / math.log(2))
    try:
        rest = tensors[centre] * math.exp(log_norm - exponent * math.log(2))
        tensors[centre] = times_power_of_two(rest, exponent)
        lost = exponent < 0 and not bool((tensors[centre] != 0).any())
    except OverflowError:
        lost = True
    if lost:
        raise OverflowError(
            f"the norm of this MPO is exp({log_norm:.0f}); divide it by its norm "
            "(`mpodis.log_norm`) before asking for one canonical centre"
        )
    return mpo_from_tensors(tensors)


def check_array(operator: Operator) -> Array:
    """A finite, non-zero matrix of plain numbers, see `arrays.as_array`, in its own backend.

    Layers and MPOs, see `as_mpo`, become dense, without padding.

    Raises
    ------
    TypeError, ValueError
        If it is something else.
    """
    found = mpo_or_matrix(operator)
    matrix = found.to_dense() if isinstance(found, Compressed) else found
    matrix = as_array(matrix, what="matrix")
    if matrix.ndim != 2:
        raise ValueError(
            f"expected a matrix (inputs, outputs), got an array of shape {tuple(matrix.shape)}; "
            "reshape it to two dimensions first"
        )
    if not math.prod(matrix.shape):
        raise ValueError(f"the matrix of shape {tuple(matrix.shape)} is empty")
    check_finite(matrix, what="matrix", remedy="replace them before compressing")
    if not bool((matrix != 0).any()):
        raise ValueError(f"the matrix of shape {tuple(matrix.shape)} is zero everywhere")
    return matrix


def check_matrix(operator: Operator) -> np.ndarray:
    """`check_array`, converted to numpy."""
    return to_numpy(check_array(operator))


class _Cut:
    """How many singular values of a bond to keep, and the weight that is discarded."""

    def __init__(self, max_bond: int | None, cutoff: float | None, rel_error: float | None) -> None:
        if max_bond is not None:
            check_count("max_bond", max_bond)
        for name, value in (("cutoff", cutoff), ("rel_error", rel_error)):
            if value is not None:
                check_number(name, value, 0, below=1)
        self.max_bond, self.cutoff, self.rel_error = max_bond, cutoff, rel_error

    def __call__(self, values: Array, discarded: float, bonds_left: int) -> tuple[int, float]:
        """Number of values to keep and discarded weight, of an operator of norm 1.

        `values` descend, `discarded` is the weight that other bonds have lost before, and
        `bonds_left` is how many bonds are still to be cut, this one included.
        """
        s = to_numpy(values)
        cutoff = ROUNDING * np.finfo(s.dtype).eps if self.cutoff is None else self.cutoff
        keep = max(1, int((s > cutoff * s[0]).sum()))
        tail = np.cumsum(s.astype(float)[::-1] ** 2)[::-1]  # weight from each index on
        if self.rel_error is not None:
            # every bond may use an equal share of the error that is left
            budget = (self.rel_error**2 - discarded) / bonds_left
            keep = min(keep, max(1, int((tail > budget).sum())))
        if self.max_bond is not None:
            keep = min(keep, self.max_bond)
        return keep, float(tail[keep]) if keep < len(tail) else 0.0


def _tt_svd(tensor: Array, legs: Legs, cut: _Cut) -> list[Array]:
    """Site tensors of a unit-norm tensor over sites, by TT-SVD."""
    rest, tensors, discarded = tensor.reshape(1, -1), [], 0.0
    n = len(legs)
    for k, (i, o) in enumerate(legs[:-1]):
        a = rest.shape[0]
        u, s, vh = do("linalg.svd", rest.reshape(a * i * o, -1))
        keep, lost = cut(s, discarded, n - 1 - k)
        discarded += lost
        tensors.append(u[:, :keep].reshape(a, i, o, keep))
        rest = s[:keep, None] * vh[:keep]
    tensors.append(rest.reshape(rest.shape[0], *legs[-1], 1))
    return tensors


def _size(rows: int, columns: int) -> str:
    """A shape as text."""
    return " x ".join(number(_short(n)) for n in (rows, columns))


def _short(count: int) -> int | str:
    """A count, or the power of two of a large one."""
    return count if count < 10**9 else f"2^{math.log2(count):.4g}"
