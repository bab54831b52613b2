"""Trained circuits in torch against their dense twins."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.linalg import expm

from mpodis import gates
from mpodis.circuit.ansatz import Ansatz, Placement, brickwall, staircase, tie_gates
from mpodis.circuit.circuit import random_circuit
from mpodis.circuit.spec import from_spec
from mpodis.gates import Gate, gate_parameters, register_gate
from mpodis.nn import CircuitLayer, exponentials
from mpodis.nn.circuit_layer import BLOCK_WIRES, _Block, _schedule
from reference import random_matrix


def layers(*places, n, group="SO"):
    """An ansatz of layers, each a list of wires or of pairs (name of a fixed gate, wires)."""
    made = [
        tuple(
            Placement(one[1], one[0]) if isinstance(one[0], str) else Placement(one)
            for one in layer
        )
        for layer in places
    ]
    return Ansatz(n, tuple(made), group)


CASES = {
    "brickwall": brickwall(5, 6),
    "odd": brickwall(5, 3, parity=1, fill=False),
    "one wire": brickwall(1, 2, 1),
    "3-body": brickwall(5, 3, 3),
    "4-body": brickwall(6, 2, 4),
    "6-body": brickwall(6, 1, 6),
    "staircase": staircase(4, 2),
    "paper": from_spec("1b + CNOT + 1b + 5*CNOT", 5),
    "CNOT beside free gates": from_spec("2b + CNOT + 2b + CNOT + CNOT", 4),
    "only CNOTs": from_spec("3*CNOT", 4),
    "no gates": Ansatz(3, ()),
    "O": brickwall(4, 3, group="O"),
    "U": brickwall(4, 3, group="U"),
    "complex 1- and 3-body": from_spec("1b + 3b + CNOT + 1b", 4, group="U"),
    "tied": tie_gates(brickwall(5, 4)),
    "CZ and SWAP": from_spec("2b + CZ + SWAP + 1b + CZ", 5),
    "iSWAP and ECR": from_spec("2b + iSWAP + ECR + SWAP", 5, group="U"),
    "only complex fixed gates": from_spec("iSWAP + ECR", 4, group="U"),
    "within a block": layers([(0, 2)], [(2, 0), (1, 3)], [(3, 1, 0)], n=4),
    "apart": layers([(0, 5), (1, 2)], [(5, 1), (4, 0)], [(1, 2), (3, 4)], n=6),
    "three apart": layers([(5, 0, 3)], [(0, 1), (2, 3)], [(1, 4, 2)], n=6),
    "wide in another order": layers([(4, 2, 0, 1, 3)], [(0, 1)], n=6),
    "CNOTs apart": layers(
        [("CNOT", (5, 0)), ("CNOT", (1, 3))], [(0, 1)], [("CNOT", (4, 1)), (2, 3)], n=6
    ),
    "fixed gates apart": layers(
        [(0, 1), ("CZ", (2, 5))], [("iSWAP", (5, 0))], [(3, 2)], [("SWAP", (2, 0))], n=6, group="U"
    ),
    "one wire between": layers([(1,)], [(0, 2)], [(1, 3)], [(1,)], [(4, 2)], n=5),
}
every_case = pytest.mark.parametrize("ansatz", CASES.values(), ids=CASES)


def trained(ansatz, **options):
    return CircuitLayer(ansatz, **({"dtype": torch.float64, "seed": 0} | options))


def moved(circuit, seed=0):
    """The generators somewhere else, as after some steps."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in circuit.parameters():
            p.normal_(0.0, 0.7, generator=generator)
    return circuit


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("d", [2, 4, 8])
def test_exponentials_are_those_of_the_skew_matrices(d, is_complex):
    below = d * (d - 1) // 2
    numbers = random_matrix((3, d * d if is_complex else below), seed=d)
    wanted = []
    for one in numbers:
        matrix = np.zeros((d, d), dtype=complex if is_complex else float)
        rows, columns = np.tril_indices(d, -1)
        matrix[rows, columns] = one[:below]
        if is_complex:
            matrix[rows, columns] += 1j * one[below : 2 * below]
        matrix = matrix - matrix.conj().T
        if is_complex:
            matrix += 1j * np.diag(one[2 * below :])
        wanted.append(expm(matrix))
    found = exponentials(torch.from_numpy(numbers), is_complex=is_complex)
    assert_allclose(found.numpy(), wanted, atol=1e-12)


@pytest.mark.parametrize("d", [2, 4, 8])
def test_exponentials_have_a_slope_at_zero(d):
    zero = torch.zeros(1, d * (d - 1) // 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exponentials, (zero,))
    assert_allclose(exponentials(zero).detach().numpy(), [np.eye(d)], atol=1e-15)


@every_case
def test_it_is_its_circuit(ansatz):
    layer = moved(trained(ansatz))
    circuit = layer.circuit()
    q = circuit.to_dense()
    assert circuit.ansatz == ansatz
    assert_allclose(q.conj().T @ q, np.eye(len(q)), atol=1e-12)
    assert_allclose(layer.to_dense().detach().numpy(), q, atol=1e-12)
    x = random_matrix((2, 3, len(q)), ansatz.group == "U")
    y = layer(torch.from_numpy(x)).detach().numpy()
    assert_allclose(y, x @ q, atol=1e-12)
    column = torch.from_numpy(x[0].T)
    assert_allclose(layer.matmul(column).detach().numpy(), q @ x[0].T, atol=1e-12)
    assert sum(p.numel() for p in layer.parameters()) == ansatz.n_parameters


@every_case
def test_given_gates_are_there_before_the_first_step(ansatz):
    circuit = random_circuit(ansatz, seed=3)
    layer = trained(circuit)
    assert_allclose(layer.to_dense().detach().numpy(), circuit.to_dense(), atol=1e-12)
    assert all(not p.any() for p in layer.parameters())


@every_case
def test_every_gate_is_in_one_block_and_blocks_are_no_wider_than_they_may(ansatz):
    found = [item for item in _schedule(ansatz) if isinstance(item, _Block)]
    numbers = sorted(j for item in found for j, _ in item.gates)
    free = [j for j, place in enumerate(ansatz.placements) if place.fixed is None]
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) >= set(free)
    widest = max((p.width for p in ansatz.placements), default=0)
    assert all(len(item.wires) <= max(BLOCK_WIRES, widest) for item in found)


