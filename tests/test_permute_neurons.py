"""The neurons of a network in another order compute the same."""

import numpy as np
import pytest
import torch
from torch import nn

from mpodis.nn.permute_neurons import absorb_permutation


def randomised(model, seed=0):
    """Every parameter and running statistic away from its default, float64, evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                drawn = torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
                tensor.copy_(drawn + 0.5)
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight -= 1
    return model


def inputs(size=6, n=9):
    return torch.as_tensor(np.random.default_rng(1).normal(size=(n, size)))


ORDER = np.random.default_rng(0).permutation(8)

NETWORKS = {
    "relu": lambda: [nn.ReLU()],
    "batch norm": lambda: [nn.BatchNorm1d(8), nn.ReLU()],
    "layer norm": lambda: [nn.LayerNorm(8), nn.GELU()],
    "rms norm": lambda: [nn.RMSNorm(8)],
    "plain norms": lambda: [nn.BatchNorm1d(8, affine=False), nn.LayerNorm(8, bias=False)],
    "prelu": lambda: [nn.PReLU(8), nn.Dropout(), nn.PReLU()],
    "nothing": list,
}


@pytest.mark.parametrize("middle", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("bias", [True, False])
def test_the_function_is_unchanged(middle, bias):
    layers = [nn.Linear(6, 8, bias=bias), *middle(), nn.Linear(8, 3, bias=bias)]
    model = randomised(nn.Sequential(*layers))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = absorb_permutation(model, "0", str(len(layers) - 1), ORDER)
    x = inputs()
    torch.testing.assert_close(changed(x), model(x), rtol=1e-12, atol=1e-12)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    matrix = model[0].weight.detach().numpy().T
    np.testing.assert_array_equal(changed[0].weight.detach().numpy().T, matrix[:, ORDER])
    last = model[-1].weight.detach().numpy().T
    np.testing.assert_array_equal(changed[-1].weight.detach().numpy().T, last[ORDER])
    back = absorb_permutation(changed, "0", str(len(layers) - 1), np.argsort(ORDER))
    for name, tensor in back.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


def test_named_modules_between():
    model = randomised(Own())
    changed = absorb_permutation(model, "first", "last", ORDER, between=["norm"])
    x = inputs()
    torch.testing.assert_close(changed(x), model(x), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="are not members of one torch.nn.Sequential"):
        absorb_permutation(model, "first", "last", ORDER)


def test_a_nested_sequential():
    inner = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))
    model = randomised(nn.Sequential(inner, nn.ReLU(), nn.Linear(6, 2)))
    changed = absorb_permutation(model, "0.0", "0.2", ORDER)
    x = inputs()
    torch.testing.assert_close(changed(x), model(x), rtol=1e-12, atol=1e-12)
    assert not torch.equal(changed[0][0].weight, model[0][0].weight)


def test_training_goes_on_alike():
    model = randomised(nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)))
    changed = absorb_permutation(model, "0", "2", ORDER)
    assert all(p.requires_grad and p.is_leaf for p in changed.parameters())
    for net in (model, changed):
        net.train()
        net(inputs()).square().sum().backward()
    torch.testing.assert_close(changed[0].weight.grad, model[0].weight.grad[ORDER])
    torch.testing.assert_close(changed[1].running_mean, model[1].running_mean[ORDER])


class Mixing(nn.Module):
    def forward(self, x):
        return x.cumsum(-1)


@pytest.mark.parametrize(
    ("layers", "options", "error", "text"),
    [
        ([nn.Softmax(-1)], {}, TypeError, "'1' is a Softmax"),
        ([Mixing()], {}, TypeError, "cannot be permuted"),
        ([nn.Linear(8, 8)], {}, TypeError, "'1' is a Linear"),
        ([nn.ReLU()], {"second": "1"}, TypeError, "only a plain torch.nn.Linear"),
        ([nn.ReLU()], {"second": "0"}, ValueError, "name two layers"),
        ([nn.ReLU()], {"second": "7"}, ValueError, "has no layer '7'"),
        ([nn.ReLU()], {"first": "2", "second": "0"}, ValueError, "comes before"),
        ([nn.ReLU()], {"permutation": [0, 1]}, ValueError, "length 2 is not a permutation"),
        ([nn.ReLU()], {"permutation": [0] * 8}, ValueError, "each number must occur once"),
        ([nn.LayerNorm((2, 8))], {}, ValueError, r"shape \(2, 8\)"),
        ([nn.BatchNorm1d(5)], {}, ValueError, r"shape \(5,\)"),
    ],
)
def test_what_cannot_be_absorbed_is_refused(layers, options, error, text):
    model = nn.Sequential(nn.Linear(6, 8), *layers, nn.Linear(8, 3))
    options = {"first": "0", "second": "2", "permutation": ORDER} | options
    with pytest.raises(error, match=text):
        absorb_permutation(model, **options)


def test_sizes_must_fit():
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(4, 3))
    with pytest.raises(ValueError, match="'0' has 8 outputs, '1' 4 inputs"):
        absorb_permutation(model, "0", "1", ORDER)


def test_tied_parameters_are_refused():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    with pytest.raises(ValueError, match=r"0.weight, 2.weight are the same"):
        absorb_permutation(model, "0", "2", ORDER)
