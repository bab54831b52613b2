"""Gates: the named ones, the groups of the free ones, and the maps onto these groups.

A gate on w wires is a 2^w x 2^w matrix in the row action (``x @ g``), its first wire the most
significant bit. A free gate belongs to a group: "SO" (real, determinant +1), "O" (real orthogonal)
or "U" (complex unitary). A fixed gate has a name and keeps its matrix; `register_gate` adds one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from autoray import do
from scipy.linalg import lapack

from mpodis.conventions import Array

__all__ = [
    "GROUPS",
    "Gate",
    "exponential",
    "find_gate",
    "gate_names",
    "gate_parameters",
    "named_gate",
    "polar",
    "polar_update",
    "random_gate",
    "register_gate",
    "skew",
]

GROUPS = ("SO", "O", "U")

_GESDD = {
    # the stubs of scipy leave LAPACK's functions out
    np.dtype(np.float64): lapack.dgesdd,  # type: ignore[attr-defined]
    np.dtype(np.complex128): lapack.zgesdd,  # type: ignore[attr-defined]
}

UNITARY = 1e-12
"""Largest element-wise deviation of G G^H from the identity in a fixed gate."""


@dataclass(frozen=True, eq=False)
class Gate:
    """A gate with a name, whose matrix stays as it is.

    Parameters
    ----------
    name : str
        A letter, then letters, digits and underscores; specs know the gate by it, in any case.
    matrix : array (2^w, 2^w)
        Unitary, in the row action; the first wire is the most significant bit.
    n_cnots : int or None
        CNOTs that the gate needs with any one-qubit gates around them; None if not known.
    qiskit_name : str or None
        Name in Qiskit's library, "cx"; the first wire is the first argument there. None: the gate
        becomes a `UnitaryGate`.
    quimb_name : str or None
        Name in quimb, "CNOT". None: the gate becomes a raw array.
    symbols : tuple of {"control", "target", "swap"}
        What is drawn on each wire; empty: a box with the name.

    Raises
    ------
    ValueError
        A name that specs cannot read, or a matrix that is not unitary on a number of wires.
    """

    name: str
    matrix: np.ndarray
    n_cnots: int | None = None
    qiskit_name: str | None = None
    quimb_name: str | None = None
    symbols: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", self.name) or self.name.lower() in _WORDS:
            raise ValueError(
                f"name={self.name!r} cannot stand in a circuit spec; use a letter, then letters, "
                f"digits and underscores, and none of {', '.join(_WORDS)}"
            )
        matrix = np.array(self.matrix)
        if matrix.dtype.kind != "c":
            matrix = matrix.astype(np.float64)
        size = len(matrix) if matrix.ndim else 0
        if matrix.shape != (size, size) or size < 2 or size & (size - 1):
            raise ValueError(
                f"the matrix of gate {self.name} has shape {matrix.shape}; give one of shape "
                "(2^w, 2^w) for w wires"
            )
        error = np.abs(matrix @ matrix.conj().T - np.eye(size)).max()
        if not error <= UNITARY:  # NaN, too
            raise ValueError(
                f"the matrix of gate {self.name} is not unitary (G G^H is off by {error:.1e}); "
                "give it in double precision"
            )
        if len(self.symbols) not in (0, size.bit_length() - 1):
            raise ValueError(
                f"gate {self.name} acts on {size.bit_length() - 1} wires, but symbols= has "
                f"{len(self.symbols)} entries; give one for each wire, or none"
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    @property
    def width(self) -> int:
        """Number of wires."""
        return len(self.matrix).bit_length() - 1

    @property
    def is_complex(self) -> bool:
        return self.matrix.dtype.kind == "c"

    @cached_property
    def permutation(self) -> np.ndarray | None:
        """State to which each basis state goes, (2^w,); None if the gate does not permute them.

        Row `i` of a batch ``x @ G`` has the amplitude of state `i` at state ``permutation[i]``.
        """
        states = self.matrix.argmax(axis=1)
        return states if np.array_equal(self.matrix, np.eye(len(states))[states]) else None


_WORDS = ("all", "odd", "even", "layers", "x")
"""Words of the spec language that no gate may have as its name."""

_REGISTRY: dict[str, Gate] = {}


def register_gate(gate: Gate) -> Gate:
    """Make a fixed gate known by its name: to `Placement`, specs, drawings and exports.

    A program that reads files with the gate, or runs worker processes, registers it there, too.

    Raises
    ------
    ValueError
        Another gate has this name (upper and lower case are not told apart).

    Examples
    --------
    >>> import numpy as np
    >>> from mpodis import Gate, from_spec, register_gate
    >>> swap = np.eye(4)[[0, 2, 1, 3]]
    >>> _ = register_gate(Gate("FSWAP", swap @ np.diag([1, 1, 1, -1]), n_cnots=2))
    >>> str(from_spec("FSWAP + 1b", 4))
    '4 wires, 2 layers (4 x 1b, 2 x FSWAP), SO'
    """
    known = find_gate(gate.name)
    if known is not None and not (
        known.name == gate.name and np.array_equal(known.matrix, gate.matrix)
    ):
        raise ValueError(f"a gate {known.name} is registered already; rename {gate.name}")
    _REGISTRY[gate.name] = gate
    return gate


def find_gate(name: str) -> Gate | None:
    """The registered gate of a name, upper or lower case; None if there is none."""
    folded = name.lower()
    return next((gate for known, gate in _REGISTRY.items() if known.lower() == folded), None)


def named_gate(name: str) -> Gate:
    """The registered gate of exactly this name.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in _REGISTRY:
        raise ValueError(
            f"gate {name!r} is not known; use one of {', '.join(_REGISTRY)}, or add yours with "
            "`register_gate`"
        )
    return _REGISTRY[name]


