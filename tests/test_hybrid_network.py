"""Networks of MPO layers and circuits: what they consist of, and the dense network they are."""

import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from mpodis.nn import HybridLinear
from mpodis.nn.hybrid_network import NORMS, HybridNetwork, LayerSpec, ShiftedBatchNorm

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")

SPECS = (
    LayerSpec(((3, 2), (2, 2), (2, 2)), 2, left="2b", right="1b + 2b"),
    LayerSpec(((2, 1), (2, 2), (2, 2)), (1, 2), left="CNOT + 1b"),
    LayerSpec(((4, 5),)),
)


def network(specs=SPECS, **options):
    return HybridNetwork(specs, **({"seed": 0, "init_scale": 0.5} | options))


def batch(features=12, count=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, features, generator=generator, dtype=torch.float64)


# --- what they consist of


def test_layers_and_shapes():
    model = network()
    assert [name for name, _ in model.named_children()] == [
        *("layer1", "norm1", "relu1"),
        *("layer2", "norm2", "relu2"),
        "layer3",
    ]
    assert [stage.shape for stage in SPECS] == [(12, 8), (8, 4), (4, 5)]
    assert [type(layer) for layer in model.layers] == [HybridLinear, HybridLinear, nn.Linear]
    assert model.layers[1] is model.layer2
    assert model.specs == SPECS
    assert model(batch().float()).shape == (9, 5)
    assert network(SPECS[-1:])(batch(4).float()).shape == (9, 5)


@pytest.mark.parametrize(("norm", "per_feature"), [("affine", 2), ("shift", 1)])
def test_counts_by_hand(norm, per_feature):
    model = network(norm=norm)
    cores = (12 + 16 + 8) + (2 + 8 + 8)
    gates = 6 + (3 + 6 + 1) + 3  # 2 wires; 3, one of which is left over by 2b; 3
    norms = per_feature * (8 + 4)
    wanted = {"MPO": cores, "gates": gates, "BatchNorm": norms, "dense": 20, "other": 0}
    assert model.counts() == wanted | {"all": cores + gates + norms + 20}
    assert model.counts()["all"] == sum(p.numel() for p in model.parameters())


def test_the_first_gate_is_on_the_wire_of_the_parity():
    for parity in (0, 1):
        ansatz = network(parity=parity).layer2.left[0].ansatz
        assert ansatz.layers[0][0].wires == (parity, parity + 1)


def test_circuits_are_normalized_at_activation_functions_unless_one_says_no():
    specs = (LayerSpec(((2, 2),) * 3, left="2b | 2b"), LayerSpec(((8, 2),)))
    for norm, kind in ((True, nn.BatchNorm1d), (False, nn.Identity)):
        model = network(specs, norm_in_circuits=norm)
        assert [type(norm) for norm in model.layer1.norms["left"]] == [kind]
        assert model.counts()["BatchNorm"] == 16


def test_gates_are_near_the_identity_or_haar_random():
    near, far = (
        network(init_scale=scale).layer1.left[0].to_dense().detach() for scale in (1e-3, None)
    )
    assert (near - torch.eye(4)).norm() < 0.01 < 0.5 < (far - torch.eye(4)).norm()


