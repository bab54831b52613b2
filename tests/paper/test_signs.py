"""The experiment `signs`."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

from mpodis import compress, disentangle
from mpodis.fit import fit_core
from mpodis.mpo import mpo_to_dense
from mpodis.paper import signs
from paper_runs import check_tables_and_figures, rows
from reference import entropies, random_cores

SITES = 4
LEGS = ((2, 2),) * SITES
every_bond = pytest.mark.parametrize("bond", [2, 3, 4])


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("signs"))


@pytest.fixture(scope="module", params=[2, 4])
def made(request):
    return request.param, signs.random_operators(request.param, SITES, np.random.default_rng(3))


def s_avg(matrix):
    return entropies(matrix, LEGS).mean()


def test_all_kinds_are_made_and_have_unit_norm(made):
    _, kinds = made
    assert list(kinds) == list(signs.KINDS)
    for matrix in kinds.values():
        assert_allclose(np.linalg.norm(matrix), 1, atol=1e-12)
        assert_allclose(signs.mean_entropy(matrix), s_avg(matrix), atol=1e-8)


def test_signs_are_as_named(made):
    _, kinds = made
    for kind, matrix in kinds.items():
        positive = kind in ("positive", "copying")
        assert (matrix.min() > 0) == positive
    for kind in ("product signs", "other signs"):
        assert_allclose(np.abs(kinds[kind]), kinds["positive"], atol=1e-14)


def test_bonds_are_those_asked_for(made):
    bond, kinds = made
    for kind in ("positive", "mixed", "product signs", "channel", "sum", "copying"):
        assert max(compress(kinds[kind], cutoff=1e-10).bonds) == bond
    assert max(compress(kinds["no product"], cutoff=1e-10).bonds) == bond + 1


def test_product_signs_change_no_entropy_and_other_signs_do(made):
    _, kinds = made
    before = entropies(kinds["positive"], LEGS)
    assert_allclose(entropies(kinds["product signs"], LEGS), before, atol=1e-10)
    assert np.all(entropies(kinds["other signs"], LEGS) > 2 * before)


def test_entropies_are_matched(made):
    _, kinds = made
    low, high = s_avg(kinds["positive"]), s_avg(kinds["mixed"])
    assert low < high
    for kind in ("channel", "sum"):
        assert_allclose(s_avg(kinds[kind]), low, rtol=1e-6)
    assert_allclose(s_avg(kinds["copying"]), high, rtol=1e-6)


def test_nothing_of_the_best_product_is_left(made):
    _, kinds = made
    plain, rest = kinds["positive"], kinds["no product"]
    best = mpo_to_dense(fit_core(compress(plain).mpo, max_bond=1))
    assert_allclose(np.vdot(best, rest), 0, atol=1e-6)
    removed = plain - np.vdot(plain, rest) * rest
    assert_allclose(removed, best * np.vdot(best, removed) / np.vdot(best, best), atol=1e-5)


def test_product_signs_are_a_symmetry_of_the_sweeps():
    kinds = signs.random_operators(2, SITES, np.random.default_rng(1))
    # from the identity itself, which the signs leave alone
    found = [
        disentangle(
            compress(kinds[kind], cutoff=1e-10).mpo,
            depth=2,
            method="sweeps",
            init="identity",
            n_init=1,
            init_scale=0.0,
            max_sweeps=15,
        )
        for kind in ("positive", "product signs")
    ]
    assert found[0].overlap > found[0].history.column("overlap")[0] + 1e-3
    assert_allclose(found[1].overlap, found[0].overlap, atol=1e-9)


@every_bond
def test_a_copying_operator_has_all_the_entropy_of_its_bonds(bond):
    rng = np.random.default_rng(2)
    cores = [signs.copying_core(core, rng) for core in random_cores(LEGS, bond)]
    assert_allclose(entropies(signs.dense(cores), LEGS), np.log(bond), atol=1e-12)


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.4])
def test_matched_solves_for_the_entropy(weight):
    one, other = np.diag([1.0, 0, 0, 0]), np.diag([0, 0, 0, 1.0])

    def family(t):
        return (one + t * other) / np.sqrt(1 + t * t)

    wanted = -(weight * np.log(weight) + (1 - weight) * np.log(1 - weight))
    assert_allclose(signs.matched(family, wanted)[3, 3] ** 2, weight, rtol=1e-6)


def test_operators_repeat_and_differ_by_seed():
    one, two, three = (
        signs.random_operators(2, 3, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    for kind in signs.KINDS:
        np.testing.assert_array_equal(one[kind], two[kind])
        assert np.abs(one[kind] - three[kind]).max() > 1e-3


def test_measured_counts_the_sweeps_that_matter():
    matrix = signs.random_operators(2, 3, np.random.default_rng(5))["mixed"]
    best, *found = signs.measured(matrix, [1, 2], 15, seed=7)
    assert_allclose(best["s_avg"], entropies(matrix, LEGS[:3]).mean(), atol=1e-10)
    assert best["mpo_bond"] == 2
    assert best["overlap"] < found[0]["overlap"]
    for row in found:
        run = disentangle(
            compress(matrix, cutoff=1e-10).mpo,
            left=row["depth"],
            method="sweeps",
            init="identity",
            n_init=1,
            max_sweeps=15,
            seed=7,
        )
        f, n = run.history.column("overlap"), int(row["sweeps"])
        assert row["overlap"] == run.overlap <= row["bound"] + 1e-10
        assert row["bound"] == run.bound
        assert f[n] >= 0.99 * f[-1]
        assert n == 0 or f[n - 1] < 0.99 * f[-1]


def test_the_advantage_is_weighed_against_entropy():
    lacking = {"positive": 0.01, "mixed": 0.16, "channel": 0.01, "sum": 0.02, "copying": 0.08}
    made = [
        {"operators": "random", "bond": 2, "seed": seed, "depth": 2, "kind": kind}
        | {"overlap": 1 - lost * (1 + 0.1 * seed)}
        for seed in range(3)
        for kind, lost in lacking.items()
    ]
    pairs = signs.compared(pd.DataFrame(made))
    assert_allclose(pairs.query("pair == 'positive - mixed'")["ratio"], 16)
    assert (pairs.query("pair == 'copying - mixed'")["lead"] > 0).all()
    (left,) = signs.remaining(pairs).to_dict("records")
    # 1, 2 and 2 of a ratio of 16: no, a quarter and a quarter of its logarithm
    assert_allclose([left[f"positive - {kind}"] for kind in ("channel", "sum")], [0, 25], atol=1e-9)
    assert_allclose(left["copying - mixed"], 25)


def test_trained_networks_of_both_kinds_are_compared(ran):
    found = rows(ran("signs"))
    trained = found.query("operators == 'trained' and depth == 0").set_index("kind")
    assert trained["s_avg"]["positive"] < trained["s_avg"]["mixed"]
    assert (trained["accuracy"] > 20).all()
    assert (found["sweeps"].dropna() <= 6).all()
    assert set(found.query("operators == 'random'")["kind"]) == set(signs.KINDS)
