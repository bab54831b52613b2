"""The compact network: what it is, and training that repeats bit by bit."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from mpodis.data import Dataset, load_data
from mpodis.nn import CompactTNN, accuracy, linear_from_matrix, predict, train_classifier, train_tnn
from reference import dense_from_cores

F64 = torch.float64

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")


def numbers(parameter):
    return parameter.detach().numpy()


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(digits):
    return train_tnn(digits, seed=0, epochs=4)


def stripes(n=60):
    """Two classes told apart by one pixel of a 2x2 image."""
    x = np.random.default_rng(0).random((n, 4))
    return Dataset(
        "stripes", x, (x[:, 0] > 0.5).astype(np.int64), x[:9], x[:9, 0] > 0.5, (2, 2), ""
    )


def test_compact_tnn_is_the_network_of_the_text():
    model = CompactTNN(seed=3).double()
    x = np.random.default_rng(0).random((5, 64))
    hidden = x @ dense_from_cores([numbers(core) for core in model.mpo.site_tensors])
    expected = np.maximum(hidden, 0) @ numbers(model.head.weight).T + numbers(model.head.bias)
    assert_allclose(numbers(model(torch.from_numpy(x))), expected, atol=1e-10)
    assert model.mpo.legs == ((2, 2),) * 6
    assert model.mpo.bonds == (2,) * 5
    assert model.mpo.bias is None
    assert sum(p.numel() for p in model.parameters()) == 80 + 650
    assert numbers(model.head.weight).std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.05)


def test_compact_tnn_with_batch_normalization():
    model = CompactTNN(inputs=16, bond=3, classes=4, batchnorm=True, seed=0)
    assert isinstance(model.norm, nn.BatchNorm1d)
    assert model(torch.ones(7, 16)).shape == (7, 4)


@pytest.mark.parametrize("inputs", [0, 1, 63, 784])
def test_compact_tnn_needs_a_power_of_two(inputs):
    with pytest.raises(ValueError, match=f"inputs={inputs} is not a power of two"):
        CompactTNN(inputs=inputs)


def test_training_learns_and_is_recorded(digits, trained):
    model, record = trained
    assert not model.training
    assert len(record.losses) == 4
    assert record.losses[-1] < 0.5 * record.losses[0]
    assert (record.epochs, record.learning_rate, record.batch_size) == (4, 0.03, 64)
    assert (record.seed, record.threads) == (0, torch.get_num_threads())
    assert record.note == digits.note
    assert record.seconds > 0
    assert record.train_accuracy == accuracy(model, digits.x_train, digits.y_train)
    assert accuracy(model, digits.x_test, digits.y_test) > 80


def test_training_repeats_bit_by_bit(digits, trained):
    model, record = trained
    again, same = train_tnn(digits, seed=0, epochs=4)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    assert same.losses == record.losses
    other, _ = train_tnn(digits, seed=1, epochs=1)
    assert not torch.equal(other.head.weight, model.head.weight)


def test_a_generator_is_a_seed(digits):
    drawn = int(np.random.default_rng(7).integers(2**63))
    by_number, _ = train_tnn(digits, seed=drawn, epochs=1)
    by_generator, record = train_tnn(digits, seed=np.random.default_rng(7), epochs=1)
    assert torch.equal(by_number.head.weight, by_generator.head.weight)
    assert record.seed is None


def test_the_recipe_reaches_its_accuracy(digits):
    held_out = digits.validation_split(seed=0)
    model, _ = train_tnn(held_out, seed=10)
    assert accuracy(model, held_out.x_test, held_out.y_test) > 93


def test_settings_without_a_recipe():
    with pytest.raises(
        ValueError, match="no recipe for the data set 'stripes'; give epochs, batch"
    ):
        train_tnn(stripes(), learning_rate=0.1)
    model, record = train_tnn(
        stripes(), epochs=30, learning_rate=0.1, batch_size=20, batchnorm=True, progbar=True
    )
    assert record.train_accuracy > 90
    assert model.mpo.legs == ((2, 2), (2, 2))


@pytest.mark.parametrize("batch_size", [1, 59, 1000])
def test_batches_are_about_equal(batch_size):
    sizes = []
    model = CompactTNN(inputs=4, classes=2, seed=0)
    model.mpo.register_forward_hook(
        lambda module, given, _: sizes.append(len(given[0])) if module.training else None
    )
    settings = {"epochs": 1, "learning_rate": 0.01, "batch_size": batch_size}
    train_classifier(model, stripes(), **settings)
    assert sum(sizes) == 60
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == math.ceil(60 / batch_size)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number, 1 or more"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
        ({"learning_rate": -1}, "learning_rate=-1 must be a positive number"),
        ({"learning_rate": math.nan}, "learning_rate=nan must be a positive number"),
        ({"learning_rate": 1e30}, "after epoch 1; lower learning_rate=1e[+]30"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    settings = {"epochs": 2, "learning_rate": 0.01, "batch_size": 20} | settings
    with pytest.raises(ValueError, match=message):
        train_classifier(CompactTNN(inputs=4, classes=2), stripes(), **settings)


def test_predict_and_accuracy(monkeypatch):
    monkeypatch.setattr("mpodis.nn.training._EVALUATION_BATCH", 2)
    model = linear_from_matrix(np.eye(3), dtype=F64)
    x = np.eye(3)[[0, 2, 1, 1, 0]]
    assert_array_equal(predict(model, x), [0, 2, 1, 1, 0])
    assert accuracy(model, x, np.array([0, 2, 1, 1, 2])) == 80
    assert predict(nn.ReLU(), x).dtype == np.int64
    with pytest.raises(ValueError, match="5 images need as many labels"):
        accuracy(model, x, np.zeros(4))
