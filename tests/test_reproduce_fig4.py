"""`mpodis reproduce fig4`, and the layouts and closed forms of table1."""

import json
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis import disentangle
from mpodis.circuit.ansatz import brickwall
from mpodis.jobs import REPRODUCE
from mpodis.jobs.directory import JobDirectory
from mpodis.measures import entanglement, singular_values
from mpodis.mpo import mpo_to_dense, truncate
from mpodis.paper import fig4, load_experiment, table1
from mpodis.paper.fig4 import EXPERIMENT, Fig4
from mpodis.paper.networks import network
from mpodis.paper.running import run_experiment

TINY = Fig4(
    seeds=1,
    workers=1,
    widths=(2, 3),
    deepest=(3, 2),
    depths=(1, 2, 3),
    sweeps=4,
    starts=1,
    max_sweeps=4,
    dip_width=3,
    dip_depth=2,
    dip_sweeps=8,
)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return str(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def record(networks, tmp_path_factory):
    options = replace(TINY, networks=networks)
    directory = JobDirectory.create(
        tmp_path_factory.mktemp("fig4") / "run", f"{REPRODUCE}fig4", options
    )
    run_experiment(EXPERIMENT, options, directory)
    return directory.results()  # as it is read again


@pytest.fixture(scope="module")
def mpo(record, networks):
    return network("digits", networks, 0).mpo.to_mpo()


def rows(record, way):
    return [row for row in record["pieces"].values() if row.get("way") == way]


def test_no_overlap_exceeds_its_bound(record):
    for row in record["pieces"].values():
        if "way" in row:
            assert all(f <= b + 1e-10 for f, b in zip(row["overlap"], row["bound"], strict=True))


def test_our_overlap_never_falls_with_depth(record):
    for row in rows(record, "ours"):
        assert row["depth"] == list(range(1, len(row["depth"]) + 1))
        assert np.all(np.diff(row["overlap"]) >= -1e-12)
    deepest = {row["width"]: row["depth"][-1] for row in rows(record, "ours")}
    assert deepest == {2: 3, 3: 2}


def test_the_papers_way_is_a_new_run_of_plain_sweeps_at_each_depth(record, mpo):
    row = record["pieces"]["seed0-2body-random"]
    alone = disentangle(
        mpo,
        depth=2,
        core="fixed",
        init="random",
        n_init=1,
        method="sweeps",
        max_sweeps=TINY.sweeps,
        tol=0.0,
    )
    assert_allclose(row["overlap"][1], alone.overlap, atol=1e-12)
    assert_allclose(row["s_avg"][1], alone.entropies_after.mean(), atol=1e-12)
    phases = alone.path("phase").tolist()
    assert phases == ["init"] + ["sweep"] * TINY.sweeps


def test_the_core_of_the_papers_way_is_that_of_the_truncated_operator(record, mpo):
    s, t = (singular_values(mpo_to_dense(x)) for x in (mpo, truncate(mpo, max_bond=1).mpo))
    bound = float(s @ t / np.linalg.norm(s) / np.linalg.norm(t))
    for way in ("random", "more sweeps", "near identity", "L-BFGS", "scrambled"):
        for row in rows(record, way):
            assert_allclose(row["bound"], bound, atol=1e-10)
    updated = record["pieces"]["seed0-dip-core-updated"]["bound"]
    assert abs(updated[0] - bound) > 1e-6


def test_more_sweeps_go_on_from_where_fewer_end(record):
    few = record["pieces"]["seed0-3body-random"]["overlap"][1]
    (more,) = record["pieces"]["seed0-dip-more-sweeps"]["overlap"]
    assert few < more


def test_variants_are_run_at_the_dip_or_at_every_depth(record):
    for way in fig4.VARIANTS:
        for row in rows(record, way):
            every = way == "random" or way in fig4.AGAINST_DEPTH
            assert row["depth"] == ([1, 2, 3] if every else [2])


def test_scrambling_keeps_the_singular_values_alone(mpo):
    scrambled = fig4._scrambled(mpo, 0)
    before, after = (singular_values(mpo_to_dense(x)) for x in (mpo, scrambled))
    assert_allclose(after, before, rtol=1e-10)
    assert entanglement(scrambled).average > 1.5 * entanglement(mpo).average
    with pytest.raises(AssertionError):
        assert_allclose(mpo_to_dense(fig4._scrambled(mpo, 1)), mpo_to_dense(scrambled))


def test_circuits_with_twice_the_parameters_of_one_gate_are_left_out(networks, record):
    common = {"data": "digits", "networks": networks, "seed": 0, "sweeps": 1, "variant": "random"}
    found = fig4._again(width=5, depths=[1, 2, 8, 9], **common)
    assert found["depth"] == [1, 2, 8]
    with pytest.raises(ValueError, match="6-body gates on 6 wires need fewer layers than"):
        fig4._again(width=6, depths=[2, 3], **common)


def test_gates_of_both_sides_are_counted_by_width(record):
    row = record["pieces"]["seed0-3body-random"]
    # (012)(345), then (0)(123)(45): single wires cost nothing
    assert row["gates"] == [{"3": 4}, {"2": 2, "3": 6}, {"2": 2, "3": 10}]
    for depth, gates in zip(row["depth"], row["gates"], strict=True):
        placed = [p.width for p in brickwall(6, depth, 3).placements]
        assert sum(gates.values()) == 2 * sum(width > 1 for width in placed)


def test_one_gate_of_each_width_is_counted(record):
    costs = fig4._costs(record)["logical"]
    assert list(costs) == ["2", "3"]
    assert costs["2"] == 2  # of SO(4)
    assert costs["2"] < costs["3"] < fig4._cost(width=4)["logical"]


def test_a_device_that_is_not_installed_is_left_out(record, monkeypatch):
    def missing(gate, *, backend):
        if backend != "logical":
            raise ImportError("not installed")
        return gate_cost(gate, backend=backend)

    gate_cost = fig4.gate_cost
    monkeypatch.setattr(fig4, "gate_cost", missing)
    pieces = {f"cost-{w}body": fig4._cost(width=w) for w in (2, 3)}
    assert pieces["cost-2body"] == {"width": 2, "logical": 2, "FakeMontrealV2": None}
    alone = record | {"pieces": record["pieces"] | pieces}
    assert fig4._devices(alone) == ["logical"]
    assert fig4.tables(alone)[1].columns == ("gates", "way", "networks", "logical")


def test_every_panel_draws_data(record):
    assert len(EXPERIMENT.panels) == 5
    for panel in EXPERIMENT.panels:
        figure, ax = plt.subplots()
        panel.draw(record, ax)
        assert ax.has_data()
        assert ax.get_legend().get_texts()
        plt.close(figure)


def test_tables_show_both_ways_and_every_variant(record):
    by_depth, gates, dip = EXPERIMENT.tables(record)
    assert len(by_depth.rows) == 3 + 3 + 3 + 2
    assert [row[:2] for row in gates.rows[:2]] == [("2-body", "random"), ("2-body", "ours")]
    assert [row[0] for row in dip.rows] == list(fig4.VARIANTS)
    assert {row[0]: row[1] for row in dip.rows}["more sweeps"] == TINY.dip_sweeps
    for table in (by_depth, gates, dip):
        assert {len(row) for row in table.rows} == {len(table.columns)}


def made_up(random, scrambled, ours=((0.9, 0.95, 0.97),) * 2):
    """A record of 2-body gates alone, the overlaps of every network by depth."""
    gates = [{"2": 10}, {"2": 18}, {"2": 28}]
    pieces = {"cost-2body": {"width": 2, "logical": 2, "FakeMontrealV2": None}}

    def put(way, overlaps, depths=(1, 2, 3)):
        for seed, values in enumerate(overlaps):
            row = {"seed": seed, "width": 2, "way": way, "depth": list(depths)}
            row |= {"overlap": list(values), "gates": gates[: len(values)]}
            row |= {"bound": [1.0] * len(values), "s_avg": [0.1] * len(values)}
            pieces[f"seed{seed}-{way}"] = row

    put("random", random)
    put("ours", ours)
    put("scrambled", scrambled)
    put("near identity", ours)
    for way in ("more sweeps", "core updated", "L-BFGS"):
        put(way, [(0.5,)] * len(random), depths=(2,))
    names = ("widths", "dip_width", "dip_depth", "sweeps", "dip_sweeps")
    return {"options": dict(zip(names, ([2], 2, 2, 10, 20), strict=True)), "pieces": pieces}


def test_the_finding_names_the_dip_and_what_it_compares():
    found = made_up([(0.8, 0.6, 0.95), (0.84, 0.7, 0.95)], [(0.3, 0.61, 0.95), (0.2, 0.71, 0.95)])
    assert fig4._fall(found, "random", 2) == (pytest.approx(0.17), 2)
    assert fig4._same_from(found) == 2
    text = EXPERIMENT.finding(found)
    assert "2-body 0.170 at 2 layers; ours by 0 at the most" in text
    assert "ends at 0.660, 0.010 apart for a typical network, and from 2 layers on" in text
    assert "random: 2-body with 56; ours: 2-body with 36." in text


def test_the_finding_claims_no_dip_and_no_agreement_where_there_are_none():
    found = made_up([(0.8, 0.85, 0.9)] * 2, [(0.2, 0.3, 0.4)] * 2)
    assert fig4._same_from(found) is None
    text = EXPERIMENT.finding(found)
    assert "falls below that of shallower circuits by up to nothing" in text
    assert "the medians differ by 0.02 or more at the deepest circuits" in text
    assert "random: none in half of the networks" in text


def test_random_gates_that_do_as_well_at_every_depth():
    same = [(0.3, 0.5, 0.7)] * 2
    assert fig4._same_from(made_up(same, same)) == 1


def test_gates_count_where_a_network_first_gets_to_the_target():
    found = made_up([(0.94, 0.5, 0.99), (0.5, 0.6, 0.7)], [(0.1, 0.2, 0.3)] * 2)
    assert fig4._reached(found, "random", 2, "logical") == [20, math.inf]
    assert fig4.tables(found)[1].rows == [
        ("2-body", "random", "1 of 2", None),
        ("2-body", "ours", "2 of 2", 36),
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"deepest": (3,)}, r"deepest=\(3,\) must hold one number of layers for each"),
        ({"depths": (0, 1)}, r"depths=\(0, 1\) must hold numbers, 1 or more"),
        ({"depths": ()}, r"depths=\(\) must hold numbers"),
        ({"widths": (), "deepest": ()}, r"widths=\(\) must hold numbers"),
        ({"dip_width": 4}, r"dip_width=4 and dip_depth=2 must be among the widths=\(2, 3\)"),
        ({"dip_depth": 4}, r"dip_depth=4 must be among .* the depths=\(1, 2, 3\)"),
        ({"seeds": 0}, "seeds=0 must be a whole number, 1 or more"),
    ],
)
def test_wrong_options_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)


