"""The job of one layer on small settings: its numbers, its page, and going on."""

import json
import os
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jobs import (
    Killed,
    Page,
    check_page_holds,
    check_page_is_accessible,
    check_page_needs_nothing_but_itself,
    dies,
    do,
    without_clock,
)
from mpodis import (
    compress,
    disentangle,
    load_factorization,
    low_rank,
    quantum,
    rank_for,
    truncated_mpo,
)
from mpodis.files import read_json, write_json
from mpodis.jobs import disentangle as layer_job
from mpodis.jobs import records
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.disentangle_page import tables as layer_tables
from mpodis.options import DisentangleConfig, SearchOptions
from mpodis.report import render, tables
from mpodis.store import RunStore
from reference import random_matrix, relative_error

run_module = sys.modules[disentangle.__module__]


@pytest.fixture(scope="module")
def layer_files(tmp_path_factory):
    """Files of a 10 x 12 matrix and of its inputs."""
    folder = tmp_path_factory.mktemp("layer")
    np.save(folder / "w.npy", random_matrix((10, 12)))
    np.save(folder / "x.npy", random_matrix((50, 10), seed=1) / np.arange(1, 11))
    return folder


def layer_config(folder, **options):
    options = {"left": "2", "init": "identity", "n_init": 2, "max_sweeps": 4} | options
    options = {"objectives": ("overlap", "activations")} | options
    return DisentangleConfig(file=str(folder / "w.npy"), inputs=str(folder / "x.npy"), **options)


@pytest.fixture(scope="module")
def layer_run(layer_files, tmp_path_factory):
    config = layer_config(layer_files)
    directory = JobDirectory.create(
        tmp_path_factory.mktemp("jobs") / "layer", "disentangle", config
    )
    do("disentangle", config, directory)
    render(directory.path)
    return directory


# --- going on


def test_a_layer_job_that_dies_ends_the_same(layer_run, layer_files, tmp_path, monkeypatch):
    config = layer_config(layer_files)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    for at in (3, 12):  # checkpoints of the first and of the second objective
        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "save", dies(RunStore.save, at=at))
            with pytest.raises(Killed):
                do("disentangle", config, directory)
    assert (directory.path / "activations" / "history.jsonl").exists()
    do("disentangle", config, directory)
    assert without_clock(directory.results()) == without_clock(layer_run.results())


# --- a layer of one's own


def test_a_layer_is_disentangled_by_both_objectives(layer_run, layer_files):
    results = layer_run.results()
    m, x = np.load(layer_files / "w.npy"), np.load(layer_files / "x.npy")
    assert results["name"] == "w"
    assert results["note"] == "w.npy: w, stored as (inputs, outputs)"
    assert "Operator 10 x 12, zero padding to 16 x 16, 4 sites" in results["compression"]
    assert results["mpo"]["relative_error"] < 1e-12
    by_overlap, by_activations = results["runs"]
    for run in (by_overlap, by_activations):
        found = load_factorization(layer_run.path / f"{run['objective']}.safetensors")
        a = found.to_dense()
        assert a.shape == (10, 12)
        assert_allclose(run["relative_error"], relative_error(m, a), rtol=1e-9)
        assert_allclose(run["activation_error"], relative_error(x @ m, x @ a), rtol=1e-9)
        assert run["overlap"] <= run["bound"]
        counts = found.parameter_counts()
        assert run["gates"] == counts["left gates"] + counts["right gates"]
        assert run["core_parameters"] == counts["core"]
        assert len(run["entropies"]) == 3
    assert by_activations["activation_error"] < by_overlap["activation_error"]
    assert by_activations["overlap"] < by_overlap["overlap"]
    # low rank gets at least as many parameters
    rank = rank_for(by_overlap["gates"] + by_overlap["core_parameters"], (10, 12))
    layer, covariance = compress(m), x.T @ x / len(x)
    for objective, weighted in (("overlap", False), ("activations", True)):
        options = {"covariance": covariance, "weighted": weighted}
        expected = [
            truncated_mpo(layer.mpo, 1, shape=(10, 12), **options),
            low_rank(m, rank, **options),
        ]
        found = [row for row in results["baselines"] if row["objective"] == objective]
        for row, a in zip(found, expected, strict=True):
            assert row["name"] == a.name
            assert row["parameters"] == a.parameters
            for measure in ("overlap", "relative_error", "activation_error"):
                assert_allclose(row[measure], getattr(a, measure), rtol=1e-8)


