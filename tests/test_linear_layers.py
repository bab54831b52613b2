"""Layers against dense numpy, and swapping them."""

import logging
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from mpodis import (
    Circuit,
    Factorization,
    brickwall,
    compress,
    mpo_from_tensors,
    mpo_to_dense,
    random_circuit,
)
from mpodis.conventions import qubit_legs, wires
from mpodis.nn import (
    CompactTNN,
    FactorizedLinear,
    MPOLinear,
    linear_from_matrix,
    mpo_linear,
    replace_layer,
)
from reference import dense_from_cores

F64 = torch.float64

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")


def random_tensors(legs, bond, rng, *, imaginary=0.0):
    bonds = [1, *[bond] * (len(legs) - 1), 1]
    shapes = [(a, *leg, b) for a, leg, b in zip(bonds[:-1], legs, bonds[1:], strict=True)]
    return [
        rng.normal(size=s) + (1j * imaginary * rng.normal(size=s) if imaginary else 0)
        for s in shapes
    ]


def numbers(parameter):
    return parameter.detach().numpy()


LEGS = [
    ((2, 2),) * 6,
    ((7, 4), (2, 2), (7, 4)),
    ((2, 1), (2, 2), (1, 2), (2, 1)),
    ((3, 5), (4, 2)),
    ((6, 5),),
]
every_legs = pytest.mark.parametrize("legs", LEGS, ids=str)


# --- MPOLinear


@every_legs
@pytest.mark.parametrize("bias", [False, True])
def test_mpo_linear_is_its_dense_matrix(legs, bias):
    layer = MPOLinear(legs, 3, bias=bias, dtype=F64, seed=1)
    matrix = dense_from_cores([numbers(core) for core in layer.site_tensors])
    assert matrix.shape == (layer.inputs, layer.outputs)
    assert_allclose(numbers(layer.weight()), matrix, rtol=1e-12, atol=1e-13)
    assert_allclose(mpo_to_dense(layer.to_mpo()), matrix, rtol=1e-12, atol=1e-13)
    x = np.random.default_rng(0).normal(size=(4, 3, layer.inputs))
    if bias:
        with torch.no_grad():
            layer.bias.copy_(torch.arange(layer.outputs))
    expected = x @ matrix + bias * np.arange(layer.outputs)
    assert_allclose(numbers(layer(torch.from_numpy(x))), expected, rtol=1e-11, atol=1e-12)


def test_mpo_linear_pads_and_crops():
    legs = ((2, 2),) * 4
    layer = MPOLinear(legs, 2, shape=(13, 10), bias=True, dtype=F64, seed=0)
    full = dense_from_cores([numbers(core) for core in layer.site_tensors])
    x = np.random.default_rng(0).normal(size=(5, 13))
    padded = np.pad(x, ((0, 0), (0, 3)))
    assert_allclose(numbers(layer(torch.from_numpy(x))), (padded @ full)[:, :10], atol=1e-12)
    assert layer.weight().shape == (13, 10)
    assert_allclose(mpo_to_dense(layer.to_mpo(), shape=(13, 10)), numbers(layer.weight()))
    assert layer.bias.shape == (10,)


