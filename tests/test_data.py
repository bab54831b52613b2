"""Data sets: what they hold, how they are split, and what a damaged file says."""

import gzip
import subprocess
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.data import Dataset, load_data


def fake_mnist(n_train=30, n_test=20, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (n_train, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(n_train) % 10).astype(np.uint8),
        "x_test": rng.integers(0, 256, (n_test, 28, 28), dtype=np.uint8),
        "y_test": (np.arange(n_test) % 10).astype(np.uint8),
    }


IDX_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def write_idx(folder, arrays, *, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for key, name in IDX_FILES.items():
        array = arrays[key]
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
        raw = header + array.tobytes()
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
        else:
            (folder / name).write_bytes(raw)


def toy(labels, n_test=2):
    y = np.asarray(labels)
    x = np.linspace(0, 1, 4 * len(y)).reshape(-1, 4)
    return Dataset("toy", x, y, x[:n_test], y[:n_test], (2, 2), "ramp")


# --- digits


def test_digits_are_what_the_note_says():
    data = load_data()
    assert data.name == "digits"
    assert data.x_train.shape == (1437, 64)
    assert data.x_test.shape == (360, 64)
    assert data.x_train.dtype == np.float64
    assert data.y_test.dtype == np.int64
    assert (data.features, data.classes, data.image_shape) == (64, 10, (8, 8))
    assert data.x_train.min() == 0
    assert data.x_train.max() == 1
    assert data.note == (
        "scikit-learn digits, 1797 images 8x8, stratified 1437/360 split, split seed 0"
    )
    assert "mnist" not in repr(data).lower()


def test_digits_split_is_a_stratified_partition():
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    data = load_data("digits", seed=3)
    assert_array_equal(
        np.sort(np.vstack([data.x_train, data.x_test]), axis=0), np.sort(pixels / 16, axis=0)
    )
    share = np.bincount(labels) * 360 / 1797
    assert np.abs(np.bincount(data.y_test) - share).max() <= 1


def test_split_depends_on_the_seed_alone():
    first, again, other = (load_data(seed=seed) for seed in (1, 1, 2))
    assert_array_equal(first.x_test, again.x_test)
    assert not np.array_equal(first.x_test, other.x_test)
    drawn = load_data(seed=np.random.default_rng(1))
    assert_array_equal(first.x_test, drawn.x_test)
    assert drawn.note.endswith("split by a Generator")


# --- the data set itself


def test_repr_is_one_short_line():
    text = repr(toy([0, 1, 1, 0, 2, 2]))
    assert text == "Dataset('toy': 6 train, 2 test, 4 features, 3 classes; ramp)"


@pytest.mark.parametrize(("size", "count"), [(0.25, 10), (7, 7), (np.int64(3), 3)])
def test_validation_split_holds_out_training_images(size, count):
    data = toy(np.arange(40) % 4, n_test=5)
    split = data.validation_split(size, seed=1)
    assert len(split.y_test) == count
    assert_array_equal(np.sort(np.vstack([split.x_train, split.x_test]), axis=0), data.x_train)
    counts = np.bincount(split.y_test, minlength=4)
    assert counts.max() - counts.min() <= 1
    row = {tuple(x): y for x, y in zip(data.x_train, data.y_train, strict=True)}
    assert all(row[tuple(x)] == y for x, y in zip(split.x_test, split.y_test, strict=True))
    assert split.note == f"ramp; test part replaced by {count} held-out training images (" + (
        "split seed 1)"
    )
    assert len(data.y_test) == 5
    assert_array_equal(split.x_test, data.validation_split(size, seed=1).x_test)


@pytest.mark.parametrize("size", [0, 0.0, 1.0, -1, 6, 0.01, True, "all", np.nan])
def test_validation_split_refuses_improper_sizes(size):
    with pytest.raises(ValueError, match="holds out no proper part of 6 training images"):
        toy([0, 1, 1, 0, 2, 2]).validation_split(size)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((3, 5)), np.zeros(3, int), r"x_train \(3, 5\) .* must be \(n, 4\)"),
        (np.zeros((3, 4)), np.zeros(2, int), r"y_train \(2,\) must be"),
        (np.zeros((0, 4)), np.zeros(0, int), "n > 0, for"),
        (
            np.full((3, 4), 255.0),
            np.zeros(3, int),
            r"spans \[255, 255\]; scale the pixels to \[0, 1\]",
        ),
        (np.full((3, 4), np.nan), np.zeros(3, int), "spans"),
    ],
)
def test_dataset_checks_its_arrays(x, y, message):
    with pytest.raises(ValueError, match=message):
        Dataset("toy", x, y, np.zeros((1, 4)), np.zeros(1, int), (2, 2), "")


# --- MNIST


def test_npz_and_idx_layouts_agree(tmp_path):
    arrays = fake_mnist()
    (tmp_path / "keras").mkdir()
    np.savez_compressed(tmp_path / "keras" / "mnist.npz", **arrays)
    write_idx(tmp_path / "torchvision" / "MNIST" / "raw", arrays)
    write_idx(tmp_path / "parent" / "raw", arrays, packed=True)
    write_idx(tmp_path / "flat", arrays, packed=True)
    expected = load_data("mnist", data_dir=tmp_path / "keras")
    assert_array_equal(expected.y_train, arrays["y_train"])
    assert expected.y_train.dtype == np.int64
    for folder in ("torchvision", "parent", "flat"):
        data = load_data("mnist", data_dir=str(tmp_path / folder))
        assert_array_equal(data.x_train, expected.x_train)
        assert_array_equal(data.x_test, expected.x_test)
        assert_array_equal(data.y_test, expected.y_test)


