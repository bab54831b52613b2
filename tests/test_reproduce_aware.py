"""Objectives by accuracy: what is recorded is what the replaced layer does."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import report
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.paper import aware
from mpodis.paper.by_pieces import run_experiment


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    options = aware.Aware(seeds=1, workers=1, depths=(1, 2), starts=1, max_sweeps=5)
    path = tmp_path_factory.mktemp("aware") / "run"
    directory = JobDirectory.create(path, f"{REPRODUCE}aware", options)
    with pytest.MonkeyPatch.context() as patch:
        whole = aware.full_width_gates
        patch.setattr(
            aware, "full_width_gates", lambda *a, **k: whole(*a, **k, n_init=1, iterations=5)
        )
        run_experiment(aware.EXPERIMENT, options, directory)
    return directory.results()


def rows(record, objective):
    found = [p["rows"] for p in record["pieces"].values() if p["objective"] == objective]
    return {row["name"]: row for part in found for row in part}


NAMES = ["depth 1", "depth 2", "nothing (W = 0)", "truncated"]
NAMES += ["low rank, as depth 1", "low rank, as depth 2", "gates on all wires"]


@pytest.mark.parametrize("objective", aware.NETWORK_OBJECTIVES)
def test_every_recipe_has_its_baselines(record, objective):
    found = rows(record, objective)
    assert list(found) == NAMES
    assert found["depth 1"]["overlap"] <= found["depth 1"]["bound"] + 1e-9
    assert found["depth 2"]["loss"] <= found["depth 1"]["loss"] + 1e-12
    for row in found.values():
        assert_allclose(
            row["accuracy"] + row["lost"],
            found["truncated"]["accuracy"] + found["truncated"]["lost"],
            atol=1e-9,
        )
    ours = found["depth 2"]
    assert found["low rank, as depth 2"]["parameters"] >= ours["parameters"] + ours["gates"]
    if objective != "overlap":
        assert 0 <= ours["loss_bound"] <= ours["loss"] + 1e-12


def test_activation_errors_are_least_under_their_own_objective(record):
    plain, seen = (
        rows(record, o)["depth 2"]["activation_error"] for o in ("overlap", "activations")
    )
    assert seen < plain


def test_tables_finding_and_figure(record):
    lost, medians = aware.tables(record)
    assert [row[0] for row in lost.rows] == NAMES
    assert len(medians.rows) == 3 * len(NAMES)
    value = rows(record, "overlap")["depth 1"]["lost"]
    assert lost.rows[0][1] == f"{value:.2f}"
    assert f"at depth 1 {value:.2f} under overlap" in record["finding"]
    assert np.isfinite(value)
    assert report.figure_of(record)[:4] == b"\x89PNG"


@pytest.mark.parametrize("depths", [(), (4, 2), (0, 1), (2, 2)])
def test_depths_ascend(depths):
    with pytest.raises(ValueError, match="must be ascending, from 1 on"):
        aware.Aware(depths=depths)
