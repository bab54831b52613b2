"""Circuits that grow: never worse when deeper, and bit by bit the same when interrupted."""

import json
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import Circuit, embed, identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.disentangling import disentangle, resume
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.optimise import grow as stages
from mpodis.optimise.grow import Stage, plan
from mpodis.optimise.initial_guesses import KICK_SHARES
from mpodis.optimise.state import State
from mpodis.options import SearchOptions
from mpodis.sites import mpo_from_tensors
from reference import circuit_matrix, random_matrix
from searching import Stepper, build

QUICK = {"init": "grown", "n_init": 2, "init_sweeps": 3, "max_sweeps": 8}
LEAPING = {**QUICK, "init_sweeps": 2, "max_sweeps": 4}


def operator(n=4, is_complex=False, seed=0):
    return compress(random_matrix((2**n, 2**n), is_complex, seed)).mpo


@pytest.fixture
def early_leaps(monkeypatch):
    """Leaps at depths 4 and 6 already, in blocks of two layers."""
    monkeypatch.setattr(stages, "COARSE_DEPTH", 4)
    monkeypatch.setattr(stages, "BLOCK", 2)


# --- circuits inside larger ones


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("group", ["SO", "O", "U"])
@pytest.mark.parametrize("deep", [brickwall(5, 6), from_spec("1b + 2b + 3b + 2b + 1b + 2b", 5)])
def test_embedding_keeps_the_matrix(deep, group, side):
    deep = Ansatz(deep.n, deep.layers, group)
    layers = deep.layers[:3] if side == "left" else deep.layers[-3:]
    small = random_circuit(Ansatz(deep.n, layers, group), seed=1)
    large = embed(small, deep, outermost=side)
    assert large.ansatz == deep
    assert_allclose(circuit_matrix(large), circuit_matrix(small), atol=1e-13)
    # the outermost layers take the gates, the others are the identity
    free = [k for k, gate in enumerate(large.gates) if not np.array_equal(gate, np.eye(len(gate)))]
    count = len(small.gates)
    first = 0 if side == "left" else len(large.gates) - count
    assert free == list(range(first, first + count))


def test_embedding_finds_other_patterns():
    small = random_circuit(staircase(4, 1), seed=0)
    large = embed(small, brickwall(4, 5))
    assert_allclose(circuit_matrix(large), circuit_matrix(small), atol=1e-13)


def test_embedding_errors():
    small = random_circuit(brickwall(4, 3), seed=0)
    with pytest.raises(ValueError, match=r"has no placement for a gate on wires \(0,\).*fewer"):
        embed(small, brickwall(4, 1))
    with pytest.raises(ValueError, match="outermost='core' is not known; use 'left' or 'right'"):
        embed(small, brickwall(4, 3), outermost="core")
    with pytest.raises(ValueError, match="has 4 wires, the ansatz 5"):
        embed(small, brickwall(5, 3))
    with pytest.raises(ValueError, match=r"a CNOT on wires \(0, 1\) that the circuit does not"):
        embed(small, from_spec("2b + 2b + 2b + 2b + CNOT", 4, parity=0))


# --- plans


def test_a_plan_is_the_beginning_of_a_deeper_one():
    for depth in range(1, 26):
        short, long = (
            plan(brickwall(6, d), brickwall(6, d).reversed()) for d in (depth, depth + 1)
        )
        assert long[: len(short)] == short
        assert short[-1].left == brickwall(6, depth)
        assert short[-1].right == brickwall(6, depth).reversed()
    begins = [stage.begins for stage in plan(brickwall(6, 16), brickwall(6, 16))]
    grown = [name for name in begins if name != "restart"]
    assert grown == ["guess", *["grow"] * 15, "coarse", *["compile"] * 4]
    afresh = [k for k, name in enumerate(begins) if name == "restart"]
    assert afresh == [2, 5, 10, 19]  # after the stages of 2, 4, 8 and 16 layers


