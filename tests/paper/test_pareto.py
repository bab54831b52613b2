"""The experiment `pareto`."""

import numpy as np
from numpy.testing import assert_allclose

from mpodis.paper import load_experiment, pareto
from paper_runs import SMALL, check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("pareto"))


def test_every_network_has_its_front(ran):
    found = rows(ran("pareto"))
    assert set(found["family"]) == set(SMALL["pareto"]["families"])
    front = found.query("not dominated").sort_values("cnots")
    assert front["cnots"].iloc[0] == 0
    assert front["loss"].is_monotonic_decreasing
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    assert_allclose(found["loss"], 1 - found["overlap"])
    assert found["activation_error"].between(0, 2).all()
    ends = found.dropna(subset="logical")
    assert len(ends) == 2
    assert (ends["cnots"] == ends["logical"]).all()


def test_tables_are_read_off_the_points(ran):
    found = rows(ran("pareto"))
    overlaps, walls, transpiled = load_experiment("pareto").tables(ran("pareto"))
    assert list(overlaps.columns) == ["CNOTs", "front", *SMALL["pareto"]["families"]]
    cells = {row[0]: row[1:] for row in overlaps.rows}
    assert cells[20][0] == f"{found.query('cnots <= 20')['overlap'].max():.3f}"
    assert cells[4][1] is None  # the brickwall takes more
    wall = found.query("family == 'SO(4)' and cnots > 0").sort_values("loss").iloc[0]
    fewest = found.query("loss <= @wall.loss")["cnots"].min()
    assert [wall["cnots"], str(fewest)] in [row[:2] for row in walls.rows]
    assert transpiled.rows[0] == ["logical", "2 of 2"]


def test_the_best_circuits_never_get_worse_with_more_cnots(ran):
    found = pareto.best(rows(ran("pareto")), range(13))
    for _, each in found.groupby("family"):
        assert each["overlap"].is_monotonic_increasing


def test_a_device_that_is_not_installed_gives_no_count(monkeypatch):
    def missing(*_, **__):
        raise ImportError

    monkeypatch.setattr(pareto, "gate_cost", missing)
    given = type("Given", (), {"left": None, "right": None})
    assert np.isnan(pareto.transpiled(given, "FakeMontrealV2", 0))
