"""What a function returned, as named variables of a record.

A function of a study returns a result of this package or a dict. The entries of a dict are

- numbers, truth values, texts and None, which become columns of tables;
- arrays, or lists of numbers, on axes of their own;
- tuples ``(dims, values)`` or ``(dims, values, attributes)`` as xarray takes them, which name the
  axes, for example ``("bond", entropies, {"units": "nats"})``;
- dicts, whose entries have the name of the dict before theirs;
- lists of dicts of numbers and texts, one for each point of an axis that is named like the list:
  ``{"row": [{"depth": 1, "loss": 0.5}, {"depth": 2, "loss": 0.4}]}``.

A name that is also a setting of the case stays that of the setting (`apart_from_settings`).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

__all__ = ["NATS", "Variable", "apart_from_settings", "measure"]

NATS = {"units": "nats"}
SECONDS = {"units": "s"}


@dataclass(frozen=True, eq=False)
class Variable:
    """An array with the names of its axes, and attributes such as its unit."""

    dims: tuple[str, ...]
    values: np.ndarray
    attributes: dict[str, str] = field(default_factory=dict)


def measure(result: Any) -> tuple[dict[str, Any], dict[str, Variable]]:
    """Scalars and arrays of what a function returned, by name.

    Examples
    --------
    >>> scalars, arrays = measure({"loss": 0.5, "entropies": ("bond", [0.1, 0.2])})
    >>> scalars, arrays["entropies"].dims
    ({'loss': 0.5}, ('bond',))

    Raises
    ------
    TypeError
        If it is neither a dict nor a result that is known here, or has an entry that is no number,
        text or array.
    ValueError
        If an axis has several lengths, or a number is too large for a float.
    """
    found = result if isinstance(result, Mapping) else _described(result)
    scalars: dict[str, Any] = {}
    arrays: dict[str, Variable] = {}
    for name, value in _flat(found):
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
        if value is None or isinstance(value, bool | str):
            scalars[name] = value
        elif isinstance(value, numbers.Real):
            scalars[name] = _number(name, value)
        else:
            arrays[name] = _variable(name, value)
    _check_axes(arrays)
    return scalars, arrays


def apart_from_settings(
    scalars: Mapping[str, Any], arrays: Mapping[str, Variable], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Variable]]:
    """Scalars, and axes of arrays, under names that are not those of settings.

    A scalar that repeats its setting is left out. One that differs gets the ending "_found", as the
    engine that ``engine="auto"`` chose, and an axis the ending "_axis", as that of the entropies
    where the bond dimension varies as "bond".

    Examples
    --------
    >>> apart_from_settings({"engine": "dense", "depth": 2}, {}, {"engine": "auto", "depth": 2})[0]
    {'engine_found': 'dense'}
    """
    apart = {
        f"{name}_found" if name in settings else name: value
        for name, value in scalars.items()
        if name not in settings or value != settings[name]
    }
    renamed = {
        f"{name}_found" if name in settings else name: replace(
            v, dims=tuple(f"{dim}_axis" if dim in settings else dim for dim in v.dims)
        )
        for name, v in arrays.items()
    }
    return apart, renamed


def _number(name: str, value: numbers.Real) -> int | float:
    """Integers of 64 bits, which all files can hold, and floats."""
    try:
        if isinstance(value, numbers.Integral) and abs(int(value)) < 2**63:
            return int(value)
        return float(value)
    except OverflowError:
        raise ValueError(f"{name!r} is too large for a float; return its logarithm") from None


def _check_axes(arrays: Mapping[str, Variable]) -> None:
    """An axis has one length in a case, and an array has it once."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, variable in arrays.items():
        if len(set(variable.dims)) < len(variable.dims):
            raise ValueError(f"{name!r} is given with dims={variable.dims}; name every axis once")
        for dim, length in zip(variable.dims, variable.values.shape, strict=True):
            first, other = lengths.setdefault(dim, (length, name))
            if first != length:
                raise ValueError(
                    f"{other!r} has {first} values along {dim!r}, and {name!r} has {length}; name "
                    "the axes differently"
                )