@pytest.mark.parametrize("depth", [2, 3, 4, 16])
def test_circuits_of_the_whole_depth_may_come_first(depth):
    whole = brickwall(6, depth)
    grown, found = (plan(whole, whole, whole_first=first) for first in (False, True))
    assert found[0] == Stage(whole, whole, "guess", challenged=True)
    assert found[1] == Stage(whole, whole, "restart", decides=True, challenged=True)
    # at a power of two they take the place of those that the growing ones met at the end
    again = ("restart", depth) if depth in (2, 4, 16) else None
    rest = [(s.begins, s.depth) for s in found[2:]]
    compared = [here for s in grown[1:] if (here := (s.begins, s.depth)) != again]
    assert rest == [("restart", 1), *compared]  # what was found is put aside
    assert plan(brickwall(6, 1), brickwall(6, 1), whole_first=True) == [
        Stage(brickwall(6, 1), brickwall(6, 1), "guess")
    ]


def test_sides_of_unequal_depth_grow_from_the_outside():
    left, right = brickwall(4, 3), brickwall(4, 1)
    found = plan(left, right)
    assert [(s.left.depth, s.right.depth) for s in found] == [(1, 1), (2, 1), (2, 1), (3, 1)]
    found = plan(right, left)
    assert [s.right.layers for s in found] == [
        left.layers[2:],
        left.layers[1:],
        left.layers[1:],
        left.layers,
    ]


def test_fixed_gates_do_not_grow():
    with pytest.raises(ValueError, match="fixed CNOT on wires .* init='identity'"):
        disentangle(operator(), left="2b + CNOT", init="grown")


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"left": 2}, "auto"),
        ({"left": "2b + CNOT"}, "identity"),
        ({"left": 2, "engine": "transverse"}, "identity"),
        ({"left": 2, "init": "identity"}, "identity"),
    ],
)
def test_the_default_start(options, start):
    found = disentangle(operator(), n_init=1, max_sweeps=1, **options)
    assert found.options.init == start
    assert len(found.winners) == (4 if start == "auto" else 1)


def test_wide_operators_do_not_grow_by_themselves():
    assert disentangle(operator(9), depth=1, n_init=1, max_sweeps=1).options.init == "identity"


# --- runs


@pytest.mark.no_cover  # three runs each; the path below is traced
@pytest.mark.parametrize(
    ("width", "group", "max_bond"), [(2, "SO", 1), (2, "O", 2), (3, "SO", 1), (2, "U", 1)]
)
def test_deeper_is_never_worse(width, group, max_bond):
    mpo = operator(is_complex=group == "U")
    reached = []
    for depth in (1, 2, 3):
        left = brickwall(4, depth, width, group=group)
        found = disentangle(mpo, left=left, max_bond=max_bond, **QUICK)
        reached.append(found.overlap)
        assert_allclose(found.factorization.overlap(mpo), found.overlap, atol=1e-12)
    assert min(np.diff(reached)) >= -1e-12


def test_deeper_is_never_worse_for_the_activations():
    x = random_matrix((50, 16), False, 3) @ np.diag(0.7 ** np.arange(16))
    losses = [
        disentangle(operator(), left=d, objective="activations", inputs=x, **QUICK).loss
        for d in (1, 2, 3)
    ]
    assert max(np.diff(losses)) <= 1e-12


@pytest.mark.no_cover  # two long runs; test_out_of_time_anywhere has the same lines
def test_deeper_is_never_worse_with_leaps(early_leaps):
    mpo, reached, leapt = operator(4), [], []
    for depth in (4, 6):
        found = disentangle(mpo, left=depth, **LEAPING)
        reached.append(found.overlap)
        assert found.factorization.left.ansatz == brickwall(4, depth)
        assert_allclose(found.path("overlap")[-1], found.overlap, atol=1e-9)
        leapt.append(len(found.winners))
        ways = found.by_depth()
        assert list(ways) == list(range(1, depth + 1))
        assert max(record["width"] for record in ways.values()) == 2
        assert_allclose(ways[depth]["overlap"], found.overlap, atol=1e-9)
    assert min(np.diff(reached)) >= -1e-12
    assert leapt == [4 + 2 + 5, 6 + 2 + 5 + 7]  # afresh at 2 and 4


