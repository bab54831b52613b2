"""`mpodis export`: from a run or a file to circuits that read back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jobs import do
from mpodis import load_factorization
from mpodis.factorization import holds_factorization
from mpodis.files import array_metadata, save_arrays
from mpodis.jobs.directory import JobDirectory
from mpodis.options import DisentangleConfig
from mpodis.quantum import load_circuits
from reference import circuit_matrix, random_matrix


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of two objectives, with files beside its factorizations that are none."""
    folder = tmp_path_factory.mktemp("export")
    np.save(folder / "w.npy", random_matrix((8, 5)))
    np.save(folder / "x.npy", random_matrix((20, 8), seed=1))
    options = {"left": "1", "n_init": 1, "max_sweeps": 2, "objectives": ("overlap", "activations")}
    config = DisentangleConfig(file=str(folder / "w.npy"), inputs=str(folder / "x.npy"), **options)
    do("disentangle", config, JobDirectory.create(folder / "run", "disentangle", config))
    save_arrays(folder / "run" / "other.safetensors", {"a": np.ones(2)})
    return folder / "run"


@pytest.fixture
def run(mpodis, made):
    """The run in the working folder."""
    return Path(shutil.copytree(made, "run"))


@pytest.mark.parametrize("format", ["qasm3", "qpy"])
def test_all_circuits_of_a_run(mpodis, run, format):
    if format == "qasm3":
        pytest.importorskip("qiskit_qasm3_import")
    code, out, err = mpodis("export", run, "--format", format, "--out", "circuits")
    assert (code, err) == (0, "")
    for objective in ("overlap", "activations"):
        f = load_factorization(run / f"{objective}.safetensors")
        found = load_circuits(Path("circuits") / objective)
        assert_allclose(found["left"].to_dense(), circuit_matrix(f.left), atol=1e-10)
        assert_allclose(found["right"].to_dense(), circuit_matrix(f.right), atol=1e-10)
        assert f"written to circuits/{objective}" in out
    assert {path.name for path in Path("circuits").iterdir()} == {"overlap", "activations"}


def test_one_file(mpodis, run):
    code, _, err = mpodis("export", run / "overlap.safetensors", "--out", "one")
    assert (code, err) == (0, "")
    names = {path.name for path in Path("one").iterdir()}
    assert names == {"circuits.json", "left.qasm", "right.qasm"}
    assert json.loads(Path("one/circuits.json").read_text())["shape"] == [8, 5]


def test_what_cannot_be_exported(mpodis, run):
    Path("empty").mkdir()
    Path("notes.safetensors").write_text("no arrays")
    cases = {
        ("absent", "--out", "o"): "there is no file absent",
        ("empty", "--out", "o"): "empty is not a run directory",
        ("run/other.safetensors", "--out", "o"): "does not hold a factorization",
        ("notes.safetensors", "--out", "o"): "is not a whole safetensors file",
        ("run", "--out", "run"): "run is not empty; choose another folder",
        (
            "run",
            "--out",
            "o",
            "--format",
            "svg",
        ): "--format svg is not known; use one of qasm3, qpy",
        ("run",): "Missing option '--out'",
    }
    for arguments, message in cases.items():
        code, _, err = mpodis("export", *arguments)
        assert code != 0
        assert message in err
        assert err.count("\n") == 1
    assert not Path("o").exists()


def test_a_run_without_factorizations(mpodis, run):
    for objective in ("overlap", "activations"):
        (run / f"{objective}.safetensors").unlink()
    code, _, err = mpodis("export", run, "--out", "o")
    assert code == 1
    assert "a run of `mpodis disentangle`, holds no factorization" in err
    (run / "results.json").unlink()  # as if it had been stopped
    code, _, err = mpodis("export", run, "--out", "o")
    assert code == 1
    assert f"{run} has no result yet; go on with `mpodis resume" in err


def test_headers_tell_files_apart(run):
    assert holds_factorization(run / "overlap.safetensors")
    assert not holds_factorization(run / "other.safetensors")
    assert not holds_factorization(run / "config.json")
    assert array_metadata(run / "absent.safetensors") == {}
