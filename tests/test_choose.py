"""Which engine is taken, what each would need, and overlaps measured without the engine."""

import logging
import math
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose

import mpodis
from mpodis.circuit.ansatz import Ansatz, brickwall, staircase
from mpodis.circuit.circuit import random_circuit
from mpodis.environments import (
    ENGINES,
    EngineOptions,
    build_engine,
    choose,
    engine_estimates,
    to_mpo,
    true_overlap,
)
from mpodis.environments import overlap as truth
from mpodis.environments.arrays import available_memory
from mpodis.factorization import Factorization
from mpodis.mpo import compress
from mpodis.sites import (
    left_canonical,
    mpo_from_tensors,
    mpo_to_dense,
    site_tensors,
    spread_norm,
)
from reference import overlap, random_cores, random_matrix

GIB = 2.0**30


def picked(n, depth, *, bond=4, max_bond=1, memory=8 * GIB, engine="auto", ansatz=None, **options):
    left = ansatz or brickwall(n, depth, fill=False)
    return choose(
        ((2, 2),) * n,
        left,
        left.reversed(),
        target_bonds=[bond] * (n - 1),
        max_bond=max_bond,
        complex=False,
        options=EngineOptions(memory=memory, **options),
        engine=engine,
    )


@pytest.mark.parametrize(
    ("n", "depth", "engines"),
    [
        (3, 1, {"dense", "transverse"}),
        (6, 8, {"dense"}),
        (6, 32, {"dense", "tree"}),
        (8, 32, {"dense", "tree"}),
        (12, 2, {"transverse"}),
        (12, 8, {"tree", "transverse"}),
        (32, 4, {"transverse", "tree"}),
        (32, 16, {"boundary"}),
        (48, 64, {"boundary"}),
        (100, 2, {"transverse"}),
    ],
)
def test_the_cheapest_exact_engine_is_taken_else_boundary(n, depth, engines):
    estimate = picked(n, depth)
    assert estimate.engine in engines
    assert estimate.exact == (estimate.engine != "boundary")
    assert 0 < estimate.seconds < 60
    assert 0 < estimate.bytes < 8 * GIB


def test_one_line_says_what_was_taken_and_why(caplog):
    with caplog.at_level(logging.INFO, logger="mpodis"):
        picked(20, 4)
    (record,) = caplog.records
    line = record.getMessage()
    assert line.startswith("engine transverse: exact, about ")
    assert "MiB (" in line
    assert "dense does not fit" in line
    assert "boundary" in line
    assert "\n" not in line


def test_what_does_not_fit_is_refused_before_anything_is_allocated():
    with pytest.raises(
        ValueError, match="no engine fits this problem: .*Use fewer layers or smaller"
    ):
        picked(40, 40, memory=2.0**20)
    message = "engine 'transverse' would take .* of memory, and 1 GiB are allowed; engine='auto'"
    with pytest.raises(ValueError, match=message):
        picked(32, 20, memory=GIB, engine="transverse")
    with pytest.raises(ValueError, match="the dense engine would hold 16384 x 16384 matrices"):
        picked(14, 1, engine="dense")
    assert picked(32, 20, memory=GIB, engine="boundary").engine == "boundary"


@pytest.mark.no_cover  # large; smaller operators are traced
def test_hundreds_of_sites_are_estimated_too():
    assert picked(300, 2).engine == "transverse"
    with pytest.raises(ValueError, match="would hold 2\\^300 x 2\\^300 matrices"):
        picked(300, 2, engine="dense")


@pytest.mark.no_cover  # large; smaller operators are traced
@pytest.mark.parametrize(("n", "depth"), [(2000, 8), (500, 49), (100, 64)])
def test_estimates_of_thousands_of_sites_take_few_steps(n, depth):
    mpo, circuit = mpo_from_tensors([np.ones((1, 2, 2, 1))] * n), brickwall(n, depth)
    calls = 0

    def count(_, event, __):
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        rows = engine_estimates(mpo, left=circuit, right=circuit, memory=8 * GIB).rows
    finally:
        sys.setprofile(before)
    # 1,100 to 1,400 a site where it was measured, in less than a second; contractions of every
    # step that are planned one by one take 7,000 and more
    assert calls < 2000 * n
    assert [row[0] for row in rows] == ["dense", "transverse", "boundary"]
    assert math.isfinite(rows[-1][2])


