"""Approximations and bounds to compare circuits with; orders and bases of a layer.

Low rank, Monarch matrices and plain MPOs, what loss circuits around a core can reach, permutations
of rows, columns and sites, and rotations that neighbouring layers absorb.
"""

from mpodis.structured.achievable_loss import (
    FullWidthGates,
    activation_loss_bound,
    full_width_gates,
)
from mpodis.structured.approximation import (
    Approximation,
    bond_for,
    mpo_parameters,
    rank_for,
    zero_matrix,
)
from mpodis.structured.basis import HeadRotation, absorb_mean_into_bias, head_rotation, pca_basis
from mpodis.structured.low_rank import low_rank
from mpodis.structured.monarch import MonarchSize, best_monarch, monarch, monarch_sizes
from mpodis.structured.neuron_order import improve_permutation, neuron_order
from mpodis.structured.reordering import FoundOrder, Reordering
from mpodis.structured.site_order import site_order
from mpodis.structured.truncated_mpo import truncated_mpo

__all__ = [
    "Approximation",
    "FoundOrder",
    "FullWidthGates",
    "HeadRotation",
    "MonarchSize",
    "Reordering",
    "absorb_mean_into_bias",
    "activation_loss_bound",
    "best_monarch",
    "bond_for",
    "full_width_gates",
    "head_rotation",
    "improve_permutation",
    "low_rank",
    "monarch",
    "monarch_sizes",
    "mpo_parameters",
    "neuron_order",
    "pca_basis",
    "rank_for",
    "site_order",
    "truncated_mpo",
    "zero_matrix",
]
