"""Executed networks: as in torch where they are exact, resumable, and with honest intervals."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from torch import nn

from mpodis.circuit.circuit import Circuit
from mpodis.data import load_data
from mpodis.nn import CompactTNN, HybridLinear, predict, with_external_circuits
from mpodis.quantum import (
    Interference,
    ShotRunner,
    StatevectorRunner,
    Tomography,
    evaluate,
    run_circuit,
)
from mpodis.quantum.evaluation import summarised, wilson_interval

QUBITS = ((2, 2),) * 3
LAYERS = {
    "plain": {"legs": QUBITS, "left": "2b + 2b", "right": "2b"},
    "cut": {"legs": QUBITS, "left": "1b + CNOT | 2b", "right": "2b | 1b + CNOT", "norm": True},
    "one side": {"legs": QUBITS, "right": "2b"},
    "other legs": {"legs": ((2, 3), (3, 2), (2, 2)), "left": "2b", "right": "2b | 1b"},
    "cropped": {"legs": QUBITS, "left": "3b", "shape": (7, 6), "bias": True},
    "complex": {"legs": QUBITS, "left": "2b", "right": "2b + 2b", "group": "U"},
}


def layer(name, bond=2):
    # in double precision from the start: gates of float32 are orthogonal to 1e-7 only
    options = {"seed": 1, "init_scale": None, "dtype": torch.float64, **LAYERS[name]}
    made = HybridLinear(bond=bond, **options).eval()
    if made.bias is not None:
        nn.init.normal_(made.bias)
    return made


class Real(nn.Module):
    def forward(self, x):
        return x.real


def network(name="cut"):
    first = layer(name)
    parts = [first, Real()] if first.is_complex else [first, nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(first.outputs, 4, dtype=torch.float64)).eval()


def images(inputs, n=7):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, inputs)), rng.integers(4, size=n)


@pytest.mark.parametrize("name", LAYERS)
def test_an_exact_execution_is_the_layer(name):
    one = layer(name)
    x = torch.from_numpy(images(one.inputs)[0])
    for run in (run_circuit, Circuit.apply):
        executed = with_external_circuits(one, run)
        with torch.no_grad():
            assert_allclose(executed(x).numpy(), one(x).numpy(), atol=1e-10)


@pytest.mark.parametrize("name", ["cut", "complex"])
def test_single_precision_is_taken_to_double(name):
    options = {"seed": 1, "init_scale": None, **LAYERS[name]}
    one = HybridLinear(bond=2, **options).eval()
    x = torch.from_numpy(images(one.inputs)[0])
    executed = with_external_circuits(one, run_circuit)
    with torch.no_grad():
        y = executed(x)
        assert y.dtype == (torch.complex128 if one.is_complex else torch.float64)
        given = x.to(one.core.site_tensors[0].dtype)
        assert_allclose(y.numpy(), one(given).numpy(), atol=1e-5)


def test_segments_run_one_by_one_through_the_circuits():
    one = layer("cut")
    seen = []

    def run(trained, rows):
        seen.append((trained, rows.shape))
        return torch.from_numpy(run_circuit(trained.circuit(), rows.numpy()))

    x = torch.from_numpy(images(8)[0])
    with torch.no_grad():
        assert_allclose(one.forward_with(x, run).numpy(), one(x).numpy(), atol=1e-10)
    assert [trained for trained, _ in seen] == [*one.left, *one.right]
    assert {shape for _, shape in seen} == {(7, 8)}


@pytest.mark.parametrize("name", LAYERS)
def test_exact_evaluation_agrees_with_torch_and_counts_what_it_runs(name):
    model = network(name)
    x, y = images(layer(name).inputs)
    found = evaluate(model, (x, y), batch_size=3)
    assert found.agreement == 100
    assert found.executed == found.classical == 100 * np.mean(predict(model, x) == y)
    assert found.lost == 0
    assert found.lost_interval == (0, 0)
    sides = len(model[0].left) + len(model[0].right)
    if name != "other legs":  # there one image is several vectors
        assert found.vectors == found.circuits == 7 * sides
    assert found.shots == 0
    assert found.images == 7


def test_exact_logits_are_those_of_the_network():
    model = network("cut")
    x = torch.from_numpy(images(8, 200)[0])
    with torch.no_grad():
        assert_allclose(with_external_circuits(model, run_circuit)(x), model(x), rtol=0, atol=1e-8)


def test_the_cost_is_logged_before_anything_is_run(caplog):
    x, y = images(8)
    with caplog.at_level("INFO", logger="mpodis"):
        evaluate(network("one side"), (x, y), readout=Tomography(50, 100), images=3)
    assert "ShotRunner: 3 vectors of 3 qubits take 84 circuits and 4350 shots" in caplog.text


def test_shots_are_those_of_the_readout():
    model = network("plain")
    x, y = images(8)
    x[2] = 0  # is not run by the first circuit, and the bias-free rest gives zeros again
    found = evaluate(model, (x, y), readout="interference", shots=5000)
    assert found.vectors == found.circuits == 12
    assert found.shots == 12 * 5000
    assert found.agreement > 50
    tomography = evaluate(model, (x, y), readout=Tomography(50, 100), images=2)
    assert tomography.images == 2
    assert tomography.circuits == 4 * 28
    assert tomography.shots == 4 * (27 * 50 + 100)


def test_an_interrupted_evaluation_goes_on_to_the_same_result(tmp_path):
    model, (x, y) = network("cut"), images(8)
    options = {"readout": "interference", "shots": 200, "batch_size": 2}
    whole = evaluate(model, (x, y), **options)
    calls = []

    class Interrupted(ShotRunner):
        def run(self, circuit, states, *, progbar=False):
            if len(calls) == 10:  # two batches of four circuits, and a half
                raise KeyboardInterrupt
            calls.append(circuit)
            return super().run(circuit, states, progbar=progbar)

        def __repr__(self):
            return repr(ShotRunner(self.readout))

    runner = Interrupted(Interference(200))
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, (x, y), runner=runner, batch_size=2, run_dir=tmp_path)
    assert {file.name for file in tmp_path.glob("*.safetensors")} == {
        "batch-0.safetensors",
        "batch-1.safetensors",
    }
    resumed = evaluate(model, (x, y), **options, run_dir=tmp_path)
    for name in ("executed", "agreement", "vectors", "circuits", "shots"):
        assert getattr(resumed, name) == getattr(whole, name)
    # nothing is executed any more: the wall time is the same, too
    again = evaluate(model, (x, y), **options, run_dir=tmp_path)
    assert again == resumed


@pytest.mark.parametrize("changed", ["network", "images", "shots", "batch_size"])
def test_a_directory_of_another_evaluation(tmp_path, changed):
    x, y = images(8)
    options = {"readout": "interference", "shots": 200, "batch_size": 4, "run_dir": tmp_path}
    model = network("plain")
    evaluate(model, (x, y), **options)
    if changed == "network":
        nn.init.zeros_(model[2].bias)
    elif changed == "images":
        x = x + 1
    else:
        options[changed] = 3
    differs = {"shots": "runner"}.get(changed, changed)
    with pytest.raises(ValueError, match=f"another run of evaluate: {differs} differs"):
        evaluate(model, (x, y), **options)


def test_the_model_stays_as_it_is():
    model, (x, y) = network("cut").float(), images(8)
    before = copy.deepcopy(model.state_dict())
    evaluate(model, (x, y), readout="hypercube", shots=100)
    assert isinstance(model[0], HybridLinear)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert_array_equal(tensor.numpy(), before[name].numpy())


def test_a_data_set_and_the_compact_network():
    data = load_data("digits")
    model = CompactTNN(inputs=64, bond=1, classes=10, seed=0)
    model.mpo = HybridLinear(model.mpo.legs, 1, left="2b", right="2b", seed=0)
    model.double().eval()
    found = evaluate(model, data, images=5)
    assert found.executed == 100 * np.mean(predict(model, data.x_test[:5]) == data.y_test[:5])
    assert dict(found.table().rows)["images"] == "5"
    assert found.to_dict()["images"] == 5


def test_intervals_are_those_of_the_textbook():
    for right, n in ((0, 5), (3, 7), (50, 50), (930, 1000)):
        low, high = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
        assert_allclose(wilson_interval(right / n, n), (low, high), atol=1e-9)

    classes = np.array([[1, 1]] * 6 + [[0, 1]] * 3 + [[1, 0]])
    found = summarised(classes, np.ones(10, int), np.zeros(3), 0.0)
    assert_allclose(found.lost, 20)
    difference = np.array([0] * 6 + [1] * 3 + [-1])  # of every image
    half = 100 * 1.959964 * difference.std() / 10**0.5
    assert_allclose(found.lost_interval, (20 - half, 20 + half))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "guess"}, "readout='guess' is not known"),
        ({"shots": 10}, "shots=10 need a readout"),
        ({"readout": Tomography(), "shots": 10}, "has its own shots"),
        ({"readout": "interference", "runner": StatevectorRunner()}, "give a runner, or a readout"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"images": -1}, "images=-1"),
        ({"readout": "interference", "shots": 0}, "shots=0"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(network("plain"), images(8), **options)


def test_wrong_models_and_data():
    x, y = images(8)
    with pytest.raises(ValueError, match="Sequential has no HybridLinear with circuits"):
        evaluate(nn.Sequential(nn.Linear(8, 4)), (x, y))
    with pytest.raises(ValueError, match="7 images need as many labels"):
        evaluate(network("plain"), (x, y[:-1]))
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match="images hold NaN"):
        evaluate(network("plain"), (x, y))
