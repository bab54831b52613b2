"""Circuits that prepare vectors: what comes out, exactly or with a fidelity that only grows."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from qiskit.quantum_info import Statevector

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.encodings import brickwall_encodings, layered_encoding, mps_encoding
from mpodis.quantum import AmplitudeTree, to_qiskit
from mpodis.quantum.state_preparation import prepare_from_zero

KINDS = pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])


def vector(n, complex_=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=2**n)
    return x + 1j * rng.normal(size=2**n) if complex_ else x


def product_state(n, complex_):
    x = np.ones(1)
    for k in range(n):
        x = np.kron(x, vector(1, complex_, seed=k))
    return x


def best_fidelity(x, cut):
    """Of all states with one term across a cut."""
    values = np.linalg.svd(x.reshape(2**cut, -1), compute_uv=False)
    return values[0] ** 2 / (values**2).sum()


@KINDS
@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_enough_bond_prepares_anything(n, complex_):
    x = vector(n, complex_)
    found = mps_encoding(x, 2**n)
    assert_allclose(found.fidelity, 1)
    assert_allclose(found.prepared, x / np.linalg.norm(x), atol=1e-13)
    circuit = found.circuit
    assert_allclose(circuit.to_dense() @ circuit.to_dense().conj().T, np.eye(2**n), atol=1e-13)
    if not complex_:
        assert_allclose([np.linalg.det(gate) for gate in circuit.gates], 1)


@KINDS
def test_a_product_state_takes_bond_one(complex_):
    found = mps_encoding(product_state(4, complex_), 1)
    assert_allclose(found.fidelity, 1)
    assert {place.width for place in found.circuit.ansatz.placements} == {1}
    assert found.cnots == 0


@KINDS
@pytest.mark.parametrize("bond", [1, 2])
def test_the_fidelity_is_that_of_the_truncated_state(bond, complex_):
    x = vector(5, complex_)
    found = mps_encoding(x, bond)
    assert found.fidelity <= 1 + 1e-12
    if bond == 1:
        assert found.fidelity <= min(best_fidelity(x, cut) for cut in range(1, 5)) + 1e-12
    larger = mps_encoding(x, 2 * bond)
    assert larger.fidelity > found.fidelity
    unit = x / np.linalg.norm(x)
    assert_allclose(abs(np.vdot(unit, found.prepared)) ** 2, found.fidelity)


@KINDS
def test_the_device_prepares_the_same(complex_):
    found = mps_encoding(vector(4, complex_), 4)
    prepared = Statevector(to_qiskit(found.circuit)).data
    assert_allclose(prepared, found.prepared, atol=1e-12)


@KINDS
def test_layers_add_up_and_sweeps_only_help(complex_):
    x = vector(4, complex_)
    layered = [layered_encoding(x, layers) for layers in (1, 2, 4)]
    assert_allclose(layered[0].fidelity, mps_encoding(x, 2).fidelity)
    fidelities = [one.fidelity for one in layered]
    assert fidelities == sorted(fidelities)
    assert [len(one.circuit.gates) for one in layered] == [3, 6, 12]
    refined = layered_encoding(x, 2, max_sweeps=5)
    assert refined.fidelity > layered[1].fidelity
    assert refined.circuit.ansatz == layered[1].circuit.ansatz
    unit = x / np.linalg.norm(x)
    assert_allclose(abs(np.vdot(unit, refined.prepared)) ** 2, refined.fidelity)


def test_real_layers_cost_two_cnots_a_gate():
    found = layered_encoding(vector(5), 2)
    assert found.cnots == 2 * 4 * 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mps_encoding(np.ones(6)), "does not have 2\\^n amplitudes"),
        (lambda: mps_encoding(np.zeros(8)), "norm of the vector is 0"),
        (lambda: mps_encoding(np.full(8, np.nan)), "norm of the vector is nan"),
        (lambda: mps_encoding(np.ones(8), 3), "max_bond=3 is not a power of two"),
        (lambda: layered_encoding(np.ones(8), 0), "layers=0"),
        (lambda: layered_encoding(np.ones(2), 1), "mps_encoding"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_tree_prepares_every_real_vector_with_its_signs(n):
    tree = AmplitudeTree(n)
    states = np.stack(
        [vector(n, seed=seed) for seed in range(4)] + [np.eye(2**n)[-1], -np.eye(2**n)[0]]
    )
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    for state, angles in zip(states, tree.angles(states), strict=True):
        prepared = Statevector(tree.circuit.assign_parameters(angles)).data
        assert_allclose(prepared, state, atol=1e-12)
    assert_allclose(Statevector(tree.bound(states[0])).data, states[0], atol=1e-12)
    assert tree.circuit.count_ops().get("cx", 0) == 2**n - 2
    assert tree.circuit.num_parameters == 2**n - 1


def test_the_tree_says_what_it_takes():
    with pytest.raises(ValueError, match="must be real"):
        AmplitudeTree(2).angles(np.ones((1, 4), complex))
    with pytest.raises(ValueError, match=r"\(samples, 4\)"):
        AmplitudeTree(2).angles(np.ones((1, 8)))
    with pytest.raises(ValueError, match="n=0"):
        AmplitudeTree(0)


@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize(("n", "layers"), [(2, 1), (3, 4), (4, 6), (5, 9)])
def test_bricks_prepare_all_vectors_at_once(n, layers, parity):
    x = np.stack([vector(n, seed=k) for k in range(4)])
    found = brickwall_encodings(x, layers + parity, parity=parity, max_sweeps=2000, tol=1e-12)
    assert len(found) == 4
    for k, encoding in enumerate(found):
        unit = x[k] / np.linalg.norm(x[k])
        assert_allclose((unit @ encoding.prepared) ** 2, encoding.fidelity)
        assert unit @ encoding.prepared > 0  # the sign, too
        assert encoding.fidelity > 1 - 1e-4
        assert_allclose([np.linalg.det(gate) for gate in encoding.circuit.gates], 1)


def test_fidelities_of_bricks_never_fall_and_grow_with_layers():
    x = np.stack([vector(5, seed=k) for k in range(3)])
    before = np.zeros(3)
    for sweeps in (1, 2, 5, 20):
        found = brickwall_encodings(x, 4, max_sweeps=sweeps, tol=0)
        assert (found.fidelities >= before - 1e-12).all()
        before = found.fidelities
    deeper = brickwall_encodings(x, 8, max_sweeps=20, tol=0)
    assert (deeper.fidelities > before).all()
    again = brickwall_encodings(x, 8, max_sweeps=20, tol=0)
    assert_allclose(again.fidelities, deeper.fidelities, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 6)), 2), r"shape \(6,\) does not have 2\^n"),
        ((np.ones(8), 2), r"shape \(8,\)"),
        ((np.ones((1, 8)) + 0j, 2), "complex128"),
        ((np.zeros((1, 8)), 2), "norm of the vector is 0"),
        ((np.ones((1, 8)), 0), "layers=0"),
    ],
)
def test_bricks_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        brickwall_encodings(*arguments)
    with pytest.raises(ValueError, match="parity=2"):
        brickwall_encodings(np.ones((1, 8)), 2, parity=2)


@pytest.mark.parametrize("group", ["SO", "O", "U"])
def test_gates_on_zeros_take_one_cnot(group):
    circuit = random_circuit(brickwall(5, 3, group=group), seed=1)
    short, whole = prepare_from_zero(circuit), to_qiskit(circuit)
    assert_allclose(Statevector(short).data, Statevector(whole).data, atol=1e-12)
    assert short.count_ops()["cx"] == 2


def test_fixed_gates_and_one_qubit_gates_are_prepared_too():
    circuit = random_circuit(from_spec("1b + CNOT + 2b", 4), seed=2)
    assert_allclose(
        Statevector(prepare_from_zero(circuit)).data,
        Statevector(to_qiskit(circuit)).data,
        atol=1e-12,
    )
