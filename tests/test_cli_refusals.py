"""What the command line refuses: in one line, and leaving nothing behind."""

import os
import pickle
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from safetensors.torch import save_file

from jobs import ROOT, everything, process
from reference import random_matrix


def inputs():
    """Files that are fine, and files that are not, in the working folder."""
    w = random_matrix((6, 5))
    np.save("w.npy", w)
    np.save("x.npy", random_matrix((20, 6), seed=1))
    np.save("narrow.npy", random_matrix((20, 4)))
    np.save("cube.npy", np.ones((2, 3, 4)))
    np.save("nan.npy", np.where(w == w[0, 0], np.nan, w))
    np.save("inf.npy", np.where(w == w[0, 0], np.inf, w))
    np.save("zero.npy", 0 * w)
    np.save("text.npy", np.array([["a", "b"]]))
    np.savez("net.npz", fc1=w, fc2=w.T)
    for name in ("w.npy", "net.npz"):
        Path(f"short-{name}").write_bytes(Path(name).read_bytes()[:-40])
    torch.save({"fc": torch.ones(2, 3)}, "net.pt")
    Path("short.pt").write_bytes(Path("net.pt").read_bytes()[:-40])
    for suffix in ("npy", "npz", "pt", "safetensors"):
        Path(f"pickle.{suffix}").write_bytes(pickle.dumps([1, 2]))
    Path("typo.toml").write_text("n_inti = 3\n")
    Path("broken.toml").write_text("seed = \n")
    Path("nested.toml").write_text(f"seed = {'[' * 5000}{']' * 5000}\n")
    # headers that declare numbers which are not there, or more than the memory holds
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (4000000, 4000000), }"
    declared = b"\x93NUMPY\x01\x00" + len(f"{header}\n").to_bytes(2, "little") + header.encode()
    Path("declared.npy").write_bytes(declared + b"\n" + bytes(64))
    with zipfile.ZipFile("declared.npz", "w") as archive:
        archive.writestr("fc.npy", declared + b"\n" + bytes(64))
    torch.save({"fc": torch.ones(1, 1).expand(4_000_000, 4_000_000)}, "expanded.pt")
    codes = {"fc.weight": torch.ones(2, 3, dtype=torch.int8), "fc.weight_scale": torch.ones(2, 1)}
    save_file(codes, "codes.safetensors")
    Path("full").mkdir()
    Path("full/notes.txt").touch()
    Path("empty").mkdir()
    Path("circle").symlink_to("circle")
    Path("broken_disk").symlink_to("/proc/self/mem")  # a read of its beginning fails
    Path("study.toml").write_text(
        'run = "disentangle"\n[settings]\noperator = {kind = "random_mpo", n = 3, max_bond = 2}\n'
    )


