"""Dense networks: what is recorded is what the replaced layers do, and how it is compared."""

import functools
import itertools
import json
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mpodis.conventions import qubit_legs
from mpodis.data import load_data
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import accuracy
from mpodis.paper import dense, replacements, wide
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.networks import trained_dense
from mpodis.structured import mpo_parameters
from reference import random_covariance, random_matrix

METHODS = replacements.METHODS
SMALL = dense.Dense(
    seeds=1,
    workers=1,
    cores=(1,),
    depths=(1, 2),
    mirrored=(2,),
    bonds=(1,),
    ranks=(1, 2),
    monarchs=(256,),
    starts=1,
    max_sweeps=2,
    rounds=1,
)
WIDE = replace(SMALL, network="wide", objectives=("sensitivity",), shares=(0.6, 0.8))
HIDDEN = (16, 8)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return str(tmp_path_factory.mktemp("dense") / "networks")


def run(options, networks, path):
    options = replace(options, networks=networks)
    directory = JobDirectory.create(path, f"{REPRODUCE}dense", options)
    quick = functools.partial(
        replacements.best_monarch, fits=1, n_init=1, max_sweeps=1, iterations=5
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replacements, "best_monarch", quick)
        run_experiment(dense.EXPERIMENT, options, directory)
    return directory.results()


@pytest.fixture(scope="module")
def record(networks, tmp_path_factory):
    return run(SMALL, networks, tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="module")
def wide_record(networks, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wide, "HIDDEN", HIDDEN)  # the same on small layers
        patch.setattr(wide, "FEW", 0.7)  # the smaller of the two shares
        patch.setattr(wide, "SPLITS", (0.9,))
        patch.setattr(wide, "DEPTHS", (0, 1))
        return run(WIDE, networks, tmp_path_factory.mktemp("wide") / "run")


def test_every_method_has_its_points_under_every_objective(record):
    pieces = record["pieces"].values()
    assert len(pieces) == 2 * 7
    for piece in pieces:
        free = piece["method"] in (dense.OURS, dense.OURS_GIVEN)
        assert len(piece["rows"]) == (2 if free or piece["method"] == "low rank" else 1)
        assert piece["nothing"] < 30 < 90 < piece["original"]
        for row in piece["rows"]:
            assert 0 < row["loss"] < 1
            assert 0 < row["accuracy"] < 100
            assert (row["thrifty"] < row["parameters"]) == free
    for kind in ("", "given-"):
        ours = record["pieces"][f"sensitivity-{kind}chi1-seed0"]["rows"]
        # 3 gates a side in the first layer, 2 in the second
        counts = [(row["parameters"], row["thrifty"]) for row in ours]
        assert counts == [(24 + 6 * 6, 24 + 4 * 6), (24 + 6 * 10, 24 + 4 * 10)]
        assert ours[1]["loss"] <= ours[0]["loss"] + 1e-12
    # of 3 gates the outer ones are one, and so are both of 2
    (mirrored,) = record["pieces"]["sensitivity-mirrored-chi1-seed0"]["rows"]
    assert mirrored["parameters"] == 24 + 6 * 6
    assert record["pieces"]["activations-low-rank-seed0"]["rows"][1]["parameters"] == 256


def test_an_order_that_is_searched_is_never_further_off(record):
    pairs = (("plain-MPO", "MPO-order-given"), ("chi1", "given-chi1"))
    for objective, names in itertools.product(replacements.OBJECTIVES, pairs):
        searched, given = (
            record["pieces"][f"{objective}-{name}-seed0"]["rows"][0] for name in names
        )
        assert searched["parameters"] == given["parameters"]
        assert searched["loss"] <= given["loss"] + 1e-9


@pytest.mark.parametrize(("method", "sizes"), [(dense.MPO_GIVEN, (2,)), (dense.OURS_GIVEN, (2, 1))])
def test_an_order_that_is_given_stays(method, sizes, monkeypatch):
    def searched(*args, **options):
        raise AssertionError("an order was searched")

    monkeypatch.setattr(replacements, "improve_permutation", searched)
    monkeypatch.setattr(replacements, "neuron_order", searched)
    layer = replacements.Layer(random_matrix((12, 8)), random_covariance(12))
    place = replacements.Slot(None, "0", layer, None, None)
    (found,) = dense._fits(place, method, sizes, replacements.Effort(1, 2, 1))
    assert 0 < found.loss < 1
    assert_allclose(found.loss, layer.loss(found.matrix), rtol=1e-9)


