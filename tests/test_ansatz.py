"""Placements: brickwalls that leave no wire idle, staircases, and the words of the paper."""

import itertools
import re

import pytest

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase
from mpodis.circuit.spec import from_spec, pair_from_spec, segments_from_spec

SIZES = [(n, width) for n in range(1, 10) for width in range(1, n + 1)]


def names(ansatz):
    """What each layer is made of: "CNOT", or the width of its bricks."""
    found = []
    for layer in ansatz.layers:
        fixed = {place.fixed for place in layer}
        assert len(fixed) == 1
        found.append(fixed.pop() or f"{max(place.width for place in layer)}b")
    return found


def wires_of(layer):
    return [wire for place in layer for wire in place.wires]


def seams(layer, n):
    """Cuts between neighbouring wires that no gate of the layer crosses."""
    crossed = {wire for place in layer for wire in place.wires[1:]}
    return set(range(1, n)) - crossed


# --- placements


@pytest.mark.parametrize(
    ("wires", "is_local"),
    [((2, 3, 4), True), ((5,), True), ((1, 0), False), ((0, 2), False), ((1, 3, 2), False)],
)
def test_a_placement_knows_its_width_and_whether_its_wires_are_neighbours(wires, is_local):
    place = Placement(wires)
    assert (place.width, place.is_local) == (len(wires), is_local)
    assert Ansatz(6, ((place,),)).is_local == is_local
    assert Placement(list(wires)) == place


@pytest.mark.parametrize("wires", [(), (0, 0), (-1, 0)])
def test_wires_that_make_no_sense(wires):
    message = re.escape(f"wires={wires} must be one or more different numbers, 0 or larger")
    with pytest.raises(ValueError, match=message):
        Placement(wires)


def test_fixed_gates_have_names_and_sizes():
    known = "CNOT, CZ, SWAP, iSWAP, ECR.*, or add yours with `register_gate`"
    with pytest.raises(ValueError, match=f"gate 'CY' is not known; use one of {known}"):
        Placement((0, 1), "CY")
    with pytest.raises(ValueError, match=r"a CNOT acts on 2 wires and does not fit on \(0, 1, 2\)"):
        Placement((0, 1, 2), "CNOT")


@pytest.mark.parametrize("name", ["iSWAP", "ECR"])
def test_complex_fixed_gates_need_a_complex_circuit(name):
    layers = ((Placement((1, 2), name),),)
    message = rf"{name} on wires \(1, 2\) is complex, but the circuit is real .*; use group='U'"
    with pytest.raises(ValueError, match=message):
        Ansatz(3, layers, "O")
    with pytest.raises(ValueError, match=message.replace("1, 2", "0, 1")):
        from_spec(f"1b + {name}", 2)
    assert Ansatz(3, layers, "U").placements[0].fixed == name


# --- ansatz


def test_layers_do_not_overlap():
    layer = (Placement((0, 1)), Placement((1, 2)))
    with pytest.raises(ValueError, match=r"gates of layer 1 overlap on wires \[0, 1, 1, 2\]"):
        Ansatz(3, ((), layer))


def test_gates_act_on_wires_of_the_circuit():
    with pytest.raises(ValueError, match="layer 0 uses wires up to 3, but the circuit has 3 wires"):
        Ansatz(3, ((Placement((3, 2)),),))


def test_the_group_is_checked():
    with pytest.raises(ValueError, match="group='SU' is not known"):
        Ansatz(2, (), "SU")
    with pytest.raises(ValueError, match="group='SU' is not known"):
        brickwall(4, 1, group="SU")


def test_equal_places_are_equal():
    assert brickwall(5, 2) == brickwall(5, 2)
    assert hash(brickwall(5, 2)) == hash(brickwall(5, 2))
    assert brickwall(5, 2) != brickwall(5, 2, parity=1)


def test_placements_come_in_the_order_of_the_layers():
    ansatz = from_spec("1b + CNOT + 3b", 5)
    assert ansatz.placements == tuple(itertools.chain(*ansatz.layers))
    assert ansatz.depth == 3


@pytest.mark.parametrize(("group", "one", "two", "three"), [("SO", 1, 6, 28), ("U", 4, 16, 64)])
def test_parameters_of_the_free_gates(group, one, two, three):
    assert brickwall(6, 2, group=group).n_parameters == 5 * two + 2 * one
    assert brickwall(6, 1, 3, group=group).n_parameters == 2 * three
    assert from_spec("CNOT + 1b", 4, group=group).n_parameters == 4 * one
    assert from_spec("5*CNOT", 4, group=group).n_parameters == 0


