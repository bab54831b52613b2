"""What circuits can reach at best: rigorous bounds, and the best found with the widest gates.

A core between circuits keeps its singular values, whatever the circuits; a bound uses no more. It
is out of reach of every circuit; `full_width` is a reference, which another start may improve.
"""

from mpodis.bounds.spectral import weighted_bound
from mpodis.bounds.widest import FullWidth, full_width

__all__ = ["FullWidth", "full_width", "weighted_bound"]
