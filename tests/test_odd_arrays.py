"""Numbers of any kind and of any size at the door of every function that takes a matrix."""

import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

import mpodis
from mpodis import nn as layers
from mpodis import quantum
from mpodis.arrays import as_array, as_numpy, times_power_of_two
from reference import random_matrix

pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")

W = random_matrix((8, 8), seed=1)
X = random_matrix((40, 8), seed=2)
C = X.T @ X / 40
BRIEF = {"depth": 1, "max_sweeps": 3, "n_init": 1}
NET = torch.nn.Sequential(layers.linear_from_matrix(random_matrix((8, 4), seed=3)))


class Subclass(torch.Tensor):
    """A tensor that stays of its class in all operations."""


def inference(array):
    with torch.inference_mode():
        return torch.tensor(array)


def read_only(array):
    array = array.copy()
    array.setflags(write=False)
    return array


def conjugate(array):
    return torch.complex(torch.tensor(array), torch.zeros(array.shape, dtype=torch.float64)).conj()


# the same values to 1e-15, and those that a narrower type rounds
KINDS = {
    "big-endian": lambda a: a.astype(">f8"),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "columns first": lambda a: np.asarray(a, order="F"),
    "read-only": read_only,
    "longdouble": lambda a: a.astype(np.longdouble),
    "list": lambda a: a.tolist(),
    "tensor": torch.tensor,
    "requires gradients": lambda a: torch.tensor(a, requires_grad=True),
    "parameter": lambda a: torch.nn.Parameter(torch.tensor(a)),
    "negative view": lambda a: torch.complex(torch.tensor(a), torch.tensor(-a)).conj().imag,
    "subclass": lambda a: torch.tensor(a).as_subclass(Subclass),
    "inference": inference,
    "column-major tensor": lambda a: torch.tensor(a.T.copy()).T,
}
NARROW = {
    "float32": lambda a: a.astype("f4"),
    "float16": lambda a: a.astype("f2"),
    "bfloat16": lambda a: torch.tensor(a).bfloat16(),
    "half, requires gradients": lambda a: torch.tensor(a).half().requires_grad_(),
}
MATRICES = {
    "compress": lambda a: mpodis.compress(a).to_dense(),
    "entanglement": lambda a: mpodis.entanglement(a).average,
    "overlap": lambda a: mpodis.overlap(a, W),
    "von_neumann_bound": lambda a: mpodis.von_neumann_bound(a, W),
    "truncate": lambda a: mpodis.truncate(a, max_bond=2).relative_error,
    "fit_core": lambda a: mpodis.overlap(mpodis.fit_core(a, max_bond=2), W),
    "low_rank": lambda a: mpodis.low_rank(a, 2).matrix,
    "monarch": lambda a: mpodis.monarch(a).matrix,
    "truncated_mpo": lambda a: mpodis.truncated_mpo(a, 2).relative_error,
    "activation_loss_bound": lambda a: mpodis.activation_loss_bound(a, W),
    "site_order": lambda a: mpodis.site_order(a).after,
    "neuron_order": lambda a: mpodis.neuron_order(a, max_bond=1, restarts=0, rounds=1).before,
    "circuit_qr": lambda a: mpodis.circuit_qr(a, 1, n_init=1, max_sweeps=2).overlap,
    "disentangle": lambda a: mpodis.disentangle(a, **BRIEF).overlap,
    "head_rotation": lambda a: mpodis.head_rotation(a, a, heads=2).values,
    "linear_from_matrix": lambda a: layers.linear_from_matrix(a, dtype=torch.float64).weight,
    "MonarchLinear": lambda a: layers.MonarchLinear(a, ((2, 2), (4, 4))).weight(),
    "Reordering.apply": lambda a: mpodis.Reordering(range(8), range(8)).apply(a),
}
SAMPLES = {
    "second_moment": mpodis.second_moment,
    "inputs": lambda a: mpodis.disentangle(W, objective="activations", inputs=a, **BRIEF).loss,
    "mps_encoding": lambda a: mpodis.mps_encoding(a[0]).circuit.gates[-1],
    "compile_state": lambda a: mpodis.compile_state(a[0], depth=1, n_init=1, max_iterations=5).loss,
    "brickwall_encodings": lambda a: mpodis.brickwall_encodings(a, layers=1).fidelities,
    "predict": lambda a: layers.predict(NET, a),
    "layer_inputs": lambda a: layers.layer_inputs(NET, "0", a),
    "collect_activations": lambda a: layers.collect_activations(NET, "0", a).covariance,
}
MOMENTS = {
    "low_rank": lambda a: mpodis.low_rank(W, 2, covariance=a).activation_error,
    "pca_basis": lambda a: abs(mpodis.pca_basis(a)),
    "fit_core": lambda a: mpodis.overlap(mpodis.fit_core(W, max_bond=1, covariance=a), W),
    "disentangle": lambda a: (
        mpodis.disentangle(W, objective="activations", covariance=a, **BRIEF).loss
    ),
    "Reordering.covariance": lambda a: mpodis.Reordering(range(8), range(8)).covariance(a),
}
Q = np.linalg.qr(W)[0]
UNITARIES = {
    "compile_unitary": lambda a: mpodis.compile_unitary(a, depth=1, n_init=1, max_iterations=5).loss
}
ENTRIES = [
    *((f"{name}(unitary)", call, Q) for name, call in UNITARIES.items()),
    *((f"{name}(matrix)", call, W) for name, call in MATRICES.items()),
    *((f"{name}(samples)", call, X) for name, call in SAMPLES.items()),
    *((f"{name}(moment)", call, C) for name, call in MOMENTS.items()),
]