def test_reversed_layers():
    ansatz = from_spec("1b + CNOT + 2b", 4, group="O")
    assert ansatz.reversed().layers == ansatz.layers[::-1]
    assert ansatz.reversed().reversed() == ansatz


def test_text():
    ansatz = from_spec("1b + CNOT + 2b", 4)
    assert str(ansatz) == "4 wires, 3 layers (6 x 1b, 1 x 2b, 2 x CNOT), SO"
    assert str(Ansatz(2, ())) == "2 wires, 0 layers (no gates), SO"


# --- brickwall


@pytest.mark.parametrize(("n", "width"), SIZES)
@pytest.mark.parametrize("parity", [0, 1])
def test_a_brickwall_leaves_no_wire_idle(n, width, parity):
    ansatz = brickwall(n, 4, width, parity=parity)
    for layer in ansatz.layers:
        assert wires_of(layer) == list(range(n))
        assert max(place.width for place in layer) == width
        assert all(place.fixed is None for place in layer)
    assert ansatz.layers[2:] == ansatz.layers[:2]


@pytest.mark.parametrize(("n", "width"), SIZES)
def test_the_layers_straddle_each_others_seams(n, width):
    even, odd = brickwall(n, 2, width).layers
    if width > 1:
        assert not seams(even, n) & seams(odd, n)


@pytest.mark.parametrize(("n", "width"), SIZES)
@pytest.mark.parametrize("parity", [0, 1])
def test_without_fill_there_are_only_whole_bricks(n, width, parity):
    filled = brickwall(n, 2, width, parity=parity)
    bare = brickwall(n, 2, width, parity=parity, fill=False)
    for with_rest, bricks in zip(filled.layers, bare.layers, strict=True):
        assert {place.width for place in bricks} == {width}
        assert set(bricks) <= set(with_rest)


def test_parity_shifts_the_first_layer():
    assert brickwall(6, 2, 4, parity=1).layers == brickwall(6, 2, 4).layers[::-1]


def test_bricks_by_hand():
    def widths(*args, **options):
        return [[place.width for place in layer] for layer in brickwall(*args, **options).layers]

    assert widths(6, 2) == [[2, 2, 2], [1, 2, 2, 1]]
    assert widths(6, 2, 4) == [[4, 2], [2, 4]]
    assert widths(6, 2, 5) == [[5, 1], [1, 5]]
    assert widths(6, 2, 6) == [[6], [6]]
    assert widths(5, 2, 3) == [[3, 2], [1, 3, 1]]
    assert widths(2, 2) == [[2], [2]]
    assert widths(1, 1, 1) == [[1]]


@pytest.mark.parametrize("build", [brickwall, staircase])
def test_sizes_that_make_no_sense(build):
    with pytest.raises(ValueError, match="depth=0 must be 1 or more layers"):
        build(4, 0)
    for width in (0, 5):
        with pytest.raises(
            ValueError,
            match=f"a gate on {width} wires does not fit a circuit of 4; use widths from 1 to 4",
        ):
            build(4, 1, width)


@pytest.mark.parametrize("parity", [2, -1])
def test_a_parity_is_0_or_1(parity):
    message = f"parity={parity} must be 0 or 1, that of the first layer"
    with pytest.raises(ValueError, match=message):
        brickwall(4, 1, parity=parity)
    with pytest.raises(ValueError, match=message):
        from_spec("2b", 4, parity=parity)


# --- staircase


