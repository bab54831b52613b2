"""The main job on small settings: its numbers, its page, and going on."""

import functools
import itertools
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load_file

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
from mpodis import disentangle, load_factorization, low_rank
from mpodis.circuit.ansatz import brickwall
from mpodis.data import load_data
from mpodis.jobs import open_job
from mpodis.jobs import run as main_job
from mpodis.jobs.directory import JobDirectory
from mpodis.jobs.run_page import tables as main_tables
from mpodis.options import RunConfig
from mpodis.report import render, tables
from mpodis.store import RunStore
from reference import overlap, relative_error

ROOT = Path(__file__).resolve().parents[1]
MAIN = RunConfig(depth=(2, 1), n_init=1, max_sweeps=3, execute=20, repeats=2, epochs=8)
SHORT = RunConfig(
    depth=(1,),
    objectives=("overlap",),
    group="O",
    width=3,
    seed=4,
    n_init=1,
    max_sweeps=1,
    epochs=1,
    execute=0,
)
OBJECTIVES = ("overlap", "activations", "sensitivity")

run_module = sys.modules[disentangle.__module__]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A main job that was left alone, with its report."""
    directory = JobDirectory.create(tmp_path_factory.mktemp("jobs") / "main", "run", MAIN)
    results = do("run", MAIN, directory)
    assert directory.results() == json.loads(json.dumps(results))
    render(directory.path)
    return directory


@pytest.fixture(scope="module")
def networks(finished):
    return finished.results()["networks"]


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
    config = replace(SHORT, max_bond=2, n_init=3, max_sweeps=7, tol=0.1)
    with pytest.raises(Killed):
        do("run", config, JobDirectory.create(tmp_path / "run", "run", config))
    assert seen["left"] == brickwall(6, 1, 3, group="O")
    for name in ("max_bond", "n_init", "max_sweeps", "tol", "seed"):
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
            [weights[f"mpo.site_tensors.{k}"] for k in range(6)],
            np.ones((1, 1, 1)),
        )[..., 0]

        def correct(matrix, shift, head=head, bias=bias):
            hidden = np.maximum(data.x_test @ matrix + shift, 0)
            return 100 * np.mean((hidden @ head + bias).argmax(1) == data.y_test)

        assert network["accuracy"]["original"] == correct(m, 0)
        for row in network["rows"]:
            file = folder / f"depth{row['depth']}-{row['objective']}.safetensors"
            a = load_factorization(file).to_dense()
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
    (network,) = do("run", SHORT, directory)["networks"]
    assert network["seed"] == 4
    assert network["execution"] == {"images": 0}
    page = render(directory.path).read_text()
    for text in (page, "\n".join(map(str, tables(directory.results())))):
        assert "network of seed 4" in text
        assert "executed exactly" not in text
        assert "networks, seeds" not in text


def test_circuits_that_do_not_fit_are_noticed_before_anything_is_trained():
    with pytest.raises(ValueError, match="a gate on 7 wires does not fit a circuit of 6"):
        main_job.prepare(RunConfig(width=7))


@pytest.mark.parametrize("execute", [-1, 10**6])
def test_no_more_images_are_run_than_there_are(tmp_path, monkeypatch, execute):
    monkeypatch.setattr(main_job, "execute_layer", lambda f, x, progbar: x @ f.to_dense())
    directory = JobDirectory.create(tmp_path / "run", "run", SHORT)
    (network,) = do("run", replace(SHORT, execute=execute), directory)["networks"]
    assert network["execution"]["images"] == 360


# --- going on


def test_a_finished_job_does_nothing_again(finished):
    stages = sorted((finished.path / "stages").iterdir())
    assert len(stages) == 8
    before = [file.stat().st_mtime_ns for file in stages]
    results = finished.results()
    assert json.loads(json.dumps(do("run", MAIN, finished))) == results
    assert [file.stat().st_mtime_ns for file in stages] == before
    assert finished.results() == results


@pytest.mark.no_cover  # the job of `finished` again
def test_a_job_that_dies_again_and_again_ends_the_same(finished, tmp_path, monkeypatch):
    directory = JobDirectory.create(tmp_path / "run", "run", MAIN)
    monkeypatch.setattr(run_module, "CHECKPOINT_SECONDS", 0.0)
    for target, name, options in (
        (main_job, "_train", {"at": 1, "after": True}),
        (main_job, "disentangle", {"at": 1}),
        (RunStore, "save", {"at": 7}),
        (main_job, "disentangle", {"at": 4, "after": True}),
        (main_job, "_baselines", {"at": 1}),
        (main_job, "_execute", {"at": 1, "after": True}),
        (main_job, "costs", {"at": 1}),
        (RunStore, "save", {"at": 10}),
        (JobDirectory, "finish", {"at": 1}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, dies(getattr(target, name), **options))
            with pytest.raises(Killed):
                do("run", MAIN, directory)
        assert not (directory.path / "results.json").exists()
    do("run", MAIN, directory)
    assert without_clock(directory.results()) == without_clock(finished.results())


@pytest.mark.no_cover  # the job of `finished` again
def test_a_killed_process_ends_the_same(finished, tmp_path):
    """SIGKILL amid the first network, and the rest of the work in this process."""
    path, single = tmp_path / "run", replace(MAIN, repeats=1)
    (tmp_path / "job.toml").write_text(single.to_toml())
    code = "from mpodis.cli import main; main()"
    flags = ("--config", tmp_path / "job.toml", "--run-dir", path, "--quiet")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        limit = time.monotonic() + 120
        while not (path / "seed0" / "depth1-activations" / "history.jsonl").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (path / "results.json").exists()
    directory, job, config = open_job(path)
    assert (job, config) == ("run", single)
    do("run", config, directory)
    found, whole = (without_clock(job.results())["networks"] for job in (directory, finished))
    assert found == whole[:1]


# --- pages


def test_the_page_needs_nothing_but_itself(finished):
    check_page_needs_nothing_but_itself(finished)
    check_page_is_accessible(finished)


def test_the_page_holds_tables_and_options(finished):
    check_page_holds(finished, count=4)


def test_the_figures_of_the_main_job(finished):
    names = {file.name for file in (finished.path / "figures").iterdir()}
    stems = ("accuracy", "circuits", "overlap", "entropy-depth", "entropy", "history", "costs")
    assert names == {f"{stem}.svg" for stem in stems}


def test_the_main_page_says_what_was_run(finished, networks):
    words = " ".join("".join(Page((finished.path / "report.html").read_text()).text).split())
    assert "scikit-learn digits, 1797 images 8x8" in words
    assert "seeds 0 and 1" in words
    assert "classify 20 test images with 0 differences from the same layer" in words
