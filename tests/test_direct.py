"""`circuit_qr` and `circuit_svd` against dense algebra and hidden circuits."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import brickwall, circuit_qr, circuit_svd, random_circuit, tie_gates
from mpodis.circuit.ansatz import Ansatz
from mpodis.conventions import qubit_legs
from mpodis.direct import MaskedLoss, dense_site_tensors
from mpodis.environments import DenseEnvironments
from mpodis.factorization import dense_overlap
from mpodis.gates import exponential, polar_update, skew
from mpodis.sites import tensors_to_dense

QUICK = {"n_init": 2, "init_sweeps": 5, "max_sweeps": 30}


def gaussian(rows, columns, seed=0, *, complex=False):
    rng = np.random.default_rng(seed)
    real = rng.normal(size=(rows, columns))
    return real + 1j * rng.normal(size=(rows, columns)) if complex else real


def hidden(n, depth, middle, *, group="SO", sides=2, seed=0):
    """A middle between circuits that are there to be found."""
    rng = np.random.default_rng(seed)
    ansatz = brickwall(n, depth, group=group)
    right = ansatz.reversed() if sides == 2 else Ansatz(n, (), group)
    circuits = [random_circuit(places, seed=rng) for places in (ansatz, right)]
    return circuits[0].to_dense() @ middle @ circuits[1].to_dense()


@pytest.mark.parametrize("shape", [(8, 8), (2, 2), (16, 4), (2, 8)])
def test_exact_cores_are_the_matrix(shape):
    legs, matrix = qubit_legs(*shape), gaussian(*shape)
    assert_allclose(tensors_to_dense(dense_site_tensors(matrix, legs)), matrix, atol=1e-15)


@pytest.fixture(params=["SO", "U"])
def captured(request):
    """A Gaussian matrix, random circuits around it, and a diagonal middle."""
    group, legs = request.param, ((2, 2),) * 3
    matrix = gaussian(8, 8, complex=group == "U")
    left, right = brickwall(3, 2, group=group), brickwall(3, 1, group=group)
    objective = MaskedLoss(matrix / np.linalg.norm(matrix), legs, np.eye(8, dtype=bool))
    engine = DenseEnvironments(objective.target, legs, left, right)
    circuits = [random_circuit(places, seed=k) for k, places in enumerate((left, right))]
    engine.set(circuits[0].gates, dense_site_tensors(objective.target, legs), circuits[1].gates)
    return objective, engine, circuits, group


def test_the_loss_is_what_the_diagonal_leaves(captured):
    objective, engine, (left, right), _ = captured
    pulled = left.to_dense().conj().T @ objective.target @ right.to_dense().conj().T
    assert_allclose(objective.value(engine), 1 - np.linalg.norm(np.diag(pulled)), atol=1e-14)
    assert_allclose(objective.middle(engine), np.diag(np.diag(pulled)), atol=1e-14)


def test_the_gradient_is_that_of_the_loss(captured):
    objective, engine, _, group = captured
    loss, found = objective.gradient(engine)
    assert_allclose(loss, objective.value(engine), atol=1e-14)
    rng = np.random.default_rng(3)
    for side in ("left", "right"):
        for j, gate in enumerate(getattr(engine, side)):
            normal = rng.normal(size=gate.shape)
            if group == "U":
                normal = normal + 1j * rng.normal(size=gate.shape)
            direction = skew(normal)
            values = []
            for step in (1e-5, -1e-5):
                gates = list(getattr(engine, side))
                gates[j] = gate @ exponential(step * direction)
                engine.set(**{side: gates})
                values.append(objective.value(engine))
                gates[j] = gate
                engine.set(**{side: gates})
            environment = getattr(found, side)[j]
            expected = -np.vdot(environment, gate @ direction).real
            assert_allclose((values[0] - values[1]) / 2e-5, expected, atol=1e-8)


def test_a_sweep_never_raises_the_loss(captured):
    objective, engine, _, group = captured
    updates = dict.fromkeys(
        ("left", "right"), lambda environment, gate: polar_update(environment, gate, group=group)
    )
    losses = [objective.value(engine)]
    for _ in range(20):
        objective.sweep(engine, updates, core=False)
        losses.append(objective.value(engine))
    assert np.diff(losses).max() < 1e-14
    assert losses[-1] < losses[0] - 0.1


def test_nothing_captured_has_a_gradient_of_zero():
    legs, none = ((2, 2),) * 2, Ansatz(2, ())
    matrix = np.fliplr(np.eye(4)) / 2
    objective = MaskedLoss(matrix, legs, np.eye(4, dtype=bool))
    engine = DenseEnvironments(matrix, legs, brickwall(2, 1), none)
    engine.set([np.eye(4)], dense_site_tensors(matrix, legs), [])
    loss, found = objective.gradient(engine)
    assert loss == pytest.approx(1.0)
    assert_allclose(found.left[0], 0.0)


@pytest.mark.parametrize("group", ["SO", "U"])
def test_a_hidden_svd_is_found_whatever_the_order_of_its_values(group):
    diagonal = np.diag([0.3, -2.0, 1.1, 0.0, 5.0, 0.7, -0.2, 1.3])
    matrix = hidden(3, 2, diagonal, group=group)
    found = circuit_svd(matrix, 2, group=group, n_init=6, max_sweeps=100)
    assert found.overlap > 1 - 1e-6
    assert_allclose(found.to_dense(), matrix, atol=1e-2)
    assert found.parameters == 8
    values = np.linalg.svd(matrix, compute_uv=False)
    assert_allclose(np.sort(np.abs(np.diag(found.middle))), values[::-1], atol=1e-2)


def test_a_hidden_qr_is_found():
    matrix = hidden(3, 2, np.triu(gaussian(8, 8)), sides=1)
    found = circuit_qr(matrix, 2, n_init=6, max_sweeps=100)
    assert found.overlap > 1 - 1e-6
    assert_allclose(found.to_dense(), matrix, atol=1e-2)
    assert found.parameters == 36
    assert not found.right.gates


@pytest.mark.parametrize("solve", [circuit_qr, circuit_svd])
def test_a_diagonal_matrix_needs_next_to_nothing(solve):
    found = solve(np.diag(np.arange(1.0, 9.0)), 1, n_init=4, init_sweeps=10, max_sweeps=100)
    assert found.overlap > 1 - 1e-7
    assert found.relative_error < 1e-3


@pytest.mark.parametrize("solve", [circuit_qr, circuit_svd])
@pytest.mark.parametrize("group", ["SO", "O", "U"])
def test_overlap_and_error_are_those_of_the_dense_matrices(solve, group):
    matrix = gaussian(8, 8, complex=group == "U")
    found = solve(matrix, 2, group=group, **QUICK)
    dense = found.left.to_dense() @ found.middle @ found.right.to_dense()
    assert_allclose(found.to_dense(), dense, atol=1e-12)
    assert_allclose(found.overlap, dense_overlap(matrix, dense), atol=1e-12)
    error = np.linalg.norm(matrix - dense) / np.linalg.norm(matrix)
    assert_allclose(found.relative_error, error, atol=1e-12)
    zeros = ~np.triu(np.ones((8, 8), bool)) if solve is circuit_qr else ~np.eye(8, dtype=bool)
    assert not found.middle[zeros].any()
    for gate in (*found.left.gates, *found.right.gates):
        assert_allclose(gate @ gate.conj().T, np.eye(len(gate)), atol=1e-13)


def test_more_layers_capture_more():
    overlaps = [circuit_svd(gaussian(8, 8), depth, **QUICK).overlap for depth in (1, 2, 4)]
    assert overlaps == sorted(overlaps)
    # gates as wide as the matrix leave nothing
    widest = brickwall(3, 1, 3)
    assert circuit_svd(gaussian(8, 8), widest, max_sweeps=100).overlap > 0.999


def test_unequal_sides_are_padded_and_cropped():
    matrix = gaussian(13, 4)
    found = circuit_svd(matrix, 2, 1, **QUICK)
    assert (found.left.n, found.right.n, found.middle.shape) == (4, 2, (16, 4))
    assert found.to_dense().shape == (13, 4)
    error = np.linalg.norm(matrix - found.to_dense()) / np.linalg.norm(matrix)
    assert error <= found.relative_error + 1e-12
    assert found.parameters == 4
    places = brickwall(4, 2), brickwall(2, 1)
    assert circuit_svd(matrix, *places, **QUICK).overlap == found.overlap


def test_tied_gates_stay_tied():
    found = circuit_qr(gaussian(16, 16), tie_gates(brickwall(4, 2)), **QUICK)
    first, second, _ = found.left.gates[:3]
    assert_allclose(first, second)
    assert found.overlap > 0.7


@pytest.mark.no_cover  # the same searches again
def test_the_seed_says_everything():
    matrix = gaussian(8, 8)
    runs = [circuit_svd(matrix, 2, seed=seed, **QUICK) for seed in (3, 3, 4)]
    assert runs[0].overlap == runs[1].overlap != runs[2].overlap
    drawn = [circuit_svd(matrix, 2, seed=np.random.default_rng(1), **QUICK) for _ in range(2)]
    assert drawn[0].overlap == drawn[1].overlap


def test_status_and_sweeps():
    matrix = gaussian(8, 8)
    short = circuit_svd(matrix, 4, n_init=1, init_sweeps=2, max_sweeps=3)
    assert (short.status, short.sweeps) == ("max_sweeps", 3)
    long = circuit_svd(matrix, 4, n_init=1, max_sweeps=200, tol=1e-2)
    assert long.status == "converged"
    assert 3 < long.sweeps < 200
    assert long.overlap > short.overlap
    text = str(long)
    assert "converged" in text
    assert f"{math.sqrt(1 - long.overlap**2):.4g}" in text


@pytest.mark.parametrize("name", ["n_init", "init_sweeps", "max_sweeps"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_counts_that_make_no_sense(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r} must be a whole number"):
        circuit_qr(np.eye(4), 1, **{name: value})


def test_circuits_that_do_not_fit():
    with pytest.raises(ValueError, match="circuit= has 2 wires, the operator 3"):
        circuit_qr(gaussian(8, 8), brickwall(2, 1))
    with pytest.raises(ValueError, match=r"has 4 wires and cannot be mirrored onto 2; give right="):
        circuit_svd(gaussian(16, 4), brickwall(4, 1))
    with pytest.raises(ValueError, match="expected a matrix"):
        circuit_svd(np.ones(4), 1)
