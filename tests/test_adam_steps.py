"""AdamSteps of the optimiser against a loop by hand, and recorded ones against those."""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn
from torch.nn.functional import cross_entropy

from mpodis.nn import MPOLinear
from mpodis.nn.adam_steps import AdamSteps, CudaGraphAdamSteps, adam_steps

pytestmark = pytest.mark.usefixtures("torch_generator_untouched")

IMAGES, FEATURES, CLASSES = 22, 8, 4


def network(dtype=torch.float32, *, norm=True):
    legs = ((2, 2),) * 3
    layers = [MPOLinear(legs, 2, seed=0, dtype=dtype)]
    layers += [nn.BatchNorm1d(FEATURES, dtype=dtype)] * norm
    layers += [nn.ReLU(), MPOLinear(((2, 1), (2, 2), (2, 2)), 2, bias=True, seed=1, dtype=dtype)]
    return nn.Sequential(*layers)


def images(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(IMAGES, FEATURES, generator=generator, dtype=dtype)
    return x, torch.randint(CLASSES, (IMAGES,), generator=generator)


def epochs(count, parts=3):
    """Numbers of the images of every batch of every epoch; batches are not of one size."""
    generator = torch.Generator().manual_seed(1)
    orders = (torch.randperm(IMAGES, generator=generator) for _ in range(count))
    return [list(order.tensor_split(parts)) for order in orders]


def test_steps_are_torchs_adam_and_half_cosine_bit_by_bit():
    x, y = images()
    batches = epochs(3)
    model, by_hand = network(), network()
    steps = AdamSteps(model, x, y, learning_rate=0.05, count=9)
    found = [steps.epoch(epoch) for epoch in batches]
    adam = torch.optim.Adam(by_hand.parameters(), lr=0.05)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 9)
    wanted = []
    for epoch in batches:
        total = torch.zeros(())
        for batch in epoch:
            loss = cross_entropy(by_hand(x[batch]), y[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            cosine.step()
            total += loss.detach() * len(batch)
        wanted.append(total.item() / IMAGES)
    assert found == wanted
    for (name, a), b in zip(model.state_dict().items(), by_hand.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_steps_are_adam_as_it_is_written():
    """Without any of torch's optimisers, in double precision."""
    x, y = images(torch.float64)
    batches = epochs(4)
    model, by_hand = network(torch.float64), network(torch.float64)
    steps = AdamSteps(model, x, y, learning_rate=0.05, count=12)
    found = [steps.epoch(epoch) for epoch in batches]
    parameters = list(by_hand.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    wanted, t = [], 0
    for epoch in batches:
        losses = []
        for batch in epoch:
            loss = cross_entropy(by_hand(x[batch]), y[batch])
            rate = 0.05 / 2 * (1 + math.cos(math.pi * t / 12))
            t += 1
            for p, m, v, g in zip(
                parameters, first, second, torch.autograd.grad(loss, parameters), strict=True
            ):
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.999).add_(0.001 * g * g)
                root = (v / (1 - 0.999**t)).sqrt() + 1e-8
                with torch.no_grad():
                    p -= rate * m / (1 - 0.9**t) / root
            losses.append(loss.item())
        wanted.append(np.average(losses, weights=[len(batch) for batch in epoch]))
    assert_allclose(found, wanted, rtol=1e-10)
    for a, b in zip(model.parameters(), parameters, strict=True):
        assert_allclose(a.detach(), b.detach(), rtol=1e-8, atol=1e-10)
    assert_allclose(steps.schedule.get_last_lr(), 0, atol=1e-12)


def test_the_loss_of_an_epoch_is_the_mean_over_its_images():
    x, y = images(torch.float64)
    model = network(torch.float64, norm=False)
    steps = AdamSteps(model, x, y, learning_rate=0.0, count=8)
    batches = [torch.arange(3), torch.arange(3, 4), torch.arange(4, IMAGES)]
    whole = cross_entropy(model(x), y).item()
    for _ in range(2):  # the second does not remember the first
        assert_allclose(steps.epoch(batches), whole, rtol=1e-12)
    part = cross_entropy(model(x[:4]), y[:4]).item()
    assert_allclose(steps.epoch(batches[:2]), part, rtol=1e-12)


def test_the_processor_takes_its_steps_one_by_one():
    assert type(adam_steps(network(), *images(), learning_rate=0.1, count=3)) is AdamSteps


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("parts", [1, 3])
def test_recorded_steps_give_the_losses_of_steps(parts):
    x, y = (tensor.cuda() for tensor in images())
    batches, settings = epochs(8, parts), {"learning_rate": 0.02, "count": 8 * parts}
    model, other = network().cuda(), network().cuda()
    recorded = adam_steps(model, x, y, **settings)
    assert type(recorded) is CudaGraphAdamSteps
    plain = AdamSteps(other, x, y, **settings)
    assert_allclose(
        [recorded.epoch(epoch) for epoch in batches],
        [plain.epoch(epoch) for epoch in batches],
        atol=1e-4,
    )
    assert recorded._captured.keys() == {len(batch) for batch in batches[0]}
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert_allclose(a.cpu(), b.cpu(), atol=1e-3)
