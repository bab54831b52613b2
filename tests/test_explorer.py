"""The explorer: what its settings give, and the widgets in front of it."""

import base64
import sys

import numpy as np
import pytest

import reference
from mpodis import compress, disentangle, entanglement, explore, mpo_from_tensors, true_overlap
from mpodis.explorer import Explorer, Setting

PNG = b"\x89PNG"


def layer(inputs=16, outputs=16, seed=0):
    """A matrix whose first rows are the largest."""
    matrix = np.random.default_rng(seed).normal(size=(inputs, outputs))
    return matrix * np.linspace(2, 0.1, inputs)[:, None]


def dense(matrix, record, explorer):
    """Q_L M' Q_R in the order of the matrix."""
    product = record.run.factorization.padded_to_dense()
    reordering = explorer._ordered(record.setting.order).reordering
    product = product if reordering is None else reordering.undo(product)
    return product[: matrix.shape[0], : matrix.shape[1]]


@pytest.mark.parametrize("order", ["given", "reversed", "searched"])
@pytest.mark.parametrize("objective", ["overlap", "activations"])
@pytest.mark.parametrize("shape", [(16, 16), (13, 6)])
def test_figures_of_merit_are_those_of_the_dense_matrices(shape, objective, order):
    matrix, x = layer(*shape), np.random.default_rng(1).normal(size=(40, shape[0]))
    explorer = Explorer(matrix, inputs=x, accuracy=np.sum, max_sweeps=3)
    record = explorer.explored(Setting(2, 2, 3, objective, order))
    found, approximate = record.disentangled, dense(matrix, record, explorer)
    norm = np.linalg.norm
    errors = norm(matrix - approximate) / norm(matrix)
    activations = norm(x @ (matrix - approximate)) / norm(x @ matrix)
    assert found["relative error"] == pytest.approx(errors)
    assert found["error of the activations"] == pytest.approx(activations)
    assert found["accuracy"] == pytest.approx(approximate.sum())
    assert record.original["accuracy"] == pytest.approx(matrix.sum())
    assert record.original["relative error"] < 1e-12
    assert found["overlap f with M"] <= found["von Neumann bound of f"] + 1e-12


def test_the_searched_order_has_the_least_entropy_and_a_reversal_the_same_bonds():
    explorer = Explorer(layer(), max_sweeps=1)
    given, back, found = (explorer.explored(Setting(order=o)) for o in explorer.choices["order"])
    before = entanglement(layer()).entropies
    np.testing.assert_allclose(given.run.entropies_before, before)
    np.testing.assert_allclose(back.run.entropies_before, before[::-1])
    assert found.run.entropies_before.sum() <= before.sum() + 1e-12


def test_truncation_of_m_is_told_from_what_the_circuits_lose():
    matrix = layer()
    record = Explorer(matrix, max_sweeps=2).explored(Setting(compress_bond=4))
    cut = compress(matrix, max_bond=4)
    expected = (
        np.vdot(matrix, cut.to_dense()) / np.linalg.norm(matrix) / np.linalg.norm(cut.to_dense())
    )
    assert record.original["overlap f with M"] == pytest.approx(expected, rel=1e-2)
    assert max(np.exp(record.log_bonds)) == pytest.approx(4)
    assert record.original["relative error"] < 1e-12 < record.plain["relative error"]


def test_a_setting_is_the_search_that_disentangle_makes_and_is_made_once():
    matrix = layer()
    explorer = Explorer(matrix, max_sweeps=5, seed=3)
    record = explorer.explored(Setting(max_bond=2, depth=3))
    run = disentangle(
        compress(matrix), depth=3, max_bond=2, init="identity", n_init=1, max_sweeps=5, seed=3
    )
    assert record.run.overlap == pytest.approx(run.overlap, abs=1e-12)
    assert explorer.explored(Setting(max_bond=2, depth=3)) is record


def test_an_operator_too_large_for_a_matrix_has_overlaps_and_no_bound():
    legs = ((2, 2),) * 12
    mpo = mpo_from_tensors(reference.random_cores(legs, 3))
    explorer = Explorer(mpo, max_sweeps=2)
    record = explorer.explored(Setting(depth=1))
    assert explorer.choices["order"] == ("given",)
    assert record.disentangled["overlap f with M"] == pytest.approx(
        true_overlap(record.run.factorization, mpo).value
    )
    assert len(record.log_bonds) == 11
    assert "von Neumann bound of f" not in str(record)
    assert record.png().startswith(PNG)
    with pytest.raises(ValueError, match="does not make of 12 qubits"):
        Explorer(mpo, accuracy=np.sum)


