"""A small vision transformer, trained here: its projections and feed-forward layers replaced."""

import pytest
import torch
from torch import nn

from mpodis.data import load_data
from mpodis.nn import (
    HybridLinear,
    MPOLinear,
    accuracy,
    compress_module,
    disentangle_module,
    heal,
    parameter_table,
    train_classifier,
)
from mpodis.nn.linear import torch_generator

WIDTH, HEADS, PATCH = 32, 4, 2


class Block(nn.Module):
    """Pre-norm, with one matrix for queries, keys and values."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        n, tokens, _ = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(n, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv)
        x = x + self.proj(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.fc2(nn.functional.gelu(self.fc1(self.norm2(x))))


class Transformer(nn.Module):
    """8x8 images as 16 patches."""

    def __init__(self, seed=0):
        super().__init__()
        self.embed, self.head = nn.Linear(PATCH**2, WIDTH), nn.Linear(WIDTH, 10)
        self.place = nn.Parameter(torch.zeros(16, WIDTH))
        self.block = Block()
        generator = torch_generator(seed)
        with torch.no_grad():  # one stream of our own: the global one stays as it is
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    layer.bias.zero_()

    def forward(self, x):
        side = 8 // PATCH
        x = x.reshape(-1, side, PATCH, side, PATCH).transpose(2, 3).reshape(len(x), side**2, -1)
        return self.head(self.block(self.embed(x) + self.place).mean(1))


LAYERS = ("block.qkv", "block.proj", "block.fc1", "block.fc2")


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def trained(digits):
    model = Transformer()
    train_classifier(model, digits, epochs=10, learning_rate=0.005, batch_size=64, seed=0)
    return model


@pytest.fixture(scope="module")
def batches(digits):
    x = torch.as_tensor(digits.x_train, dtype=torch.float32)
    y = torch.as_tensor(digits.y_train)
    return list(zip(x.split(64), y.split(64), strict=True))


def score(model, digits):
    return accuracy(model.eval(), digits.x_test, digits.y_test)


@pytest.mark.no_cover  # training; each step has traced tests of its own
def test_all_its_linear_layers_are_compressed_healed_and_disentangled(trained, digits, batches):
    bond, whole = 10, score(trained, digits)
    assert whole > 92
    small = compress_module(trained, dict.fromkeys(LAYERS, bond), inputs=digits.x_train)
    for name in LAYERS:
        layer, old = small.get_submodule(name), trained.get_submodule(name)
        assert isinstance(layer, MPOLinear)
        assert sum(c.numel() for c in layer.site_tensors) < 0.75 * old.weight.numel()
    heal(small, batches, epochs=4, learning_rate=0.003)
    compressed = score(small, digits)
    assert compressed > whole - 5

    hybrid = small
    for name in LAYERS:
        hybrid, found = disentangle_module(
            hybrid,
            name,
            inputs=digits.x_train,
            left=2,
            max_bond=bond // 2,
            init="identity",
            max_sweeps=3,
        )
        layer = hybrid.get_submodule(name)
        assert isinstance(layer, HybridLinear)
        assert max(layer.core.bonds) <= bond // 2
        matrix = torch.as_tensor(found.factorization.to_dense())
        difference = layer.weight() - matrix.to(layer.weight().dtype)
        assert difference.abs().max() < 1e-5 * max(1, matrix.abs().max())
    fitted = score(hybrid, digits)
    heal(hybrid, batches, epochs=4, learning_rate=0.003)
    assert score(hybrid, digits) > max(whole - 15, fitted + 20)
    rows = {row[0]: row for row in parameter_table(hybrid).rows}
    assert all(rows[name][2] > 0 for name in LAYERS)
