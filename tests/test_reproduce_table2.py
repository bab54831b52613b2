"""Table 2: what is executed agrees with the matrices, and what is read has its sign."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from mpodis.data import load_data
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import Recipe
from mpodis.paper import table2
from mpodis.paper.by_pieces import run_experiment
from mpodis.quantum import (
    BrickwallEncoding,
    Interference,
    NoisyRunner,
    StatevectorRunner,
    Tomography,
    TreeEncoding,
)

SMALL = table2.Table2(
    seeds=1,
    workers=1,
    images=6,
    tomography=(20, 100),
    interference=(20_000,),
    hypercube=(20_000,),
    rows=("wide", "trained"),
)


def _once(make):
    found = []

    def kept(*arguments):
        if not found:
            found.append(make(*arguments))
        return found[0]

    return kept


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    path = tmp_path_factory.mktemp("table2")
    options = replace(SMALL, networks=str(path / "networks"))
    directory = JobDirectory.create(path / "run", f"{REPRODUCE}table2", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(table2.RECIPES, "digits", Recipe(2, 0.03, 64))
        for row in SMALL.rows:  # found once, not for every execution
            patch.setitem(table2.CIRCUITS, row, _once(table2.CIRCUITS[row]))
        return run_experiment(table2.EXPERIMENT, options, directory)


def test_every_way_of_execution_has_its_row(record):
    assert list(table2._rows(record)) == [
        ("wide", "exact"),
        ("wide", "tomography 20"),
        ("wide", "tomography 20, sign open"),
        ("wide", "tomography 100"),
        ("wide", "tomography 100, sign open"),
        ("wide", "hypercube 20000"),
        ("wide", "interference 20000"),
        ("trained", "exact"),
        ("trained", "tomography 100"),
        ("trained", "hypercube 20000"),
        ("trained", "interference 20000"),
    ]
    for piece in record["pieces"].values():
        assert piece["images"] == 6


def test_exact_execution_is_the_classical_layer(record):
    for (_, name), (piece,) in table2._rows(record).items():
        if name == "exact":
            assert piece["agreement"] == 100
            assert piece["executed"] == piece["classical"]
            assert piece["settings"] == [2, 0]


def test_settings_and_shots_of_an_image_are_those_of_both_sides(record):
    rows = table2._rows(record)
    assert rows["wide", "tomography 100"][0]["settings"] == [2 * 730, 2 * (729 * 100 + 2000)]
    assert rows["wide", "tomography 100, sign open"][0]["settings"] == [2 * 729, 2 * 729 * 100]
    assert rows["wide", "hypercube 20000"][0]["settings"] == [2 * 8, 2 * (7 * 20_000 + 2000)]
    assert rows["wide", "interference 20000"][0]["settings"] == [2, 40_000]


def test_what_is_read_with_its_sign_agrees(record):
    for (_, name), (piece,) in table2._rows(record).items():
        if "open" not in name:
            assert piece["agreement"] > 60


def test_tables_figure_and_finding(record):
    (table,) = table2.EXPERIMENT.tables(record)
    assert len(table.rows) == 11
    for panel in table2.EXPERIMENT.panels:
        figure, ax = plt.subplots()
        panel.draw(record, ax)
        assert ax.has_data()
        plt.close(figure)
    assert "wide, tomography 100" in record["finding"]


def test_lines_against_shots_are_those_of_the_readouts(record):
    figure, ax = plt.subplots()
    table2._draw_shots(record, ax)
    labels = [line.get_label() for line in ax.lines]
    plt.close(figure)
    assert labels == [
        "tomography",
        "tomography, sign open",
        "hypercube",
        "interference",
        "as a matrix",
    ]


def test_the_runner_of_every_execution():
    ways = table2._executions(table2.Table2(), "2-body")
    assert isinstance(table2._runner(ways["exact"], 0), StatevectorRunner)
    noisy = table2._runner(ways["FakeMontreal"], 3)
    assert noisy == NoisyRunner(encoding=BrickwallEncoding(seed=3), seed=3, threads=1)
    assert table2._runner(ways["FakeMontreal, exact tree"], 0).encoding == TreeEncoding()
    ways = table2._executions(table2.Table2(), "wide")
    assert table2._runner(ways["interference 10000"], 0).readout == Interference(10_000)
    assert table2._runner(ways["tomography 1024, sign open"], 0).readout == Tomography(1024, 0)


def test_two_body_circuits_take_the_place_of_the_layer(monkeypatch):
    data = load_data("digits")
    model = table2.CompactTNN(inputs=64, bond=2, classes=10, seed=0).double().eval()
    monkeypatch.setattr(table2, "network", lambda *_: model)
    _, found = table2._two_body(data, "networks", 0, 1)
    assert {place.width for place in found.left.ansatz.placements} <= {1, 2}
    hidden = data.x_test[:5] @ found.to_dense()
    assert np.isfinite(table2._logits(model, hidden)).all()


def test_shots_that_are_none():
    with pytest.raises(ValueError, match=r"interference=\(0,\)"):
        table2.Table2(interference=(0,))


def test_rows_that_are_not_known():
    with pytest.raises(ValueError, match="'narrow' is not known"):
        table2.Table2(rows=("narrow",))
