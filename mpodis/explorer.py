"""An explorer of one layer or MPO in Jupyter: sliders, entropies bond by bond, overlap, errors.

`Explorer` turns settings into figures of merit and needs no widgets; `explore` puts sliders on it.
"""

from __future__ import annotations

import base64
import html
import io
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mpodis.advice import without_remarks
from mpodis.arguments import plain_number
from mpodis.arrays import rescaled, times_power_of_two
from mpodis.circuit import Ansatz, brickwall
from mpodis.conventions import crop, padded_shape, to_numpy, wires
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.fit import fit_core
from mpodis.measures import count_parameters, entanglement, overlap, second_moment
from mpodis.mpo import Compressed, Operator, as_compressed, compress, truncate
from mpodis.optimise.result import ADVICE, Disentangled
from mpodis.plots import plot_entropies, plot_history
from mpodis.sites import mpo_to_dense
from mpodis.structured import Approximation, Reordering, site_order
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["Explored", "Explorer", "Panel", "Setting", "explore"]

MOST_QUBITS = 11
"""Operators of more qubits are not made dense; `disentangle` gives them no bound either."""

SEARCHED_QUBITS = 8
"""The most sites of which `site_order` finds the best order exactly, within a second or so."""

DEEPEST, WIDEST = 8, 4


FIGURES = (
    "S_avg (nats)",
    "overlap f with M",
    "von Neumann bound of f",
    "relative error",
    "error of the activations",
    "accuracy",
    "parameters, MPO",
    "parameters, gates",
)
"""Rows of the table of a setting."""


@dataclass(frozen=True)
class Setting:
    """What the sliders of an explorer say.

    Attributes
    ----------
    max_bond : int
        Bond dimension of the core.
    depth : int
        Layers of gates on either side.
    width : int
        Wires of a gate.
    objective : {"overlap", "activations"}
    order : {"given", "reversed", "searched"}
        Order of the sites; "searched" is the one of least entropy, see `mpodis.site_order`.
    compress_bond : int, optional
        Bond dimension to which the operator is truncated first, which gives M; by default it is
        not truncated.
    """

    max_bond: int = 1
    depth: int = 2
    width: int = 2
    objective: str = "overlap"
    order: str = "given"
    compress_bond: int | None = None


@dataclass(frozen=True, eq=False)
class Explored(Tabular):
    """What one setting of an explorer gives.

    Attributes
    ----------
    setting : Setting
    run : Disentangled
        Of the reordered and truncated operator M: entropies before and after, overlap and bound.
    log_bonds : array
        log chi_k of M, the largest entropy that its bond dimensions allow.
    original, plain, disentangled : dict
        Figures of merit, by their names, of the operator that was given, of the best MPO of the
        core's bond dimension (above 11 qubits: the truncated one), and of Q_L M' Q_R. Overlaps are
        those with M, errors are relative to the operator that was given.
    """

    setting: Setting
    run: Disentangled
    log_bonds: np.ndarray
    original: dict[str, Any]
    plain: dict[str, Any]
    disentangled: dict[str, Any]

    def table(self) -> Table:
        """The layer as given, the MPO without circuits and the disentangled layer side by side."""
        columns = (self.original, self.plain, self.disentangled)
        rows = [(name, *(column.get(name) for column in columns)) for name in FIGURES]
        rows = [row for row in rows if not all(_missing(value) for value in row[1:])]
        return Table(("", "as given", "no circuits", "with circuits"), rows)

    def figure(self) -> Figure:
        """Entropies bond by bond, and the course of the overlap beside its von Neumann bound."""
        figure = Figure(figsize=(9.6, 3.3), layout="constrained")
        FigureCanvasAgg(figure)  # no pyplot: this may run in a thread of its own
        left, right = figure.subplots(1, 2)
        if len(self.log_bonds):
            run, maximum = self.run, self.log_bonds.tolist()
            entropies = {"before": run.entropies_before.tolist()}
            entropies["after"] = run.entropies_after.tolist()
            plot_entropies(entropies, maximum=maximum, ax=left)
        plot_history({"with circuits": self.run}, ax=right)
        right.axhline(self.plain["overlap f with M"], color="k", ls="--", lw=1, label="no circuits")
        right.set_ylim(0, 1.03)
        right.locator_params(axis="x", integer=True)
        right.legend(fontsize="small", loc="lower right")
        return figure

    def png(self) -> bytes:
        """The figure as a PNG."""
        stream = io.BytesIO()
        self.figure().savefig(stream, format="png", dpi=96)
        return stream.getvalue()


