"""The experiment `trained`."""

from typing import Any

import pandas as pd
import torch
from numpy.testing import assert_allclose

from mpodis import disentangle
from mpodis.circuit.ansatz import brickwall
from mpodis.data import load_data
from mpodis.nn import FactorizedLinear, accuracy, replace_layer
from mpodis.paper import trained
from mpodis.paper.networks import network
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("trained"))


def test_gates_of_one_exponent_are_orthogonal_before_and_after(ran):
    found = rows(ran("trained")).query("question == 'depth'")
    cases = [("skew", 1), ("skew", 5), ("skew, cut", 5)]
    cases += [(f"triangular{name[4:]}", depth) for name, depth in cases]
    assert list(zip(found["gates"], found["depth"], strict=True)) == cases
    skew = found["gates"].str.startswith("skew")
    assert ((found["distance"] < 1e-5) == skew).all()
    assert ((found["trained_distance"] < 1e-5) == skew).all()
    by_gates = found.query("depth == 5").set_index("gates")
    # what is put at a cut has no parameters
    assert by_gates["parameters"]["skew, cut"] == by_gates["parameters"]["skew"]
    assert by_gates["first"]["skew, cut"] != by_gates["first"]["skew"]


def test_networks_of_the_draws_are_those_that_are_trained(ran):
    found = rows(ran("trained")).query("depth == 5").set_index(["question", "gates"])
    for draw, variant in (("skew, Haar", "skew"), ("triangular, normal 0.5", "triangular")):
        drawn, there = found.loc["draw", draw], found.loc["depth", variant]
        assert_allclose(*(row[trained.PLACES].astype(float) for row in (drawn, there)))


def test_what_is_left_of_gradients_is_the_ratio_of_geometric_means():
    norms = {1: (1.0, 4.0), 8: (0.01, 0.01)}
    made = [
        {"question": "draw", "gates": "skew", "depth": depth, "seed": seed}
        | dict.fromkeys(trained.PLACES, norm)
        for depth, each in norms.items()
        for seed, norm in enumerate(each)
    ]
    assert_allclose(trained.gained(pd.DataFrame(made)), [[0.005] * 3])


def test_an_explicit_start_has_the_accuracy_of_the_factorization(ran, networks):
    found, images = rows(ran("trained")), load_data("digits")
    model = network("digits", networks, 0)
    search = {"max_bond": 1, "init": "identity", "n_init": 1, "max_sweeps": 5, "seed": 0}
    whole = disentangle(model.mpo.to_mpo(), left=brickwall(6, 2), **search)
    layer = FactorizedLinear(whole.factorization, dtype=torch.float64)
    score = accuracy(replace_layer(model, "mpo", layer), images.x_test, images.y_test)
    first = found.query("gates == 'overlap' and step == 0")["accuracy"]
    assert_allclose(first, score, atol=1.01 * 100 / len(images.y_test))  # float32, not float64
    original = accuracy(model, images.x_test, images.y_test)
    whole = found.query("gates == 'as trained' and step == 0")["accuracy"]
    assert_allclose(whole, original, atol=0.3)


def test_starts_take_the_same_steps(ran):
    found = rows(ran("trained")).query("question == 'start'")
    for _, each in found.groupby("gates"):
        curves = each.pivot_table("accuracy", "step", "rate")
        assert curves.index.tolist() == [0, 2, 4]
        assert curves.loc[0].nunique() == 1
    sizes = found.groupby("gates")["parameters"].first().to_dict()
    gates = 2 * (5 * 6 + 2)
    assert sizes == {s: 650 + (24 + gates if s != "as trained" else 80) for s in trained.STARTS}


def test_random_starts_have_the_norm_of_the_layer(ran, networks):
    ran("trained")
    model = network("digits", networks, 0)
    begun: Any = trained.started("random", model, load_data("digits"), depth=2, seed=0)
    assert_allclose(begun.mpo.weight().norm().item(), model.mpo.weight().norm().item())
