"""The command line: what it runs, its flags and keys, and what it leaves behind."""

import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import typer

from jobs import everything, process
from mpodis import __version__, cli
from mpodis.jobs import disentangle as layer_job
from mpodis.jobs import open_job
from mpodis.jobs import run as main_job
from mpodis.options import DisentangleConfig, ParetoConfig, ReproduceConfig, RunConfig, load_options
from mpodis.report import tables, verdict
from reference import random_matrix

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = typer.main.get_command(cli.app).commands
QUICK = ("--n-init", "1", "--max-sweeps", "2", "--left", "1", "--quiet")


@pytest.fixture
def options(monkeypatch):
    """The options with which a job would have begun, and its other arguments."""
    seen = []

    def begin(title, config, label, *, run_dir, quiet):
        seen.append((config, {"run_dir": run_dir, "job": title, "label": label, "quiet": quiet}))

    monkeypatch.setattr(cli, "_begin", begin)
    return seen


def inputs():
    """A matrix, its inputs, and a file of two matrices, in the working folder."""
    w = random_matrix((6, 5))
    np.save("w.npy", w)
    np.save("x.npy", random_matrix((20, 6), seed=1))
    np.savez("net.npz", fc1=w, fc2=w.T)


# --- flags and keys


SEARCH = {
    "max_bond": 3,
    "core": "fixed",
    "method": "lbfgs",
    "engine": "dense",
    "optimize": "hyper",
    "environment_bond": [8, 16],
    "dtype": "float32",
    "device": "cuda",
    "memory": 1e9,
    "init": "grown",
    "init_scale": 0.5,
    "n_init": 7,
    "n_perturbed": 2,
    "relaxation": 0.25,
    "init_sweeps": 3,
    "max_sweeps": 9,
    "tol": 0.25,
    "max_seconds": 2.5,
    "seed": 3,
}
MAIN = SEARCH | {
    "data": "mnist",
    "data_dir": "folder",
    "repeats": 2,
    "bond": 4,
    "epochs": 5,
    "learning_rate": 0.5,
    "depth": [1, 5],
    "width": 3,
    "group": "O",
    "objectives": ["activations"],
    "execute": 11,
}
MATRIX = {
    "file": "w.pt",
    "layer": "fc1",
    "transpose": False,
    "inputs": "x.npy",
    "compress_bond": 6,
    "compress_error": 0.125,
}
LAYER = (MATRIX | SEARCH) | {
    "left": "2b + CNOT",
    "right": "4",
    "group": "U",
    "objectives": ["activations", "overlap"],
    "n_jobs": 2,
}
FRONT = MATRIX | {
    "max_bond": 2,
    "objective": "activations",
    "families": ["SO(4)", "CNOTs alone"],
    "depth": [3],
    "max_cnots": 9,
    "n_init": 5,
    "rounds": 6,
    "trials": 7,
    "sweeps": 2,
    "beam": 3,
    "max_sweeps": 11,
    "seed": 4,
}
JOBS = {
    "run": (RunConfig, MAIN),
    "disentangle": (DisentangleConfig, LAYER),
    "pareto": (ParetoConfig, FRONT),
}

each_job = pytest.mark.parametrize("job", JOBS)


def flags(values):
    """Command-line arguments that say what a mapping says; `file` is no flag."""
    arguments = []
    for name, value in values.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-"))
        elif name != "file":
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            arguments += [flag, text]
    return arguments + ([values["file"]] if "file" in values else [])


def toml(path, values):
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    path.write_text("".join(lines))
    return path


@each_job
def test_every_flag_is_a_key_and_every_key_a_flag(job):
    cls, values = JOBS[job]
    parameters = {p.name for p in COMMANDS[job].params} - {"config", "run_dir", "quiet"}
    assert parameters == {field.name for field in fields(cls)} == set(values) | apart(job)
    for field in fields(cls):  # or the tests below could not tell a flag that is lost
        default = list(field.default) if isinstance(field.default, tuple) else field.default
        assert field.name in apart(job) or values[field.name] != default


def apart(job):
    """Options that do not go together with the others."""
    return {"depth"} if job == "disentangle" else set()


def test_a_depth_from_the_command_line(mpodis, options):
    assert mpodis("disentangle", "w.npy", "--depth", 3, "--dtype", "float32") == (0, "", "")
    ((found, _),) = options
    assert (found.depth, found.dtype) == (3, "float32")


def test_the_flags_of_experiments(mpodis, options):
    parameters = {p.name for p in COMMANDS["reproduce"].params}
    own = {field.name for field in fields(ReproduceConfig)}
    assert parameters == own | {"name", "other", "config", "run_dir", "quiet"}
    words = ("--seeds", "3", "--set", "widths=2,3", "--set", "starts=5", "--n-jobs", "1")
    assert mpodis("reproduce", "table1", *words) == (0, "", "")
    ((found, rest),) = options
    assert (found.seeds, found.widths, found.starts, found.n_jobs) == (3, (2, 3), 5, 1)
    assert rest == {"run_dir": None, "job": "reproduce table1", "label": "table1", "quiet": False}