def _flat(found: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in found.items():
        whole = f"{before}{name}"
        if not whole:
            raise ValueError("a result has an empty name")
        if isinstance(value, Mapping):
            pairs += _flat(value, f"{whole}_")
        elif isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
            pairs += _columns(whole, value)
        else:
            pairs.append((whole, value))
    return pairs


def _columns(axis: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    """Entries of dicts as arrays on an axis; all have the same ones."""
    for row in rows:
        if list(row) != list(rows[0]):
            raise ValueError(
                f"the entries of {axis!r} are not the same in all rows: {', '.join(rows[0])}, and "
                f"{', '.join(row)}"
            )
    return [(name, (axis, [row[name] for row in rows])) for name in rows[0]]


def _variable(name: str, value: Any) -> Variable:
    dims: tuple[str, ...] | None = None
    attributes: dict[str, str] = {}
    if isinstance(value, Variable):
        return value
    if isinstance(value, tuple) and len(value) in (2, 3) and _are_dims(value[0]):
        dims = (value[0],) if isinstance(value[0], str) else tuple(value[0])
        attributes = dict(value[2]) if len(value) == 3 else {}
        value = value[1]
    detach = getattr(value, "detach", None)
    if detach is not None:  # a tensor of torch
        value = detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.dtype.kind not in "biufcU":
        raise TypeError(
            f"{name!r} is {type(value).__name__}, which a record cannot hold; return numbers, "
            "texts, or arrays of them"
        )
    if dims is None:
        dims = tuple(f"{name}_{axis}" for axis in range(array.ndim))
    if len(dims) != array.ndim:
        raise ValueError(f"{name!r} has {array.ndim} axes, but is given with dims={dims}")
    return Variable(dims, array, attributes)


def _are_dims(value: Any) -> bool:
    """Whether this is the name of an axis, or a sequence of names."""
    return isinstance(value, str) or (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(name, str) for name in value)
    )


def _described(result: Any) -> dict[str, Any]:
    """The figures of a result of the package."""
    from mpodis.compiling import Compiled
    from mpodis.measures import Entanglement
    from mpodis.mpo import Compressed
    from mpodis.optimise.result import Disentangled
    from mpodis.structured import Approximation

    if isinstance(result, Disentangled):
        return _disentangled(result)
    if isinstance(result, Compiled):
        return _compiled(result)
    if isinstance(result, Compressed):
        return _compressed(result)
    if isinstance(result, Entanglement):
        return _entropies(result)
    if isinstance(result, Approximation):
        names = ("overlap", "relative_error", "activation_error", "parameters")
        return {name: getattr(result, name) for name in names}
    if hasattr(result, "to_dict"):
        return _numbers(result.to_dict())
    raise TypeError(
        f"the function returned a {type(result).__name__}; return a dict of numbers, texts and "
        "arrays, or a result of disentangle, compile_unitary, compile_state, compress or "
        "entanglement"
    )


def _disentangled(run: Any) -> dict[str, Any]:
    counts = run.factorization.parameter_counts()
    bond_entropies = {"before": run.entropies_before, "after": run.entropies_after}
    history = ("loss", "overlap", "bound", "s_avg", "seconds")
    return {
        "overlap": run.overlap,
        "s_avg": _mean(run.entropies_after),
        "loss": run.loss,
        "bound": run.bound,
        "overlap_error": run.overlap_error,
        "relative_error": run.relative_error,
        "activation_error": run.activation_error,
        "s_avg_before": _mean(run.entropies_before),
        "parameters": sum(counts.values()),
        "entangling_gates": _gates(run.factorization.left) + _gates(run.factorization.right),
        "search_seconds": run.seconds,
        "status": run.status,
        "engine": run.options.engine,
        **{f"entropies_{when}": ("bond", values, NATS) for when, values in bond_entropies.items()},
        "history": {
            name: ("sweep", run.path(name), NATS if name == "s_avg" else _unit(name))
            for name in history
        },
    }


def _unit(name: str) -> dict[str, str]:
    return SECONDS if name == "seconds" else {}


def _gates(circuit: Any) -> int:
    """Gates on two qubits or more."""
    return sum(place.width > 1 for place in circuit.ansatz.placements)


def _compiled(found: Any) -> dict[str, Any]:
    names = ("loss", "infidelity", "loss_error", "infidelity_error", "n_cnots", "cnot_depth")
    columns = ("loss", "best", "seconds")
    return {
        **{name: getattr(found, name) for name in names},
        "trotter_loss": found.trotter_loss,
        "trotter_layers": found.trotter_layers,
        "search_seconds": found.seconds,
        "status": found.status,
        "start": found.start,
        "engine": found.engine,
        "history": {
            name: ("record", found.history.column(name), _unit(name))
            for name in columns
            if len(found.history)
        },
    }


def _compressed(found: Any) -> dict[str, Any]:
    from mpodis.measures import entanglement

    return {
        "relative_error": found.relative_error,
        "parameters": found.parameters,
        "largest_bond": max(found.bonds, default=1),
        **_entropies(entanglement(found)),
    }


def _entropies(found: Any) -> dict[str, Any]:
    largest = max((len(spectrum) for spectrum in found.spectra), default=0)
    spectra = np.full((len(found.spectra), largest), math.nan)
    for row, spectrum in zip(spectra, found.spectra, strict=True):
        row[: len(spectrum)] = spectrum
    return {
        "s_avg": found.average,
        "s_max": found.maximum,
        "entropies": ("bond", found.entropies, NATS),
        "bonds": ("bond", np.array(found.bonds, int)),
        "spectra": (("bond", "value"), spectra),
    }


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """Entries that a record can hold; pairs of numbers, as intervals, by their ends."""
    kept: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, list | tuple) and len(value) == 2:
            kept[f"{name}_low"], kept[f"{name}_high"] = value
        else:
            kept[name] = value
    return kept
