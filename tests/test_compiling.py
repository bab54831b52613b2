"""`compile_unitary` and `compile_state` against dense algebra."""

import signal
import time

import numpy as np
import pytest
import quimb.tensor as qtn
from numpy.testing import assert_allclose, assert_array_equal
from qiskit.quantum_info import Operator, Statevector
from scipy.linalg import expm

import mpodis.compiling as module
from mpodis import (
    Ansatz,
    Circuit,
    brickwall,
    compile_state,
    compile_unitary,
    evolution,
    pauli_chain,
    random_circuit,
    staircase,
    tie_gates,
    trotter,
    true_loss,
)
from mpodis.circuit import circuit_to_quimb
from mpodis.compile_targets import state_target, unitary_target
from mpodis.factorization import Factorization
from mpodis.optimise import compile_search
from mpodis.quantum import to_qiskit
from mpodis.quantum.state_preparation import prepare_from_zero
from mpodis.sites import mpo_from_tensors
from reference import circuit_matrix, random_member

HIDDEN = random_circuit(brickwall(4, 6, group="U"), seed=3)
U = circuit_matrix(HIDDEN).T  # on kets
PSI = U[:, 0]
HAAR = random_member(16, "U", seed=2)
TERMS = pauli_chain(5, ZZ=1.0, XY=0.3, X=0.75, Z=0.2)
H = {"ZZ": 1.0, "X": 0.75}


def evolved(terms, n, t):
    """exp(-i t H)"""
    h = sum(
        np.kron(np.kron(np.eye(2 ** wires[0]), x), np.eye(2 ** (n - 1 - wires[-1])))
        for wires, x in terms.items()
    )
    return expm(-1j * t * h)


