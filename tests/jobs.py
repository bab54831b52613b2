"""What the tests of jobs and commands share: jobs that die, results without a clock, pages."""

import base64
import functools
import itertools
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

from mpodis.jobs import load_job, open_job
from mpodis.report import tables

ROOT = Path(__file__).resolve().parents[1]
PNG = b"\x89PNG\r\n\x1a\n"


def process(*arguments):
    """Another Python, from the root of the project."""
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


def do(title, options, directory):
    """What the command line does of a job once there is a directory."""
    job = load_job(title)
    return job.run(options, job.prepare(options), directory, progbar=False)


def everything():
    """What the working folder holds, and when it was written."""
    return {path: path.is_file() and path.stat().st_mtime_ns for path in Path().rglob("*")}


def without_clock(value):
    """Results without what a clock has measured."""
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if k != "seconds"}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


class Killed(Exception):
    """Stands for whatever ends a process."""


def dies(function, *, at, after=False):
    """The function, but its call number `at` raises, before its work or after it."""
    calls = itertools.count(1)

    @functools.wraps(function)
    def wrapped(*args, **options):
        last = next(calls) == at
        if last and not after:
            raise Killed
        value = function(*args, **options)
        if last:
            raise Killed
        return value

    return wrapped


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check_page_needs_nothing_but_itself(directory):
    text = (directory.path / "report.html").read_text()
    page = Page(text)
    assert page.inside == []
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    stored = {file.read_bytes() for file in (directory.path / "figures").iterdir()}
    shown = {base64.b64decode(src.removeprefix("data:image/png;base64,")) for src in images}
    assert shown == stored
    assert all(png.startswith(PNG) for png in shown)
    names = ("src", "href", "srcset", "data", "action", "background")
    links = [v for tag, a in page.tags for k, v in a.items() if k in names and tag != "img"]
    assert links == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    rest = text
    for src in images:
        rest = rest.replace(src, "")
    assert not [w for w in ("http", "file:", "url(", "@import", "//") if w in rest]


def check_page_holds(directory, *, count):
    """All `count` tables of the results, and every option of the job."""
    text = (directory.path / "report.html").read_text()
    results = directory.results()
    shown = tables(results)
    assert len(shown) == count
    for table in shown:
        assert table._repr_html_() in text
    _, _, config = open_job(directory.path)
    words = "".join(Page(text).text)
    for key, value in config.to_dict().items():
        assert f"{key} = {value!r}" in words
