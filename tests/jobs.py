"""What the tests of jobs and commands share: jobs that die, results without a clock, pages."""

import functools
import itertools
import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

from mpodis.jobs import load_job, open_job
from mpodis.options import load_options
from mpodis.report import tables, verdict

ROOT = Path(__file__).resolve().parents[1]


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
    """Tags with their attributes, and the text, whole and by the tags around it."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside, self.within = [], [], [], defaultdict(str)
        self.feed(text)
        assert self.inside == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        for tag in set(self.inside):
            self.within[tag] += data

    def attributes(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def read_page(directory):
    return Page((directory.path / "report.html").read_text())


def check_page_needs_nothing_but_itself(directory):
    text = (directory.path / "report.html").read_text()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    assert not [w for w in ("http", "file:", "@import", "//", "src=") if w in text]
    names = [a["id"] for _, a in page.tags if "id" in a]
    assert len(names) == len(set(names))
    inside = re.findall(r"url\((.*?)\)|href=\"(.*?)\"|labelledby=\"(.*?)\"", text)
    targets = {"".join(found).removeprefix("#") for found in inside}
    assert targets <= set(names)
    assert text.count("url(") == text.count("url(#")


def check_page_is_accessible(directory):
    """Language, title, phone, and a caption for every figure; its files are whole pictures."""
    page = read_page(directory)
    assert page.attributes("html") == [{"lang": "en"}]
    assert page.within["title"] == page.within["h1"] != ""
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        page.attributes("meta")
    )
    files = list((directory.path / "figures").glob("*.svg"))
    images = page.attributes("svg")
    assert {a["aria-labelledby"] for a in images} == {f"caption-{file.stem}" for file in files}
    assert all(a["role"] == "img" for a in images)
    assert len(page.attributes("figcaption")) == len(images) > 0
    for file in files:
        assert ElementTree.parse(file).getroot().tag.endswith("}svg")


def check_page_holds(directory, *, count):
    """The verdict, all `count` tables of the results, and the options as the job has them."""
    text = (directory.path / "report.html").read_text()
    page, results = Page(text), directory.results()
    shown = tables(results)
    assert len(shown) == count
    for table in shown:
        assert table._repr_html_() in text
    assert page.within["section"] == "".join(verdict(results))
    assert "".join(page.text).index(verdict(results)[0]) < "".join(page.text).index("Figures")
    _, title, config = open_job(directory.path)
    assert f"mpodis {title} --config options.toml" in "".join(page.text)
    again = directory.path / "options.toml"
    again.write_text(page.within["pre"])
    assert load_options(type(config), again) == config