def test_a_smaller_memory_moves_the_choice():
    wide = picked(12, 8, memory=8 * GIB)
    assert wide.exact
    assert picked(12, 8, memory=wide.bytes / 2).engine != wide.engine


def test_a_tree_is_searched_where_circuits_are_irregular():
    # five staircases have wide boundaries on every column, and the dense engine is out of reach
    ansatz = Ansatz(15, (*staircase(15, 1, 6).layers[:2],), "SO")
    estimate = picked(15, 0, ansatz=ansatz, engine="tree")
    assert estimate.engine == "tree"
    assert math.isfinite(estimate.seconds)
    assert estimate.bytes < 8 * GIB


def test_estimates_tell_time_memory_and_what_is_refused():
    mpo = mpo_from_tensors(random_cores(((2, 2),) * 14, 3, seed=1))
    circuits = {"left": brickwall(14, 4), "right": brickwall(14, 4).reversed()}
    table = engine_estimates(mpo, **circuits)
    rows = {row[0]: row[1:] for row in table.rows}
    # a search for a tree is not worth its time where transverse takes milliseconds
    kinds = {name: kind for name, (kind, _, _, _) in rows.items()}
    assert kinds == {"dense": "exact", "transverse": "exact", "boundary": "D = 32"}
    assert rows["dense"][1] == math.inf
    assert rows["dense"][3] == "no"
    (why,) = table.notes
    assert why == "the dense engine would hold 16384 x 16384 matrices, beyond 8192"
    for name in ("transverse", "boundary"):
        _, seconds, mebibytes, usable = rows[name]
        found = picked(14, 4, bond=3, engine=name, ansatz=circuits["left"])
        assert usable == "yes"
        assert seconds == pytest.approx(found.seconds)
        assert float(mebibytes) == pytest.approx(found.bytes / 2**20, rel=1e-2)
    tight = engine_estimates(mpo, **circuits, memory=2.0**20)
    assert {row[4] for row in tight.rows} == {"no"}
    assert all(row[0] in note for row, note in zip(tight.rows, tight.notes, strict=True))


def test_estimates_take_what_disentangle_takes():
    matrix = random_matrix((60, 12))
    left, right = brickwall(6, 3), brickwall(4, 3).reversed()
    expected = engine_estimates(compress(matrix).mpo, left=left, right=right)
    assert engine_estimates(matrix, depth=3).rows == expected.rows
    assert engine_estimates(matrix, left="3*2b").rows == expected.rows
    square = engine_estimates(np.eye(16), left=brickwall(4, 3))  # mirrored where right is left out
    assert square.rows == engine_estimates(np.eye(16), depth=3).rows


MPO4 = mpo_from_tensors(random_cores(((2, 2),) * 4, 2, seed=1))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        (
            {"left": 2.5},
            TypeError,
            r"left=2.5 is not a circuit; give an Ansatz, a Circuit, a depth",
        ),
        ({"depth": 2}, TypeError, "depth= describes both circuits; leave it out where left="),
        ({"left": None}, TypeError, "give depth=, the number of layers on either side, or left="),
        ({"right": brickwall(3, 1)}, ValueError, "right= has 3 wires, the operator 4"),
        ({"max_bond": 0}, ValueError, "^max_bond=0 must be a whole number, 1 or more"),
        (
            {"environment_bond": 0},
            ValueError,
            "environment_bond=0 must be a whole number, 1 or more",
        ),
        ({"memory": -1}, ValueError, "memory=-1 must be a positive number, or None"),
        ({"operator": "W"}, TypeError, "str is not read as an operator: give a matrix"),
    ],
)
def test_estimates_refuse_what_they_cannot_use(options, error, text):
    options = {"operator": MPO4, "left": brickwall(4, 2), "right": brickwall(4, 2)} | options
    with pytest.raises(error, match=text):
        engine_estimates(**options)


def test_overlaps_and_mpos_refuse_what_they_cannot_use():
    found, _ = factored(4, 1)
    for call in (lambda: true_overlap(found, MPO4, max_bond=0), lambda: to_mpo(found, max_bond=0)):
        with pytest.raises(ValueError, match="max_bond=0 must be a whole number, 1 or more"):
            call()
    with pytest.raises(TypeError, match="expected a Factorization, got MatrixProductOperator"):
        to_mpo(MPO4)


def test_the_memory_of_this_machine_is_known():
    assert 2.0**26 < available_memory() < 2.0**50


