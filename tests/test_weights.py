"""One matrix out of a user's file: every format, its orientation, and files that lie."""

import gc
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.torch import save_file

from mpodis.weights import SUFFIXES, Weight, load_weight
from reference import random_matrix

W = random_matrix((6, 4))
"""Row action, (inputs, outputs)."""


def write(path, arrays):
    """Named arrays as they are, in the format of the suffix; a single one without a name."""
    if path.suffix == ".npy":
        (array,) = arrays.values()
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        tensors = {name: torch.tensor(array) for name, array in arrays.items()}
        if path.suffix == ".safetensors":
            save_file(tensors, path)
        else:
            torch.save(tensors, path)
    return path


# --- formats


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_only_matrix_needs_no_name(tmp_path, suffix):
    numpy_file = suffix in (".npy", ".npz")
    stored = W if numpy_file else W.T
    found = load_weight(write(tmp_path / f"fc{suffix}", {"fc": np.ascontiguousarray(stored)}))
    assert isinstance(found, Weight)
    assert_array_equal(found.matrix, W)
    assert found.matrix.flags["C_CONTIGUOUS"]
    assert found.matrix.dtype == W.dtype
    assert found.name == "fc"
    order = "(inputs, outputs)" if numpy_file else "(outputs, inputs)"
    assert found.note == f"fc{suffix}: fc, stored as {order}"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("transpose", [False, True])
def test_the_orientation_can_be_told(tmp_path, suffix, transpose):
    path = write(tmp_path / f"fc{suffix}", {"fc": W})
    found = load_weight(str(path), transpose=transpose)
    assert_array_equal(found.matrix, W.T if transpose else W)
    assert ("(outputs, inputs)" in found.note) == transpose


def test_a_linear_layer_keeps_its_row_action(tmp_path):
    linear = torch.nn.Linear(6, 4)
    torch.save(linear.state_dict(), tmp_path / "fc.pt")
    found = load_weight(tmp_path / "fc.pt")  # the bias beside it is no matrix
    x = random_matrix((3, 6)).astype(np.float32)
    expected = linear(torch.tensor(x)).detach().numpy() - linear.bias.detach().numpy()
    assert_allclose(x @ found.matrix, expected, rtol=1e-5, atol=1e-6)
    assert found.name == "weight"


NETWORK = {
    "fc1.weight": W,
    "fc1.bias": np.zeros(4),
    "encoder.0.fc2.weight": random_matrix((3, 5)),
    "conv": np.zeros((2, 2, 2)),
}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        ("fc1", "fc1.weight"),
        ("fc1.weight", "fc1.weight"),
        ("encoder.0.fc2", "encoder.0.fc2.weight"),
        ("conv", "conv"),
    ],
)
def test_a_layer_by_its_name(tmp_path, suffix, layer, name):
    found = load_weight(write(tmp_path / f"net{suffix}", NETWORK), layer=layer, transpose=False)
    assert_array_equal(found.matrix, NETWORK[name])
    assert found.name == name


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
def test_a_name_that_is_not_there_lists_those_that_are(tmp_path, suffix):
    path = write(tmp_path / f"net{suffix}", NETWORK)
    names = "(fc1.weight 6x4, encoder.0.fc2.weight 3x5|encoder.0.fc2.weight 3x5, fc1.weight 6x4)$"
    with pytest.raises(
        ValueError, match=f"net{suffix} has no layer 'fc9'; its matrices are: {names}"
    ):
        load_weight(path, layer="fc9")
    with pytest.raises(ValueError, match=f"has 2 matrices; choose one with layer=, of {names}"):
        load_weight(path)


def test_a_file_without_a_matrix(tmp_path):
    path = write(tmp_path / "net.npz", {"a": np.zeros(3), "b": np.zeros((2, 2, 2))})
    with pytest.raises(ValueError, match="net.npz holds no matrix"):
        load_weight(path)
    with pytest.raises(ValueError, match="no layer 'c'; its matrices are: none"):
        load_weight(path, layer="c")


def test_an_array_that_is_no_matrix_is_left_to_the_caller(tmp_path):
    found = load_weight(write(tmp_path / "cube.npy", {"": np.zeros((2, 3, 4))}))
    assert found.matrix.shape == (2, 3, 4)


