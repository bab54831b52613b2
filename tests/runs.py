"""What the tests of interrupted runs share: the same result, and a history's lines."""

from numpy.testing import assert_array_equal

from mpodis.sites import site_tensors
from mpodis.store import RunStore


def arrays(result):
    f = result.factorization
    return [*f.left.gates, *site_tensors(f.core), *f.right.gates]


def assert_same_result(a, b):
    for x, y in zip(arrays(a), arrays(b), strict=True):
        assert x.dtype == y.dtype
        assert_array_equal(x, y)
    assert (a.status, a.init, a.options) == (b.status, b.init, b.options)
    assert (a.overlap, a.bound) == (b.overlap, b.bound)
    assert len(a.history) == len(b.history)
    for name in ("init", "sweep", "phase", "loss", "overlap", "bound", "s_avg", "activations"):
        assert_array_equal(a.history.column(name), b.history.column(name))


def lines(path):
    """All records of a history, its checksums compared."""
    store, *_ = RunStore.read(path)
    return store.history()