def reached(options, tmp_path, monkeypatch):
    """The keyword arguments of the first call of `disentangle`."""
    seen = {}

    def keep(compressed, **given):
        seen.update(given)
        raise Killed

    monkeypatch.setattr(layer_job, "disentangle", keep)
    with pytest.raises(Killed):
        do("disentangle", options, JobDirectory.create(tmp_path / "run", "disentangle", options))
    return seen


def test_every_option_of_a_layer_reaches_the_disentangler(layer_files, tmp_path, monkeypatch):
    options = {
        "max_bond": 2,
        "group": "O",
        "method": "lbfgs",
        "core": "fixed",
        "engine": "tree",
        "optimize": "hyper",
        "environment_bond": (8, 16),
        "dtype": "float32",
        "device": "cpu",
        "memory": 1e9,
        "init": "random",
        "init_scale": 0.5,
        "n_init": 3,
        "n_perturbed": 1,
        "relaxation": 0.25,
        "init_sweeps": 3,
        "max_sweeps": 7,
        "max_seconds": 60.0,
        "tol": 0.1,
        "seed": 5,
    }
    assert {f.name for f in fields(SearchOptions)} <= {*options, "objective"}
    config = layer_config(layer_files, left=None, objectives=("overlap",), **options)
    seen = reached(config, tmp_path, monkeypatch)
    assert seen.items() >= (options | {"objective": "overlap"}).items()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (8, None)),
        ({"depth": 3}, (3, None)),
        ({"left": "3"}, (3, None)),
        ({"left": "2b + CNOT", "right": "4"}, ("2b + CNOT", 4)),
        ({"right": "1b + 2b"}, (8, "1b + 2b")),
    ],
)
def test_circuits_by_depth_or_spec(layer_files, tmp_path, monkeypatch, given, expected):
    seen = reached(layer_config(layer_files, **{"left": None, **given}), tmp_path, monkeypatch)
    assert (seen["left"], seen["right"]) == expected


def test_what_is_read_already_is_not_read_again(layer_run, layer_files, tmp_path):
    config = layer_config(layer_files)
    prepared = layer_job.prepare(config)
    gone = replace(config, file="gone.npy")
    directory = JobDirectory.create(tmp_path / "run", "disentangle", gone)
    found = layer_job.run(gone, prepared, directory)
    assert without_clock(json.loads(json.dumps(found))) == without_clock(layer_run.results())


def test_a_finished_layer_job_does_nothing_again(layer_run, layer_files):
    before = {file: file.stat().st_mtime_ns for file in (layer_run.path / "stages").iterdir()}
    results = layer_run.results()
    assert (
        json.loads(json.dumps(do("disentangle", layer_config(layer_files), layer_run))) == results
    )
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.no_cover  # whole jobs; those below are traced
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 5), (5, 1)])
def test_the_smallest_layers(tmp_path, shape):
    np.save(tmp_path / "w.npy", random_matrix(shape))
    config = DisentangleConfig(file=str(tmp_path / "w.npy"), left="1b", n_init=1, max_sweeps=2)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    do("disentangle", config, directory)
    page = render(directory.path).read_text()
    sites = max(1, *(int(np.ceil(np.log2(d))) for d in shape))
    assert ("entropy.svg" in os.listdir(directory.path / "figures")) == (sites > 1)
    assert all(table.title in page for table in tables(directory.results()))


