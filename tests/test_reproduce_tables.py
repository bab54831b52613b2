"""Tables 3 and 5 by small networks on the digits: what is recorded, and what is made of it."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import report
from mpodis.data import load_data
from mpodis.jobs import REPRODUCE, open_job
from mpodis.jobs.directory import JobDirectory
from mpodis.nn.paper_networks import DIGITS, MNIST
from mpodis.paper import implicit, load_experiment
from mpodis.paper.by_pieces import _one_thread, run_experiment
from mpodis.paper.implicit import Implicit, mean_spread, train_row
from mpodis.paper.table5 import Table5

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")

SMALL = Implicit(rows=("base", "2b"), seeds=2, epochs=1, workers=1)


@pytest.fixture(autouse=True)
def _images_are_read_anew():
    implicit._images.cache_clear()
    yield
    implicit._images.cache_clear()


def run(name, options, path):
    directory = JobDirectory.create(path, f"{REPRODUCE}{name}", options)
    run_experiment(load_experiment(name), options, directory)
    return directory.results()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("table3") / "run"
    run("table3", SMALL, path)
    return path


@pytest.fixture
def record(folder):
    return json.loads((folder / "results.json").read_text())


def piece(**changed):
    """One network of the digits, on one thread as all are."""
    given = {"data": "digits", "data_dir": None, "architecture": "digits", "row": "2b", "seed": 0}
    given |= {"gates": None, "mirrored": False, "validate": False, "device": "cpu"}
    given |= {"epochs": 1, "learning_rate": 0.04, "batch_size": 250} | changed
    with _one_thread():
        return train_row(**given)


# --- the record


def test_the_record_says_what_was_done(record):
    assert record["command"] == (
        "mpodis reproduce table3 --seeds 2 --workers 1 --set rows=base,2b --set epochs=1"
    )
    assert record["data"] == {"name": "digits", "note": load_data().note}
    assert record["seeds"] == [0, 1]
    assert record["options"]["rows"] == ["base", "2b"]
    assert list(record["pieces"]) == ["base-seed0", "2b-seed0", "base-seed1", "2b-seed1"]


def test_every_piece_is_a_trained_network(record):
    accuracies = set()
    for name, one in record["pieces"].items():
        assert name == f"{one['row']}-seed{one['seed']}"
        assert one["counts"] == DIGITS.network(one["row"], seed=0).counts()
        assert len(one["losses"]) == 1
        assert 0 < one["losses"][0] < 3
        assert 15 < one["accuracy"] < 100
        assert 15 < one["train_accuracy"] < 100
        assert_allclose(one["accuracy"] * 3.6, round(one["accuracy"] * 3.6), atol=1e-9)
        assert one["images"] == load_data().note
        assert one["device"] == "cpu"
        accuracies.add(one["train_accuracy"])
    assert len(accuracies) == 4


def test_no_entropy_is_above_what_its_bond_allows(record):
    for one in record["pieces"].values():
        first, second, last = one["entropies"]
        assert last == []
        assert (len(first), len(second)) == (5, 5)
        for entropy, most in first + second:
            bonds = (2,) if one["row"] == "base" else (1,)
            assert_allclose([most], np.log(bonds))
            assert -1e-12 <= entropy <= most + 1e-12
    entangled = record["pieces"]["base-seed0"]["entropies"][0]
    assert min(entropy for entropy, _ in entangled) > 0


def test_a_piece_is_its_arguments_alone(record):
    found = json.loads(json.dumps(piece()))
    assert found == record["pieces"]["2b-seed0"]


def test_a_run_that_was_interrupted_ends_as_it_would_have(folder, record, tmp_path):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / "results.json").unlink()
    for name in ("2b-seed0", "base-seed1"):
        (tmp_path / "run" / "stages" / f"{name}.json").unlink()
    directory, job, options = open_job(tmp_path / "run")
    assert (job, options) == ("reproduce table3", SMALL)
    again = run_experiment(load_experiment("table3"), options, directory)
    assert directory.results() == again
    assert {k: v for k, v in again.items() if k != "seconds"} == {
        k: v for k, v in record.items() if k != "seconds"
    }


# --- what is made of it


def test_tables_and_finding(record):
    accuracies, entropies = load_experiment("table3").tables(record)
    assert accuracies.title.startswith("accuracy on test images")
    assert load_data().note in accuracies.notes
    assert [row[0] for row in accuracies.rows] == ["base", "2b"]
    for row, parameters in zip(accuracies.rows, (368, 298), strict=True):
        counts = DIGITS.network(row[0], seed=0).counts()
        kinds = ("MPO", "gates", "BatchNorm", "dense", "all")
        assert row[1:6] == tuple(counts[kind] for kind in kinds)
        pieces = [p for p in record["pieces"].values() if p["row"] == row[0]]
        found = mean_spread([p["accuracy"] for p in pieces])
        assert row[6] == found
        assert row[7] == mean_spread([p["train_accuracy"] for p in pieces])
        assert row[8:] == (None, None)
        assert f"{row[0]} ({parameters}) {found}" in record["finding"]
    assert "on test images" in record["finding"]
    assert "over 2 seeds" in record["finding"]
    # bonds of 1 have no entropy to speak of
    assert [row[:2] for row in entropies.rows] == [("base", 1), ("base", 2)]
    pairs = [p["entropies"][0] for p in record["pieces"].values() if p["row"] == "base"]
    mean = np.mean([entropy for some in pairs for entropy, _ in some])
    assert entropies.rows[0][2:] == (
        f"{mean:.3f}",
        f"{math.log(2):.3f}",
        f"{mean / math.log(2):.2f}",
    )


def test_the_figure(record):
    (panel,) = load_experiment("table3").panels
    ax = plt.subplots()[1]
    panel.draw(record, ax)
    assert ax.has_data()
    assert ax.get_ylabel() == "test accuracy (%)"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["base", "2b"]
    assert len(ax.lines) == 2 * 2  # points and their mean; no stars: the paper has no digits
    assert_allclose(ax.lines[2].get_xdata(), [298, 298])
    assert report.figure_of(record)[:4] == b"\x89PNG"


@pytest.mark.parametrize("validate", [False, True])
def test_the_papers_figures_stand_beside_ours(record, validate):
    """Made up: numbers of the digits under the names of Table 3."""
    record["options"] |= {"data": "mnist", "validate": validate}
    (accuracies, _), (panel,) = (
        load_experiment("table3").tables(record),
        load_experiment("table3").panels,
    )
    assert [row[8:] for row in accuracies.rows] == [MNIST.paper["base"], MNIST.paper["2b"]]
    ax = panel.draw(record, plt.subplots()[1])
    stars = [line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "*"]
    assert stars == ([] if validate else [[[1008, 94.47]], [[963, 93.88]]])
    part = "held-out" if validate else "test"
    assert part in ax.get_ylabel()
    assert f"accuracy on {part}" in accuracies.title


def test_mean_and_spread():
    assert mean_spread([90.0]) == "90.00"
    assert mean_spread([90.0, 92.0, 91.0], 1) == "91.0 +- 1.0 (90.0 to 92.0)"


def test_table5_has_a_recipe_of_its_own(tmp_path):
    assert (Table5().seeds, Table5().gates, Table5().mirrored) == (3, 0.1, True)
    options = Table5(rows=("1b",), seeds=1, epochs=1, workers=1)
    record = run("table5", options, tmp_path / "run")
    assert record["command"] == (
        "mpodis reproduce table5 --seeds 1 --workers 1 --set rows=1b --set epochs=1"
    )
    (one,) = record["pieces"].values()
    assert one["images"] == f"{load_data().note}; training images also mirrored"
    assert (
        f"over 1 seeds, parameters in brackets: 1b (290) {one['accuracy']:.2f}."
        in (record["finding"])
    )
    assert load_experiment("table5").tables(record)[0].rows[0][6] == f"{one['accuracy']:.2f}"


# --- options


def test_gates_begin_anywhere_or_near_the_identity():
    haar, near = piece(), piece(gates=0.1)
    assert haar["counts"] == near["counts"]
    assert haar["losses"] != near["losses"]
    assert near == piece(gates=0.1)


def test_held_out_images_take_the_place_of_the_test_images(monkeypatch):
    """Other test images change nothing, other training images do."""
    data = load_data()
    plain = piece(validate=True)
    assert plain["images"].endswith(
        "; test part replaced by 144 held-out training images " + ("(split seed 0)")
    )
    other = replace(data, x_test=1 - data.x_test[:7], y_test=data.y_test[:7][::-1].copy())
    monkeypatch.setattr(implicit, "dataset", lambda *a, **k: other)
    implicit._images.cache_clear()
    assert piece(validate=True) == plain
    assert piece()["accuracy"] != piece(validate=True)["accuracy"]
    held_out = data.validation_split(0.1, seed=0)
    assert_allclose(plain["accuracy"] * len(held_out.y_test) / 100 % 1, 0, atol=1e-9)


def test_held_out_images_are_not_mirrored():
    images = implicit._images("digits", None, True, True)
    held_out = load_data().validation_split(0.1, seed=0)
    assert len(images.y_train) == 2 * len(held_out.y_train)
    assert_allclose(images.x_test, held_out.x_test)
    assert images.note == f"{held_out.note}; training images also mirrored"
    assert images.x_train.dtype == images.x_test.dtype == np.float32
    assert piece(mirrored=True)["losses"] != piece()["losses"]


def test_pixels_are_read_in_the_order_of_the_architecture(monkeypatch):
    """A network that takes them in another order is trained on images that are reordered."""
    quadtree = replace(DIGITS, quadtree=True)
    monkeypatch.setitem(implicit.ARCHITECTURES, "quadtree", quadtree)
    found = piece(architecture="quadtree")
    assert found["losses"] != piece()["losses"]
    order = quadtree.pixels((8, 8))
    data = load_data()
    moved = replace(data, x_train=data.x_train[:, order], x_test=data.x_test[:, order])
    monkeypatch.setattr(implicit, "dataset", lambda *a, **k: moved)
    implicit._images.cache_clear()
    assert piece() == found


def test_all_rows_unless_some_are_named():
    assert Implicit().chosen == tuple(DIGITS.rows)
    assert Implicit(data="mnist").chosen == tuple(MNIST.rows)
    assert Implicit(data="mnist", architecture="mnist-shift").name == "mnist-shift"
    pieces = load_experiment("table3").pieces(Implicit(data="mnist", seeds=1))
    assert pieces[5].name == "1b+2b-small-seed0"
    assert pieces[5].arguments["row"] == "1b+2b small"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "mnist-9"}, "architecture 'mnist-9' is not known; use one of digits,"),
        ({"data": "fashion"}, "data='fashion' is not known; use one of digits, mnist"),
        ({"rows": ("2b", "3b")}, "row '3b' is not known; use one of base, product, 1b, 2b"),
        ({"data": "mnist", "architecture": "mnist-shift", "rows": ("cnot",)}, "row 'cnot' is not"),
        ({"seeds": 0}, "seeds=0 must be a whole number, 1 or more"),
    ],
)
def test_options_that_make_no_sense(options, message):
    for kind in (Implicit, Table5):
        with pytest.raises(ValueError, match=message):
            kind(**options)


# --- the command


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
    words = [
        "reproduce",
        "table3",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    words += ["--quiet", "--set", "epochs=1", "--set", "rows=product", "--set", "gates=none"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_QISKIT, *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(record["pieces"]) == ["product-seed0"]
    assert record["finding"] in " ".join(done.stdout.split())
    assert (tmp_path / "run" / "report.html").exists()
