"""The command line on operators that are no matrices, and on runs of others, finished or not."""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose

import mpodis as package
from mpodis import load_factorization, load_mpo, load_run, save_mpo
from mpodis.cli import _in_flags
from mpodis.files import load_arrays, locked, save_arrays
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.disentangle import read_operator, searches
from mpodis.jobs.estimate import estimate
from mpodis.options import DisentangleConfig, RunConfig
from reference import random_matrix

QUICK = ("--depth", "1", "--n-init", "1", "--max-sweeps", "2", "--quiet")


@pytest.fixture
def matrix():
    """A matrix with little structure."""
    return random_matrix((8, 8))


# --- operators in files


def network(kind):
    """A tensor network, and the matrix that it stands for."""
    if kind == "MPO":
        mpo = qtn.MPO_rand(4, 3, seed=1, upper_ind_id="in{}", lower_ind_id="out{}")
        return mpo, mpo.to_dense()
    if kind == "ring of an MPS":
        mps = qtn.MPS_rand_state(4, 3, seed=1, cyclic=True, site_ind_id="b{}", dtype=complex)
        return mps, mps.to_dense()
    found = package.compress(random_matrix((6, 5)), max_bond=2)
    return found, found.to_dense()


@pytest.mark.parametrize("kind", ["MPO", "ring of an MPS", "Compressed"])
def test_networks_survive_being_stored(tmp_path, kind):
    given, dense = network(kind)
    save_mpo(given, tmp_path / "m.safetensors")
    found = load_mpo(tmp_path / "m.safetensors")
    assert found.shape == dense.shape
    assert_allclose(found.to_dense(), dense, atol=1e-13)
    assert found.relative_error == getattr(given, "relative_error", 0.0)


def test_what_is_no_stored_mpo(mpodis, matrix):
    package.disentangle(matrix, depth=1, max_sweeps=1).factorization.save("f.safetensors")
    save_mpo(matrix, "m.safetensors")
    with pytest.raises(ValueError, match="was not written by `save_mpo`"):
        load_mpo("f.safetensors")
    with pytest.raises(ValueError, match=r"shape=\(9, 8\) does not lie within"):
        save_mpo(matrix, "m.safetensors", shape=(9, 8))
    assert "holds circuits and a core" in mpodis("disentangle", "f.safetensors")[2]
    assert (
        "--layer fc is for files of matrices"
        in mpodis("disentangle", "m.safetensors", "--layer", "fc")[2]
    )


def test_an_operator_too_large_to_be_dense(mpodis):
    rng = np.random.default_rng(0)
    bonds = [1, *[2] * 15, 1]
    shapes = [(a, 2, 2, b) for a, b in itertools.pairwise(bonds)]
    mpo = package.mpo_from_tensors([rng.normal(size=shape) for shape in shapes])
    save_mpo(mpo, "m.safetensors")
    code, out, err = mpodis("disentangle", "m.safetensors", *QUICK, "--run-dir", "run")
    assert (code, err) == (0, "")
    results = json.loads(Path("run/results.json").read_text())
    found = load_factorization("run/overlap.safetensors")
    network = found.tensor_network()
    norms = package.log_norm(mpo) + package.log_norm(found.core)
    inner = (mpo.H & network).contract(all, optimize="greedy")
    assert_allclose(results["runs"][0]["overlap"], inner / np.exp(norms), atol=1e-10)
    (cut,) = results["baselines"]
    truncated = package.truncate(mpo, max_bond=1).mpo
    assert_allclose(cut["overlap"], package.overlap(mpo, truncated))
    assert "Operator 65,536 x 65,536" in out


def test_a_state_that_is_compressed_first(mpodis):
    save_mpo(qtn.MPS_rand_state(6, 8, seed=0), "psi.safetensors")
    flags = ("--compress-bond", "3", *QUICK, "--run-dir", "run")
    assert mpodis("disentangle", "psi.safetensors", *flags)[0] == 0
    results = json.loads(Path("run/results.json").read_text())
    assert max(results["mpo"]["bonds"]) == 3
    f = load_factorization("run/overlap.safetensors")
    stored = read_operator(DisentangleConfig(file="psi.safetensors", compress_bond=3)).compressed
    psi, phi = stored.to_dense().ravel(), f.to_dense().ravel()
    cosine = psi @ phi / np.linalg.norm(psi) / np.linalg.norm(phi)
    assert_allclose(results["runs"][0]["overlap"], cosine)


