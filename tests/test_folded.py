"""A circuit around an identity core is the same circuit on both of its sides."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import EngineOptions, build_engine, choose
from mpodis.environments.folded import FoldedEnvironments
from mpodis.gates import polar
from reference import inner, random_cores

N = 6
LEGS = ((2, 2),) * N
EXACT = 4**N
IDENTITY = [2.0 * np.eye(2).reshape(1, 2, 2, 1)] * N
EMPTY = Ansatz(N, ())
DISTANT = Ansatz(N, ((Placement((0, 2)), Placement((3, 4))), (Placement((5, 1)),)))


def engines(side, ansatz, **options):
    """The boundary engine with the circuit on both sides of the core, and on its own side."""
    target = random_cores(LEGS, 3, seed=1)
    circuit = random_circuit(ansatz, seed=2)
    ansatze = {"left": (ansatz, EMPTY), "right": (EMPTY, ansatz)}[side]
    found = []
    for identity_core in (True, False):
        chosen = EngineOptions(environment_bond=EXACT, identity_core=identity_core, **options)
        engine = build_engine("boundary", target, LEGS, *ansatze, options=chosen)
        engine.set(core=IDENTITY, **{side: circuit.gates})
        found.append(engine)
    assert isinstance(found[0], FoldedEnvironments)
    return found


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    "ansatz", [brickwall(N, 4), brickwall(N, 5), brickwall(N, 1), DISTANT], ids=str
)
def test_form_and_environments_are_those_of_one_side(side, ansatz):
    found, expected = engines(side, ansatz)
    assert_allclose(found.inner(), expected.inner(), rtol=1e-11)
    a, b = found.gradient(0.5), expected.gradient(0.5)
    assert_allclose(a.inner, b.inner, rtol=1e-11)
    for x, y, site in zip(a.core, b.core, expected.core, strict=True):
        assert_allclose(inner(x, site), inner(y, site), rtol=1e-10)
        assert_allclose(x, x[0, 0, 0, 0] * np.eye(2).reshape(1, 2, 2, 1), atol=1e-14)
    for name in ("left", "right"):
        for x, y in zip(getattr(a, name), getattr(b, name), strict=True):
            assert_allclose(x, y, atol=1e-11 * np.linalg.norm(y))
        for x, y in zip(getattr(found, name), getattr(expected, name), strict=True):
            assert_array_equal(x, y)
    for x, y in zip(found.fitted_core(), expected.fitted_core(), strict=True):
        assert_allclose(x, y, atol=1e-9)
    pulled = [engine.pulled_tensors(EXACT) for engine in (found, expected)]
    assert [x.shape for x in pulled[0]] == [x.shape for x in pulled[1]]


def test_sweeps_climb():
    found, _ = engines("left", brickwall(N, 4))
    values = [found.inner()]
    for _ in range(3):
        found.sweep({"right": None})
        assert found.inner() == values[-1]
        found.sweep({"left": lambda e, g: polar(e, group="SO")})
        values.append(found.inner())
    assert min(np.diff(values)) > 0


def test_the_core_stays_the_identity():
    found, _ = engines("left", brickwall(N, 2))
    core = list(IDENTITY)
    core[3] = np.diag([1.0, 2.0]).reshape(1, 2, 2, 1)
    with pytest.raises(ValueError, match="site 3 of the core is no multiple of the identity"):
        found.set(core=core)
    with pytest.raises(ValueError, match="the core stays the identity"):
        found.sweep({}, core=True)
    with pytest.raises(ValueError, match="1 gates were given for a circuit without gates"):
        found.set(right=[np.eye(4)])


def test_only_a_lone_circuit_on_square_legs_is_folded():
    options = EngineOptions(identity_core=True)
    bricks, states = brickwall(N, 2), ((1, 2),) * N
    for legs, left, right in ((LEGS, bricks, bricks), (states, Ansatz(0, ()), bricks)):
        engine = build_engine(
            "boundary", random_cores(legs, 2, seed=1), legs, left, right, options=options
        )
        assert not isinstance(engine, FoldedEnvironments)


def test_the_estimate_halves():
    n, ansatz = 40, brickwall(40, 12)
    seconds = [
        choose(
            ((2, 2),) * n, ansatz, Ansatz(n, ()), target_bonds=(16,) * (n - 1), max_bond=1,
            complex=True, engine="boundary", options=EngineOptions(identity_core=core),
        ).seconds
        for core in (True, False)
    ]  # fmt: skip
    assert 0.3 < seconds[0] / seconds[1] < 0.7


def test_max_bond_and_cutoff_reach_the_engine_inside():
    found, _ = engines("left", brickwall(N, 4))
    found.set_max_bond(8)
    found.set_cutoff(1e-3)
    assert (found.max_bond, found.cutoff) == (8, 1e-3)
    found.gradient()
    again, _ = engines("left", brickwall(N, 4))
    again.plan = found.plan
    assert again.inner() == found.inner()
