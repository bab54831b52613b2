"""The start that lowers entropies: what it promises, against dense matrices."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mpodis.circuit.ansatz import Ansatz, brickwall
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.conventions import qubit_legs
from mpodis.disentangling import disentangle
from mpodis.factorization import sandwich
from mpodis.measures import bond_spectra
from mpodis.mpo import compress
from mpodis.optimise.entropic import lower_entropies
from mpodis.progress import Deadline
from mpodis.sites import mpo_from_tensors
from reference import circuit_matrix, random_matrix

CASES = {
    "brickwall": (16, 16, brickwall(4, 2)),
    "wide gates": (16, 16, brickwall(4, 1, 3)),
    "complex": (8, 8, brickwall(3, 2, group="U")),
    "reflections": (8, 8, brickwall(3, 1, group="O")),
    "fixed gates": (16, 16, from_spec("2b + CNOT + 1b + 2b", 4)),
}


def purities(matrix):
    return np.array([np.sum(s**4) for s in bond_spectra(matrix)])


def turned(matrix, left, rounds=20, seed=0, deadline=None):
    """Purities before, and after the gates found are taken out."""
    sides = {"left": left, "right": left.reversed()}
    start = {s: random_circuit(a, seed=seed, scale=0.05) for s, a in sides.items()}
    legs = qubit_legs(*matrix.shape)
    gates = {s: c.gates for s, c in start.items()}
    gates = lower_entropies(matrix, legs, sides, gates, rounds=rounds, deadline=deadline)
    q = {s: Circuit(sides[s], tuple(gates[s])) for s in sides}
    pulled = sandwich(q["left"].adjoint(), matrix, q["right"].adjoint())
    by_hand = circuit_matrix(q["left"]).conj().T @ matrix @ circuit_matrix(q["right"]).conj().T
    assert_allclose(pulled, by_hand, atol=1e-12)
    return purities(pulled), q


@pytest.mark.parametrize("name", CASES)
def test_more_rounds_leave_less_entanglement(name):
    rows, columns, ansatz = CASES[name]
    matrix = random_matrix((rows, columns), ansatz.group == "U", 2)
    # one layer: a later one may undo at its bonds what an earlier one did at the others
    one = Ansatz(ansatz.n, ansatz.layers[:1], ansatz.group)
    totals = [turned(matrix, one, rounds)[0].sum() for rounds in (0, 1, 5, 20)]
    assert min(np.diff(totals)) >= -1e-10
    assert totals[-1] > totals[0] + 0.01


@pytest.mark.parametrize("name", CASES)
def test_gates_stay_in_their_group_and_fixed_ones_as_they_are(name):
    rows, columns, ansatz = CASES[name]
    _, circuits = turned(random_matrix((rows, columns), ansatz.group == "U", 1), ansatz, 3)
    for circuit in circuits.values():
        fixed = identity_circuit(circuit.ansatz).gates
        for place, gate, as_is in zip(circuit.ansatz.placements, circuit.gates, fixed, strict=True):
            assert_allclose(gate.conj().T @ gate, np.eye(len(gate)), atol=1e-12)
            if place.fixed:
                assert_allclose(gate, as_is, atol=0)
            elif circuit.ansatz.group == "SO":
                assert np.linalg.det(gate) > 0


def test_gates_hidden_around_a_product_are_taken_out():
    product = np.kron(random_matrix((4, 4), seed=0), random_matrix((4, 4), seed=1))
    left = Ansatz(4, (brickwall(4, 2).layers[1],))
    hidden = [circuit_matrix(random_circuit(left, seed=k, scale=0.3)) for k in (1, 2)]
    matrix = hidden[0] @ product @ hidden[1]
    assert purities(matrix)[1] < 0.95
    after, _ = turned(matrix, left, rounds=200)
    assert after[1] > 1 - 1e-6


@pytest.mark.parametrize("shape", [(16, 16), (16, 4), (4, 16)])
def test_as_a_start(shape):
    mpo = compress(random_matrix(shape, seed=4)).mpo
    options = {"left": 2, "n_init": 2, "init_sweeps": 2, "max_sweeps": 10}
    if shape[0] != shape[1]:
        options["right"] = 2
    found = disentangle(mpo, init="entropic", **options)
    near = disentangle(mpo, init="identity", **options)
    first = found.history.records[0]
    assert first["phase"] == "init"
    assert first["s_avg"] < near.history.records[0]["s_avg"]
    assert_allclose(found.factorization.overlap(mpo), found.overlap, atol=1e-12)


@pytest.fixture
def ticking(monkeypatch):
    """A second goes by whenever a deadline is looked at."""
    clock = SimpleNamespace(monotonic=map(float, itertools.count()).__next__)
    monkeypatch.setattr("mpodis.progress.time", clock)


def test_what_was_gained_before_a_deadline_is_kept(ticking):
    matrix, left = random_matrix((16, 16), seed=2), Ansatz(4, brickwall(4, 2).layers[:1])
    limits = (0.5, 5.0, 50.0, 1e6)
    totals = [turned(matrix, left, deadline=Deadline(limit))[0].sum() for limit in limits]
    assert min(np.diff(totals)) > 1e-3
    assert totals[-1] == turned(matrix, left)[0].sum()


def test_a_search_of_limited_time_does_not_wait_for_it(ticking):
    mpo = compress(random_matrix((16, 16), seed=4)).mpo
    options = {"init": "entropic", "method": "sweeps", "depth": 2, "n_init": 1, "max_sweeps": 1}
    s_avg = [
        disentangle(mpo, **options, max_seconds=limit).history.records[0]["s_avg"]
        for limit in (5.0, 1e6)
    ]
    assert s_avg[0] > s_avg[1] + 0.1


def test_wide_operators_are_refused():
    mpo = mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * 12)
    with pytest.raises(ValueError, match="dimension of 4096 is beyond 2048; use init='identity'"):
        disentangle(mpo, depth=1, init="entropic", max_sweeps=1)
