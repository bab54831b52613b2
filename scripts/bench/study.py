"""What a study costs beside its cases, and what Dask loses when processes are killed.

    python scripts/bench/study.py local            # 200 cases of 1 to 3 s on two processes
    python scripts/bench/study.py dask             # the same on a scheduler and three workers

Cases sleep, so that the wall time in them does not depend on what else the machine does, or work
(`--work`). Of `local` it is said which part of the processes' time was spent in cases, and how much
is left over for each, the start of the processes included. `dask` computes the cases here, and on a
cluster of this machine undisturbed, with one worker killed and another one added, and with the
scheduler killed and started again; records are compared byte by byte.
"""

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import argparse
import json
import logging
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from mpodis import Study
from mpodis.study.records import StudyDirectory
from mpodis.study.running import SchedulerLost
from mpodis.tables import Table

NO_SPILL = {f"DASK_DISTRIBUTED__WORKER__MEMORY__{name}": "False" for name in ("TARGET", "SPILL")}


def case(n: int, *, seed: int, shortest: float, longest: float, work: bool) -> dict:
    """Factors of a random matrix, and time between the two limits."""
    random = np.random.default_rng([n, seed])
    q, r = np.linalg.qr(random.normal(size=(64, 64)))
    seconds = random.uniform(shortest, longest)
    if work:
        limit = time.process_time() + seconds
        while time.process_time() < limit:
            np.linalg.qr(r)
    else:
        time.sleep(seconds)
    return {"trace": float(np.trace(r)), "q": (("row", "column"), q)}


def study(options: argparse.Namespace) -> Study:
    """So many cases."""
    settings = {name: getattr(options, name) for name in ("shortest", "longest", "work")}
    grid = {"n": list(range(10))}
    return Study(case, grid=grid, settings=settings, seeds=options.cases // 10, name="bench")


def cpu() -> float:
    """CPU seconds of this process and those that it has ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(x.ru_utime + x.ru_stime for x in used)


def records(folder: Path) -> dict[str, tuple[dict, bytes]]:
    """All records without times and places."""
    found, store = {}, StudyDirectory(folder)
    for key in store.keys():  # noqa: SIM118
        store.load(key)  # which compares its checksums
        text = json.loads((folder / "cases" / f"{key}.json").read_text())
        for name in ("seconds", "cpu_seconds", "where", "checksum"):
            del text[name]
        found[key] = (text, (folder / "cases" / f"{key}.safetensors").read_bytes())
    return found


def local(options: argparse.Namespace) -> Table:
    """Time in cases as a part of all."""
    rows = []
    began, began_cpu = time.perf_counter(), cpu()
    with tempfile.TemporaryDirectory() as folder:
        found = study(options)
        found.run(folder, n_jobs=options.n_jobs)
        wall, used = time.perf_counter() - began, cpu() - began_cpu
        frame = found.to_dataframe()
    for what, inside, every in (
        ("wall time", frame["seconds"].sum(), options.n_jobs * wall),
        ("CPU time", frame["cpu_seconds"].sum(), used),
    ):
        rest = 1e3 * (every - inside) / len(frame)
        rows.append((what, inside, every, f"{inside / every:.1%}", f"{rest:.1f}"))
    head = ("", "s in cases", "s of all processes", "in cases", "ms beside, a case")
    return Table(head, rows, title=f"{len(frame)} cases on {options.n_jobs} processes")


class Cluster:
    """A scheduler and workers, each a process, on this machine only."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder = f"tcp://127.0.0.1:{self.port}", folder
        self.workers: list[subprocess.Popen] = []
        self.scheduler = self.start_scheduler()

    def _started(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1"]
        with (self.folder / "log").open("a") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard"], env=os.environ | NO_SPILL, stdout=log, stderr=log
            )

    def start_scheduler(self) -> subprocess.Popen:
        self.scheduler = self._started(
            "scheduler", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0"
        )
        return self.scheduler

    def start_worker(self) -> None:
        folder = str(self.folder / "local")
        options = ("--nthreads", "1", "--no-nanny", "--local-directory", folder)
        self.workers.append(self._started("worker", self.address, *options))

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


def on_dask(options: argparse.Namespace) -> Table:
    """Records of the cluster beside those of this machine."""
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        found = study(options)
        found.run(root / "here", n_jobs=options.n_jobs)
        here = records(root / "here")

        def stored(name: str) -> int:
            return len(list((root / name / "cases").glob("*.json")))

        def compare(name: str, what: str) -> None:
            same = sum(record == here[key] for key, record in records(root / name).items())
            rows.append((what, stored(name), same, len(found.failures().rows)))

        cluster = Cluster(root)
        for _ in range(3):
            cluster.start_worker()
        try:
            with Client(cluster.address, timeout=60) as client:
                client.wait_for_workers(3, timeout=60)
                found.run(root / "whole", client=client)
                compare("whole", "three workers")

                def disturb() -> None:
                    while stored("worker") < options.cases // 4:
                        time.sleep(0.05)
                    cluster.workers[0].kill()
                    while stored("worker") < options.cases // 2:
                        time.sleep(0.05)
                    cluster.start_worker()

                threading.Thread(target=disturb).start()
                found.run(root / "worker", client=client)
                compare("worker", "one killed, later one added")

                def kill() -> None:
                    while stored("scheduler") < options.cases // 3:
                        time.sleep(0.05)
                    cluster.scheduler.kill()

                threading.Thread(target=kill).start()
                try:
                    found.run(root / "scheduler", client=client)
                except SchedulerLost as error:
                    print(error)
            for worker in cluster.workers:
                worker.kill()
            before = {x: x.stat().st_mtime_ns for x in (root / "scheduler" / "cases").iterdir()}
            cluster.start_scheduler()
            for _ in range(3):
                cluster.start_worker()
            with Client(cluster.address, timeout=60) as client:
                found.run(root / "scheduler", client=client)
            again = sum(x.stat().st_mtime_ns != seconds for x, seconds in before.items())
            compare("scheduler", f"scheduler killed; {again} cases computed twice")
        finally:
            cluster.end()
        left = [x for x in (root / "local").rglob("*") if x.is_file() and "lock" not in x.name]
        notes = (f"files in the workers' local directories beside locks: {len(left)}",)
    head = ("on Dask", "stored", "same as here", "failed")
    return Table(head, rows, title=f"{options.cases} cases", notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("where", choices=["local", "dask"])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--shortest", type=float, default=1.0)
    parser.add_argument("--longest", type=float, default=3.0)
    parser.add_argument("--work", action="store_true")
    options = parser.parse_args()
    print({"local": local, "dask": on_dask}[options.where](options))


if __name__ == "__main__":
    main()
