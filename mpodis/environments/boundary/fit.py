"""ALS and environments of the core against the target pulled through the circuits: two MPOs.

Everything here is double precision in numpy, since the core is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from mpodis.environments.boundary.contraction import safe_exp, with_safe_norm
from mpodis.sites import mirrored, right_canonical, spread_norm

__all__ = ["als_core_mpo", "core_environments"]

Pulled: TypeAlias = tuple[Sequence[np.ndarray], float]
"""Site tensors of Q_L^H G Q_R^H and the log of a factor."""


def core_environments(pulled: Pulled, core: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Environment of every site of the core, for h = Re <pulled|core>."""
    sites, log = pulled
    blocks = _right_blocks(sites, core)
    left, found = np.ones((1, 1)), []
    for site, k, (right, log_right) in zip(core, range(len(core)), blocks, strict=True):
        half = _attach(left, sites[k])  # (a io, t)
        found.append((half @ right).reshape(site.shape) * safe_exp(log + log_right))
        left, size = with_safe_norm(site.conj().reshape(-1, site.shape[3]).T @ half)  # (b, t)
        log += size
    return found


def als_core_mpo(pulled: Pulled, core: Sequence[np.ndarray]) -> list[np.ndarray]:
    """One ALS sweep of the core, as `fit.als_sweep` does it for a dense target.

    Returns
    -------
    list of arrays
        Site tensors of the same shape. The first carries the norm; where that is extreme, all do.
    """
    sites, log = pulled
    core = _pass(sites, core)
    core = mirrored(_pass(mirrored(sites), mirrored(core)))
    if abs(log) > 300:
        return spread_norm(core, log)
    return [core[0] * math.exp(log), *core[1:]]


def _pass(sites: Sequence[np.ndarray], core: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Solve the sites of the core from the first to the last; the norm ends in the last."""
    core, _ = right_canonical(core)
    blocks = _right_blocks(sites, core)
    left, log, last = np.ones((1, 1)), 0.0, len(core) - 1
    for k, (right, log_right) in enumerate(blocks):
        a, i, o, b = core[k].shape
        half = _attach(left, sites[k])  # (a io, t)
        centre = half @ right  # L^H T R^H: (a io, b)
        if k == last:
            core[k] = centre.reshape(a, i, o, b) * math.exp(log + log_right)
            break
        q, r = np.linalg.qr(centre)
        core[k] = q.reshape(a, i, o, -1)
        core[k + 1] = (r @ core[k + 1].reshape(b, -1)).reshape(-1, *core[k + 1].shape[1:])
        left, size = with_safe_norm(q.conj().T @ half)  # (b, t)
        log += size
    return core


def _right_blocks(
    sites: Sequence[np.ndarray], core: Sequence[np.ndarray]
) -> list[tuple[np.ndarray, float]]:
    """Contraction right of every site: (target bond, core bond), and the log of a factor."""
    blocks = [(np.ones((1, 1)), 0.0)]
    for t, c in zip(sites[:0:-1], core[:0:-1], strict=True):
        right, log = blocks[-1]
        half = (t.reshape(-1, t.shape[3]) @ right).reshape(t.shape[0], -1)  # (s, io b)
        right, size = with_safe_norm(half @ c.conj().reshape(c.shape[0], -1).T)  # (s, a)
        blocks.append((right, log + size))
    return blocks[::-1]


def _attach(left: np.ndarray, site: np.ndarray) -> np.ndarray:
    """(a, s) and (s, i, o, t) -> (a io, t)."""
    return (left @ site.reshape(site.shape[0], -1)).reshape(-1, site.shape[3])
