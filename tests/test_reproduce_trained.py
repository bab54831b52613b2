"""`mpodis reproduce trained`: gates, gradients and starts are what the record says they are."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn.functional import cross_entropy, relu

from mpodis import brickwall, disentangle, report
from mpodis.data import load_data
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.nn import (
    CircuitLayer,
    FactorizedLinear,
    Recipe,
    accuracy,
    exponentials,
    replace_layer,
)
from mpodis.nn.triangular_gates import TriangularCircuitLayer, triangular_exponentials
from mpodis.paper import inside, trained
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.networks import network

SMALL = trained.Trained(
    seeds=1,
    workers=1,
    depths=(1, 5),
    cut_depths=(5,),
    start_depths=(2,),
    epochs=1,
    checks=(2, 4),
    heal_rates=(0.01, 0.02),
    starts=1,
    max_sweeps=5,
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Options, directory and record of a small run."""
    path = tmp_path_factory.mktemp("trained")
    options = replace(SMALL, networks=str(path / "networks"))
    directory = JobDirectory.create(path / "run", f"{REPRODUCE}trained", options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mpodis.nn.compact_tnn.RECIPES", {"digits": Recipe(3, 0.03, 64)})
        patch.setattr(inside, "SEEN", 100)
        run_experiment(trained.EXPERIMENT, options, directory)
    return options, directory, directory.results()


@pytest.fixture(scope="module")
def record(ran):
    return ran[2]


def test_triangular_exponentials_are_those_of_scipy():
    numbers = torch.randn(3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = torch.zeros(3, 4, 4, dtype=torch.float64)
    t[:, [1, 2, 2, 3, 3, 3], [0, 0, 1, 0, 1, 2]] = numbers
    assert_allclose(triangular_exponentials(numbers), torch.linalg.matrix_exp(t), atol=1e-12)
    assert_allclose(triangular_exponentials(numbers[:, :1])[:, 1, 0], numbers[:, 0])


def test_triangular_gates_are_not_orthogonal_and_skew_ones_are():
    ansatz = brickwall(6, 3)
    shapes = {
        "skew": inside.shape_of([CircuitLayer(ansatz, seed=0)]),
        "triangular": inside.shape_of([TriangularCircuitLayer(ansatz, seed=0)]),
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
    model = inside.new_network(exponent, 2, cut=False, scale=0.5, batch=64, seed=3)
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
    found = inside.layer_gradients(model, x, y)
    assert_allclose(found, torch.stack(expected), rtol=1e-9)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_record_has_every_piece(record):
    names = [piece.name for piece in trained.pieces(SMALL)]
    assert list(record["pieces"]) == names
    assert len(names) == 1 + 2 + 4 + 5
    for piece in trained.chosen(record, "depth"):
        assert len(piece["gradients"]) == 2 * piece["depth"]
        assert min(piece["gradients"]) > 0
        assert len(piece["losses"]) == 1
        assert 0 < piece["accuracy"] < 100
        assert (piece["before"]["distance"] < 1e-5) == piece["variant"].startswith("skew")
        assert (piece["after"]["distance"] < 1e-5) == piece["variant"].startswith("skew")
    cut, whole = (
        trained.chosen(record, "depth", variant=v, depth=5)[0] for v in ("skew, cut", "skew")
    )
    assert cut["counts"] == whole["counts"]  # what is put at a cut has no parameters
    assert cut["gradients"] != whole["gradients"]
    assert not trained.chosen(record, "depth", variant="skew, cut", depth=1)


def test_networks_of_the_draws_are_those_that_are_trained(record):
    for draw, variant in (("skew, Haar", "skew"), ("triangular, normal 0.5", "triangular")):
        for place in trained.PLACES:
            expected = trained.gradients(record, variant, 5, place)
            assert_allclose(trained.drawn(record, draw, 5, place), expected)


def test_an_explicit_start_has_the_accuracy_of_the_factorization(ran):
    options, _, record = ran
    images = load_data("digits")
    model = network("digits", options.networks, 0)
    found = disentangle(
        model.mpo.to_mpo(),
        left=brickwall(6, 2),
        max_bond=1,
        init="identity",
        n_init=1,
        max_sweeps=5,
        seed=0,
    )
    layer = FactorizedLinear(found.factorization, dtype=torch.float64)
    score = accuracy(replace_layer(model, "mpo", layer), images.x_test, images.y_test)
    (piece,) = trained.chosen(record, "start", start="overlap", seed=0)
    one_image = 100 / len(images.y_test)
    first = piece["steps"]["0.01"][0]
    assert_allclose(first, (0, score), atol=1.01 * one_image)  # float32 beside float64
    assert_allclose(piece["original"], accuracy(model, images.x_test, images.y_test))


def test_starts_take_the_same_steps(record):
    for piece in trained.chosen(record, "start"):
        assert list(piece["steps"]) == ["0.01", "0.02"]
        for rows in piece["steps"].values():
            assert [step for step, _ in rows] == [0, 2, 4]
            assert rows[0] == piece["steps"]["0.01"][0]
    sizes = {p["start"]: p["parameters"] for p in trained.chosen(record, "start")}
    gates = 2 * (5 * 6 + 2)
    assert sizes == {s: 650 + (24 + gates if s != "as-trained" else 80) for s in trained.STARTS}
    (whole,) = trained.chosen(record, "start", start="as-trained")
    assert_allclose(whole["steps"]["0.02"][0][1], whole["original"], atol=0.3)


def test_random_starts_have_the_norm_of_the_layer(ran):
    model = network("digits", ran[0].networks, 0)
    layer = inside.beginning("random", model, None, depth=2, seed=0)
    assert_allclose(layer.weight().norm().item(), model.mpo.weight().norm().item())


def test_a_resumed_run_is_the_same(ran, tmp_path):
    options, directory, record = ran
    stage = directory.path / "stages" / "seed0-identity-depth2.json"
    before = json.loads(stage.read_text())["result"]
    stage.unlink()
    again = run_experiment(trained.EXPERIMENT, options, directory)
    assert json.loads(json.dumps(again["pieces"])) == record["pieces"]
    assert json.loads(stage.read_text())["result"] == before


def test_tables_figure_and_finding(record):
    gates, draws, scores, starts = trained.tables(record)
    assert [row[:2] for row in gates.rows] == [row[:2] for row in scores.rows]
    assert [row[0] for row in draws.rows] == list(inside.DRAWS)
    assert len(starts.rows) == 2 * 5
    assert starts.columns[4:] == ("step 0", "step 2", "step 4")
    for table in (gates, draws, scores, starts):
        assert len(str(table).splitlines()) > len(table.rows)
    assert report.figure_of(record)[:4] == b"\x89PNG"
    text = record["finding"]
    assert "from 1 to 5 layers a side" in text
    assert len(re.findall(r": (?:do not )?vanish, ", text)) == len(inside.DRAWS)
    means = [np.mean(trained.curves(record, "random", 2, 0.02)[k]) for k in (0, 4)]
    assert f"random, 2 layers {means[0]:.2f} to {means[1]:.2f}" in text.split("rate 0.02")[1]


def test_the_finding_says_where_gradients_vanish(record):
    less = json.loads(json.dumps(record))
    for piece in trained.chosen(less, "draws"):
        for row in piece["rows"]:
            if row["draw"] == "skew, Haar":
                row["gradients"] = [row["depth"] ** -3.0] * len(row["gradients"])
    text = trained.finding(less)
    assert "skew, Haar: vanish, first 0.008, median 0.008, last 0.008" in text


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"depths": (2, 1)}, r"depths=\(2, 1\) must be ascending"),
        ({"cut_depths": (4, 8)}, r"cut_depths=\(4, 8\) must be of .*, above 4"),
        ({"checks": ()}, r"checks=\(\) must be ascending"),
        ({"data": "cifar10"}, "data='cifar10' has no recipe; use one of digits, mnist"),
    ],
)
def test_options_that_make_no_sense(bad, text):
    with pytest.raises(ValueError, match=text):
        trained.Trained(**bad)