@pytest.mark.parametrize(("sweeps", "lost"), [(1, True), (2, False)])
def test_a_leap_challenges_what_stands(early_leaps, sweeps, lost):
    """Also where what began afresh just before, here far from the identity, has lost."""
    mpo = operator(4)
    settings = SearchOptions(
        init="grown", n_init=1, init_scale=3.0, init_sweeps=1, max_sweeps=sweeps
    )
    run, seen = Stepper(build(mpo, 4), settings), set()
    while run.step() is not None:
        incumbent, since = run.state.incumbent, run.state.incumbent_stage
        if incumbent is not None and since not in seen:
            seen.add(since)
            stage, point = run.search.stages[since - 1], incumbent.point
            left, right = (
                Circuit(getattr(stage, side), tuple(getattr(point, side)))
                for side in ("left", "right")
            )
            there = Factorization(left, mpo_from_tensors(point.core), right, (16, 16))
            assert_allclose(there.overlap(mpo), 1 - incumbent.best_loss, atol=1e-12)
            if stage.begins == "restart":
                assert (incumbent.name in run.state.winners[: since - 1]) == lost
    assert len(seen) == 3  # afresh at 2 and 4, with wide gates at 4


def test_the_path_is_what_was_kept():
    found = disentangle(operator(), depth=3, **QUICK)
    path = found.path("overlap")
    stage, depth = found.path("stage"), found.path("depth")
    assert set(stage) in ({0, 1, 2, 3}, {0, 1, 3})  # stage 2 begins afresh, and may have lost
    assert_array_equal(depth, np.array([1, 2, 2, 3])[stage.astype(int)])
    ends = [path[depth == k].max() for k in (1, 2, 3)]
    assert ends == sorted(ends)
    assert_allclose(path[-1], found.overlap, atol=1e-9)
    assert len(found.winners) == 4
    ways = found.by_depth()
    assert list(ways) == [1, 2, 3]
    assert_allclose([record["overlap"] for record in ways.values()], ends, atol=1e-12)
    with pytest.raises(KeyError, match="no column 'f'"):
        found.path("f")


def test_an_exact_answer_ends_the_growth():
    mpo = compress(np.kron(np.diag([1.0, 2.0]), np.kron(np.eye(2), np.diag([3.0, 1.0])))).mpo
    found = disentangle(mpo, depth=5, init="grown", init_scale=0.0)
    assert found.status == "exact"
    assert found.history.records[-1]["stage"] == 0
    assert found.factorization.left.ansatz == brickwall(3, 5)


@pytest.mark.parametrize("leaps", [False, True])
@pytest.mark.parametrize("init", ["grown", "auto"])
def test_out_of_time_anywhere(init, leaps, request):
    if leaps:
        request.getfixturevalue("early_leaps")
    mpo = operator(4)
    whole = disentangle(mpo, depth=4, **LEAPING | {"init": init})
    run = Stepper(build(mpo, 4), whole.options)
    best, whole_depth = -1.0, 1.0
    while run.step() is not None:
        here = run.result()
        assert here.factorization.left.ansatz == brickwall(4, 4)
        assert_allclose(here.factorization.overlap(mpo), here.overlap, atol=1e-12)
        if here.history.records[-1]["phase"] != "init" and here.init == 0:
            best = max(best, here.overlap)
        if init == "auto" and here.history.records[-1]["stage"] < 2:
            whole_depth = min(whole_depth, here.loss)
        assert here.loss <= whole_depth + 1e-12  # it is at hand while others grow
    assert run.result().overlap == whole.overlap
    assert best <= whole.overlap + 1e-12


@pytest.mark.no_cover  # a run from many places; checkpoints are traced elsewhere
@pytest.mark.parametrize("init", ["grown", "auto"])
def test_interrupted_anywhere_it_ends_the_same(init, early_leaps):
    problem = build(operator(4), 4)
    short = {"init": init, "init_sweeps": 2, "max_sweeps": 3, "n_perturbed": 2}
    settings = SearchOptions(**QUICK | short)
    whole, states = Stepper(problem, settings), []
    while whole.step() is not None:
        states.append((*whole.state.to_arrays(), list(whole.state.records)))
    seen = {record["stage"] for *_, records in states for record in records}
    # depths, two afresh, wide gates, four layers compiled; one more of the whole depth
    assert seen == set(range(4 + 2 + 5 + (init == "auto")))
    wanted = whole.result()
    assert len(whole.state.records) <= whole.search.total
    # where a stage has just ended, or before its last sweep
    stage = [records[-1]["stage"] for *_, records in states]
    ends = [k for k in range(len(stage)) if stage[k : k + 2] != [stage[k]] * 2]
    for arrays, numbers, records in (states[k - k % 2] for k in ends[2::2]):
        state = State.from_arrays(arrays, json.loads(json.dumps(numbers)), records)
        found = Stepper(problem, settings, state).finish()
        assert found.winners == wanted.winners
        assert len(found.history) == len(wanted.history)
        assert_array_equal(found.factorization.to_dense(), wanted.factorization.to_dense())