def value(found):
    return as_numpy(found.double() if isinstance(found, torch.Tensor) else found)


@pytest.mark.no_cover  # the same entries again and again; each has traced tests of its own
@pytest.mark.parametrize(("name", "call", "array"), ENTRIES, ids=[e[0] for e in ENTRIES])
def test_every_entry_takes_every_kind(name, call, array):
    expected = value(call(array))
    for kind, cast in {**KINDS, **NARROW}.items():
        given = cast(array)
        if kind == "list" and (name.startswith(("layer", "collect"))):
            continue  # a list is an iterable of batches there
        found = value(call(given))
        tolerance = 1e-8 if kind in KINDS else 0.1
        assert_allclose(found, expected, rtol=tolerance, atol=tolerance, err_msg=kind)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ma.array(np.eye(4), mask=np.eye(4)), "masked array, and masked entries have no value"),
        (torch.eye(4).to_sparse(), "layout torch.sparse_coo, not a dense one"),
        (torch.empty(4, 4, device="meta"), "on the meta device and has no entries"),
        (
            np.full((2, 2), np.longdouble("1e400")),
            "4 entries of the .* are beyond double precision",
        ),
        (np.array([["a", "b"]]), "expected numbers, got an array of dtype <U1"),
        ([[1.0, 2.0], [3.0]], "is not rectangular; give rows of one length"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        mpodis.compress,
        lambda a: mpodis.low_rank(a, 1),
        mpodis.second_moment,
        mpodis.pca_basis,
        layers.linear_from_matrix,
        lambda a: layers.predict(NET, a),
    ],
)
def test_what_has_no_plain_numbers_is_refused(array, message, call):
    with pytest.raises((TypeError, ValueError), match=message):
        call(array)


