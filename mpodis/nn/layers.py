"""Linear layers whose weight is an MPO or a factorization, and swapping them into a network.

All act on rows, ``y = x @ W + bias`` with W of shape (inputs, outputs), on any leading axes of x.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.conventions import check_legs, crop, padded_shape
from mpodis.sites import mpo_from_tensors, site_tensors

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

    from mpodis.factorization import Factorization

__all__ = [
    "FactorizedLinear",
    "MPOLinear",
    "linear_from_matrix",
    "replace_layer",
    "torch_generator",
]

log = logging.getLogger(__name__)

Seed = int | np.random.Generator | torch.Generator | None


def torch_generator(seed: Seed = None) -> torch.Generator:
    """A torch generator of its own from a seed, the next draw of a numpy generator, or itself."""
    if isinstance(seed, torch.Generator):
        return seed
    if not isinstance(seed, int):
        seed = int(np.random.default_rng(seed).integers(2**63))
    return torch.Generator().manual_seed(seed)


class MPOLinear(nn.Module):
    """Linear layer with an MPO as its weight; every core is trained.

    The dense weight is built in every call and applied in one matrix product, which at up to a few
    thousand inputs is faster than sending the batch through the cores; beyond, it goes through.

    Parameters
    ----------
    legs : sequence of (input, output)
        Dimensions of every site, e.g. ``((7, 4), (2, 2), (7, 4))``; site 0 is the most significant.
    bond : int or sequence of int
        Bond dimension, of all or of each of the ``len(legs) - 1`` bonds. What exceeds the largest
        rank a bond can have is clipped, and the clipping logged.
    bias : bool
        Add a trained bias, zero at the start.
    shape : (inputs, outputs), optional
        Size of x and y if smaller than what the legs span: x is padded with zeros and y cropped.
    dtype : torch.dtype
        A real floating type.
    seed : int, numpy.random.Generator or None
        Of the initial cores: Gaussian, all scaled by one factor such that ``|W|^2 = outputs``, so
        that white inputs of unit variance give outputs of unit variance on average.

    Attributes
    ----------
    cores : torch.nn.ParameterList
        One tensor (left bond, input, output, right bond) per site, outer bonds of size 1.
    bias : torch.nn.Parameter (outputs,) or None

    Raises
    ------
    ValueError, TypeError
        If legs, bond, shape or dtype make no sense.
    """

    def __init__(
        self,
        legs: Sequence[Sequence[int]],
        bond: int | Sequence[int],
        *,
        bias: bool = False,
        shape: tuple[int, int] | None = None,
        dtype: torch.dtype = torch.float32,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        _check_dtype(dtype)
        self.legs = check_legs(legs)
        self.inputs, self.outputs = check_shape(shape, padded_shape(self.legs))
        self._padded = padded_shape(self.legs)[0]
        bonds = [1, *_check_bonds(self.legs, bond), 1]
        generator = torch_generator(seed)
        cores = [
            torch.randn(left, i, o, right, dtype=torch.float64, generator=generator)
            for left, (i, o), right in zip(bonds[:-1], self.legs, bonds[1:], strict=True)
        ]
        weight = crop(_contract(cores), (self.inputs, self.outputs))
        scale = (math.sqrt(self.outputs) / weight.norm().item()) ** (1 / len(cores))
        self.cores = nn.ParameterList([nn.Parameter((scale * core).to(dtype)) for core in cores])
        self.bias = nn.Parameter(torch.zeros(self.outputs, dtype=dtype)) if bias else None

    @classmethod
    def from_mpo(
        cls,
        mpo: MatrixProductOperator,
        *,
        shape: tuple[int, int] | None = None,
        bias: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> MPOLinear:
        """A layer with the tensors of a real MPO as its cores, bonds as they are.

        Raises
        ------
        ValueError
            If the MPO is complex, or the shape or the bias does not fit it.
        """
        arrays = [np.asarray(core) for core in site_tensors(mpo)]
        layer = cls([core.shape[1:3] for core in arrays], 1, shape=shape, dtype=dtype, seed=0)
        layer.cores = nn.ParameterList([nn.Parameter(_copied(core, dtype)) for core in arrays])
        if bias is not None:
            layer.bias = nn.Parameter(check_bias(bias, layer.outputs, dtype))
        return layer

    @property
    def bonds(self) -> tuple[int, ...]:
        """Bond dimensions between neighbouring sites."""
        return tuple(core.shape[0] for core in self.cores)[1:]

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs), differentiable."""
        return crop(_contract(list(self.cores)), (self.inputs, self.outputs))

    def to_mpo(self) -> MatrixProductOperator:
        """quimb's MPO of the padded weight, numpy arrays of double precision, detached."""
        kind = torch.complex128 if self.cores[0].is_complex() else torch.float64
        return mpo_from_tensors(
            [core.detach().cpu().to(kind).numpy().copy() for core in self.cores]
        )

    def forward(self, x: Tensor) -> Tensor:
        check_inputs(x, self.inputs)
        y = self.apply_cores(x)
        return y if self.bias is None else y + self.bias

    def apply_cores(self, x: Tensor) -> Tensor:
        """x @ W, by way of the dense weight or site by site, whichever costs less."""
        rows, cores = x.numel() // self.inputs, list(self.cores)  # a ParameterList is slow to ask
        if not by_sites(self.legs, [core.shape[0] for core in cores[1:]], rows):
            return x @ crop(_contract(cores), (self.inputs, self.outputs))
        flat = x.reshape(rows, self.inputs)
        padded = nn.functional.pad(flat, (0, self._padded - self.inputs))
        parts = [_through(cores, part) for part in padded.split(_ROWS)]
        y = (parts[0] if len(parts) == 1 else torch.cat(parts))[:, : self.outputs]
        return y.reshape(*x.shape[:-1], self.outputs)

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, legs={self.legs}, "
            f"bonds={self.bonds}, bias={self.bias is not None}"
        )


