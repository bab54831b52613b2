"""What the tests of cores share: legs, targets and weights."""

import numpy as np
import pytest

from mpodis.conventions import padded_shape
from reference import random_cores, random_matrix

QUBITS = ((2, 2),) * 4
ODD = ((2, 1), (3, 2), (1, 2), (2, 3))
KINDS = pytest.mark.parametrize("complex_", [False, True], ids=["real", "complex"])
WEIGHTS = pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])


def random_metric(rows, complex_=False, rank=None, seed=0):
    """Second moment of `rank` random inputs whose features differ widely in size."""
    rank = 2 * rows if rank is None else rank
    x = random_matrix((rank, rows), complex_, seed) * np.geomspace(1, 0.05, rows)
    return x.conj().T @ x / rank


def root(metric):
    values, vectors = np.linalg.eigh(metric)
    return vectors * np.sqrt(values.clip(0)) @ vectors.conj().T


def setting(legs, complex_, weighted, bond=2, seed=0):
    """(target, cores, metric or None) on some legs."""
    rows, columns = padded_shape(legs)
    target = random_matrix((rows, columns), complex_, seed)
    cores = random_cores(legs, bond, complex_, seed + 1)
    return target, cores, random_metric(rows, complex_, seed=seed + 2) if weighted else None
