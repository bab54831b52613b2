"""Figures of a study: a quantity against a coordinate, with its spread over the seeds.

A coordinate is an axis of the grid or of the listed cases, the seed, or an axis of an array, such
as "bond" of the entropies. Nothing is averaged that was not named: a coordinate that varies is
drawn, or fixed, or an error; only over the seeds there is a median.
"""

from __future__ import annotations

import io
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from mpodis.files import write_atomic
from mpodis.options import suggestion
from mpodis.plots import LABELS
from mpodis.study.dataset import UNITS
from mpodis.study.records import Record
from mpodis.tables import Table, number

if TYPE_CHECKING:
    import pandas as pd

    from mpodis.study.results import StudyResults

__all__ = ["fit_scaling", "plot_study", "save_figure"]

SPREADS = {"quartiles": (25.0, 75.0), "range": (0.0, 100.0)}
"""Percentiles of the shaded bands."""
LEAST_POINTS = 3
"""Of a fit of two parameters: two points would lie on any line."""
COUNTED_FROM_ONE = ("bond", "value")
"""Axes of arrays whose first entry has the number 1; sweeps begin at 0, before the first."""
LAWS = {"power": "a x^b", "exponential": "a b^x"}
"""Laws that are fitted, with what they are of the coordinate x."""
PANEL = (3.9, 3.1)
"""Size of one of several panels in inches."""
MOST_TICKS = 9


def plot_study(
    results: StudyResults,
    quantity: str | Sequence[str],
    *,
    x: str,
    hue: str | None = None,
    col: str | None = None,
    row: str | None = None,
    where: Mapping[str, Any] | None = None,
    spread: str | None = "quartiles",
    fit: str | None = None,
    logx: bool | None = None,
    logy: bool | None = None,
    ax: Any = None,
) -> Any:
    """Draw what a study found against a coordinate: medians over the seeds, and their spread.

    Parameters
    ----------
    results : StudyResults
        A study that has run or runs, or `load_study(directory)`.
    quantity : str or sequence of str
        Scalars or arrays of the records; several are panels beside each other (below each other,
        where `col` is given).
    x : str
        Coordinate: a setting that varies, "seed", or an axis of an array, such as "bond". A setting
        with dots may be named by its last part.
    hue, col, row : str, optional
        Coordinates that are told apart by colours, and by columns and rows of panels.
    where : mapping, optional
        Values of coordinates, one or a list of each, to which the figure is restricted.
    spread : {"quartiles", "range"} or None
        What the shaded bands show of the seeds.
    fit : {"power", "exponential"}, optional
        Fit y = a x^b or y = a b^x to the medians of every curve, see `fit_scaling`; the legend
        gives b with its standard error.
    logx, logy : bool, optional
        Logarithmic axes; by default those on which the law that is fitted is a straight line.
    ax : Axes or array of Axes, optional
        As many as there are panels.

    Returns
    -------
    Axes or array of Axes
        One panel, or all (rows, columns); of one row or column the array has one axis.

    Raises
    ------
    ValueError
        If there is no such quantity or coordinate, a coordinate varies that is neither drawn nor
        fixed, or there is nothing to draw or to fit.

    Examples
    --------
    >>> import tempfile
    >>> from mpodis import Study, disentangle
    >>> from mpodis.study import plot_study
    >>> operator = {"kind": "random_mpo", "n": 4, "max_bond": 4}
    >>> study = Study(
    ...     disentangle,
    ...     settings={"operator": operator, "max_sweeps": 5},
    ...     grid={"depth": [1, 2, 3], "max_bond": [1, 2]},
    ...     seeds=3,
    ... )
    >>> _ = study.run(tempfile.mkdtemp(), progbar=False)
    >>> panels = ["overlap", "s_avg", "entangling_gates"]
    >>> axes = plot_study(study, panels, x="depth", hue="max_bond")
    >>> [ax.get_ylabel() for ax in axes]
    ['overlap f', '$S_{avg}$ (nats)', 'entangling gates']
    """
    panels = _Panels(results, quantity, x, hue, col, row, where, spread, fit, logx, logy)
    if ax is None:
        import matplotlib.pyplot as plt

        axes = panels.subplots(plt.figure(figsize=panels.size, layout="constrained"))
    else:
        axes = np.array(ax, dtype=object, ndmin=1).ravel()
        if axes.size != math.prod(panels.shape):
            raise ValueError(
                f"{axes.size} Axes are given for {math.prod(panels.shape)} panels; leave ax out"
            )
        axes = axes.reshape(panels.shape)
    panels.draw(axes)
    return axes[0, 0] if axes.size == 1 else axes.squeeze()