class FactorizedLinear(nn.Module):
    """Frozen linear layer ``y = ((x @ Q_L) @ M') @ Q_R (+ bias)``, in this order.

    It holds buffers, no parameters. A complex factorization is stored in real arithmetic, its
    parts side by side, so the product of complex matrices is reproduced and only what is
    negligible, the imaginary part of y, is left out.

    Parameters
    ----------
    factorization : Factorization
    bias : array (outputs,), optional
    dtype : torch.dtype
        A real floating type.

    Raises
    ------
    ValueError
        If the factorization stands for a matrix that is not real to rounding, or the bias does
        not fit.
    """

    def __init__(
        self,
        factorization: Factorization,
        *,
        bias: Tensor | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        _check_dtype(dtype)
        self.inputs, self.outputs = factorization.shape
        # Zero-padding x and cropping y is the same as cropping the rows of Q_L, columns of Q_R.
        left = factorization.left.to_dense()[: self.inputs]
        core = factorization.core_to_dense()
        right = factorization.right.to_dense()[:, : self.outputs]
        if any(np.iscomplexobj(part) for part in (left, core, right)):
            left, core, right = _in_real_arithmetic(left, core, right)
        for name, part in (("left", left), ("core", core), ("right", right)):
            self.register_buffer(name, _copied(part, dtype))
        bias = None if bias is None else check_bias(bias, self.outputs, dtype)
        self.register_buffer("bias", bias)

    def weight(self) -> Tensor:
        """Dense weight (inputs, outputs)."""
        return self.left @ self.core @ self.right

    def forward(self, x: Tensor) -> Tensor:
        check_inputs(x, self.inputs)
        y = ((x @ self.left) @ self.core) @ self.right
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}, bias={self.bias is not None}"


