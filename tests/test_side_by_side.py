"""Starts that are explored in other processes or threads: the same as one after the other."""

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpodis.disentangling import disentangle, resume
from mpodis.mpo import compress
from reference import random_matrix

QUICK = {"left": 2, "n_init": 3, "init_sweeps": 3, "max_sweeps": 6}


def operator(n=4):
    return compress(random_matrix((2**n, 2**n), seed=1)).mpo


def assert_same(a, b):
    assert_array_equal(a.factorization.to_dense(), b.factorization.to_dense())
    assert (a.init, a.winners, a.status) == (b.init, b.winners, b.status)
    for name in ("init", "stage", "sweep", "loss"):
        assert_array_equal(a.history.column(name), b.history.column(name))


@pytest.mark.no_cover  # the same searches again; their lines are traced elsewhere
@pytest.mark.parametrize("options", [{"init": "identity"}, {"init": "grown"}])
@pytest.mark.parametrize("engine", ["dense", "transverse"])
def test_threads(engine, options):
    options = QUICK | options | {"engine": engine}
    with ThreadPoolExecutor(1) as pool:
        assert_same(
            disentangle(operator(), executor=pool, **options), disentangle(operator(), **options)
        )


def test_processes(tmp_path):
    options = QUICK | {"init": "identity"}
    # processes of their own, as a fork would inherit the threads of this one
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = disentangle(operator(), executor=pool, run_dir=tmp_path, **options)
    assert_same(found, disentangle(operator(), **options))
    assert_same(resume(tmp_path), found)


def test_an_exact_start_ends_it_all():
    mpo = compress(np.kron(np.diag([1.0, 2.0]), np.diag([3.0, 1.0]))).mpo
    options = {"left": 2, "init": "identity", "init_scale": 0.0}
    with ThreadPoolExecutor(1) as pool:
        found = disentangle(mpo, executor=pool, **options)
    assert found.status == "exact"
    assert set(found.history.column("init")) == {0}


def test_a_start_that_converges_while_it_is_explored():
    options = QUICK | {"init": "identity", "left": 1, "max_sweeps": 2, "init_sweeps": 5}
    with ThreadPoolExecutor(2) as pool:
        found = disentangle(operator(), executor=pool, **options)
    assert_same(found, disentangle(operator(), **options))
    assert found.status == "max_sweeps"


BITS = """
import hashlib, tempfile
from pathlib import Path
import numpy as np
from mpodis import compile_unitary, disentangle

matrix = np.random.default_rng(1).normal(size=(64, 64))
found = disentangle(matrix, depth=2, n_init=2, init_sweeps=2, max_sweeps=4).factorization
compiled = compile_unitary(np.linalg.qr(matrix)[0], depth=2, n_init=2, max_iterations=4)
digest = hashlib.sha256()
for gate in (*found.left.gates, *found.right.gates, *compiled.circuit.gates):
    digest.update(np.ascontiguousarray(gate).tobytes())
with tempfile.TemporaryDirectory() as folder:
    file = Path(folder, "f.safetensors")
    found.save(file)
    digest.update(file.read_bytes())
print(digest.hexdigest())
"""


def test_hash_seeds_and_threads_change_no_bit():
    """In processes of their own, since both are set where Python begins."""
    found = set()
    for seed in "12":
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), seed)
        done = subprocess.run(
            [sys.executable, "-c", BITS],
            env=os.environ | {"PYTHONHASHSEED": seed} | threads,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
