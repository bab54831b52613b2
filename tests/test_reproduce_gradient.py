"""`mpodis reproduce gradient`: fair races, right gradients, and what is said about who wins."""

import json
from functools import partial
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import Circuit
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.optimise.descend import Budget
from mpodis.optimise.initial import first_core
from mpodis.optimise.problem import Problem
from mpodis.options import SearchOptions
from mpodis.paper import load_experiment
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.gradient import (
    CELLS,
    EXPERIMENT,
    METHODS,
    GradientOptions,
    Race,
    _summary,
    auto,
    chosen,
    descent,
    finding,
    grid,
    lbfgs,
    optimisers,
    sweeps,
    tables,
)
from reference import circuit_matrix, dense_from_cores, overlap, random_cores

LEGS = ((2, 2),) * 4
every_cell = pytest.mark.parametrize(("start", "core"), CELLS)


def race(start="identity", core="update", *, depth=3, evaluations=12):
    cores = random_cores(LEGS, 3, seed=5)
    problem = Problem.build(cores, brickwall(4, depth))
    options = SearchOptions(init=start, core=core, seed=3)
    return Race.at_start(problem, options, first_core(problem, options), evaluations)


def parts(one):
    return [*one.engine.left, *one.engine.core, *one.engine.right]


def dense_loss(one):
    """1 - f from dense matrices."""
    problem, engine = one.problem, one.engine
    left = circuit_matrix(Circuit(problem.left, engine.left))
    right = circuit_matrix(Circuit(problem.right, engine.right))
    made = left @ dense_from_cores(engine.core) @ right
    return 1 - overlap(dense_from_cores(problem.tensors), made)


@every_cell
def test_all_begin_at_the_same_point(start, core):
    one, two = race(start, core), race(start, core)
    sweeps(one)
    for a, b in zip(parts(race(start, core)), parts(two), strict=True):
        assert_array_equal(a, b)
    assert two.objective.losses == []


@every_cell
@pytest.mark.parametrize("name", optimisers([0.03], [0.3]))
def test_a_run_takes_its_evaluations_and_gains(name, start, core):
    one = race(start, core)
    before, core_before = dense_loss(one), [site.copy() for site in one.engine.core]
    optimisers([0.03], [0.3])[name](one)
    losses = one.objective.losses
    assert len(losses) == len(one.objective.times) >= 12
    if name not in ("lbfgs", "auto"):
        assert len(losses) == 12
    assert min(losses[:12]) < before - 1e-2
    if core == "fixed":
        # perhaps rescaled, which changes no overlap
        for a, b in zip(one.engine.core, core_before, strict=True):
            assert_allclose(a / np.linalg.norm(a), b / np.linalg.norm(b), atol=1e-12)
    for gate in (*one.engine.left, *one.engine.right):
        assert_allclose(gate.T @ gate, np.eye(len(gate)), atol=1e-12)
        assert_allclose(np.linalg.det(gate), 1, atol=1e-12)


@every_cell
def test_what_is_noted_is_the_overlap(start, core):
    one = race(start, core, evaluations=3)
    sweeps(one)
    assert_allclose(one.objective.losses[-1], dense_loss(one), atol=1e-12)
    assert np.all(np.diff(one.objective.losses) <= 1e-12)
    one = race(start, core, evaluations=1)
    first = dense_loss(one)
    descent(one, partial(torch.optim.Adam, lr=0.1))
    assert_allclose(one.objective.losses, [first], atol=1e-12)


@every_cell
def test_gradient_descent_goes_along_the_gradient(start, core):
    squares = []

    class Watched(torch.optim.SGD):
        def step(self):
            squares.append(sum(float((p.grad**2).sum()) for p in self.param_groups[0]["params"]))
            super().step()

    rate = 1e-5
    one = race(start, core, evaluations=4)
    descent(one, partial(Watched, lr=rate))
    # to first order, every step lowers the loss by rate |gradient|^2
    assert_allclose(-np.diff(one.objective.losses), rate * np.array(squares[:-1]), rtol=2e-2)
    assert len(one.objective.losses) == 4


def test_the_core_is_a_parameter_only_where_it_may_move():
    counts = {}
    for core in ("fixed", "update"):

        class Counted(torch.optim.SGD):
            def __init__(self, parameters, name=core):
                counts[name] = sum(p.numel() for p in parameters)
                super().__init__(parameters, lr=0.1)

        descent(race(core=core, evaluations=1), Counted)
    assert counts["update"] - counts["fixed"] == 4 * 4


