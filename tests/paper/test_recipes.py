"""The experiment `recipes`."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from mpodis.measures import entanglement
from mpodis.mpo import mpo_to_dense
from mpodis.paper import recipes
from mpodis.paper.networks import network
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("recipes"))


def test_every_network_is_of_its_recipe(ran, networks):
    found, layers = rows(ran("recipes")), set()
    assert found.groupby("recipe", sort=False)["depth"].apply(list).to_dict() == {
        recipe: [1, 2] for recipe in recipes.TRAINING
    }
    for recipe in recipes.TRAINING:
        mpo = network("digits", f"{networks}/{recipe}", 0).mpo.to_mpo()
        each = found.query("recipe == @recipe")
        assert_allclose(each["s_avg"], entanglement(mpo).average)
        assert_allclose(each["accuracy"] + each["lost"], each["original"])
        assert (each["original"] > 85).all()
        layers.add(mpo_to_dense(mpo).tobytes())
    assert len(layers) == 3


def test_rank_correlation_and_its_interval():
    x = np.linspace(0, 1, 12)
    assert_allclose(recipes.rank_correlation(pd.Series(np.exp(x), x)), 1)
    assert_allclose(recipes.rank_correlation(pd.Series(-(x**3), x)), -1)
    noise = np.random.default_rng(0).normal(size=200)
    value, low, high = recipes.rank_correlation(pd.Series(noise))
    assert low < 0 < high
    assert_allclose(high - low, 2 * 1.96 / np.sqrt(200), rtol=0.15)  # of the null distribution
    assert low < value < high
    assert np.isnan(recipes.rank_correlation(pd.Series([1.0, 2.0, 0.5], [0.3] * 3))).all()
