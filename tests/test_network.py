"""Contraction trees, messages along them, and the two network engines: transverse and tree."""

import importlib.util
import itertools
import json
import math
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import cotengra as ctg
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.environments import (
    EngineOptions,
    ProblemSize,
    TransverseEnvironments,
    TreeEnvironments,
    build_engine,
)
from mpodis.environments.network import transverse, tree
from mpodis.environments.network.geometry import Network
from mpodis.environments.network.messages import MessagePassing
from mpodis.environments.network.pairwise import plan_pair, plan_transpose
from mpodis.gates import polar
from mpodis.sites import left_canonical, spread_norm
from reference import random_cores

SPAWN = multiprocessing.get_context("spawn")
SIZES = {"a": 2, "b": 3, "c": 2, "d": 4, "e": 1, "f": 5, "g": 2, "h": 12}


def arrays_over(*index_sets, complex=False, seed=0):
    rng = np.random.default_rng(seed)
    found = [rng.normal(size=[SIZES[i] for i in x]) for x in index_sets]
    return [x + 1j * rng.normal(size=x.shape) for x in found] if complex else found


PAIRS = [
    ("abcd", "cefg", "abefgd"),  # a gate inside, in place
    ("abcd", "cg", "abgd"),
    ("ahf", "fgb", "ahgb"),  # at the end
    ("hbd", "hac", "acbd"),  # at the beginning
    ("abfd", "dga", "gbfa"),  # indices left over in another order
    ("ahfb", "aged", "edhfbg"),
    ("ahfb", "gahfbc"[::-1][1:-1][::-1], "gc"[:0]),  # everything meets
    ("habf", "hcbf", "ac"),  # closing, inside
    ("abh", "cdh", "abcd"),
    ("hab", "hcd", "cdab"),
    ("ahb", "chd", "acbd"),  # closing, at the ends
    ("ahbd", "bhg", "adg"),  # nothing in common that stays in order
    ("ab", "cd", "abcd"),  # an outer product
    ("ab", "cd", "cabd"),
    ("e", "hf", "hfe"),
    ("abcdf", "cfg", "abgd"),
]


@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("a", "b", "out"), PAIRS)
def test_a_planned_pair_is_einsum(a, b, out, swap, complex):
    if swap:
        a, b = b, a
    open_legs = set(a) ^ set(b)
    out = "".join(i for i in out if i in open_legs) + "".join(sorted(open_legs - set(out)))
    x, y = arrays_over(a, b, complex=complex)
    found = plan_pair(tuple(a), tuple(b), tuple(out), SIZES)(x, y)
    expected = np.einsum(f"{a},{b}->{out}", x, y)
    assert found.flags.c_contiguous
    assert_allclose(found.reshape(expected.shape), expected, atol=1e-12)


def test_random_pairs_in_any_order_are_einsum():
    rng = np.random.default_rng(1)
    names = list(SIZES)
    for seed in range(300):
        picked = list(rng.permutation(names)[: rng.integers(1, 7)])
        kinds = rng.integers(0, 3, len(picked))  # on a, on b, on both
        a = [i for i, kind in zip(picked, kinds, strict=True) if kind != 1]
        b = list(rng.permutation([i for i, kind in zip(picked, kinds, strict=True) if kind != 0]))
        out = list(rng.permutation([i for i, k in zip(picked, kinds, strict=True) if k != 2]))
        x, y = arrays_over(a, b, seed=seed)
        found = plan_pair(a, b, out, SIZES)(x, y)
        expected = np.einsum(f"{''.join(a)},{''.join(b)}->{''.join(out)}", x, y)
        assert_allclose(np.reshape(found, expected.shape), expected, atol=1e-12)


def test_transposes_move_what_stays_together_as_one():
    x = arrays_over("abcdh")[0]
    for wanted in itertools.permutations("abcdh"):
        found = plan_transpose("abcdh", wanted, SIZES)(x)
        expected = np.einsum(f"abcdh->{''.join(wanted)}", x)
        assert_allclose(found.reshape(expected.shape), expected, atol=0)
    assert plan_transpose("abc", "abc", SIZES)(x) is x


TENSORS = ["ab", "bcd", "ce", "dfg", "efha", "gh"]
PATH = [(0, 1), (2, 6), (3, 7), (4, 8), (5, 9)]


def messages(seed=0):
    found = MessagePassing([tuple(x) for x in TENSORS], SIZES, PATH)
    arrays = arrays_over(*TENSORS, seed=seed)
    for leaf, array in enumerate(arrays):
        found.set(leaf, array)
    return found, arrays


