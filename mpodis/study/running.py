"""Where the cases of a study are computed: here, in processes of this machine, or by Dask.

Each case is stored by the process that computes it. What comes back to the process that hands out
the cases is a summary of a few hundred bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import platform
import queue
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpodis.advice import without_remarks
from mpodis.study.cases import Case, file_hash
from mpodis.study.measured import apart_from_settings, measure
from mpodis.study.records import Record, StorageError, StudyDirectory
from mpodis.workers import end_with_parent

__all__ = [
    "Outcome",
    "SchedulerLost",
    "Task",
    "compute",
    "here",
    "in_processes",
    "interruptible",
    "on_dask",
]

log = logging.getLogger(__name__)

SHARED_SECONDS = 30.0
"""How long a record that a worker has written may take to be seen through a network file system."""
_ONE_AT_A_TIME = threading.Lock()
"""Threads of a process share the limits of libraries and the seeds of path searches."""
_WORKERS: set[_Worker] = set()
"""Processes that are to be ended before this one."""


class SchedulerLost(ConnectionError):
    """The scheduler of a Dask cluster is gone, or does not know this client any more."""


@dataclass(frozen=True)
class Task:
    """What is the same for every case: the function, where records go, and how cases run."""

    function: Callable[..., Any]
    directory: str
    code: str
    is_seeded: bool
    threads: int = 1
    resumable: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a case ended: its scalars, or an error in one line."""

    key: str
    seconds: float
    scalars: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def compute(task: Task, case: Case) -> Outcome:
    """Compute and store one case; a failure of the function is stored as well.

    Where it is stored already nothing is computed: Dask repeats a task if the worker that has its
    outcome is lost before that has arrived.

    Raises
    ------
    StorageError
        If nothing can be written where the records are.
    """
    with _ONE_AT_A_TIME:
        return _stored(task, case) or _computed(task, case)


def _stored(task: Task, case: Case) -> Outcome | None:
    directory = StudyDirectory(task.directory)
    if not directory.has(case.key):
        return None
    record = directory.load(case.key)
    return Outcome(case.key, record.seconds, record.scalars)


def _computed(task: Task, case: Case) -> Outcome:
    directory = StudyDirectory(task.directory)
    began, began_cpu = time.perf_counter(), time.process_time()
    try:
        with _threads(task.threads), without_remarks():
            # again: importing the libraries is no part of the case
            began, began_cpu = time.perf_counter(), time.process_time()
            _check_inputs(case)
            seed, cache = case.seed, directory.networks
            arguments = {name: _made(v, seed, cache) for name, v in case.arguments.items()}
            if case.seed is not None and task.is_seeded:
                arguments["seed"] = case.seed
            if task.resumable:
                arguments["run_dir"] = directory.run_dir(case.key)
            scalars, arrays = measure(task.function(**arguments))
            scalars, arrays = apart_from_settings(scalars, arrays, case.settings)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit of a user's function, too
        return failed(task, case, error, time.perf_counter() - began)
    record = Record(
        case.key,
        case.settings,
        case.seed,
        scalars,
        arrays,
        time.perf_counter() - began,
        time.process_time() - began_cpu,
        _where(task),
    )
    directory.save(record)
    if task.resumable:
        shutil.rmtree(directory.run_dir(case.key), ignore_errors=True)
    return Outcome(case.key, record.seconds, scalars)


def _check_inputs(case: Case) -> None:
    """Files may have changed since the study was made, whose hash is in the key of the case."""
    for path, digest in case.inputs.items():
        if file_hash(path) != digest:
            raise ValueError(f"{path} has changed since the study was made of it; make it again")


def failed(task: Task, case: Case, error: BaseException, seconds: float = 0.0) -> Outcome:
    """Store that a case failed."""
    text = f"{type(error).__name__}: {error}".strip().rstrip(":")
    failure = {
        "settings": case.settings,
        "seed": case.seed,
        "error": text,
        "traceback": "".join(traceback.format_exception(error)),
        "seconds": seconds,
        "where": _where(task),
    }
    StudyDirectory(task.directory).save_failure(case.key, failure)
    return Outcome(case.key, seconds, error=text.splitlines()[0])


def _where(task: Task) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"host": platform.node(), "code": task.code, "threads": task.threads, "finished": now}


