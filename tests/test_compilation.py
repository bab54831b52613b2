"""Neighbouring circuits merged, cores absorbed, gates counted: against dense algebra."""

from functools import cache

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator

from mpodis import (
    Ansatz,
    Circuit,
    Factorization,
    Placement,
    brickwall,
    cnot_count,
    from_spec,
    mpo_from_tensors,
    random_circuit,
    site_tensors,
    tie_gates,
)
from mpodis.nn import HybridLinear
from mpodis.quantum import (
    absorb_core,
    compile_jointly,
    execute_layer,
    gate_cost,
    merge,
    merge_layers,
    qiskit_approximation,
)
from reference import circuit_matrix, random_cores, random_matrix, random_member

SQUARE = ((2, 2),) * 3


def layer(legs, *, bond=1, group="SO", seed=0, cores=None, layers=3, shape=None):
    """Random circuits around a random core, or around one that is given."""
    cores = random_cores(legs, bond, complex=group == "U", seed=seed) if cores is None else cores
    sides = []
    for side in (0, 1):
        n = sum(leg[side] == 2 for leg in legs)
        ansatz = brickwall(n, layers, min(n, 2), group=group) if n else Ansatz(0, (), group)
        sides.append(random_circuit(ansatz, seed=(seed, side)))
    rows, columns = (int(np.prod([leg[side] for leg in legs])) for side in (0, 1))
    return Factorization(sides[0], mpo_from_tensors(cores), sides[1], shape or (rows, columns))


def sites(values):
    return [np.asarray(value)[None, :, :, None] for value in values]


# ---------------------------------------------------------------------------------- merging


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (brickwall(4, 3), brickwall(4, 3).reversed()),
        (brickwall(5, 2, group="O"), brickwall(5, 3, parity=1)),
        (from_spec("2b + CNOT + 1b", 4), brickwall(4, 2, group="U")),
        (brickwall(3, 1, 3), brickwall(3, 2)),
        (brickwall(1, 2, 1), brickwall(1, 1, 1, group="O")),
    ],
)
def test_the_merged_circuit_is_the_product(first, second):
    a, b = random_circuit(first, seed=1), random_circuit(second, seed=2)
    merged = merge(a, b)
    assert_allclose(circuit_matrix(merged), circuit_matrix(a) @ circuit_matrix(b), atol=1e-12)
    assert merged.ansatz.group == max(first.group, second.group, key=("SO", "O", "U").index)
    assert len(merged.gates) <= len(a.gates) + len(b.gates)


def test_gates_that_meet_become_one():
    a = random_circuit(brickwall(6, 8), seed=1)
    b = random_circuit(brickwall(6, 8).reversed(), seed=2)
    assert cnot_count(a) + cnot_count(b) == 80
    assert cnot_count(merge(b, a)) == 74  # three outermost gates of each meet
    assert cnot_count(merge(a, b)) == 76  # two inner ones
    assert cnot_count(merge(a, a.adjoint())) == 0
    assert_allclose(circuit_matrix(merge(a, a.adjoint(), b)), circuit_matrix(b), atol=1e-11)


def test_ties_are_loosened_and_one_circuit_is_itself():
    a = random_circuit(tie_gates(brickwall(4, 2), by="layer"), seed=0)
    assert not merge(a, a).ansatz.ties
    assert_allclose(circuit_matrix(merge(a)), circuit_matrix(a), atol=1e-13)


def test_qiskit_circuits_run_in_the_order_given():
    first, second = QuantumCircuit(3, global_phase=0.2), QuantumCircuit(3)
    first.ry(0.3, 0)
    first.cx(0, 2)
    second.ry(0.7, 2)
    second.cz(1, 0)
    whole = Operator(first.compose(second)).data
    assert_allclose(circuit_matrix(merge(first, second)), whole.T, atol=1e-12)


def test_what_cannot_be_merged():
    with pytest.raises(ValueError, match="merge needs one or more"):
        merge()
    with pytest.raises(ValueError, match="have 3, 4 wires; only circuits on the same wires"):
        merge(random_circuit(brickwall(3, 1), seed=0), random_circuit(brickwall(4, 1), seed=0))


# ------------------------------------------------------------------------- absorbing a core


