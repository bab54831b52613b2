"""Files: atomic, bit-identical, and clear about what they are not."""

import json
import math
import os
import stat

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpodis.files import (
    append_lines,
    array_metadata,
    load_arrays,
    read_json,
    read_lines,
    save_arrays,
    write_atomic,
    write_json,
)
from reference import random_matrix

ARRAYS = {
    "float64": random_matrix((3, 4)),
    "float32": random_matrix((5,)).astype(np.float32),
    "float16": random_matrix((2, 2)).astype(np.float16),
    "complex128": random_matrix((2, 3), True),
    "complex64": random_matrix((2, 1, 2), True).astype(np.complex64),
    "int64": np.arange(6).reshape(2, 3),
    "uint8": np.arange(4, dtype=np.uint8),
    "bool": np.array([True, False]),
    "scalar": np.array(3.25),
    "complex scalar": np.array(1.5 - 2.5j),
    "empty": np.zeros((0, 3)),
    "empty complex": np.zeros((2, 0), dtype=complex),
    "big endian": np.arange(3, dtype=">f8"),
    "transposed": random_matrix((3, 4)).T,
    "strided": random_matrix((6, 6))[::2, 1::3],
    "reversed": random_matrix((2, 5), True)[:, ::-1],
    "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
    "NaN": np.array([np.nan, np.inf, -np.inf, -0.0]),
    "complex NaN": np.array([complex(np.nan, 1), complex(1, np.inf), complex(-0.0, -0.0)]),
}


def bits(array):
    """Bytes of the values, in the machine's own byte order."""
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="))).tobytes()


def parts(folder):
    return [path.name for path in folder.iterdir() if path.name.endswith(".part")]


# --- writing


