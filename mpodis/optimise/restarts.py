"""Several initial guesses: each is followed for a few sweeps, and the best one to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mpodis.optimise.state import State

__all__ = ["explore", "restarts"]

Descent = Callable[[State], Iterator[dict]]
"""A descent from where a state stands, see `mpodis.optimise.descend`."""


def explore(
    descent: Descent,
    place: Callable[[State], None],
    state: State,
    count: int,
    *,
    enough: Callable[[State], bool] = lambda state: state.status in ("exact", "max_seconds"),
) -> Iterator[dict]:
    """Descend from one initial guess after the other; `state.best` is the best descent.

    Parameters
    ----------
    descent : callable
        Descends from where the state stands; yields records.
    place : callable
        Puts the state (and the engine) at the initial guess `state.guess`.
    state : State
    count : int
        Number of initial guesses.
    enough : callable
        Whether the descent that has just ended makes further initial guesses needless.
    """
    while True:
        if not state.phase:
            place(state)
        yield from descent(state)
        loss = 1.0 - state.checked_overlap if state.checked is not None else state.losses[-1]
        if loss < state.best_loss or state.best is None:
            state.best, state.best_loss = state.descent(), loss
        if enough(state) or state.guess + 1 == count:
            return
        state.begin(state.guess + 1)


def restarts(
    exploring: Descent,
    refining: Descent,
    place: Callable[[State], None],
    return_to: Callable[[State], None],
    state: State,
    count: int,
) -> Iterator[dict]:
    """Explore `count` initial guesses and refine the best of them.

    Parameters
    ----------
    exploring, refining : callable
        Descents of a few sweeps, and to the end.
    place : callable
        Puts the state at the initial guess `state.guess`.
    return_to : callable
        Puts the engine where the state stands.
    """
    if not state.refining and count > 1:
        yield from explore(exploring, place, state, count)
        ended = state.status
        assert state.best is not None
        state.continue_from(state.best)
        return_to(state)
        if ended in ("exact", "max_seconds"):
            state.status = ended
        elif state.status == "explored":
            state.status = ""
    state.refining = True
    if not state.phase:
        place(state)
    yield from refining(state)
