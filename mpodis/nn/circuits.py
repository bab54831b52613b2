"""Circuits of trained gates in torch: what they do to a batch, and to a matrix.

A gate is ``base @ exp(A)`` with a skew-Hermitian generator A, so that it is orthogonal (unitary)
whatever the optimiser does to A. All gates of a width have their generators in one parameter and
are exponentiated at once. Before they are applied, gates are fused into blocks on `FUSED`
neighbouring wires: a product with 16 x 16 matrices costs little more time than one with 4 x 4
ones. Layers of fixed CNOTs are permutations.

Arrays stand with the amplitudes first, (2^n, m), so that every product is a tall one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from mpodis.circuit.ansatz import Ansatz, Placement
from mpodis.circuit.circuit import Circuit, identity_circuit, random_circuit
from mpodis.gates import FIXED, gate_parameters
from mpodis.nn.layers import torch_generator

__all__ = ["TrainedCircuit", "exponentials"]

FUSED = 4
"""Wires of a block of gates at most."""

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
"""Precisions of trained gates, and the complex type of each."""


def exponentials(generators: Tensor, *, is_complex: bool = False) -> Tensor:
    """exp(A) of a stack of skew-Hermitian matrices, from their numbers.

    Parameters
    ----------
    generators : Tensor (m, k)
        Real: the d (d - 1) / 2 entries below the diagonal, row by row. Complex: d^2 numbers, those
        entries' real parts, their imaginary parts, and the imaginary diagonal.

    Returns
    -------
    Tensor (m, d, d)
    """
    count = generators.shape[-1]
    if not is_complex:
        d = round((1 + math.sqrt(1 + 8 * count)) / 2)
        if d == 2:
            c, s = generators.cos(), generators.sin()
            return torch.stack([torch.cat([c, -s], -1), torch.cat([s, c], -1)], -2)
        if d == 4:
            return _exponentials_so4(generators)
        return torch.linalg.matrix_exp(_skew_real(generators, d))
    d = math.isqrt(count)
    below = d * (d - 1) // 2
    real = _skew_real(generators[..., :below], d)
    row, column = torch.tril_indices(d, d, -1)
    imaginary = generators.new_zeros(*generators.shape[:-1], d, d)
    imaginary[..., row, column] = generators[..., below : 2 * below]
    imaginary = imaginary + imaginary.mT + torch.diag_embed(generators[..., 2 * below :])
    return torch.linalg.matrix_exp(torch.complex(real, imaginary))


def _skew_real(numbers: Tensor, d: int) -> Tensor:
    row, column = torch.tril_indices(d, d, -1)
    matrix = numbers.new_zeros(*numbers.shape[:-1], d, d)
    matrix[..., row, column] = numbers
    return matrix - matrix.mT


def _isoclinic() -> Tensor:
    """(6, 2, 4, 4): the units of so(4) as parts of its two su(2), which commute."""
    units = _skew_real(torch.eye(6, dtype=torch.float64), 4)
    dual = torch.zeros(4, 4, 4, 4, dtype=torch.float64)  # the Levi-Civita symbol
    for p in np.ndindex(4, 4, 4, 4):
        if len(set(p)) == 4:
            dual[p] = round(np.linalg.det(np.eye(4)[list(p)]))
    other = torch.einsum("ijkl,nkl->nij", dual, units) / 2
    return torch.stack([(units + other) / 2, (units - other) / 2], 1)


ISOCLINIC = _isoclinic()


def _isoclinic_as(dtype: torch.dtype, device: torch.device) -> Tensor:
    if torch.compiler.is_compiling():  # which looks through a cache
        return ISOCLINIC.to(dtype=dtype, device=device)
    return _isoclinic_kept(dtype, device)


@cache
def _isoclinic_kept(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Kept where it is used: a copy to an accelerator waits for all that runs there."""
    with torch.inference_mode(False):  # else of no use to a later call with gradients
        return ISOCLINIC.to(dtype=dtype, device=device, copy=True)