@dataclass(frozen=True, eq=False)
class _Ordered:
    """The operator with its sites in another order, and what moves with them."""

    mpo: MatrixProductOperator
    reordering: Reordering | None
    covariance: np.ndarray | None
    average_entropy: float


class Explorer:
    """Short searches for the circuits of one operator, each setting computed once.

    Parameters
    ----------
    operator, inputs, accuracy, max_sweeps, max_seconds, seed
        See `explore`.

    Attributes
    ----------
    given : Compressed
        The operator as an MPO, exact.
    choices : dict of name to tuple
        The values of every field of `Setting` that this operator allows.

    Raises
    ------
    TypeError, ValueError
        As for `explore`.

    Examples
    --------
    >>> import numpy as np
    >>> explorer = Explorer(np.random.default_rng(0).normal(size=(8, 8)), max_sweeps=5)
    >>> explorer.choices["compress_bond"]
    (1, 2, 4)
    >>> shallow, deep = (explorer.explored(Setting(depth=depth)) for depth in (1, 4))
    >>> shallow.run.overlap < deep.run.overlap < deep.run.bound
    True
    """

    def __init__(
        self,
        operator: Operator,
        *,
        inputs: np.ndarray | None = None,
        accuracy: Callable[[np.ndarray], float] | None = None,
        max_sweeps: int = 40,
        max_seconds: float = 3.0,
        seed: int = 0,
    ) -> None:
        if accuracy is not None and not callable(accuracy):
            raise TypeError(
                f"accuracy={accuracy!r} must be a function of the matrix (inputs, outputs) that "
                "returns a number"
            )
        self.given = as_compressed(operator)
        legs = self.given.legs
        sides = [len(wires(legs, side)) for side in ("left", "right")]  # qubits only
        self.dense = max(sides) <= MOST_QUBITS
        if accuracy is not None and not self.dense:
            raise ValueError(
                f"accuracy= needs the operator as a matrix, which an explorer does not make of "
                f"{max(sides)} qubits (at most {MOST_QUBITS}); leave it out"
            )
        self.covariance = None if inputs is None else second_moment(inputs)
        if self.covariance is not None and len(self.covariance) != self.given.shape[0]:
            raise ValueError(
                f"the inputs have {len(self.covariance)} features, the operator has "
                f"{self.given.shape[0]} inputs"
            )
        self.accuracy, self.max_sweeps, self.max_seconds = accuracy, max_sweeps, max_seconds
        self.seed = seed
        largest = max(self.given.bonds, default=1)
        powers = tuple(2**k for k in range(largest.bit_length()) if 2**k < largest)
        orders = ("given", "reversed", "searched")
        known = 1 if not self.dense or len(legs) < 2 else 2 if len(legs) > SEARCHED_QUBITS else 3
        self.choices: dict[str, tuple] = {
            "max_bond": powers or (1,),
            "depth": tuple(range(1, DEEPEST + 1)),
            "width": tuple(range(2, min(WIDEST, max(sides)) + 1)) or (1,),
            "objective": ("overlap",) if inputs is None else ("overlap", "activations"),
            "order": orders[:known],
            "compress_bond": (*powers, largest),
        }
        self._known: dict[Setting, Explored] = {}
        # what several settings have in common is computed once
        self._ordered, self._truncated = cache(self._in_order), cache(self._truncate)
        self._fitted = cache(self._fit)
        self._original = cache(lambda: self._measures(self.given.mpo, None))

    def explored(self, setting: Setting) -> Explored:
        """The figures of merit of a setting, from memory where it was explored before.

        Raises
        ------
        ValueError
            If the operator does not allow a value, or the values do not go together.
        """
        if setting.compress_bond is None:
            setting = replace(setting, compress_bond=self.choices["compress_bond"][-1])
        for field in fields(Setting):
            value, allowed = plain_number(getattr(setting, field.name)), self.choices[field.name]
            # 2.0 == 2 and True == 1, but neither is a number of layers
            if not any(type(value) is type(one) and value == one for one in allowed):
                shown = ", ".join(map(str, allowed))
                raise ValueError(f"{field.name}={value!r} is not possible here; use {shown}")
        if setting not in self._known:
            bond = setting.compress_bond or 1
            if setting.max_bond > bond:
                raise ValueError(
                    f"the core's bond dimension, {setting.max_bond}, is larger than that of M, "
                    f"{bond}; lower the one or raise the other"
                )
            self._known[setting] = self._explore(setting, bond)
        return self._known[setting]

    def _in_order(self, order: str) -> _Ordered:
        """The operator with its sites in an order."""
        mpo, legs, reordering = self.given.mpo, self.given.legs, None
        if order == "searched":
            found = site_order(mpo)
            reordering, legs = found.reordering, found.legs
        elif order == "reversed":
            numbers = [
                np.arange(math.prod(dims)).reshape(dims).T.ravel()
                for dims in zip(*legs, strict=True)
            ]
            reordering, legs = Reordering(numbers[0], numbers[1]), legs[::-1]
        covariance = self.covariance
        if reordering is not None:
            mpo = compress(reordering.apply(to_numpy(mpo_to_dense(mpo))), legs=legs).mpo
            covariance = None if covariance is None else reordering.covariance(covariance)
        return _Ordered(mpo, reordering, covariance, entanglement(mpo).average)

    def _truncate(self, order: str, bond: int) -> Compressed:
        """M: the operator in an order, truncated to a bond dimension."""
        ordered = self._ordered(order)
        padded = padded_shape(self.given.legs)
        shape = self.given.shape if ordered.reordering is None else padded
        exact = Compressed(ordered.mpo, shape, 0.0)
        if bond == self.choices["compress_bond"][-1] and order == "given":
            return exact
        return truncate(exact, max_bond=bond)

    def _fit(self, order: str, bond: int, max_bond: int, weighted: bool) -> dict[str, Any]:
        """Figures of merit of the best MPO of the core's bond dimension, without circuits."""
        ordered, target = self._ordered(order), self._truncated(order, bond)
        if self.dense:
            covariance = ordered.covariance if weighted else None
            core = fit_core(target, max_bond=max_bond, covariance=covariance)
        else:
            core = truncate(target, max_bond=max_bond).mpo
        return {
            "S_avg (nats)": entanglement(core).average,
            "overlap f with M": overlap(target, core),
            "parameters, MPO": count_parameters(core),
            **self._measures(core, ordered.reordering),
        }

    def _explore(self, setting: Setting, bond: int) -> Explored:
        place = setting.order, bond
        ordered, truncated = self._ordered(setting.order), self._truncated(*place)
        legs = truncated.legs
        sides = {}
        for side in ("left", "right"):
            n = len(wires(legs, side))
            width = min(setting.width, n)  # a side of few wires has narrower gates
            sides[side] = brickwall(n, setting.depth, width) if n else Ansatz(0, ())
        with without_remarks():  # the panel shows the remarks
            run = disentangle(
                truncated,
                left=sides["left"],
                right=sides["right"].reversed(),
                max_bond=setting.max_bond,
                objective=setting.objective,
                covariance=ordered.covariance,
                init="identity",
                n_init=1,
                max_sweeps=self.max_sweeps,
                max_seconds=self.max_seconds,
                seed=self.seed,
            )
        counts = run.factorization.parameter_counts()
        original = {
            "S_avg (nats)": self._ordered("given").average_entropy,
            "overlap f with M": math.sqrt(1 - truncated.relative_error**2),  # M is a projection
            "parameters, MPO": count_parameters(self._ordered("given").mpo),
            **self._original(),
        }
        disentangled = {
            "S_avg (nats)": float(run.entropies_after.mean()) if run.entropies_after.size else 0.0,
            "overlap f with M": run.overlap,
            "von Neumann bound of f": run.bound,
            "relative error": run.relative_error,
            "parameters, MPO": counts["core"],
            "parameters, gates": counts["left gates"] + counts["right gates"],
            **self._measures(run.factorization, ordered.reordering),
        }
        weighted = setting.objective == "activations"
        plain = self._fitted(*place, setting.max_bond, weighted)
        log_bonds = np.log(truncated.bonds)
        return Explored(setting, run, log_bonds, original, plain, disentangled)

    def _measures(
        self, operator: Factorization | MatrixProductOperator, reordering: Reordering | None
    ) -> dict[str, Any]:
        """Errors of an operator with its sites in some order, and what the user's function says."""
        if not self.dense:
            return {}
        if isinstance(operator, Factorization):
            matrix = to_numpy(operator.padded_to_dense())
        else:
            matrix = to_numpy(mpo_to_dense(operator))
        if reordering is not None:
            matrix = reordering.undo(matrix)
        matrix = crop(matrix, self.given.shape)
        target, exponent = rescaled(to_numpy(self.given.to_dense()))
        errors = Approximation.of(
            target,
            times_power_of_two(matrix, -exponent),
            name="",
            parameters=0,
            covariance=self.covariance,
            exponent=exponent,
        )
        found = {
            "relative error": errors.relative_error,
            "error of the activations": errors.activation_error,
        }
        if self.accuracy is not None:
            found["accuracy"] = _number(self.accuracy(matrix))
        return found


