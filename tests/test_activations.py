"""What a layer sees, streamed: against the whole array, and the Fisher information by hand."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mpodis import second_moment
from mpodis.nn import (
    CompactTNN,
    collect_activations,
    layer_inputs,
    linear_from_matrix,
    output_sensitivity,
)
from mpodis.nn.moments import StreamedMoments

F64 = torch.float64


pytestmark = pytest.mark.usefixtures("torch_generator_untouched")


def numbers(tensor):
    return tensor.detach().numpy()


def linear(inputs, outputs, seed=0, dtype=F64):
    rng = np.random.default_rng(seed)
    return linear_from_matrix(rng.normal(size=(inputs, outputs)), dtype=dtype)


def network(inputs=4, hidden=5, classes=3):
    return nn.Sequential(
        linear(inputs, hidden, 1), nn.ReLU(inplace=True), linear(hidden, classes, 2)
    )


def whole(features):
    """A network of one layer, in double precision."""
    return nn.Sequential(linear(features, 2))


def samples(*shape, seed=0):
    """Correlated, with a mean."""
    x = np.random.default_rng(seed).normal(size=shape)
    return x * np.linspace(0.2, 2, shape[-1]) + np.linspace(-1, 3, shape[-1])


class Sequences(nn.Module):
    """Called twice in a row, by keyword the second time, on tokens that are looked up."""

    def __init__(self):
        super().__init__()
        table = torch.as_tensor(samples(7, 4, seed=3))
        self.table = nn.Embedding.from_pretrained(table)
        self.twice = linear(4, 4, 4)
        self.head = linear(4, 3, 5)

    def forward(self, tokens, mask=None):
        x = self.table(tokens)
        y = self.twice(torch.tanh(self.twice(input=x)))
        y = y if mask is None else y * mask[..., None]
        return {"logits": self.head(y)}


# --- inputs


def test_layer_inputs_are_what_the_layer_sees(monkeypatch):
    monkeypatch.setattr("mpodis.nn.activations._EVALUATION_BATCH", 3)
    model = CompactTNN(inputs=4, classes=3, seed=0).double().eval()
    x = samples(10, 4)
    hidden = np.maximum(x @ numbers(model.mpo.weight()), 0)
    assert_array_equal(layer_inputs(model, "mpo", x), x)
    assert_allclose(layer_inputs(model, "head", x), hidden, atol=1e-12)
    assert layer_inputs(CompactTNN(inputs=4, classes=3, seed=0), "head", x).dtype == np.float64
    assert not model.head._forward_pre_hooks


def test_layer_inputs_of_sequences_and_idle_layers():
    model = nn.ModuleDict({"idle": nn.ReLU(), "twice": nn.Tanh()})
    model.forward = lambda x: model["twice"](model["twice"](x))
    x = np.random.default_rng(0).random((2, 3, 5)).astype(np.float32)
    seen = layer_inputs(model, "twice", x)
    assert_allclose(seen, np.vstack([x.reshape(6, 5), np.tanh(x).reshape(6, 5)]), rtol=1e-6)
    with pytest.raises(ValueError, match="does not call its layer 'idle'"):
        layer_inputs(model, "idle", x)
    with pytest.raises(ValueError, match="no layer 'fc'; it has idle, twice"):
        layer_inputs(model, "fc", x)


@pytest.mark.parametrize("is_complex", [False, True])
def test_streamed_moments_are_those_of_all_samples(is_complex, monkeypatch):
    monkeypatch.setattr("mpodis.nn.moments._ROWS", 5)
    x = samples(23, 6) + (1j * samples(23, 6, seed=1) if is_complex else 0)
    model = nn.Sequential(nn.Identity(), nn.Identity()) if is_complex else whole(6)
    batches = [x[:10], x[10:10], x[10:]]
    found = collect_activations(model, "0", batches)
    assert found.count == 23
    assert found.low_rank is found.sensitivity is None
    assert_allclose(found.mean, x.mean(axis=0), rtol=1e-12)
    assert_allclose(found.covariance, second_moment(x), rtol=1e-11, atol=1e-12)
    assert_allclose(found.centred, second_moment(x, centred=True), rtol=1e-11, atol=1e-12)


def test_a_large_mean_costs_the_centred_moment_no_digits():
    x = samples(200, 3) + 1e8
    found = collect_activations(whole(3), "0", x.reshape(20, 10, 3))
    assert_allclose(found.centred, second_moment(x - 1e8, centred=True), rtol=1e-6)


def test_every_kind_of_loader():
    model, x = network(), torch.as_tensor(samples(12, 4))
    labels = torch.zeros(12, dtype=torch.int64)
    expected = second_moment(layer_inputs(model, "2", x))
    loaders = [
        x,
        x.float().numpy(),
        DataLoader(x, batch_size=5, generator=torch.Generator()),
        DataLoader(TensorDataset(x, labels), batch_size=5, generator=torch.Generator()),
        [(x, labels)],
        ({"input": part} for part in x.split(7)),
    ]
    for loader in loaders:
        found = collect_activations(model, "2", loader)
        assert found.count == 12
        assert_allclose(found.covariance, expected, rtol=1e-5, atol=1e-9)
    for loader in ([], iter(())):
        with pytest.raises(ValueError, match="the inputs have no batches; an iterator can be"):
            collect_activations(model, "2", loader)


def test_integers_are_looked_up_or_cast():
    model, tokens = Sequences(), np.arange(6).reshape(2, 3)
    seen = layer_inputs(model, "twice", tokens)
    table = numbers(model.table.weight)[:6]
    assert_allclose(seen[:6], table)
    assert_allclose(seen[6:], np.tanh(table @ numbers(model.twice.weight).T))
    masked = [{"tokens": tokens, "mask": np.zeros((2, 3))}]
    assert not layer_inputs(model, "head", masked).any()
    pixels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    assert_array_equal(layer_inputs(network(), "0", pixels), pixels)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_acts_on_its_channels(stride):
    conv = nn.utils.skip_init(nn.Conv2d, 4, 3, 1, stride=stride, dtype=F64)
    nn.init.constant_(conv.weight, 0.5)
    nn.init.zeros_(conv.bias)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x = samples(2, 4, 6, 4)
    seen = layer_inputs(model, "0", x)
    assert_array_equal(seen, x[:, :, ::stride, ::stride].transpose(0, 2, 3, 1).reshape(-1, 4))
    answers = numbers(conv(torch.as_tensor(x)))
    assert_allclose(
        seen @ np.full((4, 3), 0.5), answers.transpose(0, 2, 3, 1).reshape(-1, 3), rtol=1e-12
    )
    found = collect_activations(model, "0", x, with_sensitivity=True)
    pixels = answers[0, 0].size
    logits = numbers(model(torch.as_tensor(x)))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    fisher = sum(np.diag(q) - np.outer(q, q) for q in p) / len(p)
    assert_allclose(found.sensitivity, fisher / pixels**2, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "options",
    [{"kernel_size": 3}, {"kernel_size": 1, "groups": 2}, {"kernel_size": 1, "padding": 1}],
)
def test_other_convolutions_are_refused(options):
    model = nn.Sequential(nn.utils.skip_init(nn.Conv1d, 4, 4, **options))
    with pytest.raises(ValueError, match="the layer '0' is a convolution with kernel .* only 1"):
        layer_inputs(model, "0", samples(2, 4, 8))


def test_the_mode_and_the_hooks_stay_and_errors_pass():
    model = network().train()
    for sensitivity in (False, True):
        collect_activations(model, "0", samples(3, 4), with_sensitivity=sensitivity)
        with pytest.raises(RuntimeError):
            collect_activations(model, "0", samples(3, 5), with_sensitivity=sensitivity)
        layer = model[0]
        assert model.training
        assert not layer._forward_pre_hooks
        assert not layer._forward_hooks
        assert all(p.grad is None for p in model.parameters())


def test_inputs_that_cannot_be():
    x = samples(3, 4)
    x[0, :2] = np.nan, np.inf
    with pytest.raises(ValueError, match="2 inputs of the layer '0' are NaN or infinite"):
        collect_activations(network(), "0", x)
    with pytest.raises(ValueError, match="the layer '0' received no samples, only empty batches"):
        collect_activations(network(), "0", samples(0, 4))


# --- low rank


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 8, 40])
def test_a_low_rank_moment_is_as_near_as_it_says(rank, is_complex):
    x = samples(900, 40) / np.arange(1, 41) ** 2
    x = x @ np.linalg.qr(np.random.default_rng(5).normal(size=(40, 40)))[0]
    x = x + 1j * x[::-1] if is_complex else x
    model = nn.Sequential(nn.Identity()) if is_complex else whole(40)
    found = collect_activations(model, "0", np.split(x, 9), rank=rank)
    exact = second_moment(x, centred=True)
    low = found.about_mean
    assert low.factor.shape == (rank, 40)
    assert np.linalg.norm(found.centred - exact, 2) <= low.error + 1e-12
    assert low.residual.min() >= 0
    assert_allclose(np.diag(found.centred), np.diag(exact).real, rtol=1e-9)
    assert_allclose(low.trace, np.trace(exact).real, rtol=1e-10)
    assert_allclose(low.square, np.linalg.norm(found.centred) ** 2, rtol=1e-10)
    values = np.linalg.eigvalsh(exact)[::-1]
    best = values[rank] if rank < 40 else 0
    missing = np.linalg.norm(exact - low.factor.conj().T @ low.factor, 2)
    assert best - 1e-12 <= missing <= 1.2 * best + 1e-12
    with_mean = found.low_rank
    assert with_mean.factor.shape == (rank + 1, 40)
    assert_allclose(with_mean.to_dense(), found.covariance, atol=1e-13)
    assert_allclose(np.diag(found.covariance), np.diag(second_moment(x)).real, rtol=1e-9)


def test_a_rank_that_covers_the_samples_is_exact():
    x = samples(5, 30)
    found = collect_activations(whole(30), "0", x, rank=6)
    assert_allclose(found.covariance, second_moment(x), atol=1e-10)
    assert found.about_mean.error < 1e-12


def test_a_rank_that_keeps_nothing():
    with pytest.raises(ValueError, match="rank=0 must be a whole number, 1 or more"):
        StreamedMoments("fc", 0)


# --- the Fisher information


def fisher_by_hand(model, x, layer):
    """E over samples and classes, gradients by perturbing the layer's bias of one sample."""
    total, bias = 0.0, layer.bias
    for row in torch.as_tensor(x):
        p = torch.softmax(model(row[None]), 1)[0].detach()
        for c in range(len(p)):
            value = torch.log_softmax(model(row[None]), 1)[0, c]
            g = numbers(torch.autograd.grad(value, bias)[0])
            total = total + p[c].item() * np.outer(g, g) / len(x)
    return total


