"""What `disentangle` refuses, each in one line with the value and the remedy."""

from functools import cache

import numpy as np
import pytest

from mpodis.circuit.ansatz import brickwall
from mpodis.disentangling import disentangle
from mpodis.mpo import compress
from mpodis.options import SearchOptions
from mpodis.sites import mpo_from_tensors, site_tensors
from reference import (
    random_matrix,
)

QUICK = {"n_init": 1, "max_sweeps": 6}


@cache
def operator(*shape, is_complex=False, seed=0):
    return compress(random_matrix(shape, is_complex, seed))


def wide_mpo():
    return mpo_from_tensors([np.ones((1, 2, 2, 1))] * 14)


def spoiled(value):
    cores = site_tensors(operator(8, 8).mpo)
    cores[1] = cores[1] * 0 if value == 0 else np.full_like(cores[1], value)
    return mpo_from_tensors(cores)


SECOND = {"objective": "activations"}
ERRORS = [
    ({"objective": "f"}, "objective='f' is not known; use one of overlap, activations"),
    ({"method": "adam"}, "method='adam' is not known; use one of auto, sweeps, lbfgs"),
    ({"engine": "gpu"}, "engine='gpu' is not known; use one of auto, dense, transverse, tree, b"),
    ({"init": "haar"}, "init='haar' is not known; use one of auto, identity, random, ent"),
    ({"core": "free"}, "core='free' is not known; use one of update, fixed"),
    ({"max_bond": 0}, "max_bond=0 must be a whole number, 1 or more"),
    ({"max_bond": 1.5}, "max_bond=1.5 must be a whole number, 1 or more"),
    ({"n_init": 0}, "n_init=0 must be a whole number"),
    ({"init_sweeps": -1}, "init_sweeps=-1 must be a whole number"),
    ({"max_sweeps": None}, "max_sweeps=None must be a whole number"),
    ({"init_scale": -0.1}, "init_scale=-0.1 must be a number, 0.0 or more"),
    ({"init_scale": float("nan")}, "init_scale=nan must be a number"),
    ({"tol": "small"}, "tol='small' must be a number"),
    ({"max_seconds": 0}, "max_seconds=0 must be a positive number, or None"),
    ({"max_seconds": "1 h"}, "max_seconds='1 h' must be a positive number"),
    ({"seed": -1}, "seed=-1 must be a whole number, 0 or more"),
    ({"seed": "x"}, "seed='x' must be a whole number"),
    ({"seed": True}, "seed=True must be a whole number"),
    (
        {"method": "sweeps", "covariance": np.eye(8), **SECOND},
        "closed-form updates on both sides, which .* use method='auto'",
    ),
    ({"engine": "tree", **SECOND}, "engine='tree' does not have it, use engine='dense'"),
    ({"group": "SU"}, "group='SU' is not known; use one of SO, O, U"),
    ({"left": 0}, "depth=0 must be 1 or more layers"),
    ({"left": "4b"}, "a gate on 4 wires does not fit a circuit of 3; use widths from 1 to 3"),
    ({"left": "two"}, "gate 'two' in the circuit spec 'two' is not known; use one of CNOT, CZ"),
    ({"left": brickwall(4, 1)}, "left= has 4 wires, the operator 3"),
    ({"right": brickwall(4, 1)}, "right= has 4 wires, the operator 3"),
    (
        {"mpo": operator(8, 4), "left": brickwall(3, 1)},
        "the left ansatz has 3 wires and cannot be mirrored onto 2; give right= too",
    ),
    (SECOND, r"give inputs= \(samples, features\) or covariance=, their second moment"),
    (
        {"inputs": np.ones((5, 7)), **SECOND},
        "inputs= or covariance= has 7 features, the layer 8 inputs",
    ),
    ({"inputs": np.ones((5, 9))}, "inputs= or covariance= has 9 features, the layer 8 inputs"),
    ({"inputs": np.ones(8)}, r"inputs must be \(samples, features\), got .* \(8,\)"),
    ({"inputs": np.full((5, 8), np.nan)}, "40 entries of the inputs are NaN or infinite"),
    ({"inputs": np.eye(8), "covariance": np.eye(8)}, "give inputs= or covariance=, not both"),
    ({"covariance": np.eye(4)}, "inputs= or covariance= has 4 features, the layer 8 inputs"),
    ({"covariance": np.ones((5, 8))}, r"the covariance has shape \(5, 8\), the layer 8 inputs"),
    ({"covariance": np.float64(3)}, r"the covariance has shape \(\), the layer 8 inputs"),
    ({"covariance": np.triu(np.ones((8, 8)))}, "the covariance is not Hermitian; give"),
    ({"covariance": -np.eye(8)}, "the covariance has a negative eigenvalue -1"),
    ({"covariance": np.full((8, 8), np.nan)}, "the covariance is zero everywhere, NaN or inf"),
    (
        {"sensitivity": np.eye(8)},
        "sensitivity= weighs the activations; use objective='activations'",
    ),
    (
        {"inputs": np.eye(8), "sensitivity": np.eye(4), **SECOND},
        r"the sensitivity has shape \(4, 4\), the layer 8 outputs",
    ),
    (
        {"inputs": np.eye(8), "sensitivity": np.tri(8), **SECOND},
        "the sensitivity is not Hermitian",
    ),
    ({"mpo": spoiled(np.nan)}, "entries of the MPO are NaN or infinite"),
    ({"mpo": spoiled(np.inf)}, "entries of the MPO are NaN or infinite"),
    ({"mpo": spoiled(0)}, "the MPO is zero everywhere; there is nothing to disentangle"),
    (
        {"mpo": compress(np.eye(8), legs=((4, 4), (2, 2)))},
        "the left legs .* hold a dimension 4; circuits act on qubits",
    ),
    ({"mpo": compress(np.eye(6, 8), legs=((3, 2), (2, 4)))}, "hold a dimension 3"),
    ({"mpo": wide_mpo(), "engine": "dense"}, "would hold 16384 x 16384 matrices, beyond 8192; eng"),
    ({"mpo": wide_mpo(), "memory": 1.0}, "no engine fits this problem: .* Use fewer layers"),
    ({"mpo": wide_mpo(), **SECOND}, "a dimension of 16384 is beyond 8192; use objective='overlap'"),
    ({"memory": 0}, "memory=0 must be a positive number, or None"),
    ({"dtype": "half"}, "dtype='half' is not known; use one of float32, float64"),
    (
        {"device": "abacus", "engine": "dense"},
        "device='abacus' is not available .* use device",
    ),
    ({"environment_bond": 0}, "environment_bond=0 must be a whole number, 1 or more, or several"),
    ({"environment_bond": (32, 16)}, r"environment_bond=\(32, 16\) must be .* ascending order"),
    ({"environment_bond": ()}, "must be a whole number, 1 or more, or several in ascending order"),
    (
        {"mpo": operator(8, 8).mpo, "shape": (9, 8)},
        r"shape=\(9, 8\) does not lie within .*\(8, 8\)",
    ),
    ({"mpo": operator(8, 8).mpo, "shape": (0, 8)}, r"shape=\(0, 8\) must be"),
    ({"mpo": operator(8, 8).mpo, "shape": (8,)}, r"shape=\(8,\) must be .inputs, outputs.,"),
]


