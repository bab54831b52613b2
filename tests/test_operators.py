"""Matrices, layers, `Compressed` and MPOs are the same operator to all functions that take one."""

import jax
import numpy as np
import pandas as pd
import pytest
import torch
from autoray import infer_backend
from numpy.testing import assert_allclose
from sklearn.neural_network import MLPClassifier

import mpodis
from mpodis.conventions import qubit_legs
from mpodis.nn import FactorizedLinear, HybridLinear, MonarchLinear, MPOLinear, linear_from_matrix
from mpodis.sites import mpo_legs
from reference import entropies, overlap, random_matrix

SHAPE = (12, 7)
PADDED = ((2, 2), (2, 2), (2, 2), (2, 1))
MATRIX = random_matrix(SHAPE)
QUICK = {"n_init": 1, "max_sweeps": 3}


def mpo_layer():
    found = mpodis.compress(MATRIX, legs=((3, 1), (4, 7)))
    return MPOLinear.from_mpo(found.mpo, shape=SHAPE, dtype=torch.float64)


FORMS = {
    "nested lists": MATRIX.tolist,
    "numpy": lambda: MATRIX,
    "torch": lambda: torch.nn.Parameter(torch.tensor(MATRIX)),
    "jax": lambda: jax.numpy.asarray(MATRIX),
    "Linear": lambda: linear_from_matrix(MATRIX, bias=np.ones(7), dtype=torch.float64),
    "Compressed": lambda: mpodis.compress(MATRIX),
    "MPO": lambda: mpodis.compress(MATRIX).mpo,
}
"""Of the matrix on qubit legs, in double precision but for jax."""
EXACT = {"jax": 1e-5}


def padded(matrix):
    rows, columns = (np.prod(dims) for dims in zip(*PADDED, strict=True))
    return np.pad(matrix, ((0, rows - matrix.shape[0]), (0, columns - matrix.shape[1])))


@pytest.mark.no_cover  # jax compiles every operation; the functions have traced tests
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_operator(form):
    operator, atol = FORMS[form](), EXACT.get(form, 1e-12)
    mpo = mpodis.as_mpo(operator)
    assert mpo_legs(mpo) == PADDED == qubit_legs(*SHAPE)
    assert_allclose(np.asarray(mpodis.mpo_to_dense(mpo)), padded(MATRIX), atol=10 * atol)
    assert_allclose(mpodis.log_norm(operator), np.log(np.linalg.norm(MATRIX)), atol=atol)
    assert_allclose(
        mpodis.entanglement(operator).entropies, entropies(padded(MATRIX), PADDED), atol=atol
    )
    assert_allclose(mpodis.overlap(operator, MATRIX), 1, atol=atol)
    values = np.linalg.svd(MATRIX, compute_uv=False)
    core = mpodis.fit_core(operator, max_bond=1)
    t = np.linalg.svd(np.asarray(mpodis.mpo_to_dense(core)), compute_uv=False)
    bound = values @ t[: len(values)] / (np.linalg.norm(values) * np.linalg.norm(t))
    assert_allclose(mpodis.von_neumann_bound(operator, core), bound, atol=atol)
    whole = None if form != "MPO" else SHAPE  # which knows no padding
    assert_allclose(
        mpodis.activation_loss_bound(operator, core, shape=whole),
        mpodis.activation_loss_bound(MATRIX, core),
        atol=atol,
    )
    cut = mpodis.truncate(operator, max_bond=2)
    assert max(cut.bonds) == 2
    assert_allclose(mpodis.overlap(operator, cut) ** 2 + cut.relative_error**2, 1, atol=10 * atol)
    assert mpodis.compress(operator, max_bond=2).bonds == cut.bonds


@pytest.mark.parametrize("form", FORMS)
def test_disentangling_keeps_the_shape_of_every_form(form):
    operator = FORMS[form]()
    run = mpodis.disentangle(operator, depth=2, **QUICK)
    shape = (16, 8) if form == "MPO" else SHAPE
    dense = run.factorization.to_dense()
    assert dense.shape == run.factorization.shape == shape
    whole = padded(MATRIX)[: shape[0], : shape[1]]
    error = np.linalg.norm(whole - dense) / np.linalg.norm(whole)
    assert_allclose(run.relative_error, error, atol=1e-5)
    f = overlap(padded(MATRIX), run.factorization.padded_to_dense())
    for found in (
        run.overlap,
        run.factorization.overlap(operator),
        mpodis.true_overlap(run.factorization, operator).value,
    ):
        assert_allclose(found, f, atol=1e-5)


