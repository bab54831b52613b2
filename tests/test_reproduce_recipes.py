"""Networks of several training recipes: what is recorded of each, and the rank correlation."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import entanglement, mpo_to_dense, report
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import recipes
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.networks import network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes") / "run"


@pytest.fixture(scope="module")
def record(folder):
    options = recipes.Recipes(
        seed=1,
        seeds=1,
        workers=1,
        depths=(1, 2),
        starts=1,
        max_sweeps=3,
        objectives=("activations",),
    )
    directory = JobDirectory.create(folder, f"{REPRODUCE}recipes", options)
    return run_experiment(recipes.EXPERIMENT, options, directory)


def test_every_network_is_of_its_recipe(record, folder):
    layers = set()
    for recipe in recipes.TRAINING:
        model = network("digits", str(folder / "networks" / recipe), 1)
        piece = record["pieces"][f"{recipe}-seed1-activations"]
        assert_allclose(piece["s_avg"], entanglement(model.mpo.to_mpo()).average)
        assert piece["accuracy"] > 85
        layers.add(mpo_to_dense(model.mpo.to_mpo()).tobytes())
        for row in piece["rows"]:
            assert_allclose(row["accuracy"] + row["lost"], piece["accuracy"], atol=1e-9)
    assert len(layers) == 3


def test_tables_finding_and_figure(record):
    networks, lost, correlations = recipes.tables(record)
    assert [row[0] for row in networks.rows] == list(recipes.TRAINING)
    assert [row[:2] for row in lost.rows] == [("activations", 1), ("activations", 2)]
    assert len(correlations.rows) == 2
    values = [
        piece["rows"][0]["lost"]
        for piece in record["pieces"].values()
        if piece["recipe"] == "momentum"
    ]
    assert lost.rows[0][4] == recipes.spread(values, 1)
    assert f"over all {lost.rows[0][5]}" in record["finding"]
    assert report.figure_of(record)[:4] == b"\x89PNG"


def test_rank_correlation_and_its_interval():
    x = np.linspace(0, 1, 12)
    assert_allclose(recipes.rank_correlation(list(zip(x, np.exp(x), strict=True))), 1)
    assert_allclose(recipes.rank_correlation(list(zip(x, -(x**3), strict=True))), -1)
    noise = np.random.default_rng(0).normal(size=200)
    value, low, high = recipes.rank_correlation([*enumerate(noise)])
    assert low < 0 < high
    assert_allclose(high - low, 2 * 1.96 / np.sqrt(200), rtol=0.15)  # of the null distribution
    assert low < value < high
    assert np.isnan(recipes.rank_correlation([(0.3, 1.0), (0.3, 2.0), (0.3, 0.5)])).all()


@pytest.mark.parametrize("bad", [{"objectives": ()}, {"objectives": ("loss",)}])
def test_objectives_are_known(bad):
    with pytest.raises(ValueError, match="must be some of overlap, activations, sensitivity"):
        recipes.Recipes(**bad)


def test_data_has_recipes():
    with pytest.raises(ValueError, match="data='cifar10' has no recipes; use one of digits, mnist"):
        recipes.Recipes(data="cifar10")