TARGETS = {
    # target, its dense form, options
    "dense unitary": lambda: (U, U, {"depth": 3}),
    "dense real": lambda: (r := random_member(8, "SO", seed=2), r, {"depth": 3, "group": "SO"}),
    "MPO": lambda: (qtn.MatrixProductOperator.from_dense(U, dims=2), U, {"depth": 2}),
    "Circuit": lambda: (HIDDEN, U, {"depth": 4}),
    "quimb Circuit": lambda: (circuit_to_quimb(HIDDEN), U, {"ansatz": "2b + CNOT + 2b"}),
    "Qiskit circuit": lambda: (to_qiskit(HIDDEN), U, {"ansatz": staircase(4, 2, group="U")}),
    "Evolution": lambda: (evolution(TERMS, 0.5, error=1e-15), evolved(TERMS, 5, 0.5), {"depth": 5}),
    "boundary engine": lambda: (
        evolution(TERMS, 0.5, error=1e-15),
        evolved(TERMS, 5, 0.5),
        {"depth": 3, "engine": "boundary"},
    ),
    "one qubit": lambda: (np.diag([1, 1j]), np.diag([1, 1j]), {"depth": 1}),
    "dense state": lambda: (3j * PSI, 1j * PSI, {"depth": 2}),
    "real state": lambda: (
        v := np.cos(np.arange(16.0)),
        v / np.linalg.norm(v),
        {"depth": 2, "group": "SO"},
    ),
    "MPS": lambda: (qtn.MatrixProductState.from_dense(PSI), PSI, {"depth": 2}),
    "state of a circuit": lambda: (to_qiskit(HIDDEN), PSI, {"ansatz": staircase(4, 1, group="U")}),
    "boundary engine, state": lambda: (PSI, PSI, {"depth": 2, "engine": "boundary"}),
    "one qubit state": lambda: (np.array([3.0, 4j]), np.array([0.6, 0.8j]), {"depth": 1}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_the_result_is_what_it_says(name):
    target, wanted, options = TARGETS[name]()
    is_state = wanted.ndim == 1
    found = (compile_state if is_state else compile_unitary)(target, **options)
    assert found.kind == ("state" if is_state else "unitary")
    rows = found.circuit.to_dense()
    ours = rows[0] if is_state else rows.T
    size = 1 if is_state else len(wanted)
    c = np.vdot(wanted, ours) / size
    assert c.real > 0
    assert_allclose(c.imag, 0, atol=1e-10)
    loss = np.linalg.norm(ours - wanted) ** 2 / size / 2
    assert_allclose(found.loss, loss, rtol=1e-6, atol=1e-13)
    assert_allclose(found.infidelity, loss * (2 - loss), rtol=1e-6, atol=1e-13)
    for gate in found.circuit.gates:
        assert_allclose(gate @ gate.conj().T, np.eye(len(gate)), atol=1e-12)
    assert_allclose(circuit_matrix(found.circuit), rows, atol=1e-12)
    if is_state:
        assert_allclose(Statevector(found.to_qiskit()).data, ours, atol=1e-12)
        assert_allclose(found.to_quimb().to_dense().ravel(), ours, atol=1e-12)
    else:
        assert_allclose(Operator(found.to_qiskit()).data, ours, atol=1e-12)
        assert_allclose(found.to_quimb().uni.to_dense(), ours, atol=1e-12)
    assert name.split(",")[0] != "boundary engine" or found.engine == "boundary"
    assert f"{found.loss:.4g}" in str(found)
    assert len(found.history.column("loss")) == len(found.history)
    assert found.start in str(found.history)


def test_small_losses_are_precise_and_fall_with_depth():
    terms, before = pauli_chain(6, **H), 1.0
    exact = evolved(terms, 6, 0.2)
    for depth in range(2, 6):
        start = trotter(terms, 0.2, "fitted", layers=depth)
        found = compile_unitary(exact, start=start)
        loss = np.linalg.norm(found.circuit.to_dense().T - exact) ** 2 / 2**7
        assert_allclose(found.loss, loss, rtol=1e-5 if loss > 1e-10 else 1e-3)
        assert abs(found.loss - loss) < found.loss_error + 1e-16
        assert found.loss <= max(before, 2e-13)
        before = found.loss
    assert before < 1e-10


def test_an_evolution_is_compared_with_trotter():
    terms, t = pauli_chain(6, **H), 0.4
    exact, target = evolved(terms, 6, t), evolution(terms, t)
    before, goal = 1.0, 1e-9
    for depth in range(2, 7):
        found = compile_unitary(target, depth=depth, goal=goal)
        assert found.loss <= max(before, goal)
        before = found.loss
        if depth < 3:
            assert np.isnan(found.trotter_loss)
            assert found.trotter_layers is None
            continue
        formula = trotter(terms, t, 2, layers=depth - 1 + depth % 2).to_dense().T
        overlap = abs(np.vdot(exact, formula)) / 2**6
        assert_allclose(found.trotter_loss, 1 - overlap, rtol=1e-3)
    few = compile_unitary(target, depth=3, max_iterations=20)
    layers = few.trotter_layers
    losses = [
        1 - abs(np.vdot(exact, trotter(terms, t, 2, layers=k).to_dense().T)) / 2**6
        for k in (layers - 4, layers)
    ]
    assert losses[1] < 1.2 * few.loss < 1.2 * losses[0]


@pytest.mark.no_cover  # long; searches with the same lines are traced
@pytest.mark.parametrize("group", ["SO", "U"])
@pytest.mark.parametrize("parity", [0, 1])
@pytest.mark.parametrize("n", [4, 5, 6])
def test_planted_circuits_are_found(n, parity, group):
    hidden = random_circuit(brickwall(n, 3, parity=parity, group=group), seed=n)
    found = compile_unitary(circuit_matrix(hidden).T, depth=3, group=group)
    assert found.status == "exact"
    assert found.loss < 1e-12
    assert found.circuit.ansatz == hidden.ansatz


@pytest.mark.no_cover  # long; searches with the same lines are traced
@pytest.mark.parametrize(("depth", "parity"), [(6, 0), (6, 1), (8, 0)])
def test_deep_planted_circuits_are_found(depth, parity):
    # about every fifth initial guess leads there
    hidden = random_circuit(brickwall(6, depth, parity=parity, group="U"), seed=1)
    found = compile_unitary(circuit_matrix(hidden).T, depth=depth)
    assert found.status == "exact"
    assert found.circuit.ansatz == hidden.ansatz


def test_a_planted_state_is_found():
    hidden = random_circuit(brickwall(6, 2, group="SO"), seed=0)
    found = compile_state(circuit_matrix(hidden)[0], depth=2, group="SO")
    assert (found.status, found.loss < 1e-12) == ("exact", True)


@pytest.mark.parametrize(
    ("group", "parity", "depth"), [("U", 0, 2), ("SO", 0, 3), ("U", 1, 2), ("U", 1, 4), ("O", 1, 2)]
)
def test_the_cnots_of_a_state_are_those_that_qiskit_counts(group, parity, depth):
    ansatz = brickwall(5, depth, parity=parity, group=group)
    hidden = random_circuit(ansatz, seed=1)
    found = compile_state(hidden.to_dense()[0], ansatz=ansatz, start=hidden)
    assert found.n_cnots < found.circuit.ansatz.n_cnots
    cost = found.gate_cost(optimization_level=1)
    assert cost.two_qubit == found.n_cnots
    assert found.cnot_depth == cost.two_qubit_depth


def test_a_product_state_takes_no_cnots():
    vectors = np.random.default_rng(0).normal(size=(4, 2))
    psi = np.array([1.0])
    for vector in vectors:
        psi = np.kron(psi, vector / np.linalg.norm(vector))
    found = compile_state(psi, depth=1, group="SO")
    assert (found.n_cnots, found.cnot_depth) == (0, 0)
    prepared = Statevector(prepare_from_zero(found.circuit)).data
    assert_allclose(prepared, found.circuit.to_dense()[0], atol=1e-6)


@pytest.mark.parametrize("compile_it", [compile_unitary, compile_state])
def test_the_global_phase_of_the_target_does_not_matter(compile_it):
    target = U if compile_it is compile_unitary else PSI
    options = {"depth": 2, "start": "identity", "max_iterations": 20}
    found = compile_it(target, **options)
    for phase in (1j, np.exp(2.5j)):
        turned = compile_it(phase * target, **options)
        assert_allclose(turned.loss, found.loss, rtol=1e-6)
        rows = slice(None, 1) if found.kind == "state" else slice(None)
        expected = phase * found.circuit.to_dense()[rows]
        assert_allclose(turned.circuit.to_dense()[rows], expected, atol=1e-3)


def test_tied_gates_stay_tied():
    ansatz = tie_gates(brickwall(4, 3, group="U"))
    found = compile_unitary(np.exp(2j) * U, ansatz=ansatz, max_iterations=20, n_init=1)
    for numbers in ansatz.ties.values():
        for j in numbers:
            assert_array_equal(found.circuit.gates[j], found.circuit.gates[numbers[0]])
    c = np.vdot(np.exp(2j) * U, found.circuit.to_dense().T) / 16
    assert_allclose([c.real, c.imag], [found.overlap, 0], atol=1e-10)


def test_the_same_seed_gives_the_same_gates():
    first, again, other = (
        compile_unitary(U, depth=2, seed=seed, start="random", n_init=1, max_iterations=20)
        for seed in (5, 5, 6)
    )
    for x, y in zip(first.circuit.gates, again.circuit.gates, strict=True):
        assert_array_equal(x, y)
    assert first.loss != other.loss


# --- starts


def first_loss(found):
    return found.history.column("loss")[0]


def test_a_circuit_goes_on_where_it_ended():
    found = compile_unitary(U, depth=3, start="identity", max_iterations=20)
    assert found.status == "max_iterations"
    turned = Circuit(found.circuit.ansatz, (1j * found.circuit.gates[0], *found.circuit.gates[1:]))
    starts = (found, found.circuit, turned, found.to_quimb(), found.to_qiskit())
    for start in starts:
        further = compile_unitary(U, start=start, max_iterations=20)
        assert_allclose(first_loss(further), found.loss, rtol=1e-10)
        assert further.loss < found.loss


@pytest.mark.parametrize("parity", [0, 1])
def test_fewer_layers_begin_a_deeper_circuit(parity):
    layout = brickwall(4, 3, parity=parity, group="U")
    found = compile_unitary(U, ansatz=layout, start="identity", max_iterations=20)
    for depth in (3, 4, 5):
        deeper = compile_unitary(U, start=found, depth=depth, max_iterations=20)
        assert deeper.circuit.ansatz == brickwall(4, depth, parity=parity, group="U")
        assert_allclose(first_loss(deeper), found.loss, rtol=1e-10)
        assert deeper.loss < found.loss


def test_fewer_wires_are_repeated():
    small, large = (evolution(pauli_chain(n, **H), 0.3, error=1e-13) for n in (6, 10))
    found = compile_unitary(small, depth=3)
    wide = compile_unitary(large, start=found, max_iterations=1)
    per_site = first_loss(wide) / 10 / (found.loss / 6)
    assert 0.5 < per_site < 5
    assert wide.circuit.ansatz == brickwall(10, 3, group="U")
    shifted = random_circuit(brickwall(6, 2, parity=1, group="U"), seed=0, scale=0.1)
    wide = compile_unitary(large, start=shifted, max_iterations=1)
    assert wide.circuit.ansatz == brickwall(10, 2, parity=1, group="U")


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("identity", "near the identity (0.05)"),
        ("random", "random gates"),
        ("trotter", "a fitted product formula"),
        ("auto", "a fitted product formula"),
    ],
)
def test_initial_guesses_by_name(start, name):
    target = evolution(TERMS, 0.5)
    found = compile_unitary(target, depth=3, start=start, max_iterations=50)
    assert found.start == name
    begun = {"identity": (0.1, 1.0), "random": (0.7, 1.0)}.get(start, (0, found.trotter_loss))
    assert begun[0] < first_loss(found) < begun[1]
    assert found.loss < 1e-3


