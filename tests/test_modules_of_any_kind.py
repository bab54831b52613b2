"""Layers of any class, batches of any form, any dtype and plan: handled rightly or refused."""

import collections
import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import mpodis
from mpodis.nn import (
    HybridLinear,
    MonarchLinear,
    MPOLinear,
    PointwiseConv,
    accuracy,
    collect_activations,
    compress_module,
    disentangle_module,
    heal,
    layer_inputs,
    predict,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:Dynamo detected a call to a"),  # by cotengra and autoray
]

BRIEF = {"depth": 1, "max_sweeps": 2, "n_init": 1}


def seeded(make):
    """A module whose values do not touch the global random state."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return make()


class Conv1D(nn.Module):
    """As in GPT-2: the weight is (inputs, outputs)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight)


class Adapted(nn.Linear):
    """With an adapter of low rank, that of a fresh one being zero."""

    def __init__(self, scale):
        super().__init__(8, 8)
        self.a, self.b = nn.Parameter(torch.randn(8, 2)), nn.Parameter(scale * torch.randn(2, 8))

    def forward(self, x):
        return super().forward(x) + x @ self.a @ self.b


class Plain(nn.Linear):
    """A subclass that computes what its base does."""


class Codes(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.in_features = self.out_features = 8
        weight = torch.randn(8, 8)
        self.scale = weight.abs().max() / 100
        self.weight = nn.Parameter((weight / self.scale).to(dtype), requires_grad=False)

    def forward(self, x):
        return x @ (self.weight.float() * self.scale).T


class Called(nn.Linear):
    """Twice what its forward gives."""

    def __call__(self, x):
        return 2 * super().__call__(x)


class Clipped(nn.Linear):
    """Linear for ordinary inputs."""

    def forward(self, x):
        return super().forward(x).clamp(-100, 100)


class Fixed(nn.Module):
    """Of buffers, without parameters."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(4, 8))

    def forward(self, x):
        return nn.functional.linear(x, self.weight)


class Computed(nn.Module):
    """Its weight follows from others whenever it is asked for."""

    def __init__(self, used):
        super().__init__()
        self.raw, self.used = nn.Parameter(torch.randn(8, 8)), used

    @property
    def weight(self):
        return torch.tanh(self.raw)

    def forward(self, x):
        return x @ (self.weight if self.used else self.raw)


def pruned():
    return prune.l1_unstructured(nn.Linear(8, 8), "weight", amount=0.5)


def hooked():
    layer = nn.Linear(8, 8)
    layer.register_forward_hook(lambda module, x, y: 2 * y)
    return layer


def with_own_forward():
    layer = nn.Linear(8, 8)
    layer.forward = lambda x: 3 * (x @ layer.weight.T)
    return layer


READ = {
    "Linear": lambda: nn.Linear(8, 8),
    "Linear without bias": lambda: nn.Linear(8, 4, bias=False),
    "subclass": lambda: Plain(8, 8),
    "Conv1D, square": lambda: Conv1D(8, 8),
    "Conv1D": lambda: Conv1D(8, 4),
    "fresh adapter": lambda: Adapted(0.0),
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(8, 8)),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(8, 8)).eval(),
    "pruned for good": lambda: prune.remove(pruned(), "weight"),
    "buffers": Fixed,
    "computed weight": lambda: Computed(True),
    "one output": lambda: nn.Linear(8, 1),
    "compiled": lambda: torch.compile(nn.Linear(8, 8), backend="eager"),
    "convolution": lambda: nn.Conv2d(8, 4, 1, stride=2),
    "dilated convolution": lambda: nn.Conv2d(8, 4, 1, dilation=2, padding="same"),
    "transposed convolution": lambda: nn.ConvTranspose2d(8, 4, 1),
    "square transposed convolution": lambda: nn.ConvTranspose1d(8, 8, 1),
    "float64": lambda: nn.Linear(8, 8).double(),
    "bfloat16": lambda: nn.Linear(8, 8).bfloat16(),
    "float16": lambda: nn.Linear(8, 8).half(),
}
REFUSED = {
    "adapter": (lambda: Adapted(1.0), "does not compute x @ weight.T . bias .they differ.; merge"),
    "own call": (lambda: Called(8, 8), "does not compute x @ weight.T . bias .they differ"),
    "clipped": (lambda: Clipped(8, 8), "does not compute x @ weight.T . bias .they differ"),
    "computed weight": (lambda: Computed(False), "does not compute x @ weight.T . bias"),
    "pruned": (pruned, "has the hook L1Unstructured"),
    "old spectral norm": (lambda: nn.utils.spectral_norm(nn.Linear(8, 8)), "has the hook Spec"),
    "own forward": (with_own_forward, "does not compute x @ weight.T . bias"),
    "hook": (hooked, "has the hook hooked.*, which may change its weight or its outputs"),
    "old weight norm": (lambda: nn.utils.weight_norm(nn.Linear(8, 8)), "has the hook WeightNorm"),
    "int8": (lambda: Codes(torch.int8), "holds codes of torch.int8"),
    "float8": (lambda: Codes(torch.float8_e4m3fn), "holds codes of torch.float8"),
    "lazy": (lambda: nn.LazyLinear(8), "has no weight before it has been called"),
    "complex": (lambda: nn.Linear(8, 8, dtype=torch.complex64), "is complex"),
    "strided transposed convolution": (
        lambda: nn.ConvTranspose2d(8, 4, 1, stride=2),
        r"is a convolution with kernel .* stride \(2, 2\)",
    ),
    "grouped convolution": (lambda: nn.Conv2d(8, 4, 1, groups=2), "groups 2"),
    "normalization": (lambda: nn.LayerNorm(8), "is a LayerNorm; give a torch.nn.Linear"),
    "embedding": (lambda: nn.Embedding(8, 8), "is a Embedding; give a torch.nn.Linear"),
}


@pytest.mark.parametrize("kind", READ)
def test_a_layer_that_is_read_computes_the_same(kind):
    net = nn.Sequential(seeded(READ[kind]))
    dtype = net[0].weight.dtype
    shape = (3, 8, *[4] * len(getattr(net[0], "kernel_size", ())))
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    small = compress_module(net, {"0": {}})
    found, expected = small(x), net(x)
    assert found.dtype == dtype
    rounding = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=rounding, atol=rounding * 8)
    if not hasattr(net[0], "kernel_size"):
        hybrid, _ = disentangle_module(net, "0", max_bond=64, **BRIEF)
        assert hybrid(x).dtype == dtype  # of half precision, too
        matrix = torch.as_tensor(mpodis.compress(net[0]).to_dense())
        bias = getattr(net[0], "bias", None)
        y = x.double() @ matrix.double() + (0 if bias is None else bias.double())
        torch.testing.assert_close(y, expected.double(), rtol=rounding, atol=rounding * 8)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_that_is_not_its_matrix_is_refused_by_name(kind, monkeypatch):
    make, message = REFUSED[kind]
    net = nn.Sequential(nn.Linear(8, 8), seeded(make))
    monkeypatch.setattr("mpodis.nn.replace_layers.compress", None)  # before any work
    with pytest.raises((TypeError, ValueError), match=f"'1'.*{message}"):
        compress_module(net, {"0": 1, "1": 1})
    if kind != "complex":
        with pytest.raises(TypeError, match="is not read as an operator"):
            mpodis.as_mpo(net[1])


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = self.b = nn.Linear(8, 8)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids, attention_mask=None):
        return self.head(torch.tanh(self.embed(ids)))


def test_a_scripted_module_is_refused():
    with pytest.warns(DeprecationWarning, match="torch.jit.script"):
        net = torch.jit.script(seeded(lambda: nn.Sequential(nn.Linear(8, 8))))
    for call in (
        lambda: compress_module(net, {"0": 1}),
        lambda: disentangle_module(net, "0", **BRIEF),
    ):
        with pytest.raises(TypeError, match="'0' is a layer of a scripted module"):
            call()


def test_pointwise_convolutions_beside_group_norms():
    net = seeded(lambda: nn.Sequential(nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 1)))
    x = torch.randn(2, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    for given in (x, x.to(memory_format=torch.channels_last), x[0]):
        small = compress_module(net, {"0": {}, "2": {}})
        if given.ndim == 4:
            torch.testing.assert_close(small(given), net(given), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(small[0](given), net[0](given), rtol=1e-4, atol=1e-5)
    hybrid, found = disentangle_module(net, "0", inputs=[x, x], **BRIEF)
    assert hybrid(x).shape == net(x).shape
    assert np.isfinite(found.loss)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_layer_with_two_names_is_replaced_under_both(name):
    net = seeded(Twice)
    small = compress_module(net, {name: 1})
    assert isinstance(small.a, MPOLinear)
    assert small.a is small.b
    assert isinstance(net.a, nn.Linear)


def test_a_tie_that_is_lost_is_told_of(caplog):
    small = compress_module(seeded(Tied), {"head": 1})
    assert "'head' shares its weight with 'embed.weight', which keeps it" in caplog.text
    assert isinstance(small.embed, nn.Embedding)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_layers_of_a_transformer(activation):
    block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation=activation)
    net = seeded(lambda: nn.TransformerEncoder(block, 2)).eval()
    small = compress_module(net, {"layers.0.linear1": {}, "layers.1.linear2": {}})
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    with torch.no_grad():  # where torch would read the weights and not call the layers
        torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)
        found, expected = (m(x, src_key_padding_mask=padding) for m in (small, net))
        torch.testing.assert_close(found[:, :3], expected[:, :3], rtol=1e-4, atol=1e-5)
    assert collect_activations(net, "layers.1.linear2", x).count == 10
    with pytest.raises(TypeError, match="'layers.0.self_attn.out_proj' is the output projection"):
        compress_module(net, {"layers.0.self_attn.out_proj": 2})


# --- batches of any form, in any dtype, on any plan

LEGS = ((2, 2),) * 3
PLANS = {
    "MPO": lambda: MPOLinear(LEGS, 2, bias=True, seed=0),
    "MPO, site by site": lambda: MPOLinear(((2, 2),) * 11, 2, seed=0),
    "matrix": lambda: HybridLinear(LEGS, 2, left="2b + CNOT", plan="matrix", bias=True, seed=0),
    "batch": lambda: HybridLinear(LEGS, 2, left="1b + 3b", right="2b", plan="batch", seed=0),
    "network": lambda: HybridLinear(LEGS, 2, left="2b + CNOT", plan="network", seed=0),
    "complex": lambda: HybridLinear(LEGS, 2, left="2b", group="U", plan="network", seed=0),
    "activation": lambda: HybridLinear(LEGS, 2, left="2b | 2b", seed=0),
    "Monarch": lambda: MonarchLinear(np.eye(8) + 0.1, ((2, 2), (4, 4))),
}


def features(layer):
    return layer.inputs


@pytest.mark.parametrize("plan", PLANS)
def test_batches_without_samples(plan):
    layer = PLANS[plan]()
    n = features(layer)
    for shape in ((0, n), (2, 0, n), (n,)):
        x = torch.zeros(shape, requires_grad=True)
        y = layer(x)
        assert y.shape == (*shape[:-1], layer.outputs)
        y.abs().sum().backward()
        assert x.grad.shape == shape


def test_a_convolution_without_samples():
    layer = PointwiseConv(MPOLinear(((2, 2),) * 3, 2, seed=0))
    assert layer(torch.zeros(0, 8, 3, 3)).shape == (0, 8, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("plan", PLANS)
def test_a_layer_in_another_precision(plan, dtype):
    layer = PLANS[plan]()
    x = torch.randn(4, features(layer), generator=torch.Generator().manual_seed(0))
    expected = layer(x).detach()
    cast = {torch.float16: nn.Module.half, torch.bfloat16: nn.Module.bfloat16}
    other = cast.get(dtype, nn.Module.double)(copy.deepcopy(layer))
    found = other(x.to(dtype))
    assert found.dtype == dtype or found.is_complex()
    found.abs().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in other.parameters() if p.grad is not None)
    size = expected.abs().max().item()
    torch.testing.assert_close(
        found.detach().to(expected.dtype), expected, rtol=0.1, atol=0.1 * size
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("plan", PLANS)
def test_a_layer_under_autocast(plan, dtype):
    layer = PLANS[plan]()
    x = torch.randn(4, features(layer), generator=torch.Generator().manual_seed(0))
    expected = layer(x).detach()
    for given in (x, x.to(dtype)):
        with torch.autocast("cpu", dtype):
            found = layer(given)
        found.abs().sum().backward()
        size = expected.abs().max().item()
        found = found.detach().to(expected.dtype)
        torch.testing.assert_close(found, expected, rtol=0.1, atol=0.1 * size)


@pytest.mark.no_cover  # torch's compiler; its lines are those of the plain layer
@pytest.mark.parametrize("plan", [p for p in PLANS if p != "MPO, site by site"])
def test_torch_compile_makes_one_graph(plan):
    layer = PLANS[plan]()
    x = torch.randn(4, features(layer), generator=torch.Generator().manual_seed(0))
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), layer(x), rtol=1e-4, atol=1e-5)


# --- statistics and healing leave no trace, and count no padding


def noisy():
    return nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "call",
    [
        lambda net, x: compress_module(net, {"3": 2}, inputs=x),
        lambda net, x: disentangle_module(net, "3", inputs=x, with_sensitivity=True, **BRIEF),
        lambda net, x: collect_activations(net, "3", [x, x], with_sensitivity=True, draws=2),
        lambda net, x: layer_inputs(net, "3", x),
        predict,
        lambda net, x: accuracy(net, x, np.zeros(len(x))),
    ],
)
def test_the_model_and_the_random_state_are_as_they_were(call, training):
    net = seeded(noisy).train(training)
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(1)) + 3
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    call(net, x)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training == training for module in net.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_is_made_under_inference_mode_can_be_trained():
    net = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
    x, y = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)), torch.zeros(16).long()
    with torch.inference_mode():
        small = compress_module(net, {"0": 2}, inputs=x)
        hybrid, _ = disentangle_module(small, "0", inputs=x, with_sensitivity=True, **BRIEF)
        copied = copy.deepcopy(net)
    assert heal(small, [(x, y)], epochs=2)[1] < heal(copy.deepcopy(net), [(x, y)])[0] + 1
    assert len(heal(hybrid, [(x, y)])) == 1
    with pytest.raises(ValueError, match="made under torch.inference_mode and cannot be trained"):
        heal(copied, [(x, y)])


def tokens():
    ids = torch.randint(1, 16, (4, 6), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(6) < torch.tensor([[6], [3], [1], [4]])).long()
    return ids * mask, mask


@pytest.mark.parametrize("form", [dict, collections.UserDict])
def test_padding_does_not_count(form):
    net = seeded(Tied)
    ids, mask = tokens()
    batch = form({"input_ids": ids, "attention_mask": mask})
    net.forward = lambda input_ids, attention_mask: Tied.forward(net, input_ids)
    samples = layer_inputs(net, "head", [batch])
    kept = torch.tanh(net.embed(ids))[mask.bool()].detach().double().numpy()
    np.testing.assert_allclose(samples, kept)
    statistics = collect_activations(net, "head", [batch], with_sensitivity=True, draws=2)
    assert statistics.count == int(mask.sum())
    assert len(layer_inputs(net, "head", [batch], rows=False)) == 24
    assert len(layer_inputs(net, "head", [batch], rows=lambda b: b["input_ids"] > 7)) == int(
        (ids > 7).sum()
    )
    with pytest.raises(ValueError, match="a batch has no mask rows='mask'"):
        layer_inputs(net, "head", [batch], rows="mask")
    with pytest.raises(ValueError, match="says what is padding, and not what counts; give rows"):
        layer_inputs(
            net, "head", [batch | {"key_padding_mask": mask == 0}], rows="key_padding_mask"
        )
    with pytest.raises(ValueError, match="a mask has values below 0, as one that is added"):
        layer_inputs(net, "head", [batch], rows=lambda b: (1.0 - mask) * -1e9)
    with pytest.raises(ValueError, match="a mask has values that are not a number"):
        layer_inputs(net, "head", [batch], rows=lambda b: mask / 0.0 * 0.0)
    with pytest.raises(ValueError, match=r"a mask of shape \(4, 5\) does not say which"):
        layer_inputs(net, "head", [batch], rows=lambda b: mask[:, :5])


def test_gradients_at_padding_are_not_in_the_sensitivity():
    net = seeded(Tied)
    ids, mask = tokens()
    net.forward = lambda input_ids, attention_mask=None: Tied.forward(net, input_ids)
    whole = collect_activations(
        net,
        "head",
        [{"input_ids": ids, "attention_mask": mask}],
        with_sensitivity=True,
        draws=200,
        seed=0,
    ).sensitivity
    alone = collect_activations(
        net, "head", [ids[mask.bool()][:, None]], with_sensitivity=True, draws=200, seed=0
    ).sensitivity
    np.testing.assert_allclose(whole, alone, atol=0.02)


@pytest.mark.parametrize("form", ["pair", "dict", "UserDict", "dict and targets"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_healing_takes_batches_of_any_form(form, dtype):
    net = seeded(Tied).to(dtype)
    ids, mask = tokens()
    inputs = {"ids": ids, "attention_mask": mask}
    labels = torch.where(mask.bool(), ids, -100)
    whole = inputs | {"labels": labels}
    per_token = {"loss": lambda y, t: nn.functional.cross_entropy(y.flatten(0, 1), t.flatten())}
    batch, options = {
        "pair": ((ids, labels), per_token),
        "dict": (whole, {}),
        "UserDict": (collections.UserDict(whole), {}),
        "dict and targets": ((inputs, labels), {}),
    }[form]
    losses = heal(net, [batch], epochs=5, learning_rate=0.1, **options)
    assert losses[-1] < losses[0]
    assert net.embed.weight.dtype == dtype
    with pytest.raises(ValueError, match="without targets; give .inputs, targets., or a dict"):
        heal(net, [inputs])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision_go_all_the_way(dtype):
    net = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))).to(dtype)
    x = np.random.default_rng(0).normal(size=(32, 8))  # of double precision
    y = torch.as_tensor(predict(net, x))
    small = compress_module(net, {"0": 2}, inputs=x)
    hybrid, found = disentangle_module(
        small, "0", inputs=x, with_sensitivity=True, objective="activations", **BRIEF
    )
    assert np.isfinite(found.loss)
    heal(hybrid, [(torch.as_tensor(x), y)], epochs=2, learning_rate=1e-2)
    assert hybrid(torch.as_tensor(x).to(dtype)).dtype == dtype
    assert all(torch.isfinite(p).all() for p in hybrid.parameters())


def test_layers_keep_device_and_mode():
    net = seeded(noisy).train()
    assert compress_module(net, {"0": 1})[0].training
    net.eval()
    hybrid, _ = disentangle_module(net, "0", **BRIEF)
    assert not any(module.training for module in hybrid.modules())
    if torch.cuda.is_available():
        moved = compress_module(net.cuda(), {"0": 1})
        assert moved[0].site_tensors[0].is_cuda


# --- arguments of any kind

SMALL = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
SAMPLES = torch.ones(5, 8)
LABELLED = [(SAMPLES, torch.zeros(5, dtype=torch.long))]
HYBRID = HybridLinear(((2, 2),) * 3, 2, left="2b", seed=0)


def frozen():
    return copy.deepcopy(SMALL).requires_grad_(False)


def healed(**options):
    return heal(copy.deepcopy(SMALL), LABELLED, **options)


def hybrid(bond=1, **options):
    return HybridLinear(((2, 2),) * 3, bond, **{"left": "2b", "seed": 0} | options)


WRONG = {
    "layers by a text": (lambda: compress_module(SMALL, "0"), "layers='0' must give bond"),
    "layers by a list": (lambda: compress_module(SMALL, ["0"]), r"layers=\['0'\] must give"),
    "half a bond": (lambda: compress_module(SMALL, {"0": 1.5}), "of '0'=1.5 must be a whole"),
    "a true bond": (lambda: compress_module(SMALL, {"0": True}), "of '0'=True must be a"),
    "no bond": (lambda: compress_module(SMALL, {"0": None}), "of '0'=None must be a whole"),
    "no tolerance": (lambda: compress_module(SMALL, {"0": 2}, tol=math.nan), "tol=nan must"),
    "several layers": (
        lambda: collect_activations(SMALL, ["0", "2"], SAMPLES),
        r"\['0', '2'\] is not the name of a layer",
    ),
    "no batches": (lambda: collect_activations(SMALL, "0", None), "inputs are a NoneType;"),
    "a batch of text": (lambda: collect_activations(SMALL, "0", "ab"), "inputs are a str;"),
    "rate in words": (
        lambda: healed(learning_rate="x"),
        "learning_rate='x' must be a positive number",
    ),
    "a true rate": (lambda: healed(learning_rate=True), "learning_rate=True must be a positive"),
    "no loss": (lambda: healed(loss=lambda y, t: None), "loss= has returned None; it must"),
    "loss of numpy": (lambda: healed(loss=lambda y, t: 3.0), "loss= has returned 3.0; it must"),
    "several losses": (lambda: healed(loss=lambda y, t: y.sum(1)), r"loss= has returned \(5,\);"),
    "frozen": (lambda: heal(frozen(), LABELLED), "no parameters that require gradients"),
    "half a core": (lambda: hybrid(1.5), "bond=1.5 must be a whole number"),
    "a real core": (lambda: hybrid(2.0), "bond=2.0 must be a whole number"),
    "a side by depth": (lambda: hybrid(left=2), "a side is given as 2; give a spec such as"),
    "seed in words": (lambda: hybrid(seed="x"), "seed='x' must be a whole number, 0 or more"),
    "negative seed": (lambda: hybrid(seed=-1), "seed=-1 must be a whole number, 0 or more"),
    "half a seed": (lambda: hybrid(seed=1.5), "seed=1.5 must be a whole number, 0 or more"),
    "long seed": (lambda: hybrid(seed=2**70), f"seed={2**70} must be .* or less"),
    "integers": (lambda: HYBRID(SAMPLES.long()), "x is of torch.int64; give a tensor of"),
    "numpy": (lambda: HYBRID(SAMPLES.numpy()), "x is of ndarray; give a tensor of"),
    "a scalar": (lambda: HYBRID(torch.tensor(1.0)), r"x of shape \(\) must have 8 features"),
    "a few moments": (
        lambda: mpodis.low_rank(np.eye(8), 2, covariance=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of an order": (
        lambda: mpodis.neuron_order(np.eye(8), max_bond=2, covariance=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of sites": (
        lambda: mpodis.site_order(np.eye(8), covariance=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of a core": (
        lambda: mpodis.fit_core(np.eye(8), max_bond=2, covariance=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of an MPO": (
        lambda: mpodis.truncated_mpo(np.eye(8), 2, covariance=np.eye(7), weighted=False),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of full width": (
        lambda: mpodis.full_width_gates(np.eye(8), 2, covariance=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few moments of a bound": (
        lambda: mpodis.activation_loss_bound(np.eye(8), np.eye(8), sensitivity=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 outputs whose weights are not zero",
    ),
    "a few moments of fewer CNOTs": (
        lambda: mpodis.pareto(
            np.eye(8), depths=(1,), max_bond=1, objective="activations", covariance=np.eye(7)
        ),
        r"shape \(7, 7\), but the matrix has 8 inputs whose weights are not zero",
    ),
    "a few sensitivities": (
        lambda: mpodis.monarch(np.eye(8), sensitivity=np.eye(7)),
        r"shape \(7, 7\), but the matrix has 8 outputs whose weights are not zero",
    ),
    "no minutes": (
        lambda: mpodis.Study(mpodis.low_rank, grid={"rank": [1]}, minutes=math.nan),
        "minutes=nan must be a positive number",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_argument_of_another_kind_is_refused_by_name(case):
    call, message = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_moments_of_inputs_before_zero_padding_are_those_of_the_padded_ones():
    rng = np.random.default_rng(0)
    matrix, samples = rng.normal(size=(7, 8)), rng.normal(size=(40, 7))
    padded = np.vstack([matrix, np.zeros((1, 8))])
    few = mpodis.low_rank(padded, 2, covariance=mpodis.second_moment(samples))
    wide = np.hstack([samples, np.zeros((40, 1))])
    whole = mpodis.low_rank(padded, 2, covariance=mpodis.second_moment(wide))
    np.testing.assert_array_equal(few.matrix, whole.matrix)
    assert few.activation_error == whole.activation_error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_core_is_fitted_under_moments_of_the_inputs_before_zero_padding(dtype):
    rng = np.random.default_rng(0)
    matrix, samples = rng.normal(size=(7, 8)).astype(dtype), rng.normal(size=(40, 7))
    few = mpodis.second_moment(samples)
    wide = np.pad(few, ((0, 1), (0, 1)))
    exact = mpodis.compress(matrix)
    truncated = mpodis.truncate(exact, max_bond=2)  # its row of padding is not zero
    for operator in (exact, exact.mpo, truncated):
        found, padded = (
            mpodis.fit_core(operator, max_bond=1, covariance=c).to_dense() for c in (few, wide)
        )
        np.testing.assert_array_equal(found, padded)
    orders = [mpodis.site_order(truncated, covariance=c) for c in (few, wide)]
    assert orders[0].after == orders[1].after
    with pytest.raises(ValueError, match=r"or the operator with its shape before padding"):
        mpodis.fit_core(truncated.mpo, max_bond=1, covariance=few)
