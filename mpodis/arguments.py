"""Checks of arguments that every function makes alike: whole numbers, numbers, shapes and seeds."""

from __future__ import annotations

import functools
import math
import numbers
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any, ParamSpec, TypeGuard, TypeVar

import numpy as np

__all__ = [
    "as_seed",
    "as_shape",
    "check_count",
    "check_number",
    "check_positive",
    "is_integer",
    "is_number",
    "plain_number",
    "plain_numbers",
    "random_generator",
]

P = ParamSpec("P")
T = TypeVar("T")


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number of Python or numpy, and not a bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite real number of Python or numpy, and not a bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # of a whole number or a fraction
        return False


def check_count(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Raise a ValueError unless an argument is a whole number from `least` to `most`."""
    if not is_integer(value) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number, {least} or more")
    if most is not None and value > most:
        raise ValueError(f"{name}={value} must be {most:,} or less")


def check_number(
    name: str,
    value: object,
    least: float,
    most: float | None = None,
    *,
    below: float | None = None,
) -> None:
    """Raise a ValueError unless an argument is a number from `least` to `most`, or `below` one."""
    if not is_number(value) or value < least or (below is not None and value >= below):
        allowed = f", {least} or more" if below is None else f" from {least} on, below {below}"
        raise ValueError(f"{name}={value!r} must be a number{allowed}")
    if most is not None and value > most:
        raise ValueError(f"{name}={value} must be {most:,} or less")


def check_positive(name: str, value: object, *, or_none: bool = False) -> None:
    """Raise a ValueError unless an argument is a number above 0, or None where that is allowed."""
    if (or_none and value is None) or (is_number(value) and value > 0):
        return
    raise ValueError(f"{name}={value!r} must be a positive number{', or None' * or_none}")


def plain_number(value: Any) -> Any:
    """A number of numpy, or a fraction, as a number that JSON knows; any other value as it is.

    Numbers of numpy have a range and a rounding of their own: 2 * np.int8(100) is -56.
    """
    if isinstance(value, Fraction) and is_number(value):
        return float(value)
    if not isinstance(value, np.generic):
        return value
    for kind, of_python in (
        (numbers.Integral, int),
        (numbers.Real, float),
        (numbers.Complex, complex),
    ):
        if isinstance(value, kind):
            return of_python(value)
    return value.item()


def plain_numbers(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that its arguments pass through `plain_number`."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        call: Any = function
        plain = {name: plain_number(value) for name, value in kwargs.items()}
        return call(*map(plain_number, args), **plain)

    return called


def as_shape(shape: Any) -> tuple[int, int]:
    """(inputs, outputs) as numbers of Python, or a ValueError."""
    try:
        inputs, outputs = (operator.index(size) for size in shape if not isinstance(size, bool))
    except (TypeError, ValueError):
        inputs = outputs = 0
    if min(inputs, outputs) < 1:
        raise ValueError(f"shape={shape!r} must be (inputs, outputs), two whole numbers, 1 or more")
    return inputs, outputs


def as_seed(seed: int | np.random.Generator) -> int:
    """A seed that can be stored, drawn from a generator where one is given."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    check_count("seed", seed, 0)
    return int(seed)


def random_generator(seed: Any) -> np.random.Generator:
    """numpy's generator of a seed, or the one that is given.

    Raises
    ------
    ValueError
        If the seed is a text, or a number that is not a whole one from 0 on.
    """
    if isinstance(seed, numbers.Number | np.bool | str | bytes):
        check_count("seed", seed, 0)
    return np.random.default_rng(plain_number(seed))
