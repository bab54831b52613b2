"""Overlaps, bond spectra, entanglement entropies and the von Neumann bound.

All but the bound work on MPOs site by site with logarithms of norms, so that 400 sites neither
overflow nor need the dense matrix. Operators may be arrays of numpy, torch or jax; figures are
Python and numpy numbers. Entropies are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from autoray import do

from mpodis.arguments import check_count
from mpodis.arrays import (
    as_numpy,
    check_finite,
    rescaled,
    size_exponent,
    times_power_of_two,
)
from mpodis.conventions import Array, in_one_backend, padded_shape, promoted, to_numpy
from mpodis.gates import check_group
from mpodis.mpo import Compressed, Operator, as_mpo, check_array, mpo_or_matrix
from mpodis.sites import (
    bond_dimensions,
    check_mpo,
    left_canonical,
    legs_of,
    site_tensors,
    tensors_to_dense,
)
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from quimb.tensor import MatrixProductOperator

__all__ = [
    "Entanglement",
    "bond_spectra",
    "count_parameters",
    "entanglement",
    "log_norm",
    "max_average_entropy",
    "overlap",
    "second_moment",
    "von_neumann_bound",
]


def log_norm(operator: Operator) -> float:
    """Natural logarithm of the Frobenius norm of an operator in any form, see `as_mpo`."""
    return left_canonical(site_tensors(as_mpo(operator)))[1]


def overlap(a: Operator, b: Operator) -> float:
    """f = Re Tr(A^H B) / (|A| |B|), Eq. 2 of arXiv 2509.06653v1 with the dagger it leaves out.

    It is the cosine of the angle between two operators of the same legs: 1 if they are equal up to
    a positive factor. Either may have any of the forms of `as_mpo`.

    Raises
    ------
    ValueError
        If the legs differ, or an operator is zero everywhere.

    Examples
    --------
    >>> import numpy as np
    >>> round(overlap(np.diag([2.0, 1.0]), np.eye(2)), 4)
    0.9487
    """
    return tensors_overlap(site_tensors(as_mpo(a)), site_tensors(as_mpo(b)))


def tensors_overlap(a: Sequence[Array], b: Sequence[Array]) -> float:
    """`overlap` of operators given as site tensors."""
    if legs_of(a) != legs_of(b):
        raise ValueError(
            f"the operators have different legs, {legs_of(a)} and {legs_of(b)}; "
            "compress both with the same `legs`"
        )
    tensors = promoted(in_one_backend([*a, *b]))
    a, log_a = left_canonical(tensors[: len(a)])
    b, log_b = left_canonical(tensors[len(a) :])
    for norm in (log_a, log_b):
        if norm == -math.inf:
            raise ValueError("the overlap with an MPO that is zero everywhere is not defined")
    # both have norm 1 now, so the product of transfer matrices cannot overflow
    log_size = 0.0
    env = do("ones", (1, 1), like=a[0])
    for x, y in zip(a, b, strict=True):
        env = do("tensordot", env, y, axes=((1,), (0,)))  # (a, i, o, b')
        env = do("tensordot", do("conj", x), env, axes=((0, 1, 2), (0, 1, 2)))  # (a', b')
        size = float(do("linalg.norm", env))
        if size == 0.0:
            return 0.0
        env, log_size = env / size, log_size + math.log(size)
    return complex(env[0, 0]).real * math.exp(log_size)  # the last env is a phase


def bond_spectra(operator: Operator) -> tuple[np.ndarray, ...]:
    """Normalised singular values, descending, of every bipartition (below Eq. 5).

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        A dense matrix has qubit legs, see `as_mpo`.

    Returns
    -------
    tuple of n - 1 arrays

    Raises
    ------
    ValueError
        If the operator is zero everywhere.
    """
    return tensor_spectra(site_tensors(as_mpo(operator)))


def tensor_spectra(tensors: Sequence[Array]) -> tuple[np.ndarray, ...]:
    """`bond_spectra` of site tensors."""
    tensors, log_size = left_canonical(tensors)
    if log_size == -math.inf:
        raise ValueError("an operator that is zero everywhere has no entanglement spectrum")
    spectra = []
    for i in range(len(tensors) - 1, 0, -1):
        left = tensors[i].shape[0]
        u, s, _ = do("linalg.svd", tensors[i].reshape(left, -1))
        spectra.append(to_numpy(s).astype(float))
        tensors[i - 1] = do("tensordot", tensors[i - 1], u * s, axes=1)
    return tuple(s / np.linalg.norm(s) for s in reversed(spectra))


def entropy(spectrum: np.ndarray) -> float:
    """-sum p log p of p = spectrum^2 (nats)."""
    p = np.asarray(spectrum) ** 2
    p = p[p > 0]
    return max(0.0, float(-(p * np.log(p)).sum()))


def tensor_entropies(tensor: np.ndarray) -> np.ndarray:
    """S_k of a dense tensor over sites (`conventions.split`), by one SVD a bond."""
    scaled = tensor / np.linalg.norm(tensor)
    values = []
    for k in range(1, tensor.ndim):
        rows = math.prod(tensor.shape[:k])
        values.append(entropy(np.linalg.svd(scaled.reshape(rows, -1), compute_uv=False)))
    return np.array(values)


@dataclass(frozen=True, eq=False)
class Entanglement(Tabular):
    """Entanglement of an operator, bond by bond (Eqs. 5 and 6 of arXiv 2509.06653v1).

    Attributes
    ----------
    spectra : tuple of arrays
        Normalised singular values of each bond.
    bonds : tuple of int
        Bond dimensions of the MPO.
    """

    spectra: tuple[np.ndarray, ...]
    bonds: tuple[int, ...]

    @property
    def entropies(self) -> np.ndarray:
        """S_k of every bond, in nats."""
        return np.array([entropy(s) for s in self.spectra])

    @property
    def average(self) -> float:
        """S_avg; 0 for a single site, which has no bond."""
        return float(self.entropies.mean()) if self.spectra else 0.0

    @property
    def maximum(self) -> float:
        """The largest S_avg that these bond dimensions allow (Eq. 6)."""
        return max_average_entropy(self.bonds)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw S_k of every bond below log chi_k, see `mpodis.plots.plot_entropies`."""
        from mpodis.plots import plot_entropies

        return plot_entropies(self, ax=ax)

    def table(self) -> Table:
        """A row for every bond, and the average."""
        rows: list[tuple[object, ...]] = [
            (str(k + 1), len(s), chi, entropy(s), math.log(chi), float(s[0]) ** 2)
            for k, (s, chi) in enumerate(zip(self.spectra, self.bonds, strict=True))
        ]
        rows.append(("average", None, None, self.average, self.maximum, None))
        return Table(
            ("bond", "rank", "chi", "S (nats)", "log chi", "largest weight"),
            rows,
            title="entanglement",
        )