@every_legs
def test_mpo_linear_round_trip(legs):
    rng = np.random.default_rng(2)
    tensors = random_tensors(legs, 3, rng)
    shape = (max(1, math.prod(i for i, _ in legs) - 1), math.prod(o for _, o in legs))
    bias = rng.normal(size=shape[1])
    layer = MPOLinear.from_mpo(mpo_from_tensors(tensors), shape=shape, bias=bias, dtype=F64)
    assert_allclose(
        numbers(layer.weight()), dense_from_cores(tensors)[: shape[0]], rtol=1e-12, atol=1e-12
    )
    assert_array_equal(numbers(layer.bias), bias)
    assert layer.bonds == (3,) * (len(legs) - 1)
    back = layer.to_mpo()
    assert_allclose(mpo_to_dense(back), dense_from_cores(tensors), rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        layer.site_tensors[0].zero_()
    assert_allclose(mpo_to_dense(back), dense_from_cores(tensors), rtol=1e-12)  # a copy, not a view


def test_weights_of_an_older_version_are_read():
    layer, other = (MPOLinear(((2, 2),) * 3, 2, bias=True, seed=seed) for seed in (0, 1))
    older = {name.replace("site_tensors", "cores"): t for name, t in layer.state_dict().items()}
    assert "cores.0" in older
    other.load_state_dict(older)
    assert torch.equal(other.weight(), layer.weight())
    nested = nn.Sequential(MPOLinear(((2, 2),) * 3, 2, bias=True, seed=2))
    nested.load_state_dict({f"0.{name}": tensor for name, tensor in older.items()})
    assert torch.equal(nested[0].weight(), layer.weight())


def test_mpo_linear_keeps_what_compress_found():
    matrix = np.random.default_rng(0).normal(size=(60, 10))
    found = compress(matrix)
    layer = MPOLinear.from_mpo(found.mpo, shape=found.shape)
    assert next(layer.parameters()).dtype == torch.float32
    assert_allclose(numbers(layer.weight()), matrix, atol=1e-5)


@pytest.mark.parametrize("bond", [1, 2, 5])
@every_legs
def test_initial_gain_is_one(legs, bond):
    shape = (math.prod(i for i, _ in legs) - 1, math.prod(o for _, o in legs))
    layer = MPOLinear(legs, bond, shape=shape, dtype=F64, seed=0)
    assert_allclose(np.linalg.norm(numbers(layer.weight())) ** 2, layer.outputs)
    sizes = [np.abs(numbers(core)).max() for core in layer.site_tensors]
    assert max(sizes) < 20 * min(sizes)


def test_initial_weights_follow_the_seed():
    def weights(seed):
        return numbers(MPOLinear(((2, 2),) * 3, 2, seed=seed).weight())

    assert_array_equal(weights(5), weights(5))
    rng = np.random.default_rng(5)
    assert_array_equal(weights(rng), weights(int(np.random.default_rng(5).integers(2**63))))
    assert not np.array_equal(weights(rng), weights(rng))  # a generator moves on
    assert not np.array_equal(weights(5), weights(6))
    assert not np.array_equal(weights(None), weights(None))


@pytest.mark.parametrize(
    ("legs", "bond", "warned"),
    [
        (((2, 2),) * 4, 99, False),  # as far as it goes
        (((2, 2),) * 4, (5, 16, 4), True),
        (((2, 1), (2, 1), (2, 2), (2, 2)), 4, True),  # legs of dimension 1 allow for 2
        (((2, 1), (2, 2), (2, 2), (2, 1)), 2, False),
    ],
)
def test_a_bond_that_cannot_be_reached_is_a_warning(legs, bond, warned, caplog):
    with caplog.at_level(logging.WARNING, logger="mpodis"):
        bonds = MPOLinear(legs, bond, seed=0).bonds
    assert bool(caplog.records) == warned
    if warned:
        assert f"clipped to {list(bonds)}" in caplog.text


@pytest.mark.parametrize("shape", [None, (50, 30)])
@pytest.mark.parametrize(
    "legs", [((2, 2),) * 6, ((2, 1), (4, 2), (2, 8), (4, 2)), ((64, 32),)], ids=str
)
def test_site_by_site_is_the_same(legs, shape, monkeypatch):
    layer = MPOLinear(legs, 3, shape=shape, bias=True, dtype=torch.float64, seed=0)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, layer.inputs, dtype=F64, generator=generator, requires_grad=True)
    found = []
    # by the dense weight, site by site, and so with a few rows at a time
    for far, rows in ((1e9, 128), (0, 128), (0, 4)):
        monkeypatch.setattr(mpo_linear, "_SMALL_PRODUCT_COST", far)
        monkeypatch.setattr(mpo_linear, "_ROWS", rows)
        y = layer(x)
        grads = torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        found.append([y, *grads])
    for a, b, c in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(a, c, rtol=1e-10, atol=1e-12)


def test_wide_layers_are_contracted_site_by_site():
    legs = ((2, 2),) * 12
    assert mpo_linear.site_by_site_is_cheaper(legs, (2,) * 11, 256)
    assert not mpo_linear.site_by_site_is_cheaper(legs, (32,) * 11, 256)
    assert not mpo_linear.site_by_site_is_cheaper(legs[:6], (2,) * 5, 256)


