"""`CircuitLayer`: a circuit of trained gates in torch, applied to a batch or to a matrix.

A gate is ``base @ exp(A)`` with a skew-Hermitian generator A, so that it stays orthogonal (unitary)
whatever an optimiser does to A. The generators of all gates of one width are one parameter, and
are exponentiated together. Before they are applied, gates are multiplied to blocks on up to
`BLOCK_WIRES` neighbouring wires: a product with a 16 x 16 matrix takes little more time than one
with a 4 x 4 matrix. Layers of fixed gates that permute the basis states (CNOT, SWAP) are applied as
permutations of the amplitudes, and so are the SWAPs that bring distant wires together.

Arrays have the amplitudes on their first axis, (2^n, m), so that every product is with a tall
matrix.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.gates import gate_parameters, named_gate
from mpodis.nn.linear import Seed, torch_generator

__all__ = ["CircuitLayer", "exponentials"]

BLOCK_WIRES = 4
"""Largest number of wires of a block of gates."""

COMPLEX_DTYPE = {torch.float32: torch.complex64, torch.float64: torch.complex128}
"""The real types that a circuit can have, and the complex type of the same precision."""


def exponentials(generators: Tensor, *, is_complex: bool = False) -> Tensor:
    """exp(A) of a stack of skew-Hermitian d x d matrices A, given by their independent entries.

    Parameters
    ----------
    generators : Tensor (m, k)
        Real matrices: the k = d (d - 1) / 2 entries below the diagonal, row by row. Complex ones:
        k = d^2, the real parts of those entries, their imaginary parts, and the imaginary parts of
        the diagonal.
    is_complex : bool
        How to read the entries.

    Returns
    -------
    Tensor (m, d, d)

    Examples
    --------
    >>> exponentials(torch.zeros(1, 1)).tolist()
    [[[1.0, -0.0], [0.0, 1.0]]]
    """
    count = generators.shape[-1]
    if not is_complex:
        d = round((1 + math.sqrt(1 + 8 * count)) / 2)
        if d == 2:
            c, s = generators.cos(), generators.sin()
            return torch.stack([torch.cat([c, -s], -1), torch.cat([s, c], -1)], -2)
        if d == 4:
            return _exponentials_so4(generators)
        return torch.linalg.matrix_exp(_skew_matrices(generators, d))
    d = math.isqrt(count)
    below = d * (d - 1) // 2
    real = _skew_matrices(generators[..., :below], d)
    row, column = torch.tril_indices(d, d, -1)
    imaginary = generators.new_zeros(*generators.shape[:-1], d, d)
    imaginary[..., row, column] = generators[..., below : 2 * below]
    imaginary = imaginary + imaginary.mT + torch.diag_embed(generators[..., 2 * below :])
    return torch.linalg.matrix_exp(torch.complex(real, imaginary))


def _skew_matrices(entries: Tensor, d: int) -> Tensor:
    """Real skew-symmetric matrices (..., d, d) from their entries below the diagonal."""
    row, column = torch.tril_indices(d, d, -1)
    matrix = entries.new_zeros(*entries.shape[:-1], d, d)
    matrix[..., row, column] = entries
    return matrix - matrix.mT


def _su2_parts() -> Tensor:
    """(6, 2, 4, 4): each basis matrix of so(4) as the sum of parts in its two commuting su(2)."""
    units = _skew_matrices(torch.eye(6, dtype=torch.float64), 4)
    levi_civita = torch.zeros(4, 4, 4, 4, dtype=torch.float64)
    for p in np.ndindex(4, 4, 4, 4):
        if len(set(p)) == 4:
            levi_civita[p] = round(np.linalg.det(np.eye(4)[list(p)]))
    dual = torch.einsum("ijkl,nkl->nij", levi_civita, units) / 2
    return torch.stack([(units + dual) / 2, (units - dual) / 2], 1)


SU2_PARTS = _su2_parts()


def _su2_parts_as(dtype: torch.dtype, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():  # the compiler ignores caches, with a warning
        return SU2_PARTS.to(dtype=dtype, device=device)
    return _cached_su2_parts(dtype, device)


@cache
def _cached_su2_parts(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Copied to an accelerator once: a copy waits for all that runs there."""
    with torch.inference_mode(False):  # an inference tensor could not be used with gradients later
        return SU2_PARTS.to(dtype=dtype, device=device, copy=True)