@pytest.mark.parametrize("content", ["a line\n", b"\x00\xff"])
def test_write_replaces_and_leaves_nothing_beside(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("old")
    write_atomic(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_are_readable_as_the_umask_says(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomic(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize("broken", ["os.fsync", "os.replace"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch, broken, error):
    def fail(*args):
        raise error("disk full")

    path = tmp_path / "state.json"
    write_json(path, {"round": 1})
    with monkeypatch.context() as patch:
        patch.setattr(broken, fail)
        with pytest.raises(error, match="disk full"):
            write_json(path, {"round": 2})
        with pytest.raises(error, match="disk full"):
            save_arrays(path, ARRAYS)
    assert read_json(path) == {"round": 1}
    assert parts(tmp_path) == []


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        write_atomic(tmp_path / "absent" / "file", "x")


# --- JSON


def test_json_round_trip(tmp_path):
    value = {"name": "run", "seed": 1, "list": [1.5, None, True], "inf": float("inf")}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value


def test_json_that_cannot_be_written_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"array": np.zeros(1)})
    assert read_json(path) == 1


@pytest.mark.parametrize("content", [b'{"round": 1', b"", b"\xff\xfe\x00"])
def test_broken_json_names_its_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json is not valid JSON .*it may be truncated"):
        read_json(tmp_path / "a.json")


def test_missing_json(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file .*a.json"):
        read_json(tmp_path / "a.json")


# --- arrays


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_come_back_bit_identical(tmp_path, name):
    array = ARRAYS[name]
    save_arrays(tmp_path / "a", {name: array})
    back = load_arrays(tmp_path / "a")[0][name]
    assert back.dtype == array.dtype.newbyteorder("=")
    assert back.shape == array.shape
    assert bits(back) == bits(array)


def test_many_arrays_and_metadata_in_one_file(tmp_path):
    metadata = {"format": "a test", "shape": json.dumps([2, 3])}
    save_arrays(tmp_path / "a", ARRAYS, metadata=metadata)
    arrays, header = load_arrays(str(tmp_path / "a"))
    assert header == metadata
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert_array_equal(arrays[name], array)


def test_a_file_of_someone_else_is_read_without_metadata(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.arange(3.0)}, tmp_path / "a")
    arrays, header = load_arrays(tmp_path / "a")
    assert header == {}
    assert_array_equal(arrays["w"], np.arange(3.0))


def test_what_does_not_read_back_is_not_written(tmp_path, monkeypatch):
    save_arrays(tmp_path / "a", {"w": np.zeros(2)})
    monkeypatch.setattr("safetensors.numpy.load", lambda data: {"w": np.ones(2)})
    with pytest.raises(OSError, match="array 'w' did not survive being written to .*a"):
        save_arrays(tmp_path / "a", {"w": np.full(2, 2.0)})
    monkeypatch.undo()
    assert_array_equal(load_arrays(tmp_path / "a")[0]["w"], np.zeros(2))


def whole_file(tmp_path):
    save_arrays(tmp_path / "whole", {"w": random_matrix((8, 8))})
    return (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_truncated_file_names_itself(tmp_path, keep):
    (tmp_path / "short").write_bytes(whole_file(tmp_path)[:keep])
    with pytest.raises(ValueError, match="short is not a whole safetensors file"):
        load_arrays(tmp_path / "short")


@pytest.mark.parametrize(
    "content",
    [
        b"garbage" * 40,
        b"\x80\x05\x95\x0c\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02K\x03e.",  # a pickled list
        b"PK\x03\x04" + bytes(200),  # how a zip archive, such as torch's, begins
        b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    ],
)
def test_what_is_not_safetensors_names_itself(tmp_path, content):
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(ValueError, match="foreign is not a whole safetensors file"):
        load_arrays(tmp_path / "foreign")


@pytest.mark.parametrize("name", ["absent", "."])
def test_no_such_file(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_arrays(tmp_path / name)


# --- what vouches for itself


def append_in_two(path):
    last = append_lines(path, [{"sweep": 0, "loss": 2.5e-7, "name": "é"}], "of a run")
    append_lines(path, [{"sweep": 1, "loss": math.inf}], last)


FILES = {
    "arrays": (
        lambda path: save_arrays(
            path,
            {"w": random_matrix((2, 2), True), "none": np.zeros((0, 1))},
            metadata={"name": "é", "numbers": json.dumps([1e-7, None])},
        ),
        load_arrays,
    ),
    "header": (
        lambda path: save_arrays(path, {"empty": np.zeros(0)}, metadata={"name": "é"}),
        array_metadata,
    ),
    "json": (
        lambda path: write_json(path, {"name": "é", "list": [1e-7, math.nan], "d": {"a": None}}),
        read_json,
    ),
    "empty json": (lambda path: write_json(path, {}), read_json),
    "lines": (append_in_two, lambda path: read_lines(path, 2, "of a run")),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_flipped_bit_is_an_error_that_names_the_file(tmp_path, kind):
    write, read = FILES[kind]
    path = tmp_path / "a.safetensors"
    write(path)
    read(path)
    data = path.read_bytes()
    for bit in range(0, 8 * len(data), 7):  # all take half a minute
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="a.safetensors"):
            read(path)


@pytest.mark.parametrize("kind", FILES)
def test_every_truncation_is_an_error_that_names_the_file(tmp_path, kind):
    write, read = FILES[kind]
    path = tmp_path / "a.safetensors"
    write(path)
    data = path.read_bytes()
    # the last byte of JSON is the end of a line
    for length in range(len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="a.safetensors"):
            read(path)


def test_the_same_arrays_are_the_same_bytes(tmp_path):
    metadata = {name: name for name in "abcdefgh"}
    for name in ("a", "b"):
        save_arrays(tmp_path / name, ARRAYS, metadata=metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_json_of_others_is_read_without_a_checksum(tmp_path):
    value = {"name": "a record", "loss": 0.5}
    (tmp_path / "a.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError, match="the key 'checksum' is that of the file's own"):
        write_json(tmp_path / "a.json", {"checksum": 1})


@pytest.mark.parametrize("change", ["missing", "twice", "swapped", "of another"])
def test_lines_are_in_their_order_and_of_their_history(tmp_path, change):
    path = tmp_path / "history.jsonl"
    append_lines(path, [{"sweep": k} for k in range(4)], "one run")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines) + '{"sweep": 4, "ch')  # of a process that was killed
    assert [record["sweep"] for record in read_lines(path, 4, "one run")[0]] == [0, 1, 2, 3]
    changed = {
        "missing": [lines[0], *lines[2:], lines[3]],
        "twice": [lines[0], *lines],
        "swapped": [lines[1], lines[0], *lines[2:]],
        "of another": lines,
    }[change]
    path.write_text("".join(changed))
    with pytest.raises(ValueError, match=r"line \d of .*history.jsonl is damaged, or belongs to"):
        read_lines(path, 4, "another run" if change == "of another" else "one run")
    path.write_text(lines[0])
    with pytest.raises(ValueError, match="history.jsonl has 1 lines, but 4 were written"):
        read_lines(path, 4, "one run")
