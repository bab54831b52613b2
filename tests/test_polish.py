"""Riemannian L-BFGS: gradients, manifolds, descent, restarts, and what it does at a dead end."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, brickwall, staircase
from mpodis.circuit.circuit import identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.conventions import qubit_legs
from mpodis.environments import DenseEnvironments, Gradient
from mpodis.measures import second_moment, von_neumann_bound
from mpodis.mpo import compress
from mpodis.objectives import ActivationsLoss, OverlapLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.progress import Deadline
from mpodis.sites import site_tensors
from reference import dense_from_cores, finite_difference, random_cores, random_matrix

REAL, ORTHOGONAL, COMPLEX = (brickwall(3, 2, group=group) for group in ("SO", "O", "U"))
SCAFFOLD = from_spec("1b + CNOT + 2b", 4)
NOTHING_FREE = "no free gates"
# shape, left, right, core bond, complex operator, complex inputs
PROBLEMS = {
    "real": ((16, 16), brickwall(4, 2), staircase(4, 1, 3), 2, False, False),
    "O": ((8, 8), ORTHOGONAL, brickwall(3, 1, 3, group="O"), 1, False, False),
    "complex": ((8, 8), COMPLEX, COMPLEX, 2, True, True),
    "complex gates": ((8, 8), COMPLEX, COMPLEX, 1, False, False),
    "real left, complex right": ((8, 8), REAL, COMPLEX, 2, False, False),
    "complex left, real right": ((8, 8), COMPLEX, REAL, 1, True, False),
    "real gates, complex operator": ((8, 8), REAL, brickwall(3, 1, 3), 2, True, True),
    "scaffold": ((16, 8), SCAFFOLD, from_spec("CNOT + 3b", 3), 2, False, False),
    "6x16": ((6, 16), REAL, brickwall(4, 2), 2, False, False),
    "8x1": ((8, 1), REAL, Ansatz(0, ()), 2, False, False),
    NOTHING_FREE: ((8, 8), Ansatz(3, ()), from_spec("2*CNOT", 3), 2, False, False),
}
OBJECTIVES = ("overlap", "activations", "sensitivity")


def optimiser(problem, objective="overlap", *, seed=1, scale=0.3, **options):
    """L-BFGS at random gates near the identity and a random core."""
    shape, left, right, bond, is_complex, complex_inputs = PROBLEMS[problem]
    legs = qubit_legs(*shape)
    cores = site_tensors(compress(random_matrix(shape, is_complex, seed), legs=legs).mpo)
    x = random_matrix((40, shape[0]), complex_inputs, seed) / np.arange(1, shape[0] + 1)
    if objective == "overlap":
        goal = OverlapLoss(cores)
    else:
        g = random_matrix((30, shape[1]), complex_inputs, seed)
        weight = second_moment(g) if objective == "sensitivity" else None
        goal = ActivationsLoss(cores, second_moment(x), weight)
    engine = DenseEnvironments(goal.target, legs, left, right)
    circuits = [random_circuit(a, seed=(seed, k), scale=scale) for k, a in enumerate((left, right))]
    dtype = np.result_type(*cores, *circuits[0].gates, *circuits[1].gates)
    core = [c.astype(dtype) for c in random_cores(legs, bond, is_complex, (seed, 3))]
    engine.set(circuits[0].gates, core, circuits[1].gates)
    engine.set(core=goal.scaled_core(engine))
    return Lbfgs(goal, engine, left, right, **options)


def arrays(lbfgs):
    engine = lbfgs.engine
    return [*engine.left, *engine.core, *engine.right]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(
    ("problem", "free_core"),
    # without free gates and with a fixed core: test_nothing_free_means_nothing_moves
    [(name, True) for name in PROBLEMS]
    + [(name, False) for name in PROBLEMS if name != NOTHING_FREE],
)
def test_the_gradient_is_the_directional_derivative(problem, objective, free_core):
    lbfgs = optimiser(problem, objective, free_core=free_core)
    point = lbfgs._point()
    loss, slope = lbfgs._evaluate(point)
    assert_allclose(loss, lbfgs.loss.value(lbfgs.engine), atol=1e-12)
    count = sum(
        g.size * (2 if g.dtype.kind == "c" else 1)
        for g in [*point[0], *(point[1] if free_core else [])]
    )
    assert slope.shape == (count,)
    rng = np.random.default_rng(3)
    for _ in range(3):
        # the gradient lies in the Lie algebra; so must the direction that is compared with it
        direction = tangent(lbfgs, point, rng.normal(size=count))
        direction /= np.linalg.norm(direction)

        def along(t, direction=direction):
            return lbfgs._evaluate(lbfgs._retract(point, t * direction))[0]

        assert_allclose(
            finite_difference(along, 0.0, 1.0, 1e-5), slope @ direction, rtol=1e-5, atol=1e-8
        )
    assert_allclose(tangent(lbfgs, point, slope), slope, atol=1e-14)


def tangent(lbfgs, point, vector):
    """A flat vector with its gates' parts made skew-Hermitian."""
    parts, at = [], 0
    for stack in point[0]:
        for gate in stack:
            size = gate.size * (2 if gate.dtype.kind == "c" else 1)
            x = vector[at : at + size].view(gate.dtype).reshape(gate.shape)
            parts.append(np.ascontiguousarray((x - x.conj().T) / 2).reshape(-1).view(float))
            at += size
    return np.concatenate([*parts, vector[at:]])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_runs_lower_the_loss_and_stay_in_the_group(problem, objective):
    lbfgs = optimiser(problem, objective)
    before = arrays(lbfgs)
    losses = [lbfgs.loss.value(lbfgs.engine)]
    for _ in range(6):
        losses.append(lbfgs.run(2))
        assert_allclose(lbfgs.loss.value(lbfgs.engine), losses[-1], atol=1e-13)
    assert max(np.diff(losses)) <= 1e-13
    assert losses[-1] < losses[0] - 1e-3
    for a, b in zip(before, arrays(lbfgs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
    free = {(side, j) for side, numbers in lbfgs._variables for j in numbers}
    assert len(free) == sum(len(numbers) for _, numbers in lbfgs._variables)
    for side in ("left", "right"):
        for j, gate in enumerate(getattr(lbfgs.engine, side)):
            assert_allclose(gate.conj().T @ gate, np.eye(len(gate)), atol=1e-12)
            if (side, j) not in free:
                assert_array_equal(gate, getattr(optimiser(problem).engine, side)[j])
            elif problem == "real":
                assert_allclose(np.linalg.det(gate), 1, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_fixed_core_is_left_alone(objective):
    lbfgs = optimiser("real", objective, free_core=False)
    core = [c.copy() for c in lbfgs.engine.core]
    lbfgs.run(3)
    for a, b in zip(lbfgs.engine.core, core, strict=True):
        assert_array_equal(a, b)


def test_nothing_free_means_nothing_moves():
    lbfgs = optimiser(NOTHING_FREE, free_core=False)
    before = arrays(lbfgs)
    assert lbfgs.run(5) == lbfgs.loss.value(lbfgs.engine)
    for a, b in zip(before, arrays(lbfgs), strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("group", ["SO", "U"])
def test_gates_as_wide_as_the_operator_reach_the_bound(group):
    matrix = random_matrix((8, 8), group == "U", 2)
    core = [c.astype(matrix.dtype) for c in random_cores(((2, 2),) * 3, 2, seed=4)]
    if np.linalg.det(matrix @ dense_from_cores(core)).real < 0:
        matrix[0] *= -1  # the best gates have determinant -1 otherwise
    ansatz = brickwall(3, 1, 3, group=group)
    goal = OverlapLoss(site_tensors(compress(matrix).mpo))
    engine = DenseEnvironments(goal.target, ((2, 2),) * 3, ansatz, ansatz)
    start = identity_circuit(ansatz)
    engine.set(start.gates, core, random_circuit(ansatz, seed=3, scale=0.1).gates)
    loss = Lbfgs(goal, engine, ansatz, ansatz, free_core=False).run(300)
    assert_allclose(1 - loss, von_neumann_bound(matrix, dense_from_cores(core)), atol=1e-8)


def test_going_on_is_the_same_as_not_stopping():
    one, two = optimiser("complex"), optimiser("complex")
    one.run(9)
    for part in (4, 3, 2):
        two.run(part)
    for a, b in zip(arrays(one), arrays(two), strict=True):
        assert_array_equal(a, b)
    assert len(one.steps) == len(one.differences) == 9


def test_memory_is_limited_and_can_be_dropped():
    lbfgs = optimiser("real", memory=3)
    lbfgs.run(8)
    assert len(lbfgs.steps) == len(lbfgs.differences) == len(lbfgs.curvatures) == 3
    lbfgs.forget()
    assert lbfgs.steps == lbfgs.differences == lbfgs.curvatures == []


def test_memory_that_points_uphill_is_dropped():
    lbfgs = optimiser("real")
    _, slope = lbfgs._evaluate(lbfgs._point())
    lbfgs.remember([slope.copy()], [-slope])
    assert lbfgs._direction(slope) @ slope > 0
    before = lbfgs.loss.value(lbfgs.engine)
    assert lbfgs.run(1) < before
    assert len(lbfgs.steps) == 1
    assert lbfgs.steps[0] @ lbfgs.differences[0] > 0


class Toy:
    """A loss of one number x, the only entry of the core, with a slope that one chooses."""

    def __init__(self, loss, slope):
        self._loss, self._slope = loss, slope

    def loss(self, engine):
        return self._loss(engine.core[0].item())

    def gradient(self, engine):
        x = engine.core[0].item()
        return self._loss(x), Gradient(0.0, [], [], [np.full((1, 1, 1, 1), -self._slope(x))])


def toy(loss, slope, x=1.0):
    ansatz = Ansatz(0, ())
    engine = DenseEnvironments(np.ones((1, 1)), ((1, 1),), ansatz, ansatz)
    engine.set([], [np.full((1, 1, 1, 1), x)], [])
    return Lbfgs(Toy(loss, slope), engine, ansatz, ansatz)


def test_a_quadratic_takes_few_steps():
    lbfgs = toy(lambda x: (x - 3.0) ** 2, lambda x: 2 * (x - 3.0))
    assert lbfgs.run(10) < 1e-12
    assert_allclose(lbfgs.engine.core[0].item(), 3.0, atol=1e-6)


def test_at_a_stationary_point_nothing_happens():
    lbfgs = toy(lambda x: x**2, lambda x: 2 * x, x=0.0)
    assert lbfgs.run(5) == 0.0
    assert lbfgs.steps == []


def test_without_a_way_down_it_stops_where_it_is():
    # the slope promises a fall that never comes
    lbfgs = toy(lambda x: abs(x - 1.0), lambda x: 1.0)
    assert lbfgs.run(5) == 0.0
    assert lbfgs.engine.core[0].item() == 1.0
    # with a memory it first tries again without
    lbfgs.remember([np.array([1.0])], [np.array([1.0])])
    assert lbfgs.run(5) == 0.0
    assert lbfgs.steps == []


def test_a_lower_point_is_taken_though_the_line_search_gives_up():
    # falls by 1e-3 at once and stays there: too little for the slope, so Wolfe never holds
    lbfgs = toy(lambda x: 1.0 if x == 1.0 else 1.0 - 1e-3, lambda x: 1.0)
    assert lbfgs.run(1) == 1.0 - 1e-3
    assert lbfgs.engine.core[0].item() < 1.0


def test_a_deadline_ends_a_line_search_at_a_lower_point():
    evaluated = []

    def loss(x):
        evaluated.append(x)
        return (x - 100.0) ** 2  # far away, so that one step needs many points

    def slope(x):
        return 2 * (x - 100.0)

    first = (1.0 - 100.0) ** 2
    at_leisure = toy(loss, slope).run(1)
    count = len(evaluated)
    evaluated.clear()
    deadline = Deadline(1e-9)
    assert deadline.has_passed
    in_haste = toy(loss, slope).run(5, deadline=deadline)
    assert len(evaluated) == 2 < count
    assert at_leisure < in_haste < first
