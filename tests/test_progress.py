"""Progress: a bar on a terminal, plain lines elsewhere, nothing where it is switched off."""

import io
from types import SimpleNamespace

import pytest

from mpodis.progress import Bar, bar, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def stream(monkeypatch, request):
    made = request.param() if hasattr(request, "param") else io.StringIO()
    monkeypatch.setattr("mpodis.progress.sys", SimpleNamespace(stderr=made))
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
