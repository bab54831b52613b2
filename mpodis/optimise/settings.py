"""The options of a disentangling run, checked once, and stored with it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields

import numpy as np

from mpodis.environments import ENGINES
from mpodis.environments.arrays import DTYPES

__all__ = ["METHODS", "OBJECTIVES", "INITS", "Settings"]

OBJECTIVES = ("overlap", "activations")
METHODS = ("auto", "sweeps", "lbfgs")
INITS = ("auto", "identity", "random", "entropic", "grown")
CORES = ("update", "fixed")


@dataclass(frozen=True)
class Settings:
    """How to disentangle; see `disentangle` for what each means."""

    max_bond: int = 1
    objective: str = "overlap"
    core: str = "update"
    method: str = "auto"
    engine: str = "auto"
    environment_bond: tuple[int, ...] = (16, 32, 64)
    dtype: str = "float64"
    device: str | None = None
    memory: float | None = None
    init: str = "auto"
    init_scale: float = 0.05
    n_init: int = 4
    n_perturbed: int = 0
    relaxation: float = 0.0
    init_sweeps: int = 20
    max_sweeps: int = 200
    tol: float = 1e-4
    max_seconds: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())  # JSON knows no numpy numbers
        for name, known in (
            ("objective", OBJECTIVES),
            ("method", METHODS),
            ("engine", ("auto", *ENGINES)),
            ("dtype", DTYPES),
            ("init", INITS),
            ("core", CORES),
        ):
            given = name == "init" and self.init == "given"  # stands for gates that are
            if not given and getattr(self, name) not in known:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is not known; use one of {', '.join(known)}"
                )
        for name in ("max_bond", "n_init", "init_sweeps", "max_sweeps"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r} must be a whole number, 1 or more")
        if (
            isinstance(self.n_perturbed, bool)
            or not isinstance(self.n_perturbed, int)
            or self.n_perturbed < 0
        ):
            raise ValueError(f"n_perturbed={self.n_perturbed!r} must be a whole number, 0 or more")
        for name, low in (("init_scale", 0.0), ("tol", 0.0), ("relaxation", 0.0)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and math.isfinite(value) and value >= low):
                raise ValueError(f"{name}={value!r} must be a number, {low} or more")
        bonds = self.environment_bond
        bonds = tuple(bonds) if isinstance(bonds, list | tuple) else (bonds,)
        whole = all(isinstance(d, int) and not isinstance(d, bool) and d >= 1 for d in bonds)
        if not bonds or not whole or list(bonds) != sorted(set(bonds)):
            raise ValueError(
                f"environment_bond={self.environment_bond!r} must be a whole number, 1 or more, "
                "or several in ascending order"
            )
        object.__setattr__(self, "environment_bond", bonds)
        memory = self.memory
        if memory is not None and not (isinstance(memory, int | float) and memory > 0):
            raise ValueError(f"memory={memory!r} must be a number of bytes, or None")
        limit = self.max_seconds
        if limit is not None and not (isinstance(limit, int | float) and limit > 0):
            raise ValueError(f"max_seconds={limit!r} must be a positive number, or None")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"seed={self.seed!r} must be a whole number, 0 or more")
        if self.objective == "activations":
            if self.method == "sweeps":
                raise ValueError(
                    "method='sweeps' has no closed form for the left gates under "
                    "objective='activations'; use method='auto'"
                )
            if self.engine not in ("auto", "dense"):
                raise ValueError(
                    f"objective='activations' needs the dense operator; engine={self.engine!r} "
                    "does not have it, use engine='dense'"
                )

    def to_dict(self) -> dict:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> Settings:
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)
