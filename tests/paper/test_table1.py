"""The experiment `table1`."""

from numpy.testing import assert_allclose

from mpodis import disentangle
from mpodis.circuit.ansatz import brickwall
from mpodis.paper import table1
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("table1"))


def test_gates_as_wide_as_the_operator_reach_the_bound_in_closed_form(ran):
    found = rows(ran("table1")).query("width == 6").set_index(["group", "core"])
    assert (found["layout"] == "closed form").all()
    assert_allclose(found["overlap"], found["bound"], atol=1e-8)
    assert (found["plain"] < found["bound"] - 1e-8).all()
    assert (found["layers"] == 1).all()
    for group in table1.GROUPS:
        assert found["overlap"][group, "update"] > found["overlap"][group, "fixed"]


def test_the_best_layout_is_taken_and_the_papers_kept_beside_it(ran, mpo):
    found = rows(ran("table1"))
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    cases = found.set_index(["width", "group", "core"])
    row = cases.loc[2, "SO", "update"]
    search = {"n_init": 1, "max_sweeps": 5, "tol": 1e-4, "init": "grown"}
    left, right = table1.layouts(6, 2, "SO")[row["layout"]]
    again = disentangle(mpo, left=left, right=right, **search)
    assert_allclose(row["overlap"], again.overlap, atol=1e-12)
    plain = disentangle(mpo, left=brickwall(6, 1, 2), **search)
    assert_allclose(row["plain"], plain.overlap, atol=1e-12)
    assert row["plain"] < row["overlap"]


def test_layouts_shift_either_side_or_have_two_layers():
    one = table1.layouts(6, 3, "O")
    assert list(one) == ["plain", "shifted", "left shifted", "right shifted"]
    assert len(set(one.values())) == 4
    assert all(left.depth == right.depth == 1 for left, right in one.values())
    assert all(side.group == "O" for pair in one.values() for side in pair)
    ((left, right),) = table1.layouts(6, 4, "O").values()
    assert (left.depth, right) == (2, left.reversed())
    assert list(table1.layouts(6, 6, "O")) == ["plain"]
