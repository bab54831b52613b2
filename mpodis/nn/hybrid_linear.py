"""`HybridLinear`: circuits around a core as a trained layer, y = x Q_L M' Q_R + bias.

Sec. V of arXiv 2509.06653v1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_letters
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.arguments import check_count
from mpodis.circuit.ansatz import Ansatz
from mpodis.circuit.circuit import Circuit
from mpodis.circuit.spec import segments_from_spec
from mpodis.conventions import Legs, check_legs, padded_shape
from mpodis.factorization import Factorization
from mpodis.nn.circuit_layer import COMPLEX_DTYPE, CircuitLayer
from mpodis.nn.linear import (
    Seed,
    check_inputs,
    checked_bias,
    checked_shape,
    copied,
    torch_generator,
)
from mpodis.nn.mpo_linear import MPOLinear, site_by_site_is_cheaper
from mpodis.sites import bond_dimensions, site_tensors

__all__ = ["PLANS", "HybridLinear"]

PLANS = ("matrix", "batch", "network")

LARGEST_DENSE_CORE = 2**24
"""Entries up to which the core is built as a matrix; beyond, the plan is "network"."""

SHALLOW_DEPTH = 2
"""Layers up to which wide circuits are contracted with the batch as one network."""

Side = str | Ansatz | Circuit | Sequence[Ansatz | Circuit] | None


class HybridLinear(nn.Module):
    """Linear layer of two circuits and an MPO core, all trained: y = x Q_L M' Q_R + bias.

    The circuits act on the legs of dimension 2; other legs pass them by. A "|" in a spec splits a
    circuit into two, with an activation function between them; the layer is then not linear.

    Parameters
    ----------
    legs : sequence of (input, output)
        Dimensions of every site, e.g. ``((7, 4), (2, 2), (2, 2), (7, 4))``.
    bond : int or sequence of int
        Of the core, see `MPOLinear`.
    left, right : str, Ansatz, Circuit, sequence of Ansatz or Circuit, or None
        The circuit Q_L or Q_R: a spec, see `mpodis.from_spec`; the placements; or the initial
        gates. The activation function stands between the members of a sequence.
    group : {"SO", "O", "U"}
        Of the gates of a spec. With "U" the layer is complex.
    parity : {0, 1}
        Wire on which the first gate of a spec's brickwall begins.
    init_scale : float or None
        Standard deviation of the generators' entries for gates that are not given; None:
        Haar-random gates.
    norm : bool
        Batch normalization without parameters before each activation function between circuits.
    activation : callable
        The activation function between circuits.
    bias : bool
        Add a trained bias, initially zero.
    shape : (inputs, outputs), optional
        Size of x and y if smaller than what the legs span.
    batch_size : int
        Number of rows of x that the plan is made for.
    plan : {"matrix", "batch", "network"} or None
        How the circuits are applied. "matrix": to the core, with one product for x. "batch": to x
        and y, block of gates by block. "network": layer and batch are contracted as one tensor
        network along cotengra's path. None chooses what is cheapest, for each side. Autograd keeps
        one array at every block: of the size of the core's matrix, or of x and y.
    optimize : str, path or cotengra optimizer, optional
        The contraction path of the plan "network", found once, here: a preset of cotengra
        ("greedy", the default; "auto"; "hyper" for a search with `cotengra.HyperOptimizer`), an
        optimizer, or a path such as `path` of another layer. The tensors of the network are, in
        this order, x, the gates of the left circuit, those of the right one, and the site tensors.
        Slicing is not used.
    trainable : bool
        False: the gates keep their values.
    dtype : torch.dtype
        float32 or float64; a complex layer has complex numbers of this precision.
    seed : int, numpy.random.Generator, torch.Generator or None

    Attributes
    ----------
    core : MPOLinear
        M', without bias.
    left, right : torch.nn.ModuleList of CircuitLayer
        Circuits in the order in which they act on x.
    plan : tuple of str
        Of the left and the right side.
    path : tuple of (int, int) or None
        Contraction path of the plan "network".

    Raises
    ------
    ValueError
        For specs that cannot be read, circuits that do not fit the legs, bond dimensions below 1,
        a shape larger than the legs span, and plans that do not fit the circuits.

    Examples
    --------
    >>> layer = HybridLinear(((2, 2),) * 4, bond=2, left="2*2b", right="1b + CNOT + 1b", seed=0)
    >>> layer(torch.ones(5, 16)).shape
    torch.Size([5, 16])
    >>> layer.parameter_counts()
    {'core': 48, 'left gates': 20, 'right gates': 8, 'bias': 0}
    """

    def __init__(
        self,
        legs: Sequence[Sequence[int]],
        bond: int | Sequence[int] = 1,
        *,
        left: Side = None,
        right: Side = None,
        group: str = "SO",
        parity: int = 0,
        init_scale: float | None = 0.1,
        norm: bool = False,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        bias: bool = False,
        shape: tuple[int, int] | None = None,
        batch_size: int = 256,
        plan: str | None = None,
        optimize: Any = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        self.legs = check_legs(legs)
        generator = torch_generator(seed)
        self.core = MPOLinear(self.legs, bond, shape=None, dtype=dtype, seed=generator)
        self.inputs, self.outputs = checked_shape(shape, padded_shape(self.legs))
        circuits: dict[str, list[CircuitLayer]] = {}
        for side, given in (("left", left), ("right", right)):
            n = len(_qubit_sites(self.legs, side))
            circuits[side] = [
                CircuitLayer(
                    one, init_scale=init_scale, trainable=trainable, dtype=dtype, seed=generator
                )
                for one in _sub_circuits(given, n, group, parity)
            ]
            for circuit in circuits[side]:
                if circuit.n != n:
                    raise ValueError(
                        f"the {side} circuit has {circuit.n} wires, but {n} of the {side} legs of "
                        f"{self.legs} are qubits"
                    )
        self.left, self.right = nn.ModuleList(circuits["left"]), nn.ModuleList(circuits["right"])
        self.is_complex = any(c.is_complex for side in circuits.values() for c in side)
        if self.is_complex:
            self.core.set_site_tensors(
                tensor.detach().to(COMPLEX_DTYPE[dtype]) for tensor in self.core.site_tensors
            )
        self.bias = nn.Parameter(torch.zeros(self.outputs, dtype=self.core.dtype)) if bias else None
        self.activation = activation
        self._axes = {side: _axes(self.legs, side) for side in ("left", "right")}
        self._rows, self._columns = padded_shape(self.legs)
        self.norms = nn.ModuleDict(
            {
                side: nn.ModuleList(
                    nn.BatchNorm1d(size, affine=False, dtype=dtype) if norm else nn.Identity()
                    for _ in circuits[side][1:]
                )
                for side, size in (("left", self._rows), ("right", self._columns))
            }
        )
        self.plan = self._chosen_plan(plan, batch_size)
        self.path: tuple[tuple[int, int], ...] | None = None
        self._equations: tuple[str, ...] = ()
        if self.plan[0] == "network":
            self._plan_network(batch_size, "greedy" if optimize is None else optimize)
        elif optimize is not None and plan is not None:
            raise ValueError(
                f"optimize= chooses the path of plan='network', and plan={plan!r} has none; leave "
                "it out or change the plan"
            )

    @classmethod
    def from_factorization(
        cls,
        factorization: Factorization,
        *,
        bias: Tensor | np.ndarray | None = None,
        batch_size: int = 256,
        plan: str | None = None,
        optimize: Any = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> HybridLinear:
        """The layer with the circuits and the core of an explicit solution as initial values.

        Parameters
        ----------
        factorization : Factorization
        bias : array (outputs,), optional
        batch_size, plan, optimize, trainable, dtype
            As in the class.

        Examples
        --------
        >>> import numpy as np
        >>> import mpodis
        >>> found = mpodis.disentangle(mpodis.compress(np.eye(4)).mpo, depth=1)
        >>> layer = HybridLinear.from_factorization(found.factorization)
        """
        factorization = factorization.to_numpy()
        tensors = site_tensors(factorization.core)
        layer = cls(
            factorization.legs,
            bond_dimensions(tensors),
            left=factorization.left,
            right=factorization.right,
            shape=factorization.shape,
            batch_size=batch_size,
            plan=plan,
            optimize=optimize,
            trainable=trainable,
            dtype=dtype,
            seed=0,
        )
        kind = layer.core.dtype
        layer.core.set_site_tensors(copied(tensor, kind) for tensor in tensors)
        if bias is not None:
            layer.bias = nn.Parameter(checked_bias(bias, layer.outputs, kind))
        return layer

    def circuits(self, side: str) -> list[CircuitLayer]:
        """The circuits of the side "left" or "right", in the order in which they act on x."""
        return cast("list[CircuitLayer]", list(getattr(self, side)))  # a ModuleList has no type

    @property
    def is_linear(self) -> bool:
        """Whether no activation function splits a circuit."""
        return len(self.left) < 2 and len(self.right) < 2

    def factorization(self) -> Factorization:
        """Circuits and core as they are, in double precision.

        Raises
        ------
        ValueError
            For a layer that is not linear, and for one whose circuits pass by legs larger than 2.
        """
        self._check_linear()
        sides = []
        for side in ("left", "right"):
            empty = Circuit(Ansatz(len(_qubit_sites(self.legs, side)), ()), ())
            circuits = self.circuits(side)
            sides.append(circuits[0].circuit() if circuits else empty)
        return Factorization(sides[0], self.core.to_mpo(), sides[1], (self.inputs, self.outputs))

    def weight(self) -> Tensor:
        """Dense (inputs, outputs) matrix, differentiable.

        Raises
        ------
        ValueError
            For a layer that is not linear.
        """
        self._check_linear()
        return self._matrix(True, True)[: self.inputs, : self.outputs]

    def _check_linear(self) -> None:
        if not self.is_linear:
            raise ValueError(
                "circuits that are split by an activation function are not one matrix; leave out "
                "the '|' of the specs"
            )

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of the core, of the gates of each side, and of the bias."""
        gates = {
            f"{side} gates": sum(circuit.n_parameters for circuit in self.circuits(side))
            for side in ("left", "right")
        }
        core = sum(tensor.numel() for tensor in self.core.site_tensors)
        return {"core": core, **gates, "bias": 0 if self.bias is None else self.bias.numel()}

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by their kind, for `parameter_table`."""
        circuits = (*self.circuits("left"), *self.circuits("right"))
        return {
            "MPO": list(self.core.parameters()),
            "gates": [parameter for circuit in circuits for parameter in circuit.parameters()],
            "dense": [] if self.bias is None else [self.bias],
        }

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., outputs) of a batch (..., inputs).

        x in float16 or bfloat16 is computed in the layer's precision, and y returned in x's type.
        """
        check_inputs(x, self.inputs)
        kind, given = self.core.dtype, x.dtype
        half = given in (torch.float16, torch.bfloat16)
        flat = x.reshape(-1, self.inputs)
        if half or kind.is_complex:  # other types have to fit, as for any layer of torch
            flat = flat.to(kind)
        y = self._side_by_side(flat) if self.path is None else self._contracted(flat)
        y = y[:, : self.outputs]
        if self.bias is not None:
            y = y + self.bias
        if half and not kind.is_complex:
            y = y.to(given)
        return y.reshape(*x.shape[:-1], self.outputs)

    def forward_with(self, x: Tensor, run: Callable[[CircuitLayer, Tensor], Tensor]) -> Tensor:
        """What `forward` computes, with a function in the place of torch's circuits.

        Parameters
        ----------
        x : Tensor (samples, inputs)
        run : callable
            Takes a circuit of n qubits and rows (m, 2^n), and returns the rows times its matrix.
        """
        check_inputs(x, self.inputs)
        y = nn.functional.pad(x, (0, self._rows - self.inputs))
        for side in ("left", "right"):
            if side == "right":
                y = y.to(self.core.dtype) @ self.core.weight()
            for k, circuit in enumerate(self.circuits(side)):
                y = self._activated(side, k, y) if k else y
                y = self._on_qubits(lambda z, one=circuit: run(one, z.T).T, y.T, side).T
        y = y[:, : self.outputs]
        return y if self.bias is None else y + self.bias

    def _side_by_side(self, x: Tensor) -> Tensor:
        """Circuits applied to the batch or to the core, as the plan of their side says."""
        left, right = self.circuits("left"), self.circuits("right")
        left_on_core, right_on_core = (kind == "matrix" for kind in self.plan)
        before = left[:-1] if left_on_core else left
        if before:
            x = nn.functional.pad(x, (0, self._rows - x.shape[1]))
        for k, circuit in enumerate(before):
            x = self._activated("left", k, x) if k else x
            x = self._on_batch(circuit, x, "left")
        if before and left_on_core:
            x = self._activated("left", len(before), x)
        if (left_on_core and left) or (right_on_core and right):
            y = x @ self._matrix(left_on_core, right_on_core)[: x.shape[1]]
        else:  # the core alone, which may be cheaper site by site
            y = self.core.without_bias(nn.functional.pad(x, (0, self._rows - x.shape[1])))
        for k, circuit in enumerate(right):
            if k == 0 and right_on_core:
                continue
            y = self._activated("right", k, y) if k else y
            y = self._on_batch(circuit, y, "right")
        return y

    def _activated(self, side: str, k: int, z: Tensor) -> Tensor:
        """The activation function before circuit k of a side."""
        norms = cast("nn.ModuleList", self.norms[side])  # a ModuleDict has no type
        return self.activation(norms[k - 1](z))

    def _matrix(self, left: bool, right: bool) -> Tensor:
        """The core, multiplied by the circuits next to it on the sides that are wanted."""
        matrix = self.core.weight()
        if left and (circuits := self.circuits("left")):
            matrix = self._on_qubits(circuits[-1].matmul, matrix, "left")
        if right and (circuits := self.circuits("right")):
            matrix = self._on_qubits(circuits[0].transposed_matmul, matrix.T, "right").T
        return matrix

    def _on_batch(self, circuit: CircuitLayer, z: Tensor, side: str) -> Tensor:
        return self._on_qubits(circuit.transposed_matmul, z.T, side).T

    def _on_qubits(self, act: Callable[[Tensor], Tensor], x: Tensor, side: str) -> Tensor:
        """Apply `act` to the axes of an array (features, m) that are the qubits of a side."""
        sizes, order, back, amplitudes = self._axes[side]
        if amplitudes == x.shape[0]:
            return act(x)
        moved = x.reshape(*sizes, x.shape[1]).permute(order)
        done = act(moved.reshape(amplitudes, -1)).reshape(moved.shape)
        return done.permute(back).reshape(x.shape)

    def _chosen_plan(self, plan: str | None, batch_size: int) -> tuple[str, str]:
        """The plan of the left and of the right side."""
        if plan not in (None, *PLANS):
            raise ValueError(f"plan={plan!r} is not known; use {', '.join(PLANS)}, or None")
        check_count("batch_size", batch_size)
        rows, columns = padded_shape(self.legs)
        if plan is None and self.is_linear:
            circuits = (*self.circuits("left"), *self.circuits("right"))
            depth = max((circuit.ansatz.depth for circuit in circuits), default=0)
            wide = site_by_site_is_cheaper(self.legs, self.core.bonds, batch_size)
            if rows * columns > LARGEST_DENSE_CORE or (wide and 0 < depth <= SHALLOW_DEPTH):
                plan = "network"
        if plan == "network" and not self.is_linear:
            raise ValueError(
                "plan='network' contracts one network, and an activation function splits these "
                "circuits; use plan='batch'"
            )
        if plan is not None:
            return plan, plan
        # a block of gates costs as much as the array that it is applied to has columns
        left, right = ("matrix" if other <= batch_size else "batch" for other in (columns, rows))
        return left, right

    def _plan_network(self, batch_size: int, optimize: Any) -> None:
        """Name the indices of the network of layer and batch, and find its contraction path."""
        import cotengra as ctg

        sites = range(len(self.legs))
        inputs: list[tuple[str, ...]] = [("batch", *(f"i{k}" for k in sites))]
        shapes: list[tuple[int, ...]] = [(batch_size, *(i for i, _ in self.legs))]
        core_indices: dict[str, list[str]] = {}
        for side, letter in (("left", "i"), ("right", "o")):
            now = [f"{letter}{k}" for k in sites]
            qubits = _qubit_sites(self.legs, side)
            for circuit in self.circuits(side):  # at most one
                for j, place in enumerate(circuit.ansatz.placements):
                    before = [now[qubits[wire]] for wire in place.wires]
                    after = [f"{side} {j} {wire}" for wire in place.wires]
                    for wire, name in zip(place.wires, after, strict=True):
                        now[qubits[wire]] = name
                    inputs.append((*before, *after))
                    shapes.append((2,) * (2 * place.width))
            core_indices[side] = now
        for k, tensor in enumerate(self.core.site_tensors):
            inputs.append((f"b{k}", core_indices["left"][k], f"o{k}", f"b{k + 1}"))
            shapes.append(tuple(tensor.shape))
        output = ("batch", *core_indices["right"])
        if not isinstance(optimize, str) and isinstance(optimize, Sequence):
            _check_path(optimize, len(inputs))
        # cotengra takes more for optimize= than its annotations say
        network: dict[str, Any] = {"inputs": inputs, "output": output, "shapes": shapes}
        network["optimize"] = optimize
        try:
            found: Any = ctg.array_contract_path(**network)
        except KeyError:
            raise ValueError(
                f"optimize={optimize!r} is not a preset of cotengra; use 'greedy', 'auto' or "
                "'hyper', an optimizer, or a path"
            ) from None
        self.path = tuple((min(pair), max(pair)) for pair in found)
        self._equations = _pairwise_equations(inputs, output, self.path)

    def _contracted(self, x: Tensor) -> Tensor:
        """Layer and batch as one network; its path holds for any number of rows."""
        assert self.path is not None
        padded = nn.functional.pad(x, (0, self._rows - self.inputs))
        gates = [
            gate.to(self.core.dtype).reshape((2,) * (2 * place.width))
            for circuit in (*self.circuits("left"), *self.circuits("right"))
            for place, gate in zip(circuit.ansatz.placements, circuit.gates(), strict=True)
        ]
        batch = padded.reshape(-1, *[i for i, _ in self.legs])
        if torch.is_autocast_enabled(x.device.type):
            batch = batch.to(self.core.dtype)
        # autocast would narrow some of the products of the network, and others not
        with torch.autocast(x.device.type, enabled=False):
            tensors = [batch, *gates, *self.core.site_tensors]
            for (i, j), equation in zip(self.path, self._equations, strict=True):
                right, left = tensors.pop(j), tensors.pop(i)
                tensors.append(torch.einsum(equation, left, right))
        (y,) = tensors
        return y.reshape(x.shape[0], self._columns)

    def extra_repr(self) -> str:
        return (
            f"inputs={self.inputs}, outputs={self.outputs}, bonds={self.core.bonds}, "
            f"plan={self.plan}, bias={self.bias is not None}"
        )


