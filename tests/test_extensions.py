"""Extensions from outside the package, used by name through the public functions."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import Factorization, brickwall, compress, random_circuit
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
