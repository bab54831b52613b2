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
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from torch import nn

from mpodis import quantum
from mpodis.data import Dataset
from mpodis.disentangling import disentangle
from mpodis.factorization import Factorization
from mpodis.jobs.records import mean_spread
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
from mpodis.options import option
from mpodis.paper.base import Experiment, Options, Panel, draw_points, on_networks
from mpodis.paper.networks import dataset, network, submodule
from mpodis.structured import full_width_gates
from mpodis.study import Study
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

PAPER = {("wide", "tomography", 1024): 0.2, ("trained", "tomography", 1024): 1.1}
"""Points that are lost as published, between its "classical" accuracy and that of tomography."""
READOUTS = {
    "tomography": quantum.Tomography,
    "hypercube": quantum.Hypercube,
    "interference": quantum.Interference,
}
EVERY = ("wide", "trained", "2-body")
OPEN = "tomography, sign open"
NOISE = {"FakeMontreal": quantum.BrickwallEncoding().layers, "FakeMontreal, exact tree": 0}
"""Layers of the encoding."""
EXECUTION = ["circuits", "readout", "shots"]


@dataclass(frozen=True)
class Table2(Options):
    """Which circuits are run on how many of the test images, and with how many shots.

    Shots of tomography and hypercube are those of each setting, of interference all.
    """

    seeds: int = 3
    images: int = option(0, "The first of the test images; 0: all.", least=0)
    noisy_images: int = option(500, "The first of the test images with noise; 0: all.", least=0)
    depth: int = option(2, "Layers of the 2-body circuits.", least=1)
    tomography: tuple[int, ...] = option((4, 16, 64, 256, 1024), "Shots.", least=1)
    interference: tuple[int, ...] = option((1000, 10_000, 100_000), "Shots.", least=1)
    hypercube: tuple[int, ...] = option((200, 2000, 20_000), "Shots.", least=1)
    rows: tuple[str, ...] = option(EVERY, "Circuits.", choices=EVERY)


def study(options: Table2) -> Study:
    cases = []
    for circuits in options.rows:
        ways = [("exact", 0)]
        for readout in READOUTS:
            every = sorted(getattr(options, readout))
            # how accuracy depends on shots is seen once, on the paper's circuits
            for shots in every if circuits == "wide" else every[-1:]:
                ways.append((readout, shots))
                if circuits == "wide" and readout == "tomography":
                    ways.append((OPEN, shots))
        if circuits == "2-body":
            ways += [(name, 0) for name in NOISE]
        for readout, shots in ways:
            images = options.noisy_images if readout in NOISE else options.images
            case = {"circuits": circuits, "readout": readout, "shots": shots, "images": images}
            cases.append(case)
    return on_networks(execution, options, name="table2", cases=cases)


def execution(
    *, circuits, readout, shots, images, depth, seed, data, data_dir, networks
) -> dict[str, Any]:
    """Accuracy with the circuits executed, and as matrices."""
    given = dataset(data, data_dir)
    model, factorization = layer(circuits, data, data_dir, networks, seed, depth)
    count = images or len(given.x_test)
    x, y = given.x_test[:count], given.y_test[:count]
    classical = np.argmax(logits(model, x @ factorization.to_dense()), 1)
    run = runner(readout, shots, seed)
    began = time.perf_counter()
    hidden = quantum.execute_layer(factorization, x, runner=run)
    seconds = time.perf_counter() - began
    executed = np.argmax(logits(model, hidden), 1)
    sides = (factorization.left.n, factorization.right.n)
    return {
        "tested": len(y),
        "network": accuracy(model, x, y),
        "classical": 100 * float(np.mean(classical == y)),
        "executed": 100 * float(np.mean(executed == y)),
        "agreement": 100 * float(np.mean(executed == classical)),
        "n_circuits": sum(map(run.n_circuits, sides)),
        "n_shots": sum(map(run.n_shots, sides)),
        "execution_seconds": seconds,
    }