def _qubit_sites(legs: Legs, side: str) -> tuple[int, ...]:
    """Sites on which a circuit of a side acts."""
    return tuple(k for k, leg in enumerate(legs) if leg[side == "right"] == 2)


def _axes(legs: Legs, side: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int]:
    """Sizes of a side's legs, the order of axes with qubits in front, its inverse, and 2^qubits."""
    sizes = tuple(leg[side == "right"] for leg in legs)
    qubits = _qubit_sites(legs, side)
    others = [k for k in range(len(sizes)) if k not in qubits]
    order = (*qubits, *others, len(sizes))
    back = tuple(order.index(k) for k in range(len(order)))
    return sizes, order, back, 2 ** len(qubits)


def _sub_circuits(given: Side, n: int, group: str, parity: int) -> list[Ansatz | Circuit]:
    """Circuits of a side between activation functions, without those that have no layers."""
    if given is None:
        return []
    if isinstance(given, str):
        return [*segments_from_spec(given, n, group=group, parity=parity)]
    if not isinstance(given, Ansatz | Circuit | Sequence):
        raise TypeError(
            f"a side is given as {given!r}; give a spec such as '2b + CNOT', a circuit, or several"
        )
    several = [given] if isinstance(given, Ansatz | Circuit) else list(given)
    return [one for one in several if (one if isinstance(one, Ansatz) else one.ansatz).layers]