def test_a_staircase_steps_by_one_wire():
    ansatz = staircase(5, 2, 3, group="U")
    assert [place.wires for place in ansatz.placements] == 2 * [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
    assert all(len(layer) == 1 for layer in ansatz.layers)
    assert ansatz.group == "U"
    assert [place.wires for place in staircase(3, 1, 3).placements] == [(0, 1, 2)]


# --- specs


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("2b", ["2b"]),
        ("CNOT", ["CNOT"]),
        ("CNOTs", ["CNOT"]),
        ("cnots", ["CNOT"]),
        (" 1b + CNOT+2b ", ["1b", "CNOT", "2b"]),
        ("3*2b", ["2b"] * 3),
        ("3 x 2b", ["2b"] * 3),
        ("3x2b", ["2b"] * 3),
        ("3 × CNOTs", ["CNOT"] * 3),
        ("2*(CNOT + 2b)", ["CNOT", "2b"] * 2),
        ("2*(1b + 2*(CNOT)) + 3b", ["1b", "CNOT", "CNOT"] * 2 + ["3b"]),
        ("(CNOT)", ["CNOT"]),
        ("02b", ["2b"]),
        ("12*1b", ["1b"] * 12),
        ("CZ + 2b", ["CZ", "2b"]),
        ("2*(iSWAP + 1b)", ["iSWAP", "1b"] * 2),
        ("swaps + iswaps + ecr", ["SWAP", "iSWAP", "ECR"]),
    ],
)
def test_the_grammar(spec, expected):
    ansatz = from_spec(spec, 6, group="U")
    assert names(ansatz) == expected
    assert from_spec(spec, 6, depth=len(expected), group="U") == ansatz


def test_a_spec_of_one_width_is_a_brickwall():
    for n, width in ((6, 2), (7, 3), (6, 4)):
        for parity in (0, 1):
            expected = brickwall(n, 3, width, parity=parity, group="U")
            assert from_spec(f"3*{width}b", n, parity=parity, group="U") == expected
    assert from_spec("2*3b", 5, fill=False) == brickwall(5, 2, 3, fill=False)


def test_single_wires_leave_the_parity_as_it_is():
    plain = from_spec("2b + 2b", 6)
    mixed = from_spec("1b + 2b + 1b + 1b + 2b + 1b", 6)
    assert (mixed.layers[1], mixed.layers[4]) == plain.layers
    assert mixed.layers[0] == brickwall(6, 1, 1).layers[0]


@pytest.mark.parametrize("name", ["CNOT", "CZ", "SWAP"])
def test_fixed_gates_are_a_brickwall_that_is_never_filled(name):
    for n in (2, 5, 6):
        ansatz = from_spec(f"{name} + {name}", n)
        bricks = brickwall(n, 2, fill=False)
        for layer, free in zip(ansatz.layers, bricks.layers, strict=True):
            assert [place.wires for place in layer] == [place.wires for place in free]
            assert {place.fixed for place in layer} == {name}


# Tables 4 and 6 of arXiv 2509.06653v1, in their own words
ODD_EVEN = "odd layers = CNOTs even layers = 2b"
LONG_LEFT = "1b+CNOTs+1b +2b+ CNOTs+2b+ 1b+CNOTs+1b"
LONG_RIGHT = "CNOTs + 1b + CNOTs + 1b + CNOTs + 2b + CNOTs + 2b + CNOTs + 1b + CNOTs + 1b + CNOTs"


@pytest.mark.parametrize(
    ("spec", "depth", "expected"),
    [
        *[("All CNOTs", depth, ["CNOT"] * depth) for depth in (1, 2, 3, 4, 6, 8)],
        (ODD_EVEN, 1, ["CNOT"]),
        (ODD_EVEN, 2, ["CNOT", "2b"]),
        (ODD_EVEN, 3, ["CNOT", "2b", "CNOT"]),
        (ODD_EVEN, 6, ["CNOT", "2b"] * 3),
        ("odd layers = 1b; even layers = CNOTs", 6, ["1b", "CNOT"] * 3),
        ("odd layers = 1b; even layers = CNOTs", 8, ["1b", "CNOT"] * 4),
        ("odd = 1b, even = CNOT", 3, ["1b", "CNOT", "1b"]),
        ("CNOTs + 2b + CNOTs + 2b", 4, ["CNOT", "2b"] * 2),
        ("2b + CNOTs", 2, ["2b", "CNOT"]),
        (LONG_LEFT, 9, ["1b", "CNOT", "1b", "2b", "CNOT", "2b", "1b", "CNOT", "1b"]),
        # the table says N_2 = 12, but lists 13 layers
        (LONG_RIGHT, 13, ["CNOT", *["1b", "CNOT"] * 2, *["2b", "CNOT"] * 2, *["1b", "CNOT"] * 2]),
    ],
)
def test_rows_of_the_papers_tables(spec, depth, expected):
    assert names(from_spec(spec, 8, depth=depth)) == expected


