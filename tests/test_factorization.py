"""Q_L M' Q_R against dense matrices, as a network, and on disk."""

import json

import numpy as np
import pytest
import quimb.tensor as qtn
from matplotlib.patches import Rectangle
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.factorization import (
    Factorization,
    dense_overlap,
    dump_ansatz,
    load_ansatz,
    load_factorization,
    sandwich,
)
from mpodis.files import load_arrays, save_arrays
from mpodis.mpo import compress
from mpodis.sites import mpo_from_tensors, mpo_to_dense, site_tensors
from reference import (
    CASES,
    circuit_matrix,
    dense_from_cores,
    overlap,
    problem,
    random_cores,
    random_matrix,
)


def build(case, seed=0):
    """(factorization, its padded dense twin, the target as an MPO)."""
    target, left, cores, right = problem(case, seed=seed)
    made = Factorization(left, mpo_from_tensors(cores), right, case.shape)
    twin = circuit_matrix(left) @ dense_from_cores(cores) @ circuit_matrix(right)
    return made, twin, compress(target, legs=case.legs).mpo


def small(complex_=False):
    ansatz = brickwall(3, 2, group="U" if complex_ else "SO")
    circuits = [random_circuit(ansatz, seed=s) for s in (1, 2)]
    core = mpo_from_tensors(random_cores(((2, 2),) * 3, 2, complex_))
    return Factorization(circuits[0], core, circuits[1], (7, 8))