def test_accuracies_are_those_of_the_filled_network(record, networks):
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=(64,))
    place = replacements.Slot.of(model, "0", images.x_train, "sensitivity")
    row = record["pieces"]["sensitivity-low-rank-seed0"]["rows"][1]
    filled = place.filled(replacements.rank_matrix(place.layer, 2).matrix)
    assert row["accuracy"] == accuracy(filled, images.x_test, images.y_test)


def made_up(rows):
    """A record with these (parameters, loss, accuracy) by method, and two networks."""
    pieces = {}
    for seed in (0, 1):
        for method, given in rows.items():
            found = [
                {"name": f"{p}", "loss": loss, "accuracy": a + seed}
                | {"parameters": p, "thrifty": p - 100 * (method == "circuits")}
                for p, loss, a in given
            ]
            where = {"seed": seed, "objective": "sensitivity", "method": method}
            numbers = {"original": 97.0, "nothing": 10.0, "data": "made up", "rows": found}
            pieces[f"{method}{seed}"] = where | numbers
    options = {"network": "small", "objectives": ["sensitivity"]}
    return {"pieces": pieces, "seeds": [0, 1], "options": options}


MADE_UP = made_up(
    {
        dense.OURS: [(300, 0.2, 80.0), (200, 0.3, 85.0), (250, 0.35, 99.0), (900, 0.1, 90.0)],
        dense.MIRRORED: [(180, 0.2, 86.0)],
        dense.OURS_GIVEN: [(400, 0.3, 78.0)],
        dense.MPO: [(24, 0.9, 20.0), (310, 0.3, 70.0)],
        dense.MPO_GIVEN: [(24, 0.95, 15.0), (310, 0.6, 40.0)],
        dense.RANK: [(128, 0.8, 10.0), (256, 0.7, 30.0), (1024, 0.05, 95.0)],
        dense.MONARCH: [(256, 0.5, 50.0)],
    }
)
SEARCHED = dense.CASES["order searched"]


def test_the_training_loss_chooses_and_others_stand_between_two_sizes():
    front = dense.front(MADE_UP, "sensitivity", "circuits", 0)
    assert [row["parameters"] for row in front] == [200, 300, 900]
    found = dense.compared(MADE_UP, "sensitivity", SEARCHED)
    assert list(found) == [200, 250, 300, 400, 550, 800, 1100, 1500, 2000, 3000]
    assert found[250]["circuits"] == [85.0, 86.0]
    assert found[250]["Monarch"] == [50.0, 51.0]
    share = np.log(400 / 256) / np.log(1024 / 256)
    assert_allclose(found[400]["low rank"], [30 + 65 * share, 31 + 65 * share])
    assert found[400]["circuits"] == [80.0, 81.0]
    assert found[400]["plain MPO"] == [70.0, 71.0]
    assert replacements.leads(found[400]) == [10.0, 10.0]
    assert found[1500]["low rank"] == [95.0, 96.0]
    four = dense.CASES["order searched, four angles a gate"]
    thrifty = dense.compared(MADE_UP, "sensitivity", four)
    assert list(thrifty) == [100, 150, *found]
    assert thrifty[100]["circuits"] == [85.0, 86.0]
    assert thrifty[100]["low rank"] == [10.0, 11.0]  # the first there is


def test_every_recipe_compares_like_with_like():
    given = dense.compared(MADE_UP, "sensitivity", dense.CASES["order given"])
    assert list(given) == [400, 550, 800, 1100, 1500, 2000, 3000]
    assert list(given[400]) == [dense.OURS_GIVEN, dense.MPO_GIVEN, dense.RANK, dense.MONARCH]
    assert given[400][dense.OURS_GIVEN] == [78.0, 79.0]
    assert given[400][dense.MPO_GIVEN] == [40.0, 41.0]
    ahead = [
        a - b for a, b in zip(given[400][dense.OURS_GIVEN], given[400][dense.RANK], strict=True)
    ]
    assert replacements.leads(given[400]) == ahead
    mirrored = dense.CASES["order searched, mirrored gates"]
    found = dense.compared(MADE_UP, "sensitivity", mirrored)[200]
    assert list(found) == [dense.MIRRORED, *METHODS[1:]]
    assert found[dense.MIRRORED] == [86.0, 87.0]


