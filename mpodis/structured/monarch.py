"""Monarch matrices (arXiv 2204.00595): products of block-diagonal factors, fitted to a matrix.

Inputs and outputs are numbered by digits, one pair (m_j, n_j) a leg, as the sites of an MPO.
Factor j turns its input digit into its output digit, by a matrix of its own for every value of
the other digits: of the outputs before it and of the inputs after it. Its values are an array

    (p, s, a, o, r):  p = n_1 ... n_{j-1}, s = m_{j+1} ... m_k, a = r_{j-1} m_j, o = n_j, r = r_j

with bonds r_j between neighbouring factors, 1 at both ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from scipy.optimize import minimize

from mpodis.arguments import as_shape, check_count, check_number, plain_numbers, random_generator
from mpodis.arrays import rescaled
from mpodis.conventions import Legs, check_legs, crop, pad, padded_shape
from mpodis.fit import metrics_of, weighted_loss
from mpodis.mpo import check_matrix
from mpodis.options import check_most_guesses
from mpodis.progress import Deadline, bar, within_limit
from mpodis.structured.approximation import Approximation

__all__ = [
    "FactorLayout",
    "MonarchSize",
    "best_monarch",
    "monarch",
    "monarch_sizes",
    "nearest_factors",
]

LARGEST_SYSTEM = 2**23
"""Entries of the normal equations of a factor beyond which only L-BFGS fits it."""


@dataclass(frozen=True)
class MonarchSize:
    """Options of `monarch` that fix the form of the matrix, and the parameters it then has.

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