def test_full_size_keeps_the_pixels(tmp_path):
    arrays = fake_mnist()
    np.savez(tmp_path / "mnist.npz", **arrays)
    data = load_data("mnist", size=28, data_dir=tmp_path)
    assert_array_equal(data.x_test, arrays["x_test"].reshape(20, 784) / 255)
    assert data.note == "MNIST 28x28, 30/20 images"


def test_resize_averages_smoothly(tmp_path, monkeypatch):
    monkeypatch.setattr("mpodis.data._RESIZE_BATCH", 7)  # batches must not show
    arrays = fake_mnist()
    arrays["x_train"][0] = 255
    arrays["x_train"][1] = 0
    arrays["x_train"][2] = np.arange(28, dtype=np.uint8)  # a horizontal ramp
    np.savez(tmp_path / "mnist.npz", **arrays)
    monkeypatch.setenv("MPODIS_DATA", str(tmp_path))
    data = load_data("mnist")
    assert data.note == "MNIST resized to 8x8 (bilinear, antialiased), 30/20 images"
    assert data.image_shape == (8, 8)
    assert data.x_train.min() >= 0
    assert data.x_train.max() <= 1
    assert_allclose(data.x_train[0], 1, atol=1e-6)
    assert_array_equal(data.x_train[1], 0)
    ramp = data.x_train[2].reshape(8, 8)
    assert_allclose(ramp, ramp[:1].repeat(8, axis=0), atol=1e-6)  # rows alike: axes not swapped
    inner = (np.arange(8)[1:-1] + 0.5) * 3.5 - 0.5  # pixel centres; the border is asymmetric
    assert_allclose(ramp[0, 1:-1], inner / 255, atol=1e-4)
    assert load_data("mnist", size=16).x_test.shape == (20, 256)


def test_loading_digits_needs_no_torch():
    code = (
        "import sys, mpodis.data\n"
        "assert 'sklearn' not in sys.modules\n"
        "mpodis.data.load_data()\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what can be wrong


@pytest.mark.parametrize("name", ["cifar10", "MNIST", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="known names: digits, mnist"):
        load_data(name)


@pytest.mark.parametrize("size", [0, -8, 8.0, True])
def test_improper_size(size):
    with pytest.raises(ValueError, match="not a positive integer"):
        load_data("mnist", size=size)


def test_digits_have_one_size():
    with pytest.raises(ValueError, match="size=16: the digits are 8x8"):
        load_data("digits", size=16)


def test_no_folder_given():
    with pytest.raises(FileNotFoundError, match="pass data_dir or set MPODIS_DATA"):
        load_data("mnist")


def test_missing_folder_and_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        load_data("mnist", data_dir=tmp_path / "nowhere")
    arrays = fake_mnist()
    write_idx(tmp_path, arrays)
    (tmp_path / IDX_FILES["y_test"]).unlink()
    with pytest.raises(FileNotFoundError, match="neither mnist.npz nor the four MNIST/raw"):
        load_data("mnist", data_dir=tmp_path)


def damaged_npz(path, kind):
    arrays = fake_mnist()
    if kind == "missing array":
        del arrays["y_test"]
    elif kind == "pickled":
        arrays["y_test"] = np.array([{"a": 1}] * 20, dtype=object)
    if kind == "bare array":
        with path.open("wb") as file:
            np.save(file, arrays["x_test"])
    else:
        np.savez_compressed(path, **arrays)
    raw = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif kind == "flipped":
        middle = len(raw) // 2
        path.write_bytes(raw[:middle] + bytes(64) + raw[middle + 64 :])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")


@pytest.mark.parametrize(
    "kind",
    ["missing array", "pickled", "bare array", "truncated", "flipped", "empty", "text"],
)
def test_damaged_npz(tmp_path, kind):
    path = tmp_path / "mnist.npz"
    damaged_npz(path, kind)
    with pytest.raises(ValueError, match=r"mnist\.npz: not a readable .*fetch it again") as error:
        load_data("mnist", data_dir=tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("x_train", np.zeros((30, 27, 28), np.uint8), r"x_train uint8\(30, 27, 28\)"),
        ("x_test", np.zeros((20, 28, 28)), r"x_test float64"),
        ("y_test", np.zeros(19, np.uint8), r"y_test uint8\(19,\)"),
        ("y_train", np.full(30, 10), "y_train must be integers 0..9"),
        ("y_train", np.zeros(30), "y_train must be integers 0..9"),
    ],
)
def test_wrong_arrays(tmp_path, key, array, message):
    np.savez(tmp_path / "mnist.npz", **{**fake_mnist(), key: array})
    with pytest.raises(ValueError, match=message):
        load_data("mnist", data_dir=tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("keep", [0, 3, 10, 1000])
def test_truncated_idx(tmp_path, packed, keep):
    write_idx(tmp_path, fake_mnist(), packed=packed)
    path = tmp_path / (IDX_FILES["x_train"] + ".gz" * packed)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="train-images.*: not a readable idx file"):
        load_data("mnist", data_dir=tmp_path)


def test_idx_of_another_type(tmp_path):
    write_idx(tmp_path, fake_mnist())
    path = tmp_path / IDX_FILES["x_train"]
    path.write_bytes(b"\x00\x00\x0d" + path.read_bytes()[3:])
    with pytest.raises(ValueError, match="wrong magic number"):
        load_data("mnist", data_dir=tmp_path)
