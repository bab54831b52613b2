"""The experiment `dense`: what is recorded is what replaced layers do, and how it is compared."""

import functools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose

from mpodis import low_rank
from mpodis.conventions import qubit_legs
from mpodis.data import load_data
from mpodis.nn import accuracy
from mpodis.paper import dense, replacements
from mpodis.paper.networks import trained_dense
from mpodis.paper.running import run_experiment
from mpodis.structured import best_monarch, mpo_parameters
from paper_runs import begin, check_tables_and_figures, rows
from reference import random_covariance, random_matrix

METHODS = replacements.METHODS
WIDTHS = (16, 8)


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("dense"))


@pytest.fixture
def record(ran):
    return ran("dense")


@pytest.fixture(scope="module")
def wide_record(networks, tmp_path_factory):
    given = {"network": "wide", "objectives": ("sensitivity",), "shares": (0.6, 0.8)}
    given |= {"seeds": 1, "n_jobs": 1, "starts": 1, "max_sweeps": 2, "rounds": 1}
    options = dense.Dense(networks=networks, **given)
    directory = begin(tmp_path_factory.mktemp("wide") / "run", options, "dense")
    quick = functools.partial(best_monarch, fits=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "HIDDEN_WIDTHS", WIDTHS)  # the same on small layers
        patch.setattr(dense, "SMALL_SHARE", 0.7)  # the smaller of the two shares
        patch.setattr(dense, "SPLITS", (0.9,))
        patch.setattr(dense, "SMALL_SHARE_DEPTHS", (0, 1))
        patch.setattr(dense, "MONARCHS", {"n_init": 1, "max_iterations": 5, "turns": 1})
        patch.setattr(replacements, "best_monarch", quick)
        run_experiment(dense.EXPERIMENT, options, directory)
    return directory.results()


def test_every_method_has_its_points_under_every_objective(record):
    found = rows(record)
    free = found["method"].isin([dense.CIRCUITS, dense.CIRCUITS_GIVEN])
    assert ((found["independent"] < found["parameters"]) == free).all()
    assert (found["nothing"] < 30).all()
    assert (found["original"] > 90).all()
    assert found["loss"].between(0, 1, inclusive="neither").all()
    given = found.query("objective == 'sensitivity'").groupby("method")
    counts, losses = (given[name].apply(list) for name in ("parameters", "loss"))
    for kind in (dense.CIRCUITS, dense.CIRCUITS_GIVEN):
        assert losses[kind][1] <= losses[kind][0] + 1e-12
    # 3 gates a side in the first layer, 2 in the second
    assert counts[dense.CIRCUITS] == counts[dense.CIRCUITS_GIVEN] == [24 + 6 * 6, 24 + 6 * 10]
    # of 3 gates the outer ones are one, and so are both of 2
    assert counts[dense.MIRRORED] == [24 + 6 * 6]
    assert counts[dense.RANK] == [128, 256]


def test_an_order_that_is_searched_is_never_further_off(record):
    found = rows(record).drop_duplicates(["objective", "method"])
    first = found.pivot_table(["loss", "parameters"], "objective", "method")
    for searched, given in ((dense.MPO, dense.MPO_GIVEN), (dense.CIRCUITS, dense.CIRCUITS_GIVEN)):
        assert (first["parameters", searched] == first["parameters", given]).all()
        assert (first["loss", searched] <= first["loss", given] + 1e-9).all()


@pytest.mark.parametrize(
    ("method", "sizes"), [(dense.MPO_GIVEN, (2,)), (dense.CIRCUITS_GIVEN, (1,))]
)
def test_an_order_that_is_given_stays(method, sizes, monkeypatch):
    def searched(*args, **options):
        raise AssertionError("an order was searched")

    monkeypatch.setattr(replacements, "improve_permutation", searched)
    monkeypatch.setattr(replacements, "neuron_order", searched)
    layer = replacements.Layer(random_matrix((12, 8)), random_covariance(12))
    (found,) = dense.fits(layer, method, 2, sizes, replacements.Effort(1, 2, 1, 1))
    assert 0 < layer.loss(found.matrix) < 1


def test_accuracies_are_those_of_the_filled_network(record, networks):
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=(64,))
    layer, filled = replacements.slot(model, "0", images.x_train, "sensitivity")
    ranks = rows(record).query("method == 'low rank' and parameters == 256")
    (row,) = ranks.query("objective == 'sensitivity'").to_dict("records")
    matrix = low_rank(layer.matrix, 2, **layer.moments).matrix
    assert row["accuracy"] == accuracy(filled(matrix), images.x_test, images.y_test)
    assert_allclose(row["loss"], layer.loss(matrix), rtol=1e-9)


def made_up(points):
    """Rows with these (parameters, loss, accuracy) by method, of two networks."""
    return pd.DataFrame(
        {"objective": "sensitivity", "method": method, "seed": seed, "size": f"{p}", "loss": loss}
        | {"parameters": p, "independent": p - 100 * (method == "circuits"), "accuracy": a + seed}
        for seed in (0, 1)
        for method, given in points.items()
        for p, loss, a in given
    )