def test_auto_sweeps_until_that_crawls():
    alone, both = race(evaluations=30), race(evaluations=30)
    sweeps(alone, until_slow=True)
    auto(both)
    count, losses = len(alone.objective.losses), alone.objective.losses
    assert 1 < count < 30
    assert both.objective.losses[:count] == losses
    falls = -np.diff(losses) / losses[1:]
    assert np.all(falls[:-1] >= Budget.crawl)
    assert falls[-1] < Budget.crawl
    whole = race(evaluations=30)
    sweeps(whole)
    assert both.objective.losses[count + 1] != whole.objective.losses[count + 1]


def test_what_goes_beyond_the_limit_is_cut_off():
    one = race(evaluations=5)
    lbfgs(one)
    assert len(one.objective.losses) > 5
    summary = _summary(one, 0.0)
    assert summary["overlap"] == 1 - min(one.objective.losses[:5])
    assert len(summary["curve"]) == len(grid(5)) == 5
    assert summary["seconds"] > 0


def summary(losses, near, evaluations=10):
    times = [7.0 + k for k in range(1, len(losses) + 1)]
    noted = SimpleNamespace(losses=losses, times=times)
    return _summary(SimpleNamespace(objective=noted, evaluations=evaluations, began=7.0), near)


def test_a_summary_keeps_the_best_so_far_and_when_it_was_near():
    found = summary([0.5, 0.2, 0.4, 0.1], 0.8)
    assert_allclose(found["curve"], [0.5, 0.8, 0.8, *[0.9] * 7])
    assert (found["overlap"], found["evaluations"], found["seconds"]) == (0.9, 2, 2.0)
    assert found["each"] == 1.0
    assert found["early"] == 0.5
    assert_allclose(summary([0.5, 0.4, 0.3, 0.2], 0.0, evaluations=30)["early"], 0.7)
    assert_allclose(summary([0.5, 0.4], 0.0, evaluations=30)["early"], 0.6)
    never = summary([0.5, 0.2], 0.81)
    assert (never["evaluations"], never["seconds"]) == (None, None)


def test_the_grid_spans_the_evaluations():
    assert grid(1) == [1]
    assert grid(1000)[0] == 1
    assert grid(1000)[-1] == 1000
    assert np.all(np.diff(grid(1000)) > 0)


def record(ends, arrivals, depths=(2, 4)):
    """Of three seeds; overlaps and evaluations by name of the run, the same in every cell."""
    pieces = {}
    for start, core in CELLS:
        for depth in depths:
            for seed in range(3):
                runs = {
                    name: {
                        "overlap": overlap + 0.01 * seed,
                        "early": overlap - 0.3 if name == "sweeps" else 0.45,
                        "evaluations": arrivals[name],
                        "seconds": arrivals[name] and 0.5 * arrivals[name],
                        "each": 0.5,
                        "curve": [overlap] * len(grid(9)),
                    }
                    for name, overlap in ends.items()
                }
                key = {"start": start, "core": core, "depth": depth, "seed": seed}
                pieces[f"{start}-{core}-{depth}-{seed}"] = {**key, "runs": runs}
    options = {"depths": list(depths), "evaluations": 9, "adam": [0.1, 1], "momentum": [0.3]}
    return {"options": options, "seeds": [0, 1, 2], "pieces": pieces}


ENDS = {
    "sweeps": 0.8,
    "lbfgs": 0.9,
    "auto": 0.85,
    "adam 0.1": 0.6,
    "adam 1": 0.7,
    "momentum 0.3": 0.65,
}
ARRIVALS = {
    "sweeps": 3,
    "lbfgs": 2,
    "auto": 2,
    "adam 0.1": None,
    "adam 1": 9,
    "momentum 0.3": 5,
}


def test_the_learning_rate_with_the_best_objective_is_quoted():
    made = record(ENDS, ARRIVALS)
    assert chosen(made, CELLS[0], 2, "adam") == "adam 1"
    assert chosen(made, CELLS[0], 2, "lbfgs") == "lbfgs"
    row = tables(made)[0].rows[3]
    assert row[:7] == ("depth 2", "Adam", "1", 0.45, "0.710 (0.700 to 0.720)", "3 of 3", 9)
    assert_allclose(row[7:], [4.5, 500.0])
    lost = tables(record({**ENDS, "adam 0.1": 0.75}, ARRIVALS))[0].rows[3]
    assert lost[2:8] == ("0.1", 0.45, "0.760 (0.750 to 0.770)", "0 of 3", None, None)