@pytest.mark.parametrize("name", ENGINES)
def test_options_reach_the_engines_that_they_concern(name):
    legs = ((2, 2),) * 4
    target, core = random_cores(legs, 2, seed=1), random_cores(legs, 1, seed=2)
    left, right = (random_circuit(brickwall(4, 2), seed=s) for s in (3, 4))
    options = EngineOptions(environment_bond=64, dtype="float32", device="cpu", memory=1e8, seed=1)
    values = []
    for given in (EngineOptions(environment_bond=64), options):
        engine = build_engine(name, target, legs, left.ansatz, right.ansatz, options=given)
        engine.set(left.gates, core, right.gates)
        values.append(engine.inner())
    assert_allclose(values[1], values[0], rtol=1e-4)


# --- the true overlap


def factored(n, depth, *, seed=0, scale=0.1, max_bond=2):
    """A factorization and an MPO that is near to it."""
    legs = ((2, 2),) * n
    core = spread_norm(left_canonical(random_cores(legs, max_bond, seed=seed))[0], 0.0)
    ansatz = brickwall(n, depth)
    left, right = (
        random_circuit(a, seed=seed + 1, scale=scale) for a in (ansatz, ansatz.reversed())
    )
    return Factorization(left, mpo_from_tensors(core), right, (2**n, 2**n)), core


def test_the_overlap_of_small_operators_is_the_dense_one():
    found, _ = factored(5, 3, scale=None)
    target = compress(random_matrix((32, 32), seed=9)).mpo
    result = true_overlap(found, target)
    assert (result.method, result.error) == ("dense", 0.0)
    expected = overlap(mpo_to_dense(target), found.padded_to_dense())
    assert_allclose(result.value, expected, atol=1e-12)
    assert mpodis.true_overlap is true_overlap


@pytest.mark.parametrize("method", ["transverse", "boundary"])
def test_larger_ones_by_transverse_or_in_the_middle(method, monkeypatch):
    found, _ = factored(10, 4)
    target = mpo_from_tensors(random_cores(((2, 2),) * 10, 3, seed=3))
    monkeypatch.setattr(truth, "TRANSVERSE_ENTRIES", 0 if method == "boundary" else 2**22)
    result = true_overlap(found, target, max_bond=200)
    assert result.method == method
    expected = overlap(mpo_to_dense(target), found.padded_to_dense())
    assert_allclose(result.value, expected, atol=1e-9)
    assert result.error <= 1e-6


@pytest.mark.no_cover  # long; ten sites above are traced
def test_a_factorization_overlaps_fully_with_itself_at_any_size(monkeypatch):
    """At 24 sites and depth 8 too, where no dense matrix exists; scales do not matter."""
    found, _ = factored(24, 8, scale=0.05, max_bond=1)
    operator = mpo_from_tensors([3.0 * c for c in site_tensors(to_mpo(found, max_bond=48))])
    assert true_overlap(found, operator).method == "transverse"
    monkeypatch.setattr(truth, "TRANSVERSE_ENTRIES", 0)
    result = true_overlap(found, operator, max_bond=48)
    assert result.method == "boundary"
    assert result.value == pytest.approx(1.0, abs=2e-3)
    assert abs(result.value - 1.0) <= 10 * result.error + 1e-4


@pytest.mark.parametrize("shape", [(16, 16), (32, 8), (4, 16)])
@pytest.mark.parametrize("group", ["SO", "U"])
def test_a_factorization_becomes_an_mpo(shape, group):
    legs = mpodis.compress(random_matrix(shape)).legs
    core = [7.0 * c for c in random_cores(legs, 2, group == "U", 4)]
    n_left, n_right = (int(np.log2(d)) for d in shape)
    left, right = (random_circuit(brickwall(n, 2, group=group), seed=n) for n in (n_left, n_right))
    found = Factorization(left, mpo_from_tensors(core), right, shape)
    assert_allclose(mpo_to_dense(to_mpo(found)), found.padded_to_dense(), rtol=1e-9, atol=1e-8)
    cut = to_mpo(found, max_bond=3)
    assert max(c.shape[3] for c in site_tensors(cut)) <= 3


def test_other_legs_are_refused():
    found, _ = factored(4, 1)
    with pytest.raises(ValueError, match=r"the target has legs .*, the factorization"):
        true_overlap(found, compress(np.eye(8)).mpo)
