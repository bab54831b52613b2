"""Image data sets: digits (part of scikit-learn), MNIST and CIFAR-10 (from files).

Importing this module imports neither torch nor scikit-learn; only resizing MNIST needs torch.
"""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpodis.arguments import check_count, is_integer, random_generator

__all__ = ["Dataset", "load_data"]

NAMES = ("digits", "mnist", "cifar10")
SIDES = {"digits": 8, "mnist": 8, "cifar10": 32}
ENVIRONMENT_VARIABLE = "MPODIS_DATA"
DOWNLOADS = {
    "MNIST": "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
    "CIFAR-10": "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (unpacked)",
}
"""Where the files of a data set can be downloaded."""

_DOWNLOAD = "fetch it again, or point data_dir at a good copy"
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)
_RESIZE_BATCH = 5000
"""Images that are resized in one call."""


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Flattened images with labels, split into training and test parts.

    Parameters
    ----------
    name : str
        Short name, e.g. ``"digits"``.
    x_train, x_test : ndarray of float64 (float32 for CIFAR-10), shape (n, features)
        One image per row, row-major pixels, colours last, values in [0, 1].
    y_train, y_test : ndarray of int64, shape (n,)
        Class labels 0, 1, ...
    image_shape : tuple of int
        (height, width) or (height, width, colours), the product of which are the features.
    note : str
        What exactly the data is; quote it with every number measured with it.

    Raises
    ------
    ValueError
        If the shapes do not fit together or a pixel lies outside [0, 1].
    """

    name: str
    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    image_shape: tuple[int, ...]
    note: str

    def __post_init__(self) -> None:
        features = int(np.prod(self.image_shape))
        for part, x, y in (
            ("train", self.x_train, self.y_train),
            ("test", self.x_test, self.y_test),
        ):
            if x.ndim != 2 or x.shape[1] != features or y.shape != x.shape[:1] or len(x) == 0:
                raise ValueError(
                    f"{self.name}: x_{part} {x.shape} and y_{part} {y.shape} must be "
                    f"(n, {features}) and (n,), n > 0, for images of shape {self.image_shape}"
                )
            if not (x.min() >= 0 and x.max() <= 1):  # also true for NaN
                raise ValueError(
                    f"{self.name}: x_{part} spans [{x.min():g}, {x.max():g}]; "
                    "scale the pixels to [0, 1]"
                )

    @property
    def features(self) -> int:
        """Number of pixels of an image."""
        return self.x_train.shape[1]

    @property
    def classes(self) -> int:
        """Number of classes: one more than the largest label."""
        return int(max(self.y_train.max(), self.y_test.max())) + 1

    def validation_split(
        self, size: float | int = 0.1, *, seed: int | np.random.Generator = 0
    ) -> Dataset:
        """Hold out a stratified part of the training set in place of the test set.

        Choose settings with the result, so that the true test set is used once, at the end.

        Parameters
        ----------
        size : float or int
            Fraction of the training images to hold out, or their number.
        seed : int or numpy.random.Generator
            Which images are held out.

        Returns
        -------
        Dataset
            Its ``x_test, y_test`` are training images of this one; it does not have the test
            images.

        Raises
        ------
        ValueError
            For a size that leaves no images to train with, or none to test with.

        Examples
        --------
        >>> load_data("digits").validation_split(0.1)  # doctest: +ELLIPSIS
        Dataset('digits': 1293 train, 144 test, 64 features, 10 classes; ...)
        """
        n = len(self.y_train)
        count = round(size * n) if isinstance(size, float) and 0 < size < 1 else size
        if not is_integer(count) or not 0 < count < n:
            raise ValueError(
                f"size={size!r} holds out no proper part of {n} training images; "
                f"give a fraction in (0, 1) or a number in 1..{n - 1}"
            )
        train, held_out = _stratified_split(self.y_train, int(count), seed)
        return replace(
            self,
            x_train=self.x_train[train],
            y_train=self.y_train[train],
            x_test=self.x_train[held_out],
            y_test=self.y_train[held_out],
            note=f"{self.note}; test part replaced by {count} held-out training images "
            f"({_describe(seed)})",
        )

    def mirrored(self) -> Dataset:
        """The data set with the mirror images (left to right) behind the training images."""
        images = self.x_train.reshape(-1, *self.image_shape)
        flipped = images[:, :, ::-1].reshape(self.x_train.shape)
        return replace(
            self,
            x_train=np.concatenate([self.x_train, flipped]),
            y_train=np.concatenate([self.y_train, self.y_train]),
            note=f"{self.note}; training images also mirrored",
        )

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {len(self.y_train)} train, {len(self.y_test)} test, "
            f"{self.features} features, {self.classes} classes; {self.note})"
        )


def load_data(
    name: str = "digits",
    *,
    size: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int | np.random.Generator = 0,
) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name : {"digits", "mnist", "cifar10"}
        ``"digits"`` is scikit-learn's set of 1797 8x8 digits, split 1437/360 (stratified).
        ``"mnist"`` is MNIST with its own 60000/10000 split, ``"cifar10"`` CIFAR-10 with its own
        50000/10000 split, read from a folder.
    size : int, optional
        Side of the square images. MNIST is resized (bilinear, antialiased), to 8x8 by default,
        except for 28, its own size; the digits are 8x8, CIFAR-10 is 32x32.
    data_dir : path, optional
        Folder with MNIST, as Keras' ``mnist.npz`` or torchvision's ``MNIST/raw/*-ubyte[.gz]``
        (or these files directly); or CIFAR-10, as ``cifar10.npz`` with the same keys or as the
        ``*.bin`` of its binary version, also in ``cifar-10-batches-bin/``. A text ``note`` in the
        npz, on what was done to the images, is quoted. Default: the environment variable
        ``MPODIS_DATA``.
    seed : int or numpy.random.Generator
        Of the split of the digits; not used for MNIST and CIFAR-10, which come with their split.

    Returns
    -------
    Dataset

    Raises
    ------
    ValueError
        For an unknown name, a size that the data set does not have, or a damaged file.
    FileNotFoundError
        If the folder or the files in it are missing.

    Examples
    --------
    >>> load_data("digits").x_train.shape
    (1437, 64)
    """
    if name not in NAMES:
        raise ValueError(f"unknown data set {name!r}; known names: {', '.join(NAMES)}")
    size = SIDES[name] if size is None else size
    check_count("size", size)
    if name == "digits":
        return _load_digits(size, seed)
    if name == "mnist":
        return _load_mnist(int(size), data_dir)
    if size != 32:
        raise ValueError(f"size={size}: the images of CIFAR-10 are 32x32; use size=32")
    return _load_cifar10(_folder("CIFAR-10", data_dir))