MADE_UP = made_up(
    {
        dense.CIRCUITS: [(300, 0.2, 80.0), (200, 0.3, 85.0), (250, 0.35, 99.0), (900, 0.1, 90.0)],
        dense.MIRRORED: [(180, 0.2, 86.0)],
        dense.CIRCUITS_GIVEN: [(400, 0.3, 78.0)],
        dense.MPO: [(24, 0.9, 20.0), (310, 0.3, 70.0)],
        dense.MPO_GIVEN: [(24, 0.95, 15.0), (310, 0.6, 40.0)],
        dense.RANK: [(128, 0.8, 10.0), (256, 0.7, 30.0), (1024, 0.05, 95.0)],
        dense.MONARCH: [(256, 0.5, 50.0)],
    }
)


def comparisons():
    return {words.partition(", ")[2]: values for words, values in dense.compared(MADE_UP)}


def both(values):
    """Of the second network every accuracy is a point higher."""
    return [values, values + 1]


def test_the_training_loss_chooses_and_others_stand_between_two_sizes():
    first = MADE_UP.query("method == 'circuits' and seed == 0")
    assert dense.front(first, "parameters")["parameters"].tolist() == [200, 300, 900]
    found = comparisons()["order searched"]
    budgets = [200, 250, 300, 400, 550, 800, 1100, 1500, 2000, 3000]
    assert found.index.unique("parameters").tolist() == budgets
    at = {budget: {k: found.loc[budget, k].tolist() for k in found} for budget in budgets}
    assert at[250]["circuits"] == both(85.0)
    assert at[250]["Monarch"] == both(50.0)
    share = np.log(400 / 256) / np.log(1024 / 256)
    assert_allclose(at[400]["low rank"], both(30 + 65 * share))
    assert at[400]["circuits"] == both(80.0)
    assert at[400]["plain MPO"] == both(70.0)
    assert at[400]["lead"] == [10.0, 10.0]
    assert at[1500]["low rank"] == both(95.0)
    independent = comparisons()["four numbers a gate"]
    assert independent.index.unique("parameters").tolist() == [100, 150, *budgets]
    assert independent.loc[100, dense.INDEPENDENT].tolist() == both(85.0)
    assert independent.loc[100, "low rank"].tolist() == both(10.0)  # the first there is


def test_every_recipe_compares_like_with_like():
    given = comparisons()["order given"]
    names = [dense.CIRCUITS_GIVEN, dense.MPO_GIVEN, dense.RANK, dense.MONARCH, "lead"]
    assert list(given) == names
    assert given.index.unique("parameters").tolist() == [400, 550, 800, 1100, 1500, 2000, 3000]
    assert given.loc[400, dense.CIRCUITS_GIVEN].tolist() == both(78.0)
    assert given.loc[400, dense.MPO_GIVEN].tolist() == both(40.0)
    others = given.loc[400][names[1:-1]].max(axis=1)
    assert_allclose(given.loc[400, "lead"], both(78.0) - others)
    found = comparisons()["mirrored gates"]
    assert list(found) == [dense.MIRRORED, *METHODS[1:], "lead"]
    assert found.loc[200, dense.MIRRORED].tolist() == both(86.0)


def test_tables(record):
    *compared, _ = dense.EXPERIMENT.tables(record)
    assert len(compared) == 2 * len(dense.SMALL)
    for table, (name, columns) in zip(compared, dense.SMALL.items(), strict=False):
        assert table.title.startswith(f"test accuracy %, activations, {name}: median")
        assert list(table.columns) == ["parameters", *columns, "lead"]
        assert [row[0] for row in table.rows] == list(dense.BUDGETS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "deep"}, "network='deep' is not known; use one of small, wide"),
        ({"objectives": ("overlap",)}, "'overlap' is not known; use one of activations, sensitiv"),
        ({"objectives": ()}, r"objectives=\(\) is empty"),
        ({"mirrored": (0, 2)}, "mirrored=0 must be a whole number, 1 or more"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        dense.Dense(**options)


# --- the wide network


def test_both_layers_are_replaced_within_their_share(wide_record):
    found = rows(wide_record)
    assert len(found) == 4 * 2
    # at the smaller share the MPOs come with the circuits
    together = found.query("fitted != method")
    assert together[["method", "share"]].to_numpy().tolist() == [["plain MPO", 0.6]]
    total = 64 * 16 + 16 * 8
    assert (found["dense"] == total).all()
    assert (found[["loss_1", "loss_2"]] < 1).all(axis=None)
    assert found["layers"].str.count(";").eq(1).all()
    spent = found["parameters"] - found["share"] * total
    capped = (found["method"] == "circuits") | (found["fitted"] != found["method"])
    assert (spent[capped] <= 0).all()
    assert (spent[~capped] >= 0).all()
    assert (found["healed"] > 50).all()
    assert (found["original"] > 90).all()


def test_tables_and_figures_of_the_wide_network(wide_record):
    check_tables_and_figures(wide_record)
    plain, healed, fits, _ = dense.EXPERIMENT.tables(wide_record)
    assert [row[0] for row in plain.rows] == [691, 921]
    assert healed.title.startswith("test accuracy %, sensitivity, healed")
    assert len(fits.rows) == 8
    found = rows(wide_record).query("share == 0.6").set_index("method")["accuracy"]
    lead = found["circuits"] - found.drop("circuits").max()
    assert plain.rows[0][-1] == f"{lead:z.1f}"


@pytest.fixture
def replacement(networks, monkeypatch):
    monkeypatch.setattr(dense, "HIDDEN_WIDTHS", WIDTHS)
    monkeypatch.setattr(dense, "SPLITS", (0.75,))
    monkeypatch.setattr(dense, "SMALL_SHARE_DEPTHS", (0, 1))
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=WIDTHS)
    return dense.LayerReplacement(images, model, "activations", replacements.Effort(1, 2, 2, 1))


