"""The experiment `fig4`."""

import numpy as np
import pandas as pd
from numpy.testing import assert_allclose

from mpodis import disentangle
from mpodis.measures import entanglement, singular_values
from mpodis.mpo import mpo_to_dense, truncate
from mpodis.paper import fig4, load_experiment
from paper_runs import check_tables_and_figures, rows


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("fig4"))


def test_no_overlap_exceeds_its_bound_and_ours_never_falls(ran):
    found = rows(ran("fig4"))
    assert (found["overlap"] <= found["bound"] + 1e-10).all()
    for width, each in found.query("way == 'ours'").groupby("width"):
        assert each["depth"].tolist() == list(range(1, {2: 3, 3: 2}[width] + 1))
        assert np.all(np.diff(each["overlap"]) >= -1e-12)


def test_the_papers_way_is_a_new_run_of_plain_sweeps_at_each_depth(ran, mpo):
    (row,) = rows(ran("fig4")).query("way == 'random' and width == 2 and depth == 2").itertuples()
    plain = {"core": "fixed", "init": "random", "n_init": 1, "method": "sweeps", "tol": 0.0}
    alone = disentangle(mpo, depth=2, max_sweeps=4, **plain)
    assert_allclose(row.overlap, alone.overlap, atol=1e-12)
    assert_allclose(row.s_avg, alone.entropies_after.mean(), atol=1e-12)
    assert alone.path("phase").tolist() == ["init"] + ["sweep"] * 4


def test_the_core_of_the_papers_way_is_that_of_the_truncated_operator(ran, mpo):
    s, t = (singular_values(mpo_to_dense(x)) for x in (mpo, truncate(mpo, max_bond=1).mpo))
    bound = float(s @ t / np.linalg.norm(s) / np.linalg.norm(t))
    found = rows(ran("fig4"))
    fixed = found.query("way not in ('ours', 'core updated')")
    assert_allclose(fixed["bound"], bound, atol=1e-10)
    assert abs(found.query("way == 'core updated'")["bound"].iloc[0] - bound) > 1e-6


def test_more_sweeps_go_on_from_where_fewer_end_and_variants_are_run_where_they_say(ran):
    found = rows(ran("fig4")).query("width == 3 and way != 'ours'")
    at_dip = found.query("depth == 2").set_index("way")["overlap"]
    assert at_dip["random"] < at_dip["more sweeps"]
    for way, each in found.groupby("way"):
        every = way == "random" or way in fig4.AGAINST_DEPTH
        assert each["depth"].tolist() == ([1, 2, 3] if every else [2])


def test_scrambling_keeps_the_singular_values_alone(mpo):
    scrambled = fig4._scrambled(mpo, 0)
    before, after = (singular_values(mpo_to_dense(x)) for x in (mpo, scrambled))
    assert_allclose(after, before, rtol=1e-10)
    assert entanglement(scrambled).average > 1.5 * entanglement(mpo).average
    other = mpo_to_dense(fig4._scrambled(mpo, 1))
    assert np.linalg.norm(other - mpo_to_dense(scrambled)) > 0.1 * np.linalg.norm(after)


def test_circuits_with_twice_the_parameters_of_one_gate_have_no_row(networks, mpo):
    same = {"data": "digits", "networks": networks, "seed": 0, "sweeps": 1, "starts": 1}
    assert fig4.overlaps(way="random", width=5, layers=8, **same)["row"]
    assert fig4.overlaps(way="random", width=5, layers=9, **same) == {}


def test_gates_of_both_circuits_are_counted(ran):
    # (012)(345), then (0)(123)(45): single wires cost nothing
    found = rows(ran("fig4")).query("width == 3 and way == 'random'")
    two, three = (fig4._cost(width, "logical") for width in (2, 3))
    assert found["logical"].tolist() == [4 * three, 6 * three + 2 * two, 10 * three + 2 * two]
    assert two == 2
    assert two < three < fig4._cost(4, "logical")


def test_a_device_that_is_not_installed_is_left_out(ran):
    record = ran("fig4")
    left = [{k: v for k, v in row.items() if k != "FakeMontrealV2"} for row in record["rows"]]
    *_, gates, _ = load_experiment("fig4").tables(record | {"rows": left})
    assert list(gates.columns) == ["width", "way", "logical", "logical, networks"]


def test_gates_count_where_a_network_first_gets_to_the_target():
    overlaps = {"random": [(0.94, 0.5, 0.99), (0.5, 0.6, 0.7)], "ours": [(0.9, 0.95)]}
    made = [
        {"way": way, "width": 2, "seed": seed, "depth": depth, "overlap": f, "logical": 10 * depth}
        for way, networks in overlaps.items()
        for seed, curve in enumerate(networks)
        for depth, f in enumerate(curve, start=1)
    ]
    found = fig4.reached(pd.DataFrame(made))["logical"]
    assert found["random"].tolist() == [10, np.inf]
    assert found["ours"].tolist() == [20]
