"""Fits of block-diagonal factors to the distance |C (M - A) S|: ALS, then L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from mpodis.conventions import padded_shape
from mpodis.structured.monarch_plan import Plan, backward, forward, product_of, tails

__all__ = ["Distance", "als_sweep", "fit_factors"]

NORMAL = 2**23
"""Entries of the normal equations of a factor beyond which only L-BFGS fits it."""


class Distance:
    """|C (M - A) S|^2 / |C M S|^2 of a reordered matrix A, and its derivative.

    Parameters
    ----------
    plan : Plan
    target : array (rows, columns)
        M, reordered and padded.
    shape : (inputs, outputs)
        Before padding; nobody feels the rest.
    metric, felt : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2, by default the identity.
    """

    def __init__(self, plan: Plan, target, shape, metric=None, felt=None) -> None:
        self.plan, self.target = plan, target
        rows, columns = plan.order
        metric = np.eye(shape[0]) if metric is None else metric
        self.metric = _reordered(metric, rows)
        self.is_diagonal = felt is None
        self.felt = (
            (columns < shape[1]).astype(float) if felt is None else _reordered(felt, columns)
        )
        self.norm = float(np.vdot(target, self.weigh(target)).real)
        self.aim = self.weigh(target)
        if not self.norm > 1e-28 * np.abs(self.metric).max() * np.linalg.norm(target) ** 2:
            raise ValueError(
                "the layer answers none of the given inputs (C M S = 0); check that the moments "
                "belong to this layer"
            )

    def weigh(self, matrix):
        """C^2 X S^2."""
        matrix = self.metric @ matrix
        return matrix * self.felt if self.is_diagonal else matrix @ self.felt

    def loss(self, factors: Sequence) -> float:
        return self.at(product_of(self.plan, factors))[0]

    def at(self, dense):
        """The distance of A, and the derivative by conj(A), halved."""
        off = dense - self.target
        pull = self.weigh(off)
        return float(np.vdot(off, pull).real) / self.norm, pull / self.norm


def fit_factors(
    distance: Distance, start: Sequence, max_sweeps: int, iterations: int
) -> tuple[float, list]:
    """(loss, factors) after ALS sweeps from a start and L-BFGS; never above the start's loss."""
    best, factors = distance.loss(start), list(start)
    if is_small(distance):
        for _ in range(max_sweeps):
            swept = als_sweep(distance, factors)
            loss, before = distance.loss(swept), best
            if loss < best:
                best, factors = loss, swept
            if before - loss < 1e-4 * before:
                break
    if iterations:
        polished = _lbfgs(distance, factors, iterations)
        loss = distance.loss(polished)
        if loss < best:
            best, factors = loss, polished
    return best, factors