# --- before a run


def test_an_estimate_is_that_of_the_run(mpodis, matrix):
    np.save("w.npy", matrix)
    options = DisentangleConfig(file="w.npy", depth=2, max_sweeps=30)
    engines, ours = estimate(options)
    (search,) = searches(options, read_operator(options))
    found = package.disentangle(matrix, depth=2, max_sweeps=30)
    ((objective, engine, init, sweeps, each, longest),) = ours.rows
    assert (objective, engine, init) == ("overlap", found.options.engine, found.options.init)
    assert len(found.history) <= sweeps == search.total
    assert 0 < each < longest < each * sweeps  # early stages have fewer gates
    assert engine in [row[0] for row in engines.rows]
    limited = estimate(DisentangleConfig(file="w.npy", depth=2, max_seconds=1e-3))[1]
    assert limited.rows[0][-1] == 1e-3


def test_the_estimate_of_the_command(mpodis, matrix):
    np.save("w.npy", matrix)
    code, out, err = mpodis("estimate", "w.npy", "--depth", "1", "--max-sweeps", "3")
    assert (code, err) == (0, "")
    assert "dense" in out
    assert not Path("runs").exists()


# --- runs of Python


@pytest.fixture
def run(mpodis, matrix):
    """A run of `disentangle` that was stopped by its limit."""
    package.disentangle(matrix, depth=2, n_init=1, max_sweeps=2, tol=0, run_dir="run")
    return Path("run")


def test_a_run_of_python_is_shown_exported_and_resumed(mpodis, run):
    before = load_run(run)
    assert str(before) in mpodis("show", "run")[1]
    assert mpodis("export", "run", "--out", "circuits")[0] == 0
    assert Path("circuits/circuits.json").is_file()
    code, out, err = mpodis("resume", "run", "--max-sweeps", "4", "--quiet")
    assert (code, err) == (0, "")
    after = load_run(run)
    assert len(after.history) > len(before.history)
    assert str(after) in out


def test_pieces_are_shown_and_go_on_in_python(mpodis, matrix):
    options = {"families": "SO(4)", "depths": (1,), "max_sweeps": 2, "run_dir": "pieces"}
    front = package.pareto(package.compress(matrix), **options)
    assert str(front) in mpodis("show", "pieces")[1]
    code, out, _ = mpodis("watch", "pieces")
    assert code == 0
    assert "pieces holds 2 finished pieces" in out
    assert "go on in Python" in mpodis("resume", "pieces")[2]


def test_a_run_of_the_compiler_is_shown_and_goes_on_in_python(mpodis):
    target = package.evolution(package.pauli_chain(4, ZZ=1.0, X=0.7), 0.5)
    found = package.compile_unitary(target, depth=3, run_dir="run")
    assert str(found) in mpodis("show", "run")[1]
    code, out, _ = mpodis("watch", "run")
    assert code == 0
    line = f"compile_unitary: {len(found.history)} records, 3 layers, 1 - |c| "
    assert line in out
    assert "begun from a fitted product formula" in out
    assert out.endswith("run has ended\n")
    Path("run/result.safetensors").unlink()  # as a run that was killed
    code, out, _ = mpodis("watch", "run")
    assert code == 1
    assert line in out
    assert "run was stopped; go on in Python, by the same call with this directory" in out
    code, _, err = mpodis("resume", "run")
    assert code == 1
    assert "run is a run of the compiler; go on in Python" in err
    Path("run/progress.safetensors").unlink()
    assert "compile_unitary: no record yet" in mpodis("watch", "run", "--once")[1]


def test_a_run_that_another_process_works_on(mpodis, run):
    with locked(run):
        code, _, err = mpodis("resume", "run", "--max-sweeps", "9")
    assert code == 1
    holder = rf"another process is working in run \(process {os.getpid()} on \S+ since 20.*\);"
    assert re.fullmatch(rf"mpodis: {holder} follow it with `mpodis watch run`.*\n", err)


