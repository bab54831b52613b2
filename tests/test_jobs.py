"""The jobs of the command line on small settings: their numbers, their pages, and going on."""

import base64
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

from mpodis import (
    compress,
    disentangle,
    load_factorization,
    low_rank,
    quantum,
    rank_for,
    truncation,
)
from mpodis.ansatz import brickwall
from mpodis.config import LayerConfig, MainConfig, to_mapping
from mpodis.data import load_data
from mpodis.experiments import layer_job, main_job, records
from mpodis.experiments.layer_job import load_problem, run_layer
from mpodis.experiments.main_job import run_main
from mpodis.experiments.run_directory import JobDirectory
from mpodis.experiments.summaries import layer_tables, main_tables
from mpodis.files import read_json, write_json
from mpodis.report import render, tables
from reference import overlap, random_matrix, relative_error

ROOT = Path(__file__).resolve().parents[1]
MAIN = MainConfig(depths=(2, 1), starts=1, max_sweeps=3, execute=20, repeats=2, epochs=8)
SHORT = MainConfig(
    depths=(1,),
    objectives=("overlap",),
    group="O",
    width=3,
    seed=4,
    starts=1,
    max_sweeps=1,
    epochs=1,
    execute=0,
)
OBJECTIVES = ("overlap", "activations", "sensitivity")
PNG = b"\x89PNG\r\n\x1a\n"

