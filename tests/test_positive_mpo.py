"""MPO layers that are kept positive: what training may do to them, and what it leaves behind."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.data import Dataset
from mpodis.nn import (
    CompactTNN,
    MPOLinear,
    Recipe,
    keep_positive,
    remove_positivity,
    train_positive_tnn,
    train_tnn,
)
from mpodis.sites import mpo_to_dense

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")

RECIPE = Recipe(epochs=40, learning_rate=0.05, batch_size=16)
LEGS = ((2, 2),) * 3


def images(name="made up"):
    """Two classes: the left or the right half is bright."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=96)
    x = rng.uniform(0, 0.5, size=(96, 8))
    x[:, :4] += 0.5 * y[:, None]
    x[:, 4:] += 0.5 * (1 - y[:, None])
    return Dataset(name, x[:64], y[:64], x[64:], y[64:], (2, 4), "made up")


def entries(layer):
    return np.concatenate([core.detach().numpy().ravel() for core in layer.site_tensors])


def test_site_tensors_are_initially_their_absolute_values():
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        layer = MPOLinear(LEGS, 2, dtype=dtype, seed=1)
        before = entries(layer)
        assert keep_positive(layer) is layer
        assert_allclose(entries(layer), np.abs(before), rtol=tolerance)
        assert layer.site_tensors[0].dtype == dtype


def test_a_zero_becomes_a_number_that_can_be_trained():
    layer = MPOLinear(LEGS, 2, seed=1)
    with torch.no_grad():
        layer.site_tensors[1][0, 0, 0, 0] = 0.0
    keep_positive(layer)
    parameters = torch.cat([p.ravel() for p in layer.parameters()])
    assert torch.isfinite(parameters).all()
    assert 0 <= layer.site_tensors[1][0, 0, 0, 0] < 1e-30


def test_they_stay_positive_whatever_the_step():
    layer = keep_positive(MPOLinear(LEGS, 2, dtype=torch.float64, seed=2))
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = entries(layer)
    for _ in range(20):
        optimiser.zero_grad()
        layer(torch.ones(1, 8, dtype=torch.float64)).sum().backward()
        optimiser.step()
    # all outputs shall fall: every entry goes towards zero, and none beyond
    assert np.all(entries(layer) < before)
    assert np.all(entries(layer) > 0)


def test_remove_positivity_leaves_plain_parameters_of_the_same_values():
    layer = MPOLinear(LEGS, 2, seed=3)
    names = [name for name, _ in layer.named_parameters()]
    keep_positive(keep_positive(layer))
    weight, values = layer.weight().detach().numpy(), entries(layer)
    assert [name for name, _ in layer.named_parameters()] != names
    assert remove_positivity(layer) is layer
    assert [name for name, _ in layer.named_parameters()] == names
    assert_array_equal(entries(layer), values)
    assert_allclose(mpo_to_dense(layer.to_mpo()), weight, rtol=1e-5)
    remove_positivity(layer)
    assert_array_equal(entries(layer), values)


def test_training_keeps_them_positive_and_learns():
    model, record = train_positive_tnn(images(), seed=4, recipe=RECIPE)
    assert isinstance(model, CompactTNN)
    assert not model.training
    assert np.all(entries(model.mpo) >= 0)
    assert model.head.weight.min() < 0
    assert record.train_accuracy > 90
    assert (record.seed, record.epochs) == (4, RECIPE.epochs)
    # no pixel and no weight is negative: the ReLU changes nothing
    assert model.mpo(torch.as_tensor(images().x_test, dtype=torch.float32)).min() >= 0


def test_training_begins_where_the_free_network_does_and_repeats():
    data = images()
    still = Recipe(epochs=1, learning_rate=1e-12, batch_size=64)
    free, _ = train_tnn(data, seed=5, epochs=1, learning_rate=1e-12, batch_size=64)
    one, _ = train_positive_tnn(data, seed=5, recipe=still)
    assert_allclose(entries(one.mpo), np.abs(entries(free.mpo)), rtol=1e-5)
    assert_allclose(one.head.weight.detach(), free.head.weight.detach(), rtol=1e-5)
    two, three = (train_positive_tnn(data, seed=5, recipe=RECIPE)[0] for _ in range(2))
    assert_array_equal(entries(two.mpo), entries(three.mpo))


def test_the_recipe_is_that_of_the_data_set():
    with pytest.raises(ValueError, match="no recipe for the data set 'made up'; give recipe="):
        train_positive_tnn(images())
    model, record = train_positive_tnn(images("digits"), bond=3)
    assert (record.epochs, record.learning_rate, record.batch_size) == (30, 0.03, 64)
    assert model.mpo.bonds == (3, 3)