def test_conjugate_and_half_complex_numbers():
    assert_allclose(as_numpy(conjugate(W)), W)
    half = torch.complex(torch.tensor(W), torch.tensor(W)).to(torch.complex32)
    assert as_array(half).dtype is torch.complex64
    assert_allclose(as_numpy(half), W + 1j * W, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16"])
@pytest.mark.parametrize("samples", [np.ones((3, 1)), random_matrix((20, 3))])
def test_a_moment_is_judged_by_the_precision_it_has(dtype, samples):
    x = samples @ random_matrix((samples.shape[1], 64), seed=3)  # of low rank
    moment = torch.tensor(x.T @ x / len(x)).to(getattr(torch, dtype))
    for call in (
        lambda c: mpodis.low_rank(random_matrix((64, 8)), 2, covariance=c).activation_error,
        lambda c: mpodis.pca_basis(c)[0, 0],
    ):
        assert math.isfinite(call(moment))
    wrong = moment - moment.max() * torch.eye(64, dtype=moment.dtype)
    with pytest.raises(ValueError, match="has a negative eigenvalue"):
        mpodis.pca_basis(wrong)


# --- norms from the smallest to the largest number


def figures(found):
    """What does not depend on the norm, and what is proportional to it."""
    if isinstance(found, mpodis.Approximation):
        return [found.overlap, found.relative_error, found.activation_error], found.matrix
    if isinstance(found, mpodis.FoundOrder):
        return [found.before, found.after], mpodis.mpo_to_dense(found.core)
    if isinstance(found, mpodis.Disentangled):
        return [found.overlap], found.factorization.to_dense()
    if isinstance(found, mpodis.CircuitFactors | mpodis.KrausEnsemble):
        return [found.overlap], found.to_dense()
    if isinstance(found, mpodis.Compressed):
        return [found.relative_error], found.to_dense()
    return [found], None


SIZED = {
    "compress": lambda w, c: mpodis.compress(w),
    "truncate": lambda w, c: mpodis.truncate(w, max_bond=2),
    "canonical_form": lambda w, c: mpodis.compress(mpodis.canonical_form(w)),
    "log_norm": lambda w, c: mpodis.log_norm(w) - math.log(2) * math.frexp(w[0, 0])[1],
    "entanglement": lambda w, c: mpodis.entanglement(w).average,
    "overlap": lambda w, c: mpodis.overlap(w, W),
    "von_neumann_bound": lambda w, c: mpodis.von_neumann_bound(w, W, group="SO"),
    "activation_loss_bound": lambda w, c: mpodis.activation_loss_bound(w, W, covariance=c),
    "low_rank": lambda w, c: mpodis.low_rank(w, 2, covariance=c),
    "monarch": lambda w, c: mpodis.monarch(w, covariance=c, n_init=1, max_iterations=20),
    "truncated_mpo": lambda w, c: mpodis.truncated_mpo(w, 2, covariance=c),
    "site_order": lambda w, c: mpodis.site_order(
        w, measure="loss", max_bond=1, covariance=c, restarts=0, steps=3
    ),
    "neuron_order": lambda w, c: mpodis.neuron_order(
        w, max_bond=1, covariance=c, restarts=0, rounds=2
    ),
    "fit_core": lambda w, c: mpodis.compress(mpodis.fit_core(w, max_bond=2, covariance=c)),
    "full_width_gates": lambda w, c: (
        mpodis.full_width_gates(w, 1, covariance=c, n_init=1, max_iterations=3).loss
    ),
    "circuit_svd": lambda w, c: mpodis.circuit_svd(w, 1, n_init=1, max_sweeps=2),
    "kraus_ensemble": lambda w, c: mpodis.kraus_ensemble(w, depth=1, rounds=1, max_sweeps=2),
    "disentangle": lambda w, c: mpodis.disentangle(
        w, objective="activations", covariance=c, **BRIEF
    ),
    "mps_encoding": lambda w, c: mpodis.mps_encoding(w[0], max_bond=1).fidelity,
}


@pytest.mark.parametrize("name", SIZED)
def test_a_power_of_two_changes_nothing_but_the_size(name):
    expected, matrix = figures(SIZED[name](W, C))
    for exponent, of_moment in ((-1026, 0), (-600, 1000), (100, -1000), (565, 0), (1021, 0)):
        found, scaled = figures(SIZED[name](np.ldexp(W, exponent), np.ldexp(C, of_moment)))
        assert_allclose(found, expected, rtol=1e-8, atol=1e-12, err_msg=f"2^{exponent}")
        if matrix is not None:
            assert_allclose(np.ldexp(scaled, -exponent), matrix, rtol=1e-7, atol=1e-9)


@pytest.mark.no_cover  # the same searches again and again
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "sweeps", "engine": "boundary"},
        {"method": "lbfgs", "max_bond": 2},
        {"objective": "activations", "covariance": C, "group": "U"},
    ],
)
def test_sizes_beyond_the_ordinary_give_the_bits_of_entries_around_one(options, dtype):
    unit = np.ldexp(W, -math.frexp(np.abs(W).max())[1]).astype(dtype)

    def found(exponent):
        scaled = np.ldexp(unit, exponent)
        run = mpodis.disentangle(scaled, depth=2, max_sweeps=5, n_init=1, **options)
        gates = (*run.factorization.left.gates, *run.factorization.right.gates)
        return run.loss, run.overlap, *(gate.tobytes() for gate in gates)

    expected = found(0)
    for exponent in (-100, 50, 120) if dtype == "float32" else (-980, -60, 500, 1020):
        assert found(exponent) == expected