def test_kicks_differ_from_stage_to_stage():
    options = SearchOptions(**{**QUICK, "init_sweeps": 1, "max_sweeps": 1, "n_perturbed": 1})
    run, moved = Stepper(build(operator(), 3), options), []
    while run.step() is not None:
        state = run.state
        grows = run.search.stages[state.stage].begins == "grow"
        if grows and state.guess == 1 and state.phase == "init":
            moved.append(state.initial.left[0].T @ state.point.left[0])
    assert len(moved) == 2
    assert np.abs(moved[0] - moved[1]).max() > 1e-3


# --- kicks in a limited time


@pytest.mark.no_cover  # three searches; the next test traces kicks
@pytest.mark.parametrize("init", ["identity", "auto"])
def test_a_search_with_time_left_goes_on_from_kicks(init):
    options = {"init": init, "n_init": 1, "init_sweeps": 2, "tol": 3e-2}
    alone = disentangle(operator(), depth=2, **options)
    found = disentangle(operator(), depth=2, **options, max_seconds=1e6)
    assert (alone.status, found.status) == ("converged", "converged")
    planned, count = len(alone.history), len(found.history)
    assert_array_equal(found.history.column("overlap")[:planned], alone.history.column("overlap"))
    assert count >= 3 * planned
    assert found.loss < alone.loss - 1e-3  # this operator has lower minima
    assert_allclose(found.overlap, found.history.column("overlap").max(), atol=1e-9)
    again = disentangle(operator(), depth=2, **options, max_seconds=1e5)
    assert_array_equal(again.factorization.to_dense(), found.factorization.to_dense())


@pytest.mark.parametrize("init", ["identity", "auto"])
def test_kicks_turn_a_part_of_the_best_gates(init):
    options = {"init": init, "n_init": 1, "init_sweeps": 2, "max_sweeps": 30, "tol": 1e-2}
    run = Stepper(build(operator()), SearchOptions(**options, max_seconds=1e6))
    planned, seen, best = len(run.search.stages), 0, None
    while run.step() is not None:
        state = run.state
        if state.stage >= planned and state.phase == "init":
            number = 0
            for side in ("left", "right"):
                pairs = list(zip(getattr(best, side), getattr(state.initial, side), strict=True))
                number += sum(not np.array_equal(x, y) for x, y in pairs)
            assert number == 2 * math.ceil(KICK_SHARES[state.stage % 3] * len(pairs))
            seen += 1
        best = stages.best_so_far(run.search.stages, state)[1]
    assert seen > 2


