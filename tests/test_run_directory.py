"""The directories of jobs: whose they are, what was begun, what is refused."""

import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from jobs import Killed, dies, do
from mpodis.jobs import JOBS, Figure, ModuleJob, open_job
from mpodis.jobs.directory import JobDirectory
from mpodis.options import Config, DisentangleConfig, RunConfig, option
from mpodis.report import render
from mpodis.tables import Table

MAIN = RunConfig(depth=(2, 1), n_init=1)


def test_a_page_is_made_of_finished_jobs_only(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    with pytest.raises(FileNotFoundError, match="has not ended; go on with `mpodis resume"):
        render(directory.path)


def test_a_directory_knows_its_job_and_config(tmp_path):
    for job, options in (("run", MAIN), ("disentangle", DisentangleConfig(file="w.npy"))):
        JobDirectory.create(tmp_path / "deep" / job, job, options)
        directory, found, stored = open_job(str(tmp_path / "deep" / job))
        assert (directory.path, found, stored) == (tmp_path / "deep" / job, job, options)
        assert not directory.has_begun()


def test_an_empty_directory_is_taken_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    JobDirectory.create(tmp_path / "empty", "run", MAIN)
    (tmp_path / "file").touch()
    for taken, message in (
        ("empty", "empty is not empty; choose another directory, or go on with"),
        ("file", "file is a file; choose another directory"),
    ):
        with pytest.raises(ValueError, match=message):
            JobDirectory.create(tmp_path / taken, "run", MAIN)


def test_a_stage_is_worked_out_once(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    values = iter([{"pair": (1, 2)}, {"pair": "again"}])
    first = directory.stage("a", lambda: next(values))
    assert first == directory.stage("a", lambda: next(values)) == {"pair": [1, 2]}
    assert directory.has_begun()
    with pytest.raises(Killed):
        directory.stage("b", dies(dict, at=1))
    assert directory.stage("b", lambda: {"x": 1}) == {"x": 1}


def test_sweeps_count_as_begun(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    (directory.path / "seed0" / "depth1-overlap").mkdir(parents=True)
    assert not directory.has_begun()
    (directory.path / "seed0" / "depth1-overlap" / "history.jsonl").touch()
    assert directory.has_begun()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"format": "mpodis-disentangle-1"}',
            "does not hold the directory of a job of this package",
        ),
        ('{"format": "mpodis-run-1", "version": "0.1.0"}', "was written by mpodis 0.1.0, whose op"),
        ('{"format": "mpodis-job-3", "job": "bake"}', "job 'bake' is not known; use one of run, d"),
        ("[1, 2]", "does not hold the directory of a job"),
        ('{"format": ', "is not valid JSON"),
        (
            '{"format": "mpodis-job-3", "job": "run", "config": {"sed": 1}}',
            r"unknown option 'sed'; did you mean 'seed'\?",
        ),
    ],
)
def test_a_directory_of_something_else(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        open_job(tmp_path)


@pytest.mark.parametrize("name", ["", "absent", "file"])
def test_no_directory_of_a_job(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is not a run directory: it has no config.json"):
        open_job(tmp_path / name)


# --- a job from outside the package


@dataclass(frozen=True)
class Loaf(Config):
    minutes: int = option(30, "How long it stays in.", least=1)


def test_a_job_is_a_line_in_the_registry(tmp_path, monkeypatch):
    work = ModuleType("oven")
    work.prepare = lambda options: options.minutes * 60
    work.run = lambda options, seconds, directory, *, progbar: directory.finish(
        {"job": "bake", "seconds": seconds}
    )
    page = ModuleType("table")
    page.tables = lambda results: [Table(("seconds",), [(results["seconds"],)])]
    page.figures = lambda results, folder: {"line": Figure(lambda ax: ax.plot([1, 2]), "A line.")}
    page.verdict = lambda results: ("It is done.", "But for <1 hour.")
    page.introduction = lambda results: ("Bread", "<p>Fresh.</p>")
    monkeypatch.setitem(sys.modules, "oven", work)
    monkeypatch.setitem(sys.modules, "table", page)
    monkeypatch.setitem(JOBS, "bake", ModuleJob(Loaf, "oven", "table"))
    directory = JobDirectory.create(tmp_path / "run", "bake", Loaf(minutes=2))
    _, title, options = open_job(tmp_path / "run")
    do(title, options, directory)
    text = render(directory.path).read_text()
    for words in ("<h1>Bread</h1>", "A line.", "<td>120</td>", "minutes = 2"):
        assert words in text
    assert "<p>It is done.</p><ul><li>But for &lt;1 hour.</li></ul>" in text