def _describe(seed: int | np.random.Generator) -> str:
    return "split by a Generator" if isinstance(seed, np.random.Generator) else f"split seed {seed}"


def _stratified_split(
    labels: np.ndarray, count: int, seed: int | np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (others, chosen) with ``count`` chosen, in proportion to every class's size."""
    order = random_generator(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within each
    # evenly spaced positions of this order take the same fraction of every class
    picked = np.zeros(len(labels), dtype=bool)
    picked[order[(np.arange(count) * 2 + 1) * len(labels) // (2 * count)]] = True
    return np.flatnonzero(~picked), np.flatnonzero(picked)


def _load_digits(size: int, seed: int | np.random.Generator) -> Dataset:
    if size != 8:
        raise ValueError(f"size={size}: the digits are 8x8 images; use size=8, or name='mnist'")
    from sklearn.datasets import load_digits

    loaded: Any = load_digits(return_X_y=True)
    pixels, labels = loaded
    x, y = pixels / 16.0, labels.astype(np.int64)
    train, test = _stratified_split(y, 360, seed)
    return Dataset(
        name="digits",
        x_train=x[train],
        y_train=y[train],
        x_test=x[test],
        y_test=y[test],
        image_shape=(8, 8),
        note=f"scikit-learn digits, 1797 images 8x8, stratified {len(train)}/{len(test)} split, "
        f"{_describe(seed)}",
    )


def _load_mnist(size: int, data_dir: str | os.PathLike[str] | None) -> Dataset:
    arrays = _read_mnist(_folder("MNIST", data_dir))
    resized = "28x28" if size == 28 else f"resized to {size}x{size} (bilinear, antialiased)"
    return Dataset(
        name="mnist",
        x_train=_resize(arrays["x_train"], size),
        y_train=arrays["y_train"].astype(np.int64),
        x_test=_resize(arrays["x_test"], size),
        y_test=arrays["y_test"].astype(np.int64),
        image_shape=(size, size),
        note=f"MNIST {resized}, {len(arrays['y_train'])}/{len(arrays['y_test'])} images",
    )


def _resize(images: np.ndarray, size: int) -> np.ndarray:
    """Bytes (n, 28, 28) to float64 (n, size * size) in [0, 1]."""
    if images.shape[1:] == (size, size):
        return images.reshape(len(images), -1) / 255.0
    import torch
    from torch.nn.functional import interpolate

    out = np.empty((len(images), size * size))
    for i in range(0, len(images), _RESIZE_BATCH):
        batch = torch.from_numpy(images[i : i + _RESIZE_BATCH, None].astype(np.float32) / 255)
        small = interpolate(batch, size=(size, size), mode="bilinear", antialias=True)
        out[i : i + _RESIZE_BATCH] = small.reshape(len(small), -1).numpy()
    return out.clip(0, 1, out=out)  # rounding can give values just above 1


def _load_cifar10(folder: Path) -> Dataset:
    archive = folder / "cifar10.npz"
    arrays, note = _read_cifar_npz(archive) if archive.exists() else (_read_cifar_bins(folder), "")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3) or y.shape != x.shape[:1]:
            raise ValueError(
                f"{folder}: x_{part} {x.dtype}{x.shape} and y_{part} {y.dtype}{y.shape} must be "
                f"uint8 (n, 32, 32, 3) and integer (n,); {_DOWNLOAD}"
            )
        if len(x) == 0 or y.dtype.kind not in "iu" or y.min() < 0 or y.max() > 9:
            raise ValueError(f"{folder}: y_{part} must be integers 0..9, at least one; {_DOWNLOAD}")
    x_train, x_test = (
        np.divide(x.reshape(len(x), -1), 255, dtype=np.float32)  # half the memory of double
        for x in (arrays["x_train"], arrays["x_test"])
    )
    note = f"CIFAR-10, {len(x_train)}/{len(x_test)} images" + (f", {note}" if note else "")
    labels = (arrays[f"y_{part}"].astype(np.int64) for part in ("train", "test"))
    y_train, y_test = labels
    return Dataset("cifar10", x_train, y_train, x_test, y_test, (32, 32, 3), note)


def _read_cifar_npz(path: Path) -> tuple[dict[str, np.ndarray], str]:
    arrays = _read_npz(path)
    for part in ("train", "test"):
        arrays[f"y_{part}"] = arrays[f"y_{part}"].reshape(-1)  # Keras stores columns
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return arrays, str(archive["note"]) if "note" in archive.files else ""


def _read_cifar_bins(folder: Path) -> dict[str, np.ndarray]:
    """The binary version: each image is a label and 3072 bytes, colour by colour."""
    names = {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]}
    every = [name for part in names.values() for name in part]
    places = (folder / "cifar-10-batches-bin", folder)
    place = next((p for p in places if all((p / name).is_file() for name in every)), None)
    if place is None:
        raise FileNotFoundError(
            f"{folder}: neither cifar10.npz nor data_batch_1.bin ... test_batch.bin are here; "
            f"fix data_dir or {ENVIRONMENT_VARIABLE} (the pickled version is not read)"
        )
    arrays = {}
    for part, files in names.items():
        raw = np.concatenate([np.fromfile(place / name, np.uint8) for name in files])
        if raw.size % 3073:
            raise ValueError(
                f"{place}: the {part} files hold no whole number of images; {_DOWNLOAD}"
            )
        rows = raw.reshape(-1, 3073)
        arrays[f"y_{part}"] = rows[:, 0]
        arrays[f"x_{part}"] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return arrays


def _folder(what: str, data_dir: str | os.PathLike[str] | None) -> Path:
    given = data_dir or os.environ.get(ENVIRONMENT_VARIABLE)
    if not given:
        raise FileNotFoundError(
            f"{what} needs a folder of its files, for example {DOWNLOADS[what]}: pass data_dir or "
            f"set {ENVIRONMENT_VARIABLE}; 'digits' needs none"
        )
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; pass the one that holds {what}, {DOWNLOADS[what]}"
        )
    return folder


def _read_mnist(folder: Path) -> dict[str, np.ndarray]:
    """MNIST from a folder in any of the known layouts, checked."""
    archive = folder / "mnist.npz"
    if archive.exists():
        arrays, source = _read_npz(archive), archive
    else:
        arrays, source = _read_idx_files(folder)
    for part in ("train", "test"):
        _check_mnist(arrays[f"x_{part}"], arrays[f"y_{part}"], part, source)
    return arrays


def _check_mnist(x: np.ndarray, y: np.ndarray, part: str, source: Path) -> None:
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28) or y.shape != x.shape[:1] or len(x) == 0:
        raise ValueError(
            f"{source}: x_{part} {x.dtype}{x.shape} and y_{part} {y.dtype}{y.shape} must be "
            f"uint8 (n, 28, 28) and integer (n,) with n > 0; {_DOWNLOAD}"
        )
    if y.dtype.kind not in "iu" or y.min() < 0 or y.max() > 9:
        raise ValueError(f"{source}: y_{part} must be integers 0..9; {_DOWNLOAD}")


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        # opened here, since np.load does not close a truncated archive
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: np.asarray(archive[key]) for key in keys}
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not readable ({reason}); {_DOWNLOAD}") from error


