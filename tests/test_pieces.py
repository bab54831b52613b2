"""Pieces of a long computation: exact, resumed where they are, and never mixed up."""

import json

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpodis.files import save_arrays
from mpodis.store import PieceStore

IDENTITY = {"seed": 3, "depths": (1, 2), "tol": 0.1, "hash": "ab", "limit": float("inf")}
ARRAYS = {
    "float64": np.array([0.1, np.nextafter(1.0, 2.0), -0.0, np.inf]),
    "complex": np.array([[1 + 1e-17j, -0.1j]]),
    "float32": np.array([0.1], np.float32),
    "int": np.arange(6).reshape(2, 3).T,
    "empty": np.zeros((0, 2)),
}
NOTES = {"loss": 0.1 + 0.2, "tiny": 5e-324, "large": 2**70, "tried": {"a b": [1, None, "π"]}}


def store(path, *, kind="test", **changed):
    return PieceStore(path, IDENTITY | changed, kind=kind)


def test_arrays_and_notes_survive_exactly(tmp_path):
    path = tmp_path / "deep" / "run"
    store(path).save("piece-1", ARRAYS, NOTES)
    loaded = store(path).load("piece-1")
    assert loaded is not None
    arrays, notes = loaded
    assert notes == NOTES
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        assert arrays[name].shape == array.shape
        assert arrays[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_an_interrupted_computation_goes_on_where_it_stopped(tmp_path):
    done = []

    def compute(stop_at):
        pieces = store(tmp_path)
        total = np.zeros(2)
        for k in range(4):
            name = f"piece-{k}"
            if (loaded := pieces.load(name)) is None:
                if k == stop_at:
                    raise KeyboardInterrupt
                done.append(k)
                pieces.save(name, {"x": np.array([k, 0.1 * k])}, {"k": k})
                loaded = pieces.load(name)
            assert loaded[1] == {"k": k}
            total += loaded[0]["x"]
        return total

    with pytest.raises(KeyboardInterrupt):
        compute(stop_at=2)
    assert ["piece-1" in store(tmp_path), "piece-2" in store(tmp_path)] == [True, False]
    assert_array_equal(compute(stop_at=None), [6, 0.1 + 0.2 + 0.1 * 3])
    assert done == [0, 1, 2, 3]


def test_a_piece_is_replaced_whole(tmp_path):
    pieces = store(tmp_path)
    pieces.save("one", {"x": np.zeros(3), "y": np.ones(1)}, {"k": 1})
    pieces.save("one", {"x": np.ones(2)}, {})
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "one.safetensors"}
    arrays, notes = pieces.load("one")
    assert_array_equal(arrays.pop("x"), [1, 1])
    assert (arrays, notes) == ({}, {})


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 4}, "test: seed differs"),
        ({"depths": (1, 3), "tol": 0.2}, "test: depths, tol differ;"),
        ({"more": 1}, "test: more differs"),
        ({"kind": "other"}, "a run of test, not of other"),
    ],
)
def test_another_run_is_refused_and_left_alone(tmp_path, changed, named):
    store(tmp_path).save("one", ARRAYS, {})
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(ValueError, match=named) as error:
        store(tmp_path, **changed)
    assert str(tmp_path) in str(error.value)
    assert (tmp_path / "config.json").read_text() == before
    assert "one" in store(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_damaged_piece_is_named(tmp_path, size):
    pieces = store(tmp_path)
    pieces.save("one", ARRAYS, NOTES)
    file = tmp_path / "one.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match="one.safetensors is not a whole safetensors file"):
        pieces.load("one")


def test_a_piece_of_another_run_is_named(tmp_path):
    store(tmp_path / "other", seed=4).save("one", ARRAYS, {})
    pieces = store(tmp_path / "run")
    (tmp_path / "other" / "one.safetensors").rename(tmp_path / "run" / "one.safetensors")
    with pytest.raises(ValueError, match=r"one.safetensors does not belong to this run; delete it"):
        pieces.load("one")
    save_arrays(tmp_path / "run" / "two.safetensors", ARRAYS)
    with pytest.raises(ValueError, match=r"two.safetensors does not belong"):
        pieces.load("two")


def test_a_directory_of_something_else_is_refused(tmp_path):
    save_arrays(tmp_path / "x.safetensors", ARRAYS)
    with pytest.raises(ValueError, match=r"has a x.safetensors but no config.json"):
        store(tmp_path)
    with pytest.raises(ValueError, match="is a file, but results are kept in a directory"):
        store(tmp_path / "x.safetensors")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"format": "something"}))
    with pytest.raises(ValueError, match="a run of another kind, not of test"):
        store(tmp_path)
    config.write_text('{"kind": "te')
    with pytest.raises(ValueError, match=r"config.json is not valid JSON"):
        store(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden"])
def test_names_stay_inside_the_directory(tmp_path, name):
    with pytest.raises(ValueError, match="must be a plain file name"):
        store(tmp_path).save(name, {}, {})
