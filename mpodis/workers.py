"""Processes that work for this one, and end with it however it ends.

A process that is killed cannot end those that it has started, and they would go on for hours. So
every worker watches its parent: on Linux the kernel kills it, and everywhere a thread looks whether
the parent is still there.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

__all__ = ["end_with_parent", "pool"]

LOOK_SECONDS = 0.5
"""Time between two looks at whether the parent is there."""
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_watched: set[int] = set()


def end_with_parent(parent: int, *, of_main_thread: bool = True) -> None:
    """End this process within a second of its parent, and leave Ctrl-C to the parent.

    A worker calls it before anything else; more calls change nothing. Ctrl-C reaches every process
    of a terminal, and the one that waits for the others decides.

    Parameters
    ----------
    parent : int
        Process id of the parent, from `os.getpid` there; in that process itself nothing is done.
    of_main_thread : bool
        Whether it was the main thread of the parent that started this process. The kernel's signal
        comes when the thread ends that did, which may be long before the parent.
    """
    if parent == os.getpid() or parent in _watched:
        return
    _watched.add(parent)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if of_main_thread and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the signal was asked for
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)  # at once: a handler at the end of the process might wait for others


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; processes that are started meanwhile never get it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Pool(ProcessPoolExecutor):
    """Starts its processes in `submit`."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with _without_ctrl_c():
            return super().submit(fn, *args, **kwargs)


@contextmanager
def pool(n_jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many worker processes as an executor, for example `executor=` of `disentangle`.

    They begin afresh, since a fork would inherit the threads of BLAS and torch. If an exception
    leaves the context, Ctrl-C included, they are killed at once, else they end their work.

    Examples
    --------
    >>> with pool(2) as executor:
    ...     list(executor.map(abs, [-1, -2]))
    [1, 2]
    """
    executor = _Pool(
        n_jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(os.getpid(), _in_main_thread()),
    )
    try:
        yield executor
        executor.shutdown()
    except BaseException:
        processes = list((executor._processes or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        raise


def _begin(parent: int, of_main_thread: bool) -> None:
    end_with_parent(parent, of_main_thread=of_main_thread)
