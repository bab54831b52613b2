"""Gates and gradients of circuits that are trained inside a network, against dense matrices."""

import copy

import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import cross_entropy, relu

from mpodis import brickwall
from mpodis.data import load_data
from mpodis.nn import (
    CircuitLayer,
    exponentials,
)
from mpodis.nn.triangular_gates import TriangularCircuitLayer, triangular_exponentials
from mpodis.paper import trained


def test_triangular_exponentials_are_those_of_scipy():
    numbers = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.zeros(3, 4, 4, dtype=torch.float64)
    t[:, [1, 2, 2, 3, 3, 3], [0, 0, 1, 0, 1, 2]] = numbers
    assert_allclose(triangular_exponentials(numbers), torch.linalg.matrix_exp(t), atol=1e-12)
    assert_allclose(triangular_exponentials(numbers[:, :1])[:, 1, 0], numbers[:, 0])


def test_triangular_gates_are_not_orthogonal_and_skew_ones_are():
    ansatz = brickwall(6, 3)
    shapes = {
        "skew": trained.shape_of([CircuitLayer(ansatz, seed=0)]),
        "triangular": trained.shape_of([TriangularCircuitLayer(ansatz, seed=0)]),
    }
    assert shapes["skew"]["distance"] < 1e-6
    assert_allclose(shapes["skew"]["condition"], 1, atol=1e-5)
    assert shapes["triangular"]["distance"] > 0.5
    assert shapes["triangular"]["condition"] > 10


def test_a_triangular_circuit_has_determinant_one_and_as_many_numbers():
    ansatz = brickwall(4, 2)
    circuit = TriangularCircuitLayer(ansatz, init_scale=None, dtype=torch.float64, seed=1)
    assert circuit.n_parameters == CircuitLayer(ansatz).n_parameters
    assert all(((p >= 0) & (p < 1)).all() for p in circuit.parameters())
    assert_allclose(torch.linalg.det(circuit.to_dense()).item(), 1, atol=1e-9)
    x = torch.randn(3, 16, dtype=torch.float64)
    assert_allclose(circuit(x).detach(), (x @ circuit.to_dense()).detach(), atol=1e-12)
    with pytest.raises(TypeError, match="not orthogonal"):
        circuit.circuit()
    with pytest.raises(ValueError, match="group='O' must be 'SO'"):
        TriangularCircuitLayer(brickwall(4, 2, group="O"))


def dense_gates(circuit, numbers):
    """The matrix of a circuit from its generators, gate by gate with Kronecker products."""
    q = torch.eye(2**circuit.n, dtype=torch.float64)
    count = {1: 0, 2: 0}
    for place in circuit.ansatz.placements:
        k, width = count[place.width], place.width
        count[width] += 1
        own = numbers[str(width)][k]
        if isinstance(circuit, TriangularCircuitLayer):
            gate = triangular_exponentials(own[None])[0]
        else:
            base = getattr(circuit, f"base{width}")[k].double()
            gate = base @ exponentials(own[None])[0]
        after = circuit.n - place.wires[0] - width
        eyes = [torch.eye(2**m, dtype=torch.float64) for m in (place.wires[0], after)]
        q = q @ torch.kron(torch.kron(eyes[0], gate), eyes[1])
    return q


@pytest.mark.parametrize("exponent", trained.EXPONENTS)
def test_gradients_are_those_of_dense_matrices(exponent):
    images = load_data("digits")
    x, y = torch.from_numpy(images.x_train[:50]).double(), torch.from_numpy(images.y_train[:50])
    model = trained.new_network(exponent, 2, cut=False, scale=0.5, batch=64, seed=3)
    layer = model.layers[0]
    numbers = [
        {w: p.detach().double().requires_grad_() for w, p in circuit.generators.items()}
        for circuit in (*layer.left, *layer.right)
    ]
    left, right = map(dense_gates, (*layer.left, *layer.right), numbers)
    z = x @ left @ copy.deepcopy(layer.core).double().weight() @ right
    z = (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt()
    cross_entropy(relu(z) @ model.layers[1].weight.detach().double().T, y).backward()
    expected = []
    for own in numbers:
        two, one = own["2"].grad.square().sum(1), own["1"].grad.square().sum(1)
        expected += [two[:3].sum().sqrt(), (two[3:].sum() + one.sum()).sqrt()]
    before = copy.deepcopy(model.state_dict())
    found = trained.layer_gradients(model, x, y)
    assert_allclose(found, torch.stack(expected), rtol=1e-9)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
