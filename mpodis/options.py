"""Options of the command line's jobs: one frozen dataclass each, from TOML, flags or both."""

from __future__ import annotations

import math
import os
import tomllib
import types
import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from mpodis.environments import ENGINES
from mpodis.environments.arrays import DTYPES

__all__ = ["SearchOptions", "LayerConfig", "MainConfig", "ParetoConfig", "load_config"]

OBJECTIVES = ("overlap", "activations")
METHODS = ("auto", "sweeps", "lbfgs")
INITS = ("auto", "identity", "random", "entropic", "grown")
CORES = ("update", "fixed")


@dataclass(frozen=True)
class SearchOptions:
    """How to disentangle; see `disentangle` for what each means."""

    max_bond: int = 1
    objective: str = "overlap"
    core: str = "update"
    method: str = "auto"
    engine: str = "auto"
    optimize: str | None = None
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
    def from_dict(cls, values: dict) -> SearchOptions:
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        return cls(**values)


NETWORK_OBJECTIVES = (*OBJECTIVES, "sensitivity")


@dataclass(frozen=True)
class MainConfig:
    """`mpodis run`: train, compress, disentangle, execute, report."""

    data: str = "digits"
    data_dir: str | None = None
    seed: int = 0
    repeats: int = 1
    bond: int = 2
    epochs: int | None = None
    learning_rate: float | None = None
    max_bond: int = 1
    depths: tuple[int, ...] = (2, 4, 8)
    width: int = 2
    group: str = "SO"
    objectives: tuple[str, ...] = NETWORK_OBJECTIVES
    init: str = "identity"
    n_init: int = 4
    max_sweeps: int = 200
    tol: float = 1e-4
    execute: int = -1

    def __post_init__(self) -> None:
        _positive(self, "repeats", "bond", "max_bond", "width", "n_init", "max_sweeps")
        _listed(self, "depths", "objectives")
        wrong = [d for d in self.depths if d < 1]
        if wrong:
            raise ValueError(f"depths holds {wrong[0]}; a circuit has 1 or more layers")
        _known_objectives(self.objectives, NETWORK_OBJECTIVES)
        if self.group == "U":
            raise ValueError("group='U' makes a complex layer, the network is real; use SO or O")
        for name in ("seed", "tol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more")
        if self.execute < -1:
            raise ValueError(f"execute={self.execute} must be -1 (all test images) or a number")


@dataclass(frozen=True)
class LayerConfig:
    """`mpodis disentangle FILE`: one matrix of the user's own."""

    file: str = ""
    layer: str | None = None
    transpose: bool | None = None
    inputs: str | None = None
    compress_bond: int | None = None
    compress_error: float | None = None
    max_bond: int = 1
    left: str = "8"
    right: str | None = None
    group: str = "SO"
    objectives: tuple[str, ...] = ("overlap",)
    method: str = "auto"
    core: str = "update"
    engine: str = "auto"
    environment_bond: tuple[int, ...] = (16, 32, 64)
    init: str = "auto"
    n_init: int = 4
    n_perturbed: int = 0
    max_sweeps: int = 200
    max_seconds: float | None = None
    tol: float = 1e-4
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not self.file:
            raise ValueError("no file was given; name a .npy, .npz, .safetensors or .pt file")
        _positive(self, "max_bond", "n_init", "max_sweeps", "workers")
        _listed(self, "objectives")
        _known_objectives(self.objectives, OBJECTIVES)
        if "activations" in self.objectives and self.inputs is None:
            raise ValueError(
                "the objective 'activations' needs the layer's inputs; give --inputs FILE with an "
                "array (samples, inputs)"
            )


@dataclass(frozen=True)
class ParetoConfig:
    """`mpodis pareto FILE`: overlap against CNOTs for one matrix of the user's own."""

    file: str = ""
    layer: str | None = None
    transpose: bool | None = None
    inputs: str | None = None
    compress_bond: int | None = None
    compress_error: float | None = None
    max_bond: int = 1
    objective: str = "overlap"
    families: tuple[str, ...] = ()
    depths: tuple[int, ...] = (1, 2, 4, 8)
    max_cnots: int | None = None
    n_init: int = 4
    rounds: int = 2
    trials: int = 3
    sweeps: int = 8
    beam: int = 4
    max_sweeps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.file:
            raise ValueError("no file was given; name a .npy, .npz, .safetensors or .pt file")
        _positive(self, "max_bond", "n_init", "rounds", "trials", "sweeps", "beam", "max_sweeps")
        _listed(self, "depths")
        _known_objectives((self.objective,), OBJECTIVES)
        if self.objective == "activations" and self.inputs is None:
            raise ValueError(
                "the objective 'activations' needs the layer's inputs; give --inputs FILE with an "
                "array (samples, inputs)"
            )


def load_config(
    cls: type,
    path: str | os.PathLike | None = None,
    overrides: dict | None = None,
    texts: dict[str, str] | None = None,
):
    """A config from a TOML file, flags over it, and defaults below; unknown keys are errors.

    Flags that are None were not given; `texts` are read by `from_texts` and win over the rest.
    """
    values: dict = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text())
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {path}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
    values |= {key: value for key, value in (overrides or {}).items() if value is not None}
    return from_mapping(cls, values | from_texts(cls, texts or {}))


def from_mapping(cls: type, values: dict):
    """Check names and types of a mapping against a config class, and build it."""
    known = typing.get_type_hints(cls)
    for key in values:
        if key not in known:
            raise ValueError(f"unknown option {key!r}; known are {', '.join(sorted(known))}")
    return cls(**{key: _as(known[key], value, key) for key, value in values.items()})


def to_mapping(config) -> dict:
    """The resolved config, ready for JSON."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}


def _as(kind, value, key: str):
    if isinstance(kind, types.UnionType):
        if value is None:
            return None
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
            if item is not str:
                value = [parse_number(part, key, item) for part in value]
        if not isinstance(value, list | tuple):
            value = [value]
        return tuple(_as(item, part, key) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is str and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key}={value!r} should be of type {kind.__name__}")
    return value


def parse_number(text: str, key: str, kind: type = float) -> int | float:
    """The number that a text is."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{key}={text!r} is not {what}") from None


def from_texts(cls: type, texts: dict[str, str]) -> dict:
    """Values of options whose types the class says, from texts; "none" is a number left out."""
    known = typing.get_type_hints(cls)
    kinds = {key: set(typing.get_args(known.get(key))) or {known.get(key)} for key in texts}
    found: dict = dict(texts)
    for key, text in texts.items():
        if text == "none" and type(None) in kinds[key] and kinds[key] & {int, float}:
            found[key] = None
            continue
        for kind in (int, float):
            if kind in kinds[key] and typing.get_origin(known[key]) is not tuple:
                found[key] = parse_number(text, key, kind)
        if kinds[key] == {bool}:
            if text not in ("true", "false"):
                raise ValueError(f"{key}={text!r} is neither true nor false")
            found[key] = text == "true"
    return found


def _positive(config, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)} must be 1 or more")


def _listed(config, *names: str) -> None:
    for name in names:
        if not getattr(config, name):
            raise ValueError(f"{name} is empty; give at least one")
        if len(set(getattr(config, name))) < len(getattr(config, name)):
            raise ValueError(f"{name}={getattr(config, name)} names something twice")


def _known_objectives(objectives: tuple[str, ...], known: tuple[str, ...]) -> None:
    wrong = [name for name in objectives if name not in known]
    if wrong:
        raise ValueError(f"objective {wrong[0]!r} is not known; use {' or '.join(known)}")
