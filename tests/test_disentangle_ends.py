"""How a run ends: its status, its history, and what it prints and logs."""

import logging
import math
import time
from functools import cache
from html import escape

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mpodis
from mpodis.disentangling import disentangle
from mpodis.mpo import compress
from mpodis.optimise import search
from mpodis.optimise.descend import Budget
from mpodis.optimise.recorder import Recorder
from mpodis.optimise.result import ADVICE, Disentangled, History
from mpodis.optimise.state import State
from mpodis.options import SearchOptions
from mpodis.plots import plot_entropies
from reference import random_matrix
from searching import Stepper, build

QUICK = {"n_init": 1, "max_sweeps": 6}


@cache
def operator(*shape, is_complex=False, seed=0):
    return compress(random_matrix(shape, is_complex, seed))


def test_exact():
    result = disentangle(compress(np.eye(8)), depth=1, init_scale=0.0)
    assert (result.status, result.converged, len(result.history)) == ("exact", True, 1)
    assert_allclose(result.factorization.to_dense(), np.eye(8), atol=1e-12)
    assert_allclose(result.relative_error, 0, atol=1e-12)


@pytest.mark.parametrize("method", ["auto", "sweeps", "lbfgs"])
def test_converged(method):
    result = disentangle(operator(8, 8), depth=1, n_init=1, tol=1e-2, method=method)
    assert (result.status, result.converged) == ("converged", True)
    losses = result.history.column("loss")
    assert losses[-11] - losses[-1] < 1e-2 * losses[-1]
    # sweeps are tried last: L-BFGS alone may have stopped on a ridge
    assert result.history.column("phase")[-1] == ("lbfgs" if method == "lbfgs" else "sweep")
    assert ("lbfgs" in result.history.column("phase")) == (method != "sweeps")


def test_converged_while_exploring():
    result = disentangle(
        operator(8, 8), depth=1, n_init=2, tol=1e-2, init_sweeps=100, method="sweeps"
    )
    assert result.status == "converged"
    assert set(result.history.column("init")) == {0, 1}


def test_max_sweeps():
    result = disentangle(operator(8, 8), depth=1, n_init=1, max_sweeps=3)
    assert (result.status, result.converged, len(result.history)) == ("max_sweeps", False, 4)
    # while exploring, every start has as many
    result = disentangle(operator(8, 8), depth=1, n_init=2, max_sweeps=3, init_sweeps=5)
    assert (result.status, len(result.history)) == ("max_sweeps", 8)


def test_max_seconds():
    result = disentangle(operator(8, 8), depth=1, n_init=2, max_seconds=1e-9)
    assert (result.status, result.converged, len(result.history)) == ("max_seconds", False, 1)
    assert result.init == 0
    assert result.seconds > 1e-9


def test_max_seconds_returns_to_the_better_start(monkeypatch):
    problem, settings = plain_problem(), SearchOptions(n_init=3, init_sweeps=2, max_seconds=60.0)
    run = Stepper(problem, settings)
    for _ in range(3):
        first = run.step()["loss"]
    run.step()
    run.state.seconds = 60.0
    worse = run.step()
    assert worse["init"] == 1
    assert worse["loss"] > first  # else another seed is needed
    result = run.finish()
    assert result.status == "max_seconds"
    assert result.init == 0
    assert_allclose(result.loss, first, atol=1e-12)


def plain_problem(**options):
    return build(operator(8, 8).mpo, 1, **options)


@pytest.mark.parametrize("status", ADVICE)
def test_the_result_prints_itself(status):
    run = Stepper(plain_problem(covariance=np.eye(8)), SearchOptions(n_init=1, max_sweeps=1))
    run.step()
    result = run.search.result(run.state, status=status)
    text, html = str(result), result._repr_html_()
    for shown in ("overlap f", "von Neumann bound", "S_avg after (nats)", ADVICE[status]):
        assert shown in text
        assert escape(shown, quote=False) in html
    assert "parameters, core" in text
    assert "1 of 1" in text
    assert html.startswith("<table>")


