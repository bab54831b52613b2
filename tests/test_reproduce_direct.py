"""`mpodis reproduce direct` on one digits network, and the trained layers it works on."""

import math

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

from mpodis import brickwall, compress, entanglement
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import Recipe, accuracy
from mpodis.paper import layers
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.direct import (
    EXPERIMENT,
    FACTORS,
    LAYERS,
    USV_GIVEN,
    Direct,
    _cx,
    _needed,
    _rotation,
)
from mpodis.paper.layers import trained_layer


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A folder, and networks that are trained for three epochs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layers.RECIPES, "digits", Recipe(3, 0.03, 64))
        yield str(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def record(networks, tmp_path_factory):
    options = Direct(
        seeds=1,
        workers=1,
        networks=networks,
        depths=(1, 2),
        core_bonds=(1, 2),
        starts=1,
        explore=2,
        max_sweeps=3,
    )
    directory = JobDirectory.create(
        tmp_path_factory.mktemp("direct") / "run", f"{REPRODUCE}direct", options
    )
    return run_experiment(EXPERIMENT, options, directory)


def test_cores_that_hold_the_layer_are_left_out():
    options = Direct(compress_bond=4, core_bonds=(1, 2, 4, 8))
    assert options.methods("tnn") == [*FACTORS, "chi' 1"]
    assert options.methods("compressed") == [*FACTORS, "chi' 1", "chi' 2"]
    assert options.methods("dense") == [*FACTORS, *(f"chi' {bond}" for bond in (1, 2, 4, 8))]


def test_every_method_has_a_row_for_every_depth(record):
    pieces = record["pieces"]
    assert len(pieces) == 3 * (1 + len(FACTORS)) + 1 + 2 + 2
    for piece in pieces.values():
        for row in piece.get("rows", ()):
            assert -1 <= row["overlap"] <= 1 + 1e-12
            assert 0 <= row["accuracy"] <= 100
            assert row["s_avg"] >= 0
            assert (
                row["cx"]
                == {(1, False): 12, (2, False): 20, (1, True): 10, (2, True): 20}[
                    row["depth"], piece["method"].startswith("QR")
                ]
            )
    counts = {p["method"]: p["rows"][0]["parameters"] for p in pieces.values() if "method" in p}
    assert counts == {
        **{method: 2080 if method.startswith("QR") else 64 for method in FACTORS},
        "chi' 1": 24,
        "chi' 2": 80,
    }


def test_free_classical_parts_beat_given_factors(record):
    for layer in LAYERS:
        f = {
            p["method"]: p["rows"][-1]["overlap"]
            for p in record["pieces"].values()
            if p["layer"] == layer and "rows" in p
        }
        assert f["USV"] > f[USV_GIVEN]
        assert f["QR"] > f["QR, Q given"]


def test_the_operators_are_described(record, networks):
    tnn, dense, compressed = (record["pieces"][f"{layer}-seed0"] for layer in LAYERS)
    assert (tnn["bond"], dense["bond"], compressed["bond"]) == (2, 64, 4)
    assert (tnn["parameters"], compressed["parameters"]) == (80, 288)
    where = {"data": "digits", "data_dir": None, "networks": networks}
    matrix = trained_layer("dense", seed=0, bond=4, **where).matrix
    u = np.linalg.svd(matrix)[0]
    assert_allclose(dense["s_avg"]["W"], entanglement(matrix).average)
    assert_allclose(dense["s_avg"]["U"], entanglement(u).average)
    # less entangled are the operators of low bond
    assert tnn["s_avg"]["W"] < compressed["s_avg"]["W"] < dense["s_avg"]["W"]


def test_tables_and_finding_are_those_of_the_record(record):
    operators, *tables = EXPERIMENT.tables(record)
    assert [row[0] for row in operators.rows] == list(LAYERS.values())
    assert [len(table.rows) for table in tables] == [5, 6, 6]
    assert "more than 20" in str(tables[1])
    text = record["finding"]
    assert "S 64" in text
    assert "the whole trained MPO has 80" in text
    assert "at depth 2: QR f" in text


def test_every_panel_draws_data(record):
    for panel in EXPERIMENT.panels:
        ax = plt.subplots()[1]
        panel.draw(record, ax)
        assert ax.has_data()
        assert ax.lines


def test_half_of_the_networks_must_reach_the_overlap():
    def piece(overlaps):
        rows = [{"cx": 10 * k, "overlap": f} for k, f in enumerate(overlaps, 1)]
        return {"layer": "tnn", "method": "USV", "rows": rows}

    runs = {k: piece(f) for k, f in enumerate([(0.8, 0.9), (0.95, 0.99), (0.1, 0.2)])}
    assert _needed({"pieces": runs}, "tnn", "USV", 0.85) == 20
    assert _needed({"pieces": runs}, "tnn", "USV", 0.95) == math.inf


def test_a_rotation_differs_by_a_sign():
    q = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    for matrix in (q, q * [-1, 1, 1, 1]):
        turned = _rotation(matrix)
        assert np.linalg.det(turned) > 0
        assert_allclose(turned[:, :3], matrix[:, :3])
        assert_allclose(np.abs(turned), np.abs(matrix))


def test_gates_of_one_wire_need_no_cnots():
    assert _cx(brickwall(6, 2)) == 2 * (3 + 2)


@pytest.mark.parametrize(("kind", "bond"), [("tnn", 3), ("dense", 4), ("compressed", 4)])
def test_a_trained_layer_in_its_own_place_changes_nothing(kind, bond, networks, record):
    where = {"data": "digits", "data_dir": None, "networks": networks}
    first, again = (trained_layer(kind, seed=0, bond=bond, **where) for _ in range(2))
    images = first.images
    assert first.matrix.shape == (64, 64)
    np.testing.assert_array_equal(first.matrix, again.matrix)
    assert first.accuracy(first.matrix) == accuracy(first.model, images.x_test, images.y_test)
    assert first.accuracy(first.matrix) > 60
    assert first.accuracy(np.zeros((64, 64))) < 30
    assert max(compress(first.matrix).bonds) == (64 if kind == "dense" else bond)
    moment = images.x_train.T @ images.x_train / len(images.x_train)
    assert_allclose(first.covariance(), moment)


def test_a_layer_that_is_not_known():
    with pytest.raises(ValueError, match="kind='conv' is not known; use one of tnn, dense"):
        trained_layer("conv", seed=0, bond=2, data="digits", data_dir=None, networks="x")
