"""Public functions keep the caller's backend, dtype and device: numpy, torch and jax."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from quimb.tensor import MatrixProductOperator

import mpodis
from mpodis import Circuit, Compressed, Entanglement, Factorization, Placement
from mpodis.circuit import Ansatz
from mpodis.conventions import as_like, to_numpy
from mpodis.environments import LossEstimate, OverlapEstimate
from reference import random_cores, random_covariance, random_matrix

DTYPES = ("float32", "float64", "complex128")
TOL = {"float32": 2e-4, "float64": 1e-10, "complex128": 1e-10}
LEGS = ((2, 2), (2, 2), (2, 2))
TYPES = {"numpy": np.ndarray, "torch": torch.Tensor, "jax": jax.Array}


@pytest.fixture(autouse=True, scope="module")
def _double_precision_in_jax():
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def in_backend(array, backend, dtype):
    array = array.astype(dtype)
    if backend == "torch":
        return torch.from_numpy(array)
    return jax.numpy.asarray(array) if backend == "jax" else array


class Inputs:
    """The same operators and circuits in every backend and dtype."""

    def __init__(self, backend: str, dtype: str) -> None:
        is_complex = dtype.startswith("complex")

        def put(array):
            return in_backend(array, backend, dtype)

        # few shapes, since jax compiles every operation on a new one
        self.matrix = put(random_matrix((4, 3), is_complex, 1))
        self.metric = put(random_covariance(4, is_complex))
        self.tensors = [put(t) for t in random_cores(LEGS[:2], 3, is_complex, 3)]
        self.mpo = mpodis.mpo_from_tensors(self.tensors)
        self.product = mpodis.truncate(self.mpo, max_bond=1).mpo
        self.batch = put(random_matrix((2, 8), is_complex, 2))
        self.core, self.target = (
            mpodis.mpo_from_tensors([put(t) for t in random_cores(LEGS, 1, is_complex, seed)])
            for seed in (4, 7)
        )
        layers = (
            (Placement((0, 1)), Placement((2,))),
            (Placement((2, 0)),),
            (Placement((1, 2), "CZ"),),
        )
        ansatz = Ansatz(3, layers, "U" if is_complex else "SO")
        made = (mpodis.random_circuit(ansatz, seed=seed) for seed in (5, 6))
        self.left, self.right = (Circuit(ansatz, [put(gate) for gate in c.gates]) for c in made)
        self.whole = Factorization(self.left, self.core, self.right, (8, 7))


FUNCTIONS = {
    "compress": lambda x: mpodis.compress(x.matrix, max_bond=2),
    "site_tensors": lambda x: mpodis.site_tensors(x.mpo),
    "mpo_from_tensors": lambda x: mpodis.mpo_from_tensors(x.tensors),
    "mpo_to_dense": lambda x: mpodis.mpo_to_dense(x.mpo, shape=(4, 3)),
    "truncate": lambda x: mpodis.truncate(x.mpo, max_bond=2),
    "canonical_form": lambda x: mpodis.canonical_form(x.mpo, centre=0),
    "overlap": lambda x: mpodis.overlap(x.mpo, x.product),
    "log_norm": lambda x: mpodis.log_norm(x.mpo),
    "bond_spectra": lambda x: mpodis.bond_spectra(x.mpo),
    "entanglement": lambda x: mpodis.entanglement(x.matrix),
    "von_neumann_bound": lambda x: mpodis.von_neumann_bound(x.mpo, x.product, group="SO"),
    "count_parameters": lambda x: mpodis.count_parameters(x.mpo),
    "fit_core": lambda x: mpodis.fit_core(x.mpo, max_bond=1, max_sweeps=1),
    "fit_core, weighted": lambda x: mpodis.fit_core(
        x.mpo, max_bond=2, covariance=x.metric, max_sweeps=1
    ),
    "Circuit.to_dense": lambda x: x.left.to_dense(),
    "Circuit.apply": lambda x: x.left.apply(x.batch),
    "Circuit.adjoint": lambda x: x.left.adjoint(),
    "Circuit.projected": lambda x: x.left.projected(),
    "Factorization.to_dense": lambda x: x.whole.to_dense(),
    "Factorization.overlap": lambda x: x.whole.overlap(x.target),
    "true_overlap": lambda x: mpodis.true_overlap(x.whole, x.target),
    "true_loss": lambda x: mpodis.true_loss(x.whole, x.target),
    "to_mpo": lambda x: mpodis.to_mpo(x.whole),
}
COMPUTED_WITH_NUMPY = ("to_mpo",)
"""Its engine is numpy's, whatever the arrays."""
MPOS = ("compress", "truncate", "canonical_form", "fit_core", "fit_core, weighted", "to_mpo")
"""Compared by the dense matrix, which comes first: site tensors have a gauge freedom."""