REFUSED = {
    # the file
    "missing file": ("disentangle absent.npy", "there is no file absent.npy"),
    "no file": ("disentangle", "no file was given"),
    "3-d array": ("disentangle cube.npy", r"expected a matrix .* shape \(2, 3, 4\)"),
    "NaN": ("disentangle nan.npy", "1 of 30 entries of the matrix are NaN or infinite"),
    "Inf": ("disentangle inf.npy", "1 of 30 entries of the matrix are NaN or infinite"),
    "zeros": ("disentangle zero.npy", "is zero everywhere"),
    "text": ("disentangle text.npy", "expected numbers, got an array of dtype <U1"),
    "unknown type": ("disentangle typo.toml", "files of type '.toml' are not read"),
    "unknown layer": (
        "disentangle net.npz --layer fc3",
        "has no layer 'fc3'; its matrices are: fc1 6x5, fc2 5x6",
    ),
    "several matrices": ("disentangle net.npz", "choose one with --layer, of fc1 6x5, fc2 5x6"),
    "truncated npy": ("disentangle short-w.npy", "may be truncated"),
    "truncated npz": ("disentangle short-net.npz", "may be truncated"),
    "truncated pt": ("disentangle short.pt", "may be truncated"),
    "pickle npy": ("disentangle pickle.npy", "pickled objects, which are never loaded"),
    "pickle npz": ("disentangle pickle.npz", "pickled objects, which are never loaded"),
    "pickle pt": ("disentangle pickle.pt", "pickled objects, which are never loaded"),
    "pickle safetensors": (
        "disentangle pickle.safetensors",
        "is not a whole safetensors file; it is d",
    ),
    "declared npy": ("disentangle declared.npy", "cannot be read .its header says 128,000,"),
    "declared npz": ("disentangle declared.npz", "cannot be read .the header of fc.npy says more"),
    "expanded pt": ("disentangle expanded.pt", "1.19e.05 GiB in double precision, and .* avail"),
    "quantised": (
        "disentangle codes.safetensors --layer fc",
        "fc.weight of codes.safetensors holds codes of torch.int8, which fc.weight_scale scales",
    ),
    "nested options": ("disentangle w.npy --config nested.toml", "nested too deeply to be read"),
    # sizes
    "long spec": ("disentangle w.npy --left 99999999*CNOT", "has more than .* layers"),
    "deep spec": (f"disentangle w.npy --left {'(' * 2000}1b{')' * 2000}", "more than 100 parenth"),
    "many layers": ("disentangle w.npy --depth 99999999", "makes a circuit of more than 100,000"),
    "many guesses": (
        "disentangle w.npy --depth 1 --n-init 99999999",
        "--n-init 99999999 must be 10,000 or less",
    ),
    # its options
    "depth 0": (
        "disentangle w.npy --left 0",
        "--left 0 is a number of layers and must be 1 or more",
    ),
    "depth -1": ("disentangle w.npy --left -1", "--left -1 is a number of layers"),
    "depth x": ("disentangle w.npy --depth x", "--depth x must be a whole number, or none$"),
    "depth of an estimate": (
        "estimate w.npy --depth 1000000",
        "--depth 1000000 is more than the 512 layers that can be estimated",
    ),
    "depth twice": (
        "disentangle w.npy --depth 2 --left 2b",
        "--depth 2 describes both circuits; leave it out where --left or --right",
    ),
    "wide gate": (
        "disentangle w.npy --left 7b",
        "a gate on 7 wires does not fit a circuit of 3; use widths from 1 to 3",
    ),
    "unknown spec": (
        "disentangle w.npy --left brick",
        "gate 'brick' in the circuit spec 'brick' is not known",
    ),
    "unknown right": ("disentangle w.npy --right 2b+", r"cannot read the circuit spec '2b\+'"),
    "unknown group": ("disentangle w.npy --group SU", "--group SU is not known"),
    "unknown method": ("disentangle w.npy --method adam", "--method adam is not known; use one of"),
    "no inputs": ("disentangle w.npy --objectives activations", "give --inputs FILE"),
    "narrow inputs": (
        "disentangle w.npy --objectives activations --inputs narrow.npy",
        r"narrow.npy holds an array of shape \(20, 4\); inputs of this layer are \(samples, 6\)",
    ),
    "impossible pair": (
        "disentangle w.npy --inputs x.npy --objectives activations --engine tree",
        "needs the dense operator; --engine tree",
    ),
    "bond 0": (
        "disentangle w.npy --compress-bond 0",
        "--compress-bond 0 must be a whole number, 1 or more",
    ),
    # the main job
    "unknown data": ("run --data cifar", "--data cifar is not known; use one of digits, mnist"),
    "mnist without folder": (
        "run --data mnist",
        "mnist.npz: pass --data-dir",
    ),
    "missing folder": ("run --data mnist --data-dir absent", "absent: no such folder"),
    "empty folder": ("run --data mnist --data-dir empty", "neither mnist.npz nor"),
    "main depth 0": ("run --depth 2,0", "--depth 0 must be a whole number, 1 or more"),
    "depths in words": (
        "run --depth two",
        "--depth two must be a whole number, or several with commas$",
    ),
    "wide gates": ("run --width 7", "a gate on 7 wires does not fit a circuit of 6"),
    "main group": ("run --group SU", "--group SU is not known"),
    "complex group": ("run --group U", "--group U is not known; use one of SO, O"),
    "main objective": ("run --objectives fidelity", "--objectives fidelity is not known"),
    "negative seed": ("run --seed -1", "--seed -1 must be a whole number, 0 or more"),
    "no epochs": ("run --epochs 0", "--epochs 0 must be a whole number, 1 or more"),
    "no number": ("run --seed x", "--seed x must be a whole number$"),
    # both
    "unknown option": ("run --n-inti 3", "No such option: --n-inti .*--n-init"),
    "unknown command": ("train", "No such command 'train'"),
    "unknown key": ("run --config typo.toml", "unknown option 'n_inti'; did you mean 'n_init'"),
    "unknown layer key": ("disentangle w.npy --config typo.toml", "unknown option 'n_inti'"),
    "broken config": ("run --config broken.toml", "broken.toml is not valid TOML"),
    "missing config": ("run --config absent.toml", "there is no file absent.toml"),
    "full directory": ("disentangle w.npy --run-dir full", "full is not empty; choose another"),
    "directory is a file": ("run --run-dir w.npy", "w.npy is a file; choose another"),
    "config of another kind": ("run --config full", "full: Is a directory; give the name of a"),
    "config below a file": ("run --config w.npy/a", "w.npy/a: Not a directory; a part of the path"),
    "config in a circle": ("run --config circle", "circle: Too many levels of symbolic links; "),
    "config that cannot be read": ("run --config broken_disk", "broken_disk: Input/output error"),
    "config with a long name": (f"run --config {'x' * 300}", "x: File name too long; give a short"),
    "run below a file": ("disentangle w.npy --depth 1 --run-dir w.npy/a", "w.npy/a: Not a direct"),
    "run in a circle": ("disentangle w.npy --depth 1 --run-dir circle", "circle: File exists; it"),
    # numbers
    "far guess": (
        "disentangle w.npy --depth 1 --init-scale 1e300",
        "--init-scale 1e.300 must be 1,000,000 or less",
    ),
    "many rounds": (
        "pareto w.npy --rounds 999999999999",
        "--rounds 999999999999 must be 10,000 or",
    ),
    "seldom": ("watch empty --every inf", "'--every': .* less than or equal to 86400"),
    # studies
    "study in a circle": ("study run circle", "circle: Too many levels of symbolic links; give"),
    "study that cannot be read": ("study run broken_disk", "broken_disk: Input/output error"),
    "study without an address": (
        "study run study.toml --scheduler x",
        "--scheduler 'x' is not an address .*; give tcp://HOST:PORT",
    ),
    "figure without a name": (
        "study plot full --out . --x a value",
        "--out '.' names no file; give a name",
    ),
    # runs
    "show no run": ("show empty", "empty is not a run directory: it has no config.json"),
    "show nothing": ("show absent", "absent is not a run directory"),
    "resume no run": ("resume full", "full is not a run directory"),
    "show without a run": ("show", "Missing argument 'RUN'"),
}


