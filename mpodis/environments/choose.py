"""Which engine: time and memory of each for an instance, and the cheapest that fits.

The cheapest exact engine within the budgets of memory and time is taken, and the boundary engine,
which truncates, where there is none. What fits nowhere is refused before anything is allocated.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import Legs, padded_shape
from mpodis.environments.boundary import cost
from mpodis.environments.boundary.engine import BoundaryEnvironments
from mpodis.environments.dense import engine as dense
from mpodis.environments.dense.engine import DenseEnvironments
from mpodis.environments.network import transverse, tree
from mpodis.environments.network.geometry import Network
from mpodis.environments.network.transverse import TransverseEnvironments
from mpodis.environments.network.tree import TreeEnvironments
from mpodis.environments.protocol import Environments, check_sides
from mpodis.fit import full_bonds
from mpodis.sites import bond_dimensions, legs_of, site_tensors
from mpodis.tables import Table

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["ENGINES", "EngineOptions", "Estimate", "build_engine", "choose", "engine_estimates"]

log = logging.getLogger(__name__)

ENGINES = {
    "dense": DenseEnvironments,
    "transverse": TransverseEnvironments,
    "tree": TreeEnvironments,
    "boundary": BoundaryEnvironments,
}

SHARE = 0.7
"""Part of the available memory that an engine may take, unless the caller says otherwise."""
PATIENCE = 3.0
"""Seconds a sweep of an exact engine may take; beyond, the boundary engine is preferred."""
WORTH_SEARCHING = 5e-3
"""A contraction tree is searched where no other exact engine is faster than so many seconds."""
FIT = 4.5
"""Matrices of the operator's size that the dense ALS of the core holds, measured."""
SEARCH = 2e-3
"""Seconds of this search, a tensor; counted against the engine as spread over `SWEEPS`."""
SWEEPS = 200
SEARCHABLE = 1500
"""Tensors beyond which the search itself takes long, and finds nothing that fits."""


@dataclass(frozen=True)
class EngineOptions:
    """What engines are built with; each takes what concerns it.

    Attributes
    ----------
    environment_bond : int
        Bond dimension D of the boundary engine.
    dtype : {"float64", "float32"}
        Precision of the dense and the boundary engine.
    device : str or None
        Torch device of these two ("cuda", "cpu"); None computes with numpy.
    memory : float or None
        Bytes that an engine may take; default: most of what is available.
    seed : int
        Of the search for contraction trees.
    executor : optional
        On which the tree engine runs slices, see `TreeEnvironments`.
    """

    environment_bond: int = 32
    dtype: str = "float64"
    device: str | None = None
    memory: float | None = None
    optimize: object = None
    seed: int = 0
    executor: object = None

    def __post_init__(self) -> None:
        if self.environment_bond < 1:
            raise ValueError(
                f"environment_bond={self.environment_bond} keeps nothing; use 1 or more"
            )
        if self.memory is not None and not self.memory > 0:
            raise ValueError(f"memory={self.memory} must be a number of bytes above 0, or None")

    @property
    def budget(self) -> float:
        return SHARE * available_memory() if self.memory is None else self.memory


@dataclass(frozen=True)
class Estimate:
    """What an engine would take for an instance.

    Attributes
    ----------
    engine : str
    exact : bool
    seconds : float
        For offering every gate its environment once, on one core.
    bytes : float
        Memory beyond what the program has already.
    refused : str
        Why it cannot be used; empty if it can.
    """

    engine: str
    exact: bool
    seconds: float
    bytes: float
    refused: str = ""


def engine_estimates(
    mpo: MatrixProductOperator,
    *,
    left: Ansatz,
    right: Ansatz,
    max_bond: int = 1,
    environment_bond: int = 32,
    memory: float | None = None,
) -> Table:
    """A table of what each engine would take; `disentangle(engine="auto")` picks from it.

    Parameters
    ----------
    mpo : the operator M
    left, right : Ansatz
    max_bond : bond dimension chi' of the core
    environment_bond : bond dimension D of the boundary engine
    memory : bytes an engine may take; default: most of what is available

    Raises
    ------
    TypeError, ValueError
        What is no MPO or no Ansatz, an ansatz of another size, a bond dimension or a memory
        below 1.
    """
    for side, ansatz in (("left", left), ("right", right)):
        if not isinstance(ansatz, Ansatz):
            raise TypeError(f"{side}={ansatz!r} is no Ansatz; make one with `brickwall(n, depth)`")
    tensors = site_tensors(mpo)
    check_sides(legs_of(tensors), left, right)
    options = EngineOptions(environment_bond=environment_bond, memory=memory)
    rows = [
        (
            e.engine,
            "exact" if e.exact else f"D = {environment_bond}",
            e.seconds,
            f"{e.bytes / 2**20:.3g}",
            e.refused or "yes",
        )
        for e in _estimates(
            legs_of(tensors),
            left,
            right,
            target_bonds=bond_dimensions(tensors),
            max_bond=max_bond,
            complex=any(c.dtype.kind == "c" for c in tensors) or "U" in (left.group, right.group),
            options=options,
        )
    ]
    return Table(("engine", "", "seconds a sweep", "MiB", "can be used"), rows)


