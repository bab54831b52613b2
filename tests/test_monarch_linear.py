"""Monarch layers against the Monarch matrices they hold."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from mpodis.nn.monarch_linear import MonarchLinear
from mpodis.structured import monarch

CASES = [
    ((12, 20), ((3, 4), (4, 5)), 1),
    ((12, 20), ((3, 4), (4, 5)), 2),
    ((11, 18), ((4, 5), (3, 4)), 2),
]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "legs", "rank"), CASES, ids=str)
def test_the_weight_is_the_nearest_monarch_matrix(shape, legs, rank, reverse):
    rng = np.random.default_rng(0)
    matrix, bias = rng.normal(size=shape), rng.normal(size=shape[1])
    nearest = monarch(matrix, legs, rank=rank, reverse=reverse)
    options = {"rank": rank, "reverse": reverse, "bias": bias, "dtype": torch.float64}
    layer = MonarchLinear(matrix, legs, **options)
    assert layer.parameters_used == nearest.parameters
    x = torch.from_numpy(rng.normal(size=(5, shape[0])))
    assert_allclose(layer(x).detach().numpy(), x.numpy() @ nearest.matrix + bias, atol=1e-12)
    # a Monarch matrix comes back as it is
    again = MonarchLinear(nearest.matrix, legs, **options)
    assert_allclose(again.weight().detach().numpy(), nearest.matrix, atol=1e-12)


def test_both_factors_and_the_bias_are_trained():
    layer = MonarchLinear(np.eye(6), ((2, 3), (3, 2)), bias=np.zeros(6))
    layer(torch.rand(4, 6)).square().sum().backward()
    assert all(p.grad.norm() > 0 for p in layer.parameters())


def test_errors():
    with pytest.raises(ValueError, match="two pairs"):
        MonarchLinear(np.eye(8), ((2, 2),) * 3)
    with pytest.raises(ValueError, match="6 features"):
        MonarchLinear(np.eye(6), ((2, 3), (3, 2)))(torch.rand(4, 5))