# --- following a run


def forget_the_end(run):
    """The checkpoint of a run that has not ended."""
    file = run / "checkpoint.safetensors"
    arrays, header = load_arrays(file)
    state = json.loads(header["state"]) | {"ended": "", "status": ""}
    save_arrays(file, arrays, metadata=header | {"state": json.dumps(state)})


def test_watch_tells_whether_a_run_goes_on(mpodis, run):
    records = load_run(run).history.records
    code, out, _ = mpodis("watch", "run")
    assert code == 0
    best = min(records, key=lambda record: record["loss"])
    assert f"{len(records)} records, 2 layers" in out
    assert f"best so far {best['overlap']:.6g}" in out
    assert out.endswith("run has ended\n")
    forget_the_end(run)
    code, out, _ = mpodis("watch", "run", "--every", "0.1")
    assert code == 1
    assert out.endswith("run was stopped; go on with `mpodis resume run`\n")
    with locked(run):
        code, out, _ = mpodis("watch", "run", "--once")
    assert code == 0
    assert out.endswith("run is running\n")
    code, out, _ = mpodis("show", "run")
    assert code == 0
    assert "unfinished" in out


def test_watch_follows_a_run_to_its_end(mpodis, run, monkeypatch):
    forget_the_end(run)
    seen = len(load_run(run).history)
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: package.resume(run, max_sweeps=3))
        code, out, _ = mpodis("watch", "run")
    assert code == 0
    sweeps = [int(number) for number in re.findall("([0-9]+) records,", out)]
    assert sweeps == [seen, len(load_run(run).history)]
    assert sweeps[1] > seen
    assert out.endswith("run has ended\n")


def test_a_job_that_ended_at_a_limit_goes_on_under_another(mpodis, matrix):
    np.save("w.npy", matrix)
    flags = ("--depth", "2", "--n-init", "1", "--max-sweeps", "2", "--tol", "0", "--quiet")
    assert mpodis("disentangle", "w.npy", *flags, "--run-dir", "run")[0] == 0
    before = json.loads(Path("run/results.json").read_text())["runs"][0]
    assert mpodis("resume", "run", "--max-sweeps", "5", "--quiet")[0] == 0
    after = json.loads(Path("run/results.json").read_text())["runs"][0]
    assert len(after["history"]["loss"]) > len(before["history"]["loss"])
    assert after["overlap"] > before["overlap"]
    assert "overlap-costs done" in mpodis("watch", "run")[1]


def test_limits_are_for_runs_of_disentangle(mpodis):
    JobDirectory.create("other", "run", RunConfig())
    code, _, err = mpodis("resume", "other", "--max-sweeps", "5")
    assert (code, err) == (2, "mpodis: --max-sweeps: other is a run of run\n")


# --- words


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("max_bond=0 must be 1 or more", "--max-bond 0 must be 1 or more"),
        ("environment_bond=(64, 32) must", "--environment-bond 64,32 must"),
        ("give right= too, or data_dir", "give --right too, or --data-dir"),
        ("left='2b + CNOT' does not", "--left '2b + CNOT' does not"),
        ("use device=None, which", "use no --device, which"),
        ("shape=(3, 4) and a/max_bond=3.npy", "shape=(3, 4) and a/max_bond=3.npy"),
    ],
)
def test_errors_speak_of_flags(message, said):
    assert _in_flags(message) == said


def test_help_tells_the_exit_statuses_and_completion(mpodis, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = " ".join(mpodis("--help")[1].split())
    for words in ("0, done", "1, the input", "2, a command", "130, interrupted"):
        assert words in out
    assert "--install-completion" in out


def test_the_shell_completes_values():
    code = "import sys; sys.argv = ['mpodis']; from mpodis.cli import main; main()"
    line = {"COMP_WORDS": "mpodis disentangle w.npy --method sw", "COMP_CWORD": "4"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | line | {"_MPODIS_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == ["sweeps"]
