"""Studies on this machine: processes that die or are killed, Ctrl-C, full disks, two at a time."""

import errno
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import study_cases
from mpodis import Study
from mpodis.files import locked
from study_cases import contents, is_alive, python, session, wait_for

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

HOLDING = """
import sys
from mpodis import Study
from study_cases import in_a_library
study = Study(in_a_library, grid={"n": [1, 2, 3]}, settings={"folder": sys.argv[1]})
study.run(sys.argv[2], n_jobs=2, progbar=False)
"""
SLEEPING = """
import sys
from mpodis import Study
from study_cases import asleep
Study(asleep, grid={"n": [1, 2, 3, 4]}, seeds=3).run(sys.argv[1], n_jobs=2, progbar=False)
"""


@pytest.fixture
def holding(tmp_path):
    """A study whose two workers sit in calls that hold the lock of the interpreter."""
    pids = tmp_path / "pids"
    pids.mkdir()
    driver = python(HOLDING, pids, tmp_path / "study")
    try:
        assert wait_for(lambda: len(list(pids.iterdir())) == 2, 60), driver.stderr.read()
        yield driver, [int(file.name) for file in pids.iterdir()]
    finally:
        for pid in session(driver.pid):
            os.kill(pid, signal.SIGKILL)
        driver.communicate()


def test_a_case_whose_process_dies_fails_alone(tmp_path):
    study = Study(study_cases.deadly, grid={"how": ["well", "exit", "kill", "too"]})
    study.run(tmp_path, n_jobs=2, progbar=False)
    assert study.to_dataframe()["how"].tolist() == ["well", "too"]
    assert [(row[0], row[2]) for row in study.failures().rows] == [
        ("how=exit", "RuntimeError: the process that computed it died: EXIT(3)"),
        (
            "how=kill",
            "RuntimeError: the process that computed it died: SIGKILL(-9); it may need more "
            "memory than there is",
        ),
    ]


@linux
def test_a_study_that_is_killed_leaves_no_process(holding):
    driver, workers = holding
    os.kill(driver.pid, signal.SIGKILL)
    assert wait_for(lambda: not any(map(is_alive, workers)), 5)
    assert wait_for(lambda: not session(driver.pid), 10)


@linux
@pytest.mark.parametrize(
    "signals", [[signal.SIGINT, signal.SIGINT], [signal.SIGTERM]], ids=["Ctrl-C twice", "SIGTERM"]
)
def test_ctrl_c_and_sigterm_end_at_once(holding, signals):
    driver, workers = holding
    began = time.monotonic()
    for number in signals:
        os.killpg(driver.pid, number) if number == signal.SIGINT else driver.send_signal(number)
        time.sleep(0.05)
    _, errors = driver.communicate(timeout=10)
    assert time.monotonic() - began < 5  # most of it is the end of the interpreter
    assert driver.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert wait_for(lambda: not session(driver.pid), 5)
    assert not any(map(is_alive, workers))


def test_a_search_that_ctrl_c_would_end_early_is_not_stored(tmp_path):
    study = Study(study_cases.ctrl_c_in_a_search, grid={"n": [0, 1, 2]})
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        study.run(tmp_path, progbar=False)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert study.to_dataframe()["n"].tolist() == [0]


@linux
@pytest.mark.parametrize("kills", [1, 20])
def test_a_study_that_is_killed_at_any_moment_ends_the_same(tmp_path, kills):
    study = Study(study_cases.asleep, grid={"n": [1, 2, 3, 4]}, seeds=3)
    study.run(tmp_path / "undisturbed", progbar=False)
    moments = random.Random(kills)
    for k in range(kills):
        directory = tmp_path / f"killed{k}"
        driver, count = python(SLEEPING, directory), moments.randrange(10)
        assert wait_for(lambda: len(list(directory.glob("cases/*.json"))) >= count, 60)  # noqa: B023
        time.sleep(moments.uniform(0.0, 0.2))
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate()
        assert len(contents(directory)) >= count
        again = python(SLEEPING, directory)
        _, errors = again.communicate(timeout=120)
        assert again.returncode == 0, errors
        assert contents(directory) == contents(tmp_path / "undisturbed")
        assert not session(driver.pid)


def test_a_second_process_is_told_which_command_follows_the_first(tmp_path):
    study = Study(study_cases.asleep, grid={"n": [1]})
    tmp_path.joinpath("study").mkdir()
    told = pytest.raises(BlockingIOError, match=f"`mpodis study watch {tmp_path / 'study'}`")
    with locked(tmp_path / "study"), told:
        study.run(tmp_path / "study", progbar=False)
    assert [file.name for file in (tmp_path / "study").iterdir()] == ["lock"]


# --- full disks


def test_a_disk_that_becomes_full_is_one_line_and_nothing_is_lost(tmp_path, monkeypatch):
    study = Study(study_cases.large, grid={"n": [1, 2, 3, 4]}, settings={"kilobytes": 1})
    fsync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) > 6:  # the study, two records and the arrays of a third
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device; 2 of 4 cases are stored") as caught:
        study.run(tmp_path, progbar=False)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    before = contents(tmp_path)
    assert not list(tmp_path.glob("**/*.part"))
    monkeypatch.setattr(os, "fsync", fsync)
    study.run(tmp_path, progbar=False)
    assert {key: contents(tmp_path)[key] for key in before} == before
    assert len(before) == 2
    assert study.to_dataframe()["n"].tolist() == [1, 2, 3, 4]


@pytest.fixture
def small_disk(tmp_path):
    """A folder in which there is a megabyte of room, where this user may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_workers_on_a_disk_that_is_full(small_disk):
    study = Study(study_cases.large, grid={"n": list(range(12))}, settings={"kilobytes": 150})
    with pytest.raises(OSError, match="No space left on device; . of 12 cases are stored"):
        study.run(small_disk / "study", n_jobs=2, progbar=False)
    done = study.status().done
    assert 0 < done < 7
    assert len(contents(small_disk / "study")) == done
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    study.run(small_disk / "study", n_jobs=2, progbar=False)
    assert study.status().done == 12