@pytest.mark.parametrize(
    ("spec", "left", "right"),
    [
        (
            "1b + CNOTs + 1b + 5 × CNOTs; CNOTs",
            ["1b", "CNOT", "1b", *["CNOT"] * 5],
            ["CNOT"],
        ),
        ("1b; CNOTs", ["1b"], ["CNOT"]),
        ("CNOTs; CNOTs + 2b", ["CNOT"], ["CNOT", "2b"]),
        ("CNOTs; 2b", ["CNOT"], ["2b"]),
        ("CNOTs", ["CNOT"], ["CNOT"]),
        ("2b + CNOTs", ["2b", "CNOT"], ["2b", "CNOT"]),
        (f"{LONG_LEFT}; {LONG_RIGHT}", None, None),
    ],
)
def test_rows_with_two_sides(spec, left, right):
    found = pair_from_spec(spec, 8, 6, group="U", fill=False)
    assert [ansatz.n for ansatz in found] == [8, 6]
    assert {ansatz.group for ansatz in found} == {"U"}
    if left is not None:
        assert [names(ansatz) for ansatz in found] == [left, right]
    else:
        assert [ansatz.depth for ansatz in found] == [9, 13]


CNOTS = ["CNOT"] * 8
BRICKS = ["CNOT", "2b"] * 3
ONES = ["1b", "CNOT"] * 4


@pytest.mark.parametrize(
    ("words", "depths", "left", "right"),
    [
        ("All CNOTs", (1, 2), CNOTS[:1], CNOTS[:2]),
        ("All CNOTs", (6, 2), CNOTS[:6], CNOTS[:2]),
        ("1b + CNOTs + 1b + 5 × CNOTs; CNOTs", (8, 1), [*ONES[:3], *CNOTS[:5]], CNOTS[:1]),
        ("1b; CNOTs", (1, 1), ["1b"], ["CNOT"]),
        ("CNOTs; CNOTs + 2b", (1, 2), BRICKS[:1], BRICKS[:2]),
        (ODD_EVEN, (6, 2), BRICKS, BRICKS[:2]),
        (ODD_EVEN, (3, 4), BRICKS[:3], BRICKS[:4]),
        (ODD_EVEN, (1, 1), ["CNOT"], ["CNOT"]),
        ("odd layers = 1b; even layers = CNOTs", (6, 8), ONES[:6], ONES),
        ("CNOTs; 2b", (1, 1), ["CNOT"], ["2b"]),
        ("CNOTs", (2, 2), CNOTS[:2], CNOTS[:2]),
        ("CNOTs", (8, 6), CNOTS, CNOTS[:6]),
    ],
)
def test_rows_with_their_numbers_of_layers(words, depths, left, right):
    """M_i and N_i of a row, as they stand in the tables' second column."""
    found = pair_from_spec(words, 8, 6, depths=depths)
    assert [names(ansatz) for ansatz in found] == [left, right]


def test_the_one_body_model_has_the_papers_count():
    # Table 3: 876 parameters with one-body gates, 854 without; 8 wires before layer 2, 6 before 3
    second, _ = pair_from_spec("1b + CNOTs + 1b + 5 × CNOTs; CNOTs", 8, 8)
    third, _ = pair_from_spec("1b; CNOTs", 6, 6)
    assert second.n_parameters + third.n_parameters == 876 - 854


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ("", "the end"),
        ("CNOT +", "the end"),
        ("+ CNOT", "+ CNOT"),
        ("3*", "the end"),
        ("2*3*CNOT", "3*CNOT"),
        ("5CNOT", "5CNOT"),
        ("2b 2b", "2b"),
        ("2b + CNOT)", ")"),
        ("(2b + CNOT", "the end, a ) is missing"),
        ("2*(2b CNOT)", "CNOT)"),
        ("2bb", "2bb"),
    ],
)
def test_what_cannot_be_read(spec, where):
    with pytest.raises(ValueError, match="cannot read the circuit spec") as error:
        from_spec(spec, 4)
    assert f"{spec!r} at {where!r}; write layers as '1b + CNOT + 2b'" in str(error.value)


@pytest.mark.parametrize("spec", ["CY", "b", "all CYs", "2b + 3*(CY + 2b)"])
def test_a_gate_that_is_not_registered(spec):
    name = "b" if spec == "b" else "CY"
    with pytest.raises(ValueError, match=f"gate '{name}' in the circuit spec") as error:
        from_spec(spec, 4, depth=2 if "all" in spec else None)
    assert f"{spec!r} is not known; use one of CNOT, CZ, SWAP, iSWAP, ECR" in str(error.value)


