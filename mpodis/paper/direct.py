"""Circuits for a dense matrix directly, W = QR and W = USV, against compressing it to an MPO first.

The end of Sec. IV before IV.1 of arXiv 2509.06653v1 expects the circuits of low-bond MPOs to be
less entangling and more structured than those of dense matrices. Three layers: the MPO of the
compact TNN, the first layer of a dense 64-64-10 network, and the latter compressed to an MPO and
healed. On each, circuits for Q, or for U and V, and circuits around a core of small bond dimension,
at equal CNOTs (two a gate of SO(4)); a QR has one circuit, of twice the depth.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from mpodis.circuit.ansatz import brickwall
from mpodis.direct import circuit_qr, circuit_svd
from mpodis.disentangling import disentangle
from mpodis.factorization import dense_overlap
from mpodis.jobs.records import spread
from mpodis.measures import entanglement
from mpodis.mpo import compress
from mpodis.options import option
from mpodis.paper.base import ROW, Experiment, Options, Panel, on_networks, search_of
from mpodis.paper.layers import TrainedLayer, trained_layer
from mpodis.paper.networks import TNN_BOND
from mpodis.study import Study
from mpodis.synthesis import synthesise
from mpodis.tables import Table

__all__ = ["EXPERIMENT"]

LAYERS = {
    "tnn": "trained MPO, chi 2",
    "dense": "dense layer",
    "compressed": "dense layer, compressed and healed",
}
FACTORS = QR, USV, QR_GIVEN, USV_GIVEN = "QR", "USV", "QR, Q given", "USV, U and V given"
"""Circuits that fit W with the best R or S, and circuits that fit given factors of W."""
NO_CIRCUITS = "none"
"""In the place of a method: the operators themselves."""
CASE = ["layer", "method"]


@dataclass(frozen=True)
class Direct(Options):
    """Depths of each of two circuits, cores to compare with, and the effort of every method."""

    seeds: int = 3
    depths: tuple[int, ...] = option((1, 2, 4, 8, 16), "Layers of each circuit.", least=1)
    core_bonds: tuple[int, ...] = option((1, 2, 4), "Bonds of the cores.", least=1)
    compress_bond: int = option(4, "Bond of the compressed layer.", least=1)
    starts: int = option(2, "Near-identity starts.", least=1)
    explore: int = option(10, "Sweeps of each start.", least=1)
    max_sweeps: int = option(60, "Sweeps of the best start.", least=1)


def study(options: Direct) -> Study:
    bonds = {"tnn": TNN_BOND, "dense": options.compress_bond, "compressed": options.compress_bond}
    cases = []
    for layer, bond in bonds.items():
        # a core as large as that of the layer needs no circuit; a dense layer has none
        cores = [f"chi' {x}" for x in options.core_bonds if x < bond or layer == "dense"]
        for method in (NO_CIRCUITS, *FACTORS, *cores):
            cases.append({"layer": layer, "bond": bond, "method": method})
    settings = {"search": search_of(options)}
    return on_networks(written, options, name="direct", cases=cases, settings=settings)


def written(
    *, layer, bond, method, seed, data, data_dir, networks, depths, search
) -> dict[str, Any]:
    """One way to write the layer, at every depth."""
    where = {"data": data, "data_dir": data_dir, "networks": networks}
    trained = trained_layer(layer, seed=seed, bond=bond, **where)
    if method == NO_CIRCUITS:
        return {ROW: operators(trained, seed)}
    search, rows = search | {"seed": seed}, []
    for depth in depths:
        began = time.perf_counter()
        circuits, found, parameters = approximate(trained.matrix, method, depth, search)
        places = [place for circuit in circuits for place in circuit.ansatz.placements]
        row = {
            "depth": depth,
            "cx": 2 * sum(place.width == 2 for place in places),  # of a gate of SO(4)
            "parameters": parameters,
            "overlap": dense_overlap(trained.matrix, found),
            "s_avg": mean(entanglement(circuit.to_dense()).average for circuit in circuits),
            "accuracy": trained.accuracy(found),
        }
        rows.append(row | {"search_seconds": time.perf_counter() - began})
    return {ROW: rows}


def operators(trained: TrainedLayer, seed: int) -> list[dict[str, Any]]:
    """How entangled W, its factors and a random matrix are; the numbers of an MPO hold W."""
    matrix = trained.matrix
    u, _, vh = np.linalg.svd(matrix)
    random = np.linalg.qr(np.random.default_rng(seed).normal(size=matrix.shape))[0]
    named = {"W": matrix, "Q": np.linalg.qr(matrix)[0], "U": u, "V": vh, "random": random}
    mpo = compress(matrix)
    of_w = {
        "mpo_bond": max(mpo.bonds, default=1),
        "parameters": mpo.parameters,
        "accuracy": trained.accuracy(matrix),
    }
    return [
        {"operator": name, "s_avg": entanglement(operator).average}
        | (of_w if name == "W" else dict.fromkeys(of_w, math.nan))
        for name, operator in named.items()
    ]


def rotation(matrix):
    """The last column turned round where the determinant is -1; S or R takes its sign."""
    signs = np.ones(len(matrix))
    signs[-1] = np.linalg.slogdet(matrix)[0]
    return matrix * signs


def approximate(matrix, method: str, depth: int, search: dict):
    """Circuits, dense product and classical parameters; one circuit alone has twice the depth."""
    to_factors = {name: value for name, value in search.items() if name != "init_sweeps"}
    if method == QR:
        found = circuit_qr(matrix, 2 * depth, **search)
        return [found.left], found.to_dense(), found.parameters
    if method == USV:
        found = circuit_svd(matrix, depth, **search)
        return [found.left, found.right], found.to_dense(), found.parameters
    if method == QR_GIVEN:
        q = rotation(np.linalg.qr(matrix)[0])
        circuit = synthesise(q, 2 * depth, **to_factors).circuit
        upper = np.triu(circuit.to_dense().T @ matrix)
        return [circuit], circuit.to_dense() @ upper, matrix.shape[0] * (matrix.shape[0] + 1) // 2
    if method == USV_GIVEN:
        u, _, vh = np.linalg.svd(matrix)
        places = brickwall(len(matrix).bit_length() - 1, depth)
        left = synthesise(rotation(u), places, **to_factors).circuit
        right = synthesise(rotation(vh.T).T, places.reversed(), **to_factors).circuit
        diagonal = np.diag(left.to_dense().T @ matrix @ right.to_dense().T)
        return [left, right], left.to_dense() * diagonal @ right.to_dense(), len(diagonal)
    bond = int(method.split()[1])
    found = disentangle(compress(matrix), left=depth, max_bond=bond, init="identity", **search)
    parts = found.factorization
    return [parts.left, parts.right], parts.to_dense(), parts.parameter_counts()["core"]


def tables(frame: pd.DataFrame) -> list[Table]:
    given, circuits = (frame.query(f"method {x} @NO_CIRCUITS") for x in ("==", "!="))
    circuits = circuits.astype({"depth": int, "parameters": int})
    two, one = partial(spread, digits=2), partial(spread, digits=1)
    entropies = given.pivot_table("s_avg", "layer", "operator", two, sort=False)
    how: dict[Any, Any] = {"mpo_bond": "mean", "parameters": "mean", "accuracy": one}
    whole = given.dropna(subset="parameters").pivot_table(list(how), "layer", aggfunc=how)
    overlaps = circuits.pivot_table("overlap", CASE, "depth", "median", sort=False)
    how = {"parameters": "first", "s_avg": two, "accuracy": one}
    last = circuits.query("depth == depth.max()").pivot_table(list(how), CASE, aggfunc=how)
    return [
        Table.from_dataframe(
            entropies.join(whole.filter(["mpo_bond", "parameters", "accuracy"])).rename(LAYERS),
            title="S_avg of W and of its factors (nats), median (least to most)",
            notes=("W = QR = USV; random: an orthogonal matrix of the Haar measure",),
        ),
        Table.from_dataframe(
            overlaps.add_prefix("f, depth ").join(last.filter(how)).rename(LAYERS),
            title="overlap with W, medians",
            notes=(
                "a QR has one circuit of twice the depth; parameters: R, S or core, which stay "
                "classical",
                "entropies of the circuits and accuracy at the last depth, without retraining",
            ),
        ),
    ]


def draw(frame: pd.DataFrame, ax: Axes, *, layer: str) -> None:
    each = frame.query("layer == @layer and method != @NO_CIRCUITS")
    for k, method in enumerate(each["method"].unique()):
        curves = each.query("method == @method").pivot_table("overlap", "cx", "seed")
        style = {"color": f"C{k}", "lw": 1, "ls": "--" if "given" in method else "-"}
        ax.plot(curves, marker=".", **style)
        ax.plot([], [], marker=".", label=method, **style)
    ax.set(xlabel="CNOTs of the circuits", ylabel="overlap f", title=LAYERS[layer])
    ax.legend(fontsize="x-small")


EXPERIMENT = Experiment(
    name="direct",
    title="Circuits for Q, U and V against compressing first",
    options=Direct,
    study=study,
    tabulate=tables,
    panels=tuple(
        Panel(name, f"{title}; one line a network.", partial(draw, layer=name))
        for name, title in LAYERS.items()
    ),
)
