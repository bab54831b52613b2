"""Progress: a bar on a terminal, plain lines elsewhere, nothing where it is switched off."""

import io
import logging
import re
import time
from types import SimpleNamespace

import pytest

from mpodis import cli
from mpodis.progress import Bar, Deadline, bar, track, within_limit


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch, request):
    made = request.param() if hasattr(request, "param") else io.StringIO()
    monkeypatch.setattr("mpodis.progress.sys", SimpleNamespace(stderr=made, modules={}))
    return made


@pytest.fixture
def clock(monkeypatch):
    """Seconds that only pass when the test says so."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr("mpodis.progress.time", made)
    return made


def test_a_line_every_few_seconds_without_a_terminal(stream, clock):
    with bar(total=4, desc="sweeps") as shown:
        shown.update(overlap=0.1234567)
        assert stream.getvalue() == ""
        clock.now = 10.0
        shown.update(overlap=0.25, phase="polish")
        clock.now = 15.0
        shown.update()
        clock.now = 20.0
        shown.update()
    assert stream.getvalue().splitlines() == [
        "sweeps: 2/4, overlap 0.25, phase polish, 10 s, about 10 s left",
        "sweeps: 4/4, overlap 0.25, phase polish, 20 s, about 0 s left",
    ]


def test_figures_keep_six_digits(stream):
    shown = Bar(total=None, desc="x")
    shown.update(f=0.12345678, bond=4)
    assert shown.figures == "f 0.123457, bond 4"


def test_without_a_total_there_is_no_time_left(stream, clock):
    shown = Bar(total=None, desc="points", every=0)
    clock.now = 3.0
    shown.update(5)
    assert stream.getvalue() == "points: 5, 3 s\n"
    shown.close()


def test_time_left_holds_for_what_is_taken_up_again_and_is_never_negative(stream, clock):
    shown = Bar(total=100, desc="sweeps", done=90)
    clock.now = 8.0
    shown.update(4)
    assert shown.line() == "sweeps: 94/100, 8 s, about 12 s left"
    shown.update(7)
    assert shown.line() == "sweeps: 101/101, 8 s, about 0 s left"


def test_a_note_is_a_line_of_its_own(stream):
    with bar(total=3, desc="sweeps") as shown:
        shown.note("truncation alone loses half")
    with bar(total=3, desc="sweeps", enabled=False) as shown:
        shown.note("not shown")
    assert stream.getvalue() == "truncation alone loses half\n"


def test_a_limit_is_shared_among_parts(clock):
    whole = Deadline(10.0)
    clock.now = 2.0
    part = whole.part(0.5)
    assert (whole.left, part.left) == (8.0, 3.0)
    clock.now = 6.0
    assert part.has_passed
    assert not whole.has_passed
    assert 0 < part.left < 1e-6  # as the limit of something else, which must be positive
    assert Deadline().part(0.5).left is None
    assert not Deadline().has_passed


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_limit_is_positive(seconds):
    with pytest.raises(ValueError, match="max_seconds"):
        Deadline(seconds)


def test_a_call_that_takes_longer_than_its_limit_says_so_once(caplog):
    @within_limit
    def inner(*, max_seconds=None):
        time.sleep(0.01)

    @within_limit
    def outer(*, max_seconds=None):
        inner(max_seconds=max_seconds)

    outer(max_seconds=10.0)
    outer()
    assert not caplog.records
    outer(max_seconds=1e-3)
    (said,) = caplog.messages
    assert said.startswith("outer took 0.0")
    assert said.endswith("cannot be cut short; allow more")


def test_disabled_shows_nothing(stream):
    shown = Bar(total=2, desc="sweeps", enabled=False, every=0)
    shown.update()
    shown.close()
    assert (stream.getvalue(), shown.done) == ("", 1)


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_a_terminal_gets_a_bar(stream):
    with bar(total=3, desc="sweeps") as shown:
        for _ in range(3):
            shown.update(overlap=0.5)
            shown._bar.refresh()
    text = stream.getvalue()
    assert "sweeps" in text
    assert "3/3" in text
    assert "overlap 0.5" in text


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_a_disabled_bar_leaves_the_terminal_alone(stream):
    assert list(track("abc", desc="letters", enabled=False)) == list("abc")
    assert stream.getvalue() == ""


def test_track_counts_and_passes_everything_on(stream, monkeypatch):
    seen = []
    monkeypatch.setattr(Bar, "update", lambda self, n=1: seen.append(self.total))
    assert list(track([1, 2, 3], desc="numbers")) == [1, 2, 3]
    assert list(track(iter("ab"), desc="letters")) == ["a", "b"]
    assert list(track(iter("ab"), desc="letters", total=2)) == ["a", "b"]
    assert seen == [3, 3, 3, None, None, 2, 2]


def test_a_notebook_gets_a_widget_that_ends_full():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipywidgets")
    code = (
        "import numpy, mpodis\n"
        "mpo = mpodis.compress(numpy.arange(64.0).reshape(8, 8) % 7).mpo\n"
        "found = mpodis.disentangle(mpo, depth=2, max_sweeps=3, progbar=True)"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(book, timeout=60, kernel_name="python3")
    client.execute()
    (view,) = [out for out in book.cells[0].outputs if out.output_type == "display_data"]
    widgets = book.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    box = widgets[view.data["application/vnd.jupyter.widget-view+json"]["model_id"]]["state"]
    before, filled, after = (
        widgets[name.removeprefix("IPY_MODEL_")]["state"] for name in box["children"]
    )
    assert "disentangle" in before["value"]
    assert filled["value"] == filled["max"] > 3
    assert filled["bar_style"] == "success"
    assert "best" in after["value"]
    assert "stage" in after["value"]
    text = "".join(out.text for out in book.cells[0].outputs if out.output_type == "stream")
    assert "truncation alone" in text


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_a_bar_closes_when_the_loop_fails(stream):
    shown = []

    def loop():
        with bar(total=3, desc="sweeps") as made:
            shown.append(made)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        loop()
    assert shown[0]._bar.disable  # what tqdm calls a closed bar


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_a_narrow_terminal_gets_whole_figures_only(stream, monkeypatch):
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda file: (60, 20))
    with bar(total=3, desc="sweeps") as shown:
        shown.update(best=0.5, overlap=6.379612e-6, guess="1 of 4")
        shown._bar.refresh()
    text = stream.getvalue()
    assert "best 0.5" in text
    assert "6.37" not in text  # cut after the 6.379 it would be another number
    assert shown.line().startswith("sweeps: 1/1, best 0.5, overlap 6.37961e-06, guess 1 of 4")


@pytest.mark.parametrize("stream", [Terminal], indirect=True)
def test_a_line_of_the_log_is_not_written_behind_the_bar(stream):
    handler = cli._AboveTheBar(stream)
    with bar(total=3, desc="sweeps") as shown:
        shown._bar.refresh()
        handler.emit(logging.makeLogRecord({"msg": "truncation alone loses half"}))
    lines = re.split(r"[\r\n]", stream.getvalue())
    assert "truncation alone loses half" in lines
