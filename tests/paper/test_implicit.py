"""The experiments `table3` and `table5`: networks trained with circuits inside."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mpodis.data import load_data
from mpodis.nn.paper_networks import DIGITS, MNIST
from mpodis.paper import implicit, load_experiment
from mpodis.paper import networks as paper_networks
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_table3_of_a_small_run(ran):
    check_tables_and_figures(ran("table3"))


def test_tables_and_figures_of_table5_of_a_small_run(ran):
    check_tables_and_figures(ran("table5"))


def trained_small(**changed):
    """One network of the digits."""
    given = {"data": "digits", "data_dir": None, "architecture": "digits", "network": "2b"}
    given |= {"seed": 0, "gates": None, "mirrored": False, "validate": False, "device": "cpu"}
    given |= {"epochs": 1, "learning_rate": 0.04, "batch_size": 250} | changed
    return implicit.train_network(**given)


def test_rows_are_layers_of_trained_networks(ran):
    found = rows(ran("table3"))
    assert found.groupby("network", sort=False)["layer"].apply(list).to_dict() == {
        name: [1, 2, 3] for name in ("base", "product", "2b")
    }
    for name, each in found.groupby("network"):
        counts = DIGITS.network(name, seed=0).counts()
        assert each[implicit.COUNTS].iloc[0].to_dict() == {k: counts[k] for k in implicit.COUNTS}
    assert found["accuracy"].between(15, 100).all()
    assert_allclose(found["accuracy"] * 3.6, (found["accuracy"] * 3.6).round(), atol=1e-9)
    entropies = found.dropna(subset="s_max")
    assert list(zip(entropies["network"], entropies["layer"], strict=True)) == [
        ("base", 1),
        ("base", 2),
    ]
    assert_allclose(entropies["s_max"], np.log(2))
    assert entropies["s_avg"].between(1e-3, np.log(2)).all()


def test_what_circuits_gain_is_counted_seed_by_seed(ran):
    found = rows(ran("table3")).assign(architecture="mnist")
    found["network"] = found["network"].replace("2b", "cnot")
    more = pd.concat([found, found.assign(seed=1, accuracy=90.0)])
    scores, _, gains = load_experiment("table3").tabulate(more)
    assert [row[-2:] for row in scores.rows] == [list(MNIST.paper[row[0]]) for row in scores.rows]
    first = found.query("layer == 1").set_index("network")["accuracy"]
    gain = first["cnot"] - first["product"]
    low, high = sorted((0.0, gain))
    lower = "1 of 2" if gain < 0 else "0 of 2"
    assert gains.rows == [["cnot", f"{gain / 2:.2f} ({low:.2f} to {high:.2f})", lower]]


def test_gates_begin_anywhere_or_near_the_identity():
    haar, near = trained_small(), trained_small(gates=0.1)
    assert haar["all"] == near["all"]
    assert haar["losses"] != near["losses"]
    assert near == trained_small(gates=0.1)


@pytest.fixture
def given_images(monkeypatch):
    """A function to put other images in the place of the digits."""

    def give(images):
        monkeypatch.setattr(paper_networks, "dataset", lambda *a, **k: images)
        paper_networks.single_precision.cache_clear()

    yield give
    paper_networks.single_precision.cache_clear()


def test_held_out_images_take_the_place_of_the_test_images(given_images):
    """Other test images change nothing, other training images do."""
    data = load_data()
    plain = trained_small(validate=True)
    assert plain["images"].endswith(
        "; test part replaced by 144 held-out training images (split seed 0)"
    )
    given_images(replace(data, x_test=1 - data.x_test[:7], y_test=data.y_test[:7][::-1].copy()))
    assert trained_small(validate=True) == plain
    assert trained_small()["accuracy"] != plain["accuracy"]


def test_held_out_images_are_not_mirrored():
    images = paper_networks.single_precision("digits", None, validate=True, mirrored=True)
    held_out = load_data().validation_split(0.1, seed=0)
    assert len(images.y_train) == 2 * len(held_out.y_train)
    assert_allclose(images.x_test, held_out.x_test)
    assert images.note == f"{held_out.note}; training images also mirrored"
    assert images.x_train.dtype == images.x_test.dtype == np.float32
    assert trained_small(mirrored=True)["losses"] != trained_small()["losses"]


def test_pixels_are_read_in_the_order_of_the_architecture(monkeypatch, given_images):
    """A network that takes them in another order is trained on images that are reordered."""
    quadtree = replace(DIGITS, quadtree=True)
    monkeypatch.setitem(implicit.ARCHITECTURES, "quadtree", quadtree)
    found = trained_small(architecture="quadtree")
    assert found["losses"] != trained_small()["losses"]
    order, data = quadtree.pixels((8, 8)), load_data()
    given_images(replace(data, x_train=data.x_train[:, order], x_test=data.x_test[:, order]))
    assert trained_small() == found


def test_all_networks_unless_some_are_named():
    def chosen(**given):
        study = load_experiment("table3").study(implicit.Implicit(networks="x", seeds=1, **given))
        return [tuple(case.settings.values()) for case in study.cases]

    assert chosen() == [("digits", row) for row in DIGITS.rows]
    assert chosen(data="mnist") == [("mnist", row) for row in MNIST.rows]
    named = {"architecture": "mnist-shift", "rows": ("2b",)}
    assert chosen(data="mnist", **named) == [("mnist-shift", "2b")]
    with pytest.raises(ValueError, match="row '3b' is not known; use one of base, product, 1b"):
        chosen(rows=("2b", "3b"))


WITHOUT_QISKIT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("qiskit"):
            raise ModuleNotFoundError(f"no module named {name}")

sys.meta_path.insert(0, Missing())
from mpodis.cli import main
main()
"""


def test_the_command_needs_no_qiskit(tmp_path):
    words = ["reproduce", "table3", "--seeds", "1", "--n-jobs", "1", "--quiet"]
    words += ["--run-dir", str(tmp_path / "run")]
    words += ["--set", "epochs=1", "--set", "rows=product", "--set", "gates=none"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_QISKIT, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [row["network"] for row in record["rows"]] == ["product"] * 3
    assert (tmp_path / "run" / "report.html").exists()
