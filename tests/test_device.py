"""Backends and samplers: what their counts say, with its sign, and what they cannot run."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import SamplerV2

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.quantum import DeviceRunner, Hypercube, Interference, Tomography, run_circuit, to_qiskit

# without noise there is none for Aer to warn about
pytestmark = pytest.mark.filterwarnings("ignore:Qiskit backend .* has no QubitProperties")
LINE = GenericBackendV2(4, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=0, noise_info=False)
NOISY = GenericBackendV2(4, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=0)
CIRCUIT = random_circuit(brickwall(3, 2, group="O"), seed=0)
READOUTS = {
    "interference": Interference(20_000),
    "tomography": Tomography(1000, 2000),
}


def vectors(n=3, samples=4):
    x = np.random.default_rng(n).normal(size=(samples, 2**n))
    x[1] = 0
    return x


def runner(backend=LINE, **options):
    return DeviceRunner(backend, **({"encoding": 0, "layouts": 1} | options))


def overlaps(found, exact):
    kept = np.linalg.norm(exact, axis=1) > 0
    found, exact = found[kept], exact[kept]
    return (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)


@pytest.mark.parametrize("backend", [LINE, AerSimulator()], ids=["line", "all to all"])
@pytest.mark.parametrize("readout", READOUTS)
def test_without_noise_only_shots_are_between(backend, readout):
    x = vectors()
    found = run_circuit(CIRCUIT, x, runner=runner(backend, readout=READOUTS[readout]))
    # ten times (2^n - 1) / (2 shots), what interference is expected to lose
    assert (overlaps(found, CIRCUIT.apply(x)) > 1 - 10 * 7 / 40_000).all()
    assert_array_equal(found[1], 0)
    assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(x, axis=1), atol=1e-12)


def test_a_sampler_in_the_place_of_the_backend():
    class Watched(SamplerV2):
        runs = 0

        def run(self, pubs, *, shots=None):
            Watched.runs += len(pubs)
            return super().run(pubs, shots=shots)

    x = vectors()
    given = runner(sampler=Watched(seed=1), readout=Interference(20_000))
    found = run_circuit(CIRCUIT, x, runner=given)
    assert Watched.runs == 3  # one circuit a vector, none for the zero vector
    assert (overlaps(found, CIRCUIT.apply(x)) > 0.995).all()


def test_a_tomography_runs_all_its_settings():
    circuit = random_circuit(brickwall(2, 1), seed=1)
    x = vectors(2, 3)
    ran = []

    class Watched(SamplerV2):
        def run(self, pubs, *, shots=None):
            ran.extend([shots] * len(pubs))
            return super().run(pubs, shots=shots)

    for sign_shots in (0, 100):
        given = runner(sampler=Watched(seed=0), readout=Tomography(500, sign_shots))
        ran.clear()
        found = run_circuit(circuit, x, runner=given)
        assert len(ran) == 2 * given.settings(2)
        assert sum(ran) == 2 * given.shots_of(2)
        assert (np.abs(overlaps(found, circuit.apply(x))) > 0.97).all()


def test_noise_costs_and_fitted_bricks_cost_less():
    x = vectors()
    exact = CIRCUIT.apply(x)
    lost = {
        (name, layers): 1
        - overlaps(
            run_circuit(
                CIRCUIT, x, runner=runner(backend, encoding=layers, readout=Interference(100_000))
            ),
            exact,
        ).mean()
        for name, backend, layers in (("line", LINE, 0), ("noisy", NOISY, 0), ("noisy", NOISY, 4))
    }
    assert lost["line", 0] < lost["noisy", 4] < lost["noisy", 0]


def test_the_same_seed_reads_the_same():
    x = vectors()
    found = [
        run_circuit(CIRCUIT, x, runner=runner(readout=Interference(100), seed=seed))
        for seed in (3, 3, 4)
    ]
    assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0


def test_what_cannot_run():
    with pytest.raises(ValueError, match="Hypercube.* is not run on devices"):
        DeviceRunner(LINE, Hypercube())
    with pytest.raises(ValueError, match="encoding=-1"):
        DeviceRunner(LINE, encoding=-1)
    wide = random_circuit(brickwall(4, 1), seed=0)
    with pytest.raises(ValueError, match=r"5 qubits .* do not fit on .*, which has 4"):
        run_circuit(wide, vectors(4), runner=runner())
    with pytest.raises(ValueError, match="prepare real vectors"):
        run_circuit(CIRCUIT, vectors() + 0j, runner=runner())
    bare = GenericBackendV2(4, basis_gates=["id", "x", "cx"], seed=0)
    with pytest.raises(ValueError, match="cannot run the circuit"):
        runner(bare).run(to_qiskit(CIRCUIT), np.eye(8)[:1])
    with pytest.raises(ValueError, match="'FakeNowhere' is not known"):
        run_circuit(CIRCUIT, vectors(), runner=runner("FakeNowhere"))