def test_the_finding_says_who_is_ahead_where():
    text = dense.finding(MADE_UP)
    assert "Under sensitivity, order searched (medians over the networks)" in text
    assert "between 250 and 550 parameters the lead of circuits over the best other" in text
    assert "is +10.0 to +19.2 points" in text
    assert "the smallest up to 1100 is -5.0, at 1100" in text
    assert "plain MPO is behind at all 10 budgets" in text
    assert "Under sensitivity, order searched, four angles a gate (medians" in text
    assert "low rank is ahead at 800, 1100, 1500, 2000, 3000" in text
    assert "MPO, order given is behind at all 7 budgets" in text
    names = (*dense.KINDS, *METHODS[1:], dense.MPO_GIVEN)
    large = made_up({name: [(5000, 0.1, 90.0)] for name in names})
    assert "no circuits are as small as the budgets compared" in dense.finding(large)
    middle = made_up({name: [(1300, 0.1, 90.0)] for name in names})
    assert "up to 1100" not in dense.finding(middle)


def test_tables_and_figure(record):
    *compared, points = dense.tables(record)
    assert len(compared) == 2 * len(dense.CASES)
    for table, (name, case) in zip(compared[: len(dense.CASES)], dense.CASES.items(), strict=True):
        assert table.title.startswith(f"test accuracy %, activations, {name}: median")
        assert table.columns == ("parameters", case.ours, *case.others, "lead")
        assert [row[0] for row in table.rows] == list(dense.BUDGETS)
        assert any("scikit-learn digits" in note for note in table.notes)
    assert len(points.rows) == 2 * (1 + 2 + 2 + 1 + 2 + 1 + 1)
    assert record["finding"] == dense.finding(record)
    for panel in dense.EXPERIMENT.panels:
        ax = plt.subplots()[1]
        panel.draw(record, ax)
        assert ax.has_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "deep"}, "network='deep' is not known; use small or wide"),
        ({"objectives": ("overlap",)}, "must be among activations, sensitivity"),
        ({"objectives": ()}, "must be among activations, sensitivity"),
        ({"depths": (4, 2)}, r"depths=\(4, 2\) must be ascending"),
        ({"mirrored": (0, 2)}, r"mirrored=\(0, 2\) must be ascending"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        dense.Dense(**options)


# --- the wide network


def test_both_layers_are_replaced_within_their_share(wide_record):
    pieces = wide_record["pieces"]
    assert len(pieces) == 4 * 2 - 1  # at the smaller share the MPOs come with the circuits
    total = 64 * 16 + 16 * 8
    for piece in pieces.values():
        assert piece["dense"] == total
        assert len(piece["losses"]) == len(piece["names"]) == 2
        assert max(piece["losses"]) < 1
        spent = piece["parameters"] - piece["share"] * total
        assert spent <= 0 if piece["method"] == "circuits" else spent >= 0
        assert ("alone" in piece) == (piece["method"] == "circuits" and piece["share"] == 0.6)
        if "alone" in piece:
            assert piece["alone"]["parameters"] <= piece["share"] * total
        assert piece["healed"] > 50
        assert piece["original"] > 90


def test_wide_tables_finding_and_figure(wide_record):
    assert wide_record["command"].startswith("mpodis reproduce dense --seeds 1")
    plain, healed, fits = dense.tables(wide_record)
    assert [row[:2] for row in plain.rows] == [("3/5", 691), ("4/5", 921)]
    assert healed.title.startswith("test accuracy %, sensitivity, healed")
    assert len(fits.rows) == 8
    (lead,) = replacements.leads(wide.compared(wide_record, "sensitivity", "accuracy")[0.6])
    assert f"under sensitivity: {lead:+.1f} at 3/5" in wide_record["finding"]
    for panel in dense.EXPERIMENT.panels:
        ax = plt.subplots()[1]
        panel.draw(wide_record, ax)
        assert ax.has_data()
    json.dumps(wide_record)


@pytest.fixture
def fill(networks, monkeypatch):
    monkeypatch.setattr(wide, "HIDDEN", HIDDEN)
    monkeypatch.setattr(wide, "FEW", 0.7)
    monkeypatch.setattr(wide, "SPLITS", (0.75,))
    monkeypatch.setattr(wide, "DEPTHS", (0, 1))
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=HIDDEN)
    effort = replacements.Effort(starts=1, max_sweeps=2, rounds=2, between=1)
    return wide.Fill(images, model, "activations", effort)


