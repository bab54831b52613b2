"""Runs of the compiler that are killed go on from their directories, bit by bit."""

import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mpodis.compile_runs as runs
from mpodis import (
    brickwall,
    compile_state,
    compile_unitary,
    coupling_brickwall,
    evolution,
    load_run,
    pauli_chain,
    random_circuit,
    resume,
)
from mpodis.files import locked
from mpodis.jobs.export import export_run
from mpodis.optimise import compile_search
from mpodis.run_status import RunStatus

H = {"ZZ": 1.0, "X": 0.75}
U = random_circuit(brickwall(4, 6, group="U"), seed=3).to_dense().T
RING = [(0, 1), (1, 2), (2, 3), (3, 0)]


def uniform(**options):
    target = evolution(pauli_chain(16, **H), 0.3, error=1e-8)
    return compile_unitary(target, depth=2, max_iterations=6, max_bond=16, **options)


CALLS = {
    "grown": lambda **options: compile_unitary(
        U, depth=4, max_iterations=25, n_init=2, tol=0.2, **options
    ),
    "boundary": lambda **options: compile_unitary(
        U, depth=3, engine="boundary", max_iterations=40, n_init=2, **options
    ),
    "routed": lambda **options: compile_unitary(
        U,
        ansatz=coupling_brickwall(RING, 3, group="U"),
        engine="boundary",
        max_iterations=15,
        n_init=1,
        **options,
    ),
    "state": lambda **options: compile_state(
        U[:, 0], depth=2, engine="boundary", max_iterations=20, **options
    ),
    "start": lambda **options: compile_unitary(
        U, start=random_circuit(brickwall(4, 2, group="U"), seed=0), depth=3, **options
    ),
    "kicks": lambda **options: compile_unitary(
        U, depth=3, n_init=1, tol=0.3, start="random", max_seconds=1e6, **options
    ),
    "decomposed metric": lambda **options: compile_unitary(
        evolution(pauli_chain(5, **H), 1.0), depth=4, max_iterations=80, tol=1e-3, **options
    ),
    "uniform chain": uniform,
}


def assert_same(found, expected):
    """But for the seconds."""
    assert found.circuit.ansatz == expected.circuit.ansatz
    for x, y in zip(found.circuit.gates, expected.circuit.gates, strict=True):
        assert_array_equal(x, y)
    for name in ("loss", "infidelity", "status", "start", "engine", "remarks", "trotter_loss"):
        np.testing.assert_equal(getattr(found, name), getattr(expected, name))
    for name in ("loss", "best", "start", "depth"):
        assert_array_equal(found.history.column(name), expected.history.column(name))


@pytest.mark.no_cover  # five searches each; the runs below are traced
@pytest.mark.parametrize("name", CALLS)
def test_a_run_goes_on_from_any_checkpoint_with_the_same_gates(name, tmp_path, monkeypatch):
    """Copies of the directory are what a process that is killed leaves."""
    call, monkey = CALLS[name], monkeypatch
    expected = call()
    monkey.setattr(runs, "CHECKPOINT_SECONDS", 0.0)
    save, copies = runs.PieceStore.save, []

    def copied(store, *args):
        save(store, *args)
        copies.append(tmp_path / f"killed{len(copies)}")
        shutil.copytree(store.path, copies[-1])

    with monkey.context() as patch:
        patch.setattr(runs.PieceStore, "save", copied)
        assert_same(call(run_dir=tmp_path / "run"), expected)
    assert len(copies) > 10
    for killed in (*random.Random(name).sample(copies[:-1], 2), copies[-1]):
        assert_same(call(run_dir=killed), expected)
        assert_same(load_run(killed), expected)


CHILD = """
import sys
sys.path[:0] = {path!r}
import mpodis.compile_runs as runs
from test_compile_runs import CALLS, U, compile_unitary
runs.CHECKPOINT_SECONDS = 0.0
compile_unitary(U, depth=1, n_init=1, max_iterations=1)  # imports what is imported late
print("ready", flush=True)
CALLS[{name!r}](run_dir={run!r})
"""


@pytest.mark.no_cover  # whole searches; the runs below are traced
def test_a_killed_process_loses_nothing(tmp_path):
    expected = CALLS["grown"]()
    code = CHILD.format(path=[str(runs.Path(__file__).parent)], name="grown", run=str(tmp_path))
    for count in (1, 3):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        while len(list(tmp_path.glob("stretch-*"))) < count and child.poll() is None:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        if count > 1:
            assert load_run(tmp_path).status == "unfinished"
    assert_same(CALLS["grown"](run_dir=tmp_path), expected)


