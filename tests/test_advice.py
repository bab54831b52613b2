"""Remarks on results: said where they are true, with the numbers of independent fits."""

import logging
import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import Factorization, brickwall, compress, disentangle, load_run, random_circuit
from mpodis.advice import POINTER, log_remarks, without_remarks
from mpodis.fit import fit_core, weighted_loss
from mpodis.structured import low_rank
from mpodis.targets import random_mpo

QUICK = {"n_init": 1, "max_sweeps": 6, "init": "identity"}


def of_rank(rank, n=32, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, rank)) @ rng.normal(size=(rank, n))


def steep_inputs(n=32, seed=1):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return rng.normal(size=(200, n)) * np.geomspace(1, 1e-3, n) @ rotation


def numbers(text):
    return [float(x) for x in re.findall(r"\d+\.\d+", text)]


@pytest.mark.parametrize("objective", ["overlap", "activations"])
def test_nothing_is_said_where_circuits_can_be_removed(objective):
    ansatz = brickwall(4, 1)
    left, right = (random_circuit(ansatz, seed=k, scale=0.3) for k in (0, 1))
    product = np.kron(np.diag([2.0, 1.0, 0.5, 0.25]), np.diag([1.0, 0.1, -0.3, -0.03]))
    planted = Factorization(left, compress(product, max_bond=1).mpo, right, (16, 16))
    found = disentangle(
        compress(planted.to_dense()), depth=1, objective=objective, inputs=steep_inputs(16)
    )
    assert found.overlap > 0.999
    assert found.entropies_before.mean() > 0.1
    assert found.remarks == ()


@pytest.mark.parametrize("objective", ["overlap", "activations"])
def test_low_rank_is_named_with_its_error(objective):
    matrix, x = of_rank(6) + 0.1 * of_rank(32, seed=5), steep_inputs()
    found = disentangle(
        compress(matrix), depth=4, max_bond=4, objective=objective, inputs=x, **QUICK
    )
    (said,) = [remark for remark in found.remarks if "low_rank" in remark]
    rank = int(re.search(r"rank (\d+)", said)[1])
    moment = {} if objective == "overlap" else {"covariance": x.T @ x / len(x)}
    best = low_rank(matrix, rank, **moment)
    assert best.parameters <= sum(found.factorization.parameter_counts().values())
    expected = best.relative_error if objective == "overlap" else best.activation_error
    assert numbers(said)[0] == pytest.approx(expected, abs=6e-4)
    ours = np.sqrt(1 - found.overlap**2) if objective == "overlap" else found.activation_error
    assert numbers(said)[1] == pytest.approx(ours, abs=6e-4)
    assert expected < ours


def test_padding_and_sensitivity_count_as_in_the_search():
    matrix, x = of_rank(32)[:20, :30] + 5 * np.outer(np.arange(20), np.ones(30)), steep_inputs(20)
    moments = {"covariance": x.T @ x / len(x), "sensitivity": np.diag(np.linspace(1, 2, 30))}
    found = disentangle(
        compress(matrix), depth=3, max_bond=2, objective="activations", **moments, **QUICK
    )
    (said,) = [remark for remark in found.remarks if "low_rank" in remark]
    best = low_rank(matrix, int(re.search(r"rank (\d+)", said)[1]), **moments).matrix
    loss = weighted_loss(matrix, best, *moments.values())
    assert numbers(said)[0] == pytest.approx(np.sqrt(loss), abs=6e-4)
    assert numbers(said)[1] == pytest.approx(np.sqrt(found.loss), abs=6e-4)


def test_an_mpo_without_circuits_is_named():
    matrix = compress(of_rank(32), max_bond=4).to_dense() + 0.02 * of_rank(32, seed=3)
    found = disentangle(compress(matrix), depth=8, **QUICK)
    (said,) = [remark for remark in found.remarks if "truncated_mpo" in remark]
    assert "bond dimension 4" in said


def test_a_rise_of_entropy_and_an_error_above_one_are_said_and_stored(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="mpodis.advice"):
        found = disentangle(
            compress(of_rank(32), max_bond=4),
            depth=2,
            objective="activations",
            inputs=steep_inputs(),
            run_dir=tmp_path / "run",
            **QUICK,
        )
    assert found.entropies_after.mean() > found.entropies_before.mean() + 0.01
    assert found.relative_error > 1
    said = "\n".join(found.remarks)
    assert f"{found.entropies_after.mean():.2f} nats" in said
    assert f"{found.relative_error:.2f}" in said
    assert caplog.messages == [  # the printed result says the rest, once
        f"The circuits entangle the operator. As an operator a zero matrix is better. {POINTER}"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="mpodis.advice"):
        log_remarks(found)
    assert caplog.messages == [said]
    assert all(remark in str(found) for remark in found.remarks)
    assert load_run(tmp_path / "run").remarks == found.remarks


def test_a_large_operator_gets_no_advice_that_needs_its_matrix():
    options = QUICK | {"init": "random", "max_sweeps": 1}
    (said, *_) = disentangle(random_mpo(12, 2, seed=0), depth=2, **options).remarks
    assert "S_avg rises" in said
    assert "entropic" not in said
    assert "neuron_order" not in said


def test_steps_of_a_larger_computation_are_not_logged(caplog):
    with caplog.at_level(logging.WARNING), without_remarks():
        found = disentangle(compress(of_rank(32)), depth=1, **QUICK)
    assert found.remarks
    assert caplog.messages == []


def test_a_core_that_is_kept_is_named_with_its_bound_and_what_a_fit_would_reach():
    places = brickwall(4, 2)
    left, right = (random_circuit(x, seed=0, scale=0.3) for x in (places, places.reversed()))
    cores = [
        np.kron(np.diag([4.0, 2.0, 2.0, 1.0]), np.diag(x)) for x in ([1, 1, 1, 1], [1, 0, 0, 0])
    ]
    hidden, wrong = (
        Factorization(left, compress(core, max_bond=1).mpo, right, (16, 16)) for core in cores
    )
    target = hidden.to_dense()
    options = {"depth": 2, "init": wrong, "n_init": 1, "max_sweeps": 10}
    found = disentangle(target, core="fixed", **options)
    (said,) = [
        remark for remark in found.remarks if "core='update'" in remark and "keeps" in remark
    ]
    pulled = found.factorization.left.to_dense().T @ target @ found.factorization.right.to_dense().T
    core = found.factorization.core
    fitted = fit_core(pulled, max_bond=1, init=core, max_sweeps=5).to_dense()
    values = [np.linalg.svd(matrix, compute_uv=False) for matrix in (target, cores[1])]
    bound = np.dot(*(x / np.linalg.norm(x) for x in values))
    best = np.vdot(pulled, fitted) / np.linalg.norm(pulled) / np.linalg.norm(fitted)
    assert_allclose(numbers(said), [found.overlap, bound, best], atol=6e-4)
    assert disentangle(target, **options).remarks == ()  # the core moves
    assert disentangle(target, core="fixed", **options | {"init": hidden}).remarks == ()