def test_circuits_are_at_least_what_an_mpo_is_on_training_images(replacement):
    alone, circuits = replacement.best(int(0.3 * (64 * 16 + 16 * 8)))
    for network in (alone, circuits):
        assert network.parameters <= int(0.3 * (64 * 16 + 16 * 8))
        for name, part in zip(dense.HIDDEN_LAYERS, network.found, strict=True):
            assert_allclose(network.model.get_submodule(name).weight.detach().T, part.matrix)
    assert replacement.score(alone) <= replacement.score(circuits)


def test_a_budget_is_split_as_it_is_said(replacement, monkeypatch):
    monkeypatch.setattr(dense, "SPLITS", (0.9, 0.6))
    budget = int(0.5 * (64 * 16 + 16 * 8))
    for limit in replacement.limits(budget):
        found = replacement.by_method("low rank", (limit, budget - limit)).found
        first = math.ceil(limit / (64 + 16))
        second = min(8, math.ceil((budget - limit) / (16 + 8)))
        assert [one.name for one in found] == [f"low rank {r}" for r in (first, second)]


def found_below(budget, depths, bonds):
    layer = replacements.Layer(random_matrix((16, 8)), random_covariance(16))
    effort = replacements.Effort(1, 2, 2, 1)
    options = {"depths": depths, "bonds": bonds, "effort": effort}
    return layer, list(dense.fits_below_budget(layer, None, 10, budget=budget + 10, **options))


def test_few_parameters_may_leave_the_core_alone():
    least = mpo_parameters(qubit_legs(16, 8), 1)
    _, found = found_below(least + 5, (0, 1), 2)  # a gate has six numbers
    assert [one.name for one in found] == ["chi 1, depth 0"]
    assert not found_below(least - 1, (0, 1), 2)[1]


def test_circuits_of_few_parameters_are_at_least_as_near_as_their_core():
    budget = mpo_parameters(qubit_legs(16, 8), 3) + 5
    layer, (largest, smaller) = found_below(budget, (0, 1), 2)
    _, (alone,) = found_below(budget, (0,), 1)
    assert largest.name == alone.name == "chi 3, depth 0"
    assert layer.loss(largest.matrix) == layer.loss(alone.matrix)
    assert smaller.name == "chi 2, depth 1"
    assert max(largest.parameters, smaller.parameters) <= budget


def test_a_share_that_pays_for_no_pair(replacement):
    with pytest.raises(ValueError, match="10 parameters do not pay for MPOs of both layers"):
        replacement.best(10)


def test_healing_leaves_the_replaced_matrices(networks):
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=WIDTHS)
    healed = dense.heal(model, images, 0)
    for name in dense.HIDDEN_LAYERS:
        old, new = (m.get_submodule(name) for m in (model, healed))
        torch.testing.assert_close(new.weight.double(), old.weight, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(new.bias.double(), old.bias)
    assert not torch.allclose(healed[4].weight.double(), model[4].weight)


def test_pixels_get_bits_of_their_own():
    found = dense.grid((3, 5), 2)
    assert found.shape == (32, 2)
    image = np.arange(15).reshape(3, 5)
    padded = np.full((4, 8), -1)
    padded[:3, :5] = image
    rows = np.array([r if r < 15 else -1 for r in found.rows]).reshape(4, 8)
    assert_allclose(rows, padded)
    assert dense.grid((8, 8), 2).rows.tolist() == list(range(64))


def test_a_share_that_pays_for_nothing():
    layer = replacements.Layer(np.eye(64), np.eye(64))
    given = {"method": "circuits", "budget": 3, "effort": replacements.Effort()}
    with pytest.raises(ValueError, match=r"3 parameters do not pay for any circuit; raise the sh"):
        dense.fit_at_budget(layer, None, 0, **given)
