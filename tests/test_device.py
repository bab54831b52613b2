"""Backends and samplers: what their counts say, with its sign, and what they cannot run."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit_aer import AerSimulator
from qiskit_aer.primitives import SamplerV2

from mpodis.circuit.ansatz import brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.quantum import (
    BrickwallEncoding,
    DeviceRunner,
    Hypercube,
    Interference,
    Tomography,
    TreeEncoding,
    run_circuit,
    to_qiskit,
)

# without noise there is none for Aer to warn about
pytestmark = pytest.mark.filterwarnings("ignore:Qiskit backend .* has no QubitProperties")
LINE = GenericBackendV2(4, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=0, noise_info=False)
NOISY = GenericBackendV2(4, coupling_map=[[0, 1], [1, 2], [2, 3]], seed=0)
CIRCUIT = random_circuit(brickwall(3, 2, group="O"), seed=0)
READOUTS = {
    "interference": Interference(20_000),
    "tomography": Tomography(1000, 2000),
    "hypercube": Hypercube(10_000, 2000),
}


def vectors(n=3, samples=4):
    x = np.random.default_rng(n).normal(size=(samples, 2**n))
    x[1] = 0
    return x


def runner(backend=LINE, **options):
    return DeviceRunner(backend, **({"encoding": TreeEncoding(), "trials": 1} | options))


def overlaps(found, exact):
    kept = np.linalg.norm(exact, axis=1) > 0
    found, exact = found[kept], exact[kept]
    return (found * exact).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)


@pytest.mark.parametrize("backend", [LINE, AerSimulator()], ids=["line", "all to all"])
@pytest.mark.parametrize("readout", READOUTS)
def test_without_noise_only_shots_make_a_difference(backend, readout):
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
        assert len(ran) == 2 * given.n_circuits(2)
        assert sum(ran) == 2 * given.n_shots(2)
        assert (np.abs(overlaps(found, circuit.apply(x))) > 0.97).all()


def test_noise_costs_and_fitted_bricks_cost_less():
    x = vectors()
    exact = CIRCUIT.apply(x)
    lost = {
        (name, encoding.name): 1
        - overlaps(
            run_circuit(
                CIRCUIT,
                x,
                runner=runner(backend, encoding=encoding, readout=Interference(100_000)),
            ),
            exact,
        ).mean()
        for name, backend, encoding in (
            ("line", LINE, TreeEncoding()),
            ("noisy", NOISY, TreeEncoding()),
            ("noisy", NOISY, BrickwallEncoding(4)),
        )
    }
    assert lost["line", "tree"] < lost["noisy", "brickwall"] < lost["noisy", "tree"]


def test_the_same_seed_reads_the_same():
    x = vectors()
    found = [
        run_circuit(CIRCUIT, x, runner=runner(readout=Interference(100), seed=seed))
        for seed in (3, 3, 4)
    ]
    assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 0


def test_the_description_names_the_backend_and_all_that_results_depend_on():
    assert repr(DeviceRunner("FakeMontrealV2", seed=3)) == (
        "DeviceRunner(backend='FakeMontrealV2', encoding=BrickwallEncoding(layers=8, seed=0), "
        "trials=4, optimization_level=3, seed=3, readout=Interference(shots=10000))"
    )
    assert f"backend={LINE.name!r}" in repr(DeviceRunner(LINE))


def test_what_cannot_run():
    with pytest.raises(ValueError, match="trials=0"):
        DeviceRunner(LINE, trials=0)
    with pytest.raises(ValueError, match="encoding='angle' is not known; use one of tree"):
        DeviceRunner(LINE, encoding="angle")
    with pytest.raises(ValueError, match="readout='guess' is not known"):
        DeviceRunner(LINE, "guess")
    wide = random_circuit(brickwall(4, 1), seed=0)
    with pytest.raises(ValueError, match=r"circuit has 5 qubits and .* 4; use a larger"):
        run_circuit(wide, vectors(4), runner=runner())
    with pytest.raises(ValueError, match="prepare real vectors"):
        run_circuit(CIRCUIT, vectors() + 0j, runner=runner())
    bare = GenericBackendV2(4, basis_gates=["id", "x", "cx"], seed=0)
    with pytest.raises(ValueError, match="cannot run the circuit"):
        runner(bare).run(to_qiskit(CIRCUIT), np.eye(8)[:1])
    with pytest.raises(ValueError, match="'FakeNowhere' is not known"):
        run_circuit(CIRCUIT, vectors(), runner=runner("FakeNowhere"))
