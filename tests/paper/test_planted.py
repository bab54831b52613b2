"""The experiment `planted`."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from mpodis.paper import load_experiment, planted
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("planted"))


def test_what_was_hidden_is_found(ran):
    found = rows(ran("planted"))
    cases = [("product core", "SO"), ("unitary", "SO"), ("unitary", "U"), ("reflected", "SO")]
    assert list(zip(found["hidden"], found["group"], strict=True)) == [cases[0], *cases]
    reflected = found["hidden"] == "reflected"
    assert_allclose(found["bound"], np.where(reflected, 1 - 2 / 8, 1.0))
    assert (found["gap"] > 1 - found["bound"] - 1e-12).all()
    assert (found["bond"] > 1).all()
    totals = load_experiment("planted").tables(ran("planted"))[-1]
    assert totals.rows[1:] == [["unitary", "2 of 2"], ["reflected", "1 of 1"]]


def test_a_reflection_counts_only_where_it_is_said_to_be_one():
    row = {"hidden": "reflected", "status": "determinant", "gap": 0.25, "bound": 0.75}
    other = [row | {"status": "converged"}, row | {"gap": 0.3}]
    frame = pd.DataFrame([row, *other, row | {"hidden": "unitary", "status": "exact"}])
    assert planted.judged(frame)["found"].tolist() == [True, False, False, True]
