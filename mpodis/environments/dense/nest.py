"""Gate by gate through a tile: a walk on its traced operator, a small numpy matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mpodis.circuit.ansatz import Placement
from mpodis.environments.arrays import Home
from mpodis.environments.dense.pulling import Place, adjoint, diagonal, right_form
from mpodis.environments.dense.tiles import Tile, uses_kron

__all__ = ["Nest"]


class _Step(NamedTuple):
    """What is done at a gate.

    Attributes
    ----------
    take_out : callable or None
        Multiplies rows by the adjoint of what the gate was; None where no gate from here on is
        free.
    trace : array (rows, columns, a, b) or None
        Whose sum over the last two is the operator that a free gate sees.
    pass_on : callable
        Multiplies columns by the gate.
    """

    take_out: Callable | None
    trace: np.ndarray | None
    pass_on: Callable


class Nest:
    """A tile of two gates or more.

    The operator lies above the product of the gates that it has gone past, which grows from the
    identity: what multiplies columns multiplies those of both.

    Parameters
    ----------
    tile : Tile
    places : sequence of Placement
    is_complex : bool
    """

    def __init__(self, tile: Tile, places: Sequence[Placement], is_complex: bool) -> None:
        place, size = Place(Home(), is_complex), tile.size
        inner = [Tile(places[j].wires[0] - tile.first, places[j].width, (j,)) for j in tile.gates]
        self._one, self._size = np.eye(size, dtype=place.kind), size
        self._both, self._passed = (place.empty(2 * size**2).reshape(-1, size) for _ in range(2))
        is_free = [places[j].fixed is None for j in tile.gates]
        self._steps = [
            _Step(
                self._taker(place, one) if any(is_free[k:]) else None,
                diagonal(self._both[:size], one.first, one.width, tile.width) if free else None,
                self._passer(place, one, tile.width),
            )
            for k, (one, free) in enumerate(zip(inner, is_free, strict=True))
        ]

    def _taker(self, place: Place, one: Tile) -> Callable:
        shape = (2**one.first, one.size, -1) if one.first else (one.size, -1)
        x, out = (array[: self._size].reshape(shape) for array in (self._passed, self._both))
        product = place.product(out)
        return lambda gate: product(adjoint(gate), x, out)

    def _passer(self, place: Place, one: Tile, wires: int) -> Callable:
        behind = 2 ** (wires - one.first - one.width)
        form, kron = right_form(one.size, behind), uses_kron(one.size, behind)
        unit = (one.size * behind,) if kron else (one.size, behind)
        x, out = (array.reshape(-1, *unit) for array in (self._both, self._passed))
        product = place.product(out)
        if kron:
            return lambda gate: product(x, form(gate), out)
        return lambda gate: product(form(gate), x, out)

    def run(self, gates: list, fused, traced, renew: Callable) -> np.ndarray:
        """Renew the gates (in place) at the tile's traced operator; returns their product.

        `fused` is the product that they have had.
        """
        both, passed, size = self._both, self._passed, self._size
        np.dot(fused, traced, passed[:size])
        passed[size:] = self._one
        for k, step in enumerate(self._steps):
            if step.take_out is not None:
                step.take_out(gates[k])
            both[size:] = passed[size:]
            if step.trace is not None:
                gates[k] = renew(k, np.add.reduce(step.trace, axis=(2, 3)))
            step.pass_on(gates[k])
        return passed[size:].copy()

    def fuse(self, gates: Sequence) -> np.ndarray:
        """The gates' product, first gate on the left, to the last bit as `run` makes it."""
        both, passed, size = self._both, self._passed, self._size
        both[:size], passed[size:] = 0, self._one
        for step, gate in zip(self._steps, gates, strict=True):
            both[size:] = passed[size:]
            step.pass_on(gate)
        return passed[size:].copy()
