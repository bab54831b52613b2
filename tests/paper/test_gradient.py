"""The experiment `gradient`."""

import math
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.optimise.descend import Budget
from mpodis.optimise.initial_guesses import first_core
from mpodis.optimise.problem import Problem
from mpodis.options import SearchOptions
from mpodis.paper import gradient
from paper_runs import check_tables_and_figures, rows
from reference import circuit_matrix, dense_from_cores, overlap, random_cores

LEGS = ((2, 2),) * 4
CELLS = list(product(gradient.STARTS, gradient.CORES))
every_cell = pytest.mark.parametrize(("start", "core"), CELLS)


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("gradient"))


def race_of(start="identity", core="update", *, depth=3, evaluations=12):
    cores = random_cores(LEGS, 3, seed=5)
    problem = Problem.build(cores, brickwall(4, depth))
    options = SearchOptions(init=start, core=core, seed=3)
    return gradient.Race(problem, options, first_core(problem, options), evaluations)


def tensors_of(one):
    return [*one.engine.left, *one.engine.core, *one.engine.right]


def loss_from_dense(one):
    """1 - f from dense matrices."""
    problem, engine = one.problem, one.engine
    left = circuit_matrix(Circuit(problem.left, engine.left))
    right = circuit_matrix(Circuit(problem.right, engine.right))
    made = left @ dense_from_cores(engine.core) @ right
    return 1 - overlap(dense_from_cores(problem.tensors), made)


@every_cell
def test_all_begin_at_the_same_point(start, core):
    one, two = race_of(start, core), race_of(start, core)
    one.run(gradient.sweeps)
    for a, b in zip(tensors_of(race_of(start, core)), tensors_of(two), strict=True):
        assert_array_equal(a, b)
    assert two.losses == []


@every_cell
@pytest.mark.parametrize("name", gradient.optimisers([0.03], [0.3]))
def test_a_run_takes_its_evaluations_and_gains(name, start, core):
    one = race_of(start, core)
    before, core_before = loss_from_dense(one), [site.copy() for site in one.engine.core]
    one.run(gradient.optimisers([0.03], [0.3])[name])
    assert len(one.losses) == len(one.seconds) == 12
    assert min(one.losses) < before - 1e-2
    if core == "fixed":
        # perhaps rescaled, which changes no overlap
        for a, b in zip(one.engine.core, core_before, strict=True):
            assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-12)
    for gate in (*one.engine.left, *one.engine.right):
        assert_allclose(gate.T @ gate, np.eye(len(gate)), atol=1e-12)
        assert_allclose(np.linalg.det(gate), 1, atol=1e-12)


@every_cell
def test_what_is_noted_is_the_overlap(start, core):
    one = race_of(start, core, evaluations=3)
    one.run(gradient.sweeps)
    assert_allclose(one.losses[-1], loss_from_dense(one), atol=1e-12)
    assert np.all(np.diff(one.losses) <= 1e-12)
    one = race_of(start, core, evaluations=1)
    first = loss_from_dense(one)
    one.run(partial(gradient.descent, make=partial(torch.optim.Adam, lr=0.1)))
    assert_allclose(one.losses, [first], atol=1e-12)


@every_cell
def test_gradient_descent_goes_along_the_gradient(start, core):
    squares = []

    class Watched(torch.optim.SGD):
        def step(self):
            squares.append(sum(float((p.grad**2).sum()) for p in self.param_groups[0]["params"]))
            super().step()

    rate = 1e-5
    one = race_of(start, core, evaluations=4)
    one.run(partial(gradient.descent, make=partial(Watched, lr=rate)))
    # to first order, every step lowers the loss by rate |gradient|^2
    assert_allclose(-np.diff(one.losses), rate * np.array(squares), rtol=2e-2)
    assert len(one.losses) == 4


def test_the_core_is_a_parameter_only_where_it_may_move():
    counts = {}
    for core in ("fixed", "update"):

        class Counted(torch.optim.SGD):
            def __init__(self, parameters, name=core):
                counts[name] = sum(p.numel() for p in parameters)
                super().__init__(parameters, lr=0.1)

        race_of(core=core, evaluations=1).run(partial(gradient.descent, make=Counted))
    assert counts["update"] - counts["fixed"] == 4 * 4


