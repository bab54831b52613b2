"""Figures: drawn on the Axes given, returned, labelled, and true to the numbers."""

from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    compile_unitary,
    compress,
    disentangle,
    entanglement,
    evolution,
    pauli_chain,
    plots,
)
from mpodis.plots import (
    COLOURS,
    plot_accuracies,
    plot_compiled,
    plot_costs,
    plot_depth,
    plot_depths,
    plot_entropies,
    plot_history,
    plot_pareto,
)
from reference import random_matrix

ENTROPIES = {"M": [0.5, 0.9, 0.4], "depth 2": np.array([0.1, 0.3, 0.2])}
HISTORY = {"sweep": [0, 1, 2], "overlap": [0.1, 0.4, 0.5], "bound": [0.9, 0.8, 0.8]}
CURVES = {"overlap": ([4, 2], [0.9, 0.8]), "mine": ([1, 2], [0.5, 0.6])}
ACCURACIES = [
    ("depth 2", "overlap", 73.3),
    ("depth 2", "activations", 81.9),
    ("zero", "-", 9.7),
]
PARETO = [
    {"cnots": 0, "family": "a", "overlap": 0.5, "bound": 0.9, "dominated": False},
    {"cnots": 6, "family": "b", "overlap": 0.8, "bound": 0.9, "dominated": False},
    {"cnots": 6, "family": "a", "overlap": 0.7, "bound": 0.9, "dominated": True},
]


def costs(one=7, two=3, backends=("logical", "FakeMontrealV2")):
    return [
        {"part": part, "backend": backend, "one_qubit": one + k, "two_qubit": two + k}
        for part in ("left circuit", "both sides")
        for k, backend in enumerate(backends)
    ]


FIDELITIES = [
    {
        "approximation": a,
        "gates": b,
        "estimate": a * b,
        "total": a * b,
        "total_error": 0.01,
        "depth": t,
    }
    for t, a, b in ((1, 0.9, 0.8), (2, 0.95, 0.7))
]


@cache
def compiled():
    """A chain that is long enough for the circuit of its first 12 sites to be repeated."""
    target = evolution(pauli_chain(16, ZZ=1.0, X=0.75, Z=0.6), 0.5, error=1e-6)
    return compile_unitary(target, depth=3, max_iterations=10)


CALLS = {
    "plot_entropies": lambda **k: plot_entropies(ENTROPIES, maximum=[0.7, 1.4, 0.7], **k),
    "plot_history": lambda **k: plot_history({"a": HISTORY}, **k),
    "plot_depth": lambda **k: plot_depth(CURVES, ylabel="overlap f", **k),
    "plot_accuracies": lambda **k: plot_accuracies(ACCURACIES, reference=("net", 94.0), **k),
    "plot_compiled": lambda **k: plot_compiled(compiled(), **k),
    "plot_costs": lambda **k: plot_costs(costs(), **k),
    "plot_depths": lambda **k: plot_depths(FIDELITIES, best=1, **k),
    "plot_pareto": lambda **k: plot_pareto(PARETO, **k),
}


def texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def lines(ax):
    """Label -> (x, y) of the labelled lines."""
    found = {line.get_label(): line.get_data() for line in ax.get_lines()}
    return {label: data for label, data in found.items() if not label.startswith("_")}


def test_every_figure_is_tested():
    assert set(CALLS) == set(plots.__all__)


@pytest.mark.parametrize("name", CALLS)
def test_it_draws_on_the_axes_given_and_returns_them(name):
    figure, (given, other) = plt.subplots(1, 2)
    assert CALLS[name](ax=given) is given
    assert given.has_data()
    assert not other.has_data()
    assert plt.get_fignums() == [figure.number]
    figure.canvas.draw()


@pytest.mark.parametrize("name", CALLS)
def test_it_makes_its_own_figure(name):
    first, second = CALLS[name](), CALLS[name]()
    assert first.figure is not second.figure
    assert first.get_xlabel() or name == "plot_costs"  # whose parts say what they are
    assert first.get_ylabel() or name == "plot_accuracies"  # likewise the rows
    assert name == "plot_accuracies" or texts(first)  # its bars are named on themselves


def test_a_compiled_circuit_shows_its_search_and_its_loss():
    run = compiled()
    found = lines(run.plot())
    records = [record for record in run.history.records if record["sites"] == 16]
    seconds, best = found["16 sites, 3 layers"]
    assert_array_equal(seconds, [record["seconds"] for record in records])
    assert_array_equal(best, np.minimum.accumulate([record["loss"] for record in records]))
    assert len(found["12 sites, 3 layers"][0]) == len(run.history.records) - len(records)
    assert_array_equal(found["measured at the end"], [[run.seconds], [run.loss]])
    assert_array_equal(found["Trotter, order 2"][1], 2 * [run.trotter_loss])
    assert run.plot().get_yscale() == "log"
    assert "the circuit of 12 sites, repeated" in str(run.history)
    assert_array_equal(run.history.column("loss")[-len(best) :], [r["loss"] for r in records])


