"""mpodis: turn linear layers into matrix product operators and disentangle them with circuits.

Names are resolved when they are first used: importing mpodis loads no torch, qiskit or quimb.
"""

from __future__ import annotations

import importlib

__version__ = "0.2.0"

_HOME = {
    "circuit": (
        "Ansatz",
        "Circuit",
        "Placement",
        "brickwall",
        "circuit_from_quimb",
        "circuit_group",
        "circuit_to_quimb",
        "coupling_brickwall",
        "coupling_line",
        "embed",
        "from_spec",
        "identity_circuit",
        "pair_from_spec",
        "random_circuit",
        "staircase",
        "tie_gates",
    ),
    "compiling": ("Compiled", "compile_state", "compile_unitary", "load_run"),
    "direct": ("CircuitFactors", "circuit_qr", "circuit_svd"),
    "disentangling": ("disentangle", "resume"),
    "encodings": (
        "EncodedVector",
        "EncodedVectors",
        "brickwall_encodings",
        "layered_encoding",
        "mps_encoding",
    ),
    "environments": (
        "LossEstimate",
        "OverlapEstimate",
        "engine_estimates",
        "to_mpo",
        "true_loss",
        "true_overlap",
    ),
    "factorization": ("Factorization", "load_factorization"),
    "explorer": ("explore",),
    "fit": ("fit_core",),
    "gates": ("Gate", "register_gate"),
    "hamiltonians": ("pauli_chain",),
    "kraus": ("KrausEnsemble", "kraus_ensemble"),
    "measures": (
        "Entanglement",
        "bond_spectra",
        "count_parameters",
        "entanglement",
        "log_norm",
        "max_average_entropy",
        "overlap",
        "second_moment",
        "von_neumann_bound",
    ),
    "mpo": ("Compressed", "as_mpo", "canonical_form", "compress", "truncate"),
    "objectives": ("Activations", "Overlap", "register_objective"),
    "optimise.result": ("Disentangled", "History"),
    "resynthesis": (
        "ParetoFront",
        "ParetoPoint",
        "Resynthesis",
        "cnot_count",
        "cnot_depth",
        "gate_cnots",
        "pareto",
        "prune",
        "resynthesise",
    ),
    "sites": ("site_tensors", "mpo_from_tensors", "mpo_to_dense"),
    "structured": (
        "Approximation",
        "FoundOrder",
        "FullWidthGates",
        "HeadRotation",
        "Reordering",
        "absorb_mean_into_bias",
        "activation_loss_bound",
        "best_monarch",
        "bond_for",
        "full_width_gates",
        "head_rotation",
        "low_rank",
        "monarch",
        "monarch_sizes",
        "neuron_order",
        "pca_basis",
        "rank_for",
        "site_order",
        "truncated_mpo",
    ),
    "study": ("Study", "StudyResults", "load_study"),
    "synthesis": ("Synthesis", "synthesise"),
    "tables": ("Table",),
    "time_evolution": ("Evolution", "evolution", "trotter"),
    "weights": ("load_mpo", "save_mpo"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

_MODULES = ("targets",)

__all__ = sorted(["__version__", *_WHERE])


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"mpodis.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'mpodis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mpodis.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
