"""Sums of circuits around cores: every term helps, every round helps, planted sums are found."""

from functools import reduce

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.disentangling import disentangle
from mpodis.kraus import kraus_ensemble
from mpodis.mpo import compress
from reference import circuit_matrix, overlap, random_matrix, relative_error

QUICK = {"n_init": 2, "init_sweeps": 5, "max_sweeps": 15}


def product(n, seed):
    return reduce(np.kron, [random_matrix((2, 2), False, (seed, k)) for k in range(n)])


@pytest.mark.parametrize("shape", [(8, 8), (6, 7)])
def test_every_term_and_every_round_lowers_the_loss(shape):
    matrix = random_matrix(shape, False, 0)
    found = kraus_ensemble(compress(matrix), depth=2, terms=3, rounds=2, **QUICK)
    trace = [1.0, *found.first, *found.losses]
    assert max(np.diff(trace)) <= 1e-12
    assert found.first[2] < found.first[0]
    assert found.losses[-1] < found.first[-1]
    assert_allclose(relative_error(matrix, found.to_dense()) ** 2, found.loss, atol=1e-12)
    assert_allclose(overlap(matrix, found.to_dense()), found.overlap, atol=1e-12)
    text = str(found)
    assert "gain per CX" in text
    assert "together" in text


def test_one_term_is_a_disentangled_operator():
    mpo = compress(random_matrix((8, 8), False, 1))
    one = kraus_ensemble(mpo, depth=2, terms=1, **QUICK)
    alone = disentangle(mpo, depth=2, **QUICK)
    assert one.losses == ()
    assert_allclose(one.to_dense(), alone.factorization.to_dense(), atol=1e-5)  # M was split anew


def test_a_planted_sum_is_found():
    circuit = circuit_matrix(random_circuit(brickwall(3, 1), seed=3, scale=0.1))
    whole = compress(3 * product(3, 1) + circuit @ product(3, 2))
    options = {"left": 1, "n_init": 2, "init_sweeps": 8, "max_sweeps": 30}
    one = kraus_ensemble(whole, terms=1, **options)
    two = kraus_ensemble(whole, terms=2, rounds=3, **options)
    assert two.loss < 0.1 * one.loss


def test_terms_may_begin_at_a_circuit():
    circuit = random_circuit(brickwall(3, 2), seed=3, scale=0.1)
    mpo = compress(random_matrix((8, 8), False, 2))
    found = kraus_ensemble(mpo, left=circuit, rounds=2, **QUICK)
    assert found.terms[0].left.ansatz == circuit.ansatz
    assert max(np.diff([1.0, *found.first, *found.losses])) <= 1e-12


def test_it_stops_where_nothing_is_left():
    found = kraus_ensemble(compress(product(3, 0)), depth=1, terms=3)
    assert len(found.terms) == 1
    assert found.loss < 1e-12


def test_the_activations_weigh_the_loss():
    matrix = random_matrix((8, 8), False, 0)
    x = random_matrix((40, 8), False, 5) @ np.diag(0.5 ** np.arange(8))
    options = {"left": 1, "objective": "activations", "rounds": 1, **QUICK}
    found = kraus_ensemble(compress(matrix), inputs=x, **options)
    felt = relative_error(x @ matrix, x @ found.to_dense()) ** 2
    assert_allclose(felt, found.loss, rtol=1e-9)
    same = kraus_ensemble(compress(matrix), covariance=x.T @ x / 40, **options)
    assert_allclose(same.loss, found.loss, rtol=1e-6)


def test_cnots_are_counted():
    assert brickwall(4, 2).n_cnots == 2 * 3
    assert brickwall(4, 2, group="U").n_cnots == 3 * 3
    assert from_spec("1b + CNOT + 2b", 4).n_cnots == 2 + 2
    assert from_spec("CZ + SWAP + 1b", 4).n_cnots == 2 * 1 + 3
    assert from_spec("iSWAP + 2b", 4, group="U").n_cnots == 2 * 2 + 3
    assert brickwall(4, 1, 3).n_cnots is None
    assert Ansatz(3, ()).n_cnots == 0
    wide = kraus_ensemble(compress(random_matrix((8, 8), False, 0)), left="3b", terms=1, **QUICK)
    assert wide.table().rows[0][4] is None


def test_errors_name_the_value_and_the_remedy():
    mpo = compress(random_matrix((8, 8), False, 0))
    with pytest.raises(ValueError, match="terms=0 must be a whole number, 1 or more"):
        kraus_ensemble(mpo, depth=1, terms=0)
    with pytest.raises(ValueError, match="rounds=-1 must be a whole number, 0 or more"):
        kraus_ensemble(mpo, depth=1, rounds=-1)
    with pytest.raises(ValueError, match="give inputs= or covariance=, not both"):
        kraus_ensemble(mpo, depth=1, inputs=np.eye(8), covariance=np.eye(8))
    from quimb.tensor import MPO_identity

    with pytest.raises(ValueError, match=r"spans \(4096, 4096\).*one term"):
        kraus_ensemble(MPO_identity(12), depth=1)