def test_entropies_by_bond_with_their_bound():
    ax = plot_entropies(ENTROPIES, maximum=[0.7, 1.4, 0.7])
    found = lines(ax)
    for label, values in ENTROPIES.items():
        assert_array_equal(found[label], [[1, 2, 3], values])
    assert_array_equal(found[r"$\log\chi_k$ of M"][1], [0.7, 1.4, 0.7])
    assert_array_equal(ax.get_xticks(), [1, 2, 3])
    assert ax.get_ylim()[0] == 0
    assert "nats" in ax.get_ylabel()
    assert set(lines(plot_entropies(ENTROPIES))) == set(ENTROPIES)


@cache
def run_of(seed=0, depth=2, **options):
    matrix = random_matrix((8, 8), seed=seed)
    if "inputs_seed" in options:
        options["inputs"] = random_matrix((40, 8), seed=options.pop("inputs_seed"))
    return disentangle(matrix, depth=depth, **{"n_init": 1, "max_sweeps": 3} | options)


def test_entropies_of_an_operator_below_their_bound():
    found = entanglement(random_matrix((8, 4)))
    for ax in (found.plot(), plot_entropies(found)):
        assert_array_equal(lines(ax)["M"], [[1, 2], found.entropies])
        assert_allclose(lines(ax)[r"$\log\chi_k$ of M"][1], np.log(found.bonds))


def test_entropies_of_operators_and_results():
    matrix, run = random_matrix((8, 8), seed=0), run_of()
    found = lines(plot_entropies(entanglement(matrix), run))  # before is that of the operator
    assert list(found) == ["M", "after the circuits"]
    assert_allclose(found["M"][1], run.entropies_before, atol=1e-12)
    assert_array_equal(found["after the circuits"][1], run.entropies_after)
    assert list(lines(plot_entropies(run))) == ["M", "after the circuits"]
    deeper = run_of(depth=3)
    found = lines(plot_entropies({"depth 2": run, "depth 3": deeper}))
    assert list(found) == ["M", "depth 2", "depth 3"]
    assert_array_equal(found["depth 3"][1], deeper.entropies_after)
    other = run_of(seed=1)
    found = lines(plot_entropies({"fc1": run, "fc2": other, "noise": [1.0, 2.0, 1.0]}))
    assert list(found) == ["fc1, before", "fc1, after", "fc2, before", "fc2, after", "noise"]
    assert_array_equal(found["fc2, before"][1], other.entropies_before)
    assert list(lines(plot_entropies(entanglement(matrix), entanglement(np.eye(8))))) == [
        "M 1",
        "M 2",
    ]
    with pytest.raises(ValueError, match="nothing to draw; give at least one result"):
        plot_entropies()


def test_a_result_draws_what_it_minimised():
    run = run_of()
    ax = run.plot()
    assert_array_equal(lines(ax)["overlap f"][1], run.path("overlap"))
    dotted = next(line for line in ax.get_lines() if line.get_linestyle() == ":")
    assert_array_equal(dotted.get_ydata(), run.path("bound"))
    felt = run_of(objective="activations", inputs_seed=3)
    curve = lines(felt.plot())["relative error of the activations"]
    assert_array_equal(curve[1], felt.path("activations"))
    marks, stage = [line.get_xdata()[0] for line in felt.plot().get_lines()[1:]], felt.path("stage")
    assert marks == [k for k in range(1, len(stage)) if stage[k] != stage[k - 1]] != []
    assert "von Neumann bound" not in texts(felt.plot())
    assert texts(plot_history(run, felt)) == ["run 1", "run 2", "von Neumann bound"]


def test_depth_curves_of_results():
    runs = [run_of(depth=depth) for depth in (3, 1, 2)]
    overlaps = [runs[k].overlap for k in (1, 2, 0)]
    for given in (runs, {"overlap f": runs}, dict(zip((3, 1, 2), runs, strict=True))):
        (found,) = lines(plot_depth(given)).values()
        assert_array_equal(found, [[1, 2, 3], overlaps])
    ax = plot_depth(runs, column="s_avg")
    found = lines(ax)
    assert_allclose(found["$S_{avg}$ (nats)"][1][0], runs[1].entropies_after.mean())
    assert_allclose(found["M"][1], runs[0].entropies_before.mean())  # a level line
    grown = run_of(depth=3, init="grown")
    found = lines(plot_depth({"grown": grown, "stored": ([1, 2], [0.5, 0.6])}))
    by_depth = grown.by_depth()
    assert_array_equal(found["grown"][0], list(by_depth))
    assert_array_equal(found["grown"][1], [record["overlap"] for record in by_depth.values()])
    assert_array_equal(found["stored"], [[1, 2], [0.5, 0.6]])
    with pytest.raises(ValueError, match="column='chi' is not known; use overlap, s_avg"):
        plot_depth(runs, column="chi")


