"""The studies in scripts/studies: what they compute, and that records and files belong together."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpodis import Study, brickwall, compress, disentangle, entanglement
from mpodis.study import costs
from mpodis.study.scaling import disentangle_brickwalls, operator_entropies
from mpodis.targets import planted_mpo, random_mpo

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "scripts" / "studies").glob("*.toml"))
every_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)

TINY = {
    "depth": {"grid": {"width": [2], "depth": [1, 2]}},
    "engines": {"keep": lambda case: case["n"] <= 8 and case["environment_bond"] in (None, 32)},
    "entropies": {"grid": {"operator.max_bond": [2]}, "keep": lambda case: case["n"] == 6},
    "largest": {"settings": {"longest": 1e-3}, "keep": lambda case: case["n"] <= 32},
}
"""What is left of each file when it is run here."""


@every_file
def test_a_file_says_what_its_record_has(file):
    study = Study.from_toml(file)
    assert study.description
    assert study.figures
    for figure in study.figures:
        assert (ROOT / "notebooks" / "figures" / f"{figure['name']}.png").is_file()
    assert 0 < study.minutes <= 8
    frame = pd.read_csv(ROOT / "notebooks" / "records" / f"{file.stem}.csv", keep_default_na=False)
    names = list(study.cases[0].settings)
    expected = {(*map(str, c.settings.values()), *seed(c)) for c in study.cases}
    has_seed = ["seed"] if study.cases[0].seed is not None else []
    assert {tuple(map(str, row)) for row in frame[names + has_seed].to_numpy()} == expected
    assert len(frame) == len(study.cases)


def seed(case):
    return () if case.seed is None else (str(case.seed),)


@every_file
def test_a_small_version_runs(file, tmp_path):
    whole, tiny = Study.from_toml(file), TINY[file.stem]
    study = Study(
        whole.function,
        settings=whole.settings | tiny.get("settings", {}),
        grid=whole.grid | tiny.get("grid", {}),
        cases=[case for case in whole.listed if tiny.get("keep", lambda case: True)(case)],
        seeds=1,
    )
    study.run(tmp_path / "study", progbar=False)
    assert not study.failures().rows
    for table in whole.tables:
        assert len(study.table(*table["quantities"]).rows) == len(study.cases)
    drawn = {q for figure in whole.figures for q in np.atleast_1d(figure["quantity"])}
    assert drawn <= set(study.to_xarray().data_vars)


def test_brickwalls_are_those_of_disentangle():
    operator = compress(random_mpo(5, 8), max_bond=4)
    found = disentangle_brickwalls(operator=operator, depth=2, width=3, max_sweeps=5, seed=1)
    same = disentangle(
        operator, left=brickwall(5, 2, 3), init="identity", n_init=1, max_sweeps=5, seed=1
    )
    assert found.overlap == same.overlap


def test_entropies_are_those_of_the_operator():
    cut = compress(planted_mpo(6, 2, seed=1), max_bond=3)
    found = operator_entropies(operator=cut, n=6)
    assert found["s_avg"] == entanglement(cut.mpo).average
    assert found["truncation_error"] == cut.relative_error > 0.01
    with pytest.raises(ValueError, match="has 6 qubits, not n=7"):
        operator_entropies(operator=cut, n=7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"engine": "denes"}, "'denes' is not known"),
        ({"engine": "boundary"}, "truncated to one; give a number"),
        ({"engine": "dense", "environment_bond": 8}, "exact and takes none"),
    ],
)
def test_an_engine_gets_its_bond_dimension(given, said):
    with pytest.raises(ValueError, match=said):
        costs.engine_cost(n=4, depth=2, **given)


def test_memory_is_measured():
    matrix = 8 * 4**9
    found = costs.engine_cost(engine="dense", n=9, depth=2, repeats=1)
    assert 2 * matrix < found["bytes"] < 8 * matrix
    small, large = (
        costs.engine_cost(n=8, depth=8, environment_bond=bond, repeats=1)["bytes"]
        for bond in (8, 64)
    )
    assert large > 4 * small


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_the_largest_problem_is_found_by_doubling(power, monkeypatch):
    ran = []

    def cost(*, n, environment_bond, **_):
        ran.append(environment_bond)
        seconds = 1e-3 * environment_bond**power
        return {"pass_seconds": seconds, "passes": 2, "first_seconds": seconds, "bytes": 1e3 * n}

    monkeypatch.setattr(costs, "engine_cost", cost)
    allowed = 3600 / 400
    found = costs.largest_problem(axis="environment_bond", environment_bond=1, longest=1e9)
    largest = 2 ** math.floor(math.log2((allowed / 1e-3) ** (1 / power)))
    assert found["largest_environment_bond"] == largest
    assert found["next_run"]
    assert ran[-1] == 2 * largest
    assert found["search_seconds"] == pytest.approx(400e-3 * largest**power)
    ran.clear()  # what takes longer than allowed is not run, but predicted
    limited = costs.largest_problem(axis="environment_bond", environment_bond=1, longest=1.0)
    assert 2 * 1e-3 * ran[-1] ** power <= 1.0 < 2 * 1e-3 * (2 * ran[-1]) ** power
    assert not limited["next_run"]
    assert limited["next_seconds"] == pytest.approx(2e-3 * (2 * ran[-1]) ** power)


def test_what_does_not_fit_at_first_is_refused():
    with pytest.raises(ValueError, match="begin with a smaller problem"):
        costs.largest_problem(n=4, depth=2, environment_bond=4, gib=1e-6)
    with pytest.raises(ValueError, match="axis='width' is not known"):
        costs.largest_problem(axis="width", environment_bond=4)