@pytest.mark.parametrize(
    "matrix",
    [
        np.full((4, 4), 2e38, np.float32),
        np.full((4, 4), 3.4e38, np.float32),
        np.full((4, 4), 1.5e308),
        np.full((2, 2), 1e308),
        np.full((1, 3), 1.79e308 * 1j),
        np.full((16, 16), 1.79e308),
    ],
)
def test_a_norm_above_the_largest_number(matrix):
    found = mpodis.compress(matrix)
    assert_allclose(found.to_dense() / matrix[0, 0], 1.0, rtol=1e-5)
    assert found.relative_error < 1e-6
    run = mpodis.disentangle(matrix, max_bond=16, **BRIEF)
    assert_allclose(run.factorization.to_dense() / matrix[0, 0], 1.0, rtol=1e-4)


def test_a_result_that_is_no_number_is_refused():
    with pytest.raises(OverflowError, match="too large for float64; divide the operator by its no"):
        times_power_of_two(np.ones(1), 1024)
    with pytest.raises(ValueError, match=r"inputs of a size of 2\^\d+ have squares that are no"):
        mpodis.second_moment(X * 1e200)


def test_a_reversed_axis_of_length_one():
    layer = layers.linear_from_matrix(W[:1][::-1], dtype=torch.float64)
    assert_allclose(layer.weight.detach().numpy().T, W[:1])


# --- options that are numbers

