"""The experiment `trained`."""

import copy
from typing import Any

import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import cross_entropy, relu

from mpodis import brickwall, disentangle
from mpodis.data import load_data
from mpodis.nn import CircuitLayer, FactorizedLinear, accuracy, exponentials, replace_layer
from mpodis.nn.triangular_gates import TriangularCircuitLayer, triangular_exponentials
from mpodis.paper import trained
from mpodis.paper.networks import network
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("trained"))


def test_gates_of_one_exponent_are_orthogonal_before_and_after(ran):
    found = rows(ran("trained")).query("question == 'depth'")
    cases = [("skew", 1), ("skew", 5), ("skew, cut", 5)]
    cases += [(f"triangular{name[4:]}", depth) for name, depth in cases]
    assert list(zip(found["gates"], found["depth"], strict=True)) == cases
    skew = found["gates"].str.startswith("skew")
    assert ((found["distance"] < 1e-5) == skew).all()
    assert ((found["trained_distance"] < 1e-5) == skew).all()
    by_gates = found.query("depth == 5").set_index("gates")
    # what is put at a cut has no parameters
    assert by_gates["parameters"]["skew, cut"] == by_gates["parameters"]["skew"]
    assert by_gates["first"]["skew, cut"] != by_gates["first"]["skew"]


def test_networks_of_the_draws_are_those_that_are_trained(ran):
    found = rows(ran("trained")).query("depth == 5").set_index(["question", "gates"])
    for draw, variant in (("skew, Haar", "skew"), ("triangular, normal 0.5", "triangular")):
        drawn, there = found.loc["draw", draw], found.loc["depth", variant]
        assert_allclose(*(row[trained.SHOWN_LAYERS].astype(float) for row in (drawn, there)))


def test_what_is_left_of_gradients_is_the_ratio_of_geometric_means():
    norms = {1: (1.0, 4.0), 8: (0.01, 0.01)}
    made = [
        {"question": "draw", "gates": "skew", "depth": depth, "seed": seed}
        | dict.fromkeys(trained.SHOWN_LAYERS, norm)
        for depth, each in norms.items()
        for seed, norm in enumerate(each)
    ]
    assert_allclose(trained.gained(pd.DataFrame(made)), [[0.005] * 3])


def test_an_explicit_start_has_the_accuracy_of_the_factorization(ran, networks):
    found, images = rows(ran("trained")), load_data("digits")
    model = network("digits", networks, 0)
    search = {"max_bond": 1, "init": "identity", "n_init": 1, "max_sweeps": 5, "seed": 0}
    whole = disentangle(model.mpo.to_mpo(), left=brickwall(6, 2), **search)
    layer = FactorizedLinear(whole.factorization, dtype=torch.float64)
    score = accuracy(replace_layer(model, "mpo", layer), images.x_test, images.y_test)
    first = found.query("gates == 'overlap' and step == 0")["accuracy"]
    assert_allclose(first, score, atol=1.01 * 100 / len(images.y_test))  # float32, not float64
    original = accuracy(model, images.x_test, images.y_test)
    whole = found.query("gates == 'as trained' and step == 0")["accuracy"]
    assert_allclose(whole, original, atol=0.3)


def test_starts_take_the_same_steps(ran):
    found = rows(ran("trained")).query("question == 'start'")
    for _, each in found.groupby("gates"):
        curves = each.pivot_table("accuracy", "step", "rate")
        assert curves.index.tolist() == [0, 2, 4]
        assert curves.loc[0].nunique() == 1
    sizes = found.groupby("gates")["parameters"].first().to_dict()
    gates = 2 * (5 * 6 + 2)
    assert sizes == {s: 650 + (24 + gates if s != "as trained" else 80) for s in trained.STARTS}


def test_random_starts_have_the_norm_of_the_layer(ran, networks):
    ran("trained")
    model = network("digits", networks, 0)
    begun: Any = trained.started("random", model, load_data("digits"), depth=2, seed=0)
    assert_allclose(begun.mpo.weight().norm().item(), model.mpo.weight().norm().item())


def test_data_without_a_recipe_are_refused_before_anything_is_written():
    options = trained.Trained(networks="x", data="cifar10")
    with pytest.raises(ValueError, match="no recipe for data='cifar10'; give epochs, learning_"):
        trained.EXPERIMENT.prepare(options)


# --- gates and gradients against dense matrices


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
