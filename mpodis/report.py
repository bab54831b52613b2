"""A job's results as tables, figures and one self-contained HTML page."""

from __future__ import annotations

import html
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Canvas

from mpodis.files import write_atomic
from mpodis.jobs import REPRODUCE, Figure, load_job, open_job
from mpodis.tables import Table

__all__ = ["figure_of", "render", "tables", "verdict"]

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --faint: #5a5a5a; --page: #fff; --line: #ddd;
        --box: #f3f5f8; --mark: #1f77b4; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --faint: #a8a8a8; --page: #16181c; --line: #3a3d42; --box: #22252b;
          --mark: #6cb2ea; } }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 68rem; margin: 1.5rem auto;
       padding: 0 1rem; color: var(--text); background: var(--page); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.verdict { background: var(--box); border-left: 0.3rem solid var(--mark); padding: 0.7rem 1rem;
           border-radius: 0.3rem; }
.verdict p { margin: 0; font-size: 1.1rem; }
.verdict ul { margin: 0.5rem 0 0; padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr));
           gap: 1rem; }
figure { margin: 0; } figure.wide { grid-column: 1 / -1; }
figure div { background: #fff; border-radius: 0.3rem; overflow-x: auto; }
figure svg { display: block; max-width: 100%; height: auto; margin: auto; }
figure.wide svg { max-width: none; }
figcaption, .note { font-size: 0.85rem; color: var(--faint); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem;
          max-width: calc(100vw - 2.5rem); }
th, td { padding: 0.18rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line);
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
                                 background: var(--page); }
pre { background: var(--box); padding: 0.7rem; overflow-x: auto; overflow-wrap: normal; }
"""


def tables(results: dict) -> list[Table]:
    """The tables that `mpodis show` prints."""
    return load_job(_title(results)).tables(results)


def verdict(results: dict) -> tuple[str, ...]:
    """What was reached in one sentence or two, then what must be said against it."""
    return load_job(_title(results)).verdict(results)


def figure_of(record: dict) -> bytes:
    """All figures of an experiment's record as one PNG, two in a row."""
    # experiments draw from the record alone
    figures = list(load_job(_title(record)).figures(record, Path()).values())
    return _png(figures)


def _title(results: dict) -> str:
    """The title of the job that gave the results, see `load_job`."""
    if "experiment" in results:
        return REPRODUCE + results["experiment"]
    return results["job"]


def render(directory: str | os.PathLike) -> Path:
    """Write `report.html` and `figures/*.svg` of a finished job; returns the page's path.

    The page begins with the verdict, and loads nothing from elsewhere. The options at its end are
    a TOML file for the option `--config` of the command.
    """
    folder, title, options = open_job(directory)
    job, results = load_job(title), folder.results()
    (folder.path / "figures").mkdir(exist_ok=True)
    figures, blocks = job.figures(results, folder.path), []
    for name, figure in figures.items():
        svg = _svg(name, figure)
        write_atomic(folder.path / "figures" / f"{name}.svg", svg)
        blocks.append(_figure_block(name, figure, svg))
    if "experiment" in results and figures:
        write_atomic(folder.path / "figures" / f"{results['experiment']}.png", figure_of(results))
    heading, introduction = job.introduction(results)
    first, *rest = (html.escape(sentence) for sentence in job.verdict(results))
    against = f"<ul>{''.join(f'<li>{sentence}</li>' for sentence in rest)}</ul>" if rest else ""
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(heading)}</title><style>{_STYLE}</style></head><body><main>\n"
        f"<h1>{html.escape(heading)}</h1>\n"
        f'<section class="verdict" aria-label="Verdict"><p>{first}</p>{against}</section>\n'
        f"{introduction}\n"
        f'<h2>Figures</h2>\n<div class="figures">\n{"".join(blocks)}</div>\n<h2>Tables</h2>\n'
        + "".join(map(_table_block, job.tables(results)))
        + f"<h2>Options</h2>\n<p>In a file <code>options.toml</code>, these repeat the job: "
        f"<code>mpodis {html.escape(title)} --config options.toml</code></p>\n"
        f'<pre tabindex="0">{html.escape(options.to_toml())}</pre>\n</main></body></html>\n'
    )
    write_atomic(folder.path / "report.html", page)
    return folder.path / "report.html"


def _figure_block(name: str, figure: Figure, svg: str) -> str:
    """A figure with its caption; `svg` without what only a file of its own needs."""
    image = svg[svg.index("<svg") :].replace(
        "<svg ", f'<svg role="img" aria-labelledby="caption-{name}" ', 1
    )
    image = re.sub(r' xmlns(:xlink)?="[^"]*"', "", image)
    wide = figure.size[0] > Figure.size[0]
    kind, scrolls = (' class="wide"', ' tabindex="0"') if wide else ("", "")
    return (
        f"<figure{kind}><div{scrolls}>{image}</div>"
        f'<figcaption id="caption-{name}">{html.escape(figure.caption)}</figcaption></figure>\n'
    )


def _table_block(table: Table) -> str:
    """A table that scrolls by itself where it is wider than the page."""
    label = f' role="region" aria-label="{html.escape(table.title)}"' if table.title else ""
    return f'<div class="table" tabindex="0"{label}>{table._repr_html_()}</div>\n'


def _svg(name: str, figure: Figure) -> str:
    """A figure as a file, the same for the same results."""
    # letters stay letters: the page is smaller, and they can be searched and read aloud
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5}):
        canvas = Canvas(figsize=figure.size, layout="constrained")
        figure.draw(canvas.subplots())
        stream = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(stream, format="svg", metadata=nothing)
    # groups are named alike in every figure; what is referred to has a name of its own
    return re.sub(r'<g id="[^"]*">', "<g>", stream.getvalue())


def _png(figures: Sequence[Figure]) -> bytes:
    """Figures on the Axes of one."""
    with matplotlib.rc_context({"savefig.dpi": 130}):
        columns = min(2, len(figures))
        rows = math.ceil(len(figures) / columns)
        canvas = Canvas(figsize=(6.0 * columns, 3.7 * rows), layout="constrained")
        axes = canvas.subplots(rows, columns, squeeze=False).ravel()
        for figure, ax in zip(figures, axes, strict=False):
            figure.draw(ax)
        for ax in axes[len(figures) :]:
            ax.set_axis_off()
        stream = io.BytesIO()
        canvas.savefig(stream, format="png")
    return stream.getvalue()
