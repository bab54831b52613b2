"""`mpodis reproduce signs`: operators that are what they are called, and what is said of them."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis.disentangling import disentangle
from mpodis.fit import fit_core
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.mpo import compress
from mpodis.paper import load_experiment
from mpodis.paper.by_pieces import run_experiment
from mpodis.paper.signs import (
    EXPERIMENT,
    KINDS,
    PAIRS,
    TRAINED,
    SignsOptions,
    _copying,
    _dense,
    _measured,
    finding,
    matched,
    mean_entropy,
    operators,
    tables,
)
from mpodis.sites import mpo_to_dense
from reference import entropies, random_cores

SITES = 4
LEGS = ((2, 2),) * SITES
every_bond = pytest.mark.parametrize("bond", [2, 3, 4])


@pytest.fixture(scope="module", params=[2, 4])
def made(request):
    return request.param, operators(request.param, SITES, np.random.default_rng(3))


def s_avg(matrix):
    return entropies(matrix, LEGS).mean()


def test_all_kinds_are_made_and_have_unit_norm(made):
    _, kinds = made
    assert list(kinds) == list(KINDS)
    for matrix in kinds.values():
        assert_allclose(np.linalg.norm(matrix), 1, atol=1e-12)
        assert_allclose(mean_entropy(matrix), s_avg(matrix), atol=1e-8)


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
    kinds = operators(2, SITES, np.random.default_rng(1))
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
    cores = [_copying(core, rng) for core in random_cores(LEGS, bond)]
    assert_allclose(entropies(_dense(cores), LEGS), np.log(bond), atol=1e-12)


@pytest.mark.parametrize("weight", [0.05, 0.2, 0.4])
def test_matched_solves_for_the_entropy(weight):
    one, other = np.diag([1.0, 0, 0, 0]), np.diag([0, 0, 0, 1.0])

    def family(t):
        return (one + t * other) / np.sqrt(1 + t * t)

    wanted = -(weight * np.log(weight) + (1 - weight) * np.log(1 - weight))
    assert_allclose(matched(family, wanted)[3, 3] ** 2, weight, rtol=1e-6)


def test_operators_repeat_and_differ_by_seed():
    one, two, three = (operators(2, 3, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for kind in KINDS:
        np.testing.assert_array_equal(one[kind], two[kind])
        assert np.abs(one[kind] - three[kind]).max() > 1e-3


def test_measured_counts_the_sweeps_that_matter():
    matrix = operators(2, 3, np.random.default_rng(5))["mixed"]
    found = _measured(matrix, [1, 2], 15, seed=7)
    assert_allclose(found["s_avg"], entropies(matrix, LEGS[:3]).mean(), atol=1e-10)
    assert found["bond"] == 2
    assert found["overlap"][0] < found["overlap"][1]
    for k, depth in enumerate((1, 2)):
        run = disentangle(
            compress(matrix, cutoff=1e-10).mpo,
            left=depth,
            method="sweeps",
            init="identity",
            n_init=1,
            max_sweeps=15,
            seed=7,
        )
        f = run.history.column("overlap")
        assert found["overlap"][k + 1] == run.overlap
        assert found["bound"][k] == run.bound
        n = found["sweeps"][k]
        assert f[n] >= 0.99 * f[-1]
        assert n == 0 or f[n - 1] < 0.99 * f[-1]


def record(lacking, s_avg=None):
    """Of three seeds and chi = 2; what overlap lacks, by kind, is a little more at every seed."""
    s_avg = s_avg or {}

    def kind(name, factor):
        lost = [factor * lacking[name] * scale for scale in (2, 1, 0.5)]
        return {
            "s_avg": s_avg.get(name, lacking[name]),
            "bond": 2,
            "overlap": [1 - x for x in lost],
            "bound": [0.99, 0.995],
            "sweeps": [3, 7],
            "accuracy": 90 + factor,
        }

    pieces = {}
    for seed in range(3):
        factor = 1 + 0.1 * seed
        for group, names in (("chi = 2", KINDS), (TRAINED, ("positive", "mixed"))):
            kinds = {name: kind(name, factor) for name in names}
            pieces[f"seed{seed}-{group}"] = {"seed": seed, "group": group, "kinds": kinds}
    return {
        "options": {"bonds": [2], "depths": [2, 4]},
        "seeds": [0, 1, 2],
        "pieces": pieces,
    }


LACKING = {
    "positive": 0.01,
    "mixed": 0.16,
    "product signs": 0.012,
    "other signs": 0.3,
    "no product": 0.2,
    "channel": 0.01,
    "sum": 0.02,
    "copying": 0.08,
}


def test_the_finding_weighs_signs_against_entropy():
    text = finding(record(LACKING))
    assert "at depth 2" in text
    assert "chi = 2: positive f 0.989 from S_avg 0.01 with 3 sweeps, mixed f 0.824" in text
    assert "91.1 % accuracy, positive ahead in 3 of 3" in text
    assert "That positive tensors are easier holds" in text
    assert "f differs by 0.002 at most" in text
    assert "lack 16 times as much overlap (chi = 2)" in text
    assert "1 times if one channel" in text
    assert "2 times as a product plus" in text
    assert "at the S_avg of the mixed ones 2 times" in text
    assert "rank correlation of 0.9" in text
    # 1, 2 and 2 of a ratio of 16: no, a quarter and a quarter of its logarithm
    assert "So most of the advantage is gone at equal entropy" in text
    assert "17 % remain on average (0 to 25 %)" in text


def test_the_finding_says_where_signs_matter_by_themselves():
    text = finding(record({**LACKING, "channel": 0.16, "sum": 0.08}))
    assert "So most of it is left at equal entropy" in text
    assert "67 % remain on average (25 to 100 %)" in text
    text = finding(record({**LACKING, "mixed": 0.005}))
    assert "That positive tensors are easier does not always hold" in text
    assert text.endswith("So there is no advantage to explain.")


def test_one_seed_concludes_nothing():
    made = record(LACKING)
    pieces = {name: row for name, row in made["pieces"].items() if row["seed"] == 0}
    text = finding({**made, "seeds": [0], "pieces": pieces})
    assert "lack 16 times as much overlap" in text
    assert "advantage" not in text
    assert "easier" not in text


def test_tables_have_every_kind_and_pair():
    overlaps, efforts, pairs = tables(record(LACKING))
    assert len(overlaps.rows) == len(efforts.rows) == len(KINDS) + 2
    assert len(pairs.rows) == len(PAIRS) + 1
    assert overlaps.rows[0][2] is None
    assert overlaps.rows[-1][:3] == (TRAINED, "mixed signs", "91.1 (91.0 to 91.2)")
    assert efforts.rows[0][2:] == (2, 3, 7, 0.99, 0.995)
    assert pairs.rows[0][-1] == "+0.0825, 3 of 3"
    assert all(
        len(row) == len(table.columns) for table in (overlaps, efforts, pairs) for row in table.rows
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"bonds": (2, 5)}, r"bonds=\(2, 5\) must be from 2 to 4"),
        ({"bonds": ()}, r"bonds=\(\) must be from 2 to 4, at least one"),
        ({"depths": (0, 2)}, r"depths=\(0, 2\) must be 1 or more"),
        ({"sites": 9}, "sites=9 must be from 2 to 8"),
        ({"workers": 0}, "workers=0 must be"),
    ],
)
def test_options_that_make_no_sense(bad, message):
    with pytest.raises(ValueError, match=message):
        SignsOptions(**bad)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run on the digits, and its record."""
    path = tmp_path_factory.mktemp("signs") / "run"
    options = SignsOptions(seeds=1, workers=1, bonds=(3,), sites=3, depths=(1, 2), sweeps=6)
    return run_experiment(
        EXPERIMENT, options, JobDirectory.create(path, f"{REPRODUCE}signs", options)
    )


def test_the_record_of_a_run(done):
    assert list(done["pieces"]) == ["seed0-chi3", "seed0-trained"]
    for piece in done["pieces"].values():
        for one in piece["kinds"].values():
            assert np.all(np.array(one["overlap"][1:]) <= np.array(one["bound"]) + 1e-10)
            assert len(one["overlap"]) == 3
            assert max(one["sweeps"]) <= 6
    trained = done["pieces"]["seed0-trained"]["kinds"]
    assert trained["positive"]["s_avg"] < trained["mixed"]["s_avg"]
    assert min(one["accuracy"] for one in trained.values()) > 80
    assert done["finding"] == finding(json.loads(json.dumps(done)))
    assert done["command"].endswith("--set bonds=3 --set sites=3 --set depths=1,2 --set sweeps=6")


def test_every_panel_draws_data(done):
    panels = load_experiment("signs").panels
    assert len({panel.name for panel in panels}) == len(panels) == 4
    for panel in panels:
        ax = plt.subplots()[1]
        panel.draw(done, ax)
        assert ax.has_data()
        assert len(ax.lines) >= 2
        if panel.name == "entropy":
            names = [text.get_text() for text in ax.get_legend().get_texts()]
            assert names == list(KINDS.values())
