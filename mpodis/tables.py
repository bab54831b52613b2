"""Tables: results as text, as HTML in Jupyter, as CSV and as pandas DataFrames."""

from __future__ import annotations

import csv
import html
import io
import math
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mpodis.files import write_atomic

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "Tabular", "number"]

EXACT = 1e-10
"""What lies within this of 1 is 1 but for rounding."""


def number(value: Any, digits: int = 4) -> str:
    """The text of a cell: floats to `digits` significant digits, counts with separators.

    None and NaN are a dash. What these digits would round up to 1 is given as a distance from it.

    >>> number(0.99), number(1 - 4.5e-5), number(1.0)
    ('0.99', '1 - 4.5e-05', '1')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | np.bool | str):
        return str(value)
    if isinstance(value, numbers.Integral):  # numpy's integers too
        return f"{value:,}"
    text = f"{value:.{digits}g}"
    return f"1 - {1.0 - value:.1e}" if text == "1" and value < 1.0 - EXACT else text


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names, with an optional title and notes."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    notes: Sequence[str] = ()

    @classmethod
    def from_dataframe(
        cls, frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = ()
    ) -> Table:
        """A pandas DataFrame, the levels of its index first; what is missing is a dash."""
        flat = frame.reset_index()
        names = [name if isinstance(name, tuple) else (name,) for name in flat.columns]
        columns = [" ".join(str(part) for part in name if part != "") for name in names]
        rows = flat.astype(object).where(flat.notna(), None).to_numpy().tolist()
        return cls(columns, rows, title, notes)

    def cells(self) -> list[list[str]]:
        """The text of every cell."""
        return [[number(cell) for cell in row] for row in self.rows]

    def __str__(self) -> str:
        cells = [list(self.columns), *self.cells()]
        widths = [max(len(row[c]) for row in cells) for c in range(len(self.columns))]
        lines = [
            "  ".join(
                cell.ljust(width) if c == 0 else cell.rjust(width)
                for c, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        lines.insert(1, "-" * (sum(widths) + 2 * (len(widths) - 1)))
        return "\n".join([*([self.title] if self.title else []), *lines, *self.notes])

    __repr__ = __str__

    def to_csv(self, path: str | os.PathLike | None = None) -> str:
        """The columns and rows as CSV, numbers in full, None as an empty cell.

        Parameters
        ----------
        path : path, optional
            File to which the text is also written.
        """
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        if path is not None:
            write_atomic(path, stream.getvalue())
        return stream.getvalue()

    def to_dataframe(self) -> pd.DataFrame:
        """The columns and rows as a pandas DataFrame, numbers in full.

        A column without a name, as of a table of properties, is called "value".
        """
        import pandas as pd

        columns = [column or "value" for column in self.columns]
        return pd.DataFrame([list(row) for row in self.rows], columns=columns)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(c)}</th>" for c in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.cells()
        )
        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in self.notes)
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"


class Tabular:
    """A result that is printed, shown in Jupyter and written as its `table()`."""

    def __init_subclass__(cls) -> None:
        # `dataclass` would make one that lists every number of every array
        cls.__repr__ = cls.__str__

    def table(self) -> Table:
        """The result as a table."""
        raise NotImplementedError

    def to_csv(self, path: str | os.PathLike | None = None) -> str:
        """The table as CSV, see `Table.to_csv`."""
        return self.table().to_csv(path)

    def to_dataframe(self) -> pd.DataFrame:
        """The table as a pandas DataFrame, see `Table.to_dataframe`."""
        return self.table().to_dataframe()

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
