"""What stands beside circuits: low rank, Monarch matrices, bounds, orders and bases of layers."""

from mpodis.structured.basis import HeadRotation, absorb_mean_into_bias, head_rotation, pca_basis
from mpodis.structured.bounds import weighted_bound
from mpodis.structured.full_width import FullWidth, full_width
from mpodis.structured.low_rank import Approximation, bond_for, low_rank, rank_for, truncation
from mpodis.structured.monarch import best_monarch, monarch, monarch_sizes
from mpodis.structured.neuron_order import Ordered, neuron_order
from mpodis.structured.reordering import Reordering
from mpodis.structured.site_order import site_order

__all__ = [
    "Approximation",
    "FullWidth",
    "HeadRotation",
    "Ordered",
    "Reordering",
    "best_monarch",
    "bond_for",
    "absorb_mean_into_bias",
    "full_width",
    "head_rotation",
    "low_rank",
    "monarch",
    "monarch_sizes",
    "neuron_order",
    "pca_basis",
    "rank_for",
    "site_order",
    "truncation",
    "weighted_bound",
]