REAL = random_circuit(brickwall(4, 2, group="SO"), seed=4)


@pytest.mark.parametrize("group", ["O", "U", None])
def test_a_start_is_taken_into_the_group_that_is_asked_for(group):
    target = circuit_matrix(random_circuit(brickwall(4, 3), seed=1)).T
    for depth in (None, 3):
        found = compile_unitary(target, start=REAL, depth=depth, group=group, max_iterations=10)
        assert found.circuit.ansatz == brickwall(4, depth or 2, group=group or "SO")
        overlap = abs(np.vdot(target, circuit_matrix(REAL).T)) / 16
        assert_allclose(first_loss(found), 1 - overlap, rtol=1e-10)


# --- limits


def test_the_time_limit_is_kept():
    target = evolution(pauli_chain(24, **H), 0.5)
    for options in ({"start": "trotter"}, {"start": "identity"}):
        began, spent = time.perf_counter(), time.process_time()
        found = compile_unitary(target, depth=7, max_seconds=0.6, **options)
        assert found.status == "max_seconds"
        assert time.process_time() - spent < 10.0  # without a limit more than a minute
        assert abs(found.seconds - (time.perf_counter() - began)) < 0.5


def test_a_search_with_time_left_goes_on_from_kicks():
    options = {"depth": 3, "start": "random", "n_init": 1, "tol": 0.02, "seed": 2}
    alone = compile_unitary(HAAR, **options)
    found = compile_unitary(HAAR, **options, max_seconds=1e6)
    assert (alone.status, found.status) == ("converged", "converged")
    assert_array_equal(
        found.history.column("loss")[: len(alone.history)], alone.history.column("loss")
    )
    assert found.loss < alone.loss - 1e-3
    assert_allclose(found.loss, found.history.column("loss").min(), atol=1e-9)
    assert len(found.history) >= 3 * len(alone.history)