def explore(
    operator: Operator,
    *,
    inputs: np.ndarray | None = None,
    accuracy: Callable[[np.ndarray], float] | None = None,
    max_sweeps: int = 40,
    max_seconds: float = 3.0,
    seed: int = 0,
) -> Panel:
    """Explore in Jupyter what circuits do to one layer or MPO, with sliders.

    The sliders set the bond dimensions of M and of the core, depth, gate width, objective and
    order of the sites; shown are the entropies of every bond before and after, the overlap beside
    its von Neumann bound, errors, parameters and the accuracy. Every setting is one short search
    from near the identity, and its result is kept: a run of `disentangle` with more sweeps and
    initial guesses finds better circuits. A setting takes about a second up to 8 qubits.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        As for `mpodis.as_mpo`.
    inputs : array (samples, inputs), optional
        Inputs of the layer: for the error of the activations, and to minimise it.
    accuracy : function of a matrix (inputs, outputs), optional
        Returns the accuracy, or any other number, with this matrix in the layer's place.
    max_sweeps, max_seconds : int, float
        Limits of the search of one setting.
    seed : int

    Returns
    -------
    Panel
        Displays itself as the last line of a cell; `Panel.record` holds what is shown.

    Raises
    ------
    ImportError
        Without ipywidgets, see the extra "notebook".
    TypeError, ValueError
        An operator that is none, legs that are not qubits, inputs that do not fit, an accuracy that
        is no number.

    Examples
    --------
    >>> import numpy as np
    >>> panel = explore(np.random.default_rng(0).normal(size=(8, 8)), max_sweeps=5)
    >>> panel.controls["depth"].value = 4  # as if the slider was moved
    >>> panel.wait().setting.depth
    4
    """
    return Panel(
        Explorer(
            operator,
            inputs=inputs,
            accuracy=accuracy,
            max_sweeps=max_sweeps,
            max_seconds=max_seconds,
            seed=seed,
        )
    )