def gate_names() -> tuple[str, ...]:
    """Names of all registered gates, in the order of registration."""
    return tuple(_REGISTRY)


_ECR = np.array([[0, 0, 1, -1j], [0, 0, -1j, 1], [1, 1j, 0, 0], [1j, 1, 0, 0]]) / np.sqrt(2)

for _gate in (
    Gate("CNOT", np.eye(4)[[0, 1, 3, 2]], 1, "cx", "CNOT", ("control", "target")),
    Gate("CZ", np.diag([1.0, 1, 1, -1]), 1, "cz", "CZ", ("control", "control")),
    Gate("SWAP", np.eye(4)[[0, 2, 1, 3]], 3, "swap", "SWAP", ("swap", "swap")),
    Gate("iSWAP", np.diag([1, 1j, 1j, 1])[[0, 2, 1, 3]], 2, "iswap", "ISWAP"),
    Gate("ECR", _ECR, 1, "ecr"),
):
    register_gate(_gate)


def check_group(group: str) -> str:
    """The group's name, or a ValueError with those that are known."""
    if group not in GROUPS:
        raise ValueError(f"group={group!r} is not known; use one of {', '.join(GROUPS)}")
    return group


def polar(environment: Array, *, group: str = "O") -> Array:
    """The gate of the group that maximises Re Tr(E^H g) for an environment E.

    With E = U S V^H it is g = U V^H (Eq. 4 of arXiv 2509.06653v1, whose V'U' belongs to the
    transposed environment). In SO(n) a determinant of -1 is changed by flipping the direction of
    the smallest singular value, which costs the least.

    Parameters
    ----------
    environment : array (..., n, n)
        E, the gradient by the gate; of a stack each matrix by itself.
    group : {"SO", "O", "U"}

    Returns
    -------
    array (..., n, n)
        In the backend and dtype of the environment.

    Examples
    --------
    >>> import numpy as np
    >>> polar(np.diag([3.0, -0.1]), group="O").tolist()
    [[1.0, 0.0], [0.0, -1.0]]
    """
    plain = type(environment) is np.ndarray and environment.ndim == 2
    if plain and (group != "SO" or environment.dtype.kind == "f"):
        return _numpy_polar(environment, group)
    u, _, vh = do("linalg.svd", environment)
    if group == "SO":
        # singular values come in descending order: the last column is the cheapest to flip
        sign = do("sign", do("linalg.det", u @ vh))
        u = do("concatenate", (u[..., :-1], u[..., -1:] * sign[..., None, None]), axis=-1)
    return u @ vh


def polar_update(environment: Array, gate: Array, *, group: str, relaxation: float = 0.0) -> Array:
    """The new value of a gate: the `polar` factor of its environment, or a step beyond it.

    Only the real part of the environment counts for a real gate. With a relaxation b > 0 the step
    from the gate g to the polar factor p is extrapolated, to the gate nearest to (1 + b) p - b g,
    unless Re Tr(E^H g) would fall below its present value.
    """
    if gate.dtype.kind != "c":
        environment = environment.real
    best = polar(environment, group=group)
    if not relaxation:
        return best
    beyond = polar((1.0 + relaxation) * best - relaxation * gate, group=group)
    gain = do("sum", do("real", do("conj", environment) * (beyond - gate)))
    return beyond if gain >= 0.0 else best


def _numpy_polar(environment: np.ndarray, group: str) -> np.ndarray:
    """`polar` of one small matrix; LAPACK without the wrappers, which cost twice as much."""
    decompose = _GESDD.get(environment.dtype)
    if decompose is None:
        u, _, vh = np.linalg.svd(environment)
    else:
        u, _, vh, info = decompose(environment)
        if info:
            raise np.linalg.LinAlgError(f"the SVD of a {len(environment)}-row matrix failed")
    gate = u.dot(vh)  # half the time of @ for small matrices
    if group != "SO" or _determinant(gate) > 0:
        return gate
    # singular values come in descending order: the last column is the cheapest to flip
    u[:, -1] *= -1
    return u.dot(vh)