def test_a_layer_repeated_0_times():
    with pytest.raises(ValueError, match=r"spec '0\*CNOT' repeats a layer 0 times; leave it out"):
        from_spec("0*CNOT", 4)


@pytest.mark.parametrize("spec", ["All CNOTs", ODD_EVEN])
def test_words_that_need_a_depth(spec):
    with pytest.raises(ValueError, match="does not say how many layers; give depth="):
        from_spec(spec, 4)
    with pytest.raises(ValueError, match="depth=0 must be 1 or more layers"):
        from_spec(spec, 4, depth=0)


def test_a_depth_that_contradicts_the_spec():
    with pytest.raises(ValueError, match=r"spec '2\*CNOT' has 2 layers, but depth=3 was given"):
        from_spec("2*CNOT", 4, depth=3)


@pytest.mark.parametrize(("spec", "n"), [("5b", 4), ("0b", 4), ("CNOT", 1)])
def test_gates_that_do_not_fit(spec, n):
    with pytest.raises(ValueError, match=f"wires does not fit a circuit of {n}; use widths"):
        from_spec(spec, n)


@pytest.mark.parametrize("n", [4, 5])
@pytest.mark.parametrize("parity", [0, 1])
def test_cut_circuits_begin_on_the_wire_of_the_uncut_one(n, parity):
    whole = from_spec("1b + CNOT + 2b + CNOT + 1b + 2b", n, parity=parity)
    parts = segments_from_spec("1b + CNOT | 2b + CNOT | 1b + 2b", n, parity=parity)
    assert [part.depth for part in parts] == [2, 2, 2]
    assert sum((part.layers for part in parts), ()) == whole.layers
    assert segments_from_spec("1b + CNOT + 2b + CNOT + 1b + 2b", n, parity=parity) == [whole]
    first, second = (layer[0].wires[0] for layer in (whole.layers[1], whole.layers[3]))
    assert first == second == parity  # two layers apart


def test_the_first_brick_on_wire_1():
    (ansatz,) = segments_from_spec("CNOT + 2b", 4, parity=1)
    cnots, free = ([place.wires for place in layer] for layer in ansatz.layers)
    assert cnots == [(1, 2)]
    assert free == [(0, 1), (2, 3)]
    (ansatz,) = segments_from_spec("2b", 4, parity=1)
    assert [place.wires for place in ansatz.layers[0]] == [(0,), (1, 2), (3,)]
    with pytest.raises(ValueError, match="parity=2 must be 0 or 1"):
        segments_from_spec("2b", 4, parity=2)


def test_three_sides():
    with pytest.raises(ValueError, match="spec '2b;2b;2b' has 3 sides; write 'LEFT ; RIGHT'"):
        pair_from_spec("2b;2b;2b", 4, 4)


# --- drawing


def test_draw_shows_every_wire_and_gate():
    ansatz = from_spec("1b + CNOT + 2b + 7b", 8)
    ax = ansatz.draw()
    cnots = sum(place.fixed is not None for place in ansatz.placements)
    assert len(ax.patches) == len(ansatz.placements) - cnots
    assert len(ax.lines) == ansatz.n + 4 * cnots  # a CNOT: line, dot, ring, plus
    box = ax.patches[-2].get_bbox()
    assert (box.y0, box.y1) == pytest.approx((-0.3, 6.3))


def test_gates_on_other_wires_are_drawn_over_all_that_they_span():
    places = (Placement((3, 0)), Placement((1, 2), "SWAP"))
    ax = Ansatz(4, (places, (Placement((0, 2), "ECR"),)), "U").draw()
    first, second = ax.patches
    assert (first.get_bbox().y0, first.get_bbox().y1) == pytest.approx((-0.3, 3.3))
    assert first.get_bbox().x1 < ax.lines[-3].get_xdata()[0]  # beside the SWAP, not over it
    assert [line.get_marker() for line in ax.lines[6:8]] == ["x", "x"]
    assert [text.get_text() for text in ax.texts] == ["ECR"]
    assert second.get_bbox().y1 == pytest.approx(2.3)
    assert list(ax.lines[-1].get_ydata()) == [0, 2]  # dots on the wires that it acts on


def test_draw_onto_given_axes():
    import matplotlib.pyplot as plt

    ax = plt.figure().add_subplot()
    assert Ansatz(3, ()).draw(ax) is ax
    assert len(ax.lines) == 3
