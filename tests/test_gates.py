"""Gates: the fixed ones, the groups, and the polar factor as the best member of a group."""

import numpy as np
import pytest
import quimb.tensor as qtn
import torch
from numpy.testing import assert_allclose, assert_array_equal
from qiskit import QuantumCircuit, transpile
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.quantum_info import Operator

from mpodis.gates import (
    GROUPS,
    Gate,
    check_group,
    exponential,
    find_gate,
    gate_names,
    gate_parameters,
    named_gate,
    polar,
    polar_update,
    random_gate,
    register_gate,
    skew,
)
from reference import CNOT, TOL, random_matrix, random_member

DIMENSIONS = (2, 4, 8)


def gain(environment, gate):
    """Re Tr(E^H g)."""
    return float(np.sum(environment.conj() * gate).real)


def assert_member(gate, group, tol=1e-13):
    n = gate.shape[-1]
    assert_allclose(gate.conj().T @ gate, np.eye(n), atol=tol * n)
    assert np.iscomplexobj(gate) == (group == "U")
    if group == "SO":
        assert_allclose(np.linalg.det(gate), 1, atol=tol * n)


# --- fixed gates


def test_the_cnot_has_its_control_on_the_first_wire():
    # |control, target> -> |control, target + control>
    for control in (0, 1):
        for target in (0, 1):
            row = np.zeros(4)
            row[2 * control + target] = 1
            found = row @ named_gate("CNOT").matrix
            assert found.argmax() == 2 * control + (target + control) % 2
    assert_array_equal(named_gate("CNOT").matrix, CNOT)


SHIPPED = ("CNOT", "CZ", "SWAP", "iSWAP", "ECR")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_gates_are_those_of_qiskit_and_quimb(name):
    gate = named_gate(name)
    theirs = get_standard_gate_name_mapping()[gate.qiskit_name]
    # column action and the first qubit least significant there
    data = Operator(theirs).data.reshape(2, 2, 2, 2).transpose(1, 0, 3, 2).reshape(4, 4)
    assert_allclose(gate.matrix, data.T, atol=1e-15)
    if gate.quimb_name:
        circuit = qtn.Circuit(2)
        circuit.apply_gate(gate.quimb_name, 0, 1)
        (theirs,) = circuit.gates
        assert_allclose(gate.matrix, theirs.array.reshape(4, 4).T, atol=1e-15)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_numbers_of_cnots_are_what_qiskit_finds(name):
    circuit = QuantumCircuit(2)
    circuit.unitary(named_gate(name).matrix.T, [1, 0])
    found = transpile(circuit, basis_gates=["u", "cx"], optimization_level=1)
    assert found.count_ops().get("cx", 0) == named_gate(name).n_cnots


def test_a_permutation_says_where_each_state_goes():
    assert named_gate("CNOT").permutation.tolist() == [0, 1, 3, 2]
    assert named_gate("SWAP").permutation.tolist() == [0, 2, 1, 3]
    assert all(named_gate(name).permutation is None for name in ("CZ", "iSWAP", "ECR"))
    cycle = np.eye(4)[[1, 2, 3, 0]]
    assert (np.eye(4) @ cycle).argmax(axis=1).tolist() == Gate("cycle", cycle).permutation.tolist()


def test_names_are_found_in_upper_and_lower_case():
    assert find_gate("cnot") is find_gate("CNOT") is named_gate("CNOT")
    assert find_gate("CY") is None
    with pytest.raises(ValueError, match="gate 'cnot' is not known; use one of CNOT, CZ"):
        named_gate("cnot")
    assert gate_names()[:5] == SHIPPED


def test_registering_the_same_gate_again_is_allowed_and_another_one_is_not(monkeypatch):
    monkeypatch.setattr("mpodis.gates._REGISTRY", {"CZ": named_gate("CZ")})
    again = Gate("CZ", np.diag([1, 1, 1, -1]), n_cnots=1)
    assert named_gate("CZ") is not register_gate(again) is named_gate("CZ")
    for name, matrix in (("CZ", CNOT), ("cz", np.diag([1, 1, 1, -1]))):
        with pytest.raises(ValueError, match=f"a gate CZ is registered already; rename {name}"):
            register_gate(Gate(name, matrix))


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("2b", CNOT, "name='2b' cannot stand in a circuit spec"),
        ("all", CNOT, "name='all' cannot stand in a circuit spec"),
        ("A B", CNOT, "name='A B' cannot stand"),
        ("A", np.eye(3), r"the matrix of gate A has shape \(3, 3\)"),
        ("A", np.ones(4), r"the matrix of gate A has shape \(4,\)"),
        ("A", np.eye(1), r"the matrix of gate A has shape \(1, 1\)"),
        ("A", 2 * np.eye(2), "the matrix of gate A is not unitary .*off by 3.0e"),
        ("A", np.full((2, 2), np.nan), "the matrix of gate A is not unitary"),
    ],
)
def test_gates_that_cannot_be(name, matrix, message):
    with pytest.raises(ValueError, match=message):
        Gate(name, matrix)