def _made(arguments: Any, seed: int | None, cache: Path) -> Any:
    """The arguments with targets in the place of their descriptions."""
    if isinstance(arguments, dict) and "kind" in arguments:
        from mpodis.targets import make_target

        return make_target(arguments, seed=seed, cache=cache)
    if isinstance(arguments, dict):
        return {name: _made(value, seed, cache) for name, value in arguments.items()}
    if isinstance(arguments, list):  # of its own for every case, as the dicts
        return [_made(value, seed, cache) for value in arguments]
    return arguments


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """A context with so many threads of BLAS and torch; the rounding depends on their number."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count, user_api="blas"), _threads_of_torch(count):
        yield


@contextlib.contextmanager
def _threads_of_torch(count: int) -> Iterator[None]:
    if "torch" not in sys.modules and os.environ.get("OMP_NUM_THREADS") == str(count):
        yield  # a case that imports torch later gets this number from the environment
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- where


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt at once, wherever a case is.

    A search that is alone would end at its next sweep and return what it has, which must not become
    the record of a case. Further signals while the workers are being ended change nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    pressed = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal pressed
        if not (pressed and _WORKERS):
            pressed = True
            raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def here(task: Task, cases: Sequence[Case]) -> Generator[Outcome]:
    """One case after the other in this process."""
    for case in cases:
        yield compute(task, case)


def in_processes(task: Task, cases: Sequence[Case], n_jobs: int) -> Generator[Outcome]:
    """Cases in processes of this machine (joblib's loky).

    Each process is a pool of its own, so that one that dies, as for want of memory, fails the case
    it had and disturbs no other. Threads hand out the cases: none waits for what the caller does
    with an outcome.
    """
    found: queue.SimpleQueue[Outcome | BaseException] = queue.SimpleQueue()
    waiting, workers = deque(cases), [_Worker(task) for _ in range(n_jobs)]

    def hand_out(worker: _Worker) -> None:
        with contextlib.suppress(IndexError):  # no case is left
            while not worker.is_ended:
                case = waiting.popleft()
                try:
                    found.put(worker.compute(case))
                except BaseException as error:  # raised below
                    found.put(error)
                    return

    threads = [threading.Thread(target=hand_out, args=(w,), daemon=True) for w in workers]
    _WORKERS.update(workers)
    try:
        for thread in threads:
            thread.start()
        for _ in cases:
            outcome = found.get()
            if isinstance(outcome, BaseException):
                raise outcome
            yield outcome
    finally:
        enders = [threading.Thread(target=worker.end) for worker in workers]  # all at once
        for ender in enders:
            ender.start()
        for ender in enders:
            ender.join()
        _WORKERS.difference_update(workers)


class _Worker:
    """A process that computes one case after the other, started again where it dies."""

    def __init__(self, task: Task) -> None:
        self.task, self.is_ended = task, False
        self._pool: Any = None
        self._changing = threading.Lock()

    def compute(self, case: Case) -> Outcome:
        """The outcome of a case, also if the process dies of it.

        Raises
        ------
        StorageError
            If nothing can be written where the records are.
        RuntimeError
            If the worker was ended.
        """
        from concurrent.futures.process import BrokenProcessPool

        try:
            return self._started().submit(compute, self.task, case).result()
        except StorageError:
            raise
        except Exception as error:
            with self._changing:
                if self.is_ended:  # which is why it died
                    raise
                if not isinstance(error, BrokenProcessPool):  # settings that cannot be sent
                    return failed(self.task, case, error)
                self._pool = None
            return _stored(self.task, case) or failed(self.task, case, _died(error))

    def _started(self) -> Any:
        from joblib.externals.loky import ProcessPoolExecutor

        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
        with self._changing:
            if self.is_ended:
                raise RuntimeError("the study has ended")
            if self._pool is None:
                self._pool = ProcessPoolExecutor(
                    1,
                    # the thread that starts the process hands out its cases, and so outlives them
                    initializer=end_with_parent,
                    initargs=(os.getpid(),),
                    env=dict.fromkeys(names, str(self.task.threads)),
                )
            return self._pool

    def end(self) -> None:
        """Kill the process."""
        with self._changing:
            self.is_ended = True
            if self._pool is not None:
                self._pool.shutdown(wait=True, kill_workers=True)


def _died(error: BaseException) -> RuntimeError:
    codes = re.search(r"\{(.*)\}", str(error))  # loky's text ends in exit codes
    cause = codes[1] if codes else str(error).strip().partition("\n")[0]
    killed = "; it may need more memory than there is" if "SIGKILL" in cause else ""
    return RuntimeError(f"the process that computed it died: {cause}{killed}")


def on_dask(
    task: Task, cases: Sequence[Case], client: Any, *, retries: int = 2
) -> Generator[Outcome]:
    """Cases as tasks of a Dask client; Dask sends those of a worker that is lost to another one.

    Raises
    ------
    SchedulerLost
        If the scheduler is gone, or was started anew.
    StorageError
        If a worker cannot write its records, or writes them where this process does not see them.
    """
    from concurrent.futures import CancelledError

    from distributed import KilledWorker, as_completed

    address = client.scheduler.address
    if any(threads > 1 for threads in client.nthreads().values()):
        log.warning(
            "workers of several threads compute one case at a time; start them with --nthreads 1 "
            "(threads_per_worker=1 of a LocalCluster), and more of them"
        )
    began = time.time_ns()  # Dask would give the outcome of an earlier call for the same key
    options: dict[str, Any] = {"pure": False, "retries": retries}
    of = {
        client.submit(compute, task, case, key=f"mpodis-{case.key}-{began}", **options): case
        for case in cases
    }
    try:
        for future in as_completed(list(of), loop=client.loop, raise_errors=False):
            case = of.pop(future)
            try:
                outcome = None if future.status == "error" else future.result()
            except StorageError:
                raise
            except (OSError, CancelledError, asyncio.CancelledError):  # with the connection
                raise SchedulerLost(f"lost the scheduler {address}") from None
            if outcome is not None:
                _check_seen(task, outcome)
                yield outcome
                continue
            error = future.exception()
            if isinstance(error, StorageError):
                raise error
            if isinstance(error, KilledWorker):
                died = RuntimeError(
                    f"{error.allowed_failures + 1} workers died while they computed it, the last "
                    f"one at {error.last_worker.address}; it may need more memory than they have"
                )
                yield _stored(task, case) or failed(task, case, died)
            else:
                yield failed(task, case, error)
    finally:
        if client.status == "running":
            client.cancel(list(of))


def _check_seen(task: Task, outcome: Outcome) -> None:
    """Wait until a record is seen where this process looks for it."""
    directory = StudyDirectory(task.directory)
    limit = time.monotonic() + SHARED_SECONDS
    while not directory.has(outcome.key, failed=bool(outcome.error)):
        if time.monotonic() > limit:
            raise StorageError(
                f"a worker has stored {outcome.key}, but it is not in {directory.path}: workers "
                "must see this directory under the same path, on a shared file system"
            )
        time.sleep(0.5)