def contracted(arrays, hole=None):
    rest = [x for k, x in enumerate(TENSORS) if k != hole]
    return np.einsum(
        f"{','.join(rest)}->{TENSORS[hole] if hole is not None else ''}",
        *(x for k, x in enumerate(arrays) if k != hole),
    )


def test_the_message_into_a_leaf_is_its_environment():
    found, arrays = messages()
    rng = np.random.default_rng(2)
    for leaf in (3, 0, 5, 2, 2, 4, 1, 0):
        environment, log_scale = found.environment(leaf)
        expected = contracted(arrays, leaf)
        assert_allclose(environment.reshape(expected.shape) * np.exp(log_scale), expected)
        assert_allclose(found.value(leaf), contracted(arrays))
        arrays[leaf] = rng.normal(size=arrays[leaf].shape)
        found.set(leaf, arrays[leaf])


def test_a_walk_contracts_each_node_two_or_three_times():
    """However many tensors there are: what lies between two leaves is all that is redone."""
    network = Network.of(((2, 2),) * 20, brickwall(20, 2), brickwall(20, 2))
    sizes = network.sizes([3] * 19, [1] * 19)
    leaf = {key: k for k, key in enumerate(network.indices)}
    units = transverse.column_path(network, sizes)
    found = MessagePassing(
        list(network.indices.values()), sizes, transverse.chain_path(units, leaf)
    )
    calls = []
    for edge, (a, b, contract) in found._plans.items():
        found._plans[edge] = (
            a,
            b,
            lambda x, y, edge=edge, contract=contract: calls.append(edge) or contract(x, y),
        )
    rng = np.random.default_rng(0)
    values = [rng.normal(size=[sizes[i] for i in x]) for x in network.indices.values()]
    order = [leaf[key] for unit in units for key in unit]
    for k, value in enumerate(values):
        found.set(k, value)
    counts = []
    for walk in (order, order[::-1], order):
        calls.clear()
        for k in walk:
            found.environment(k)
            found.set(k, values[k] + 0.0)
        counts.append(len(calls) / (len(values) - 2))
    assert counts[0] <= 3
    assert max(counts[1:]) <= 2.1


def test_messages_are_rescaled_before_they_overflow():
    n = 500
    indices = [(f"b{k}", f"b{k + 1}") for k in range(n)]
    indices[-1] = (f"b{n - 1}", "b0")
    path = [(0, 1), *((n + k, k + 2) for k in range(n - 2))]
    for size in (1e5, 1e-5):
        found = MessagePassing(indices, dict.fromkeys((i for x in indices for i in x), 2), path)
        for k in range(n):
            found.set(k, size * np.eye(2))
        environment, log_scale = found.environment(7)
        assert np.isfinite(environment).all()
        expected = (n - 1) * math.log(size)
        assert_allclose(np.log(np.abs(environment[0, 0])) + log_scale, expected, rtol=1e-12)
        assert_allclose(environment / environment[0, 0], np.eye(2), atol=1e-15)


def many(n, depth, bond=3, max_bond=2, seed=0, ansatz=None):
    """Target, gates and core of norm 1 on n sites."""
    legs = ((2, 2),) * n
    target, core = (
        spread_norm(left_canonical(random_cores(legs, b, seed=seed + b))[0], 0.0)
        for b in (bond, max_bond)
    )
    left = ansatz or brickwall(n, depth)
    circuits = [random_circuit(a, seed=seed + 5, scale=0.1) for a in (left, left.reversed())]
    return legs, target, core, circuits


def engine(kind, n, depth, **options):
    extra = options.pop("engine", {})
    legs, target, core, (left, right) = many(n, depth, **options)
    found = kind(target, legs, left.ansatz, right.ansatz, **extra)
    found.set(left.gates, core, right.gates)
    return found


