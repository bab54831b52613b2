"""Dense networks and their training."""

import pytest
import torch
from torch import nn

from mpodis.data import load_data
from mpodis.nn import dense_network, train_dense


def test_layers_and_names():
    model = dense_network((6, 5, 4, 3), seed=0)
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    assert {name: (m.in_features, m.out_features) for name, m in linear.items()} == {
        "0": (6, 5),
        "2": (5, 4),
        "4": (4, 3),
    }
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    by_hand = x
    for name in ("0", "2", "4"):
        by_hand = by_hand @ linear[name].weight.T + linear[name].bias
        by_hand = torch.relu(by_hand) if name != "4" else by_hand
    torch.testing.assert_close(model(x), by_hand)


def test_weights_are_spread_as_torch_does_it_and_leave_its_generator_alone():
    state = torch.random.get_rng_state()
    weight = dense_network((400, 100), seed=0)[0].weight
    assert torch.equal(torch.random.get_rng_state(), state)
    assert weight.abs().max() <= 0.05
    torch.testing.assert_close(weight.std().item(), 0.05 / 3**0.5, rtol=0.01, atol=0)
    again, other = (dense_network((400, 100), seed=seed)[0].weight for seed in (0, 1))
    assert torch.equal(weight, again)
    assert not torch.equal(weight, other)


def test_training_follows_the_recipe_and_repeats():
    data = load_data("digits")
    model, record = train_dense(data, hidden=(16,), seed=3, epochs=1)
    assert (record.epochs, record.learning_rate, record.batch_size) == (1, 0.03, 64)
    assert record.seed == 3
    assert record.train_accuracy > 60
    assert not model.training
    again, _ = train_dense(data, hidden=(16,), seed=3, epochs=1)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("sizes", [(5,), (4, 0, 2)])
def test_sizes_that_make_no_network(sizes):
    with pytest.raises(ValueError, match=r"must name features and classes"):
        dense_network(sizes)


def test_data_without_a_recipe():
    from dataclasses import replace

    data = replace(load_data("digits"), name="letters")
    with pytest.raises(ValueError, match="no recipe for 'letters' with 64 features; give epochs"):
        train_dense(data, learning_rate=0.1)