def _determinant(gate: np.ndarray) -> float:
    """Determinant of a real matrix; of 4 x 4 ones, nearly all there are, by minors."""
    if gate.shape != (4, 4):
        return np.linalg.det(gate)
    a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q = gate.ravel().tolist()
    corner = a * f - b * e
    if corner > 0.1 or corner < -0.1:
        # of an orthogonal matrix it is the determinant times the opposite corner
        return (k * q - m * p) / corner
    return (
        (a * f - b * e) * (k * q - m * p)
        - (a * g - c * e) * (j * q - m * o)
        + (a * h - d * e) * (j * p - k * o)
        + (b * g - c * f) * (i * q - m * n)
        - (b * h - d * f) * (i * p - k * n)
        + (c * h - d * g) * (i * o - j * n)
    )


def skew(matrix: Array) -> Array:
    """Skew-Hermitian part, (A - A^H) / 2, of the last two axes."""
    return (matrix - do("conj", do("swapaxes", matrix, -1, -2))) / 2


def exponential(generator: Array) -> Array:
    """exp(A) of skew-Hermitian A (..., n, n), which is orthogonal or unitary to rounding.

    The paper's "exp(t), t lower triangular" (Sec. V) is not orthogonal; `exponential(skew(t))`
    is. It is computed from the eigenvectors of the Hermitian matrix iA; for real gates on one or
    two wires there is a closed form.
    """
    real = isinstance(generator, np.ndarray) and generator.dtype.kind == "f"
    if real and generator.shape[-1] in _CLOSED:
        return _CLOSED[generator.shape[-1]](generator)
    values, vectors = do("linalg.eigh", 1j * generator)
    phases = do("exp", -1j * values)
    result = (vectors * phases[..., None, :]) @ do("conj", do("swapaxes", vectors, -1, -2))
    return result if "complex" in str(generator.dtype) else do("real", result)


_PLANES = np.array([[0, 0, 0], [1, 2, 3]]), np.array([[2, 3, 1], [3, 1, 2]])
"""Rows and columns of three planes in four dimensions, and of those perpendicular to them."""


def _rotation(generator: np.ndarray) -> np.ndarray:
    """exp(A) of real skew-symmetric 4 x 4 A: so(4) is the sum of two su(2), which commute."""
    one, other = (generator[..., rows, columns] for rows, columns in _PLANES)
    turns: list[np.ndarray] = []
    for axis, basis in (((one + other) / 2, _DUAL), ((one - other) / 2, _ANTI)):
        angle = np.sqrt(np.square(axis).sum(-1, keepdims=True))
        # sin(t)/t and cos(t) are even in the angle t, and finite at the least positive one
        angle = np.maximum(angle, np.finfo(angle.dtype).tiny)
        turn = (axis * (np.sin(angle) / angle)) @ basis.astype(axis.dtype, copy=False)
        turn[..., ::5] += np.cos(angle)
        turns.append(turn.reshape(generator.shape))
    return turns[0] @ turns[1]


def _turn(generator: np.ndarray) -> np.ndarray:
    """exp(A) of real skew-symmetric 2 x 2 A."""
    angle = generator[..., 0, 1]
    found = np.empty_like(generator)
    found[..., 0, 0] = found[..., 1, 1] = np.cos(angle)
    found[..., 0, 1] = np.sin(angle)
    found[..., 1, 0] = -found[..., 0, 1]
    return found


def _bases(sign: float) -> np.ndarray:
    """(3, 16): the planes' generators plus or minus those of the planes perpendicular to them."""
    found = np.zeros((3, 4, 4))
    for k, (a, b, c, d) in enumerate(np.concatenate(_PLANES).T):
        found[k, a, b], found[k, b, a] = 1.0, -1.0
        found[k, c, d], found[k, d, c] = sign, -sign
    return found.reshape(3, 16)


_DUAL, _ANTI = _bases(1.0), _bases(-1.0)
_CLOSED = {2: _turn, 4: _rotation}


def random_gate(
    dimension: int, *, group: str, rng: np.random.Generator, scale: float | None = None
) -> np.ndarray:
    """A Haar-random gate of the group, or one near the identity.

    Parameters
    ----------
    dimension : int
        2^w for w wires.
    group : {"SO", "O", "U"}
    rng : numpy.random.Generator
    scale : float, optional
        The gate is then the exponential of a skew-Hermitian matrix of Gaussian entries times
        `scale`.
    """
    check_group(group)
    shape = (dimension, dimension)
    normal = rng.normal(size=shape)
    if group == "U":
        normal = normal + 1j * rng.normal(size=shape)
    if scale is not None:
        return exponential(scale * skew(normal))
    q, r = np.linalg.qr(normal)
    diagonal = np.diagonal(r)
    q = q * (diagonal / np.abs(diagonal))  # makes the QR decomposition's gauge Haar
    if group == "SO" and np.linalg.det(q) < 0:
        q[:, -1] *= -1
    return q


def gate_parameters(width: int, group: str) -> int:
    """Number of real parameters of a free gate on `width` wires."""
    n = 2**width
    return n * n if check_group(group) == "U" else n * (n - 1) // 2
