"""The experiment `cores`."""

import pandas as pd
from numpy.testing import assert_allclose

from mpodis import compress, truncated_mpo
from mpodis.paper import cores
from mpodis.paper.layers import trained_layer
from paper_runs import check_tables_and_figures, rows

LOSS = {
    "overlap": lambda row: 1 - row["overlap"],
    "activations": lambda row: row["activations"] ** 2,
}


def test_tables_and_figures_of_a_small_run(ran):
    check_tables_and_figures(ran("cores"))


def test_every_route_has_a_row_for_every_core(ran):
    found = rows(ran("cores")).query("depth > 0")
    there = [(route, bond) for route in ("scratch", "up") for bond in (1, 2)]
    for _, each in found.groupby(["layer", "objective"]):
        pairs = list(zip(each["route"], each["core_bond"], strict=True))
        assert pairs == [*there, ("down", 2), ("down", 1), ("restarts", 1)]
    assert_allclose(found["numbers"], found["core_bond"].map({1: 24, 2: 80}) + 6 * 6)
    assert (found["cx"] == 12).all()
    for objective, each in found.groupby("objective"):
        assert_allclose(each["loss"], LOSS[objective](each), atol=1e-9)


def test_routes_begin_where_they_say(ran):
    found = rows(ran("cores")).query("depth > 0")
    runs = found.pivot_table("loss", ["layer", "objective"], ["route", "core_bond"])
    assert (runs["up", 1] == runs["scratch", 1]).all()
    assert (runs["down", 2] == runs["up", 2]).all()
    assert (runs["up", 2] <= runs["up", 1] + 1e-12).all()  # a larger core, begun with a smaller
    assert (runs["restarts", 1] <= runs["scratch", 1]).all()


def test_depth_0_is_the_operator_and_its_truncations(ran, networks):
    found = rows(ran("cores")).query("layer == 'tnn' and objective == 'overlap'")
    where = {"data": "digits", "data_dir": None, "networks": networks}
    layer = trained_layer("tnn", seed=0, bond=3, **where)
    (whole,) = found.query("route == 'operator'").to_dict("records")
    assert whole["core_bond"] == 3
    assert whole["accuracy"] == layer.accuracy(layer.matrix)
    cuts = found.query("route == 'truncated'").set_index("core_bond")
    cut = truncated_mpo(compress(layer.matrix).mpo, 2)
    assert_allclose(cuts["overlap"][2], cut.overlap)
    assert cuts["numbers"][2] == cut.parameters == 80
    # the other routes have their own beginnings
    scratch = found.query("route == 'scratch'").set_index("core_bond")
    assert (scratch["overlap"] > cuts["overlap"]).all()


def test_ties_are_no_wins():
    made = [
        {"layer": "tnn", "objective": "overlap", "core_bond": 1, "depth": depth, "seed": seed}
        | {"route": route, "loss": loss}
        | dict.fromkeys(cores.FIGURES, 0.0)
        for seed, down in enumerate((1.0, 1.0, 1.0))
        for depth, route, loss in (
            (0, "operator", 0.0),
            (0, "truncated", 2.0),
            (2, "up", 1.0),
            (2, "down", down),
            (2, "scratch", (1.005, 1.5, 0.5)[seed]),
            (2, "restarts", 1.0),
        )
    ]
    *_, total = cores.tables(pd.DataFrame(made))
    counts = dict(map(tuple, total.rows))
    assert counts["down < scratch"] == counts["scratch < down"] == "1 of 3"
    assert counts["down < restarts"] == counts["restarts < down"] == "0 of 3"


def test_cores_as_large_as_the_operator_are_left_out():
    study = cores.study(cores.Cores(networks="x", tnn_bond=4, compress_bond=8))
    bonds = {case.arguments["layer"]: case.arguments["core_bonds"] for case in study.cases}
    assert bonds == {"tnn": [1, 2], "compressed": [1, 2, 4]}
