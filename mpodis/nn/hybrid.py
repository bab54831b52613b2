"""`HybridLinear`: circuits around a core as a trained layer, y = x Q_L M' Q_R + bias (Sec. V)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.spec import segments_from_spec
from mpodis.conventions import Legs, check_legs, padded_shape
from mpodis.factorization import Factorization
from mpodis.nn.circuits import COMPLEX, TrainedCircuit
from mpodis.nn.layers import (
    MPOLinear,
    by_sites,
    check_bias,
    check_inputs,
    check_shape,
    torch_generator,
)
from mpodis.sites import site_tensors

__all__ = ["PLANS", "HybridLinear"]

PLANS = ("matrix", "batch", "network")
LARGEST = 2**24
"""Entries of a dense core; of a larger one the sites are contracted one by one."""

SHALLOW = 2
"""Layers up to which wide circuits are contracted with the batch as one network."""

Sides = str | Ansatz | Circuit | Sequence[Ansatz | Circuit] | None


class HybridLinear(nn.Module):
    """Linear layer of two circuits and an MPO core, all trained.

    Circuits act where a leg has dimension 2, whatever the other legs are. A "|" in a spec cuts a
    circuit: what is behind it receives the activation function of what is before it, and the layer
    is then no longer linear.

    Parameters
    ----------
    legs : sequence of (input, output)
        Dimensions of every site, e.g. ``((7, 4), (2, 2), (2, 2), (7, 4))``.
    bond : int or sequence of int
        Of the core, see `MPOLinear`.
    left, right : str, Ansatz, Circuit, a sequence of the latter two, or None
        A spec, see `from_spec`; or placements; or gates to begin with; several are cut from each
        other.
    parity : {0, 1}
        Wire on which the first brick of a spec begins.
    scale : float or None
        Of the generators of gates that are not given, near the identity; None: Haar-random.
    norm : bool
        Batch normalization, without parameters, before the activation function at a cut.
    activation : callable
        At a cut.
    bias : bool
        Add a trained bias, zero at the start.
    shape : (inputs, outputs), optional
        Size of x and y if smaller than what the legs span.
    batch : int
        Rows of x that the plan is made for.
    plan : {"matrix", "batch", "network"} or None
        How the circuits are applied; None chooses for each side what is cheaper. "matrix": to the
        core, and x meets one product; "batch": to x, a block of gates after the other; "network":
        all tensors of layer and batch are contracted along cotengra's path. All of them keep one
        array for the gradient at every block: of the size of the core's matrix, or of x and y.
    trainable : bool
        False leaves the gates as they are.
    dtype : torch.dtype
        float32 or float64; with gates of the group "U" the layer is complex.
    seed : int, numpy.random.Generator or None

    Attributes
    ----------
    core : MPOLinear
        Without bias.
    left, right : torch.nn.ModuleList of TrainedCircuit
        Sub-circuits in the order in which x meets them.
    plan : tuple of str
        Of the left and the right side.

    Raises
    ------
    ValueError
        For specs, legs, bonds or shapes that make no sense together.
    """

    def __init__(
        self,
        legs: Sequence[Sequence[int]],
        bond: int | Sequence[int] = 1,
        *,
        left: Sides = None,
        right: Sides = None,
        group: str = "SO",
        parity: int = 0,
        scale: float | None = 0.1,
        norm: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        bias: bool = False,
        shape: tuple[int, int] | None = None,
        batch: int = 256,
        plan: str | None = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
        seed=None,
    ) -> None:
        super().__init__()
        self.legs = check_legs(legs)
        generator = torch_generator(seed)
        self.core = MPOLinear(self.legs, bond, shape=None, dtype=dtype, seed=generator)
        self.inputs, self.outputs = check_shape(shape, padded_shape(self.legs))
        make = partial(TrainedCircuit, scale=scale, trainable=trainable, dtype=dtype)
        sides = {}
        for name, given in (("left", left), ("right", right)):
            wires = _qubits(self.legs, name)
            circuits = [
                make(one, seed=generator) for one in _segments(given, len(wires), group, parity)
            ]
            for circuit in circuits:
                if circuit.n != len(wires):
                    raise ValueError(
                        f"the {name} circuit has {circuit.n} wires, but {len(wires)} of the {name} "
                        f"legs of {self.legs} are qubits"
                    )
            sides[name] = circuits
        self.left, self.right = (nn.ModuleList(sides[name]) for name in ("left", "right"))
        self.is_complex = any(c.is_complex for c in (*self.left, *self.right))
        if self.is_complex:
            kind = COMPLEX[dtype]
            self.core.cores = nn.ParameterList([nn.Parameter(c.to(kind)) for c in self.core.cores])
        kind = self.core.cores[0].dtype
        self.bias = nn.Parameter(torch.zeros(self.outputs, dtype=kind)) if bias else None
        self.activation = activation
        self._axes = {side: _axes(self.legs, side) for side in ("left", "right")}
        self._rows = padded_shape(self.legs)[0]
        rows, columns = padded_shape(self.legs)
        norms = {"left": rows, "right": columns}
        self.norms = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    nn.BatchNorm1d(size, affine=False, dtype=dtype) if norm else nn.Identity()
                    for _ in sides[name][1:]
                )
                for name, size in norms.items()
            }
        )
        self.plan = self._planned(plan, batch)

    @classmethod
    def from_factorization(
        cls, factorization: Factorization, *, bias=None, **options
    ) -> HybridLinear:
        """The layer that begins as an explicit solution, its core and gates trained from there.

        Parameters
        ----------
        factorization : Factorization
        bias : array (outputs,), optional
        **options
            ``plan, batch, trainable, dtype``, see the class.
        """
        layer = cls(
            factorization.legs,
            left=factorization.left,
            right=factorization.right,
            shape=factorization.shape,
            seed=0,
            **options,
        )
        kind = layer.core.cores[0].dtype
        layer.core.cores = nn.ParameterList(
            nn.Parameter(torch.as_tensor(np.array(core)).to(kind))
            for core in site_tensors(factorization.core)
        )
        if bias is not None:
            layer.bias = nn.Parameter(check_bias(bias, layer.outputs, kind))
        return layer

    @property
    def is_linear(self) -> bool:
        """Whether no circuit is cut."""
        return len(self.left) < 2 and len(self.right) < 2

    def factorization(self) -> Factorization:
        """Circuits and core as they are, in double precision.

        Raises
        ------
        ValueError
            For a layer whose circuits are cut, or with circuits beside legs that are no qubits.
        """
        if not self.is_linear:
            raise ValueError("circuits that are cut by an activation function are not one matrix")
        sides = []
        for name, circuits in (("left", self.left), ("right", self.right)):
            empty = Circuit(Ansatz(len(_qubits(self.legs, name)), ()), ())
            sides.append(circuits[0].circuit() if len(circuits) else empty)
        return Factorization(sides[0], self.core.to_mpo(), sides[1], (self.inputs, self.outputs))

    def weight(self) -> Tensor:
        """Dense (inputs, outputs) matrix of a layer whose circuits are not cut, differentiable."""
        if not self.is_linear:
            raise ValueError("circuits that are cut by an activation function are not one matrix")
        return self._matrix(True, True)[: self.inputs, : self.outputs]

    def parameter_counts(self) -> dict[str, int]:
        """Of core, gates and bias."""
        gates = {
            f"{name} gates": sum(circuit.n_parameters for circuit in circuits)
            for name, circuits in (("left", self.left), ("right", self.right))
        }
        core = sum(core.numel() for core in self.core.cores)
        return {"core": core, **gates, "bias": 0 if self.bias is None else self.bias.numel()}

    def forward(self, x: Tensor) -> Tensor:
        check_inputs(x, self.inputs)
        kind, given = self.core.cores[0].dtype, x.dtype
        half = given in (torch.float16, torch.bfloat16)
        flat = x.reshape(-1, self.inputs)
        if half or kind.is_complex:  # other types have to fit, as for any layer of torch
            flat = flat.to(kind)
        if self.plan[0] == "network":
            y = self._contracted(flat)
        else:
            y = self._in_turn(flat)
        y = y[:, : self.outputs]
        if self.bias is not None:
            y = y + self.bias
        if half and not kind.is_complex:
            y = y.to(given)  # half precision goes in and out, not through
        return y.reshape(*x.shape[:-1], self.outputs)

    def executed(self, x: Tensor, run: Callable[[TrainedCircuit, Tensor], Tensor]) -> Tensor:
        """What `forward` gives, each sub-circuit being run by another than torch.

        Parameters
        ----------
        x : Tensor (samples, inputs)
        run : callable
            From a sub-circuit of n qubits and rows (m, 2^n) to those rows times its matrix.
        """
        check_inputs(x, self.inputs)
        y = torch.nn.functional.pad(x, (0, self._rows - self.inputs))
        for side, circuits in (("left", self.left), ("right", self.right)):
            if side == "right":
                y = y.to(self.core.cores[0].dtype) @ self.core.weight()
            for k, circuit in enumerate(circuits):
                y = self._cut(side, k, y) if k else y
                y = self._along(lambda z, one=circuit: run(one, z.T).T, y.T, side).T
        y = y[:, : self.outputs]
        return y if self.bias is None else y + self.bias

    def _in_turn(self, x: Tensor) -> Tensor:
        """Circuits on the batch where the plan says so, the rest as one matrix."""
        left, right = (kind == "matrix" for kind in self.plan)
        before = self.left[:-1] if left else self.left
        if len(before):
            x = torch.nn.functional.pad(x, (0, self._rows - x.shape[1]))
        for k, circuit in enumerate(before):
            x = self._cut("left", k, x) if k else x
            x = self._on_batch(circuit, x, "left")
        if len(before) and left:
            x = self._cut("left", len(before), x)
        # a core that no circuit has been applied to may be cheaper site by site
        alone = not (left and len(self.left)) and not (right and len(self.right))
        y = self._core_on(x) if alone else x @ self._matrix(left, right)[: x.shape[1]]
        for k, circuit in enumerate(self.right):
            if k == 0 and right:
                continue
            y = self._cut("right", k, y) if k else y
            y = self._on_batch(circuit, y, "right")
        return y

    def _core_on(self, x: Tensor) -> Tensor:
        return self.core.apply_cores(torch.nn.functional.pad(x, (0, self._rows - x.shape[1])))

    def _cut(self, side: str, k: int, z: Tensor) -> Tensor:
        """Activation function before sub-circuit k of a side."""
        return self.activation(self.norms[side][k - 1](z))

    def _matrix(self, left: bool, right: bool) -> Tensor:
        """The core between the innermost circuits, those that are wanted."""
        matrix = self.core.weight()
        if left and len(self.left):
            matrix = self._along(self.left[-1].pull, matrix, "left")
        if right and len(self.right):
            matrix = self._along(self.right[0].push, matrix.T, "right").T
        return matrix

    def _on_batch(self, circuit: TrainedCircuit, z: Tensor, side: str) -> Tensor:
        return self._along(circuit.push, z.T, side).T

    def _along(self, act: Callable[[Tensor], Tensor], x: Tensor, side: str) -> Tensor:
        """Apply a circuit to the amplitudes (features, m) of a side, of which it has the qubits."""
        sizes, order, back, amplitudes = self._axes[side]
        if amplitudes == x.shape[0]:
            return act(x)
        moved = x.reshape(*sizes, x.shape[1]).permute(order)
        done = act(moved.reshape(amplitudes, -1)).reshape(moved.shape)
        return done.permute(back).reshape(x.shape)

    def _planned(self, plan: str | None, batch: int) -> tuple[str, str]:
        if plan not in (None, *PLANS):
            raise ValueError(f"plan={plan!r} is not known; use {', '.join(PLANS)}, or None")
        if batch < 1:
            raise ValueError(f"batch={batch} must be 1 or more rows")
        rows, columns = padded_shape(self.legs)
        if plan is None and self.is_linear:
            depth = max((c.ansatz.depth for c in (*self.left, *self.right)), default=0)
            wide = by_sites(self.legs, self.core.bonds, batch)
            if rows * columns > LARGEST or (wide and 0 < depth <= SHALLOW):
                plan = "network"
        if plan == "network" and not self.is_linear:
            raise ValueError("plan='network' contracts one network; cut circuits use 'batch'")
        if plan is not None:
            return plan, plan
        # a block costs as many columns as what it is applied to has
        return tuple("matrix" if other <= batch else "batch" for other in (columns, rows))

    def _contracted(self, x: Tensor) -> Tensor:
        """Everything as one network, along a path that cotengra finds once for a batch size."""
        import cotengra as ctg

        sites = range(len(self.legs))
        padded = torch.nn.functional.pad(x, (0, self._rows - self.inputs))
        arrays = [padded.reshape(-1, *(i for i, _ in self.legs))]
        indices: list[tuple[str, ...]] = [("batch", *(f"i{k}" for k in sites))]
        ends = {}
        for side, circuits, letter in (("left", self.left, "i"), ("right", self.right, "c")):
            now = [f"{letter}{k}" for k in sites]
            qubits = _qubits(self.legs, side)
            for circuit in circuits:  # one at most
                pairs = zip(circuit.ansatz.placements, circuit.gates(), strict=True)
                for j, (place, gate) in enumerate(pairs):
                    before = [now[qubits[w]] for w in place.wires]
                    after = [f"{side} {j} {w}" for w in place.wires]
                    for w, name in zip(place.wires, after, strict=True):
                        now[qubits[w]] = name
                    arrays.append(gate.reshape((2,) * (2 * place.width)))
                    indices.append((*before, *after))
            ends[side] = now
        for k, core in enumerate(self.core.cores):
            arrays.append(core)
            indices.append((f"b{k}", ends["left"][k], f"c{k}", f"b{k + 1}"))
        y = ctg.array_contract(arrays, indices, ("batch", *ends["right"]), optimize="greedy")
        return y.reshape(len(x), -1)

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, bonds={self.core.bonds}, "
            f"plan={self.plan}, bias={self.bias is not None}"
        )


def _qubits(legs: Legs, side: str) -> tuple[int, ...]:
    """Sites on which a circuit of a side may act."""
    return tuple(k for k, leg in enumerate(legs) if leg[side == "right"] == 2)


def _axes(legs: Legs, side: str) -> tuple[tuple, tuple, tuple, int]:
    """Sizes of the legs of a side, the order with the qubits in front, the way back, 2^qubits."""
    sizes = tuple(leg[side == "right"] for leg in legs)
    qubits = _qubits(legs, side)
    others = [k for k in range(len(sizes)) if k not in qubits]
    order = (*qubits, *others, len(sizes))
    back = tuple(order.index(k) for k in range(len(order)))
    return sizes, order, back, 2 ** len(qubits)


def _segments(given: Sides, n: int, group: str, parity: int) -> list[Ansatz | Circuit]:
    """Sub-circuits of a side, none where there is nothing to do."""
    if given is None:
        return []
    if isinstance(given, str):
        return segments_from_spec(given, n, group=group, parity=parity)
    several = [given] if isinstance(given, (Ansatz, Circuit)) else list(given)
    return [one for one in several if (one if isinstance(one, Ansatz) else one.ansatz).layers]