def test_auto_sweeps_until_that_crawls():
    alone, both = race_of(evaluations=30), race_of(evaluations=30)
    alone.run(partial(gradient.sweeps, until_slow=True))
    both.run(gradient.auto)
    count, losses = len(alone.losses), alone.losses
    assert 1 < count < 30
    assert both.losses[:count] == losses
    falls = -np.diff(losses) / losses[1:]
    assert np.all(falls[:-1] >= Budget.handover)
    assert falls[-1] < Budget.handover
    whole = race_of(evaluations=30)
    whole.run(gradient.sweeps)
    assert both.losses[count + 1] != whole.losses[count + 1]


def test_a_line_search_ends_with_the_evaluations():
    one = race_of(evaluations=5)
    one.run(gradient.lbfgs)
    assert len(one.losses) == 5
    *_, last = gradient.summary(one, 0.0)
    assert last["overlap"] == 1 - min(one.losses)
    assert last["at"] == 5
    assert last["search_seconds"] > 0


def summary_of(losses, near, evaluations=10):
    seconds = [float(k) for k in range(1, len(losses) + 1)]
    made: Any = SimpleNamespace(losses=losses, seconds=seconds, evaluations=evaluations)
    return gradient.summary(made, near)


def test_a_summary_keeps_the_best_so_far_and_when_it_was_near():
    found = summary_of([0.5, 0.2, 0.4, 0.1], 0.8)
    assert [row["at"] for row in found] == gradient.marks(10)
    assert_allclose([row["overlap"] for row in found if row["at"] < 3], [0.5, 0.8])
    last = found[-1]
    assert (last["at"], last["overlap"], last["arrived"], last["search_seconds"]) == (10, 0.9, 2, 2)
    assert last["ms_each"] == 1000.0
    assert last["early"] == 0.5
    assert_allclose(summary_of([0.5, 0.4, 0.3, 0.2], 0.0, evaluations=30)[-1]["early"], 0.7)
    assert_allclose(summary_of([0.5, 0.4], 0.0, evaluations=30)[-1]["early"], 0.6)
    assert np.isnan(summary_of([0.5, 0.2], 0.81)[-1]["arrived"])


def test_every_optimiser_runs_in_every_problem(ran):
    found = rows(ran("gradient"))
    ends = found.query("at == 8")
    assert (ends.groupby(gradient.PROBLEM).size() == 6).all()
    assert set(zip(ends["method"], ends["rate"], strict=True)) == set(
        gradient.optimisers([0.03, 0.1], [0.3])
    )
    best = ends.groupby(gradient.PROBLEM)["overlap"].transform("max")
    assert ends["arrived"][ends["overlap"] == best].notna().all()
    for _, curve in found.groupby([*gradient.PROBLEM, "method", "rate"]):
        assert curve["overlap"].is_monotonic_increasing


def test_the_learning_rate_with_the_best_overlap_is_quoted_and_wins_are_counted():
    ends = {
        ("sweeps", 0.0): (0.8, 3.0),
        ("lbfgs", 0.0): (0.9, 2.0),
        ("adam", 0.1): (0.6, math.nan),
        ("adam", 1.0): (0.7, 9.0),
        ("momentum", 0.3): (0.65, 5.0),
    }
    made = [
        {"start": "random", "core": "fixed", "depth": depth, "seed": seed, "at": 9}
        | {"method": method, "rate": rate, "overlap": f + 0.01 * seed, "arrived": arrived}
        | {"early": f - 0.3 if method == "sweeps" else 0.45, "search_seconds": arrived}
        for depth in (2, 4)
        for seed in range(3)
        for (method, rate), (f, arrived) in ends.items()
    ]
    runs = gradient.chosen(pd.DataFrame(made))
    by_method = runs.set_index("method")["rate"]
    assert (by_method[["adam", gradient.EITHER]] == 1).all()
    assert gradient.duels(runs).sum().tolist() == [6, 6, 6, 0]
