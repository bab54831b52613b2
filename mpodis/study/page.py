"""The page of a study: one HTML file that loads nothing from elsewhere and refreshes itself."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from pathlib import Path

from mpodis.files import write_atomic
from mpodis.study.live import LiveStudy, Series, clock
from mpodis.tables import number

__all__ = ["write_page"]

REFRESH_SECONDS = 3
MOST_SERIES, MOST_FAILURES, MOST_POINTS = 60, 40, 120
"""What a page shows at most; the rest is in the tables and figures."""
WIDTH, HEIGHT, MARGIN = 150, 34, 4
"""Of a sparkline, in pixels."""

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --faint: #5a5a5a; --page: #fff; --line: #ddd;
        --box: #f3f5f8; --mark: #1f77b4; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --faint: #a8a8a8; --page: #16181c; --line: #3a3d42; --box: #22252b;
          --mark: #6cb2ea; --bad: #f2867f; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 1.5rem auto;
       padding: 0 1rem; color: var(--text); background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin-bottom: 0.3rem; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
.bar { display: flex; height: 0.7rem; border-radius: 0.35rem; overflow: hidden;
       background: var(--box); }
.bar i { background: var(--mark); } .bar i + i { background: var(--bad); }
dl { display: flex; flex-wrap: wrap; gap: 0.6rem 2.5rem; margin: 1rem 0; }
dt { font-size: 0.85rem; color: var(--faint); } dd { margin: 0; font-size: 1.25rem; }
.best { background: var(--box); border-left: 0.3rem solid var(--mark); padding: 0.5rem 1rem;
        border-radius: 0.3rem; margin: 0; list-style: none; }
.note { font-size: 0.85rem; color: var(--faint); } .bad { color: var(--bad); }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.8rem; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child, td:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; }
td b { display: inline-block; min-width: 5.2em; text-align: left; font-weight: normal; }
svg { vertical-align: middle; } polyline { fill: none; stroke: var(--mark); stroke-width: 1.5; }
circle { fill: var(--mark); }
"""


def write_page(study: LiveStudy, *, is_running: bool = False) -> Path:
    """Write `index.html` in the study's directory, atomically; returns its path.

    Parameters
    ----------
    study : LiveStudy
    is_running : bool
        Whether cases are being computed: the page then reads itself again every few seconds.
    """
    title = html.escape(study.name)
    state = "running" if is_running else ("not running" if study.left else "ended")
    refresh = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if is_running else ""
    shares = "".join(
        f'<i style="width:{100 * count / max(study.total, 1):.2f}%"></i>'
        for count in (study.done, len(study.failures))
    )
    states = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(text)}</dd></div>" for name, text in study.states()
    )
    description = f"<p>{html.escape(study.description)}</p>\n" if study.description else ""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{refresh}<title>{title}: {study.done} of {study.total}</title>"
        f"<style>{_STYLE}</style></head><body><main>\n<h1>Study {title}</h1>\n{description}"
        f'<p class="note">{state}, written at {clock()}</p>\n'
        f'<div class="bar" role="img" aria-label="{study.done} of {study.total} cases done, '
        f'{len(study.failures)} failed">{shares}</div>\n<dl>{states}</dl>\n'
        f"{_best(study)}{_series(study)}{_failures(study)}</main></body></html>\n"
    )
    path = study.directory / "index.html"
    write_atomic(path, page)
    return path


def _best(study: LiveStudy) -> str:
    found = [study.best[name] for name in study.quantities if name in study.best]
    items = "".join(f"<li>{html.escape(str(best))}</li>" for best in found)
    return f'<h2>Best so far</h2>\n<ul class="best">{items}</ul>\n' if items else ""


def _series(study: LiveStudy) -> str:
    """A row a series: settings, a sparkline for every quantity with its last value, counts."""
    shown = list(study.series.values())[:MOST_SERIES]
    if not study.quantities:
        return ""
    order = study.order[:: math.ceil(len(study.order) / MOST_POINTS)]
    curves = {name: [one.medians(name, order) for one in shown] for name in study.quantities}
    scales = {name: _Scale(lines) for name, lines in curves.items()}
    head = "".join(f"<th>{html.escape(name)}</th>" for name in study.quantities)
    rows = "".join(
        _row(one, [_spark(curves[q][k], scales[q]) for q in study.quantities])
        for k, one in enumerate(shown)
    )
    more = len(study.series) - len(shown)
    x = html.escape(study.x.rpartition(".")[2])
    ends = f"{number(order[0])} to {number(order[-1])}" if len(order) > 1 else number(order[0])
    ranges = "; ".join(f"{html.escape(name)} {scale}" for name, scale in scales.items())
    return (
        f'<h2>Against {x}</h2>\n<div class="table"><table><thead><tr><th>series</th>{head}'
        f"<th>done</th><th>failed</th></tr></thead><tbody>{rows}</tbody></table></div>\n"
        f'<p class="note">Medians over the seeds for {x} = {ends}, and the last of them as a '
        f"number. All curves of a column have one scale: {ranges}."
        + (f" {more:,} further series are not shown." if more > 0 else "")
        + "</p>\n"
    )


def _row(one: Series, cells: Sequence[str]) -> str:
    kind = ' class="bad"' if one.failed else ""
    return (
        f"<tr><td>{html.escape(one.label) or 'all'}</td>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + f"<td>{one.done}/{one.total}</td><td{kind}>{one.failed or ''}</td></tr>\n"
    )


class _Scale:
    """From a value to a height, logarithmic where values spread over two decades."""

    def __init__(self, lines: Sequence[Sequence[float]]) -> None:
        values = [value for line in lines for value in line if not math.isnan(value)]
        self.low, self.high = min(values, default=0.0), max(values, default=0.0)
        self.is_log = self.low > 0 and self.high > 100 * self.low

    def __call__(self, value: float) -> float:
        """0 for the least, 1 for the largest."""
        low, high = self.low, self.high
        if self.is_log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low) if high > low else 0.5

    def __str__(self) -> str:
        kind = ", logarithmic" if self.is_log else ""
        return f"from {number(self.low)} to {number(self.high)}{kind}"


def _spark(line: Sequence[float], scale: _Scale) -> str:
    """A curve as inline SVG, and its last value."""
    step = (WIDTH - 2 * MARGIN) / max(len(line) - 1, 1)
    points = [
        (MARGIN + k * step, HEIGHT - MARGIN - scale(value) * (HEIGHT - 2 * MARGIN), value)
        for k, value in enumerate(line)
        if not math.isnan(value)
    ]
    if not points:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in points)
    x, y, last = points[-1]
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="ends at {number(last)}">'
        f'<polyline points="{path}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="2.5"/></svg> '
        f"<b>{number(last)}</b>"
    )


def _failures(study: LiveStudy) -> str:
    if not study.failures:
        return ""
    shown = list(study.failures.items())[-MOST_FAILURES:]
    rows = "".join(
        f'<tr><td>{html.escape(label)}</td><td class="text">{html.escape(error)}</td>'
        f'<td><a href="failed/{key}.json">traceback</a></td></tr>\n'
        for key, (label, error) in reversed(shown)
    )
    more = len(study.failures) - len(shown)
    return (
        '<h2>Failed</h2>\n<div class="table"><table><thead><tr><th>case</th>'
        f'<th class="text">error</th><th></th></tr></thead><tbody>{rows}</tbody></table></div>\n'
        + (f'<p class="note">{more:,} further ones are not shown.</p>\n' if more > 0 else "")
    )
