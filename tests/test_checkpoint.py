"""A run that is interrupted anywhere ends, bit by bit, where it would have ended."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from quimb.tensor import MatrixProductOperator

import mpodis.disentangling as run_module
from mpodis.disentangling import disentangle, resume
from mpodis.files import save_arrays
from mpodis.mpo import compress
from mpodis.optimise.state import State
from mpodis.options import SearchOptions
from mpodis.sites import site_tensors
from mpodis.store import RunStore
from reference import random_matrix
from runs import assert_same_result, lines
from searching import Stepper, build

FILES = ("config.json", "history.jsonl", "checkpoint.safetensors", "problem.safetensors")


@cache
def operator(*shape, is_complex=False):
    return compress(random_matrix(shape, is_complex, 1)).mpo


def strided(mpo):
    """The same operator with arrays that are not contiguous."""
    first, *rest = (np.ascontiguousarray(c.transpose(0, 3, 1, 2)) for c in site_tensors(mpo))
    return MatrixProductOperator([first[0], *rest[:-1], rest[-1][:, 0]], shape="lrud")


# --- stopped between two sweeps


RAMP = np.diag(1 / np.arange(1.0, 9) ** 2) + 0.01
SHORT = {"n_init": 2, "init_sweeps": 3, "max_sweeps": 10, "tol": 1e-2, "max_bond": 2}
RUNS = {
    "auto": ({}, {"max_sweeps": 20, "tol": 0.05}),
    "complex L-BFGS": ({"group": "U", "is_complex": True}, {"method": "lbfgs"}),
    "sweeps, fixed core": ({"group": "O"}, {"method": "sweeps", "core": "fixed"}),
    "random starts": ({}, {"init": "random", "n_init": 3}),
    "one start": ({}, {"n_init": 1}),
    "grown": ({"left": 3}, {"init": "grown", "max_sweeps": 4, "init_sweeps": 2}),
    "activations": ({"covariance": RAMP}, {"objective": "activations"}),
    "activations, Fortran": (
        {"covariance": np.asfortranarray(RAMP + 1e-3 * np.tri(8) @ np.tri(8).T)},
        {"objective": "activations"},
    ),
    "sensitivity": ({"covariance": RAMP, "sensitivity": RAMP.T}, {"objective": "activations"}),
    "tree": ({"left": 1}, {"engine": "tree", "method": "sweeps", "max_sweeps": 5}),
    "transverse": ({"left": 2}, {"engine": "transverse"}),
    "boundary": (
        {"left": 2},
        {"engine": "boundary", "environment_bond": (12, 16), "max_sweeps": 25, "tol": 0.2},
    ),
    "strided": ({"strided": True}, {}),
}


@pytest.mark.no_cover  # hundreds of searches; those of damaged files are traced
@pytest.mark.parametrize("name", RUNS)
def test_stopped_after_any_sweep(name, tmp_path):
    given, options = RUNS[name]
    given = dict(given)
    mpo = operator(8, 8, is_complex=given.pop("is_complex", False))
    mpo = strided(mpo) if given.pop("strided", False) else mpo
    problem, settings = (
        build(mpo, **given),
        SearchOptions(**{"init": "identity", **SHORT, **options}),
    )
    run, seen, stopped = Stepper(problem, settings), {}, []
    settings, record = run.search.options, {}
    while True:
        state, count = run.state, len(run.state.records)
        # every state that is new, and some that are not
        kind = (state.phase, state.refining, state.guess, state.stage, record is None)
        if kind not in seen or count % 30 == 0:
            stopped.append(count)
            RunStore.open(tmp_path / f"{count}-{record is None}", problem, settings).save(state)
        seen[kind] = count
        if record is None:
            break
        record = run.step()
    alone = run.result()
    if name == "auto":
        # before a start, in every phase, exploring and refining, and at the end
        assert {phase for phase, *_ in seen} == {"", "init", "sweep", "lbfgs"}
        assert {refining for _, refining, *_ in seen} == {True, False}
    for path in tmp_path.iterdir():
        store, *read = RunStore.read(path)
        state = store.load()
        count = len(lines(path))
        assert len(state.records) == count
        assert count in stopped
        assert_same_result(Stepper(*read, state).finish(), alone)


def test_the_state_is_arrays_and_plain_numbers():
    run = Stepper(build(operator(8, 8)), SearchOptions(**SHORT))
    arrays, numbers = run.state.to_arrays()
    assert arrays == {}
    for _ in range(6):
        run.step()
    arrays, numbers = run.state.to_arrays()
    assert json.loads(json.dumps(numbers)) == numbers
    assert all(isinstance(a, np.ndarray) for a in arrays.values())
    before = {name: a.copy() for name, a in arrays.items()}
    run.step()
    for name, a in arrays.items():  # what was stored does not change with the search
        assert_array_equal(a, before[name])


# --- killed


OPTIONS = {"left": 1, "n_init": 2, "init_sweeps": 1, "max_sweeps": 2, "tol": 0.0}


class Killed(BaseException):
    """What nothing in the package may catch and go on from."""


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every sweep."""
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)