def test_the_finding_says_who_wins():
    text = finding(record(ENDS, ARRIVALS))
    assert "6 problems; early is after 1 evaluations" in text
    assert "sweeps 0.810, 0.810; gradient descent 0.710, 0.710; L-BFGS 0.910, 0.910" in text
    descent = "6 ahead early, 6 sooner there, 6 higher, 0 lower, 0 even"
    newton = "6 ahead early, 0 sooner there, 0 higher, 6 lower, 0 even"
    assert (
        text.count(f"sweeps against gradient descent {descent}, and against L-BFGS {newton}") == 4
    )
    assert text.endswith(
        "faster than gradient descent holds to the end, and that they end higher holds."
    )


def alone(made):
    """The record of its first seed."""
    pieces = {name: row for name, row in made["pieces"].items() if row["seed"] == 0}
    return {**made, "seeds": [0], "pieces": pieces}


def test_one_network_concludes_nothing():
    text = finding(alone(record(ENDS, ARRIVALS)))
    assert "2 ahead early, 2 sooner there, 2 higher" in text
    assert "hold" not in text
    assert "too few" in EXPERIMENT.verdict({"finding": text, "seeds": [0]})[1]
    assert EXPERIMENT.verdict({"finding": text, "seeds": [0, 1, 2]}) == (text,)


def test_the_finding_says_who_loses():
    late = {**ARRIVALS, "sweeps": None}
    text = finding(record({**ENDS, "adam 0.1": 0.95}, late))
    assert "6 ahead early, 0 sooner there, 0 higher, 6 lower, 0 even" in text
    assert text.endswith("descent holds early on, and that they end higher does not hold.")
    text = finding(record({**ENDS, "sweeps": 0.7}, late))
    assert "0 ahead early, 0 sooner there, 0 higher, 0 lower, 6 even" in text
    assert text.endswith("does not hold, and that they end higher does not hold.")
    text = finding(record({**ENDS, "momentum 0.3": 0.8005}, ARRIVALS))
    assert "6 sooner there, 0 higher, 0 lower, 6 even" in text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"evaluations": 0}, "evaluations=0 must be 1 or more"),
        ({"adam": ()}, r"adam=\(\) must be learning rates above 0"),
        ({"momentum": (0.1, -1.0)}, r"momentum=\(0.1, -1.0\) must be learning rates"),
        ({"seeds": 0}, "seeds=0 must be"),
    ],
)
def test_options_that_make_no_sense(bad, message):
    with pytest.raises(ValueError, match=message):
        GradientOptions(**bad)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run on the digits, and its record."""
    path = tmp_path_factory.mktemp("gradient") / "run"
    options = GradientOptions(
        seeds=1, workers=1, depths=(1, 2), evaluations=8, adam=(0.03, 0.1), momentum=(0.3,)
    )
    return run_experiment(
        EXPERIMENT, options, JobDirectory.create(path, f"{REPRODUCE}gradient", options)
    )


def test_the_record_of_a_run(done):
    assert len(done["pieces"]) == 8
    for piece in done["pieces"].values():
        runs = piece["runs"]
        assert set(runs) == {"sweeps", "lbfgs", "auto", "adam 0.03", "adam 0.1", "momentum 0.3"}
        assert piece["best"] == max(one["overlap"] for one in runs.values())
        assert any(one["evaluations"] is not None for one in runs.values())
        for one in runs.values():
            assert np.all(np.diff(one["curve"]) >= 0)
            assert 0 < one["overlap"] <= 1
    assert [len(table.rows) for table in tables(done)] == [2 * len(METHODS)] * 4
    assert done["finding"] == finding(json.loads(json.dumps(done)))
    assert done["command"].endswith(
        "--set depths=1,2 --set evaluations=8 --set adam=0.03,0.1 --set momentum=0.3"
    )


def test_every_panel_draws_every_method(done):
    panels = load_experiment("gradient").panels
    assert len({panel.name for panel in panels}) == len(panels) == 4
    for panel in panels:
        ax = plt.subplots()[1]
        panel.draw(done, ax)
        assert ax.has_data()
        shown = [text.get_text() for text in ax.get_legend().get_texts()]
        assert shown == list(METHODS.values())
