"""What target and core make of each other once the circuits are off: a form of two MPOs.

Everything here is double precision on the host: the core is small.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mpodis.environments.boundary.strip import exponential, scaled
from mpodis.sites import mirrored, right_canonical, spread_norm

__all__ = ["als_core_mpo", "core_environments"]

Target = tuple[Sequence, float]
"""Cores of an MPO and the log of a factor."""


def core_environments(target: Target, core: Sequence) -> list:
    """dh/d conj(site) of every site of the core, h = Re <target|core>."""
    sites, log = target
    blocks = _right_blocks(sites, core)
    left, found = np.ones((1, 1)), []
    for site, k, (right, log_right) in zip(core, range(len(core)), blocks, strict=True):
        half = _attach(left, sites[k])  # (a io, t)
        found.append((half @ right).reshape(site.shape) * exponential(log + log_right))
        left, size = scaled(site.conj().reshape(-1, site.shape[3]).T @ half)  # (b, t)
        log += size
    return found


def als_core_mpo(target: Target, core: Sequence) -> list:
    """One ALS sweep of the core towards the target, as `fit.als_sweep` does it for dense ones.

    Returns
    -------
    list of arrays
        Cores of the same shape, the first carrying the norm (all of them, where it is extreme).
    """
    sites, log = target
    core = _pass(sites, core)
    core = mirrored(_pass(mirrored(sites), mirrored(core)))
    if abs(log) > 300:
        return spread_norm(core, log)
    return [core[0] * math.exp(log), *core[1:]]


def _pass(sites: Sequence, core: Sequence) -> list:
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
        left, size = scaled(q.conj().T @ half)  # (b, t)
        log += size
    return core


def _right_blocks(sites: Sequence, core: Sequence) -> list:
    """What is right of every site: arrays (target bond, core bond) and logs of their factors."""
    blocks = [(np.ones((1, 1)), 0.0)]
    for t, c in zip(sites[:0:-1], core[:0:-1], strict=True):
        right, log = blocks[-1]
        half = (t.reshape(-1, t.shape[3]) @ right).reshape(t.shape[0], -1)  # (s, io b)
        right, size = scaled(half @ c.conj().reshape(c.shape[0], -1).T)  # (s, a)
        blocks.append((right, log + size))
    return blocks[::-1]


def _attach(left, site):
    """(a, s) and (s, i, o, t) -> (a io, t)."""
    return (left @ site.reshape(site.shape[0], -1)).reshape(-1, site.shape[3])