def save_figure(
    results: StudyResults, path: str | os.PathLike, quantity: str | Sequence[str], **options: Any
) -> list[Path]:
    """Write `plot_study` as PNG and as SVG, to `path` with either ending.

    Needs no display, and gives the same files for the same records.
    """
    names = ("hue", "col", "row", "where", "spread", "fit", "logx", "logy")
    rest = [options.get(name, "quartiles" if name == "spread" else None) for name in names]
    panels = _Panels(results, quantity, options["x"], *rest)
    canvas = Figure(figsize=panels.size, layout="constrained")
    panels.draw(panels.subplots(canvas))
    path, written = Path(path), []
    path.parent.mkdir(parents=True, exist_ok=True)
    plain: dict[str, dict[str, Any]] = {
        "png": {"dpi": 150, "metadata": {"Software": None}},
        "svg": {"metadata": dict.fromkeys(("Creator", "Date", "Format", "Type"))},
    }
    for kind, given in plain.items():
        stream = io.BytesIO()
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
            canvas.savefig(stream, format=kind, **given)
        written.append(path.with_name(f"{path.name}.{kind}"))
        write_atomic(written[-1], stream.getvalue())
    return written


def fit_scaling(
    results: StudyResults,
    quantity: str,
    *,
    x: str,
    hue: str | None = None,
    where: Mapping[str, Any] | None = None,
    law: str = "power",
) -> Table:
    """Fit a power law y = a x^b or an exponential y = a b^x, by least squares of log y.

    The points are medians over the seeds, one for each value of x: more seeds at the same x do not
    make a law look more certain than the curve is.

    Parameters
    ----------
    results, quantity, x, where
        As in `plot_study`.
    hue : str, optional
        Coordinate of which every value has a fit of its own.
    law : {"power", "exponential"}
        Compare R^2 of both where it is not known which one holds.

    Returns
    -------
    Table
        The exponent b, or the base b of the exponential, with its standard error (of n - 2 degrees
        of freedom), the prefactor a, R^2 of log y (NaN where y is constant), and the number of
        points n.

    Raises
    ------
    ValueError
        If the law is not known, or a curve has fewer than three points or numbers that are not
        above 0 (y, and x of a power law); or as `plot_study`.

    Examples
    --------
    >>> import tempfile
    >>> from mpodis import Study
    >>> from mpodis.study import fit_scaling
    >>> def cost(*, n, seed):
    ...     return {"flops": 5.0 * n**3, "amplitudes": 2**n}
    >>> study = Study(cost, grid={"n": [4, 8, 16, 32]}, seeds=2)
    >>> _ = study.run(tempfile.mkdtemp(), progbar=False)
    >>> fit = fit_scaling(study, "flops", x="n").to_dataframe()
    >>> fit[["exponent", "prefactor", "points"]].round(6).values.tolist()
    [[3.0, 5.0, 4.0]]
    >>> fit = fit_scaling(study, "amplitudes", x="n", law="exponential").to_dataframe()
    >>> fit[["base", "prefactor", "points"]].round(6).values.tolist()
    [[2.0, 1.0, 4.0]]
    """
    _check_law(law, "law")
    panels = _Panels(results, quantity, x, hue, None, None, where, None, law, None, None)
    rows = []
    for label, curve in panels.curves(panels.frames[0], quantity):
        found = _fitted(law, curve, quantity, panels.x)
        cells = (found.b, found.error, found.prefactor, found.r2, len(curve.x))
        rows.append(((label,) if hue else ()) + cells)
    head = ("exponent" if law == "power" else "base", "error", "prefactor", "R^2", "points")
    return Table(
        ((_short(panels.hue),) if panels.hue else ()) + head,
        rows,
        title=f"{quantity} = {LAWS[law].replace('x', _short(panels.x))}, medians over the seeds",
    )