@pytest.mark.parametrize(
    ("dtype", "read"),
    [
        (torch.bfloat16, np.float32),
        (torch.float16, np.float32),
        (torch.float8_e4m3fn, np.float32),
        (torch.float32, np.float32),
        (torch.float64, np.float64),
        (torch.complex64, np.complex64),
        (torch.int8, np.float64),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_types_that_numpy_does_not_have(tmp_path, suffix, dtype, read):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save({"fc": tensor}, path)
    else:
        save_file({"fc": tensor}, path)
    found = load_weight(path).matrix
    assert found.dtype == read
    assert_array_equal(found, np.arange(6).reshape(2, 3).T)


def test_tensors_that_are_not_asked_for_are_not_converted(tmp_path):
    sparse = torch.eye(2).to_sparse()
    torch.save({"fc": torch.tensor(W), "strange": sparse}, tmp_path / "a.pt")
    assert_array_equal(load_weight(tmp_path / "a.pt", layer="fc").matrix, W.T)


def test_a_bare_tensor_and_parameters(tmp_path):
    torch.save(torch.tensor(W), tmp_path / "bare.pt")
    assert_array_equal(load_weight(tmp_path / "bare.pt").matrix, W.T)
    assert load_weight(tmp_path / "bare.pt").name == "bare"
    torch.save({"fc": torch.nn.Parameter(torch.tensor(W))}, tmp_path / "a.pth")
    assert_array_equal(load_weight(tmp_path / "a.pth").matrix, W.T)


def test_a_checkpoint_with_dictionaries_inside(tmp_path):
    state = OrderedDict(fc1=OrderedDict(weight=torch.tensor(W)))
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"epoch": 3, "model": state, "optimizer": optimizer}, tmp_path / "a.pt")
    found = load_weight(tmp_path / "a.pt")
    assert found.name == "model.fc1.weight"
    assert_array_equal(load_weight(tmp_path / "a.pt", layer="model.fc1").matrix, found.matrix)


def test_the_older_format_of_torch(tmp_path):
    torch.save({"fc": torch.tensor(W)}, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert_array_equal(load_weight(tmp_path / "a.pt").matrix, W.T)


# --- what is refused


@pytest.mark.parametrize("name", ["absent.npy", "."])
def test_a_missing_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_weight(tmp_path / name)


@pytest.mark.parametrize("suffix", [".txt", "", ".NPY", ".h5"])
def test_an_unknown_type_names_those_that_are_known(tmp_path, suffix):
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(
        ValueError, match=f"a{suffix}: files of type '{suffix}' are not read; .*.npy"
    ):
        load_weight(tmp_path / f"a{suffix}")


def test_a_list_of_tensors_is_no_state_dict(tmp_path):
    torch.save([torch.tensor(W)], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds a list, not a state dict"):
        load_weight(tmp_path / "a.pt")


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def pickled(path, payload):
    path.write_bytes(pickle.dumps(payload))


def object_array(path, payload):
    array = np.empty((1, 1), dtype=object)
    array[0, 0] = payload
    (np.save if path.suffix == ".npy" else np.savez)(path, array)


def state_dict(path, payload):
    torch.save({"fc": payload}, path)


def old_state_dict(path, payload):
    torch.save({"fc": payload}, path, _use_new_zipfile_serialization=False)


def test_the_payload_would_work(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "made")))  # noqa: S301
    assert (tmp_path / "made").is_dir()


@pytest.mark.parametrize(
    ("suffix", "disguise"),
    [
        *((suffix, pickled) for suffix in SUFFIXES),
        (".npy", object_array),
        (".npz", object_array),
        *(
            (suffix, kind)
            for suffix in (".pt", ".pth", ".bin")
            for kind in (state_dict, old_state_dict)
        ),
    ],
)
def test_no_pickle_is_executed(tmp_path, suffix, disguise):
    path = tmp_path / f"a{suffix}"
    disguise(path, Payload(tmp_path / "made"))
    with pytest.raises(
        ValueError, match="cannot be read .*pickled objects, which are never"
    ) as error:
        load_weight(path)
    assert os.listdir(tmp_path) == [path.name]
    # no advice of the libraries on how to load it nevertheless
    assert not any(word in str(error.value) for word in ("unsafe", "trust", "\x1b", "\n"))


def test_a_torch_archive_is_no_npz(tmp_path):
    torch.save({"fc": torch.tensor(W)}, tmp_path / "a.pt")
    (tmp_path / "a.pt").rename(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="a.npz holds no matrix"):
        load_weight(tmp_path / "a.npz")


def test_members_that_are_no_arrays_are_passed_over(tmp_path):
    path = write(tmp_path / "a.npz", {"fc": W})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README", "a note")
    assert_array_equal(load_weight(path).matrix, W)


def whole(path):
    """Bytes of a sound file of every kind."""
    kind = path.name
    if kind == "packed.npz":
        np.savez_compressed(path, fc=W)
    elif kind == "old.pt":
        torch.save({"fc": torch.tensor(W)}, path, _use_new_zipfile_serialization=False)
    else:
        write(path, {"fc": W})
    return path.read_bytes()


KINDS = ("a.npy", "a.npz", "packed.npz", "a.safetensors", "a.pt", "a.pth", "a.bin", "old.pt")


@pytest.fixture
def frozen():
    """What was there before is not collected: that would take longer than the test."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_names_itself(tmp_path, kind):
    path = tmp_path / kind
    data = whole(path)
    for keep in sorted({0, 1, 7, *range(0, len(data), len(data) // 30), len(data) - 1}):
        path.write_bytes(data[:keep])
        with pytest.raises(ValueError, match=f"{kind} cannot be read .*may be truncated"):
            load_weight(path)
    gc.collect()  # a file left open would be a warning here


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(tmp_path, kind):
    path = tmp_path / kind
    data = whole(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for at in rng.integers(len(data), size=3):
            damaged[at] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            load_weight(path)
        except ValueError as error:
            assert "\n" not in str(error)  # noqa: PT017
    gc.collect()
