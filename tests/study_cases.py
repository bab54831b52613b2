"""What the studies of the tests compute in other processes, and how these are looked after."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from mpodis.progress import interrupts
from mpodis.study.records import StudyDirectory

TESTS = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}


def factors(n, *, seed, seconds=0.0):
    """Numbers whose last bits depend on the number of threads; CPU time if asked."""
    limit = time.thread_time() + seconds
    matrix = np.random.default_rng(seed).normal(size=(96, 96)) + n
    q, r = np.linalg.qr(matrix)
    while time.thread_time() < limit:
        np.linalg.qr(matrix)
    return {"trace": float(np.trace(r)), "q": (("row", "column"), q @ q)}


def asleep(n, *, seed, seconds=0.2):
    time.sleep(seconds)
    return {"square": float(n * n + seed)}


def deadly(how):
    """A case that ends its process."""
    if how == "exit":
        os._exit(3)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    return {"value": 1.0}


def in_a_library(n, *, folder):
    """A call of a library that holds the lock of the interpreter for a minute."""
    (Path(folder) / f"{os.getpid()}").touch()
    ctypes.PyDLL(None).sleep(60)
    return {"value": n}


def ctrl_c_in_a_search(n):
    """A search in which Ctrl-C is pressed, which would return what it has."""
    with interrupts() as asked:
        if n == 1:
            signal.raise_signal(signal.SIGINT)
        return {"value": float(asked())}


def large(n, *, kilobytes):
    return {"value": n, "zeros": ("entry", np.full(kilobytes * 128, float(n)))}


def python(code, *arguments, **options):
    """A process in a session of its own, which imports what is here."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(condition, seconds=30.0):
    """Wait until something holds; whether it does."""
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.02)
    return condition()


def is_alive(pid):
    """Whether a process is there, and no zombie (on Linux)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def session(pid):
    """Processes of the session that a process has begun (on Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return found


def contents(directory):
    """All records as they are on disk, without times and places; every file can be read."""
    store, found = StudyDirectory(directory), {}
    for key in sorted(store.keys()):
        store.load(key)
        text = json.loads((store.path / "cases" / f"{key}.json").read_text())
        for name in ("seconds", "cpu_seconds", "checksum"):
            del text[name]
        for name in ("host", "finished"):
            del text["where"][name]
        arrays = store.path / "cases" / f"{key}.safetensors"
        found[key] = (text, arrays.read_bytes() if arrays.exists() else b"")
    return found