def linear_from_matrix(
    matrix: Tensor | np.ndarray,
    *,
    bias: Tensor | np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
) -> nn.Linear:
    """`torch.nn.Linear` that computes ``x @ matrix + bias``; its ``weight`` is the transpose.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    bias : array (outputs,), optional
    dtype : torch.dtype
    """
    _check_dtype(dtype)
    if matrix.ndim != 2:
        raise ValueError(
            f"an array of shape {tuple(matrix.shape)} is no weight; give a matrix (inputs, outputs)"
        )
    inputs, outputs = matrix.shape
    # skip_init: the usual initialisation would draw from torch's global generator
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias is not None, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(_copied(matrix, dtype).T)
        if bias is not None:
            layer.bias.copy_(check_bias(bias, outputs, dtype))
    return layer


def replace_layer(model: nn.Module, name: str, module: nn.Module) -> nn.Module:
    """A deep copy of a model in which the submodule ``name`` ("block.0.fc") is ``module``.

    ``module`` itself is not copied.

    Raises
    ------
    ValueError
        If the model has no submodule of that name; the message lists those it has.
    """
    find_layer(model, name)
    copied = copy.deepcopy(model)
    parent, _, child = name.rpartition(".")
    setattr(copied.get_submodule(parent), child, module)
    return copied


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule of that name, or a ValueError that lists the names."""
    layers = dict(model.named_modules())
    layers.pop("")
    if name not in layers:
        raise ValueError(
            f"{type(model).__name__} has no layer {name!r}; it has {', '.join(layers) or 'none'}"
        )
    return layers[name]


def _contract(cores: list[Tensor]) -> Tensor:
    """Dense (rows, columns) matrix, from both ends inwards: only one large product is left.

    Few operations count, since each is recorded for the gradient: a half is put in order once, and
    `torch.mm` is a cheaper call than what chooses it.
    """
    half = (len(cores) + 1) // 2
    left, i, o = _half(cores[:half])
    if half == len(cores):
        return left.reshape(i, o)
    right, j, p = _half(cores[half:])
    whole = torch.mm(left.reshape(i * o, -1), right.reshape(-1, j * p))
    return whole.view(i, o, j, p).transpose(1, 2).reshape(i * j, o * p)


def _half(cores: list[Tensor]) -> tuple[Tensor, int, int]:
    """Neighbouring cores as one, axes (left, rows ..., columns ..., right), and its two sizes."""
    whole = cores[0]
    for core in cores[1:]:
        m = core.shape[0]
        whole = torch.mm(whole.reshape(-1, m), core.reshape(m, -1))
    legs = [size for core in cores for size in core.shape[1:3]]
    rows, columns = range(1, len(legs), 2), range(2, len(legs) + 1, 2)
    shape = cores[0].shape[0], *legs, cores[-1].shape[3]
    ordered = whole.reshape(shape).permute(0, *rows, *columns, len(legs) + 1)
    return ordered, math.prod(legs[::2]), math.prod(legs[1::2])


def _in_real_arithmetic(left, core, right) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real matrices of twice the inner sizes whose product is Re(left @ core @ right)."""
    matrix = left @ core @ right
    imaginary, norm = np.linalg.norm(matrix.imag), np.linalg.norm(matrix)
    if imaginary > 1e-6 * norm:
        raise ValueError(
            f"the matrix of the factorization is not real (imaginary part {imaginary / norm:.1e} "
            "of its norm), and a real layer cannot hold it; disentangle with group='SO' or 'O'"
        )
    left = np.hstack([left.real, left.imag])
    core = np.block([[core.real, core.imag], [-core.imag, core.real]])
    return left, core, np.vstack([right.real, -right.imag])


def _copied(array: Tensor | np.ndarray, dtype: torch.dtype) -> Tensor:
    if not isinstance(array, Tensor):
        array = torch.as_tensor(np.ascontiguousarray(array))
    if array.is_complex() and not dtype.is_complex:
        raise ValueError(f"an array of {array.dtype} does not fit a real layer; take its real part")
    return array.detach().to(dtype, copy=True)