run_module = sys.modules[disentangle.__module__]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A main job that was left alone, with its report."""
    directory = JobDirectory.create(tmp_path_factory.mktemp("jobs") / "main", "run", MAIN)
    results = run_main(MAIN, directory)
    assert directory.results() == json.loads(json.dumps(results))
    render(directory.path)
    return directory


@pytest.fixture(scope="module")
def networks(finished):
    return finished.results()["networks"]


@pytest.fixture(scope="module")
def layer_files(tmp_path_factory):
    """Files of a 10 x 12 matrix and of its inputs."""
    folder = tmp_path_factory.mktemp("layer")
    np.save(folder / "w.npy", random_matrix((10, 12)))
    np.save(folder / "x.npy", random_matrix((50, 10), seed=1) / np.arange(1, 11))
    return folder


def layer_config(folder, **options):
    options = {"left": "2", "start": "identity", "starts": 2, "max_sweeps": 4} | options
    objectives = ("overlap", "activations")
    return LayerConfig(
        file=str(folder / "w.npy"), inputs=str(folder / "x.npy"), objectives=objectives, **options
    )


@pytest.fixture(scope="module")
def layer_run(layer_files, tmp_path_factory):
    config = layer_config(layer_files)
    directory = JobDirectory.create(
        tmp_path_factory.mktemp("jobs") / "layer", "disentangle", config
    )
    run_layer(config, directory)
    render(directory.path)
    return directory


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


# --- the main job


def rows(network, objective):
    return {row["depth"]: row for row in network["rows"] if row["objective"] == objective}


def test_every_part_of_the_main_job_is_recorded(networks):
    assert [network["seed"] for network in networks] == [0, 1]
    pairs = [(depth, objective) for depth in (1, 2) for objective in OBJECTIVES]
    for network in networks:
        assert [(row["depth"], row["objective"]) for row in network["rows"]] == pairs
        assert list(network["runs"]) == [f"depth{depth}-{objective}" for depth, objective in pairs]
        names = {(row["name"].split(",")[0], row["objective"]) for row in network["baselines"]}
        kinds = ("truncated MPO", "low rank 1")
        assert names == {("zero", "-"), *itertools.product(kinds, OBJECTIVES)}
        assert network["training"]["epochs"] == 8
        assert len(network["training"]["losses"]) == 8
        assert len(network["mpo"]["entropies"]) == len(network["mpo"]["bonds"]) == 5
        parts = {row["part"] for row in network["costs"]["rows"]}
        assert {"left circuit", "right circuit", "both sides"} <= parts
        for row in network["rows"]:
            assert 0 < row["overlap"] <= row["bound"] + 1e-12
            run = network["runs"][f"depth{row['depth']}-{row['objective']}"]
            assert len(run["history"]["sweep"]) == 4
            assert row["s_avg"] == pytest.approx(np.mean(run["entropies"]))
            assert row["core"] == 24  # six sites of 2 x 2 at chi' = 1
            assert row["gates"] > 0


def test_every_option_reaches_the_disentangler(tmp_path, monkeypatch):
    seen = {}

    def keep(mpo, **options):
        seen.update(options)
        raise Killed

    monkeypatch.setattr(main_job, "disentangle", keep)
    config = replace(SHORT, core_bond=2, starts=3, max_sweeps=7, tol=0.1)
    with pytest.raises(Killed):
        run_main(config, JobDirectory.create(tmp_path / "run", "run", config))
    assert seen["left"] == brickwall(6, 1, 3, group="O")
    for name in ("core_bond", "starts", "max_sweeps", "tol", "seed"):
        assert seen[name] == getattr(config, name)


def test_a_whole_core_changes_nothing(networks):
    for network in networks:
        assert network["accuracy"]["untruncated"] == network["accuracy"]["original"]
        assert network["accuracy"]["original"] > 80


def test_circuits_on_aer_classify_as_the_network_does(networks):
    for network in networks:
        execution = network["execution"]
        assert execution["images"] == 20
        assert execution["objective"] == OBJECTIVES[-1]
        assert execution["differences"] == 0
        assert execution["largest_deviation"] < 1e-9
        assert execution["accuracy_aer"] == execution["accuracy_classical"]


def test_each_objective_is_best_at_what_it_minimises(networks):
    for network in networks:
        by_overlap, by_activations = rows(network, "overlap"), rows(network, "activations")
        for depth in (1, 2):
            plain, felt = by_overlap[depth], by_activations[depth]
            assert felt["activation_error"] < plain["activation_error"]
            assert felt["overlap"] < plain["overlap"]


def test_circuits_beat_the_truncation_without_them(networks):
    for network in networks:
        for objective in OBJECTIVES:
            (cut,) = (
                row
                for row in network["baselines"]
                if row["objective"] == objective and row["name"].startswith("truncated")
            )
            measure = "relative_error" if objective == "overlap" else "activation_error"
            assert all(row[measure] < cut[measure] for row in rows(network, objective).values())


def test_accuracies_and_errors_in_plain_numpy(finished, networks):
    """The network written out: relu(x A + b) W + c, with A and b from the files of the run."""
    data = load_data()
    for network in networks:
        folder = finished.path / f"seed{network['seed']}"
        weights = {
            name: w.astype(float) for name, w in load_file(folder / "network.safetensors").items()
        }
        head, bias = weights["head.weight"].T, weights["head.bias"]
        mean = data.x_train.mean(axis=0)
        m = functools.reduce(
            lambda a, core: np.einsum("ijx,xkly->ikjly", a, core).reshape(
                a.shape[0] * core.shape[1], a.shape[1] * core.shape[2], -1
            ),
            [weights[f"mpo.cores.{k}"] for k in range(6)],
            np.ones((1, 1, 1)),
        )[..., 0]

        def correct(matrix, shift, head=head, bias=bias):
            hidden = np.maximum(data.x_test @ matrix + shift, 0)
            return 100 * np.mean((hidden @ head + bias).argmax(1) == data.y_test)

        assert network["accuracy"]["original"] == correct(m, 0)
        for row in network["rows"]:
            file = folder / f"depth{row['depth']}-{row['objective']}.safetensors"
            a = load_factorization(file).matrix()
            shift = mean @ (m - a) if row["objective"] == "sensitivity" else 0 * mean
            assert row["accuracy"] == pytest.approx(correct(a, shift))
            assert_allclose(row["overlap"], overlap(m, a), rtol=1e-6)
            assert_allclose(row["relative_error"], relative_error(m, a), rtol=1e-6)
            felt = relative_error(data.x_train @ m, data.x_train @ a + shift)
            assert_allclose(row["activation_error"], felt, rtol=1e-6)
            assert row["bias"] == (64 if row["objective"] == "sensitivity" else 0)
        nothing = next(row for row in network["baselines"] if row["name"] == "zero")
        assert nothing["accuracy"] == pytest.approx(correct(0 * m, 0 * mean))
        centred = np.cov(data.x_train.T, bias=True)
        plain = centred + np.outer(mean, mean)
        felt = fisher(data.x_train @ m, head, bias)
        for objective, moments in {
            "overlap": {},
            "activations": {"covariance": plain},
            "sensitivity": {"covariance": centred, "sensitivity": felt},
        }.items():
            row = next(
                row
                for row in network["baselines"]
                if row["objective"] == objective and row["name"] == "low rank 1"
            )
            a = low_rank(m, 1, **moments).matrix
            shift = mean @ (m - a) if objective == "sensitivity" else 0 * mean
            assert row["accuracy"] == pytest.approx(correct(a, shift))
            assert row["bias"] == (64 if objective == "sensitivity" else 0)
            error = relative_error(data.x_train @ m, data.x_train @ a + shift)
            assert_allclose(row["activation_error"], error, rtol=1e-6)


def fisher(outputs, head, bias):
    """E[g^T g] of the gradients g of log p_c at the outputs of the layer, c drawn from p."""
    logits = np.maximum(outputs, 0) @ head + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    total = 0
    for c in range(head.shape[1]):
        g = (head[:, c] - p @ head.T) * (outputs > 0)
        total = total + (p[:, c, None] * g).T @ g
    return total / len(outputs)


def test_networks_of_several_seeds_are_summed_up(networks):
    text = "\n".join(map(str, main_tables({"networks": networks})))
    accuracies = [network["accuracy"]["original"] for network in networks]
    spread = np.std(accuracies, ddof=1)
    assert (
        f"2 networks, seeds 0-1, test accuracy {np.mean(accuracies):.2f} +- {spread:.2f} %" in text
    )
    lost = [n["accuracy"]["original"] - rows(n, "overlap")[2]["accuracy"] for n in networks]
    overlaps = [rows(n, "overlap")[2]["overlap"] for n in networks]
    medians = text.split("2 networks")[1]
    line = next(x for x in medians.splitlines() if x.startswith("disentangled, depth 2  "))
    figures = [float(x) for x in line.split()[-4:]]
    expected = [np.median(lost), min(lost), max(lost), np.median(overlaps)]
    assert_allclose(figures, expected, atol=0.006)
    alone = "\n".join(map(str, main_tables({"networks": networks[:1]})))
    assert "2 networks" not in alone
    assert "network of seed 0" in alone


def test_a_job_of_one_objective_and_without_execution(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", SHORT)
    (network,) = run_main(SHORT, directory)["networks"]
    assert network["seed"] == 4
    assert network["execution"] == {"images": 0}
    page = render(directory.path).read_text()
    for text in (page, "\n".join(map(str, tables(directory.results())))):
        assert "network of seed 4" in text
        assert "executed exactly" not in text
        assert "networks, seeds" not in text


def test_circuits_that_do_not_fit_are_noticed_before_anything_is_trained(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    with pytest.raises(ValueError, match="a gate of 7 wires does not fit an operator of 6"):
        run_main(MainConfig(width=7), directory)
    assert not directory.begun()


@pytest.mark.parametrize("execute", [-1, 10**6])
def test_no_more_images_are_run_than_there_are(tmp_path, monkeypatch, execute):
    monkeypatch.setattr(main_job, "hybrid_layer", lambda f, x, progress: x @ f.matrix())
    directory = JobDirectory.create(tmp_path / "run", "run", SHORT)
    (network,) = run_main(replace(SHORT, execute=execute), directory)["networks"]
    assert network["execution"]["images"] == 360


# --- going on


def test_a_finished_job_does_nothing_again(finished):
    stages = sorted((finished.path / "stages").iterdir())
    assert len(stages) == 8
    before = [file.stat().st_mtime_ns for file in stages]
    results = finished.results()
    assert json.loads(json.dumps(run_main(MAIN, finished))) == results
    assert [file.stat().st_mtime_ns for file in stages] == before
    assert finished.results() == results


def test_a_job_that_dies_again_and_again_ends_the_same(finished, tmp_path, monkeypatch):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    for target, name, options in (
        (main_job, "_train", {"at": 1, "after": True}),
        (main_job, "disentangle", {"at": 1}),
        (run_module.Chain, "step", {"at": 7}),
        (main_job, "disentangle", {"at": 4, "after": True}),
        (main_job, "_baselines", {"at": 1}),
        (main_job, "_execute", {"at": 1, "after": True}),
        (main_job, "costs", {"at": 1}),
        (run_module.Chain, "step", {"at": 10}),
        (JobDirectory, "finish", {"at": 1}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, dies(getattr(target, name), **options))
            with pytest.raises(Killed):
                run_main(MAIN, directory)
        assert not (directory.path / "results.json").exists()
    run_main(MAIN, directory)
    assert without_clock(directory.results()) == without_clock(finished.results())


def test_a_killed_process_ends_the_same(finished, tmp_path):
    """SIGKILL amid the second network, and the rest of the work in this process."""
    path = tmp_path / "run"
    options = {k: v for k, v in to_mapping(MAIN).items() if v is not None}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in options.items()]
    (tmp_path / "job.toml").write_text("".join(lines))
    code = "from mpodis.cli import main; main()"
    flags = ("--config", tmp_path / "job.toml", "--out", path, "--quiet")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        limit = time.monotonic() + 120
        while not (path / "seed1" / "depth1-activations" / "history.jsonl").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (path / "results.json").exists()
    directory, job, config = JobDirectory.open(path)
    assert (job, config) == ("run", MAIN)
    run_main(config, directory)
    assert without_clock(directory.results()) == without_clock(finished.results())


def test_a_layer_job_that_dies_ends_the_same(layer_run, layer_files, tmp_path, monkeypatch):
    config = layer_config(layer_files)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    for at in (3, 12):  # sweeps of the first and of the second objective
        with monkeypatch.context() as patch:
            patch.setattr(run_module.Chain, "step", dies(run_module.Chain.step, at=at))
            with pytest.raises(Killed):
                run_layer(config, directory)
    assert (directory.path / "activations" / "history.jsonl").exists()
    run_layer(config, directory)
    assert without_clock(directory.results()) == without_clock(layer_run.results())


# --- a layer of one's own


def test_a_layer_is_disentangled_by_both_objectives(layer_run, layer_files):
    results = layer_run.results()
    m, x = np.load(layer_files / "w.npy"), np.load(layer_files / "x.npy")
    assert results["name"] == "w"
    assert results["note"] == "w.npy: w, stored as (inputs, outputs)"
    assert "Matrix 10 x 12, zero padding to 16 x 16, 4 sites" in results["compression"]
    assert results["mpo"]["relative_error"] < 1e-12
    by_overlap, by_activations = results["runs"]
    for run in (by_overlap, by_activations):
        found = load_factorization(layer_run.path / f"{run['objective']}.safetensors")
        a = found.matrix()
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
            truncation(layer.mpo, 1, shape=(10, 12), **options),
            low_rank(m, rank, **options),
        ]
        found = [row for row in results["baselines"] if row["objective"] == objective]
        for row, a in zip(found, expected, strict=True):
            assert row["name"] == a.name
            assert row["parameters"] == a.parameters
            for measure in ("overlap", "relative_error", "activation_error"):
                assert_allclose(row[measure], getattr(a, measure), rtol=1e-8)


def test_every_option_of_a_layer_reaches_the_disentangler(layer_files, tmp_path, monkeypatch):
    seen = {}

    def keep(compressed, **options):
        seen.update(options)
        raise Killed

    monkeypatch.setattr(layer_job, "disentangle", keep)
    options = {
        "core_bond": 2,
        "right": "1b + 2b",
        "group": "O",
        "method": "lbfgs",
        "core": "fixed",
        "engine": "tree",
        "environment_bond": (8, 16),
        "start": "random",
        "starts": 3,
        "max_sweeps": 7,
        "max_seconds": 60.0,
        "tol": 0.1,
        "seed": 5,
    }
    config = layer_config(layer_files, left="3", **options)
    with pytest.raises(Killed):
        run_layer(config, JobDirectory.create(tmp_path / "run", "disentangle", config))
    assert seen.items() >= (options | {"left": 3, "objective": "overlap"}).items()


def test_a_problem_that_is_read_already_is_not_read_again(layer_run, layer_files, tmp_path):
    config = layer_config(layer_files)
    problem = load_problem(config)
    gone = LayerConfig(
        **{**to_mapping(config), "file": "gone.npy", "objectives": config.objectives}
    )
    directory = JobDirectory.create(tmp_path / "run", "disentangle", gone)
    found = run_layer(gone, directory, problem=problem)
    assert without_clock(json.loads(json.dumps(found))) == without_clock(layer_run.results())


def test_a_finished_layer_job_does_nothing_again(layer_run, layer_files):
    before = {file: file.stat().st_mtime_ns for file in (layer_run.path / "stages").iterdir()}
    results = layer_run.results()
    assert json.loads(json.dumps(run_layer(layer_config(layer_files), layer_run))) == results
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 5), (5, 1)])
def test_the_smallest_layers(tmp_path, shape):
    np.save(tmp_path / "w.npy", random_matrix(shape))
    config = LayerConfig(file=str(tmp_path / "w.npy"), left="1b", starts=1, max_sweeps=2)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    run_layer(config, directory)
    page = render(directory.path).read_text()
    sites = max(1, *(int(np.ceil(np.log2(d))) for d in shape))
    assert ("entropy.png" in os.listdir(directory.path / "figures")) == (sites > 1)
    assert all(table.title in page for table in tables(directory.results()))


def test_both_circuits_by_their_specs(layer_files, tmp_path):
    config = layer_config(layer_files, right="CNOT + 2b", max_bond=2)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    results = run_layer(config, directory)
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
    assert sorted(os.listdir(tmp_path / "figures")) == ["costs.png", "history.png"]
    line = next(x for x in str(layer_tables(results)[0]).splitlines() if x.startswith("disent"))
    assert line.split()[-3] == "-"


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
        ({"inputs": "bad.npy"}, "1 entries of the inputs are NaN or infinite"),
        ({"file": "cube.npy"}, r"expected a matrix .* got an array of shape \(2, 3, 4\)"),
        ({"max_bond": 0}, "max_bond=0 keeps nothing"),
        ({"rel_error": 1.5}, r"rel_error=1.5 must lie in \[0, 1\)"),
    ],
)
def test_a_layer_that_does_not_fit(layer_files, options, message):
    np.save(layer_files / "cube.npy", np.zeros((2, 3, 4)))
    np.save(layer_files / "bad.npy", np.array([[np.nan] + [1.0] * 9]))
    values = to_mapping(layer_config(layer_files)) | options
    for key in ("file", "inputs"):
        values[key] = str(layer_files / values[key])
    with pytest.raises(ValueError, match=message):
        load_problem(LayerConfig(**values | {"objectives": ("overlap",)}))


# --- pages


class Page(HTMLParser):
    """Tags with their attributes, and the text outside of styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("job", ["finished", "layer_run"])
