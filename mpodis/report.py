"""A job's results as tables, figures and one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes

from mpodis.files import write_atomic
from mpodis.jobs import REPRODUCE, load_job, open_job
from mpodis.tables import Table

__all__ = ["figure_of", "render", "tables"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.85rem; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.3rem; }
th, td { padding: 0.18rem 0.7rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
figure { display: inline-block; width: calc(50% - 1.2rem); margin: 0.5rem 1rem 0.5rem 0;
         vertical-align: top; }
figure img { width: 100%; } figcaption { font-size: 0.8rem; color: #555; }
@media (max-width: 50rem) { figure { width: 100%; } }
.note { font-size: 0.8rem; color: #555; } pre { background: #f5f5f5; padding: 0.7rem; }
"""


def tables(results: dict) -> list[Table]:
    """The tables that `mpodis show` prints."""
    return load_job(_title(results)).tables(results)


def figure_of(record: dict) -> bytes:
    """All figures of an experiment's record as one PNG, two in a row."""
    return _draw([figure.draw for figure in load_job(_title(record)).figures(record).values()])


def _title(results: dict) -> str:
    """The title of the job that gave the results, see `load_job`."""
    if "experiment" in results:
        return REPRODUCE + results["experiment"]
    return results["job"]


def render(directory: str | os.PathLike) -> Path:
    """Write `report.html` and `figures/*.png` of a finished job; returns the page's path."""
    folder, title, options = open_job(directory)
    job, results = load_job(title), folder.results()
    (folder.path / "figures").mkdir(exist_ok=True)
    figures, blocks = job.figures(results), []
    for name, figure in figures.items():
        png = _draw([figure.draw])
        write_atomic(folder.path / "figures" / f"{name}.png", png)
        source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        blocks.append(
            f'<figure><img src="{source}" alt="{html.escape(name)}">'
            f"<figcaption>{html.escape(figure.caption)}</figcaption></figure>"
        )
    if "experiment" in results and figures:
        write_atomic(folder.path / "figures" / f"{results['experiment']}.png", figure_of(results))
    heading, introduction = job.introduction(results)
    given = "\n".join(f"{key} = {value!r}" for key, value in options.to_dict().items())
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>'
        f"{html.escape(heading)}</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>{html.escape(heading)}</h1>\n{introduction}\n"
        + "\n".join(blocks)
        + "\n"
        + "\n".join(table._repr_html_() for table in job.tables(results))
        + f"\n<h2>Options</h2><pre>{html.escape(given)}</pre>\n</body></html>\n"
    )
    write_atomic(folder.path / "report.html", page)
    return folder.path / "report.html"


def _draw(panels: Sequence[Callable[[Axes], object]]) -> bytes:
    """Panels on the Axes of one figure, as a PNG."""
    import matplotlib

    # a page must not open windows, whatever the user's backend is
    with matplotlib.rc_context({"savefig.dpi": 130}):
        from matplotlib.figure import Figure

        columns = min(2, len(panels))
        rows = math.ceil(len(panels) / columns)
        figure = Figure(figsize=(6.0 * columns, 3.7 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for draw, ax in zip(panels, axes, strict=False):
            draw(ax)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        stream = io.BytesIO()
        figure.savefig(stream, format="png")
    return stream.getvalue()