# --- what is drawn


@dataclass(frozen=True)
class _Curve:
    """Medians over the seeds, and two percentiles, for ascending x."""

    x: list[Any]
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def is_numeric(self) -> bool:
        return all(_is_number(value) for value in self.x)


@dataclass(frozen=True)
class _Law:
    """A law through the medians of a curve, and the standard error of its b."""

    kind: str
    b: float
    error: float
    prefactor: float
    r2: float

    def at(self, x: np.ndarray) -> np.ndarray:
        return self.prefactor * (x**self.b if self.kind == "power" else self.b**x)

    def label(self, x: str) -> str:
        """For the legend: x^b or b^x, the error with two digits."""
        digits = 2
        if self.error > 0:
            digits = min(max(1 - math.floor(math.log10(self.error)), 0), 4)
        b = f"{self.b:.{digits}f} \\pm {self.error:.{digits}f}"
        name = "\\mathrm{" + _short(x).replace("_", r"\ ") + "}"
        return f"${name}^{{{b}}}$" if self.kind == "power" else f"$({b})^{{{name}}}$"


@dataclass(frozen=True)
class _Facet:
    """One panel: a quantity, and the values of `col` and `row`."""

    quantity: int
    fixed: tuple[tuple[str, Any], ...]


class _Panels:
    """The panels of a figure, checked, before there are Axes; arguments as in `plot_study`."""

    def __init__(
        self,
        results: StudyResults,
        quantity: str | Sequence[str],
        x: str,
        hue: str | None,
        col: str | None,
        row: str | None,
        where: Mapping[str, Any] | None,
        spread: str | None,
        fit: str | None,
        logx: bool | None,
        logy: bool | None,
    ) -> None:
        if spread is not None and spread not in SPREADS:
            raise ValueError(f"spread={spread!r} is not known; use {', '.join(SPREADS)} or None")
        if fit is not None:
            _check_law(fit, "fit")
        self.quantities = [quantity] if isinstance(quantity, str) else list(quantity)
        if not self.quantities:
            raise ValueError("there is no quantity to draw; name at least one")
        if len(self.quantities) > 1 and col and row:
            raise ValueError(
                "several quantities have panels of their own; leave out col or row, or draw one"
            )
        self.spread, self.fit = spread, fit
        self.logx = fit == "power" if logx is None else logx
        self.logy = fit is not None if logy is None else logy
        described, records = results.described(), results.records()
        self.order: dict[str, list[Any]] = {**described["axes"], "seed": described["seeds"]}
        self.units: dict[str, str] = {}
        tidy = [self._tidy(records, name) for name in self.quantities]
        self.own = {dim: None for _, dims in tidy for dim in dims}
        names = [*self.order, *self.own]
        self.x = _resolved(x, names, "x")
        self.hue, self.col, self.row = (
            None if name is None else _resolved(name, names, what)
            for what, name in (("hue", hue), ("col", col), ("row", row))
        )
        used = [name for name in (self.x, self.hue, self.col, self.row) if name is not None]
        if len(set(used)) < len(used):
            raise ValueError(f"{', '.join(used)}: use every coordinate once")
        fixed = {_resolved(name, names, "where"): value for name, value in (where or {}).items()}
        self._check_nothing_is_averaged(described["cases"], used, fixed)
        self.frames = [
            self._restricted(frame, dims, name, used, fixed)
            for name, (frame, dims) in zip(self.quantities, tidy, strict=True)
        ]

    # --- data

    def _tidy(self, records: Sequence[Record], name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """One row a number: coordinates, and the value; and the axes of an array."""
        import pandas as pd

        if not records:
            raise ValueError("no case of the study is done yet, so that there is nothing to draw")
        self.units[name] = UNITS.get(name, "")
        kept = [r for r in records if name in r.scalars or name in r.arrays]
        if name in ("seconds", "cpu_seconds"):
            kept = list(records)
        if not kept:
            _refuse_quantity(name, records)
        arrays = [_values_of(record, name) for record in kept]
        first = kept[0].arrays.get(name)
        dims = first.dims if first is not None else ()
        if first is not None:
            self.units[name] = first.attributes.get("units", "")
        sizes = [array.size for array in arrays]
        columns: dict[str, Any] = {
            axis: np.repeat(_objects([_coordinate(r, axis) for r in kept]), sizes)
            for axis in self.order
        }
        for k, dim in enumerate(dims):
            begin = dim.removesuffix("_axis") in COUNTED_FROM_ONE
            columns[dim] = np.concatenate(
                [np.indices(array.shape)[k].ravel() + begin for array in arrays]
            )
        columns["value"] = np.concatenate([array.ravel() for array in arrays])
        frame = pd.DataFrame(columns)
        return frame.loc[np.isfinite(frame["value"].to_numpy())], dims

    def _check_nothing_is_averaged(
        self, cases: Sequence[Mapping[str, Any]], used: Sequence[str], fixed: Mapping[str, Any]
    ) -> None:
        """Settings must be drawn or fixed, or follow from those that are, as of listed cases."""
        points = [{**case["settings"], "seed": case["seed"]} for case in cases]
        for name, wanted in fixed.items():
            if name in self.order:
                values = list(dict.fromkeys(point[name] for point in points))
                self._check_values(name, wanted, values)
        points = [p for p in points if all(_fits(p[n], v) for n, v in fixed.items() if n in p)]
        drawn = [name for name in used if name in self.order]
        for name in self.order:
            if name == "seed" or name in drawn:
                continue
            seen: dict[tuple, set] = {}
            for point in points:
                seen.setdefault(tuple(point[n] for n in drawn), set()).add(point[name])
            if any(len(values) > 1 for values in seen.values()):
                values = list(dict.fromkeys(point[name] for point in points))
                _refuse_average(name, values, self.order)

    def _check_values(self, name: str, wanted: Any, values: Sequence[Any]) -> None:
        for value in _listed(wanted):
            if value not in values:
                shown = ", ".join(map(repr, values[:12])) + (", ..." if len(values) > 12 else "")
                raise ValueError(
                    f"where={{{_short(name)!r}: {value!r}}}: it has no such value; use one of "
                    f"{shown}"
                )

    def _restricted(
        self,
        frame: pd.DataFrame,
        dims: tuple[str, ...],
        quantity: str,
        used: Sequence[str],
        fixed: Mapping[str, Any],
    ) -> pd.DataFrame:
        for name in used:
            if name in self.own and name not in dims:
                has = f"has the axes {', '.join(dims)}" if dims else "is a number"
                raise ValueError(f"{name!r} is no axis of {quantity!r}, which {has}")
        for name, wanted in fixed.items():
            if name in frame.columns:
                if name in dims:
                    self._check_values(name, wanted, sorted({int(v) for v in frame[name]}))
                frame = frame.loc[[_fits(value, wanted) for value in frame[name]]]
        for dim in dims:
            values = sorted({int(value) for value in frame[dim]})
            if dim not in used and len(values) > 1:
                _refuse_average(dim, values, self.own)
        if frame.empty:
            raise ValueError(f"no case that is done has a finite {quantity!r} there")
        return frame

    def curves(self, frame: pd.DataFrame, quantity: str) -> list[tuple[Any, _Curve]]:
        """The curves of a panel, each with its value of `hue` (None without)."""
        values = frame["value"].to_numpy()
        hues = [None] if self.hue is None else self._values(self.hue, frame)
        found = []
        for hue in hues:
            ours = np.ones(len(frame), bool) if hue is None else _equal(frame[self.hue], hue)
            places = [
                (at, values[chosen])
                for at in self._values(self.x, frame.loc[ours])
                if (chosen := ours & _equal(frame[self.x], at)).any()
            ]
            if places and all(_is_number(at) for at, _ in places):
                places.sort(key=lambda place: place[0])
            ends = SPREADS[self.spread] if self.spread else (50.0, 50.0)
            low, high = (np.array([np.percentile(v, q) for _, v in places]) for q in ends)
            middle = np.array([np.median(v) for _, v in places])
            if places:
                found.append((hue, _Curve([at for at, _ in places], middle, low, high)))
        return found

    def _values(self, name: str, frame: pd.DataFrame) -> list[Any]:
        """Values of a coordinate that there are, in the order of its axis."""
        there = list(dict.fromkeys(frame[name]))
        if name in self.own:
            return sorted(there)
        return [value for value in self.order[name] if value in there]

    # --- panels

    @cached_property
    def facets(self) -> list[list[_Facet]]:
        several = len(self.quantities) > 1
        down = self._facet_values(self.row)
        across = self._facet_values(self.col)
        if several and self.col:
            return [[_Facet(q, fixed) for fixed in across] for q in range(len(self.quantities))]
        if several:
            return [[_Facet(q, fixed) for q in range(len(self.quantities))] for fixed in down]
        return [[_Facet(0, (*one, *other)) for other in across] for one in down]

    def _facet_values(self, name: str | None) -> list[tuple[tuple[str, Any], ...]]:
        if name is None:
            return [()]
        values = dict.fromkeys(
            itertools.chain.from_iterable(self._values(name, frame) for frame in self.frames)
        )
        return [((name, value),) for value in values]

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.facets), len(self.facets[0])

    @property
    def size(self) -> tuple[float, float]:
        rows, columns = self.shape
        return (5.2, 3.4) if rows * columns == 1 else (PANEL[0] * columns, PANEL[1] * rows)

    def subplots(self, figure: Figure) -> np.ndarray:
        """The Axes of a new figure, (rows, columns)."""
        several = len(self.quantities) > 1
        shared: Any = ("row" if self.col else "col" if self.row else False) if several else True
        return figure.subplots(*self.shape, squeeze=False, sharex=True, sharey=shared)

    def draw(self, axes: np.ndarray) -> None:
        """Draw all panels on Axes (rows, columns)."""
        hues = dict.fromkeys(
            value
            for frame in self.frames
            for value in (self._values(self.hue, frame) if self.hue else [None])
        )
        colours = _colours(list(hues))
        several, last = len(self.quantities) > 1, len(axes) - 1
        for (i, j), ax in np.ndenumerate(axes):
            facet = self.facets[i][j]
            frame, name = self.frames[facet.quantity], self.quantities[facet.quantity]
            for coordinate, value in facet.fixed:
                frame = frame.loc[_equal(frame[coordinate], value)]
            self._draw_panel(ax, self.curves(frame, name), name, colours)
            ax.set_title(
                ", ".join(f"{_short(c)} = {_shown(v)}" for c, v in facet.fixed), fontsize="medium"
            )
            ax.set_xlabel(_axis_label(self.x) if i == last else "")
            alone = j == 0 or (several and not self.col)
            ax.set_ylabel(_quantity_label(name, self.units[name]) if alone else "")
            # exponents differ from panel to panel, colours do not
            if (self.hue and (i, j) == (0, 0)) or self.fit:
                handles = ax.get_legend_handles_labels()[0]
                if handles:
                    title = _short(self.hue) if self.hue else None
                    ax.legend(title=title, fontsize="small", title_fontsize="small")

    @cached_property
    def places(self) -> list[Any]:
        """All values of x, ascending where they are numbers: panels share the axis."""
        every = [self._values(self.x, frame) for frame in self.frames]
        found = list(dict.fromkeys(itertools.chain.from_iterable(every)))
        return sorted(found) if all(map(_is_number, found)) else found

    def _draw_panel(
        self, ax: Axes, curves: list[tuple[Any, _Curve]], name: str, colours: Mapping[Any, Any]
    ) -> None:
        if not all(map(_is_number, self.places)):
            self._draw_texts(ax, curves, name, colours)
            return
        for hue, curve in curves:
            colour = colours[hue]
            label = None if hue is None else _shown(hue)
            places = np.array(curve.x, float)
            if self.fit:
                law = _fitted(self.fit, curve, name, self.x)
                label = f"{label}: {law.label(self.x)}" if label else law.label(self.x)
                ax.plot(places, law.at(places), ls="--", lw=1, color=colour)
            style = "o" if self.fit else "o-"
            ax.plot(places, curve.middle, style, ms=4, lw=1.4, color=colour, label=label)
            if (curve.high > curve.low).any():
                ax.fill_between(places, curve.low, curve.high, color=colour, alpha=0.2, lw=0)
        if self.logx:
            ax.set_xscale("log")
        if self.logy:
            ax.set_yscale("log")
        few = 1 < len(self.places) <= MOST_TICKS
        if few and (self.logx or all(isinstance(value, int) for value in self.places)):
            ax.set_xticks(self.places, [number(value) for value in self.places])
            if self.logx:
                ax.xaxis.set_minor_locator(NullLocator())

    def _draw_texts(
        self, ax: Axes, curves: list[tuple[Any, _Curve]], name: str, colours: Mapping[Any, Any]
    ) -> None:
        """Points above texts in the order of the axis, those of several curves side by side."""
        width = 0.6 / len(colours)
        for hue, curve in curves:
            if self.fit:
                _fitted(self.fit, curve, name, self.x)  # raises: no law fits texts
            shift = width * (list(colours).index(hue) - (len(colours) - 1) / 2)
            places = [self.places.index(value) + shift for value in curve.x]
            bars = [curve.middle - curve.low, curve.high - curve.middle]
            style: dict[str, Any] = {"fmt": "o", "ms": 4, "capsize": 3, "lw": 1.2}
            label = None if hue is None else _shown(hue)
            ax.errorbar(places, curve.middle, bars, color=colours[hue], label=label, **style)
        if self.logy:
            ax.set_yscale("log")
        ax.set_xticks(range(len(self.places)), [_shown(value) for value in self.places])
        ax.set_xlim(-0.5, len(self.places) - 0.5)