# --- dense


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_matrix_is_the_product(case):
    made, twin, _ = build(case)
    size = np.linalg.norm(twin)
    assert_allclose(made.padded_to_dense(), twin, atol=1e-12 * size)
    assert_allclose(made.to_dense(), twin[: case.shape[0], : case.shape[1]], atol=1e-12 * size)
    assert made.to_dense().shape == case.shape
    assert made.legs == case.legs
    cores = site_tensors(made.core)
    assert_allclose(made.core_to_dense(), dense_from_cores(cores), atol=1e-12 * size)
    # y = x @ W, as Eq. 7 has it: through the left circuit, the core, the right circuit
    x = random_matrix((3, twin.shape[0]), case.complex)
    y = made.right.apply(made.left.apply(x) @ made.core_to_dense())
    assert_allclose(y, x @ made.padded_to_dense(), atol=1e-11 * size)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_overlap_is_that_of_the_dense_matrices(case):
    made, twin, target = build(case, 1)
    dense = mpo_to_dense(target)
    assert_allclose(made.overlap(target), overlap(dense, twin), atol=1e-12)
    assert_allclose(dense_overlap(dense, twin), overlap(dense, twin), atol=1e-13)
    itself = compress(twin, legs=case.legs).mpo
    assert_allclose(made.overlap(itself), 1, atol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sandwich_leaves_the_middle_alone(case):
    made, twin, _ = build(case, 2)
    middle = made.core_to_dense()
    before = middle.copy()
    found = sandwich(made.left, middle, made.right)
    assert_allclose(found, twin, atol=1e-12 * np.linalg.norm(twin))
    assert_array_equal(middle, before)
    back = sandwich(made.left.adjoint(), found, made.right.adjoint())
    assert_allclose(back, middle, atol=1e-12 * np.linalg.norm(twin))


def test_a_target_of_another_size():
    with pytest.raises(ValueError, match=r"target spans \(4, 4\), the factorization \(8, 8\)"):
        small().overlap(compress(random_matrix((4, 4))).mpo)


@pytest.mark.parametrize("side", ["left", "right"])
def test_circuits_have_as_many_wires_as_their_side_has_legs(side):
    core = mpo_from_tensors(random_cores(((2, 2), (2, 2), (2, 1)), 2))
    circuits = [identity_circuit(brickwall(n, 1)) for n in (3, 2)]
    Factorization(circuits[0], core, circuits[1], (8, 4))
    circuits[side == "right"] = identity_circuit(brickwall(4, 1))
    n = {"left": 3, "right": 2}[side]
    with pytest.raises(ValueError, match=f"{side} circuit has 4 wires, but the core {n} {side} l"):
        Factorization(circuits[0], core, circuits[1], (8, 4))


def test_a_core_that_is_not_made_of_qubits():
    core = mpo_from_tensors(random_cores(((7, 2), (2, 2)), 2))
    circuit = identity_circuit(brickwall(2, 1))
    with pytest.raises(ValueError, match="the left legs .* hold a dimension 7; circuits act on q"):
        Factorization(circuit, core, circuit, (14, 4))


# --- network


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_contracts_to_the_padded_matrix(case):
    made, twin, _ = build(case, 3)
    network = made.tensor_network()
    n = len(case.legs)
    rows, columns = [f"k{i}" for i in range(n)], [f"b{i}" for i in range(n)]
    assert set(network.outer_inds()) == {*rows, *columns}
    assert_allclose(network.to_dense(rows, columns), twin, atol=1e-12 * np.linalg.norm(twin))
    for tag, part in (("LEFT", made.left.gates), ("CORE", case.legs), ("RIGHT", made.right.gates)):
        assert len(network.select(tag).tensors if part else ()) == len(part)


def test_a_gate_is_found_by_its_tags():
    made = small()
    network = made.tensor_network()
    tensor = network[("RIGHT", "GATE2")]
    assert {"LAYER1", "I0"} <= set(tensor.tags)
    assert_array_equal(tensor.data.ravel(), made.right.gates[2].ravel())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_network_gives_the_factorization_back(case):
    made, _, _ = build(case, 3)
    back = Factorization.from_tensor_network(made.tensor_network(), case.shape)
    assert back.shape == case.shape
    for side in ("left", "right"):
        ours, again = getattr(made, side), getattr(back, side)
        assert again.ansatz.layers == tuple(layer for layer in ours.ansatz.layers if layer)
        assert again.ansatz.group == (case.group if ours.gates else "SO")
        for a, b in zip(ours.gates, again.gates, strict=True):
            assert_array_equal(b, a)
    for a, b in zip(site_tensors(made.core), site_tensors(back.core), strict=True):
        assert_array_equal(b, a)


def test_data_that_quimb_has_changed_are_read():
    made = small()
    network = made.tensor_network()
    network[("LEFT", "GATE1")].modify(data=np.eye(2))
    core = network.select_tensors("CORE")
    core[0].transpose_(*reversed(core[0].inds))
    core[1].modify(data=core[1].data * 3)
    network.exponent = 2.0
    back = Factorization.from_tensor_network(network)
    rows, columns = ([f"{name}{i}" for i in range(3)] for name in "kb")
    assert_allclose(back.to_dense(), network.to_dense(rows, columns), atol=1e-10)
    assert back.shape == (8, 8)
    assert_array_equal(back.left.gates[1], np.eye(2))


def test_networks_that_are_no_factorization():
    made = small()
    read = Factorization.from_tensor_network
    with pytest.raises(ValueError, match="no tensor of the network is tagged CORE"):
        read(made.left.tensor_network())
    network = made.tensor_network()
    network[("CORE", "I1")].drop_tags("I1")
    with pytest.raises(ValueError, match="0 of 3 tensors tagged CORE are tagged I1"):
        read(network)
    with pytest.raises(ValueError, match="site 0 of the core has indices .*expected k0"):
        read(made.tensor_network().reindex({"cin0": "z"}))


def test_the_names_of_a_cores_indices_do_not_matter():
    plain = random_cores(((2, 1), (2, 2), (1, 2)), 2)
    core = mpo_from_tensors(plain)
    names = {"upper_ind_id": "row{}", "lower_ind_id": "column{}", "site_tag_id": "S{}"}
    arrays = [plain[0][0], *plain[1:-1], plain[-1][..., 0]]
    renamed = qtn.MatrixProductOperator(arrays, shape="ludr", **names)
    renamed.exponent = 1.0
    circuits = [random_circuit(brickwall(2, 2), seed=s) for s in (1, 2)]
    expected = 10 * Factorization(circuits[0], core, circuits[1], (4, 4)).padded_to_dense()
    made = Factorization(circuits[0], renamed, circuits[1], (4, 4))
    assert_allclose(made.padded_to_dense(), expected, atol=1e-12)
    network = made.tensor_network()
    found = network.to_dense(["k0", "k1", "k2"], ["b0", "b1", "b2"])
    assert_allclose(found, expected, atol=1e-12)
    assert renamed.upper_ind(0) == "row0"  # the core itself keeps its names


def test_idle_wires_in_the_network():
    ansatz = from_spec("3b", 4, fill=False)
    circuit = random_circuit(ansatz, seed=0)
    core = mpo_from_tensors(random_cores(((2, 2),) * 4, 2))
    made = Factorization(circuit, core, circuit, (16, 16))
    network = made.tensor_network()
    found = network.to_dense([f"k{i}" for i in range(4)], [f"b{i}" for i in range(4)])
    assert_allclose(found, made.padded_to_dense(), atol=1e-12 * np.linalg.norm(found))


# --- counts and text


def test_parameters_are_counted_apart():
    made = small()
    assert made.parameter_counts() == {"core": 32, "left gates": 14, "right gates": 14}


def test_it_prints_itself():
    text = str(small())
    for words in ("7 x 8", "8 x 8", "3 wires, 2 layers (2 x 1b, 2 x 2b), SO", "2 2", "32", "14"):
        assert words in text
    one = identity_circuit(brickwall(1, 1, 1))
    single = Factorization(one, compress(np.eye(2)).mpo, one, (2, 2))
    assert "none" in str(single)
    assert "<td>7 x 8</td>" in small()._repr_html_()


# --- files


@pytest.mark.parametrize("case", CASES, ids=str)
def test_save_and_load_are_bit_identical(tmp_path, case):
    made, _, _ = build(case)
    path = tmp_path / "layer.safetensors"
    made.save(path)
    back = load_factorization(path)
    assert back.shape == made.shape
    assert back.left.ansatz == made.left.ansatz
    assert back.right.ansatz == made.right.ansatz
    mine = [*made.left.gates, *site_tensors(made.core), *made.right.gates]
    theirs = [*back.left.gates, *site_tensors(back.core), *back.right.gates]
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        assert_array_equal(b, a)
    assert_array_equal(back.to_dense(), made.to_dense())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_more_than_ten_cores_keep_their_order(tmp_path):
    cores = random_cores(((2, 1),) * 12, 2)
    left = identity_circuit(brickwall(12, 1, 1))
    right = Circuit(Ansatz(0, ()), ())
    Factorization(left, mpo_from_tensors(cores), right, (4096, 1)).save(tmp_path / "a")
    back = site_tensors(load_factorization(tmp_path / "a").core)
    for a, b in zip(cores, back, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("spec", ["1b + CNOT + 2b", "3*CNOT"])
def test_an_ansatz_goes_through_text(spec):
    ansatz = from_spec(spec, 5, group="U")
    assert load_ansatz(dump_ansatz(ansatz)) == ansatz
    assert load_ansatz(json.dumps(json.loads(dump_ansatz(ansatz)))) == ansatz
    assert load_ansatz(dump_ansatz(Ansatz(0, ((),)))) == Ansatz(0, ((),))


def test_saving_replaces_the_old_file(tmp_path):
    small().save(tmp_path / "a")
    other = small(complex_=True)
    other.save(tmp_path / "a")
    assert_array_equal(load_factorization(tmp_path / "a").to_dense(), other.to_dense())


@pytest.mark.parametrize("keep", [0, 100, -8])
def test_a_truncated_file_names_itself(tmp_path, keep):
    small().save(tmp_path / "a")
    (tmp_path / "short").write_bytes((tmp_path / "a").read_bytes()[:keep])
    with pytest.raises(ValueError, match="short is not a whole safetensors file"):
        load_factorization(tmp_path / "short")


def test_a_file_of_something_else(tmp_path):
    save_arrays(tmp_path / "a", {"core.0": np.zeros((1, 2, 2, 1))}, metadata={"format": "other"})
    save_arrays(tmp_path / "b", {"w": np.zeros(3)})
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=f"{name} does not hold a factorization; it was not w"):
            load_factorization(tmp_path / name)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_factorization(tmp_path / "absent")


def test_the_file_says_what_it_is(tmp_path):
    small().save(tmp_path / "a")
    _, header = load_arrays(tmp_path / "a")
    assert header["format"].startswith("mpodis-factorization")
    assert json.loads(header["shape"]) == [7, 8]


# --- drawing


def test_draw_shows_the_gates_at_their_sites_and_the_bonds_of_the_core():
    legs = ((2, 2), (2, 1), (2, 2))  # the right circuit has no wire at the second site
    left = random_circuit(brickwall(3, 2), seed=0)
    right = random_circuit(Ansatz(2, ((Placement((0, 1)),),)), seed=1)
    tensors = random_cores(legs, 2, False)
    made = Factorization(left, mpo_from_tensors(tensors), right, (8, 4))
    ax = made.draw()
    gates = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert len(gates) == len(left.gates) + len(right.gates)
    assert len(ax.patches) - len(gates) == 3  # site tensors
    assert len(ax.lines) == 3 + 2 + 2 + 1  # wires, bonds, dots of the gate that skips a site
    assert gates[-1].get_bbox().y1 - gates[-1].get_bbox().y0 == pytest.approx(2.6)
    bare = Factorization(
        identity_circuit(Ansatz(3, ())),
        mpo_from_tensors(random_cores(legs, 1, False)),
        right,
        (8, 4),
    )
    assert [text.get_text() for text in bare.draw().texts] == ["$M$′", "$Q_R$"]
    assert len(bare.draw().lines) == 3 + 2 + 1
