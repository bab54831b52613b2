"""The progress bar of the package: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

__all__ = ["Bar", "bar", "track"]

T = TypeVar("T")


class Bar:
    """A `tqdm` bar on a terminal; elsewhere a line of text every few seconds.

    Parameters
    ----------
    total : int or None
        Number of steps, if it is known.
    desc : str
        What is counted.
    enabled : bool
        False shows nothing.
    every : float
        Seconds between two lines of text.
    """

    def __init__(
        self, *, total: int | None, desc: str, enabled: bool = True, every: float = 10.0
    ) -> None:
        self.total, self.desc, self.every = total, desc, every
        self.done, self.figures = 0, ""
        self._began = self._last = time.monotonic()
        self._stream = sys.stderr
        self._bar = None
        self._enabled = enabled
        if enabled and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, desc=desc, file=self._stream, dynamic_ncols=True, leave=False
            )

    def update(self, n: int = 1, **figures: float | str) -> None:
        """Advance by `n` steps and show figures such as the overlap."""
        self.done += n
        if figures:
            self.figures = ", ".join(
                f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
                for key, value in figures.items()
            )
        if self._bar is not None:
            self._bar.set_postfix_str(self.figures, refresh=False)
            self._bar.update(n)
        elif self._enabled and time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            print(self.line(), file=self._stream, flush=True)

    def line(self) -> str:
        """The state as one line of text, with the time left if the total is known."""
        seconds = time.monotonic() - self._began
        text = f"{self.desc}: {self.done}" + (f"/{self.total}" if self.total else "")
        if self.figures:
            text += f", {self.figures}"
        text += f", {seconds:.0f} s"
        if self.total and 0 < self.done <= self.total:
            text += f", about {seconds / self.done * (self.total - self.done):.0f} s left"
        return text

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def bar(*, total: int | None, desc: str, enabled: bool = True) -> Iterator[Bar]:
    """A `Bar` that closes itself."""
    shown = Bar(total=total, desc=desc, enabled=enabled)
    try:
        yield shown
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
