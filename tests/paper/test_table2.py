"""The experiment `table2`."""

import numpy as np

from mpodis.data import load_data
from mpodis.paper import table2
from mpodis.quantum import (
    BrickwallEncoding,
    Interference,
    NoisyRunner,
    StatevectorRunner,
    Tomography,
    TreeEncoding,
)
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("table2"))


def test_every_way_of_execution_has_its_row(ran):
    found = rows(ran("table2"))
    ways = [
        ("exact", 0),
        ("tomography", 20),
        (table2.OPEN, 20),
        ("tomography", 100),
        (table2.OPEN, 100),
        ("hypercube", 20_000),
        ("interference", 20_000),
    ]
    wide = found.query("circuits == 'wide'")
    assert list(zip(wide["readout"], wide["shots"], strict=True)) == ways
    trained = found.query("circuits == 'trained'")
    assert list(zip(trained["readout"], trained["shots"], strict=True)) == [
        ways[0],
        ways[3],
        *ways[5:],
    ]
    assert (found["tested"] == 6).all()


def test_exact_execution_is_the_classical_layer(ran):
    exact = rows(ran("table2")).query("readout == 'exact'")
    assert (exact["agreement"] == 100).all()
    assert (exact["executed"] == exact["classical"]).all()
    assert (exact["n_circuits"] == 2).all()
    assert (exact["n_shots"] == 0).all()


def test_circuits_and_shots_of_an_image_are_those_of_both_sides(ran):
    wide = rows(ran("table2")).query("circuits == 'wide'").set_index(["readout", "shots"])
    counts = wide[["n_circuits", "n_shots"]]
    assert counts.loc["tomography", 100].tolist() == [2 * 730, 2 * (729 * 100 + 2000)]
    assert counts.loc[table2.OPEN, 100].tolist() == [2 * 729, 2 * 729 * 100]
    assert counts.loc["hypercube", 20_000].tolist() == [2 * 8, 2 * (7 * 20_000 + 2000)]
    assert counts.loc["interference", 20_000].tolist() == [2, 40_000]


def test_what_is_read_with_its_sign_agrees(ran):
    assert (rows(ran("table2")).query("readout != @table2.OPEN")["agreement"] > 60).all()


def test_the_runner_of_every_execution():
    assert isinstance(table2.runner("exact", 0, 0), StatevectorRunner)
    noisy = table2.runner("FakeMontreal", 0, 3)
    assert noisy == NoisyRunner(encoding=BrickwallEncoding(seed=3), seed=3, threads=1)
    assert table2.runner("FakeMontreal, exact tree", 0, 0).encoding == TreeEncoding()
    assert table2.runner("interference", 10_000, 0).readout == Interference(10_000)
    assert table2.runner(table2.OPEN, 1024, 0).readout == Tomography(1024, 0)


def test_two_body_circuits_take_the_place_of_the_layer(monkeypatch):
    data = load_data("digits")
    model = table2.CompactTNN(inputs=64, bond=2, classes=10, seed=0).double().eval()
    monkeypatch.setattr(table2, "network", lambda *_: model)
    _, found = table2.CIRCUITS["2-body"](data, "networks", 0, 1)
    assert {place.width for place in found.left.ansatz.placements} <= {1, 2}
    hidden = data.x_test[:5] @ found.to_dense()
    assert np.isfinite(table2.logits(model, hidden)).all()