def arrays_and_figures(value) -> tuple[list, list]:
    """What a result holds: arrays, which stay in their backend, and figures, which are numbers."""
    match value:
        case MatrixProductOperator():
            return [mpodis.mpo_to_dense(value), *(t.data for t in value)], []
        case Compressed():
            arrays, _ = arrays_and_figures(value.mpo)
            return arrays, [value.relative_error, *value.shape]
        case Circuit():
            return [value.to_dense(), *value.gates], []
        case Entanglement():
            return [], [*value.entropies, *value.bonds]
        case OverlapEstimate():
            return [], [value.value, value.error]
        case LossEstimate():
            return [], [value.loss, value.infidelity]
        case tuple():  # spectra
            return [], [number for spectrum in value for number in spectrum]
        case list():
            return value, []
        case float() | int():
            return [], [value]
    return [value], []


@cache
def expected(name: str, dtype: str) -> tuple[list, list]:
    """In numpy, and double precision."""
    wide = dtype.replace("32", "64")
    return arrays_and_figures(FUNCTIONS[name](Inputs("numpy", wide)))


@cache
def inputs(backend: str, dtype: str) -> Inputs:
    return Inputs(backend, dtype)


SLOW = dict.fromkeys(("fit_core", "fit_core, weighted"), ("float32", "float64"))
CASES = [
    # jax compiles every operation of these on every shape
    pytest.param(
        name,
        backend,
        dtype,
        marks=[pytest.mark.no_cover] * (backend == "jax")
        + [pytest.mark.slow] * (backend == "jax" and dtype in SLOW.get(name, ("float64",))),
    )
    for name in FUNCTIONS
    for backend in TYPES
    for dtype in DTYPES
]


@pytest.mark.parametrize(("name", "backend", "dtype"), CASES)
def test_the_backend_dtype_and_device_stay(name, backend, dtype):
    arrays, figures = arrays_and_figures(FUNCTIONS[name](inputs(backend, dtype)))
    if name not in COMPUTED_WITH_NUMPY:
        for array in arrays:
            assert isinstance(array, TYPES[backend])
            assert str(array.dtype).removeprefix("torch.") == dtype
    for figure in figures:
        assert isinstance(figure, int | float)
    expected_arrays, expected_figures = expected(name, dtype)
    tolerance = TOL[dtype]
    compared = 1 if name in MPOS else len(arrays)
    for array, exact in list(zip(arrays, expected_arrays, strict=True))[:compared]:
        scale = np.linalg.norm(exact)
        assert_allclose(to_numpy(array), exact, rtol=0, atol=tolerance * scale)
    assert_allclose(figures, expected_figures, rtol=0, atol=tolerance * 10)


@pytest.mark.parametrize("backend", TYPES)
def test_real_operators_between_complex_gates(backend):
    real, wide = inputs(backend, "float64"), inputs(backend, "complex128")
    mixed = Factorization(wide.left, real.core, wide.right, (8, 8))
    found = mixed.to_dense()
    assert isinstance(found, TYPES[backend])
    left, right = (to_numpy(circuit.to_dense()) for circuit in (wide.left, wide.right))
    assert_allclose(to_numpy(found), left @ to_numpy(mixed.core_to_dense()) @ right, atol=1e-11)
    target = inputs("numpy", "float64").target
    assert_allclose(mixed.overlap(real.target), mixed.to_numpy().overlap(target), atol=1e-12)
    assert_allclose(mpodis.overlap(real.mpo, wide.mpo), mpodis.overlap(wide.mpo, real.mpo))


def test_gradients_of_torch_flow_through_circuits_and_cores():
    x = inputs("torch", "float64")
    gates = [gate.clone().requires_grad_() for gate in x.left.gates]
    whole = Factorization(Circuit(x.left.ansatz, gates), x.core, x.right, (8, 8))
    whole.to_dense().square().sum().backward()
    assert all(gate.grad is not None for gate in gates)
    assert to_numpy(gates[0].conj()).dtype == np.float64  # detached


def test_numpy_arrays_go_where_another_array_is():
    found = as_like(np.ones((2, 2)) * 1j, torch.zeros(1, dtype=torch.float32))
    assert found.dtype == torch.complex64
    assert as_like(np.arange(3), jax.numpy.zeros(1, dtype="float32")).dtype == "float32"
    assert to_numpy(torch.ones(2, dtype=torch.complex128).conj()).dtype == np.complex128