def test_one_symbol_for_each_wire():
    with pytest.raises(ValueError, match="gate A acts on 2 wires, but symbols= has 1 entries"):
        Gate("A", CNOT, symbols=("control",))


def test_fixed_gates_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        named_gate("CNOT").matrix[0, 0] = 2


# --- groups


def test_an_unknown_group_names_the_known_ones():
    assert [check_group(group) for group in GROUPS] == ["SO", "O", "U"]
    with pytest.raises(ValueError, match="group='SU' is not known; use one of SO, O, U"):
        check_group("SU")


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("width", [1, 2, 3])
def test_parameters_are_the_dimension_of_the_manifold(group, width):
    # the rank of the tangent space at the identity, spanned by skew parts of a basis
    n = 2**width
    basis = list(np.eye(n * n).reshape(-1, n, n))
    if group == "U":
        basis += [1j * b for b in basis]
    tangent = np.array([skew(b).ravel() for b in basis])
    tangent = np.concatenate([tangent.real, tangent.imag], axis=1)
    assert gate_parameters(width, group) == np.linalg.matrix_rank(tangent)


def test_parameters_of_an_unknown_group():
    with pytest.raises(ValueError, match="group='X'"):
        gate_parameters(2, "X")


# --- polar factor


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("n", DIMENSIONS)
def test_polar_is_a_member_and_beats_every_other(group, n):
    environment = random_matrix((n, n), group == "U", n)
    best = polar(environment, group=group)
    assert_member(best, group)
    top = gain(environment, best)
    for seed in range(200):
        other = random_member(n, group, seed)
        near = best @ exponential(0.1 * skew(random_matrix((n, n), group == "U", seed)))
        assert max(gain(environment, other), gain(environment, near)) <= top


@pytest.mark.parametrize("group", ["O", "U"])
def test_polar_reaches_the_nuclear_norm(group):
    environment = random_matrix((8, 8), group == "U")
    nuclear = np.linalg.svd(environment, compute_uv=False).sum()
    assert_allclose(gain(environment, polar(environment, group=group)), nuclear, rtol=1e-13)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_negative_determinant_costs_twice_the_smallest_singular_value(sign):
    environment = random_matrix((4, 4), seed=5)
    environment[0] *= sign * np.sign(np.linalg.det(environment))
    assert np.sign(np.linalg.det(environment)) == sign
    values = np.linalg.svd(environment, compute_uv=False)
    best = polar(environment, group="SO")
    assert_allclose(np.linalg.det(best), 1, atol=1e-13)
    expected = values.sum() - (0 if sign > 0 else 2 * values[-1])
    assert_allclose(gain(environment, best), expected, rtol=1e-13)


@pytest.mark.parametrize("group", GROUPS)
def test_polar_of_a_member_is_itself(group):
    gate = random_member(4, group, 3)
    assert_allclose(polar(gate, group=group), gate, atol=1e-13)
    assert_allclose(polar(2.5 * gate, group=group), gate, atol=1e-13)


@pytest.mark.parametrize("group", GROUPS)
def test_polar_of_a_stack_is_the_stack_of_polars(group):
    stack = random_matrix((2, 3, 4, 4), group == "U")
    both = polar(stack, group=group)
    for index in np.ndindex(2, 3):
        assert_allclose(both[index], polar(stack[index], group=group), atol=1e-13)


# --- exponential


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize("n", DIMENSIONS)
def test_exponential_equals_its_power_series(complex_, n):
    generator = skew(random_matrix((n, n), complex_))
    series = term = np.eye(n)
    for k in range(1, 80):
        term = term @ generator / k
        series = series + term
    found = exponential(generator)
    assert_allclose(found, series, atol=1e-11)
    assert_member(found, "U" if complex_ else "SO")