def _exponentials_so4(entries: Tensor) -> Tensor:
    """By so(4) = su(2) + su(2), where A^2 = -t^2 in each: a third of the time of `matrix_exp`."""
    parts = torch.einsum("...k,kpij->...pij", entries, _su2_parts_as(entries.dtype, entries.device))
    square = parts[..., 0, :].square().sum(-1)[..., None, None]
    angle = (square + torch.finfo(entries.dtype).tiny).sqrt()  # keeps the gradient finite at 0
    one = torch.eye(4, dtype=entries.dtype, device=entries.device)
    factors = angle.cos() * one + torch.sinc(angle / math.pi) * parts
    return factors[..., 0, :, :] @ factors[..., 1, :, :]


@dataclass
class _Block:
    """Gates on neighbouring wires that are multiplied and applied as one matrix.

    `gates` are pairs of a placement's number and the wires that its gate acts on, in their order.
    """

    wires: tuple[int, ...]
    gates: list[tuple[int, tuple[int, ...]]]


@dataclass
class _Permutation:
    """Amplitude i of a row moves to `target[i]`."""

    target: np.ndarray


def _schedule(ansatz: Ansatz) -> list[_Block | _Permutation]:
    """Blocks and permutations in the order in which they act on a row."""
    scheduler = _Scheduler(ansatz.n)
    number = 0
    for layer in ansatz.layers:
        if all(_permutes_states(place) for place in layer):
            for place in layer:
                scheduler.permute(_moved_states(place, ansatz.n))
        else:
            for j, place in enumerate(layer, number):
                scheduler.add(place, j)
        number += len(layer)
    scheduler.close(scheduler.open)
    return scheduler.done


class _Scheduler:
    """Collects gates in blocks that stay open as long as a gate may still be multiplied to them."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.done: list[_Block | _Permutation] = []
        self.open: list[_Block] = []

    def add(self, place: Placement, number: int) -> None:
        """The next gate, the placement's number being `number`."""
        span = tuple(range(min(place.wires), max(place.wires) + 1))
        if len(span) > BLOCK_WIRES and _permutes_states(place):
            self.permute(_moved_states(place, self.n))
            return
        if len(span) > BLOCK_WIRES and place.wires != span:
            self._add_far(place, number)
            return
        touched = [block for block in self.open if set(block.wires) & set(span)]
        wires = {*span, *(wire for block in touched for wire in block.wires)}
        whole = tuple(range(min(wires), max(wires) + 1))
        gate = (number, place.wires)
        if len(whole) <= BLOCK_WIRES:
            inside = [block for block in self.open if set(block.wires) <= set(whole)]
            self.open = [block for block in self.open if block not in inside]
            earlier = [gate for block in inside for gate in block.gates]
            self.open.append(_Block(whole, [*earlier, gate]))
        else:
            self.close(touched)
            self.open.append(_Block(span, [gate]))

    def permute(self, target: np.ndarray) -> None:
        """A permutation of the basis states; two in succession become one."""
        self.close(self.open)
        last = self.done[-1] if self.done else None
        if isinstance(last, _Permutation):
            last.target = target[last.target]
        else:
            self.done.append(_Permutation(target))

    def close(self, blocks: list[_Block]) -> None:
        """These blocks are complete; they act on different wires."""
        self.open = [block for block in self.open if block not in blocks]
        complete: list[_Block] = []
        for block in sorted(blocks, key=lambda b: b.wires):
            last = complete[-1] if complete else None
            if (
                last is not None
                and last.wires[-1] + 1 == block.wires[0]
                and len(last.wires) + len(block.wires) <= BLOCK_WIRES
            ):
                complete[-1] = _Block(last.wires + block.wires, last.gates + block.gates)
            else:
                complete.append(block)
        self.done += complete

    def _add_far(self, place: Placement, number: int) -> None:
        """A gate on distant wires: they are moved to the front, and back again."""
        others = [wire for wire in range(self.n) if wire not in place.wires]
        target = _reordered_wires((*place.wires, *others))
        front = tuple(range(place.width))
        self.permute(target)
        self.done.append(_Block(front, [(number, front)]))
        self.permute(np.argsort(target))


