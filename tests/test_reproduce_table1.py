"""`mpodis reproduce table1` on one digits network: its layouts and closed forms."""

import json

import pytest
from numpy.testing import assert_allclose

from mpodis import disentangle
from mpodis.circuit.ansatz import brickwall
from mpodis.paper import load_experiment, table1
from mpodis.paper.networks import network, train


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("networks"))
    train(seed=0, data="digits", data_dir=None, networks=folder)
    return folder


@pytest.fixture(scope="module")
def mpo(networks):
    return network("digits", networks, 0).mpo.to_mpo()


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


def test_gates_as_wide_as_the_operator_reach_the_bound(networks):
    found = table1_piece(networks, 6, "fixed", max_sweeps=10)
    assert found["layout"] == "closed form"
    assert_allclose(found["overlap"], found["bound"], atol=1e-10)
    assert found["plain"] < found["bound"] - 1e-8
    assert found["layers"] == 1


def test_a_core_that_is_updated_does_better_in_closed_form(networks):
    found = table1_piece(networks, 6, "update", max_sweeps=2)
    assert found["overlap"] > 0.995
    assert_allclose(found["overlap"], found["bound"], atol=1e-8)


def test_the_best_layout_is_taken_and_the_papers_kept_beside_it(networks, mpo):
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


@pytest.mark.no_cover  # two searches; others have the same lines
def test_gates_of_either_determinant_reach_further(networks, mpo):
    either = table1_piece(networks, 2, "update", group="O", n_init=2, max_sweeps=8)
    proper = table1_piece(networks, 2, "update", group="SO", n_init=2, max_sweeps=8)
    assert either["plain"] > proper["plain"] - 1e-6
    assert (either["group"], proper["group"]) == ("O", "SO")
    layouts = table1._layouts(6, 2, "O").values()
    assert all(side.group == "O" for pair in layouts for side in pair)


def test_the_finding_of_table1_measures_the_gap_of_the_widest_gates(networks):
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