@each_job
def test_flags_and_toml_give_the_same_config(mpodis, options, tmp_path, job):
    cls, values = JOBS[job]
    path = toml(tmp_path / "job.toml", values)
    assert mpodis(job, *flags(values)) == (0, "", "")
    assert mpodis(job, "--config", path) == (0, "", "")
    (by_flags, _), (by_file, _) = options
    assert by_flags == by_file == load_options(cls, path)
    for name, value in values.items():
        found = getattr(by_flags, name)
        assert (list(found) if isinstance(found, tuple) else found) == value


@each_job
def test_flags_win_over_the_file_one_by_one(mpodis, options, tmp_path, job):
    cls, values = JOBS[job]
    path = toml(tmp_path / "job.toml", values)
    needed = {"file": "other.npy"} if "file" in values else {}
    mpodis(job, "--config", path, "--seed", 99, "--n-init", "2", *needed.values())
    ((config, _),) = options
    changed = {"seed": 99, "n_init": 2, **needed}
    assert config == load_options(cls, None, values | changed)


def test_options_that_are_no_keys(mpodis, options):
    mpodis("run", "--run-dir", "a/b", "--quiet")
    mpodis("disentangle", "folder/w.npy")
    assert [rest for _, rest in options] == [
        {"run_dir": Path("a/b"), "job": "run", "label": "digits", "quiet": True},
        {"run_dir": None, "job": "disentangle", "label": "w", "quiet": False},
    ]


# --- help


def test_help_and_version(mpodis):
    assert mpodis("--version") == (0, f"{__version__}\n", "")
    for arguments in ((), ("run",), ("disentangle",), ("show",), ("resume",)):
        code, out, err = mpodis(*arguments, "--help")
        assert (code, err) == (0, "")
        assert "Usage" in out
    code, out, err = mpodis()
    assert "Usage" in out
    assert code == 2
    assert err == ""


@each_job
def test_help_explains_every_option(job):
    for parameter in COMMANDS[job].params:
        assert parameter.help, parameter.name


def test_help_shows_defaults_and_an_example(mpodis, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = mpodis("disentangle", "--help")[1]
    assert "Example: mpodis disentangle w.npy --depth 8" in out
    for text in ("(default 16,32,64)", "(default 200)", "One of auto, sweeps, lbfgs."):
        assert text in out
    circuits, search = (out.index(f"─ {panel} ─") for panel in ("Circuits", "Search"))
    assert out.index("─ Operator ─") < circuits < search


@pytest.mark.parametrize("command", ["disentangle", "study run", "watch"])
def test_help_shows_no_types_of_flags(mpodis, command):
    out = mpodis(*command.split(), "--help")[1]
    assert re.search(r"--quiet +No progress|--once +Look once", out)
    assert not re.search(r"--.*<(bool|path|str|int|float)", out)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["run", "--nix"]]
)
def test_what_runs_nothing_loads_nothing_heavy(arguments):
    code = (
        "import sys\n"
        f"sys.argv = ['mpodis', *{arguments!r}]\n"
        "from mpodis.cli import main\n"
        "try:\n    main()\n"
        "finally:\n"
        "    heavy = {'torch', 'qiskit', 'qiskit_aer', 'quimb', 'matplotlib', 'sklearn', 'scipy'}\n"
        "    print('loaded:', *sorted(heavy & set(sys.modules)))"
    )
    assert process("-c", code).stdout.splitlines()[-1] == "loaded:"


def test_the_script_of_the_package_is_this_one():
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["project"]["scripts"] == {"mpodis": "mpodis.cli:main"}


# --- what runs


def test_a_layer_from_the_file_to_the_report(mpodis):
    inputs()
    flags = ("--inputs", "x.npy", "--objectives", "overlap,activations", "--run-dir", "deep/run")
    code, out, err = mpodis("disentangle", "w.npy", *flags, *QUICK)
    assert (code, err) == (0, "")
    directory, job, config = open_job("deep/run")
    # whole paths, so that `resume` finds the files from any folder
    assert (job, config.file, config.left) == ("disentangle", str(Path("w.npy").resolve()), "1")
    assert config.inputs == str(Path("x.npy").resolve())
    shown = "".join(f"\n{table}\n" for table in tables(directory.results()))
    assert out.startswith(f"writing to deep/run\n{shown}\n")
    assert out.endswith("\n\nreport: deep/run/report.html\n")
    assert verdict(directory.results())[0] in " ".join(out.split())
    printed = out.removeprefix("writing to deep/run\n").partition("report: ")[0]
    assert mpodis("show", "deep/run") == (0, printed, "")


def test_a_run_without_a_name_is_called_by_its_file_and_time(mpodis):
    inputs()
    code, out, _ = mpodis("disentangle", "net.npz", "--layer", "fc2", *QUICK)
    assert code == 0
    (path,) = Path("runs").iterdir()
    assert re.fullmatch(r"net-\d{8}-\d{6}", path.name)
    assert f"writing to {path}\n" in out
    assert (path / "report.html").is_file()