@pytest.mark.no_cover  # some fifty runs; one is traced below
@pytest.mark.usefixtures("often")
def test_killed_at_any_file_operation(tmp_path, monkeypatch):
    alone = disentangle(operator(8, 8), **OPTIONS)
    calls, deadly = 0, None

    def counted(function):
        def call(*args):
            nonlocal calls
            calls += 1
            if calls == deadly:
                raise Killed
            return function(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    assert_same_result(disentangle(operator(8, 8), **OPTIONS, run_dir=tmp_path / "0"), alone)
    total = calls
    assert total > 3 * len(alone.history)
    for moment in range(1, total + 1):
        path = tmp_path / str(moment)
        calls, deadly = 0, moment
        with pytest.raises(Killed):
            disentangle(operator(8, 8), **OPTIONS, run_dir=path)
        deadly = None
        if (path / "config.json").exists():
            result = resume(path)
        else:  # killed before it began
            with pytest.raises(FileNotFoundError, match="is not a run: it has no config.json"):
                resume(path)
            result = disentangle(operator(8, 8), **OPTIONS, run_dir=path)
        assert_same_result(result, alone)
        assert len(lines(path)) == len(alone.history)


CHILD = """
import json, sys, time
import numpy as np
from mpodis.disentangling import disentangle, resume
from mpodis import disentangling as run
from mpodis.store import RunStore
from mpodis.mpo import compress

path, matrix, options = sys.argv[1:]
run.CHECKPOINT_SECONDS = 0.0
save = RunStore.save

def slowly(self, state):
    save(self, state)
    time.sleep(0.01)

RunStore.save = slowly
try:
    resume(path)
except FileNotFoundError:
    disentangle(compress(np.load(matrix)).mpo, run_dir=path, **json.loads(options))
"""


def kill_one(path, matrix, options, delay):
    """Start a run or go on with it, and kill it some time after its first checkpoint."""
    file = path / "checkpoint.safetensors"
    before = _written(file)
    command = [sys.executable, "-c", CHILD, str(path), str(matrix), json.dumps(options)]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        limit = time.monotonic() + 60
        while time.monotonic() < limit and child.poll() is None:
            if _written(file) > before:
                break
            time.sleep(0.002)
        time.sleep(delay)
    finally:
        child.kill()
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()


def _written(file):
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:  # not yet, or just being replaced
        return 0


@pytest.mark.no_cover  # a whole run twice; those of damaged files are traced
def test_killed_processes(tmp_path):
    matrix = random_matrix((8, 8), seed=1)
    np.save(tmp_path / "matrix.npy", matrix)
    options = {"left": 2, "n_init": 3, "init_sweeps": 10, "max_sweeps": 60, "tol": 0.0, "seed": 3}
    alone = disentangle(compress(matrix).mpo, **options)
    rng = np.random.default_rng(0)
    path = tmp_path / "run"
    done = []
    for delay in rng.uniform(0.0, 0.6, size=2):
        kill_one(path, tmp_path / "matrix.npy", options, delay)
        done.append(len((path / "history.jsonl").read_text().splitlines()))
    assert 0 < done[0] <= done[1] < len(alone.history)
    assert_same_result(resume(path), alone)
    assert len(lines(path)) == len(alone.history)


# --- damaged files


@cache
def left_alone():
    problem, settings = build(operator(8, 8)), SearchOptions(**SHORT)
    run = Stepper(problem, settings)
    alone = run.finish()
    return problem, run.search.options, alone


@pytest.fixture
def halfway(tmp_path):
    """(path, result of the run left alone) of a run with two checkpoints."""
    problem, settings, alone = left_alone()
    path = tmp_path / "run"
    store, run = RunStore.open(path, problem, settings), Stepper(problem, settings)
    for _ in range(2):
        for _ in range(4):
            run.step()
        store.save(run.state)
    return path, alone


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def empty_state(file):
    save_arrays(file, {"a": np.zeros(2)})


def resumed_from(path):
    store, _, _ = RunStore.read(path)
    state = store.load() or State()
    return len(state.records)


@pytest.mark.parametrize("tear", ['{"init": 0, "swe', '{"init": 9}\n{"init": 9}\n', "\x00\x00"])
def test_surplus_and_torn_lines_are_cut_off(halfway, tear):
    path, alone = halfway
    with (path / "history.jsonl").open("a") as stream:
        stream.write(tear)
    assert resumed_from(path) == 8
    assert_same_result(resume(path), alone)


@pytest.mark.parametrize("damage", [cut, empty_state, os.remove])
def test_the_checkpoint_before_is_used_if_the_last_is_damaged(halfway, damage, caplog):
    path, alone = halfway
    damage(path / "checkpoint.safetensors")
    assert resumed_from(path) == 4
    missing = damage is os.remove  # killed between two renames: nothing to warn of
    assert ("cannot use" in caplog.text) != missing
    assert_same_result(resume(path), alone)


def test_it_starts_afresh_if_no_checkpoint_can_be_read(halfway, caplog):
    path, alone = halfway
    for name in ("checkpoint", "checkpoint.previous"):
        cut(path / f"{name}.safetensors")
    assert resumed_from(path) == 0
    for name in ("checkpoint", "checkpoint.previous"):
        assert f"{name}.safetensors" in caplog.text
    assert "is not a whole safetensors file" in caplog.text
    assert_same_result(resume(path), alone)


@pytest.mark.parametrize("kept", [0, 3, 5])
def test_a_history_that_lacks_lines_takes_its_checkpoint_with_it(halfway, kept, caplog):
    path, alone = halfway
    history = path / "history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:kept]))
    assert resumed_from(path) == (4 if kept == 5 else 0)
    assert f"history.jsonl has {kept} lines, but 8 were written" in caplog.text
    assert_same_result(resume(path), alone)


def test_a_history_that_is_gone_takes_the_checkpoints_with_it(halfway, caplog):
    path, alone = halfway
    (path / "history.jsonl").unlink()
    assert resumed_from(path) == 0
    assert "cannot use" in caplog.text
    assert_same_result(resume(path), alone)


def test_a_damaged_problem_is_an_error(halfway):
    path, _ = halfway
    cut(path / "problem.safetensors")
    with pytest.raises(ValueError, match="problem.safetensors is not a whole safetensors file"):
        resume(path)