@pytest.mark.parametrize("shape", [(1, 8), (16, 1), (2, 2)])
def test_sides_without_wires_and_a_single_site(shape):
    explorer = Explorer(layer(*shape), max_sweeps=2)
    widest = explorer.choices["width"][-1]
    record = explorer.explored(Setting(width=widest))
    assert record.png().startswith(PNG)
    assert record.disentangled["relative error"] <= record.plain["relative error"] + 1e-12


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            Setting(max_bond=4, compress_bond=2),
            "core's bond dimension, 4, is larger than that of M",
        ),
        (Setting(width=9), "width=9 is not possible here; use 2, 3, 4"),
        (Setting(objective="activations"), "objective='activations' is not possible here"),
        (Setting(depth=2.0), r"depth=2\.0 is not possible here; use 1, 2"),
        (Setting(depth=True), "depth=True is not possible here"),
        (Setting(depth=[1]), r"depth=\[1\] is not possible here"),
        (Setting(depth=np.arange(3)), r"depth=array.* is not possible here"),
        (Setting(order=None), "order=None is not possible here"),
    ],
)
def test_settings_that_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Explorer(layer()).explored(setting)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": np.ones((5, 7))}, ValueError, "have 7 features, the operator has 16"),
        ({"accuracy": 0.9}, TypeError, "must be a function of the matrix"),
    ],
)
def test_arguments_that_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Explorer(layer(), **arguments)
    with pytest.raises(ValueError, match="circuits act on qubits"):
        Explorer(compress(layer(), legs=((4, 4), (4, 4))))


@pytest.mark.parametrize("found", ["good", None, np.ones(3), 1j])
def test_an_accuracy_that_is_no_number_is_refused(found):
    explorer = Explorer(layer(), accuracy=lambda matrix: found, max_sweeps=1)
    with pytest.raises(TypeError, match=r"accuracy= has returned .*; it must return a number"):
        explorer.explored(Setting())


@pytest.mark.parametrize("option", ["max_sweeps", "max_seconds", "seed"])
@pytest.mark.parametrize("value", [-1, "x", np.nan, np.inf, True, [1]])
def test_limits_that_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}="):
        Explorer(layer(), **{option: value}).explored(Setting())


@pytest.mark.parametrize("exponent", [-990, -560, 560, 990])
def test_an_operator_of_any_size_has_the_same_errors(exponent):
    inputs = np.random.default_rng(0).normal(size=(40, 16))
    found = [
        Explorer(matrix, inputs=inputs, max_sweeps=2, seed=np.int8(0)).explored(Setting())
        for matrix in (layer(), layer() * 2.0**exponent)
    ]
    for name in ("original", "plain", "disentangled"):
        first, second = (getattr(one, name) for one in found)
        assert list(second) == list(first)
        np.testing.assert_allclose(list(second.values()), list(first.values()), rtol=1e-6)


# --- widgets


@pytest.fixture
def panel():
    pytest.importorskip("ipywidgets")
    return explore(layer(), max_sweeps=5)


def test_a_slider_that_moves_changes_figure_table_and_record(panel):
    status, image, *_ = (widget for widget in panel.box.children[1:])
    before = bytes(image.value)
    panel.controls["depth"].value = 4
    record = panel.wait(60)
    assert record.setting == Setting(depth=4, compress_bond=16)
    assert bytes(image.value).startswith(PNG)
    assert bytes(image.value) != before
    assert f"{record.run.overlap:.4g}" in panel.box.children[3].value
    assert "5 sweeps" in status.value


def test_a_combination_that_is_not_possible_is_said_and_the_next_one_works(panel):
    status = panel.box.children[1]
    panel.controls["compress_bond"].value = 2
    panel.controls["max_bond"].value = 8
    shown = panel.wait(60)
    assert "Not possible" in status.value
    assert "8, is larger than that of M, 2" in status.value
    panel.controls["max_bond"].value = 2
    assert panel.wait(60).setting.max_bond == 2
    assert "Not possible" not in status.value
    assert panel.record is not shown


def test_an_error_of_the_users_function_is_shown_as_text():
    pytest.importorskip("ipywidgets")

    def accuracy(matrix):
        if calls := len(seen):
            raise RuntimeError(f"call <{calls}>")
        return 1.0

    seen = []
    panel = explore(layer(), accuracy=accuracy, max_sweeps=1)
    seen.append(1)
    panel.controls["depth"].value = 3
    panel.wait(60)
    assert "call &lt;1&gt;" in panel.box.children[1].value


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MemoryError()])
def test_whatever_the_users_function_raises_the_next_setting_works(error):
    pytest.importorskip("ipywidgets")

    def accuracy(matrix):
        if raised:
            raise raised.pop()
        return 1.0

    raised = []
    panel = explore(layer(), accuracy=accuracy, max_sweeps=1)
    raised.append(error)
    panel.controls["depth"].value = 3
    panel.wait(60)
    assert "Not possible" in panel.box.children[1].value
    panel.controls["depth"].value = 4
    assert panel.wait(60).setting.depth == 4


def test_a_panel_that_is_closed_still_has_its_record(panel):
    for widget in (panel.box, *panel.box.children, *panel.controls.values()):
        widget.close()
    panel.controls["depth"].value = 4
    assert panel.wait(60).setting.depth == 4
    assert panel._repr_mimebundle_()["text/plain"] == str(panel.record)


def test_a_page_without_widgets_shows_the_figure_and_the_table(panel):
    shown = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert base64.b64decode(shown["image/png"]).startswith(PNG)
    assert shown["text/plain"] == str(panel.record)


def test_without_ipywidgets_the_command_that_installs_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match=r'pip install "mpodis\[notebook\]"'):
        explore(layer(), max_sweeps=1)