def test_the_page_needs_nothing_but_itself(request, job):
    directory = request.getfixturevalue(job)
    text = (directory.path / "report.html").read_text()
    page = Page(text)
    assert page.inside == []
    images = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    stored = {file.read_bytes() for file in (directory.path / "figures").iterdir()}
    shown = {base64.b64decode(src.removeprefix("data:image/png;base64,")) for src in images}
    assert shown == stored
    assert all(png.startswith(PNG) for png in shown)
    names = ("src", "href", "srcset", "data", "action", "background")
    links = [v for tag, a in page.tags for k, v in a.items() if k in names and tag != "img"]
    assert links == []
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed"}
    rest = text
    for src in images:
        rest = rest.replace(src, "")
    assert not [w for w in ("http", "file:", "url(", "@import", "//") if w in rest]


@pytest.mark.parametrize("job", ["finished", "layer_run"])
def test_the_page_holds_tables_and_options(request, job):
    directory = request.getfixturevalue(job)
    text = (directory.path / "report.html").read_text()
    results = directory.results()
    shown = tables(results)
    assert len(shown) == (4 if job == "finished" else 3)
    for table in shown:
        assert table._repr_html_() in text
    _, _, config = JobDirectory.open(directory.path)
    words = "".join(Page(text).text)
    for key, value in to_mapping(config).items():
        assert f"{key} = {value!r}" in words


