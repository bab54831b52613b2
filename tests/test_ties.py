"""Tied gates: one gate in several places, counted once, moved together."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, tie_gates
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization, load_factorization
from mpodis.gates import exponential, skew
from mpodis.mpo import compress
from mpodis.sites import mpo_from_tensors
from mpodis.synthesis import synthesise
from reference import circuit_matrix, random_matrix


def operator(n=4, is_complex=False):
    return compress(random_matrix((2**n, 2**n), is_complex, 1)).mpo


def assert_tied(circuit):
    for numbers in circuit.ansatz.ties.values():
        for j in numbers:
            assert_array_equal(circuit.gates[j], circuit.gates[numbers[0]])


def test_ties_by_layer_and_by_parity():
    wall = brickwall(6, 4)
    by_layer, by_parity = tie_gates(wall), tie_gates(wall, by="parity")
    assert [len(t) for t in by_layer.ties.values()] == [3, 2, 2, 3, 2, 2]  # ends of shifted layers
    assert [len(t) for t in by_parity.ties.values()] == [6, 4, 4]
    assert wall.n_parameters == 10 * 6 + 4 * 1
    assert by_layer.n_parameters == 4 * 6 + 2 * 1
    assert by_parity.n_parameters == 2 * 6 + 1
    assert str(by_parity) == "6 wires, 4 layers (4 x 1b, 10 x 2b, 3 ties), SO"
    assert not wall.ties


def test_mirrored_gates_stand_at_both_ends_of_a_layer():
    tied = tie_gates(brickwall(6, 4, fill=False), by="mirror")
    assert [layer[0].wires for layer in tied.layers] == [(0, 1), (1, 2)] * 2
    for layer in tied.layers:
        names = [place.tie for place in layer]
        assert names[0] == names[-1] is not None
        assert names[1:-1] == [None] * (len(layer) - 2)  # the one in the middle is alone
    assert [len(numbers) for numbers in tied.ties.values()] == [2] * 4
    assert tied.n_parameters == (2 + 1 + 2 + 1) * 6
    filled = tie_gates(brickwall(8, 2), by="mirror")
    # single wires at the ends of the shifted layer are one gate, too
    assert filled.n_parameters == (2 + 2) * 6 + 1
    assert tie_gates(brickwall(2, 3), by="mirror") == brickwall(2, 3)


def test_fixed_gates_are_not_tied():
    assert set(tie_gates(from_spec("2b + CNOT + 1b", 4), by="mirror").ties) == {
        "0.0:2b",
        "2.0:1b",
        "2.1:1b",
    }
    tied = tie_gates(from_spec("2b + CNOT + 1b", 4))
    assert set(tied.ties) == {"0:2b", "2:1b"}
    assert [tied.placements[j].fixed for group in tied.ties.values() for j in group] == [None] * 6


def test_errors():
    with pytest.raises(ValueError, match="fixed CNOT on wires .* cannot be tied"):
        Placement((0, 1), "CNOT", "a")
    with pytest.raises(ValueError, match=r"tied as 'a' have widths \[1, 2\]"):
        Ansatz(3, ((Placement((0, 1), tie="a"), Placement((2,), tie="a")),))
    with pytest.raises(ValueError, match="by='wire' is not known; use 'layer', 'parity' or"):
        tie_gates(brickwall(4, 2), by="wire")
    tied = tie_gates(brickwall(4, 2))
    with pytest.raises(ValueError, match="no closed form for tied gates"):
        disentangle(operator(), left=tied, method="sweeps")
    with pytest.raises(ValueError, match="the tied gate on wires .* init='identity'"):
        disentangle(operator(), left=tied, init="grown")
    with pytest.raises(ValueError, match="the gates are tied"):
        synthesise(np.eye(16), tied)
    with pytest.raises(ValueError, match="needs exact gradients"):
        disentangle(operator(), left=tied, engine="boundary")


@pytest.mark.parametrize("scale", [None, 0.1])
def test_random_and_trivial_circuits_are_tied(scale):
    ansatz = tie_gates(brickwall(6, 4), by="parity")
    circuit = random_circuit(ansatz, seed=0, scale=scale)
    assert_tied(circuit)
    assert_tied(circuit.projected())
    assert_tied(circuit.adjoint())
    assert_array_equal(identity_circuit(ansatz).to_dense(), np.eye(64))


@pytest.mark.parametrize("engine", ["dense", "transverse", "tree"])
@pytest.mark.parametrize(("group", "by"), [("SO", "layer"), ("U", "parity"), ("O", "mirror")])
def test_they_stay_tied(group, by, engine):
    left = tie_gates(brickwall(4, 3, group=group), by=by)
    options = {"n_init": 2, "init_sweeps": 2, "max_sweeps": 4, "engine": engine}
    found = disentangle(operator(4, group == "U"), left=left, **options)
    circuits = (found.factorization.left, found.factorization.right)
    for circuit in circuits:
        assert_tied(circuit)
    assert found.options.init == "identity"
    for start in (0, 1):
        losses = found.history.column("loss", init=start)
        assert max(np.diff(losses)) <= 1e-12
        assert losses[-1] < losses[0] - 1e-3
    parts = found.factorization.parameter_counts()
    assert parts["left gates"] == left.n_parameters < brickwall(4, 3, group=group).n_parameters


def test_the_optimum_is_one_of_the_shared_gates():
    mpo, left = operator(), tie_gates(brickwall(4, 2))
    options = {"core": "fixed", "n_init": 1, "init_scale": 0.0, "max_sweeps": 100, "tol": 0.0}
    found = disentangle(mpo, left=left, **options)
    q = found.factorization
    for numbers in left.ties.values():
        size = len(q.left.gates[numbers[0]])
        for k in range(3):
            kick = exponential(1e-3 * skew(random_matrix((size, size), seed=k)))
            gates = list(q.left.gates)
            for j in numbers:
                gates[j] = gates[j] @ kick
            moved = Factorization(Circuit(left, tuple(gates)), q.core, q.right, q.shape)
            assert moved.overlap(mpo) <= found.overlap + 1e-10


def test_a_hidden_tied_circuit_is_found():
    ansatz = tie_gates(brickwall(4, 2), by="parity")
    hidden = [random_circuit(a, seed=3, scale=0.3) for a in (ansatz, ansatz.reversed())]
    core = mpo_from_tensors([random_matrix((2, 2), seed=k).reshape(1, 2, 2, 1) for k in range(4)])
    matrix = Factorization(hidden[0], core, hidden[1], (16, 16)).to_dense()
    found = disentangle(compress(matrix), left=ansatz, n_init=4)
    assert 1 - found.overlap < 1e-6


def test_files_keep_ties(tmp_path):
    ansatz = tie_gates(brickwall(4, 3))
    circuit = random_circuit(ansatz, seed=1)
    core = mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * 4)
    Factorization(circuit, core, circuit.adjoint(), (16, 16)).save(tmp_path / "f.safetensors")
    back = load_factorization(tmp_path / "f.safetensors")
    assert back.left.ansatz == ansatz
    assert_allclose(circuit_matrix(back.left), circuit_matrix(circuit), atol=0)


def test_a_given_start_is_tied_or_refused():
    mpo, wall = operator(), brickwall(4, 2)
    tied = tie_gates(wall)
    core = mpo_from_tensors([np.eye(2).reshape(1, 2, 2, 1)] * 4)
    loose = Circuit(tied, random_circuit(wall, seed=0).gates)
    given = Factorization(loose, core, identity_circuit(tied.reversed()), (16, 16))
    with pytest.raises(ValueError, match="different gates on the left tied as 0:2b"):
        disentangle(mpo, left=tied, init=given)
    first = disentangle(mpo, left=tied, n_init=1, max_sweeps=2)
    again = disentangle(mpo, left=tied, init=first, n_init=2, init_sweeps=2, max_sweeps=4)
    assert_tied(again.factorization.left)
    assert again.overlap > first.overlap