@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize(
    "legs",
    [
        SQUARE,
        ((2, 2), (2, 1), (2, 2)),
        ((1, 2), (2, 2), (2, 1), (2, 2)),
        ((2, 1), (2, 1)),
        ((2, 2), (1, 1), (2, 2)),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_an_absorbed_core_is_diagonal_and_the_operator_the_same(legs, group, seed):
    given = layer(legs, group=group, seed=seed)
    found = absorb_core(given)
    assert_allclose(found.to_dense(), given.to_dense(), atol=1e-12)
    for core in site_tensors(found.core):
        site = core[0, :, :, 0]
        assert np.count_nonzero(site - np.diag(np.diag(site)) if site.shape == (2, 2) else 0) == 0
        assert site.size == 1 or np.all(site.real >= 0)
        assert site.size == 1 or np.abs(site.imag).max() == 0
    assert cnot_count(found) <= cnot_count(given)
    assert found.left.ansatz.group == given.left.ansatz.group
    assert found.right.ansatz.group == given.right.ansatz.group


def test_absorbing_without_gates_beside_the_core_keeps_one_qubit_gates():
    rng = np.random.default_rng(0)
    nothing = Circuit(Ansatz(2, (), "SO"), ())
    core = mpo_from_tensors(
        sites([np.diag([1.0, -2.0]) @ random_member(2, "SO", 1), rng.normal(size=(2, 2))])
    )
    given = Factorization(nothing, core, nothing, (4, 4))
    found = absorb_core(given)
    assert_allclose(found.to_dense(), given.to_dense(), atol=1e-13)
    assert cnot_count(found) == 0
    dets = [np.linalg.det(gate) for c in (found.left, found.right) for gate in c.gates]
    groups = {found.left.ansatz.group, found.right.ansatz.group}
    assert ("O" in groups) == (min(dets) < 0)
    assert min(dets) < 0


def test_an_absorbed_layer_runs_as_before():
    given = layer(SQUARE, seed=4)
    x = random_matrix((5, 8), seed=1)
    assert_allclose(execute_layer(absorb_core(given), x), x @ given.to_dense(), atol=1e-9)


def test_an_entangled_core_cannot_be_absorbed():
    with pytest.raises(ValueError, match="bond dimensions 2 2, but only a product can be absorbed"):
        absorb_core(layer(SQUARE, bond=2))


# ------------------------------------------------------------------------------ several layers


def test_the_circuits_between_two_layers_become_one():
    a, b = layer(SQUARE, bond=2, seed=1), layer(SQUARE, bond=2, seed=2)
    merged = merge_layers(a, b)
    assert len(merged.circuits) == 3
    assert len(merged.cores) == 2
    assert_allclose(merged.to_dense(), a.to_dense() @ b.to_dense(), atol=1e-11)
    expected = circuit_matrix(a.right) @ circuit_matrix(b.left)
    assert_allclose(circuit_matrix(merged.circuits[1]), expected, atol=1e-12)
    x = random_matrix((4, 8), seed=3)
    assert_allclose(merged.apply(x), x @ a.to_dense() @ b.to_dense(), atol=1e-11)
    assert [row[0] for row in merged.table().rows][:4] == [
        "circuit 0",
        "core 0",
        "circuit 1",
        "core 1",
    ]


@pytest.mark.parametrize("group", ["SO", "O", "U"])
def test_an_orthogonal_core_vanishes(group):
    members = [random_member(2, "U" if group == "U" else "O", (7, k)) for k in range(3)]
    cores = sites([scale * m for scale, m in zip((0.5, 3.0, 2.0), members, strict=True)])
    given = layer(SQUARE, cores=cores, group=group)
    merged = merge_layers(given)
    assert not merged.cores
    assert len(merged.circuits) == 1
    assert merged.scale == pytest.approx(3.0)
    assert_allclose(merged.to_dense(), given.to_dense(), atol=1e-11)
    assert merged.circuits[0].ansatz.group == group
    assert cnot_count(merged.circuits[0]) < cnot_count(given)  # the innermost gates meet


def test_of_three_layers_the_middle_one_may_vanish():
    trivial = sites([np.eye(2), [[0, 1], [1, 0]], -2 * np.eye(2)])
    layers = [layer(SQUARE, bond=2, seed=1), layer(SQUARE, cores=trivial, seed=2)]
    layers.append(layer(((2, 2), (2, 1), (2, 2)), bond=1, seed=3))
    merged = merge_layers(*layers)
    assert len(merged.circuits) == 3
    assert len(merged.cores) == 2
    whole = layers[0].to_dense() @ layers[1].to_dense() @ layers[2].to_dense()
    assert_allclose(merged.to_dense(), whole, atol=1e-11)


def test_outer_padding_is_no_obstacle():
    a = layer(SQUARE, bond=2, seed=1, shape=(6, 8))
    b = layer(SQUARE, bond=2, seed=2, shape=(8, 5))
    merged = merge_layers(a, b)
    assert merged.shape == (6, 5)
    assert_allclose(merged.to_dense(), a.to_dense() @ b.to_dense(), atol=1e-11)
    with pytest.raises(ValueError, match=r"x has shape \(1, 8\), but the layers take"):
        merged.apply(np.ones((1, 8)))


def test_trained_layers_are_read():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        HybridLinear(SQUARE, 2, left="2b", right="2b", dtype=torch.float64, seed=1),
        HybridLinear(SQUARE, 1, left="2*2b", right="2b", dtype=torch.float64, seed=2),
    )
    x = random_matrix((3, 8), seed=0)
    with torch.no_grad():
        expected = model(torch.as_tensor(x)).numpy()
    assert_allclose(merge_layers(*model).apply(x), expected, atol=1e-10)


def test_what_is_classical_between_layers_is_named():
    plain, biased = layer(SQUARE), HybridLinear(SQUARE, 1, bias=True, seed=1)
    with pytest.raises(TypeError, match="layer 1 is a ReLU, which is classical and cannot"):
        merge_layers(plain, torch.nn.ReLU(), plain)
    with pytest.raises(ValueError, match="layer 0 has a bias, which is added classically"):
        merge_layers(biased, plain)
    assert len(merge_layers(plain, biased).cores) == 2
    with pytest.raises(ValueError, match="layer 0 has 4 outputs and layer 1 8 inputs"):
        merge_layers(layer(((2, 2), (2, 1), (2, 2))), plain)
    cropped = [layer(SQUARE, shape=shape) for shape in ((8, 6), (6, 8))]
    with pytest.raises(ValueError, match="6 outputs of layer 0 are fewer than the 8 of its wires"):
        merge_layers(*cropped)
    with pytest.raises(ValueError, match="merge_layers needs one or more"):
        merge_layers()
    with pytest.raises(ValueError, match="split by an activation"):
        merge_layers(HybridLinear(SQUARE, 1, left="2b | 2b", seed=0))


# ---------------------------------------------------------------------------- what is saved


@cache
def joint():
    ansatz = brickwall(4, 4)
    a = random_circuit(ansatz, seed=1, scale=0.1)
    b = random_circuit(ansatz.reversed(), seed=2, scale=0.1)
    return (b, a), compile_jointly(b, a, tol=1e-3, n_searches=1, rounds=1, trials=1)


@pytest.mark.no_cover  # long; smaller circuits below are traced
def test_the_joint_circuit_is_the_product_up_to_tol():
    (b, a), found = joint()
    product = circuit_matrix(b) @ circuit_matrix(a)
    assert_allclose(circuit_matrix(found.merged), product, atol=1e-12)
    value = np.vdot(product, circuit_matrix(found.circuit)) / 16
    assert_allclose(value, found.overlap, atol=1e-12)
    assert value >= 1 - 1e-3 - 1e-11


@pytest.mark.no_cover  # long; smaller circuits below are traced
def test_savings_are_those_of_the_transpiler():
    circuits, found = joint()
    costs = {name: cost.two_qubit for name, cost in found.costs.items()}
    each = [gate_cost(c, optimization_level=3, trials=1).two_qubit for c in circuits]
    assert costs["apart"] == sum(each) == 24
    assert costs["merged"] == cnot_count(found.merged) == 20
    assert costs["resynthesised"] <= found.resynthesis.cnots < costs["merged"]
    assert costs["resynthesised"] <= costs["resynthesised apart"] < costs["apart"]
    assert found.saved == 24 - costs["resynthesised"]
    assert found.to_dict()["costs"]["merged"]["two_qubit"] == 20


def test_wide_gates_and_qiskit_circuits_are_compiled_too():
    gate = random_member(8, "SO", 2)
    wide = Circuit(Ansatz(3, ((Placement((0, 1, 2)),),), "SO"), (gate,))
    device = QuantumCircuit(3)
    device.ry(0.4, 1)
    found = compile_jointly(wide, device, tol=1e-6, n_searches=1, rounds=1, trials=1)
    assert found.costs["resynthesised"].two_qubit <= 14 < found.costs["apart"].two_qubit
    expected = gate @ Operator(device).data.T.real
    assert_allclose(circuit_matrix(found.circuit), expected, atol=5e-3)


@pytest.mark.parametrize("group", ["SO", "U"])
def test_qiskit_approximates_within_tol(group):
    circuit = random_circuit(brickwall(4, 4, group=group), seed=1, scale=0.05)
    exact, near = (qiskit_approximation(circuit, tol=tol) for tol in (0.0, 1e-2))
    assert exact.degree == 1.0
    assert_allclose(exact.overlap, 1.0, atol=1e-9)
    assert exact.cost.two_qubit == cnot_count(circuit)
    assert near.overlap >= 1 - 1e-2
    assert near.cost.two_qubit < exact.cost.two_qubit
    with pytest.raises(ValueError, match="tol=1.5 must be a number from 0"):
        qiskit_approximation(circuit, tol=1.5)