def test_excessive_bonds_are_clipped_and_logged(caplog):
    with caplog.at_level(logging.INFO, logger="mpodis"):
        assert MPOLinear(((2, 2),) * 4, 99, seed=0).bonds == (4, 16, 4)
    assert "clipped to [4, 16, 4]" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="mpodis"):
        assert MPOLinear(((2, 2), (2, 1), (7, 4)), [3, 2], seed=0).bonds == (3, 2)
    assert not caplog.text


def test_gradients_match_finite_differences():
    layer = MPOLinear(((2, 1), (3, 2), (1, 2)), 2, shape=(5, 4), bias=True, dtype=F64, seed=0)
    x = torch.rand(3, 5, dtype=F64, generator=torch.Generator().manual_seed(0))

    def loss(*parameters):
        names = [name for name, _ in layer.named_parameters()]
        values = dict(zip(names, parameters, strict=True))
        return (torch.func.functional_call(layer, values, (x,)) ** 2).sum()

    assert torch.autograd.gradcheck(loss, tuple(layer.parameters()))


def test_repr_of_layers():
    text = "inputs=4, outputs=4, legs=((2, 2), (2, 2)), bonds=(2,), bias=False"
    assert text in repr(MPOLinear(((2, 2), (2, 2)), 2, seed=0))
    assert "inputs=13, outputs=10, bias=True" in repr(
        FactorizedLinear(factorization((13, 10)), bias=np.zeros(10))
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: MPOLinear(((2, 2), (2, 2)), 0),
            ValueError,
            "bond=0 must be a whole number, 1 or more",
        ),
        (lambda: MPOLinear(((2, 2), (2, 2)), [2, 2]), ValueError, "or 1 of them for 2 sites"),
        (lambda: MPOLinear(((2, 2), (2, 0)), 1), ValueError, "legs="),
        (lambda: MPOLinear(((2, 2),) * 2, 1, shape=(5, 4)), ValueError, r"shape=\(5, 4\) does not"),
        (lambda: MPOLinear(((2, 2),) * 2, 1, shape=(0, 4)), ValueError, "does not fit into"),
        (lambda: MPOLinear(((2, 2),) * 2, 1, dtype=torch.int64), TypeError, "floating type"),
        (lambda: MPOLinear(((2, 2),) * 2, 1, dtype=torch.complex64), TypeError, "floating type"),
        (
            lambda: MPOLinear(((2, 2),) * 2, 1, seed=0)(torch.zeros(3, 5)),
            ValueError,
            r"x of shape \(3, 5\) must have 4 features",
        ),
        (
            lambda: MPOLinear.from_mpo(mpo_from_tensors([np.ones((1, 2, 2, 1)) * 1j])),
            ValueError,
            "complex128 does not fit a real layer",
        ),
        (
            lambda: MPOLinear.from_mpo(mpo_from_tensors([np.ones((1, 2, 2, 1))]), bias=np.ones(3)),
            ValueError,
            r"bias of shape \(3,\) does not fit 2 outputs",
        ),
        (lambda: MPOLinear.from_mpo(np.eye(4)), TypeError, "MatrixProductOperator"),
        (lambda: linear_from_matrix(np.ones(3)), ValueError, r"shape \(3,\) is not a weight"),
        (lambda: linear_from_matrix(np.eye(3) * 1j), ValueError, "complex128"),
        (lambda: linear_from_matrix(np.eye(3), bias=[1, 2]), ValueError, "does not fit 3 outputs"),
    ],
)
def test_wrong_input_says_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- FactorizedLinear


def factorization(shape, *, group="SO", imaginary=0.0, seed=0):
    rng = np.random.default_rng(seed)
    legs = qubit_legs(*shape)
    left, right = (
        random_circuit(brickwall(len(wires(legs, side)), 3, group=group), seed=rng)
        for side in ("left", "right")
    )
    core = mpo_from_tensors(random_tensors(legs, 2, rng, imaginary=imaginary))
    return Factorization(left, core, right, shape)


