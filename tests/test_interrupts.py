"""Ctrl-C, and runs that are read or continued before they have ended."""

import logging
import signal
from concurrent.futures import Future

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mpodis.disentangling as run_module
from mpodis import compress, disentangle, load_run, resume
from mpodis.files import read_json, write_json
from mpodis.optimise.search import Search, StageRun
from reference import random_matrix
from runs import assert_same_result, lines

OPTIONS = {"depth": 2, "n_init": 2, "init_sweeps": 3, "max_sweeps": 12, "tol": 0.0}


def operator():
    return compress(random_matrix((8, 8), seed=1)).mpo


@pytest.fixture(autouse=True)
def _ctrl_c_raises():
    """Processes that a script has put into the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def pressed_after(monkeypatch):
    """Presses Ctrl-C while so many records were made, as often as asked."""

    def press(count, times=1):
        records = Search.run

        def interrupted(self, state):
            for k, record in enumerate(records(self, state)):
                if k == count - 1:
                    for _ in range(times):
                        signal.raise_signal(signal.SIGINT)
                yield record

        monkeypatch.setattr(Search, "run", interrupted)

    return press


@pytest.mark.parametrize("init", ["identity", "grown"])
def test_ctrl_c_returns_the_best_result_so_far(pressed_after, init, caplog):
    pressed_after(6)
    found = disentangle(operator(), **OPTIONS, init=init)
    assert found.status == "interrupted"
    assert len(found.history) == 6
    assert_allclose(found.loss, found.history.column("loss").min(), atol=1e-9)
    assert_allclose(found.factorization.overlap(operator()), found.overlap, atol=1e-12)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    messages = [record.message for record in warnings]
    assert "press Ctrl-C again to stop at once" in messages[0]
    assert "go on with init=<this result>" in messages[1]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class Waiting:
    """An executor that finishes one task; Ctrl-C comes while the search waits for the second."""

    def __init__(self):
        self.cancelled = 0

    def submit(self, function, *arguments):
        future = Future()
        if arguments[-1].guess == 0:
            future.set_result(function(*arguments))
            return future
        future.cancel = self.cancel
        future.done = self.interrupt
        return future

    def cancel(self):
        self.cancelled += 1

    def interrupt(self):
        signal.raise_signal(signal.SIGINT)
        return False


def test_ctrl_c_while_initial_guesses_are_explored_in_parallel(tmp_path):
    options = OPTIONS | {"n_init": 4, "init": "identity"}
    executor = Waiting()
    found = disentangle(operator(), **options, executor=executor, run_dir=tmp_path)
    assert found.status == "interrupted"
    assert executor.cancelled == 3
    assert found.init == 0
    assert len(found.history) == 4
    assert_same_result(resume(tmp_path), disentangle(operator(), **options))


def test_a_second_ctrl_c_raises(pressed_after):
    pressed_after(3, times=2)
    with pytest.raises(KeyboardInterrupt):
        disentangle(operator(), **OPTIONS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupted_run_is_resumed_to_the_same_result(
    pressed_after, tmp_path, caplog, monkeypatch
):
    alone, records = disentangle(operator(), **OPTIONS), Search.run
    pressed_after(7)
    stopped = disentangle(operator(), **OPTIONS, run_dir=tmp_path)
    monkeypatch.setattr(Search, "run", records)
    assert f"go on with mpodis.resume('{tmp_path}')" in caplog.text
    read = load_run(tmp_path)
    assert read.status == "unfinished"
    assert len(read.history) == len(stopped.history) == 7
    assert_array_equal(read.factorization.to_dense(), stopped.factorization.to_dense())
    assert_same_result(resume(tmp_path), alone)


def test_a_run_can_be_read_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    alone = disentangle(operator(), **OPTIONS, run_dir=tmp_path / "alone")
    seen, records = [], Search.run

    def read_between(self, state):
        for k, record in enumerate(records(self, state)):
            if k == 8:  # the checkpoints of the records before are there
                files = {file: file.read_bytes() for file in tmp_path.glob("run/*")}
                monkeypatch.setattr(Search, "run", records)
                seen.append(load_run(tmp_path / "run"))
                assert {file: file.read_bytes() for file in tmp_path.glob("run/*")} == files
            yield record

    monkeypatch.setattr(Search, "run", read_between)
    found = disentangle(operator(), **OPTIONS, run_dir=tmp_path / "run")
    assert [one.status for one in seen] == ["unfinished"]
    assert len(seen[0].history) == 8
    assert_allclose(seen[0].factorization.overlap(operator()), seen[0].overlap, atol=1e-12)
    assert_same_result(found, alone)
    assert_same_result(load_run(tmp_path / "run"), alone)


def test_a_run_can_be_read_without_its_device_and_memory(tmp_path):
    found = disentangle(operator(), **OPTIONS, run_dir=tmp_path)
    config = read_json(tmp_path / "config.json")
    config["options"] |= {"device": "cuda:7", "memory": 1.0}
    write_json(tmp_path / "config.json", config)
    read = load_run(tmp_path)
    assert_allclose(read.loss, found.loss, atol=1e-14)
    assert read.options.device == "cuda:7"


def test_a_truncating_run_reads_with_the_bond_it_ended_at(tmp_path):
    options = OPTIONS | {"engine": "boundary", "environment_bond": (4, 16), "init": "identity"}
    mpo = compress(random_matrix((64, 64), seed=2), max_bond=2).mpo
    found = disentangle(mpo, **options, run_dir=tmp_path)
    assert load_run(tmp_path).loss == found.loss


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run: it has no config.json"):
        load_run(tmp_path)
    disentangle(operator(), **OPTIONS, run_dir=tmp_path)
    for file in tmp_path.glob("checkpoint*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_run(tmp_path)


def test_resume_takes_other_limits(tmp_path):
    options = OPTIONS | {"init": "identity", "method": "sweeps"}
    short = disentangle(operator(), **(options | {"max_sweeps": 4}), run_dir=tmp_path)
    assert short.status == "max_sweeps"
    longer = resume(tmp_path, max_sweeps=9)
    assert_same_result(longer, disentangle(operator(), **(options | {"max_sweeps": 9})))
    assert load_run(tmp_path).options.max_sweeps == 9
    assert len(lines(tmp_path)) == len(longer.history)
    timed = resume(tmp_path, max_sweeps=400, max_seconds=longer.seconds + 1e-6)
    assert timed.status == "max_seconds"
    assert np.isfinite(timed.overlap)


def test_a_run_of_several_stages_goes_on_when_it_is_given_more_time(tmp_path, monkeypatch):
    options = OPTIONS | {"init": "grown", "max_sweeps": 1, "n_init": 1}
    alone = disentangle(operator(), **options)
    # the clock strikes with the last sweep of the first stage
    monkeypatch.setattr(StageRun, "_measure", slow_at(2, StageRun._measure))
    stopped = disentangle(operator(), **options, max_seconds=100.0, run_dir=tmp_path)
    assert (stopped.status, len(stopped.history)) == ("max_seconds", 2)
    found = resume(tmp_path, max_seconds=1e6)
    assert found.status == alone.status
    assert_allclose(found.loss, alone.loss, atol=1e-12)
    assert len(found.history) == len(alone.history)


def slow_at(count, measure):
    def measured(self, state):
        if len(state.records) == count - 1:
            state.seconds += 1000.0
        return measure(self, state)

    return measured
