"""Studies as TOML files, `mpodis study`, and the functions that a file may name."""

import csv
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from jobs import ROOT
from mpodis import Study, load_study, save_mpo
from mpodis.jobs.directory import JobDirectory
from mpodis.study import functions
from mpodis.study.records import StudyDirectory
from mpodis.targets import random_mpo

QUICK = """
run = "entanglement"
description = "Entropies of random MPOs."
seeds = 2

[settings]
operator.kind = "random_mpo"

[grid]
operator.n = [3, 4, 5]
operator.max_bond = [2, 4]

[[figures]]
name = "entropy"
quantity = "s_avg"
x = "n"
hue = "max_bond"

[[tables]]
quantities = ["s_avg", "s_max"]
"""


def keys(study):
    return [case.key for case in study.cases]


# --- TOML


@pytest.mark.parametrize(
    "given",
    [
        {"settings": {"operator": "w.npy", "tol": 1e-6, "environment_bond": (16, 32)}},
        {
            "settings": {
                "operator.kind": "random_mpo",
                "operator.max_bond": 4,
                "max_seconds": None,
            },
            "grid": {"operator.n": [4, 6], "depth": range(1, 4), "tol": np.array([1e-4, 1e-5])},
            "seeds": [3, 5],
            "description": 'A "quoted"\nsentence.\x7f',
            "minutes": 1.5,
        },
        {
            "grid": {
                "operator": {
                    "planted": {"kind": "planted_mpo", "n": 4, "depth": 1},
                    "random": {"kind": "random_mpo", "n": 4, "max_bond": 2},
                }
            },
            "cases": [{"depth": 2, "n_init": 1}, {"depth": 4, "n_init": 2}],
            "seeds": 3,
            "code": "my code",
            "neutral": ["memory"],
            "figures": [{"quantity": ["overlap", "s_avg"], "x": "depth", "where": {"n_init": 1}}],
            "tables": [{"quantities": ["overlap"]}],
        },
        {
            "settings": {"operator.kind": "random_mpo", "operator.n": 4, "operator.max_bond": 2},
            "cases": [{"left": "2b", "max_bond": 1}, {"left": "3b", "max_bond": 2}],
        },
    ],
)
def test_a_file_says_the_same_as_the_object(given, tmp_path):
    study = Study("disentangle", **given)
    text = study.to_toml(tmp_path / "study.toml")
    again = Study.from_toml(tmp_path / "study.toml")
    assert keys(again) == keys(study)
    assert [case.settings for case in again.cases] == [case.settings for case in study.cases]
    names = ("name", "description", "minutes", "seeds", "code", "neutral", "figures", "tables")
    assert all(getattr(again, name) == getattr(study, name) for name in names)
    assert again.to_toml() == text


