"""1 - f to the last digit: against dense algebra, and where `max_bond` cuts something off."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mpodis
from mpodis.environments import LossEstimate, to_mpo, true_loss, true_overlap

N = 8


def turned(circuit, scale, seed):
    """The circuit with every gate turned by about `scale`."""
    small = mpodis.random_circuit(circuit.ansatz, seed=seed, scale=scale)
    gates = [a @ b for a, b in zip(circuit.gates, small.gates, strict=True)]
    return mpodis.Circuit(circuit.ansatz, tuple(gates))


def identity(n):
    return mpodis.mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1) / 2**0.5] * n)


def pair(n, depth, scale, group="U", *, turn=0.0, spread=0.3):
    """A circuit, and an MPO that it approximates, up to a phase."""
    none = mpodis.Circuit(mpodis.Ansatz(n, (), group), ())
    ansatz = mpodis.brickwall(n, depth, group=group)
    circuit = mpodis.random_circuit(ansatz, seed=1, scale=spread)
    near = turned(circuit, scale, 2)
    core, shape = identity(n), (2**n, 2**n)
    whole = [mpodis.Factorization(c, core, none, shape) for c in (circuit, near)]
    target = to_mpo(whole[1], max_bond=256, cutoff=1e-14)
    return whole[0], np.exp(1j * turn) * target if turn else target


def dense_losses(a, b):
    """1 - f, 1 - |c| and arg c of two matrices, from norms of differences."""
    a, b = (x / np.linalg.norm(x) for x in (a, b))
    phase = np.angle(np.vdot(a, b))
    loss, up_to_phase = (
        np.linalg.norm(a - np.exp(-1j * angle) * b) ** 2 / 2 for angle in (0, phase)
    )
    return loss, up_to_phase, phase


@pytest.mark.parametrize("turn", [0.0, 1e-5, 2.0])
@pytest.mark.parametrize("scale", [0.3, 1e-3, 1e-7, 1e-10])
def test_the_loss_is_that_of_the_dense_difference(scale, turn):
    found, target = pair(N, 5, scale, turn=turn)
    estimate = true_loss(found, target)
    loss, up_to_phase, phase = dense_losses(mpodis.mpo_to_dense(target), found.to_dense())
    assert_allclose(estimate.loss, loss, rtol=1e-3)
    assert_allclose(estimate.up_to_phase, up_to_phase, rtol=1e-3)
    assert_allclose(estimate.phase, phase, atol=1e-12)
    assert_allclose(estimate.infidelity, up_to_phase * (2 - up_to_phase), rtol=1e-3)
    assert estimate.error <= 2e-3 * loss
    assert_allclose(estimate.distance, np.sqrt(2 * loss), rtol=1e-3)


def test_the_sign_of_a_real_overlap_is_a_phase():
    found, target = pair(6, 3, 1e-6, "SO")
    estimate = true_loss(found, -1 * target)
    assert_allclose(estimate.loss, 2, rtol=1e-9)
    assert_allclose(estimate.phase, np.pi)
    assert 0 < estimate.up_to_phase < 1e-9


def test_states_are_compared_as_operators_with_one_row():
    n = 10
    ansatz = mpodis.brickwall(n, 4, group="U")
    circuit = mpodis.random_circuit(ansatz, seed=1, scale=0.5)
    psi = turned(circuit, 1e-7, 2).to_dense()[:1]
    zero = mpodis.mpo_from_tensors([np.eye(1, 2).reshape(1, 1, 2, 1)] * n)
    none = mpodis.Circuit(mpodis.Ansatz(0, (), "U"), ())
    found = mpodis.Factorization(none, zero, circuit, (1, 2**n))
    loss, *_ = dense_losses(psi, circuit.to_dense()[:1])
    assert loss < 1e-11
    target = mpodis.compress(psi, legs=((1, 2),) * n).mpo
    assert_allclose(true_loss(found, target).loss, loss, rtol=1e-3)


def test_gates_of_distant_wires_are_routed():
    layers = (((0, 2), (1, 3)), ((0, 1), (2, 3)))
    placements = tuple(tuple(mpodis.Placement(wires) for wires in layer) for layer in layers)
    ansatz = mpodis.Ansatz(4, placements, "U")
    circuit = mpodis.random_circuit(ansatz, seed=1, scale=0.3)
    none = mpodis.Circuit(mpodis.Ansatz(4, (), "U"), ())
    found = mpodis.Factorization(circuit, identity(4), none, (16, 16))
    near = turned(circuit, 1e-6, 2).to_dense()
    loss, *_ = dense_losses(near, circuit.to_dense())
    assert_allclose(true_loss(found, near).loss, loss, rtol=1e-3)


def test_the_error_says_what_max_bond_cuts_off():
    found, target = pair(24, 4, 1e-3, spread=0.1)
    best = true_loss(found, target)
    assert best.error < 2e-3 * best.loss
    assert best.max_bond < 256
    for bond in (4, 8, 16):
        estimate = true_loss(found, target, max_bond=bond)
        assert estimate.max_bond <= bond
        assert abs(estimate.loss - best.loss) <= 1.1 * (estimate.error + best.error)


def test_a_target_of_more_than_max_bond_is_no_reason_to_stop():
    found, target = pair(12, 6, 1e-6, spread=0.02)
    bond = max(target.bond_sizes())
    best = true_loss(found, target)
    assert best.max_bond < bond
    estimate = true_loss(found, target, max_bond=bond - 1)
    assert abs(estimate.loss - best.loss) < estimate.error + best.error < 0.05 * best.loss


def test_large_losses_agree_with_the_overlap():
    found, target = pair(24, 4, 0.1, spread=0.1)
    assert_allclose(true_loss(found, target).loss, 1 - true_overlap(found, target).value, rtol=1e-3)


def test_what_makes_no_sense_is_refused():
    found, target = pair(4, 2, 0.1)
    with pytest.raises(ValueError, match="rtol=0 must be a positive number"):
        true_loss(found, target, rtol=0)
    with pytest.raises(ValueError, match="max_bond=0 must be a whole number"):
        true_loss(found, target, max_bond=0)


def test_nothing_in_common_is_a_loss_of_one():
    found, _ = pair(4, 2, 0.1)
    zero = mpodis.mpo_from_tensors([np.zeros((1, 2, 2, 1))] * 4)
    estimate = true_loss(found, zero)
    assert isinstance(estimate, LossEstimate)
    assert estimate.loss == estimate.infidelity == 1
