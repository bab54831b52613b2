"""Networks whose layers become MPOs and circuits, and are healed."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from mpodis import compress, mpo_to_dense
from mpodis.circuit.ansatz import brickwall
from mpodis.fit import weighted_loss
from mpodis.nn import (
    CircuitLayer,
    HybridLinear,
    MPOLinear,
    PointwiseConv,
    collect_activations,
    compress_module,
    disentangle_module,
    heal,
    keep_positive,
    parameter_table,
)

EXACT = 10**6


class Attention(nn.Module):
    """One head with a fused in-projection."""

    def __init__(self, width):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v))


class Transformer(nn.Module):
    """Four patches, one block."""

    def __init__(self):
        super().__init__()
        self.embed, self.attention = nn.Linear(4, 8), Attention(8)
        self.norm = nn.LayerNorm(8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.embed(x.reshape(-1, 4, 4))
        x = x + self.attention(self.norm(x))
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x.mean(1))


def perceptron():
    layers = nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)
    return nn.Sequential(*layers)


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 4)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


CASES = {
    "perceptron": (perceptron, ("0", "3")),
    "convolution": (convolutional, ("3",)),
    "transformer": (Transformer, ("attention.qkv", "attention.out", "up", "down")),
}
every_case = pytest.mark.parametrize("case", CASES)


def network(case):
    make, names = CASES[case]
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    model = make().double().eval()
    torch.random.set_rng_state(state)
    return model, names


def images(n=40, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 16)) * np.linspace(0.1, 2, 16)
    return torch.from_numpy(x), torch.from_numpy(rng.integers(3, size=n))


def module(model, name):
    found = model.get_submodule(name)
    return found.layer if isinstance(found, PointwiseConv) else found


@every_case
def test_without_a_cut_nothing_changes(case):
    model, names = network(case)
    before = copy.deepcopy(model.state_dict())
    x, _ = images()
    swapped = compress_module(model, dict.fromkeys(names, EXACT))
    assert_allclose(swapped(x).detach(), model(x).detach(), atol=1e-10)
    assert all(isinstance(module(swapped, name), MPOLinear) for name in names)
    assert all(torch.equal(a, before[n]) for n, a in model.state_dict().items())


@every_case
def test_the_function_is_that_of_the_solution_before_the_first_step(case):
    model, names = network(case)
    x, _ = images()
    swapped = compress_module(model, dict.fromkeys(names, 2))
    for name in names:
        options = {"left": 2, "n_init": 1, "max_sweeps": 3, "inputs": x}
        hybrid, found = disentangle_module(swapped, name, max_bond=1, **options)
        one, other = module(swapped, name), module(hybrid, name)
        assert isinstance(other, HybridLinear)
        assert found.options.objective == "activations"
        assert_allclose(other.weight().detach(), found.factorization.to_dense(), atol=1e-10)
        assert_allclose(other.bias.detach(), one.bias.detach(), atol=1e-12)
        # the whole network computes what it does with the solution as one matrix
        dense = copy.deepcopy(swapped)
        with torch.no_grad():
            module(dense, name).site_tensors = nn.ParameterList(
                MPOLinear.from_mpo(
                    compress(found.factorization.padded_to_dense(), legs=one.legs).mpo,
                    dtype=torch.float64,
                ).site_tensors
            )
        assert_allclose(hybrid(x).detach(), dense(x).detach(), atol=1e-5)
        swapped = hybrid


def test_what_the_network_sees_makes_the_outputs_better():
    model, _ = network("perceptron")
    x, _ = images()
    matrix = model[0].weight.detach().numpy().T
    covariance = collect_activations(model, "0", x).covariance
    losses = []
    for inputs in (None, x):
        swapped = compress_module(model, {"0": {"max_bond": 2}}, inputs=inputs)
        core = swapped[0].to_mpo()
        assert max(core.bond_sizes()) == 2
        losses.append(weighted_loss(matrix, mpo_to_dense(core), covariance))
    assert losses[1] < losses[0]


def test_later_layers_are_fitted_to_what_they_get():
    model, _ = network("perceptron")
    x, _ = images()
    both = compress_module(model, {"0": 1, "3": 1}, inputs=x)
    first = compress_module(model, {"0": 1}, inputs=x)
    then = compress_module(first, {"3": 1}, inputs=x)
    assert_allclose(both(x).detach(), then(x).detach(), atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_act_on_channels(stride):
    torch_state = torch.random.get_rng_state()
    layer = nn.Conv2d(4, 8, 1, stride=stride).double()
    model = nn.Sequential(layer)
    swapped = compress_module(model, {"0": EXACT})
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 5, 6)))
    assert_allclose(swapped(x).detach(), layer(x).detach(), atol=1e-12)
    torch.random.set_rng_state(torch_state)


@every_case
def test_healing_lowers_the_loss(case):
    model, names = network(case)
    x, y = images()
    swapped = compress_module(model, dict.fromkeys(names, 1))
    hybrid, _ = disentangle_module(swapped, names[0], left=1, n_init=1, max_sweeps=2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=10)
    losses = heal(hybrid, loader, epochs=5, learning_rate=0.01)
    assert losses[-1] < losses[0]
    assert not hybrid.training
    assert len(losses) == 5


def test_any_loss_and_targets():
    model = nn.Linear(2, 1)
    x = torch.tensor([[1.0, 2.0]])
    before = nn.functional.l1_loss(model(x), torch.ones(1, 1)).item()
    losses = heal(model, [(x, torch.ones(1, 1))], loss=nn.functional.l1_loss, epochs=3)
    assert_allclose(losses[0], before, rtol=1e-6)


@every_case
def test_the_table_counts_every_parameter_once(case):
    model, names = network(case)
    swapped = compress_module(model, dict.fromkeys(names, 1))
    swapped, found = disentangle_module(swapped, names[0], left=2, n_init=1, max_sweeps=1)
    table = parameter_table(swapped)
    assert table.columns == ("layer", "MPO", "gates", "BatchNorm", "dense", "other", "all")
    total = table.rows[-1]
    assert total[-1] == sum(p.numel() for p in swapped.parameters())
    parts = found.factorization.parameter_counts()
    assert total[2] == parts["left gates"] + parts["right gates"]
    assert total[3] == (16 if case == "perceptron" else 0)
    assert sum(row[-1] for row in table.rows[:-1]) == total[-1]


def test_layers_say_themselves_of_which_kind_their_parameters_are():
    class Scaled(nn.Module):
        """A layer from outside the package, with a layer of the package inside."""

        def __init__(self):
            super().__init__()
            self.circuit = CircuitLayer(brickwall(3, 2), seed=0)
            self.scale = nn.Parameter(torch.ones(8))

        def parameter_groups(self):
            return {"gates": list(self.circuit.parameters()), "dense": [self.scale]}

    gates = brickwall(3, 2).n_parameters
    model = nn.Sequential(Scaled(), CircuitLayer(brickwall(3, 2), seed=0))
    assert [row[:1] + row[2:] for row in parameter_table(model).rows] == [
        ("0", gates, 0, 8, 0, gates + 8),
        ("1", gates, 0, 0, 0, gates),
        ("all", 2 * gates, 0, 8, 0, 2 * gates + 8),
    ]
    positive = keep_positive(MPOLinear(((2, 2),) * 3, 2, seed=0))
    assert parameter_table(positive).rows[-1][1] == 8 + 16 + 8


def test_the_plan_and_its_path_are_those_asked_for():
    model, _ = network("perceptron")
    swapped = compress_module(model, {"0": 2})
    options = {"left": 1, "n_init": 1, "max_sweeps": 1, "plan": "network", "optimize": "auto"}
    hybrid, found = disentangle_module(swapped, "0", **options)
    assert hybrid[0].plan == ("network", "network")
    x, _ = images()
    assert_allclose(
        hybrid[0](x).detach(),
        x.numpy() @ found.factorization.to_dense() + model[0].bias.detach().numpy(),
        atol=1e-10,
    )


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    assert parameter_table(model).rows[-1][-1] == 9 + 6


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ({"9": 2}, ValueError, "Sequential has no layer '9'; it has 0"),
        ({"1": 2}, ValueError, r"'1' is a convolution with kernel \(3, 3\)"),
        ({"2": 2}, TypeError, "'2' is a ReLU; give a torch.nn.Linear or a 1 x 1 convolution"),
        ({"6": {"bond": 2}}, TypeError, "bond"),
    ],
)
def test_layers_that_are_no_matrices(layers, error, message):
    with pytest.raises(error, match=message):
        compress_module(network("convolution")[0], layers)


@every_case
def test_a_layer_that_is_no_mpo_is_disentangled_as_it_is(case):
    model, (name, *_) = network(case)
    options = {"depth": 2, "n_init": 1, "max_sweeps": 3, "inputs": images()[0]}
    hybrid, found = disentangle_module(model, name, **options)
    _, expected = disentangle_module(compress_module(model, {name: {}}), name, **options)
    assert_allclose(found.factorization.to_dense(), expected.factorization.to_dense(), atol=1e-12)
    assert isinstance(module(hybrid, name), HybridLinear)
    assert type(model.get_submodule(name)) in (nn.Linear, nn.Conv2d)  # the model itself is left
    with pytest.raises(TypeError, match="give a torch.nn.Linear or a 1 x 1 convolution"):
        disentangle_module(hybrid, name, depth=1)


def test_what_has_no_matrix_is_not_disentangled():
    with pytest.raises(TypeError, match="'2' is a ReLU; give a torch.nn.Linear or a 1 x 1"):
        disentangle_module(network("perceptron")[0], "2", depth=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0 must be a whole number, 1 or more"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be a positive number"),
    ],
)
def test_settings_of_healing(options, message):
    with pytest.raises(ValueError, match=message):
        heal(nn.Linear(2, 2), [], **options)


@pytest.mark.parametrize("known", [True, False])
def test_the_rate_falls_to_zero(known, monkeypatch):
    rates = []
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self, *args: (rates.append(self.param_groups[0]["lr"]), step(self, *args))[1],
    )
    batches = [(torch.ones(1, 2), torch.tensor([0]))] * 2

    class Unsized:
        def __iter__(self):
            return iter(batches)

    heal(nn.Linear(2, 2), batches if known else Unsized(), epochs=2, learning_rate=0.1)
    share = [0, 0.25, 0.5, 0.75] if known else [0, 0, 0.5, 0.5]
    assert_allclose(rates, 0.05 * (1 + np.cos(np.pi * np.array(share))))


def test_healing_that_cannot_go_on():
    with pytest.raises(ValueError, match="the loader has no batches"):
        heal(nn.Linear(2, 2), [])
    bad = [(torch.full((1, 2), torch.inf), torch.tensor([0]))]
    with pytest.raises(ValueError, match="the loss is nan after epoch 1"):
        heal(nn.Linear(2, 2), bad)
