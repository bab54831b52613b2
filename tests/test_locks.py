"""Run directories that two processes want at the same time, and locks that children inherit."""

import multiprocessing
import os
import time

import numpy as np
import pytest

from mpodis import disentangle, load_run, resume
from mpodis.files import is_locked, locked, read_json

# Python 3.12 and newer warn of a fork where there are threads; these children use none
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

MATRICES = [np.random.default_rng(seed).normal(size=(16, 16)) for seed in (0, 1)]
OPTIONS = {"depth": 2, "n_init": 1, "init": "identity", "max_sweeps": 20}


def _search(k, run_dir, begin, answers):
    time.sleep(max(0.0, begin - time.time()))
    try:
        answers.put((k, disentangle(MATRICES[k], **OPTIONS, run_dir=run_dir).overlap))
    except (ValueError, BlockingIOError) as error:
        answers.put((k, str(error)))


def test_two_searches_that_begin_in_one_directory_are_not_mixed(tmp_path):
    alone = [disentangle(matrix, **OPTIONS).overlap for matrix in MATRICES]
    context = multiprocessing.get_context("fork")
    answers, begin = context.Queue(), time.time() + 0.5
    for k in (0, 1):
        context.Process(target=_search, args=(k, tmp_path / "run", begin, answers)).start()
    found = dict(answers.get(timeout=60) for _ in range(2))
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


def test_a_child_that_outlives_its_parent_does_not_hold_the_lock(tmp_path):
    with locked(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
        assert is_locked(tmp_path)
    try:
        limit = time.monotonic() + 10.0  # the child closes the file when it first runs
        while is_locked(tmp_path) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not is_locked(tmp_path)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