def _exponentials_so4(numbers: Tensor) -> Tensor:
    """so(4) = su(2) + su(2), and in each A^2 = -t^2: a third of the time of `matrix_exp`."""
    parts = torch.einsum("...k,kpij->...pij", numbers, _isoclinic_as(numbers.dtype, numbers.device))
    square = parts[..., 0, :].square().sum(-1)[..., None, None]
    angle = (square + torch.finfo(numbers.dtype).tiny).sqrt()  # the root has no slope at 0
    one = torch.eye(4, dtype=numbers.dtype, device=numbers.device)
    found = angle.cos() * one + torch.sinc(angle / math.pi) * parts
    return found[..., 0, :, :] @ found[..., 1, :, :]


@dataclass
class _Block:
    """Gates on neighbouring wires, one after the other, that are applied as one."""

    wires: tuple[int, ...]
    numbers: list[int] = field(default_factory=list)


@dataclass
class _Permutation:
    """CNOTs: amplitude i of a row goes to `target[i]`."""

    target: np.ndarray


def _schedule(ansatz: Ansatz) -> list[_Block | _Permutation]:
    """Blocks and permutations in the order in which a row meets them."""
    found: list[_Block | _Permutation] = []
    open_blocks: list[_Block] = []
    number = 0
    for layer in ansatz.layers:
        if layer and all(place.fixed == "CNOT" for place in layer):
            found += _fused(open_blocks)
            open_blocks = []
            target = _cnots(layer, ansatz.n)
            if found and isinstance(found[-1], _Permutation):
                target = target[found.pop().target]
            found.append(_Permutation(target))
            number += len(layer)
            continue
        for place in layer:
            touched = [b for b in open_blocks if set(b.wires) & set(place.wires)]
            wires = sorted({*place.wires, *(w for b in touched for w in b.wires)})
            span = tuple(range(wires[0], wires[-1] + 1))
            between = [b for b in open_blocks if set(b.wires) <= set(span)]
            if len(span) <= FUSED:
                open_blocks = [b for b in open_blocks if b not in between]
                merged = [j for b in between for j in b.numbers]
                open_blocks.append(_Block(span, [*merged, number]))
            else:
                found += _fused(touched)
                open_blocks = [b for b in open_blocks if b not in touched]
                open_blocks.append(_Block(place.wires, [number]))
            number += 1
    return found + _fused(open_blocks)


def _fused(blocks: Sequence[_Block]) -> list[_Block]:
    """Disjoint blocks with neighbours put together as far as they fit."""
    found: list[_Block] = []
    for block in sorted(blocks, key=lambda b: b.wires):
        last = found[-1] if found else None
        if (
            last is not None
            and last.wires[-1] + 1 == block.wires[0]
            and len(last.wires) + len(block.wires) <= FUSED
        ):
            found[-1] = _Block(last.wires + block.wires, last.numbers + block.numbers)
        else:
            found.append(block)
    return found


def _cnots(layer: Sequence[Placement], n: int) -> np.ndarray:
    target = np.arange(2**n)
    for place in layer:
        control, flipped = (n - 1 - wire for wire in place.wires)
        target = target ^ ((target >> control & 1) << flipped)
    return target


def _spread(offset: int, width: int, window: int) -> np.ndarray:
    """The linear map from a gate's entries to those of 1 x gate x 1 on a window, as a matrix."""
    d, size = 2**width, 2**window
    units = np.eye(d * d).reshape(d * d, d, d)
    behind = np.eye(2 ** (window - offset - width))
    whole = [np.kron(np.kron(np.eye(2**offset), unit), behind) for unit in units]
    return np.reshape(whole, (d * d, size * size))