def test_paths_of_targets_are_relative_to_the_file(tmp_path, monkeypatch):
    for folder in ("one", "one/data", "two"):
        (tmp_path / folder).mkdir()
    save_mpo(random_mpo(3, 2, seed=0), tmp_path / "one/data/a.safetensors")
    save_mpo(random_mpo(3, 2, seed=1), tmp_path / "one/b.safetensors")
    text = (
        'run = "entanglement"\nsettings.operator.kind = "load_operator"\n'
        'grid.operator.path = ["data/a.safetensors", "b.safetensors"]\n'
    )
    (tmp_path / "one/files.toml").write_text(text)
    monkeypatch.chdir(tmp_path / "two")
    study = Study.from_toml("../one/files.toml")
    labels = [case.settings["operator.path"] for case in study.cases]
    assert labels == ["data/a.safetensors", "b.safetensors"]
    averages = study.run("records", progbar=False).to_dataframe()["s_avg"]
    assert averages[0] != averages[1]
    study.to_toml(tmp_path / "two/moved.toml")
    monkeypatch.chdir(tmp_path)
    assert keys(Study.from_toml("two/moved.toml")) == keys(study)
    assert '"../one/b.safetensors"' in Path("two/moved.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("seeds = 2", "seed = 2", "unknown key 'seed'; did you mean 'seeds'"),
        ("hue =", "hues =", "figure 1: unknown key 'hues'; did you mean 'hue'"),
        ("quantities", "quantity", "table 1: unknown key 'quantity'; did you mean 'quantities'"),
        ('x = "n"', "", "figure 1 has no x"),
        ('name = "entropy"', 'name = "../x"', "becomes the name of a file"),
        ("operator.n =", "operator.nn =", "random_mpo has no argument 'nn'"),
        ("operator.n =", "operater.n =", "no setting 'operater'; did you mean 'operator'"),
        ("[3, 4, 5]", "3", "not several values; use a list"),
        ("[3, 4, 5]", "[{label = 'a', value = 3}, 4]", "operator.n=4 among values with labels"),
        ('"s_avg"\nx', "3\nx", "figure 1: quantity is 3, and must be one name or several"),
        ('x = "n"', "x = 3", "figure 1: x is 3, and must be a text"),
        ('x = "n"', 'x = "n"\nwhere = "n"', "figure 1: where is 'n', and must be a table"),
        ('x = "n"', 'x = "n"\nlogx = "no"', "figure 1: logx is 'no', and must be true or false"),
        ('["s_avg", "s_max"]', "[3]", "table 1 needs quantities, a list of names"),
        ('"entanglement"', '"entanglment"', "did you mean 'entanglement'"),
        ('"entanglement"', '"os:getcwdd"', "there is no function 'os:getcwdd'"),
        ('run = "entanglement"', "", "does not say what is run"),
        ("seeds = 2", "seeds = true", "seeds=True must be a number of seeds"),
        ("seeds = 2", "seeds = ", "is not valid TOML"),
    ],
)
def test_a_slip_in_a_file_is_named(tmp_path, old, new, words):
    assert old in QUICK
    file = tmp_path / "slip.toml"
    file.write_text(QUICK.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(words)):
        Study.from_toml(file)


def test_kinds_of_targets_are_an_axis(tmp_path):
    file = tmp_path / "kinds.toml"
    file.write_text(
        'run = "entanglement"\n[settings]\noperator.n = 4\noperator.max_bond = 4\n'
        '[grid]\noperator.kind = ["random_mpo"]\n'
    )
    assert [case.settings for case in Study.from_toml(file).cases] == [
        {"operator.kind": "random_mpo"}
    ]
    file.write_text(file.read_text().replace("random_mpo", "random"), encoding="utf-8-sig")
    with pytest.raises(ValueError, match="kind='random' is no target"):
        Study.from_toml(file)