# table1


def table1_piece(networks, width, core, group="SO", **options):
    search = {"n_init": 1, "max_sweeps": 20, "tol": 1e-4} | options
    return table1._overlap(
        data="digits",
        networks=networks,
        seed=0,
        width=width,
        group=group,
        core=core,
        **search,
    )


def test_gates_as_wide_as_the_operator_reach_the_bound(record, networks):
    found = table1_piece(networks, 6, "fixed", max_sweeps=10)
    assert found["layout"] == "closed form"
    assert_allclose(found["overlap"], found["bound"], atol=1e-10)
    assert found["plain"] < found["bound"] - 1e-8
    assert found["layers"] == 1


def test_a_core_that_is_updated_does_better_in_closed_form(record, networks):
    found = table1_piece(networks, 6, "update", max_sweeps=2)
    assert found["overlap"] > 0.995
    assert_allclose(found["overlap"], found["bound"], atol=1e-8)


def test_the_best_layout_is_taken_and_the_papers_kept_beside_it(record, networks, mpo):
    found = table1_piece(networks, 2, "update", max_sweeps=5)
    layouts = table1._layouts(6, 2, "SO")
    left, right = layouts[found["layout"]]
    again = disentangle(mpo, left=left, right=right, n_init=1, max_sweeps=5)
    assert_allclose(found["overlap"], again.overlap, atol=1e-12)
    plain = disentangle(mpo, left=brickwall(6, 1, 2), n_init=1, max_sweeps=5)
    assert_allclose(found["plain"], plain.overlap, atol=1e-12)
    assert found["plain"] < found["overlap"]


