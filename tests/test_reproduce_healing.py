"""Compressed, healed, disentangled, healed: counts, what is lost, and the ways beside it."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import healing
from mpodis.paper.by_pieces import run_experiment

SMALL = healing.Healing(seeds=1, workers=1, epochs=1, depth=1, max_sweeps=1, share=0.3)
GIVEN = {
    "data": "digits",
    "data_dir": None,
    "seed": 0,
    "validate": False,
    "epochs": 1,
    "learning_rate": 0.001,
    "batch_size": 64,
}


@pytest.fixture(scope="module", autouse=True)
def small_layers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(healing, "HIDDEN", (16, 8))
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return str(tmp_path_factory.mktemp("healing") / "networks")


@pytest.fixture(scope="module")
def record(networks, tmp_path_factory):
    options = replace(SMALL, networks=networks)
    path = tmp_path_factory.mktemp("run") / "run"
    directory = JobDirectory.create(path, f"{REPRODUCE}healing", options)
    return run_experiment(healing.EXPERIMENT, options, directory)


def test_every_way_has_its_counts(record):
    counts = {method: healing._counts(record, method) for method in healing.METHODS}
    shapes = {"0": (64, 16), "2": (16, 8)}
    sizes = healing._sizes(shapes, SMALL.share, SMALL.depth)
    assert counts["compressed"] <= SMALL.share * sum(a * b for a, b in shapes.values())
    assert counts["circuits"] <= sum(half for *_, half in sizes.values())
    for other in ("plain MPO", "low rank", "Monarch"):
        assert counts[other] >= counts["circuits"]
    assert counts["circuits"] < counts["compressed"] + 6 * 2 * 20


def test_accuracies_are_measured_on_the_same_network(record):
    assert len({piece["original"] for piece in record["pieces"].values()}) == 1
    for method in healing.METHODS:
        (before,), (healed,) = (healing.lost(record, method, w) for w in ("before", "healed"))
        # a replacement of few parameters loses something, and an epoch of training does no harm
        assert -2 < healed < before + 2
        assert before > 1


def test_table_figure_and_finding(record):
    table = healing.EXPERIMENT.tables(record)[0]
    assert [row[0] for row in table.rows] == list(healing.METHODS)
    for panel in healing.EXPERIMENT.panels:
        figure, ax = plt.subplots()
        panel.draw(record, ax)
        assert ax.has_data()
        plt.close(figure)
    assert "circuits" in record["finding"]
    assert "test" in table.title


def test_a_frame_changes_nothing(networks):
    setting = healing._Setting.of(networks=networks, **GIVEN)
    images = setting.images
    odd = replace(
        images,
        x_train=np.ascontiguousarray(images.x_train[:, :56]),
        x_test=np.ascontiguousarray(images.x_test[:, :56]),
        image_shape=(7, 8),
    )
    first = torch.nn.Linear(56, 16)
    first.load_state_dict(
        {
            "weight": setting.model[0].weight[:, :56].detach(),
            "bias": setting.model[0].bias.detach(),
        }
    )
    setting.model[0] = first
    setting = replace(setting, images=odd)
    framed = setting.padded()
    assert framed.images.image_shape == (8, 8)
    with torch.no_grad():
        a = setting.model(torch.from_numpy(odd.x_test))
        b = framed.model(torch.from_numpy(framed.images.x_test))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_held_out_images_are_training_images(networks):
    setting = healing._Setting.of(networks=networks, **GIVEN | {"validate": True})
    assert "held-out" in setting.images.note
