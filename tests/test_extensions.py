"""What can be added from outside the package, and that the main job runs with it."""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis import (
    Ansatz,
    Factorization,
    Gate,
    Placement,
    brickwall,
    compress,
    disentangle,
    from_spec,
    gates,
    load_factorization,
    load_run,
    random_circuit,
    register_gate,
    register_objective,
)
from mpodis.environments import (
    ENGINES,
    Engine,
    EngineOptions,
    Estimate,
    Gradient,
    build_engine,
    register_engine,
)
from mpodis.fit import als_sweep, core_gradient
from mpodis.objectives import OBJECTIVES
from mpodis.sites import site_tensors, tensors_to_dense
from reference import dense_from_cores, embed, overlap, random_matrix

# --- an engine


class PlainEngine(Engine):
    """Every environment from scratch, by dense matrices of all gates."""

    name, exact = "plain", True

    def __init__(self, target, legs, left, right):
        self.target = dense_from_cores(target) if isinstance(target, list) else target
        self.legs, self.ansatz = legs, {"left": left, "right": right}
        self.left, self.core, self.right = [], [], []

    @classmethod
    def estimate(cls, problem, options):
        return Estimate(cls.name, True, seconds=1e-9, bytes=8.0)

    @classmethod
    def build(cls, target, legs, left, right, options):
        return cls(target, legs, left, right)

    def set(self, left=None, core=None, right=None):
        for name, given in (("left", left), ("core", core), ("right", right)):
            if given is not None:
                setattr(self, name, list(given))

    def _factors(self, side):
        ansatz = self.ansatz[side]
        pairs = zip(getattr(self, side), ansatz.placements, strict=True)
        return [embed(gate, place.wires, ansatz.n) for gate, place in pairs]

    def _product(self, factors, n):
        return list(itertools.accumulate(factors, np.matmul, initial=np.eye(2**n)))[-1]

    def _circuit(self, side):
        return self._product(self._factors(side), self.ansatz[side].n)

    def inner(self):
        product = self._circuit("left") @ dense_from_cores(self.core) @ self._circuit("right")
        return float(np.vdot(self.target, product).real)

    def _environment(self, side, j):
        n, wires = self.ansatz[side].n, self.ansatz[side].placements[j].wires
        factors, middle = self._factors(side), dense_from_cores(self.core)
        before, after = self._product(factors[:j], n), self._product(factors[j + 1 :], n)
        if side == "left":
            after = after @ middle @ self._circuit("right")
        else:
            before = self._circuit("left") @ middle @ before
        full = before.conj().T @ self.target @ after.conj().T  # h = Re Tr(full^H embedded gate)
        units = np.eye(4 ** len(wires)).reshape(-1, 2 ** len(wires), 2 ** len(wires))
        entries = [np.vdot(embed(unit, wires, n), full) for unit in units]
        return np.reshape(entries, units.shape[1:])

    def _free(self, side):
        return [j for j, place in enumerate(self.ansatz[side].placements) if place.fixed is None]

    def sweep(self, updates, *, core=False):
        for side, update in updates.items():
            for j in self._free(side):
                gates = getattr(self, side)
                gates[j] = update(self._environment(side, j), gates[j])
        if core:
            self.core = self.fitted_core()

    def _pulled(self):
        return self._circuit("left").conj().T @ self.target @ self._circuit("right").conj().T

    def gradient(self, scale=1.0):
        left, right = (
            [self._environment(side, j) if j in self._free(side) else None for j in range(count)]
            for side, count in (("left", len(self.left)), ("right", len(self.right)))
        )
        core = core_gradient(self._pulled(), self.core)
        return Gradient(self.inner(), left, right, core).times(scale)

    def fitted_core(self):
        return als_sweep(self._pulled(), self.core)

    def pulled_tensors(self, max_bond):
        return site_tensors(compress(self._pulled(), legs=self.legs, max_bond=max_bond).mpo)