@pytest.mark.no_cover  # ten searches; the test above traces kicks
def test_kicks_interrupted_anywhere_end_the_same():
    options = {"init": "identity", "n_init": 1, "tol": 2e-2, "max_sweeps": 60, "max_seconds": 1e6}
    problem, settings = build(operator()), SearchOptions(**options)
    run, states = Stepper(problem, settings), []
    while run.step() is not None:
        arrays, numbers = run.state.to_arrays()
        states.append((dict(arrays), json.dumps(numbers), list(run.state.records)))
    wanted = run.result()
    assert max(record["stage"] for record in wanted.history.records) > 2
    for arrays, numbers, records in states[:: max(1, len(states) // 5)]:
        state = State.from_arrays(arrays, json.loads(numbers), records)
        found = Stepper(problem, settings, state).finish()
        assert len(found.history) == len(wanted.history)
        assert_array_equal(found.factorization.to_dense(), wanted.factorization.to_dense())


def test_a_kick_that_brings_nothing_does_not_say_why_the_search_ended():
    options = {"left": 1, "right": 1, "max_bond": 1, "init": "identity", "n_init": 1}
    matrix = np.random.default_rng(13).normal(size=(4, 4))
    plain = disentangle(matrix, **options, max_sweeps=20)
    kicked = disentangle(matrix, **options, max_sweeps=20, max_seconds=1e6)
    last = kicked.history.records[-1]
    assert last["sweep"] == 20  # the last kick has reached max_sweeps
    assert last["stage"] > 0
    assert last["init"] != kicked.init
    assert plain.status == kicked.status == "converged"


def test_circuits_without_free_gates_are_not_kicked():
    fixed = Ansatz(3, ())
    matrix, options = np.random.default_rng(0).normal(size=(8, 8)), {"max_bond": 2, "n_init": 1}
    plain = disentangle(matrix, left=fixed, right=fixed, **options)
    found = disentangle(matrix, left=fixed, right=fixed, **options, max_seconds=1e6)
    assert found.status == plain.status == "converged"
    assert len(found.history) == len(plain.history)


# --- going on from what is there


def test_a_start_that_is_given():
    mpo = operator()
    first = disentangle(mpo, depth=2, n_init=1, max_sweeps=5)
    for given in (first, first.factorization):
        again = disentangle(mpo, depth=4, init=given, n_init=1, max_sweeps=5)
        assert_allclose(again.history.column("overlap")[0], first.overlap, atol=1e-12)
        assert again.overlap > first.overlap
        assert again.options.init == "given"
    wider = disentangle(mpo, depth=2, init=first, max_bond=2, n_init=3, init_sweeps=2, max_sweeps=3)
    assert wider.overlap > first.overlap
    f = [wider.history.column("overlap", init=k)[0] for k in range(3)]
    assert f[0] > f[1] > f[2]  # the others are around it
    narrow = disentangle(mpo, depth=2, init=wider, max_bond=1, n_init=1, max_sweeps=3)
    assert max(narrow.factorization.core.bond_sizes()) == 1


def test_given_starts_that_do_not_fit():
    mpo, first = operator(), disentangle(operator(), depth=2, n_init=1, max_sweeps=1)
    with pytest.raises(ValueError, match=r"init= has legs .*the operator"):
        disentangle(operator(3), depth=2, init=first)
    with pytest.raises(ValueError, match="has no placement for a gate"):
        disentangle(mpo, depth=1, init=first)
    with pytest.raises(TypeError, match="init=3 is not an initial guess; give a name"):
        disentangle(mpo, depth=1, init=3)
    with pytest.raises(TypeError, match="init='given' is not an initial guess"):
        disentangle(mpo, depth=1, init="given")
    flipped = Ansatz(4, ((Placement((0, 1)),),), "O")
    left = Circuit(flipped, (np.diag([1.0, 1, 1, -1]),))
    core = mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * 4)
    given = Factorization(left, core, identity_circuit(flipped), (16, 16))
    with pytest.raises(ValueError, match=r"determinant -1 on wires \(0, 1\); use group='O'"):
        disentangle(mpo, depth=1, init=given)
    assert disentangle(mpo, depth=1, init=given, group="O", max_sweeps=1).overlap > 0
    turned = Ansatz(4, flipped.layers, "U")
    left = identity_circuit(turned)
    given = Factorization(left, core, identity_circuit(flipped), (16, 16))
    with pytest.raises(ValueError, match="complex gate .* use group='U'"):
        disentangle(mpo, depth=1, init=given)


@pytest.mark.parametrize("n_perturbed", [-1, True, 1.5])
def test_kicks_are_counted(n_perturbed):
    with pytest.raises(
        ValueError, match=f"n_perturbed={n_perturbed} must be a whole number, 0 or more"
    ):
        disentangle(operator(), depth=1, n_perturbed=n_perturbed)


def test_a_resumed_run_has_its_given_start(tmp_path):
    mpo = operator()
    first = disentangle(mpo, depth=1, n_init=1, max_sweeps=3)
    options = {"left": 2, "init": first, "n_init": 2, "init_sweeps": 2}
    short = disentangle(mpo, **options, max_sweeps=2, run_dir=tmp_path)
    assert_array_equal(resume(tmp_path).factorization.to_dense(), short.factorization.to_dense())
    other = disentangle(mpo, depth=1, n_init=1, max_sweeps=4)
    with pytest.raises(ValueError, match="fingerprint differ"):
        disentangle(mpo, **{**options, "init": other}, max_sweeps=6, run_dir=tmp_path)
