"""Where indices live: legs, padding, site order and Qiskit's bit order, against plain loops."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.conventions import (
    check_legs,
    crop,
    fuse,
    pad,
    padded_shape,
    qargs,
    qubit_legs,
    split,
    wires,
)
from reference import CASES, CNOT, embed, random_matrix

ALIGNS = ("left", "centre", "right")
LEGS = (
    ((2, 2), (2, 2), (2, 2)),
    ((2, 1), (2, 2), (1, 2)),
    ((7, 4), (2, 2), (7, 4)),
    ((1, 1),),
    ((3, 1), (1, 5)),
)


# --- legs


@pytest.mark.parametrize("align", ALIGNS)
@pytest.mark.parametrize("shape", [(64, 64), (64, 10), (10, 64), (1, 5), (8, 1), (6, 16), (2, 2)])
def test_qubit_legs_round_up_to_powers_of_two(shape, align):
    legs = qubit_legs(*shape, align=align)
    p, q = (int(np.ceil(np.log2(d))) for d in shape)
    assert len(legs) == max(p, q)
    assert padded_shape(legs) == (2**p, 2**q)
    assert {d for leg in legs for d in leg} <= {1, 2}


@pytest.mark.parametrize("shape", list(itertools.product((1, 2, 3, 4, 5, 8, 9), repeat=2)))
def test_qubit_legs_hold_the_matrix_and_no_more_than_needed(shape):
    rows, columns = padded_shape(qubit_legs(*shape))
    for padded, d in ((rows, shape[0]), (columns, shape[1])):
        assert d <= padded < 2 * d or (d, padded) == (1, 1)


def test_the_shorter_side_sits_where_align_says():
    assert qubit_legs(4, 32, align="left") == ((2, 2), (2, 2), (1, 2), (1, 2), (1, 2))
    assert qubit_legs(4, 32, align="right") == ((1, 2), (1, 2), (1, 2), (2, 2), (2, 2))
    assert qubit_legs(4, 32) == ((1, 2), (2, 2), (2, 2), (1, 2), (1, 2))
    assert qubit_legs(32, 4) == tuple((o, i) for i, o in qubit_legs(4, 32))


def test_a_single_entry_has_one_site():
    assert qubit_legs(1, 1) == ((1, 1),)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_table_of_cases_uses_the_default_legs(case):
    assert qubit_legs(*case.shape) == case.legs


def test_legs_are_normalised():
    assert check_legs([[2, 2], np.array([3, 4])]) == ((2, 2), (3, 4))
    assert all(type(d) is int for leg in check_legs(np.array([[2, 3]])) for d in leg)


@pytest.mark.parametrize("legs", [3, None, "22", [(2, 2, 2)], [2, 2], [(2.5, 2)], [("a", 2)]])
def test_legs_that_are_no_pairs_are_refused(legs):
    with pytest.raises(ValueError, match="is not a sequence of .input, output. pairs"):
        check_legs(legs)


@pytest.mark.parametrize("legs", [[], [(0, 2)], [(2, -1)]])
def test_empty_legs_are_refused(legs):
    with pytest.raises(ValueError, match="at least one site, every dimension 1 or more"):
        check_legs(legs)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (-1, 2)])
def test_an_empty_matrix_has_no_legs(shape):
    with pytest.raises(ValueError, match=r"shape \(-?\d, \d\) is empty; give at least 1 x 1"):
        qubit_legs(*shape)


def test_an_unknown_alignment_names_the_known_ones():
    with pytest.raises(ValueError, match="align='middle' is not known; use one of left, centre, r"):
        qubit_legs(4, 4, align="middle")


def test_wires_are_the_sites_with_a_qubit():
    legs = ((2, 1), (2, 2), (1, 2), (1, 1))
    assert wires(legs, "left") == (0, 1)
    assert wires(legs, "right") == (1, 2)


def test_circuits_need_qubits():
    with pytest.raises(ValueError, match=r"the right legs \(2, 7\) hold a dimension 7; circuits"):
        wires(((2, 2), (2, 7)), "right")


# --- padding


@pytest.mark.parametrize("case", CASES, ids=str)
def test_crop_undoes_pad(case):
    matrix = random_matrix(case.shape, case.complex)
    padded = pad(matrix, case.legs)
    assert padded.shape == padded_shape(case.legs)
    assert_array_equal(crop(padded, case.shape), matrix)
    assert_allclose(np.abs(padded).sum(), np.abs(matrix).sum(), rtol=1e-14)


def test_a_matrix_that_fills_its_legs_is_not_copied():
    matrix = random_matrix((4, 4))
    assert pad(matrix, ((2, 2), (2, 2))) is matrix


def test_crop_to_nothing_in_particular():
    matrix = random_matrix((4, 4))
    assert crop(matrix, None) is matrix


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_legs_that_are_too_small(shape):
    with pytest.raises(ValueError, match="span a 4 x 4 matrix, too small for the shape"):
        pad(random_matrix(shape), ((2, 2), (2, 2)))


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_crop_does_not_grow(shape):
    with pytest.raises(ValueError, match=r"cannot crop a matrix of shape \(4, 4\) to"):
        crop(random_matrix((4, 4)), shape)


# --- order of sites


@pytest.mark.parametrize("legs", LEGS, ids=str)
def test_site_0_is_the_most_significant_digit(legs):
    matrix = random_matrix(padded_shape(legs))
    tensor = split(matrix, legs)
    assert tensor.shape == tuple(i * o for i, o in legs)
    rows, columns = [i for i, _ in legs], [o for _, o in legs]
    for digits in itertools.product(*(range(size) for size in tensor.shape)):
        row = column = 0
        for digit, i, o in zip(digits, rows, columns, strict=True):
            row, column = row * i + digit // o, column * o + digit % o
        assert tensor[digits] == matrix[row, column]


@pytest.mark.parametrize("legs", LEGS, ids=str)
def test_fuse_undoes_split(legs):
    matrix = random_matrix(padded_shape(legs), True)
    assert_array_equal(fuse(split(matrix, legs), legs), matrix)


# --- Qiskit's order


def embed_little_endian(gate, qubits, n):
    """A gate on Qiskit's qubits, entry by entry: the first one is the lowest bit of both."""
    full = np.zeros((2**n, 2**n), dtype=gate.dtype)
    for row, column in itertools.product(range(2**n), repeat=2):
        rest = [q for q in range(n) if q not in qubits]
        if all((row >> q & 1) == (column >> q & 1) for q in rest):
            inner = [
                sum((number >> q & 1) << k for k, q in enumerate(qubits))
                for number in (row, column)
            ]
            full[row, column] = gate[tuple(inner)]
    return full


@pytest.mark.parametrize("places", [(0,), (2,), (0, 1), (2, 3), (1, 2, 3), (0, 1, 2, 3), (3, 1)])
def test_qargs_put_the_same_matrix_on_the_same_wires(places):
    gate = random_matrix((2 ** len(places),) * 2, True)
    assert_array_equal(embed(gate, places, 4), embed_little_endian(gate, qargs(places, 4), 4))


def test_neither_the_naive_order_nor_reversed_bits_will_do():
    # an asymmetric gate on asymmetric wires: Bell states would hide a reversal
    right = embed(CNOT, (0, 1), 3)
    naive, reversed_bits = embed_little_endian(CNOT, [0, 1], 3), [2, 1]
    assert not np.array_equal(naive, right)
    assert not np.array_equal(embed_little_endian(CNOT, reversed_bits, 3), right)
    assert_array_equal(embed_little_endian(CNOT, qargs((0, 1), 3), 3), right)