def test_fixed_gates_of_a_user(monkeypatch):
    """A rotation that is no permutation, a permutation of states, and one wider than a block."""
    monkeypatch.setattr(gates, "_REGISTRY", dict(gates._REGISTRY))
    rng = np.random.default_rng(0)
    wide = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    register_gate(Gate("Turn", np.linalg.qr(rng.normal(size=(4, 4)))[0]))
    register_gate(Gate("Cycle", np.eye(8)[[3, 0, 1, 2, 7, 5, 6, 4]]))
    register_gate(Gate("Wide", wide))
    register_gate(Gate("Phase", np.diag(np.exp(1j * np.arange(4)))))
    real = layers(
        [("Turn", (3, 1)), (0, 2)],
        [("Cycle", (5, 0, 2)), ("Cycle", (1, 3, 4))],
        [("Turn", (0, 5)), (1, 2)],
        [("Wide", (1, 2, 3, 4, 5))],
        [("Cycle", (4, 1, 5)), (2, 3)],
        [("Wide", (5, 0, 3, 2, 1))],
        n=6,
    )
    is_complex = layers([("Phase", (4, 0)), (1, 2)], [("Turn", (0, 1))], n=5, group="U")
    for ansatz in (real, is_complex):
        layer = moved(trained(ansatz))
        assert_allclose(layer.to_dense().detach(), layer.circuit().to_dense(), atol=1e-12)
    # a module in single precision that is cast has its fixed gates in double precision
    cast = moved(trained(real, init_scale=0.1, dtype=torch.float32).double())
    assert_allclose(cast.to_dense().detach(), cast.circuit().to_dense(), atol=1e-12)


def test_free_gates_at_a_distance_take_two_permutations_and_a_product():
    assert trained(layers([(0, 5)], n=6)).n_steps == 3
    # the permutation back and the one to the next gate are one
    assert trained(layers([(0, 5)], [(5, 1)], n=6)).n_steps == 5
    assert trained(layers([("SWAP", (0, 5))], [("CNOT", (5, 1)), (2, 3)], n=6)).n_steps == 2
    assert trained(layers([(0, 3)], [(2, 0)], n=6)).n_steps == 1


def test_a_run_of_cnots_is_one_permutation():
    assert trained(from_spec("5*CNOT", 6)).n_steps == 1
    assert trained(from_spec("1b + CNOT + 1b + 5*CNOT", 4)).n_steps == 4


@pytest.mark.parametrize("name", ["brickwall", "3-body", "paper", "O", "tied"])
def test_the_gradient_is_that_of_the_matrix(name):
    layer = moved(trained(CASES[name]))
    wanted = torch.from_numpy(random_matrix((2**layer.n,) * 2))
    first, *_ = layer.parameters()

    def value(numbers):
        with torch.no_grad():
            before = first.clone()
            first.copy_(numbers)
        result = (layer.to_dense() * wanted).sum()
        with torch.no_grad():
            first.copy_(before)
        return result.item()

    (layer.to_dense() * wanted).sum().backward()
    numbers = first.detach().clone()
    for k in range(0, numbers.numel(), 5):
        step = torch.zeros_like(numbers).view(-1)
        step[k] = 1e-6
        step = step.view_as(numbers)
        slope = (value(numbers + step) - value(numbers - step)) / 2e-6
        assert_allclose(first.grad.view(-1)[k], slope, rtol=1e-5, atol=1e-7)


def test_gates_stay_orthogonal_while_they_are_trained():
    layer = CircuitLayer(brickwall(3, 1), init_scale=0.1, seed=0)  # on one wire and on two
    wanted = torch.from_numpy(random_matrix((8, 8))).float()
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(100):
        optimizer.zero_grad()
        loss = -(layer.to_dense() * wanted).sum()
        loss.backward()
        optimizer.step()
    for stack in layer.stacks().values():
        one = torch.eye(stack.shape[-1]).expand_as(stack)
        assert (stack.mT @ stack - one).abs().max() < 1e-6


def test_starts():
    near = trained(brickwall(4, 2), init_scale=0.01).to_dense() - torch.eye(16)
    assert 0 < near.abs().max() < 0.1
    haar = trained(brickwall(4, 2)).to_dense()
    assert (haar - torch.eye(16)).abs().max() > 0.5
    assert torch.equal(haar, trained(brickwall(4, 2)).to_dense())
    assert not torch.equal(haar, trained(brickwall(4, 2), seed=1).to_dense())
    assert gate_parameters(2, "SO") == 6


def test_frozen_gates_are_buffers():
    layer = trained(brickwall(3, 2), trainable=False)
    assert not list(layer.parameters())
    assert "generators.2" in layer.state_dict()


def test_what_cannot_be():
    with pytest.raises(TypeError, match=r"dtype=torch.float16 is not a type of trained gates"):
        CircuitLayer(brickwall(2, 1), dtype=torch.float16)
    with pytest.raises(ValueError, match=r"x of shape \(3, 4\) must have 8 amplitudes"):
        trained(brickwall(3, 1))(torch.zeros(3, 4, dtype=torch.float64))