def entanglement(operator: Operator) -> Entanglement:
    """Spectra and entropies of a matrix, a layer or an MPO, see `as_mpo` and `bond_spectra`.

    Examples
    --------
    >>> import numpy as np
    >>> entanglement(np.eye(8)).average
    0.0
    """
    tensors = site_tensors(as_mpo(operator))
    return Entanglement(tensor_spectra(tensors), bond_dimensions(tensors))


def max_average_entropy(bonds: Sequence[int]) -> float:
    """Mean of log chi_k over the bonds (Eq. 6); 0 without bonds."""
    for bond in bonds:
        check_count("bond", bond)
    return float(np.mean([math.log(chi) for chi in bonds])) if len(bonds) else 0.0


def von_neumann_bound(a: Operator, b: Operator, *, group: str = "U") -> float:
    """sum_i s_i(A) s_i(B) / (|A| |B|): no circuits around B reach a larger overlap with A.

    This is von Neumann's trace inequality; gates as wide as the operator reach it.

    Parameters
    ----------
    a, b : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        A dense matrix may have any shape and is not padded.
    group : {"SO", "O", "U"}
        Group of the circuits' matrices, see `circuit_group`. Between real square operators with
        determinants of opposite sign, circuits of determinant +1 ("SO") reach no more than
        sum_i s_i t_i - 2 s_min t_min (Miranda and Thompson, Linear Algebra Appl. 1993).
    """
    check_group(group)
    a, b = (_tensors_or_matrix(x) for x in (a, b))
    s, t = singular_values(a), singular_values(b)
    opposite = group == "SO" and _determinant_sign(a, s) * _determinant_sign(b, t) < 0
    return spectral_bound(s, t, opposite=opposite)


def _tensors_or_matrix(operator: Operator) -> list[Array] | Array:
    """Site tensors of what is an MPO, else the dense matrix."""
    found = mpo_or_matrix(operator)
    return site_tensors(found.mpo) if isinstance(found, Compressed) else check_array(found)


