"""What error of the activations circuits around a core can reach.

A lower bound from the singular values of the core, and the best that is found with gates as wide
as the operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar

from mpodis.arguments import check_count, random_generator
from mpodis.arrays import as_numpy, check_finite, rescaled
from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.conventions import crop, padded_shape, qubit_legs, wires
from mpodis.environments import DenseEnvironments
from mpodis.factorization import Factorization
from mpodis.fit import fit_core, mask_padding, metric_of
from mpodis.gates import polar, polar_update
from mpodis.mpo import (
    Compressed,
    Operator,
    as_compressed,
    check_matrix,
    mpo_or_matrix,
)
from mpodis.objectives import ActivationsLoss
from mpodis.optimise.lbfgs import Lbfgs
from mpodis.options import check_most_guesses
from mpodis.progress import Deadline, bar, within_limit
from mpodis.sites import (
    left_canonical,
    legs_of,
    mpo_from_tensors,
    mpo_legs,
    mpo_to_dense,
    site_tensors,
    spread_norm,
    tensors_to_dense,
)
from mpodis.tables import Table, Tabular

if TYPE_CHECKING:
    from quimb.tensor import MatrixProductOperator

__all__ = ["FullWidthGates", "activation_loss_bound", "full_width_gates"]


# --- the lower bound


def activation_loss_bound(
    operator: Operator,
    core: Operator,
    *,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
    levels: int = 48,
) -> float:
    """A lower bound on the loss of the activations, whatever the circuits around a core.

    The loss is the minimum over Q_L, Q_R and a > 0 of |C (M - a Q_L T Q_R) S|^2 / |C M S|^2. The
    larger of two lower bounds is returned; both are functions of a and of the singular values t of
    the core T alone:

    - With P_k the projector onto the k leading eigenvectors of C^2, C^2 is the sum over k of
      (c_k^2 - c_{k+1}^2) P_k; S^2 likewise, with projectors R_l. The distance is then a sum of
      plain distances |P_k (M - A) R_l|^2. Each is at least the distance of the singular values
      (Mirsky), and the values of P_k A R_l interlace with a t.
    - |C M S - C A S| is at least the distance of the singular values, too, where those of C A S
      lie between the limits that Horn's inequalities set: sigma_{i+j-1}(XY) <= sigma_i(X)
      sigma_j(Y), and the reverse for the smallest.

    Without moments and padding the first bound is 1 minus the squared von Neumann bound, which
    circuits reach. The faster the moments decay, the lower both are. The bound is 0, and says
    nothing, if the singular values of every part of M lie in the intervals allowed by the core.

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`.
    core : the same, padded, or an array of singular values
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2; by default all inputs and outputs count alike. Padding never counts.
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `operator` does not know it.
    levels : int
        The most projectors on either side. With fewer than there are eigenvalues, C^2 and S^2 are
        replaced by smaller ones, and the bound is lower.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the core does not fit the operator, or C M S = 0.

    Examples
    --------
    >>> import numpy as np
    >>> print(f"{activation_loss_bound(np.diag([2.0, 1.0]), [1.0, 0.0]):.4f}")
    0.2000
    """
    check_count("levels", levels)
    matrix, _ = rescaled(_matrix(operator, shape))
    values, size = _singular_values(core, matrix.shape)
    return _LossBound.build(matrix, covariance, sensitivity, levels=levels).of_values(values, size)


@dataclass(frozen=True, eq=False)
class _LossBound:
    """What `activation_loss_bound` computes of the operator; the core only enters `of_values`.

    Attributes
    ----------
    c, s : array
        Descending eigenvalues of C^2 and of S^2.
    blocks : list of (weight, (rows, columns), singular values)
        Leading blocks of M in the eigenbases of C^2 and S^2.
    values : array
        Singular values of C M S.
    """

    c: np.ndarray
    s: np.ndarray
    blocks: list[tuple[float, tuple[int, int], np.ndarray]]
    values: np.ndarray

    @classmethod
    def build(
        cls,
        matrix: np.ndarray,
        covariance: np.ndarray | None = None,
        sensitivity: np.ndarray | None = None,
        *,
        levels: int = 48,
    ) -> _LossBound:
        covariance = np.eye(matrix.shape[0]) if covariance is None else covariance
        sensitivity = np.eye(matrix.shape[1]) if sensitivity is None else sensitivity
        c, u = _descending(metric_of(covariance, matrix))
        s, v = _descending(metric_of(sensitivity, matrix, axis=1, what="sensitivity"))
        rotated = u.conj().T @ matrix @ v
        weighted = np.sqrt(c)[:, None] * rotated * np.sqrt(s)
        square = float(np.linalg.norm(weighted) ** 2)
        if not square > 1e-28 * c[0] * s[0] * np.linalg.norm(matrix) ** 2:
            raise ValueError(
                "the matrix maps all given inputs to zero (C M S = 0); check that the moments "
                "belong to this layer"
            )
        blocks = [
            (weight_k * weight_m, (k, m), np.linalg.svd(rotated[:k, :m], compute_uv=False))
            for k, weight_k in _steps(c, levels)
            for m, weight_m in _steps(s, levels)
        ]
        return cls(c, s, blocks, np.linalg.svd(weighted, compute_uv=False))

    def of_values(self, values: np.ndarray, size: tuple[int, int]) -> float:
        """The bound for the singular values of a core, and the (padded) size of the operator."""
        if not values[0] > 0:
            return 1.0
        t = np.concatenate([values, np.zeros(max(size) + len(self.c) + len(self.s))])
        distances = [self._of_blocks(t, size), self._of_product(t, size)]
        # lowered by more than the tolerance of the search over a
        lowest = _lowest(distances) / float(self.values @ self.values) * (1 - 1e-6) - 1e-12
        return float(np.clip(lowest, 0.0, 1.0))

    def _of_blocks(self, t: np.ndarray, size: tuple[int, int]) -> _IntervalDistance:
        """Singular values of the leading blocks, and how t interlaces with them."""
        parts = []
        for weight, (k, m), values in self.blocks:
            missing, n = size[0] - k + size[1] - m, len(values)
            parts.append((np.full(n, weight), values, t[missing : missing + n], t[:n]))
        return _IntervalDistance(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _of_product(self, t: np.ndarray, size: tuple[int, int]) -> _IntervalDistance:
        """Singular values of C M S, and the intervals in which those of C A S lie."""
        values, n = self.values, min(size)
        # on padded inputs and outputs C and S are zero
        c, s = (
            np.pad(np.sqrt(x), (0, d - len(x))) for x, d in zip((self.c, self.s), size, strict=True)
        )
        high = _product_limits(_product_limits(c, t[:n], n, np.min, 0), s, n, np.min, 0)
        low = _product_limits(c, t[:n], n, np.max, size[0] - 1)
        low = _product_limits(low, s, n, np.max, size[1] - 1)
        return _IntervalDistance(
            np.ones(len(values)), values, low[: len(values)], high[: len(values)]
        )


@dataclass(frozen=True, eq=False)
class _IntervalDistance:
    """Weighted squared distance of values from intervals [a low, a high], a function of a."""

    weights: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __call__(self, a: float) -> float:
        off = np.maximum(self.values - a * self.high, 0) + np.maximum(a * self.low - self.values, 0)
        return float(self.weights @ off**2)


def _steps(values: np.ndarray, levels: int) -> list[tuple[int, float]]:
    """(k, height) of step functions over 1..k whose sum is at most the descending values."""
    ends = np.unique(np.geomspace(1, len(values), min(levels, len(values))).round().astype(int))
    if len(values) <= levels:
        ends = np.arange(1, len(values) + 1)
    heights = values[ends - 1] - np.append(values[ends[1:] - 1], 0.0)
    pairs = zip(ends.tolist(), heights.tolist(), strict=True)
    return [(k, h) for k, h in pairs if h > 1e-15 * values[0]]


def _product_limits(
    x: np.ndarray, y: np.ndarray, count: int, choose: Callable, shift: int
) -> np.ndarray:
    """Horn's limits on singular values: choose over i + j = k + shift of x_i y_j, for k from 0."""
    found = np.zeros(count)
    for k in range(count):
        total = k + shift
        i = np.arange(max(0, total - len(y) + 1), min(len(x), total + 1))
        found[k] = choose(x[i] * y[total - i]) if len(i) else 0.0
    return found


def _lowest(distances: Sequence[_IntervalDistance]) -> float:
    """The minimum over a > 0 of the larger distance, a convex function of a."""
    ratios = []
    for distance in distances:
        positive = (distance.high > 0) & (distance.values > 0)
        ratios.append(distance.values[positive] / distance.high[positive])
    logs = np.log(np.concatenate(ratios))
    found: Any = minimize_scalar(
        lambda x: max(distance(math.exp(x)) for distance in distances),
        bounds=(logs.min() - 1e-3, logs.max() + 1e-3),
        method="bounded",
        options={"xatol": 1e-10, "maxiter": 500},
    )
    return float(found.fun)


def _matrix(operator: Operator, shape: tuple[int, int] | None) -> np.ndarray:
    """M, (inputs, outputs), without padding."""
    return crop(check_matrix(operator), shape)


def _singular_values(core: Operator, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Descending singular values of a core, and the (padded) size of the operator."""
    found = mpo_or_matrix(core)
    core = mpo_to_dense(found.mpo) if isinstance(found, Compressed) else found
    core, _ = rescaled(as_numpy(core, what="core"))
    check_finite(core, what="core", remedy="replace them first")
    if core.ndim not in (1, 2) or not core.size:
        raise ValueError(
            f"the core has shape {core.shape}; give an MPO, a matrix, or its singular values"
        )
    if core.ndim == 1:
        size = padded_shape(qubit_legs(*shape))
        values = np.sort(np.abs(core))[::-1]
        if len(values) > min(size):
            raise ValueError(f"{len(values)} singular values are too many for a {size} operator")
    else:
        rows, columns = core.shape
        size, values = (rows, columns), np.linalg.svd(core, compute_uv=False)
    if any(n < d for n, d in zip(size, shape, strict=True)):
        raise ValueError(f"the core spans {size}, too small for a matrix of shape {shape}")
    return values, size


def _descending(metric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(metric)
    return values[::-1].clip(min=0), vectors[:, ::-1]


# --- gates as wide as the operator

ALIGNING, SWEEPING, ITERATING = 1.5, 2.0, 2.0
"""How many times as long aligning singular vectors takes at most as the bound, a sweep as aligning,
and an iteration of L-BFGS as a sweep. What does not fit a limited time is not begun."""
IDENTITY = 2
"""Number of the initial guess that is the identity, after two that are aligned."""


@dataclass(frozen=True, eq=False)
class FullWidthGates(Tabular):
    """The best that was found with one gate on either side, as wide as the operator.

    Attributes
    ----------
    loss : float
        |C (M - A) S|^2 / |C M S|^2. A reference for narrower gates, not a bound on them.
    bound : float
        `activation_loss_bound` of the core, which the loss cannot be below.
    init : str
        The initial guess from which it was found.
    factorization : Factorization
    """

    loss: float
    bound: float
    init: str
    factorization: Factorization

    def table(self) -> Table:
        rows = [
            ("loss, best found", self.loss),
            ("loss, lower bound for its core", self.bound),
            ("relative error of the activations", math.sqrt(self.loss)),
            ("init", self.init),
        ]
        return Table(("full-width gates", ""), rows)


@within_limit
def full_width_gates(
    operator: Operator,
    core: MatrixProductOperator | int,
    *,
    update: bool = True,
    covariance: np.ndarray | None = None,
    sensitivity: np.ndarray | None = None,
    shape: tuple[int, int] | None = None,
    group: str = "SO",
    n_init: int = 3,
    max_iterations: int = 300,
    seed: int | np.random.Generator = 0,
    max_seconds: float | None = None,
    progbar: bool = False,
) -> FullWidthGates:
    """Search for the lowest loss of the activations with gates as wide as the operator.

    The initial guesses are gates that align the singular vectors of core and operator, which is
    the optimum without moments; gates that align them with those of C^2 M S^2; the identity; and
    then random gates. From each, the updates that have closed forms alternate with Riemannian
    L-BFGS over both gates (and the core).

    Parameters
    ----------
    operator : array (inputs, outputs), torch layer, Compressed or MatrixProductOperator
        M, see `as_mpo`; an MPO must have qubit legs.
    core : MatrixProductOperator or int
        M', or its bond dimension: then M' is first fitted to M without circuits.
    update : bool
        Optimise the core at its bond dimension, too; otherwise only its norm.
    covariance, sensitivity : array (inputs, inputs) and (outputs, outputs), optional
        C^2 and S^2; by default all inputs and outputs count alike.
    shape : (inputs, outputs), optional
        Of the matrix before zero padding, where `operator` does not know it.
    group : {"SO", "O", "U"}
    n_init, max_iterations : int
        Number of initial guesses, and the most L-BFGS iterations in each of ten rounds from each.
    seed : int or numpy Generator
        Of the random gates.
    max_seconds : float, optional
        Stop after this time, of which a core that is to be fitted may take a fifth; the result then
        depends on the machine. Where there is no time for the singular vectors of the first initial
        guess, the identity is the only one. Reading the operator and the bound cannot be cut short:
        together 0.6 s of one core for 512 x 512, 4 s for 1,024 x 1,024, 20 s for 1,536 x 1,536.
    progbar : bool
        Show a bar with the initial guesses and the lowest loss.

    Returns
    -------
    FullWidthGates
    """
    deadline = Deadline(max_seconds)
    check_count("n_init", n_init)
    check_most_guesses(n_init)
    check_count("max_iterations", max_iterations, 0)
    given = as_compressed(operator, shape=shape)
    shape = given.shape
    tensors, log_norm = left_canonical(site_tensors(given.mpo))
    legs = legs_of(tensors)
    metric = np.eye(shape[0]) if covariance is None else covariance
    if isinstance(core, int | np.integer):
        share = deadline.part(0.2).left
        core = fit_core(given, max_bond=int(core), covariance=metric, max_seconds=share)
    if mpo_legs(core) != legs:
        raise ValueError(f"the core has legs {mpo_legs(core)}, the operator {legs}")
    loss = ActivationsLoss(
        spread_norm(tensors, 0.0), metric, mask_padding(sensitivity, shape[1], legs)
    )
    first = site_tensors(core)
    # before the search, so that little is left to do behind it
    matrix, _ = rescaled(_matrix(given, shape))
    began = deadline.fraction()
    bound = _LossBound.build(matrix, covariance, sensitivity)
    decomposing = ALIGNING * (deadline.fraction() - began)
    unit, log_size = left_canonical(first)
    if abs(log_size) > 100:
        first = spread_norm(unit, 0.0)  # its norm is found anew in any case
    left, right = (_one_gate(len(wires(legs, side)), group) for side in ("left", "right"))
    rng, found = random_generator(seed), []
    guesses = range(n_init) if deadline.fraction() + decomposing <= 1.0 else [IDENTITY]
    with bar(total=len(guesses), desc="full-width gates", enabled=progbar) as shown:
        for number in guesses:
            if found and deadline.has_passed:
                break
            began = deadline.fraction()
            name, gates = _initial_guess(
                number,
                loss,
                tensors_to_dense(first),
                left,
                right,
                rng=rng if len(guesses) > 1 else None,
            )
            sweep = SWEEPING * (deadline.fraction() - began)
            engine = DenseEnvironments(loss.target, legs, left, right)
            engine.set(gates[0], first, gates[1])
            value = _descend(
                loss,
                engine,
                left,
                right,
                update=update,
                max_iterations=max_iterations,
                deadline=deadline,
                sweep=sweep,
            )
            found.append((value, name, list(engine.left), list(engine.core), list(engine.right)))
            shown.update(loss=min(one[0] for one in found))
    value, name, left_gates, tensors, right_gates = min(found, key=lambda one: one[0])
    tensors, log_size = left_canonical(tensors)
    core = mpo_from_tensors(spread_norm(tensors, log_size + log_norm))
    return FullWidthGates(
        value,
        bound.of_values(*_singular_values(core, shape)),
        name,
        Factorization(
            Circuit(left, tuple(left_gates)), core, Circuit(right, tuple(right_gates)), shape
        ),
    )


def _descend(
    loss: ActivationsLoss,
    engine: DenseEnvironments,
    left: Ansatz,
    right: Ansatz,
    *,
    update: bool,
    max_iterations: int,
    deadline: Deadline,
    sweep: float,
) -> float:
    """Rounds of closed forms and L-BFGS; the norm of a fixed core is optimised in between.

    `sweep` is about the part of the time limit that the first sweep takes.
    """
    updates = {
        "left": partial(polar_update, group=left.group),
        "right": partial(polar_update, group=right.group),
    }
    engine.set(core=loss.scaled_core(engine))
    value = loss.value(engine)
    for _ in range(10):
        began, before = deadline.fraction(), value
        if began + sweep > 1.0:
            break
        loss.sweep(engine, updates, core=update)
        engine.set(core=loss.scaled_core(engine))
        sweep = deadline.fraction() - began
        if deadline.fraction() + ITERATING * sweep <= 1.0:
            Lbfgs(loss, engine, left, right, free_core=update).run(
                max_iterations, deadline=deadline
            )
        if deadline.fraction() + ITERATING * sweep <= 1.0:
            _align(loss, engine, left, right)
        value = loss.value(engine)
        if before - value < 1e-3 * before:
            break
    return value


def _align(loss: ActivationsLoss, engine: DenseEnvironments, left: Ansatz, right: Ansatz) -> None:
    """Align the singular vectors with those of the core as it is now, if that lowers the loss."""
    kept = (engine.left, engine.core, engine.right)
    value = loss.value(engine)
    for number in (0, 1):
        gates = _initial_guess(number, loss, tensors_to_dense(kept[1]), left, right)[1]
        engine.set(gates[0], kept[1], gates[1])
        engine.set(core=loss.scaled_core(engine))
        if loss.value(engine) < value:
            kept, value = (engine.left, engine.core, engine.right), loss.value(engine)
    engine.set(*kept)


def _one_gate(n: int, group: str) -> Ansatz:
    return Ansatz(n, ((Placement(tuple(range(n))),),) if n else (), group)


def _initial_guess(
    number: int,
    loss: ActivationsLoss,
    core: np.ndarray,
    left: Ansatz,
    right: Ansatz,
    *,
    rng: np.random.Generator | None = None,
) -> tuple[str, tuple[list, list]]:
    """Name of an initial guess, and the gates of both sides."""
    if number == IDENTITY and rng is None:  # random_circuit takes long, also for scale 0
        gates = [list(identity_circuit(side).gates) for side in (left, right)]
        return "identity", (gates[0], gates[1])
    if number >= IDENTITY:
        is_first = number == IDENTITY
        name, scale = ("identity", 0.0) if is_first else (f"random {number - IDENTITY}", None)
        gates = [list(random_circuit(side, seed=rng, scale=scale).gates) for side in (left, right)]
        return name, (gates[0], gates[1])
    name = "aligned" if number == 0 else "aligned, weighted"
    u, _, vh = np.linalg.svd(loss.matrix if number == 0 else loss.target)
    u_core, _, vh_core = np.linalg.svd(core)
    right_gates = [gate.conj().T for gate in _aligned(vh.conj().T, vh_core.conj().T, right)]
    return name, (_aligned(u, u_core, left), right_gates)


def _aligned(of_target: np.ndarray, of_core: np.ndarray, side: Ansatz) -> list[np.ndarray]:
    """The gate that takes a core's singular vectors to the target's; none on a side of no wires.

    In SO a determinant of -1 is corrected in the direction of the smallest singular value.
    """
    if not side.n:
        return []
    if side.group == "U":
        return [(of_target @ of_core.conj().T).astype(complex)]
    of_target, of_core = np.real(of_target), np.real(of_core)  # the operators are real
    if side.group == "SO" and np.linalg.det(of_target) * np.linalg.det(of_core) < 0:
        of_target = np.column_stack([of_target[:, :-1], -of_target[:, -1]])
    return [polar(of_target @ of_core.T, group=side.group)]