CHAIN = mpodis.pauli_chain(4, ZZ=1.0, X=0.5)
U = np.linalg.qr(W)[0]
NEAR_ONE = mpodis.random_circuit(mpodis.brickwall(2, 1), seed=0, scale=0.01)
LIMIT = {"max_seconds": 64.0}
COMPILED = {"depth": 1, "n_init": 1, "max_iterations": 2, "seed": 1, "max_bond": 64}
COMPILED |= {"goal": 0.25, "tol": 0.25, **LIMIT}
SEARCHED = {**BRIEF, "init_sweeps": 1, "max_bond": 1, "seed": 1, "tol": 0.25, "init_scale": 0.25}
SEARCHED |= {"relaxation": 0.25, "memory": 2.0**30, "environment_bond": 4, **LIMIT}
NUMBERS = {
    "disentangle": (partial(mpodis.disentangle, W), SEARCHED),
    "compile_unitary": (partial(mpodis.compile_unitary, U), COMPILED),
    "compile_state": (partial(mpodis.compile_state, W[0]), COMPILED),
    "resynthesise": (
        partial(mpodis.resynthesise, NEAR_ONE),
        {"n_searches": 1, "rounds": 1, "trials": 1, "seed": 1, "tol": 0.25},
    ),
    "pareto": (
        partial(mpodis.pareto, W, families="SO(4)", depths=np.arange(1, 2)),
        {"max_sweeps": 2, "n_init": 1, "seed": 1, "max_cnots": 2},
    ),
    "monarch": (partial(mpodis.monarch, W), {"n_init": 1, "seed": 1, **LIMIT}),
    "best_monarch": (partial(mpodis.best_monarch, W), {"parameters": 48, **LIMIT}),
    "mps_encoding": (partial(mpodis.mps_encoding, W[0]), {"max_bond": 2}),
    "brickwall": (mpodis.brickwall, {"n": 100, "depth": 100, "width": 2, "parity": 1}),
    "staircase": (mpodis.staircase, {"n": 100, "depth": 100}),
    "from_spec": (partial(mpodis.from_spec, "2b"), {"n": 100}),
    "random_matrix": (
        mpodis.targets.random_matrix,
        {"rows": 100, "columns": 100, "exponent": 0.5, "seed": 1},
    ),
    "random_mpo": (mpodis.targets.random_mpo, {"n": 4, "max_bond": 100, "seed": 1}),
    "evolution": (partial(mpodis.evolution, CHAIN), {"t": 0.5, "max_bond": 100}),
    "trotter": (partial(mpodis.trotter, CHAIN), {"t": 0.5, "steps": 2}),
    "a layer": (partial(layers.MPOLinear, ((2, 2),) * 3), {"bond": 2, "seed": 1}),
}
"""Functions, and options of theirs that are numbers."""


def bits(found):
    """Arrays and numbers of a result."""
    for name in ("factorization", "points", "circuit", "after", "mpo"):
        if hasattr(found, name):
            return bits(getattr(found, name))
    if isinstance(found, np.ndarray):
        return found.tolist()
    if isinstance(found, tuple):
        return [bits(one) for one in found]
    if hasattr(found, "left"):
        return [bits(found.left), bits(found.right)]
    if hasattr(found, "gates"):
        return [gate.tolist() for gate in found.gates]
    if hasattr(found, "to_dense"):
        return found.to_dense().tolist()
    if hasattr(found, "matrix"):
        return found.matrix.tolist()
    return found.weight().tolist() if hasattr(found, "weight") else found


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_numpy_do_what_those_of_python_do(name):
    """Whose products overflow at 128, and whose rounding is another."""
    call, options = NUMBERS[name]
    wanted = bits(call(**options))
    for whole, real in ((np.int8, np.float16), (np.uint8, np.float32), (np.int64, np.longdouble)):
        kinds = {key: whole if isinstance(x, int) else real for key, x in options.items()}
        kinds |= {"memory": np.longdouble}
        assert bits(call(**{key: kinds[key](x) for key, x in options.items()})) == wanted
    for key in options.keys() & {"max_seconds", "tol", "goal"}:
        for value in (True, "1", math.nan, 1j, np.array([1.0])):
            with pytest.raises((ValueError, TypeError), match=rf"{key}="):
                call(**options | {key: value})