def is_small(distance: Distance) -> bool:
    """Whether the normal equations of every factor are within `NORMAL` entries."""
    for j in range(len(distance.plan.legs)):
        p, s, a, o, r = distance.plan.shape(j)
        systems = p * o if distance.is_diagonal else 1
        if systems * (p * s * a * o * r // systems) ** 2 > NORMAL:
            return False
    return True


def als_sweep(distance: Distance, factors: Sequence) -> list:
    """Give every factor in turn its best values with the others held: a linear system each."""
    plan, factors = distance.plan, list(factors)
    left = np.ones((1, padded_shape(plan.legs)[0], 1, 1))
    after = tails(plan, factors)  # of those behind a factor, which it does not change
    for j in range(len(factors)):
        factors[j] = _solved(distance, j, left, after[j], factors[j])
        left = forward(plan, factors, left, j)
    return factors


def _solved(distance: Distance, j: int, left, after, old):
    """The factor (p, s, a, o, r) that makes the distance smallest.

    A = X B Z with X what comes before and Z what comes after. Its normal equations are, for one
    value of the digits that are shared, the product of the Gram matrices X^H C^2 X and Z S^2 Z^H.
    Directions that nobody feels leave them singular; there a proximal term keeps what is.
    """
    p, s, a, o, _ = distance.plan.shape(j)
    q = after.shape[4]
    before = _spread_left(left, p, s, a)  # rows | p s a
    pulled = before.conj().T @ distance.aim  # p s a | p o q
    pulled = pulled.reshape(p, s, a, p, o, q)[np.arange(p), :, :, np.arange(p)]  # p s a o q
    linear = pulled.transpose(0, 1, 3, 2, 4) @ after.conj().transpose(0, 3, 1, 4, 2)  # p s o a r
    linear = linear.transpose(0, 1, 3, 2, 4)
    if distance.is_diagonal:
        # without a sensitivity the outputs are felt one by one: a system for every (p, o)
        form, axes = _forms_by_output(distance, before, after), (0, 3, 1, 2, 4)
    else:
        form, axes = _whole_form(distance, before, after), (0, 1, 2, 3, 4)
    linear, was = linear.transpose(axes), old.transpose(axes)
    ridge = 1e-13 * np.trace(form, axis1=-2, axis2=-1).real[..., None]
    ridge = np.where(ridge > 0, ridge, 1.0)
    form = form + ridge[..., None] * np.eye(form.shape[-1])
    known = linear.reshape(form.shape[:-1]) + ridge * was.reshape(form.shape[:-1])
    new = np.linalg.solve(form, known[..., None]).reshape(was.shape)
    return new.transpose(np.argsort(axes))


def _spread_left(left, p: int, s: int, a: int):
    """X as a matrix (rows, p s a), from its entries (u, i s, p, r); zero where digits differ."""
    u, _, _, bond = left.shape
    i = a // bond
    spread = np.zeros((u, i, s, p, s, bond, i), dtype=left.dtype)
    digit, rest = np.ogrid[:i, :s]
    entries = left.reshape(u, i, s, p, bond).transpose(1, 2, 0, 3, 4)
    spread[:, digit, rest, :, rest, :, digit] = entries
    return spread.reshape(u * i * s, p * s * a)


def _forms_by_output(distance: Distance, before, after):
    """The normal equations of every (p, o), (s a r, s a r) each."""
    p, o, r, s, q = after.shape
    a = before.shape[1] // (p * s)
    columns = before.reshape(-1, p, s * a).transpose(1, 0, 2)
    weighed = (distance.metric @ before).reshape(-1, p, s * a).transpose(1, 0, 2)
    gram = columns.conj().transpose(0, 2, 1) @ weighed
    z = after.transpose(0, 1, 3, 2, 4).reshape(p, o, s * r, q)
    gram_z = (z.conj() * distance.felt.reshape(p, o, 1, q)) @ z.transpose(0, 1, 3, 2)
    form = gram.reshape(p, 1, s, a, 1, s, a, 1) * gram_z.reshape(p, o, s, 1, r, s, 1, r)
    return form.reshape(p, o, s * a * r, s * a * r)


def _whole_form(distance: Distance, before, after):
    """The normal equations of a factor, (1, p s a o r, p s a o r)."""
    p, o, r, s, q = after.shape
    a = before.shape[1] // (p * s)
    gram = before.conj().T @ (distance.metric @ before)
    z = np.zeros((p, s, o, r, p, o, q), dtype=after.dtype)
    before_digit, digit = np.ogrid[:p, :o]
    z[before_digit, :, digit, :, before_digit, digit] = after.transpose(0, 1, 3, 2, 4)
    z = z.reshape(p * s * o * r, -1)
    gram_z = (z.conj() @ distance.felt.conj() @ z.T).reshape(p, s, 1, o, r, p, s, 1, o, r)
    form = gram.reshape(p, s, a, 1, 1, p, s, a, 1, 1) * gram_z
    size = p * s * a * o * r
    return form.reshape(1, size, size)


def _lbfgs(distance: Distance, factors: Sequence, iterations: int) -> list:
    plan, shapes = distance.plan, [factor.shape for factor in factors]
    dtype = np.result_type(distance.aim, *factors)
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def unpacked(vector) -> list:
        parts = np.split(vector.view(dtype), cuts)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def packed(parts) -> np.ndarray:
        flat = np.concatenate([np.asarray(part, dtype).reshape(-1) for part in parts])
        return flat.view(float)

    def evaluate(vector):
        parts = unpacked(vector)
        after = tails(plan, parts)
        loss, pull = distance.at(after[-1].reshape(distance.target.shape))
        return loss, packed(backward(plan, parts, after, 2 * pull))

    options = {"maxiter": iterations, "maxfun": 2 * iterations + 1, "maxcor": 30}
    options |= {"ftol": 1e-13, "gtol": 1e-12}
    found = minimize(evaluate, packed(factors), jac=True, method="L-BFGS-B", options=options)
    return unpacked(found.x)


def _reordered(moment, order):
    """A second moment in the order of the padded digits; what is padded has none."""
    moment = np.pad(moment, ((0, len(order) - len(moment)),) * 2)
    return moment[np.ix_(order, order)]
