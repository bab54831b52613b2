"""`mpodis reproduce planted` on problems of a few qubits."""

import numpy as np
import pytest
from matplotlib import pyplot as plt
from numpy.testing import assert_allclose

from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.planted import (
    EXPERIMENT,
    Planted,
    _found,
)


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    options = Planted(
        seeds=2, workers=1, products=("4x1", "3x2"), unitaries=("3x2",), starts=2, max_sweeps=100
    )
    path = tmp_path_factory.mktemp("planted") / "run"
    directory = JobDirectory.create(path, f"{REPRODUCE}planted", options)
    return run_experiment(EXPERIMENT, options, directory)


def test_what_was_hidden_is_found(record):
    pieces = record["pieces"]
    assert len(pieces) == 2 * (2 + 3)
    for name, row in pieces.items():
        bound = 1 - 2 / 8 if name.startswith("reflected") else 1.0
        assert_allclose(row["bound"], bound)
        assert row["gap"] > 1 - bound - 1e-12
        assert row["seconds"] > 0
        assert row["bond"] > 1
        assert (row["group"] == "U") == ("-U-" in name)
    unitaries = [row for name, row in pieces.items() if name.startswith("unitary")]
    assert _found(unitaries) == 4
    reflected = [row for name, row in pieces.items() if name.startswith("reflected")]
    assert _found(reflected) == 2
    products = [row for row in pieces.values() if row["what"] == "product"]
    assert _found(products) >= 2


def test_a_reflection_counts_only_where_it_is_said_to_be_one():
    row = {"what": "reflected", "status": "determinant", "gap": 0.25, "bound": 0.75}
    assert _found([row, row | {"status": "converged"}, row | {"gap": 0.3}]) == 1
    assert _found([row | {"what": "unitary", "status": "exact"}]) == 1


def test_the_table_and_the_finding_are_those_of_the_record(record):
    (table,) = EXPERIMENT.tables(record)
    names = [row[0] for row in table.rows]
    assert names == [
        "product core, 4 sites, 1 layers",
        "product core, 3 sites, 2 layers",
        "real unitary, 3 sites, 2 layers",
        "real, determinant -1, 3 sites, 2 layers",
        "complex unitary, 3 sites, 2 layers",
    ]
    assert "of 2" in str(table)
    assert "real unitary, 3 sites, 2 layers: 2 of 2 found" in record["finding"]
    assert "determinant -1, 3 sites, 2 layers: 2 of 2 recognised" in record["finding"]


def test_the_finding_counts_what_is_only_near(record):
    row = record["pieces"]["product-4x1-seed0"] | {"gap": 5e-3}
    lost = record["pieces"]["product-4x1-seed1"] | {"gap": 0.3}
    text = EXPERIMENT.finding({**record, "pieces": {"a": row, "b": lost}})
    assert "product core, 4 sites, 1 layers: 0 of 2 found, f above 0.99 in 1" in text


def test_every_panel_shows_every_problem(record):
    for panel in EXPERIMENT.panels:
        ax = plt.subplots()[1]
        panel.draw(record, ax)
        assert ax.has_data()
        points = np.concatenate([line.get_xdata() for line in ax.lines])
        assert len(points) == len(record["pieces"])
        assert points.min() > 0


def test_options_that_make_no_sense():
    with pytest.raises(ValueError, match="products holds '8 x 4'; write SITESxLAYERS"):
        Planted(products=("8 x 4",))
    with pytest.raises(ValueError, match="unitaries holds '0x4'"):
        Planted(unitaries=("0x4",))
    with pytest.raises(ValueError, match="group='SU' is not known"):
        Planted(groups=("SU",))
    with pytest.raises(ValueError, match="seeds=0"):
        Planted(seeds=0)
