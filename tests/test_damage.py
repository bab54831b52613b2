"""Damaged and edited files, and those of other runs and versions: errors by name, or the same."""

import os
import shutil
from functools import cache
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from mpodis import disentangle, load_factorization, load_mpo, load_run, resume, save_mpo
from mpodis.files import (
    load_arrays,
    locked,
    read_json,
    remove_parts,
    save_arrays,
    write_json,
)
from mpodis.jobs import JOBS, open_job
from mpodis.jobs.directory import JobDirectory
from mpodis.options import DisentangleConfig
from mpodis.store import PieceStore
from reference import random_matrix
from runs import assert_same_result

OPTIONS = {"depth": 1, "n_init": 1, "init": "identity", "method": "sweeps", "max_sweeps": 6}
MATRIX, OTHER = random_matrix((8, 8)), random_matrix((8, 8), seed=7)
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"


@cache
def left_alone():
    return disentangle(MATRIX, **OPTIONS)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run with two checkpoints."""
    monkeypatch.setattr("mpodis.disentangling.CHECKPOINT_SECONDS", 0.0)
    disentangle(MATRIX, **OPTIONS, run_dir=tmp_path / "run")
    assert (tmp_path / "run" / PREVIOUS).exists()
    return tmp_path / "run"


def flip(file, place=0.5):
    data = bytearray(file.read_bytes())
    data[int(place * len(data))] ^= 4
    file.write_bytes(data)


# --- runs of `disentangle`


@pytest.mark.parametrize("place", [0.001, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("name", [CHECKPOINT, "history.jsonl"])
def test_what_goes_on_from_an_earlier_state_ends_the_same(run, name, place, caplog):
    flip(run / name, place)
    with pytest.raises(ValueError, match=f"{name}.*|checkpoint"):
        load_run(run)
    caplog.clear()
    assert_same_result(resume(run), left_alone())
    used = [record for record in caplog.messages if "cannot use" in record]
    assert used
    assert all(name in message for message in used)
    assert_same_result(load_run(run), left_alone())


@pytest.mark.parametrize("name", ["config.json", "problem.safetensors"])
def test_what_a_run_is_of_is_not_read_with_a_flipped_bit(run, name):
    flip(run / name)
    for read in (resume, load_run):
        with pytest.raises(ValueError, match=name):
            read(run)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"operator": OTHER}, "fingerprint differs"),
        ({"depth": 2}, "circuits differs"),
        ({"seed": 5, "tol": 0.5}, "seed, tol differ"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(run, tmp_path, change, named):
    disentangle(**{"operator": MATRIX, **OPTIONS, "run_dir": tmp_path / "other", **change})
    for name in (CHECKPOINT, "history.jsonl"):
        shutil.copy(tmp_path / "other" / name, run / name)
    before = (run / "config.json").read_bytes()
    for read in (resume, load_run, lambda run: disentangle(MATRIX, **OPTIONS, run_dir=run)):
        with pytest.raises(ValueError, match=rf"checkpoint.* belongs to another .*\(its {named}\)"):
            read(run)
    assert (run / "config.json").read_bytes() == before


def test_settings_that_were_edited_are_refused_by_name(run):
    config = read_json(run / "config.json")
    config["options"]["relaxation"] = 0.3
    write_json(run / "config.json", config)
    with pytest.raises(ValueError, match=r"belongs to another run .*\(its relaxation differs\)"):
        resume(run)
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"relaxation": 0.3', '"relaxation": 0.4'))
    with pytest.raises(ValueError, match=r"config.json has changed since .*, or was edited"):
        resume(run)


def test_a_finished_run_is_read_where_nothing_can_be_written(run):
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.iterdir()}
    run.chmod(0o500)
    try:
        for again in (
            resume(run),
            load_run(run),
            disentangle(MATRIX, **OPTIONS, run_dir=run),
        ):
            assert_same_result(again, left_alone())
    finally:
        run.chmod(0o700)
    assert files == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in run.iterdir()}


def test_wrong_options_of_resume_write_nothing(run):
    before = {file: file.read_bytes() for file in run.iterdir()}
    with pytest.raises(ValueError, match="max_sweeps=0"):
        resume(run, max_sweeps=0)
    assert before == {file: file.read_bytes() for file in run.iterdir()}


# --- jobs


@pytest.fixture
def job(tmp_path):
    options = DisentangleConfig(file="w.npy")
    directory = JobDirectory.create(tmp_path / "job", "disentangle", options)
    directory.stage("a", lambda: {"seconds": 1.0})
    return directory


def test_a_damaged_stage_names_its_file(job):
    flip(job.path / "stages" / "a.json")
    with pytest.raises(ValueError, match=r"a\.json"):
        job.stage("a", lambda: {"seconds": 2.0})


def test_the_stage_of_another_run_is_refused_by_name(job, tmp_path):
    options = DisentangleConfig(file="w.npy", seed=3)
    other = JobDirectory.create(tmp_path / "other", "disentangle", options)
    shutil.copy(job.path / "stages" / "a.json", other.path / "stages" / "a.json")
    with pytest.raises(ValueError, match=r"a.json belongs to another run .*\(its seed differs\)"):
        other.read_stage("a")


def test_the_factorization_of_another_run_is_refused(job, tmp_path):
    found = left_alone().factorization
    other = JobDirectory.create(tmp_path / "other", "disentangle", DisentangleConfig(file="v.npy"))
    file = tmp_path / "f.safetensors"
    other.save_factorization(file, found)
    assert_array_equal(other.load_factorization(file).to_dense(), found.to_dense())
    with pytest.raises(ValueError, match="f.safetensors belongs to another run"):
        job.load_factorization(file)
    found.save(file)  # which says nothing of a run
    job.load_factorization(file)


def test_the_results_of_another_run_are_refused(job, tmp_path):
    other = JobDirectory.create(tmp_path / "other", "disentangle", DisentangleConfig(file="v.npy"))
    assert job.finish({"job": "disentangle"}) == job.results()
    shutil.copy(job.path / "results.json", other.path)
    with pytest.raises(ValueError, match="other/results.json belongs to another run"):
        other.results()


def test_results_of_the_version_before_are_read_and_not_continued(job):
    record = read_json(job.path / "config.json") | {"format": "mpodis-job-2"}
    write_json(job.path / "config.json", record)
    with pytest.raises(ValueError, match="earlier file format .*, which cannot be continued"):
        open_job(job.path)
    write_json(job.path / "results.json", {"job": "disentangle"})  # not even of which run they are
    assert open_job(job.path)[0].results() == {"job": "disentangle"}


@pytest.mark.parametrize("left", [(), ("stages",), ("stages", "lock", ".config.json.1-a.x.part")])
def test_what_was_killed_before_it_began_can_be_started(tmp_path, left):
    path = tmp_path / "job"
    path.mkdir()
    for name in left:
        (path / name).mkdir() if name == "stages" else (path / name).touch()
    directory = JobDirectory.create(path, "disentangle", DisentangleConfig(file="w.npy"))
    assert set(JOBS) >= {open_job(directory.path)[1]}


# --- formats


def write_version(file, version):
    """Files of other versions, as the present ones with another number."""
    kind = file.stem
    if kind == "run":
        disentangle(MATRIX, **OPTIONS, run_dir=file)
        config = read_json(file / "config.json")
        write_json(file / "config.json", config | {"format": f"mpodis-disentangle-{version}"})
    elif kind == "job":
        directory = JobDirectory.create(file, "disentangle", DisentangleConfig(file="w.npy"))
        record = read_json(directory.path / "config.json")
        write_json(file / "config.json", record | {"format": f"mpodis-job-{version}"})
    else:
        save_mpo(MATRIX, file) if kind == "mpo" else left_alone().factorization.save(file)
        arrays, header = load_arrays(file)
        save_arrays(file, arrays, metadata=header | {"format": f"mpodis-{kind}-{version}"})


READERS = {
    "run": resume,
    "job": open_job,
    "mpo.safetensors": load_mpo,
    "factorization.safetensors": load_factorization,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(("version", "named"), [(99, "a newer version"), (0, "an earlier file fo")])
def test_other_formats_are_refused_by_name(tmp_path, name, version, named):
    write_version(tmp_path / name, version)
    with pytest.raises(ValueError, match=rf"{name}.* {named}"):
        READERS[name](tmp_path / name)


def test_a_factorization_without_checksums_is_read(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    file, found = tmp_path / "f.safetensors", left_alone().factorization
    found.save(file)
    with safe_open(file, framework="numpy") as opened:
        header = {key: x for key, x in opened.metadata().items() if "sha256" not in key}
    save_file(load_file(file), file, metadata=header)
    assert "sha256" not in file.read_bytes().decode(errors="ignore")
    assert_array_equal(load_factorization(file).to_dense(), found.to_dense())


# --- what was left behind


def test_temporary_files_of_dead_processes_are_removed(tmp_path):
    dead = 2**22 + 1  # beyond the largest process id of Linux
    whose = name_of_a_temporary_file(tmp_path)
    mine = tmp_path / whose
    left = tmp_path / "stages" / whose.replace(str(os.getpid()), str(dead))
    left.parent.mkdir()
    for file in (mine, left):
        file.touch()
    remove_parts(tmp_path)
    assert mine.exists()
    assert not left.exists()
    left.touch()
    with locked(tmp_path):
        assert not left.exists()
    (tmp_path / "pieces").mkdir()
    left = tmp_path / "pieces" / left.name
    left.touch()
    PieceStore(tmp_path / "pieces", {}, kind="example")
    assert not left.exists()


def name_of_a_temporary_file(folder):
    """The name of a temporary file, as it is while a file is written."""
    names = []

    class Spied(Exception):
        pass

    def spy(source, target):
        names.append(Path(source).name)
        raise Spied

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", spy)
        with pytest.raises(Spied):
            write_json(folder / "a.json", {})
    return names[0]
