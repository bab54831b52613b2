"""The experiment `aware`."""

from numpy.testing import assert_allclose

from mpodis.options import NETWORK_OBJECTIVES
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("aware"))


def test_every_objective_has_its_baselines(ran):
    found = rows(ran("aware"))
    names = [("circuits", 1), ("circuits", 2), ("nothing (W = 0)", 0), ("truncated", 0)]
    names += [("low rank, as many numbers", 1), ("low rank, as many numbers", 2)]
    names.append(("gates on all wires", 0))
    assert_allclose(found["accuracy"] + found["lost"], found.eval("accuracy + lost").iloc[0])
    for objective in NETWORK_OBJECTIVES:
        each = found.query("objective == @objective").set_index(["replacement", "depth"])
        assert list(each.index) == names
        first, ours = (each.loc["circuits", depth] for depth in (1, 2))
        assert first["overlap"] <= first["bound"] + 1e-9
        assert ours["loss"] <= first["loss"] + 1e-12
        low_rank = each["parameters"]["low rank, as many numbers", 2]
        assert low_rank >= ours["parameters"] + ours["gates"]
        if objective != "overlap":
            assert 0 <= ours["loss_bound"] <= ours["loss"] + 1e-12


def test_activation_errors_are_least_under_their_own_objective(ran):
    found = rows(ran("aware")).query("replacement == 'circuits' and depth == 2")
    errors = found.set_index("objective")["activation_error"]
    assert errors["activations"] < errors["overlap"]
