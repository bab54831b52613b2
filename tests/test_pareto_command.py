"""`mpodis pareto`: the job, its options, its pages, and going on."""

import importlib
import json

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jobs import (
    check_page_holds,
    check_page_is_accessible,
    check_page_needs_nothing_but_itself,
    do,
)
from mpodis import cnot_count, load_factorization
from mpodis.jobs import open_job
from mpodis.jobs.directory import JobDirectory
from mpodis.options import ParetoConfig, load_options
from mpodis.report import render, tables
from reference import overlap, random_matrix


def files(folder):
    return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


@pytest.fixture
def mpodis(mpodis):
    """The command line in a folder with a matrix and its inputs."""
    np.save("w.npy", random_matrix((4, 3)))
    np.save("x.npy", random_matrix((20, 4), seed=1))
    return mpodis


FLAGS = ("--depth", "1", "--n-init", "1", "--rounds", "1", "--trials", "1", "--sweeps", "1")
QUICK = (*FLAGS, "--beam", "1", "--max-sweeps", "2", "--quiet", "--run-dir", "run")


def test_the_whole_command(mpodis, tmp_path):
    families = "SO(4),CNOTs alone,pruned"
    code, out, err = mpodis("pareto", "w.npy", "--families", families, *QUICK)
    assert (code, err) == (0, "")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["job"] == "pareto"
    assert {p["family"] for p in results["points"]} == set(families.split(","))
    front = [p for p in results["points"] if not p["dominated"]]
    padded = np.pad(random_matrix((4, 3)), ((0, 0), (0, 1)))
    for p in front:
        given = load_factorization(tmp_path / f"run/front/{p['cnots']}.safetensors")
        assert cnot_count(given) == p["cnots"]
        assert_allclose(overlap(padded, given.padded_to_dense()), p["overlap"])
    assert "Fewest CNOTs" in (tmp_path / "run/report.html").read_text()
    run = open_job(tmp_path / "run")[0]
    check_page_needs_nothing_but_itself(run)
    check_page_is_accessible(run)
    check_page_holds(run, count=2)
    assert mpodis("show", "run")[1].strip() in out
    assert mpodis("resume", "run")[0] == 0


def test_a_job_that_was_interrupted_keeps_its_pieces(mpodis, tmp_path, monkeypatch):
    def dies(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module("mpodis.resynthesis.pareto"), "cnots_only", dies)
        assert mpodis("pareto", "w.npy", "--families", "SO(4),CNOTs alone", *QUICK)[0] == 130
    there = files(tmp_path / "run/pieces")
    del there["lock"]
    assert set(there) == {"config.json", "so4-0.safetensors", "so4-1.safetensors"}
    assert mpodis("resume", "run", "--quiet")[0] == 0
    assert there.items() <= files(tmp_path / "run/pieces").items()
    assert (tmp_path / "run/results.json").exists()


def test_the_activations_from_the_command_line(mpodis, tmp_path):
    flags = ("--objective", "activations", "--inputs", "x.npy", "--families", "SO(4)")
    assert mpodis("pareto", "w.npy", *flags, *QUICK)[0] == 0
    assert {f.name for f in (tmp_path / "run/figures").iterdir()} == {
        "activation_error.svg",
        "circuits.svg",
        "overlap.svg",
    }
    results = JobDirectory.open("run")[0].results()
    first, second = tables(results)
    assert "act. error" in first.columns
    assert "relative error of the activations" in second.title


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pareto", "no file was given"),
        ("pareto absent.npy", "there is no file absent.npy"),
        ("pareto w.npy --families brick", "--families brick is not known"),
        ("pareto w.npy --objective activations", "give --inputs FILE"),
        ("pareto w.npy --objective loss", "--objective loss is not known"),
        ("pareto w.npy --trials 0", "--trials 0 must be a whole number, 1 or more"),
        ("pareto w.npy --depth ,", "--depth is empty"),
    ],
)
def test_wrong_commands_leave_nothing_behind(mpodis, tmp_path, words, message):
    before = set(tmp_path.iterdir())
    code, _, err = mpodis(*words.split())
    assert code == (1 if "absent" in words else 2)
    assert message in err
    assert {path for path in tmp_path.iterdir() if path.name != "runs"} == before
    assert not list(tmp_path.glob("runs/*"))


def test_options_from_toml(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('file = "w.npy"\ndepth = [2, 4]\nfamilies = "pruned"\nmax_cnots = 9\n')
    config = load_options(ParetoConfig, path, {"seed": 3})
    assert (config.depth, config.families, config.max_cnots) == ((2, 4), ("pruned",), 9)
    assert config.seed == 3


# --- the figure


def test_the_job_without_a_command_line(tmp_path):
    np.save(tmp_path / "w.npy", random_matrix((4, 4)))
    config = ParetoConfig(
        file=str(tmp_path / "w.npy"), families=("O(4)",), depth=(1,), max_sweeps=1
    )
    directory = JobDirectory.create(tmp_path / "run", "pareto", config)
    results = do("pareto", config, directory)
    assert json.loads(json.dumps(results)) == directory.results()
    assert render(directory.path).exists()