def test_the_backend_of_an_array_stays():
    for form, backend in (("numpy", "numpy"), ("torch", "torch"), ("jax", "jax")):
        mpo = mpodis.as_mpo(FORMS[form]())
        assert {infer_backend(tensor.data) for tensor in mpo} == {backend}


def test_an_mpo_stays_as_it_is():
    compressed = mpodis.compress(MATRIX, legs=((3, 1), (4, 7)), max_bond=2)
    assert mpodis.as_mpo(compressed.mpo) is compressed.mpo
    assert mpodis.as_mpo(compressed) is compressed.mpo
    with pytest.raises(ValueError, match="align='left': an MPO keeps its legs; give legs="):
        mpodis.compress(compressed, align="left")
    again = mpodis.compress(compressed, legs=PADDED)  # other legs: through the matrix
    assert again.legs == PADDED
    assert_allclose(again.to_dense(), compressed.to_dense(), atol=1e-13)


@pytest.mark.parametrize(
    "make",
    [
        mpo_layer,
        lambda: HybridLinear(PADDED, 2, left="2*2b", right="2b", shape=SHAPE, seed=0),
        lambda: MonarchLinear(MATRIX, ((3, 2), (4, 4))),
        lambda: FactorizedLinear(mpodis.disentangle(MATRIX, depth=1, **QUICK).factorization),
    ],
)
def test_layers_of_this_package(make):
    layer = make()
    weight = layer.weight().detach().double().numpy()
    assert weight.shape == SHAPE
    found = mpodis.compress(layer)
    assert found.shape == SHAPE
    assert_allclose(found.to_dense(), weight, atol=1e-5)
    assert_allclose(mpodis.low_rank(layer, 7).matrix, weight, atol=1e-5)


def test_what_has_a_dense_matrix():
    run = mpodis.disentangle(MATRIX, depth=2, **QUICK)
    assert_allclose(mpodis.compress(pd.DataFrame(MATRIX)).to_dense(), MATRIX, atol=1e-13)
    expected = overlap(MATRIX, run.factorization.to_dense())
    assert_allclose(mpodis.overlap(MATRIX, run.factorization), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "hint"),
    [
        (torch.nn.ReLU, "ReLU is not read as an operator: give a matrix"),
        (lambda: torch.nn.Embedding(3, 3), "Embedding is not read as an operator"),
        (lambda: torch.nn.LayerNorm((4, 4)), "LayerNorm is not read as an operator"),
        (lambda: torch.nn.Conv2d(3, 4, 3), "Conv2d is not read as an operator"),
        (
            lambda: torch.nn.Sequential(torch.nn.Linear(3, 2)),
            r"Sequential .*; of a network give one layer, such as model.fc1 or model\[0\]",
        ),
        (
            lambda: MLPClassifier((3,), max_iter=1),
            "MLPClassifier .* or a Compressed$",
        ),
        (lambda: "w.npy", "str is not read as an operator"),
        (lambda: None, "NoneType is not read as an operator"),
    ],
)
def test_what_is_no_operator_is_refused_with_the_remedy(make, hint):
    with torch.random.fork_rng():
        operator = make()
    for function in (mpodis.as_mpo, mpodis.entanglement, mpodis.compress):
        with pytest.raises(TypeError, match=hint):
            function(operator)
    with pytest.raises(TypeError, match=hint):
        mpodis.disentangle(operator, depth=1)


def test_a_fitted_network_of_scikit_learn_is_told_apart_from_its_matrices():
    class Fitted:
        coefs_ = (MATRIX,)

    with pytest.raises(TypeError, match=r"of this network give a matrix, such as coefs_\[0\]"):
        mpodis.entanglement(Fitted())
    assert mpodis.entanglement(Fitted.coefs_[0]).average > 0


def test_a_layer_of_half_precision_becomes_single():
    layer = linear_from_matrix(MATRIX, dtype=torch.float32).to(torch.bfloat16)
    found = mpodis.compress(layer)
    assert found.to_dense().dtype == np.float32
    assert_allclose(found.to_dense(), layer.weight.detach().float().numpy().T, atol=1e-5)
