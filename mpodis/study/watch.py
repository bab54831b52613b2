"""A study under way in a terminal: a table of rich, or a line of text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mpodis.study.live import LiveStudy, clock
from mpodis.tables import number

if TYPE_CHECKING:
    from rich.console import Console, Group

__all__ = ["follow", "screen"]

BLOCKS = "▁▂▃▄▅▆▇█"
MOST_FAILURES = 4
MOST_POINTS = 24


def follow(
    study: LiveStudy,
    console: Console,
    *,
    every: float,
    once: bool,
    sleep: Callable[[float], None],
) -> bool:
    """Show a study until it ends or nobody works on it any more; whether all cases have ended.

    A terminal shows `screen`; anything else gets a line whenever something has changed.
    """
    from rich.live import Live

    idle, last = 0, ""
    shown = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with shown or contextlib.nullcontext():
        while True:
            running = study.is_running  # before the records, which may be newer
            study.refresh()
            if shown is not None:
                shown.update(screen(study, console.height, running), refresh=True)
            elif study.line() != last:
                last = study.line()
                console.print(f"{clock()}  {last}", highlight=False, markup=False, soft_wrap=True)
            idle = 0 if running else idle + 1
            if once or not study.left or idle > 1:
                return not study.left
            sleep(every)


def screen(study: LiveStudy, height: int, is_running: bool) -> Group:
    """Counts, the best so far, a row a series, and the last failures, within so many lines."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble((study.name, "bold"), "  ", "running" if is_running else "not running")
    states = Text("   ").join(Text.assemble((f"{n} ", "dim"), text) for n, text in study.states())
    parts: list[Text | Table] = [head, states]
    parts += [Text(str(study.best[q])) for q in study.quantities if q in study.best]
    failures = list(study.failures.values())[-MOST_FAILURES:]
    if study.quantities:
        table = Table(box=None, pad_edge=False)
        table.add_column(Text(f"against {study.x.rpartition('.')[2]}"))
        for name in study.quantities:
            table.add_column(Text(name), justify="right", no_wrap=True)
        table.add_column("done", justify="right")
        table.add_column("failed", justify="right", style="red")
        room = max(height - len(parts) - len(failures) - 4, 3)
        several = list(study.series.values())
        order = study.order[:: math.ceil(len(study.order) / MOST_POINTS)]
        lines = {q: [one.medians(q, order) for one in several] for q in study.quantities}
        for k, one in enumerate(several[:room]):
            cells = [_spark(lines[q][k], lines[q]) for q in study.quantities]
            failed = str(one.failed or "")
            table.add_row(
                Text(one.label or "all"), *map(Text, cells), f"{one.done}/{one.total}", failed
            )
        parts.append(table)
        if len(several) > room:
            parts.append(Text(f"{len(several) - room} further series", "dim"))
    for label, error in failures:
        parts.append(Text.assemble(("failed ", "red"), f"{label}: {error}", overflow="ellipsis"))
    return Group(*parts)


def _spark(line: Sequence[float], others: Sequence[Sequence[float]]) -> str:
    """A curve as blocks on the scale of all, and its last value."""
    values = [value for other in others for value in other if not math.isnan(value)]
    if not values:
        return ""
    low, high = min(values), max(values)
    found = [value for value in line if not math.isnan(value)]
    blocks = "".join(
        " " if math.isnan(value) else BLOCKS[round(7 * (value - low) / ((high - low) or 1.0))]
        for value in line
    )
    return f"{blocks} {number(found[-1])}" if found else blocks