def spectral_bound(s: np.ndarray, t: np.ndarray, *, opposite: bool = False) -> float:
    """`von_neumann_bound` from descending singular values.

    `opposite` says that the determinants differ in sign and that the circuits cannot change that.
    """
    k = min(len(s), len(t))
    lost = 2 * s[-1] * t[-1] if opposite else 0.0
    return float((s[:k] @ t[:k] - lost) / (np.linalg.norm(s) * np.linalg.norm(t)))


def _determinant_sign(operator: Array, values: np.ndarray) -> float:
    """Sign of the determinant of a matrix or of site tensors; 0 if not real, square and regular.

    `values` are the operator's descending singular values.
    """
    if values[-1] <= 1e-13 * len(values) * values[0]:
        return 0.0  # the sign is that of rounding errors, and the smallest value is negligible
    if isinstance(operator, list | tuple):
        is_product = all(chi == 1 for chi in bond_dimensions(operator))
        if is_product and len(operator) > 1 and set(legs_of(operator)) == {(2, 2)}:
            real = all("complex" not in str(tensor.dtype) for tensor in operator)
            return 1.0 if real else 0.0  # an even power of the determinant of every site
        operator = tensors_to_dense(_moderate(operator))
    dense = rescaled(to_numpy(operator))[0]
    if dense.dtype.kind == "c" or dense.shape[0] != dense.shape[1]:
        return 0.0
    return float(np.linalg.slogdet(dense)[0])


def singular_values(operator: Array) -> np.ndarray:
    """Descending singular values of a dense matrix or of site tensors, up to a common factor.

    Those of a product operator are products of the sites' values. The factor is a power of two,
    and is 1 unless squares of the values over- or underflow.
    """
    if isinstance(operator, list | tuple):
        rows, columns = padded_shape(legs_of(operator))
        if min(rows, columns) > 2**13:
            raise ValueError(
                f"the von Neumann bound needs all singular values of a {rows} x {columns} "
                "operator; it is out of reach above 2^13"
            )
        if all(chi == 1 for chi in bond_dimensions(operator)):
            values = np.ones(1)
            for tensor in _moderate(operator):
                site = to_numpy(tensor)[0, :, :, 0]
                values = np.kron(values, np.linalg.svd(site, compute_uv=False))
            return np.sort(values)[::-1]
        operator = tensors_to_dense(_moderate(operator))
    return np.linalg.svd(rescaled(to_numpy(operator))[0], compute_uv=False)


def _moderate(tensors: Sequence[Array]) -> list[Array]:
    """The operator divided by a power of two where products of its entries may overflow."""
    exponents = [size_exponent(tensor) for tensor in tensors]
    if sum(abs(exponent) for exponent in exponents) < 200:
        return list(tensors)
    return [
        times_power_of_two(tensor, -exponent)
        for tensor, exponent in zip(tensors, exponents, strict=True)
    ]


def second_moment(inputs: Array, *, centred: bool = False) -> np.ndarray:
    """E[x^H x] of inputs: the covariance of the `activations` objective.

    Parameters
    ----------
    inputs : array (samples, features)
    centred : bool
        Subtract the mean first, for a layer whose bias absorbs mean @ (M - A). By default the
        mean is part of the moment, since the layer sees it too.

    Returns
    -------
    array (features, features), float64 or complex128

    Raises
    ------
    ValueError
        If the inputs are not (samples, features), or not finite.
    """
    x = as_numpy(inputs, what="inputs")
    if x.ndim != 2 or not len(x):
        raise ValueError(f"inputs must be (samples, features), got an array of shape {x.shape}")
    x = x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)
    check_finite(x, what="inputs", remedy="remove those samples")
    if centred:
        x = x - x.mean(axis=0)
    scaled, exponent = rescaled(x)
    moment = scaled.conj().T @ scaled / len(x)
    if abs(exponent) > 500:
        raise ValueError(
            f"inputs of a size of 2^{exponent} have squares that are no numbers; divide them by "
            "their norm, the moment's size does not matter"
        )
    return times_power_of_two(moment, 2 * exponent)


def covariance_of(inputs: Array | None, covariance: Array | None) -> Array | None:
    """The second moment of a layer's inputs, from whichever of the two is given.

    Raises
    ------
    ValueError
        Both are given, and as of `second_moment`.
    """
    if inputs is None:
        return covariance
    if covariance is not None:
        raise ValueError("give inputs= or covariance=, not both")
    return second_moment(inputs)


def count_parameters(mpo: MatrixProductOperator) -> int:
    """Numbers stored in the tensors of an MPO."""
    check_mpo(mpo)
    return sum(math.prod(tensor.shape) for tensor in mpo.tensors)
