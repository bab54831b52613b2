"""Removals, insertions and pruning: against dense algebra, and never worse at equal CNOTs."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import (
    Ansatz,
    Circuit,
    Factorization,
    Placement,
    brickwall,
    cnot_count,
    compress,
    disentangle,
    fit_core,
    mpo_from_tensors,
    prune,
    random_circuit,
)
from mpodis.objectives import Activations, Overlap
from mpodis.resynthesis.cnot_search import (
    CnotSearch,
    _replacements,
    _with_gates,
    insertions,
    removals,
)
from mpodis.resynthesis.task import Task
from reference import (
    circuit_matrix,
    dense_from_cores,
    finite_difference,
    overlap,
    random_cores,
    random_covariance,
    random_matrix,
    weighted_distance,
)

# --- neighbours


def task_of(matrix, objective="overlap", shape=None, max_bond=1):
    metric = random_covariance(shape[0] if shape else len(matrix))
    return Task.build(
        compress(matrix),
        shape=shape,
        max_bond=max_bond,
        objective=objective,
        covariance=metric,
        seed=0,
    )


both = pytest.mark.parametrize("objective", ["overlap", "activations"])


@pytest.fixture(scope="module")
def found():
    """A disentangled 8 x 8 matrix under both objectives."""
    matrix = random_matrix((8, 8), seed=4)
    result = {}
    for objective in ("overlap", "activations"):
        task = task_of(matrix, objective)
        wall = brickwall(3, 2)
        result[objective] = (
            task,
            task.optimise(wall, wall.reversed(), "wall", n_init=1, max_sweeps=5),
        )
    return result


@both
def test_a_point_measures_its_factorization(found, objective):
    task, point = found[objective]
    target, dense = task.target, point.factorization.padded_to_dense()
    metric = random_covariance(8)
    assert_allclose(point.overlap, overlap(target, dense), rtol=1e-12)
    assert_allclose(point.activation_error**2, weighted_distance(target, dense, metric), rtol=1e-9)
    loss = 1 - point.overlap if objective == "overlap" else point.activation_error**2
    assert_allclose(point.loss, loss, rtol=1e-9)
    assert point.overlap <= point.bound + 1e-12
    assert point.cnots == 2 * 2 * 2


@both
def test_environments_are_minus_the_derivatives_of_the_loss(found, objective):
    task, point = found[objective]
    given = point.factorization
    for side, environments in zip(("left", "right"), task.environments(given), strict=True):
        circuit = getattr(given, side)
        for j in (0, len(circuit.gates) - 1):
            direction = random_matrix(circuit.gates[j].shape, seed=8)

            def loss(t, circuit=circuit, side=side, j=j, direction=direction):
                gates = list(circuit.gates)
                gates[j] = gates[j] + t * direction
                sides = {"left": given.left, "right": given.right}
                sides[side] = Circuit(circuit.ansatz, tuple(gates))
                dense = (
                    circuit_matrix(sides["left"])
                    @ given.core_to_dense()
                    @ circuit_matrix(sides["right"])
                )
                if objective == "overlap":  # at the norm that orthogonal gates keep
                    norms = np.linalg.norm(task.target) * np.linalg.norm(given.core_to_dense())
                    return 1 - np.sum(task.target * dense) / norms
                return weighted_distance(task.target, dense, random_covariance(8))

            slope = finite_difference(loss, 0.0, 1.0)
            assert_allclose(-np.sum(environments[j] * direction), slope, rtol=1e-5, atol=1e-8)


@both
def test_removals_save_cnots_and_the_smallest_increase_comes_first(found, objective):
    task, point = found[objective]
    few, many = (removals(task, point, most=most) for most in (2, 50))
    assert len(few) == 2
    rates = []
    for given in many:
        saved = point.cnots - cnot_count(given)
        assert saved >= 1
        rates.append((task.loss.value(given.padded_to_dense()) - point.loss) / saved)
    assert rates == sorted(rates)
    # each of the four gates: a product, or one CNOT; under the activations from two sides
    assert len(many) == 2 * 4 * (2 if objective == "activations" else 1)
    assert_allclose(few[0].padded_to_dense(), many[0].padded_to_dense())


def test_the_overlap_without_a_gate_is_read_off_its_environment(found):
    task, point = found["overlap"]
    given = point.factorization
    rows = list(_replacements(task, given))
    assert {(side, j) for _, _, side, j, _ in rows} == {
        ("left", 0),
        ("left", 3),
        ("right", 1),
        ("right", 2),
    }
    for loss, saved, side, j, gates in rows:
        spliced = _with_gates(given, side, j, gates, instead=1)
        assert_allclose(loss, task.loss.value(spliced.padded_to_dense()), rtol=1e-9)
        assert saved == 2 - sum(place.width == 2 for place, _ in gates)


@both
def test_insertions_change_nothing_and_promise_a_gain(found, objective):
    task, _ = found[objective]
    smaller = task.optimise(Ansatz(3, ()), brickwall(3, 1), "small", n_init=1, max_sweeps=5)
    longer = insertions(task, smaller, most=3)
    assert 1 <= len(longer) <= 3
    for given in longer:
        assert cnot_count(given) == smaller.cnots  # as the identity, still
        assert_allclose(
            given.padded_to_dense(), smaller.factorization.padded_to_dense(), atol=1e-12
        )
        settled = task.reoptimise(given, "longer", sweeps=4)
        assert settled.cnots <= smaller.cnots + 2
        assert settled.loss <= smaller.loss * (1 + 1e-9)
    assert min(task.reoptimise(g, "x", sweeps=4).loss for g in longer) < 0.99 * smaller.loss


def test_a_gate_that_costs_nothing_is_not_removed(found):
    task, point = found["overlap"]
    longer = task.point(insertions(task, point, most=1)[0], "longer")
    shorter = removals(task, longer, most=50)
    assert len(shorter) == len(removals(task, point, most=50))
    assert max(cnot_count(given) for given in shorter) < point.cnots


def test_a_side_of_one_wire_has_no_neighbours():
    matrix = random_matrix((8, 2), seed=1)
    task = task_of(matrix)
    point = task.optimise(brickwall(3, 1), Ansatz(1, ()), "x", n_init=1, max_sweeps=3)
    assert all(not given.right.gates for given in removals(task, point, most=9))
    assert all(not given.right.gates for given in insertions(task, point, most=9))
    none = task.optimise(Ansatz(3, ()), Ansatz(1, ()), "x", n_init=1, max_sweeps=3)
    assert removals(task, none, most=9) == []


# --- pruning


@pytest.fixture(scope="module")
def walls():
    """A 16 x 16 matrix and brickwalls of it."""
    mpo = compress(random_matrix((16, 16), seed=2))
    options = {"n_init": 1, "max_sweeps": 10, "init": "identity", "engine": "dense"}
    return mpo, [disentangle(mpo, left=depth, **options) for depth in (1, 2)]


@pytest.fixture(scope="module")
def pruned(walls):
    mpo, results = walls
    return prune(mpo, results[1], shallower=results[:1], trials=1, sweeps=2)


def test_pruning_never_worsens_the_overlap_at_equal_cnots(walls, pruned):
    for wall in walls[1]:
        cnots = cnot_count(wall.factorization)
        assert pruned.at(cnots).overlap >= wall.overlap - 1e-12
    losses = [point.loss for point in pruned.front]
    assert losses == sorted(losses, reverse=True)


def test_pruning_ends_without_any_cnot(pruned):
    cnots = [point.cnots for point in pruned.points]
    assert cnots == sorted(set(cnots))
    assert cnots[0] == 0
    assert {point.family for point in pruned.points} <= {"given", "shallower", "pruned"}
    assert sum(point.family == "pruned" for point in pruned.points) >= 5
    for point in pruned.points:
        given = point.factorization
        assert cnot_count(given) == point.cnots
        assert_allclose(point.overlap, given.overlap(compress(random_matrix((16, 16), seed=2)).mpo))


def test_pruning_continues_from_a_better_shallower_circuit(walls):
    mpo, results = walls
    bad = Factorization(
        random_circuit(results[0].factorization.left.ansatz, seed=1),
        results[0].factorization.core,
        results[0].factorization.right,
        (16, 16),
    )
    alone = prune(mpo, bad, trials=1, sweeps=1, min_cnots=6)
    helped = prune(mpo, bad, shallower=[results[0]], trials=1, sweeps=1, min_cnots=6)
    at = cnot_count(bad)
    assert helped.at(at).family == "shallower"
    assert helped.at(at - 1).loss < alone.at(at).loss


def test_pruning_stops_at_the_fewest_cnots_asked_for(walls):
    mpo, results = walls
    found = prune(mpo, results[0], min_cnots=5, trials=1, sweeps=1)
    assert min(point.cnots for point in found.points) >= 5
    assert len(found.points) >= 2


def test_pruning_routes_gates_on_any_wires():
    mpo = compress(random_matrix((8, 8), seed=2))
    far = Ansatz(3, ((Placement((0, 2)),), (Placement((2, 1), "CZ"),)))
    core = fit_core(mpo.mpo, max_bond=1)
    given = Factorization(
        random_circuit(far, seed=0, scale=0.1), core, Circuit(Ansatz(3, ()), ()), (8, 8)
    )
    found = prune(mpo, given, trials=1, sweeps=1)
    first = max(found.points, key=lambda point: point.cnots)
    assert first.family == "given"
    assert first.cnots == 2 + 1 + 2 * 3  # a free gate, the CZ, and two SWAPs
    assert_allclose(first.factorization.to_dense(), given.to_dense(), atol=1e-12)
    assert found.front[0].cnots == 0
    for point in found.points:
        assert all(place.is_local for place in point.factorization.left.ansatz.placements)


def test_pruning_by_the_activations():
    matrix = random_matrix((8, 8), seed=3)
    x = random_matrix((40, 8), seed=5) / np.arange(1, 9)
    mpo = compress(matrix)
    first = disentangle(mpo, depth=1, objective="activations", inputs=x, n_init=1, max_sweeps=2)
    found = prune(mpo, first, objective="activations", inputs=x, trials=1, sweeps=1)
    for point in found.points:
        error = np.linalg.norm(x @ (matrix - point.factorization.to_dense()))
        assert_allclose(point.activation_error, error / np.linalg.norm(x @ matrix), rtol=1e-6)
        assert_allclose(point.loss, point.activation_error**2, rtol=1e-6)
    assert "act. error" in found.table().columns
    assert found.front[0].cnots == 0


def test_pruning_by_an_objective_object():
    matrix = random_matrix((8, 8), seed=3)
    covariance, sensitivity = random_covariance(8), random_covariance(8, seed=2)
    mpo = compress(matrix)
    first = disentangle(mpo, depth=1, init="identity", n_init=1, max_sweeps=2)
    options = {"trials": 1, "sweeps": 1, "min_cnots": 2}
    objective = Activations(covariance=covariance, sensitivity=sensitivity)
    found = prune(mpo, first, objective=objective, **options)
    values, vectors = np.linalg.eigh(sensitivity)
    root = (vectors * np.sqrt(values)) @ vectors.T
    for point in found.points:
        dense = point.factorization.to_dense()
        loss = weighted_distance(matrix @ root, dense @ root, covariance)
        assert_allclose(point.loss, loss, rtol=1e-6)
    assert found.objective == "activations"
    plain = prune(mpo, first, objective=Activations(covariance=covariance), **options)
    named = prune(mpo, first, objective="activations", covariance=covariance, **options)
    assert [p.loss for p in plain.points] == [p.loss for p in named.points]


def test_an_objective_without_a_dense_loss_is_refused(walls):
    class Other(Overlap):
        name = "other"

    with pytest.raises(ValueError, match="'other' has no loss of a dense matrix; use one of over"):
        prune(walls[0], walls[1][0], objective=Other())


def test_complex_gates_and_those_of_determinant_minus_one_are_pruned_too():
    mpo = compress(random_matrix((4, 4), complex=True, seed=6))
    for group in ("O", "U"):
        first = disentangle(mpo, depth=1, group=group, n_init=1, max_sweeps=3, init="identity")
        found = prune(mpo, first, trials=2, sweeps=2)
        assert found.front[0].cnots == 0
        assert found.at(99).loss <= first.loss + 1e-12


def test_a_search_does_not_try_twice_what_has_not_changed(walls):
    _, results = walls
    task = task_of(random_matrix((16, 16), seed=2))
    first = task.point(results[1].factorization, "wall")
    search = CnotSearch(task, [first], trials=1, sweeps=1)
    search.remove("down", min_cnots=10)
    tried = {way: list(rows) for way, rows in search.tried.items()}
    assert tried["removals"]
    points = search.points
    search.remove("down", min_cnots=10)
    assert search.tried == tried
    again = CnotSearch(task, points, trials=1, sweeps=1, tried=tried)
    again.remove("down", min_cnots=10)
    assert again.points == points


def test_a_search_gives_up_circuits_that_are_much_worse(walls):
    _, results = walls
    task = task_of(random_matrix((16, 16), seed=2))
    first = replace(task.point(results[0].factorization, "wall"), loss=1e-9)
    # whatever comes out with fewer CNOTs, better circuits are known
    known = [replace(first, cnots=cnots, loss=1e-6 / cnots) for cnots in range(1, first.cnots)]
    search = CnotSearch(task, [first, *known], trials=9, sweeps=1)
    search.remove("down", min_cnots=first.cnots - 1)
    assert search.points == [*known, first]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"trials": 0}, ValueError, "trials=0 must be a whole number, 1 or more"),
        ({"min_cnots": -1}, ValueError, "min_cnots=-1 must be a whole number, 0 or more"),
        ({"sweeps": True}, ValueError, "sweeps=True must be"),
        ({"objective": "loss"}, ValueError, "objective='loss' is not known; use one of overlap"),
        ({"objective": "activations"}, ValueError, "give inputs= or covariance="),
        (
            {"inputs": np.eye(16), "covariance": np.eye(16)},
            ValueError,
            "give inputs= or covariance=, not both",
        ),
        ({"shallower": ["x"]}, TypeError, "str is no factorization"),
    ],
)
def test_wrong_options_of_pruning(walls, options, error, message):
    mpo, results = walls
    with pytest.raises(error, match=message):
        prune(mpo, results[0], **options)


def test_operators_that_are_too_large_and_gates_that_are_too_wide(walls):
    large = mpo_from_tensors(random_cores(((2, 2),) * 11, 1))
    circuit = Circuit(Ansatz(11, ()), ())
    given = Factorization(circuit, large, circuit, (2**11, 2**11))
    with pytest.raises(ValueError, match=r"spans \(2048, 2048\), but .* up to 1024 rows"):
        prune(large, given)
    mpo = walls[0]
    wide = disentangle(mpo, left=brickwall(4, 1, 3), n_init=1, max_sweeps=1)
    with pytest.raises(ValueError, match="compile it with `synthesise`"):
        prune(mpo, wide)


def test_the_seed_may_be_a_generator(walls):
    mpo, results = walls
    options = {"min_cnots": 10, "trials": 1, "sweeps": 1}
    a = prune(mpo, results[0], seed=np.random.default_rng(3), **options)
    b = prune(mpo, results[0], seed=int(np.random.default_rng(3).integers(2**63)), **options)
    assert [p.loss for p in a.points] == [p.loss for p in b.points]


def test_dense_cores_agree_with_the_reference(found):
    _, point = found["overlap"]
    cores = [np.asarray(x) for x in random_cores(((2, 2),) * 3, 2)]
    given = Factorization(
        point.factorization.left, mpo_from_tensors(cores), point.factorization.right, (8, 8)
    )
    assert_allclose(given.core_to_dense(), dense_from_cores(cores))
