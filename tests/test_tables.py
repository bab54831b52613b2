"""Tables: cells, text and HTML."""

from dataclasses import dataclass

import numpy as np
import pytest

from mpodis.tables import Table, Tabular, number

TABLE = Table(
    ("bond", "S (nats)"),
    [("1", 0.123456), ("average", None), ("a & b", 12345)],
    title="entropy <1>",
    notes=("nats & bits",),
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (float("nan"), "-"),
        (np.float64("nan"), "-"),
        ("as it is", "as it is"),
        (True, "True"),
        (np.bool(False), "False"),
        (7, "7"),
        (1234567, "1,234,567"),
        (np.int64(1234567), "1,234,567"),
        (0.123456, "0.1235"),
        (np.float32(0.5), "0.5"),
        (1e-12, "1e-12"),
        (float("inf"), "inf"),
    ],
)
def test_cells(value, text):
    assert number(value) == text


def test_digits():
    assert number(np.pi, digits=2) == "3.1"


def test_text_aligns_names_left_and_numbers_right():
    assert str(TABLE).splitlines() == [
        "entropy <1>",
        "bond     S (nats)",
        "-----------------",
        "1          0.1235",
        "average         -",
        "a & b      12,345",
        "nats & bits",
    ]


def test_text_without_title_rows_or_notes():
    assert str(Table(("a", "b"), [])).splitlines() == ["a  b", "----"]


def test_html_escapes_what_it_shows():
    html = TABLE._repr_html_()
    assert "<caption>entropy &lt;1&gt;</caption>" in html
    assert "<td>a &amp; b</td><td>12,345</td>" in html
    assert '<p class="note">nats &amp; bits</p>' in html
    assert html.count("<tr>") == 1 + len(TABLE.rows)
    assert "<caption>" not in Table(("a",), [])._repr_html_()


def test_a_tabular_shows_its_table():
    class Result(Tabular):
        def table(self):
            return TABLE

    assert str(Result()) == str(TABLE)
    assert Result()._repr_html_() == TABLE._repr_html_()


def test_a_dataclass_is_represented_by_its_table():
    @dataclass(frozen=True)
    class Result(Tabular):
        values: np.ndarray

        def table(self):
            return TABLE

    assert repr(TABLE) == str(TABLE)
    assert repr(Result(np.zeros(1000))) == str(TABLE)


def test_a_dataframe_holds_the_numbers_in_full():
    @dataclass(frozen=True)
    class Result(Tabular):
        def table(self):
            return TABLE

    frame = Result().to_dataframe()
    assert frame.to_dict("list")["bond"] == ["1", "average", "a & b"]
    np.testing.assert_equal(frame["S (nats)"].to_numpy(), [0.123456, np.nan, 12345])
    properties = Table(("compressed", ""), [("sites", 3)]).to_dataframe()
    assert properties.to_dict("records") == [{"compressed": "sites", "value": 3}]
    assert Table(("a", "b"), []).to_dataframe().columns.tolist() == ["a", "b"]


def test_csv_holds_the_numbers_in_full(tmp_path):
    @dataclass(frozen=True)
    class Result(Tabular):
        def table(self):
            return TABLE

    text = Result().to_csv(tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == text == TABLE.to_csv()
    assert text == "bond,S (nats)\n1,0.123456\naverage,\na & b,12345\n"
    assert Table(("a",), [('x, "y"',)]).to_csv() == 'a\n"x, ""y"""\n'