def test_layouts_shift_either_side_or_have_two_layers():
    one = table1._layouts(6, 3, "O")
    assert list(one) == ["plain", "shifted", "left shifted", "right shifted"]
    assert len(set(one.values())) == 4
    assert all(left.depth == right.depth == 1 for left, right in one.values())
    ((left, right),) = table1._layouts(6, 4, "O").values()
    assert (left.depth, right) == (2, left.reversed())
    assert list(table1._layouts(6, 6, "O")) == ["plain"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"groups": ()}, "groups is empty; name one or more"),
        ({"widths": ()}, "widths is empty; name one or more"),
        ({"groups": ("O", "SU")}, "group='SU' is not known; use one of SO, O, U"),
    ],
)
def test_wrong_options_of_table1_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        table1.Table1(**wrong)


def test_options_of_table1_reach_the_search():
    (piece, *_) = load_experiment("table1").pieces(
        table1.Table1(networks="x", starts=3, max_sweeps=7, tol=1e-3)
    )
    assert {"n_init": 3, "max_sweeps": 7, "tol": 1e-3}.items() <= piece.arguments.items()
    json.dumps(piece.arguments)


@pytest.mark.no_cover  # two searches; `record` has the same lines
def test_gates_of_either_determinant_reach_further(record, networks, mpo):
    either = table1_piece(networks, 2, "update", group="O", n_init=2, max_sweeps=8)
    proper = table1_piece(networks, 2, "update", group="SO", n_init=2, max_sweeps=8)
    assert either["plain"] > proper["plain"] - 1e-6
    assert (either["group"], proper["group"]) == ("O", "SO")
    layouts = table1._layouts(6, 2, "O").values()
    assert all(side.group == "O" for pair in layouts for side in pair)


def test_the_finding_of_table1_measures_the_gap_of_the_widest_gates(record, networks):
    pieces = {
        f"seed0-{width}body-{group}-{core}": table1_piece(
            networks, width, core, group=group, max_sweeps=2
        )
        for width in (2, 3)
        for group in table1.GROUPS
        for core in table1.CORES
    }
    options = {"widths": [2, 3], "groups": list(table1.GROUPS)}
    made = {"options": options, "pieces": pieces, "seeds": [0]}
    widest = pieces["seed0-3body-O-fixed"]
    text = table1.finding(made)
    assert f"3-body O gates are within {widest['bound'] - widest['overlap']:.1g} of it" in text
    for group in table1.GROUPS:
        plain = pieces[f"seed0-2body-{group}-fixed"]["plain"]
        assert f"{group} gates: 2-body {100 * plain:.1f} (" in text
    ((*_, gap, paper),) = [
        row
        for row in table1.tables(made)[0].rows
        if (row[0], row[1], row[3]) == ("3-body", "O", "fixed")
    ]
    assert paper == table1.PAPER[3]
    assert float(gap) == pytest.approx(100 * (widest["bound"] - widest["overlap"]), rel=0.05)