def test_a_hundred_sites_are_within_reach():
    found = engine(TransverseEnvironments, 100, 2)
    seen = []

    def update(environment, gate):
        seen.append(float(np.vdot(environment, gate)))
        return polar(environment, group="SO")

    for _ in range(2):
        found.sweep({"left": update, "right": update}, core=True)
    assert min(np.diff(seen[: len(seen) // 2])) > -1e-12 * max(seen)
    assert 0 < seen[0] < found.inner() < 1.0


@pytest.mark.parametrize("spec", ["2b + CNOT + 2b", "3b + 3b", "1b + CNOT + 1b + 2b"])
def test_the_two_engines_agree_where_dense_matrices_do_not_fit(spec):
    ansatz = from_spec(spec, 15)
    both = [
        engine(kind, 15, 0, ansatz=ansatz) for kind in (TransverseEnvironments, TreeEnvironments)
    ]
    gradients = [found.gradient() for found in both]
    assert_allclose(gradients[0].inner, gradients[1].inner, rtol=1e-11)
    for part in ("left", "core", "right"):
        pairs = zip(*(getattr(g, part) for g in gradients), strict=True)
        size = max(np.abs(x).max() for x in getattr(gradients[0], part) if x is not None)
        for a, b in pairs:
            assert (a is None) == (b is None)
            if a is not None:
                assert_allclose(a, b, atol=1e-11 * size)


def test_gates_and_idle_wires_have_the_indices_that_quimb_gives_them():
    apart = Ansatz(11, ((Placement((5, 2)), Placement((7, 8, 9))), (Placement((2, 7), "CNOT"),)))
    for ansatz in (brickwall(6, 3), staircase(6, 2), apart):
        n = ansatz.n
        network = Network.of(((2, 2),) * n, ansatz, brickwall(n, 1))
        upper, lower = ([f"{name}{wire}" for wire in range(n)] for name in ("k", "in"))
        circuit = random_circuit(ansatz, seed=0)
        wanted = [t.inds for t in circuit.tensor_network(side="left", upper=upper, lower=lower)]
        assert [x for key, x in network.indices.items() if key[0] in ("left", "idle")] == wanted


def test_boundaries_are_as_small_as_the_legs_that_straddle():
    for depth in (2, 4, 6):
        problem = ((2, 2),) * 12, brickwall(12, depth), brickwall(12, depth).reversed()
        network = Network.of(*problem)
        sizes = network.sizes([3] * 11, [2] * 11)
        expected = 3 * 2 * 4**depth
        largest = transverse.largest_boundary(*problem, [3] * 11, [2] * 11)
        assert largest == pytest.approx(expected)
        assert transverse.column_path(network, sizes, limit=2 * expected) is not None
        assert transverse.column_path(network, sizes, limit=expected / 2) is None
    stairs = ((2, 2),) * 12, staircase(12, 3), staircase(12, 3)
    largest = transverse.largest_boundary(*stairs, [3] * 11, [2] * 11)
    assert largest == pytest.approx(3 * 2 * 4**6)


# --- the tree engine


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
def test_slices_add_up_to_the_whole(executor):
    whole = engine(TreeEnvironments, 6, 3)
    pool = None
    if executor:
        pool = ThreadPoolExecutor(2) if executor == "threads" else ProcessPoolExecutor(2, SPAWN)
    sliced = engine(TreeEnvironments, 6, 3, engine={"memory": 20_000, "executor": pool})
    assert len(sliced.plan["sliced"]) >= 2
    assert whole.plan["sliced"] == []
    assert_allclose(sliced.inner(), whole.inner(), rtol=1e-11)
    for part in ("left", "core", "right"):
        for a, b in zip(
            getattr(sliced.gradient(), part), getattr(whole.gradient(), part), strict=True
        ):
            if a is not None:
                assert_allclose(a, b, atol=1e-12)
    update = dict.fromkeys(("left", "right"), lambda e, g: polar(e, group="SO"))
    for found in (sliced, whole):
        found.sweep(update, core=True)
    assert_allclose(sliced.inner(), whole.inner(), rtol=1e-10)
    if pool:
        pool.shutdown()


def test_all_environments_come_from_one_pass_over_the_slices(monkeypatch):
    found = engine(TreeEnvironments, 6, 2, engine={"memory": 10_000})
    calls = []
    contract = tree.contract_slice
    monkeypatch.setattr(tree, "contract_slice", lambda *a: calls.append(a[4]) or contract(*a))
    found.gradient()
    assert len(calls) == len(found._messages.slices) > 1


def test_what_would_take_too_many_slices_is_refused():
    with pytest.raises(ValueError, match=r"more than 4096 slices; give memory= more bytes"):
        engine(TreeEnvironments, 8, 6, engine={"memory": 2000})


def test_a_path_is_searched_once_and_can_be_handed_on(monkeypatch):
    searched = []
    search = tree.search_path
    monkeypatch.setattr(tree, "search_path", lambda *a, **k: searched.append(a) or search(*a, **k))
    first = engine(TreeEnvironments, 6, 2)
    first.sweep({"left": lambda e, g: g}, core=True)
    assert len(searched) == 1
    again = engine(TreeEnvironments, 6, 2, engine={"plan": first.plan})
    assert_array_equal(again.inner(), engine(TreeEnvironments, 6, 2).inner())
    assert len(searched) == 2
    # another bond dimension is another network
    again.set(core=random_cores(((2, 2),) * 6, 3, seed=1))
    again.inner()
    assert len(searched) == 3


def closed(n=6, depth=3):
    """Indices and sizes of a closed network."""
    network = Network.of(((2, 2),) * n, brickwall(n, depth), brickwall(n, depth).reversed())
    return list(network.indices.values()), network.sizes([3] * (n - 1), [2] * (n - 1))


@pytest.mark.parametrize("how", ["greedy", "hyper"])
def test_searches_repeat_and_leave_the_global_random_state_alone(how):
    if how == "hyper":
        pytest.importorskip("kahypar")
    indices, sizes = closed()
    before = random.getstate()
    paths = []
    for _ in range(2):
        tree._searched.cache_clear()
        paths.append(tree.search_path(indices, sizes, optimize=how, trials=4, seed=3))
    assert random.getstate() == before
    assert paths[0] == paths[1]
    assert len(paths[0]) == len(indices) - 1


def linear_path(indices, sizes):
    """A path from left to right, as opt_einsum writes it: the product goes to the end."""
    return [(0, 1), *((0, k) for k in range(len(indices) - 2, 0, -1))]


def tree_of(indices, sizes):
    return ctg.array_contract_tree(indices, (), sizes, optimize="greedy")


OPTIMIZE = {
    "none": lambda *_: None,
    "greedy": lambda *_: "greedy",
    "hyper": lambda *_: "hyper",
    "preset": lambda *_: "random-greedy",
    "optimizer": lambda *_: ctg.RandomGreedyOptimizer(max_repeats=2, seed=0, parallel=False),
    "hyper-optimizer": lambda *_: ctg.HyperOptimizer(
        methods=["greedy"], max_repeats=2, parallel=False, optlib="random"
    ),
    "path": linear_path,
    "tree": tree_of,
}


@pytest.mark.parametrize("name", OPTIMIZE)
def test_every_kind_of_optimize_reaches_the_engine(name, monkeypatch):
    monkeypatch.setattr(tree, "TRIALS", 2)
    n, depth = 4, 2
    legs, target, core, (left, right) = many(n, depth)
    optimize = OPTIMIZE[name](*closed(n, depth))
    options = EngineOptions(optimize=optimize)
    found = build_engine("tree", target, legs, left.ansatz, right.ansatz, options=options)
    found.set(left.gates, core, right.gates)
    reference = engine(TransverseEnvironments, n, depth)
    assert_allclose(found.inner(), reference.inner(), rtol=1e-11)
    plan = [tuple(pair) for pair in found.plan["ssa_path"]]
    assert json.loads(json.dumps(found.plan)) == found.plan
    if name == "path":  # each product is made of the one before and the next tensor
        count = len(found.network.indices)
        assert [set(pair) for pair in plan] == [
            {0, 1},
            *({k + 2, k + count} for k in range(count - 2)),
        ]
    if name == "tree":
        assert plan == [tuple(pair) for pair in optimize.get_ssa_path()]
    problem = ProblemSize(legs, left.ansatz, right.ansatz, (3,) * (n - 1), (2,) * (n - 1), False)
    estimate = TreeEnvironments.estimate(problem, options)
    assert 0 < estimate.seconds < 1
    assert estimate.bytes > 0


@pytest.mark.parametrize(
    "optimize",
    ["best", [(0, 1)], [(0, 1), (5, 99)], tree_of(*closed(4, 1))],
    ids=["name", "short path", "other tensors", "tree of another network"],
)
def test_what_is_no_contraction_of_the_network_is_refused(optimize):
    with pytest.raises(ValueError, match=r"optimize=.*(tensors|contraction)"):
        engine(TreeEnvironments, 6, 3, engine={"optimize": optimize})


def test_hyper_uses_the_methods_of_cotengra_where_kahypar_is_missing(monkeypatch):
    tree._searched.cache_clear()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        tree.importlib.util, "find_spec", lambda name: None if name == "kahypar" else find(name)
    )
    used = []
    optimizer = ctg.HyperOptimizer
    monkeypatch.setattr(
        ctg, "HyperOptimizer", lambda **options: used.append(options) or optimizer(**options)
    )
    engine(TreeEnvironments, 4, 2, engine={"optimize": "hyper", "trials": 2})
    assert [options["methods"] for options in used] == [["labels"]]


@pytest.mark.parametrize("kind", [TransverseEnvironments, TreeEnvironments])
def test_two_tensors_are_a_network_too(kind):
    legs = ((2, 2),)
    from mpodis.circuit.ansatz import Ansatz

    target, core = random_cores(legs, 1, seed=1), random_cores(legs, 1, seed=2)
    found = kind(target, legs, Ansatz(1, ()), Ansatz(1, ()))
    found.set([], core, [])
    assert_allclose(found.inner(), np.vdot(target[0], core[0]))
    assert_allclose(found.fitted_core()[0], target[0])
