"""The directory of a run: what it keeps, and what is refused."""

from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import mpodis.disentangling as run_module
from mpodis.disentangling import disentangle, resume
from mpodis.files import load_arrays, read_json
from mpodis.mpo import compress
from mpodis.optimise import search
from mpodis.optimise.state import KEPT
from mpodis.options import SearchOptions
from reference import random_matrix
from runs import arrays, assert_same_result, lines

FILES = ("config.json", "history.jsonl", "checkpoint.safetensors", "problem.safetensors")


@cache
def operator(*shape, is_complex=False):
    return compress(random_matrix(shape, is_complex, 1)).mpo


OPTIONS = {"left": 1, "n_init": 2, "init_sweeps": 1, "max_sweeps": 2, "tol": 0.0}


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every sweep."""
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.usefixtures("often")
def test_a_run_keeps_its_problem_history_and_settings(tmp_path):
    result = disentangle(operator(8, 8), **OPTIONS, run_dir=tmp_path / "a" / "b")
    path = tmp_path / "a" / "b"
    assert all((path / name).is_file() for name in FILES)
    assert [list(x) for x in lines(path)] == [list(x) for x in result.history.records]
    config = read_json(path / "config.json")
    assert SearchOptions.from_dict(config["options"]) == result.options
    assert_same_result(result, disentangle(operator(8, 8), **OPTIONS))


def test_a_finished_run_is_only_read(tmp_path, monkeypatch):
    x = random_matrix((20, 8), seed=2)
    given = {**OPTIONS, "run_dir": tmp_path, "inputs": x, "objective": "activations"}
    first = disentangle(operator(8, 8), **given)
    monkeypatch.setattr(search, "StageRun", None)
    whole = given | {"tol": 0}  # not 0.0
    for again in (
        resume(tmp_path),
        disentangle(operator(8, 8), **given),
        disentangle(operator(8, 8), **whole),
        resume(str(tmp_path)),
    ):
        assert_same_result(again, first)
        assert again.seconds == first.seconds
        assert again.activation_error == first.activation_error


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed differs"),
        ({"tol": 0.5, "n_init": 3}, "n_init, tol differ"),
        ({"left": 2}, "left, right differ"),
        ({"right": 2}, "right differs"),
        ({"group": "O"}, "left, right differ"),
        ({"inputs": np.eye(8)}, "fingerprint differs"),
        ({"operator": compress(np.eye(8)).mpo}, "fingerprint differs"),
        ({"operator": operator(8, 4)}, "fingerprint, right, shape differ"),
        ({"shape": (7, 8)}, "shape differs"),
    ],
)
def test_another_run_in_the_same_directory_is_an_error(tmp_path, change, named):
    options = {"operator": operator(8, 8), **OPTIONS, "run_dir": tmp_path}
    disentangle(**options)
    before = {name: (tmp_path / name).read_bytes() for name in FILES}
    text = rf"holds another run \(its {named}\); choose another run_dir, or delete this one"
    with pytest.raises(ValueError, match=text):
        disentangle(**{**options, **change})
    assert before == {name: (tmp_path / name).read_bytes() for name in FILES}


def test_a_directory_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is not a run: it has no config.json"):
        resume(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config.json"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="does not hold a run of `disentangle`"):
        resume(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is not valid JSON"):
        resume(tmp_path)


def test_arrays_of_another_run_are_refused(tmp_path):
    for name, mpo in (("a", operator(8, 8)), ("b", compress(np.eye(8)).mpo)):
        disentangle(mpo, **OPTIONS, run_dir=tmp_path / name)
    other = (tmp_path / "b" / "problem.safetensors").read_bytes()
    (tmp_path / "a" / "problem.safetensors").write_bytes(other)
    with pytest.raises(ValueError, match="the arrays of .* do not belong to its config.json"):
        resume(tmp_path / "a")


def test_a_raised_limit_lets_a_run_go_on(tmp_path):
    options = {"left": 2, "n_init": 1, "method": "sweeps", "tol": 0.0, "init": "identity"}
    short = disentangle(operator(16, 16), **options, max_sweeps=5, run_dir=tmp_path)
    assert short.status == "max_sweeps"
    longer = disentangle(operator(16, 16), **options, max_sweeps=9, run_dir=tmp_path)
    assert_same_result(longer, disentangle(operator(16, 16), **options, max_sweeps=9))
    assert resume(tmp_path).options.max_sweeps == 9
    # a lower one changes nothing of what was done
    assert_same_result_of_gates(
        disentangle(operator(16, 16), **options, max_sweeps=2, run_dir=tmp_path), longer
    )


@pytest.mark.no_cover  # long; checkpoints are traced elsewhere
@pytest.mark.parametrize("more", [{"method": "sweeps"}, {"engine": "boundary"}, {}])
def test_checkpoints_of_long_runs_are_no_larger_and_go_on_the_same(tmp_path, more):
    options = {"left": 3, "n_init": 1, "tol": 0.0, "init": "identity", **more}
    sizes = []
    for sweeps in (80, 130):
        found = disentangle(operator(16, 16), **options, max_sweeps=sweeps, run_dir=tmp_path)
        assert found.status == "max_sweeps"
        kept, _ = load_arrays(tmp_path / "checkpoint.safetensors")
        sizes.append({name: array.nbytes for name, array in kept.items()})
    assert sizes[0] == sizes[1]
    assert sizes[0]["losses"] == 8 * KEPT
    assert_same_result(found, disentangle(operator(16, 16), **options, max_sweeps=130))


def test_a_raised_limit_lets_the_last_stage_of_a_growing_run_go_on(tmp_path):
    options = {"left": 3, "n_init": 1, "method": "sweeps", "tol": 0.0, "init": "grown"}
    short = disentangle(operator(16, 16), **options, max_sweeps=5, run_dir=tmp_path)
    longer = disentangle(operator(16, 16), **options, max_sweeps=50, run_dir=tmp_path)
    assert longer.overlap > short.overlap
    assert len(longer.history) == len(short.history) + 9  # a fifth of the sweeps


def assert_same_result_of_gates(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        assert_array_equal(x, y)


def test_a_checkpoint_without_its_config_is_refused(tmp_path):
    disentangle(operator(4, 4), depth=1, n_init=1, max_sweeps=2, run_dir=tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has a checkpoint\S* but no config.json"):
        disentangle(operator(4, 4), depth=1, n_init=1, max_sweeps=2, run_dir=tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "activations"}, "needs to know the layer's inputs"),
        ({"covariance": np.eye(4), "sensitivity": np.eye(4)}, "use objective='activations'"),
        ({"left": 0}, "depth=0"),
        ({"covariance": np.full((4, 4), np.nan)}, "NaN"),
    ],
)
def test_what_is_refused_leaves_no_directory(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        disentangle(
            **{"operator": operator(4, 4), "left": 1, "run_dir": tmp_path / "run", **options}
        )
    assert not list(tmp_path.iterdir())