def _check_dtype(dtype: torch.dtype) -> None:
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TypeError(f"dtype={dtype} is not a real floating type; use torch.float32 or float64")


def check_shape(shape: tuple[int, int] | None, padded: tuple[int, int]) -> tuple[int, int]:
    shape = padded if shape is None else tuple(shape)
    if len(shape) != 2 or not all(1 <= s <= p for s, p in zip(shape, padded, strict=True)):
        raise ValueError(
            f"shape={shape} does not fit into the {padded} that the legs span; "
            "the legs of a side must multiply to at least its size"
        )
    return shape


_ROWS = 128
"""Rows that go through the sites together: more of them leave the cache between two sites."""

_FAR = 20
"""What an operation of small products costs, in operations of one large product."""


def by_sites(legs: Sequence[Sequence[int]], bonds: Sequence[int], rows: int) -> bool:
    """Whether so many rows should meet one site after the other instead of the dense weight."""
    inputs = outputs = done = 1
    for i, o in legs:
        inputs, outputs = inputs * i, outputs * o
    ends = [1, *bonds, 1]
    left, small = inputs, 0
    for (i, o), a, b in zip(legs, ends[:-1], ends[1:], strict=True):
        left //= i
        small += rows * done * left * a * i * o * b
        done *= o
    return _FAR * small < (rows + max(ends)) * inputs * outputs


def _through(cores: list[Tensor], x: Tensor) -> Tensor:
    """x (rows, inputs) through the sites from the first to the last; every product is one call.

    Axes are (bond, inputs that are left, rows, outputs that are done): what a site puts out goes
    from the front to the back.
    """
    z = x.T
    for core in cores:
        a, i, o, b = core.shape
        matrix = core.permute(2, 3, 0, 1).reshape(o * b, a * i)
        z = (matrix @ z.reshape(a * i, -1)).reshape(o, -1).T
    return z.reshape(len(x), -1)


def _check_bonds(legs, bond: int | Sequence[int]) -> list[int]:
    """One bond dimension per bond, at most the largest rank the bond can have."""
    n = len(legs) - 1
    bonds = [bond] * n if isinstance(bond, (int, np.integer)) else list(bond)
    if len(bonds) != n or any(b < 1 for b in bonds):
        raise ValueError(f"bond={bond!r} must be an integer >= 1, or {n} of them for {n + 1} sites")
    sizes = [i * o for i, o in legs]
    exact = [min(math.prod(sizes[:k]), math.prod(sizes[k:])) for k in range(1, n + 1)]
    clipped = [min(int(b), e) for b, e in zip(bonds, exact, strict=True)]
    if clipped != bonds:
        # an integer means "as far as it goes", but legs of dimension 1 are easily overlooked
        full = [max(i, o) ** 2 for i, o in legs]
        usual = [min(math.prod(full[:k]), math.prod(full[k:])) for k in range(1, n + 1)]
        surprising = [e < min(b, u) for b, e, u in zip(bonds, exact, usual, strict=True)]
        whole = isinstance(bond, (int, np.integer)) and not any(surprising)
        level = logging.INFO if whole else logging.WARNING
        log.log(
            level,
            "bond dimensions %s cannot be reached on legs %s and are clipped to %s",
            *(bonds, legs, clipped),
        )
    return clipped


def check_bias(bias, outputs: int, dtype: torch.dtype) -> Tensor:
    if tuple(np.shape(bias)) != (outputs,):
        raise ValueError(f"bias of shape {tuple(np.shape(bias))} does not fit {outputs} outputs")
    return _copied(bias, dtype)


def check_inputs(x: Tensor, inputs: int) -> None:
    if x.shape[-1] != inputs:
        raise ValueError(
            f"x of shape {tuple(x.shape)} must have {inputs} features in its last axis"
        )