def test_little_time_is_not_spent_on_initial_guesses(monkeypatch):
    monkeypatch.setattr(compile_search, "EXPLORING_SHARE", 0.0)
    found = compile_unitary(HAAR, depth=3, n_init=4, max_seconds=1e6)
    records = found.history.records
    # four, one with the other parity, and the best of them
    assert [record["phase"] for record in records[:7]] == ["init"] * 6 + ["sweep"]
    assert records[5]["loss"] == min(record["loss"] for record in records[:5])


def test_a_goal_ends_the_search():
    found = compile_unitary(evolution(TERMS, 0.5), depth=5, goal=1e-5)
    assert found.status == "exact"
    assert 1e-9 < found.loss <= 1e-5


@pytest.fixture
def _ctrl_c_raises():
    """Processes that a script has put into the background ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_raises")
@pytest.mark.parametrize("count", [1, 8])
def test_ctrl_c_returns_the_best_circuit_so_far(count, monkeypatch, caplog):
    records = module.CompileSearch.run

    def interrupted(self, guesses):
        for k, record in enumerate(records(self, guesses)):
            if k == count - 1:
                signal.raise_signal(signal.SIGINT)
            yield record

    monkeypatch.setattr(module.CompileSearch, "run", interrupted)
    found = compile_unitary(U, depth=3)
    assert found.status == "interrupted"
    assert len(found.history) == count
    assert_allclose(found.loss, found.history.column("loss").min(), rtol=1e-6)
    loss = np.linalg.norm(found.circuit.to_dense().T - U) ** 2 / 2**5
    assert_allclose(found.loss, loss, rtol=1e-6)
    assert "start=<this result> goes on" in str(found)
    assert "press Ctrl-C again to stop at once" in caplog.text
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- many sites


@pytest.fixture
def _nothing_is_dense(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an array of 2^n was asked for")

    for kind in (Circuit, qtn.MatrixProductOperator, qtn.MatrixProductState):
        monkeypatch.setattr(kind, "to_dense", refuse)
    monkeypatch.setattr(module, "tensors_to_dense", refuse)


def independent(found, target, max_bond):
    """The loss of a result, measured as that of a factorization with an identity core."""
    n, is_state = found.circuit.n, found.kind == "state"
    core = [np.eye(1 if is_state else 2, 2).reshape(1, -1, 2, 1)] * n
    none = Circuit(Ansatz(0 if is_state else n, (), "U"), ())
    left, right = (none, found.circuit) if is_state else (found.circuit, none)
    tensors = (state_target if is_state else unitary_target)(target)
    shape = (1 if is_state else 2**n, 2**n)
    whole = Factorization(left, mpo_from_tensors(core), right, shape)
    return true_loss(whole, mpo_from_tensors(tensors), max_bond=max_bond)


@pytest.mark.usefixtures("_nothing_is_dense")
def test_a_long_chain_of_a_unitary_never_becomes_dense():
    target = evolution(pauli_chain(24, **H), 0.4, error=1e-10)
    found = compile_unitary(target, depth=3, max_bond=32, max_iterations=20)
    assert found.engine == "transverse"  # of L-BFGS; the sweeps are on the boundary engine
    assert found.loss < 1e-2 * found.trotter_loss
    again = independent(found, target, 64)
    assert_allclose(again.up_to_phase, found.loss, atol=2 * found.loss_error, rtol=1e-4)
    assert_allclose(again.loss, found.loss, rtol=1e-4)  # the phase is the target's


@pytest.mark.usefixtures("_nothing_is_dense")
def test_a_long_state_never_becomes_dense():
    hidden = random_circuit(brickwall(30, 2, group="U"), seed=1, scale=0.4)
    first, *rest, last = (x[:, 0] for x in state_target(hidden))  # (left bond, output, right bond)
    target = qtn.MatrixProductState([first[0], *rest, last[..., 0]], shape="lpr")
    found = compile_state(target, depth=2, max_bond=32, max_iterations=100)
    assert found.engine == "boundary"
    assert found.loss < 1e-6
    assert_allclose(independent(found, target, 64).up_to_phase, found.loss, rtol=1e-2, atol=1e-13)


def test_a_bond_that_is_too_small_is_named():
    target = evolution(pauli_chain(8, **H), 1.0)
    call = {"depth": 5, "engine": "boundary", "max_iterations": 5, "start": "trotter"}
    found = compile_unitary(target, **call, max_bond=4)
    (remark,) = found.remarks
    assert "max_bond=4 truncates what the search computes" in remark
    assert "raise max_bond=" in remark
    assert remark in str(found)
    assert not compile_unitary(target, **call, max_bond=8).remarks  # as many as are needed


def test_the_goal_of_long_states_is_not_rounding():
    hidden = random_circuit(brickwall(14, 3, group="U"), seed=2, scale=0.3)
    near = random_circuit(hidden.ansatz, seed=1, scale=0.05)
    start = Circuit(
        hidden.ansatz, tuple(x @ y for x, y in zip(hidden.gates, near.gates, strict=True))
    )
    found = compile_state(hidden, start=start)
    assert found.status == "exact"
    assert found.loss <= 1e-8
    finer = compile_state(hidden, start=found, goal=1e-11)
    assert finer.loss <= 1e-11 < found.loss


# --- determinants


@pytest.mark.parametrize(
    ("n", "group", "remedy"), [(1, "SO", "O"), (2, "SO", "O"), (3, "SO", "U"), (3, "O", "U")]
)
def test_a_determinant_that_the_gates_cannot_have_is_named(n, group, remedy):
    flip = np.diag([1.0] * (2**n - 1) + [-1])
    found = compile_unitary(flip, depth=1, group=group, max_iterations=50)
    assert found.loss > 2 / 2**n - 1e-9
    (remark,) = found.remarks
    assert "the target has determinant -1" in remark
    assert f"use group={remedy!r}" in remark
    assert remark in str(found)
    assert not compile_unitary(flip, depth=1, group=remedy, max_iterations=5).remarks
    assert not compile_unitary(np.eye(2**n), depth=1, group=group).remarks


# --- what is refused

SMALL = random_circuit(brickwall(4, 3, group="U"), seed=1)
REFUSED = {
    "not unitary": (2 * U, {"depth": 2}, "not unitary: .*`disentangle` is for general operators"),
    "complex": (U, {"depth": 2, "group": "SO"}, "the target is complex and .*use group='U'"),
    "complex start": (np.eye(16), {"depth": 3, "group": "O", "start": SMALL}, "complex gates, wh"),
    "not square": (U[:8], {"depth": 2}, r"shape \(8, 16\); a unitary on qubits is 2\^n x 2\^n"),
    "a vector": (PSI, {"depth": 2}, r"shape \(16,\); a unitary on qubits is"),
    "group": (U, {"depth": 2, "group": "SU"}, "group='SU' is not known; use one of SO, O, U"),
    "more wires": (U[::2, ::2], {"start": SMALL}, "not unitary"),
    "a wide start": (np.eye(4), {"start": SMALL}, "the start has 4 wires, more than the target"),
    "a deep start": (
        U,
        {"depth": 2, "start": SMALL},
        "the start has 3 layers, the ansatz only 2, .*use depth=3",
    ),
    "a start in another group": (
        np.eye(16),
        {"start": SMALL, "group": "SO"},
        "the start has complex gates, which are not in group='SO'; use group='U'",
    ),
    "a start of determinant -1": (
        np.eye(16),
        {"depth": 1, "start": random_circuit(brickwall(4, 1, group="O"), seed=3), "group": "SO"},
        "the start has gates of determinant -1, which are not in group='SO'; use group='O'",
    ),
    "an ansatz in another group": (
        U,
        {"ansatz": brickwall(4, 2, group="U"), "group": "O"},
        "group='O' was given for an ansatz in group 'U'; leave out group=, or give",
    ),
    "fewer wires and layers": (
        np.eye(64),
        {"depth": 5, "start": SMALL},
        "the start has 4 wires and 3 layers, the ansatz 6 and 5; repeat it with its own",
    ),
    "an odd difference": (
        np.eye(32),
        {"start": SMALL},
        "4 wires does not repeat on 5; begin with at least 4 wires, and an even number less",
    ),
    "another layout": (
        U,
        {"ansatz": staircase(4, 1, group="U"), "start": SMALL},
        "no placement for a gate on wires",
    ),
    "unknown start": (U, {"depth": 2, "start": "zero"}, "start='zero' is not known; use 'auto',"),
    "no start": (U, {"depth": 2, "start": None}, "start=NoneType is not a circuit"),
    "both": (U, {"depth": 2, "ansatz": brickwall(4, 2)}, "leave it out where ansatz= is given"),
    "neither": (U, {}, "give depth=, the number of layers, or ansatz=, or a circuit start="),
    "no Hamiltonian": (U, {"depth": 3, "start": "trotter"}, "give what `mpodis.evolution` returns"),
    "no formula": (
        evolution(TERMS, 0.1),
        {"ansatz": staircase(5, 1, group="U"), "start": "trotter"},
        "a product formula is a brickwall of 2-body gates in group 'U', .*use start='identity'",
    ),
    "another n": (U, {"ansatz": brickwall(5, 2)}, "^ansatz= has 5 wires, the operator 4"),
    "no ansatz": (U, {"ansatz": 5.5}, "^ansatz=5.5 is not a circuit; give an Ansatz"),
    "engine": (U, {"depth": 2, "engine": "network"}, "engine='network' is not known here; use"),
} | {
    f"{name}={value!r}": (U, {"depth": 2} | {name: value}, f"{name}={value!r} must be")
    for name, values in {
        "depth": (0, True, 1.5, -1, "2"),
        "n_init": (0, True),
        "max_iterations": (0, 2.0),
        "max_bond": (0,),
        "tol": (-1e-3, 1, np.nan, "small"),
        "goal": (-1e-3, 2),
        "max_seconds": (0, -1, np.inf, "1 h"),
    }.items()
    for value in values
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused_in_one_line(case, monkeypatch):
    target, options, text = REFUSED[case]

    def searched(*args):
        raise AssertionError("a search began")

    monkeypatch.setattr(module.CompileSearch, "run", searched)
    with pytest.raises((TypeError, ValueError), match=text) as caught:
        compile_unitary(target, **options)
    assert "\n" not in str(caught.value)


def test_a_state_needs_amplitudes_and_no_hamiltonian():
    with pytest.raises(ValueError, match=r"shape \(16, 16\); a state has 2\^n amplitudes"):
        compile_state(U, depth=2)
    with pytest.raises(TypeError, match="Evolution is not read as a state"):
        compile_state(evolution(TERMS, 0.1), depth=2)
    with pytest.raises(ValueError, match="start='trotter' needs the Hamiltonian"):
        compile_state(PSI, depth=2, start="trotter")
    with pytest.raises(ValueError, match="the target is complex and the gates are real"):
        compile_state(PSI, depth=2, group="SO")


def test_terms_that_no_gate_reaches_are_refused():
    with pytest.raises(ValueError, match=r"wires \(0, 2\) .*reorder the sites"):
        compile_unitary(evolution({(0, 2): np.eye(4)}, 0.1), depth=2)