LABELS = {
    "max_bond": "bond of the core",
    "depth": "layers a side",
    "width": "wires of a gate",
    "objective": "objective",
    "order": "order of the sites",
    "compress_bond": "bond of M",
}


class Panel:
    """The sliders of an explorer, and a figure, a table and a line of status below them.

    A search runs in a thread of its own; sliders that move meanwhile replace what comes next.

    Parameters
    ----------
    explorer : Explorer

    Attributes
    ----------
    controls : dict of name to widget
        By the names of `Setting`.
    record : Explored
        What is shown.
    box : ipywidgets.VBox
    """

    def __init__(self, explorer: Explorer) -> None:
        try:
            import ipywidgets as widgets
        except ImportError as missing:
            raise ImportError(
                'explore() needs ipywidgets: pip install "mpodis[notebook]"'
            ) from missing
        self.explorer = explorer
        style = {"style": {"description_width": "9em"}, "layout": widgets.Layout(width="24em")}
        first = self._first()
        self.controls: dict[str, Any] = {}
        for name, values in explorer.choices.items():
            kind = widgets.Dropdown if name in ("objective", "order") else widgets.SelectionSlider
            control = kind(
                options=values,
                value=getattr(first, name),
                description=LABELS[name],
                disabled=len(values) == 1,
                **({} if kind is widgets.Dropdown else {"continuous_update": False}),
                **style,
            )
            control.observe(self._changed, names="value")
            self.controls[name] = control
        self._status, self._table = widgets.HTML(), widgets.HTML()
        self._image = widgets.Image(format="png", layout=widgets.Layout(max_width="100%"))
        for part, name in (
            (self._status, "status"),
            (self._table, "table"),
            (self._image, "figure"),
        ):
            part.add_class(f"mpodis-explorer-{name}")
        grid = widgets.HBox(
            list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap")
        )
        self.box = widgets.VBox([grid, self._status, self._image, self._table])
        self._lock, self._thread = threading.Lock(), None
        self._wanted: Setting | None = None
        self.record = explorer.explored(first)
        self._show(self.record)

    def _first(self) -> Setting:
        """The default setting, or what is nearest to it."""
        choices, default = self.explorer.choices, Setting()
        values = {
            f.name: v if (v := getattr(default, f.name)) in choices[f.name] else choices[f.name][-1]
            for f in fields(Setting)
        }
        return replace(default, **values)

    @property
    def setting(self) -> Setting:
        """Where the sliders are."""
        return Setting(**{name: control.value for name, control in self.controls.items()})

    def wait(self, timeout: float | None = None) -> Explored:
        """The record of the present setting, once its search has ended.

        Of a setting that was refused (the panel says why) it is the record before.

        Raises
        ------
        TimeoutError
            The search has not ended after `timeout` seconds.
        """
        thread = self._thread
        if thread is not None:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"the search has not ended after {timeout} s; call wait() again")
        return self.record

    def _changed(self, change: Any) -> None:
        with self._lock:
            self._wanted = self.setting
            self._status.value = "Searching ..."
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()

    def _work(self) -> None:
        """Explore what is wanted until nothing new is."""
        while True:
            with self._lock:
                setting, self._wanted = self._wanted, None
                if setting is None:
                    self._thread = None
                    return
            try:
                self._show(self.explorer.explored(setting))
            # a traceback would end up nowhere, or in the page, and SystemExit ends the thread
            except BaseException as error:
                said = html.escape(str(error) or type(error).__name__)
                self._status.value = f"<b>Not possible:</b> {said}"

    def _show(self, record: Explored) -> None:
        self.record = record
        self._image.value = record.png()
        self._table.value = record.table()._repr_html_()
        run = record.run
        said = f"{run.seconds:.1f} s, {len(run.history) - 1} sweeps: {ADVICE[run.status]}"
        self._status.value = "<br>".join(html.escape(line) for line in (said, *run.remarks))

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widgets; and the figure and the table, where a page shows no widgets."""
        show = self.box._repr_mimebundle_  # None once the widgets are closed
        bundle = (show(**options) if show else None) or {}
        image = base64.b64encode(self._image.value).decode()
        return bundle | {"image/png": image, "text/plain": str(self.record)}


def _number(found: Any) -> float:
    """What the user's function has returned."""
    try:
        return float(found)
    except (TypeError, ValueError):
        raise TypeError(f"accuracy= has returned {found!r}; it must return a number") from None


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