COUNTS = {
    "compress max_bond": lambda v: mpodis.compress(W, max_bond=v),
    "compress rel_error": lambda v: mpodis.compress(W, rel_error=v),
    "truncated_mpo max_bond": lambda v: mpodis.truncated_mpo(W, v),
    "fit_core max_bond": lambda v: mpodis.fit_core(W, max_bond=v),
    "low_rank rank": lambda v: mpodis.low_rank(W, v),
    "site_order max_bond": lambda v: mpodis.site_order(W, measure="discarded", max_bond=v),
    "site_order steps": lambda v: mpodis.site_order(W, steps=v),
    "neuron_order restarts": lambda v: mpodis.neuron_order(W, max_bond=1, restarts=v),
    "brickwall_encodings max_sweeps": lambda v: mpodis.brickwall_encodings(W, 1, max_sweeps=v),
    "site_order seed": lambda v: mpodis.site_order(W, seed=v),
    "best_monarch parameters": lambda v: mpodis.best_monarch(W, parameters=v),
    "best_monarch fits": lambda v: mpodis.best_monarch(W, parameters=48, fits=v),
    "best_monarch slack": lambda v: mpodis.best_monarch(W, parameters=48, slack=v),
    "best_monarch factors": lambda v: mpodis.best_monarch(W, parameters=48, factors=(v,)),
    "mps_encoding max_bond": lambda v: mpodis.mps_encoding(W[0], v),
    "layered_encoding layers": lambda v: mpodis.layered_encoding(W[0], v),
    "compile_unitary depth": lambda v: mpodis.compile_unitary(U, depth=v),
    "compile_unitary seed": lambda v: mpodis.compile_unitary(U, depth=1, seed=v),
    "compile_state max_bond": lambda v: mpodis.compile_state(W[0], depth=1, max_bond=v),
    "disentangle max_bond": lambda v: mpodis.disentangle(W, **BRIEF | {"max_bond": v}),
    "disentangle seed": lambda v: mpodis.disentangle(W, **BRIEF, seed=v),
    "disentangle init_scale": lambda v: mpodis.disentangle(W, **BRIEF, init_scale=v),
    "disentangle shape": lambda v: mpodis.disentangle(mpodis.as_mpo(W), **BRIEF, shape=(v, 8)),
    "pareto rounds": lambda v: mpodis.pareto(W, rounds=v),
    "resynthesise n_searches": lambda v: mpodis.resynthesise(NEAR_ONE, n_searches=v),
    "random_circuit seed": lambda v: mpodis.random_circuit(mpodis.brickwall(2, 1), seed=v),
}
REAL = ("rel_error", "slack", "init_scale")
"""Options that need not be whole, and may be 0, or nearly."""
NONE = ("seed", "steps", "restarts", "max_sweeps")
"""Options that are whole numbers and may be 0."""


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_number_of_this_kind_is_refused_by_name(name):
    option = name.split()[1]
    wrong = [-1, True, math.nan, math.inf, "x", [2], 1j]
    wrong += [] if option in REAL else [1.5, 2.0, 1e300]
    wrong += [] if option in (*REAL, *NONE) else [0]
    for value in wrong:
        if option == "seed" and value == [2]:  # numpy takes several numbers as a seed
            continue
        with pytest.raises((ValueError, TypeError), match=rf"^{option}="):
            COUNTS[name](value)


def test_a_run_of_numbers_of_numpy_goes_on_and_is_stored(tmp_path):
    limits = {"max_seconds": np.float32(64), "goal": np.float32(0), "tol": np.float16(0.25)}
    options = {"depth": np.int8(1), "n_init": 1, "max_iterations": np.uint8(2)}
    first = mpodis.compile_unitary(U, **options, **limits, run_dir=tmp_path)
    again = mpodis.compile_unitary(
        U,
        depth=1,
        n_init=1,
        max_iterations=2,
        max_seconds=64.0,
        goal=0.0,
        tol=0.25,
        run_dir=tmp_path,
    )
    assert bits(again) == bits(first)


def test_fractions_are_stored_and_numbers_beyond_floats_are_refused(tmp_path):
    options = {"left": 1, "right": 1, "max_bond": 1, "n_init": 1, "max_sweeps": 2}
    matrix, half = random_matrix((4, 4)), Fraction(1, 2)
    found = mpodis.disentangle(
        matrix, **options, tol=half, max_seconds=64 * half, run_dir=tmp_path / "d"
    )
    assert found.options.tol == 0.5
    assert found.options.max_seconds == 32.0
    compiled = mpodis.compile_unitary(np.eye(4), depth=1, tol=half, run_dir=tmp_path / "c")
    assert compiled.status == "exact"
    for huge in (10**400, Fraction(10**400)):
        with pytest.raises(ValueError, match=r"max_seconds=.* must be a positive number"):
            mpodis.disentangle(matrix, **options, max_seconds=huge)
        with pytest.raises(ValueError, match=r"tol=.* must be a number from 0 on"):
            mpodis.compile_unitary(np.eye(4), depth=1, tol=huge)
        with pytest.raises(ValueError, match=r"t=.* must be a real and finite time"):
            mpodis.evolution(mpodis.pauli_chain(2, ZZ=1.0), huge)


