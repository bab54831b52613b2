"""The operator, the circuits around it and what its inputs look like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mpodis.ansatz import Ansatz, brickwall, from_spec
from mpodis.conventions import Legs, padded_shape, wires
from mpodis.cores import embed_metric
from mpodis.measures import second_moment
from mpodis.sites import core_legs, left_canonical

__all__ = ["Problem"]


@dataclass(frozen=True, eq=False)
class Problem:
    """M as its cores, the two ansätze, the shape before padding, and second moments.

    `covariance` is that of the inputs, `sensitivity` that of the gradients at the outputs.
    """

    cores: tuple
    left: Ansatz
    right: Ansatz
    shape: tuple[int, int]
    covariance: np.ndarray | None
    sensitivity: np.ndarray | None = None

    @property
    def legs(self) -> Legs:
        return core_legs(self.cores)

    @classmethod
    def build(
        cls,
        cores: Sequence,
        left,
        right,
        *,
        group: str,
        shape: tuple[int, int] | None,
        inputs,
        covariance,
        sensitivity=None,
    ) -> Problem:
        """Check what a user gives and fill in what is left open."""
        cores = tuple(_double(core) for core in cores)
        bad = sum(int((~np.isfinite(core)).sum()) for core in cores)
        if bad:
            raise ValueError(f"{bad} entries of the MPO are NaN or infinite")
        if not np.isfinite(left_canonical(cores)[1]):
            raise ValueError("the MPO is zero everywhere; there is nothing to disentangle")
        legs = core_legs(cores)
        padded = padded_shape(legs)
        shape = padded if shape is None else tuple(int(d) for d in shape)
        if len(shape) != 2 or min(shape) < 1 or shape[0] > padded[0] or shape[1] > padded[1]:
            raise ValueError(f"shape={shape} does not lie within the operator's {padded}")
        n_left, n_right = len(wires(legs, "left")), len(wires(legs, "right"))
        left_ansatz = _ansatz(left, n_left, group, "left")
        if right is None:
            mirror = left if not isinstance(left, Ansatz) or n_left == n_right else None
            if mirror is None:
                raise ValueError(
                    f"the left ansatz has {n_left} wires and cannot be mirrored onto {n_right}; "
                    "give right= too"
                )
            right_ansatz = _ansatz(mirror, n_right, group, "right").reversed()
        else:
            right_ansatz = _ansatz(right, n_right, group, "right")
        if inputs is not None and covariance is not None:
            raise ValueError("give inputs= or covariance=, not both")
        if inputs is not None:
            covariance = second_moment(inputs)
        if covariance is not None:
            covariance = _double(np.asarray(covariance))
            if covariance.shape != (shape[0],) * 2:
                raise ValueError(
                    f"the inputs have {covariance.shape[-1] if covariance.ndim else 0} features, "
                    f"the layer {shape[0]} inputs"
                )
            covariance = embed_metric(covariance, shape[0])
        if sensitivity is not None:
            if covariance is None:
                raise ValueError("sensitivity= weighs the activations; give inputs= or covariance=")
            sensitivity = _double(sensitivity)
            if sensitivity.shape != (shape[1],) * 2:
                raise ValueError(
                    f"the sensitivity has shape {sensitivity.shape}, the layer {shape[1]} outputs"
                )
            sensitivity = embed_metric(sensitivity, shape[1], what="sensitivity")
        return cls(cores, left_ansatz, right_ansatz, shape, covariance, sensitivity)


def _double(array) -> np.ndarray:
    """float64 or complex128, on the CPU; in C order, as a resumed run will read it."""
    if hasattr(array, "detach"):
        array = array.detach().cpu().numpy()
    array = np.asarray(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, order="C")


def _ansatz(value, n: int, group: str, side: str) -> Ansatz:
    if isinstance(value, Ansatz):
        if value.n != n:
            raise ValueError(f"the {side} ansatz has {value.n} wires, the operator {n}")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | np.integer):
        raise TypeError(
            f"{side}={value!r} is no circuit; give an Ansatz, a depth, or a spec like '2b + CNOT'"
        )
    if n == 0:
        return Ansatz(0, (), group)
    if isinstance(value, str):
        return from_spec(value, n, group=group)
    return brickwall(n, int(value), min(2, n), group=group)