def test_circuits_are_at_least_what_an_mpo_is_on_training_images(fill):
    alone, circuits = fill.best(0.3)
    for pair in (alone, circuits):
        assert pair.parameters <= int(0.3 * (64 * 16 + 16 * 8))
        for name, part in zip(wide.PLACES, pair.found, strict=True):
            assert_allclose(pair.model.get_submodule(name).weight.detach().T, part.matrix)
    assert on_training_images(fill, alone) <= on_training_images(fill, circuits)


def on_training_images(fill, pair):
    return accuracy(pair.model, fill.images.x_train, fill.images.y_train)


def test_baselines_split_few_parameters_too(fill, monkeypatch):
    budget = int(0.5 * (64 * 16 + 16 * 8))
    scores = []
    for split in (0.9, 0.6):
        monkeypatch.setattr(wide, "SPLITS", (split,))
        pair = fill.with_share("low rank", 0.5)
        first = math.ceil(int(split * budget) / (64 + 16))
        second = min(8, math.ceil((budget - int(split * budget)) / (16 + 8)))
        assert [one.name for one in pair.found] == [f"low rank {r}" for r in (first, second)]
        scores.append(on_training_images(fill, pair))
    assert scores[0] != scores[1]
    monkeypatch.setattr(wide, "SPLITS", (0.9, 0.6))
    assert on_training_images(fill, fill.with_share("low rank", 0.5)) == max(scores)


def test_few_parameters_may_leave_the_core_alone(fill):
    nothing = wide.Pair([], fill.original)
    least = mpo_parameters(qubit_legs(64, 16), 1)
    (pair,) = fill._around(nothing, least + 5)  # a gate has six numbers
    assert [one.name for one in pair.found] == ["chi 1, depth 0"]
    assert not list(fill._around(nothing, least - 1))


def test_circuits_of_few_parameters_are_at_least_as_near_as_their_core(fill):
    nothing = wide.Pair([], fill.original)
    budget = mpo_parameters(qubit_legs(64, 16), 3) + 5
    largest, smaller = fill._around(nothing, budget)
    alone = fill._alone(nothing, budget)
    assert largest.found[0].name == "chi 3, depth 0"
    assert largest.found[0].loss == alone.found[0].loss
    assert smaller.found[0].name == "chi 2, depth 1"
    assert max(largest.parameters, smaller.parameters) <= budget


def test_a_share_that_pays_for_no_pair(fill):
    with pytest.raises(ValueError, match=r"share=0.001 does not pay for an MPO of either layer"):
        fill.best(0.001)


def test_healing_leaves_the_replaced_matrices(networks):
    images = load_data("digits")
    model = trained_dense(images, networks, 0, hidden=HIDDEN)
    healed = wide.heal(model, images, 0)
    for name in wide.PLACES:
        old, new = (m.get_submodule(name) for m in (model, healed))
        torch.testing.assert_close(new.weight.double(), old.weight, rtol=1e-6, atol=1e-7)
        assert not torch.allclose(new.bias.double(), old.bias)
    assert not torch.allclose(healed[4].weight.double(), model[4].weight)


def test_pixels_get_bits_of_their_own():
    found = wide.grid((3, 5), 2)
    assert found.shape == (32, 2)
    image = np.arange(15).reshape(3, 5)
    padded = np.full((4, 8), -1)
    padded[:3, :5] = image
    rows = np.array([r if r < 15 else -1 for r in found.rows]).reshape(4, 8)
    assert_allclose(rows, padded)
    assert wide.grid((8, 8), 2).rows.tolist() == list(range(64))


def test_a_share_that_pays_for_nothing():
    layer = replacements.Layer(np.eye(64), np.eye(64))
    with pytest.raises(ValueError, match=r"3 parameters do not pay for any circuit; raise the sh"):
        wide._fit(layer, "circuits", 3, replacements.Effort(), None)
