"""Products of block-diagonal matrices with strides between them: Monarch, up to the butterfly.

The structured rival of a disentangled layer at equal parameters (arXiv 2204.00595).
"""

from mpodis.blocks.monarchs import MonarchSize, best_monarch, monarch, monarch_sizes

__all__ = ["MonarchSize", "best_monarch", "monarch", "monarch_sizes"]