def _pairwise_equations(
    inputs: Sequence[Sequence[str]], output: Sequence[str], path: Sequence[tuple[int, int]]
) -> tuple[str, ...]:
    """Equations of the steps of a path as `torch.einsum` reads them, the last one for the output.

    torch.compile follows these, and not the functions of cotengra.
    """
    names, equations = [tuple(one) for one in inputs], []
    for i, j in path:
        right, left = names.pop(j), names.pop(i)
        needed = {*output, *(name for one in names for name in one)}
        kept = [name for name in dict.fromkeys((*left, *right)) if name in needed]
        kept = list(output) if not names else kept
        letters = {name: ascii_letters[k] for k, name in enumerate(dict.fromkeys((*left, *right)))}
        spelled = ("".join(letters[name] for name in one) for one in (left, right, kept))
        equations.append("{},{}->{}".format(*spelled))
        names.append(tuple(kept))
    return tuple(equations)


def _check_path(path: Sequence[Sequence[int]], tensors: int) -> None:
    """A path takes two of the tensors that are left, by their positions, and appends the result."""
    left = tensors
    for pair in path:
        if len(set(pair)) != 2 or len(pair) != 2 or not 0 <= min(pair) <= max(pair) < left:
            raise ValueError(
                f"the path of optimize= has a step {tuple(pair)} where {left} tensors are left; "
                f"give pairs of positions for the {tensors} tensors of the network"
            )
        left -= 1
    if left != 1:
        raise ValueError(
            f"the path of optimize= has {len(path)} steps; the {tensors} tensors of the network "
            f"need {tensors - 1}"
        )