def test_one_seed_is_one_network():
    one, again, other = (network(seed=seed) for seed in (3, 3, 4))
    drawn = network(seed=torch.Generator().manual_seed(3))
    for a, b, c in zip(one.parameters(), again.parameters(), drawn.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    for layer, another in zip(one.layers, other.layers, strict=True):
        a, b = next(layer.parameters()), next(another.parameters())
        assert not torch.equal(a, b)


def test_dense_weights_are_spread_as_torch_does_it():
    weight = network((LayerSpec(((400, 100),)),)).layer1.weight
    assert weight.abs().max() <= 0.05
    assert_allclose(weight.std().item(), 0.05 / 3**0.5, rtol=0.01)


# --- the dense network they are


def by_hand(model, x):
    """The layers one by one, with dense weights; a norm of the batch itself."""
    for k, layer in enumerate(model.layers, 1):
        x = x @ (layer.weight.T if isinstance(layer, nn.Linear) else layer.weight())
        if k < len(model.layers):
            norm = model.get_submodule(f"norm{k}")
            scale, shift = (norm.weight, norm.bias) if norm.affine else (1, norm.shift)
            mean, var = x.mean(0), x.var(0, unbiased=False)
            if not model.training:
                mean, var = norm.running_mean, norm.running_var
            x = torch.relu((x - mean) / (var + norm.eps).sqrt() * scale + shift)
    return x


@pytest.mark.parametrize("rows", [1, 256])
@pytest.mark.parametrize("norm", NORMS)
def test_forward_is_that_of_the_dense_layers(norm, rows):
    """With circuits applied to the batch, and to the core."""
    model = network(norm=norm, batch_size=rows).double()
    plans = {layer.plan for layer in model.layers[:2]}
    assert plans == {("matrix", "matrix") if rows == 256 else ("batch", "batch")}
    with torch.no_grad():
        for k, (name, p) in enumerate(model.named_parameters()):
            if name.startswith("norm"):
                p += 0.1 * torch.arange(len(p)) + 0.1 * k
    for seed in range(3):
        x = batch(seed=seed)
        assert_allclose(model(x).detach(), by_hand(model, x).detach(), atol=1e-10)
    model.eval()
    assert_allclose(model(x).detach(), by_hand(model, x).detach(), atol=1e-10)


@pytest.mark.parametrize("norm", NORMS)
def test_state_goes_from_one_network_to_another(norm):
    one, other = network(norm=norm, init_scale=None), network(norm=norm, seed=1)
    x = batch().float()
    one(x)  # moves the statistics
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(x), other.eval()(x))


def test_a_shifted_norm_is_a_batch_norm_without_its_scale():
    shifted, plain = ShiftedBatchNorm(6).double(), nn.BatchNorm1d(6, dtype=torch.float64)
    plain.weight.requires_grad_(False)
    assert [tuple(p.shape) for p in shifted.parameters()] == [(6,)]
    shift = batch(6, 1)[0]
    with torch.no_grad():
        shifted.shift.copy_(shift)
        plain.bias.copy_(shift)
    for seed in range(3):
        weights, x = batch(6, seed=10), batch(6, seed=seed).requires_grad_()
        y, wanted = shifted(x), plain(x)
        assert_allclose(y.detach(), wanted.detach(), atol=1e-14)
        found = torch.autograd.grad((y * weights).sum(), (shifted.shift, x))
        for a, b in zip(
            found, torch.autograd.grad((wanted * weights).sum(), (plain.bias, x)), strict=True
        ):
            assert_allclose(a, b, atol=1e-12)
    assert torch.equal(shifted.running_mean, plain.running_mean)
    assert torch.equal(shifted.running_var, plain.running_var)
    assert shifted.num_batches_tracked == 3
    assert_allclose(shifted.eval()(x).detach(), plain.eval()(x).detach(), atol=1e-14)


# --- what cannot be


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ((), {}, "a network needs one layer or more"),
        (SPECS, {"norm": "layer"}, "norm='layer' is not known; use affine, shift"),
        (
            (SPECS[0], SPECS[2]),
            {},
            "layer 2 has 4 inputs, but layer 1 has 8 outputs; change the legs",
        ),
        (
            (LayerSpec(((4, 5),), right="1b"),),
            {},
            r"a layer of one site, \(\(4, 5\),\), has no wires for circuits",
        ),
        ((LayerSpec(((2, 2),) * 2, left="3b"),), {}, "a gate on 3 wires does not fit"),
        ((LayerSpec(((2, 2),) * 2, 0),), {}, "bond=0 must be"),
        ((LayerSpec(()),), {}, "must name at least one site"),
        ((LayerSpec(((0, 3),)),), {}, "every dimension 1 or more"),
        (SPECS, {"parity": 2}, "parity=2 must be 0 or 1"),
        (SPECS, {"batch_size": 0}, "batch_size=0 must be a whole number, 1 or more"),
    ],
)
def test_networks_that_make_no_sense(specs, options, message):
    with pytest.raises(ValueError, match=message):
        network(specs, **options)