def choose(
    legs: Legs,
    left: Ansatz,
    right: Ansatz,
    *,
    target_bonds: Sequence[int],
    max_bond: int,
    complex: bool,
    options: EngineOptions,
    engine: str = "auto",
) -> Estimate:
    """The engine to take: the cheapest exact one within the budgets, else boundary.

    An engine that is named is only checked.

    Raises
    ------
    ValueError
        Nothing fits into the memory, or the engine that was named does not.
    """
    check_sides(legs, left, right)
    found = _estimates(
        legs,
        left,
        right,
        target_bonds=target_bonds,
        max_bond=max_bond,
        complex=complex,
        options=options,
        only=None if engine == "auto" else engine,
    )
    usable = [e for e in found if not e.refused]
    if engine != "auto":
        if not usable:
            raise ValueError(f"{found[0].refused}; engine='auto' takes one that fits")
        return usable[0]
    if not usable:
        reasons = "; ".join(e.refused for e in found)
        raise ValueError(
            f"no engine fits this problem: {reasons}. Use fewer layers or smaller bond "
            "dimensions, or give memory= more bytes"
        )
    quick = [e for e in usable if e.exact and e.seconds <= PATIENCE]
    best = min(quick or [e for e in usable if not e.exact] or usable, key=lambda e: e.seconds)
    others = ", ".join(
        f"{e.engine} {'does not fit' if e.refused else f'{e.seconds:.2g} s'}"
        for e in found
        if e is not best
    )
    log.info(
        "engine %s: %s, about %.2g s a sweep and %.0f MiB (%s)",
        best.engine,
        "exact" if best.exact else f"truncated to {options.environment_bond}",
        best.seconds,
        best.bytes / 2**20,
        others,
    )
    return best


def build_engine(
    engine: str, target, legs: Legs, left: Ansatz, right: Ansatz, *, options: EngineOptions
) -> Environments:
    """An engine of the name given, with the options that concern it."""
    extra: dict = {}
    if engine in ("dense", "boundary"):
        extra = {"dtype": options.dtype, "device": options.device}
    if engine == "boundary":
        extra["max_bond"] = options.environment_bond
    if engine == "tree":
        extra = {
            "memory": tree.room(options.budget),
            "seed": options.seed,
            "executor": options.executor,
        }
    return ENGINES[engine](target, legs, left, right, **extra)


def _estimates(
    legs, left, right, *, target_bonds, max_bond, complex, options, only: str | None = None
) -> list[Estimate]:
    core_bonds = full_bonds(legs, max_bond)
    network = Network.of(tuple(legs), left, right)
    sizes = network.sizes(target_bonds, core_bonds)
    item = 16 if complex else 8
    found: list[Estimate] = []

    def add(name: str, exact: bool, cost) -> None:
        if only in (None, name):
            seconds, size = cost()
            found.append(Estimate(name, exact, seconds, size, _refusal(name, size, options)))

    rows, columns = padded_shape(legs)
    if max(rows, columns) > dense.LIMIT:
        if only in (None, "dense"):
            shown = " x ".join(_dimension(d) for d in (rows, columns))
            refused = f"the dense engine would hold {shown} matrices, beyond {dense.LIMIT}"
            size = 2.0 ** min(math.log2(item) + math.log2(rows) + math.log2(columns), 1000.0)
            found.append(Estimate("dense", True, math.inf, size, refused))
    else:
        add(
            "dense",
            True,
            lambda: _dense_cost(legs, left, right, core_bonds, complex, options.dtype),
        )
    add("transverse", True, lambda: transverse.estimate(network, sizes, item, options.budget))
    quickest = min((e.seconds for e in found if not e.refused), default=math.inf)
    small = len(network.indices) <= SEARCHABLE
    if only == "tree" or (small and quickest > WORTH_SEARCHING):
        add("tree", True, lambda: _tree_cost(network, sizes, item, options))
    add(
        "boundary",
        False,
        lambda: _boundary_cost(legs, left, right, target_bonds, core_bonds, complex, options),
    )
    return found


def _tree_cost(network, sizes, item, options) -> tuple[float, float]:
    seconds, size = tree.estimate(network, sizes, item, options.budget, options.seed)
    return seconds + SEARCH * len(network.indices) / SWEEPS, size


def _boundary_cost(legs, left, right, target_bonds, core_bonds, complex, options):
    """Half of a sweep up and down, which offers every gate once."""
    seconds, size = cost.estimate(
        legs,
        left,
        right,
        target_bonds=target_bonds,
        core_bonds=core_bonds,
        max_bond=options.environment_bond,
        complex=complex,
        dtype=options.dtype,
    )
    return seconds / 2, size


def _dense_cost(legs, left, right, core_bonds, complex, dtype) -> tuple[float, float]:
    """A sweep, and the dense ALS of the core (its temporaries are double precision)."""
    seconds, size = dense.estimate(
        legs, left, right, core_bonds=core_bonds, complex=complex, dtype=dtype
    )
    return seconds, size + FIT * (16 if complex else 8) * math.prod(padded_shape(legs))


def _refusal(name: str, size: float, options: EngineOptions) -> str:
    if size <= options.budget:
        return ""
    return (
        f"engine {name!r} would take {_human(size)} of memory, and {_human(options.budget)} are "
        "allowed"
    )


def _human(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**29 else f"{size / 2**20:.3g} MiB"


def _dimension(d: int) -> str:
    return str(d) if d < 2**20 else f"2^{d.bit_length() - 1}"


def available_memory() -> float:
    """Bytes that this process can still have: of the machine, and of its control group."""
    limits = []
    info = Path("/proc/meminfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines())
        limits.append(1024.0 * int(fields["MemAvailable"].split()[0]))
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(float(limit) - float((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no such control group here
    return max(min(limits, default=2.0**32), 2.0**20)
