"""Runs of every method on sides and operators of every kind."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import brickwall, staircase
from mpodis.circuit.spec import from_spec
from mpodis.disentangling import disentangle
from mpodis.mpo import compress
from mpodis.sites import mpo_from_tensors, site_tensors
from reference import random_matrix, relative_error
from runs import arrays

QUICK = {"n_init": 1, "max_sweeps": 6}
GROUPS = ("SO", "O", "U")


@cache
def operator(*shape, is_complex=False, seed=0):
    return compress(random_matrix(shape, is_complex, seed))


def free_gates(result):
    for circuit in (result.factorization.left, result.factorization.right):
        for place, gate in zip(circuit.ansatz.placements, circuit.gates, strict=True):
            if place.fixed is None:
                yield circuit.ansatz.group, gate


@pytest.mark.no_cover  # long; the lines of test_converged
def test_auto_goes_from_sweeps_to_lbfgs_and_back():
    result = disentangle(operator(16, 16), depth=2, n_init=1, max_sweeps=60, tol=1e-2)
    phases = list(result.history.column("phase"))
    changes = [a for a, b in zip(phases, [*phases[1:], ""], strict=True) if a != b]
    assert changes[:4] == ["init", "sweep", "lbfgs", "sweep"]


def test_activations_begin_with_lbfgs():
    result = disentangle(
        operator(8, 8), depth=1, objective="activations", inputs=random_matrix((20, 8), seed=1),
        n_init=1, max_sweeps=40, tol=1e-2,
    )  # fmt: skip
    phases = list(result.history.column("phase"))
    assert phases[:2] == ["init", "lbfgs"]
    assert "sweep" in phases
    assert max(np.diff(result.history.column("loss"))) <= 1e-12


def test_right_is_the_mirror_image_of_left():
    result = disentangle(operator(16, 4), left="2b + 3*CNOT + 1b", right="2b", **QUICK)
    assert result.factorization.right.ansatz == from_spec("2b", 2)
    result = disentangle(operator(16, 16), left="2b + CNOT", **QUICK)
    assert result.factorization.right.ansatz == from_spec("2b + CNOT", 4).reversed()
    result = disentangle(operator(16, 16), depth=3, **QUICK)
    assert result.factorization.left.ansatz == brickwall(4, 3)
    assert result.factorization.right.ansatz == brickwall(4, 3).reversed()
    result = disentangle(operator(16, 16), left=staircase(4, 1), group="U", **QUICK)
    assert result.factorization.right.ansatz == staircase(4, 1).reversed()
    result = disentangle(operator(16, 4), left=staircase(4, 1), right=1, group="U", **QUICK)
    assert result.factorization.right.ansatz == brickwall(2, 1, group="U")
    result = disentangle(operator(16, 16), left=np.int64(2), **QUICK)
    assert result.factorization.left.ansatz == brickwall(4, 2)


@pytest.mark.parametrize("method", ["sweeps", "auto", "lbfgs"])
@pytest.mark.parametrize(("left", "right"), [("SO", "U"), ("U", "O"), ("O", "SO")])
def test_sides_may_have_groups_of_their_own(left, right, method):
    ansatze = {"left": brickwall(3, 2, group=left), "right": brickwall(3, 2, group=right)}
    result = disentangle(operator(8, 8), **ansatze, method=method, init="identity", **QUICK)
    assert max(np.diff(result.history.column("loss"))) <= 1e-12
    for group, gate in free_gates(result):
        assert (gate.dtype.kind == "c") == (group == "U")
        assert_allclose(gate.conj().T @ gate, np.eye(4 if len(gate) == 4 else 2), atol=1e-12)


@pytest.mark.parametrize("objective", ["overlap", "activations"])
@pytest.mark.parametrize("method", ["auto", "lbfgs"])
def test_circuits_without_free_gates(method, objective):
    options = {"method": method, "objective": objective, "inputs": np.eye(8), **QUICK}
    fixed = disentangle(operator(8, 8), left="CNOT", core="fixed", **options)
    losses = fixed.history.column("loss")
    assert_allclose(losses, losses[0], atol=1e-12)
    free = disentangle(operator(8, 8), left="CNOT", **options)
    assert free.loss < losses[0] - 1e-3


@pytest.mark.parametrize("shape", [(8, 1), (1, 8)])
def test_vectors_have_circuits_on_one_side(shape):
    for left in (2, "2*2b"):
        result = disentangle(operator(*shape), left=left, method="sweeps")
        counts = result.factorization.parameter_counts()
        assert counts["left gates"] * counts["right gates"] == 0
        assert result.overlap > 0.99


@pytest.mark.parametrize("method", ["auto", "sweeps", "lbfgs"])
def test_one_by_one_operators(method):
    result = disentangle(compress([[-2.0]]), depth=1, method=method, init="random")
    assert_allclose(result.factorization.to_dense(), [[-2.0]])


def test_complex_inputs_of_a_real_layer_leave_it_real():
    x = random_matrix((30, 8), True, 2) / np.arange(1, 9)
    options = {"left": 1, "objective": "activations", **QUICK}
    result = disentangle(operator(8, 8), inputs=x, **options)
    assert all(a.dtype == float for a in arrays(result))
    assert max(np.diff(result.history.column("loss"))) <= 1e-12
    w = operator(8, 8).to_dense()
    expected = relative_error(x @ w, x @ result.factorization.to_dense())
    assert_allclose(result.activation_error, expected, atol=1e-10)
    # what counts is the real part of the second moment: the same as of both parts stacked
    stacked = disentangle(operator(8, 8), inputs=np.vstack([x.real, x.imag]), **options)
    assert_allclose(result.loss, stacked.loss, atol=1e-6)
    unitary = disentangle(operator(8, 8), inputs=x, group="U", **options)
    assert max(np.diff(unitary.history.column("loss"))) <= 1e-12


def test_inputs_that_the_layer_does_not_answer_have_no_error():
    w = random_matrix((8, 8))
    w[0] = 0
    x = np.zeros((3, 8))
    x[:, 0] = 1
    result = disentangle(compress(w), depth=1, inputs=x, **QUICK)
    assert np.isnan(result.activation_error)
    assert np.isnan(result.history.column("activations")).all()
    with pytest.raises(ValueError, match="the operator annihilates the given inputs"):
        disentangle(compress(w), depth=1, inputs=x, objective="activations", **QUICK)


def test_the_operator_may_be_an_mpo_of_single_precision_or_torch():
    cores = [c.astype(np.float32) for c in site_tensors(operator(8, 8).mpo)]
    single = disentangle(mpo_from_tensors(cores), depth=1, shape=(7, 6), **QUICK)
    assert single.factorization.shape == (7, 6)
    assert single.factorization.to_dense().shape == (7, 6)
    double = disentangle(operator(8, 8), depth=1, **QUICK)
    assert_allclose(single.overlap, double.overlap, atol=1e-4)
    assert all(a.dtype == np.float64 for a in arrays(single))
    mpo = operator(8, 8).mpo.copy()
    mpo.apply_to_arrays(torch.tensor)
    assert_allclose(disentangle(mpo, depth=1, **QUICK).overlap, double.overlap, atol=1e-12)
