"""Targets against dense algebra, and their door for tables of TOML files."""

import subprocess
import sys
import tomllib

import numpy as np
import pytest
import scipy.linalg
import torch
from numpy.testing import assert_allclose, assert_array_equal

import mpodis
from mpodis import as_mpo, disentangle, entanglement, mpo_to_dense, save_mpo, site_tensors, targets
from mpodis.data import load_data
from mpodis.nn import train_dense, train_tnn
from mpodis.targets import (
    TARGETS,
    evolution_mpo,
    load_operator,
    make_target,
    planted_factorization,
    planted_mpo,
    random_matrix,
    random_mpo,
    trained_layer,
    trained_mpo,
    trotter_mpo,
)
from reference import circuit_matrix, dense_from_cores, spectra

EXAMPLES = {
    "random_mpo": {"n": 5, "max_bond": 3},
    "random_matrix": {"rows": 6, "columns": 5, "exponent": 0.5},
    "planted_mpo": {"n": 5, "depth": 2, "core_bond": 2},
    "evolution_mpo": {"n": 4, "terms": "ZZ=1, X=0.5", "t": 0.3},
    "trotter_mpo": {"n": 4, "terms": {"ZZ": 1.0, "X": 0.5}, "t": 0.3, "steps": 1},
    "load_operator": {"path": "w.npy"},
    "trained_layer": {"hidden": [8]},
    "trained_mpo": {"max_bond": 3},
    "compress": {"operator": {"kind": "random_matrix", "rows": 8, "columns": 8}, "max_bond": 2},
}
"""Arguments of every target, as TOML has them."""
RANDOM = ("random_mpo", "random_matrix", "planted_mpo")


def bits(operator):
    """All numbers of an operator."""
    if isinstance(operator, np.ndarray):
        return operator.tobytes()
    return b"".join(np.ascontiguousarray(x).tobytes() for x in site_tensors(as_mpo(operator)))


# --- random operators