def runner(readout: str, shots: int, seed: int) -> quantum.Runner:
    if readout == "exact":
        return quantum.StatevectorRunner(threads=1)
    if readout in NOISE:
        layers = NOISE[readout]
        encoding = quantum.BrickwallEncoding(layers, seed) if layers else quantum.TreeEncoding()
        return quantum.NoisyRunner(encoding=encoding, seed=seed, threads=1)
    given = quantum.Tomography(shots, sign_shots=0) if readout == OPEN else READOUTS[readout](shots)
    return quantum.ShotRunner(given, seed=seed, threads=1)


@lru_cache(maxsize=4)
def layer(
    circuits: str, data: str, data_dir: str | None, networks: str, seed: int, depth: int
) -> tuple[nn.Module, Factorization]:
    """The network and the circuits of its layer, found once for all executions of a process."""
    return CIRCUITS[circuits](dataset(data, data_dir), networks, seed, depth)


@torch.no_grad()
def logits(model: nn.Module, hidden: np.ndarray) -> np.ndarray:
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


def tables(frame: pd.DataFrame) -> list[Table]:
    share = frame["executed"] / 100
    known = 196 * (share * (1 - share) / frame["tested"]).map(math.sqrt)
    frame = frame.assign(lost=frame["classical"] - frame["executed"], known=known)
    how: dict[Any, Any] = dict.fromkeys(("network", "classical", "executed", "lost"), mean_spread)
    how |= {"known": "mean", "agreement": "mean"}
    how |= dict.fromkeys(("tested", "n_circuits", "n_shots"), "first")
    shown = frame.pivot_table(list(how), EXECUTION, aggfunc=how, sort=False).filter(how)
    paper = pd.Series(PAPER, name="paper, lost").rename_axis(EXECUTION)
    return [
        Table.from_dataframe(
            shown.join(paper).rename(columns={"known": "+- (95 %)"}),
            title="test accuracy (%), mean +- standard deviation (least to most) over networks",
            notes=(
                "network: the trained one; classical: with the circuits in its place as a matrix",
                "+-: of one network, by the number of images; n_circuits, n_shots: of one image",
            ),
        )
    ]


def draw(frame: pd.DataFrame, ax: Axes) -> None:
    shots = frame["shots"].map(lambda count: f" {count}" if count else "")
    names = frame["circuits"] + ", " + frame["readout"] + shots
    lost = frame["classical"] - frame["executed"]
    draw_points(ax, frame.assign(lost=lost, execution=names), "lost", "execution")
    ax.axvline(0, color="0.6", lw=1)
    ax.set(xlabel="points of accuracy lost in the execution")


def draw_shots(frame: pd.DataFrame, ax: Axes) -> None:
    """Accuracy of the paper's circuits against the shots that an image takes."""
    wide = frame.query("circuits == 'wide'")
    mean, low, high = (
        wide.query("shots > 0").pivot_table("executed", "n_shots", "readout", how)
        for how in ("mean", "min", "max")
    )
    for k, readout in enumerate(mean):
        curve = mean[readout].dropna()
        ax.plot(curve, "o-", color=f"C{k}", label=readout)
        ends = low[readout].dropna(), high[readout].dropna()
        ax.fill_between(curve.index, *ends, color=f"C{k}", alpha=0.15, lw=0)
    ax.axhline(float(np.mean(wide["classical"])), color="0.6", lw=1, label="as a matrix")
    ax.set(xscale="log", xlabel="shots for an image (both circuits)", ylabel="test accuracy / %")
    ax.legend(fontsize="small")


EXPERIMENT = Experiment(
    name="table2",
    title="Circuits in the network, executed and read out (Table 2)",
    options=Table2,
    study=study,
    tabulate=tables,
    panels=(
        Panel("lost", "Accuracy lost in the execution, network by network.", draw),
        Panel("shots", "Accuracy against shots; band: least to most of the networks.", draw_shots),
    ),
)
