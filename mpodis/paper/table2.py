"""Table 2 of arXiv 2509.06653v1: accuracy with circuits in the network, executed and read out.

The paper's networks have one gate as wide as the operator on each side: fitted in closed form to a
trained MPO layer, or trained in its place. All is executed on Aer: exactly, read by tomography (as
in the paper; with the sign measured, and left open), and by interference. 2-body circuits also run
with the noise of FakeMontreal.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from mpodis.data import Dataset
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.mpo import truncate
from mpodis.nn import (
    RECIPES,
    CompactTNN,
    HybridLinear,
    accuracy,
    collect_activations,
    train_classifier,
)
from mpodis.nn.linear import torch_generator
from mpodis.paper.by_pieces import Experiment, Options, Panel, Piece
from mpodis.paper.implicit import mean_spread
from mpodis.paper.networks import dataset, network, submodule
from mpodis.quantum import (
    BrickwallEncoding,
    Hypercube,
    Interference,
    NoisyRunner,
    Runner,
    ShotRunner,
    StatevectorRunner,
    Tomography,
    TreeEncoding,
    execute_layer,
)
from mpodis.structured import full_width_gates
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

PAPER = {
    ("wide", "exact"): 92.6,
    ("wide", "tomography 1024"): 92.4,
    ("trained", "exact"): 94.7,
    ("trained", "tomography 1024"): 93.6,
}
"""Percent as published: matrices ("classical" there), and circuits read by tomography."""


READOUTS = {"tomography": Tomography, "hypercube": Hypercube, "interference": Interference}
OPEN = "sign open"
TREE = "exact tree"


@dataclass(frozen=True)
class Table2(Options):
    """What is run.

    Attributes
    ----------
    images : int
        Test images, the first ones; 0: all.
    noisy_images : int
        Of those, how many run with noise.
    depth : int
        Layers of the 2-body circuits.
    tomography : tuple of int
        Shots in each setting.
    interference : tuple of int
        Shots in all.
    hypercube : tuple of int
        Shots in each setting.
    rows : tuple of str
        Of "wide", "trained" and "2-body".
    """

    seeds: int = 3
    images: int = 0
    noisy_images: int = 500
    depth: int = 2
    tomography: tuple[int, ...] = (4, 16, 64, 256, 1024)
    interference: tuple[int, ...] = (1000, 10_000, 100_000)
    hypercube: tuple[int, ...] = (200, 2000, 20_000)
    rows: tuple[str, ...] = ("wide", "trained", "2-body")

    def __post_init__(self) -> None:
        super().__post_init__()
        for row in self.rows:
            if row not in CIRCUITS:
                raise ValueError(f"row {row!r} is not known; use {', '.join(CIRCUITS)}")
        for name in READOUTS:
            if min(getattr(self, name), default=1) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be numbers of shots above 0")


def _pieces(options: Table2) -> list[Piece]:
    names = ("data", "data_dir", "networks", "images", "depth")
    same = {k: getattr(options, k) for k in names}
    found = []
    for seed in options.range:
        for row in options.rows:
            for name, given in _executions(options, row).items():
                arguments = {"seed": seed, "row": row, "name": name, "execution": given, **same}
                words = name.replace(",", "").replace(" ", "-")
                found.append(Piece(f"{row}-{words}-seed{seed}", _run, arguments))
    return found


def _executions(options: Table2, row: str) -> dict[str, dict]:
    """Name and settings of every way in which a row is executed."""
    found: dict[str, dict] = {"exact": {"kind": "exact"}}
    for kind in READOUTS:
        every = sorted(getattr(options, kind))
        # how accuracy depends on shots is seen once, on the paper's circuits
        for shots in every if row == "wide" else every[-1:]:
            found[f"{kind} {shots}"] = {"kind": kind, "shots": shots}
            if row == "wide" and kind == "tomography":
                found[f"tomography {shots}, {OPEN}"] = {"kind": kind, "shots": shots, "sign": 0}
    if row == "2-body":
        bricks = BrickwallEncoding().layers
        for name, layers in (("FakeMontreal", bricks), (f"FakeMontreal, {TREE}", 0)):
            found[name] = {"kind": "noise", "images": options.noisy_images, "encoding": layers}
    return found


def _runner(execution: dict, seed: int) -> Runner:
    kind = execution["kind"]
    if kind == "exact":
        return StatevectorRunner(threads=1)
    if kind == "noise":
        layers = execution["encoding"]
        encoding = BrickwallEncoding(layers, seed) if layers else TreeEncoding()
        return NoisyRunner(encoding=encoding, seed=seed, threads=1)
    sign = {"sign_shots": execution["sign"]} if "sign" in execution else {}
    return ShotRunner(READOUTS[kind](execution["shots"], **sign), seed=seed, threads=1)


def _run(*, data, data_dir, networks, images, depth, seed, row, name, execution) -> dict:
    given = dataset(data, data_dir)
    model, factorization = CIRCUITS[row](given, networks, seed, depth)
    count = execution.get("images") or images or len(given.x_test)
    x, y = given.x_test[:count], given.y_test[:count]
    classical = np.argmax(_logits(model, x @ factorization.to_dense()), 1)
    began = time.perf_counter()
    hidden = execute_layer(factorization, x, runner=_runner(execution, seed))
    seconds = time.perf_counter() - began
    executed = np.argmax(_logits(model, hidden), 1)
    return {
        "seed": seed,
        "row": row,
        "name": name,
        "images": len(y),
        "network": accuracy(model, x, y),
        "classical": 100 * float(np.mean(classical == y)),
        "executed": 100 * float(np.mean(executed == y)),
        "agreement": 100 * float(np.mean(executed == classical)),
        "settings": _settings(execution, factorization),
        "seconds": seconds,
    }


def _settings(execution: dict, factorization: Factorization) -> tuple[int, int]:
    """Circuits and shots of one image, of both sides."""
    runner = _runner(execution, 0)
    sides = (factorization.left.n, factorization.right.n)
    return sum(map(runner.n_circuits, sides)), sum(map(runner.n_shots, sides))


@torch.no_grad()
def _logits(model: nn.Module, hidden: np.ndarray) -> np.ndarray:
    """What the network makes of the outputs of its first layer."""
    head, norm = submodule(model, "head"), submodule(model, "norm")
    return head(torch.relu(norm(torch.from_numpy(hidden)))).numpy()


def _wide(data: Dataset, networks: str, seed: int, depth: int):
    model = network(data.name, networks, seed)
    mpo = model.mpo.to_mpo()
    first = truncate(mpo, max_bond=1).mpo
    return model, full_width_gates(mpo, first, update=True, n_init=4).factorization


def _two_body(data: Dataset, networks: str, seed: int, depth: int):
    model = network(data.name, networks, seed)
    seen = collect_activations(model, "mpo", data.x_train, with_sensitivity=True)
    found = disentangle(
        model.mpo.to_mpo(),
        left=depth,
        objective="activations",
        covariance=seen.covariance,
        sensitivity=seen.sensitivity,
        init="grown",
        seed=seed,
    )
    return model, found.factorization


def _trained(data: Dataset, networks: str, seed: int, depth: int):
    """The compact network trained with gates as wide as the operator around a product core."""
    generator = torch_generator(seed)
    model = CompactTNN(inputs=data.features, bond=1, classes=data.classes, seed=generator)
    n = len(model.mpo.legs)
    layer = HybridLinear(model.mpo.legs, 1, left=f"{n}b", right=f"{n}b", seed=generator)
    model.add_module("mpo", layer)
    recipe = RECIPES[data.name]
    model, _ = train_classifier(model, data, **vars(recipe), seed=generator)
    factorization = submodule(model, "mpo").factorization()
    return model.double(), factorization


CIRCUITS: dict[str, Callable[[Dataset, str, int, int], tuple[nn.Module, Factorization]]] = {
    "wide": _wide,
    "trained": _trained,
    "2-body": _two_body,
}


def _rows(record: dict) -> dict[tuple[str, str], list[dict]]:
    found: dict[tuple[str, str], list[dict]] = {}
    for piece in record["pieces"].values():
        found.setdefault((piece["row"], piece["name"]), []).append(piece)
    return found


def lost(pieces: list[dict]) -> list[float]:
    """Points of accuracy that the execution costs, network by network."""
    return [piece["classical"] - piece["executed"] for piece in pieces]


def _tables(record: dict) -> list[Table]:
    rows = []
    for (row, name), pieces in _rows(record).items():
        circuits, shots = pieces[0]["settings"]
        images = pieces[0]["images"]
        share = sum(p["executed"] for p in pieces) / len(pieces) / 100
        rows.append(
            (
                row,
                name,
                mean_spread([p["network"] for p in pieces]),
                mean_spread([p["classical"] for p in pieces]),
                mean_spread([p["executed"] for p in pieces]),
                mean_spread(lost(pieces)),
                f"{196 * math.sqrt(share * (1 - share) / images):.2f}",
                f"{sum(p['agreement'] for p in pieces) / len(pieces):.2f}",
                images,
                circuits,
                f"{shots:,}",
                PAPER.get((row, name)),
            )
        )
    columns = ("circuits", "execution", "network %", "classical %", "executed %", "lost")
    more = ("+- (95 %)", "agree %", "images", "settings", "shots", "paper %")
    return [
        Table(
            (*columns, *more),
            rows,
            title="test accuracy, mean +- standard deviation (least to most) over networks",
            notes=(
                "network: the trained one; classical: with the circuits in its place as a matrix",
                "+-: of one network, by the number of images; settings and shots: of one image",
            ),
        )
    ]


def _draw(record: dict, ax: Axes) -> Axes:
    found = _rows(record)
    for k, ((_, _), pieces) in enumerate(found.items()):
        values = lost(pieces)
        ax.plot(values, [k] * len(values), "o", color=f"C{k % 10}", alpha=0.6)
    ax.axvline(0, color="0.6", lw=1)
    ax.set_yticks(range(len(found)), [f"{row}, {name}" for row, name in found], fontsize="small")
    ax.set(xlabel="points of accuracy lost in the execution")
    ax.invert_yaxis()
    return ax


def _draw_shots(record: dict, ax: Axes) -> Axes:
    """Accuracy of the paper's circuits against the shots that an image takes."""
    lines: dict[str, list[tuple[int, list[float]]]] = {}
    for (row, name), pieces in _rows(record).items():
        shots = pieces[0]["settings"][1]
        if row == "wide" and shots:
            kind = name.split()[0] + (f", {OPEN}" if OPEN in name else "")
            lines.setdefault(kind, []).append((shots, [p["executed"] for p in pieces]))
    for kind, points in lines.items():
        shots, values = zip(*sorted(points), strict=True)
        means, low, high = ([f(v) for v in values] for f in (lambda v: sum(v) / len(v), min, max))
        (line,) = ax.plot(shots, means, "o-", label=kind)
        ax.fill_between(shots, low, high, color=line.get_color(), alpha=0.15, lw=0)
    classical = [
        p["classical"] for (row, _), found in _rows(record).items() for p in found if row == "wide"
    ]
    if classical:
        ax.axhline(sum(classical) / len(classical), color="0.6", lw=1, label="as a matrix")
    if lines:
        ax.legend(fontsize="small")
    ax.set(xscale="log", xlabel="shots for an image (both circuits)", ylabel="test accuracy / %")
    return ax


def _finding(record: dict) -> str:
    parts = [
        f"{row}, {name}: {mean_spread(lost(pieces))}"
        for (row, name), pieces in _rows(record).items()
    ]
    return (
        "Points of accuracy lost against the same circuits as matrices, mean +- standard deviation "
        f"(least to most) over {len(record['seeds'])} networks: {'; '.join(parts)}."
    )


EXPERIMENT = Experiment(
    name="table2",
    title="Circuits in the network, executed and read out (Table 2)",
    options=Table2,
    pieces=_pieces,
    tables=_tables,
    finding=_finding,
    panels=(
        Panel("lost", "Accuracy lost in the execution, network by network.", _draw),
        Panel("shots", "Accuracy against shots; band: least to most of the networks.", _draw_shots),
    ),
)
