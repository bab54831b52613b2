"""Records as one labelled Dataset of xarray, and as netCDF."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.study.records import Record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["dataset", "to_netcdf"]

UNITS = {
    **dict.fromkeys(("seconds", "cpu_seconds", "search_seconds"), "s"),
    **dict.fromkeys(("s_avg", "s_avg_before", "s_max"), "nats"),
}
"""Units of scalars, which come without any; arrays have theirs as attributes."""


def dataset(described: Mapping[str, Any], records: Sequence[Record]) -> xr.Dataset:
    """One Dataset of all records, see `StudyResults.to_xarray`."""
    import xarray as xr

    axes = _axes(described)
    shape = tuple(len(values) for values in axes.values())
    of = {name: {v: k for k, v in enumerate(values)} for name, values in axes.items()}
    if described["listed"]:
        of["case"] = {settings: k for k, settings in enumerate(_cases(described))}
    place = {
        case["key"]: tuple(
            positions[_coordinate(described, case, name)] for name, positions in of.items()
        )
        for case in described["cases"]
    }
    places = [place[record.key] for record in records]
    variables: dict[str, Any] = {}
    costs = [{"seconds": r.seconds, "cpu_seconds": r.cpu_seconds} for r in records]
    columns = [{**r.scalars, **cost} for r, cost in zip(records, costs, strict=True)]
    for name in dict.fromkeys(name for column in columns for name in column):
        given = [(p, c[name]) for p, c in zip(places, columns, strict=True) if name in c]
        unit = {"units": UNITS[name]} if name in UNITS else {}
        variables[name] = (tuple(axes), _filled(shape, given), unit)
    own = dict.fromkeys(name for record in records for name in record.arrays)
    for name in own:
        given = [
            (p, r.arrays[name]) for p, r in zip(places, records, strict=True) if name in r.arrays
        ]
        dims = given[0][1].dims
        if any(v.dims != dims for _, v in given):
            raise ValueError(f"{name!r} has other axes in different cases: {dims} and others")
        variables[name] = (
            (*axes, *dims),
            _padded(shape, [(p, v.values) for p, v in given]),
            given[0][1].attributes,
        )
    coordinates: dict[str, Any] = {name: list(values) for name, values in axes.items()}
    for name, values in _listed(described).items():
        coordinates[name] = ("case", values)
    attributes = {
        "study": described["name"],
        "function": described["function"],
        "code": described["code"],
        "settings": described["settings"],
    }
    return xr.Dataset(variables, coordinates, attributes)


def _axes(described: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Axes in their order: the listed cases, the grid, the seed."""
    listed = described["listed"]
    axes = {name: values for name, values in described["axes"].items() if name not in listed}
    if listed:
        axes = {"case": list(range(len(_cases(described)))), **axes}
    if described["seeds"] != [None]:
        axes["seed"] = described["seeds"]
    return axes


def _cases(described: Mapping[str, Any]) -> list[tuple]:
    """Listed settings, in their order."""
    names = described["listed"]
    return list(dict.fromkeys(tuple(c["settings"][n] for n in names) for c in described["cases"]))


def _listed(described: Mapping[str, Any]) -> dict[str, list]:
    cases = _cases(described)
    return {name: [case[k] for case in cases] for k, name in enumerate(described["listed"])}


def _coordinate(described: Mapping[str, Any], case: Mapping[str, Any], name: str) -> Any:
    """Of a case along an axis; the listed settings together along "case"."""
    if name == "seed":
        return case["seed"]
    if name == "case":
        return tuple(case["settings"][n] for n in described["listed"])
    return case["settings"][name]


def _filled(shape: tuple[int, ...], given: Sequence[tuple[tuple, Any]]) -> np.ndarray:
    """An array of scalars; numbers with NaN where there is none, texts with an empty one."""
    values = [value for _, value in given]
    if any(isinstance(value, str) for value in values):
        array: np.ndarray = np.full(shape, "", object)
        values = ["" if value is None else str(value) for value in values]
    else:
        array = np.full(shape, np.nan)
        values = [np.nan if value is None else float(value) for value in values]
    for (place, _), value in zip(given, values, strict=True):
        array[place] = value
    return array


def _padded(shape: tuple[int, ...], given: Sequence[tuple[tuple, np.ndarray]]) -> np.ndarray:
    """Arrays of cases in one, those that are shorter ended with NaN."""
    own = tuple(max(sizes) for sizes in zip(*(values.shape for _, values in given), strict=True))
    kind = np.result_type(*{values.dtype for _, values in given})
    whole = len(given) == int(np.prod(shape)) and all(v.shape == own for _, v in given)
    if kind.kind == "U":
        array = np.full((*shape, *own), "", object)
        for place, values in given:
            array[(*place, *map(slice, values.shape))] = values
        return array
    if not whole and kind.kind not in "fc":
        kind = np.dtype(float)
    array = np.full((*shape, *own), np.nan, kind) if not whole else np.empty((*shape, *own), kind)
    for place, values in given:
        array[(*place, *map(slice, values.shape))] = values
    return array


def to_netcdf(found: xr.Dataset) -> bytes:
    """The Dataset as a netCDF 4 file; complex variables as two, with a last axis of 2."""
    import xarray as xr

    variables = {}
    for name, variable in found.data_vars.items():
        if variable.dtype.kind == "c":
            values = np.stack([np.real(variable.values), np.imag(variable.values)], -1)
            variables[name] = ((*variable.dims, "re_im"), values, variable.attrs)
        elif variable.dtype == object:
            variables[name] = (variable.dims, variable.values.astype(str), variable.attrs)
        else:
            variables[name] = variable
    plain = xr.Dataset(variables, found.coords, found.attrs)
    stream = io.BytesIO()
    compressed = {
        name: {"zlib": True, "complevel": 4}
        for name, variable in plain.data_vars.items()
        if variable.dtype.kind in "fi" and variable.size > 1
    }
    plain.to_netcdf(stream, engine="h5netcdf", encoding=compressed)
    return stream.getvalue()