@pytest.mark.no_cover  # a whole job; those below are traced
def test_both_circuits_by_their_specs(layer_files, tmp_path):
    config = layer_config(layer_files, right="CNOT + 2b", compress_bond=2)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    results = do("disentangle", config, directory)
    found = load_factorization(directory.path / "overlap.safetensors")
    assert (found.left.ansatz.depth, found.right.ansatz.depth) == (2, 2)
    assert [p.fixed for p in found.right.ansatz.layers[0]] == ["CNOT", "CNOT"]
    assert max(results["mpo"]["bonds"]) == 2
    cut = compress(np.load(layer_files / "w.npy"), max_bond=2)
    assert_allclose(results["mpo"]["relative_error"], cut.relative_error)


def test_entropies_out_of_reach_are_not_drawn(layer_run, tmp_path):
    """As of operators whose dense matrix is too large."""
    results = layer_run.results()
    for run in results["runs"]:
        run["entropies"] = [float("nan")] * 3
    write_json(tmp_path / "config.json", read_json(layer_run.path / "config.json"))
    write_json(tmp_path / "results.json", results)
    render(tmp_path)
    assert sorted(os.listdir(tmp_path / "figures")) == ["costs.svg", "history.svg"]
    line = next(x for x in str(layer_tables(results)[0]).splitlines() if x.startswith("disent"))
    assert line.split()[-3] == "-"


def test_circuits_that_are_too_large_are_not_drawn(layer_run, monkeypatch):
    file = layer_run.path / "overlap.safetensors"
    assert set(records.circuit_figure(file, "Circuits.")) == {"circuits"}
    monkeypatch.setattr(records, "DRAWN", 1)
    assert records.circuit_figure(file, "Circuits.") == {}


def test_gates_are_counted_without_the_optional_device(layer_run, monkeypatch):
    count = quantum.cost_table

    def without_device(factorization, *, backends=("logical", "FakeMontrealV2"), seed):
        if "FakeMontrealV2" in backends:
            raise ImportError("FakeMontrealV2 needs an extra")
        return count(factorization, backends=backends, seed=seed)

    monkeypatch.setattr(quantum, "cost_table", without_device)
    found = records.costs(load_factorization(layer_run.path / "overlap.safetensors"), 0)
    assert {row["backend"] for row in found["rows"]} == {"logical"}
    table = records.gates_table(json.loads(json.dumps(found)), "a layer")
    assert str(table).endswith("FakeMontrealV2 needs an extra")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": "cube.npy"},
            r"cube.npy holds an array of shape \(2, 3, 4\); .*\(samples, 10\)",
        ),
        (
            {"inputs": "w.npy"},
            r"w.npy holds an array of shape \(10, 12\); inputs .*\(samples, 10\)",
        ),
        ({"inputs": "bad.npy"}, "1 of 10 entries of the inputs are NaN or infinite"),
        ({"file": "cube.npy"}, r"expected a matrix .* got an array of shape \(2, 3, 4\)"),
        ({"compress_bond": 0}, "compress_bond=0 must be a whole number, 1 or more"),
        ({"compress_error": 1.5}, "compress_error=1.5 must be below 1"),
    ],
)
def test_a_layer_that_does_not_fit(layer_files, options, message):
    np.save(layer_files / "cube.npy", np.zeros((2, 3, 4)))
    np.save(layer_files / "bad.npy", np.array([[np.nan] + [1.0] * 9]))
    values = layer_config(layer_files).to_dict() | options
    for key in ("file", "inputs"):
        values[key] = str(layer_files / values[key])
    with pytest.raises(ValueError, match=message):
        layer_job.prepare(DisentangleConfig(**values | {"objectives": ("overlap",)}))


# --- pages


def test_the_page_needs_nothing_but_itself(layer_run):
    check_page_needs_nothing_but_itself(layer_run)
    check_page_is_accessible(layer_run)


def test_the_page_holds_tables_and_options(layer_run):
    check_page_holds(layer_run, count=3)


def test_names_of_a_file_cannot_write_the_page(tmp_path):
    name = "<img src=x>&"
    np.savez(tmp_path / "w.npz", **{name: random_matrix((4, 4))})
    config = DisentangleConfig(file=str(tmp_path / "w.npz"), left="1", n_init=1, max_sweeps=1)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    do("disentangle", config, directory)
    text = render(directory.path).read_text()
    assert name not in text
    assert f"Disentangling {name}" in Page(text).text