@pytest.mark.parametrize("shape", [(16, 16), (13, 10), (16, 4), (5, 30), (64, 10)])
def test_factorized_linear_is_the_product(shape):
    found = factorization(shape)
    bias = np.arange(shape[1], dtype=float)
    layer = FactorizedLinear(found, bias=bias, dtype=F64)
    assert_allclose(layer.weight().numpy(), found.to_dense(), atol=1e-10)
    x = np.random.default_rng(1).normal(size=(7, shape[0]))
    assert_allclose(layer(torch.from_numpy(x)).numpy(), x @ found.to_dense() + bias, atol=1e-9)
    without = FactorizedLinear(found, dtype=F64)(torch.from_numpy(x)).numpy()
    assert_allclose(without + bias, layer(torch.from_numpy(x)).numpy(), atol=1e-12)
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"left", "core", "right", "bias"}
    with pytest.raises(ValueError, match="must have"):
        layer(torch.zeros(2, shape[0] + 1))
    with pytest.raises(ValueError, match="does not fit"):
        FactorizedLinear(found, bias=np.zeros(shape[1] + 1))


def real_with_complex_parts(shape):
    """Q_L e^{i a} on the left and its conjugate phase on the right: complex parts, real matrix."""
    found = factorization(shape)

    def phased(circuit, phase):
        gates = [gate.astype(complex) for gate in circuit.gates]
        gates[0] = gates[0] * np.exp(1j * phase)
        return Circuit(brickwall(circuit.n, 3, group="U"), tuple(gates))

    return Factorization(phased(found.left, 0.7), found.core, phased(found.right, -0.7), shape)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_complex_factorization_of_a_real_matrix(dtype):
    found = real_with_complex_parts((13, 10))
    assert found.left.is_complex
    layer = FactorizedLinear(found, dtype=dtype)
    atol = 1e-3 if dtype is torch.float32 else 1e-10
    assert_allclose(layer.weight().numpy(), found.to_dense().real, atol=atol)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 13))).to(dtype)
    assert_allclose(layer(x).numpy(), x.numpy() @ found.to_dense().real, atol=10 * atol)
    assert not layer.to(torch.float32).weight().is_complex()  # casting loses no imaginary part


def test_complex_factorization_is_refused():
    with pytest.raises(ValueError, match=r"not real \(imaginary part .*group='SO'"):
        FactorizedLinear(factorization((16, 16), group="U", imaginary=1.0))


# --- linear_from_matrix, replace_layer


@pytest.mark.parametrize("as_tensor", [False, True])
def test_linear_from_matrix(as_tensor):
    rng = np.random.default_rng(0)
    matrix, bias, x = rng.normal(size=(5, 3)), rng.normal(size=3), rng.normal(size=(4, 5))
    given = (torch.tensor(matrix, requires_grad=True), bias) if as_tensor else (matrix, bias)
    layer = linear_from_matrix(given[0], bias=given[1], dtype=F64)
    assert_allclose(numbers(layer(torch.from_numpy(x))), x @ matrix + bias)
    assert_array_equal(numbers(layer.weight), matrix.T)
    assert linear_from_matrix(matrix).bias is None
    assert linear_from_matrix(matrix).weight.dtype == torch.float32


def test_replace_layer_copies_the_rest():
    model = nn.Sequential(CompactTNN(inputs=4, seed=0), nn.ReLU())
    new = linear_from_matrix(np.eye(4))
    changed = replace_layer(model, "0.mpo", new)
    assert changed[0].mpo is new
    assert isinstance(model[0].mpo, MPOLinear)
    with torch.no_grad():
        changed[0].head.weight.zero_()
    assert model[0].head.weight.abs().max() > 0
    assert replace_layer(model, "1", nn.Tanh())(torch.zeros(2, 4)).shape == (2, 10)


@pytest.mark.parametrize("name", ["fc", "", "mpo.", "mpo.site_tensors.0"])
def test_replace_layer_lists_the_names(name):
    message = "CompactTNN has no layer .*; it has mpo, mpo.site_tensors, norm, head"
    with pytest.raises(ValueError, match=message):
        replace_layer(CompactTNN(seed=0), name, nn.ReLU())
    with pytest.raises(ValueError, match="ReLU has no layer 'a'; it has none"):
        replace_layer(nn.ReLU(), "a", nn.ReLU())