def test_an_unfinished_run_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CHECKPOINT_SECONDS", 0.0)
    target = evolution(pauli_chain(5, **H), 0.5)
    seen = []
    save = runs.CompileRun.save_progress

    def looked_at(run, search):
        save(run, search)
        if len(search.records) in (1, 4):
            seen.append((load_run(tmp_path), search.loss, len(search.records)))

    monkeypatch.setattr(runs.CompileRun, "save_progress", looked_at)
    found = compile_unitary(target, depth=3, run_dir=tmp_path)
    for early, loss, count in seen:
        assert early.status == "unfinished"
        assert_allclose(early.loss, loss, rtol=1e-3)
        assert len(early.history) == count
        assert_allclose(early.trotter_loss, found.trotter_loss)
        assert "call it again with the same run_dir=" in str(early)
    assert len(seen) == 2
    assert RunStatus.of(tmp_path).tables()[0].rows == found.table().rows
    exported = export_run(tmp_path, tmp_path / "qasm")[0]
    assert exported.circuits["circuit"]["deviation"] < 1e-6


def test_more_time_goes_on_and_less_gives_what_there_is(tmp_path):
    call = {"depth": 5, "run_dir": tmp_path, "start": "identity", "tol": 1e-4}
    first = compile_unitary(U, **call, max_seconds=0.1)
    assert first.status == "max_seconds"
    again = compile_unitary(U, **call, max_seconds=0.05)
    assert_same(again, first)
    assert again.seconds == first.seconds
    more = compile_unitary(U, **call)
    assert more.status != "max_seconds"
    losses, before = more.history.column("loss"), first.history.column("loss")
    assert_array_equal(losses[: len(before)], before)
    assert more.loss < first.loss
    seconds = more.history.column("seconds")
    assert (np.diff(seconds) > 0).all()
    assert more.seconds > seconds[-1]


@pytest.mark.parametrize(
    ("options", "came_from"),
    [
        ({"depth": 3, "n_init": 1, "tol": 0.3, "start": "random"}, "some gates turned at random"),
        ({"depth": 4, "n_init": 1, "tol": 0.3}, ""),
    ],
    ids=["kicks", "a part that ran out of its share of the time"],
)
def test_a_run_that_goes_on_without_a_limit_keeps_what_it_found(
    options, came_from, tmp_path, monkeypatch
):
    monkeypatch.setattr(compile_search, "GROWTH_SHARE", 1e-9)
    found = compile_unitary(U, **options, run_dir=tmp_path, max_seconds=1e6)
    assert came_from in found.start
    (tmp_path / "result.safetensors").unlink()  # as of a process that was killed at the end
    assert_same(compile_unitary(U, **options, run_dir=tmp_path), found)


def test_zero_is_the_same_goal_as_a_whole_number(tmp_path):
    call = {"depth": 1, "n_init": 1, "max_iterations": 5, "run_dir": tmp_path}
    found = compile_unitary(U, **call, goal=0, tol=0)
    assert_same(compile_unitary(U, **call, goal=0.0, tol=0.0), found)


def test_what_is_refused(tmp_path):
    run = tmp_path / "run"
    call = {"depth": 2, "n_init": 1, "start": "identity", "max_iterations": 5, "run_dir": run}
    with pytest.raises(ValueError, match="must be a whole number"):
        compile_unitary(U, **call | {"n_init": 0})
    with pytest.raises(ValueError, match="the target is complex"):
        compile_unitary(U, **call | {"group": "SO"})
    assert not run.exists()
    found = compile_unitary(U, **call)
    assert_same(compile_unitary(U + 1e-13, **call), found)  # rounding
    with pytest.raises(ValueError, match="another run of compile_unitary: depth, seed differ"):
        compile_unitary(U, **call | {"seed": 1, "depth": 3})
    with pytest.raises(ValueError, match="a run with another target or start; choose another dir"):
        compile_unitary(U.conj(), **call)
    with pytest.raises(ValueError, match="holds a run of compile_unitary, not of compile_state"):
        compile_state(U[:, 0], **call)
    with pytest.raises(ValueError, match="hold a run of `disentangle`"):
        resume(run)
    with locked(run), pytest.raises(BlockingIOError, match="another process is working"):
        compile_unitary(U, **call)
    (run / "result.safetensors").unlink()
    (run / "progress.safetensors").unlink()
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_run(run)
