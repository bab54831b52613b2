"""Gates of few CNOTs that come nearest to what an environment asks for."""

from __future__ import annotations

import numpy as np

from mpodis.gates import FIXED, polar, random_gate

__all__ = ["nearest_one_cnot", "nearest_product"]

STARTS = 8
ROUNDS = 12


def nearest_product(environment, *, group: str = "SO"):
    """Gates a, b on single wires that maximise Re Tr(E^H (a x b)), by alternating polar factors.

    Parameters
    ----------
    environment : array (..., 4, 4)
        E; for a gate g in its place, the product nearest to g. Stacks are treated one by one.
    group : {"SO", "O", "U"}

    Returns
    -------
    a, b : arrays (..., 2, 2)
    """
    # the best a x b of any norm is the first term of the operator Schmidt decomposition
    parts = _split(environment)
    u = np.linalg.svd(parts.reshape(*parts.shape[:-4], 4, 4))[0][..., :, 0]
    a = polar(u.reshape(*u.shape[:-1], 2, 2), group=group)
    for _ in range(ROUNDS):
        b = polar(_second(parts, a), group=group)
        a = polar(_first(parts, b), group=group)
    return a, b


def nearest_one_cnot(environment, *, group: str = "SO", seed=0):
    """Gates with one CNOT, (a x b) CNOT (c x d), that maximise Re Tr(E^H g).

    The four take turns, from several starts, of which the best one counts for each environment of
    a stack.

    Parameters
    ----------
    environment : array (..., 4, 4)
    group : {"SO", "O", "U"}
        Of the gates on single wires.
    seed : int or numpy Generator
        Of the starts.

    Returns
    -------
    (a, b), (c, d) : pairs of arrays (..., 2, 2)
        What stands before the CNOT and behind it.
    """
    rng = np.random.default_rng(seed)
    cnot, shape = FIXED["CNOT"], (STARTS, *environment.shape[:-2], 2, 2)
    draws = [[random_gate(2, group=group, rng=rng) for _ in range(4)] for _ in range(STARTS)]
    a, b, c, d = (
        np.broadcast_to(np.stack(gates).reshape(STARTS, *(1,) * (len(shape) - 3), 2, 2), shape)
        for gates in zip(*draws, strict=True)
    )
    for _ in range(ROUNDS):
        # Re Tr(E^H p C q) = Re Tr((E q^H C)^H p) = Re Tr((C p^H E)^H q), as C = C^H
        parts = _split(environment @ _dagger(kron(c, d)) @ cnot)
        a = polar(_first(parts, b), group=group)
        b = polar(_second(parts, a), group=group)
        parts = _split(cnot @ _dagger(kron(a, b)) @ environment)
        c = polar(_first(parts, d), group=group)
        d = polar(_second(parts, c), group=group)
    values = np.einsum("...ij,...ij->...", environment.conj(), kron(a, b) @ cnot @ kron(c, d)).real
    best = np.argmax(values, axis=0)[None, ..., None, None]
    a, b, c, d = (np.take_along_axis(gates, best, axis=0)[0] for gates in (a, b, c, d))
    return (a, b), (c, d)


def kron(a, b):
    """a x b of stacks of 2 x 2 matrices."""
    whole = np.einsum("...ij,...kl->...ikjl", a, b)
    return whole.reshape(*whole.shape[:-4], 4, 4)


def _split(environment):
    """(..., 4, 4) -> (..., i, j, k, l) with rows (i, k) and columns (j, l)."""
    return np.swapaxes(environment.reshape(*environment.shape[:-2], 2, 2, 2, 2), -3, -2)


def _first(parts, b):
    """Environment of a beside b."""
    return np.einsum("...kl,...ijkl->...ij", b.conj(), parts)


def _second(parts, a):
    return np.einsum("...ij,...ijkl->...kl", a.conj(), parts)


def _dagger(x):
    return np.swapaxes(x.conj(), -1, -2)
