#!/usr/bin/env python
"""Time and memory of the trained layers: our plans beside what else there is.

    python scripts/bench/layers.py --out notebooks/records/layers.json

Forward and backward of one step, float32, one core; a square layer of l qubits, brickwalls of d
layers on both sides and a core of bond 2. Every point is measured in turns, its methods one after
the other, each right behind a step of its own that is not counted, and the least time is kept.
Memory: bytes of the distinct arrays that autograd keeps for the backward pass, parameters aside.
Missing packages are left out.

"gate by gate": every gate on the batch. "einsum": the paper's single einsum over batch, gates and
core, where its 52 letters are enough. The layer of tensorly-torch and the network of
TensorKrowch are MPOs without circuits, and compared with `MPOLinear`; "dense from MPO"
is the same with its weight built site by site from the left and applied in one product.
"""

from __future__ import annotations

import os

for name in ("OMP", "OPENBLAS", "MKL"):  # before numpy is imported
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import argparse
import itertools
import math
import shlex
import string
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from mpodis import __version__
from mpodis.files import write_json
from mpodis.nn import HybridLinear, MPOLinear
from mpodis.tables import Table

BOND = 2
WARM = 50.0
"""Milliseconds of a step beyond which it does not matter what the caches held before."""


def hybrid(qubits: int, depth: int, batch: int, plan: str | None) -> HybridLinear:
    spec = f"{depth}*2b"
    legs = ((2, 2),) * qubits
    return HybridLinear(legs, BOND, left=spec, right=spec, batch_size=batch, plan=plan, seed=0)