def _permutes_states(place: Placement) -> bool:
    return place.fixed is not None and named_gate(place.fixed).permutation is not None


def _moved_states(place: Placement, n: int) -> np.ndarray:
    """Basis state of n wires to which a fixed gate takes each basis state, (2^n,)."""
    assert place.fixed is not None
    permutation = named_gate(place.fixed).permutation
    assert permutation is not None
    states = np.arange(2**n)
    own = np.zeros_like(states)
    for wire in place.wires:
        own = own << 1 | _bit(states, wire, n)
    moved = permutation[own]
    for k, wire in enumerate(place.wires):
        flipped = _bit(states, wire, n) ^ _bit(moved, k, place.width)
        states = states ^ flipped << (n - 1 - wire)
    return states


def _reordered_wires(order: Sequence[int]) -> np.ndarray:
    """Basis state to which each one goes when wire `order[k]` becomes wire k, (2^n,)."""
    states = np.arange(2 ** len(order))
    moved = np.zeros_like(states)
    for wire in order:
        moved = moved << 1 | _bit(states, wire, len(order))
    return moved


def _bit(states: np.ndarray, wire: int, n: int) -> np.ndarray:
    """Bit of a wire in basis states of n wires; wire 0 is the most significant bit."""
    return states >> (n - 1 - wire) & 1


def _embedding(wires: Sequence[int], n: int) -> np.ndarray:
    """The linear map from the entries of a gate to those of the same gate on n wires, as a matrix.

    Row `a` of the result (4^w, 4^n) is the embedded unit matrix number `a`.
    """
    width = len(wires)
    units = np.eye(4**width).reshape(4**width, 2**width, 2**width)
    others = [wire for wire in range(n) if wire not in wires]
    whole = np.array([np.kron(unit, np.eye(2 ** len(others))) for unit in units])
    back = np.argsort([*wires, *others])  # axes of `whole` are the gate's wires, then the others
    tensor = whole.reshape(4**width, *[2] * (2 * n))
    return tensor.transpose(0, *(1 + back), *(1 + n + back)).reshape(4**width, 4**n)


class _Kind(NamedTuple):
    """Gates that are embedded in a block by the same linear map."""

    wires: tuple[int, ...]  # within the block
    fixed: str | None


class _Step(NamedTuple):
    """One product with a matrix, or one permutation, that an application consists of."""

    kind: str  # "permutation", "block", "wide gate" or "wide fixed gate"
    first: int  # first wire
    number: int  # of the block, of a free gate in the stack of its width, else of the buffer
    width: int = 0  # of a wide free gate