MPO = mpodis.compress(W).mpo
BRICKS = mpodis.brickwall(3, 2)
CIRCUIT = mpodis.random_circuit(BRICKS, seed=0)
RUN = mpodis.disentangle(W, **BRIEF)
TEXT_OF_SHAPE = "must be \\(inputs, outputs\\), two whole numbers, 1 or more"
WRONG = {
    "wires in words": (lambda: mpodis.brickwall("4", 2), "n='4' must be a whole number"),
    "half a wire": (lambda: mpodis.staircase(4, 2, 2.5), "width=2.5 must be a whole number"),
    "a spec on no wires": (lambda: mpodis.from_spec("2b", 2.0, depth=1), "n=2.0 must be a whole"),
    "half a centre": (lambda: mpodis.canonical_form(W, centre=1.5), "centre=1.5 is not one of the"),
    "tol of direct": (lambda: mpodis.circuit_qr(W, 1, tol=math.nan), "tol=nan must be a number, 0"),
    "tol of synthesis": (lambda: mpodis.synthesise(Q, 1, tol=-1), "tol=-1 must be a number, 0"),
    "tol of ALS": (lambda: mpodis.fit_core(W, max_bond=1, tol="0"), "tol='0' must be a number, 0"),
    "sweeps of ALS": (
        lambda: mpodis.fit_core(W, max_bond=1, max_sweeps=2.5),
        "max_sweeps=2.5 must be a whole number, 0 or more",
    ),
    "sweeps of a closed form": (
        lambda: mpodis.monarch(W, max_sweeps=-1),
        "max_sweeps=-1 must be a whole number, 0 or more",
    ),
    "seed of a closed form": (lambda: mpodis.monarch(W, seed="x"), "seed='x' must be a whole"),
    "iterations of sizes": (
        lambda: mpodis.best_monarch(W, 40, max_iterations=math.nan),
        "max_iterations=nan must be a whole number, 0 or more",
    ),
    "factors of sizes": (
        lambda: mpodis.monarch_sizes((8, 8), factors=2.5),
        "factors=2.5 must be a whole number, 2 or more",
    ),
    "no sizes at all": (lambda: mpodis.best_monarch([[2.0]], 1), "no Monarch matrix of shape"),
    "ranks of sizes": (lambda: mpodis.monarch_sizes((8, 8), ranks=(0,)), "rank=0 must be a whole"),
    "one size": (lambda: mpodis.monarch_sizes((8,)), TEXT_OF_SHAPE),
    "parameters of a rank": (
        lambda: mpodis.rank_for(math.nan, (8, 8)),
        "parameters=nan must be a whole number",
    ),
    "shape of a rank": (lambda: mpodis.rank_for(9, (8, -8)), TEXT_OF_SHAPE),
    "parameters of an MPO": (
        lambda: mpodis.bond_for(-1, ((2, 2),) * 3),
        "parameters=-1 must be a whole number",
    ),
    "bonds": (lambda: mpodis.max_average_entropy((2, math.nan)), "bond=nan must be a whole number"),
    "heads": (lambda: mpodis.head_rotation(W, W, heads="2"), "heads='2' must be a whole number"),
    "scale": (
        lambda: mpodis.random_circuit(BRICKS, scale=math.inf),
        "scale=inf must be a number, 0 or more",
    ),
    "half a sample": (
        lambda: quantum.best_depth(Q, (1,), samples=2.5),
        "samples=2.5 must be a whole number, 0 or more",
    ),
    "seed without sweeps": (
        lambda: mpodis.layered_encoding(W[0], 1, seed="x"),
        "seed='x' must be a whole number",
    ),
    "a size of a matrix": (lambda: mpodis.mpo_to_dense(MPO, shape=(8,)), TEXT_OF_SHAPE),
    "a negative size": (lambda: mpodis.truncated_mpo(W, 1, shape=(-1, 8)), TEXT_OF_SHAPE),
    "no size": (lambda: mpodis.disentangle(W, shape=(), **BRIEF), TEXT_OF_SHAPE),
    "a number as an objective": (
        lambda: mpodis.disentangle(W, objective=1, **BRIEF),
        "objective=1 is no objective; give one of overlap, activations",
    ),
    "an operator that is not its own": (
        lambda: mpodis.prune(W[:4], RUN, trials=1, sweeps=1),
        "the operator has legs .*, the factorization",
    ),
    "less than no iteration": (
        lambda: mpodis.full_width_gates(W, 1, max_iterations=-1),
        "max_iterations=-1",
    ),
    "a core of no numbers": (lambda: mpodis.activation_loss_bound(W, []), r"shape \(0,\)"),
    "a core of three dimensions": (
        lambda: mpodis.activation_loss_bound(W, np.ones((2, 2, 2))),
        r"shape \(2, 2, 2\)",
    ),
    "a tolerance of many digits": (
        lambda: mpodis.disentangle(W, tol=10**400, **BRIEF),
        "tol=1000.* must be a number",
    ),
}
OF_ANOTHER_KIND = {
    "parameters of a matrix": (lambda: mpodis.count_parameters(W), "MatrixProductOperator, got nd"),
    "a core in words": (lambda: mpodis.full_width_gates(W, "x"), "MatrixProductOperator, got str"),
    "an ansatz in words": (
        lambda: mpodis.random_circuit("2b"),
        "an Ansatz, got str; make one with",
    ),
    "ties in words": (lambda: mpodis.tie_gates("2b"), "an Ansatz, got str; make one"),
    "embedded in words": (lambda: mpodis.embed(CIRCUIT, "2b"), "an Ansatz, got str; make one"),
    "an embedded ansatz": (lambda: mpodis.embed(BRICKS, BRICKS), "a Circuit, got Ansatz"),
    "CNOTs of an ansatz": (lambda: mpodis.cnot_count(BRICKS), "or quimb, got Ansatz"),
    "depth of an ansatz": (lambda: mpodis.cnot_depth(BRICKS), "or quimb, got Ansatz"),
    "an ansatz for quimb": (lambda: mpodis.circuit_to_quimb(BRICKS), "or quimb, got Ansatz"),
    "a run on a device": (lambda: quantum.cost_table(RUN), "a Factorization, got Disentangled; a"),
    "a run that is executed": (lambda: quantum.execute_layer(RUN, X), "a Factorization, got Dis"),
    "a run in a circuit": (lambda: quantum.absorb_core(RUN), "a Factorization, got Disentangled"),
    "a run to be costed": (lambda: quantum.inference_cost(RUN), "a Factorization, got Disentan"),
    "an ansatz for Qiskit": (lambda: quantum.to_qiskit(BRICKS), "or quimb, got Ansatz"),
    "an ansatz that is run": (lambda: quantum.run_circuit(BRICKS, X), "or quimb, got Ansatz"),
    "overlap of a run": (
        lambda: mpodis.true_overlap(RUN, W),
        "a Factorization, got Disentangled; a run of `disentangle` has it as its .factorization",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_number_that_makes_no_sense_is_refused_by_name(case):
    call, text = WRONG[case]
    with pytest.raises((TypeError, ValueError), match=text):
        call()


@pytest.mark.parametrize("case", OF_ANOTHER_KIND)
def test_what_is_of_another_kind_is_named(case):
    call, text = OF_ANOTHER_KIND[case]
    with pytest.raises(TypeError, match=text):
        call()
