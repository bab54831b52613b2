"""Cores <-> quimb: MPOs as users build them, against quimb's own dense matrices."""

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.mpo import canonical_form, truncate
from mpodis.sites import (
    bond_dimensions,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    site_tensors,
    tensors_to_dense,
)
from reference import (
    CASES,
    dense_from_cores,
    random_cores,
    random_matrix,
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cores_go_to_quimb_and_back(case):
    cores = random_cores(case.legs, 3, case.complex)
    mpo = mpo_from_tensors(cores)
    assert isinstance(mpo, qtn.MatrixProductOperator)
    assert mpo_legs(mpo) == case.legs
    for before, after in zip(cores, site_tensors(mpo), strict=True):
        assert_array_equal(after, before)
    assert bond_dimensions(cores) == (3,) * (len(cores) - 1)
    expected = dense_from_cores(cores)
    assert_allclose(mpo_to_dense(mpo), expected, atol=1e-12 * np.linalg.norm(expected))
    assert_allclose(mpo.to_dense(), expected, atol=1e-12 * np.linalg.norm(expected))
    cropped = mpo_to_dense(mpo, shape=case.shape)
    assert_allclose(cropped, expected[: case.shape[0], : case.shape[1]], atol=1e-9)


def test_the_row_is_the_upper_leg():
    mpo = mpo_from_tensors([np.array([[0.0, 1.0], [0.0, 0.0]]).reshape(1, 2, 2, 1)] * 2)
    row = np.eye(4)[0]
    assert_array_equal(row @ mpo_to_dense(mpo), np.eye(4)[3])
    ket = qtn.Tensor(row.reshape(2, 2), ("k0", "k1"))
    out = (ket & mpo).contract(output_inds=("b0", "b1")).data
    assert_array_equal(out.ravel(), np.eye(4)[3])


def from_tensors(*tensors, **names):
    """An MPO of tensors (data, indices), one a site."""
    names = {"upper_ind_id": "k{}", "lower_ind_id": "b{}", "site_tag_id": "I{}"} | names
    tag = names["site_tag_id"]
    network = qtn.TensorNetwork(
        [qtn.Tensor(data, inds, tags=tag.format(k)) for k, (data, inds) in enumerate(tensors)]
    )
    return network.view_as(qtn.MatrixProductOperator, L=len(tensors), cyclic=False, **names)


def permuted():
    mpo = qtn.MPO_rand(5, 3, seed=1)
    mpo.permute_arrays("rldu")
    return mpo


def scattered():
    """Every tensor with an order of its own."""
    mpo = qtn.MPO_rand(5, 3, seed=1, dtype=complex)
    for k, tensor in enumerate(mpo):
        tensor.transpose_(*np.roll(tensor.inds, k))
    return mpo


def scaled_by_exponent():
    mpo = qtn.MPO_rand(4, 3, seed=1)
    mpo.equalize_norms_(1.0)
    mpo.exponent += 2.0
    return mpo


def doubled_bond():
    a, b, c = (random_matrix(shape, seed=5) for shape in ((2, 3, 2, 4), (4, 2, 2, 3, 5), (5, 2, 2)))
    return from_tensors(
        (a, ("k0", "x", "b0", "y")), (b, ("y", "k1", "b1", "x", "z")), (c, ("z", "b2", "k2"))
    )


def missing_bonds():
    a, b, c = (random_matrix(shape, seed=6) for shape in ((2, 2), (2, 2, 3), (3, 2, 2)))
    return from_tensors((a, ("b0", "k0")), (b, ("k1", "b1", "x")), (c, ("x", "k2", "b2")))


def partial_sites():
    matrix = random_matrix((8, 8), seed=3)
    return qtn.MatrixProductOperator.from_dense(matrix, dims=2, sites=(1, 3, 5), L=6)


PAULIS = [np.array([[0.0, 1], [1, 0]]), np.diag([1.0, -1]), np.array([[1.0, 2], [3, 4]])]
QUIMB = {
    "random": lambda: qtn.MPO_rand(5, 4, seed=1),
    "random complex": lambda: qtn.MPO_rand(5, 4, seed=1, dtype=complex),
    "random Hermitian": lambda: qtn.MPO_rand_herm(4, 3, seed=1),
    "random cyclic": lambda: qtn.MPO_rand(4, 3, seed=1, cyclic=True),
    "random cyclic, 2 sites": lambda: qtn.MPO_rand(2, 3, seed=1, cyclic=True),
    "random cyclic, 3 sites": lambda: qtn.MPO_rand(3, 2, seed=1, cyclic=True, dtype=complex),
    "qutrits": lambda: qtn.MPO_rand(3, 4, phys_dim=3, seed=1),
    "Heisenberg": lambda: qtn.MPO_ham_heis(5),
    "Heisenberg cyclic": lambda: qtn.MPO_ham_heis(5, cyclic=True),
    "identity": lambda: qtn.MPO_identity(4),
    "product": lambda: qtn.MPO_product_operator(PAULIS),
    "product cyclic": lambda: qtn.MPO_product_operator(PAULIS, cyclic=True),
    "sum": lambda: qtn.MPO_rand(4, 3, seed=1) + qtn.MPO_ham_heis(4),
    "applied": lambda: qtn.MPO_rand(4, 3, seed=1).apply(qtn.MPO_rand(4, 2, seed=2)),
    "from dense": lambda: qtn.MatrixProductOperator.from_dense(random_matrix((8, 8)), dims=2),
    "dagger": lambda: qtn.MPO_rand(4, 3, seed=1, dtype=complex).H,
    "permuted": permuted,
    "scattered": scattered,
    "renamed": lambda: qtn.MPO_rand(
        4, 3, seed=2, upper_ind_id="in{}", lower_ind_id="out{}", site_tag_id="S{}"
    ),
    "exponent": scaled_by_exponent,
    "doubled bond": doubled_bond,
    "missing bonds": missing_bonds,
    "single site": lambda: qtn.MPO_rand(1, 3, seed=1),
    "some sites": partial_sites,
}


@pytest.mark.parametrize("name", QUIMB)
def test_quimb_mpos_as_users_build_them(name):
    mpo = QUIMB[name]()
    expected = mpo.to_dense()
    before = [tensor.data.copy() for tensor in mpo]
    cores = site_tensors(mpo)
    assert cores[0].shape[0] == cores[-1].shape[-1] == 1
    tol = 1e-12 * np.linalg.norm(expected)
    assert_allclose(mpo_to_dense(mpo), expected, atol=tol)
    assert_allclose(dense_from_cores(cores), expected, atol=tol)
    assert_allclose(mpo_from_tensors(cores).to_dense(), expected, atol=tol)
    assert mpo_legs(mpo) == tuple(core.shape[1:3] for core in cores)
    assert_allclose(truncate(mpo).to_dense(), expected, atol=100 * tol)
    assert_allclose(mpo_to_dense(canonical_form(mpo)), expected, atol=tol)
    for a, b in zip(before, mpo, strict=True):
        assert_array_equal(a, b.data)


def test_a_dense_matrix_is_not_an_mpo():
    with pytest.raises(TypeError, match="expected a quimb MatrixProductOperator, got ndarray"):
        site_tensors(np.eye(4))


def test_several_tensors_on_a_site():
    mpo = qtn.MPO_rand(3, 2, seed=1)
    mpo.add_tensor(qtn.Tensor(1.0, tags="I1"))
    with pytest.raises(ValueError, match="site 1 of the MPO holds several tensors; contract them"):
        site_tensors(mpo)


def test_a_bond_that_reaches_too_far():
    a, b, c, d = (random_matrix(shape) for shape in ((2, 2, 3), (2, 2), (3, 2, 2, 2), (2, 2, 2)))
    mpo = from_tensors(
        (a, ("k0", "b0", "far")),
        (b, ("k1", "b1")),
        (c, ("far", "k2", "b2", "x")),
        (d, ("x", "k3", "b3")),
    )
    with pytest.raises(ValueError, match=r"site 0 .*\['far'\] is neither its input 'k0', its outp"):
        site_tensors(mpo)


def test_a_dense_matrix_that_does_not_fit_in_memory_is_refused():
    identity = qtn.MPO_identity(15)
    with pytest.raises(ValueError, match="dense matrix of this MPO has 32768 x 32768 entries"):
        mpo_to_dense(identity)


def test_cores_to_dense_keeps_a_leg_of_one():
    cores = random_cores(((1, 2), (3, 1)), 2)
    assert_allclose(tensors_to_dense(cores), dense_from_cores(cores), atol=1e-13)