def test_history_of_stored_columns():
    ax = plot_history({"a": HISTORY, "b": HISTORY})
    assert_array_equal(lines(ax)["a"], [HISTORY["sweep"], HISTORY["overlap"]])
    dotted = [line for line in ax.get_lines() if line.get_linestyle() == ":"]
    assert_array_equal(dotted[0].get_ydata(), HISTORY["bound"])
    assert dotted[0].get_color() == ax.get_lines()[0].get_color()
    assert texts(ax) == ["a", "b", "von Neumann bound"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("sweep", "overlap f")


def test_history_of_results_is_that_of_the_winning_start():
    mpo = compress(random_matrix((8, 8)))
    result = disentangle(mpo, depth=1, n_init=2, init_sweeps=2, max_sweeps=3, method="sweeps")
    for column, label in (
        ("overlap", "overlap f"),
        ("s_avg", "$S_{avg}$ (nats)"),
        ("loss", "loss"),
    ):
        ax = plot_history({"mine": result}, column=column)
        sweep, values = lines(ax)["mine"]
        assert_array_equal(sweep, result.history.column("sweep", init=result.init))
        assert_array_equal(values, result.history.column(column, init=result.init))
        assert ax.get_ylabel() == label
        assert ("von Neumann bound" in texts(ax)) == (column == "overlap")


def test_depth_curves_with_a_reference():
    ax = plot_depth(CURVES, ylabel="overlap f", reference=("M", 0.7))
    found = lines(ax)
    assert_array_equal(found["overlap"], CURVES["overlap"])
    assert_array_equal(found["M"][1], [0.7, 0.7])
    assert_array_equal(ax.get_xticks(), [1, 2, 4])
    assert ax.get_ylabel() == "overlap f"
    assert ax.get_lines()[0].get_color() == COLOURS["overlap"]
    assert texts(ax) == ["overlap", "mine", "M"]


def test_accuracies_as_bars_in_groups():
    ax = plot_accuracies(ACCURACIES, reference=("original", 94.0))
    assert_allclose([bar.get_width() for bar in ax.patches], [73.3, 81.9, 9.7])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["depth 2", "zero"]
    # every bar has its number and objective on it, and a group's bars touch
    middles = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    assert_allclose([text.get_position()[1] for text in ax.texts[:3]], middles)
    written = [text.get_text().split() for text in ax.texts]
    assert written == [
        ["73.3", "overlap"],
        ["81.9", "activations"],
        ["9.7"],
        ["original", "94.0"],
    ]
    assert_allclose(ax.get_yticks(), [np.mean(middles[:2]), middles[2]])
    assert middles[1] - middles[0] < middles[2] - middles[1]
    assert ax.yaxis_inverted()  # from top to bottom
    assert_array_equal(ax.get_lines()[0].get_xdata(), [94, 94])
    assert len(plot_accuracies(ACCURACIES).get_lines()) == 0


@pytest.mark.parametrize("backends", [("logical",), ("logical", "FakeMontrealV2")])
def test_costs_per_part_and_device(backends):
    ax = plot_costs(costs(backends=backends))
    heights = sorted(bar.get_height() for bar in ax.patches)
    expected = [count for k in range(len(backends)) for count in (7 + k, 3 + k)] * 2
    assert heights == sorted(expected)
    assert {label.get_text() for label in ax.get_xticklabels()} == {"left circuit", "both sides"}
    assert texts(ax) == [f"{b}, {q}-qubit" for b in backends for q in ("two", "one")]
    places = sorted(bar.get_x() for bar in ax.patches)
    assert min(np.diff(places)) > 0.1  # side by side


@pytest.mark.parametrize(("one", "two"), [(0, 0), (4, 0)])
def test_parts_without_gates_are_shown_as_such(one, two):
    ax = plot_costs(costs(one, two, backends=("logical",)))
    ax.figure.canvas.draw()
    assert {text.get_text() for text in ax.texts} == {str(one), str(two)}
    assert ax.get_ylim()[0] == 0


def test_entropies_of_an_operator_stay_below_their_maximum():
    found = entanglement(compress(random_matrix((16, 16)), max_bond=2).mpo)
    ax = plot_entropies({"M": found.entropies}, maximum=np.log(found.bonds))
    values = lines(ax)
    assert all(values["M"][1] <= values[r"$\log\chi_k$ of M"][1] + 1e-12)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_depth([]), "nothing to draw; give at least one result"),
        (lambda: plot_depth({}), "nothing to draw; give at least one result"),
        (lambda: plot_depths([]), "nothing to draw; give at least one row"),
        (lambda: plot_costs([]), "nothing to draw; give at least one row"),
        (
            lambda: plot_depth(
                disentangle(np.eye(8) + 1, depth=2, init="grown", max_sweeps=2), column="zz"
            ),
            "column='zz' is not known; use overlap",
        ),
    ],
)
def test_what_cannot_be_drawn(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