@plain_numbers
@within_limit
def monarch(
    matrix: np.ndarray,
    legs: Sequence[Sequence[int]] | None = None,
    *,
    rank: int = 1,
    reverse: bool = False,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    weighted: bool = True,
    n_init: int = 2,
    max_sweeps: int = 30,
    max_iterations: int = 2000,
    seed: int | np.random.Generator = 0,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> Approximation:
    """The nearest Monarch matrix, by |M - A| or by |C (M - A) S| under second moments C^2, S^2.

    By |M - A| two factors have a closed form, one SVD a block (Theorem 1 of arXiv 2204.00595).
    Otherwise ALS (with the other factors held, a factor's best values solve a linear system) and
    then L-BFGS go on from there, and from initial guesses displaced at random. The lowest loss is
    kept. It is therefore never above that of the closed form, which for more than two factors is
    one SVD after the other.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    legs : sequence of (input, output), optional
        Digits of the row and of the column number, the first the most significant, one pair a
        factor. They multiply to at least the shape of the matrix, which is zero-padded. By
        default two pairs, each digit about the square root of its side; legs (2, 2) throughout
        make a butterfly.
    rank : int
        Bond between neighbouring factors, 1 in the paper: with two factors, the rank of every
        block of the matrix. It is lowered to the smallest rank that is exact, if that is smaller.
    reverse : bool
        Whether inputs meet the factor of the first digit first, and not, as in the paper, that of
        the last.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
    weighted : bool
        False: fit by |M - A|, and use the covariance only to measure the error.
    n_init, max_sweeps, max_iterations : int
        Initial guesses, and the most ALS sweeps and L-BFGS iterations from each.
    seed : int or numpy Generator
    max_seconds : float, optional
        Stop after this time; the result then depends on the machine. The closed form is always
        computed.
    progbar : bool
        Show a bar with the initial guesses and the lowest loss.

    Returns
    -------
    Approximation
        Its parameters are the values of the factors that padding does not make irrelevant.

    Raises
    ------
    ValueError
        If the legs, the rank or the moments do not fit the matrix.

    Examples
    --------
    >>> import numpy as np
    >>> monarch(np.kron(np.eye(2), np.ones((2, 2))), ((2, 2), (2, 2))).parameters
    16
    """
    deadline = Deadline(max_seconds)
    matrix, exponent = rescaled(check_matrix(matrix))
    digits = _square_root_legs(matrix.shape) if legs is None else check_legs(legs)
    check_count("rank", rank)
    _check_effort(n_init, max_sweeps, max_iterations, seed)
    layout = FactorLayout.build(digits, rank, reverse=reverse)
    moments = metrics_of(matrix, covariance, sensitivity) if weighted else (None, None)
    found = _nearest_product(
        matrix,
        moments,
        layout,
        n_init=n_init,
        max_sweeps=max_sweeps,
        max_iterations=max_iterations,
        seed=seed,
        # to measure the result takes about as long as what was done so far
        deadline=deadline.part(1 - deadline.fraction()),
        progbar=progbar,
    )
    return Approximation.of(
        matrix,
        found,
        name=_name(digits, rank, reverse),
        parameters=layout.parameters(matrix.shape),
        covariance=covariance,
        exponent=exponent,
    )


def _check_effort(n_init: int, max_sweeps: object, max_iterations: object, seed: object) -> None:
    """A ValueError for options of the fits, also where the closed form needs none."""
    check_count("n_init", n_init)
    check_most_guesses(n_init)
    check_count("max_sweeps", max_sweeps, 0)
    check_count("max_iterations", max_iterations, 0)
    random_generator(seed)


def _name(digits: Legs, rank: int, reverse: bool) -> str:
    name = f"Monarch {' '.join(f'{i}x{o}' for i, o in digits)}, rank {rank}"
    return name + (", reversed" if reverse else "")


def _nearest_product(
    matrix: np.ndarray,
    moments: tuple[np.ndarray | None, np.ndarray | None],
    layout: FactorLayout,
    *,
    n_init: int,
    max_sweeps: int,
    max_iterations: int,
    seed: int | np.random.Generator,
    deadline: Deadline,
    progbar: bool = False,
) -> np.ndarray:
    """The product of the factors found by `monarch`, a dense (inputs, outputs) matrix."""
    target = layout.reorder(pad(matrix, layout.legs))
    factors = nearest_factors(layout, target)
    if len(layout.legs) > 2 or any(moment is not None for moment in moments):
        distance = WeightedDistance(layout, target, matrix.shape, *moments)
        fits = []
        with bar(total=n_init, desc="Monarch", enabled=progbar) as shown:
            for guess in _initial_guesses(factors, n_init, seed):
                if fits and deadline.has_passed:
                    break
                fits.append(fit_factors(distance, guess, max_sweeps, max_iterations, deadline))
                shown.update(loss=min(loss for loss, _ in fits))
        factors = min(fits, key=lambda pair: pair[0])[1]
    return crop(layout.restore(product_matrix(layout, factors)), matrix.shape)


@plain_numbers
def monarch_sizes(
    shape: tuple[int, int],
    *,
    factors: int = 2,
    ranks: Sequence[int] = (1,),
    parameters: int | None = None,
) -> tuple[MonarchSize, ...]:
    """The sizes of Monarch matrices of a shape, by ascending parameters.

    Digits are divisors of a side or powers of two; the last digit is rounded up, which pads the
    matrix. Sizes with more parameters than the matrix are left out, and so are legs (1, 1) and
    those with all inputs and no outputs (or the reverse) in one factor, which make low rank.

    Parameters
    ----------
    shape : (inputs, outputs)
    factors : int
    ranks : ascending sequence of int
    parameters : int, optional
        For every choice of digits take the lowest rank with at least so many parameters, and
        ignore `ranks`.

    Returns
    -------
    tuple of MonarchSize

    Examples
    --------
    >>> {size.parameters for size in monarch_sizes((4, 4)) if size.legs == ((2, 2), (2, 2))}
    {16}
    """
    shape = as_shape(shape)
    check_count("factors", factors, 2, most=max(2, *shape))  # each has a digit of 2 or more
    if parameters is not None:
        check_count("parameters", parameters)
        ranks = range(1, min(shape) + 1)
    for rank in ranks:
        check_count("rank", rank)
    found = []
    for row_digits, column_digits in product(*(set(_digits(size, factors)) for size in shape)):
        legs = tuple(zip(row_digits, column_digits, strict=True))
        ins, outs = math.prod(row_digits), math.prod(column_digits)
        if (1, 1) in legs or (ins, 1) in legs or (1, outs) in legs:
            continue
        for reverse in (False, True):
            for rank in ranks:
                count = FactorLayout.build(legs, rank, reverse=reverse).parameters(shape)
                if count > math.prod(shape):
                    break
                if parameters is None or count >= parameters:
                    found.append(MonarchSize(legs, rank, reverse, count))
                    if parameters is not None:
                        break
    return tuple(sorted(found, key=lambda one: (one.parameters, one.rank, one.legs, one.reverse)))


@plain_numbers
@within_limit
def best_monarch(
    matrix: np.ndarray,
    parameters: int,
    *,
    factors: Sequence[int] = (2,),
    slack: float = 1.1,
    fits: int = 4,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    n_init: int = 2,
    max_sweeps: int = 30,
    max_iterations: int = 2000,
    seed: int | np.random.Generator = 0,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> Approximation:
    """The best Monarch matrix with about so many parameters, over digits, orders and ranks.

    All sizes with at least `parameters`, and at most `slack` times as many (or `slack` times as
    many as the smallest of these sizes has), are fitted briefly. Those with the lowest losses are
    then fitted with the other options, which are those of `monarch`, and the best is returned.

    Parameters
    ----------
    matrix : array (inputs, outputs)
    parameters : int
    factors : sequence of int
        Numbers of factors that are tried.
    slack : float
    fits : int
        Sizes that are fitted in full.
    covariance, sensitivity, n_init, max_sweeps, max_iterations, seed
        As for `monarch`.
    max_seconds : float, optional
        Stop after this time; the result then depends on the machine. At most half of it goes to
        the brief fits, in an order that reaches all sorts of sizes early; one is always made.
    progbar : bool
        Show a bar with the fits and the lowest loss.

    Raises
    ------
    ValueError
        If no Monarch matrix has at least so many parameters and no more than the matrix.
    """
    deadline = Deadline(max_seconds)
    _check_effort(n_init, max_sweeps, max_iterations, seed)
    for name, value in (("parameters", parameters), ("fits", fits)):
        check_count(name, value)
    check_number("slack", slack, 1)
    matrix, exponent = rescaled(check_matrix(matrix))
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
    checking = deadline.fraction()
    moments = metrics_of(matrix, covariance, sensitivity)
    # to measure the result takes about as long again
    deadline = deadline.part(1 - (deadline.fraction() - checking))

    def fitted(
        size: MonarchSize, n_init: int, max_sweeps: int, max_iterations: int, deadline: Deadline
    ) -> tuple[float, np.ndarray]:
        layout = FactorLayout.build(size.legs, size.rank, reverse=size.reverse)
        found = _nearest_product(
            matrix,
            moments,
            layout,
            n_init=n_init,
            max_sweeps=max_sweeps,
            max_iterations=max_iterations,
            seed=seed,
            deadline=deadline,
        )
        return weighted_loss(matrix, found, *moments), found

    allowed = [size for size in sizes if size.parameters <= limit]
    brief, quick = deadline.part(0.5), {}
    one_fit = 1.0  # the least part of the time that a fit has taken
    with bar(total=len(allowed) + min(fits, len(allowed)), desc="sizes", enabled=progbar) as shown:
        for k in _spread(len(allowed)):
            if quick and brief.has_passed:
                break
            began = deadline.fraction()
            quick[k] = fitted(allowed[k], 1, 0, 20, brief)
            one_fit = min(one_fit, deadline.fraction() - began)
            shown.update(loss=min(loss for loss, _ in quick.values()))
        chosen = sorted(quick, key=lambda k: (quick[k][0], k))[:fits]
        full = []
        for number, k in enumerate(chosen):
            if deadline.fraction() + one_fit > 1.0:
                break
            share = deadline.part(1 - (1 - deadline.fraction()) * (1 - 1 / (len(chosen) - number)))
            full.append(
                (*fitted(allowed[k], n_init, max_sweeps, max_iterations, share), allowed[k])
            )
            shown.update(loss=min(loss for loss, *_ in full))
        if not full or deadline.has_passed:  # what was cut short may be worse than a brief fit
            full.append((*quick[chosen[0]], allowed[chosen[0]]))
    _, found, size = min(full, key=lambda one: one[0])
    return Approximation.of(
        matrix,
        found,
        name=_name(size.legs, size.rank, size.reverse),
        parameters=size.parameters,
        covariance=covariance,
        exponent=exponent,
    )


def _spread(count: int) -> Iterator[int]:
    """0, ..., count - 1, from coarse to fine: every 2^k-th number first, then those between."""
    seen: set[int] = set()
    step = 1 << max(count - 1, 0).bit_length()
    while step and len(seen) < count:
        for k in range(0, count, step):
            if k not in seen:
                seen.add(k)
                yield k
        step //= 2


def _initial_guesses(
    factors: Sequence[np.ndarray], n_init: int, seed: int | np.random.Generator
) -> Iterator[list[np.ndarray]]:
    """The factors, and then others at a distance of about half their norm."""
    rng = random_generator(seed)
    for number in range(n_init):
        moved = []
        for factor in factors:
            noise = rng.normal(size=factor.shape) if number else 0.0
            moved.append(factor + 0.5 * np.sqrt(np.mean(np.abs(factor) ** 2)) * noise)
        yield moved


def _square_root_legs(shape: tuple[int, int]) -> Legs:
    """Two digits a side, near its square root and with little padding."""
    (i, i_rest), (o, o_rest) = (
        (first, math.ceil(size / first)) for size in shape for first in [math.isqrt(size - 1) + 1]
    )
    return (i, o), (i_rest, o_rest)


def _digits(size: int, count: int) -> Iterator[tuple[int, ...]]:
    """Choices of digits of a side: divisors or powers of two, the last one rounded up."""
    if count == 1:
        yield (size,)
        return
    powers = {2**k for k in range(size.bit_length())}
    for first in sorted(powers | {d for d in range(1, size + 1) if size % d == 0}):
        for rest in _digits(math.ceil(size / first), count - 1):
            yield (first, *rest)


@dataclass(frozen=True)
class FactorLayout:
    """Shapes of the factors: legs in the order in which a row vector meets them, and bonds.

    Attributes
    ----------
    legs : tuple of (input, output)
    bonds : tuple of int
        r_0 = 1, r_1, ..., r_k = 1.
    reverse : bool
        False where the matrix numbers its digits the other way round.
    """

    legs: Legs
    bonds: tuple[int, ...]
    reverse: bool

    @classmethod
    def build(cls, legs: Legs, rank: int, *, reverse: bool) -> FactorLayout:
        """The layout for the legs of a matrix; no bond is larger than an exact product needs."""
        legs = legs if reverse else legs[::-1]
        bonds = [1]
        for j, (i, _) in enumerate(legs[:-1]):
            rest = math.prod(o for _, o in legs[j + 1 :])
            bonds.append(min(rank, bonds[-1] * i, rest))
        return cls(legs, (*bonds, 1), reverse)

    def shape(self, j: int) -> tuple[int, int, int, int, int]:
        """(p, s, a, o, r) of factor j."""
        before = math.prod(o for _, o in self.legs[:j])
        after = math.prod(i for i, _ in self.legs[j + 1 :])
        i, o = self.legs[j]
        return before, after, self.bonds[j] * i, o, self.bonds[j + 1]

    @cached_property
    def order(self) -> tuple[np.ndarray, np.ndarray]:
        """Old number of every row and of every column of the reordered matrix."""
        found = []
        for size in zip(*self.legs, strict=True):
            numbers = np.arange(math.prod(size))
            if not self.reverse:
                numbers = numbers.reshape(size[::-1]).T.reshape(-1)
            found.append(numbers)
        return found[0], found[1]

    def parameters(self, shape: tuple[int, int]) -> int:
        """Values of the factors that join an input to an output within the unpadded shape."""
        rows, columns = self.order
        total = 0
        for j, (i, _) in enumerate(self.legs):
            p, s, _, o, r = self.shape(j)
            used_rows = (rows.reshape(-1, i * s).min(axis=0) < shape[0]).sum()
            used_columns = (columns.reshape(p * o, -1).min(axis=1) < shape[1]).sum()
            total += int(self.bonds[j] * used_rows * used_columns * r)
        return total

    def reorder(self, matrix: np.ndarray) -> np.ndarray:
        """The padded matrix with the digits in the order of the factors."""
        return matrix[np.ix_(*self.order)]

    def restore(self, matrix: np.ndarray) -> np.ndarray:
        """Undo `reorder`."""
        result = np.empty_like(matrix)
        result[np.ix_(*self.order)] = matrix
        return result


def nearest_factors(layout: FactorLayout, target: np.ndarray) -> list[np.ndarray]:
    """Factors whose product is near a reordered matrix: an SVD of every block, digit by digit.

    For two factors this is the nearest product (Theorem 1 of arXiv 2204.00595); for more it is
    exact where the matrix is a product of such factors.
    """
    factors, rest = [], target
    for j in range(len(layout.legs) - 1):
        p, s, a, o, r = layout.shape(j)
        blocks = rest.reshape(p, a, s, o, -1).transpose(0, 2, 3, 1, 4)  # p s o a q
        u, values, vh = np.linalg.svd(blocks, full_matrices=False)
        root = np.sqrt(values[..., :r])
        factors.append((u[..., :r] * root[..., None, :]).transpose(0, 1, 3, 2, 4))  # p s a o r
        rest = (root[..., None] * vh[..., :r, :]).transpose(0, 2, 3, 1, 4)  # p o r s q
    return [*factors, rest.reshape(layout.shape(len(layout.legs) - 1))]


def trailing_products(layout: FactorLayout, factors: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each factor the product of those after it, (p, o, r, s, q); at the end that of all."""
    p, s, a, o, r = layout.shape(len(factors) - 1)
    rest = np.broadcast_to(np.eye(1), (p, o, r, s, 1))
    found = [rest]
    for j in range(len(factors) - 1, -1, -1):
        p, s, a, o, r = layout.shape(j)
        # p s (o a r) @ p s (o r q)
        left = factors[j].transpose(0, 1, 3, 2, 4)
        rest = left @ rest.transpose(0, 3, 1, 2, 4)  # p s o a q
        rest = rest.transpose(0, 3, 1, 2, 4)  # p a s o q
        if j:
            before, _, _, out, bond = layout.shape(j - 1)
            rest = rest.reshape(before, out, bond, a // bond * s, -1)
        found.append(rest)
    return found[-2::-1] + found[-1:]


def product_matrix(layout: FactorLayout, factors: Sequence[np.ndarray]) -> np.ndarray:
    """The product of all factors, a reordered (rows, columns) matrix."""
    return trailing_products(layout, factors)[-1].reshape(padded_shape(layout.legs))


def extended_product(
    layout: FactorLayout, factors: Sequence[np.ndarray], left: np.ndarray, j: int
) -> np.ndarray:
    """The product before factor j + 1 from that before factor j, (u, t, p, r).

    u stands for the input digits that the product has turned into outputs, t = (i, s) for the
    others.
    """
    p, s, a, o, r = layout.shape(j)
    u, bond = left.shape[0], left.shape[3]
    left = left.reshape(u, a // bond, s, p, 1, bond).transpose(1, 2, 3, 0, 4, 5)  # i s p u . b
    factor = factors[j].reshape(p, s, bond, a // bond, o * r).transpose(3, 1, 0, 2, 4)  # i s p b or
    grown = left.reshape(a // bond, s, p, u, bond) @ factor  # i s p u (o r)
    grown = grown.reshape(a // bond, s, p, u, o, r).transpose(3, 0, 1, 2, 4, 5)
    return grown.reshape(u * (a // bond), s, p * o, r)


def factor_gradients(
    layout: FactorLayout,
    factors: Sequence[np.ndarray],
    after: Sequence[np.ndarray],
    gradient: np.ndarray,
) -> list[np.ndarray]:
    """dh / d conj(factor) of every factor for h = Re Tr(gradient^H product).

    `after` are the `trailing_products` of the factors.
    """
    found = []
    for j, factor in enumerate(factors):
        p, s, a, o, _ = layout.shape(j)
        gradient = gradient.reshape(p, a, s, o, -1).transpose(0, 2, 3, 1, 4)  # p s o a q
        rest = after[j].transpose(0, 3, 1, 4, 2).conj()  # p s o q r
        found.append((gradient @ rest).transpose(0, 1, 3, 2, 4))
        gradient = factor.transpose(0, 1, 3, 4, 2).conj() @ gradient  # p s o r q
        gradient = gradient.transpose(0, 2, 3, 1, 4)  # p o r s q
    return found


class WeightedDistance:
    """|C (M - A) S|^2 / |C M S|^2 of a reordered matrix A, and its derivative.

    Parameters
    ----------
    layout : FactorLayout
    target : array (rows, columns)
        M, reordered and padded.
    shape : (inputs, outputs)
        Before padding; what is padded does not count.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2, by default the identity.

    Raises
    ------
    ValueError
        If C M S = 0.
    """

    def __init__(
        self,
        layout: FactorLayout,
        target: np.ndarray,
        shape: tuple[int, int],
        covariance: np.ndarray | None = None,
        sensitivity: np.ndarray | None = None,
    ) -> None:
        self.layout, self.target = layout, target
        rows, columns = layout.order
        self.covariance = _reordered(np.eye(shape[0]) if covariance is None else covariance, rows)
        self.is_diagonal = sensitivity is None  # then S^2 is kept as the vector of its diagonal
        self.sensitivity = (
            (columns < shape[1]).astype(float)
            if sensitivity is None
            else _reordered(sensitivity, columns)
        )
        self.weighted_target = self.weigh(target)
        self.norm = float(np.vdot(target, self.weighted_target).real)
        if not self.norm > 1e-28 * np.abs(self.covariance).max() * np.linalg.norm(target) ** 2:
            raise ValueError(
                "the matrix maps all given inputs to zero (C M S = 0); check that the moments "
                "belong to this layer"
            )

    def weigh(self, matrix: np.ndarray) -> np.ndarray:
        """C^2 X S^2."""
        matrix = self.covariance @ matrix
        return matrix * self.sensitivity if self.is_diagonal else matrix @ self.sensitivity

    def loss(self, factors: Sequence[np.ndarray]) -> float:
        return self.loss_and_gradient(product_matrix(self.layout, factors))[0]

    def loss_and_gradient(self, dense: np.ndarray) -> tuple[float, np.ndarray]:
        """The distance of A, and its derivative by conj(A)."""
        off = dense - self.target
        weighted = self.weigh(off)
        return float(np.vdot(off, weighted).real) / self.norm, weighted / self.norm


def fit_factors(
    distance: WeightedDistance,
    guess: Sequence[np.ndarray],
    max_sweeps: int,
    max_iterations: int,
    deadline: Deadline | None = None,
) -> tuple[float, list[np.ndarray]]:
    """(loss, factors) after ALS sweeps and L-BFGS; never above the loss of the initial guess."""
    deadline = Deadline() if deadline is None else deadline
    best, factors = distance.loss(guess), list(guess)
    if _als_is_feasible(distance):
        for _ in range(max_sweeps):
            if deadline.has_passed:
                break
            swept = sweep_factors(distance, factors, deadline)
            loss, before = distance.loss(swept), best
            if loss < best:
                best, factors = loss, swept
            if before - loss < 1e-4 * before:
                break
    if max_iterations and not deadline.has_passed:
        polished = _lbfgs(distance, factors, max_iterations, deadline)
        loss = distance.loss(polished)
        if loss < best:
            best, factors = loss, polished
    return best, factors


def _als_is_feasible(distance: WeightedDistance) -> bool:
    """Whether the normal equations of every factor have at most `LARGEST_SYSTEM` entries."""
    for j in range(len(distance.layout.legs)):
        p, s, a, o, r = distance.layout.shape(j)
        systems = p * o if distance.is_diagonal else 1
        if systems * (p * s * a * o * r // systems) ** 2 > LARGEST_SYSTEM:
            return False
    return True


def sweep_factors(
    distance: WeightedDistance, factors: Sequence[np.ndarray], deadline: Deadline | None = None
) -> list[np.ndarray]:
    """Give every factor in turn its best values with the others held: a linear system each.

    The sweep ends early when the deadline has passed.
    """
    deadline = Deadline() if deadline is None else deadline
    layout, factors = distance.layout, list(factors)
    left = np.ones((1, padded_shape(layout.legs)[0], 1, 1))
    after = trailing_products(layout, factors)  # no factor changes the product behind it
    for j in range(len(factors)):
        if deadline.has_passed:
            break
        factors[j] = _solved(distance, j, left, after[j], factors[j])
        left = extended_product(layout, factors, left, j)
    return factors


def _solved(
    distance: WeightedDistance, j: int, left: np.ndarray, after: np.ndarray, old: np.ndarray
) -> np.ndarray:
    """The factor (p, s, a, o, r) that makes the distance smallest.

    A = X B Z with X the product before the factor and Z the product after it. The normal
    equations are, for one value of the shared digits, the product of the Gram matrices X^H C^2 X
    and Z S^2 Z^H. They are singular in directions that change nothing; a proximal term leaves
    the old values there.
    """
    p, s, a, o, _ = distance.layout.shape(j)
    q = after.shape[4]
    before = _spread_left(left, p, s, a)  # rows | p s a
    pulled = before.conj().T @ distance.weighted_target  # p s a | p o q
    pulled = pulled.reshape(p, s, a, p, o, q)[np.arange(p), :, :, np.arange(p)]  # p s a o q
    linear = pulled.transpose(0, 1, 3, 2, 4) @ after.conj().transpose(0, 3, 1, 4, 2)  # p s o a r
    linear = linear.transpose(0, 1, 3, 2, 4)
    if distance.is_diagonal:
        # without a sensitivity the outputs are independent: a system for every (p, o)
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


def _spread_left(left: np.ndarray, p: int, s: int, a: int) -> np.ndarray:
    """X as a matrix (rows, p s a), from its entries (u, i s, p, r); zero where digits differ."""
    u, _, _, bond = left.shape
    i = a // bond
    spread = np.zeros((u, i, s, p, s, bond, i), dtype=left.dtype)
    digit, rest = np.ogrid[:i, :s]
    entries = left.reshape(u, i, s, p, bond).transpose(1, 2, 0, 3, 4)
    spread[:, digit, rest, :, rest, :, digit] = entries
    return spread.reshape(u * i * s, p * s * a)


def _forms_by_output(
    distance: WeightedDistance, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """The normal equations of every (p, o), (s a r, s a r) each."""
    p, o, r, s, q = after.shape
    a = before.shape[1] // (p * s)
    columns = before.reshape(-1, p, s * a).transpose(1, 0, 2)
    weighed = (distance.covariance @ before).reshape(-1, p, s * a).transpose(1, 0, 2)
    gram = columns.conj().transpose(0, 2, 1) @ weighed
    z = after.transpose(0, 1, 3, 2, 4).reshape(p, o, s * r, q)
    gram_z = (z.conj() * distance.sensitivity.reshape(p, o, 1, q)) @ z.transpose(0, 1, 3, 2)
    form = gram.reshape(p, 1, s, a, 1, s, a, 1) * gram_z.reshape(p, o, s, 1, r, s, 1, r)
    return form.reshape(p, o, s * a * r, s * a * r)


def _whole_form(distance: WeightedDistance, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The normal equations of a factor, (1, p s a o r, p s a o r)."""
    p, o, r, s, q = after.shape
    a = before.shape[1] // (p * s)
    gram = before.conj().T @ (distance.covariance @ before)
    z = np.zeros((p, s, o, r, p, o, q), dtype=after.dtype)
    before_digit, digit = np.ogrid[:p, :o]
    z[before_digit, :, digit, :, before_digit, digit] = after.transpose(0, 1, 3, 2, 4)
    z = z.reshape(p * s * o * r, -1)
    gram_z = (z.conj() @ distance.sensitivity.conj() @ z.T).reshape(p, s, 1, o, r, p, s, 1, o, r)
    form = gram.reshape(p, s, a, 1, 1, p, s, a, 1, 1) * gram_z
    size = p * s * a * o * r
    return form.reshape(1, size, size)


def _lbfgs(
    distance: WeightedDistance,
    factors: Sequence[np.ndarray],
    max_iterations: int,
    deadline: Deadline,
) -> list[np.ndarray]:
    layout, shapes = distance.layout, [factor.shape for factor in factors]
    dtype = np.result_type(distance.weighted_target, *factors)
    cuts = np.cumsum([math.prod(shape) for shape in shapes])[:-1]

    def unpacked(vector: np.ndarray) -> list[np.ndarray]:
        parts = np.split(vector.view(dtype), cuts)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def packed(parts: Sequence[np.ndarray]) -> np.ndarray:
        flat = np.concatenate([np.asarray(part, dtype).reshape(-1) for part in parts])
        return flat.view(float)

    def evaluate(vector: np.ndarray) -> tuple[float, np.ndarray]:
        parts = unpacked(vector)
        after = trailing_products(layout, parts)
        loss, slope = distance.loss_and_gradient(after[-1].reshape(distance.target.shape))
        # of real numbers the derivative is twice that by the conjugate
        return loss, packed(factor_gradients(layout, parts, after, 2 * slope))

    def check(vector: np.ndarray) -> None:
        if deadline.has_passed:
            raise StopIteration

    options = {"maxiter": max_iterations, "maxfun": 2 * max_iterations + 1, "maxcor": 30}
    options |= {"ftol": 1e-13, "gtol": 1e-12}
    initial = packed(factors)
    found = minimize(
        evaluate, initial, jac=True, method="L-BFGS-B", options=options, callback=check
    )
    return unpacked(found.x)


def _reordered(moment: np.ndarray, order: np.ndarray) -> np.ndarray:
    """A second moment in the order of the padded digits, zero where they are padded."""
    moment = np.pad(moment, ((0, len(order) - len(moment)),) * 2)
    return moment[np.ix_(order, order)]
