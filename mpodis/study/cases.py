"""The cases of a study: settings, grid, listed cases and seeds, each case with its key.

A setting has a name with dots where it is part of another one: ``operator.n`` is the entry "n" of
the setting "operator". A mapping with an entry "kind" is the description of a target
(`mpodis.targets`), which is made where the case is computed.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mpodis import __version__
from mpodis.arrays import as_numpy, is_tensor
from mpodis.circuit import Circuit
from mpodis.factorization import dump_ansatz
from mpodis.options import suggestion
from mpodis.targets import check_target

__all__ = [
    "COLUMNS",
    "Case",
    "Labelled",
    "check_size",
    "code_of",
    "expand",
    "file_hash",
    "fingerprint",
    "name_of",
    "parameters_of",
]

NEUTRAL = ("executor", "n_jobs", "progbar", "run_dir")
"""Parameters that results do not depend on: no part of a key."""
LARGEST = 100_000
"""Cases of a study; to list them takes a minute."""


COLUMNS = ("case", "cases", "seconds", "cpu_seconds")
"""Columns of tables and axes of arrays beside the settings and the seed."""


@dataclass(frozen=True)
class Labelled:
    """A value of a grid that is no number or text, under the label that tables show."""

    label: str
    value: Any


@dataclass(frozen=True)
class Case:
    """One call of the function.

    Attributes
    ----------
    key : str
        Of its record: a hash of the function, its code, all settings, the content of inputs and
        the seed.
    settings : dict
        What tables and figures show, by names with dots: numbers, texts, truth values.
    arguments : dict
        Of the function, before targets are made.
    seed : int or None
        None where neither the function nor a target takes one.
    inputs : dict
        Files that are read, with the hash of their content.
    """

    key: str
    settings: dict[str, Any]
    arguments: dict[str, Any]
    seed: int | None
    inputs: dict[str, str]

    @property
    def label(self) -> str:
        """Settings and seed as one line."""
        parts = [f"{name}={value}" for name, value in self.settings.items()]
        return ", ".join([*parts, *([] if self.seed is None else [f"seed={self.seed}"])])


def name_of(function: Callable) -> str:
    """module:name of a function."""
    return f"{function.__module__}:{function.__qualname__}"


def code_of(function: Callable) -> str:
    """What stands for the code that a result depends on.

    The version of mpodis for its own functions, and for others the hash of their source as well.
    """
    version = f"mpodis {__version__}"
    if function.__module__.partition(".")[0] == "mpodis":
        return version
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return version  # typed at a prompt, of which there is no source
    return f"{version}, source {hashlib.sha256(source.encode()).hexdigest()[:12]}"


def parameters_of(function: Callable) -> dict[str, inspect.Parameter] | None:
    """Parameters that may be given by name; None for a function that takes any."""
    found = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in found.values()):
        return None
    return {
        name: p for name, p in found.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def expand(
    function: Callable,
    *,
    settings: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    cases: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    code: str,
    neutral: Sequence[str] = (),
) -> list[Case]:
    """Every case of a study, in the order of its axes, the seed last.

    Raises
    ------
    ValueError
        A name that the function does not take (with the nearest that it takes), an axis without
        values or with one twice, a name that is fixed and varied, or two cases that are the same.
    """
    parameters = parameters_of(function)
    every = [*settings, *grid, *(name for case in cases for name in case)]
    _check_names(function, parameters, every)
    _check_axes(settings, grid, cases)
    _check_needed(function, parameters or {}, every)
    is_seeded = _takes_seed(parameters) or _has_kinds(settings, grid, cases)
    if not is_seeded and len(seeds) > 1:
        raise ValueError(
            f"{len(seeds)} seeds are given, but {name_of(function)} takes no seed=, so that all "
            "would give the same; leave seeds out"
        )
    check_size(math.prod([max(1, len(cases)), len(seeds), *map(len, grid.values())]))
    axes = [[(name, value) for value in values] for name, values in grid.items()]
    found: list[Case] = []
    hashes: dict[Any, str] = {}
    for listed in cases or [{}]:
        for point in itertools.product(*axes):
            for seed in seeds:
                given = {**settings, **listed, **dict(point)}
                shown = [*listed, *grid]
                of = seed if is_seeded else None
                found.append(_case(function, parameters, given, shown, of, code, neutral, hashes))
    _check_distinct(found)
    for case in found:
        for target in _targets(list(case.arguments.values())):
            check_target(target)
    return found


def check_size(cases: int) -> None:
    """A ValueError for more cases than a study can list."""
    if cases > LARGEST:
        raise ValueError(
            f"the study would have {cases:,} cases, more than {LARGEST:,}; use fewer values or "
            "seeds, or several studies"
        )


def _case(
    function: Callable,
    parameters: Mapping[str, inspect.Parameter] | None,
    given: Mapping[str, Any],
    shown: Iterable[str],
    seed: int | None,
    code: str,
    neutral: Sequence[str],
    hashes: dict[Any, str],
) -> Case:
    arguments = _nested(given)
    inputs: dict[str, str] = {}
    defaults = {
        name: p.default for name, p in (parameters or {}).items() if p.default is not p.empty
    }
    whole = {
        name: _identity(value, inputs, hashes)
        for name, value in {**defaults, **arguments}.items()
        if name not in (*NEUTRAL, *neutral, "seed")
    }
    identity = {"function": name_of(function), "code": code, "settings": whole, "seed": seed}
    text = json.dumps(identity, sort_keys=True)
    labels = {name: label_of(given[name]) for name in dict.fromkeys(shown)}
    return Case(
        hashlib.sha256(text.encode()).hexdigest()[:20], labels, _unlabelled(arguments), seed, inputs
    )


def _nested(given: Mapping[str, Any]) -> dict[str, Any]:
    """{"operator": {...}, "operator.n": 4} as {"operator": {..., "n": 4}}."""
    found: dict[str, Any] = {}
    for name in sorted(given, key=lambda name: name.count(".")):  # wholes before their parts
        first, *rest = name.split(".")
        value = given[name]
        if not rest:
            found[first] = dict(value) if isinstance(value, Mapping) else value
            continue
        inner = found.setdefault(first, {})
        for k, part in enumerate(rest):
            if not isinstance(inner, dict):
                whole = ".".join([first, *rest[:k]])
                raise ValueError(
                    f"{name} is a part of {whole}, which is {inner!r} and has no parts"
                )
            if k == len(rest) - 1:
                inner[part] = value
                break
            below = inner.get(part, {})
            inner[part] = dict(below) if isinstance(below, Mapping) else below
            inner = inner[part]
    return found


def _unlabelled(value: Any) -> Any:
    if isinstance(value, Labelled):
        return value.value
    if isinstance(value, dict):
        return {name: _unlabelled(entry) for name, entry in value.items()}
    return value


def label_of(value: Any) -> Any:
    """A value as tables and axes show it."""
    if isinstance(value, Labelled):
        return value.label
    if value is None:
        return "none"
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={label_of(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return ",".join(str(label_of(entry)) for entry in value)
    return f"{type(value).__name__} {fingerprint(value)[:6]}"


def _identity(value: Any, inputs: dict[str, str], hashes: dict[Any, str]) -> Any:
    """A setting as JSON; arrays and files are their hashes. Files are added to the inputs.

    `hashes` are those that are known, by path and by the identity of an object: a file or an array
    that all cases share is read once.
    """
    if isinstance(value, Labelled):
        return _identity(value.value, inputs, hashes)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        found = {str(name): _identity(entry, inputs, hashes) for name, entry in value.items()}
        path = _unlabelled(value.get("path"))
        if "kind" in value and isinstance(path, str):
            if path not in hashes:
                hashes[path] = file_hash(path)
            found["path"] = inputs[path] = hashes[path]  # what is in it, not where it lies
        return found
    if isinstance(value, list | tuple):
        return [_identity(entry, inputs, hashes) for entry in value]
    if id(value) not in hashes:
        hashes[id(value)] = fingerprint(value)
    return f"sha256 {hashes[id(value)]}"


def file_hash(path: str) -> str:
    """SHA-256 of a file that a target is made from."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}, which the study reads") from None
    except IsADirectoryError:
        raise ValueError(f"{path} is a directory, where the study reads a file") from None