class TrainedCircuit(nn.Module):
    """A circuit whose free gates are trained.

    Parameters
    ----------
    circuit : Circuit or Ansatz
        The gates at the beginning; of an ansatz they are drawn.
    scale : float or None
        Of the generators of an ansatz, near the identity; None: Haar-random gates.
    trainable : bool
        False: the generators are buffers.
    dtype : torch.dtype
        Real, float32 or float64; gates of the group "U" are complex numbers of that precision.
    seed : int, numpy.random.Generator, torch.Generator or None

    Attributes
    ----------
    generators : torch.nn.ParameterDict or torch.nn.Module
        By width, "2": Tensor (gates, numbers of a generator), zero for gates that were given.
    """

    def __init__(
        self,
        circuit: Circuit | Ansatz,
        *,
        scale: float | None = None,
        trainable: bool = True,
        dtype: torch.dtype = torch.float32,
        seed=None,
    ) -> None:
        super().__init__()
        if dtype not in COMPLEX:
            raise TypeError(f"dtype={dtype} is not a type of trained gates; use float32 or float64")
        drawn = isinstance(circuit, Ansatz)
        if drawn and scale is None:
            circuit = random_circuit(circuit, seed=_numpy_seed(seed))
        elif drawn:
            circuit = identity_circuit(circuit)
        self.ansatz = circuit.ansatz
        self.is_complex = self.ansatz.group == "U"
        if circuit.is_complex and not self.is_complex:
            raise ValueError("complex gates need an ansatz of the group 'U'")
        slots: dict[int, list[list[int]]] = {}
        for numbers in self.ansatz.free:
            slots.setdefault(self.ansatz.placements[numbers[0]].width, []).append(numbers)
        self._slots = dict(sorted(slots.items()))
        generator = torch_generator(seed)
        holder = nn.ParameterDict() if trainable else nn.Module()
        for width, groups in self._slots.items():
            base = np.stack([np.asarray(circuit.gates[numbers[0]]) for numbers in groups])
            kind = COMPLEX[dtype] if self.is_complex else dtype
            self.register_buffer(f"base{width}", torch.from_numpy(base).to(kind))
            shape = (len(groups), gate_parameters(width, self.ansatz.group))
            start = torch.zeros(shape, dtype=torch.float64)
            if drawn and scale is not None:
                start.normal_(0.0, scale, generator=generator)
            if trainable:
                holder[str(width)] = nn.Parameter(start.to(dtype))
            else:
                holder.register_buffer(str(width), start.to(dtype))
        self.generators = holder
        self._plan(dtype)

    def _plan(self, dtype: torch.dtype) -> None:
        """Which gate stands where in which block.

        All blocks act on `_window` wires, only gates that are wider stand alone. Blocks are the
        products of their gates, each made a matrix of the window's size, and all blocks are
        multiplied at once: the number of calls does not grow with the number of gates.
        """
        places = self.ansatz.placements
        self._window = min(FUSED, self.n)
        slot = {
            j: (width, k)
            for width, groups in self._slots.items()
            for k, numbers in enumerate(groups)
            for j in numbers
        }
        kinds: dict[tuple, list[int]] = {}  # of gates in a window: their slots
        rows: list[list[tuple]] = []
        self._items: list[tuple] = []
        for item in _schedule(self.ansatz):
            if isinstance(item, _Permutation):
                k = len(self._items)
                self.register_buffer(f"target{k}", torch.from_numpy(item.target), False)
                inverse = torch.from_numpy(np.argsort(item.target))
                self.register_buffer(f"source{k}", inverse, False)
                self._items.append(("permute", k, 0))
            elif len(item.wires) > self._window:
                (number,) = item.numbers
                self._items.append(("wide", item.wires[0], slot[number]))
            else:
                first = min(item.wires[0], self.n - self._window)
                self._items.append(("block", first, len(rows)))
                rows.append([])
                for j in item.numbers:
                    offset, width = places[j].wires[0] - first, places[j].width
                    fixed = places[j].fixed
                    members = kinds.setdefault((offset, width, fixed), [])
                    key = 0 if fixed else slot[j][1]
                    if key not in members:
                        members.append(key)
                    rows[-1].append((offset, width, fixed, key))
        self._kinds, start, place = [], 0, {}
        for k, ((offset, width, fixed), members) in enumerate(kinds.items()):
            spread = _spread(offset, width, self._window)
            if fixed is None:
                self.register_buffer(f"members{k}", torch.tensor(members), False)
            else:
                spread = FIXED[fixed].reshape(1, -1) @ spread
            self.register_buffer(f"spread{k}", torch.from_numpy(spread).to(dtype), False)
            self._kinds.append((width, fixed))
            place |= {(offset, width, fixed, key): start + i for i, key in enumerate(members)}
            start += len(members)
        self.register_buffer("one", torch.eye(2**self._window, dtype=dtype).reshape(1, -1), False)
        # the last one is the identity; a power of two of factors is multiplied pair by pair
        length = 1 << max((len(row) - 1).bit_length() for row in rows) if rows else 1
        table = [[place[key] for key in row] + [start] * (length - len(row)) for row in rows]
        self.register_buffer("table", torch.tensor(table, dtype=torch.long), False)

    @property
    def n(self) -> int:
        """Wires."""
        return self.ansatz.n

    @property
    def passes(self) -> int:
        """Products or permutations that an application takes."""
        return len(self._items)

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())

    def _numbers(self) -> dict[int, Tensor]:
        return {width: getattr(self.generators, str(width)) for width in self._slots}

    def stacks(self) -> dict[int, Tensor]:
        """The free gates (count, d, d) by width, in the order of `Ansatz.free`."""
        found = {}
        for width, numbers in self._numbers().items():
            wide = numbers.float() if numbers.dtype in (torch.float16, torch.bfloat16) else numbers
            gates = exponentials(wide, is_complex=self.is_complex)
            found[width] = getattr(self, f"base{width}").to(gates.dtype) @ gates
        return found

    def gates(self) -> list[Tensor]:
        """All gates, one per placement, differentiable."""
        stacks = self.stacks()
        like = next(iter(stacks.values()), self.one)
        found: list = [
            None if place.fixed is None else torch.tensor(FIXED[place.fixed]).to(like)
            for place in self.ansatz.placements
        ]
        for width, groups in self._slots.items():
            for k, numbers in enumerate(groups):
                for j in numbers:
                    found[j] = stacks[width][k]
        return found

    def _blocks(self, stacks: dict[int, Tensor]) -> Tensor:
        """(blocks, 2^window, 2^window)."""
        kind = next(iter(stacks.values()), self.one).dtype
        size = 2**self._window
        found = []
        for k, (width, fixed) in enumerate(self._kinds):
            spread = getattr(self, f"spread{k}").to(kind)
            if fixed is None:
                gates = stacks[width].index_select(0, getattr(self, f"members{k}"))
                spread = gates.flatten(1) @ spread
            found.append(spread)
        found.append(self.one.to(kind))
        factors = torch.cat(found).index_select(0, self.table.reshape(-1))
        factors = factors.reshape(*self.table.shape, size, size)
        while factors.shape[1] > 1:
            factors = factors[:, 0::2] @ factors[:, 1::2]
        return factors[:, 0]

    def pull(self, x: Tensor) -> Tensor:
        """Q @ x of an array (2^n, m)."""
        return self._applied(x, forward=False)

    def push(self, x: Tensor) -> Tensor:
        """Q^T @ x of an array (2^n, m): its columns as rows, ``(x.T @ Q).T``."""
        return self._applied(x, forward=True)

    def _applied(self, x: Tensor, *, forward: bool) -> Tensor:
        stacks, shape = self.stacks(), x.shape
        blocks = self._blocks(stacks).unbind() if len(self.table) else ()
        wide = {width: stack.unbind() for width, stack in stacks.items() if width > self._window}
        for kind, first, which in self._items if forward else reversed(self._items):
            if kind == "permute":
                x = x.index_select(0, getattr(self, f"{'source' if forward else 'target'}{first}"))
                continue
            gate = blocks[which] if kind == "block" else wide[which[0]][which[1]]
            gate = gate.T if forward else gate
            x = torch.matmul(gate.to(x.dtype), x.reshape(2**first, len(gate), -1)).reshape(shape)
        return x

    def forward(self, x: Tensor) -> Tensor:
        """x @ Q of a batch (..., 2^n)."""
        if x.shape[-1] != 2**self.n:
            raise ValueError(
                f"x of shape {tuple(x.shape)} must have {2**self.n} amplitudes in its last axis"
            )
        return self.push(x.reshape(-1, x.shape[-1]).T).T.reshape(x.shape)

    def to_dense(self) -> Tensor:
        """Q, (2^n, 2^n), differentiable."""
        kind = getattr(self, f"base{next(iter(self._slots))}") if self._slots else self.one
        return self.pull(torch.eye(2**self.n, dtype=kind.dtype, device=kind.device))

    def circuit(self) -> Circuit:
        """The circuit with its gates as they are now, orthogonal in double precision."""
        kind = np.complex128 if self.is_complex else np.float64
        gates = [gate.detach().cpu().numpy().astype(kind) for gate in self.gates()]
        return Circuit(self.ansatz, tuple(gates)).projected()

    def extra_repr(self) -> str:
        return f"{self.ansatz}, {self.n_parameters} parameters"


def _numpy_seed(seed):
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (1,), generator=seed).item())
    return seed
