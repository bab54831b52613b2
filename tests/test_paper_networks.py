"""The networks of the paper: parameters as published, circuits that can be read, and pixels."""

import functools

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from mpodis.circuit.spec import segments_from_spec
from mpodis.nn import HybridLinear
from mpodis.nn.paper_networks import ARCHITECTURES, CIFAR10, DIGITS, MNIST, MNIST_SHIFT

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")

ROWS = [(name, row) for name, one in ARCHITECTURES.items() for row in one.rows]
SHAPES = {"digits": (64, 10), "mnist": (784, 10), "mnist-shift": (784, 10), "cifar10": (3072, 10)}


@functools.cache
def network(name, row):
    return ARCHITECTURES[name].network(row, seed=0)


def counts(name, row):
    return network(name, row).counts()


# --- parameters


def test_mnist_has_the_parameters_of_table_3():
    assert list(MNIST.rows) == list(MNIST.paper)
    found = {row: counts("mnist", row)["all"] for row in MNIST.rows}
    assert found == {row: published for row, (published, _) in MNIST.paper.items()}
    assert sorted(found.values()) == [854, 854, 876, 930, 963, 1008, 1029]


def test_batch_normalization_has_most_of_them():
    found = counts("mnist", "product")
    assert (found["MPO"], found["BatchNorm"], found["dense"], found["all"]) == (118, 656, 80, 854)
    assert counts("mnist-shift", "product")["BatchNorm"] == 336


@pytest.mark.parametrize("row", [row for row in MNIST_SHIFT.rows if row != "product"])
def test_rows_without_scale_stay_within_the_published_number(row):
    if row.startswith("MPO "):
        published = int(row.removeprefix("MPO "))
        assert counts("mnist-shift", row)["gates"] == 0
    else:
        published = MNIST.paper[row][0]
    assert 0.98 * published <= counts("mnist-shift", row)["all"] <= published


def test_circuits_of_cifar10_cost_little_beside_its_cores():
    base, reduced, equal = (
        counts("cifar10", row)["all"] for row in ("base", "reduced", "equal parameters")
    )
    assert reduced < equal < base
    for row, (_, circuits) in CIFAR10.rows.items():
        if circuits:
            assert reduced <= counts("cifar10", row)["all"] <= equal


# --- layers and circuits


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_the_layers_of_every_row_have_the_circuits_of_its_specs(name, row):
    architecture = ARCHITECTURES[name]
    specs = architecture.layer_specs(row)
    model = network(name, row)
    assert model.specs == specs
    assert (specs[0].shape[0], specs[-1].shape[1]) == SHAPES[name]
    for spec, layer in zip(specs, model.layers, strict=True):
        for side in ("left", "right"):
            text = getattr(spec, side)
            if not text:
                continue
            qubits = sum(leg[side == "right"] == 2 for leg in spec.legs)
            wanted = segments_from_spec(text, qubits, parity=architecture.parity)
            assert isinstance(layer, HybridLinear)
            assert [circuit.ansatz for circuit in layer.circuits(side)] == wanted


def test_a_network_classifies_a_batch():
    x = torch.rand(7, 64, generator=torch.Generator().manual_seed(0))
    for row in DIGITS.rows:
        assert network("digits", row)(x).shape == (7, 10)


def test_options_of_the_network_win():
    model = DIGITS.network("2b", norm="shift", parity=0, init_scale=1e-3, seed=0)
    assert model.counts()["BatchNorm"] == 72
    (circuit,) = model.layers[1].left
    assert circuit.ansatz.layers[0][0].wires == (0, 1)
    assert network("digits", "2b").layers[1].left[0].ansatz.layers[0][0].wires == (1, 2)


def test_a_row_that_is_not_known():
    with pytest.raises(ValueError, match="row '3b' is not known; use one of base, product, 1b, 2b"):
        DIGITS.network("3b")


# --- the order of the pixels


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (5, 3), (6, 10, 2), (8, 8, 3), (32, 32, 3)])
@pytest.mark.parametrize("architecture", [MNIST, CIFAR10])
def test_the_order_of_the_pixels_is_a_permutation(architecture, shape):
    order = architecture.pixels(shape)
    assert_array_equal(np.sort(order), np.arange(np.prod(shape)))
    if not architecture.quadtree:
        assert_array_equal(order, np.sort(order))


def test_quarters_of_quarters_by_hand():
    order = [*(0, 1, 4, 5), *(2, 3, 6, 7), *(8, 9, 12, 13), *(10, 11, 14, 15)]
    assert_array_equal(CIFAR10.pixels((4, 4)), order)
    # 3 x 3 pixels of every quarter are read row by row
    assert_array_equal(CIFAR10.pixels((6, 6))[:9], [0, 1, 2, 6, 7, 8, 12, 13, 14])


@pytest.mark.parametrize("shape", [(8, 8, 3), (12, 8), (32, 32, 3)])
def test_every_quarter_is_ordered_as_an_image_of_its_size(shape):
    height, width, *colours = shape
    half = (height // 2, width // 2, *colours)
    features = np.arange(np.prod(shape)).reshape(shape)
    quarters = [
        features[top : top + half[0], left : left + half[1]].ravel()[CIFAR10.pixels(half)]
        for top in (0, half[0])
        for left in (0, half[1])
    ]
    assert_array_equal(CIFAR10.pixels(shape), np.concatenate(quarters))


def test_the_first_block_of_an_image_in_colour():
    image = np.arange(8 * 8 * 3).reshape(8, 8, 3)
    blocks = image.ravel()[CIFAR10.pixels((8, 8, 3))].reshape(4, 48)
    for block, (top, left) in zip(blocks, [(0, 0), (0, 4), (4, 0), (4, 4)], strict=True):
        assert set(block) == set(image[top : top + 4, left : left + 4].ravel())
    assert_array_equal(blocks[0, :6], image[0, :2].ravel())  # pixel by pixel, colours last