def fingerprint(value: Any) -> str:
    """Hash of the content of an array, an MPO, a network, a circuit, or a function.

    Raises
    ------
    TypeError
        Of anything else: a record could not say what it belongs to.
    """
    digest = hashlib.sha256(type(value).__name__.encode())
    for array in _arrays(value):
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            raise TypeError("an array of Python objects cannot be a setting of a study")
        return [value]
    if hasattr(value, "mpo"):  # Compressed, Evolution
        return _arrays(value.mpo)
    if hasattr(value, "state_dict"):  # a module of torch
        return [
            part
            for name, tensor in value.state_dict().items()
            for part in (_bytes(name), as_numpy(tensor, what=name))
        ]
    if hasattr(value, "arrays"):  # tensor networks of quimb
        return [np.asarray(array) for array in value.arrays]
    if isinstance(value, Circuit):
        return [_bytes(dump_ansatz(value.ansatz)), *map(np.asarray, value.gates)]
    if is_tensor(value):
        return [as_numpy(value, what="setting")]
    if callable(value) and hasattr(value, "__qualname__"):
        return [_bytes(f"{name_of(value)} {code_of(value)}")]
    raise TypeError(
        f"a {type(value).__name__} cannot be a setting of a study, whose records must say what "
        "they belong to; give numbers, texts, arrays, MPOs, layers, or the description of a target"
    )


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


