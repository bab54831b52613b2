"""mpodis: turn linear layers into matrix product operators and disentangle them with circuits.

Names are resolved when they are first used: importing mpodis loads no torch, qiskit or quimb.
"""

from __future__ import annotations

import importlib

__version__ = "0.1.0"

_HOME = {
    "ansatz": (
        "Ansatz",
        "Placement",
        "brickwall",
        "circuit_group",
        "from_spec",
        "pair_from_spec",
        "staircase",
        "tie_gates",
    ),
    "baselines": ("Approximation", "bond_for", "low_rank", "rank_for", "truncation"),
    "blocks": ("best_monarch", "monarch", "monarch_sizes"),
    "bounds": ("FullWidth", "full_width", "weighted_bound"),
    "circuit": ("Circuit", "embed", "identity_circuit", "random_circuit"),
    "cnots": (
        "ParetoFront",
        "ParetoPoint",
        "Resynthesis",
        "cnot_count",
        "gate_cnots",
        "pareto",
        "prune",
        "resynthesise",
    ),
    "cores": ("fit_core",),
    "direct": ("CircuitFactors", "circuit_qr", "circuit_svd"),
    "disentangler": (
        "Disentangled",
        "History",
        "KrausEnsemble",
        "Synthesis",
        "disentangle",
        "kraus_ensemble",
        "resume",
        "synthesise",
    ),
    "encodings": (
        "Encoding",
        "Encodings",
        "brickwall_encodings",
        "layered_encoding",
        "mps_encoding",
    ),
    "environments": ("Truth", "engine_estimates", "to_mpo", "true_overlap"),
    "factorization": ("Factorization", "load_factorization"),
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
    "mpo": ("Compressed", "canonical_form", "compress", "from_linear", "truncate"),
    "order": (
        "HeadRotation",
        "Ordered",
        "Reordering",
        "carry_mean",
        "head_rotation",
        "neuron_order",
        "pca_basis",
        "site_order",
    ),
    "sites": ("mpo_cores", "mpo_from_cores", "mpo_to_dense"),
    "tables": ("Table",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = sorted(["__version__", *_WHERE])


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'mpodis' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"mpodis.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