class CircuitLayer(nn.Module):
    """A circuit whose free gates are trained: rows x of 2^n amplitudes become ``x @ Q``.

    Gates may act on any wires, neighbours or not; fixed gates may be any registered ones.

    Parameters
    ----------
    circuit : Circuit or Ansatz
        The initial gates; for an ansatz they are drawn at random.
    init_scale : float or None
        Standard deviation of the generators' entries for gates drawn near the identity; None:
        Haar-random gates. Not used for a `Circuit`.
    trainable : bool
        False: the generators are buffers instead of parameters.
    dtype : torch.dtype
        Real, float32 or float64; gates of the group "U" are complex numbers of that precision.
    seed : int, numpy.random.Generator, torch.Generator or None

    Attributes
    ----------
    ansatz : Ansatz
    generators : torch.nn.ParameterDict or torch.nn.Module
        Under the name of each width, e.g. "2", a Tensor (gates, entries of a generator), see
        `exponentials`. Entries are initially zero for gates that were given.

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If the gates are complex and the ansatz is of a real group.

    Examples
    --------
    >>> from mpodis import brickwall
    >>> layer = CircuitLayer(brickwall(3, depth=2), seed=0)
    >>> layer(torch.eye(8)).shape
    torch.Size([8, 8])
    """

    _identity: Tensor
    _factors: Tensor

    def __init__(
        self,
        circuit: Circuit | Ansatz,
        *,
        init_scale: float | None = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
        seed: Seed = None,
    ) -> None:
        super().__init__()
        if dtype not in COMPLEX_DTYPE:
            raise TypeError(f"dtype={dtype} is not a type of trained gates; use float32 or float64")
        deviation: float | None = None  # of the generators' entries, if they are drawn
        if isinstance(circuit, Ansatz):
            if init_scale is None:
                circuit = random_circuit(circuit, seed=_numpy_seed(seed))
            else:
                circuit, deviation = identity_circuit(circuit), init_scale
        self.ansatz = circuit.ansatz
        self.is_complex = self.ansatz.group == "U"
        # lists, since torch.compile does not take numpy's arrays as constants
        self._fixed_gates = {
            place.fixed: named_gate(place.fixed).matrix.tolist()
            for place in self.ansatz.placements
            if place.fixed is not None
        }
        if circuit.is_complex and not self.is_complex:
            raise ValueError(
                f"complex gates do not fit an ansatz of the real group {self.ansatz.group!r}; "
                "use group='U'"
            )
        # by width, the placements of each free gate: one, or several that are tied
        free: dict[int, list[list[int]]] = {}
        for numbers in self.ansatz.free:
            free.setdefault(self.ansatz.placements[numbers[0]].width, []).append(numbers)
        self._free = dict(sorted(free.items()))
        generator = torch_generator(seed)
        entries: dict[str, Tensor] = {}
        for width, gates in self._free.items():
            base = np.stack([np.asarray(circuit.gates[numbers[0]]) for numbers in gates])
            gate_dtype = COMPLEX_DTYPE[dtype] if self.is_complex else dtype
            self.register_buffer(f"base{width}", torch.from_numpy(base).to(gate_dtype))
            shape = (len(gates), gate_parameters(width, self.ansatz.group))
            initial = torch.zeros(shape, dtype=torch.float64)
            if deviation is not None:
                initial.normal_(0.0, deviation, generator=generator)
            entries[str(width)] = initial.to(dtype)
        self.generators: nn.ParameterDict | nn.Module = nn.Module()
        if trainable:
            parameters = {name: nn.Parameter(tensor) for name, tensor in entries.items()}
            self.generators = nn.ParameterDict(parameters)
        else:
            for name, tensor in entries.items():
                self.generators.register_buffer(name, tensor)
        self._plan(dtype)

    def _plan(self, dtype: torch.dtype) -> None:
        """Decide which gate belongs to which block, once for all applications.

        All blocks are matrices on `_block_wires` wires; gates on more wires are applied alone. The
        gates of a block are embedded in these wires and multiplied, for all blocks together, so
        that the number of calls of torch does not grow with the number of gates.
        """
        self._block_wires = min(BLOCK_WIRES, self.n)
        position = {  # of a free gate: its row in the stack of its width
            j: k for gates in self._free.values() for k, js in enumerate(gates) for j in js
        }
        members: dict[_Kind, list[int]] = {}  # gates of each kind, by their rows in the stacks
        blocks: list[list[tuple[_Kind, int]]] = []  # kind and row of each gate
        self._steps: list[_Step] = []
        for item in _schedule(self.ansatz):
            k = len(self._steps)
            if isinstance(item, _Permutation):
                self.register_buffer(f"_target{k}", torch.from_numpy(item.target), False)
                source = torch.from_numpy(np.argsort(item.target))
                self.register_buffer(f"_source{k}", source, False)
                self._steps.append(_Step("permutation", 0, k))
            elif len(item.wires) > self._block_wires:
                (number, wires) = item.gates[0]
                fixed = self.ansatz.placements[number].fixed
                if fixed is not None:
                    matrix = torch.from_numpy(np.array(named_gate(fixed).matrix))
                    self.register_buffer(f"_fixed{k}", matrix, False)
                    self._steps.append(_Step("wide fixed gate", wires[0], k))
                else:
                    step = _Step("wide gate", wires[0], position[number], len(wires))
                    self._steps.append(step)
            else:
                first = min(item.wires[0], self.n - self._block_wires)
                self._steps.append(_Step("block", first, len(blocks)))
                block = []
                for number, wires in item.gates:
                    fixed = self.ansatz.placements[number].fixed
                    kind = _Kind(tuple(wire - first for wire in wires), fixed)
                    row = position.get(number, 0)
                    rows = members.setdefault(kind, [])
                    if row not in rows:
                        rows.append(row)
                    block.append((kind, row))
                blocks.append(block)
        self._kinds = list(members)
        place: dict[tuple[_Kind, int], int] = {}  # in the stack of all embedded gates
        for k, (kind, rows) in enumerate(members.items()):
            embedding = torch.from_numpy(_embedding(kind.wires, self._block_wires))
            if kind.fixed is None:
                self.register_buffer(f"_members{k}", torch.tensor(rows), False)
                embedding = embedding.to(dtype)
            else:  # in double precision, since the module may be cast to it later
                matrix = torch.from_numpy(np.array(named_gate(kind.fixed).matrix))
                embedding = matrix.reshape(1, -1) @ embedding.to(matrix.dtype)
            self.register_buffer(f"_embedding{k}", embedding, False)
            place |= {(kind, row): len(place) + i for i, row in enumerate(rows)}
        identity = torch.eye(2**self._block_wires, dtype=dtype).reshape(1, -1)
        self.register_buffer("_identity", identity, False)
        # filled up with the identity, the last of the stack, to a power of two of factors, so that
        # they can be multiplied pair by pair
        length = 1 << max((len(block) - 1).bit_length() for block in blocks) if blocks else 1
        table = [
            [place[gate] for gate in block] + [len(place)] * (length - len(block))
            for block in blocks
        ]
        self.register_buffer("_factors", torch.tensor(table, dtype=torch.long), False)

    @property
    def n(self) -> int:
        """Number of wires."""
        return self.ansatz.n

    @property
    def n_steps(self) -> int:
        """Number of products and permutations that an application takes."""
        return len(self._steps)

    @property
    def n_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(p.numel() for p in self.parameters())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by their kind, for `parameter_table`."""
        return {"gates": list(self.parameters())}

    def generator_entries(self) -> dict[int, Tensor]:
        """`generators` by width."""
        return {width: getattr(self.generators, str(width)) for width in self._free}

    def stacks(self) -> dict[int, Tensor]:
        """The free gates by width, each stack (gates, d, d) in the order of `Ansatz.free`."""
        found = {}
        for width, entries in self.generator_entries().items():
            wide = entries.float() if entries.dtype in (torch.float16, torch.bfloat16) else entries
            gates = exponentials(wide, is_complex=self.is_complex)
            found[width] = getattr(self, f"base{width}").to(gates.dtype) @ gates
        return found

    def gates(self) -> list[Tensor]:
        """All gates, one per placement, differentiable."""
        stacks = self.stacks()
        dtype, device = self._gate_dtype(stacks), self._identity.device
        found: list[Tensor] = [
            torch.tensor(self._fixed_gates[place.fixed], device=device, dtype=dtype)
            if place.fixed is not None
            else self._identity  # replaced below
            for place in self.ansatz.placements
        ]
        for width, groups in self._free.items():
            for k, numbers in enumerate(groups):
                for j in numbers:
                    found[j] = stacks[width][k]
        return found

    def _gate_dtype(self, stacks: dict[int, Tensor]) -> torch.dtype:
        for stack in stacks.values():
            return stack.dtype
        dtype = self._identity.dtype
        return COMPLEX_DTYPE.get(dtype, torch.complex64) if self.is_complex else dtype

    def _blocks(self, stacks: dict[int, Tensor]) -> Tensor:
        """The matrices of all blocks, (blocks, 2^wires, 2^wires)."""
        dtype = self._gate_dtype(stacks)
        size = 2**self._block_wires
        embedded = []
        for k, kind in enumerate(self._kinds):
            embedding = getattr(self, f"_embedding{k}").to(dtype)
            if kind.fixed is None:
                stack = stacks[len(kind.wires)].index_select(0, getattr(self, f"_members{k}"))
                embedding = stack.flatten(1) @ embedding
            embedded.append(embedding)
        embedded.append(self._identity.to(dtype))
        factors = torch.cat(embedded).index_select(0, self._factors.reshape(-1))
        factors = factors.reshape(*self._factors.shape, size, size)
        while factors.shape[1] > 1:
            factors = factors[:, 0::2] @ factors[:, 1::2]
        return factors[:, 0]

    def matmul(self, x: Tensor) -> Tensor:
        """Q @ x for an array (2^n, m)."""
        return self._applied(x, transposed=False)

    def transposed_matmul(self, x: Tensor) -> Tensor:
        """Q^T @ x for an array (2^n, m): ``(x.T @ Q).T``, a batch with the amplitudes in front."""
        return self._applied(x, transposed=True)

    def _applied(self, x: Tensor, *, transposed: bool) -> Tensor:
        stacks, shape = self.stacks(), x.shape
        blocks = self._blocks(stacks).unbind() if len(self._factors) else ()
        wide = {w: stack.unbind() for w, stack in stacks.items() if w > self._block_wires}
        for step in self._steps if transposed else reversed(self._steps):
            if step.kind == "permutation":
                name = f"_source{step.number}" if transposed else f"_target{step.number}"
                x = x.index_select(0, getattr(self, name))
                continue
            if step.kind == "block":
                gate = blocks[step.number]
            elif step.kind == "wide gate":
                gate = wide[step.width][step.number]
            else:
                gate = getattr(self, f"_fixed{step.number}")
            gate = gate.T if transposed else gate
            rows = x.reshape(2**step.first, len(gate), -1)
            x = torch.matmul(gate.to(x.dtype), rows).reshape(shape)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """x @ Q of a batch (..., 2^n)."""
        if x.shape[-1] != 2**self.n:
            raise ValueError(
                f"x of shape {tuple(x.shape)} must have {2**self.n} amplitudes in its last axis"
            )
        return self.transposed_matmul(x.reshape(-1, x.shape[-1]).T).T.reshape(x.shape)

    def to_dense(self) -> Tensor:
        """Q, (2^n, 2^n), differentiable."""
        dtype = self._gate_dtype({width: getattr(self, f"base{width}") for width in self._free})
        return self.matmul(torch.eye(2**self.n, dtype=dtype, device=self._identity.device))

    def circuit(self) -> Circuit:
        """The circuit with its gates as they are now, orthogonal in double precision."""
        dtype = np.complex128 if self.is_complex else np.float64
        gates = [gate.detach().cpu().numpy().astype(dtype) for gate in self.gates()]
        return Circuit(self.ansatz, tuple(gates)).projected()

    def extra_repr(self) -> str:
        return f"{self.ansatz}, {self.n_parameters} parameters"


def _numpy_seed(seed: Seed) -> int | np.random.Generator | None:
    """A seed for numpy; a torch generator gives it by its next draw."""
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (1,), generator=seed).item())
    return seed
