"""A layer of one's own, in as few lines as a new user writes, with the package's public names."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

SCIKIT_LEARN = """
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

x, y = load_digits(return_X_y=True)
net = MLPClassifier(64, alpha=1.0, max_iter=500, random_state=0).fit(x[:1200] / 16, y[:1200])
"""
OWN_MATRIX = """
import mpodis
from mpodis.plots import plot_entropies
before = mpodis.entanglement(net.coefs_[0])
run = mpodis.disentangle(net.coefs_[0], depth=8, max_bond=4, init="identity")
plot_entropies(before, run)
net.coefs_[0] = run.factorization.to_dense()
print(before.average, run.entropies_after.mean(), net.score(x[1200:] / 16, y[1200:]))
"""

OWN_TORCH_NETWORK = """
import torch
from mpodis.data import load_data
from mpodis.nn import accuracy, disentangle_module, train_classifier

data = load_data("digits", seed=0)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
train_classifier(net, data, epochs=30, batch_size=64, learning_rate=0.003, seed=0)
hybrid, run = disentangle_module(
    net, "0", depth=8, max_bond=4, init="identity", inputs=data.x_train, max_sweeps=60, n_init=1
)
print(accuracy(net, data.x_test, data.y_test), accuracy(hybrid, data.x_test, data.y_test))
"""


def lines_of(code):
    return sum(bool(line.strip()) for line in code.splitlines())


def test_entropies_and_accuracy_of_a_scikit_learn_network():
    found = {}
    exec(SCIKIT_LEARN, found)
    net, test = found["net"], (found["x"][1200:] / 16, found["y"][1200:])
    matrix, whole = net.coefs_[0].copy(), net.score(*test)
    assert lines_of(OWN_MATRIX) <= 8
    exec(OWN_MATRIX, found)
    run = found["run"]
    assert run.entropies_after.mean() < found["before"].average - 0.2
    error = np.linalg.norm(matrix - net.coefs_[0]) / np.linalg.norm(matrix)
    assert_allclose(run.relative_error, error, atol=1e-10)
    assert 0.7 < net.score(*test) < whole
    first, second = plt.gca().get_lines()
    assert_array_equal(first.get_ydata(), found["before"].entropies)
    assert_array_equal(second.get_ydata(), run.entropies_after)


@pytest.mark.usefixtures("torch_generator_untouched")
def test_accuracy_of_a_torch_network():
    import torch

    assert lines_of(OWN_TORCH_NETWORK) <= 15
    found = {}
    with torch.random.fork_rng():
        exec(OWN_TORCH_NETWORK, found)
    net, hybrid, data = found["net"], found["hybrid"], found["data"]
    assert isinstance(net[0], torch.nn.Linear)
    inputs = torch.from_numpy(data.x_test).float()
    expected, outputs = net[0](inputs), hybrid[0](inputs)
    error = (torch.linalg.norm(outputs - expected) / torch.linalg.norm(expected)).item()
    # the bias, which stays, is part of these; the test images are others than the run's
    assert_allclose(error, found["run"].activation_error, atol=0.05)
    counts = hybrid[0].parameter_counts()
    assert counts.pop("bias") == 64
    assert counts == found["run"].factorization.parameter_counts()
