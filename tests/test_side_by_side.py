"""Starts that are explored in other processes or threads: the same as one after the other."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from mpodis.disentangling import disentangle, resume
from mpodis.mpo import compress
from reference import random_matrix

QUICK = {"left": 2, "starts": 3, "explore": 3, "max_sweeps": 6}


def operator(n=4):
    return compress(random_matrix((2**n, 2**n), seed=1)).mpo


def assert_same(a, b):
    assert_array_equal(a.factorization.matrix(), b.factorization.matrix())
    assert (a.start, a.winners, a.status) == (b.start, b.winners, b.status)
    for name in ("start", "stage", "sweep", "loss"):
        assert_array_equal(a.history.column(name), b.history.column(name))


@pytest.mark.parametrize("options", [{"start": "identity"}, {"start": "grown"}])
@pytest.mark.parametrize("engine", ["dense", "transverse"])
def test_threads(engine, options):
    options = QUICK | options | {"engine": engine}
    with ThreadPoolExecutor(1) as pool:
        assert_same(
            disentangle(operator(), executor=pool, **options), disentangle(operator(), **options)
        )


def test_processes(tmp_path):
    options = QUICK | {"start": "identity"}
    # processes of their own, as a fork would inherit the threads of this one
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = disentangle(operator(), executor=pool, run_dir=tmp_path, **options)
    assert_same(found, disentangle(operator(), **options))
    assert_same(resume(tmp_path), found)


def test_an_exact_start_ends_it_all():
    mpo = compress(np.kron(np.diag([1.0, 2.0]), np.diag([3.0, 1.0]))).mpo
    options = {"left": 2, "start": "identity", "scale": 0.0}
    with ThreadPoolExecutor(1) as pool:
        found = disentangle(mpo, executor=pool, **options)
    assert found.status == "exact"
    assert set(found.history.column("start")) == {0}


def test_a_start_that_converges_while_it_is_explored():
    options = QUICK | {"start": "identity", "left": 1, "max_sweeps": 2, "explore": 5}
    with ThreadPoolExecutor(2) as pool:
        found = disentangle(operator(), executor=pool, **options)
    assert_same(found, disentangle(operator(), **options))
    assert found.status == "max_sweeps"