def test_the_figures_of_the_main_job(finished):
    names = {file.stem for file in (finished.path / "figures").iterdir()}
    assert names == {"accuracy", "overlap", "entropy-depth", "entropy", "history", "costs"}


def test_the_main_page_says_what_was_run(finished, networks):
    words = " ".join("".join(Page((finished.path / "report.html").read_text()).text).split())
    assert "scikit-learn digits, 1797 images 8x8" in words
    assert "seeds 0, 1" in words
    assert "classify 20 test images with 0 differences from the same layer" in words


def test_names_of_a_file_cannot_write_the_page(tmp_path):
    name = "<img src=x>&"
    np.savez(tmp_path / "w.npz", **{name: random_matrix((4, 4))})
    config = LayerConfig(file=str(tmp_path / "w.npz"), left="1", starts=1, max_sweeps=1)
    directory = JobDirectory.create(tmp_path / "run", "disentangle", config)
    run_layer(config, directory)
    text = render(directory.path).read_text()
    assert name not in text
    assert f"Disentangling {name}" in Page(text).text


def test_a_page_is_made_of_finished_jobs_only(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    with pytest.raises(FileNotFoundError, match="has not ended; go on with `mpodis resume"):
        render(directory.path)


# --- directories


def test_a_directory_knows_its_job_and_config(tmp_path):
    for job, options in (("run", MAIN), ("disentangle", LayerConfig(file="w.npy"))):
        JobDirectory.create(tmp_path / "deep" / job, job, options)
        directory, found, stored = JobDirectory.open(str(tmp_path / "deep" / job))
        assert (directory.path, found, stored) == (tmp_path / "deep" / job, job, options)
        assert not directory.begun()


def test_an_empty_directory_is_taken_and_a_full_one_is_not(tmp_path):
    (tmp_path / "empty").mkdir()
    JobDirectory.create(tmp_path / "empty", "run", MAIN)
    (tmp_path / "file").touch()
    for taken in ("empty", "file"):
        with pytest.raises(
            ValueError, match=f"{taken} is not empty; choose another directory, or go"
        ):
            JobDirectory.create(tmp_path / taken, "run", MAIN)


def test_a_stage_is_worked_out_once(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    values = iter([{"pair": (1, 2)}, {"pair": "again"}])
    first = directory.stage("a", lambda: next(values))
    assert first == directory.stage("a", lambda: next(values)) == {"pair": [1, 2]}
    assert directory.begun()
    with pytest.raises(Killed):
        directory.stage("b", dies(dict, at=1))
    assert directory.stage("b", lambda: {"x": 1}) == {"x": 1}


def test_sweeps_count_as_begun(tmp_path):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    (directory.path / "seed0" / "depth1-overlap").mkdir(parents=True)
    assert not directory.begun()
    (directory.path / "seed0" / "depth1-overlap" / "history.jsonl").touch()
    assert directory.begun()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"format": "mpodis-disentangle-1"}', "is not the directory of a job of this package"),
        ('{"format": "mpodis-run-1", "job": "bake"}', "is not the directory of a job"),
        ("[1, 2]", "is not the directory of a job"),
        ('{"format": ', "is not valid JSON"),
        (
            '{"format": "mpodis-run-1", "job": "run", "config": {"strats": 1}}',
            "unknown option 'strats'",
        ),
    ],
)
def test_a_directory_of_something_else(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        JobDirectory.open(tmp_path)


@pytest.mark.parametrize("name", ["", "absent", "file"])
def test_no_directory_of_a_job(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="is no run directory: it has no config.json"):
        JobDirectory.open(tmp_path / name)