def test_history_columns():
    result = disentangle(operator(8, 8), depth=1, **QUICK)
    assert isinstance(result, Disentangled)
    history = result.history
    assert len(history) == len(history.column("loss")) == 7
    assert_array_equal(history.column("sweep"), np.arange(7))
    assert np.all(np.diff(history.column("seconds")) >= 0)
    assert np.isnan(history.column("activations")).all()
    assert np.isnan(result.activation_error)
    assert len(history.column("loss", init=1)) == 0
    with pytest.raises(KeyError, match="no column 'f'; there are stage, depth, width, init, sweep"):
        history.column("f")
    assert len(History(()).column("loss")) == 0


def test_it_logs_and_shows_progress(caplog, capsys):
    with caplog.at_level(logging.DEBUG, logger="mpodis"):
        disentangle(operator(8, 8), depth=1, progbar=True, **QUICK)
    assert "max_sweeps (still falling when max_sweeps was reached" in caplog.text
    assert capsys.readouterr().out == ""


def test_the_time_of_initial_guesses_counts(monkeypatch):
    place = search.place_initial_guess

    def slow(*args, **options):
        time.sleep(0.2)
        place(*args, **options)

    monkeypatch.setattr(search, "place_initial_guess", slow)
    found = disentangle(operator(8, 8).mpo, depth=1, init="random", n_init=3, max_seconds=0.1)
    assert (found.status, len(found.history)) == ("max_seconds", 1)
    assert found.seconds > 0.2


@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_bound_and_entropies_are_left_out_where_they_take_most_of_the_time(monkeypatch, seconds):
    monkeypatch.setattr(Recorder, "seconds_of_result", lambda recorder: seconds)
    given = {"depth": 1, "n_init": 1, "max_sweeps": 3, "max_seconds": 60.0}
    short, whole = (
        disentangle(operator(8, 8), **given),
        disentangle(operator(8, 8), depth=1, **QUICK),
    )
    measured = [short.bound, *short.entropies_before, *short.entropies_after]
    assert np.isnan(measured).all() == (seconds > 30)  # half of the time left
    assert any("max_seconds=60 is too short" in said for said in short.remarks) == (seconds > 30)
    assert_allclose(short.overlap, whole.history.column("overlap")[3], atol=1e-12)
    assert plot_entropies(short) is not None


@pytest.mark.parametrize(
    ("phase", "seconds", "expected"),
    # sweeps of 10 s: another one and 5 for the result, up to 3 % late
    [
        ("sweep", 42.9, ""),
        ("sweep", 43.1, "max_seconds"),
        ("lbfgs", 51.9, ""),
        ("lbfgs", 52.1, "max_seconds"),
    ],
)
def test_a_sweep_that_does_not_fit_is_not_begun(phase, seconds, expected):
    budget = Budget(max_sweeps=100, max_seconds=100.0, sweeps_ahead=6)
    assert budget.limit(State(phase=phase, seconds=seconds), 10.0) == expected
    assert not Budget(max_sweeps=100, max_seconds=100.0).limit(State(seconds=99.0), 10.0)


def test_a_real_initial_guess_of_a_complex_operator_gets_a_complex_core():
    mpo = operator(8, 8, is_complex=True).mpo
    real = disentangle(operator(8, 8).mpo, depth=1, max_sweeps=3)
    sides = {side: getattr(real.factorization, side).ansatz for side in ("left", "right")}
    found = [
        disentangle(mpo, **sides, init=real, method=method, max_sweeps=300, tol=1e-8).loss
        for method in ("auto", "lbfgs")
    ]
    assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("engine", ["dense", "transverse", "tree", "boundary"])
@pytest.mark.parametrize("core", ["update", "fixed"])
def test_a_core_that_is_orthogonal_to_the_operator_does_not_vanish(engine, core):
    matrix = np.array([[0, 0, 0, 0, 1.0]])  # which the CNOT moves to another column
    found = disentangle(
        matrix, left="CNOT", method="sweeps", engine=engine, core=core, init="identity", n_init=1
    )
    assert 0.0 <= found.overlap <= 1.0 + 1e-12
    assert found.factorization.padded_to_dense().any()
    assert mpodis.log_norm(found.factorization.core) > -math.inf
