"""What an environment engine offers, and what the choice between engines asks of it.

An engine holds a target G and the factors of A = Q_L M' Q_R, and evaluates the linear form
h = Re Tr(G^H A). The environment of a gate g is the E with h = Re Tr(E^H g), the gradient of h for
the scalar product Re Tr(A^H B): the array itself, element by element, not its transpose
(arXiv 2509.06653v1, Eq. 3 with its dagger).
With G = M / (|M| |M'|) the form is the overlap f.

A new engine subclasses `Engine` and is registered with `registry.register_engine`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeAlias, TypeGuard

import numpy as np

from mpodis.arguments import check_count, check_positive
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, wires
from mpodis.environments.arrays import available_memory
from mpodis.sites import left_canonical

__all__ = [
    "OTHER_SIDE",
    "SMALL_ARRAYS",
    "DenseOperatorEnvironments",
    "Engine",
    "EngineOptions",
    "Environments",
    "Estimate",
    "Gradient",
    "ProblemSize",
    "Target",
    "Update",
    "accept_core",
    "check_sides",
    "core_norm",
    "has_dense_operator",
]

Target: TypeAlias = "np.ndarray | Sequence[np.ndarray]"
"""A matrix (rows, columns), or site tensors (left bond, input, output, right bond)."""
Update: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(environment, gate) -> new gate."""

OTHER_SIDE = {"left": "right", "right": "left"}
SMALL_ARRAYS = 2.0**23
"""Bytes of everything that is small, for estimates."""
MEMORY_SHARE = 0.7
"""Part of the available memory that an engine may take, unless the caller says otherwise."""


@dataclass(frozen=True)
class EngineOptions:
    """Options of all engines; each engine reads those that concern it.

    Attributes
    ----------
    environment_bond : int
        Bond dimension D to which the boundary engine truncates.
    dtype : {"float64", "float32"}
        Precision of the large arrays of the dense and the boundary engine.
    device : str or None
        Torch device of these arrays ("cuda", "cpu"); None computes with numpy.
    memory : float or None
        Bytes that an engine may take; by default most of what is available.
    seed : int
        Seed of the search for a contraction tree.
    executor : optional
        Pool on which the tree engine contracts slices, see `TreeEnvironments`.
    optimize : optional
        How the tree engine finds its contraction tree, see `network.tree.search_path`.
    identity_core : bool
        The core is a multiple of the identity and stays so: engines that gain by it take the
        layers of a circuit on one side from both sides, see `FoldedEnvironments`.

    Raises
    ------
    ValueError
        A bond dimension below 1, or a memory that is not positive.
    """

    environment_bond: int = 32
    dtype: str = "float64"
    device: str | None = None
    memory: float | None = None
    seed: int = 0
    executor: Any = None
    optimize: Any = None
    identity_core: bool = False

    def __post_init__(self) -> None:
        check_count("environment_bond", self.environment_bond)
        check_positive("memory", self.memory, or_none=True)

    @property
    def budget(self) -> float:
        """Bytes that an engine may take."""
        return MEMORY_SHARE * available_memory() if self.memory is None else self.memory


@dataclass(frozen=True)
class ProblemSize:
    """What decides how much time and memory an engine takes.

    Attributes
    ----------
    legs : tuple of (input, output)
    left, right : Ansatz
    target_bonds, core_bonds : tuple of int
        Bond dimensions between neighbouring sites of the operator and of the core.
    is_complex : bool
        Whether target, gates or core are complex.
    """

    legs: Legs
    left: Ansatz
    right: Ansatz
    target_bonds: tuple[int, ...]
    core_bonds: tuple[int, ...]
    is_complex: bool

    @property
    def itemsize(self) -> int:
        """Bytes of a number in double precision."""
        return 16 if self.is_complex else 8


@dataclass(frozen=True)
class Estimate:
    """What an engine would take for a problem.

    Attributes
    ----------
    engine : str
    exact : bool
    seconds : float
        Time to give every gate its environment once, on one core.
    bytes : float
        Memory beyond what the program has already.
    refused : str
        Why the engine cannot be used; empty if it can.
    """

    engine: str
    exact: bool
    seconds: float
    bytes: float
    refused: str = ""


