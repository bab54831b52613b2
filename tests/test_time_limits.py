"""Limits of time: searches and fits end soon after them, with a result that is worth something."""

from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    best_monarch,
    compress,
    fit_core,
    monarch,
    neuron_order,
    site_order,
    truncated_mpo,
)
from mpodis.conventions import qubit_legs
from mpodis.sites import mpo_to_dense, site_tensors
from mpodis.structured import full_width_gates

RNG = np.random.default_rng(0)
MATRIX = RNG.normal(size=(16, 16))
INPUTS = RNG.normal(size=(40, 16)) * np.geomspace(1, 0.1, 16)
COVARIANCE = INPUTS.T @ INPUTS / 40
SENSITIVITY = np.diag(np.linspace(1, 2, 16))


@pytest.fixture
def clock(monkeypatch):
    """A second goes by whenever somebody looks at the time."""
    made = SimpleNamespace(now=0.0)

    def monotonic():
        made.now += 1.0
        return made.now

    monkeypatch.setattr("mpodis.progress.time", SimpleNamespace(monotonic=monotonic))
    return made


def loss(core):
    off = MATRIX - mpo_to_dense(core)
    return np.trace(off.T @ COVARIANCE @ off) / np.trace(MATRIX.T @ COVARIANCE @ MATRIX)


SEARCHES = {
    "neuron_order": lambda **k: neuron_order(MATRIX, max_bond=2, covariance=COVARIANCE, **k),
    "site_order": lambda **k: site_order(MATRIX, together=False, **k),
    "site_order, loss": lambda **k: site_order(
        MATRIX, measure="loss", max_bond=2, covariance=COVARIANCE, restarts=0, steps=4, **k
    ),
    "fit_core": lambda **k: fit_core(
        MATRIX, max_bond=2, legs=qubit_legs(16, 16), covariance=COVARIANCE, **k
    ),
    "truncated_mpo": lambda **k: truncated_mpo(
        MATRIX, 2, covariance=COVARIANCE, sensitivity=SENSITIVITY, **k
    ),
    "monarch": lambda **k: monarch(MATRIX, covariance=COVARIANCE, **k),
    "best_monarch": lambda **k: best_monarch(MATRIX, 100, covariance=COVARIANCE, **k),
    "full_width_gates": lambda **k: full_width_gates(
        compress(MATRIX[:4, :4]), 1, n_init=2, max_iterations=20, **k
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_it_ends_soon_after_the_limit(name, clock):
    SEARCHES[name](max_seconds=60.0)
    # each part of a search may look once more before it ends
    assert clock.now < 120
    SEARCHES[name](max_seconds=1e-3)


@pytest.mark.parametrize("name", ["neuron_order", "site_order", "site_order, loss"])
@pytest.mark.parametrize("seconds", [1.0, 20.0, 80.0])
def test_an_order_is_never_worse_than_the_one_given(name, seconds, clock):
    found = SEARCHES[name](max_seconds=seconds)
    assert found.after <= found.before
    if found.core is not None:
        moved = found.reordering
        off = moved.apply(MATRIX) - mpo_to_dense(found.core)
        metric = moved.covariance(COVARIANCE)
        size = np.trace(MATRIX.T @ COVARIANCE @ MATRIX)
        assert_allclose(np.trace(off.T @ metric @ off) / size, found.after, atol=1e-12)


def test_a_sweep_that_ends_early_has_gained_what_it_has_solved(clock):
    losses = [loss(SEARCHES["fit_core"](max_seconds=s)) for s in (1e-3, 30.0, 60.0, 1e6)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-4


@pytest.mark.no_cover  # whole searches, which end sooner in the tests above
@pytest.mark.parametrize("name", SEARCHES)
def test_a_limit_that_is_not_reached_changes_nothing(name):
    a, b = SEARCHES[name](), SEARCHES[name](max_seconds=1e6, progbar=True)
    if name == "fit_core":
        for x, y in zip(site_tensors(a), site_tensors(b), strict=True):
            assert_array_equal(x, y)
    elif name == "neuron_order":  # with a limit it begins at another truncation
        assert b.after <= b.before
    else:
        key = next(key for key in ("after", "matrix", "loss") if hasattr(a, key))
        assert_array_equal(getattr(a, key), getattr(b, key))


@pytest.mark.parametrize("name", SEARCHES)
def test_limits_are_checked(name):
    with pytest.raises(ValueError, match="max_seconds=-1"):
        SEARCHES[name](max_seconds=-1)


def test_what_cannot_be_cut_short_is_said_once(clock, caplog):
    SEARCHES["truncated_mpo"](max_seconds=1e-3)
    (said,) = caplog.messages
    assert "truncated_mpo took" in said
    assert "max_seconds=0.001" in said
    caplog.clear()
    SEARCHES["truncated_mpo"](max_seconds=1e6)
    assert not caplog.messages