def _colours(hues: Sequence[Any]) -> dict[Any, Any]:
    """A colour for every value: from dark to light for numbers, else those of matplotlib."""
    if len(hues) > 2 and all(_is_number(value) for value in hues):
        shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(hues)))
        return dict(zip(sorted(hues), map(tuple, shades), strict=True))
    return {value: f"C{k}" for k, value in enumerate(hues)}


# --- fits


def _check_law(law: str, what: str) -> None:
    if law not in LAWS:
        raise ValueError(f"{what}={law!r} is not known; use {' or '.join(map(repr, LAWS))}")


def _fitted(law: str, curve: _Curve, quantity: str, x: str) -> _Law:
    """The law through the medians of a curve."""
    from scipy.stats import linregress

    x = _short(x)
    if not curve.is_numeric:
        raise ValueError(f"x={x!r} has values that are no numbers, to which no law can be fitted")
    if len(curve.x) < LEAST_POINTS:
        raise ValueError(
            f"a fit needs {LEAST_POINTS} values of {x} or more, and there are "
            f"{len(curve.x)} ({', '.join(map(number, curve.x))})"
        )
    for at, value in zip(curve.x, curve.middle, strict=True):
        if not (value > 0 and (at > 0 or law != "power")):
            raise ValueError(
                f"a fit of {LAWS[law]} needs numbers above 0, and {quantity} is "
                f"{number(float(value))} at {x}={number(at)}; restrict it by where="
            )
    places = np.array(curve.x, float)
    found: Any = linregress(np.log(places) if law == "power" else places, np.log(curve.middle))
    b, error = float(found.slope), float(found.stderr)
    if np.ptp(curve.middle) == 0.0:  # a line without any residuals, but no correlation either
        error = 0.0
    with np.errstate(over="ignore"):
        prefactor = float(np.exp(found.intercept))
        if law == "exponential":
            b, error = float(np.exp(b)), float(np.exp(b) * error)
    return _Law(law, b, error, prefactor, float(found.rvalue) ** 2)