class GateByGate(nn.Module):
    """The same numbers, one product a gate."""

    def __init__(self, layer: HybridLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        y = _on_rows(x, self.layer.left[0])
        return _on_rows(y @ self.layer.core.weight(), self.layer.right[0])


def _on_rows(x, circuit):
    for place, gate in zip(circuit.ansatz.placements, circuit.gates(), strict=True):
        first, size = place.wires[0], len(gate)
        x = torch.matmul(gate.T, x.reshape(len(x) * 2**first, size, -1)).reshape(x.shape)
    return x


class FromTheLeft(nn.Module):
    """The weight of an MPO site by site, and one product."""

    def __init__(self, layer: MPOLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        first, *rest = self.layer.site_tensors
        weight = first[0]  # (inputs, outputs, bond)
        for core in rest:
            weight = torch.tensordot(weight, core, 1).transpose(1, 2)
            inputs, i, outputs, o, bond = weight.shape
            weight = weight.reshape(inputs * i, outputs * o, bond)
        return x @ weight[..., 0]


class Einsum(nn.Module):
    """All tensors in one torch.einsum."""

    def __init__(self, layer: HybridLinear) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        letters = iter(string.ascii_letters)
        n, layer = len(self.layer.legs), self.layer
        batch, now = next(letters), [next(letters) for _ in range(n)]
        terms, arrays = [batch + "".join(now)], [x.reshape(-1, *[2] * n)]

        def add(circuit, now):
            for place, gate in zip(circuit.ansatz.placements, circuit.gates(), strict=True):
                before = [now[w] for w in place.wires]
                for w in place.wires:
                    now[w] = next(letters)
                terms.append("".join(before + [now[w] for w in place.wires]))
                arrays.append(gate.reshape([2] * (2 * place.width)))

        add(layer.left[0], now)
        inner = [next(letters) for _ in range(n)]
        bonds = [next(letters) for _ in range(n + 1)]
        for k, core in enumerate(layer.core.site_tensors):
            terms.append(bonds[k] + now[k] + inner[k] + bonds[k + 1])
            arrays.append(core)
        add(layer.right[0], inner)
        equation = ",".join(terms) + "->" + batch + "".join(inner)
        return torch.einsum(equation, *arrays).reshape(len(x), -1)


def methods(qubits: int, depth: int, batch: int) -> dict[str, Callable]:
    """Modules by name, all with the same numbers."""
    ours = {plan: hybrid(qubits, depth, batch, plan) for plan in ("matrix", "batch", "network")}
    found: dict[str, nn.Module] = {"chosen": hybrid(qubits, depth, batch, None), **ours}
    found["gate by gate"] = GateByGate(ours["batch"])
    found["einsum"] = Einsum(ours["batch"])
    return found


def plain(qubits: int) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        "MPOLinear": MPOLinear(((2, 2),) * qubits, BOND, seed=0),
        "dense from MPO": FromTheLeft(MPOLinear(((2, 2),) * qubits, BOND, seed=0)),
        "nn.Linear": nn.Linear(2**qubits, 2**qubits, bias=False),
    }
    for package, make in (("tensorly-torch", _tensorly), ("TensorKrowch", _krowch)):
        try:
            found |= make(qubits)
        except ImportError:
            print(f"{package} is not installed and left out")
    return found


def _tensorly(qubits: int) -> dict[str, nn.Module]:
    import tltorch

    found = {}
    for mode in ("reconstructed", "factorized"):
        found[f"tensorly-torch, {mode}"] = tltorch.FactorizedLinear(
            in_tensorized_features=(2,) * qubits,
            out_tensorized_features=(2,) * qubits,
            factorization="blocktt",
            rank=BOND,
            bias=False,
            implementation=mode,
        )
        for p in found[f"tensorly-torch, {mode}"].parameters():
            nn.init.normal_(p, 0.0, 0.5)
    return found


def _krowch(qubits: int) -> dict[str, nn.Module]:
    """The same network in nodes of TensorKrowch, x contracted with one core after the other.

    Its own MPO takes a product of vectors as its input, not a vector of all qubits.
    """
    import tensorkrowch as tk

    class Network(tk.TensorNetwork):
        def __init__(self) -> None:
            super().__init__()
            self.sites = []
            for k in range(qubits):
                axes = {"left": BOND if k else 0, "input": 2, "output": 2}
                axes["right"] = BOND if k < qubits - 1 else 0
                axes = {name: size for name, size in axes.items() if size}
                self.sites.append(
                    tk.ParamNode(
                        shape=tuple(axes.values()),
                        axes_names=tuple(axes),
                        name=f"core_{k}",
                        network=self,
                        init_method="randn",
                        std=0.5,
                    )
                )
            for a, b in itertools.pairwise(self.sites):
                a["right"] ^ b["left"]
            inputs = tuple(f"input_{k}" for k in range(qubits))
            self.rows = tk.Node(
                shape=(1, *[2] * qubits),
                axes_names=("batch", *inputs),
                name="rows",
                network=self,
                data=True,
            )
            for name, site in zip(inputs, self.sites, strict=True):
                self.rows[name] ^ site["input"]

        def set_data_nodes(self, *args, **kwargs) -> None:
            """There is one, of all qubits."""

        def add_data(self, data) -> None:
            self.rows.tensor = data

        def contract(self):
            result = self.rows
            for site in self.sites:
                result = result @ site
            return result

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = Network()

        def forward(self, x):
            return self.network(x.reshape(-1, *[2] * qubits)).reshape(x.shape)

    return {"TensorKrowch": Layer()}


def step(module: nn.Module, x: torch.Tensor) -> None:
    module(x).square().mean().backward()
    for p in module.parameters():
        p.grad = None


def kept(module: nn.Module, x: torch.Tensor) -> int:
    """Bytes that the backward pass holds, each storage once, parameters and x aside."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    own.add(x.untyped_storage().data_ptr())
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = module(x).square().mean()
    loss.backward()
    return sum(sizes.values())


def measured(modules: dict[str, nn.Module], qubits: int, batch: int, seconds: float) -> dict:
    """Least milliseconds and megabytes of every method that works."""
    x = torch.randn(batch, 2**qubits, generator=torch.Generator().manual_seed(0))
    found: dict[str, dict] = {}
    for name, module in modules.items():
        try:
            found[name] = {"ms": math.inf, "MB": kept(module, x) / 1e6}  # warms up, too
        except (StopIteration, RuntimeError) as error:
            print(f"  {name}: {type(error).__name__} {str(error)[:70]}")
    start, rounds = time.perf_counter(), 0
    # where a round takes long it is its own average, and one or two have to do
    while rounds < 1 or time.perf_counter() - start < (seconds if rounds > 2 else 4 * seconds):
        for name, row in found.items():
            if row["ms"] < WARM:
                step(modules[name], x)  # a step of training follows its like, not another method
            began = time.perf_counter()
            step(modules[name], x)
            row["ms"] = min(row["ms"], 1e3 * (time.perf_counter() - began))
        rounds += 1
    return found


def tables(rows: list[dict]) -> list[Table]:
    circuits = [row for row in rows if row["depth"]]
    names = ["chosen", "matrix", "batch", "network", "gate by gate", "einsum"]
    found = []
    for unit in ("ms", "MB"):
        cells = [
            (
                *(row[key] for key in ("qubits", "depth", "batch")),
                " ".join(row["plan"]),
                *(row["methods"].get(name, {}).get(unit) for name in names),
            )
            for row in circuits
        ]
        found.append(
            Table(("qubits", "depth", "batch", "plan", *names), cells, title=f"circuits, {unit}")
        )
    others = [row for row in rows if not row["depth"]]
    names = list(dict.fromkeys(name for row in others for name in row["methods"]))
    cells = [
        (
            *(row[key] for key in ("qubits", "batch")),
            *(row["methods"].get(name, {}).get("ms") for name in names),
        )
        for row in others
    ]
    found.append(Table(("qubits", "batch", *names), cells, title="MPO alone, ms"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--qubits", default="6,8,10,12")
    parser.add_argument("--depths", default="2,4,8,16", help='"" for MPOs without circuits only')
    parser.add_argument("--batches", default="256,1024")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a point")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    qubits, depths, batches = (
        [int(word) for word in getattr(options, name).split(",") if word]
        for name in ("qubits", "depths", "batches")
    )
    torch.set_num_threads(1)
    rows = []
    for n, batch in itertools.product(qubits, batches):
        modules = plain(n)
        rows.append(
            {"qubits": n, "depth": 0, "batch": batch, "plan": []}
            | {"methods": measured(modules, n, batch, options.seconds)}
        )
        store(options, rows)
        for d in depths:
            modules = methods(n, d, batch)
            plan = modules["chosen"].plan
            rows.append(
                {"qubits": n, "depth": d, "batch": batch, "plan": list(plan)}
                | {"methods": measured(modules, n, batch, options.seconds)}
            )
            row = {name: round(m["ms"], 2) for name, m in rows[-1]["methods"].items()}
            print(f"l={n} d={d} batch={batch} {plan[0]}/{plan[1]}: {row}", flush=True)
            store(options, rows)
    for table in tables(rows):
        print(table, end="\n\n")


def store(options: argparse.Namespace, rows: list[dict]) -> None:
    """The record so far: what has been measured is not lost with the rest."""
    if options.out:
        depths = shlex.quote(options.depths)
        command = f"scripts/bench/layers.py --qubits {options.qubits} --depths {depths}"
        command += f" --batches {options.batches} --seconds {options.seconds}"
        record = {"command": command, "version": __version__, "torch": torch.__version__}
        write_json(options.out, record | {"rows": rows})


if __name__ == "__main__":
    main()
