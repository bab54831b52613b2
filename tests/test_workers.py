"""Worker processes end with their parent, however it ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpodis.workers import pool

SECONDS = 10
"""How long a worker may outlive its parent."""


def write_pid_and_work(folder):
    """What a worker does: busy for a minute."""
    Path(folder, str(os.getpid())).touch()
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        pass


PARENT = """
import sys, threading
from mpodis.workers import pool
from test_workers import write_pid_and_work

def work_in_pool(folder):
    with pool(2) as executor:
        tasks = [executor.submit(write_pid_and_work, folder) for _ in range(2)]
        [task.result() for task in tasks]

if __name__ == "__main__":
    folder = sys.argv[1]
    try:
        if sys.argv[2] == "pool":
            work_in_pool(folder)
        else:
            thread = threading.Thread(target=work_in_pool, args=(folder,))
            thread.start()
            thread.join()
    except KeyboardInterrupt:
        sys.exit(130)
"""


def is_alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait(until, seconds):
    limit = time.monotonic() + seconds
    while not (done := until()) and time.monotonic() < limit:
        time.sleep(0.05)
    return done


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("pool", signal.SIGKILL),
        ("pool", signal.SIGTERM),
        ("pool", signal.SIGINT),
        ("pool of a thread", signal.SIGKILL),  # where the kernel's signal is not asked for
    ],
)
def test_workers_end_with_a_parent_that_is_ended(tmp_path, kind, number):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    (tmp_path / "pids").mkdir()
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path / "pids", kind],
        env={**os.environ, "PYTHONPATH": places},
        start_new_session=True,  # a Ctrl-C of its own
        stderr=subprocess.PIPE,
    )
    workers = []
    try:
        wait(lambda: len(list((tmp_path / "pids").iterdir())) == 2, 60)
        workers = [int(file.name) for file in (tmp_path / "pids").iterdir()]
        assert len(workers) == 2
        parent.send_signal(number)
        parent.wait(SECONDS)
        assert wait(lambda: not any(map(is_alive, workers)), SECONDS)
    finally:
        for pid in [parent.pid, *workers]:
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        _, errors = parent.communicate()
    if number == signal.SIGINT:
        assert parent.returncode == 130, errors.decode()


def one_over_after(seconds):
    time.sleep(seconds)
    return 1 / seconds


def test_an_exception_ends_the_workers_at_once():
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), pool(2) as executor:
        list(executor.map(one_over_after, [0, 60]))
    assert time.monotonic() - began < SECONDS