def _check_names(
    function: Callable, parameters: Mapping[str, Any] | None, names: Iterable[str]
) -> None:
    for name in names:
        if not isinstance(name, str) or not all(name.split(".")):
            raise ValueError(f"{name!r} is no name of a setting, nor of a part of one as 'a.b'")
        first = name.partition(".")[0]
        if first == "seed":
            raise ValueError("seed cannot be a setting; give the seeds of the study by seeds=")
        if parameters is not None and first not in parameters:
            takes = [name for name in parameters if name != "seed"]
            hint = suggestion(first, takes) if takes else "it takes none by name"
            raise ValueError(f"{name_of(function)} takes no setting {first!r}; {hint}")


def _check_needed(
    function: Callable, parameters: Mapping[str, inspect.Parameter], names: Iterable[str]
) -> None:
    there = {name.partition(".")[0] for name in names} | {"seed", "run_dir"}
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in there:
            raise ValueError(
                f"{name_of(function)} needs {name!r}; give it among the settings, in the grid or "
                "in the cases"
            )


def _check_axes(
    settings: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    cases: Sequence[Mapping[str, Any]],
) -> None:
    for name in (*grid, *(name for case in cases for name in case)):
        if name in COLUMNS:
            raise ValueError(
                f"{name!r} cannot vary, as tables have a column of this name; call the parameter "
                "of the function something else"
            )
    for name, values in grid.items():
        if not values:
            raise ValueError(f"the grid has no values for {name!r}; give at least one")
        labels = [label_of(value) for value in values]
        twice = next((v for k, v in enumerate(labels) if v in labels[:k]), None)
        if twice is not None:
            raise ValueError(f"the grid has {name}={twice!r} twice; give every value once")
    for where, other in (
        ("settings", settings),
        *((f"case {k}", case) for k, case in enumerate(cases)),
    ):
        both = sorted(set(other) & set(grid))
        if both:
            raise ValueError(f"{both[0]!r} is in the {where} and in the grid; leave one out")
    names = [tuple(sorted(case)) for case in cases]
    if len(set(names)) > 1:
        raise ValueError(
            f"the listed cases do not set the same names: {', '.join(names[0])} in the first, "
            f"{', '.join(next(n for n in names if n != names[0]))} in another"
        )


def _check_distinct(cases: Sequence[Case]) -> None:
    seen: dict[str, Case] = {}
    for case in cases:
        if case.key in seen:
            raise ValueError(
                f"two cases are the same: {case.label or 'no settings'}, and "
                f"{seen[case.key].label or 'no settings'}"
            )
        seen[case.key] = case


def _takes_seed(parameters: Mapping[str, Any] | None) -> bool:
    return parameters is None or "seed" in parameters


def _has_kinds(
    settings: Mapping[str, Any], grid: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether a target is described anywhere, perhaps in parts."""
    entries = [entry for given in (settings, grid, *cases) for entry in given.items()]
    in_parts = any(name.endswith(".kind") for name, _ in entries)
    return in_parts or any(_targets([value for _, value in entries]))


def _targets(value: Any) -> Iterator[Mapping[str, Any]]:
    """The descriptions of targets, those inside others left to these."""
    if isinstance(value, Labelled):
        value = value.value
    if isinstance(value, Mapping):
        if "kind" in value:
            yield value
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _targets(entry)
