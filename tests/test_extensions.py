"""Extensions from outside the package, used by name through the public functions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    Factorization,
    brickwall,
    compress,
    disentangle,
    load_run,
    random_circuit,
    register_objective,
)
from mpodis.objectives import OBJECTIVES
from mpodis.sites import tensors_to_dense
from reference import random_matrix


@pytest.fixture
def signed_counts():
    """A readout that takes the magnitudes from one circuit and every sign from another one."""
    from mpodis.quantum import READOUTS, Measurement, register_readout

    @register_readout
    @dataclass(frozen=True)
    class SignedCounts:
        name: ClassVar[str] = "signed counts"
        shots: int = 1000

        def measurements(self, n, *, is_complex=False):
            signs = ("X" + "Z" * n,)
            return (
                Measurement("magnitudes", ("Z" * n,), self.shots),
                Measurement("signs", signs, self.shots, with_reference=True),
            )

        def estimate(self, frequencies, *, is_complex=False):
            magnitudes, signs = frequencies
            same, opposite = np.split(signs[0], 2)
            vector = np.sqrt(magnitudes[0]) * np.where(same >= opposite, 1.0, -1.0)
            return vector / np.linalg.norm(vector)

    yield SignedCounts
    del READOUTS["signed counts"]


def test_a_readout(signed_counts):
    torch = pytest.importorskip("torch")
    from qiskit_aer import AerSimulator

    from mpodis.nn import HybridLinear
    from mpodis.quantum import (
        DeviceRunner,
        ShotRunner,
        TreeEncoding,
        evaluate,
        execute_layer,
        inference_cost,
    )

    mpo = compress(random_matrix((8, 8)), max_bond=2).mpo
    left, right = (random_circuit(brickwall(3, 2), seed=k) for k in (1, 2))
    layer = Factorization(left, mpo, right, (8, 8))
    x = random_matrix((3, 8), seed=1)
    exact = x @ layer.to_dense()
    readout = signed_counts(100_000)
    device = DeviceRunner(AerSimulator(), readout, encoding=TreeEncoding(), trials=1)
    for runner in (ShotRunner(readout), device):
        found = execute_layer(layer, x, runner=runner)
        assert_allclose(found, exact, atol=0.05 * np.linalg.norm(exact, axis=1).max())

    cost = inference_cost(layer, readout="signed counts", trials=1)
    assert [row.purpose for row in cost.rows] == ["magnitudes", "signs"] * 2
    assert (cost.circuits, cost.shots) == (4, 4000)

    model = torch.nn.Sequential(HybridLinear.from_factorization(layer))
    found = evaluate(model, (x, np.zeros(3)), readout="signed counts", shots=100_000)
    assert (found.agreement, found.circuits, found.shots) == (100, 12, 1_200_000)


class DistanceLoss:
    """|M - A|^2 of matrices of norm 1, with no closed form at all."""

    polar_sides = ()

    def __init__(self, tensors):
        self.target = tensors_to_dense(tensors)

    def value(self, engine):
        return float(np.linalg.norm(self.target - engine.dense()) ** 2)

    def gradient(self, engine):
        dense = engine.dense()
        error = self.target - dense
        return float(np.linalg.norm(error) ** 2), engine.gradient_towards(dense, 2 * error)

    def sweep(self, engine, updates, *, core):
        raise AssertionError("there is nothing to sweep")

    def best_core(self, engine):
        return list(engine.core)

    def scaled_core(self, engine):
        return list(engine.core)


class Distance:
    """An objective of one's own: what `disentangle` needs of it, and no more."""

    name = "distance"
    needs_dense = True
    covariance = sensitivity = None

    def loss(self, operator):
        return DistanceLoss(operator.unit)


@pytest.fixture
def distance():
    yield register_objective(Distance)
    del OBJECTIVES["distance"]


def test_an_objective(distance, tmp_path):
    mpo = compress(random_matrix((16, 16), seed=2)).mpo
    options = {"depth": 2, "method": "lbfgs", "init": "identity", "n_init": 1, "max_sweeps": 30}
    found = disentangle(mpo, objective="distance", **options, run_dir=tmp_path)
    # at the best norm of the core the distance is that of a projection
    assert_allclose(found.loss, 1 - found.overlap**2, atol=1e-4)
    assert found.overlap > 0.95 * disentangle(mpo, **options).overlap
    assert found.options.objective == "distance"
    again = disentangle(mpo, objective=Distance(), **options)
    assert_array_equal(again.factorization.to_dense(), found.factorization.to_dense())
    assert load_run(tmp_path).loss == found.loss
    with pytest.raises(ValueError, match="method='sweeps' has no closed form for the gates"):
        disentangle(mpo, objective=Distance(), **(options | {"method": "sweeps"}))