MISUSED = (
    *("no file", "depth 0", "depth -1", "depth x", "depth twice", "unknown group"),
    *("unknown method", "no inputs", "bond 0", "unknown data", "main depth 0"),
    *("depths in words", "main group", "complex group", "main objective", "negative seed"),
    *("no epochs", "no number", "unknown option", "unknown command", "unknown key"),
    *("unknown layer key", "broken config", "show without a run"),
    *("nested options", "many guesses", "far guess", "many rounds", "seldom"),
)
"""Cases in which a command or an option is wrong, whatever the files hold."""
PLACED = ("NaN", "depth 0", "wide gates", "impossible pair")
"""Cases that are tried with given directories, too."""


@pytest.mark.parametrize(
    ("case", "where"),
    [
        *((case, ()) for case in REFUSED),
        *(
            (case, ("--run-dir", folder))
            for case in PLACED
            for folder in ("run", "deep/run", "empty")
        ),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(mpodis, case, where):
    line, message = REFUSED[case]
    inputs()
    before = everything()
    quiet = ("--quiet",) if line.split()[0] in ("run", "disentangle") else ()
    code, out, err = mpodis(*line.split(), *where, *quiet)
    assert code == (2 if case in MISUSED else 1)
    assert re.fullmatch(f"mpodis: .*{message}.*\n", err), err
    assert out == ""
    assert everything() == before


def test_a_real_process_fails_in_one_line_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inputs()
    code = "from mpodis.cli import main; main()"
    before = everything()
    for file in ("nan.npy", "pickle.pt"):
        done = process("-c", code, "disentangle", tmp_path / file, "--run-dir", tmp_path / "run")
        assert done.returncode == 1
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("mpodis: ")
    assert everything() == before


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ValueError("two\n  lines"), 1, "mpodis: two lines\n"),
        (TypeError("no circuit"), 1, "mpodis: no circuit\n"),
        (
            OSError(28, "No space left on device"),
            1,
            "mpodis: the output: No space left on device; make room, or choose another place\n",
        ),
        (
            OSError(28, "No space left on device", "run/history.jsonl"),
            1,
            "mpodis: run/history.jsonl: No space left on device; make room, or choose another "
            "place\n",
        ),
        (ImportError("install it"), 1, "mpodis: install it\n"),
        (typer.BadParameter("so\nwrong"), 2, "mpodis: Invalid value: so wrong\n"),
        (KeyboardInterrupt(), 130, "mpodis: interrupted\n"),
        (typer.Abort(), 130, "mpodis: interrupted\n"),
    ],
)
def test_errors_end_the_process_in_one_line(mpodis, monkeypatch, error, code, message):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(typer.core.TyperGroup, "__call__", fail)
    assert mpodis() == (code, "", message)


