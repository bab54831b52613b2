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


def fake_cifar10(n_train=20, n_test=3, seed=0):
    """As Keras has it: labels are columns."""
    rng = np.random.default_rng(seed)
    return {
        "x_train": rng.integers(0, 256, (n_train, 32, 32, 3), dtype=np.uint8),
        "y_train": (np.arange(n_train, dtype=np.uint8) % 10)[:, None],
        "x_test": rng.integers(0, 256, (n_test, 32, 32, 3), dtype=np.uint8),
        "y_test": np.arange(9, 9 - n_test, -1, dtype=np.uint8)[:, None],
    }


BATCHES = [f"data_batch_{k}.bin" for k in range(1, 6)]


def write_bins(folder, arrays):
    """A label and three planes of colour for every image."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, names in (("train", BATCHES), ("test", ["test_batch.bin"])):
        planes = arrays[f"x_{part}"].transpose(0, 3, 1, 2).reshape(len(arrays[f"x_{part}"]), -1)
        rows = np.hstack([arrays[f"y_{part}"].reshape(-1, 1), planes]).astype(np.uint8)
        for name, some in zip(names, np.array_split(rows, len(names)), strict=True):
            (folder / name).write_bytes(some.tobytes())


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


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2)])
def test_mirrored_training_images_follow_the_others(shape):
    features = int(np.prod(shape))
    x = np.linspace(0, 1, 5 * features).reshape(5, features)
    y = np.array([0, 1, 2, 1, 0])
    data = Dataset("toy", x[:4], y[:4], x[4:], y[4:], shape, "ramp")
    both = data.mirrored()
    assert_array_equal(both.x_train[:4], data.x_train)
    for image, other in zip(data.x_train, both.x_train[4:], strict=True):
        image, other = image.reshape(shape), other.reshape(shape)
        for column in range(3):
            assert_array_equal(other[:, column], image[:, 2 - column])
    assert_array_equal(both.y_train, [0, 1, 2, 1, 0, 1, 2, 1])
    assert_array_equal(both.x_test, data.x_test)
    assert both.note == "ramp; training images also mirrored"
    assert data.note == "ramp"
    assert len(data.y_train) == 4


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


# --- CIFAR-10


@pytest.mark.parametrize(
    ("note", "said"), [({}, ""), ({"note": "made of noise"}, ", made of noise")]
)
@pytest.mark.parametrize("columns", [True, False])
def test_cifar10_from_one_archive(tmp_path, note, said, columns):
    arrays = fake_cifar10()
    if not columns:
        arrays |= {key: arrays[key].ravel() for key in ("y_train", "y_test")}
    np.savez(tmp_path / "cifar10.npz", **arrays, **note)
    data = load_data("cifar10", data_dir=tmp_path)
    assert (data.name, data.image_shape, data.features) == ("cifar10", (32, 32, 3), 3072)
    assert data.x_train.dtype == data.x_test.dtype == np.float32
    assert_allclose(data.x_train, arrays["x_train"].reshape(20, -1) / 255, rtol=1e-6)
    assert_allclose(data.x_test, arrays["x_test"].reshape(3, -1) / 255, rtol=1e-6)
    assert data.y_train.dtype == np.int64
    assert_array_equal(data.y_train, [*range(10), *range(10)])
    assert_array_equal(data.y_test, [9, 8, 7])
    assert data.note == f"CIFAR-10, 20/3 images{said}"


def test_archive_and_binary_files_of_cifar10_agree(tmp_path, monkeypatch):
    arrays = fake_cifar10(n_train=7)  # files of different sizes
    (tmp_path / "keras").mkdir()
    np.savez_compressed(tmp_path / "keras" / "cifar10.npz", **arrays)
    write_bins(tmp_path / "official" / "cifar-10-batches-bin", arrays)
    write_bins(tmp_path / "flat", arrays)
    expected = load_data("cifar10", data_dir=tmp_path / "keras")
    for folder in ("official", "flat"):
        monkeypatch.setenv("MPODIS_DATA", str(tmp_path / folder))
        data = load_data("cifar10", size=32)
        for key in ("x_train", "y_train", "x_test", "y_test"):
            assert_array_equal(getattr(data, key), getattr(expected, key))
        assert data.note == expected.note == "CIFAR-10, 7/3 images"


@pytest.mark.parametrize("size", [8, 28])
def test_cifar10_has_one_size(size, tmp_path):
    with pytest.raises(ValueError, match=f"size={size}: the images of CIFAR-10 are 32x32; use"):
        load_data("cifar10", size=size, data_dir=tmp_path)


def test_cifar10_needs_its_folder_and_all_its_files(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match="CIFAR-10 needs a folder of its files, .*cifar-10-binary.*: pass data_dir or set",
    ):
        load_data("cifar10")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder; .* holds CIFAR-10"):
        load_data("cifar10", data_dir=tmp_path / "nowhere")
    write_bins(tmp_path, fake_cifar10())
    for name in ("test_batch.bin", "data_batch_3.bin"):
        (tmp_path / name).rename(tmp_path / "aside")
        with pytest.raises(FileNotFoundError, match="neither cifar10.npz nor data_batch_1.bin"):
            load_data("cifar10", data_dir=tmp_path)
        (tmp_path / "aside").rename(tmp_path / name)
    assert len(load_data("cifar10", data_dir=tmp_path).y_train) == 20


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("x_train", np.zeros((20, 3, 32, 32), np.uint8), r"x_train uint8\(20, 3, 32, 32\)"),
        ("x_test", np.zeros((3, 32, 32, 3)), r"x_test float64\(3, 32, 32, 3\)"),
        ("y_test", np.zeros((2, 1), np.uint8), r"y_test uint8\(2,\) must be"),
        ("y_train", np.zeros((20, 10), np.uint8), r"y_train uint8\(200,\) must be"),
        ("y_train", np.full((20, 1), 10), "y_train must be integers 0..9"),
        ("y_train", np.full((20, 1), -1), "y_train must be integers 0..9"),
        ("y_test", np.zeros((3, 1)), "y_test must be integers 0..9"),
    ],
)
def test_wrong_arrays_of_cifar10(tmp_path, key, array, message):
    np.savez(tmp_path / "cifar10.npz", **{**fake_cifar10(), key: array})
    with pytest.raises(ValueError, match=message) as error:
        load_data("cifar10", data_dir=tmp_path)
    assert str(error.value).endswith("fetch it again, or point data_dir at a good copy")


@pytest.mark.parametrize("part", ["train", "test"])
def test_no_images_of_cifar10(tmp_path, part):
    arrays = fake_cifar10()
    empty = {key: arrays[key][:0] for key in (f"x_{part}", f"y_{part}")}
    np.savez(tmp_path / "cifar10.npz", **arrays | empty)
    with pytest.raises(ValueError, match=f"y_{part} must be integers 0..9, at least one"):
        load_data("cifar10", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "part"), [("data_batch_5.bin", "train"), ("test_batch.bin", "test")]
)
def test_damaged_binary_files_of_cifar10(tmp_path, name, part):
    write_bins(tmp_path, fake_cifar10())
    path = tmp_path / name
    raw = path.read_bytes()
    path.write_bytes(raw[:-100])
    with pytest.raises(ValueError, match=f"the {part} files hold no whole number of images"):
        load_data("cifar10", data_dir=tmp_path)
    path.write_bytes(b"\x0a" + raw[1:])
    with pytest.raises(ValueError, match=f"y_{part} must be integers 0..9"):
        load_data("cifar10", data_dir=tmp_path)


# --- what can be wrong


@pytest.mark.parametrize("name", ["cifar100", "MNIST", ""])
def test_unknown_name(name):
    with pytest.raises(ValueError, match="known names: digits, mnist, cifar10"):
        load_data(name)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10"])
@pytest.mark.parametrize("size", [0, -8, 8.0, True])
def test_improper_size(name, size):
    with pytest.raises(ValueError, match="must be a whole number, 1 or more"):
        load_data(name, size=size)


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


def damaged_npz(path, kind, arrays):
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
@pytest.mark.parametrize(("name", "fake"), [("mnist", fake_mnist), ("cifar10", fake_cifar10)])
def test_damaged_npz(tmp_path, kind, name, fake):
    damaged_npz(tmp_path / f"{name}.npz", kind, fake())
    with pytest.raises(ValueError, match=rf"{name}\.npz: not readable .*fetch it again") as error:
        load_data(name, data_dir=tmp_path)
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