@pytest.mark.parametrize(("options", "text"), ERRORS, ids=lambda x: x if isinstance(x, str) else "")
def test_errors_name_the_value_and_the_remedy(options, text):
    options = {"mpo": operator(8, 8), "left": 1, **QUICK, **options}
    with pytest.raises(ValueError, match=text) as error:
        disentangle(options.pop("mpo"), **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("left", [True, 2.0, [2]])
def test_what_is_no_circuit_is_refused(left):
    with pytest.raises(
        TypeError, match="is not a circuit; give an Ansatz, a Circuit, a depth, or a spec like"
    ):
        disentangle(operator(8, 8), left=left)


def test_unknown_settings_are_an_error():
    assert SearchOptions.from_dict(SearchOptions(tol=0.5).to_dict()) == SearchOptions(tol=0.5)
    with pytest.raises(ValueError, match="unknown option 'depth'; use one of core, device"):
        SearchOptions.from_dict({"depth": 3})
    # numbers of numpy become those that JSON knows
    settings = SearchOptions(max_bond=np.int64(3), tol=np.float32(0.5))
    assert [type(v) for v in (settings.max_bond, settings.tol)] == [int, float]


def test_a_sensitivity_is_refused_where_it_would_be_ignored():
    mpo = compress(np.eye(4)).mpo
    with pytest.raises(ValueError, match="use objective='activations'"):
        disentangle(mpo, depth=1, covariance=np.eye(4), sensitivity=np.eye(4))