@pytest.mark.parametrize(
    ("legs", "bond", "bonds"),
    [
        (((2, 2),) * 5, 5, [4, 5, 5, 4]),
        (((2, 2),) * 4, 100, [4, 16, 4]),
        (((2, 1),) * 6, 3, [2, 3, 3, 3, 2]),
        (((3, 2), (1, 1), (2, 3)), 9, [6, 6]),
        (((2, 2),), 4, []),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_a_random_mpo_has_norm_one_and_the_rank_of_its_bonds(legs, bond, bonds, dtype):
    mpo = random_mpo(len(legs), bond, legs=legs, dtype=dtype, seed=3)
    assert {str(x.dtype) for x in site_tensors(mpo)} == {dtype}
    dense = dense_from_cores(site_tensors(mpo))
    assert_allclose(np.linalg.norm(dense), 1, rtol=1e-6)
    found = [int((s > 1e-6).sum()) for s in spectra(dense, legs)]
    assert found == bonds == ([] if len(legs) == 1 else mpo.bond_sizes())


@pytest.mark.parametrize("n", [48, 400])
def test_many_sites_neither_overflow_nor_become_dense(n):
    mpo = random_mpo(n, 4, seed=1)
    assert_allclose(mpodis.log_norm(mpo), 0, atol=1e-12)
    assert max(np.abs(x).max() for x in site_tensors(mpo)) < 10
    assert entanglement(mpo).average < np.log(4)


@pytest.mark.parametrize(("leg", "chi"), [((2, 1), 48), ((2, 2), 32), ((4, 4), 32)])
def test_entanglement_of_random_mpos_is_that_of_free_gram_matrices(leg, chi):
    """Purity (D + 1) / ((D - 1) chi) in the middle, from both ends alike."""
    n, size = (26, 2) if leg == (2, 1) else (16, leg[0] * leg[1])
    found = []
    for seed in range(12):
        s = entanglement(random_mpo(n, chi, legs=[leg] * n, seed=seed)).spectra
        found.append([(s[k] ** 4).sum() * chi for k in (n // 2 - 2, n // 2 - 1, n // 2)])
    assert_allclose(np.mean(found), (size + 1) / (size - 1), rtol=0.06)


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_random_matrices_have_the_spectrum_that_is_asked_for(dtype):
    for shape in ((12, 12), (12, 7), (7, 12)):
        matrix = random_matrix(*shape, exponent=1.5, dtype=dtype, seed=2)
        assert matrix.shape == shape
        assert matrix.dtype == dtype
        expected = np.arange(1.0, min(shape) + 1) ** -1.5
        values = np.linalg.svd(matrix, compute_uv=False)
        assert_allclose(values, expected / np.linalg.norm(expected), rtol=1e-4)
        assert_allclose(np.linalg.norm(random_matrix(*shape, dtype=dtype)), 1, rtol=1e-6)
    wide = random_matrix(200, 100, dtype=dtype) * np.sqrt(200 * 100)
    assert_allclose((np.abs(wide) ** 4).mean(), 2 if wide.dtype.kind == "c" else 3, rtol=0.1)


# --- planted operators


@pytest.mark.parametrize(
    ("arguments", "largest"),
    [
        ({"n": 6, "depth": 1}, 4),
        ({"n": 7, "depth": 3}, 64),
        ({"n": 8, "depth": 4, "core_bond": 4}, 256),
        ({"n": 6, "depth": 2, "core_bond": 3, "group": "U"}, 48),
        ({"n": 6, "depth": 2, "width": 3, "group": "O"}, 16),
        ({"n": 3, "depth": 5}, 4),
        ({"n": 2, "depth": 1}, 4),
    ],
)
def test_a_planted_mpo_is_the_product_of_its_circuits_and_core(arguments, largest):
    hidden = planted_factorization(**arguments, seed=5)
    core = dense_from_cores(site_tensors(hidden.core))
    dense = circuit_matrix(hidden.left) @ core @ circuit_matrix(hidden.right)
    mpo = planted_mpo(**arguments, seed=5)
    assert_allclose(mpo_to_dense(mpo), dense, atol=1e-13)
    assert_allclose(np.linalg.norm(dense), 1, rtol=1e-13)
    assert max(mpo.bond_sizes()) == largest
    assert targets._bond_bounds(hidden) == mpo.bond_sizes()
    assert mpo_to_dense(mpo).dtype.kind == ("c" if arguments.get("group") == "U" else "f")


def test_the_hidden_circuits_reach_the_overlap_one_where_nothing_is_dense():
    hidden, mpo = planted_factorization(40, 2, 2, seed=1), planted_mpo(40, 2, 2, seed=1)
    assert max(mpo.bond_sizes()) == 32
    assert mpodis.true_loss(hidden, mpo).loss < 1e-24


def test_what_is_hidden_is_found_but_is_no_start_of_the_same_seed():
    found = disentangle(planted_mpo(6, 1, seed=4), depth=1, seed=4)
    assert found.overlap > 1 - 1e-6
    hidden = planted_factorization(6, 1, seed=4)
    same = mpodis.random_circuit(hidden.left.ansatz, seed=4)
    for gate in hidden.left.gates:
        assert min(np.abs(gate - other).max() for other in same.gates) > 0.1


def test_a_bond_dimension_that_explodes_is_refused():
    with pytest.raises(
        ValueError, match=r"n=32, depth=6.* bond dimension of 4096, above 1024; use"
    ):
        planted_mpo(32, 6)
    assert max(planted_mpo(6, 40).bond_sizes()) == 64


# --- evolution operators


def exact(n, t, *, zz, x):
    """exp(-i t H) of H = sum zz Z Z + x_k X_k."""
    pauli = {"X": np.array([[0, 1], [1, 0]]), "Z": np.diag([1, -1])}
    h = np.zeros((2**n, 2**n))
    for k in range(n):
        h += x[k] * np.kron(np.kron(np.eye(2**k), pauli["X"]), np.eye(2 ** (n - 1 - k)))
    for k in range(n - 1):
        pair = np.kron(pauli["Z"], pauli["Z"])
        h += zz * np.kron(np.kron(np.eye(2**k), pair), np.eye(2 ** (n - 2 - k)))
    return scipy.linalg.expm(-1j * t * h)


@pytest.mark.parametrize(
    ("terms", "x"),
    [
        ("ZZ=1.5, X=-0.25", [-0.25] * 4),
        ({"ZZ": 1.5, "X": [0.1, 0.2, 0.3, 0.4]}, [0.1, 0.2, 0.3, 0.4]),
        (mpodis.pauli_chain(4, ZZ=1.5, X=0.5), [0.5] * 4),
    ],
)
def test_evolution_and_trotter_operators_act_on_kets(terms, x):
    expected = exact(4, 0.4, zz=1.5, x=x)
    found = mpo_to_dense(evolution_mpo(4, terms, 0.4, error=1e-14))
    assert_allclose(found, expected, atol=1e-5)
    circuit = mpodis.trotter(mpodis.pauli_chain(4, ZZ=1.5, X=x), 0.4, 4, steps=3)
    found = mpo_to_dense(trotter_mpo(4, terms, 0.4, order=4, steps=3))
    assert_allclose(found, circuit_matrix(circuit).T, atol=1e-12)
    assert_allclose(found, expected, atol=1e-3)


def test_an_operator_that_is_not_symmetric_is_not_transposed():
    terms = {"XY": 1.0, "Z": [0.3, -0.2, 0.5]}
    found = mpo_to_dense(trotter_mpo(3, terms, 0.7, layers=3))
    assert np.abs(found - found.T).max() > 0.1
    assert_allclose(found, mpo_to_dense(evolution_mpo(3, terms, 0.7)), atol=0.1)


def test_a_trotter_operator_of_many_sites_is_near_the_evolution():
    a, b = (
        trotter_mpo(48, "ZZ=1, X=0.75", 0.2, order=4, steps=1),
        evolution_mpo(48, "ZZ=1, X=0.75", 0.2),
    )
    assert 0 < 1 - mpodis.overlap(a, b) < 1e-4
    assert_allclose(mpodis.log_norm(a), 24 * np.log(2), rtol=1e-12)


def test_a_trotter_operator_too_large_is_refused(monkeypatch):
    monkeypatch.setattr(targets, "LARGEST_BOND", 8)
    with pytest.raises(ValueError, match="5 layers: the MPO needs a bond dimension above 8"):
        trotter_mpo(10, "ZZ=1, X=0.75", 3.0, layers=5)


# --- layers


def test_a_file_holds_a_matrix_or_an_mpo(tmp_path):
    w = np.random.default_rng(0).normal(size=(6, 4))
    np.savez(tmp_path / "w.npz", a=w, b=np.ones(3))
    assert_array_equal(load_operator(tmp_path / "w.npz"), w)
    assert_array_equal(load_operator(tmp_path / "w.npz", layer="a", transpose=True), w.T)
    with pytest.raises(ValueError, match=r"b has shape \(3,\); give the layer="):
        load_operator(tmp_path / "w.npz", layer="b")
    mpo = random_mpo(30, 3)
    save_mpo(mpo, tmp_path / "m.safetensors")
    stored = load_operator(tmp_path / "m.safetensors")
    assert_allclose(mpodis.overlap(stored, mpo), 1)
    with pytest.raises(ValueError, match=r"holds an MPO; layer= and transpose= are for matrices"):
        load_operator(tmp_path / "m.safetensors", layer="a")


def test_trained_layers_are_those_of_the_network_and_trained_once(tmp_path, monkeypatch):
    data = load_data("digits")
    dense, tnn = train_dense(data, hidden=(8,), seed=1)[0], train_tnn(data, seed=1, bond=3)[0]
    for _ in range(2):
        for k in ("0", "2"):
            weight = dense[int(k)].weight.detach().numpy().T
            found = trained_layer(k, hidden=[8], seed=1, cache=tmp_path)
            assert_array_equal(found, weight)
            assert found.dtype == float
        found = mpo_to_dense(trained_mpo(3, seed=1, cache=tmp_path))
        assert_allclose(found, tnn.mpo.weight().detach(), atol=1e-5)
        # from here on nothing can be trained
        monkeypatch.setattr("mpodis.nn.train_dense", None)
        monkeypatch.setattr("mpodis.nn.train_tnn", None)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "64-8-10-digits-1.safetensors",
        "tnn3-digits-1.safetensors",
    ]


# --- all of them


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.random.default_rng(0).normal(size=(8, 8)))
    return tmp_path


def test_every_target_has_an_example():
    assert set(EXAMPLES) == set(TARGETS)
    assert all(function.__name__ == name for name, function in TARGETS.items())


@pytest.mark.parametrize("kind", TARGETS)
def test_a_target_is_an_operator_of_its_arguments_and_seed(kind, folder):
    states = np.random.get_state()[1].tobytes(), torch.get_rng_state().numpy().tobytes()  # noqa: NPY002
    spec = {"kind": kind, **EXAMPLES[kind]}
    first, again = (make_target(spec, seed=7, cache=folder) for _ in range(2))
    assert bits(first) == bits(again)
    other = make_target(spec, seed=8, cache=folder)
    assert (bits(other) != bits(first)) == (
        kind not in ("evolution_mpo", "trotter_mpo", "load_operator")
    )
    assert states == (
        np.random.get_state()[1].tobytes(),  # noqa: NPY002
        torch.get_rng_state().numpy().tobytes(),
    )
    assert disentangle(first, depth=1, n_init=1, max_sweeps=1).overlap > 0


@pytest.mark.parametrize("kind", RANDOM)
def test_a_generator_is_drawn_from_and_moves_on(kind):
    rng = np.random.default_rng(1)
    first, second = (TARGETS[kind](**EXAMPLES[kind], seed=rng) for _ in range(2))
    again = TARGETS[kind](**EXAMPLES[kind], seed=np.random.default_rng(1))
    assert bits(first) == bits(again) != bits(second)


def test_a_table_of_a_file_says_the_same_as_a_call():
    text = """
        kind = "compress"
        max_bond = 4
        operator = {kind = "planted_mpo", n = 20, depth = 2, group = "U"}
    """
    found = make_target(tomllib.loads(text), seed=3)
    assert bits(found) == bits(mpodis.compress(planted_mpo(20, 2, group="U", seed=3), max_bond=4))
    own = {"kind": "random_mpo", "n": 4, "max_bond": 2, "seed": 1}
    assert bits(make_target(own, seed=3)) == bits(random_mpo(4, 2, seed=1))


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"n": 8}, r"\{'n': 8\} has no kind; give one of random_mpo, "),
        ({"kind": "planted"}, r"kind='planted' is no target; did you mean 'planted_mpo'\?"),
        ("planted_mpo", "the target 'planted_mpo' has no kind"),
        ({"kind": 3}, r"kind='3' is no target; use one of random_mpo, "),
        ({"kind": "planted_mpo", "n": 8, "dept": 2}, r"no argument 'dept'; did you mean 'depth'\?"),
        ({"kind": "random_mpo", "n": 8, "q": 2}, "no argument 'q'; use one of n, max_bond, legs"),
        ({"kind": "evolution_mpo", "n": 8}, "evolution_mpo needs terms, t"),
        (
            {"kind": "compress", "operator": {"kind": "random_mpo", "sites": 8}},
            "random_mpo has no argument 'sites'",
        ),
    ],
)
def test_a_table_that_is_wrong_is_told_so(spec, text):
    with pytest.raises(ValueError, match=text):
        make_target(spec)


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        (random_mpo, {"n": 0, "max_bond": 2}, "n=0 must be a whole number, 1 or more"),
        (random_mpo, {"n": 4, "max_bond": 2.0}, r"max_bond=2\.0 must be a whole number"),
        (random_mpo, {"n": 4, "max_bond": 2, "legs": [[2, 2]]}, "names 1 sites, but n=4"),
        (random_mpo, {"n": 4, "max_bond": 2, "dtype": "float16"}, "dtype='float16' is not known"),
        (random_mpo, {"n": 4, "max_bond": 2, "seed": None}, "seed=None must be a whole number, 0"),
        (random_matrix, {"rows": 4, "columns": 0}, "columns=0 must be"),
        (random_matrix, {"rows": 4, "columns": 2, "exponent": -1}, "exponent=-1 must be"),
        (planted_mpo, {"n": 4, "depth": 0}, "depth=0 must be 1 or more layers"),
        (planted_mpo, {"n": 4, "depth": 1, "width": 5}, "a gate on 5 wires does not fit"),
        (planted_mpo, {"n": 4, "depth": 1, "group": "SU"}, "group='SU' is not known"),
        (planted_mpo, {"n": 4, "depth": 1, "core_bond": -1}, "core_bond=-1 must be"),
        (evolution_mpo, {"n": 4, "terms": "ZZ=1, X", "t": 1}, "'X' is no coupling; write e.g."),
        (evolution_mpo, {"n": 4, "terms": "ZZ=1, Q=2", "t": 1}, "'Q=2' is no coupling"),
        (evolution_mpo, {"n": 4, "terms": "X=1, X=2", "t": 1}, "names X twice"),
        (trotter_mpo, {"n": 4, "terms": "X=1e", "t": 1, "steps": 1}, "'X=1e' is no coupling"),
        (trained_layer, {"layer": "1"}, "layer='1' is not known; the layers are 0, 2"),
        (trained_layer, {"seed": -1}, "seed=-1 must be"),
        (trained_mpo, {"max_bond": 0}, "max_bond=0 must be"),
    ],
)
def test_arguments_that_make_no_sense(function, arguments, text):
    with pytest.raises(ValueError, match=text):
        function(**arguments)


def test_the_module_is_there_when_it_is_first_used():
    code = (
        "import sys, mpodis\n"
        "assert 'targets' in dir(mpodis) and 'numpy' not in sys.modules\n"
        "mpodis.targets.random_mpo(4, 2)\n"
        "print(*sorted({'torch', 'qiskit', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
