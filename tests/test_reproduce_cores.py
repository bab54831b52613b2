"""`mpodis reproduce cores` on one digits network."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

from mpodis import compress, truncated_mpo
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import Recipe
from mpodis.paper import layers
from mpodis.paper.cores import EXPERIMENT, LAYERS, ROUTES, Cores, _wins
from mpodis.paper.layers import trained_layer
from mpodis.paper.running import run_experiment

LOSS = {
    "overlap": lambda row: 1 - row["overlap"],
    "activations": lambda row: row["activations"] ** 2,
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Options and record of a small run, its networks trained for three epochs."""
    path = tmp_path_factory.mktemp("cores")
    options = Cores(
        seeds=1,
        workers=1,
        networks=str(path / "networks"),
        tnn_bond=3,
        compress_bond=4,
        core_bonds=(1, 2),
        depths=(1,),
        starts=1,
        explore=2,
        max_sweeps=4,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(layers.RECIPES, "digits", Recipe(3, 0.03, 64))
        directory = JobDirectory.create(path / "run", f"{REPRODUCE}cores", options)
        return options, run_experiment(EXPERIMENT, options, directory)


def routes(record):
    return [piece for piece in record["pieces"].values() if "depth" in piece]


def test_every_route_has_a_row_for_every_core(ran):
    _, record = ran
    assert len(record["pieces"]) == 2 * (1 + 2)
    for piece in routes(record):
        rows = [(row["route"], row["core_bond"]) for row in piece["rows"]]
        there = [(route, bond) for route in ("scratch", "up") for bond in (1, 2)]
        assert rows == [*there, ("down", 2), ("down", 1), ("restarts", 1)]
        for row in piece["rows"]:
            assert_allclose(row["loss"], LOSS[piece["objective"]](row), atol=1e-9)
            assert row["numbers"] == {1: 24, 2: 80}[row["core_bond"]] + 6 * 6
            assert row["cx"] == 12


def test_routes_begin_where_they_say(ran):
    _, record = ran
    for piece in routes(record):
        loss = {(row["route"], row["core_bond"]): row["loss"] for row in piece["rows"]}
        assert loss["up", 1] == loss["scratch", 1]
        assert loss["down", 2] == loss["up", 2]
        assert loss["up", 2] <= loss["up", 1] + 1e-12  # a larger core that begins with a smaller
        assert loss["restarts", 1] <= loss["scratch", 1]


def test_plain_rows_are_the_truncations(ran):
    options, record = ran
    where = {"data": "digits", "data_dir": None, "networks": options.networks}
    layer = trained_layer("tnn", seed=0, bond=3, **where)
    whole = record["pieces"]["tnn-seed0"]
    assert whole["bond"] == 3
    assert whole["accuracy"] == layer.accuracy(layer.matrix)
    cut = truncated_mpo(compress(layer.matrix).mpo, 2)
    row = next(r for r in whole["rows"] if (r["objective"], r["core_bond"]) == ("overlap", 2))
    assert_allclose(row["overlap"], cut.overlap)
    assert row["numbers"] == cut.parameters == 80
    for row in record["pieces"]["tnn-seed0-overlap-depth1"]["rows"]:
        plain = next(
            r
            for r in whole["rows"]
            if (r["objective"], r["core_bond"]) == ("overlap", row["core_bond"])
        )
        if row["route"] == "scratch":  # the others have their own beginnings
            assert row["overlap"] > plain["overlap"]


def test_tables_and_finding_are_those_of_the_record(ran):
    _, record = ran
    *trades, detour = EXPERIMENT.tables(record)
    assert [len(table.rows) for table in trades] == [4] * 4
    assert len(detour.rows) == 4
    for row in detour.rows:
        counts = [int(x) for cell in row[-2:] for x in cell.split(" : ")]
        assert counts[0] + counts[1] <= 1
        assert counts[2] + counts[3] <= 1
        assert counts[0] >= counts[2]  # restarts are never worse than scratch
    assert set(ROUTES[:3]) <= set(trades[0].columns)
    assert f"{LAYERS['tnn']}, overlap, depth 1: chi' 1" in record["finding"]
    assert "of 4 cases" in record["finding"]


def test_panels_begin_with_the_truncation(ran):
    _, record = ran
    for panel, least in zip(EXPERIMENT.panels, (24, 0), strict=True):
        ax = plt.subplots()[1]
        panel.draw(record, ax)
        assert ax.has_data()
        assert len(ax.lines) == 4
        line = ax.lines[0]
        assert line.get_xdata()[0] == least
        assert np.all(np.diff(line.get_xdata()) > 0)


def test_ties_are_no_wins():
    assert _wins([1.0, 1.0, 1.0], [1.005, 1.5, 0.5]) == 1


def test_cores_as_large_as_the_operator_are_left_out():
    pieces = EXPERIMENT.pieces(Cores(networks="x", tnn_bond=4, compress_bond=8))
    bonds = {p.arguments["layer"]: p.arguments["core_bonds"] for p in pieces}
    assert bonds == {"tnn": [1, 2], "compressed": [1, 2, 4]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"core_bonds": (2, 1)}, r"core_bonds=\(2, 1\) must ascend"),
        ({"core_bonds": (1, 1)}, "must ascend"),
        ({"core_bonds": ()}, r"core_bonds=\(\) must begin below"),
        ({"core_bonds": (4,)}, r"must begin below tnn_bond and compress_bond.* lower is 4"),
        ({"objectives": ("loss",)}, "objectives holds 'loss'; use one of overlap, activations"),
        ({"seeds": 0}, "seeds=0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Cores(**options)