@pytest.mark.parametrize("name", ["0", "2"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_sensitivity_is_the_fisher_information(name, frozen):
    x = samples(6, 4)
    model = network()
    layer = model[int(name)]
    layer.bias = nn.Parameter(torch.full((layer.out_features,), 0.1, dtype=F64))
    expected = fisher_by_hand(model, x, layer)
    model.requires_grad_(not frozen)
    found = collect_activations(model, name, [x[:4], x[4:]], with_sensitivity=True)
    assert_allclose(found.sensitivity, expected, atol=1e-12)
    assert_array_equal(output_sensitivity(model, name, [x[:4], x[4:]]), found.sensitivity)
    assert_allclose(found.covariance, second_moment(layer_inputs(model, name, x)), atol=1e-12)


def test_the_sensitivity_of_a_compact_network():
    x = np.random.default_rng(0).random((40, 4))
    model = CompactTNN(inputs=4, classes=3, seed=1).double().eval()
    found = output_sensitivity(model, "mpo", x)
    y = x @ numbers(model.mpo.weight())
    head = numbers(model.head.weight)
    expected = np.zeros((4, 4))
    for row, logits in zip(y, numbers(model.head(torch.relu(torch.tensor(y)))), strict=True):
        p = np.exp(logits) / np.exp(logits).sum()
        for c in range(3):
            # d log p_c / d logits = e_c - p, through the head and the ReLU
            g = (np.eye(3)[c] - p) @ head * (row > 0)
            expected += p[c] * np.outer(g, g) / len(x)
    assert_allclose(found, expected, atol=1e-12)
    with pytest.raises(ValueError, match="has no layer 'nothing'"):
        output_sensitivity(model, "nothing", x)


def test_drawn_labels_estimate_the_sensitivity_without_bias():
    model, x = network(), samples(8, 4)
    exact = output_sensitivity(model, "0", x)
    options = {"with_sensitivity": True, "draws": 1000}
    found = collect_activations(model, "0", x, seed=3, **options).sensitivity
    assert np.linalg.norm(found - exact) < 0.06 * np.linalg.norm(exact)
    again = collect_activations(model, "0", x, seed=3, **options).sensitivity
    assert_array_equal(again, found)


def test_every_call_and_every_position_contributes():
    """Logits at every position need draws; a call's gradient runs through the later calls."""
    model, tokens = Sequences(), torch.tensor([[0, 1, 2], [3, 4, 6]])
    found = collect_activations(model, "twice", tokens, with_sensitivity=True, draws=1500, seed=0)
    assert found.count == 12
    w, head = numbers(model.twice.weight).T, numbers(model.head.weight).T
    expected = np.zeros((4, 4))
    for x in numbers(model.table.weight)[[0, 1, 2, 3, 4, 6]]:
        inner = x @ w
        logits = np.tanh(inner) @ w @ head
        p = np.exp(logits) / np.exp(logits).sum()
        for c in range(3):
            second = head @ (np.eye(3)[c] - p)
            first = (w @ second) / np.cosh(inner) ** 2
            expected += p[c] * (np.outer(second, second) + np.outer(first, first)) / 12
    assert np.linalg.norm(found.sensitivity - expected) < 0.06 * np.linalg.norm(expected)
    with pytest.raises(ValueError, match=r"logits \(samples, classes\).*\(2, 3, 3\).*give draws="):
        output_sensitivity(model, "twice", tokens)


class Two(nn.Module):
    """A layer whose answer is not used, and a result that is a tuple."""

    def __init__(self, classes):
        super().__init__()
        self.idle, self.unused, self.head = (linear(4, k) for k in (4, 4, classes))

    def forward(self, x):
        self.unused(x)
        return self.head(x), x


def test_the_sensitivity_of_an_unused_output_is_zero():
    assert not output_sensitivity(Two(3), "unused", samples(3, 4)).any()
    with pytest.raises(ValueError, match="does not call its layer 'idle'"):
        output_sensitivity(Two(3), "idle", samples(3, 4))
    with pytest.raises(ValueError, match=r"logits have shape \(3, 1\); a Fisher information needs"):
        output_sensitivity(Two(1), "head", samples(3, 4))


@pytest.mark.parametrize("options", [{"draws": 2}, {"draws": 0, "with_sensitivity": True}])
def test_draws_that_make_no_sense(options):
    with pytest.raises(
        ValueError, match=f"draws={options['draws']} must be 1 or more, and is used by"
    ):
        collect_activations(network(), "0", samples(3, 4), **options)


# --- printed


def cells(statistics):
    return dict(row for row in statistics.table().rows)


def test_statistics_print_themselves():
    model, x = network(), samples(50, 4)
    found = collect_activations(model, "0", x, with_sensitivity=True)
    shown, moment = cells(found), second_moment(x)
    values = np.linalg.eigvalsh(moment)
    assert (shown["features"], shown["samples"], shown["outputs"]) == (4, 50, 5)
    assert_allclose(shown["condition number"], values[-1] / values[0])
    assert_allclose(shown["effective rank"], values.sum() ** 2 / (values**2).sum())
    mean = (x.mean(axis=0) ** 2).sum() / np.trace(moment)
    assert_allclose(shown["share of the mean"], mean)
    assert 1 <= shown["effective rank of the sensitivity"] <= 3
    assert "condition number" in str(found)
    low = cells(collect_activations(model, "0", x, rank=2))
    assert low["condition number"] is None
    assert low["rank of the factor"] == 3
    assert low["share in the residual"] < 0.5
    assert_allclose(low["share of the mean"], mean)


def test_inputs_of_nothing_print_too():
    for rank in (None, 1):
        shown = cells(collect_activations(network(), "0", np.zeros((3, 4)), rank=rank))
        assert shown["effective rank"] == shown["share of the mean"] == 0
    found = collect_activations(Two(3), "unused", np.zeros((3, 4)), with_sensitivity=True)
    assert cells(found)["effective rank of the sensitivity"] == 0
    assert cells(found)["condition number"] == np.inf
