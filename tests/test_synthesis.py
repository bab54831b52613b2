"""Circuits of a given unitary: found again where one was hidden, and no false hopes."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.synthesis import synthesise
from reference import circuit_matrix


@pytest.mark.no_cover  # twelve searches; the next tests have the same lines
@pytest.mark.parametrize(("n", "group"), [(4, "SO"), (6, "SO"), (4, "U"), (5, "U")])
@pytest.mark.parametrize("seed", range(3))
def test_a_hidden_brickwall_is_found(n, group, seed):
    ansatz = brickwall(n, 4, group=group)
    target = circuit_matrix(random_circuit(ansatz, seed=(seed, 7)))
    found = synthesise(target, 4, group=group, seed=seed)
    assert found.status == "exact"
    assert 1 - found.overlap < 1e-9
    assert_allclose(found.circuit.to_dense(), target, atol=1e-4)  # sign and phase included
    assert found.circuit.ansatz == ansatz


def test_a_circuit_can_be_the_target_and_gates_can_be_fixed():
    hidden = random_circuit(from_spec("2b + CNOT + 1b", 3), seed=1)
    found = synthesise(hidden, "2b + CNOT + 1b", seed=0)
    assert found.status == "exact"
    assert_allclose(found.circuit.to_dense(), circuit_matrix(hidden), atol=1e-4)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_a_determinant_out_of_reach_is_recognised(n):
    widest = Ansatz(n, ((Placement(tuple(range(n))),),), "SO")
    target = circuit_matrix(random_circuit(widest, seed=2)) @ np.diag([*[1.0] * (2**n - 1), -1])
    found = synthesise(target, widest)
    assert found.status == "determinant"
    assert found.n_init == 1
    assert_allclose(found.overlap, 1 - 2 / 2**n, atol=1e-9)
    assert found.bound == 1 - 2 / 2**n
    assert "group='O'" in str(found)
    assert synthesise(target, Ansatz(n, widest.layers, "O")).status == "exact"


def test_narrow_gates_never_have_the_other_determinant():
    target = np.diag([1.0] * 7 + [-1])
    found = synthesise(target, brickwall(3, 8, group="O"), n_init=6)
    assert found.status == "determinant"
    assert_allclose(found.overlap, 0.75, atol=1e-6)


def test_too_few_layers_converge_short_of_the_target():
    target = circuit_matrix(random_circuit(brickwall(4, 6), seed=0))
    found = synthesise(target, 1, n_init=2)
    assert found.status == "converged"
    assert found.overlap < 0.9
    assert found.n_init == 2
    assert "more layers" in str(found)
    assert_allclose(np.vdot(target, found.circuit.to_dense()) / 16, found.overlap, atol=1e-12)


def test_the_same_seed_gives_the_same_gates():
    target = circuit_matrix(random_circuit(brickwall(4, 3), seed=0))
    a, b = (synthesise(target, 2, n_init=2, seed=5) for _ in range(2))
    for x, y in zip(a.circuit.gates, b.circuit.gates, strict=True):
        assert_array_equal(x, y)


def test_errors_name_the_value_and_the_remedy():
    target = circuit_matrix(random_circuit(brickwall(3, 2), seed=0))
    with pytest.raises(ValueError, match="not unitary: W W.H differs from 1 by 3; `disentangle`"):
        synthesise(2 * target, 2)
    with pytest.raises(ValueError, match=r"shape \(6, 6\); circuits act on"):
        synthesise(np.eye(6), 2)
    with pytest.raises(ValueError, match=r"shape \(1, 1\); circuits act on .* n of 1 or more"):
        synthesise(np.eye(1), 2)
    with pytest.raises(ValueError, match="circuit= has 4 wires, the operator 3"):
        synthesise(target, brickwall(4, 2))
    with pytest.raises(
        TypeError, match=r"circuit=1.5 is not a circuit; give an Ansatz, a Circuit, a depth"
    ):
        synthesise(target, 1.5)
    with pytest.raises(ValueError, match="n_init=0 must be a whole number, 1 or more"):
        synthesise(target, 1, n_init=0)
    with pytest.raises(ValueError, match="max_sweeps=True must be a whole number"):
        synthesise(target, 1, max_sweeps=True)
    with pytest.raises(ValueError, match="complex; use group='U'"):
        synthesise(1j * target, 2)
    assert synthesise(target + 0j, 2).circuit.is_complex is False