def test_the_main_job_from_the_command_line(mpodis):
    flags = ("--depth", "1", "--objectives", "overlap", "--epochs", "1", "--execute", "3")
    code, out, err = mpodis(
        "run", *flags, "--n-init", 1, "--max-sweeps", 1, "--quiet", "--run-dir", "run"
    )
    assert (code, err) == (0, "")
    directory, job, config = open_job("run")
    assert (job, config.depth) == ("run", (1,))
    assert all(str(table) in out for table in tables(directory.results()))
    assert Path("run/report.html").is_file()


def test_progress_is_shown_unless_quiet(mpodis, monkeypatch):
    inputs()
    shown = []

    def run(options, prepared, directory, *, progbar):
        shown.append(progbar)
        raise ValueError("enough")

    monkeypatch.setattr(layer_job, "run", run)
    mpodis("disentangle", "w.npy")
    mpodis("disentangle", "w.npy", "--quiet")
    assert shown == [True, False]


# --- going on


def test_resume_goes_on_and_then_only_shows(mpodis, monkeypatch):
    inputs()
    with monkeypatch.context() as patch:
        patch.setattr(layer_job, "truncated_mpo", interrupt)
        code, _, err = mpodis("disentangle", "w.npy", *QUICK, "--run-dir", "run")
    assert code == 130
    assert err.endswith("mpodis: interrupted; go on with `mpodis resume run`\n")
    code, out, _ = mpodis("show", "run")
    assert code == 0
    assert re.search(r"\noverlap +max_sweeps ", out)
    assert out.endswith("run was stopped; go on with `mpodis resume run`\n")
    code, out, err = mpodis("resume", "run", "--quiet")
    assert (code, err) == (0, "")
    assert "report: run/report.html\n" in out
    before = {path: when for path, when in everything().items() if path.suffix == ".json"}
    Path("w.npy").unlink()
    assert mpodis("resume", "run")[:2] == (0, out)
    monkeypatch.setattr("mpodis.report.render", refuse)  # as where nothing can be written
    assert mpodis("resume", "run")[:2] == (0, out)
    after = everything()
    assert all(after[path] == when for path, when in before.items())


def refuse(*arguments):
    raise PermissionError("read-only file system")


@pytest.mark.no_cover
def test_ctrl_c_stops_a_job_without_results(mpodis):
    """`disentangle` alone would answer Ctrl-C with what it has, which is no result of a job."""
    np.save("w.npy", random_matrix((64, 64)))
    flags = ("--depth", "8", "--init", "identity", "--tol", "0", "--max-sweeps", "1000000")
    # so a script starts what it puts into the background
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    code += "from mpodis.cli import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, "disentangle", "w.npy", *flags, "--run-dir", "run"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        limit = time.monotonic() + 300  # of a busy machine
        while not Path("run/overlap/config.json").exists():
            assert child.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=300)
    finally:
        child.kill()  # else its open pipe would be a warning in another test
        child.communicate()
    assert child.returncode == 130
    assert err.endswith("mpodis: interrupted; go on with `mpodis resume run`\n")
    assert not Path("run/results.json").exists()


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


def test_resume_of_the_main_job(mpodis, monkeypatch):
    flags = ("--depth", "1", "--objectives", "overlap", "--epochs", "1", "--execute", "0")
    with monkeypatch.context() as patch:
        patch.setattr(main_job, "costs", interrupt)
        code, _, _ = mpodis(
            "run", *flags, "--n-init", 1, "--max-sweeps", 1, "--quiet", "--run-dir", "run"
        )
    assert code == 130
    monkeypatch.setattr(main_job, "train_tnn", interrupt)  # it is trained
    code, out, err = mpodis("resume", "run", "--quiet")
    assert (code, err) == (0, "")
    assert "network of seed 0" in out


def test_an_error_amid_the_work_keeps_what_was_done(mpodis, monkeypatch):
    inputs()

    def fail(*arguments, **options):
        raise ValueError("late")

    with monkeypatch.context() as patch:
        patch.setattr(layer_job, "truncated_mpo", fail)
        code, _, err = mpodis("disentangle", "w.npy", *QUICK, "--run-dir", "deep/run")
    assert (code, err) == (1, "mpodis: late\n")
    assert Path("deep/run/overlap/history.jsonl").is_file()
    assert mpodis("resume", "deep/run", "--quiet")[0] == 0


def test_folders_that_another_run_uses_stay(mpodis, monkeypatch):
    inputs()

    def fail(options, prepared, directory, *, progbar):
        Path("deep/other").mkdir()
        raise ValueError("early")

    monkeypatch.setattr(layer_job, "run", fail)
    assert mpodis("disentangle", "w.npy", "--run-dir", "deep/run")[0] == 1
    assert list(Path("deep").iterdir()) == [Path("deep/other")]
