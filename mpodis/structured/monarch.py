"""Monarch matrices as baselines: one of a size, the sizes there are, the best for its money."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mpodis.conventions import Legs, check_legs, crop, pad
from mpodis.fit import embed_metric, weighted_loss
from mpodis.mpo import check_matrix
from mpodis.structured.low_rank import Approximation, describe
from mpodis.structured.monarch_fit import Distance, fit_factors
from mpodis.structured.monarch_plan import Plan, product_of, project

__all__ = ["MonarchSize", "best_monarch", "monarch", "monarch_sizes"]


@dataclass(frozen=True)
class MonarchSize:
    """What `monarch` can be asked for, and what it costs.

    Attributes
    ----------
    legs : tuple of (input, output)
        Digits, one pair a factor.
    rank : int
    reverse : bool
    parameters : int
    """

    legs: Legs
    rank: int
    reverse: bool
    parameters: int


def monarch(
    matrix,
    legs: Sequence[Sequence[int]] | None = None,
    *,
    rank: int = 1,
    reverse: bool = False,
    covariance=None,
    sensitivity=None,
    weighted: bool = True,
    n_init: int = 2,
    max_sweeps: int = 30,
    iterations: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Approximation:
    """The nearest Monarch matrix, by |M - A| or by |C (M - A) S| under second moments C^2, S^2.

    By |M - A| two factors have a closed form, one SVD a block (arXiv 2204.00595). Otherwise ALS
    (a factor's best values given the others solve a linear system) and then L-BFGS go on from
    there, and from starts displaced at random. The lowest loss is kept, so that it is never above
    that of the closed form, or with more than two factors that of one SVD after the other.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    legs : sequence of (input, output), optional
        Digits of the row and of the column number, the first the most significant, one pair a
        factor. They multiply to at least the shape of the matrix, which is zero-padded. By
        default two pairs, as even as they come; legs (2, 2) throughout make a butterfly.
    rank : int
        Bond between neighbouring factors, 1 in the paper: with two factors, the rank of every
        block of the matrix. Cut back where less is exact.
    reverse : bool
        Inputs meet the factor of the last digit first, as in the paper; reversed, of the first.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
    weighted : bool
        False: the covariance is only used to measure the error.
    starts, max_sweeps, iterations : int
        Starting points, and the most ALS sweeps and L-BFGS iterations from each.
    seed : int or numpy Generator

    Returns
    -------
    Approximation
        Its parameters are all values that lie between an input and an output that exist.

    Raises
    ------
    ValueError
        If the legs, the rank or the moments do not fit the matrix.
    """
    matrix = check_matrix(matrix)
    legs = _even_legs(matrix.shape) if legs is None else check_legs(legs)
    if rank < 1 or n_init < 1:
        raise ValueError(f"rank={rank} and n_init={n_init} must be 1 or more")
    plan = Plan.build(legs, rank, reverse=reverse)
    target = plan.reorder(pad(matrix, legs))
    factors = project(plan, target)
    moments = _embedded(matrix.shape, covariance, sensitivity) if weighted else (None, None)
    if len(legs) > 2 or any(moment is not None for moment in moments):
        distance = Distance(plan, target, matrix.shape, *moments)
        fits = [
            fit_factors(distance, start, max_sweeps, iterations)
            for start in _displaced(factors, n_init, seed)
        ]
        factors = min(fits, key=lambda pair: pair[0])[1]
    found = crop(plan.restore(product_of(plan, factors)), matrix.shape)
    digits = " ".join(f"{i}x{o}" for i, o in legs)
    name = f"Monarch {digits}, rank {rank}" + (", reversed" if reverse else "")
    return describe(name, matrix, found, plan.parameters(matrix.shape), covariance)


def monarch_sizes(
    shape: tuple[int, int],
    *,
    factors: int = 2,
    ranks: Sequence[int] = (1,),
    parameters: int | None = None,
) -> tuple[MonarchSize, ...]:
    """The sizes of Monarch matrices of a shape, by ascending parameters.

    Digits are divisors of a side or powers of two; what they leave over is padded. Left out are
    sizes that cost more than the matrix itself, and digits that part inputs from outputs, which
    make matrices of low rank.

    Parameters
    ----------
    shape : (inputs, outputs)
    factors : int
    ranks : ascending sequence of int
    parameters : int, optional
        Of every choice of digits take only the lowest rank with at least so many parameters,
        whatever `ranks` says: the baseline gets the benefit.
    """
    if factors < 2:
        raise ValueError(f"factors={factors} make no product; use 2 or more")
    if parameters is not None:
        ranks = range(1, min(shape) + 1)
    found = []
    for sides in product(*(set(_digits(size, factors)) for size in shape)):
        legs = tuple(zip(*sides, strict=True))
        ins, outs = (math.prod(side) for side in sides)
        if (1, 1) in legs or (ins, 1) in legs or (1, outs) in legs:
            continue
        for reverse in (False, True):
            for rank in ranks:
                count = Plan.build(legs, rank, reverse=reverse).parameters(shape)
                if count > math.prod(shape):
                    break
                if parameters is None or count >= parameters:
                    found.append(MonarchSize(legs, rank, reverse, count))
                    if parameters is not None:
                        break
    return tuple(sorted(found, key=lambda one: (one.parameters, one.rank, one.legs, one.reverse)))


def best_monarch(
    matrix,
    parameters: int,
    *,
    factors: Sequence[int] = (2,),
    slack: float = 1.1,
    fits: int = 4,
    covariance=None,
    sensitivity=None,
    n_init: int = 2,
    max_sweeps: int = 30,
    iterations: int = 2000,
    seed: int | np.random.Generator = 0,
) -> Approximation:
    """The best Monarch matrix that so many parameters buy, over digits, orders and ranks.

    Of all sizes with at least `parameters`, and at most `slack` times as many (or as the cheapest
    of them has), those with the lowest loss after a short fit are fitted with the other options,
    those of `monarch`, and the best is returned.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    parameters : int
    factors : sequence of int
        Numbers of factors to look at.
    slack : float
    fits : int
        Sizes that are fitted in full.

    Raises
    ------
    ValueError
        If no Monarch matrix has so many parameters and yet no more than the matrix.
    """
    matrix = check_matrix(matrix)
    sizes = [
        size
        for number in factors
        for size in monarch_sizes(matrix.shape, factors=number, parameters=parameters)
    ]
    if not sizes:
        raise ValueError(
            f"no Monarch matrix of shape {matrix.shape} has between {parameters} and "
            f"{matrix.size} parameters; lower parameters="
        )
    limit = slack * max(parameters, min(size.parameters for size in sizes))
    moments = _embedded(matrix.shape, covariance, sensitivity)

    def fitted(size: MonarchSize, n_init: int, max_sweeps: int, iterations: int):
        found = monarch(
            matrix,
            size.legs,
            rank=size.rank,
            reverse=size.reverse,
            covariance=covariance,
            sensitivity=sensitivity,
            n_init=n_init,
            max_sweeps=max_sweeps,
            iterations=iterations,
            seed=seed,
        )
        return weighted_loss(matrix, found.matrix, *moments), found

    able = [size for size in sizes if size.parameters <= limit]
    quick = [fitted(size, 1, 0, 20)[0] for size in able]
    chosen = [able[k] for k in np.argsort(quick, kind="stable")[:fits]]
    full = [fitted(size, n_init, max_sweeps, iterations) for size in chosen]
    return min(full, key=lambda pair: pair[0])[1]


def _embedded(shape, covariance, sensitivity) -> tuple:
    """Both moments, checked and padded to the shape, where they are given."""
    if covariance is not None:
        covariance = embed_metric(covariance, shape[0])
    if sensitivity is not None:
        sensitivity = embed_metric(sensitivity, shape[1], what="sensitivity")
    return covariance, sensitivity


def _displaced(factors: Sequence, n_init: int, seed) -> Iterator[list]:
    """The factors, and then others that lie about half their size away."""
    rng = np.random.default_rng(seed)
    for number in range(n_init):
        moved = []
        for factor in factors:
            noise = rng.normal(size=factor.shape) if number else 0.0
            moved.append(factor + 0.5 * np.sqrt(np.mean(np.abs(factor) ** 2)) * noise)
        yield moved


def _even_legs(shape: tuple[int, int]) -> Legs:
    """Two digits a side, near its square root and with little padding."""
    firsts = [math.isqrt(size - 1) + 1 for size in shape]
    rests = [math.ceil(size / first) for size, first in zip(shape, firsts, strict=True)]
    return tuple(firsts), tuple(rests)


def _digits(size: int, count: int) -> Iterator[tuple[int, ...]]:
    """Digits of a side: divisors or powers of two, and in the last place what is left."""
    if count == 1:
        yield (size,)
        return
    powers = {2**k for k in range(size.bit_length())}
    for first in sorted(powers | {d for d in range(1, size + 1) if size % d == 0}):
        for rest in _digits(math.ceil(size / first), count - 1):
            yield (first, *rest)