@pytest.mark.parametrize("dtype", TOL)
def test_exponential_keeps_the_dtype(dtype):
    generator = skew(random_matrix((3, 4, 4), "complex" in dtype)).astype(dtype)
    gates = exponential(generator)
    assert gates.dtype == dtype
    for gate, single in zip(gates, generator, strict=True):
        assert_allclose(gate, exponential(single), atol=TOL[dtype])
        assert_allclose(gate.conj().T @ gate, np.eye(4), atol=TOL[dtype])


def test_exponential_of_nothing_is_the_identity():
    assert_allclose(exponential(np.zeros((4, 4))), np.eye(4), atol=1e-15)


def test_the_papers_lower_triangular_exponential_is_not_orthogonal():
    lower = np.tril(random_matrix((4, 4)), -1)
    series = np.eye(4) + lower + lower @ lower / 2 + lower @ lower @ lower / 6  # lower^4 = 0
    assert np.abs(series.T @ series - np.eye(4)).max() > 0.1
    assert_member(exponential(skew(lower)), "SO")


@pytest.mark.parametrize("complex_", [False, True])
def test_skew_projects_onto_skew_hermitian_matrices(complex_):
    a = random_matrix((2, 4, 4), complex_)
    k = skew(a)
    assert_allclose(k, -k.conj().transpose(0, 2, 1), atol=1e-15)
    assert_allclose(skew(k), k, atol=1e-15)
    rest = a - k
    assert_allclose(rest, rest.conj().transpose(0, 2, 1), atol=1e-15)


# --- random gates


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("scale", [None, 0.1])
@pytest.mark.parametrize("n", DIMENSIONS)
def test_random_gates_are_members(group, scale, n):
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert_member(random_gate(n, group=group, rng=rng, scale=scale), group)


def test_haar_gates_have_both_determinants_in_o_and_one_in_so():
    rng = np.random.default_rng(0)
    signs = [np.sign(np.linalg.det(random_gate(4, group="O", rng=rng))) for _ in range(50)]
    assert set(signs) == {-1, 1}


@pytest.mark.parametrize("group", GROUPS)
def test_haar_gates_have_no_preferred_direction(group):
    # E[g_ij] = 0 and E[|g_ij|^2] = 1/n, each to a few standard deviations
    rng = np.random.default_rng(1)
    gates = np.array([random_gate(4, group=group, rng=rng) for _ in range(2000)])
    assert_allclose(gates.mean(0), 0, atol=0.06)
    assert_allclose((np.abs(gates) ** 2).mean(0), 0.25, atol=0.03)


@pytest.mark.parametrize("group", GROUPS)
def test_gates_near_the_identity_scale(group):
    distance = {}
    for scale in (1e-2, 1e-3):
        gate = random_gate(4, group=group, rng=np.random.default_rng(2), scale=scale)
        distance[scale] = np.linalg.norm(gate - np.eye(4))
    assert 0 < distance[1e-2] < 0.1
    assert_allclose(distance[1e-2] / distance[1e-3], 10, rtol=1e-2)


def test_random_gates_check_their_group():
    with pytest.raises(ValueError, match="group='SU'"):
        random_gate(4, group="SU", rng=np.random.default_rng(0))


# --- other array libraries


@pytest.mark.parametrize("group", GROUPS)
def test_torch_gives_the_same_gates(group):
    stack = random_matrix((3, 4, 4), group == "U")
    for function in (lambda x: polar(x, group=group), skew, lambda x: exponential(skew(x))):
        found = function(torch.from_numpy(stack))
        assert isinstance(found, torch.Tensor)
        assert_allclose(found.numpy(), function(stack), atol=1e-12)


@pytest.mark.parametrize("group", GROUPS)
def test_over_relaxation_goes_beyond_the_polar_factor_but_never_down(group):
    rng = np.random.default_rng(3)
    beyond = 0
    for _ in range(20):
        kind = rng.normal(size=(2, 4, 4))
        environment = kind[0] + 1j * kind[1] if group == "U" else kind[0]
        gate = random_gate(4, group=group, rng=rng, scale=0.3) @ polar(environment, group=group)
        plain = polar_update(environment, gate, group=group)
        assert_allclose(plain, polar(environment, group=group), atol=1e-14)
        found = polar_update(environment, gate, group=group, relaxation=0.5)
        assert_member(found, group)
        assert gain(environment, found) >= gain(environment, gate) - 1e-12
        beyond += np.linalg.norm(found - gate) > 1.2 * np.linalg.norm(plain - gate)
    assert beyond > 10