@dataclass(frozen=True)
class Gradient:
    """The form and the environments of all factors at one point.

    Attributes
    ----------
    inner : float
        h.
    left, right : list of arrays (2^w, 2^w)
        One per placement, None for fixed gates.
    core : list of arrays (left bond, input, output, right bond)
    """

    inner: float
    left: list
    right: list
    core: list

    def times(self, factor: float) -> Gradient:
        """The gradient of `factor` times the form."""
        if factor == 1.0:
            return self
        parts = {
            name: [e if e is None else e * factor for e in getattr(self, name)]
            for name in ("left", "core", "right")
        }
        return replace(self, inner=self.inner * factor, **parts)


class Environments(Protocol):
    """Environments of all gates and of the core of Q_L M' Q_R against a target.

    Gates and core are numpy arrays, whatever an engine computes with. The bodies given here are
    those of an exact engine without options of its own.

    Attributes
    ----------
    name : str
        What ``engine=`` calls it.
    exact : bool
        Whether form and environments are exact but for rounding.
    holds_dense : bool
        Whether the engine is also a `DenseOperatorEnvironments`.
    parallel : bool
        Whether it is small enough for several initial guesses to be searched in parallel.
    left, right : list of arrays (2^w, 2^w)
        Present gates, in the order of the placements; to be read, and replaced by `set`.
    core : list of arrays (left bond, input, output, right bond)
        Present site tensors of M'.
    plan : dict or None
        What a search has found, of a contraction tree or of bond dimensions, as JSON: given to
        another engine for the same problem before its first `set`, it makes that engine compute
        the same, bit by bit. None where nothing is searched.
    """

    name: ClassVar[str]
    exact: ClassVar[bool]
    holds_dense: ClassVar[bool] = False
    parallel: ClassVar[bool] = False
    left: list[np.ndarray]
    right: list[np.ndarray]
    core: list[np.ndarray]
    plan: dict[str, Any] | None = None

    @property
    def max_bond(self) -> int | None:
        """Bond dimension to which the engine truncates; None for exact engines."""
        return None

    def set_max_bond(self, max_bond: int) -> None:
        """Truncate to another bond dimension from now on.

        Raises
        ------
        ValueError
            The engine is exact.
        """
        raise ValueError(
            f"engine {self.name!r} is exact and cannot be truncated to max_bond={max_bond}; "
            "use engine='boundary'"
        )

    @property
    def cutoff(self) -> float | None:
        """Schmidt values that the engine drops, relative to the largest; None for exact engines."""
        return None

    def set_cutoff(self, cutoff: float) -> None:
        """Drop other Schmidt values from now on: every bond gets the dimension that it needs.

        Raises
        ------
        ValueError
            The engine is exact, or the cutoff lies outside [0, 1).
        """
        raise ValueError(
            f"engine {self.name!r} is exact and drops no Schmidt values below cutoff={cutoff}; "
            "use engine='boundary'"
        )

    @property
    def is_full(self) -> bool:
        """Whether `max_bond`, rather than the cutoff, limits a bond; False for exact engines."""
        return False

    @abstractmethod
    def set(
        self,
        left: Sequence[np.ndarray] | None = None,
        core: Sequence[np.ndarray] | None = None,
        right: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Set gates and core; those that are not given stay."""
        ...

    @abstractmethod
    def inner(self) -> float:
        """h = Re Tr(G^H Q_L M' Q_R)."""
        ...

    @abstractmethod
    def sweep(self, updates: Mapping[str, Update], *, core: bool = False) -> None:
        """Update the free gates of the sides that are named ("left", "right") one by one.

        Each gate is updated at least once, from the environment that the newest other gates make,
        in the order that suits the engine. With `core`, the core gets its best values too, which
        never lowers the overlap h / |M'|. The outcome depends on target, gates and core
        alone, so that a resumed run repeats the one that was interrupted.
        """
        ...

    @abstractmethod
    def gradient(self, scale: float = 1.0) -> Gradient:
        """Environments of `scale` times h, of all factors at the same point."""
        ...

    @abstractmethod
    def fitted_core(self) -> list[np.ndarray]:
        """The core after one sweep of ALS towards Q_L^H G Q_R^H."""
        ...

    @abstractmethod
    def pulled_tensors(self, max_bond: int) -> list[np.ndarray]:
        """Site tensors of Q_L^H G Q_R^H.

        An engine that computes them exactly cuts bonds above `max_bond`, one that truncates gives
        them at its own bond dimension.
        """
        ...


class Engine(Environments, Protocol):
    """Environments of a class that is chosen by its name or by its estimate.

    Attributes
    ----------
    any_wires : bool
        Whether the engine keeps gates on wires that are not neighbours in ascending order. Others
        get such circuits with SWAPs, see `routed.RoutedEnvironments`.
    folds : bool
        Whether a circuit costs less on both sides of an identity core than on one.
    limit : float
        Largest dimension of an operator that the engine takes.
    """

    any_wires: ClassVar[bool] = False
    folds: ClassVar[bool] = False
    limit: ClassVar[float] = math.inf

    @classmethod
    @abstractmethod
    def estimate(cls, problem: ProblemSize, options: EngineOptions) -> Estimate:
        """Time and memory that the engine would take; nothing large is allocated."""
        ...

    @classmethod
    def is_worth_estimating(cls, problem: ProblemSize, quickest: float) -> bool:
        """Whether ``engine="auto"`` should ask for an estimate.

        `quickest` is the time of the quickest exact engine that was asked before. An engine whose
        estimate is itself a search says no where it has little to win.
        """
        return True

    @classmethod
    @abstractmethod
    def build(
        cls, target: Target, legs: Legs, left: Ansatz, right: Ansatz, options: EngineOptions
    ) -> Environments:
        """An engine with the options that concern it."""
        ...


class DenseOperatorEnvironments(Environments, Protocol):
    """Environments of an engine that also works with dense (rows, columns) operators."""

    @abstractmethod
    def dense(self) -> np.ndarray:
        """A = Q_L M' Q_R, (rows, columns)."""
        ...

    @abstractmethod
    def pulled(self, matrix: np.ndarray | None = None) -> np.ndarray:
        """Q_L^H X Q_R^H for a matrix X (rows, columns), by default the target."""
        ...

    @abstractmethod
    def pulled_metric(self, metric: np.ndarray) -> np.ndarray:
        """Q_L^H C Q_L for a matrix C (rows, rows)."""
        ...

    @abstractmethod
    def gradient_towards(self, dense: np.ndarray, target: np.ndarray) -> Gradient:
        """`gradient` for another target; `dense` is A, which the caller has at hand."""
        ...


def has_dense_operator(engine: Environments) -> TypeGuard[DenseOperatorEnvironments]:
    """`engine.holds_dense`, in a form that tells a type checker what follows from it."""
    return engine.holds_dense


def accept_core(engine: Environments) -> None:
    """Give an engine its fitted core, unless the overlap drops (at convergence, by rounding).

    A fitted core of zeros is not taken: the operator between the circuits is then orthogonal to
    every core near the present one.
    """
    kept, before = engine.core, engine.inner() / core_norm(engine.core)
    fitted = engine.fitted_core()
    if core_norm(fitted) == 0.0:
        return
    engine.set(core=fitted)
    if not engine.inner() >= before * core_norm(engine.core):
        engine.set(core=kept)


def core_norm(core: Sequence[np.ndarray]) -> float:
    """|M'|, from its site tensors."""
    return math.exp(left_canonical(core)[1])


def check_sides(legs: Legs, left: Ansatz, right: Ansatz, *, local: bool = False) -> None:
    """Raise a ValueError unless each ansatz has as many wires as its side of the operator.

    With `local` every gate must act on neighbouring wires in ascending order, too.
    """
    for side, ansatz in (("left", left), ("right", right)):
        n = len(wires(legs, side))
        if ansatz.n != n:
            raise ValueError(f"the {side} ansatz has {ansatz.n} wires, the operator {n}")
        if local and not ansatz.is_local:
            raise ValueError(
                f"the {side} ansatz ({ansatz}) has gates on wires that are not neighbours in "
                "ascending order, which this engine does not keep; use `build_engine`, or `routed`"
            )