def test_a_bug_shows_its_traceback(mpodis, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(typer.core.TyperGroup, "__call__", fail)
    code, out, err = mpodis()
    assert (code, out) == (70, "")
    assert err.startswith("Traceback")
    assert err.endswith(
        "ZeroDivisionError: a bug\n"
        "mpodis: this is an error of mpodis; please report this with the lines above\n"
    )


@pytest.mark.parametrize("error", [KeyError("shape"), RecursionError(), RuntimeError("no graph")])
def test_what_a_file_causes_is_no_bug(mpodis, monkeypatch, error):
    def fail(path):
        raise error

    monkeypatch.setattr("mpodis.jobs.disentangle.holds_factorization", fail)
    code, out, err = mpodis("disentangle", "w.npy", "--depth", "1")
    assert (code, out) == (1, "")
    assert re.fullmatch(r"mpodis: w.npy (cannot be read \(.*|is nested too deeply.*)\n", err)


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("reproduce | true", (0, 1)),  # it may have written all before its reader ends
        ("reproduce | head -1", (0, 1)),
        ("reproduce >&-", (0,)),
        ("show absent >&- 2>&-", (1,)),
        ("reproduce >/dev/full", (1,)),
        ("show absent 2>/dev/full", (1,)),
    ],
)
def test_an_output_that_nobody_reads_ends_the_command_quietly(line, codes):
    """Real processes, since only these have descriptors that are closed."""
    mpodis = f"{shlex.quote(sys.executable)} -c 'from mpodis.cli import main; main()'"
    command = f"{mpodis} {line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode in codes
    full = "mpodis: the output: No space left on device; make room, or choose another place\n"
    assert done.stderr == (full if "reproduce >/dev/full" in line else "")


@pytest.mark.parametrize("option", ["--dir", "file"])
def test_a_study_whose_name_is_no_text_is_refused_before_the_work(mpodis, option):
    inputs()
    name = os.fsdecode(b"\xff.toml")
    Path(name).write_bytes(Path("study.toml").read_bytes())
    where = ("study.toml", "--dir", name) if option == "--dir" else (name,)
    before = everything()
    code, out, err = mpodis("study", "run", *where)
    assert (code, out) == (1, "")
    assert "is not UTF-8; rename" in err
    assert everything() == before


@pytest.mark.parametrize("option", ["file", "run_dir"])
def test_a_name_that_is_no_text_is_refused_before_the_work(mpodis, option):
    names = {"file": "w.npy", "run_dir": "run"} | {option: "w\udce9"}
    np.save("w.npy", np.eye(4))
    found = mpodis("disentangle", names["file"], "--depth", "1", "--run-dir", names["run_dir"])
    assert found[0] in (1, 2)
    assert "is not UTF-8; rename" in found[2]
    assert not Path("run").exists()