@pytest.fixture
def plain():
    register_engine(PlainEngine)
    yield
    del ENGINES["plain"]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("engine", ["plain", "auto"])
def test_an_engine_of_ones_own_runs_by_name_and_by_choice(engine):
    mpo = compress(random_matrix((8, 8), seed=1))
    options = {"depth": 2, "n_init": 1, "max_sweeps": 12, "init": "identity"}
    found = disentangle(mpo, engine=engine, **options)
    assert found.options.engine == "plain"
    product = found.factorization.to_dense()
    assert_allclose(found.overlap, overlap(mpo.to_dense(), product), atol=1e-10)
    assert_allclose(found.overlap, disentangle(mpo, engine="dense", **options).overlap, atol=0.02)


def test_engine_names_are_unique_and_unknown_ones_are_refused():
    class Twin(PlainEngine):
        name = "dense"

    with pytest.raises(ValueError, match="the engine name 'dense' is taken; choose another one"):
        register_engine(Twin)
    with pytest.raises(ValueError, match="engine='plain' is not known; use one of dense, trans"):
        build_engine("plain", [], (), None, None, options=EngineOptions())
    mpo = compress(np.eye(4))
    with pytest.raises(ValueError, match="engine='plain' is not known; use one of auto, dense"):
        disentangle(mpo, depth=1, engine="plain")


# --- a gate and a pattern


@pytest.fixture
def fswap(monkeypatch):
    """The fermionic SWAP, registered for one test."""
    monkeypatch.setattr("mpodis.gates._REGISTRY", dict(gates._REGISTRY))
    matrix = np.eye(4)[[0, 2, 1, 3]] @ np.diag([1, 1, 1, -1])
    return register_gate(Gate("FSWAP", matrix, n_cnots=2))


def test_a_gate(fswap, tmp_path):
    left = from_spec("1b + FSWAP + 1b", 3)
    assert [place.fixed for place in left.layers[1]] == ["FSWAP"]
    hidden = random_circuit(left, seed=0)
    assert_array_equal(hidden.gates[3], fswap.matrix)
    mpo = compress(hidden.to_dense() @ np.diag(np.arange(1.0, 9))).mpo
    options = {"right": Ansatz(3, ()), "max_bond": 2, "n_init": 4, "seed": 0}
    found = disentangle(mpo, left="1b + fswaps + 1b", **options)
    assert_array_equal(found.factorization.left.gates[3], fswap.matrix)
    assert_allclose(found.overlap, overlap(mpo.to_dense(), found.factorization.to_dense()))
    found.factorization.save(tmp_path / "found.safetensors")
    again = load_factorization(tmp_path / "found.safetensors")
    assert again.left.ansatz == left


def ring(n, depth):
    """Pairs of neighbours on a ring of wires: any function that returns an Ansatz is a pattern."""
    pairs = [(k, (k + 1) % n) for k in range(n)]
    layers = [tuple(map(Placement, pairs[parity::2])) for parity in (0, 1)]
    return Ansatz(n, tuple(layers[t % 2] for t in range(depth)))


@pytest.mark.parametrize("engine", ["dense", "transverse"])
def test_a_pattern(engine):
    mpo = compress(random_matrix((16, 16), seed=3)).mpo
    options = {"engine": engine, "max_sweeps": 40, "n_init": 1, "seed": 0}
    found = disentangle(mpo, left=ring(4, 2), right=ring(4, 2), **options)
    assert found.factorization.left.ansatz == ring(4, 2)
    assert_allclose(found.overlap, overlap(mpo.to_dense(), found.factorization.to_dense()))
    # the ring holds the brickwall, whose outer wires stay alone in every second layer
    assert found.overlap > disentangle(mpo, depth=2, **options).overlap


# --- a readout


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

    def overlap(self, value):
        return None

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
    with pytest.raises(ValueError, match="method='sweeps' needs closed-form updates"):
        disentangle(mpo, objective=Distance(), **(options | {"method": "sweeps"}))