# --- names and values


def _resolved(name: str, names: Sequence[str], what: str) -> str:
    """A coordinate by its name, or the last part of its name.

    Raises
    ------
    ValueError
        If there is none, with the nearest, or several.
    """
    if name in names:
        return name
    found = [whole for whole in names if _short(whole) == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{what}={name!r} may be {' or '.join(found)}; give the whole name")
    hint = suggestion(name, dict.fromkeys([*names, *map(_short, names)]))
    raise ValueError(f"{what}={name!r} is no coordinate that varies in this study; {hint}")


def _refuse_average(name: str, values: Sequence[Any], names: Iterable[str]) -> None:
    shown = ", ".join(number(v) for v in values[:6]) + (", ..." if len(values) > 6 else "")
    short = name if sum(_short(n) == _short(name) for n in names) > 1 else _short(name)
    raise ValueError(
        f"{short} has {len(values)} values ({shown}), which would be averaged; draw them by "
        f"hue={short!r}, col={short!r} or row={short!r}, or take one by "
        f"where={{{short!r}: {values[0]!r}}}"
    )


def _refuse_quantity(name: str, records: Sequence[Record]) -> None:
    known = [n for n, value in records[0].scalars.items() if _is_number(value)]
    known += [*records[0].arrays, "seconds", "cpu_seconds"]
    raise ValueError(f"the records have no number {name!r}; {suggestion(name, known)}")


def _values_of(record: Record, name: str) -> np.ndarray:
    """A quantity of a record as an array of floats."""
    if name in record.arrays:
        values = record.arrays[name].values
        if values.dtype.kind == "U":
            raise ValueError(f"{name!r} holds texts and cannot be drawn")
        if values.dtype.kind == "c":
            raise ValueError(f"{name!r} is complex; return its modulus or its parts to draw it")
        return values.astype(float)
    value = record.scalars.get(name, getattr(record, name, None))
    if isinstance(value, str):
        raise ValueError(f"{name!r} is a text ({value!r}) and cannot be drawn")
    return np.array(np.nan if value is None else float(value))


def _coordinate(record: Record, axis: str) -> Any:
    return record.seed if axis == "seed" else record.settings[axis]


def _objects(values: Sequence[Any]) -> np.ndarray:
    """An array of Python objects, so that 2 stays an int beside "2"."""
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _equal(column: Any, value: Any) -> np.ndarray:
    return np.array([other == value for other in column], bool)


def _listed(wanted: Any) -> list[Any]:
    return list(wanted) if isinstance(wanted, list | tuple | range | set) else [wanted]


def _fits(value: Any, wanted: Any) -> bool:
    return value in _listed(wanted)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value as a text of matplotlib, which takes $ for formulas and has no label of _x."""
    text = number(value).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _short(name: str | None) -> str:
    """The last part of a name with dots."""
    return (name or "").rpartition(".")[2]


def _axis_label(name: str) -> str:
    labels = {"bond": "bond k", "bond_axis": "bond k", "value": "number of the Schmidt value"}
    return labels.get(name, _short(name))


def _quantity_label(name: str, unit: str) -> str:
    if name in LABELS:
        return LABELS[name]
    plain = name.replace("_", " ")
    return f"{plain} ({unit})" if unit else plain
