"""Studies and single searches on Dask clusters, which listen on this machine only."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from functools import partial

import cotengra
import numpy as np
import pytest
from numpy.testing import assert_allclose

import study_cases
from mpodis import Study, disentangle, overlap
from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import TreeEnvironments
from mpodis.study.running import SchedulerLost
from study_cases import ENVIRONMENT, contents, wait_for

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")

NO_SPILL = {f"distributed.worker.memory.{name}": False for name in ("target", "spill")}
"""Dask would pickle results into its local directory."""
WORKER = ("worker", "--host", "127.0.0.1", "--no-dashboard", "--no-nanny", "--nthreads")


class Cluster:
    """A scheduler and workers as a user starts them, each a process."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.folder, self.processes = folder, []
        self.scheduler, self.workers = self.start_scheduler(), []

    def start_scheduler(self):
        options = (
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--dashboard-address",
            "127.0.0.1:0",
        )
        self.scheduler = self._process("scheduler", *options)
        return self.scheduler

    def start_worker(self, threads=1):
        local = ("--local-directory", str(self.folder / f"local{len(self.processes)}"))
        worker = self._process(*WORKER, str(threads), *local, self.address)
        self.workers.append(worker)
        return worker

    def _process(self, *arguments):
        set_off = {f"DASK_{k.upper().replace('.', '__')}": "False" for k in NO_SPILL}
        command = [sys.executable, "-m", "dask", *arguments]
        with (self.folder / f"log{len(self.processes)}").open("w") as log:
            process = subprocess.Popen(command, env=ENVIRONMENT | set_off, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    found = Cluster(tmp_path_factory.mktemp("cluster"))
    for threads in (1, 1, 2):
        found.start_worker(threads)
    yield found
    found.end()


@pytest.fixture
def client(cluster):
    with distributed.Client(cluster.address, timeout=60, set_as_default=False) as found:
        found.wait_for_workers(3, timeout=60)
        yield found


@pytest.fixture(scope="module")
def local():
    """Dask's own cluster on this machine: two worker processes, each watched by a nanny."""
    settings = {**NO_SPILL, "distributed.scheduler.allowed-failures": 0}
    with (
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def stored(folder):
    return len(list(folder.glob("cases/*.json")))


# --- studies


def test_records_are_the_bits_of_those_computed_here(client, cluster, tmp_path, caplog):
    study = Study(study_cases.factors, grid={"n": [1, 2, 3, 4]}, seeds=4)
    study.run(tmp_path / "here", progbar=False)
    study.run(tmp_path / "cluster", client=client, progbar=False)
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")
    assert "--nthreads 1" in caplog.text  # one of the three workers has two threads
    search = Study(
        disentangle,
        settings={"operator": {"kind": "random_mpo", "n": 4, "max_bond": 4}, "max_sweeps": 4},
        grid={"depth": [1, 2]},
    )
    search.run(tmp_path / "search here", progbar=False)
    search.run(tmp_path / "search", client=client, progbar=False)
    here, there = (contents(tmp_path / name) for name in ("search here", "search"))
    assert here.keys() == there.keys()
    for key in here:
        for text in (here[key][0], there[key][0]):
            del text["scalars"]["search_seconds"], text["arrays_sha256"]
        assert here[key][0] == there[key][0]
    # nothing of it is on the disks of the workers
    left = [file for file in cluster.folder.glob("local*/**/*") if file.is_file()]
    assert {file.suffix for file in left} <= {".lock", ".dirlock"}


def test_slices_of_one_contraction_on_three_workers_are_those_of_one_process(client):
    rng = np.random.default_rng(0)
    ansatz = brickwall(6, 3)
    bonds = [1, 3, 3, 3, 3, 3, 1]
    target, core = (
        [rng.normal(size=(bonds[k], 2, 2, bonds[k + 1])) for k in range(6)] for _ in range(2)
    )
    left, right = (random_circuit(ansatz, seed=k).gates for k in range(2))
    whole, sliced = (
        TreeEnvironments(target, ((2, 2),) * 6, ansatz, ansatz, **options)
        for options in ({}, {"memory": 20_000, "executor": client})
    )
    for engine in (whole, sliced):
        engine.set(left, core, right)
    size = abs(whole.inner())
    assert_allclose(sliced.inner() / size, whole.inner() / size, atol=1e-10)
    assert len(sliced._messages.slices) >= 8
    assert whole.plan["sliced"] == []
    gradients = sliced.gradient(), whole.gradient()
    for part in ("left", "core", "right"):
        for a, b in zip(*(getattr(g, part) for g in gradients), strict=True):
            assert_allclose(a, b, rtol=1e-10, atol=1e-10 * np.abs(b).max())


def test_a_worker_that_is_killed_and_one_that_comes_lose_nothing(client, cluster, tmp_path):
    study = Study(study_cases.asleep, grid={"n": [1, 2, 3, 4]}, seeds=5)
    run = partial(study.run, tmp_path, client=client, progbar=False)
    thread = threading.Thread(target=run)
    thread.start()
    assert wait_for(lambda: stored(tmp_path) >= 3)
    os.kill(cluster.workers[0].pid, signal.SIGKILL)
    cluster.start_worker()
    thread.join(60)
    assert study.status().done == 20
    assert study.failures().rows == []
    assert (
        study.to_dataframe().eval("n * n + seed").equals(study.to_dataframe()["square"].astype(int))
    )


def test_a_scheduler_that_is_lost_is_named_and_the_same_call_goes_on(cluster, tmp_path):
    study = Study(study_cases.asleep, grid={"n": [1, 2, 3, 4]}, seeds=5)

    def kill():
        wait_for(lambda: stored(tmp_path) >= 4)
        cluster.scheduler.kill()

    lost = rf"lost the scheduler {cluster.address}; \d+ of 20 cases are stored, the same call"
    killer = threading.Thread(target=kill)
    killer.start()
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    client = distributed.Client(cluster.address, timeout=60, set_as_default=False)
    with client, pytest.raises(SchedulerLost, match=lost):
        study.run(tmp_path, client=client, progbar=False)
    killer.join()
    for worker in cluster.workers:
        worker.kill()
    before = contents(tmp_path)
    assert 4 <= len(before) < 20
    written = {file: file.stat().st_mtime_ns for file in tmp_path.glob("cases/*")}
    cluster.start_scheduler()
    for _ in range(2):
        cluster.start_worker()
    with distributed.Client(cluster.address, timeout=60, set_as_default=False) as client:
        study.run(tmp_path, client=client, progbar=False)
    assert study.status().done == 20
    assert all(file.stat().st_mtime_ns == written[file] for file in written)


def test_a_case_that_kills_its_workers_fails_alone(local, tmp_path):
    study = Study(study_cases.deadly, grid={"how": ["well", "exit", "too"]})
    study.run(tmp_path, client=local, progbar=False)
    assert study.to_dataframe()["how"].tolist() == ["well", "too"]
    ((_, _, error, _),) = study.failures().rows
    assert error.startswith("RuntimeError: 1 workers died while they computed it")


# --- one search


@pytest.fixture
def sent(local, monkeypatch):
    """The functions that are submitted."""
    functions, submit = [], local.submit

    def counting(function, *arguments, **options):
        functions.append(function)
        return submit(function, *arguments, **options)

    monkeypatch.setattr(local, "submit", counting)
    return functions


def test_initial_guesses_are_followed_on_a_cluster(local, sent):
    matrix = np.random.default_rng(0).normal(size=(16, 16))
    options = {"depth": 1, "n_init": 3, "init_sweeps": 2, "max_sweeps": 3, "seed": 1}
    alone = disentangle(matrix, **options)
    found = disentangle(matrix, **options, executor=local)
    assert_allclose(found.overlap, alone.overlap, atol=1e-12)
    assert found.init == alone.init
    assert len(sent) >= 3


def test_contraction_paths_are_searched_on_a_cluster(local, sent):
    matrix = np.random.default_rng(0).normal(size=(16, 16))
    search = cotengra.HyperOptimizer(
        methods=["labels"], max_repeats=8, parallel=local, progbar=False
    )
    options = {"depth": 2, "n_init": 1, "max_sweeps": 3, "seed": 0}
    found = disentangle(matrix, engine="tree", optimize=search, **options)
    assert len(sent) == len(search.costs_flops) == 8
    alone = disentangle(matrix, engine="transverse", **options)
    assert found.overlap > 0.3 * alone.overlap  # gates are visited in another order
    assert_allclose(overlap(matrix, found.factorization.to_dense()), found.overlap, atol=1e-10)
