"""Where the cases of a study are computed: here, in processes of this machine, or by Dask.

Each case is stored by the process that computes it. What comes back to the process that hands out
the cases is a summary of a few hundred bytes.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shutil
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mpodis.advice import without_remarks
from mpodis.jobs.directory import interrupts_raise
from mpodis.study.cases import Case
from mpodis.study.measured import measure
from mpodis.study.records import Record, StudyDirectory

__all__ = ["Outcome", "Task", "compute", "here", "in_processes", "on_dask"]


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

    Raises
    ------
    OSError
        If nothing can be written where the records are.
    """
    directory = StudyDirectory(task.directory)
    began, began_cpu = time.perf_counter(), time.process_time()
    try:
        with _threads(task.threads), without_remarks():
            began, began_cpu = time.perf_counter(), time.process_time()  # libraries are imported
            arguments = _made(case.arguments, case.seed, directory.networks)
            if case.seed is not None and task.is_seeded:
                arguments["seed"] = case.seed
            if task.resumable:
                arguments["run_dir"] = directory.run_dir(case.key)
            scalars, arrays = measure(task.function(**arguments))
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


def failed(task: Task, case: Case, error: BaseException, seconds: float) -> Outcome:
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
    return arguments


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """More threads round differently, so that a seed would not say everything."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


# --- where


def here(task: Task, cases: Sequence[Case]) -> Iterator[Outcome]:
    """One case after the other in this process."""
    for case in cases:
        with interrupts_raise():  # a search would answer Ctrl-C with what it has, as its result
            outcome = compute(task, case)
        yield outcome


def in_processes(task: Task, cases: Sequence[Case], n_jobs: int) -> Iterator[Outcome]:
    """Cases in processes of this machine (joblib's loky).

    A case whose process dies, as for want of memory, fails and takes no other one along: those
    that ran beside it are tried again, one at a time, to find out which it was.
    """
    from concurrent.futures.process import BrokenProcessPool

    waiting, suspects = deque(cases), deque[Case]()
    while waiting or suspects:
        queue, width = (waiting, n_jobs) if waiting else (deque([suspects.popleft()]), 1)
        running: dict[Any, Case] = {}
        with _pool(width, task.threads) as pool:
            try:
                yield from _handed_out(pool, task, queue, running, width)
            except BrokenProcessPool as error:
                lost = list(running.values())
                if width > 1 or len(lost) > 1:
                    suspects.extend(lost)
                    continue
                for case in lost:
                    yield failed(task, case, _died(error), 0.0)


def _died(error: BaseException) -> RuntimeError:
    lines = str(error).splitlines() or [""]
    found = RuntimeError(
        f"the process that computed it died; it may need too much memory ({lines[-1].strip()})"
    )
    return found


def _handed_out(
    pool: Any, task: Task, queue: deque[Case], running: dict[Any, Case], width: int
) -> Iterator[Outcome]:
    """Submit cases as others finish: one more than there are workers, so that none waits."""
    from concurrent.futures import FIRST_COMPLETED, wait

    while queue or running:
        while queue and len(running) <= width:
            running[pool.submit(compute, task, queue[0])] = queue[0]
            queue.popleft()
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            outcome = future.result()
            del running[future]
            yield outcome


@contextlib.contextmanager
def _pool(n_jobs: int, threads: int) -> Iterator[Any]:
    from joblib.externals.loky import ProcessPoolExecutor

    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    pool = ProcessPoolExecutor(
        n_jobs,
        initializer=_begin_worker,
        initargs=(os.getpid(),),
        env=dict.fromkeys(names, str(threads)),
    )
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, kill_workers=True)


def _begin_worker(parent: int) -> None:
    """What a worker does first: leave Ctrl-C to its parent, and end when that is gone."""
    import signal
    import threading

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def on_dask(
    task: Task, cases: Sequence[Case], client: Any, *, retries: int = 2
) -> Iterator[Outcome]:
    """Cases as tasks of a Dask client; Dask sends those of a worker that is lost to another one."""
    from distributed import as_completed

    of = {
        client.submit(
            compute,
            task,
            case,
            key=f"mpodis-{case.key}-{time.time_ns()}",
            pure=False,
            retries=retries,
        ): case
        for case in cases
    }
    try:
        for future in as_completed(list(of), raise_errors=False):
            case = of.pop(future)
            if future.status == "finished":
                yield future.result()
                continue
            error = future.exception()
            if isinstance(error, OSError):
                raise error
            yield failed(task, case, error, 0.0)
    finally:
        client.cancel(list(of))
