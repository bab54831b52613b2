"""Progress bars (widgets in notebooks, plain lines elsewhere), time limits, and Ctrl-C."""

from __future__ import annotations

import functools
import importlib.util
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from mpodis.arguments import check_positive
from mpodis.tables import number

__all__ = ["Bar", "Deadline", "bar", "interrupts", "track", "within_limit"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

LATE = 1.1
"""A call is late that takes more than this times its limit."""

BAR_FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
)
"""A bar of ten characters: the line is for the figures."""

_is_part: ContextVar[bool] = ContextVar("call_is_part_of_a_limited_one", default=False)


class Deadline:
    """A time limit of a computation of several parts, counted from here.

    Parameters
    ----------
    seconds : float or None
        None: there is no limit.

    Raises
    ------
    ValueError
        If the limit is not a positive number.
    """

    def __init__(self, seconds: float | None = None) -> None:
        check_positive("max_seconds", seconds, or_none=True)
        self._seconds = None if seconds is None else float(seconds)
        self._began = time.monotonic()

    @property
    def left(self) -> float | None:
        """Seconds that are left, as the limit of a part; None without a limit."""
        if self._seconds is None:
            return None
        return max(1e-9, self._seconds - (time.monotonic() - self._began))

    @property
    def has_passed(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._began >= self._seconds

    def fraction(self) -> float:
        """The fraction of the time that has gone by; 0 without a limit."""
        if self._seconds is None:
            return 0.0
        return (time.monotonic() - self._began) / self._seconds

    def part(self, fraction: float) -> Deadline:
        """The limit of a part that may last until this fraction of the whole has gone by."""
        if self._seconds is None:
            return self
        return Deadline(max(1e-9, (fraction - self.fraction()) * self._seconds))


def within_limit(function: Callable[P, T]) -> Callable[P, T]:
    """Log a line where a call exceeds its `max_seconds=`, as steps that cannot be cut short do.

    Functions that are called inside it have limits of their own, of which nothing is said.
    """

    @functools.wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        limit: Any = kwargs.get("max_seconds")
        if limit is None or _is_part.get():
            return function(*args, **kwargs)
        token, began = _is_part.set(True), time.monotonic()
        try:
            result = function(*args, **kwargs)
        finally:
            _is_part.reset(token)
        seconds = time.monotonic() - began
        if seconds > LATE * limit:
            log.warning(
                "%s took %.2g s, more than max_seconds=%g: its least work, to read the operator "
                "and to decompose it once, cannot be cut short; allow more",
                function.__name__,
                seconds,
                limit,
            )
        return result

    return limited


class Bar:
    """A widget in a notebook, a `tqdm` bar on a terminal, elsewhere a line every few seconds.

    Parameters
    ----------
    total : int or None
        Number of steps, if it is known, or the most there can be.
    desc : str
        What is counted.
    enabled : bool
        False shows nothing.
    every : float
        Seconds between two lines of text.
    done : int
        Steps that were done before, of something that is taken up again.
    """

    def __init__(
        self,
        *,
        total: int | None,
        desc: str,
        enabled: bool = True,
        every: float = 10.0,
        done: int = 0,
    ) -> None:
        self.total, self.desc, self.every = total, desc, every
        self.done, self.figures = done, ""
        self._before, self._began = done, time.monotonic()
        self._last = self._began
        self._stream = sys.stderr
        self._enabled = enabled
        self._bar = self._made() if enabled else None

    def _made(self) -> Any:
        """tqdm's bar, where there is something that shows it."""
        options = {"total": self.total, "desc": self.desc, "initial": self.done}
        if _in_notebook():
            from tqdm.notebook import tqdm as widget

            return widget(**options)
        if self._stream.isatty():
            from tqdm import tqdm

            if self.total is not None:
                options["bar_format"] = BAR_FORMAT
            return tqdm(**options, file=self._stream, dynamic_ncols=True, leave=False)
        return None

    def update(self, n: int = 1, **figures: float | str) -> None:
        """Advance by `n` steps and show figures such as the overlap, the first ones first."""
        self.done += n
        if self.total is not None:
            self._set_total(max(self.total, self.done))
        shown = [
            f"{key} {number(value, 6)}" if isinstance(value, float) else f"{key} {value}"
            for key, value in figures.items()
        ]
        if shown:
            self.figures = ", ".join(shown)
        if self._bar is not None:
            if shown:
                self._bar.set_postfix_str(self._that_fit(shown), refresh=False)
            self._bar.update(n)
        elif self._enabled and time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            print(self.line(), file=self._stream, flush=True)

    def _that_fit(self, shown: list[str]) -> str:
        """As many figures as the terminal has room for: one that is cut has another value."""
        columns = None if self._bar is None else self._bar.format_dict["ncols"]
        if columns is None or self.total is None:
            return self.figures
        count = f"{self.total}/{self.total}"
        room = columns - len(f"{self.desc}: 100%|{10 * ' '}| {count} [0:00:00<0:00:00, ]")
        while len(", ".join(shown)) > room and len(shown) > 1:
            shown = shown[:-1]
        return ", ".join(shown)

    def _set_total(self, total: int) -> None:
        if total == self.total:
            return
        self.total = total
        if self._bar is not None:
            self._bar.total = total
            if _in_notebook():  # the widget has a total of its own
                self._bar.container.children[1].max = total

    def note(self, text: str) -> None:
        """Show a sentence, above the bar where there is one."""
        if self._bar is not None:
            self._bar.write(text, file=None if _in_notebook() else self._stream)
        elif self._enabled:
            print(text, file=self._stream, flush=True)

    def line(self) -> str:
        """The state as one line of text, with the time left if the total is known."""
        seconds, new = time.monotonic() - self._began, self.done - self._before
        text = f"{self.desc}: {self.done}" + (f"/{self.total}" if self.total else "")
        if self.figures:
            text += f", {self.figures}"
        text += f", {seconds:.0f} s"
        if self.total and new > 0:
            text += f", about {seconds / new * (self.total - self.done):.0f} s left"
        return text

    def finish(self) -> None:
        """Show the bar as complete, whatever its total was."""
        if self.total is not None and self.done:
            self._set_total(self.done)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this, and can show widgets."""
    if "IPython" not in sys.modules or importlib.util.find_spec("ipywidgets") is None:
        return False
    return hasattr(sys.modules["IPython"].get_ipython(), "kernel")


@contextmanager
def bar(*, total: int | None, desc: str, enabled: bool = True, done: int = 0) -> Iterator[Bar]:
    """A `Bar` that closes itself."""
    shown = Bar(total=total, desc=desc, enabled=enabled, done=done)
    if not enabled:
        yield shown
        return
    try:
        yield shown
        shown.finish()
    finally:
        shown.close()


def track(
    items: Iterable[T], *, desc: str, total: int | None = None, enabled: bool = True
) -> Iterator[T]:
    """Iterate over `items` and show a `Bar`; by default `total` is their length, if any."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(total=total, desc=desc, enabled=enabled) as shown:
        for item in items:
            yield item
            shown.update()


@contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed. The first one only asks to stop; the second one raises."""
    pressed: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False  # others handle Ctrl-C
        return

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)
        log.warning("stopping after this sweep; press Ctrl-C again to stop at once")

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
