"""Run directories that two processes want at the same time, and locks that children inherit."""

import errno
import multiprocessing
import subprocess
import sys

import numpy as np
import pytest

from mpodis import disentangle, load_run, pareto, resume, store
from mpodis.files import is_locked, locked, read_json

MATRICES = [np.random.default_rng(seed).normal(size=(16, 16)) for seed in (0, 1)]
OPTIONS = {"depth": 2, "n_init": 1, "init": "identity", "max_sweeps": 20}


def _search(k, run_dir, both_are_ready, answers):
    both_are_ready.wait()
    try:
        answers.put((k, disentangle(MATRICES[k], **OPTIONS, run_dir=run_dir).overlap))
    except (ValueError, BlockingIOError) as error:
        answers.put((k, str(error)))


def test_two_searches_that_begin_in_one_directory_are_not_mixed(tmp_path):
    alone = [disentangle(matrix, **OPTIONS).overlap for matrix in MATRICES]
    context = multiprocessing.get_context("spawn")  # a fork would inherit other tests' threads
    answers, both_are_ready = context.Queue(), context.Barrier(2)
    children = [
        context.Process(target=_search, args=(k, tmp_path / "run", both_are_ready, answers))
        for k in (0, 1)
    ]
    for child in children:
        child.start()
    found = dict(answers.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    (winner,) = (k for k in found if not isinstance(found[k], str))
    assert found[winner] == pytest.approx(alone[winner], abs=1e-12)
    assert "another run" in found[1 - winner] or "another process" in found[1 - winner]
    assert load_run(tmp_path / "run").overlap == pytest.approx(alone[winner], abs=1e-12)


def test_a_call_that_is_refused_changes_nothing(tmp_path):
    disentangle(MATRICES[0], **OPTIONS, run_dir=tmp_path)
    before = read_json(tmp_path / "config.json")
    with locked(tmp_path):
        with pytest.raises(BlockingIOError, match="another process is working"):
            resume(tmp_path, max_sweeps=99)
        with pytest.raises(BlockingIOError, match="another process is working"):
            disentangle(MATRICES[0], **OPTIONS | {"max_sweeps": 77}, run_dir=tmp_path)
    assert read_json(tmp_path / "config.json") == before


HOLDER = """
import sys
from mpodis.files import locked

with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def _pareto(run_dir):
    front = pareto(MATRICES[0], families="SO(4)", depths=(1,), max_sweeps=2, run_dir=run_dir)
    return [(point.cnots, point.overlap) for point in front.points]


def _evaluate(run_dir):
    from mpodis.nn import HybridLinear
    from mpodis.quantum import evaluate

    layer = HybridLinear(((2, 2),) * 3, 2, left="2b", seed=0)
    images = np.random.default_rng(0).normal(size=(4, 8))
    found = evaluate(layer, (images, np.arange(4)), run_dir=run_dir, batch_size=2)
    return found.executed, found.vectors


@pytest.mark.parametrize("call", [_pareto, _evaluate])
def test_pieces_are_computed_by_one_process_at_a_time(tmp_path, call):
    wanted = call(tmp_path / "alone")
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, run_dir], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    told = rf"another process is working in {run_dir} \(process {holder.pid} on .* since"
    with pytest.raises(BlockingIOError, match=told):
        call(run_dir)
    assert [file.name for file in run_dir.iterdir()] == ["lock"]
    holder.communicate()
    assert call(run_dir) == wanted
    assert not is_locked(run_dir)


def test_finished_pieces_are_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    before = _pareto(tmp_path)
    (tmp_path / "lock").unlink()

    def read_only(folder):
        raise OSError(errno.EROFS, "Read-only file system", str(folder))

    monkeypatch.setattr(store, "locked", read_only)
    assert _pareto(tmp_path) == before


FORK = """
import os, sys, time
from mpodis.files import is_locked, locked

with locked(sys.argv[1]):
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    print(is_locked(sys.argv[1]))
limit = time.monotonic() + 20  # the child closes the file when it first runs
while is_locked(sys.argv[1]) and time.monotonic() < limit:
    time.sleep(0.01)
print(is_locked(sys.argv[1]))
os.kill(child, 9)
os.waitpid(child, 0)
"""
"""A process of its own: a fork of this one would inherit the threads of other tests' libraries."""


def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FORK, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "False"]
