"""The order of sites and neurons, and the basis, before any gate is spent.

A network often leaves free what a bond is sensitive to: the order in which pixels are read into an
operator, the order of hidden neurons, rotations inside an attention head. Choosing them costs no
parameter and no gate.
"""

from mpodis.order.basis import HeadRotation, carry_mean, head_rotation, pca_basis
from mpodis.order.neurons import nearer_order, neuron_order
from mpodis.order.reordering import Ordered, Reordering
from mpodis.order.sites import site_order

__all__ = [
    "HeadRotation",
    "Ordered",
    "Reordering",
    "carry_mean",
    "head_rotation",
    "nearer_order",
    "neuron_order",
    "pca_basis",
    "site_order",
]