def _read_idx_files(folder: Path) -> tuple[dict[str, np.ndarray], Path]:
    files = {
        "x_train": "train-images-idx3-ubyte",
        "y_train": "train-labels-idx1-ubyte",
        "x_test": "t10k-images-idx3-ubyte",
        "y_test": "t10k-labels-idx1-ubyte",
    }
    for place in (folder / "MNIST" / "raw", folder / "raw", folder):
        found = {key: _plain_or_gz(place / file) for key, file in files.items()}
        paths = {key: path for key, path in found.items() if path is not None}
        if len(paths) == len(files):
            return {key: _read_idx(path) for key, path in paths.items()}, place
    raise FileNotFoundError(
        f"{folder}: neither mnist.npz nor the four MNIST/raw/*-ubyte[.gz] files are here; fix "
        f"data_dir or {ENVIRONMENT_VARIABLE}, take {DOWNLOADS['MNIST']}, or use name='digits'"
    )


def _plain_or_gz(path: Path) -> Path | None:
    for candidate in (path, path.with_name(path.name + ".gz")):
        if candidate.is_file():
            return candidate
    return None


def _read_idx(path: Path) -> np.ndarray:
    """The array in an idx file: bytes 0, 0, 8 (the type), ndim, big-endian sizes, then the data."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
            raise ValueError("wrong magic number")
        offset = 4 + 4 * raw[3]
        shape = np.frombuffer(raw, dtype=">u4", count=raw[3], offset=4).astype(int)
        return np.frombuffer(raw, dtype=np.uint8, offset=offset).reshape(shape)
    except _UNREADABLE as error:
        raise ValueError(f"{path}: not a readable idx file ({error}); {_DOWNLOAD}") from error