def test_a_function_may_lie_beside_the_file(mpodis, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", sys.path.copy())
    folder = tmp_path / "a folder"
    folder.mkdir()
    (folder / "beside_the_file.py").write_text("def square(a):\n    return {'value': a * a}\n")
    (folder / "own.toml").write_text('run = "beside_the_file:square"\n[grid]\na = [2, 3]\n')
    code, _, err = mpodis("study", "run", folder / "own.toml", "--quiet", "--n-jobs", 2)
    assert (code, err) == (0, "")
    assert load_study("studies/own").to_dataframe()["value"].tolist() == [4, 9]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"settings": {"operator": np.eye(4)}}, "operator is a ndarray, which a file cannot hold"),
        ({"settings": {"operator": "none"}}, "operator='none' would be read as None"),
    ],
)
def test_what_a_file_cannot_hold_is_refused(given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        Study("disentangle", **given).to_toml()


# --- commands


@pytest.fixture
def study(mpodis, tmp_path):
    """Calls `mpodis study` in a folder with a file of a quick study."""
    (tmp_path / "quick.toml").write_text(QUICK)

    def call(*words):
        return mpodis("study", *words)

    return call


def test_a_study_from_the_file_to_the_export(study, mpodis):
    code, out, err = study("run", "quick.toml", "--n-jobs", "1", "--quiet")
    assert (code, err) == (0, "")
    folder = Path("studies/quick")
    assert out.startswith(f"writing to {folder}\n")
    assert f"page: {folder}/index.html\n" in out
    files = f"{folder}/figures/entropy.png, {folder}/figures/entropy.svg"
    assert out.endswith(f"figures: {files}\n")
    assert all((folder / "figures" / f"entropy.{kind}").stat().st_size for kind in ("png", "svg"))
    assert "Entropies of random MPOs." in (folder / "index.html").read_text()
    results = load_study(folder)
    table = str(results.table("s_avg", "s_max"))
    assert table in out
    assert study("table", "quick.toml") == (0, f"\n{table}\n", "")
    assert study("table", "quick.toml", "s_max")[1] == f"{results.table('s_max')}\n"
    assert re.search(r"done +12\n", study("status", folder)[1])
    for code, out, _ in (study("watch", "quick.toml"), mpodis("watch", folder)):
        assert (code, "quick: 12 of 12 done" in out) == (0, True)
    words = ("bonds", "--x", "bond", "--hue", "max_bond", "--where", "n=5", "--spread", "range")
    code, out, _ = study("plot", "quick.toml", *words, "--out", "bonds")
    assert (code, out) == (0, "bonds.png\nbonds.svg\n")
    assert study("plot", folder)[1].split() == files.split(", ")
    assert study("export", folder, "quick.csv")[1] == "quick.csv\n"
    with Path("quick.csv").open() as file:
        assert [float(row["s_avg"]) for row in csv.DictReader(file)] == [
            record.scalars["s_avg"] for record in results.records()
        ]
    # nothing is left to do, and a further seed computes itself only
    written = {path: path.stat().st_mtime_ns for path in folder.glob("cases/*")}
    Path("quick.toml").write_text(QUICK.replace("seeds = 2", "seeds = 3"))
    assert study("run", "quick.toml", "--n-jobs", "1", "--quiet")[0] == 0
    assert load_study(folder).status().done == 18
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


def test_failed_cases_are_listed_and_tried_again(study, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    Path("of_mine.py").write_text(
        "from pathlib import Path\ndef double(n):\n"
        "    if n > 1 and not Path('ready').exists():\n        raise ValueError('not ready')\n"
        "    return {'twice': 2 * n}\n"
    )
    Path("mine.toml").write_text(
        'run = "of_mine:double"\ngrid.n = [1, 2, 3]\n[[figures]]\nquantity = "twice"\nx = "n"\n'
        'fit = "power"\n'
    )
    words = ("run", "mine.toml", "--dir", "there", "--n-jobs", "1", "--quiet")
    code, out, err = study(*words)
    assert (code, err) == (
        1,
        "mpodis: 2 of 3 cases failed; see `mpodis study status there`, and --retry computes them "
        "again\n",
    )
    assert "figures:" not in out  # a power law needs three points
    assert study("status", "there")[1].count("ValueError: not ready") == 2
    Path("ready").touch()
    assert study(*words)[0] == 1
    code, out, err = study(*words, "--retry")
    assert (code, err) == (0, "")
    assert "figures: there/figures/twice-n.png" in out
    Path("mine.toml").write_text(Path("mine.toml").read_text().replace('"twice"', '"twise"'))
    code, _, err = study(*words)
    assert (code, err) == (
        1,
        "mpodis: figure twise-n: the records have no number 'twise'; did you mean 'twice'?\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "none.toml"], 1, "there is no file none.toml"),
        (
            ["run", "quick.toml", "--n-jobs", "64", "--threads", "9"],
            1,
            "--n-jobs 64 processes of --",
        ),
        (["run", "quick.toml", "--resumable"], 1, "--resumable, but mpodis.measures:entanglement"),
        (["run", "quick.toml", "--scheduler", "tcp://127.0.0.1:1"], 1, "no Dask scheduler at tcp"),
        (["status", "quick.toml"], 1, "no directory studies/quick; run the study, or give"),
        (["status", "none"], 1, "there is no directory none"),
        (["status", "."], 1, "is no directory of a study"),
        (["watch", ".", "--dir", "x"], 1, "leave --dir out"),
        (["runn"], 2, "No such command 'runn'"),
    ],
)
def test_an_error_is_one_line_in_the_words_of_the_command(study, monkeypatch, words, code, said):
    if "--scheduler" in words:
        import distributed

        def refuse(address, **_):
            raise OSError(address)

        monkeypatch.setattr(distributed, "Client", refuse)
    status, _, err = study(*words)
    assert (status, err.count("\n")) == (code, 1)
    assert said in err


def test_what_is_averaged_is_said_in_flags(study):
    study("run", "quick.toml", "--n-jobs", "1", "--quiet")
    _, _, err = study("plot", "quick.toml", "s_avg", "--x", "n")
    assert err == (
        "mpodis: max_bond has 2 values (2, 4), which would be averaged; draw them by --hue "
        "max_bond, --col max_bond or --row max_bond, or take one by --where max_bond=2\n"
    )
    _, _, err = study("plot", "quick.toml", "s_avg")
    assert err == "mpodis: --x is missing; the study varies operator.n, operator.max_bond, seed\n"


def test_ctrl_c_says_how_to_go_on_and_keeps_no_half_search(tmp_path):
    long = 'run = "disentangle"\nseeds = 50\n[settings]\noperator.kind = "random_mpo"\n'
    long += "operator.n = 8\noperator.max_bond = 4\ndepth = 3\nmax_sweeps = 100000\ntol = 0.0\n"
    (tmp_path / "long.toml").write_text(long)
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += f"import sys; sys.path.insert(0, {str(ROOT)!r}); from mpodis.cli import main; main()"
    words = ["study", "run", "long.toml", "--n-jobs", "1", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    limit = time.monotonic() + 60
    while not (tmp_path / "studies/long/cases").is_dir() and time.monotonic() < limit:
        time.sleep(0.05)
    time.sleep(2.0)  # it searches
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == (
        "mpodis: interrupted; what is done is kept, go on with `mpodis study run long.toml`"
    )
    assert not StudyDirectory(tmp_path / "studies/long").keys()


# --- functions


def test_the_main_job_is_a_function_that_can_go_on(tmp_path):
    options = {"depth": 1, "objective": "activations", "epochs": 1, "n_init": 1, "max_sweeps": 2}
    found = functions.run(**options, run_dir=tmp_path / "job")
    directory, title, _ = JobDirectory.open(tmp_path / "job")
    (network,) = directory.results()["networks"]
    (row,) = network["rows"]
    assert (title, row["depth"], row["objective"]) == ("run", 1, "activations")
    same = ("accuracy", "overlap", "bound", "relative_error", "activation_error", "s_avg")
    assert [found[name] for name in same] == [row[name] for name in same]
    assert found["accuracy_original"] == network["accuracy"]["original"]
    assert found["entropies"][1] == network["mpo"]["entropies"]
    assert functions.run(**options, run_dir=tmp_path / "job") == found  # seconds, too


def test_circuits_are_executed_with_shots():
    options = {"depth": 1, "epochs": 1, "n_init": 1, "max_sweeps": 2, "images": 10}
    exact = functions.evaluate(**options)
    assert (exact["images"], exact["shots"]) == (10, 0)
    assert exact["executed"] == exact["classical"]
    few = functions.evaluate(**options, readout="tomography", shots=1, seed=0)
    assert few["shots"] > 0
    assert few["classical"] == exact["classical"]
    assert few["accuracy"] == exact["accuracy"]


@pytest.mark.parametrize(
    ("name", "setting", "near"),
    [
        ("run", "max_bonds", "max_bond"),
        ("evaluate", "shot", "shots"),
        ("train", "epoch", "epochs"),
        ("run", "repeats", None),
    ],
)
def test_settings_of_functions_are_checked_before_anything_runs(name, setting, near):
    words = f"takes no setting '{setting}'; " + (f"did you mean '{near}'" if near else "")
    with pytest.raises(ValueError, match=re.escape(words)):
        Study(name, grid={setting: [1, 2]})


def test_networks_have_options_of_their_own():
    found = functions.train(network="dense", hidden=[8], epochs=1)
    assert found["parameters"] == 64 * 8 + 8 + 8 * 10 + 10
    with pytest.raises(ValueError, match="bond=2 is no option of network='dense'"):
        functions.train(network="dense", bond=2)
    with pytest.raises(ValueError, match="network='cnn' is not known"):
        functions.train(network="cnn")
